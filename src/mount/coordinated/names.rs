//! What changes a coordinated name without a handle: unlink(2) and link(2) here, rename(2) in `rename.rs`. Each is a session of zero length (W8): it waits its turn
//! (`taking.rs`), keeps the version it replaces, and publishes.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;

use super::close::Ending;
use super::locks::Whose;
use super::rounds::Errand;
use super::session::Session;
use super::shown::is_of_lineage;
use super::{Answer, Coordination, Counted, Target, caller, is_file, place, publish_info};
use crate::mount::attr;
use crate::mount::entry::{Entry, Victim};
use crate::mount::errno::from_io;
use crate::mount::nodes::{Name, NodeId};
use crate::mount::tree::Caller;
use crate::session::{Opener, ProcId};
use crate::store::PublishError;
use crate::store::record::How;

impl Coordination {
    /// unlink(2) of a coordinated name.
    pub fn unlink(self: &Arc<Self>, caller: Caller, target: Target, answer: Answer<()>) {
        let opener = caller::opener(caller);
        let own = self.own_session(&target.name, &opener);
        let created = own.as_ref().filter(|own| own.creates());
        if let (Err(Errno::NOENT), Some(created)) = (self.stat(&target.name), created) {
            // Its creator takes the file back before it appeared.
            let lost = self.lose_name(created);
            if lost.is_ok() {
                self.locks.lock().removed(&Whose::Name(target.name));
            }
            return answer(lost);
        }
        let process = opener.proc;
        let name = target.name.clone();
        let errand = Errand {
            needs: Some(name.clone()),
            ..Errand::new(vec![target.clone()], name.parent)
        };
        let work = move |this: &Arc<Coordination>| {
            let former_names = own.as_ref().map_or_else(Vec::new, |own| this.former_names(own));
            this.remove_name(caller, process, &name, &target)?;
            own.iter().for_each(|own| this.leave_name(own, &name, &former_names));
            Ok(())
        };
        self.with_all(caller, opener, errand, work, answer);
    }

    /// The name of a session was removed, or given to another file, by its own lineage, which may have others on the file: each goes on under another name that the
    /// file has, or with a file that has none.
    pub(super) fn leave_name(self: &Arc<Self>, own: &Session, name: &Name, former_names: &[Name]) {
        let all = self.files.lock().sessions(own.file()).to_vec();
        for session in all.iter().filter(|session| session.name() == *name) {
            if !self.goes_on_elsewhere(session, name, former_names) {
                // One that is over has published already.
                let _ = self.lose_name(session);
            }
        }
    }

    /// A session's file has no name any more, and its node is not what the name leads to: who has it open and has not read yet reads that (R2).
    pub(super) fn lose_name(&self, session: &Session) -> Result<(), Errno> {
        session.lose_name()?;
        self.tree.nodes.supersede(session.about.node, None);
        Ok(())
    }

    fn remove_name(&self, caller: Caller, process: ProcId, name: &Name, target: &Target) -> Result<(), Errno> {
        let (dir, path) = self.located(name)?;
        let _turn = self.turns.take(&[name, &self.key_name(name)]);
        let stat = self.stat(name)?;
        if !is_file(&stat) || stat.st_nlink > 1 {
            // What it holds is there under its other names.
            let image = self.image_at(name);
            let before = self.stat_backing(name)?;
            self.will_depart(name, true);
            self.tree.remove(name.parent, &name.name)?;
            self.name_left_image(image, name);
            self.name_changed(name, &before);
            // A node that stands for a shadow is not found by what has lost the name.
            let files = self.files.lock();
            let sessions = files
                .all_sessions()
                .map(|(_, session)| session)
                .chain(files.late_sessions());
            // Its opener came by this name, and the session is for another.
            let is_called_so = |session: &&Arc<Session>| {
                let info = self.tree.nodes.info(session.about.node);
                session.name() != *name && info.is_some_and(|info| info.names.contains(name))
            };
            let nodes = sessions
                .filter(is_called_so)
                .map(|session| (session.about.node, session.name()));
            nodes.for_each(|(node, name)| self.tree.nodes.call_only(node, name));
            return Ok(());
        }
        let who = self.descriptions.of(process, caller.uid);
        let victim = Victim::hold(&dir, &name.name)?;
        let info = publish_info(How::Unlink, &target.policy);
        let log = self.logs.of(name);
        let mut log = log.lock();
        self.settle_growth(&mut log);
        let done = self.store.remove(&place(&dir, name, &path), &who, &info);
        let told = self.carried_out(done)?;
        told.iter().for_each(|done| self.note_unkept(&path, done, "removed"));
        self.removed(&mut log);
        self.tree.superseded(victim, name);
        self.locks.lock().removed(&Whose::Name(name.clone()));
        self.published(&path);
        told.map(drop)
    }

    /// link(2) of a node onto a coordinated name.
    pub fn link(self: &Arc<Self>, caller: Caller, node: NodeId, target: Target, answer: Answer<Entry>) {
        let opener = caller::opener(caller);
        let name = target.name.clone();
        let errand = Errand {
            leaving: self.kept_names(caller, node),
            needs_free: Some(name.clone()),
            ..Errand::new(vec![target], name.parent)
        };
        let work = move |this: &Arc<Coordination>| this.link_now(caller, node, &name);
        self.with_all(caller, opener, errand, work, answer);
    }

    /// link(2) of a node onto an ordinary name.
    pub fn link_ordinary(self: &Arc<Self>, caller: Caller, node: NodeId, new: Name, answer: Answer<Entry>) {
        if self.target_of(node).is_none() {
            return answer(self.tree.link(node, new.parent, &new.name));
        }
        let this = Arc::clone(self);
        self.tree.workers.run(move || answer(this.link_now(caller, node, &new)));
    }

    /// Gives the file one name more that a coordinated name leads to now. The kernel has found a node by it a moment ago, which may stand for somebody's shadow by
    /// now, also the caller's, or for a version that was replaced. Only for worker threads.
    fn link_now(self: &Arc<Self>, caller: Caller, node: NodeId, new: &Name) -> Result<Entry, Errno> {
        let Some(Target { name, .. }) = self.target_of(node) else {
            return self.tree.link(node, new.parent, &new.name);
        };
        let session = self.files.lock().session_on(node).cloned();
        if let Some(session) = session.filter(|session| is_of_lineage(caller, session)) {
            if session.is_unlinked() {
                return Err(Errno::NOENT);
            }
            if session.creates() {
                // There is no version that could have another name yet.
                self.end_now(&session, Ending::Closed)?;
            }
        }
        let _turn = self.turns.take(&[&name, &self.key_name(&name), new]);
        self.will_be_linked(node);
        match self.stands_for(node, &name) {
            true => self.tree.link(node, new.parent, &new.name),
            false => self.tree.link_by_name(&name, new),
        }
    }

    /// Whether a node is what one of its names leads to, the coordinated one or an ordinary one.
    fn stands_for(&self, node: NodeId, name: &Name) -> bool {
        let Some(info) = self.tree.nodes.info(node) else {
            return true;
        };
        let leads_there = |stat: Result<rustix::fs::Stat, Errno>| {
            stat.is_ok_and(|stat| attr::identity(&stat, false) == info.identity)
        };
        leads_there(self.stat(name)) || info.names.iter().any(|other| leads_there(self.stat_backing(other)))
    }

    /// Whether a name is taken by a file that exists only as a session's shadow, so that nothing else can be made there (EEXIST).
    pub fn is_promised(&self, name: &Name) -> bool {
        let files = self.files.lock();
        files
            .key_of(name)
            .is_some_and(|key| files.sessions(key).iter().any(|session| session.creates()))
    }

    /// rmdir(2). A directory in which something is being created is empty on the backing filesystem only.
    pub fn remove_directory(&self, parent: NodeId, name: &OsStr) -> Result<(), Errno> {
        self.tree
            .remove_directory(parent, name, |directory| self.creates_in(directory))
    }

    /// Asked while the tree keeps names from changing: who is about to create something then finds the directory gone, or was seen.
    pub(super) fn creates_in(&self, directory: NodeId) -> bool {
        self.files.lock().creates_in(directory)
    }

    pub(super) fn own_session(&self, name: &Name, opener: &Opener) -> Option<Arc<Session>> {
        let name = self.key_name(name);
        let key = self.files.lock().key_of(&name)?;
        self.nearest_of(key, opener)
    }

    pub(super) fn located(&self, name: &Name) -> Result<(Arc<OwnedFd>, PathBuf), Errno> {
        Ok((self.directory(name.parent)?, self.path_of(name)?))
    }

    /// A change of names: its errno at once where nothing was changed, else what its caller is told when all the rest knows of it.
    pub(super) fn carried_out<T>(&self, done: Result<T, PublishError>) -> Result<Result<T, Errno>, Errno> {
        match done {
            Ok(done) => Ok(Ok(done)),
            Err(error) if error.published => Ok(Err(self.failed(&error))),
            Err(error) => Err(self.failed(&error)),
        }
    }

    pub(super) fn failed(&self, error: &PublishError) -> Errno {
        let errno = from_io(&error.source);
        if errno != Errno::EXIST && errno != Errno::NOENT {
            self.counts.add(Counted::Failed);
            self.note_failed(error);
            log::error!("{error}");
        }
        errno
    }
}
