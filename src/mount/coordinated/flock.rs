//! flock(2), kept by the daemon (W12): per logical file for coordinated files, per inode for all others.
//!
//! The kernel's own locks hang on its inode, and a coordinated file has a new one with each version. A lock belongs to an open file description,
//! which is a handle here, and ends with its RELEASE. What waits is an entry in a table; `wait.rs` looks for signals.
//!
//! What locks have to do with sessions:
//! - Letting go publishes what the handle has written before anybody else gets the lock. The session is over then; with the next lock, or the next
//!   write, the handle begins another one, on what is current by then ([`Coordination::resume`]).
//! - A handle that does not get a lock holds nobody up: its session steps back. Otherwise it and who has the lock, and wants to write, would wait for
//!   each other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::begin::Beginning;
use super::close::Ending;
use super::files::{Granted, InHand, Need};
use super::handles::Writer;
use super::locks::{Waiting, Whose};
use super::reader::Reader;
use super::session::{Life, Session};
use super::staged::Staged;
use super::{Answer, Appender, Coordination, Target};
use crate::mount::attr;
use crate::mount::handles::Handle;
use crate::mount::nodes::{Name, NodeId};
use crate::mount::tree::Caller;
use crate::os::proc;
use crate::session::{Intent, LockMode, LockOwner, Ticket};
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
        // To have a lock converted is to let go of it.
        match handle {
            Handle::Writer(writer) if self.locks.lock().changes(owner, mode) => {
                let (this, writer) = (Arc::clone(self), Arc::clone(writer));
                self.tree.workers.run(move || then(this.publish_locked(&writer)));
            }
            _ => then(Ok(())),
        }
    }

    /// The last descriptor of an open file description is closed: its lock goes, after what its handle has written.
    pub fn release_lock(self: &Arc<Self>, owner: LockOwner, handle: Option<&Handle>) {
        if !self.locks.lock().holds(owner) {
            return;
        }
        let Some(Handle::Writer(writer)) = handle else {
            return self.unlock(owner);
        };
        let (this, session) = (Arc::clone(self), writer.session());
        self.tree.workers.run(move || {
            let unpublished =
                |staged: &mut Staged| Ok(staged.changed && !staged.unlinked && staged.last_close == Ending::Closed);
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
        let woken = self.locks.lock().unlock(owner);
        woken.into_iter().for_each(|waiting| self.woken(waiting));
    }

    /// What the handle has written becomes a version. Waits for the disk.
    fn publish_locked(self: &Arc<Self>, writer: &Writer) -> Result<(), Errno> {
        let session = writer.session();
        match session.staged(|staged| Ok(staged.changed && !staged.unlinked)) {
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
            Some(name) => Whose::Name(self.key_name(&name)),
            None => Whose::Inode(self.tree.identity(node)?),
        })
    }

    fn is_coordinated(&self, name: &Name) -> bool {
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
        let by = (holder, super::caller::process(*caller), caller.uid);
        let (granted, woken) = self.locks.lock().try_lock(whose, *owner, by, *mode);
        woken.into_iter().for_each(|waiting| self.woken(waiting));
        match (granted, holder) {
            (true, _) => {
                let Attempt {
                    holder,
                    caller,
                    owner,
                    nonblock,
                    ..
                } = attempt;
                self.granted(holder, caller, owner, nonblock, answer);
            }
            (false, Holder::Writer(_)) => {
                let this = Arc::clone(self);
                self.tree.workers.run(move || {
                    if let Holder::Writer(writer) = &attempt.holder {
                        this.step_back(&attempt.whose, writer);
                    }
                    this.await_lock(attempt, answer);
                });
            }
            (false, _) => self.await_lock(attempt, answer),
        }
    }

    /// Tries once more, and waits if need be: nothing happens between the two.
    fn await_lock(self: &Arc<Self>, attempt: Attempt, answer: Answer<()>) {
        let Attempt {
            whose,
            holder,
            caller,
            owner,
            mode,
            nonblock,
        } = attempt;
        let process = super::caller::process(caller);
        let mut locks = self.locks.lock();
        let (granted, woken) = locks.try_lock(&whose, owner, (&holder, process, caller.uid), mode);
        if granted {
            drop(locks);
            woken.into_iter().for_each(|waiting| self.woken(waiting));
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
        locks.wait(&whose, mode, waiting);
        drop(locks);
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
                self.unbind(caller, &reader);
                answer(Ok(()));
            }
            Holder::Writer(writer) if writer.is_open_now() && !self.is_behind(&writer) => answer(Ok(())),
            Holder::Writer(writer) => {
                let this = Arc::clone(self);
                self.tree.workers.run(move || {
                    if this.is_behind(&writer) {
                        this.give_up_unchanged(&writer.session());
                    }
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
                // flock(2) waits as long as it takes.
                Err(Errno::BUSY) if !this.is_closing() => this.go_on_locked(again, caller, owner, nonblock, answer),
                Err(errno @ (Errno::INTR | Errno::WOULDBLOCK | Errno::DEADLK)) => {
                    this.unlock(owner);
                    answer(Err(errno));
                }
                // The lock is not to blame: who writes is told.
                _ => answer(Ok(())),
            }),
        );
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
                let (Granted::New(id) | Granted::Join(id)) = granted;
                this.begin_again(&old, &begun, id, file, process)
            });
            then(began.map(|session| {
                if !writer.replace(&old, &session) {
                    // Another thread was faster.
                    this.end(&session, Ending::Closed);
                }
            }));
        };
        self.acquire_for(need, &target, claim, Box::new(admitted));
    }

    fn begin_again(
        self: &Arc<Self>,
        old: &Session,
        target: &Target,
        id: crate::session::SessionId,
        file: crate::session::FileKey,
        process: crate::session::ProcId,
    ) -> Result<Arc<Session>, Errno> {
        let node = old.about.node;
        let others = self.tree.nodes.open_pin(node).filter(|pin| {
            // One is the old session's, one is here; all else are handles on the version that the node stood for.
            let own = if Arc::ptr_eq(pin, &old.pin) { 2 } else { 1 };
            Arc::strong_count(pin) > own
        });
        let beginning = Beginning {
            id,
            file,
            node: Some(node),
            // Who writes through a mapping is nobody that the kernel names, and its opener's rights are the handle's.
            caller: old.about.caller,
            process,
            how: How::Close,
            truncate: false,
            creates: None,
            own_node: true,
            seen: old
                .left()
                .and_then(|left| Some(attr::identity(&rustix::fs::fstat(&left).ok()?, false))),
            // The handle may read too, for all that is known here.
            wanted: rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK,
        };
        let session = self.begin(target, beginning)?;
        session.share_node(others);
        let former = old.about.process.tgid;
        let _ = session.staged(|staged| {
            if !staged.processes.contains(&former) {
                staged.processes.push(former);
            }
            Ok(())
        });
        self.bequeath(&session, old.heirs());
        self.tree.attributes_changed(node);
        Ok(session)
    }

    /// Before a change through a handle: where its session ended with a lock, another one begins first. `job` runs on a worker thread.
    pub fn before_change(
        self: &Arc<Self>,
        caller: Caller,
        writer: &Arc<Writer>,
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
                (Need::Access, false),
                Box::new(move |resumed| match resumed {
                    // Its file is gone: what is written goes where `change` says.
                    Err(Errno::NOENT) => tree.workers.run(move || job(Ok(()))),
                    resumed => tree.workers.run(move || job(resumed)),
                }),
            );
        });
    }

    /// A handle did not get a lock. Its session must not hold up who has it: unchanged it is given up, and begun again with the lock; changed it
    /// goes on outside the queue. Unless another handle of the same session has the lock, or the file is only coming to be.
    fn step_back(self: &Arc<Self>, whose: &Whose, writer: &Writer) {
        let session = writer.session();
        let same = |holder: &Holder| matches!(holder, Holder::Writer(other) if Arc::ptr_eq(&other.session(), &session));
        let holders = self.locks.lock().holders(whose);
        if session.creates || holders.iter().any(same) {
            return;
        }
        if !self.give_up_unchanged(&session) && session.is_open() {
            self.release(session.about.id, session.about.file);
        }
    }

    /// Ends a session that has nothing to publish; its handles go on with another one when they need it. `false`: it has.
    fn give_up_unchanged(self: &Arc<Self>, session: &Arc<Session>) -> bool {
        let Some(staged) = session.take_unchanged() else {
            return false;
        };
        session.set_resumable();
        self.finish_taken(Arc::clone(session), staged, Ending::Closed);
        true
    }

    /// Whether a session that has changed nothing yet shows another version than the current one: its lineage has published beside it.
    fn is_behind(&self, writer: &Writer) -> bool {
        let session = writer.session();
        let Some(base) = session.unchanged_base() else {
            return false;
        };
        match (self.stat(&session.name()), rustix::fs::fstat(&base)) {
            (Ok(now), Ok(base)) => (now.st_dev, now.st_ino) != (base.st_dev, base.st_ino),
            _ => false,
        }
    }

    /// Ends the waits of threads that have a signal pending, and those of LOCK_NB whose time has come; returns when it has to be asked again.
    pub(super) fn watch_locks(self: &Arc<Self>) -> Option<Duration> {
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
        for (ticket, tid) in &tids {
            if proc::signal_waits(*tid) != Some(false) {
                over.push((*ticket, Errno::INTR));
            }
        }
        for (ticket, errno) in over {
            self.give_up(ticket, errno);
        }
        next.or((!tids.is_empty()).then_some(super::wait::SIGNALS_EVERY))
    }

    fn give_up(&self, ticket: Ticket, errno: Errno) {
        let waiting = self.locks.lock().cancel(ticket);
        if let Some(waiting) = waiting {
            (waiting.answer)(Err(errno));
        }
    }
}
