//! Who keeps a mount in use: working directories, open files and programs in it, by what /proc says of each process. Looks into no mount.

use std::collections::HashSet;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

use crate::control::lossless::printable;
use crate::os::mountinfo::ConcordMount;
use crate::os::proc;

/// So many are named; of more only how many there are.
const NAMED_MAX: usize = 5;

/// A process that works in the mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    pub command: String,
    /// Only its working directory is there.
    pub idle: bool,
    /// What it has there.
    pub what: String,
}

/// Every process that works in the mount, as far as this user may see. Neither this process, nor what the daemon has started: that goes with the mount.
pub fn of(mount: &ConcordMount) -> Vec<Holder> {
    let is_daemons = |pid| mount.daemon.is_some() && proc::process(pid).map(|process| process.parent) == mount.daemon;
    let listed = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut holders: Vec<Holder> = pids
        .filter(|pid| *pid != std::process::id())
        .filter_map(|pid| holder(pid, mount.id, &mount.mountpoint))
        .filter(|holder| !is_daemons(holder.pid))
        .collect();
    holders.sort_by_key(|holder| holder.pid);
    holders
}

fn holder(pid: u32, mount: u64, mountpoint: &Path) -> Option<Holder> {
    let of = PathBuf::from(format!("/proc/{pid}"));
    let open = std::fs::read_dir(of.join("fd")).into_iter().flatten().flatten();
    let file = open
        .map(|entry| entry.path())
        .find(|link| is_on(&of, link, mount, mountpoint));
    let file = file.or_else(|| Some(of.join("exe")).filter(|link| is_on(&of, link, mount, mountpoint)));
    let dir = ["cwd", "root"].map(|name| of.join(name));
    let dir = dir.into_iter().find(|link| is_on(&of, link, mount, mountpoint));
    let idle = file.is_none();
    let (link, what) = match (file, dir) {
        (Some(file), _) => (file, "open"),
        (None, Some(dir)) => (dir, "working directory"),
        (None, None) => return None,
    };
    let target = std::fs::read_link(&link).unwrap_or_default();
    let inside = target.strip_prefix(mountpoint).unwrap_or(&target);
    let what = match inside.as_os_str().is_empty() {
        true => what.to_owned(),
        false => format!("{what}: {}", printable(inside)),
    };
    let command = proc::command(pid).map_or("unknown".into(), |name| String::from_utf8_lossy(&name).into_owned());
    Some(Holder {
        pid,
        command,
        idle,
        what,
    })
}

/// Whether a link of /proc leads into the mount. The same path may be in the tree below: the id of the mount tells, which needs no look into it.
fn is_on(process: &Path, link: &Path, mount: u64, mountpoint: &Path) -> bool {
    if !std::fs::read_link(link).is_ok_and(|target| target.starts_with(mountpoint)) {
        return false;
    }
    let number = link.strip_prefix(process.join("fd")).ok();
    let id = match number {
        Some(number) => mount_id(&process.join("fdinfo").join(number)),
        None => {
            let opened = rustix::fs::openat(CWD, link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
            opened
                .ok()
                .and_then(|fd| mount_id(Path::new(&format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))))
        }
    };
    id == Some(mount)
}

/// `mnt_id:` of proc_pid_fdinfo(5).
fn mount_id(fdinfo: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(fdinfo).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))?
        .trim()
        .parse()
        .ok()
}

/// Whether all that is in use are working directories of the process that asks and of those that started it.
pub fn are_only_who_asks(holders: &[Holder], ancestors: &HashSet<u32>) -> bool {
    holders
        .iter()
        .all(|holder| holder.idle && ancestors.contains(&holder.pid))
}

/// Whether any of them was there before. Others may only be passing: a program that opens a file now and then, or is just ending.
pub fn stays_any(before: &[Holder], now: &[Holder]) -> bool {
    now.iter()
        .any(|holder| before.iter().any(|other| other.pid == holder.pid))
}

/// This process and those that started it.
pub fn ancestors() -> HashSet<u32> {
    let own = proc::own_pid().and_then(proc::process);
    let above = own.iter().flat_map(proc::ancestors).map(|process| process.pid);
    above.chain(own.iter().map(|process| process.pid)).collect()
}

/// `bash (pid 7, working directory), vim (pid 8, open: a.md)`.
pub fn named(holders: &[Holder]) -> String {
    let one = |holder: &Holder| format!("{} (pid {}, {})", printable(&holder.command), holder.pid, holder.what);
    let named: Vec<_> = holders.iter().take(NAMED_MAX).map(one).collect();
    match holders.len().saturating_sub(NAMED_MAX) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn holder(pid: u32, idle: bool) -> Holder {
        let what = if idle { "working directory" } else { "open: a.md" };
        Holder {
            pid,
            command: "sh".into(),
            idle,
            what: what.into(),
        }
    }

    #[test]
    fn only_idle_ancestors_may_be_left() {
        let ancestors = HashSet::from([1, 7]);
        assert!(are_only_who_asks(&[], &ancestors));
        assert!(are_only_who_asks(&[holder(7, true), holder(1, true)], &ancestors));
        assert!(!are_only_who_asks(&[holder(7, false)], &ancestors));
        assert!(!are_only_who_asks(&[holder(7, true), holder(8, true)], &ancestors));
    }

    #[test]
    fn who_was_there_before_stays_and_others_may_be_passing() {
        let (vim, git) = (holder(7, false), holder(8, false));
        assert!(!stays_any(&[], std::slice::from_ref(&vim)));
        assert!(!stays_any(std::slice::from_ref(&vim), &[]));
        assert!(!stays_any(std::slice::from_ref(&vim), std::slice::from_ref(&git)));
        assert!(stays_any(&[git, vim.clone()], &[vim]));
    }

    #[test]
    fn a_few_are_named_and_the_others_counted() {
        assert_eq!(
            named(&[holder(7, true), holder(8, false)]),
            "sh (pid 7, working directory), sh (pid 8, open: a.md)"
        );
        let many: Vec<_> = (1..=8).map(|pid| holder(pid, true)).collect();
        assert!(named(&many).ends_with("sh (pid 5, working directory) and 3 more"));
    }

    #[test]
    fn who_works_on_a_mount_is_found_by_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .current_dir(&path)
            .spawn()
            .unwrap();
        let opened = File::open(&path).unwrap();
        let id = mount_id(Path::new(&format!("/proc/self/fdinfo/{}", opened.as_raw_fd()))).unwrap();
        let pid = child.id();
        let found = super::holder(pid, id, &path);
        let elsewhere = super::holder(pid, id + 1_000_000, &path);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(
            found.map(|holder| (holder.idle, holder.what)),
            Some((true, "working directory".into()))
        );
        assert_eq!(elsewhere, None);
    }
}
