//! W11: files with several names, and files whose names cannot be exchanged, by real processes on a real mount.

mod support;

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;
use support::linked::{inode, linked};
use support::puppet::Puppet;
use support::twin::Twin;
use support::{Project, Running, concord, run, succeed, text, watchdog};

/// Nothing is left to be written in place.
fn nothing_is_pending(project: &Project) {
    for entry in std::fs::read_dir(project.path(".concord/images")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert_eq!(name.split('.').count(), 2, "{name}");
    }
}

#[test]
fn w11_each_publish_shows_under_all_names_whichever_way_it_was_written() {
    let mut project = linked("v1\n", &["c.md", "d/far.md", "ordinary.txt"]);
    let names = ["a.md", "b.md", "c.md", "d/far.md", "ordinary.txt"];
    let ways = [
        ("echo two > a.md", "two\n"),
        ("printf three > b.md", "three"),
        ("python3 -c \"open('c.md', 'w').write('four')\"", "four"),
        (
            "python3 -c \"f = open('d/far.md', 'r+'); f.write('FI'); f.close()\"",
            "FIur",
        ),
        (
            "python3 -c \"f = open('a.md', 'a+'); f.write(' six\\n'); f.close()\"",
            "FIur six\n",
        ),
        ("echo seven >> b.md", "FIur six\nseven\n"),
        ("truncate -s 4 c.md", "FIur"),
        ("cp d/other.md b.md", "other"),
        ("tee a.md < /dev/null", ""),
        (
            "dd if=/dev/zero of=b.md bs=1000 count=3 conv=notrunc 2>&1",
            &"\0".repeat(3000),
        ),
        ("sh -c '{ echo x; echo y; } > d/far.md'", "x\ny\n"),
    ];
    for (script, content) in ways {
        succeed(project.sh(script));
        for name in names {
            assert_eq!(project.read(name), content, "{script}: {name}");
            assert_eq!(inode(&project, name).1, 5, "{script}: {name}");
        }
        let coordinated = names.map(|name| inode(&project, name).0);
        assert!(
            coordinated[1..4].iter().all(|ino| *ino == coordinated[0]),
            "{script}: {coordinated:?}"
        );
        nothing_is_pending(&project);
    }
    project.unmount();
    let found = names.map(|name| (inode(&project, name), project.read(name)));
    assert!(found.iter().all(|other| *other == found[0]), "{found:?}");
    assert_eq!(found[0].1, "x\ny\n");
}

#[test]
fn w11_a_version_keeps_mode_times_and_attributes_under_all_names() {
    let project = linked("v1\n", &[]);
    succeed(project.sh("chmod 640 a.md; echo two > b.md; touch -d '2020-01-02 03:04:05 UTC' a.md"));
    let stats = ["a.md", "b.md"].map(|name| std::fs::metadata(project.path(name)).unwrap());
    assert_eq!(stats[0].mtime(), 1_577_934_245);
    for stat in &stats {
        assert_eq!((stat.mode() & 0o7777, stat.nlink(), stat.len()), (0o640, 2, 4));
        assert_eq!((stat.mtime(), stat.ino()), (stats[0].mtime(), stats[0].ino()));
    }
    succeed(project.sh("echo three > a.md; chmod 600 b.md; chown 1:2 a.md"));
    let stat = std::fs::metadata(project.path("b.md")).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o600, 1, 2));
    assert_eq!(project.read("b.md"), "three\n");
    let program = "import os
f = open('a.md', 'w'); f.write('four'); f.flush(); os.utime(f.fileno(), (5, 6)); f.close()
print(os.stat('b.md').st_mtime, open('b.md').read(), oct(os.stat('a.md').st_mode & 0o7777))";
    assert_eq!(succeed(project.python(program)), "6.0 four 0o600\n");
}

#[test]
fn w11_readers_by_any_name_keep_their_version_and_so_do_mappings() {
    let project = linked(&"first ".repeat(2000), &[]);
    let (mut reader, mut writer) = (Puppet::new(&project), Puppet::new(&project));
    for (handle, name) in [("f", "a.md"), ("g", "b.md")] {
        reader.does(&format!("{handle} = open('{name}')"));
        assert_eq!(reader.does(&format!("{handle}.read(6)")), "first ");
    }
    let map = "m = mmap.mmap(f.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)";
    assert_eq!(reader.does(map), "ok");
    for round in 0..6 {
        let name = ["a.md", "b.md"][round % 2];
        assert_eq!(writer.does(&format!("put('{name}', 'round {round} ' * 1500)")), "None");
        assert_eq!(
            reader.does("f.seek(0) or set(f.read().split())"),
            "{'first'}",
            "round {round}"
        );
        assert_eq!(
            reader.does("g.seek(0) or set(g.read().split())"),
            "{'first'}",
            "round {round}"
        );
        assert_eq!(
            reader.does("set(m[:].split()), len(m)"),
            "({b'first'}, 12000)",
            "round {round}"
        );
        assert_eq!(reader.does("os.fstat(f.fileno()).st_size"), "12000");
        assert_eq!(
            reader.does("open('a.md').read()[:8], open('b.md').read()[:8]"),
            format!("('round {round} ', 'round {round} ')")
        );
    }
}

#[test]
fn w11_writers_by_different_names_wait_for_each_other() {
    let mut project = linked("v1\n", &[]);
    let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
    holder.does("f = open('a.md', 'r+')");
    holder.does("(f.seek(0, 2), f.write('holder\\n'), f.flush())");
    let at_once = other.does("os.open('b.md', os.O_WRONLY | os.O_NONBLOCK)");
    assert!(["EAGAIN", "EWOULDBLOCK"].contains(&&*at_once), "{at_once}");
    other.starts("(lambda f: (f.seek(0, 2), f.write('other\\n'), f.close()))(open('b.md', 'r+'))");
    project.await_sessions(1, 1);
    assert_eq!(project.read("b.md"), "v1\n");
    assert_eq!(holder.does("f.close()"), "None");
    other.says();
    assert_eq!(project.read("a.md"), "v1\nholder\nother\n");
    assert_eq!(project.read("b.md"), "v1\nholder\nother\n");
    // The history is under one of the names; who comes by the other one first after a mount is in the same queue.
    drop((holder, other));
    project.unmount();
    project.mount();
    let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
    for (first, second) in [("b.md", "a.md"), ("a.md", "b.md")] {
        holder.does(&format!("f = open('{first}', 'r+')"));
        holder.does("(f.seek(0, 2), f.write('again\\n'), f.flush())");
        let at_once = other.does(&format!("os.open('{second}', os.O_WRONLY | os.O_NONBLOCK)"));
        assert!(
            ["EAGAIN", "EWOULDBLOCK"].contains(&&*at_once),
            "{second} beside {first}: {at_once}"
        );
        assert_eq!(holder.does("f.close()"), "None");
    }
}

const TORN: &str = r#"
import os, sys, time
until = time.time() + float(sys.argv[1])
rounds = 0
while time.time() < until or rounds < 5:
    for name in ('a.md', 'b.md'):
        with open(name) as f: size, text = os.fstat(f.fileno()).st_size, f.read()
        words = set(text.split())
        assert len(words) == 1 and len(text) % 7 == 0, (name, len(text), sorted(words)[:3])
        assert size % 7 == 0 and size >= 7000, size
    rounds += 1
print('whole', rounds)
"#;

#[test]
fn w11_readers_beside_writers_in_place_never_see_a_part_of_a_version() {
    let project = linked(&"000000 ".repeat(1000), &[]);
    let start = |program: &str, argument: &str| {
        let mut python = project.python(program);
        python.arg(argument);
        Running::start(python)
    };
    let mut readers: Vec<Running> = (0..3).map(|_| start(TORN, "3")).collect();
    let write = "import sys
for n in range(40):
    name = ('a.md', 'b.md')[n % 2]
    with open(name, 'w') as f: f.write(f'{sys.argv[1]}{n:05} ' * (1000 + n * 997 % 9000))";
    let writers: Vec<Running> = (1..3).map(|n| start(write, &n.to_string())).collect();
    for writer in writers {
        assert!(writer.finish().success());
    }
    for reader in &mut readers {
        assert!(reader.hear().starts_with("whole"));
    }
    assert_eq!(project.read("a.md"), project.read("b.md"));
}

const LOAD: &str = r#"
import sys
me, noted, n = sys.argv[1], open(sys.argv[2], 'a', buffering=1), int(sys.argv[3])
print('ready', flush=True)
try:
    while True:
        n += 1
        name = ('a.md', 'b.md')[n % 2]
        with open(name, 'w') as f: f.write(f'{n:09}\n' * (20000 + n % 7 * 3000))
        noted.write(f'{n}\n')
except OSError: pass
"#;

#[test]
fn w11_killed_while_it_writes_in_place_all_names_hold_one_whole_version_and_none_that_was_acknowledged_is_lost() {
    let mut project = linked(&"000000000\n".repeat(20000), &[]);
    project.unmount();
    let mut last = 0;
    for round in 0..5 {
        project.mount();
        let notes: PathBuf = project.outside().join(format!("notes-{round}"));
        let mut python = project.python(LOAD);
        python.args(["w"]).arg(&notes).arg(last.to_string());
        let mut writer = Running::start(python);
        assert_eq!(writer.hear(), "ready");
        std::thread::sleep(Duration::from_millis(400 + 70 * round));
        project.crash_and_recover();
        drop(writer);
        let acknowledged = std::fs::read_to_string(&notes).unwrap();
        let acknowledged: u64 = acknowledged.lines().last().map_or(last, |n| n.parse().unwrap());
        let content = project.read("a.md");
        let first = content.lines().next().unwrap();
        assert!(
            content == format!("{first}\n").repeat(content.lines().count()),
            "round {round}: torn"
        );
        assert!(content == project.read("b.md"), "round {round}");
        let found: u64 = first.parse().unwrap();
        assert_eq!(
            content.len(),
            10 * (20000 + found as usize % 7 * if found == 0 { 0 } else { 3000 }),
            "round {round}"
        );
        assert!(
            found >= acknowledged,
            "round {round}: {acknowledged} was acknowledged, {found} is there"
        );
        last = found;
        assert_eq!(inode(&project, "a.md"), inode(&project, "b.md"));
        nothing_is_pending(&project);
    }
    assert!(last > 5, "the load did something: {last}");
}

#[test]
fn w11_the_history_of_a_file_with_two_names_is_one_and_is_restored_under_both() {
    let mut project = linked("v1\n", &[]);
    succeed(project.sh("echo two > a.md; echo three > b.md; echo four > a.md"));
    let versions = |project: &Project, name: &str| -> Vec<(u64, String)> {
        let history = project.history(name);
        let entry = |v: &serde_json::Value| (v["version"].as_u64().unwrap(), v["how"].as_str().unwrap().to_owned());
        history.iter().map(entry).collect()
    };
    for _ in 0..2 {
        let of_a = versions(&project, "a.md");
        assert_eq!(of_a.iter().map(|v| v.0).collect::<Vec<_>>(), [4, 3, 2, 1], "{of_a:?}");
        assert_eq!(versions(&project, "b.md"), of_a);
        for (version, content) in [(1, "v1\n"), (2, "two\n"), (3, "three\n"), (4, "four\n")] {
            assert_eq!(text(&project.show("a.md", version)), content);
            assert_eq!(text(&project.show("b.md", version)), content);
        }
        project.unmount();
        project.mount();
        // Which name is seen first after a start does not matter.
        assert_eq!(project.read("b.md"), "four\n");
    }
    let mut restore = concord(&["restore"]);
    restore.arg(format!("{}@2", project.path("b.md").display()));
    let restored = run(restore);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    assert_eq!(
        (project.read("a.md"), project.read("b.md")),
        ("two\n".into(), "two\n".into())
    );
    assert_eq!(inode(&project, "a.md").1, 2);
    let of_a = versions(&project, "a.md");
    assert_eq!(of_a[0], (5, "restore".into()), "{of_a:?}");
}

#[test]
fn w11_an_ordinary_name_shows_each_version_and_what_is_written_by_it_is_there() {
    let project = linked("v1\n", &["c.txt"]);
    let mut other = Puppet::new(&project);
    assert_eq!(other.does("get('c.txt')"), "v1");
    other.does("g = open('c.txt')");
    for round in 0..3 {
        succeed(project.sh(&format!("echo 'round {round}' > a.md")));
        assert_eq!(project.read("c.txt"), format!("round {round}\n"));
        succeed(project.sh(&format!("echo 'by c {round}, which is longer' > c.txt")));
        for name in ["a.md", "b.md", "c.txt"] {
            assert_eq!(project.read(name), format!("by c {round}, which is longer\n"), "{name}");
        }
    }
    succeed(project.sh("echo more >> c.txt; echo last >> b.md"));
    for name in ["a.md", "b.md", "c.txt"] {
        assert_eq!(project.read(name), "by c 2, which is longer\nmore\nlast\n", "{name}");
    }
}

#[test]
fn h1_an_exchange_keeps_the_version_of_a_file_with_other_names() {
    for (from, to) in [("x.tmp", "a.md"), ("a.md", "x.tmp")] {
        for other in ["c.txt", "c.md"] {
            watchdog();
            let project = Project::with(&[("a.md", "v1")]);
            let mut puppet = Puppet::new(&project);
            succeed(project.sh(&format!(
                "printf v2 > a.md; ln a.md {other}; printf v3 > a.md; printf new > x.tmp"
            )));
            assert_eq!(puppet.does(&format!("exchange('{from}', '{to}')")), "None");
            let case = format!("{from} {to} {other}");
            for name in ["x.tmp", other] {
                assert_eq!(
                    (project.read(name), inode(&project, name).1),
                    ("v3".into(), 2),
                    "{case}: {name}"
                );
            }
            succeed(project.sh("printf next > a.md; printf 'by another' > x.tmp"));
            for (name, content) in [("a.md", "next"), ("x.tmp", "by another"), (other, "by another")] {
                assert_eq!(project.read(name), content, "{case}: {name}");
            }
            let history = project.history("a.md");
            let how: Vec<_> = history.iter().map(|version| version["how"].as_str().unwrap()).collect();
            assert_eq!(how, ["close", "exchange", "close", "close", "found"], "{case}");
            let versions = (1..=5).map(|number| text(&project.show("a.md", number)));
            assert_eq!(
                versions.collect::<Vec<_>>(),
                ["v1", "v2", "v3", "new", "next"],
                "{case}"
            );
            nothing_is_pending(&project);
        }
    }
}

#[test]
fn w8_truncate_by_a_coordinated_name_beside_an_ordinary_one_waits_and_is_a_version() {
    let project = linked("v1\n", &["c.txt"]);
    let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
    // All names lead to one node: there is no image yet, and O_TRUNC makes none.
    for name in ["a.md", "b.md", "c.txt"] {
        assert_eq!(project.read(name), "v1\n");
    }
    holder.does("f = open('b.md', 'w')");
    holder.does("(f.write('Content'), f.flush())");
    other.starts("os.truncate('a.md', 4)");
    project.await_sessions(1, 1);
    holder.does("f.close()");
    assert_eq!(other.says(), "None");
    for name in ["a.md", "b.md", "c.txt"] {
        assert_eq!(project.read(name), "Cont", "{name}");
    }
    assert_eq!(project.history("a.md")[0]["how"], "truncate");
    assert_eq!(other.does("os.truncate('c.txt', 2)"), "None");
    assert_eq!(project.read("b.md"), "Co");
}

#[test]
fn w11_lines_appended_by_all_names_are_whole_and_all_there() {
    let project = linked("", &[]);
    let appender = "import sys
for n in range(60):
    with open(sys.argv[2 + n % 2], 'a') as f: f.write(f'{sys.argv[1]} {n} ' + 'x' * 300 + '\\n')";
    let running: Vec<Running> = ["p", "q", "r"]
        .iter()
        .map(|me| {
            let mut python = project.python(appender);
            python.args([me, "a.md", "b.md"]);
            Running::start(python)
        })
        .collect();
    let mut saver = Puppet::new(&project);
    for round in 0..5 {
        let step = format!(
            "(lambda f: (f.seek(0, 2), f.write('saver {round} ' + 'x' * 300 + '\\n'), f.close()))(open('b.md', 'r+'))"
        );
        let said = saver.does(&step);
        assert!(said.starts_with('('), "{said}");
    }
    for appender in running {
        assert!(appender.finish().success());
    }
    let content = project.read("a.md");
    assert_eq!(content, project.read("b.md"));
    let mut lines: Vec<&str> = content.lines().collect();
    assert!(
        lines
            .iter()
            .all(|line| line.split(' ').count() == 3 && line.ends_with(&"x".repeat(300))),
        "a torn line"
    );
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), 3 * 60 + 5);
}

#[test]
fn w11_a_file_that_is_a_mount_point_is_written_in_place() {
    watchdog();
    let ran = in_own_mount_namespace(|| {
        let mut project = Project::unmounted(&[("a.md", "below\n"), ("mounted.md", "v1\n")]);
        let source = project.path("mounted.md");
        let bound = Bound::new(&project, "mounted.md", "a.md");
        project.mount();
        succeed(project.sh("echo two > a.md"));
        assert_eq!(project.read("a.md"), "two\n");
        succeed(project.sh("set -e; echo three >> a.md; printf 'FO' | dd of=a.md conv=notrunc 2>&1"));
        assert_eq!(project.read("a.md"), "FOo\nthree\n");
        project.unmount();
        assert_eq!(std::fs::read_to_string(&source).unwrap(), "FOo\nthree\n");
        drop(bound);
        assert_eq!(project.read("a.md"), "below\n");
    });
    if !ran {
        eprintln!("not tested: it takes CAP_SYS_ADMIN");
    }
}

/// A file of a project that is mounted on another one, until this is dropped: the project is unmounted then too, which would cover it.
struct Bound {
    root: PathBuf,
    target: PathBuf,
}

impl Bound {
    fn new(project: &Project, source: &str, target: &str) -> Bound {
        let target = project.path(target);
        rustix::mount::mount_bind(project.path(source), &target).unwrap();
        Bound {
            root: project.root(),
            target,
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        for path in [&self.root, &self.target] {
            while rustix::mount::unmount(path, UnmountFlags::DETACH).is_ok() {}
        }
    }
}

/// What is mounted by `test`, and by what it starts, goes with them, however they end. `false`: this user may not do that.
fn in_own_mount_namespace(test: impl FnOnce() + Send) -> bool {
    let private = || {
        // SAFETY: of what this unshares, nothing is a descriptor.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.is_ok()
            && rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).is_ok()
    };
    let run = || private().then(test).is_some();
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn w11_a_file_in_a_directory_that_cannot_be_written_is_published_all_the_same() {
    watchdog();
    let as_user = |script: &str, binary: &std::path::Path, dir: &std::path::Path| {
        let mut command = Command::new("sh");
        command.args(["-ec", script, "sh"]).arg(binary).current_dir(dir);
        command.uid(1000).gid(1000);
        command
    };
    let probe = as_user("exec 3<>/dev/fuse && command -v fusermount3", "".as_ref(), "/".as_ref());
    if !rustix::process::geteuid().is_root() || !run(probe).status.success() {
        eprintln!("not tested: it takes root, and a user who can mount");
        return;
    }
    let project = Project::unmounted(&[("d/a.md", "v1\n")]);
    for path in [project.root(), project.path("d"), project.path("d/a.md")] {
        std::os::unix::fs::chown(path, Some(1000), Some(1000)).unwrap();
    }
    std::fs::set_permissions(project.path("d"), std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
    let binary = project.outside().join("concord");
    std::fs::copy(env!("CARGO_BIN_EXE_concord"), &binary).unwrap();
    let by_user = |script: &str| succeed(as_user(script, &binary, project.outside()));
    by_user("\"$1\" mount project");
    let seen = by_user("cd project/d; exec 3< a.md; echo two > a.md; cat a.md; echo three >> a.md; cat a.md; cat <&3");
    assert_eq!(seen, "two\ntwo\nthree\ntwo\nthree\n");
    assert_eq!(by_user("\"$1\" show project/d/a.md@1"), "v1\n");
    by_user("\"$1\" unmount project");
    assert_eq!(project.read("d/a.md"), "two\nthree\n");
    nothing_is_pending(&project);
}

#[test]
fn w11_programs_find_and_open_a_file_with_an_ordinary_name_as_one_and_the_same() {
    let twin = Twin::with(&[("notes.md", "hi\n")]);
    twin.same(
        "ln notes.md notes.md.bak; cp notes.md a.txt; cat notes.md.bak; cp notes.md b.txt; install -m 600 notes.md c.txt; echo more >> notes.md; cp notes.md d.txt; mkdir copy; cp -a notes.md notes.md.bak copy
        python3 - <<'P'
import os
for name in ['notes.md', 'notes.md.bak']:
    for again in range(2):
        fd = os.open(name, os.O_RDONLY)
        one, other = os.stat(name), os.fstat(fd)
        print(name, one.st_ino == other.st_ino, other.st_nlink)
        os.close(fd)
P
        ",
    );
}

/// Its node is shown by another one's number until then, and so is its descriptor in /proc.
#[test]
fn w5_who_goes_on_to_write_by_the_descriptor_that_he_read_by_makes_one_version() {
    watchdog();
    let project = Project::with(&[("notes.md", "v1\n")]);
    let mut puppet = Puppet::new(&project);
    assert_eq!(puppet.does("os.link('notes.md', 'notes.bak')"), "None");
    assert_eq!(puppet.does("fd = os.open('notes.md', os.O_RDONLY)"), "ok");
    assert_eq!(puppet.does("os.fstat(fd).st_ino == os.stat('notes.md').st_ino"), "True");
    assert_eq!(
        puppet.does("w = os.open(f'/proc/self/fd/{fd}', os.O_RDWR); d = os.dup(w)"),
        "ok"
    );
    assert_eq!(puppet.does("os.write(w, b'one '), os.close(w)"), "(4, None)");
    assert_eq!(project.history("notes.md").len(), 1, "somebody has it open still");
    assert_eq!(puppet.does("os.write(d, b'two'), os.close(d)"), "(3, None)");
    assert_eq!(project.read("notes.md"), "one two");
    assert_eq!(project.history("notes.md").len(), 2);
}
