//! How an operation of zero length gets the names that it needs: at once, on a walk that the kernel makes without locks (`rounds.rs`), or where it is.

use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;

use super::files::{Granted, InHand, Need};
use super::rounds::{Errand, Held, Overdue, Round};
use super::wait::Claim;
use super::{Answer, Coordination, Target, caller};
use crate::mount::nodes::{Name, NodeId};
use crate::mount::tree::Caller;
use crate::os::syscall;
use crate::session::{FileKey, Intent, Opener};

/// What comes after the names were had, or one of them was refused. It lets go of those that were had.
type Then = Box<dyn FnOnce(&Arc<Coordination>, Vec<Held>, Result<(), Errno>) + Send>;

impl Coordination {
    /// Takes all that `errand` needs, one after the other, then runs `work` on a worker thread, lets go and answers: whoever has the answer finds the names free.
    ///
    /// Who must wait, or leaves an entry behind in the kernel, is answered ESTALE first and comes back. Only who would not be known again, or was not asked for its
    /// directory on the way, waits while the kernel holds the directory's lock.
    pub(super) fn with_all<T: 'static>(
        self: &Arc<Self>,
        caller: Caller,
        opener: Opener,
        errand: Errand,
        work: impl FnOnce(&Arc<Coordination>) -> Result<T, Errno> + Send + 'static,
        answer: Answer<T>,
    ) {
        let round = self.rounds.take(caller.tid);
        let is_back = round.as_ref().is_some_and(|round| round.is_for(&errand));
        let (held, hold) = round.map(Round::into_held).unzip();
        let held = held.flatten();
        if !is_back {
            self.give_back(held.clone());
        }
        let then: Then = Box::new(move |this, held, taken| {
            let has_all = taken.is_ok();
            let result = taken.and_then(|()| work(this));
            let wakes = this.let_go(held);
            drop(hold);
            answer(result);
            this.carry_out(wakes);
            if has_all {
                this.store.tidy();
            }
        });
        match held.filter(|_| is_back) {
            Some(held) => self.run_then(held, then),
            None if is_back || caller.tid == 0 => {
                self.take_next(caller, opener, Need::Directory, rest_of(&errand), Vec::new(), then)
            }
            None => self.take_all_at_once(caller, &opener, errand, then),
        }
    }

    /// Takes all names, if nobody else has one of them. Otherwise the thread is sent round.
    fn take_all_at_once(self: &Arc<Self>, caller: Caller, opener: &Opener, errand: Errand, then: Then) {
        let mut held = Vec::new();
        for target in &errand.targets {
            let in_hand = InHand::take(&self.files, &self.key_name(&target.name));
            let file = in_hand.key();
            let claim = Claim {
                file,
                caller,
                opener: opener.clone(),
                intent: Intent::Instant,
                nonblock: true,
            };
            match self.take_at_once(target, claim) {
                Ok(Some(Granted { id, .. })) => held.push((id, file)),
                Ok(None) => {
                    self.give_back(Some(held));
                    self.send_to_wait(caller, errand);
                    return then(self, Vec::new(), Err(Errno::STALE));
                }
                Err(errno) => return then(self, held, Err(errno)),
            }
        }
        if errand.leaving.is_empty() {
            return self.run_then(held, then);
        }
        let hold = self.tree.unkept.hold(errand.leaving.clone(), None);
        self.rounds.send_with(caller.tid, errand, held, hold);
        self.wakeup.call();
        then(self, Vec::new(), Err(Errno::STALE));
    }

    /// The thread will be answered ESTALE, and the kernel asks for the attributes of its directory.
    fn send_to_wait(&self, caller: Caller, errand: Errand) {
        let directory = errand.directory;
        // In this order: what the kernel is told of the directory from now on, it may not keep; and what it has, it forgets.
        let identity = self.tree.nodes.identity(directory);
        let hold = self.tree.unkept.hold(errand.leaving.clone(), identity);
        self.rounds.send(caller.tid, errand, hold);
        self.tree.attributes_changed(directory);
        self.wakeup.call();
    }

    fn run_then(self: &Arc<Self>, held: Vec<Held>, then: Then) {
        let this = Arc::clone(self);
        self.tree.workers.run(move || then(&this, held, Ok(())));
    }

    /// Takes the last of `targets`, then the others, waiting for each.
    fn take_next(
        self: &Arc<Self>,
        caller: Caller,
        opener: Opener,
        need: Need,
        mut targets: Vec<Target>,
        mut held: Vec<Held>,
        then: Then,
    ) {
        let Some(target) = targets.pop() else {
            return self.run_then(held, then);
        };
        let in_hand = InHand::take(&self.files, &self.key_name(&target.name));
        let file = in_hand.key();
        let claim = Claim {
            file,
            caller,
            opener: opener.clone(),
            intent: Intent::Instant,
            nonblock: false,
        };
        let (this, awaited) = (Arc::clone(self), target.clone());
        let resume = move |granted: Result<Granted, Errno>| match granted {
            // While it waited, another name has come to stand for all of the file's.
            Ok(Granted { id, waited: true, .. }) if this.has_moved(&target.name, file) => {
                this.release(id, file);
                targets.push(target);
                this.take_next(caller, opener, need, targets, held, then);
            }
            Ok(Granted { id, .. }) => {
                held.push((id, file));
                this.take_next(caller, opener, need, targets, held, then);
            }
            Err(errno) => then(&this, held, Err(errno)),
        };
        self.acquire_for(need, &awaited, claim, Box::new(resume));
    }

    fn has_moved(&self, name: &Name, file: FileKey) -> bool {
        let now = self.key_name(name);
        self.files.lock().key_of(&now) != Some(file)
    }

    /// Whether a thread that was sent round has come to the directory where it is to wait.
    pub fn comes_to_wait(&self, caller: Caller, directory: NodeId) -> bool {
        self.rounds.comes_to(caller.tid, directory)
    }

    /// It waits there for its names. An errno becomes that of the system call.
    pub fn wait_there(self: &Arc<Self>, caller: Caller, directory: NodeId, answer: Answer<()>) {
        let Some(mut targets) = self.rounds.begin_to_wait(caller.tid, directory) else {
            return answer(Ok(()));
        };
        targets.reverse();
        let then = move |this: &Arc<Coordination>, held: Vec<Held>, taken: Result<(), Errno>| {
            let left = match taken {
                Ok(()) => this.rounds.admit(caller.tid, held),
                Err(_) => {
                    this.rounds.refuse(caller.tid);
                    held
                }
            };
            let wakes = this.let_go(left);
            answer(taken);
            this.carry_out(wakes);
            this.wakeup.call();
        };
        let opener = caller::opener(caller);
        self.take_next(caller, opener, Need::Change, targets, Vec::new(), Box::new(then));
    }

    /// On its walk a thread was told what is by a coordinated name. It may not need its names any more.
    pub(super) fn was_told(self: &Arc<Self>, caller: Caller, target: &Target, is_there: bool) {
        self.give_back(self.rounds.finds(caller.tid, &target.name, is_there));
    }

    /// Gives back names that were not needed.
    fn give_back(self: &Arc<Self>, held: Option<Vec<Held>>) {
        if let Some(held) = held.filter(|held| !held.is_empty()) {
            let wakes = self.let_go(held);
            let this = Arc::clone(self);
            // What the wakes start may take its time.
            self.tree.workers.run(move || this.carry_out(wakes));
        }
    }

    /// Looks after threads that were sent round, and have not come. `true` while there are any.
    pub(super) fn look_after_rounds(self: &Arc<Self>) -> bool {
        let now = Instant::now();
        let overdue = self.rounds.overdue(now);
        if !overdue.is_empty() {
            let this = Arc::clone(self);
            // Asking what a thread does may wait for it.
            self.tree
                .workers
                .run(move || overdue.iter().for_each(|one| this.look_after(one, now)));
        }
        !self.rounds.is_empty()
    }

    fn look_after(self: &Arc<Self>, overdue: &Overdue, now: Instant) {
        let doing = syscall::doing(overdue.tid);
        let in_the_way = {
            let files = self.files.lock();
            let mut waiting = files.waiting.values();
            waiting.any(|other| other.need == Need::Directory && overdue.held.iter().any(|held| held.1 == other.file))
        };
        self.give_back(self.rounds.look_after(overdue, now, doing, in_the_way));
    }
}

/// The first last.
fn rest_of(errand: &Errand) -> Vec<Target> {
    errand.targets.iter().rev().cloned().collect()
}
