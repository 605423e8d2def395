//! Attributes: from the backing inode to the kernel, and back.

use std::os::fd::AsFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};
use rustix::fs::{AtFlags, Stat, StatxAttributes, StatxFlags, Timespec};

use super::nodes::{Identity, NodeId};

/// How long the kernel may keep entries and attributes while the mount is the only way in.
pub const TTL_SOLE_WAY: Duration = Duration::from_secs(3600);
/// The same where others change the backing tree too.
pub const TTL_SHARED: Duration = Duration::from_secs(1);

/// The inode that a stat is of.
pub fn identity(stat: &Stat, private: bool) -> Identity {
    Identity {
        dev: stat.st_dev,
        ino: stat.st_ino,
        private,
    }
}

/// The kind of file in a mode, inode(7).
pub fn kind(mode: u32) -> FileType {
    match rustix::fs::FileType::from_raw_mode(mode) {
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        rustix::fs::FileType::Fifo => FileType::NamedPipe,
        rustix::fs::FileType::Socket => FileType::Socket,
        rustix::fs::FileType::CharacterDevice => FileType::CharDevice,
        rustix::fs::FileType::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

/// What may be done to a file besides its permissions: nothing, or only to append to it (FS_IMMUTABLE_FL, FS_APPEND_FL, ioctl_iflags(2)).
///
/// # Errors
/// Those of statx(2).
pub fn restrictions(file: impl AsFd) -> rustix::io::Result<StatxAttributes> {
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    Ok(stat.stx_attributes & (StatxAttributes::IMMUTABLE | StatxAttributes::APPEND))
}

/// Whether a file has bits that a write by a user clears. The kernel leaves that to us (FUSE_HANDLE_KILLPRIV_V2) and does not learn of it: so
/// it must not remember the attributes of such a file, or it would run the changed program with the bits it has lost. Nor may such a file's
/// data pass the daemon by, where nobody tells root's writes, which keep the bits, from the others'.
pub fn has_set_id(stat: &Stat) -> bool {
    const SET_ID: u32 = 0o6000;
    kind(stat.st_mode) == FileType::RegularFile && stat.st_mode & SET_ID != 0
}

/// A node's attributes.
pub fn attributes(id: NodeId, stat: &Stat) -> FileAttr {
    FileAttr {
        ino: INodeNo(id.0),
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: time(stat.st_atime, stat.st_atime_nsec as u32),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec as u32),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec as u32),
        crtime: UNIX_EPOCH,
        kind: kind(stat.st_mode),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: encode_device(stat.st_rdev),
        blksize: stat.st_blksize as u32,
        flags: 0,
    }
}

/// The entry that says "no such name, and you may remember it": node number 0 (fuse.4, FUSE_LOOKUP).
pub fn negative() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

fn time(seconds: i64, nanoseconds: u32) -> SystemTime {
    if seconds >= 0 {
        UNIX_EPOCH + Duration::new(seconds as u64, nanoseconds)
    } else {
        UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()) + Duration::from_nanos(nanoseconds.into())
    }
}

/// A time from a request. fuser makes times before 1970 as `UNIX_EPOCH - (-seconds, nanoseconds)`, which is not what the
/// kernel meant; this takes it apart the same way.
pub fn timespec(time: SystemTime) -> Timespec {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Timespec {
            tv_sec: since.as_secs() as i64,
            tv_nsec: since.subsec_nanos().into(),
        },
        Err(before) => {
            let before = before.duration();
            Timespec {
                tv_sec: -(before.as_secs() as i64),
                tv_nsec: before.subsec_nanos().into(),
            }
        }
    }
}

/// The kernel's 32-bit form of a device number (`new_encode_dev` in linux/kdev_t.h).
fn encode_device(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The inverse of the above, for mknod(2).
pub fn decode_device(device: u32) -> u64 {
    rustix::fs::makedev((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_the_kernels_encoding() {
        for (major, minor) in [(1, 3), (8, 255), (259, 70000), (4095, 1_048_575)] {
            let device = rustix::fs::makedev(major, minor);
            assert_eq!(decode_device(encode_device(device)), device);
        }
    }

    #[test]
    fn times_before_1970_keep_their_fraction() {
        let before = time(-2, 800_000_000);
        assert_eq!(
            UNIX_EPOCH.duration_since(before).unwrap(),
            Duration::new(1, 200_000_000)
        );
        let as_fuser_makes_it = UNIX_EPOCH - Duration::new(2, 800_000_000);
        assert_eq!(
            timespec(as_fuser_makes_it),
            Timespec {
                tv_sec: -2,
                tv_nsec: 800_000_000
            }
        );
    }
}
