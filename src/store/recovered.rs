//! `recovered/`: what was staged and not published, and what did not belong in the store. Bounded in bytes.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::disk::{Disk, Kind, if_there, read_small};
use super::record::{RECORD_BYTES_MAX, RecoveredKind, RecoveredRecord, clip, seal};
use super::room::is_full;
use super::{History, RECOVERED_BYTES_MAX, Store};

/// What lies in `recovered/`: names (they sort by time) and sizes.
#[derive(Default)]
pub(super) struct Tally {
    pub sizes: BTreeMap<OsString, u64>,
}

/// One thing in `recovered/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecoveredEntry {
    /// Its name there.
    pub name: String,
    /// What is known about it.
    #[serde(flatten)]
    pub record: RecoveredRecord,
}

impl<D: Disk> History<D> {
    /// What is in `recovered/`, oldest first.
    ///
    /// # Errors
    /// The errno of listing it; a damaged record is no error, the entry then says so.
    pub fn recovered(&self) -> io::Result<Vec<RecoveredEntry>> {
        let mut entries = Vec::new();
        for entry in self.disk.list(&self.recovered)? {
            let name = entry.name.to_string_lossy().into_owned();
            if is_record(&entry.name) {
                continue;
            }
            let Some(stat) = if_there(self.disk.stat_at(&self.recovered, &entry.name))? else {
                continue;
            };
            let record = read_small(&self.disk, &self.recovered, &record_name(&entry.name), RECORD_BYTES_MAX)
                .ok()
                .and_then(|bytes| RecoveredRecord::parse(&bytes).ok())
                .unwrap_or_else(|| RecoveredRecord {
                    kind: RecoveredKind::Garbage,
                    path: None,
                    time: u64::try_from(stat.mtime_ns).unwrap_or(0),
                    bytes: stat.size,
                    reason: "its record is missing or damaged".into(),
                    who: None,
                    based_on: None,
                });
            entries.push(RecoveredEntry { name, record });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The content of something in `recovered/`, for reading.
    ///
    /// # Errors
    /// NotFound; InvalidInput when it is not a regular file or `name` is no plain name.
    pub fn open_recovered(&self, name: &str) -> io::Result<D::File> {
        if name.contains('/') || name.is_empty() || name == "." || name == ".." {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a name in recovered/"));
        }
        self.disk.open(&self.recovered, OsStr::new(name))
    }
}

impl<D: Disk> Store<D> {
    /// Moves `name` into `recovered/`, its record first. Returns its name there.
    pub(super) fn set_aside(&self, dir: &D::Dir, name: &OsStr, record: RecoveredRecord) -> io::Result<String> {
        let record = RecoveredRecord {
            reason: clip(record.reason),
            ..record
        };
        let bytes = seal(&record).map_err(io::Error::other)?;
        let home = &self.history.recovered;
        loop {
            let id = format!(
                "{:016x}-{:04x}",
                record.time,
                self.serial.fetch_add(1, Ordering::Relaxed)
            );
            let json = record_name(OsStr::new(&id));
            let written = match self.write_new_record(&json, &bytes) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) if is_full(&error) => {
                    let written = self.write_into_spare(&json, &bytes);
                    // Without a spare there is no room, and nothing is missing.
                    written.map_err(|failed| {
                        if failed.kind() == io::ErrorKind::NotFound {
                            error
                        } else {
                            failed
                        }
                    })
                }
                result => result,
            };
            match written.and_then(|()| self.disk().rename_noreplace((dir, name), (home, OsStr::new(&id)))) {
                Ok(()) => {
                    self.recovered.lock().sizes.insert(id.clone().into(), record.bytes);
                    return Ok(id);
                }
                Err(error) => {
                    let _ = self.disk().unlink(home, &json);
                    if error.kind() != io::ErrorKind::AlreadyExists {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn write_new_record(&self, json: &OsStr, bytes: &[u8]) -> io::Result<()> {
        let file = self.disk().create(&self.history.recovered, json)?;
        self.disk().give(&file, &self.history.recovered);
        let written = self.disk().write_at(&file, bytes, 0);
        // What is here may be all that is left of somebody's work, and it is rare: its record is worth a sync. When
        // that fails the disk is failing, which may be why we are here: then better an unsynced record than none.
        let _ = self.disk().sync_file(&file);
        written
    }

    /// The spare's blocks become the record's. A new spare is made when there is room.
    fn write_into_spare(&self, json: &OsStr, bytes: &[u8]) -> io::Result<()> {
        let home = &self.history.recovered;
        self.take_spare(home, json)?;
        let file = self.disk().open_writable(home, json)?;
        self.disk().write_at(&file, bytes, 0)?;
        self.disk().set_len(&file, bytes.len() as u64)?;
        let _ = self.disk().sync_file(&file);
        self.keep_spare();
        Ok(())
    }

    /// [`Store::set_aside`] of something that does not belong where it is.
    pub(super) fn set_aside_garbage(
        &self,
        dir: &D::Dir,
        name: &OsStr,
        place: &str,
        why: &str,
        now: u64,
    ) -> io::Result<String> {
        let bytes = if_there(self.disk().stat_at(dir, name))?.map_or(0, |stat| stat.size);
        let at = format!("{place}/{}", name.to_string_lossy());
        let record = RecoveredRecord {
            kind: RecoveredKind::Garbage,
            path: Some(clip(at)),
            time: now,
            bytes,
            reason: why.to_owned(),
            who: None,
            based_on: None,
        };
        self.set_aside(dir, name, record)
    }

    /// Counts what is there, and removes records whose content never came.
    pub(super) fn count_recovered(&self) -> io::Result<()> {
        let home = &self.history.recovered;
        let entries = self.disk().list(home)?;
        let mut sizes = BTreeMap::new();
        for entry in entries.iter().filter(|entry| !is_record(&entry.name)) {
            if let Some(stat) = if_there(self.disk().stat_at(home, &entry.name))? {
                sizes.insert(entry.name.clone(), stat.size);
            }
        }
        for entry in entries
            .iter()
            .filter(|entry| is_record(&entry.name) && entry.kind == Kind::File)
        {
            let content = entry.name.to_str().and_then(|name| name.strip_suffix(".json"));
            if content.is_none_or(|content| !sizes.contains_key(OsStr::new(content))) {
                self.disk().unlink(home, &entry.name)?;
            }
        }
        self.recovered.lock().sizes = sizes;
        Ok(())
    }

    /// Removes the oldest until what is left fits in [`RECOVERED_BYTES_MAX`]; the newest always stays. What cannot be
    /// removed (a planted directory) no longer counts.
    pub(super) fn bound_recovered(&self) {
        self.bound_recovered_to(RECOVERED_BYTES_MAX);
    }

    pub(super) fn bound_recovered_to(&self, bytes_max: u64) {
        loop {
            let oldest = {
                let mut tally = self.recovered.lock();
                let total: u64 = tally.sizes.values().fold(0, |sum, size| sum.saturating_add(*size));
                if total <= bytes_max || tally.sizes.len() < 2 {
                    return;
                }
                tally.sizes.pop_first()
            };
            let Some((name, _)) = oldest else { return };
            let home = &self.history.recovered;
            match self
                .disk()
                .unlink(home, &name)
                .and_then(|()| self.disk().unlink(home, &record_name(&name)))
            {
                Ok(()) => log::info!("recovered/ is full: removed {}", name.to_string_lossy()),
                Err(error) => log::warn!("cannot remove .concord/recovered/{}: {error}", name.to_string_lossy()),
            }
        }
    }
}

fn record_name(name: &OsStr) -> OsString {
    let mut name = name.to_owned();
    name.push(".json");
    name
}

fn is_record(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.ends_with(".json"))
}
