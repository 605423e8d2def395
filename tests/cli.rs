//! The command line as a shell sees it: exit codes, one line on standard error, one JSON document.

mod support;

use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use support::puppet::Puppet;
use support::{Project, as_nobody, eventually, refused, run, watchdog};

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
    // Which lists the commands: what the daemon starts is none.
    let output = concord(dir.path(), &["--json"]);
    let said = format!("{}{}", error(&output), support::text(&output.stdout));
    assert_eq!(code(&output), 2, "{said}");
    assert!(said.contains("doctor") && !said.contains("tell"), "{said}");
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
fn with_json_a_failure_is_one_document_too() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().canonicalize().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let failures: [(&[&str], i32, &str, Option<&Path>); 6] = [
        (&["mount", "file"], 1, "mount", Some(Path::new("file"))),
        (&["unmount", "."], 1, "unmount", Some(&here)),
        (&["status"], 1, "status", Some(Path::new("."))),
        (&["show", "file@1"], 1, "show", Some(Path::new("file"))),
        (&["show", "file"], 2, "usage", None),
        (&["frobnicate"], 2, "usage", None),
    ];
    for (arguments, expected, what, path) in failures {
        let output = concord(dir.path(), &[arguments, &["--json"]].concat());
        assert_eq!(code(&output), expected, "{arguments:?}");
        let json: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {output:?}"));
        let said = &json["error"];
        assert_eq!(said["what"], what, "{arguments:?}: {json}");
        assert_eq!(said["path"].as_str().map(Path::new), path, "{arguments:?}: {json}");
        let why = said["why"].as_str().unwrap();
        assert!(error(&output).contains(why), "{arguments:?}: {json}");
        assert!(said.get("hint").is_some(), "{arguments:?}: {json}");
    }
}

/// Goes on when the test is over, else nothing could unmount it.
struct Stopped(u32);

impl Stopped {
    fn new(daemon: u32) -> Stopped {
        support::kill(daemon, Signal::STOP);
        let is_stopped = || {
            std::fs::read_to_string(format!("/proc/{daemon}/stat"))
                .unwrap()
                .contains(") T ")
        };
        eventually("the daemon stops", is_stopped);
        Stopped(daemon)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        support::kill(self.0, Signal::CONT);
    }
}

fn nobody(arguments: &[&str]) -> Command {
    let mut command = as_nobody(env!("CARGO_BIN_EXE_concord"));
    command.args(arguments);
    command
}

#[test]
fn beside_a_daemon_that_does_not_answer_no_command_hangs_and_each_says_so() {
    watchdog();
    let mut project = Project::unmounted(&[("a.md", "one\n"), ("sub/b.md", "")]);
    let daemon = project.mount();
    let (root, a, sub) = (project.root(), project.path("a.md"), project.path("sub"));
    let [root, a, sub] = [&root, &a, &sub].map(|path| path.to_str().unwrap());
    std::os::unix::fs::symlink(a, project.outside().join("link")).unwrap();
    let link = project.outside().join("link");
    let at = project.outside().join("at");
    std::fs::create_dir(&at).unwrap();
    std::fs::set_permissions(&at, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let at = at.to_str().unwrap();
    let (version, link) = (format!("{a}@1"), link.to_str().unwrap());
    let stopped = Stopped::new(daemon);
    let commands: [&[&str]; 15] = [
        &["status", root],
        &["status", sub],
        &["unmount", root],
        &["unmount", "--force", root],
        &["mount", root],
        &["mount", sub],
        &["mount", "--backing", sub, at],
        &["history", a],
        &["history", link],
        &["show", &version],
        &["diff", &version],
        &["restore", &version],
        &["recover", root],
        &["init", root],
        &["doctor", root],
    ];
    let refusals = |said: String, arguments: &[&str]| {
        for word in ["does not answer", &format!("pid {daemon}"), "kill -CONT"] {
            assert!(said.contains(word), "{arguments:?}: {said}");
        }
    };
    for arguments in commands {
        let mut command = support::concord(arguments);
        command.current_dir("/");
        refusals(refused(&run(command)), arguments);
        let said = refused(&run(nobody(arguments)));
        // Not his to continue.
        assert!(said.contains("as root"), "{arguments:?}: {said}");
        refusals(said, arguments);
    }
    drop(stopped);
    assert_eq!(code(&run(support::concord(&["status", root]))), 0);
}

#[test]
fn another_user_is_told_who_may_ask() {
    watchdog();
    let mut project = Project::unmounted(&[("a.md", "one\n")]);
    let daemon = project.mount();
    let (root, a) = (project.root(), project.path("a.md"));
    let version = format!("{}@1", a.display());
    let commands: [&[&str]; 5] = [
        &["status", root.to_str().unwrap()],
        &["unmount", root.to_str().unwrap()],
        &["restore", &version],
        &["history", a.to_str().unwrap()],
        &["show", &version],
    ];
    for arguments in commands {
        let said = refused(&run(nobody(arguments)));
        for word in ["root", &format!("pid {daemon}"), root.to_str().unwrap()] {
            assert!(said.contains(word), "{arguments:?}: {said}");
        }
        assert!(!said.contains("namespace"), "{said}");
    }
}

#[test]
fn what_has_no_history_is_told_with_where_it_was_looked_for_and_what_there_is() {
    watchdog();
    let mut project = Project::with(&[("docs/STATE.md", "one\n"), ("main.rs", ""), ("d/x.md", "")]);
    assert!(
        run(project.sh("echo two > docs/STATE.md; echo two > main.rs"))
            .status
            .success()
    );
    let root = project.root().display().to_string();
    for mounted in [true, false] {
        let said = |arguments: &[&str], exit: i32| {
            let mut command = support::concord(arguments);
            command.current_dir(project.root());
            let output = run(command);
            assert_eq!(code(&output), exit, "{arguments:?}: {}", error(&output));
            assert_eq!(
                error(&output).matches('\n').count(),
                1,
                "{arguments:?}: {}",
                error(&output)
            );
            error(&output)
        };
        for arguments in [
            &["history", "STAET.md"][..],
            &["show", "STAET.md@1"],
            &["diff", "STAET.md@1"],
        ] {
            let said = said(arguments, 1);
            for word in ["STAET.md", &root, "no such file", "docs/STATE.md"] {
                assert!(said.contains(word), "{mounted} {arguments:?}: {said}");
            }
        }
        if mounted {
            let said = said(&["restore", "STAET.md@1"], 1);
            assert!(
                said.contains("no such file") && said.contains("docs/STATE.md"),
                "{said}"
            );
        }
        assert!(said(&["history", "main.rs"], 0).contains("no rule coordinates it"));
        assert!(said(&["history", "d"], 1).contains("it is a directory"));
        let said = said(&["show", "docs/STATE.md@9"], 1);
        assert!(said.contains("version 9 is not kept") && said.contains("1-2"), "{said}");
        if mounted {
            project.unmount();
        }
    }
}

#[test]
fn doctor_knows_what_is_mounted_and_what_a_newer_version_has_left() {
    watchdog();
    let mut project = Project::with(&[("a.md", "one\n"), ("sub/b.md", "")]);
    let doctor = |dir: PathBuf, exit: i32, verdict: &str| {
        let mut command = support::concord(&["doctor"]);
        command.arg(&dir);
        let output = run(command);
        let said = String::from_utf8(output.stdout.clone()).unwrap();
        assert_eq!(code(&output), exit, "{said}{}", error(&output));
        assert!(said.lines().last().unwrap().contains(verdict), "{said}");
        said
    };
    doctor(project.root(), 0, "is mounted");
    doctor(project.path("sub"), 0, "lies in the mount");
    project.unmount();
    doctor(project.root(), 0, "can be mounted");
    std::fs::write(project.path(".concord/format"), "concordfs 99\n").unwrap();
    let said = doctor(project.root(), 1, "cannot be mounted");
    assert!(said.contains("99"), "{said}");
    for arguments in [&["history", "a.md"][..], &["show", "a.md@1"], &["diff", "a.md@1"]] {
        let output = concord(&project.root(), arguments);
        let said = refused(&output);
        assert!(said.contains("99") && said.contains("newer"), "{arguments:?}: {said}");
    }
}

#[test]
fn a_wait_that_a_signal_has_ended_is_no_error_in_the_log() {
    watchdog();
    let project = Project::with(&[("a.md", "one\n"), ("concord.toml", "wait = \"60s\"\n")]);
    let mut holder = Puppet::new(&project);
    holder.does("f = open('a.md', 'w')");
    for _ in 0..5 {
        let mut waiter = project
            .python("open('a.md', 'w')")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        project.await_sessions(1, 1);
        support::kill(waiter.id(), Signal::INT);
        support::wait(&mut waiter, support::command_time_max());
        project.await_sessions(1, 0);
    }
    let log = std::fs::read_to_string(project.path(".concord/log")).unwrap();
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn what_is_no_project_is_refused_by_name_and_nothing_is_left_there() {
    watchdog();
    let mut project = Project::with(&[("a.md", "one\n")]);
    let outside = project.outside().to_owned();
    let refusal = |arguments: &[&str], words: &[&str]| {
        let said = refused(&concord(&outside, arguments));
        for word in words {
            assert!(said.contains(word), "{arguments:?}: {said}");
        }
    };
    refusal(&["status", "project/nosuch"], &["project/nosuch: ", "no such file"]);
    project.unmount();
    refusal(&["mount", "project/.concord"], &["in the store of the project"]);
    refusal(&["init", "project/.concord/history"], &["in the store of the project"]);
    refusal(
        &["recover", "--config", "nosuch", "project"],
        &["nosuch: the rules cannot be read"],
    );
    // Each names the project, in JSON too.
    std::fs::write(project.path("concord.toml"), "wiat = \"5s\"\n").unwrap();
    let root = project.root();
    refusal(
        &["mount", "project"],
        &[&format!("{}: concord.toml:1:1", root.display())],
    );
    let output = concord(&outside, &["mount", "project", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["error"]["path"], root.to_str().unwrap());
    std::fs::remove_file(project.path("concord.toml")).unwrap();
    for fifo in ["project/concord.toml", "fifo"] {
        let mut make = Command::new("mkfifo");
        make.arg(outside.join(fifo));
        support::succeed(make);
    }
    refusal(&["mount", "project"], &["concord.toml is a FIFO"]);
    std::fs::remove_file(project.path("concord.toml")).unwrap();
    refusal(&["mount", "project", "--config", "fifo"], &["it is a FIFO"]);
    // Where its files are to be seen.
    std::fs::create_dir(outside.join("shown")).unwrap();
    support::succeed({
        let mut mount = support::concord(&["mount", "--backing"]);
        mount.args([project.root(), outside.join("shown")]);
        mount
    });
    let shown = outside.join("shown");
    let said = concord(&outside, &["unmount", "project"]);
    let unmounted = concord(&outside, &["unmount", "shown"]);
    let _ = rustix::mount::unmount(&shown, rustix::mount::UnmountFlags::DETACH);
    assert!(unmounted.status.success());
    assert!(refused(&said).contains(&format!("`concord unmount {}`", shown.display())));
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
    assert!(
        !support::text(&output.stdout).contains("user_allow_other"),
        "what changes nothing is no advice"
    );
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
