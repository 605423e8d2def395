//! The lock table against a model that knows one file and says only what must be true.

use proptest::prelude::*;

use crate::session::{Flocks, LockKey, LockMode, LockOwner, Ticket};

const FILE: LockKey = LockKey(1);

fn owner(number: u64) -> LockOwner {
    LockOwner(number)
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// LOCK_SH or LOCK_EX; waits, if it may and must.
    Lock(u64, LockMode, bool),
    Unlock(u64),
    /// The wait that began at this place among those that there are.
    Cancel(usize),
}

/// What each owner holds, and who waits, first come first.
#[derive(Debug, Default)]
struct Model {
    held: Vec<(u64, LockMode)>,
    waiting: Vec<(Ticket, u64, LockMode)>,
}

impl Model {
    fn fits(&self, who: u64, mode: LockMode) -> bool {
        let others = self.held.iter().filter(|(holder, _)| *holder != who);
        match mode {
            LockMode::Exclusive => others.count() == 0,
            LockMode::Shared => others.clone().all(|(_, held)| *held == LockMode::Shared),
        }
    }

    fn take(&mut self, who: u64, mode: LockMode) {
        self.held.retain(|(holder, _)| *holder != who);
        self.held.push((who, mode));
    }

    fn wake(&mut self) -> Vec<Ticket> {
        let mut woken = Vec::new();
        let mut place = 0;
        while place < self.waiting.len() {
            let (ticket, who, mode) = self.waiting[place];
            place += 1;
            if self.fits(who, mode) {
                self.take(who, mode);
                self.waiting.remove(place - 1);
                woken.push(ticket);
                place = 0;
            }
        }
        woken
    }
}

fn mode() -> impl Strategy<Value = LockMode> {
    prop_oneof![Just(LockMode::Shared), Just(LockMode::Exclusive)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..5u64, mode(), any::<bool>()).prop_map(|(who, mode, waits)| Step::Lock(who, mode, waits)),
        3 => (0..5u64).prop_map(Step::Unlock),
        1 => any::<prop::sample::Index>().prop_map(|i| Step::Cancel(i.index(100))),
    ]
}

proptest! {
    #[test]
    fn locks_are_granted_as_the_model_says(steps in prop::collection::vec(step(), 1..60)) {
        let (mut table, mut model) = (Flocks::default(), Model::default());
        for (number, step) in steps.into_iter().enumerate() {
            let ticket = Ticket(number as u64);
            match step {
                Step::Lock(who, mode, waits) => {
                    let same = model.held.contains(&(who, mode));
                    if !same {
                        model.held.retain(|(holder, _)| *holder != who);
                    }
                    let fits = model.fits(who, mode);
                    if fits && !same {
                        model.take(who, mode);
                    }
                    let woken = if same { Vec::new() } else { model.wake() };
                    let locked = table.try_lock(FILE, owner(who), mode);
                    prop_assert_eq!(locked.granted, fits);
                    prop_assert_eq!(locked.woken, woken);
                    if !fits && waits {
                        table.wait(FILE, owner(who), mode, ticket);
                        model.waiting.push((ticket, who, mode));
                    }
                }
                Step::Unlock(who) => {
                    model.held.retain(|(holder, _)| *holder != who);
                    prop_assert_eq!(table.unlock(FILE, owner(who)), model.wake());
                }
                Step::Cancel(place) if place < model.waiting.len() => {
                    let (ticket, ..) = model.waiting.remove(place);
                    prop_assert_eq!(table.cancel(ticket), Some(FILE));
                    prop_assert_eq!(table.cancel(ticket), None);
                }
                Step::Cancel(_) => {}
            }
            let exclusive = model.held.iter().filter(|(_, mode)| *mode == LockMode::Exclusive).count();
            prop_assert!(exclusive == 0 || model.held.len() == 1, "never two with an exclusive one");
            for who in 0..5 {
                let held = model.held.iter().find(|(holder, _)| *holder == who).map(|(_, mode)| *mode);
                prop_assert_eq!(table.mode_of(FILE, owner(who)), held);
            }
            prop_assert!(!model.waiting.iter().any(|(_, who, mode)| model.fits(*who, *mode)), "nobody waits for nothing");
            prop_assert_eq!(table.is_idle(FILE), model.held.is_empty() && model.waiting.is_empty());
        }
    }
}

#[test]
fn an_upgrade_that_must_wait_has_let_go() {
    let mut table = Flocks::default();
    assert!(table.try_lock(FILE, owner(1), LockMode::Shared).granted);
    assert!(table.try_lock(FILE, owner(2), LockMode::Shared).granted);
    assert!(!table.try_lock(FILE, owner(1), LockMode::Exclusive).granted);
    table.wait(FILE, owner(1), LockMode::Exclusive, Ticket(1));
    assert_eq!(table.mode_of(FILE, owner(1)), None);
    let second = table.try_lock(FILE, owner(2), LockMode::Exclusive);
    assert!(second.granted, "the first one's shared lock is gone");
    assert_eq!(table.unlock(FILE, owner(2)), [Ticket(1)]);
}

#[test]
fn who_waits_is_served_in_order_of_arrival() {
    let mut table = Flocks::default();
    assert!(table.try_lock(FILE, owner(0), LockMode::Exclusive).granted);
    for number in 1..=3 {
        assert!(!table.try_lock(FILE, owner(number), LockMode::Exclusive).granted);
        table.wait(FILE, owner(number), LockMode::Exclusive, Ticket(number));
    }
    for number in 0..3 {
        assert_eq!(table.unlock(FILE, owner(number)), [Ticket(number + 1)]);
    }
    assert_eq!(table.unlock(FILE, owner(3)), []);
    assert!(table.is_idle(FILE));
}
