//! `concord show FILE@N`.

use std::fs::File;
use std::io::{self, Read};

use anyhow::{Context, bail};
use serde::Serialize;

use super::output::{Answer, Out};
use super::project::Project;
use super::rooms::Rooms;
use super::versioned::Versioned;
use crate::control::lossless::printable;
use crate::control::{JsonBytes, JsonPath};

/// A JSON document must be made in memory; without `--json` any size is printed.
const JSON_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Serialize)]
struct Document {
    file: JsonPath,
    version: Option<u64>,
    bytes: usize,
    content: JsonBytes,
}

pub fn run(wanted: &Versioned, rooms: &dyn Rooms, out: &mut Out) -> anyhow::Result<Answer> {
    let (relative, mut content) = open(wanted, rooms)?;
    if !out.json {
        io::copy(&mut content, out)?;
        return Ok(Answer::Yes);
    }
    let mut bytes = Vec::new();
    content.take(JSON_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > JSON_BYTES_MAX {
        bail!(
            "{}: it has more than {JSON_BYTES_MAX} bytes; leave --json away",
            printable(&relative)
        );
    }
    out.document(&Document {
        file: relative.into(),
        version: wanted.version,
        bytes: bytes.len(),
        content: JsonBytes(bytes),
    })?;
    Ok(Answer::Yes)
}

/// The path in the project, and the content of the version that is wanted; a current file that is not there is empty.
pub fn open(wanted: &Versioned, rooms: &dyn Rooms) -> anyhow::Result<(std::path::PathBuf, Box<dyn Read>)> {
    let (project, relative) = Project::of_file(&wanted.file)?;
    if let Some(version) = wanted.version {
        let history = rooms.history(&project.tree())?;
        let content = history
            .open_version(&relative, version)
            .with_context(|| format!("{}@{version}", printable(&relative)))?;
        return Ok((relative, content));
    }
    let content: Box<dyn Read> = match File::open(project.root.join(&relative)) {
        Ok(file) if file.metadata()?.is_file() => Box::new(file),
        Ok(_) => bail!("{}: it is not a regular file", printable(&relative)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Box::new(io::empty()),
        Err(error) => return Err(error).with_context(|| printable(&relative)),
    };
    Ok((relative, content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{FakeRooms, said, said_bytes};

    fn wanted(rooms: &FakeRooms, version: u64) -> Versioned {
        Versioned {
            file: rooms.file("a.md"),
            version: Some(version),
        }
    }

    #[test]
    fn a_version_is_printed_byte_for_byte() {
        let rooms = FakeRooms::new();
        rooms.hold(1, b"one\n\xff\0");
        let (answer, bytes) = said_bytes(false, false, |out| run(&wanted(&rooms, 1), &rooms, out));
        assert_eq!((answer.unwrap(), bytes.as_slice()), (Answer::Yes, &b"one\n\xff\0"[..]));
    }

    #[test]
    fn json_holds_it_without_loss() {
        let rooms = FakeRooms::new();
        rooms.hold(1, b"\xff");
        let (_, text) = said(true, |out| run(&wanted(&rooms, 1), &rooms, out));
        let compact: String = text.split_whitespace().collect();
        assert_eq!(
            compact,
            r#"{"file":"a.md","version":1,"bytes":1,"content":{"bytes":"ff"}}"#
        );
    }

    #[test]
    fn a_version_that_is_not_kept_is_an_error_that_names_it() {
        let rooms = FakeRooms::new();
        let error = said(false, |out| run(&wanted(&rooms, 9), &rooms, out)).0.unwrap_err();
        assert_eq!(format!("{error:#}"), "a.md@9: version 9 is not kept");
    }
}
