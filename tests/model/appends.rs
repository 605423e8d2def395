//! W10 in the reference model: whole lines at once, the rest at the close, nothing of a killed one's.

use super::ops::{How, Name};
use super::puppets::Answer;
use super::world::{Did, Expected, Kind, Pid, Stage, World};

impl World {
    pub fn open_appender(&mut self, by: usize, slot: usize, name: Name, how: How) -> Expected {
        let kind = Kind::Appender {
            name,
            held: Vec::new(),
            known: vec![self.pid(by)],
        };
        self.put(by, slot, kind, how);
        Expected::Is(Answer::Done)
    }

    /// Whether somebody appends to one of these. What becomes of lines whose file is replaced, renamed or removed is not in the model.
    pub fn grows(&self, names: &[Name]) -> bool {
        let mut open = self
            .descriptions
            .iter()
            .filter(|description| description.descriptors > 0);
        open.any(|description| matches!(&description.kind, Kind::Appender { name, .. } if names.contains(name)))
    }

    pub fn append(&mut self, number: Did, text: &[u8]) -> Expected {
        let Kind::Appender { name, held, .. } = &mut self.descriptions[number].kind else {
            unreachable!("it appends");
        };
        let name = *name;
        held.extend(text);
        let end = held.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = held.drain(..end).collect();
        self.land(name, &lines);
        Expected::Is(Answer::Number(text.len() as i64))
    }

    /// Others see them at once, and sessions take them along.
    fn land(&mut self, name: Name, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let inode = self.names[&name];
        self.files[inode].data.extend(lines);
        for session in &mut self.sessions {
            if session.name == name && session.stage == Stage::Open {
                session.appended.extend(lines);
            }
        }
        // Many lines are one version, as long as somebody appends.
        self.loosen(name);
    }

    pub fn closed_appender(&mut self, by: Pid, number: Did, killed: bool) {
        let Kind::Appender { name, known, .. } = &mut self.descriptions[number].kind else {
            unreachable!("it appends");
        };
        if !known.contains(&by) {
            known.push(by);
        }
        let (name, known) = (*name, known.clone());
        // Two handles of one file are not told apart by what /proc shows.
        let same = |kind: &Kind| matches!(kind, Kind::Appender { name: other, .. } if *other == name);
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
        let Kind::Appender { held, .. } = &mut self.descriptions[number].kind else {
            return;
        };
        let held = std::mem::take(held);
        if !killed {
            self.land(name, &held);
        } else if !held.is_empty() {
            self.recovered.push(held);
        }
    }
}
