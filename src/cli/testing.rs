//! Rooms for the tests of the commands: one project, one file `a.md` with two versions.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::output::{Answer, Out};
use super::rooms::*;
use crate::control::testing::{moment, status};

pub struct FakeRooms {
    dir: tempfile::TempDir,
}

impl FakeRooms {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".concord")).unwrap();
        Self { dir }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the version of `a.md` holds.
    pub fn hold(&self, version: u64, content: &[u8]) {
        std::fs::write(self.file(&format!(".concord/{version}")), content).unwrap();
    }
}

struct FakeHistory(PathBuf);

impl HistorySource for FakeHistory {
    fn versions(&self, file: &Path) -> anyhow::Result<Vec<Version>> {
        let first = Version {
            version: 1,
            time: moment(),
            bytes: 4,
            hash: "abcdef0123456789".into(),
            how: "found".into(),
            pid: 0,
            command: String::new(),
            agent: None,
            based_on: None,
            current: false,
            uid: 0,
            replaced: None,
            stale: false,
            gone: false,
            name: None,
            came_from: None,
            moved_to: None,
        };
        let second = Version {
            version: 2,
            bytes: 8,
            how: "close".into(),
            pid: 41,
            command: "vim".into(),
            agent: Some("planner".into()),
            based_on: Some(1),
            current: true,
            replaced: Some(1),
            stale: true,
            ..first.clone()
        };
        Ok(if file == Path::new("a.md") {
            vec![second, first]
        } else {
            Vec::new()
        })
    }

    fn unreadable(&self, _: &Path) -> anyhow::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    fn paths(&self) -> anyhow::Result<Vec<PathBuf>> {
        Ok(vec!["a.md".into()])
    }

    fn open_version(&self, _: &Path, version: u64) -> anyhow::Result<Box<dyn Read>> {
        match File::open(self.0.join(format!(".concord/{version}"))) {
            Ok(file) => Ok(Box::new(file)),
            Err(_) => anyhow::bail!("version {version} is not kept"),
        }
    }
}

impl Rooms for FakeRooms {
    fn history(&self, tree: &Path) -> anyhow::Result<Box<dyn HistorySource>> {
        Ok(Box::new(FakeHistory(tree.to_path_buf())))
    }

    fn recover(&self, _: &Path, _: Option<&Path>) -> anyhow::Result<Recovery> {
        Ok(Recovery {
            finished: vec!["c.md".into()],
            kept: status().recovered,
            notes: vec!["a note".into()],
        })
    }

    fn is_coordinated(&self, _: &Path, _: &Path, _: Option<&Path>, file: &Path) -> anyhow::Result<bool> {
        Ok(file.extension().is_some_and(|extension| extension == "md"))
    }

    fn template(&self) -> &str {
        "# rules\n"
    }

    fn mount(&self, _: MountOrder) -> anyhow::Result<Box<dyn Daemon>> {
        anyhow::bail!("this fake cannot mount")
    }
}

/// The answer of `command` and what it printed.
pub fn said(json: bool, command: impl FnOnce(&mut Out) -> anyhow::Result<Answer>) -> (anyhow::Result<Answer>, String) {
    let (answer, bytes) = said_bytes(json, false, command);
    (answer, String::from_utf8(bytes).unwrap())
}

/// As [`said`], for what need not be text.
pub fn said_bytes(
    json: bool,
    colour: bool,
    command: impl FnOnce(&mut Out) -> anyhow::Result<Answer>,
) -> (anyhow::Result<Answer>, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut out = Out::to(&mut bytes, json, colour);
    let answer = command(&mut out);
    out.flush().unwrap();
    drop(out);
    (answer, bytes)
}
