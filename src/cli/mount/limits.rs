//! Limits that a daemon has from whoever mounts (getrlimit(2)): they would be all other programs' on the mount.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cli::failure::Failure;

/// Twice what is kept for closing what is open: with less, hardly anything could be opened.
const DESCRIPTORS_MIN: u64 = 256;

/// Whether the daemon may have so many descriptors that a mount over `dir` is of use. It raises the soft limit to the hard one itself.
pub fn enough_descriptors(dir: &Path) -> Result<(), Failure> {
    match getrlimit(Resource::Nofile).maximum {
        Some(maximum) if maximum < DESCRIPTORS_MIN => {
            let why = format!("the daemon may have {maximum} open files only, and every open would fail with ENFILE");
            let hint = format!(
                "raise the hard limit of open files to {DESCRIPTORS_MIN} or more (`ulimit -Hn`, LimitNOFILE= in systemd), 4096 for many programs"
            );
            Err(Failure::at(dir, why).hint(hint))
        }
        _ => Ok(()),
    }
}

/// Another program's write must not end the daemon (SIGXFSZ), and should not fail either (EFBIG) for a limit that is not that program's: it is raised as far as we may.
pub fn lift_file_size() -> std::io::Result<()> {
    // With a handler write(2) says EFBIG. Who is started by us has the default again.
    signal_hook::flag::register(libc::SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    let maximum = getrlimit(Resource::Fsize).maximum;
    let all = [None, maximum].map(|limit| Rlimit {
        current: limit,
        maximum: limit,
    });
    let _ = all.into_iter().any(|limit| setrlimit(Resource::Fsize, limit).is_ok());
    if let Some(bytes) = getrlimit(Resource::Fsize).current {
        log::warn!(
            "no file can be longer than {bytes} bytes, by the limit of who mounted (`ulimit -f`): longer ones fail with EFBIG"
        );
    }
    Ok(())
}
