//! F5 by the scripts that end mounts, scripts/recover.sh and scripts/unmount-all.sh, on a real mount.

mod support;

use std::path::PathBuf;
use std::process::{Command, Output};

use rustix::process::Signal;
use support::{Project, eventually, kill, run, text, watchdog};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/");

/// A script, for the program under test.
fn script(name: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(format!("{SCRIPTS}{name}"));
    command.args(arguments).env("CONCORD", env!("CARGO_BIN_EXE_concord"));
    run(command)
}

/// What it said, on both ways.
fn all(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

/// Continues the daemon whatever becomes of the test, so that its end is in nobody's way.
struct Stopped(u32);

impl Stopped {
    fn new(daemon: u32) -> Stopped {
        kill(daemon, Signal::STOP);
        eventually("it is stopped", || {
            std::fs::read_to_string(format!("/proc/{daemon}/status")).is_ok_and(|status| status.contains("State:\tT"))
        });
        Stopped(daemon)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        kill(self.0, Signal::CONT);
    }
}

/// Whatever the scripts do, no mount stays.
struct Gone(PathBuf);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn f5_a_mount_whose_path_has_blanks_and_digits_is_listed_and_unmounted_by_the_scripts() {
    watchdog();
    let project = Project::unmounted(&[]);
    // What mountinfo writes as three octal digits, before a fourth one.
    for name in ["p 1", "p\t7", "p\n1", "p\\040", "p#0"] {
        let root = project.path(name);
        std::fs::create_dir(&root).unwrap();
        let mut mount = support::concord(&["mount"]);
        mount.arg(&root);
        support::succeed(mount);
        let _gone = Gone(root.clone());
        let under = root.to_str().unwrap();
        let listed = all(&script("unmount-all.sh", &["--list", "--under", under]));
        let recovered = all(&script("recover.sh", &[under]));
        let unmounted = script("unmount-all.sh", &["--under", under]);
        assert!(listed.ends_with(" (alive)\n"), "{name:?}: {listed}");
        assert!(recovered.contains("the mount answers"), "{name:?}: {recovered}");
        assert!(all(&unmounted).contains("unmounted"), "{name:?}: {}", all(&unmounted));
    }
}

#[test]
fn f5_the_scripts_do_not_wait_for_a_stopped_daemon_and_by_force_the_project_is_recovered() {
    watchdog();
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: not tested");
        return;
    }
    let mut project = Project::unmounted(&[("a.md", "v1\n")]);
    let daemon = project.mount();
    std::fs::write(project.path("a.md"), "v2\n").unwrap();
    let root = project.root();
    let root = root.to_str().unwrap();
    let stopped = Stopped::new(daemon);
    let listed = script("unmount-all.sh", &["--list", "--under", root]);
    assert!(all(&listed).ends_with(" (stuck)\n"), "{}", all(&listed));
    for (name, arguments) in [
        ("unmount-all.sh", ["--under", root]),
        ("recover.sh", ["--no-mount", root]),
    ] {
        let refused = script(name, &arguments);
        assert_eq!(refused.status.code(), Some(1), "{name}: {}", all(&refused));
    }
    // Without a binary there is umount(8), which would.
    let programs = project.outside().join("bin");
    std::fs::create_dir(&programs).unwrap();
    let umount = programs.join("umount");
    std::fs::write(&umount, "#!/bin/sh\necho umount was called\n").unwrap();
    std::fs::set_permissions(&umount, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut without = Command::new(format!("{SCRIPTS}unmount-all.sh"));
    let path = std::env::var("PATH").unwrap();
    without.args(["--under", root]).env("CONCORD", "/nowhere/concord");
    without.env("PATH", format!("{}:{path}", programs.display()));
    let left = run(without);
    assert_eq!(left.status.code(), Some(1));
    assert!(!all(&left).contains("umount was called"), "{}", all(&left));
    let recovered = script("recover.sh", &["--force", "--no-mount", root]);
    assert!(recovered.status.success(), "{}", all(&recovered));
    assert!(all(&recovered).contains("recovered: 0"), "{}", all(&recovered));
    drop(stopped);
    project.mount();
    assert_eq!(project.read("a.md"), "v2\n");
    project.unmount();
}

#[test]
fn f5_the_scripts_act_on_nothing_when_an_option_lacks_its_value() {
    watchdog();
    // Listing only: should it not be refused, it is every mount of this machine.
    for arguments in [&["--list", "--under"][..], &["--list", "--under", ""]] {
        let refused = script("unmount-all.sh", arguments);
        assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(2), String::new()));
    }
}
