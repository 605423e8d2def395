//! Sequences that went wrong once, each with a name.

use super::ops::Do::*;
use super::ops::Name::*;
use super::ops::{Case, Op, R, RW, W};

/// The name, whether opens wait for a moment only, and what is done.
pub fn all() -> Vec<(&'static str, bool, Vec<Op>)> {
    vec![(
        "a_plain_save",
        false,
        vec![
            Op(0, Open(0, A, W.creat().trunc())),
            Op(0, Write(0, 0)),
            Op(0, Close(0)),
            Op(1, Open(0, A, R)),
            Op(1, Read(0, 4096)),
            Op(1, Open(1, A, RW)),
        ],
    )]
}

/// A case as it is written in this file.
pub fn paste(case: &Case) -> String {
    let lines: Vec<String> = case.ops.iter().map(|op| format!("{op:?}")).collect();
    format!("(\"NAME\", {}, vec![\n{},\n]),", case.hasty, lines.join(",\n"))
}
