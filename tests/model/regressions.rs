//! Sequences that went wrong once, each with a name.

use super::ops::Do::*;
use super::ops::Lock::*;
use super::ops::Name::*;
use super::ops::{Op, R, RW, W};

/// Those of them that go wrong still; the model gives up a case that comes to this.
pub const OPEN: &[&str] = &[
    // W8: the late version goes to the name that the file had at first, and so brings that back.
    "what_is_written_late_follows_a_file_that_was_renamed_since",
];
    format!(
        "        (\n            \"NAME\",\n            {hasty},\n            vec![\n{}            ],\n        ),",
        lines.concat()
    )
}
