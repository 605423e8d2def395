//! What changes a coordinated name without a handle: rename(2), unlink(2), link(2), truncate(2). Each is a session of zero length (W8): it
//! waits its turn, keeps the version it replaces, and publishes.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{AtFlags, RenameFlags, Stat};
use rustix::io::Errno;

use super::append_log::lock_both;
use super::begin::Beginning;
use super::close::Ending;
use super::files::{Finds, Granted, InHand};
use super::locks::Whose;
use super::session::Session;
use super::staged::Staged;
use super::wait::Claim;
use super::{Answer, Coordination, Counted, Target, caller, is_file, place, publish_info};
use crate::mount::attr;
use crate::mount::entry::{Entry, Victim};
use crate::mount::errno::from_io;
use crate::mount::nodes::{Name, NodeId, ROOT};
use crate::mount::tree::Caller;
use crate::os::creds;
use crate::session::{FileKey, Intent, Opener, SessionId};
use crate::store::record::How;
use crate::store::{PublishError, ReplaceOptions};

/// What a rename is about.
#[derive(Debug, Clone)]
struct Move {
    old: Name,
    new: Name,
    flags: RenameFlags,
    source: Option<Target>,
    target: Option<Target>,
}

impl Move {
    /// The ordinary names whose files get coordinated ones.
    fn leaving(&self) -> impl Iterator<Item = &Name> {
        let exchanged = self.flags.contains(RenameFlags::EXCHANGE);
        let old = self.source.is_none().then_some(&self.old);
        let new = (exchanged && self.target.is_none()).then_some(&self.new);
        old.into_iter().chain(new)
    }
}

/// How a thread came to the names that it is about to take.
#[derive(Debug, Clone)]
struct Walk {
    /// It was sent round and is back, or would not be known again. It may wait: the inodes that the kernel keeps locked for it meanwhile are no holder's.
    again: bool,
    /// What it finds when it must walk again.
    finds: Finds,
    /// While it is on its way to these files nobody takes over the node of the current version.
    ways: Vec<(FileKey, Instant)>,
}

/// A coordinated name that an operation of zero length has to itself.
type Held = (SessionId, FileKey);

/// What an operation does once it has its names, or was refused one of them. It lets go of those that it has.
type Then = Box<dyn FnOnce(&Arc<Coordination>, Vec<Held>, Result<(), Errno>) + Send>;

impl Coordination {
    /// Takes all of `targets`, one after the other, then runs `work` on a worker thread, lets go of them and answers: whoever has the
    /// answer finds them free.
    fn with_all<T: 'static>(
        self: &Arc<Self>,
        caller: Caller,
        opener: Opener,
        mut targets: Vec<Target>,
        walk: Walk,
        work: impl FnOnce(&Arc<Coordination>) -> Result<T, Errno> + Send + 'static,
        answer: Answer<T>,
    ) {
        // One order for all: two renames of the same files do not wait for each other crosswise.
        targets.sort_by(|a, b| a.path.cmp(&b.path));
        targets.dedup_by(|a, b| a.name == b.name);
        targets.reverse();
        let ways = walk.ways.clone();
        let then = move |this: &Arc<Coordination>, held: Vec<Held>, taken: Result<(), Errno>| {
            this.files.lock().end_ways(caller.tid, &ways);
            let result = taken.and_then(|()| work(this));
            let wakes = this.let_go(held);
            answer(result);
            this.carry_out(wakes);
            this.store.sweep();
        };
        self.take_next(caller, opener, targets, walk, Vec::new(), Box::new(then));
    }

    fn take_next(
        self: &Arc<Self>,
        caller: Caller,
        opener: Opener,
        mut targets: Vec<Target>,
        walk: Walk,
        mut held: Vec<Held>,
        then: Then,
    ) {
        let this = Arc::clone(self);
        let Some(target) = targets.pop() else {
            return self.tree.workers.run(move || then(&this, held, Ok(())));
        };
        let in_hand = InHand::take(&self.files, &self.key_name(&target.name));
        let file = in_hand.key();
        let claim = Claim {
            file,
            caller,
            opener: opener.clone(),
            intent: Intent::Instant,
            nonblock: !walk.again,
        };
        let ways = walk.ways.clone();
        self.acquire(
            &target,
            claim,
            Box::new(move |granted| match granted {
                Ok(Granted::New(id) | Granted::Join(id)) => {
                    held.push((id, file));
                    this.take_next(caller, opener, targets, walk, held, then);
                }
                Err(Errno::WOULDBLOCK) if !walk.again => {
                    // Somebody took the name since it was looked at.
                    this.files.lock().send_round(caller.tid, file, walk.finds, None);
                    then(&this, held, Err(Errno::STALE));
                }
                Err(errno) => then(&this, held, Err(errno)),
            }),
        );
        // Granted or in the queue, it is in everybody's way by that.
        self.files.lock().end_ways(caller.tid, &ways);
    }

    /// unlink(2) of a coordinated name.
    pub fn unlink(self: &Arc<Self>, caller: Caller, target: Target, answer: Answer<()>) {
        let opener = caller::opener(caller);
        let own = self.own_session(&target.name, &opener);
        if let (Err(Errno::NOENT), Some(own)) = (self.stat(&target.name), &own) {
            // Its creator takes the file back before it appeared.
            let lost = own.staged(|staged| {
                staged.unlinked = true;
                Ok(())
            });
            if lost.is_ok() {
                self.locks.lock().removed(&Whose::Name(target.name));
            }
            return answer(lost);
        }
        let Some(walk) = self.walked(caller, &opener, &[&target.name], Finds::CurrentOnly) else {
            return answer(Err(Errno::STALE));
        };
        let process = opener.proc;
        let name = target.name.clone();
        let targets = vec![target.clone()];
        let work = move |this: &Arc<Coordination>| {
            this.remove_name(caller, process, &name, &target)?;
            if let Some(own) = own
                && !this.goes_on_elsewhere(&own, &name)
            {
                own.lose_name();
            }
            Ok(())
        };
        self.with_all(caller, opener, targets, walk, work, answer);
    }

    fn remove_name(
        &self,
        caller: Caller,
        process: crate::session::ProcId,
        name: &Name,
        target: &Target,
    ) -> Result<(), Errno> {
        let (dir, path) = self.located(name)?;
        let _turn = self.turns.take(&[name, &self.key_name(name)]);
        let stat = self.stat(name)?;
        if !is_file(&stat) || stat.st_nlink > 1 {
            // What it holds is there under its other names.
            let image = self.image_at(name);
            self.tree.remove(name.parent, &name.name, AtFlags::empty())?;
            self.name_left_image(image, name);
            return Ok(());
        }
        let who = self.descriptions.of(process, caller.uid);
        let victim = Victim::hold(&dir, &name.name)?;
        let info = publish_info(How::Unlink, &target.policy);
        let log = self.logs.of(name);
        let mut log = log.lock();
        self.settle_growth(&mut log);
        self.store
            .remove(&place(&dir, name, &path), &who, &info)
            .map_err(|error| self.failed(&error))?;
        self.removed(&mut log);
        self.tree.superseded(victim);
        self.locks.lock().removed(&Whose::Name(name.clone()));
        self.published(&path);
        Ok(())
    }

    /// rename(2) of which at least one name is coordinated.
    #[allow(clippy::too_many_arguments)]
    pub fn rename(
        self: &Arc<Self>,
        caller: Caller,
        old: (NodeId, &OsStr),
        new: (NodeId, &OsStr),
        source: Option<Target>,
        target: Option<Target>,
        flags: RenameFlags,
        answer: Answer<()>,
    ) {
        // The other name may be the store's: nothing is moved into it or out of it.
        let private = [old, new].map(|(parent, name)| self.tree.refuse_private(parent, name));
        if let Some(errno) = private.into_iter().find_map(Result::err) {
            return answer(Err(errno));
        }
        let opener = caller::opener(caller);
        let moving = Move {
            old: Name::new(old.0, old.1),
            new: Name::new(new.0, new.1),
            flags,
            source,
            target,
        };
        let own_of = |target: &Option<Target>| {
            let target = target.as_ref()?;
            self.own_session(&target.name, &opener)
        };
        let (own, own_target) = (own_of(&moving.source), own_of(&moving.target));
        let names: Vec<&Name> = moving
            .source
            .iter()
            .chain(&moving.target)
            .map(|found| &found.name)
            .collect();
        if self.must_leave(caller, &moving) {
            return answer(Err(Errno::STALE));
        }
        let Some(walk) = self.walked(caller, &opener, &names, Finds::Current) else {
            return answer(Err(Errno::STALE));
        };
        let left: Vec<Name> = moving.leaving().cloned().collect();
        let tree = Arc::clone(&self.tree);
        let answer: Answer<()> = Box::new(move |result| {
            left.iter().for_each(|name| tree.leaving.done(name, caller.tid));
            answer(result);
        });
        let targets = moving.source.iter().chain(&moving.target).cloned().collect();
        let process = opener.proc;
        let work = move |this: &Arc<Coordination>| {
            let exchanged = own_target
                .as_ref()
                .filter(|_| moving.flags.contains(RenameFlags::EXCHANGE));
            // The name it has is about to lead elsewhere: what was written so far moves with it, what is written later follows.
            own.iter()
                .chain(exchanged)
                .try_for_each(|own| this.end_now(own, Ending::Closed))?;
            own.iter().for_each(|own| own.set_name(moving.new.clone()));
            exchanged.into_iter().for_each(|own| own.set_name(moving.old.clone()));
            let renamed = this.carry_out_rename(caller, process, &moving);
            match (&renamed, &own_target) {
                (Err(_), _) => {
                    own.iter().for_each(|own| own.set_name(moving.old.clone()));
                    exchanged.into_iter().for_each(|own| own.set_name(moving.new.clone()));
                }
                (Ok(()), Some(replaced)) if exchanged.is_none() && moving.old != moving.new => replaced.lose_name(),
                _ => {}
            }
            if renamed.is_ok() {
                own.iter().chain(exchanged).for_each(|own| this.hand_over(own));
            }
            renamed
        };
        self.with_all(caller, opener, targets, walk, work, answer);
    }

    /// Whether the kernel must first be told to keep nothing under an ordinary name that is about to become a coordinated one. It comes back only once, and may
    /// have to wait then: until it does, nobody takes over the node that it finds under the coordinated name.
    fn must_leave(&self, caller: Caller, moving: &Move) -> bool {
        // A stranger would not be known again.
        let leaves = |name: &&Name| caller.tid != 0 && self.tree.leaving.sends_round(name, caller.tid);
        if moving.leaving().filter(leaves).count() == 0 {
            return false;
        }
        for Target { name, .. } in moving.source.iter().chain(&moving.target) {
            let in_hand = InHand::take(&self.files, &self.key_name(name));
            self.files
                .lock()
                .send_round(caller.tid, in_hand.key(), Finds::Current, None);
        }
        true
    }

    fn carry_out_rename(&self, caller: Caller, process: crate::session::ProcId, moving: &Move) -> Result<(), Errno> {
        let (old, new) = (&moving.old, &moving.new);
        let _turn = self.turns.take(&[old, new, &self.key_name(old), &self.key_name(new)]);
        let moved = self.stat(old)?;
        let replaced = match self.stat(new) {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno),
        };
        let exchanges = moving.flags.contains(RenameFlags::EXCHANGE);
        let is_alone = |stat: &Stat| is_file(stat) && stat.st_nlink == 1;
        // A file with other names lives on under them when one is given to another file.
        let can_go = |stat: &Stat| is_alone(stat) || is_file(stat) && !exchanges;
        let source = moving.source.as_ref().filter(|_| is_alone(&moved));
        let target = moving.target.as_ref().filter(|_| replaced.as_ref().is_none_or(can_go));
        let same = replaced
            .as_ref()
            .is_some_and(|stat| (stat.st_dev, stat.st_ino) == (moved.st_dev, moved.st_ino));
        let by_store = is_file(&moved) && replaced.as_ref().is_none_or(is_file) && !same && moved.st_nlink == 1;
        let unusual = moving.flags - RenameFlags::NOREPLACE - RenameFlags::EXCHANGE;
        if !by_store || !unusual.is_empty() || (source.is_none() && target.is_none()) {
            let images = (self.image_at(old), self.image_at(new));
            self.carry_out_uncoordinated(old, new, moving.flags)?;
            if !same {
                self.name_left_image(images.0, old);
                self.name_left_image(images.1, new);
            }
            return Ok(());
        }
        let image = self.image_at(new);
        let (old_dir, old_path) = self.located(old)?;
        let (new_dir, new_path) = self.located(new)?;
        let who = self.descriptions.of(process, caller.uid);
        let (from, to) = (place(&old_dir, old, &old_path), place(&new_dir, new, &new_path));
        let victim = replaced
            .is_some()
            .then(|| Victim::hold(&new_dir, &new.name))
            .transpose()?;
        let (from_log, to_log) = (self.logs.of(old), self.logs.of(new));
        let mut locked = lock_both(&from_log, &to_log);
        self.settle_growth(&mut locked.0);
        self.settle_growth(&mut locked.1);
        if moving.flags.contains(RenameFlags::EXCHANGE) {
            let policy = target.or(source).map(|found| found.policy.clone()).unwrap_or_default();
            let info = publish_info(How::Exchange, &policy);
            self.store
                .exchange((&from, source.is_some()), (&to, target.is_some()), &who, &info)
                .map_err(|error| self.failed(&error))?;
        } else if let Some(target) = target {
            let options = ReplaceOptions {
                src_coordinated: source.is_some(),
                no_replace: moving.flags.contains(RenameFlags::NOREPLACE),
            };
            let based_on = match &replaced {
                Some(_) => self.store.version_at(&to).map_err(|error| from_io(&error))?,
                None => None,
            };
            let info = publish_info(How::Rename, &target.policy);
            self.store
                .replace(&from, &to, options, &who, based_on, &info)
                .map_err(|error| self.failed(&error))?;
        } else if let Some(source) = source {
            let info = publish_info(How::Unlink, &source.policy);
            let to = (&new_dir, &*new.name);
            self.store
                .move_away(&from, to, moving.flags.contains(RenameFlags::NOREPLACE), &who, &info)
                .map_err(|error| self.failed(&error))?;
        }
        if moving.flags.contains(RenameFlags::EXCHANGE) {
            self.replaced(&mut locked.0);
            self.replaced(&mut locked.1);
        } else {
            self.renamed_log(&mut locked.0, (&to_log, &mut locked.1));
        }
        drop(locked);
        if moving.flags.contains(RenameFlags::EXCHANGE) {
            self.tree.renamed(old, new, &moved, victim, moving.flags);
        } else {
            match (victim, &replaced) {
                (Some(victim), Some(replaced)) if replaced.st_nlink > 1 => {
                    self.tree.gone(victim, new);
                    self.name_left_image(image, new);
                }
                (Some(victim), _) => self.tree.superseded(victim),
                (None, _) => {}
            }
            self.tree.renamed(old, new, &moved, None, moving.flags);
            let by_inode = || Whose::Inode(attr::identity(&moved, false));
            let whose = |name: &Name, is_coordinated: bool| match is_coordinated {
                true => Whose::Name(name.clone()),
                false => by_inode(),
            };
            let (from, to) = (whose(old, source.is_some()), whose(new, target.is_some()));
            self.locks.lock().renamed(&from, to);
        }
        [&old_path, &new_path].into_iter().for_each(|path| self.published(path));
        Ok(())
    }

    /// link(2) onto a coordinated name.
    pub fn link(self: &Arc<Self>, caller: Caller, node: NodeId, target: Target, answer: Answer<Entry>) {
        let opener = caller::opener(caller);
        let name = target.name.clone();
        let work = move |this: &Arc<Coordination>| {
            this.will_be_linked(node);
            this.tree.link(node, name.parent, &name.name)
        };
        let walk = Walk {
            again: true,
            finds: Finds::Current,
            ways: Vec::new(),
        };
        self.with_all(caller, opener, vec![target], walk, work, answer);
    }

    /// truncate(2) by path: a version of its own.
    ///
    /// Answers ESTALE to a thread that must wait, or whose node others have open, as [`Coordination::open_writer`] does.
    pub fn truncate(self: &Arc<Self>, caller: Caller, node: NodeId, target: Target, len: u64, answer: Answer<Stat>) {
        let in_hand = InHand::take(&self.files, &target.name);
        let key = in_hand.key();
        let seen = self.tree.nodes.identity(node);
        let reroute = self.arrived_on_own(caller, key, node);
        let opener = self.opener_for(caller, key);
        // One whose name was removed, or replaced, is not what the path leads to.
        if let Some(own) = self.nearest_of(key, &opener).filter(|own| own.shown().is_some()) {
            let this = Arc::clone(self);
            return self.tree.workers.run(move || {
                let set = creds::writing_as(caller.uid, || own.set_len(&this.store, len));
                answer(set.and_then(|()| own.staged(|staged| staged.stat())));
            });
        }
        let in_the_way = || {
            let files = self.files.lock();
            reroute.is_none()
                && (!files.queue.is_idle(key) || files.expects(key) || self.tree.nodes.open_pin(node).is_some())
        };
        if !self.takes_over(node, reroute.is_some(), in_the_way) {
            self.files.lock().send_round(caller.tid, key, Finds::Own(None), None);
            return answer(Err(Errno::STALE));
        }
        if reroute.is_none() && self.has_entry_renewed(caller, key, node) {
            return answer(Err(Errno::STALE));
        }
        let process = opener.proc;
        let claim = Claim {
            file: key,
            caller,
            opener,
            intent: Intent::Truncate,
            nonblock: false,
        };
        let own_node = reroute.is_some();
        let this = Arc::clone(self);
        let truncated = target.clone();
        self.acquire(
            &target,
            claim,
            Box::new(move |granted| {
                let begun = granted.and_then(|granted| {
                    let (Granted::New(id) | Granted::Join(id)) = granted;
                    let (how, creates) = (How::Truncate, None);
                    let beginning = Beginning {
                        id,
                        file: key,
                        node: Some(node),
                        caller,
                        process,
                        how,
                        truncate: len == 0,
                        creates,
                        own_node,
                        seen,
                        wanted: rustix::fs::Access::WRITE_OK,
                    };
                    this.begin(&truncated, beginning)
                });
                let session = match begun {
                    Ok(session) => session,
                    Err(errno) => return answer(Err(errno)),
                };
                let that = Arc::clone(&this);
                this.tree.workers.run(move || answer(that.truncate_now(&session, len)));
            }),
        );
    }

    pub(super) fn truncate_now(self: &Arc<Self>, session: &Arc<Session>, len: u64) -> Result<Stat, Errno> {
        let set = session.set_len(&self.store, len);
        let why = if set.is_ok() { Ending::Closed } else { Ending::Killed };
        let ended = self.end_now(session, why);
        let stat = rustix::fs::fstat(session.pin.fd());
        set.and(ended).and(stat)
    }

    /// Owner, mode, times or attributes of a session's node are about to change: the shadow's are its own from now on, and there is
    /// something to publish. Nothing happens to a session that is ending: its metadata is settled.
    pub fn touch(&self, node: NodeId) -> Result<(), Errno> {
        let Some(session) = self.files.lock().session_on(node).cloned() else {
            return Ok(());
        };
        let touched = session.fill(&self.store).and_then(|()| {
            session.change(|staged| {
                staged.shadow.meta_touched = true;
                staged.changed = true;
                Ok(())
            })
        });
        match touched {
            Err(Errno::BUSY | Errno::STALE) => Ok(()),
            result => result,
        }
    }

    /// The current version's file, when a session has it open and changed nothing yet. A change of its metadata is made to both, as without a
    /// session, and is nothing to publish: touch(1) makes no version.
    pub fn unchanged_base(&self, node: NodeId) -> Option<Arc<std::fs::File>> {
        let session = self.files.lock().session_on(node).cloned()?;
        let unchanged = |staged: &mut Staged| Ok(staged.base.clone().filter(|_| !staged.changed && !staged.unlinked));
        let base = session.staged(unchanged).ok().flatten()?;
        let (held, current) = (rustix::fs::fstat(&base).ok()?, self.stat(&session.name()).ok()?);
        if (held.st_dev, held.st_ino) != (current.st_dev, current.st_ino) {
            return None;
        }
        // Of a file that is written in place the inode has the metadata.
        match self.store.images().inode_of(held.st_ino) {
            Some(_) => self.live_of(&session.name()).ok().map(Arc::new),
            None => Some(base),
        }
    }

    /// Whether a name is taken by a file that exists only as a session's shadow, so that nothing else can be made there (EEXIST).
    pub fn is_promised(&self, name: &Name) -> bool {
        let files = self.files.lock();
        files
            .key_of(name)
            .is_some_and(|key| files.sessions(key).iter().any(|session| session.creates))
    }

    /// Whether a directory is empty only because what is being created in it has not appeared yet (ENOTEMPTY).
    pub fn is_promised_in(&self, parent: NodeId, name: &OsStr) -> bool {
        let Ok(stat) = self.stat(&Name::new(parent, name)) else {
            return false;
        };
        let Some(directory) = self.tree.nodes.find(attr::identity(&stat, false)) else {
            return false;
        };
        self.files.lock().creates_in(directory)
    }

    /// `None`: a thread that would wait must first walk the path again. While it waits the kernel holds the lock of the inode that it found
    /// there, and that must not be one that a session's holder writes to: after ESTALE it finds the current version's own node, which
    /// nobody takes over while somebody waits.
    fn walked(&self, caller: Caller, opener: &Opener, names: &[&Name], finds: Finds) -> Option<Walk> {
        let key_of = |name: &&Name| {
            let name = self.key_name(name);
            self.files.lock().key_of(&name)
        };
        let keys: Vec<FileKey> = names.iter().filter_map(key_of).collect();
        // A stranger would not be known again: it waits at most `wait`.
        let (mut again, mut ways) = (caller.tid == 0, Vec::new());
        for key in &keys {
            let way = self.files.lock().way_to_current(caller.tid, *key);
            again |= way.is_some() || self.arrived(caller, *key, ROOT).is_some();
            ways.extend(way.map(|since| (*key, since)));
            self.files.lock().settle(*key);
        }
        let busy = |key: &FileKey| !self.files.lock().queue.is_idle(*key) && self.nearest_of(*key, opener).is_none();
        if let Some(key) = keys.into_iter().find(busy).filter(|_| !again) {
            self.files.lock().send_round(caller.tid, key, finds, None);
            return None;
        }
        Some(Walk { again, finds, ways })
    }

    fn own_session(&self, name: &Name, opener: &Opener) -> Option<Arc<Session>> {
        let name = self.key_name(name);
        let key = self.files.lock().key_of(&name)?;
        self.nearest_of(key, opener)
    }

    fn located(&self, name: &Name) -> Result<(Arc<OwnedFd>, PathBuf), Errno> {
        Ok((self.directory(name.parent)?, self.path_of(name)?))
    }

    fn failed(&self, error: &PublishError) -> Errno {
        let errno = from_io(&error.source);
        if errno != Errno::EXIST && errno != Errno::NOENT {
            self.counts.add(Counted::Failed);
            log::error!("{error}");
        }
        errno
    }
}
