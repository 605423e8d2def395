//! A disk in memory that fails or stops at the N-th operation and forgets what was not synced.
//!
//! Un-synced file data and un-synced directory operations are lost independently. One dependency is kept: an operation
//! on a name is not kept without the earlier ones on that same name (a rename cannot move an entry that never was).
//!
//! As the system calls do, it refuses to change what was opened for reading.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Disk, Entry, Kind, Stat};
use super::record::Who;

pub type Ino = u64;
pub const ROOT: Ino = 1;

/// When to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    Never,
    Once(u64, i32),
    From(u64, i32),
}

/// What is open, and whether for writing.
#[derive(Clone, Copy)]
pub struct Open {
    pub ino: Ino,
    writable: bool,
}

impl Open {
    fn writable(ino: Ino) -> Open {
        Open { ino, writable: true }
    }

    /// `code` is what the system call says to a descriptor that was opened O_RDONLY.
    fn for_writing(&self, code: i32) -> io::Result<Ino> {
        match self.writable {
            true => Ok(self.ino),
            false => Err(errno(code)),
        }
    }
}

#[derive(Clone, Default)]
struct Inode {
    dir: Option<BTreeMap<OsString, Ino>>,
    data: Vec<u8>,
    mtime: i64,
    ctime: i64,
    synced: (Vec<u8>, i64),
    /// An fsync failed: later ones succeed and make nothing durable, as on Linux.
    sync_lies: bool,
}

#[derive(Clone)]
struct Op(Vec<(Ino, OsString, Option<Ino>)>);

#[derive(Clone)]
struct World {
    inodes: BTreeMap<Ino, Inode>,
    /// Directories as they are on the platter.
    platter: BTreeMap<Ino, BTreeMap<OsString, Ino>>,
    pending: Vec<Op>,
    clock: i64,
    ops: u64,
    plan: Plan,
    /// Counted up where un-synced things are lost.
    mounting: u64,
    /// Nothing in the root can be exchanged.
    fixed: bool,
    /// From this operation on there is no room.
    full_from: u64,
}

#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<World>>);

/// A small generator (xorshift): the tests need the same dice each time.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl World {
    fn step(&mut self) -> io::Result<()> {
        let n = self.ops;
        self.ops += 1;
        match self.plan {
            Plan::Once(at, code) if n == at => Err(errno(code)),
            Plan::From(at, code) if n >= at => Err(errno(code)),
            _ => Ok(()),
        }
    }

    /// A step that takes room.
    fn room(&mut self) -> io::Result<()> {
        self.step()?;
        match self.ops > self.full_from {
            true => Err(errno(libc::ENOSPC)),
            false => Ok(()),
        }
    }

    fn stat(&mut self, ino: Ino) -> io::Result<Stat> {
        self.step()?;
        let i = &self.inodes[&ino];
        let links = self
            .inodes
            .values()
            .filter_map(|d| d.dir.as_ref())
            .flat_map(|d| d.values());
        Ok(Stat {
            kind: if i.dir.is_some() { Kind::Dir } else { Kind::File },
            dev: 1,
            ino,
            size: i.data.len() as u64,
            mtime_ns: i.mtime,
            ctime_ns: i.ctime,
            nlink: links.filter(|other| **other == ino).count() as u64,
            has_set_id: false,
        })
    }

    fn get(&self, dir: Ino, name: &OsStr) -> io::Result<Ino> {
        let entries = self.inodes[&dir].dir.as_ref().ok_or_else(|| errno(libc::ENOTDIR))?;
        entries.get(name).copied().ok_or_else(|| errno(libc::ENOENT))
    }

    fn change(&mut self, changes: Vec<(Ino, OsString, Option<Ino>)>) {
        self.clock += 1;
        for (dir, name, to) in &changes {
            let entries = self.inodes.get_mut(dir).and_then(|d| d.dir.as_mut()).unwrap();
            let old = match to {
                Some(ino) => entries.insert(name.clone(), *ino),
                None => entries.remove(name),
            };
            for ino in old.iter().chain(to) {
                self.inodes.get_mut(ino).unwrap().ctime = self.clock;
            }
        }
        self.pending.push(Op(changes));
    }

    fn new_inode(&mut self, inode: Inode) -> Ino {
        let ino = self.inodes.keys().next_back().unwrap() + 1;
        self.clock += 1;
        let clock = self.clock;
        self.inodes.insert(
            ino,
            Inode {
                mtime: clock,
                ctime: clock,
                synced: (Vec::new(), clock),
                ..inode
            },
        );
        ino
    }

    /// The pending operations in `wanted`, and what they build on.
    fn closed(&self, wanted: impl Fn(usize, &Op) -> bool) -> HashSet<usize> {
        let mut chosen = HashSet::new();
        let mut names: HashSet<(Ino, &OsStr)> = HashSet::new();
        for (i, op) in self.pending.iter().enumerate().rev() {
            if wanted(i, op) || op.0.iter().any(|(d, n, _)| names.contains(&(*d, n.as_os_str()))) {
                chosen.insert(i);
                names.extend(op.0.iter().map(|(d, n, _)| (*d, n.as_os_str())));
            }
        }
        chosen
    }

    /// A directory that nothing leads to is gone, as after fsck(8).
    fn forget_orphans(&mut self) {
        let (mut reached, mut todo) = (HashSet::new(), vec![ROOT]);
        while let Some(dir) = todo.pop() {
            if reached.insert(dir) {
                todo.extend(
                    self.platter
                        .get(&dir)
                        .into_iter()
                        .flat_map(|entries| entries.values().copied()),
                );
            }
        }
        self.platter.retain(|dir, _| reached.contains(dir));
    }

    fn persist(&mut self, chosen: &HashSet<usize>) {
        let pending = std::mem::take(&mut self.pending);
        for (i, op) in pending.into_iter().enumerate() {
            if !chosen.contains(&i) {
                self.pending.push(op);
                continue;
            }
            for (dir, name, to) in op.0 {
                let entries = self.platter.entry(dir).or_default();
                match to {
                    Some(ino) => entries.insert(name, ino),
                    None => entries.remove(&name),
                };
            }
        }
    }
}

impl SimDisk {
    pub fn new() -> SimDisk {
        let root = Inode {
            dir: Some(BTreeMap::new()),
            ..Inode::default()
        };
        SimDisk(Arc::new(Mutex::new(World {
            inodes: BTreeMap::from([(ROOT, root)]),
            platter: BTreeMap::new(),
            pending: Vec::new(),
            clock: 1000,
            ops: 0,
            plan: Plan::Never,
            mounting: 1,
            fixed: false,
            full_from: u64::MAX,
        })))
    }

    /// From now on nothing in the root can be exchanged, as if it were mount points.
    pub fn fix_names(&self) {
        self.0.lock().fixed = true;
    }

    /// An independent copy, everything synced, counting from zero.
    pub fn fork(&self, plan: Plan) -> SimDisk {
        let mut world = self.0.lock().clone();
        let all = (0..world.pending.len()).collect();
        world.persist(&all);
        world
            .inodes
            .values_mut()
            .for_each(|i| i.synced = (i.data.clone(), i.mtime));
        world.ops = 0;
        world.plan = plan;
        SimDisk(Arc::new(Mutex::new(world)))
    }

    /// The disk is well again.
    pub fn heal(&self) {
        let mut world = self.0.lock();
        world.plan = Plan::Never;
        world.full_from = u64::MAX;
    }

    /// After so many operations more there is no room for anything that takes some, whatever is removed.
    pub fn fill(&self, after: u64) {
        let mut world = self.0.lock();
        world.full_from = world.ops + after;
    }

    pub fn ops(&self) -> u64 {
        self.0.lock().ops
    }

    pub fn pending(&self) -> usize {
        self.0.lock().pending.len()
    }

    /// What the machine finds after a power failure: `keep` says which un-synced directory operations are kept, `dice`
    /// which un-synced data is kept, lost, or torn.
    pub fn after_crash(&self, keep: impl Fn(usize) -> bool, dice: &mut Dice, plan: Plan) -> SimDisk {
        let mut world = self.0.lock().clone();
        // Keep a subset that is closed downwards: an operation is lost with anything that it builds on.
        let mut lost: HashSet<(Ino, OsString)> = HashSet::new();
        let mut kept = HashSet::new();
        for (i, op) in world.pending.iter().enumerate() {
            if keep(i) && !op.0.iter().any(|(d, n, _)| lost.contains(&(*d, n.clone()))) {
                kept.insert(i);
            } else {
                lost.extend(op.0.iter().map(|(d, n, _)| (*d, n.clone())));
            }
        }
        world.mounting += 1;
        world.persist(&kept);
        world.pending.clear();
        world.forget_orphans();
        let platter = world.platter.clone();
        for (ino, inode) in &mut world.inodes {
            if inode.dir.is_some() {
                inode.dir = Some(platter.get(ino).cloned().unwrap_or_default());
            } else if (&inode.data, inode.mtime) != (&inode.synced.0, inode.synced.1) {
                match dice.roll(3) {
                    0 => {}
                    1 => (inode.data, inode.mtime) = inode.synced.clone(),
                    _ => {
                        // What was synced and not written since is there.
                        let sure = if inode.data.starts_with(&inode.synced.0) {
                            inode.synced.0.len()
                        } else {
                            0
                        };
                        let half = sure.max(inode.data.len() / 2);
                        inode.data[half..].fill(0);
                    }
                }
            }
            inode.synced = (inode.data.clone(), inode.mtime);
        }
        world.ops = 0;
        world.plan = plan;
        SimDisk(Arc::new(Mutex::new(world)))
    }

    /// Every name below `dir` and the content of the files.
    pub fn tree(&self) -> BTreeMap<String, Vec<u8>> {
        let world = self.0.lock();
        let mut out = BTreeMap::new();
        let mut todo = vec![(ROOT, String::new())];
        while let Some((dir, path)) = todo.pop() {
            for (name, ino) in world.inodes[&dir].dir.as_ref().unwrap() {
                let path = format!("{path}/{}", name.to_string_lossy());
                match world.inodes[ino].dir {
                    Some(_) => todo.push((*ino, path)),
                    None => drop(out.insert(path, world.inodes[ino].data.clone())),
                }
            }
        }
        out
    }

    pub fn tmpfile(&self) -> Open {
        Open::writable(self.0.lock().new_inode(Inode::default()))
    }
}

impl Disk for SimDisk {
    type File = Open;
    type Dir = Ino;

    fn open_dir(&self, dir: &Ino, name: &OsStr) -> io::Result<Ino> {
        let mut w = self.0.lock();
        w.step()?;
        let ino = w.get(*dir, name)?;
        if w.inodes[&ino].dir.is_some() {
            Ok(ino)
        } else {
            Err(errno(libc::ENOTDIR))
        }
    }

    fn make_dir(&self, dir: &Ino, name: &OsStr) -> io::Result<()> {
        let mut w = self.0.lock();
        w.room()?;
        if w.get(*dir, name).is_ok() {
            return Err(errno(libc::EEXIST));
        }
        let ino = w.new_inode(Inode {
            dir: Some(BTreeMap::new()),
            ..Inode::default()
        });
        w.change(vec![(*dir, name.to_owned(), Some(ino))]);
        Ok(())
    }

    fn restrict_dir(&self, _: &Ino, _: &Ino) -> io::Result<()> {
        self.0.lock().step()
    }

    fn give(&self, _: &Open, _: &Ino) {}

    fn give_dir(&self, _: &Ino, _: &Ino) {}

    fn is_given(&self, _: &Open, _: &Ino) -> bool {
        true
    }

    fn owner_unlike_ours(&self, _: &Ino, _: &OsStr) -> io::Result<Option<u32>> {
        Ok(None)
    }

    fn is_ours(&self, _: &Ino) -> bool {
        true
    }

    fn mounting(&self, _: &Ino) -> Option<u64> {
        Some(self.0.lock().mounting)
    }

    fn list(&self, dir: &Ino) -> io::Result<Vec<Entry>> {
        let mut w = self.0.lock();
        w.step()?;
        let kind = |ino: &Ino| {
            if w.inodes[ino].dir.is_some() {
                Kind::Dir
            } else {
                Kind::File
            }
        };
        let entries = w.inodes[dir].dir.as_ref().unwrap();
        Ok(entries
            .iter()
            .map(|(name, ino)| Entry {
                name: name.clone(),
                kind: kind(ino),
            })
            .collect())
    }

    fn sync_dir(&self, dir: &Ino) -> io::Result<()> {
        let mut w = self.0.lock();
        w.step()?;
        let chosen = w.closed(|_, op| op.0.iter().any(|(d, _, _)| d == dir));
        w.persist(&chosen);
        Ok(())
    }

    fn create(&self, dir: &Ino, name: &OsStr) -> io::Result<Open> {
        let mut w = self.0.lock();
        w.room()?;
        if w.get(*dir, name).is_ok() {
            return Err(errno(libc::EEXIST));
        }
        let ino = w.new_inode(Inode::default());
        w.change(vec![(*dir, name.to_owned(), Some(ino))]);
        Ok(Open::writable(ino))
    }

    fn create_unnamed(&self, _: &Ino) -> io::Result<Open> {
        let mut w = self.0.lock();
        w.room()?;
        Ok(Open::writable(w.new_inode(Inode::default())))
    }

    fn touch(&self, file: &Open) -> io::Result<()> {
        let mut w = self.0.lock();
        w.step()?;
        w.clock += 1;
        let clock = w.clock;
        w.inodes.get_mut(&file.ino).unwrap().mtime = clock;
        Ok(())
    }

    fn open(&self, dir: &Ino, name: &OsStr) -> io::Result<Open> {
        let mut w = self.0.lock();
        w.step()?;
        let (ino, writable) = (w.get(*dir, name)?, false);
        Ok(Open { ino, writable })
    }

    fn open_writable(&self, dir: &Ino, name: &OsStr) -> io::Result<Open> {
        let opened = self.open(dir, name)?;
        Ok(Open::writable(opened.ino))
    }

    fn stat(&self, file: &Open) -> io::Result<Stat> {
        self.0.lock().stat(file.ino)
    }

    fn stat_at(&self, dir: &Ino, name: &OsStr) -> io::Result<Stat> {
        let mut w = self.0.lock();
        let ino = w.get(*dir, name)?;
        w.stat(ino)
    }

    fn read_at(&self, file: &Open, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut w = self.0.lock();
        w.step()?;
        let rest = w.inodes[&file.ino].data.get(offset as usize..).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn write_at(&self, file: &Open, bytes: &[u8], offset: u64) -> io::Result<()> {
        let ino = file.for_writing(libc::EBADF)?;
        let mut w = self.0.lock();
        w.room()?;
        w.clock += 1;
        let clock = w.clock;
        let i = w.inodes.get_mut(&ino).unwrap();
        let end = offset as usize + bytes.len();
        i.data.resize(i.data.len().max(end), 0);
        i.data[offset as usize..end].copy_from_slice(bytes);
        (i.mtime, i.ctime) = (clock, clock);
        Ok(())
    }

    fn set_len(&self, file: &Open, len: u64) -> io::Result<()> {
        let ino = file.for_writing(libc::EINVAL)?;
        let mut w = self.0.lock();
        w.step()?;
        w.clock += 1;
        let clock = w.clock;
        let i = w.inodes.get_mut(&ino).unwrap();
        i.data.resize(len as usize, 0);
        i.mtime = clock;
        Ok(())
    }

    fn sync_file(&self, file: &Open) -> io::Result<()> {
        let mut w = self.0.lock();
        let step = w.step();
        let i = w.inodes.get_mut(&file.ino).unwrap();
        i.sync_lies |= step.is_err();
        if !i.sync_lies {
            i.synced = (i.data.clone(), i.mtime);
        }
        step
    }

    fn start_writeback(&self, _: &Open) -> io::Result<()> {
        self.0.lock().step()
    }

    fn copy_content(&self, from: &Open, to: &Open) -> io::Result<()> {
        let data = self.0.lock().inodes[&from.ino].data.clone();
        self.write_at(to, &data, 0)
    }

    fn overwrite(&self, from: &Open, to: &Open) -> io::Result<()> {
        let data = self.0.lock().inodes[&from.ino].data.clone();
        let (begin, end) = data.split_at(data.len() / 2);
        self.write_at(to, begin, 0)?;
        self.write_at(to, end, begin.len() as u64)?;
        self.set_len(to, data.len() as u64)
    }

    fn copy_times(&self, from: &Open, to: &Open) -> io::Result<()> {
        let mut w = self.0.lock();
        w.step()?;
        let mtime = w.inodes[&from.ino].mtime;
        w.inodes.get_mut(&to.ino).unwrap().mtime = mtime;
        Ok(())
    }

    fn copy_meta(&self, _: &Open, _: &Open, _: Option<&Who>) -> io::Result<()> {
        self.0.lock().step()
    }

    fn try_lock(&self, _: &Open) -> io::Result<bool> {
        self.0.lock().step().map(|()| true)
    }

    fn rename(&self, from: (&Ino, &OsStr), to: (&Ino, &OsStr)) -> io::Result<()> {
        let mut w = self.0.lock();
        w.step()?;
        let ino = w.get(*from.0, from.1)?;
        w.change(vec![
            (*from.0, from.1.to_owned(), None),
            (*to.0, to.1.to_owned(), Some(ino)),
        ]);
        Ok(())
    }

    fn rename_noreplace(&self, from: (&Ino, &OsStr), to: (&Ino, &OsStr)) -> io::Result<()> {
        if self.0.lock().get(*to.0, to.1).is_ok() {
            return Err(errno(libc::EEXIST));
        }
        self.rename(from, to)
    }

    fn exchange(&self, a: (&Ino, &OsStr), b: (&Ino, &OsStr)) -> io::Result<()> {
        let mut w = self.0.lock();
        w.step()?;
        if w.fixed && [*a.0, *b.0].contains(&ROOT) {
            return Err(errno(libc::EBUSY));
        }
        let (x, y) = (w.get(*a.0, a.1)?, w.get(*b.0, b.1)?);
        w.change(vec![(*a.0, a.1.to_owned(), Some(y)), (*b.0, b.1.to_owned(), Some(x))]);
        Ok(())
    }

    fn link(&self, from: (&Ino, &OsStr), to: (&Ino, &OsStr)) -> io::Result<()> {
        let ino = self.0.lock().get(*from.0, from.1)?;
        self.link_file(&Open::writable(ino), to)
    }

    fn link_file(&self, file: &Open, to: (&Ino, &OsStr)) -> io::Result<()> {
        let mut w = self.0.lock();
        w.room()?;
        if w.get(*to.0, to.1).is_ok() {
            return Err(errno(libc::EEXIST));
        }
        w.change(vec![(*to.0, to.1.to_owned(), Some(file.ino))]);
        Ok(())
    }

    fn unlink(&self, dir: &Ino, name: &OsStr) -> io::Result<()> {
        let mut w = self.0.lock();
        w.step()?;
        w.get(*dir, name)?;
        w.change(vec![(*dir, name.to_owned(), None)]);
        Ok(())
    }

    fn remove_dir(&self, dir: &Ino, name: &OsStr) -> io::Result<()> {
        let ino = self.0.lock().get(*dir, name)?;
        if !self.list(&ino)?.is_empty() {
            return Err(errno(libc::ENOTEMPTY));
        }
        self.unlink(dir, name)
    }
}
