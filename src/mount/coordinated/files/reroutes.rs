//! Threads that were answered ESTALE, and what they find when they walk the path again.

use std::time::{Duration, Instant};

use super::Files;
use crate::mount::nodes::{Name, NodeId};
use crate::session::FileKey;

/// A thread that was sent back with ESTALE walks the path again at once; after this long it will not come any more.
const REROUTE_LIFETIME: Duration = Duration::from_secs(30);
/// The same for who has found nothing by the name: if the kernel asks again, it does so at once.
const MISSED_LIFETIME: Duration = Duration::from_secs(1);

/// For so long after one was sent round, each stranger that looks the name up finds a node of its own. One may have to wait for its directory meanwhile, which a
/// rename(2) keeps locked for as long as a rule's `wait`.
const STRANGERS_LIFETIME: Duration = Duration::from_secs(10);

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
pub(super) enum Way {
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

impl Files {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::nodes::ROOT;
    use crate::session::SessionId;

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
}
