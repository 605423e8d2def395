//! `concord doctor [DIR]`: what this machine and this directory give, what each lack costs, and what to do about it.

mod directory;
mod machine;

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::output::{Answer, Out, wrapped};
use super::project::{self, Project, STORE};
use super::rooms::Rooms;
use crate::control::JsonPath;
use crate::control::lossless::printable;
use crate::os::mountinfo::MountTable;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    name: &'static str,
    state: State,
    /// Without it nothing can be mounted here, or not with what the contract promises.
    essential: bool,
    detail: String,
    /// What its lack costs; empty where there is none.
    cost: &'static str,
    /// What to do about it; empty where there is none or nothing can be done.
    remedy: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Yes,
    No,
    /// Could not be tried.
    Unknown,
}

impl Finding {
    fn has(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Yes,
            essential: false,
            detail: detail.into(),
            cost: "",
            remedy: "",
        }
    }

    fn lacks(name: &'static str, detail: impl Into<String>, cost: &'static str, remedy: &'static str) -> Self {
        Self {
            state: State::No,
            cost,
            remedy,
            ..Self::has(name, detail)
        }
    }

    fn unknown(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            state: State::Unknown,
            ..Self::has(name, detail)
        }
    }

    fn essential(self, essential: bool) -> Self {
        Self { essential, ..self }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    directory: JsonPath,
    usable: bool,
    /// The mount of ours that it lies in.
    mounted_at: Option<JsonPath>,
    findings: &'a [Finding],
}

pub fn run(dir: &Path, rooms: &dyn Rooms, out: &mut Out) -> anyhow::Result<Answer> {
    let dir = project::resolve(dir)?;
    let table = MountTable::read()?;
    let mounted = table.containing(&dir).map(|mount| mount.mountpoint.clone());
    if let Some(mountpoint) = &mounted {
        project::usable(mountpoint)?;
    }
    let tree = tree(&dir);
    let mut findings = machine::look();
    findings.extend(directory::look(&tree));
    findings.extend(store(&tree, rooms));
    let usable = !findings
        .iter()
        .any(|finding| finding.essential && finding.state == State::No);
    if out.json {
        out.document(&Document {
            directory: dir.into(),
            usable,
            mounted_at: mounted.map(JsonPath),
            findings: &findings,
        })?;
    } else {
        print(out, &dir, &findings, verdict(usable, mounted.as_deref(), &dir))?;
    }
    Ok(if usable { Answer::Yes } else { Answer::No })
}

/// What is under a mount of ours counts, not the mount.
fn tree(dir: &Path) -> std::path::PathBuf {
    match Project::containing(dir) {
        Ok(project) if project.mount().is_some() => match dir.strip_prefix(&project.root) {
            Ok(below) => project.tree().join(below),
            Err(_) => dir.to_path_buf(),
        },
        _ => dir.to_path_buf(),
    }
}

/// Whether this version can read what an earlier mount has left there.
fn store(tree: &Path, rooms: &dyn Rooms) -> Option<Finding> {
    tree.join(STORE).symlink_metadata().ok()?;
    let name = "store";
    Some(match rooms.history(tree) {
        Ok(_) => Finding::has(name, format!("{STORE}, from an earlier mount, can be read")),
        Err(error) => match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::PermissionDenied) => Finding::unknown(name, format!("{STORE} is another user's")),
            // Begun and not finished.
            Some(io::ErrorKind::NotFound) => return None,
            _ => {
                let remedy = "install the concordfs that made it, or a later one";
                Finding::lacks(name, error.to_string(), "nothing is mounted over it", remedy).essential(true)
            }
        },
    })
}

fn verdict(usable: bool, mounted: Option<&Path>, dir: &Path) -> String {
    match (mounted, usable) {
        (Some(at), _) if at == dir => "is mounted; `concord status` says more".to_owned(),
        (Some(at), _) => format!("lies in the mount at {}, and needs none of its own", printable(at)),
        (None, true) => "can be mounted".to_owned(),
        (None, false) => "cannot be mounted until what is MISSING is there".to_owned(),
    }
}

fn print(out: &mut impl Write, dir: &Path, findings: &[Finding], verdict: String) -> io::Result<()> {
    for finding in findings {
        let state = match (finding.state, finding.essential) {
            (State::Yes, _) => "yes",
            (State::No, true) => "MISSING",
            (State::No, false) => "no",
            (State::Unknown, _) => "?",
        };
        write!(out, "{:<18}{state:<9}", finding.name)?;
        let detail = printable(&finding.detail);
        let lines = wrapped(&detail, INDENT).join(&format!("\n{:<INDENT$}", ""));
        writeln!(out, "{lines}")?;
        for (label, text) in [("costs", finding.cost), ("do", finding.remedy)] {
            if !text.is_empty() {
                for line in wrapped(&format!("{label}: {text}"), INDENT) {
                    writeln!(out, "{:<INDENT$}{line}", "")?;
                }
            }
        }
    }
    writeln!(out, "{}: {verdict}", printable(dir))
}

/// Where the third column begins.
const INDENT: usize = 27;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{FakeRooms, said};

    #[test]
    fn each_lack_says_what_it_costs_and_what_to_do() {
        let mut text = Vec::new();
        let findings = [
            Finding::has("xattrs", "user.* can be set"),
            Finding::lacks("reflink", "FICLONE: not supported", "copies", "use btrfs"),
            Finding::lacks("fuse", "none", "everything", "").essential(true),
            Finding::unknown("resend", "not tried"),
        ];
        print(
            &mut text,
            Path::new("/p"),
            &findings,
            verdict(false, None, Path::new("/p")),
        )
        .unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "xattrs            yes      user.* can be set\n\
             reflink           no       FICLONE: not supported\n\
             \x20                          costs: copies\n\
             \x20                          do: use btrfs\n\
             fuse              MISSING  none\n\
             \x20                          costs: everything\n\
             resend            ?        not tried\n\
             /p: cannot be mounted until what is MISSING is there\n"
        );
    }

    #[test]
    fn every_look_leaves_nothing_behind_and_has_an_answer_for_everything() {
        let dir = tempfile::tempdir().unwrap();
        let (answer, text) = said(true, |out| run(dir.path(), &FakeRooms::new(), out));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["usable"].as_bool(), Some(answer.unwrap() == Answer::Yes));
        let names: Vec<_> = json["findings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| f["name"].as_str().unwrap())
            .collect();
        for name in [
            "fuse",
            "passthrough",
            "resend",
            "fusermount3",
            "reflink",
            "exchange",
            "xattrs",
            "acls",
            "descriptors",
        ] {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_is_not_there_is_a_no() {
        let dir = tempfile::tempdir().unwrap();
        let (answer, text) = said(false, |out| run(&dir.path().join("none"), &FakeRooms::new(), out));
        assert_eq!(answer.unwrap(), Answer::No);
        assert!(text.contains("MISSING"), "{text}");
    }
}
