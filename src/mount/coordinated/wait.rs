//! Waiting in the queue without a thread, and the one thread that watches over all waits.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::io::Errno;

use super::caller;
use super::files::{Continue, Files, Granted, Need, Waiting, errno};
use super::session::Session;
use super::{Coordination, Counted, Target, kinds};
use crate::mount::tree::Caller;
use crate::os::proc;
use crate::session::{Admission, FileKey, Intent, Millis, Opener, Patience, ProcId, Refusal, SessionId, Ticket, Wake};

/// How often the waiting threads are asked whether a signal is pending. fuser refuses FUSE_INTERRUPT, so nobody tells us (kernel-facts, 10).
pub(super) const SIGNALS_EVERY: Duration = Duration::from_millis(40);
/// How long the thread sleeps when nobody waits.
const IDLE: Duration = Duration::from_secs(5);

/// Wakes the watching thread.
#[derive(Debug, Default)]
pub struct Wakeup {
    called: Mutex<bool>,
    changed: Condvar,
}

impl Wakeup {
    pub(super) fn call(&self) {
        *self.called.lock() = true;
        self.changed.notify_one();
    }

    fn sleep(&self, at_most: Duration) {
        let mut called = self.called.lock();
        if !*called {
            self.changed.wait_for(&mut called, at_most);
        }
        *called = false;
    }
}

/// A request for a file.
pub struct Claim {
    /// Which file.
    pub file: FileKey,
    /// Who asks.
    pub caller: Caller,
    /// Its process and, where somebody else holds the file, its ancestors.
    pub opener: Opener,
    /// What for.
    pub intent: Intent,
    /// O_NONBLOCK.
    pub nonblock: bool,
}

impl Coordination {
    /// The caller's request for a session of its own.
    pub(super) fn claim(&self, caller: Caller, file: FileKey, intent: Intent, nonblock: bool) -> Claim {
        Claim {
            file,
            caller,
            opener: self.opener_for(caller, file),
            intent,
            nonblock,
        }
    }

    /// Asks the queue for a file; `resume` runs when the answer is known, on this thread or on that which makes room.
    pub(super) fn acquire(self: &Arc<Self>, target: &Target, claim: Claim, resume: Continue) {
        self.acquire_for(Need::Access, target, claim, resume);
    }

    /// [`Coordination::acquire`], where a refusal may not be a failure.
    pub(super) fn acquire_for(self: &Arc<Self>, need: Need, target: &Target, mut claim: Claim, resume: Continue) {
        if self.is_closing() {
            return resume(Err(Errno::BUSY));
        }
        let (mut files, ticket, admission) = self.ask(target, &mut claim);
        match admission {
            Admission::Wait => {
                files.waiting.insert(
                    ticket,
                    Waiting {
                        tid: claim.caller.tid,
                        file: claim.file,
                        need,
                        resume,
                    },
                );
                drop(files);
                self.counts.add(Counted::Waited);
                self.wakeup.call();
            }
            Admission::Refuse(refusal) => {
                files.settle(claim.file);
                drop(files);
                self.count_refusal(refusal, need);
                resume(Err(errno(refusal)));
            }
            admitted => {
                drop(files);
                resume(granted(admitted));
            }
        }
    }

    /// The same for a claim that does not wait. `None`: it would have to.
    pub(super) fn take_at_once(&self, target: &Target, mut claim: Claim) -> Result<Option<Granted>, Errno> {
        if self.is_closing() {
            return Err(Errno::BUSY);
        }
        let (mut files, _, admission) = self.ask(target, &mut claim);
        match admission {
            Admission::Refuse(Refusal::WouldBlock) => {
                files.settle(claim.file);
                Ok(None)
            }
            admission => granted(admission).map(Some),
        }
    }

    fn ask(&self, target: &Target, claim: &mut Claim) -> (MutexGuard<'_, Files>, Ticket, Admission) {
        let now = self.now();
        let patience = if claim.nonblock {
            Patience::NonBlock
        } else {
            Patience::Until(now.saturating_add(millis(target.policy.wait)))
        };
        let mut files = self.files.lock();
        if !files.queue.is_idle(claim.file) && (claim.opener.ancestors.is_empty() || !claim.nonblock) {
            drop(files);
            if claim.opener.ancestors.is_empty() {
                // Somebody took the file since the opener was looked at.
                claim.opener = caller::opener(claim.caller);
            }
            if !claim.nonblock {
                claim.opener.halted = caller::halted(&claim.opener);
            }
            files = self.files.lock();
        }
        let ticket = files.ticket();
        let lease = millis(target.policy.lease_max);
        let admission = files
            .queue
            .open(now, claim.file, &claim.opener, claim.intent, patience, lease, ticket);
        (files, ticket, admission)
    }

    /// A session is over: whoever waited for it goes on.
    pub(super) fn release(self: &Arc<Self>, session: SessionId, file: FileKey) {
        let wakes = self.let_go([(session, file)]);
        self.carry_out(wakes);
    }

    /// [`Coordination::release`] in two steps, for who has somebody to answer in between: what the wakes start may take its time.
    pub(super) fn let_go(&self, held: impl IntoIterator<Item = (SessionId, FileKey)>) -> Vec<Wake> {
        let mut files = self.files.lock();
        let mut wakes = Vec::new();
        for (session, file) in held {
            files.ended += 1;
            wakes.append(&mut files.queue.close(self.now(), session));
            files.settle(file);
        }
        wakes
    }

    pub(super) fn carry_out(self: &Arc<Self>, wakes: Vec<Wake>) {
        for wake in wakes {
            match wake {
                Wake::Granted { ticket, admission } => self.resume(ticket, Ok(admission)),
                Wake::Refused { ticket, why } => self.resume(ticket, Err(why)),
                Wake::LeaseExpired { session } => self.expire(session),
            }
        }
    }

    fn resume(&self, ticket: Ticket, result: Result<Admission, Refusal>) {
        let waiting = self.files.lock().end_wait(ticket);
        if let Some(waiting) = waiting {
            self.answer(waiting, result);
        }
    }

    fn answer(&self, waiting: Waiting, result: Result<Admission, Refusal>) {
        if let Err(refusal) = result {
            self.count_refusal(refusal, waiting.need);
        }
        let granted = result.map_err(errno).and_then(granted);
        (waiting.resume)(granted.map(|granted| Granted {
            waited: true,
            ..granted
        }));
    }

    fn count_refusal(&self, refusal: Refusal, need: Need) {
        if need == Need::Lock && matches!(refusal, Refusal::WouldBlock | Refusal::Busy) {
            return;
        }
        self.counts.add(match refusal {
            Refusal::WouldBlock => Counted::WouldBlock,
            Refusal::Deadlock => Counted::Deadlock,
            Refusal::Busy => Counted::Busy,
            Refusal::Interrupted => Counted::Interrupted,
        });
    }

    /// Ends the waits of threads that have a signal pending which ends them, or are gone.
    fn end_interrupted(self: &Arc<Self>) {
        let waits: Vec<(Ticket, u32, Need)> = self
            .files
            .lock()
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.tid != 0)
            .map(|(t, w)| (*t, w.tid, w.need))
            .collect();
        for (ticket, tid, need) in waits {
            if proc::ends_wait(tid, need.ends_by()) {
                let interrupted = self.files.lock().interrupt(self.now(), ticket);
                if let Some((waiting, wakes)) = interrupted {
                    self.answer(waiting, Err(Refusal::Interrupted));
                    self.carry_out(wakes);
                }
            }
        }
    }

    /// One round of the watching thread, which asked for signals at `asked`; returns how long it may sleep.
    fn watch(self: &Arc<Self>, asked: &mut Instant) -> Duration {
        let expired;
        let wakes = {
            let mut files = self.files.lock();
            expired = files.expire_reroutes(Instant::now());
            files.queue.tick(self.now())
        };
        expired.into_iter().for_each(|node| self.tree.nodes.forget(node, 1));
        self.carry_out(wakes);
        // Each new wait wakes this thread: to ask every one of them as often would cost more than all the rest.
        let asks = asked.elapsed() >= SIGNALS_EVERY;
        if asks {
            *asked = Instant::now();
            self.end_interrupted();
        }
        let locks = self.watch_locks(asks).unwrap_or(IDLE);
        let looks_after = self.look_after_rounds();
        self.let_kinds_go();
        let kinds = if self.kinds.any() { kinds::LOOK_EVERY } else { IDLE };
        let files = self.files.lock();
        let deadline = files
            .queue
            .next_deadline()
            .map(|at| Duration::from_millis(at.0.saturating_sub(self.now().0)));
        let signals = if files.waiting.is_empty() && !looks_after {
            IDLE
        } else {
            SIGNALS_EVERY.saturating_sub(asked.elapsed())
        };
        let soonest = deadline.unwrap_or(IDLE).min(signals).min(locks).min(kinds);
        soonest.max(Duration::from_millis(1))
    }

    /// Who asks: with its ancestors only where somebody has the file, because reading them costs.
    pub(super) fn opener_for(&self, caller: Caller, file: FileKey) -> Opener {
        if self.files.lock().queue.is_idle(file) {
            Opener {
                proc: caller::process(caller),
                ancestors: Vec::new(),
                halted: Vec::new(),
            }
        } else {
            caller::opener(caller)
        }
    }

    /// The newest session that can be written to of the opener or, if it has none, of its nearest ancestor that has one.
    pub(super) fn nearest_of(&self, file: FileKey, opener: &Opener) -> Option<Arc<Session>> {
        self.nearest_that(file, opener, Session::is_open)
    }

    /// The same, also of sessions that are just ending: their lineage sees what they staged until everybody does.
    pub(super) fn nearest_shown(&self, file: FileKey, opener: &Opener) -> Option<Arc<Session>> {
        self.nearest_that(file, opener, |session| session.shown().is_some())
    }

    fn nearest_that(&self, file: FileKey, opener: &Opener, is: impl Fn(&Session) -> bool) -> Option<Arc<Session>> {
        let sessions: Vec<_> = self.files.lock().sessions(file).to_vec();
        let newest_of = |process: &ProcId| {
            let mut newest_first = sessions.iter().rev();
            newest_first
                .find(|session| session.is_held_by(process) && is(session))
                .cloned()
        };
        opener.lineage().iter().find_map(newest_of)
    }
}

/// Starts the thread that watches over the waits of a coordination, for as long as that lives.
pub fn start(coordination: &Arc<Coordination>) -> std::io::Result<()> {
    let watched: Weak<Coordination> = Arc::downgrade(coordination);
    std::thread::Builder::new()
        .name("concord-waits".to_owned())
        .spawn(move || {
            let mut asked = Instant::now();
            while let Some(coordination) = watched.upgrade() {
                let (sleep, wakeup) = (coordination.watch(&mut asked), Arc::clone(&coordination.wakeup));
                // Whoever ends it meanwhile has the store's lock back.
                drop(coordination);
                wakeup.sleep(sleep);
            }
        })?;
    Ok(())
}

fn granted(admission: Admission) -> Result<Granted, Errno> {
    let granted = |id, joins| Granted {
        id,
        joins,
        waited: false,
    };
    match admission {
        Admission::Start(session) | Admission::Private(session) => Ok(granted(session, false)),
        Admission::Join(session) => Ok(granted(session, true)),
        Admission::Refuse(refusal) => Err(errno(refusal)),
        // The queue says `Wait` to a caller only, never in a wake.
        Admission::Wait => Err(Errno::IO),
    }
}

fn millis(duration: Duration) -> Millis {
    Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
