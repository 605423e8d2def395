//! W12: the ways in which programs use flock(2): by a child (flock(1), `( flock 9; … ) 9> f`), from several threads, and around saves of all kinds.

mod support;

use support::puppet::Puppet;
use support::{Project, Running, eventually, succeed, watchdog};

/// Adds one under the lock, time and again. Whoever has the lock must be alone, whatever it opened the file for and however it lets go: each in a process of its own,
/// so that the end of a process can be one of the ways.
const GUARDED: &str = "import fcntl, os, signal, sys
seed, turns, save, modes = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
def add(turn):
    lock = open('lock.md', modes[(seed + turn) % len(modes)])
    fcntl.flock(lock, fcntl.LOCK_EX)
    with open('count.md') as f: count = int(f.read()) + 1
    if save == 'rename':
        with open(f'count.md.{os.getpid()}', 'w') as f: f.write(str(count))
        os.rename(f.name, 'count.md')
    else:
        with open('count.md', 'w') as f: f.write(str(count))
    return lock
for turn in range(turns):
    way = (seed + turn // len(modes)) % 5
    if way < 2:
        child = os.fork()
        if child == 0:
            lock = add(turn)
            if way == 0: os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
    elif way == 2:
        lock = add(turn)
        fcntl.flock(lock, fcntl.LOCK_UN)
        lock.close()
    elif way == 3:
        lock = add(turn)
        last = os.dup(lock.fileno())
        lock.close()
        os.close(last)
    else:
        add(turn).close()";

#[test]
fn w12_a_counter_loses_nothing_under_a_lock_however_its_file_is_opened_and_let_go_of() {
    watchdog();
    let turns = 15;
    for (modes, save, exists) in [
        (&["w"][..], "rename", true),
        (&["w"], "in place", false),
        (&["w", "r", "a", "r+"], "rename", true),
        (&["w", "a"], "in place", false),
    ] {
        let project = Project::with(&[("concord.toml", "wait = '60s'\n"), ("count.md", "0")]);
        if exists {
            std::fs::write(project.path("lock.md"), "x").unwrap();
        }
        let add = |seed: usize| {
            let mut command = project.python(GUARDED);
            command.args([&seed.to_string(), &turns.to_string(), save]).args(modes);
            Running::start(command)
        };
        let adding: Vec<Running> = (0..6).map(add).collect();
        for adds in adding {
            assert!(adds.finish().success(), "{modes:?} {save}");
        }
        assert_eq!(project.read("count.md"), (6 * turns).to_string(), "{modes:?} {save}");
    }
}

#[test]
fn w12_threads_that_share_a_session_take_turns() {
    watchdog();
    let project = Project::with(&[("concord.toml", "wait = '30s'\n"), ("n.json", "0\n")]);
    let mut a = Puppet::new(&project);
    let program = "def add():
    for _ in range(10):
        with open('n.json', 'r+') as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            n = int(f.read()); f.seek(0); f.truncate(); f.write(str(n + 1)); f.flush()
            fcntl.flock(f, fcntl.LOCK_UN)
threads = [threading.Thread(target=add) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]";
    assert_eq!(a.does(program), "ok");
    assert_eq!(project.read("n.json"), "40");
}

#[test]
fn w12_flock_of_util_linux_and_git_work() {
    watchdog();
    let project = Project::with(&[("STATE.md", "0\n"), ("n.txt", "0\n")]);
    let script = "for i in 1 2 3 4 5 6 7 8; do
  (for k in 1 2 3 4 5; do
    flock n.txt sh -c 'n=$(cat n.txt); echo $((n + 1)) > n.txt'
    flock STATE.md sh -c 'n=$(cat STATE.md); echo $((n + 1)) > STATE.md'
  done) &
done; wait; cat n.txt STATE.md";
    assert_eq!(succeed(project.sh(script)), "40\n40\n");
    let git = "git init -q . && git config user.email a@b && git config user.name n && git add -A && git commit -qm one && git gc -q && git status --porcelain && git fsck 2>/dev/null && echo fine";
    assert_eq!(succeed(project.sh(git)), "fine\n");
    let cargo = "unset CARGO_TARGET_DIR; cargo init -q --vcs none --name seed tool && (cargo build -q --offline --manifest-path tool/Cargo.toml & cargo build -q --offline --manifest-path tool/Cargo.toml; wait) && tool/target/debug/seed";
    assert_eq!(succeed(project.sh(cargo)), "Hello, world!\n");
    eventually("nothing is open", || {
        project.status()["sessions"].as_array().unwrap().is_empty()
    });
}

#[test]
fn w12_who_locks_by_a_child_goes_on_with_its_own_session() {
    watchdog();
    // The child is gone when the lock is had, and with it the name under which the session could have begun again.
    for script in [
        "( flock 9; echo new > STATE.md ) 9<>STATE.md",
        "exec 9<>STATE.md; flock 9; echo new > STATE.md; flock -u 9",
        "{ flock -s 9; flock -x 9; echo new > STATE.md; } 9<>STATE.md",
        "( flock 9; sed -i s/.*/new/ STATE.md ) 9<>STATE.md",
        "( flock 9; echo new > t.txt; mv t.txt STATE.md ) 9<>STATE.md",
        "( flock 9; echo new >&9 ) 9<>STATE.md",
        "( flock 9; echo new > STATE.md ) 9<STATE.md",
        "flock STATE.md -c 'echo new > STATE.md'",
    ] {
        let project = Project::with(&[("concord.toml", "wait = '30s'\n"), ("STATE.md", "v1")]);
        let mut holder = Puppet::new(&project);
        assert_eq!(holder.does("f = open('STATE.md'); fcntl.flock(f, fcntl.LOCK_EX)"), "ok");
        let child = Running::start(project.sh(script));
        eventually("it waits for the lock", || {
            let status = project.status();
            !status["locks"][0]["waiting"].as_array().unwrap().is_empty()
        });
        // It is told of no session while it waits, and holds up nobody.
        assert_eq!(holder.does("put('STATE.md', 'v2\\n')"), "None", "{script}");
        assert_eq!(holder.does("fcntl.flock(f, fcntl.LOCK_UN)"), "None");
        assert!(child.finish().success(), "{script}");
        assert_eq!(project.read("STATE.md"), "new\n", "{script}");
        eventually("nothing is open", || {
            project.status()["sessions"].as_array().unwrap().is_empty()
        });
        let counts = &project.status()["counts"];
        assert_eq!((&counts["busy"], &counts["stale"]), (&0.into(), &0.into()), "{script}");
    }
}

/// Adds one in each of several threads: each has the file open, locks it, and saves by a second handle.
const THREADS: &str = "import fcntl, os, sys, threading
def add():
    for _ in range(5):
        with open('n.json', 'r+') as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            text = str(int(open('n.json').read()) + 1)
            if sys.argv[1] == 'write':
                with open('n.json', 'w') as g: g.write(text)
            else:
                with open(f'n.json.{os.getpid()}.{threading.get_ident()}', 'w') as g: g.write(text)
                os.replace(g.name, 'n.json')
            fcntl.flock(f, fcntl.LOCK_UN)
threads = [threading.Thread(target=add) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]";

#[test]
fn w12_threads_of_several_processes_that_save_under_the_lock_count_exactly() {
    watchdog();
    for (save, rounds) in [("write", 3), ("replace", 1)] {
        for _ in 0..rounds {
            let project = Project::with(&[("concord.toml", "wait = '60s'\n"), ("n.json", "0")]);
            let adding: Vec<Running> = (0..3)
                .map(|_| {
                    let mut command = project.python(THREADS);
                    command.arg(save);
                    Running::start(command)
                })
                .collect();
            for adds in adding {
                assert!(adds.finish().success(), "{save}");
            }
            assert_eq!(project.read("n.json"), "60", "{save}");
            assert_eq!(project.status()["counts"]["stale"], 0, "{}", project.status());
        }
    }
}

#[test]
fn w12_who_waits_beside_a_handle_of_its_own_gives_way_when_another_has_the_lock() {
    watchdog();
    let project = Project::with(&[("concord.toml", "wait = '8s'\n"), ("STATE.md", "v1")]);
    let (mut a, mut b) = (Puppet::new(&project), Puppet::new(&project));
    a.does("f, g = (open('STATE.md', 'r+') for _ in range(2)); fcntl.flock(f, fcntl.LOCK_EX)");
    b.does("r = open('STATE.md')");
    let waits = |who: &mut Puppet, handle: &str, waiting: usize| {
        who.does(&format!(
            "import threading; t = threading.Thread(target=fcntl.flock, args=({handle}, fcntl.LOCK_EX)); t.start()"
        ));
        eventually("it waits for the lock", || {
            project.status()["locks"][0]["waiting"].as_array().unwrap().len() == waiting
        });
    };
    waits(&mut b, "r", 1);
    // The session is that of the handle that has the lock, too.
    waits(&mut a, "g", 2);
    a.does("fcntl.flock(f, fcntl.LOCK_UN)");
    assert_eq!(b.does("t.join(); put('STATE.md', 'by b')"), "ok");
    assert_eq!(b.does("get('STATE.md')"), "by b");
    b.does("r.close()");
    assert_eq!(a.does("t.join(); g.seek(0); x = g.read()"), "ok");
    assert_eq!(a.does("x"), "by b");
}

#[test]
fn w12_what_is_saved_under_a_lock_outlives_the_handle_that_only_emptied_the_file_to_lock_it() {
    watchdog();
    for (script, left) in [
        ("( flock 9; echo new > STATE.md ) 9> STATE.md", "new\n"),
        ("exec 9>STATE.md; flock 9; echo new > STATE.md; flock -u 9", "new\n"),
        (
            "exec 9>STATE.md; flock 9; echo new > STATE.md; flock -u 9; flock 9; cat STATE.md > copy.txt",
            "new\n",
        ),
        ("( flock 9; echo new > t.txt; mv t.txt STATE.md ) 9> STATE.md", "new\n"),
        (
            "( flock 9; echo one > STATE.md; echo two >> STATE.md ) 9> STATE.md",
            "one\ntwo\n",
        ),
        ("( flock 9; echo new > n.md ) 9> n.md; mv n.md STATE.md", "new\n"),
        (
            "ln STATE.md other.txt; ( flock 9; echo new > STATE.md ) 9> STATE.md",
            "new\n",
        ),
        // Nobody in between: the file is emptied.
        (": > STATE.md", ""),
        ("( flock 9 ) 9> STATE.md", ""),
        ("( flock 9; ln STATE.md other.txt ) 9> STATE.md", ""),
        ("( flock 9; echo line >> STATE.md ) 9> STATE.md", "line\n"),
        // Who has written has something to say, and says it last.
        (
            "( flock 9; echo first >&9; echo new > STATE.md ) 9> STATE.md",
            "first\n",
        ),
    ] {
        let project = Project::with(&[("STATE.md", "v1, long ago\n")]);
        succeed(project.sh(script));
        assert_eq!(project.read("STATE.md"), left, "{script}");
        eventually("nothing is open", || {
            project.status()["sessions"].as_array().unwrap().is_empty()
        });
        assert_eq!(project.recovered().len(), 0, "{script}");
    }
}

#[test]
fn w12_who_has_the_file_open_only_to_lock_it_holds_up_nobody_when_it_has_let_go() {
    watchdog();
    let project = Project::with(&[("concord.toml", "wait = '20s'\n"), ("STATE.md", "v1")]);
    let (mut a, mut b) = (Puppet::new(&project), Puppet::new(&project));
    a.does("f = os.open('STATE.md', os.O_RDWR)");
    for lets_go in [
        "fcntl.flock(f, fcntl.LOCK_UN)",
        "subprocess.run(['flock', '-u', str(f)], pass_fds=[f]).returncode",
    ] {
        assert_eq!(a.does("fcntl.flock(f, fcntl.LOCK_EX)"), "None");
        b.starts("g = os.open('STATE.md', os.O_RDWR)");
        assert!(["None", "0"].contains(&a.does(lets_go).as_str()));
        assert_eq!(b.says(), "ok", "{lets_go}");
        assert_eq!(b.does("os.pwrite(g, b'by b', 0)"), "4");
        // It waits in flock(2) until it can go on with what is current.
        a.starts("fcntl.flock(f, fcntl.LOCK_EX)");
        assert_eq!(b.does("os.close(g)"), "None");
        assert_eq!(a.says(), "None");
        assert_eq!(a.does("fcntl.flock(f, fcntl.LOCK_UN)"), "None");
    }
    // What it writes without a lock is a change of what is current, when it is its turn.
    b.does("g = os.open('STATE.md', os.O_RDWR)");
    a.starts("os.pwrite(f, b'!', 0)");
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(b.does("os.write(g, b'... and a'), os.close(g)"), "(9, None)");
    assert_eq!(a.says(), "1");
    assert_eq!(a.does("os.close(f)"), "None");
    assert_eq!(project.read("STATE.md"), "!.. and a");
    let counts = &project.status()["counts"];
    assert_eq!((&counts["busy"], &counts["stale"]), (&0.into(), &0.into()), "{counts}");
}

#[test]
fn w12_a_shell_that_opens_its_lock_file_again_each_turn_lets_others_come_in_between() {
    watchdog();
    // As in the man page of flock(1), but for the loop: the descriptor is replaced each turn, and open all the time.
    let script = "exec 9<>lock.json && flock 9 && printf '{\"count\": %d}' $(($(sed 's/[^0-9]//g' count.json) + 1)) > count.json && flock -u 9 && echo done && read turn";
    let project = Project::with(&[("concord.toml", "wait = '20s'\n"), ("count.json", "{\"count\": 0}")]);
    let mut shells: Vec<Running> = (0..3)
        .map(|_| Running::start(project.sh(&format!("while {script}; do :; done"))))
        .collect();
    for _ in 0..3 {
        for shell in &mut shells {
            assert_eq!(shell.hear(), "done");
            shell.say("again");
        }
    }
    shells.iter_mut().for_each(|shell| assert_eq!(shell.hear(), "done"));
    drop(shells);
    assert_eq!(project.read("count.json"), "{\"count\": 12}");
    assert_eq!(project.status()["counts"]["busy"], 0, "{}", project.status());
}

#[test]
fn w12_what_was_read_under_the_lock_and_is_written_after_it_counts_exactly() {
    watchdog();
    for reads in [
        "n = int(f.read())",
        "n = int(os.pread(f.fileno(), 9, 0))",
        "n = int(mmap.mmap(f.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)[:])",
        "n = int(open('n.json').read())",
        // Who measures means to write there.
        "n = f.seek(0, 2)",
    ] {
        let project = Project::with(&[("concord.toml", "wait = '60s'\n"), ("n.json", "7")]);
        let (mut a, mut b) = (Puppet::new(&project), Puppet::new(&project));
        // What print() and write() have made is still in the program when it lets go.
        let locks = format!("f = open('n.json', 'r+'); fcntl.flock(f, fcntl.LOCK_EX); {reads}");
        assert_eq!(a.does(&locks), "ok", "{reads}");
        b.starts(&locks);
        std::thread::sleep(std::time::Duration::from_millis(100));
        let writes = "f.seek(0); f.write(str(n + 1)); fcntl.flock(f, fcntl.LOCK_UN)";
        let appends = "f.write(str(n)); fcntl.flock(f, fcntl.LOCK_UN)";
        let (writes, left) = match reads.contains("seek") {
            true => (appends, "712"),
            false => (writes, "9"),
        };
        assert_eq!(a.does(writes), "ok", "{reads}");
        assert_eq!(a.does("f.close()"), "None");
        assert_eq!(b.says(), "ok", "{reads}");
        assert_eq!(b.does(writes), "ok");
        assert_eq!(b.does("f.close()"), "None");
        assert_eq!(project.read("n.json"), left, "{reads}");
    }
}

#[test]
fn w12_who_has_a_lock_and_waits_for_who_waits_for_another_of_its_locks_is_told_so() {
    watchdog();
    let project = Project::with(&[("concord.toml", "wait = '2s'\n"), ("a.md", ""), ("b.md", "")]);
    let (mut first, mut second) = (Puppet::new(&project), Puppet::new(&project));
    let opens = "a, b = os.open('a.md', os.O_RDWR), os.open('b.md', os.O_RDWR)";
    let waiting = |kind: &str, count: usize| {
        eventually("it waits", || {
            let status = project.status();
            let lines = status[kind].as_array().unwrap().iter();
            lines
                .map(|line| line["waiting"].as_array().unwrap().len())
                .sum::<usize>()
                == count
        });
    };
    assert_eq!(first.does(opens), "ok");
    for file in ["a", "b"] {
        assert_eq!(
            first.does(&format!(
                "fcntl.flock({file}, fcntl.LOCK_EX), fcntl.flock({file}, fcntl.LOCK_UN)"
            )),
            "(None, None)"
        );
    }
    assert_eq!(second.does(opens), "ok");
    first.starts("fcntl.flock(a, fcntl.LOCK_EX)");
    waiting("sessions", 1);
    second.starts("fcntl.flock(a, fcntl.LOCK_EX)");
    assert_eq!(first.says(), "None", "who waits for the lock gives way");
    waiting("locks", 1);
    // Nobody has this lock. But the second has the file open for writing, and waits for the other one.
    assert_eq!(first.does("fcntl.flock(b, fcntl.LOCK_EX)"), "EBUSY");
    assert_eq!(first.does("fcntl.flock(a, fcntl.LOCK_UN)"), "None");
    assert_eq!(second.says(), "None");
    assert_eq!(second.does("fcntl.flock(b, fcntl.LOCK_EX)"), "None", "it is free");
    assert_eq!(second.does("os.close(b), os.close(a)"), "(None, None)");
    assert_eq!(first.does("fcntl.flock(b, fcntl.LOCK_EX)"), "None");
}
