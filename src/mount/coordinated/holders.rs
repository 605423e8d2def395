//! Who still has a file open, as /proc tells, and to whom a session passes when its opener goes (W3, W5).

use std::sync::Arc;

use super::Coordination;
use super::caller::{self, UNKNOWN};
use super::session::Session;
use crate::mount::nodes::NodeId;
use crate::os::proc;
use crate::os::table::holds_for_writing;
use crate::session::ProcId;

/// Who may still have a file open after one of its descriptors was closed.
#[derive(Debug)]
pub(super) struct Holders {
    /// Somebody has, as far as can be told.
    pub are_there: bool,
    /// Descendants of who closed, and has it no more, that go on with it. The kinship by which they are known ends with an ancestor's life, which may be over
    /// as soon as it is answered.
    pub heirs: Vec<ProcId>,
}

impl Coordination {
    /// Looks among these processes, of which `flusher` has just closed a descriptor, and their descendants for some that have the node open for writing. An
    /// unknown one counts as having it.
    pub(super) fn holders(&self, node: NodeId, flusher: ProcId, processes: &[u32]) -> Holders {
        if self.closer_holds(flusher, node) {
            return Holders {
                are_there: true,
                heirs: Vec::new(),
            };
        }
        let file = self.looked_for(node);
        let has_it = |pid: u32| holds_for_writing(pid, file);
        let heirs = proc::descendants(flusher.tgid)
            .into_iter()
            .filter(|child| has_it(*child))
            .filter_map(caller::process_of)
            .collect::<Vec<ProcId>>();
        let is_held_by =
            |pid: u32| pid == UNKNOWN.tgid || has_it(pid) || proc::descendants(pid).into_iter().any(has_it);
        let mut others = processes.iter().filter(|pid| **pid != flusher.tgid);
        Holders {
            are_there: !heirs.is_empty() || others.any(|pid| is_held_by(*pid)),
            heirs,
        }
    }

    /// Some go on with a session. Whoever waits for it waits for them, and what waits among them need not wait.
    pub(super) fn bequeath(self: &Arc<Self>, session: &Session, heirs: Vec<ProcId>) {
        let new = session.inherit(heirs);
        if !new.is_empty() && !session.is_late() {
            self.told_of(session, &new);
        }
    }

    /// The queue is told who holds a session, besides who asked for it.
    pub(super) fn told_of(self: &Arc<Self>, session: &Session, holders: &[ProcId]) {
        let wakes = self.files.lock().queue.inherit(self.now(), session.about.id, holders);
        self.carry_out(wakes);
    }
}
