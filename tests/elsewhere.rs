//! F5 where a mount is to be seen at more places than its own: bound, copied into other mount namespaces, or carried away with a directory above.

mod support;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::mount::UnmountFlags;
use support::{Project, Running, concord, eventually, mounts_at, refused, run, succeed, text, wait, watchdog};

/// A project that is mounted by itself, and whatever a test adds to that; all unmounted on the way out.
struct Shown {
    project: Project,
    places: Vec<PathBuf>,
    /// A namespace has a copy of all mounts, those of the other tests too.
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

impl Shown {
    /// Nothing without root.
    fn new() -> Option<Shown> {
        watchdog();
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root: not tested");
            return None;
        }
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let project = Project::unmounted(&[("top/p/STATE.md", "v1\n"), ("b/x", "")]);
        let places = ["top/p", "new/p", "b"].map(|name| project.path(name)).to_vec();
        let shown = Shown {
            project,
            places,
            _alone,
        };
        shown.says(&["mount"], "top/p");
        Some(shown)
    }

    fn does(&self, verb: &[&str], name: &str) -> Output {
        let mut command = concord(verb);
        command.arg(self.project.path(name));
        run(command)
    }

    fn says(&self, verb: &[&str], name: &str) -> String {
        let output = self.does(verb, name);
        assert!(output.status.success(), "{verb:?} {name}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn refuses(&self, verb: &[&str], name: &str) -> String {
        refused(&self.does(verb, name))
    }

    fn bind(&self) {
        succeed(self.project.sh("mount --bind top/p b"));
    }

    fn state(&self, name: &str) -> String {
        self.project.read(&format!("{name}/STATE.md"))
    }

    /// Everything is as it was after a mount that was unmounted in good order.
    fn is_at_rest(&self) {
        for place in &self.places {
            assert_eq!(mounts_at(place), 0, "{}", place.display());
        }
        assert!(!self.project.path("top/p/.concord/daemon.json").exists());
        self.says(&["recover"], "top/p");
        self.says(&["mount"], "top/p");
        succeed(self.project.sh("echo again > top/p/STATE.md"));
        self.says(&["unmount"], "top/p");
        assert_eq!(self.state("top/p"), "again\n");
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        for place in &self.places {
            if mounts_at(place) > 0 {
                let mut unmount = concord(&["unmount", "--force"]);
                unmount.arg(place);
                run(unmount);
            }
            while rustix::mount::unmount(place, UnmountFlags::DETACH).is_ok() {}
        }
    }
}

/// A process in a mount namespace of its own, with a copy of all mounts that there are.
fn namespace(propagation: &str) -> Running {
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--propagation",
        propagation,
        "sh",
        "-c",
        "echo in; read line",
    ]);
    let mut process = Running::start(command);
    assert_eq!(process.hear(), "in");
    process
}

#[test]
fn f5_a_mount_that_another_namespace_has_a_copy_of_is_not_unmounted_half() {
    let Some(shown) = Shown::new() else { return };
    let mut other = namespace("private");
    let said = shown.refuses(&["unmount"], "top/p");
    let expected = format!("(pid {})", other.pid());
    assert!(said.contains(&expected) && said.contains("--force"), "{said}");
    assert_eq!(mounts_at(&shown.places[0]), 1);
    succeed(shown.project.sh("echo v2 > top/p/STATE.md"));
    assert_eq!(
        shown.project.history("top/p/STATE.md").len(),
        2,
        "it is coordinated as before"
    );
    // With the other's end all is well, also a little later; by force also before.
    let mut unmount = concord(&["unmount"]);
    let mut unmount = unmount.arg(&shown.places[0]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    other.say("");
    other.finish();
    assert!(wait(&mut unmount, support::command_time_max()).success());
    shown.says(&["mount"], "top/p");
    let mut other = namespace("private");
    shown.says(&["unmount", "--force"], "top/p");
    let copy = format!("/proc/{}/root{}/STATE.md", other.pid(), shown.places[0].display());
    let errno = std::fs::read(copy).unwrap_err().raw_os_error();
    assert_eq!(errno, Some(rustix::io::Errno::NOTCONN.raw_os_error()));
    shown.is_at_rest();
    other.say("");
    other.finish();
}

#[test]
fn f5_a_daemon_whose_mount_lives_on_in_a_copy_only_is_ended_by_force() {
    let Some(shown) = Shown::new() else { return };
    let mut other = namespace("private");
    rustix::mount::unmount(&shown.places[0], UnmountFlags::empty()).unwrap();
    let said = shown.refuses(&["unmount"], "top/p");
    assert!(
        said.contains("unmounted here") && said.contains("use --force"),
        "{said}"
    );
    shown.says(&["unmount", "--force"], "top/p");
    shown.is_at_rest();
    other.say("");
    other.finish();
}

#[test]
fn f5_a_mount_that_is_bound_elsewhere_is_taken_off_where_it_is_named() {
    let Some(shown) = Shown::new() else { return };
    shown.bind();
    let said = shown.refuses(&["unmount"], "top/p");
    assert!(said.contains(&shown.places[2].display().to_string()), "{said}");
    assert_eq!(shown.state("b"), "v1\n");
    shown.says(&["unmount"], "b");
    assert_eq!((mounts_at(&shown.places[0]), mounts_at(&shown.places[2])), (1, 0));
    succeed(shown.project.sh("echo v2 > top/p/STATE.md"));
    assert_eq!(shown.project.history("top/p/STATE.md").len(), 2);
    // A part of it too.
    succeed(shown.project.sh("mkdir top/p/d && mount --bind top/p/d b"));
    shown.says(&["unmount"], "b");
    assert_eq!((mounts_at(&shown.places[0]), mounts_at(&shown.places[2])), (1, 0));
    shown.bind();
    shown.says(&["unmount", "--force"], "top/p");
    shown.is_at_rest();
    // What is left of a mount goes by any name.
    shown.says(&["mount"], "top/p");
    shown.bind();
    rustix::mount::unmount(&shown.places[0], UnmountFlags::empty()).unwrap();
    shown.says(&["unmount"], "b");
    let beacon = shown.project.path("top/p/.concord/daemon.json");
    eventually("the daemon ends", || !beacon.exists());
    shown.is_at_rest();
}

#[test]
fn f5_a_mount_is_unmounted_where_it_is_when_a_directory_above_was_renamed() {
    let Some(shown) = Shown::new() else { return };
    succeed(shown.project.sh("mv top new"));
    shown.says(&["unmount"], "new/p");
    assert_eq!(mounts_at(&shown.places[1]), 0);
    shown.says(&["mount"], "new/p");
    succeed(shown.project.sh("mv new top"));
    shown.says(&["unmount", "--force"], "top/p");
    shown.is_at_rest();
}

/// As on most machines, where what is mounted comes to every service's namespace and goes with it.
#[test]
fn f5_a_copy_that_goes_with_the_mount_keeps_nobody_from_unmounting() {
    let Some(shown) = Shown::new() else { return };
    shown.says(&["unmount"], "top/p");
    let script = "mount --make-rshared / && $0 mount top/p
        unshare --mount --propagation slave sleep 600 & before=$!
        until [ $(readlink /proc/$before/ns/mnt) != $(readlink /proc/self/ns/mnt) ]; do sleep 0.1; done
        grep -q concordfs /proc/$before/mountinfo && $0 unmount top/p && ! grep top/p /proc/$before/mountinfo
        said=$?; $0 unmount --force top/p; kill $before; exit $said";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_concord")]);
    command.current_dir(shown.project.root());
    succeed(command);
    shown.is_at_rest();
}
