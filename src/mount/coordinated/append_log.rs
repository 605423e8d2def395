//! A file that is appended to in place (W10): its committed length, who appends, and which lines a whole-file session has not seen.
//!
//! A log's lock is held over one write of whole lines, and over a publish of the same file: so every line is either in what the publish
//! takes along, or comes after it.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard, RwLock};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::append::Appender;
use super::staged::Staged;
use super::{Coordination, is_file, nanos_now, place, publish_info};
use crate::mount::attr;
use crate::mount::errno::from_io;
use crate::mount::nodes::{Identity, Name, NodeId};
use crate::mount::notices::News;
use crate::mount::pin::Pin;
use crate::store::record::{How, Who};
use crate::store::{Growth, RealDisk};

const COPY_CHUNK_BYTES: usize = 256 * 1024;
/// Dead entries of the table that are worth looking for.
const SWEEP_MIN: usize = 64;

/// The appended lines of one logical file.
pub struct Log {
    state: Mutex<State>,
    /// Sessions that may have to take lines along.
    marks: AtomicUsize,
}

/// What changes, under the log's lock.
pub(super) struct State {
    name: Name,
    appenders: usize,
    live: Live,
    /// What was appended while there were marks, in order.
    trail: Vec<Piece>,
    /// Bytes appended so far; what a mark remembers.
    total: u64,
}

enum Live {
    /// Nobody appends.
    Idle,
    Open(Box<Current>),
    /// The file was renamed, and this is the log of its new name.
    Moved(Arc<Log>),
    /// The file was removed.
    Gone,
}

/// The current version's file, open for appending.
struct Current {
    file: Arc<File>,
    identity: Identity,
    committed: Arc<AtomicU64>,
    growth: Option<Growth<RealDisk>>,
    /// Something was committed that recovery could not tell from what a power failure leaves.
    unusual: bool,
    synced: u64,
    /// A sync failed: later ones would lie (fsyncgate).
    failed: Option<Errno>,
}

/// Bytes of a file that were appended one after the other.
struct Piece {
    file: Arc<File>,
    from: u64,
    to: u64,
}

/// Where in the log a session began: what is appended later, its version must hold too.
pub struct Mark {
    log: Arc<Log>,
    at: u64,
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.log.marks.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The logs of a mount.
#[derive(Default)]
pub struct Logs {
    by_name: Mutex<HashMap<Name, Weak<Log>>>,
    /// The committed lengths of the files that grow just now.
    growing: RwLock<HashMap<Identity, Arc<AtomicU64>>>,
}

impl Logs {
    /// The log of a name; made when nobody has it.
    pub fn of(&self, name: &Name) -> Arc<Log> {
        let mut logs = self.by_name.lock();
        if let Some(log) = logs.get(name).and_then(Weak::upgrade) {
            return log;
        }
        if logs.len() >= SWEEP_MIN && logs.len().is_power_of_two() {
            logs.retain(|_, log| log.strong_count() > 0);
        }
        let log = Arc::new(Log {
            state: Mutex::new(State {
                name: name.clone(),
                appenders: 0,
                live: Live::Idle,
                trail: Vec::new(),
                total: 0,
            }),
            marks: AtomicUsize::new(0),
        });
        logs.insert(name.clone(), Arc::downgrade(&log));
        log
    }

    /// All of them, by the names that they are found by.
    pub(super) fn all(&self) -> Vec<(Name, Arc<Log>)> {
        let logs = self.by_name.lock();
        logs.iter()
            .filter_map(|(name, log)| Some((name.clone(), log.upgrade()?)))
            .collect()
    }

    /// Whether anybody has the log of a name.
    pub(super) fn is_used(&self, name: &Name) -> bool {
        self.by_name.lock().get(name).is_some_and(|log| log.strong_count() > 0)
    }

    /// Who opens the name from now on means another file.
    fn forget(&self, name: &Name) {
        self.by_name.lock().remove(name);
    }
}

impl Log {
    /// Nothing is appended meanwhile.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The name that the file has now.
    pub(super) fn name(&self) -> Name {
        self.state.lock().name.clone()
    }

    /// Whether a line can be written at once.
    pub(super) fn is_quick(&self) -> bool {
        let state = self.state.try_lock();
        state.is_some_and(|state| matches!(&state.live, Live::Open(current) if current.growth.is_some()))
    }

    /// Whether no more than one handle appends.
    pub(super) fn has_one(&self) -> bool {
        self.state.lock().appenders < 2
    }

    /// Remembers how far the log is, and how long the file `base` was then; a session that is just beginning has opened it.
    pub(super) fn mark(self: &Arc<Log>, base: &File) -> Result<(Mark, u64), Errno> {
        let mut state = self.state.lock();
        self.mark_in(&mut state, Some(base))
    }

    /// The same of the file that `open` opens, while nothing is appended.
    pub(super) fn mark_at<E>(
        self: &Arc<Log>,
        open: impl FnOnce() -> Result<File, E>,
    ) -> Result<(Result<File, E>, Mark, u64), Errno> {
        let mut state = self.state.lock();
        let base = open();
        let (mark, length) = self.mark_in(&mut state, base.as_ref().ok())?;
        Ok((base, mark, length))
    }

    fn mark_in(self: &Arc<Log>, state: &mut State, base: Option<&File>) -> Result<(Mark, u64), Errno> {
        self.marks.fetch_add(1, Ordering::Relaxed);
        let mark = Mark {
            log: Arc::clone(self),
            at: state.total,
        };
        let Some(base) = base else { return Ok((mark, 0)) };
        let stat = rustix::fs::fstat(base)?;
        let length = match &state.live {
            Live::Open(current) if current.identity.ino == stat.st_ino => current.committed.load(Ordering::Acquire),
            _ => stat.st_size.max(0) as u64,
        };
        Ok((mark, length))
    }
}

impl State {
    /// Writes down that [from, to) was appended, for the sessions that have a mark.
    fn remember(&mut self, log: &Log, file: &Arc<File>, from: u64, to: u64) {
        self.total += to - from;
        if log.marks.load(Ordering::Relaxed) == 0 {
            self.trail.clear();
        } else if let Some(last) = self.trail.last_mut()
            && Arc::ptr_eq(&last.file, file)
            && last.to == from
        {
            last.to = to;
        } else {
            let file = Arc::clone(file);
            self.trail.push(Piece { file, from, to });
        }
    }

    /// Appends to `to` what was appended since `mark`. Returns how many bytes.
    fn copy_since(&self, mark: u64, to: &File) -> std::io::Result<u64> {
        let known: u64 = self.trail.iter().map(|piece| piece.to - piece.from).sum();
        let mut skip = mark.saturating_sub(self.total - known);
        let mut copied = 0;
        for piece in &self.trail {
            let length = piece.to - piece.from;
            let skipped = skip.min(length);
            skip -= skipped;
            if skipped < length {
                glue(to)?;
                copy(&piece.file, (piece.from + skipped, piece.to), to)?;
                copied += length - skipped;
            }
        }
        Ok(copied)
    }
}

impl Coordination {
    /// The committed length of the file that a node stands for, while lines are appended to it. The kernel must not remember it.
    pub fn growing(&self, node: NodeId) -> Option<u64> {
        let growing = self.logs.growing.read();
        if growing.is_empty() {
            return None;
        }
        let committed = growing.get(&self.tree.nodes.identity(node)?)?;
        Some(committed.load(Ordering::Acquire))
    }

    /// [`Coordination::growing`] of an open file.
    pub fn growing_of(&self, pin: &Pin) -> Option<u64> {
        let growing = self.logs.growing.read();
        if growing.is_empty() {
            return None;
        }
        let committed = growing.get(&attr::identity(&rustix::fs::fstat(pin.fd()).ok()?, false))?;
        Some(committed.load(Ordering::Acquire))
    }

    /// One more handle appends to the file. Returns the log that is its own by now.
    pub(super) fn attach(&self, log: Arc<Log>) -> Result<Arc<Log>, Errno> {
        let mut log = log;
        loop {
            let mut state = log.lock();
            let next = match &state.live {
                Live::Moved(next) => Arc::clone(next),
                Live::Gone => return Err(Errno::NOENT),
                Live::Idle => {
                    let file = self.open_to_append(&state.name)?;
                    self.continue_on(&mut state, file)?;
                    state.appenders = 1;
                    drop(state);
                    return Ok(log);
                }
                Live::Open(_) => {
                    state.appenders += 1;
                    drop(state);
                    return Ok(log);
                }
            };
            drop(state);
            log = next;
        }
    }

    /// The log that a handle's lines go to: its file may have been renamed.
    pub(super) fn followed(&self, log: Arc<Log>) -> Arc<Log> {
        let mut log = log;
        loop {
            let next = match &log.lock().live {
                Live::Moved(next) => Arc::clone(next),
                _ => break,
            };
            log = next;
        }
        log
    }

    /// A handle is closed. The last one ends the stay: what the file holds is a version.
    pub(super) fn detach(&self, log: &Log) {
        let mut state = log.lock();
        state.appenders = state.appenders.saturating_sub(1);
        if state.appenders > 0 {
            return;
        }
        let name = state.name.clone();
        let Live::Open(mut current) = std::mem::replace(&mut state.live, Live::Idle) else {
            return;
        };
        if let Some(growth) = current.growth.take() {
            self.end_growth(&name, growth);
        }
        self.logs.growing.write().remove(&current.identity);
    }

    /// What was appended so far is a version; the next line begins another.
    pub(super) fn end_stay(&self, state: &mut State) {
        let name = state.name.clone();
        if let Live::Open(current) = &mut state.live
            && let Some(growth) = current.growth.take()
        {
            self.end_growth(&name, growth);
        }
    }

    fn end_growth(&self, name: &Name, growth: Growth<RealDisk>) {
        let located = self
            .path_of(name)
            .and_then(|path| Ok((self.directory(name.parent)?, path)));
        let target = self.target(name.parent, &name.name);
        match (located, target) {
            (Ok((dir, path)), Some(target)) => {
                let info = publish_info(How::Append, &target.policy);
                if let Err(error) = self.store.end_append(growth, &place(&dir, name, &path), &info) {
                    log::error!(
                        "the version of the lines appended to {} is not recorded: {error}",
                        path.display()
                    );
                }
                self.published(&path);
            }
            _ => self.store.drop_growth(growth),
        }
    }

    fn open_to_append(&self, name: &Name) -> Result<File, Errno> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.directory(name.parent)?, &*name.name, flags, Mode::empty())?;
        if !is_file(&rustix::fs::fstat(&fd)?) {
            return Err(Errno::STALE);
        }
        Ok(fd.into())
    }

    /// The lines go to this file from now on.
    fn continue_on(&self, state: &mut State, file: File) -> Result<(), Errno> {
        let stat = rustix::fs::fstat(&file)?;
        let identity = attr::identity(&stat, false);
        let length = stat.st_size.max(0) as u64;
        let current = Current {
            identity,
            committed: Arc::new(AtomicU64::new(length)),
            growth: None,
            unusual: false,
            synced: length,
            failed: None,
            file: Arc::new(file),
        };
        self.logs
            .growing
            .write()
            .insert(identity, Arc::clone(&current.committed));
        if let Some(node) = self.tree.nodes.find(identity) {
            self.tree.attributes_changed(node);
        }
        if let Live::Open(before) = std::mem::replace(&mut state.live, Live::Open(Box::new(current)))
            && before.identity != identity
        {
            self.logs.growing.write().remove(&before.identity);
        }
        Ok(())
    }

    /// Appends `parts`, which together are whole lines, or the last thing that a handle has to say. `log` is locked by `state`.
    ///
    /// # Errors
    /// ENOSPC, EDQUOT, EFBIG, EIO: the file is as it was. ENOENT: it was removed, or replaced by one that the author may not write to.
    pub(super) fn commit(&self, (log, state): (&Log, &mut State), parts: &[&[u8]], by: &Appender) -> Result<(), Errno> {
        let bytes: Vec<u8>;
        let data = match parts {
            [one] => *one,
            several => {
                bytes = several.concat();
                &bytes
            }
        };
        let plain = !data.contains(&0) && data.ends_with(b"\n");
        let write = |file: &File, at: u64| file.write_all_at(data, at).map(|()| data.len() as u64);
        self.grow((log, state), by, plain, write)
    }

    /// The same with the whole of a file.
    ///
    /// # Errors
    /// As [`Coordination::commit`].
    pub(super) fn commit_file(
        &self,
        (log, state): (&Log, &mut State),
        from: &File,
        by: &Appender,
    ) -> Result<(), Errno> {
        let length = rustix::fs::fstat(from)?.st_size.max(0) as u64;
        let write = |file: &File, at: u64| copy_to(from, (0, length), file, at).map(|()| length);
        self.grow((log, state), by, false, write)
    }

    /// Writes behind the committed length, then moves that.
    fn grow(
        &self,
        (log, state): (&Log, &mut State),
        by: &Appender,
        plain: bool,
        write: impl FnOnce(&File, u64) -> std::io::Result<u64>,
    ) -> Result<(), Errno> {
        if let Live::Open(current) = &state.live
            && !by.right.covers(by.file.pin.fd(), &current.file, current.identity)
        {
            return Err(Errno::NOENT);
        }
        self.begin_growth(state, &by.who)?;
        let Live::Open(current) = &mut state.live else {
            return Err(Errno::NOENT);
        };
        let file = Arc::clone(&current.file);
        let before = current.committed.load(Ordering::Acquire);
        let noted = write(&file, before).and_then(|written| {
            let to = before + written;
            let note = |growth| self.store.note_growth(growth, to, current.synced, false);
            current
                .growth
                .as_ref()
                .map_or(Ok(to), |growth| note(growth).map(|()| to))
        });
        let to = noted.map_err(|error| {
            // Readers are kept to the committed length, and so is the next write; recovery knows it too.
            if let Err(error) = file.set_len(before) {
                log::error!("the end of a file cannot be taken back after a failed append: {error}");
            }
            from_io(&error)
        })?;
        current.unusual |= !plain;
        current.committed.store(to, Ordering::Release);
        state.remember(log, &file, before, to);
        self.tell_formers(&state.name, News::Modified);
        Ok(())
    }

    /// Before the first line: the version that it will be is written down.
    fn begin_growth(&self, state: &mut State, who: &Who) -> Result<(), Errno> {
        let name = state.name.clone();
        let Live::Open(current) = &mut state.live else {
            return Err(Errno::NOENT);
        };
        if current.growth.is_some() {
            return Ok(());
        }
        // A file that is not coordinated under the name it has now has no versions.
        let Some(target) = self.target(name.parent, &name.name) else {
            return Ok(());
        };
        let when = (target.policy.durability, nanos_now());
        let (dir, path) = (self.directory(name.parent)?, self.path_of(&name)?);
        let id = self.files.lock().queue.number();
        let growth = self
            .store
            .begin_append(id, &place(&dir, &name, &path), &current.file, who, when)
            .map_err(|error| from_io(&error))?;
        current.growth = Some(growth);
        Ok(())
    }

    /// Waits until what is committed is on disk.
    ///
    /// # Errors
    /// EIO, ENOSPC; later ones of this file fail likewise.
    pub(super) fn sync_log(&self, log: &Log) -> Result<(), Errno> {
        let (file, length) = {
            let state = log.lock();
            let Live::Open(current) = &state.live else {
                return Ok(());
            };
            if let Some(errno) = current.failed {
                return Err(errno);
            }
            (Arc::clone(&current.file), current.committed.load(Ordering::Acquire))
        };
        // Without the lock: the others go on.
        let synced = rustix::fs::fdatasync(&file);
        let mut state = log.lock();
        let Live::Open(current) = &mut state.live else {
            return synced;
        };
        if !Arc::ptr_eq(&current.file, &file) {
            return synced;
        }
        if let Err(errno) = synced {
            current.failed = Some(errno);
            return Err(errno);
        }
        current.synced = current.synced.max(length);
        match (&current.growth, current.unusual) {
            (Some(growth), true) => {
                let committed = current.committed.load(Ordering::Acquire);
                let noted = self.store.note_growth(growth, committed, current.synced, true);
                noted.map_err(|error| from_io(&error))
            }
            _ => Ok(()),
        }
    }

    /// A session that began at its mark is about to be published: the lines that were appended since come after what it wrote.
    ///
    /// # Errors
    /// ENOSPC, EDQUOT, EIO.
    pub(super) fn take_along(&self, state: &mut State, staged: &mut Staged) -> Result<(), Errno> {
        self.settle_growth(state);
        let Some(mark) = staged.mark.as_ref().map(|mark| mark.at) else {
            return Ok(());
        };
        if mark >= state.total {
            return Ok(());
        }
        let copied = state
            .copy_since(mark, &staged.shadow.file)
            .map_err(|error| from_io(&error))?;
        if copied > 0 {
            // It has seen them now.
            let name = state.name.clone();
            let (dir, path) = (self.directory(name.parent)?, self.path_of(&name)?);
            let version = self.store.version_at(&place(&dir, &name, &path));
            staged.shadow.based_on = version.map_err(|error| from_io(&error))?;
        }
        Ok(())
    }

    /// The file is about to be replaced or renamed, or to go: it holds what is committed and no more.
    pub(super) fn settle_growth(&self, state: &mut State) {
        if let Live::Open(current) = &mut state.live
            && let Some(growth) = current.growth.take()
        {
            self.store.drop_growth(growth);
        }
    }

    /// The name leads to another file now; whoever appends goes on there.
    pub(super) fn replaced(&self, state: &mut State) {
        if !matches!(state.live, Live::Open(_)) {
            return;
        }
        let name = state.name.clone();
        let continued = self
            .open_to_append(&name)
            .and_then(|file| self.continue_on(state, file));
        if let Err(errno) = continued {
            log::error!(
                "what is appended to {} is kept in recovered/ from now on: {errno}",
                name.name.to_string_lossy()
            );
            self.removed(state);
        }
    }

    /// The file was removed: what its appenders still write has no place to go.
    pub(super) fn removed(&self, state: &mut State) {
        self.logs.forget(&state.name);
        if let Live::Open(current) = std::mem::replace(&mut state.live, Live::Gone) {
            self.logs.growing.write().remove(&current.identity);
        }
    }

    /// The file has another name now, whose log `to` is; its appenders follow it. What had that name before was replaced.
    pub(super) fn renamed_log(&self, state: &mut State, (to, target): (&Arc<Log>, &mut State)) {
        self.logs.forget(&state.name);
        let (moving, staying) = (
            matches!(state.live, Live::Open(_)),
            matches!(target.live, Live::Open(_)),
        );
        if let Live::Open(current) = std::mem::replace(&mut state.live, Live::Moved(Arc::clone(to)))
            && !staying
        {
            target.live = Live::Open(current);
        } else if staying {
            self.replaced(target);
        }
        if moving {
            target.appenders += state.appenders;
            state.appenders = 0;
        }
    }
}

/// Locks the logs of two names, in an order that is the same for all.
pub(super) fn lock_both<'a>(a: &'a Arc<Log>, b: &'a Arc<Log>) -> (MutexGuard<'a, State>, MutexGuard<'a, State>) {
    if Arc::as_ptr(a) < Arc::as_ptr(b) {
        let first = a.lock();
        (first, b.lock())
    } else {
        let second = b.lock();
        (a.lock(), second)
    }
}

/// Whether a file of this length ends in the middle of a line.
fn ends_open(file: &File, length: u64) -> std::io::Result<bool> {
    let mut last = [0];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    Ok(length > 0 && last != *b"\n")
}

/// Ends the last line of a file.
fn glue(file: &File) -> std::io::Result<()> {
    let length = file.metadata()?.len();
    if ends_open(file, length)? {
        file.write_all_at(b"\n", length)?;
    }
    Ok(())
}

/// Appends a part of a file to another.
fn copy(from: &File, part: (u64, u64), to: &File) -> std::io::Result<()> {
    copy_to(from, part, to, to.metadata()?.len())
}

fn copy_to(from: &File, (start, end): (u64, u64), to: &File, at: u64) -> std::io::Result<()> {
    let mut done = 0;
    while start + done < end {
        let wanted = COPY_CHUNK_BYTES.min((end - start - done) as usize);
        let chunk = super::staged::read_at(from.as_fd(), start + done, wanted)?;
        if chunk.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all_at(&chunk, at + done)?;
        done += chunk.len() as u64;
    }
    Ok(())
}
