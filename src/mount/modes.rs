//! How the kernel has a node open: fs/fuse/iomode.c. All opens of a node that pass the daemon by must name one backing file, and as long as there is one every
//! other open must name it too, or fails with EIO; nor may there be one beside an open through the page cache. The kernel sees to that when the opener's thread goes
//! on, which may be after those of later answers: so a handle counts from its answer to its RELEASE.

use std::collections::HashMap;
use std::sync::Arc;

use super::nodes::NodeId;

/// How a handle is open, or would best be.
#[derive(Debug)]
pub enum Mode<B> {
    /// FOPEN_PASSTHROUGH with this backing, and FOPEN_DIRECT_IO as well where the handle's data are not of that.
    Passing(Arc<B>),
    /// Through the page cache.
    Cached,
    /// FOPEN_DIRECT_IO.
    Direct,
}

impl<B> Clone for Mode<B> {
    fn clone(&self) -> Mode<B> {
        match self {
            Mode::Passing(backing) => Mode::Passing(Arc::clone(backing)),
            Mode::Cached => Mode::Cached,
            Mode::Direct => Mode::Direct,
        }
    }
}

/// What the open handles of a node have in common.
#[derive(Debug)]
struct OfNode<B> {
    passing: Option<Arc<B>>,
    /// How many have that.
    passed: usize,
    /// How many have not.
    others: usize,
}

/// That of all nodes that have open handles.
#[derive(Debug)]
pub struct Modes<B>(HashMap<NodeId, OfNode<B>>);

impl<B> Default for Modes<B> {
    fn default() -> Modes<B> {
        Modes(HashMap::new())
    }
}

impl<B> Modes<B> {
    /// One more handle of a node: how it is to be opened that would best be opened so.
    pub fn open(&mut self, node: NodeId, wish: Mode<B>) -> Mode<B> {
        let of_node = self.0.entry(node).or_insert(OfNode {
            passing: None,
            passed: 0,
            others: 0,
        });
        let mode = match (&of_node.passing, wish) {
            (Some(passing), _) => Mode::Passing(Arc::clone(passing)),
            (None, Mode::Passing(_)) if of_node.others > 0 => Mode::Cached,
            (None, wish) => wish,
        };
        match &mode {
            Mode::Passing(backing) => {
                of_node.passing = Some(Arc::clone(backing));
                of_node.passed += 1;
            }
            Mode::Cached | Mode::Direct => of_node.others += 1,
        }
        mode
    }

    /// A handle of a node is closed that was opened so.
    pub fn close(&mut self, node: NodeId, mode: &Mode<B>) {
        let Some(of_node) = self.0.get_mut(&node) else { return };
        match mode {
            Mode::Passing(_) => of_node.passed -= 1,
            Mode::Cached | Mode::Direct => of_node.others -= 1,
        }
        if of_node.passed == 0 {
            of_node.passing = None;
        }
        if of_node.passed + of_node.others == 0 {
            self.0.remove(&node);
        }
    }

    /// Whether opens of a node pass the daemon by.
    pub fn passes_by(&self, node: NodeId) -> bool {
        self.0.get(&node).is_some_and(|of_node| of_node.passing.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(7);

    /// What fs/fuse/iomode.c knows of an inode.
    #[derive(Debug, Clone, Default)]
    struct Kernel {
        backing: Option<u8>,
        passed: usize,
        cached: usize,
    }

    impl Kernel {
        /// `fuse_file_io_open`; `false`: EIO.
        fn open(&mut self, mode: &Mode<u8>) -> bool {
            match mode {
                Mode::Passing(backing) => {
                    if self.cached > 0 || self.backing.is_some_and(|other| other != **backing) {
                        return false;
                    }
                    self.backing = Some(**backing);
                    self.passed += 1;
                }
                _ if self.backing.is_some() => return false,
                Mode::Cached => self.cached += 1,
                Mode::Direct => {}
            }
            true
        }

        /// `fuse_file_io_release`.
        fn release(&mut self, mode: &Mode<u8>) {
            match mode {
                Mode::Passing(_) => self.passed -= 1,
                Mode::Cached => self.cached -= 1,
                Mode::Direct => {}
            }
            if self.passed == 0 {
                self.backing = None;
            }
        }
    }

    /// How far each handle has come.
    #[derive(Debug, Clone)]
    enum Handle {
        Asked(Mode<u8>),
        Answered(Mode<u8>),
        Open(Mode<u8>),
        Released(Mode<u8>),
        Closed,
    }

    /// Goes all ways on from here; each handle's next step may come at any time.
    fn explore(handles: &mut Vec<Handle>, kernel: &Kernel, modes: &dyn Fn() -> Modes<u8>, steps: &mut Vec<usize>) {
        for at in 0..handles.len() {
            let (before, mut kernel) = (handles[at].clone(), kernel.clone());
            let mut now = modes();
            handles[at] = match before.clone() {
                Handle::Asked(wish) => Handle::Answered(now.open(NODE, wish)),
                Handle::Answered(mode) => {
                    assert!(kernel.open(&mode), "{steps:?}, then {at}: {handles:?}");
                    Handle::Open(mode)
                }
                Handle::Open(mode) => {
                    kernel.release(&mode);
                    Handle::Released(mode)
                }
                Handle::Released(_) | Handle::Closed => Handle::Closed,
            };
            if let Handle::Released(mode) = &before {
                now.close(NODE, mode);
            }
            if !matches!(before, Handle::Closed) {
                steps.push(at);
                let kept = std::cell::RefCell::new(now);
                let again = || copy(&kept.borrow());
                explore(handles, &kernel, &again, steps);
                steps.pop();
            }
            handles[at] = before;
        }
    }

    fn copy(modes: &Modes<u8>) -> Modes<u8> {
        let of_node = |of: &OfNode<u8>| OfNode {
            passing: of.passing.clone(),
            passed: of.passed,
            others: of.others,
        };
        Modes(modes.0.iter().map(|(node, of)| (*node, of_node(of))).collect())
    }

    #[test]
    fn the_kernel_refuses_no_open_in_whatever_order_it_hears_of_the_answers() {
        let wishes = [
            Mode::Passing(Arc::new(1)),
            Mode::Passing(Arc::new(2)),
            Mode::Cached,
            Mode::Direct,
        ];
        for first in &wishes {
            for second in &wishes {
                for third in &wishes {
                    let mut handles: Vec<Handle> =
                        [first, second, third].map(|wish| Handle::Asked(wish.clone())).into();
                    explore(&mut handles, &Kernel::default(), &Modes::default, &mut Vec::new());
                }
            }
        }
    }

    #[test]
    fn a_file_alone_is_opened_as_is_best_and_again_when_all_are_closed() {
        let mut modes = Modes::default();
        let (one, two) = (Arc::new(1), Arc::new(2));
        let opened = modes.open(NODE, Mode::Passing(Arc::clone(&one)));
        assert!(matches!(&opened, Mode::Passing(backing) if **backing == 1));
        assert!(modes.passes_by(NODE) && !modes.passes_by(NodeId(8)));
        let beside = modes.open(NODE, Mode::Passing(Arc::clone(&two)));
        assert!(matches!(&beside, Mode::Passing(backing) if **backing == 1));
        modes.close(NODE, &opened);
        modes.close(NODE, &beside);
        assert!(!modes.passes_by(NODE) && modes.0.is_empty());
        assert!(matches!(modes.open(NODE, Mode::Passing(two)), Mode::Passing(backing) if *backing == 2));
    }
}
