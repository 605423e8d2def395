//! W12 and R2: flock(2) between processes, and what a handle sees and leaves when it has a lock or lets go of it.

mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::puppet::Puppet;
use support::{Immutable, Project, Running, concord, eventually, succeed, wait, watchdog};

const TRY: &str = "fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)";

/// A project with an ordinary file and a coordinated one, and two processes that have opened one of them.
fn two_with(name: &str, mode: &str) -> (Project, Puppet, Puppet) {
    let project = Project::with(&[
        ("concord.toml", "wait = '30s'\n"),
        ("STATE.md", "v1"),
        ("work.lock", ""),
    ]);
    let (mut a, mut b) = (Puppet::new(&project), Puppet::new(&project));
    for puppet in [&mut a, &mut b] {
        assert_eq!(puppet.does(&format!("f = open('{name}', '{mode}')")), "ok");
    }
    (project, a, b)
}

#[test]
fn w12_locks_exclude_each_other_on_ordinary_and_on_coordinated_files() {
    watchdog();
    for name in ["work.lock", "STATE.md"] {
        let (_project, mut a, mut b) = two_with(name, "r");
        assert_eq!(a.does("fcntl.flock(f, fcntl.LOCK_SH)"), "None");
        assert_eq!(b.does("fcntl.flock(f, fcntl.LOCK_SH)"), "None");
        assert_eq!(a.does(TRY), "EAGAIN", "{name}: the other's shared lock");
        assert_eq!(b.does(TRY), "None", "{name}: a failed conversion has let go");
        b.does("fcntl.flock(f, fcntl.LOCK_SH)");
        assert_eq!(
            a.does("fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)"),
            "None",
            "{name}: downgraded"
        );
        b.does("fcntl.flock(f, fcntl.LOCK_UN)");
        a.does(TRY);
        b.starts("fcntl.flock(f, fcntl.LOCK_EX)");
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(a.does("fcntl.flock(f, fcntl.LOCK_UN)"), "None");
        assert_eq!(b.says(), "None", "{name}");
    }
}

#[test]
fn w12_a_lock_belongs_to_the_open_file_description() {
    watchdog();
    for name in ["work.lock", "STATE.md"] {
        let (_project, mut a, mut b) = two_with(name, "r");
        a.does("fcntl.flock(f, fcntl.LOCK_EX)");
        assert_eq!(
            a.does("g = open(f.name); fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB)"),
            "EAGAIN"
        );
        a.does("d = os.dup(f.fileno()); f.close()");
        assert_eq!(b.does(TRY), "EAGAIN", "{name}: a duplicate is left");
        a.does("child = subprocess.Popen(['sleep', '100'], pass_fds=[d]); os.close(d)");
        assert_eq!(b.does(TRY), "EAGAIN", "{name}: a child has it");
        a.does("child.kill()");
        assert_eq!(a.does("child.wait()"), "-9");
        assert_eq!(b.does(TRY), "None", "{name}");
        assert_eq!(b.does("f.close()"), "None");
        assert_eq!(
            a.does("fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB)"),
            "None",
            "{name}: free when close(2) has returned"
        );
    }
}

#[test]
fn w12_a_lock_is_free_when_close_has_returned() {
    watchdog();
    let (_project, mut a, _b) = two_with("work.lock", "r");
    for (name, mode) in [("work.lock", "r"), ("STATE.md", "r"), ("STATE.md", "r+")] {
        let program = format!(
            "for _ in range(300):
    f = open('{name}', '{mode}'); fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB); f.close()"
        );
        assert_eq!(a.does(&program), "ok", "{name} {mode}");
    }
}

#[test]
fn w12_a_killed_holders_lock_is_free() {
    watchdog();
    for (name, mode) in [("work.lock", "r+"), ("STATE.md", "r"), ("STATE.md", "r+")] {
        let (project, mut a, mut b) = two_with("work.lock", "r");
        assert_eq!(
            a.does(&format!("h = open('{name}', '{mode}'); fcntl.flock(h, fcntl.LOCK_EX)")),
            "ok"
        );
        b.does(&format!("h = open('{name}', 'r')"));
        b.starts("fcntl.flock(h, fcntl.LOCK_EX)");
        std::thread::sleep(Duration::from_millis(50));
        a.0.signal(Signal::KILL);
        assert_eq!(b.says(), "None");
        drop(project);
    }
}

#[test]
fn w12_a_signal_ends_the_wait() {
    watchdog();
    let waits = "import ctypes, fcntl, os, signal, sys
for s in (signal.SIGUSR1,): signal.signal(s, lambda *_: None); signal.siginterrupt(s, True)
libc = ctypes.CDLL(None, use_errno=True)
f = open(sys.argv[1], sys.argv[2])
print('ready', flush=True)
print(libc.flock(f.fileno(), 2), ctypes.get_errno(), flush=True)";
    for (name, mode) in [("work.lock", "r"), ("STATE.md", "r"), ("STATE.md", "r+")] {
        let (project, mut holder, mut third) = two_with(name, "r");
        holder.does("fcntl.flock(f, fcntl.LOCK_EX)");
        for signal in [Signal::USR1, Signal::INT, Signal::KILL] {
            let mut command = project.python(waits);
            command.args([name, mode]).stderr(Stdio::null());
            let mut waiter = Running::start(command);
            assert_eq!(waiter.hear(), "ready");
            std::thread::sleep(Duration::from_millis(150));
            let start = Instant::now();
            waiter.signal(signal);
            if signal == Signal::USR1 {
                assert_eq!(waiter.hear(), "-1 4", "EINTR");
            } else {
                wait(&mut waiter.0, Duration::from_secs(5));
            }
            assert!(
                start.elapsed() < Duration::from_secs(1),
                "{name} {mode} {signal:?}: {:?}",
                start.elapsed()
            );
        }
        holder.does("fcntl.flock(f, fcntl.LOCK_UN)");
        assert_eq!(
            third.does(TRY),
            "None",
            "{name}: no lock stays with a wait that was given up"
        );
    }
}

#[test]
fn w12_waiters_cost_no_thread_and_are_served_one_at_a_time() {
    watchdog();
    let project = Project::with(&[("work.lock", ""), ("STATE.md", "0")]);
    let counts = "import fcntl, sys
f = open(sys.argv[1]); print('ready', flush=True)
fcntl.flock(f, fcntl.LOCK_EX)
with open('count.txt', 'a') as c: c.write('+')
fcntl.flock(f, fcntl.LOCK_UN)";
    let mut holder = Puppet::new(&project);
    holder.does("f = open('STATE.md'); fcntl.flock(f, fcntl.LOCK_EX)");
    let mut waiters: Vec<Running> = Vec::new();
    for _ in 0..30 {
        let mut command = project.python(counts);
        command.arg("STATE.md");
        waiters.push(Running::start(command));
    }
    waiters.iter_mut().for_each(|waiter| assert_eq!(waiter.hear(), "ready"));
    // The daemon still serves everybody else.
    assert_eq!(succeed(project.sh("echo x > other.md; cat other.md")), "x\n");
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", project.status()["pid"].as_u64().unwrap())).unwrap();
    let threads: u32 = status
        .lines()
        .find_map(|l| l.strip_prefix("Threads:"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(threads < 40, "{threads}");
    holder.does("fcntl.flock(f, fcntl.LOCK_UN)");
    for waiter in waiters {
        assert!(waiter.finish().success());
    }
    assert_eq!(project.read("count.txt").len(), 30);
}

#[test]
fn w12_a_rename_over_the_file_keeps_the_lock() {
    watchdog();
    let (project, mut a, mut b) = two_with("STATE.md", "r");
    a.does("fcntl.flock(f, fcntl.LOCK_EX)");
    succeed(project.sh("echo v2 > t.txt && mv t.txt STATE.md && echo v3 > STATE.md"));
    b.does("f = open('STATE.md')");
    assert_eq!(
        b.does(TRY),
        "EAGAIN",
        "the lock is the file's, whatever version is opened"
    );
    succeed(project.sh("mv STATE.md ARCHIVE.md"));
    b.does("f = open('ARCHIVE.md')");
    assert_eq!(b.does(TRY), "EAGAIN", "it went with the file");
    succeed(project.sh("echo new > STATE.md"));
    b.does("f = open('STATE.md')");
    assert_eq!(b.does(TRY), "None", "another file of that name");
    b.does("f = open('ARCHIVE.md')");
    a.does("f.close()");
    assert_eq!(b.does(TRY), "None");
}

#[test]
fn w12_a_lock_does_not_end_with_a_handle_that_was_closed_before_it_was_taken() {
    watchdog();
    let (project, mut other, mut a) = two_with("work.lock", "r");
    // On one processor the kernel gives the next open the memory of the description that was just closed, most of the time; and as long as `keep` is open,
    // it is the end of the handle, not of close(2), that publishes what was written.
    a.does("os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})");
    for round in 0..12 {
        let taken_anew = format!(
            "keep, old = os.open('STATE.md', os.O_RDWR), os.open('STATE.md', os.O_RDWR)
fcntl.flock(old, fcntl.LOCK_EX)
data = b'%08d' % {round} * (1 << 17)
os.pwrite(old, data, 0)
os.close(old); new = os.open('STATE.md', os.O_RDONLY); fcntl.flock(new, fcntl.LOCK_EX)
os.close(keep); time.sleep(0.05)"
        );
        assert_eq!(a.does(&taken_anew), "ok");
        other.does("f = open('STATE.md')");
        assert_eq!(other.does(TRY), "EAGAIN", "round {round}");
        assert_eq!(a.does("os.pread(new, 1 << 21, 0) == data"), "True", "round {round}");
        assert_eq!(a.does("os.close(new)"), "None");
    }
    // The kernel does not wait for the daemon to hear of a close.
    eventually("no lock is left", || {
        project.status()["locks"].as_array().unwrap().is_empty()
    });
}

#[test]
fn w12_a_lock_that_is_not_had_is_no_open_that_failed() {
    watchdog();
    let (project, mut a, mut b) = two_with("STATE.md", "r");
    a.does("fcntl.flock(f, fcntl.LOCK_EX)");
    b.does("f = open('STATE.md', 'r+')");
    assert_eq!(b.does(TRY), "EAGAIN", "the other's lock");
    a.does("fcntl.flock(f, fcntl.LOCK_UN); g = open('STATE.md', 'r+')");
    assert_eq!(b.does(TRY), "EAGAIN", "the other's session");
    assert_eq!(project.status()["counts"]["busy"], 0, "{}", project.status());
    assert_eq!(
        b.does("os.open('STATE.md', os.O_WRONLY | os.O_NONBLOCK)"),
        "EAGAIN",
        "the other's session"
    );
    assert_eq!(project.status()["counts"]["busy"], 1, "{}", project.status());
}

#[test]
fn w12_letting_go_publishes_before_anybody_else_has_the_lock() {
    watchdog();
    let (project, mut reader, mut writer) = two_with("STATE.md", "r");
    writer.does("f = open('STATE.md', 'r+'); fcntl.flock(f, fcntl.LOCK_EX)");
    reader.starts("fcntl.flock(f, fcntl.LOCK_SH)");
    writer.does("f.write('v2 and more'); f.flush()");
    assert_eq!(project.read("STATE.md"), "v1", "not yet");
    writer.does("fcntl.flock(f, fcntl.LOCK_UN)");
    assert_eq!(
        project.read("STATE.md"),
        "v2 and more",
        "published, although it is still open"
    );
    assert_eq!(reader.says(), "None");
    assert_eq!(
        reader.does("(os.fstat(f.fileno()).st_size, f.read())"),
        "(11, 'v2 and more')",
        "R2: its descriptor is older than what it reads"
    );
    writer.does("f.close()");
    assert_eq!(project.history("STATE.md").len(), 2, "published once");
}

#[test]
fn w12_a_handle_that_lives_on_works_on_what_is_current_each_time() {
    watchdog();
    let (project, mut a, mut b) = two_with("work.lock", "r");
    let adds = "fcntl.flock(f, fcntl.LOCK_EX)
f.seek(0); n = int(f.read()); f.seek(0); f.truncate(); f.write(str(n + 1)); f.flush()
fcntl.flock(f, fcntl.LOCK_UN)";
    succeed(project.sh("echo 7 > n.json"));
    a.does("f = open('n.json', 'r+')");
    assert_eq!(a.does(adds), "ok");
    b.does("f = open('n.json', 'r+')");
    for turn in 0..5 {
        assert_eq!(b.does(adds), "ok", "{turn}");
        assert_eq!(a.does(adds), "ok", "{turn}");
    }
    assert_eq!(project.read("n.json"), "18");
    // Without a lock it is a writer like any other: it begins with what is current, and waits its turn.
    succeed(project.sh("printf 100 > n.json"));
    let mut third = Puppet::new(&project);
    third.does("h = open('n.json', 'r+')");
    a.starts("os.pwrite(f.fileno(), b'2', 0)");
    std::thread::sleep(Duration::from_millis(100));
    third.does("h.write('1234'); h.close()");
    assert_eq!(a.says(), "1");
    assert_eq!(a.does("f.close()"), "None");
    assert_eq!(project.read("n.json"), "2234");
    assert_eq!(project.status()["counts"]["stale"], 0, "{}", project.status());
}

#[test]
fn w12_who_waits_for_the_lock_does_not_hold_up_who_has_it() {
    watchdog();
    for wait_mode in ["fcntl.LOCK_EX", "fcntl.LOCK_EX | fcntl.LOCK_NB"] {
        let (project, mut waiter, mut holder) = two_with("STATE.md", "r");
        holder.does("fcntl.flock(f, fcntl.LOCK_EX)");
        waiter.does("f = open('STATE.md', 'r+')");
        waiter.starts(&format!("fcntl.flock(f, {wait_mode})"));
        if wait_mode.contains("NB") {
            assert_eq!(waiter.says(), "EAGAIN");
        } else {
            std::thread::sleep(Duration::from_millis(100));
        }
        let start = Instant::now();
        assert_eq!(holder.does("put('STATE.md', 'by the holder')"), "None");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        holder.does("fcntl.flock(f, fcntl.LOCK_UN)");
        if wait_mode.contains("NB") {
            assert_eq!(waiter.does(&format!("fcntl.flock(f, {wait_mode})")), "None");
        } else {
            assert_eq!(waiter.says(), "None");
        }
        assert_eq!(waiter.does("f.read()"), "by the holder");
        assert_eq!(waiter.does("f.write('!'); f.close()"), "ok");
        assert_eq!(project.read("STATE.md"), "by the holder!");
        assert_eq!(project.status()["counts"]["stale"], 0);
    }
}

#[test]
fn w12_who_has_the_lock_already_publishes_nothing_by_asking_again() {
    watchdog();
    let (project, mut a, _b) = two_with("work.lock", "r");
    a.does("f = open('STATE.md', 'r+'); fcntl.flock(f, fcntl.LOCK_EX); f.write('half'); f.flush(); fcntl.flock(f, fcntl.LOCK_EX)");
    assert_eq!(project.read("STATE.md"), "v1");
    a.does("f.write(' and half'); f.close()");
    assert_eq!(project.read("STATE.md"), "half and half");
    assert_eq!(project.history("STATE.md").len(), 2);
}

#[test]
fn w12_a_lock_shows_what_its_own_process_has_published_meanwhile() {
    watchdog();
    let (_project, mut a, _b) = two_with("work.lock", "r");
    a.does("f = open('STATE.md', 'r+')");
    assert_eq!(
        a.does("put('STATE.md', 'by another handle', os.O_WRONLY | os.O_TRUNC)"),
        "None"
    );
    a.does("fcntl.flock(f, fcntl.LOCK_EX)");
    assert_eq!(a.does("f.read()"), "by another handle");
}

#[test]
fn w12_an_unlock_that_cannot_publish_says_so() {
    watchdog();
    let mut project = Project::unmounted(&[]);
    // Behind the mount, through which no ioctl(2) goes.
    let backing = project.outside().join("backing");
    std::fs::create_dir_all(backing.join("d")).unwrap();
    std::fs::write(backing.join("d/n.json"), "1\n").unwrap();
    project.mount_with(&["--backing", backing.to_str().unwrap()]);
    let (mut a, mut b) = (Puppet::new(&project), Puppet::new(&project));
    a.does("f = open('d/n.json', 'r+'); fcntl.flock(f, fcntl.LOCK_EX); f.write('2'); f.flush()");
    b.does("f = open('d/n.json')");
    // A directory alone would not do: then it is written in place (W11).
    let file = backing.join("d/n.json");
    let Some(immutable) = Immutable::new(&file) else {
        return;
    };
    let unlocked = a.does("fcntl.flock(f, fcntl.LOCK_UN)");
    drop(immutable);
    assert_eq!(unlocked, "EPERM");
    for call in [
        "os.fsync(f.fileno())",
        "os.fdatasync(f.fileno())",
        "os.fchmod(f.fileno(), 0o600)",
    ] {
        assert_eq!(a.does(call), "EPERM", "{call} of what is lost");
    }
    assert_eq!(b.does(TRY), "None", "free all the same");
    assert_eq!(b.does("f.read().strip()"), "1");
    assert_eq!(project.recovered().len(), 1);
}

#[test]
fn r2_a_version_is_bound_at_the_first_read() {
    watchdog();
    let (project, mut early, mut late) = two_with("STATE.md", "r");
    assert_eq!(early.does("f.read(1)"), "v");
    succeed(project.sh("printf 'version two' > STATE.md"));
    assert_eq!(late.does("f.read()"), "version two");
    // The kernel has one size for the node that both opened, and would cut a mapping of it.
    assert_eq!(late.does("os.fstat(f.fileno()).st_size"), "2");
    assert_eq!(early.does("f.seek(0), f.read()"), "(0, 'v1')");
    assert_eq!(early.does("os.fstat(f.fileno()).st_size"), "2");
    succeed(project.sh("printf v3 > STATE.md"));
    assert_eq!(
        late.does("f.seek(0), f.read()"),
        "(0, 'version two')",
        "R1 from there on"
    );
    // A lock releases the binding.
    assert_eq!(early.does("fcntl.flock(f, fcntl.LOCK_SH)"), "None");
    succeed(project.sh("printf 'the fourth' > STATE.md"));
    assert_eq!(early.does("f.seek(0), f.read()"), "(0, 'the fourth')");
    assert_eq!(late.does("f.close()"), "None");
    let shown = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        early.does("os.fstat(f.fileno()).st_size") == "10"
    });
    assert!(shown, "alone on the node, it is shown what it reads");
}

#[test]
fn r2_who_goes_by_the_size_sees_the_whole_of_one_version() {
    watchdog();
    let (project, mut sized, mut mapped) = two_with("STATE.md", "r");
    assert_eq!(sized.does("n = os.fstat(f.fileno()).st_size"), "ok");
    mapped.does("m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)");
    succeed(project.sh("printf 'a much longer version' > STATE.md"));
    assert_eq!(
        sized.does("os.read(f.fileno(), n)"),
        "b'v1'",
        "not the beginning of the next"
    );
    assert_eq!(mapped.does("m[:]"), "b'v1'");
    let copied = "import os\nf = os.open('STATE.md', os.O_RDONLY)\nos.system('printf short > STATE.md')\ng = os.open('copy.txt', os.O_WRONLY | os.O_CREAT)\nwhile os.copy_file_range(f, g, 1 << 20): pass\nprint(open('copy.txt').read())";
    assert_eq!(succeed(project.python(copied)), "a much longer version\n");
}

#[test]
fn w12_letting_go_publishes_what_its_process_has_saved_and_closed() {
    watchdog();
    let (project, mut a, mut b) = two_with("STATE.md", "r");
    a.does("f = open('STATE.md', 'r+'); fcntl.flock(f, fcntl.LOCK_EX)");
    // Somebody of the same process joins the save before it is closed, as a thread that will wait for the lock.
    a.does("g = open('STATE.md', 'w'); h = open('STATE.md', 'r+'); g.write('v2'); g.close()");
    a.does("fcntl.flock(f, fcntl.LOCK_UN)");
    assert_eq!(b.does("fcntl.flock(f, fcntl.LOCK_SH)"), "None");
    assert_eq!(b.does("f.read()"), "v2");
    b.does("fcntl.flock(f, fcntl.LOCK_UN)");
    assert_eq!(
        a.does("fcntl.flock(h, fcntl.LOCK_EX); h.seek(0, 2); h.write('!'); h.close(); f.close()"),
        "ok"
    );
    assert_eq!(project.read("STATE.md"), "v2!");
    assert_eq!(project.status()["counts"]["stale"], 0, "{}", project.status());
}

#[test]
fn w12_who_emptied_the_file_by_its_open_and_gave_way_to_a_lock_takes_nothing_back() {
    watchdog();
    for saves in [
        "put('STATE.md', 'by the holder')",
        // No session of the holder's ends, with which the other one would start anew.
        "put('new', 'by the holder'); os.rename('new', 'STATE.md')",
    ] {
        let (project, mut holder, mut late) = two_with("STATE.md", "r");
        holder.does("fcntl.flock(f, fcntl.LOCK_EX)");
        late.does("f = open('STATE.md', 'w')");
        assert_eq!(late.does(TRY), "EAGAIN");
        holder.does(saves);
        holder.does("fcntl.flock(f, fcntl.LOCK_UN)");
        assert_eq!(late.does("f.close()"), "None");
        assert_eq!(project.read("STATE.md"), "by the holder", "{saves}");
        assert_eq!(project.status()["counts"]["stale"], 0, "{}", project.status());
    }
}

#[test]
fn w12_a_file_that_was_only_given_another_name_since_is_emptied() {
    watchdog();
    let (project, mut holder, mut late) = two_with("STATE.md", "r");
    holder.does("fcntl.flock(f, fcntl.LOCK_EX)");
    late.does("f = open('STATE.md', 'w')");
    assert_eq!(late.does(TRY), "EAGAIN");
    // Who opens a file with two names for writing gives it an image.
    assert_eq!(
        holder.does("os.link('STATE.md', 'other.txt'); g = open('STATE.md', 'r+'); g.read(); g.close()"),
        "ok"
    );
    assert_eq!(late.does("f.close()"), "None");
    assert_eq!(
        (project.read("STATE.md"), project.read("other.txt")),
        Default::default()
    );
}

#[test]
fn w12_letting_go_publishes_the_beginning_of_a_line() {
    watchdog();
    let appends =
        "fd = os.open('STATE.md', os.O_WRONLY | os.O_APPEND); fcntl.flock(fd, fcntl.LOCK_EX); os.write(fd, b'+half')";
    for (lets_go, lives) in [
        ("fcntl.flock(fd, fcntl.LOCK_UN)", true),
        ("fcntl.flock(fd, fcntl.LOCK_SH)", true),
        ("os.close(fd)", false),
    ] {
        for rule in ["", "append = 'close'\n"] {
            let config = format!("[[rule]]\npaths = ['STATE.md']\n{rule}");
            let project = Project::with(&[("concord.toml", config.as_str()), ("STATE.md", "v1")]);
            let (mut writer, mut next) = (Puppet::new(&project), Puppet::new(&project));
            writer.does(appends);
            next.does("f = open('STATE.md')");
            next.starts("fcntl.flock(f, fcntl.LOCK_SH)");
            assert_eq!(project.read("STATE.md"), "v1", "not yet");
            assert_eq!(writer.does(lets_go), "None");
            assert_eq!(next.says(), "None");
            assert_eq!(next.does("f.read()"), "v1+half", "{lets_go} {rule}");
            if lives {
                assert_eq!(writer.does("os.write(fd, b' and half\\n...')"), "13");
                assert_eq!(writer.does("os.close(fd)"), "None");
                assert_eq!(project.read("STATE.md"), "v1+half and half\n...", "{lets_go} {rule}");
            }
            assert_eq!(project.recovered().len(), 0, "{lets_go} {rule}");
        }
    }
}

#[test]
fn w12_letting_go_publishes_what_is_no_line() {
    watchdog();
    let (project, mut writer, _next) = two_with("STATE.md", "r");
    writer.does("fd = os.open('STATE.md', os.O_WRONLY | os.O_APPEND); fcntl.flock(fd, fcntl.LOCK_EX); os.write(fd, b'x' * (3 << 19))");
    assert_eq!(writer.does("fcntl.flock(fd, fcntl.LOCK_UN)"), "None");
    assert_eq!(project.read("STATE.md").len(), 2 + (3 << 19));
    assert_eq!(writer.does("os.write(fd, b' to here\\nand')"), "12");
    assert!(
        project.read("STATE.md").ends_with("x to here\n"),
        "it writes lines as before"
    );
    assert_eq!(writer.does("os.close(fd)"), "None");
    assert!(project.read("STATE.md").ends_with("x to here\nand"));
    assert_eq!(project.recovered().len(), 0);
}

#[test]
fn w12_status_shows_who_has_a_lock_and_who_waits_for_it() {
    watchdog();
    let project = Project::with(&[("c.json", "0"), ("d/plain", "")]);
    let (mut holder, mut reader, mut writer) = (Puppet::new(&project), Puppet::new(&project), Puppet::new(&project));
    let parties = |lock: &serde_json::Value, side: &str| {
        let parties = lock[side].as_array().unwrap().iter();
        let told = parties.map(|party| {
            (
                party["pid"].as_u64().unwrap() as u32,
                party["kind"].as_str().unwrap().to_owned(),
            )
        });
        told.collect::<Vec<_>>()
    };
    for (file, flags) in [("c.json", "os.O_RDWR"), ("d/plain", "os.O_RDWR")] {
        for (puppet, how) in [(&mut holder, "LOCK_SH"), (&mut reader, "LOCK_SH")] {
            puppet.does(&format!("fd = os.open('{file}', os.O_RDONLY)"));
            assert_eq!(puppet.does(&format!("fcntl.flock(fd, fcntl.{how})")), "None");
        }
        writer.does(&format!("fd = os.open('{file}', {flags})"));
        writer.starts("fcntl.flock(fd, fcntl.LOCK_EX)");
        eventually("the writer waits", || {
            let status = project.status();
            let locks = status["locks"].as_array().unwrap();
            locks.len() == 1 && !locks[0]["waiting"].as_array().unwrap().is_empty()
        });
        let status = project.status();
        let lock = &status["locks"][0];
        assert_eq!(lock["file"], file);
        let shared = |puppet: &Puppet| (puppet.0.pid(), "shared".to_owned());
        assert_eq!(parties(lock, "held"), [shared(&holder), shared(&reader)]);
        assert_eq!(parties(lock, "waiting"), [(writer.0.pid(), "exclusive".to_owned())]);
        let mut command = concord(&["status"]);
        command.arg(project.root());
        let shown = succeed(command);
        assert!(
            shown.contains("locked: 1\n") && shown.contains("waits, exclusive"),
            "{shown}"
        );
        holder.does("os.close(fd)");
        reader.does("os.close(fd)");
        assert_eq!(writer.says(), "None");
        let status = project.status();
        let lock = &status["locks"][0];
        assert_eq!(parties(lock, "held"), [(writer.0.pid(), "exclusive".to_owned())]);
        assert_eq!(parties(lock, "waiting"), []);
        writer.does("os.close(fd)");
        eventually("nothing is locked", || {
            project.status()["locks"].as_array().unwrap().is_empty()
        });
    }
}
