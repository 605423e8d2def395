//! The queue of writers over all coordinated files, as one pure state machine. No I/O, no clock, no threads:
//! the caller tells the time with each call and carries out what comes back.
//!
//! Contract claims W1 (one writer at a time, first come first served), W2 (bounded wait), W3 (no self-deadlock)
//! and W4 (no deadlock across files); W8's zero-length sessions queue here like all others.
//!
//! [`Queue`] is the way in; [`Flocks`] is a table of its own (W12). `line.rs` is one file's sessions and waiters, `deadlock.rs` the waits-for graph and
//! the argument why it refuses real deadlocks and nothing else.

mod deadlock;
mod flock;
mod line;
mod queue;
mod types;

#[cfg(test)]
mod tests;

pub use flock::{Flocks, LockKey, LockMode, LockOwner, Locked};
pub use line::{Session, SessionKind, WaiterInfo};
pub use queue::Queue;
pub use types::{Admission, FileKey, Intent, Millis, Opener, Patience, ProcId, Refusal, SessionId, Ticket, Wake};
