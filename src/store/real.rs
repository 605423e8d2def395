//! The disk seam on system calls.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{self, AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, StatxFlags, XattrFlags};
use rustix::io::Errno;

use super::disk::{Disk, Entry, Kind, Stat};
use super::overwrite;
use super::record::Who;
use crate::os::creds;

/// Most bytes that one copy step asks for or holds in memory.
const COPY_CHUNK_BYTES: usize = 1024 * 1024;
/// Most bytes that one copy_file_range(2) is asked for.
const COPY_RANGE_BYTES: u64 = 1 << 30;
/// listxattr(2) and getxattr(2) give at most 64 KiB.
const XATTR_BYTES_MAX: usize = 64 * 1024;

/// statx(2).
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

const FILE_FLAGS: OFlags = OFlags::NOFOLLOW
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// The backing filesystem.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl RealDisk {
    /// Opens the directory `path`, which is the backing tree's root: follows symbolic links, as the user named it.
    ///
    /// # Errors
    /// open(2).
    pub fn open_root(path: &Path) -> io::Result<Arc<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Arc::new(fs::open(path, flags, Mode::empty())?))
    }

    fn open_regular(dir: &OwnedFd, name: &OsStr, flags: OFlags) -> io::Result<File> {
        let file = File::from(fs::openat(dir, name, flags | FILE_FLAGS, Mode::empty())?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
        }
    }
}

impl Disk for RealDisk {
    type File = File;
    type Dir = Arc<OwnedFd>;

    fn open_dir(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<Self::Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Arc::new(fs::openat(dir, name, flags, Mode::empty())?))
    }

    fn make_dir(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<()> {
        Ok(fs::mkdirat(dir, name, Mode::RWXU)?)
    }

    fn restrict_dir(&self, dir: &Self::Dir, parent: &Self::Dir) -> io::Result<()> {
        let stat = fs::fstat(dir)?;
        if stat.st_uid != rustix::process::geteuid().as_raw() && stat.st_uid != fs::fstat(parent)?.st_uid {
            let why = format!(
                "it belongs to user {}, who may not keep other people's files; remove it, or give it to root",
                stat.st_uid
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        let mode = Mode::from_raw_mode(stat.st_mode);
        if mode.intersects(Mode::RWXG | Mode::RWXO) {
            fs::fchmod(dir, Mode::RWXU)?;
        }
        Ok(())
    }

    fn give(&self, file: &File, dir: &Self::Dir) {
        give(file, dir);
    }

    fn give_dir(&self, made: &Self::Dir, dir: &Self::Dir) {
        give(made, dir);
    }

    fn is_given(&self, file: &File, dir: &Self::Dir) -> bool {
        owner(file).map(|(user, _)| user) == owner(dir).map(|(user, _)| user)
    }

    fn owner_unlike_ours(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<Option<u32>> {
        let user = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_uid;
        Ok((user != rustix::process::geteuid().as_raw()).then_some(user))
    }

    fn is_ours(&self, dir: &Self::Dir) -> bool {
        owner(dir).is_some_and(|(user, _)| user == rustix::process::geteuid().as_raw())
    }

    fn mounting(&self, dir: &Self::Dir) -> Option<u64> {
        // Linux 6.8. The plain id is another mount's as soon as this one has gone.
        let unique = StatxFlags::from_bits_retain(STATX_MNT_ID_UNIQUE);
        let stat = fs::statx(dir, c"", AtFlags::EMPTY_PATH, unique).ok()?;
        (stat.stx_mask & STATX_MNT_ID_UNIQUE != 0).then_some(stat.stx_mnt_id)
    }

    fn list(&self, dir: &Self::Dir) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::Dir::read_from(dir)? {
            let entry = entry?;
            let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => match super::disk::if_there(self.stat_at(dir, &name))? {
                    Some(stat) => stat.kind,
                    None => continue,
                },
                known => kind_of(known),
            };
            entries.push(Entry { name, kind });
        }
        Ok(entries)
    }

    fn sync_dir(&self, dir: &Self::Dir) -> io::Result<()> {
        // Callers may have it by O_PATH, which fsync(2) does not take.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(fs::fsync(fs::openat(dir, ".", flags, Mode::empty())?)?)
    }

    fn create(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | FILE_FLAGS;
        Ok(File::from(fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?))
    }

    fn create_unnamed(&self, dir: &Self::Dir) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::NOATIME | OFlags::CLOEXEC;
        Ok(File::from(fs::openat(dir, ".", flags, Mode::RUSR | Mode::WUSR)?))
    }

    fn touch(&self, file: &File) -> io::Result<()> {
        let now = fs::Timespec {
            tv_sec: 0,
            tv_nsec: fs::UTIME_NOW,
        };
        let times = fs::Timestamps {
            last_access: now,
            last_modification: now,
        };
        Ok(fs::futimens(file, &times)?)
    }

    fn open(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<File> {
        Self::open_regular(dir, name, OFlags::RDONLY)
    }

    fn open_writable(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<File> {
        Self::open_regular(dir, name, OFlags::RDWR)
    }

    fn stat(&self, file: &File) -> io::Result<Stat> {
        Ok(stat_of(&fs::fstat(file)?))
    }

    fn stat_at(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<Stat> {
        Ok(stat_of(&fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match FileExt::read_at(file, buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn start_writeback(&self, file: &File) -> io::Result<()> {
        crate::os::writeback::start_writeback(file)
    }

    fn copy_content(&self, from: &File, to: &File) -> io::Result<()> {
        if fs::ioctl_ficlone(to, from).is_ok() {
            return Ok(());
        }
        copy_extents(from, to)
    }

    fn copy_meta(&self, from: &File, to: &File, writer: Option<&Who>) -> io::Result<()> {
        let writer = writer.filter(|writer| writer.uid != 0);
        let (old, new) = (fs::fstat(from)?, fs::fstat(to)?);
        if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid) {
            fs::fchown(
                to,
                Some(fs::Uid::from_raw(old.st_uid)),
                Some(fs::Gid::from_raw(old.st_gid)),
            )?;
        }
        let mode = match writer {
            Some(writer) => creds::mode_written(old.st_mode, || creds::is_in_group(writer.pid, old.st_gid)),
            None => old.st_mode,
        };
        fs::fchmod(to, Mode::from_raw_mode(mode))?;
        copy_xattrs(from, to, writer.is_none())
    }

    fn overwrite(&self, from: &File, to: &File) -> io::Result<()> {
        overwrite::overwrite(from, to)
    }

    fn copy_times(&self, from: &File, to: &File) -> io::Result<()> {
        let stat = fs::fstat(from)?;
        let time = |tv_sec, tv_nsec| fs::Timespec { tv_sec, tv_nsec };
        let times = fs::Timestamps {
            last_access: time(stat.st_atime, stat.st_atime_nsec as i64),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec as i64),
        };
        Ok(fs::futimens(to, &times)?)
    }

    fn try_lock(&self, file: &File) -> io::Result<bool> {
        match fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn rename(&self, from: (&Self::Dir, &OsStr), to: (&Self::Dir, &OsStr)) -> io::Result<()> {
        Ok(fs::renameat(from.0, from.1, to.0, to.1)?)
    }

    fn rename_noreplace(&self, from: (&Self::Dir, &OsStr), to: (&Self::Dir, &OsStr)) -> io::Result<()> {
        Ok(fs::renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE)?)
    }

    fn exchange(&self, a: (&Self::Dir, &OsStr), b: (&Self::Dir, &OsStr)) -> io::Result<()> {
        Ok(fs::renameat_with(a.0, a.1, b.0, b.1, RenameFlags::EXCHANGE)?)
    }

    fn link(&self, from: (&Self::Dir, &OsStr), to: (&Self::Dir, &OsStr)) -> io::Result<()> {
        Ok(fs::linkat(from.0, from.1, to.0, to.1, AtFlags::empty())?)
    }

    fn link_file(&self, file: &File, to: (&Self::Dir, &OsStr)) -> io::Result<()> {
        // AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH; the way through /proc does not, but needs /proc (open(2), O_TMPFILE).
        match fs::linkat(file, "", to.0, to.1, AtFlags::EMPTY_PATH) {
            Err(Errno::NOENT | Errno::PERM) => {}
            result => return Ok(result?),
        }
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
        Ok(fs::linkat(CWD, path, to.0, to.1, AtFlags::SYMLINK_FOLLOW)?)
    }

    fn unlink(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<()> {
        Ok(fs::unlinkat(dir, name, AtFlags::empty())?)
    }

    fn remove_dir(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<()> {
        Ok(fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
    }
}

/// User and group.
fn owner(file: impl AsFd) -> Option<(u32, u32)> {
    fs::fstat(file).ok().map(|stat| (stat.st_uid, stat.st_gid))
}

/// Only root can give anything away, and what is root's only.
fn give(made: impl AsFd, dir: impl AsFd) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let Some((user, group)) = owner(&dir).filter(|(user, _)| *user != 0) else {
        return;
    };
    if owner(&made).is_none_or(|(maker, _)| maker != 0) {
        return;
    }
    let given = fs::fchown(made, Some(fs::Uid::from_raw(user)), Some(fs::Gid::from_raw(group)));
    if let Err(error) = given {
        log::debug!("cannot give what was made in .concord/ to its owner, user {user}: {error}");
    }
}

fn kind_of(kind: FileType) -> Kind {
    match kind {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        _ => Kind::Other,
    }
}

// The fields' types differ between architectures.
#[allow(clippy::unnecessary_cast)]
fn stat_of(stat: &fs::Stat) -> Stat {
    let ns = |seconds: i64, ns: u64| seconds.saturating_mul(1_000_000_000).saturating_add(ns as i64);
    Stat {
        kind: kind_of(FileType::from_raw_mode(stat.st_mode)),
        dev: stat.st_dev,
        ino: stat.st_ino,
        size: stat.st_size as u64,
        mtime_ns: ns(stat.st_mtime, stat.st_mtime_nsec as u64),
        ctime_ns: ns(stat.st_ctime, stat.st_ctime_nsec as u64),
        nlink: stat.st_nlink as u64,
        has_set_id: stat.st_mode & (Mode::SUID | Mode::SGID).as_raw_mode() != 0,
    }
}

/// Copies the extents that lseek(2) finds and leaves the holes between them; `to` ends up as long as `from`.
fn copy_extents(from: &File, to: &File) -> io::Result<()> {
    to.set_len(0)?;
    let len = from.metadata()?.len();
    to.set_len(len)?;
    let mut at = 0;
    while at < len {
        let start = match fs::seek(from, fs::SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => at,
            Err(error) => return Err(error.into()),
        };
        let end = match fs::seek(from, fs::SeekFrom::Hole(start)) {
            Ok(end) => end.min(len),
            Err(Errno::INVAL | Errno::NXIO) => len,
            Err(error) => return Err(error.into()),
        };
        copy_range(from, to, start, end)?;
        at = end.max(start + 1);
    }
    Ok(())
}

/// Copies bytes `start..end` inside the kernel, or through a bounded buffer where the kernel cannot.
pub(super) fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let mut at = start;
    while at < end {
        let (mut source, mut target) = (at, at);
        let want = (end - at).min(COPY_RANGE_BYTES) as usize;
        match fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), want) {
            Ok(0) => return Ok(()),
            Ok(n) => at += n as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return copy_by_hand(from, to, at, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &File, to: &File, mut at: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; COPY_CHUNK_BYTES.min((end - at) as usize)];
    while at < end {
        let want = buffer.len().min((end - at) as usize);
        let n = RealDisk.read_at(from, &mut buffer[..want], at)?;
        if n == 0 {
            return Ok(());
        }
        to.write_all_at(&buffer[..n], at)?;
        at += n as u64;
    }
    Ok(())
}

/// Makes the extended attributes of `to` those of `from`; the ACL is one of them (`system.posix_acl_access`). One that
/// `to` inherited from its directory's default ACL goes.
fn copy_xattrs(from: impl AsFd, to: impl AsFd, privileges: bool) -> io::Result<()> {
    let wanted = |name: &&[u8]| !name.is_empty() && (privileges || *name != b"security.capability");
    let (old, new) = (list_xattrs(&from)?, list_xattrs(&to)?);
    for name in new.split(|&b| b == 0).filter(wanted) {
        if !old.split(|&b| b == 0).any(|n| n == name) && !is_labels(name) {
            tolerate(fs::fremovexattr(&to, OsStr::from_bytes(name)), &[Errno::NODATA])?;
        }
    }
    let mut value = Vec::new();
    for name in old.split(|&b| b == 0).filter(wanted) {
        value.resize(XATTR_BYTES_MAX, 0);
        match fs::fgetxattr(&from, OsStr::from_bytes(name), &mut value[..]) {
            Ok(len) => value.truncate(len),
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(error.into()),
        }
        let set = fs::fsetxattr(&to, OsStr::from_bytes(name), &value, XattrFlags::empty());
        // Labels (security.selinux …) are the system's to give: without privilege they stay what the policy made them.
        tolerate(
            set,
            if is_labels(name) {
                &[Errno::PERM, Errno::ACCESS, Errno::OPNOTSUPP]
            } else {
                &[]
            },
        )?;
    }
    Ok(())
}

fn is_labels(name: &[u8]) -> bool {
    name.starts_with(b"security.") && name != b"security.capability"
}

fn tolerate(result: Result<(), Errno>, tolerated: &[Errno]) -> io::Result<()> {
    match result {
        Err(error) if !tolerated.contains(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// The names, each ended by a zero byte; empty where the filesystem has no extended attributes.
fn list_xattrs(file: impl AsFd) -> io::Result<Vec<u8>> {
    let mut small = [0; 1024];
    match fs::flistxattr(&file, &mut small[..]) {
        Ok(len) => return Ok(small[..len].to_vec()),
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error.into()),
    }
    let mut names = vec![0; XATTR_BYTES_MAX];
    let len = fs::flistxattr(&file, &mut names[..])?;
    names.truncate(len);
    Ok(names)
}
