//! W10: what programs copy of a file that grows without read(2): by sendfile(2) and copy_file_range(2), which go by the size that the kernel has counted itself.

mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use support::puppet::Puppet;
use support::{Project, Running, eventually, succeed, watchdog};

const TO_APPEND: &str = "fd = os.open('log.jsonl', os.O_WRONLY | os.O_APPEND)";

/// Copies all that there is from the beginning, as often as it is asked to.
const COPIES: &str = r"
import os
def by_sendfile():
    to, at = os.memfd_create('copy'), 0
    while count := os.sendfile(to, seen, at, 1 << 20):
        at += count
    return os.pread(to, 1 << 20, 0).decode()
def by_copy_file_range():
    to, at = os.open('copy', os.O_RDWR | os.O_CREAT | os.O_TRUNC), 0
    while count := os.copy_file_range(seen, to, 1 << 20, at):
        at += count
    return os.pread(to, 1 << 20, 0).decode()
seen = os.open('log.jsonl', os.O_RDONLY)
size = os.fstat(seen).st_size";

/// A log that one appends to by the node of a version that was replaced, and another by the current one's.
struct Log {
    elsewhere: Puppet,
    here: Puppet,
    reader: Puppet,
    project: Project,
}

fn replaced_log() -> Log {
    watchdog();
    let project = Project::with(&[("log.jsonl", "first\n")]);
    let mut puppets = (0..4).map(|_| Puppet::new(&project));
    let (mut elsewhere, mut here) = (puppets.next().unwrap(), puppets.next().unwrap());
    let (mut reader, mut writer) = (puppets.next().unwrap(), puppets.next().unwrap());
    drop(puppets);
    assert_eq!(elsewhere.does(TO_APPEND), "ok");
    assert_eq!(writer.does("put('log.jsonl', 'second\\n')"), "None");
    assert_eq!(here.does(TO_APPEND), "ok");
    assert_eq!(reader.does(COPIES), "ok");
    assert_eq!(reader.does("size"), "7");
    Log {
        elsewhere,
        here,
        reader,
        project,
    }
}

#[test]
fn w10_what_is_copied_by_the_size_that_the_kernel_counts_ends_with_a_line() {
    for copy in ["by_sendfile()", "by_copy_file_range()"] {
        let mut log = replaced_log();
        assert_eq!(log.elsewhere.does("os.write(fd, b'a' * 5000 + b'\\n')"), "5001");
        assert_eq!(log.here.does("os.write(fd, b'b\\n')"), "2");
        let copied = format!("{copy} == 'second\\n' + 'a' * 5000 + '\\nb\\n'");
        assert_eq!(log.reader.does(&copied), "True", "{copy}");
        assert_eq!(log.project.read("log.jsonl").len(), 7 + 5001 + 2);
    }
}

/// What is held back the kernel has counted all the same, and so it counts to somewhere within the line that comes in its place.
#[test]
fn w10_what_is_copied_beside_a_line_that_is_held_back_ends_with_a_line() {
    for copy in ["by_sendfile()", "by_copy_file_range()"] {
        let mut log = replaced_log();
        assert_eq!(log.here.does("os.write(fd, b'b')"), "1");
        assert_eq!(log.elsewhere.does("os.write(fd, b'a' * 5000 + b'\\n')"), "5001");
        let whole = format!("{copy} == 'second\\n' + 'a' * 5000 + '\\n'");
        assert_eq!(log.reader.does(&whole), "True", "{copy}");
        assert_eq!(log.here.does("os.write(fd, b'\\n')"), "1");
        assert_eq!(
            log.project.read("log.jsonl"),
            format!("second\n{}\nb\n", "a".repeat(5000))
        );
    }
}

/// Of a version that was replaced: a line that its appender writes now goes elsewhere, and the kernel counts it here.
#[test]
fn w10_what_is_copied_of_a_replaced_log_ends_with_a_line() {
    for copy in ["by_sendfile()", "by_copy_file_range()"] {
        let mut log = replaced_log();
        let mut writer = Puppet::new(&log.project);
        // Who opens is told how long it is: nobody does when it has grown.
        assert_eq!(writer.does("third = open('log.jsonl', 'w')"), "ok");
        assert_eq!(log.elsewhere.does("os.write(fd, b'a' * 5000 + b'\\n')"), "5001");
        assert_eq!(writer.does("third.close()"), "None");
        assert_eq!(log.here.does("os.write(fd, b'b\\n')"), "2");
        let whole = format!("{copy} == 'second\\n' + 'a' * 5000 + '\\n'");
        assert_eq!(log.reader.does(&whole), "True", "{copy}");
        assert_eq!(log.project.read("log.jsonl").len(), 5001 + 2);
    }
}

/// Beside a program that empties the log, as cp(1) does it within the mount.
#[test]
fn w10_copies_of_a_log_that_is_appended_to_and_emptied_end_with_a_line() {
    watchdog();
    let project = begun("log.jsonl", "");
    let appender = "import os, random
while True:
    fd = os.open('log.jsonl', os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number in range(40):
        os.write(fd, b'<%d %s>\\n' % (number, b'z' * random.choice([0, 30, 700])))
    os.close(fd)";
    // They end with the test.
    let _appending: Vec<Running> = (0..3).map(|_| Running::start(project.python(appender))).collect();
    let _emptying = Running::start(project.sh("while :; do sleep 0.05; : > log.jsonl; done"));
    let copier = "import os, time
end, number = time.monotonic() + 4, 0
while time.monotonic() < end or number < 50:
    seen, to = os.open('log.jsonl', os.O_RDONLY), os.open('copy', os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.fstat(seen)
    while os.copy_file_range(seen, to, 1 << 30):
        pass
    text = os.pread(to, 1 << 30, 0)
    os.close(seen); os.close(to)
    assert all(line[:1] + line[-1:] == b'<>' for line in text.split(b'\\n')[:-1]), text
    assert not text or text.endswith(b'>\\n'), text[-100:]
    number += 1
print('whole')";
    let mut copying: Vec<Running> = ["x", "y"]
        .iter()
        .map(|name| Running::start(project.python(&copier.replace("'copy'", &format!("'{name}'")))))
        .collect();
    for copies in &mut copying {
        assert_eq!(copies.hear(), "whole");
    }
}

/// Of two programs that are the first to call copy_file_range(2) in the same moment, the kernel takes one's answer for the daemon's not having that call at all.
#[test]
fn w10_copies_go_through_the_daemon_whoever_copies_first() {
    watchdog();
    for _ in 0..8 {
        let project = begun("log.jsonl", "first\n");
        let daemon = pid(&project);
        let copier = "import os, sys, time
seen, to = os.open('log.jsonl', os.O_RDONLY), os.open('copy.' + sys.argv[1], os.O_RDWR | os.O_CREAT)
print('ready', flush=True)
until = float(sys.stdin.readline())
while time.time() < until: pass
print(os.copy_file_range(seen, to, 100))";
        let mut copying: Vec<Running> = (0..8)
            .map(|number| {
                let mut command = project.python(copier);
                command.arg(number.to_string());
                Running::start(command)
            })
            .collect();
        for copier in &mut copying {
            assert_eq!(copier.hear(), "ready");
        }
        let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_millis(100);
        for copier in &mut copying {
            copier.say(&until.as_secs_f64().to_string());
        }
        for copier in &mut copying {
            assert_eq!(copier.hear(), "6");
        }
        let long = 32 << 20;
        let make = format!("head -c {long} /dev/zero | tr '\\0' x > long.jsonl");
        succeed(project.sh(&make));
        let before = answers(daemon);
        let copy = "import os
seen, to = os.open('long.jsonl', os.O_RDONLY), os.open('copy', os.O_RDWR | os.O_CREAT)
print(os.copy_file_range(seen, to, 1 << 30))";
        assert_eq!(succeed(project.python(copy)), format!("{long}\n"));
        let answers = answers(daemon) - before;
        assert!(answers < 30, "the kernel has read it by {answers} answers");
    }
}

/// A project whose daemon has made the first copy of the mount: before, two programs whose first ones meet still copy by the kernel's pages.
fn begun(name: &str, content: &str) -> Project {
    let project = Project::with(&[(name, content)]);
    let daemon = pid(&project);
    eventually("the mount has begun", || has_told(daemon));
    project
}

fn pid(project: &Project) -> u64 {
    project.status()["pid"].as_u64().unwrap()
}

/// Whether the process that tells watchers has done anything.
fn has_told(daemon: u64) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{daemon}/task")).unwrap().flatten();
    let children = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    children
        .flat_map(|pids| pids.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .any(|pid| counted(&pid, "wchar") > 0)
}

/// How often a process has written something.
fn answers(pid: u64) -> u64 {
    counted(&pid.to_string(), "syscw")
}

fn counted(pid: &str, what: &str) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}
