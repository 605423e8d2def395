//! The one place where errors become what the kernel is told.

use rustix::io::Errno;

/// The errno of a reply.
pub fn reply_errno(error: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(match error {
        // The daemon's own limit, not the caller's: open(2) has ENFILE for that.
        Errno::MFILE => Errno::NFILE.raw_os_error(),
        error => error.raw_os_error(),
    })
}

/// The errno of an error from the standard library or from fuser; EIO when it carries none.
pub fn from_io(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
