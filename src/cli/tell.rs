//! The process that tells watchers of publishes: see `mount::notices`. It works inside the mount, and is not the daemon, which never may.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;

use crate::mount::notices::{self, News};

/// What this program is called with to be that process.
pub const NAME: &str = "tell";

/// Tells each notice that comes on standard input, until that ends, and answers each with a byte.
pub fn run(mountpoint: &Path) -> io::Result<()> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    while let Ok((news, path)) = notices::read(&mut input) {
        // It fails where nobody has the node open or watches it, it may not be touched, or the mount is gone, which ends the input too.
        let _ = tell(mountpoint, news, &path);
        output.write_all(&[0])?;
        output.flush()?;
    }
    Ok(())
}

fn tell(mountpoint: &Path, news: News, path: &Path) -> rustix::io::Result<()> {
    // Not for longer than it takes: the mount is in use meanwhile.
    let root = rustix::fs::open(
        mountpoint,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // A path leads to the plain tree when the mount is gone, where to touch a file is to change it.
    if rustix::fs::statat(&root, notices::probe(), AtFlags::SYMLINK_NOFOLLOW).err() != Some(notices::MOUNTED) {
        return Err(Errno::NOTCONN);
    }
    let told = open(&root, news, path).and_then(|opened| match news {
        News::Mounted => copy(&opened),
        _ => touch(&opened, news),
    });
    if notices::node_at(path).is_some() {
        // The kernel forgets the name, and with it a node that nobody needs. It is never removed, and so this fails.
        let _ = rustix::fs::unlinkat(&root, path, AtFlags::empty());
    }
    told
}

fn open(root: &OwnedFd, news: News, path: &Path) -> rustix::io::Result<OwnedFd> {
    // Nor may a path lead out of the mount that has been changed meanwhile.
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let open = |flags| rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), within);
    match news {
        // A file that may not be written to, or runs, is touched all the same.
        News::Saved => open(OFlags::WRONLY | OFlags::NONBLOCK).or_else(|_| open(OFlags::PATH)),
        News::Modified | News::Gone => open(OFlags::PATH),
        News::Mounted => open(OFlags::RDWR),
    }
}

/// The kernel asks the daemon, which refuses.
fn copy(opened: &OwnedFd) -> rustix::io::Result<()> {
    let (mut from, mut to) = (0, 1);
    rustix::fs::copy_file_range(opened, Some(&mut from), opened, Some(&mut to), 1).map(drop)
}

fn touch(opened: &OwnedFd, news: News) -> rustix::io::Result<()> {
    let last_access = if news == News::Gone { UTIME_NOW } else { UTIME_OMIT };
    let times = Timestamps {
        last_access: special(last_access),
        last_modification: special(UTIME_NOW),
    };
    rustix::fs::utimensat(opened, "", &times, AtFlags::EMPTY_PATH)
}

fn special(nanoseconds: rustix::fs::Nsecs) -> Timespec {
    Timespec {
        tv_sec: 0,
        tv_nsec: nanoseconds,
    }
}
