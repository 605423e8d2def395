//! What is known of the coordinated files that somebody writes or waits for: one table, one lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::io::Errno;

use super::session::Session;
use crate::mount::nodes::{Name, NodeId};
use crate::session::{FileKey, Millis, Queue, Refusal, SessionId, Ticket, Wake};

/// A thread that was sent back with ESTALE walks the path again at once; after this long it will not come any more.
const REROUTE_LIFETIME: Duration = Duration::from_secs(30);
/// The same for who has found nothing by the name: if the kernel asks again, it does so at once.
const MISSED_LIFETIME: Duration = Duration::from_secs(1);

/// For so long after one was sent round, each stranger that looks the name up finds a node of its own. One may have to wait for its directory meanwhile, which a
/// rename(2) keeps locked for as long as a rule's `wait`.
const STRANGERS_LIFETIME: Duration = Duration::from_secs(10);

/// What a waiting request does when its wait ends.
pub type Continue = Box<dyn FnOnce(Result<Granted, Errno>) + Send>;

/// How a request was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granted {
    /// A new session, the only one or one of the lineage's.
    New(SessionId),
    /// One more handle on this session's shadow.
    Join(SessionId),
}

/// What becomes of a request that the queue refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It fails, which is counted: open(2), rename(2), a write ...
    Access,
    /// The same, while the kernel has a directory locked: others may need that who are in its way.
    Directory,
    /// A lock that is had already waits on, or was asked for with LOCK_NB, which is often done in a loop: EBUSY and EWOULDBLOCK are not counted.
    Lock,
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

/// What a thread finds that was answered ESTALE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finds {
    /// The current version, whose node nobody takes over until the thread has opened it.
    Current,
    /// A node of its own, once it has looked.
    Own(Option<NodeId>),
    /// The attributes of the current version, whose node is nobody's to take over either; it opens nothing.
    Attributes,
}

impl Finds {
    /// Whether it is the current version, and not a node of the thread's own.
    pub fn is_current(self) -> bool {
        self == Finds::Current
    }
}

/// By what a thread that was sent round is known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Way {
    /// By its id.
    Thread(u32),
    /// It has none here (another pid namespace). Whoever comes with this node, which was made for a stranger's walk, is one of those that were sent round.
    Node(NodeId),
}

/// A thread that was answered ESTALE so that it walks the path again.
#[derive(Debug, Clone)]
pub struct Reroute {
    /// Where it was going.
    pub file: FileKey,
    /// By one of these names of the file; by which, its LOOKUP says.
    pub names: Vec<Name>,
    /// What it is to find there.
    pub finds: Finds,
    /// It had O_CREAT: there may be nothing there when its turn comes.
    pub creates: Option<Creation>,
    /// It was going to read, and nothing else.
    pub reads: bool,
    /// It has found nothing by the name, once.
    missed: bool,
    since: Instant,
}

impl Reroute {
    /// The thread has found nothing by the name. `false`: for the second time.
    pub fn misses(&mut self) -> bool {
        !std::mem::replace(&mut self.missed, true)
    }
}

/// How a new file is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Creation {
    /// Mode with type bits, umask not applied.
    pub mode: u32,
    /// The creator's umask.
    pub umask: u32,
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
        } else if let Some(file) = self.in_use.get_mut(&session.about.file) {
            file.sessions.push(session);
        }
    }

    /// A session is over.
    pub fn remove_session(&mut self, session: &Session) {
        self.late.retain(|other| other.about.id != session.about.id);
        if let Some(file) = self.in_use.get_mut(&session.about.file) {
            file.sessions.retain(|other| other.about.id != session.about.id);
        }
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

    /// Whether a name in this directory belongs to a file that exists only as a session's shadow so far.
    pub fn creates_in(&self, directory: NodeId) -> bool {
        self.all_sessions()
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

    /// The thread will be answered ESTALE and come back through a LOOKUP. One without an id is known again only if it finds a node of its own.
    /// `names`: those that the file has.
    pub fn send_round(
        &mut self,
        tid: u32,
        (file, names): (FileKey, Vec<Name>),
        finds: Finds,
        creates: Option<Creation>,
    ) {
        let since = Instant::now();
        let reroute = Reroute {
            file,
            names,
            finds,
            creates,
            reads: false,
            missed: false,
            since,
        };
        if tid == 0 {
            self.strangers
                .retain(|other| (other.file, other.creates) != (file, creates));
            self.strangers.push(reroute);
        } else if let Some(before) = self.reroutes.insert(Way::Thread(tid), reroute) {
            self.settle(before.file);
        }
    }

    /// Whether a thread was sent round, wherever it was going, or a stranger was.
    pub fn was_sent(&self, tid: u32) -> bool {
        match tid {
            0 => !self.strangers.is_empty(),
            tid => self.reroutes.contains_key(&Way::Thread(tid)),
        }
    }

    /// Who was sent round, and comes by one of these names, was going to `file`. A file with several names has the key of one of them, and while a thread is on
    /// its way that may be removed, or given to another file.
    pub fn follow(&mut self, tid: u32, names: &[Name], file: FileKey) {
        let follows =
            |reroute: &&mut Reroute| reroute.file != file && names.iter().any(|name| reroute.names.contains(name));
        if tid != 0 {
            let reroute = self.reroutes.get_mut(&Way::Thread(tid)).filter(follows);
            let before = reroute.map(|reroute| std::mem::replace(&mut reroute.file, file));
            return before.into_iter().for_each(|key| self.settle(key));
        }
        // Others may be on their way by a name that has the key still.
        let mut all = self.strangers.clone();
        for stranger in all.iter_mut().filter(follows) {
            let creates = stranger.creates;
            let is_same = |other: &Reroute| (other.file, other.creates) == (file, creates);
            if !self.strangers.iter().any(is_same) {
                self.strangers.push(Reroute {
                    file,
                    ..stranger.clone()
                });
            }
        }
    }

    /// The same, to a node of its own, for who only means to read.
    pub fn send_round_to_read(&mut self, tid: u32, to: (FileKey, Vec<Name>)) {
        self.send_round(tid, to, Finds::Own(None), None);
        if let Some(reroute) = self.reroutes.get_mut(&Way::Thread(tid)) {
            reroute.reads = true;
        }
    }

    /// The same, to a node of its own, unless the thread comes from there already.
    pub fn send_round_once(&mut self, tid: u32, to: (FileKey, Vec<Name>)) -> bool {
        let arrives = tid == 0 || self.reroute(tid, to.0).is_some();
        if !arrives {
            self.send_round(tid, to, Finds::Own(None), None);
        }
        !arrives
    }

    /// The thread's way to this file, if it was sent round to it.
    pub fn reroute(&mut self, tid: u32, file: FileKey) -> Option<&mut Reroute> {
        let way = Way::Thread(tid);
        self.reroutes
            .get_mut(&way)
            .filter(|reroute| reroute.file == file && reroute.finds != Finds::Attributes)
    }

    /// Whether a thread that was sent round to this file came with O_CREAT and found nothing.
    pub fn expects_creation(&mut self, tid: u32, file: FileKey) -> bool {
        if tid == 0 {
            let mut strangers = self.strangers.iter();
            return strangers.any(|stranger| stranger.file == file && stranger.creates.is_some());
        }
        self.reroute(tid, file).is_some_and(|reroute| reroute.creates.is_some())
    }

    /// Whether the thread was sent round while it asked for attributes.
    pub fn is_to_be_shown(&self, tid: u32) -> bool {
        let reroute = self.reroutes.get(&Way::Thread(tid));
        tid != 0 && reroute.is_some_and(|reroute| reroute.finds == Finds::Attributes)
    }

    /// It is back, and was shown what it asked for.
    pub fn take_shown(&mut self, tid: u32) {
        if self.is_to_be_shown(tid)
            && let Some(reroute) = self.reroutes.remove(&Way::Thread(tid))
        {
            self.settle(reroute.file);
        }
    }

    /// Whether the thread comes with `node` from the way that it was sent on. It stays on it until [`Files::take_reroute`].
    pub fn is_back(&mut self, tid: u32, file: FileKey, node: NodeId) -> bool {
        let reroute = self.reroute(tid, file);
        reroute.is_some_and(|reroute| !matches!(reroute.finds, Finds::Own(Some(own)) if own != node))
    }

    /// Whether the thread comes with the node that was made for it from the way that it was sent on.
    pub fn is_back_on_own(&self, tid: u32, file: FileKey, node: NodeId) -> bool {
        // The node of a stranger says all.
        let reroute = match tid {
            0 => self.reroutes.get(&Way::Node(node)),
            tid => self
                .reroutes
                .get(&Way::Thread(tid))
                .filter(|reroute| reroute.file == file),
        };
        reroute.is_some_and(|reroute| reroute.finds == Finds::Own(Some(node)))
    }

    /// Whether strangers are on their way to the file: what each of them finds must be a node of its own.
    pub fn expects_strangers(&self, file: FileKey) -> bool {
        self.strangers.iter().any(|stranger| stranger.file == file)
    }

    /// A node was made for a stranger that is on its way to the file. Which of them it is cannot be told: what it makes has the least that one of them asked for.
    pub fn stranger_finds(&mut self, (file, name): (FileKey, Name), node: NodeId) {
        let all = self.strangers.iter().filter(|stranger| stranger.file == file);
        let creates = all.filter_map(|stranger| stranger.creates).reduce(|a, b| Creation {
            mode: a.mode & b.mode,
            umask: a.umask | b.umask,
        });
        let reroute = Reroute {
            file,
            names: vec![name],
            finds: Finds::Own(Some(node)),
            creates,
            reads: false,
            missed: false,
            since: Instant::now(),
        };
        self.reroutes.insert(Way::Node(node), reroute);
    }

    /// A stranger has come with a node that was made for one.
    pub fn take_stranger(&mut self, node: NodeId) -> Option<Reroute> {
        let reroute = self.reroutes.remove(&Way::Node(node))?;
        self.settle(reroute.file);
        Some(reroute)
    }

    /// Whether some thread is on its way to the file's current version, whose node must then not be taken over.
    pub fn expects(&self, file: FileKey) -> bool {
        self.reroutes
            .values()
            .any(|reroute| reroute.file == file && (reroute.finds.is_current() || reroute.finds == Finds::Attributes))
    }

    /// Whether a node was made for a thread that has not opened it yet.
    pub fn is_passing(&self, node: NodeId) -> bool {
        self.creation_by(node).is_some()
    }

    /// What a thread may create there that has not opened the node yet which was made for it.
    pub fn creation_by(&self, node: NodeId) -> Option<Option<Creation>> {
        let own = Finds::Own(Some(node));
        let mut passing = self.reroutes.values().filter(|reroute| reroute.finds == own);
        passing.next().map(|reroute| reroute.creates)
    }

    /// The thread has arrived, or gave up.
    pub fn take_reroute(&mut self, tid: u32, file: FileKey) -> Option<Reroute> {
        self.reroute(tid, file)?;
        self.reroutes.remove(&Way::Thread(tid))
    }

    /// Forgets the threads that were sent round and never came; returns the nodes held for them.
    pub fn expire_reroutes(&mut self, now: Instant) -> Vec<NodeId> {
        let late = |reroute: &Reroute| {
            let lifetime = if reroute.missed {
                MISSED_LIFETIME
            } else {
                REROUTE_LIFETIME
            };
            now.saturating_duration_since(reroute.since) > lifetime
        };
        let gone = |stranger: &Reroute| now.saturating_duration_since(stranger.since) > STRANGERS_LIFETIME;
        let expired: Vec<(Way, Reroute)> = self.reroutes.extract_if(|_, reroute| late(reroute)).collect();
        let strangers: Vec<Reroute> = self.strangers.extract_if(.., |stranger| gone(stranger)).collect();
        let files = expired.iter().map(|(_, reroute)| reroute).chain(&strangers);
        files.for_each(|reroute| self.settle(reroute.file));
        let held = |(way, reroute): (Way, Reroute)| match (way, reroute.finds) {
            (Way::Thread(_), Finds::Own(node)) => node,
            _ => None,
        };
        expired.into_iter().filter_map(held).collect()
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

    fn name(name: &str) -> Name {
        Name::new(ROOT, name.as_ref())
    }

    #[test]
    fn who_was_sent_round_is_known_again_by_its_name_under_whatever_key() {
        const TID: u32 = 7;
        let (a, b, other) = (name("a"), name("b"), name("other"));
        let sent = || {
            let mut files = Files::new(SessionId(1));
            let key = files.take_up(&a);
            files.send_round(TID, (key, vec![a.clone(), b.clone()]), Finds::Own(None), None);
            files.put_down(key);
            (files, key)
        };
        for (comes_by, is_back) in [(&b, true), (&other, false)] {
            let (mut files, key) = sent();
            let now = files.take_up(comes_by);
            files.follow(TID, std::slice::from_ref(comes_by), now);
            assert_eq!(files.reroute(TID, now).is_some(), is_back);
            assert_eq!(files.reroute(TID, key).is_some(), !is_back);
            // Nobody is on the way to what it has left.
            assert_eq!(files.key_of(&a).is_some(), !is_back);
            assert!(!files.was_sent(TID + 1) && files.was_sent(TID));
        }
        // Who asked for attributes is known as that wherever it comes to.
        let (mut files, key) = sent();
        files.send_round(TID, (key, Vec::new()), Finds::Attributes, None);
        let now = files.take_up(&b);
        files.follow(TID, std::slice::from_ref(&b), now);
        assert!(files.is_to_be_shown(TID) && files.reroute(TID, now).is_none());
    }

    #[test]
    fn a_stranger_is_expected_by_all_keys_that_its_names_have_had() {
        let (a, b) = (name("a"), name("b"));
        let mut files = Files::new(SessionId(1));
        let (before, now) = (files.take_up(&a), files.take_up(&b));
        files.send_round(0, (before, vec![a, b.clone()]), Finds::Own(None), None);
        assert!(!files.expects_strangers(now));
        files.follow(0, std::slice::from_ref(&b), now);
        files.follow(0, std::slice::from_ref(&b), now);
        assert!(files.expects_strangers(before) && files.expects_strangers(now));
        assert_eq!(files.strangers.len(), 2);
        files.stranger_finds((now, b), NodeId(9));
        assert!(files.is_back_on_own(0, before, NodeId(9)) && files.take_stranger(NodeId(9)).is_some());
        assert!(!files.is_back_on_own(0, now, NodeId(9)));
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
