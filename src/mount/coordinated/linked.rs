//! Files with several names, and files that are written in place (W11).
//!
//! Whoever opens one name of an inode means the same file as who opens another: one of the coordinated names stands for all of them, in the queue, in the
//! log of appended lines, for locks and in the history. An inode that is written in place has an *image* in the store (`store/images.rs`), and a node stands
//! for the image, not for the inode; who had the inode itself open is given the image before the first byte of it changes.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, OFlags, Stat};
use rustix::io::Errno;

use super::locks::Whose;
use super::open::open_version;
use super::{Coordination, Target, is_file, place};
use crate::mount::attr;
use crate::mount::descriptors;
use crate::mount::errno::from_io;
use crate::mount::file::BY_DAEMON;
use crate::mount::handles::Ordinary;
use crate::mount::nodes::{Identity, Name, NodeId, ROOT};
use crate::mount::pin::{Access, Pin};
use crate::mount::tree::Caller;

/// More entries than this are worth looking through for those that nobody needs.
const LINKED_SWEEP_MIN: usize = 1024;
const READERS_SWEEP_MIN: usize = 1024;
/// How often an open is tried anew when the file gets its first image meanwhile.
const OVERTAKEN_MAX: u32 = 3;

/// An image that a name leads to, held.
pub(super) type HeldImage = (Identity, OwnedFd);

/// What is known of inodes with several names. Both locks are held for no system call and come after all others.
#[derive(Default)]
pub(super) struct Linked {
    /// By inode, the name that stands for all.
    names: Mutex<HashMap<u64, Name>>,
    /// By inode, who reads it directly.
    readers: Mutex<HashMap<u64, Vec<Weak<Pin>>>>,
}

impl Coordination {
    /// lstat(2) of a name in the backing tree. A file that is written in place has the inode number of its image, and while it is being written, the
    /// image's size and time.
    pub(super) fn stat(&self, name: &Name) -> Result<Stat, Errno> {
        let mut stat = self.stat_backing(name)?;
        let images = self.store.images();
        if !images.is_empty()
            && is_file(&stat)
            && let Some((image, alone)) = images.of(stat.st_ino, stat.st_size as u64, mtime_ns(&stat))
        {
            stat.st_ino = image.ino;
            if alone {
                stat.st_size = image.size as i64;
                stat.st_mtime = image.mtime_ns.div_euclid(1_000_000_000);
                stat.st_mtime_nsec = image.mtime_ns.rem_euclid(1_000_000_000) as u64;
            }
        }
        Ok(stat)
    }

    /// lstat(2) of a name in the backing tree.
    pub(super) fn stat_backing(&self, name: &Name) -> Result<Stat, Errno> {
        rustix::fs::statat(self.directory(name.parent)?, &*name.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Whether a name leads to a file with several names.
    pub fn is_shared(&self, name: &Name) -> bool {
        self.stat_backing(name)
            .is_ok_and(|stat| is_file(&stat) && stat.st_nlink > 1)
    }

    /// The name that stands for all names of a file; the name itself where it is the only one.
    pub(super) fn canonical(&self, name: &Name) -> Name {
        let Ok(stat) = self.stat_backing(name) else {
            return name.clone();
        };
        let known = self.linked.names.lock().get(&stat.st_ino).cloned();
        match known {
            Some(known) if known == *name => known,
            Some(known)
                if self.is_coordinated(&known)
                    && self.stat_backing(&known).is_ok_and(|other| other.st_ino == stat.st_ino) =>
            {
                known
            }
            _ if !is_file(&stat) => name.clone(),
            outdated if stat.st_nlink > 1 => {
                if !self.is_coordinated(name) {
                    return name.clone();
                }
                let home = self.home(&stat).unwrap_or_else(|| name.clone());
                self.remember(stat.st_ino, outdated.as_ref(), home)
            }
            known => {
                if known.is_some() {
                    self.linked.names.lock().remove(&stat.st_ino);
                }
                name.clone()
            }
        }
    }

    /// [`Coordination::canonical`] for what is asked often: no system call while nobody uses a file with several names.
    pub(super) fn key_name(&self, name: &Name) -> Name {
        if self.linked.names.lock().is_empty() {
            return name.clone();
        }
        self.canonical(name)
    }

    /// The name under which the history of an inode was kept when it was last written in place, if it still leads there.
    fn home(&self, stat: &Stat) -> Option<Name> {
        let path = self.store.home_of(stat.st_ino)?;
        let target = self.target_at(&path).ok()?;
        let there = self.stat_backing(&target.name).ok()?;
        (there.st_ino == stat.st_ino).then_some(target.name)
    }

    /// Makes `name` stand for an inode, in the place of `outdated`; returns the one that stands for it now: another thread may have been faster.
    fn remember(&self, ino: u64, outdated: Option<&Name>, name: Name) -> Name {
        let mut names = self.linked.names.lock();
        match names.get(&ino) {
            Some(other) if outdated != Some(other) => return other.clone(),
            _ => names.insert(ino, name.clone()),
        };
        if names.len() < LINKED_SWEEP_MIN || !names.len().is_power_of_two() {
            return name;
        }
        let all: Vec<(u64, Name)> = names.drain().collect();
        drop(names);
        let needed = |name: &Name| self.files.lock().key_of(name).is_some() || self.logs.is_used(name);
        let kept: Vec<(u64, Name)> = all.into_iter().filter(|(_, name)| needed(name)).collect();
        self.linked.names.lock().extend(kept);
        name
    }

    /// A file is about to get one more name: sessions on it go on under the one that it has.
    pub fn will_be_linked(&self, node: NodeId) {
        if let Some(target) = self.target_of(node)
            && let Ok(stat) = self.stat_backing(&target.name)
            && is_file(&stat)
        {
            self.remember(stat.st_ino, None, target.name);
        }
    }

    /// The coordinated file at a path relative to the project.
    pub(super) fn target_at(&self, path: &Path) -> Result<Target, Errno> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let mut parent = ROOT;
        for component in path.parent().into_iter().flat_map(Path::components) {
            let entry = self
                .tree
                .lookup(Caller { uid: 0, gid: 0, tid: 0 }, parent, component.as_os_str())?;
            parent = entry.id;
        }
        self.target(parent, name).ok_or(Errno::INVAL)
    }

    /// The file that a coordinated name leads to, open for reading: the image, where there is one. Nothing that is published later changes what is read through it.
    pub(super) fn current_pin(&self, name: &Name) -> Result<Arc<Pin>, Errno> {
        for _ in 0..OVERTAKEN_MAX {
            let now = self.stat(name)?;
            let images = self.store.images();
            if images.inode_of(now.st_ino).is_some() {
                match images.open(now.st_ino) {
                    Ok(image) => return Ok(Arc::new(Pin::new(image.into(), Access::Read, None))),
                    Err(_) => continue,
                }
            }
            let file = open_version(&*self.directory(name.parent)?, &name.name)?;
            let pin = Arc::new(Pin::new(file.into(), Access::Read, None));
            if self.reads_directly(&pin)? {
                return Ok(pin);
            }
        }
        Err(Errno::STALE)
    }

    /// open(2) of the node of a version.
    ///
    /// # Errors
    /// ESTALE when the file has got an image since the node was looked up: its name leads to that.
    pub(super) fn open_version_node(&self, caller: Caller, node: NodeId) -> Result<Arc<Ordinary>, Errno> {
        let identity = self.tree.identity(node)?;
        if self.store.images().inode_of(identity.ino).is_some() {
            let _opening = self.tree.opening(node);
            let pin = match self.tree.nodes.open_pin(node) {
                Some(pin) => pin,
                None => {
                    let image = self
                        .store
                        .images()
                        .open(identity.ino)
                        .map_err(|error| from_io(&error))?;
                    let pin = Arc::new(Pin::new(descriptors::keep(image.into())?, Access::Read, None));
                    self.tree.nodes.set_open_pin(node, &pin);
                    pin
                }
            };
            return Ok(Arc::new(Ordinary {
                node,
                pin,
                access: Access::Read,
            }));
        }
        let opened = self.tree.open(caller, node, OFlags::RDONLY, BY_DAEMON)?;
        match self.reads_directly(&opened.pin) {
            Ok(true) => Ok(opened),
            other => {
                self.tree.close(opened);
                Err(other.err().unwrap_or(Errno::STALE))
            }
        }
    }

    /// Somebody reads an inode itself. `false`: it has an image, and may be written to.
    pub(super) fn reads_directly(&self, pin: &Arc<Pin>) -> Result<bool, Errno> {
        if pin.is_frozen() {
            return Ok(true);
        }
        let stat = rustix::fs::fstat(pin.fd())?;
        {
            let mut readers = self.linked.readers.lock();
            let of_inode = readers.entry(stat.st_ino).or_default();
            of_inode.retain(|other| other.strong_count() > 0 && !std::ptr::eq(other.as_ptr(), Arc::as_ptr(pin)));
            of_inode.push(Arc::downgrade(pin));
            if readers.len() >= READERS_SWEEP_MIN && readers.len().is_power_of_two() {
                readers.retain(|_, of_inode| of_inode.iter().any(|other| other.strong_count() > 0));
            }
        }
        // In this order: the image is known first, then those who are known to read are given it.
        let images = self.store.images();
        Ok(images.is_empty() || images.of(stat.st_ino, stat.st_size as u64, mtime_ns(&stat)).is_none())
    }

    /// A handle is closed: nobody needs to know of it any more.
    pub(super) fn reads_no_more(&self, pin: &Arc<Pin>) {
        let Ok(stat) = rustix::fs::fstat(pin.fd()) else { return };
        let mut readers = self.linked.readers.lock();
        if Arc::strong_count(pin) > 1 {
            return;
        }
        if let Some(of_inode) = readers.get_mut(&stat.st_ino) {
            of_inode.retain(|other| other.strong_count() > 0 && !std::ptr::eq(other.as_ptr(), Arc::as_ptr(pin)));
            if of_inode.is_empty() {
                readers.remove(&stat.st_ino);
            }
        }
    }

    /// An inode has its first image, or a new one after it was changed otherwise, and may be written to when this returns: all who read it read the image.
    pub(super) fn freeze(&self, ino: u64, image: &std::fs::File) {
        let readers = self.linked.readers.lock().remove(&ino).unwrap_or_default();
        for pin in readers.iter().filter_map(Weak::upgrade) {
            match rustix::io::fcntl_dupfd_cloexec(image, 3) {
                Ok(own) => pin.freeze(own),
                Err(errno) => log::error!("a reader may see a file while it is written in place: {errno}"),
            }
        }
        let Ok(stat) = rustix::fs::fstat(image) else { return };
        let identity = Identity {
            ino,
            ..attr::identity(&stat, false)
        };
        let Some(node) = self.tree.nodes.find(identity) else {
            return;
        };
        if self.has_ordinary_name(node) {
            let pin = self.tree.nodes.open_pin(node);
            if pin.is_some_and(|pin| pin.is_frozen()) {
                self.tree.nodes.forget_open_pin(node);
            }
        } else if let Ok(own) = rustix::io::fcntl_dupfd_cloexec(image, 3) {
            self.tree
                .overtaken(node, Some(Arc::new(Pin::new(own, Access::Read, None))));
        }
    }

    /// An inode is no version any more that a name leads to, and its number may come back for another file.
    pub(super) fn inode_ended(&self, inode: std::fs::File) {
        if let Ok(stat) = rustix::fs::fstat(&inode)
            && let Some(node) = self.tree.nodes.find(attr::identity(&stat, false))
        {
            self.tree
                .overtaken(node, Some(Arc::new(Pin::new(inode.into(), Access::Read, None))));
        }
    }

    /// What a session starts from, and how far the log of the file is then. A file with several names gets an image: what the session has not read yet must stay
    /// as it is.
    pub(super) fn base_of(
        &self,
        target: &Target,
        truncate: bool,
    ) -> Result<(Result<std::fs::File, Errno>, super::append_log::Mark, u64), Errno> {
        let name = &target.name;
        let (dir, path) = (self.directory(name.parent)?, self.path_of(name)?);
        let open = || {
            let needs_image = !truncate && self.is_shared(name);
            let images = self.store.images();
            if needs_image {
                let image = self.store.ensure_image(&place(&dir, name, &path));
                return image.map_err(|error| from_io(&error));
            }
            match self.stat(name).map(|stat| images.open(stat.st_ino)) {
                Ok(Ok(image)) => Ok(image),
                _ => open_version(&dir, &name.name),
            }
        };
        self.logs.of(name).mark_at(open)
    }

    /// A name of a file with several was removed, or leads elsewhere: the node of its image does not have it any more.
    pub(super) fn name_left_image(&self, image: Option<HeldImage>, name: &Name) {
        let Some((image, held)) = image else { return };
        if let Some(node) = self.tree.nodes.find(image) {
            let held = Arc::new(Pin::new(held, Access::Read, None));
            self.tree.nodes.remove_name(node, name, held, false);
        }
        if let Some((inode, _)) = self.store.images().inode_of(image.ino) {
            self.live_changed(Identity { ino: inode, ..image });
        }
    }

    /// Metadata of a file, or a name, was changed by the node of its image: the kernel does not know that this is the file that ordinary names lead to.
    fn live_changed(&self, live: Identity) {
        if let Some(node) = self.tree.nodes.find(live) {
            self.tree.attributes_changed(node);
        }
    }

    /// The image that a name leads to, held.
    pub(super) fn image_at(&self, name: &Name) -> Option<HeldImage> {
        let now = self.stat(name).ok()?;
        self.store.images().inode_of(now.st_ino)?;
        let image = self.store.images().open(now.st_ino).ok()?;
        Some((attr::identity(&now, false), image.into()))
    }

    /// An inode was written in place: who has it by an ordinary name must not be shown pages of before.
    pub(super) fn written_in_place(&self, name: &Name) {
        if let Ok(stat) = self.stat_backing(name)
            && self
                .store
                .images()
                .of(stat.st_ino, stat.st_size as u64, mtime_ns(&stat))
                .is_some()
            && let Some(node) = self.tree.nodes.find(attr::identity(&stat, false))
        {
            self.tree.changed_behind(node);
        }
    }

    /// The times of an inode were set: its image's, if it has one, are the same.
    ///
    /// # Errors
    /// Those of futimens(2).
    pub fn follow_times(&self, live: &std::fs::File) -> Result<(), Errno> {
        let images = self.store.images();
        if !images.is_empty() {
            self.live_changed(attr::identity(&rustix::fs::fstat(live)?, false));
        }
        images.follow_times(live).map_err(|error| from_io(&error))
    }

    /// The same of what a name leads to.
    pub(super) fn follow_times_of(&self, name: &Name) {
        if let Ok(live) = self.live_of(name)
            && let Err(errno) = self.follow_times(&live)
        {
            // Then it is of no use, and made anew.
            log::debug!("an image does not have the times of its file: {errno}");
        }
    }

    /// The names that are known to lead to a version, or may (`others`), those that the rules coordinate first.
    pub(super) fn names_of(&self, version: &Stat, node: Option<NodeId>, others: &[Name]) -> Vec<Name> {
        let identity = attr::identity(version, false);
        let inode = self.store.images().inode_of(version.st_ino);
        let behind_image = inode.map(|(ino, _)| Identity { ino, ..identity });
        let known = [Some(identity), behind_image].into_iter().flatten();
        let nodes = known.filter_map(|identity| self.tree.nodes.find(identity)).chain(node);
        let infos = nodes.filter_map(|node| self.tree.nodes.info(node));
        let leads_there = |name: &Name| self.stat(name).is_ok_and(|stat| stat.st_ino == version.st_ino);
        let names = infos.flat_map(|info| info.names).chain(others.iter().cloned());
        let mut names: Vec<Name> = names.filter(leads_there).collect();
        names.sort_by_key(|name| self.target(name.parent, &name.name).is_none());
        names
    }

    /// The coordinated name that stands for all that are left of a file, whose stat this was and to which `name` does not lead any more.
    pub(super) fn other_name_of(&self, name: &Name, was: &Stat) -> Option<Name> {
        let live = attr::identity(was, false);
        let image = self.store.images().of(was.st_ino, was.st_size as u64, mtime_ns(was));
        let image = image.map(|(image, _)| Identity { ino: image.ino, ..live });
        let nodes = [Some(live), image].into_iter().flatten();
        let nodes = nodes.filter_map(|identity| self.tree.nodes.find(identity));
        let mut names = nodes
            .filter_map(|node| self.tree.nodes.info(node))
            .flat_map(|info| info.names);
        let leads_there = |other: &Name| {
            let stat = self.stat_backing(other);
            stat.is_ok_and(|stat| attr::identity(&stat, false) == live)
        };
        let other = names.find(|other| other != name && self.is_coordinated(other) && leads_there(other))?;
        Some(self.canonical(&other))
    }

    /// A name has left a file that goes on under others: `other`, or some that nobody knows. So does the lock of that file.
    pub(super) fn lock_goes_on(&self, name: &Name, was: &Stat, other: Option<&Name>) {
        let now = match other {
            Some(other) => Whose::Name(other.clone()),
            None => Whose::Inode(attr::identity(was, false)),
        };
        self.locks.lock().renamed(&Whose::Name(name.clone()), now);
    }

    /// The file of a name may have been locked by an ordinary one, or by one that it has lost.
    pub(super) fn find_lock(&self, name: &Name) {
        if let Ok(stat) = self.stat_backing(name) {
            let whose = Whose::Inode(attr::identity(&stat, false));
            self.locks.lock().is_one(&whose, Whose::Name(name.clone()));
        }
    }

    /// The names of a session's file that only former nodes of it know: who had that open by another name when it got its image. They are none any more when one of
    /// the names is gone.
    pub(super) fn former_names(&self, session: &super::session::Session) -> Vec<Name> {
        let formers = self.tree.nodes.formers(&session.name()).into_iter();
        let infos = formers.filter_map(|node| self.tree.nodes.info(node));
        infos.flat_map(|info| info.names).collect()
    }

    /// The name of a session was removed, or given to another file, by its own lineage: where its file has another name that is known, by now or until then
    /// ([`former_names`](Self::former_names)), it is published to that.
    pub(super) fn goes_on_elsewhere(
        self: &Arc<Self>,
        session: &super::session::Session,
        removed: &Name,
        former_names: &[Name],
    ) -> bool {
        if session.name() != *removed {
            return true;
        }
        let base = session.started_from();
        let Some(base) = base.and_then(|base| rustix::fs::fstat(&base).ok()) else {
            return false;
        };
        let names = self.names_of(&base, Some(session.about.node), former_names);
        let other = names.into_iter().find(|name| name != removed);
        other.is_some_and(|other| {
            // The kernel has counted the name down where it had it: on the session's node.
            let identity = attr::identity(&base, false);
            let inode = self.store.images().inode_of(base.st_ino);
            let live = inode.map_or(identity, |(ino, _)| Identity { ino, ..identity });
            self.live_changed(live);
            session.set_name(other.clone());
            if self.is_coordinated(&other) {
                // Who opens it by that waits for the session, as before.
                let home = self.remember(live.ino, Some(removed), other);
                let (moved, wakes) = self.files.lock().move_sessions(self.now(), removed, &home);
                let nodes = moved.iter().map(|session| session.about.node);
                nodes.for_each(|node| self.tree.nodes.call_only(node, home.clone()));
                self.carry_out(wakes);
            }
            true
        })
    }

    /// The inode of a file whose versions are shown by images: those have its content, and not its permissions.
    pub(super) fn live_behind_image(&self, name: &Name) -> Result<Option<std::fs::File>, Errno> {
        if self.store.images().is_empty() {
            return Ok(None);
        }
        self.image_at(name).map(|_| self.live_of(name)).transpose()
    }

    /// The inode itself that a name leads to, for its metadata.
    pub(super) fn live_of(&self, name: &Name) -> Result<std::fs::File, Errno> {
        open_version(&*self.directory(name.parent)?, &name.name)
    }
}

/// Time of modification, in ns since the epoch.
fn mtime_ns(stat: &Stat) -> i64 {
    stat.st_mtime
        .saturating_mul(1_000_000_000)
        .saturating_add(stat.st_mtime_nsec as i64)
}
