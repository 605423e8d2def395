//! Random scripts of up to six processes that fork and end, on three files, on queue and model.

use proptest::prelude::*;

use super::model::Waiting;
use super::pair::{Pair, opener, proc};
use crate::session::*;

const FILES: u64 = 3;

#[derive(Debug, Clone)]
enum Step {
    Open {
        who: usize,
        file: u64,
        intent: Intent,
        wait_ms: Option<u64>,
        lease_ms: u64,
    },
    Close(usize),
    Cancel(usize),
    /// This process ends: its waits are cancelled, its children become their grandparent's or nobody's.
    End {
        who: usize,
        orphans: bool,
        /// Its children go on with its descriptors.
        bequeaths: bool,
    },
    /// The sessions of one file go on as those of another, or those of them that are no instant ones.
    Move {
        from: u64,
        to: u64,
        all: bool,
    },
    /// This process turns out to have a session's descriptor.
    Inherit(usize, usize),
    Pass(u64),
}

fn intent() -> impl Strategy<Value = Intent> {
    prop_oneof![Just(Intent::Truncate), Just(Intent::Modify), Just(Intent::Instant)]
}

fn step() -> impl Strategy<Value = Step> {
    let open = (
        0..7usize,
        0..FILES,
        intent(),
        prop::option::weighted(0.9, 1..60u64),
        prop_oneof![Just(20u64), Just(1000)],
    );
    prop_oneof![
        10 => open.prop_map(|(who, file, intent, wait_ms, lease_ms)| Step::Open { who, file, intent, wait_ms, lease_ms }),
        4 => any::<prop::sample::Index>().prop_map(|i| Step::Close(i.index(1000))),
        2 => any::<prop::sample::Index>().prop_map(|i| Step::Cancel(i.index(1000))),
        1 => (0..6usize, any::<bool>(), any::<bool>()).prop_map(|(who, orphans, bequeaths)| Step::End { who, orphans, bequeaths }),
        1 => (any::<prop::sample::Index>(), 0..7usize).prop_map(|(i, who)| Step::Inherit(i.index(1000), who)),
        1 => (0..FILES, 0..FILES, any::<bool>()).prop_map(|(from, to, all)| Step::Move { from, to, all }),
        2 => (0..30u64).prop_map(Step::Pass),
    ]
}

/// Parents of processes 1 to 6: each has none, or one that came before it.
fn parents() -> impl Strategy<Value = Vec<Option<usize>>> {
    (0..6usize)
        .map(|n| prop::option::of(0..n.max(1)).prop_map(move |p| p.filter(|_| n > 0)))
        .collect::<Vec<_>>()
}

/// Which of them have threads: mostly none.
fn threaded() -> impl Strategy<Value = [bool; 6]> {
    prop_oneof![2 => Just([false; 6]), 1 => any::<[bool; 6]>()]
}

struct World {
    pair: Pair,
    parents: Vec<Option<usize>>,
    threaded: [bool; 6],
    ended: [bool; 6],
    next_ticket: u64,
}

impl World {
    /// The process as it stands in the family now; the seventh is unknown.
    fn opener(&self, who: usize) -> Opener {
        if who == 6 {
            return opener(ProcId { tgid: 0, unique: 0 }, vec![]);
        }
        let parent = |p: &usize| self.parents[*p];
        let up = std::iter::successors(self.parents[who], parent);
        opener(self.proc(who), up.map(|p| self.proc(p)).collect())
    }

    fn proc(&self, who: usize) -> ProcId {
        proc(who as u32 + if self.threaded[who] { 51 } else { 1 })
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Open {
                who,
                file,
                intent,
                wait_ms,
                lease_ms,
            } => {
                if who < 6 && self.ended[who] {
                    return;
                }
                let patience = wait_ms.map_or(Patience::NonBlock, |ms| Patience::Until(Millis(self.pair.now.0 + ms)));
                self.next_ticket += 1;
                self.pair
                    .open(file, &self.opener(who), intent, patience, lease_ms, self.next_ticket);
            }
            Step::Close(i) => {
                let held: Vec<SessionId> = self.pair.model.held.iter().map(|(_, h)| h.id).collect();
                // One too many on purpose: a session that does not exist.
                self.pair
                    .close(held.get(i % (held.len() + 1)).copied().unwrap_or(SessionId(u64::MAX)));
            }
            Step::Cancel(i) => {
                let waiting: Vec<Ticket> = self.pair.model.waiting.iter().map(|w| w.ticket).collect();
                self.pair.cancel(
                    waiting
                        .get(i % (waiting.len() + 1))
                        .copied()
                        .unwrap_or(Ticket(u64::MAX)),
                );
            }
            Step::End {
                who,
                orphans,
                bequeaths,
            } => {
                if bequeaths {
                    self.bequeath(who);
                }
                self.end(who, orphans);
            }
            Step::Inherit(i, who) => {
                let held: Vec<SessionId> = self.pair.model.held.iter().map(|(_, h)| h.id).collect();
                let session = held.get(i % (held.len() + 1)).copied();
                self.pair
                    .inherit(session.unwrap_or(SessionId(u64::MAX)), self.opener(who).proc);
            }
            Step::Move { from, to, all } => {
                let holders = self.pair.model.holders(FileKey(from)).into_iter();
                let moving = holders.filter(|held| all || held.intent != Intent::Instant);
                let sessions: Vec<SessionId> = moving.map(|held| held.id).collect();
                self.pair.move_sessions(&sessions, to);
            }
            Step::Pass(ms) => {
                self.pair.now = Millis(self.pair.now.0 + ms);
                self.pair.tick();
            }
        }
    }

    fn bequeath(&mut self, who: usize) {
        let me = self.proc(who);
        let all = self.pair.model.held.iter().map(|(_, h)| h);
        let own: Vec<SessionId> = all.filter(|h| h.holders().contains(&me)).map(|h| h.id).collect();
        let is_child = |child: &usize| self.parents[*child] == Some(who) && !self.ended[*child];
        let children: Vec<usize> = (0..6).filter(is_child).collect();
        for child in children {
            for session in &own {
                self.pair.inherit(*session, self.proc(child));
            }
        }
    }

    /// Its sessions stay: another process may have inherited the descriptors.
    fn end(&mut self, who: usize, orphans: bool) {
        let me = self.proc(who);
        let own = |w: &&Waiting| w.proc == me;
        let tickets: Vec<Ticket> = self.pair.model.waiting.iter().filter(own).map(|w| w.ticket).collect();
        tickets.into_iter().for_each(|ticket| drop(self.pair.cancel(ticket)));
        let heir = if orphans { None } else { self.parents[who] };
        self.parents
            .iter_mut()
            .filter(|p| **p == Some(who))
            .for_each(|p| *p = heir);
        self.ended[who] = true;
    }

    /// Closing everything that is open, again and again, serves or ends every wait.
    fn drain(&mut self) {
        while let Some((_, held)) = self.pair.model.held.first() {
            let id = held.id;
            self.pair.close(id);
            if self.pair.model.strayed {
                return;
            }
        }
        assert_eq!(self.pair.model.waiting, []);
        assert_eq!(self.pair.queue.next_deadline(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_lives_of_six_processes_follow_the_model(parents in parents(), threaded in threaded(), steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World { pair: Pair::new(), parents, threaded, ended: [false; 6], next_ticket: 0 };
        for step in &steps {
            world.run(step);
            if world.pair.model.strayed {
                return Ok(());
            }
        }
        world.drain();
    }
}
