//! Lines that are added to a file in place (W10), and the version that they are becoming.

use std::fs::File;
use std::sync::Arc;

use rustix::io::Errno;

use super::append::Appender;
use super::append_bytes::{append, copy, end_of};
use super::append_log::{Live, Log, State};
use super::{Coordination, nanos_now, place, publish_info};
use crate::mount::errno::from_io;
use crate::mount::nodes::Name;
use crate::mount::notices::News;
use crate::mount::tree::Caller;
use crate::store::record::{How, Who};
use crate::store::{Growth, RealDisk};

/// Where what was to be appended is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    /// In the file.
    There,
    /// The file was removed, or replaced by one that the author may not write to.
    Nowhere,
}

impl Coordination {
    /// Appends for `by`, with whom set-id bits go, `parts`, which together are whole lines, or the last thing that a handle has to say. `log` is locked by `state`.
    ///
    /// # Errors
    /// ENOSPC, EDQUOT, EFBIG, EIO: the file is as it was.
    pub(super) fn commit(
        &self,
        (log, state): (&Log, &mut State),
        parts: &[&[u8]],
        by: (&Appender, Option<Caller>),
    ) -> Result<Placed, Errno> {
        let bytes: Vec<u8>;
        let data = match parts {
            [one] => *one,
            several => {
                bytes = several.concat();
                &bytes
            }
        };
        let plain = !data.contains(&0) && data.ends_with(b"\n");
        let write = |file: &File| append(file, data).map(|()| data.len() as u64);
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
        by: (&Appender, Option<Caller>),
    ) -> Result<Placed, Errno> {
        let length = rustix::fs::fstat(from)?.st_size.max(0) as u64;
        let write = |file: &File| copy(from, (0, length), file).map(|()| length);
        self.grow((log, state), by, false, write)
    }

    /// Writes at the end of the file, then moves the committed length. Those who have the file by a name that the rules do not coordinate write there as well, and
    /// ask nobody: the kernel tells where the end is.
    fn grow(
        &self,
        (log, state): (&Log, &mut State),
        (by, clears): (&Appender, Option<Caller>),
        plain: bool,
        write: impl FnOnce(&File) -> std::io::Result<u64>,
    ) -> Result<Placed, Errno> {
        let file = match &state.live {
            Live::Open(current) => Arc::clone(&current.file),
            Live::Departed(file) => Arc::clone(file),
            Live::Idle | Live::Moved(_) | Live::Gone => return Ok(Placed::Nowhere),
        };
        if !by.right.covers(&file) {
            return Ok(Placed::Nowhere);
        }
        let write = |file: &File| match clears {
            Some(caller) => caller.clears(file, || write(file)),
            None => write(file),
        };
        self.begin_growth(state, &by.who)?;
        let Live::Open(current) = &mut state.live else {
            // As anywhere: what of it was written stays.
            return write(&file).map(|_| Placed::There).map_err(|error| from_io(&error));
        };
        let committed = current.length.committed();
        if current.torn {
            file.set_len(committed).map_err(|error| from_io(&error))?;
            current.torn = false;
        }
        let before = end_of(&file)?;
        let noted = write(&file).and_then(|written| {
            let to = end_of(&file)?;
            current.unusual |= !plain || to != before + written;
            if let Some(growth) = &current.growth {
                self.store.note_growth(growth, to, current.synced, false)?;
            }
            Ok(to)
        });
        let to = noted.map_err(|error| {
            // Readers are kept to the committed length, and recovery knows it too.
            if let Err(error) = file.set_len(before) {
                current.torn = true;
                log::error!("the end of a file cannot be taken back after a failed append: {error}");
            }
            from_io(&error)
        })?;
        let identity = current.identity;
        if current.length.commit(to) {
            let overtaken = self.overtook_count((identity, &current.length), by.file.node, to);
            *by.overtaken.lock() = overtaken;
        }
        state.remember(log, (&file, identity), committed.min(before), to);
        self.tell_formers(&state.name, News::Modified);
        Ok(Placed::There)
    }

    /// Before the first line: the version that it will be is written down.
    fn begin_growth(&self, state: &mut State, who: &Who) -> Result<(), Errno> {
        let name = state.name.clone();
        let Live::Open(current) = &mut state.live else {
            return Ok(());
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
    pub(super) fn sync_log(&self, log: &mut Arc<Log>) -> Result<(), Errno> {
        let open = Log::with(log, |_, state| match &state.live {
            Live::Open(current) => match current.failed {
                Some(errno) => Err(errno),
                None => Ok(Some((Arc::clone(&current.file), current.length.committed()))),
            },
            Live::Departed(file) => Ok(Some((Arc::clone(file), 0))),
            Live::Idle | Live::Moved(_) | Live::Gone => Ok(None),
        });
        let Some((file, length)) = open? else { return Ok(()) };
        // Without the lock: the others go on.
        let synced = rustix::fs::fdatasync(&file);
        Log::with(log, |_, state| {
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
                    let committed = current.length.committed();
                    let noted = self.store.note_growth(growth, committed, current.synced, true);
                    noted.map_err(|error| from_io(&error))
                }
                _ => Ok(()),
            }
        })
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
