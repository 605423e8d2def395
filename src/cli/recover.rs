//! `concord recover DIR`: the one command after a crash.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::failure::{At, Failure};
use super::mount::readable;
use super::output::{Answer, Out};
use super::project::{self, STORE};
use super::reach::{self, Liveness};
use super::rooms::{Recovery, Rooms};
use super::{status, unmount};
use crate::control::JsonPath;
use crate::control::client::Client;
use crate::control::lossless::printable;
use crate::os::mountinfo::MountTable;

#[derive(Serialize)]
struct Document<'a> {
    backing: JsonPath,
    dead_mount_cleared: bool,
    #[serde(flatten)]
    recovery: &'a Recovery,
}

pub fn run(dir: &Path, config: Option<&Path>, rooms: &dyn Rooms, out: &mut Out) -> anyhow::Result<Answer> {
    let config = config.map(readable).transpose()?;
    let dir = project::resolve(dir)?;
    let shown = printable(&dir);
    // A dead mount says what it showed, which need not be what it lay on (`--backing`).
    let backing = MountTable::read()?.at(&dir).map(|mount| mount.backing.clone());
    let backing = backing.filter(|backing| backing.is_absolute());
    let cleared = unmount::clear_dead(&dir)?;
    let table = MountTable::read()?;
    if let Some(mount) = table.containing(&dir) {
        if let Liveness::Silent(failure) = reach::liveness(mount) {
            return Err(failure.into());
        }
        let status = format!("see `concord status {}`", printable(&mount.mountpoint));
        let why = "it is mounted, and its daemon recovered when it started";
        return Err(Failure::at(&dir, why).hint(status).into());
    }
    let backing: PathBuf = backing.filter(|backing| backing.is_dir()).unwrap_or(dir);
    if let Ok(client) = Client::connect(&backing) {
        let (pid, at) = (client.beacon().pid, printable(&client.beacon().mountpoint.0));
        let why = format!("a daemon (pid {pid}) shows it at {at}");
        return Err(Failure::at(&backing, why).hint("unmount that first").into());
    }
    match backing.join(STORE).symlink_metadata() {
        Ok(meta) if meta.is_dir() => {}
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).at(&backing),
        _ => {
            let why = format!("no {STORE} is there, so nothing was ever mounted over it");
            return Err(Failure::at(&backing, why).hint("there is nothing to do").into());
        }
    }
    let recovery = rooms.recover(&backing, config.as_deref()).at(&backing)?;
    if out.json {
        out.document(&Document {
            backing: backing.into(),
            dead_mount_cleared: cleared,
            recovery: &recovery,
        })?;
    } else {
        if cleared {
            writeln!(out, "{shown}: a dead mount was there and is cleared")?;
        }
        print(out, &recovery)?;
    }
    Ok(Answer::Yes)
}

fn print(out: &mut impl Write, recovery: &Recovery) -> io::Result<()> {
    writeln!(out, "publishes finished: {}", recovery.finished.len())?;
    for file in &recovery.finished {
        writeln!(out, "  {}", printable(&file.0))?;
    }
    status::kept(out, "recovered", &recovery.kept)?;
    recovery
        .notes
        .iter()
        .try_for_each(|note| writeln!(out, "{}", printable(note)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{FakeRooms, said};

    #[test]
    fn what_was_found_and_kept_is_said() {
        let rooms = FakeRooms::new();
        let (answer, text) = said(false, |out| run(&rooms.file(""), None, &rooms, out));
        assert_eq!(answer.unwrap(), Answer::Yes);
        assert_eq!(
            text,
            "publishes finished: 1\n  c.md\nrecovered: 1\n  \
             2023-11-14T22:13:20Z  b.md: the writer was killed; 12 bytes kept in .concord/recovered/7-b.md\na note\n"
        );
    }

    #[test]
    fn json_is_one_document() {
        let rooms = FakeRooms::new();
        let (_, text) = said(true, |out| run(&rooms.file(""), None, &rooms, out));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["dead_mount_cleared"], false);
        assert_eq!(
            (json["finished"][0].as_str(), json["kept"][0]["bytes"].as_u64()),
            (Some("c.md"), Some(12))
        );
    }

    #[test]
    fn a_directory_that_was_never_mounted_is_left_alone() {
        let (rooms, dir) = (FakeRooms::new(), tempfile::tempdir().unwrap());
        assert!(said(false, |out| run(dir.path(), None, &rooms, out)).0.is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
