//! Ordinary files that somebody may have mapped, to store through the mapping (O_RDWR), where their data pass the daemon by. Such a store changes the file's times, and the
//! kernel, which has attributes of the node that it keeps for long, does not notice (`fuse_passthrough_mmap` maps the file below). It is told when a handle is synced or closed; and because
//! a mapping outlives its descriptor, and ends without a word to us, it keeps them for a second only, as long as there is such a handle and for a while after.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::nodes::NodeId;

/// How long a mapping is reckoned with after the last handle is gone.
const OUTLIVES_BY: Duration = Duration::from_secs(600);
/// More entries than this are worth looking through for those that are too old.
const SWEEP_MIN: usize = 1024;

/// A time of change, st_mtime.
pub type Mtime = (i64, u64);

/// By node.
#[derive(Debug, Default)]
pub struct Mapped(Mutex<HashMap<NodeId, Use>>);

#[derive(Debug)]
struct Use {
    handles: usize,
    /// When the last of them was closed.
    until: Instant,
    /// What the kernel may know.
    seen: Mtime,
}

impl Use {
    fn is_over(&self, now: Instant) -> bool {
        self.handles == 0 && now.saturating_duration_since(self.until) > OUTLIVES_BY
    }
}

impl Mapped {
    /// One more handle by which a node can be mapped to be stored to. `true`: there was none lately.
    pub fn opened(&self, node: NodeId, mtime: Mtime, now: Instant) -> bool {
        let mut table = self.0.lock();
        let is_first = table.get(&node).is_none_or(|used| used.is_over(now));
        let fresh = Use {
            handles: 0,
            until: now,
            seen: mtime,
        };
        if is_first {
            table.insert(node, fresh);
        }
        if let Some(used) = table.get_mut(&node) {
            used.handles += 1;
        }
        if table.len() >= SWEEP_MIN && table.len().is_power_of_two() {
            table.retain(|_, used| !used.is_over(now));
        }
        is_first
    }

    /// Whether the kernel has to be told of this time.
    pub fn has_changed(&self, node: NodeId, mtime: Mtime) -> bool {
        let mut table = self.0.lock();
        let used = table.get_mut(&node);
        used.is_some_and(|used| std::mem::replace(&mut used.seen, mtime) != mtime)
    }

    /// A handle is gone.
    pub fn closed(&self, node: NodeId, now: Instant) {
        if let Some(used) = self.0.lock().get_mut(&node) {
            used.handles = used.handles.saturating_sub(1);
            used.until = now;
        }
    }

    /// Whether the times of a node may change and nobody hear of it.
    pub fn may_be(&self, node: NodeId, now: Instant) -> bool {
        self.0.lock().get(&node).is_some_and(|used| !used.is_over(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o1_a_mapping_is_reckoned_with_while_its_file_is_open_and_for_a_while_after() {
        let (mapped, start) = (Mapped::default(), Instant::now());
        let (node, late) = (NodeId(7), start + OUTLIVES_BY + Duration::from_millis(1));
        assert!(!mapped.may_be(node, start));
        assert!(mapped.opened(node, (1, 0), start));
        assert!(!mapped.opened(node, (1, 0), start));
        mapped.closed(node, start);
        assert!(mapped.may_be(node, late), "there is another handle");
        mapped.closed(node, start);
        assert!(mapped.may_be(node, start + OUTLIVES_BY));
        assert!(!mapped.may_be(node, late));
        assert!(
            mapped.opened(node, (1, 0), late),
            "what the kernel knows by now it keeps for long"
        );
    }

    #[test]
    fn o1_a_time_is_told_once() {
        let (mapped, node) = (Mapped::default(), NodeId(7));
        mapped.opened(node, (1, 0), Instant::now());
        let told = [(1, 0), (1, 1), (1, 1), (0, 5)].map(|mtime| mapped.has_changed(node, mtime));
        assert_eq!(told, [false, true, false, true]);
        assert!(!mapped.has_changed(NodeId(8), (1, 0)));
    }

    #[test]
    fn o1_files_that_were_closed_long_ago_do_not_pile_up() {
        let (mapped, start) = (Mapped::default(), Instant::now());
        let late = start + OUTLIVES_BY + Duration::from_millis(1);
        for number in 1..SWEEP_MIN as u64 {
            mapped.opened(NodeId(number), (1, 0), start);
            mapped.closed(NodeId(number), start);
        }
        mapped.opened(NodeId(1 << 40), (1, 0), late);
        assert_eq!(mapped.0.lock().len(), 1);
    }
}
