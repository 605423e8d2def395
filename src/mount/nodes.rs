//! Nodes: what the kernel knows by number, and where it is in the backing tree.

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::RwLock;

use super::dirs::DirCache;
use super::pin::Pin;

/// A node's number: FUSE node id and st_ino in one, because fuser has one field for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// The directory that is mounted.
pub const ROOT: NodeId = NodeId(1);

/// Numbers from here up are ours to give; no filesystem we know of counts inodes that far.
const SYNTHETIC_FIRST: u64 = 1 << 48;

/// Names remembered for one node; of a file with more hard links the others are found again by lookup.
const NAMES_MAX: usize = 8;

/// Descriptors kept for nodes that lost their last known name though the inode has others.
const SURVIVORS_MAX: usize = 256;

/// Former nodes of one name that are remembered as such.
const FORMERS_MAX: usize = 64;

/// Which inode of the backing tree a node stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// st_dev.
    pub dev: u64,
    /// st_ino.
    pub ino: u64,
    /// Below `.concord`: such a node is never the same as one outside, even on one inode.
    pub private: bool,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    /// The directory's node.
    pub parent: NodeId,
    /// The last component.
    pub name: Box<OsStr>,
}

impl Name {
    /// `name` in `parent`.
    pub fn new(parent: NodeId, name: &OsStr) -> Name {
        Name {
            parent,
            name: name.into(),
        }
    }

    fn is(&self, parent: NodeId, name: &OsStr) -> bool {
        self.parent == parent && *self.name == *name
    }
}

/// Kept small: a tree of 200,000 files must fit in a few dozen megabytes.
#[derive(Debug)]
struct Node {
    identity: Identity,
    kind: fuser::FileType,
    /// The inode's last link is gone: its number may come back for another inode.
    detached: bool,
    /// Detached, and in [`Inner::formers`] under its names.
    former: bool,
    /// The store gives its inode a second name, by which it will be kept when the first is gone.
    kept_aside: bool,
    /// The kernel may keep an entry that leads here, and come back without asking.
    kept: bool,
    lookups: u64,
    /// Names in the table whose parent this is; while there are any, the node stays.
    children: u32,
    names: Names,
    open: Weak<Pin>,
    /// Holds the inode when it has no known name and the kernel still knows the node.
    orphan: Option<Arc<Pin>>,
}

/// Most nodes have one name.
#[derive(Debug)]
enum Names {
    None,
    One(Name),
    Many(Vec<Name>),
}

impl Names {
    fn as_slice(&self) -> &[Name] {
        match self {
            Names::None => &[],
            Names::One(name) => std::slice::from_ref(name),
            Names::Many(names) => names,
        }
    }

    fn from_vec(mut names: Vec<Name>) -> Names {
        match names.len() {
            0 | 1 => names.pop().map_or(Names::None, Names::One),
            _ => Names::Many(names),
        }
    }

    fn take(&mut self) -> Vec<Name> {
        match std::mem::replace(self, Names::None) {
            Names::None => Vec::new(),
            Names::One(name) => vec![name],
            Names::Many(names) => names,
        }
    }
}

/// What is known of a node, copied out.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// Its inode.
    pub identity: Identity,
    /// What kind of file it is; a node never changes it.
    pub kind: fuser::FileType,
    /// What holds the inode open, if anything does.
    pub pin: Option<Arc<Pin>>,
    /// Its known names; empty for the root and for deleted files.
    pub names: Vec<Name>,
}

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

#[derive(Debug)]
struct Inner {
    nodes: HashMap<NodeId, Node>,
    /// Where a node's number is not its inode's: identity → node.
    aliases: HashMap<Identity, NodeId>,
    root_dev: u64,
    synthetic_next: u64,
    survivors: VecDeque<NodeId>,
    /// Nodes that a name has led to before another version of the same file was written in place, oldest first. To whoever watches or has open such a node, it is
    /// that file still.
    formers: HashMap<Name, VecDeque<NodeId>>,
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
                    node.lookups += 1;
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

    /// The kernel is told of a node once more. `false`: the node is gone, the kernel had forgotten it.
    pub fn look_up_again(&self, id: NodeId) -> bool {
        let mut inner = self.inner.write();
        let Some(node) = inner.nodes.get_mut(&id) else {
            return false;
        };
        node.lookups += 1;
        true
    }

    /// Lets a node stand for another inode; the kernel keeps no entry that leads to it. Where lookups find another node for that already, they still do. `pin`, when given, is what its opens share from now on; the caller keeps it alive. Without it the next
    /// open makes one: handles of the inode before may live on, and their pin is not for others.
    pub fn rebind(&self, id: NodeId, identity: Identity, pin: Option<&Arc<Pin>>) {
        let mut inner = self.inner.write();
        inner.unbind(id);
        inner.is_former_no_more(id);
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
    }

    /// The name that a node was found by leads to another file from now on: lookups find another node. It keeps the name, so that a thread which has just found
    /// it can still be told where to go, and its inode.
    pub fn supersede(&self, id: NodeId, held: Arc<Pin>) {
        let mut inner = self.inner.write();
        inner.detach(id);
        inner.is_former_no_more(id);
        if let Some(node) = inner.nodes.get_mut(&id) {
            node.orphan = Some(held);
        }
    }

    /// The same where the name leads to another version of the same file, or soon will: a *former* node. It keeps its inode where `held` is given. Returns whether
    /// lookups found it until now, and what is no former node any more, because there are too many.
    pub fn overtake(&self, id: NodeId, held: Option<Arc<Pin>>) -> (bool, Vec<NodeId>) {
        let mut inner = self.inner.write();
        let found = inner.nodes.get(&id).is_some_and(|node| !node.detached);
        inner.detach(id);
        let Some(node) = inner.nodes.get_mut(&id) else {
            return (found, Vec::new());
        };
        node.orphan = held;
        if std::mem::replace(&mut node.former, true) {
            return (found, Vec::new());
        }
        let names = node.names.as_slice().to_vec();
        let ended = names
            .into_iter()
            .filter_map(|name| inner.add_former(name, id))
            .collect();
        (found, ended)
    }

    /// The nodes that a name has led to before, as long as the kernel knows them.
    pub fn formers(&self, name: &Name) -> Vec<NodeId> {
        let inner = self.inner.read();
        inner
            .formers
            .get(name)
            .map_or_else(Vec::new, |all| all.iter().copied().collect())
    }

    /// A name does not lead to the file any more that it led to. Returns its former nodes, which are none from now on.
    pub fn end_formers(&self, name: &Name) -> Vec<NodeId> {
        if self.inner.read().formers.is_empty() {
            return Vec::new();
        }
        let mut inner = self.inner.write();
        let ended: Vec<NodeId> = inner.formers.get(name).into_iter().flatten().copied().collect();
        ended.iter().for_each(|id| inner.is_former_no_more(*id));
        ended
    }

    /// The store is about to give a node's inode a second name, or has taken it away again.
    pub fn keep_aside(&self, id: NodeId, kept: bool) {
        if let Some(node) = self.inner.write().nodes.get_mut(&id) {
            node.kept_aside = kept;
        }
    }

    /// The link count of a node, of whose inode `counted` were counted. By it the kernel knows when to tell watchers that a file is gone (IN_DELETE_SELF).
    pub fn links(&self, id: NodeId, counted: u64) -> u64 {
        match self.inner.read().nodes.get(&id) {
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

    /// The kernel forgets `lookups` lookups of a node.
    pub fn forget(&self, id: NodeId, lookups: u64) {
        let mut inner = self.inner.write();
        if let Some(node) = inner.nodes.get_mut(&id) {
            node.lookups = node.lookups.saturating_sub(lookups);
        }
        inner.drop_unused(id, &self.dirs);
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

impl Node {
    fn new(identity: Identity, kind: fuser::FileType, names: Names) -> Node {
        Node {
            identity,
            kind,
            detached: false,
            former: false,
            kept_aside: false,
            kept: false,
            lookups: 1,
            children: 0,
            names,
            open: Weak::new(),
            orphan: None,
        }
    }

    fn pin(&self) -> Option<Arc<Pin>> {
        self.open.upgrade().or_else(|| self.orphan.clone())
    }

    fn own_links(&self, counted: u64) -> u64 {
        if self.kept_aside && counted > 1 {
            counted - 1
        } else {
            counted
        }
    }
}

impl Inner {
    /// The number that is the inode's own, where an inode may have its own.
    fn natural_id(&self, identity: Identity) -> Option<NodeId> {
        let usable = !identity.private && identity.dev == self.root_dev;
        (usable && identity.ino > ROOT.0 && identity.ino < SYNTHETIC_FIRST).then_some(NodeId(identity.ino))
    }

    fn find(&self, identity: Identity) -> Option<NodeId> {
        if let Some(id) = self.natural_id(identity)
            && let Some(node) = self.nodes.get(&id)
            && node.identity == identity
            && !node.detached
        {
            return Some(id);
        }
        self.aliases.get(&identity).copied()
    }

    fn create(&mut self, name: Name, identity: Identity, kind: fuser::FileType, fresh: bool) -> NodeId {
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

    fn add_name(&mut self, id: NodeId, name: Name) {
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
        node.orphan = None;
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children += 1;
        }
        for name in stale {
            self.leave_parent(name.parent);
        }
    }

    fn remove_name(&mut self, id: NodeId, name: &Name) {
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

    fn leave_parent(&mut self, parent: NodeId) {
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children = parent.children.saturating_sub(1);
        }
    }

    /// The inode's number may come back for another inode: nobody finds this node by it any more.
    fn detach(&mut self, id: NodeId) {
        self.unbind(id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.detached = true;
        }
    }

    /// Returns the oldest, if there are too many.
    fn add_former(&mut self, name: Name, id: NodeId) -> Option<NodeId> {
        let formers = self.formers.entry(name).or_default();
        formers.push_back(id);
        let oldest = (formers.len() > FORMERS_MAX).then(|| formers[0])?;
        self.is_former_no_more(oldest);
        Some(oldest)
    }

    fn is_former_no_more(&mut self, id: NodeId) {
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

    fn unbind(&mut self, id: NodeId) {
        if let Some(node) = self.nodes.get(&id)
            && self.aliases.get(&node.identity) == Some(&id)
        {
            let identity = node.identity;
            self.aliases.remove(&identity);
        }
    }

    fn remember_survivor(&mut self, id: NodeId) {
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
    fn drop_unused(&mut self, id: NodeId, dirs: &DirCache) {
        let mut candidates = vec![id];
        while let Some(id) = candidates.pop() {
            let Some(node) = self.nodes.get(&id) else { continue };
            if id == ROOT || node.lookups > 0 || node.children > 0 || node.open.strong_count() > 0 {
                continue;
            }
            self.unbind(id);
            self.is_former_no_more(id);
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

#[cfg(test)]
#[path = "nodes_tests.rs"]
mod tests;
