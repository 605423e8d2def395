//! A file comes to a name that it, or another, had before: which numbers it has there.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::History;
use super::disk::{Disk, Stat};
use super::history::{Key, Scan};
use super::lineage::{Lineage, Segment};
use super::record::{CameFrom, VersionRecord, decode_path, encode_path};

/// Numbers beyond this are not given for the sake of a complete listing; JavaScript's readers of our JSON know no greater ones.
const SHIFTED_MAX: u64 = 1 << 53;

/// A name's own records, and the number of its next version.
pub(super) type Own<'a> = (&'a BTreeMap<u64, VersionRecord>, u64);

/// A file that comes to a name, with what it was before.
pub(super) struct Arrival<D: Disk> {
    /// With how much is added to its numbers: so much that those which are new under the name come after all that this has used.
    pub from: CameFrom,
    /// `None`: the name has used no numbers.
    lineage: Option<Lineage<D>>,
}

impl<D: Disk> Arrival<D> {
    /// The number under the new name of a version that the file had under the former one.
    fn number(&self, version: u64) -> Option<u64> {
        let Some(lineage) = &self.lineage else {
            return Some(version);
        };
        lineage.number((lineage.segment(&decode_path(&self.from.path)?)?, version))
    }
}

impl<D: Disk> History<D> {
    /// A file comes to `path` that was `from` before: what the numbers that it had there are told as.
    pub(super) fn arrival(&self, path: &Path, (own, next): Own<'_>, from: CameFrom) -> io::Result<Arrival<D>> {
        if own.is_empty() || !from.continues {
            return Ok(Arrival { from, lineage: None });
        }
        let mut lineage = self.known_lineage(path, own)?;
        let known = lineage.stays();
        self.trace(&mut lineage.segments, (0, vec![(next, from.clone())].into_iter(), 0))?;
        let lowest = lineage
            .lowest_new(&known)
            .map_or(from.version, |lowest| lowest.min(from.version));
        let shift = next.saturating_sub(lowest);
        let shift = match shift.saturating_add(from.version) < SHIFTED_MAX {
            true => shift,
            false => 0,
        };
        lineage.shift_new(&known, shift);
        Ok(Arrival {
            from: CameFrom { shift, ..from },
            lineage: Some(lineage),
        })
    }

    /// What the files were before that are in a name's own records.
    fn known_lineage(&self, path: &Path, own: &BTreeMap<u64, VersionRecord>) -> io::Result<Lineage<D>> {
        let scan = Scan {
            records: own.clone(),
            ..Scan::empty()
        };
        self.lineage_of(None, Segment::new(path, None, scan))
    }

    /// The number under `path`, whose own records are given, of a version that was seen under another path.
    pub(super) fn number_under(
        &self,
        path: &Path,
        records: &BTreeMap<u64, VersionRecord>,
        (seen_at, version): (&Path, u64),
    ) -> io::Result<Option<u64>> {
        let seen = encode_path(seen_at);
        let is_it = |from: &CameFrom| from.path == seen && from.version == version;
        let mut own = records.values();
        if let Some(record) = own.find(|record| record.came_from.as_ref().is_some_and(is_it)) {
            return Ok(Some(record.version));
        }
        let lineage = self.known_lineage(path, records)?;
        let at = lineage.segment(seen_at);
        Ok(at.and_then(|at| lineage.number((at, version))))
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
            // What it was here before, and is not any more, it is by no other name either.
            let elsewhere = former != path;
            if elsewhere && let Some(record) = self.record_at(&former, dir, name, live)? {
                let from = CameFrom {
                    path: encode_path(&former),
                    version: record.version,
                    continues: true,
                    shift: 0,
                };
                let arrival = self.arrival(path, own, from)?;
                let told = |version: u64| arrival.number(version);
                return Ok(Some(VersionRecord {
                    version: (record.version + arrival.from.shift).max(own.1),
                    path: encode_path(path),
                    based_on: record.based_on.and_then(told),
                    replaced: record.replaced.and_then(told),
                    came_from: Some(arrival.from),
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
        let version = self.current_of(&scan.records, dir, name, live)?;
        Ok(version.and_then(|version| scan.records.remove(&version)))
    }
}
