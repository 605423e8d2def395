//! Lines that are added to a file in place (W10), and the version that they are becoming.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::append::Appender;
use super::append_bytes::copy_to;
use super::append_log::{Live, Log, State};
use super::{Coordination, nanos_now, place, publish_info};
use crate::mount::errno::from_io;
use crate::mount::nodes::Name;
use crate::store::record::{How, Who};
use crate::store::{Growth, RealDisk};

impl Coordination {
    /// Appends `parts`, which together are whole lines, or the last thing that a handle has to say. `log` is locked by `state`.
    ///
    /// # Errors
    /// ENOSPC, EDQUOT, EFBIG, EIO: the file is as it was. ENOENT: it was removed, or replaced by one that the author may not write to.
    pub(super) fn commit(&self, (log, state): (&Log, &mut State), parts: &[&[u8]], by: &Appender) -> Result<(), Errno> {
        let bytes: Vec<u8>;
        let data = match parts {
            [one] => *one,
            several => {
                bytes = several.concat();
                &bytes
            }
        };
        let plain = !data.contains(&0) && data.ends_with(b"\n");
        let write = |file: &File, at: u64| file.write_all_at(data, at).map(|()| data.len() as u64);
        self.grow((log, state), by, plain, write)
    }

    /// The same with the whole of a file.
    ///
    /// # Errors
    /// As [`Coordination::commit`].
    pub(super) fn commit_file(
        &self,
        (log, state): (&Log, &mut State),
        from: &File,
        by: &Appender,
    ) -> Result<(), Errno> {
        let length = rustix::fs::fstat(from)?.st_size.max(0) as u64;
        let write = |file: &File, at: u64| copy_to(from, (0, length), file, at).map(|()| length);
        self.grow((log, state), by, false, write)
    }

    /// Writes behind the committed length, then moves that.
    fn grow(
        &self,
        (log, state): (&Log, &mut State),
        by: &Appender,
        plain: bool,
        write: impl FnOnce(&File, u64) -> std::io::Result<u64>,
    ) -> Result<(), Errno> {
        if let Live::Open(current) = &state.live
            && !by.right.covers(by.file.pin.fd(), &current.file, current.identity)
        {
            return Err(Errno::NOENT);
        }
        self.begin_growth(state, &by.who)?;
        let Live::Open(current) = &mut state.live else {
            return Err(Errno::NOENT);
        };
        let file = Arc::clone(&current.file);
        let before = current.committed.load(Ordering::Acquire);
        let noted = write(&file, before).and_then(|written| {
            let to = before + written;
            let note = |growth| self.store.note_growth(growth, to, current.synced, false);
            current
                .growth
                .as_ref()
                .map_or(Ok(to), |growth| note(growth).map(|()| to))
        });
        let to = noted.map_err(|error| {
            // Readers are kept to the committed length, and so is the next write; recovery knows it too.
            if let Err(error) = file.set_len(before) {
                log::error!("the end of a file cannot be taken back after a failed append: {error}");
            }
            from_io(&error)
        })?;
        current.unusual |= !plain;
        current.committed.store(to, Ordering::Release);
        state.remember(log, &file, before, to);
        Ok(())
    }

    /// Before the first line: the version that it will be is written down.
    fn begin_growth(&self, state: &mut State, who: &Who) -> Result<(), Errno> {
        let name = state.name.clone();
        let Live::Open(current) = &mut state.live else {
            return Err(Errno::NOENT);
        };
        if current.growth.is_some() {
            return Ok(());
        }
        // A file that is not coordinated under the name it has now has no versions.
        let Some(target) = self.target(name.parent, &name.name) else {
            return Ok(());
        };
        let when = (target.policy.durability, nanos_now());
        let (dir, path) = (self.directory(name.parent)?, self.path_of(&name)?);
        let id = self.files.lock().queue.number();
        let growth = self
            .store
            .begin_append(id, &place(&dir, &name, &path), &current.file, who, when)
            .map_err(|error| from_io(&error))?;
        current.growth = Some(growth);
        Ok(())
    }

    /// Waits until what is committed is on disk.
    ///
    /// # Errors
    /// EIO, ENOSPC; later ones of this file fail likewise.
    pub(super) fn sync_log(&self, log: &Log) -> Result<(), Errno> {
        let (file, length) = {
            let state = log.lock();
            let Live::Open(current) = &state.live else {
                return Ok(());
            };
            if let Some(errno) = current.failed {
                return Err(errno);
            }
            (Arc::clone(&current.file), current.committed.load(Ordering::Acquire))
        };
        // Without the lock: the others go on.
        let synced = rustix::fs::fdatasync(&file);
        let mut state = log.lock();
        let Live::Open(current) = &mut state.live else {
            return synced;
        };
        if !Arc::ptr_eq(&current.file, &file) {
            return synced;
        }
        if let Err(errno) = synced {
            current.failed = Some(errno);
            return Err(errno);
        }
        current.synced = current.synced.max(length);
        match (&current.growth, current.unusual) {
            (Some(growth), true) => {
                let committed = current.committed.load(Ordering::Acquire);
                let noted = self.store.note_growth(growth, committed, current.synced, true);
                noted.map_err(|error| from_io(&error))
            }
            _ => Ok(()),
        }
    }

    /// The file is about to be replaced or renamed, or to go: it holds what is committed and no more.
    pub(super) fn settle_growth(&self, state: &mut State) {
        if let Live::Open(current) = &mut state.live
            && let Some(growth) = current.growth.take()
        {
            self.store.drop_growth(growth);
        }
    }

    pub(super) fn end_growth(&self, name: &Name, growth: Growth<RealDisk>) {
        let located = self
            .path_of(name)
            .and_then(|path| Ok((self.directory(name.parent)?, path)));
        let target = self.target(name.parent, &name.name);
        match (located, target) {
            (Ok((dir, path)), Some(target)) => {
                let info = publish_info(How::Append, &target.policy);
                if let Err(error) = self.store.end_append(growth, &place(&dir, name, &path), &info) {
                    log::error!(
                        "the version of the lines appended to {} is not recorded: {error}",
                        path.display()
                    );
                }
                self.published(&path);
            }
            _ => self.store.drop_growth(growth),
        }
    }
}
