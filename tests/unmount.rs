//! F5 on a real mount: unmounting waits for sessions or keeps what they staged, a dead mount is cleared by one command, and what cannot
//! be mounted is refused in one line.

mod support;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::puppet::Puppet;
use support::{Project, Running, concord, eventually, refused, run, succeed, text, wait, watchdog};

const HOLDER: &str = "f=open('STATE.md','w'); f.write('staged\\n'); f.flush(); print('open',flush=True); input(); f.close(); print('closed',flush=True)";

fn mounts_at(dir: &Path) -> usize {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts
        .lines()
        .filter(|line| line.split(' ').nth(4) == dir.to_str())
        .count()
}

fn on(verb: &[&str], dir: &Path) -> Output {
    let mut command = concord(verb);
    command.arg(dir);
    run(command)
}

/// A process that was no child of ours is gone, or at most a zombie of whoever adopted it.
fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
}

fn holder(project: &Project) -> Running {
    let mut holder = Running::start(project.python(HOLDER));
    assert_eq!(holder.hear(), "open");
    holder
}

/// What is kept in `recovered/`, read with nothing mounted.
fn kept(project: &Project) -> Vec<String> {
    let mut contents = Vec::new();
    for entry in std::fs::read_dir(project.path(".concord/recovered")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            contents.push(std::fs::read_to_string(&path).unwrap());
            let record = format!("{}.json", path.display());
            assert!(Path::new(&record).exists(), "what is kept has a record");
        }
    }
    contents
}

#[test]
fn f5_an_unmount_waits_for_an_open_session() {
    watchdog();
    let mut project = Project::with(&[("STATE.md", "v1\n")]);
    let mut command = project.python(&HOLDER.replacen("f=", "import os; f=", 1).replacen(
        "print",
        "os.chdir('/'); print",
        1,
    ));
    command.env_remove("PWD");
    let mut holder = Running::start(command);
    assert_eq!(holder.hear(), "open");
    let mut command = concord(&["unmount"]);
    command
        .arg(project.root())
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null());
    let mut unmount = command.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(400));
    assert!(unmount.try_wait().unwrap().is_none(), "it waits");
    assert_eq!(mounts_at(&project.root()), 1);
    holder.say("");
    assert_eq!(holder.hear(), "closed");
    assert!(holder.finish().success());
    assert!(wait(&mut unmount, Duration::from_secs(20)).success());
    assert_eq!(mounts_at(&project.root()), 0);
    assert_eq!(project.read("STATE.md"), "staged\n", "what was closed was published");
    project.mount();
    project.unmount();
}

#[test]
fn f5_an_unmount_that_was_interrupted_leaves_the_mount_as_it_was() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let _holder = holder(&project);
    let mut command = concord(&["unmount"]);
    command.arg(project.root()).stderr(std::process::Stdio::null());
    let mut unmount = command.spawn().unwrap();
    let refused = || run(project.sh("echo a > OTHER.md")).status.code() != Some(0);
    eventually("no session begins any more", refused);
    unmount.kill().unwrap();
    unmount.wait().unwrap();
    eventually("sessions begin again", || !refused());
    assert_eq!(project.read("OTHER.md"), "a\n");
}

#[test]
fn f5_a_forced_unmount_keeps_what_was_staged() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let _holder = holder(&project);
    let output = on(&["unmount", "--force"], &project.root());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(mounts_at(&project.root()), 0);
    assert_eq!(project.read("STATE.md"), "v1\n");
    assert_eq!(kept(&project), ["staged\n"]);
}

#[test]
fn f5_sigterm_waits_for_sessions_within_grace() {
    watchdog();
    let mut project = Project::unmounted(&[("STATE.md", "v1\n")]);
    let daemon = project.mount();
    let mut holder = holder(&project);
    support::kill(daemon, Signal::TERM);
    std::thread::sleep(Duration::from_millis(400));
    assert!(!is_gone(daemon));
    holder.say("");
    assert_eq!(holder.hear(), "closed");
    drop(holder);
    eventually("the daemon ends", || is_gone(daemon));
    assert_eq!(
        (mounts_at(&project.root()), project.read("STATE.md")),
        (0, "staged\n".into())
    );
    assert_eq!(kept(&project).len(), 0);
}

#[test]
fn f5_sigterm_forces_after_grace() {
    watchdog();
    let mut project = Project::unmounted(&[("STATE.md", "v1\n"), ("concord.toml", "grace = \"300ms\"\n")]);
    let daemon = project.mount();
    let _holder = holder(&project);
    let start = Instant::now();
    support::kill(daemon, Signal::TERM);
    eventually("the daemon ends", || is_gone(daemon));
    assert!(
        (Duration::from_millis(300)..Duration::from_secs(8)).contains(&start.elapsed()),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        (mounts_at(&project.root()), project.read("STATE.md")),
        (0, "v1\n".into())
    );
    assert_eq!(kept(&project), ["staged\n"]);
}

#[test]
fn f5_an_unmount_by_umount_ends_the_daemon_and_leaves_nothing_behind() {
    watchdog();
    let mut project = Project::unmounted(&[("STATE.md", "v1\n")]);
    let daemon = project.mount();
    succeed(project.sh("echo v2 > STATE.md"));
    let mut umount = Command::new("umount");
    umount.arg(project.root());
    succeed(umount);
    eventually("the daemon ends", || is_gone(daemon));
    assert_eq!(project.read("STATE.md"), "v2\n");
    for left in ["sock", "daemon.json"] {
        assert!(!project.path(".concord").join(left).exists(), "{left}");
    }
    assert_eq!(
        std::fs::read_dir(project.path(".concord/shadows")).unwrap().count(),
        1,
        "the journal only"
    );
    project.mount();
    project.unmount();
}

#[test]
fn f5_no_process_and_no_descriptor_of_a_daemon_stays_behind() {
    watchdog();
    let mut project = Project::unmounted(&[("STATE.md", "v1\n")]);
    for _ in 0..3 {
        let daemon = project.mount();
        let group = std::fs::read_to_string(format!("/proc/{daemon}/stat")).unwrap();
        let session: u32 = group
            .rsplit(") ")
            .next()
            .unwrap()
            .split(' ')
            .nth(3)
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(session, daemon, "it leads a session of its own");
        project.unmount();
        assert!(is_gone(daemon));
        let left = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
            fields.len() > 3 && fields[3] == daemon.to_string() && fields[0] != "Z"
        });
        assert_eq!(left.count(), 0, "nothing of its session is left");
    }
}

#[test]
fn f5_a_dead_mount_is_cleared_by_unmount_or_by_recover() {
    watchdog();
    for verb in ["unmount", "recover"] {
        let mut project = Project::with(&[("STATE.md", "v1\n")]);
        succeed(project.sh("echo v2 > STATE.md"));
        project.kill_daemon();
        assert_eq!(
            std::fs::read(project.path("STATE.md")).unwrap_err().raw_os_error(),
            Some(107),
            "ENOTCONN"
        );
        let output = on(&[verb], &project.root());
        assert!(output.status.success(), "{verb}: {}", text(&output.stderr));
        assert_eq!(mounts_at(&project.root()), 0);
        assert_eq!(project.read("STATE.md"), "v2\n");
        project.mount();
        project.unmount();
    }
}

#[test]
fn f5_every_command_at_a_dead_mount_says_what_to_do() {
    watchdog();
    let mut project = Project::with(&[("STATE.md", "v1\n")]);
    project.kill_daemon();
    let file = project.path("STATE.md");
    for (verb, path) in [("mount", project.root()), ("status", project.root()), ("history", file)] {
        let said = refused(&on(&[verb], &path));
        assert!(
            said.contains("dead") && said.contains("concord recover"),
            "{verb}: {said}"
        );
    }
    assert_eq!(mounts_at(&project.root()), 1, "nothing was changed");
}

#[test]
fn f5_two_mounts_over_one_project_are_refused() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let said = refused(&on(&["mount"], &project.root()));
    assert!(said.contains("already a concord mount"), "{said}");
    assert_eq!(mounts_at(&project.root()), 1);
    assert_eq!(project.read("STATE.md"), "v1\n");
}

#[test]
fn f5_two_daemons_for_one_backing_tree_are_refused() {
    watchdog();
    let mut project = Project::unmounted(&[]);
    let backing = project.outside().join("backing");
    let second = project.outside().join("second");
    for dir in [&backing, &second] {
        std::fs::create_dir(dir).unwrap();
    }
    std::fs::write(backing.join("STATE.md"), "v1\n").unwrap();
    let daemon = {
        let mut command = concord(&["mount", "--backing"]);
        command.arg(&backing).arg(project.root());
        succeed(command);
        let beacon: serde_json::Value =
            serde_json::from_slice(&std::fs::read(backing.join(".concord/daemon.json")).unwrap()).unwrap();
        beacon["pid"].as_u64().unwrap() as u32
    };
    assert_eq!(project.read("STATE.md"), "v1\n");
    let mut command = concord(&["mount", "--backing"]);
    command.arg(&backing).arg(&second);
    let said = refused(&run(command));
    assert!(said.contains(&daemon.to_string()) && said.contains("owns"), "{said}");
    let said = refused(&on(&["mount"], &backing));
    assert!(said.contains(&daemon.to_string()), "{said}");
    assert_eq!((mounts_at(&second), mounts_at(&backing)), (0, 0));
    let said = refused(&on(&["recover"], &backing));
    assert!(said.contains("unmount that first"), "{said}");
    succeed(project.sh("echo v2 > STATE.md"));
    project.unmount();
    assert_eq!(std::fs::read_to_string(backing.join("STATE.md")).unwrap(), "v2\n");
    assert!(is_gone(daemon));
}

#[test]
fn what_cannot_be_mounted_is_refused_in_one_line_and_nothing_is_changed() {
    watchdog();
    let project = Project::unmounted(&[("file", ""), ("dir/x.md", "x")]);
    assert!(refused(&on(&["mount"], &project.path("file"))).contains("not a directory"));
    assert!(refused(&on(&["mount"], &project.path("none"))).contains("no such directory"));
    std::fs::create_dir(project.path("dir/.concord")).unwrap();
    std::fs::write(project.path("dir/.concord/format"), "concordfs 99\n").unwrap();
    for verb in ["mount", "recover"] {
        let said = refused(&on(&[verb], &project.path("dir")));
        assert!(said.contains("99") && said.contains("newer"), "{verb}: {said}");
    }
    std::fs::write(project.path("dir/.concord/format"), "something else\n").unwrap();
    assert!(refused(&on(&["mount"], &project.path("dir"))).contains("format"));
    assert_eq!(
        std::fs::read_dir(project.path("dir/.concord")).unwrap().count(),
        1,
        "nothing was added"
    );
    assert_eq!(mounts_at(&project.path("dir")), 0);
    assert!(!project.path(".concord").exists());
    // As a user who may not use the directory.
    std::os::unix::fs::chown(project.path("dir"), Some(4321), Some(4321)).unwrap();
    std::fs::set_permissions(project.path("dir"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        env!("CARGO_BIN_EXE_concord"),
        "mount",
    ]);
    command.arg(project.path("dir"));
    let said = refused(&run(command));
    assert!(said.contains("you need to be able to"), "{said}");
}

#[test]
fn f5_while_an_unmount_waits_no_session_begins() {
    watchdog();
    let mut project = Project::with(&[("STATE.md", "v1\n"), ("OTHER.md", "o1\n")]);
    let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
    let (state, new) = (project.path("STATE.md"), project.path("NEW.md"));
    for puppet in [&mut holder, &mut other] {
        assert_eq!(puppet.does("os.chdir('/')"), "None");
    }
    holder.does(&format!("f = open('{}', 'w')", state.display()));
    let mut command = concord(&["unmount"]);
    let quiet = std::process::Stdio::null;
    command.arg(project.root()).stderr(quiet()).stdout(quiet());
    let mut unmount = command.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(400));
    let start = Instant::now();
    let path = project.path("OTHER.md").display().to_string();
    for opened in [path.clone(), new.display().to_string()] {
        assert_eq!(other.does(&format!("put('{opened}', 'more')")), "EBUSY", "{opened}");
    }
    assert_eq!(other.does(&format!("get('{path}')")), "o1\n".trim_end());
    other.says();
    assert!(start.elapsed() < Duration::from_secs(4), "it is said at once");
    assert_eq!(holder.does("f.close()"), "None");
    assert!(wait(&mut unmount, Duration::from_secs(20)).success());
    assert_eq!(project.read("OTHER.md"), "o1\n");
    project.mount();
    project.unmount();
}

#[test]
fn f5_a_second_sigterm_does_not_wait() {
    watchdog();
    let mut project = Project::unmounted(&[("STATE.md", "v1\n"), ("concord.toml", "grace = \"30s\"\n")]);
    let daemon = project.mount();
    let _holder = holder(&project);
    support::kill(daemon, Signal::TERM);
    std::thread::sleep(Duration::from_millis(400));
    assert!(!is_gone(daemon));
    let start = Instant::now();
    support::kill(daemon, Signal::TERM);
    eventually("the daemon ends", || is_gone(daemon));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert_eq!(
        (mounts_at(&project.root()), project.read("STATE.md")),
        (0, "v1\n".into())
    );
    assert_eq!(kept(&project), ["staged\n"]);
}
