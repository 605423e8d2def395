//! The command line as a shell sees it: exit codes, one line on standard error, one JSON document.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn concord(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_concord"))
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn wrong_usage_is_exit_code_two_and_help_is_zero() {
    let dir = tempfile::tempdir().unwrap();
    let wrong: [&[&str]; 8] = [
        &[],
        &["frobnicate"],
        &["mount"],
        &["unmount"],
        &["show", "a.md"],
        &["show", "a.md@0"],
        &["restore", "a.md@99999999999999999999"],
        &["status", "--frob"],
    ];
    for arguments in wrong {
        let output = concord(dir.path(), arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", error(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    assert_eq!(code(&concord(dir.path(), &["--help"])), 0);
    assert_eq!(code(&concord(dir.path(), &["--version"])), 0);
}

#[test]
fn an_error_is_exit_code_one_and_one_line_that_names_command_and_path() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let errors: [(&[&str], &str); 8] = [
        (&["mount", "file"], "concord: mount: file: it is not a directory"),
        (&["mount", "none"], "concord: mount: none: there is no such directory"),
        (&["unmount", "."], "no concord mount is there"),
        (&["status"], "concord: status: .: it is in no concord project"),
        (
            &["history", "file"],
            "concord: history: file: it is in no concord project",
        ),
        (
            &["restore", "file@1"],
            "concord: restore: file: it is in no concord project",
        ),
        (&["recover", "."], "nothing was ever mounted"),
        (&["mount", ".", "--config", "x\ny"], "x\\ny: the rules cannot be read"),
    ];
    for (arguments, expected) in errors {
        let output = concord(dir.path(), arguments);
        let text = error(&output);
        assert_eq!(code(&output), 1, "{arguments:?}: {text}");
        assert!(
            text.contains(expected) && text.starts_with("concord: "),
            "{arguments:?}: {text}"
        );
        assert_eq!(text.matches('\n').count(), 1, "{arguments:?}: {text}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was changed");
}

#[test]
fn with_nothing_mounted_status_and_restore_say_so() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(".concord")).unwrap();
    for arguments in [&["status"][..], &["restore", "a.md@1"]] {
        let output = concord(dir.path(), arguments);
        assert_eq!(code(&output), 1);
        assert!(error(&output).contains("no daemon runs for it"), "{}", error(&output));
    }
}

#[test]
fn init_writes_once() {
    let dir = tempfile::tempdir().unwrap();
    let output = concord(dir.path(), &["init", "--json"]);
    assert_eq!(code(&output), 0, "{}", error(&output));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["written"].as_str().unwrap().ends_with("/concord.toml"));
    let output = concord(dir.path(), &["init"]);
    assert_eq!(code(&output), 1);
    assert!(error(&output).contains("already there"));
}

#[test]
fn doctor_prints_one_document_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_concord"));
    let output = command
        .args(["doctor", "--json"])
        .arg(dir.path())
        .env("TMPDIR", scratch.path())
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(code(&output) == 0, json["usable"].as_bool().unwrap());
    for left in [dir.path(), scratch.path()] {
        assert_eq!(std::fs::read_dir(left).unwrap().count(), 0);
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(scratch.path().to_str().unwrap()), "{mounts}");
}

#[test]
fn a_reader_that_has_gone_ends_a_command_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = Command::new(env!("CARGO_BIN_EXE_concord"))
        .args(["doctor", "--json"])
        .current_dir(dir.path())
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((child.wait().unwrap().code(), text.as_str()), (Some(0), ""));
}

/// A mount of ours whose daemon has gone: mounted, then its /dev/fuse closed. Needs root.
struct DeadMount(PathBuf);

impl DeadMount {
    fn over(dir: &Path) -> Self {
        let device = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount(dir, dir, "fuse.concordfs", flags, Some(options.as_c_str())).unwrap();
        Self(dir.to_path_buf())
    }
}

impl Drop for DeadMount {
    fn drop(&mut self) {
        while rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).is_ok() {}
    }
}

#[test]
fn a_dead_mount_is_named_by_every_command_and_cleared_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().canonicalize().unwrap().join("a project");
    std::fs::create_dir_all(project.join(".concord")).unwrap();
    let _dead = DeadMount::over(&project);
    let _dead_twice = DeadMount::over(&project);
    let here = dir.path();
    for arguments in [
        &["mount", "a project"][..],
        &["status", "a project"],
        &["history", "a project/x.md"],
    ] {
        let output = concord(here, arguments);
        assert_eq!(code(&output), 1, "{arguments:?}");
        let text = error(&output);
        assert!(
            text.contains("dead") && text.contains("concord recover"),
            "{arguments:?}: {text}"
        );
    }
    let output = concord(here, &["unmount", "a project", "--json"]);
    assert_eq!(code(&output), 0, "{}", error(&output));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["was_dead"], true);
    assert!(project.join(".concord").is_dir(), "the project is back");
}

#[test]
fn recover_clears_a_dead_mount_before_anything_else() {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().canonicalize().unwrap();
    let _dead = DeadMount::over(&project);
    let output = concord(Path::new("/"), &["recover", project.to_str().unwrap()]);
    assert!(
        error(&output).contains("nothing was ever mounted"),
        "{}",
        error(&output)
    );
    assert_eq!(std::fs::read_dir(&project).unwrap().count(), 0);
}
