//! The plain types that the queue's callers speak.

/// A process: a thread group and a number of its own, so that a reused pid is another process (contract, "Words").
///
/// With `tgid` 0 the process is unknown. To the queue an unknown process is related to nobody, not even to
/// another unknown one, so it fails safe: it waits, and gets EBUSY at worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcId {
    /// Thread group id in the daemon's pid namespace; 0 when the kernel could not tell.
    pub tgid: u32,
    /// What tells it apart from earlier and later processes of this id.
    pub unique: u64,
}

impl ProcId {
    /// Whether the kernel could tell who this is.
    pub fn is_known(&self) -> bool {
        self.tgid != 0
    }
}

/// One writer's stay: from the open for writing to the close that publishes or discards it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// A logical file, numbered by the caller: all names and all versions of a coordinated file share one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey(pub u64);

/// One waiting request, numbered by the caller; never the same for two requests that wait at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Monotonic milliseconds from a start that the caller chooses; also a duration in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    /// This instant plus a duration; a lease of `u64::MAX` never runs out.
    pub fn saturating_add(self, duration: Millis) -> Millis {
        Millis(self.0.saturating_add(duration.0))
    }
}

/// Who opens: a process and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opener {
    /// The process itself.
    pub proc: ProcId,
    /// Its parent, grandparent and so on: nearest first, without itself.
    pub ancestors: Vec<ProcId>,
    /// Which of all these stand still while the opener waits: those with one thread only. Asked for where it may wait.
    pub halted: Vec<ProcId>,
}

impl Opener {
    /// The process and its ancestors, nearest first; unknown ones left out, since they are related to nobody.
    pub fn lineage(&self) -> Vec<ProcId> {
        std::iter::once(&self.proc)
            .chain(&self.ancestors)
            .filter(|p| p.is_known())
            .copied()
            .collect()
    }
}

/// What the opener is going to do with the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Intent {
    /// O_TRUNC, or creation: it does not look at what the file holds.
    Truncate,
    /// Any other open for writing.
    Modify,
    /// rename(2) over the name, unlink(2), truncate(2) by path, restore: a session of zero length, which the
    /// caller closes as soon as it has done the work.
    Instant,
}

/// How long the opener is willing to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Patience {
    /// O_NONBLOCK: not at all.
    NonBlock,
    /// Until this instant.
    Until(Millis),
}

/// The answer to an open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Admission {
    /// The file was free: a new session.
    Start(SessionId),
    /// The opener's own lineage holds the file: a new session with a shadow of its own, published in close order.
    Private(SessionId),
    /// The opener's own lineage holds the file: one more handle on this session's shadow.
    Join(SessionId),
    /// In line; a [`Wake`] with the ticket says how it ended.
    Wait,
    /// Not admitted.
    Refuse(Refusal),
}

/// Why an open is not admitted; each stands for one errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// EWOULDBLOCK: it would have to wait and must not (O_NONBLOCK).
    WouldBlock,
    /// EDEADLK: waiting would close a cycle of waits.
    Deadlock,
    /// EBUSY: it waited as long as it may.
    Busy,
    /// EINTR: the waiting thread got a signal. The queue never says this itself: the caller does, with
    /// [`Queue::cancel`](super::Queue::cancel).
    Interrupted,
}

/// What a call changed for others than its caller, in the order in which it is to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wake {
    /// A waiting open is admitted: `Start`, `Private` or `Join`.
    Granted {
        /// The request that waited.
        ticket: Ticket,
        /// How it is admitted.
        admission: Admission,
    },
    /// A waiting open is over: `Busy`, or `Deadlock`.
    Refused {
        /// The request that waited.
        ticket: Ticket,
        /// Why it is over.
        why: Refusal,
    },
    /// Others wait for this session and its lease has run out. Said once: the caller discards the session and then
    /// calls [`Queue::close`](super::Queue::close).
    LeaseExpired {
        /// The session that stayed too long.
        session: SessionId,
    },
}
