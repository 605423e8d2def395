//! A handle for reading: which version it is bound to, and when (R1, R2).
//!
//! The kernel's node stands for the version that was current at open(2), and what goes by node alone (fstat(2), a mapping) is that version's. What goes
//! by handle is bound at the first read(2), and after a flock(2) anew. Where that turns out to be another version than the node's, the node *follows*: with the
//! next fstat(2) it stands for that version, if the handle is the only one on it.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::fs::Access;
use rustix::io::Errno;

use super::permission::{self, Rights};
use super::staged::read_at;
use super::{Coordination, caller, is_file};
use crate::mount::handles::Ordinary;
use crate::mount::nodes::{Name, NodeId};
use crate::mount::pin::Pin;
use crate::mount::tree::Caller;

/// A coordinated file, open for reading.
#[derive(Debug)]
pub struct Reader {
    /// Its node.
    pub node: NodeId,
    name: Name,
    /// Its opener, for the permissions that it has.
    caller: Caller,
    /// By what its opener was let in; root has none.
    rights: Option<Rights>,
    version: Mutex<Version>,
    /// Pages of its node were read for a mapping.
    mapped: AtomicBool,
    /// A lock was had while its node stood for an older version: what it was shown before does not count.
    released: AtomicBool,
    /// It is bound to what its node stands for.
    settled: AtomicBool,
}

#[derive(Debug)]
struct Version {
    /// What the node stands for.
    shown: Arc<Pin>,
    /// What is read, whole. `None`: the next read decides.
    bound: Option<Arc<Pin>>,
}

/// What for a handle is asked which version it is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// fstat(2), lseek(2) to the end.
    Stat,
    /// read(2) of so many bytes at an offset.
    Read(u64, u32),
    /// Its caller goes by what the kernel knows of the node: mmap(2), copy_file_range(2), SEEK_DATA, SEEK_HOLE.
    Measured,
}

/// All handles for reading, by node. Nothing else is locked under it.
#[derive(Debug, Default)]
pub struct Readers(Mutex<HashMap<NodeId, Vec<Weak<Reader>>>>);

impl Readers {
    fn add(&self, reader: &Arc<Reader>) {
        let mut all = self.0.lock();
        all.entry(reader.node).or_default().push(Arc::downgrade(reader));
    }

    fn remove(&self, reader: &Arc<Reader>) {
        let mut all = self.0.lock();
        if let Some(of_node) = all.get_mut(&reader.node) {
            of_node.retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(reader)));
            if of_node.is_empty() {
                all.remove(&reader.node);
            }
        }
    }

    /// The only one of a node.
    fn sole(&self, node: NodeId) -> Option<Arc<Reader>> {
        match self.0.lock().get(&node).map(Vec::as_slice) {
            Some([sole]) => sole.upgrade(),
            _ => None,
        }
    }

    fn find(&self, node: NodeId, is: impl Fn(&Reader) -> bool) -> Option<Arc<Reader>> {
        let of_node = self.0.lock().get(&node).cloned().unwrap_or_default();
        of_node.iter().filter_map(Weak::upgrade).find(|reader| is(reader))
    }
}

impl Reader {
    /// The name by which it was opened.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What its node stands for.
    pub fn shown(&self) -> Arc<Pin> {
        Arc::clone(&self.version.lock().shown)
    }
}

impl Coordination {
    /// A handle of `name`, just opened by `caller`. The kernel asks for the size from now on, until it is bound to a version.
    pub fn reader(&self, opened: &Ordinary, name: Name, caller: Caller) -> Arc<Reader> {
        let rights = self.rights_of(caller, &name, &opened.pin);
        let reader = Arc::new(Reader {
            node: opened.node,
            name,
            caller: permission::of_process(caller, caller::process(caller)),
            rights,
            version: Mutex::new(Version {
                shown: Arc::clone(&opened.pin),
                bound: None,
            }),
            mapped: AtomicBool::new(false),
            released: AtomicBool::new(false),
            settled: AtomicBool::new(false),
        });
        self.readers.add(&reader);
        self.tree.attributes_changed(reader.node);
        reader
    }

    /// pread(2). `for_mapping`: the kernel reads a page of the node, whose version does not change.
    ///
    /// # Errors
    /// EIO.
    pub fn read(&self, reader: &Reader, at: (u64, u32), for_mapping: bool) -> Result<Vec<u8>, Errno> {
        let (offset, size) = at;
        let pin = if for_mapping {
            reader.mapped.store(true, Ordering::Release);
            // What it reads besides is the same, if it can be.
            self.bound(reader, Use::Measured);
            reader.shown()
        } else {
            self.bound(reader, Use::Read(offset, size))
        };
        // Lines that are just being written are nobody's to see.
        let left = self
            .growing_of(&pin, for_mapping)
            .map(|committed| committed.saturating_sub(offset));
        let size = left.map_or(size, |left| size.min(u32::try_from(left).unwrap_or(u32::MAX)));
        pin.reading(|fd| read_at(fd, offset, size as usize))
    }

    /// The version that a handle is bound to; binds it if it is not.
    pub fn bound(&self, reader: &Reader, wanted: Use) -> Arc<Pin> {
        let mut version = reader.version.lock();
        self.bind(reader, &mut version, wanted)
    }

    fn bind(&self, reader: &Reader, version: &mut Version, wanted: Use) -> Arc<Pin> {
        if let Some(pin) = &version.bound {
            return Arc::clone(pin);
        }
        let newer = self.newer_version(reader, &version.shown, wanted);
        let pin = newer.unwrap_or_else(|| Arc::clone(&version.shown));
        reader
            .settled
            .store(Arc::ptr_eq(&pin, &version.shown), Ordering::Release);
        version.bound = Some(Arc::clone(&pin));
        pin
    }

    /// flock(2) was had on the handle: the next read binds it afresh.
    pub(super) fn unbind(&self, reader: &Reader) {
        let mut version = reader.version.lock();
        version.bound = None;
        if !self.is_what_the_node_shows(reader.node, &version.shown) {
            reader.released.store(true, Ordering::Release);
        }
        drop(version);
        if reader.settled.swap(false, Ordering::AcqRel) {
            self.tree.attributes_changed(reader.node);
        }
    }

    /// Whether the node still stands for what was opened by it: a version, or what a session stages, of several on the node perhaps.
    fn is_what_the_node_shows(&self, node: NodeId, opened: &Arc<Pin>) -> bool {
        if self.tree.nodes.is_current(node, opened) {
            return true;
        }
        let sessions = self.files.lock().sessions_on(node);
        let mut staged = sessions.iter().filter(|session| Arc::ptr_eq(&session.pin(), opened));
        staged.any(|session| session.shown().is_some())
    }

    /// The version that the handle's name leads to now, if that is another one than its node's.
    fn newer_version(&self, reader: &Reader, shown: &Arc<Pin>, wanted: Use) -> Option<Arc<Pin>> {
        if self.is_what_the_node_shows(reader.node, shown) {
            return None;
        }
        let before = rustix::fs::fstat(shown.fd()).ok()?;
        let now = self.stat(&reader.name).ok().filter(is_file)?;
        if (now.st_dev, now.st_ino) == (before.st_dev, before.st_ino) {
            return None;
        }
        let goes_by_size = match wanted {
            Use::Stat => false,
            Use::Read(offset, size) => offset != 0 || u64::from(size) == before.st_size as u64,
            Use::Measured => true,
        };
        if goes_by_size && !reader.released.load(Ordering::Acquire) {
            // It was shown the size of the version that its node stands for, and reads accordingly, as Node.js does: of a longer one it would see the
            // beginning only (R1).
            return None;
        }
        let version = self.current_pin(&reader.name).ok()?;
        // The kernel has asked for the one; a rename may have put a file with other permissions in its place.
        let live = self.live_behind_image(&reader.name).ok()?;
        let asked = live.as_ref().map_or(version.fd(), |live| live.as_fd());
        let may = reader.caller.uid == 0
            || reader.rights.as_ref().is_some_and(|rights| rights.cover(asked))
            || permission::check(reader.caller, asked, &permission::LetIn::Unknown, Access::READ_OK).is_ok();
        may.then_some(version)
    }

    /// fstat(2) of a node: where one handle is all that it is open by, and reads another version than the node stands for, or has had a lock, the node stands for that from now on.
    /// The kernel takes the size for the node's, and would cut what others have mapped of it (SIGBUS).
    pub fn follow(&self, node: NodeId) {
        if let Some(reader) = self.readers.sole(node) {
            let opening = self.tree.opening(node);
            let mut version = reader.version.lock();
            // Who is not bound may have been shown a size that he maps by.
            if version.bound.is_some() || reader.released.load(Ordering::Acquire) {
                self.follow_with(&reader, &mut version);
                drop(opening);
                self.bind(&reader, &mut version, Use::Stat);
            }
        }
    }

    /// Where a session is on the node, that says what it shows. None begins while the node is `opening`.
    fn follow_with(&self, reader: &Reader, version: &mut Version) {
        let is_free = Arc::strong_count(&version.shown) == 1
            && !reader.mapped.load(Ordering::Acquire)
            && self.files.lock().sessions_on(reader.node).is_empty();
        if !is_free {
            return;
        }
        let next = match &version.bound {
            Some(bound) => Some(Arc::clone(bound)),
            None => self.newer_version(reader, &version.shown, Use::Stat),
        };
        let Some(next) = next else { return };
        self.tree.nodes.set_open_pin(reader.node, &next);
        let left = std::mem::replace(&mut version.shown, next);
        reader.settled.store(version.bound.is_some(), Ordering::Release);
        self.reads_no_more(&left);
    }

    /// lseek(2) to the end of the file: its caller reads so far, and is bound to the version whose end that is. The size, where the node cannot follow: the kernel may take
    /// a longer one for the node's, which cuts nothing.
    pub fn measured(&self, reader: &Reader) -> Option<i64> {
        let opening = self.tree.opening(reader.node);
        let mut version = reader.version.lock();
        self.follow_with(reader, &mut version);
        drop(opening);
        let bound = self.bind(reader, &mut version, Use::Stat);
        let elsewhere = !Arc::ptr_eq(&bound, &version.shown);
        let stat = elsewhere.then(|| rustix::fs::fstat(bound.fd()).ok()).flatten();
        stat.map(|stat| stat.st_size)
    }

    /// The handle is closed.
    pub fn close_reader(&self, reader: Arc<Reader>) {
        let node = reader.node;
        self.readers.remove(&reader);
        if let Some(reader) = Arc::into_inner(reader) {
            let Version { shown, bound } = reader.version.into_inner();
            if let Some(bound) = bound {
                self.reads_no_more(&bound);
            }
            self.reads_no_more(&shown);
        }
        self.tree.nodes.handle_closed(node);
    }

    /// Where the version ends that a node stands for, if pages of it were read by a handle that is still open.
    pub(super) fn paged_end(&self, node: NodeId) -> Option<u64> {
        let paged = self
            .readers
            .find(node, |reader| reader.mapped.load(Ordering::Acquire))?;
        Some(rustix::fs::fstat(paged.shown().fd()).ok()?.st_size.max(0) as u64)
    }

    /// Whether a node has handles that are not bound to what it stands for: the kernel must ask for its size each time.
    pub fn has_unsettled_readers(&self, node: NodeId) -> bool {
        self.readers
            .find(node, |reader| !reader.settled.load(Ordering::Acquire))
            .is_some()
    }
}
