//! How often what happened, since the mount.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Counted {
    /// Versions published.
    Published,
    /// Sessions that had nothing to publish.
    Unchanged,
    /// Requests that had to wait.
    Waited,
    /// Waits that ended with EBUSY.
    Busy,
    /// Opens refused at once, EWOULDBLOCK.
    WouldBlock,
    /// Opens refused with EDEADLK.
    Deadlock,
    /// Waits that a signal ended.
    Interrupted,
    /// Sessions of killed writers.
    Killed,
    /// Sessions discarded because their lease ran out.
    Expired,
    /// Publishes that failed.
    Failed,
    /// Versions that replaced one that their writer had not seen.
    Stale,
    /// Versions by descriptors that outlived their session.
    Late,
}

/// The counters.
#[derive(Debug, Default)]
pub struct Counts([AtomicU64; Counted::Late as usize + 1]);

impl Counts {
    /// One more.
    pub fn add(&self, what: Counted) {
        self.0[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often so far.
    pub fn get(&self, what: Counted) -> u64 {
        self.0[what as usize].load(Ordering::Relaxed)
    }
}
