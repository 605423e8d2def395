//! Opening and creating coordinated files: from a node to a version, or to a place in the queue.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Access, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::begin::Beginning;
use super::files::{Creation, Finds, Granted, InHand};
use super::handles::Writer;
use super::permission::{self, LetIn, Rights};
use super::session::{Life, Session};
use super::wait::Claim;
use super::{Answer, Coordination, Target, caller};
use crate::mount::entry::Entry;
use crate::mount::handles::Ordinary;
use crate::mount::nodes::{Identity, Name, NodeId};
use crate::mount::pin::{self, Pin};
use crate::mount::tree::Caller;
use crate::session::{FileKey, Intent, Opener, SessionId};
use crate::store::record::How;

/// By what way a thread has come that opens a file for writing, and what for.
#[derive(Debug, Clone)]
struct Came {
    /// A node that it has to itself, which has the name that it came by.
    own: Option<NodeId>,
    /// What the kernel has checked its permissions on, as long as it has not waited since.
    seen: Option<Identity>,
    /// Those of the same then.
    rights: Option<Rights>,
    /// What it must be allowed to do.
    wanted: Access,
}

impl Came {
    fn let_in(&self, waited: bool) -> LetIn {
        LetIn::since(self.seen, self.rights.clone(), waited)
    }
}

/// How soon it is worth asking again for a session that another thread of its lineage is just beginning.
pub(super) const NOT_BEGUN: Duration = Duration::from_millis(1);

impl Coordination {
    /// Whether [`Coordination::open_reader`] copies and waits for nothing.
    pub fn is_read_at_once(&self, node: NodeId) -> bool {
        let session = self.files.lock().session_on(node).cloned();
        session.is_none_or(|session| session.is_quick())
    }

    /// open(2) for reading: the handle keeps the version that the node stands for. Waits unless [`Coordination::is_read_at_once`]. Who is sent round `finds` what it
    /// then opens.
    ///
    /// # Errors
    /// ESTALE sends the caller round, once, when the node has become the shadow of somebody else's session since it was looked up.
    pub fn open_reader(
        &self,
        caller: Caller,
        node: NodeId,
        target: &Target,
        finds: Finds,
    ) -> Result<Arc<Ordinary>, Errno> {
        let in_hand = InHand::take(&self.files, &target.name);
        let file = in_hand.key();
        let seen = self.tree.nodes.identity(node);
        // A stranger would not be known again. Until the node is open, nobody may take it over: that ends with `arrived`.
        let is_back = caller.tid == 0 || self.files.lock().is_back(caller.tid, file, node);
        // By a kept entry it may come to what somebody is about to take over.
        let leads_astray = || (caller.tid == 0 || !is_back) && self.tree.nodes.is_left_behind(node);
        // One that is ending counts too: what it staged may be discarded.
        let shadow_of = || self.files.lock().session_on(node).cloned();
        let session = shadow_of();
        let is_own = session.is_some();
        let found = match session {
            None if leads_astray() => Err(Errno::STALE),
            None => self.open_version_node(caller, node),
            Some(session) => {
                let own = self
                    .nearest_shown(file, &caller::opener(caller))
                    .filter(|own| own.about.node == node);
                let shown = match &own {
                    // Another session of its lineage may be on the node besides.
                    Some(own) => own.show(&self.store),
                    // Its end is not over yet, but what it staged is everybody's.
                    None if self.is_committed(&session) => {
                        let pin = session.pin();
                        self.reads_directly(&pin).map(|directly| directly.then_some(pin))
                    }
                    None => Ok(None),
                };
                match shown {
                    Ok(Some(pin)) => Ok(Arc::new(Ordinary {
                        node,
                        pin,
                        access: pin::Access::Read,
                    })),
                    Ok(None) => Err(Errno::STALE),
                    Err(errno) => Err(errno),
                }
            }
        };
        // A session may have taken the node while it was opened, before or after its pin was; it is known by now, or over.
        let is_shadow = |opened: &Ordinary| {
            let is_it = |pin: &Arc<Pin>| Arc::ptr_eq(pin, &opened.pin);
            let sessions = self.files.lock().sessions_on(node);
            match (sessions.is_empty(), self.tree.nodes.open_pin(node)) {
                (false, _) => !is_own || !sessions.iter().any(|session| is_it(&session.pin())),
                (true, pin) => !is_own && (leads_astray() || !pin.as_ref().is_some_and(is_it)),
            }
        };
        let found = match found {
            Ok(opened) if is_shadow(&opened) => {
                self.tree.close(opened);
                Err(Errno::STALE)
            }
            found => found,
        };
        if !is_back && matches!(found, Err(Errno::STALE)) {
            self.arrived(caller, file, node);
            self.go_round(caller, (file, node), finds);
            return found;
        }
        let opened = match found {
            Err(Errno::STALE) => self.open_overtaken(caller, node, target, seen),
            found => found,
        };
        self.arrived(caller, file, node);
        opened
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
        self.check_version(caller, (&target.name, pin.fd()), seen, Access::READ_OK)?;
        Ok(Arc::new(Ordinary {
            node,
            pin,
            access: pin::Access::Read,
        }))
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
        let reroute = self.arrived_on_own(caller, key, node);
        let opener = self.opener_for(caller, key);
        let nonblock = flags.contains(OFlags::NONBLOCK);
        // Who does not wait is refused on the node that it has.
        let refused = nonblock && self.nearest_of(key, &opener).is_none();
        let in_the_way = || reroute.is_none() && !refused && self.must_go_round(key, node, &opener, truncate);
        if !self.takes_over(node, reroute.is_some(), in_the_way) {
            self.go_round(caller, (key, node), Finds::Own(None));
            return answer(Err(Errno::STALE));
        }
        if reroute.is_none() && !refused && self.has_entry_renewed(caller, key, node) {
            return answer(Err(Errno::STALE));
        }
        let process = opener.proc;
        let promised = || {
            let own = self.nearest_of(key, &opener).filter(|own| own.creates())?;
            let mode = rustix::fs::fstat(own.pin().fd()).ok()?.st_mode;
            Some(Creation { mode, umask: 0 })
        };
        // What its lineage is creating, the caller sees: its own open finds nothing else there either.
        let own_node = reroute.is_some();
        let creates = reroute.and_then(|reroute| reroute.creates).or_else(promised);
        let own = self.nearest_of(key, &opener).filter(|_| truncate);
        let dressed_as = own.and_then(|own| own.touched());
        let intent = if truncate { Intent::Truncate } else { Intent::Modify };
        let claim = Claim {
            file: key,
            caller,
            opener,
            intent,
            nonblock,
        };
        let wanted = permission::wanted(flags);
        let came = Came {
            own: own_node.then_some(node),
            seen,
            rights: self.rights_before(caller, key, (&target.name, seen), own_node),
            wanted,
        };
        let beginning = move |id, file| Beginning {
            id,
            file,
            node: Some(node),
            caller,
            process,
            how: How::Close,
            truncate,
            creates,
            like: None,
            dressed_as: dressed_as.clone(),
            own_node,
            let_in: LetIn::Unknown,
            wanted,
        };
        let (this, name) = (Arc::clone(self), target.name.clone());
        self.admit(
            target,
            claim,
            came,
            beginning,
            Box::new(move |session| {
                answer(session.map(|session| {
                    let pin = (session.about.node != node).then(|| {
                        this.tree
                            .nodes
                            .stand_in(node, this.tree.nodes.number(session.about.node));
                        this.occupy(node, &name)
                    });
                    Arc::new(Writer::new(node, session).elsewhere(pin.flatten()))
                }));
            }),
        );
    }

    /// A node is open from now on, though nothing is read or written by it.
    fn occupy(&self, node: NodeId, name: &Name) -> Option<Arc<Pin>> {
        let _opening = self.tree.opening(node);
        self.tree.nodes.open_pin(node).or_else(|| {
            let pin = self.current_pin(name).ok()?;
            self.tree.nodes.set_open_pin(node, &pin);
            Some(pin)
        })
    }

    /// Asks the queue for a session, and begins or joins it.
    fn admit(
        self: &Arc<Self>,
        target: Target,
        claim: Claim,
        came: Came,
        beginning: impl Fn(SessionId, FileKey) -> Beginning + Send + 'static,
        answer: Answer<Arc<Session>>,
    ) {
        let this = Arc::clone(self);
        let again = Claim {
            opener: claim.opener.clone(),
            ..claim
        };
        let joined = target.clone();
        let resume = move |granted: Result<Granted, Errno>| match granted {
            Ok(Granted {
                id,
                joins: false,
                waited,
            }) => match came.own.and_then(|node| this.led_elsewhere(node, &joined)) {
                None => {
                    let beginning_now = Beginning {
                        let_in: came.let_in(waited),
                        ..beginning(id, again.file)
                    };
                    match (this.begin(&joined, beginning_now), came.own) {
                        // Its own lineage, which it does not wait for, has removed the name just now.
                        (Err(Errno::NOENT), Some(node)) if let Some(target) = this.led_elsewhere(node, &joined) => {
                            Arc::clone(&this.tree)
                                .workers
                                .run(move || this.admit_anew(target, again, came, beginning, answer));
                        }
                        (begun, _) => answer(begun),
                    }
                }
                Some(target) => Arc::clone(&this.tree).workers.run(move || {
                    this.release(id, again.file);
                    this.admit_anew(target, again, came, beginning, answer);
                }),
            },
            Ok(Granted { id, waited, .. }) => {
                let session = this.files.lock().session(id).cloned();
                let let_in = came.let_in(waited);
                // Of who has not waited the kernel knows that this very session is what he finds.
                if let (LetIn::Unknown | LetIn::Before(_), Some(session)) = (&let_in, &session)
                    && let Err(errno) = permission::check(again.caller, session.pin().fd(), &let_in, came.wanted)
                {
                    return answer(Err(errno));
                }
                match session.as_ref().map(|session| session.join(again.opener.proc)) {
                    Some(Ok(())) => answer(session.ok_or(Errno::STALE)),
                    _ => Arc::clone(&this.tree).workers.run(move || {
                        // How one ended that is just being published is told to those who closed it. What comes after begins with what it leaves.
                        let intent = match session.map(|session| session.settle()) {
                            // Its name was removed, and means another file now.
                            Some(Ok(Life::Open)) => Intent::Truncate,
                            Some(_) => again.intent,
                            // The thread that it was granted to has not begun it yet.
                            None => {
                                std::thread::sleep(NOT_BEGUN);
                                again.intent
                            }
                        };
                        this.admit_anew(joined, Claim { intent, ..again }, came, beginning, answer);
                    }),
                }
            }
            Err(errno) => answer(Err(errno)),
        };
        self.acquire(&target, claim, Box::new(resume));
    }

    /// [`Coordination::admit`] for who has waited: nobody had the old key in hand, and whoever came meanwhile may have given the name another.
    fn admit_anew(
        self: &Arc<Self>,
        target: Target,
        claim: Claim,
        came: Came,
        beginning: impl Fn(SessionId, FileKey) -> Beginning + Send + 'static,
        answer: Answer<Arc<Session>>,
    ) {
        let in_hand = InHand::take(&self.files, &target.name);
        let file = in_hand.key();
        let came = Came { seen: None, ..came };
        self.admit(target, Claim { file, ..claim }, came, beginning, answer);
    }

    /// The file of a node that a thread has to itself, where that is not `awaited` any more: the name that stood for all of a file's (W11) was removed or given to another
    /// file while the thread waited, and it came by one that was not.
    pub(super) fn led_elsewhere(&self, node: NodeId, awaited: &Target) -> Option<Target> {
        self.target_of(node).filter(|now| now.name != awaited.name)
    }

    /// Takes a node from its name, for a session, unless somebody is `in_the_way`. This comes before the queue admits it: whoever is told of the session must find
    /// the current version under another node. `is_back`: it has the node to itself already.
    pub(super) fn takes_over(&self, node: NodeId, is_back: bool, in_the_way: impl Fn() -> bool) -> bool {
        if in_the_way() {
            return false;
        }
        let is_free = self.files.lock().session_on(node).is_none();
        if is_free && !self.tree.overtaken(node, None) && !is_back && self.tree.nodes.is_kept(node) {
            // Somebody else has it to himself.
            return false;
        }
        // Who was sent round meanwhile may have found the node by the name still.
        !in_the_way()
    }

    /// Whether an open for writing cannot be served on the node that the thread found.
    fn must_go_round(&self, key: FileKey, node: NodeId, opener: &Opener, truncate: bool) -> bool {
        {
            let files = self.files.lock();
            if files.queue.is_idle(key) {
                return files.expects(key) || self.tree.is_open(node);
            }
        }
        match self.nearest_of(key, opener) {
            Some(own) => truncate || own.about.node != node,
            None => true,
        }
    }

    /// Whether a lineage has a file open whose name was removed, or given to another file, and nobody is creating a new one.
    fn has_lost_name(&self, key: FileKey, opener: &Opener) -> bool {
        let is_created = self.files.lock().sessions(key).iter().any(|session| session.creates());
        !is_created && self.nearest_of(key, opener).is_some_and(|own| own.shown().is_none())
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
        let exclusive = flags.contains(OFlags::EXCL);
        // Who creates without O_EXCL is sent round to what its lineage has open, too.
        let in_use = !self.files.lock().queue.is_idle(key);
        let held = in_use && !(exclusive && self.has_lost_name(key, &opener));
        if held || self.stat(&target.name).is_ok() {
            if exclusive {
                return answer(Err(Errno::EXIST));
            }
            if held && flags.contains(OFlags::NONBLOCK) && self.nearest_of(key, &opener).is_none() {
                return answer(Err(Errno::WOULDBLOCK));
            }
            let to = (key, vec![target.name]);
            self.files
                .lock()
                .send_round(caller.tid, to, Finds::Own(None), Some(creation));
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
                let taken = granted.map_err(|errno| match errno {
                    // By somebody else, since it was looked at.
                    Errno::WOULDBLOCK if exclusive => Errno::EXIST,
                    Errno::WOULDBLOCK if !flags.contains(OFlags::NONBLOCK) => {
                        let mut files = this.files.lock();
                        let to = (key, vec![created.name.clone()]);
                        files.send_round(caller.tid, to, Finds::Own(None), Some(creation));
                        Errno::STALE
                    }
                    errno => errno,
                });
                answer(taken.and_then(|granted| {
                    let Granted { id, .. } = granted;
                    if this.stat(&created.name).is_ok() {
                        // Another creator came and went since it was looked at.
                        if !exclusive {
                            let mut files = this.files.lock();
                            let to = (key, vec![created.name.clone()]);
                            files.send_round(caller.tid, to, Finds::Own(None), Some(creation));
                        }
                        this.release(id, key);
                        return Err(if exclusive { Errno::EXIST } else { Errno::STALE });
                    }
                    let (how, creates) = (How::Close, Some(creation));
                    let beginning = Beginning {
                        id,
                        file: key,
                        node: None,
                        caller,
                        process,
                        how,
                        truncate: flags.contains(OFlags::TRUNC),
                        creates,
                        like: None,
                        dressed_as: None,
                        own_node: true,
                        let_in: LetIn::Unknown,
                        wanted: permission::wanted(flags),
                    };
                    let session = this.begin(&created, beginning)?;
                    let entry = Entry {
                        id: session.about.node,
                        stat: rustix::fs::fstat(session.pin().fd())?,
                        private: false,
                    };
                    Ok((entry, Arc::new(Writer::creating(session, flags))))
                }));
            }),
        );
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
