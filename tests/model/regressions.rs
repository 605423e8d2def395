//! Sequences that went wrong once, each with a name.

use super::ops::Do::*;
use super::ops::Lock::*;
use super::ops::Name::*;
use super::ops::{Case, Op, R, RW, Share, W};
use super::permissions::ROOT_ONLY;

/// The name, and what is done.
pub fn all() -> Vec<(&'static str, Case)> {
    let of_root = |(name, hasty, ops)| {
        let cast = ROOT_ONLY;
        (name, Case { hasty, cast, ops })
    };
    let of_users = |(name, hasty, cast, ops)| (name, Case { hasty, cast, ops });
    let users = super::users::all().into_iter().map(of_users);
    ours().into_iter().map(of_root).chain(users).collect()
}

/// Those in which all is root's; whether opens wait for a moment only.
fn ours() -> Vec<(&'static str, bool, Vec<Op>)> {
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
            "what_a_late_writer_sets_by_its_descriptor_is_its_versions",
            false,
            vec![
                Op(1, Open(1, B, RW.creat().append())),
                Op(1, Rename(B, A)),
                Op(1, Write(1, 6)),
                Op(1, Futime(1, 7)),
            ],
        ),
        (
            "a_relative_that_has_not_read_yet_reads_what_was_renamed_over_the_open_file",
            false,
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Write(0, 1)),
                Op(0, Close(0)),
                Op(1, Fork(3)),
                Op(1, Open(0, A, RW)),
                Op(3, Open(2, T, W.creat())),
                Op(1, Open(1, A, R)),
                Op(3, Rename(T, A)),
                Op(1, Pread(1, 0, 4096)),
            ],
        ),
        (
            "a_relative_that_has_not_read_yet_reads_what_was_created_after_the_removal",
            false,
            vec![
                Op(0, Open(0, A, RW.creat())),
                Op(0, Open(1, A, R)),
                Op(0, Unlink(A)),
                Op(0, Open(2, A, W.creat())),
                Op(0, Write(2, 0)),
                Op(0, Close(2)),
                Op(0, Pread(1, 0, 4096)),
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
        (
            "an_ordinary_name_shows_one_link_less_when_a_coordinated_one_is_removed",
            false,
            vec![
                Op(3, Open(2, A, W.creat().trunc())),
                Op(3, Close(2)),
                Op(1, Link(A, T)),
                Op(1, Open(2, A, RW.creat().append())),
                Op(1, Kill),
                Op(3, Link(A, T)),
                Op(1, Unlink(A)),
            ],
        ),
        (
            "who_appended_beside_a_session_asks_for_the_lock_of_the_renamed_file",
            false,
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Close(0)),
                Op(1, Open(0, A, W)),
                Op(1, Write(0, 5)),
                Op(0, Open(2, A, W.append())),
                Op(1, Close(0)),
                Op(0, Rename(A, B)),
                Op(0, Flock(2, TryExclusive)),
                Op(1, Open(1, B, R)),
                Op(1, Flock(1, TryShared)),
            ],
        ),
        (
            "an_ordinary_name_shows_the_mode_that_was_set_by_a_coordinated_one",
            false,
            vec![
                Op(2, Open(1, A, RW.creat().nonblock())),
                Op(2, Close(1)),
                Op(3, Link(A, T)),
                Op(0, Truncate(A, 0)),
                Op(3, Open(1, T, RW)),
                Op(2, Chmod(A, 0o640)),
            ],
        ),
        (
            "all_handles_of_a_session_that_is_over_go_on_in_one_late_one",
            true,
            vec![
                Op(3, Open(2, A, RW.creat().nonblock())),
                Op(3, Open(0, A, RW.creat().append())),
                Op(3, Rename(A, B)),
                Op(3, Write(2, 4)),
                Op(3, Write(0, 1)),
            ],
        ),
        (
            "a_mode_that_others_set_stays_where_a_late_writer_has_set_the_time",
            false,
            vec![
                Op(2, Open(0, B, W.excl())),
                Op(2, Rename(B, A)),
                Op(2, Pwrite(0, 4, 5)),
                Op(2, Futime(0, 3)),
                Op(1, Chmod(A, 0o640)),
            ],
        ),
        (
            "a_truncation_in_which_nothing_was_written_shows_what_its_lineage_saves_after_it",
            true,
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Close(0)),
                Op(0, Open(0, A, RW)),
                Op(0, Fork(1)),
                Op(0, Exit),
                Op(1, Write(0, 2)),
                Op(1, Open(1, A, R.trunc())),
                Op(1, Close(0)),
                Op(1, Pread(1, 0, 4096)),
            ],
        ),
        (
            "who_has_written_nothing_writes_to_what_its_lineage_has_saved",
            false,
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Write(0, 1)),
                Op(0, Close(0)),
                Op(0, Open(0, A, W)),
                Op(0, Open(2, A, W.creat().trunc())),
                Op(0, Close(2)),
                Op(0, Write(0, 6)),
            ],
        ),
        (
            "who_starts_anew_under_the_lock_keeps_its_place_in_the_queue",
            false,
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Close(0)),
                Op(2, Fork(3)),
                Op(2, Open(0, A, W.append())),
                Op(3, Open(2, A, W)),
                Op(2, Close(0)),
                Op(3, Flock(2, Exclusive)),
                Op(2, Open(0, A, W)),
                Op(3, Write(2, 2)),
                Op(3, Flock(2, Un)),
                Op(1, Open(1, A, RW)),
                Op(3, Flock(2, Exclusive)),
                Op(2, Write(0, 2)),
                Op(2, Close(0)),
                Op(3, Flock(2, Exclusive)),
            ],
        ),
        (
            "a_child_that_has_another_session_on_the_node_than_its_parent_reads_its_own",
            false,
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Close(0)),
                Op(1, Open(2, A, RW)),
                Op(1, Write(2, 1)),
                Op(1, Open(0, A, RW)),
                Op(1, Fork(3)),
                Op(1, Flock(2, Shared)),
                Op(1, Flock(2, Un)),
                Op(3, Write(0, 2)),
                Op(1, Write(2, 3)),
                Op(3, Open(1, A, R)),
                Op(3, Pread(1, 0, 4096)),
            ],
        ),
        (
            "a_reader_of_its_own_shadow_is_shown_all_names_of_the_file_when_the_session_is_over",
            false,
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Close(0)),
                Op(0, Link(A, B)),
                Op(1, Open(1, A, W)),
                Op(1, Open(2, A, R)),
                Op(1, Close(1)),
                Op(1, Read(2, 11)),
                Op(1, Look),
            ],
        ),
        (
            "who_waits_to_write_goes_on_when_its_lineage_has_the_file",
            false,
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Close(0)),
                Op(3, Open(0, A, RW)),
                Op(0, Open(0, A, RW)),
                Op(3, Fork(2)),
                Op(2, Write(0, 0)),
                Op(2, Open(1, A, W)),
                Op(2, Flock(1, Exclusive)),
                Op(2, Flock(1, Shared)),
                Op(3, Write(0, 5)),
                Op(0, Close(0)),
            ],
        ),
        (
            "an_appender_whose_file_is_gone_has_what_it_held_back_kept_at_each_unlock",
            false,
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Close(0)),
                Op(1, Open(0, A, W.append())),
                Op(1, Write(0, 2)),
                Op(1, Flock(0, Exclusive)),
                Op(2, Unlink(A)),
                Op(1, Flock(0, Un)),
                Op(1, Write(0, 0)),
                Op(1, Close(0)),
            ],
        ),
    ]
}

/// A case as it is written in this file, or in users.rs.
pub fn paste(case: &Case) -> String {
    let ops = case.ops.iter().map(|op| format!("                {op:?},\n"));
    let ops: String = ops.collect();
    let cast = match case.cast == ROOT_ONLY {
        true => String::new(),
        false => format!("            {:?},\n", case.cast),
    };
    format!(
        "        (\n            \"NAME\",\n            {},\n{cast}            vec![\n{ops}            ],\n        ),",
        case.hasty
    )
}
