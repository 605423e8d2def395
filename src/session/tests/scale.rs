//! Ten thousand waiters on one file. No clock is looked at: a quadratic step would make these tests take minutes.

use super::pair::proc;
use crate::session::*;

const MANY: u32 = 10_000;
const FILE: FileKey = FileKey(7);

/// With one thread, whatever its number.
fn opener(n: u32) -> Opener {
    let ancestors: Vec<ProcId> = (1..=8).map(proc).collect();
    let halted = std::iter::once(proc(n)).chain(ancestors.clone()).collect();
    Opener {
        proc: proc(n),
        ancestors,
        halted,
    }
}

fn wait(queue: &mut Queue, file: FileKey, opener: &Opener, until: u64, ticket: u64) -> Admission {
    queue.open(
        Millis(0),
        file,
        opener,
        Intent::Modify,
        Patience::Until(Millis(until)),
        Millis(1),
        Ticket(ticket),
    )
}

/// One holder, and in line behind it whoever `who` says.
fn crowd(who: impl Fn(u32) -> u32) -> Queue {
    let mut queue = Queue::new(SessionId(1));
    assert!(matches!(wait(&mut queue, FILE, &opener(99), 1, 0), Admission::Start(_)));
    for n in 0..MANY {
        assert_eq!(
            wait(&mut queue, FILE, &opener(who(n)), 5000, u64::from(n)),
            Admission::Wait
        );
    }
    queue
}

#[test]
fn ten_thousand_processes_queue_and_are_served_one_by_one() {
    let mut queue = crowd(|n| 1000 + n);
    for n in 1..=u64::from(MANY) {
        assert_eq!(queue.close(Millis(1), SessionId(n)).len(), 1);
    }
    queue.close(Millis(1), SessionId(u64::from(MANY) + 1));
    assert!(queue.is_idle(FILE) && queue.keeps_nothing_stale());
}

#[test]
fn ten_thousand_waits_run_out_together_or_one_after_another() {
    let mut queue = crowd(|n| 1000 + n);
    assert_eq!(queue.tick(Millis(5000)).len(), MANY as usize);
    let mut queue = crowd(|n| 1000 + n % 2);
    assert_eq!(queue.tick(Millis(5000)).len(), MANY as usize);
}

#[test]
fn ten_thousand_threads_of_one_process_leave_one_by_one_or_enter_together() {
    let mut queue = crowd(|_| 1000);
    for n in 0..u64::from(MANY) / 2 {
        assert_eq!(queue.cancel(Millis(1), Ticket(n)), []);
    }
    assert_eq!(queue.close(Millis(1), SessionId(1)).len(), MANY as usize / 2);
    assert!(queue.keeps_nothing_stale());
}

#[test]
fn ten_thousand_holders_of_other_files_queue_for_one() {
    let mut queue = Queue::new(SessionId(1));
    wait(&mut queue, FILE, &opener(99), 1, 0);
    for n in 0..MANY {
        let own = FileKey(u64::from(1000 + n));
        wait(&mut queue, own, &opener(1000 + n), 5000, 0);
        // Somebody waits for each of them, so each open has something to search.
        assert_eq!(
            wait(&mut queue, own, &opener(100_000 + n), 5000, u64::from(2 * n + 1)),
            Admission::Wait
        );
        assert_eq!(
            wait(&mut queue, FILE, &opener(1000 + n), 5000, u64::from(2 * n + 2)),
            Admission::Wait
        );
    }
    let one_of_those_waited_for = wait(&mut queue, FileKey(1001), &opener(99), 5000, u64::MAX);
    assert_eq!(one_of_those_waited_for, Admission::Refuse(Refusal::Deadlock));
}
