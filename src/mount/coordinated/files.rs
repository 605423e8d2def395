//! What is known of the coordinated files that somebody writes or waits for: one table, one lock.

mod reroutes;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::Errno;

use super::session::Session;
use crate::mount::nodes::{Name, NodeId};
use crate::os::signals::EndsBy;
use crate::session::{FileKey, Millis, Queue, Refusal, SessionId, Ticket, Wake};
use reroutes::Way;
pub use reroutes::{Creation, Finds, Reroute};

/// What a waiting request does when its wait ends.
pub type Continue = Box<dyn FnOnce(Result<Granted, Errno>) + Send>;

/// How a request was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// To which session.
    pub id: SessionId,
    /// By one more handle on the shadow of one that is there; otherwise it is a new one, the only one or one of the lineage's.
    pub joins: bool,
    /// It had to wait: what the kernel has said about permissions it said before.
    pub waited: bool,
}

/// What becomes of a request that the queue refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It fails, which is counted: open(2), a write ...
    Access,
    /// The same of what no signal ends elsewhere unless it ends the process: rename(2), unlink(2), link(2), truncate(2) ...
    Change,
    /// The same, while the kernel has a directory locked: others may need that who are in its way.
    Directory,
    /// A lock that is had already waits on, or was asked for with LOCK_NB, which is often done in a loop: EBUSY and EWOULDBLOCK are not counted.
    Lock,
}

impl Need {
    /// What ends its wait. EINTR for a signal that is caught, as W2 has it, where programs know it from elsewhere; the others take it for a failure, also where
    /// the handler was set with SA_RESTART: FUSE cannot have a call begun again.
    pub fn ends_by(self) -> EndsBy {
        match self {
            Need::Access | Need::Lock => EndsBy::AnySignal,
            Need::Change | Need::Directory => EndsBy::Fatal,
        }
    }
}

/// A request that waits in the queue.
pub struct Waiting {
    /// The thread in open(2), rename(2) …; 0 when unknown.
    pub tid: u32,
    /// What it waits for.
    pub file: FileKey,
    /// What for.
    pub need: Need,
    /// What happens then.
    pub resume: Continue,
}

/// The key of a logical file, in the hands of a request: as long as it lives, the file's name has no other key.
pub struct InHand<'a> {
    files: &'a Mutex<Files>,
    key: FileKey,
}

impl<'a> InHand<'a> {
    /// Takes up the key of a name.
    pub fn take(files: &'a Mutex<Files>, name: &Name) -> InHand<'a> {
        InHand {
            files,
            key: files.lock().take_up(name),
        }
    }

    /// The key.
    pub fn key(&self) -> FileKey {
        self.key
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.files.lock().put_down(self.key);
    }
}

/// A file is about to be made in a directory: the directory is not empty from now on, until this is dropped. By then a session says the same, or nothing was made.
pub struct Making<'a> {
    files: &'a Mutex<Files>,
    directory: NodeId,
}

impl<'a> Making<'a> {
    /// Who begins this looks afterwards whether the directory is there.
    pub fn begin(files: &'a Mutex<Files>, directory: NodeId) -> Making<'a> {
        files.lock().making.push(directory);
        Making { files, directory }
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let mut files = self.files.lock();
        if let Some(at) = files.making.iter().position(|other| *other == self.directory) {
            files.making.swap_remove(at);
        }
    }
}

/// A logical file that is in use.
#[derive(Debug)]
struct InUse {
    name: Name,
    /// Requests that have its key in hand.
    users: usize,
    sessions: Vec<Arc<Session>>,
}

/// The table. Its lock comes before the node table's and is never held while a session's lock is taken, because that may take as long as
/// the disk. Nothing that waits happens under it.
pub struct Files {
    /// Who may write, who waits.
    pub queue: Queue,
    /// The waiting requests, by ticket.
    pub waiting: HashMap<Ticket, Waiting>,
    /// Grows with each session that ends; see [`Coordination::has_other_names`](super::Coordination).
    pub ended: u64,
    keys: HashMap<Name, FileKey>,
    in_use: HashMap<FileKey, InUse>,
    reroutes: HashMap<Way, Reroute>,
    /// Strangers that were sent round lately. They cannot be told from others that come after, so none is crossed out when one arrives.
    strangers: Vec<Reroute>,
    late: Vec<Arc<Session>>,
    /// See [`Making`].
    making: Vec<NodeId>,
    next_key: u64,
    next_ticket: u64,
}

impl Files {
    /// An empty table whose sessions are numbered from `first` on.
    pub fn new(first: SessionId) -> Files {
        Files {
            queue: Queue::new(first),
            waiting: HashMap::new(),
            ended: 0,
            keys: HashMap::new(),
            in_use: HashMap::new(),
            reroutes: HashMap::new(),
            strangers: Vec::new(),
            late: Vec::new(),
            making: Vec::new(),
            next_key: 1,
            next_ticket: 1,
        }
    }

    /// The key of a name, if it is in use.
    pub fn key_of(&self, name: &Name) -> Option<FileKey> {
        self.keys.get(name).copied()
    }

    /// The key of a name, in hand until [`Files::put_down`].
    fn take_up(&mut self, name: &Name) -> FileKey {
        let key = self.key_of(name).unwrap_or_else(|| {
            let key = FileKey(self.next_key);
            self.next_key += 1;
            self.keys.insert(name.clone(), key);
            self.in_use.insert(
                key,
                InUse {
                    name: name.clone(),
                    users: 0,
                    sessions: Vec::new(),
                },
            );
            key
        });
        if let Some(file) = self.in_use.get_mut(&key) {
            file.users += 1;
        }
        key
    }

    fn put_down(&mut self, key: FileKey) {
        if let Some(file) = self.in_use.get_mut(&key) {
            file.users -= 1;
        }
        self.settle(key);
    }

    /// A wait is over; returns what goes on now. `None`: it has gone on already.
    pub fn end_wait(&mut self, ticket: Ticket) -> Option<Waiting> {
        let waiting = self.waiting.remove(&ticket)?;
        self.settle(waiting.file);
        Some(waiting)
    }

    /// A signal ends a wait; returns what goes on now, and who else does. `None`: the queue has ended it already, and may have given the file to whoever
    /// waited. That wake is on its way, and it alone is the answer.
    pub fn interrupt(&mut self, now: Millis, ticket: Ticket) -> Option<(Waiting, Vec<Wake>)> {
        if !self.queue.is_waiting(ticket) {
            return None;
        }
        let wakes = self.queue.cancel(now, ticket);
        self.end_wait(ticket).map(|waiting| (waiting, wakes))
    }

    /// A number for a waiting request.
    pub fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// A session has a shadow and a node from now on.
    pub fn add_session(&mut self, session: Arc<Session>) {
        if session.is_late() {
            self.late.push(session);
        } else if let Some(file) = self.in_use.get_mut(&session.file()) {
            file.sessions.push(session);
        }
    }

    /// A session is over.
    pub fn remove_session(&mut self, session: &Session) {
        self.late.retain(|other| other.about.id != session.about.id);
        if let Some(file) = self.in_use.get_mut(&session.file()) {
            file.sessions.retain(|other| other.about.id != session.about.id);
        }
    }

    /// The sessions of a file go on as those of the file that `to` stands for: `from` does not lead there any more, and it has other names. Returns them, and what
    /// that changes for those who wait. Where somebody has that already, all stays as it is.
    pub fn move_sessions(&mut self, now: Millis, from: &Name, to: &Name) -> (Vec<Arc<Session>>, Vec<Wake>) {
        let Some(left) = self.key_of(from) else {
            return Default::default();
        };
        let moving = self.sessions(left).to_vec();
        let ids: Vec<SessionId> = moving.iter().map(|session| session.about.id).collect();
        let key = self.take_up(to);
        let moved = self.queue.move_sessions(now, &ids, key).map(|wakes| {
            for session in &moving {
                session.set_file(key);
                session.set_name(to.clone());
            }
            if let Some(file) = self.in_use.get_mut(&left) {
                file.sessions.clear();
            }
            if let Some(file) = self.in_use.get_mut(&key) {
                file.sessions.extend(moving.iter().cloned());
            }
            (moving, wakes)
        });
        self.put_down(key);
        self.settle(left);
        moved.unwrap_or_default()
    }

    /// The sessions of a file that have a shadow, oldest first.
    pub fn sessions(&self, key: FileKey) -> &[Arc<Session>] {
        self.in_use.get(&key).map_or(&[], |file| &file.sessions)
    }

    /// All sessions, with the names of their files.
    pub fn all_sessions(&self) -> impl Iterator<Item = (&Name, &Arc<Session>)> {
        self.in_use
            .values()
            .flat_map(|file| file.sessions.iter().map(|session| (&file.name, session)))
    }

    /// A session by its number.
    pub fn session(&self, id: SessionId) -> Option<&Arc<Session>> {
        self.all_sessions()
            .map(|(_, session)| session)
            .find(|session| session.about.id == id)
    }

    /// The sessions that nobody waits for: see [`Session::is_late`].
    pub fn late_sessions(&self) -> &[Arc<Session>] {
        &self.late
    }

    /// The session whose shadow a node stands for: of several, the one that its lineage finds, which began last.
    pub fn session_on(&self, node: NodeId) -> Option<&Arc<Session>> {
        self.all_sessions()
            .map(|(_, session)| session)
            .filter(|session| session.about.node == node)
            .last()
    }

    /// All of them: handles that began again after a lock have one node, and a session each.
    pub fn sessions_on(&self, node: NodeId) -> Vec<Arc<Session>> {
        let sessions = self.all_sessions().map(|(_, session)| session);
        sessions.filter(|session| session.about.node == node).cloned().collect()
    }

    /// Whether a name in this directory belongs to a file that exists only as a session's shadow so far, or is just about to.
    pub fn creates_in(&self, directory: NodeId) -> bool {
        self.making.contains(&directory)
            || self
                .all_sessions()
                .any(|(name, session)| name.parent == directory && session.creates())
    }

    /// Forgets a file that nobody writes, waits for or is on the way to.
    pub fn settle(&mut self, key: FileKey) {
        let Some(file) = self.in_use.get(&key) else { return };
        let mut under_way = self.reroutes.values().chain(&self.strangers);
        let expected = under_way.any(|reroute| reroute.file == key);
        if file.users == 0 && file.sessions.is_empty() && self.queue.is_idle(key) && !expected {
            self.keys.remove(&file.name);
            self.in_use.remove(&key);
        }
    }

    /// Whether nothing is under way.
    pub fn is_quiet(&self) -> bool {
        self.late.is_empty()
            && self.in_use.values().all(|file| file.sessions.is_empty())
            && self.queue.files().next().is_none()
    }
}

/// The errno of a refusal.
pub fn errno(refusal: Refusal) -> Errno {
    match refusal {
        Refusal::WouldBlock => Errno::WOULDBLOCK,
        Refusal::Deadlock => Errno::DEADLK,
        Refusal::Busy => Errno::BUSY,
        Refusal::Interrupted => Errno::INTR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::nodes::ROOT;
    use crate::session::{Admission, Intent, Opener, Patience, ProcId};

    fn opener(tgid: u32) -> Opener {
        Opener {
            proc: ProcId { tgid, unique: 1 },
            ancestors: Vec::new(),
            halted: Vec::new(),
        }
    }

    /// A session, and who waits for it.
    fn held() -> (Files, SessionId, Ticket) {
        let mut files = Files::new(SessionId(1));
        let file = files.take_up(&Name {
            parent: ROOT,
            name: std::ffi::OsStr::new("a").into(),
        });
        let patience = Patience::Until(Millis(1000));
        let open = |files: &mut Files, tgid| {
            let ticket = files.ticket();
            let admission = files.queue.open(
                Millis(0),
                file,
                &opener(tgid),
                Intent::Truncate,
                patience,
                Millis(1000),
                ticket,
            );
            (ticket, admission)
        };
        let Admission::Start(session) = open(&mut files, 1).1 else {
            panic!("the file is free")
        };
        let (ticket, admission) = open(&mut files, 2);
        assert_eq!(admission, Admission::Wait);
        let waiting = Waiting {
            tid: 2,
            file,
            need: Need::Access,
            resume: Box::new(|_| {}),
        };
        files.waiting.insert(ticket, waiting);
        (files, session, ticket)
    }

    #[test]
    fn a_signal_ends_a_wait_once() {
        let (mut files, _, ticket) = held();
        assert!(files.interrupt(Millis(1), ticket).is_some());
        assert!(files.interrupt(Millis(1), ticket).is_none());
        assert!(files.end_wait(ticket).is_none());
    }

    /// Answered EINTR, it would have the file without knowing, for ever.
    #[test]
    fn a_signal_comes_too_late_for_who_has_been_given_the_file() {
        let (mut files, session, ticket) = held();
        let wakes = files.queue.close(Millis(1), session);
        assert!(matches!(wakes[..], [Wake::Granted { ticket: whose, .. }] if whose == ticket));
        assert!(files.interrupt(Millis(1), ticket).is_none());
        assert!(files.end_wait(ticket).is_some());
    }
}
