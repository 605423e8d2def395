//! Opening and creating coordinated files: from a node to a version, or to a session with its shadow.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::files::{Creation, Finds, Granted, InHand};
use super::handles::Writer;
use super::permission;
use super::session::{About, Session};
use super::staged::Staged;
use super::wait::Claim;
use super::{Answer, Coordination, Target, caller, creator, nanos_now, place};
use crate::mount::attr;
use crate::mount::descriptors;
use crate::mount::entry::Entry;
use crate::mount::errno::from_io;
use crate::mount::handles::Ordinary;
use crate::mount::nodes::{Identity, NodeId};
use crate::mount::pin::{Access, Pin};
use crate::mount::tree::Caller;
use crate::session::{FileKey, Intent, Opener, ProcId, SessionId};
use crate::store::record::How;
use crate::store::{RealDisk, Shadow};

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
    /// The node was made for this caller; another may only be had while nobody has it open.
    pub own_node: bool,
    /// What the kernel has checked the caller's permissions on, and what has to be checked if it turns out to be another inode.
    pub seen: Option<Identity>,
    pub wanted: rustix::fs::Access,
}

impl Coordination {
    /// Whether [`Coordination::open_reader`] copies and waits for nothing.
    pub fn is_read_at_once(&self, node: NodeId) -> bool {
        let session = self.files.lock().session_on(node).cloned();
        session.is_none_or(|session| session.is_quick())
    }

    /// open(2) for reading: the handle keeps the version that the node stands for. Waits unless [`Coordination::is_read_at_once`].
    ///
    /// # Errors
    /// ESTALE sends the caller round, once, when the node has become the shadow of somebody else's session since it was looked up.
    pub fn open_reader(&self, caller: Caller, node: NodeId, target: &Target) -> Result<Arc<Ordinary>, Errno> {
        let in_hand = InHand::take(&self.files, &target.name);
        let file = in_hand.key();
        let seen = self.tree.nodes.identity(node);
        // A stranger would not be known again.
        let arrived = self.arrived(caller, file, node).is_some() || caller.tid == 0;
        // One that is ending counts too: what it staged may be discarded.
        let shadow_of = || self.files.lock().session_on(node).cloned();
        let session = shadow_of();
        let is_own = session.is_some();
        let found = match session {
            None => self.open_version_node(caller, node),
            Some(session) => {
                let own = self
                    .nearest_shown(file, &caller::opener(caller))
                    .filter(|own| own.about.node == node);
                match own.map_or(Ok(false), |own| own.show(&self.store)) {
                    Ok(true) => Ok(Arc::new(Ordinary {
                        node,
                        pin: Arc::clone(&session.pin),
                    })),
                    Ok(false) => Err(Errno::STALE),
                    Err(errno) => Err(errno),
                }
            }
        };
        // A session may have taken the node while it was opened, before or after its pin was; it is known by now, or over.
        let is_shadow = |opened: &Ordinary| match (shadow_of(), self.tree.nodes.open_pin(node)) {
            (Some(session), _) => !is_own || !Arc::ptr_eq(&session.pin, &opened.pin),
            (None, pin) => !is_own && !pin.is_some_and(|pin| Arc::ptr_eq(&pin, &opened.pin)),
        };
        let found = match found {
            Ok(opened) if is_shadow(&opened) => {
                self.tree.close(opened);
                Err(Errno::STALE)
            }
            found => found,
        };
        if !matches!(found, Err(Errno::STALE)) {
            return found;
        }
        if !arrived {
            self.files.lock().send_round(caller.tid, file, Finds::Current, None);
            return Err(Errno::STALE);
        }
        self.open_overtaken(caller, node, target, seen)
    }

    /// A reader that was overtaken a second time, and the kernel walks again only once: the name leads to a version all the same. The kernel still has the
    /// size of the one before, and a mapping that was made by it would end in SIGBUS.
    fn open_overtaken(
        &self,
        caller: Caller,
        node: NodeId,
        target: &Target,
        seen: Option<Identity>,
    ) -> Result<Arc<Ordinary>, Errno> {
        let pin = {
            let _opening = self.tree.opening(node);
            let shadow = self.files.lock().session_on(node).cloned();
            match self.tree.nodes.open_pin(node) {
                Some(pin) if shadow.is_none() => pin,
                open => {
                    let pin = self.current_pin(&target.name)?;
                    match (&shadow, open) {
                        // What somebody stages is not for others.
                        (Some(session), _) => session.share_node(Some(Arc::clone(&pin))),
                        (None, _) => self.tree.nodes.set_open_pin(node, &pin),
                    }
                    self.tree.attributes_changed(node);
                    pin
                }
            }
        };
        permission::check(caller, pin.fd(), seen, rustix::fs::Access::READ_OK)?;
        Ok(Arc::new(Ordinary { node, pin }))
    }

    /// open(2) for writing, or with O_TRUNC: joins or begins a session, waiting for it if need be.
    ///
    /// Answers ESTALE to a thread that must wait, or whose node others have open: its next request is a LOOKUP, which gives it a node
    /// of its own (docs/ARCHITECTURE.md, "One node, one backing inode").
    pub fn open_writer(
        self: &Arc<Self>,
        caller: Caller,
        node: NodeId,
        target: Target,
        flags: OFlags,
        answer: Answer<Arc<Writer>>,
    ) {
        let truncate = flags.contains(OFlags::TRUNC);
        let in_hand = InHand::take(&self.files, &target.name);
        let key = in_hand.key();
        let seen = self.tree.nodes.identity(node);
        let reroute = self.arrived(caller, key, node);
        let opener = self.opener_for(caller, key);
        let nonblock = flags.contains(OFlags::NONBLOCK);
        // Who does not wait is refused on the node that it has.
        let refused = nonblock && self.nearest_of(key, &opener).is_none();
        let in_the_way = || reroute.is_none() && !refused && self.must_go_round(key, node, &opener, truncate);
        if !self.takes_over(node, in_the_way) {
            self.files.lock().send_round(caller.tid, key, Finds::Own(None), None);
            return answer(Err(Errno::STALE));
        }
        let process = opener.proc;
        let promised = || {
            let own = self.nearest_of(key, &opener).filter(|own| own.creates)?;
            let mode = rustix::fs::fstat(own.pin.fd()).ok()?.st_mode;
            Some(Creation { mode, umask: 0 })
        };
        // What its lineage is creating, the caller sees: its own open finds nothing else there either.
        let own_node = reroute.is_some();
        let creates = reroute.and_then(|reroute| reroute.creates).or_else(promised);
        let intent = if truncate { Intent::Truncate } else { Intent::Modify };
        let claim = Claim {
            file: key,
            caller,
            opener,
            intent,
            nonblock,
        };
        let append = flags.contains(OFlags::APPEND);
        let beginning = move |id| Beginning {
            id,
            file: key,
            node: Some(node),
            caller,
            process,
            how: How::Close,
            truncate,
            creates,
            own_node,
            seen,
            wanted: permission::wanted(flags),
        };
        self.admit(
            target,
            claim,
            beginning,
            Box::new(move |session| {
                answer(session.map(|session| Arc::new(Writer::new(session, append))));
            }),
        );
    }

    /// Asks the queue for a session, and begins or joins it.
    fn admit(
        self: &Arc<Self>,
        target: Target,
        claim: Claim,
        beginning: impl FnOnce(SessionId) -> Beginning + Send + 'static,
        answer: Answer<Arc<Session>>,
    ) {
        let this = Arc::clone(self);
        let again = Claim {
            intent: Intent::Truncate,
            opener: claim.opener.clone(),
            ..claim
        };
        let joined = target.clone();
        let resume = move |granted: Result<Granted, Errno>| match granted {
            Ok(Granted::New(id)) => answer(this.begin(&joined, beginning(id))),
            Ok(Granted::Join(id)) => {
                let session = this.files.lock().session(id).cloned();
                match session.as_ref().map(|session| session.join(again.opener.proc)) {
                    Some(Ok(())) => answer(session.ok_or(Errno::STALE)),
                    // It is just being published: what comes after begins with what it leaves.
                    _ => Arc::clone(&this.tree).workers.run(move || {
                        if let Some(session) = session {
                            // How it ended is told to those who closed it.
                            let _ = session.settle();
                        }
                        this.admit(joined, again, beginning, answer);
                    }),
                }
            }
            Err(errno) => answer(Err(errno)),
        };
        self.acquire(&target, claim, Box::new(resume));
    }

    /// Takes a node from its name, for a session, unless somebody is `in_the_way`. This comes before the queue admits it: whoever is told of the session must find
    /// the current version under another node.
    pub(super) fn takes_over(&self, node: NodeId, in_the_way: impl Fn() -> bool) -> bool {
        if in_the_way() {
            return false;
        }
        if self.files.lock().session_on(node).is_none() {
            self.tree.nodes.supersede(node, None);
        }
        // Who was sent round meanwhile may have found the node by the name still.
        !in_the_way()
    }

    /// Whether an open for writing cannot be served on the node that the thread found.
    fn must_go_round(&self, key: FileKey, node: NodeId, opener: &Opener, truncate: bool) -> bool {
        {
            let files = self.files.lock();
            if files.queue.is_idle(key) {
                return files.expects(key) || self.tree.nodes.open_pin(node).is_some();
            }
        }
        match self.nearest_of(key, opener) {
            Some(own) => truncate || own.about.node != node,
            None => true,
        }
    }

    /// open(2) with O_CREAT of a name that the caller found free: begins a session whose file appears at its close (W9).
    pub fn create(
        self: &Arc<Self>,
        caller: Caller,
        target: Target,
        creation: Creation,
        flags: OFlags,
        answer: Answer<(Entry, Arc<Writer>)>,
    ) {
        let in_hand = InHand::take(&self.files, &self.key_name(&target.name));
        let key = in_hand.key();
        let opener = self.opener_for(caller, key);
        let held = !self.files.lock().queue.is_idle(key);
        if held || self.stat(&target.name).is_ok() {
            if flags.contains(OFlags::EXCL) {
                return answer(Err(Errno::EXIST));
            }
            if held && flags.contains(OFlags::NONBLOCK) && self.nearest_of(key, &opener).is_none() {
                return answer(Err(Errno::WOULDBLOCK));
            }
            self.files
                .lock()
                .send_round(caller.tid, key, Finds::Own(None), Some(creation));
            return answer(Err(Errno::STALE));
        }
        let process = opener.proc;
        let claim = Claim {
            file: key,
            caller,
            opener,
            intent: Intent::Truncate,
            nonblock: true,
        };
        let this = Arc::clone(self);
        let created = target.clone();
        self.acquire(
            &target,
            claim,
            Box::new(move |granted| {
                answer(granted.and_then(|granted| {
                    let (Granted::New(id) | Granted::Join(id)) = granted;
                    let (how, creates) = (How::Close, Some(creation));
                    let beginning = Beginning {
                        id,
                        file: key,
                        node: None,
                        caller,
                        process,
                        how,
                        truncate: true,
                        creates,
                        own_node: true,
                        seen: None,
                        wanted: permission::wanted(flags),
                    };
                    let session = this.begin(&created, beginning)?;
                    let entry = Entry {
                        id: session.about.node,
                        stat: rustix::fs::fstat(session.pin.fd())?,
                        private: false,
                    };
                    Ok((entry, Arc::new(Writer::creating(session, flags))))
                }));
            }),
        );
    }

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
            node,
            caller,
            process,
            how,
            truncate,
            creates,
            own_node,
            seen,
            wanted,
        } = beginning;
        let path = self.path_of(&target.name)?;
        let dir = self.directory(target.name.parent)?;
        let who = self.descriptions.of(process, caller.uid);
        let (base, mark, base_len) = self.base_of(target, truncate)?;
        let creates = match &base {
            Err(Errno::NOENT) => creates.or_else(|| creator::asked(caller)),
            _ => creates,
        };
        let base = match base {
            Err(Errno::NOENT) if creates.is_some() => None,
            opened => Some(opened?),
        };
        // Of a file that is written in place the inode has the metadata, not the image.
        let live = match self.image_at(&target.name) {
            Some(_) => Some(self.live_of(&target.name)?),
            None => None,
        };
        if let Some(base) = &base {
            let is_seen = seen == Some(attr::identity(&rustix::fs::fstat(base)?, false));
            let asked = live.as_ref().filter(|_| !is_seen).unwrap_or(base);
            permission::check(caller, asked, seen, wanted)?;
        }
        let shadow = match (&base, creates) {
            (None, Some(creation)) => {
                let unnamed = self.make_unnamed(caller, &dir, creation)?;
                self.store.adopt(id, &path, unnamed.into(), who.clone(), nanos_now())
            }
            _ => {
                let version = match &base {
                    Some(_) if live.is_some() => self
                        .store
                        .version_at(&place(&dir, &target.name, &path))
                        .map_err(|error| from_io(&error))?,
                    Some(base) => self.store.version_of(&path, base).map_err(|error| from_io(&error))?,
                    None => None,
                };
                self.store.begin(
                    id,
                    &path,
                    live.as_ref().or(base.as_ref()),
                    who.clone(),
                    version,
                    nanos_now(),
                )
            }
        }
        .map_err(|error| from_io(&error))?;
        let (shadow, pin) = self.pinned(shadow)?;
        let identity = attr::identity(&rustix::fs::fstat(&shadow.file)?, false);
        // Who opens the node at the same time finds this session known, or has the node open already.
        let _opening = node.map(|node| self.tree.opening(node));
        let node = match node {
            Some(node) if !own_node && self.tree.nodes.open_pin(node).is_some() => {
                self.files
                    .lock()
                    .send_round(caller.tid, file, Finds::Own(None), creates);
                self.store.drop_unwritten(shadow).map_err(|error| from_io(&error))?;
                return Err(Errno::STALE);
            }
            Some(node) => {
                self.tree.nodes.rebind(node, identity, Some(&pin));
                node
            }
            None => {
                let node = self
                    .tree
                    .nodes
                    .intern(target.name.clone(), identity, fuser::FileType::RegularFile);
                self.tree.nodes.set_open_pin(node, &pin);
                node
            }
        };
        let mut staged = Staged::new(shadow, base.map(Arc::new), truncate, process);
        (staged.mark, staged.base_len) = (Some(mark), base_len);
        let about = About {
            id,
            file,
            node,
            process,
            caller: permission::of_process(caller, process),
            who,
            how,
            policy: target.policy.clone(),
        };
        let session = Arc::new(Session::new(about, target.name.clone(), pin, staged));
        self.files.lock().add_session(Arc::clone(&session));
        Ok(session)
    }

    /// A new file with no name yet, made in the directory where it will appear: so its owner, mode, set-group-id and default ACL are
    /// what any creation there gives (open(2), O_TMPFILE).
    fn make_unnamed(&self, caller: Caller, dir: &OwnedFd, creation: Creation) -> Result<OwnedFd, Errno> {
        let _caller = caller.assume(creation.mode, creation.umask)?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::openat(dir, ".", flags, Mode::from_raw_mode(creation.mode & 0o7777))
    }

    /// A continuation of a session that was published while a descriptor lived on unseen: nothing that is written is lost.
    pub(super) fn continue_late(
        &self,
        ended: &Session,
        content: Arc<std::fs::File>,
        version: Option<u64>,
    ) -> Result<Arc<Session>, Errno> {
        let id = self.files.lock().queue.number();
        let (name, about) = (
            ended.name(),
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
        let session = Arc::new(Session::new(about, name, pin, staged));
        session.inherit(ended.heirs());
        self.files.lock().add_session(Arc::clone(&session));
        Ok(session)
    }

    /// A second descriptor of a shadow, which holds its inode. EMFILE: then there is no session, and the shadow goes.
    fn pinned(&self, shadow: Shadow<RealDisk>) -> Result<(Shadow<RealDisk>, Arc<Pin>), Errno> {
        match rustix::io::fcntl_dupfd_cloexec(&shadow.file, 3).and_then(descriptors::keep) {
            Ok(fd) => Ok((shadow, Arc::new(Pin::new(fd, Access::Both, None)))),
            Err(errno) => {
                // What cannot be removed now, the next start removes.
                let _ = self.store.drop_unwritten(shadow);
                Err(errno)
            }
        }
    }
}

/// The current version of a name, open for reading.
pub(super) fn open_version(dir: &OwnedFd, name: &std::ffi::OsStr) -> Result<std::fs::File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::STALE);
    }
    Ok(fd.into())
}
