//! Whole-file locks as flock(2) has them (contract, W12): who holds, who waits. Pure, like the queue of writers.
//!
//! A lock belongs to an open file description, the *owner*. What the kernel does with its own (fs/locks.c, flock_lock_inode) is the measure:
//! a lock is granted unless another *holder's* conflicts, whoever waits; to have a lock converted is to lose it first, so that a conversion that
//! must wait, or is refused, has let go of what it had. Who waits is looked at in order of arrival whenever a lock goes.

use std::collections::HashMap;

use super::Ticket;

/// A file that locks are kept for, numbered by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockKey(pub u64);

/// An open file description, by a number that no other one ever has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockOwner(pub u64);

/// LOCK_SH or LOCK_EX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LockMode {
    /// Beside other shared ones.
    Shared,
    /// Alone.
    Exclusive,
}

/// What comes of asking for a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    /// It is held; otherwise somebody else's is in the way.
    pub granted: bool,
    /// Those whose waits are over because the owner lost what it had before.
    pub woken: Vec<Ticket>,
}

/// Who has or wants which lock.
pub type Parties<Who> = Vec<(Who, LockMode)>;

#[derive(Debug, Clone)]
struct Waiter {
    ticket: Ticket,
    owner: LockOwner,
    mode: LockMode,
}

#[derive(Debug, Clone, Default)]
struct Line {
    holders: Vec<(LockOwner, LockMode)>,
    waiters: Vec<Waiter>,
}

/// All locks and all waits for locks. A file without either takes no memory.
#[derive(Debug, Clone, Default)]
pub struct Flocks {
    lines: HashMap<LockKey, Line>,
    tickets: HashMap<Ticket, LockKey>,
}

impl Flocks {
    /// Asks for a lock without waiting. An owner that has one of the other mode loses it first, also when the answer is no.
    pub fn try_lock(&mut self, key: LockKey, owner: LockOwner, mode: LockMode) -> Locked {
        let line = self.lines.entry(key).or_default();
        if line.mode_of(owner) == Some(mode) {
            return Locked {
                granted: true,
                woken: Vec::new(),
            };
        }
        line.remove(owner);
        let granted = line.fits(owner, mode);
        if granted {
            line.hold(owner, mode);
        }
        let woken = self.wake(key);
        Locked { granted, woken }
    }

    /// Waits for a lock, behind those who wait already. The caller has just been told that it is not to be had.
    pub fn wait(&mut self, key: LockKey, owner: LockOwner, mode: LockMode, ticket: Ticket) {
        self.tickets.insert(ticket, key);
        let line = self.lines.entry(key).or_default();
        line.waiters.push(Waiter { ticket, owner, mode });
    }

    /// The owner lets go of its lock, if it has one. Returns the waits that this ends, in order of arrival.
    pub fn unlock(&mut self, key: LockKey, owner: LockOwner) -> Vec<Ticket> {
        if let Some(line) = self.lines.get_mut(&key) {
            line.remove(owner);
        }
        self.wake(key)
    }

    /// A wait is given up; returns what it was for. `None`: it was over already.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<LockKey> {
        let key = self.tickets.remove(&ticket)?;
        if let Some(line) = self.lines.get_mut(&key) {
            line.waiters.retain(|waiter| waiter.ticket != ticket);
        }
        self.settle(key);
        Some(key)
    }

    /// What the owner holds.
    pub fn mode_of(&self, key: LockKey, owner: LockOwner) -> Option<LockMode> {
        self.lines.get(&key)?.mode_of(owner)
    }

    /// Who holds the file's lock.
    pub fn holders(&self, key: LockKey) -> impl Iterator<Item = LockOwner> {
        let line = self.lines.get(&key).into_iter();
        line.flat_map(|line| line.holders.iter().map(|(owner, _)| *owner))
    }

    /// Who has the file's lock, and who waits for it, first come first.
    pub fn line(&self, key: LockKey) -> (Parties<LockOwner>, Parties<Ticket>) {
        let Some(line) = self.lines.get(&key) else {
            return (Vec::new(), Vec::new());
        };
        let waiting = line.waiters.iter().map(|waiter| (waiter.ticket, waiter.mode));
        (line.holders.clone(), waiting.collect())
    }

    /// The files that are locked.
    pub fn keys(&self) -> impl Iterator<Item = LockKey> {
        self.lines.keys().copied()
    }

    /// Whether nobody has a lock on the file or waits for one.
    pub fn is_idle(&self, key: LockKey) -> bool {
        !self.lines.contains_key(&key)
    }

    fn wake(&mut self, key: LockKey) -> Vec<Ticket> {
        let mut woken = Vec::new();
        if let Some(line) = self.lines.get_mut(&key) {
            // Again from the first: two threads may wait for one owner, and what the second gets is less than what the first had.
            while let Some(next) = line
                .waiters
                .iter()
                .position(|waiter| line.fits(waiter.owner, waiter.mode))
            {
                let waiter = line.waiters.remove(next);
                line.hold(waiter.owner, waiter.mode);
                woken.push(waiter.ticket);
            }
        }
        for ticket in &woken {
            self.tickets.remove(ticket);
        }
        self.settle(key);
        woken
    }

    fn settle(&mut self, key: LockKey) {
        if let Some(line) = self.lines.get(&key)
            && line.holders.is_empty()
            && line.waiters.is_empty()
        {
            self.lines.remove(&key);
        }
    }
}

impl Line {
    fn mode_of(&self, owner: LockOwner) -> Option<LockMode> {
        let mut held = self.holders.iter();
        held.find(|(holder, _)| *holder == owner).map(|(_, mode)| *mode)
    }

    fn remove(&mut self, owner: LockOwner) {
        self.holders.retain(|(holder, _)| *holder != owner);
    }

    fn fits(&self, owner: LockOwner, mode: LockMode) -> bool {
        let conflicts = |(holder, held): &(LockOwner, LockMode)| {
            *holder != owner && (mode == LockMode::Exclusive || *held == LockMode::Exclusive)
        };
        !self.holders.iter().any(conflicts)
    }

    /// Another thread of the same owner may have got a lock of another mode meanwhile: that one is replaced.
    fn hold(&mut self, owner: LockOwner, mode: LockMode) {
        self.remove(owner);
        self.holders.push((owner, mode));
    }
}
