//! A coordinated file leaves its name for one that is not coordinated.

use std::ffi::OsStr;
use std::io;

use super::disk::Disk;
use super::error::{At, Stage, at};
use super::names::{Undo, advance, fail};
use super::record::Who;
use super::room::{Failed, Spare};
use super::{Place, PublishError, PublishInfo, Published, Store};
use crate::rules::Durability;

impl<D: Disk> Store<D> {
    /// rename(2) of the coordinated `src` to a name that has no history. What it held stays restorable under its own path: a copy (shared
    /// blocks where the filesystem can) and a tombstone. Where there is no room for these it is under its new name only ([`Published::unkept`]).
    ///
    /// # Errors
    /// EEXIST with `no_replace`; ENOENT; otherwise as [`Store::replace`].
    pub fn move_away(
        &self,
        src: &Place<'_, D>,
        to: (&D::Dir, &OsStr),
        no_replace: bool,
        who: &Who,
        info: &PublishInfo,
    ) -> Result<Published, PublishError> {
        let mut published = false;
        let moved = self.with_room(Spare::Records, info.now, || {
            self.try_move_away(src, to, no_replace, who, info, &mut published)
        });
        let moved = match moved {
            Err(failed) if failed.is_for_room() => self.move_away_unkept(src, to, no_replace, info, &mut published),
            moved => moved,
        };
        moved.map_err(|failed| fail(src, &published)(failed))
    }

    fn try_move_away(
        &self,
        src: &Place<'_, D>,
        to: (&D::Dir, &OsStr),
        no_replace: bool,
        who: &Who,
        info: &PublishInfo,
        published: &mut bool,
    ) -> Result<Published, At> {
        let disk = self.disk();
        let missing = || At(Stage::Look, io::Error::from_raw_os_error(libc::ENOENT));
        let live = self.stat_place(src).map_err(at(Stage::Look))?.ok_or_else(missing)?;
        let (held, mut history) = self.take(src, Some(&live), info.now).map_err(at(Stage::Look))?;
        let _noted = self.note(src, who, info.now).map_err(at(Stage::Record))?;
        let file = disk.open(src.dir, src.name).map_err(at(Stage::Look))?;
        let mut undo = Undo {
            store: self,
            dirs: Vec::new(),
        };
        let stone = self.leave_copy(&mut undo, (src, None), &live, &file, &mut history, who, info)?;
        let from = (src.dir, src.name);
        if no_replace {
            disk.rename_noreplace(from, to)
        } else {
            disk.rename(from, to)
        }
        .map_err(at(Stage::Commit))?;
        undo.dirs.clear();
        *published = true;
        let done = Published {
            version: stone.version,
            replaced: stone.replaced,
            stale: false,
            unkept: false,
        };
        advance(&mut history, stone);
        if info.durability == Durability::Full {
            disk.sync_dir(to.0).map_err(at(Stage::DirSync))?;
            self.sync_name(&history, done.version, src)?;
        }
        self.prune(&mut history, &info.retain, info.now);
        held.keep(history);
        Ok(done)
    }
}
