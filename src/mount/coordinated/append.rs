//! O_APPEND handles (W10): they ask no queue. Whole lines go to the current version at once; the beginning of a line is held back until
//! it is finished or the handle is closed.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustix::fs::{OFlags, Stat};
use rustix::io::Errno;

use super::append_log::Log;
use super::begin::Beginning;
use super::close::Ending;
use super::creator::first_of;
use super::files::{Granted, InHand};
use super::holders::Holders;
use super::permission::Right;
use super::session::EndReply;
use super::{Answer, Coordination, Counted, Target, Writer, caller, described, nanos_now};
use crate::content::lines::{self, LINE_BYTES_MAX};
use crate::mount::errno::from_io;
use crate::mount::handles::{Handle, Ordinary};
use crate::mount::nodes::{Name, ROOT};
use crate::mount::notices::News;
use crate::mount::tree::Caller;
use crate::os::creds;
use crate::os::proc::{self, Closing};
use crate::rules::{Append, Durability, Policy};
use crate::session::{Intent, ProcId};
use crate::store::record::{How, RecoveredKind, Who};
use crate::store::{RealDisk, Shadow};

const KILLED: &str = "its writer was killed before it finished the line";
const REMOVED: &str =
    "its file was removed while it was appended to, or replaced by one that its writer may not write to";
const FORCED: &str = "the mount was taken away by force before the line was finished";

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
    /// To write there.
    pub(super) right: Right,
    policy: Policy,
    /// O_SYNC or O_DSYNC.
    sync: bool,
    held: Mutex<Held>,
}

impl std::fmt::Debug for Appender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "appender to {:?} by process {}", self.name, self.who.pid)
    }
}

/// What a handle has not given to its log yet.
struct Held {
    log: Arc<Log>,
    /// The log counts it.
    attached: bool,
    /// The beginning of a line.
    tail: Vec<u8>,
    /// Holds the tail too, so that a crash does not take it away; or all that was written, with `whole`.
    kept: Option<Shadow<RealDisk>>,
    /// Bytes in it.
    kept_bytes: u64,
    /// Nothing is seen before the close.
    whole: bool,
    removed: bool,
    /// Something of it may not be on disk.
    unsynced: bool,
    lost: Option<Errno>,
    processes: Vec<u32>,
    last_close: Closing,
}

impl Held {
    fn new(log: Arc<Log>, processes: Vec<u32>, whole: bool) -> Held {
        Held {
            log,
            attached: true,
            tail: Vec::new(),
            kept: None,
            kept_bytes: 0,
            whole,
            removed: false,
            unsynced: false,
            lost: None,
            processes,
            last_close: Closing::Call,
        }
    }
}

impl Appender {
    /// Opened by `caller`, of `process`, on `file`; the log counts it.
    pub(super) fn new(
        file: Arc<Ordinary>,
        (caller, process): (Caller, ProcId),
        who: Who,
        target: &Target,
        flags: OFlags,
        log: Arc<Log>,
    ) -> Appender {
        let whole = target.policy.append == Append::Close;
        Appender {
            right: Right::new(caller, process, file.pin.fd()),
            file,
            who,
            since: Instant::now(),
            name: target.name.clone(),
            policy: target.policy.clone(),
            sync: flags.intersects(OFlags::SYNC | OFlags::DSYNC),
            held: Mutex::new(Held::new(log, vec![process.tgid], whole)),
        }
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

    /// A descriptor was closed. Returns the processes that may have another, where it matters whether it was the last: RELEASE comes soon,
    /// and is early enough for who has held nothing back and is not the only one that appends.
    fn closed_by(&self, flusher: ProcId, closing: Closing) -> Option<Vec<u32>> {
        let mut held = self.held.lock();
        held.last_close = closing;
        if flusher.is_known() && !held.processes.contains(&flusher.tgid) {
            held.processes.push(flusher.tgid);
        }
        let matters = !held.tail.is_empty() || held.kept_bytes > 0 || held.log.has_one();
        matters.then(|| held.processes.clone())
    }

    /// Whether one of these, or a descendant, still has it open. Waits for execve.
    fn is_held(&self, flusher: ProcId, processes: &[u32]) -> bool {
        let holders = Holders::of(self.file.node.0, flusher, processes);
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
    pub fn append(&self, appender: &Appender, data: &[u8], clears: bool) -> Result<u32, Errno> {
        let mut held = appender.held.lock();
        if let Some(errno) = held.lost {
            return Err(errno);
        }
        if !held.attached {
            // A descriptor that nobody knew of has outlived the close of the last known one.
            held.log = self.attach(self.followed(Arc::clone(&held.log)))?;
            held.attached = true;
        }
        let (finished, rest) = if held.whole {
            (&[][..], data)
        } else {
            lines::split(data)
        };
        if !finished.is_empty() {
            held.log = self.followed(Arc::clone(&held.log));
            let log = Arc::clone(&held.log);
            let parts: &[&[u8]] = &[&held.tail, finished];
            let parts = if held.tail.is_empty() { &parts[1..] } else { parts };
            let commit = || self.commit((&log, &mut log.lock()), parts, appender);
            match if clears {
                creds::without_fsetid(commit)
            } else {
                commit()
            } {
                Ok(()) => held.unsynced = true,
                Err(Errno::NOENT) => return self.keep_all(&mut held, appender, data, true),
                Err(errno) => return Err(errno),
            }
            held.tail.clear();
        }
        if held.whole || held.tail.len() + rest.len() > LINE_BYTES_MAX {
            return self
                .keep_all(&mut held, appender, rest, false)
                .map(|_| data.len() as u32);
        }
        let at = held.tail.len();
        if let Err(errno) = self.keep(&mut held, appender, rest, at as u64) {
            return if finished.is_empty() {
                Err(errno)
            } else {
                Ok(finished.len() as u32)
            };
        }
        held.tail.extend_from_slice(rest);
        if appender.sync && held.unsynced {
            self.sync_log(&held.log)?;
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
    fn keep(&self, held: &mut Held, appender: &Appender, data: &[u8], at: u64) -> Result<(), Errno> {
        if held.kept.is_none() && data.is_empty() {
            return Ok(());
        }
        if held.kept.is_none() {
            held.kept = Some(self.begin_kept(appender)?);
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

    fn begin_kept(&self, appender: &Appender) -> Result<Shadow<RealDisk>, Errno> {
        let id = self.files.lock().queue.number();
        let path = self.path_of(&appender.name)?;
        let begun = self
            .store
            .begin(id, &path, None, appender.who.clone(), None, nanos_now());
        begun.map_err(|error| from_io(&error))
    }

    /// A descriptor of the handle was closed. When it was the last, what is held back is published first; with full durability what the
    /// handle wrote is on disk then.
    pub fn flush_append(self: &Arc<Self>, caller: Caller, appender: Arc<Appender>, reply: EndReply) {
        let closing = proc::closing(caller.tid);
        if closing == Closing::Exec {
            // As for a session, see [`Coordination::flush`].
            return reply(Ok(()));
        }
        let this = Arc::clone(self);
        let process = caller::process(caller);
        self.tree.workers.run(move || {
            let processes = appender.closed_by(process, closing);
            let goes_on = |processes: Vec<u32>| !process.is_known() || appender.is_held(process, &processes);
            if processes.is_none_or(goes_on) {
                reply(this.settle_on_disk(&appender));
            } else {
                reply(this.finish_append(&appender, closing));
                this.store.sweep();
            }
        });
    }

    /// The handle is gone.
    pub fn close_append(self: &Arc<Self>, appender: Arc<Appender>) {
        let this = Arc::clone(self);
        let end = move || {
            let closing = appender.held.lock().last_close;
            // How it ended nobody is left to be told; the log says it.
            let _ = this.finish_append(&appender, closing);
            this.store.sweep();
            this.tree.close(Arc::clone(&appender.file));
        };
        self.tree.workers.run(end);
    }

    fn settle_on_disk(&self, appender: &Appender) -> Result<(), Errno> {
        let mut held = appender.held.lock();
        if !held.unsynced || appender.policy.durability != Durability::Full {
            return Ok(());
        }
        self.sync_log(&held.log)?;
        held.unsynced = false;
        Ok(())
    }

    /// fsync(2): what others can see is on disk.
    ///
    /// # Errors
    /// EIO, ENOSPC, EDQUOT.
    pub fn sync_append(&self, appender: &Appender) -> Result<(), Errno> {
        let log = Arc::clone(&appender.held.lock().log);
        self.sync_log(&self.followed(log))
    }

    fn finish_append(&self, appender: &Appender, closing: Closing) -> Result<(), Errno> {
        let mut held = appender.held.lock();
        if !held.attached {
            return held.lost.map_or(Ok(()), Err);
        }
        held.log = self.followed(Arc::clone(&held.log));
        let result = if closing == Closing::Killed {
            self.counts.add(Counted::Killed);
            self.set_aside(&mut held, appender, RecoveredKind::Staged, KILLED);
            Ok(())
        } else if held.removed {
            self.set_aside(&mut held, appender, RecoveredKind::Staged, REMOVED);
            Ok(())
        } else {
            let published = self.publish_rest(&mut held, appender);
            self.tell_formers(&held.log.name(), News::Saved);
            published
        };
        let result = match held.unsynced && appender.policy.durability == Durability::Full {
            true => result.and(self.sync_log(&held.log)),
            false => result,
        };
        held.unsynced = false;
        self.let_go_of_log(&mut held);
        result
    }

    /// A handle that creates its file has finished a line: the file appears, and the handle goes on as one that appends. Nothing happens to a
    /// session that others share.
    ///
    /// # Errors
    /// Those of a publish; what was written is in `recovered/` then.
    pub fn promote(self: &Arc<Self>, number: u64, writer: &Writer) -> Result<(), Errno> {
        let session = writer.session();
        let ready = session.staged(|staged| {
            let intact = !staged.unlinked && staged.failed.is_none() && staged.refused.is_none();
            Ok((intact && staged.handles == 1).then(|| staged.processes.clone()))
        });
        let Ok(Some(processes)) = ready else { return Ok(()) };
        let Some(staged) = session.take() else { return Ok(()) };
        let tail = take_tail(&staged.shadow.file);
        self.finish_taken(Arc::clone(&session), staged, Ending::Closed);
        session.settle()?;
        let (tail, log) = (tail?, self.attach(self.logs.of(&session.name()))?);
        let appender = Appender {
            file: Arc::new(Ordinary {
                node: session.about.node,
                pin: Arc::clone(&session.pin),
            }),
            right: Right::new(session.about.caller, session.about.process, session.pin.fd()),
            who: session.about.who.clone(),
            since: session.since,
            name: session.name(),
            policy: session.about.policy.clone(),
            sync: false,
            held: Mutex::new(Held::new(log, processes, false)),
        };
        {
            let mut held = appender.held.lock();
            self.keep(&mut held, &appender, &tail, 0)?;
            held.tail = tail;
        }
        self.tree.handles.replace(number, Handle::Appender(Arc::new(appender)));
        Ok(())
    }

    /// ftruncate(2) of a handle that appends: a version of its own, as truncate(2) makes.
    pub fn truncate_appended(self: &Arc<Self>, caller: Caller, appender: &Appender, len: u64, answer: Answer<Stat>) {
        let Some(target) = self.target(appender.name.parent, &appender.name.name) else {
            return answer(Err(Errno::INVAL));
        };
        let in_hand = InHand::take(&self.files, &target.name);
        let file = in_hand.key();
        let claim = self.claim(caller, file, Intent::Truncate, false);
        let process = claim.opener.proc;
        let seen = appender.right.inode();
        let (this, truncated) = (Arc::clone(self), target.clone());
        let resume = move |granted: Result<Granted, Errno>| {
            let that = Arc::clone(&this);
            this.tree.workers.run(move || {
                answer(granted.and_then(|granted| {
                    let (Granted::New(id) | Granted::Join(id)) = granted;
                    let beginning = Beginning {
                        node: None,
                        how: How::Truncate,
                        truncate: len == 0,
                        seen,
                        ..first_of(id, file, ROOT, caller, process, None)
                    };
                    let session = that.begin(&truncated, beginning)?;
                    let done = that.truncate_now(&session, len);
                    that.tree.nodes.forget(session.about.node, 1);
                    done
                }));
            });
        };
        self.acquire(&target, claim, Box::new(resume));
    }

    fn let_go_of_log(&self, held: &mut Held) {
        held.attached = false;
        held.whole = false;
        self.detach(&held.log);
    }

    /// What was held back is the last thing the handle has to say.
    fn publish_rest(&self, held: &mut Held, appender: &Appender) -> Result<(), Errno> {
        let log = Arc::clone(&held.log);
        let committed = match (&held.kept, held.whole, held.tail.is_empty()) {
            (Some(kept), true, _) if held.kept_bytes > 0 => {
                self.commit_file((&log, &mut log.lock()), &kept.file, appender)
            }
            (_, false, false) => self.commit((&log, &mut log.lock()), &[&held.tail], appender),
            _ => {
                self.drop_kept(held);
                return Ok(());
            }
        };
        match committed {
            Ok(()) => {
                held.unsynced = true;
                held.tail.clear();
                self.drop_kept(held);
                // What the kernel told of was told when it was held back.
                if let Ok(path) = self.path_of(&log.name()) {
                    self.tree.tell_watchers(path, News::Modified);
                }
                Ok(())
            }
            Err(Errno::NOENT) => {
                self.set_aside(held, appender, RecoveredKind::Staged, REMOVED);
                Ok(())
            }
            Err(errno) => {
                self.counts.add(Counted::Failed);
                self.set_aside(
                    held,
                    appender,
                    RecoveredKind::Refused,
                    &format!("appending it failed: {errno}"),
                );
                Err(errno)
            }
        }
    }

    fn drop_kept(&self, held: &mut Held) {
        held.kept_bytes = 0;
        if let Some(kept) = held.kept.take()
            && let Err(error) = self.store.drop_unwritten(kept)
        {
            log::warn!("a shadow stays in .concord/shadows until the next start: {error}");
        }
    }

    /// What was held back goes to `recovered/`.
    fn set_aside(&self, held: &mut Held, appender: &Appender, kind: RecoveredKind, reason: &str) {
        held.tail.clear();
        held.kept_bytes = 0;
        let Some(kept) = held.kept.take() else { return };
        let name = appender.name.name.to_string_lossy();
        match self.store.discard(kept, kind, reason, nanos_now()) {
            Ok(Some(kept)) => log::warn!(
                "what {} began to append to {name} was not published: {reason}; it is kept in .concord/recovered/{kept}",
                described(&appender.who)
            ),
            Ok(None) => {}
            Err(error) => {
                log::error!("what was appended to {name} stays in .concord/shadows until the next start: {error}")
            }
        }
    }

    /// The mount goes away and does not wait: what is finished stays, the rest is set aside.
    pub(super) fn end_appenders(&self) {
        for appender in self.tree.handles.appenders() {
            let mut held = appender.held.lock();
            if held.attached {
                held.log = self.followed(Arc::clone(&held.log));
                self.set_aside(&mut held, &appender, RecoveredKind::Staged, FORCED);
                held.lost = Some(Errno::STALE);
                self.let_go_of_log(&mut held);
            }
        }
    }
}

/// Cuts off what follows the last newline of a file.
fn take_tail(file: &File) -> Result<Vec<u8>, Errno> {
    let length = rustix::fs::fstat(file)?.st_size.max(0) as u64;
    let from = length.saturating_sub(LINE_BYTES_MAX as u64);
    let end = super::staged::read_at(file.as_fd(), from, LINE_BYTES_MAX)?;
    let (_, tail) = lines::split(&end);
    rustix::fs::ftruncate(file, length - tail.len() as u64)?;
    Ok(tail.to_vec())
}
