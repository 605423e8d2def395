//! The publish of a shadow. docs/FORMAT.md has the table of its steps.

use std::ffi::OsStr;
use std::io;

use super::disk::{Disk, Stat, if_there};
use super::error::{At, at};
use super::files::{FileHistory, content_name, record_name};
use super::history::Key;
use super::in_place::identity_in;
use super::record::{Identity, RecoveredKind, VersionRecord, clip, encode_path};
use super::room::{Failed, Spare};
use super::shadow::ShadowName;
use super::{HASH_BYTES_MAX, Place, PublishError, PublishInfo, Shadow, Stage, Store};
use crate::rules::Durability;

/// How often the look at the target is repeated when it appears or disappears under us (a change made past concordfs).
const RACES_MAX: u32 = 4;

/// A publish that went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The number of the new version; for a removal, of its tombstone.
    pub version: u64,
    /// The version that was current before; `None` when there was no file.
    pub replaced: Option<u64>,
    /// The writer had seen another version than the one that was replaced, or none.
    pub stale: bool,
    /// What was replaced, removed or moved away is not in the history: there was no room on the disk.
    pub unkept: bool,
}

/// How an attempt at the commit ended without an error.
pub(super) enum Commit {
    Done,
    /// The target appeared or disappeared since we looked.
    Raced,
}

impl<D: Disk> Store<D> {
    /// Makes the shadow the current version of `place`, and keeps the version it replaces: one
    /// renameat2(RENAME_EXCHANGE), or RENAME_NOREPLACE where there was no file.
    ///
    /// With [`Durability::Full`] the content is on disk before the rename, and the rename before this returns; with
    /// `Atomic` only the former; with `Fast` neither. Publishes of one file must be serialised by the caller.
    ///
    /// # Errors
    /// Before the rename: the file is untouched, what was staged is in `recovered/` ([`PublishError::kept`]). After it
    /// (the directory could not be synced): [`PublishError::published`].
    pub fn publish(
        &self,
        shadow: Shadow<D>,
        place: &Place<'_, D>,
        info: &PublishInfo,
    ) -> Result<Published, PublishError> {
        let mut shadow = shadow;
        let mut published = false;
        let result = self.with_room(self.spare_for(&shadow, place), info.now, || {
            self.try_publish(&mut shadow, place, info, &mut published)
        });
        let result = match result {
            Err(failed) if failed.is_for_room() && !published && self.is_empty(&shadow) => {
                self.empty_unrecorded(&shadow, place, info, &mut published)
            }
            result => result,
        };
        let result = result.map_err(|At(stage, source)| {
            let kept = if published {
                None
            } else {
                self.keep_failed(&shadow, stage, &source, info.now)
            };
            PublishError {
                path: place.path.to_owned(),
                stage,
                published,
                kept,
                source,
            }
        });
        let is_left = result
            .as_ref()
            .is_err_and(|error| !error.published && error.kept.is_none());
        self.end_line(shadow.id.0, !is_left);
        result
    }

    /// What takes no room itself, or is how somebody lowers what is kept: its records may use the room that is kept for them.
    fn spare_for(&self, shadow: &Shadow<D>, place: &Place<'_, D>) -> Spare {
        match Spare::for_change_of(place.path) {
            Spare::All => Spare::All,
            spare if self.is_empty(shadow) => spare,
            _ => Spare::No,
        }
    }

    fn is_empty(&self, shadow: &Shadow<D>) -> bool {
        self.disk().stat(&shadow.file).is_ok_and(|stat| stat.size == 0)
    }

    fn keep_failed(&self, shadow: &Shadow<D>, stage: Stage, error: &io::Error, now: u64) -> Option<String> {
        let stat = self.disk().stat(&shadow.file).ok()?;
        let kept = self.recover_shadow(
            shadow,
            &stat,
            RecoveredKind::Refused,
            &format!("publishing it failed while {stage}: {error}"),
            now,
        );
        // It must outlive a crash right after the error was reported.
        let _ = self.disk().sync_dir(&self.history.recovered);
        kept.inspect_err(|e| log::error!("a shadow stays in .concord/shadows until the next start: {e}"))
            .ok()
    }

    fn try_publish(
        &self,
        shadow: &mut Shadow<D>,
        place: &Place<'_, D>,
        info: &PublishInfo,
        published: &mut bool,
    ) -> Result<Published, At> {
        self.move_to_key(shadow, place).map_err(at(Stage::Look))?;
        let (mut races, mut forbidden) = (0, info.in_place);
        loop {
            let live = self.stat_place(place).map_err(at(Stage::Look))?;
            let in_place = live.filter(|live| forbidden || live.nlink > 1);
            if in_place.is_some() {
                self.ensure_image(place).map_err(at(Stage::Keep))?;
            }
            let (held, mut history) = self.take(place, live.as_ref(), info.now).map_err(at(Stage::Look))?;
            let replaced = match &live {
                Some(live) => Some(
                    self.record_current(&mut history, place, live)
                        .map_err(at(Stage::Record))?,
                ),
                None => None,
            };
            let before = match &in_place {
                Some(live) => Some(self.settled_image(live).map_err(at(Stage::Keep))?),
                None => None,
            };
            let mut record = self.prepare(shadow, place, info, &history, live.as_ref(), replaced)?;
            if let Some(live) = &in_place {
                let staged = self.disk().stat(&shadow.file).map_err(at(Stage::Look))?;
                record.identity = Some(identity_in(live, &staged));
            }
            self.announce(&mut history, &record).map_err(at(Stage::Record))?;
            let committed = match in_place.zip(before.as_ref()) {
                Some((live, before)) => {
                    self.commit_in_place(shadow, place, info, &mut history, (&live, before), published)
                }
                None => self.sync_and_commit(shadow, place, info, &mut history, live.as_ref()),
            };
            match committed {
                Ok(Commit::Done) => {}
                Err(At(Stage::Commit, error))
                    if in_place.is_none() && self.may_write_in_place(shadow, live.as_ref(), &error) =>
                {
                    forbidden = true;
                    self.disk()
                        .unlink(&history.dir, &record_name(record.version))
                        .map_err(at(Stage::Record))?;
                    continue;
                }
                Ok(Commit::Raced) if races < RACES_MAX => {
                    races += 1;
                    self.disk()
                        .unlink(&history.dir, &record_name(record.version))
                        .map_err(at(Stage::Record))?;
                    continue;
                }
                Err(failed) if *published => return Err(failed),
                other => {
                    // A record that stays behind has no content and is removed when the history is next settled.
                    let _ = self.disk().unlink(&history.dir, &record_name(record.version));
                    let raced = || At(Stage::Commit, io::Error::from_raw_os_error(libc::EBUSY));
                    return Err(other.err().unwrap_or_else(raced));
                }
            }
            *published = true;
            let done = Published {
                version: record.version,
                replaced,
                stale: record.based_on != replaced,
                unkept: false,
            };
            history.next = record.version + 1;
            history.current = Some(record.version);
            history.records.insert(record.version, record);
            match (replaced.zip(live), before) {
                (Some((version, live)), Some(before)) => {
                    self.store_image(&live, &before, &mut history, version, info.durability)
                }
                (Some((version, live)), None) => {
                    self.images.forget(live.ino);
                    self.store_replaced(shadow, &mut history, version, &live)
                }
                (None, _) => Ok(()),
            }
            .map_err(at(Stage::Store))?;
            if info.durability == Durability::Full {
                self.sync_name(&history, done.version, place)?;
            }
            self.prune(&mut history, &info.retain, info.now);
            held.keep(history);
            return Ok(done);
        }
    }

    /// A shadow's name carries its file's key. When the file was renamed since, the name follows.
    fn move_to_key(&self, shadow: &mut Shadow<D>, place: &Place<'_, D>) -> io::Result<()> {
        if shadow.target == place.path {
            return Ok(());
        }
        let name = ShadowName {
            key: Key::of(place.path),
            ..shadow.name.clone()
        };
        self.disk()
            .rename_noreplace((&self.shadows, &shadow.name.text()), (&self.shadows, &name.text()))?;
        shadow.name = name;
        shadow.target = place.path.to_owned();
        Ok(())
    }

    /// The new version's record; the shadow gets the metadata that the file has now.
    fn prepare(
        &self,
        shadow: &mut Shadow<D>,
        place: &Place<'_, D>,
        info: &PublishInfo,
        history: &FileHistory<D>,
        live: Option<&Stat>,
        replaced: Option<u64>,
    ) -> Result<VersionRecord, At> {
        if let Some(live) =
            live.filter(|live| !shadow.meta_touched && shadow.meta_from != Some((live.ino, live.ctime_ns)))
        {
            let current = self.disk().open(place.dir, place.name).map_err(at(Stage::Meta))?;
            self.disk()
                .copy_meta(&current, &shadow.file, Some(&shadow.who))
                .map_err(at(Stage::Meta))?;
            shadow.meta_from = Some((live.ino, live.ctime_ns));
        }
        let based_on = match &shadow.based_on {
            Some(seen) => self
                .seen_at(place, history, seen, (live, replaced))
                .map_err(at(Stage::Look))?,
            None => None,
        };
        let stat = self.disk().stat(&shadow.file).map_err(at(Stage::Look))?;
        let hash = match &info.hash {
            Some(hash) => Some(hash.clone()),
            None if stat.size <= HASH_BYTES_MAX => self.history.hash(&shadow.file).map_err(at(Stage::Look))?,
            None => None,
        };
        Ok(VersionRecord {
            version: history.next,
            path: encode_path(place.path),
            time: info.now,
            bytes: stat.size,
            hash,
            how: info.how,
            who: shadow.who.clone(),
            based_on,
            replaced,
            stale: based_on.is_some() && based_on != replaced,
            identity: Some(Identity::of(&stat)),
            extends: None,
            growing: false,
            came_from: None,
            moved_to: None,
            note: info.note.clone().map(clip),
        })
    }

    fn sync_and_commit(
        &self,
        shadow: &Shadow<D>,
        place: &Place<'_, D>,
        info: &PublishInfo,
        history: &mut FileHistory<D>,
        live: Option<&Stat>,
    ) -> Result<Commit, At> {
        if info.durability != Durability::Fast {
            if live.is_some() {
                self.root_history(history).map_err(at(Stage::Sync))?;
            }
            // Once only: after a failed fsync the kernel may call the lost pages clean, a second one would lie (fsync(2)).
            self.disk().sync_file(&shadow.file).map_err(at(Stage::Sync))?;
        }
        let name = shadow.name.text();
        let (from, to) = ((&self.shadows, name.as_os_str()), (place.dir, place.name));
        let (result, race) = match live {
            Some(_) => (self.disk().exchange(from, to), io::ErrorKind::NotFound),
            None => (self.disk().rename_noreplace(from, to), io::ErrorKind::AlreadyExists),
        };
        match result {
            Ok(()) => Ok(Commit::Done),
            Err(error) if error.kind() == race => Ok(Commit::Raced),
            Err(error) => Err(At(Stage::Commit, error)),
        }
    }

    /// After the exchange the shadow's name leads to the replaced content: moves it into the history. What fails here is
    /// tried once more, and else left to the next start, which knows by the name what it is.
    fn store_replaced(
        &self,
        shadow: &Shadow<D>,
        history: &mut FileHistory<D>,
        version: u64,
        old: &Stat,
    ) -> io::Result<()> {
        let name = shadow.name.text();
        self.store_content((&self.shadows, &name), history, version, old)
            .or_else(|_| self.store_content((&self.shadows, &name), history, version, old))
    }

    /// Moves a content into the history. One that has other names is copied: it may be written through them.
    pub(super) fn store_content(
        &self,
        from: (&D::Dir, &OsStr),
        history: &mut FileHistory<D>,
        version: u64,
        stat: &Stat,
    ) -> io::Result<()> {
        let name = content_name(version);
        if stat.nlink > 1 {
            let file = self.disk().open(from.0, from.1)?;
            self.copy_into(&file, history, version)?;
            self.disk().unlink(from.0, from.1)?;
        } else {
            self.disk().rename(from, (&history.dir, &name))?;
        }
        history.contents.insert(version, stat.size);
        Ok(())
    }

    /// Puts a copy of `file`, whole and on disk, into the history as version `version`.
    pub(super) fn copy_into(&self, file: &D::File, history: &mut FileHistory<D>, version: u64) -> io::Result<()> {
        let disk = self.disk();
        let name = content_name(version);
        let mut part = name.clone();
        part.push(".part");
        if_there(disk.unlink(&history.dir, &part))?;
        let copy = disk.create(&history.dir, &part)?;
        let filled = disk
            .copy_content(file, &copy)
            .and_then(|()| disk.copy_meta(file, &copy, None))
            .and_then(|()| disk.sync_file(&copy))
            .and_then(|()| disk.rename((&history.dir, &part), (&history.dir, &name)));
        if filled.is_err() {
            let _ = disk.unlink(&history.dir, &part);
        }
        filled?;
        history.contents.insert(version, disk.stat(&copy)?.size);
        Ok(())
    }

    /// Waits for the new name; a failure is noted in the version's record.
    pub(super) fn sync_name(&self, history: &FileHistory<D>, version: u64, place: &Place<'_, D>) -> Result<(), At> {
        let synced = self.disk().sync_dir(place.dir);
        if let (Err(error), Some(record)) = (&synced, history.records.get(&version)) {
            let note = format!(
                "{}; its name could not be synced: {error}",
                record.note.as_deref().unwrap_or_default()
            );
            let noted = VersionRecord {
                note: Some(note.trim_start_matches("; ").to_owned()),
                ..record.clone()
            };
            if let Err(error) = self.rewrite_record(&history.dir, &noted) {
                log::warn!(
                    "cannot note a failed sync in the record of {}: {error}",
                    place.path.display()
                );
            }
        }
        synced.map_err(at(Stage::DirSync))
    }
}
