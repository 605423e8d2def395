//! A session in which nothing was written, and beside which its own lineage publishes (W3): it starts anew, from what is current then. By it its lineage finds the
//! file, joins it, and goes on with its descriptor, as if there was one inode. It keeps its place in the queue, its handles and its node.

use std::sync::Arc;

use rustix::io::Errno;

use super::session::Session;
use super::{Coordination, place};
use crate::mount::attr;
use crate::mount::nodes::Name;
use crate::session::SessionId;
use crate::store::record::How;
use crate::store::{Place, RealDisk, Seen};

impl Coordination {
    /// A session has ended, and may have become the current version: others of its file start from that. Waits for the disk.
    pub(super) fn renew_others(self: &Arc<Self>, ended: &Session) {
        let others = self.others_of(&ended.name(), ended.about.id);
        // What a restore or truncate(2) has under way is no handle's.
        let others = others.iter().filter(|other| other.about.how == How::Close);
        others.for_each(|session| self.bring_up_to_date(session));
    }

    /// A session of a handle starts anew from what is current, if nothing was written to it and that is another version. Waits for the disk.
    pub(super) fn bring_up_to_date(self: &Arc<Self>, session: &Arc<Session>) {
        match self.renew(session) {
            // Its writer has no right to what is current. What it writes says so when it is published.
            Ok(()) | Err(Errno::ACCESS) => {}
            Err(errno) => {
                log::debug!("{session:?} could not start anew: {errno}");
                // It is of no use as it is.
                self.give_up_taken(session, session.take_untouched());
            }
        }
    }

    /// Whether a session in which nothing was written may have to start anew, as far as can be told without waiting.
    pub(super) fn is_behind(&self, session: &Session) -> bool {
        let Some((Some(base), _)) = session.untouched() else {
            return false;
        };
        match (self.stat(&session.name()), rustix::fs::fstat(&base)) {
            (Ok(now), Ok(base)) => (now.st_dev, now.st_ino) != (base.st_dev, base.st_ino),
            _ => false,
        }
    }

    fn others_of(&self, name: &Name, but: SessionId) -> Vec<Arc<Session>> {
        let name = self.key_name(name);
        let files = self.files.lock();
        let all = files.key_of(&name).map_or(&[][..], |key| files.sessions(key));
        all.iter().filter(|other| other.about.id != but).cloned().collect()
    }

    fn renew(&self, session: &Session) -> Result<(), Errno> {
        let name = session.name();
        let Some(target) = self.target(name.parent, &name.name) else {
            return Ok(());
        };
        // Nobody else publishes meanwhile.
        let _turn = self.turns.take(&[&name, &self.key_name(&name)]);
        let Some((base, based_on)) = session.untouched() else {
            return Ok(());
        };
        let (dir, path) = self.located(&name)?;
        if !self.is_overtaken((base.as_deref(), based_on.as_ref()), &name, &place(&dir, &name, &path)) {
            return Ok(());
        }
        let before = session.pin();
        let (fresh, pin) = self.fresh(&target, session)?;
        let identity = |fd| rustix::fs::fstat(fd).map(|stat| attr::identity(&stat, false));
        let (old, new) = (identity(before.fd())?, identity(pin.fd())?);
        let node = session.about.node;
        // Who opens the node at the same time has the one shadow open, or the other.
        let _opening = self.tree.opening(node);
        let (renewed, needless) = session.renew(fresh, Arc::clone(&pin));
        if renewed {
            // Another session's on the same node stays what it stands for.
            if self.tree.nodes.identity(node) == Some(old) {
                self.tree.nodes.rebind(node, new, Some(&pin));
            }
            self.tree.attributes_changed(node);
        }
        if let Err(error) = self.store.drop_unwritten(needless) {
            log::warn!("an empty shadow stays in .concord/shadows until the next start: {error}");
        }
        Ok(())
    }

    /// Whether the name leads to another version by now than the one that a session started from. Lines that were appended to that make no other.
    pub(super) fn is_overtaken(
        &self,
        (base, based_on): (Option<&std::fs::File>, Option<&Seen>),
        name: &Name,
        place: &Place<'_, RealDisk>,
    ) -> bool {
        let Ok(now) = self.stat(name) else { return false };
        let Some(Ok(base)) = base.map(rustix::fs::fstat) else {
            return true;
        };
        // A file that was given another name meanwhile has moved to an image, with its version.
        (now.st_dev, now.st_ino) != (base.st_dev, base.st_ino) && !self.is_current(based_on, place)
    }

    fn is_current(&self, seen: Option<&Seen>, place: &Place<'_, RealDisk>) -> bool {
        let number = |seen: &Seen| (seen.path.clone(), seen.version);
        let current = self.store.version_at(place);
        current.is_ok_and(|current| current.as_ref().map(number) == seen.map(number))
    }
}
