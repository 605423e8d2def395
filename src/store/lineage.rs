//! A file's history over the names it had. A version's record says from which name and version its file came (`came_from`); a directory's
//! rename is in `moves`. Each name's own history stays where it is.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Disk, Stat, if_there};
use super::history::{Kept, Key, READS_MAX, Scan, VersionEntry, found};
use super::record::{CameFrom, How, Identity, VersionRecord, decode_path, encode_path};
use super::{History, prefix};

/// Names that are followed back. A file that was renamed more often shows its older versions under the older names only.
const FORMER_NAMES_MAX: usize = 64;

/// Numbers beyond this are not given for the sake of a complete listing; JavaScript's readers of our JSON know no greater ones.
const SHIFTED_MAX: u64 = 1 << 53;

/// A name's own records, and the number of its next version.
pub(super) type Own<'a> = (&'a BTreeMap<u64, VersionRecord>, u64);

/// The part of a name's history that is of one file.
pub(super) struct Segment<D: Disk> {
    path: PathBuf,
    pub dir: Option<D::Dir>,
    pub scan: Scan,
    /// The version whose content is not here: the live file's, or the one that left for another name.
    pub current: Option<u64>,
    /// The versions after this one …
    after: u64,
    /// … up to this one.
    until: u64,
    /// Whose content `current` is, by segment and version. `None`: the live file's.
    heir: Option<(usize, u64)>,
    /// What is added to its numbers when they are told.
    shift: u64,
}

impl<D: Disk> Segment<D> {
    pub fn host(&self, version: u64) -> Option<u64> {
        prefix::host(
            &self.scan.records,
            |v| self.scan.contents.contains_key(&v),
            self.current,
            version,
        )
    }

    /// The records of the file's stay under this name.
    fn stay(&self) -> impl DoubleEndedIterator<Item = &VersionRecord> {
        let range = (
            std::ops::Bound::Excluded(self.after),
            std::ops::Bound::Included(self.until),
        );
        self.scan.records.range(range).map(|(_, record)| record)
    }
}

/// The directory, name and state of a file.
pub(super) type Live<D> = (<D as Disk>::Dir, OsString, Stat);

/// What a name's file was, and is.
pub(super) struct Lineage<D: Disk> {
    pub live: Option<Live<D>>,
    /// The name's own first, whole.
    pub segments: Vec<Segment<D>>,
}

impl<D: Disk> Lineage<D> {
    /// Adds the versions of former names whose numbers the name itself has not used.
    pub fn add_former(&self, entries: &mut BTreeMap<u64, VersionEntry>) {
        for segment in self.former() {
            let up = |number: u64| number + segment.shift;
            for record in segment.stay().filter(|record| segment.host(record.version).is_some()) {
                entries.entry(up(record.version)).or_insert_with(|| VersionEntry {
                    record: VersionRecord {
                        version: up(record.version),
                        based_on: record.based_on.map(up),
                        replaced: record.replaced.map(up),
                        ..record.clone()
                    },
                    current: false,
                    gone: false,
                });
            }
        }
    }

    /// What was found, and where it lies below `.concord/`.
    pub fn scans(&self) -> impl Iterator<Item = (PathBuf, &Scan)> {
        self.segments.iter().map(|segment| {
            let key = Key::of(&segment.path);
            let lies = Path::new("history").join(key.fan()).join(key.name());
            (lies, &segment.scan)
        })
    }

    /// What the name itself has not listed already.
    fn former(&self) -> impl Iterator<Item = &Segment<D>> {
        let own = &self.segments[0].path;
        self.segments[1..].iter().filter(move |segment| segment.path != *own)
    }

    /// The segment that a version is in, and its number there.
    fn holder(&self, version: u64) -> Option<(usize, u64)> {
        let own = self.segments[0].scan.records.get(&version);
        if own.is_some_and(VersionRecord::is_tombstone) {
            return None;
        }
        let own = &self.segments[0].path;
        self.segments.iter().enumerate().find_map(|(at, segment)| {
            let number = version.checked_sub(segment.shift)?;
            let of_it = || segment.path != *own && segment.stay().any(|record| record.version == number);
            (segment.host(number).is_some() && (at == 0 || of_it())).then_some((at, number))
        })
    }
}

pub(super) fn not_kept(version: u64) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("version {version} is not kept"))
}

impl<D: Disk> History<D> {
    /// What `path` itself has, and the file that is there now.
    pub(super) fn own_segment(&self, path: &Path) -> io::Result<(Option<Live<D>>, Segment<D>)> {
        let mut found = self.own_segment_once(path)?;
        for _ in 1..READS_MAX {
            if self.belongs_together(path, &found)? {
                break;
            }
            found = self.own_segment_once(path)?;
        }
        Ok(found)
    }

    /// Whether the file was what the records say of it while they were read. Lines may have been appended meanwhile, which are of a later version.
    pub(super) fn belongs_together(
        &self,
        path: &Path,
        (live, own): &(Option<Live<D>>, Segment<D>),
    ) -> io::Result<bool> {
        let Some((_, _, stat)) = live else {
            return Ok(true);
        };
        let record = own.current.and_then(|current| own.scan.records.get(&current));
        match (record, &own.dir) {
            (Some(record), Some(dir)) if record.growing && record.path == encode_path(path) => {
                let name = format!("{}.json", record.version);
                let now = self.read_record(dir, OsStr::new(&name), record.version, &Key::of(path));
                Ok(now.is_ok_and(|now| now.is_some_and(|now| now.growing)))
            }
            // What is not known may be a version whose record has come meanwhile.
            (Some(record), Some(_)) if record.how == How::Found => {
                let now = self.live(path)?;
                Ok(now.is_some_and(|(_, _, now)| Identity::of(&now).is(stat)))
            }
            _ => Ok(true),
        }
    }

    pub(super) fn own_segment_once(&self, path: &Path) -> io::Result<(Option<Live<D>>, Segment<D>)> {
        let live = self.live(path)?;
        let (mut dir, mut scan) = self.history_of(path)?;
        if live.is_none() && scan.records.is_empty() {
            (dir, scan) = self.deleted_before(path)?.unwrap_or((dir, scan));
        }
        let mut current = None;
        if let Some((dir, name, stat)) = &live {
            current = self.current_of(&scan.records, dir, name, stat)?;
            if current.is_none() {
                let arrived = self.arrived(path, (dir, name, stat), (&scan.records, scan.next()))?;
                let record = arrived.unwrap_or_else(|| found(path, scan.next(), stat));
                current = Some(record.version);
                scan.records.insert(record.version, record);
            }
        }
        let own = Segment {
            path: path.to_owned(),
            dir,
            scan,
            current,
            after: 0,
            until: u64::MAX,
            heir: None,
            shift: 0,
        };
        Ok((live, own))
    }

    /// The history of `path` and of the names that its files had before.
    pub(super) fn lineage(&self, path: &Path) -> io::Result<Lineage<D>> {
        let (live, own) = self.own_segment(path)?;
        let mut lineage = Lineage {
            live,
            segments: vec![own],
        };
        self.trace(&mut lineage.segments)?;
        Ok(lineage)
    }

    /// Adds what the files of `segments` were before.
    fn trace(&self, segments: &mut Vec<Segment<D>>) -> io::Result<()> {
        let mut at = 0;
        while at < segments.len() && segments.len() < FORMER_NAMES_MAX {
            let (mut former, shift) = (Vec::new(), segments[at].shift);
            for record in segments[at].stay().rev() {
                if let Some(from) = &record.came_from {
                    former.extend(self.segment_before(from, (at, record.version), shift)?);
                }
            }
            segments.extend(former);
            at += 1;
        }
        segments.truncate(FORMER_NAMES_MAX);
        Ok(())
    }

    /// What is added to the numbers that a file had as `from`, now that it comes to `path`: so much that they come after those which the
    /// name has used for other files.
    pub(super) fn shift(&self, path: &Path, (own, next): Own<'_>, from: &CameFrom) -> io::Result<u64> {
        if own.is_empty() || !from.continues {
            return Ok(0);
        }
        let mut segments: Vec<_> = self.segment_before(from, (0, 0), 0)?.into_iter().collect();
        self.trace(&mut segments)?;
        let here = encode_path(path);
        let came_from_here = |record: &VersionRecord| record.came_from.as_ref().is_some_and(|from| from.path == here);
        let others = segments
            .iter()
            .filter(|segment| segment.path != path)
            .flat_map(|segment| {
                let others = segment.stay().filter(|record| !came_from_here(record));
                others.map(|record| record.version + segment.shift)
            });
        let shift = others.min().map_or(0, |lowest| next.saturating_sub(lowest));
        Ok(match shift.saturating_add(from.version) < SHIFTED_MAX {
            true => shift,
            false => 0,
        })
    }

    fn history_of(&self, path: &Path) -> io::Result<(Option<D::Dir>, Scan)> {
        let key = Key::of(path);
        let dir = self.open_key(&key)?;
        let scan = match &dir {
            Some(dir) => self.scan(dir, &key)?,
            None => Scan::empty(),
        };
        Ok((dir, scan))
    }

    /// The history of a file that was deleted before its directory was renamed: it is known by its new path too, until there is a file.
    fn deleted_before(&self, path: &Path) -> io::Result<Option<(Option<D::Dir>, Scan)>> {
        let (mut at, mut bound) = (path.to_owned(), u64::MAX);
        loop {
            let before = self.moves.read().before(&at, bound);
            let Some((former, number)) = before else {
                return Ok(None);
            };
            let (dir, scan) = self.history_of(&former)?;
            let newest = scan.records.values().next_back();
            if newest.is_some_and(|newest| newest.is_tombstone() && newest.moved_to.is_none()) {
                return Ok(Some((dir, scan)));
            }
            (at, bound) = (former, number);
        }
    }

    /// What a file that came from elsewhere was there. `heir` is what became of it, whose numbers are told with `shift` added.
    fn segment_before(&self, from: &CameFrom, heir: (usize, u64), shift: u64) -> io::Result<Option<Segment<D>>> {
        if !from.continues {
            return Ok(None);
        }
        let Some(path) = decode_path(&from.path) else {
            return Ok(None);
        };
        let key = Key::of(&path);
        let Some(dir) = self.open_key(&key)? else {
            return Ok(None);
        };
        let scan = self.scan(&dir, &key)?;
        let mut before = scan.records.range(..from.version).rev();
        let after = before.find(|(_, record)| record.is_tombstone()).map_or(0, |(v, _)| *v);
        Ok(Some(Segment {
            path,
            dir: Some(dir),
            scan,
            current: Some(from.version),
            after,
            until: from.version,
            heir: Some(heir),
            shift: shift + from.shift,
        }))
    }

    /// The record of a file that came to `path` with a directory, and has not been changed since: what it was under its former path, with a
    /// number that its own history has not used.
    pub(super) fn arrived(
        &self,
        path: &Path,
        (dir, name, live): (&D::Dir, &std::ffi::OsStr, &Stat),
        own: Own<'_>,
    ) -> io::Result<Option<VersionRecord>> {
        let (mut at, mut bound) = (path.to_owned(), u64::MAX);
        loop {
            let before = self.moves.read().before(&at, bound);
            let Some((former, number)) = before else {
                return Ok(None);
            };
            if let Some(record) = self.record_at(&former, dir, name, live)? {
                let mut from = CameFrom {
                    path: encode_path(&former),
                    version: record.version,
                    continues: true,
                    shift: 0,
                };
                from.shift = self.shift(path, own, &from)?;
                return Ok(Some(VersionRecord {
                    version: (record.version + from.shift).max(own.1),
                    path: encode_path(path),
                    came_from: Some(from),
                    // What it extends is in the other history.
                    extends: None,
                    ..record
                }));
            }
            (at, bound) = (former, number);
        }
    }

    /// Whether a file that left `path` with its directory, and has not been changed since, is somewhere: all that it was is in the history of `path`. What
    /// cannot be told counts as yes.
    pub(super) fn lives_elsewhere(&self, path: &Path, records: &BTreeMap<u64, VersionRecord>) -> io::Result<bool> {
        let Some(earliest) = records.values().map(|record| record.time).min() else {
            return Ok(false);
        };
        let (state, paths) = {
            let moves = self.moves.read();
            (moves.state(), moves.after(path, earliest))
        };
        for path in paths {
            if let Some((dir, name, stat)) = self.live(&path)?
                && self.current_of(records, &dir, &name, &stat)?.is_some()
            {
                return Ok(true);
            }
        }
        // A directory that was renamed meanwhile may have taken it along.
        Ok(self.moves.read().state() != state)
    }

    fn record_at(
        &self,
        former: &Path,
        dir: &D::Dir,
        name: &std::ffi::OsStr,
        live: &Stat,
    ) -> io::Result<Option<VersionRecord>> {
        let key = Key::of(former);
        let Some(history) = self.open_key(&key)? else {
            return Ok(None);
        };
        let mut scan = self.scan(&history, &key)?;
        let version = self.current_of(&scan.records, dir, name, live)?;
        Ok(version.and_then(|version| scan.records.remove(&version)))
    }

    /// Opens the content of a version that is somewhere in the lineage.
    /// `None`: the history has changed since it was read; `at_last`: what a power failure has left looks like that too.
    pub(super) fn open_in(
        &self,
        lineage: &Lineage<D>,
        version: u64,
        at_last: bool,
    ) -> io::Result<Option<Kept<D::File>>> {
        let missing = || not_kept(version);
        let (mut at, mut wanted) = lineage.holder(version).ok_or_else(missing)?;
        let mut bytes = None;
        loop {
            let segment = &lineage.segments[at];
            let host = segment.host(wanted).ok_or_else(missing)?;
            if host != wanted && bytes.is_none() {
                // Only a pruned version has none, and another extends only what has stopped growing.
                let record = segment.scan.records.get(&wanted).ok_or_else(missing)?;
                if record.growing && !at_last {
                    return Ok(None);
                }
                bytes = Some(record.bytes);
            }
            if let (true, Some(dir)) = (segment.scan.contents.contains_key(&host), &segment.dir) {
                let file = if_there(self.disk.open(dir, OsStr::new(&host.to_string())))?;
                return file.map(|file| self.kept(file, bytes)).transpose();
            }
            match (segment.heir, &lineage.live) {
                (Some(heir), _) => (at, wanted) = heir,
                (None, Some((dir, name, stat))) => {
                    let Some(file) = if_there(self.disk.open(dir, name))? else {
                        return Ok(None);
                    };
                    let same = self.disk.stat(&file)?.ino == stat.ino;
                    // Lines that were appended since are of a later version.
                    let bytes = bytes.unwrap_or(stat.size);
                    return same.then(|| self.kept(file, Some(bytes))).transpose();
                }
                (None, None) => return Err(missing()),
            }
        }
    }
}
