//! O1 and O2: ordinary files behave as on the backing filesystem, on a real mount in this process.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use concordfs::mount::{Coordinated, Mount, MountOptions, Unmounter};
use concordfs::rules::Rules;
use concordfs::store::{RealDisk, Store};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// A mount that goes away with its test, also when the test panics.
struct Mounted {
    backing: PathBuf,
    path: PathBuf,
    unmounter: Unmounter,
    server: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Mounted {
    fn new() -> Mounted {
        watchdog();
        let dir = tempfile::tempdir().unwrap();
        let (backing, path) = (dir.path().join("backing"), dir.path().join("mount"));
        fs::create_dir(&backing).unwrap();
        fs::create_dir(&path).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let options = MountOptions {
            mountpoint: path.clone(),
            backing: rustix::fs::open(&backing, flags, Mode::empty()).unwrap(),
            shared_backing: false,
            allow_other: rustix::process::geteuid().is_root(),
            shown: backing.clone(),
            teller: None,
        };
        let store = RealDisk::open_root(&backing).unwrap();
        let (store, _) = Store::open(RealDisk, store, 0).unwrap();
        let coordinated = Coordinated {
            store,
            rules: Rules::builtin(),
            config_changed: Box::new(|| ()),
        };
        let mount = Mount::new(options, coordinated).unwrap();
        let unmounter = mount.unmounter();
        let server = std::thread::spawn(move || mount.run().unwrap());
        Mounted {
            backing,
            path,
            unmounter,
            server: Some(server),
            _dir: dir,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let detached = self.unmounter.detach();
        if let (Ok(()), Some(server)) = (detached, self.server.take()) {
            let _ = server.join();
        }
    }
}

/// A hang in the mount would hang the test run: end it instead. The kernel then ends the mounts' connections.
fn watchdog() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::thread::spawn(|| {
            std::thread::sleep(Duration::from_secs(120));
            eprintln!("a test on a mount did not end within 120 s");
            std::process::abort();
        });
    });
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn o1_content_written_through_the_mount_is_in_the_backing_file_and_back() {
    let mount = Mounted::new();
    fs::write(mount.at("file"), b"through").unwrap();
    assert_eq!(fs::read(mount.backing.join("file")).unwrap(), b"through");
    let mut file = OpenOptions::new().append(true).open(mount.at("file")).unwrap();
    file.write_all(b" and on").unwrap();
    assert_eq!(fs::read(mount.at("file")).unwrap(), b"through and on");
    fs::write(mount.at("file"), b"short").unwrap();
    assert_eq!(fs::read(mount.at("file")).unwrap(), b"short");
    let info = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = info
        .lines()
        .find(|line| line.contains(mount.path.to_str().unwrap()))
        .unwrap();
    assert!(line.contains(" fuse.concordfs "), "{line}");
}

#[test]
fn o1_offsets_beyond_four_gigabytes_and_holes_are_kept() {
    let mount = Mounted::new();
    let mut file = File::create_new(mount.at("sparse")).unwrap();
    let far = 5 << 30;
    file.write_all_at(b"far", far).unwrap();
    assert_eq!(file.metadata().unwrap().len(), far + 3);
    assert!(fs::metadata(mount.backing.join("sparse")).unwrap().blocks() < 1000);
    let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap();
    assert!(data > 0 && data <= far);
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap(), 0);
    let mut far_bytes = Vec::new();
    let mut reader = File::open(mount.at("sparse")).unwrap();
    reader.seek(SeekFrom::Start(far)).unwrap();
    reader.read_to_end(&mut far_bytes).unwrap();
    assert_eq!(far_bytes, b"far");
    file.seek(SeekFrom::Start(0)).unwrap();
    file.set_len(10).unwrap();
    assert_eq!(fs::metadata(mount.backing.join("sparse")).unwrap().len(), 10);
}

#[test]
fn o1_rename_replaces_refuses_and_exchanges_as_renameat2_says() {
    let mount = Mounted::new();
    let dir = File::open(&mount.path).unwrap();
    for (name, content) in [("a", "A"), ("b", "B")] {
        fs::write(mount.at(name), content).unwrap();
    }
    let rename = |from, to, flags| rustix::fs::renameat_with(&dir, from, &dir, to, flags);
    assert_eq!(rename("a", "b", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    rename("a", "b", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(mount.at("a")).unwrap(), b"B");
    assert_eq!(
        fs::metadata(mount.at("a")).unwrap().ino(),
        fs::metadata(mount.backing.join("a")).unwrap().ino()
    );
    rename("a", "b", RenameFlags::empty()).unwrap();
    assert_eq!(fs::read(mount.at("b")).unwrap(), b"B");
    assert!(!mount.at("a").exists());
    fs::create_dir_all(mount.at("d/e")).unwrap();
    fs::write(mount.at("d/e/f"), "deep").unwrap();
    let held = File::open(mount.at("d/e/f")).unwrap();
    fs::rename(mount.at("d"), mount.at("moved")).unwrap();
    assert_eq!(fs::read(mount.at("moved/e/f")).unwrap(), b"deep");
    assert_eq!(
        held.metadata().unwrap().ino(),
        fs::metadata(mount.at("moved/e/f")).unwrap().ino()
    );
    assert_eq!(
        fs::rename(mount.at("moved"), mount.at("moved/e/x"))
            .unwrap_err()
            .raw_os_error(),
        Some(libc_einval())
    );
}

fn libc_einval() -> i32 {
    Errno::INVAL.raw_os_error()
}

#[test]
fn o1_hard_links_share_number_count_and_content() {
    let mount = Mounted::new();
    fs::write(mount.at("one"), "x").unwrap();
    fs::create_dir(mount.at("d")).unwrap();
    fs::hard_link(mount.at("one"), mount.at("d/two")).unwrap();
    let (one, two) = (
        fs::metadata(mount.at("one")).unwrap(),
        fs::metadata(mount.at("d/two")).unwrap(),
    );
    assert_eq!((one.ino(), one.nlink()), (two.ino(), 2));
    fs::remove_file(mount.at("one")).unwrap();
    fs::write(mount.at("d/two"), "longer").unwrap();
    assert_eq!(fs::metadata(mount.at("d/two")).unwrap().nlink(), 1);
    assert_eq!(fs::metadata(mount.at("d/two")).unwrap().len(), 6);
}

#[test]
fn o1_a_deleted_file_lives_on_for_who_has_it_open_or_by_path_descriptor() {
    let mount = Mounted::new();
    fs::write(mount.at("gone"), "still").unwrap();
    let mut open = OpenOptions::new()
        .read(true)
        .write(true)
        .open(mount.at("gone"))
        .unwrap();
    fs::write(mount.at("other"), "").unwrap();
    let by_path: OwnedFd = rustix::fs::open(mount.at("other"), OFlags::PATH, Mode::empty()).unwrap();
    fs::remove_file(mount.at("gone")).unwrap();
    fs::remove_file(mount.at("other")).unwrap();
    assert_eq!(open.metadata().unwrap().nlink(), 0);
    assert_eq!(rustix::fs::fstat(&by_path).unwrap().st_nlink, 0);
    let mut content = String::new();
    open.read_to_string(&mut content).unwrap();
    assert_eq!(content, "still");
    open.set_len(2).unwrap();
    open.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(open.metadata().unwrap().len(), 2);
    // Its number may be given to a new file at once; that must not be this one.
    fs::write(mount.at("gone"), "new").unwrap();
    assert_eq!(open.metadata().unwrap().len(), 2);
    assert_eq!(fs::read(mount.at("gone")).unwrap(), b"new");
}

#[test]
fn o1_names_are_bytes() {
    let mount = Mounted::new();
    let long = [b'n'; 255];
    for name in [&b"\xff\xfe"[..], b" lead", b"new\nline", b"-rf", b"\x01\x7f", &long] {
        let name = OsStr::from_bytes(name);
        fs::write(mount.path.join(name), name.as_bytes()).unwrap();
        assert_eq!(fs::read(mount.backing.join(name)).unwrap(), name.as_bytes());
        assert!(
            fs::read_dir(&mount.path)
                .unwrap()
                .any(|entry| entry.unwrap().file_name() == name)
        );
    }
    let too_long = fs::write(mount.at(&"n".repeat(256)), "").unwrap_err();
    assert_eq!(too_long.raw_os_error(), Some(Errno::NAMETOOLONG.raw_os_error()));
}

#[test]
fn o1_directories_deeper_than_path_max_can_be_used() {
    let mount = Mounted::new();
    let mut at: OwnedFd = File::open(&mount.path).unwrap().into();
    let name = "d".repeat(200);
    for _ in 0..40 {
        rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, &name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let file = rustix::fs::openat(&at, "leaf", OFlags::CREATE | OFlags::RDWR, Mode::RUSR).unwrap();
    rustix::io::write(&file, b"deep").unwrap();
    assert_eq!(rustix::fs::statat(&at, "leaf", AtFlags::empty()).unwrap().st_size, 4);
}

#[test]
fn o1_a_large_directory_is_listed_once_each_while_entries_are_deleted() {
    let mount = Mounted::new();
    const FILES: usize = 20_000;
    for number in 0..FILES {
        File::create(mount.backing.join(format!("file-{number:05}"))).unwrap();
    }
    fs::create_dir_all(mount.backing.join(".concord")).unwrap();
    let mut seen = std::collections::HashSet::new();
    for entry in fs::read_dir(&mount.path).unwrap() {
        let entry = entry.unwrap();
        assert!(seen.insert(entry.file_name()), "{:?} came twice", entry.file_name());
        fs::remove_file(entry.path()).unwrap();
    }
    assert_eq!(seen.len(), FILES);
    assert_eq!(fs::read_dir(&mount.path).unwrap().count(), 0);
}

#[test]
fn o1_extended_attributes_and_acls_are_the_backing_files() {
    let mount = Mounted::new();
    fs::write(mount.at("file"), "").unwrap();
    let set = |value: &[u8], flags| rustix::fs::setxattr(mount.at("file"), "user.note", value, flags);
    set(b"value", rustix::fs::XattrFlags::CREATE).unwrap();
    assert_eq!(set(b"again", rustix::fs::XattrFlags::CREATE), Err(Errno::EXIST));
    let mut buffer = [0; 64];
    let length = rustix::fs::getxattr(mount.backing.join("file"), "user.note", &mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"value");
    let length = rustix::fs::listxattr(mount.at("file"), &mut buffer).unwrap();
    assert!(
        buffer[..length]
            .split(|&byte| byte == 0)
            .any(|name| name == b"user.note")
    );
    // Who asks for the length first: getfattr(1), cp(1), tar(1).
    let length = rustix::fs::getxattr_query(mount.at("file"), "user.note").unwrap();
    assert_eq!(length, b"value".len());
    let names = rustix::fs::listxattr_query(mount.at("file")).unwrap();
    assert_eq!(names, rustix::fs::listxattr_query(mount.backing.join("file")).unwrap());
    assert!(names >= b"user.note\0".len());
    assert_eq!(
        rustix::fs::getxattr(mount.at("file"), "user.note", &mut buffer[..2]),
        Err(Errno::RANGE)
    );
    rustix::fs::removexattr(mount.at("file"), "user.note").unwrap();
    assert_eq!(
        rustix::fs::getxattr(mount.at("file"), "user.note", &mut buffer),
        Err(Errno::NODATA)
    );
}

/// Runs a shell command in the mount as another user; returns whether it succeeded.
fn as_user(mount: &Mounted, uid: u32, gid: u32, script: &str) -> bool {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).current_dir(&mount.path).uid(uid).gid(gid);
    command.status().unwrap().success()
}

#[test]
fn o1_new_files_belong_to_the_caller_with_umask_and_set_group_id_directories() {
    if !is_root() {
        return;
    }
    let mount = Mounted::new();
    fs::set_permissions(&mount.path, fs::Permissions::from_mode(0o777)).unwrap();
    let script =
        "umask 027 && echo x > f && mkdir d && ln -s f l && mkfifo p && chmod 2775 d && mkdir d/e && echo > d/g";
    assert!(as_user(&mount, 4001, 4002, script));
    let owner = |name: &str| {
        let meta = fs::symlink_metadata(mount.backing.join(name)).unwrap();
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    assert_eq!(owner("f"), (4001, 4002, 0o640));
    assert_eq!(owner("p"), (4001, 4002, 0o640));
    assert_eq!(owner("l"), (4001, 4002, 0o777));
    rustix::fs::chown(mount.at("d"), None, Some(rustix::fs::Gid::from_raw(4003))).unwrap();
    fs::set_permissions(mount.at("d"), fs::Permissions::from_mode(0o2777)).unwrap();
    assert!(as_user(&mount, 4001, 4002, "umask 022 && echo > d/h && mkdir d/i"));
    assert_eq!(owner("d/h"), (4001, 4003, 0o644));
    assert_eq!(owner("d/i"), (4001, 4003, 0o2755));
    // A write by another user clears set-user-id; one by root leaves it.
    fs::set_permissions(mount.at("f"), fs::Permissions::from_mode(0o4777)).unwrap();
    fs::write(mount.at("f"), "by root").unwrap();
    assert_eq!(owner("f").2, 0o4777);
    // Also one that is open, with its data passing the daemon by, when it gets the bit.
    fs::set_permissions(mount.at("f"), fs::Permissions::from_mode(0o777)).unwrap();
    let held = OpenOptions::new().write(true).open(mount.at("f")).unwrap();
    for change in [
        "echo y >> f",
        "truncate -s 3 f",
        "fallocate -l 9000 f",
        "echo y > f",
        ": > f",
    ] {
        fs::set_permissions(mount.at("f"), fs::Permissions::from_mode(0o6777)).unwrap();
        assert!(as_user(&mount, 4005, 4005, change));
        assert_eq!(owner("f").2, 0o777, "{change}");
        assert_eq!(fs::metadata(mount.at("f")).unwrap().mode() & 0o7777, 0o777, "{change}");
    }
    drop(held);
}

#[test]
fn o1_a_default_acl_takes_the_place_of_the_umask() {
    let mount = Mounted::new();
    fs::create_dir(mount.at("d")).unwrap();
    let set = Command::new("setfacl")
        .args(["-d", "-m", "u::rwx,g::rwx,o::rx"])
        .arg(mount.at("d"))
        .status();
    if !set.is_ok_and(|status| status.success()) {
        return;
    }
    let status = Command::new("sh")
        .args(["-c", "umask 077; echo > f"])
        .current_dir(mount.at("d"))
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(fs::metadata(mount.backing.join("d/f")).unwrap().mode() & 0o777, 0o664);
}

#[test]
fn o1_special_files_and_symbolic_links_are_what_they_are() {
    let mount = Mounted::new();
    symlink("target/that/is not there", mount.at("link")).unwrap();
    assert_eq!(
        fs::read_link(mount.at("link")).unwrap(),
        Path::new("target/that/is not there")
    );
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 1, tv_nsec: 2 },
        last_modification: rustix::fs::Timespec {
            tv_sec: -5,
            tv_nsec: 500,
        },
    };
    rustix::fs::utimensat(rustix::fs::CWD, mount.at("link"), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    let link = fs::symlink_metadata(mount.backing.join("link")).unwrap();
    assert_eq!((link.mtime(), link.mtime_nsec(), link.atime()), (-5, 500, 1));
    let _listener = std::os::unix::net::UnixListener::bind(mount.at("socket")).unwrap();
    assert!(
        fs::metadata(mount.backing.join("socket"))
            .unwrap()
            .file_type()
            .is_socket()
    );
    if is_root() {
        let device = rustix::fs::makedev(1, 3);
        let mode = Mode::from_raw_mode(0o666);
        let null = mount.at("null");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &null,
            rustix::fs::FileType::CharacterDevice,
            mode,
            device,
        )
        .unwrap();
        assert_eq!(fs::metadata(&null).unwrap().rdev(), device);
        OpenOptions::new()
            .write(true)
            .open(&null)
            .unwrap()
            .write_all(b"away")
            .unwrap();
    }
}

#[test]
fn o2_what_is_read_and_written_does_not_go_through_the_daemon() {
    if !is_root() {
        return;
    }
    let mount = Mounted::new();
    let data = vec![7; 8 << 20];
    // proc_pid_io(5) counts for this process, the daemon included: our own write and read, and again what the daemon
    // takes from /dev/fuse and writes to the backing file, if it does.
    let before = bytes_moved();
    fs::write(mount.at("big"), &data).unwrap();
    assert_eq!(fs::read(mount.at("big")).unwrap(), data);
    let moved = bytes_moved() - before;
    assert!(
        moved < 5 * data.len() as u64 / 2,
        "{moved} bytes were moved for {} written and read",
        data.len()
    );
}

fn bytes_moved() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    let count = |name: &str| {
        io.lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    count("rchar: ") + count("wchar: ")
}

#[test]
fn o1_the_store_is_hidden_and_read_only() {
    let mount = Mounted::new();
    fs::create_dir_all(mount.backing.join(".concord")).unwrap();
    fs::write(mount.backing.join(".concord/record"), "kept").unwrap();
    assert_eq!(fs::read_dir(&mount.path).unwrap().count(), 0);
    assert_eq!(fs::read(mount.at(".concord/record")).unwrap(), b"kept");
    fs::write(mount.backing.join(".concord/record"), "changed below").unwrap();
    assert_eq!(fs::read(mount.at(".concord/record")).unwrap(), b"changed below");
    let refused = |result: std::io::Result<()>| result.unwrap_err().raw_os_error() == Some(Errno::ROFS.raw_os_error());
    assert!(refused(fs::write(mount.at(".concord/record"), "")));
    assert!(refused(fs::write(mount.at(".concord/new"), "")));
    assert!(refused(fs::remove_file(mount.at(".concord/record"))));
    assert!(refused(fs::rename(mount.at(".concord"), mount.at("x"))));
    if is_root() {
        assert!(!as_user(&mount, 4001, 4001, "test -e .concord"));
    }
}

#[test]
fn o1_ranges_are_copied_allocated_and_punched() {
    let mount = Mounted::new();
    fs::write(mount.at("from"), vec![1; 100_000]).unwrap();
    let from = File::open(mount.at("from")).unwrap();
    let to = OpenOptions::new()
        .create_new(true)
        .read(true)
        .write(true)
        .open(mount.at("to"))
        .unwrap();
    let copied = rustix::fs::copy_file_range(&from, None, &to, None, 100_000).unwrap();
    assert_eq!(copied, 100_000);
    rustix::fs::fallocate(to.as_fd(), rustix::fs::FallocateFlags::empty(), 0, 200_000).unwrap();
    assert_eq!(to.metadata().unwrap().len(), 200_000);
    let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(to.as_fd(), punch, 0, 50_000).unwrap();
    to.sync_all().unwrap();
    let content = fs::read(mount.at("to")).unwrap();
    assert!(content[..50_000].iter().all(|&byte| byte == 0) && content[50_000..100_000].iter().all(|&byte| byte == 1));
}
