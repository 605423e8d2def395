//! chmod, chown, truncate, utimens.

use std::os::fd::{AsFd, BorrowedFd};

use fuser::TimeOrNow;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid};
use rustix::io::{Errno, Result};

use super::attr;
use super::nodes::NodeId;
use super::pin;
use super::tree::{Anchor, Caller, Tree};

/// What a FUSE_SETATTR asks to change.
#[derive(Debug, Default)]
pub struct Changes {
    /// chmod(2).
    pub mode: Option<u32>,
    /// chown(2), owner.
    pub uid: Option<u32>,
    /// chown(2), group.
    pub gid: Option<u32>,
    /// truncate(2), ftruncate(2).
    pub size: Option<u64>,
    /// utimensat(2).
    pub atime: Option<TimeOrNow>,
    /// utimensat(2).
    pub mtime: Option<TimeOrNow>,
}

impl Tree {
    /// Changes attributes and returns what they are then.
    pub fn set_attributes(&self, caller: Caller, id: NodeId, handle: Option<u64>, changes: &Changes) -> Result<Stat> {
        if self.identity(id)?.private {
            return Err(Errno::ROFS);
        }
        let anchor = match handle.map(|number| self.handles.get(number)).transpose()? {
            Some(handle) => Anchor::Pinned(handle.pin()),
            None => self.anchor(id)?,
        };
        // The owner first: then the size is changed, which clears set-user-id for users and leaves it for root.
        changes.set_owner(caller, anchor.as_fd())?;
        if let Some(size) = changes.size {
            caller.changes(&anchor, || truncate(&anchor, size))?;
        }
        changes.set_mode_and_times(anchor.as_fd())?;
        rustix::fs::fstat(&anchor)
    }
}

impl Changes {
    /// Whether utimensat(2) asks for them.
    pub fn are_times(&self) -> bool {
        let others = self.mode.or(self.uid).or(self.gid).is_some() || self.size.is_some();
        !others && (self.atime.is_some() || self.mtime.is_some())
    }

    /// Makes them to an open file, but for its size.
    ///
    /// # Errors
    /// Those of fchownat(2), chmod(2) and utimensat(2).
    pub fn set_metadata(&self, caller: Caller, fd: BorrowedFd<'_>) -> Result<()> {
        self.set_owner(caller, fd)?;
        self.set_mode_and_times(fd)
    }

    fn set_owner(&self, caller: Caller, fd: BorrowedFd<'_>) -> Result<()> {
        if self.uid.is_none() && self.gid.is_none() {
            return Ok(());
        }
        let (uid, gid) = (self.uid.map(Uid::from_raw), self.gid.map(Gid::from_raw));
        caller.changes(fd, || rustix::fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH))
    }

    /// After the owner and the size, which clear set-user-id.
    fn set_mode_and_times(&self, fd: BorrowedFd<'_>) -> Result<()> {
        if let Some(mode) = self.mode {
            rustix::fs::chmod(pin::proc_path(fd), Mode::from_raw_mode(mode & 0o7777))?;
        }
        if self.atime.is_some() || self.mtime.is_some() {
            set_times(fd, self)?;
        }
        Ok(())
    }
}

fn truncate(anchor: &Anchor, size: u64) -> Result<()> {
    match anchor {
        Anchor::Pinned(pin) => rustix::fs::ftruncate(pin.writer()?, size),
        anchor => rustix::fs::ftruncate(pin::reopen(anchor.as_fd(), OFlags::WRONLY | OFlags::NONBLOCK)?, size),
    }
}

fn set_times(fd: BorrowedFd<'_>, changes: &Changes) -> Result<()> {
    let time = |change: Option<TimeOrNow>| match change {
        Some(TimeOrNow::SpecificTime(time)) => attr::timespec(time),
        Some(TimeOrNow::Now) => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
        None => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
    };
    let times = Timestamps {
        last_access: time(changes.atime),
        last_modification: time(changes.mtime),
    };
    rustix::fs::utimensat(fd, "", &times, AtFlags::EMPTY_PATH)
}
