//! The credentials and the umask of the calling thread alone.
//!
//! glibc's `setgroups`, `setfsuid` … keep all threads of a process alike; a FUSE server needs the opposite: the thread that
//! serves a request becomes the caller while it creates a file, the others stay what they are. Hence raw system calls.

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use rustix::fs::{Access, AtFlags};

/// `CAP_DAC_OVERRIDE`, capabilities(7): kept while acting as somebody else, because the kernel has already checked access
/// to the mounted tree, with capabilities of the caller that the daemon cannot see.
const CAP_DAC_OVERRIDE: u32 = 1;
/// `CAP_FSETID`: who has it may write to a set-user-id file without the bit being cleared.
const CAP_FSETID: u32 = 4;
/// `CAP_SETGID` and `CAP_SETUID`: without them nobody can be impersonated.
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Header and data of capget(2) and capset(2), version 3.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Whether this thread has CAP_SYS_ADMIN, capabilities(7): without it nothing is mounted directly, and the kernel takes no descriptor for passthrough.
pub fn is_admin() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

fn capabilities() -> io::Result<[CapData; 2]> {
    let mut header = CapHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let mut data = [CapData::default(); 2];
    // SAFETY: capget(2) writes two `CapData` for version 3, and `data` holds two; both pointers outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capget, &mut header, data.as_mut_ptr()) };
    if result == 0 {
        Ok(data)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn set_capabilities(data: &[CapData; 2]) -> io::Result<()> {
    let mut header = CapHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    // SAFETY: capset(2) reads two `CapData` for version 3; pid 0 means the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_capset, &mut header, data.as_ptr()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What this process started with; every serving thread has the same.
fn own_capabilities() -> Option<[CapData; 2]> {
    static OWN: OnceLock<Option<[CapData; 2]>> = OnceLock::new();
    *OWN.get_or_init(|| {
        let data = capabilities().ok()?;
        let needed = 1 << CAP_SETUID | 1 << CAP_SETGID;
        (data[0].effective & needed == needed).then_some(data)
    })
}

/// setfsuid(2); returns the previous id, there is no error.
fn set_fsuid(uid: u32) -> u32 {
    // SAFETY: setfsuid(2) takes one integer and changes the calling thread only.
    unsafe { libc::syscall(libc::SYS_setfsuid, uid) as u32 }
}

/// setfsgid(2); returns the previous id, there is no error.
fn set_fsgid(gid: u32) -> u32 {
    // SAFETY: setfsgid(2) takes one integer and changes the calling thread only.
    unsafe { libc::syscall(libc::SYS_setfsgid, gid) as u32 }
}

/// setgroups(2) for the calling thread.
fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: setgroups(2) reads `groups.len()` ids from a slice that outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The supplementary groups of a thread, from `/proc/TID/status`; empty when it is gone.
fn groups_of(tid: u32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    ids(&status, "Groups:").collect()
}

/// Whether a thread or process is in a group, with the one that counts for files; not when it is gone.
pub fn is_in_group(tid: u32, group: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    ids(&status, "Gid:").nth(FSGID) == Some(group) || ids(&status, "Groups:").any(|other| other == group)
}

/// Place of the group for files among those of the line `Gid:`, proc_pid_status(5).
const FSGID: usize = 3;

fn ids<'a>(status: &'a str, key: &str) -> impl Iterator<Item = u32> + 'a {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let ids = line.unwrap_or_default().split_ascii_whitespace();
    ids.filter_map(|id| id.parse().ok())
}

/// The calling thread acts as somebody else until this is dropped.
#[derive(Debug)]
pub struct Assumed {
    /// What to put back: fsuid and fsgid.
    ids: Option<(u32, u32)>,
    own_groups: Option<Vec<u32>>,
    /// Not `Send`: what it undoes belongs to this thread.
    _this_thread: std::marker::PhantomData<*const ()>,
}

impl Assumed {
    /// Makes the calling thread create files as `uid` and `gid` (setfsuid(2), setfsgid(2)). Does nothing when that is who
    /// we are, or when this process may not become others: the mount then belongs to one user.
    pub fn user(uid: u32, gid: u32) -> Assumed {
        let mut assumed = Assumed {
            ids: None,
            own_groups: None,
            _this_thread: std::marker::PhantomData,
        };
        let Some(own) = own_capabilities() else { return assumed };
        if (uid, gid) == (0, 0) {
            return assumed;
        }
        let own_gid = set_fsgid(gid);
        let own_uid = set_fsuid(uid);
        if uid != 0 {
            // setfsuid to a user has just taken the file capabilities from the effective set.
            let mut reduced = own;
            reduced[0].effective &= !FILE_CAPABILITIES;
            reduced[0].effective |= own[0].permitted & 1 << CAP_DAC_OVERRIDE;
            if let Err(error) = set_capabilities(&reduced) {
                log::warn!("cannot keep CAP_DAC_OVERRIDE while acting as user {uid}: {error}");
            }
        }
        assumed.ids = Some((own_uid, own_gid));
        assumed
    }

    /// As [`Assumed::user`], with the supplementary groups of the thread `tid` as well. The kernel asks for them only
    /// when it decides whether a set-group-id bit may stay; reading them costs as much as the rest of a create.
    pub fn user_with_groups(uid: u32, gid: u32, tid: u32) -> Assumed {
        let replaced = (uid != 0).then(|| take_groups_of(tid)).flatten();
        let mut assumed = Assumed::user(uid, gid);
        assumed.own_groups = replaced;
        assumed
    }

    /// Only the groups: what is made and written remains ours.
    fn groups(gid: u32, tid: u32) -> Assumed {
        let own_groups = take_groups_of(tid);
        // Nobody has this id, so nothing is changed.
        let ids = own_groups.is_some().then(|| (set_fsuid(u32::MAX), set_fsgid(gid)));
        Assumed {
            ids,
            own_groups,
            _this_thread: std::marker::PhantomData,
        }
    }
}

/// Gives the calling thread the supplementary groups of another, and returns its own.
fn take_groups_of(tid: u32) -> Option<Vec<u32>> {
    own_capabilities()?;
    let own = rustix::process::getgroups().ok()?;
    match set_groups(&groups_of(tid)) {
        Ok(()) => Some(own.iter().map(|gid| gid.as_raw()).collect()),
        Err(error) => {
            log::warn!("cannot take on the groups of thread {tid}: {error}");
            None
        }
    }
}

/// What setfsuid(2) takes away when it goes from 0 to a user: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID,
/// LINUX_IMMUTABLE, MKNOD (all below 32; MAC_OVERRIDE, bit 32, is not ours to use).
const FILE_CAPABILITIES: u32 = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << CAP_FSETID | 1 << 9 | 1 << 27;

impl Drop for Assumed {
    fn drop(&mut self) {
        if let Some((uid, gid)) = self.ids {
            set_fsuid(uid);
            set_fsgid(gid);
            // Going back to 0 raises all file capabilities that are permitted; put back exactly what was.
            if let Some(own) = own_capabilities()
                && let Err(error) = set_capabilities(&own)
            {
                log::warn!("cannot put the daemon's capabilities back: {error}");
            }
        }
        if let Some(groups) = &self.own_groups
            && let Err(error) = set_groups(groups)
        {
            log::warn!("cannot put the daemon's groups back: {error}");
        }
    }
}

/// access(2) by the thread `tid` of user `uid` and group `gid`: what the file's own permissions say, none of the daemon's capabilities in play. Where the
/// daemon may not become others, it asks for itself: the mount is then its user's alone.
///
/// # Errors
/// Those of access(2).
pub fn access_as(uid: u32, gid: u32, tid: u32, path: &str, wanted: Access) -> rustix::io::Result<()> {
    let _as_them = Assumed::user_with_groups(uid, gid, tid);
    if let Some(mut reduced) = own_capabilities() {
        reduced[0].effective &= !FILE_CAPABILITIES;
        set_capabilities(&reduced).map_err(|_| rustix::io::Errno::ACCESS)?;
    }
    rustix::fs::accessat(rustix::fs::CWD, path, wanted, AtFlags::EACCESS)
}

/// Runs `work` without `CAP_FSETID`, so that what it does to set-user-id files clears the bits as it would for a user.
pub fn without_fsetid<T>(work: impl FnOnce() -> T) -> T {
    let Some(own) = own_capabilities() else { return work() };
    let mut reduced = own;
    reduced[0].effective &= !(1 << CAP_FSETID);
    if let Err(error) = set_capabilities(&reduced) {
        log::warn!("cannot drop CAP_FSETID: {error}");
    }
    let result = work();
    if let Err(error) = set_capabilities(&own) {
        log::warn!("cannot put CAP_FSETID back: {error}");
    }
    result
}

/// Runs `work`, which changes the data or the owner of `file`, on behalf of a thread without CAP_FSETID, and its group: set-id bits go as by its own call.
pub fn clearing_set_id<T>(gid: u32, tid: u32, file: BorrowedFd<'_>, work: impl FnOnce() -> T) -> T {
    let mode = rustix::fs::fstat(file).map_or(0, |stat| stat.st_mode);
    let _in_groups = is_set_group_only(mode).then(|| Assumed::groups(gid, tid));
    without_fsetid(work)
}

const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;

/// Whether a set-group-id bit stays for who is in the group: it means nothing, for the group may not execute the file.
fn is_set_group_only(mode: u32) -> bool {
    const GROUP_EXECUTE: u32 = 0o010;
    mode & (SET_GROUP | GROUP_EXECUTE) == SET_GROUP
}

/// What write(2) by who has no CAP_FSETID makes of a mode, inode(7); `is_in_group`: the file's (setattr_should_drop_sgid() of Linux 6).
pub fn mode_written(mode: u32, is_in_group: impl FnOnce() -> bool) -> u32 {
    match is_set_group_only(mode) && is_in_group() {
        true => mode & !SET_USER,
        false => mode & !(SET_USER | SET_GROUP),
    }
}

/// Sets the umask of the calling thread only: the thread first leaves the process's shared umask, working directory and
/// root, unshare(2) with CLONE_FS. The kernel then applies it, or the parent's default ACL instead, as it should.
///
/// # Errors
/// What unshare(2) says; the umask is then unchanged.
pub fn set_thread_umask(umask: u32) -> io::Result<()> {
    thread_local! {
        static CURRENT: Cell<Option<u32>> = const { Cell::new(None) };
    }
    let umask = umask & 0o777;
    let current = CURRENT.get();
    if current == Some(umask) {
        return Ok(());
    }
    if current.is_none() {
        // SAFETY: unshare(2) with CLONE_FS copies what the thread shared; it touches no memory of ours.
        if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: umask(2) cannot fail and, after the unshare, concerns this thread only.
    unsafe { libc::umask(umask as libc::mode_t) };
    CURRENT.set(Some(umask));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn a_file_made_as_another_user_belongs_to_that_user_and_the_thread_comes_back() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        {
            let _as_user = Assumed::user_with_groups(4242, 4343, std::process::id());
            std::fs::write(dir.path().join("theirs"), "").unwrap();
        }
        std::fs::write(dir.path().join("ours"), "").unwrap();
        let theirs = std::fs::metadata(dir.path().join("theirs")).unwrap();
        let ours = std::fs::metadata(dir.path().join("ours")).unwrap();
        assert_eq!((theirs.uid(), theirs.gid()), (4242, 4343));
        assert_eq!((ours.uid(), ours.gid()), (0, 0));
        assert_eq!(
            capabilities().unwrap()[0].effective,
            own_capabilities().unwrap()[0].effective
        );
    }

    #[test]
    fn set_id_bits_go_but_for_the_one_that_means_nothing_and_is_of_the_writers_group() {
        for (mode, of_his, of_others) in [
            (0o644, 0o644, 0o644),
            (0o4755, 0o755, 0o755),
            (0o2664, 0o2664, 0o664),
            (0o2674, 0o674, 0o674),
            (0o6664, 0o2664, 0o664),
            (0o6777, 0o777, 0o777),
        ] {
            assert_eq!(mode_written(mode, || true), of_his, "{mode:o}");
            assert_eq!(mode_written(mode, || false), of_others, "{mode:o}");
        }
    }

    #[test]
    fn a_file_is_changed_in_the_groups_of_who_changes_it_and_the_thread_comes_back() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let before = capabilities().unwrap()[0].effective;
        for (gid, left) in [(4343, 0o2666), (4344, 0o666)] {
            std::os::unix::fs::chown(file.path(), Some(4242), Some(4343)).unwrap();
            file.as_file()
                .set_permissions(PermissionsExt::from_mode(0o6666))
                .unwrap();
            let cut = || file.as_file().set_len(1);
            clearing_set_id(gid, std::process::id(), file.as_file().as_fd(), cut).unwrap();
            assert_eq!(file.as_file().metadata().unwrap().mode() & 0o7777, left);
        }
        assert_eq!(capabilities().unwrap()[0].effective, before);
        let made = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(
            (
                made.as_file().metadata().unwrap().uid(),
                made.as_file().metadata().unwrap().gid()
            ),
            (0, 0)
        );
    }

    #[test]
    fn the_umask_of_one_thread_is_not_the_umask_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("masked");
        let made = path.clone();
        std::thread::spawn(move || {
            set_thread_umask(0o077).unwrap();
            std::fs::write(made, "").unwrap();
        })
        .join()
        .unwrap();
        std::fs::write(dir.path().join("plain"), "").unwrap();
        let mode = |path: std::path::PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(path), 0o600);
        assert_ne!(mode(dir.path().join("plain")), 0o600);
    }
}
