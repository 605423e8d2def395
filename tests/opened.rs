//! W3 and W12: a session in which nothing was written, while its lineage saves the same file beside it.

mod support;

use support::puppet::Puppet;
use support::twin::Twin;
use support::{Project, Running, eventually, succeed, watchdog};

/// How a shell has the data file open for writing, with and without a lock on it.
const OPEN_BESIDE: [&str; 4] = [
    "( {} ) 9<> STATE.md",
    "( flock 9; {} ) 9<> STATE.md",
    "( flock 9; {} ) 9>> STATE.md",
    "exec 9<> STATE.md; flock 9; {}; exec 9>&-",
];

/// The same, emptied when it is opened.
const EMPTIED_BESIDE: [&str; 3] = [
    "( {} ) 9> STATE.md",
    "( flock 9; {} ) 9> STATE.md",
    "exec 9> STATE.md; flock 9; {}; exec 9>&-",
];

#[test]
fn w3_a_lineage_meets_what_it_has_saved_beside_a_session_in_which_nothing_was_written() {
    for has_file in [true, false] {
        for around in OPEN_BESIDE.iter().chain(&EMPTIED_BESIDE) {
            let files: &[(&str, &str)] = if has_file { &[("STATE.md", "before\n")] } else { &[] };
            let twin = Twin::with(files);
            for inside in [
                "echo new > STATE.md; cat STATE.md; stat -c %s STATE.md",
                "echo longer than it was > STATE.md; cat STATE.md; echo x > STATE.md; cat STATE.md STATE.md; wc -c < STATE.md",
                "echo new > STATE.md; n=$(cat STATE.md); echo $n.$n > STATE.md; n=$(cat STATE.md); echo $n.$n > STATE.md; cat STATE.md",
                "echo new > STATE.md; bash -c 'cat STATE.md; echo newer > STATE.md; cat STATE.md'; cat STATE.md",
                "echo new > STATE.md; cat STATE.md; echo A 1<> STATE.md; cat STATE.md",
                "echo new > STATE.md; sed -i s/new/old/ STATE.md; cat STATE.md",
                "echo new > STATE.md; truncate -s 2 STATE.md; cat STATE.md",
                "echo new > STATE.md; chmod 600 STATE.md; stat -c '%a %s' STATE.md; cat STATE.md",
                "echo new > STATE.md; python3 -c \"f = open('STATE.md', 'a+'); f.write('more'); f.close()\"; cat STATE.md",
            ] {
                let script = around.replace("{}", inside);
                twin.same(&format!("{script}; cat STATE.md"));
                twin.nothing_is_left(&script);
            }
        }
    }
}

#[test]
fn w3_a_descriptor_by_which_nothing_was_written_goes_on_from_what_its_lineage_saved() {
    for has_file in [true, false] {
        for around in OPEN_BESIDE.iter().filter(|around| around.contains("<>")) {
            let files: &[(&str, &str)] = if has_file { &[("STATE.md", "before\n")] } else { &[] };
            let twin = Twin::with(files);
            for inside in [
                "echo saved > STATE.md; cat <&9",
                "echo saved > STATE.md; echo S >&9; cat STATE.md",
                "echo saved > STATE.md; read -r line <&9; echo $line more >&9; cat STATE.md",
                "echo saved > STATE.md; stat -L -c %s /proc/self/fd/9",
                "echo saved > STATE.md; python3 -c 'import os; os.fchmod(9, 0o600)'; cat STATE.md; stat -c %a STATE.md",
                "echo 1 > STATE.md; echo 22 > STATE.md; cat <&9; echo 333 >&9; cat STATE.md",
            ] {
                let script = around.replace("{}", inside);
                twin.same(&format!("{script}; cat STATE.md"));
                twin.nothing_is_left(&script);
            }
        }
    }
}

#[test]
fn w3_who_has_emptied_a_file_to_write_it_writes_a_whole_one_whatever_its_lineage_saved() {
    watchdog();
    let project = Project::with(&[("STATE.md", "before\n")]);
    let mut saver = Puppet::new(&project);
    // As threads of one program, or a program and its child, that save at the same time.
    for first_saves in [
        "put('STATE.md', 'much longer')",
        "subprocess.run(['sh', '-c', 'printf %s much.longer > STATE.md'])",
    ] {
        saver.does("f = open('STATE.md', 'w'); g = open('STATE.md', 'w')");
        saver.does(first_saves);
        assert!(saver.does("get('STATE.md')").ends_with("longer"), "{first_saves}");
        saver.does("f.write('one'); f.close()");
        assert_eq!(saver.does("get('STATE.md')"), "one");
        saver.does("g.write('2'); g.close()");
        assert_eq!(saver.does("get('STATE.md')"), "2");
    }
    assert_eq!(project.history("STATE.md").len(), 7);
    // Each of those that were open meanwhile replaced what it had not seen.
    assert_eq!(project.status()["counts"]["stale"], 4, "{}", project.status());
}

#[test]
fn w3_who_reads_or_joins_what_it_has_emptied_goes_on_from_what_its_lineage_saved() {
    watchdog();
    for looks in [
        "f.read()",
        "os.lseek(f.fileno(), 0, os.SEEK_DATA)",
        "h = open('STATE.md', 'r+')",
    ] {
        let project = Project::with(&[("STATE.md", "before\n")]);
        let mut a = Puppet::new(&project);
        a.does("f = open('STATE.md', 'wb+', buffering=0)");
        a.does("subprocess.run(['sh', '-c', 'printf saved > STATE.md'])");
        a.does(looks);
        assert_eq!(a.does("os.pwrite(f.fileno(), b'S', 0)"), "1");
        a.does("f.close(); h = None");
        assert_eq!(project.read("STATE.md"), "Saved", "{looks}");
        assert_eq!(project.status()["counts"]["stale"], 0, "{looks}");
    }
}

#[test]
fn w1_a_session_that_started_anew_still_keeps_others_out() {
    watchdog();
    let project = Project::with(&[("concord.toml", "wait = '100ms'\n"), ("STATE.md", "before\n")]);
    let (mut a, mut b) = (Puppet::new(&project), Puppet::new(&project));
    for mode in ["r+", "w"] {
        a.does(&format!("f = open('STATE.md', '{mode}')"));
        a.does("subprocess.run(['sh', '-c', 'printf saved > STATE.md'])");
        assert_eq!(b.does("put('STATE.md', 'other')"), "EBUSY", "{mode}");
        assert_eq!(b.does("get('STATE.md')"), "saved", "{mode}");
        a.does("f.close()");
        assert_eq!(b.does("put('STATE.md', 'other')"), "None", "{mode}");
        assert_eq!(project.read("STATE.md"), "other", "{mode}");
    }
}

#[test]
fn r1_a_relatives_reader_keeps_its_version_when_the_session_that_it_read_starts_anew() {
    watchdog();
    let project = Project::with(&[("STATE.md", "before\n")]);
    let mut a = Puppet::new(&project);
    a.does("f = open('STATE.md', 'r+'); r = os.open('STATE.md', os.O_RDONLY)");
    assert_eq!(a.does("os.read(r, 3)"), "b'bef'");
    a.does("subprocess.run(['sh', '-c', 'printf %s saved.and.longer > STATE.md'])");
    assert_eq!(a.does("get('STATE.md')"), "saved.and.longer");
    assert_eq!(a.does("os.read(r, 100)"), "b'ore\\n'");
    // What is mapped stays what it was, and is published as it is: the page that was changed, and the one that was not.
    a.does("f.close(); put('STATE.md', 'a' * 4096 + 'b' * 4096)");
    a.does("f = open('STATE.md', 'r+b'); m = mmap.mmap(f.fileno(), 0); x = m[0] + m[4096]");
    a.does("subprocess.run(['python3', '-c', \"open('STATE.md', 'w').write('A' * 4096 + 'B' * 4096)\"])");
    a.does("m[4096] = ord('S'); m.close(); f.close()");
    assert_eq!(
        project.read("STATE.md"),
        format!("{}S{}", "a".repeat(4096), "b".repeat(4095))
    );
}

#[test]
fn w5_a_node_stays_its_handles_when_one_of_two_sessions_is_given_up_and_the_other_ends() {
    watchdog();
    for last_of_the_other in ["g.close()", "g.write(b'other'); g.close()"] {
        let project = Project::with(&[("STATE.md", "before")]);
        let (mut a, mut b) = (Puppet::new(&project), Puppet::new(&project));
        a.does("f, g = (open('STATE.md', 'r+b', buffering=0) for _ in range(2))");
        a.does("fcntl.flock(f, fcntl.LOCK_EX); f.write(b'v2'); fcntl.flock(f, fcntl.LOCK_UN)");
        // Each has a session of its own on the node from now on.
        a.does("fcntl.flock(f, fcntl.LOCK_SH); fcntl.flock(g, fcntl.LOCK_SH)");
        assert_eq!(a.does("fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)"), "EAGAIN");
        a.does(last_of_the_other);
        eventually("the handle is gone", || {
            project.status()["locks"].as_array().unwrap().is_empty()
        });
        // Whoever had the node for itself now would share it with a descriptor that is open for writing: no close would look like the last.
        assert_eq!(a.does("put('STATE.md', 'saved')"), "None");
        assert_eq!(b.does("get('STATE.md')"), "saved", "{last_of_the_other}");
        assert_eq!(a.does("f.seek(0); f.write(b'S'); f.close()"), "ok");
        assert_eq!(b.does("get('STATE.md')"), "Saved", "{last_of_the_other}");
    }
}

#[test]
fn r4_a_node_that_several_sessions_had_is_what_the_last_of_them_has_published() {
    watchdog();
    let project = Project::with(&[("STATE.md", "before")]);
    let (mut a, mut b) = (Puppet::new(&project), Puppet::new(&project));
    a.does("f, g = (open('STATE.md', 'r+b', buffering=0) for _ in range(2))");
    a.does("fcntl.flock(f, fcntl.LOCK_EX); f.write(b'v2'); fcntl.flock(f, fcntl.LOCK_UN)");
    // Each begins a session of its own; that which began last is published first.
    a.does("f.write(b' and longer'); g.write(b'g')");
    for (last, size, content) in [("g", 6, "g2fore"), ("f", 13, "v2 and longer")] {
        a.does(&format!(
            "fcntl.flock({last}, fcntl.LOCK_SH); fcntl.flock({last}, fcntl.LOCK_UN)"
        ));
        assert_eq!(b.does("os.stat('STATE.md').st_size"), size.to_string(), "{last}");
        assert_eq!(b.does("get('STATE.md')"), content, "{last}");
        assert_eq!(
            a.does("os.stat('STATE.md').st_size, os.fstat(f.fileno()).st_size"),
            "(13, 13)",
            "{last}"
        );
        assert_eq!(
            a.does("os.path.sameopenfile(f.fileno(), os.open('STATE.md', os.O_RDONLY))"),
            "True",
            "{last}"
        );
    }
}

#[test]
fn r4_who_has_the_node_of_several_sessions_open_is_shown_its_version() {
    watchdog();
    let project = Project::with(&[("STATE.md", "before")]);
    let (mut a, mut b) = (Puppet::new(&project), Puppet::new(&project));
    a.does("f, g = (open('STATE.md', 'r+b', buffering=0) for _ in range(2))");
    a.does("fcntl.flock(f, fcntl.LOCK_EX); f.write(b'v2'); fcntl.flock(f, fcntl.LOCK_UN)");
    b.does("r = open('STATE.md')");
    a.does("f.write(b' and longer'); g.write(b'g, or longest')");
    assert_eq!(b.does("os.fstat(r.fileno()).st_size, r.read()"), "(6, 'v2fore')");
}

#[test]
fn w12_counts_that_are_saved_twice_under_one_lock_on_the_data_file_are_exact() {
    watchdog();
    let twice = "for save in 1 2; do n=$(cat STATE.md); echo $((n+1)) > STATE.md; done";
    for turn in [
        "( flock 9; {} ) 9<> STATE.md",
        "exec 9<> STATE.md; flock 9; {}; exec 9>&-",
        "exec 9<> STATE.md; {}; exec 9>&-",
        "exec 9<> STATE.md; flock 9; {}; flock -u 9; flock 9; flock -u 9; exec 9>&-",
    ] {
        let project = Project::with(&[("concord.toml", "wait = '120s'\n"), ("STATE.md", "0\n")]);
        let turn = turn.replace("{}", twice);
        let script = format!("set -e; for turn in $(seq 10); do {turn}; done");
        let counting: Vec<Running> = (0..4).map(|_| Running::start(project.sh(&script))).collect();
        for counts in counting {
            assert!(counts.finish().success(), "{turn}");
        }
        assert_eq!(project.read("STATE.md"), "80\n", "{turn}");
        eventually("nothing is open", || {
            project.status()["sessions"].as_array().unwrap().is_empty()
        });
        let counts = &project.status()["counts"];
        for count in ["busy", "stale", "late", "failed", "discarded"] {
            assert_eq!(counts[count], 0, "{turn}: {counts}");
        }
    }
    // A file that each turn empties holds what was saved last.
    let project = Project::with(&[("concord.toml", "wait = '120s'\n")]);
    let script = "set -e; for turn in $(seq 10); do ( flock 9; echo $$ > STATE.md; test $(cat STATE.md) = $$; echo x$$ > STATE.md; test $(cat STATE.md) = x$$ ) 9> STATE.md; done";
    let saving: Vec<Running> = (0..4).map(|_| Running::start(project.sh(script))).collect();
    for saves in saving {
        assert!(saves.finish().success());
    }
    assert!(succeed(project.sh("cat STATE.md")).starts_with('x'));
}
