//! What the kernel has not asked. It checks permissions on the inode that a walk found; an open that waits, a handle that goes on after a lock, and lines that
//! follow a name may in the end be about another one: who waited behind a rename(2) over the file gets what was renamed there.

use std::os::fd::{AsFd, BorrowedFd};

use parking_lot::Mutex;
use rustix::fs::{Access, OFlags};
use rustix::io::Errno;

use super::Coordination;
use super::session::Session;
use crate::mount::attr;
use crate::mount::nodes::{Identity, Name};
use crate::mount::pin::{self, Pin};
use crate::mount::tree::Caller;
use crate::os::creds;
use crate::session::{FileKey, ProcId};

/// An ACL that is longer counts as none; both versions of a file then do.
const ACL_BYTES_MAX: usize = 4096;

/// What open(2) with these flags must be allowed to do.
pub fn wanted(flags: OFlags) -> Access {
    let access = pin::Access::of(flags);
    let mut wanted = Access::empty();
    if access.reads() {
        wanted |= Access::READ_OK;
    }
    if access.writes() || flags.contains(OFlags::TRUNC) {
        wanted |= Access::WRITE_OK;
    }
    wanted
}

/// What the kernel has let in who opens a file, or is about to change it by its path.
#[derive(Debug, Clone)]
pub enum LetIn {
    /// That is not known.
    Unknown,
    /// By what this inode is just now.
    By(Identity),
    /// By what the file was before he had to wait: who owns it, its mode and its ACL may have been changed since.
    Before(Rights),
}

impl LetIn {
    /// Of one who was let in by an inode that had these rights, and may have `waited` since.
    pub fn since(inode: Option<Identity>, rights: Option<Rights>, waited: bool) -> LetIn {
        match (inode, rights) {
            (Some(inode), _) if !waited => LetIn::By(inode),
            (_, Some(rights)) => LetIn::Before(rights),
            _ => LetIn::Unknown,
        }
    }

    fn holds_for(&self, file: impl AsFd) -> Result<bool, Errno> {
        Ok(match self {
            LetIn::Unknown => false,
            LetIn::By(inode) => *inode == identity(&file)?,
            LetIn::Before(rights) => Rights::of(&file).is_some_and(|now| now.allow_the_same_as(rights)),
        })
    }
}

/// Whether the caller may do this with a file, unless the kernel has said so.
///
/// # Errors
/// EACCES.
pub fn check(caller: Caller, file: impl AsFd, let_in: &LetIn, wanted: Access) -> Result<(), Errno> {
    if caller.uid == 0 || let_in.holds_for(&file)? {
        return Ok(());
    }
    creds::access_as(
        caller.uid,
        caller.gid,
        caller.tid,
        &pin::proc_path(file.as_fd()),
        wanted,
    )
}

/// Whether who was let in by `rights` may replace or continue `other`. The process may have ended, and its groups be forgotten: equal rights are enough.
pub fn may_write(caller: Caller, rights: Option<&Rights>, other: impl AsFd) -> bool {
    caller.uid == 0
        || rights.is_some_and(|rights| rights.cover(&other))
        || check(caller, &other, &LetIn::Unknown, Access::WRITE_OK).is_ok()
}

impl Coordination {
    /// Whether the caller may do this with what a name leads to, which `version` holds, unless it is `seen`.
    ///
    /// # Errors
    /// EACCES.
    pub(super) fn check_version(
        &self,
        caller: Caller,
        (name, version): (&Name, BorrowedFd<'_>),
        seen: Option<Identity>,
        wanted: Access,
    ) -> Result<(), Errno> {
        if caller.uid == 0 || seen == Some(identity(version)?) {
            return Ok(());
        }
        let live = self.live_behind_image(name)?;
        let asked = live.as_ref().map_or(version, |live| live.as_fd());
        check(caller, asked, &LetIn::Unknown, wanted)
    }

    /// By what a caller was let in who may have to wait for a file: what the name leads to, if that is what the kernel has `seen`. Root, and who finds nobody there,
    /// need none; nor does who has no node of his own, for he was not sent round to wait.
    pub(super) fn rights_before(
        &self,
        caller: Caller,
        file: FileKey,
        (name, seen): (&Name, Option<Identity>),
        own_node: bool,
    ) -> Option<Rights> {
        if caller.uid == 0 || !own_node || self.files.lock().queue.is_idle(file) {
            return None;
        }
        let pin = self.current_pin(name).ok()?;
        let is_seen = seen.is_some() && identity(pin.fd()).ok() == seen;
        is_seen.then(|| self.rights_of(caller, name, &pin)).flatten()
    }

    /// By what a caller was let in who has just opened `pin` by a name; root has none.
    pub fn rights_of(&self, caller: Caller, name: &Name, pin: &Pin) -> Option<Rights> {
        if caller.uid == 0 {
            return None;
        }
        let behind_image = || {
            let now = attr::identity(&self.stat(name).ok()?, false);
            (identity(pin.fd()).ok()? == now).then(|| self.live_behind_image(name).ok()?)?
        };
        match behind_image() {
            Some(live) => Rights::of(live),
            None => Rights::of(pin.fd()),
        }
    }

    /// Whether its writer may write to what a name leads to, though it may be another file than he has opened.
    pub(super) fn may_replace(&self, session: &Session, base: impl AsFd, (name, replaced): (&Name, &Pin)) -> bool {
        let same = || Ok::<bool, Errno>(identity(&base)? == identity(replaced.fd())?);
        if session.about.caller.uid == 0 || same().unwrap_or(false) {
            return true;
        }
        let Ok(live) = self.live_behind_image(name) else {
            return false;
        };
        let asked = live.as_ref().map_or(replaced.fd(), |live| live.as_fd());
        may_write(session.about.caller, session.about.rights.as_ref(), asked)
    }
}

/// By what a file was opened: its owner, group, mode and ACL at that time. Later it may have others, and a file with those is none that could be opened.
#[derive(Debug, Clone)]
pub struct Rights {
    inode: Identity,
    owner: (u32, u32),
    mode: u32,
    acl: Option<Vec<u8>>,
}

impl Rights {
    /// Those of a file by now.
    pub fn of(file: impl AsFd) -> Option<Rights> {
        let fd = file.as_fd();
        let stat = rustix::fs::fstat(fd).ok()?;
        let mut acl = [0; ACL_BYTES_MAX];
        // By name: a path descriptor cannot be asked.
        let length = rustix::fs::getxattr(pin::proc_path(fd), "system.posix_acl_access", &mut acl[..]);
        Some(Rights {
            inode: attr::identity(&stat, false),
            owner: (stat.st_uid, stat.st_gid),
            mode: stat.st_mode,
            acl: length.ok().map(|length| acl[..length].to_vec()),
        })
    }

    /// Whether a file is the same, or could have been opened as well.
    pub fn cover(&self, file: impl AsFd) -> bool {
        Rights::of(file).is_some_and(|now| now.inode == self.inode || now.allow_the_same_as(self))
    }

    fn allow_the_same_as(&self, other: &Rights) -> bool {
        (self.owner, self.mode, &self.acl) == (other.owner, other.mode, &other.acl)
    }
}

fn identity(file: impl AsFd) -> Result<Identity, Errno> {
    Ok(attr::identity(&rustix::fs::fstat(file)?, false))
}

/// Whose handle it is, and which inode it is known to be right for.
#[derive(Debug)]
pub struct Right {
    caller: Caller,
    rights: Option<Rights>,
    inode: Mutex<Option<Identity>>,
}

impl Right {
    /// Of a handle that `caller`, of `process`, has opened on `file` by these rights.
    pub fn new(caller: Caller, process: ProcId, file: impl AsFd, rights: Option<Rights>) -> Right {
        Right {
            caller: of_process(caller, process),
            rights,
            inode: Mutex::new(identity(file).ok()),
        }
    }

    /// The inode that it is right for.
    pub fn inode(&self) -> Option<Identity> {
        *self.inode.lock()
    }

    /// Whether it may write to what its name leads to by now.
    pub fn covers(&self, file: impl AsFd) -> bool {
        let Ok(identity) = identity(&file) else { return false };
        let mut inode = self.inode.lock();
        let covers = *inode == Some(identity) || may_write(self.caller, self.rights.as_ref(), file);
        if covers {
            *inode = Some(identity);
        }
        covers
    }
}

/// The same caller when the thread that asked may be gone: its groups are its process's.
pub fn of_process(caller: Caller, process: ProcId) -> Caller {
    Caller {
        tid: process.tgid,
        ..caller
    }
}
