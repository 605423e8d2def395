//! W10 in the reference model: whole lines at once, the rest at the close, nothing of a killed one's.

use std::collections::BTreeMap;

use super::ops::{How, Name};
use super::permissions::WRITE;
use super::puppets::Answer;
use super::world::{Did, Expected, Inode, Kind, Pid, Place, Stage, What, World};

impl World {
    pub fn open_appender(&mut self, by: usize, slot: usize, name: Name, how: How) -> Expected {
        let home = self.home(name);
        let opened = self.names[&home];
        let kind = Kind::Appender {
            place: Place::At(home),
            user: self.user(by),
            opened,
            right: opened,
            in_vain: false,
            held: Vec::new(),
            known: vec![self.pid(by)],
        };
        self.put(by, slot, kind, how);
        Expected::Is(Answer::Done)
    }

    /// Whether somebody appends to one of these.
    pub fn grows(&self, names: &[Name]) -> bool {
        let mut open = self
            .descriptions
            .iter()
            .filter(|description| description.descriptors > 0);
        open.any(|description| matches!(description.kind, Kind::Appender { place: Place::At(name), .. } if names.contains(&name)))
    }

    /// A file that somebody appends to has another name, or none. Who appends follows a file that is renamed; where it was replaced, the lines go to what took
    /// its place.
    pub fn lines_follow(&mut self, what: What, before: &BTreeMap<Name, Inode>) {
        let (name, place) = match what {
            What::Rename(from, to) => (from, Place::At(to)),
            // The others have it still.
            What::Unlink(name) if self.names.values().any(|inode| before.get(&name) == Some(inode)) => return,
            What::Unlink(name) => (name, Place::Gone(before[&name])),
            What::Exchange(..) | What::Link(..) => return,
        };
        for description in &mut self.descriptions {
            match &mut description.kind {
                Kind::Appender { place: old, .. } if *old == Place::At(name) => *old = place,
                _ => {}
            }
        }
    }

    pub fn append(&mut self, number: Did, text: &[u8]) -> Expected {
        let wrote = Expected::Is(Answer::Number(text.len() as i64));
        let Kind::Appender {
            place, held, in_vain, ..
        } = &mut self.descriptions[number].kind
        else {
            unreachable!("it appends");
        };
        held.extend(text);
        let Place::At(name) = *place else { return wrote };
        let end = held.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if end == 0 || *in_vain {
            return wrote;
        }
        let covers = self.covers(number, name);
        let Kind::Appender { held, in_vain, .. } = &mut self.descriptions[number].kind else {
            unreachable!("it appends");
        };
        if !covers {
            *in_vain = true;
            return wrote;
        }
        let lines: Vec<u8> = held.drain(..end).collect();
        self.land(number, name, &lines);
        wrote
    }

    /// W11: whether it may write to what its name leads to by now.
    fn covers(&mut self, number: Did, name: Name) -> bool {
        let current = self.names[&name];
        let rights = self.descriptions[number].rights;
        let Kind::Appender { user, right, .. } = self.descriptions[number].kind else {
            unreachable!("it appends");
        };
        let covers = right == current
            || rights == Some(self.files[current].rights)
            || user.may(self.files[current].rights, WRITE);
        if let Kind::Appender { right, .. } = &mut self.descriptions[number].kind
            && covers
        {
            *right = current;
        }
        covers
    }

    /// Others see them at once, and sessions take them along.
    fn land(&mut self, number: Did, name: Name, lines: &[u8]) {
        let Kind::Appender { user, .. } = self.descriptions[number].kind else {
            unreachable!("it appends");
        };
        if lines.is_empty() {
            return;
        }
        let mut inode = self.names[&name];
        if self.files[inode].is_image {
            let before = self.files[inode].clone();
            inode = self.add_file(before.data, before.rights, before.is_version);
            self.give(name, inode);
            self.files[inode].is_image = false;
        }
        self.files[inode].data.extend(lines);
        self.modify_as(user, inode);
        self.show_times(inode);
        for session in &mut self.sessions {
            if session.name == name && session.stage == Stage::Open {
                // What goes on with a line that is in another version is a line of its own.
                let is_torn = session.appended.last().is_some_and(|byte| *byte != b'\n');
                if is_torn && session.appended_to != Some(inode) {
                    session.appended.push(b'\n');
                }
                session.appended.extend(lines);
                session.appended_to = Some(inode);
            }
        }
        // Many lines are one version, as long as somebody appends.
        if name.is_coordinated() {
            self.loosen(name);
        }
    }

    /// W12: it lets go of a lock, and what it has held back is everybody's.
    pub fn say_rest(&mut self, number: Did) {
        let Kind::Appender {
            place, held, in_vain, ..
        } = &mut self.descriptions[number].kind
        else {
            unreachable!("it appends");
        };
        if held.is_empty() || *in_vain {
            return;
        }
        let (place, held) = (*place, std::mem::take(held));
        match place {
            Place::At(name) if self.covers(number, name) => self.land(number, name, &held),
            Place::At(_) | Place::Gone(_) => self.recovered.push(held),
        }
    }

    pub fn closed_appender(&mut self, by: Pid, number: Did, killed: bool) {
        let Kind::Appender { place, known, .. } = &mut self.descriptions[number].kind else {
            unreachable!("it appends");
        };
        if !known.contains(&by) {
            known.push(by);
        }
        let (place, known) = (*place, known.clone());
        // Two handles of one file are not told apart by what /proc shows.
        let same = |kind: &Kind| matches!(kind, Kind::Appender { place: other, .. } if *other == place);
        let used = self.is_used(&known, same);
        let appends = |other: &super::world::Description| same(&other.kind) && other.descriptors > 0;
        let alone = self.descriptions.iter().filter(|other| appends(other)).count() <= 1;
        let heirs = self.left_to(by, same);
        if let Kind::Appender { held, known, .. } = &mut self.descriptions[number].kind
            && (alone || !held.is_empty())
        {
            // Otherwise nobody looks who else has it.
            known.extend(heirs);
        }
        let last = self.descriptions[number].descriptors == 0;
        if used && !last {
            return;
        }
        self.settling |= used || killed;
        let Kind::Appender { held, in_vain, .. } = &mut self.descriptions[number].kind else {
            return;
        };
        let (held, in_vain) = (std::mem::take(held), std::mem::take(in_vain));
        if held.is_empty() {
            return;
        }
        match place {
            Place::At(name) if !killed && !in_vain && self.covers(number, name) => self.land(number, name, &held),
            _ => self.recovered.push(held),
        }
    }
}
