//! What each operation comes to, as the contract has it (docs/SEMANTICS.md where the project decided).

use super::ops::{Do, How, NAMES, Name, Op, TEXTS};
use super::permissions::{READ, User, WRITE};
use super::puppets::{Answer, Seen};
use super::queue::Admission;
use super::world::{Description, Expected, Inode, Kind, Pending, Pid, Process, Stage, What, World};

const SKIP: Expected = Expected::Skip;

fn errno(name: &str) -> Expected {
    Expected::Is(Answer::errno(name))
}

fn done() -> Expected {
    Expected::Is(Answer::Done)
}

impl World {
    /// Carries out a step. System calls that it releases are in [`World::released`].
    pub fn step(&mut self, op: &Op) -> Expected {
        let Op(by, what) = op;
        if self.processes[*by].is_none() {
            if matches!(what, Do::Exit | Do::Kill | Do::Close(_) | Do::Unmap(_)) {
                return SKIP;
            }
            self.start(*by, None, self.cast.users[*by]);
        }
        let waits = self.processes[*by].as_ref().is_some_and(|process| process.waits);
        if (waits && *what != Do::Kill) || what.paths().iter().any(|name| self.locked().contains(name)) {
            return SKIP;
        }
        if self.is_in_the_way(*by, what) || what.paths().iter().any(|name| self.is_judged_by_both(*by, *name)) {
            return SKIP;
        }
        match what {
            Do::Open(slot, name, how) => self.open(*by, *slot, *name, *how),
            Do::Close(slot) => self.close(*by, *slot),
            Do::Dup(from, to) => self.dup(*by, *from, *to),
            Do::Fork(child) => self.fork(*by, *child),
            Do::Exit => self.leave_all(*by, false),
            Do::Kill => self.leave_all(*by, true),
            Do::Rename(a, b) => self.change_names(*by, What::Rename(*a, *b)),
            Do::Exchange(a, b) => self.change_names(*by, What::Exchange(*a, *b)),
            Do::Link(a, b) => self.change_names(*by, What::Link(*a, *b)),
            Do::Unlink(name) => self.change_names(*by, What::Unlink(*name)),
            Do::Truncate(name, length) => self.truncate(*by, *name, *length),
            Do::Chmod(name, mode) => self.chmod(*by, *name, *mode),
            Do::Chown(name, uid, gid) => self.chown(*by, *name, *uid, *gid),
            Do::Acl(name, acl, mode) => self.set_acl(*by, *name, *acl, *mode),
            Do::NoAcl(name) => self.remove_acl(*by, *name),
            Do::Utime(name, at) => self.utime(*by, *name, *at),
            Do::Touch(name) => self.touch_now(*by, *name),
            Do::Look => Expected::Is(self.look(*by)),
            Do::Flock(slot, lock) => self.flock(*by, *slot, *lock),
            Do::Map(slot, map, share) => self.map(*by, *slot, *map, *share),
            Do::Peek(map) => self.peek(*by, *map),
            Do::Poke(map, at, text) => self.poke(*by, *map, *at, TEXTS[*text].as_bytes()),
            Do::Unmap(map) => self.unmap(*by, *map),
            Do::Read(slot, ..)
            | Do::Pread(slot, ..)
            | Do::Write(slot, _)
            | Do::Pwrite(slot, ..)
            | Do::Ftruncate(slot, _)
            | Do::Seek(slot, _)
            | Do::Fsync(slot)
            | Do::Futime(slot, _)
            | Do::Fstat(slot) => match self.slot(*by, *slot) {
                Some(slot) => self.by_descriptor(*by, slot.description, what),
                None => SKIP,
            },
        }
    }

    /// A process that has nothing open.
    pub fn start(&mut self, number: usize, parent: Option<Pid>, user: User) {
        self.next_pid += 1;
        self.processes[number] = Some(Process {
            pid: self.next_pid,
            user,
            parent,
            slots: Default::default(),
            maps: Default::default(),
            waits: false,
        });
    }

    fn open(&mut self, by: usize, slot: usize, name: Name, how: How) -> Expected {
        if self.slot(by, slot).is_some() {
            return SKIP;
        }
        let found = self.visible(by, name);
        match found {
            Some(_) if how.exclusive => return errno("EEXIST"),
            None if !how.create => return errno("ENOENT"),
            _ => {}
        }
        if !self.may_open(by, name, how) {
            return errno("EACCES");
        }
        let kept = |found: Inode| {
            let (dir, file) = (self.dir(name), self.files[found].rights);
            self.user(by).is_kept_from(dir, file, self.protected)
        };
        if how.create && found.is_some_and(kept) {
            return SKIP;
        }
        if !name.is_coordinated() {
            return self.open_ordinary(by, slot, name, how);
        }
        if !how.write
            && !how.truncate
            && let Some(opened) = found
        {
            self.put_reader(by, slot, name, how, opened);
            return done();
        }
        let home = self.home(name);
        if how.is_append_only() && (self.names.contains_key(&name) || self.nearest(by, home).is_none()) {
            return self.open_appender(by, slot, name, how);
        }
        if how.exclusive && !self.lines[&home].holders.is_empty() {
            let mut sessions = self.lines[&home].holders.iter().filter_map(|(_, session)| *session);
            let promised = sessions.any(|session| self.sessions[session].creates && !self.sessions[session].unlinked);
            if promised || self.nearest(by, home).is_none() {
                // Otherwise the file was removed, and its writer has it open still: nothing is said about that but to his lineage.
                return if promised { errno("EEXIST") } else { SKIP };
            }
        }
        match self.admit(by, name, !how.truncate && !how.exclusive, how.nonblock) {
            Admission::Stranger => SKIP,
            Admission::Refused(why) => errno(why),
            Admission::Wait => self.wait(by, name, Pending::Open { slot, name, how }),
            Admission::Start | Admission::Join(_) | Admission::Private => self.open_admitted(by, slot, name, how),
        }
    }

    /// The queue has its turn.
    pub fn open_admitted(&mut self, by: usize, slot: usize, name: Name, how: How) -> Expected {
        let found = self.visible(by, name);
        if !self.may_open(by, name, how) {
            return errno("EACCES");
        }
        if !how.write
            && !how.truncate
            && let Some(opened) = found
        {
            self.put_reader(by, slot, name, how, opened);
            return done();
        }
        let session = match self.admit(by, name, !how.truncate, false) {
            Admission::Join(session) => {
                let pid = self.pid(by);
                let known = &mut self.sessions[session].known;
                if !known.contains(&pid) {
                    known.push(pid);
                }
                self.sessions[session].emptied = false;
                self.sessions[session].opened += 1;
                session
            }
            _ => match self.begin(by, name, how, how.create, "close") {
                Ok(session) => session,
                Err(answer) => return Expected::Is(answer),
            },
        };
        self.put(by, slot, Kind::Writer { session }, how);
        done()
    }

    /// What the kernel finds under the name, or creates there.
    fn may_open(&self, by: usize, name: Name, how: How) -> bool {
        match self.visible(by, name) {
            Some(found) => self.user(by).may(self.files[found].rights, how.wanted()),
            None => !how.create || self.user(by).may(self.dir(name), WRITE),
        }
    }

    /// What it has staged has other rights than the file by now (W11, limit).
    fn is_judged_by_both(&self, by: usize, name: Name) -> bool {
        let (own, current) = (self.visible(by, name), self.names.get(&name).copied());
        let differ = own
            .zip(current)
            .is_some_and(|(own, current)| self.files[own].rights != self.files[current].rights);
        differ && self.user(by) != User::Root
    }

    fn put_reader(&mut self, by: usize, slot: usize, name: Name, how: How, opened: Inode) {
        self.note_look(opened);
        let kind = Kind::Reader {
            name,
            opened,
            bound: None,
            moved: None,
        };
        self.put(by, slot, kind, how);
    }

    fn open_ordinary(&mut self, by: usize, slot: usize, name: Name, how: How) -> Expected {
        let inode = match self.names.get(&name) {
            Some(inode) => *inode,
            None => self.add_file(Vec::new(), self.user(by).makes(self.cast.dir(name)), false),
        };
        if how.truncate && self.files[inode].is_version {
            return SKIP;
        }
        self.names.insert(name, inode);
        if how.truncate {
            self.files[inode].data.clear();
            self.modify_as(self.user(by), inode);
        }
        self.put(by, slot, Kind::Ordinary { inode }, how);
        done()
    }

    fn by_descriptor(&mut self, by: usize, number: usize, what: &Do) -> Expected {
        let description = self.descriptions[number].clone();
        if let Kind::Appender { .. } = description.kind {
            return match what {
                Do::Write(_, text) | Do::Pwrite(_, _, text) if self.locked().is_empty() => {
                    self.append(number, TEXTS[*text].as_bytes())
                }
                Do::Read(..) | Do::Pread(..) => errno("EBADF"),
                _ => SKIP,
            };
        }
        match what {
            Do::Seek(_, to) => {
                self.descriptions[number].at = Some(*to);
                Expected::Is(Answer::Number(*to as i64))
            }
            Do::Read(_, count) | Do::Pread(_, _, count) => {
                if !description.how.read {
                    return errno("EBADF");
                }
                let from = match what {
                    Do::Pread(_, from, _) => Some(*from),
                    _ => description.at,
                };
                let Some(from) = from else { return SKIP };
                let Some(inode) = self.read_from(by, number, from, *count) else {
                    return Expected::Any;
                };
                let data = &self.files[inode].data;
                let start = (from as usize).min(data.len());
                let part = data[start..(start + count).min(data.len())].to_vec();
                if matches!(what, Do::Read(..)) {
                    self.descriptions[number].at = Some(from + part.len() as u64);
                }
                Expected::Is(Answer::Bytes(part))
            }
            Do::Futime(..) if self.may_be_locked(number) => SKIP,
            Do::Futime(_, at) => self.futime(by, number, *at),
            Do::Fsync(_) if self.may_be_locked(number) => SKIP,
            Do::Fsync(_) => done(),
            Do::Fstat(_) => self.fstat(by, number),
            Do::Write(..) | Do::Pwrite(..) if !description.how.write => errno("EBADF"),
            Do::Ftruncate(..) if !description.how.write => errno("EINVAL"),
            Do::Write(..) | Do::Pwrite(..) | Do::Ftruncate(..) if self.may_be_locked(number) => SKIP,
            Do::Write(..) | Do::Pwrite(..) | Do::Ftruncate(..) => {
                let inode = match self.written_by(by, number, what) {
                    Ok(inode) => inode,
                    Err(expected) => return expected,
                };
                self.write(by, number, inode, what)
            }
            _ => unreachable!("{what:?} is by no descriptor"),
        }
    }

    /// Where a read comes from. R1 and R2: a reader is bound by its first one.
    fn read_from(&mut self, by: usize, number: usize, from: u64, count: usize) -> Option<Inode> {
        match self.descriptions[number].kind.clone() {
            Kind::Ordinary { inode } => Some(self.latest(inode)),
            Kind::Appender { .. } => None,
            Kind::Writer { session } => match self.sessions[session].stage {
                Stage::Open => {
                    let it = &mut self.sessions[session];
                    it.emptied = false;
                    // Nobody is asked for nothing.
                    it.looked_at |= count > 0;
                    Some(it.shadow)
                }
                Stage::Done(content) => Some(content),
                Stage::Lost => None,
            },
            Kind::Reader { bound: Some(inode), .. } => Some(inode),
            Kind::Reader { opened, .. } if count == 0 => Some(opened),
            Kind::Reader { opened, moved, .. } => {
                let current = self.current(by, number);
                let by_size = from != 0 || count == self.files[opened].data.len();
                let inode = if by_size && moved.is_none() { opened } else { current };
                self.bind(by, number, Some(inode), inode != opened);
                Some(inode)
            }
        }
    }

    /// What an unbound reader would be bound to. R2: nothing that it might not have opened.
    pub fn current(&self, by: usize, number: usize) -> Inode {
        let Description { kind, rights, .. } = &self.descriptions[number];
        let Kind::Reader { name, opened, .. } = *kind else {
            unreachable!("it reads");
        };
        let rights = rights.expect("it was opened by some");
        let staged = |s: &super::world::Session| s.stage == Stage::Open && s.shadow == opened && !s.unlinked;
        let stands = self.names.values().any(|inode| *inode == opened) || self.sessions.iter().any(staged);
        if stands {
            opened
        } else {
            let may = |current: &Inode| {
                let now = self.files[*current].rights;
                now == rights || self.latest(opened) == *current || self.user(by).may(now, READ)
            };
            // Where that name is gone, and others of its file are left, these lead to what it has open.
            let by_others =
                || Some(self.latest(opened)).filter(|latest| self.names.values().any(|inode| inode == latest));
            let found = self.names.get(&name).copied().or_else(by_others);
            found.filter(may).unwrap_or(opened)
        }
    }

    fn fstat(&mut self, by: usize, number: usize) -> Expected {
        if let Some(expected) = self.fstat_unbound(by, number) {
            return expected;
        }
        let size = |inode: Inode| self.stat(inode);
        match &self.descriptions[number].kind {
            Kind::Ordinary { inode } => Expected::Is(size(self.latest(*inode))),
            Kind::Appender { .. } => Expected::Any,
            Kind::Writer { session } => match self.sessions[*session].stage {
                // See the limits of W5: it may be the version before.
                Stage::Open if self.sessions[*session].how == "late" => Expected::Any,
                Stage::Open => Expected::Is(size(self.sessions[*session].shadow)),
                Stage::Done(_) | Stage::Lost => Expected::Any,
            },
            Kind::Reader { opened, bound, .. } => {
                let bound = bound.unwrap_or_else(|| self.current(by, number));
                Expected::OneOf(vec![size(*opened), size(bound)])
            }
        }
    }

    pub fn stat(&self, inode: Inode) -> Answer {
        Answer::Stat(self.files[inode].data.len() as u64, self.files[inode].modified)
    }

    /// A change of names that waits keeps the inodes that it has found locked in the kernel; those of open sessions are not among them.
    pub fn may_be_locked(&self, number: usize) -> bool {
        let staged = match self.descriptions[number].kind {
            Kind::Writer { session } => self.sessions[session].stage == Stage::Open,
            Kind::Reader { .. } | Kind::Ordinary { .. } | Kind::Appender { .. } => false,
        };
        !staged && !self.locked().is_empty()
    }

    /// Where a write goes.
    fn written_by(&mut self, by: usize, number: usize, what: &Do) -> Result<Inode, Expected> {
        self.before_change(by, number, what)?;
        let session = match self.descriptions[number].kind {
            Kind::Ordinary { inode } if self.files[inode].is_version => return Err(SKIP),
            Kind::Ordinary { inode } => return Ok(inode),
            Kind::Writer { session } => session,
            Kind::Reader { .. } | Kind::Appender { .. } => unreachable!("it has no such writes"),
        };
        let Some(session) = self.goes_on_in(number, session) else {
            return Err(errno("ESTALE"));
        };
        match what {
            // How long a file is says nothing about what is to be in it.
            Do::Ftruncate(_, length) if *length > 0 => self.note_change(session),
            _ => self.note_write(session),
        }
        Ok(self.sessions[session].shadow)
    }

    pub fn write(&mut self, by: usize, number: usize, inode: Inode, what: &Do) -> Expected {
        self.modify_as(self.user(by), inode);
        let description = &mut self.descriptions[number];
        let data = &mut self.files[inode].data;
        let (offset, text) = match what {
            Do::Ftruncate(_, length) => {
                data.resize(*length as usize, 0);
                return done();
            }
            Do::Pwrite(_, offset, text) => (*offset as usize, TEXTS[*text].as_bytes()),
            Do::Write(_, text) => (description.at.unwrap_or_default() as usize, TEXTS[*text].as_bytes()),
            _ => unreachable!("{what:?} writes nothing"),
        };
        let offset = if description.how.append { data.len() } else { offset };
        let end = offset + text.len();
        if data.len() < end {
            data.resize(end, 0);
        }
        data[offset..end].copy_from_slice(text);
        if matches!(what, Do::Write(..)) {
            // By O_APPEND the kernel goes by the size that it knows.
            description.at = (!description.how.append || !description.late_to_size).then_some(end as u64);
        }
        Expected::Is(Answer::Number(text.len() as i64))
    }

    fn close(&mut self, by: usize, slot: usize) -> Expected {
        let Some(closed) = self.slot(by, slot) else { return SKIP };
        let pid = self.pid(by);
        self.processes[by].as_mut().expect("it lives").slots[slot] = None;
        Expected::Is(self.closed(pid, closed.description, false))
    }

    fn closed(&mut self, by: Pid, number: usize, killed: bool) -> Answer {
        let answer = self.closed_descriptor(by, number, killed);
        self.release_lock(number, killed);
        answer
    }

    fn closed_descriptor(&mut self, by: Pid, number: usize, killed: bool) -> Answer {
        self.descriptions[number].descriptors -= 1;
        self.descriptions[number].unclosed = false;
        if let Kind::Appender { .. } = self.descriptions[number].kind {
            self.closed_appender(by, number, killed);
            return Answer::Done;
        }
        let Kind::Writer { session } = self.descriptions[number].kind else {
            return Answer::Done;
        };
        let answer = self.flush(by, session, killed);
        let is_of = |kind: &Kind| matches!(kind, Kind::Writer { session: other } if *other == session);
        let last = !self
            .descriptions
            .iter()
            .any(|other| other.descriptors > 0 && is_of(&other.kind));
        if last && self.sessions[session].stage == Stage::Open {
            // A like-numbered node was taken for another descriptor of it; the kernel's RELEASE ends it.
            self.settling = true;
            self.end(session, killed);
        }
        answer
    }

    fn dup(&mut self, by: usize, from: usize, to: usize) -> Expected {
        let (Some(old), None) = (self.slot(by, from), self.slot(by, to)) else {
            return SKIP;
        };
        self.descriptions[old.description].descriptors += 1;
        self.put_slot(by, to, old.description);
        done()
    }

    fn fork(&mut self, by: usize, child: usize) -> Expected {
        if self.processes[child].is_some() {
            return SKIP;
        }
        let parent = self.processes[by].clone().expect("it lives");
        for slot in parent.slots.iter().flatten() {
            self.descriptions[slot.description].descriptors += 1;
        }
        self.start(child, Some(parent.pid), parent.user);
        self.processes[child].as_mut().expect("it lives").slots = parent.slots;
        Expected::Forks(child)
    }

    /// The process closes what it has, in the order of the numbers, and is gone.
    fn leave_all(&mut self, by: usize, killed: bool) -> Expected {
        self.leave(by);
        let process = self.processes[by].as_mut().expect("it lives");
        let pid = process.pid;
        let mut slots: Vec<_> = std::mem::take(&mut process.slots).into_iter().flatten().collect();
        slots.sort_by_key(|slot| slot.fd);
        for slot in &slots {
            self.closed_descriptor(pid, slot.description, killed);
        }
        // The kernel tells of all that a process closes with its end (FLUSH) before it lets go of the first of them (RELEASE).
        for slot in &slots {
            self.release_lock(slot.description, killed);
        }
        self.processes[by] = None;
        for process in self.processes.iter_mut().flatten() {
            process.parent = process.parent.filter(|parent| *parent != pid);
        }
        self.settling |= killed;
        Expected::Ends
    }

    /// What a process, or somebody who is none of them, finds under each name.
    pub fn look(&mut self, by: usize) -> Answer {
        for found in NAMES
            .iter()
            .filter_map(|name| self.visible(by, *name))
            .collect::<Vec<_>>()
        {
            if self.user(by).may(self.files[found].rights, READ) {
                self.note_look(found);
            }
        }
        self.seen(self.user(by), |name| self.visible(by, name))
    }

    /// Somebody opens, by its name, what may be staged.
    fn note_look(&mut self, opened: Inode) {
        for session in &mut self.sessions {
            session.looked_at |= session.stage == Stage::Open && session.shadow == opened;
        }
    }

    pub fn look_from_outside(&self) -> Answer {
        self.seen(User::Root, |name| self.names.get(&name).copied())
    }

    /// st_nlink. Who stages something sees one name (R4, limit).
    fn links(&self, inode: Inode) -> u64 {
        self.names.values().filter(|other| **other == inode).count().max(1) as u64
    }

    fn seen(&self, user: User, find: impl Fn(Name) -> Option<Inode>) -> Answer {
        let show = |inode: Inode| {
            let file = &self.files[inode];
            Seen::File {
                rights: file.rights,
                links: self.links(inode),
                size: file.data.len() as u64,
                modified: file.modified,
                changed: file.changed,
                data: user.may(file.rights, READ).then(|| file.data.clone()),
            }
        };
        Answer::Seen(
            NAMES
                .iter()
                .map(|name| find(*name).map_or(Seen::Errno("ENOENT".to_owned()), show))
                .collect(),
        )
    }
}

impl Do {
    /// The names that it walks to.
    fn paths(&self) -> Vec<Name> {
        match self {
            Do::Open(_, name, _)
            | Do::Unlink(name)
            | Do::Truncate(name, _)
            | Do::Chmod(name, _)
            | Do::Chown(name, ..)
            | Do::Acl(name, ..)
            | Do::NoAcl(name)
            | Do::Touch(name)
            | Do::Utime(name, _) => vec![*name],
            Do::Rename(..) | Do::Exchange(..) | Do::Link(..) | Do::Look => NAMES.to_vec(),
            _ => Vec::new(),
        }
    }
}
