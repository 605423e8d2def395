//! Which file a lock is on: the table of locks, and the names and inodes that lead into it. Nothing here waits.

use std::collections::HashMap;
use std::time::Instant;

use crate::mount::nodes::{Identity, Name};
use crate::mount::tree::Caller;
use crate::session::{Flocks, LockKey, LockMode, LockOwner, Locked, ProcId, Ticket};

use super::flock::Holder;

/// What a file is known by, as far as locks are concerned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Whose {
    /// A coordinated file: whatever inode its name leads to.
    Name(Name),
    /// An ordinary file.
    Inode(Identity),
}

/// A flock(2) that waits.
pub struct Waiting {
    /// Who is in flock(2).
    pub caller: Caller,
    /// Its open file description.
    pub owner: LockOwner,
    /// What it has open.
    pub holder: Holder,
    /// Its process.
    pub process: ProcId,
    /// Since when it waits.
    pub since: Instant,
    /// With LOCK_NB: when the answer is no. See `NONBLOCK_PATIENCE`.
    pub until: Option<Instant>,
    /// Told how it ended.
    pub answer: super::Answer<()>,
}

/// A lock that an open file description has.
struct Held {
    key: LockKey,
    holder: Holder,
    process: ProcId,
    uid: u32,
    since: Instant,
}

/// Somebody who has a lock or waits for one.
#[derive(Debug, Clone)]
pub struct Party {
    /// Who called flock(2).
    pub process: ProcId,
    /// Its user.
    pub uid: u32,
    /// LOCK_SH or LOCK_EX.
    pub mode: LockMode,
    /// Since it has it, or waits.
    pub since: Instant,
}

/// The lock of one file.
pub struct Line {
    /// The file; nothing when its name is gone.
    pub whose: Option<Whose>,
    /// Those who have it.
    pub holders: Vec<Party>,
    /// Those who wait, first come first.
    pub waiting: Vec<Party>,
}

/// All locks of a mount, of coordinated files and of ordinary ones. Its lock is taken for moments only, and no other under it.
#[derive(Default)]
pub struct Locks {
    table: Flocks,
    keys: HashMap<Whose, LockKey>,
    whose: HashMap<LockKey, Whose>,
    /// An open file description stays with the file that it has locked, whatever becomes of the file's name.
    owners: HashMap<LockOwner, Held>,
    /// The waits, by ticket.
    pub waiting: HashMap<Ticket, Waiting>,
    next: u64,
}

impl Locks {
    /// Asks for a lock without waiting.
    pub fn try_lock(
        &mut self,
        whose: &Whose,
        owner: LockOwner,
        by: (&Holder, ProcId, u32),
        mode: LockMode,
    ) -> (bool, Vec<Waiting>) {
        let key = self.key_for(whose, owner);
        let Locked { granted, woken } = self.table.try_lock(key, owner, mode);
        if granted {
            let (holder, process, uid) = (by.0.clone(), by.1, by.2);
            let since = Instant::now();
            self.owners.insert(
                owner,
                Held {
                    key,
                    holder,
                    process,
                    uid,
                    since,
                },
            );
        } else {
            self.owners.remove(&owner);
        }
        let woken = self.woken(key, woken);
        self.settle(key);
        (granted, woken)
    }

    /// Waits for a lock. The caller has just been told that it is not to be had, and nothing was let go of since.
    pub fn wait(&mut self, whose: &Whose, mode: LockMode, waiting: Waiting) {
        let key = self.key_for(whose, waiting.owner);
        self.next += 1;
        let ticket = Ticket(self.next);
        self.table.wait(key, waiting.owner, mode, ticket);
        self.waiting.insert(ticket, waiting);
    }

    /// Lets go of what an open file description has locked. Returns those whose wait is over, with their locks.
    pub fn unlock(&mut self, owner: LockOwner) -> Vec<Waiting> {
        let Some(Held { key, .. }) = self.owners.remove(&owner) else {
            return Vec::new();
        };
        let woken = self.table.unlock(key, owner);
        let woken = self.woken(key, woken);
        self.settle(key);
        woken
    }

    /// Gives up a wait; `None` when it is over already.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<Waiting> {
        let key = self.table.cancel(ticket)?;
        self.settle(key);
        self.waiting.remove(&ticket)
    }

    /// Whether the open file description has a lock.
    pub fn holds(&self, owner: LockOwner) -> bool {
        self.owners.contains_key(&owner)
    }

    /// Whether it would lose the lock that it has: another is asked for, or none.
    pub fn changes(&self, owner: LockOwner, mode: Option<LockMode>) -> bool {
        let held = self.owners.get(&owner);
        held.is_some_and(|held| self.table.mode_of(held.key, owner) != mode)
    }

    /// What has the locks of this file.
    pub fn holders(&self, whose: &Whose) -> Vec<Holder> {
        let owners = self
            .keys
            .get(whose)
            .into_iter()
            .flat_map(|key| self.table.holders(*key));
        owners
            .filter_map(|owner| self.owners.get(&owner).map(|held| held.holder.clone()))
            .collect()
    }

    /// Every lock, for `status`.
    pub fn lines(&self) -> Vec<Line> {
        let line = |key: LockKey| {
            let (holders, waiting) = self.table.line(key);
            let held = holders.into_iter().filter_map(|(owner, mode)| {
                let held = self.owners.get(&owner)?;
                Some(Party {
                    process: held.process,
                    uid: held.uid,
                    mode,
                    since: held.since,
                })
            });
            let waits = waiting.into_iter().filter_map(|(ticket, mode)| {
                let waiting = self.waiting.get(&ticket)?;
                Some(Party {
                    process: waiting.process,
                    uid: waiting.caller.uid,
                    mode,
                    since: waiting.since,
                })
            });
            Line {
                whose: self.whose.get(&key).cloned(),
                holders: held.collect(),
                waiting: waits.collect(),
            }
        };
        let mut keys: Vec<LockKey> = self.table.keys().collect();
        keys.sort();
        keys.into_iter().map(line).collect()
    }

    /// What was `old` is `new` from now on. Where `new` is locked already, its own locks stay, and those of `old` are on a file that has no name.
    pub fn renamed(&mut self, old: &Whose, new: Whose) {
        let Some(key) = self.removed(old) else { return };
        if !self.keys.contains_key(&new) {
            self.keys.insert(new.clone(), key);
            self.whose.insert(key, new);
        }
    }

    /// The name is gone: who opens it next means another file.
    pub fn removed(&mut self, whose: &Whose) -> Option<LockKey> {
        let key = self.keys.remove(whose)?;
        self.whose.remove(&key);
        Some(key)
    }

    fn key_for(&mut self, whose: &Whose, owner: LockOwner) -> LockKey {
        if let Some(held) = self.owners.get(&owner) {
            return held.key;
        }
        if let Some(key) = self.keys.get(whose) {
            return *key;
        }
        self.next += 1;
        let key = LockKey(self.next);
        self.keys.insert(whose.clone(), key);
        self.whose.insert(key, whose.clone());
        key
    }

    fn woken(&mut self, key: LockKey, tickets: Vec<Ticket>) -> Vec<Waiting> {
        let woken: Vec<Waiting> = tickets
            .iter()
            .filter_map(|ticket| self.waiting.remove(ticket))
            .collect();
        for waiting in &woken {
            let held = Held {
                key,
                holder: waiting.holder.clone(),
                process: waiting.process,
                uid: waiting.caller.uid,
                since: Instant::now(),
            };
            self.owners.insert(waiting.owner, held);
        }
        woken
    }

    fn settle(&mut self, key: LockKey) {
        if self.table.is_idle(key)
            && let Some(whose) = self.whose.remove(&key)
        {
            self.keys.remove(&whose);
        }
    }
}
