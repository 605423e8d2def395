//! The daemon's own descriptors: every inode that a program has open takes some, getrlimit(2).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::process::{Resource, Rlimit};

/// Descriptors that opens leave: a close needs some to find out who else has the file, and to publish it. An open that is refused
/// can be tried again, a close cannot.
const RESERVED: u64 = 128;

/// Raises the soft limit to the hard one. Returns how many we may have.
pub fn raise_limit() -> usize {
    let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        log::warn!("cannot raise the limit of open files: {error}; many open files at once may fail with ENFILE");
        return current.map_or(1024, |limit| limit as usize);
    }
    maximum.map_or(1 << 20, |limit| limit as usize)
}

/// Keeps a descriptor that lasts as long as an open does. The kernel gives the lowest number that is free, so that of a new one tells how many are left.
///
/// # Errors
/// EMFILE when no more than the reserved ones are left; then it is closed.
pub fn keep(fd: OwnedFd) -> Result<OwnedFd> {
    let limit = rustix::process::getrlimit(Resource::Nofile).current;
    match limit {
        Some(limit) if fd.as_raw_fd() as u64 + RESERVED >= limit => Err(Errno::MFILE),
        _ => Ok(fd),
    }
}

/// For an open that changes something before it has its descriptor: whether [`keep`] will let it keep one. `any` is any descriptor.
///
/// # Errors
/// EMFILE.
pub fn expect_one(any: impl AsFd) -> Result<()> {
    keep(rustix::io::fcntl_dupfd_cloexec(any, 3)?).map(drop)
}
