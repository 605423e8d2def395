//! Threads that are about to change a name, and were sent round so that they wait for it without the directory's lock.
//!
//! The kernel asks us to rename, unlink or link while it holds the lock of the directory. Answered ESTALE it lets go and walks the path again, once (`retry_estale`). On
//! that walk it checks the permissions of each directory, and asks for the attributes of one where it has none that are valid: that question is where the thread waits.
//! Its errno is the system call's. When it is answered the thread has its names, and comes for them; or it does not come, because it was killed, or finds something else.
//!
//! What is in this file decides, and asks nobody: [`Coordination`](super::Coordination) does what has to be done (`names.rs`, `wait.rs`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Target;
use crate::mount::nodes::{Name, NodeId};
use crate::mount::unkept::Hold;
use crate::os::syscall::Doing;
use crate::session::{FileKey, SessionId};

/// A thread that was sent on is looked after when it has not come for so long.
const LOOKED_AFTER: Duration = Duration::from_millis(40);
/// A thread that has its names and runs, or of which the kernel does not tell, loses them after this.
const RUNS_AT_MOST: Duration = Duration::from_secs(5);
/// One that has nothing any more is forgotten after this. Until then it is not sent round again: the kernel would not walk a second time.
const REMEMBERED: Duration = Duration::from_secs(30);

/// A coordinated name that an operation of zero length has to itself.
pub(super) type Held = (SessionId, FileKey);

/// What a thread is about to do.
#[derive(Debug, Clone)]
pub(super) struct Errand {
    /// The coordinated files that it needs, in the order of their paths: two that need the same do not wait for each other crosswise.
    pub targets: Vec<Target>,
    /// The directory that the kernel's walk comes to last.
    pub directory: NodeId,
    /// The ordinary names whose files get coordinated ones: see [`Unkept`](crate::mount::unkept::Unkept).
    pub leaving: Vec<Name>,
    /// It ends when there is nothing by this name.
    pub needs: Option<Name>,
    /// It ends when there is something by this name.
    pub needs_free: Option<Name>,
}

impl Errand {
    /// An errand that ends by itself only.
    pub fn new(mut targets: Vec<Target>, directory: NodeId) -> Errand {
        targets.sort_by(|a, b| a.path.cmp(&b.path));
        targets.dedup_by(|a, b| a.name == b.name);
        Errand {
            targets,
            directory,
            leaving: Vec::new(),
            needs: None,
            needs_free: None,
        }
    }
}

/// A thread that was sent round.
#[derive(Debug)]
pub(super) struct Round {
    /// What for.
    pub errand: Errand,
    /// What the kernel keeps nothing of until it is over.
    pub hold: Hold,
    state: State,
    since: Instant,
}

#[derive(Debug)]
enum State {
    /// It walks to the directory.
    Sent,
    /// It waits there.
    Waiting,
    /// It has its names, and comes for them.
    Admitted(Vec<Held>),
    /// It has lost them again. When it comes it waits where it is.
    Spent,
}

impl Round {
    /// What it comes with; nothing when the kernel did not ask for the directory.
    pub fn into_held(self) -> (Option<Vec<Held>>, Hold) {
        match self.state {
            State::Admitted(held) => (Some(held), self.hold),
            State::Sent | State::Waiting | State::Spent => (None, self.hold),
        }
    }
}

/// Who is to be looked after.
#[derive(Debug)]
pub(super) struct Overdue {
    /// The thread.
    pub tid: u32,
    /// The names that it has.
    pub held: Vec<Held>,
    since: Instant,
}

/// The threads, by their ids. The lock is held for no system call.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    table: Mutex<HashMap<u32, Round>>,
    count: AtomicUsize,
}

impl Rounds {
    fn change<T>(&self, change: impl FnOnce(&mut HashMap<u32, Round>) -> T) -> T {
        let mut table = self.table.lock();
        let result = change(&mut table);
        self.count.store(table.len(), Ordering::Release);
        result
    }

    fn insert(&self, tid: u32, errand: Errand, hold: Hold, state: State) {
        let since = Instant::now();
        let round = Round {
            errand,
            hold,
            state,
            since,
        };
        self.change(|table| table.insert(tid, round));
    }

    /// Whether nobody is on his way.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// A thread will be answered ESTALE, and waits on its way back.
    pub fn send(&self, tid: u32, errand: Errand, hold: Hold) {
        self.insert(tid, errand, hold, State::Sent);
    }

    /// The same, but it has its names already.
    pub fn send_with(&self, tid: u32, errand: Errand, held: Vec<Held>, hold: Hold) {
        self.insert(tid, errand, hold, State::Admitted(held));
    }

    /// The thread is here again: with this errand, or with another, or to do something else.
    pub fn take(&self, tid: u32) -> Option<Round> {
        if self.is_empty() {
            return None;
        }
        self.change(|table| match table.get(&tid)?.state {
            State::Waiting => None,
            State::Sent | State::Admitted(_) | State::Spent => table.remove(&tid),
        })
    }

    /// Whether the kernel asks for this directory on the walk of a thread that is to wait there.
    pub fn comes_to(&self, tid: u32, directory: NodeId) -> bool {
        !self.is_empty()
            && self
                .table
                .lock()
                .get(&tid)
                .is_some_and(|round| round.comes_to(directory))
    }

    /// It does. From now on it waits for these.
    pub fn begin_to_wait(&self, tid: u32, directory: NodeId) -> Option<Vec<Target>> {
        let mut table = self.table.lock();
        let round = table.get_mut(&tid).filter(|round| round.comes_to(directory))?;
        round.state = State::Waiting;
        round.hold.let_directory_go();
        Some(round.errand.targets.clone())
    }

    /// It has waited, and has its names. They are returned when it is not on its way any more.
    pub fn admit(&self, tid: u32, held: Vec<Held>) -> Vec<Held> {
        let mut table = self.table.lock();
        match table
            .get_mut(&tid)
            .filter(|round| matches!(round.state, State::Waiting))
        {
            Some(round) => {
                round.state = State::Admitted(held);
                round.since = Instant::now();
                Vec::new()
            }
            None => held,
        }
    }

    /// It has waited in vain, and its system call is over.
    pub fn refuse(&self, tid: u32) {
        let round = self.change(|table| table.remove(&tid));
        drop(round);
    }

    /// On its way a thread has found a file by this name, or none. If its errand ends with that, what it held is returned.
    pub fn finds(&self, tid: u32, name: &Name, is_there: bool) -> Option<Vec<Held>> {
        if self.is_empty() {
            return None;
        }
        let over = self.change(|table| {
            let round = table.get(&tid)?;
            let ends = if is_there {
                &round.errand.needs_free
            } else {
                &round.errand.needs
            };
            let over = ends.as_ref() == Some(name) && !matches!(round.state, State::Waiting);
            over.then(|| table.remove(&tid)).flatten()
        });
        over.and_then(|round| round.into_held().0)
    }

    /// Those who have not come since a while.
    pub fn overdue(&self, now: Instant) -> Vec<Overdue> {
        let table = self.table.lock();
        let late = table.iter().filter(|(_, round)| {
            now.saturating_duration_since(round.since) >= LOOKED_AFTER && !matches!(round.state, State::Waiting)
        });
        late.map(|(tid, round)| Overdue {
            tid: *tid,
            held: match &round.state {
                State::Admitted(held) => held.clone(),
                State::Sent | State::Waiting | State::Spent => Vec::new(),
            },
            since: round.since,
        })
        .collect()
    }

    /// What becomes of one who is overdue. `in_the_way`: somebody waits for its names who has a directory locked, which it may need. Returns the names that it loses.
    pub fn look_after(&self, overdue: &Overdue, now: Instant, doing: Doing, in_the_way: bool) -> Option<Vec<Held>> {
        self.change(|table| {
            let round = table
                .get_mut(&overdue.tid)
                .filter(|round| round.since == overdue.since && !matches!(round.state, State::Waiting))?;
            let for_long = now.saturating_duration_since(round.since);
            let gone = match doing {
                Doing::Other => true,
                Doing::Unknown => for_long >= REMEMBERED,
                Doing::ChangesNames => false,
            };
            if gone {
                return table.remove(&overdue.tid)?.into_held().0;
            }
            let loses = in_the_way || doing == Doing::Unknown && for_long >= RUNS_AT_MOST;
            if let (State::Admitted(held), true) = (&mut round.state, loses) {
                let held = std::mem::take(held);
                round.state = State::Spent;
                return Some(held);
            }
            None
        })
    }
}

impl Round {
    fn comes_to(&self, directory: NodeId) -> bool {
        matches!(self.state, State::Sent) && self.errand.directory == directory
    }

    /// Whether it was sent round for this.
    pub fn is_for(&self, errand: &Errand) -> bool {
        let names = |errand: &Errand| {
            errand
                .targets
                .iter()
                .map(|target| target.name.clone())
                .collect::<Vec<_>>()
        };
        names(&self.errand) == names(errand)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mount::nodes::ROOT;
    use crate::mount::unkept::Unkept;
    use crate::rules::Policy;

    const TID: u32 = 7;

    fn target(name: &str) -> Target {
        Target {
            name: Name::new(ROOT, name.as_ref()),
            path: name.into(),
            policy: Policy::default(),
        }
    }

    fn errand(names: &[&str]) -> Errand {
        Errand {
            needs: Some(Name::new(ROOT, "source".as_ref())),
            needs_free: Some(Name::new(ROOT, "target".as_ref())),
            ..Errand::new(names.iter().map(|name| target(name)).collect(), ROOT)
        }
    }

    fn hold() -> Hold {
        Arc::new(Unkept::default()).hold(Vec::new(), None)
    }

    fn held() -> Vec<Held> {
        vec![(SessionId(1), FileKey(2))]
    }

    /// In each state that a round can be in when something else happens.
    fn in_each_state() -> Vec<(&'static str, Rounds)> {
        let all = ["none", "sent", "waiting", "admitted", "spent"].map(|state| {
            let rounds = Rounds::default();
            if state != "none" {
                rounds.send(TID, errand(&["b", "a", "b"]), hold());
            }
            if ["waiting", "admitted", "spent"].contains(&state) {
                assert_eq!(rounds.begin_to_wait(TID, ROOT).map(|targets| targets.len()), Some(2));
            }
            if ["admitted", "spent"].contains(&state) {
                assert_eq!(rounds.admit(TID, held()), []);
            }
            if state == "spent" {
                let later = Instant::now() + LOOKED_AFTER;
                let overdue = rounds.overdue(later);
                assert_eq!(
                    rounds.look_after(&overdue[0], later, Doing::ChangesNames, true),
                    Some(held())
                );
            }
            (state, rounds)
        });
        all.into()
    }

    #[test]
    fn who_comes_back_has_what_it_was_given_and_is_known_unless_it_waits() {
        for (state, rounds) in in_each_state() {
            let round = rounds.take(TID);
            let is_known = ["sent", "admitted", "spent"].contains(&state);
            assert_eq!(round.is_some(), is_known, "{state}");
            let Some(round) = round else { continue };
            assert!(
                round.is_for(&errand(&["a", "b"])) && !round.is_for(&errand(&["a"])),
                "{state}"
            );
            assert_eq!(round.into_held().0, (state == "admitted").then(held), "{state}");
            assert!(rounds.is_empty() && rounds.take(TID).is_none(), "{state}");
        }
    }

    #[test]
    fn only_who_was_sent_waits_at_its_directory_and_only_who_waits_is_admitted() {
        for (state, rounds) in in_each_state() {
            let sent = state == "sent";
            assert!(
                !rounds.comes_to(TID, NodeId(9)) && !rounds.comes_to(TID + 1, ROOT),
                "{state}"
            );
            assert_eq!(rounds.comes_to(TID, ROOT), sent, "{state}");
            if state == "waiting" {
                assert_eq!(rounds.admit(TID, held()), [], "{state}");
            } else {
                assert_eq!(rounds.admit(TID, held()), held(), "{state}");
                assert_eq!(rounds.begin_to_wait(TID, ROOT).is_some(), sent, "{state}");
            }
        }
    }

    #[test]
    fn an_errand_ends_with_what_it_finds() {
        for (name, is_there, ends) in [
            ("source", false, true),
            ("target", true, true),
            ("source", true, false),
            ("target", false, false),
            ("other", false, false),
        ] {
            for (state, rounds) in in_each_state() {
                let lost = rounds.finds(TID, &Name::new(ROOT, name.as_ref()), is_there);
                assert_eq!(lost, (ends && state == "admitted").then(held), "{state}");
                let gone = state == "none" || ends && state != "waiting";
                assert_eq!(rounds.is_empty(), gone, "{state}: {name}");
            }
        }
    }

    #[test]
    fn who_does_not_come_loses_its_names_and_is_forgotten_when_it_is_known_to_do_something_else() {
        for doing in [Doing::ChangesNames, Doing::Other, Doing::Unknown] {
            for in_the_way in [false, true] {
                for after in [LOOKED_AFTER, RUNS_AT_MOST, REMEMBERED] {
                    for (state, rounds) in in_each_state() {
                        let later = Instant::now() + after;
                        let overdue = rounds.overdue(later);
                        let is_overdue = state != "none" && state != "waiting";
                        assert_eq!(overdue.len(), usize::from(is_overdue), "{state}");
                        let Some(overdue) = overdue.first() else { continue };
                        let lost = rounds.look_after(overdue, later, doing, in_the_way);
                        let gone = doing == Doing::Other || doing == Doing::Unknown && after == REMEMBERED;
                        let loses = gone || in_the_way || doing == Doing::Unknown && after >= RUNS_AT_MOST;
                        let case = format!("{state} {doing:?} {in_the_way} {after:?}");
                        assert_eq!(lost, (loses && state == "admitted").then(held), "{case}");
                        assert_eq!(rounds.is_empty(), gone, "{case}");
                        // Whoever is still known is not sent round again.
                        assert_eq!(rounds.take(TID).is_some(), !gone, "{case}");
                    }
                }
            }
        }
    }

    #[test]
    fn who_has_come_meanwhile_and_was_sent_again_is_not_meant() {
        let rounds = Rounds::default();
        rounds.send(TID, errand(&["a"]), hold());
        let later = Instant::now() + LOOKED_AFTER;
        let overdue = rounds.overdue(later);
        rounds.take(TID);
        std::thread::sleep(Duration::from_millis(1));
        rounds.send_with(TID, errand(&["a"]), held(), hold());
        assert_eq!(rounds.look_after(&overdue[0], later, Doing::Other, true), None);
        assert!(!rounds.is_empty());
    }
}
