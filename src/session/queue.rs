//! The queue of writers: who is admitted, who waits, who is woken.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::line::{Arrival, Line, Request, Session, SessionKind, Waiter, WaiterInfo};
use super::types::{Admission, FileKey, Intent, Millis, Opener, Patience, ProcId, Refusal, SessionId, Ticket, Wake};

/// All sessions and all waits over all coordinated files. A file that nobody writes takes no memory.
///
/// Invariants between calls: a file with waiters has a session; sessions of one file are of one lineage; nobody
/// waits for a session of its own lineage; the waits-for graph has no cycle, but for what `deadlock.rs` leaves out.
#[derive(Debug, Clone)]
pub struct Queue {
    next_session: u64,
    next_arrival: Arrival,
    pub(super) lines: BTreeMap<FileKey, Line>,
    /// The files on which each process holds a session or waits for one.
    pub(super) whereabouts: HashMap<ProcId, BTreeSet<FileKey>>,
    sessions: HashMap<SessionId, FileKey>,
    tickets: HashMap<Ticket, (FileKey, Arrival)>,
    /// When each wait runs out.
    waits: BTreeSet<(Millis, Arrival, FileKey)>,
    /// When the first lease of each file with waiters runs out.
    leases: BTreeSet<(Millis, FileKey)>,
}

impl Queue {
    /// An empty queue. Its sessions are numbered from `first_session` on, so that numbers go on after a restart.
    pub fn new(first_session: SessionId) -> Queue {
        Queue {
            next_session: first_session.0,
            next_arrival: 1,
            lines: BTreeMap::new(),
            whereabouts: HashMap::new(),
            sessions: HashMap::new(),
            tickets: HashMap::new(),
            waits: BTreeSet::new(),
            leases: BTreeSet::new(),
        }
    }

    /// A number for a session that the queue is not to know: it holds nobody up.
    pub fn number(&mut self) -> SessionId {
        let id = SessionId(self.next_session);
        self.next_session += 1;
        id
    }

    /// Somebody opens a file for writing, or replaces it (`Intent::Instant`).
    ///
    /// Free file: `Start`. Held by the opener's own lineage: never waits (W3); `Modify` joins the newest session of
    /// the nearest holder, everything else gets a session of its own. An instant session has no shadow to join: a
    /// `Modify` that finds only those in its lineage gets a session of its own, too. Otherwise it waits behind those
    /// that came before (W1), or is refused: `WouldBlock` without patience, `Deadlock` when waiting would close a
    /// cycle of waits (W4). A refused request leaves no trace.
    ///
    /// `lease_max` is a duration: how long the session may stay, from its admission, while others wait for it.
    #[allow(clippy::too_many_arguments)]
    pub fn open(
        &mut self,
        now: Millis,
        file: FileKey,
        opener: &Opener,
        intent: Intent,
        patience: Patience,
        lease_max: Millis,
        ticket: Ticket,
    ) -> Admission {
        let request = Request {
            ticket,
            proc: opener.proc,
            lineage: opener.lineage(),
            halted: opener.halted.clone(),
            intent,
            lease_max,
        };
        if let Some(admission) = self.admit(now, file, &request) {
            self.settle(file);
            return admission;
        }
        let Patience::Until(until) = patience else {
            return Admission::Refuse(Refusal::WouldBlock);
        };
        let arrival = self.next_arrival;
        let line = self.lines.entry(file).or_default();
        let place = line.place_of(&request.lineage, arrival);
        if !line.has_same_wait(&request) && self.closes_cycle(file, &request.halted, place) {
            return Admission::Refuse(Refusal::Deadlock);
        }
        self.next_arrival += 1;
        self.enqueue(
            file,
            arrival,
            Waiter {
                request,
                since: now,
                until,
                place,
            },
        );
        self.settle(file);
        Admission::Wait
    }

    /// The session is over: published, discarded or failed. When others joined it, the caller calls this once, at
    /// the end of the last handle. A session that is not open (any more) changes nothing.
    pub fn close(&mut self, now: Millis, session: SessionId) -> Vec<Wake> {
        let Some(file) = self.sessions.remove(&session) else {
            return Vec::new();
        };
        let Some(line) = self.lines.get_mut(&file) else {
            return Vec::new();
        };
        if let Some(session) = line.remove_session(session) {
            self.locate(session.proc, file);
            session.heirs.iter().for_each(|heir| self.locate(*heir, file));
        }
        let wakes = self.grant_if_free(now, file);
        self.settle(file);
        wakes
    }

    /// These processes hold the session too: they go on with its descriptor, and who opened it may be gone, and with it
    /// the kinship by which they were known. From now on they and their descendants are its lineage (W3).
    ///
    /// Those of them that wait for the file are admitted. The others in line wait for the heirs as well: who closes a
    /// cycle by that is refused (`Deadlock`). A session that is not open (any more) changes nothing.
    pub fn inherit(&mut self, now: Millis, session: SessionId, heirs: &[ProcId]) -> Vec<Wake> {
        let Some(&file) = self.sessions.get(&session) else {
            return Vec::new();
        };
        let mut party = BTreeSet::new();
        for &heir in heirs {
            let Some(line) = self.lines.get_mut(&file) else { break };
            if line.add_heir(session, heir) {
                party.append(&mut line.kin(heir));
                self.locate(heir, file);
            }
        }
        let mut wakes = Vec::new();
        self.admit_party(now, file, party, &mut wakes);
        let waiting = self.lines.get(&file).into_iter().flat_map(Line::arrivals);
        let looked_at = waiting.map(|arrival| (arrival, file)).collect();
        wakes.append(&mut self.reexamine(looked_at));
        self.settle(file);
        wakes
    }

    /// Sessions go on as those of another file: the name that they were queued for is gone, and their file has others (W11). Who waits stays in the line where he is.
    /// Those that are not open (any more) are left out. `None`, and nothing changes: somebody has the file `to` already.
    pub fn move_sessions(&mut self, now: Millis, sessions: &[SessionId], to: FileKey) -> Option<Vec<Wake>> {
        if !self.is_idle(to) {
            return None;
        }
        let (mut line, mut left) = (Line::default(), BTreeMap::new());
        for id in sessions {
            let Some(file) = self.sessions.get_mut(id) else {
                continue;
            };
            let from = std::mem::replace(file, to);
            let holders = self.lines.get_mut(&from).map(|left| left.give(*id, &mut line));
            left.entry(from)
                .or_insert_with(Vec::new)
                .extend(holders.into_iter().flatten());
        }
        self.lines.insert(to, line);
        let mut wakes = Vec::new();
        for (from, holders) in left {
            for holder in holders {
                self.locate(holder, from);
                self.locate(holder, to);
            }
            wakes.append(&mut self.grant_if_free(now, from));
            self.settle(from);
        }
        self.settle(to);
        Some(wakes)
    }

    /// Whether a wake is still to come for the ticket.
    pub fn is_waiting(&self, ticket: Ticket) -> bool {
        self.tickets.contains_key(&ticket)
    }

    /// The waiter was interrupted; the caller answers it (EINTR) itself. A ticket that does not wait (any more)
    /// changes nothing. The wakes can only be `Refused` with `Deadlock`: see `reexamine`.
    pub fn cancel(&mut self, _now: Millis, ticket: Ticket) -> Vec<Wake> {
        let Some(&(file, arrival)) = self.tickets.get(&ticket) else {
            return Vec::new();
        };
        let pushed_back = self.depart(file, &BTreeSet::from([arrival])).1;
        let wakes = self.reexamine(pushed_back);
        self.settle(file);
        wakes
    }

    /// Time has passed: ends the waits that ran out (`Busy`), then reports the leases that ran out on files that
    /// still have waiters.
    pub fn tick(&mut self, now: Millis) -> Vec<Wake> {
        let mut wakes = Vec::new();
        let mut due: BTreeMap<FileKey, BTreeSet<Arrival>> = BTreeMap::new();
        for &(until, arrival, file) in &self.waits {
            if until > now {
                break;
            }
            if let Some(waiter) = self.lines.get(&file).and_then(|line| line.waiter(arrival)) {
                wakes.push(Wake::Refused {
                    ticket: waiter.request.ticket,
                    why: Refusal::Busy,
                });
                due.entry(file).or_default().insert(arrival);
            }
        }
        // All that are due leave before anyone is examined: nobody gets EDEADLK for a wait that is over.
        let mut pushed_back = BTreeSet::new();
        for (&file, arrivals) in &due {
            pushed_back.append(&mut self.depart(file, arrivals).1);
        }
        wakes.append(&mut self.reexamine(pushed_back));
        due.keys().for_each(|&file| self.settle(file));
        self.expire_leases(now, &mut wakes);
        wakes
    }

    /// When [`tick`](Queue::tick) has something to do next; an instant in the past means now.
    pub fn next_deadline(&self) -> Option<Millis> {
        let wait = self.waits.first().map(|&(until, ..)| until);
        let lease = self.leases.first().map(|&(end, _)| end);
        wait.into_iter().chain(lease).min()
    }

    /// The files with a session, in the order of their keys.
    pub fn files(&self) -> impl Iterator<Item = FileKey> {
        self.lines.keys().copied()
    }

    /// Whether nobody has a session on the file (and so nobody waits for it).
    pub fn is_idle(&self, file: FileKey) -> bool {
        !self.lines.contains_key(&file)
    }

    /// The open sessions of a file, oldest first.
    pub fn sessions(&self, file: FileKey) -> impl Iterator<Item = &Session> {
        self.lines.get(&file).into_iter().flat_map(Line::sessions)
    }

    /// The requests that wait for a file, first in line first.
    pub fn waiters(&self, file: FileKey) -> impl Iterator<Item = WaiterInfo> {
        self.lines
            .get(&file)
            .into_iter()
            .flat_map(Line::waiters)
            .map(|w| WaiterInfo {
                ticket: w.request.ticket,
                proc: w.request.proc,
                since: w.since,
            })
    }

    /// Admits a request if it need not wait.
    fn admit(&mut self, now: Millis, file: FileKey, request: &Request) -> Option<Admission> {
        let line = self.lines.entry(file).or_default();
        if line.is_free() {
            return Some(Admission::Start(self.start_session(
                now,
                file,
                request,
                SessionKind::Start,
            )));
        }
        if !line.is_held_by(&request.lineage) {
            return None;
        }
        match line.joinable(&request.lineage) {
            Some(session) if request.intent == Intent::Modify => Some(Admission::Join(session)),
            _ => Some(Admission::Private(self.start_session(
                now,
                file,
                request,
                SessionKind::Private,
            ))),
        }
    }

    fn start_session(&mut self, now: Millis, file: FileKey, request: &Request, kind: SessionKind) -> SessionId {
        let id = self.number();
        self.sessions.insert(id, file);
        let lease_end = now.saturating_add(request.lease_max);
        let session = Session {
            id,
            kind,
            proc: request.proc,
            since: now,
            intent: request.intent,
            lease_end,
            heirs: Vec::new(),
        };
        self.lines.entry(file).or_default().add_session(session);
        self.locate(request.proc, file);
        id
    }

    fn enqueue(&mut self, file: FileKey, arrival: Arrival, waiter: Waiter) {
        let proc = waiter.request.proc;
        self.tickets.insert(waiter.request.ticket, (file, arrival));
        self.waits.insert((waiter.until, arrival, file));
        self.lines.entry(file).or_default().enqueue(arrival, waiter);
        self.locate(proc, file);
    }

    /// Takes waiters out of a file's line; also gives those who may have been pushed back by it.
    fn depart(&mut self, file: FileKey, leaving: &BTreeSet<Arrival>) -> (Vec<Waiter>, BTreeSet<(Arrival, FileKey)>) {
        let Some(line) = self.lines.get_mut(&file) else {
            return Default::default();
        };
        let (gone, pushed_back) = line.depart(leaving);
        for (arrival, waiter) in &gone {
            self.tickets.remove(&waiter.request.ticket);
            self.waits.remove(&(waiter.until, *arrival, file));
            self.locate(waiter.request.proc, file);
        }
        (
            gone.into_iter().map(|(_, waiter)| waiter).collect(),
            pushed_back.into_iter().map(|a| (a, file)).collect(),
        )
    }

    /// When the last session is closed, admits the first in line and with it everybody of its lineage, in order of
    /// arrival: they must not wait for their own (W3).
    fn grant_if_free(&mut self, now: Millis, file: FileKey) -> Vec<Wake> {
        let mut wakes = Vec::new();
        let party = match self.lines.get(&file) {
            Some(line) if line.is_free() => line.first_and_kin(),
            _ => return wakes,
        };
        let pushed_back = self.admit_party(now, file, party, &mut wakes);
        wakes.append(&mut self.reexamine(pushed_back));
        wakes
    }

    /// Admits these, who need not wait, and with them all of their lineage; gives those who may have been pushed back.
    fn admit_party(
        &mut self,
        now: Millis,
        file: FileKey,
        mut party: BTreeSet<Arrival>,
        wakes: &mut Vec<Wake>,
    ) -> BTreeSet<(Arrival, FileKey)> {
        let mut pushed_back = BTreeSet::new();
        while !party.is_empty() {
            let (admitted, mut others) = self.depart(file, &party);
            pushed_back.append(&mut others);
            party.clear();
            for Waiter { request, .. } in admitted {
                let admission = self
                    .admit(now, file, &request)
                    .expect("it finds the file free, or its kin there");
                wakes.push(Wake::Granted {
                    ticket: request.ticket,
                    admission,
                });
                if let (Admission::Private(_), Some(line)) = (admission, self.lines.get(&file)) {
                    party.append(&mut line.kin(request.proc));
                }
            }
        }
        pushed_back
    }

    /// Finds the new places of waiters that lost a request of their own lineage further ahead. They now wait for
    /// more others than before, so a cycle can have closed without a new open; who closes it is refused.
    fn reexamine(&mut self, mut pushed_back: BTreeSet<(Arrival, FileKey)>) -> Vec<Wake> {
        let mut wakes = Vec::new();
        while let Some((arrival, file)) = pushed_back.pop_first() {
            let Some(line) = self.lines.get_mut(&file) else {
                continue;
            };
            let Some(Waiter { request, .. }) = line.waiter(arrival) else {
                continue;
            };
            let (ticket, halted) = (request.ticket, request.halted.clone());
            let place = line.place_of(&request.lineage, arrival);
            line.set_place(arrival, place);
            if self.closes_cycle(file, &halted, place) {
                wakes.push(Wake::Refused {
                    ticket,
                    why: Refusal::Deadlock,
                });
                pushed_back.append(&mut self.depart(file, &BTreeSet::from([arrival])).1);
                self.settle(file);
            }
        }
        wakes
    }

    fn expire_leases(&mut self, now: Millis, wakes: &mut Vec<Wake>) {
        while let Some(&(end, file)) = self.leases.first() {
            if end > now {
                break;
            }
            self.leases.pop_first();
            let Some(line) = self.lines.get_mut(&file) else {
                continue;
            };
            line.timer = None;
            wakes.extend(line.expire_first_lease().map(|session| Wake::LeaseExpired { session }));
            self.settle(file);
        }
    }

    /// Keeps `whereabouts` true after a change that concerns this process and this file.
    fn locate(&mut self, proc: ProcId, file: FileKey) {
        if self.lines.get(&file).is_some_and(|line| line.involves(proc)) {
            self.whereabouts.entry(proc).or_default().insert(file);
        } else if let Some(files) = self.whereabouts.get_mut(&proc) {
            files.remove(&file);
            if files.is_empty() {
                self.whereabouts.remove(&proc);
            }
        }
    }

    /// Keeps the lease timer of a file true after a change, and forgets the file when it is idle.
    fn settle(&mut self, file: FileKey) {
        let Some(line) = self.lines.get_mut(&file) else { return };
        let (before, after) = (line.timer, line.next_lease());
        line.timer = after;
        if line.is_idle() {
            self.lines.remove(&file);
        }
        if before != after {
            before.map(|end| self.leases.remove(&(end, file)));
            after.map(|end| self.leases.insert((end, file)));
        }
    }
}

#[cfg(test)]
impl Queue {
    /// Whether every index holds what the lines hold, and no more: idle files, processes and tickets take no memory.
    pub(super) fn keeps_nothing_stale(&self) -> bool {
        let waiters: usize = self.lines.values().map(|line| line.waiters().count()).sum();
        let sessions: usize = self.lines.values().map(|line| line.sessions().count()).sum();
        let leases = self.lines.values().filter(|line| line.next_lease().is_some()).count();
        let located = |(p, files): (&ProcId, &BTreeSet<FileKey>)| {
            !files.is_empty()
                && files
                    .iter()
                    .all(|f| self.lines.get(f).is_some_and(|line| line.involves(*p)))
        };
        self.tickets.len() == waiters
            && self.waits.len() == waiters
            && self.sessions.len() == sessions
            && self.leases.len() == leases
            && self.lines.values().all(|line| !line.is_free())
            && self.whereabouts.iter().all(located)
    }
}
