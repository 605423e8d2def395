//! What is not mounted, and why: two daemons for one tree, mounts that would share files, directories that cannot be mounted over (F5).

mod support;

use std::path::{Path, PathBuf};
use std::process::Output;
use support::puppet::Puppet;
use support::{Project, as_nobody, concord, is_gone, mounts_at, on, refused, run, succeed, text, wait, watchdog};

#[test]
fn f5_two_mounts_over_one_project_are_refused() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let said = refused(&on(&["mount"], &project.root()));
    assert!(said.contains("already a concord mount"), "{said}");
    assert_eq!(mounts_at(&project.root()), 1);
    assert_eq!(project.read("STATE.md"), "v1\n");
}

#[test]
fn f5_two_daemons_for_one_backing_tree_are_refused() {
    watchdog();
    let mut project = Project::unmounted(&[]);
    let backing = project.outside().join("backing");
    let second = project.outside().join("second");
    for dir in [&backing, &second] {
        std::fs::create_dir(dir).unwrap();
    }
    std::fs::write(backing.join("STATE.md"), "v1\n").unwrap();
    let daemon = {
        let mut command = concord(&["mount", "--backing"]);
        command.arg(&backing).arg(project.root());
        succeed(command);
        let beacon: serde_json::Value =
            serde_json::from_slice(&std::fs::read(backing.join(".concord/daemon.json")).unwrap()).unwrap();
        beacon["pid"].as_u64().unwrap() as u32
    };
    assert_eq!(project.read("STATE.md"), "v1\n");
    let mut command = concord(&["mount", "--backing"]);
    command.arg(&backing).arg(&second);
    let said = refused(&run(command));
    assert!(
        said.contains(&daemon.to_string()) && said.contains("coordinated already"),
        "{said}"
    );
    let said = refused(&on(&["mount"], &backing));
    assert!(said.contains(&daemon.to_string()), "{said}");
    assert_eq!((mounts_at(&second), mounts_at(&backing)), (0, 0));
    let said = refused(&on(&["recover"], &backing));
    assert!(said.contains("unmount that first"), "{said}");
    succeed(project.sh("echo v2 > STATE.md"));
    project.unmount();
    assert_eq!(std::fs::read_to_string(backing.join("STATE.md")).unwrap(), "v2\n");
    assert!(is_gone(daemon));
}

/// Unmounts on the way out, whatever became of the test.
struct Unmounts(Vec<PathBuf>);

impl Drop for Unmounts {
    fn drop(&mut self) {
        for dir in self.0.iter().rev() {
            if mounts_at(dir) > 0 {
                run({
                    let mut command = concord(&["unmount", "--force"]);
                    command.arg(dir);
                    command
                });
            }
            while rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH).is_ok() {}
        }
    }
}

fn shows(backing: &Path, at: &Path) -> Output {
    let mut command = concord(&["mount", "--backing"]);
    command.arg(backing).arg(at);
    run(command)
}

#[test]
fn f5_a_mount_that_would_share_files_with_another_is_refused_and_nothing_is_changed() {
    watchdog();
    let project = Project::unmounted(&[
        ("q/sub/a.md", "a\n"),
        ("q/b.md", "b\n"),
        ("m/x/c.md", ""),
        ("p/d.md", ""),
        ("r/e.md", ""),
    ]);
    let dir = |name: &str| project.path(name);
    let _unmounts = Unmounts(["m", "p", "q", "q/sub", "m/x"].map(dir).to_vec());
    assert!(shows(&dir("q"), &dir("m")).status.success());
    for (backing, at, expected) in [
        ("q/sub", "p", "coordinated already"),
        ("q/sub", "q/sub", "coordinated already"),
        ("q", "q", "coordinated already"),
        ("m/sub", "m/sub", "lies in the concord mount"),
        ("m", "p", "already a concord mount"),
        (".", "p", "in it is coordinated already"),
    ] {
        let said = refused(&shows(&dir(backing), &dir(at)));
        let root = dir("m").display().to_string();
        assert!(
            said.contains(expected) && said.contains(&root),
            "{backing} {at}: {said}"
        );
        assert!(!project.path("q/sub/.concord").exists(), "{backing} {at}");
    }
    // A mount point in a mount is another filesystem, as long as its files are.
    let inner = shows(&dir("r"), &dir("m/sub"));
    assert!(inner.status.success(), "{}", text(&inner.stderr));
    std::fs::write(dir("m/sub/e.md"), "e\n").unwrap();
    assert_eq!(std::fs::read_to_string(dir("r/e.md")).unwrap(), "e\n");
    for at in ["m/sub", "m"] {
        let output = on(&["unmount"], &dir(at));
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    // The other way round: what is mounted already lies in what is to be.
    assert!(shows(&dir("q/sub"), &dir("p")).status.success());
    let said = refused(&shows(&dir("q"), &dir("q")));
    assert!(said.contains("q/sub in it is coordinated already"), "{said}");
    assert!(on(&["unmount"], &dir("p")).status.success());
    assert!(shows(&dir("r"), &dir("m/x")).status.success());
    let said = refused(&shows(&dir("m"), &dir("m")));
    assert!(said.contains("there is a concord mount in it"), "{said}");
    assert!(!project.path("m/.concord").exists());
}

#[test]
fn f5_of_two_mounts_over_one_tree_that_begin_at_once_one_is_refused() {
    watchdog();
    for _ in 0..6 {
        let project = Project::unmounted(&[("q/sub/a.md", "a\n")]);
        let dirs = [project.path("q"), project.path("q/sub")];
        let _unmounts = Unmounts(dirs.to_vec());
        let start = |dir: &PathBuf| {
            let mut command = concord(&["mount"]);
            command
                .arg(dir)
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null());
            command.spawn().unwrap()
        };
        let mut both = dirs.each_ref().map(start);
        let mounted = both
            .each_mut()
            .map(|child| wait(child, support::command_time_max()).success());
        assert_eq!(mounted.iter().filter(|mounted| **mounted).count(), 1, "{mounted:?}");
    }
}

#[test]
fn what_cannot_be_mounted_is_refused_in_one_line_and_nothing_is_changed() {
    watchdog();
    let project = Project::unmounted(&[("file", ""), ("dir/x.md", "x")]);
    assert!(refused(&on(&["mount"], &project.path("file"))).contains("not a directory"));
    assert!(refused(&on(&["mount"], &project.path("none"))).contains("no such directory"));
    std::fs::create_dir(project.path("dir/.concord")).unwrap();
    std::fs::write(project.path("dir/.concord/format"), "concordfs 99\n").unwrap();
    for verb in ["mount", "recover"] {
        let said = refused(&on(&[verb], &project.path("dir")));
        assert!(said.contains("99") && said.contains("newer"), "{verb}: {said}");
    }
    std::fs::write(project.path("dir/.concord/format"), "something else\n").unwrap();
    assert!(refused(&on(&["mount"], &project.path("dir"))).contains("format"));
    assert_eq!(
        std::fs::read_dir(project.path("dir/.concord")).unwrap().count(),
        1,
        "nothing was added"
    );
    assert_eq!(mounts_at(&project.path("dir")), 0);
    assert!(!project.path(".concord").exists());
    // As a user who may not use the directory.
    std::os::unix::fs::chown(project.path("dir"), Some(4321), Some(4321)).unwrap();
    std::fs::set_permissions(project.path("dir"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mut command = as_nobody(env!("CARGO_BIN_EXE_concord"));
    command.arg("mount").arg(project.path("dir"));
    let said = refused(&run(command));
    assert!(said.contains("you need to be able to"), "{said}");
}

/// `concord mount` under a limit that a shell sets.
fn mount_under(limit: &str, project: &Project) -> Output {
    let mut mount = std::process::Command::new("sh");
    mount.args(["-c", &format!("ulimit {limit}; exec \"$0\" mount \"$1\"")]);
    mount.arg(env!("CARGO_BIN_EXE_concord")).arg(project.root());
    run(mount)
}

#[test]
fn f3_a_limit_of_file_sizes_of_who_mounts_does_not_end_the_daemon() {
    watchdog();
    let project = Project::unmounted(&[("a.md", "one\n")]);
    // 100 KiB, in the shell's blocks of 512 bytes.
    let mounted = mount_under("-f 200", &project);
    assert!(mounted.status.success(), "{}", text(&mounted.stderr));
    let mut writer = Puppet::new(&project);
    for (how, name) in [
        ("os.O_WRONLY | os.O_CREAT", "big.md"),
        ("os.O_WRONLY | os.O_APPEND", "a.md"),
    ] {
        // Where the daemon may raise the limit it is as if there was none.
        let saved = writer.does(&format!("put('{name}', 'x' * 300000 + '\\n', {how})"));
        assert!(saved == "None" || saved == "EFBIG", "{saved}");
        let size = std::fs::metadata(project.path(name)).map_or(0, |stat| stat.len());
        assert!(
            saved == "EFBIG" && size <= 4 || size > 300_000,
            "{name}: {saved}, {size}"
        );
    }
    assert_eq!(writer.does("put('a.md', 'two')"), "None");
    assert_eq!(project.read("a.md"), "two");
    // It has what failed open still.
    drop(writer);
    let mut unmount = concord(&["unmount"]);
    unmount.arg(project.root());
    succeed(unmount);
}

#[test]
fn f3_a_mount_with_hardly_any_descriptors_is_refused_with_what_to_do() {
    watchdog();
    let project = Project::unmounted(&[("a.md", "one\n")]);
    let said = refused(&mount_under("-n 64", &project));
    assert!(said.contains("64 open files") && said.contains("ulimit -Hn"), "{said}");
    assert_eq!(mounts_at(&project.root()), 0);
    assert!(!project.path(".concord").exists());
}
