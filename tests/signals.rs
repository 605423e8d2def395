//! W2, W8: real programs that meet a signal while they wait for a file.

mod support;

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use support::puppet::Puppet;
use support::{Project, Running, succeed, text, wait, watchdog};

/// Pending signals are looked for every 40 ms.
const NOTICED: Duration = Duration::from_millis(200);

fn project() -> Project {
    watchdog();
    Project::with(&[
        ("concord.toml", "wait = '60s'\n"),
        ("STATE.md", "v1\n"),
        ("tmp", "saved\n"),
    ])
}

/// Somebody waits; who appends counts as one that has the file, too.
fn await_waiter(project: &Project) {
    support::eventually("one waits", || {
        let status = project.status();
        let sessions = status["sessions"].as_array().unwrap().iter();
        sessions.map(|s| s["waiting"].as_array().unwrap().len()).sum::<usize>() == 1
    });
}

/// Somebody has the file open, and `command` waits for it.
fn waiting_for_holder(project: &Project, mut command: Command) -> (Puppet, Running) {
    let mut holder = Puppet::new(project);
    assert_eq!(holder.does("f = open('STATE.md', 'r+')"), "ok");
    command.current_dir(project.root()).stderr(std::process::Stdio::piped());
    let waiter = Running::start(command);
    await_waiter(project);
    (holder, waiter)
}

/// The signals come, are noticed, and the wait goes on.
fn goes_on_after(project: &Project, waiter: &Running, signals: &[Signal]) {
    for signal in signals {
        waiter.signal(*signal);
        std::thread::sleep(NOTICED);
    }
    std::thread::sleep(NOTICED);
    await_waiter(project);
}

/// It ends well when the file is free.
fn succeeds_when(mut holder: Puppet, mut waiter: Running) {
    assert_eq!(holder.does("f.close()"), "None");
    let status = wait(&mut waiter.0, Duration::from_secs(60));
    let mut said = Vec::new();
    std::io::Read::read_to_end(waiter.0.stderr.as_mut().unwrap(), &mut said).unwrap();
    assert!(status.success(), "{status:?}: {}", text(&said));
}

fn program(line: &[&str]) -> Command {
    let mut command = Command::new(line[0]);
    command.args(&line[1..]);
    command
}

#[test]
fn w2_w8_who_is_stopped_and_continued_while_it_waits_goes_on() {
    let exchanges = "import ctypes; assert ctypes.CDLL(None).renameat2(-100, b'tmp', -100, b'STATE.md', 2) == 0";
    for (line, left) in [
        (&["mv", "tmp", "STATE.md"][..], Some("saved\n")),
        (&["rm", "STATE.md"], None),
        (&["ln", "-f", "tmp", "STATE.md"], Some("saved\n")),
        (&["python3", "-c", exchanges], Some("saved\n")),
        (&["python3", "-c", "import os; os.truncate('STATE.md', 1)"], Some("v")),
        (&["cp", "tmp", "STATE.md"], Some("saved\n")),
        (&["tee", "STATE.md"], Some("")),
    ] {
        for stop in [Signal::STOP, Signal::TSTP] {
            let project = project();
            let mut command = program(line);
            // Of a group without anybody outside to continue it, the kernel stops none by SIGTSTP.
            command.process_group(0);
            let (holder, mut waiter) = waiting_for_holder(&project, command);
            drop(waiter.0.stdin.take());
            goes_on_after(&project, &waiter, &[stop, Signal::CONT]);
            succeeds_when(holder, waiter);
            let found = std::fs::read_to_string(project.path("STATE.md")).ok();
            assert_eq!(found.as_deref(), left, "{line:?} {stop:?}");
        }
    }
}

/// The kernel has an interrupted flock(2) begun again where there is no handler: behind those who have come meanwhile.
#[test]
fn w12_who_is_stopped_and_continued_while_it_waits_for_a_lock_keeps_its_place() {
    for name in ["STATE.md", "tmp"] {
        let project = project();
        let mut three: Vec<Puppet> = (0..3).map(|_| Puppet::new(&project)).collect();
        let waiting = |count: usize| {
            support::eventually("they wait for the lock", || {
                let waiting = &project.status()["locks"][0]["waiting"];
                waiting.as_array().map_or(0, Vec::len) == count
            });
        };
        for (before, puppet) in three.iter_mut().enumerate() {
            assert_eq!(puppet.does(&format!("f = open('{name}', 'r')")), "ok");
            puppet.starts("fcntl.flock(f, fcntl.LOCK_EX)");
            match before {
                0 => assert_eq!(puppet.says(), "None"),
                others => waiting(others),
            }
        }
        for signal in [Signal::STOP, Signal::CONT] {
            three[1].0.signal(signal);
            std::thread::sleep(NOTICED);
        }
        waiting(2);
        assert_eq!(three[0].does("fcntl.flock(f, fcntl.LOCK_UN)"), "None");
        waiting(1);
        assert_eq!(
            project.status()["locks"][0]["held"][0]["pid"],
            three[1].0.pid(),
            "{name}"
        );
    }
}

#[test]
fn w8_a_checkout_whose_progress_timer_runs_while_it_waits_leaves_no_old_file() {
    let project = project();
    let setup = "git init -q . && git config user.email a@b && git config user.name a && printf '.concord\\ntmp\\n' > .gitignore &&
git add . && git commit -qm one && git checkout -q -b two && echo v2 > STATE.md && git commit -qam two && git checkout -q -";
    succeed(project.sh(setup));
    let (holder, waiter) = waiting_for_holder(&project, program(&["git", "checkout", "--progress", "two"]));
    goes_on_after(&project, &waiter, &[Signal::ALARM, Signal::ALARM]);
    succeeds_when(holder, waiter);
    assert_eq!(project.read("STATE.md"), "v2\n");
    assert_eq!(succeed(project.sh("git status --porcelain")), "");
}

#[test]
fn w8_a_rename_goes_on_when_a_child_of_its_process_ends() {
    let project = project();
    let program = "import os, signal, subprocess
signal.signal(signal.SIGCHLD, lambda *_: None)
child = subprocess.Popen(['sh', '-c', 'read line'], stdin=subprocess.PIPE)
print(child.pid, flush=True)
os.replace('tmp', 'STATE.md')";
    let (holder, mut waiter) = waiting_for_holder(&project, project.python(program));
    let child = waiter.hear().parse().unwrap();
    support::kill(child, Signal::TERM);
    goes_on_after(&project, &waiter, &[]);
    succeeds_when(holder, waiter);
    assert_eq!(project.read("STATE.md"), "saved\n");
}

#[test]
fn w8_who_is_interrupted_from_the_keyboard_while_it_waits_ends() {
    for line in [
        &["mv", "tmp", "STATE.md"][..],
        &["rm", "STATE.md"],
        &["cp", "tmp", "STATE.md"],
    ] {
        for signal in [Signal::INT, Signal::QUIT] {
            let project = project();
            let (mut holder, mut waiter) = waiting_for_holder(&project, program(line));
            waiter.signal(signal);
            // Far less than the wait, also on a slow machine.
            let status = wait(&mut waiter.0, Duration::from_secs(20));
            assert_eq!(status.signal(), Some(signal.as_raw()), "{line:?}");
            project.await_sessions(1, 0);
            assert_eq!(holder.does("f.close()"), "None");
            assert_eq!(project.read("STATE.md"), "v1\n");
        }
    }
}

const NOTES: &str = "met = []\ndef note(*_): met.append(1)\nsignal.signal(signal.SIGUSR1, note)";
/// A handle whose session ended with a lock.
const HAS_LET_GO: &str = "fd = os.open('STATE.md', os.O_RDWR)
fcntl.flock(fd, fcntl.LOCK_EX); os.write(fd, b'v2'); fcntl.flock(fd, fcntl.LOCK_UN)";

#[test]
fn w8_a_signal_that_is_caught_does_not_end_the_wait_of_a_truncation_or_a_link() {
    let appends = "fd = os.open('STATE.md', os.O_WRONLY | os.O_APPEND)";
    for (before, name, way, left) in [
        ("", "STATE.md", "os.truncate('STATE.md', 1)", "v"),
        (HAS_LET_GO, "STATE.md", "os.ftruncate(fd, 1)", "v"),
        (appends, "STATE.md", "os.ftruncate(fd, 1)", "v"),
        ("", "NEW.md", "os.link('tmp', 'NEW.md')", "saved"),
    ] {
        let project = project();
        let (mut holder, mut waiter) = (Puppet::new(&project), Puppet::new(&project));
        assert_eq!(waiter.does(NOTES), "ok");
        assert_eq!(waiter.does(&format!("pass\n{before}")), "ok");
        assert_eq!(
            holder.does(&format!("fd = os.open('{name}', os.O_RDWR | os.O_CREAT)")),
            "ok"
        );
        waiter.starts(way);
        await_waiter(&project);
        goes_on_after(&project, &waiter.0, &[Signal::USR1]);
        // What is only coming to be is taken back, and the name is free.
        let takes_back = "os.path.exists('NEW.md') and os.unlink('NEW.md'), os.close(fd)";
        assert!(holder.does(takes_back).contains("None)"));
        assert_eq!(waiter.says(), "None", "{way}");
        assert_eq!(waiter.does("met"), "[1]", "{way}");
        // By its handle it may have staged that only.
        assert_eq!(waiter.does(&format!("get('{name}').strip()")), left, "{way}");
    }
}

#[test]
fn w2_a_signal_that_is_caught_ends_the_wait_of_a_write_that_begins_anew() {
    let project = project();
    let (mut holder, mut waiter) = (Puppet::new(&project), Puppet::new(&project));
    for step in [NOTES, HAS_LET_GO, "libc = ctypes.CDLL(None, use_errno=True)"] {
        assert_eq!(waiter.does(step), "ok");
    }
    assert_eq!(holder.does("fd = os.open('STATE.md', os.O_RDWR)"), "ok");
    // os.write() tries again after EINTR.
    waiter.starts("libc.write(fd, b'x', 1), ctypes.get_errno()");
    project.await_sessions(1, 1);
    waiter.0.signal(Signal::USR1);
    assert_eq!(waiter.says(), "(-1, 4)", "EINTR");
    project.await_sessions(1, 0);
}
