//! Coordinated files that nobody writes: the kernel keeps their entries and asks nobody (O2), and whoever begins to write one is found out all the same (R1, R4, W6).

mod support;

use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::puppet::Puppet;
use support::{Project, Running, children, concord, eventually, kill, run, text, watchdog};

/// Longer than a file must have been left alone for its entry to be kept.
const QUIET: Duration = Duration::from_millis(1300);

/// A process that has looked at the quiet files, so that the kernel keeps their entries.
fn looker(project: &Project, names: &[&str]) -> Puppet {
    std::thread::sleep(QUIET);
    let mut looker = Puppet::new(project);
    for name in names {
        looker.does(&format!("os.stat('{name}')"));
    }
    looker
}

/// A stopped daemon goes on when this goes, and after a while in any case: who waits for it would never be done.
struct Stopped {
    pid: u32,
    since: Instant,
}

impl Stopped {
    const AT_MOST: Duration = Duration::from_secs(5);

    fn new(pid: u32) -> Stopped {
        kill(pid, Signal::STOP);
        std::thread::spawn(move || {
            std::thread::sleep(Self::AT_MOST);
            kill(pid, Signal::CONT);
        });
        Stopped {
            pid,
            since: Instant::now(),
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        kill(self.pid, Signal::CONT);
    }
}

/// The process that tells watchers of publishes, and so walks to what was published, is stopped until this goes.
struct Untold(Vec<u32>);

impl Untold {
    /// There was a publish.
    fn new(daemon: u32) -> Untold {
        eventually("a process tells of it", || !children(daemon).is_empty());
        let tellers = children(daemon);
        tellers.iter().for_each(|teller| kill(*teller, Signal::STOP));
        Untold(tellers)
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        self.0.iter().for_each(|teller| kill(*teller, Signal::CONT));
    }
}

#[test]
fn o2_the_attributes_of_a_file_that_nobody_writes_are_had_without_the_daemon() {
    watchdog();
    let mut project = Project::unmounted(&[("STATE.md", "first\n"), ("docs/a.md", "a\n")]);
    let daemon = project.mount();
    let mut looker = looker(&project, &["STATE.md"]);
    assert_eq!(looker.does("len(list(os.scandir('docs')))"), "1");
    looker.does("os.stat('docs/a.md')");
    let stopped = Stopped::new(daemon);
    assert_eq!(
        looker.does("os.stat('STATE.md').st_size, os.stat('docs/a.md').st_size"),
        "(6, 2)"
    );
    assert!(stopped.since.elapsed() < Stopped::AT_MOST, "the daemon was asked");
    drop(stopped);
}

#[test]
fn r4_the_first_writer_of_a_quiet_file_is_the_only_one_who_sees_what_it_stages() {
    watchdog();
    let project = Project::with(&[("STATE.md", "first\n"), ("d/STATE.md", "first\n")]);
    for (name, open) in [
        ("STATE.md", "open('STATE.md', 'w')"),
        ("d/STATE.md", "open('d/STATE.md', 'r+')"),
    ] {
        let mut other = looker(&project, &[name]);
        let mut holder = Puppet::new(&project);
        holder.does(&format!("f = {open}"));
        holder.does("f.write('a longer one\\n'), f.flush()");
        assert_eq!(holder.does(&format!("os.stat('{name}').st_size")), "13");
        // Nothing asks for what a path descriptor finds, so nothing can send it round.
        assert_eq!(
            other.does(&format!("os.fstat(os.open('{name}', os.O_PATH)).st_size")),
            "6"
        );
        assert_eq!(
            other.does(&format!("os.stat('{name}').st_size, get('{name}')")),
            "(6, 'first\\n')"
        );
        holder.does("f.close()");
        assert_eq!(
            other.does(&format!("os.stat('{name}').st_size, get('{name}')")),
            "(13, 'a longer one\\n')"
        );
        assert_eq!(project.history(name)[0]["how"], "close");
    }
    assert_eq!(project.status()["counts"]["busy"], 0);
}

#[test]
fn r4_the_first_writer_of_a_quiet_file_keeps_the_inode_number() {
    watchdog();
    let project = Project::with(&[("STATE.md", "first\n")]);
    for save in ["put('STATE.md', 'second')", "os.truncate('STATE.md', 3)"] {
        let mut looker = looker(&project, &["STATE.md"]);
        let ino = looker.does("os.stat('STATE.md').st_ino");
        assert_eq!(Puppet::new(&project).does(save), "None");
        assert_eq!(looker.does("os.stat('STATE.md').st_ino"), ino, "after {save}");
    }
    assert_eq!(project.read("STATE.md"), "sec");
}

#[test]
fn w1_of_many_who_open_a_quiet_file_at_once_each_has_it_to_himself() {
    watchdog();
    let project = Project::with(&[("STATE.md", "0")]);
    let count = "import os, sys, time\n\
        for n in range(4):\n \
        \x20time.sleep(max(0, float(sys.stdin.readline()) - time.time()))\n \
        \x20with open('STATE.md', 'r+') as f: n = int(f.read()); f.seek(0); f.write(str(n + 1))\n\
        \x20 print('done', flush=True)";
    let mut counters: Vec<Running> = (0..6).map(|_| Running::start(project.python(count))).collect();
    let mut reader = Puppet::new(&project);
    for round in 1..=4 {
        std::thread::sleep(QUIET);
        reader.does("os.stat('STATE.md')");
        let begin = std::time::SystemTime::now() + Duration::from_millis(50);
        let begin = begin.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        counters.iter_mut().for_each(|counter| counter.say(&begin.to_string()));
        reader.does("seen = [get('STATE.md') for _ in range(200)]");
        for counter in &mut counters {
            assert_eq!(counter.hear(), "done");
        }
        assert_eq!(reader.does("seen == sorted(seen, key=int)"), "True");
        assert_eq!(project.read("STATE.md"), (6 * round).to_string());
    }
}

#[test]
fn w8_a_quiet_file_that_is_renamed_is_a_file_like_any_other() {
    watchdog();
    let project = Project::with(&[("a.md", "a"), ("b.md", "b"), ("plain.txt", "plain")]);
    let mut other = looker(&project, &["a.md", "b.md", "plain.txt"]);
    let mut holder = Puppet::new(&project);
    for (step, name, content) in [
        ("os.rename('a.md', 'b.md')", "b.md", "a"),
        ("os.rename('plain.txt', 'b.md')", "b.md", "plain"),
        ("put('c.md', 'c'), exchange('b.md', 'c.md')", "b.md", "c"),
    ] {
        holder.does(step);
        assert_eq!(other.does(&format!("get('{name}')")), content, "after {step}");
        holder.does(&format!("f = open('{name}', 'w')"));
        holder.does("f.write('staged'), f.flush()");
        assert_eq!(
            other.does(&format!("os.stat('{name}').st_size, get('{name}')")),
            format!("({}, '{content}')", content.len()),
            "after {step}"
        );
        holder.does("f.close()");
        assert_eq!(other.does(&format!("get('{name}')")), "staged", "after {step}");
    }
}

/// Who has the node open keeps its version, and so the kernel's entry leads to that version when another is published that nobody has walked to.
#[test]
fn w6_what_is_published_without_a_walk_is_found_by_kept_entries() {
    watchdog();
    let mut project = Project::unmounted(&[("STATE.md", "first\n")]);
    let daemon = project.mount();
    assert!(run(project.sh("echo second, and longer > STATE.md")).status.success());
    let _untold = Untold::new(daemon);
    for (version, look, shown, kept) in [
        (
            1,
            "os.stat('STATE.md').st_size, os.stat('STATE.md').st_nlink",
            "(6, 1)",
            "(19, 'first\\n')",
        ),
        (
            2,
            // A mapping is of the version that was opened.
            "mmap.mmap(os.open('STATE.md', os.O_RDONLY), 0, prot=mmap.PROT_READ)[:].decode().strip()",
            "second, and longer",
            "(6, 'second, and longer\\n')",
        ),
    ] {
        // While somebody has the file open the kernel is given no entry to keep.
        let mut other = looker(&project, &["STATE.md"]);
        let mut keeper = Puppet::new(&project);
        keeper.does("f = open('STATE.md')");
        let mut restore = concord(&["restore"]);
        restore.arg(format!("{}@{version}", project.path("STATE.md").display()));
        let restored = run(restore);
        assert!(restored.status.success(), "{}", text(&restored.stderr));
        assert_eq!(other.does(look), shown);
        // By fstat(2) it knows how long the version is that it has opened.
        assert_eq!(keeper.does("os.fstat(f.fileno()).st_size, f.read()"), kept);
        assert_eq!(keeper.does("f.close()"), "None");
    }
    // Nobody has it open, and so nobody had the kernel ask for its attributes again.
    for (version, shown) in [(2, "19"), (1, "6")] {
        let mut other = looker(&project, &["STATE.md"]);
        let mut restore = concord(&["restore"]);
        restore.arg(format!("{}@{version}", project.path("STATE.md").display()));
        let restored = run(restore);
        assert!(restored.status.success(), "{}", text(&restored.stderr));
        assert_eq!(other.does("os.stat('STATE.md').st_size"), shown);
    }
}

/// A file with two versions, of which watchers are not told.
fn two_versions() -> (Project, Untold) {
    watchdog();
    let mut project = Project::unmounted(&[("STATE.md", "first\n")]);
    let daemon = project.mount();
    assert!(run(project.sh("echo second, and longer > STATE.md")).status.success());
    (project, Untold::new(daemon))
}

/// The other of both is restored, while one process has the version before open and the kernel keeps an entry that leads to that; another has walked there.
fn one_version_behind(project: &Project) -> (Puppet, Puppet) {
    let mut keeper = Puppet::new(project);
    keeper.does("f = open('STATE.md'); f.read()");
    let other = looker(project, &["STATE.md"]);
    let version = if project.read("STATE.md") == "first\n" { 2 } else { 1 };
    let mut restore = concord(&["restore"]);
    restore.arg(format!("{}@{version}", project.path("STATE.md").display()));
    assert!(run(restore).status.success());
    (keeper, other)
}

#[test]
fn w11_what_is_changed_by_path_is_the_current_versions_also_by_a_kept_entry() {
    let (project, _untold) = two_versions();
    for (change, shown) in [
        (
            "os.chmod('STATE.md', 0o640)",
            "oct(os.stat('STATE.md').st_mode & 0o777) == '0o640'",
        ),
        (
            "os.setxattr('STATE.md', 'user.a', b'x')",
            "os.listxattr('STATE.md') == ['user.a'] and os.getxattr('STATE.md', 'user.a') == b'x'",
        ),
        ("os.utime('STATE.md', (1, 2))", "os.stat('STATE.md').st_mtime == 2"),
        ("os.link('STATE.md', 'other.md')", "get('other.md') == get('STATE.md')"),
    ] {
        let (_keeper, mut other) = one_version_behind(&project);
        assert!(matches!(&*other.does(change), "None"), "{change}");
        // By the kernel's entry, by an open, and by the entry that the kernel has after that.
        for shown in [shown, "os.stat('STATE.md').st_size == len(get('STATE.md'))", shown] {
            assert_eq!(other.does(shown), "True", "{change}: {shown}");
        }
        assert_eq!(Puppet::new(&project).does(shown), "True", "{change}");
    }
}

/// Asked for by name, they need no look at the file's own attributes, which would lead to a walk.
#[test]
fn w11_attributes_that_are_asked_for_by_a_kept_entry_are_the_current_versions() {
    let (project, _untold) = two_versions();
    for (attribute, asked) in [
        ("user.a", "'user.a' in os.listxattr('STATE.md')"),
        ("user.b", "os.getxattr('STATE.md', 'user.b') == b'x'"),
    ] {
        let (mut keeper, mut other) = one_version_behind(&project);
        // By what it has open it means the file that is there now.
        let set = format!("os.setxattr(f.fileno(), '{attribute}', b'x')");
        assert_eq!(keeper.does(&set), "None");
        assert_eq!(other.does(asked), "True", "{asked}");
    }
}
