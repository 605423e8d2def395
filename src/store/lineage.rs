//! A file's history over the names it had. A version's record says from which name and version its file came (`came_from`); a directory's
//! rename is in `moves`. Each name's own history stays where it is.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::disk::{Disk, Stat};
use super::history::{Kept, Key, Scan, VersionEntry, found};
use super::record::{CameFrom, VersionRecord, decode_path, encode_path};
use super::{History, prefix};

/// Names that are followed back. A file that was renamed more often shows its older versions under the older names only.
const FORMER_NAMES_MAX: usize = 64;

/// The part of a name's history that is of one file.
pub(super) struct Segment<D: Disk> {
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
        for segment in &self.segments[1..] {
            for record in segment.stay().filter(|record| segment.host(record.version).is_some()) {
                entries.entry(record.version).or_insert_with(|| VersionEntry {
                    record: record.clone(),
                    current: false,
                    gone: false,
                });
            }
        }
    }

    /// The segment that a version is in.
    fn holder(&self, version: u64) -> Option<usize> {
        let own = self.segments[0].scan.records.get(&version);
        if own.is_some_and(VersionRecord::is_tombstone) {
            return None;
        }
        let holds = |(at, segment): &(usize, &Segment<D>)| {
            segment.host(version).is_some() && (*at == 0 || segment.stay().any(|record| record.version == version))
        };
        self.segments.iter().enumerate().find(holds).map(|(at, _)| at)
    }
}

impl<D: Disk> History<D> {
    /// What `path` itself has, and the file that is there now.
    pub(super) fn own_segment(&self, path: &Path) -> io::Result<(Option<Live<D>>, Segment<D>)> {
        let live = self.live(path)?;
        let (mut dir, mut scan) = self.history_of(path)?;
        if live.is_none() && scan.records.is_empty() {
            (dir, scan) = self.deleted_before(path)?.unwrap_or((dir, scan));
        }
        let mut current = None;
        if let Some((dir, name, stat)) = &live {
            current = self.current_of(&scan, dir, name, stat)?;
            if current.is_none() {
                let arrived = self.arrived(path, (dir, name, stat), scan.next())?;
                let record = arrived.unwrap_or_else(|| found(path, scan.next(), stat));
                current = Some(record.version);
                scan.records.insert(record.version, record);
            }
        }
        let own = Segment {
            dir,
            scan,
            current,
            after: 0,
            until: u64::MAX,
            heir: None,
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
        let mut at = 0;
        while at < lineage.segments.len() && lineage.segments.len() < FORMER_NAMES_MAX {
            let mut former = Vec::new();
            for record in lineage.segments[at].stay().rev() {
                former.extend(self.segment_before(record, at)?);
            }
            lineage.segments.extend(former);
            at += 1;
        }
        lineage.segments.truncate(FORMER_NAMES_MAX);
        Ok(lineage)
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

    /// What the file that became version `record` was under the name it had before.
    fn segment_before(&self, record: &VersionRecord, at: usize) -> io::Result<Option<Segment<D>>> {
        let Some(from) = record.came_from.as_ref().filter(|from| from.continues) else {
            return Ok(None);
        };
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
            dir: Some(dir),
            scan,
            current: Some(from.version),
            after,
            until: from.version,
            heir: Some((at, record.version)),
        }))
    }

    /// The record of a file that came to `path` with a directory, and has not been changed since: what it was under its former path, with a
    /// number of at least `next`.
    pub(super) fn arrived(
        &self,
        path: &Path,
        (dir, name, live): (&D::Dir, &std::ffi::OsStr, &Stat),
        next: u64,
    ) -> io::Result<Option<VersionRecord>> {
        let (mut at, mut bound) = (path.to_owned(), u64::MAX);
        loop {
            let before = self.moves.read().before(&at, bound);
            let Some((former, number)) = before else {
                return Ok(None);
            };
            if let Some(record) = self.record_at(&former, dir, name, live)? {
                return Ok(Some(VersionRecord {
                    version: record.version.max(next),
                    path: encode_path(path),
                    came_from: Some(CameFrom {
                        path: encode_path(&former),
                        version: record.version,
                        continues: true,
                    }),
                    // What it extends is in the other history.
                    extends: None,
                    ..record
                }));
            }
            (at, bound) = (former, number);
        }
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
        let version = self.current_of(&scan, dir, name, live)?;
        Ok(version.and_then(|version| scan.records.remove(&version)))
    }

    /// Opens the content of a version that is somewhere in the lineage.
    pub(super) fn open_in(&self, lineage: &Lineage<D>, version: u64) -> io::Result<Kept<D::File>> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("version {version} is not kept"));
        let (mut at, mut wanted) = (lineage.holder(version).ok_or_else(missing)?, version);
        let mut bytes = None;
        loop {
            let segment = &lineage.segments[at];
            let host = segment.host(wanted).ok_or_else(missing)?;
            if host != wanted && bytes.is_none() {
                bytes = segment.scan.records.get(&wanted).map(|record| record.bytes);
            }
            if let (true, Some(dir)) = (segment.scan.contents.contains_key(&host), &segment.dir) {
                let file = self.disk.open(dir, std::ffi::OsStr::new(&host.to_string()))?;
                return self.kept(file, bytes);
            }
            match (segment.heir, &lineage.live) {
                (Some(heir), _) => (at, wanted) = heir,
                (None, Some((dir, name, stat))) => {
                    let file = self.disk.open(dir, name)?;
                    let same = self.disk.stat(&file).is_ok_and(|opened| opened.ino == stat.ino);
                    return if same { self.kept(file, bytes) } else { Err(missing()) };
                }
                (None, None) => return Err(missing()),
            }
        }
    }
}
