//! The disk: shadows, publish, history, records, recovery. Knows descriptors and names, not FUSE.
//!
//! - [`Store`] is the owner of `.concord/`: it holds the lock, stages ([`Store::begin`]), publishes ([`Store::publish`])
//!   and recovers ([`Store::open`]).
//! - [`History`] is the reading side; it needs neither the lock nor a mount.
//! - [`disk`] is the seam to the filesystem.
//!
//! docs/FORMAT.md says what lies on disk, and for each place where a publish can stop, what the next start does.
//!
//! Locks, none of them held across a disk sync: `files` (what is known per file), `journal`, `recovered`, `pruned`, `ready`, `written`, `followed`, `images`, those of `room`; no two of
//! them are ever held together. A file's entry in `files` is *taken out* while a change of it is under way; a second
//! change of the same file waits for it (callers serialise anyway, this keeps a mistake from becoming a lost version).

mod append;
mod arrival;
mod away;
pub mod disk;
mod error;
mod files;
mod history;
mod images;
mod in_place;
mod intact;
mod journal;
mod layout;
mod lineage;
mod moves;
mod names;
mod overwrite;
mod owners;
mod prefix;
mod prune;
mod publish;
mod real;
pub mod record;
mod recover;
mod recovered;
mod redo;
mod room;
mod seen;
mod shadow;
mod unrecorded;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests_faults;
#[cfg(test)]
mod tests_garbage;
#[cfg(test)]
mod tests_journal;
#[cfg(test)]
mod tests_lineage;
#[cfg(test)]
mod tests_moves;
#[cfg(test)]
mod tests_real;
#[cfg(test)]
mod tests_room;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;

pub use append::Growth;
pub use error::{PublishError, Stage, StoreError};
pub use history::{History, Kept, VersionEntry};
pub use images::Images;
pub use intact::Damaged;
pub use moves::Way;
pub use names::ReplaceOptions;
pub use publish::Published;
pub use real::RealDisk;
pub use recover::{Action, RecoveryItem, RecoveryReport};
pub use recovered::RecoveredEntry;
pub use room::Retention;
pub use seen::Seen;
pub use shadow::Shadow;

use crate::rules::{Durability, Policy};
use disk::Disk;
use record::How;

/// The store's directory in the project's root.
pub const STORE_DIR: &str = ".concord";
/// The number in `.concord/format` that this program reads and writes.
pub const FORMAT_NUMBER: u32 = 3;
/// Contents up to this size are hashed before they are published; [`Store::complete_hash`] does the others.
pub const HASH_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Files whose history directory stays open (one descriptor each) and whose records stay in memory.
pub const OPEN_HISTORIES_MAX: usize = 256;
/// What `recovered/` may hold; beyond it the oldest go.
pub const RECOVERED_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// How long the history of a deleted file is kept where no `max_age` says otherwise: else programs that give each file a new name would fill the disk.
pub const DELETED_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long the history of a name is kept whose only version became one of another name: savers give each temporary file a new name.
pub const PASSED_ON_AGE_MAX: Duration = Duration::from_secs(60 * 60);
/// A journal longer than this is emptied when no session is open.
pub const JOURNAL_COMPACT_BYTES: u64 = 64 * 1024;
/// A journal longer than this, and than several times what is needed of it, is written anew while sessions are open.
pub const JOURNAL_REWRITE_BYTES: u64 = 1024 * 1024;
/// The most of a journal that recovery reads.
pub const JOURNAL_READ_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Where a coordinated file lives. `name` in `dir` and `path` are the same file; `path` is the key of its history.
pub struct Place<'a, D: Disk> {
    /// Its directory in the backing tree.
    pub dir: &'a D::Dir,
    /// Its name there.
    pub name: &'a OsStr,
    /// Its path relative to the project.
    pub path: &'a Path,
}

impl<D: Disk> Clone for Place<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D: Disk> Copy for Place<'_, D> {}

/// How much of a file's history stays. The current version is never counted and never goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retain {
    /// Newest versions kept.
    pub keep: u32,
    /// A version goes when it was replaced longer ago than this.
    pub max_age: Option<Duration>,
    /// Bytes of all kept versions of the file together.
    pub max_bytes: Option<u64>,
}

impl Retain {
    /// What a rule says.
    pub fn of(policy: &Policy) -> Retain {
        Retain {
            keep: policy.keep,
            max_age: policy.max_age,
            max_bytes: policy.max_bytes,
        }
    }
}

/// What goes with a publish.
#[derive(Debug, Clone)]
pub struct PublishInfo {
    /// For the record.
    pub how: How,
    /// The content goes into the inode that the name leads to, as where the file has other names.
    pub in_place: bool,
    /// What is awaited (contract F2).
    pub durability: Durability,
    /// What stays of the history.
    pub retain: Retain,
    /// Now, ns since the epoch.
    pub now: u64,
    /// For the record.
    pub note: Option<String>,
    /// The content's blake3 in hex, when the caller has it already.
    pub hash: Option<String>,
}

/// The owner of a project's `.concord/`. All methods take `&self` and may run in many threads.
pub struct Store<D: Disk> {
    history: History<D>,
    /// `.concord/` itself.
    home: D::Dir,
    images: Arc<Images<D>>,
    shadows: D::Dir,
    /// See [`Disk::mounting`].
    mounting: Option<u64>,
    /// For sessions to come: see [`Store::make_ready`].
    ready: Mutex<Vec<D::File>>,
    journal: Mutex<journal::Journal<D>>,
    files: files::Files<D>,
    /// Records whose writing to the disk has not begun: see [`Store::tidy`].
    written: Mutex<Vec<D::File>>,
    recovered: Mutex<recovered::Tally>,
    /// What [`Store::sweep`] is to remove: names in history directories that no history knows any more.
    pruned: Mutex<Vec<(D::Dir, OsString)>>,
    move_log: moves::MoveLog,
    followed: Mutex<prune::Followed>,
    room: room::Room,
    /// Makes names in `recovered/` unique.
    serial: AtomicU64,
    /// Held for its lock only.
    _lock: D::File,
}

impl<D: Disk> Store<D> {
    /// The reading side of this store.
    pub fn history(&self) -> &History<D> {
        &self.history
    }

    /// Where the versions are that inodes hold which are written in place.
    pub fn images(&self) -> &Arc<Images<D>> {
        &self.images
    }

    fn disk(&self) -> &D {
        &self.history.disk
    }
}
