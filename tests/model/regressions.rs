//! Sequences that went wrong once, each with a name.

use super::ops::Do::*;
use super::ops::Lock::*;
use super::ops::Name::*;
use super::ops::{Op, R, RW, Share, W};

/// The name, whether opens wait for a moment only, and what is done.
pub fn all() -> Vec<(&'static str, bool, Vec<Op>)> {
    vec![
        (
            "a_file_that_is_linked_to_a_coordinated_name_while_it_is_open_is_read",
            false,
            vec![
                Op(0, Open(0, T, RW.creat())),
                Op(0, Link(T, A)),
                Op(0, Unlink(T)),
                Op(1, Look),
                Op(1, Open(0, A, RW)),
            ],
        ),
        (
            "an_open_for_reading_with_o_creat_waits_for_the_creator",
            false,
            vec![
                Op(2, Open(0, A, RW.creat())),
                Op(0, Open(0, A, R.creat())),
                Op(2, Write(0, 0)),
                Op(2, Kill),
                Op(0, Read(0, 9)),
            ],
        ),
        (
            "a_creator_that_unlinked_its_file_opens_it_for_reading_with_o_creat",
            false,
            vec![
                Op(2, Open(0, A, RW.creat().nonblock())),
                Op(2, Unlink(A)),
                Op(2, Open(1, A, R.creat())),
            ],
        ),
        (
            "a_holder_whose_file_was_replaced_by_an_open_one_joins_its_session_with_o_nonblock",
            false,
            vec![
                Op(3, Open(0, A, R.creat())),
                Op(0, Open(0, T, RW.creat())),
                Op(3, Rename(T, A)),
                Op(3, Open(1, A, W.nonblock())),
            ],
        ),
        (
            "after_a_rename_over_its_own_session_the_size_of_what_it_published_is_shown",
            false,
            vec![
                Op(0, Open(0, T, W.creat().trunc())),
                Op(2, Open(2, A, W.creat().trunc())),
                Op(2, Pwrite(2, 0, 0)),
                Op(2, Rename(T, A)),
            ],
        ),
        (
            "a_truncation_by_path_is_of_the_file_that_replaced_the_one_held_open",
            true,
            vec![
                Op(2, Open(1, A, R.creat())),
                Op(0, Open(0, T, RW.creat())),
                Op(2, Rename(T, A)),
                Op(2, Truncate(A, 0)),
            ],
        ),
        (
            "who_had_an_ordinary_file_open_that_became_a_coordinated_one_asks_for_the_same_lock",
            false,
            vec![
                Op(0, Open(0, T, RW.creat())),
                Op(1, Rename(T, A)),
                Op(0, Flock(0, Exclusive)),
                Op(1, Open(0, A, R)),
                Op(1, Flock(0, TryExclusive)),
            ],
        ),
        (
            "who_had_a_coordinated_file_open_that_became_an_ordinary_one_asks_for_the_same_lock",
            false,
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Close(0)),
                Op(0, Open(0, A, R)),
                Op(1, Rename(A, T)),
                Op(0, Flock(0, Exclusive)),
                Op(1, Open(0, T, R)),
                Op(1, Flock(0, TryExclusive)),
            ],
        ),
        (
            "of_two_handles_of_one_process_that_take_turns_with_a_lock_one_publishes_and_the_others_staged_size_is_not_shown",
            false,
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Write(0, 1)),
                Op(0, Close(0)),
                Op(3, Open(2, A, RW)),
                Op(3, Flock(2, Exclusive)),
                Op(3, Write(2, 0)),
                Op(3, Open(0, A, W)),
                Op(3, Flock(2, Shared)),
                Op(3, Flock(2, Un)),
                Op(3, Flock(0, Exclusive)),
                Op(3, Write(2, 5)),
                Op(3, Flock(2, Un)),
                Op(3, Write(2, 3)),
                Op(3, Flock(0, Un)),
                Op(3, Write(0, 5)),
                Op(0, Look),
                Op(3, Close(0)),
                Op(0, Look),
            ],
        ),
        (
            "the_lock_of_a_file_that_its_creator_removed_is_not_the_next_ones",
            false,
            vec![
                Op(0, Open(0, A, RW.creat())),
                Op(0, Flock(0, Exclusive)),
                Op(0, Unlink(A)),
                Op(0, Open(1, A, RW.creat())),
                Op(0, Flock(1, TryExclusive)),
            ],
        ),
        (
            "a_line_that_two_appenders_wrote_during_a_session_is_one_line",
            false,
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Write(0, 1)),
                Op(0, Close(0)),
                Op(2, Open(0, A, W.append())),
                Op(2, Write(0, 2)),
                Op(3, Open(2, A, RW)),
                Op(2, Close(0)),
                Op(2, Open(0, A, W.append())),
                Op(3, Write(2, 0)),
                Op(2, Write(0, 0)),
            ],
        ),
        (
            "a_session_is_open_as_long_as_the_handle_that_created_its_file_for_reading",
            false,
            vec![
                Op(3, Open(2, A, R.creat())),
                Op(1, Open(1, A, RW.creat())),
                Op(3, Open(0, A, W.append())),
                Op(3, Write(0, 2)),
            ],
        ),
        (
            "truncate_by_a_coordinated_name_of_a_file_that_has_an_ordinary_one_too_is_a_version",
            false,
            vec![
                Op(0, Open(0, A, RW.creat())),
                Op(0, Close(0)),
                Op(0, Link(A, T)),
                Op(0, Truncate(A, 0)),
            ],
        ),
        (
            "who_opened_a_file_beside_a_session_that_gave_way_to_a_lock_reads_what_is_current",
            false,
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Write(0, 1)),
                Op(0, Close(0)),
                Op(1, Open(0, A, RW)),
                Op(0, Open(2, A, W.append())),
                Op(0, Open(0, A, R)),
                Op(0, Flock(2, Shared)),
                Op(0, Open(1, A, RW)),
                Op(1, Flock(0, Exclusive)),
                Op(0, Write(1, 2)),
                Op(0, Close(1)),
                Op(0, Pread(0, 0, 4096)),
            ],
        ),
        (
            "of_two_sessions_on_one_node_one_ends_unchanged_and_others_are_shown_the_version",
            true,
            vec![
                Op(3, Open(2, A, W.creat().trunc())),
                Op(3, Open(0, A, RW)),
                Op(3, Fork(1)),
                Op(3, Flock(0, TryShared)),
                Op(3, Flock(0, TryExclusive)),
                Op(3, Flock(0, Un)),
                Op(1, Flock(2, Shared)),
            ],
        ),
        (
            "who_has_two_sessions_on_one_node_reads_what_it_has_staged",
            false,
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Close(0)),
                Op(1, Open(2, A, RW)),
                Op(1, Write(2, 1)),
                Op(1, Open(0, A, RW)),
                Op(1, Flock(2, Shared)),
                Op(1, Flock(2, TryExclusive)),
                Op(1, Write(0, 2)),
                Op(1, Open(1, A, R)),
                Op(1, Pread(1, 0, 4096)),
            ],
        ),
        (
            "who_has_only_emptied_a_file_takes_back_nothing_that_was_saved_since",
            true,
            vec![
                Op(0, Open(0, A, W.creat().trunc())),
                Op(0, Flock(0, Exclusive)),
                Op(0, Fork(1)),
                Op(1, Open(1, A, W.trunc())),
                Op(1, Write(1, 1)),
                Op(1, Close(1)),
                Op(1, Exit),
                Op(0, Flock(0, Un)),
                Op(0, Look),
                Op(0, Close(0)),
            ],
        ),
        (
            "the_beginning_of_a_line_is_seen_when_its_appender_lets_go_of_the_lock",
            false,
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Write(0, 1)),
                Op(0, Close(0)),
                Op(0, Open(0, A, W.append())),
                Op(0, Flock(0, Exclusive)),
                Op(0, Write(0, 2)),
                Op(1, Look),
                Op(0, Flock(0, Un)),
                Op(1, Look),
            ],
        ),
        (
            "who_has_two_sessions_on_one_node_is_shown_the_size_of_what_it_reads",
            false,
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Close(0)),
                Op(1, Open(2, A, W)),
                Op(1, Flock(2, TryExclusive)),
                Op(1, Open(1, A, RW)),
                Op(1, Write(1, 0)),
                Op(1, Flock(2, Shared)),
                Op(1, Write(1, 1)),
                Op(1, Look),
            ],
        ),
        (
            "what_is_written_late_follows_a_file_that_was_renamed_since",
            false,
            vec![
                Op(3, Open(2, A, W.creat().trunc())),
                Op(3, Rename(A, B)),
                Op(3, Rename(B, A)),
                Op(3, Pwrite(2, 4, 5)),
                Op(3, Close(2)),
                Op(3, Look),
            ],
        ),
        (
            "of_two_sessions_on_one_node_one_publishes_and_others_are_shown_the_version",
            true,
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Close(0)),
                Op(3, Open(0, A, RW)),
                Op(1, Open(1, A, W.append())),
                Op(1, Flock(1, Exclusive)),
                Op(3, Open(2, A, RW)),
                Op(3, Open(1, A, RW)),
                Op(3, Flock(2, TryExclusive)),
                Op(1, Open(0, A, R)),
                Op(3, Write(2, 2)),
                Op(3, Write(1, 1)),
            ],
        ),
        (
            "where_an_append_that_had_to_wait_leaves_the_position_is_said_nowhere",
            false,
            vec![
                Op(3, Open(2, A, W.creat())),
                Op(2, Open(1, A, RW.creat().append())),
                Op(3, Write(2, 4)),
                Op(3, Close(2)),
                Op(2, Write(1, 7)),
                Op(2, Read(1, 3)),
                Op(2, Pread(1, 0, 4096)),
            ],
        ),
        (
            "what_is_stored_through_a_mapping_is_a_change_when_the_kernel_says_so",
            false,
            vec![
                Op(3, Open(2, A, RW.excl())),
                Op(3, Truncate(A, 11)),
                Op(3, Map(2, 0, Share::Written)),
                Op(2, Open(0, B, W.creat())),
                Op(2, Kill),
                Op(3, Poke(0, 6, 1)),
                Op(3, Look),
            ],
        ),
    ]
}

/// A case as it is written in this file.
pub fn paste(hasty: bool, ops: &[Op]) -> String {
    let lines: Vec<String> = ops.iter().map(|op| format!("                {op:?},\n")).collect();
    format!(
        "        (\n            \"NAME\",\n            {hasty},\n            vec![\n{}            ],\n        ),",
        lines.concat()
    )
}
