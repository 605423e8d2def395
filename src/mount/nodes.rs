//! Nodes: what the kernel knows by number, and where it is in the backing tree.

mod departed;
mod inner;
mod node;

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::RwLock;

use super::dirs::DirCache;
use super::pin::Pin;
use departed::Departed;
use inner::{Inner, SYNTHETIC_FIRST};
pub use node::{Identity, Name, NodeId, NodeInfo, ROOT};
use node::{Names, Node};

/// One step of a chain: a directory's node, and its name in the one before.
pub type Step = (NodeId, Box<OsStr>);

/// All nodes that the kernel knows or that lead to one it knows.
///
/// Lock order: the table's lock, then the directory cache's. Neither is held across a system call that can wait.
#[derive(Debug)]
pub struct NodeTable {
    inner: RwLock<Inner>,
    dirs: Arc<DirCache>,
}

impl NodeTable {
    /// A table with the root in it. Directory nodes that go are dropped from `dirs` too.
    pub fn new(root: Identity, dirs: Arc<DirCache>) -> NodeTable {
        let mut inner = Inner {
            nodes: HashMap::new(),
            aliases: HashMap::from([(root, ROOT)]),
            root_dev: root.dev,
            synthetic_next: SYNTHETIC_FIRST,
            survivors: VecDeque::new(),
            formers: HashMap::new(),
            shown_as: HashMap::new(),
            numbers: VecDeque::new(),
            departed: Departed::default(),
            lingering: Vec::new(),
        };
        inner
            .nodes
            .insert(ROOT, Node::new(root, fuser::FileType::Directory, Names::None));
        NodeTable {
            inner: RwLock::new(inner),
            dirs,
        }
    }

    /// The node of an inode that `name` leads to, one lookup more; made when it is new.
    pub fn intern(&self, name: Name, identity: Identity, kind: fuser::FileType) -> NodeId {
        let mut inner = self.inner.write();
        match inner.find(identity) {
            Some(id) if inner.nodes[&id].kind == kind => {
                inner.add_name(id, name);
                if let Some(node) = inner.nodes.get_mut(&id) {
                    node.lookups = node.lookups.saturating_add(1);
                }
                id
            }
            Some(id) => {
                // Another kind of file on the same number: the inode was replaced behind our back.
                inner.detach(id);
                inner.create(name, identity, kind, false)
            }
            None => inner.create(name, identity, kind, false),
        }
    }

    /// A new node under a number of its own, one lookup. [`NodeTable::intern`] does not find it: it is for one thread, until
    /// [`NodeTable::rebind`] gives it an inode that others may find it by.
    pub fn fresh(&self, name: Name, identity: Identity, kind: fuser::FileType) -> NodeId {
        let mut inner = self.inner.write();
        let id = inner.create(name, identity, kind, true);
        inner.detach(id);
        id
    }

    /// The same for who only means to read: to stat(2) it is the node that lookups find for the inode. Programs compare what they found with what they have opened.
    pub fn fresh_to_read(&self, name: Name, identity: Identity, kind: fuser::FileType) -> NodeId {
        let id = self.fresh(name, identity, kind);
        let mut inner = self.inner.write();
        if let Some(found) = inner.find(identity) {
            inner.shown_as.insert(id, found);
        }
        id
    }

    /// The same for who writes by a node that lookups never found: it is the node that the name has led to, until [`NodeTable::shows_itself`]. Any other has shown its own number.
    pub fn stand_in(&self, id: NodeId, found: NodeId) {
        let mut inner = self.inner.write();
        if inner.nodes.get(&id).is_some_and(|node| node.detached && !node.former) {
            inner.shown_as.insert(id, found);
        }
    }

    /// A node has a number of its own from now on.
    pub fn shows_itself(&self, id: NodeId) {
        self.inner.write().shown_as.remove(&id);
    }

    /// The number by which stat(2) shows a node.
    pub fn number(&self, id: NodeId) -> NodeId {
        self.inner.read().shown_as.get(&id).copied().unwrap_or(id)
    }

    /// The kernel is told of a node once more. `false`: the node is gone, the kernel had forgotten it.
    pub fn look_up_again(&self, id: NodeId) -> bool {
        let mut inner = self.inner.write();
        let Some(node) = inner.nodes.get_mut(&id) else {
            return false;
        };
        node.lookups = node.lookups.saturating_add(1);
        true
    }

    /// Lets a node stand for another inode; the kernel keeps no entry that leads to it. Where lookups find another node for that already, they still do. `pin`, when given, is what its opens share from now on; the caller keeps it alive. Without it the next
    /// open makes one: handles of the inode before may live on, and their pin is not for others.
    pub fn rebind(&self, id: NodeId, identity: Identity, pin: Option<&Arc<Pin>>) {
        let mut inner = self.inner.write();
        inner.unbind(id);
        inner.is_former_no_more(id);
        if let Some(other) = inner.find(identity).filter(|other| *other != id)
            && !inner.nodes[&other].is_used()
        {
            inner.detach(other);
            inner.drop_unused(other, &self.dirs);
        }
        let free = inner.find(identity).is_none();
        let natural = inner.natural_id(identity) == Some(id);
        if let Some(node) = inner.nodes.get_mut(&id) {
            node.identity = identity;
            node.detached = !free;
            node.kept = false;
            node.orphan = None;
            node.open = pin.map_or_else(Weak::new, Arc::downgrade);
            if free && !natural {
                inner.aliases.insert(identity, id);
            }
        }
        inner.keep_number(id, free && !natural, &self.dirs);
    }

    /// An inode was just made, and nobody knows it yet: a node that is found by its number stands for one that is gone, and is found no more.
    pub fn number_came_back(&self, identity: Identity) {
        if self.find(identity).is_some() {
            let mut inner = self.inner.write();
            if let Some(stale) = inner.find(identity) {
                inner.detach(stale);
                inner.drop_unused(stale, &self.dirs);
            }
        }
    }

    /// The name that a node was found by leads to another file from now on: lookups find another node. It keeps the name, so that a thread which has just found
    /// it can still be told where to go, and its inode.
    pub fn supersede(&self, id: NodeId, held: Option<Arc<Pin>>) {
        let mut inner = self.inner.write();
        inner.detach(id);
        inner.is_former_no_more(id);
        if let Some(node) = inner.nodes.get_mut(&id) {
            node.orphan = held;
        }
        inner.drop_unused(id, &self.dirs);
    }

    /// The same where the name leads to another version of the same file, or soon will: lookups that found the node until now make it a *former* one. It keeps its
    /// inode where `held` is given. Returns whether they did, and what is no former node any more, because there are too many.
    pub fn overtake(&self, id: NodeId, held: Option<Arc<Pin>>) -> (bool, Vec<NodeId>) {
        let mut inner = self.inner.write();
        let found = inner.nodes.get(&id).is_some_and(|node| !node.detached);
        inner.detach(id);
        if let Some(node) = inner.nodes.get_mut(&id) {
            node.orphan = held;
        }
        // Any other was made for one thread, and nobody else can watch it.
        let ended = if found { inner.add_former(id) } else { Vec::new() };
        inner.drop_unused(id, &self.dirs);
        (found, ended)
    }

    /// Makes a node a former one that stands for a version for which lookups find another node. Returns what [`overtake`](Self::overtake) does.
    pub fn stand_aside(&self, id: NodeId) -> Vec<NodeId> {
        let mut inner = self.inner.write();
        inner.detach(id);
        inner.add_former(id)
    }

    /// The nodes that a name has led to before, as long as the kernel knows them.
    pub fn formers(&self, name: &Name) -> Vec<NodeId> {
        let inner = self.inner.read();
        inner
            .formers
            .get(name)
            .map_or_else(Vec::new, |all| all.iter().copied().collect())
    }

    /// Whether a node stands for a version of the file that its name leads to still, which is at a later one.
    pub fn is_former(&self, id: NodeId) -> bool {
        let inner = self.inner.read();
        let is_detached = inner.nodes.get(&id).is_some_and(|node| node.detached);
        // One that was made for a reader is as the one that it is shown as.
        let shown = inner.shown_as.get(&id).copied().unwrap_or(id);
        is_detached && inner.nodes.get(&shown).is_some_and(|node| node.former)
    }

    /// A name does not lead to the file any more that it led to. Returns its former nodes, which are none from now on.
    pub fn end_formers(&self, name: &Name) -> Vec<NodeId> {
        if self.inner.read().formers.is_empty() {
            return Vec::new();
        }
        let mut inner = self.inner.write();
        let ended: Vec<NodeId> = inner.formers.get(name).into_iter().flatten().copied().collect();
        for id in &ended {
            inner.is_former_no_more(*id);
            // Who has found it by another name means the file that has that.
            inner.lose_name(*id, name, &self.dirs);
        }
        ended
    }

    /// A coordinated name that has led to a node is about to lead elsewhere; where it is `unlinked`, the file will have a link less.
    pub fn will_depart(&self, id: NodeId, name: &Name, unlinked: bool, now: Instant) {
        let mut inner = self.inner.write();
        if inner.nodes.get(&id).is_some_and(|node| node.lookups > 0) {
            inner.departed.note(id, name, unlinked, now);
        }
    }

    /// Whether the file of a node has lost a link lately by which a coordinated name has led to it.
    pub fn is_unlinked(&self, id: NodeId, now: Instant) -> bool {
        self.inner.read().departed.is_unlinked(id, now)
    }

    /// The coordinated name that has led to a node until lately.
    pub fn departed_from(&self, id: NodeId, now: Instant) -> Option<Name> {
        self.inner.read().departed.name_of(id, now).cloned()
    }

    /// The store is about to give a node's inode a second name, or has taken it away again.
    pub fn keep_aside(&self, id: NodeId, kept: bool) {
        if let Some(node) = self.inner.write().nodes.get_mut(&id) {
            node.kept_aside = kept;
        }
    }

    /// The link count of a node, of whose inode `counted` were counted. By it the kernel knows when to tell watchers that a file is gone (IN_DELETE_SELF).
    pub fn links(&self, id: NodeId, counted: u64) -> u64 {
        let inner = self.inner.read();
        let own = inner.nodes.get(&id);
        let found = inner
            .shown_as
            .get(&id)
            .filter(|_| own.is_some_and(|node| node.detached));
        match found.map_or(own, |found| inner.nodes.get(found)) {
            // What it shows is in the history only, and perhaps not even there. But the file is there.
            Some(node) if node.former => 1,
            Some(node) if node.detached => 0,
            Some(node) => node.own_links(counted),
            None => counted,
        }
    }

    /// The same for a node that was just found by a name.
    pub fn links_by_name(&self, id: NodeId, counted: u64) -> u64 {
        let inner = self.inner.read();
        inner.nodes.get(&id).map_or(counted, |node| node.own_links(counted))
    }

    /// What is known of a node; `None` when there is no such node.
    pub fn info(&self, id: NodeId) -> Option<NodeInfo> {
        let inner = self.inner.read();
        let node = inner.nodes.get(&id)?;
        let names = node.names.as_slice().to_vec();
        Some(NodeInfo {
            identity: node.identity,
            kind: node.kind,
            pin: node.pin(),
            names,
        })
    }

    /// The inode of a node.
    pub fn identity(&self, id: NodeId) -> Option<Identity> {
        self.inner.read().nodes.get(&id).map(|node| node.identity)
    }

    /// Whether a node is a regular file.
    pub fn is_regular(&self, id: NodeId) -> bool {
        let inner = self.inner.read();
        inner
            .nodes
            .get(&id)
            .is_some_and(|node| node.kind == fuser::FileType::RegularFile)
    }

    /// Whether no name leads to the node, whatever links its inode has.
    pub fn is_detached(&self, id: NodeId) -> bool {
        self.inner.read().nodes.get(&id).is_some_and(|node| node.detached)
    }

    /// The kernel is told that it may keep an entry of the node's.
    pub fn keep(&self, id: NodeId) {
        if let Some(node) = self.inner.write().nodes.get_mut(&id) {
            node.kept = true;
        }
    }

    /// Whether the kernel may come to the node by an entry that it has kept.
    pub fn is_kept(&self, id: NodeId) -> bool {
        self.inner.read().nodes.get(&id).is_some_and(|node| node.kept)
    }

    /// Whether an entry that the kernel has kept may lead to the node although the name leads to another by now.
    pub fn is_left_behind(&self, id: NodeId) -> bool {
        let inner = self.inner.read();
        let node = inner.nodes.get(&id);
        node.is_some_and(|node| node.kept && node.detached && !node.names.as_slice().is_empty())
    }

    /// What holds the inode while it is open, or after its last name went.
    pub fn pin(&self, id: NodeId) -> Option<Arc<Pin>> {
        self.inner.read().nodes.get(&id).and_then(Node::pin)
    }

    /// What the open handles of a node share.
    pub fn open_pin(&self, id: NodeId) -> Option<Arc<Pin>> {
        self.inner.read().nodes.get(&id).and_then(|node| node.open.upgrade())
    }

    /// Whether the node's name still leads to what `pin` holds, as far as the table knows.
    pub fn is_current(&self, id: NodeId, pin: &Arc<Pin>) -> bool {
        let inner = self.inner.read();
        let node = inner.nodes.get(&id);
        node.is_some_and(|node| !node.detached && std::ptr::eq(node.open.as_ptr(), Arc::as_ptr(pin)))
    }

    /// The node of an inode, if it has one.
    pub fn find(&self, identity: Identity) -> Option<NodeId> {
        self.inner.read().find(identity)
    }

    /// From now on the opens of the node share `pin`; the handles keep it alive.
    pub fn set_open_pin(&self, id: NodeId, pin: &Arc<Pin>) {
        if let Some(node) = self.inner.write().nodes.get_mut(&id) {
            node.open = Arc::downgrade(pin);
        }
    }

    /// The next open of the node makes a pin of its own.
    pub fn forget_open_pin(&self, id: NodeId) {
        if let Some(node) = self.inner.write().nodes.get_mut(&id) {
            node.open = Weak::new();
        }
    }

    /// A handle of the node is gone. Frees what the pin occupied when it was the last.
    pub fn handle_closed(&self, id: NodeId) {
        let mut inner = self.inner.write();
        if let Some(node) = inner.nodes.get_mut(&id)
            && node.open.strong_count() == 0
        {
            node.open = Weak::new();
            inner.drop_unused(id, &self.dirs);
        }
    }

    /// A name more for a node: link(2).
    pub fn add_name(&self, id: NodeId, name: Name) {
        self.inner.write().add_name(id, name);
    }

    /// A name is gone. `held` keeps the inode reachable if that was the last name we knew; `last_link` says that it was the
    /// last there is, so that the inode's number may come back.
    pub fn remove_name(&self, id: NodeId, name: &Name, held: Arc<Pin>, last_link: bool) {
        let mut inner = self.inner.write();
        inner.remove_name(id, name);
        if last_link {
            inner.detach(id);
            self.dirs.remove(id);
        }
        let Some(node) = inner.nodes.get_mut(&id) else { return };
        if node.names.as_slice().is_empty() {
            node.orphan = Some(held);
            if !last_link {
                inner.remember_survivor(id);
            }
        }
        inner.drop_unused(id, &self.dirs);
    }

    /// rename(2): the node's name `old` is now `new`.
    pub fn rename(&self, id: NodeId, old: &Name, new: Name) {
        let mut inner = self.inner.write();
        let old_parent = old.parent;
        inner.remove_name(id, old);
        inner.add_name(id, new);
        inner.drop_unused(old_parent, &self.dirs);
    }

    /// A node has this name from now on, and none of those that it had.
    pub fn call_only(&self, id: NodeId, name: Name) {
        let mut inner = self.inner.write();
        let names = inner
            .nodes
            .get(&id)
            .map_or_else(Vec::new, |node| node.names.as_slice().to_vec());
        inner.add_name(id, name.clone());
        for other in names.iter().filter(|other| **other != name) {
            inner.remove_name(id, other);
            inner.drop_unused(other.parent, &self.dirs);
        }
    }

    /// The kernel forgets `lookups` lookups of a node.
    pub fn forget(&self, id: NodeId, lookups: u64) {
        let mut inner = self.inner.write();
        if let Some(node) = inner.nodes.get_mut(&id) {
            node.lookups = node.lookups.saturating_sub(u32::try_from(lookups).unwrap_or(u32::MAX));
            if node.lookups == 0 {
                inner.departed.forget(id);
            }
        }
        for lingering in std::mem::take(&mut inner.lingering) {
            inner.drop_unused(lingering, &self.dirs);
        }
        inner.drop_unused(id, &self.dirs);
        if inner
            .nodes
            .get(&id)
            .is_some_and(|node| node.lookups == 0 && node.is_used())
        {
            inner.lingering.push(id);
        }
    }

    /// The names that lead to a directory from the nearest one that `cached` has a descriptor of, outermost first.
    /// `None` when the chain is broken: an ancestor was deleted.
    pub fn chain<T>(&self, id: NodeId, cached: impl Fn(NodeId) -> Option<T>) -> Option<(T, Vec<Step>)> {
        let inner = self.inner.read();
        let mut missing = Vec::new();
        let mut at = id;
        loop {
            if let Some(found) = cached(at) {
                missing.reverse();
                return Some((found, missing));
            }
            let name = inner.nodes.get(&at)?.names.as_slice().first()?;
            missing.push((at, name.name.clone()));
            at = name.parent;
        }
    }

    /// Where a node is, relative to the root; empty for the root. `None` when it has no name any more.
    pub fn path_of(&self, id: NodeId) -> Option<PathBuf> {
        let ((), names) = self.chain(id, |at| (at == ROOT).then_some(()))?;
        Some(names.iter().map(|(_, name)| OsString::from(name)).collect())
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.inner.read().nodes.len()
    }

    /// Never: the root is always there.
    pub fn is_empty(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
