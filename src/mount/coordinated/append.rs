//! O_APPEND handles (W10): they ask no queue. Whole lines go to the current version at once; the beginning of a line is held back until
//! it is finished or the handle is closed.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::append_counted::Outdated;
use super::append_grow::Placed;
use super::append_log::Log;
use super::permission::{Right, Rights};
use super::{Coordination, Target, caller, nanos_now};
use crate::content::lines::{self, LINE_BYTES_MAX};
use crate::mount::errno::from_io;
use crate::mount::handles::Ordinary;
use crate::mount::nodes::Name;
use crate::mount::tree::Caller;
use crate::os::proc::Closing;
use crate::rules::{Append, Policy};
use crate::session::ProcId;
use crate::store::record::Who;
use crate::store::{RealDisk, Shadow};

/// An open file description that appends.
pub struct Appender {
    /// Its node, and what keeps that open.
    pub file: Arc<Ordinary>,
    /// Who opened it.
    pub who: Who,
    /// Since when.
    pub since: Instant,
    /// The name it was opened by.
    pub name: Name,
    /// The path that it had then.
    pub(super) path: PathBuf,
    /// To write there.
    pub(super) right: Right,
    pub(super) policy: Policy,
    /// O_SYNC or O_DSYNC.
    pub(super) sync: bool,
    pub(super) held: Mutex<Held>,
    /// What the kernel must be told of the file that lines of this handle went to. Nothing else is locked under it.
    pub(super) overtaken: Mutex<Option<Outdated>>,
}

impl std::fmt::Debug for Appender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "appender to {:?} by process {}", self.name, self.who.pid)
    }
}

/// What a handle has not given to its log yet.
pub(super) struct Held {
    pub log: Arc<Log>,
    /// The log counts it.
    pub attached: bool,
    /// The beginning of a line.
    pub tail: Vec<u8>,
    /// Holds the tail too, so that a crash does not take it away; or all that was written, with `whole`.
    pub kept: Option<Shadow<RealDisk>>,
    /// Bytes in it.
    pub kept_bytes: u64,
    /// Nothing is seen before the close.
    pub whole: bool,
    pub removed: bool,
    /// Who has written a part of what is not published yet, where his write(2) takes set-id bits away.
    pub clears: Option<Caller>,
    /// Something of it may not be on disk.
    pub unsynced: bool,
    pub lost: Option<Errno>,
    pub processes: Vec<u32>,
    pub last_close: Closing,
}

impl Held {
    pub fn new(log: Arc<Log>, processes: Vec<u32>, whole: bool) -> Held {
        Held {
            log,
            attached: true,
            tail: Vec::new(),
            kept: None,
            kept_bytes: 0,
            whole,
            removed: false,
            clears: None,
            unsynced: false,
            lost: None,
            processes,
            last_close: Closing::Call,
        }
    }
}

impl Appender {
    /// Opened by `caller`, of `process`, on `file` by its `rights`; the log counts it.
    pub(super) fn new(
        file: Arc<Ordinary>,
        (caller, process, rights): (Caller, ProcId, Option<Rights>),
        who: Who,
        target: &Target,
        flags: OFlags,
        log: Arc<Log>,
    ) -> Appender {
        let whole = target.policy.append == Append::Close;
        Appender {
            right: Right::new(caller, process, file.pin.fd(), rights),
            file,
            who,
            since: Instant::now(),
            name: target.name.clone(),
            path: target.path.clone(),
            policy: target.policy.clone(),
            sync: flags.intersects(OFlags::SYNC | OFlags::DSYNC),
            held: Mutex::new(Held::new(log, vec![process.tgid], whole)),
            overtaken: Mutex::new(None),
        }
    }

    /// Whether a caller or one of its ancestors opened it.
    pub(super) fn is_of_lineage(&self, caller: Caller) -> bool {
        let opener = caller::opener(caller);
        let mut lineage = std::iter::once(&opener.proc).chain(&opener.ancestors);
        lineage.any(|process| self.who.pid == process.tgid)
    }

    /// Whether it is open, as far as one can tell.
    pub fn is_open(&self) -> bool {
        self.held.lock().attached
    }

    /// Whether a write can be served at once.
    pub fn is_quick(&self) -> bool {
        let held = self.held.try_lock();
        !self.sync && held.is_some_and(|held| held.attached && !held.whole && held.log.is_quick())
    }

    /// What it has held back of the file that it appends to.
    pub(super) fn held_bytes(&self) -> u64 {
        let held = self.held.lock();
        if held.removed { 0 } else { held.kept_bytes }
    }

    /// A descriptor was closed. Returns the processes that may have another, where it matters whether it was the last: RELEASE comes soon,
    /// and is early enough for who has held nothing back and is not the only one that appends.
    pub(super) fn closed_by(&self, flusher: ProcId, closing: Closing) -> Option<Vec<u32>> {
        let mut held = self.held.lock();
        held.last_close = closing;
        if flusher.is_known() && !held.processes.contains(&flusher.tgid) {
            held.processes.push(flusher.tgid);
        }
        let matters = !held.tail.is_empty() || held.kept_bytes > 0 || held.log.has_one();
        matters.then(|| held.processes.clone())
    }

    /// Whether one of these, or a descendant, still has it open. Waits for execve.
    pub(super) fn is_held(&self, coordination: &Coordination, flusher: ProcId, processes: &[u32]) -> bool {
        let holders = coordination.holders(self.file.node, flusher, processes);
        let heirs = holders.heirs.iter().map(|heir| heir.tgid);
        let mut held = self.held.lock();
        let unknown: Vec<u32> = heirs.filter(|heir| !held.processes.contains(heir)).collect();
        held.processes.extend(unknown);
        holders.are_there
    }
}

impl Coordination {
    /// write(2). The offset that the kernel thinks of is nobody's business.
    ///
    /// # Errors
    /// ENOSPC, EDQUOT, EFBIG, EIO, and nothing was written; ESTALE after a forced unmount.
    pub fn append(&self, appender: &Appender, data: &[u8], clears: Option<Caller>) -> Result<u32, Errno> {
        let mut held = appender.held.lock();
        let held = &mut *held;
        if let Some(errno) = held.lost {
            return Err(errno);
        }
        if !held.attached {
            // A descriptor that nobody knew of has outlived the close of the last known one.
            match self.attach(&mut held.log) {
                Ok(()) | Err(Errno::NOENT) => held.attached = true,
                Err(errno) => return Err(errno),
            }
        }
        held.clears = clears.or(held.clears);
        let (finished, rest) = if held.whole {
            (&[][..], data)
        } else {
            lines::split(data)
        };
        if !finished.is_empty() {
            let parts: &[&[u8]] = &[&held.tail, finished];
            let parts = if held.tail.is_empty() { &parts[1..] } else { parts };
            let log = &mut held.log;
            let by = (appender, held.clears);
            let placed = Log::with(log, |log, state| self.commit((log, state), parts, by))?;
            if placed == Placed::Nowhere {
                return self.keep_all(held, appender, data, true);
            }
            held.unsynced = true;
            held.tail.clear();
            held.clears = clears;
        }
        if held.whole || held.tail.len() + rest.len() > LINE_BYTES_MAX {
            return self.keep_all(held, appender, rest, false).map(|_| data.len() as u32);
        }
        let at = held.tail.len();
        if let Err(errno) = self.keep(held, appender, rest, at as u64) {
            return if finished.is_empty() {
                Err(errno)
            } else {
                Ok(finished.len() as u32)
            };
        }
        held.tail.extend_from_slice(rest);
        if appender.sync && held.unsynced {
            self.sync_log(&mut held.log)?;
        }
        Ok(data.len() as u32)
    }

    /// What is written is no lines, or has no file any more: it is kept together until the close.
    fn keep_all(&self, held: &mut Held, appender: &Appender, data: &[u8], removed: bool) -> Result<u32, Errno> {
        let at = if held.whole {
            held.kept_bytes
        } else {
            held.tail.len() as u64
        };
        self.keep(held, appender, data, at)?;
        held.whole = true;
        held.removed |= removed;
        held.tail = Vec::new();
        Ok(data.len() as u32)
    }

    /// Makes `data`, from offset `at` on, the end of what is kept.
    pub(super) fn keep(&self, held: &mut Held, appender: &Appender, data: &[u8], at: u64) -> Result<(), Errno> {
        if held.kept.is_none() && data.is_empty() {
            return Ok(());
        }
        if held.kept.is_none() {
            held.kept = Some(self.begin_kept(&mut held.log, appender)?);
        }
        let Some(kept) = &held.kept else { return Ok(()) };
        let end = at + data.len() as u64;
        kept.file.write_all_at(data, at).map_err(|error| from_io(&error))?;
        if end < held.kept_bytes {
            rustix::fs::ftruncate(&kept.file, end)?;
        }
        held.kept_bytes = end;
        Ok(())
    }

    fn begin_kept(&self, log: &mut Arc<Log>, appender: &Appender) -> Result<Shadow<RealDisk>, Errno> {
        let id = self.files.lock().queue.number();
        let name = Log::with(log, |_, state| state.name.clone());
        // Its directory may be gone as well.
        let path = self.path_of(&name).unwrap_or_else(|_| appender.path.clone());
        let begun = self
            .store
            .begin(id, &path, None, appender.who.clone(), None, nanos_now());
        begun.map_err(|error| from_io(&error))
    }

    /// fsync(2): what others can see is on disk, and what is held back.
    ///
    /// # Errors
    /// EIO, ENOSPC, EDQUOT: what was held back is in `recovered/` then, and the handle can only be closed; the same when it was lost before.
    pub fn sync_append(&self, appender: &Appender) -> Result<(), Errno> {
        let (mut log, kept) = {
            let held = appender.held.lock();
            if let Some(errno) = held.lost {
                return Err(errno);
            }
            let kept = held.kept.as_ref().filter(|_| held.kept_bytes > 0);
            (Arc::clone(&held.log), kept.map(|kept| Arc::clone(&kept.file)))
        };
        self.sync_log(&mut log)?;
        let synced = kept.map_or(Ok(()), |file| rustix::fs::fsync(&file));
        synced.inspect_err(|errno| self.lose_held(appender, *errno))
    }
}
