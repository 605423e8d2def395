//! Full disks: what the rules let go makes room, and a little room is kept for what must be possible all the same.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::disk::{Disk, if_there};
use super::error::At;
use super::owners::open_own;
use super::{Retain, Stage, Store};

/// In `.concord/`: room for records, for when the disk is full.
pub(super) const SPARE: &str = "spare";
/// Sixteen blocks of most filesystems: the first history of a file takes five.
const SPARE_BYTES: usize = 64 * 1024;
/// Where nothing was found that could go, nobody looks again for so long.
const FRUITLESS_TIME: Duration = Duration::from_secs(2);

/// What the rules in force keep of a path's history; `None`: no rule coordinates it, and its history stays as it is.
pub type Retention = Arc<dyn Fn(&Path) -> Option<Retain> + Send + Sync>;

/// What is known about the room on the disk.
#[derive(Default)]
pub(super) struct Room {
    retention: RwLock<Option<Retention>>,
    /// When nothing could be freed, ns since the epoch.
    fruitless: Mutex<Option<u64>>,
    /// The spare is not there as a whole.
    short: AtomicBool,
}

/// A change that failed.
pub(super) trait Failed {
    /// Whether it failed because the disk is full and left everything as it was: it may be tried again.
    fn is_for_room(&self) -> bool;
}

impl Failed for io::Error {
    fn is_for_room(&self) -> bool {
        is_full(self)
    }
}

impl Failed for At {
    fn is_for_room(&self) -> bool {
        // A failed sync is final, and what comes after the commit stands.
        use Stage::{Commit, Keep, Look, Meta, Record};
        matches!(self.0, Look | Meta | Record | Keep | Commit) && is_full(&self.1)
    }
}

impl<D: Disk> Store<D> {
    /// The rules in force, for [`Store::prune_all`] and for when the disk is full.
    pub fn set_retention(&self, retention: Retention) {
        *self.room.retention.write() = Some(retention);
        *self.room.fruitless.lock() = None;
    }

    pub(super) fn has_retention(&self) -> bool {
        self.room.retention.read().is_some()
    }

    pub(super) fn retain_of(&self, path: &Path) -> Option<Retain> {
        let retention = self.room.retention.read().clone();
        retention.and_then(|retention| retention(path))
    }

    /// Makes a change, and once more when there was no room for it and what the rules let go has made some. With `spare` also with the room that
    /// is kept for records.
    pub(super) fn with_room<T, E: Failed>(
        &self,
        spare: bool,
        now: u64,
        mut change: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        let first = change();
        if !first.as_ref().is_err_and(Failed::is_for_room) {
            return first;
        }
        let second = if self.make_room(now) { change() } else { first };
        if !spare || !second.as_ref().is_err_and(Failed::is_for_room) || !self.lend_spare() {
            return second;
        }
        let third = change();
        self.keep_spare();
        third
    }

    /// Frees what the rules let go. Returns whether there was any.
    fn make_room(&self, now: u64) -> bool {
        {
            let fruitless = self.room.fruitless.lock();
            let again = |at: u64| u128::from(now.saturating_sub(at)) > FRUITLESS_TIME.as_nanos();
            if !fruitless.is_none_or(again) {
                return false;
            }
        }
        self.bound_recovered();
        let freed = self.prune_all(now, &|| true) > 0;
        *self.room.fruitless.lock() = (!freed).then_some(now);
        freed
    }

    /// Gives up the room that is kept for records, for something that must be possible on a full disk. Whether there was any.
    pub fn lend_spare(&self) -> bool {
        self.room.short.store(true, Ordering::Release);
        let name = OsStr::new(SPARE);
        let held = if_there(self.disk().stat_at(&self.home, name)).is_ok_and(|stat| stat.is_some_and(|s| s.size > 0));
        held && self.disk().unlink(&self.home, name).is_ok()
    }

    /// Makes the spare where there is none. Without one, a record for which there is no room is lost, what it is about is not.
    pub(super) fn keep_spare(&self) {
        let name = OsStr::new(SPARE);
        let made = open_own(self.disk(), &self.home, name).and_then(|file| {
            let there = self.disk().stat(&file)?.size;
            match there < SPARE_BYTES as u64 {
                true => self.disk().write_at(&file, &vec![0; SPARE_BYTES], 0),
                false => Ok(()),
            }
        });
        self.room.short.store(made.is_err(), Ordering::Release);
        if let Err(error) = made {
            log::debug!("no room is kept for a record in .concord/{SPARE}: {error}");
        }
    }

    /// [`Store::keep_spare`] where it was used.
    pub(super) fn complete_spare(&self) {
        if self.is_short() {
            self.keep_spare();
        }
    }

    /// Whether the disk is so full that the room for records is not there as a whole.
    pub fn is_short(&self) -> bool {
        self.room.short.load(Ordering::Acquire)
    }
}

pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}
