//! Watchers: inotify and fanotify tell of a publish what they tell of a plain write or rename, and who looks then finds it.

mod support;

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
    // IN_ATTRIB is for who watches the replaced inode itself.
    let program = format!(
        "{INOTIFY}\nheld = open('STATE.md'); watch('.')\nfor i in range(3):\n    subprocess.run(['sh', '-c', 'echo b > STATE.md'])\n    print([event for event in events() if 'ATTRIB' not in event])"
    );
    twin.same(&format!("cat > $OUT/w.py <<'EOF'\n{program}\nEOF\npython3 $OUT/w.py"));
}

/// A Python program that watches STATE.md for `kinds` of events and says each. `tell(f)` says what `f` gives.
fn watcher(project: &Project, kinds: &str, tell: &str) -> Option<Running> {
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
    // Files are opened by handle to tell of a publish.
    let told = rustix::process::geteuid().is_root();
    told.then_some(watcher)
}

/// Waits until the watcher says this.
fn hears(watcher: &mut Running, line: &str) {
    loop {
        let said = watcher.hear();
        assert!(!said.is_empty(), "it ended without saying {line}");
        if said == line {
            return;
        }
    }
}

/// libuv, and with it Node's fs.watch, listens to IN_MODIFY and not to IN_CLOSE_WRITE.
#[test]
fn who_listens_to_changes_only_is_told_once_more_when_the_version_is_there() {
    let project = Project::with(&[("STATE.md", "0")]);
    let Some(mut watcher) = watcher(&project, "('MODIFY',)", "content()") else {
        return;
    };
    for number in 1..=20 {
        succeed(project.sh(&format!("exec 3> STATE.md; printf {number} >&3; sleep 0.02")));
        hears(&mut watcher, &number.to_string());
    }
}

/// The version of a watched inode is replaced by another inode: as if by rename(2), the watch is told at once, and ends with the last program that has it open.
#[test]
fn a_watch_on_the_file_itself_is_told_of_a_publish_while_others_have_it_open() {
    let project = Project::with(&[("STATE.md", "0"), ("held", "")]);
    let mut reader = support::puppet::Puppet::new(&project);
    assert_eq!(reader.does("fd = os.open('STATE.md', os.O_RDONLY)"), "ok");
    let Some(mut watcher) = watcher(&project, "('MODIFY', 'ATTRIB', 'DELETE_SELF')", "kind, content()") else {
        return;
    };
    succeed(project.sh("printf 1 > STATE.md"));
    assert_eq!(watcher.hear(), "MODIFY 1");
    assert_eq!(watcher.hear(), "ATTRIB 1");
    assert_eq!(reader.does("os.close(fd)"), "None");
    assert_eq!(watcher.hear(), "DELETE_SELF 1");
}

/// make(1), git's index: the time is that of the last write.
#[test]
fn what_is_told_changes_no_time_and_makes_no_version() {
    let project = Project::with(&[("STATE.md", "0")]);
    let Some(mut watcher) = watcher(&project, "('MODIFY',)", "content(), os.stat('STATE.md').st_mtime_ns") else {
        return;
    };
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
fn watchers_are_told_of_a_restore() {
    let project = Project::with(&[("STATE.md", "0")]);
    succeed(project.sh("printf 1 > STATE.md"));
    let Some(mut watcher) = watcher(&project, "('MODIFY',)", "content()") else {
        return;
    };
    let mut restore = support::concord(&["restore"]);
    restore.arg(format!("{}@1", project.path("STATE.md").display()));
    succeed(restore);
    hears(&mut watcher, "0");
}

#[test]
fn a_publish_is_told_of_after_the_process_that_tells_was_killed() {
    let mut project = Project::unmounted(&[("STATE.md", "0")]);
    let daemon = project.mount();
    let Some(mut watcher) = watcher(&project, "('MODIFY',)", "content()") else {
        return;
    };
    let children = || {
        let threads = std::fs::read_dir(format!("/proc/{daemon}/task")).unwrap();
        let lists = threads.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).ok());
        lists.collect::<String>()
    };
    let mut killed = 0;
    for number in 1..=3 {
        succeed(project.sh(&format!("printf {number} > STATE.md")));
        hears(&mut watcher, &number.to_string());
        for child in children().split_whitespace() {
            killed += 1;
            support::kill(child.parse().unwrap(), rustix::process::Signal::KILL);
        }
    }
    assert!(killed > 0);
    drop(watcher);
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
    for _ in range(20):
        event = os.read(fan, 24)
        _, _, _, _, _, fd, _ = struct.unpack('IBBHQii', event)
        print(os.pread(fd, 99, 0).decode(), flush=True)
        os.close(fd)";
    let mut watcher = Running::start(project.python(program));
    if watcher.hear() == "none" {
        eprintln!("fanotify is not to be had here: not tested");
        return;
    }
    for number in 1..=20 {
        succeed(project.sh(&format!("printf {number} > STATE.md")));
        assert_eq!(watcher.hear(), number.to_string());
    }
    assert!(watcher.finish().success());
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
