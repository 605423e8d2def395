//! The parts that decide, without I/O: the queue of writers, the rules, and where lines end.

use std::hint::black_box;
use std::path::Path;

use concordfs::content::lines;
use concordfs::rules::Rules;
use concordfs::session::{FileKey, Intent, Millis, Opener, Patience, ProcId, Queue, SessionId, Ticket, Wake};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const FILE: FileKey = FileKey(1);
const LEASE: Millis = Millis(u64::MAX);

fn opener(tgid: u32) -> Opener {
    let process = |tgid| ProcId {
        tgid,
        unique: tgid.into(),
    };
    Opener {
        proc: process(tgid),
        // As deep as an agent's tool call is: init, shell, agent, shell.
        ancestors: [1, 2, 3, 4].map(process).to_vec(),
        halted: [tgid, 1, 2, 3, 4].map(process).to_vec(),
    }
}

/// A queue in which process 10 holds the file and `waiters` others wait for it, each for a turn of its own.
fn crowded(waiters: u32) -> (Queue, SessionId) {
    let mut queue = Queue::new(SessionId(1));
    let mut open = |tgid: u32| {
        let patience = Patience::Until(Millis(5_000));
        let mut opener = opener(tgid);
        opener.ancestors.clear();
        queue.open(
            Millis(0),
            FILE,
            &opener,
            Intent::Truncate,
            patience,
            LEASE,
            Ticket(tgid.into()),
        )
    };
    for tgid in 10..=10 + waiters {
        open(tgid);
    }
    let holder = queue.sessions(FILE).next().expect("the first one has it").id;
    (queue, holder)
}

fn queue(c: &mut Criterion) {
    c.bench_function("queue: open and close a free file", |b| {
        let (mut queue, opener) = (Queue::new(SessionId(1)), opener(10));
        b.iter(|| {
            queue.open(
                Millis(0),
                FILE,
                &opener,
                Intent::Truncate,
                Patience::NonBlock,
                LEASE,
                Ticket(1),
            );
            let session = queue.sessions(FILE).next().expect("it was free").id;
            black_box(queue.close(Millis(1), session))
        });
    });
    for waiters in [10, 100, 1000] {
        c.bench_function(&format!("queue: {waiters} waiters have their turns"), |b| {
            let turns = |(mut queue, mut holder): (Queue, SessionId)| {
                while let [Wake::Granted { .. }, ..] = *queue.close(Millis(1), holder) {
                    holder = queue.sessions(FILE).next().expect("somebody was granted it").id;
                }
            };
            b.iter_batched(|| crowded(waiters), turns, BatchSize::SmallInput);
        });
    }
}

fn rules(c: &mut Criterion) {
    let rules = Rules::builtin();
    for path in [
        "STATE.md",
        "src/mount/coordinated/files.rs",
        "node_modules/a/b/package.json",
    ] {
        c.bench_function(&format!("rules: {path}"), |b| {
            b.iter(|| black_box(rules.policy(black_box(Path::new(path)))).is_some());
        });
    }
}

fn content(c: &mut Criterion) {
    let line = [&[b'x'; 4095][..], b"\n"].concat();
    c.bench_function("lines: split 4 KiB that end a line", |b| {
        b.iter(|| black_box(lines::split(black_box(&line))).0.len());
    });
}

criterion_group!(benches, queue, rules, content);
criterion_main!(benches);
