//! Sessions in the reference model: who is admitted (W1-W4), and what becomes of what was staged (W5-W7, W11).

use super::ops::{How, Name};
use super::permissions::{READ, User, WRITE};
use super::puppets::{Answer, Time};
use super::world::{Expected, Inode, Kind, Pending, Pid, Session, Sid, Stage, Waiter, World};

/// What the queue says.
pub enum Admission {
    /// Nobody is there.
    Start,
    /// Its lineage is there: one more handle of this session.
    Join(Sid),
    /// The same: a session of its own.
    Private,
    Wait,
    /// It has a session open whose opener is gone, and is no child of his any more: not in the model (W3, limit).
    Stranger,
    Refused(&'static str),
}

impl World {
    /// W1 to W4. `joins`: it does not truncate.
    pub fn admit(&self, process: usize, name: Name, joins: bool, nonblock: bool) -> Admission {
        let name = self.home(name);
        let line = &self.lines[&name];
        if line.holders.is_empty() {
            return Admission::Start;
        }
        let lineage = self.lineage(process);
        let holds = |pid: &Pid| {
            let mut holders = line.holders.iter();
            holders.any(|(owner, session)| owner == pid || self.heirs(*session).contains(pid))
        };
        if lineage.iter().any(holds) {
            return match self.nearest(process, name) {
                Some(session) if joins && !self.sessions[session].unlinked => Admission::Join(session),
                _ => Admission::Private,
            };
        }
        let mut sessions = line.holders.iter().filter_map(|(_, session)| *session);
        if sessions.any(|session| lineage.iter().any(|pid| self.has_open(*pid, session))) {
            return Admission::Stranger;
        }
        match (nonblock, self.hasty) {
            (true, _) => Admission::Refused("EAGAIN"),
            _ if self.closes_cycle(&lineage, name) => Admission::Refused("EDEADLK"),
            (false, true) => Admission::Refused("EBUSY"),
            (false, false) => Admission::Wait,
        }
    }

    /// W4: whether who is waited for waits, directly or through others, for one of this lineage. Who has a child that waits counts as waiting; nobody here has threads.
    fn closes_cycle(&self, lineage: &[Pid], name: Name) -> bool {
        let mut todo = self.waited_for(lineage, name, usize::MAX);
        let mut seen: Vec<Pid> = Vec::new();
        while let Some(pid) = todo.pop() {
            if lineage.contains(&pid) {
                return true;
            }
            if seen.contains(&pid) {
                continue;
            }
            seen.push(pid);
            for (name, line) in &self.lines {
                for (place, waiter) in line.waiters.iter().enumerate() {
                    let blocked = self.lineage(waiter.process);
                    if blocked.contains(&pid) {
                        todo.extend(self.waited_for(&blocked, *name, place));
                    }
                }
            }
        }
        false
    }

    /// The holders, and who stands before the first of this lineage.
    fn waited_for(&self, lineage: &[Pid], name: Name, place: usize) -> Vec<Pid> {
        let line = &self.lines[&name];
        let waiting = line.waiters.iter().take(place).map(|waiter| self.pid(waiter.process));
        let ahead = waiting.take_while(|pid| !lineage.contains(pid));
        self.holders(name).into_iter().chain(ahead).collect()
    }

    /// The process waits from now on.
    pub fn wait(&mut self, process: usize, name: Name, pending: Pending) -> Expected {
        let name = self.home(name);
        self.line(name).waiters.push(Waiter { process, pending });
        self.processes[process].as_mut().expect("it lives").waits = true;
        Expected::Waits
    }

    /// A session has been admitted; or there is nothing to open (ENOENT).
    pub fn begin(
        &mut self,
        process: usize,
        name: Name,
        how: How,
        creates: bool,
        why: &'static str,
    ) -> Result<Sid, Answer> {
        let name = self.home(name);
        let base = self.names.get(&name).copied();
        if let Some(base) = base.filter(|_| !how.truncate && self.names_of(name).len() > 1) {
            self.files[base].is_image = true;
        }
        let promised = self
            .nearest(process, name)
            .map(|own| &self.sessions[own])
            .filter(|own| own.creates && !own.unlinked);
        // What its lineage has made of the file's mode, beside it, is the file's.
        let own = self.nearest(process, name).map(|own| &self.sessions[own]);
        let own = own.filter(|own| how.truncate && own.touched && !own.unlinked);
        let dressed_as = own.map(|own| self.files[own.shadow].rights);
        let new = promised.map_or(self.user(process).makes(self.cast.dir(name)), |own| {
            self.files[own.shadow].rights
        });
        let promised = promised.is_some();
        if base.is_none() && !creates && !promised {
            return Err(Answer::errno("ENOENT"));
        }
        let fresh = how.truncate || base.is_none();
        let (data, rights) = match base.map(|inode| &self.files[inode]) {
            Some(file) => (if fresh { Vec::new() } else { file.data.clone() }, file.rights),
            None => (Vec::new(), new),
        };
        let rights = dressed_as.unwrap_or(rights);
        let emptied = base.is_some() && fresh;
        let staged = if emptied {
            self.user(process).writes(rights)
        } else {
            rights
        };
        let shadow = self.add_file(data, staged, true);
        if let Some(base) = base.filter(|_| !fresh) {
            self.keep_times(base, shadow);
        }
        let owner = self.pid(process);
        let session = self.sessions.len();
        self.sessions.push(Session {
            name,
            owner,
            user: self.user(process),
            rights,
            shadow,
            base,
            changed: fresh,
            only_opened: true,
            emptied: how.truncate,
            looked_at: false,
            opened: 1,
            touched: dressed_as.is_some(),
            unlinked: false,
            creates: base.is_none(),
            how: why,
            known: vec![owner],
            heirs: Vec::new(),
            node: session,
            stage: Stage::Open,
            continued: None,
            appended: Vec::new(),
            appended_to: None,
            resumable: false,
            stepped_back: false,
            saved: false,
        });
        self.line(name).holders.push((owner, Some(session)));
        Ok(session)
    }

    /// The session that a handle writes to; `None`: it was lost.
    pub fn goes_on_in(&mut self, number: usize, mut session: Sid) -> Option<Sid> {
        loop {
            session = match self.sessions[session].stage {
                Stage::Open => return Some(session),
                Stage::Lost => return None,
                Stage::Done(content) => self.continue_late(number, session, content),
            };
        }
    }

    /// Somebody writes by a handle whose session is over: what is written, by this and by its other handles, is a version of its own.
    fn continue_late(&mut self, number: usize, ended: Sid, content: Inode) -> Sid {
        if let Some(late) = self.sessions[ended].continued {
            self.descriptions[number].kind = Kind::Writer { session: late };
            self.descriptions[number].unclosed = false;
            return late;
        }
        let data = self.files[content].data.clone();
        let shadow = self.add_file(data, self.files[content].rights, true);
        self.keep_times(content, shadow);
        let mut before = self.sessions[ended].clone();
        let stands = self
            .names
            .iter()
            .find(|(_, inode)| **inode == content)
            .map(|(name, _)| self.home(*name));
        if let Some(name) = stands.filter(|name| *name != before.name) {
            // It has been renamed since.
            before.name = name;
        }
        self.sessions.push(Session {
            shadow,
            base: Some(content),
            changed: false,
            only_opened: true,
            emptied: false,
            looked_at: false,
            opened: 1,
            touched: false,
            // What is written to a file that was removed goes with it.
            unlinked: !self.names.contains_key(&before.name),
            creates: false,
            how: "late",
            known: std::iter::once(before.owner).chain(before.heirs.clone()).collect(),
            stage: Stage::Open,
            appended: Vec::new(),
            appended_to: None,
            resumable: false,
            stepped_back: false,
            saved: false,
            ..before
        });
        let late = self.sessions.len() - 1;
        self.sessions[ended].continued = Some(late);
        self.descriptions[number].kind = Kind::Writer { session: late };
        self.descriptions[number].unclosed = false;
        late
    }

    /// R4: until the first change the holder sees the times of the version that it started from.
    fn keep_times(&mut self, base: Inode, shadow: Inode) {
        let base = self.files[base].clone();
        let shadow = &mut self.files[shadow];
        (shadow.modified, shadow.changed) = (base.modified, base.changed);
    }

    /// The same when those are changed meanwhile.
    pub fn show_times(&mut self, base: Inode) {
        let unchanged =
            |session: &&Session| session.stage == Stage::Open && !session.changed && session.base == Some(base);
        for shadow in self
            .sessions
            .iter()
            .filter(unchanged)
            .map(|session| session.shadow)
            .collect::<Vec<_>>()
        {
            self.keep_times(base, shadow);
        }
    }

    /// A descriptor was closed. The session ends with its last one, as far as one can tell.
    pub fn flush(&mut self, by: Pid, session: Sid, killed: bool) -> Answer {
        match self.sessions[session].stage {
            Stage::Open => {}
            Stage::Done(_) => return Answer::Done,
            Stage::Lost => return Answer::errno("ESTALE"),
        }
        if !self.sessions[session].known.contains(&by) {
            self.sessions[session].known.push(by);
        }
        self.sessions[session].saved = !killed;
        let node = self.sessions[session].node;
        let is_it = |kind: &Kind| matches!(kind, Kind::Writer { session } if self.sessions[*session].node == node);
        for heir in self.left_to(by, is_it) {
            let session = &mut self.sessions[session];
            session.known.push(heir);
            if session.owner != heir && !session.heirs.contains(&heir) {
                session.heirs.push(heir);
            }
        }
        match self.is_held(session) {
            true => Answer::Done,
            false => self.end(session, killed),
        }
    }

    fn is_held(&self, session: Sid) -> bool {
        let Session { known, node, .. } = &self.sessions[session];
        let mut open = self.descriptions.iter().filter(|description| description.unclosed);
        if open.any(|description| matches!(description.kind, Kind::Writer { session: other } if other == session)) {
            return true;
        }
        let same = |session: Sid| self.sessions[session].node == *node;
        self.is_used(known, |kind| matches!(kind, Kind::Writer { session } if same(*session)))
    }

    /// Whether one of those that are known, or a descendant of one, has such a description open for writing.
    pub fn is_used(&self, known: &[Pid], is_such: impl Fn(&Kind) -> bool) -> bool {
        let mut users = self.users(is_such);
        users.any(|number| self.lineage(number).iter().any(|pid| known.contains(pid)))
    }

    /// The descendants of who has closed such a description that have it; none while it has another itself.
    pub fn left_to(&self, by: Pid, is_such: impl Fn(&Kind) -> bool) -> Vec<Pid> {
        let users: Vec<usize> = self.users(is_such).collect();
        if users.iter().any(|number| self.pid(*number) == by) {
            return Vec::new();
        }
        let heirs = users.into_iter().filter(|number| self.lineage(*number).contains(&by));
        heirs.map(|number| self.pid(number)).collect()
    }

    /// The processes that have such a description open for writing.
    fn users(&self, is_such: impl Fn(&Kind) -> bool) -> impl Iterator<Item = usize> {
        let holds = move |slot: &super::world::Slot| {
            let description = &self.descriptions[slot.description];
            description.how.write && is_such(&description.kind)
        };
        (0..self.processes.len()).filter(move |number| {
            let process = self.processes[*number].iter();
            process.flat_map(|process| process.slots.iter().flatten()).any(&holds)
        })
    }

    /// W5 and W7. What the close comes to.
    pub fn end(&mut self, session: Sid, killed: bool) -> Answer {
        let mut answer = Answer::Done;
        let ended = self.sessions[session].clone();
        if ended.stage != Stage::Open {
            return answer;
        }
        self.sessions[session].stage = if ended.unlinked || !ended.changed {
            Stage::Done(ended.base.filter(|_| !ended.changed).unwrap_or(ended.shadow))
        } else if killed {
            self.set_aside(&ended);
            Stage::Lost
        } else if ended.how == "late" && self.is_given_away(&ended) || ended.only_opened && self.is_overtaken(&ended) {
            Stage::Done(ended.base.unwrap_or(ended.shadow))
        } else {
            self.take_along(&ended);
            if self.may_replace(&ended) {
                self.publish(&ended);
                Stage::Done(ended.shadow)
            } else {
                self.set_aside(&ended);
                answer = Answer::errno("EACCES");
                Stage::Lost
            }
        };
        self.renew_others(session);
        self.line(ended.name)
            .holders
            .retain(|(_, other)| *other != Some(session));
        self.go_on(ended.name);
        answer
    }

    /// What was replaced by another file, or removed, takes along what is written to it.
    fn is_given_away(&self, ended: &Session) -> bool {
        let saved_as = |inode: &Inode| self.files[*inode].saved_as;
        let mut versions = std::iter::successors(ended.base, saved_as);
        !versions.any(|version| self.names.get(&ended.name) == Some(&version))
    }

    fn set_aside(&mut self, ended: &Session) {
        let data = self.files[ended.shadow].data.clone();
        if !data.is_empty() {
            self.recovered.push(data);
        }
    }

    /// W11: what somebody may not write to he does not replace, though it took the place of what he has opened.
    fn may_replace(&self, ended: &Session) -> bool {
        let Some(current) = self.names.get(&ended.name).copied() else {
            return true;
        };
        let base = ended.base.unwrap_or(ended.shadow);
        [base, self.latest(base)].contains(&current)
            || ended.rights == self.files[current].rights
            || ended.user.may(self.files[current].rights, WRITE)
    }

    /// Lines that were appended meanwhile.
    fn take_along(&mut self, ended: &Session) {
        let data = &mut self.files[ended.shadow].data;
        if !ended.appended.is_empty() && data.last().is_some_and(|byte| *byte != b'\n') {
            // No line is glued to what has none.
            data.push(b'\n');
        }
        data.extend(&ended.appended);
        if !ended.appended.is_empty() {
            self.files[ended.shadow].modified = Time::Whenever;
        }
    }

    /// W3: sessions in which nothing was written start anew when their lineage publishes beside them.
    fn renew_others(&mut self, ended: Sid) {
        let name = self.sessions[ended].name;
        for other in (0..self.sessions.len()).filter(|other| *other != ended) {
            if self.sessions[other].name == name && self.sessions[other].how == "close" {
                self.renew(other);
            }
        }
    }

    pub fn renew(&mut self, session: Sid) {
        let it = &self.sessions[session];
        if it.stage != Stage::Open || it.unlinked || !it.only_opened || !self.is_overtaken(it) {
            return;
        }
        let name = it.name;
        let base = self.names[&name];
        let same = it.base.is_some_and(|before| self.latest(before) == base);
        if !same && it.rights != self.files[base].rights && !it.user.may(self.files[base].rights, READ | WRITE) {
            return;
        }
        if self.names_of(name).len() > 1 {
            self.files[base].is_image = true;
        }
        let shadow = self.add_file(self.files[base].data.clone(), self.files[base].rights, true);
        self.keep_times(base, shadow);
        let it = &mut self.sessions[session];
        (it.base, it.shadow, it.changed) = (Some(base), shadow, false);
        (it.creates, it.touched) = (false, false);
        (it.appended, it.appended_to) = (Vec::new(), None);
        it.looked_at = false;
    }

    /// Who writes by a handle that has emptied the file, and looked at nothing since, writes a whole file.
    pub fn note_write(&mut self, session: Sid) {
        let Session {
            emptied,
            changed,
            shadow,
            ..
        } = self.sessions[session];
        if emptied && !changed {
            self.files[shadow].data.clear();
        }
        self.note_change(session);
    }

    /// W12: who has only emptied the file did so before whoever has published since.
    fn is_overtaken(&self, ended: &Session) -> bool {
        let current = self.names.get(&ended.name);
        current.is_some() && current != ended.base.as_ref()
    }

    fn publish(&mut self, ended: &Session) {
        if let Some(current) = self.names.get(&ended.name).filter(|_| !ended.touched && !ended.creates) {
            let before = self.files[*current].rights;
            let lives = |pid: Pid| self.processes.iter().flatten().any(|process| process.pid == pid);
            self.files[ended.shadow].rights = match lives(ended.owner) || ended.user == User::Root {
                true => ended.user.writes(before),
                // Which groups it was in nobody knows any more (W11, limit).
                false => before.without_all_set_id(),
            };
        }
        // st_mtime stays that of the last write.
        self.change(ended.shadow);
        // Of an ordinary name the kernel is told what we did to it, soon.
        self.settling |= !ended.name.is_coordinated();
        self.give(ended.name, ended.shadow);
        self.files[ended.shadow].is_version = ended.name.is_coordinated();
        if ended.name.is_coordinated() {
            self.record(ended.name, ended.how, self.files[ended.shadow].data.clone());
        }
    }

    /// W1: the first in line is next, and with it those of its lineage. W3: nobody waits for what his own lineage holds by now.
    pub fn go_on(&mut self, name: Name) {
        loop {
            let waiters = std::mem::take(&mut self.line(name).waiters);
            let party_of: Vec<Pid> = match (self.lines[&name].holders.is_empty(), waiters.first()) {
                (true, Some(first)) => vec![self.pid(first.process)],
                _ => self.holders(name),
            };
            let (party, others): (Vec<Waiter>, Vec<Waiter>) = waiters.into_iter().partition(|waiter| {
                let lineage = self.lineage(waiter.process);
                party_of.iter().any(|pid| lineage.contains(pid))
            });
            self.line(name).waiters = others;
            if party.is_empty() {
                return;
            }
            for waiter in party {
                self.resume(waiter, name);
            }
        }
    }

    /// Who holds a session of a name, or was left one.
    fn holders(&self, name: Name) -> Vec<Pid> {
        let holders = self.lines[&name].holders.iter();
        let all = holders.flat_map(|(pid, session)| std::iter::once(pid).chain(self.heirs(*session)));
        all.copied().collect()
    }

    fn resume(&mut self, waiter: Waiter, name: Name) {
        let Waiter { process, pending } = waiter;
        self.processes[process].as_mut().expect("it lives").waits = false;
        let expected = match pending {
            Pending::Open { slot, name, how } => {
                let opened = self.open_admitted(process, slot, name, how);
                if let Some(slot) = self.slot(process, slot) {
                    self.descriptions[slot.description].late_to_size = true;
                }
                opened
            }
            Pending::Truncate { name, length } => self.truncate_admitted(process, name, length),
            Pending::Relock(number) => self.relock_admitted(process, number),
            Pending::Write(number, what) => self.write_admitted(process, number, &what),
            Pending::Names(mut change) => {
                let pid = self.pid(process);
                // Which comes first: the rename, or the end of the lock of who was waited for.
                self.unknown |= self.is_locked_ordinary(change.what);
                self.line(name).holders.push((pid, None));
                change.has.push(name);
                self.take_next(process, change)
            }
        };
        match expected {
            Expected::Is(answer) => self.released.push((process, answer)),
            Expected::Waits => {}
            other => unreachable!("what was admitted {other:?}"),
        }
    }

    /// Who waited is gone, or gave up.
    pub fn leave(&mut self, process: usize) {
        let (mut has, mut locked) = (Vec::new(), None);
        for line in self.lines.values_mut() {
            line.waiters.retain(|waiter| {
                let leaves = waiter.process == process;
                match &waiter.pending {
                    Pending::Names(change) if leaves => has.extend(change.has.clone()),
                    Pending::Relock(number) if leaves => locked = Some(*number),
                    _ => {}
                }
                !leaves
            });
        }
        let pid = self.pid(process);
        self.let_go(pid, has);
        self.leave_locks(process);
        locked.into_iter().for_each(|number| self.unlock(number));
    }

    /// Names that a change had to itself.
    pub fn let_go(&mut self, pid: Pid, names: Vec<Name>) {
        for name in names {
            let holders = &mut self.line(name).holders;
            if let Some(at) = holders.iter().position(|holder| *holder == (pid, None)) {
                holders.remove(at);
            }
            self.go_on(name);
        }
    }
}
