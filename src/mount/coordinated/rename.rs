//! rename(2) from, to and between coordinated names, and RENAME_EXCHANGE (W8).

use std::ffi::OsStr;
use std::sync::Arc;

use rustix::fs::{RenameFlags, Stat};
use rustix::io::Errno;

use super::append_log::lock_both;
use super::close::Ending;
use super::linked::HeldImage;
use super::locks::Whose;
use super::rounds::Errand;
use super::{Answer, Coordination, Target, caller, is_directory, is_file, place, publish_info};
use crate::mount::attr;
use crate::mount::entry::Victim;
use crate::mount::errno::from_io;
use crate::mount::nodes::{Name, NodeId};
use crate::mount::tree::Caller;
use crate::session::ProcId;
use crate::store::record::{How, Who};
use crate::store::{Place, RealDisk, ReplaceOptions};

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
    fn exchanges(&self) -> bool {
        self.flags.contains(RenameFlags::EXCHANGE)
    }

    /// The ordinary names whose files get coordinated ones.
    fn leaving(&self) -> impl Iterator<Item = &Name> {
        let old = self.source.is_none().then_some(&self.old);
        let new = (self.exchanges() && self.target.is_none()).then_some(&self.new);
        old.into_iter().chain(new)
    }
}

/// What a rename finds under both names.
struct Found {
    /// What the old name leads to, as it is shown.
    moved: Stat,
    /// The same on the backing filesystem.
    live: Stat,
    /// What has the new name.
    replaced: Option<Stat>,
    live_replaced: Option<Stat>,
    images: [Option<HeldImage>; 2],
    /// A file with other names lives on under them when one is given to another file. Of two that change places each side keeps a copy.
    can_move: bool,
}

impl Found {
    /// The coordinated file that leaves its name.
    fn source<'a>(&self, moving: &'a Move) -> Option<&'a Target> {
        moving.source.as_ref().filter(|_| self.can_move)
    }

    /// rename(2) leaves it as it is.
    fn is_one_file(&self) -> bool {
        let identity = |stat: &Stat| (stat.st_dev, stat.st_ino);
        self.replaced
            .is_some_and(|replaced| identity(&replaced) == identity(&self.moved))
    }

    /// Whether the store carries it out, because a version comes of it.
    fn is_the_stores(&self, moving: &Move) -> bool {
        let (source, target) = (self.source(moving), &moving.target);
        let moves = self.can_move && (source.is_some() || target.is_some());
        // Whatever comes in its place, a version is kept.
        let replaces = target.is_some() && self.replaced.is_some() && !moving.exchanges() && !is_directory(&self.moved);
        let unusual = moving.flags - RenameFlags::NOREPLACE - RenameFlags::EXCHANGE;
        (moves || replaces) && !self.is_one_file() && self.replaced.as_ref().is_none_or(is_file) && unusual.is_empty()
    }
}

impl Coordination {
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
        let targets = moving.source.iter().chain(&moving.target).cloned().collect();
        let errand = Errand {
            // A stranger would not be known again.
            leaving: moving.leaving().filter(|_| caller.tid != 0).cloned().collect(),
            needs: moving.source.as_ref().map(|source| source.name.clone()),
            needs_free: (moving.target.as_ref())
                .filter(|_| flags.contains(RenameFlags::NOREPLACE))
                .map(|target| target.name.clone()),
            ..Errand::new(targets, new.0)
        };
        let process = opener.proc;
        let work = move |this: &Arc<Coordination>| {
            if this.moves_nothing(&moving) {
                return this.carry_out_rename(caller, process, &moving)?;
            }
            let exchanged = own_target.as_ref().filter(|_| moving.exchanges());
            // The name it has is about to lead elsewhere: what was written so far moves with it, what is written later follows.
            own.iter()
                .chain(exchanged)
                .try_for_each(|own| this.end_now(own, Ending::Closed))?;
            own.iter().for_each(|own| own.set_name(moving.new.clone()));
            exchanged.into_iter().for_each(|own| own.set_name(moving.old.clone()));
            let former_names = own_target.as_ref().map_or_else(Vec::new, |own| this.former_names(own));
            let renamed = this.carry_out_rename(caller, process, &moving);
            match (&renamed, &own_target) {
                (Err(_), _) => {
                    own.iter().for_each(|own| own.set_name(moving.old.clone()));
                    exchanged.into_iter().for_each(|own| own.set_name(moving.new.clone()));
                }
                (Ok(_), Some(replaced)) if exchanged.is_none() => {
                    this.leave_name(replaced, &moving.new, &former_names);
                }
                _ => {}
            }
            if renamed.is_ok() {
                own.iter().chain(exchanged).for_each(|own| this.hand_over(own));
            }
            renamed?
        };
        self.with_all(caller, opener, errand, work, answer);
    }

    /// Whether both names lead to one file, which rename(2) leaves as it is: a session on it goes on under them.
    fn moves_nothing(&self, moving: &Move) -> bool {
        let (old, new) = (self.stat_backing(&moving.old), self.stat_backing(&moving.new));
        let identity = |stat: Stat| (stat.st_dev, stat.st_ino);
        old.is_ok_and(|old| new.is_ok_and(|new| identity(old) == identity(new)))
    }

    /// As [`Coordination::carried_out`].
    fn carry_out_rename(&self, caller: Caller, process: ProcId, moving: &Move) -> Result<Result<(), Errno>, Errno> {
        let (old, new) = (&moving.old, &moving.new);
        let _turn = self.turns.take(&[old, new, &self.key_name(old), &self.key_name(new)]);
        let mut found = self.look_at_both(moving)?;
        if !found.is_the_stores(moving) {
            return self.rename_past_store(moving, found).map(Ok);
        }
        let (old_dir, old_path) = self.located(old)?;
        let (new_dir, new_path) = self.located(new)?;
        let sides = (place(&old_dir, old, &old_path), place(&new_dir, new, &new_path));
        let who = self.descriptions.of(process, caller.uid);
        let victim = match found.replaced {
            Some(_) => Some(Victim::hold(&new_dir, &new.name)?),
            None => None,
        };
        let (from_log, to_log) = (self.logs.of(old), self.logs.of(new));
        let mut locked = lock_both(&from_log, &to_log);
        self.settle_growth(&mut locked.0);
        self.settle_growth(&mut locked.1);
        let told = self.rename_in_store(moving, &found, (&sides.0, &sides.1), &who)?;
        if moving.exchanges() {
            self.replaced(&mut locked.0);
            self.replaced(&mut locked.1);
        } else {
            match moving.target {
                Some(_) if found.can_move => self.renamed_log(&mut locked.0, (&to_log, &mut locked.1)),
                Some(_) => self.replaced(&mut locked.1),
                None => self.departed(&mut locked.0),
            }
        }
        drop(locked);
        if !found.can_move {
            self.name_changed(old, &found.live);
        }
        self.nodes_follow(moving, &mut found, victim);
        if !moving.exchanges() {
            self.locks_follow(moving, &found);
        }
        [&old_path, &new_path].into_iter().for_each(|path| self.published(path));
        Ok(told)
    }

    fn look_at_both(&self, moving: &Move) -> Result<Found, Errno> {
        let (old, new) = (&moving.old, &moving.new);
        let moved = self.stat(old)?;
        let replaced = match self.stat(new) {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno),
        };
        if moving.source.is_some() {
            self.will_depart(old, false);
        }
        if moving.target.is_some() && replaced.is_some_and(|stat| moving.exchanges() || stat.st_nlink > 1) {
            self.will_depart(new, !moving.exchanges());
        }
        Ok(Found {
            moved,
            live: self.stat_backing(old)?,
            replaced,
            live_replaced: replaced.map(|_| self.stat_backing(new)).transpose()?,
            images: [old, new].map(|name| self.image_at(name)),
            can_move: is_file(&moved) && (moving.exchanges() || moved.st_nlink == 1),
        })
    }

    /// No version comes of it.
    fn rename_past_store(&self, moving: &Move, found: Found) -> Result<(), Errno> {
        let (old, new) = (&moving.old, &moving.new);
        self.carry_out_uncoordinated(old, new, moving.flags)?;
        if !found.is_one_file() {
            let [of_old, of_new] = found.images;
            self.name_left_image(of_old, old);
            self.name_left_image(of_new, new);
        }
        self.name_changed(old, &found.live);
        found
            .live_replaced
            .iter()
            .for_each(|replaced| self.name_changed(new, replaced));
        Ok(())
    }

    /// As [`Coordination::carried_out`].
    fn rename_in_store(
        &self,
        moving: &Move,
        found: &Found,
        (from, to): (&Place<'_, RealDisk>, &Place<'_, RealDisk>),
        who: &Who,
    ) -> Result<Result<(), Errno>, Errno> {
        let no_replace = moving.flags.contains(RenameFlags::NOREPLACE);
        let (source, target) = (found.source(moving), moving.target.as_ref());
        if moving.exchanges() {
            let policy = target.or(source).map(|found| found.policy.clone()).unwrap_or_default();
            let info = publish_info(How::Exchange, &policy);
            let done = self
                .store
                .exchange((from, source.is_some()), (to, target.is_some()), who, &info);
            return Ok(self.carried_out(done)?.map(drop));
        }
        if let Some(target) = target {
            let options = ReplaceOptions {
                src_coordinated: source.is_some(),
                no_replace,
            };
            let based_on = match &found.replaced {
                Some(_) => self.store.version_at(to).map_err(|error| from_io(&error))?,
                None => None,
            };
            let info = publish_info(How::Rename, &target.policy);
            // The store links it into the history first. The kernel takes one link off what it has last heard of, so it must not hear of two.
            let kept = found
                .replaced
                .filter(|replaced| replaced.st_nlink == 1)
                .and_then(|replaced| self.tree.nodes.find(attr::identity(&replaced, false)));
            kept.into_iter().for_each(|id| self.tree.nodes.keep_aside(id, true));
            let done = self
                .store
                .replace(from, to, options, who, based_on.map(|seen| seen.version), &info);
            if done.as_ref().is_err_and(|error| !error.published) {
                kept.into_iter().for_each(|id| self.tree.nodes.keep_aside(id, false));
            }
            return Ok(self.carried_out(done)?.map(drop));
        }
        let Some(source) = source else { return Ok(Ok(())) };
        let info = publish_info(How::Unlink, &source.policy);
        let done = self.store.move_away(from, (to.dir, to.name), no_replace, who, &info);
        let told = self.carried_out(done)?;
        told.iter()
            .for_each(|done| self.note_unkept(from.path, done, "renamed"));
        Ok(told.map(drop))
    }

    fn nodes_follow(&self, moving: &Move, found: &mut Found, victim: Option<Victim>) {
        let (old, new) = (&moving.old, &moving.new);
        let (moved, live) = (found.moved, found.live);
        let [of_old, of_new] = std::mem::take(&mut found.images);
        if moving.exchanges() {
            self.tree.renamed(old, new, &live, victim, moving.flags);
            self.name_left_image(of_old, old);
            self.name_left_image(of_new, new);
            return;
        }
        match (victim, &found.replaced) {
            (Some(victim), Some(replaced)) if replaced.st_nlink > 1 => {
                self.tree.gone(victim, new);
                self.name_left_image(of_new, new);
            }
            (Some(victim), _) => self.tree.superseded(victim, new),
            (None, _) => {}
        }
        self.tree.renamed(old, new, &moved, None, moving.flags);
        // The inode behind an image has a node of its own, which another name may have led to.
        let behind = self.tree.nodes.find(attr::identity(&live, false));
        let had = |node: &NodeId| self.tree.nodes.info(*node).is_some_and(|info| info.names.contains(old));
        if live.st_ino != moved.st_ino
            && let Some(node) = behind.filter(had)
        {
            self.tree.nodes.rename(node, old, new.clone());
        }
    }

    fn locks_follow(&self, moving: &Move, found: &Found) {
        let whose = |name: &Name, is_coordinated: bool| match is_coordinated {
            true => Whose::Name(name.clone()),
            false => Whose::Inode(attr::identity(&found.moved, false)),
        };
        let from = whose(&moving.old, found.source(moving).is_some());
        let to = whose(&moving.new, moving.target.is_some());
        match &found.live_replaced {
            Some(replaced) if replaced.st_nlink > 1 => {
                let other = self.other_name_of(&moving.new, replaced);
                self.lock_goes_on(&moving.new, replaced, other.as_ref());
            }
            Some(_) if !found.can_move => drop(self.locks.lock().removed(&to)),
            _ => {}
        }
        if found.can_move {
            self.locks.lock().renamed(&from, to);
        }
    }
}
