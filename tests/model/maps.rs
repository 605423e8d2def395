//! Mappings in the reference model (R1, W5): a reader's shows the version that it has open, a writer's what it stages; and what is stored through that one is
//! in the version that its close publishes.

use super::ops::Share;
use super::puppets::{Answer, Time};
use super::world::{Did, Expected, Inode, Kind, Sid, Stage, World};

/// A whole file as it was, in the memory of a process.
#[derive(Debug, Clone, Copy)]
pub struct Map {
    description: Did,
    inode: Inode,
    length: usize,
    /// A writer's; through its handle's next session nothing is said of it.
    session: Option<Sid>,
    share: Share,
}

impl World {
    pub fn map(&mut self, by: usize, slot: usize, map: usize, share: Share) -> Expected {
        let process = self.processes[by].as_ref().expect("it lives");
        let (Some(slot), None) = (process.slots[slot], process.maps[map]) else {
            return Expected::Skip;
        };
        let description = &self.descriptions[slot.description];
        let (inode, session) = match description.kind {
            // R2: not before its version is settled, and that is the one that it opened.
            Kind::Reader {
                opened,
                bound,
                moved: None,
                ..
            } if bound == Some(opened) => (opened, None),
            Kind::Writer { session } if self.is_first_of_its_node(session) && share != Share::Private => {
                (self.sessions[session].shadow, Some(session))
            }
            Kind::Ordinary { inode } if !self.files[inode].is_version => (inode, None),
            _ => return Expected::Skip,
        };
        let length = self.files[inode].data.len();
        if length == 0 || description.lock.is_some() || self.may_be_locked(slot.description) {
            return Expected::Skip;
        }
        if !description.how.read || (share == Share::Written && !description.how.write) {
            return Expected::Is(Answer::errno("EACCES"));
        }
        let made = Map {
            description: slot.description,
            inode,
            length,
            session,
            share,
        };
        self.processes[by].as_mut().expect("it lives").maps[map] = Some(made);
        Expected::Is(Answer::Done)
    }

    /// It has not begun again, and nobody has on its node.
    fn is_first_of_its_node(&self, session: Sid) -> bool {
        let it = &self.sessions[session];
        it.stage == Stage::Open && it.node == session && it.how == "close" && !it.stepped_back
    }

    pub fn peek(&mut self, by: usize, map: usize) -> Expected {
        let Some(map) = self.mapped(by, map) else {
            return Expected::Skip;
        };
        let lost = map
            .session
            .is_some_and(|session| self.sessions[session].stage == Stage::Lost);
        let data = &self.files[self.latest_mapped(map)].data;
        if lost || self.goes_on_elsewhere(map) || self.may_be_emptied(map) || data.len() < map.length {
            return Expected::Skip;
        }
        let shown = data[..map.length].to_vec();
        if let Some(session) = map.session {
            self.sessions[session].looked_at = true;
        }
        Expected::Is(Answer::Bytes(shown))
    }

    /// Who empties what he has mapped himself gets SIGBUS, as anywhere.
    fn may_be_emptied(&self, map: Map) -> bool {
        map.session.is_some_and(|mapped| {
            let name = self.sessions[mapped].name;
            let mut later = self.sessions.iter().skip(mapped + 1);
            later.any(|session| session.name == name && session.emptied)
        })
    }

    pub fn poke(&mut self, by: usize, map: usize, at: usize, text: &[u8]) -> Expected {
        let Some(map) = self.mapped(by, map).filter(|map| map.share == Share::Written) else {
            return Expected::Skip;
        };
        let process = self.processes[by].as_ref().expect("it lives");
        let has_it = process
            .slots
            .iter()
            .flatten()
            .any(|slot| slot.description == map.description);
        let open = map
            .session
            .is_none_or(|session| self.sessions[session].stage == Stage::Open && !self.sessions[session].stepped_back);
        let file = &self.files[map.inode];
        let shorter = at >= map.length || file.data.len() < map.length;
        let version = map.session.is_none() && file.is_version;
        // When they go by this, the kernel decides (O1).
        let set_id = file.rights.has_set_id();
        // After the close it is late (W5, limit).
        if !has_it
            || !open
            || shorter
            || version
            || set_id
            || self.goes_on_elsewhere(map)
            || self.may_be_locked(map.description)
        {
            return Expected::Skip;
        }
        let end = (at + text.len()).min(map.length);
        let file = &mut self.files[map.inode];
        file.data[at..end].copy_from_slice(&text[..end - at]);
        file.poked = true;
        // When that is a change, the kernel decides, at its next msync(2) or close(2).
        file.modified = Time::Whenever;
        if let Some(session) = map.session {
            self.note_change(session);
        }
        Expected::Is(Answer::Done)
    }

    pub fn unmap(&mut self, by: usize, map: usize) -> Expected {
        match self.processes[by].as_mut().expect("it lives").maps[map].take() {
            Some(_) => Expected::Is(Answer::Done),
            None => Expected::Skip,
        }
    }

    /// Whether somebody has a mapping of it, or of what else shares its session.
    pub fn is_mapped(&self, number: Did) -> bool {
        let session = |number: Did| match self.descriptions[number].kind {
            Kind::Writer { session } => Some(session),
            _ => None,
        };
        let mut maps = self
            .processes
            .iter()
            .flatten()
            .flat_map(|process| process.maps.iter().flatten());
        maps.any(|map| {
            let shared = session(number).is_some() && session(number) == session(map.description);
            shared || map.description == number
        })
    }

    fn mapped(&self, by: usize, map: usize) -> Option<Map> {
        self.processes[by].as_ref().and_then(|process| process.maps[map])
    }

    /// The handle has another session by now.
    fn goes_on_elsewhere(&self, map: Map) -> bool {
        let now = match self.descriptions[map.description].kind {
            Kind::Writer { session } => Some(session),
            _ => None,
        };
        now != map.session
    }

    /// An ordinary name shows what the file holds by now.
    fn latest_mapped(&self, map: Map) -> Inode {
        match self.descriptions[map.description].kind {
            Kind::Ordinary { .. } => self.latest(map.inode),
            _ => map.inode,
        }
    }
}
