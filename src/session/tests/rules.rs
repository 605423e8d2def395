//! One sentence a rule.

use super::pair::{Pair, opener, proc};
use crate::session::Admission::*;
use crate::session::Intent::*;
use crate::session::*;

const UNKNOWN: ProcId = ProcId { tgid: 0, unique: 0 };
const LONG: u64 = 1 << 40;

fn alone(n: u32) -> Opener {
    opener(proc(n), vec![])
}

fn child(n: u32, ancestors: &[u32]) -> Opener {
    opener(proc(n), ancestors.iter().map(|&a| proc(a)).collect())
}

fn started(n: u64) -> Admission {
    Start(SessionId(n))
}

impl Pair {
    fn at(&mut self, now: u64) -> &mut Pair {
        self.now = Millis(now);
        self
    }

    /// An open that waits without end, with a lease without end.
    fn wants(&mut self, file: u64, opener: &Opener, intent: Intent, ticket: u64) -> Admission {
        self.open(file, opener, intent, Patience::Until(Millis(LONG)), LONG, ticket)
    }
}

fn granted(ticket: u64, admission: Admission) -> Wake {
    Wake::Granted {
        ticket: Ticket(ticket),
        admission,
    }
}

fn refused(ticket: u64, why: Refusal) -> Wake {
    Wake::Refused {
        ticket: Ticket(ticket),
        why,
    }
}

#[test]
fn w1_a_free_file_starts_a_session_numbered_on_from_the_given_first() {
    let mut queue = Queue::new(SessionId(41));
    let mut open = |file, who| {
        queue.open(
            Millis(0),
            FileKey(file),
            &alone(who),
            Modify,
            Patience::NonBlock,
            Millis(1),
            Ticket(0),
        )
    };
    assert_eq!((open(1, 1), open(2, 2)), (started(41), started(42)));
}

#[test]
fn w1_strangers_wait_and_are_granted_one_at_a_time_in_order_of_arrival() {
    let mut p = Pair::new();
    assert_eq!(p.wants(1, &alone(1), Truncate, 1), started(1));
    assert_eq!(p.wants(1, &alone(2), Modify, 2), Wait);
    assert_eq!(p.wants(1, &alone(3), Instant, 3), Wait);
    assert_eq!(p.close(SessionId(1)), [granted(2, started(2))]);
    assert_eq!(p.close(SessionId(2)), [granted(3, started(3))]);
    assert_eq!(p.close(SessionId(3)), []);
    assert!(p.queue.is_idle(FileKey(1)));
}

#[test]
fn w1_a_session_that_is_not_open_any_more_can_be_closed_again_without_effect() {
    let mut p = Pair::new();
    p.wants(1, &alone(1), Truncate, 1);
    p.wants(1, &alone(2), Truncate, 2);
    p.close(SessionId(1));
    assert_eq!(p.close(SessionId(1)), []);
    assert_eq!(p.queue.sessions(FileKey(1)).count(), 1);
}

#[test]
fn w2_without_patience_it_would_block_and_leaves_no_trace() {
    let mut p = Pair::new();
    p.wants(1, &alone(1), Modify, 1);
    let refusal = p.open(1, &alone(2), Modify, Patience::NonBlock, LONG, 2);
    assert_eq!(refusal, Refuse(Refusal::WouldBlock));
    assert_eq!(p.close(SessionId(1)), []);
    assert_eq!(p.queue.files().count(), 0);
}

#[test]
fn w2_a_wait_ends_busy_at_its_deadline_and_not_before() {
    let mut p = Pair::new();
    p.wants(1, &alone(1), Modify, 1);
    p.open(1, &alone(2), Modify, Patience::Until(Millis(50)), LONG, 2);
    p.open(1, &alone(3), Modify, Patience::Until(Millis(40)), LONG, 3);
    assert_eq!(p.queue.next_deadline(), Some(Millis(40)));
    assert_eq!(p.at(39).tick(), []);
    assert_eq!(p.at(50).tick(), [refused(3, Refusal::Busy), refused(2, Refusal::Busy)]);
    assert_eq!(p.close(SessionId(1)), []);
}

#[test]
fn w2_a_cancelled_waiter_is_never_granted_and_may_be_cancelled_late() {
    let mut p = Pair::new();
    p.wants(1, &alone(1), Modify, 1);
    p.wants(1, &alone(2), Modify, 2);
    p.wants(1, &alone(3), Modify, 3);
    assert_eq!(p.cancel(Ticket(2)), []);
    assert_eq!(p.cancel(Ticket(2)), []);
    assert_eq!(p.close(SessionId(1)), [granted(3, started(2))]);
    assert_eq!(p.cancel(Ticket(3)), []);
    assert!(!p.queue.is_idle(FileKey(1)));
}

#[test]
fn w3_a_holder_and_its_descendants_never_wait_even_when_strangers_do() {
    let mut p = Pair::new();
    p.wants(1, &alone(1), Modify, 1);
    p.wants(1, &alone(9), Modify, 2);
    assert_eq!(p.wants(1, &alone(1), Truncate, 3), Private(SessionId(2)));
    assert_eq!(p.wants(1, &child(3, &[2, 1]), Truncate, 4), Private(SessionId(3)));
    assert_eq!(p.wants(1, &child(3, &[2, 1]), Instant, 5), Private(SessionId(4)));
    assert_eq!(
        p.open(1, &child(4, &[1]), Modify, Patience::NonBlock, LONG, 6),
        Join(SessionId(2))
    );
}

#[test]
fn w3_modify_joins_its_own_newest_session_first_and_then_its_nearest_ancestors() {
    let mut p = Pair::new();
    p.wants(1, &alone(1), Truncate, 1);
    p.wants(1, &child(2, &[1]), Truncate, 2);
    p.wants(1, &alone(1), Truncate, 3);
    p.wants(1, &child(3, &[2, 1]), Truncate, 4);
    assert_eq!(p.wants(1, &alone(1), Modify, 5), Join(SessionId(3)));
    assert_eq!(p.wants(1, &child(2, &[1]), Modify, 6), Join(SessionId(2)));
    assert_eq!(p.wants(1, &child(4, &[3, 2, 1]), Modify, 7), Join(SessionId(4)));
    assert_eq!(p.wants(1, &child(5, &[2, 1]), Modify, 8), Join(SessionId(2)));
}

#[test]
fn w3_nobody_joins_an_instant_session_for_it_has_no_shadow() {
    let mut p = Pair::new();
    p.wants(1, &alone(1), Truncate, 1);
    p.wants(1, &child(2, &[1]), Instant, 2);
    assert_eq!(p.wants(1, &child(2, &[1]), Modify, 3), Join(SessionId(1)));
    p.wants(2, &alone(1), Instant, 4);
    assert_eq!(p.wants(2, &alone(1), Modify, 5), Private(SessionId(4)));
}

#[test]
fn w3_who_inherits_a_session_is_its_lineage_with_all_descendants() {
    let mut p = Pair::new();
    p.wants(1, &alone(1), Truncate, 1);
    p.wants(1, &alone(9), Modify, 2);
    // Its parent is gone before it is known to have the descriptor.
    assert_eq!(p.wants(1, &child(3, &[2]), Modify, 3), Wait);
    assert_eq!(p.inherit(SessionId(1), proc(2)), [granted(3, Join(SessionId(1)))]);
    assert_eq!(p.wants(1, &alone(2), Modify, 4), Join(SessionId(1)));
    assert_eq!(p.wants(1, &alone(2), Truncate, 5), Private(SessionId(2)));
    assert_eq!(p.wants(1, &alone(1), Modify, 6), Join(SessionId(1)));
    assert_eq!(p.close(SessionId(1)), []);
    assert_eq!(p.close(SessionId(2)), [granted(2, started(3))]);
}

#[test]
fn w4_who_waits_for_a_session_waits_for_its_heir_too() {
    let mut p = Pair::new();
    p.wants(1, &alone(1), Truncate, 1);
    p.wants(2, &alone(9), Truncate, 2);
    assert_eq!(p.wants(2, &alone(2), Truncate, 3), Wait);
    assert_eq!(p.wants(1, &alone(9), Truncate, 4), Wait);
    assert_eq!(p.inherit(SessionId(1), proc(2)), [refused(4, Refusal::Deadlock)]);
    assert_eq!(p.close(SessionId(2)), [granted(3, started(3))]);
    p.wants(3, &alone(5), Truncate, 5);
    assert_eq!(p.wants(1, &alone(5), Truncate, 6), Wait);
    assert_eq!(p.wants(3, &alone(2), Truncate, 7), Refuse(Refusal::Deadlock));
}

#[test]
fn w3_the_parent_of_a_holder_is_a_stranger_to_its_session() {
    let mut p = Pair::new();
    p.wants(1, &child(2, &[1]), Modify, 1);
    assert_eq!(p.wants(1, &alone(1), Modify, 2), Wait);
    assert_eq!(p.wants(1, &child(3, &[1]), Modify, 3), Wait);
}

#[test]
fn w3_the_file_is_free_only_when_private_sessions_are_closed_too() {
    let mut p = Pair::new();
    p.wants(1, &alone(1), Truncate, 1);
    p.wants(1, &child(2, &[1]), Truncate, 2);
    p.wants(1, &alone(9), Truncate, 3);
    assert_eq!(p.close(SessionId(1)), []);
    assert_eq!(p.wants(1, &alone(1), Modify, 4), Wait);
    assert_eq!(p.close(SessionId(2)), [granted(3, started(3))]);
}

#[test]
fn w3_a_grant_takes_along_all_waiters_of_the_new_holders_lineage_in_order_of_arrival() {
    let mut p = Pair::new();
    p.wants(1, &alone(9), Truncate, 1);
    p.wants(1, &alone(1), Truncate, 2);
    p.wants(1, &alone(8), Truncate, 3);
    p.wants(1, &child(2, &[1]), Truncate, 4);
    p.wants(1, &alone(1), Modify, 5);
    p.wants(1, &child(2, &[1]), Modify, 6);
    let party = [
        granted(2, started(2)),
        granted(4, Private(SessionId(3))),
        granted(5, Join(SessionId(2))),
        granted(6, Join(SessionId(3))),
    ];
    assert_eq!(p.close(SessionId(1)), party);
    assert_eq!(p.close(SessionId(2)), []);
    assert_eq!(p.close(SessionId(3)), [granted(3, started(4))]);
}

#[test]
fn w4_the_open_that_closes_a_cycle_of_two_files_is_refused() {
    let mut p = Pair::new();
    p.wants(1, &alone(1), Modify, 1);
    p.wants(2, &alone(2), Modify, 2);
    assert_eq!(p.wants(2, &alone(1), Modify, 3), Wait);
    assert_eq!(p.wants(1, &alone(2), Modify, 4), Refuse(Refusal::Deadlock));
    assert_eq!(p.close(SessionId(2)), [granted(3, started(3))]);
}

#[test]
fn w4_a_cycle_over_many_files_is_seen() {
    let mut p = Pair::new();
    let n = 12;
    for i in 1..=n {
        p.wants(u64::from(i), &alone(i), Modify, u64::from(i));
    }
    for i in 1..n {
        assert_eq!(p.wants(u64::from(i) + 1, &alone(i), Modify, u64::from(100 + i)), Wait);
    }
    assert_eq!(p.wants(1, &alone(n), Modify, 200), Refuse(Refusal::Deadlock));
}

#[test]
fn w4_a_holder_is_blocked_when_its_descendant_waits() {
    let mut p = Pair::new();
    p.wants(1, &alone(1), Modify, 1);
    p.wants(2, &alone(9), Modify, 2);
    assert_eq!(p.wants(2, &child(3, &[2, 1]), Modify, 3), Wait);
    assert_eq!(p.wants(1, &alone(9), Modify, 4), Refuse(Refusal::Deadlock));
}

#[test]
fn w4_who_has_threads_goes_on_while_one_waits() {
    let mut p = Pair::new();
    p.wants(1, &alone(51), Modify, 1);
    p.wants(2, &alone(52), Modify, 2);
    assert_eq!(p.wants(2, &alone(51), Modify, 3), Wait);
    assert_eq!(p.wants(1, &alone(52), Modify, 4), Wait);
    assert_eq!(p.close(SessionId(1)), [granted(4, started(3))]);
}

#[test]
fn w4_who_has_threads_goes_on_while_its_child_waits_but_the_child_does_not() {
    let mut p = Pair::new();
    p.wants(1, &alone(51), Modify, 1);
    p.wants(2, &alone(9), Modify, 2);
    p.wants(3, &child(3, &[51]), Modify, 3);
    assert_eq!(p.wants(2, &child(3, &[51]), Modify, 4), Wait);
    assert_eq!(p.wants(1, &alone(9), Modify, 5), Wait);
    assert_eq!(p.wants(3, &alone(9), Modify, 6), Refuse(Refusal::Deadlock));
}

#[test]
fn w4_who_waited_with_threads_and_waits_again_without_is_looked_at() {
    let mut p = Pair::new();
    p.wants(1, &alone(9), Modify, 1);
    p.wants(2, &alone(1), Modify, 2);
    assert_eq!(p.wants(2, &alone(9), Modify, 3), Wait);
    let threaded = Opener {
        halted: vec![],
        ..alone(1)
    };
    assert_eq!(p.wants(1, &threaded, Modify, 4), Wait);
    assert_eq!(p.wants(1, &alone(1), Modify, 5), Refuse(Refusal::Deadlock));
}

#[test]
fn w4_a_cycle_through_a_waiter_further_ahead_in_line_is_refused_before_it_closes() {
    let mut p = Pair::new();
    p.wants(1, &alone(9), Modify, 1);
    p.wants(2, &alone(1), Modify, 2);
    // Process 2 waits with two threads: first in line for file 1, and for file 2, which process 1 holds.
    assert_eq!(p.wants(1, &alone(2), Modify, 3), Wait);
    assert_eq!(p.wants(2, &alone(2), Modify, 4), Wait);
    assert_eq!(p.wants(1, &alone(1), Modify, 5), Refuse(Refusal::Deadlock));
}

#[test]
fn w4_waiting_in_line_with_somebody_is_no_deadlock() {
    let mut p = Pair::new();
    p.wants(1, &alone(9), Modify, 1);
    p.wants(2, &alone(8), Modify, 2);
    assert_eq!(p.wants(1, &alone(1), Modify, 3), Wait);
    assert_eq!(p.wants(1, &alone(2), Modify, 4), Wait);
    assert_eq!(p.wants(2, &alone(1), Modify, 5), Wait);
    assert_eq!(p.wants(2, &alone(2), Modify, 6), Wait);
}

#[test]
fn w4_a_waiter_does_not_wait_for_a_stranger_between_it_and_its_own_kin() {
    let mut p = Pair::new();
    p.wants(1, &alone(9), Modify, 1);
    p.wants(2, &alone(1), Modify, 2);
    assert_eq!(p.wants(1, &alone(1), Modify, 3), Wait);
    assert_eq!(p.wants(2, &alone(5), Modify, 4), Wait);
    assert_eq!(p.wants(1, &alone(5), Modify, 5), Wait);
    // Process 5 waits for process 1, but this thread of process 1 does not wait for process 5: it goes in with ticket 3.
    assert_eq!(p.wants(1, &alone(1), Modify, 6), Wait);
    assert_eq!(
        p.close(SessionId(1)),
        [granted(3, started(3)), granted(6, Join(SessionId(3)))]
    );
}

#[test]
fn w4_a_cycle_that_closes_when_a_waiter_leaves_refuses_the_one_pushed_back() {
    let mut p = Pair::new();
    p.wants(1, &alone(9), Modify, 1);
    p.wants(2, &alone(1), Modify, 2);
    p.wants(1, &alone(1), Modify, 3);
    p.wants(2, &alone(5), Modify, 4);
    p.wants(1, &alone(5), Modify, 5);
    p.wants(1, &child(4, &[1]), Modify, 6);
    assert_eq!(p.cancel(Ticket(3)), [refused(6, Refusal::Deadlock)]);
}

#[test]
fn w4_a_wait_that_runs_out_together_with_its_kin_is_busy_not_deadlocked() {
    let mut p = Pair::new();
    p.wants(1, &alone(9), Modify, 1);
    p.wants(2, &alone(1), Modify, 2);
    p.open(1, &alone(1), Modify, Patience::Until(Millis(10)), LONG, 3);
    p.wants(2, &alone(5), Modify, 4);
    p.wants(1, &alone(5), Modify, 5);
    p.open(1, &alone(1), Modify, Patience::Until(Millis(10)), LONG, 6);
    p.open(1, &alone(1), Modify, Patience::Until(Millis(11)), LONG, 7);
    let ended = [
        refused(3, Refusal::Busy),
        refused(6, Refusal::Busy),
        refused(7, Refusal::Deadlock),
    ];
    assert_eq!(p.at(10).tick(), ended);
}

#[test]
fn an_unknown_process_is_nobodys_kin_and_not_even_its_own() {
    let mut p = Pair::new();
    let unknown = opener(UNKNOWN, vec![UNKNOWN]);
    assert_eq!(p.wants(1, &unknown, Modify, 1), started(1));
    assert_eq!(p.wants(1, &unknown, Modify, 2), Wait);
    assert_eq!(p.wants(1, &unknown, Modify, 3), Wait);
    assert_eq!(p.close(SessionId(1)), [granted(2, started(2))]);
    // With two files it waits too: nobody can tell whether that is a cycle.
    assert_eq!(p.wants(2, &unknown, Modify, 4), started(3));
    assert_eq!(p.wants(2, &unknown, Modify, 5), Wait);
}

#[test]
fn a_reused_pid_is_a_stranger() {
    let mut p = Pair::new();
    p.wants(1, &alone(1), Modify, 1);
    let later = ProcId { unique: 999, ..proc(1) };
    assert_eq!(p.wants(1, &opener(later, vec![]), Modify, 2), Wait);
}

#[test]
fn a_lease_runs_out_once_and_only_when_somebody_waits() {
    let mut p = Pair::new();
    let forever = Patience::Until(Millis(LONG));
    p.open(1, &alone(1), Modify, Patience::NonBlock, 100, 1);
    assert_eq!(p.queue.next_deadline(), None);
    assert_eq!(p.at(500).tick(), []);
    p.open(1, &alone(2), Modify, forever, 100, 2);
    assert_eq!(p.queue.next_deadline(), Some(Millis(100)));
    assert_eq!(p.tick(), [Wake::LeaseExpired { session: SessionId(1) }]);
    assert_eq!(p.at(600).tick(), []);
    assert_eq!(p.close(SessionId(1)), [granted(2, started(2))]);
    // The next holder's lease counts from its own start.
    p.open(1, &alone(3), Modify, forever, 100, 3);
    assert_eq!(p.queue.next_deadline(), Some(Millis(700)));
    assert_eq!(p.at(699).tick(), []);
    assert_eq!(p.at(700).tick(), [Wake::LeaseExpired { session: SessionId(2) }]);
}

#[test]
fn all_sessions_of_a_file_that_are_overdue_expire_in_one_tick() {
    let mut p = Pair::new();
    p.open(1, &alone(1), Truncate, Patience::NonBlock, 100, 1);
    p.open(1, &alone(1), Truncate, Patience::NonBlock, 100, 2);
    p.wants(1, &alone(2), Modify, 3);
    let expired = |n| Wake::LeaseExpired { session: SessionId(n) };
    assert_eq!(p.at(100).tick(), [expired(1), expired(2)]);
}

#[test]
fn a_waiter_that_leaves_stops_the_lease() {
    let mut p = Pair::new();
    p.open(1, &alone(1), Truncate, Patience::NonBlock, 100, 1);
    p.open(1, &alone(2), Modify, Patience::Until(Millis(100)), LONG, 2);
    assert_eq!(p.at(100).tick(), [refused(2, Refusal::Busy)]);
    assert_eq!(p.queue.next_deadline(), None);
}
