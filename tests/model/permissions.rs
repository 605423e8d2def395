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

/// Owner, group and permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

/// To read a file.
pub const READ: u32 = 4;
/// To write to it; to change the names in a directory.
pub const WRITE: u32 = 2;
const EXECUTE: u32 = 1;
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
        Rights { uid, gid, mode }
    }

    pub fn has_set_id(self) -> bool {
        self.mode & (SET_USER | SET_GROUP) != 0
    }
}

impl Dir {
    pub fn rights(self) -> Rights {
        match self {
            Dir::Everybodys => Rights::new(0, 0, 0o777),
            Dir::Sticky => Rights::new(0, 0, 0o1777),
            Dir::Roots => Rights::new(0, 0, 0o755),
            Dir::Anns => Rights::new(User::Ann.uid(), User::Ann.gid(), 0o755),
        }
    }
}

impl User {
    pub fn uid(self) -> u32 {
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

    /// Of a file that he makes.
    pub fn makes(self, mode: u32) -> Rights {
        Rights::new(self.uid(), self.gid(), mode)
    }

    /// Whether he has all of [`READ`] and [`WRITE`] that are wanted.
    pub fn may(self, file: Rights, wanted: u32) -> bool {
        let class = match (self.uid() == file.uid, self.is_in(file.gid)) {
            (true, _) => file.mode >> 6,
            (false, true) => file.mode >> 3,
            (false, false) => file.mode,
        };
        self == User::Root || class & wanted == wanted
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
        let Rights { mode, .. } = self.without_set_id(file);
        Rights { uid, gid, mode }
    }

    /// The mode that chmod(2) makes of the one that is asked for.
    pub fn mode_set(self, file: Rights, mode: u32) -> u32 {
        match self.keeps_group(file) {
            true => mode,
            false => mode & !SET_GROUP,
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
        assert_eq!(Ann.gives(Rights::new(1000, 1000, 0o2666), 1000, 1000).mode, 0o2666);
        for (by, set) in [(Root, 0o6755), (Ann, 0o4755), (Bob, 0o6755)] {
            assert_eq!(by.mode_set(team(0o644), 0o6755), set);
        }
    }
}
