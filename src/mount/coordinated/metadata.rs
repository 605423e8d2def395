//! Changes of owner, mode, times and attributes (W11). They are made to what a node's name leads to when it is its turn, and so stay: a publish copies what the
//! current version has before it replaces that, and whoever has found the version that was replaced, or has it open, means the file that is there now.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{Access, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::permission::{self, LetIn};
use super::session::Session;
use super::shown::is_of_lineage;
use super::staged::Staged;
use super::{Answer, Coordination, is_file};
use crate::mount::attr;
use crate::mount::nodes::{Name, NodeId};
use crate::mount::tree::Caller;
use crate::os::creds::Assumed;

/// How often is begun anew because the file was renamed while its name's turn was awaited.
const RENAMED_MAX: u32 = 8;

/// What a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// chmod(2), chown(2): only for the owner.
    Mode,
    /// utimensat(2): for who may write, if it is the time that is now.
    Times,
    /// setxattr(2), removexattr(2): for who may write.
    Attributes,
}

/// Makes a change.
pub type Make = Box<dyn Fn(BorrowedFd<'_>) -> Result<(), Errno> + Send>;

/// A change of owner, mode, times or attributes.
pub struct Change {
    /// Who asks for it.
    pub caller: Caller,
    /// What it is.
    pub about: About,
    /// Makes it to the file of a descriptor, perhaps `O_PATH`.
    pub make: Make,
}

impl Change {
    /// Makes it to a shadow too, which may have had an attribute already, or not any more.
    fn make_also(&self, session: &Session) -> Result<(), Errno> {
        match (self.make)(session.pin().fd()) {
            Err(Errno::EXIST | Errno::NODATA) => Ok(()),
            made => made,
        }
    }
}

impl Coordination {
    /// The name by which a node's metadata is changed, in its turn. `None`: it is an ordinary file.
    pub fn name_to_change(&self, node: NodeId) -> Option<Name> {
        let session = self.files.lock().session_on(node).cloned();
        match session {
            // Its file may have left for an ordinary name.
            Some(session) => Some(self.key_name(&session.name())),
            None => self.target_of(node).map(|target| target.name),
        }
    }

    /// Makes a change to the file of this name that a node is or was. Answers with the node's attributes.
    ///
    /// At once where nobody publishes and no session is on the node; else on a worker, which waits until it is the name's turn.
    pub fn change_metadata(self: &Arc<Self>, node: NodeId, name: &Name, change: Change, answer: Answer<Stat>) {
        if self.has_been_round(change.caller, node) {
            self.end_round(change.caller);
        }
        let at_once = || {
            let _turn = self.turns.try_take(name)?;
            let is_free = self.files.lock().session_on(node).is_none();
            is_free.then(|| self.change_current_node(node, name, &change))?
        };
        if let Some(changed) = at_once() {
            return answer(changed);
        }
        let this = Arc::clone(self);
        self.tree
            .workers
            .run(move || answer(this.change_in_turn(node, &change)));
    }

    /// [`Coordination::change_metadata`] on a worker.
    fn change_in_turn(&self, node: NodeId, change: &Change) -> Result<Stat, Errno> {
        for _ in 0..RENAMED_MAX {
            let Some(name) = self.name_to_change(node) else { break };
            let _turn = self.turns.take(&[&name]);
            if self.name_to_change(node).as_ref() == Some(&name) {
                return self.change_by_name(node, &name, change);
            }
        }
        // It has left for an ordinary name, or for none.
        self.change_node(node, change)
    }

    /// It is the name's turn: nobody publishes, and no name of the file changes.
    fn change_by_name(&self, node: NodeId, name: &Name, change: &Change) -> Result<Stat, Errno> {
        let on_node = self.files.lock().session_on(node).cloned();
        if let Some(session) = on_node.filter(|session| !self.is_committed(session)) {
            self.change_beside(&session, name, change)?;
            let shown = self.stat_of_session(change.caller, node);
            return shown.map_or_else(|| self.tree.stat(node), Ok);
        }
        if let Some(changed) = self.change_current_node(node, name, change) {
            return changed;
        }
        // Of a file that was replaced by another one, who has it open means that file still.
        let follows = self.tree.nodes.is_former(node) || self.walks_again(change.caller);
        match follows.then(|| self.change_current(name, change)) {
            None | Some(Err(Errno::NOENT)) => self.change_node(node, change),
            Some(changed) => {
                changed?;
                self.tree.stat(node).or_else(|_| self.stat_of_name(change.caller, node))
            }
        }
    }

    /// Makes a change to the inode of a node, whatever its name leads to.
    fn change_node(&self, node: NodeId, change: &Change) -> Result<Stat, Errno> {
        let anchor = self.tree.anchor_to_change(node)?;
        (change.make)(anchor.as_fd())?;
        rustix::fs::fstat(&anchor)
    }

    /// The same where the name leads to the node's inode; `None` where it does not.
    fn change_current_node(&self, node: NodeId, name: &Name, change: &Change) -> Option<Result<Stat, Errno>> {
        let anchor = self.tree.anchor(node).ok()?;
        let found = attr::identity(&rustix::fs::fstat(&anchor).ok()?, false);
        let leads_there = |stat: Result<Stat, Errno>| stat.is_ok_and(|stat| attr::identity(&stat, false) == found);
        let has_images = !self.store.images().is_empty();
        let is_current = leads_there(self.stat(name)) || has_images && leads_there(self.stat_backing(name));
        if !is_current {
            return None;
        }
        Some((change.make)(anchor.as_fd()).and_then(|()| {
            if has_images && self.tree.is_image(node) {
                self.follow_times_of(name);
            }
            self.changed_current(name, change);
            rustix::fs::fstat(&anchor)
        }))
    }

    /// Makes a change to what a name leads to, by who may have been let in by another version.
    ///
    /// # Errors
    /// ENOENT, ESTALE when it is no file, and what the caller is told who does the same in a plain directory.
    fn change_current(&self, name: &Name, change: &Change) -> Result<(), Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let current = rustix::fs::openat(self.directory(name.parent)?, &*name.name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&current)?;
        if !is_file(&stat) {
            return Err(Errno::STALE);
        }
        let caller = change.caller;
        if stat.st_uid != caller.uid && change.about != About::Mode {
            permission::check(caller, &current, &LetIn::Unknown, Access::WRITE_OK)?;
        }
        {
            let _caller = (caller.uid != 0).then(|| Assumed::user_with_groups(caller.uid, caller.gid, caller.tid));
            (change.make)(current.as_fd())?;
        }
        if !self.store.images().is_empty() {
            self.follow_times_of(name);
        }
        if let Ok(stat) = self.stat(name)
            && let Some(node) = self.tree.nodes.find(attr::identity(&stat, false))
        {
            self.tree.attributes_changed(node);
        }
        self.changed_current(name, change);
        Ok(())
    }

    /// The current version was changed: sessions that have copied from it copy again when they are published, and times are also those of what is late.
    fn changed_current(&self, name: &Name, change: &Change) {
        let (sessions, late) = {
            let files = self.files.lock();
            let sessions = files.key_of(name).map_or(&[][..], |key| files.sessions(key)).to_vec();
            let late = files.late_sessions().iter().filter(|late| late.name() == *name);
            (sessions, late.cloned().collect::<Vec<_>>())
        };
        for session in sessions.iter().chain(&late) {
            let _ = session.staged(|staged| {
                staged.shadow.forget_metadata();
                Ok(())
            });
        }
        for late in late.iter().filter(|_| change.about == About::Times) {
            if let Err(errno) = (change.make)(late.pin().fd()) {
                log::debug!("{late:?} keeps its times: {errno}");
            }
        }
    }

    /// Makes a change where a session is on the node. One that has changed nothing has the current version's; to a shadow that was changed its lineage changes what
    /// will be published. Whoever else comes to it, by a walk that a session has overtaken, means the current version; and so does everybody once it is ending.
    fn change_beside(&self, session: &Session, name: &Name, change: &Change) -> Result<(), Errno> {
        if let Some(base) = self.unchanged_base(session) {
            (change.make)(base.as_fd())?;
            self.follow_times(&base)?;
            self.changed_current(name, change);
            return change.make_also(session);
        }
        if is_of_lineage(change.caller, session) || session.is_unlinked() {
            match session.touch(&self.store) {
                Ok(()) => return (change.make)(session.pin().fd()),
                Err(Errno::BUSY | Errno::STALE) => {}
                Err(errno) => return Err(errno),
            }
        }
        match self.change_current(name, change) {
            // It is being created.
            Err(Errno::NOENT) => {
                let _ = session.touch(&self.store);
                (change.make)(session.pin().fd())
            }
            // Its own metadata may be what it will be published with.
            Ok(()) if !session.is_open() => change.make_also(session),
            changed => changed,
        }
    }

    /// Whether owner, mode, times or attributes of a node are about to be changed by a descriptor of a session that was lost, which the kernel does not name in these
    /// calls: then nothing is left of what they would change.
    ///
    /// # Errors
    /// As [`Session::staged`] of a session that was lost.
    pub fn refuse_lost(&self, caller: Caller, node: NodeId) -> Result<(), Errno> {
        let writers = self.tree.handles.writers_on(node).into_iter();
        let lost: Vec<_> = writers.filter_map(|writer| writer.lost()).collect();
        match lost.iter().find(|(session, _)| is_of_lineage(caller, session)) {
            Some((_, errno)) if !self.walks_again(caller) => Err(*errno),
            _ => Ok(()),
        }
    }

    /// The current version's file, when a session has it open and changed nothing yet. A change of its metadata is made to both, as without a
    /// session, and is nothing to publish: touch(1) makes no version.
    fn unchanged_base(&self, session: &Session) -> Option<Arc<std::fs::File>> {
        let unchanged = |staged: &mut Staged| Ok(staged.base.clone().filter(|_| !staged.changed && !staged.unlinked));
        let base = session.staged(unchanged).ok().flatten()?;
        let (held, current) = (rustix::fs::fstat(&base).ok()?, self.stat(&session.name()).ok()?);
        if (held.st_dev, held.st_ino) != (current.st_dev, current.st_ino) {
            return None;
        }
        // Of a file that is written in place the inode has the metadata.
        match self.store.images().inode_of(held.st_ino) {
            Some(_) => self.live_of(&session.name()).ok().map(Arc::new),
            None => Some(base),
        }
    }
}
