//! What processes do in a case, and how cases are made up.

use proptest::collection::vec;
use proptest::prelude::*;

use super::permissions::{Acl, Cast, ROOT_ONLY};
use super::sharing::{cases_of_users, set_id};

/// The files of a case, each in a directory of its own: a rename or unlink that waits keeps its directories locked in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    /// Coordinated.
    A,
    /// Coordinated; a coordinated temporary file, too.
    B,
    /// Ordinary: a temporary file.
    T,
}

/// All of them.
pub const NAMES: [Name; 3] = [Name::A, Name::B, Name::T];

impl Name {
    /// Below the case's directory.
    pub fn path(self) -> &'static str {
        match self {
            Name::A => "x/a.md",
            Name::B => "y/b.md",
            Name::T => "z/t.tmp",
        }
    }

    /// Whether the rules coordinate it.
    pub fn is_coordinated(self) -> bool {
        self != Name::T
    }
}

/// Processes at most; each is started when it first does something, and again after its end.
pub const PROCESSES: usize = 4;
/// Descriptors of a process at most.
pub const SLOTS: usize = 3;
/// Mappings of a process at most.
pub const MAPS: usize = 2;

/// What is written. No two are alike, so a mixture shows.
pub const TEXTS: [&str; 8] = [
    "one\n",
    "second line\nthird line\n",
    "x",
    "no end",
    "\n",
    "middle\nof a line",
    " the rest\n",
    "0123456789012345678901234567890123456789\n",
];

/// Access mode and flags of open(2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct How {
    pub read: bool,
    pub write: bool,
    pub create: bool,
    pub exclusive: bool,
    pub truncate: bool,
    pub append: bool,
    pub nonblock: bool,
}

/// O_RDONLY.
pub const R: How = How {
    read: true,
    write: false,
    create: false,
    exclusive: false,
    truncate: false,
    append: false,
    nonblock: false,
};
/// O_WRONLY.
pub const W: How = How {
    read: false,
    write: true,
    ..R
};
/// O_RDWR.
pub const RW: How = How { write: true, ..R };

impl How {
    /// With O_CREAT.
    pub const fn creat(self) -> How {
        How { create: true, ..self }
    }
    /// With O_CREAT and O_EXCL.
    pub const fn excl(self) -> How {
        How {
            create: true,
            exclusive: true,
            ..self
        }
    }
    /// With O_TRUNC.
    pub const fn trunc(self) -> How {
        How { truncate: true, ..self }
    }
    /// With O_APPEND.
    pub const fn append(self) -> How {
        How { append: true, ..self }
    }
    /// With O_NONBLOCK.
    pub const fn nonblock(self) -> How {
        How { nonblock: true, ..self }
    }

    /// W10: no session, where the file is there.
    pub fn is_append_only(self) -> bool {
        self.append && self.write && !self.read && !self.truncate
    }

    /// As open(2) takes them.
    pub fn bits(self) -> i32 {
        let access = match (self.read, self.write) {
            (_, false) => libc::O_RDONLY,
            (false, true) => libc::O_WRONLY,
            (true, true) => libc::O_RDWR,
        };
        let flag = |is: bool, bit: i32| if is { bit } else { 0 };
        access
            | flag(self.create, libc::O_CREAT)
            | flag(self.exclusive, libc::O_EXCL)
            | flag(self.truncate, libc::O_TRUNC)
            | flag(self.append, libc::O_APPEND)
            | flag(self.nonblock, libc::O_NONBLOCK)
    }
}

/// As it is written in regressions.rs.
impl std::fmt::Debug for How {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.read, self.write) {
            (_, false) => "R",
            (false, true) => "W",
            (true, true) => "RW",
        })?;
        let flags = [
            (self.exclusive, ".excl()"),
            (self.create && !self.exclusive, ".creat()"),
            (self.truncate, ".trunc()"),
            (self.append, ".append()"),
            (self.nonblock, ".nonblock()"),
        ];
        flags
            .iter()
            .filter(|(is, _)| *is)
            .try_for_each(|(_, text)| f.write_str(text))
    }
}

/// What is asked of flock(2); `Try…` with LOCK_NB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    Shared,
    Exclusive,
    TryShared,
    TryExclusive,
    Un,
}

impl Lock {
    /// Whether it is to be had alone; `None` for LOCK_UN.
    pub fn alone(self) -> Option<bool> {
        match self {
            Lock::Shared | Lock::TryShared => Some(false),
            Lock::Exclusive | Lock::TryExclusive => Some(true),
            Lock::Un => None,
        }
    }

    /// LOCK_NB.
    pub fn nonblock(self) -> bool {
        matches!(self, Lock::TryShared | Lock::TryExclusive)
    }

    /// As flock(2) takes it.
    pub fn bits(self) -> i32 {
        let kind = match self.alone() {
            Some(true) => libc::LOCK_EX,
            Some(false) => libc::LOCK_SH,
            None => libc::LOCK_UN,
        };
        kind | if self.nonblock() { libc::LOCK_NB } else { 0 }
    }
}

/// How a whole file is mapped, to be read only or also written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    Private,
    Shared,
    Written,
}

impl Share {
    /// PROT_… and MAP_…, as mmap(2) takes them.
    pub fn bits(self) -> (i32, i32) {
        match self {
            Share::Private => (libc::PROT_READ, libc::MAP_PRIVATE),
            Share::Shared => (libc::PROT_READ, libc::MAP_SHARED),
            Share::Written => (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED),
        }
    }
}

/// One step of one process. Processes, slots (descriptors) and texts by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Do {
    Open(usize, Name, How),
    Close(usize),
    Read(usize, usize),
    Pread(usize, u64, usize),
    Write(usize, usize),
    Pwrite(usize, u64, usize),
    Ftruncate(usize, u64),
    Seek(usize, u64),
    Fsync(usize),
    Fstat(usize),
    /// flock(2).
    Flock(usize, Lock),
    /// mmap(2) of a descriptor's file. Children do not get it.
    Map(usize, usize, Share),
    /// Reads all of a mapping.
    Peek(usize),
    /// Stores a text at this place of a mapping.
    Poke(usize, usize, usize),
    /// munmap(2).
    Unmap(usize),
    /// dup(2) from one slot into another.
    Dup(usize, usize),
    /// fork(2): the child is the process of this number.
    Fork(usize),
    /// _exit(2) with whatever is open.
    Exit,
    /// SIGKILL.
    Kill,
    Rename(Name, Name),
    Exchange(Name, Name),
    /// link(2): one file more with several names, or one name more.
    Link(Name, Name),
    Unlink(Name),
    Truncate(Name, u64),
    Chmod(Name, u32),
    /// chown(2) to this owner and group.
    Chown(Name, u32, u32),
    /// setxattr(2) of an ACL, and with it of these permissions of owner, mask and others.
    Acl(Name, Acl, u32),
    /// removexattr(2) of it.
    NoAcl(Name),
    /// utimensat(2): st_mtime becomes so many seconds.
    Utime(Name, u32),
    /// utimensat(2) with UTIME_NOW.
    Touch(Name),
    /// futimens(2).
    Futime(usize, u32),
    /// stat(2) and the content of each name.
    Look,
}

impl Do {
    /// The descriptor that it needs.
    pub fn slot_used(&mut self) -> Option<&mut usize> {
        match self {
            Do::Close(slot)
            | Do::Read(slot, _)
            | Do::Pread(slot, ..)
            | Do::Write(slot, _)
            | Do::Pwrite(slot, ..)
            | Do::Ftruncate(slot, _)
            | Do::Seek(slot, _)
            | Do::Fsync(slot)
            | Do::Fstat(slot)
            | Do::Futime(slot, _)
            | Do::Map(slot, ..)
            | Do::Flock(slot, _)
            | Do::Dup(slot, _) => Some(slot),
            _ => None,
        }
    }

    /// The mapping that it needs.
    pub fn map_used(&mut self) -> Option<&mut usize> {
        match self {
            Do::Peek(map) | Do::Poke(map, ..) | Do::Unmap(map) => Some(map),
            _ => None,
        }
    }
}

/// Who does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op(pub usize, pub Do);

/// A sequence, and whether opens wait for 20 ms only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    pub hasty: bool,
    pub cast: Cast,
    pub ops: Vec<Op>,
}

/// How much of the contract a case may touch.
pub fn cases(length: usize) -> impl Strategy<Value = Case> {
    let anything = vec(op(step().boxed()), 2..length);
    // The file is there, and several have it open: otherwise nobody is in anybody's way.
    let begin = [
        Op(0, Do::Open(0, Name::A, W.creat())),
        Op(0, Do::Write(0, 1)),
        Op(0, Do::Close(0)),
    ];
    // Somebody has it open whose child goes on when it is gone.
    let leave = [Op(0, Do::Open(0, Name::A, RW)), Op(0, Do::Fork(1)), Op(0, Do::Exit)];
    let orphans = vec(op(orphaned_step().boxed()), 2..length);
    let left = [begin.to_vec(), leave.to_vec()].concat();
    let orphans = orphans.prop_map(move |ops| [left.clone(), ops].concat());
    let written = |step: BoxedStrategy<Do>| {
        let begin = begin.to_vec();
        vec(op(step), 2..length).prop_map(move |ops| [begin.clone(), ops].concat())
    };
    let (locks, linked) = (written(locked_step().boxed()), written(linked_step().boxed()));
    let ops = prop_oneof![4 => anything, 2 => locks, 1 => orphans, 1 => linked];
    let of_root = (any::<bool>(), ops).prop_map(|(hasty, ops)| Case {
        hasty,
        cast: ROOT_ONLY,
        ops,
    });
    prop_oneof![1 => of_root, 1 => cases_of_users(length)]
}

fn op(step: BoxedStrategy<Do>) -> impl Strategy<Value = Op> {
    (0..PROCESSES, step).prop_map(|(by, what)| Op(by, what))
}

/// As programs go about that lock what they have open.
pub fn locked_step() -> impl Strategy<Value = Do> {
    let slot = 0..SLOTS;
    let how =
        prop_oneof![4 => Just(R), 4 => Just(RW), 1 => Just(W), 2 => Just(W.append()), 1 => Just(W.creat().trunc())];
    prop_oneof![
        12 => (slot.clone(), how).prop_map(|(s, h)| Do::Open(s, Name::A, h)),
        24 => (slot.clone(), lock()).prop_map(|(s, l)| Do::Flock(s, l)),
        10 => (slot.clone(), 0..TEXTS.len()).prop_map(|(s, t)| Do::Write(s, t)),
        8 => slot.clone().prop_map(|s| Do::Pread(s, 0, 4096)),
        4 => slot.clone().prop_map(Do::Close),
        2 => step(),
        2 => (0..PROCESSES).prop_map(Do::Fork),
        1 => (slot, Just(Name::T), Just(W.creat())).prop_map(|(s, n, h)| Do::Open(s, n, h)),
        1 => Just(Do::Rename(Name::T, Name::A)),
        2 => Just(Do::Look),
    ]
}

/// As descriptors go on in children when who opened them closes, exits or is killed.
pub fn orphaned_step() -> impl Strategy<Value = Do> {
    let slot = 0..SLOTS;
    prop_oneof![
        10 => (0..PROCESSES).prop_map(Do::Fork),
        6 => Just(Do::Exit),
        3 => Just(Do::Kill),
        12 => (slot.clone(), 0..TEXTS.len()).prop_map(|(s, t)| Do::Write(s, t)),
        6 => slot.clone().prop_map(Do::Close),
        8 => (slot.clone(), how()).prop_map(|(s, h)| Do::Open(s, Name::A, h)),
        4 => slot.prop_map(|s| Do::Pread(s, 0, 4096)),
        8 => step(),
        6 => Just(Do::Look),
    ]
}

/// As files get and lose names while they are written.
pub fn linked_step() -> impl Strategy<Value = Do> {
    let slot = 0..SLOTS;
    prop_oneof![
        12 => (slot.clone(), name(), how()).prop_map(|(s, n, h)| Do::Open(s, n, h)),
        10 => (slot.clone(), 0..TEXTS.len()).prop_map(|(s, t)| Do::Write(s, t)),
        8 => slot.clone().prop_map(Do::Close),
        4 => slot.prop_map(|s| Do::Pread(s, 0, 4096)),
        10 => (name(), name()).prop_map(|(a, b)| Do::Link(a, b)),
        6 => name().prop_map(Do::Unlink),
        3 => (name(), name()).prop_map(|(a, b)| Do::Rename(a, b)),
        8 => step(),
        6 => Just(Do::Look),
    ]
}

pub fn name() -> impl Strategy<Value = Name> {
    prop_oneof![5 => Just(Name::A), 2 => Just(Name::B), 2 => Just(Name::T)]
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        4 => Just(R),
        4 => Just(W.creat().trunc()),
        3 => Just(RW),
        2 => Just(W),
        2 => Just(RW.creat()),
        1 => Just(W.creat()),
        1 => Just(W.excl()),
        1 => Just(W.trunc()),
        1 => Just(R.trunc()),
        1 => Just(R.creat()),
        1 => Just(RW.append()),
        4 => Just(W.append()),
        1 => Just(RW.creat().append()),
        1 => Just(W.nonblock()),
        1 => Just(RW.creat().nonblock()),
        1 => Just(RW.excl().nonblock()),
    ]
}

fn lock() -> impl Strategy<Value = Lock> {
    prop_oneof![
        2 => Just(Lock::Shared),
        3 => Just(Lock::Exclusive),
        1 => Just(Lock::TryShared),
        2 => Just(Lock::TryExclusive),
        4 => Just(Lock::Un),
    ]
}

pub fn step() -> impl Strategy<Value = Do> {
    let slot = 0..SLOTS;
    let text = 0..TEXTS.len();
    let length = prop_oneof![Just(0u64), 0u64..12, Just(60u64)];
    let count = prop_oneof![Just(4096usize), 0usize..12];
    prop_oneof![
        16 => (slot.clone(), name(), how()).prop_map(|(s, n, h)| Do::Open(s, n, h)),
        10 => slot.clone().prop_map(Do::Close),
        8 => (slot.clone(), count.clone()).prop_map(|(s, c)| Do::Read(s, c)),
        2 => (slot.clone(), 0u64..9, count).prop_map(|(s, at, c)| Do::Pread(s, at, c)),
        12 => (slot.clone(), text.clone()).prop_map(|(s, t)| Do::Write(s, t)),
        3 => (slot.clone(), 0u64..9, text).prop_map(|(s, at, t)| Do::Pwrite(s, at, t)),
        2 => (slot.clone(), length.clone()).prop_map(|(s, l)| Do::Ftruncate(s, l)),
        2 => (slot.clone(), 0u64..9).prop_map(|(s, to)| Do::Seek(s, to)),
        1 => slot.clone().prop_map(Do::Fsync),
        2 => slot.clone().prop_map(Do::Fstat),
        8 => (slot.clone(), lock()).prop_map(|(s, l)| Do::Flock(s, l)),
        2 => (slot.clone(), slot).prop_map(|(s, t)| Do::Dup(s, t)),
        3 => (0..PROCESSES).prop_map(Do::Fork),
        2 => Just(Do::Exit),
        3 => Just(Do::Kill),
        6 => (name(), name()).prop_map(|(a, b)| Do::Rename(a, b)),
        1 => (name(), name()).prop_map(|(a, b)| Do::Exchange(a, b)),
        3 => (name(), name()).prop_map(|(a, b)| Do::Link(a, b)),
        3 => name().prop_map(Do::Unlink),
        3 => (name(), length).prop_map(|(n, l)| Do::Truncate(n, l)),
        1 => (name(), prop_oneof![Just(0o600), Just(0o640), Just(0o755), set_id()]).prop_map(|(n, m)| Do::Chmod(n, m)),
        2 => (name(), 1u32..9).prop_map(|(n, at)| Do::Utime(n, at)),
        1 => (0..SLOTS, 1u32..9).prop_map(|(s, at)| Do::Futime(s, at)),
        4 => (0..SLOTS, 0..MAPS, share()).prop_map(|(s, m, how)| Do::Map(s, m, how)),
        6 => (0..MAPS).prop_map(Do::Peek),
        4 => (0..MAPS, 0..9usize, 0..TEXTS.len()).prop_map(|(m, at, t)| Do::Poke(m, at, t)),
        2 => (0..MAPS).prop_map(Do::Unmap),
        8 => Just(Do::Look),
    ]
}

fn share() -> impl Strategy<Value = Share> {
    prop_oneof![1 => Just(Share::Private), 1 => Just(Share::Shared), 2 => Just(Share::Written)]
}
