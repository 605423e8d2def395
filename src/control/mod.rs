//! The daemon's socket: a versioned, bounded protocol; its server, its client, and the trait that both sides meet in.
//!
//! Connecting *through* the mount finds the FUSE inode and not the socket that the daemon bound, so clients reach the
//! socket through the daemon's own descriptor of the backing tree; [`beacon`] says where that is.

pub mod beacon;
pub mod client;
pub mod lossless;
pub mod protocol;
pub mod server;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use lossless::{JsonBytes, JsonPath, JsonTime};
pub use status::{Counts, Feature, Incident, Kept, LockParty, LockStatus, Pending, SessionStatus, Status, Waiter};

/// Who asks, as the kernel says (SO_PEERCRED, unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Process id of the client when it connected.
    pub pid: u32,
    /// Its effective user id then.
    pub uid: u32,
}

/// What a mount can be asked. The server calls it from several threads at once.
pub trait Service: Send + Sync {
    /// The state of the mount now.
    fn status(&self) -> Status;

    /// Publishes version `version` of `file` as a new version, queueing like any other writer.
    /// `file` is relative to the project.
    fn restore(&self, file: &Path, version: u64, peer: Peer) -> Result<Restored, Refused>;

    /// Unmounts. [`Unmounting::Force`] while another call waits ends that wait.
    fn unmount(&self, how: Unmounting, peer: Peer) -> Result<(), Refused>;

    /// What is kept under `.concord/recovered/`, newest first.
    fn recovered(&self) -> Vec<Kept>;

    /// How long a stop by signal waits for open sessions.
    fn grace(&self) -> Duration;
}

/// How to unmount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmounting {
    /// When the open sessions have ended; not while anybody works in the mount.
    Wait,
    /// The same, but working directories in the mount are left in what is detached then. Not while a file is open.
    LeaveDirectories,
    /// Now: open sessions are discarded into `recovered/`.
    Force,
}

/// A restore that was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The file, relative to the project.
    pub file: JsonPath,
    /// The version that was asked for.
    pub from: u64,
    /// The number it has as the current version.
    pub version: u64,
    /// Its size.
    pub bytes: u64,
}

/// Why the daemon said no. `why` is for people and says what to do where something can be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{why}")]
pub struct Refused {
    /// For programs.
    pub kind: RefusedKind,
    /// For people.
    pub why: String,
}

impl Refused {
    /// A refusal with its reason.
    pub fn new(kind: RefusedKind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into() }
    }
}

/// The kinds of [`Refused`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusedKind {
    /// The request was not understood: garbage, too long, too late, another protocol version, an unknown command.
    BadRequest,
    /// The caller may not ask this (EPERM, EACCES).
    Permission,
    /// No such file or version (ENOENT).
    NotFound,
    /// Somebody else holds what is needed, or too many clients ask at once (EBUSY).
    Busy,
    /// The disk or the kernel failed (EIO, ENOSPC ...).
    Failed,
}
