//! Filesystems that are full, or lie below the mount as one more. Needs root, to mount them.

mod support;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use support::puppet::Puppet;
use support::{Project, concord, eventually, numbers, refused, run, text, watchdog};

/// A small filesystem, gone with the test. Declared before the project that uses it: so it goes after that.
struct Small {
    dir: tempfile::TempDir,
}

impl Small {
    /// Of 1 MiB, mounted on `name` in a directory of its own; nothing without root.
    fn on(name: &str) -> Option<Small> {
        Small::of("1m", name)
    }

    fn of(size: &str, name: &str) -> Option<Small> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root: not tested");
            return None;
        }
        let small = Small {
            dir: tempfile::tempdir().unwrap(),
        };
        let at = small.dir.path().join(name);
        std::fs::create_dir_all(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o"]).arg(format!("size={size}"));
        mount.arg("small").arg(&at);
        let mounted = run(mount);
        assert!(mounted.status.success(), "{}", text(&mounted.stderr));
        Some(small)
    }

    /// An ext4 of so many inodes, whose numbers come back at once when they are gone.
    fn with_few_inodes(inodes: u32) -> Option<Small> {
        let small = Small::on("small")?;
        rustix::mount::unmount(small.at("small"), rustix::mount::UnmountFlags::DETACH).unwrap();
        let image = small.at("image");
        File::create(&image).unwrap().set_len(8 << 20).unwrap();
        for (program, arguments) in [
            ("mkfs.ext4", &["-q", "-N", &inodes.to_string()][..]),
            ("mount", &["-o", "loop"]),
        ] {
            let mut command = Command::new(program);
            command.args(arguments).arg(&image);
            if program == "mount" {
                command.arg(small.at("small"));
            }
            support::succeed(command);
        }
        Some(small)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        for name in ["small", "tree/small"] {
            let _ = rustix::mount::unmount(self.at(name), rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn mounted(small: &Small, tree: &str) -> Project {
    let mut project = Project::unmounted(&[]);
    project.mount_with(&["--backing", small.at(tree).to_str().unwrap()]);
    project
}

#[test]
fn f3_a_save_that_did_not_fit_leaves_the_version_before() {
    watchdog();
    let Some(small) = Small::on("small") else { return };
    let project = mounted(&small, "small");
    let path = project.path("a.md");
    std::fs::write(&path, "old").unwrap();
    let program = "import os,errno
fd = os.open('a.md', os.O_WRONLY | os.O_TRUNC)
def tell(call):
    try: call()
    except OSError as e: print(errno.errorcode[e.errno])
def fill():
    left = b'x' * (2 << 20)
    while left: left = left[os.write(fd, left):]
tell(fill)
tell(lambda: os.close(fd))";
    assert_eq!(support::succeed(project.python(program)), "ENOSPC\nENOSPC\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    let recovered = project.recovered();
    assert_eq!(recovered.len(), 1, "{recovered:?}");
    let reason = recovered[0]["why"].as_str().unwrap();
    assert!(reason.contains("No space left"), "{reason}");
    let kept = std::fs::metadata(project.path(recovered[0]["kept"].as_str().unwrap())).unwrap();
    assert!(kept.len() > 900 << 10, "what fitted is kept: {}", kept.len());
}

#[test]
fn f3_a_writer_that_makes_room_and_writes_again_is_published() {
    watchdog();
    let Some(small) = Small::on("small") else { return };
    let project = mounted(&small, "small");
    let (path, filler) = (project.path("a.md"), project.path("filler"));
    std::fs::write(&path, "old").unwrap();
    std::fs::write(&filler, vec![0; 900 << 10]).unwrap();

    let mut file = File::create(&path).unwrap();
    let big = vec![b'x'; 400 << 10];
    assert!(file.write_all(&big).is_err());
    std::fs::remove_file(&filler).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    // The filler's room is free when its RELEASE has come, which close(2) and unlink(2) do not wait for.
    eventually("room", || file.write_all_at(&big, 0).is_ok());
    drop(file);
    assert_eq!(std::fs::read(&path).unwrap(), big);
}

/// A mount with `a.md`, 200 KiB of `o`, on a disk without room for a copy of it.
fn without_room(small: &Small) -> Project {
    let project = mounted(small, "small");
    std::fs::write(project.path("a.md"), vec![b'o'; 200 << 10]).unwrap();
    let filled = File::create(project.path("filler"))
        .unwrap()
        .write_all(&vec![0; 1 << 20]);
    assert!(filled.is_err(), "the disk is full");
    project
}

#[test]
fn f3_a_first_change_that_did_not_fit_is_an_error_of_close_until_it_is_made_good() {
    watchdog();
    let Some(small) = Small::on("small") else { return };
    let project = without_room(&small);
    let mut writer = Puppet::new(&project);
    let old = vec![b'o'; 200 << 10];
    for (change, close) in [
        ("os.pwrite(fd, b'w', 5)", "ENOSPC"),
        ("os.pwrite(fd, b'w', 5), os.pwrite(fd, b'w', 5)", "ENOSPC"),
        ("os.ftruncate(fd, 300000)", "None"),
        ("os.posix_fallocate(fd, 0, 300000)", "None"),
    ] {
        writer.does("fd = os.open('a.md', os.O_RDWR)");
        assert_eq!(writer.does(change), "ENOSPC", "{change}");
        assert_eq!(writer.does("os.close(fd)"), close, "{change}");
        assert_eq!(std::fs::read(project.path("a.md")).unwrap(), old, "{change}");
    }
    let status = project.status();
    assert_eq!(status["counts"]["failed"], 2, "{status}");
    assert_eq!(project.recovered().len(), 0, "nothing of it was staged");
    let told = status["incidents"].to_string();
    assert!(told.contains("a.md") && told.contains("No space left"), "{told}");
    // Two places, of which one is written again when there is room.
    writer.does("fd = os.open('a.md', os.O_RDWR)");
    assert_eq!(writer.does("os.pwrite(fd, b'first', 5)"), "ENOSPC");
    assert_eq!(writer.does("os.pwrite(fd, b'second', 50)"), "ENOSPC");
    writer.does("fd2 = os.open('a.md', os.O_RDWR | os.O_APPEND)");
    std::fs::remove_file(project.path("filler")).unwrap();
    eventually("room", || writer.does("os.pwrite(fd, b'second', 50)") == "6");
    assert_eq!(writer.does("os.close(fd2)"), "None");
    assert_eq!(writer.does("os.close(fd)"), "ENOSPC");
    assert_eq!(std::fs::read(project.path("a.md")).unwrap(), old);
    assert_eq!(project.recovered().len(), 1);
}

#[test]
fn f3_a_first_change_that_did_not_fit_and_is_made_again_is_published() {
    watchdog();
    for (open, change) in [
        ("os.O_RDWR", "os.pwrite(fd, b'new', 5)"),
        ("os.O_RDWR | os.O_APPEND", "os.write(fd, b'new')"),
    ] {
        let Some(small) = Small::on("small") else { return };
        let project = without_room(&small);
        let mut writer = Puppet::new(&project);
        writer.does(&format!("fd = os.open('a.md', {open})"));
        assert_eq!(writer.does(change), "ENOSPC");
        std::fs::remove_file(project.path("filler")).unwrap();
        eventually("room", || writer.does(change) == "3");
        assert_eq!(writer.does("os.fsync(fd), os.close(fd)"), "(None, None)");
        assert!(project.read("a.md").contains("new"));
    }
}

#[test]
fn f3_what_was_stored_through_a_mapping_and_did_not_fit_is_told_by_the_last_close_too() {
    watchdog();
    let Some(small) = Small::on("small") else { return };
    let project = without_room(&small);
    let mut writer = Puppet::new(&project);
    writer.does("fd = os.open('a.md', os.O_RDWR)");
    writer.does("last = os.dup(fd)");
    writer.does("m = mmap.mmap(fd, 204800)");
    writer.does("m[0:204800] = b'n' * 204800");
    assert_eq!(writer.does("os.close(fd)"), "ENOSPC");
    assert_eq!(writer.does("m.close()"), "None");
    assert_eq!(writer.does("os.close(last)"), "ENOSPC");
    assert_eq!(std::fs::read(project.path("a.md")).unwrap(), vec![b'o'; 200 << 10]);
    let status = project.status();
    assert_eq!(status["counts"]["failed"], 1, "{status}");
    let told = status["incidents"].to_string();
    assert!(told.contains("a.md") && told.contains("nowhere"), "{told}");
}

#[test]
fn f3_what_was_torn_is_not_published_although_there_is_room_again() {
    watchdog();
    let Some(small) = Small::on("small") else { return };
    let project = mounted(&small, "small");
    let filler = project.path("filler");
    std::fs::write(project.path("a.md"), "old").unwrap();
    std::fs::write(&filler, vec![0; 700 << 10]).unwrap();
    let mut writer = Puppet::new(&project);
    writer.does("fd = os.open('a.md', os.O_WRONLY | os.O_TRUNC)");
    assert_eq!(writer.does("[os.write(fd, b'x' * 65536) for _ in range(16)]"), "ENOSPC");
    std::fs::remove_file(&filler).unwrap();
    eventually("room", || std::fs::write(&filler, vec![0; 500 << 10]).is_ok());
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(writer.does("os.close(fd)"), "ENOSPC");
    assert_eq!(project.read("a.md"), "old");
    let recovered = project.recovered();
    assert_eq!(recovered.len(), 1, "{recovered:?}");
    let kept = std::fs::read(project.path(recovered[0]["kept"].as_str().unwrap())).unwrap();
    assert!(kept.len() > 65536 && kept.iter().all(|byte| *byte == b'x'));
}

#[test]
fn f3_a_restore_that_does_not_fit_says_so_and_leaves_the_version_before() {
    watchdog();
    let Some(small) = Small::on("small") else { return };
    let project = mounted(&small, "small");
    std::fs::write(project.path("a.md"), vec![b'x'; 400 << 10]).unwrap();
    std::fs::write(project.path("a.md"), "new").unwrap();
    let filler = vec![0; 1 << 20];
    let filled = File::create(project.path("filler")).unwrap().write_all(&filler);
    assert!(filled.is_err(), "the disk is full");
    let mut restore = concord(&["restore"]);
    restore.arg(format!("{}@1", project.path("a.md").display()));
    let said = refused(&run(restore));
    assert!(said.contains("No space left"), "{said}");
    assert_eq!(project.read("a.md"), "new");
    let status = project.status();
    let kept = status["refused"].as_array().unwrap();
    assert_eq!(kept.len(), 1, "{status}");
    let why = kept[0]["why"].as_str().unwrap();
    assert!(why.contains("restore") && why.contains("No space left"), "{why}");
    assert_eq!(
        (&status["counts"]["failed"], &status["counts"]["discarded"]),
        (&1.into(), &0.into()),
        "{status}"
    );
}

#[test]
fn w1_files_on_another_filesystem_below_the_mount_are_ordinary() {
    watchdog();
    let Some(small) = Small::on("tree/small") else { return };
    let project = mounted(&small, "tree");
    let path = project.path("small/a.md");
    std::fs::write(&path, "one").unwrap();
    std::fs::write(&path, "two").unwrap();
    std::fs::rename(&path, project.path("small/b.md")).unwrap();
    assert_eq!(project.read("small/b.md"), "two");
}

#[test]
fn f1_an_overlay_below_the_mount_is_published_to_like_any_filesystem() {
    watchdog();
    let Some(small) = Small::on("small") else { return };
    let layer = |name: &str| small.at("small").join(name);
    for name in ["lower", "upper", "work"] {
        std::fs::create_dir(layer(name)).unwrap();
    }
    std::fs::create_dir(small.at("tree")).unwrap();
    std::fs::write(layer("lower").join("a.md"), "below").unwrap();
    let overlay = Overlay::of(&small);
    let project = mounted(&small, "tree");
    let path = project.path("a.md");
    assert_eq!(project.read("a.md"), "below");
    std::fs::write(&path, "written").unwrap();
    std::fs::write(project.path("temp"), "renamed").unwrap();
    std::fs::rename(project.path("temp"), &path).unwrap();
    assert_eq!(project.read("a.md"), "renamed");
    assert_eq!(project.show("a.md", 1), b"below");
    assert_eq!(project.show("a.md", 2), b"written");
    drop(project);
    drop(overlay);
    assert_eq!(std::fs::read_to_string(layer("upper").join("a.md")).unwrap(), "renamed");
}

struct Overlay(PathBuf);

impl Overlay {
    fn of(small: &Small) -> Overlay {
        let layers = small.at("small").display().to_string();
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o"]);
        mount.arg(format!(
            "lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work"
        ));
        mount.arg(small.at("tree"));
        let mounted = run(mount);
        assert!(mounted.status.success(), "{}", text(&mounted.stderr));
        Overlay(small.at("tree"))
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn o2_with_shared_backing_what_others_change_is_seen_within_a_second() {
    watchdog();
    let Some(small) = Small::on("small") else { return };
    let mut project = Project::unmounted(&[]);
    let backing = small.at("small");
    project.mount_with(&["--shared-backing", "--backing", backing.to_str().unwrap()]);
    for name in ["ordinary.txt", "coordinated.md"] {
        let (shown, below) = (project.path(name), backing.join(name));
        let sees = |what: &str, expected: Option<&str>| {
            eventually(what, || std::fs::read_to_string(&shown).ok().as_deref() == expected);
        };
        assert!(!shown.exists());
        std::fs::write(&below, "one").unwrap();
        sees("a file made below", Some("one"));
        std::fs::write(&below, "changed").unwrap();
        sees("a file changed below", Some("changed"));
        std::fs::write(backing.join("temp"), "replaced").unwrap();
        std::fs::rename(backing.join("temp"), &below).unwrap();
        sees("a file replaced below", Some("replaced"));
        std::fs::write(&shown, "written above").unwrap();
        assert_eq!(std::fs::read_to_string(&below).unwrap(), "written above");
        std::fs::remove_file(&below).unwrap();
        sees("a file removed below", None);
    }
}

#[test]
fn w10_a_line_that_does_not_fit_is_refused_and_the_file_keeps_whole_ones() {
    watchdog();
    let Some(small) = Small::on("small") else { return };
    let project = mounted(&small, "small");
    std::fs::write(project.path("a.jsonl"), "first\n").unwrap();
    let program = "import os,errno
fd = os.open('a.jsonl', os.O_WRONLY | os.O_APPEND)
os.write(fd, b'second\\n')
def tell(text):
    try: print(os.write(fd, text))
    except OSError as e: print(errno.errorcode[e.errno])
for text in [b'x' * 700000 + b'\\n', b'y' * 700000 + b'\\n', b'last\\n']: tell(text)
os.close(fd)";
    assert_eq!(support::succeed(project.python(program)), "700001\nENOSPC\n5\n");
    let text = project.read("a.jsonl");
    assert_eq!(text.lines().map(str::len).collect::<Vec<_>>(), [5, 6, 700_000, 4]);
    let behind = std::fs::read(small.at("small/a.jsonl")).unwrap();
    assert!(
        behind == text.as_bytes(),
        "no part of the refused line is left behind the readers' end"
    );
}

/// A project on a disk that the history of `c.md` has filled to the last byte, with the configuration in `rules.toml` beside it.
fn filled(small: &Small, keep: u32) -> Project {
    let mut project = Project::unmounted(&[]);
    lower(&project, keep);
    mount_by_rules(small, &mut project);
    let full = (0..60).any(|n| std::fs::write(project.path("c.md"), vec![n; 300_000]).is_err());
    assert!(full, "the history did not fill the disk");
    eventually("the last save's room is given back", || {
        std::fs::read(project.path("c.md")).is_ok_and(|content| content.len() == 300_000)
    });
    fill(small);
    project
}

/// Past the mount.
fn fill(small: &Small) {
    let mut filler = File::options();
    let mut filler = filler.append(true).create(true).open(small.at("small/filler")).unwrap();
    for size in [64 << 10, 4 << 10, 1] {
        while filler.write_all(&vec![0; size]).is_ok() {}
    }
}

fn rules_of(project: &Project) -> PathBuf {
    project.outside().join("rules.toml")
}

fn lower(project: &Project, keep: u32) {
    std::fs::write(rules_of(project), format!("keep = {keep}\n")).unwrap();
}

fn mount_by_rules(small: &Small, project: &mut Project) {
    let (rules, backing) = (rules_of(project), small.at("small"));
    let arguments = [
        "--config",
        rules.to_str().unwrap(),
        "--backing",
        backing.to_str().unwrap(),
    ];
    project.mount_with(&arguments);
}

fn saves(project: &Project, name: &str) -> bool {
    std::fs::write(project.path(name), vec![b'x'; 300_000]).is_ok()
}

#[test]
fn f3_lowering_what_is_kept_frees_a_disk_that_the_history_filled() {
    watchdog();
    let Some(small) = Small::of("4m", "small") else { return };
    let project = filled(&small, 20);
    let before = numbers(&project.history("c.md"));
    assert!(!saves(&project, "c.md"));
    assert_eq!(
        numbers(&project.history("c.md")),
        before,
        "what the rules let stay stays, also on a full disk"
    );
    lower(&project, 2);
    eventually("only two old versions are left", || {
        numbers(&project.history("c.md")) == before[..3]
    });
    assert!(saves(&project, "c.md"));
}

#[test]
fn f3_files_are_removed_and_emptied_on_a_full_disk() {
    watchdog();
    let Some(small) = Small::of("4m", "small") else { return };
    let project = filled(&small, 20);
    let versions = numbers(&project.history("c.md")).len();
    project.save("c.md", "");
    assert_eq!(project.read("c.md"), "");
    fill(&small);
    std::fs::remove_file(project.path("c.md")).unwrap();
    let history = project.history("c.md");
    assert_eq!(history.len(), versions + 2, "{history:?}");
    let last = history[1]["version"].as_u64().unwrap();
    assert_eq!(project.show("c.md", last), b"");
}

#[test]
fn f3_removing_works_on_a_full_disk_when_there_is_no_room_for_records_either() {
    watchdog();
    let Some(small) = Small::on("small") else { return };
    let mut project = mounted(&small, "small");
    let names: Vec<String> = (0..30).map(|n| format!("{n}.md")).collect();
    for name in &names {
        std::fs::write(project.path(name), name).unwrap();
        std::fs::write(project.path(name), format!("{name}, again")).unwrap();
    }
    for name in &names {
        fill(&small);
        let removed = std::fs::remove_file(project.path(name));
        assert!(removed.is_ok(), "{name}: {removed:?}");
    }
    for name in &names {
        assert_eq!(project.show(name, 2), format!("{name}, again").as_bytes());
    }
    std::fs::remove_file(small.at("small/filler")).unwrap();
    project.unmount();
    project.mount_with(&["--backing", small.at("small").to_str().unwrap()]);
    let is_deleted = |name: &String| {
        project
            .history(name)
            .first()
            .is_some_and(|newest| newest["how"] == "unlink")
    };
    eventually("each removal is written down", || names.iter().all(is_deleted));
}

#[test]
fn f3_the_rules_are_changed_through_a_mount_whose_disk_is_full() {
    watchdog();
    let Some(small) = Small::of("4m", "small") else { return };
    let mut project = filled(&small, 20);
    project.unmount();
    project.mount_with(&["--backing", small.at("small").to_str().unwrap()]);
    fill(&small);
    let before = numbers(&project.history("c.md"));
    std::fs::write(project.path("concord.toml"), "keep = 1\n").unwrap();
    eventually("one old version is left", || {
        numbers(&project.history("c.md")) == before[..2]
    });
    assert!(saves(&project, "c.md"));
}

#[test]
fn f3_a_full_disk_is_mounted_and_freed_by_rules_that_keep_less() {
    watchdog();
    let Some(small) = Small::of("4m", "small") else { return };
    let mut project = filled(&small, 20);
    let before = numbers(&project.history("c.md"));
    for (keep, left) in [(20, before.len()), (2, 3)] {
        project.unmount();
        fill(&small);
        lower(&project, keep);
        mount_by_rules(&small, &mut project);
        eventually("what the rules keep", || {
            numbers(&project.history("c.md")) == before[..left]
        });
        assert!(project.status()["pid"].is_u64());
    }
    assert!(saves(&project, "c.md"));
}

#[test]
fn f3_recovering_frees_a_full_disk_by_rules_that_keep_less() {
    watchdog();
    let Some(small) = Small::of("4m", "small") else { return };
    let mut project = filled(&small, 20);
    let before = numbers(&project.history("c.md"));
    project.unmount();
    let (backing, rules) = (small.at("small"), rules_of(&project));
    let recover = |arguments: &[&str]| {
        let mut command = support::concord(&["recover", backing.to_str().unwrap()]);
        command.args(arguments);
        support::succeed(command)
    };
    recover(&[]);
    lower(&project, 2);
    let said = recover(&["--config", rules.to_str().unwrap()]);
    assert!(said.contains("old versions were removed"), "{said}");
    mount_by_rules(&small, &mut project);
    assert_eq!(numbers(&project.history("c.md")), before[..3]);
}

/// Whether a history, or `status`, tells what became of what a file held.
fn is_told_of(project: &Project, status: &serde_json::Value, name: &str) -> bool {
    let told = status["incidents"].as_array().unwrap();
    let is_incident = told.iter().any(|incident| incident["path"] == name);
    is_incident || project.history(name).iter().any(|version| version["bytes"] == 9000)
}

#[test]
fn f3_files_that_never_had_a_history_are_removed_emptied_and_renamed_away_on_a_full_disk() {
    watchdog();
    let Some(small) = Small::of("4m", "small") else { return };
    let names: Vec<String> = (0..45).map(|n| format!("{n}.md")).collect();
    for name in &names {
        std::fs::write(small.at("small").join(name), vec![b'x'; 9000]).unwrap();
    }
    let project = mounted(&small, "small");
    fill(&small);
    // Whatever room there is again, somebody takes it.
    for name in &names[..25] {
        let removed = std::fs::remove_file(project.path(name));
        assert!(removed.is_ok(), "{name}: {removed:?}");
        fill(&small);
    }
    let status = project.status();
    for name in &names[..25] {
        assert!(!project.path(name).exists());
        assert!(is_told_of(&project, &status, name), "{name}: {status}");
    }
    let unkept = status["incidents"].as_array().unwrap();
    let why = unkept[0]["why"].as_str().unwrap();
    assert!(why.contains("removed") && why.contains("disk is full"), "{status}");
    for name in &names[25..35] {
        let emptied = File::create(project.path(name));
        assert!(emptied.is_ok(), "{name}: {emptied:?}");
        drop(emptied);
        assert_eq!(project.read(name), "", "{name}");
        fill(&small);
    }
    for name in &names[35..45] {
        let renamed = std::fs::rename(project.path(name), project.path(&format!("{name}.bin")));
        assert!(renamed.is_ok(), "{name}: {renamed:?}");
        assert_eq!(project.read(&format!("{name}.bin")).len(), 9000);
        fill(&small);
    }
    let status = project.status();
    for name in &names[25..] {
        assert!(is_told_of(&project, &status, name), "{name}: {status}");
    }
    // After all that the configuration still has its room.
    std::fs::write(project.path("concord.toml"), "keep = 0\n").unwrap();
    let is_kept = |name: &String| project.history(name).iter().any(|version| version["bytes"] == 9000);
    eventually("what is in the histories goes", || !names.iter().any(is_kept));
}

#[test]
fn f3_what_fails_on_a_full_disk_is_told_with_its_reason() {
    watchdog();
    let Some(small) = Small::of("4m", "small") else { return };
    std::fs::write(small.at("small/a.md"), "old").unwrap();
    let project = mounted(&small, "small");
    std::fs::write(project.path("temp"), "new").unwrap();
    std::fs::remove_file(small.at("small/.concord/spare")).unwrap();
    fill(&small);
    assert!(std::fs::rename(project.path("temp"), project.path("a.md")).is_err());
    assert_eq!(project.read("a.md"), "old");
    let status = project.status();
    let incident = &status["incidents"][0];
    assert_eq!(incident["path"], "a.md", "{status}");
    let why = incident["why"].as_str().unwrap();
    assert!(why.contains("not changed") && why.contains("No space left"), "{why}");
}

#[test]
fn f3_a_mount_without_room_for_daemon_json_is_found_and_writes_it_when_there_is_room() {
    watchdog();
    let Some(small) = Small::of("4m", "small") else { return };
    let mut project = mounted(&small, "small");
    std::fs::write(project.path("a.md"), "old").unwrap();
    project.unmount();
    let backing = small.at("small");
    let spare = backing.join(".concord/spare");
    // It makes another as soon as it can.
    let fill_up = || {
        let _ = std::fs::remove_file(&spare);
        fill(&small);
    };
    let mount = || {
        let mut command = concord(&["mount", "--backing", backing.to_str().unwrap()]);
        command.arg(project.root());
        support::succeed(command);
    };
    let about = |arguments: &[&str], dir: &std::path::Path| {
        let mut command = concord(arguments);
        command.arg(dir);
        support::succeed(command)
    };
    // What the first one has noted is cleared away, which makes room.
    mount();
    about(&["unmount"], &project.root());
    fill_up();
    mount();
    let beacon = backing.join(".concord/daemon.json");
    assert!(!beacon.exists() && !backing.join(".concord/daemon.json.new").exists());
    for dir in [project.root(), backing.clone()] {
        assert!(about(&["status"], &dir).contains("mounted since"));
    }
    std::fs::remove_file(project.path("a.md")).unwrap();
    let mut history = concord(&["history"]);
    history.arg(project.path("a.md"));
    assert!(support::succeed(history).contains("close"));
    about(&["unmount"], &project.root());

    fill_up();
    mount();
    // It tries once a second, and goes on when that failed.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert!(!beacon.exists());
    std::fs::remove_file(small.at("small/filler")).unwrap();
    eventually("daemon.json is written", || beacon.exists());
    about(&["status"], &backing);
    about(&["unmount"], &project.root());
    assert!(!beacon.exists());
}

/// Takes each inode that is left.
fn take_inodes(small: &Small, name: &str) {
    for number in 0.. {
        if File::create(small.at("small").join(format!("{name}{number}"))).is_err() {
            return;
        }
    }
}

#[test]
fn f1_a_daemon_that_died_on_a_full_disk_is_mounted_again_and_what_finds_no_room_waits_for_the_next() {
    watchdog();
    let (Some(bytes), Some(inodes)) = (Small::on("small"), Small::with_few_inodes(128)) else {
        return;
    };
    for (small, sessions) in [(bytes, 25), (inodes, 3)] {
        let mut project = mounted(&small, "small");
        let mut writer = Puppet::new(&project);
        for n in 0..sessions {
            std::fs::write(project.path(&format!("{n}.md")), "old").unwrap();
            writer.does(&format!("f{n} = open('{n}.md', 'w')"));
            assert_eq!(
                writer.does(&format!("f{n}.write('staged {n}'), f{n}.flush() and None")),
                format!("({}, None)", 7 + n.to_string().len())
            );
        }
        match sessions {
            3 => take_inodes(&small, "filler"),
            _ => fill(&small),
        }
        project.kill_daemon();
        let said = support::on(&["recover"], &project.root());
        assert!(said.status.success(), "{}", text(&said.stderr));
        let said = text(&said.stdout);
        assert!(said.contains(".md: its session had not been published"), "{said}");
        assert!(said.contains("\nnot recovered: "), "{said}");
        let left = || std::fs::read_dir(small.at("small/.concord/shadows")).unwrap().count() - 1;
        assert!((1..sessions).contains(&left()), "{} of {sessions}", left());
        let mut mount = concord(&["mount", "--backing", small.at("small").to_str().unwrap()]);
        mount.arg(project.root());
        let mounted = support::succeed(mount);
        assert!(
            mounted.contains(&format!("left for want of room: {}", left())),
            "{mounted}"
        );
        for n in 0..sessions {
            assert_eq!(project.read(&format!("{n}.md")), "old");
        }
        rustix::mount::unmount(project.root(), rustix::mount::UnmountFlags::DETACH).unwrap();
        support::succeed(project.sh(&format!("rm {}/filler*", small.at("small").display())));
        eventually("the daemon has ended", || {
            support::on(&["recover"], &small.at("small")).status.success()
        });
        project.mount_with(&["--backing", small.at("small").to_str().unwrap()]);
        let recovered = project.recovered();
        let mut kept: Vec<String> = recovered
            .iter()
            .map(|kept| project.read(kept["kept"].as_str().unwrap()))
            .collect();
        let mut staged: Vec<String> = (0..sessions).map(|n| format!("staged {n}")).collect();
        kept.sort();
        staged.sort();
        assert_eq!(kept, staged);
        assert!(
            recovered.iter().all(|kept| kept["command"] == "python3"),
            "{recovered:?}"
        );
        assert_eq!(left(), 0);
    }
}

#[test]
fn f1_the_end_of_a_log_is_cut_off_and_kept_where_there_is_no_room_for_both() {
    watchdog();
    let Some(small) = Small::on("small") else { return };
    let mut project = mounted(&small, "small");
    std::fs::write(project.path("log.jsonl"), "first\n").unwrap();
    let mut writer = Puppet::new(&project);
    writer.does("fd = os.open('log.jsonl', os.O_WRONLY | os.O_APPEND)");
    assert_eq!(writer.does("os.write(fd, b'whole\\n')"), "6");
    project.kill_daemon();
    rustix::mount::unmount(project.root(), rustix::mount::UnmountFlags::DETACH).unwrap();
    let log = small.at("small/log.jsonl");
    let tail: Vec<u8> = (0..400_000u32).map(|n| b'a' + (n % 23) as u8).collect();
    File::options()
        .append(true)
        .open(&log)
        .unwrap()
        .write_all(&tail)
        .unwrap();
    fill(&small);
    let recovered = support::on(&["recover"], &small.at("small"));
    assert!(recovered.status.success(), "{}", text(&recovered.stderr));
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "first\nwhole\n");
    let kept = std::fs::read_dir(small.at("small/.concord/recovered")).unwrap();
    let kept = kept
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_none());
    assert!(std::fs::read(kept.unwrap()).unwrap() == tail);
}

#[test]
fn f3_a_disk_without_inodes_is_mounted_found_and_unmounted_whether_its_daemon_had_died_or_not() {
    watchdog();
    for died in [true, false] {
        let Some(small) = Small::with_few_inodes(128) else {
            return;
        };
        let mut project = mounted(&small, "small");
        std::fs::write(project.path("a.md"), "old").unwrap();
        match died {
            true => {
                project.kill_daemon();
                rustix::mount::unmount(project.root(), rustix::mount::UnmountFlags::DETACH).unwrap();
            }
            false => project.unmount(),
        }
        take_inodes(&small, "filler");
        let about = |arguments: &[&str], dir: &std::path::Path| {
            let mut command = concord(arguments);
            command.arg(dir);
            support::succeed(command)
        };
        about(
            &["mount", "--backing", small.at("small").to_str().unwrap()],
            &project.root(),
        );
        for dir in [project.root(), small.at("small")] {
            assert!(about(&["status"], &dir).contains("mounted since"));
        }
        assert_eq!(project.read("a.md"), "old");
        std::fs::remove_file(project.path("a.md")).unwrap();
        about(&["unmount"], &project.root());
        assert_eq!(support::mounts_at(&project.root()), 0);
    }
}

/// The kernel still knows the file that was to be there, by a descriptor of somebody's; its inode's number is another file's by then.
#[test]
fn w6_a_file_with_the_inode_number_of_what_was_never_published_is_itself() {
    watchdog();
    let Some(small) = Small::with_few_inodes(128) else {
        return;
    };
    let project = mounted(&small, "small");
    let recovered = small.at("small/.concord/recovered");
    let mut creator = Puppet::new(&project);
    assert_eq!(creator.does("f = open('never.md', 'w')"), "ok");
    assert_eq!(creator.does("f.write('never published'), f.flush()"), "(15, None)");
    let witness = "child = subprocess.Popen(['python3', '-c', \"import os; fd = os.open('never.md', os.O_PATH); print('open', flush=True); input()\"], stdin=-1, stdout=-1)";
    assert_eq!(creator.does(witness), "ok");
    assert_eq!(creator.does("child.stdout.readline()"), "b'open\\n'");
    let child: u32 = creator.does("child.pid").parse().unwrap();
    creator.0.signal(rustix::process::Signal::KILL);
    eventually("what it wrote is kept", || {
        std::fs::read_dir(&recovered).is_ok_and(|kept| kept.count() == 2)
    });
    for kept in std::fs::read_dir(&recovered).unwrap() {
        std::fs::remove_file(kept.unwrap().path()).unwrap();
    }
    // No other number is free.
    for number in 0.. {
        if File::create(small.at("small").join(format!("filler{number}"))).is_err() {
            break;
        }
    }
    for number in 0..50 {
        let _ = std::fs::remove_file(small.at("small").join(format!("filler{number}")));
    }
    let mut other = Puppet::new(&project);
    for number in 0..4 {
        let name = format!("{number}.md");
        for text in ["first", "second"] {
            assert_eq!(other.does(&format!("put('{name}', '{text} {number}')")), "None");
            assert_eq!(project.read(&name), format!("{text} {number}"));
        }
        assert!(!project.path("never.md").exists(), "{name}");
    }
    support::kill(child, rustix::process::Signal::KILL);
}

/// What a node stood for that is found by its number for long (W11) was an image, which an ordinary name made useless.
#[test]
fn w6_a_file_with_the_inode_number_of_an_image_that_was_dropped_is_itself() {
    watchdog();
    let Some(small) = Small::with_few_inodes(512) else {
        return;
    };
    let project = mounted(&small, "small");
    let mut other = Puppet::new(&project);
    // Which of the next inodes gets the number is the filesystem's choice: in one of some six rounds it is a saver's.
    for round in 0..16 {
        let (linked, next) = (format!("linked{round}.md"), format!("next{round}.md"));
        for step in [
            format!("put('{linked}', 'first')"),
            format!("os.link('{linked}', 'plain.txt')"),
            format!("put('{linked}', 'in place')"),
            "put('plain.txt', 'by an ordinary name')".to_owned(),
            "os.unlink('plain.txt')".to_owned(),
            format!("put('{linked}', 'exchanged')"),
            format!("put('{next}', 'first')"),
            format!("put('{next}', 'second')"),
        ] {
            assert_eq!(other.does(&step), "None", "{step}");
        }
        let held = [&linked, &next].map(|name| project.read(name));
        assert_eq!(held, ["exchanged", "second"], "{round}");
        for name in [&linked, &next] {
            assert_eq!(other.does(&format!("os.unlink('{name}')")), "None");
        }
    }
}
