//! Publishes without a shadow (contract W8): a rename over the name, an unlink, an exchange of two names.

use std::io;
use std::path::Path;

use super::disk::{Disk, Kind, Stat, if_there};
use super::error::{At, at};
use super::files::{FileHistory, Taken, content_name, record_name};
use super::journal::Noted;
use super::record::{CameFrom, How, Identity, JournalLine, VersionRecord, Who, clip, clip_who, encode_path};
use super::room::{Failed, Spare};
use super::{HASH_BYTES_MAX, Place, PublishError, PublishInfo, Published, Stage, Store};
use crate::rules::Durability;

/// How [`Store::replace`] goes about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplaceOptions {
    /// The source has a history of its own, which then keeps a copy of what moves away.
    pub src_coordinated: bool,
    /// RENAME_NOREPLACE: EEXIST when the target is there.
    pub no_replace: bool,
}

impl<D: Disk> Store<D> {
    /// rename(2) of `src` over the coordinated `dst`, which may be absent: `src`'s content becomes `dst`'s new version,
    /// the replaced one is kept. With Full durability `src`'s content is on disk first, both directories after.
    ///
    /// A coordinated `src` stays restorable under its own path: its history keeps a copy (shared blocks where the
    /// filesystem can) and a tombstone. Where `src` is no regular file, `dst` has no version any more: a tombstone.
    ///
    /// # Errors
    /// EEXIST with `no_replace`; otherwise as [`Store::publish`], but nothing is moved to `recovered/`: before the
    /// rename both files are as they were.
    pub fn replace(
        &self,
        src: &Place<'_, D>,
        dst: &Place<'_, D>,
        options: ReplaceOptions,
        who: &Who,
        based_on: Option<u64>,
        info: &PublishInfo,
    ) -> Result<Published, PublishError> {
        let mut published = false;
        self.with_room(Spare::for_change_of(dst.path), info.now, || {
            self.try_replace(src, dst, options, (who, based_on), info, &mut published)
        })
        .map_err(|failed| fail(dst, &published)(failed))
    }

    fn try_replace(
        &self,
        src: &Place<'_, D>,
        dst: &Place<'_, D>,
        options: ReplaceOptions,
        (who, based_on): (&Who, Option<u64>),
        info: &PublishInfo,
        published: &mut bool,
    ) -> Result<Published, At> {
        let disk = self.disk();
        let missing = || At(Stage::Look, io::Error::from_raw_os_error(libc::ENOENT));
        let moving = if_there(disk.stat_at(src.dir, src.name))
            .map_err(at(Stage::Look))?
            .ok_or_else(missing)?;
        let live = self.stat_place(dst).map_err(at(Stage::Look))?;
        if options.no_replace && live.is_some() {
            return Err(At(Stage::Look, io::Error::from_raw_os_error(libc::EEXIST)));
        }
        let (source, target) = self.take_two(
            src,
            options.src_coordinated.then_some(&moving),
            dst,
            live.as_ref(),
            info,
        )?;
        let (held, mut history) = target;
        let mut noted = vec![self.note(dst, who, info.now).map_err(at(Stage::Record))?];
        let file = match moving.kind {
            Kind::File => Some(disk.open(src.dir, src.name).map_err(at(Stage::Look))?),
            _ => None,
        };
        if let Some(file) = file.as_ref().filter(|_| info.durability != Durability::Fast) {
            disk.sync_file(file).map_err(at(Stage::Sync))?;
        }
        let mut undo = Undo {
            store: self,
            dirs: Vec::new(),
        };
        let mut source = match source.zip(file.as_ref()) {
            Some(((held, mut history), file)) => {
                noted.push(self.note(src, who, info.now).map_err(at(Stage::Record))?);
                let to = Some(dst.path);
                let stone = self.leave_copy(&mut undo, (src, to), &moving, file, &mut history, who, info)?;
                Some((held, history, stone))
            }
            None => None,
        };
        let replaced = match &live {
            Some(live) => Some(
                self.record_current(&mut history, dst, live)
                    .map_err(at(Stage::Record))?,
            ),
            None => None,
        };
        let mut record = match &file {
            Some(file) => VersionRecord {
                hash: self.hash_small(file, &moving, info).map_err(at(Stage::Look))?,
                ..self.record_for(dst, &history, &moving, replaced, (who, based_on), info)
            },
            None => VersionRecord {
                replaced,
                ..self.tombstone_of(dst, &history, replaced.unwrap_or(0), who, info)
            },
        };
        if let Some(version) = source.as_ref().and_then(|(_, _, stone)| stone.replaced) {
            let from = CameFrom {
                path: encode_path(src.path),
                version,
                continues: live.is_none(),
                shift: 0,
            };
            let own = (&history.records, history.next);
            let arrival = self.history.arrival(dst.path, own, from).map_err(at(Stage::Look))?;
            record.come_from(arrival.from);
        }
        undo.dirs.push((history.dir.clone(), record_name(record.version)));
        self.announce(&mut history, &record).map_err(at(Stage::Record))?;
        let goes_on = record.came_from.as_ref().is_some_and(|from| from.continues);
        if goes_on && info.durability != Durability::Fast {
            self.make_record_durable(&mut history, record.version)
                .map_err(at(Stage::Sync))?;
        }
        if let Some((version, live)) = replaced.zip(live.as_ref()) {
            self.link_replaced(&mut undo, dst, &mut history, version, live, info)?;
        }
        let (from, to) = ((src.dir, src.name), (dst.dir, dst.name));
        match options.no_replace {
            true => disk.rename_noreplace(from, to),
            false => disk.rename(from, to),
        }
        .map_err(at(Stage::Commit))?;
        undo.dirs.clear();
        *published = true;
        let done = Published {
            version: record.version,
            replaced,
            stale: false,
            unkept: false,
        };
        advance(&mut history, record);
        if info.durability == Durability::Full {
            self.sync_name(&history, done.version, dst)?;
            disk.sync_dir(src.dir).map_err(at(Stage::DirSync))?;
        }
        self.prune(&mut history, &info.retain, info.now);
        held.keep(history);
        if let Some((held, mut history, stone)) = source.take() {
            advance(&mut history, stone);
            self.prune(&mut history, &info.retain, info.now);
            held.keep(history);
        }
        Ok(done)
    }

    /// Takes two files' histories in one order, so that two renames between the same files cannot wait for each other.
    fn take_two(
        &self,
        src: &Place<'_, D>,
        moving: Option<&Stat>,
        dst: &Place<'_, D>,
        live: Option<&Stat>,
        info: &PublishInfo,
    ) -> Result<(Option<Taken<'_, D>>, Taken<'_, D>), At> {
        let look = at(Stage::Look);
        let Some(moving) = moving.filter(|_| src.path != dst.path) else {
            return Ok((None, self.take(dst, live, info.now).map_err(look)?));
        };
        if super::history::Key::of(src.path) < super::history::Key::of(dst.path) {
            let source = self.take(src, Some(moving), info.now).map_err(&look)?;
            Ok((Some(source), self.take(dst, live, info.now).map_err(&look)?))
        } else {
            let target = self.take(dst, live, info.now).map_err(&look)?;
            Ok((Some(self.take(src, Some(moving), info.now).map_err(&look)?), target))
        }
    }

    /// A content that is about to leave `place`, for the coordinated name `to` where that is one, stays restorable there: a copy, and a
    /// tombstone, which is returned.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn leave_copy(
        &self,
        undo: &mut Undo<'_, D>,
        (place, to): (&Place<'_, D>, Option<&Path>),
        live: &Stat,
        file: &D::File,
        history: &mut FileHistory<D>,
        who: &Who,
        info: &PublishInfo,
    ) -> Result<VersionRecord, At> {
        let version = self.record_current(history, place, live).map_err(at(Stage::Record))?;
        let stone = VersionRecord {
            moved_to: to.map(encode_path),
            ..self.tombstone_of(place, history, version, who, info)
        };
        undo.dirs.push((history.dir.clone(), record_name(stone.version)));
        self.announce(history, &stone).map_err(at(Stage::Record))?;
        undo.dirs.push((history.dir.clone(), content_name(version)));
        self.copy_into(file, history, version).map_err(at(Stage::Keep))?;
        self.make_durable(history, info)?;
        Ok(stone)
    }

    /// Gives the version that is about to be replaced a second name, in the history. Where the filesystem cannot, or it
    /// has other names already, a copy.
    fn link_replaced(
        &self,
        undo: &mut Undo<'_, D>,
        place: &Place<'_, D>,
        history: &mut FileHistory<D>,
        version: u64,
        live: &Stat,
        info: &PublishInfo,
    ) -> Result<(), At> {
        let name = content_name(version);
        undo.dirs.push((history.dir.clone(), name.clone()));
        let linked = live.nlink == 1 && self.disk().link((place.dir, place.name), (&history.dir, &name)).is_ok();
        if linked {
            history.contents.insert(version, live.size);
        } else {
            let file = self.disk().open(place.dir, place.name).map_err(at(Stage::Keep))?;
            self.copy_into(&file, history, version).map_err(at(Stage::Keep))?;
        }
        self.make_durable(history, info)
    }

    /// Waits for what was put into a history directory.
    fn make_durable(&self, history: &mut FileHistory<D>, info: &PublishInfo) -> Result<(), At> {
        if info.durability == Durability::Fast {
            return Ok(());
        }
        self.root_history(history).map_err(at(Stage::Sync))?;
        self.disk().sync_dir(&history.dir).map_err(at(Stage::Sync))
    }

    /// unlink(2) of a coordinated file: its content moves into its history, in one step, and stays restorable. Where there is no room for
    /// records of it there are none: a full disk must not keep anybody from removing files. The next sweep adds a tombstone. Where there is no room for
    /// a history either, the content is gone ([`Published::unkept`]).
    ///
    /// # Errors
    /// ENOENT; otherwise as [`Store::replace`].
    pub fn remove(&self, place: &Place<'_, D>, who: &Who, info: &PublishInfo) -> Result<Published, PublishError> {
        let mut published = false;
        let removed = self.with_room(Spare::Records, info.now, || {
            self.try_remove(place, who, info, true, &mut published)
        });
        let removed = match removed {
            Err(failed) if failed.is_for_room() => self.try_remove(place, who, info, false, &mut published),
            removed => removed,
        };
        let removed = match removed {
            Err(failed) if failed.is_for_room() => self.remove_unkept(place, info, &mut published),
            removed => removed,
        };
        removed.map_err(|failed| fail(place, &published)(failed))
    }

    fn try_remove(
        &self,
        place: &Place<'_, D>,
        who: &Who,
        info: &PublishInfo,
        recorded: bool,
        published: &mut bool,
    ) -> Result<Published, At> {
        let missing = || At(Stage::Look, io::Error::from_raw_os_error(libc::ENOENT));
        let live = self.stat_place(place).map_err(at(Stage::Look))?.ok_or_else(missing)?;
        let (held, mut history) = self.take(place, Some(&live), info.now).map_err(at(Stage::Look))?;
        if !recorded {
            return self.remove_unrecorded(place, &live, &mut history, info, published);
        }
        let _noted = self.note(place, who, info.now).map_err(at(Stage::Record))?;
        let version = self
            .record_current(&mut history, place, &live)
            .map_err(at(Stage::Record))?;
        let stone = self.tombstone_of(place, &history, version, who, info);
        let mut undo = Undo {
            store: self,
            dirs: vec![(history.dir.clone(), record_name(stone.version))],
        };
        self.announce(&mut history, &stone).map_err(at(Stage::Record))?;
        if info.durability != Durability::Fast {
            self.root_history(&mut history).map_err(at(Stage::Sync))?;
        }
        self.store_content((place.dir, place.name), &mut history, version, &live)
            .map_err(at(Stage::Commit))?;
        undo.dirs.clear();
        *published = true;
        let done = Published {
            version: stone.version,
            replaced: Some(version),
            stale: false,
            unkept: false,
        };
        advance(&mut history, stone);
        if info.durability == Durability::Full {
            self.sync_name(&history, done.version, place)?;
        }
        self.prune(&mut history, &info.retain, info.now);
        held.keep(history);
        Ok(done)
    }

    /// A record-less removal: the version's number is that of its record, if there is one, or the next. The history is forgotten, and set right
    /// when it is next read.
    fn remove_unrecorded(
        &self,
        place: &Place<'_, D>,
        live: &Stat,
        history: &mut FileHistory<D>,
        info: &PublishInfo,
        published: &mut bool,
    ) -> Result<Published, At> {
        let version = history.current.unwrap_or(history.next);
        if info.durability != Durability::Fast {
            self.root_history(history).map_err(at(Stage::Sync))?;
        }
        self.store_content((place.dir, place.name), history, version, live)
            .map_err(at(Stage::Commit))?;
        *published = true;
        if info.durability == Durability::Full {
            self.disk().sync_dir(place.dir).map_err(at(Stage::DirSync))?;
        }
        log::warn!(
            "{} was removed without a record: the disk is full",
            place.path.display()
        );
        Ok(Published {
            version,
            replaced: Some(version),
            stale: false,
            unkept: false,
        })
    }

    /// RENAME_EXCHANGE of two names, each with whether it is coordinated; at least one is. The coordinated ones' histories
    /// keep copies of what they held. Returns what happened at each coordinated name.
    ///
    /// # Errors
    /// ENOENT; otherwise as [`Store::replace`].
    pub fn exchange(
        &self,
        a: (&Place<'_, D>, bool),
        b: (&Place<'_, D>, bool),
        who: &Who,
        info: &PublishInfo,
    ) -> Result<[Option<Published>; 2], PublishError> {
        let mut published = false;
        self.with_room(Spare::Records, info.now, || {
            self.try_exchange(a, b, who, info, &mut published)
        })
        .map_err(|failed| fail(a.0, &published)(failed))
    }

    fn try_exchange(
        &self,
        (a, a_coordinated): (&Place<'_, D>, bool),
        (b, b_coordinated): (&Place<'_, D>, bool),
        who: &Who,
        info: &PublishInfo,
        published: &mut bool,
    ) -> Result<[Option<Published>; 2], At> {
        if a.path == b.path {
            return Ok([None, None]);
        }
        let missing = || At(Stage::Look, io::Error::from_raw_os_error(libc::ENOENT));
        let a_stat = self.stat_place(a).map_err(at(Stage::Look))?.ok_or_else(missing)?;
        let b_stat = self.stat_place(b).map_err(at(Stage::Look))?.ok_or_else(missing)?;
        let mut sides = [
            (a, &a_stat, &b_stat, b, a_coordinated, 0),
            (b, &b_stat, &a_stat, a, b_coordinated, 1),
        ];
        sides.sort_by_key(|side| super::history::Key::of(side.0.path));
        let mut noted = Vec::new();
        let mut undo = Undo {
            store: self,
            dirs: Vec::new(),
        };
        let mut changes = Vec::new();
        for (place, old, new, other, _, index) in sides.into_iter().filter(|side| side.4) {
            let (held, mut history) = self.take(place, Some(old), info.now).map_err(at(Stage::Look))?;
            noted.push(self.note(place, who, info.now).map_err(at(Stage::Record))?);
            let version = self
                .record_current(&mut history, place, old)
                .map_err(at(Stage::Record))?;
            let mut record = self.record_for(place, &history, new, Some(version), (who, None), info);
            let incoming = self.disk().open(other.dir, other.name).map_err(at(Stage::Look))?;
            record.hash = self.hash_small(&incoming, new, info).map_err(at(Stage::Look))?;
            if info.durability != Durability::Fast {
                self.disk().sync_file(&incoming).map_err(at(Stage::Sync))?;
            }
            undo.dirs.push((history.dir.clone(), record_name(record.version)));
            self.announce(&mut history, &record).map_err(at(Stage::Record))?;
            undo.dirs.push((history.dir.clone(), content_name(version)));
            let file = self.disk().open(place.dir, place.name).map_err(at(Stage::Keep))?;
            self.copy_into(&file, &mut history, version).map_err(at(Stage::Keep))?;
            self.make_durable(&mut history, info)?;
            changes.push((held, history, record, version, index));
        }
        self.disk()
            .exchange((a.dir, a.name), (b.dir, b.name))
            .map_err(at(Stage::Commit))?;
        undo.dirs.clear();
        *published = true;
        let mut done = [None, None];
        if info.durability == Durability::Full {
            self.disk().sync_dir(a.dir).map_err(at(Stage::DirSync))?;
            self.disk().sync_dir(b.dir).map_err(at(Stage::DirSync))?;
        }
        for (held, mut history, record, version, index) in changes {
            done[index] = Some(Published {
                version: record.version,
                replaced: Some(version),
                stale: false,
                unkept: false,
            });
            advance(&mut history, record);
            self.prune(&mut history, &info.retain, info.now);
            held.keep(history);
        }
        Ok(done)
    }

    /// Recovery looks at the files that the journal names.
    pub(super) fn note(&self, place: &Place<'_, D>, who: &Who, now: u64) -> io::Result<Noted<'_, D>> {
        // No session has a number as high, and lines of one number replace each other when read: each needs its own.
        let id = u64::MAX - self.serial.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let line = JournalLine {
            id,
            path: encode_path(place.path),
            who: clip_who(who.clone()),
            based_on: None,
            time: now,
        };
        self.note_line(&line)
    }

    fn hash_small(&self, file: &D::File, stat: &Stat, info: &PublishInfo) -> io::Result<Option<String>> {
        match &info.hash {
            Some(hash) => Ok(Some(hash.clone())),
            None if stat.size <= HASH_BYTES_MAX => self.history.hash(file),
            None => Ok(None),
        }
    }

    fn tombstone_of(
        &self,
        place: &Place<'_, D>,
        history: &FileHistory<D>,
        replaced: u64,
        who: &Who,
        info: &PublishInfo,
    ) -> VersionRecord {
        VersionRecord {
            who: clip_who(who.clone()),
            replaced: Some(replaced),
            note: info.note.clone().map(clip),
            ..tombstone(place.path, history.next, info.now)
        }
    }

    fn record_for(
        &self,
        place: &Place<'_, D>,
        history: &FileHistory<D>,
        content: &Stat,
        replaced: Option<u64>,
        (who, based_on): (&Who, Option<u64>),
        info: &PublishInfo,
    ) -> VersionRecord {
        VersionRecord {
            how: info.how,
            bytes: content.size,
            identity: Some(Identity::of(content)),
            based_on,
            stale: based_on.is_some() && based_on != replaced,
            replaced,
            ..self.tombstone_of(place, history, replaced.unwrap_or(0), who, info)
        }
    }
}

/// What was written ahead of a commit that may not come.
pub(super) struct Undo<'a, D: Disk> {
    pub(super) store: &'a Store<D>,
    pub(super) dirs: Vec<(D::Dir, std::ffi::OsString)>,
}

impl<D: Disk> Drop for Undo<'_, D> {
    /// Best effort: what stays is without effect, and goes when the history is next settled.
    fn drop(&mut self) {
        for (dir, name) in self.dirs.drain(..) {
            let _ = self.store.disk().unlink(&dir, &name);
        }
    }
}

/// The record of a removal of which no more is known.
pub(super) fn tombstone(path: &Path, version: u64, now: u64) -> VersionRecord {
    VersionRecord {
        version,
        path: encode_path(path),
        time: now,
        bytes: 0,
        hash: None,
        how: How::Unlink,
        who: Who::default(),
        based_on: None,
        replaced: None,
        stale: false,
        identity: None,
        extends: None,
        growing: false,
        came_from: None,
        moved_to: None,
        note: None,
    }
}

pub(super) fn advance<D: Disk>(history: &mut FileHistory<D>, record: VersionRecord) {
    history.next = record.version + 1;
    history.current = (!record.is_tombstone()).then_some(record.version);
    history.records.insert(record.version, record);
}

pub(super) fn fail<D: Disk>(place: &Place<'_, D>, published: &bool) -> impl FnOnce(At) -> PublishError {
    let (path, published) = (place.path.to_owned(), *published);
    move |At(stage, source)| PublishError {
        path,
        stage,
        published,
        kept: None,
        source,
    }
}
