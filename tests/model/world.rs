//! The state of the reference model: names, contents, sessions, descriptors, processes. What operations do to it is in the other modules.

use std::collections::{BTreeMap, VecDeque};

use super::locks::Locks;
use super::maps::Map;
use super::ops::{Case, Do, How, MAPS, NAMES, Name, PROCESSES, SLOTS};
use super::permissions::{Cast, Protected, Rights, User};
use super::puppets::{Answer, Time};

/// A content with its owner and mode: an inode.
pub type Inode = usize;
/// A process, by a number that is never used again.
pub type Pid = u64;
pub type Sid = usize;
/// An open file description.
pub type Did = usize;

#[derive(Debug, Clone)]
pub struct File {
    pub data: Vec<u8>,
    pub rights: Rights,
    /// It is, or was, what a coordinated name leads to. Who has it open as an ordinary file may not write to it: there the contract says nothing.
    pub is_version: bool,
    pub modified: Time,
    pub changed: Time,
    /// Of a file with several names: who has it open by a coordinated one sees no lines that are appended later (W11, limit).
    pub is_image: bool,
    /// What the file holds in its place, to who has it open by an ordinary name (W11).
    pub became: Option<Inode>,
    /// The version that was saved in its place, also where that is another inode.
    pub saved_as: Option<Inode>,
    /// Somebody has stored to it through a mapping: when that is a write, the kernel decides.
    pub poked: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    Open,
    /// Its handles see this content.
    Done(Inode),
    Lost,
}

#[derive(Debug, Clone)]
pub struct Session {
    pub name: Name,
    pub owner: Pid,
    /// Whose it, and all that have it open, are.
    pub user: User,
    /// Those of the file that it began on, then.
    pub rights: Rights,
    pub shadow: Inode,
    pub base: Option<Inode>,
    pub changed: bool,
    /// Its writer has changed nothing: it holds what its open(2) has made of it.
    pub only_opened: bool,
    /// Its open(2) emptied the file, and nobody has read from it since.
    pub emptied: bool,
    /// Somebody has read what it holds.
    pub looked_at: bool,
    /// Handles that it ever had.
    pub opened: usize,
    /// Its owner or mode was changed, and counts.
    pub touched: bool,
    pub unlinked: bool,
    pub creates: bool,
    pub how: &'static str,
    /// Those of which it is known that they use it.
    pub known: Vec<Pid>,
    /// Those who were left it by who opened it.
    pub heirs: Vec<Pid>,
    /// What continues a session stands on its node.
    pub node: usize,
    pub stage: Stage,
    /// In which late one its handles go on, one and all.
    pub continued: Option<Sid>,
    /// Lines that were appended since it began.
    pub appended: Vec<u8>,
    /// Where the last of them are.
    pub appended_to: Option<Inode>,
    /// It ended with a lock: its handles go on with another one (W12).
    pub resumable: bool,
    /// Who has it open did not get a lock: it goes on outside the queue.
    pub stepped_back: bool,
    /// A descriptor of it was closed, and not by a signal.
    pub saved: bool,
}

#[derive(Debug, Clone)]
pub enum Kind {
    /// Of a coordinated file. Which content it sees is settled by its first read.
    Reader {
        name: Name,
        opened: Inode,
        bound: Option<Inode>,
        /// The process by whose flock(2) or read(2) it came to see another version than it opened.
        moved: Option<Pid>,
    },
    Writer {
        session: Sid,
    },
    Ordinary {
        inode: Inode,
    },
    /// It asks no queue (W10); the beginning of a line is held back.
    Appender {
        place: Place,
        held: Vec<u8>,
        known: Vec<Pid>,
        user: User,
        opened: Inode,
        /// What it is known to be right for.
        right: Inode,
        /// What it has written can be nobody's any more.
        in_vain: bool,
    },
}

/// Where lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// To whatever file has this name.
    At(Name),
    /// This one was removed: nowhere.
    Gone(Inode),
}

#[derive(Debug, Clone)]
pub struct Description {
    pub kind: Kind,
    pub how: How,
    /// Those of the file when it was opened.
    pub rights: Option<Rights>,
    /// The file position; `None`: nobody says where it is.
    pub at: Option<u64>,
    /// Its session began after the kernel had last asked how long the file is (W2, W12).
    pub late_to_size: bool,
    pub descriptors: usize,
    /// No descriptor of it was closed yet: it is open, whatever /proc shows of its access mode (W5).
    pub unclosed: bool,
    /// The line of its lock, while it has one.
    pub lock: Option<usize>,
    /// Who took it.
    pub locker: Pid,
    /// The name of its file is gone, or another file's by now: which lock it would ask for is not in the model.
    pub adrift: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct Slot {
    pub description: Did,
    /// The number that the kernel gave it, counted from zero.
    pub fd: usize,
}

#[derive(Debug, Clone)]
pub struct Process {
    pub pid: Pid,
    pub user: User,
    pub parent: Option<Pid>,
    pub slots: [Option<Slot>; SLOTS],
    pub maps: [Option<Map>; MAPS],
    /// It is in a system call that waits.
    pub waits: bool,
}

/// A system call that goes on when it has what it waits for.
#[derive(Debug, Clone)]
pub enum Pending {
    Open {
        slot: usize,
        name: Name,
        how: How,
    },
    Truncate {
        name: Name,
        length: u64,
    },
    Names(Change),
    /// A handle has its lock, and begins another session.
    Relock(Did),
    /// A write by a handle whose session ended with its lock.
    Write(Did, Do),
}

/// A change of names: it takes them one after the other.
#[derive(Debug, Clone)]
pub struct Change {
    pub what: What,
    pub wants: VecDeque<Name>,
    pub has: Vec<Name>,
}

#[derive(Debug, Clone, Copy)]
pub enum What {
    Rename(Name, Name),
    Exchange(Name, Name),
    Link(Name, Name),
    Unlink(Name),
}

#[derive(Debug, Clone)]
pub struct Waiter {
    pub process: usize,
    pub pending: Pending,
}

/// Who writes a file, and who waits for that.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// Processes, each with its session; without, it changes the name.
    pub holders: Vec<(Pid, Option<Sid>)>,
    pub waiters: Vec<Waiter>,
}

/// What is to be in the history of a name.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// What must be at its end, oldest first: how it came, and the content.
    pub versions: Vec<(&'static str, Vec<u8>)>,
    /// What came before is not looked at.
    pub loose: bool,
}

/// What a step must have come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// It makes no sense now.
    Skip,
    Is(Answer),
    OneOf(Vec<Answer>),
    /// It answers; what, the contract leaves open.
    Any,
    /// It does not answer before what it waits for is over.
    Waits,
    /// A child, as the process of this number.
    Forks(usize),
    /// The process ends.
    Ends,
}

#[derive(Debug, Clone)]
pub struct World {
    pub hasty: bool,
    pub cast: Cast,
    pub protected: Protected,
    /// The number of the step that is carried out.
    pub now: usize,
    pub files: Vec<File>,
    pub names: BTreeMap<Name, Inode>,
    pub histories: BTreeMap<Name, History>,
    pub sessions: Vec<Session>,
    pub lines: BTreeMap<Name, Line>,
    pub descriptions: Vec<Description>,
    pub processes: [Option<Process>; PROCESSES],
    pub locks: Locks,
    /// What the step comes to is not in the model, and neither is what follows.
    pub unknown: bool,
    /// What killed writers had staged.
    pub recovered: Vec<Vec<u8>>,
    /// System calls that are over, and what they answered.
    pub released: Vec<(usize, Answer)>,
    /// The last step has consequences that nobody waits for.
    pub settling: bool,
    pub next_pid: Pid,
}

impl World {
    pub fn new(case: &Case, protected: Protected) -> World {
        World {
            hasty: case.hasty,
            cast: case.cast,
            protected,
            now: 0,
            files: Vec::new(),
            names: BTreeMap::new(),
            histories: NAMES.map(|name| (name, History::default())).into(),
            sessions: Vec::new(),
            lines: NAMES.map(|name| (name, Line::default())).into(),
            descriptions: Vec::new(),
            processes: Default::default(),
            locks: Locks::default(),
            unknown: false,
            recovered: Vec::new(),
            released: Vec::new(),
            settling: false,
            next_pid: 0,
        }
    }

    pub fn add_file(&mut self, data: Vec<u8>, rights: Rights, is_version: bool) -> Inode {
        self.files.push(File {
            data,
            rights,
            is_version,
            modified: Time::Step(self.now),
            changed: Time::Step(self.now),
            is_image: false,
            became: None,
            saved_as: None,
            poked: false,
        });
        self.files.len() - 1
    }

    pub fn pid(&self, process: usize) -> Pid {
        self.processes[process].as_ref().expect("it lives").pid
    }

    pub fn user(&self, process: usize) -> User {
        self.processes[process].as_ref().expect("it lives").user
    }

    /// Of the directory that a name is in.
    pub fn dir(&self, name: Name) -> Rights {
        self.cast.dir(name).rights()
    }

    /// A process and its ancestors, nearest first.
    pub fn lineage(&self, process: usize) -> Vec<Pid> {
        let mut lineage = Vec::new();
        let mut next = Some(self.pid(process));
        while let Some(pid) = next {
            lineage.push(pid);
            let found = self.processes.iter().flatten().find(|other| other.pid == pid);
            next = found.and_then(|process| process.parent);
        }
        lineage
    }

    /// W11: one of the coordinated names of a file stands for all of them: in the queue, for locks, and in the history.
    pub fn home(&self, name: Name) -> Name {
        let names = self.names_of(name).into_iter();
        names
            .filter(|other| other.is_coordinated() && name.is_coordinated())
            .min()
            .unwrap_or(name)
    }

    /// All names of the file that a name leads to.
    pub fn names_of(&self, name: Name) -> Vec<Name> {
        let inode = self.names.get(&name);
        let same = self.names.iter().filter(|(_, other)| Some(*other) == inode);
        same.map(|(name, _)| *name).collect()
    }

    /// W11: all names of a file see its new version. Without one, a name that leads nowhere yet gets it.
    pub fn give(&mut self, name: Name, version: Inode) {
        let names = self.names_of(name);
        if let Some(before) = self.names.insert(name, version) {
            self.files[before].saved_as = Some(version);
            if names.len() > 1 {
                self.files[before].became = Some(version);
                self.files[version].is_image = true;
            }
        }
        names.into_iter().for_each(|name| {
            self.names.insert(name, version);
        });
    }

    /// Its writer has made something of it.
    pub fn note_change(&mut self, session: Sid) {
        let session = &mut self.sessions[session];
        (session.changed, session.only_opened) = (true, false);
    }

    /// R4: its content was changed just now.
    pub fn modify(&mut self, inode: Inode) {
        self.set_modified(inode, Time::Step(self.now));
        self.change(inode);
    }

    /// W11: by somebody who may lose set-id bits by it.
    pub fn modify_as(&mut self, user: User, inode: Inode) {
        self.files[inode].rights = user.writes(self.files[inode].rights);
        self.modify(inode);
    }

    pub fn set_modified(&mut self, inode: Inode, time: Time) {
        let file = &mut self.files[inode];
        file.modified = if file.poked { Time::Whenever } else { time };
    }

    /// R4: so was what it is: mode, times, names, or which version.
    pub fn change(&mut self, inode: Inode) {
        self.files[inode].changed = Time::Step(self.now);
    }

    /// What a file holds by now that had this content.
    pub fn latest(&self, mut inode: Inode) -> Inode {
        while let Some(next) = self.files[inode].became {
            inode = next;
        }
        inode
    }

    pub fn line(&mut self, name: Name) -> &mut Line {
        self.lines.get_mut(&name).expect("each name has one")
    }

    /// Whether `pid` has a descriptor of the session.
    pub fn has_open(&self, pid: Pid, session: Sid) -> bool {
        let uses = |slot: &Slot| matches!(self.descriptions[slot.description].kind, Kind::Writer { session: other } if other == session);
        let mut processes = self.processes.iter().flatten();
        processes.any(|process| process.pid == pid && process.slots.iter().flatten().any(uses))
    }

    /// The sessions of a name that `pid` holds: those that it opened or was left, oldest first.
    pub fn held_by(&self, name: Name, pid: Pid) -> Vec<Sid> {
        let holders = self.lines[&name].holders.iter();
        holders
            .filter(|(owner, session)| *owner == pid || self.heirs(*session).contains(&pid))
            .filter_map(|(_, session)| *session)
            .collect()
    }

    /// Who was left the session.
    pub fn heirs(&self, session: Option<Sid>) -> &[Pid] {
        session.map_or(&[], |session| &self.sessions[session].heirs)
    }

    /// The newest session of the nearest one of its lineage that has one.
    pub fn nearest(&self, process: usize, name: Name) -> Option<Sid> {
        let lineage = self.lineage(process);
        lineage.iter().find_map(|pid| self.held_by(name, *pid).last().copied())
    }

    /// The same, also of those that have stepped back.
    fn shown(&self, process: usize, name: Name) -> Option<Sid> {
        let stepped = |pid: Pid| (0..self.sessions.len()).rfind(|session| self.is_apart(*session, name, pid));
        let newest = |pid: &Pid| self.held_by(name, *pid).last().copied().max(stepped(*pid));
        self.lineage(process).iter().find_map(newest)
    }

    fn is_apart(&self, session: Sid, name: Name, owner: Pid) -> bool {
        let session = &self.sessions[session];
        session.stepped_back && session.stage == Stage::Open && session.name == name && session.owner == owner
    }

    /// Whether a session of this name goes on outside the queue.
    pub fn has_stepped_back(&self, name: Name) -> bool {
        (0..self.sessions.len()).any(|session| self.is_apart(session, name, self.sessions[session].owner))
    }

    /// What a process finds under a name.
    pub fn visible(&self, process: usize, name: Name) -> Option<Inode> {
        let own = self
            .shown(process, self.home(name))
            .map(|session| &self.sessions[session]);
        own.filter(|session| !session.unlinked)
            .map(|session| session.shadow)
            .or_else(|| self.names.get(&name).copied())
    }

    /// Names whose directories are locked by a change that waits.
    pub fn locked(&self) -> Vec<Name> {
        let waiters = self.lines.values().flat_map(|line| &line.waiters);
        waiters
            .filter_map(|waiter| match &waiter.pending {
                Pending::Names(change) => Some(change.what.names()),
                _ => None,
            })
            .flatten()
            .collect()
    }

    pub fn slot(&self, process: usize, slot: usize) -> Option<Slot> {
        self.processes[process].as_ref().and_then(|process| process.slots[slot])
    }

    pub fn put(&mut self, process: usize, slot: usize, kind: Kind, how: How) {
        let opened = match kind {
            Kind::Reader { opened, .. } | Kind::Appender { opened, .. } => Some(opened),
            Kind::Writer { .. } | Kind::Ordinary { .. } => None,
        };
        self.descriptions.push(Description {
            kind,
            how,
            rights: opened.map(|opened| self.files[opened].rights),
            at: Some(0),
            late_to_size: false,
            descriptors: 1,
            unclosed: true,
            lock: None,
            locker: 0,
            adrift: false,
        });
        let description = self.descriptions.len() - 1;
        self.put_slot(process, slot, description);
    }

    pub fn put_slot(&mut self, process: usize, slot: usize, description: Did) {
        let process = self.processes[process].as_mut().expect("it lives");
        let used: Vec<usize> = process.slots.iter().flatten().map(|slot| slot.fd).collect();
        let fd = (0..).find(|fd| !used.contains(fd)).expect("there are few");
        process.slots[slot] = Some(Slot { description, fd });
    }

    /// A version more.
    pub fn record(&mut self, name: Name, how: &'static str, data: Vec<u8>) {
        let history = self.histories.get_mut(&name).expect("each name has one");
        history.versions.push((how, data));
    }

    /// How the history came to where it is, the contract leaves open.
    pub fn loosen(&mut self, name: Name) {
        let history = self.histories.get_mut(&name).expect("each name has one");
        history.versions.clear();
        history.loose = true;
    }
}

impl What {
    pub fn names(self) -> Vec<Name> {
        match self {
            What::Rename(a, b) | What::Exchange(a, b) | What::Link(a, b) => vec![a, b],
            What::Unlink(name) => vec![name],
        }
    }
}
