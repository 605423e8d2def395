//! The command line as a shell sees it: exit codes, one line on standard error, one JSON document.

use std::io::Read;
use std::path::Path;
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
    let output = concord(dir.path(), &["doctor", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(code(&output) == 0, json["usable"].as_bool().unwrap());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("concord-doctor"), "{mounts}");
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
