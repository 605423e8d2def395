//! Looking up coordinated files, and their attributes: from a name to a version, or to a session's shadow.

use std::sync::Arc;

use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;

use super::files::{Finds, InHand, Reroute};
use super::shown::is_of_lineage;
use super::{Coordination, Creation, Target, caller, creator};
use crate::mount::attr;
use crate::mount::entry::Entry;
use crate::mount::nodes::{NodeId, ROOT};
use crate::mount::tree::{Anchor, Caller};
use crate::session::FileKey;

impl Coordination {
    /// What this caller finds under a coordinated name: its own session's shadow, the node it was sent round for, or the current version.
    /// The kernel must ask again next time.
    ///
    /// # Errors
    /// ENOENT when there is no version yet, and the caller is not its creator.
    pub fn lookup(self: &Arc<Self>, caller: Caller, target: &Target) -> Result<Entry, Errno> {
        let key_name = self.key_name(&target.name);
        let comes_back = self.files.lock().was_sent(caller.tid);
        let in_hand = comes_back.then(|| InHand::take(&self.files, &key_name));
        let key = match &in_hand {
            Some(in_hand) => {
                let mut files = self.files.lock();
                files.follow(caller.tid, std::slice::from_ref(&target.name), in_hand.key());
                Some(in_hand.key())
            }
            None => self.files.lock().key_of(&key_name),
        };
        let found = self.look_up(caller, target, key);
        if let (Err(Errno::NOENT), Some(key)) = (&found, key) {
            self.end_walk(caller, key);
        }
        if let Ok(_) | Err(Errno::NOENT) = &found {
            self.was_told(caller, target, found.is_ok());
        }
        found
    }

    fn look_up(&self, caller: Caller, target: &Target, key: Option<FileKey>) -> Result<Entry, Errno> {
        if let Some(key) = key {
            if let Some(entry) = self.arrive(caller, key, target)? {
                return Ok(entry);
            }
            if !self.files.lock().sessions(key).is_empty()
                && let Some(session) = self.nearest_shown(key, &caller::opener(caller))
                && let Some(stat) = session.shown()
            {
                self.tree.nodes.look_up_again(session.about.node);
                return Ok(Entry {
                    id: session.about.node,
                    stat,
                    private: false,
                });
            }
        }
        self.look_up_version(caller, target)
    }

    /// The current version of a name; its image, where it has one.
    fn look_up_version(&self, caller: Caller, target: &Target) -> Result<Entry, Errno> {
        let (parent, name) = (target.name.parent, &target.name.name);
        let images = self.store.images();
        if !images.is_empty()
            && let Ok(stat) = self.stat(&target.name)
            && images.inode_of(stat.st_ino).is_some()
        {
            let (identity, kind) = (attr::identity(&stat, false), fuser::FileType::RegularFile);
            let id = self.tree.nodes.intern(target.name.clone(), identity, kind);
            return Ok(Entry {
                id,
                stat,
                private: false,
            });
        }
        self.tree.lookup(caller, parent, name)
    }

    /// The LOOKUP of a thread that was answered ESTALE: it gets a node of its own, the same until it opens it.
    fn arrive(&self, caller: Caller, key: FileKey, target: &Target) -> Result<Option<Entry>, Errno> {
        let stranger = caller.tid == 0;
        let (node, reads) = {
            let mut files = self.files.lock();
            match files
                .reroute(caller.tid, key)
                .map(|reroute| (reroute.finds, reroute.reads))
            {
                Some((Finds::Own(node), reads)) => (node, reads),
                _ if stranger && files.expects_strangers(key) => (None, false),
                _ => return Ok(None),
            }
        };
        let stat = match self.stat(&target.name) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => {
                let session = self.files.lock().sessions(key).last().cloned();
                match session {
                    Some(session) if stranger || is_of_lineage(caller, &session) => {
                        rustix::fs::fstat(session.pin().fd())?
                    }
                    // By the CREATE that would come next it could not be sent round any more: whatever it finds then, it finds it by this node. What it may do with
                    // that is seen when it is there (W11).
                    session => match self.promised_to(caller, key) {
                        None if session.is_none() && !self.waits_to_create(caller, key) => return Ok(None),
                        creation => self.stat_of_promise(caller, target.name.parent, creation)?,
                    },
                }
            }
            Err(errno) => return Err(errno),
        };
        // The kernel asks twice: first to see whether the name it knows is still right, and it forgets that answer again.
        let id = match node.filter(|id| self.tree.nodes.look_up_again(*id)) {
            Some(id) => id,
            None => {
                let (identity, kind) = (attr::identity(&stat, false), attr::kind(stat.st_mode));
                let id = match reads {
                    true => self.tree.nodes.fresh_to_read(target.name.clone(), identity, kind),
                    false => self.tree.nodes.fresh(target.name.clone(), identity, kind),
                };
                if stranger {
                    self.files.lock().stranger_finds((key, target.name.clone()), id);
                    return Ok(Some(Entry {
                        id,
                        stat,
                        private: false,
                    }));
                }
                // The kernel forgets it at once when it finds another node in its cache, and then looks again.
                self.tree.nodes.look_up_again(id);
                if let Some(reroute) = self.files.lock().reroute(caller.tid, key) {
                    reroute.finds = Finds::Own(Some(id));
                    reroute.names = vec![target.name.clone()];
                }
                id
            }
        };
        Ok(Some(Entry {
            id,
            stat,
            private: false,
        }))
    }

    /// What the thread creates if it finds nothing; it was sent round.
    fn promised_to(&self, caller: Caller, key: FileKey) -> Option<Creation> {
        let known = self.files.lock().reroute(caller.tid, key)?.creates;
        let creates = known.or_else(|| creator::asked(caller))?;
        self.files.lock().reroute(caller.tid, key)?.creates = Some(creates);
        Some(creates)
    }

    /// Whether a node was made for a thread that waits or is on its way: its session may start from a later version than it shows now.
    pub fn is_passing(&self, node: NodeId) -> bool {
        self.files.lock().is_passing(node)
    }

    /// A thread that was sent round is here with `node`; what it found, the kernel holds now. `None` when it did not come by that way: the walk that it was sent
    /// on has ended elsewhere.
    pub(super) fn arrived(&self, caller: Caller, file: FileKey, node: NodeId) -> Option<Reroute> {
        if caller.tid == 0 {
            return self.files.lock().take_stranger(node);
        }
        let reroute = self.files.lock().take_reroute(caller.tid, file)?;
        match reroute.finds {
            // Who comes by a descriptor does not walk, and has none of its own.
            Finds::Current | Finds::Attributes | Finds::Own(None) => Some(reroute),
            Finds::Own(Some(own)) => {
                self.tree.nodes.forget(own, 1);
                (own == node).then_some(reroute)
            }
        }
    }

    /// [`Coordination::arrived`] with the node that was made for the thread: nobody else has it.
    pub(super) fn arrived_on_own(&self, caller: Caller, file: FileKey, node: NodeId) -> Option<Reroute> {
        self.arrived(caller, file, node)
            .filter(|reroute| !reroute.finds.is_current())
    }

    /// There is nothing by the name: a thread that was sent round to it does not come back. But the kernel may ask twice, whether the name that it knows is still
    /// right, and what it leads to then, and there may be something again.
    fn end_walk(&self, caller: Caller, key: FileKey) {
        self.files.lock().take_shown(caller.tid);
        let misses_again = |reroute: &mut Reroute| !reroute.misses();
        let ends = self.files.lock().reroute(caller.tid, key).is_some_and(misses_again);
        if caller.tid != 0 && ends {
            self.arrived(caller, key, ROOT);
            self.files.lock().settle(key);
        }
    }

    /// Attributes for a node whose inode is no longer what its coordinated name leads to: what the name leads to now. The kernel asks for
    /// them between a LOOKUP and the OPEN that follows, and a publish may come in between. While others create the file, who waits for that is shown a promise.
    ///
    /// # Errors
    /// ESTALE when the name is not coordinated, or there is nothing.
    pub fn stat_of_name(&self, caller: Caller, node: NodeId) -> Result<Stat, Errno> {
        let name = self
            .tree
            .nodes
            .info(node)
            .and_then(|info| info.names.into_iter().next())
            .ok_or(Errno::STALE)?;
        self.target(name.parent, &name.name).ok_or(Errno::STALE)?;
        let key_name = self.key_name(&name);
        let promised = || {
            let files = self.files.lock();
            let session = files
                .key_of(&key_name)
                .and_then(|key| files.sessions(key).last().cloned());
            session.ok_or(Errno::STALE)
        };
        match self.stat(&name) {
            // Also while it is being published.
            Err(Errno::NOENT) => {
                let session = promised()?;
                let waiting = self.files.lock().creation_by(node);
                match waiting.filter(|_| !is_of_lineage(caller, &session)) {
                    Some(creation) => self.stat_of_promise(caller, name.parent, creation),
                    None => rustix::fs::fstat(session.pin().fd()),
                }
            }
            result => result,
        }
    }

    /// The same for extended attributes. Before each open(2) by who is not the file's owner the kernel asks for its ACL.
    ///
    /// # Errors
    /// ESTALE when the name is not coordinated, ENODATA when there is nothing, and those of open(2).
    pub fn anchor_of_name(&self, node: NodeId) -> Result<Anchor, Errno> {
        let info = self.tree.nodes.info(node);
        let name = info
            .and_then(|info| info.names.into_iter().next())
            .ok_or(Errno::STALE)?;
        self.target(name.parent, &name.name).ok_or(Errno::STALE)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(self.directory(name.parent)?, &*name.name, flags, Mode::empty()) {
            Ok(fd) => Ok(Anchor::Own(fd)),
            // Somebody creates it.
            Err(Errno::NOENT) => Err(Errno::NODATA),
            Err(errno) => Err(errno),
        }
    }
}
