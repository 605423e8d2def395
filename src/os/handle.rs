//! Files by handle, open_by_handle_at(2).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// `FILEID_INO64_GEN`, the handles of fs/fuse: node number (high half first) and generation.
const FILEID_INO64_GEN: libc::c_int = 0x81;
const WORDS: usize = 3;

#[repr(C)]
struct FuseHandle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    words: [u32; WORDS],
}

/// A node of the FUSE filesystem that the working directory lies in, `O_PATH`, as long as the kernel knows it: by whatever name, or by none.
///
/// # Errors
/// ESTALE when the kernel does not know it; EPERM without CAP_DAC_READ_SEARCH.
pub fn open_fuse_node(node: u64) -> io::Result<OwnedFd> {
    let mut handle = FuseHandle {
        bytes: size_of::<[u32; WORDS]>() as libc::c_uint,
        kind: FILEID_INO64_GEN,
        words: [(node >> 32) as u32, node as u32, 0],
    };
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: FuseHandle begins as `struct file_handle` does, and `bytes` says how many follow; the kernel only reads it.
    let fd = unsafe { libc::open_by_handle_at(libc::AT_FDCWD, (&raw mut handle).cast(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
