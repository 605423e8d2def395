//! By which of its names a node was opened. OPEN does not say, and a file may have names that the rules coordinate and others; or it had one of the former when the
//! thread found it, and has left it since, for an ordinary one. Then the thread is sent round: the LOOKUP of its second walk says which name it means, and finds a
//! node of its own by a coordinated one.

use std::time::Instant;

use rustix::fs::Stat;

use super::files::{Finds, InHand};
use super::{Coordination, Target};
use crate::mount::attr;
use crate::mount::nodes::{Name, NodeId};
use crate::mount::tree::Caller;
use crate::session::FileKey;

/// By which of its names a node was opened.
#[derive(Debug, Clone)]
pub enum Opened {
    /// By one that the rules coordinate.
    Coordinated(Target),
    /// By one that they do not.
    Ordinary,
    /// The kernel must walk the path again, then it is known.
    Unknown,
}

/// The same, where the node may have been opened by either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CameBy {
    Coordinated,
    Ordinary,
    Unknown,
}

impl Coordination {
    /// By which of its names a thread has come to a node, to open it or to truncate what its path leads to; `reads`: it only wants to read.
    pub fn opened_by(&self, caller: Caller, node: NodeId, reads: bool) -> Opened {
        // In this order: a name is noted before it leads elsewhere.
        let now = self.target_of(node);
        if let Some(target) = &now
            && self.files.lock().was_sent(caller.tid)
        {
            let in_hand = InHand::take(&self.files, &target.name);
            self.comes_back(caller, node, in_hand.key());
        }
        let target = match now {
            Some(target) if !self.is_mixed(node) => return Opened::Coordinated(target),
            Some(target) => target,
            None => match self.departed_from(node) {
                Some(target) => target,
                None if !reads && self.is_kept_version(node) => return Opened::Unknown,
                None => return Opened::Ordinary,
            },
        };
        let in_hand = InHand::take(&self.files, &target.name);
        let key = in_hand.key();
        let mut files = self.files.lock();
        let finds = match caller.tid {
            0 if files.is_back_on_own(0, key, node) => Some(Finds::Own(Some(node))),
            // Whoever looks up the coordinated name now finds another one.
            0 => files.expects_strangers(key).then_some(Finds::Own(None)),
            tid => files.reroute(tid, key).map(|reroute| reroute.finds),
        };
        match came_by(finds, node, reads) {
            CameBy::Coordinated => return Opened::Coordinated(target),
            CameBy::Ordinary => {
                files.take_reroute(caller.tid, key);
                return Opened::Ordinary;
            }
            CameBy::Unknown => {}
        }
        drop(files);
        self.arrived(caller, key, node);
        let names = self.names(node);
        let mut files = self.files.lock();
        match reads {
            true => files.send_round_to_read(caller.tid, (key, names)),
            false => files.send_round(caller.tid, (key, names), Finds::Own(None), None),
        }
        Opened::Unknown
    }

    /// The names by which a thread may have come to a node: those that it has, and one that has led to it until lately.
    pub(super) fn names(&self, node: NodeId) -> Vec<Name> {
        let info = self.tree.nodes.info(node);
        let departed = self.tree.nodes.departed_from(node, Instant::now());
        info.into_iter().flat_map(|info| info.names).chain(departed).collect()
    }

    /// A thread that has come to a node will be answered ESTALE: see [`Files::send_round`](super::files::Files::send_round).
    pub(super) fn go_round(&self, caller: Caller, (file, node): (FileKey, NodeId), finds: Finds) {
        let names = self.names(node);
        self.files.lock().send_round(caller.tid, (file, names), finds, None);
    }

    /// The same, to a node of its own, unless the thread comes from there already.
    pub(super) fn goes_round_once(&self, caller: Caller, (file, node): (FileKey, NodeId)) -> bool {
        let names = self.names(node);
        self.files.lock().send_round_once(caller.tid, (file, names))
    }

    /// A thread has come to a node, whose file has this key by now: see [`Files::follow`](super::files::Files::follow).
    pub(super) fn comes_back(&self, caller: Caller, node: NodeId, file: FileKey) {
        self.files.lock().follow(caller.tid, &self.names(node), file);
    }

    /// Whether names that the rules coordinate and others lead to a node, as far as it knows them: then it belongs to the latter.
    pub(super) fn is_mixed(&self, node: NodeId) -> bool {
        let names = self.tree.nodes.info(node).map_or(0, |info| info.names.len());
        names > 1 && self.has_ordinary_name(node)
    }

    /// Whether a node stands for a version of a file that was removed, and then its directory: no rule says any more that it is coordinated, and its inode is the
    /// history's (H1). An ordinary file that was removed has no name left.
    fn is_kept_version(&self, node: NodeId) -> bool {
        let nodes = &self.tree.nodes;
        let is_nowhere = |name: &Name| nodes.path_of(name.parent).is_none();
        let has_lost_its_directory = || nodes.info(node).is_some_and(|info| info.names.iter().any(is_nowhere));
        nodes.is_detached(node) && has_lost_its_directory() && self.files.lock().session_on(node).is_none()
    }

    /// Whether one of the names of a node is not coordinated.
    pub(super) fn has_ordinary_name(&self, node: NodeId) -> bool {
        let info = self.tree.nodes.info(node);
        let is_ordinary = |name: &Name| self.target(name.parent, &name.name).is_none();
        info.is_some_and(|info| info.names.iter().any(is_ordinary))
    }

    /// A coordinated name is about to lead elsewhere, and its file stays, or comes, where an ordinary name leads to: who has just found it may be about to open it.
    /// `unlinked`: it has a link less then.
    pub(super) fn will_depart(&self, name: &Name, unlinked: bool) {
        let found = |stat: Stat| self.tree.nodes.find(attr::identity(&stat, false));
        let led_to = [self.stat(name), self.stat_backing(name)].into_iter().flatten();
        let nodes = led_to.filter_map(found).chain(self.tree.nodes.formers(name));
        let now = Instant::now();
        nodes.for_each(|node| self.tree.nodes.will_depart(node, name, unlinked, now));
    }

    /// Whether a coordinated name that led to a node was unlinked lately. The kernel counts its links down when it learns of that, also where it has been told the new
    /// count meanwhile; at 0 it does not link the file any more. So who links it must ask anew.
    pub fn is_left_by_name(&self, node: NodeId) -> bool {
        self.tree.nodes.is_unlinked(node, Instant::now())
    }

    /// The coordinated name that has led to a node until lately.
    pub(super) fn departed_from(&self, node: NodeId) -> Option<Target> {
        let name = self.tree.nodes.departed_from(node, Instant::now())?;
        let target = self.target(name.parent, &name.name)?;
        Some(self.for_all_names(target))
    }
}

/// By which name a thread has come that `finds` what it was sent round for, if it was.
fn came_by(finds: Option<Finds>, node: NodeId, reads: bool) -> CameBy {
    match finds {
        // It has looked up another name than the coordinated one, or none.
        Some(Finds::Own(None)) => CameBy::Ordinary,
        Some(Finds::Own(Some(own))) if own == node => CameBy::Coordinated,
        // It was going to read by the coordinated name, and cannot be sent round again.
        Some(Finds::Current) if reads => CameBy::Coordinated,
        // That was on another way, which is over.
        Some(Finds::Own(Some(_)) | Finds::Current | Finds::Attributes) | None => CameBy::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_looked_up_the_coordinated_name_on_its_way_is_told_from_who_has_not() {
        let (node, other) = (NodeId(7), NodeId(8));
        for reads in [false, true] {
            let cases = [
                (None, CameBy::Unknown),
                (Some(Finds::Own(None)), CameBy::Ordinary),
                (Some(Finds::Own(Some(node))), CameBy::Coordinated),
                (Some(Finds::Own(Some(other))), CameBy::Unknown),
                (Some(Finds::Attributes), CameBy::Unknown),
            ];
            for (finds, by) in cases {
                assert_eq!(came_by(finds, node, reads), by, "{finds:?} {reads}");
            }
        }
        assert_eq!(came_by(Some(Finds::Current), node, true), CameBy::Coordinated);
        assert_eq!(came_by(Some(Finds::Current), node, false), CameBy::Unknown);
    }
}
