//! The descriptors of a process: proc_pid_fd(5). All of it waits for execve, see [`super::proc`]. Its threads share one table of them, unless one has called unshare(2) with
//! CLONE_FILES; and its main thread has none any more when it has left and others go on.
//!
//! What a descriptor leads to is not asked of its filesystem, which may be us, but of what the kernel remembers (AT_STATX_DONT_SYNC, statx(2)). The node of a FUSE mount is in the
//! file handle (name_to_handle_at(2)), whatever inode number it is shown by.

use std::fmt::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, StatxFlags};

use super::proc;

/// The numbers of a process's descriptors take 24 bytes each in a directory's entries.
const ENTRIES_BYTES: usize = 32 << 10;

/// A filesystem, by the device number that stat(2) shows of its files.
pub type Device = (u32, u32);

/// What is looked for. Without a device, on any filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// Its filesystem; `None` where that is not known.
    pub device: Option<Device>,
    /// The inode numbers that stat(2) may show of it.
    pub inos: [u64; 2],
    /// Its node, where it is on a FUSE mount and [`tells_nodes`].
    pub node: Option<u64>,
}

/// What a descriptor is open on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// Its filesystem.
    pub device: Device,
    /// Its inode number, as it was shown last.
    pub ino: u64,
}

/// A table of descriptors. Of a task that is ending it is empty.
#[derive(Debug)]
pub struct Table {
    dir: OwnedFd,
}

impl Table {
    /// Those of a process, each once. None when it is gone.
    pub fn all_of(pid: u32) -> Vec<Table> {
        let mut found: Vec<u32> = Vec::new();
        for tid in proc::threads(pid) {
            if !found.iter().any(|other| is_shared(*other, tid)) {
                found.push(tid);
            }
        }
        found.into_iter().filter_map(Table::of).collect()
    }

    /// That of a thread; `None` when it is gone.
    fn of(tid: u32) -> Option<Table> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(proc::path(tid, "fd"), flags, Mode::empty()).ok()?;
        Some(Table { dir })
    }

    /// How many descriptors there are. `None` when there are none, and before Linux 6.2, which does not tell.
    pub fn count(&self) -> Option<usize> {
        let size = rustix::fs::fstat(&self.dir).ok()?.st_size;
        usize::try_from(size).ok().filter(|count| *count > 0)
    }

    /// Their numbers. Can be asked once.
    pub fn numbers(&self) -> Vec<u32> {
        let mut numbers = Vec::new();
        let mut buffer = Vec::with_capacity(ENTRIES_BYTES);
        let mut entries = RawDir::new(&self.dir, buffer.spare_capacity_mut());
        while let Some(Ok(entry)) = entries.next() {
            let number = proc::number(entry.file_name().to_bytes(), 10);
            numbers.extend(number.and_then(|number| u32::try_from(number).ok()));
        }
        numbers
    }

    /// What a descriptor is open on; `None` when it is closed.
    pub fn open(&self, number: u32) -> Option<Open> {
        let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
        let stat = rustix::fs::statx(&self.dir, name(number), flags, StatxFlags::INO).ok()?;
        Some(Open {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            ino: stat.stx_ino,
        })
    }

    /// The node of a descriptor that is open on a FUSE mount. `None` where nobody tells.
    pub fn node(&self, number: u32) -> Option<u64> {
        let mut name = name(number);
        name.push('\0');
        handle(self.dir.as_raw_fd(), name.as_bytes()).ok()?.node()
    }

    /// Whether a descriptor lets write: the mode of its link says so, and one by O_PATH has none.
    pub fn writes(&self, number: u32) -> bool {
        let stat = rustix::fs::statat(&self.dir, name(number), AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| Mode::from_raw_mode(stat.st_mode).contains(Mode::WUSR))
    }

    /// Whether any descriptor is open on `file`, for writing. As [`Table::numbers`].
    pub fn has_for_writing(&self, file: File) -> bool {
        self.numbers().into_iter().any(|number| self.holds(number, file))
    }

    /// Whether a descriptor is open on `file`, for writing.
    pub fn holds(&self, number: u32, file: File) -> bool {
        let is_it = |open: Open| {
            let on_device = file.device.is_none_or(|device| device == open.device);
            on_device
                && match file.node.map(|looked_for| (looked_for, self.node(number))) {
                    Some((looked_for, Some(node))) => looked_for == node,
                    _ => file.inos.contains(&open.ino),
                }
        };
        self.open(number).is_some_and(is_it) && self.writes(number)
    }
}

/// Whether a process has `file` open for writing.
pub fn holds_for_writing(pid: u32, file: File) -> bool {
    Table::all_of(pid).iter().any(|table| table.has_for_writing(file))
}

/// Whether two threads of a process share one table of descriptors. Where nobody tells (kcmp(2) is not built in, or not permitted) they do, as in nearly every program,
/// as long as the first is there.
fn is_shared(one: u32, other: u32) -> bool {
    const KCMP_FILES: libc::c_int = 2;
    // SAFETY: numbers only.
    match unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, 0, 0) } {
        0 => true,
        -1 => !proc::has_left(one),
        _ => false,
    }
}

/// A file handle, name_to_handle_at(2).
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    words: [u32; HANDLE_BYTES_MAX / size_of::<u32>()],
}

/// MAX_HANDLE_SZ, linux/exportfs.h.
const HANDLE_BYTES_MAX: usize = 128;
/// What FUSE's handles are like (`fuse_encode_fh`): the node in two words, the higher one first, and its generation.
const FUSE_KIND: i32 = 0x81;
const FUSE_BYTES: u32 = 12;

impl Handle {
    fn node(&self) -> Option<u64> {
        let is_fuse = self.kind == FUSE_KIND && self.bytes == FUSE_BYTES;
        is_fuse.then(|| u64::from(self.words[0]) << 32 | u64::from(self.words[1]))
    }
}

/// The handle of what a path leads to, which ends with a zero byte.
fn handle(dir: libc::c_int, path: &[u8]) -> std::io::Result<Handle> {
    let mut handle = Handle {
        bytes: HANDLE_BYTES_MAX as u32,
        kind: 0,
        words: [0; HANDLE_BYTES_MAX / size_of::<u32>()],
    };
    let mut mount: libc::c_int = 0;
    debug_assert_eq!(path.last(), Some(&0));
    // SAFETY: the path ends with a zero byte, and the kernel writes no more than `bytes` says behind the first two fields.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir,
            path.as_ptr(),
            &raw mut handle,
            &raw mut mount,
            libc::AT_SYMLINK_FOLLOW,
        )
    };
    match result {
        0 => Ok(handle),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Whether nodes are told at all: the kernel may have no file handles, or seccomp(2) keep us from them.
pub fn tells_nodes() -> bool {
    static TELLS: OnceLock<bool> = OnceLock::new();
    *TELLS.get_or_init(|| {
        let refused = handle(libc::AT_FDCWD, b"/\0")
            .err()
            .and_then(|error| error.raw_os_error());
        // Whether a filesystem has handles is another matter: FUSE has.
        !matches!(refused, Some(libc::ENOSYS | libc::EPERM | libc::EACCES))
    })
}

fn name(number: u32) -> String {
    let mut name = String::with_capacity(10);
    // Writing to a String cannot fail.
    let _ = write!(name, "{number}");
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn file_of(file: &std::fs::File) -> File {
        let stat = file.metadata().unwrap();
        let device = (rustix::fs::major(stat.dev()), rustix::fs::minor(stat.dev()));
        File {
            device: Some(device),
            inos: [stat.ino(); 2],
            node: None,
        }
    }

    #[test]
    fn only_descriptors_open_for_writing_count() {
        let open = tempfile::NamedTempFile::new().unwrap();
        let file = file_of(open.as_file());
        let own = std::process::id();
        assert!(holds_for_writing(own, file));
        let elsewhere = File {
            device: Some((0, 0)),
            ..file
        };
        assert!(!holds_for_writing(own, elsewhere));
        assert!(holds_for_writing(own, File { device: None, ..file }));
        let path = open.into_temp_path();
        assert!(!holds_for_writing(own, file));
        let readable = std::fs::File::open(&path).unwrap();
        assert!(!holds_for_writing(own, file));
        let by_path = rustix::fs::open(&*path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        assert!(!holds_for_writing(own, file));
        let writable = std::fs::File::options().append(true).open(&path).unwrap();
        assert!(holds_for_writing(own, file));
        drop((writable, readable, by_path));
        assert!(!holds_for_writing(own, file));
    }

    #[test]
    fn a_thread_with_a_table_of_its_own_counts() {
        let open = tempfile::NamedTempFile::new().unwrap();
        let file = file_of(open.as_file());
        let own = std::process::id();
        let (says, hears) = std::sync::mpsc::channel();
        let (quit, asked) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            // SAFETY: numbers only.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
            says.send(()).unwrap();
            let _ = asked.recv();
        });
        hears.recv().unwrap();
        let of_others = Table::all_of(own).len();
        drop(open);
        assert!(holds_for_writing(own, file), "the thread's table has it");
        drop(quit);
        thread.join().unwrap();
        assert!(!holds_for_writing(own, file));
        // Threads of other tests end meanwhile, and have none then.
        assert!(of_others >= 2, "{of_others}");
    }

    #[test]
    fn a_sleeper_has_as_many_descriptors_as_numbers() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let known = (0..200).any(|_| {
            let table = Table::all_of(child.id()).pop().unwrap();
            // Before Linux 6.2 the count is not told.
            let equal = table.count().is_none_or(|count| count == table.numbers().len());
            equal || {
                std::thread::sleep(std::time::Duration::from_millis(25));
                false
            }
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(known);
        assert!(Table::all_of(u32::MAX / 2).is_empty());
    }
}
