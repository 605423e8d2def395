//! Who is at the other end of a socket: SO_PEERCRED, unix(7). rustix has it too, but not for a peer whose process id is 0 to us, because it is in a pid namespace
//! that ours is no ancestor of.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The process that connected, or that listened when we did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Its process id, 0 when it is not to be seen from here.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
}

/// The peer of a connected unix socket.
///
/// # Errors
/// Those of getsockopt(2).
pub fn credentials(socket: BorrowedFd<'_>) -> io::Result<Credentials> {
    let mut found = MaybeUninit::<libc::ucred>::zeroed();
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    let pointer = found.as_mut_ptr().cast();
    // SAFETY: getsockopt(2) writes at most `length` bytes, which is the size of what `pointer` points to; both outlive the call.
    let told = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            pointer,
            &mut length,
        )
    };
    if told != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: integers only, all initialized: to zero above.
    let found = unsafe { found.assume_init() };
    Ok(Credentials {
        pid: found.pid.unsigned_abs(),
        uid: found.uid,
    })
}
