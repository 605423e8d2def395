//! W12 and R2 in the reference model: flock(2), who has which lock, and what becomes of sessions with it.

use super::locks::Whose;
use super::ops::{Do, Lock, Name, RW};
use super::permissions::{READ, WRITE};
use super::puppets::Answer;
use super::queue::Admission;
use super::world::{Did, Expected, Inode, Kind, Pending, Pid, Place, Sid, Stage, What, World};

fn errno(name: &str) -> Expected {
    Expected::Is(Answer::errno(name))
}

fn done() -> Expected {
    Expected::Is(Answer::Done)
}

impl World {
    /// Who is in a system call with a description, or has written to a node that the kernel keeps locked meanwhile, is in the way of others.
    pub fn is_in_the_way(&self, by: usize, what: &Do) -> bool {
        let stands_apart = |name: &Name| {
            let name = &self.home(*name);
            let mut apart = self
                .sessions
                .iter()
                .filter(|session| session.stepped_back && session.name == *name);
            apart.any(|session| session.stage == Stage::Open && self.lineage(by).contains(&session.owner))
        };
        let writes = self.writes_waiting();
        match what {
            // What it finds there is said nowhere but of itself.
            Do::Open(_, name, how) => stands_apart(name) || (how.truncate && !writes.is_empty()),
            Do::Truncate(name, _)
            | Do::Chmod(name, _)
            | Do::Chown(name, ..)
            | Do::Acl(name, ..)
            | Do::NoAcl(name)
            | Do::Touch(name)
            | Do::Utime(name, _) => stands_apart(name) || !writes.is_empty(),
            Do::Rename(..) | Do::Exchange(..) | Do::Link(..) | Do::Unlink(_) => !writes.is_empty(),
            Do::Write(slot, _)
            | Do::Pwrite(slot, ..)
            | Do::Ftruncate(slot, _)
            | Do::Futime(slot, _)
            | Do::Fsync(slot) => {
                let Some(slot) = self.slot(by, *slot) else { return false };
                !writes.is_empty() || self.is_used_in_a_wait(slot.description)
            }
            Do::Flock(slot, _) => {
                let Some(slot) = self.slot(by, *slot) else { return false };
                // What has a mapping lives on with its lock when it is closed; and what was stored through one and not written yet is no write.
                !self.locked().is_empty()
                    || self.is_mapped(slot.description)
                    || self.is_used_in_a_wait(slot.description)
            }
            _ => false,
        }
    }

    fn writes_waiting(&self) -> Vec<Did> {
        let waiters = self.lines.values().flat_map(|line| &line.waiters);
        let write = |pending: &Pending| match pending {
            Pending::Write(number, _) => Some(*number),
            _ => None,
        };
        waiters.filter_map(|waiter| write(&waiter.pending)).collect()
    }

    fn is_used_in_a_wait(&self, number: Did) -> bool {
        let queued = self.lines.values().flat_map(|line| &line.waiters);
        let uses = |pending: &Pending| matches!(pending, Pending::Relock(other) | Pending::Write(other, _) if *other == number);
        let mut locking = self.locks.lines.iter().flat_map(|line| &line.waiters);
        locking.any(|(_, other, _)| *other == number) || queued.map(|waiter| &waiter.pending).any(uses)
    }

    /// flock(2).
    pub fn flock(&mut self, by: usize, slot: usize, lock: Lock) -> Expected {
        let Some(slot) = self.slot(by, slot) else {
            return Expected::Skip;
        };
        let mut after = self.clone();
        let expected = after.try_flock(by, slot.description, lock);
        // Whose turn it is when opens wait for a moment only, and flock(2) for ever, is a matter of luck.
        let mut luck = self.hasty && expected == Expected::Waits;
        // So it is whether those are done already who were in the way, and went on when it let go.
        luck |= lock.nonblock() && after.released.len() > self.released.len();
        if luck || after.unknown || expected == Expected::Skip {
            return Expected::Skip;
        }
        *self = after;
        expected
    }

    fn try_flock(&mut self, by: usize, number: Did, lock: Lock) -> Expected {
        let held = self.descriptions[number].lock;
        let Some(alone) = lock.alone() else {
            if held.is_some() {
                self.publish_saved(number, self.pid(by));
                let published = self.publish_locked(number);
                self.give_up_unused(number);
                self.unlock(number);
                return Expected::Is(published);
            }
            return done();
        };
        let key = match (held, self.whose(number)) {
            (_, None) => return Expected::Skip,
            (Some(key), _) => key,
            (None, Some(whose)) => self.locks.key(whose),
        };
        let has_it = self.locks.lines[key].holders.contains(&(number, alone));
        if held.is_some() && !has_it {
            self.publish_saved(number, self.pid(by));
            self.publish_locked(number);
        }
        if !has_it {
            self.let_go_of(key, number);
        }
        if self.locks.lines[key].fits(number, alone) {
            self.locks.lines[key].hold(number, alone);
            self.descriptions[number].lock = Some(key);
            self.descriptions[number].locker = self.pid(by);
            self.wake(key);
            return self.granted(by, number, lock.nonblock());
        }
        self.wake(key);
        if let Kind::Writer { session } = self.descriptions[number].kind {
            self.step_back(key, session);
        }
        if lock.nonblock() {
            return errno("EAGAIN");
        }
        let shares = |(_, other, other_alone): &(usize, Did, bool)| {
            !other_alone && matches!(self.descriptions[*other].kind, Kind::Writer { .. })
        };
        if !alone && self.locks.lines[key].waiters.iter().any(shares) {
            // Both get it at once, and which of them writes first is a matter of luck.
            return Expected::Skip;
        }
        self.locks.lines[key].waiters.push((by, number, alone));
        self.processes[by].as_mut().expect("it lives").waits = true;
        Expected::Waits
    }

    /// Which lock a description asks for; `None`: its file is none that the model knows by name.
    fn whose(&self, number: Did) -> Option<Whose> {
        let description = &self.descriptions[number];
        let standing = |inode: Inode| self.names.iter().find(|(_, other)| **other == inode);
        match &description.kind {
            _ if description.adrift => None,
            Kind::Appender { place, .. } => match place {
                Place::At(name) if name.is_coordinated() => Some(Whose::Name(*name)),
                _ => None,
            },
            Kind::Writer { session } => {
                let session = &self.sessions[*session];
                Some(Whose::Name(session.name)).filter(|_| !session.unlinked && session.name.is_coordinated())
            }
            Kind::Ordinary { inode }
                if self
                    .names
                    .values()
                    .filter(|other| **other == self.latest(*inode))
                    .count()
                    > 1 =>
            {
                None
            }
            Kind::Ordinary { inode } => match standing(*inode) {
                Some((name, inode)) => Some(Whose::of(self.home(*name), *inode)),
                None => Some(Whose::File(*inode)).filter(|_| !self.files[*inode].is_version),
            },
            Kind::Reader { name, opened, .. } => match standing(*opened) {
                Some((name, inode)) => Some(Whose::of(self.home(*name), *inode)),
                None => {
                    let mut staged = self.sessions.iter().filter(|session| session.shadow == *opened);
                    let gone = staged.any(|session| session.unlinked || session.name != *name);
                    Some(Whose::Name(self.home(*name))).filter(|_| !gone)
                }
            },
        }
    }

    /// W12: what the handle has written is a version before anybody else has the lock.
    fn publish_locked(&mut self, number: Did) -> Answer {
        let session = match self.descriptions[number].kind {
            Kind::Writer { session } => session,
            Kind::Appender { .. } => {
                self.say_rest(number);
                return Answer::Done;
            }
            Kind::Reader { .. } | Kind::Ordinary { .. } => return Answer::Done,
        };
        let Stage::Open = self.sessions[session].stage else {
            return Answer::Done;
        };
        if self.sessions[session].changed && !self.sessions[session].unlinked {
            self.sessions[session].resumable = true;
            return self.end(session, false);
        }
        Answer::Done
    }

    /// What who has the lock has saved by other handles, and closed, though somebody else has joined it.
    fn publish_saved(&mut self, number: Did, locker: Pid) {
        let key = self.descriptions[number].lock;
        let locked = |whose: &Whose| self.locks.keys.get(whose).copied() == key;
        let is_saved = |session: &super::world::Session| {
            let open = session.stage == Stage::Open && session.how != "late" && session.changed && !session.unlinked;
            let held = session.owner == locker || session.heirs.contains(&locker);
            open && held && session.saved && locked(&Whose::Name(session.name))
        };
        let saved: Vec<Sid> = (0..self.sessions.len())
            .filter(|session| is_saved(&self.sessions[*session]))
            .collect();
        for session in saved {
            self.sessions[session].resumable = true;
            self.end(session, false);
        }
    }

    fn let_go_of(&mut self, key: usize, number: Did) {
        self.locks.lines[key].holders.retain(|(other, _)| *other != number);
        self.descriptions[number].lock = None;
    }

    pub fn unlock(&mut self, number: Did) {
        if let Some(key) = self.descriptions[number].lock {
            self.let_go_of(key, number);
            self.wake(key);
        }
    }

    fn wake(&mut self, key: usize) {
        let woken = self.locks.lines[key].wake();
        for (process, number) in &woken {
            self.descriptions[*number].lock = Some(key);
            self.descriptions[*number].locker = self.pid(*process);
        }
        for (process, number) in woken {
            self.processes[process].as_mut().expect("it lives").waits = false;
            match self.granted(process, number, false) {
                Expected::Is(answer) => self.released.push((process, answer)),
                Expected::Waits => {}
                other => unreachable!("who has a lock {other:?}"),
            }
        }
    }

    /// The process is gone: it waits for no lock.
    pub fn leave_locks(&mut self, process: usize) {
        for line in &mut self.locks.lines {
            line.waiters.retain(|(other, ..)| *other != process);
        }
    }

    /// A description's last descriptor is closed.
    pub fn release_lock(&mut self, number: Did, killed: bool) {
        if self.descriptions[number].descriptors > 0 || self.descriptions[number].lock.is_none() {
            return;
        }
        self.publish_saved(number, self.descriptions[number].locker);
        if !killed {
            self.publish_locked(number);
        }
        self.unlock(number);
        // The kernel does not wait for it.
        self.settling = true;
    }

    /// R2: what a reader reads from now on is current. W12: and so is what a writer goes on with.
    fn granted(&mut self, by: usize, number: Did, nonblock: bool) -> Expected {
        match self.descriptions[number].kind {
            Kind::Ordinary { .. } | Kind::Appender { .. } => done(),
            Kind::Reader { opened, .. } => {
                let elsewhere = self.current(by, number) != opened || !self.stands(opened);
                self.bind(by, number, None, elsewhere);
                done()
            }
            Kind::Writer { session } => {
                self.renew(session);
                match self.sessions[session].stage {
                    // Lost: who writes is told.
                    Stage::Open | Stage::Lost => done(),
                    Stage::Done(_) => self.relock(by, number, session, nonblock),
                }
            }
        }
    }

    fn stands(&self, inode: Inode) -> bool {
        self.current_names().any(|other| other == inode)
    }

    fn current_names(&self) -> impl Iterator<Item = Inode> {
        self.names.values().copied()
    }

    pub fn bind(&mut self, by: usize, number: Did, to: Option<Inode>, elsewhere: bool) {
        let pid = self.pid(by);
        if let Kind::Reader { bound, moved, .. } = &mut self.descriptions[number].kind {
            *bound = to;
            if elsewhere {
                *moved = Some(pid);
            }
        }
    }

    /// fstat(2) of a reader that has a lock, or of one of the same version as such a one, binds. `None`: nobody has.
    pub fn fstat_unbound(&mut self, by: usize, number: Did) -> Option<Expected> {
        let Kind::Reader { opened, .. } = self.descriptions[number].kind else {
            return None;
        };
        let same = |other: &&super::world::Description| match other.kind {
            Kind::Reader { opened: inode, .. } => other.descriptors > 0 && inode == opened,
            _ => false,
        };
        let all: Vec<_> = self.descriptions.iter().filter(same).collect();
        let unbound = |other: &super::world::Description| {
            matches!(
                other.kind,
                Kind::Reader {
                    bound: None,
                    moved: Some(_),
                    ..
                }
            )
        };
        if !all.iter().any(|other| unbound(other)) {
            // The kernel keeps one size for all of them.
            let elsewhere =
                |other: &&super::world::Description| matches!(other.kind, Kind::Reader { moved: Some(_), .. });
            return (all.len() > 1 && all.iter().any(elsewhere)).then_some(Expected::Any);
        }
        let mover = Some(self.pid(by));
        if all.len() > 1 || !matches!(self.descriptions[number].kind, Kind::Reader { moved, .. } if moved == mover) {
            return Some(Expected::Skip);
        }
        let current = self.current(by, number);
        self.bind(by, number, Some(current), false);
        Some(Expected::OneOf(vec![self.stat(opened), self.stat(current)]))
    }

    fn give_up(&mut self, session: Sid) -> bool {
        let it = &mut self.sessions[session];
        let unchanged = it.stage == Stage::Open && !it.changed && !it.unlinked;
        if unchanged {
            it.resumable = true;
            self.end(session, false);
        }
        unchanged
    }

    /// Nor does who had it, and has opened the file for nothing else.
    fn give_up_unused(&mut self, number: Did) {
        let Kind::Writer { session } = self.descriptions[number].kind else {
            return;
        };
        let it = &self.sessions[session];
        if it.only_opened && !it.looked_at && !it.emptied && it.opened == 1 && it.how == "close" {
            self.give_up(session);
        }
    }

    /// Who does not get the lock holds nobody up.
    fn step_back(&mut self, key: usize, session: Sid) {
        let same = |(other, _): &(Did, bool)| matches!(self.descriptions[*other].kind, Kind::Writer { session: held } if held == session);
        if self.sessions[session].creates || self.locks.lines[key].holders.iter().any(same) {
            return;
        }
        let gave_up = self.give_up(session);
        if !gave_up && self.sessions[session].stage == Stage::Open {
            self.sessions[session].stepped_back = true;
            let name = self.sessions[session].name;
            self.line(name).holders.retain(|(_, other)| *other != Some(session));
            self.go_on(name);
        }
    }

    fn relock(&mut self, by: usize, number: Did, old: Sid, nonblock: bool) -> Expected {
        let name = self.sessions[old].name;
        match self.admit(by, name, false, nonblock) {
            Admission::Stranger => {
                self.unknown = true;
                done()
            }
            Admission::Refused(why @ ("EDEADLK" | "EAGAIN")) => {
                self.unlock(number);
                errno(why)
            }
            // flock(2) waits as long as it takes.
            Admission::Wait | Admission::Refused(_) => self.wait(by, name, Pending::Relock(number)),
            Admission::Start | Admission::Join(_) | Admission::Private => self.relock_admitted(by, number),
        }
    }

    pub fn relock_admitted(&mut self, by: usize, number: Did) -> Expected {
        // Where the file is gone, or another one that it may not have, the lock is had all the same.
        let _ = self.begin_again(by, number);
        done()
    }

    /// The handle goes on with another session, on what is current.
    fn begin_again(&mut self, by: usize, number: Did) -> Result<(), Expected> {
        let Kind::Writer { session: old } = self.descriptions[number].kind else {
            unreachable!("only writers have sessions");
        };
        let before = self.sessions[old].clone();
        let Some(current) = self.names.get(&before.name).copied() else {
            return Ok(());
        };
        // Whether the handle reads is not known.
        if before.stage != Stage::Done(current) && !before.user.may(self.files[current].rights, READ | WRITE) {
            return Err(errno("EACCES"));
        }
        if let Ok(new) = self.begin(by, before.name, RW, false, "close") {
            let asker = self.pid(by);
            let lives = self
                .processes
                .iter()
                .flatten()
                .any(|process| process.pid == before.owner);
            let owner = if lives { before.owner } else { asker };
            let session = &mut self.sessions[new];
            session.node = before.node;
            session.owner = owner;
            for holder in [before.owner, asker].into_iter().chain(before.heirs) {
                if holder != owner && !session.heirs.contains(&holder) {
                    session.heirs.push(holder);
                }
                if !session.known.contains(&holder) {
                    session.known.push(holder);
                }
            }
            let holders = &mut self.line(before.name).holders;
            let entry = holders.iter_mut().find(|(_, session)| *session == Some(new));
            entry.expect("it has begun").0 = owner;
            self.descriptions[number].kind = Kind::Writer { session: new };
            self.descriptions[number].unclosed = true;
            self.descriptions[number].late_to_size = true;
        }
        Ok(())
    }

    /// A change by a handle whose session ended with its lock waits for its turn as an open does. An error is what the call comes to.
    pub fn before_change(&mut self, by: usize, number: Did, what: &Do) -> Result<(), Expected> {
        let Kind::Writer { session } = self.descriptions[number].kind else {
            return Ok(());
        };
        let it = &self.sessions[session];
        if !it.resumable || !matches!(it.stage, Stage::Done(_)) {
            return Ok(());
        }
        let name = it.name;
        match self.admit(by, name, false, false) {
            Admission::Stranger => Err(Expected::Skip),
            Admission::Refused(why) => Err(errno(why)),
            Admission::Wait => Err(self.wait(by, name, Pending::Write(number, what.clone()))),
            Admission::Start | Admission::Join(_) | Admission::Private => self.begin_again(by, number),
        }
    }

    pub fn write_admitted(&mut self, by: usize, number: Did, what: &Do) -> Expected {
        if let Err(refused) = self.begin_again(by, number) {
            return refused;
        }
        let Kind::Writer { session } = self.descriptions[number].kind else {
            unreachable!("it writes");
        };
        let session = self.goes_on_in(number, session).unwrap_or(session);
        self.note_write(session);
        self.write(by, number, self.sessions[session].shadow, what)
    }

    /// link(2) and unlink(2) leave an ordinary file's lock with its inode, where its new name has one of its own.
    pub fn is_locked_by_inode(&self, what: What) -> bool {
        let What::Link(from, _) = what else { return false };
        let key = self
            .names
            .get(&from)
            .and_then(|inode| self.locks.keys.get(&Whose::File(*inode)));
        key.is_some_and(|key| !self.locks.lines[*key].holders.is_empty())
    }

    /// A locked file without a rule is renamed: its lock goes along, unless the one that it replaces is locked.
    pub fn is_locked_ordinary(&self, what: What) -> bool {
        let What::Rename(from, _) = what else { return false };
        self.is_locked_by_inode(What::Link(from, from))
    }

    /// Who has something open by a name that is gone, and that does not stand under another one.
    pub fn drift(&mut self, what: What) {
        let gone = match what {
            What::Rename(name, _) | What::Unlink(name) if name.is_coordinated() => name,
            _ => return,
        };
        let standing: Vec<Inode> = self.current_names().collect();
        for description in &mut self.descriptions {
            description.adrift |= match &description.kind {
                Kind::Reader { name, opened, .. } => *name == gone && !standing.contains(opened),
                Kind::Writer { session } => self.sessions[*session].name == gone,
                Kind::Ordinary { .. } | Kind::Appender { .. } => false,
            };
        }
    }
}
