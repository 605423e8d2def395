//! Whether a process that closes a descriptor has another of the same file, also where it has thousands of descriptors and closes one after the other (W5).
//!
//! To look at all of them at each close costs n times n. What was seen is remembered where it can be relied on: a descriptor of a handle of ours whose every close
//! is told us (FLUSH) is open on the same node still, unless we have been told that one was closed. The others are looked at each time; and if the kernel
//! counts more descriptors than are known, so are those.
//!
//! That holds for a process of one thread, which waits for our answer: nobody changes its table meanwhile, and each of its closes was told before the next thing
//! that it did. Of one with several threads all is looked at. (Another process that shares the table by CLONE_FILES can be in the midst of a close that is not told yet, as a
//! thread could; who does that, and moves its descriptors about meanwhile, is taken for the last to have the file, and what it writes then is published late.)

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Coordination;
use crate::mount::nodes::NodeId;
use crate::os::proc;
use crate::os::table::{self, Device, Table};
use crate::session::ProcId;

/// With fewer descriptors it is not worth it.
const DESCRIPTORS_MIN: usize = 16;
/// Processes remembered.
const PROCESSES_MAX: usize = 16;
/// Closes told since a process was last asked about, before it is forgotten.
const CLOSES_MAX: usize = 65_536;

/// What a descriptor is open on, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    /// A node of ours, for writing.
    Writing(NodeId),
    /// Anything else.
    Other,
}

/// A table of descriptors that can be looked at.
trait Descriptors {
    fn count(&self) -> Option<usize>;
    fn numbers(&self) -> Vec<u32>;
    /// `None` when it is closed.
    fn open(&self, number: u32) -> Option<Open>;
}

/// What is known about a process's descriptors.
#[derive(Debug, Default, Clone)]
struct Seen {
    /// Open for writing on a node of which no descriptor was closed since.
    told: HashMap<u32, NodeId>,
    /// The same by node.
    nodes: HashMap<NodeId, Vec<u32>>,
    /// To be looked at each time.
    others: HashSet<u32>,
}

impl Seen {
    /// A descriptor of this node was closed by somebody.
    fn closed(&mut self, node: NodeId) {
        for number in self.nodes.remove(&node).unwrap_or_default() {
            self.told.remove(&number);
            self.others.insert(number);
        }
    }

    /// Whether a descriptor in `table` is open for writing on `node`, of which one was just closed. `is_told`: whether each close of what is open for writing on a node is told.
    fn holds(&mut self, table: &impl Descriptors, node: NodeId, is_told: &dyn Fn(NodeId) -> bool) -> bool {
        self.closed(node);
        let others: Vec<u32> = self.others.iter().copied().collect();
        let mut held = self.look(table, &others, node, is_told);
        if !held && table.count() != Some(self.told.len() + self.others.len()) {
            let numbers = table.numbers();
            let unknown = |number: &u32| !self.told.contains_key(number) && !self.others.contains(number);
            let new: Vec<u32> = numbers.into_iter().filter(unknown).collect();
            held = self.look(table, &new, node, is_told);
        }
        held
    }

    fn look(
        &mut self,
        table: &impl Descriptors,
        numbers: &[u32],
        node: NodeId,
        is_told: &dyn Fn(NodeId) -> bool,
    ) -> bool {
        let mut held = false;
        for number in numbers {
            self.others.remove(number);
            match table.open(*number) {
                None => {}
                Some(Open::Writing(open)) if open != node && is_told(open) => {
                    self.told.insert(*number, open);
                    self.nodes.entry(open).or_default().push(*number);
                }
                Some(open) => {
                    held |= open == Open::Writing(node);
                    self.others.insert(*number);
                }
            }
        }
        held
    }
}

/// One process.
#[derive(Debug, Default)]
struct Process {
    seen: Mutex<Seen>,
    /// Nodes of which a descriptor was closed, by whomever, since `seen` was last used.
    closed: Mutex<Vec<NodeId>>,
}

/// What is remembered of processes. Its lock, and that of `closed`, are held for no system call; that of `seen` is its process's own.
#[derive(Debug, Default)]
pub(super) struct Tables {
    processes: Mutex<HashMap<ProcId, Arc<Process>>>,
    /// Nodes of which the kernel may have kept a close for itself: writing back what was written through a mapping has failed, and it told that instead.
    silent: Mutex<HashSet<NodeId>>,
}

impl Tables {
    fn of(&self, process: ProcId) -> Arc<Process> {
        let mut processes = self.processes.lock();
        if processes.len() >= PROCESSES_MAX && !processes.contains_key(&process) {
            processes.clear();
        }
        Arc::clone(processes.entry(process).or_default())
    }

    fn closed(&self, node: NodeId) {
        let keeps = |process: &Arc<Process>| {
            let mut closed = process.closed.lock();
            closed.push(node);
            closed.len() < CLOSES_MAX
        };
        self.processes.lock().retain(|_, process| keeps(process));
    }
}

/// The descriptors of a process on this mount.
struct OnMount {
    table: Table,
    device: Device,
}

impl Descriptors for OnMount {
    fn count(&self) -> Option<usize> {
        self.table.count()
    }

    fn numbers(&self) -> Vec<u32> {
        self.table.numbers()
    }

    fn open(&self, number: u32) -> Option<Open> {
        let open = self.table.open(number)?;
        let ours = open.device == self.device && self.table.writes(number);
        Some(if ours {
            Open::Writing(NodeId(self.table.node(number).unwrap_or(open.ino)))
        } else {
            Open::Other
        })
    }
}

impl Coordination {
    /// The kernel tells that a descriptor is being closed: to be called before it is answered.
    pub fn told_of_close(&self, node: NodeId) {
        self.tables.closed(node);
    }

    /// Writing back what was written through a mapping has failed: the next close(2) of the node may say so without telling us of it.
    pub fn may_close_silently(&self, node: NodeId) {
        self.tables.silent.lock().insert(node);
        self.tables.closed(node);
    }

    /// Tells which filesystem the mount's files are on.
    pub fn set_device(&self, device: Device) {
        let _ = self.device.set(device);
    }

    /// A node, as it is looked for among descriptors.
    pub(super) fn looked_for(&self, node: NodeId) -> table::File {
        table::File {
            device: self.device.get().copied(),
            inos: [node.0, self.tree.nodes.number(node).0],
            node: self.tells_nodes().then_some(node.0),
        }
    }

    /// Whether a descriptor's node is known, also where several are shown by one number.
    pub(super) fn tells_nodes(&self) -> bool {
        self.device.get().is_some() && table::tells_nodes()
    }

    /// Whether the process that has just closed a descriptor of a node, and waits for the answer, has another that is open for writing. Waits for execve.
    pub(super) fn closer_holds(&self, process: ProcId, node: NodeId) -> bool {
        let mut tables = Table::all_of(process.tgid);
        let many = |table: &Table| table.count().is_some_and(|count| count >= DESCRIPTORS_MIN);
        let remembers = tables.len() == 1 && many(&tables[0]) && proc::is_single_threaded(process.tgid);
        if let Some(device) = self.device.get().copied().filter(|_| remembers)
            && let Some(table) = tables.pop()
        {
            return self.is_remembered(process, &OnMount { table, device }, node);
        }
        let file = self.looked_for(node);
        tables.iter().any(|table| table.has_for_writing(file))
    }

    fn is_remembered(&self, process: ProcId, table: &OnMount, node: NodeId) -> bool {
        let known = self.tables.of(process);
        let mut seen = known.seen.lock();
        std::mem::take(&mut *known.closed.lock())
            .into_iter()
            .for_each(|node| seen.closed(node));
        let ordinary = std::cell::OnceCell::new();
        let is_told = |node: NodeId| {
            let ordinary: &HashSet<NodeId> = ordinary.get_or_init(|| self.tree.handles.ordinary_nodes());
            !ordinary.contains(&node) && !self.tables.silent.lock().contains(&node)
        };
        seen.holds(table, node, &is_told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const ONE: NodeId = NodeId(101);
    const TWO: NodeId = NodeId(102);
    /// Its closes are not told.
    const ORDINARY: NodeId = NodeId(103);
    const NUMBERS: u32 = 4;

    /// A process of one thread.
    #[derive(Debug, Default, Clone)]
    struct Model {
        table: BTreeMap<u32, Open>,
        looks: std::cell::Cell<usize>,
    }

    impl Descriptors for Model {
        fn count(&self) -> Option<usize> {
            Some(self.table.len()).filter(|count| *count > 0)
        }

        fn numbers(&self) -> Vec<u32> {
            self.table.keys().copied().collect()
        }

        fn open(&self, number: u32) -> Option<Open> {
            self.looks.set(self.looks.get() + 1);
            self.table.get(&number).copied()
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Open(u32, Open),
        /// dup2(2): closes the second.
        Dup(u32, u32),
        Close(u32),
    }

    fn steps() -> Vec<Step> {
        let kinds = [
            Open::Writing(ONE),
            Open::Writing(TWO),
            Open::Writing(ORDINARY),
            Open::Other,
        ];
        let mut steps = Vec::new();
        for number in 0..NUMBERS {
            steps.push(Step::Close(number));
            steps.extend(kinds.iter().map(|kind| Step::Open(number, *kind)));
            steps.extend((0..NUMBERS).filter(|to| *to != number).map(|to| Step::Dup(number, to)));
        }
        steps
    }

    fn is_told(node: NodeId) -> bool {
        node != ORDINARY
    }

    /// Makes a step, and asks at each close that is told, as close.rs does.
    fn take(model: &mut Model, seen: &mut Seen, step: Step) {
        let replaced = match step {
            Step::Open(number, _) if model.table.contains_key(&number) => return,
            Step::Open(number, open) => model.table.insert(number, open),
            Step::Dup(from, to) => match model.table.get(&from).copied() {
                Some(open) => model.table.insert(to, open),
                None => return,
            },
            Step::Close(number) => model.table.remove(&number),
        };
        if let Some(Open::Writing(node)) = replaced
            && is_told(node)
        {
            let truth = model.table.values().any(|open| *open == Open::Writing(node));
            let before = format!("{seen:?}");
            let found = seen.holds(model, node, &is_told);
            assert_eq!(found, truth, "{step:?} of {node:?}: {model:?} {before}");
        }
    }

    fn all_ways(model: &Model, seen: &Seen, depth: usize) {
        for step in steps() {
            let (mut model, mut seen) = (model.clone(), seen.clone());
            take(&mut model, &mut seen, step);
            if depth > 1 {
                all_ways(&model, &seen, depth - 1);
            }
        }
    }

    #[test]
    fn w5_what_is_remembered_never_says_anything_but_what_is() {
        let begin = [
            Step::Open(0, Open::Writing(ONE)),
            Step::Open(1, Open::Writing(TWO)),
            Step::Open(2, Open::Other),
            Step::Open(3, Open::Writing(ONE)),
            // Now all is known.
            Step::Close(3),
        ];
        let (mut model, mut seen) = (Model::default(), Seen::default());
        begin.iter().for_each(|step| take(&mut model, &mut seen, *step));
        all_ways(&model, &seen, 4);
    }

    #[test]
    fn w5_a_close_among_many_looks_at_few() {
        let (mut model, mut seen) = (Model::default(), Seen::default());
        for number in 0..1000 {
            take(
                &mut model,
                &mut seen,
                Step::Open(number, Open::Writing(NodeId(u64::from(number)))),
            );
        }
        for number in 0..1000 {
            take(&mut model, &mut seen, Step::Close(number));
        }
        assert!(model.looks.get() < 4000, "{} looks", model.looks.get());
    }
}
