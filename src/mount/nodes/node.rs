//! A node, and by what it is known.

use std::ffi::OsStr;
use std::sync::{Arc, Weak};

use crate::mount::pin::Pin;

/// A node's number: FUSE node id and st_ino in one, because fuser has one field for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// The directory that is mounted.
pub const ROOT: NodeId = NodeId(1);

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

    pub(super) fn is(&self, parent: NodeId, name: &OsStr) -> bool {
        self.parent == parent && *self.name == *name
    }
}

/// Kept small: a tree of 200,000 files must fit in a few dozen megabytes.
#[derive(Debug)]
pub(super) struct Node {
    pub identity: Identity,
    pub kind: fuser::FileType,
    /// The inode's last link is gone: its number may come back for another inode.
    pub detached: bool,
    /// Detached, and in `Inner::formers` under its names.
    pub former: bool,
    /// The store gives its inode a second name, by which it will be kept when the first is gone.
    pub kept_aside: bool,
    /// The kernel may keep an entry that leads here, and come back without asking.
    pub kept: bool,
    /// It stays when the kernel forgets it: see [`Inner::keep_number`](super::inner::Inner::keep_number).
    pub keeps_number: bool,
    /// Stays at the largest there is: what the kernel then forgets at once is no less.
    pub lookups: u32,
    /// Names in the table whose parent this is; while there are any, the node stays.
    pub children: u32,
    pub names: Names,
    pub open: Weak<Pin>,
    /// Holds the inode when it has no known name and the kernel still knows the node.
    pub orphan: Option<Arc<Pin>>,
}

/// Most nodes have one name.
#[derive(Debug)]
pub(super) enum Names {
    None,
    One(Name),
    Many(Vec<Name>),
}

impl Names {
    pub(super) fn as_slice(&self) -> &[Name] {
        match self {
            Names::None => &[],
            Names::One(name) => std::slice::from_ref(name),
            Names::Many(names) => names,
        }
    }

    pub(super) fn from_vec(mut names: Vec<Name>) -> Names {
        match names.len() {
            0 | 1 => names.pop().map_or(Names::None, Names::One),
            _ => Names::Many(names),
        }
    }

    pub(super) fn take(&mut self) -> Vec<Name> {
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

impl Node {
    pub(super) fn new(identity: Identity, kind: fuser::FileType, names: Names) -> Node {
        Node {
            identity,
            kind,
            detached: false,
            former: false,
            kept_aside: false,
            kept: false,
            keeps_number: false,
            lookups: 1,
            children: 0,
            names,
            open: Weak::new(),
            orphan: None,
        }
    }

    pub(super) fn pin(&self) -> Option<Arc<Pin>> {
        self.open.upgrade().or_else(|| self.orphan.clone())
    }

    /// Whether the kernel knows it, or something else needs it.
    pub(super) fn is_used(&self) -> bool {
        self.lookups > 0 || self.children > 0 || self.open.strong_count() > 0
    }

    /// Whether lookups are to find it though nobody needs it.
    pub(super) fn is_there_for_its_number(&self) -> bool {
        self.keeps_number && !self.detached && !self.names.as_slice().is_empty()
    }

    pub(super) fn own_links(&self, counted: u64) -> u64 {
        if self.kept_aside && counted > 1 {
            counted - 1
        } else {
            counted
        }
    }
}
