//! What the kernel must keep nothing of for a while, though it may otherwise keep it long ([`Tree::ttl`](super::tree::Tree::ttl)).
//!
//! *Names*: ordinary ones that rename(2) is about to make coordinated ones. The kernel moves its entry along with the time that it may be kept, and by it would show
//! what the coordinated name leads to no more. So the rename is answered ESTALE once: the kernel then looks the name up anew (`retry_estale`, LOOKUP_REVAL), and is
//! told to keep nothing. FUSE_NOTIFY_INVAL_ENTRY would take the directory's lock, which somebody may hold who waits for us: a daemon that is killed then never ends.
//!
//! *Directories*: those whose attributes the kernel is to ask for on the walk of a thread that waits there (`coordinated/rounds.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::nodes::{Identity, Name};

/// The names and directories, each as often as somebody holds it.
#[derive(Debug, Default)]
pub struct Unkept {
    held: Mutex<(Vec<Name>, Vec<Identity>)>,
    count: AtomicUsize,
}

/// While it lives the kernel is told to keep nothing of these.
#[derive(Debug)]
pub struct Hold {
    unkept: Arc<Unkept>,
    names: Vec<Name>,
    directory: Option<Identity>,
}

impl Unkept {
    /// From now on the kernel keeps nothing of these, where it has nothing yet.
    pub fn hold(self: &Arc<Self>, names: Vec<Name>, directory: Option<Identity>) -> Hold {
        let mut held = self.held.lock();
        held.0.extend(names.iter().cloned());
        held.1.extend(directory);
        self.count(&held);
        drop(held);
        Hold {
            unkept: Arc::clone(self),
            names,
            directory,
        }
    }

    /// Whether the kernel must keep nothing by this name.
    pub fn has_name(&self, name: &Name) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.held.lock().0.contains(name)
    }

    /// Whether the kernel must not keep the attributes of this directory.
    pub fn has_directory(&self, identity: &Identity) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.held.lock().1.contains(identity)
    }

    fn count(&self, held: &(Vec<Name>, Vec<Identity>)) {
        self.count.store(held.0.len() + held.1.len(), Ordering::Release);
    }
}

impl Hold {
    /// The kernel has asked for the directory.
    pub fn let_directory_go(&mut self) {
        if let Some(directory) = self.directory.take() {
            let mut held = self.unkept.held.lock();
            remove_one(&mut held.1, &directory);
            self.unkept.count(&held);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.let_directory_go();
        let mut held = self.unkept.held.lock();
        self.names.iter().for_each(|name| remove_one(&mut held.0, name));
        self.unkept.count(&held);
    }
}

fn remove_one<T: PartialEq>(all: &mut Vec<T>, one: &T) {
    if let Some(at) = all.iter().position(|other| other == one) {
        all.swap_remove(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::nodes::ROOT;

    #[test]
    fn what_two_hold_is_unkept_until_both_let_go() {
        let unkept = Arc::new(Unkept::default());
        let name = Name::new(ROOT, "a".as_ref());
        let directory = Identity {
            dev: 1,
            ino: 2,
            private: false,
        };
        let has = |both: (bool, bool)| assert_eq!((unkept.has_name(&name), unkept.has_directory(&directory)), both);
        has((false, false));
        let mut first = unkept.hold(vec![name.clone()], Some(directory));
        let second = unkept.hold(vec![name.clone()], Some(directory));
        has((true, true));
        drop(second);
        has((true, true));
        first.let_directory_go();
        has((true, false));
        drop(first);
        has((false, false));
    }
}
