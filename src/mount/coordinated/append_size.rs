//! How long the file of a handle that appends is: fstat(2), ftruncate(2), fallocate(2).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, Stat};
use rustix::io::Errno;

use super::append::Appender;
use super::append_bytes::end_of;
use super::append_log::{Live, Log};
use super::begin::Beginning;
use super::creator::first_of;
use super::files::{Granted, InHand, Need};
use super::permission::LetIn;
use super::{Answer, Coordination, Target};
use crate::mount::attr;
use crate::mount::nodes::{Name, NodeId, ROOT};
use crate::mount::tree::Caller;
use crate::session::Intent;
use crate::store::record::How;

/// Which file a handle appends to now.
enum Appended {
    /// The current version of a name.
    Named(Name, Option<Arc<File>>),
    /// One that has no coordinated name any more.
    Departed(Arc<File>),
    /// One that was removed.
    Gone,
}

impl Coordination {
    fn appended(&self, appender: &Appender) -> Appended {
        let mut held = appender.held.lock();
        Log::with(&mut held.log, |_, state| match &state.live {
            Live::Open(current) => Appended::Named(state.name.clone(), Some(Arc::clone(&current.file))),
            Live::Idle | Live::Moved(_) => Appended::Named(state.name.clone(), None),
            Live::Departed(file) => Appended::Departed(Arc::clone(file)),
            Live::Gone => Appended::Gone,
        })
    }

    /// ftruncate(2) of a handle that appends: a version of its own, as truncate(2) makes.
    pub fn truncate_appended(
        self: &Arc<Self>,
        caller: Caller,
        appender: Arc<Appender>,
        len: u64,
        answer: Answer<Stat>,
    ) {
        let this = Arc::clone(self);
        self.tree.workers.run(move || {
            let going = match this.before_truncation(&appender, len) {
                Ok(going) => going,
                Err(errno) => return answer(Err(errno)),
            };
            let (that, handle) = (Arc::clone(&this), Arc::clone(&appender));
            let done = move |truncated: Result<Stat, Errno>| {
                if truncated.is_ok() {
                    that.drop_held(&handle, going);
                }
                answer(truncated);
            };
            this.truncate_appended_file(caller, &appender, len, Box::new(done));
        });
    }

    /// What a handle has held back is, to it, the end of its file: it goes with what is cut off, and returned is how many bytes that are. Where something of it
    /// stays it is published first.
    fn before_truncation(&self, appender: &Appender, len: u64) -> Result<u64, Errno> {
        let held = appender.held_bytes();
        if held == 0 {
            return Ok(0);
        }
        let seen = match self.appended(appender) {
            Appended::Named(_, Some(file)) | Appended::Departed(file) => end_of(&file)?,
            Appended::Named(name, None) => end_of(&self.live_of(&name)?)?,
            Appended::Gone => return Ok(0),
        };
        if len <= seen {
            return Ok(held);
        }
        self.publish_held(appender).map(|()| 0)
    }

    fn truncate_appended_file(self: &Arc<Self>, caller: Caller, appender: &Appender, len: u64, answer: Answer<Stat>) {
        let this = Arc::clone(self);
        match self.appended(appender) {
            Appended::Named(name, _) => match this.target(name.parent, &name.name) {
                Some(target) => this.truncate_to(caller, appender, target, len, answer),
                None => answer(Err(Errno::INVAL)),
            },
            Appended::Departed(file) => {
                let cut = caller.changes(&*file, || rustix::fs::ftruncate(&file, len));
                answer(cut.and_then(|()| rustix::fs::fstat(&file)));
            }
            // What is written to it is kept, and nobody reads it.
            Appended::Gone => answer(rustix::fs::fstat(appender.file.pin.fd())),
        }
    }

    fn truncate_to(
        self: &Arc<Self>,
        caller: Caller,
        appender: &Appender,
        target: Target,
        len: u64,
        answer: Answer<Stat>,
    ) {
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
                    let Granted { id, .. } = granted;
                    let beginning = Beginning {
                        node: None,
                        how: How::Truncate,
                        truncate: len == 0,
                        let_in: LetIn::since(seen, None, false),
                        ..first_of(id, file, ROOT, caller, process, None)
                    };
                    let session = that.begin(&truncated, beginning)?;
                    let done = that.truncate_now(&session, len);
                    that.tree.nodes.forget(session.about.node, 1);
                    done
                }));
            });
        };
        self.acquire_for(Need::Change, &target, claim, Box::new(resume));
    }

    /// fallocate(2) of (offset, length) of a handle that appends. What is in the file is others' lines, and stays as it is: EOPNOTSUPP for the modes that change it.
    pub fn allocate_appended(
        self: &Arc<Self>,
        caller: Caller,
        appender: Arc<Appender>,
        (offset, length): (u64, u64),
        mode: i32,
        answer: Answer<()>,
    ) {
        let mode = FallocateFlags::from_bits_retain(mode as u32);
        if !(mode - FallocateFlags::KEEP_SIZE).is_empty() {
            return answer(Err(Errno::OPNOTSUPP));
        }
        let this = Arc::clone(self);
        self.tree.workers.run(move || {
            let reserve =
                move |file: &File, mode| caller.changes(file, || rustix::fs::fallocate(file, mode, offset, length));
            let file = match this.appended(&appender) {
                Appended::Named(_, Some(file)) => file,
                Appended::Departed(file) => return answer(reserve(&file, mode)),
                Appended::Named(_, None) | Appended::Gone => return answer(Ok(())),
            };
            let end = offset.saturating_add(length);
            // What it holds back lies in the room that it makes.
            if !mode.contains(FallocateFlags::KEEP_SIZE)
                && let Err(errno) = this.publish_held(&appender)
            {
                return answer(Err(errno));
            }
            if mode.contains(FallocateFlags::KEEP_SIZE) || end_of(&file).is_ok_and(|size| end <= size) {
                return answer(reserve(&file, FallocateFlags::KEEP_SIZE));
            }
            // It grows, and that is a version.
            let (that, grown) = (Arc::clone(&this), Arc::clone(&appender));
            let reserved = move |truncated: Result<Stat, Errno>| {
                answer(truncated.and_then(|_| match that.appended(&grown) {
                    Appended::Named(_, Some(file)) => reserve(&file, FallocateFlags::KEEP_SIZE),
                    _ => Ok(()),
                }));
            };
            this.truncate_appended(caller, appender, end, Box::new(reserved));
        });
    }

    /// fstat(2) by who appends by a node whose file was replaced: the file that its lines go to, where no other handle goes by that node. As for a reader that has
    /// moved on. The same for who tells watchers, because the kernel counts the position of a write that appends from the size that anybody was told last.
    pub fn stat_of_appender(&self, caller: Caller, node: NodeId) -> Option<Stat> {
        let appenders = self.appenders_elsewhere(node);
        let first = appenders.first()?;
        if !self.tree.is_teller(caller.tid) && !first.is_of_lineage(caller) {
            return None;
        }
        // Each of them holds the node's inode, and so would a reader.
        if Arc::strong_count(&first.file.pin) > appenders.len() {
            return None;
        }
        let held = first.held.try_lock()?;
        let mut stat = held.log.stat()?;
        // To the kernel the node's.
        stat.st_nlink = self.tree.nodes.links(node, stat.st_nlink);
        Some(stat)
    }

    /// What a change of owner, mode or times is made to, where who appends asks for it by a descriptor of a node whose file was replaced: the file that its lines go to.
    pub fn appended_by_descriptor(&self, caller: Caller, node: NodeId) -> Option<Arc<Appender>> {
        let appenders = self.appenders_elsewhere(node);
        let own = appenders.into_iter().find(|appender| appender.is_of_lineage(caller))?;
        (!self.walks_again(caller)).then_some(own)
    }

    /// chmod(2), chown(2) or utimensat(2) of the file that a handle appends to. Only for worker threads.
    ///
    /// # Errors
    /// Those of fstat(2), and of `change`.
    pub fn change_appended(
        &self,
        caller: Caller,
        appender: &Appender,
        change: impl FnOnce(BorrowedFd<'_>) -> Result<(), Errno>,
    ) -> Result<Stat, Errno> {
        // Nobody publishes meanwhile.
        let _turn = match self.appended(appender) {
            Appended::Named(name, _) => Some(self.turns.take(&[&name])),
            Appended::Departed(_) | Appended::Gone => None,
        };
        let file = match self.appended(appender) {
            Appended::Named(_, Some(file)) | Appended::Departed(file) => file,
            Appended::Named(name, None) => Arc::new(self.live_of(&name)?),
            Appended::Gone => return rustix::fs::fstat(appender.file.pin.fd()),
        };
        // The kernel has asked the owner of what was opened.
        let opened = rustix::fs::fstat(appender.file.pin.fd())?;
        if caller.uid != 0 && opened.st_uid != rustix::fs::fstat(&file)?.st_uid {
            return Err(Errno::PERM);
        }
        change(file.as_fd())?;
        self.follow_times(&file)?;
        if let Some(node) = self.tree.nodes.find(attr::identity(&rustix::fs::fstat(&file)?, false)) {
            self.tree.attributes_changed(node);
        }
        rustix::fs::fstat(&file)
    }

    /// Whether a node stands for a version that was replaced, and somebody appends by it to what has its name now.
    pub fn has_appenders_elsewhere(&self, node: NodeId) -> bool {
        !self.appenders_elsewhere(node).is_empty()
    }

    fn appenders_elsewhere(&self, node: NodeId) -> Vec<Arc<Appender>> {
        if !self.tree.nodes.is_detached(node) || !self.tree.nodes.is_regular(node) {
            return Vec::new();
        }
        let mut appenders = self.tree.handles.appenders();
        appenders.retain(|appender| appender.file.node == node);
        appenders
    }
}
