//! Where answers go: text for people or one JSON document, and quiet when the reader has gone.

use std::io::{self, BufWriter, IsTerminal, Write};

use serde::Serialize;

/// Columns of a terminal.
const WIDTH: usize = 80;

/// The answer of a command that went through: its exit code is 0 or 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Exit code 0.
    Yes,
    /// Exit code 1, without an error.
    No,
}

/// Standard output as a command sees it.
pub struct Out<'a> {
    to: BufWriter<Box<dyn Write + 'a>>,
    /// One JSON document instead of text.
    pub json: bool,
    /// Colours are welcome: a terminal, and NO_COLOR (no-color.org) is not set.
    pub colour: bool,
    reader_gone: bool,
}

impl<'a> Out<'a> {
    /// The process's standard output.
    pub fn stdout(json: bool) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = !json && !no_colour && io::stdout().is_terminal();
        Self::to(io::stdout(), json, colour)
    }

    /// Anything else, for tests.
    pub fn to(to: impl Write + 'a, json: bool, colour: bool) -> Self {
        Self {
            to: BufWriter::new(Box::new(to)),
            json,
            colour,
            reader_gone: false,
        }
    }

    /// Whether a write failed because nobody reads any more (EPIPE), which ends a command quietly.
    pub fn reader_gone(&self) -> bool {
        self.reader_gone
    }

    /// A remark beside the answer, on standard error.
    pub fn remark(&mut self, command: &str, remark: &impl std::fmt::Display) {
        // After what it is about, where both go to a terminal.
        let _ = self.flush();
        let _ = writeln!(io::stderr(), "concord: {command}: {remark}");
    }

    /// Prints the one JSON document of the command.
    pub fn document<T: Serialize>(&mut self, document: &T) -> io::Result<()> {
        let line = serde_json::to_vec_pretty(document)?;
        self.write_all(&line)?;
        self.write_all(b"\n")
    }

    fn seen<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.reader_gone |= error.kind() == io::ErrorKind::BrokenPipe;
        }
        result
    }
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.to.write(bytes);
        self.seen(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.to.flush();
        self.seen(result)
    }
}

/// A listing in columns: each as wide as its widest cell, numbers to the right, no blanks at line ends.
pub fn columns(out: &mut impl Write, right: &[usize], rows: &[Vec<String>]) -> io::Result<()> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            let (before, after) = if right.contains(&column) {
                (pad.as_str(), "")
            } else {
                ("", pad.as_str())
            };
            line.push_str(&format!("{before}{cell}{after}  "));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// `text` in lines that fit a terminal of 80 columns behind so many blanks; a word is never broken.
pub fn wrapped(text: &str, indent: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if indent + line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Milliseconds for people: `250ms`, `1.5s`, `2m 5s`, `3h 4m`.
pub fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{}.{}s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{}m {}s", ms / 60_000, ms % 60_000 / 1_000),
        _ => format!("{}h {}m", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// An error as the one line that the contract of the command line asks for.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Many errors quote their cause.
        if !text.contains(&cause) {
            text += if text.is_empty() { "" } else { ": " };
            text += &cause;
        }
    }
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut text = Vec::new();
        let row = |cells: [&str; 3]| cells.map(String::from).to_vec();
        columns(&mut text, &[1], &[row(["FILE", "BYTES", "BY"]), row(["ä.md", "7", ""])]).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "FILE  BYTES  BY\nä.md      7\n");
    }

    #[test]
    fn lines_are_broken_between_words_and_hold_80_columns() {
        let text = "word ".repeat(40);
        let lines = wrapped(text.trim_end(), 10);
        assert!(
            lines.iter().all(|line| line.len() <= 70) && lines.len() == 3,
            "{lines:?}"
        );
        assert_eq!(lines.join(" "), text.trim_end());
        assert_eq!(wrapped(&"x".repeat(90), 0).len(), 1);
    }

    #[test]
    fn durations_read_as_people_say_them() {
        assert_eq!(
            [0, 250, 1_500, 125_000, 11_045_000].map(duration),
            ["0ms", "250ms", "1.5s", "2m 5s", "3h 4m"]
        );
    }

    #[test]
    fn an_error_of_many_lines_is_told_in_one() {
        let error = anyhow::anyhow!("line 3:\n  | wait = x\n\nwrite \"5s\"").context("reading concord.toml");
        assert_eq!(
            one_line(&error),
            "reading concord.toml: line 3:; | wait = x; write \"5s\""
        );
    }

    #[test]
    fn a_cause_that_is_quoted_already_is_not_told_twice() {
        let error = anyhow::anyhow!("no space")
            .context("writing: no space; free some")
            .context("a");
        assert_eq!(one_line(&error), "a: writing: no space; free some");
    }

    #[test]
    fn a_reader_that_has_gone_is_noticed() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut out = Out::to(writer, false, false);
        assert!(out.write_all(&[b'x'; 100_000]).is_err());
        assert!(out.reader_gone());
    }
}
