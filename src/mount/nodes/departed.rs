//! Nodes that a coordinated name has led to until lately: a thread that has found one by it may be about to open it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::node::{Name, NodeId};

/// A thread that has found a node opens it at once; after this long none is on its way any more.
const ON_THE_WAY_AT_MOST: Duration = Duration::from_secs(30);
/// More entries than this are worth looking through for those that are too old.
const SWEEP_MIN: usize = 1024;

/// By node, the name that went.
#[derive(Debug, Default)]
pub(super) struct Departed(HashMap<NodeId, Gone>);

#[derive(Debug)]
struct Gone {
    name: Name,
    since: Instant,
    /// The file has a link less by it.
    unlinked: bool,
}

impl Departed {
    pub fn note(&mut self, node: NodeId, name: &Name, unlinked: bool, now: Instant) {
        let gone = Gone {
            name: name.clone(),
            since: now,
            unlinked: unlinked || self.is_unlinked(node, now),
        };
        self.0.insert(node, gone);
        if self.0.len() >= SWEEP_MIN && self.0.len().is_power_of_two() {
            self.0.retain(|_, gone| gone.is_recent(now));
        }
    }

    pub fn name_of(&self, node: NodeId, now: Instant) -> Option<&Name> {
        self.recent(node, now).map(|gone| &gone.name)
    }

    /// Whether it has a link less since then.
    pub fn is_unlinked(&self, node: NodeId, now: Instant) -> bool {
        self.recent(node, now).is_some_and(|gone| gone.unlinked)
    }

    fn recent(&self, node: NodeId, now: Instant) -> Option<&Gone> {
        self.0.get(&node).filter(|gone| gone.is_recent(now))
    }

    /// The kernel has forgotten a node: nobody is on the way to it, and its number may be another file's soon.
    pub fn forget(&mut self, node: NodeId) {
        self.0.remove(&node);
    }
}

impl Gone {
    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) <= ON_THE_WAY_AT_MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::nodes::ROOT;

    #[test]
    fn what_a_node_was_called_is_known_for_a_while() {
        let (mut departed, start) = (Departed::default(), Instant::now());
        let name = |number: u64| Name::new(ROOT, number.to_string().as_ref());
        let late = start + ON_THE_WAY_AT_MOST + Duration::from_millis(1);
        departed.note(NodeId(1), &name(1), true, start);
        assert_eq!(departed.name_of(NodeId(1), start + ON_THE_WAY_AT_MOST), Some(&name(1)));
        assert_eq!(departed.name_of(NodeId(1), late), None);
        assert_eq!(departed.name_of(NodeId(2), start), None);
        departed.note(NodeId(1), &name(2), false, start);
        assert!(departed.is_unlinked(NodeId(1), start) && !departed.is_unlinked(NodeId(1), late));
        (2..=SWEEP_MIN as u64).for_each(|number| departed.note(NodeId(number), &name(number), false, late));
        assert!(!departed.is_unlinked(NodeId(2), late));
        assert_eq!(departed.0.len(), SWEEP_MIN - 1, "those that are too old go");
    }
}
