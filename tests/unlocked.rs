//! W8, R3: rename(2), unlink(2) and link(2) wait for a name without the directory's lock.

mod support;

use std::collections::HashMap;
use std::time::Duration;

use rustix::process::Signal;
use support::puppet::Puppet;
use support::{Project, run, succeed, wait, watchdog};

/// The puppets may wait as long as a slow machine needs.
const PATIENT: &str = "wait = '60s'\n";

fn project() -> Project {
    project_with(PATIENT)
}

fn project_with(rules: &str) -> Project {
    watchdog();
    Project::with(&[
        ("concord.toml", rules),
        ("STATE.md", "v1"),
        ("OTHER.md", "o1"),
        ("tmp", "saved"),
        ("sub/STATE.md", "v1"),
        ("sub/OTHER.md", "o1"),
        ("sub/tmp", "saved"),
        ("from/tmp", "saved"),
    ])
}

/// Each waits for `STATE.md` of the directory that it names, by another way to it; with the file that it leaves there.
const WAYS: [(&str, &str, Option<&str>); 15] = [
    (".", "os.rename('tmp', 'STATE.md')", Some("saved")),
    (".", "os.rename(here + '/tmp', here + '/STATE.md')", Some("saved")),
    (".", "os.rename('from/tmp', 'STATE.md')", Some("saved")),
    (
        ".",
        "os.rename('tmp', 'STATE.md', src_dir_fd=root, dst_dir_fd=root)",
        Some("saved"),
    ),
    (".", "os.unlink('STATE.md')", None),
    (".", "os.unlink(here + '/STATE.md')", None),
    (".", "exchange('OTHER.md', 'STATE.md')", Some("o1")),
    (".", "os.rename('STATE.md', 'plain')", None),
    ("sub", "os.rename('sub/tmp', 'sub/STATE.md')", Some("saved")),
    (
        "sub",
        "os.rename(here + '/sub/tmp', here + '/sub/STATE.md')",
        Some("saved"),
    ),
    ("sub", "os.rename('from/tmp', 'sub/STATE.md')", Some("saved")),
    (
        "sub",
        "os.rename('tmp', 'STATE.md', src_dir_fd=sub, dst_dir_fd=sub)",
        Some("saved"),
    ),
    (
        "sub",
        "(os.chdir('sub'), os.rename('tmp', 'STATE.md'), os.chdir('..'))",
        Some("saved"),
    ),
    ("sub", "os.unlink('sub/STATE.md')", None),
    ("sub", "os.unlink('STATE.md', dir_fd=sub)", None),
];

fn waiter(project: &Project) -> Puppet {
    let mut puppet = Puppet::new(project);
    for step in [
        "here = os.getcwd()",
        "root = os.open('.', os.O_PATH)",
        "sub = os.open('sub', os.O_PATH)",
    ] {
        assert_eq!(puppet.does(step), "ok");
    }
    puppet
}

#[test]
fn w8_a_holder_creates_looks_up_and_removes_names_beside_a_saver_that_waits_for_it() {
    for (dir, way, left) in WAYS {
        let project = project();
        let (mut holder, mut other) = (Puppet::new(&project), waiter(&project));
        assert_eq!(holder.does(&format!("f = open('{dir}/STATE.md', 'w')")), "ok");
        assert_eq!(holder.does("(f.write('session'), f.flush())"), "(7, None)");
        other.starts(way);
        project.await_sessions(1, 1);
        for (step, answer) in [
            ("put('{}/new', 'n')", "None"),
            ("put('{}/NEW.md', 'n')", "None"),
            ("os.path.exists('{}/missing')", "False"),
            ("os.mkdir('{}/d')", "None"),
            ("os.rename('{}/new', '{}/newer')", "None"),
            ("os.unlink('{}/NEW.md')", "None"),
            ("os.stat('{}/STATE.md').st_size", "7"),
        ] {
            assert_eq!(holder.does(&step.replace("{}", dir)), answer, "{way}: {step}");
        }
        project.await_sessions(1, 1);
        assert_eq!(holder.does("f.close()"), "None", "{way}");
        assert!(other.says().contains("None"), "{way}");
        let path = project.path(dir).join("STATE.md");
        assert_eq!(std::fs::read_to_string(path).ok().as_deref(), left, "{way}");
    }
}

/// `{ echo a; date > other.new; } > STATE.md`, beside a save by rename.
#[test]
fn w8_a_shell_that_creates_files_while_it_writes_one_is_saved_over_by_rename() {
    let project = project();
    let script = "i=0; while [ $i -lt 40 ]; do { echo a; date > $1.new; rm $1.new; echo b; } > STATE.md || exit 1; i=$((i+1)); done";
    let saver = "i=0; while [ $i -lt 40 ]; do echo saved > $1.tmp; mv $1.tmp STATE.md || exit 1; i=$((i+1)); done";
    let mut command = project.sh(
        "for n in 1 2; do sh -c \"$0\" - $n & all=\"$all $!\"; sh -c \"$1\" - $n & all=\"$all $!\"; done
for one in $all; do wait $one || exit; done",
    );
    command.args([script, saver]);
    succeed(command);
    assert!(["a\nb\n", "saved\n"].contains(&project.read("STATE.md").as_str()));
}

#[test]
fn r3_others_use_the_directory_of_a_saver_that_waits() {
    for (dir, way, _) in WAYS {
        let project = project();
        let (mut holder, mut other, mut third) = (Puppet::new(&project), waiter(&project), Puppet::new(&project));
        assert_eq!(holder.does(&format!("f = open('{dir}/STATE.md', 'w')")), "ok");
        other.starts(way);
        project.await_sessions(1, 1);
        for (step, answer) in [
            ("put('{}/new', 'n')", "None"),
            ("put('{}/NEW.md', 'n')", "None"),
            ("os.path.exists('{}/missing')", "False"),
            ("get('{}/STATE.md')", "v1"),
            ("os.rename('{}/new', '{}/newer')", "None"),
            ("os.rename('{}/newer', 'from/newer')", "None"),
            ("os.rename('{}/NEW.md', '{}/NEWER.md')", "None"),
            ("os.unlink('{}/NEWER.md')", "None"),
            ("sorted(os.listdir('{}')).count('STATE.md')", "1"),
            ("os.chmod('{}', 0o755)", "None"),
        ] {
            assert_eq!(third.does(&step.replace("{}", dir)), answer, "{way}: {step}");
        }
        project.await_sessions(1, 1);
        assert_eq!(holder.does("f.close()"), "None");
        assert!(other.says().contains("None"), "{way}");
    }
}

#[test]
fn w8_a_link_waits_without_the_directory() {
    let project = project();
    let (mut creator, mut other) = (Puppet::new(&project), Puppet::new(&project));
    assert_eq!(creator.does("f = open('NEW.md', 'w')"), "ok");
    other.starts("os.link('tmp', 'NEW.md')");
    project.await_sessions(1, 1);
    assert_eq!(
        creator.does("(put('more', 'm'), os.unlink('NEW.md'), f.close())"),
        "(None, None, None)"
    );
    assert_eq!(other.says(), "None");
    assert_eq!(project.read("NEW.md"), "saved");
    // Found there, it is not linked, and nobody waits for it.
    assert_eq!(other.does("os.link('tmp', 'NEW.md')"), "EEXIST");
    assert_eq!(
        creator.does("put('NEW.md', 'next', os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK)"),
        "None"
    );
}

#[test]
fn w8_no_signal_ends_the_wait_of_a_saver_unless_it_ends_the_saver() {
    for (dir, way, left) in WAYS {
        let project = project();
        let (mut holder, mut other) = (Puppet::new(&project), waiter(&project));
        assert_eq!(holder.does(&format!("f = open('{dir}/STATE.md', 'w')")), "ok");
        let counting = "met = []\ndef note(*_): met.append(1)\nsignal.signal(signal.SIGUSR1, note)";
        assert_eq!(other.does(counting), "ok");
        other.starts(way);
        project.await_sessions(1, 1);
        for signal in [Signal::USR1, Signal::STOP, Signal::CONT] {
            other.0.signal(signal);
        }
        // Pending signals are looked for every 40 ms.
        std::thread::sleep(Duration::from_millis(200));
        project.await_sessions(1, 1);
        assert_eq!(holder.does("(f.write('mine'), f.close())"), "(4, None)");
        assert!(other.says().contains("None"), "{way}");
        assert_eq!(other.does("met"), "[1]", "{way}");
        let path = project.path(dir).join("STATE.md");
        assert_eq!(std::fs::read_to_string(path).ok().as_deref(), left, "{way}");
    }
}

#[test]
fn w8_a_waiting_saver_ends_with_ebusy_and_leaves_nothing_behind() {
    for (dir, way, _) in WAYS {
        let project = project_with(&PATIENT.replace("60s", "200ms"));
        let (mut holder, mut other) = (Puppet::new(&project), waiter(&project));
        assert_eq!(holder.does(&format!("f = open('{dir}/STATE.md', 'w')")), "ok");
        assert_eq!(other.does(way), "EBUSY", "{way}");
        assert_eq!(holder.does("(f.write('mine'), f.close())"), "(4, None)");
        assert_eq!(project.read(&format!("{dir}/STATE.md")), "mine");
    }
}

#[test]
fn w4_a_rename_that_would_close_a_cycle_fails_with_edeadlk() {
    let project = project();
    let (mut one, mut two) = (Puppet::new(&project), Puppet::new(&project));
    assert_eq!(one.does("f = open('STATE.md', 'w')"), "ok");
    assert_eq!(two.does("f = open('OTHER.md', 'w')"), "ok");
    one.starts("os.rename('tmp', 'OTHER.md')");
    project.await_sessions(2, 1);
    for way in ["os.rename('sub/tmp', 'STATE.md')", "os.unlink('STATE.md')"] {
        assert_eq!(two.does(way).replace("EDEADLOCK", "EDEADLK"), "EDEADLK");
    }
    assert_eq!(two.does("f.close()"), "None");
    assert_eq!(one.says(), "None");
    assert_eq!(one.does("f.close()"), "None");
}

#[test]
fn w8_who_is_killed_while_it_waits_leaves_the_queue() {
    let signals = [Signal::KILL, Signal::TERM, Signal::QUIT].into_iter().cycle();
    for ((dir, way, _), signal) in WAYS.into_iter().zip(signals) {
        let project = project();
        let (mut holder, mut other, mut next) = (Puppet::new(&project), waiter(&project), Puppet::new(&project));
        assert_eq!(holder.does(&format!("f = open('{dir}/STATE.md', 'w')")), "ok");
        other.starts(way);
        project.await_sessions(1, 1);
        next.starts(&format!("put('{dir}/STATE.md', 'next')"));
        project.await_sessions(1, 2);
        other.0.signal(signal);
        wait(&mut other.0.0, Duration::from_secs(20));
        project.await_sessions(1, 1);
        assert_eq!(holder.does("f.close()"), "None");
        assert_eq!(next.says(), "None", "{way}");
        assert_eq!(project.read(&format!("{dir}/STATE.md")), "next");
    }
}

/// Killed at any moment, also between its turn and its rename, and beside others that find the file gone.
#[test]
fn w8_savers_that_are_killed_at_any_moment_leave_the_name_free() {
    let project = project();
    let mut holder = Puppet::new(&project);
    let saver = "import os
while True:
    t = f'tmp.{os.getpid()}'
    with open(t, 'w') as f: f.write('saved')
    os.replace(t, 'STATE.md')
    try: os.unlink('STATE.md')
    except FileNotFoundError: pass";
    for round in 0..25 {
        let savers: Vec<_> = (0..3).map(|_| support::Running::start(project.python(saver))).collect();
        std::thread::sleep(std::time::Duration::from_millis(60 + round * 7));
        drop(savers);
        assert_eq!(holder.does("put('STATE.md', 'free')"), "None", "round {round}");
    }
    assert_eq!(project.read("STATE.md"), "free");
}

#[test]
fn w8_a_place_whose_file_or_right_was_lost_meanwhile_is_given_back() {
    let changes = [
        ("os.rename('tmp', 'STATE.md')", "os.unlink('tmp')", "ENOENT"),
        (
            "os.rename('sub/tmp', 'sub/STATE.md')",
            "os.rename('sub', 'elsewhere')",
            "ENOENT",
        ),
        ("os.rename('OTHER.md', 'STATE.md')", "os.unlink('OTHER.md')", "ENOENT"),
        (
            "os.rename('tmp', 'STATE.md')",
            "(os.unlink('tmp'), os.mkdir('tmp'))",
            "ENOTDIR",
        ),
    ];
    for (way, change, errno) in changes {
        let project = project();
        let (mut holder, mut other, mut third) = (Puppet::new(&project), Puppet::new(&project), Puppet::new(&project));
        let dir = if way.contains("sub") { "sub/" } else { "" };
        assert_eq!(holder.does(&format!("f = open('{dir}STATE.md', 'w')")), "ok");
        assert_eq!(holder.does(&format!("g = open('{dir}OTHER.md', 'w')")), "ok");
        // The names are taken in the order of their paths: it waits for the first of them.
        assert_eq!(holder.does("g.close()"), "None");
        other.starts(way);
        project.await_sessions(1, 1);
        if change.contains("OTHER") {
            third.starts(change);
        } else {
            assert!(third.does(change).contains("None"), "{change}");
        }
        assert_eq!(holder.does("f.close()"), "None");
        let said = other.says();
        if change.contains("OTHER") {
            assert_eq!(said, "None", "it had the file before");
            assert_eq!(third.says(), "ENOENT");
        } else {
            assert_eq!(said, errno, "{way}: {change}");
        }
        let at = if way.contains("sub") { "elsewhere/" } else { "" };
        assert_eq!(
            third.does(&format!("put('{at}STATE.md', 'free')")),
            "None",
            "{way}: {change}"
        );
    }
}

#[test]
fn w1_w8_savers_and_writers_are_served_first_come_first_served() {
    let project = project();
    let mut holder = Puppet::new(&project);
    assert_eq!(holder.does("f = open('STATE.md', 'w')"), "ok");
    let mut waiting = Vec::new();
    for number in 0..6 {
        let mut puppet = Puppet::new(&project);
        if number % 2 == 0 {
            assert_eq!(puppet.does(&format!("put('t{number}', '{number}')")), "None");
            puppet.starts(&format!("os.rename('t{number}', 'STATE.md')"));
        } else {
            puppet.starts(&format!("put('STATE.md', '{number}')"));
        }
        project.await_sessions(1, number + 1);
        waiting.push(puppet);
    }
    assert_eq!(holder.does("f.close()"), "None");
    for puppet in &mut waiting {
        assert_eq!(puppet.says(), "None");
    }
    let versions = project.history("STATE.md");
    let newest = versions[0]["version"].as_u64().unwrap();
    let contents: Vec<String> = (newest - 5..=newest)
        .map(|v| support::text(&project.show("STATE.md", v)))
        .collect();
    assert_eq!(contents, ["0", "1", "2", "3", "4", "5"]);
}

/// Each rename finds its source and its target changed by others all the time.
#[test]
fn w8_savers_of_all_kinds_in_one_directory_hold_nobody_up() {
    let project = project();
    let saver = "import ctypes, os, sys
kind = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
for n in range(60):
    t = f'tmp.{os.getpid()}'
    with open(t, 'w') as f: f.write('whole ' * 200)
    if kind == 0: os.replace(t, 'STATE.md')
    elif kind == 1:
        with open('STATE.md', 'w') as f:
            f.write('whole ' * 100); f.flush()
            with open(t + '.new', 'w') as g: g.write('x')
            os.path.exists(f'missing.{os.getpid()}.{n}')
            os.unlink(t + '.new')
            f.write('whole ' * 100)
    elif kind == 2:
        with open(t + '.md', 'w') as f: f.write('whole ' * 200)
        os.rename(t + '.md', 'STATE.md')
    elif kind == 3:
        try: os.unlink('STATE.md')
        except FileNotFoundError: pass
        try: os.link(t, 'STATE.md')
        except FileExistsError: pass
    else:
        libc.renameat2(-100, t.encode(), -100, b'STATE.md', 2)
        try: os.rename('STATE.md', t + '.away.md')
        except FileNotFoundError: pass
        else: os.unlink(t + '.away.md')
    if os.path.exists(t): os.unlink(t)";
    let script = "for kind in 0 1 2 3 4 0 1; do python3 -c \"$0\" $kind & all=\"$all $!\"; done
for one in $all; do wait $one || exit; done";
    let mut command = project.sh(script);
    command.arg(saver);
    succeed(command);
    if let Ok(content) = std::fs::read_to_string(project.path("STATE.md")) {
        assert_eq!(content, "whole ".repeat(200));
    }
    let status = project.status();
    assert_eq!(status["sessions"].as_array().unwrap().len(), 0, "{status}");
    assert_eq!(
        run(project.sh("put() { echo x > STATE.md; }; put")).status.code(),
        Some(0)
    );
}

/// A rename has the one name, and waits for the other.
#[test]
fn w9_who_would_create_a_name_that_a_saver_has_waits_for_it() {
    for (open, content) in [
        ("put('NEW.md', ' more')", " more"),
        (
            "put('NEW.md', ' more', os.O_RDWR | os.O_CREAT | os.O_APPEND)",
            "moved more",
        ),
        (
            "put('NEW.md', ' more', os.O_WRONLY | os.O_CREAT | os.O_APPEND)",
            "moved more",
        ),
        ("os.read(os.open('NEW.md', os.O_RDONLY | os.O_CREAT), 9)", "moved"),
    ] {
        let project = project();
        let (mut holder, mut saver, mut creator) =
            (Puppet::new(&project), Puppet::new(&project), Puppet::new(&project));
        assert_eq!(holder.does("f = open('tmp.md', 'w')"), "ok");
        saver.starts("os.rename('tmp.md', 'NEW.md')");
        // The file is its holder's until it is closed: there is nothing to rename yet.
        assert_eq!(saver.says(), "ENOENT");
        assert_eq!(holder.does("(f.write('moved'), f.close())"), "(5, None)");
        assert_eq!(holder.does("f = open('tmp.md', 'r+')"), "ok");
        saver.starts("os.rename('tmp.md', 'NEW.md')");
        project.await_sessions(1, 1);
        creator.starts(open);
        // It may or may not be there before the holder lets go.
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(holder.does("put('other', 'n'), f.close()"), "(None, None)");
        assert_eq!(saver.says(), "None");
        let said = creator.says();
        assert!(["None", "b'moved'"].contains(&said.as_str()), "{open}: {said}");
        assert_eq!(project.read("NEW.md"), content, "{open}");
    }
}

/// By a descriptor the kernel names the node that was found before the writer took it.
#[test]
fn w8_a_link_never_shows_what_somebody_else_is_staging() {
    for name in ["copy", "COPY.md"] {
        let project = project();
        let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
        assert_eq!(other.does("fd = os.open('STATE.md', os.O_PATH)"), "ok");
        assert_eq!(holder.does("f = open('STATE.md', 'w')"), "ok");
        assert_eq!(holder.does("(f.write('staged'), f.flush())"), "(6, None)");
        assert_eq!(
            other.does(&format!(
                "raw('linkat', -100, b'/proc/self/fd/%d' % fd, -100, b'{name}', 0x400)"
            )),
            "None"
        );
        assert_eq!(other.does(&format!("get('{name}')")), "v1", "{name}");
        assert_eq!(holder.does("(f.write(' whole'), f.close())"), "(6, None)");
        assert_eq!(
            other.does(&format!("get('STATE.md'), get('{name}')")),
            "('staged whole', 'staged whole')"
        );
    }
}

#[test]
fn w8_a_file_that_is_saved_in_place_is_linked_whenever_it_is_asked_for() {
    for name in ["copy", "COPY.md"] {
        let project = project();
        let saver = "for n in range(10**9):
    with open('STATE.md', 'w') as f: f.write('whole ' * 100)";
        let _savers: Vec<_> = (0..2).map(|_| support::Running::start(project.python(saver))).collect();
        let linker = format!(
            "import os
for n in range(150):
    os.link('STATE.md', '{name}')
    with open('{name}') as f: text = f.read()
    assert text in ('v1', 'whole ' * 100) or '{name}' == 'copy', text
    os.unlink('{name}')"
        );
        succeed(project.python(&linker));
    }
}

#[test]
fn w8_two_that_rename_two_files_over_each_other_come_one_after_the_other() {
    for (one, other) in [("OTHER.md", "STATE.md"), ("OTHER.md", "sub/STATE.md")] {
        for call in ["os.rename", "exchange"] {
            let project = project();
            let [mut a, mut b, mut has_one, mut has_other] = std::array::from_fn(|_| Puppet::new(&project));
            has_one.does(&format!("f = open('{one}', 'r+')"));
            has_other.does(&format!("f = open('{other}', 'r+')"));
            // Both must wait, and neither may get the one name and keep it from who has the other.
            a.starts(&format!("{call}('{one}', '{other}')"));
            b.starts(&format!("{call}('{other}', '{one}')"));
            project.await_sessions(2, 2);
            has_one.does("f.close()");
            has_other.does("f.close()");
            assert_eq!(
                (a.says(), b.says()),
                ("None".into(), "None".into()),
                "{call} {one} {other}"
            );
            let left = [one, other].map(|name| std::fs::read_to_string(project.path(name)).ok());
            match call {
                "exchange" => assert_eq!(left, [Some("o1".into()), Some("v1".into())]),
                _ => assert_eq!(left.iter().flatten().count(), 1, "{left:?}"),
            }
        }
    }
}

/// Each saves a length of its own, by which the history tells what came after what.
#[test]
fn w6_a_thread_finds_what_it_has_saved_or_what_another_saved_after_it() {
    watchdog();
    let saver = "import itertools, os, threading
lengths = itertools.count(1000)
def save():
    for _ in range(400):
        length = next(lengths)
        fd = os.open('a.md', os.O_WRONLY | os.O_TRUNC)
        os.write(fd, b'x' * length)
        os.close(fd)
        fd = os.open('a.md', os.O_RDONLY)
        os.write(1, f'{length} {len(os.read(fd, 1 << 20))}\\n'.encode())
        os.close(fd)
threads = [threading.Thread(target=save) for _ in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]";
    let project = Project::with(&[("a.md", "x"), ("concord.toml", "keep = 10000\ndurability = \"fast\"\n")]);
    let told = succeed(project.python(saver));
    let versions: HashMap<u64, u64> = project
        .history("a.md")
        .iter()
        .map(|version| (version["bytes"].as_u64().unwrap(), version["version"].as_u64().unwrap()))
        .collect();
    for line in told.lines() {
        let lengths: Vec<u64> = line.split(' ').map(|length| length.parse().unwrap()).collect();
        let saved = &versions[&lengths[0]];
        // What another thread stages, its process sees (R4).
        let found = versions.get(&lengths[1]);
        assert!(found.is_none_or(|found| found >= saved), "{line}");
    }
    assert_eq!(told.lines().count(), 1200);
}
