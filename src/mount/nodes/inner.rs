//! What is in the node table; [`NodeTable`](super::NodeTable) has its lock.

use std::collections::{HashMap, VecDeque};

use super::departed::Departed;
use super::node::{Identity, Name, Names, Node, NodeId, ROOT};
use crate::mount::dirs::DirCache;

/// Numbers from here up are ours to give; no filesystem we know of counts inodes that far.
pub(super) const SYNTHETIC_FIRST: u64 = 1 << 48;

/// Names remembered for one node; of a file with more hard links the others are found again by lookup.
const NAMES_MAX: usize = 8;

/// Descriptors kept for nodes that lost their last known name though the inode has others.
const SURVIVORS_MAX: usize = 256;

/// Nodes that the kernel may have forgotten, and that are there for their numbers.
pub(super) const NUMBERS_MAX: usize = 4096;

/// Former nodes of one name that are remembered as such.
pub(super) const FORMERS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Inner {
    pub nodes: HashMap<NodeId, Node>,
    /// Where a node's number is not its inode's: identity → node.
    pub aliases: HashMap<Identity, NodeId>,
    pub root_dev: u64,
    pub synthetic_next: u64,
    pub survivors: VecDeque<NodeId>,
    /// Nodes that a name has led to before another version of the same file was written in place, oldest first. To whoever watches or has open such a node, it is
    /// that file still.
    pub formers: HashMap<Name, VecDeque<NodeId>>,
    /// Nodes that stat(2) shows by another one's number.
    pub shown_as: HashMap<NodeId, NodeId>,
    /// Those that keep their numbers, the one that was written longest ago first.
    pub numbers: VecDeque<NodeId>,
    pub departed: Departed,
    /// Forgotten by the kernel while a thread that had answered it held what the node's handles shared: looked at again when the next is forgotten.
    pub lingering: Vec<NodeId>,
}

impl Inner {
    /// The number that is the inode's own, where an inode may have its own.
    pub fn natural_id(&self, identity: Identity) -> Option<NodeId> {
        let usable = !identity.private && identity.dev == self.root_dev;
        (usable && identity.ino > ROOT.0 && identity.ino < SYNTHETIC_FIRST).then_some(NodeId(identity.ino))
    }

    pub fn find(&self, identity: Identity) -> Option<NodeId> {
        if let Some(id) = self.natural_id(identity)
            && let Some(node) = self.nodes.get(&id)
            && node.identity == identity
            && !node.detached
        {
            return Some(id);
        }
        self.aliases.get(&identity).copied()
    }

    pub fn create(&mut self, name: Name, identity: Identity, kind: fuser::FileType, fresh: bool) -> NodeId {
        let natural = self
            .natural_id(identity)
            .filter(|id| !fresh && !self.nodes.contains_key(id));
        let id = natural.unwrap_or_else(|| {
            let id = NodeId(self.synthetic_next);
            self.synthetic_next += 1;
            id
        });
        // A fresh one is found by its inode only once it is rebound: it belongs to one thread, and outlives the version that it was made for.
        if natural.is_none() && !fresh && self.find(identity).is_none() {
            self.aliases.insert(identity, id);
        }
        if let Some(parent) = self.nodes.get_mut(&name.parent) {
            parent.children += 1;
        }
        self.nodes.insert(id, Node::new(identity, kind, Names::One(name)));
        id
    }

    pub fn add_name(&mut self, id: NodeId, name: Name) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let known = node.names.as_slice();
        // A directory has one name; another one means that it was moved behind our back.
        let moved = node.kind == fuser::FileType::Directory && !known.is_empty();
        if known.contains(&name) || known.len() >= NAMES_MAX {
            return;
        }
        let parent = name.parent;
        let mut names = node.names.take();
        let stale = if moved { std::mem::take(&mut names) } else { Vec::new() };
        names.push(name);
        node.names = Names::from_vec(names);
        if !node.detached {
            node.orphan = None;
        }
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children += 1;
        }
        for name in stale {
            self.leave_parent(name.parent);
        }
    }

    pub fn remove_name(&mut self, id: NodeId, name: &Name) {
        self.is_former_no_more(id);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let mut names = node.names.take();
        let before = names.len();
        names.retain(|known| !known.is(name.parent, &name.name));
        let removed = before - names.len();
        node.names = Names::from_vec(names);
        if removed > 0 {
            self.leave_parent(name.parent);
        }
    }

    pub fn leave_parent(&mut self, parent: NodeId) {
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children = parent.children.saturating_sub(1);
        }
    }

    /// The inode's number may come back for another inode: nobody finds this node by it any more.
    pub fn detach(&mut self, id: NodeId) {
        self.unbind(id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.detached = true;
        }
    }

    /// Returns the oldest of each of its names, where there are too many.
    pub fn add_former(&mut self, id: NodeId) -> Vec<NodeId> {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| !node.former) else {
            return Vec::new();
        };
        node.former = true;
        let mut ended = Vec::new();
        for name in node.names.as_slice() {
            let formers = self.formers.entry(name.clone()).or_default();
            formers.push_back(id);
            if formers.len() > FORMERS_MAX {
                ended.push(formers[0]);
            }
        }
        ended.iter().for_each(|oldest| self.is_former_no_more(*oldest));
        ended
    }

    pub fn is_former_no_more(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.former) else {
            return;
        };
        node.former = false;
        for name in node.names.as_slice() {
            if let Some(formers) = self.formers.get_mut(name) {
                formers.retain(|former| *former != id);
                if formers.is_empty() {
                    self.formers.remove(name);
                }
            }
        }
    }

    /// The node of a file that was written in place: its number is what st_ino has been all the time, and not that of its inode now. The kernel forgets it as soon as
    /// somebody else has looked the name up during the session, and the writer has closed the file.
    pub fn keep_number(&mut self, id: NodeId, keeps: bool, dirs: &DirCache) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.keeps_number {
            self.numbers.retain(|other| *other != id);
        }
        node.keeps_number = keeps;
        if !keeps {
            return;
        }
        self.numbers.push_back(id);
        if self.numbers.len() > NUMBERS_MAX
            && let Some(oldest) = self.numbers.front().copied()
        {
            self.keep_number(oldest, false, dirs);
            self.drop_unused(oldest, dirs);
        }
    }

    pub fn unbind(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get(&id)
            && self.aliases.get(&node.identity) == Some(&id)
        {
            let identity = node.identity;
            self.aliases.remove(&identity);
        }
    }

    pub fn remember_survivor(&mut self, id: NodeId) {
        self.survivors.push_back(id);
        if self.survivors.len() > SURVIVORS_MAX
            && let Some(oldest) = self.survivors.pop_front()
            && let Some(node) = self.nodes.get_mut(&oldest)
            && !node.detached
        {
            node.orphan = None;
        }
    }

    /// Drops a node that neither the kernel nor a child needs, then its ancestors likewise.
    pub fn drop_unused(&mut self, id: NodeId, dirs: &DirCache) {
        let mut candidates = vec![id];
        while let Some(id) = candidates.pop() {
            let Some(node) = self.nodes.get(&id) else { continue };
            if id == ROOT || node.is_used() || node.is_there_for_its_number() {
                continue;
            }
            self.keep_number(id, false, dirs);
            self.unbind(id);
            self.is_former_no_more(id);
            self.shown_as.remove(&id);
            let Some(mut node) = self.nodes.remove(&id) else {
                continue;
            };
            if node.kind == fuser::FileType::Directory {
                // Under the table's lock: afterwards the number may belong to another directory.
                dirs.remove(id);
            }
            for name in node.names.take() {
                self.leave_parent(name.parent);
                candidates.push(name.parent);
            }
        }
    }
}
