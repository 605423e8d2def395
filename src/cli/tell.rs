//! The process that tells watchers of publishes: see `mount::notices`. It works inside the mount, and is not the daemon, which never may.

use std::io::{self, Read, Write};
use std::path::Path;

use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::output::Answer;
use crate::mount::notices::{self, Message, News};
use crate::os::handle;

/// Touches each node that it is told of on standard input, until that ends, and answers each with a byte. "No" without the right to do so.
pub fn run(mountpoint: &Path) -> anyhow::Result<Answer> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut message = Message::default();
    while input.read_exact(&mut message).is_ok() {
        let (node, news) = notices::read_message(message);
        let told = touch(mountpoint, node, news);
        // Otherwise nobody has it open or watches it, or the mount is gone, which ends the input too.
        if told.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return Ok(Answer::No);
        }
        output.write_all(&[0])?;
        output.flush()?;
    }
    Ok(Answer::Yes)
}

fn touch(mountpoint: &Path, node: u64, news: News) -> io::Result<()> {
    // Not for longer than it takes: the mount is in use meanwhile.
    rustix::process::chdir(mountpoint)?;
    let opened = handle::open_fuse_node(node);
    rustix::process::chdir("/")?;
    let opened = opened?;
    let set = |last_access| {
        let times = Timestamps {
            last_access: special(last_access),
            last_modification: special(UTIME_NOW),
        };
        rustix::fs::utimensat(&opened, "", &times, AtFlags::EMPTY_PATH)
    };
    set(UTIME_OMIT)?;
    if news == News::Replaced {
        set(UTIME_NOW)?;
    }
    Ok(())
}

fn special(nanoseconds: rustix::fs::Nsecs) -> Timespec {
    Timespec {
        tv_sec: 0,
        tv_nsec: nanoseconds,
    }
}
