//! Bytes that go to the end of a file (W10).

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::io::{Errno, ReadWriteFlags};

const COPY_CHUNK_BYTES: usize = 256 * 1024;

/// How long a file is.
pub(super) fn end_of(file: &File) -> Result<u64, Errno> {
    Ok(rustix::fs::fstat(file)?.st_size.max(0) as u64)
}

/// Appends to a file to which others may append at the same time.
pub(super) fn append(file: &File, data: &[u8]) -> std::io::Result<()> {
    let mut rest = data;
    while !rest.is_empty() {
        match rustix::io::pwritev2(file, &[IoSlice::new(rest)], 0, ReadWriteFlags::APPEND) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(count) => rest = &rest[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Ends the last line of a file.
pub(super) fn glue(file: &File) -> std::io::Result<()> {
    let length = end_of(file)?;
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    if last != *b"\n" { append(file, b"\n") } else { Ok(()) }
}

/// Appends a part of a file to another.
pub(super) fn copy(from: &File, (start, end): (u64, u64), to: &File) -> std::io::Result<()> {
    let mut at = start;
    while at < end {
        let wanted = COPY_CHUNK_BYTES.min((end - at) as usize);
        let chunk = super::staged::read_at(from.as_fd(), at, wanted)?;
        if chunk.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        append(to, &chunk)?;
        at += chunk.len() as u64;
    }
    Ok(())
}
