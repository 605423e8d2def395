//! Lines that are appended to the current version in place (contract W10): what is written down so that a crash leaves whole lines, and the
//! version that the stay of the appenders becomes.
//!
//! `shadows/<id>.<key>.<inode>.<length>` stands for a file that is being appended to: what its length was before, and in it, how far it
//! is committed. docs/FORMAT.md says what recovery makes of it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::{Disk, if_there, read_small};
use super::history::Key;
use super::record::{
    How, Identity, JournalLine, RECORD_BYTES_MAX, RecoveredKind, RecoveredRecord, VersionRecord, Who, clip_who,
    encode_path, seal, unseal,
};
use super::recover::{Action, RecoveryItem};
use super::room::{Spare, is_full};
use super::{Place, PublishInfo, Store};
use crate::content::lines::WholeLines;
use crate::os::boot;
use crate::rules::Durability;
use crate::session::SessionId;

const COPY_CHUNK_BYTES: usize = 64 * 1024;
/// What is moved at once where there is no room for a copy.
const MOVE_BYTES_MAX: u64 = 32 * 1024;
const MOVE_BYTES_MIN: u64 = 4 * 1024;

/// A file that is being appended to.
pub struct Growth<D: Disk> {
    id: u64,
    entry: OsString,
    file: D::File,
    /// The version that it is becoming.
    pub version: u64,
}

/// What is in the entry.
#[derive(Debug, Serialize, Deserialize)]
struct Progress {
    boot: String,
    /// See [`Disk::mounting`]. Earlier versions do not say it.
    mounting: Option<u64>,
    /// As far as this the file was complete.
    committed: u64,
    /// As far as this it was on disk, whatever it holds.
    durable: u64,
}

/// The parts of an entry's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GrowthName {
    pub id: u64,
    pub key: Key,
    ino: u64,
    length: u64,
}

impl GrowthName {
    fn text(&self) -> OsString {
        let key = self.key.name().to_string_lossy();
        format!("{:016x}.{key}.{:x}.{:x}", self.id, self.ino, self.length).into()
    }

    pub fn parse(name: &OsStr) -> Option<GrowthName> {
        let mut parts = name.to_str()?.split('.');
        let number = |parts: &mut std::str::Split<'_, char>| u64::from_str_radix(parts.next()?, 16).ok();
        let id = number(&mut parts)?;
        let key = Key::parse(parts.next()?)?;
        let (ino, length) = (number(&mut parts)?, number(&mut parts)?);
        let parsed = GrowthName { id, key, ino, length };
        (parsed.text() == name).then_some(parsed)
    }
}

impl<D: Disk> Store<D> {
    /// Lines are about to be appended to `file`, which is the current version of `place`: that version is now the beginning of one more.
    /// Waits for the disk, once for all lines until [`Store::end_append`], unless durability is `Fast`.
    ///
    /// # Errors
    /// ESTALE when the place leads to another file; ENOSPC, EDQUOT, EIO, EROFS.
    pub fn begin_append(
        &self,
        id: SessionId,
        place: &Place<'_, D>,
        file: &D::File,
        who: &Who,
        (durability, now): (Durability, u64),
    ) -> io::Result<Growth<D>> {
        self.with_room(Spare::No, now, || {
            self.try_begin_append(id, place, file, who, (durability, now))
        })
    }

    fn try_begin_append(
        &self,
        id: SessionId,
        place: &Place<'_, D>,
        file: &D::File,
        who: &Who,
        (durability, now): (Durability, u64),
    ) -> io::Result<Growth<D>> {
        let stale = || io::Error::from_raw_os_error(libc::ESTALE);
        let own = self.disk().stat(file)?;
        let live = self
            .stat_place(place)?
            .filter(|live| live.ino == own.ino)
            .ok_or_else(stale)?;
        let (held, mut history) = self.take(place, Some(&live), now)?;
        let line = JournalLine {
            id: id.0,
            path: encode_path(place.path),
            who: clip_who(who.clone()),
            based_on: history.current,
            time: now,
        };
        self.journal.lock().append(self.disk(), &line)?;
        let name = GrowthName {
            id: id.0,
            key: Key::of(place.path),
            ino: live.ino,
            length: live.size,
        };
        let entry = name.text();
        let begun = self.disk().create(&self.shadows, &entry).and_then(|progress| {
            self.disk().give(&progress, &self.shadows);
            if durability != Durability::Fast {
                // Else a power failure could take the entry, or the way to the file, and leave a torn line.
                self.root_history(&mut history)?;
                self.disk().sync_dir(&self.shadows)?;
            }
            let extended = self.record_current(&mut history, place, &live)?;
            let record = VersionRecord {
                version: history.next,
                path: encode_path(place.path),
                time: now,
                bytes: live.size,
                hash: None,
                how: How::Append,
                who: clip_who(who.clone()),
                based_on: Some(extended),
                replaced: Some(extended),
                stale: false,
                identity: Some(Identity::of(&live)),
                extends: Some(extended),
                growing: true,
                came_from: None,
                moved_to: None,
                note: None,
            };
            self.announce(&mut history, &record)?;
            let growth = Growth {
                id: id.0,
                entry: entry.clone(),
                file: progress,
                version: record.version,
            };
            super::names::advance(&mut history, record);
            Ok(growth)
        });
        match &begun {
            Ok(_) => held.keep(history),
            Err(_) => self.drop_entry(id.0, &entry),
        }
        begun
    }

    /// Writes down how far the file is committed, and how far it is on disk. With `durably` that itself is on disk then.
    ///
    /// # Errors
    /// ENOSPC, EIO.
    pub fn note_growth(&self, growth: &Growth<D>, committed: u64, durable: u64, durably: bool) -> io::Result<()> {
        let progress = Progress {
            boot: boot::id().to_owned(),
            mounting: self.mounting,
            committed,
            durable,
        };
        let bytes = seal(&progress).map_err(io::Error::other)?;
        self.disk().write_at(&growth.file, &bytes, 0)?;
        if durably {
            self.disk().sync_file(&growth.file)
        } else {
            Ok(())
        }
    }

    /// The stay of the appenders is over: what the file holds is the version's content.
    ///
    /// # Errors
    /// When the version's record cannot be written; the content is in place all the same.
    pub fn end_append(&self, growth: Growth<D>, place: &Place<'_, D>, info: &PublishInfo) -> io::Result<()> {
        let settled = self.settle_growth(place, info);
        self.drop_growth(growth);
        settled
    }

    fn settle_growth(&self, place: &Place<'_, D>, info: &PublishInfo) -> io::Result<()> {
        let Some(live) = self.stat_place(place)? else {
            return Ok(());
        };
        let (held, mut history) = self.take(place, Some(&live), info.now)?;
        self.record_current(&mut history, place, &live)?;
        self.prune(&mut history, &info.retain, info.now);
        held.keep(history);
        Ok(())
    }

    /// The file is about to be replaced, or goes away, and holds nothing but what is committed.
    pub fn drop_growth(&self, growth: Growth<D>) {
        self.drop_entry(growth.id, &growth.entry);
    }

    fn drop_entry(&self, id: u64, entry: &OsStr) {
        let removed = if_there(self.disk().unlink(&self.shadows, entry));
        if let Err(error) = &removed {
            log::warn!("an entry stays in .concord/shadows until the next start: {error}");
        }
        self.end_line(id, removed.is_ok());
    }

    /// The file was being appended to when the daemon or the machine stopped: what is no whole line at its end goes to `recovered/`.
    pub(super) fn recover_growth(
        &self,
        name: &GrowthName,
        path: Option<&PathBuf>,
        line: Option<&JournalLine>,
        now: u64,
    ) -> io::Result<Option<RecoveryItem>> {
        let found = match path.map(|path| self.history.live(path)).transpose()?.flatten() {
            Some((dir, file, stat)) if stat.ino == name.ino => Some((dir, file, stat.size)),
            _ => None,
        };
        let mut item = None;
        if let (Some((dir, file, size)), Some(path)) = (found, path) {
            let end = self.whole_until(name, &dir, &file, size)?;
            if end < size {
                let at = self.cut_off((&dir, &file), (end, size), path, line, now)?;
                item = Some(RecoveryItem {
                    action: Action::Kept,
                    path: Some(encode_path(path)),
                    at: format!("recovered/{at}"),
                    reason: CUT_OFF.to_owned(),
                });
            }
            match self.settle_growth_of(path, now) {
                // It is done when the history is next used.
                Err(error) if is_full(&error) => log::warn!("no room to settle what {} has grown by", path.display()),
                settled => settled?,
            }
        }
        self.disk().unlink(&self.shadows, &name.text())?;
        Ok(item)
    }

    fn settle_growth_of(&self, path: &Path, now: u64) -> io::Result<()> {
        let Some((dir, name, stat)) = self.history.live(path)? else {
            return Ok(());
        };
        let place = Place {
            dir: &dir,
            name: &name,
            path,
        };
        let (held, mut history) = self.take(&place, Some(&stat), now)?;
        self.record_current(&mut history, &place, &stat)?;
        held.keep(history);
        Ok(())
    }

    /// How much of the file is right. In the same boot and mounting of the filesystem the page cache has everything, and the entry says how far it was
    /// committed; in another only what was synced is sure, and of the rest the whole lines that reached the disk.
    fn whole_until(&self, name: &GrowthName, dir: &D::Dir, file: &OsStr, size: u64) -> io::Result<u64> {
        let entry = read_small(self.disk(), &self.shadows, &name.text(), RECORD_BYTES_MAX);
        let progress: Option<Progress> = entry
            .ok()
            .and_then(|bytes| serde_json::from_slice(unseal(&bytes).ok()?).ok());
        match progress {
            Some(progress) if progress.boot == boot::id() && progress.mounting == self.mounting => {
                return Ok(progress.committed.clamp(name.length.min(size), size));
            }
            // Nothing was committed yet.
            None if size == name.length => return Ok(size),
            _ => {}
        }
        let sure = progress.map_or(name.length, |progress| progress.durable.max(name.length));
        if sure >= size {
            return Ok(size);
        }
        let (file, mut at) = (self.disk().open(dir, file)?, sure);
        let (mut lines, mut chunk) = (WholeLines::from(sure), vec![0; COPY_CHUNK_BYTES]);
        loop {
            match self.disk().read_at(&file, &mut chunk, at)? {
                0 => return Ok(lines.end()),
                count if lines.feed(&chunk[..count]) => at += count as u64,
                _ => return Ok(lines.end()),
            }
        }
    }

    /// Moves the end of a file to `recovered/`. Returns its name there.
    fn cut_off(
        &self,
        (dir, file): (&D::Dir, &OsStr),
        (end, size): (u64, u64),
        path: &Path,
        line: Option<&JournalLine>,
        now: u64,
    ) -> io::Result<String> {
        let disk = self.disk();
        // Of that name it is deleted by the next recovery, should this one be cut short.
        let temporary = OsString::from(format!("{end:016x}.new"));
        if_there(disk.unlink(&self.shadows, &temporary))?;
        let live = disk.open_writable(dir, file)?;
        let copy = disk.create(&self.shadows, &temporary)?;
        let copied = copy_range(disk, &live, &copy, (end, end, size)).and_then(|()| disk.sync_file(&copy));
        let lacks_room = copied.as_ref().is_err_and(is_full);
        match lacks_room {
            true => disk.set_len(&copy, 0)?,
            false => copied?,
        }
        let record = RecoveredRecord {
            kind: RecoveredKind::Staged,
            path: Some(encode_path(path)),
            time: now,
            bytes: size - end,
            reason: CUT_OFF.to_owned(),
            who: line.map(|line| line.who.clone()),
            based_on: line.and_then(|line| line.based_on),
        };
        let at = self.set_aside(&self.shadows, &temporary, record);
        if at.is_err() {
            let _ = disk.unlink(&self.shadows, &temporary);
        }
        let at = at?;
        disk.sync_dir(&self.history.recovered)?;
        if lacks_room {
            self.lend_spare();
            self.move_end(&live, &copy, (end, size))?;
        }
        disk.set_len(&live, end)?;
        disk.sync_file(&live)?;
        Ok(at)
    }

    /// Where there is no room for both, piece by piece from the end: each gives back the room that its copy takes. Wherever that stops, what has
    /// not been moved yet is still the end of the file.
    fn move_end(&self, live: &D::File, copy: &D::File, (end, size): (u64, u64)) -> io::Result<()> {
        let disk = self.disk();
        let (mut left, mut piece) = (size, MOVE_BYTES_MAX);
        while left > end {
            let from = end.max(left.saturating_sub(piece));
            match copy_range(disk, live, copy, (end, from, left)).and_then(|()| disk.sync_file(copy)) {
                Err(error) if is_full(&error) && piece > MOVE_BYTES_MIN => piece /= 2,
                moved => {
                    moved?;
                    disk.set_len(live, from)?;
                    disk.sync_file(live)?;
                    left = from;
                }
            }
        }
        Ok(())
    }
}

/// Copies what is between two offsets of a file to another one, which begins at `end` of the first.
fn copy_range<D: Disk>(disk: &D, from: &D::File, to: &D::File, (end, start, stop): (u64, u64, u64)) -> io::Result<()> {
    let (mut at, mut chunk) = (start, vec![0; COPY_CHUNK_BYTES]);
    while at < stop {
        let wanted = COPY_CHUNK_BYTES.min(usize::try_from(stop - at).unwrap_or(COPY_CHUNK_BYTES));
        match disk.read_at(from, &mut chunk[..wanted], at)? {
            0 => break,
            count => {
                disk.write_at(to, &chunk[..count], at - end)?;
                at += count as u64;
            }
        }
    }
    Ok(())
}

const CUT_OFF: &str = "it was being appended to the file when concordfs or the machine stopped, and was not complete";

#[cfg(test)]
#[path = "tests_append.rs"]
mod tests;
