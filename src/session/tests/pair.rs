//! The queue and its model side by side: each step goes to both, the answers must be the same, and then what must
//! always hold is checked.

use super::model::{Model, Waiting};
use crate::session::*;

#[derive(Debug, Clone)]
pub struct Pair {
    pub queue: Queue,
    pub model: Model,
    pub now: Millis,
    /// What waiters are told by and by, in order.
    pub wakes: Vec<Wake>,
}

pub fn proc(n: u32) -> ProcId {
    ProcId {
        tgid: n,
        unique: 100 + u64::from(n),
    }
}

/// A process and its ancestors. From 50 on they have threads, and go on while one waits.
pub fn opener(proc: ProcId, ancestors: Vec<ProcId>) -> Opener {
    let lineage = std::iter::once(&proc).chain(&ancestors);
    let halted = lineage.filter(|p| p.is_known() && p.tgid < 50).copied().collect();
    Opener {
        proc,
        ancestors,
        halted,
    }
}

impl Pair {
    pub fn new() -> Pair {
        let model = Model {
            next_session: 1,
            ..Model::default()
        };
        Pair {
            queue: Queue::new(SessionId(1)),
            model,
            now: Millis(0),
            wakes: vec![],
        }
    }

    pub fn open(
        &mut self,
        file: u64,
        opener: &Opener,
        intent: Intent,
        patience: Patience,
        lease: u64,
        ticket: u64,
    ) -> Admission {
        let (file, ticket, lease_max) = (FileKey(file), Ticket(ticket), Millis(lease));
        let lineage = opener.lineage();
        let request = Waiting {
            ticket,
            file,
            proc: opener.proc,
            lineage,
            halted: opener.halted.clone(),
            intent,
            since: self.now,
            until: self.now,
            lease_max,
            behind: vec![],
        };
        let expected = self.model.open(self.now, request, patience);
        let admission = self
            .queue
            .open(self.now, file, opener, intent, patience, lease_max, ticket);
        if !self.model.strayed {
            assert_eq!(admission, expected, "open {file:?} {opener:?} {intent:?} in {self:#?}");
            self.check();
        }
        admission
    }

    pub fn close(&mut self, session: SessionId) -> Vec<Wake> {
        let expected = self.model.close(self.now, session);
        let wakes = self.queue.close(self.now, session);
        self.same(wakes, expected)
    }

    pub fn inherit(&mut self, session: SessionId, heir: ProcId) -> Vec<Wake> {
        let expected = self.model.inherit(self.now, session, heir);
        let wakes = self.queue.inherit(self.now, session, &[heir]);
        self.same(wakes, expected)
    }

    /// Whether they could be moved.
    pub fn move_sessions(&mut self, sessions: &[SessionId], to: u64) -> bool {
        let expected = self.model.move_sessions(self.now, sessions, FileKey(to));
        let wakes = self.queue.move_sessions(self.now, sessions, FileKey(to));
        assert!(
            self.model.strayed || wakes.is_some() == expected.is_some(),
            "in {self:#?}"
        );
        let moved = wakes.is_some();
        self.same(wakes.unwrap_or_default(), expected.unwrap_or_default());
        moved
    }

    pub fn cancel(&mut self, ticket: Ticket) -> Vec<Wake> {
        let expected = self.model.cancel(ticket);
        let wakes = self.queue.cancel(self.now, ticket);
        self.same(wakes, expected)
    }

    pub fn tick(&mut self) -> Vec<Wake> {
        let expected = self.model.tick(self.now);
        let wakes = self.queue.tick(self.now);
        let wakes = self.same(wakes, expected);
        assert!(
            self.model.strayed || self.model.waiting.iter().all(|w| w.until > self.now),
            "a wait outlived its time: {self:#?}"
        );
        assert!(
            self.queue.next_deadline().is_none_or(|at| at > self.now),
            "a tick left something to do: {self:#?}"
        );
        wakes
    }

    fn same(&mut self, wakes: Vec<Wake>, expected: Vec<Wake>) -> Vec<Wake> {
        if !self.model.strayed {
            assert_eq!(wakes, expected, "in {self:#?}");
            self.check();
        }
        self.wakes.extend(&wakes);
        wakes
    }

    /// The same state in both, and nothing in it that must not be.
    fn check(&self) {
        let model = &self.model;
        let mut files: Vec<FileKey> = model.held.iter().map(|(f, _)| *f).collect();
        files.sort();
        files.dedup();
        assert_eq!(self.queue.files().collect::<Vec<_>>(), files, "{self:#?}");
        assert_eq!(self.queue.next_deadline(), model.next_deadline(), "{self:#?}");
        for &file in &files {
            let held = model.holders(file);
            let kind = |private| {
                if private {
                    SessionKind::Private
                } else {
                    SessionKind::Start
                }
            };
            let seen: Vec<_> = self
                .queue
                .sessions(file)
                .map(|s| (s.id, s.kind, s.proc, s.since))
                .collect();
            assert_eq!(
                seen,
                held.iter()
                    .map(|h| (h.id, kind(h.private), h.proc, h.since))
                    .collect::<Vec<_>>()
            );
            let seen: Vec<_> = self.queue.waiters(file).map(|w| (w.ticket, w.proc, w.since)).collect();
            assert_eq!(
                seen,
                model
                    .line(file)
                    .iter()
                    .map(|w| (w.ticket, w.proc, w.since))
                    .collect::<Vec<_>>()
            );
        }
        for w in &model.waiting {
            assert!(!self.queue.is_idle(w.file), "a waiter waits for a free file: {self:#?}");
            let own = self
                .queue
                .sessions(w.file)
                .flat_map(Session::holders)
                .any(|p| w.lineage.contains(&p));
            assert!(!own, "a waiter waits for its own lineage: {self:#?}");
        }
        assert!(!model.has_cycle(), "a cycle of waits: {:?} in {self:#?}", model.edges());
        assert!(self.queue.keeps_nothing_stale(), "left behind: {self:#?}");
    }
}
