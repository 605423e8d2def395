//! The process that tells watchers of publishes: see `mount::notices`. It works inside the mount, and is not the daemon, which never may.

use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::output::Answer;
use crate::os::handle;

/// Touches each node whose number comes on standard input, until that ends. "No" without the right to do so.
pub fn run(mountpoint: &Path) -> anyhow::Result<Answer> {
    let mut input = io::stdin().lock();
    let mut number = [0; 8];
    while input.read_exact(&mut number).is_ok() {
        let told = touch(mountpoint, u64::from_ne_bytes(number));
        // Otherwise nobody has it open or watches it, or the mount is gone, which ends the input too.
        if told.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return Ok(Answer::No);
        }
    }
    Ok(Answer::Yes)
}

fn touch(mountpoint: &Path, node: u64) -> io::Result<()> {
    // Not for longer than it takes: the mount is in use meanwhile.
    rustix::process::chdir(mountpoint)?;
    let opened = handle::open_fuse_node(node);
    rustix::process::chdir("/")?;
    let now_modified = Timestamps {
        last_access: special(UTIME_OMIT),
        last_modification: special(UTIME_NOW),
    };
    rustix::fs::utimensat(opened?, "", &now_modified, AtFlags::EMPTY_PATH)?;
    Ok(())
}

fn special(nanoseconds: rustix::fs::Nsecs) -> Timespec {
    Timespec {
        tv_sec: 0,
        tv_nsec: nanoseconds,
    }
}
