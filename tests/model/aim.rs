//! Steps that are made up at random, given to a process and a descriptor that fit.

use super::ops::{Do, MAPS, Op, PROCESSES, SLOTS};
use super::world::World;

impl World {
    /// The same step by a process that can do it, with a descriptor that it has: made up at random, most would come to nothing.
    pub fn aim(&self, op: &Op) -> Op {
        let Op(by, mut what) = op.clone();
        let has = |process: usize, slot: usize| self.slot(process, slot).is_some();
        let free = |process: usize| self.processes[process].as_ref().is_some_and(|process| !process.waits);
        if let Do::Open(slot, name, how) = what {
            let slot = (slot..slot + SLOTS)
                .map(|slot| slot % SLOTS)
                .find(|slot| !has(by, *slot));
            return slot.map_or(op.clone(), |slot| Op(by, Do::Open(slot, name, how)));
        }
        if let Some(map) = what.map_used() {
            let has = |process: usize, map: usize| {
                self.processes[process]
                    .as_ref()
                    .is_some_and(|process| process.maps[map].is_some())
            };
            let all = (by..by + PROCESSES)
                .flat_map(|process| (*map..*map + MAPS).map(move |map| (process % PROCESSES, map % MAPS)));
            let mut usable = all.filter(|(process, map)| free(*process) && has(*process, *map));
            let Some((by, found)) = usable.next() else {
                return op.clone();
            };
            *map = found;
            return Op(by, what);
        }
        let Some(slot) = what.slot_used() else {
            return Op(by, what);
        };
        let slots = |process: usize| {
            (*slot..*slot + SLOTS)
                .map(|slot| slot % SLOTS)
                .find(|slot| has(process, *slot))
        };
        let mut processes = (by..by + PROCESSES)
            .map(|process| process % PROCESSES)
            .filter(|process| free(*process));
        let Some((by, found)) = processes.find_map(|process| Some((process, slots(process)?))) else {
            return op.clone();
        };
        *slot = found;
        Op(by, what)
    }
}
