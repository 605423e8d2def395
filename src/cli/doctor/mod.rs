//! `concord doctor [DIR]`: what this machine and this directory give, what each lack costs, and what to do about it.

mod directory;
mod machine;

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use super::output::{Answer, Out};
use super::project::{self, Project};
use crate::control::JsonPath;
use crate::control::lossless::printable;

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
    findings: &'a [Finding],
}

pub fn run(dir: &Path, out: &mut Out) -> anyhow::Result<Answer> {
    let dir = project::resolve(dir).with_context(|| printable(dir))?;
    let mut findings = machine::look();
    findings.extend(directory::look(&tree(&dir)));
    let usable = !findings
        .iter()
        .any(|finding| finding.essential && finding.state == State::No);
    if out.json {
        out.document(&Document {
            directory: dir.into(),
            usable,
            findings: &findings,
        })?;
    } else {
        print(out, &dir, &findings, usable)?;
    }
    Ok(if usable { Answer::Yes } else { Answer::No })
}

/// What is under a mount of ours counts, not the mount.
fn tree(dir: &Path) -> std::path::PathBuf {
    match Project::containing(dir) {
        Ok(project) if project.root == dir => project.tree(),
        _ => dir.to_path_buf(),
    }
}

fn print(out: &mut impl Write, dir: &Path, findings: &[Finding], usable: bool) -> io::Result<()> {
    for finding in findings {
        let state = match (finding.state, finding.essential) {
            (State::Yes, _) => "yes",
            (State::No, true) => "MISSING",
            (State::No, false) => "no",
            (State::Unknown, _) => "?",
        };
        writeln!(out, "{:<18}{state:<9}{}", finding.name, printable(&finding.detail))?;
        for (label, text) in [("costs", finding.cost), ("do", finding.remedy)] {
            if !text.is_empty() {
                writeln!(out, "{:<27}{label}: {text}", "")?;
            }
        }
    }
    let verdict = if usable {
        "can be mounted"
    } else {
        "cannot be mounted until what is MISSING is there"
    };
    writeln!(out, "{}: {verdict}", printable(dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::said;

    #[test]
    fn each_lack_says_what_it_costs_and_what_to_do() {
        let mut text = Vec::new();
        let findings = [
            Finding::has("xattrs", "user.* can be set"),
            Finding::lacks("reflink", "FICLONE: not supported", "copies", "use btrfs"),
            Finding::lacks("fuse", "none", "everything", "").essential(true),
            Finding::unknown("resend", "not tried"),
        ];
        print(&mut text, Path::new("/p"), &findings, false).unwrap();
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
        let (answer, text) = said(true, |out| run(dir.path(), out));
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
        let (answer, text) = said(false, |out| run(&dir.path().join("none"), out));
        assert_eq!(answer.unwrap(), Answer::No);
        assert!(text.contains("MISSING"), "{text}");
    }
}
