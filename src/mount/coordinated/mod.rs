//! Coordinated files: who may write, what each process sees, and how a session becomes a version.
//!
//! A write goes through here in a straight line: `open.rs` asks the queue and begins a session, `handles.rs` writes to its shadow, `close.rs`
//! finds out whether a close was the last one and ends the session. `names.rs` and `rename.rs` do what changes a name without a handle. The rules of the
//! game are in [`crate::session`], the disk is [`crate::store`]'s.

mod append;
mod append_bytes;
mod append_close;
mod append_counted;
mod append_grow;
mod append_log;
mod append_moves;
mod append_open;
mod append_size;
mod begin;
mod caller;
mod close;
mod counts;
mod creator;
mod databases;
mod departed;
mod directories;
mod files;
mod flock;
mod handles;
mod holders;
mod incidents;
mod kept;
mod kinds;
mod linked;
mod locks;
mod lookup;
mod metadata;
mod names;
mod open;
mod opened;
mod overtaken;
mod permission;
mod pruning;
mod reader;
mod rename;
mod restore;
mod rounds;
mod session;
mod shown;
mod staged;
mod status;
mod tables;
mod taking;
mod truncate;
mod turns;
mod wait;

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

pub use append::Appender;
pub use append_counted::Outdated;
pub use counts::Counted;
pub use files::{Creation, Finds, Need};
pub use flock::Wish;
pub use handles::Writer;
pub use incidents::Incident;
pub use metadata::{About, Change};
pub use opened::Opened;
pub use reader::{Reader, Use};
pub use session::RealStore;
pub use shown::Shown;
pub use status::{LockParty, LockStatus, SessionStatus, WaiterStatus};

use caller::Descriptions;
use counts::Counts;
use files::Files;
use incidents::Incidents;
use locks::Locks;
use pruning::Pruning;
pub use pruning::retention;
use reader::Readers;

use super::nodes::{Identity, Name, NodeId, ROOT};
use super::tree::Tree;
use crate::os::table::Device;
use crate::rules::{Policy, Rules};
use crate::session::{Millis, SessionId};
use crate::store::record::{How, Who};
use crate::store::{Place, PublishInfo, RealDisk, Retain};

/// The answer to a request, given when there is one: at once, or at the end of a wait.
pub type Answer<T> = Box<dyn FnOnce(Result<T, Errno>) + Send>;

/// A coordinated file, by one of its names.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its directory and name.
    pub name: Name,
    /// The same relative to the project; the key of its history.
    pub path: PathBuf,
    /// What the rules say.
    pub policy: Policy,
}

/// The coordination of one mount.
pub struct Coordination {
    tree: Arc<Tree>,
    store: RealStore,
    rules: RwLock<Arc<Rules>>,
    kinds: kinds::Kinds,
    files: Mutex<Files>,
    locks: Mutex<Locks>,
    readers: Readers,
    turns: turns::Turns,
    rounds: rounds::Rounds,
    linked: linked::Linked,
    logs: append_log::Logs,
    descriptions: Descriptions,
    counts: Counts,
    incidents: Incidents,
    tables: tables::Tables,
    /// Of the mount's files, as others see them.
    device: OnceLock<Device>,
    wakeup: Arc<wait::Wakeup>,
    epoch: Instant,
    /// No session begins any more: the mount is going away.
    closing: AtomicBool,
    /// Called when `concord.toml` was published.
    config_changed: Box<dyn Fn() + Send + Sync>,
    pruning: Pruning,
}

impl std::fmt::Debug for Coordination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coordination").finish_non_exhaustive()
    }
}

impl Coordination {
    /// Coordinates the files of `tree` that `rules` name, and starts the thread that watches over waits.
    ///
    /// # Errors
    /// When that thread cannot be started.
    pub fn start(
        tree: Arc<Tree>,
        store: RealStore,
        rules: Rules,
        config_changed: Box<dyn Fn() + Send + Sync>,
    ) -> std::io::Result<Arc<Coordination>> {
        // Numbers never come back, also after a restart: what is in `recovered/` is named by them.
        let first = SessionId(nanos_now() / 1000);
        let rules = Arc::new(rules);
        store.set_retention(retention(&rules));
        let (pruning, asked) = Pruning::new();
        let this = Arc::new(Coordination {
            tree,
            store,
            rules: RwLock::new(rules),
            kinds: kinds::Kinds::default(),
            files: Mutex::new(Files::new(first)),
            locks: Mutex::default(),
            readers: Readers::default(),
            turns: turns::Turns::default(),
            rounds: rounds::Rounds::default(),
            linked: linked::Linked::default(),
            logs: append_log::Logs::default(),
            descriptions: Descriptions::default(),
            counts: Counts::default(),
            incidents: Incidents::default(),
            tables: tables::Tables::default(),
            device: OnceLock::new(),
            wakeup: Arc::default(),
            epoch: Instant::now(),
            closing: AtomicBool::new(false),
            config_changed,
            pruning,
        });
        this.tree.set_images(Arc::clone(this.store.images()));
        let weak = Arc::downgrade(&this);
        this.store.images().on_new(move |ino, image| {
            if let Some(this) = weak.upgrade() {
                this.freeze(ino, image);
            }
        });
        let weak = Arc::downgrade(&this);
        this.store.images().on_end(move |image| {
            if let Some(this) = weak.upgrade() {
                this.inode_ended(image);
            }
        });
        wait::start(&this)?;
        pruning::start(&this, asked)?;
        Ok(this)
    }

    /// How long a stop may wait for open sessions.
    pub fn grace(&self) -> std::time::Duration {
        self.rules.read().grace()
    }

    /// The store, for its reading side.
    pub fn store(&self) -> &RealStore {
        &self.store
    }

    /// What a name is by the rules, unless it was in use when they changed; `None` when it is an ordinary file's. Nothing is asked of the disk.
    pub fn target(&self, parent: NodeId, name: &OsStr) -> Option<Target> {
        let rules = Arc::clone(&self.rules.read());
        // A shadow lies in `.concord/` and cannot be renamed to another filesystem.
        let device = |node| self.tree.nodes.identity(node).map(|identity| identity.dev);
        if device(parent) != device(ROOT) {
            return None;
        }
        let mut path = self.tree.nodes.path_of(parent)?;
        path.push(name);
        let policy = match self.kinds.of(parent, name) {
            Some(kept) => kept?,
            None => rules.policy(&path)?.clone(),
        };
        (!self.tree.is_private(parent, name).unwrap_or(true)).then(|| Target {
            name: Name::new(parent, name),
            path,
            policy,
        })
    }

    /// The coordinated file that a node is, by the name that stands for all that lead to its inode.
    pub fn target_of(&self, node: NodeId) -> Option<Target> {
        let info = self
            .tree
            .nodes
            .info(node)
            .filter(|info| info.kind == fuser::FileType::RegularFile)?;
        let mut targets = info
            .names
            .iter()
            .filter_map(|name| self.target(name.parent, &name.name));
        let first = targets.next()?;
        let found = match targets.next() {
            None => first,
            Some(second) => {
                let mut all: Vec<Target> = [first, second].into_iter().chain(targets).collect();
                // One that leads there still: the node may have stood for something else when a name of its file went.
                let there = all.iter().position(|target| self.leads_to(&target.name, info.identity));
                all.swap_remove(there.unwrap_or(0))
            }
        };
        Some(self.for_all_names(found))
    }

    /// Whether a name leads to an inode, or to the one whose image that is.
    fn leads_to(&self, name: &Name, identity: Identity) -> bool {
        let live = self.store.images().inode_of(identity.ino).map(|(live, _)| live);
        self.stat_backing(name)
            .is_ok_and(|stat| stat.st_ino == live.unwrap_or(identity.ino))
    }

    /// The same file by the name that stands for all that it has.
    fn for_all_names(&self, target: Target) -> Target {
        let canonical = self.canonical(&target.name);
        if canonical == target.name {
            return target;
        }
        self.target(canonical.parent, &canonical.name).unwrap_or(target)
    }

    fn directory(&self, node: NodeId) -> Result<Arc<OwnedFd>, Errno> {
        self.tree.dir_of(&self.tree.hold_names(), node)
    }

    /// Where a name is now: directories may have been renamed since the target was made.
    fn path_of(&self, name: &Name) -> Result<PathBuf, Errno> {
        let mut path = self.tree.nodes.path_of(name.parent).ok_or(Errno::NOENT)?;
        path.push(&*name.name);
        Ok(path)
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// After a publish: the daemon's own configuration may have been it.
    fn published(&self, path: &Path) {
        self.counts.add(Counted::Published);
        if path == Path::new(crate::rules::FILE_NAME) {
            (self.config_changed)();
        }
    }
}

/// Whether a file can be coordinated.
fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn nanos_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

fn publish_info(how: How, policy: &Policy) -> PublishInfo {
    PublishInfo {
        how,
        in_place: false,
        durability: policy.durability,
        retain: Retain::of(policy),
        now: nanos_now(),
        note: None,
        hash: None,
    }
}

fn place<'a>(dir: &'a Arc<OwnedFd>, name: &'a Name, path: &'a Path) -> Place<'a, RealDisk> {
    Place {
        dir,
        name: &name.name,
        path,
    }
}

/// What the log and `status` need of a file in use.
fn described(who: &Who) -> String {
    match &who.agent {
        _ if who.pid == 0 => format!("a process {}", who.command),
        Some(agent) => format!("process {} ({}, {agent})", who.pid, who.command),
        None => format!("process {} ({})", who.pid, who.command),
    }
}
