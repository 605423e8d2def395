//! What a file's history says of it after its directory was renamed, often and back again.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::record::Who;
use super::sim::{Dice, Plan, ROOT, SimDisk};
use super::tests_faults::info;
use super::*;
use crate::session::SessionId;

const NAMES: [&str; 3] = ["d", "e", "g"];

/// A file whose directory is renamed, and which is saved now and then.
struct World {
    disk: SimDisk,
    store: Store<SimDisk>,
    /// The directory's name.
    at: &'static str,
    clock: u64,
    /// When each content was saved.
    saved: BTreeMap<u64, Vec<u8>>,
}

impl World {
    fn new() -> World {
        let disk = SimDisk::new();
        disk.make_dir(&ROOT, OsStr::new("d")).unwrap();
        let dir = disk.open_dir(&ROOT, OsStr::new("d")).unwrap();
        disk.create(&dir, OsStr::new("f")).unwrap();
        let store = Store::open(disk.clone(), ROOT, 5).unwrap().0;
        World {
            disk,
            store,
            at: "d",
            clock: 10,
            saved: BTreeMap::new(),
        }
    }

    fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn path(&self) -> PathBuf {
        Path::new(self.at).join("f")
    }

    fn begin(&mut self) -> Shadow<SimDisk> {
        let (now, path) = (self.now(), self.path());
        let dir = self.disk.open_dir(&ROOT, OsStr::new(self.at)).unwrap();
        let current = self.disk.open(&dir, OsStr::new("f")).unwrap();
        let based_on = self.store.version_of(&path, &current).unwrap();
        let who = Who::default();
        self.store
            .begin(SessionId(now), &path, Some(&current), who, based_on, now)
            .unwrap()
    }

    fn end(&mut self, shadow: Shadow<SimDisk>) -> Published {
        let (now, path) = (self.now(), self.path());
        let content = format!("saved at {now}").into_bytes();
        self.disk.write_at(&shadow.file, &content, 0).unwrap();
        self.saved.insert(now, content);
        let dir = self.disk.open_dir(&ROOT, OsStr::new(self.at)).unwrap();
        let place = Place {
            dir: &dir,
            name: OsStr::new("f"),
            path: &path,
        };
        let mut info = info(now);
        info.retain.keep = 1000;
        self.store.publish(shadow, &place, &info).unwrap()
    }

    fn save(&mut self) -> Published {
        let shadow = self.begin();
        self.end(shadow)
    }

    fn rename(&mut self, to: &'static str) {
        let (now, from) = (self.now(), self.at);
        let rename = || self.disk.rename((&ROOT, OsStr::new(from)), (&ROOT, OsStr::new(to)));
        self.store
            .move_directories(&[(Path::new(from), Path::new(to))], now, rename)
            .unwrap();
        self.at = to;
    }

    /// Another file that has a name for a while, saves and is gone.
    fn stranger(&mut self, at: &'static str) {
        self.disk.make_dir(&ROOT, OsStr::new(at)).unwrap();
        let dir = self.disk.open_dir(&ROOT, OsStr::new(at)).unwrap();
        self.disk.create(&dir, OsStr::new("f")).unwrap();
        let own = std::mem::take(&mut self.saved);
        let home = std::mem::replace(&mut self.at, at);
        self.save();
        (self.at, self.saved) = (home, own);
        let (now, path) = (self.now(), Path::new(at).join("f"));
        let place = Place {
            dir: &dir,
            name: OsStr::new("f"),
            path: &path,
        };
        self.store.remove(&place, &Who::default(), &info(now)).unwrap();
        self.disk.remove_dir(&ROOT, OsStr::new(at)).unwrap();
    }

    /// Each save is listed once, in order of time, is what was saved, and says which was there before.
    fn check(&self, context: &str) {
        let path = self.path();
        let listed = self.store.history().versions(&path).unwrap();
        let own: Vec<_> = listed
            .iter()
            .rev()
            .filter(|version| self.saved.contains_key(&version.record.time))
            .map(|version| &version.record)
            .collect();
        let times: Vec<u64> = own.iter().map(|record| record.time).collect();
        let wanted: Vec<u64> = self.saved.keys().copied().collect();
        assert_eq!(times, wanted, "{context}: {listed:#?}");
        for record in &own {
            let kept = self.store.history().open_version(&path, record.version).unwrap();
            let mut bytes = vec![0; kept.bytes as usize];
            self.disk.read_at(&kept.file, &mut bytes, 0).unwrap();
            assert_eq!(bytes, self.saved[&record.time], "{context}: {record:?}");
        }
        for pair in own.windows(2) {
            let before = Some(pair[0].version);
            assert_eq!(
                (pair[1].based_on, pair[1].replaced, pair[1].stale),
                (before, before, false),
                "{context}: {:?}",
                pair[1]
            );
        }
    }
}

#[test]
fn a_file_whose_directory_is_renamed_forth_and_back_lists_each_save_once() {
    let mut world = World::new();
    for round in 1..=40 {
        let done = world.save();
        // The empty file that was found is the first.
        assert_eq!(done.version, round + 1);
        world.check(&format!("save {round}"));
        let to = if world.at == "d" { "e" } else { "d" };
        world.rename(to);
        world.check(&format!("rename {round}"));
    }
}

#[test]
fn a_file_whose_directory_goes_anywhere_while_others_use_its_names_lists_each_save_once() {
    for seed in 1..=60 {
        let (mut world, mut dice) = (World::new(), Dice(seed * 0x9E37_79B9));
        for step in 0..40 {
            let context = format!("seed {seed}, step {step}");
            let other = || NAMES.into_iter().filter(|name| *name != world.at).collect::<Vec<_>>();
            let to = other()[dice.roll(2) as usize];
            match dice.roll(6) {
                0 | 1 => drop(world.save()),
                2 | 3 => world.rename(to),
                4 => world.stranger(to),
                _ => {
                    let shadow = world.begin();
                    world.rename(to);
                    let done = world.end(shadow);
                    assert!(!done.stale, "{context}");
                }
            }
            world.check(&context);
            if dice.roll(5) == 0 {
                drop(world.store);
                world.disk = world.disk.fork(Plan::Never);
                world.store = Store::open(world.disk.clone(), ROOT, 5).unwrap().0;
                world.check(&format!("{context}, by the next daemon"));
            }
        }
    }
}
