//! The table of flock(2) locks in the reference model: a file's lock is its name's, or its inode's.

use std::collections::BTreeMap;

use super::ops::Name;
use super::world::{Did, Inode};

/// What a lock is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// A coordinated file: whatever its name leads to.
    Name(Name),
    /// An ordinary one.
    File(Inode),
}

/// One file's lock. Descriptions, each with whether it has or wants it alone.
#[derive(Debug, Clone, Default)]
pub struct Line {
    pub holders: Vec<(Did, bool)>,
    /// With the process that is in flock(2).
    pub waiters: Vec<(usize, Did, bool)>,
}

/// All locks. A line that nobody is in is nobody's.
#[derive(Debug, Clone, Default)]
pub struct Locks {
    pub lines: Vec<Line>,
    pub keys: BTreeMap<Whose, usize>,
}

impl Whose {
    /// `name` is the one that stands for all of the file's.
    pub fn of(name: Name, inode: Inode) -> Whose {
        match name.is_coordinated() {
            true => Whose::Name(name),
            false => Whose::File(inode),
        }
    }
}

impl Line {
    pub fn fits(&self, number: Did, alone: bool) -> bool {
        let mut others = self.holders.iter().filter(|(other, _)| *other != number);
        !others.any(|(_, held_alone)| alone || *held_alone)
    }

    pub fn hold(&mut self, number: Did, alone: bool) {
        self.holders.retain(|(other, _)| *other != number);
        self.holders.push((number, alone));
    }

    /// Who waited and has it now, in order of arrival.
    pub fn wake(&mut self) -> Vec<(usize, Did)> {
        let mut woken = Vec::new();
        while let Some(next) = self
            .waiters
            .iter()
            .position(|(_, number, alone)| self.fits(*number, *alone))
        {
            let (process, number, alone) = self.waiters.remove(next);
            self.hold(number, alone);
            woken.push((process, number));
        }
        woken
    }
}

impl Locks {
    pub fn key(&mut self, whose: Whose) -> usize {
        let lines = &self.lines;
        self.keys
            .retain(|_, key| !lines[*key].holders.is_empty() || !lines[*key].waiters.is_empty());
        *self.keys.entry(whose).or_insert_with(|| {
            self.lines.push(Line::default());
            self.lines.len() - 1
        })
    }

    /// The file's name is gone: the next one of that name has another lock.
    pub fn forget(&mut self, name: Name) {
        self.keys.remove(&Whose::Name(name));
    }

    /// The lock goes with its file, unless the one that is replaced is locked.
    pub fn rename(&mut self, old: Whose, new: Whose) {
        let lines = &self.lines;
        self.keys
            .retain(|_, key| !lines[*key].holders.is_empty() || !lines[*key].waiters.is_empty());
        if let Some(key) = self.keys.remove(&old) {
            self.keys.entry(new).or_insert(key);
        }
    }

    /// How many there are.
    pub fn held(&self) -> usize {
        self.lines.iter().map(|line| line.holders.len()).sum()
    }
}
