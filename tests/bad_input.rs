//! R6 on a real mount: garbage in the store, hostile names, paths longer than PATH_MAX, nonsense on the socket; and a mount by one who is not root.

mod support;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::fs::{CWD, Mode, OFlags};
use serde_json::Value;
use support::{Project, concord, eventually, run, succeed, text, watchdog};

/// Where a file's history is.
fn history_dir(project: &Project, name: &OsStr) -> PathBuf {
    let key = blake3::hash(name.as_bytes()).to_hex().to_string();
    project.path(".concord/history").join(&key[..2]).join(&key[..32])
}

/// Saves a file as programs do, and waits until it is a version: a child that another test forks may hold it for a moment.
fn save(project: &Project, name: &OsStr, content: &str, versions: usize) {
    std::fs::write(project.root().join(name), content).unwrap();
    eventually("the save is a version", || history(project, name).len() == versions);
}

/// `concord` with an argument that may begin with a dash.
fn about(project: &Project, arguments: &[&str], name: &OsStr) -> Output {
    let mut command = concord(arguments);
    command.arg("--").arg(name).current_dir(project.root());
    run(command)
}

fn history(project: &Project, name: &OsStr) -> Vec<Value> {
    let listed = about(project, &["history", "--json"], name);
    serde_json::from_slice(&listed.stdout).unwrap_or_else(|_| panic!("{name:?}: {}", text(&listed.stderr)))
}

fn shown(project: &Project, name: &OsStr, version: u64) -> String {
    let mut wanted = name.to_owned();
    wanted.push(format!("@{version}"));
    let output = about(project, &["show"], &wanted);
    assert!(output.status.success(), "{name:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Tells whether it is mounted; if not, it must have been refused with one line.
fn mounts_or_says_why(project: &mut Project, case: &str) -> bool {
    let mut command = concord(&["mount"]);
    command.arg(project.root());
    let output = run(command);
    if !output.status.success() {
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{case}: {said}");
        assert_eq!(said.matches('\n').count(), 1, "{case}: one line: {said}");
        assert!(said.contains(".concord"), "{case}: {said}");
        return false;
    }
    true
}

fn assert_no_panic(project: &Project, case: &str) {
    let log = std::fs::read(project.path(".concord/log")).unwrap();
    assert!(!text(&log).contains("panicked"), "{case}: {}", text(&log));
}

/// A file and a directory outside the project, which links in the store lead to.
struct Away(PathBuf);

impl Away {
    fn new(project: &Project) -> Away {
        let dir = project.outside().join("away");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("secret"), "secret").unwrap();
        std::fs::set_permissions(dir.join("secret"), PermissionsExt::from_mode(0o640)).unwrap();
        Away(dir)
    }

    fn link(&self, from: &Path) {
        symlink(self.0.join("secret"), from).unwrap();
    }

    fn assert_untouched(&self, case: &str) {
        let names: Vec<OsString> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["secret"], "{case}");
        let mode = std::fs::metadata(self.0.join("secret")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640, "{case}");
        let content = std::fs::read(self.0.join("secret")).unwrap();
        assert_eq!(text(&content), "secret", "{case}");
    }
}

/// The same bytes in each run, of every value.
fn noise(length: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

fn plant(project: &Project, away: &Away, seed: u8) {
    let store = project.path(".concord");
    for room in ["history", "shadows", "recovered"] {
        let room = store.join(room);
        std::fs::write(room.join("garbage"), noise(5000, seed)).unwrap();
        std::fs::create_dir_all(room.join("dir/in/dir")).unwrap();
        std::fs::write(room.join("dir/file"), noise(10, seed)).unwrap();
        away.link(&room.join("link"));
        symlink(&away.0, room.join("link-to-dir")).unwrap();
    }
    std::fs::write(store.join("shadows/journal"), noise(100_000, seed)).unwrap();
    let key = &blake3::hash(b"HURT.md").to_hex().to_string()[..32];
    away.link(&store.join(format!("shadows/00000000000000{seed:02x}.{key}.1f")));
    away.link(&store.join(format!("shadows/00000000000000{seed:02x}.new")));
    away.link(&store.join("recovered/2026-01-01T00:00:00Z-1"));
    away.link(&store.join("recovered/2026-01-01T00:00:00Z-1.json"));
    symlink(&away.0, store.join("history/zz")).unwrap();
    let hurt = history_dir(project, OsStr::new("HURT.md"));
    away.link(&hurt.join("7"));
    away.link(&hurt.join("8.json"));
    away.link(&hurt.join("9.part"));
    symlink(&away.0, hurt.join("10")).unwrap();
}

#[test]
fn r6_garbage_in_the_store_costs_at_most_what_it_replaced() {
    watchdog();
    for seed in 0..6 {
        let case = format!("seed {seed}");
        let mut project = Project::with(&[("HURT.md", "hurt 1"), ("KEPT.md", "kept 1")]);
        let away = Away::new(&project);
        let (hurt, kept) = (OsStr::new("HURT.md"), OsStr::new("KEPT.md"));
        save(&project, hurt, "hurt 2", 2);
        save(&project, hurt, "hurt 3", 3);
        save(&project, kept, "kept 2", 2);
        project.unmount();
        let dir = history_dir(&project, hurt);
        for number in 1..=3u64 {
            let path = dir.join(format!("{number}.json"));
            let mut record = std::fs::read(&path).unwrap();
            if (number + u64::from(seed)).is_multiple_of(2) {
                record.truncate(record.len() * usize::from(seed) / 6);
            } else {
                let at = usize::from(noise(1, seed)[0]) % record.len();
                record[at] ^= 1 << seed;
            }
            std::fs::write(path, record).unwrap();
        }
        plant(&project, &away, seed);
        if seed == 5 {
            std::fs::write(dir.join("path"), "../away/secret").unwrap();
        }
        project.mount();
        assert_eq!(
            (project.read("HURT.md"), project.read("KEPT.md")),
            ("hurt 3".into(), "kept 2".into())
        );
        assert_eq!(history(&project, kept).len(), 2, "{case}");
        assert_eq!(shown(&project, kept, 1), "kept 1", "{case}");
        save(&project, kept, "kept 3", 3);
        std::fs::write(project.path("HURT.md"), "hurt 4").unwrap();
        eventually("the save is a version", || {
            history(&project, hurt)
                .first()
                .is_some_and(|newest| newest["bytes"] == 6 && newest["how"] != "found")
        });
        let newest = history(&project, hurt)[0]["version"].as_u64().unwrap();
        assert_eq!(shown(&project, hurt, newest), "hurt 4", "{case}");
        assert_eq!(project.read("HURT.md"), "hurt 4", "{case}");
        assert!(project.status()["sessions"].as_array().unwrap().is_empty(), "{case}");
        project.unmount();
        away.assert_untouched(&case);
        assert_no_panic(&project, &case);
        project.mount();
        assert_eq!(shown(&project, kept, 2), "kept 2", "{case}");
        project.unmount();
        away.assert_untouched(&case);
    }
}

#[test]
fn r6_a_link_in_place_of_anything_in_the_store_is_not_followed() {
    watchdog();
    let names = [
        "format",
        "lock",
        "log",
        "daemon.json",
        "daemon.json.new",
        "sock",
        "moves",
        "shadows/journal",
        "shadows",
        "history",
        "recovered",
    ];
    let mut mounted = 0;
    for name in names {
        let mut project = Project::with(&[("STATE.md", "v1")]);
        let away = Away::new(&project);
        project.unmount();
        let path = project.path(".concord").join(name);
        if path.is_dir() {
            std::fs::rename(&path, project.outside().join("moved")).unwrap();
            symlink(&away.0, &path).unwrap();
        } else {
            let _ = std::fs::remove_file(&path);
            away.link(&path);
        }
        if mounts_or_says_why(&mut project, name) {
            mounted += 1;
            std::fs::write(project.path("STATE.md"), "v2").unwrap();
            assert_eq!(project.read("STATE.md"), "v2", "{name}");
            project.unmount();
        } else {
            assert_eq!(project.read("STATE.md"), "v1", "{name}");
        }
        away.assert_untouched(name);
    }
    assert!(mounted > 0);
}

#[test]
fn r6_hostile_names_of_coordinated_files_have_histories() {
    watchdog();
    let long = [b"n".repeat(252), b".md".to_vec()].concat();
    let names: Vec<&[u8]> = vec![
        b"new\nline.md",
        b"not utf-8 \xff\xfe\x80.md",
        &long,
        b"-rf.md",
        b"--json.md",
        b"a@1.md",
        b"@.md",
        b"100%.md",
        b"new%0Aline.md",
        b"\x1b[31m\"'\\ $(x).md",
    ];
    let mut project = Project::with(&[]);
    for name in &names {
        let name = OsStr::from_bytes(name);
        save(&project, name, "one", 1);
        save(&project, name, "the second", 2);
    }
    project.unmount();
    project.mount();
    for name in &names {
        let name = OsStr::from_bytes(name);
        assert_eq!(history(&project, name).len(), 2, "{name:?}");
        assert_eq!(shown(&project, name, 1), "one", "{name:?}");
        assert_eq!(
            std::fs::read(project.root().join(name)).unwrap(),
            b"the second",
            "{name:?}"
        );
    }
    assert_eq!(project.recovered().len(), 0);
    project.unmount();
    assert_no_panic(&project, "names");
}

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The directory at the end of many, each made when it is not there.
fn descend(project: &Project, name: &str, depth: usize) -> OwnedFd {
    let mut at = rustix::fs::openat(CWD, project.root(), DIR, Mode::empty()).unwrap();
    for _ in 0..depth {
        let _ = rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755));
        at = rustix::fs::openat(&at, name, DIR, Mode::empty()).unwrap();
    }
    at
}

#[test]
fn r6_a_coordinated_file_deeper_than_path_max_is_saved_and_its_version_kept() {
    watchdog();
    let (name, depth) = ("d".repeat(250), 20);
    let path = [vec![name.as_str(); depth].join("/"), "STATE.md".into()].join("/");
    assert!(path.len() > 4096);
    let mut project = Project::with(&[]);
    for content in ["one", "the second"] {
        let dir = descend(&project, &name, depth);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir, "STATE.md", flags, Mode::from_raw_mode(0o644)).unwrap();
        std::fs::File::from(file).write_all(content.as_bytes()).unwrap();
        eventually("it is saved", || {
            project.status()["sessions"].as_array().unwrap().is_empty()
        });
    }
    for _ in 0..2 {
        let dir = descend(&project, &name, depth);
        let file = rustix::fs::openat(&dir, "STATE.md", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        assert_eq!(
            std::io::read_to_string(std::fs::File::from(file)).unwrap(),
            "the second"
        );
        drop(dir);
        project.unmount();
        let kept = history_dir(&project, OsStr::new(&path));
        assert_eq!(std::fs::read(kept.join("path")).unwrap(), path.as_bytes());
        assert_eq!(std::fs::read(kept.join("1")).unwrap(), b"one");
        project.mount();
    }
    project.unmount();
    assert_no_panic(&project, "deep");
}

#[test]
fn r6_nonsense_on_the_control_socket_does_not_disturb_the_daemon() {
    watchdog();
    let mut project = Project::with(&[("STATE.md", "v1")]);
    let beacon = std::fs::read(project.path(".concord/daemon.json")).unwrap();
    let beacon: Value = serde_json::from_slice(&beacon).unwrap();
    let socket = format!("/proc/{}/fd/{}/.concord/sock", beacon["pid"], beacon["root_fd"]);
    let lines = [
        noise(4096, 1),
        b"{\"status\"".to_vec(),
        vec![b'x'; 1 << 20],
        vec![b'\n'; 4096],
        vec![b'['; 60_000],
        b"{}\n".to_vec(),
    ];
    let mut open = Vec::new();
    for line in &lines {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream
            .set_write_timeout(Some(std::time::Duration::from_secs(5)))
            .unwrap();
        // The daemon may hang up as soon as it has had enough.
        let _ = stream.write_all(line);
        assert_eq!(
            project.status()["sessions"],
            Value::Array(Vec::new()),
            "{:?}",
            &line[..2]
        );
        open.push(stream);
    }
    save(&project, OsStr::new("STATE.md"), "v2", 2);
    drop(open);
    let mut command = concord(&["status"]);
    command.arg(project.root());
    succeed(command);
    project.unmount();
    assert_no_panic(&project, "socket");
}

fn as_user(mut command: Command) -> Command {
    command.uid(1000).gid(1000);
    command
}

/// Why a user who is not root cannot mount here, if so.
fn no_user_mount() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("all tests here are of a user who is not root".into());
    }
    let mut opens = as_user(Command::new("sh"));
    opens.args(["-c", "exec 3<>/dev/fuse && command -v fusermount3"]);
    let output = run(opens);
    (!output.status.success()).then(|| format!("uid 1000 cannot mount: {}", text(&output.stderr)))
}

#[test]
fn w1_a_user_who_is_not_root_mounts_over_his_own_directory() {
    watchdog();
    if let Some(reason) = no_user_mount() {
        eprintln!("not tested: {reason}");
        return;
    }
    let project = Project::unmounted(&[("STATE.md", "v1")]);
    for path in [project.root(), project.path("STATE.md")] {
        std::os::unix::fs::chown(path, Some(1000), Some(1000)).unwrap();
    }
    // The build's directory may be closed to him.
    let binary = project.outside().join("concord");
    std::fs::copy(env!("CARGO_BIN_EXE_concord"), &binary).unwrap();
    let by_user = |script: &str| {
        let mut command = Command::new("sh");
        command
            .args(["-ec", script, "sh"])
            .arg(&binary)
            .current_dir(project.outside());
        succeed(as_user(command))
    };
    by_user("\"$1\" mount project");
    by_user("cd project; printf v2 > STATE.md; printf v3 > STATE.md");
    let listed: Vec<Value> = serde_json::from_str(&by_user("\"$1\" history --json project/STATE.md")).unwrap();
    assert_eq!(listed.len(), 3);
    assert_eq!(by_user("\"$1\" show project/STATE.md@1; cat project/STATE.md"), "v1v3");
    by_user("\"$1\" unmount project");
    assert_eq!(project.read("STATE.md"), "v3");
    assert_no_panic(&project, "user");
}

/// A mount that fails when nearly everything is done.
fn mount_without_fuse(project: &Project) -> String {
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "sh",
        "-ec",
        "mount --bind /dev/null /dev/fuse; exec \"$0\" mount \"$1\"",
    ]);
    command.arg(env!("CARGO_BIN_EXE_concord")).arg(project.root());
    support::refused(&run(command))
}

#[test]
fn f5_a_mount_that_fails_leaves_no_store_that_it_has_made() {
    watchdog();
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: not tested");
        return;
    }
    let mut project = Project::unmounted(&[("a.md", "v1")]);
    let said = mount_without_fuse(&project);
    assert!(said.contains("/dev/fuse"), "{said}");
    assert!(!project.path(".concord").exists(), "{said}");
    project.mount();
    std::fs::write(project.path("a.md"), "v2").unwrap();
    project.unmount();
    mount_without_fuse(&project);
    assert_eq!(
        history(&project, OsStr::new("a.md")).len(),
        2,
        "one that was there stays"
    );
    project.mount();
    assert_eq!(shown(&project, OsStr::new("a.md"), 1), "v1");
}

#[test]
fn w11_a_daemon_that_may_not_give_a_file_its_owner_refuses_to_open_it_for_writing() {
    watchdog();
    if let Some(reason) = no_user_mount() {
        eprintln!("not tested: {reason}");
        return;
    }
    let project = Project::unmounted(&[("STATE.md", "root's")]);
    std::os::unix::fs::chown(project.root(), Some(1000), Some(1000)).unwrap();
    std::fs::set_permissions(project.path("STATE.md"), PermissionsExt::from_mode(0o666)).unwrap();
    let binary = project.outside().join("concord");
    std::fs::copy(env!("CARGO_BIN_EXE_concord"), &binary).unwrap();
    let by_user = |script: &str| {
        let mut command = Command::new("sh");
        command
            .args(["-c", script, "sh"])
            .arg(&binary)
            .current_dir(project.outside());
        run(as_user(command))
    };
    assert!(by_user("\"$1\" mount project").status.success());
    let refused = by_user("cat project/STATE.md; echo more >> project/STATE.md");
    assert_eq!(text(&refused.stdout), "root's");
    let said = text(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("Operation not permitted"),
        "{said}"
    );
    assert!(by_user("\"$1\" unmount project").status.success());
    assert_eq!(project.read("STATE.md"), "root's");
    let left = std::fs::read_dir(project.path(".concord/shadows")).unwrap();
    assert_eq!(left.count(), 1, "the journal only");
}

#[test]
fn r6_what_is_no_regular_file_is_not_compared_and_hangs_nobody() {
    watchdog();
    let mut project = Project::with(&[("a.md", "one\n")]);
    save(&project, OsStr::new("a.md"), "two\n", 2);
    for mounted in [true, false] {
        let path = project.path("a.md");
        let _ = std::fs::remove_file(&path);
        for kind in ["a FIFO", "a directory", "a socket"] {
            match kind {
                "a FIFO" => {
                    rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap()
                }
                "a directory" => std::fs::create_dir(&path).unwrap(),
                _ => drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
            }
            let output = about(&project, &["diff"], OsStr::new("a.md@1"));
            let said = support::refused(&output);
            assert!(said.contains(kind) && said.contains("a.md"), "{mounted}: {said}");
            for verb in ["history", "show", "restore"] {
                let name = if verb == "history" { "a.md" } else { "a.md@9" };
                let output = about(&project, &[verb], OsStr::new(name));
                assert!(
                    output.status.code().is_some_and(|code| code < 2),
                    "{verb}: {}",
                    text(&output.stderr)
                );
            }
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
        }
        if mounted {
            project.unmount();
        }
    }
}

#[test]
fn f5_what_is_planted_in_the_place_of_the_log_keeps_nobody_waiting() {
    watchdog();
    for plant in ["mkfifo log", "mkdir log", "ln -s ../outside log", "ln ../outside log"] {
        let mut project = Project::unmounted(&[("a.md", "v1\n"), ("outside", "outside\n")]);
        project.mount();
        project.unmount();
        let mut planted = project.sh(&format!("cd .concord && rm log && {plant}"));
        planted.current_dir(project.root());
        succeed(planted);
        project.mount();
        assert!(project.read(".concord/log").contains("mounted over"), "{plant}");
        assert_eq!(project.read("outside"), "outside\n", "{plant}");
        project.unmount();
    }
}
