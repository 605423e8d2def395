//! The queue of writers once more, without any index: lists, and searches through all of them. It is meant to be
//! obviously right, and is written against the rules, not against the code.

use crate::session::*;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Held {
    pub id: SessionId,
    pub private: bool,
    pub proc: ProcId,
    pub heirs: Vec<ProcId>,
    pub since: Millis,
    pub intent: Intent,
    pub lease_end: Millis,
    pub reported: bool,
}

impl Held {
    /// Known ones only.
    pub fn holders(&self) -> Vec<ProcId> {
        let all = std::iter::once(&self.proc).chain(&self.heirs);
        all.filter(|p| p.tgid != 0).copied().collect()
    }

    fn is_held_by_one_of(&self, lineage: &[ProcId]) -> bool {
        self.holders().iter().any(|p| lineage.contains(p))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Waiting {
    pub ticket: Ticket,
    pub file: FileKey,
    pub proc: ProcId,
    pub lineage: Vec<ProcId>,
    pub halted: Vec<ProcId>,
    pub intent: Intent,
    pub since: Millis,
    pub until: Millis,
    pub lease_max: Millis,
    /// The tickets that it waits behind.
    pub behind: Vec<Ticket>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Model {
    pub next_session: u64,
    pub held: Vec<(FileKey, Held)>,
    /// Of all files, in order of arrival.
    pub waiting: Vec<Waiting>,
    /// What the graph leaves out has happened (`deadlock.rs`, "When edges appear"): nothing is said about what follows.
    pub strayed: bool,
}

impl Model {
    pub fn holders(&self, file: FileKey) -> Vec<&Held> {
        self.held.iter().filter(|(f, _)| *f == file).map(|(_, h)| h).collect()
    }

    pub fn line(&self, file: FileKey) -> Vec<&Waiting> {
        self.waiting.iter().filter(|w| w.file == file).collect()
    }

    pub fn open(&mut self, now: Millis, request: Waiting, patience: Patience) -> Admission {
        if let Some(admission) = self.admit(now, &request) {
            return admission;
        }
        let Patience::Until(until) = patience else {
            return Admission::Refuse(Refusal::WouldBlock);
        };
        self.waiting.push(Waiting { until, ..request });
        let last = self.waiting.len() - 1;
        self.waiting[last].behind = self.stands_behind(last);
        let deadlock = self.has_cycle();
        if let Some(gets_in) = self.all_get_in() {
            assert!(deadlock || gets_in, "a deadlock that the graph does not see: {self:#?}");
            assert!(
                !deadlock || !gets_in || self.has_lost_a_parent(),
                "a deadlock that is none: {self:#?}"
            );
        }
        if deadlock {
            self.waiting.pop();
            return Admission::Refuse(Refusal::Deadlock);
        }
        Admission::Wait
    }

    /// A process waits twice, with ancestors and, since these are gone, without. Who gets in by kinship then lets in who has none, which the graph of waits
    /// does not show: EDEADLK is then said once too often.
    fn has_lost_a_parent(&self) -> bool {
        let mut pairs = self
            .waiting
            .iter()
            .flat_map(|a| self.waiting.iter().map(move |b| (a, b)));
        pairs.any(|(a, b)| a.proc == b.proc && a.lineage != b.lineage)
    }

    fn admit(&mut self, now: Millis, request: &Waiting) -> Option<Admission> {
        let holders = self.holders(request.file);
        let kin: Vec<&Held> = holders
            .iter()
            .filter(|h| h.is_held_by_one_of(&request.lineage))
            .copied()
            .collect();
        if !holders.is_empty() && kin.is_empty() {
            return None;
        }
        // It gets in beside others while somebody waits, by whom it was taken for blocked, and they were not.
        let beside: Vec<ProcId> = kin.iter().flat_map(|h| h.holders()).collect();
        let halts = |w: &Waiting| w.halted.contains(&request.proc) && !beside.iter().any(|p| w.halted.contains(p));
        let strays = !kin.is_empty() && self.waiting.iter().any(halts);
        if request.intent == Intent::Modify {
            for ancestor in &request.lineage {
                let own = kin
                    .iter()
                    .filter(|h| h.holders().contains(ancestor) && h.intent != Intent::Instant);
                if let Some(newest) = own.map(|h| h.id).max() {
                    self.strayed |= strays;
                    return Some(Admission::Join(newest));
                }
            }
        }
        let private = !holders.is_empty();
        self.strayed |= strays;
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let held = Held {
            id,
            private,
            proc: request.proc,
            heirs: vec![],
            since: now,
            intent: request.intent,
            lease_end: Millis(now.0 + request.lease_max.0),
            reported: false,
        };
        self.held.push((request.file, held));
        Some(if private {
            Admission::Private(id)
        } else {
            Admission::Start(id)
        })
    }

    pub fn close(&mut self, now: Millis, session: SessionId) -> Vec<Wake> {
        let mut wakes = self.end_session(now, session);
        self.look_again(&mut wakes);
        wakes
    }

    /// Closes a session and grants; nobody is refused.
    fn end_session(&mut self, now: Millis, session: SessionId) -> Vec<Wake> {
        let mut wakes = vec![];
        let Some(at) = self.held.iter().position(|(_, h)| h.id == session) else {
            return wakes;
        };
        let (file, _) = self.held.remove(at);
        self.grant_if_free(now, file, &mut wakes);
        wakes
    }

    fn grant_if_free(&mut self, now: Millis, file: FileKey, wakes: &mut Vec<Wake>) {
        if !self.holders(file).is_empty() || self.line(file).is_empty() {
            return;
        }
        let first = self.waiting.iter().position(|w| w.file == file).unwrap();
        let request = self.waiting.remove(first);
        wakes.push(Wake::Granted {
            ticket: request.ticket,
            admission: self.admit(now, &request).unwrap(),
        });
        self.admit_kin(now, file, wakes);
    }

    /// All of one lineage, of one file.
    pub fn move_sessions(&mut self, now: Millis, sessions: &[SessionId], to: FileKey) -> Option<Vec<Wake>> {
        if !self.holders(to).is_empty() {
            return None;
        }
        let moves = |(_, held): &&mut (FileKey, Held)| sessions.contains(&held.id);
        let left: Vec<FileKey> = self
            .held
            .iter_mut()
            .filter(moves)
            .map(|(file, _)| std::mem::replace(file, to))
            .collect();
        // In the order in which they began.
        self.held.sort_by_key(|(_, held)| held.id);
        let mut wakes = vec![];
        left.first()
            .into_iter()
            .for_each(|from| self.grant_if_free(now, *from, &mut wakes));
        self.look_again(&mut wakes);
        Some(wakes)
    }

    /// Nobody waits for its own lineage.
    fn admit_kin(&mut self, now: Millis, file: FileKey, wakes: &mut Vec<Wake>) {
        loop {
            let held: Vec<ProcId> = self.holders(file).iter().flat_map(|h| h.holders()).collect();
            let is_kin = |w: &Waiting| w.file == file && w.lineage.iter().any(|p| held.contains(p));
            let kin: Vec<Waiting> = self.waiting.iter().filter(|w| is_kin(w)).cloned().collect();
            if kin.is_empty() {
                return;
            }
            self.waiting.retain(|w| !kin.contains(w));
            for w in kin {
                wakes.push(Wake::Granted {
                    ticket: w.ticket,
                    admission: self.admit(now, &w).unwrap(),
                });
            }
        }
    }

    pub fn inherit(&mut self, now: Millis, session: SessionId, heir: ProcId) -> Vec<Wake> {
        let mut wakes = vec![];
        let Some(at) = self.held.iter().position(|(_, h)| h.id == session) else {
            return wakes;
        };
        let (file, held) = &mut self.held[at];
        let file = *file;
        if heir.tgid != 0 && !held.holders().contains(&heir) {
            held.heirs.push(heir);
        }
        self.admit_kin(now, file, &mut wakes);
        let (told, all_get_in) = (wakes.len(), self.all_get_in());
        let mut at = 0;
        while at < self.waiting.len() {
            self.waiting[at].behind = self.stands_behind(at);
            if self.waiting[at].file == file && self.is_in_a_cycle(at) {
                let gone = self.waiting.remove(at);
                wakes.push(Wake::Refused {
                    ticket: gone.ticket,
                    why: Refusal::Deadlock,
                });
            } else {
                at += 1;
            }
        }
        assert!(
            all_get_in.is_none_or(|all| all == (wakes.len() == told)) || self.has_lost_a_parent(),
            "refused without need, or not refused: {self:#?}"
        );
        wakes
    }

    fn is_in_a_cycle(&self, at: usize) -> bool {
        let waiting = &self.waiting[at];
        let edges = self.edges();
        let mut reached: Vec<ProcId> = self.targets(waiting);
        let mut next = 0;
        while next < reached.len() {
            let further: Vec<ProcId> = edges.iter().filter(|e| e.0 == reached[next]).map(|e| e.1).collect();
            further.into_iter().for_each(|p| {
                if !reached.contains(&p) {
                    reached.push(p);
                }
            });
            next += 1;
        }
        reached.iter().any(|p| waiting.halted.contains(p))
    }

    /// What a deadlock is, without any graph: let everybody close what they hold as soon as nobody of theirs waits,
    /// and see whether all waiters get in. Nobody gives up, and time stands still. `None`: it strays on the way.
    pub fn all_get_in(&self) -> Option<bool> {
        let mut world = self.clone();
        loop {
            let blocked = |p: &ProcId| p.tgid != 0 && world.waiting.iter().any(|w| w.halted.contains(p));
            let Some((_, free)) = world.held.iter().find(|(_, h)| !h.holders().iter().any(blocked)) else {
                return (!world.strayed).then_some(world.waiting.is_empty());
            };
            let id = free.id;
            world.end_session(Millis(0), id);
        }
    }

    pub fn cancel(&mut self, ticket: Ticket) -> Vec<Wake> {
        let mut wakes = vec![];
        self.waiting.retain(|w| w.ticket != ticket);
        self.look_again(&mut wakes);
        wakes
    }

    pub fn tick(&mut self, now: Millis) -> Vec<Wake> {
        let mut due: Vec<Waiting> = self.waiting.iter().filter(|w| w.until <= now).cloned().collect();
        due.sort_by_key(|w| w.until);
        let mut wakes: Vec<Wake> = due
            .iter()
            .map(|w| Wake::Refused {
                ticket: w.ticket,
                why: Refusal::Busy,
            })
            .collect();
        self.waiting.retain(|w| w.until > now);
        self.look_again(&mut wakes);
        let waited_for = |file: &FileKey| self.waiting.iter().any(|w| w.file == *file);
        let mut overdue: Vec<_> = self
            .held
            .iter_mut()
            .filter(|(f, h)| !h.reported && h.lease_end <= now && waited_for(f))
            .collect();
        overdue.sort_by_key(|(f, h)| (h.lease_end, *f, h.id));
        for (_, held) in overdue {
            held.reported = true;
            wakes.push(Wake::LeaseExpired { session: held.id });
        }
        wakes
    }

    pub fn next_deadline(&self) -> Option<Millis> {
        let waits = self.waiting.iter().map(|w| w.until);
        let waited_for = |file: &FileKey| self.waiting.iter().any(|w| w.file == *file);
        let leases = self
            .held
            .iter()
            .filter(|(f, h)| !h.reported && waited_for(f))
            .map(|(_, h)| h.lease_end);
        waits.chain(leases).min()
    }

    /// The tickets in the same line ahead of this waiter and of all its kin.
    fn stands_behind(&self, at: usize) -> Vec<Ticket> {
        let me = &self.waiting[at];
        let ahead = self.waiting[..at].iter().filter(|w| w.file == me.file);
        ahead
            .take_while(|w| !me.lineage.contains(&w.proc))
            .map(|w| w.ticket)
            .collect()
    }

    /// After somebody left: all see again whom they stand behind, in order of arrival; who closes a cycle by it leaves.
    fn look_again(&mut self, wakes: &mut Vec<Wake>) {
        let (told, all_get_in) = (wakes.len(), self.all_get_in());
        let present: Vec<Ticket> = self.waiting.iter().map(|w| w.ticket).collect();
        self.waiting
            .iter_mut()
            .for_each(|w| w.behind.retain(|t| present.contains(t)));
        let mut at = 0;
        while at < self.waiting.len() {
            self.waiting[at].behind = self.stands_behind(at);
            if self.has_cycle() {
                let gone = self.waiting.remove(at);
                self.waiting
                    .iter_mut()
                    .for_each(|w| w.behind.retain(|t| *t != gone.ticket));
                wakes.push(Wake::Refused {
                    ticket: gone.ticket,
                    why: Refusal::Deadlock,
                });
            } else {
                at += 1;
            }
        }
        assert!(
            all_get_in.is_none_or(|all| all == (wakes.len() == told)),
            "refused without need, or not refused: {self:#?}"
        );
    }

    /// All edges of the waits-for graph: who is blocked, and by whom.
    pub fn edges(&self) -> Vec<(ProcId, ProcId)> {
        let mut edges = vec![];
        for w in &self.waiting {
            for p in &w.halted {
                edges.extend(self.targets(w).iter().map(|t| (*p, *t)));
            }
        }
        edges
    }

    fn targets(&self, w: &Waiting) -> Vec<ProcId> {
        let ahead = self.waiting.iter().filter(|v| w.behind.contains(&v.ticket));
        let ahead = ahead.map(|v| v.proc).filter(|p| p.tgid != 0);
        let holders = self.holders(w.file).into_iter().flat_map(Held::holders);
        holders.chain(ahead).collect()
    }

    pub fn has_cycle(&self) -> bool {
        // Nobody who waits for somebody that waits for nobody is in a cycle: take those away until nothing changes.
        let mut edges = self.edges();
        loop {
            let before = edges.len();
            let from: Vec<ProcId> = edges.iter().map(|e| e.0).collect();
            edges.retain(|e| from.contains(&e.1));
            if edges.len() == before {
                return before > 0;
            }
        }
    }
}
