//! What changes a name without a descriptor, in the reference model (W8).

use std::collections::{BTreeMap, VecDeque};

use super::locks::Whose;
use super::ops::{NAMES, Name, RW};
use super::permissions::WRITE;
use super::puppets::{Answer, Time};
use super::queue::Admission;
use super::world::{Change, Expected, Inode, Kind, Line, Pending, Pid, Place, Session, Sid, Stage, What, World};

fn errno(name: &str) -> Expected {
    Expected::Is(Answer::errno(name))
}

fn done() -> Expected {
    Expected::Is(Answer::Done)
}

impl World {
    pub fn change_names(&mut self, by: usize, what: What) -> Expected {
        let (first, second) = match what {
            What::Rename(a, b) | What::Exchange(a, b) | What::Link(a, b) if a == b => return Expected::Skip,
            What::Rename(a, b) | What::Exchange(a, b) | What::Link(a, b) => (a, Some(b)),
            What::Unlink(name) => (name, None),
        };
        let stranger = |name: &Name| matches!(self.admit(by, *name, false, false), Admission::Stranger);
        let odd = |name: &Name| stranger(name) || self.has_stepped_back(*name);
        // Of an ordinary file nobody is told.
        let ordinary: Vec<Name> = what.names().into_iter().filter(|name| !name.is_coordinated()).collect();
        if self.grows(&ordinary) || self.is_locked_by_inode(what) || what.names().iter().any(odd) {
            return Expected::Skip;
        }
        let stored = |name: &Name| {
            let own = self.nearest(by, self.home(*name));
            own.is_some_and(|own| self.files[self.sessions[own].shadow].poked)
        };
        if self.is_shared_and_used(by, what) || what.names().iter().any(stored) {
            return Expected::Skip;
        }
        let finds = |name: Name| self.visible(by, name).is_some();
        match what {
            _ if !finds(first) => return errno("ENOENT"),
            What::Exchange(_, second) if !finds(second) => return errno("ENOENT"),
            What::Link(_, second) if finds(second) => return errno("EEXIST"),
            _ => {}
        }
        match self.may_change(by, what) {
            Expected::Any => {}
            other => return other,
        }
        let own = self.own_sessions(by, what);
        if self.leaves_open(what, own) {
            return Expected::Skip;
        }
        if let Some(answer) = self.take_back(what, own) {
            return Expected::Is(answer);
        }
        let mut wants: VecDeque<Name> = [Some(first), second]
            .into_iter()
            .flatten()
            // link(2) changes only the new one.
            .filter(|name| name.is_coordinated() && !matches!(what, What::Link(from, _) if from == *name))
            .collect();
        wants.make_contiguous().sort();
        let change = Change {
            what,
            wants,
            has: Vec::new(),
        };
        self.take_next(by, change)
    }

    /// The sessions of its lineage on the first and on the second name: they move along, or go.
    fn own_sessions(&self, by: usize, what: What) -> [Option<Sid>; 2] {
        match what {
            What::Link(..) => [None, None],
            // The others lead to what its sessions publish.
            What::Unlink(name) if self.names_of(name).len() > 1 => [None, None],
            What::Unlink(name) => [self.nearest(by, self.home(name)), None],
            What::Rename(a, b) | What::Exchange(a, b) => [a, b].map(|name| self.nearest(by, self.home(name))),
        }
    }

    /// A lineage removes what it has not created yet.
    fn take_back(&mut self, what: What, own: [Option<Sid>; 2]) -> Option<Answer> {
        let (What::Unlink(name), Some(own)) = (what, own[0]) else {
            return None;
        };
        (!self.names.contains_key(&name)).then(|| {
            self.sessions[own].unlinked = true;
            self.locks.forget(name);
            Answer::Done
        })
    }

    /// What the kernel says about the permissions of who has found these files: nothing is [`Expected::Any`].
    fn may_change(&self, by: usize, what: What) -> Expected {
        let user = self.user(by);
        let rights = |name: Name| Some(self.files[self.visible(by, name)?].rights);
        let goes = |name: Name| match rights(name) {
            Some(file) => user.may_remove(self.dir(name), file),
            None => Ok(()),
        };
        let comes = |name: Name| match rights(name) {
            Some(file) => user.may_remove(self.dir(name), file),
            None => user.may_add(self.dir(name)),
        };
        let said = match what {
            // ENOENT comes first.
            _ if rights(what.names()[0]).is_none() => Ok(()),
            What::Unlink(name) => goes(name),
            What::Rename(from, to) => goes(from).and_then(|()| comes(to)),
            What::Exchange(a, b) => goes(a).and_then(|()| goes(b)),
            What::Link(from, to) => {
                let file = rights(from).expect("it is there");
                user.may_link(file, self.protected)
                    .and_then(|()| user.may_add(self.dir(to)))
            }
        };
        match (said, what) {
            (Ok(()), _) => Expected::Any,
            // Two names of one file: nothing is done, and nothing asked, where the kernel knows it.
            (Err(_), What::Rename(a, b) | What::Exchange(a, b)) if self.names_of(a).contains(&b) => Expected::Skip,
            (Err(why), _) => errno(why),
        }
    }

    /// A file gets another name, or loses one of several, while somebody appends to it, or in a way that the contract leaves open has it open or locked.
    fn is_shared_and_used(&self, by: usize, what: What) -> bool {
        let names = what.names().into_iter().flat_map(|name| {
            let mut names = self.names_of(name);
            names.push(name);
            names
        });
        let names: Vec<Name> = names.collect();
        let shared = names.iter().any(|name| self.names_of(*name).len() > 1) || matches!(what, What::Link(..));
        let written =
            |name: &Name| !self.lines[name].holders.is_empty() || self.is_kept_by_name(*name) || self.grows(&[*name]);
        let locked = |name: &Name| {
            let keys = [
                Some(Whose::Name(*name)),
                self.names.get(name).map(|inode| Whose::File(*inode)),
            ];
            let mut keys = keys
                .into_iter()
                .flatten()
                .filter_map(|whose| self.locks.keys.get(&whose));
            keys.any(|key| !self.locks.lines[*key].holders.is_empty())
        };
        let comes_along = self.leaves_sessions_alone(by, what);
        // A lock stays with the names that are left.
        let keeps_locks = match what {
            What::Link(from, _) => from.is_coordinated(),
            What::Unlink(name) => {
                let mut others = self.names_of(name).into_iter().filter(|other| *other != name);
                name.is_coordinated() && others.all(Name::is_coordinated)
            }
            What::Rename(..) | What::Exchange(..) => false,
        };
        let in_the_way = |name: &Name| (written(name) && !comes_along) || (locked(name) && !keeps_locks);
        shared && names.iter().any(in_the_way)
    }

    /// What its lineage has staged itself stays under the name that it is for.
    fn leaves_sessions_alone(&self, by: usize, what: What) -> bool {
        let mut names = what.names().into_iter().map(|name| self.home(name));
        let homes: Vec<Name> = names.clone().collect();
        match what {
            // Where its lines go when the last coordinated name goes, or another file comes, is not in the model.
            What::Unlink(name)
                if self
                    .names_of(name)
                    .iter()
                    .any(|other| *other != name && other.is_coordinated()) =>
            {
                true
            }
            What::Unlink(_) if self.grows(&homes) => false,
            What::Rename(..) | What::Exchange(..) if self.grows(&homes) => false,
            // What nobody but its creator finds yet is published by its link(2).
            What::Link(from, _) => self.names.contains_key(&from),
            // Nothing is done, and nobody asked, where the kernel knows that they are one file.
            What::Rename(a, b) | What::Exchange(a, b) if self.names_of(a).contains(&b) => false,
            What::Unlink(name) if self.home(name) != name => true,
            What::Unlink(_) | What::Rename(..) | What::Exchange(..) => {
                names.all(|name| self.nearest(by, name).is_none())
            }
        }
    }

    /// Another name stands for all by now: who writes the file, and who waits for that, goes along.
    fn rehome(&mut self, before: &BTreeMap<Name, Inode>) {
        let now = std::mem::replace(&mut self.names, before.clone());
        let homes: Vec<(Name, Name)> = NAMES.into_iter().map(|name| (name, self.home(name))).collect();
        self.names = now;
        for (name, was) in homes {
            let is = self.home(name);
            if is == was || !before.contains_key(&name) || before.get(&name) != self.names.get(&name) {
                continue;
            }
            self.locks.rename(Whose::Name(was), Whose::Name(is));
            let line = std::mem::take(self.line(was));
            let (moving, holders) = line.holders.into_iter().partition(|(_, session)| session.is_some());
            let (follow, waiters) = line.waiters.into_iter().partition(|waiter| match &waiter.pending {
                Pending::Open { name, .. } | Pending::Truncate { name, .. } => self.home(*name) == is,
                Pending::Names(change) => change.what.names().iter().any(|name| self.home(*name) == is),
                Pending::Relock(_) | Pending::Write(..) => true,
            });
            *self.line(was) = Line { holders, waiters };
            let moving: Vec<(Pid, Option<Sid>)> = moving;
            for session in moving.iter().filter_map(|(_, session)| *session) {
                self.sessions[session].name = is;
            }
            for description in &mut self.descriptions {
                if let Kind::Appender { place, .. } = &mut description.kind
                    && *place == Place::At(was)
                {
                    *place = Place::At(is);
                }
            }
            let line = self.line(is);
            line.holders.extend(moving);
            line.waiters.extend::<Vec<_>>(follow);
        }
    }

    /// A file gets an ordinary name while who has written it has it open: what is written later belongs to no rule then; see the limits of W8.
    fn leaves_open(&self, what: What, own: [Option<Sid>; 2]) -> bool {
        let open = |name: Name, own: Option<Sid>| own.is_some() || self.is_kept_open(name);
        match what {
            What::Rename(a, b) => !b.is_coordinated() && open(a, own[0]),
            What::Exchange(a, b) => {
                (!b.is_coordinated() && open(a, own[0])) || (!a.is_coordinated() && open(b, own[1]))
            }
            What::Link(a, b) => !b.is_coordinated() && open(a, own[0]),
            What::Unlink(_) => false,
        }
    }

    fn is_kept_by_name(&self, name: Name) -> bool {
        let mut open = self
            .descriptions
            .iter()
            .filter(|description| description.descriptors > 0);
        open.any(
            |description| matches!(description.kind, Kind::Writer { session } if self.sessions[session].name == name),
        )
    }

    /// Whether somebody whose session is over has this version open for writing still.
    fn is_kept_open(&self, name: Name) -> bool {
        let mut open = self
            .descriptions
            .iter()
            .filter(|description| description.descriptors > 0);
        let current = self.names.get(&name).copied();
        open.any(|description| match description.kind {
            Kind::Writer { session } => match self.sessions[session].stage {
                Stage::Done(content) => Some(content) == current,
                Stage::Open | Stage::Lost => false,
            },
            _ => false,
        })
    }

    /// W8: a change of names takes them as a session of no length does.
    pub fn take_next(&mut self, by: usize, mut change: Change) -> Expected {
        let pid = self.pid(by);
        while let Some(name) = change.wants.pop_front() {
            match self.admit(by, name, false, false) {
                Admission::Wait => return self.wait(by, name, Pending::Names(change)),
                Admission::Refused(why) => {
                    self.let_go(pid, change.has);
                    return errno(why);
                }
                Admission::Start | Admission::Join(_) | Admission::Private | Admission::Stranger => {
                    let name = self.home(name);
                    self.line(name).holders.push((pid, None));
                    change.has.push(name);
                }
            }
        }
        // Who waited has walked there again: what its lineage has opened meanwhile came before.
        let own = self.own_sessions(by, change.what);
        // Whoever it waited for may have ended a session by unlocking, and go on.
        self.unknown |= self.leaves_open(change.what, own);
        let answer = match self.may_change(by, change.what) {
            Expected::Is(answer) => answer,
            _ => match self.take_back(change.what, own) {
                Some(answer) => answer,
                None => self.carry_out(change.what, own),
            },
        };
        self.let_go(pid, change.has);
        // Who went along to another name that stands for all has its turn there.
        for name in NAMES {
            if self.lines[&name].holders.is_empty() {
                self.go_on(name);
            }
        }
        Expected::Is(answer)
    }

    /// What a session of its own has staged so far moves along, and what it writes later; replaced or removed, it goes.
    fn carry_out(&mut self, what: What, own: [Option<Sid>; 2]) -> Answer {
        let moving = match what {
            What::Rename(_, to) => vec![(own[0], to)],
            What::Exchange(a, b) => vec![(own[0], b), (own[1], a)],
            What::Unlink(_) | What::Link(..) => Vec::new(),
        };
        let moving: Vec<(Sid, Name)> = moving.into_iter().filter_map(|(own, to)| Some((own?, to))).collect();
        for (own, _) in &moving {
            let ended = self.end(*own, false);
            if ended != Answer::Done {
                return ended;
            }
        }
        let before = self.names.clone();
        let grows = self.grows(&what.names());
        let answer = self.carry_out_alone(what);
        if answer != Answer::Done {
            return answer;
        }
        self.rehome(&before);
        moving.iter().for_each(|(own, to)| self.sessions[*own].name = *to);
        for (own, _) in moving.iter().filter(|(_, to)| !to.is_coordinated()) {
            // Under an ordinary name its descriptors are those of any file.
            let Stage::Done(inode) = self.sessions[*own].stage else {
                continue;
            };
            for description in &mut self.descriptions {
                if matches!(description.kind, Kind::Writer { session } if session == *own) {
                    description.kind = Kind::Ordinary { inode };
                }
            }
        }
        let gone = match what {
            What::Rename(..) => own[1],
            What::Unlink(_) => own[0],
            What::Exchange(..) | What::Link(..) => None,
        };
        if let Some(gone) = gone {
            // All of its lineage's on that file.
            let name = self.sessions[gone].name;
            let of_file = |session: &&mut Session| session.name == name && session.stage == Stage::Open;
            let all = self.sessions.iter_mut().filter(of_file);
            all.filter(|session| session.how != "late")
                .for_each(|session| session.unlinked = true);
        }
        self.drift(what);
        if let What::Rename(gone, _) | What::Unlink(gone) = what
            && before != self.names
        {
            // What was appended to it beside a session is the file's, and went with it.
            let left = self.sessions.iter_mut().filter(|session| session.name == gone);
            left.for_each(|session| session.appended.clear());
        }
        if grows && before != self.names {
            self.lines_follow(what, &before);
            // What was appended so far is a version.
            NAMES.into_iter().for_each(|name| self.loosen(name));
            if let What::Rename(_, to) = what
                && let Some(inode) = self.names.get(&to)
            {
                self.files[*inode].is_version = true;
            }
        }
        match what {
            // Two names of one file: nothing was done.
            What::Rename(a, b) | What::Exchange(a, b) if self.names.get(&a) == self.names.get(&b) => {}
            What::Rename(a, b) | What::Exchange(a, b) | What::Link(a, b) => self.rename_times(&[a, b]),
            What::Unlink(_) => {}
        }
        answer
    }

    fn carry_out_alone(&mut self, what: What) -> Answer {
        let found = |name: Name| self.names.get(&name).copied();
        match what {
            What::Unlink(name) => {
                let is_alone = self.names_of(name).len() == 1;
                if self.names.remove(&name).is_none() {
                    return Answer::errno("ENOENT");
                }
                if is_alone {
                    self.record_removal(name);
                    self.locks.forget(name);
                } else {
                    // No tombstone (W8, limit).
                    NAMES.into_iter().for_each(|name| self.loosen(name));
                }
            }
            What::Rename(from, to) => {
                let Some(inode) = found(from) else {
                    return Answer::errno("ENOENT");
                };
                if found(to) == Some(inode) {
                    // Two names of one file: rename(2) does nothing.
                    return Answer::Done;
                }
                let is_alone = [from, to].iter().all(|name| self.names_of(*name).len() <= 1);
                self.names.remove(&from);
                self.names.insert(to, inode);
                if !is_alone {
                    self.files[inode].is_version |= to.is_coordinated();
                    NAMES.into_iter().for_each(|name| self.loosen(name));
                    return Answer::Done;
                }
                self.record_removal(from);
                self.locks.rename(Whose::of(from, inode), Whose::of(to, inode));
                self.record_arrival(to, inode, "rename");
                self.histories_move(from, to);
            }
            What::Exchange(a, b) => {
                let (Some(first), Some(second)) = (found(a), found(b)) else {
                    return Answer::errno("ENOENT");
                };
                let is_alone = [a, b].iter().all(|name| self.names_of(*name).len() == 1);
                self.names.insert(a, second);
                self.names.insert(b, first);
                if !is_alone {
                    self.files[first].is_version |= b.is_coordinated();
                    self.files[second].is_version |= a.is_coordinated();
                    NAMES.into_iter().for_each(|name| self.loosen(name));
                    return Answer::Done;
                }
                self.record_arrival(a, second, "exchange");
                self.record_arrival(b, first, "exchange");
                self.histories_move(a, b);
                self.histories_move(b, a);
            }
            What::Link(from, to) => {
                if found(to).is_some() {
                    return Answer::errno("EEXIST");
                }
                let Some(inode) = found(from) else {
                    return Answer::errno("ENOENT");
                };
                self.names.insert(to, inode);
                self.files[inode].is_version |= from.is_coordinated() || to.is_coordinated();
                NAMES.into_iter().for_each(|name| self.loosen(name));
            }
        }
        Answer::Done
    }

    /// R4: the inodes of these are changed by a change of their names.
    fn rename_times(&mut self, names: &[Name]) {
        for inode in names
            .iter()
            .filter_map(|name| self.names.get(name).copied())
            .collect::<Vec<_>>()
        {
            self.change(inode);
        }
    }

    /// A history follows its file to a coordinated name; what is listed before the last version is not looked at then.
    fn histories_move(&mut self, from: Name, to: Name) {
        if from.is_coordinated() && to.is_coordinated() {
            let last = self.histories[&to].versions.last().cloned();
            [from, to].into_iter().for_each(|name| self.loosen(name));
            self.histories.get_mut(&to).expect("it is there").versions.extend(last);
        }
    }

    fn record_removal(&mut self, name: Name) {
        if name.is_coordinated() {
            self.record(name, "unlink", Vec::new());
        }
    }

    fn record_arrival(&mut self, name: Name, inode: Inode, how: &'static str) {
        self.files[inode].is_version = name.is_coordinated();
        if name.is_coordinated() {
            self.record(name, how, self.files[inode].data.clone());
        }
    }

    pub fn truncate(&mut self, by: usize, name: Name, length: u64) -> Expected {
        let Some(found) = self.visible(by, name) else {
            return errno("ENOENT");
        };
        if !self.user(by).may(self.files[found].rights, WRITE) {
            return errno("EACCES");
        }
        if !name.is_coordinated() && self.names_of(name).len() > 1 {
            return Expected::Skip;
        }
        if !name.is_coordinated() {
            self.cut(by, found, length);
            return done();
        }
        let own = self.nearest(by, self.home(name));
        if let Some(own) = own.filter(|own| !self.sessions[*own].unlinked) {
            self.note_change(own);
            self.cut(by, found, length);
            return done();
        }
        match self.admit(by, self.home(name), false, false) {
            Admission::Stranger => Expected::Skip,
            Admission::Refused(why) => errno(why),
            Admission::Wait => self.wait(by, name, Pending::Truncate { name, length }),
            Admission::Start | Admission::Join(_) | Admission::Private => self.truncate_admitted(by, name, length),
        }
    }

    fn cut(&mut self, by: usize, inode: Inode, length: u64) {
        let before = self.files[inode].data.len() as u64;
        self.files[inode].data.resize(length as usize, 0);
        self.modify_as(self.user(by), inode);
        if before == length {
            // truncate(2): it may, or may not.
            self.files[inode].modified = Time::Whenever;
        }
    }

    pub fn truncate_admitted(&mut self, by: usize, name: Name, length: u64) -> Expected {
        let refused = |found: &Inode| !self.user(by).may(self.files[*found].rights, WRITE);
        if self.names.get(&name).is_some_and(refused) {
            return errno("EACCES");
        }
        match self.begin(by, name, RW, false, "truncate") {
            Ok(session) => {
                let shadow = self.sessions[session].shadow;
                self.cut(by, shadow, length);
                self.note_change(session);
                self.end(session, false);
                done()
            }
            Err(answer) => Expected::Is(answer),
        }
    }
}
