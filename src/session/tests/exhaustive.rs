//! All interleavings of small scripts, with cancels and the passing of time in between, on queue and model.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::pair::{Pair, opener, proc};
use crate::session::Intent::*;
use crate::session::*;

/// One step of a thread. `Open` on a file for ever; `Short` the same, but it waits 10 ms only; `Try` not at all.
/// `Close` ends all that the thread opened on the file.
#[derive(Debug, Clone, Copy)]
enum Op {
    Open(u64, Intent),
    Short(u64, Intent),
    Try(u64, Intent),
    Close(u64),
}
use Op::*;

struct Thread {
    who: Opener,
    script: Vec<Op>,
}

fn thread(who: &[u32], script: &[Op]) -> Thread {
    Thread {
        who: opener(proc(who[0]), who[1..].iter().map(|&p| proc(p)).collect()),
        script: script.to_vec(),
    }
}

/// Where a run stands. `at` is each thread's next step; `has` what it has open.
#[derive(Clone)]
struct Run {
    pair: Pair,
    at: Vec<usize>,
    waits: Vec<bool>,
    has: Vec<Vec<(u64, SessionId)>>,
    cancels: usize,
    ticks: usize,
    /// Opens refused with `Deadlock`.
    deadlocks: usize,
}

const FOREVER: u64 = 1 << 40;
const LEASE: u64 = 15;

impl Run {
    fn ticket(&self, t: usize) -> Ticket {
        Ticket((t * 100 + self.at[t]) as u64)
    }

    fn open(&mut self, t: usize, who: &Opener, file: u64, intent: Intent, patience: Patience) {
        let ticket = self.ticket(t).0;
        let lease = if intent == Truncate { LEASE } else { FOREVER };
        match self.pair.open(file, who, intent, patience, lease, ticket) {
            Admission::Wait => self.waits[t] = true,
            admission => self.answered(t, file, intent, admission),
        }
    }

    /// The thread's open has its answer: an instant session is closed at once, as the caller does.
    fn answered(&mut self, t: usize, file: u64, intent: Intent, admission: Admission) {
        self.at[t] += 1;
        match admission {
            Admission::Start(id) | Admission::Private(id) if intent == Instant => self.close(id),
            Admission::Start(id) | Admission::Private(id) | Admission::Join(id) => self.has[t].push((file, id)),
            Admission::Refuse(Refusal::Deadlock) => self.deadlocks += 1,
            _ => {}
        }
    }

    /// One handle less; the session is closed with the last one.
    fn close(&mut self, id: SessionId) {
        if !self.has.iter().flatten().any(|(_, held)| *held == id) {
            let wakes = self.pair.close(id);
            self.woken(&wakes);
        }
    }

    fn woken(&mut self, wakes: &[Wake]) {
        for wake in wakes {
            if self.pair.model.strayed {
                return;
            }
            match *wake {
                Wake::Granted { ticket, admission } => {
                    let t = (ticket.0 / 100) as usize;
                    self.waits[t] = false;
                    let session = self
                        .pair
                        .model
                        .held
                        .iter()
                        .find(|(_, h)| admission_of(admission) == Some(h.id));
                    // A zero-length session that came along may be over before its partner is told.
                    let (file, intent) = session
                        .map(|(f, h)| (f.0, h.intent))
                        .expect("a granted session is open");
                    let joined = matches!(admission, Admission::Join(_));
                    self.answered(t, file, if joined { Modify } else { intent }, admission);
                }
                Wake::Refused { ticket, .. } => self.skipped((ticket.0 / 100) as usize),
                Wake::LeaseExpired { session } => {
                    self.has.iter_mut().for_each(|has| has.retain(|(_, id)| *id != session));
                    self.close(session);
                }
            }
        }
    }

    fn skipped(&mut self, t: usize) {
        self.waits[t] = false;
        self.at[t] += 1;
    }

    fn step(&mut self, t: usize, thread: &Thread) {
        let until = |n| Patience::Until(Millis(n));
        match thread.script[self.at[t]] {
            Open(file, intent) => self.open(t, &thread.who, file, intent, until(FOREVER)),
            Short(file, intent) => self.open(t, &thread.who, file, intent, until(self.pair.now.0 + 10)),
            Try(file, intent) => self.open(t, &thread.who, file, intent, Patience::NonBlock),
            Close(file) => {
                self.at[t] += 1;
                let (gone, kept) = self.has[t].iter().partition(|(f, _)| *f == file);
                self.has[t] = kept;
                let gone: Vec<(u64, SessionId)> = gone;
                gone.iter().for_each(|(_, id)| self.close(*id));
            }
        }
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (
            &self.pair.model,
            self.pair.now,
            &self.at,
            &self.waits,
            &self.has,
            self.cancels,
            self.ticks,
        )
            .hash(&mut hasher);
        hasher.finish()
    }
}

fn admission_of(admission: Admission) -> Option<SessionId> {
    match admission {
        Admission::Start(id) | Admission::Private(id) | Admission::Join(id) => Some(id),
        _ => None,
    }
}

/// What all interleavings together ran into.
#[derive(Default, Debug)]
struct Seen {
    states: usize,
    deadlocks: usize,
    deadlocks_at_leave: usize,
    ends: usize,
}

fn explore(threads: &[Thread], cancels: usize, ticks: usize) -> Seen {
    let n = threads.len();
    let start = Run {
        pair: Pair::new(),
        at: vec![0; n],
        waits: vec![false; n],
        has: vec![vec![]; n],
        cancels,
        ticks,
        deadlocks: 0,
    };
    let (mut todo, mut known, mut seen) = (vec![start], HashSet::new(), Seen::default());
    while let Some(run) = todo.pop() {
        if !known.insert(run.fingerprint()) {
            continue;
        }
        if run.pair.model.strayed {
            continue;
        }
        seen.states += 1;
        seen.deadlocks += run.deadlocks;
        let mut next = vec![];
        for (t, thread) in threads.iter().enumerate() {
            if run.waits[t] && run.cancels > 0 {
                let mut after = run.clone();
                after.cancels -= 1;
                let ticket = after.ticket(t);
                after.skipped(t);
                let wakes = after.pair.cancel(ticket);
                seen.deadlocks_at_leave += wakes.len();
                after.woken(&wakes);
                next.push(after);
            } else if !run.waits[t] && run.at[t] < thread.script.len() {
                let mut after = run.clone();
                after.step(t, thread);
                next.push(after);
            }
        }
        // Somebody can always go on, or all are done: that is what no deadlock means.
        let stuck = next.is_empty() && run.waits.contains(&true);
        assert!(!stuck, "nobody can go on: {:#?}", run.pair);
        seen.ends += usize::from(next.is_empty());
        if let (Some(at), true) = (run.pair.queue.next_deadline(), run.ticks > 0) {
            let mut after = run.clone();
            after.ticks -= 1;
            after.pair.now = at.max(run.pair.now);
            let wakes = after.pair.tick();
            after.woken(&wakes);
            next.push(after);
        }
        todo.append(&mut next);
    }
    seen
}

/// The relations that three or four threads can stand in: strangers, parent and child, threads of one process.
fn families() -> Vec<[&'static [u32]; 3]> {
    vec![
        [&[1], &[2], &[3]],
        [&[1], &[2, 1], &[3]],
        [&[1], &[2, 1], &[3, 2, 1]],
        [&[1], &[1], &[2]],
        [&[2, 1], &[3, 1], &[4]],
    ]
}

fn scripts() -> Vec<Vec<Op>> {
    vec![
        vec![Open(1, Truncate), Open(2, Modify), Close(1), Close(2)],
        vec![Open(2, Modify), Open(1, Modify), Close(2), Close(1)],
        vec![Try(1, Modify), Open(1, Truncate), Close(1), Open(2, Instant)],
        vec![Short(2, Truncate), Short(1, Truncate), Close(1), Close(2)],
    ]
}

#[test]
fn all_interleavings_of_three_threads_on_two_files_follow_the_model() {
    let mut states = 0;
    for family in families() {
        for pick in triples(scripts().len()) {
            let threads: Vec<Thread> = (0..3).map(|t| thread(family[t], &scripts()[pick[t]])).collect();
            // Time passes in those runs only that lead with the script that minds it: the others would say no more.
            states += explore(&threads, 0, usize::from(pick[0] == 3 && pick[1] < pick[2])).states;
        }
    }
    println!("{states} states");
    assert!(states > 50_000, "{states} states");
}

fn triples(n: usize) -> Vec<[usize; 3]> {
    (0..n * n * n).map(|i| [i / n / n, i / n % n, i % n]).collect()
}

#[test]
fn all_interleavings_of_four_processes_on_three_files_with_a_cancel_follow_the_model() {
    let script = |a, b| vec![Open(a, Truncate), Open(b, Modify), Close(a), Close(b)];
    for who in [[&[1][..], &[2], &[3], &[4]], [&[1], &[2, 1], &[3], &[4, 3]]] {
        let order = [(1, 2), (2, 3), (3, 1), (1, 3)];
        let threads: Vec<Thread> = (0..4)
            .map(|t| thread(who[t], &script(order[t].0, order[t].1)))
            .collect();
        let seen = explore(&threads, 1, 0);
        println!("{seen:?}");
        assert!(seen.states > 1000 && seen.ends > 0, "{seen:?}");
    }
}

#[test]
fn all_interleavings_in_which_leaving_closes_a_cycle_follow_the_model() {
    // Process 1 holds file 2 and has a thread and a child in line for file 1; process 3 waits for both.
    let threads = [
        thread(&[9], &[Open(1, Truncate), Close(1)]),
        thread(&[1], &[Open(2, Modify), Close(2)]),
        thread(&[1], &[Open(1, Modify), Close(1)]),
        thread(&[2, 1], &[Short(1, Truncate), Close(1)]),
        thread(&[3], &[Open(1, Truncate), Close(1)]),
        thread(&[3], &[Open(2, Modify), Close(2)]),
    ];
    let seen = explore(&threads, 1, 1);
    println!("{seen:?}");
    assert!(seen.deadlocks_at_leave > 0, "{seen:?}");
}

#[test]
fn all_interleavings_of_two_programs_with_a_thread_for_each_of_two_files_are_no_deadlock() {
    let save = |file| vec![Open(file, Truncate), Close(file)];
    // The same process twice, and a program with threads whose child saves the other file.
    for [a, b] in [[&[51][..], &[51]], [&[51], &[1, 51]]] {
        let threads = [
            thread(a, &save(1)),
            thread(b, &save(2)),
            thread(&[52], &save(2)),
            thread(&[52], &save(1)),
        ];
        let seen = explore(&threads, 1, 0);
        println!("{seen:?}");
        assert!(
            seen.ends > 0 && seen.deadlocks + seen.deadlocks_at_leave == 0,
            "{seen:?}"
        );
    }
}

#[test]
fn all_interleavings_with_children_of_a_program_with_threads_follow_the_model() {
    let both = |a, b| vec![Open(a, Truncate), Open(b, Modify), Close(a), Close(b)];
    let threads = [
        thread(&[51], &[Open(1, Truncate), Close(1)]),
        thread(&[1, 51], &both(1, 2)),
        thread(&[2, 51], &both(2, 3)),
        thread(&[3], &both(3, 1)),
    ];
    let seen = explore(&threads, 1, 0);
    println!("{seen:?}");
    assert!(seen.ends > 0 && seen.deadlocks > 0, "{seen:?}");
}
