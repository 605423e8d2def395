//! Which file a lock is on: the table of locks, and the names and inodes that lead into it. Nothing here waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::mount::nodes::{Identity, Name};
use crate::mount::tree::Caller;
use crate::session::{Flocks, LockKey, LockMode, LockOwner, Locked, ProcId, Ticket};

use super::Writer;
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

/// What a change of a file's lock leads to.
pub struct Turn {
    /// The file.
    pub key: LockKey,
    /// Those whose waits are over, with their locks.
    pub woken: Vec<Waiting>,
    /// Some who still wait may hold up who has the lock: see [`Locks::in_the_way`].
    pub crowded: bool,
}

/// A handle that waits for a lock and may have a session still.
struct Kept {
    key: LockKey,
    writer: Arc<Writer>,
    /// Its session is just being given up. Where it is granted the lock meanwhile, that is put off until then.
    stepping: bool,
    /// Somebody else has let go of the lock since that began.
    turned: bool,
    granted: Option<Waiting>,
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
    /// A file with a coordinated name and an ordinary one is known by both.
    whose: HashMap<LockKey, Vec<Whose>>,
    /// An open file description stays with the file that it has locked, whatever becomes of the file's name.
    owners: HashMap<LockOwner, Held>,
    /// The waits, by ticket.
    pub waiting: HashMap<Ticket, Waiting>,
    kept: HashMap<Ticket, Kept>,
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
    ) -> (bool, Turn) {
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
        (granted, self.turn(key, woken))
    }

    /// Waits for a lock. The caller has just been told that it is not to be had, and nothing was let go of since.
    pub fn wait(&mut self, whose: &Whose, mode: LockMode, waiting: Waiting) -> Turn {
        let key = self.key_for(whose, waiting.owner);
        self.next += 1;
        let ticket = Ticket(self.next);
        self.table.wait(key, waiting.owner, mode, ticket);
        if let Holder::Writer(writer) = &waiting.holder {
            let kept = Kept {
                key,
                writer: Arc::clone(writer),
                stepping: false,
                turned: false,
                granted: None,
            };
            self.kept.insert(ticket, kept);
        }
        self.waiting.insert(ticket, waiting);
        self.turn(key, Vec::new())
    }

    /// Lets go of what an open file description has locked.
    pub fn unlock(&mut self, owner: LockOwner) -> Option<Turn> {
        let Held { key, .. } = self.owners.remove(&owner)?;
        let woken = self.table.unlock(key, owner);
        Some(self.turn(key, woken))
    }

    /// Gives up a wait; `None` when it is over already.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<(LockKey, Waiting)> {
        let key = self.table.cancel(ticket)?;
        self.forget_kept(ticket);
        self.settle(key);
        Some((key, self.waiting.remove(&ticket)?))
    }

    /// The waits for a file's lock by handles that may have a session, to be given up now: each is told of with [`Locks::stepped`] when that is done, or need not be.
    pub fn in_the_way(&mut self, key: LockKey) -> Vec<(Ticket, Arc<Writer>)> {
        let all = self
            .kept
            .iter_mut()
            .filter(|(_, kept)| kept.key == key && !kept.stepping);
        let begin = |(ticket, kept): (&Ticket, &mut Kept)| {
            (kept.stepping, kept.turned) = (true, false);
            (*ticket, Arc::clone(&kept.writer))
        };
        all.map(begin).collect()
    }

    /// The handle's session is given up, or not, because another handle of it has the lock; `again`: it had, and that has to be looked at once more. Returns the
    /// wait if it is over by now.
    pub fn stepped(&mut self, ticket: Ticket, gave_up: bool) -> (Option<Waiting>, bool) {
        let Some(kept) = self.kept.get_mut(&ticket) else {
            return (None, false);
        };
        kept.stepping = false;
        let (granted, again) = (kept.granted.take(), kept.turned && !gave_up);
        if gave_up || !self.waiting.contains_key(&ticket) {
            self.kept.remove(&ticket);
        }
        (granted, again)
    }

    /// Who waits for the locks of all other files than this one.
    pub fn waiting_elsewhere(&self, whose: &Whose) -> Vec<Caller> {
        let here = self.keys.get(whose).map(|key| self.table.line(*key).1);
        let is_here = |ticket: &Ticket| here.iter().flatten().any(|(other, _)| other == ticket);
        let elsewhere = self.waiting.iter().filter(|(ticket, _)| !is_here(ticket));
        elsewhere.map(|(_, waiting)| waiting.caller).collect()
    }

    /// Whose lock the open file description has, and by which process; the name of the file may be gone.
    pub fn held(&self, owner: LockOwner) -> Option<(Option<Whose>, ProcId)> {
        let held = self.owners.get(&owner)?;
        Some((self.first_of(held.key), held.process))
    }

    /// Whether it would lose the lock that it has: another is asked for, or none.
    pub fn changes(&self, owner: LockOwner, mode: Option<LockMode>) -> bool {
        let held = self.owners.get(&owner);
        held.is_some_and(|held| self.table.mode_of(held.key, owner) != mode)
    }

    /// What has the locks of this file.
    pub fn holders(&self, key: LockKey) -> Vec<Holder> {
        let owners = self.table.holders(key);
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
                whose: self.first_of(key),
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
        if let Some(key) = self.removed(old) {
            self.is_known_by(key, new);
        }
    }

    /// What is `known` is `also` that, unless that is locked already.
    pub fn is_one(&mut self, known: &Whose, also: Whose) {
        if let Some(key) = self.keys.get(known) {
            self.is_known_by(*key, also);
        }
    }

    /// The name is gone: who opens it next means another file.
    pub fn removed(&mut self, whose: &Whose) -> Option<LockKey> {
        let key = self.keys.remove(whose)?;
        if let Some(all) = self.whose.get_mut(&key) {
            all.retain(|other| other != whose);
        }
        Some(key)
    }

    fn is_known_by(&mut self, key: LockKey, whose: Whose) {
        if !self.keys.contains_key(&whose) {
            self.keys.insert(whose.clone(), key);
            self.whose.entry(key).or_default().push(whose);
        }
    }

    fn first_of(&self, key: LockKey) -> Option<Whose> {
        self.whose.get(&key)?.first().cloned()
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
        self.is_known_by(key, whose.clone());
        key
    }

    fn turn(&mut self, key: LockKey, tickets: Vec<Ticket>) -> Turn {
        let mut woken = Vec::new();
        for ticket in tickets {
            let Some(waiting) = self.waiting.remove(&ticket) else {
                continue;
            };
            let held = Held {
                key,
                holder: waiting.holder.clone(),
                process: waiting.process,
                uid: waiting.caller.uid,
                since: Instant::now(),
            };
            self.owners.insert(waiting.owner, held);
            match self.kept.get_mut(&ticket).filter(|kept| kept.stepping) {
                Some(kept) => kept.granted = Some(waiting),
                None => woken.push(waiting),
            }
            self.forget_kept(ticket);
        }
        self.settle(key);
        let mut crowded = false;
        for kept in self.kept.values_mut().filter(|kept| kept.key == key) {
            (kept.turned, crowded) = (true, crowded || !kept.stepping);
        }
        Turn { key, woken, crowded }
    }

    fn forget_kept(&mut self, ticket: Ticket) {
        if self.kept.get(&ticket).is_some_and(|kept| !kept.stepping) {
            self.kept.remove(&ticket);
        }
    }

    fn settle(&mut self, key: LockKey) {
        if self.table.is_idle(key) {
            for whose in self.whose.remove(&key).unwrap_or_default() {
                self.keys.remove(&whose);
            }
        }
    }
}
