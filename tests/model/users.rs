//! Sequences of several users that went wrong once, each with a name.

use super::ops::Do::*;
use super::ops::Name::*;
use super::ops::{Op, R, RW, W};
use super::permissions::Cast;
use super::permissions::Dir::*;
use super::permissions::User::*;

/// As in regressions.rs, with whose processes and directories are.
pub fn all() -> Vec<(&'static str, bool, Cast, Vec<Op>)> {
    vec![(
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
    )]
}
