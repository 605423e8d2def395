//! Who a thread belongs to, asked of the kernel by pidfd: pidfd_open(2), ioctl PIDFD_GET_INFO (Linux 6.13). Four short system calls, and no lock
//! that a task in execve(2) could hold.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::proc::Process;

/// The process of a thread; `None` when it is gone, or the kernel cannot tell.
pub fn process(tid: u32) -> Option<Process> {
    let thread = open(tid, libc::PIDFD_THREAD)?;
    let info = info(&thread)?;
    let leader = if info.tgid == tid { thread } else { open(info.tgid, 0)? };
    Some(Process {
        pid: info.tgid,
        unique: rustix::fs::fstat(&leader).ok()?.st_ino,
        parent: info.ppid,
    })
}

fn open(id: u32, flags: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(id).ok()?)?;
    pidfd_open(pid, PidfdFlags::from_bits_retain(flags)).ok()
}

fn info(pidfd: &OwnedFd) -> Option<libc::pidfd_info> {
    let mut info = MaybeUninit::<libc::pidfd_info>::zeroed();
    // SAFETY: the kernel writes at most the size that the request's number carries, which is that of `pidfd_info`; zeroes ask for what is always told.
    let told = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), libc::PIDFD_GET_INFO as _, info.as_mut_ptr()) };
    // SAFETY: integers only, all initialized: to zero above.
    (told == 0).then(|| unsafe { info.assume_init() })
}
