//! A bounded cache of directory descriptors.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;

use super::nodes::NodeId;

/// Descriptors (`O_PATH`) of the directories last used, by node. A descriptor stays right when its directory is renamed, so
/// entries leave only when room is needed or their node goes.
#[derive(Debug)]
pub struct DirCache {
    inner: Mutex<Clock>,
}

/// The clock algorithm: an entry that was used since the hand last passed gets a second chance.
#[derive(Debug)]
struct Clock {
    index: HashMap<NodeId, usize>,
    slots: Vec<Option<Slot>>,
    hand: usize,
}

#[derive(Debug)]
struct Slot {
    id: NodeId,
    fd: Arc<OwnedFd>,
    used: bool,
}

impl DirCache {
    /// A cache of at most `descriptors_max` descriptors.
    pub fn new(descriptors_max: usize) -> DirCache {
        let slots = (0..descriptors_max.max(1)).map(|_| None).collect();
        DirCache {
            inner: Mutex::new(Clock {
                index: HashMap::new(),
                slots,
                hand: 0,
            }),
        }
    }

    /// The descriptor of a directory, when it is here.
    pub fn get(&self, id: NodeId) -> Option<Arc<OwnedFd>> {
        let mut clock = self.inner.lock();
        let at = *clock.index.get(&id)?;
        let slot = clock.slots[at].as_mut()?;
        slot.used = true;
        Some(Arc::clone(&slot.fd))
    }

    /// Remembers a directory's descriptor; another directory may have to go.
    pub fn insert(&self, id: NodeId, fd: Arc<OwnedFd>) {
        let evicted = {
            let mut clock = self.inner.lock();
            if let Some(&at) = clock.index.get(&id) {
                clock.slots[at].replace(Slot { id, fd, used: true })
            } else {
                clock.take_slot(Slot { id, fd, used: true })
            }
        };
        // close(2) happens outside the lock.
        drop(evicted);
    }

    /// Forgets a directory: its node goes, and the number may come back for another one.
    pub fn remove(&self, id: NodeId) {
        let mut clock = self.inner.lock();
        if let Some(at) = clock.index.remove(&id) {
            clock.slots[at] = None;
        }
    }
}

impl Clock {
    fn take_slot(&mut self, new: Slot) -> Option<Slot> {
        loop {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            if let Some(slot) = &mut self.slots[at]
                && slot.used
            {
                slot.used = false;
                continue;
            }
            self.index.insert(new.id, at);
            let old = self.slots[at].replace(new);
            if let Some(old) = &old {
                self.index.remove(&old.id);
            }
            return old;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    fn fd() -> Arc<OwnedFd> {
        Arc::new(std::fs::File::open("/").unwrap().into())
    }

    #[test]
    fn a_full_cache_lets_the_directory_go_that_was_not_used() {
        let cache = DirCache::new(2);
        cache.insert(NodeId(10), fd());
        cache.insert(NodeId(11), fd());
        cache.insert(NodeId(12), fd());
        cache.get(NodeId(12)).unwrap();
        let kept = [10, 11, 12]
            .iter()
            .filter(|&&id| cache.get(NodeId(id)).is_some())
            .count();
        assert_eq!(kept, 2);
        cache.insert(NodeId(13), fd());
        assert!(cache.get(NodeId(13)).is_some());
    }

    #[test]
    fn a_second_insert_replaces_the_descriptor_and_remove_forgets_it() {
        let cache = DirCache::new(4);
        cache.insert(NodeId(10), fd());
        let second = fd();
        cache.insert(NodeId(10), Arc::clone(&second));
        assert_eq!(cache.get(NodeId(10)).unwrap().as_raw_fd(), second.as_raw_fd());
        cache.remove(NodeId(10));
        assert!(cache.get(NodeId(10)).is_none());
    }
}
