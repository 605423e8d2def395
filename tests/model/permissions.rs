//! Who may do what in the reference model, as the kernel has it (path_resolution(7), unlink(2), chown(2), utimensat(2), proc_sys_fs(5)). No I/O.

use super::ops::{How, NAMES, Name, PROCESSES};

/// Whose a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    Root,
    /// In no other group than her own.
    Ann,
    /// Also in [`TEAM`].
    Bob,
}

/// A group.
pub const TEAM: u32 = 4000;

/// Owner, group, permission bits, and an ACL, whose mask is the group's part of the mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub acl: Option<Acl>,
}

/// An access ACL with one named user or group; its other entries are the mode's (acl(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acl {
    pub whose: Whose,
    /// His, or its, permissions.
    pub named: u32,
    /// Those of the file's own group.
    pub group: u32,
}

/// Whose an entry of an ACL is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    User(u32),
    Group(u32),
}

/// To read a file.
pub const READ: u32 = 4;
/// To write to it; to change the names in a directory.
pub const WRITE: u32 = 2;
const EXECUTE: u32 = 1;
const ALL: u32 = 7;
const ALL_CLASSES: u32 = 0o777;
const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;

/// A directory in which a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dir {
    Everybodys,
    /// Everybody's, with restricted deletion.
    Sticky,
    Roots,
    Anns,
    /// Everybody's, with a default ACL.
    Bequeathing,
}

/// What the machine forbids besides: fs.protected_hardlinks and fs.protected_regular.
#[derive(Debug, Clone, Copy)]
pub struct Protected {
    pub hardlinks: bool,
    pub regular: bool,
}

/// Whose processes and directories are: those of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cast {
    /// Of processes that nobody forks.
    pub users: [User; PROCESSES],
    /// In the order of [`NAMES`].
    pub dirs: [Dir; NAMES.len()],
}

/// Nobody else is there.
pub const ROOT_ONLY: Cast = Cast {
    users: [User::Root; PROCESSES],
    dirs: [Dir::Roots; NAMES.len()],
};

impl Cast {
    /// The directory of a name.
    pub fn dir(&self, name: Name) -> Dir {
        let place = NAMES.iter().position(|other| *other == name);
        self.dirs[place.expect("it is one of them")]
    }
}

impl Rights {
    pub const fn new(uid: u32, gid: u32, mode: u32) -> Rights {
        Rights {
            uid,
            gid,
            mode,
            acl: None,
        }
    }

    pub fn without_all_set_id(self) -> Rights {
        Rights {
            mode: self.mode & !(SET_USER | SET_GROUP),
            ..self
        }
    }

    pub fn has_set_id(self) -> bool {
        self.mode & (SET_USER | SET_GROUP) != 0
    }
}

impl Dir {
    pub fn rights(self) -> Rights {
        match self {
            Dir::Everybodys | Dir::Bequeathing => Rights::new(0, 0, 0o777),
            Dir::Sticky => Rights::new(0, 0, 0o1777),
            Dir::Roots => Rights::new(0, 0, 0o755),
            Dir::Anns => Rights::new(User::Ann.uid(), User::Ann.gid(), 0o755),
        }
    }
}

/// The default ACL of [`Dir::Bequeathing`], and its permissions of owner, mask and others.
pub const BEQUEATHED: (Acl, u32) = (
    Acl {
        whose: Whose::User(User::Bob.uid()),
        named: READ | WRITE,
        group: READ,
    },
    0o770,
);
/// What open(2) asks for, and the umask.
pub const MODE: u32 = 0o666;
pub const UMASK: u32 = 0o022;

impl User {
    pub const fn uid(self) -> u32 {
        match self {
            User::Root => 0,
            User::Ann => 1000,
            User::Bob => 1001,
        }
    }

    pub fn gid(self) -> u32 {
        self.uid()
    }

    /// Supplementary ones.
    pub fn groups(self) -> &'static [u32] {
        match self {
            User::Root | User::Ann => &[],
            User::Bob => &[TEAM],
        }
    }

    fn is_in(self, group: u32) -> bool {
        self.gid() == group || self.groups().contains(&group)
    }

    /// Of a file that he makes. A default ACL takes the umask's place (acl(5)).
    pub fn makes(self, dir: Dir) -> Rights {
        let (acl, mode) = match dir {
            Dir::Bequeathing => (Some(BEQUEATHED.0), MODE & BEQUEATHED.1),
            Dir::Everybodys | Dir::Sticky | Dir::Roots | Dir::Anns => (None, MODE & !UMASK),
        };
        Rights {
            acl,
            ..Rights::new(self.uid(), self.gid(), mode)
        }
    }

    /// Whether he has all of [`READ`] and [`WRITE`] that are wanted.
    pub fn may(self, file: Rights, wanted: u32) -> bool {
        let mask = file.mode >> 3;
        let class = match (self.uid() == file.uid, self.is_in(file.gid)) {
            (true, _) => file.mode >> 6,
            // Without a bit in the mask the kernel does not look at the ACL.
            (false, is_in) => match file.acl.filter(|_| mask & ALL != 0) {
                Some(acl) => self
                    .class_by(acl, is_in, wanted)
                    .map_or(file.mode, |class| class & mask),
                None if is_in => mask,
                None => file.mode,
            },
        };
        self == User::Root || class & wanted == wanted
    }

    /// What the entries of an ACL that are about him, but for the owner's and the mask, give him who wants this; `None`: there is none.
    fn class_by(self, acl: Acl, is_in_own: bool, wanted: u32) -> Option<u32> {
        let is_in_named = match acl.whose {
            Whose::User(uid) if uid == self.uid() => return Some(acl.named),
            Whose::User(_) => false,
            Whose::Group(gid) => self.is_in(gid),
        };
        let groups = [(is_in_own, acl.group), (is_in_named, acl.named)];
        let his = groups.iter().filter(|(is_in, _)| *is_in).map(|(_, class)| *class);
        // One of them must give all.
        his.clone().find(|class| class & wanted == wanted).or(his.min())
    }

    /// Whether he may change what it is.
    pub fn owns(self, file: Rights) -> bool {
        self == User::Root || self.uid() == file.uid
    }

    /// A name of the file goes from a directory: unlink(2), rename(2). Otherwise the errno.
    pub fn may_remove(self, dir: Rights, file: Rights) -> Result<(), &'static str> {
        if !self.may(dir, WRITE) {
            return Err("EACCES");
        }
        match dir.mode & 0o1000 == 0 || self.owns(dir) || self.owns(file) {
            true => Ok(()),
            false => Err("EPERM"),
        }
    }

    /// A name comes into a directory.
    pub fn may_add(self, dir: Rights) -> Result<(), &'static str> {
        self.may(dir, WRITE).then_some(()).ok_or("EACCES")
    }

    /// link(2) of a file.
    pub fn may_link(self, file: Rights, protected: Protected) -> Result<(), &'static str> {
        let privileged = file.mode & SET_USER != 0 || file.mode & SET_GROUP != 0 && file.mode & EXECUTE << 3 != 0;
        match !protected.hardlinks || self.owns(file) || !privileged && self.may(file, READ | WRITE) {
            true => Ok(()),
            false => Err("EPERM"),
        }
    }

    /// open(2) with O_CREAT of a file that is there.
    pub fn is_kept_from(self, dir: Rights, file: Rights, protected: Protected) -> bool {
        protected.regular && dir.mode & 0o1000 != 0 && ![dir.uid, self.uid()].contains(&file.uid)
    }

    /// chown(2).
    pub fn may_give(self, file: Rights, uid: u32, gid: u32) -> bool {
        let owner = self.uid() == file.uid;
        self == User::Root || owner && uid == file.uid && (gid == file.gid || self.is_in(gid))
    }

    /// The same, of which set-id bits leave nothing, whoever does it.
    pub fn gives(self, file: Rights, uid: u32, gid: u32) -> Rights {
        Rights {
            uid,
            gid,
            ..self.without_set_id(file)
        }
    }

    /// The mode that chmod(2) makes of the one that is asked for.
    pub fn mode_set(self, file: Rights, mode: u32) -> u32 {
        match self.keeps_group(file) {
            true => mode,
            false => mode & !SET_GROUP,
        }
    }

    /// setxattr(2) of an ACL with the permissions of owner, mask and others in `mode`.
    pub fn acl_set(self, file: Rights, acl: Acl, mode: u32) -> Rights {
        Rights {
            mode: self.mode_set(file, file.mode & !ALL_CLASSES | mode),
            acl: Some(acl),
            ..file
        }
    }

    /// What a file is when its content was changed by him: write(2), truncate(2), open(2) with O_TRUNC.
    pub fn writes(self, file: Rights) -> Rights {
        match self {
            User::Root => file,
            User::Ann | User::Bob => self.without_set_id(file),
        }
    }

    /// Set-group-id without execute permission for the group means nothing, and stays for who is in it (setattr_should_drop_sgid() of Linux 6).
    fn without_set_id(self, file: Rights) -> Rights {
        let stays = file.mode & EXECUTE << 3 == 0 && self.keeps_group(file);
        let gone = if stays { SET_USER } else { SET_USER | SET_GROUP };
        Rights {
            mode: file.mode & !gone,
            ..file
        }
    }

    /// Who is in the group, or has CAP_FSETID.
    fn keeps_group(self, file: Rights) -> bool {
        self == User::Root || self.is_in(file.gid)
    }

    /// utimensat(2) with both times UTIME_NOW.
    pub fn may_touch(self, file: Rights) -> bool {
        self.owns(file) || self.may(file, WRITE)
    }
}

impl How {
    /// What open(2) of a file that is there must be allowed to do.
    pub fn wanted(self) -> u32 {
        let read = if self.read { READ } else { 0 };
        read | if self.write || self.truncate { WRITE } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::User::*;
    use super::*;

    /// What Linux 6.18 makes of these on ext4.
    #[test]
    fn set_id_bits_go_as_the_kernel_takes_them() {
        let team = |mode| Rights::new(1000, TEAM, mode);
        for (by, before, written, given) in [
            (Root, 0o4666, 0o4666, 0o666),
            (Root, 0o2666, 0o2666, 0o2666),
            (Root, 0o2676, 0o2676, 0o676),
            (Root, 0o6777, 0o6777, 0o777),
            (Ann, 0o4666, 0o666, 0o666),
            (Ann, 0o2666, 0o666, 0o666),
            (Ann, 0o2676, 0o676, 0o676),
            (Bob, 0o6666, 0o2666, 0o2666),
            (Bob, 0o6676, 0o676, 0o676),
        ] {
            assert_eq!(by.writes(team(before)), team(written), "{by:?} {before:o}");
            assert_eq!(by.gives(team(before), 1000, TEAM), team(given), "{by:?} {before:o}");
        }
        let acl = Acl {
            whose: Whose::User(1001),
            named: READ,
            group: 0,
        };
        assert_eq!(Ann.acl_set(team(0o6600), acl, 0o640).mode, 0o4640);
        assert_eq!(Bob.acl_set(team(0o6600), acl, 0o640).mode, 0o6640);
        assert_eq!(Ann.gives(Rights::new(1000, 1000, 0o2666), 1000, 1000).mode, 0o2666);
        for (by, set) in [(Root, 0o6755), (Ann, 0o4755), (Bob, 0o6755)] {
            assert_eq!(by.mode_set(team(0o644), 0o6755), set);
        }
    }

    /// What Linux 6.18 says on ext4: whether each may read, write, and do both.
    #[test]
    fn an_acl_is_asked_as_the_kernel_asks_it() {
        let (user, group) = (Whose::User, Whose::Group);
        let (no, r, w, both) = ([0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 1]);
        // Owner and group, mode, the ACL; Ann, Bob.
        for (owner, mode, (whose, named, group), ann, bob) in [
            ((0, 0), 0o660, (user(1001), 6, 0), no, both),
            // The mask is empty: others.
            ((0, 0), 0o604, (user(1001), 6, 0), r, r),
            ((0, TEAM), 0o604, (user(1001), 6, 0), r, no),
            ((0, 0), 0o660, (user(1001), 2, 4), no, w),
            ((0, 0), 0o660, (group(TEAM), 6, 0), no, both),
            ((0, 0), 0o640, (group(TEAM), 6, 4), no, r),
            ((0, 0), 0o666, (group(TEAM), 0, 4), both, no),
            ((0, 0), 0o666, (user(1000), 0, 6), no, both),
            ((1000, 1000), 0o660, (user(1000), 0, 0), both, no),
            // Of two groups one must give all.
            ((0, TEAM), 0o660, (group(1001), 2, 4), no, [1, 1, 0]),
        ] {
            let acl = Some(Acl { whose, named, group });
            let (uid, gid) = owner;
            let file = Rights { uid, gid, mode, acl };
            for (who, may) in [(Ann, ann), (Bob, bob)] {
                let asked = [READ, WRITE, READ | WRITE].map(|wanted| u8::from(who.may(file, wanted)));
                assert_eq!(asked, may, "{who:?} {file:?}");
            }
            assert!(Root.may(file, READ | WRITE));
        }
    }
}
