//! What the kernel has not asked. It checks permissions on the inode that a walk found; an open that waits, a handle that goes on after a lock, and lines that
//! follow a name may in the end be about another one: who waited behind a rename(2) over the file gets what was renamed there.

use std::os::fd::{AsFd, BorrowedFd};

use parking_lot::Mutex;
use rustix::fs::{Access, OFlags};
use rustix::io::Errno;

use crate::mount::attr;
use crate::mount::nodes::Identity;
use crate::mount::pin;
use crate::mount::tree::Caller;
use crate::os::creds;
use crate::session::ProcId;

/// An ACL that is longer counts as none; both versions of a file then do.
const ACL_BYTES_MAX: usize = 4096;

/// What open(2) with these flags must be allowed to do.
pub fn wanted(flags: OFlags) -> Access {
    let access = pin::Access::of(flags);
    let mut wanted = Access::empty();
    if access.reads() {
        wanted |= Access::READ_OK;
    }
    if access.writes() || flags.contains(OFlags::TRUNC) {
        wanted |= Access::WRITE_OK;
    }
    wanted
}

/// Whether the caller may do this with a file, unless it is `seen`, for which the kernel has said so.
///
/// # Errors
/// EACCES.
pub fn check(caller: Caller, file: impl AsFd, seen: Option<Identity>, wanted: Access) -> Result<(), Errno> {
    if caller.uid == 0 || seen == Some(identity(&file)?) {
        return Ok(());
    }
    creds::access_as(
        caller.uid,
        caller.gid,
        caller.tid,
        &pin::proc_path(file.as_fd()),
        wanted,
    )
}

/// Whether who could write to `known` may replace or continue `other`. The process that had the right may have ended, and its groups be forgotten: equal
/// permissions are enough.
pub fn may_write(caller: Caller, known: impl AsFd, other: impl AsFd) -> bool {
    let same = || Ok::<bool, Errno>(identity(&known)? == identity(&other)?);
    caller.uid == 0
        || same().unwrap_or(false)
        || are_alike(&known, &other)
        || check(caller, &other, None, Access::WRITE_OK).is_ok()
}

/// Whether two files have the same owner, group, mode and ACL.
pub fn are_alike(one: impl AsFd, other: impl AsFd) -> bool {
    let acl = |fd: BorrowedFd<'_>| {
        let mut value = vec![0; ACL_BYTES_MAX];
        // By name: a path descriptor cannot be asked.
        let length = rustix::fs::getxattr(pin::proc_path(fd), "system.posix_acl_access", &mut value[..]).ok()?;
        value.truncate(length);
        Some(value)
    };
    let (one, other) = (one.as_fd(), other.as_fd());
    match (rustix::fs::fstat(one), rustix::fs::fstat(other)) {
        (Ok(a), Ok(b)) => (a.st_uid, a.st_gid, a.st_mode) == (b.st_uid, b.st_gid, b.st_mode) && acl(one) == acl(other),
        _ => false,
    }
}

fn identity(file: impl AsFd) -> Result<Identity, Errno> {
    Ok(attr::identity(&rustix::fs::fstat(file)?, false))
}

/// Whose handle it is, and which inode it is known to be right for.
#[derive(Debug)]
pub struct Right {
    caller: Caller,
    inode: Mutex<Option<Identity>>,
}

impl Right {
    /// Of a handle that `caller`, of `process`, has opened on `file`.
    pub fn new(caller: Caller, process: ProcId, file: impl AsFd) -> Right {
        Right {
            caller: of_process(caller, process),
            inode: Mutex::new(identity(file).ok()),
        }
    }

    /// The inode that it is right for.
    pub fn inode(&self) -> Option<Identity> {
        *self.inode.lock()
    }

    /// Whether it may write to what its name leads to by now; `opened` is what it was opened on.
    pub fn covers(&self, opened: impl AsFd, file: impl AsFd) -> bool {
        let Ok(identity) = identity(&file) else { return false };
        let mut inode = self.inode.lock();
        let covers = *inode == Some(identity) || may_write(self.caller, opened, file);
        if covers {
            *inode = Some(identity);
        }
        covers
    }
}

/// The same caller when the thread that asked may be gone: its groups are its process's.
pub fn of_process(caller: Caller, process: ProcId) -> Caller {
    Caller {
        tid: process.tgid,
        ..caller
    }
}
