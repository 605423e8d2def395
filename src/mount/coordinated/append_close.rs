//! The end of a handle that appends (W10): which close was the last, and what becomes of what it has held back.

use std::sync::Arc;

use rustix::io::Errno;

use super::append::{Appender, Held};
use super::append_grow::Placed;
use super::append_log::Log;
use super::session::EndReply;
use super::{Coordination, Counted, caller, described, nanos_now};
use crate::mount::notices::News;
use crate::mount::tree::Caller;
use crate::os::proc::{self, Closing};
use crate::rules::{Append, Durability};
use crate::store::record::RecoveredKind;

const KILLED: &str = "its writer was killed before it finished the line";
const REMOVED: &str =
    "its file was removed while it was appended to, or replaced by one that its writer may not write to";
const FORCED: &str = "the mount was taken away by force before the line was finished";

impl Coordination {
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
            let goes_on = |processes: Vec<u32>| !process.is_known() || appender.is_held(&this, process, &processes);
            if processes.is_none_or(goes_on) {
                reply(this.settle_on_disk(&appender));
            } else {
                reply(this.finish_append(&appender));
                this.store.tidy();
            }
        });
    }

    /// The handle is gone.
    pub fn close_append(self: &Arc<Self>, appender: Arc<Appender>) {
        let this = Arc::clone(self);
        let end = move || {
            // How it ended nobody is left to be told; the log says it.
            let _ = this.finish_append(&appender);
            this.store.tidy();
            this.tree.close(Arc::clone(&appender.file));
        };
        self.tree.workers.run(end);
    }

    fn settle_on_disk(&self, appender: &Appender) -> Result<(), Errno> {
        let mut held = appender.held.lock();
        if !held.unsynced || appender.policy.durability != Durability::Full {
            return Ok(());
        }
        self.sync_log(&mut held.log)?;
        held.unsynced = false;
        Ok(())
    }

    /// The last close of the handle, as far as is known, was its last one.
    ///
    /// # Errors
    /// As [`Coordination::publish_held`].
    pub(super) fn finish_append(&self, appender: &Appender) -> Result<(), Errno> {
        let mut held = appender.held.lock();
        if !held.attached {
            return held.lost.map_or(Ok(()), Err);
        }
        let result = if held.last_close == Closing::Killed {
            self.counts.add(Counted::Killed);
            self.set_aside(&mut held, appender, RecoveredKind::Staged, KILLED);
            self.sync_rest(&mut held, appender)
        } else {
            self.say_rest(&mut held, appender)
        };
        self.let_go_of_log(&mut held);
        result
    }

    /// The handle lets go of a lock (W12): what it has held back is everybody's then, as after its close, and it goes on.
    ///
    /// # Errors
    /// ENOSPC, EDQUOT, EFBIG, EIO: what was held back is in `recovered/`.
    pub(super) fn publish_held(&self, appender: &Appender) -> Result<(), Errno> {
        let mut held = appender.held.lock();
        // Of a file that is gone nobody sees the end; its close says what becomes of that.
        if !held.attached || held.removed {
            return Ok(());
        }
        let result = self.say_rest(&mut held, appender);
        held.whole = held.removed || appender.policy.append == Append::Close;
        result
    }

    fn say_rest(&self, held: &mut Held, appender: &Appender) -> Result<(), Errno> {
        let said = if held.removed {
            self.set_aside(held, appender, RecoveredKind::Staged, REMOVED);
            Ok(())
        } else {
            let published = self.publish_rest(held, appender);
            if let Some(overtaken) = appender.overtaken.lock().take() {
                let tree = Arc::clone(&self.tree);
                self.tree.workers.run(move || overtaken.tell(&tree));
            }
            self.tell_formers(&held.log.name(), News::Saved);
            published
        };
        said.and(self.sync_rest(held, appender))
    }

    fn sync_rest(&self, held: &mut Held, appender: &Appender) -> Result<(), Errno> {
        // What tells recovery how far the lines are good goes with the last handle: then they are on disk, also where their length need not be.
        let waits = held.unsynced && appender.policy.durability != Durability::Fast;
        held.unsynced = false;
        if waits { self.sync_log(&mut held.log) } else { Ok(()) }
    }

    fn let_go_of_log(&self, held: &mut Held) {
        held.attached = false;
        held.whole = false;
        self.detach(&mut held.log);
    }

    /// What was held back is the last thing the handle has to say.
    fn publish_rest(&self, held: &mut Held, appender: &Appender) -> Result<(), Errno> {
        let log = &mut held.log;
        let by = (appender, held.clears);
        let committed = match (&held.kept, held.whole, held.tail.is_empty()) {
            (Some(kept), true, _) if held.kept_bytes > 0 => {
                Log::with(log, |log, state| self.commit_file((log, state), &kept.file, by))
            }
            (_, false, false) => Log::with(log, |log, state| self.commit((log, state), &[&held.tail], by)),
            _ => {
                self.drop_kept(held);
                return Ok(());
            }
        };
        match committed {
            Ok(Placed::There) => {
                held.unsynced = true;
                held.clears = None;
                held.tail.clear();
                self.drop_kept(held);
                // What the kernel told of was told when it was held back.
                if let Ok(path) = self.path_of(&held.log.name()) {
                    self.tree.tell_watchers(path, News::Modified);
                }
                Ok(())
            }
            Ok(Placed::Nowhere) => {
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

    /// Forgets what a handle has held back, if that is still the same number of bytes: it was cut off.
    pub(super) fn drop_held(&self, appender: &Appender, bytes: u64) {
        let mut held = appender.held.lock();
        if bytes > 0 && held.kept_bytes == bytes {
            held.tail.clear();
            self.drop_kept(&mut held);
            held.whole = held.removed || appender.policy.append == Append::Close;
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

    /// What was held back could not be synced, and may be torn: it is never published.
    pub(super) fn lose_held(&self, appender: &Appender, errno: Errno) {
        let mut held = appender.held.lock();
        if held.attached {
            self.counts.add(Counted::Failed);
            let reason = format!("syncing it failed: {errno}");
            self.set_aside(&mut held, appender, RecoveredKind::Refused, &reason);
            held.lost = Some(errno);
            self.let_go_of_log(&mut held);
        }
    }

    /// The mount goes away and does not wait: what is finished stays, the rest is set aside.
    pub(super) fn end_appenders(&self) {
        for appender in self.tree.handles.appenders() {
            let mut held = appender.held.lock();
            if held.attached {
                self.set_aside(&mut held, &appender, RecoveredKind::Staged, FORCED);
                held.lost = Some(Errno::STALE);
                self.let_go_of_log(&mut held);
            }
        }
    }
}
