//! One writer's stay: what it has staged, who has it open, and how it ends. What is done to its shadow is in `session/shadow.rs`.

mod shadow;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::fs::Stat;
use rustix::io::Errno;

use super::permission::Rights;
use super::staged::{Fresh, Staged};
use crate::mount::nodes::{Name, NodeId};
use crate::mount::pin::Pin;
use crate::mount::tree::Caller;
use crate::rules::Policy;
use crate::session::{FileKey, ProcId, SessionId};
use crate::store::record::{How, Who};
use crate::store::{RealDisk, Seen, Shadow, Store};

/// The store of a mount.
pub type RealStore = Store<RealDisk>;

/// Answers a request whose reply waits for the end of the session.
pub type EndReply = Box<dyn FnOnce(Result<(), Errno>) + Send>;

/// What is settled when a session begins.
#[derive(Debug, Clone)]
pub struct About {
    /// Its number; the queue knows it by the same.
    pub id: SessionId,
    /// The node that stands for its shadow.
    pub node: NodeId,
    /// The process that opened it.
    pub process: ProcId,
    /// The same, for the permissions that it has.
    pub caller: Caller,
    /// By what it was let in; root has none.
    pub rights: Option<Rights>,
    /// For the record.
    pub who: Who,
    /// How its version will have come.
    pub how: How,
    /// The rules that it began under.
    pub policy: Policy,
}

/// What a node stands for that handles go on with: one for all sessions that were ever on the node at the same time.
type LeftBehind = Arc<Mutex<Option<Arc<Pin>>>>;

/// A session that has a shadow.
pub struct Session {
    /// What does not change.
    pub about: About,
    /// When it began.
    pub since: Instant,
    /// There is no file but its shadow.
    creates: AtomicBool,
    /// Holds the shadow's inode; the handles of its node share it. Changed under `stage`.
    pin: Mutex<Arc<Pin>>,
    /// In what the handles go on that have outlived it.
    pub(super) continued: Mutex<Option<Arc<Session>>>,
    name: Mutex<Name>,
    /// Changed while the table of files is locked.
    file: Mutex<FileKey>,
    /// They go on with its descriptor, and who opened it may be gone: see [`Session::inherit`].
    heirs: Mutex<Vec<ProcId>>,
    /// Its end was not its handles' end: each begins another session with its next lock or write (flock.rs).
    resumable: AtomicBool,
    /// Its node stands for a version too, which others have open through this pin.
    shared: OnceLock<Arc<Pin>>,
    /// What its node stands for since it was given up, or another session that was on the node. Its handles have the node open still: nobody else may take it over.
    left_behind: Mutex<LeftBehind>,
    /// Never held over what waits for the disk: see [`Session::apart`].
    stage: Mutex<Stage>,
    /// Another stage has come, or a shadow that was busy is not any more.
    settled: Condvar,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "session {} of {:?}", self.about.id.0, self.about.process)
    }
}

/// A larger base is copied on a worker thread, so that the few threads which read requests stay free.
const COPY_AT_ONCE_BYTES_MAX: u64 = 1 << 20;

/// Whether a session can be written to, seen from outside.
pub enum Life {
    /// It can.
    Open,
    /// It is over. A handle that lives on continues from this content, of this version.
    Done(Arc<std::fs::File>, Option<Seen>),
}

/// Where a session is in its life.
enum Stage {
    /// It can be written to.
    Open(Box<Staged>),
    /// Its end is being carried out.
    Ending {
        /// These wait for it.
        waiting: Vec<EndReply>,
        /// What its handles see meanwhile.
        content: Arc<std::fs::File>,
        /// Its lineage sees it under the file's name.
        shown: bool,
    },
    /// It is over.
    Over(Outcome),
}

/// How a session ended.
#[derive(Debug)]
pub enum Outcome {
    /// Published, or there was nothing to publish. A handle that lives on continues from this content.
    Done {
        /// What its handles see since.
        content: Arc<std::fs::File>,
        /// Its version.
        version: Option<Seen>,
    },
    /// Not published; this is what every later use is told.
    Lost(Errno),
}

impl Session {
    /// A session that is open.
    pub fn new(about: About, (name, file): (Name, FileKey), pin: Arc<Pin>, staged: Staged) -> Session {
        Session {
            about,
            since: Instant::now(),
            creates: AtomicBool::new(staged.base.is_none()),
            pin: Mutex::new(pin),
            continued: Mutex::default(),
            name: Mutex::new(name),
            file: Mutex::new(file),
            heirs: Mutex::default(),
            resumable: AtomicBool::new(false),
            shared: OnceLock::new(),
            left_behind: Mutex::default(),
            stage: Mutex::new(Stage::Open(Box::new(staged))),
            settled: Condvar::new(),
        }
    }

    /// Whether there was no file when it began, nor is one now, and its shadow is to become one.
    pub fn creates(&self) -> bool {
        self.creates.load(Ordering::Acquire)
    }

    /// What holds the shadow's inode.
    pub fn pin(&self) -> Arc<Pin> {
        Arc::clone(&self.pin.lock())
    }

    /// The name that it will be published to.
    pub fn name(&self) -> Name {
        self.name.lock().clone()
    }

    /// Its file was renamed.
    pub fn set_name(&self, name: Name) {
        *self.name.lock() = name;
    }

    /// The file that it writes, to the queue.
    pub fn file(&self) -> FileKey {
        *self.file.lock()
    }

    /// It goes on as one of another: [`Files::move_sessions`](super::files::Files::move_sessions).
    pub fn set_file(&self, file: FileKey) {
        *self.file.lock() = file;
    }

    /// Whether this process holds it: it opened it, or was seen to go on with it.
    pub fn is_held_by(&self, process: &ProcId) -> bool {
        self.about.process == *process || self.heirs.lock().contains(process)
    }

    /// Those who hold it besides its opener.
    pub fn heirs(&self) -> Vec<ProcId> {
        self.heirs.lock().clone()
    }

    /// These have a descriptor of it that they were given by an ancestor: they hold it from now on. Returns those that did not before.
    pub fn inherit(&self, heirs: impl IntoIterator<Item = ProcId>) -> Vec<ProcId> {
        let mut new: Vec<ProcId> = Vec::new();
        for heir in heirs {
            if heir.is_known() && !self.is_held_by(&heir) && !new.contains(&heir) {
                new.push(heir);
            }
        }
        self.heirs.lock().extend(&new);
        let _ = self.staged(|staged| {
            let unknown = new.iter().filter(|heir| !staged.processes.contains(&heir.tgid));
            let unknown: Vec<u32> = unknown.map(|heir| heir.tgid).collect();
            staged.processes.extend(unknown);
            Ok(())
        });
        new
    }

    /// Its file has no name any more. As on any filesystem: what is written to it goes with it.
    ///
    /// # Errors
    /// As [`Session::staged`].
    pub fn lose_name(&self) -> Result<(), Errno> {
        self.staged(|staged| {
            staged.unlinked = true;
            self.creates.store(false, Ordering::Release);
            Ok(())
        })
    }

    /// Whether it has lost its name.
    pub fn is_unlinked(&self) -> bool {
        matches!(&*self.stage.lock(), Stage::Open(staged) if staged.unlinked)
    }

    /// The queue does not know it, and nobody waits for it: the continuation of a session that has ended.
    pub fn is_late(&self) -> bool {
        self.about.how == How::Late
    }

    /// What each later use is told, if it was not published.
    pub fn lost(&self) -> Option<Errno> {
        match &*self.stage.lock() {
            Stage::Over(Outcome::Lost(errno)) => Some(*errno),
            _ => None,
        }
    }

    /// The version that it became, once it has.
    pub fn version(&self) -> Option<u64> {
        match &*self.stage.lock() {
            Stage::Over(Outcome::Done { version, .. }) => version.as_ref().map(|seen| seen.version),
            _ => None,
        }
    }

    /// Takes what is staged in order to end the session; `None` when that is under way or done.
    pub fn take(&self) -> Option<Staged> {
        self.take_if(|_| true)
    }

    /// The same, if each of its handles was closed, as far as that can be told from closes: one may have been opened just now.
    pub fn take_closed(&self) -> Option<Staged> {
        self.take_if(|staged| staged.unclosed == 0)
    }

    /// The same, if it has no handle.
    pub fn take_left(&self) -> Option<Staged> {
        self.take_if(|staged| staged.handles == 0)
    }

    /// The same, if there is nothing in it to publish.
    pub fn take_unchanged(&self) -> Option<Staged> {
        self.take_if(|staged| !staged.matters() && !staged.unlinked)
    }

    /// The same, if it was opened only, and the queue knows it.
    pub fn take_unused(&self) -> Option<Staged> {
        self.take_if(|staged| staged.is_unused() && !self.is_late())
    }

    /// The same, if nothing was written to it.
    pub fn take_untouched(&self) -> Option<Staged> {
        self.take_if(|staged| staged.only_opened && !staged.unlinked)
    }

    fn take_if(&self, is_wanted: impl Fn(&Staged) -> bool) -> Option<Staged> {
        let mut stage = self.lock_idle();
        let Stage::Open(staged) = &*stage else { return None };
        if !is_wanted(staged) {
            return None;
        }
        let ending = Stage::Ending {
            waiting: Vec::new(),
            content: Arc::clone(staged.content()),
            shown: staged.filled && !staged.unlinked,
        };
        match std::mem::replace(&mut *stage, ending) {
            Stage::Open(staged) => Some(*staged),
            Stage::Ending { .. } | Stage::Over(_) => None,
        }
    }

    /// What its handles see once it can not be written to any more; `None` when it was lost.
    pub fn left(&self) -> Option<Arc<std::fs::File>> {
        self.left_bytes().map(|(content, _)| content)
    }

    /// The same, and how much of it: lines may have been appended to the base since the session began.
    pub fn left_bytes(&self) -> Option<(Arc<std::fs::File>, u64)> {
        match &*self.stage.lock() {
            Stage::Open(staged) => {
                let bytes = if staged.filled { u64::MAX } else { staged.base_len };
                Some((Arc::clone(staged.content()), bytes))
            }
            Stage::Ending { content, .. } | Stage::Over(Outcome::Done { content, .. }) => {
                Some((Arc::clone(content), u64::MAX))
            }
            Stage::Over(Outcome::Lost(_)) => None,
        }
    }

    /// What fstat(2) on its node shows.
    ///
    /// # Errors
    /// Those of fstat(2), and ESTALE once it is over: then the node is a version's again.
    pub fn stat(&self) -> Result<Stat, Errno> {
        match &*self.stage.lock() {
            Stage::Open(staged) => staged.stat(),
            Stage::Ending { content, .. } => rustix::fs::fstat(content),
            Stage::Over(_) => Err(Errno::STALE),
        }
    }

    /// What its lineage finds under the file's name: the shadow, until it is the current version. `None`: what everybody finds.
    pub fn shown(&self) -> Option<Stat> {
        match &*self.stage.lock() {
            Stage::Open(staged) if !staged.unlinked => staged.stat().ok(),
            Stage::Ending { shown: true, .. } => rustix::fs::fstat(self.pin().fd()).ok(),
            Stage::Open(_) | Stage::Ending { .. } | Stage::Over(_) => None,
        }
    }

    /// What it staged is a version, and its name leads to that: it shows no more than the name does.
    pub fn appeared(&self) {
        if let Stage::Ending { shown, .. } = &mut *self.stage.lock() {
            *shown = false;
        }
    }

    /// Makes the shadow's inode hold what the session shows, for those who read it by the inode, which is returned. `None`: it shows nothing.
    ///
    /// # Errors
    /// As [`Session::fill`].
    pub fn show(&self, store: &RealStore) -> Result<Option<Arc<Pin>>, Errno> {
        loop {
            let filled = self.fill_after(store, |staged| staged.looked_at = true);
            match &*self.stage.lock() {
                Stage::Open(staged) => match filled {
                    Ok(()) if staged.filled => return Ok(Some(self.pin())),
                    // It was begun anew meanwhile.
                    Ok(()) => {}
                    Err(errno) => return Err(errno),
                },
                Stage::Ending { shown, .. } => return Ok(shown.then(|| self.pin())),
                Stage::Over(_) => return Ok(filled.is_ok().then(|| self.pin())),
            }
        }
    }

    /// Nothing was written to it yet, and it is open: what it is based on, and since which version.
    pub fn untouched(&self) -> Option<(Option<Arc<std::fs::File>>, Option<Seen>)> {
        match &*self.stage.lock() {
            Stage::Open(staged) if staged.only_opened && !staged.unlinked => {
                Some((staged.base.clone(), staged.shadow.based_on.clone()))
            }
            _ => None,
        }
    }

    /// Starts anew from `fresh`, if nothing was written to it yet. Returns whether it does, and the shadow that is not needed.
    pub fn renew(&self, fresh: Fresh, pin: Arc<Pin>) -> (bool, Shadow<RealDisk>) {
        let mut stage = self.lock_idle();
        match &mut *stage {
            Stage::Open(staged) if staged.only_opened && !staged.unlinked => {
                *self.pin.lock() = pin;
                self.creates.store(false, Ordering::Release);
                (true, staged.start_from(fresh))
            }
            _ => (false, fresh.shadow),
        }
    }

    /// The version that it started from.
    pub fn started_from(&self) -> Option<Arc<std::fs::File>> {
        match &*self.stage.lock() {
            Stage::Open(staged) => staged.base.clone(),
            _ => None,
        }
    }

    /// Its handles outlive it and go on with another session.
    pub fn set_resumable(&self) {
        self.resumable.store(true, Ordering::Release);
    }

    /// Whether it ended, or is about to end, before its handles.
    pub fn is_resumable(&self) -> bool {
        self.resumable.load(Ordering::Acquire)
    }

    /// Others have its node open, for the version that it stood for.
    pub fn share_node(&self, others: Option<Arc<Pin>>) {
        if let Some(pin) = others {
            let _ = self.shared.set(pin);
        }
    }

    /// Its handles go on with the node of `old`, which other handles of that may have as well.
    pub fn stay_with(&self, old: &Session) {
        *self.left_behind.lock() = Arc::clone(&old.left_behind.lock());
    }

    /// Whether handles keep its node when it is over: its own, which go on with another session, or those of another that was on the node.
    pub fn leaves_handles(&self) -> bool {
        self.is_resumable() || Arc::strong_count(&self.left_behind.lock()) > 1
    }

    /// Handles keep its node, which stands for this from now on.
    pub fn leave_behind(&self, pin: &Arc<Pin>) {
        *self.left_behind.lock().lock() = Some(Arc::clone(pin));
    }

    /// What its node stands for, since it was given up.
    pub fn left_behind(&self) -> Option<Arc<Pin>> {
        self.left_behind.lock().lock().clone()
    }

    /// What others than its lineage have open by its node.
    pub fn shared(&self) -> Option<&Arc<Pin>> {
        self.shared.get()
    }

    /// `reply` is told how the session ended, as soon as it has.
    pub fn on_end(&self, reply: EndReply) {
        let outcome = match &mut *self.stage.lock() {
            Stage::Ending { waiting, .. } => {
                waiting.push(reply);
                return;
            }
            Stage::Open(_) => Ok(()),
            Stage::Over(Outcome::Done { .. }) => Ok(()),
            Stage::Over(Outcome::Lost(errno)) => Err(*errno),
        };
        reply(outcome);
    }

    /// The session is over; returns those who waited for that.
    pub fn end(&self, outcome: Outcome) -> Vec<EndReply> {
        let before = std::mem::replace(&mut *self.stage.lock(), Stage::Over(outcome));
        self.settled.notify_all();
        match before {
            Stage::Ending { waiting, .. } => waiting,
            Stage::Open(_) | Stage::Over(_) => Vec::new(),
        }
    }

    /// Waits until the session is not just ending. Only for worker threads.
    ///
    /// # Errors
    /// Those of a session that was lost.
    pub fn settle(&self) -> Result<Life, Errno> {
        let mut stage = self.stage.lock();
        loop {
            match &*stage {
                Stage::Open(_) => return Ok(Life::Open),
                Stage::Over(Outcome::Lost(errno)) => return Err(*errno),
                Stage::Over(Outcome::Done { content, version }) => {
                    return Ok(Life::Done(content.clone(), version.clone()));
                }
                Stage::Ending { .. } => self.settled.wait(&mut stage),
            }
        }
    }

    /// Runs `act`, which keeps the books, on what is staged. It does not wait, and neither may `act`.
    ///
    /// # Errors
    /// EBUSY while the session is being published, ESTALE when it was discarded; the caller continues one that is [`Outcome::Done`].
    pub fn staged<T>(&self, act: impl FnOnce(&mut Staged) -> Result<T, Errno>) -> Result<T, Errno> {
        act(self.stage.lock().open()?)
    }

    /// Runs `act`, which changes the shadow, after what is busy with it.
    ///
    /// # Errors
    /// As [`Session::staged`].
    pub fn change<T>(&self, act: impl FnOnce(&mut Staged) -> Result<T, Errno>) -> Result<T, Errno> {
        act(self.lock_idle().open()?)
    }

    fn lock_idle(&self) -> MutexGuard<'_, Stage> {
        let mut stage = self.stage.lock();
        while matches!(&*stage, Stage::Open(staged) if staged.busy) {
            self.settled.wait(&mut stage);
        }
        stage
    }

    /// One more handle, opened by `process`.
    ///
    /// # Errors
    /// As [`Session::staged`], and ESTALE when its name was removed: who opens the name now means another file.
    pub fn join(&self, process: ProcId) -> Result<(), Errno> {
        self.staged(|staged| {
            if staged.unlinked {
                return Err(Errno::STALE);
            }
            staged.handles += 1;
            staged.unclosed += 1;
            staged.opened += 1;
            staged.note_look();
            if !staged.processes.contains(&process.tgid) {
                staged.processes.push(process.tgid);
            }
            Ok(())
        })
    }

    /// Whether a write can be served at once: nothing large has to be copied first, and nothing waited for, neither the end of the session
    /// nor a copy or an fsync(2) that another thread has under way.
    pub fn is_quick(&self) -> bool {
        matches!(&*self.stage.lock(), Stage::Open(staged) if !staged.busy && staged.to_copy() <= COPY_AT_ONCE_BYTES_MAX)
    }

    /// Whether it still can be written to.
    pub fn is_open(&self) -> bool {
        matches!(&*self.stage.lock(), Stage::Open(_))
    }
}

impl Stage {
    fn open(&mut self) -> Result<&mut Staged, Errno> {
        match self {
            Stage::Open(staged) => Ok(staged),
            Stage::Ending { .. } => Err(Errno::BUSY),
            Stage::Over(Outcome::Lost(errno)) => Err(*errno),
            Stage::Over(Outcome::Done { .. }) => Err(Errno::STALE),
        }
    }
}
