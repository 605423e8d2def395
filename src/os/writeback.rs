//! sync_file_range(2).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Starts writing the file's dirty pages to the disk and does not wait for it: `sync_file_range(SYNC_FILE_RANGE_WRITE)`
/// over the whole file, see sync_file_range(2). It is a hint; it makes nothing durable.
///
/// # Errors
/// The system call's errno, e.g. EIO, ENOSPC.
pub fn start_writeback(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `file` is borrowed; the call takes no pointers.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
