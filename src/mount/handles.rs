//! Open files, by the number that the kernel has for them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use rustix::io::{Errno, Result};

use super::coordinated::{Appender, Reader, Writer};
use super::modes::{Mode, Modes};
use super::nodes::NodeId;
use super::pin::{Access, Pin};

/// What an open made.
#[derive(Debug, Clone)]
pub enum Handle {
    /// An ordinary file: nobody's business but its users'.
    Ordinary(Arc<Ordinary>),
    /// A coordinated file, open for reading.
    Reader(Arc<Reader>),
    /// A coordinated file, open for writing.
    Writer(Arc<Writer>),
    /// A coordinated file, open for appending only.
    Appender(Arc<Appender>),
}

impl Handle {
    /// The inode that is changed by it.
    pub fn pin(&self) -> Arc<Pin> {
        match self {
            Handle::Ordinary(file) => Arc::clone(&file.pin),
            Handle::Reader(file) => file.shown(),
            Handle::Writer(file) => file.session().pin(),
            Handle::Appender(file) => Arc::clone(&file.file.pin),
        }
    }
}

/// An open ordinary file.
#[derive(Debug)]
pub struct Ordinary {
    /// Its node.
    pub node: NodeId,
    /// What it shares with the other handles of the node.
    pub pin: Arc<Pin>,
    /// What it was opened for.
    pub access: Access,
}

impl Ordinary {
    /// Whether it can be mapped to be stored to, past the daemon.
    pub fn may_be_mapped(&self) -> bool {
        self.access == Access::Both && self.pin.backing().is_some()
    }
}

/// The table of open handles. Its lock is held only to look one up.
#[derive(Debug, Default)]
pub struct Handles {
    table: RwLock<HashMap<u64, Open>>,
    next: AtomicU64,
    modes: Mutex<Modes<Pin>>,
}

#[derive(Debug)]
struct Open {
    handle: Handle,
    node: NodeId,
    mode: Mode<Pin>,
}

impl Handles {
    /// Gives a handle of `node` its number, and says how the kernel is to open it, which would best be `wish`.
    pub fn insert(&self, handle: Handle, node: NodeId, wish: Mode<Pin>) -> (u64, Mode<Pin>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mode = self.modes.lock().open(node, wish);
        let open = Open {
            handle,
            node,
            mode: mode.clone(),
        };
        self.table.write().insert(number, open);
        (number, mode)
    }

    /// Whether opens of a node pass the daemon by.
    pub fn passes_by(&self, node: NodeId) -> bool {
        self.modes.lock().passes_by(node)
    }

    /// The handle with this number; EBADF when there is none.
    pub fn get(&self, number: u64) -> Result<Handle> {
        let table = self.table.read();
        table.get(&number).map(|open| open.handle.clone()).ok_or(Errno::BADF)
    }

    /// The open ordinary file with this number; EBADF when it is something else.
    pub fn ordinary(&self, number: u64) -> Result<Arc<Ordinary>> {
        match self.get(number)? {
            Handle::Ordinary(file) => Ok(file),
            Handle::Reader(_) | Handle::Writer(_) | Handle::Appender(_) => Err(Errno::BADF),
        }
    }

    /// Whether any file is open, or mapped.
    pub fn is_empty(&self) -> bool {
        self.table.read().is_empty()
    }

    /// All handles that append.
    pub fn appenders(&self) -> Vec<Arc<Appender>> {
        let appender = |handle: &Handle| match handle {
            Handle::Appender(appender) => Some(Arc::clone(appender)),
            _ => None,
        };
        self.of_kind(|open| appender(&open.handle))
    }

    /// The nodes that ordinary files are open by.
    pub fn ordinary_nodes(&self) -> HashSet<NodeId> {
        let node = |handle: &Handle| match handle {
            Handle::Ordinary(file) => Some(file.node),
            _ => None,
        };
        self.of_kind(|open| node(&open.handle))
    }

    /// Those of them that are open to be written to.
    pub fn ordinary_writers(&self) -> HashSet<NodeId> {
        let node = |handle: &Handle| match handle {
            Handle::Ordinary(file) if file.access.writes() => Some(file.node),
            _ => None,
        };
        self.of_kind(|open| node(&open.handle))
    }

    /// All handles of sessions, with their numbers.
    pub fn writers(&self) -> Vec<(u64, Arc<Writer>)> {
        let writer = |(number, open): (&u64, &Open)| match &open.handle {
            Handle::Writer(writer) => Some((*number, Arc::clone(writer))),
            _ => None,
        };
        self.table.read().iter().filter_map(writer).collect()
    }

    /// The handles of sessions that were opened on a node.
    pub fn writers_on(&self, node: NodeId) -> Vec<Arc<Writer>> {
        let writer = |handle: &Handle| match handle {
            Handle::Writer(writer) if writer.node == node => Some(Arc::clone(writer)),
            _ => None,
        };
        self.of_kind(|open| writer(&open.handle))
    }

    /// The handle with this number is another from now on.
    pub fn replace(&self, number: u64, handle: Handle) {
        if let Some(known) = self.table.write().get_mut(&number) {
            known.handle = handle;
        }
    }

    /// Takes a handle out: it is closed when the last request that uses it is answered.
    pub fn remove(&self, number: u64) -> Option<Handle> {
        let open = self.table.write().remove(&number)?;
        self.modes.lock().close(open.node, &open.mode);
        Some(open.handle)
    }

    fn of_kind<T, C: FromIterator<T>>(&self, kind: impl Fn(&Open) -> Option<T>) -> C {
        self.table.read().values().filter_map(kind).collect()
    }
}
