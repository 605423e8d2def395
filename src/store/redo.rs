//! What the next start does about files that were written in place: what had been begun is done again, from the image.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use super::Store;
use super::disk::{Disk, Kind, Stat, if_there};
use super::history::Key;
use super::images::{ImageName, Known};
use super::record::{JournalLine, RecoveredKind, RecoveredRecord, encode_path};
use super::recover::{Action, NO_ROOM, RecoveryItem, RecoveryReport};
use crate::rules::Durability;

const UNFINISHED: &str = "writing it in place failed";
const ORPHANED: &str = "it was to be written into a file that is not where it was any more";

impl<D: Disk> Store<D> {
    /// Deals with everything in `images/`. The files whose histories it touched are added to `touched`.
    pub(super) fn recover_images(
        &self,
        lines: &HashMap<u64, JournalLine>,
        touched: &mut BTreeMap<Key, PathBuf>,
        report: &mut RecoveryReport,
        now: u64,
    ) -> io::Result<()> {
        let dir = &self.images.dir;
        let (mut pending, mut settled) = (Vec::new(), Vec::new());
        for entry in self.disk().list(dir)? {
            match ImageName::parse(&entry.name).filter(|_| entry.kind == Kind::File) {
                Some(name) if name.pending.is_some() => pending.push(name),
                Some(name) => settled.push(name),
                None if entry.kind == Kind::File && entry.name.to_string_lossy().ends_with(".part") => {
                    self.disk().unlink(dir, &entry.name)?;
                }
                None => {
                    let why = "it is not an image that concordfs made".to_owned();
                    let item = |action, at, reason| RecoveryItem {
                        action,
                        path: None,
                        at,
                        reason,
                    };
                    let aside = self.set_aside_garbage(dir, &entry.name, "images", &why, now);
                    let aside = aside.map(|at| Some(item(Action::Garbage, format!("recovered/{at}"), why.clone())));
                    let here = format!("images/{}", entry.name.to_string_lossy());
                    report.note(aside, || item(Action::Left, here, format!("{why}; {NO_ROOM}")))?;
                }
            }
        }
        for name in &pending {
            let old = settled.iter().position(|other| other.ino == name.ino);
            let old = old.map(|at| settled.swap_remove(at));
            let path = self.path_of(&name.key, None);
            touched.extend(path.clone().map(|path| (name.key.clone(), path)));
            let line = path.as_deref().and_then(|path| line_of(lines, path));
            report.items.extend(self.redo(name, old, path.as_deref(), line, now)?);
            settled.push(name.settled());
        }
        if !pending.is_empty() {
            self.disk().sync_dir(dir)?;
        }
        settled.iter().try_for_each(|name| self.keep_if_valid(name))
    }

    /// Writes a pending image into its inode. `old` is the settled image of the same inode: the version before; or, when the name leads to another
    /// inode than it was made for, that version is the pending one, and `old` is what could not be written.
    fn redo(
        &self,
        name: &ImageName,
        old: Option<ImageName>,
        path: Option<&Path>,
        line: Option<&JournalLine>,
        now: u64,
    ) -> io::Result<Vec<RecoveryItem>> {
        let (disk, dir, text) = (self.disk(), &self.images.dir, name.text());
        let image = disk.open(dir, &text)?;
        let own = disk.stat(&image)?;
        let Some(target) = self.inode_at(path, name.ino)? else {
            let record = self.aside(path, &own, RecoveredKind::Staged, ORPHANED, line, now);
            return Ok(vec![self.kept(self.set_aside(dir, &text, record)?, path, ORPHANED)]);
        };
        self.write_into(&image, &target, Durability::Full)?;
        let mut items = Vec::new();
        let forward = Some(own.ino) == name.pending;
        let old = match &old {
            Some(old) => if_there(disk.stat_at(dir, &old.text()))?.map(|stat| (old.text(), stat)),
            None => None,
        };
        match (old, path) {
            (Some((from, stat)), Some(path)) if forward => {
                let as_it_was = Stat { ino: name.ino, ..stat };
                items.push(self.complete((dir, &from), (&name.key, path), &as_it_was, line, now)?);
            }
            (Some((from, stat)), path) => {
                let record = self.aside(path, &stat, RecoveredKind::Refused, UNFINISHED, line, now);
                let at = self.set_aside(dir, &from, record)?;
                items.push(self.kept(at, path, UNFINISHED));
            }
            (None, _) => {}
        }
        disk.rename((dir, &text), (dir, &name.settled().text()))?;
        Ok(items)
    }

    /// The file at `path`, open for writing, if it is that inode.
    fn inode_at(&self, path: Option<&Path>, ino: u64) -> io::Result<Option<D::File>> {
        let live = path.map(|path| self.history.live(path)).transpose()?.flatten();
        let Some((dir, name, _)) = live.filter(|(_, _, stat)| stat.ino == ino) else {
            return Ok(None);
        };
        let file = self.disk().open_writable(&dir, &name)?;
        Ok((self.disk().stat(&file)?.ino == ino).then_some(file))
    }

    /// An image that is what its inode holds is worth its space; another is a copy of nothing.
    fn keep_if_valid(&self, name: &ImageName) -> io::Result<()> {
        let (disk, dir, text) = (self.disk(), &self.images.dir, name.text());
        let Some(image) = if_there(disk.stat_at(dir, &text))? else {
            return Ok(());
        };
        let path = self.path_of(&name.key, None);
        let live = path.map(|path| self.history.live(&path)).transpose()?.flatten();
        let same = |live: &Stat| (live.ino, live.size, live.mtime_ns) == (name.ino, image.size, image.mtime_ns);
        if live.is_some_and(|(_, _, live)| same(&live)) {
            self.images.know(Known {
                name: name.clone(),
                image,
                alone: false,
            });
            return Ok(());
        }
        disk.unlink(dir, &text)
    }

    /// The record of what is set aside.
    pub(super) fn aside(
        &self,
        path: Option<&Path>,
        stat: &Stat,
        kind: RecoveredKind,
        why: &str,
        line: Option<&JournalLine>,
        now: u64,
    ) -> RecoveredRecord {
        RecoveredRecord {
            kind,
            path: path.map(encode_path),
            time: now,
            bytes: stat.size,
            reason: why.to_owned(),
            who: line.map(|line| line.who.clone()),
            based_on: line.and_then(|line| line.based_on),
        }
    }

    /// What the user is told of it; it is in `recovered/` as `at`.
    pub(super) fn kept(&self, at: String, path: Option<&Path>, why: &str) -> RecoveryItem {
        RecoveryItem {
            action: Action::Kept,
            path: path.map(encode_path),
            at: format!("recovered/{at}"),
            reason: why.to_owned(),
        }
    }
}

/// The newest session of a file that the journal knows.
fn line_of<'a>(lines: &'a HashMap<u64, JournalLine>, path: &Path) -> Option<&'a JournalLine> {
    let text = encode_path(path);
    lines
        .values()
        .filter(|line| line.path == text)
        .max_by_key(|line| line.time)
}
