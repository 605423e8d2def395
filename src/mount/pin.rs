//! What keeps an inode reachable while anybody has it open.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use parking_lot::RwLock;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};

/// The descriptors of one backing inode, and its registration for passthrough. All handles of a node share one `Pin`, so
/// that all opens of the inode carry the same backing id, which the kernel insists on (kernel-facts, 2).
#[derive(Debug)]
pub struct Pin {
    first: OwnedFd,
    access: Access,
    reader: OnceLock<OwnedFd>,
    writer: OnceLock<OwnedFd>,
    backing: Option<fuser::BackingId>,
    /// Holds what the inode held when it was about to be written in place.
    frozen: OnceLock<OwnedFd>,
    reading: RwLock<()>,
}

/// What a descriptor can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `O_PATH`: name the inode, no more.
    Path,
    /// `O_RDONLY`.
    Read,
    /// `O_WRONLY`.
    Write,
    /// `O_RDWR`.
    Both,
}

impl Access {
    /// What open(2) flags ask for.
    pub fn of(flags: OFlags) -> Access {
        match flags & OFlags::RWMODE {
            OFlags::WRONLY => Access::Write,
            OFlags::RDWR => Access::Both,
            _ => Access::Read,
        }
    }

    /// Whether it lets write.
    pub fn writes(self) -> bool {
        matches!(self, Access::Write | Access::Both)
    }

    /// Whether it lets read.
    pub fn reads(self) -> bool {
        matches!(self, Access::Read | Access::Both)
    }
}

impl Pin {
    /// Holds the inode behind `fd`. With `backing`, its opens pass the daemon by.
    pub fn new(fd: OwnedFd, access: Access, backing: Option<fuser::BackingId>) -> Pin {
        Pin {
            first: fd,
            access,
            reader: OnceLock::new(),
            writer: OnceLock::new(),
            backing,
            frozen: OnceLock::new(),
            reading: RwLock::new(()),
        }
    }

    /// Any descriptor of the inode, perhaps `O_PATH`: for fstat(2), fsync is not among what it can do.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.frozen.get().unwrap_or(&self.first).as_fd()
    }

    /// From now on what is read is read from `image`, which holds the same: the inode is about to be written to. Waits for reads that are under way.
    pub fn freeze(&self, image: OwnedFd) {
        let _ = self.frozen.set(image);
        drop(self.reading.write());
    }

    /// Whether an image is read in place of the inode.
    pub fn is_frozen(&self) -> bool {
        self.frozen.get().is_some()
    }

    /// Reads from the inode, which is not written in place meanwhile.
    ///
    /// # Errors
    /// Those of `read`, and of [`Pin::reader`].
    pub fn reading<T>(&self, read: impl FnOnce(BorrowedFd<'_>) -> Result<T>) -> Result<T> {
        let _reading = self.reading.read();
        read(self.reader()?)
    }

    /// The registration for passthrough, where there is one.
    pub fn backing(&self) -> Option<&fuser::BackingId> {
        self.backing.as_ref()
    }

    /// A descriptor to read from.
    ///
    /// # Errors
    /// What open(2) says when the inode must be opened once more for it.
    pub fn reader(&self) -> Result<BorrowedFd<'_>> {
        if self.access.reads() || self.is_frozen() {
            Ok(self.fd())
        } else {
            again(&self.reader, self.fd(), OFlags::RDONLY)
        }
    }

    /// A descriptor to write to.
    ///
    /// # Errors
    /// What open(2) says when the inode must be opened once more for it.
    pub fn writer(&self) -> Result<BorrowedFd<'_>> {
        let first = self.first.as_fd();
        if self.access.writes() {
            return Ok(first);
        }
        match again(&self.writer, first, OFlags::RDWR) {
            // The owner may write what it may not read.
            Err(Errno::ACCESS) => again(&self.writer, first, OFlags::WRONLY),
            // Append-only files, FS_APPEND_FL.
            Err(Errno::PERM) => again(&self.writer, first, OFlags::WRONLY | OFlags::APPEND),
            result => result,
        }
    }

    /// Any descriptor that fsync(2) takes.
    ///
    /// # Errors
    /// As [`Pin::reader`].
    pub fn open_fd(&self) -> Result<BorrowedFd<'_>> {
        if self.access == Access::Path {
            self.reader()
        } else {
            Ok(self.fd())
        }
    }
}

fn again<'a>(slot: &'a OnceLock<OwnedFd>, fd: BorrowedFd<'_>, flags: OFlags) -> Result<BorrowedFd<'a>> {
    if let Some(fd) = slot.get() {
        return Ok(fd.as_fd());
    }
    let opened = reopen(fd, flags)?;
    Ok(slot.get_or_init(|| opened).as_fd())
}

/// Opens the inode behind a descriptor again, with other rights; works for deleted files, proc_pid_fd(5).
pub fn reopen(fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::open(proc_path(fd), flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
}

/// The path by which system calls that know only paths reach the inode behind a descriptor.
pub fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
