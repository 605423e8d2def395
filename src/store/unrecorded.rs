//! What must be possible on a full disk with no room for a record, nor perhaps for a history: removing a file, emptying it, moving it away. It takes nothing but names in
//! directories that are there.

use std::ffi::OsStr;

use super::disk::Disk;
use super::error::{At, Stage, at};
use super::history::Key;
use super::room::is_full;
use super::{Place, PublishInfo, Published, Shadow, Store};
use crate::rules::Durability;

impl<D: Disk> Store<D> {
    /// unlink(2) of a file for whose history there is no room. What it held is gone, and the room that it took is there for the next.
    pub(super) fn remove_unkept(
        &self,
        place: &Place<'_, D>,
        info: &PublishInfo,
        published: &mut bool,
    ) -> Result<Published, At> {
        self.disk().unlink(place.dir, place.name).map_err(at(Stage::Commit))?;
        *published = true;
        if info.durability == Durability::Full {
            self.disk().sync_dir(place.dir).map_err(at(Stage::DirSync))?;
        }
        Ok(self.unkept(place, "removed"))
    }

    /// rename(2) of a coordinated file to a name without a history, where there is no room for a copy: what it held is there only.
    pub(super) fn move_away_unkept(
        &self,
        src: &Place<'_, D>,
        to: (&D::Dir, &OsStr),
        no_replace: bool,
        info: &PublishInfo,
        published: &mut bool,
    ) -> Result<Published, At> {
        let from = (src.dir, src.name);
        match no_replace {
            true => self.disk().rename_noreplace(from, to),
            false => self.disk().rename(from, to),
        }
        .map_err(at(Stage::Commit))?;
        *published = true;
        if info.durability == Durability::Full {
            self.disk().sync_dir(to.0).map_err(at(Stage::DirSync))?;
            self.disk().sync_dir(src.dir).map_err(at(Stage::DirSync))?;
        }
        Ok(self.unkept(src, "renamed"))
    }

    /// Publishes an empty shadow without a record; the next change of the file writes one. The content that it replaces goes into the history where there is one, and is
    /// gone where there is no room for one.
    pub(super) fn empty_unrecorded(
        &self,
        shadow: &Shadow<D>,
        place: &Place<'_, D>,
        info: &PublishInfo,
        published: &mut bool,
    ) -> Result<Published, At> {
        let disk = self.disk();
        let full = || At(Stage::Record, std::io::Error::from_raw_os_error(libc::ENOSPC));
        let live = self.stat_place(place).map_err(at(Stage::Look))?.ok_or_else(full)?;
        if live.nlink > 1 {
            return Err(full());
        }
        let (held, mut history) = match self.take(place, Some(&live), info.now) {
            Ok((held, history)) => (Some(held), Some(history)),
            Err(error) if is_full(&error) => (None, None),
            Err(error) => return Err(At(Stage::Look, error)),
        };
        if !shadow.meta_touched {
            let current = disk.open(place.dir, place.name).map_err(at(Stage::Meta))?;
            disk.copy_meta(&current, &shadow.file, Some(&shadow.who))
                .map_err(at(Stage::Meta))?;
        }
        if info.durability != Durability::Fast {
            if let Some(history) = &mut history {
                self.root_history(history).map_err(at(Stage::Sync))?;
            }
            disk.sync_file(&shadow.file).map_err(at(Stage::Sync))?;
        }
        let name = shadow.name.text();
        let staged = (&self.shadows, name.as_os_str());
        disk.exchange(staged, (place.dir, place.name))
            .map_err(at(Stage::Commit))?;
        *published = true;
        self.images.forget(live.ino);
        let done = match &mut history {
            Some(history) => {
                let version = history.current.unwrap_or(history.next);
                self.store_content(staged, history, version, &live)
                    .map_err(at(Stage::Store))?;
                log::warn!(
                    "{} was emptied without a record: the disk is full",
                    place.path.display()
                );
                Published {
                    version: version.max(history.next - 1) + 1,
                    replaced: Some(version),
                    stale: false,
                    unkept: false,
                }
            }
            None => {
                disk.unlink(staged.0, staged.1).map_err(at(Stage::Store))?;
                self.unkept(place, "emptied")
            }
        };
        // What was known of the history is not so any more.
        drop(held);
        if info.durability == Durability::Full {
            disk.sync_dir(place.dir).map_err(at(Stage::DirSync))?;
        }
        Ok(done)
    }

    /// A file without a history is its version 1. The room that there is again is kept for the next.
    fn unkept(&self, place: &Place<'_, D>, done: &str) -> Published {
        let path = place.path.display();
        log::warn!("{path} was {done}, and what it held is not in the history: the disk is full");
        self.drop_begun_history(&Key::of(place.path));
        self.keep_spare();
        Published {
            version: 1,
            replaced: Some(1),
            stale: false,
            unkept: true,
        }
    }

    /// Removes what was made of a history before there was no room any more.
    fn drop_begun_history(&self, key: &Key) {
        let Some(_held) = self.take_unknown(key) else { return };
        let disk = self.disk();
        let Ok(Some(dir)) = self.history.open_key(key) else {
            return;
        };
        let only_path = |entries: Vec<super::disk::Entry>| entries.iter().all(|entry| entry.name == "path");
        if disk.list(&dir).is_ok_and(only_path) {
            let _ = disk.unlink(&dir, OsStr::new("path"));
            let fan = disk.open_dir(&self.history.files, key.fan());
            let _ = fan.and_then(|fan| disk.remove_dir(&fan, key.name()));
        }
    }
}
