//! One file: the sessions open on it, and the requests that wait for it in line.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::types::{Intent, Millis, ProcId, SessionId, Ticket};

/// When a request joined a line: a number that only grows, over all files, so that it orders all waiters.
pub(super) type Arrival = u64;

/// How a session came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionKind {
    /// The file was free.
    Start,
    /// The holder's own lineage already had a session on the file.
    Private,
}

/// An open session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its number.
    pub id: SessionId,
    /// How it came to be.
    pub kind: SessionKind,
    /// The process whose open it was.
    pub proc: ProcId,
    /// When it was admitted.
    pub since: Millis,
    pub(super) intent: Intent,
    pub(super) lease_end: Millis,
    /// Others that hold it by now: see [`Queue::inherit`](super::Queue::inherit).
    pub(super) heirs: Vec<ProcId>,
}

impl Session {
    /// Whether it is no open, but a rename(2), unlink(2) or the like: it has no shadow, and is over with the call.
    pub fn is_instant(&self) -> bool {
        self.intent == Intent::Instant
    }

    /// All processes that hold it, as far as they are known.
    pub(super) fn holders(&self) -> impl Iterator<Item = ProcId> {
        let known = std::iter::once(&self.proc).filter(|proc| proc.is_known());
        known.chain(&self.heirs).copied()
    }
}

/// A waiting request, as seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaiterInfo {
    /// Its number.
    pub ticket: Ticket,
    /// The process that waits.
    pub proc: ProcId,
    /// Since when.
    pub since: Millis,
}

/// What somebody asked for: kept while it waits.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub ticket: Ticket,
    pub proc: ProcId,
    /// The process and its ancestors, nearest first, known ones only.
    pub lineage: Vec<ProcId>,
    /// Those of them that stand still while it waits.
    pub halted: Vec<ProcId>,
    pub intent: Intent,
    /// How long its session may stay while others wait.
    pub lease_max: Millis,
}

#[derive(Debug, Clone)]
pub(super) struct Waiter {
    pub request: Request,
    pub since: Millis,
    pub until: Millis,
    /// It waits behind those that arrived before this. Normally its own arrival; earlier when a request of its own
    /// lineage waits further ahead, because it will be admitted together with that one.
    pub place: Arrival,
}

/// The sessions that one process has on the file.
#[derive(Debug, Clone, Default)]
struct Held {
    all: usize,
    /// Those with a shadow that another handle can share: all but the instant ones.
    joinable: BTreeSet<SessionId>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    sessions: BTreeMap<SessionId, Session>,
    held: HashMap<ProcId, Held>,
    /// Leases not yet reported as expired.
    leases: BTreeSet<(Millis, SessionId)>,
    waiters: BTreeMap<Arrival, Waiter>,
    /// The waiting requests of each process itself.
    of_proc: HashMap<ProcId, BTreeSet<Arrival>>,
    /// The waiting requests that have each process in their lineage.
    of_kin: HashMap<ProcId, BTreeSet<Arrival>>,
    /// (place, arrival) of all waiters: who waits behind a given one is a range of this.
    by_place: BTreeSet<(Arrival, Arrival)>,
    /// The instant under which the queue has this file in its list of leases.
    pub timer: Option<Millis>,
}

impl Line {
    pub fn is_free(&self) -> bool {
        self.sessions.is_empty()
    }

    pub fn is_idle(&self) -> bool {
        self.sessions.is_empty() && self.waiters.is_empty()
    }

    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values()
    }

    pub fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        self.waiters.values()
    }

    pub fn waiter(&self, arrival: Arrival) -> Option<&Waiter> {
        self.waiters.get(&arrival)
    }

    /// Whether the process holds a session here or waits for one itself.
    pub fn involves(&self, proc: ProcId) -> bool {
        self.held.contains_key(&proc) || self.of_proc.contains_key(&proc)
    }

    pub fn add_session(&mut self, session: Session) {
        for holder in session.holders() {
            hold(&mut self.held, holder, &session);
        }
        self.leases.insert((session.lease_end, session.id));
        self.sessions.insert(session.id, session);
    }

    pub fn remove_session(&mut self, id: SessionId) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        self.leases.remove(&(session.lease_end, id));
        for holder in session.holders() {
            if let Some(held) = self.held.get_mut(&holder) {
                held.all -= 1;
                held.joinable.remove(&id);
                if held.all == 0 {
                    self.held.remove(&holder);
                }
            }
        }
        Some(session)
    }

    /// A session goes on in another line; returns who holds it.
    pub fn give(&mut self, id: SessionId, to: &mut Line) -> Vec<ProcId> {
        let Some(session) = self.sessions.get(&id) else {
            return Vec::new();
        };
        let lease = (session.lease_end, id);
        let is_reported = !self.leases.contains(&lease);
        let session = self.remove_session(id);
        let holders = session.iter().flat_map(Session::holders).collect();
        session.into_iter().for_each(|session| to.add_session(session));
        if is_reported {
            to.leases.remove(&lease);
        }
        holders
    }

    /// One more process holds a session; `false` when it did before.
    pub fn add_heir(&mut self, id: SessionId, heir: ProcId) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else {
            return false;
        };
        let is_new = heir.is_known() && session.holders().all(|holder| holder != heir);
        if is_new {
            session.heirs.push(heir);
            hold(&mut self.held, heir, session);
        }
        is_new
    }

    /// The numbers of all waiters.
    pub fn arrivals(&self) -> impl Iterator<Item = Arrival> {
        self.waiters.keys().copied()
    }

    /// Whether one of these processes holds a session here.
    pub fn is_held_by(&self, lineage: &[ProcId]) -> bool {
        lineage.iter().any(|p| self.held.contains_key(p))
    }

    /// The session that an open joins: the newest one of the nearest holder that has one with a shadow.
    pub fn joinable(&self, lineage: &[ProcId]) -> Option<SessionId> {
        lineage.iter().find_map(|p| self.held.get(p)?.joinable.last().copied())
    }

    /// The instant at which the next lease runs out; none while nobody waits, for then leases do not matter.
    pub fn next_lease(&self) -> Option<Millis> {
        if self.waiters.is_empty() {
            None
        } else {
            self.leases.first().map(|&(end, _)| end)
        }
    }

    /// Takes the first lease to run out off the list, so that it is reported once.
    pub fn expire_first_lease(&mut self) -> Option<SessionId> {
        self.leases.pop_first().map(|(_, session)| session)
    }

    /// Where a request of this lineage stands that arrives (or arrived) at `arrival`.
    pub fn place_of(&self, lineage: &[ProcId], arrival: Arrival) -> Arrival {
        let ahead = lineage.iter().filter_map(|p| self.of_proc.get(p)?.first().copied());
        ahead.min().map_or(arrival, |first| first.min(arrival))
    }

    /// Whether the same process waits here already with the same lineage, and halts the same: then one more adds no edge.
    pub fn has_same_wait(&self, request: &Request) -> bool {
        let first = self.of_proc.get(&request.proc).and_then(|arrivals| arrivals.first());
        first
            .and_then(|a| self.waiters.get(a))
            .is_some_and(|w| w.request.lineage == request.lineage && w.request.halted == request.halted)
    }

    pub fn enqueue(&mut self, arrival: Arrival, waiter: Waiter) {
        if waiter.request.proc.is_known() {
            self.of_proc.entry(waiter.request.proc).or_default().insert(arrival);
        }
        for &p in &waiter.request.lineage {
            self.of_kin.entry(p).or_default().insert(arrival);
        }
        self.by_place.insert((waiter.place, arrival));
        self.waiters.insert(arrival, waiter);
    }

    pub fn set_place(&mut self, arrival: Arrival, place: Arrival) {
        if let Some(waiter) = self.waiters.get_mut(&arrival) {
            self.by_place.remove(&(waiter.place, arrival));
            waiter.place = place;
            self.by_place.insert((place, arrival));
        }
    }

    /// The first in line and, with it, all that have the first one's process in their lineage.
    pub fn first_and_kin(&self) -> BTreeSet<Arrival> {
        let Some((&first, waiter)) = self.waiters.first_key_value() else {
            return BTreeSet::new();
        };
        let mut party = self.kin(waiter.request.proc);
        party.insert(first);
        party
    }

    /// All waiters with this process in their lineage.
    pub fn kin(&self, proc: ProcId) -> BTreeSet<Arrival> {
        self.of_kin.get(&proc).cloned().unwrap_or_default()
    }

    /// Takes waiters out of the line. Also tells which of those that stay may now stand further back than before,
    /// because a request of their lineage that stood further ahead is gone.
    pub fn depart(&mut self, leaving: &BTreeSet<Arrival>) -> (Vec<(Arrival, Waiter)>, BTreeSet<Arrival>) {
        let gone: Vec<_> = leaving
            .iter()
            .filter_map(|&a| Some((a, self.waiters.remove(&a)?)))
            .collect();
        for (arrival, waiter) in &gone {
            self.by_place.remove(&(waiter.place, *arrival));
            forget(&mut self.of_proc, waiter.request.proc, *arrival);
            for &p in &waiter.request.lineage {
                forget(&mut self.of_kin, p, *arrival);
            }
        }
        let pushed_back = gone
            .iter()
            .flat_map(|(arrival, waiter)| self.led_by(*arrival, waiter.request.proc))
            .collect();
        (gone, pushed_back)
    }

    /// The waiters that stood where the departed `arrival` of `proc` stood.
    ///
    /// When the next in line is of the same process they stand there now and nobody has come between: their place
    /// may keep its old number, since no one else's arrival lies between the two. So a thousand threads of one
    /// process leave one by one at a constant cost each. It is why this looks at a range, not at one number.
    fn led_by(&self, arrival: Arrival, proc: ProcId) -> Vec<Arrival> {
        if self
            .waiters
            .range(arrival..)
            .next()
            .is_some_and(|(_, w)| w.request.proc == proc && proc.is_known())
        {
            return Vec::new();
        }
        let after = self.waiters.range(..arrival).next_back().map_or(0, |(&a, _)| a + 1);
        self.by_place
            .range((after, 0)..(arrival + 1, 0))
            .map(|&(_, a)| a)
            .collect()
    }

    /// A waiter waits for `proc` exactly when its place is at least this; `None` when nobody does.
    pub fn waited_for_from(&self, proc: ProcId) -> Option<Arrival> {
        if self.held.contains_key(&proc) {
            return Some(0);
        }
        Some(self.of_proc.get(&proc)?.first()? + 1)
    }

    /// The waiters whose place is `from` or later, but before `before`.
    pub fn placed(&self, from: Arrival, before: Arrival) -> impl Iterator<Item = &Waiter> {
        let range = (from, 0)..(before.max(from), 0);
        self.by_place
            .range(range)
            .filter_map(|(_, arrival)| self.waiters.get(arrival))
    }
}

fn hold(index: &mut HashMap<ProcId, Held>, holder: ProcId, session: &Session) {
    let held = index.entry(holder).or_default();
    held.all += 1;
    if session.intent != Intent::Instant {
        held.joinable.insert(session.id);
    }
}

fn forget(index: &mut HashMap<ProcId, BTreeSet<Arrival>>, proc: ProcId, arrival: Arrival) {
    if let Some(arrivals) = index.get_mut(&proc) {
        arrivals.remove(&arrival);
        if arrivals.is_empty() {
            index.remove(&proc);
        }
    }
}
