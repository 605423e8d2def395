//! What others are shown of a session's node (R4). A walk leads them past it, to the current version's. But between a walk and the question for the attributes of
//! what it found, a session may take that very node over. The kernel then asks for the shadow's attributes in their name, and walks again, once, if it is told
//! that there are none (`retry_estale` in vfs_statx).

use rustix::fs::Stat;
use rustix::io::Errno;

use super::files::{Finds, InHand};
use super::session::Session;
use super::{Coordination, caller};
use crate::mount::attr;
use crate::mount::nodes::NodeId;
use crate::mount::tree::Caller;
use crate::os::syscall;

/// What a caller is shown of a node.
pub enum Shown {
    /// A session's shadow, or what goes for it.
    Stat(Stat),
    /// Nothing yet: it stands for what somebody stages who is no ancestor of the caller, or for a version that its name does not lead to any more.
    Anothers,
    /// What any node shows.
    Version,
}

impl Coordination {
    /// What stat(2) shows of a node, as far as a session on it decides.
    pub fn shown(&self, caller: Caller, node: NodeId) -> Shown {
        let Some(session) = self.files.lock().session_on(node).cloned() else {
            return match self.tree.nodes.is_left_behind(node) {
                true => Shown::Anothers,
                false => Shown::Version,
            };
        };
        if session.shared().is_none() && !is_of_lineage(caller, &session) && !self.is_committed(&session) {
            return Shown::Anothers;
        }
        self.stat_on(caller, &session).map_or(Shown::Version, Shown::Stat)
    }

    /// fstat(2) of a node that stands for a session's shadow, whoever asks; `None` for all others.
    pub fn stat_of_session(&self, caller: Caller, node: NodeId) -> Option<Stat> {
        let session = self.files.lock().session_on(node).cloned()?;
        self.stat_on(caller, &session)
    }

    fn stat_on(&self, caller: Caller, session: &Session) -> Option<Stat> {
        let is_own = || is_of_lineage(caller, session);
        if let Some(pin) = session.shared()
            && !is_own()
        {
            return rustix::fs::fstat(pin.fd()).ok();
        }
        // It has just ended, and its node is the version's by now, or that of another session which began on it again after a lock.
        let (node, shadow) = (session.about.node, rustix::fs::fstat(session.pin().fd()).ok()?);
        if self.tree.nodes.identity(node) != Some(attr::identity(&shadow, false)) && !is_own() {
            return self.stat_of_name(caller, node).ok();
        }
        session.stat().ok()
    }

    /// Whether a thread asks for, or changes, attributes of what a path leads to. `false`: it has a descriptor, or nobody can tell. Only for worker threads, unless
    /// the thread is known not to be in execve(2).
    pub fn walks_again(&self, caller: Caller) -> bool {
        caller.tid != 0 && syscall::is_of_path(caller.tid)
    }

    /// A thread that came by a path to a session's node, or to one that its name does not lead to any more, will be answered ESTALE. `false`: it is neither.
    pub fn send_round(&self, caller: Caller, node: NodeId) -> bool {
        let name = self
            .tree
            .nodes
            .info(node)
            .and_then(|info| info.names.into_iter().next());
        let left_behind = self.tree.nodes.is_left_behind(node);
        let name = name.filter(|_| left_behind).map(|name| self.key_name(&name));
        let in_hand = name.map(|name| InHand::take(&self.files, &name));
        let mut files = self.files.lock();
        let of_session = files.session_on(node).map(|session| session.file());
        let file = of_session.or(in_hand.as_ref().map(InHand::key));
        if let Some(file) = file {
            // It opens nothing: by what name it comes is of no account.
            files.send_round(caller.tid, (file, Vec::new()), Finds::Attributes, None);
        }
        drop(files);
        file.is_some()
    }

    /// Whether a call by a path came to a node by an entry that the kernel has kept, and its name leads to another by now: it must walk again.
    pub fn is_astray(&self, caller: Caller, node: NodeId) -> bool {
        if self.has_been_round(caller, node) {
            self.end_round(caller);
            return false;
        }
        self.tree.nodes.is_left_behind(node) && self.walks_again(caller) && self.send_round(caller, node)
    }

    /// Whether the thread is on its way back from there. The kernel must ask for the attributes of what it finds, so that we learn of its arrival.
    pub fn is_to_be_shown(&self, caller: Caller) -> bool {
        self.files.lock().is_to_be_shown(caller.tid)
    }

    /// Whether the thread has come back from there, with this question: it is answered as it is, and no session takes the node over until [`Coordination::end_round`].
    /// A stat(2) by way of /proc/PID/fd comes to the same node again.
    pub fn has_been_round(&self, caller: Caller, node: NodeId) -> bool {
        // On its way it may have to ask for a directory's permissions.
        self.is_to_be_shown(caller) && self.tree.nodes.is_regular(node)
    }

    /// The thread that was sent round has its answer.
    pub fn end_round(&self, caller: Caller) {
        self.files.lock().take_shown(caller.tid);
    }

    /// Whether a session is on the node: the kernel must remember nothing of it.
    pub fn is_shadow(&self, node: NodeId) -> bool {
        self.files.lock().session_on(node).is_some()
    }

    /// Whether the session's shadow is the current version by now, though the session may not be over yet: it is there for everybody.
    pub(super) fn is_committed(&self, session: &Session) -> bool {
        let identity = |stat: Result<Stat, Errno>| stat.map(|stat| attr::identity(&stat, false)).ok();
        let shadow = identity(rustix::fs::fstat(session.pin().fd()));
        shadow.is_some() && shadow == identity(self.stat(&session.name()))
    }
}

/// Whether a caller or one of its ancestors holds a session.
pub(super) fn is_of_lineage(caller: Caller, session: &Session) -> bool {
    if caller.tid != 0 && caller.tid == session.about.process.tgid {
        return true;
    }
    let opener = caller::opener(caller);
    let mut lineage = std::iter::once(&opener.proc).chain(&opener.ancestors);
    lineage.any(|process| session.is_held_by(process))
}
