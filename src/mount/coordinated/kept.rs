//! Entries of coordinated names that the kernel may keep: those of files that nobody writes, so that a walk to them asks nobody.
//!
//! Who finds what under a name depends on who asks only while somebody writes. Who begins to, and came by an entry that the kernel has kept, is sent round
//! first: the kernel then asks for the name (`retry_estale`, LOOKUP_REVAL) and is told to keep it no longer. What changes a file without a walk (a restore, a late session) may leave a kept entry at
//! the version before. Whoever comes by it is sent round as well: see [`Coordination::is_astray`].

use std::time::Duration;

use super::files::{Finds, InHand};
use super::{Coordination, Target, is_file, nanos_now};
use crate::mount::attr;
use crate::mount::entry::Entry;
use crate::mount::nodes::{Name, NodeId};
use crate::mount::tree::Caller;
use crate::session::FileKey;

/// A file that was changed so lately will soon be changed again: its writer would be sent round each time.
const QUIET_FOR: Duration = Duration::from_secs(1);

impl Coordination {
    /// Whether the kernel may keep the entry that a coordinated name was answered with, and the attributes: nobody writes the file, and everybody finds the same.
    /// `true` is a promise that it will.
    pub fn may_keep(&self, target: &Target, entry: &Entry) -> bool {
        let stat = &entry.stat;
        let changed = i128::from(stat.st_ctime) * 1_000_000_000 + i128::from(stat.st_ctime_nsec);
        let is_quiet = i128::from(nanos_now()) - changed > QUIET_FOR.as_nanos() as i128;
        let is_plain = is_file(stat) && stat.st_nlink == 1 && !attr::has_set_id(stat);
        let is_wanted = !self.tree.shared_backing && !self.tree.unkept.has_name(&target.name);
        if !is_quiet || !is_plain || !is_wanted || self.depends_on_who_asks(entry.id) {
            return false;
        }
        let name = self.key_name(&target.name);
        let is_idle = || self.files.lock().key_of(&name).is_none();
        // In this order: who begins a session has the key in hand, and then looks whether the entry is kept.
        is_idle() && {
            self.tree.nodes.keep(entry.id);
            is_idle()
        }
    }

    fn depends_on_who_asks(&self, node: NodeId) -> bool {
        self.growing(node).is_some()
            || self.has_unsettled_readers(node)
            || self.has_appenders_elsewhere(node)
            || self.tree.is_image(node)
    }

    /// A thread that takes over a node, to which it may have come by an entry that the kernel has kept, will be answered ESTALE: it comes back to the same node, which
    /// counts as left behind until there is a session on it.
    pub(super) fn has_entry_renewed(&self, caller: Caller, key: FileKey, node: NodeId) -> bool {
        // A stranger would not be known again.
        if caller.tid == 0 || !self.tree.nodes.is_kept(node) || self.files.lock().session_on(node).is_some() {
            return false;
        }
        let _opening = self.tree.opening(node);
        let is_free = !self.tree.is_open(node);
        let own = (is_free && self.tree.nodes.look_up_again(node)).then_some(node);
        self.go_round(caller, (key, node), Finds::Own(own));
        true
    }

    /// The names of a coordinated file that the kernel may keep, and must not when it has another one besides: those are asked for each time.
    pub(super) fn kept_names(&self, caller: Caller, node: NodeId) -> Vec<Name> {
        // A stranger would not be known again.
        if caller.tid == 0 || !self.tree.nodes.is_kept(node) || self.target_of(node).is_none() {
            return Vec::new();
        }
        self.tree.nodes.info(node).map_or_else(Vec::new, |info| info.names)
    }

    /// A thread that gives an ordinary name to a file, to which it may have come by an entry that the kernel has kept, will be answered ESTALE, once.
    pub fn must_be_found_anew(&self, caller: Caller, node: NodeId) -> bool {
        let Some(target) = self.target_of(node).filter(|_| caller.tid != 0) else {
            return false;
        };
        let in_hand = InHand::take(&self.files, &target.name);
        self.comes_back(caller, node, in_hand.key());
        let is_back = self.files.lock().take_reroute(caller.tid, in_hand.key()).is_some();
        let goes = !is_back && self.tree.nodes.is_kept(node);
        if goes {
            self.go_round(caller, (in_hand.key(), node), Finds::Current);
        }
        goes
    }
}
