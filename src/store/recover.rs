//! What the next start does with what the last owner left. Everything here may be cut short and done again.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Store;
use super::append::GrowthName;
use super::disk::{Disk, Kind, Stat};
use super::files::content_name;
use super::history::{Key, found};
use super::record::{JournalLine, RecoveredKind, VersionRecord, decode_path, encode_path};
use super::room::is_full;
use super::shadow::ShadowName;

/// What recovery did with something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Staged, never published: moved to `recovered/`.
    Kept,
    /// A publish had been committed: the version it replaced was moved into the history.
    Completed,
    /// Not concordfs's, or damaged: moved to `recovered/`.
    Garbage,
}

/// One thing that recovery found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecoveryItem {
    /// What was done.
    pub action: Action,
    /// The file it belongs to, relative to the project and readable (see [`encode_path`]), where that is known.
    pub path: Option<String>,
    /// Where it is now, below `.concord/`.
    pub at: String,
    /// Why, for people.
    pub reason: String,
}

impl std::fmt::Display for RecoveryItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{path}: ")?;
        }
        write!(f, "{} (.concord/{})", self.reason, self.at)
    }
}

/// What recovery found and did. Empty after an orderly stop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RecoveryReport {
    /// In the order in which it was done.
    pub items: Vec<RecoveryItem>,
    /// There was no store: this one was made.
    pub made: bool,
}

impl<D: Disk> Store<D> {
    /// Deals with everything in `shadows/`, settles the histories of the files that were being changed, bounds
    /// `recovered/`, and empties the journal.
    pub(super) fn recover(&self, lines: &HashMap<u64, JournalLine>, now: u64) -> io::Result<RecoveryReport> {
        let mut report = RecoveryReport::default();
        self.count_recovered()?;
        let mut touched: BTreeMap<Key, PathBuf> = BTreeMap::new();
        for path in lines.values().filter_map(|line| decode_path(&line.path)) {
            touched.insert(Key::of(&path), path);
        }
        self.recover_images(lines, &mut touched, &mut report, now)?;
        let mut entries = self.disk().list(&self.shadows)?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut grown = Vec::new();
        for entry in entries.iter().filter(|entry| entry.name != "journal") {
            let half_made = entry.name.to_str().is_some_and(|name| name.ends_with(".new"));
            match ShadowName::parse(&entry.name) {
                Some(name) if entry.kind == Kind::File => {
                    let line = lines
                        .get(&name.id)
                        .filter(|line| decode_path(&line.path).is_some_and(|p| Key::of(&p) == name.key));
                    let path = self.path_of(&name.key, line);
                    touched.extend(path.clone().map(|path| (name.key.clone(), path)));
                    report
                        .items
                        .extend(self.recover_one(&name, path.as_deref(), line, now)?);
                }
                None if entry.kind == Kind::File && GrowthName::parse(&entry.name).is_some() => {
                    grown.extend(GrowthName::parse(&entry.name));
                }
                // Its session had not begun: nothing was written to it.
                _ if half_made && entry.kind == Kind::File => self.disk().unlink(&self.shadows, &entry.name)?,
                _ => report.items.push(self.recover_garbage(&entry.name, now)?),
            }
        }
        for name in grown {
            let line = lines.get(&name.id);
            let path = self.path_of(&name.key, line);
            report
                .items
                .extend(self.recover_growth(&name, path.as_ref(), line, now)?);
        }
        for (key, path) in &touched {
            self.settle_touched(key, path, now)?;
        }
        if !report.items.is_empty() {
            // Covers the moves out of shadows/ too: a rename is one operation in both directories.
            self.disk().sync_dir(&self.history.recovered)?;
        }
        self.journal.lock().clear(self.disk())?;
        self.bound_recovered();
        Ok(report)
    }

    fn recover_garbage(&self, name: &OsStr, now: u64) -> io::Result<RecoveryItem> {
        let reason = "it is not a shadow that concordfs made".to_owned();
        let at = self.set_aside_garbage(&self.shadows, name, "shadows", &reason, now)?;
        Ok(RecoveryItem {
            action: Action::Garbage,
            path: None,
            at: format!("recovered/{at}"),
            reason,
        })
    }

    pub(super) fn path_of(&self, key: &Key, line: Option<&JournalLine>) -> Option<PathBuf> {
        let dir = self.history.open_key(key).ok().flatten();
        dir.and_then(|dir| self.history.read_path(&dir, key))
            .or_else(|| line.and_then(|line| decode_path(&line.path)))
    }

    fn recover_one(
        &self,
        name: &ShadowName,
        path: Option<&Path>,
        line: Option<&JournalLine>,
        now: u64,
    ) -> io::Result<Option<RecoveryItem>> {
        let text = name.text();
        let stat = self.disk().stat_at(&self.shadows, &text)?;
        if stat.ino != name.ino {
            if let Some(path) = path {
                return self
                    .complete((&self.shadows, &text), (&name.key, path), &stat, line, now)
                    .map(Some);
            }
        } else if stat.size == 0 {
            self.disk().unlink(&self.shadows, &text)?;
            return Ok(None);
        }
        let reason = match stat.ino == name.ino {
            true => "its session had not been published when concordfs or the machine stopped",
            false => "it is a replaced version of a file whose name was lost",
        };
        let record = self.aside(path, &stat, RecoveredKind::Staged, reason, line, now);
        let at = self.set_aside(&self.shadows, &text, record)?;
        Ok(Some(self.kept(at, path, reason)))
    }

    /// The publish had been committed: `text` leads to the replaced content. Its number is that of the record that knows it,
    /// else the one that the live version's record says it replaced, else a new one.
    pub(super) fn complete(
        &self,
        (from, text): (&D::Dir, &OsString),
        (key, path): (&Key, &Path),
        old: &Stat,
        line: Option<&JournalLine>,
        now: u64,
    ) -> io::Result<RecoveryItem> {
        let dir = self.make_history(key)?;
        let scan = self.clean_scan(&dir, key, now)?;
        let free = |version: &u64| !scan.contents.contains_key(version);
        let known = scan
            .records
            .values()
            .rev()
            .find(|r| r.is_held_by(old) && free(&r.version));
        let live = self.history.live(path)?;
        let current = match &live {
            Some((dir, name, stat)) => self.history.current_of(&scan.records, dir, name, stat)?,
            None => None,
        };
        let by_live = || {
            current
                .and_then(|c| scan.records.get(&c))
                .and_then(|record| record.replaced)
        };
        let by_live = || by_live().filter(free).filter(|v| !scan.records.contains_key(v));
        let version = known
            .map(|record| record.version)
            .or_else(by_live)
            .unwrap_or_else(|| scan.next());
        if known.is_none() {
            let note = Some("its record was lost when the machine stopped".to_owned());
            self.write_record(
                &dir,
                &VersionRecord {
                    note,
                    ..found(path, version, old)
                },
            )?;
        }
        let name = content_name(version);
        self.disk().rename_noreplace((from, text), (&dir, &name))?;
        if let (Some((_, _, stat)), None) = (&live, current) {
            self.write_lost_record(&dir, path, scan.next().max(version + 1), stat, line)?;
        }
        let at = format!(
            "history/{}/{}/{version}",
            key.fan().to_string_lossy(),
            key.name().to_string_lossy()
        );
        let reason = "its successor had been published; it is now in the history".to_owned();
        Ok(RecoveryItem {
            action: Action::Completed,
            path: Some(encode_path(path)),
            at,
            reason,
        })
    }

    /// The live version's own record did not reach the disk: what the journal still knows is written down.
    fn write_lost_record(
        &self,
        dir: &D::Dir,
        path: &Path,
        version: u64,
        live: &Stat,
        line: Option<&JournalLine>,
    ) -> io::Result<()> {
        let mut record = found(path, version, live);
        record.note = Some("published just before the machine stopped; its own record was lost".to_owned());
        if let Some(line) = line {
            record.who = line.who.clone();
            record.based_on = line.based_on;
        }
        self.write_record(dir, &record)
    }

    fn settle_touched(&self, key: &Key, path: &Path, now: u64) -> io::Result<()> {
        if self.history.open_key(key)?.is_none() {
            return Ok(());
        }
        let live = self.history.live(path)?;
        match self.settle_alone(key, path, live.as_ref(), now) {
            // It is done when the history is next used.
            Err(error) if is_full(&error) => {
                log::warn!("no room to set right the history of {}: {error}", path.display());
                Ok(())
            }
            settled => settled.map(drop),
        }
    }
}
