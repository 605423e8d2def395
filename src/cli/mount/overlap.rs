//! No two daemons coordinate one file: what is mounted already, and what is to be.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::cli::failure::Failure;
use crate::control::beacon::Beacon;
use crate::control::lossless::printable;
use crate::os::mountinfo::{ConcordMount, MountTable};

/// Whoever mounts meanwhile needs it only from its last look at the mounts to its own mount.
const ALONE_TIME_MAX: Duration = Duration::from_secs(10);
const ALONE_PAUSE: Duration = Duration::from_millis(10);

/// Refuses what would give a file two daemons, or hide a mount of ours from everybody.
pub fn check(mountpoint: &Path, backing: &Path) -> anyhow::Result<()> {
    let table = MountTable::read()?;
    match conflict(&table, mountpoint, backing) {
        Some(failure) => Err(failure.into()),
        None => served_above(&table, backing),
    }
}

/// By the paths of all mounts that are to be seen.
fn conflict(table: &MountTable, mountpoint: &Path, backing: &Path) -> Option<Failure> {
    let at = |mount: &ConcordMount| match mount.daemon {
        Some(pid) => format!("{} (pid {pid})", printable(&mount.mountpoint)),
        None => printable(&mount.mountpoint),
    };
    if let Some(outer) = table.containing(backing) {
        let why = format!(
            "it lies in the concord mount at {}, which coordinates its files",
            at(outer)
        );
        let root = printable(&outer.mountpoint);
        return Some(
            Failure::at(backing, why).hint(format!("use that one, or unmount it first: `concord unmount {root}`")),
        );
    }
    for mount in table.concord() {
        let other = printable(&mount.mountpoint);
        let first = format!("unmount that one first: `concord unmount {other}`");
        let one_filesystem = table.in_one_filesystem(backing, &mount.backing);
        if one_filesystem && backing.starts_with(&mount.backing) {
            let why = format!(
                "its files are coordinated already, by the concord mount at {}",
                at(mount)
            );
            return Some(Failure::at(backing, why).hint(first));
        }
        if one_filesystem && mount.backing.starts_with(backing) {
            let why = format!(
                "{} in it is coordinated already, by the concord mount at {}",
                printable(&mount.backing),
                at(mount)
            );
            return Some(Failure::at(backing, why).hint(first));
        }
        if let Some(above) = [mountpoint, backing]
            .into_iter()
            .find(|dir| mount.mountpoint.starts_with(dir))
        {
            let why = format!("there is a concord mount in it, at {}", at(mount));
            return Some(Failure::at(above, why).hint(format!("{first}; mount it again when this one is there")));
        }
    }
    None
}

/// By the stores of the directories above: also where the paths do not tell, as those of other mount namespaces and of bind mounts.
fn served_above(table: &MountTable, backing: &Path) -> anyhow::Result<()> {
    let one_filesystem = backing.ancestors().take_while(|dir| !table.is_mountpoint(dir));
    for above in one_filesystem.filter_map(Path::parent) {
        // Another user's cannot be read.
        if let Ok(beacon) = Beacon::read(above)
            && beacon.is_alive()
        {
            let (at, pid) = (printable(&beacon.mountpoint.0), beacon.pid);
            let why = format!("its files are coordinated already, by the concord mount at {at} (pid {pid})");
            let hint = format!("unmount that one first: `concord unmount {at}`");
            return Err(Failure::at(backing, why).hint(hint).into());
        }
    }
    Ok(())
}

/// Keeps other mounts of this machine from beginning, until it is dropped: what two of them would not see of each other. /dev/fuse is what
/// all of them have. Nothing when somebody keeps it for long: a mount must not depend on that.
pub fn alone() -> Option<File> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").ok()?;
    let started = Instant::now();
    loop {
        match rustix::fs::flock(&device, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(device),
            Err(Errno::WOULDBLOCK) if started.elapsed() < ALONE_TIME_MAX => std::thread::sleep(ALONE_PAUSE),
            Err(error) => {
                log::warn!("another mount may begin beside this one: locking /dev/fuse: {error}");
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::mountinfo::tests::table;

    fn said(lines: &[(u64, u64, &str, &str)], mountpoint: &str, backing: &str) -> String {
        let failure = conflict(&table(lines), Path::new(mountpoint), Path::new(backing));
        failure.map(|failure| failure.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_would_coordinate_a_file_twice_or_hide_a_mount_is_refused() {
        let over = [(1, 0, "/", ""), (2, 1, "/p", "/p")];
        let aside = [(1, 0, "/", ""), (2, 1, "/m", "/q/sub")];
        let inside = "it lies in the concord mount at /p (pid 1002)";
        let already = "coordinated already, by the concord mount at /m (pid 1002)";
        let in_it = "there is a concord mount in it";
        for (lines, mountpoint, backing, expected) in [
            (&over, "/p/sub", "/p/sub", inside),
            (&over, "/m", "/p", inside),
            (&over, "/m", "/p/sub", inside),
            (&over, "/", "/", "in it is coordinated already"),
            (&over, "/m", "/", "in it is coordinated already"),
            (&aside, "/n", "/q/sub", already),
            (&aside, "/q/sub/x", "/q/sub/x", already),
            (&aside, "/n", "/q", already),
            (&aside, "/q", "/q", already),
            (&aside, "/n", "/m", "it lies in the concord mount at /m"),
        ] {
            let said = said(lines, mountpoint, backing);
            assert!(said.contains(expected), "{mountpoint} {backing}: {said}");
        }
        let below = [(1, 0, "/", ""), (2, 1, "/p/m", "/q")];
        for (mountpoint, backing) in [("/p", "/p"), ("/n", "/p"), ("/p", "/r")] {
            assert!(
                said(&below, mountpoint, backing).contains(in_it),
                "{mountpoint} {backing}"
            );
        }
    }

    #[test]
    fn what_shares_no_file_is_not_refused() {
        let over = [(1, 0, "/", ""), (2, 1, "/p", "/p")];
        // A mount point in a mount is another filesystem there.
        for (mountpoint, backing) in [("/p/m", "/q"), ("/px", "/px"), ("/q", "/q")] {
            assert_eq!(said(&over, mountpoint, backing), "");
        }
        // So is a disk that is mounted below what another shows.
        let disk = [(1, 0, "/", ""), (2, 1, "/q/disk", ""), (3, 1, "/m", "/q")];
        assert_eq!(said(&disk, "/q/disk/x", "/q/disk/x"), "");
        let on_it = [(1, 0, "/", ""), (2, 1, "/p", "/p"), (3, 2, "/p/disk", "")];
        assert_eq!(said(&on_it, "/p/disk/x", "/p/disk/x"), "");
    }
}
