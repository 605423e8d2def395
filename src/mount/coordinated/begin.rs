//! The beginning of a session: from its place in the queue to a shadow, and a node that stands for it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::append_log::Mark;
use super::files::{Creation, Finds, Making};
use super::permission::{LetIn, Rights};
use super::session::{About, Session};
use super::staged::{Fresh, Staged};
use super::{Coordination, Target, creator, nanos_now, permission, place};
use crate::mount::attr;
use crate::mount::descriptors;
use crate::mount::errno::from_io;
use crate::mount::nodes::{Identity, Name, NodeId};
use crate::mount::pin::{Access, Pin};
use crate::mount::tree::Caller;
use crate::session::{FileKey, ProcId, SessionId};
use crate::store::record::{How, Who};
use crate::store::{RealDisk, Seen, Shadow};

/// What is needed to begin a session once the queue has admitted it.
pub(super) struct Beginning {
    pub id: SessionId,
    pub file: FileKey,
    /// `None` makes one: there is no file yet.
    pub node: Option<NodeId>,
    pub caller: Caller,
    pub process: ProcId,
    pub how: How,
    pub truncate: bool,
    pub creates: Option<Creation>,
    /// What a file that is not there is to be like, instead: owner, group, mode, ACL and extended attributes.
    pub like: Option<Arc<File>>,
    /// Owner, group, mode, ACL and attributes are this file's: its lineage has changed them beside it, and nobody else has seen that yet.
    pub dressed_as: Option<Arc<File>>,
    /// The node was made for this caller; another may only be had while nobody has it open.
    pub own_node: bool,
    /// What the kernel has let the caller in by, and what has to be asked again where that does not hold for what is found.
    pub let_in: LetIn,
    pub wanted: rustix::fs::Access,
}

/// What a session starts from.
struct Base {
    /// The current version; `None` for a new file.
    version: Option<File>,
    /// The inode of a file that is written in place: it has the metadata, `version` is its image.
    live: Option<File>,
    /// How a file that is not there is to be made.
    creates: Option<Creation>,
    /// Where appended lines end that the session has seen.
    mark: Mark,
    len: u64,
}

impl Coordination {
    /// The queue has admitted a session: gives it a shadow, and the node to stand for it. On an error the queue is told that it is over.
    pub(super) fn begin(self: &Arc<Self>, target: &Target, beginning: Beginning) -> Result<Arc<Session>, Errno> {
        let (id, file) = (beginning.id, beginning.file);
        self.try_begin(target, beginning)
            .inspect_err(|_| self.release(id, file))
    }

    fn try_begin(&self, target: &Target, beginning: Beginning) -> Result<Arc<Session>, Errno> {
        let Beginning {
            id,
            file,
            caller,
            process,
            how,
            truncate,
            ..
        } = beginning;
        let who = self.descriptions.of(process, caller.uid);
        let started = || {
            let base = self.base(target, &beginning)?;
            let makes = base.version.is_none();
            let making = makes.then(|| Making::begin(&self.files, target.name.parent));
            // It looks whether the directory is there.
            let shadow = self.shadow(target, &beginning, &base, &who)?;
            Ok((base, making, shadow))
        };
        let (base, making, mut shadow) = match started() {
            // Its own lineage, which it does not wait for, may have removed the name in between. Now it finds nothing, or another file.
            Err(Errno::NOENT) => started()?,
            started => started?,
        };
        if truncate && caller.uid != 0 && base.version.is_some() {
            // It has the file's privileges still.
            caller.clears(&*shadow.file, || rustix::fs::ftruncate(&shadow.file, 0))?;
        }
        if let Some(file) = &beginning.dressed_as {
            shadow = self.store.dressed_as(shadow, file).map_err(|error| from_io(&error))?;
        }
        let (shadow, pin) = self.pinned(shadow)?;
        // Who opens the node at the same time finds this session known, or has the node open already.
        let _opening = beginning.node.map(|node| self.tree.opening(node));
        let identity = attr::identity(&rustix::fs::fstat(pin.fd())?, false);
        let Some(node) = self.free_node(target, &beginning, (identity, &pin)) else {
            let creates = base.creates;
            let names = beginning.node.map_or_else(Vec::new, |node| self.names(node));
            self.files
                .lock()
                .send_round(caller.tid, (file, names), Finds::Own(None), creates);
            self.store.drop_unwritten(shadow).map_err(|error| from_io(&error))?;
            return Err(Errno::STALE);
        };
        let asked = base
            .live
            .as_ref()
            .or(base.version.as_ref())
            .map_or(pin.fd(), File::as_fd);
        let rights = (caller.uid != 0).then(|| Rights::of(asked)).flatten();
        let number = base
            .version
            .as_ref()
            .and_then(|version| self.number_found(file, version));
        let mut staged = Staged::new(shadow, base.version.map(Arc::new), truncate, process);
        (staged.mark, staged.base_len) = (Some(base.mark), base.len);
        let about = About {
            id,
            node,
            process,
            caller: permission::of_process(caller, process),
            rights,
            who,
            how,
            policy: target.policy.clone(),
        };
        let session = Arc::new(Session::new(
            about,
            (target.name.clone(), file),
            Arc::clone(&pin),
            staged,
        ));
        // Known before the node shows its shadow: see [`Coordination::is_anothers`].
        self.files.lock().add_session(Arc::clone(&session));
        drop(making);
        if beginning.node.is_some() {
            if self.target_of(node).is_none() {
                // What it stood for has left for an ordinary name since it was taken from this one.
                self.tree.nodes.call_only(node, target.name.clone());
            }
            if let Some(number) = number {
                self.tree.nodes.stand_in(node, number);
            }
            self.tree.nodes.rebind(node, identity, Some(&pin));
            // A walk of another process may just have found the node. It must not be shown how the kernel sees it grow from now on.
            self.tree.attributes_changed(node);
        }
        Ok(session)
    }

    /// The number by which whoever is admitted to a file has found it: what is staged beside it is its own lineage's.
    fn number_found(&self, file: FileKey, version: &File) -> Option<NodeId> {
        if !self.tells_nodes() {
            return None;
        }
        let beside = self.files.lock().sessions(file).last().map(|own| own.about.node);
        let current = || {
            let stat = rustix::fs::fstat(version).ok()?;
            self.tree.nodes.find(attr::identity(&stat, false))
        };
        beside.or_else(current).map(|node| self.tree.nodes.number(node))
    }

    /// Opens what the name leads to now, which the caller must be allowed to.
    fn base(&self, target: &Target, beginning: &Beginning) -> Result<Base, Errno> {
        let caller = beginning.caller;
        let (found, mark, len) = self.base_of(target, beginning.truncate)?;
        let creates = match &found {
            Err(Errno::NOENT) if beginning.like.is_none() => beginning.creates.or_else(|| creator::asked(caller)),
            _ => beginning.creates,
        };
        let version = match found {
            Err(Errno::NOENT) if creates.is_some() || beginning.like.is_some() => None,
            found => Some(found?),
        };
        let live = self.live_behind_image(&target.name)?;
        match (&version, &live) {
            // It keeps its inode when its mode changes.
            (Some(_), Some(live)) => permission::check(caller, live, &beginning.let_in, beginning.wanted)?,
            (Some(version), None) => permission::check(caller, version, &beginning.let_in, beginning.wanted)?,
            // It was asked about a file that is gone.
            (None, _) if beginning.node.is_some() && creates.is_some() => {
                let into = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
                permission::check(caller, self.directory(target.name.parent)?, &LetIn::Unknown, into)?;
            }
            (None, _) => {}
        }
        // Otherwise who writes would hear of it when he closes.
        if let Some(file) = live.as_ref().or(version.as_ref())
            && !attr::restrictions(file)?.is_empty()
        {
            return Err(Errno::PERM);
        }
        Ok(Base {
            version,
            live,
            creates,
            mark,
            len,
        })
    }

    fn shadow(
        &self,
        target: &Target,
        beginning: &Beginning,
        base: &Base,
        who: &Who,
    ) -> Result<Shadow<RealDisk>, Errno> {
        let (id, path) = (beginning.id, self.path_of(&target.name)?);
        let dir = self.directory(target.name.parent)?;
        let created = match (&base.version, base.creates) {
            (None, Some(creation)) => {
                let unnamed = self.make_unnamed(beginning.caller, &dir, creation)?;
                self.store.adopt(id, &path, unnamed.into(), who.clone(), nanos_now())
            }
            (Some(version), _) => return self.shadow_of(target, id, (version, base.live.as_ref()), who),
            (None, None) => {
                let like = beginning.like.as_deref();
                self.store.begin(id, &path, like, who.clone(), None, nanos_now())
            }
        };
        created.map_err(|error| from_io(&error))
    }

    /// A shadow for what is made of a version; `live` is its inode where that is the image of a file that is written in place.
    fn shadow_of(
        &self,
        target: &Target,
        id: SessionId,
        (version, live): (&File, Option<&File>),
        who: &Who,
    ) -> Result<Shadow<RealDisk>, Errno> {
        let path = self.path_of(&target.name)?;
        let dir = self.directory(target.name.parent)?;
        let based_on = match live {
            Some(_) => self.store.version_at(&place(&dir, &target.name, &path)),
            None => self.store.version_of(&path, version),
        };
        let metadata = Some(live.unwrap_or(version));
        let shadow = based_on.and_then(|based_on| {
            self.store
                .begin(id, &path, metadata, who.clone(), based_on, nanos_now())
        });
        shadow.map_err(|error| from_io(&error))
    }

    /// What a session that has begun already can start from anew. EACCES: its opener might not read and write what the name leads to now.
    pub(super) fn fresh(&self, target: &Target, session: &Session) -> Result<(Fresh, Arc<Pin>), Errno> {
        let (found, mark, len) = self.base_of(target, false)?;
        let version = found?;
        let live = self.live_behind_image(&target.name)?;
        let metadata = live.as_ref().unwrap_or(&version);
        if !session
            .about
            .rights
            .as_ref()
            .is_some_and(|rights| rights.cover(metadata))
        {
            let wanted = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
            permission::check(session.about.caller, metadata, &LetIn::Unknown, wanted)?;
        }
        // The number of a shadow is its own: the journal has both for a moment.
        let id = self.files.lock().queue.number();
        let shadow = self.shadow_of(target, id, (&version, live.as_ref()), &session.about.who)?;
        let (shadow, pin) = self.pinned(shadow)?;
        let fresh = Fresh {
            shadow,
            version,
            mark,
            len,
        };
        Ok((fresh, pin))
    }

    /// The node that is to stand for the shadow; `None` when others have opened the one that was found.
    fn free_node(&self, target: &Target, beginning: &Beginning, shadow: (Identity, &Arc<Pin>)) -> Option<NodeId> {
        let nodes = &self.tree.nodes;
        if let Some(node) = beginning.node {
            return (beginning.own_node || !self.tree.is_open(node)).then_some(node);
        }
        let (identity, pin) = shadow;
        let node = nodes.intern(target.name.clone(), identity, fuser::FileType::RegularFile);
        nodes.set_open_pin(node, pin);
        Some(node)
    }

    /// A new file with no name yet, made in the directory where it will appear: so its owner, mode, set-group-id and default ACL are
    /// what any creation there gives (open(2), O_TMPFILE).
    fn make_unnamed(&self, caller: Caller, dir: &OwnedFd, creation: Creation) -> Result<OwnedFd, Errno> {
        let _caller = caller.assume(creation.mode, creation.umask)?;
        // Reading it for its hash is no access.
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::NOATIME | OFlags::CLOEXEC;
        rustix::fs::openat(dir, ".", flags, Mode::from_raw_mode(creation.mode & 0o7777))
    }

    /// The session in which a handle goes on that has outlived its own: one for all handles of that, which else would write over each other's. It may have ended as
    /// well by now.
    pub(super) fn continued(
        &self,
        ended: &Session,
        content: Arc<std::fs::File>,
        version: Option<Seen>,
    ) -> Result<Arc<Session>, Errno> {
        let mut continued = ended.continued.lock();
        if let Some(session) = &*continued {
            let _ = session.staged(|staged| {
                staged.handles += 1;
                Ok(())
            });
            return Ok(Arc::clone(session));
        }
        let session = self.continue_late(ended, content, version)?;
        *continued = Some(Arc::clone(&session));
        Ok(session)
    }

    /// A continuation of a session that was published while a descriptor lived on unseen: nothing that is written is lost.
    fn continue_late(
        &self,
        ended: &Session,
        content: Arc<std::fs::File>,
        version: Option<Seen>,
    ) -> Result<Arc<Session>, Errno> {
        let id = self.files.lock().queue.number();
        let (name, about) = (
            self.name_of(&content).unwrap_or_else(|| ended.name()),
            About {
                id,
                how: How::Late,
                ..ended.about.clone()
            },
        );
        let shadow = self
            .store
            .begin(
                id,
                &self.path_of(&name)?,
                Some(&content),
                about.who.clone(),
                version,
                nanos_now(),
            )
            .map_err(|error| from_io(&error))?;
        let (shadow, pin) = self.pinned(shadow)?;
        let (mark, base_len) = self.logs.of(&name).mark(&content)?;
        let mut staged = Staged::new(shadow, Some(content), false, about.process);
        (staged.mark, staged.base_len) = (Some(mark), base_len);
        // Whose handle this is was told of its close already.
        staged.unclosed = 0;
        // What is written to a file that was removed goes with it, as anywhere.
        staged.unlinked = matches!(self.stat(&name), Err(Errno::NOENT));
        let session = Arc::new(Session::new(about, (name, ended.file()), pin, staged));
        session.inherit(ended.heirs());
        self.files.lock().add_session(Arc::clone(&session));
        Ok(session)
    }

    /// The name that a version has now: it may have been renamed since it was published. `None`: it was replaced or removed.
    fn name_of(&self, version: &File) -> Option<Name> {
        let stat = rustix::fs::fstat(version).ok()?;
        let name = self.names_of(&stat, None, &[]).into_iter().next()?;
        match self.target(name.parent, &name.name) {
            Some(_) => Some(self.canonical(&name)),
            None => Some(name),
        }
    }

    /// A second descriptor of a shadow, which holds its inode. EMFILE: then there is no session, and the shadow goes.
    fn pinned(&self, shadow: Shadow<RealDisk>) -> Result<(Shadow<RealDisk>, Arc<Pin>), Errno> {
        let held = rustix::io::fcntl_dupfd_cloexec(&shadow.file, 3).and_then(descriptors::keep);
        match held.and_then(|fd| Ok((rustix::fs::fstat(&fd)?, fd))) {
            Ok((stat, fd)) => {
                self.tree.nodes.number_came_back(attr::identity(&stat, false));
                Ok((shadow, Arc::new(Pin::new(fd, Access::Both, None))))
            }
            Err(errno) => {
                // What cannot be removed now, the next start removes.
                let _ = self.store.drop_unwritten(shadow);
                Err(errno)
            }
        }
    }
}
