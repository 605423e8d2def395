//! W8 and W9: who creates, renames and removes, while somebody has the file open or creates in the directory.

mod support;

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::path::Path;

use support::puppet::Puppet;
use support::{Immutable, Project, Running, succeed, watchdog};

fn project() -> Project {
    watchdog();
    Project::with(&[("STATE.md", "version one\n"), ("OTHER.md", "o1"), ("sub/a.md", "a1")])
}

#[test]
fn w9_of_many_exclusive_creators_exactly_one_wins() {
    let project = project();
    let program = "import os, sys, time
while not os.path.exists(sys.argv[1]): time.sleep(0.001)
won = 0
for n in range(12):
    try: fd = os.open(f'new{n}.md', os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except FileExistsError: continue
    os.write(fd, f'{os.getpid()}'.encode())
    os.close(fd)
    won += 1
print(won, os.getpid())";
    let go = project.outside().join("go");
    let racers: Vec<Running> = (0..6)
        .map(|_| {
            let mut command = project.python(program);
            command.arg(&go);
            Running::start(command)
        })
        .collect();
    std::fs::write(&go, "").unwrap();
    let (mut all, mut pids) = (0, BTreeSet::new());
    for mut racer in racers {
        let said = racer.hear();
        let (won, pid) = said.split_once(' ').unwrap();
        all += won.parse::<u32>().unwrap();
        pids.insert(pid.to_owned());
        assert!(racer.finish().success());
    }
    assert_eq!(all, 12, "each name has one creator");
    for number in 0..12 {
        let name = format!("new{number}.md");
        assert!(pids.contains(&project.read(&name)), "{name}: {}", project.read(&name));
        assert_eq!(project.history(&name).len(), 1, "{name}");
    }
}

#[test]
fn w9_a_file_without_a_name_is_refused_here_and_one_from_outside_cannot_be_linked() {
    let project = project();
    let mut puppet = Puppet::new(&project);
    // fuser has no FUSE_TMPFILE: programs fall back to a named file, as on NFS.
    assert_eq!(puppet.does("os.open('.', os.O_TMPFILE | os.O_RDWR)"), "ENOTSUP");
    assert_eq!(puppet.does("os.open('sub', os.O_TMPFILE | os.O_RDWR)"), "ENOTSUP");
    puppet.does("o = os.open('..', os.O_TMPFILE | os.O_RDWR)");
    let by_proc = "raw('linkat', -100, b'/proc/self/fd/%d' % o, -100, b'NEW.md', 0x400)";
    assert_eq!(puppet.does(by_proc), "EXDEV");
    assert_eq!(puppet.does("raw('linkat', o, b'', -100, b'NEW.md', 0x1000)"), "EXDEV");
    assert_eq!(puppet.does("os.path.exists('NEW.md')"), "False");
    assert!(project.history("NEW.md").is_empty());
}

#[test]
fn w9_linkat_of_a_descriptor_gives_an_open_file_a_coordinated_name() {
    let project = project();
    let (mut puppet, mut other) = (Puppet::new(&project), Puppet::new(&project));
    let links = [
        "raw('linkat', -100, b'/proc/self/fd/%d' % t, -100, b'{}', 0x400)",
        "raw('linkat', t, b'', -100, b'{}', 0x1000)",
    ];
    for (number, link) in links.iter().enumerate() {
        let name = format!("NEW{number}.md");
        puppet.does("t = os.open('temporary', os.O_RDWR | os.O_CREAT | os.O_TRUNC)");
        puppet.does("os.write(t, b'by descriptor')");
        assert_eq!(puppet.does(&link.replace("{}", &name)), "None", "{link}");
        assert_eq!(puppet.does(&link.replace("{}", &name)), "EEXIST", "{link}");
        assert_eq!(puppet.does(&link.replace("{}", "STATE.md")), "EEXIST", "{link}");
        assert_eq!(other.does(&format!("get('{name}')")), "by descriptor");
        assert_eq!(puppet.does("os.unlink('temporary'), os.close(t)"), "(None, None)");
        // With one name it is coordinated.
        assert_eq!(other.does(&format!("put('{name}', 'changed')")), "None");
        assert_eq!(project.show(&name, 1), b"by descriptor");
        assert_eq!(project.read(&name), "changed");
    }
    assert_eq!(project.read("STATE.md"), "version one\n");
}

/// Nothing is staged for an ordinary name, and others have the file open by it.
#[test]
fn w8_a_holders_file_under_an_ordinary_name_is_a_file_like_any_other() {
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
    for changed in ["fd", "os.write(fd, b'v2')"] {
        holder.does("fd = os.open('STATE.md', os.O_RDWR)");
        holder.does(changed);
        holder.does("os.rename('STATE.md', 'state.bin')");
        other.does("r = os.open('state.bin', os.O_RDONLY)");
        let later = "os.ftruncate(fd, 0), os.pwrite(fd, b'LATER', 0), os.fsync(fd)";
        assert_eq!(holder.does(later), "(None, 5, None)");
        assert_eq!(
            other.does("os.pread(r, 99, 0), get('state.bin')"),
            "(b'LATER', 'LATER')"
        );
        assert_eq!(holder.does("os.close(fd)"), "None");
        assert_eq!(
            other.does("get('state.bin'), os.pread(r, 99, 0)"),
            "('LATER', b'LATER')"
        );
        assert_eq!(
            other.does("put('state.bin', ' still', os.O_WRONLY | os.O_APPEND)"),
            "None"
        );
        assert_eq!(project.read("state.bin"), "LATER still");
        other.does("(os.close(r), os.rename('state.bin', 'STATE.md'))");
        assert_eq!(project.read("STATE.md"), "LATER still");
    }
    // Its name is removed, and the kernel remembers that: what is written later goes with it.
    holder.does("fd = os.open('STATE.md', os.O_RDWR)");
    holder.does("(os.write(fd, b'v3'), os.rename('STATE.md', 'state.bin'))");
    assert_eq!(
        other.does("os.unlink('state.bin'), os.path.exists('state.bin')"),
        "(None, False)"
    );
    assert_eq!(
        holder.does("os.write(fd, b'v4'), os.pread(fd, 4, 0), os.close(fd)"),
        "(2, b'v3v4', None)"
    );
    assert_eq!(
        other.does("os.path.exists('state.bin'), 'state.bin' in os.listdir()"),
        "(False, False)"
    );
    assert_eq!(
        other.does("put('state.bin', 'another'), get('state.bin')"),
        "(None, 'another')"
    );
    assert_eq!(project.status()["counts"]["late"], 0);
    assert!(project.recovered().is_empty());
}

#[test]
fn w9_a_directory_in_which_somebody_creates_a_file_is_not_empty() {
    let project = project();
    let (mut creator, mut other) = (Puppet::new(&project), Puppet::new(&project));
    other.does("os.mkdir('full'), os.mkdir('empty')");
    creator.does("f = open('full/NEW.md', 'w')");
    assert_eq!(creator.does("(f.write('text'), f.flush())"), "(4, None)");
    assert_eq!(other.does("os.rmdir('full')"), "ENOTEMPTY");
    assert_eq!(other.does("os.rename('empty', 'full')"), "ENOTEMPTY");
    assert_eq!(
        other.does("os.rename('full', 'empty')"),
        "None",
        "a directory goes with what is in it"
    );
    assert_eq!(creator.does("f.close()"), "None");
    assert_eq!(project.read("empty/NEW.md"), "text");
    assert!(project.recovered().is_empty());
}

#[test]
fn w9_creators_and_removers_of_a_directory_lose_nothing() {
    let project = project();
    let creator = "import os
made = 0
for n in range(60):
    os.makedirs('d', exist_ok=True)
    try:
        with open(f'd/{os.getpid()}.{n}.md', 'w') as f: f.write('text')
    except (FileNotFoundError, FileExistsError): continue
    made += 1
print(made)";
    let remover = "import os
for n in range(120):
    try: os.rmdir('d')
    except OSError: pass";
    let script = "python3 -c \"$0\" & a=$!; python3 -c \"$0\" & b=$!; python3 -c \"$1\" & c=$!; wait $a $b $c";
    let mut command = project.sh(script);
    command.args([creator, remover]);
    let made: usize = succeed(command)
        .lines()
        .map(|line| line.parse::<usize>().unwrap())
        .sum();
    let there = std::fs::read_dir(project.path("d")).map_or(0, |entries| {
        entries
            .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
            .filter(|content| content == "text")
            .count()
    });
    assert_eq!(there, made, "who was told that the file is there finds it");
    assert_eq!(project.recovered().len(), 0);
}

/// Who has waited for a file, and finds that it was removed, creates it: not in a directory that is just going.
#[test]
fn w9_a_directory_goes_with_nothing_in_it_or_stays_for_who_waited_to_create() {
    let project = project();
    let writer = "import os, time
end, bad = time.monotonic() + 4, {}
while time.monotonic() < end:
    try: fd = os.open('d/c.md', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    except OSError: time.sleep(0.0005); continue
    try: os.write(fd, b'text'); os.close(fd)
    except OSError as error: bad[error.errno] = bad.get(error.errno, 0) + 1
print(bad)";
    let remover = "import os, random, time
end = time.monotonic() + 4
def attempt(call, *names):
    try: call(*names)
    except OSError: pass
while time.monotonic() < end:
    attempt(os.unlink, 'd/c.md')
    if random.random() < 0.5: attempt(os.mkdir, 'e'); attempt(os.rename, 'e', 'd')
    else: attempt(os.rmdir, 'd'); attempt(os.mkdir, 'd')
    time.sleep(random.random() * 0.004)";
    let script = "for n in 1 2 3; do python3 -c \"$0\" & all=\"$all $!\"; done; python3 -c \"$1\"; wait $all";
    let mut command = project.sh(script);
    command.args([writer, remover]);
    assert_eq!(succeed(command), "{}\n".repeat(3));
    assert!(project.recovered().is_empty());
}

#[test]
fn w8_a_file_that_somebody_writes_is_renamed_away_when_he_is_done() {
    let project = project();
    let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
    for target in ["MOVED.md", "moved.txt"] {
        holder.does("put('STATE.md', 'before')");
        holder.does("f = open('STATE.md', 'w')");
        holder.does("(f.write('session'), f.flush())");
        other.starts(&format!("os.rename('STATE.md', '{target}')"));
        project.await_sessions(1, 1);
        assert_eq!(holder.does("f.close()"), "None");
        assert_eq!(other.says(), "None");
        assert_eq!(project.read(target), "session", "{target}");
        assert_eq!(other.does("os.path.exists('STATE.md')"), "False");
    }
}

#[test]
fn w8_a_failed_rename_leaves_the_holders_session_where_it_was() {
    let mut project = project();
    project.unmount();
    // By descriptor: chattr(1) works on the backing directory only, also when this test fails while something is mounted over it.
    let sub = std::fs::File::open(project.path("sub")).unwrap();
    let by_descriptor = format!("/proc/{}/fd/{}/.", std::process::id(), sub.as_raw_fd());
    let Some(_immutable) = Immutable::new(Path::new(&by_descriptor)) else {
        return;
    };
    project.mount();
    let mut holder = Puppet::new(&project);
    holder.does("f = open('STATE.md', 'w')");
    holder.does("(f.write('before'), f.flush())");
    assert_eq!(
        holder.does("raw('renameat2', -100, b'STATE.md', -100, b'OTHER.md', 1)"),
        "EEXIST"
    );
    assert_eq!(holder.does("os.rename('STATE.md', 'sub')"), "EISDIR");
    assert_eq!(
        holder.does("os.rename('STATE.md', 'sub/x.md')"),
        "EPERM",
        "what the backing filesystem says"
    );
    // What was written so far is published. By the version nobody finds the name any more.
    assert_eq!(Puppet::new(&project).does("put('STATE.md', 'saved')"), "None");
    assert_eq!(holder.does("(f.write(' and after'), f.close())"), "(10, None)");
    assert_eq!(project.read("STATE.md"), "before and after");
    assert_eq!(project.read("OTHER.md"), "o1");
    assert!(!project.path("sub/x.md").exists());
}
