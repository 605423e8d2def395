//! What a session has staged: a shadow, and the version that it started from.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::append_log::Mark;
use super::close::Ending;
use super::session::RealStore;
use crate::mount::errno::from_io;
use crate::session::ProcId;
use crate::store::{RealDisk, Seen, Shadow};

/// What a session has staged.
pub struct Staged {
    /// On disk.
    pub shadow: Shadow<RealDisk>,
    /// A thread copies to the shadow or syncs it without holding the lock: nobody else changes it or ends the session.
    pub(super) busy: bool,
    /// The version that it started from; `None` for a new file.
    pub base: Option<Arc<std::fs::File>>,
    /// The shadow holds the content. Until then it is empty and the base shows: nothing is copied for an open that only looks.
    pub filled: bool,
    /// There is something to publish.
    pub changed: bool,
    /// Nothing but what open(2) has made of it, an empty file as of then or the version that it found; and no page of it is mapped.
    pub only_opened: bool,
    /// Its opener had it emptied (O_TRUNC), and nobody has looked since at what it holds: what is written is meant to be all there is. The version that it was
    /// emptied in place of.
    pub emptied: Option<Option<Seen>>,
    /// Somebody has looked at what it holds, and may write accordingly: by a handle of it, at its size too (SEEK_END), or by its name.
    pub looked_at: bool,
    /// Its name was removed by its own lineage: there is nothing to publish to.
    pub unlinked: bool,
    /// Copying the base or a sync failed; such content is never published (fsyncgate).
    pub failed: Option<Errno>,
    /// Writes that the disk refused, by the offsets at which they stopped. Until they are made good the content is torn, and not published (F3).
    pub(super) refused: BTreeMap<u64, Errno>,
    /// Handles that are open on it for writing.
    pub handles: usize,
    /// Those of them of which no descriptor was ever closed: somebody has each of them, or is in the open(2) that gives it, where /proc does not show it yet.
    pub unclosed: usize,
    /// All that ever were.
    pub opened: usize,
    /// Processes known to have used it, besides their descendants.
    pub processes: Vec<u32>,
    /// How it ends if the last close that was seen was the last there is.
    pub(super) last_close: Ending,
    /// How long the base was when the session began: lines may be appended to it since.
    pub base_len: u64,
    /// What was appended since, the version will hold too.
    pub mark: Option<Mark>,
}

/// A version, with an empty shadow for what is made of it.
pub struct Fresh {
    /// Empty.
    pub shadow: Shadow<RealDisk>,
    /// What it starts from.
    pub version: std::fs::File,
    /// Where appended lines end that are seen in it.
    pub mark: Mark,
    /// How long it is.
    pub len: u64,
}

/// As many refused writes may be made good one by one.
const REFUSED_MAX: usize = 4096;

impl Staged {
    /// Of a session that has just begun. `truncate`: it does not look at what the file holds.
    pub fn new(shadow: Shadow<RealDisk>, base: Option<Arc<std::fs::File>>, truncate: bool, opener: ProcId) -> Staged {
        let fresh = truncate || base.is_none();
        Staged {
            emptied: truncate.then(|| shadow.based_on.clone()),
            shadow,
            busy: false,
            base,
            filled: fresh,
            changed: fresh,
            only_opened: true,
            looked_at: false,
            unlinked: false,
            failed: None,
            refused: BTreeMap::new(),
            handles: 1,
            unclosed: 1,
            opened: 1,
            processes: vec![opener.tgid],
            last_close: Ending::Closed,
            base_len: u64::MAX,
            mark: None,
        }
    }

    /// The file whose content the session sees.
    pub fn content(&self) -> &Arc<std::fs::File> {
        match &self.base {
            Some(base) if !self.filled => base,
            _ => &self.shadow.file,
        }
    }

    /// What fstat(2) on the session's node shows: the shadow's inode, with the base's size and times while that shows through.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn stat(&self) -> Result<Stat, Errno> {
        let mut stat = rustix::fs::fstat(&self.shadow.file)?;
        if self.unlinked {
            stat.st_nlink = 0;
        }
        if let (Some(base), false) = (&self.base, self.changed) {
            let shown = rustix::fs::fstat(base)?;
            stat.st_size = shown.st_size.min(i64::try_from(self.base_len).unwrap_or(i64::MAX));
            stat.st_blocks = shown.st_blocks;
            (stat.st_atime, stat.st_atime_nsec) = (shown.st_atime, shown.st_atime_nsec);
            (stat.st_mtime, stat.st_mtime_nsec) = (shown.st_mtime, shown.st_mtime_nsec);
            (stat.st_ctime, stat.st_ctime_nsec) = (shown.st_ctime, shown.st_ctime_nsec);
        }
        Ok(stat)
    }

    /// Its writer has made something of it.
    pub fn note_change(&mut self) {
        self.changed = true;
        self.take_up();
    }

    /// Somebody looks at what it holds, by a handle.
    pub fn note_look(&mut self) {
        self.looked_at = true;
        self.emptied = None;
    }

    /// Whether all that anybody has done with it is to open it: what is written by its handle, the only one that it ever had, does not depend on what it holds.
    pub fn is_unused(&self) -> bool {
        let untouched = self.only_opened && !self.changed && !self.unlinked;
        untouched && !self.looked_at && self.emptied.is_none() && self.opened == 1
    }

    /// A change of it begins.
    pub(super) fn take_up(&mut self) {
        self.only_opened = false;
    }

    /// The same for a change of owner, mode, times or attributes, which says nothing about the content: one that was emptied by open(2) is no more than that still.
    pub(super) fn take_up_metadata(&mut self) {
        if !self.changed {
            self.take_up();
        }
    }

    /// The same for a write through a handle of it: who has emptied it writes a whole file, whatever was published since (W3).
    pub(super) fn take_up_whole(&mut self) {
        self.take_up();
        if let Some(version) = self.emptied.clone().filter(|_| !self.changed) {
            self.shadow.based_on = version;
            // Who read it by name may have had the version copied that it started anew from.
            self.failed = self.failed.or(rustix::fs::ftruncate(&self.shadow.file, 0).err());
            self.filled = true;
        }
    }

    /// Starts anew, from another version; returns the shadow that it had.
    pub(super) fn start_from(&mut self, fresh: Fresh) -> Shadow<RealDisk> {
        (self.base, self.base_len) = (Some(Arc::new(fresh.version)), fresh.len);
        self.mark = Some(fresh.mark);
        (self.filled, self.changed, self.looked_at) = (false, false, false);
        std::mem::replace(&mut self.shadow, fresh.shadow)
    }

    /// Whether its writer has to be told how it ends: there is something to publish, or was to be.
    pub fn matters(&self) -> bool {
        (self.changed || !self.refused.is_empty()) && !self.unlinked
    }

    /// The disk has refused a write, all of it or from this offset on.
    pub fn refuse(&mut self, offset: u64, errno: Errno) {
        if self.refused.len() < REFUSED_MAX {
            self.refused.insert(offset, errno);
        } else {
            self.failed = self.failed.or(Some(errno));
        }
    }

    /// Where a write at the end goes, or would, before the base is copied.
    pub fn end(&self) -> u64 {
        let size = rustix::fs::fstat(self.content()).map_or(0, |stat| stat.st_size.max(0) as u64);
        if self.filled { size } else { size.min(self.base_len) }
    }

    /// Why it can not be published as it is.
    pub fn failure(&self) -> Option<Errno> {
        self.failed.or_else(|| self.refused.values().next().copied())
    }

    /// Whether somebody has written to it and closed it, and another handle keeps it open.
    pub fn is_saved(&self) -> bool {
        self.changed && !self.unlinked && self.unclosed < self.opened && self.last_close == Ending::Closed
    }

    /// How much a first change has to copy, in bytes.
    pub fn to_copy(&self) -> u64 {
        match &self.base {
            Some(base) if !self.filled && self.emptied.is_none() => {
                rustix::fs::fstat(base).map_or(0, |stat| stat.st_size.max(0) as u64)
            }
            _ => 0,
        }
    }

    /// pwrite(2) of all of `data` to a shadow that is filled; at the end of the file with `append`.
    ///
    /// # Errors
    /// ENOSPC, EDQUOT, EFBIG, EIO. The writer may write the same place again; until that succeeds there is nothing to publish.
    pub fn write(&mut self, offset: u64, data: &[u8], append: bool) -> Result<usize, Errno> {
        let offset = if append {
            rustix::fs::fstat(&self.shadow.file)?.st_size.max(0) as u64
        } else {
            offset
        };
        let mut written = 0;
        while written < data.len() {
            let stopped = match self.shadow.file.write_at(&data[written..], offset + written as u64) {
                Ok(0) => Errno::NOSPC,
                Ok(count) => {
                    written += count;
                    self.note_change();
                    continue;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => from_io(&error),
            };
            self.refuse(offset + written as u64, stopped);
            return if written > 0 { Ok(written) } else { Err(stopped) };
        }
        let end = offset + written as u64;
        self.refused.retain(|at, _| !(offset..end).contains(at));
        Ok(written)
    }

    /// ftruncate(2) of a shadow that is filled, or to nothing, which needs no base.
    ///
    /// # Errors
    /// ENOSPC, EFBIG, EIO.
    pub fn set_len(&mut self, len: u64) -> Result<(), Errno> {
        rustix::fs::ftruncate(&self.shadow.file, len)?;
        self.filled = true;
        self.note_change();
        self.refused.retain(|at, _| *at < len);
        Ok(())
    }
}

/// What a thread works on without the lock: the shadow, and what of the base it is to be filled with.
pub(super) struct Apart {
    pub shadow: Arc<std::fs::File>,
    pub base: Option<(Arc<std::fs::File>, u64)>,
}

impl Apart {
    pub fn copy_base(&self, store: &RealStore) -> Result<(), Errno> {
        let Some((base, base_len)) = &self.base else {
            return Ok(());
        };
        if let Err(error) = store.fill(&self.shadow, base) {
            // What there is of it is nothing that its writer has written, and takes room.
            let _ = rustix::fs::ftruncate(&self.shadow, 0);
            return Err(from_io(&error));
        }
        // The base may have grown since the session began.
        if rustix::fs::fstat(&self.shadow)?.st_size.max(0) as u64 > *base_len {
            rustix::fs::ftruncate(&self.shadow, *base_len)?;
        }
        keep_times(base, &self.shadow)
    }
}

/// A copy is not a change: the time of the last modification stays until there is one.
fn keep_times(from: &std::fs::File, to: &std::fs::File) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(from)?;
    let time = |tv_sec, tv_nsec: u64| Timespec {
        tv_sec,
        tv_nsec: tv_nsec as i64,
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::futimens(to, &times)
}

/// pread(2) until `size` bytes or the end of the file.
///
/// # Errors
/// EIO.
pub fn read_at(fd: BorrowedFd<'_>, offset: u64, size: usize) -> Result<Vec<u8>, Errno> {
    let mut data = vec![0; size];
    let mut length = 0;
    while length < size {
        match rustix::io::pread(fd, &mut data[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(Errno::INTR) => {}
            Err(errno) if length == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    data.truncate(length);
    Ok(data)
}
