//! W10: what programs copy without read(2).

mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use support::{Project, Running, eventually, succeed, watchdog};

/// Of two programs that are the first to call copy_file_range(2) in the same moment, the kernel takes one's answer for the daemon's not having that call at all.
#[test]
fn w10_copies_go_through_the_daemon_whoever_copies_first() {
    watchdog();
    for _ in 0..8 {
        let project = Project::with(&[("log.jsonl", "first\n")]);
        let daemon = project.status()["pid"].as_u64().unwrap();
        eventually("the mount has begun", || has_told(daemon));
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
