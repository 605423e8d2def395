//! What `status` tells: plain data, the same in the protocol and in `concord status --json`.

use serde::{Deserialize, Serialize};

use super::lossless::{JsonPath, JsonTime};

/// A mount and everything that goes on in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The project directory.
    pub mountpoint: JsonPath,
    /// Where the real files are; the same as `mountpoint` without `--backing`.
    pub backing: JsonPath,
    /// The daemon.
    pub pid: u32,
    /// When it mounted.
    pub since: JsonTime,
    /// What the kernel gave to this mount.
    pub features: Vec<Feature>,
    /// The rules file in force; none means the built-in rules.
    pub rules: Option<JsonPath>,
    /// Why a newer rules file is not in force.
    pub rules_error: Option<String>,
    /// The files for which the rules in force do not hold yet, because somebody has them open.
    #[serde(default)]
    pub rules_pending: Vec<Pending>,
    /// The sessions open, oldest first.
    pub sessions: Vec<SessionStatus>,
    /// The flock(2) locks held, oldest file first.
    #[serde(default)]
    pub locks: Vec<LockStatus>,
    /// Since the mount.
    pub counts: Counts,
    /// What failed, or was done without keeping the version before, and left nothing in `recovered`; the last ones since the mount, newest first.
    #[serde(default)]
    pub incidents: Vec<Incident>,
    /// Publishes that failed or were refused, newest first.
    pub refused: Vec<Kept>,
    /// What was staged and never published, newest first.
    pub recovered: Vec<Kept>,
}

/// A file that stays what it is until nobody has it open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Relative to the project.
    pub file: JsonPath,
    /// What it is: coordinated, or ordinary.
    pub coordinated: bool,
}

/// Something that the kernel has or lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// As in `concord doctor`: `passthrough`, `resend` ...; `processes`: /proc tells of those that the kernel names.
    pub name: String,
    /// In use.
    pub on: bool,
}

/// One open session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Relative to the project.
    pub file: JsonPath,
    /// Its holder; 0 when it is in another pid namespace.
    pub pid: u32,
    /// The holder's command name.
    pub command: String,
    /// The agent that the holder belongs to, where it can be told.
    pub agent: Option<String>,
    /// For how long, in milliseconds.
    pub held_ms: u64,
    /// `open`, `publishing` ...
    pub state: String,
    /// Who waits for it, first come first.
    pub waiting: Vec<Waiter>,
}

/// One open that waits for a session to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    /// The process; 0 when it is in another pid namespace.
    pub pid: u32,
    /// Its command name.
    pub command: String,
    /// For how long, in milliseconds.
    pub waited_ms: u64,
}

/// The flock(2) lock of one file. fcntl(2) locks are the kernel's, and not listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockStatus {
    /// Relative to the project; none when the file has no name any more.
    pub file: Option<JsonPath>,
    /// Who has it: one process, or several with shared locks.
    pub held: Vec<LockParty>,
    /// Who waits for it, first come first.
    pub waiting: Vec<LockParty>,
}

/// A process that has a lock or waits for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockParty {
    /// Which called flock(2); 0 when it is in another pid namespace. Others may have the descriptor since.
    pub pid: u32,
    /// Its command name.
    pub command: String,
    /// `shared` or `exclusive`.
    pub kind: String,
    /// For how long, in milliseconds.
    pub for_ms: u64,
}

/// Events since the mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Versions published.
    pub publishes: u64,
    /// Opens that had to wait.
    pub waits: u64,
    /// Opens and the like that were refused with EBUSY or EWOULDBLOCK; LOCK_NB that did not get its lock is none.
    pub busy: u64,
    /// Opens refused with EDEADLK.
    pub deadlocks: u64,
    /// Waits that a signal ended (EINTR).
    pub interrupted: u64,
    /// Sessions discarded: killed writers, ended leases, forced unmounts.
    pub discarded: u64,
    /// Publishes that failed.
    pub failed: u64,
    /// Writes that replaced a version that the writer had not seen.
    pub stale: u64,
    /// Versions written by a descriptor that outlived its session.
    pub late: u64,
}

impl Counts {
    /// Each count with its name, in the order of the listing.
    pub fn each(&self) -> [(&'static str, u64); 9] {
        [
            ("publishes", self.publishes),
            ("waits", self.waits),
            ("busy", self.busy),
            ("deadlocks", self.deadlocks),
            ("interrupted", self.interrupted),
            ("discarded", self.discarded),
            ("failed", self.failed),
            ("stale", self.stale),
            ("late", self.late),
        ]
    }
}

/// Something that a person should know of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// The file, relative to the project.
    pub path: JsonPath,
    /// When.
    pub time: JsonTime,
    /// What happened.
    pub why: String,
}

/// Content that was not published and is kept, with why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The file that it was meant for, relative to the project.
    pub path: JsonPath,
    /// When it was set aside.
    pub time: JsonTime,
    /// Why it was not published.
    pub why: String,
    /// Where it is kept, relative to the project.
    pub kept: JsonPath,
    /// Its size.
    pub bytes: u64,
    /// Who wrote it; 0 when unknown.
    pub pid: u32,
    /// The writer's command name; empty when unknown.
    pub command: String,
}
