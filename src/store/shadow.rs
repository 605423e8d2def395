//! Staged copies: `shadows/<session>.<key of the path>.<inode>`.
//!
//! The inode number in the name is that of the *staged* file. After the exchange that publishes, the same name leads to
//! the replaced content, another inode: so the name alone tells recovery on which side of the commit point it is, with
//! no record and no journal.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, Stat};
use super::history::Key;
use super::record::{JournalLine, RecoveredKind, RecoveredRecord, Who, clip_who, encode_path};
use super::room::{Spare, is_full};
use super::{Seen, Store};
use crate::session::SessionId;

/// How many empty files are kept ready. Two sessions in a row find one each while the next is made.
const READY_MAX: usize = 2;

/// A staged copy.
pub struct Shadow<D: Disk> {
    /// The session's.
    pub id: SessionId,
    /// Open for reading and writing.
    pub file: Arc<D::File>,
    /// The file it is meant for, relative to the project.
    pub target: PathBuf,
    /// Who writes.
    pub who: Who,
    /// The version it started from. May be set until the publish.
    pub based_on: Option<Seen>,
    /// The session changed owner, mode, ACL or attributes of the shadow itself: they are then its own.
    pub meta_touched: bool,
    pub(super) name: ShadowName,
    /// Inode and ctime of the file whose metadata was copied.
    pub(super) meta_from: Option<(u64, i64)>,
}

impl<D: Disk> Shadow<D> {
    /// The file's metadata was changed since it was copied, though its ctime may not tell.
    pub fn forget_metadata(&mut self) {
        self.meta_from = None;
    }
}

/// The parts of a shadow's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShadowName {
    pub id: u64,
    pub key: Key,
    pub ino: u64,
}

impl ShadowName {
    pub fn text(&self) -> OsString {
        let key = self.key.name().to_string_lossy();
        format!("{:016x}.{key}.{:x}", self.id, self.ino).into()
    }

    pub fn parse(name: &OsStr) -> Option<ShadowName> {
        let mut parts = name.to_str()?.split('.');
        let id = u64::from_str_radix(parts.next()?, 16).ok()?;
        let key = Key::parse(parts.next()?)?;
        let ino = u64::from_str_radix(parts.next()?, 16).ok()?;
        let parsed = ShadowName { id, key, ino };
        (parsed.text() == name).then_some(parsed)
    }
}

impl<D: Disk> Store<D> {
    /// Starts a session: an empty shadow with owner, group, mode, ACL and extended attributes of `current`, the file's
    /// current version. Set-id bits and file capabilities go with the first write(2) by a user, as anywhere.
    ///
    /// Ownership is part of what a file is (contract W11): where the daemon may not give the shadow the owner and group
    /// of the file, the session is refused (EPERM) rather than publishing a file that changed hands.
    ///
    /// # Errors
    /// ENOSPC, EDQUOT, EIO, EROFS, EPERM; nothing is left behind.
    pub fn begin(
        &self,
        id: SessionId,
        target: &Path,
        current: Option<&D::File>,
        who: Who,
        based_on: Option<Seen>,
        now: u64,
    ) -> io::Result<Shadow<D>> {
        // An empty file, and a line of the journal.
        self.with_room(Spare::for_change_of(target), now, || {
            self.try_begin(id, target, current, who.clone(), based_on.clone(), now)
        })
    }

    fn try_begin(
        &self,
        id: SessionId,
        target: &Path,
        current: Option<&D::File>,
        who: Who,
        based_on: Option<Seen>,
        now: u64,
    ) -> io::Result<Shadow<D>> {
        let disk = self.disk();
        let file = self.empty_file()?;
        let (name, meta_from) = self.dress(id, target, &file, current, &who)?;
        disk.link_file(&file, (&self.shadows, &name.text()))?;
        let shadow = Shadow {
            id,
            file: Arc::new(file),
            target: target.to_owned(),
            who: clip_who(who),
            based_on,
            meta_touched: false,
            name,
            meta_from,
        };
        self.enter(shadow, now)
    }

    /// An empty file without a name, as new as if it was made just now.
    fn empty_file(&self) -> io::Result<D::File> {
        let ready = self.ready.lock().pop();
        match ready {
            Some(file) => self.disk().touch(&file).map(|()| file),
            None => self.disk().create_unnamed(&self.shadows),
        }
    }

    /// Makes files for sessions to come: making an inode takes long, the longer the more were deleted lately (ext4), and here nobody waits for it. They have
    /// no name, so nothing is left of them.
    pub(super) fn make_ready(&self) {
        while self.ready.lock().len() < READY_MAX && !self.is_short() {
            match self.disk().create_unnamed(&self.shadows) {
                Ok(file) => self.ready.lock().push(file),
                // Who needs one is told.
                Err(_) => return,
            }
        }
    }

    fn dress(
        &self,
        id: SessionId,
        target: &Path,
        file: &D::File,
        current: Option<&D::File>,
        who: &Who,
    ) -> io::Result<(ShadowName, Option<(u64, i64)>)> {
        let name = ShadowName {
            id: id.0,
            key: Key::of(target),
            ino: self.disk().stat(file)?.ino,
        };
        let Some(current) = current else {
            return Ok((name, None));
        };
        let stat = self.disk().stat(current)?;
        self.disk().copy_meta(current, file, None)?;
        // What a user has written to gets its mode once more when it is published, so that none of its set-id bits depends on how it was written.
        let is_settled = who.uid == 0 || !stat.has_set_id;
        Ok((name, is_settled.then_some((stat.ino, stat.ctime_ns))))
    }

    /// Starts a session that creates `target`: `file` is an O_TMPFILE made in the target's directory, so that owner,
    /// mode and default ACL are what a creation there gives.
    ///
    /// # Errors
    /// EXDEV when the directory is on another filesystem than `.concord/`; ENOSPC, EDQUOT, EIO, EROFS.
    pub fn adopt(&self, id: SessionId, target: &Path, file: D::File, who: Who, now: u64) -> io::Result<Shadow<D>> {
        let ino = self.disk().stat(&file)?.ino;
        let name = ShadowName {
            id: id.0,
            key: Key::of(target),
            ino,
        };
        self.with_room(Spare::for_change_of(target), now, || {
            self.disk().link_file(&file, (&self.shadows, &name.text()))
        })?;
        let shadow = Shadow {
            id,
            file: Arc::new(file),
            target: target.to_owned(),
            who: clip_who(who),
            based_on: None,
            meta_touched: true,
            name,
            meta_from: None,
        };
        self.enter(shadow, now)
    }

    /// An empty shadow, with the metadata of `file`, which are its own.
    ///
    /// # Errors
    /// ENOSPC, EDQUOT, EIO, EPERM; nothing is left behind.
    pub fn dressed_as(&self, mut shadow: Shadow<D>, file: &D::File) -> io::Result<Shadow<D>> {
        match self.disk().copy_meta(file, &shadow.file, Some(&shadow.who)) {
            Ok(()) => {
                shadow.meta_touched = true;
                Ok(shadow)
            }
            // What cannot be removed now, the next start removes.
            Err(error) => self.drop_unwritten(shadow).and(Err(error)),
        }
    }

    /// Writes the journal's line. A session whose line could not be written does not start, unless for want of room: that must not keep anybody from
    /// emptying a file, and after a crash there would only be less known about what was staged.
    fn enter(&self, shadow: Shadow<D>, now: u64) -> io::Result<Shadow<D>> {
        let line = JournalLine {
            id: shadow.id.0,
            path: encode_path(&shadow.target),
            who: shadow.who.clone(),
            based_on: shadow.based_on.as_ref().map(|seen| seen.version),
            time: now,
        };
        let spare = Spare::for_change_of(&shadow.target);
        match self.with_room(spare, now, || self.journal.lock().append(self.disk(), &line)) {
            Err(error) if !is_full(&error) => {
                let _ = self.disk().unlink(&self.shadows, &shadow.name.text());
                Err(error)
            }
            _ => Ok(shadow),
        }
    }

    /// Gives the shadow the content of `from`: shared blocks where the filesystem can, a copy inside the kernel
    /// elsewhere; holes stay holes.
    ///
    /// # Errors
    /// ENOSPC, EDQUOT, EIO. The shadow may then hold a part of it.
    pub fn fill(&self, shadow: &D::File, from: &D::File) -> io::Result<()> {
        self.disk().copy_content(from, shadow)
    }

    /// Has the disk begin to write what is staged: a publish that comes soon then waits less. It promises nothing; an error is fsync(2)'s to tell.
    pub fn start_writing(&self, file: &D::File) {
        let _ = self.disk().start_writeback(file);
    }

    /// Ends a session without publishing: what it had staged goes to `recovered/` as `kind`. Returns its name there; `None` when
    /// the shadow was empty, or is gone already.
    ///
    /// # Errors
    /// When it cannot be moved. It is then still in `shadows/`, and the next start moves it.
    pub fn discard(
        &self,
        shadow: Shadow<D>,
        kind: RecoveredKind,
        reason: &str,
        now: u64,
    ) -> io::Result<Option<String>> {
        let moved = match self.disk().stat(&shadow.file) {
            Ok(stat) if stat.size == 0 => self.disk().unlink(&self.shadows, &shadow.name.text()).map(|()| None),
            Ok(stat) => self.recover_shadow(&shadow, &stat, kind, reason, now).map(Some),
            Err(error) => Err(error),
        };
        self.end_line(shadow.id.0, moved.is_ok());
        self.bound_recovered();
        moved
    }

    pub(super) fn recover_shadow(
        &self,
        shadow: &Shadow<D>,
        stat: &Stat,
        kind: RecoveredKind,
        why: &str,
        now: u64,
    ) -> io::Result<String> {
        let record = RecoveredRecord {
            kind,
            path: Some(encode_path(&shadow.target)),
            time: now,
            bytes: stat.size,
            reason: why.to_owned(),
            who: Some(shadow.who.clone()),
            based_on: shadow.based_on.as_ref().map(|seen| seen.version),
        };
        self.set_aside(&self.shadows, &shadow.name.text(), record)
    }

    /// Ends a session that wrote nothing: its shadow is just deleted.
    ///
    /// # Errors
    /// unlink(2). The next start then deals with it.
    pub fn drop_unwritten(&self, shadow: Shadow<D>) -> io::Result<()> {
        let removed = self.disk().unlink(&self.shadows, &shadow.name.text());
        self.end_line(shadow.id.0, removed.is_ok());
        removed
    }
}
