//! A file that is appended to in place (W10): its committed length, who appends, and which lines a whole-file session has not seen.
//!
//! A log's lock is held over one write of whole lines, and over a publish of the same file: so every line is either in what the publish
//! takes along, or comes after it.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard, RwLock};
use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;

use super::append_bytes::{copy, glue};
use super::append_counted::{Growing, Length};
use super::staged::Staged;
use super::{Coordination, is_file, place};
use crate::mount::attr;
use crate::mount::errno::from_io;
use crate::mount::nodes::{Identity, Name};
use crate::store::{Growth, RealDisk};

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
    pub(super) name: Name,
    pub(super) appenders: usize,
    pub(super) live: Live,
    /// What was appended while there were marks, in order.
    trail: Vec<Piece>,
    /// Bytes appended so far; what a mark remembers.
    total: u64,
}

pub(super) enum Live {
    /// Nobody appends.
    Idle,
    Open(Box<Current>),
    /// The file was renamed, and this is the log of its new name.
    Moved(Arc<Log>),
    /// The file has no coordinated name any more that is known: its appenders go on with it as with any file.
    Departed(Arc<File>),
    /// The file was removed.
    Gone,
}

/// The current version's file, open for appending.
pub(super) struct Current {
    pub file: Arc<File>,
    pub identity: Identity,
    pub length: Arc<Length>,
    pub growth: Option<Growth<RealDisk>>,
    /// What a failed write left behind the committed length could not be taken away.
    pub torn: bool,
    /// Something was committed that recovery could not tell from what a power failure leaves.
    pub unusual: bool,
    pub synced: u64,
    /// A sync failed: later ones would lie (fsyncgate).
    pub failed: Option<Errno>,
}

/// Bytes of a file that were appended one after the other, by however many: what begins in the midst of a line goes on with it.
struct Piece {
    file: Arc<File>,
    identity: Identity,
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
    /// How long they are that grow just now.
    pub(super) growing: RwLock<Growing>,
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

    /// Whether nobody is busy with the log of a name.
    pub(super) fn is_free(&self, name: &Name) -> bool {
        let log = self.by_name.lock().get(name).and_then(Weak::upgrade);
        log.is_none_or(|log| log.is_free())
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

    /// A file is not appended to any more.
    pub(super) fn shrunk(&self, current: &Current) {
        let mut growing = self.growing.write();
        if growing
            .get(&current.identity)
            .is_some_and(|known| Arc::ptr_eq(known, &current.length))
        {
            growing.remove(&current.identity);
        }
    }

    /// Who opens the name from now on means another file.
    pub(super) fn forget(&self, name: &Name) {
        self.by_name.lock().remove(name);
    }
}

impl Log {
    /// Runs `act` on what `log` has become, while nothing is appended and its file is not renamed.
    pub(super) fn with<T>(log: &mut Arc<Log>, act: impl FnOnce(&Arc<Log>, &mut State) -> T) -> T {
        loop {
            let found = Arc::clone(log);
            let mut state = found.lock();
            match &state.live {
                Live::Moved(next) => *log = Arc::clone(next),
                _ => return act(&found, &mut state),
            }
        }
    }

    /// stat(2) of what is appended to, if nobody is busy with it.
    pub(super) fn stat(&self) -> Option<Stat> {
        let state = self.state.try_lock()?;
        let Live::Open(current) = &state.live else { return None };
        let mut stat = rustix::fs::fstat(&current.file).ok()?;
        stat.st_size = current.length.committed() as i64;
        Some(stat)
    }

    fn is_free(&self) -> bool {
        self.state.try_lock().is_some()
    }

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
            Live::Open(current) if current.identity.ino == stat.st_ino => current.length.committed(),
            _ => stat.st_size.max(0) as u64,
        };
        Ok((mark, length))
    }
}

impl State {
    /// Writes down that [from, to) was appended, for the sessions that have a mark.
    pub(super) fn remember(&mut self, log: &Log, (file, identity): (&Arc<File>, Identity), from: u64, to: u64) {
        self.total += to - from;
        if log.marks.load(Ordering::Relaxed) == 0 {
            self.trail.clear();
        } else if let Some(last) = self.trail.last_mut()
            && last.identity == identity
            && last.to == from
        {
            last.to = to;
        } else {
            let file = Arc::clone(file);
            self.trail.push(Piece {
                file,
                identity,
                from,
                to,
            });
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
    /// One more handle appends to the file.
    ///
    /// # Errors
    /// ENOENT: it was removed, or is an ordinary one by now.
    pub(super) fn attach(&self, log: &mut Arc<Log>) -> Result<(), Errno> {
        Log::with(log, |_, state| {
            if matches!(state.live, Live::Idle) {
                let found = self
                    .open_to_append(&state.name)
                    .and_then(|file| self.continue_on(state, file));
                if let Err(errno) = found {
                    if errno == Errno::NOENT && state.appenders == 0 {
                        self.removed(state);
                    }
                    return Err(errno);
                }
            }
            if !matches!(state.live, Live::Open(_)) {
                return Err(Errno::NOENT);
            }
            state.appenders += 1;
            Ok(())
        })
    }

    /// A handle will append to the file that is about to be published under the log's name, unless [`Coordination::detach`] takes that back.
    pub(super) fn await_file(&self, log: &mut Arc<Log>) {
        Log::with(log, |_, state| state.appenders += 1);
    }

    /// A handle is closed. The last one ends the stay: what the file holds is a version.
    pub(super) fn detach(&self, log: &mut Arc<Log>) {
        Log::with(log, |_, state| {
            state.appenders = state.appenders.saturating_sub(1);
            if state.appenders > 0 || !matches!(state.live, Live::Open(_)) {
                return;
            }
            self.end_stay(state);
            self.stop(state, Live::Idle);
        });
    }

    /// The log's file is no longer appended to.
    pub(super) fn stop(&self, state: &mut State, live: Live) -> Option<Box<Current>> {
        let Live::Open(current) = std::mem::replace(&mut state.live, live) else {
            return None;
        };
        self.logs.shrunk(&current);
        Some(current)
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

    pub(super) fn open_to_append(&self, name: &Name) -> Result<File, Errno> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.directory(name.parent)?, &*name.name, flags, Mode::empty())?;
        if !is_file(&rustix::fs::fstat(&fd)?) {
            return Err(Errno::STALE);
        }
        Ok(fd.into())
    }

    /// The lines go to this file from now on.
    pub(super) fn continue_on(&self, state: &mut State, file: File) -> Result<(), Errno> {
        let stat = rustix::fs::fstat(&file)?;
        let identity = attr::identity(&stat, false);
        let length = stat.st_size.max(0) as u64;
        let current = Current {
            identity,
            length: Arc::new(Length::new(length)),
            growth: None,
            torn: false,
            unusual: false,
            synced: length,
            failed: None,
            file: Arc::new(file),
        };
        let node = self.tree.nodes.find(identity);
        if node.is_some_and(|node| self.paged_end(node).is_some()) {
            current.length.page();
        }
        self.logs.growing.write().insert(identity, Arc::clone(&current.length));
        if let Some(node) = node {
            self.tree.attributes_changed(node);
        }
        self.stop(state, Live::Open(Box::new(current)));
        Ok(())
    }

    /// The file that `name` leads to is about to be written over: what was appended to it is in `image`, at the same place.
    pub(super) fn keep_apart(&self, state: &mut State, name: &Name, image: File) {
        let (Ok(live), Ok(stat)) = (self.stat_backing(name), rustix::fs::fstat(&image)) else {
            return;
        };
        let (live, identity) = (attr::identity(&live, false), attr::identity(&stat, false));
        let file = Arc::new(image);
        for piece in state.trail.iter_mut().filter(|piece| piece.identity == live) {
            piece.file = Arc::clone(&file);
            piece.identity = identity;
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
