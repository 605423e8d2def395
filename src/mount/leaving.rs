//! Ordinary names that rename(2) is about to make coordinated ones. The kernel moves its entry along with the time that it may be kept, and by it would show what the
//! coordinated name leads to no more. So the rename is answered ESTALE once: the kernel then looks the name up anew (`retry_estale`, LOOKUP_REVAL), and is told
//! to keep nothing. FUSE_NOTIFY_INVAL_ENTRY would take the directory's lock, which somebody may hold who waits for us: a daemon that is killed then never ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::nodes::Name;

/// A thread that never came back is forgotten.
const COMES_BACK_WITHIN: Duration = Duration::from_secs(30);

/// The names, with the threads that are on their way.
#[derive(Debug, Default)]
pub struct Leaving {
    names: Mutex<Vec<(Name, u32, Instant)>>,
    count: AtomicUsize,
}

impl Leaving {
    /// Whether the thread must be sent round with this name. It need not when it is back.
    pub fn sends_round(&self, name: &Name, tid: u32) -> bool {
        let mut names = self.names.lock();
        names.retain(|(_, _, since)| since.elapsed() < COMES_BACK_WITHIN);
        let is_new = !names.iter().any(|(other, thread, _)| (other, *thread) == (name, tid));
        if is_new {
            names.push((name.clone(), tid, Instant::now()));
        }
        self.count.store(names.len(), Ordering::Release);
        is_new
    }

    /// The rename is over.
    pub fn done(&self, name: &Name, tid: u32) {
        let mut names = self.names.lock();
        names.retain(|(other, thread, _)| (other, *thread) != (name, tid));
        self.count.store(names.len(), Ordering::Release);
    }

    /// Whether the kernel must keep nothing by this name.
    pub fn holds(&self, name: &Name) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.names.lock().iter().any(|(other, ..)| other == name)
    }
}
