//! A handle for reading: which version it is bound to, and when (R1, R2).
//!
//! The kernel's node stands for the version that was current at open(2), and what goes by node alone (fstat(2), a mapping) is that version's. What goes
//! by handle is bound at the first read(2), and after a flock(2) anew. Where that turns out to be another version than the node's, the handle has
//! *moved on*, and its process is shown that version's attributes too.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::fs::{Access, Stat};
use rustix::io::Errno;

use super::permission::{self, Rights};
use super::staged::read_at;
use super::{Coordination, caller, is_file};
use crate::mount::attr;
use crate::mount::handles::Ordinary;
use crate::mount::nodes::{Name, NodeId};
use crate::mount::pin::Pin;
use crate::mount::tree::Caller;
use crate::session::ProcId;

/// A coordinated file, open for reading.
#[derive(Debug)]
pub struct Reader {
    /// The version that its node stands for.
    pub opened: Arc<Ordinary>,
    name: Name,
    uid: u32,
    /// By what that user was let in; root has none.
    rights: Option<Rights>,
    binding: Mutex<Binding>,
    /// Pages of its node were read for a mapping.
    mapped: AtomicBool,
}

#[derive(Debug)]
enum Binding {
    /// Not bound: the next read decides.
    Open,
    /// To one version, whole.
    Bound(Arc<Pin>),
}

/// What for a handle is asked which version it is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// fstat(2).
    Stat,
    /// read(2) of so many bytes at an offset.
    Read(u64, u32),
    /// Its caller goes by what the kernel knows of the node: mmap(2), copy_file_range(2), lseek(2).
    Measured,
}

#[derive(Debug)]
struct Moved {
    process: ProcId,
    reader: Weak<Reader>,
}

/// The handles that have moved on, by node.
#[derive(Debug, Default)]
pub struct MovedOn {
    readers: Mutex<HashMap<NodeId, Vec<Moved>>>,
    count: AtomicUsize,
}

impl Reader {
    /// A handle of `name`, opened by user `uid` by these rights.
    pub fn new(opened: Arc<Ordinary>, name: Name, (uid, rights): (u32, Option<Rights>)) -> Reader {
        Reader {
            opened,
            name,
            uid,
            rights,
            binding: Mutex::new(Binding::Open),
            mapped: AtomicBool::new(false),
        }
    }

    /// The name by which it was opened.
    pub fn name(&self) -> &Name {
        &self.name
    }
}

impl Coordination {
    /// pread(2). `for_mapping`: the kernel reads a page of the node, whose version does not change.
    ///
    /// # Errors
    /// EIO.
    pub fn read(
        &self,
        caller: Caller,
        reader: &Arc<Reader>,
        at: (u64, u32),
        for_mapping: bool,
    ) -> Result<Vec<u8>, Errno> {
        let (offset, size) = at;
        let pin = if for_mapping {
            reader.mapped.store(true, Ordering::Release);
            // What it reads besides is the same, if it can be.
            self.bound(caller, reader, Use::Measured);
            Arc::clone(&reader.opened.pin)
        } else {
            self.bound(caller, reader, Use::Read(offset, size))
        };
        // Lines that are just being written are nobody's to see.
        let left = self.growing_of(&pin).map(|committed| committed.saturating_sub(offset));
        let size = left.map_or(size, |left| size.min(u32::try_from(left).unwrap_or(u32::MAX)));
        pin.reading(|fd| read_at(fd, offset, size as usize))
    }

    /// The version that a handle is bound to; binds it if it is not.
    pub fn bound(&self, caller: Caller, reader: &Arc<Reader>, wanted: Use) -> Arc<Pin> {
        let mut binding = reader.binding.lock();
        if let Binding::Bound(pin) = &*binding {
            return Arc::clone(pin);
        }
        let opened = &reader.opened;
        let pin = if self.is_what_the_node_shows(opened) {
            Arc::clone(&opened.pin)
        } else {
            self.newer_version(caller, reader, wanted)
                .unwrap_or_else(|| Arc::clone(&opened.pin))
        };
        *binding = Binding::Bound(Arc::clone(&pin));
        drop(binding);
        if !Arc::ptr_eq(&pin, &opened.pin) {
            self.move_on(caller, reader);
        }
        pin
    }

    /// flock(2) was had on the handle: the next read binds it afresh.
    pub(super) fn unbind(&self, caller: Caller, reader: &Arc<Reader>) {
        *reader.binding.lock() = Binding::Open;
        if !self.is_what_the_node_shows(&reader.opened) {
            self.move_on(caller, reader);
        }
    }

    /// Whether the node still stands for what was opened by it: a version, or what a session stages, of several on the node perhaps.
    fn is_what_the_node_shows(&self, opened: &Ordinary) -> bool {
        if self.tree.nodes.is_current(opened.node, &opened.pin) {
            return true;
        }
        let sessions = self.files.lock().sessions_on(opened.node);
        let mut staged = sessions
            .iter()
            .filter(|session| Arc::ptr_eq(&session.pin(), &opened.pin));
        staged.any(|session| session.shown().is_some())
    }

    /// The version that the handle's name leads to now, if that is another one than its node's.
    fn newer_version(&self, caller: Caller, reader: &Reader, wanted: Use) -> Option<Arc<Pin>> {
        let before = rustix::fs::fstat(reader.opened.pin.fd()).ok()?;
        let now = self.stat(&reader.name).ok().filter(is_file)?;
        if (now.st_dev, now.st_ino) == (before.st_dev, before.st_ino) {
            return None;
        }
        let goes_by_size = match wanted {
            Use::Stat => false,
            Use::Read(offset, size) => offset != 0 || u64::from(size) == before.st_size as u64,
            Use::Measured => true,
        };
        if goes_by_size && !self.has_moved_on(reader) {
            // It was shown the size of the version that it opened, and reads accordingly, as Node.js does: of a longer one it would see the
            // beginning only (R1).
            return None;
        }
        let version = self.current_pin(&reader.name).ok()?;
        // The kernel has asked for the one; a rename may have put a file with other permissions in its place.
        let live = self.live_behind_image(&reader.name).ok()?;
        let asked = live.as_ref().map_or(version.fd(), |live| live.as_fd());
        let alike = |rights: &Rights| rights.cover(asked);
        let may = reader.uid == 0
            || reader.rights.as_ref().is_some_and(alike)
            || caller.uid == reader.uid && permission::check(caller, asked, None, Access::READ_OK).is_ok();
        may.then_some(version)
    }

    fn move_on(&self, caller: Caller, reader: &Arc<Reader>) {
        let node = reader.opened.node;
        let process = caller::process(caller);
        let mut readers = self.moved_on.readers.lock();
        let of_node = readers.entry(node).or_default();
        of_node.retain(|other| other.reader.upgrade().is_some_and(|other| !Arc::ptr_eq(&other, reader)));
        of_node.push(Moved {
            process,
            reader: Arc::downgrade(reader),
        });
        self.moved_on.count.store(readers.len(), Ordering::Release);
        drop(readers);
        self.tree.attributes_changed(node);
    }

    fn has_moved_on(&self, reader: &Reader) -> bool {
        let readers = self.moved_on.readers.lock();
        let of_node = readers.get(&reader.opened.node);
        of_node.is_some_and(|all| all.iter().any(|other| std::ptr::eq(other.reader.as_ptr(), reader)))
    }

    /// The handle is closed.
    pub fn close_reader(&self, reader: Arc<Reader>) {
        let node = reader.opened.node;
        if self.moved_on.count.load(Ordering::Acquire) > 0 {
            let mut readers = self.moved_on.readers.lock();
            if let Some(of_node) = readers.get_mut(&node) {
                of_node.retain(|other| !std::ptr::eq(other.reader.as_ptr(), Arc::as_ptr(&reader)));
                if of_node.is_empty() {
                    readers.remove(&node);
                }
            }
            self.moved_on.count.store(readers.len(), Ordering::Release);
        }
        if let Some(reader) = Arc::into_inner(reader) {
            if let Some(opened) = Arc::into_inner(reader.opened) {
                self.reads_no_more(&opened.pin);
            }
            if let Binding::Bound(pin) = reader.binding.into_inner() {
                self.reads_no_more(&pin);
            }
        }
        self.tree.nodes.handle_closed(node);
    }

    /// Whether a node has handles that have moved on: its attributes depend on who asks.
    pub fn has_readers_elsewhere(&self, node: NodeId) -> bool {
        self.moved_on.count.load(Ordering::Acquire) > 0 && self.moved_on.readers.lock().contains_key(&node)
    }

    /// fstat(2) by a process that has a handle of the node which has moved on: the version that it reads, where it is alone on the node. The kernel takes the
    /// size for the node's, and would cut what others have mapped of it (SIGBUS).
    pub fn stat_of_reader(&self, caller: Caller, node: NodeId) -> Option<Stat> {
        if !self.has_readers_elsewhere(node) {
            return None;
        }
        let opener = caller::opener(caller);
        let reader = {
            let readers = self.moved_on.readers.lock();
            let of_node = readers.get(&node)?;
            let mut lineage = std::iter::once(&opener.proc).chain(&opener.ancestors);
            lineage.find_map(|process| {
                let mut own = of_node.iter().rev().filter(|other| other.process == *process);
                own.find_map(|other| other.reader.upgrade())
            })?
        };
        let version = self.bound(caller, &reader, Use::Stat);
        // A handle that has not moved on holds the node's inode, by itself.
        let alone = Arc::strong_count(&reader.opened.pin) == 1 && !reader.mapped.load(Ordering::Acquire);
        let mut stat = alone.then(|| rustix::fs::fstat(version.fd()).ok()).flatten()?;
        if self.tree.nodes.identity(node) == Some(attr::identity(&stat, false)) {
            // The node stands for it by now. Of a file with several names this is the image, which has one (W11).
            return None;
        }
        // To the kernel the node's.
        stat.st_nlink = self.tree.nodes.links(node, stat.st_nlink);
        Some(stat)
    }
}
