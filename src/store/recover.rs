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
use super::room::{Spare, is_full};
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
    /// One of these, and there was no room for its record: it stays where it is for the next start.
    Left,
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

/// What there is in `shadows/`, by what is to be done with it.
#[derive(Default)]
struct Shadows {
    /// Needs no record; of what is not needed any more, the removal makes room.
    first: Vec<(ShadowName, Stat)>,
    grown: Vec<GrowthName>,
    /// Never published. Each needs a record.
    staged: Vec<(ShadowName, Stat)>,
    odd: Vec<OsString>,
}

impl RecoveryReport {
    /// Notes what was done; what could not be done for want of room is `left`.
    pub(super) fn note(
        &mut self,
        done: io::Result<Option<RecoveryItem>>,
        left: impl FnOnce() -> RecoveryItem,
    ) -> io::Result<()> {
        match done {
            Err(error) if is_full(&error) => self.items.push(left()),
            done => self.items.extend(done?),
        }
        Ok(())
    }
}

const UNPUBLISHED: &str = "its session had not been published when concordfs or the machine stopped";
const NO_SHADOW: &str = "it is not a shadow that concordfs made";
/// Why something is [`Action::Left`].
pub(super) const NO_ROOM: &str = "the disk is full, so it stays there for the next start";

/// The journal's line of a shadow's session.
fn line_of<'a>(lines: &'a HashMap<u64, JournalLine>, name: &ShadowName) -> Option<&'a JournalLine> {
    let is_its = |line: &&JournalLine| decode_path(&line.path).is_some_and(|path| Key::of(&path) == name.key);
    lines.get(&name.id).filter(is_its)
}

/// The same error, and of which file.
fn about(path: Option<&Path>, error: &io::Error) -> io::Error {
    let shown = path.map_or_else(|| "a file whose name was lost".into(), encode_path);
    io::Error::new(error.kind(), format!("{shown}: {error}"))
}

impl<D: Disk> Store<D> {
    /// Deals with everything in `shadows/`, settles the histories of the files that were being changed, bounds
    /// `recovered/`, and empties the journal. On a full disk what cannot be recorded is left for the next start: [`Action::Left`].
    pub(super) fn recover(
        &self,
        lines: &HashMap<u64, JournalLine>,
        report: &mut RecoveryReport,
        now: u64,
    ) -> io::Result<()> {
        report.items.retain(|item| item.action != Action::Left);
        self.count_recovered()?;
        let mut touched: BTreeMap<Key, PathBuf> = BTreeMap::new();
        for path in lines.values().filter_map(|line| decode_path(&line.path)) {
            touched.insert(Key::of(&path), path);
        }
        self.recover_images(lines, &mut touched, report, now)?;
        let shadows = self.sort_shadows()?;
        for (name, _) in shadows.first.iter().chain(&shadows.staged) {
            let path = self.path_of(&name.key, line_of(lines, name));
            touched.extend(path.map(|path| (name.key.clone(), path)));
        }
        for (name, stat) in &shadows.first {
            let done = self.with_room(Spare::Records, now, || {
                self.recover_one(name, stat, line_of(lines, name), now)
            });
            report.note(done, || self.left(name, lines))?;
        }
        for name in &shadows.grown {
            let line = lines.get(&name.id);
            let path = self.path_of(&name.key, line);
            let done = self.recover_growth(name, path.as_ref(), line, now);
            // What is not a whole line must not be appended to.
            report
                .items
                .extend(done.map_err(|error| about(path.as_deref(), &error))?);
        }
        for (name, stat) in &shadows.staged {
            let done = self.recover_one(name, stat, line_of(lines, name), now);
            report.note(done, || self.left(name, lines))?;
        }
        for name in &shadows.odd {
            report.note(self.recover_garbage(name, now).map(Some), || RecoveryItem {
                action: Action::Left,
                path: None,
                at: format!("shadows/{}", name.to_string_lossy()),
                reason: format!("{NO_SHADOW}; {NO_ROOM}"),
            })?;
        }
        for (key, path) in &touched {
            self.settle_touched(key, path, now)?;
        }
        if !report.items.is_empty() {
            // Covers the moves out of shadows/ too: a rename is one operation in both directories.
            self.disk().sync_dir(&self.history.recovered)?;
        }
        let left = |(name, _): &(ShadowName, Stat)| {
            let at = format!("shadows/{}", name.text().to_string_lossy());
            let is_left = report
                .items
                .iter()
                .any(|item| item.action == Action::Left && item.at == at);
            line_of(lines, name).filter(|_| is_left)
        };
        let left = shadows.first.iter().chain(&shadows.staged).filter_map(left);
        self.journal.lock().start(self.disk(), left)?;
        self.bound_recovered();
        Ok(())
    }

    fn sort_shadows(&self) -> io::Result<Shadows> {
        let mut entries = self.disk().list(&self.shadows)?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut found = Shadows::default();
        for entry in entries.into_iter().filter(|entry| entry.name != "journal") {
            let half_made = entry.name.to_str().is_some_and(|name| name.ends_with(".new"));
            match (ShadowName::parse(&entry.name), GrowthName::parse(&entry.name)) {
                (Some(name), _) if entry.kind == Kind::File => {
                    let stat = self.disk().stat_at(&self.shadows, &entry.name)?;
                    match stat.ino == name.ino && stat.size > 0 {
                        true => found.staged.push((name, stat)),
                        false => found.first.push((name, stat)),
                    }
                }
                (None, Some(name)) if entry.kind == Kind::File => found.grown.push(name),
                // Its session had not begun: nothing was written to it.
                _ if half_made && entry.kind == Kind::File => self.disk().unlink(&self.shadows, &entry.name)?,
                _ => found.odd.push(entry.name),
            }
        }
        Ok(found)
    }

    fn left(&self, name: &ShadowName, lines: &HashMap<u64, JournalLine>) -> RecoveryItem {
        RecoveryItem {
            action: Action::Left,
            path: self
                .path_of(&name.key, line_of(lines, name))
                .as_deref()
                .map(encode_path),
            at: format!("shadows/{}", name.text().to_string_lossy()),
            reason: format!("{UNPUBLISHED}; {NO_ROOM}"),
        }
    }

    fn recover_garbage(&self, name: &OsStr, now: u64) -> io::Result<RecoveryItem> {
        let at = self.set_aside_garbage(&self.shadows, name, "shadows", NO_SHADOW, now)?;
        Ok(RecoveryItem {
            action: Action::Garbage,
            path: None,
            at: format!("recovered/{at}"),
            reason: NO_SHADOW.to_owned(),
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
        stat: &Stat,
        line: Option<&JournalLine>,
        now: u64,
    ) -> io::Result<Option<RecoveryItem>> {
        let (text, path) = (name.text(), self.path_of(&name.key, line));
        if stat.ino != name.ino {
            if let Some(path) = &path {
                return self
                    .complete((&self.shadows, &text), (&name.key, path), stat, line, now)
                    .map(Some);
            }
        } else if stat.size == 0 {
            self.disk().unlink(&self.shadows, &text)?;
            return Ok(None);
        }
        let reason = match stat.ino == name.ino {
            true => UNPUBLISHED,
            false => "it is a replaced version of a file whose name was lost",
        };
        let record = self.aside(path.as_deref(), stat, RecoveredKind::Staged, reason, line, now);
        let at = self.set_aside(&self.shadows, &text, record)?;
        Ok(Some(self.kept(at, path.as_deref(), reason)))
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
