//! What can be wrong in `concord.toml`, said so that the reader can mend it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A mistake in `concord.toml`, shown as `file:line:column: what is wrong; what would be right`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}:{column}: {problem}", file.display())]
pub struct ConfigError {
    /// The file as the caller named it.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// The part of `concord.toml` that a key stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Above the first table.
    Top,
    /// In a `[[rule]]` table.
    Rule,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Top => "at the top level",
            Place::Rule => "in a [[rule]]",
        })
    }
}

/// What would have been right in place of an unknown word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// A known word that looks much like it.
    Nearest(&'static str),
    /// The key exists, but in the other place.
    Belongs(Place),
    /// Nothing looks like it: all that is known.
    OneOf(&'static [&'static str]),
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remedy::Nearest(word) => write!(f, "did you mean `{word}`?"),
            Remedy::Belongs(Place::Top) => f.write_str("it goes at the top level, above the first [[rule]]"),
            Remedy::Belongs(Place::Rule) => f.write_str("it goes in a [[rule]], below a [[rule]] line"),
            Remedy::OneOf(words) => {
                f.write_str("known are ")?;
                for (i, word) in words.iter().enumerate() {
                    write!(f, "{}`{word}`", if i == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
        }
    }
}

/// What is wrong. Text out of the file is escaped, so that a message is always one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text is not TOML.
    #[error("this is not valid TOML{}: {what}{}", of(key), then(remedy))]
    Syntax {
        /// The key of that line, as written.
        key: Option<String>,
        /// The parser's words, which quote nothing of the text.
        what: String,
        /// What would be right; empty where only the parser's words help.
        remedy: &'static str,
    },
    /// A key, or a table, that is there already.
    #[error("`{}` is set a second time here; leave one of the two", key.escape_debug())]
    Duplicate {
        /// As written.
        key: String,
    },
    /// A key that means nothing there.
    #[error("unknown key `{}` {place}; {remedy}", key.escape_debug())]
    UnknownKey {
        /// As written.
        key: String,
        /// Where it was written.
        place: Place,
        /// What would be right.
        remedy: Remedy,
    },
    /// A value of another type than the key takes.
    #[error("`{key}` is {found}; it takes {expected}")]
    WrongType {
        /// The key.
        key: &'static str,
        /// The type found, with its article.
        found: &'static str,
        /// The type it takes, with an example.
        expected: &'static str,
    },
    /// A string that is not a duration, or one that is out of range.
    #[error(
        "`{key} = {value:?}` is not a usable duration: {why}; write a number and a unit (ms, s, min, h, days), for example {}",
        example(key)
    )]
    Duration {
        /// The key.
        key: &'static str,
        /// As written.
        value: String,
        /// Why not.
        why: String,
    },
    /// A string that is not a size.
    #[error("`{key} = {value:?}` is not a size: {why}")]
    Size {
        /// The key.
        key: &'static str,
        /// As written.
        value: String,
        /// Why not, and what would be right.
        why: String,
    },
    /// A number that the key does not take.
    #[error("`{key} = {value}` is out of range; it takes a whole number from 0 to {max}")]
    Number {
        /// The key.
        key: &'static str,
        /// As written, in its radix, without `_`.
        value: String,
        /// The largest allowed.
        max: u64,
    },
    /// A word that is not among those the key takes.
    #[error("`{key} = {value:?}` is unknown; {remedy}")]
    Choice {
        /// The key.
        key: &'static str,
        /// As written.
        value: String,
        /// What would be right.
        remedy: Remedy,
    },
    /// A glob that cannot be compiled, or that could never match.
    #[error("`paths` has the glob {glob:?}, which cannot work: {why}")]
    Glob {
        /// As written.
        glob: String,
        /// Why not, and what to write.
        why: String,
    },
    /// A rule for no path.
    #[error("this [[rule]] has no `paths`, so it says nothing; write for example paths = [\"docs/**/*.md\"]")]
    NoPaths,
    /// Each glob alone is fine, all together exceed what can be compiled.
    #[error("the globs are too many or too complex together: {}; use fewer or simpler ones", why.escape_debug())]
    TooComplex {
        /// The compiler's words.
        why: String,
    },
}

fn of(key: &Option<String>) -> String {
    key.as_ref()
        .map_or(String::new(), |key| format!(", at `{}`", key.escape_debug()))
}

/// What is usual for a key that takes a duration, in quotes.
fn example(key: &str) -> &'static str {
    match key {
        "max_age" => "\"30days\" or \"12h\"",
        "lease_max" => "\"5min\" or \"90s\"",
        _ => "\"5s\" or \"250ms\"",
    }
}

fn then(remedy: &str) -> String {
    match remedy {
        "" => String::new(),
        remedy => format!("; {remedy}"),
    }
}

/// A problem at a place in the text, before line and column are counted.
#[derive(Debug)]
pub(super) struct Fault {
    /// Byte offset into the text.
    pub at: usize,
    /// What is wrong there.
    pub problem: Problem,
}

impl Fault {
    pub(super) fn new(span: Range<usize>, problem: Problem) -> Self {
        Fault {
            at: span.start,
            problem,
        }
    }

    pub(super) fn locate(self, text: &str, file: &Path) -> ConfigError {
        let before = &text.as_bytes()[..self.at.min(text.len())];
        let line_start = before.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
        ConfigError {
            file: file.to_path_buf(),
            line: before.iter().filter(|&&b| b == b'\n').count() + 1,
            column: String::from_utf8_lossy(&before[line_start..]).chars().count() + 1,
            problem: self.problem,
        }
    }
}
