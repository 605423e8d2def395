//! The same program in a plain directory and on a mount: what it leaves must be the same.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Project, run, text};

/// What is installed before the tests run.
const TEST_SCRIPT: &str = include_str!("../../scripts/test.sh");

/// Whether a program is not there, which is a failure when `scripts/test.sh` installs it.
pub fn lacks(program: &str) -> bool {
    let mut asked = Command::new("sh");
    asked.args(["-c", "command -v \"$0\"", program]);
    if run(asked).status.success() {
        return false;
    }
    assert!(
        !TEST_SCRIPT.contains(&format!(" {program}=")),
        "{program} is missing: scripts/test.sh installs it"
    );
    eprintln!("{program} is not installed: not tested");
    true
}

/// A mounted project and a plain directory with the same files in it.
pub struct Twin {
    /// The mounted one.
    pub project: Project,
    plain: PathBuf,
}

/// What a name is: its mode, and its content or target.
type Entry = (u32, Vec<u8>);

impl Twin {
    /// Both with these files, all of mode 0640, which no umask gives.
    pub fn with(files: &[(&str, &str)]) -> Twin {
        super::watchdog();
        let project = Project::with(files);
        let plain = project.outside().join("plain");
        std::fs::create_dir(&plain).unwrap();
        for (name, content) in files {
            let twin = plain.join(name);
            std::fs::create_dir_all(twin.parent().unwrap()).unwrap();
            std::fs::write(&twin, content).unwrap();
            for path in [twin, project.path(name)] {
                std::fs::set_permissions(path, PermissionsExt::from_mode(0o640)).unwrap();
            }
        }
        Twin { project, plain }
    }

    /// Runs a script of `shell` in both: it must succeed, and print and leave the same; returns what it printed. `$OUT` is a
    /// directory outside the tree, `$REPO` this repository.
    pub fn same_by(&self, shell: &str, script: &str) -> String {
        let printed = self.run_in(&self.plain, shell, script);
        assert_eq!(self.run_in(&self.project.root(), shell, script), printed, "{script}");
        let (plain, mounted) = (entries(&self.plain), entries(&self.project.root()));
        for (name, entry) in &mounted {
            assert_eq!(
                Some(&shown(entry)),
                plain.get(name).map(shown).as_ref(),
                "{name}: {script}"
            );
        }
        assert_eq!(
            mounted.len(),
            plain.len(),
            "{:?}\n{:?}\n{script}",
            mounted.keys(),
            plain.keys()
        );
        printed
    }

    /// The same by bash.
    pub fn same(&self, script: &str) -> String {
        self.same_by("bash", script)
    }

    /// A script that saves a file this many times; each is a version.
    pub fn saves_by(&self, shell: &str, file: &str, times: u64, script: &str) {
        let before = self.newest(file);
        self.same_by(shell, script);
        assert_eq!(self.newest(file), before + times, "{file}: {script}");
        self.nothing_is_left(script);
    }

    /// The same by bash.
    pub fn saves(&self, file: &str, times: u64, script: &str) {
        self.saves_by("bash", file, times, script);
    }

    /// The number of a file's newest version; one that was there before the mount has no record until its first change.
    fn newest(&self, file: &str) -> u64 {
        match self.project.history(file).first() {
            Some(version) => version["version"].as_u64().unwrap(),
            None => self.project.path(file).exists().into(),
        }
    }

    /// No session is open, nothing was set aside, no shadow is left.
    pub fn nothing_is_left(&self, script: &str) {
        // Handles that the kernel has yet to release are no sessions of anybody.
        super::eventually("no session is open", || {
            self.project.status()["sessions"].as_array().unwrap().is_empty()
        });
        let status = self.project.status();
        assert!(self.project.recovered().is_empty(), "{script}: {status}");
        for count in ["busy", "deadlocks", "discarded", "failed", "late"] {
            assert_eq!(status["counts"][count], 0, "{script}: {status}");
        }
        let shadows = std::fs::read_dir(self.project.path(".concord/shadows")).unwrap();
        let left: Vec<_> = shadows
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| name != "journal")
            .collect();
        assert!(left.is_empty(), "{script}: {left:?}");
    }

    fn run_in(&self, directory: &Path, shell: &str, script: &str) -> String {
        let out = tempfile::tempdir_in(self.project.outside()).unwrap();
        let mut command = Command::new(shell);
        command.args(["-ec", script]).current_dir(directory);
        command
            .env("OUT", out.path())
            .env("HOME", out.path())
            .env("REPO", env!("CARGO_MANIFEST_DIR"));
        command.env("LC_ALL", "C.UTF-8");
        let output = run(command);
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "{}: {script}: {}: {said}",
            directory.display(),
            output.status
        );
        // Paths differ, and are no difference.
        let said = said.replace(&directory.display().to_string(), "TREE");
        said.replace(&out.path().display().to_string(), "OUT")
    }
}

fn shown((mode, content): &Entry) -> String {
    format!("{mode:o} {}", text(content))
}

/// Everything below a directory, but what git and builds keep for themselves: times and inode numbers are in it.
fn entries(directory: &Path) -> BTreeMap<String, Entry> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            if path.ends_with(".git") || path.ends_with("target") || path.ends_with("node_modules") {
                continue;
            }
            let content = if metadata.is_dir() {
                directories.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                std::fs::read(&path).unwrap()
            };
            let name = path.strip_prefix(directory).unwrap().to_string_lossy().into_owned();
            found.insert(name, (metadata.permissions().mode(), content));
        }
    }
    found
}
