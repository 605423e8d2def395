//! Writers in other pid, mount and user namespaces than the daemon's, and a daemon in one of its own. Needs root, for the namespaces.

mod support;

use std::path::PathBuf;
use std::process::Command;

use support::puppet::Puppet;
use support::{Project, Running, command_time_max, concord, eventually, run, succeed, text, watchdog};

const UNKNOWN: &str = "unknown (other pid namespace)";

fn not_root() -> bool {
    watchdog();
    let not = !rustix::process::geteuid().is_root();
    if not {
        eprintln!("not root: not tested");
    }
    not
}

/// A project whose daemon is the first process of a pid namespace; the tests are outside.
struct Contained {
    project: Project,
    daemon: Option<Running>,
    bound: PathBuf,
}

impl Contained {
    /// `own_proc`: the container has a /proc of its own, as containers have; otherwise it sees the machine's.
    fn with(files: &[(&str, &str)], own_proc: bool) -> Contained {
        let project = Project::unmounted(files);
        let bound = project.outside().to_owned();
        // Mounts made in the container come back here.
        let mut bind = Command::new("sh");
        bind.args(["-ec", "mount --bind \"$0\" \"$0\"; mount --make-rshared \"$0\""])
            .arg(&bound);
        succeed(bind);
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child"]);
        if own_proc {
            command.args(["--mount-proc", "--propagation", "unchanged"]);
        }
        command
            .arg(env!("CARGO_BIN_EXE_concord"))
            .args(["mount", "--foreground"])
            .arg(project.root());
        let mut daemon = Running::start(command);
        let said = daemon.hear();
        assert!(said.contains("mounted"), "{said}");
        Contained {
            project,
            daemon: Some(daemon),
            bound,
        }
    }

    /// The daemon, as the tests know it.
    fn daemon_pid(&self) -> u32 {
        let unshare = self.daemon.as_ref().unwrap().pid();
        let children = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
        children.trim().parse().unwrap()
    }

    /// A process that the daemon knows.
    fn known(&self) -> Puppet {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &self.daemon_pid().to_string(), "--pid", "--mount"]);
        nsenter.arg(format!("--wd={}", self.project.root().display()));
        Puppet::by(&self.project, nsenter)
    }

    /// `concord ARGUMENTS DIR` in the container.
    fn inside(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.daemon_pid().to_string(), "--pid", "--mount"]);
        command
            .arg(env!("CARGO_BIN_EXE_concord"))
            .args(arguments)
            .arg(self.project.root());
        run(command)
    }

    fn status(&self) -> serde_json::Value {
        let output = self.inside(&["status", "--json"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn await_waiters(&self, waiters: usize) {
        eventually(&format!("{waiters} waiters"), || {
            let status = self.status();
            let open = status["sessions"].as_array().unwrap();
            open.iter()
                .map(|s| s["waiting"].as_array().unwrap().len())
                .sum::<usize>()
                == waiters
        });
    }

    fn unmount(&mut self) {
        // The daemon is the first process there: its end ends all others, whoever waits for it included.
        self.inside(&["unmount"]);
        let mut daemon = self.daemon.take().unwrap();
        assert!(support::wait(&mut daemon.0, command_time_max()).success());
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        // The daemon goes with unshare(1), and the mount with that.
        self.daemon.take();
        let detach = rustix::mount::UnmountFlags::DETACH;
        while rustix::mount::unmount(self.project.root(), detach).is_ok() {}
        while rustix::mount::unmount(&self.bound, detach).is_ok() {}
    }
}

#[test]
fn w5_shells_of_another_pid_namespace_publish_once_and_whole() {
    if not_root() {
        return;
    }
    let mut contained = Contained::with(&[("s.md", "v1\n")], true);
    let project = &contained.project;
    let versions = |name: &str| {
        let listed = project.history(name);
        listed
            .iter()
            .map(|v| v["how"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    // Publishing comes right after close(2), which does not wait for it; the next writer does.
    let settled = |name: &str, content: &str| eventually(content, || project.read(name) == content);
    succeed(project.sh("echo v2 > s.md"));
    settled("s.md", "v2\n");
    succeed(project.sh("{ /bin/echo a; /bin/echo b; } > s.md"));
    settled("s.md", "a\nb\n");
    succeed(project.sh("exec 3> s.md; echo c >&3; /bin/echo d >&3; exec 3>&-"));
    settled("s.md", "c\nd\n");
    succeed(project.sh("printf new > n.md"));
    eventually("the new file is there", || project.path("n.md").exists());
    settled("n.md", "new");
    succeed(project.sh("printf x > t; mv t s.md"));
    settled("s.md", "x");
    assert_eq!(versions("s.md"), ["rename", "close", "close", "close", "found"]);
    assert_eq!(versions("n.md"), ["close"]);
    let newest = &project.history("s.md")[0];
    assert_eq!(
        (&newest["pid"], newest["command"].as_str().unwrap()),
        (&0.into(), UNKNOWN)
    );
    let mut listed = concord(&["history"]);
    listed.arg(project.path("s.md"));
    assert!(succeed(listed).contains(&format!("-  {UNKNOWN}")));
    let status = contained.status();
    for count in ["late", "stale", "failed", "discarded", "busy"] {
        assert_eq!(status["counts"][count], 0, "{status}");
    }
    contained.unmount();
}

#[test]
fn w1_writers_of_another_pid_namespace_wait_for_each_other_and_are_told_of() {
    if not_root() {
        return;
    }
    let contained = Contained::with(&[("s.md", "v1\n")], true);
    let project = &contained.project;
    let mut writers: Vec<Puppet> = (0..4).map(|_| Puppet::new(project)).collect();
    let mut others = writers.split_off(1);
    let holder = &mut writers[0];
    assert_eq!(holder.does("fd = os.open('s.md', os.O_WRONLY | os.O_TRUNC)"), "ok");
    holder.does("os.write(fd, b'first\\n')");
    for (number, other) in others.iter_mut().enumerate() {
        // Each adds a line to what the one before left.
        other.starts(&format!(
            "fd = os.open('s.md', os.O_RDWR); size = os.lseek(fd, 0, 2); os.write(fd, b'{number}\\n')"
        ));
        contained.await_waiters(number + 1);
    }
    let status = contained.status();
    let session = &status["sessions"][0];
    assert_eq!(
        (&session["pid"], session["command"].as_str().unwrap()),
        (&0.into(), UNKNOWN)
    );
    assert_eq!(session["waiting"][0]["command"].as_str().unwrap(), UNKNOWN);
    let shown = text(&contained.inside(&["status"]).stdout);
    assert!(shown.contains(UNKNOWN) && !shown.contains("pid 0"), "{shown}");
    assert_eq!(project.read("s.md"), "v1\n");
    let mut impatient = Puppet::new(project);
    assert_eq!(impatient.does("os.open('s.md', os.O_WRONLY | os.O_NONBLOCK)"), "EAGAIN");
    assert_eq!(holder.does("os.close(fd)"), "None");
    for other in &mut others {
        assert_eq!(other.says(), "ok");
        assert_eq!(other.does("os.close(fd)"), "None");
    }
    eventually("all four were published", || project.read("s.md") == "first\n0\n1\n2\n");
    // Whoever does not let go is not waited for without end.
    holder.does("fd = os.open('s.md', os.O_WRONLY)");
    assert_eq!(impatient.does("os.open('s.md', os.O_WRONLY)"), "EBUSY");
    assert_eq!(impatient.does("os.unlink('s.md')"), "EBUSY");
    assert_eq!(holder.does("os.close(fd), os.unlink('s.md')"), "(None, None)");
}

/// Of who is not known no other groups are known than his own: what the kernel has said counts, as long as the file is what it was.
#[test]
fn w11_who_is_not_known_waits_for_a_file_of_his_group_and_may_have_it_unless_its_mode_was_changed() {
    if not_root() {
        return;
    }
    let contained = Contained::with(&[("s.md", "v1\n")], true);
    let project = &contained.project;
    std::os::unix::fs::chown(project.path("s.md"), Some(0), Some(4000)).unwrap();
    let mut holder = Puppet::new(project);
    for (mode, says) in [(0o660, "ok"), (0o640, "EACCES")] {
        let mut member = Puppet::new(project);
        member.does("os.setgroups([4000]); os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000)");
        holder.does("os.chmod('s.md', 0o660); fd = os.open('s.md', os.O_RDWR)");
        member.starts("fd = os.open('s.md', os.O_RDWR)");
        contained.await_waiters(1);
        holder.does(&format!("os.chmod('s.md', 0o{mode:o}); os.close(fd)"));
        assert_eq!(member.says(), says, "{mode:o}");
    }
}

#[test]
fn r1_hammering_from_another_pid_namespace_tears_nothing_and_hangs_nobody() {
    if not_root() {
        return;
    }
    for own_proc in [true, false] {
        let mut contained = Contained::with(
            &[("s.md", "0 0\n"), ("log.md", "0 line\n"), ("new/.keep", "")],
            own_proc,
        );
        let project = &contained.project;
        let hammer = "import os, random, time\nend, odd = time.time() + 4, set()\nme = os.getpid()\nwhile time.time() < end:\n\
            \x20how = random.randrange(6)\n text = f'{me} ' * random.randrange(1, 2000) + '\\n'\n try:\n\
            \x20 if how < 2:\n   with open('s.md', 'w') as f: f.write(text); f.flush(); f.write(text)\n\
            \x20 elif how == 2:\n   with open('t%d' % me, 'w') as f: f.write(text + text)\n   os.rename('t%d' % me, 's.md')\n\
            \x20 elif how == 3:\n   with open('log.md', 'a') as f: f.write(f'{me} line\\n')\n\
            \x20 elif how == 4:\n   with open('new/%d.md' % random.randrange(3), 'w') as f: f.write(text + text)\n\
            \x20 else:\n   os.unlink('new/%d.md' % random.randrange(3))\n\
            \x20except FileNotFoundError: pass\n except OSError as error:\n\
            \x20 # Names that come and go are waited for with the directory locked (SEMANTICS.md, W8).\n\
            \x20 if error.errno != 16 or how < 4: odd.add(str(error))\n\
            print('odd:', odd)";
        let look = "import os, time\nend, seen = time.time() + 4, 0\nwhile time.time() < end or seen <= 50:\n\
            \x20for name in ['s.md', 'new/0.md', 'new/1.md', 'new/2.md']:\n  try: text = open(name).read()\n  except FileNotFoundError: continue\n\
            \x20 first, _, second = text.partition('\\n')\n  if text == '0 0\\n': continue\n  seen += 1\n\
            \x20 assert second == first + '\\n' and len(set(first.split())) == 1, (name, len(text), text[:80])\n\
            assert all(len(l.split()) == 2 for l in open('log.md')), 'torn line'\nprint('seen')";
        let mut writers: Vec<Running> = (0..8).map(|_| Running::start(project.python(hammer))).collect();
        let mut readers: Vec<Running> = (0..3).map(|_| Running::start(project.python(look))).collect();
        for reader in &mut readers {
            assert_eq!(reader.hear(), "seen");
        }
        for writer in &mut writers {
            assert_eq!(writer.hear(), "odd: set()");
        }
        for one in writers.into_iter().chain(readers) {
            assert!(one.finish().success());
        }
        if own_proc {
            contained.unmount();
        }
        let left = std::fs::read_dir(contained.project.path(".concord/recovered"))
            .unwrap()
            .count();
        assert_eq!(left, 0);
    }
}

/// Who is not known waits with the directory locked, which those before it in line need.
#[test]
fn w8_savers_that_are_known_and_others_that_are_not_do_not_stop_each_other() {
    if not_root() {
        return;
    }
    let files = [
        ("concord.toml", "wait = '60s'\n"),
        ("s.md", "v1"),
        ("t1", "1"),
        ("t2", "2"),
        ("t3", "3"),
    ];
    let contained = Contained::with(&files, true);
    let project = &contained.project;
    let known = || contained.known();
    let (mut holder, mut first, mut second, mut stranger) =
        (Puppet::new(project), known(), known(), Puppet::new(project));
    assert_eq!(holder.does("f = open('s.md', 'w')"), "ok");
    first.starts("os.rename('t1', 's.md')");
    contained.await_waiters(1);
    second.starts("os.rename('t2', 's.md')");
    contained.await_waiters(2);
    stranger.starts("os.rename('t3', 's.md')");
    contained.await_waiters(3);
    assert_eq!(holder.does("f.close()"), "None");
    for saver in [&mut stranger, &mut first, &mut second] {
        assert_eq!(saver.says(), "None");
    }
    assert!(["1", "2"].contains(&project.read("s.md").as_str()));
}

#[test]
fn w9_who_would_create_a_name_that_a_saver_has_waits_for_it_though_it_is_not_known() {
    if not_root() {
        return;
    }
    let contained = Contained::with(&[("concord.toml", "wait = '60s'\n"), ("tmp.md", "moved")], true);
    let project = &contained.project;
    let (mut holder, mut saver, mut creator) = (Puppet::new(project), contained.known(), Puppet::new(project));
    assert_eq!(holder.does("f = open('tmp.md', 'r+')"), "ok");
    saver.starts("os.rename('tmp.md', 'NEW.md')");
    contained.await_waiters(1);
    creator.starts("put('NEW.md', ' more')");
    // It may or may not be there before the holder lets go.
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(holder.does("f.close()"), "None");
    assert_eq!(saver.says(), "None");
    assert_eq!(creator.says(), "None");
    eventually("what it wrote is there", || project.read("NEW.md") == " more");
}

#[test]
fn w9_who_waits_for_a_killed_creator_creates_the_file_though_it_is_not_known() {
    if not_root() {
        return;
    }
    let contained = Contained::with(&[("concord.toml", "wait = '60s'\n")], true);
    let project = &contained.project;
    let (mut creator, mut other) = (Puppet::new(project), Puppet::new(project));
    assert_eq!(creator.does("f = open('NEW.md', 'w')"), "ok");
    other.starts("put('NEW.md', 'other')");
    contained.await_waiters(1);
    creator.0.signal(rustix::process::Signal::KILL);
    assert_eq!(other.says(), "None");
    eventually("what it wrote is there", || project.read("NEW.md") == "other");
}

#[test]
fn w12_locks_exclude_across_pid_namespaces() {
    if not_root() {
        return;
    }
    let contained = Contained::with(&[("c.json", "0")], true);
    let project = &contained.project;
    let count = "import fcntl\nfor _ in range(50):\n with open('c.json', 'r+') as f:\n\
        \x20 fcntl.flock(f, fcntl.LOCK_EX); n = int(f.read()); f.seek(0); f.truncate(); f.write(str(n + 1)); f.flush()\n";
    let counters: Vec<Running> = (0..4).map(|_| Running::start(project.python(count))).collect();
    for counter in counters {
        assert!(counter.finish().success());
    }
    eventually("two hundred were counted", || project.read("c.json") == "200");
}

#[test]
fn from_outside_the_daemons_pid_namespace_every_command_says_where_to_ask() {
    if not_root() {
        return;
    }
    let mut contained = Contained::with(&[("s.md", "v1\n")], true);
    for arguments in [&["status"][..], &["unmount"], &["unmount", "--force"]] {
        let mut command = concord(arguments);
        command.arg(contained.project.root());
        let output = run(command);
        let said = text(&output.stderr);
        assert!(
            !output.status.success() && said.contains("in another pid namespace"),
            "{said}"
        );
    }
    assert_eq!(contained.status()["pid"], 1);
    contained.unmount();
}

#[test]
fn a_daemon_that_sees_the_proc_of_another_namespace_says_so_and_asks_nothing_of_it() {
    if not_root() {
        return;
    }
    let contained = Contained::with(&[("s.md", "v1\n")], false);
    let project = &contained.project;
    // The machine's /proc names the daemon by the number that everybody here knows it by.
    let status = project.status();
    assert_eq!(status["pid"], contained.daemon_pid());
    let feature = |name: &str| {
        let features = status["features"].as_array().unwrap();
        features.iter().find(|f| f["name"] == name).unwrap()["on"].clone()
    };
    assert_eq!(feature("processes"), false);
    // A process of the container, whose number there is somebody else's in that /proc.
    let mut inside = Command::new("nsenter");
    inside.args(["--target", &contained.daemon_pid().to_string(), "--pid", "sh", "-c"]);
    inside.arg("cd \"$0\"; echo v2 > s.md; { /bin/echo a; /bin/echo b; } > t.md");
    inside.arg(project.root());
    succeed(inside);
    eventually("both were published", || {
        project.read("s.md") == "v2\n" && project.path("t.md").exists()
    });
    assert_eq!(project.read("t.md"), "a\nb\n");
    assert_eq!(project.history("t.md")[0]["command"].as_str().unwrap(), UNKNOWN);
}

/// A Python process started by `unshare`, `chroot` or the like.
fn in_a(command: &[&str], project: &Project) -> Command {
    let mut started = Command::new(command[0]);
    started.args(&command[1..]).current_dir(project.root());
    started
}

#[test]
fn w1_w5_w7_writers_in_containers_of_the_daemons_machine_are_known_like_any_others() {
    if not_root() {
        return;
    }
    let project = Project::with(&[("s.md", "v1\n")]);
    let kinds: [&[&str]; 4] = [
        &["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"],
        &["unshare", "--mount"],
        &[
            "unshare",
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
        ],
        &["chroot", "/"],
    ];
    let root = project.root();
    let script = "cd \"$0\"; { /bin/echo a; /bin/echo b; } > s.md; echo c >> s.md; exec 3>> s.md; echo ready; read x; echo part > s.md; exec sleep 60 > k.md";
    for kind in kinds {
        let mut command = in_a(kind, &project);
        command.args(["sh", "-c", script]).arg(&root);
        let mut inside = Running::start(command);
        assert_eq!(inside.hear(), "ready", "{kind:?}");
        assert_eq!(project.read("s.md"), "a\nb\nc\n", "{kind:?}");
        let newest = &project.history("s.md")[0];
        assert_eq!(newest["command"], "sh", "{kind:?}");
        assert_ne!(newest["pid"], 0, "{kind:?}");
        inside.say("go");
        eventually("it holds a file", || {
            let status = project.status();
            let sessions = status["sessions"].as_array().unwrap();
            sessions.iter().any(|session| session["file"] == "k.md")
        });
        let mut other = Puppet::new(&project);
        assert_eq!(
            other.does("os.open('k.md', os.O_WRONLY | os.O_CREAT | os.O_EXCL)"),
            "EEXIST"
        );
        // W7: a creation by who is killed never appears.
        inside.signal(rustix::process::Signal::KILL);
        eventually("nobody holds it", || {
            let status = project.status();
            let sessions = status["sessions"].as_array().unwrap();
            !sessions.iter().any(|session| session["file"] == "k.md")
        });
        assert!(!project.path("k.md").exists(), "{kind:?}");
        assert_eq!(project.read("s.md"), "part\n", "{kind:?}");
        std::fs::write(project.path("s.md"), "v1\n").unwrap();
    }
    assert_eq!(project.status()["counts"]["late"], 0);
}
