//! Sessions of real processes on a real mount: one writer at a time, published at the last close.

mod support;

use support::puppet::Puppet;
use support::{Project, Running, run, succeed, watchdog};

#[test]
fn w5_a_shell_group_is_one_version() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    succeed(project.sh("{ /bin/echo a; /bin/echo b; sleep 0.05; echo c; } > STATE.md"));
    assert_eq!(project.read("STATE.md"), "a\nb\nc\n");
    assert_eq!(project.history("STATE.md").len(), 2);
}

#[test]
fn w1_the_second_writer_waits_for_the_first() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let writer = "import sys\nf=open('STATE.md','w'); print('open',flush=True); sys.stdin.readline(); f.write(sys.argv[1] if len(sys.argv)>1 else 'x'); f.close(); print('closed',flush=True)";
    let mut first = Running::start(project.python(writer));
    assert_eq!(first.hear(), "open");
    let mut second = Running::start(project.python(writer));
    project.await_sessions(1, 1);
    assert_eq!(project.read("STATE.md"), "v1\n", "R3: a reader sees the version before");
    first.say("");
    assert_eq!(first.hear(), "closed");
    assert_eq!(second.hear(), "open");
    second.say("");
    assert_eq!(second.hear(), "closed");
    assert_eq!(project.history("STATE.md").len(), 3);
    let out = run(project.sh("true"));
    assert!(out.status.success());
}

#[test]
fn w9_a_new_file_is_listed_after_its_close_also_in_a_directory_that_was_listed_before() {
    watchdog();
    let project = Project::with(&[("d/old.txt", "")]);
    let listed = || {
        let names = std::fs::read_dir(project.path("d")).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    // Not by this process: what another test forks may have its descriptors for a moment longer.
    let mut creator = Puppet::new(&project);
    assert_eq!(creator.does("f = open('d/new.md', 'w')"), "ok");
    assert_eq!(creator.does("f.write('new'), f.flush()"), "(3, None)");
    assert_eq!(listed(), ["old.txt"]);
    assert_eq!(listed(), ["old.txt"]);
    assert_eq!(creator.does("f.close()"), "None");
    assert_eq!(listed(), ["new.md", "old.txt"]);
}

#[test]
fn w1_a_truncating_open_for_reading_is_a_session() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
    assert_eq!(holder.does("fd = os.open('STATE.md', os.O_RDONLY | os.O_TRUNC)"), "ok");
    assert_eq!(project.read("STATE.md"), "v1\n");
    assert_eq!(other.does("os.open('STATE.md', os.O_WRONLY | os.O_NONBLOCK)"), "EAGAIN");
    assert_eq!(holder.does("os.close(fd)"), "None");
    assert_eq!(project.read("STATE.md"), "");
    assert_eq!(project.history("STATE.md").len(), 2);
}

#[test]
fn w1_an_appender_that_waited_writes_after_what_it_waited_for() {
    watchdog();
    let project = Project::with(&[("STATE.md", "one\n")]);
    let (mut first, mut second) = (Puppet::new(&project), Puppet::new(&project));
    first.does("fd = os.open('STATE.md', os.O_RDWR | os.O_APPEND)");
    second.starts("put('STATE.md', 'three\\n', os.O_RDWR | os.O_APPEND)");
    project.await_sessions(1, 1);
    assert_eq!(first.does("os.write(fd, b'two\\n'), os.close(fd)"), "(4, None)");
    assert_eq!(second.says(), "None");
    assert_eq!(project.read("STATE.md"), "one\ntwo\nthree\n");
    assert_eq!(project.history("STATE.md").len(), 3);
}

#[test]
fn r4_the_times_that_a_program_sets_before_it_closes_stay() {
    watchdog();
    let project = Project::with(&[("old.md", "old"), ("from.txt", "new")]);
    for name in ["old.md", "new.md"] {
        let copied = succeed(project.sh(&format!(
            "touch -d @1000000000 from.txt; cp -p from.txt {name}; stat -c '%X %Y' {name}"
        )));
        assert_eq!(copied, "1000000000 1000000000\n", "{name}");
    }
}
