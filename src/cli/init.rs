//! `concord init [DIR]`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use super::failure::{At, Failure};
use super::output::{Answer, Out};
use super::project;
use super::rooms::Rooms;
use crate::control::JsonPath;
use crate::control::lossless::printable;
use crate::os::mountinfo::MountTable;

const CONFIG: &str = "concord.toml";

pub fn run(dir: &Path, rooms: &dyn Rooms, out: &mut Out) -> anyhow::Result<Answer> {
    let root = project::resolve(dir)?;
    project::usable(&root)?;
    project::no_store(&root)?;
    let table = MountTable::read()?;
    let path = root.join(CONFIG);
    let shown = printable(&path);
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let failure = Failure::at(&path, "it is already there and stays as it is");
            return Err(failure.hint("edit it, or move it away first").into());
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::at(&root, "there is no such directory").into());
        }
        file => file.at(&path)?,
    };
    file.write_all(rooms.template().as_bytes()).at(&path)?;
    // On a mount this tells what the drop would hide: whether the bytes can be kept.
    file.sync_all().at(&path)?;
    drop(file);
    let inside = table.containing(&root).filter(|mount| mount.mountpoint != root);
    if out.json {
        let inside = inside.map(|mount| JsonPath(mount.mountpoint.clone()));
        out.document(&json!({ "written": JsonPath(path), "inside": inside }))?;
    } else {
        writeln!(out, "wrote {shown}")?;
        if let Some(mount) = inside {
            let project = printable(&mount.mountpoint);
            writeln!(
                out,
                "nobody reads it: the directory belongs to the project {project}, whose rules are in {project}/{CONFIG}"
            )?;
        }
    }
    Ok(Answer::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{FakeRooms, said};

    #[test]
    fn the_template_is_written_once_and_never_over_anything() {
        let rooms = FakeRooms::new();
        let dir = rooms.file("");
        assert_eq!(said(false, |out| run(&dir, &rooms, out)).0.unwrap(), Answer::Yes);
        assert_eq!(std::fs::read(rooms.file(CONFIG)).unwrap(), b"# rules\n");
        std::fs::write(rooms.file(CONFIG), "mine").unwrap();
        let error = said(false, |out| run(&dir, &rooms, out)).0.unwrap_err().to_string();
        assert!(error.contains("already there"), "{error}");
        assert_eq!(std::fs::read(rooms.file(CONFIG)).unwrap(), b"mine");
    }
}
