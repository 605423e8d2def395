//! `concord recover DIR`: the one command after a crash.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Serialize;

use super::output::{Answer, Out};
use super::project::{self, STORE};
use super::rooms::{Recovery, Rooms};
use super::{status, unmount};
use crate::control::JsonPath;
use crate::control::client::Client;
use crate::control::lossless::printable;
use crate::os::mountinfo;

#[derive(Serialize)]
struct Document<'a> {
    backing: JsonPath,
    dead_mount_cleared: bool,
    #[serde(flatten)]
    recovery: &'a Recovery,
}

pub fn run(dir: &Path, config: Option<&Path>, rooms: &dyn Rooms, out: &mut Out) -> anyhow::Result<Answer> {
    let dir = project::resolve(dir).with_context(|| printable(dir))?;
    let shown = printable(&dir);
    // A dead mount's source says what it showed, which need not be what it lay on (`--backing`).
    let backing = mountinfo::mounted_at(&dir)?
        .map(|mount| mount.source)
        .filter(|source| source.is_absolute());
    let cleared = unmount::clear_dead(&dir)?;
    if mountinfo::mounted_at(&dir)?.is_some() {
        bail!("{shown}: it is mounted, and its daemon recovered when it started; see `concord status {shown}`");
    }
    let backing: PathBuf = backing.filter(|source| source.is_dir()).unwrap_or(dir);
    if let Ok(client) = Client::connect(&backing) {
        let (pid, at) = (client.beacon().pid, printable(&client.beacon().mountpoint.0));
        bail!(
            "{}: a daemon (pid {pid}) shows it at {at}; unmount that first",
            printable(&backing)
        );
    }
    if !backing.join(STORE).is_dir() {
        bail!(
            "{}: no {STORE} is there, so nothing was ever mounted over it",
            printable(&backing)
        );
    }
    let recovery = rooms.recover(&backing, config).with_context(|| printable(&backing))?;
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
