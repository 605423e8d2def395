//! F5 on a real mount: unmounting waits for sessions or keeps what they staged, a dead mount is cleared by one command, and what cannot
//! be mounted is refused in one line.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::puppet::Puppet;
use support::{
    Project, Running, concord, eventually, is_gone, kill, mounts_at, on, refused, run, succeed, text, wait, watchdog,
};

const HOLDER: &str = "f=open('STATE.md','w'); f.write('staged\\n'); f.flush(); print('open',flush=True); input(); f.close(); print('closed',flush=True)";

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
    // Who only asks whether the mount is in use is done long before.
    std::thread::sleep(Duration::from_secs(2));
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

/// As in `concord unmount DIR &` at the end of a script.
#[test]
fn f5_an_unmount_goes_on_when_who_started_it_has_ended() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let mut holder = holder(&project);
    let said = project.outside().join("said");
    let mut parent = Command::new("sh");
    parent
        .args([
            "-c",
            "\"$1\" unmount \"$2\" > \"$3\" 2>&1 & read line",
            "sh",
            env!("CARGO_BIN_EXE_concord"),
        ])
        .args([&project.root(), &said]);
    let mut parent = Running::start(parent);
    let refused = || run(project.sh("echo a > OTHER.md")).status.code() != Some(0);
    eventually("no session begins any more", refused);
    parent.say("");
    assert!(parent.finish().success());
    holder.say("");
    assert_eq!(holder.hear(), "closed");
    drop(holder);
    let said = || std::fs::read_to_string(&said).unwrap();
    eventually("it answers", || {
        said().contains(": unmounted") || said().contains("concord: ")
    });
    assert!(said().contains(": unmounted"), "{}", said());
}

/// Processes that the daemon has started, and that have something of the project open.
fn inside(daemon: u32, root: &Path) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{daemon}/task")).unwrap();
    let children = |task: PathBuf| std::fs::read_to_string(task.join("children")).unwrap_or_default();
    let lists: Vec<String> = tasks.map(|task| children(task.unwrap().path())).collect();
    let pids = lists.iter().flat_map(|list| list.split_whitespace());
    let has_open = |pid: &u32| {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
        let mut links = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        links.any(|to| to.starts_with(root))
    };
    pids.map(|pid| pid.parse().unwrap()).filter(has_open).collect()
}

/// Who tells watchers of a publish has the mount in use meanwhile, which on a busy machine is long.
#[test]
fn f5_an_unmount_right_after_a_save_waits_for_who_tells_watchers() {
    watchdog();
    let mut project = Project::unmounted(&[]);
    let daemon = project.mount();
    let halted = std::cell::Cell::new(0);
    eventually("who tells is halted in the middle", || {
        succeed(project.sh("for n in $(seq 50); do echo x > $n.md; done"));
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            for teller in inside(daemon, &project.root()) {
                kill(teller, Signal::STOP);
                // It may be on its way out of a call.
                std::thread::sleep(Duration::from_millis(50));
                halted.set(teller);
                if !inside(daemon, &project.root()).is_empty() {
                    return true;
                }
                kill(teller, Signal::CONT);
            }
        }
        false
    });
    let mut command = concord(&["unmount"]);
    command.arg(project.root()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut unmount = command.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let before = unmount.try_wait().unwrap();
    kill(halted.get(), Signal::CONT);
    let mut said = String::new();
    std::io::Read::read_to_string(unmount.stderr.as_mut().unwrap(), &mut said).unwrap();
    assert_eq!(before, None, "it waits: {said}");
    assert!(wait(&mut unmount, Duration::from_secs(20)).success(), "{said}");
    assert_eq!(mounts_at(&project.root()), 0);
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
fn f5_a_forced_unmount_keeps_what_was_stored_through_a_mapping() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1 and more\n")]);
    let mut holder = Puppet::new(&project);
    holder.does("fd = os.open('STATE.md', os.O_RDWR); page = mmap.mmap(fd, 12)");
    assert_eq!(holder.does("page[0:2] = b'v2'"), "ok");
    let output = on(&["unmount", "--force"], &project.root());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(project.read("STATE.md"), "v1 and more\n");
    assert_eq!(kept(&project), ["v2 and more\n"]);
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
fn f5_an_unmount_that_is_refused_says_who_works_in_the_mount() {
    watchdog();
    let mut project = Project::with(&[("notes.txt", "n\n")]);
    let mut idle = Running::start(project.python("print('here', flush=True); input()"));
    assert_eq!(idle.hear(), "here");
    let said = refused(&on(&["unmount"], &project.root()));
    let expected = format!("python3 (pid {}, working directory)", idle.pid());
    assert!(said.contains(&expected) && said.contains("--force"), "{said}");
    let mut reader = Running::start(
        project.python("import os; f=open('notes.txt'); os.chdir('/'); print('open', flush=True); input()"),
    );
    assert_eq!(reader.hear(), "open");
    drop(idle);
    let said = refused(&on(&["unmount"], &project.root()));
    assert!(
        said.contains(&format!("python3 (pid {}, open: notes.txt)", reader.pid())),
        "{said}"
    );
    assert_eq!(mounts_at(&project.root()), 1);
    // Who asks from within has nothing to lose; others in the mount do.
    let concord = env!("CARGO_BIN_EXE_concord");
    let said = refused(&run(project.sh(&format!("{concord} unmount .; exit $?"))));
    assert!(
        said.contains("open: notes.txt") && said.contains("working directory"),
        "{said}"
    );
    drop(reader);
    project.unmount();
}

#[test]
fn f5_an_unmount_names_what_is_mounted_in_the_mount_and_by_force_takes_it_along() {
    watchdog();
    let project = Project::with(&[("a.md", "v1\n"), ("in/x", ""), ("disk/x", "")]);
    let aside = project.outside().join("aside");
    std::fs::create_dir(&aside).unwrap();
    let (inner, disk) = (Gone(project.path("in")), Gone(project.path("disk")));
    let mount = || {
        let mut mount = concord(&["mount", "--backing"]);
        mount.arg(&aside).arg(&inner.0);
        succeed(mount);
    };
    mount();
    let named = refused(&on(&["unmount"], &project.root()));
    let command = format!("`concord unmount {}`", inner.0.display());
    assert!(
        named.contains("there is a mount in it") && named.contains(&command),
        "{named}"
    );
    succeed(project.sh(&format!("{} unmount in", env!("CARGO_BIN_EXE_concord"))));
    if rustix::process::geteuid().is_root() {
        succeed(project.sh("mount -t tmpfs inner disk; echo x > disk/x.md"));
        let history = text(&on(&["history"], &project.path("disk/x.md")).stderr);
        assert!(history.contains("on another filesystem"), "{history}");
        let named = refused(&on(&["unmount"], &project.root()));
        let command = format!("`umount {}`", disk.0.display());
        assert!(
            named.contains("there is a mount in it") && named.contains(&command),
            "{named}"
        );
    }
    mount();
    let forced = on(&["unmount", "--force"], &project.root());
    let said = text(&forced.stderr);
    assert!(
        forced.status.success() && said.contains(inner.0.to_str().unwrap()),
        "{said}"
    );
    assert_eq!(mounts_at(&project.root()) + mounts_at(&inner.0) + mounts_at(&disk.0), 0);
}

/// Whatever the test does, nothing stays mounted there.
struct Gone(PathBuf);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn f5_the_example_of_the_readme_works_as_it_is_written() {
    watchdog();
    let mut project = Project::unmounted(&[("STATE.md", "v1\n")]);
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let example = readme
        .split("cd ~/project\n")
        .nth(1)
        .unwrap()
        .split("concord recover")
        .next()
        .unwrap();
    assert!(
        example.contains("concord mount .") && example.contains("concord unmount ."),
        "{example}"
    );
    let lines = example.lines().map(|line| line.replace("@7", "@1"));
    let saves = lines.map(|line| match line.starts_with("concord status") {
        true => format!("{line}\necho v2 > STATE.md\necho v3 > STATE.md"),
        false => line,
    });
    let script = format!(
        "set -e\n{}\nls > /dev/null 2>&1 && exit 7\ncd .\ncat STATE.md\n",
        saves.collect::<Vec<_>>().join("\n")
    );
    let mut command = project.sh(&script);
    let bin = Path::new(env!("CARGO_BIN_EXE_concord")).parent().unwrap();
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    let output = run(command);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{script}\n{said}");
    assert!(said.contains("`cd .`") && said.ends_with("v1\n"), "{said}");
    assert_eq!(mounts_at(&project.root()), 0);
    project.mount();
    project.unmount();
}

/// Whoever finds the mount dead calls it, and that may be several.
#[test]
fn f5_unmounts_at_once_all_go_through_or_find_nothing_to_unmount() {
    watchdog();
    let mut project = Project::unmounted(&[]);
    for _ in 0..10 {
        project.mount();
        let unmounts: Vec<_> = (0..4)
            .map(|_| {
                let mut unmount = concord(&["unmount"]);
                unmount
                    .arg(project.root())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped());
                unmount.spawn().unwrap()
            })
            .collect();
        let mut unmounted = 0;
        for unmount in unmounts {
            let done = unmount.wait_with_output().unwrap();
            let said = text(&done.stderr);
            unmounted += usize::from(done.status.success());
            assert!(
                done.status.success() || said.contains("no concord mount is there"),
                "{said}"
            );
        }
        assert!(unmounted > 0);
        assert_eq!(mounts_at(&project.root()), 0);
    }
}

#[test]
fn f5_recoveries_of_one_dead_mount_at_once_all_go_through() {
    watchdog();
    for round in 0..6 {
        let mut project = Project::with(&[("STATE.md", "v1\n")]);
        let holder = holder(&project);
        project.kill_daemon();
        drop(holder);
        let start = |_| {
            let mut recover = concord(&["recover"]);
            recover.arg(project.root()).stdout(Stdio::null()).stderr(Stdio::piped());
            recover.spawn().unwrap()
        };
        let all: Vec<_> = (0..6).map(start).collect();
        for recover in all {
            let output = recover.wait_with_output().unwrap();
            assert!(output.status.success(), "{round}: {}", text(&output.stderr));
        }
        assert_eq!(mounts_at(&project.root()), 0);
        assert_eq!(kept(&project), ["staged\n"]);
        project.mount();
        project.unmount();
    }
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
