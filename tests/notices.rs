//! Watchers: inotify and fanotify tell of a publish what they tell of a plain write or rename, and who looks then finds it.

mod support;

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::twin::{Twin, lacks};
use support::{Project, Running, eventually, succeed};

/// `watch(names)`, and `events()`: what has come since, as `name KIND`, repetitions left out.
const INOTIFY: &str = r#"
import ctypes, os, select, struct, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
KINDS = {2: 'MODIFY', 4: 'ATTRIB', 8: 'CLOSE_WRITE', 64: 'MOVED_FROM', 128: 'MOVED_TO', 256: 'CREATE', 512: 'DELETE', 1024: 'DELETE_SELF', 2048: 'MOVE_SELF'}
fd, watched = libc.inotify_init(), {}
def watch(name): watched[libc.inotify_add_watch(fd, name.encode(), sum(KINDS))] = name
def raw(timeout):
    while select.select([fd], [], [], timeout)[0]:
        buffer, at = os.read(fd, 65536), 0
        while at < len(buffer):
            number, mask, _, length = struct.unpack_from('iIII', buffer, at)
            name = buffer[at + 16:at + 16 + length].rstrip(b'\0').decode()
            at += 16 + length
            for bit, kind in KINDS.items():
                if mask & bit and number in watched: yield watched[number], name, kind
def events():
    seen = []
    for where, name, kind in raw(0.2):
        if 'sed' in name: name = 'temp'
        # IN_MODIFY is said once more after a publish.
        again = kind == 'MODIFY' and (where, name, kind) in seen
        if not again and (where, name, kind) not in seen[-2:]: seen.append((where, name, kind))
    return [f'{where}/{name} {kind}'.replace('/ ', ' ') for where, name, kind in seen]
"#;

fn twin() -> Twin {
    Twin::with(&[("STATE.md", "one\n"), ("notes.txt", "ordinary\n")])
}

#[test]
fn inotify_tells_of_a_publish_what_it_tells_of_a_plain_save() {
    let twin = twin();
    for save in [
        "echo b > STATE.md",
        "echo c >> STATE.md",
        "sed -i s/b/x/ STATE.md",
        "echo n > temp; mv temp STATE.md",
        "echo n > NEW.md",
        "rm NEW.md",
        "truncate -s 1 STATE.md",
        "chmod 600 STATE.md",
        "touch STATE.md",
        "ln -s STATE.md LINK.md; rm LINK.md",
        "cat STATE.md",
        "{ /bin/echo a; /bin/echo b; } > STATE.md",
    ] {
        let program = format!(
            "{INOTIFY}\nwatch('.'); watch('STATE.md')\nsubprocess.run(['sh', '-c', sys.argv[1]])\nprint('\\n'.join(events()))"
        );
        twin.same(&format!(
            "cat > $OUT/w.py <<'EOF'\n{program}\nEOF\npython3 $OUT/w.py '{save}'"
        ));
    }
}

#[test]
fn inotify_on_the_directory_tells_of_a_publish_while_others_have_the_file_open() {
    let twin = twin();
    let program = format!(
        "{INOTIFY}\nheld = open('STATE.md'); watch('.')\nfor i in range(3):\n    subprocess.run(['sh', '-c', 'echo b > STATE.md'])\n    print(events())"
    );
    twin.same(&format!("cat > $OUT/w.py <<'EOF'\n{program}\nEOF\npython3 $OUT/w.py"));
}

/// A Python program that watches STATE.md for `kinds` of events and says each. `tell(f)` says what `f` gives.
fn watcher(project: &Project, kinds: &str, tell: &str) -> Running {
    let program = format!(
        "{INOTIFY}
def content(): return open('STATE.md').read()
watch('STATE.md')
print('ready', flush=True)
for where, name, kind in raw(60):
    if kind in {kinds}: print({tell}, flush=True)"
    );
    let mut watcher = Running::start(project.python(&program));
    assert_eq!(watcher.hear(), "ready");
    watcher
}

/// Waits until the watcher says this; returns what it said before, in order.
fn hears(watcher: &mut Running, line: &str) -> Vec<String> {
    let mut before = Vec::new();
    loop {
        let said = watcher.hear();
        assert!(!said.is_empty(), "it ended without saying {line}, but {before:?}");
        if said == line {
            return before;
        }
        before.push(said);
    }
}

/// libuv, and with it Node's fs.watch, listens to IN_MODIFY and not to IN_CLOSE_WRITE.
#[test]
fn who_listens_to_changes_only_is_told_once_more_when_the_version_is_there() {
    let project = Project::with(&[("STATE.md", "0")]);
    let mut watcher = watcher(&project, "('MODIFY',)", "content()");
    for number in 1..=20 {
        succeed(project.sh(&format!("exec 3> STATE.md; printf {number} >&3; sleep 0.02")));
        hears(&mut watcher, &number.to_string());
    }
}

const ALL: &str = "('MODIFY', 'ATTRIB', 'CLOSE_WRITE', 'DELETE_SELF', 'MOVE_SELF')";

/// Each version is another inode then. To whoever watches the one before it is the file still, until another file has its name.
#[test]
fn a_watch_on_the_file_itself_hears_of_all_that_comes_after_a_save_while_others_had_it_open() {
    let project = Project::with(&[("STATE.md", "0"), ("line", "7\n")]);
    let mut reader = support::puppet::Puppet::new(&project);
    assert_eq!(reader.does("fd = os.open('STATE.md', os.O_RDONLY)"), "ok");
    let mut watcher = watcher(&project, ALL, "kind, content()");
    let mut tells = |save: &str, last: &str| {
        succeed(project.sh(save));
        let before = hears(&mut watcher, last);
        let ended = before
            .iter()
            .find(|said| !said.starts_with("MODIFY") && !said.starts_with("CLOSE_WRITE"));
        assert_eq!(ended, None, "{save}: {before:?}");
    };
    tells("printf 1 > STATE.md", "CLOSE_WRITE 1");
    tells("printf 2 > STATE.md", "CLOSE_WRITE 2");
    assert_eq!(reader.does("os.close(fd)"), "None");
    tells("printf 3 > STATE.md", "CLOSE_WRITE 3");
    tells("printf 45 1<> STATE.md", "CLOSE_WRITE 45");
    tells("truncate -s 1 STATE.md", "MODIFY 4");
    tells("printf 6 >> STATE.md", "CLOSE_WRITE 46");
    succeed(project.sh("printf 5 > temp; mv temp STATE.md"));
    // ATTRIB before it is not certain: who tells watchers may have the node open just then, and let go of it before rename(2) is answered.
    hears(&mut watcher, "DELETE_SELF 5");
}

/// What it watches stood for an image (W11), which is of no use once an ordinary name has written to the file.
#[test]
fn a_watch_on_the_file_itself_hears_of_what_comes_when_its_other_name_is_gone() {
    let project = Project::with(&[("STATE.md", "0")]);
    succeed(project.sh("ln STATE.md other.txt; printf 1 > STATE.md"));
    let mut watcher = watcher(&project, "('CLOSE_WRITE', 'DELETE_SELF')", "kind, content()");
    succeed(project.sh("printf 2 > other.txt; rm other.txt"));
    for number in 3..6 {
        succeed(project.sh(&format!("printf {number} > STATE.md")));
        assert_eq!(hears(&mut watcher, &format!("CLOSE_WRITE {number}")), [""; 0]);
    }
}

/// Its node is the session's then, and afterwards the current version's once more; but others have found another one for that meanwhile.
#[test]
fn a_watch_on_the_file_itself_outlives_a_session_that_changed_nothing() {
    let project = Project::with(&[("STATE.md", "0")]);
    let (mut writer, mut reader) = (
        support::puppet::Puppet::new(&project),
        support::puppet::Puppet::new(&project),
    );
    let mut watcher = watcher(&project, "('MODIFY', 'DELETE_SELF')", "kind, content()");
    assert_eq!(writer.does("fd = os.open('STATE.md', os.O_RDWR)"), "ok");
    assert_eq!(reader.does("fd = os.open('STATE.md', os.O_RDONLY)"), "ok");
    assert_eq!(writer.does("os.close(fd)"), "None");
    succeed(project.sh("printf 1 > STATE.md"));
    assert_eq!(hears(&mut watcher, "MODIFY 1"), [""; 0]);
}

#[test]
fn a_reader_that_has_an_older_version_open_sees_a_link_until_another_file_has_the_name() {
    let project = Project::with(&[("STATE.md", "0")]);
    let mut reader = support::puppet::Puppet::new(&project);
    assert_eq!(reader.does("fd = os.open('STATE.md', os.O_RDONLY)"), "ok");
    assert_eq!(reader.does("os.read(fd, 9)"), "b'0'");
    succeed(project.sh("printf 1 > STATE.md"));
    assert_eq!(reader.does("os.fstat(fd).st_nlink"), "1");
    succeed(project.sh("printf 2 > temp; mv temp STATE.md"));
    assert_eq!(reader.does("os.fstat(fd).st_nlink"), "0");
    assert_eq!(reader.does("os.pread(fd, 9, 0)"), "b'0'");
}

/// The link by which the history is given the version that a rename replaces is nobody's to see: the kernel would count it.
#[test]
fn a_watch_on_the_file_itself_ends_with_each_rename_over_it_whoever_looks_meanwhile() {
    let project = Project::with(&[("STATE.md", "0")]);
    let program = "import os
print('looks', flush=True)
while True:
    try: os.stat('STATE.md')
    except FileNotFoundError: pass";
    let mut looking = Running::start(project.python(program));
    assert_eq!(looking.hear(), "looks");
    for number in 1..=20 {
        let mut watcher = watcher(&project, "('DELETE_SELF',)", "content()");
        succeed(project.sh(&format!("printf {number} > temp; mv temp STATE.md")));
        assert_eq!(watcher.hear(), number.to_string());
    }
}

/// make(1), git's index: the time is that of the last write.
#[test]
fn what_is_told_changes_no_time_and_makes_no_version() {
    let project = Project::with(&[("STATE.md", "0")]);
    let mut watcher = watcher(&project, "('MODIFY',)", "content(), os.stat('STATE.md').st_mtime_ns");
    let set = "import os
fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)
os.write(fd, b'1')
os.utime(fd, ns=(5, 1234567891000000000))
os.close(fd)";
    succeed(project.python(set));
    hears(&mut watcher, "1 1234567891000000000");
    assert_eq!(project.history("STATE.md").len(), 2);
}

#[test]
fn neither_git_nor_make_takes_a_file_for_changed_because_it_was_told_of() {
    if lacks("git") || lacks("make") {
        return;
    }
    let project = Project::with(&[("STATE.md", "0"), ("Makefile", "out: STATE.md\n\tcp STATE.md out\n")]);
    succeed(project.sh("git init -q ."));
    let mut reader = support::puppet::Puppet::new(&project);
    assert_eq!(reader.does("fd = os.open('STATE.md', os.O_RDONLY)"), "ok");
    let mut watcher = watcher(&project, "('CLOSE_WRITE',)", "content()");
    for number in 1..=5 {
        // A time long before that of the index, which git then trusts.
        succeed(project.sh(&format!(
            "printf {number} > STATE.md; touch -d @100{number} STATE.md; git add STATE.md; make -s out; touch -d @2000 out; stat -c '%n %i %h %s %Y %Z' STATE.md > before"
        )));
        hears(&mut watcher, &number.to_string());
        succeed(project.sh(
            "stat -c '%n %i %h %s %Y %Z' STATE.md | cmp - before; make -q out; git diff-files --exit-code
            stat -c '%i %y' .git/index > before; git status > /dev/null; stat -c '%i %y' .git/index | cmp - before",
        ));
    }
}

/// A formatter that finds nothing to do opens the file for writing all the same, or looks at it. That is no news.
#[test]
fn who_reads_or_opens_a_file_at_each_notice_is_not_told_for_ever() {
    let project = Project::with(&[("STATE.md", "0")]);
    let mut reader = support::puppet::Puppet::new(&project);
    assert_eq!(reader.does("fd = os.open('STATE.md', os.O_RDONLY)"), "ok");
    let program = format!(
        "{INOTIFY}
watch('.'); watch('STATE.md')
print('ready', flush=True)
heard, last = 0, time.monotonic() + 60
while time.monotonic() < last:
    for where, name, kind in raw(1):
        if kind not in ('MODIFY', 'ATTRIB') or name not in ('', 'STATE.md'): continue
        heard, last = heard + 1, min(last, time.monotonic() + 2)
        if heard > 50: sys.exit('told for ever')
        os.close(os.open('STATE.md', os.O_RDWR))
        open('STATE.md').read(); os.stat('STATE.md')
print('quiet', flush=True)"
    );
    let mut watcher = Running::start(project.python(&program));
    assert_eq!(watcher.hear(), "ready");
    succeed(project.sh("printf 1 > STATE.md"));
    assert_eq!(watcher.hear(), "quiet");
    assert_eq!(project.history("STATE.md").len(), 2);
}

/// To tell of a node must not keep the kernel from forgetting it.
#[test]
fn what_nobody_watches_or_has_open_any_more_is_forgotten() {
    let mut project = Project::unmounted(&[("STATE.md", "0")]);
    let daemon = project.mount();
    let descriptors = || std::fs::read_dir(format!("/proc/{daemon}/fd")).unwrap().count();
    let mut reader = support::puppet::Puppet::new(&project);
    let mut watcher = watcher(&project, "('MODIFY',)", "content()");
    let saved = |number: usize, reader: &mut support::puppet::Puppet, watcher: &mut Running| {
        assert_eq!(reader.does("fd = os.open('STATE.md', os.O_RDONLY)"), "ok");
        succeed(project.sh(&format!("printf {number} > STATE.md")));
        hears(watcher, &number.to_string());
        assert_eq!(reader.does("os.close(fd)"), "None");
    };
    saved(0, &mut reader, &mut watcher);
    let before = descriptors();
    (1..=40).for_each(|number| saved(number, &mut reader, &mut watcher));
    eventually("the descriptors of versions that nobody has open are closed", || {
        descriptors() < before + 10
    });
}

#[test]
fn watchers_are_told_of_a_restore() {
    let project = Project::with(&[("STATE.md", "0")]);
    succeed(project.sh("printf 1 > STATE.md"));
    let mut watcher = watcher(&project, "('MODIFY',)", "content()");
    let mut restore = support::concord(&["restore"]);
    restore.arg(format!("{}@1", project.path("STATE.md").display()));
    succeed(restore);
    hears(&mut watcher, "0");
}

/// As when the mount went away just before.
#[test]
fn a_file_of_the_plain_tree_is_not_touched() {
    let project = Project::unmounted(&[("STATE.md", "0"), (".concord/@7", "")]);
    let times =
        || ["STATE.md", ".concord/@7"].map(|name| std::fs::metadata(project.path(name)).unwrap().modified().unwrap());
    let before = times();
    let mut teller = support::concord(&["tell", "--"]);
    teller.arg(project.root()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut teller = teller.spawn().unwrap();
    let mut input = teller.stdin.take().unwrap();
    for (news, path) in [(0, "STATE.md"), (1, "STATE.md"), (2, ".concord/@7")] {
        input.write_all(&[news]).unwrap();
        input.write_all(&(path.len() as u16).to_ne_bytes()).unwrap();
        input.write_all(path.as_bytes()).unwrap();
    }
    drop(input);
    assert_eq!(teller.wait_with_output().unwrap().stdout, [0; 3]);
    assert_eq!(times(), before);
}

#[test]
fn a_publish_is_told_of_after_the_process_that_tells_was_killed() {
    let mut project = Project::unmounted(&[("STATE.md", "0")]);
    let daemon = project.mount();
    let mut watcher = watcher(&project, "('MODIFY',)", "content()");
    let mut writer = support::puppet::Puppet::new(&project);
    for number in 1..=3 {
        writer.does("fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)");
        writer.does(&format!("os.write(fd, b'{number}')"));
        // The kernel's own word, before there is a version to be told of.
        hears(&mut watcher, &(number - 1).to_string());
        writer.does("os.close(fd)");
        hears(&mut watcher, &number.to_string());
        support::eventually("a process tells of it", || !support::children(daemon).is_empty());
        for child in support::children(daemon) {
            support::kill(child, rustix::process::Signal::KILL);
        }
    }
    drop((watcher, writer));
    project.unmount();
}

/// Whoever reads when he is told finds what he was told of.
#[test]
fn what_is_read_at_a_notice_is_the_version_it_tells_of() {
    let project = Project::with(&[("STATE.md", "0")]);
    let program = format!(
        "{INOTIFY}
watch('.')
print('ready', flush=True)
for where, name, kind in raw(60):
    if name == 'STATE.md' and kind in ('CLOSE_WRITE', 'MOVED_TO'):
        print(open('STATE.md').read(), flush=True)"
    );
    let mut watcher = Running::start(project.python(&program));
    assert_eq!(watcher.hear(), "ready");
    for number in 1..=60 {
        let save = match number % 3 {
            0 => format!("printf {number} > STATE.md"),
            1 => format!("printf {number} > t; mv t STATE.md"),
            _ => format!("exec 3< STATE.md; printf {number} > STATE.md"),
        };
        succeed(project.sh(&save));
        assert_eq!(watcher.hear(), number.to_string());
    }
}

/// What it had lost was a name, and no link.
#[test]
fn a_watch_ends_with_a_file_that_came_from_a_coordinated_name_when_it_is_replaced() {
    let project = Project::with(&[("STATE.md", "0")]);
    let save = |number| project.sh(&format!("echo {number} > new.md && mv new.md STATE.md"));
    succeed(save(0));
    for number in 1..4 {
        let mut watcher = watcher(&project, "('DELETE_SELF',)", "content()");
        succeed(save(number));
        assert_eq!(watcher.hear(), number.to_string());
    }
}

#[test]
fn fanotify_hands_out_the_version_that_was_published() {
    let project = Project::with(&[("STATE.md", "0")]);
    let program = "import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
fan = libc.fanotify_init(0, os.O_RDONLY)
CLOSE_WRITE, MOUNT = 8, 0x10
if fan < 0 or libc.fanotify_mark(fan, 1 | MOUNT, ctypes.c_uint64(CLOSE_WRITE), -100, b'.'):
    print('none', flush=True)
else:
    print('ready', flush=True)
    while True:
        event = os.read(fan, 24)
        _, _, _, _, _, fd, _ = struct.unpack('IBBHQii', event)
        # The daemon tells its own process of the mount by a file of the store.
        if '/.concord/' not in os.readlink(f'/proc/self/fd/{fd}'):
            print(os.pread(fd, 99, 0).decode(), flush=True)
        os.close(fd)";
    let mut watcher = Running::start(project.python(program));
    if watcher.hear() == "none" {
        eprintln!("fanotify is not to be had here: not tested");
        return;
    }
    for number in 1..=20 {
        succeed(project.sh(&format!("printf {number} > STATE.md")));
        let before = hears(&mut watcher, &number.to_string());
        // Once more of the last, if its node was still open here when this one was saved.
        let last = (number - 1).to_string();
        assert!(before.iter().all(|said| *said == last), "{before:?}");
    }
}

#[test]
fn tail_follows_a_file_from_version_to_version() {
    let project = Project::with(&[("STATE.md", "first\n")]);
    let mut command = project.sh("exec 2> /dev/null; exec tail -n +1 -F -s 0.1 STATE.md > \"$OUT\"");
    let out = project.outside().join("followed");
    command.env("OUT", &out);
    let _tail = Running::start(command);
    let shows = |line: &str| {
        eventually(line, || {
            std::fs::read_to_string(&out).is_ok_and(|text| text.lines().any(|l| l == line))
        });
    };
    shows("first");
    for number in 0..12 {
        let line = format!("line {number}");
        let save = match number % 4 {
            0 => format!("echo {line} >> STATE.md"),
            1 => format!("echo {line} > STATE.md"),
            2 => format!("echo {line} > t; mv t STATE.md"),
            _ => format!("sed -i '$a {line}' STATE.md"),
        };
        succeed(project.sh(&save));
        shows(&line);
    }
}

/// `entr` on STATE.md. Its command notes the last line.
struct Entr<'a> {
    project: &'a Project,
    out: std::path::PathBuf,
    _entr: Running,
}

impl<'a> Entr<'a> {
    fn start(project: &'a Project) -> Entr<'a> {
        let names = project.outside().join("names");
        std::fs::write(&names, "STATE.md\n").unwrap();
        let out = project.outside().join("shown");
        let mut command = project.sh("exec entr -np sh -c 'tail -n 1 STATE.md >> \"$OUT\"' < \"$NAMES\"");
        command.env("NAMES", names).env("OUT", &out);
        Entr {
            project,
            out,
            _entr: Running::start(command),
        }
    }

    /// Saves until it is told of it: it may not watch yet, or turn just then to the file that was renamed over the last, as in a plain directory. What
    /// must not be is that it hears nothing any more.
    fn hears_of(&self, line: &str, save: &str) {
        let mut saved = None::<Instant>;
        let start = Instant::now();
        while !std::fs::read_to_string(&self.out).is_ok_and(|text| text.lines().any(|l| l == line)) {
            assert!(
                start.elapsed() < support::command_time_max(),
                "entr was not told: {save}"
            );
            if saved.is_none_or(|at| at.elapsed() > Duration::from_millis(500)) {
                succeed(self.project.sh(save));
                saved = Some(Instant::now());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn entr_is_told_of_each_save_also_while_others_have_the_file_open() {
    if lacks("entr") {
        return;
    }
    let project = Project::with(&[("STATE.md", "line 0\n")]);
    let entr = Entr::start(&project);
    let ways = [
        "echo LINE > t; mv t STATE.md",
        "echo LINE >> STATE.md",
        "echo LINE > STATE.md",
        "printf 'LINE\\n' 1<> STATE.md",
        "python3 -c \"open('STATE.md', 'w').write('LINE\\n')\"",
    ];
    for (number, (held, way)) in ["", "exec 3< STATE.md; "]
        .iter()
        .flat_map(|held| ways.map(|way| (held, way)))
        .enumerate()
    {
        let line = format!("line {number}");
        entr.hears_of(&line, &format!("{held}{}", way.replace("LINE", &line)));
    }
}
