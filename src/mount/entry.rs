//! Names: lookup, make, link, unlink, rename.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::{Errno, Result};

use super::attr;
use super::nodes::{Identity, Name, NodeId};
use super::notices::{self, News};
use super::pin::{Access, Pin};
use super::tree::{Caller, Tree};

/// A name's node, one lookup more, and its attributes.
#[derive(Debug)]
pub struct Entry {
    /// The node.
    pub id: NodeId,
    /// What stat(2) says.
    pub stat: Stat,
    /// Below `.concord`.
    pub private: bool,
}

/// What a new name is to be.
#[derive(Debug)]
pub enum New<'a> {
    /// mkdir(2), with its mode.
    Directory(u32),
    /// symlink(2), with its target.
    Symlink(&'a Path),
    /// mknod(2), with its mode and the kernel's device number.
    Special(u32, u32),
}

impl Tree {
    /// The node of a name; ENOENT when there is none.
    pub fn lookup(&self, caller: Caller, parent: NodeId, name: &OsStr) -> Result<Entry> {
        let private = self.is_private(parent, name)?;
        if private && !self.may_see_store(caller) {
            return Err(Errno::NOENT);
        }
        let held = self.hold_names();
        let dir = self.dir_of(&held, parent)?;
        self.enter(&dir, parent, name, private)
    }

    /// A descriptor of a directory, also of one that was removed while somebody is in it.
    pub fn dir_of(&self, held: &super::tree::NamesHeld<'_>, id: NodeId) -> Result<Arc<OwnedFd>> {
        match self.reach(held, id) {
            // Nothing can be in a removed directory, and nothing can be made there.
            Err(Errno::STALE) if self.nodes.pin(id).is_some() => Err(Errno::NOENT),
            result => result,
        }
    }

    /// Makes the entry of a name that is in the directory `dir`.
    pub fn enter(&self, dir: &OwnedFd, parent: NodeId, name: &OsStr, private: bool) -> Result<Entry> {
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(self.entry(stat, parent, name, private))
    }

    fn entry(&self, mut stat: Stat, parent: NodeId, name: &OsStr, private: bool) -> Entry {
        let identity = attr::identity(&stat, private);
        let id = self
            .nodes
            .intern(Name::new(parent, name), identity, attr::kind(stat.st_mode));
        stat.st_nlink = self.nodes.links_by_name(id, stat.st_nlink);
        Entry { id, stat, private }
    }

    /// mkdir(2), symlink(2), mknod(2), as the caller.
    pub fn make(&self, caller: Caller, parent: NodeId, name: &OsStr, new: New<'_>, umask: u32) -> Result<Entry> {
        self.refuse_private(parent, name)?;
        let held = self.hold_names();
        let dir = self.dir_of(&held, parent)?;
        {
            let mode = match new {
                New::Directory(mode) | New::Special(mode, _) => mode,
                New::Symlink(_) => 0,
            };
            let _caller = caller.assume(mode, umask)?;
            match new {
                New::Directory(mode) => rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(mode))?,
                New::Symlink(target) => rustix::fs::symlinkat(target, &dir, name)?,
                New::Special(mode, device) => {
                    let kind = FileType::from_raw_mode(mode);
                    let mode = Mode::from_raw_mode(mode & 0o7777);
                    rustix::fs::mknodat(&dir, name, kind, mode, attr::decode_device(device))?;
                }
            }
        }
        let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        self.nodes.number_came_back(attr::identity(&stat, false));
        Ok(self.entry(stat, parent, name, false))
    }

    /// readlink(2).
    pub fn read_link(&self, id: NodeId) -> Result<Vec<u8>> {
        let anchor = self.anchor(id)?;
        rustix::fs::readlinkat(&anchor, "", Vec::new()).map(|target| target.into_bytes())
    }

    /// link(2). As the daemon, not the caller: no inode is made, and the kernel has checked what hard links need
    /// (fs.protected_hardlinks) against the mounted inode.
    pub fn link(&self, id: NodeId, parent: NodeId, name: &OsStr) -> Result<Entry> {
        self.refuse_private(parent, name)?;
        let identity = self.identity(id)?;
        if identity.private {
            return Err(Errno::ROFS);
        }
        let anchor = self.anchor(id)?;
        let held = self.hold_names();
        let dir = self.dir_of(&held, parent)?;
        let source = super::pin::proc_path(std::os::fd::AsFd::as_fd(&anchor));
        rustix::fs::linkat(rustix::fs::CWD, source, &dir, name, AtFlags::SYMLINK_FOLLOW)?;
        let stat = rustix::fs::fstat(&anchor)?;
        // The very node that was asked for, also when it was deleted meanwhile and its inode has another. But the node of an image has coordinated names only.
        let identity = if self.is_image(id) {
            attr::identity(&stat, false)
        } else {
            identity
        };
        let id = self
            .nodes
            .intern(Name::new(parent, name), identity, attr::kind(stat.st_mode));
        Ok(Entry {
            id,
            stat,
            private: false,
        })
    }

    /// link(2) of what a name leads to now. Its node has both names then, as if it had been found by both.
    pub fn link_by_name(&self, old: &Name, new: &Name) -> Result<Entry> {
        self.refuse_private(old.parent, &old.name)?;
        self.refuse_private(new.parent, &new.name)?;
        let held = self.hold_names();
        let (old_dir, new_dir) = (self.dir_of(&held, old.parent)?, self.dir_of(&held, new.parent)?);
        rustix::fs::linkat(&old_dir, &*old.name, &new_dir, &*new.name, AtFlags::empty())?;
        let entry = self.enter(&old_dir, old.parent, &old.name, false)?;
        self.nodes.add_name(entry.id, new.clone());
        Ok(entry)
    }

    /// unlink(2).
    pub fn remove(&self, parent: NodeId, name: &OsStr) -> Result<()> {
        self.remove_as(parent, name, AtFlags::empty(), |_| false)
    }

    /// rmdir(2). ENOTEMPTY also for what `is_full` says so of; whoever asks for the directory after that does not find it any more.
    pub fn remove_directory(&self, parent: NodeId, name: &OsStr, is_full: impl FnOnce(NodeId) -> bool) -> Result<()> {
        self.remove_as(parent, name, AtFlags::REMOVEDIR, is_full)
    }

    fn remove_as(
        &self,
        parent: NodeId,
        name: &OsStr,
        flags: AtFlags,
        is_full: impl FnOnce(NodeId) -> bool,
    ) -> Result<()> {
        self.refuse_private(parent, name)?;
        let dir = self.dir_of(&self.hold_names(), parent)?;
        let _changing = self.change_names();
        let victim = Victim::hold(&dir, name)?;
        if self.node_of(&victim).is_some_and(is_full) {
            return Err(Errno::NOTEMPTY);
        }
        rustix::fs::unlinkat(&dir, name, flags)?;
        self.gone(victim, &Name::new(parent, name));
        Ok(())
    }

    fn node_of(&self, victim: &Victim) -> Option<NodeId> {
        self.nodes.find(attr::identity(&victim.stat, false))
    }

    /// rename(2) with its flags, renameat2(2). A directory that `is_full` is not replaced: ENOTEMPTY.
    pub fn rename(
        &self,
        from: (NodeId, &OsStr),
        to: (NodeId, &OsStr),
        flags: RenameFlags,
        is_full: impl FnOnce(NodeId) -> bool,
    ) -> Result<()> {
        self.refuse_private(from.0, from.1)?;
        self.refuse_private(to.0, to.1)?;
        let (old_dir, new_dir) = {
            let held = self.hold_names();
            (self.dir_of(&held, from.0)?, self.dir_of(&held, to.0)?)
        };
        let _changing = self.change_names();
        let moved = rustix::fs::statat(&old_dir, from.1, AtFlags::SYMLINK_NOFOLLOW)?;
        let replaced = match Victim::hold(&new_dir, to.1) {
            Ok(victim) => Some(victim),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error),
        };
        let replaces = !flags.intersects(RenameFlags::EXCHANGE | RenameFlags::NOREPLACE);
        let target = replaced.as_ref().filter(|_| replaces);
        if target.and_then(|victim| self.node_of(victim)).is_some_and(is_full) {
            return Err(Errno::NOTEMPTY);
        }
        rustix::fs::renameat_with(&old_dir, from.1, &new_dir, to.1, flags)?;
        self.renamed(
            &Name::new(from.0, from.1),
            &Name::new(to.0, to.1),
            &moved,
            replaced,
            flags,
        );
        Ok(())
    }

    /// A rename happened on disk: so it does in the table. `moved` is what had the old name, `replaced` what had the new one.
    pub fn renamed(&self, old: &Name, new: &Name, moved: &Stat, replaced: Option<Victim>, flags: RenameFlags) {
        let source = attr::identity(moved, false);
        let exchanges = flags.contains(RenameFlags::EXCHANGE);
        let of_old = self.nodes.formers(old);
        let of_new = if exchanges { self.nodes.formers(new) } else { Vec::new() };
        [old, new].into_iter().for_each(|name| self.leads_elsewhere(name));
        if let Some(victim) = replaced {
            let target = attr::identity(&victim.stat, false);
            if target == source {
                // Two names of one inode: rename(2) leaves both.
                return;
            }
            if exchanges {
                if let Some(id) = self.nodes.find(target) {
                    self.nodes.rename(id, new, old.clone());
                }
            } else {
                self.gone(victim, new);
            }
        }
        if let Some(id) = self.nodes.find(source) {
            self.nodes.rename(id, old, new.clone());
        }
        // They were the same file's: who has one open asks for its lock by the name that it has now.
        let follow =
            |all: Vec<NodeId>, from, to: &Name| all.into_iter().for_each(|id| self.nodes.rename(id, from, to.clone()));
        follow(of_old, old, new);
        follow(of_new, new, old);
    }

    /// A name leads to another file, or to none; the one that it led to lives on where no node leads to.
    pub fn superseded(&self, victim: Victim, name: &Name) {
        self.leads_elsewhere(name);
        if let Some(id) = self.node_of(&victim) {
            self.nodes
                .supersede(id, Some(Arc::new(Pin::new(victim.fd, Access::Path, None))));
            self.attributes_changed(id);
        }
    }

    /// A name leads to another version of its file: who watches the node of the one before hears of what comes after it too. `false`: lookups had not found that
    /// any more.
    pub fn overtaken(&self, id: NodeId, held: Option<Arc<Pin>>) -> bool {
        let (found, ended) = self.nodes.overtake(id, held);
        self.end(ended);
        if self.nodes.is_kept(id) {
            // Who comes by the entry that the kernel has kept must be sent round, and so must ask.
            self.attributes_changed(id);
        }
        found
    }

    /// A node stands for the current version of its name, after it stood for something else. Where lookups find another node for that, they still do, and this one is
    /// a former node: whoever has it open learns of the next version all the same. `pin` as for [`rebind`](super::nodes::NodeTable::rebind): only its handles hold it.
    pub fn given_back(&self, id: NodeId, identity: Identity, pin: Option<&Arc<Pin>>) {
        self.nodes.rebind(id, identity, pin);
        if self.nodes.find(identity) != Some(id) {
            self.end(self.nodes.stand_aside(id));
        }
    }

    fn leads_elsewhere(&self, name: &Name) {
        self.end(self.nodes.end_formers(name));
    }

    /// These nodes are nobody's file any more.
    fn end(&self, formers: Vec<NodeId>) {
        for former in formers {
            self.attributes_changed(former);
            self.tell_watchers(notices::path_of(former), News::Gone);
        }
    }

    /// A name was removed on disk: so it is in the table.
    pub fn gone(&self, victim: Victim, name: &Name) {
        self.leads_elsewhere(name);
        if let Some(id) = self.node_of(&victim) {
            let last_link = victim.stat.st_nlink <= 1 || attr::kind(victim.stat.st_mode) == fuser::FileType::Directory;
            self.nodes
                .remove_name(id, name, Arc::new(Pin::new(victim.fd, Access::Path, None)), last_link);
        }
    }
}

/// An inode that is about to lose a name, held so that whoever has it by a descriptor can still be answered.
#[derive(Debug)]
pub struct Victim {
    fd: OwnedFd,
    stat: Stat,
}

impl Victim {
    /// Holds what `name` in `dir` leads to.
    pub fn hold(dir: &OwnedFd, name: &OsStr) -> Result<Victim> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Victim { fd, stat })
    }
}
