//! `concord show FILE@N`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
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
    let Opened { path, content } = open(wanted, rooms)?;
    let mut content = content.context("a version is missing")?;
    if !out.json {
        io::copy(&mut content, out)?;
        return Ok(Answer::Yes);
    }
    let mut bytes = Vec::new();
    content.take(JSON_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > JSON_BYTES_MAX {
        let why = format!("it has more than {JSON_BYTES_MAX} bytes");
        return Err(Failure::at(&path, why).hint("leave --json away").into());
    }
    out.document(&Document {
        file: path.into(),
        version: wanted.version,
        bytes: bytes.len(),
        content: JsonBytes(bytes),
    })?;
    Ok(Answer::Yes)
}

/// A version of a file, or what it holds now.
pub struct Opened {
    /// The path in the project.
    pub path: PathBuf,
    /// None: the file was removed, and it is asked for what it holds now.
    pub content: Option<Box<dyn Read>>,
}

/// Opens what is wanted.
///
/// # Errors
/// Also for a file that neither is there nor has a history.
pub fn open(wanted: &Versioned, rooms: &dyn Rooms) -> anyhow::Result<Opened> {
    let (project, path) = Project::of_file(&wanted.file)?;
    let content = match wanted.version {
        Some(version) => Some(kept(&project, wanted, &path, version, rooms)?),
        None => now(&project, &path, rooms)?,
    };
    Ok(Opened { path, content })
}

fn kept(
    project: &Project,
    wanted: &Versioned,
    path: &Path,
    version: u64,
    rooms: &dyn Rooms,
) -> anyhow::Result<Box<dyn Read>> {
    let history = project.history(rooms)?;
    let error = match history.open_version(path, version) {
        Ok(content) => return Ok(content),
        Err(error) => error,
    };
    match missing::version(project, wanted, path, rooms, &*history)? {
        Some(failure) if is(&error, io::ErrorKind::NotFound) => Err(failure.into()),
        _ => Err(error).at(&missing::name_of(path, version)),
    }
}

fn now(project: &Project, path: &Path, rooms: &dyn Rooms) -> anyhow::Result<Option<Box<dyn Read>>> {
    let content = match current(&project.root.join(path), path) {
        // Another user's mount is closed to root, the tree that it shows is not.
        Err(error) if is(&error, io::ErrorKind::PermissionDenied) => current(&project.tree().join(path), path),
        content => content,
    };
    let content = content.at(path)?;
    if content.is_none() {
        let history = project.history(rooms)?;
        if history.versions(path).at(path)?.is_empty() {
            return Err(missing::file(project, path, rooms, &*history).into());
        }
    }
    Ok(content)
}

fn is(error: &anyhow::Error, kind: io::ErrorKind) -> bool {
    error
        .downcast_ref()
        .is_some_and(|error: &io::Error| error.kind() == kind)
}

/// What the file holds now; nothing where there is none. Never waits, as at a FIFO.
fn current(path: &Path, shown: &Path) -> anyhow::Result<Option<Box<dyn Read>>> {
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
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(io::Error::from(errno).into()),
    };
    // Nor is a device opened, which could do something.
    if found != FileType::RegularFile {
        return Err(kind(found).into());
    }
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(io::Error::from)?;
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(Some(Box::new(File::from(file)))),
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
