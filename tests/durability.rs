//! How far a publish waits for the disk: what the daemon asks of it, seen by strace(1).

mod support;

use std::process::Command;

use support::{Project, Running, concord, eventually, run, watchdog};

/// The syncs of the daemon while a file that has a history is saved once more.
fn syncs_of_a_save(durability: &str) -> Option<usize> {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("strace is not installed: what the daemon asks of the disk cannot be seen");
        return None;
    }
    let rules = format!("durability = \"{durability}\"\n");
    let project = Project::unmounted(&[("a.md", "one\n"), ("concord.toml", &rules)]);
    let trace = project.outside().join("trace");
    let mut traced = Command::new("strace");
    traced
        .args(["-f", "-qq", "-e", "trace=fsync,fdatasync,sync_file_range", "-o"])
        .arg(&trace);
    traced
        .arg(env!("CARGO_BIN_EXE_concord"))
        .args(["mount", "--foreground"])
        .arg(project.root());
    let daemon = Running::start(traced);
    eventually("it is mounted", || project.root().join(".concord/daemon.json").exists());
    let save = |text: &str| assert!(run(project.sh(&format!("echo {text} > a.md"))).status.success());
    let syncs = || {
        std::fs::read_to_string(&trace)
            .unwrap()
            .lines()
            .filter(|line| line.contains("sync("))
            .count()
    };
    save("two");
    let before = syncs();
    save("three");
    // What follows the answer is done when the mount has gone.
    let mut unmount = concord(&["unmount"]);
    unmount.arg(project.root());
    assert!(run(unmount).status.success());
    assert!(daemon.finish().success());
    assert_eq!(std::fs::read_to_string(project.path("a.md")).unwrap(), "three\n");
    Some(syncs() - before)
}

#[test]
fn f2_full_waits_for_content_and_name_atomic_for_content_and_fast_for_nothing() {
    watchdog();
    let of = |durability| syncs_of_a_save(durability);
    if let (Some(full), Some(atomic), Some(fast)) = (of("full"), of("atomic"), of("fast")) {
        assert_eq!((full, atomic, fast), (2, 1, 0));
    }
}
