//! A session whose file is given an ordinary name by its own lineage: what its handles write later is nobody's business but theirs (W8, O1).

use std::sync::Arc;

use super::Coordination;
use super::session::Session;
use crate::mount::attr;
use crate::mount::handles::{Handle, Ordinary};
use crate::mount::pin::{Access, Pin};

impl Coordination {
    /// A session has ended, since its file was renamed. If the new name is an ordinary one, its handles are handles of an ordinary file from now on: they write
    /// to the file that others find there, or have open, and that goes with its last name.
    pub(super) fn hand_over(&self, session: &Arc<Session>) {
        let name = session.name();
        if self.target(name.parent, &name.name).is_some() {
            return;
        }
        let Some(pin) = self.pin_of_departed(session) else {
            return;
        };
        for (number, writer) in self.tree.handles.writers() {
            if Arc::ptr_eq(&writer.session(), session) {
                let (node, pin) = (session.about.node, Arc::clone(&pin));
                let file = Arc::new(Ordinary {
                    node,
                    pin,
                    access: Access::Write,
                });
                self.tree.handles.replace(number, Handle::Ordinary(file));
            }
        }
    }

    /// What the session has left, shared by all opens of its node. `None` where that stands for something else: the image of a file with several names.
    fn pin_of_departed(&self, session: &Session) -> Option<Arc<Pin>> {
        let node = session.about.node;
        let _opening = self.tree.opening(node);
        let content = session.left()?;
        let left = attr::identity(&rustix::fs::fstat(&content).ok()?, false);
        if self.tree.nodes.identity(node) != Some(left) || self.store.images().inode_of(left.ino).is_some() {
            return None;
        }
        let shows_it =
            |pin: &Arc<Pin>| rustix::fs::fstat(pin.fd()).is_ok_and(|stat| attr::identity(&stat, false) == left);
        if let Some(pin) = self.tree.nodes.open_pin(node).filter(shows_it) {
            return Some(pin);
        }
        let fd = rustix::io::fcntl_dupfd_cloexec(&content, 3).ok()?;
        let pin = Arc::new(Pin::new(fd, Access::Read, None));
        self.tree.nodes.set_open_pin(node, &pin);
        Some(pin)
    }
}
