//! The disk seam: the few things the store asks of a filesystem. [`RealDisk`](super::RealDisk) is the system calls, and
//! the tests' disk forgets what was not synced.

use std::ffi::{OsStr, OsString};
use std::io;

use super::record::Who;

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// Anything else; the store never opens it.
    Other,
}

/// The part of stat(2) that the store looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Modification time, ns since the epoch.
    pub mtime_ns: i64,
    /// Change time, ns since the epoch.
    pub ctime_ns: i64,
    /// Names that lead to it.
    pub nlink: u64,
    /// Whether it has a set-id bit.
    pub has_set_id: bool,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: OsString,
    /// What it leads to.
    pub kind: Kind,
}

/// A filesystem, as far as the store needs one. Every method is one operation that can fail, and none follows a symbolic
/// link in `name`. Errors are the errno of the system call.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open regular file.
    type File: Send + Sync;
    /// A directory's handle; cheap to clone.
    type Dir: Clone + Send + Sync;

    /// Opens a directory; ENOTDIR or ELOOP when `name` is none.
    fn open_dir(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<Self::Dir>;
    /// mkdir(2), mode 0700.
    fn make_dir(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<()>;
    /// Takes away what others than the owner may do with a directory that is in `parent`. PermissionDenied when the owner is neither this process's user nor
    /// the parent's owner: whoever could make a directory there could have put it there for us.
    fn restrict_dir(&self, dir: &Self::Dir, parent: &Self::Dir) -> io::Result<()>;
    /// Gives a file that this process made, or knows the content of, to the owner of the directory it is in. Where that cannot be, its maker keeps it.
    fn give(&self, file: &Self::File, dir: &Self::Dir);
    /// The same with a directory.
    fn give_dir(&self, made: &Self::Dir, dir: &Self::Dir);
    /// Whether the file's owner is the directory's.
    fn is_given(&self, file: &Self::File, dir: &Self::Dir) -> bool;
    /// Whether the directory is this process's user's.
    fn is_ours(&self, dir: &Self::Dir) -> bool;
    /// Whose it is, if that is another than this process's user.
    fn owner_unlike_ours(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<Option<u32>>;
    /// Which mounting of its filesystem the directory was found on: another number means that the page cache may be another. `None` where the kernel
    /// does not tell.
    fn mounting(&self, dir: &Self::Dir) -> Option<u64>;
    /// Everything in the directory except `.` and `..`.
    fn list(&self, dir: &Self::Dir) -> io::Result<Vec<Entry>>;
    /// fsync(2) of a directory.
    fn sync_dir(&self, dir: &Self::Dir) -> io::Result<()>;

    /// A new file, read and write, mode 0600; EEXIST when there is something.
    fn create(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<Self::File>;
    /// A new file without a name on the filesystem of `dir`, for [`Disk::link_file`] (open(2), O_TMPFILE).
    fn create_unnamed(&self, dir: &Self::Dir) -> io::Result<Self::File>;
    /// utimensat(2) of both times to now.
    fn touch(&self, file: &Self::File) -> io::Result<()>;
    /// Opens a regular file for reading; InvalidInput when it is something else.
    fn open(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<Self::File>;
    /// Opens a regular file that is there for reading and writing.
    fn open_writable(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<Self::File>;
    /// fstat(2).
    fn stat(&self, file: &Self::File) -> io::Result<Stat>;
    /// lstat(2).
    fn stat_at(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<Stat>;
    /// pread(2).
    fn read_at(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// pwrite(2) of the whole buffer.
    fn write_at(&self, file: &Self::File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// ftruncate(2).
    fn set_len(&self, file: &Self::File, len: u64) -> io::Result<()>;
    /// fsync(2) of a file.
    fn sync_file(&self, file: &Self::File) -> io::Result<()>;
    /// Starts writing the file's data out and does not wait; promises nothing.
    fn start_writeback(&self, file: &Self::File) -> io::Result<()>;
    /// Makes `to`'s content that of `from`, sharing blocks where the filesystem can, and keeping holes.
    fn copy_content(&self, from: &Self::File, to: &Self::File) -> io::Result<()>;
    /// Gives `to` the owner, group, mode, ACL and extended attributes of `from`; of set-id bits and file capabilities what
    /// a write(2) of the writer has left, where there is one.
    fn copy_meta(&self, from: &Self::File, to: &Self::File, writer: Option<&Who>) -> io::Result<()>;
    /// Makes the content of `to`, a file that others know by its inode, that of `from`. Room is made for it first: where there is none, nothing has
    /// changed. What fails later leaves a part of each.
    fn overwrite(&self, from: &Self::File, to: &Self::File) -> io::Result<()>;
    /// Gives `to` the times of last access and modification of `from`.
    fn copy_times(&self, from: &Self::File, to: &Self::File) -> io::Result<()>;
    /// Takes the exclusive lock of the file without waiting; `false` when another holds it.
    fn try_lock(&self, file: &Self::File) -> io::Result<bool>;

    /// rename(2).
    fn rename(&self, from: (&Self::Dir, &OsStr), to: (&Self::Dir, &OsStr)) -> io::Result<()>;
    /// renameat2(2) with RENAME_NOREPLACE.
    fn rename_noreplace(&self, from: (&Self::Dir, &OsStr), to: (&Self::Dir, &OsStr)) -> io::Result<()>;
    /// renameat2(2) with RENAME_EXCHANGE.
    fn exchange(&self, a: (&Self::Dir, &OsStr), b: (&Self::Dir, &OsStr)) -> io::Result<()>;
    /// link(2).
    fn link(&self, from: (&Self::Dir, &OsStr), to: (&Self::Dir, &OsStr)) -> io::Result<()>;
    /// Gives an open file that has no name (O_TMPFILE) one.
    fn link_file(&self, file: &Self::File, to: (&Self::Dir, &OsStr)) -> io::Result<()>;
    /// unlink(2).
    fn unlink(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<()>;
    /// rmdir(2).
    fn remove_dir(&self, dir: &Self::Dir, name: &OsStr) -> io::Result<()>;
}

/// `Ok(None)` for ENOENT.
pub(super) fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The whole of a small file; InvalidData when it is longer than `max` bytes.
pub(super) fn read_small<D: Disk>(disk: &D, dir: &D::Dir, name: &OsStr, max: u64) -> io::Result<Vec<u8>> {
    read_whole(disk, &disk.open(dir, name)?, max)
}

/// The same of an open file.
pub(super) fn read_whole<D: Disk>(disk: &D, file: &D::File, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 1024];
    let mut len = 0;
    loop {
        if len == bytes.len() {
            bytes.resize(len * 4, 0);
        }
        match disk.read_at(file, &mut bytes[len..], len as u64)? {
            0 => break,
            n => len += n,
        }
        if len as u64 > max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it is longer than {max} bytes"),
            ));
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}
