//! How long a file is that grows (W10): as far as its readers may see, and as the kernel counts.
//!
//! sendfile(2) and copy_file_range(2) go by the size that the kernel has for the node, and ask nobody. The kernel adds what is written by the node, to what it had. It
//! hears nothing of lines that come by another node (whose version was replaced), and takes for there what we hold back: from then on the end that it counts is somewhere
//! within a line. So it is told better as soon as more is there than it has counted. Where it has counted more than there is, it finds out by itself when it reads a page.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Coordination;
use super::append::Appender;
use super::staged::read_at;
use crate::mount::attr;
use crate::mount::nodes::{Identity, NodeId};
use crate::mount::pin::Pin;
use crate::mount::tree::Tree;

/// The files that grow just now.
pub(super) type Growing = HashMap<Identity, Arc<Length>>;

/// How long such a file is, in bytes.
#[derive(Debug)]
pub(super) struct Length {
    committed: AtomicU64,
    /// What the kernel has counted that is not committed; 0 for nothing.
    counted: AtomicU64,
    /// How long it was when the kernel read pages of it, which are filled up with zeros behind that; 0 when it keeps none.
    paged: AtomicU64,
    /// Held by who has the kernel drop them.
    dropping: Mutex<()>,
}

/// What the kernel has of a node that is not so any more, or will not be when it has the answer that is to come.
#[derive(Debug)]
pub struct Outdated {
    node: NodeId,
    pages: Pages,
    /// It counts less.
    size: Option<u64>,
}

#[derive(Debug)]
enum Pages {
    /// Those that were read before the file was so long.
    Before(Arc<Length>, u64),
    /// Those from an offset on.
    From(u64),
}

impl Length {
    pub fn new(committed: u64) -> Length {
        Length {
            committed: AtomicU64::new(committed),
            counted: AtomicU64::new(0),
            paged: AtomicU64::new(0),
            dropping: Mutex::new(()),
        }
    }

    /// Readers, stat(2) and st_size know of so much.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::SeqCst)
    }

    /// So much is committed. Returns whether the kernel has counted less by now, and counted more than was committed before.
    pub fn commit(&self, to: u64) -> bool {
        self.committed.store(to, Ordering::SeqCst);
        let counted = self.counted.load(Ordering::SeqCst);
        if counted <= to {
            self.counted.store(0, Ordering::SeqCst);
        }
        counted != 0 && counted < to
    }

    /// The kernel counts up to `end` after a write. Returns what is committed, if that is more.
    pub fn count(&self, end: u64) -> Option<u64> {
        // In this order: who commits meanwhile sees it, or is seen.
        self.counted.store(end, Ordering::SeqCst);
        let committed = self.committed();
        if end <= committed {
            self.counted.store(0, Ordering::SeqCst);
        }
        Some(committed).filter(|committed| end < *committed)
    }

    /// The kernel reads pages, and is given so much.
    pub fn page(&self) -> u64 {
        let before = self.committed();
        let earliest = |paged| (paged == 0 || before < paged).then_some(before);
        let _ = self.paged.fetch_update(Ordering::SeqCst, Ordering::SeqCst, earliest);
        // After that: whoever is about to tell it of more has seen that it has pages.
        self.committed()
    }

    /// The kernel is about to learn that it is `size` bytes long. Whether pages that it may have must go first.
    pub fn is_outdated(&self, size: u64) -> bool {
        let paged = self.paged.load(Ordering::SeqCst);
        // In this order: who has them dropped holds the lock until they are.
        (paged != 0 && paged < size) || self.dropping.is_locked()
    }

    /// Has them dropped, from where on it is told.
    pub fn drop_outdated(&self, size: u64, drop_from: impl FnOnce(u64)) {
        let _dropping = self.dropping.lock();
        let is_outdated = |paged| (paged != 0 && paged < size).then_some(0);
        let paged = self.paged.fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_outdated);
        if let Ok(from) = paged {
            drop_from(from);
        }
    }
}

impl Coordination {
    /// The committed length of the file that a node stands for, while lines are appended to it. The kernel must not remember it.
    pub fn growing(&self, node: NodeId) -> Option<u64> {
        self.length_of(node).map(|length| length.committed())
    }

    /// The same of an open file, of which somebody reads; the kernel `pages` for sendfile(2) or a mapping.
    pub fn growing_of(&self, pin: &Pin, pages: bool) -> Option<u64> {
        let growing = self.logs.growing.read();
        if growing.is_empty() {
            return None;
        }
        let length = growing.get(&attr::identity(&rustix::fs::fstat(pin.fd()).ok()?, false))?;
        Some(if pages { length.page() } else { length.committed() })
    }

    /// What the kernel must be told before the answer to a write that it sends for `offset`, and of which so many bytes are taken.
    pub fn outdated_by_write(&self, appender: &Appender, offset: u64, count: u32) -> Option<Outdated> {
        if let Some(overtaken) = appender.overtaken.lock().take() {
            return Some(overtaken);
        }
        let node = appender.file.node;
        let counted = offset + u64::from(count);
        if let Some(length) = self.length_of(node) {
            let size = length.count(counted);
            let end = size.unwrap_or(counted);
            let is_outdated = size.is_some() || length.is_outdated(end);
            let pages = Pages::Before(length, end);
            return is_outdated.then_some(Outdated { node, pages, size });
        }
        // What is written goes elsewhere, and the kernel counts it here: to within a line, where it had counted less than there is.
        let stat = rustix::fs::fstat(self.tree.nodes.open_pin(node)?.fd()).ok()?;
        let size = stat.st_size.max(0) as u64;
        if counted < size {
            return Some(Outdated {
                node,
                pages: Pages::From(0),
                size: Some(size),
            });
        }
        // It finds out when it reads a page, if it has none.
        let end = self.paged_end(node)?;
        let pages = Pages::From(end);
        Some(Outdated {
            node,
            pages,
            size: None,
        })
    }

    /// The same before the answer that a node is `size` bytes long: the kernel goes by the new size before it drops the pages.
    pub fn outdated_by_size(&self, node: NodeId, size: i64) -> Option<Outdated> {
        let (length, end) = (self.length_of(node)?, size as u64);
        let is_outdated = length.is_outdated(end);
        let pages = Pages::Before(length, end);
        is_outdated.then_some(Outdated {
            node,
            pages,
            size: None,
        })
    }

    fn length_of(&self, node: NodeId) -> Option<Arc<Length>> {
        let growing = self.logs.growing.read();
        if growing.is_empty() {
            return None;
        }
        growing.get(&self.tree.nodes.identity(node)?).map(Arc::clone)
    }

    /// Lines have come by the node `by`, to a file that is `size` bytes long now, and of which the kernel had counted what was not there, by another node.
    pub(super) fn overtook_count(
        &self,
        (identity, length): (Identity, &Arc<Length>),
        by: NodeId,
        size: u64,
    ) -> Option<Outdated> {
        // Where it is that node, the answer to the write tells of it.
        let node = self.tree.nodes.find(identity).filter(|node| *node != by)?;
        let pages = Pages::Before(Arc::clone(length), size);
        Some(Outdated {
            node,
            pages,
            size: Some(size),
        })
    }
}

impl Outdated {
    /// Tells the kernel. Only for worker threads: it waits for pages that are being read.
    pub fn tell(&self, tree: &Tree) {
        match &self.pages {
            Pages::Before(length, size) => length.drop_outdated(*size, |from| tree.drop_pages(self.node, from)),
            Pages::From(end) => tree.drop_pages(self.node, *end),
        }
        let last = self.size.map(|size| size - 1);
        // Where nobody has it open the next who opens it is told.
        if let (Some(last), Some(pin)) = (last, tree.nodes.open_pin(self.node))
            && let Ok([byte]) = pin.reading(|fd| read_at(fd, last, 1)).as_deref()
        {
            tree.tell_longer(self.node, (last, *byte));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Length;

    #[test]
    fn the_kernel_is_told_when_more_is_there_than_it_has_counted() {
        let length = Length::new(100);
        assert_eq!(length.count(100), None, "as long as it thinks");
        assert!(!length.commit(150), "it had counted whole lines");
        assert_eq!(length.count(103), Some(150), "lines came by another node");
        assert_eq!(length.count(153), None, "it has counted what is held back");
        assert!(!length.commit(152), "it still counts more");
        assert!(length.commit(160));
        assert!(!length.commit(170), "it was told");
        assert_eq!(length.count(175), None);
        assert!(!length.commit(175), "what was held back is there, and no more");
        assert!(!length.commit(180));
        assert_eq!(length.committed(), 180);
    }

    #[test]
    fn pages_that_were_read_before_it_grew_are_dropped_before_the_kernel_learns_of_it() {
        let length = Length::new(100);
        assert!(!length.is_outdated(100), "it has no pages");
        assert_eq!(length.page(), 100);
        assert!(!length.is_outdated(100), "they end where the file ends");
        length.commit(150);
        assert_eq!(length.page(), 150, "some of it was read again");
        assert!(length.is_outdated(150));
        let mut dropped = Vec::new();
        length.drop_outdated(150, |from| {
            dropped.push(from);
            assert!(length.is_outdated(150), "who comes meanwhile waits for it");
        });
        assert!(!length.is_outdated(150), "they are gone");
        length.drop_outdated(150, |from| dropped.push(from));
        assert_eq!(dropped, [100]);
    }
}
