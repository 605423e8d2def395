//! Owner, mode and times in the reference model, and who may change them (R4, W11).

use super::ops::Name;
use super::permissions::{Acl, Rights, User};
use super::puppets::{Answer, Time};
use super::world::{Expected, Inode, Kind, Stage, World};

fn errno(name: &str) -> Expected {
    Expected::Is(Answer::errno(name))
}

fn done() -> Expected {
    Expected::Is(Answer::Done)
}

impl World {
    /// W11: no version; but a session that has something to publish has its own mode from then on.
    pub fn chmod(&mut self, by: usize, name: Name, mode: u32) -> Expected {
        let Some(found) = self.visible(by, name) else {
            return errno("ENOENT");
        };
        let user = self.user(by);
        if !user.owns(self.files[found].rights) {
            return errno("EPERM");
        }
        let mode = user.mode_set(self.files[found].rights, mode);
        // What was stored through a mapping takes them away when the kernel writes it; and what goes past the daemon, also root's (O1, limit).
        let uncertain = self.files[found].poked || self.is_open_as_ordinary(found);
        if uncertain && Rights::new(0, 0, mode).has_set_id() {
            return Expected::Skip;
        }
        self.change_rights(by, name, found, |rights| Rights { mode, ..rights })
    }

    fn is_open_as_ordinary(&self, inode: Inode) -> bool {
        let mut open = self
            .descriptions
            .iter()
            .filter(|description| description.descriptors > 0);
        open.any(
            |description| matches!(description.kind, Kind::Ordinary { inode: other } if self.latest(other) == inode),
        )
    }

    pub fn chown(&mut self, by: usize, name: Name, uid: u32, gid: u32) -> Expected {
        let Some(found) = self.visible(by, name) else {
            return errno("ENOENT");
        };
        let user = self.user(by);
        if !user.may_give(self.files[found].rights, uid, gid) {
            return errno("EPERM");
        }
        self.change_rights(by, name, found, |rights| user.gives(rights, uid, gid))
    }

    pub fn set_acl(&mut self, by: usize, name: Name, acl: Acl, mode: u32) -> Expected {
        let Some(found) = self.visible(by, name) else {
            return errno("ENOENT");
        };
        let user = self.user(by);
        if !user.owns(self.files[found].rights) {
            return errno("EPERM");
        }
        self.change_rights(by, name, found, |rights| user.acl_set(rights, acl, mode))
    }

    pub fn remove_acl(&mut self, by: usize, name: Name) -> Expected {
        let Some(found) = self.visible(by, name) else {
            return errno("ENOENT");
        };
        let rights = self.files[found].rights;
        match rights.acl {
            _ if !self.user(by).owns(rights) => errno("EPERM"),
            Some(_) => self.change_rights(by, name, found, |rights| Rights { acl: None, ..rights }),
            // Nothing is done.
            None => done(),
        }
    }

    fn change_rights(&mut self, by: usize, name: Name, found: Inode, change: impl Fn(Rights) -> Rights) -> Expected {
        for inode in self.touch(found, self.own(by, name)) {
            // Of each what is not changed stays.
            let before = self.files[inode].rights;
            self.files[inode].rights = change(before);
            if before == self.files[inode].rights {
                // ext4 leaves st_ctime where the same ACL is set again.
                self.files[inode].changed = Time::Whenever;
            }
            self.show_times(inode);
        }
        done()
    }

    /// The session whose shadow it finds under a name.
    fn own(&self, by: usize, name: Name) -> Option<usize> {
        let own = self.nearest(by, self.home(name));
        own.filter(|own| !self.sessions[*own].unlinked)
    }

    pub fn utime(&mut self, by: usize, name: Name, at: u32) -> Expected {
        self.change_times(by, name, Time::Set(at), |user, rights| {
            user.owns(rights).then_some(()).ok_or("EPERM")
        })
    }

    /// utimensat(2) with UTIME_NOW.
    pub fn touch_now(&mut self, by: usize, name: Name) -> Expected {
        self.change_times(by, name, Time::Step(self.now), |user, rights| {
            user.may_touch(rights).then_some(()).ok_or("EACCES")
        })
    }

    fn change_times(
        &mut self,
        by: usize,
        name: Name,
        time: Time,
        may: impl Fn(User, Rights) -> Result<(), &'static str>,
    ) -> Expected {
        let Some(found) = self.visible(by, name) else {
            return errno("ENOENT");
        };
        if let Err(why) = may(self.user(by), self.files[found].rights) {
            return errno(why);
        }
        for inode in self.touch(found, self.own(by, name)) {
            self.set_modified(inode, time);
            self.show_times(inode);
        }
        done()
    }

    pub fn futime(&mut self, by: usize, number: usize, at: u32) -> Expected {
        let (inode, own) = match self.descriptions[number].kind {
            Kind::Ordinary { inode } if !self.files[inode].is_version => (inode, None),
            Kind::Writer { session } if self.sessions[session].stage == Stage::Open => {
                (self.sessions[session].shadow, Some(session))
            }
            _ => return Expected::Skip,
        };
        if !self.user(by).owns(self.files[inode].rights) {
            return errno("EPERM");
        }
        for inode in self.touch(inode, own) {
            self.set_modified(inode, Time::Set(at));
        }
        if let Some(late) = own.filter(|own| self.sessions[*own].how == "late") {
            // The kernel is told of the version before, and goes by the size of that (W5, limit).
            let is_it = |kind: &Kind| matches!(kind, Kind::Writer { session } if *session == late);
            let written = self
                .descriptions
                .iter_mut()
                .filter(|description| is_it(&description.kind));
            written.for_each(|description| description.late_to_size = true);
        }
        done()
    }

    /// What a change of metadata is made to: of a session that has changed nothing yet also the version that it started from, otherwise it is a change.
    fn touch(&mut self, inode: Inode, own: Option<usize>) -> Vec<Inode> {
        self.change(inode);
        let Some(own) = own else { return vec![inode] };
        let session = &mut self.sessions[own];
        let current = self.names.get(&session.name);
        match session.base.filter(|base| !session.changed && current == Some(base)) {
            Some(base) => {
                self.change(base);
                vec![inode, base]
            }
            None => {
                // All but the times of a late one is the version's still.
                session.touched |= session.how != "late";
                // What was emptied by open(2) is no more than that still.
                if !session.changed {
                    self.note_change(own);
                }
                vec![inode]
            }
        }
    }
}
