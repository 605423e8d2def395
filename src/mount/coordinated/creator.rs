//! Who opens a file that somebody else is just creating, and does not mean to write a version of it: it waits for that (W9).

use std::sync::Arc;

use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;

use super::begin::Beginning;
use super::close::Ending;
use super::files::{Finds, Granted, InHand};
use super::permission::{self, LetIn};
use super::{Answer, Coordination, Creation, Target, Writer};
use crate::mount::attr;
use crate::mount::handles::{Handle, Ordinary};
use crate::mount::nodes::{Identity, Name, NodeId};
use crate::mount::pin;
use crate::mount::tree::Caller;
use crate::os::{proc, syscall};
use crate::session::{FileKey, Intent, ProcId, SessionId};
use crate::store::record::How;

/// Opens what its creator has left.
pub(super) type Found = Box<dyn FnOnce(&Arc<Coordination>, &Target) -> Result<Handle, Errno> + Send>;

impl Coordination {
    /// Whether a thread is back that came with O_CREAT to a name which is being created, and there is nothing yet.
    pub fn is_awaited(&self, caller: Caller, target: &Target) -> bool {
        let sent_round = {
            let mut files = self.files.lock();
            let key = files.key_of(&target.name);
            key.and_then(|key| files.reroute(caller.tid, key))
                .is_some_and(|reroute| reroute.creates.is_some())
        };
        sent_round && matches!(self.stat(&target.name), Err(Errno::NOENT))
    }

    /// What a thread is shown of a file that is not there, but may be when it opens the node that was made for it: one that it may open.
    ///
    /// # Errors
    /// Those of stat(2) of the directory.
    pub(super) fn stat_of_promise(
        &self,
        caller: Caller,
        parent: NodeId,
        creates: Option<Creation>,
    ) -> Result<Stat, Errno> {
        let mode = creates.map_or(0, |creation| creation.mode & !creation.umask & 0o777);
        let mut stat = self.tree.stat(parent)?;
        stat.st_mode = FileType::RegularFile.as_raw_mode() | mode | 0o600;
        (stat.st_uid, stat.st_gid) = (caller.uid, caller.gid);
        (stat.st_ino, stat.st_nlink, stat.st_size, stat.st_blocks) = (0, 1, 0, 0);
        Ok(stat)
    }

    /// [`Coordination::stat_of_promise`] of a node; ESTALE when it was made for nobody who is still on the way. Who is about to create the file walks again then, and
    /// must find a node of its own.
    pub fn stat_of_promised(&self, caller: Caller, node: NodeId) -> Result<Stat, Errno> {
        let creates = self.files.lock().creation_by(node);
        if creates.is_none()
            && let (Some(creation), Some(target)) =
                (asked(caller), self.target_of(node).or_else(|| self.departed_from(node)))
        {
            let in_hand = InHand::take(&self.files, &target.name);
            let names = self.names(node);
            let mut files = self.files.lock();
            files.send_round(caller.tid, (in_hand.key(), names), Finds::Own(None), Some(creation));
        }
        let creates = creates.ok_or(Errno::STALE)?;
        let info = self.tree.nodes.info(node).ok_or(Errno::STALE)?;
        let name = info.names.first().ok_or(Errno::STALE)?;
        self.stat_of_promise(caller, name.parent, creates)
    }

    /// open(2) with O_RDONLY and O_CREAT, as flock(1) does it, of a name that another process is creating.
    pub fn open_awaited(
        self: &Arc<Self>,
        caller: Caller,
        node: NodeId,
        target: Target,
        flags: OFlags,
        answer: Answer<Handle>,
    ) {
        let found = move |this: &Arc<Self>, found: &Target| {
            let opened = this.open_current(caller, node, found, rustix::fs::Access::READ_OK)?;
            Ok(Handle::Reader(this.reader(&opened, found.name.clone(), caller)))
        };
        self.await_creator(caller, node, target, flags, Box::new(found), answer);
    }

    /// Opens the current version by a node that was made for one thread, when nobody knew which version that would be.
    pub(super) fn open_current(
        &self,
        caller: Caller,
        node: NodeId,
        target: &Target,
        wanted: rustix::fs::Access,
    ) -> Result<Ordinary, Errno> {
        let pin = self.current_pin(&target.name)?;
        self.check_version(caller, (&target.name, pin.fd()), None, wanted)?;
        let file = Ordinary {
            node,
            pin,
            access: pin::Access::Read,
        };
        if self.tree.nodes.open_pin(node).is_none() {
            self.tree.nodes.set_open_pin(node, &file.pin);
            self.tree.attributes_changed(node);
        }
        self.adopt_node(node, &file, &target.name);
        Ok(file)
    }

    /// A node that was made for one thread is the current version's as any other is, now that this thread has it open.
    pub(super) fn adopt_node(&self, node: NodeId, file: &Ordinary, name: &Name) {
        if let (true, Ok(own), Ok(live)) = (
            self.tree.nodes.is_detached(node),
            rustix::fs::fstat(file.pin.fd()),
            self.stat(name),
        ) && attr::identity(&own, false) == attr::identity(&live, false)
        {
            self.tree.given_back(node, attr::identity(&own, false), Some(&file.pin));
        }
    }

    /// Whether a thread that was sent round would create the file, and must wait for who has the name though nothing is staged for it: rename(2) and link(2) of
    /// others that are on their way. It must find something by the name, or it would create it with the directory locked, which they need.
    pub(super) fn waits_to_create(&self, caller: Caller, file: FileKey) -> bool {
        let creates = {
            let mut files = self.files.lock();
            if files.queue.is_idle(file) {
                return false;
            }
            files.expects_creation(caller.tid, file)
        };
        creates || caller.tid != 0 && syscall::creates(caller.tid)
    }

    /// Whether a node stands for no more than a promise: no inode has the number 0.
    pub fn is_made_up(&self, node: NodeId) -> bool {
        self.tree.nodes.identity(node).is_some_and(|identity| identity.ino == 0)
    }

    /// Lets the node that was made for one thread stand for what has come, where that is not what the thread was shown: then nobody has checked yet that it may.
    fn show_own(
        &self,
        caller: Caller,
        (node, target): (NodeId, &Target),
        (now, seen): (Identity, Option<Identity>),
        wanted: rustix::fs::Access,
    ) -> Result<(), Errno> {
        if self.tree.nodes.identity(node) != Some(now) {
            let pin = self.current_pin(&target.name)?;
            self.check_version(caller, (&target.name, pin.fd()), seen, wanted)?;
            self.tree.given_back(node, now, None);
        }
        Ok(())
    }

    /// There is only a session that creates the file: its end is waited for, once. Whoever finds the file then opens it by `found`; otherwise it creates it.
    pub(super) fn await_creator(
        self: &Arc<Self>,
        caller: Caller,
        node: NodeId,
        target: Target,
        flags: OFlags,
        found: Found,
        answer: Answer<Handle>,
    ) {
        let in_hand = InHand::take(&self.files, &target.name);
        let file = in_hand.key();
        let seen = self.tree.nodes.identity(node);
        let Some(reroute) = self.arrived_on_own(caller, file, node) else {
            self.go_round(caller, (file, node), Finds::Own(None));
            return answer(Err(Errno::STALE));
        };
        // Never one more handle: a session of its own lineage that is there was unlinked.
        let claim = self.claim(caller, file, Intent::Truncate, flags.contains(OFlags::NONBLOCK));
        let process = claim.opener.proc;
        let this = Arc::clone(self);
        let awaited = target.clone();
        let resume = move |granted: Result<Granted, Errno>| {
            let Granted { id, waited, .. } = match granted {
                Ok(granted) => granted,
                Err(errno) => return answer(Err(errno)),
            };
            // What it was shown was a promise, or is gone.
            let seen = seen.filter(|_| !waited);
            if let Ok(now) = this.stat(&awaited.name) {
                let opened = this
                    .show_own(
                        caller,
                        (node, &awaited),
                        (attr::identity(&now, false), seen),
                        permission::wanted(flags),
                    )
                    .and_then(|()| found(&this, &awaited));
                this.release(id, file);
                return answer(opened);
            }
            let beginning = Beginning {
                let_in: LetIn::since(seen, None, waited),
                ..first_of(id, file, node, caller, process, reroute.creates)
            };
            let session = match this.begin(&awaited, beginning) {
                Ok(session) if !session.creates() => session,
                begun => {
                    return answer(begun.map(|session| Handle::Writer(Arc::new(Writer::creating(session, flags)))));
                }
            };
            // The caller's own lineage, for which it does not wait (W3), has published it just now.
            let that = Arc::clone(&this);
            this.tree.workers.run(move || {
                let ended = that.end_now(&session, Ending::Closed);
                drop(session);
                answer(ended.and_then(|()| found(&that, &awaited)));
            });
        };
        self.acquire(&target, claim, Box::new(resume));
    }
}

/// What open(2) asked for that has found a file, and after its wait finds nothing: the kernel tells of O_CREAT only where it found nothing itself, but the
/// thread is still in its system call. Whether it may create here is seen when the file is made, as the caller.
pub(super) fn asked(caller: Caller) -> Option<Creation> {
    let (mode, umask) = proc::creation(caller.tid).filter(|_| caller.tid != 0)?;
    Some(Creation {
        mode: FileType::RegularFile.as_raw_mode() | mode,
        umask,
    })
}

/// A session that finds nothing there, or is made for one change.
pub(super) fn first_of(
    id: SessionId,
    file: FileKey,
    node: NodeId,
    caller: Caller,
    process: ProcId,
    creates: Option<Creation>,
) -> Beginning {
    Beginning {
        id,
        file,
        node: Some(node),
        caller,
        process,
        how: How::Close,
        truncate: false,
        creates,
        like: None,
        dressed_as: None,
        own_node: true,
        let_in: LetIn::Unknown,
        wanted: rustix::fs::Access::WRITE_OK,
    }
}
