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
use crate::rules::FILE_NAME;

/// In `.concord/`: room for records, for when the disk is full.
pub(super) const SPARE: &str = "spare";
/// Where it is filled: nobody takes what is still written to.
pub(super) const SPARE_PART: &str = "spare.part";
/// Sixteen blocks of most filesystems: the first history of a file takes five.
const SPARE_BYTES: usize = 64 * 1024;
/// So much of it is for a change of the configuration only, by which less is kept: seven blocks, for a first history and what the change itself takes.
const RULES_BYTES: u64 = 28 * 1024;
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
    /// Held over what is done with the spare's file.
    spare: Mutex<()>,
}

/// What of the room that is kept for records a change may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spare {
    /// Nothing.
    No,
    /// What is not kept for the configuration.
    Records,
    /// All of it.
    All,
}

impl Spare {
    /// For a change of `path`.
    pub fn for_change_of(path: &Path) -> Spare {
        match path.as_os_str() == FILE_NAME {
            true => Spare::All,
            false => Spare::Records,
        }
    }

    /// What it leaves.
    fn leaves(self) -> u64 {
        match self {
            Spare::No => SPARE_BYTES as u64,
            Spare::Records => RULES_BYTES,
            Spare::All => 0,
        }
    }
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

    /// Makes a change, and once more when there was no room for it and what the rules let go has made some. Then with as much of
    /// the room that is kept for records as `spare` says.
    pub(super) fn with_room<T, E: Failed>(
        &self,
        spare: Spare,
        now: u64,
        mut change: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        let first = change();
        if !first.as_ref().is_err_and(Failed::is_for_room) {
            return first;
        }
        let second = if self.make_room(now) { change() } else { first };
        if !second.as_ref().is_err_and(Failed::is_for_room) || !self.lend(spare) {
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

    /// Gives up all the room that is kept for records, for a change of the configuration. Whether there was any.
    pub fn lend_spare(&self) -> bool {
        self.lend(Spare::All)
    }

    fn lend(&self, spare: Spare) -> bool {
        let (name, leaves) = (OsStr::new(SPARE), spare.leaves());
        let _spare = self.room.spare.lock();
        let size = if_there(self.disk().stat_at(&self.home, name)).map(|stat| stat.map_or(0, |stat| stat.size));
        if !size.is_ok_and(|size| size > leaves) {
            return false;
        }
        self.room.short.store(true, Ordering::Release);
        let lent = match leaves {
            0 => self.disk().unlink(&self.home, name),
            left => {
                let file = self.disk().open_writable(&self.home, name);
                file.and_then(|file| self.disk().set_len(&file, left))
            }
        };
        lent.is_ok()
    }

    /// Makes the spare where there is none, as large as there is room. Without one, a record for which there is no room is lost, what it is about is not.
    pub(super) fn keep_spare(&self) {
        let _spare = self.room.spare.lock();
        let made = self.fill_spare();
        self.room.short.store(made.is_err(), Ordering::Release);
        if let Err(error) = made {
            log::debug!("no room is kept for a record in .concord/{SPARE}: {error}");
        }
    }

    /// Under another name: others than the store take it, and what they write there must not be written over.
    fn fill_spare(&self) -> io::Result<()> {
        let (disk, home) = (self.disk(), &self.home);
        let (name, part) = (OsStr::new(SPARE), OsStr::new(SPARE_PART));
        match if_there(disk.stat_at(home, name))? {
            Some(stat) if stat.size >= SPARE_BYTES as u64 => return Ok(()),
            Some(_) => if_there(disk.rename((home, name), (home, part)))?,
            None => None,
        };
        let file = open_own(disk, home, part)?;
        let there = disk.stat(&file)?.size;
        let missing = SPARE_BYTES.saturating_sub(usize::try_from(there).unwrap_or(SPARE_BYTES));
        let filled = disk.write_at(&file, &vec![0; missing], there);
        // What there is of it is better than nothing.
        disk.rename((home, part), (home, name))?;
        filled
    }

    /// A record's file of the spare's blocks, as `name` in `dir`; NotFound where there is no spare.
    pub(super) fn take_spare(&self, dir: &D::Dir, name: &OsStr) -> io::Result<()> {
        let _spare = self.room.spare.lock();
        self.room.short.store(true, Ordering::Release);
        self.disk().rename((&self.home, OsStr::new(SPARE)), (dir, name))
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
