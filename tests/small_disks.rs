//! Filesystems that are full, or lie below the mount as one more. Needs root, to mount them.

mod support;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use support::puppet::Puppet;
use support::small::{Small, mounted};
use support::{Project, concord, eventually, refused, run, text, watchdog};

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
