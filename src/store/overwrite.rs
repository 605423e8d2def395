//! Writing a file's whole content in place: its inode stays, because other names lead to it.

use std::fs::File;
use std::io;

use rustix::fs::{self, FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::real::copy_range;

/// A part of a file: from one offset to another.
type Extent = (u64, u64);

/// Makes the content of `to` that of `from`: shared blocks where the filesystem can (ioctl_ficlone(2)), else a copy. Blocks for it are allocated
/// first, and none is given back before the end, so that a full disk is found out before anything has changed.
///
/// # Errors
/// ENOSPC, EDQUOT and EFBIG before the first byte; EIO at any time.
pub(super) fn overwrite(from: &File, to: &File) -> io::Result<()> {
    let (length, before) = (from.metadata()?.len(), to.metadata()?.len());
    // A clone of a shorter file leaves the rest of a longer one, ioctl_ficlonerange(2).
    if fs::ioctl_ficlone(to, from).is_ok() {
        return to.set_len(length);
    }
    let extents = extents(from, length)?;
    for (start, end) in &extents {
        match fs::fallocate(to, FallocateFlags::KEEP_SIZE, *start, end - start) {
            // Then it is found out while writing.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => break,
            result => result?,
        }
    }
    let mut at = 0;
    for (start, end) in &extents {
        clear(to, (at, (*start).min(before)))?;
        copy_range(from, to, *start, *end)?;
        at = *end;
    }
    clear(to, (at, length.min(before)))?;
    to.set_len(length)
}

/// Where a file has data, in order.
fn extents(file: &File, length: u64) -> io::Result<Vec<Extent>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < length {
        let start = match fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => at,
            Err(error) => return Err(error.into()),
        };
        let end = match fs::seek(file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(length),
            Err(Errno::INVAL | Errno::NXIO) => length,
            Err(error) => return Err(error.into()),
        };
        if start >= length {
            break;
        }
        found.push((start, end.max(start + 1)));
        at = end.max(start + 1);
    }
    Ok(found)
}

/// Makes a part read as zeros.
fn clear(file: &File, (start, end): Extent) -> io::Result<()> {
    if start >= end {
        return Ok(());
    }
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match fs::fallocate(file, how, start, end - start) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, (start, end)),
        result => Ok(result?),
    }
}

fn write_zeros(file: &File, (start, end): Extent) -> io::Result<()> {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    let mut at = start;
    while at < end {
        let count = ZEROS.len().min((end - at) as usize);
        std::os::unix::fs::FileExt::write_all_at(file, &ZEROS[..count], at)?;
        at += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    fn file(parts: &[(u64, &[u8])], length: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        parts
            .iter()
            .for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
        file.set_len(length).unwrap();
        file
    }

    fn content(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn a_file_becomes_another_s_content_whether_longer_shorter_or_with_holes() {
        let block = [7u8; 8192];
        let contents = [
            file(&[], 0),
            file(&[(0, b"short")], 5),
            file(&[(0, &block)], 8192),
            file(&[(1 << 20, &block)], 3 << 20),
            file(&[(0, &block), (1 << 20, b"in the middle")], (1 << 20) + 4096),
        ];
        for from in &contents {
            for before in &contents {
                let mut to = tempfile::tempfile().unwrap();
                to.write_all(&content(before)).unwrap();
                let inode = to.metadata().unwrap().ino();
                overwrite(from, &to).unwrap();
                assert!(content(from) == content(&to));
                assert_eq!(to.metadata().unwrap().ino(), inode);
            }
        }
    }
}
