//! What goes of the histories by the rules. [`going`] and [`gone_at`] decide it, of what lies on disk and a clock that is passed in; it is carried out
//! for a file after each of its publishes, and for all files by a sweep ([`Store::prune_all`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::disk::{Disk, if_there};
use super::files::{FileHistory, content_name, record_name};
use super::history::{Key, Scan};
use super::moves::Moves;
use super::names::{advance, tombstone};
use super::prefix;
use super::record::{VersionRecord, decode_path};
use super::{DELETED_AGE_MAX, PASSED_ON_AGE_MAX, Retain, Store};

/// A file's history, as far as it decides what goes.
pub(super) struct Lies<'a> {
    pub records: &'a BTreeMap<u64, VersionRecord>,
    /// Versions whose content lies in the history, with its size.
    pub contents: &'a BTreeMap<u64, u64>,
    /// The version that the live file holds.
    pub current: Option<u64>,
    /// The number of the next version.
    pub next: u64,
}

/// What goes of a history.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Going {
    /// With record and content, newest first.
    pub versions: Vec<u64>,
    pub stones: Vec<u64>,
}

impl Lies<'_> {
    /// The versions before the current one that can be read.
    pub fn kept(&self) -> BTreeSet<u64> {
        let held = |v| self.contents.contains_key(&v);
        let readable = |v: &u64| prefix::host(self.records, held, self.current, *v).is_some();
        let records = self.records.values().filter(|r| !r.is_tombstone()).map(|r| r.version);
        let all = records.chain(self.contents.keys().copied());
        all.filter(|v| self.current != Some(*v) && readable(v)).collect()
    }

    /// Records of versions that are nowhere any more: their removal was cut short. What left with its directory by then is elsewhere.
    fn has_remains(&self, left: Option<u64>) -> bool {
        let kept = self.kept();
        let nowhere =
            |r: &&VersionRecord| !r.is_tombstone() && self.current != Some(r.version) && !kept.contains(&r.version);
        let mut remains = self.records.values().filter(nowhere);
        remains.any(|r| r.version + 1 != self.next && left.is_none_or(|left| r.time > left))
    }

    /// The name had one version, which became one of another coordinated name, as a saver's temporary file does.
    fn has_passed_on(&self) -> bool {
        let newest = self.records.values().next_back();
        newest.is_some_and(|newest| newest.moved_to.is_some() && newest.version == 2)
    }

    /// The newest number is that of a content, and no file is there: its removal is not written down.
    fn lacks_stone(&self) -> bool {
        let newest = self.contents.keys().next_back();
        newest.is_some_and(|newest| newest + 1 == self.next)
    }
}

/// What `retain` does not keep.
pub(super) fn going(lies: &Lies<'_>, retain: &Retain, now: u64) -> Going {
    let kept = lies.kept();
    // The beginning of a later version costs nothing, and comes after it in this order: it never outlives the file it is in.
    let mut versions: Vec<u64> = kept.iter().rev().copied().collect();
    let size = |version: &u64| lies.contents.get(version).copied();
    // Alone it takes more than all may: it goes, and those before it need not, unless they are beginnings of it.
    let is_too_large = |version: &u64| {
        let exceeds = |max| size(version).is_some_and(|size| size > max);
        let before = kept.range(..version).next_back();
        retain.max_bytes.is_some_and(exceeds) && before.is_none_or(|before| size(before).is_some())
    };
    let (mut count, mut bytes) = (0, 0u64);
    versions.retain(|version| {
        if is_too_large(version) {
            return true;
        }
        bytes = bytes.saturating_add(size(version).unwrap_or(0));
        // A version's age counts from when it was replaced, else one that lived long would go at once.
        let next = lies.records.range(version + 1..).next();
        let replaced_at = next.map_or(now, |(_, record)| record.time);
        let too_old = retain.max_age.is_some_and(|max| is_older(replaced_at, max, now));
        let goes = count >= retain.keep || too_old || retain.max_bytes.is_some_and(|max| bytes > max);
        count += u32::from(!goes);
        goes
    });
    let stays = kept.iter().find(|version| !versions.contains(version)).copied();
    Going {
        stones: stones_going(lies, stays, retain),
        versions,
    }
}

/// A tombstone is worth as long as a version before it, and there are no more of them than versions. `oldest` is the oldest version that stays.
fn stones_going(lies: &Lies<'_>, oldest: Option<u64>, retain: &Retain) -> Vec<u64> {
    let oldest = oldest.or(lies.current).unwrap_or(u64::MAX);
    let stones = lies.records.values().filter(|r| r.is_tombstone()).map(|r| r.version);
    let stones: Vec<u64> = stones.collect();
    let surplus = stones.len().saturating_sub(retain.keep as usize);
    let goes = |(i, stone): &(usize, u64)| *i < surplus || *stone < oldest;
    let going = stones.into_iter().enumerate().filter(goes).map(|(_, stone)| stone);
    // The last tombstone of a gone file stays: it carries the number that the next version goes on from.
    going.filter(|stone| lies.next != stone + 1).collect()
}

/// When the file went away, and the number of the record that is the last of it: the tombstone, or that of what left with its directory then.
fn gone_at(lies: &Lies<'_>, moves: &Moves, path: &Path) -> Option<(u64, u64)> {
    let (number, newest) = lies.records.last_key_value()?;
    let left = || moves.left_after(path, newest.time);
    let time = match newest.is_tombstone() {
        true => Some(newest.time),
        false => left(),
    };
    time.filter(|_| !lies.lacks_stone()).map(|time| (time, *number))
}

/// Whether a file that went away then has been gone for as long as its history is kept.
fn has_expired(lies: &Lies<'_>, gone: u64, retain: &Retain, now: u64) -> bool {
    let age = retain.max_age.unwrap_or(DELETED_AGE_MAX);
    let age = if lies.has_passed_on() {
        age.min(PASSED_ON_AGE_MAX)
    } else {
        age
    };
    is_older(gone, age, now)
}

fn is_older(time: u64, age: std::time::Duration, now: u64) -> bool {
    u128::from(now.saturating_sub(time)) > age.as_nanos()
}

/// The history of a file that has been gone for longer than the rules keep it.
struct Expired {
    key: Key,
    path: PathBuf,
    /// Since when.
    gone: u64,
    /// The number of its last record; `None`: its removal was cut short, and nothing else is left.
    newest: Option<u64>,
}

/// Which histories go on from which: their numbers must not come back for other versions.
#[derive(Default)]
struct Continued(HashMap<Key, Vec<Key>>);

impl Continued {
    fn add(&mut self, heir: &Key, from: &Path) {
        self.0.entry(heir.clone()).or_default().push(Key::of(from));
    }

    /// Adds all that the `heirs` go on from, over however many names.
    fn mark(&self, heirs: impl IntoIterator<Item = Key>, needed: &mut HashSet<Key>) {
        let mut todo: Vec<Key> = heirs.into_iter().collect();
        while let Some(heir) = todo.pop() {
            let former = self.0.get(&heir).into_iter().flatten();
            todo.extend(former.filter(|former| needed.insert((*former).clone())).cloned());
        }
    }
}

/// Paths from whose histories others were made to go on while a sweep looked at all of them.
#[derive(Default)]
pub(super) struct Followed {
    sweeps: usize,
    paths: HashSet<PathBuf>,
}

/// A sweep is under way.
struct Following<'a>(&'a Mutex<Followed>);

impl Following<'_> {
    fn begin(followed: &Mutex<Followed>) -> Following<'_> {
        followed.lock().sweeps += 1;
        Following(followed)
    }
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        let mut followed = self.0.lock();
        followed.sweeps -= 1;
        if followed.sweeps == 0 {
            followed.paths.clear();
        }
    }
}

/// What a sweep has met so far.
#[derive(Default)]
struct Sweep {
    removed: usize,
    continued: Continued,
    expired: Vec<Expired>,
    /// A history could not be read; what it goes on from is not known.
    incomplete: bool,
}

impl<D: Disk> FileHistory<D> {
    pub fn lies(&self) -> Lies<'_> {
        Lies {
            records: &self.records,
            contents: &self.contents,
            current: self.current,
            next: self.next,
        }
    }
}

impl<D: Disk> Store<D> {
    /// A history is about to be one that goes on from that of `path`.
    pub(super) fn follows(&self, path: &Path) {
        let mut followed = self.followed.lock();
        if followed.sweeps > 0 {
            followed.paths.insert(path.to_owned());
        }
    }

    /// Forgets what `retain` does not keep; [`Store::sweep`] removes it. Should that not come, the next who reads the directory forgets it again.
    pub(super) fn prune(&self, history: &mut FileHistory<D>, retain: &Retain, now: u64) {
        let Going { versions, stones } = going(&history.lies(), retain, now);
        let mut pruned = self.pruned.lock();
        for version in versions {
            pruned.push((history.dir.clone(), content_name(version)));
            // The record of a version that is a length says that it can be read.
            let is_length = history.contents.remove(&version).is_none();
            match history.worn {
                None if !is_length => history.worn = Some(version),
                _ => pruned.push((history.dir.clone(), record_name(version))),
            }
            history.records.remove(&version);
        }
        for stone in stones {
            pruned.push((history.dir.clone(), record_name(stone)));
            history.records.remove(&stone);
        }
    }

    /// Removes what was pruned, and returns how many files that were. Nobody needs to wait for it: an unlink takes long, and a failure costs
    /// space, not content.
    pub fn sweep(&self) -> usize {
        let pruned = std::mem::take(&mut *self.pruned.lock());
        let mut removed = 0;
        for (dir, name) in pruned {
            match if_there(self.disk().unlink(&dir, &name)) {
                Ok(found) => removed += usize::from(found.is_some()),
                Err(error) => log::warn!("cannot remove {name:?}, of an old version, in .concord/history: {error}"),
            }
        }
        self.complete_spare();
        removed
    }

    /// What is left to do after a change, when nobody waits for it any more.
    pub fn tidy(&self) {
        self.start_writing_records();
        self.sweep();
        self.shorten_journal();
        self.make_ready();
    }

    /// Applies the rules in force ([`Store::set_retention`]) to all histories, and removes those of files that were deleted longer ago than
    /// `max_age`, or [`DELETED_AGE_MAX`] where there is none, and of temporary files [`PASSED_ON_AGE_MAX`] after they became versions of others. What is being changed just now is left out: its publish prunes it. Before
    /// each history `go_on` is asked, and may wait. Returns how many files were removed; what fails is logged and costs space only.
    pub fn prune_all(&self, now: u64, go_on: &dyn Fn() -> bool) -> usize {
        let mut sweep = Sweep {
            removed: self.sweep(),
            ..Sweep::default()
        };
        if !self.has_retention() {
            return sweep.removed;
        }
        let _following = Following::begin(&self.followed);
        let keys = self.history.keys().unwrap_or_else(|error| {
            log::warn!("cannot list .concord/history: {error}");
            Vec::new()
        });
        for key in &keys {
            if !go_on() {
                return sweep.removed;
            }
            if let Err(error) = self.prune_one(key, now, &mut sweep) {
                log::warn!("cannot prune .concord/history/…/{}: {error}", key.name().display());
                sweep.incomplete = true;
            }
        }
        if !sweep.incomplete {
            self.remove_expired(&keys, &mut sweep, now);
        }
        // Others than the store use it too.
        self.keep_spare();
        sweep.removed
    }

    /// Removes what has expired, unless a history that stays goes on from it.
    fn remove_expired(&self, keys: &[Key], sweep: &mut Sweep, now: u64) {
        let mut expired = std::mem::take(&mut sweep.expired);
        let going: HashSet<&Key> = expired.iter().map(|history| &history.key).collect();
        let mut needed = HashSet::new();
        let staying = keys.iter().filter(|key| !going.contains(key));
        sweep.continued.mark(staying.cloned(), &mut needed);
        // Heirs are gone later than what they go on from.
        expired.sort_by_key(|history| std::cmp::Reverse(history.gone));
        for history in &expired {
            if needed.contains(&history.key) {
                continue;
            }
            let removed = self.remove_history(history, now).unwrap_or_else(|error| {
                log::warn!("cannot remove the history of {}: {error}", history.path.display());
                None
            });
            match removed {
                Some(removed) => sweep.removed += removed,
                None => sweep.continued.mark([history.key.clone()], &mut needed),
            }
        }
    }

    fn prune_one(&self, key: &Key, now: u64, sweep: &mut Sweep) -> io::Result<()> {
        let Some(dir) = self.history.open_key(key)? else {
            return Ok(());
        };
        let scan = self.history.scan(&dir, key)?;
        let former = scan.records.values().filter_map(|record| record.came_from.as_ref());
        let former = former.filter(|from| from.continues);
        for from in former.filter_map(|from| decode_path(&from.path)) {
            sweep.continued.add(key, &from);
        }
        if !scan.unreadable.is_empty() {
            // What goes on from where is not known, and what to keep neither.
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if scan.is_empty() {
            return self.remove_empty(key);
        }
        let Some((path, retain)) = path_of(&scan).and_then(|path| Some((path.clone(), self.retain_of(&path)?))) else {
            return Ok(());
        };
        let live = self.history.live(&path)?;
        let current = match &live {
            Some((dir, name, stat)) => self.history.current_of(&scan.records, dir, name, stat)?,
            None => None,
        };
        let mut contents = BTreeMap::new();
        for (version, name) in &scan.contents {
            let stat = if_there(self.disk().stat_at(&dir, name))?;
            contents.extend(stat.map(|stat| (*version, stat.size)));
        }
        let lies = Lies {
            records: &scan.records,
            contents: &contents,
            current,
            next: scan.next(),
        };
        let lacks_stone = live.is_none() && lies.lacks_stone();
        let left = self.history.moves.read().last_left(&path);
        if lacks_stone || lies.has_remains(left) || going(&lies, &retain, now) != Going::default() {
            self.prune_taken(key, &path, &retain, now)?;
            sweep.removed += self.sweep();
        }
        let (gone, newest) = match gone_at(&lies, &self.history.moves.read(), &path) {
            Some((gone, newest)) if has_expired(&lies, gone, &retain, now) => (gone, Some(newest)),
            None if lies.next == 1 => (0, None),
            _ => return Ok(()),
        };
        if live.is_none() && !self.is_elsewhere(&lies, &path)? {
            let key = key.clone();
            sweep.expired.push(Expired {
                key,
                path,
                gone,
                newest,
            });
        }
        Ok(())
    }

    /// What has no content here may live under another name: its directory was renamed.
    fn is_elsewhere(&self, lies: &Lies<'_>, path: &Path) -> io::Result<bool> {
        let kept = lies.kept();
        let known = |record: &VersionRecord| record.is_tombstone() || kept.contains(&record.version);
        Ok(!lies.records.values().all(known) && self.history.lives_elsewhere(path, lies.records)?)
    }

    /// What a power failure can leave of a history that was removed.
    fn remove_empty(&self, key: &Key) -> io::Result<()> {
        match self.take_unknown(key) {
            Some(_held) => {
                let fan = self.disk().open_dir(&self.history.files, key.fan())?;
                self.disk().remove_dir(&fan, key.name())
            }
            None => Ok(()),
        }
    }

    fn prune_taken(&self, key: &Key, path: &Path, retain: &Retain, now: u64) -> io::Result<()> {
        let Some(((held, mut history), live)) = self.take_idle(key, path, now)? else {
            return Ok(());
        };
        if !live && history.lies().lacks_stone() {
            // It was removed when there was no room to write that down, or that did not reach the disk.
            let note = "when it was removed, and by whom, is not known";
            let stone = VersionRecord {
                note: Some(note.to_owned()),
                ..tombstone(path, history.next, now)
            };
            self.announce(&mut history, &stone)?;
            advance(&mut history, stone);
        }
        self.prune(&mut history, retain, now);
        if let Some(worn) = history.worn.take() {
            self.pruned.lock().push((history.dir.clone(), record_name(worn)));
        }
        held.keep(history);
        Ok(())
    }

    /// Removes a history of which nothing is to be kept, and returns how many files that were; its numbers begin anew. Should that be cut short, a part of it
    /// is left for the next sweep. `None`: it stays.
    fn remove_history(&self, expired: &Expired, now: u64) -> io::Result<Option<usize>> {
        let Expired { key, path, newest, .. } = expired;
        let Some(((held, history), live)) = self.take_idle(key, path, now)? else {
            return Ok(None);
        };
        let gone = gone_at(&history.lies(), &self.history.moves.read(), path);
        let same = gone.map(|(_, newest)| newest) == *newest;
        // In this order: who changes the file that is elsewhere has said first what it was.
        let stays = live || !same || self.is_elsewhere(&history.lies(), path)?;
        if stays || self.followed.lock().paths.contains(path) {
            held.keep(history);
            return Ok(None);
        }
        let disk = self.disk();
        let newest = newest.map(record_name);
        let last: Vec<_> = newest.into_iter().chain([OsString::from("path")]).collect();
        let entries = disk.list(&history.dir)?.into_iter().map(|entry| entry.name);
        let first = entries.filter(|name| !last.contains(name));
        let mut removed = 0;
        for name in first.chain(last.iter().cloned()) {
            removed += usize::from(if_there(disk.unlink(&history.dir, &name))?.is_some());
        }
        disk.remove_dir(&disk.open_dir(&self.history.files, key.fan())?, key.name())?;
        log::debug!("the history of {}, gone long ago, is removed", path.display());
        Ok(Some(removed))
    }
}

/// The path that a history belongs to, also when a removal of it was cut short.
fn path_of(scan: &Scan) -> Option<PathBuf> {
    let by_record = || {
        scan.records
            .values()
            .next()
            .and_then(|record| decode_path(&record.path))
    };
    scan.path.clone().or_else(by_record)
}
