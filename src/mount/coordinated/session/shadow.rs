//! What writing, changing and syncing through a session's handles does to its shadow.

use std::sync::Arc;

use rustix::io::Errno;

use super::{RealStore, Session, Stage};
use crate::mount::coordinated::staged::{Apart, Staged};

impl Session {
    /// Does what may wait for the disk on (shadow, base) without the lock, so that those who only look need not wait; `done` notes how it went
    /// before anybody else can change or publish the shadow. Nothing is done where `begin` has nothing to.
    fn apart(
        &self,
        begin: impl FnOnce(&mut Staged) -> Result<Option<Apart>, Errno>,
        work: impl FnOnce(&Apart) -> Result<(), Errno>,
        done: impl FnOnce(&mut Staged, Result<(), Errno>),
    ) -> Result<(), Errno> {
        let apart = {
            let mut stage = self.lock_idle();
            let staged = stage.open()?;
            let Some(apart) = begin(staged)? else { return Ok(()) };
            staged.busy = true;
            apart
        };
        let result = work(&apart);
        if let Stage::Open(staged) = &mut *self.stage.lock() {
            staged.busy = false;
            done(staged, result);
        }
        self.settled.notify_all();
        result
    }

    /// Copies the base into the shadow, if that has not happened yet. Waits for the disk.
    ///
    /// # Errors
    /// As [`Session::staged`]; ENOSPC, EDQUOT, EIO: nothing is changed then, and the next who changes something copies again.
    pub fn fill(&self, store: &RealStore) -> Result<(), Errno> {
        self.fill_after(store, |_| {})
    }

    /// The same for who is about to change the shadow.
    ///
    /// # Errors
    /// As [`Session::fill`].
    pub fn fill_to_change(&self, store: &RealStore) -> Result<(), Errno> {
        self.fill_after(store, Staged::take_up)
    }

    /// Owner, mode, times or attributes of the shadow are about to change: they are its own from now on, and there is something to publish.
    ///
    /// # Errors
    /// As [`Session::fill`].
    pub fn touch(&self, store: &RealStore) -> Result<(), Errno> {
        self.fill_after(store, Staged::take_up_metadata)?;
        self.change(|staged| {
            staged.shadow.meta_touched = true;
            staged.changed = true;
            Ok(())
        })
    }

    /// The shadow, if its owner, mode or attributes were changed: they are the file's, for its lineage.
    pub fn touched(&self) -> Option<Arc<std::fs::File>> {
        match &*self.stage.lock() {
            Stage::Open(staged) if staged.shadow.meta_touched && !staged.unlinked => {
                Some(Arc::clone(&staged.shadow.file))
            }
            _ => None,
        }
    }

    /// The same for who is about to write by a handle.
    ///
    /// # Errors
    /// As [`Session::fill`].
    pub fn fill_to_write(&self, store: &RealStore) -> Result<(), Errno> {
        self.fill_after(store, Staged::take_up_whole)
    }

    /// pwrite(2) of all of `data`; at the end of the file with `append`. Waits for the disk unless [`Session::is_quick`].
    ///
    /// # Errors
    /// As [`Session::fill`] and [`Staged::write`].
    pub fn write(&self, store: &RealStore, offset: u64, data: &[u8], append: bool) -> Result<usize, Errno> {
        if let Err(errno) = self.fill_to_write(store) {
            // Of one that has ended there is no more to say than that.
            let _ = self.staged(|staged| {
                let at = if append { staged.end() } else { offset };
                staged.refuse(at, errno);
                Ok(())
            });
            return Err(errno);
        }
        self.change(|staged| staged.write(offset, data, append))
    }

    pub(super) fn fill_after(&self, store: &RealStore, note: impl FnOnce(&mut Staged)) -> Result<(), Errno> {
        self.apart(
            |staged| {
                note(staged);
                let base = staged.base.as_ref().filter(|_| !staged.filled);
                Ok(base.map(|base| Apart {
                    shadow: Arc::clone(&staged.shadow.file),
                    base: Some((Arc::clone(base), staged.base_len)),
                }))
            },
            |apart| apart.copy_base(store),
            |staged, copied| staged.filled = copied.is_ok(),
        )
    }

    /// fsync(2) or fdatasync(2) of the shadow. A failure is final: the kernel may have dropped what it could not write, and tells so once. Waits for the
    /// disk.
    ///
    /// # Errors
    /// As [`Session::staged`]; EIO, ENOSPC, EDQUOT.
    pub fn sync(&self, data_only: bool) -> Result<(), Errno> {
        self.apart(
            |staged| match staged.failed {
                Some(errno) => Err(errno),
                None => Ok(Some(Apart {
                    shadow: Arc::clone(&staged.shadow.file),
                    base: None,
                })),
            },
            |apart| match data_only {
                true => rustix::fs::fdatasync(&apart.shadow),
                false => rustix::fs::fsync(&apart.shadow),
            },
            |staged, synced| staged.failed = synced.err(),
        )
    }

    /// ftruncate(2). Shortening to nothing copies nothing.
    ///
    /// # Errors
    /// As [`Session::fill`]; EFBIG.
    pub fn set_len(&self, store: &RealStore, len: u64) -> Result<(), Errno> {
        if len > 0 {
            self.fill_to_change(store)?;
        }
        self.change(|staged| staged.set_len(len))
    }
}
