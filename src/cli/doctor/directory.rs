//! What a directory's filesystem gives: everything is tried, in a directory that is removed again.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, XattrFlags};

use super::{Finding, State};
use crate::cli::project::STORE;

/// f_type of statfs(2), where a person knows the name.
const TYPES: [(rustix::fs::FsWord, &str); 11] = [
    (0xEF53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683E, "btrfs"),
    (0x0102_1994, "tmpfs"),
    (0x794C_7630, "overlayfs"),
    (0x6969, "nfs"),
    (0x6573_5546, "fuse"),
    (0x2FC1_2FC1, "zfs"),
    (0xF2F5_2010, "f2fs"),
    (0xCA45_1A4E, "bcachefs"),
    (0x0102_1997, "9p"),
];

/// Everything about the tree at `dir`.
pub fn look(dir: &Path) -> Vec<Finding> {
    let filesystem = filesystem(dir);
    if filesystem.state == State::No {
        return vec![filesystem];
    }
    let mut findings = vec![filesystem];
    // In the store where there is one: a mount hides it, and nobody watches it for changes.
    let store = dir.join(STORE);
    let within = if store.is_dir() { store } else { dir.to_path_buf() };
    match tempfile::Builder::new().prefix(".concord-doctor-").tempdir_in(within) {
        Ok(scratch) => match try_out(scratch.path()) {
            Ok(tried) => findings.extend(tried),
            Err(error) => findings.push(unwritable(&error)),
        },
        Err(error) => findings.push(unwritable(&error)),
    }
    findings
}

fn unwritable(error: &std::io::Error) -> Finding {
    // Without the name of what was tried there.
    let error = error.raw_os_error().map_or(error.to_string(), |errno| {
        std::io::Error::from_raw_os_error(errno).to_string()
    });
    let remedy = "name an existing directory on a writable filesystem, as a user who may write there";
    Finding::lacks("writable", error, "nothing can be kept here", remedy).essential(true)
}

fn filesystem(dir: &Path) -> Finding {
    if dir.is_file() {
        return unwritable(&rustix::io::Errno::NOTDIR.into());
    }
    match (rustix::fs::statfs(dir), rustix::fs::statvfs(dir)) {
        (Ok(fs), Ok(vfs)) => {
            let name = TYPES.iter().find(|(number, _)| *number == fs.f_type);
            let name = name.map_or(format!("type {:#x}", fs.f_type), |(_, name)| (*name).to_string());
            let free_mib = vfs.f_bavail.saturating_mul(vfs.f_frsize) / (1024 * 1024);
            Finding::has(
                "filesystem",
                format!("{name}, {free_mib} MiB free, {} files free", vfs.f_favail),
            )
        }
        (Err(errno), _) | (_, Err(errno)) => unwritable(&errno.into()),
    }
}

fn try_out(scratch: &Path) -> std::io::Result<Vec<Finding>> {
    let (a, b) = (scratch.join("a"), scratch.join("b"));
    let mut source = File::create_new(&a)?;
    source.write_all(&[b'x'; 4096])?;
    let target = File::create_new(&b)?;
    Ok(vec![
        Finding::has("writable", "files can be made here").essential(true),
        outcome(
            "exchange",
            rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE),
            "renameat2(RENAME_EXCHANGE)",
            "a publish cannot be one atomic step, so nothing is mounted here",
            "use ext4, xfs, btrfs or tmpfs",
        )
        .essential(true),
        outcome(
            "reflink",
            rustix::fs::ioctl_ficlone(&target, &source),
            "ioctl(FICLONE)",
            "a change in the middle of a big file first copies the file",
            "use btrfs, or xfs made with reflink=1, where big files are changed often",
        ),
        outcome(
            "xattrs",
            rustix::fs::fsetxattr(&source, "user.concord-doctor", b"1", XattrFlags::empty()),
            "fsetxattr(user.*)",
            "programs cannot keep extended attributes",
            "use another filesystem if one of your programs needs them",
        ),
        outcome(
            "acls",
            set_acl(&source),
            "system.posix_acl_access",
            "programs cannot keep access control lists",
            "mount the filesystem with the option acl if you need them",
        ),
        outcome(
            "tmpfile",
            rustix::fs::openat(
                CWD,
                scratch,
                OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC,
                Mode::RWXU,
            )
            .map(drop),
            "open(O_TMPFILE)",
            "programs that ask for nameless files fall back to named ones",
            "",
        ),
        outcome(
            "hard links",
            rustix::fs::linkat(CWD, &a, CWD, scratch.join("c"), AtFlags::empty()),
            "link(2)",
            "programs cannot make hard links",
            "",
        ),
    ])
}

fn outcome(
    name: &'static str,
    tried: rustix::io::Result<()>,
    call: &str,
    cost: &'static str,
    remedy: &'static str,
) -> Finding {
    match tried {
        Ok(()) => Finding::has(name, format!("{call} works")),
        Err(errno) => Finding::lacks(name, format!("{call}: {errno}"), cost, remedy),
    }
}

/// The list that says the same as mode 0644, in the format of acl(5) as the kernel takes it: version 2, then tag,
/// permissions and id of owner, group and others.
fn set_acl(file: impl AsFd) -> rustix::io::Result<()> {
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, permissions) in [(0x01u16, 6u16), (0x04, 4), (0x20, 4)] {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(u32::MAX.to_le_bytes());
    }
    rustix::fs::fsetxattr(file, "system.posix_acl_access", &acl, XattrFlags::empty())
}
