//! Who changes what a name leads to, one after the other. The queue of writers does not see to that: private and late sessions, and renames
//! by the lineage that holds a session, are not kept waiting by it (W3), and several of them may come to their end at once.

use std::collections::HashSet;

use parking_lot::{Condvar, Mutex};

use crate::mount::nodes::Name;

/// The names that are being changed now.
#[derive(Default)]
pub(super) struct Turns {
    taken: Mutex<HashSet<Name>>,
    freed: Condvar,
}

/// A turn at some names; over when dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    names: Vec<Name>,
}

impl Turns {
    /// Waits until nobody else changes any of these names. Only for worker threads, and for one turn at a time: it may last as long as the disk
    /// takes. All of them are taken in one step, so that two turns cannot wait for each other.
    pub fn take(&self, names: &[&Name]) -> Turn<'_> {
        let mut taken = self.taken.lock();
        while names.iter().any(|name| taken.contains(*name)) {
            self.freed.wait(&mut taken);
        }
        taken.extend(names.iter().map(|name| (*name).clone()));
        Turn {
            turns: self,
            names: names.iter().map(|name| (*name).clone()).collect(),
        }
    }

    /// The same if it is nobody else's just now, for a thread that reads requests too: for as long as a change of metadata takes.
    pub fn try_take(&self, name: &Name) -> Option<Turn<'_>> {
        self.taken.lock().insert(name.clone()).then(|| Turn {
            turns: self,
            names: vec![name.clone()],
        })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut taken = self.turns.taken.lock();
        for name in &self.names {
            taken.remove(name);
        }
        self.turns.freed.notify_all();
    }
}
