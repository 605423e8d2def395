//! A file's history over the names it had. A version's record says from which name and version its file came (`came_from`); a directory's
//! rename is in `moves`. Each name's own history stays where it is.
//!
//! A file that comes back to a name it had brings along what it was meanwhile, and no more: what the name has of it already is the same version, told once, by
//! the number that it has there.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Disk, Stat, if_there};
use super::history::{Kept, Key, READS_MAX, Scan, VersionEntry, found};
use super::record::{CameFrom, How, Identity, VersionRecord, decode_path, encode_path};
use super::{History, prefix};

/// Names that are followed back. Of a file that had more, some versions are shown under the older names only.
const FORMER_NAMES_MAX: usize = 64;

/// A version, by the segment of a lineage and its number there.
type At = (usize, u64);

/// What a name has of a lineage.
pub(super) struct Segment<D: Disk> {
    path: PathBuf,
    pub dir: Option<D::Dir>,
    pub scan: Scan,
    /// The version that the live file holds; in the name's own segment only.
    pub current: Option<u64>,
    /// Versions that left, with their file, for another name of the lineage; and which they are there.
    left: BTreeMap<u64, At>,
    /// When a file of the lineage had this name. They do not overlap.
    stays: Vec<Stay>,
}

/// The versions of a name after one and up to another, and what is added to their numbers when they are told.
#[derive(Debug, Clone, Copy)]
struct Stay {
    after: u64,
    until: u64,
    shift: u64,
}

impl Stay {
    const WHOLE: Stay = Stay {
        after: 0,
        until: u64::MAX,
        shift: 0,
    };

    fn has(&self, version: u64) -> bool {
        self.after < version && version <= self.until
    }

    fn told(&self, version: u64) -> u64 {
        version.saturating_add(self.shift)
    }
}

impl<D: Disk> Segment<D> {
    pub fn new(path: &Path, dir: Option<D::Dir>, scan: Scan) -> Segment<D> {
        Segment {
            path: path.to_owned(),
            dir,
            scan,
            current: None,
            left: BTreeMap::new(),
            stays: Vec::new(),
        }
    }

    /// The version whose content holds this one: here, in the live file, or where it left for.
    pub fn host(&self, version: u64) -> Option<u64> {
        let held = |v| self.scan.contents.contains_key(&v) || self.left.contains_key(&v);
        prefix::host(&self.scan.records, held, self.current, version)
    }

    fn records_of(&self, stay: Stay) -> impl Iterator<Item = &VersionRecord> {
        let range = (
            std::ops::Bound::Excluded(stay.after),
            std::ops::Bound::Included(stay.until),
        );
        self.scan.records.range(range).map(|(_, record)| record)
    }

    /// Where files came from that had this name during a stay, the earliest first, and which version they were here then. One that came back as it had left, when
    /// others had had the name meanwhile, has replaced what it was itself.
    fn arrivals(&self, stay: Stay) -> std::vec::IntoIter<(u64, CameFrom)> {
        let back = |version: u64| CameFrom {
            path: encode_path(&self.path),
            version,
            continues: true,
            shift: 0,
        };
        let arrival = |record: &VersionRecord| {
            let came_back = || record.replaced.filter(|replaced| *replaced <= stay.after).map(back);
            Some((record.version, record.came_from.clone().or_else(came_back)?))
        };
        let all = self.records_of(stay).filter_map(arrival);
        all.collect::<Vec<_>>().into_iter()
    }

    /// What of the stay that ended with version `until` is in none of the others.
    fn uncovered(&self, until: u64, shift: u64) -> Option<Stay> {
        let mut before = self.scan.records.range(..until).rev();
        let began = before.find(|(_, record)| record.is_tombstone()).map_or(0, |(v, _)| *v);
        let earlier = self.stays.iter().filter(|stay| stay.after < until);
        let after = earlier.map(|stay| stay.until).fold(began, u64::max);
        (after < until).then_some(Stay { after, until, shift })
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

/// Where a content is.
struct Content {
    /// The history that it lies in, and as which version; `None`: it is the live file.
    lies: Option<At>,
    /// The version that was asked for is its beginning, as long as the record of this one says.
    beginning: Option<At>,
}

impl<D: Disk> Lineage<D> {
    /// Whether a version of the name's own can be read.
    pub fn keeps(&self, version: u64) -> bool {
        self.content((0, version)).is_some()
    }

    /// Adds the versions of former names whose numbers the name itself has not used.
    pub fn add_former(&self, entries: &mut BTreeMap<u64, VersionEntry>) {
        for (number, at) in self.former() {
            let Some(record) = self.record(at) else { continue };
            let told = |version: u64| self.number((at.0, version));
            entries.entry(number).or_insert_with(|| VersionEntry {
                record: VersionRecord {
                    version: number,
                    based_on: record.based_on.and_then(told),
                    replaced: record.replaced.and_then(told),
                    ..record.clone()
                },
                current: false,
                gone: false,
            });
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

    /// The versions under former names that can be read, by the number that they are told by.
    fn former(&self) -> BTreeMap<u64, At> {
        let mut found = BTreeMap::new();
        for (at, segment) in self.segments.iter().enumerate().skip(1) {
            let records = segment.stays.iter().flat_map(|stay| segment.records_of(*stay));
            let kept = records
                .map(|record| (at, record.version))
                .filter(|at| self.content(*at).is_some());
            for at in kept {
                let Some(number) = self.number(at) else { continue };
                // By the name that it was saved under.
                match self.origin(at) == at {
                    true => found.insert(number, at),
                    false => Some(*found.entry(number).or_insert(at)),
                };
            }
        }
        found
    }

    /// The segment of a name.
    pub fn segment(&self, path: &Path) -> Option<usize> {
        self.segments.iter().position(|segment| segment.path == path)
    }

    fn record(&self, (at, version): At) -> Option<&VersionRecord> {
        self.segments[at].scan.records.get(&version)
    }

    /// The version as which a content was published: who comes to another name with his directory is still the same there.
    fn origin(&self, mut at: At) -> At {
        // What a damaged record says might lead in a circle.
        for _ in 0..self.segments.len() {
            let came_from = self.record(at).filter(|record| record.is_arrival());
            let former = came_from.and_then(|record| record.came_from.as_ref()).and_then(|from| {
                let path = decode_path(&from.path)?;
                Some((self.segment(&path)?, from.version))
            });
            match former.filter(|former| self.record(*former).is_some()) {
                Some(former) => at = former,
                None => break,
            }
        }
        at
    }

    /// The number that a version is told by: that which it has under the name itself, if any.
    pub fn number(&self, at: At) -> Option<u64> {
        if at.0 == 0 {
            return Some(at.1);
        }
        let (segment, version) = self.origin(at);
        let own = || {
            let arrivals = self.segments[0]
                .scan
                .records
                .values()
                .filter(|record| record.is_arrival());
            let mut same = arrivals.filter(|record| self.origin((0, record.version)) == (segment, version));
            same.next().map(|record| record.version)
        };
        let stay = || self.segments[segment].stays.iter().find(|stay| stay.has(version));
        match segment {
            0 => Some(version),
            _ => own().or_else(|| stay().map(|stay| stay.told(version))),
        }
    }

    /// How many stays each segment has.
    pub fn stays(&self) -> Vec<usize> {
        self.segments.iter().map(|segment| segment.stays.len()).collect()
    }

    /// The lowest number of a version that is not the name's own, nor of the stays that were `known`.
    pub fn lowest_new(&self, known: &[usize]) -> Option<u64> {
        let known = |at: usize| known.get(at).copied().unwrap_or(0);
        let is_known = |(at, version): At| {
            let stays = &self.segments[at].stays;
            at == 0 || stays[..known(at)].iter().any(|stay| stay.has(version))
        };
        let segments = self.segments.iter().enumerate();
        let new = segments.flat_map(|(at, segment)| {
            let stays = segment.stays.iter().skip(known(at));
            let records = stays.flat_map(|stay| segment.records_of(*stay).map(move |record| (*stay, record.version)));
            let new = records.filter(move |(_, version)| !is_known(self.origin((at, *version))));
            new.map(|(stay, version)| stay.told(version))
        });
        new.min()
    }

    /// Adds to the numbers of all stays but those that were `known`.
    pub fn shift_new(&mut self, known: &[usize], shift: u64) {
        for (at, segment) in self.segments.iter_mut().enumerate() {
            let new = segment.stays.iter_mut().skip(known.get(at).copied().unwrap_or(0));
            new.for_each(|stay| stay.shift += shift);
        }
    }

    /// The segment that a version is in, and its number there.
    fn holder(&self, version: u64) -> Option<At> {
        let own = self.segments[0].scan.records.get(&version);
        if own.is_some_and(VersionRecord::is_tombstone) {
            return None;
        }
        match self.keeps(version) {
            true => Some((0, version)),
            false => self.former().remove(&version),
        }
    }

    fn content(&self, (mut at, mut version): At) -> Option<Content> {
        let steps: usize = self.segments.iter().map(|segment| segment.left.len()).sum();
        let mut beginning = None;
        for _ in 0..=steps {
            let segment = &self.segments[at];
            let host = segment.host(version)?;
            if host != version {
                beginning = beginning.or(Some((at, version)));
            }
            let lies = segment.scan.contents.contains_key(&host).then_some((at, host));
            if lies.is_some() || segment.current == Some(host) {
                return Some(Content { lies, beginning });
            }
            (at, version) = *segment.left.get(&host)?;
        }
        None
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
            current,
            ..Segment::new(path, dir, scan)
        };
        Ok((live, own))
    }

    /// The history of `path` and of the names that its files had before.
    pub(super) fn lineage(&self, path: &Path) -> io::Result<Lineage<D>> {
        let (live, own) = self.own_segment(path)?;
        self.lineage_of(live, own)
    }

    pub(super) fn lineage_of(&self, live: Option<Live<D>>, mut own: Segment<D>) -> io::Result<Lineage<D>> {
        own.stays = vec![Stay::WHOLE];
        let segments = vec![own];
        let mut lineage = Lineage { live, segments };
        let arrivals = lineage.segments[0].arrivals(Stay::WHOLE);
        self.trace(&mut lineage.segments, (0, arrivals, 0))?;
        Ok(lineage)
    }

    /// Adds what the files were before that came to a segment, whose numbers are told with something added. The earliest first: a number that was once told
    /// stays, whoever comes later.
    pub(super) fn trace(
        &self,
        segments: &mut Vec<Segment<D>>,
        arrived: (usize, std::vec::IntoIter<(u64, CameFrom)>, u64),
    ) -> io::Result<()> {
        let mut todo = vec![arrived];
        while let Some((at, arrivals, shift)) = todo.last_mut() {
            let Some((version, from)) = arrivals.next() else {
                todo.pop();
                continue;
            };
            let heir = (*at, version);
            let shift = shift.saturating_add(from.shift);
            if let Some(former) = self.segment_before(segments, &from)? {
                let segment = &mut segments[former];
                if former != heir.0 {
                    segment.left.entry(from.version).or_insert(heir);
                }
                if let Some(stay) = segment.uncovered(from.version, shift) {
                    segment.stays.push(stay);
                    todo.push((former, segment.arrivals(stay), shift));
                }
            }
        }
        Ok(())
    }

    /// The segment of the name that a file had before; `None` where nothing of it is known.
    fn segment_before(&self, segments: &mut Vec<Segment<D>>, from: &CameFrom) -> io::Result<Option<usize>> {
        let path = decode_path(&from.path).filter(|_| from.continues);
        let Some(path) = path else { return Ok(None) };
        if let Some(known) = segments.iter().position(|segment| segment.path == path) {
            return Ok(Some(known));
        }
        let (dir, scan) = match segments.len() < FORMER_NAMES_MAX {
            true => self.history_of(&path)?,
            false => (None, Scan::empty()),
        };
        Ok(dir.map(|dir| {
            segments.push(Segment::new(&path, Some(dir), scan));
            segments.len() - 1
        }))
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

    /// Opens the content of a version that is somewhere in the lineage.
    /// `None`: the history has changed since it was read; `at_last`: what a power failure has left looks like that too.
    pub(super) fn open_in(
        &self,
        lineage: &Lineage<D>,
        version: u64,
        at_last: bool,
    ) -> io::Result<Option<Kept<D::File>>> {
        let missing = || not_kept(version);
        let holder = lineage.holder(version).ok_or_else(missing)?;
        let Content { lies, beginning } = lineage.content(holder).ok_or_else(missing)?;
        let bytes = match beginning {
            // Only a pruned version has none, and another extends only what has stopped growing.
            Some(at) => match lineage.record(at).ok_or_else(missing)? {
                record if record.growing && !at_last => return Ok(None),
                record => Some(record.bytes),
            },
            None => None,
        };
        if let Some((at, host)) = lies {
            let dir = lineage.segments[at].dir.as_ref().ok_or_else(missing)?;
            let file = if_there(self.disk.open(dir, OsStr::new(&host.to_string())))?;
            return file.map(|file| self.kept(file, bytes)).transpose();
        }
        let (dir, name, stat) = lineage.live.as_ref().ok_or_else(missing)?;
        let Some(file) = if_there(self.disk.open(dir, name))? else {
            return Ok(None);
        };
        let same = self.disk.stat(&file)?.ino == stat.ino;
        // Lines that were appended since are of a later version.
        let bytes = bytes.unwrap_or(stat.size);
        same.then(|| self.kept(file, Some(bytes))).transpose()
    }
}
