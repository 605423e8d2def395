//! W1 to W4: who waits for whom, for how long, and who does not wait at all.

mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::puppet::Puppet;
use support::{Project, Running, succeed, text, wait, watchdog};

/// Truncating opens that say when they have the file, and write their name.
const IN_TURN: &str = "import sys; f=open('STATE.md','r+'); print('has',flush=True); sys.stdin.readline(); f.seek(0,2); f.write(sys.argv[1]); f.close(); print('done',flush=True)";

#[test]
fn w1_waiters_are_served_first_come_first_served() {
    watchdog();
    let project = Project::with(&[("concord.toml", "wait = '30s'\n"), ("STATE.md", "0")]);
    let mut holder = Puppet::new(&project);
    holder.does("f = open('STATE.md', 'r+')");
    let mut waiters: Vec<Running> = Vec::new();
    for number in 1..=5 {
        let mut command = project.python(IN_TURN);
        command.arg(number.to_string());
        waiters.push(Running::start(command));
        project.await_sessions(1, number);
    }
    holder.does("f.close()");
    for waiter in &mut waiters {
        assert_eq!(waiter.hear(), "has");
        waiter.say("");
        assert_eq!(waiter.hear(), "done");
    }
    assert_eq!(project.read("STATE.md"), "012345");
    assert_eq!(project.history("STATE.md").len(), 6);
}

#[test]
fn w2_a_wait_ends_with_ebusy_and_a_nonblocking_open_does_not_wait() {
    watchdog();
    let project = Project::with(&[("concord.toml", "wait = '400ms'\n"), ("STATE.md", "v1")]);
    let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
    holder.does("f = open('STATE.md', 'w')");
    for flags in ["os.O_RDWR", "os.O_WRONLY | os.O_TRUNC", "os.O_WRONLY | os.O_CREAT"] {
        let start = Instant::now();
        assert_eq!(other.does(&format!("os.open('STATE.md', {flags})")), "EBUSY");
        let waited = start.elapsed();
        assert!(
            waited > Duration::from_millis(350) && waited < Duration::from_secs(4),
            "{waited:?}"
        );
        let start = Instant::now();
        assert_eq!(
            other.does(&format!("os.open('STATE.md', {flags} | os.O_NONBLOCK)")),
            "EAGAIN"
        );
        assert!(start.elapsed() < Duration::from_millis(350));
    }
    holder.does("f.close()");
    assert_eq!(
        other.does("os.close(os.open('STATE.md', os.O_RDWR | os.O_NONBLOCK))"),
        "None"
    );
}

#[test]
fn w2_a_nonblocking_open_leaves_readers_their_version() {
    watchdog();
    let project = Project::with(&[("STATE.md", "first")]);
    let (mut reader, mut writer) = (Puppet::new(&project), Puppet::new(&project));
    reader.does("f = open('STATE.md')");
    assert_eq!(reader.does("f.read(2)"), "fi");
    assert_eq!(
        writer.does("put('STATE.md', '2', os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK)"),
        "None"
    );
    assert_eq!(
        reader.does("f.seek(0), f.read(), os.fstat(f.fileno()).st_size"),
        "(0, 'first', 5)"
    );
}

#[test]
fn w2_a_signal_ends_the_wait_with_eintr() {
    watchdog();
    let project = Project::with(&[("concord.toml", "wait = '30s'\n"), ("STATE.md", "v1")]);
    let mut holder = Puppet::new(&project);
    holder.does("f = open('STATE.md', 'w')");
    // ctypes, because Python's own open(2) tries again after EINTR.
    let opens = "import ctypes, os, signal, sys
for s in (signal.SIGALRM, signal.SIGUSR1): signal.signal(s, lambda *_: None); signal.siginterrupt(s, True)
libc = ctypes.CDLL(None, use_errno=True)
print('ready', flush=True)
fd = libc.open(b'STATE.md', os.O_RDWR)
print(fd, ctypes.get_errno(), flush=True)";
    for signal in [Signal::ALARM, Signal::USR1, Signal::INT, Signal::TERM, Signal::KILL] {
        let mut command = project.python(opens);
        command.stderr(Stdio::null());
        let mut waiter = Running::start(command);
        assert_eq!(waiter.hear(), "ready");
        project.await_sessions(1, 1);
        let start = Instant::now();
        waiter.signal(signal);
        if signal == Signal::ALARM || signal == Signal::USR1 {
            assert_eq!(waiter.hear(), "-1 4", "EINTR");
        } else {
            wait(&mut waiter.0, Duration::from_secs(5));
        }
        // Far less than the wait; how fast it is, the next test says.
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{signal:?} took {:?}",
            start.elapsed()
        );
        project.await_sessions(1, 0);
    }
}

#[test]
fn w2_a_signal_is_noticed_within_100_ms() {
    watchdog();
    let project = Project::with(&[("concord.toml", "wait = '30s'\n"), ("STATE.md", "v1")]);
    let mut holder = Puppet::new(&project);
    holder.does("f = open('STATE.md', 'w')");
    // The median of several: other work on the machine may delay one or two. The pauses differ, so that they meet no rhythm.
    let program = "import ctypes, os, signal, time
signal.signal(signal.SIGUSR1, lambda *_: None); signal.siginterrupt(signal.SIGUSR1, True)
libc, took = ctypes.CDLL(None, use_errno=True), []
for n in range(9):
    answer, tell = os.pipe()
    child = os.fork()
    if child == 0:
        fd = libc.open(b'STATE.md', os.O_RDWR)
        os.write(tell, b'%d %d' % (fd, ctypes.get_errno())); os._exit(0)
    time.sleep(0.25 + n * 0.037)
    start = time.monotonic()
    os.kill(child, signal.SIGUSR1)
    assert os.read(answer, 9) == b'-1 4'
    took.append(time.monotonic() - start)
    os.waitpid(child, 0)
print(int(1000 * sorted(took)[4]))";
    let median: u32 = succeed(project.python(program)).trim().parse().unwrap();
    assert!(median <= 100, "EINTR after {median} ms");
}

#[test]
fn w2_hundreds_of_waiting_opens_stall_nobody() {
    watchdog();
    let project = Project::with(&[("concord.toml", "wait = '60s'\n"), ("STATE.md", "0"), ("OTHER.md", "x")]);
    let mut holder = Puppet::new(&project);
    holder.does("f = open('STATE.md', 'r+')");
    // Each fork waits; all of them are siblings, so none belongs to the holder's lineage.
    let forks = "import os, sys
n, pids = 500, []
for _ in range(n):
    pid = os.fork()
    if pid == 0:
        try:
            fd = os.open('STATE.md', os.O_RDWR); os.lseek(fd, 0, 2); os.write(fd, b'.'); os.close(fd)
        except OSError as e: os._exit(1)
        os._exit(0)
    pids.append(pid)
print('forked', flush=True)
print(sum(os.waitpid(p, 0)[1] != 0 for p in pids), flush=True)";
    let mut crowd = Running::start(project.python(forks));
    assert_eq!(crowd.hear(), "forked");
    project.await_sessions(1, 500);
    let mut other = Puppet::new(&project);
    let start = Instant::now();
    assert_eq!(
        other.does("put('OTHER.md', 'y'), get('OTHER.md'), get('STATE.md')"),
        "(None, 'y', '0')"
    );
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "others took {:?}",
        start.elapsed()
    );
    holder.does("f.close()");
    assert_eq!(crowd.hear(), "0", "each had its turn");
    assert_eq!(project.read("STATE.md").len(), 501);
}

#[test]
fn w3_four_threads_that_truncate_have_private_shadows_published_in_close_order() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1")]);
    let mut program = Puppet::new(&project);
    let start = Instant::now();
    program.does("fds = []");
    program.does("threads = [threading.Thread(target=lambda: fds.append(os.open('STATE.md', os.O_WRONLY | os.O_TRUNC))) for _ in range(4)]");
    program.does("[t.start() for t in threads]");
    program.does("[t.join() for t in threads]");
    assert_eq!(program.does("len(set(fds))"), "4");
    program.does("[os.write(fd, b'%d' % i) for i, fd in enumerate(fds)]");
    for number in [2, 0, 3, 1] {
        assert_eq!(program.does(&format!("os.close(fds[{number}])")), "None");
        assert_eq!(project.read("STATE.md"), number.to_string());
    }
    assert!(start.elapsed() < Duration::from_secs(4), "they waited for each other");
    assert_eq!(project.history("STATE.md").len(), 5);
}

#[test]
fn w3_threads_that_do_not_truncate_join_the_session() {
    watchdog();
    let project = Project::with(&[("STATE.md", "....")]);
    let mut program = Puppet::new(&project);
    program.does("fds = [os.open('STATE.md', os.O_RDWR) for _ in range(4)]");
    program.does("threads = [threading.Thread(target=os.pwrite, args=(fd, b'%d' % i, i)) for i, fd in enumerate(fds)]");
    program.does("[t.start() for t in threads]");
    program.does("[t.join() for t in threads]");
    assert_eq!(program.does("os.pread(fds[0], 10, 0)"), "b'0123'");
    assert_eq!(program.does("[os.close(fd) for fd in fds]"), "[None, None, None, None]");
    assert_eq!(project.read("STATE.md"), "0123");
    assert_eq!(project.history("STATE.md").len(), 2);
}

#[test]
fn w3_node_opens_one_file_from_all_its_threads() {
    watchdog();
    if std::process::Command::new("node").arg("--version").output().is_err() {
        eprintln!("no Node.js here: skipped");
        return;
    }
    let project = Project::with(&[("STATE.md", "v1"), ("state.json", "{}")]);
    let program = "const fs=require('fs').promises;
const all=[]; for (let i=0;i<8;i++) all.push(fs.writeFile('STATE.md', String(i).repeat(1000)));
for (let i=0;i<8;i++) all.push(fs.writeFile('state.json', JSON.stringify({n:i})));
Promise.all(all).then(async () => { JSON.parse(await fs.readFile('state.json','utf8')); }).catch(e => { console.error(e); process.exit(1); });";
    let mut command = project.sh("exec node -e \"$0\"");
    command.arg(program);
    let start = Instant::now();
    succeed(command);
    assert!(start.elapsed() < Duration::from_secs(4));
    let state = project.read("STATE.md");
    assert!(
        state.len() == 1000 && state.bytes().all(|b| b == state.as_bytes()[0]),
        "{state}"
    );
    assert_eq!(project.history("STATE.md").len(), 9);
}

#[test]
fn w3_a_child_of_the_holder_opens_its_file() {
    watchdog();
    let project = Project::with(&[("STATE.md", "one two\n")]);
    let mut parent = Puppet::new(&project);
    parent.does("f = open('STATE.md', 'r+')");
    parent.does("f.write('ONE')");
    parent.does("f.flush()");
    assert_eq!(
        parent.does("subprocess.check_output(['cat', 'STATE.md'])"),
        r"b'ONE two\n'"
    );
    assert_eq!(project.read("STATE.md"), "one two\n");
    assert_eq!(
        parent.does("subprocess.call(['sh', '-c', 'printf 2 | dd of=STATE.md conv=notrunc bs=1 seek=4 2>/dev/null'])"),
        "0"
    );
    assert_eq!(parent.does("os.pread(f.fileno(), 20, 0)"), r"b'ONE 2wo\n'");
    assert_eq!(parent.does("f.close()"), "None");
    assert_eq!(project.read("STATE.md"), "ONE 2wo\n");
}

#[test]
fn w3_a_parent_that_holds_the_file_runs_sed_on_it() {
    watchdog();
    let project = Project::with(&[("STATE.md", "old\n")]);
    let mut parent = Puppet::new(&project);
    let start = Instant::now();
    parent.does("f = open('STATE.md', 'r+')");
    assert_eq!(
        parent.does("subprocess.call(['sed', '-i', 's/old/new/', 'STATE.md'])"),
        "0"
    );
    assert_eq!(parent.does("f.close()"), "None");
    assert!(start.elapsed() < Duration::from_secs(4), "sed waited for its parent");
    assert_eq!(project.read("STATE.md"), "new\n");
    parent.does("f = open('STATE.md', 'w')");
    parent.does("(f.write('old and more'), f.flush())");
    assert_eq!(
        parent.does("subprocess.call(['sed', '-i', 's/old/new/', 'STATE.md'])"),
        "0"
    );
    assert_eq!(project.read("STATE.md"), "new and more");
    assert_eq!(parent.does("f.close()"), "None");
    assert_eq!(project.read("STATE.md"), "new and more");
}

#[test]
fn w3_the_holder_reads_renames_and_unlinks_its_own_open_file() {
    watchdog();
    let project = Project::with(&[("A.md", "a"), ("B.md", "b")]);
    let mut holder = Puppet::new(&project);
    let start = Instant::now();
    holder.does("f = open('A.md', 'w')");
    holder.does("(f.write('written'), f.flush())");
    assert_eq!(holder.does("get('A.md'), os.stat('A.md').st_size"), "('written', 7)");
    assert_eq!(holder.does("os.rename('A.md', 'C.md')"), "None");
    assert_eq!(holder.does("os.path.exists('A.md'), get('C.md')"), "(False, 'written')");
    assert_eq!(holder.does("(f.write(' and more'), f.close())"), "(9, None)");
    assert_eq!(project.read("C.md"), "written and more");
    assert!(!project.path("A.md").exists());
    holder.does("g = open('B.md', 'w')");
    holder.does("(g.write('gone'), g.flush())");
    assert_eq!(holder.does("os.unlink('B.md')"), "None");
    assert_eq!(holder.does("os.path.exists('B.md')"), "False");
    assert_eq!(holder.does("g.close()"), "None");
    assert!(!project.path("B.md").exists());
    assert!(start.elapsed() < Duration::from_secs(4), "the holder waited for itself");
}

#[test]
fn w4_the_open_that_would_close_a_cycle_fails_with_edeadlk() {
    watchdog();
    for processes in [2, 3] {
        let files = [
            ("concord.toml", "wait = '30s'\n"),
            ("0.md", ""),
            ("1.md", ""),
            ("2.md", ""),
        ];
        let project = Project::with(&files);
        let mut ring: Vec<Puppet> = (0..processes).map(|_| Puppet::new(&project)).collect();
        for (number, puppet) in ring.iter_mut().enumerate() {
            assert_eq!(puppet.does(&format!("f = open('{number}.md', 'w')")), "ok");
        }
        for (number, puppet) in ring.iter_mut().enumerate().take(processes - 1) {
            puppet.starts(&format!("put('{}.md', 'x')", number + 1));
            project.await_sessions(processes, number + 1);
        }
        let start = Instant::now();
        assert_eq!(
            ring[processes - 1]
                .does("put('0.md', 'x')")
                .replace("EDEADLOCK", "EDEADLK"),
            "EDEADLK"
        );
        assert!(start.elapsed() < Duration::from_secs(4));
        assert_eq!(ring[processes - 1].does("f.close()"), "None");
        for number in (0..processes - 1).rev() {
            assert_eq!(ring[number].says(), "None");
            assert_eq!(ring[number].does("f.close()"), "None");
        }
    }
}

/// Each waits for the other with one thread, and goes on with another.
#[test]
fn w4_threads_that_save_two_files_at_once_are_no_deadlock() {
    watchdog();
    let project = Project::with(&[("concord.toml", "wait = '60s'\n"), ("0.md", ""), ("1.md", "")]);
    let mut programs: Vec<Puppet> = (0..2).map(|_| Puppet::new(&project)).collect();
    for (number, program) in programs.iter_mut().enumerate() {
        program.does("from concurrent.futures import ThreadPoolExecutor");
        assert_eq!(program.does(&format!("f = open('{number}.md', 'w')")), "ok");
    }
    for (number, program) in programs.iter_mut().enumerate() {
        let other = 1 - number;
        let step = format!("save = ThreadPoolExecutor(1).submit(put, '{other}.md', '{number}')");
        assert_eq!(program.does(&step), "ok");
        project.await_sessions(2, number + 1);
    }
    for program in &mut programs {
        assert_eq!(program.does("f.close()"), "None");
    }
    for program in &mut programs {
        assert_eq!(program.does("save.result()"), "None");
    }
    assert_eq!((project.read("0.md"), project.read("1.md")), ("1".into(), "0".into()));
}

/// As an agent that writes one file while a command of its writes another.
#[test]
fn w4_a_program_with_threads_goes_on_while_its_child_waits() {
    watchdog();
    let project = Project::with(&[("concord.toml", "wait = '60s'\n"), ("0.md", ""), ("1.md", "")]);
    let (mut agent, mut other) = (Puppet::new(&project), Puppet::new(&project));
    agent.does("quit = threading.Event(); threading.Thread(target=quit.wait).start()");
    assert_eq!(agent.does("f = open('0.md', 'w')"), "ok");
    assert_eq!(other.does("f = open('1.md', 'w')"), "ok");
    agent.does("child = subprocess.Popen(['sh', '-c', 'exec 3<> 1.md && echo x >&3'])");
    project.await_sessions(2, 1);
    other.starts("put('0.md', 'x')");
    project.await_sessions(2, 2);
    assert_eq!(agent.does("f.close()"), "None");
    assert_eq!(other.says(), "None");
    assert_eq!(other.does("f.close()"), "None");
    assert_eq!(agent.does("child.wait()"), "0");
    agent.does("quit.set()");
}

#[test]
fn w1_lease_a_holder_that_others_wait_for_too_long_is_discarded() {
    watchdog();
    let project = Project::with(&[
        ("concord.toml", "wait = '30s'\nlease_max = '500ms'\n"),
        ("STATE.md", "v1"),
    ]);
    let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
    holder.does("fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)");
    holder.does("os.write(fd, b'slow')");
    holder.does("time.sleep(0.8)");
    assert_eq!(
        holder.does("os.write(fd, b'er')"),
        "2",
        "nobody waited, so it still has the file"
    );
    assert_eq!(other.does("put('STATE.md', 'other')"), "None");
    assert_eq!(holder.does("os.write(fd, b'more')"), "ESTALE");
    assert_eq!(holder.does("os.close(fd)"), "ESTALE");
    assert_eq!(project.read("STATE.md"), "other");
    let recovered = project.recovered();
    assert_eq!(recovered.len(), 1);
    let kept = recovered[0]["kept"].as_str().unwrap();
    assert_eq!(
        text(&std::fs::read(project.path(kept)).unwrap()),
        "slower",
        "{recovered:?}"
    );
}

/// Also what the kernel asks for by the node alone. By the path the holder gets at the current version like anybody.
#[test]
fn w1_f3_nothing_that_a_holder_does_after_it_was_cut_off_seems_to_succeed() {
    watchdog();
    let project = Project::with(&[
        ("concord.toml", "wait = '30s'\nlease_max = '500ms'\n"),
        ("STATE.md", "v1"),
    ]);
    for name in ["STATE.md", "NEW.md"] {
        let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
        holder.does(&format!("name = '{name}'; fd = os.open(name, os.O_RDWR | os.O_CREAT)"));
        holder.does("os.write(fd, b'slow')");
        assert_eq!(other.does(&format!("put('{name}', 'other')")), "None");
        let calls = [
            "os.fsync(fd)",
            "os.fdatasync(fd)",
            "os.fchmod(fd, 0o600)",
            "os.fchown(fd, 1, 1)",
            "os.utime(fd, (1, 1))",
            "os.setxattr(fd, 'user.x', b'1')",
            "os.removexattr(fd, 'user.x')",
            "os.write(fd, b'more')",
            "os.ftruncate(fd, 2)",
            "os.posix_fallocate(fd, 0, 100)",
            "os.copy_file_range(fd, fd, 1, 0, 10)",
            "os.fsync(fd)",
        ];
        for call in calls {
            assert_eq!(holder.does(call), "ESTALE", "{call} of {name}");
        }
        other.does(&format!("name = '{name}'"));
        let is = "oct(os.stat(name).st_mode)[-3:], os.stat(name).st_mtime > 1, os.listxattr(name)";
        assert_eq!(other.does(is), "('644', True, [])");
        holder.does("os.chmod(name, 0o640), os.utime(name, (1, 1)), os.setxattr(name, 'user.y', b'1')");
        assert_eq!(other.does(is), "('640', False, ['user.y'])");
        assert_eq!(holder.does("os.close(fd)"), "ESTALE");
        assert_eq!(project.read(name), "other");
    }
}

/// What is stored through a mapping the kernel has, until somebody asks for it.
#[test]
fn w1_what_a_holder_that_is_cut_off_has_stored_through_a_mapping_is_kept() {
    watchdog();
    let rules = ("concord.toml", "wait = '30s'\nlease_max = '500ms'\n");
    let project = Project::with(&[rules, ("STATE.md", "the version that was there\n")]);
    std::fs::write(project.path("BIG.md"), vec![b'x'; 3 << 20]).unwrap();
    for (name, size, number) in [("STATE.md", 27, 1), ("BIG.md", 3 << 20, 2), ("NEW.md", 9000, 3)] {
        let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
        holder.does(&format!("fd = os.open('{name}', os.O_RDWR | os.O_CREAT)"));
        // The first change of the others is that of a page.
        holder.does(&format!("os.fstat(fd).st_size or os.ftruncate(fd, {size})"));
        holder.does(&format!("page = mmap.mmap(fd, {size})"));
        holder.does("page[0:6] = b'stored'; page[-4:] = b'last'");
        assert_eq!(other.does(&format!("put('{name}', 'other')")), "None");
        let recovered = project.recovered();
        assert_eq!(recovered.len(), number, "{recovered:?}");
        let kept = recovered.iter().find(|kept| kept["path"] == name).unwrap();
        let kept = std::fs::read(project.path(kept["kept"].as_str().unwrap())).unwrap();
        assert_eq!(
            (kept.len(), &kept[..6], &kept[size - 4..]),
            (size, &b"stored"[..], &b"last"[..]),
            "{name}"
        );
        assert_eq!(holder.does("page[0:5] = b'again'"), "ok");
        assert_ne!(holder.does("page.flush()"), "None", "nobody has it any more");
        assert_eq!(project.read(name), "other");
    }
}

#[test]
fn w3_a_joined_session_is_published_when_its_last_handle_is_closed() {
    watchdog();
    let project = Project::with(&[("STATE.md", "....")]);
    let mut program = Puppet::new(&project);
    program.does("one, two = (os.open('STATE.md', os.O_RDWR) for _ in range(2))");
    assert_eq!(program.does("os.pwrite(one, b'1', 0), os.close(one)"), "(1, None)");
    // The kernel tells of the handle's end a moment after close(2) returned.
    program.does("time.sleep(0.3)");
    assert_eq!(project.read("STATE.md"), "....");
    assert_eq!(program.does("os.pwrite(two, b'2', 1), os.close(two)"), "(1, None)");
    assert_eq!(project.read("STATE.md"), "12..");
    assert_eq!(project.history("STATE.md").len(), 2);
}

/// No walk leads it to a node of its own: it is served on the one that it has.
#[test]
fn w2_an_open_by_path_descriptor_waits_too() {
    watchdog();
    for keeps in ["pass", "kept = open('STATE.md')"] {
        an_open_by_path_descriptor_waits(keeps);
    }
}

/// `keeps`: what the descriptor's process does besides, before anybody writes.
fn an_open_by_path_descriptor_waits(keeps: &str) {
    let project = Project::with(&[("concord.toml", "wait = '30s'\n"), ("STATE.md", "v1")]);
    let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
    other.does("name = '/proc/self/fd/%d' % os.open('STATE.md', os.O_PATH)");
    assert_eq!(other.does(keeps), "ok");
    holder.does("f = open('STATE.md', 'w')");
    holder.does("(f.write('the first'), f.flush())");
    assert_eq!(other.does("os.open(name, os.O_RDWR | os.O_NONBLOCK)"), "EAGAIN");
    other.starts("fd = os.open(name, os.O_RDWR)");
    project.await_sessions(1, 1);
    assert_eq!(holder.does("f.close()"), "None");
    assert_eq!(other.says(), "ok");
    assert_eq!(other.does("os.read(fd, 20), os.fstat(fd).st_size"), "(b'the first', 9)");
    assert_eq!(
        other.does("os.write(fd, b' and the second'), os.close(fd)"),
        "(15, None)"
    );
    assert_eq!(project.read("STATE.md"), "the first and the second");
    assert_eq!(project.history("STATE.md").len(), 3);
}
