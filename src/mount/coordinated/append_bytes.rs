//! Bytes that go from one file to the end of another (W10).

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

const COPY_CHUNK_BYTES: usize = 256 * 1024;

/// Whether a file of this length ends in the middle of a line.
fn ends_open(file: &File, length: u64) -> std::io::Result<bool> {
    let mut last = [0];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    Ok(length > 0 && last != *b"\n")
}

/// Ends the last line of a file.
pub(super) fn glue(file: &File) -> std::io::Result<()> {
    let length = file.metadata()?.len();
    if ends_open(file, length)? {
        file.write_all_at(b"\n", length)?;
    }
    Ok(())
}

/// Appends a part of a file to another.
pub(super) fn copy(from: &File, part: (u64, u64), to: &File) -> std::io::Result<()> {
    copy_to(from, part, to, to.metadata()?.len())
}

pub(super) fn copy_to(from: &File, (start, end): (u64, u64), to: &File, at: u64) -> std::io::Result<()> {
    let mut done = 0;
    while start + done < end {
        let wanted = COPY_CHUNK_BYTES.min((end - start - done) as usize);
        let chunk = super::staged::read_at(from.as_fd(), start + done, wanted)?;
        if chunk.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all_at(&chunk, at + done)?;
        done += chunk.len() as u64;
    }
    Ok(())
}
