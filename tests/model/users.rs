//! Sequences of several users that went wrong once, each with a name.

use super::ops::Do::*;
use super::ops::Name::*;
use super::ops::{Op, R, RW, W};
use super::permissions::Cast;
use super::permissions::Dir::*;
use super::permissions::User::*;

/// Where permissions are those of the files.
const EVERYBODYS: Cast = Cast {
    users: [Root, Ann, Bob, Bob],
    dirs: [Everybodys, Everybodys, Everybodys],
};

/// As in regressions.rs, with whose processes and directories are.
pub fn all() -> Vec<(&'static str, bool, Cast, Vec<Op>)> {
    vec![
        (
            "who_would_create_what_another_user_is_creating_waits_for_him",
            false,
            Cast {
                users: [Root, Ann, Bob, Bob],
                dirs: [Everybodys, Sticky, Everybodys],
            },
            vec![
                Op(1, Open(0, A, W.creat())),
                Op(0, Open(0, A, RW.creat())),
                Op(2, Open(0, A, W.creat().trunc())),
                Op(3, Open(0, A, R.creat())),
                Op(1, Write(0, 0)),
                Op(1, Close(0)),
                Op(0, Close(0)),
            ],
        ),
        (
            "a_reader_is_not_given_what_it_could_not_open_though_its_own_file_cannot_be_opened_any_more",
            false,
            Cast {
                users: [Root, Ann, Bob, Bob],
                dirs: [Everybodys, Everybodys, Everybodys],
            },
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Write(0, 0)),
                Op(0, Close(0)),
                Op(1, Open(0, A, R)),
                Op(0, Chmod(A, 0o600)),
                Op(0, Open(0, T, W.creat())),
                Op(0, Write(0, 1)),
                Op(0, Close(0)),
                Op(0, Chmod(T, 0o600)),
                Op(0, Rename(T, A)),
                Op(1, Pread(0, 0, 4096)),
            ],
        ),
        (
            "a_reader_is_not_given_a_file_whose_image_could_be_opened_once",
            false,
            Cast {
                users: [Root, Ann, Bob, Bob],
                dirs: [Everybodys, Everybodys, Everybodys],
            },
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Write(0, 0)),
                Op(0, Close(0)),
                Op(0, Open(0, B, W.creat())),
                Op(0, Close(0)),
                Op(0, Link(B, T)),
                Op(0, Truncate(B, 5)),
                Op(0, Chmod(B, 0o600)),
                Op(1, Open(0, A, R)),
                Op(0, Rename(B, A)),
                Op(1, Pread(0, 0, 4096)),
            ],
        ),
        (
            "who_appends_adds_nothing_to_a_file_with_the_permissions_that_his_own_got_later",
            false,
            Cast {
                users: [Root, Ann, Bob, Bob],
                dirs: [Everybodys, Everybodys, Everybodys],
            },
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Close(0)),
                Op(0, Chmod(A, 0o666)),
                Op(1, Open(0, A, W.append())),
                Op(0, Chmod(A, 0o600)),
                Op(0, Open(0, T, W.creat())),
                Op(0, Close(0)),
                Op(0, Chmod(T, 0o600)),
                Op(0, Rename(T, A)),
                Op(1, Write(0, 0)),
                Op(0, Look),
            ],
        ),
        (
            "what_is_written_late_replaces_no_file_with_the_permissions_that_its_own_got_later",
            false,
            Cast {
                users: [Root, Ann, Bob, Bob],
                dirs: [Everybodys, Everybodys, Everybodys],
            },
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Close(0)),
                Op(0, Chmod(A, 0o666)),
                Op(1, Open(0, A, RW)),
                Op(1, Write(0, 0)),
                Op(1, Rename(A, B)),
                Op(0, Chmod(B, 0o600)),
                Op(0, Open(0, T, W.creat())),
                Op(0, Close(0)),
                Op(0, Chmod(T, 0o600)),
                Op(1, Write(0, 1)),
                Op(0, Rename(T, B)),
                Op(1, Close(0)),
                Op(0, Look),
            ],
        ),
        (
            "who_empties_a_file_with_several_names_saves_it_though_it_has_another_mode_by_then",
            false,
            Cast {
                users: [Root, Ann, Bob, Ann],
                dirs: [Everybodys, Sticky, Sticky],
            },
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Close(0)),
                Op(0, Chmod(A, 0o066)),
                Op(0, Link(A, B)),
                Op(2, Open(0, A, R.trunc())),
                Op(0, Chmod(A, 0o640)),
                Op(2, Close(0)),
            ],
        ),
        (
            "who_waited_for_a_file_with_several_names_may_do_with_it_what_its_mode_says_by_then",
            false,
            Cast {
                users: [Root, Ann, Bob, Ann],
                dirs: [Everybodys, Roots, Everybodys],
            },
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Close(0)),
                Op(0, Chown(A, 1001, 1001)),
                Op(0, Chmod(A, 438)),
                Op(0, Link(A, B)),
                Op(2, Open(2, A, W.creat().trunc())),
                Op(1, Open(1, A, R.trunc())),
                Op(2, Chmod(A, 384)),
            ],
        ),
        (
            "who_waited_by_the_name_that_is_left_gets_the_file",
            false,
            Cast {
                users: [Root, Ann, Bob, Bob],
                dirs: [Everybodys, Everybodys, Everybodys],
            },
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Close(0)),
                Op(0, Chown(A, 0, 4000)),
                Op(0, Chmod(A, 436)),
                Op(3, Link(A, B)),
                Op(0, Open(2, A, R.trunc())),
                Op(3, Unlink(A)),
                Op(2, Open(2, B, W.creat().trunc())),
            ],
        ),
        (
            "a_set_group_id_bit_that_means_nothing_goes_with_a_save_by_who_is_not_in_the_group",
            false,
            EVERYBODYS,
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Close(0)),
                Op(0, Chmod(A, 0o6666)),
                Op(1, Open(0, A, RW)),
                Op(1, Look),
                Op(1, Write(0, 0)),
                Op(1, Close(0)),
                Op(0, Chmod(A, 0o2666)),
                Op(1, Open(0, A, W.trunc())),
                Op(1, Close(0)),
                Op(0, Chmod(A, 0o2666)),
                Op(1, Truncate(A, 3)),
                Op(0, Chmod(A, 0o2666)),
                Op(1, Open(0, A, W.append())),
                Op(1, Write(0, 0)),
                Op(1, Look),
            ],
        ),
        (
            "it_stays_for_who_is_in_the_group_though_the_file_was_touched_meanwhile",
            false,
            EVERYBODYS,
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Close(0)),
                Op(0, Chown(A, 1001, 4000)),
                Op(0, Chmod(A, 0o6666)),
                Op(2, Open(0, A, RW)),
                Op(0, Utime(A, 3)),
                Op(2, Write(0, 0)),
                Op(2, Close(0)),
                Op(0, Look),
                Op(0, Chmod(A, 0o6666)),
                Op(2, Open(0, A, W.append())),
                Op(2, Write(0, 0)),
                Op(2, Close(0)),
                Op(0, Open(1, T, W.creat())),
                Op(0, Close(1)),
                Op(0, Chown(T, 1001, 4000)),
                Op(0, Chmod(T, 0o6666)),
                Op(2, Open(1, T, W.trunc())),
            ],
        ),
        (
            "an_owner_who_is_not_in_the_group_loses_it_by_chown",
            false,
            EVERYBODYS,
            vec![
                Op(0, Open(0, A, W.creat())),
                Op(0, Close(0)),
                Op(0, Chown(A, 1000, 4000)),
                Op(0, Chmod(A, 0o2666)),
                Op(1, Chown(A, 1000, 1000)),
            ],
        ),
    ]
}
