//! `concord diff FILE@A [FILE@B]`. Exit code 0 whether or not they differ, as `git diff`.

use std::io::{self, Read, Write};

use serde::Serialize;
use similar::{ChangeTag, TextDiff};

use super::output::{Answer, Out};
use super::rooms::Rooms;
use super::show::{self, Opened};
use super::versioned::Versioned;
use crate::control::lossless::printable;
use crate::control::{JsonBytes, JsonPath};

/// Larger files are compared, but not line by line, which needs several times their size in memory.
const LINES_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A file with a NUL in its first so many bytes is binary, as for git and grep.
const BINARY_BYTES: usize = 8000;
/// Unchanged lines around a change.
const CONTEXT_LINES: usize = 3;

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const CYAN: &str = "\x1b[36m";
const BOLD: &str = "\x1b[1m";

#[derive(Serialize)]
struct Document {
    from: Side,
    to: Side,
    same: bool,
    /// Not compared by lines: `diff` is empty even where they differ.
    binary: bool,
    diff: JsonBytes,
}

#[derive(Clone, Serialize)]
struct Side {
    file: JsonPath,
    version: Option<u64>,
    /// It is no more.
    gone: bool,
}

impl Side {
    fn label(&self) -> String {
        let name = printable(&self.file.0);
        match self.version {
            Some(version) => format!("{name}@{version}"),
            None if self.gone => format!("{name} (removed)"),
            None => format!("{name} (now)"),
        }
    }
}

enum Compared {
    Same,
    Binary,
    Lines(Vec<u8>),
}

pub fn run(from: &Versioned, to: Option<&Versioned>, rooms: &dyn Rooms, out: &mut Out) -> anyhow::Result<Answer> {
    let now = Versioned {
        file: from.file.clone(),
        version: None,
    };
    let to = to.unwrap_or(&now);
    let (from, old) = side(from, rooms)?;
    let (to, new) = side(to, rooms)?;
    let compared = compare(old, new, &from, &to, out.colour)?;
    if out.json {
        let (same, binary, diff) = match compared {
            Compared::Same => (true, false, Vec::new()),
            Compared::Binary => (false, true, Vec::new()),
            Compared::Lines(diff) => (false, false, diff),
        };
        out.document(&Document {
            from,
            to,
            same,
            binary,
            diff: JsonBytes(diff),
        })?;
        return Ok(Answer::Yes);
    }
    match compared {
        Compared::Same => {}
        Compared::Binary => writeln!(out, "Binary files {} and {} differ", from.label(), to.label())?,
        Compared::Lines(diff) => out.write_all(&diff)?,
    }
    Ok(Answer::Yes)
}

fn side(wanted: &Versioned, rooms: &dyn Rooms) -> anyhow::Result<(Side, Box<dyn Read>)> {
    let Opened { path, content } = show::open(wanted, rooms)?;
    let side = Side {
        file: path.into(),
        version: wanted.version,
        gone: content.is_none(),
    };
    Ok((side, content.unwrap_or_else(|| Box::new(io::empty()))))
}

fn compare(mut old: impl Read, mut new: impl Read, from: &Side, to: &Side, colour: bool) -> io::Result<Compared> {
    let (mut old_head, mut new_head) = (Vec::new(), Vec::new());
    old.by_ref().take(LINES_BYTES_MAX + 1).read_to_end(&mut old_head)?;
    new.by_ref().take(LINES_BYTES_MAX + 1).read_to_end(&mut new_head)?;
    let too_large = old_head.len().max(new_head.len()) as u64 > LINES_BYTES_MAX;
    if old_head == new_head && from.gone == to.gone && (!too_large || same_rest(old, new)?) {
        return Ok(Compared::Same);
    }
    if too_large || is_binary(&old_head) || is_binary(&new_head) {
        return Ok(Compared::Binary);
    }
    let mut diff = Vec::new();
    unified(&mut diff, &old_head, &new_head, [&from.label(), &to.label()], colour)?;
    Ok(Compared::Lines(diff))
}

fn same_rest(old: impl Read, new: impl Read) -> io::Result<bool> {
    let (mut old, mut new) = (io::BufReader::new(old).bytes(), io::BufReader::new(new).bytes());
    loop {
        match (old.next().transpose()?, new.next().transpose()?) {
            (None, None) => return Ok(true),
            (a, b) if a != b => return Ok(false),
            _ => {}
        }
    }
}

fn is_binary(bytes: &[u8]) -> bool {
    bytes.iter().take(BINARY_BYTES).any(|byte| *byte == 0)
}

fn unified(out: &mut Vec<u8>, old: &[u8], new: &[u8], labels: [&str; 2], colour: bool) -> io::Result<()> {
    let diff = TextDiff::from_lines(old, new);
    painted(out, colour.then_some(BOLD), format!("--- {}", labels[0]).as_bytes())?;
    painted(out, colour.then_some(BOLD), format!("+++ {}", labels[1]).as_bytes())?;
    for hunk in diff.unified_diff().context_radius(CONTEXT_LINES).iter_hunks() {
        painted(out, colour.then_some(CYAN), hunk.header().to_string().as_bytes())?;
        for change in hunk.iter_changes() {
            let (sign, paint) = match change.tag() {
                ChangeTag::Delete => (b'-', Some(RED)),
                ChangeTag::Insert => (b'+', Some(GREEN)),
                ChangeTag::Equal => (b' ', None),
            };
            let line = change.value();
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            painted(out, paint.filter(|_| colour), &[&[sign], text].concat())?;
            if text.len() == line.len() {
                out.write_all(b"\\ No newline at end of file\n")?;
            }
        }
    }
    Ok(())
}

fn painted(out: &mut Vec<u8>, paint: Option<&str>, line: &[u8]) -> io::Result<()> {
    match paint {
        Some(paint) => [paint.as_bytes(), line, b"\x1b[0m\n"]
            .iter()
            .try_for_each(|part| out.write_all(part)),
        None => [line, b"\n"].iter().try_for_each(|part| out.write_all(part)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{FakeRooms, said, said_bytes};

    fn version(rooms: &FakeRooms, version: u64) -> Versioned {
        Versioned {
            file: rooms.file("a.md"),
            version: Some(version),
        }
    }

    fn rooms(one: &[u8], two: &[u8]) -> FakeRooms {
        let rooms = FakeRooms::new();
        rooms.hold(1, one);
        rooms.hold(2, two);
        rooms
    }

    #[test]
    fn two_versions_are_compared_line_by_line() {
        let rooms = rooms(b"a\nb\nc\n", b"a\nB\nc\nd");
        let (_, text) = said(false, |out| {
            run(&version(&rooms, 1), Some(&version(&rooms, 2)), &rooms, out)
        });
        assert_eq!(
            text,
            "--- a.md@1\n+++ a.md@2\n@@ -1,3 +1,4 @@\n a\n-b\n+B\n c\n+d\n\\ No newline at end of file\n"
        );
    }

    #[test]
    fn without_a_second_it_is_compared_with_what_the_file_holds_now_even_nothing() {
        let rooms = rooms(b"a\n", b"");
        let (_, text) = said(false, |out| run(&version(&rooms, 1), None, &rooms, out));
        assert_eq!(text, "--- a.md@1\n+++ a.md (removed)\n@@ -1 +0,0 @@\n-a\n");
        // An empty version is not the same as none.
        rooms.hold(1, b"");
        let (_, text) = said(false, |out| run(&version(&rooms, 1), None, &rooms, out));
        assert_eq!(text, "--- a.md@1\n+++ a.md (removed)\n");
        rooms.hold(1, b"a\n");
        std::fs::write(rooms.file("a.md"), "a\n").unwrap();
        let (answer, text) = said(false, |out| run(&version(&rooms, 1), None, &rooms, out));
        assert_eq!((answer.unwrap(), text.as_str()), (Answer::Yes, ""));
    }

    #[test]
    fn a_second_file_that_is_nowhere_is_an_error() {
        let rooms = rooms(b"a\n", b"");
        let typo = Versioned {
            file: rooms.file("typo.md"),
            version: None,
        };
        let error = said(false, |out| run(&version(&rooms, 1), Some(&typo), &rooms, out)).0;
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("typo.md: ") && error.contains("no such file is there"),
            "{error}"
        );
    }

    #[test]
    fn colours_are_whole_lines() {
        let rooms = rooms(b"a\n", b"b\n");
        let (_, bytes) = said_bytes(false, true, |out| {
            run(&version(&rooms, 1), Some(&version(&rooms, 2)), &rooms, out)
        });
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("\x1b[31m-a\x1b[0m\n\x1b[32m+b\x1b[0m\n"), "{text:?}");
    }

    #[test]
    fn binary_files_only_differ() {
        let rooms = rooms(b"a\0", b"b\0");
        let (_, text) = said(false, |out| {
            run(&version(&rooms, 1), Some(&version(&rooms, 2)), &rooms, out)
        });
        assert_eq!(text, "Binary files a.md@1 and a.md@2 differ\n");
    }

    #[test]
    fn lines_that_are_not_utf8_stay_what_they_are_in_json_too() {
        let rooms = rooms(b"\xff\n", b"\xfe\n");
        let (_, bytes) = said_bytes(false, false, |out| {
            run(&version(&rooms, 1), Some(&version(&rooms, 2)), &rooms, out)
        });
        assert!(bytes.ends_with(b"-\xff\n+\xfe\n"));
        let (_, text) = said(true, |out| {
            run(&version(&rooms, 1), Some(&version(&rooms, 2)), &rooms, out)
        });
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            serde_json::from_value::<JsonBytes>(json["diff"].clone()).unwrap().0,
            bytes
        );
        assert_eq!(
            (json["same"].as_bool(), json["from"]["version"].as_u64()),
            (Some(false), Some(1))
        );
    }
}
