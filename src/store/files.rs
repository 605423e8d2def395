//! What is known per coordinated file: its history directory, open, and its records. A bounded cache.
//!
//! A file's entry is taken out while a change is under way and put back when it went well; after a failure it is
//! dropped, and the next change reads the directory again, which also sets right what the failure left.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use parking_lot::{Condvar, Mutex};

use super::disk::{Disk, Kind, Stat, if_there};
use super::history::{Key, Scan, found};
use super::lineage::Live;
use super::prefix;
use super::record::{Identity, VersionRecord, decode_path, seal};
use super::{HASH_BYTES_MAX, OPEN_HISTORIES_MAX, Place, Store};

/// An eighth of the descriptors that the process may have, [`OPEN_HISTORIES_MAX`] at most.
fn open_histories_max() -> usize {
    static MAX: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *MAX.get_or_init(|| {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let share = limit.map_or(OPEN_HISTORIES_MAX, |limit| {
            usize::try_from(limit / 8).unwrap_or(OPEN_HISTORIES_MAX)
        });
        share.clamp(1, OPEN_HISTORIES_MAX)
    })
}

/// Records whose writing to the disk begins after the answer.
const UNSTARTED_MAX: usize = 16;

/// One file's history, as far as it lies on disk.
pub(super) struct FileHistory<D: Disk> {
    pub key: Key,
    pub dir: D::Dir,
    pub next: u64,
    pub records: BTreeMap<u64, VersionRecord>,
    /// Versions whose content lies here, with its size.
    pub contents: BTreeMap<u64, u64>,
    /// The version that the live file holds.
    pub current: Option<u64>,
    /// A record that only carries its number, see [`Store::settle`]; goes when there is a newer one.
    pub phantom: Option<u64>,
    /// A version that was pruned, whose record is there to be written over.
    pub worn: Option<u64>,
    /// The directories down to `dir`, and the `path` file, are known to be on disk.
    pub rooted: bool,
}

enum Slot<D: Disk> {
    Busy,
    Idle(Box<FileHistory<D>>, u64),
}

/// The cache.
pub(super) struct Files<D: Disk> {
    slots: Mutex<Slots<D>>,
    freed: Condvar,
}

struct Slots<D: Disk> {
    map: HashMap<Key, Slot<D>>,
    /// Current version per file, also while a change is under way; for [`Store::current_version`].
    shown: HashMap<Key, (u64, Identity)>,
    clock: u64,
}

impl<D: Disk> Files<D> {
    pub fn new() -> Files<D> {
        let slots = Slots {
            map: HashMap::new(),
            shown: HashMap::new(),
            clock: 0,
        };
        Files {
            slots: Mutex::new(slots),
            freed: Condvar::new(),
        }
    }

    /// Takes the entry out, waiting for another change of the file to end.
    fn take(&self, key: &Key) -> Option<Box<FileHistory<D>>> {
        let mut slots = self.slots.lock();
        while matches!(slots.map.get(key), Some(Slot::Busy)) {
            self.freed.wait(&mut slots);
        }
        match slots.map.insert(key.clone(), Slot::Busy) {
            Some(Slot::Idle(history, _)) => Some(history),
            _ => None,
        }
    }

    /// The same where no change is under way; `None` where one is.
    fn take_idle(&self, key: &Key) -> Option<Option<Box<FileHistory<D>>>> {
        let mut slots = self.slots.lock();
        if matches!(slots.map.get(key), Some(Slot::Busy)) {
            return None;
        }
        match slots.map.insert(key.clone(), Slot::Busy) {
            Some(Slot::Idle(history, _)) => Some(Some(history)),
            _ => Some(None),
        }
    }

    fn put(&self, key: &Key, history: Option<Box<FileHistory<D>>>) {
        let mut slots = self.slots.lock();
        let Slots { map, shown, clock } = &mut *slots;
        *clock += 1;
        shown.remove(key);
        match history {
            Some(history) => {
                let identity = |v: u64| history.records.get(&v).and_then(|r| r.identity).map(|i| (v, i));
                if let Some(current) = history.current.and_then(identity) {
                    shown.insert(key.clone(), current);
                }
                map.insert(key.clone(), Slot::Idle(history, *clock));
            }
            None => drop(map.remove(key)),
        }
        if map.len() > open_histories_max() {
            let used = |slot: &Slot<D>| match slot {
                Slot::Idle(_, at) => Some(*at),
                Slot::Busy => None,
            };
            let oldest = map
                .iter()
                .filter_map(|(k, s)| Some((used(s)?, k.clone())))
                .min_by_key(|(at, _)| *at);
            if let Some((_, key)) = oldest {
                map.remove(&key);
                shown.remove(&key);
            }
        }
        self.freed.notify_all();
    }

    pub fn shown(&self, key: &Key) -> Option<(u64, Identity)> {
        self.slots.lock().shown.get(key).copied()
    }
}

/// A file's history, taken out of the cache. Dropped without [`Held::keep`], the cache forgets the file.
pub(super) struct Held<'a, D: Disk> {
    files: &'a Files<D>,
    key: Key,
    history: Option<Box<FileHistory<D>>>,
}

impl<D: Disk> Held<'_, D> {
    /// The change went well: what is known stays known.
    pub fn keep(mut self, history: Box<FileHistory<D>>) {
        self.history = Some(history);
    }
}

impl<D: Disk> Drop for Held<'_, D> {
    fn drop(&mut self) {
        self.files.put(&self.key, self.history.take());
    }
}

pub(super) type Taken<'a, D> = (Held<'a, D>, Box<FileHistory<D>>);

impl<D: Disk> Store<D> {
    /// Takes a file's history for a change. `live` is the file's state now.
    pub(super) fn take(&self, place: &Place<'_, D>, live: Option<&Stat>, now: u64) -> io::Result<Taken<'_, D>> {
        let key = Key::of(place.path);
        let history = self.files.take(&key);
        let held = Held {
            files: &self.files,
            key: key.clone(),
            history: None,
        };
        let mut history = match history {
            Some(history) => history,
            None => Box::new(self.settle(&key, place, live, now)?),
        };
        history.current = self.still_current(&history, place, live)?;
        if let (None, Some(live)) = (history.current, live) {
            self.take_over_history(&mut history, place, live)?;
        }
        Ok((held, history))
    }

    /// Takes a history in order to clean it up, and says whether the file is there. `None`: it is being changed, or there is none any more.
    #[allow(clippy::type_complexity)]
    pub(super) fn take_idle(&self, key: &Key, path: &Path, now: u64) -> io::Result<Option<(Taken<'_, D>, bool)>> {
        let Some(known) = self.files.take_idle(key) else {
            return Ok(None);
        };
        let held = Held {
            files: &self.files,
            key: key.clone(),
            history: None,
        };
        let live = self.history.live(path)?;
        let history = match (known, self.history.open_key(key)?) {
            (Some(history), _) => history,
            (None, None) => return Ok(None),
            (None, Some(dir)) => {
                let scan = self.history.scan(&dir, key)?;
                if !scan.unreadable.is_empty() {
                    return Ok(None);
                }
                let (place, stat) = self.place_alone(path, live.as_ref());
                Box::new(self.settle_scan(dir, scan, key, &place, stat, now)?)
            }
        };
        Ok(Some(((held, history), live.is_some())))
    }

    /// Keeps everybody from a history of which nothing is known; `None` where something is, or it is being changed.
    pub(super) fn take_unknown(&self, key: &Key) -> Option<Held<'_, D>> {
        let history = self.files.take_idle(key)?;
        let known = history.is_some();
        let held = Held {
            files: &self.files,
            key: key.clone(),
            history,
        };
        (!known).then_some(held)
    }

    /// [`Store::settle`] of a history whose file nobody has at hand.
    pub(super) fn settle_alone(
        &self,
        key: &Key,
        path: &Path,
        live: Option<&Live<D>>,
        now: u64,
    ) -> io::Result<FileHistory<D>> {
        let (place, stat) = self.place_alone(path, live);
        self.settle(key, &place, stat, now)
    }

    fn place_alone<'a>(&'a self, path: &'a Path, live: Option<&'a Live<D>>) -> (Place<'a, D>, Option<&'a Stat>) {
        let name = path.file_name().unwrap_or_default();
        let (dir, stat) = match live {
            Some((dir, _, stat)) => (dir, Some(stat)),
            None => (&self.history.root, None),
        };
        (Place { dir, name, path }, stat)
    }

    /// A file that came here with its directory: before it is first changed, its history is written down to go on from that of its former
    /// path. On disk before anything else happens: once more than the change itself, it is all that leads there.
    fn take_over_history(&self, history: &mut FileHistory<D>, place: &Place<'_, D>, live: &Stat) -> io::Result<()> {
        let at = (place.dir, place.name, live);
        let Some(record) = self.history.arrived(place.path, at, (&history.records, history.next))? else {
            return Ok(());
        };
        self.announce(history, &record)?;
        self.make_record_durable(history, record.version)?;
        super::names::advance(history, record);
        Ok(())
    }

    /// Waits until a record, and the way to it, are on disk.
    pub(super) fn make_record_durable(&self, history: &mut FileHistory<D>, version: u64) -> io::Result<()> {
        let record = self.disk().open(&history.dir, &record_name(version))?;
        self.disk().sync_file(&record)?;
        self.root_history(history)?;
        self.disk().sync_dir(&history.dir)
    }

    /// The version that the file holds: that which it held before, or one that left with its directory and has come back.
    fn still_current(&self, h: &FileHistory<D>, place: &Place<'_, D>, live: Option<&Stat>) -> io::Result<Option<u64>> {
        let Some(live) = live else { return Ok(None) };
        let known = h.current.and_then(|current| h.records.get(&current));
        if let Some(record) = known
            && self.history.is_content_of(record, place.dir, place.name, live)?
        {
            return Ok(h.current);
        }
        let current = self.history.current_of(&h.records, place.dir, place.name, live)?;
        Ok(current.filter(|current| !h.contents.contains_key(current)))
    }

    /// Reads a file's history directory, making it where there is none, and sets right what a crash or a stranger left:
    /// half-written things and records whose content never came or is no more go; a content without a record gets one; a
    /// second name of the live file goes; what is not concordfs's is set aside.
    pub(super) fn settle(
        &self,
        key: &Key,
        place: &Place<'_, D>,
        live: Option<&Stat>,
        now: u64,
    ) -> io::Result<FileHistory<D>> {
        let dir = self.make_history(key)?;
        let scan = self.history.scan(&dir, key)?;
        self.settle_scan(dir, scan, key, place, live, now)
    }

    fn settle_scan(
        &self,
        dir: D::Dir,
        mut scan: Scan,
        key: &Key,
        place: &Place<'_, D>,
        live: Option<&Stat>,
        now: u64,
    ) -> io::Result<FileHistory<D>> {
        let disk = self.disk();
        self.clean(&dir, &scan, key, now)?;
        if scan.path.is_none() {
            self.write_new(&dir, OsStr::new("path"), place.path.as_os_str().as_encoded_bytes())?;
            self.move_log.met(place.path);
        }
        let next = scan.next();
        let mut contents = BTreeMap::new();
        for (version, name) in &scan.contents {
            let Some(stat) = if_there(disk.stat_at(&dir, name))? else {
                continue;
            };
            if live.is_some_and(|live| live.ino == stat.ino) {
                disk.unlink(&dir, name)?;
                continue;
            }
            contents.insert(*version, stat.size);
            if !scan.records.contains_key(version) {
                let note = Some("its record was lost; who wrote it is not known".to_owned());
                let record = VersionRecord {
                    note,
                    ..found(place.path, *version, &stat)
                };
                self.write_record(&dir, &record)?;
                scan.records.insert(*version, record);
            }
        }
        let current = match live {
            Some(live) => self.history.current_of(&scan.records, place.dir, place.name, live)?,
            None => None,
        };
        // A copy made ahead of a rename that did not happen: the file itself still holds that version.
        if let Some(version) = current.filter(|version| contents.remove(version).is_some()) {
            disk.unlink(&dir, &content_name(version))?;
        }
        // What left with its directory is live elsewhere.
        let left = self.history.moves.read().last_left(place.path);
        let lives_elsewhere = |record: &VersionRecord| left.is_some_and(|left| record.time <= left);
        // A tombstone newer than the version that is live tells of a removal that did not happen.
        let stays = |record: &VersionRecord| match record.is_tombstone() {
            true => current.is_none_or(|current| record.version < current),
            false => {
                lives_elsewhere(record)
                    || prefix::host(&scan.records, |v| contents.contains_key(&v), current, record.version).is_some()
            }
        };
        // The newest stays on disk in any case: it carries the number that the next version goes on from.
        let leaves = |record: &&VersionRecord| !stays(record) && record.version + 1 != next;
        for record in scan.records.values().filter(leaves) {
            disk.unlink(&dir, &record_name(record.version))?;
        }
        let phantom = scan
            .records
            .values()
            .find(|r| !stays(r) && r.version + 1 == next)
            .map(|r| r.version);
        let staying: BTreeSet<u64> = scan.records.values().filter(|r| stays(r)).map(|r| r.version).collect();
        scan.records.retain(|version, _| staying.contains(version));
        Ok(FileHistory {
            key: key.clone(),
            dir,
            next,
            records: scan.records,
            contents,
            current,
            phantom,
            worn: None,
            rooted: false,
        })
    }

    /// Reads a history directory after clearing it of half-written things and of what concordfs did not write (like that).
    pub(super) fn clean_scan(&self, dir: &D::Dir, key: &Key, now: u64) -> io::Result<Scan> {
        let scan = self.history.scan(dir, key)?;
        self.clean(dir, &scan, key, now)?;
        Ok(scan)
    }

    fn clean(&self, dir: &D::Dir, scan: &Scan, key: &Key, now: u64) -> io::Result<()> {
        let place = format!("history/{}", key.name().to_string_lossy());
        for (name, why) in &scan.odd {
            self.set_aside_garbage(dir, name, &place, why, now)?;
        }
        for name in &scan.parts {
            if_there(self.disk().unlink(dir, name))?;
        }
        Ok(())
    }

    /// The history directory of a file, made where there is none.
    pub(super) fn make_history(&self, key: &Key) -> io::Result<D::Dir> {
        let fan = self.dir_made(&self.history.files, key.fan())?;
        self.dir_made(&fan, key.name())
    }

    fn dir_made(&self, dir: &D::Dir, name: &OsStr) -> io::Result<D::Dir> {
        match if_there(self.disk().open_dir(dir, name))? {
            Some(found) => Ok(found),
            None => {
                // Another thread may make the directory that two files' histories share.
                let made = self.disk().make_dir(dir, name);
                made.or_else(|e| {
                    if e.kind() == io::ErrorKind::AlreadyExists {
                        Ok(())
                    } else {
                        Err(e)
                    }
                })?;
                let made = self.disk().open_dir(dir, name)?;
                self.disk().give_dir(&made, dir);
                Ok(made)
            }
        }
    }

    /// A new file with these bytes.
    fn write_unstarted(&self, dir: &D::Dir, name: &OsStr, bytes: &[u8]) -> io::Result<D::File> {
        let file = self.disk().create(dir, name)?;
        self.disk().give(&file, dir);
        let written = self.disk().write_at(&file, bytes, 0);
        if written.is_err() {
            let _ = self.disk().unlink(dir, name);
        }
        written.map(|()| file)
    }

    /// A new file with these bytes, whose writing to the disk has begun.
    fn write_new(&self, dir: &D::Dir, name: &OsStr, bytes: &[u8]) -> io::Result<()> {
        let file = self.write_unstarted(dir, name, bytes)?;
        self.start_writing(&file);
        Ok(())
    }

    /// Writes a new record.
    pub(super) fn write_record(&self, dir: &D::Dir, record: &VersionRecord) -> io::Result<()> {
        self.write_new(
            dir,
            &record_name(record.version),
            &seal(record).map_err(io::Error::other)?,
        )
    }

    /// Writes the record of a version to come; the one that carried its number so far goes.
    pub(super) fn announce(&self, history: &mut FileHistory<D>, record: &VersionRecord) -> io::Result<()> {
        let bytes = seal(record).map_err(io::Error::other)?;
        let name = record_name(record.version);
        let former = record.came_from.as_ref().filter(|from| from.continues);
        if let Some(former) = former.and_then(|from| decode_path(&from.path)) {
            self.follows(&former);
        }
        let over = match history.worn.take() {
            Some(worn) => self.write_over(&history.dir, &record_name(worn), &name, &bytes)?,
            None => None,
        };
        let file = match over {
            Some(file) => file,
            None => self.write_unstarted(&history.dir, &name, &bytes)?,
        };
        let unstarted = {
            let mut written = self.written.lock();
            written.push(file);
            written.len()
        };
        // Each is a descriptor.
        if unstarted > UNSTARTED_MAX {
            self.start_writing_records();
        }
        match history.phantom.take() {
            Some(phantom) => if_there(self.disk().unlink(&history.dir, &record_name(phantom))).map(drop),
            None => Ok(()),
        }
    }

    /// Writes a new record over that of a version which is not kept any more, and gives it its name then: to remove the one file and to make the other takes
    /// longer than all else that a publish does besides its syncs. `None` when there is no such file.
    fn write_over(&self, dir: &D::Dir, worn: &OsStr, name: &OsStr, bytes: &[u8]) -> io::Result<Option<D::File>> {
        let disk = self.disk();
        let Some(file) = if_there(disk.open_writable(dir, worn))? else {
            return Ok(None);
        };
        let length = bytes.len() as u64;
        let cut = || match disk.stat(&file)?.size > length {
            true => disk.set_len(&file, length),
            false => Ok(()),
        };
        let written = disk
            .write_at(&file, bytes, 0)
            .and_then(|()| cut())
            .and_then(|()| disk.rename_noreplace((dir, worn), (dir, name)));
        if written.is_err() {
            let _ = disk.unlink(dir, worn);
        }
        written.map(|()| Some(file))
    }

    /// Has the disk begin to write the records of the changes so far. It promises nothing, and takes as long as all else about a record.
    pub(super) fn start_writing_records(&self) {
        let written = std::mem::take(&mut *self.written.lock());
        for file in written {
            self.start_writing(&file);
        }
    }

    /// Replaces a record, in one step.
    pub(super) fn rewrite_record(&self, dir: &D::Dir, record: &VersionRecord) -> io::Result<()> {
        let name = record_name(record.version);
        let mut part = name.clone();
        part.push(".part");
        if_there(self.disk().unlink(dir, &part))?;
        self.write_new(dir, &part, &seal(record).map_err(io::Error::other)?)?;
        self.disk().rename((dir, &part), (dir, &name))
    }

    /// The number of the version that `live` is; one that has no record yet gets one.
    pub(super) fn record_current(
        &self,
        history: &mut FileHistory<D>,
        place: &Place<'_, D>,
        live: &Stat,
    ) -> io::Result<u64> {
        let identity = Identity::of(live);
        if let Some(current) = history.current {
            // Only its times changed, or it has stopped growing: the record must know the file again after a crash.
            if let Some(record) = history
                .records
                .get_mut(&current)
                .filter(|r| r.growing || !r.identity.is_some_and(|i| i.is(live)))
            {
                if record.growing {
                    record.growing = false;
                    record.bytes = live.size;
                    record.time = u64::try_from(live.mtime_ns).unwrap_or(record.time);
                }
                record.identity = Some(identity);
                self.rewrite_record(&history.dir, record)?;
            }
            return Ok(current);
        }
        let version = history.next;
        let mut record = found(place.path, version, live);
        if live.size <= HASH_BYTES_MAX {
            record.hash = self.history.hash(&self.disk().open(place.dir, place.name)?)?;
        }
        self.announce(history, &record)?;
        history.next += 1;
        history.records.insert(version, record);
        history.current = Some(version);
        Ok(version)
    }

    /// Waits until the way down to the history, and its `path` file, are on disk: a version that is moved there must not
    /// lose the directory it is in. Once per file, later it is known.
    pub(super) fn root_history(&self, history: &mut FileHistory<D>) -> io::Result<()> {
        if history.rooted {
            return Ok(());
        }
        let disk = self.disk();
        disk.sync_file(&disk.open(&history.dir, OsStr::new("path"))?)?;
        disk.sync_dir(&history.dir)?;
        disk.sync_dir(&disk.open_dir(&self.history.files, history.key.fan())?)?;
        disk.sync_dir(&self.history.files)?;
        history.rooted = true;
        Ok(())
    }

    /// The number of the version that a file with state `stat` holds, if it is the current one of `path`. Never waits
    /// for a publish. A file without history is its version 1.
    ///
    /// # Errors
    /// The errno of reading the history, when it is not in memory.
    pub fn current_version(&self, path: &Path, stat: &Stat) -> io::Result<Option<u64>> {
        if let Some((version, identity)) = self.files.shown(&Key::of(path))
            && identity.is(stat)
        {
            return Ok(Some(version));
        }
        let (_, own) = self.history.own_segment(path)?;
        let record = own.current.and_then(|current| own.scan.records.get(&current));
        Ok(record
            .filter(|record| record.identity.is_some_and(|identity| identity.ino == stat.ino))
            .map(|record| record.version))
    }

    /// Computes the hash of a version that was published without one, for a background thread. Returns whether it did.
    ///
    /// # Errors
    /// The errno of reading the content or writing the record.
    pub fn complete_hash(&self, path: &Path, version: u64) -> io::Result<bool> {
        let key = Key::of(path);
        let Some(dir) = self.history.open_key(&key)? else {
            return Ok(false);
        };
        let Some(record) = self.history.scan(&dir, &key)?.records.remove(&version) else {
            return Ok(false);
        };
        if record.hash.is_some() || record.is_tombstone() {
            return Ok(false);
        }
        let Some(file) = if_there(self.history.open_version(path, version))? else {
            return Ok(false);
        };
        let before = self.disk().stat(&file.file)?;
        if before.size != file.bytes {
            return Ok(false);
        }
        let hash = self.history.hash(&file.file)?;
        if self.disk().stat(&file.file)?.mtime_ns != before.mtime_ns || hash.is_none() {
            return Ok(false);
        }
        self.rewrite_record(&dir, &VersionRecord { hash, ..record })?;
        Ok(true)
    }

    /// The stat of a place: `None` when there is nothing; InvalidInput when it is no regular file.
    pub(super) fn stat_place(&self, place: &Place<'_, D>) -> io::Result<Option<Stat>> {
        match if_there(self.disk().stat_at(place.dir, place.name))? {
            Some(stat) if stat.kind != Kind::File => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
            }
            found => Ok(found),
        }
    }
}

pub(super) fn record_name(version: u64) -> OsString {
    format!("{version}.json").into()
}

pub(super) fn content_name(version: u64) -> OsString {
    version.to_string().into()
}
