//! The end of a session: which close is the last one, and what becomes of what was staged (W5, W6, W7).

use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;

use super::handles::Writer;
use super::session::{EndReply, Outcome, Session};
use super::staged::Staged;
use super::{Coordination, Counted, caller, described, nanos_now, place, publish_info};
use crate::mount::attr;
use crate::mount::errno::from_io;
use crate::mount::nodes::{Name, NodeId};
use crate::mount::notices::{self, News};
use crate::mount::pin::{Access, Pin};
use crate::mount::tree::Caller;
use crate::os::proc::{self, Closing};
use crate::rules::Durability;
use crate::session::ProcId;
use crate::store::PublishInfo;
use crate::store::record::{How, RecoveredKind};

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Its last descriptor was closed.
    Closed,
    /// A signal killed the task that had the last descriptor (W7).
    Killed,
    /// Others waited for longer than the rule's lease.
    Expired,
    /// The mount is going away and does not wait.
    Unmounted,
}

impl Coordination {
    /// A descriptor of the handle was closed. It was the last one when nobody else who could have it still has it; then the session ends,
    /// and `reply` waits for that, so that close(2) tells the truth.
    pub fn flush(self: &Arc<Self>, caller: Caller, writer: &Writer, reply: EndReply) {
        writer.closed();
        let closing = proc::closing(caller.tid);
        if closing == Closing::Exec {
            // It holds a lock that whoever asks about its descriptors waits for, and execve(2) has no use for our answer. RELEASE ends the session if
            // this was its last descriptor.
            return reply(Ok(()));
        }
        let (this, session) = (Arc::clone(self), writer.session());
        let process = caller::process(caller);
        // Another of its processes may be in execve just now, waiting for an answer that only a thread which reads requests can give.
        let run = move || this.descriptor_closed(session, process, ending(closing), reply);
        self.tree.workers.run(run);
    }

    fn descriptor_closed(self: &Arc<Self>, session: Arc<Session>, flusher: ProcId, why: Ending, reply: EndReply) {
        let noted = session.staged(|staged| {
            staged.last_close = why;
            if flusher.is_known() && !staged.processes.contains(&flusher.tgid) {
                staged.processes.push(flusher.tgid);
            }
            let waits = session.about.policy.durability != Durability::Fast;
            let written = (waits && staged.changed).then(|| Arc::clone(&staged.shadow.file));
            Ok((staged.processes.clone(), written))
        });
        let noted = noted.inspect(|(_, written)| written.iter().for_each(|file| self.store.start_writing(file)));
        match noted {
            // Whether a process of another pid namespace has it open nobody can tell: RELEASE will.
            Ok(_) if !flusher.is_known() => reply(Ok(())),
            Ok((processes, _)) => {
                let holders = self.holders(session.about.node, flusher, &processes);
                if holders.are_there {
                    // Before the answer, after which the flusher may be gone, and its children nobody's.
                    self.bequeath(&session, holders.heirs);
                    return reply(Ok(()));
                }
                let taken = session.take_closed();
                session.on_end(reply);
                if let Some(staged) = taken {
                    self.finish_taken(session, staged, why);
                }
            }
            Err(_) => session.on_end(reply),
        }
    }

    /// The handle is gone, mappings included. Ends the session if no close was taken for the last one.
    pub fn close_writer(self: &Arc<Self>, writer: &Writer) {
        writer.closed();
        let session = writer.session();
        let last = session.staged(|staged| {
            staged.handles = staged.handles.saturating_sub(1);
            Ok((staged.handles == 0).then_some(staged.last_close))
        });
        if let Ok(Some(why)) = last
            && let Some(staged) = session.take_left()
        {
            self.end_taken(session, staged, why);
        }
    }

    /// Lets go of a session's node after its last handle.
    pub fn forget_pin(&self, writer: Arc<Writer>) {
        let session = writer.session();
        let opened = writer.node;
        drop(writer);
        let node = session.about.node;
        drop(session);
        self.tree.nodes.handle_closed(node);
        if opened != node {
            self.tree.nodes.handle_closed(opened);
        }
    }

    /// The lease of a session has run out.
    pub(super) fn expire(self: &Arc<Self>, id: crate::session::SessionId) {
        let Some(session) = self.files.lock().session(id).cloned() else {
            return;
        };
        let (this, expired) = (Arc::clone(self), Arc::clone(&session));
        let cut_off = move || {
            this.write_back(&expired);
            let _ = this.end_now(&expired, Ending::Expired);
        };
        // Its shadow may be busy, and the thread that watches over the waits must not wait itself. Nor may a worker: see `write_back`.
        let started = std::thread::Builder::new()
            .name("concord-cut-off".into())
            .spawn(cut_off);
        if let Err(error) = started {
            log::warn!("what {session:?} has stored through mappings is not kept, there is no thread for it: {error}");
            self.end(&session, Ending::Expired);
        }
    }

    /// The kernel gives us what was stored through mappings of a session, which its holder was not asked to end, as writes by its handles. Not for a thread that reads
    /// requests, nor for a worker: those are needed meanwhile.
    pub(super) fn write_back(&self, session: &Arc<Session>) {
        let writers = self.tree.handles.writers().into_iter();
        let its = writers.filter(|(_, writer)| Arc::ptr_eq(&writer.session(), session));
        let mut nodes: Vec<NodeId> = its.map(|(_, writer)| writer.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.into_iter().for_each(|node| self.tree.write_back(node));
    }

    /// Ends a session on a worker thread, once.
    pub(super) fn end(self: &Arc<Self>, session: &Arc<Session>, why: Ending) {
        if let Some(staged) = session.take() {
            self.end_taken(Arc::clone(session), staged, why);
        }
    }

    fn end_taken(self: &Arc<Self>, session: Arc<Session>, staged: Staged, why: Ending) {
        let this = Arc::clone(self);
        self.tree.workers.run(move || this.finish_taken(session, staged, why));
    }

    /// Ends a session on this thread, which may wait for the disk. A session that is ending already is waited for.
    pub(super) fn end_now(self: &Arc<Self>, session: &Arc<Session>, why: Ending) -> Result<(), Errno> {
        if let Some(staged) = session.take() {
            self.finish_taken(Arc::clone(session), staged, why);
        }
        session.settle().map(|_| ())
    }

    /// Takes the session with it: whoever holds it when its closer is answered keeps its node from the closer's next open.
    pub(super) fn finish_taken(self: &Arc<Self>, session: Arc<Session>, staged: Staged, why: Ending) {
        let outcome = self.finish(&session, staged, why);
        self.renew_others(&session);
        self.over(session, outcome);
    }

    /// The writer is answered last: its next open must find the file free.
    fn over(self: &Arc<Self>, session: Arc<Session>, outcome: Outcome) {
        if matches!(outcome, Outcome::Lost(_)) {
            self.rebind_to_current(&session);
        }
        self.files.lock().remove_session(&session);
        let result = match &outcome {
            Outcome::Done { .. } => Ok(()),
            Outcome::Lost(errno) => Err(*errno),
        };
        // Before the answer: whoever learns from close(2), or waits until it is over, must find the file free.
        let held = (!session.is_late()).then_some((session.about.id, session.file()));
        let wakes = self.let_go(held);
        let replies = session.end(outcome);
        drop(session);
        replies.into_iter().for_each(|reply| reply(result));
        self.carry_out(wakes);
        self.store.tidy();
    }

    /// What becomes of what was staged.
    fn finish(&self, session: &Session, staged: Staged, why: Ending) -> Outcome {
        // Who is gone by force has no use for what could not be written.
        let matters = staged.changed || why == Ending::Closed;
        if !staged.matters() || !matters {
            return self.drop_staged(session, staged);
        }
        let what_failed = match session.about.how {
            How::Restore => "the shadow of a restore could not be written",
            _ => "writing or syncing it failed",
        };
        let lost = match why {
            Ending::Closed => staged
                .failure()
                .map(|errno| (format!("{what_failed}: {errno}"), errno, Counted::Failed)),
            Ending::Killed => Some((
                "its writer was killed before it closed the file".to_owned(),
                Errno::STALE,
                Counted::Killed,
            )),
            Ending::Expired => Some((
                "its lease ran out while others waited".to_owned(),
                Errno::STALE,
                Counted::Expired,
            )),
            Ending::Unmounted => Some((
                "the mount was taken away by force".to_owned(),
                Errno::STALE,
                Counted::Killed,
            )),
        };
        match lost {
            Some((reason, errno, counted)) => {
                self.counts.add(counted);
                self.discard(session, staged, counted, &reason);
                Outcome::Lost(errno)
            }
            None => self.publish(session, staged),
        }
    }

    fn drop_staged(&self, session: &Session, staged: Staged) -> Outcome {
        self.counts.add(Counted::Unchanged);
        let content = staged.base.clone().unwrap_or_else(|| Arc::clone(&staged.shadow.file));
        let version = staged.shadow.based_on.clone();
        if let Err(error) = self.store.drop_unwritten(staged.shadow) {
            log::warn!("an empty shadow stays in .concord/shadows until the next start: {error}");
        }
        self.rebind_to_current(session);
        Outcome::Done { content, version }
    }

    fn discard(&self, session: &Session, staged: Staged, counted: Counted, reason: &str) {
        let kind = match counted {
            Counted::Failed => RecoveredKind::Refused,
            _ => RecoveredKind::Staged,
        };
        let name = session.name().name.to_string_lossy().into_owned();
        match self.store.discard(staged.shadow, kind, reason, nanos_now()) {
            Ok(Some(kept)) => log::warn!(
                "what {} staged for {name} was not published: {reason}; it is kept in .concord/recovered/{kept}",
                described(&session.about.who)
            ),
            Ok(None) if counted == Counted::Failed => self.note_lost(session, reason),
            Ok(None) => {}
            Err(error) => {
                log::error!("what was staged for {name} stays in .concord/shadows until the next start: {error}")
            }
        }
    }

    fn publish(&self, session: &Session, staged: Staged) -> Outcome {
        let name = session.name();
        let key_name = self.key_name(&name);
        let _turn = self.turns.take(&[&name, &key_name]);
        let content = Arc::clone(&staged.shadow.file);
        let result = self
            .path_of(&name)
            .and_then(|path| Ok((self.directory(name.parent)?, path)));
        let (dir, path) = match result {
            Ok(found) => found,
            Err(errno) => {
                self.counts.add(Counted::Failed);
                self.discard(session, staged, Counted::Failed, "its directory was removed");
                return Outcome::Lost(errno);
            }
        };
        let is_ordinary = self.target(name.parent, &name.name).is_none();
        if (session.is_late() || is_ordinary) && matches!(self.stat(&name), Err(Errno::NOENT)) {
            // The queue did not see to it that it stays.
            return self.drop_staged(session, staged);
        }
        let is_anothers = |base| self.store.history().is_given_away(&path, base).unwrap_or(false);
        if session.is_late() && staged.base.as_deref().is_some_and(is_anothers) {
            // What is written to a file that was removed goes with it, as anywhere.
            return self.drop_staged(session, staged);
        }
        let started_from = (staged.base.as_deref(), staged.shadow.based_on.as_ref());
        if staged.only_opened && self.is_overtaken(started_from, &name, &place(&dir, &name, &path)) {
            return self.drop_staged(session, staged);
        }
        let mut staged = staged;
        let log = self.logs.of(&key_name);
        let mut log = log.lock();
        if let Err(errno) = self.take_along(&mut log, &mut staged) {
            self.counts.add(Counted::Failed);
            self.discard(
                session,
                staged,
                Counted::Failed,
                "what was appended meanwhile could not be added",
            );
            return Outcome::Lost(errno);
        }
        let info = PublishInfo {
            // The kernel keeps which inode it leads to.
            in_place: is_ordinary,
            ..publish_info(session.about.how, &session.about.policy)
        };
        let in_place = is_ordinary || self.is_shared(&name);
        if in_place {
            match self.store.ensure_image(&place(&dir, &name, &path)) {
                Ok(image) => self.keep_apart(&mut log, &name, image),
                // The publish will come to the same end and say so.
                Err(error) => log::debug!("no image of {}: {error}", path.display()),
            }
        }
        let replaced = self.replaced_by(&name);
        let base = staged.base.as_ref().unwrap_or(&staged.shadow.file);
        if let Some(replaced) = &replaced
            && !self.may_replace(session, base, (&name, replaced))
        {
            // Only where the queue does not see to it: a late session, or one that stepped back from a lock.
            self.counts.add(Counted::Failed);
            let reason = "the file was replaced by one that its writer may not write to";
            self.discard(session, staged, Counted::Failed, reason);
            return Outcome::Lost(Errno::ACCESS);
        }
        let appears = replaced.is_none();
        // Nobody finds the new version by the number of the one that it replaces.
        self.tree.nodes.shows_itself(session.about.node);
        let published = self.store.publish(staged.shadow, &place(&dir, &name, &path), &info);
        if appears {
            self.tree.changed_behind(name.parent);
        }
        if !self.store.images().is_empty() {
            self.written_in_place(&name);
        }
        match published {
            Ok(published) => {
                self.replaced(&mut log);
                self.nodes_follow_publish(replaced, session);
                if session.is_late() {
                    self.counts.add(Counted::Late);
                }
                if published.stale {
                    self.counts.add(Counted::Stale);
                }
                self.note_unkept(&path, &published, "emptied");
                self.published(&path);
                self.tell_watchers(&name, path.clone(), session.about.how);
                let version = Some(self.store.published_as(path, published.version, &content));
                Outcome::Done { content, version }
            }
            Err(error) => {
                self.counts.add(Counted::Failed);
                if error.kept.is_none() {
                    self.note_failed(&error);
                }
                log::error!(
                    "{error}; {} was told so when it closed the file",
                    described(&session.about.who)
                );
                if error.published {
                    self.replaced(&mut log);
                    self.nodes_follow_publish(replaced, session);
                }
                Outcome::Lost(from_io(&error.source))
            }
        }
    }

    /// What a session has staged is current. Before its turn is over: who changes the file's metadata next finds it by its node.
    fn nodes_follow_publish(&self, replaced: Option<Arc<Pin>>, session: &Session) {
        self.replace_node(replaced, session);
        self.leave_node(session, true);
        if session.is_late() {
            self.rebind_to_current(session);
        }
        session.appeared();
    }

    /// The inode that a publish to this name will replace, held.
    fn replaced_by(&self, name: &Name) -> Option<Arc<Pin>> {
        if let Some((_, image)) = self.image_at(name) {
            return Some(Arc::new(Pin::new(image, Access::Read, None)));
        }
        let dir = self.directory(name.parent).ok()?;
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&dir, &*name.name, flags, rustix::fs::Mode::empty()).ok()?;
        Some(Arc::new(Pin::new(fd, Access::Path, None)))
    }

    /// The name leads to another version now. The inode of the replaced one lives on in the history, and its number may some day come back
    /// for another file.
    fn replace_node(&self, replaced: Option<Arc<Pin>>, session: &Session) {
        let Some(pin) = replaced else { return };
        let Ok(stat) = rustix::fs::fstat(pin.fd()) else { return };
        if let Some(old) = self.tree.nodes.find(attr::identity(&stat, false))
            && old != session.about.node
        {
            self.tree.overtaken(old, Some(pin));
        }
    }

    /// Tells watchers of a version, on whatever node of the name they are, what the kernel tells them when a file is written in place.
    fn tell_watchers(&self, name: &Name, path: PathBuf, how: How) {
        let news = match how {
            How::Truncate => News::Modified,
            _ => News::Saved,
        };
        self.tell_formers(name, news);
        // Whoever closes the file has this node open, and of that the kernel tells after the publish. But of what he wrote it told before.
        self.tree.tell_watchers(path, News::Modified);
    }

    /// Tells watchers on former nodes of a name.
    pub(super) fn tell_formers(&self, name: &Name, news: News) {
        for former in self.tree.nodes.formers(name) {
            self.tree.tell_watchers(notices::path_of(former), news);
        }
    }

    /// Another session that stages on a session's node: another handle's, that began again after a lock as well.
    pub(super) fn beside(&self, node: NodeId, session: &Session) -> Option<Arc<Session>> {
        let all = self.files.lock().sessions_on(node);
        all.into_iter()
            .rfind(|other| other.about.id != session.about.id && !self.is_committed(other))
    }

    /// The session's node is another one's too: it stands for what that stages, and not for what the session has left. `false`: it is the session's alone.
    fn leave_node(&self, session: &Session, published: bool) -> bool {
        let node = session.about.node;
        let Some(beside) = self.beside(node, session) else {
            if published && session.leaves_handles() {
                session.leave_behind(&session.pin());
            }
            return false;
        };
        if published {
            // Who found the node by the name meanwhile has this version open.
            beside.share_node(Some(session.pin()));
        }
        if let Ok(stat) = rustix::fs::fstat(beside.pin().fd()) {
            let identity = attr::identity(&stat, false);
            if self.tree.nodes.identity(node) != Some(identity) {
                self.tree.nodes.rebind(node, identity, Some(&beside.pin()));
            }
        }
        self.tree.attributes_changed(node);
        true
    }

    /// The session's shadow is gone: its node stands for the current version again. Where there is none it stands for nothing: the shadow's inode number may come back
    /// for another file.
    fn rebind_to_current(&self, session: &Session) {
        if self.leave_node(session, false) {
            return;
        }
        let node = session.about.node;
        match self.stat(&session.name()) {
            Ok(stat) => {
                let identity = attr::identity(&stat, false);
                if self.tree.nodes.identity(node) != Some(identity) {
                    let pin = session.leaves_handles().then(|| self.current_pin(&session.name()).ok());
                    let pin = pin.flatten().inspect(|pin| session.leave_behind(pin));
                    self.tree.given_back(node, identity, pin.as_ref());
                }
            }
            Err(_) => self.tree.nodes.supersede(node, None),
        }
    }
}

fn ending(closing: Closing) -> Ending {
    match closing {
        Closing::Killed => Ending::Killed,
        Closing::Call | Closing::Exec | Closing::Exit => Ending::Closed,
    }
}
