//! chmod, chown, truncate, utimens.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use fuser::TimeOrNow;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid};
use rustix::io::{Errno, Result};

use super::attr;
use super::handles::Handle;
use super::nodes::NodeId;
use super::pin;
use super::tree::{Anchor, Caller, Tree};
use crate::os::creds;

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
            Some(Handle::Ordinary(file)) => Anchor::Pinned(file.pin.clone()),
            Some(Handle::Appender(file)) => Anchor::Pinned(file.file.pin.clone()),
            Some(Handle::Writer(file)) => Anchor::Pinned(Arc::clone(&file.session().pin)),
            None => self.anchor(id)?,
        };
        if changes.uid.is_some() || changes.gid.is_some() {
            let (uid, gid) = (changes.uid.map(Uid::from_raw), changes.gid.map(Gid::from_raw));
            rustix::fs::chownat(&anchor, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(size) = changes.size {
            // Clears set-user-id for users and leaves it for root.
            creds::writing_as(caller.uid, || truncate(&anchor, size))?;
        }
        // After the owner and the size, which clear set-user-id.
        if let Some(mode) = changes.mode {
            rustix::fs::chmod(pin::proc_path(anchor.as_fd()), Mode::from_raw_mode(mode & 0o7777))?;
        }
        if changes.atime.is_some() || changes.mtime.is_some() {
            set_times(anchor.as_fd(), changes)?;
        }
        rustix::fs::fstat(&anchor)
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
