//! flock(2), kept by the daemon (W12): per logical file for coordinated files, per inode for all others.
//!
//! The kernel's own locks hang on its inode, and a coordinated file has a new one with each version. A lock belongs to an open file description,
//! which is a handle here, and ends with its RELEASE. What waits is an entry in a table; `wait.rs` looks for signals.
//!
//! What locks have to do with sessions:
//! - Letting go publishes what the handle has written before anybody else gets the lock. The session is over then; with the next lock, or the next
//!   write, the handle begins another one, on what is current by then ([`Coordination::go_on`]). Where it has done nothing but lock, it gives its session up.
//! - A handle that does not get a lock holds nobody up: its session steps back. Otherwise it and who has the lock, and wants to write, would wait for
//!   each other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::begin::Beginning;
use super::close::Ending;
use super::files::{Granted, InHand, Need};
use super::handles::Writer;
use super::locks::{Turn, Waiting, Whose};
use super::permission::LetIn;
use super::reader::Reader;
use super::session::{Life, Session};
use super::shown::is_of_lineage;
use super::staged::Staged;
use super::{Answer, Appender, Coordination, Target, caller};
use crate::mount::attr;
use crate::mount::handles::Handle;
use crate::mount::nodes::{Name, NodeId};
use crate::mount::tree::Caller;
use crate::os::proc;
use crate::session::{FileKey, Intent, LockKey, LockMode, LockOwner, ProcId, SessionId, Ticket};
use crate::store::record::How;

/// A refused LOCK_NB is answered after this time, unless the lock becomes free. The kernel does not wait for our answer to RELEASE, so that the
/// lock of a descriptor that has just been closed may be held for a moment longer; on other filesystems it is free when close(2) returns.
const NONBLOCK_PATIENCE: Duration = Duration::from_millis(10);

/// What has a lock, or wants it.
#[derive(Debug, Clone)]
pub enum Holder {
    /// A handle that nothing follows from.
    Other,
    /// A coordinated file, open for reading.
    Reader(Arc<Reader>),
    /// A coordinated file, open for writing.
    Writer(Arc<Writer>),
    /// A coordinated file, open for appending only.
    Appender(Arc<Appender>),
}

/// One flock(2).
pub struct Wish {
    /// Who asks.
    pub caller: Caller,
    /// The open file description: see [`route::lock_owner`](crate::mount::route::lock_owner).
    pub owner: LockOwner,
    /// `None`: LOCK_UN.
    pub mode: Option<LockMode>,
    /// LOCK_NB.
    pub nonblock: bool,
}

struct Attempt {
    whose: Whose,
    holder: Holder,
    caller: Caller,
    owner: LockOwner,
    mode: LockMode,
    nonblock: bool,
}

impl Coordination {
    /// flock(2) on a handle of `node`.
    ///
    /// Answers EWOULDBLOCK and EINTR as flock(2) does; letting go, also ENOSPC, EIO and the like when what the handle has written cannot be published. The
    /// lock is free then all the same.
    pub fn flock(self: &Arc<Self>, wish: Wish, node: NodeId, handle: &Handle, answer: Answer<()>) {
        let holder = match handle {
            Handle::Reader(reader) => Holder::Reader(Arc::clone(reader)),
            Handle::Writer(writer) => Holder::Writer(Arc::clone(writer)),
            Handle::Appender(appender) => Holder::Appender(Arc::clone(appender)),
            Handle::Ordinary(_) => Holder::Other,
        };
        let Wish {
            caller,
            owner,
            mode,
            nonblock,
        } = wish;
        let whose = match self.whose(node, &holder) {
            Ok(whose) => whose,
            Err(errno) => return answer(Err(errno)),
        };
        // To have a lock converted is to let go of it.
        let lets_go = self.locks.lock().changes(owner, mode);
        let saved = match lets_go {
            true => self.saved_by(&whose, caller::process(caller)),
            false => Vec::new(),
        };
        let written = match &holder {
            Holder::Writer(_) | Holder::Appender(_) if lets_go => Some(holder.clone()),
            _ => None,
        };
        let this = Arc::clone(self);
        let then = move |published: Result<(), Errno>| match mode {
            Some(mode) if published.is_ok() => this.lock(
                Attempt {
                    whose,
                    holder,
                    caller,
                    owner,
                    mode,
                    nonblock,
                },
                answer,
            ),
            _ => {
                this.unlock(owner);
                answer(published);
            }
        };
        if written.is_none() && saved.is_empty() {
            return then(Ok(()));
        }
        let this = Arc::clone(self);
        self.tree.workers.run(move || {
            this.publish_saved(saved);
            let published = written.as_ref().map_or(Ok(()), |holder| this.publish_locked(holder));
            if let (None, Some(Holder::Writer(writer))) = (mode, &written) {
                this.give_up_unused(&writer.session());
            }
            then(published);
        });
    }

    /// What a process has written to a file and closed, though another of its handles, which has joined the session, keeps it from being published: one that
    /// will wait for the lock, as a rule.
    fn saved_by(&self, whose: &Whose, process: ProcId) -> Vec<Arc<Session>> {
        let Whose::Name(name) = whose else { return Vec::new() };
        let sessions = {
            let files = self.files.lock();
            files
                .key_of(name)
                .map(|key| files.sessions(key).to_vec())
                .unwrap_or_default()
        };
        let is_saved = |session: &Arc<Session>| {
            session.is_held_by(&process) && session.staged(|staged| Ok(staged.is_saved())) == Ok(true)
        };
        sessions.into_iter().filter(is_saved).collect()
    }

    /// These become versions now, and their handles go on with other sessions.
    fn publish_saved(self: &Arc<Self>, saved: Vec<Arc<Session>>) {
        for session in saved {
            session.set_resumable();
            // Who closed it was told that it is open still; the log has what went wrong.
            let _ = self.end_now(&session, Ending::Closed);
        }
    }

    /// The last descriptor of an open file description is closed: its lock goes, after what its handle has written.
    pub fn release_lock(self: &Arc<Self>, owner: LockOwner, handle: Option<&Handle>) {
        let Some((whose, process)) = self.locks.lock().held(owner) else {
            return;
        };
        let saved = whose.map_or(Vec::new(), |whose| self.saved_by(&whose, process));
        let this = Arc::clone(self);
        let session = match handle {
            Some(Handle::Writer(writer)) => writer.session(),
            Some(Handle::Appender(appender)) => {
                let appender = Arc::clone(appender);
                return self.tree.workers.run(move || {
                    this.publish_saved(saved);
                    let _ = this.finish_append(&appender);
                    this.unlock(owner);
                });
            }
            _ if saved.is_empty() => return self.unlock(owner),
            _ => {
                return self.tree.workers.run(move || {
                    this.publish_saved(saved);
                    this.unlock(owner);
                });
            }
        };
        self.tree.workers.run(move || {
            this.publish_saved(saved);
            let unpublished = |staged: &mut Staged| Ok(staged.matters() && staged.last_close == Ending::Closed);
            if session.staged(unpublished) == Ok(true) {
                // Others of its lineage write to the session too; they go on with what it leaves.
                session.set_resumable();
                // Its writer is gone, and there is nobody else to tell; the log has it.
                let _ = this.end_now(&session, Ending::Closed);
            } else {
                let _ = session.settle();
            }
            this.unlock(owner);
            let node = session.about.node;
            drop(session);
            this.tree.nodes.handle_closed(node);
        });
    }

    fn unlock(self: &Arc<Self>, owner: LockOwner) {
        let turn = self.locks.lock().unlock(owner);
        turn.into_iter().for_each(|turn| self.turned(turn));
    }

    /// Whose turn it is with a lock has changed.
    fn turned(self: &Arc<Self>, turn: Turn) {
        turn.woken.into_iter().for_each(|waiting| self.woken(waiting));
        if turn.crowded {
            let (this, key) = (Arc::clone(self), turn.key);
            self.tree.workers.run(move || this.make_way(key));
        }
    }

    /// What the handle has written becomes a version. Waits for the disk.
    fn publish_locked(self: &Arc<Self>, holder: &Holder) -> Result<(), Errno> {
        let session = match holder {
            Holder::Writer(writer) => writer.session(),
            Holder::Appender(appender) => return self.publish_held(appender),
            Holder::Reader(_) | Holder::Other => return Ok(()),
        };
        match session.staged(|staged| Ok(staged.matters())) {
            Ok(true) => {
                session.set_resumable();
                self.end_now(&session, Ending::Closed)
            }
            _ => Ok(()),
        }
    }

    /// Which lock a handle asks for. It may have been opened when its file had another name, of which other rules hold: what the file is called now counts, for
    /// who opens it by that name asks for the same.
    fn whose(&self, node: NodeId, holder: &Holder) -> Result<Whose, Errno> {
        let names = || self.tree.nodes.info(node).map(|info| info.names).unwrap_or_default();
        let name = match holder {
            Holder::Writer(writer) => Some(writer.session().name()),
            Holder::Reader(reader) => names().into_iter().next().or_else(|| Some(reader.name().clone())),
            Holder::Appender(appender) => names().into_iter().next().or_else(|| Some(appender.name.clone())),
            Holder::Other => names().into_iter().find(|name| self.is_coordinated(name)),
        };
        Ok(match name.filter(|name| self.is_coordinated(name)) {
            Some(name) => {
                let name = self.key_name(&name);
                self.find_lock(&name);
                Whose::Name(name)
            }
            None => Whose::Inode(self.tree.identity(node)?),
        })
    }

    pub(super) fn is_coordinated(&self, name: &Name) -> bool {
        self.target(name.parent, &name.name).is_some()
    }

    fn lock(self: &Arc<Self>, attempt: Attempt, answer: Answer<()>) {
        let Attempt {
            whose,
            holder,
            owner,
            mode,
            caller,
            ..
        } = &attempt;
        let process = caller::process(*caller);
        let by = (holder, process, caller.uid);
        let mut locks = self.locks.lock();
        let (granted, turn) = locks.try_lock(whose, *owner, by, *mode);
        let Attempt {
            whose,
            holder,
            caller,
            owner,
            mode,
            nonblock,
        } = attempt;
        if granted {
            drop(locks);
            self.turned(turn);
            return self.granted(holder, caller, owner, nonblock, answer);
        }
        let waiting = Waiting {
            caller,
            owner,
            holder,
            process,
            since: Instant::now(),
            until: nonblock.then(|| Instant::now() + NONBLOCK_PATIENCE),
            answer,
        };
        let crowded = locks.wait(&whose, mode, waiting).crowded;
        drop(locks);
        self.turned(Turn { crowded, ..turn });
        self.wakeup.call();
    }

    fn woken(self: &Arc<Self>, waiting: Waiting) {
        let Waiting {
            caller,
            owner,
            holder,
            until,
            answer,
            ..
        } = waiting;
        self.granted(holder, caller, owner, until.is_some(), answer);
    }

    /// The lock is had: what the handle sees and writes is current from now on.
    fn granted(self: &Arc<Self>, holder: Holder, caller: Caller, owner: LockOwner, nonblock: bool, answer: Answer<()>) {
        match holder {
            // Its finished lines are everybody's already.
            Holder::Other | Holder::Appender(_) => answer(Ok(())),
            Holder::Reader(reader) => {
                self.unbind(&reader);
                answer(Ok(()));
            }
            Holder::Writer(writer) if writer.is_open_now() && !self.is_behind(&writer.session()) => answer(Ok(())),
            Holder::Writer(writer) => {
                let this = Arc::clone(self);
                self.tree.workers.run(move || {
                    this.bring_up_to_date(&writer.session());
                    this.go_on_locked(writer, caller, owner, nonblock, answer);
                });
            }
        }
    }

    fn go_on_locked(
        self: &Arc<Self>,
        writer: Arc<Writer>,
        caller: Caller,
        owner: LockOwner,
        nonblock: bool,
        answer: Answer<()>,
    ) {
        let this = Arc::clone(self);
        let again = Arc::clone(&writer);
        self.go_on(
            writer,
            caller,
            (Need::Lock, nonblock),
            Box::new(move |resumed| match resumed {
                Err(Errno::BUSY) if !this.is_closing() => {
                    let that = Arc::clone(&this);
                    this.tree.workers.run(move || {
                        if that.is_with_who_waits(&again.session()) {
                            that.unlock(owner);
                            return answer(Err(Errno::BUSY));
                        }
                        // flock(2) waits as long as it takes.
                        that.go_on_locked(again, caller, owner, nonblock, answer);
                    });
                }
                Err(errno @ (Errno::INTR | Errno::WOULDBLOCK | Errno::DEADLK)) => {
                    this.unlock(owner);
                    answer(Err(errno));
                }
                // The lock is not to blame: who writes is told.
                _ => answer(Ok(())),
            }),
        );
    }

    /// Whether somebody who has a session of the file waits for another file's lock: for ours, perhaps, and we would wait for each other.
    fn is_with_who_waits(&self, ours: &Session) -> bool {
        let name = self.key_name(&ours.name());
        let sessions = {
            let files = self.files.lock();
            files
                .key_of(&name)
                .map(|key| files.sessions(key).to_vec())
                .unwrap_or_default()
        };
        let waiting = self.locks.lock().waiting_elsewhere(&Whose::Name(name));
        // Strangers would all be taken for one.
        let mut known = waiting.into_iter().filter(|caller| caller.tid != 0);
        known.any(|caller| sessions.iter().any(|session| is_of_lineage(caller, session)))
    }

    /// The handle's session is over, but not the handle: begins another one, on the version that is current when the queue admits it. Waits on
    /// this thread for a session that is just ending.
    fn go_on(self: &Arc<Self>, writer: Arc<Writer>, caller: Caller, (need, nonblock): (Need, bool), then: Answer<()>) {
        let old = writer.session();
        match old.settle() {
            Ok(Life::Done(..)) => {}
            Ok(Life::Open) => return then(Ok(())),
            Err(errno) => return then(Err(errno)),
        }
        let name = old.name();
        let Some(target) = self.target(name.parent, &name.name) else {
            return then(Ok(()));
        };
        let in_hand = InHand::take(&self.files, &name);
        let file = in_hand.key();
        // Its node can be no other session's.
        let claim = self.claim(caller, file, Intent::Truncate, nonblock);
        let process = claim.opener.proc;
        let this = Arc::clone(self);
        let begun = target.clone();
        let admitted = move |granted: Result<Granted, Errno>| {
            let began = granted.and_then(|granted| {
                let Granted { id, .. } = granted;
                this.begin_again((&writer, &old), &begun, id, file, process)
            });
            then(began.map(|session| {
                if !writer.replace(&old, &session) {
                    // Another thread was faster.
                    this.end(&session, Ending::Closed);
                }
                let node = old.about.node;
                drop(old);
                this.tree.nodes.handle_closed(node);
            }));
        };
        self.acquire_for(need, &target, claim, Box::new(admitted));
    }

    fn begin_again(
        self: &Arc<Self>,
        (writer, old): (&Writer, &Session),
        target: &Target,
        id: SessionId,
        file: FileKey,
        asker: ProcId,
    ) -> Result<Arc<Session>, Errno> {
        let node = writer.node;
        // A child may have locked what its parent goes on with: flock(1), by the shell's descriptor. It is the opener's session as it was before, and those who
        // were left it hold it too.
        let former = old.about.process;
        let opener = match caller::process_of(former.tgid) {
            Some(opener) if opener == former => opener,
            _ => asker,
        };
        let others = match self.beside(node, old) {
            // What the node stands for now is no version.
            Some(beside) => beside.shared().cloned(),
            None => self.tree.nodes.open_pin(node).filter(|pin| {
                // One is here; all else are handles on the version that the node stood for.
                Arc::strong_count(pin) > 1 + writer.pins(pin)
            }),
        };
        let left = old
            .left()
            .and_then(|left| Some(attr::identity(&rustix::fs::fstat(&left).ok()?, false)));
        let beginning = Beginning {
            id,
            file,
            node: Some(node),
            // Who writes through a mapping is nobody that the kernel names, and its opener's rights are the handle's.
            caller: old.about.caller,
            process: opener,
            how: How::Close,
            truncate: false,
            creates: None,
            like: None,
            dressed_as: None,
            own_node: true,
            // By its handle it is right for what that has left.
            let_in: LetIn::since(left, None, false),
            // The handle may read too, for all that is known here.
            wanted: rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK,
        };
        let session = self.begin(target, beginning)?;
        session.share_node(others);
        session.stay_with(old);
        session.inherit([former, asker].into_iter().chain(old.heirs()));
        let holders: Vec<ProcId> = std::iter::once(opener).chain(session.heirs()).collect();
        self.told_of(&session, &holders);
        self.tree.attributes_changed(node);
        Ok(session)
    }

    /// Before a change through a handle: where its session ended with a lock, another one begins first. `job` runs on a worker thread.
    pub fn before_change(
        self: &Arc<Self>,
        caller: Caller,
        writer: &Arc<Writer>,
        need: Need,
        job: impl FnOnce(Result<(), Errno>) + Send + 'static,
    ) {
        let (this, writer) = (Arc::clone(self), Arc::clone(writer));
        self.tree.workers.run(move || {
            if !writer.session().is_resumable() {
                return job(Ok(()));
            }
            let tree = Arc::clone(&this.tree);
            this.go_on(
                writer,
                caller,
                (need, false),
                Box::new(move |resumed| match resumed {
                    // Its file is gone: what is written goes where `change` says.
                    Err(Errno::NOENT) => tree.workers.run(move || job(Ok(()))),
                    resumed => tree.workers.run(move || job(resumed)),
                }),
            );
        });
    }

    /// Who waits for a lock must not hold up who has it, whoever that is by now: see [`Coordination::step_back`].
    fn make_way(self: &Arc<Self>, key: LockKey) {
        let mut again = true;
        while again {
            again = false;
            let in_the_way = self.locks.lock().in_the_way(key);
            for (ticket, writer) in in_the_way {
                let gave_up = self.step_back(key, &writer);
                let (granted, turned) = self.locks.lock().stepped(ticket, gave_up);
                again |= turned;
                granted.into_iter().for_each(|waiting| self.woken(waiting));
            }
        }
    }

    /// A handle does not have a lock. Its session must not hold up who has it: unchanged it is given up, and begun again with the lock; changed it
    /// goes on outside the queue. `false`: not yet, because another handle of the same session has the lock, or the file is only coming to be.
    fn step_back(self: &Arc<Self>, key: LockKey, writer: &Writer) -> bool {
        let session = writer.session();
        let same = |holder: &Holder| matches!(holder, Holder::Writer(other) if Arc::ptr_eq(&other.session(), &session));
        let holders = self.locks.lock().holders(key);
        if session.creates() || holders.iter().any(same) {
            return false;
        }
        if !self.give_up_taken(&session, session.take_unchanged()) && session.is_open() {
            self.release(session.about.id, session.file());
        }
        true
    }

    /// A handle has let go of its lock. If that is all it was for, others who want to write need not wait until it is closed. Not so where anything was read: many a
    /// program writes after it has let go, from a buffer, what it has read before.
    fn give_up_unused(self: &Arc<Self>, session: &Arc<Session>) {
        self.give_up_taken(session, session.take_unused());
    }

    /// Ends a session that has nothing to publish, and was taken for that; its handles go on with another one when they need it. `false`: it was not taken.
    pub(super) fn give_up_taken(self: &Arc<Self>, session: &Arc<Session>, taken: Option<Staged>) -> bool {
        let Some(staged) = taken else { return false };
        session.set_resumable();
        self.finish_taken(Arc::clone(session), staged, Ending::Closed);
        true
    }

    /// Ends the waits of LOCK_NB whose time has come and, where it `asks` for them, of threads that have a signal pending which ends them; returns when it has to be called again.
    pub(super) fn watch_locks(self: &Arc<Self>, asks: bool) -> Option<Duration> {
        let now = Instant::now();
        let (mut over, mut tids) = (Vec::new(), Vec::new());
        let mut next = None;
        {
            let locks = self.locks.lock();
            for (ticket, waiting) in &locks.waiting {
                match waiting.until {
                    Some(until) if until <= now => over.push((*ticket, Errno::WOULDBLOCK)),
                    Some(until) => next = Some(next.map_or(until - now, |next: Duration| next.min(until - now))),
                    None if waiting.caller.tid != 0 => tids.push((*ticket, waiting.caller.tid)),
                    None => {}
                }
            }
        }
        for (ticket, tid) in tids.iter().filter(|_| asks) {
            if proc::ends_wait(*tid, Need::Lock.ends_by()) {
                over.push((*ticket, Errno::INTR));
            }
        }
        for (ticket, errno) in over {
            self.give_up(ticket, errno);
        }
        next.or((!tids.is_empty()).then_some(super::wait::SIGNALS_EVERY))
    }

    fn give_up(self: &Arc<Self>, ticket: Ticket, errno: Errno) {
        let cancelled = self.locks.lock().cancel(ticket);
        let Some((key, waiting)) = cancelled else { return };
        let Holder::Writer(writer) = waiting.holder else {
            return (waiting.answer)(Err(errno));
        };
        let this = Arc::clone(self);
        self.tree.workers.run(move || {
            this.step_back(key, &writer);
            (waiting.answer)(Err(errno));
        });
    }
}
