//! What changes a name without a descriptor, in the reference model (W8).

use std::collections::VecDeque;

use super::locks::Whose;
use super::ops::{Name, RW};
use super::puppets::Answer;
use super::queue::Admission;
use super::world::{Change, Expected, Inode, Kind, Pending, Sid, Stage, What, World};

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
            What::Link(a, _) if a.is_coordinated() => return Expected::Skip,
            What::Rename(a, b) | What::Exchange(a, b) | What::Link(a, b) => (a, Some(b)),
            What::Unlink(name) => (name, None),
        };
        let stranger = |name: &Name| matches!(self.admit(by, *name, false, false), Admission::Stranger);
        let odd = |name: &Name| stranger(name) || self.has_stepped_back(*name);
        if self.grows(&what.names()) || self.is_locked_by_inode(what) || what.names().iter().any(odd) {
            return Expected::Skip;
        }
        let finds = |name: Name| self.visible(by, name).is_some();
        match what {
            _ if !finds(first) => return errno("ENOENT"),
            What::Exchange(_, second) if !finds(second) => return errno("ENOENT"),
            What::Link(_, second) if finds(second) => return errno("EEXIST"),
            _ => {}
        }
        let own = match what {
            What::Link(..) => [None, None],
            _ => [Some(first), second].map(|name| self.nearest(by, name?)),
        };
        let leaves =
            (own[0].is_some() || self.is_kept_open(first)) && second.is_some_and(|name| !name.is_coordinated());
        let left = second.is_some_and(|name| own[1].is_some() || self.is_kept_open(name))
            && matches!(what, What::Exchange(..))
            && !first.is_coordinated();
        if leaves || left {
            // What is written later belongs to no rule then; see the limits of W8.
            return Expected::Skip;
        }
        if let (What::Unlink(name), Some(own)) = (what, own[0])
            && !self.names.contains_key(&name)
        {
            self.sessions[own].unlinked = true;
            self.locks.forget(name);
            return Expected::Is(Answer::Done);
        }
        let mut wants: VecDeque<Name> = [Some(first), second]
            .into_iter()
            .flatten()
            .filter(|name| name.is_coordinated())
            .collect();
        wants.make_contiguous().sort();
        let change = Change {
            what,
            wants,
            has: Vec::new(),
            own,
        };
        self.take_next(by, change)
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
                    self.line(name).holders.push((pid, None));
                    change.has.push(name);
                }
            }
        }
        let answer = self.carry_out(change.what, change.own);
        self.let_go(pid, change.has);
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
        moving.iter().for_each(|(own, _)| self.end(*own, false));
        let answer = self.carry_out_alone(what);
        if answer != Answer::Done {
            return answer;
        }
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
            self.sessions[gone].unlinked = true;
        }
        self.drift(what);
        answer
    }

    fn carry_out_alone(&mut self, what: What) -> Answer {
        let found = |name: Name| self.names.get(&name).copied();
        match what {
            What::Unlink(name) => {
                if self.names.remove(&name).is_none() {
                    return Answer::errno("ENOENT");
                }
                self.record_removal(name);
                self.locks.forget(name);
            }
            What::Rename(from, to) => {
                let Some(inode) = found(from) else {
                    return Answer::errno("ENOENT");
                };
                self.names.remove(&from);
                self.names.insert(to, inode);
                self.record_removal(from);
                self.locks.rename(Whose::of(from, inode), Whose::of(to, inode));
                self.record_arrival(to, inode, "rename");
                self.histories_move(from, to);
            }
            What::Exchange(a, b) => {
                let (Some(first), Some(second)) = (found(a), found(b)) else {
                    return Answer::errno("ENOENT");
                };
                self.names.insert(a, second);
                self.names.insert(b, first);
                self.record_arrival(a, second, "exchange");
                self.record_arrival(b, first, "exchange");
                self.histories_move(a, b);
                self.histories_move(b, a);
            }
            What::Link(from, to) => {
                if found(to).is_some() {
                    return Answer::errno("EEXIST");
                }
                let Some(inode) = self.names.remove(&from) else {
                    return Answer::errno("ENOENT");
                };
                self.names.insert(to, inode);
                self.files[inode].is_version = to.is_coordinated();
                self.loosen(to);
            }
        }
        Answer::Done
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
        if !name.is_coordinated() {
            self.files[found].data.resize(length as usize, 0);
            return done();
        }
        if let Some(own) = self.nearest(by, name).filter(|own| !self.sessions[*own].unlinked) {
            self.sessions[own].changed = true;
            self.files[found].data.resize(length as usize, 0);
            return done();
        }
        match self.admit(by, name, false, false) {
            Admission::Stranger => Expected::Skip,
            Admission::Refused(why) => errno(why),
            Admission::Wait => self.wait(by, name, Pending::Truncate { name, length }),
            Admission::Start | Admission::Join(_) | Admission::Private => self.truncate_admitted(by, name, length),
        }
    }

    pub fn truncate_admitted(&mut self, by: usize, name: Name, length: u64) -> Expected {
        match self.begin(by, name, RW, false, "truncate") {
            Ok(session) => {
                let shadow = self.sessions[session].shadow;
                self.files[shadow].data.resize(length as usize, 0);
                self.sessions[session].changed = true;
                self.end(session, false);
                done()
            }
            Err(answer) => Expected::Is(answer),
        }
    }
}
