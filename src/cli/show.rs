//! `concord show FILE@N`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::failure::{At, Failure};
use super::missing;
use super::output::{Answer, Out};
use super::project::Project;
use super::rooms::Rooms;
use super::versioned::Versioned;
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
        let why = format!("it has more than {JSON_BYTES_MAX} bytes");
        return Err(Failure::at(&relative, why).hint("leave --json away").into());
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
    let Some(version) = wanted.version else {
        return Ok((relative.clone(), current(&project.root.join(&relative), &relative)?));
    };
    let history = project.history(rooms)?;
    let error = match history.open_version(&relative, version) {
        Ok(content) => return Ok((relative, content)),
        Err(error) => error,
    };
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match missing::version(&project, wanted, &relative, rooms, &*history)? {
        Some(failure) if error.downcast_ref().is_some_and(gone) => Err(failure.into()),
        _ => Err(error).at(&missing::name_of(&relative, version)),
    }
}

/// What the file holds now; nothing where there is none. Never waits, as at a FIFO.
fn current(path: &Path, shown: &Path) -> anyhow::Result<Box<dyn Read>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let kind = |kind: FileType| {
        let what = match kind {
            FileType::Directory => "a directory",
            FileType::Fifo => "a FIFO",
            FileType::Socket => "a socket",
            FileType::CharacterDevice | FileType::BlockDevice => "a device",
            _ => "no regular file",
        };
        Failure::at(shown, format!("it is {what} now, and cannot be compared")).hint("name two versions: FILE@A FILE@B")
    };
    let found = match rustix::fs::lstat(path) {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Box::new(io::empty())),
        Err(errno) => return Err(io::Error::from(errno)).at(shown),
    };
    // Nor is a device opened, which could do something.
    if found != FileType::RegularFile {
        return Err(kind(found).into());
    }
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(io::Error::from)
        .at(shown)?;
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(Box::new(File::from(file))),
        other => Err(kind(other).into()),
    }
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
