//! `.concord/daemon.json`: where the daemon of a project is, so that its socket can be reached past the mount.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::lossless::{JsonPath, JsonTime};
use super::protocol;
use crate::os::mountinfo::{ConcordMount, MountTable};
use crate::os::proc;

/// The project's store, relative to its root.
const STORE: &str = ".concord";
/// Relative to the store.
const FILE: &str = "daemon.json";
const FILE_NEW: &str = "daemon.json.new";
const SOCKET: &str = "sock";
/// Blocks that nothing is in.
const SPARE: &str = "spare";
/// A longer daemon.json is not ours.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The content of daemon.json.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beacon {
    /// The daemon's process id.
    pub pid: u32,
    /// When that process started, in clock ticks since boot (proc_pid_stat(5), field 22): a reused pid is another process.
    pub start: u64,
    /// The daemon's descriptor of the backing tree's root.
    pub root_fd: u32,
    /// Where it is mounted.
    pub mountpoint: JsonPath,
    /// The id of that mount, as in mountinfo. Earlier versions do not say it.
    pub mount: Option<u64>,
    /// The version of the control protocol that it speaks.
    pub protocol: u32,
    /// When it mounted.
    pub started: JsonTime,
}

/// Why no beacon could be read.
#[derive(Debug, thiserror::Error)]
pub enum BeaconError {
    /// There is none: nothing is mounted.
    #[error("no daemon.json is there")]
    None,
    /// It cannot be read.
    #[error("daemon.json cannot be read: {0}")]
    Read(io::Error),
    /// It is not ours.
    #[error("daemon.json is not understood: {0}")]
    Garbage(String),
}

impl Beacon {
    /// The beacon of this process, which has the backing tree open as `root`.
    pub fn of_this_process(root: impl AsFd, mountpoint: &Path) -> io::Result<Self> {
        // By which it can be found in /proc, whose pid namespace may not be ours.
        let pid = proc::own_pid().unwrap_or_else(std::process::id);
        Ok(Self {
            pid,
            start: life(pid)?.start,
            root_fd: root.as_fd().as_raw_fd().unsigned_abs(),
            mountpoint: mountpoint.into(),
            mount: MountTable::read()?.at(mountpoint).map(|mount| mount.id),
            protocol: protocol::VERSION,
            started: JsonTime::now(),
        })
    }

    /// Reads `project/.concord/daemon.json`. What it says is the word of whoever can write there: check it.
    pub fn read(project: &Path) -> Result<Self, BeaconError> {
        // NONBLOCK and NOFOLLOW: a fifo or a link planted there must neither hang nor lead astray.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(CWD, project.join(STORE).join(FILE), flags, Mode::empty()).map_err(|errno| {
            if errno == rustix::io::Errno::NOENT {
                BeaconError::None
            } else {
                BeaconError::Read(errno.into())
            }
        })?;
        let mut text = Vec::new();
        File::from(fd)
            .take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut text)
            .map_err(BeaconError::Read)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(BeaconError::Garbage(format!(
                "it is longer than {FILE_BYTES_MAX} bytes"
            )));
        }
        serde_json::from_slice(&text).map_err(|error| BeaconError::Garbage(error.to_string()))
    }

    /// The beacon of the daemon `pid`, which shows the tree at `backing`: found through its own descriptors, past whatever is mounted over that tree.
    ///
    /// # Errors
    /// [`BeaconError::None`] when that process does not run, or is no such daemon; [`BeaconError::Read`] with EACCES when it is another user's.
    pub fn of_daemon(pid: u32, backing: &Path) -> Result<Self, BeaconError> {
        let descriptors = PathBuf::from(format!("/proc/{pid}/fd"));
        let listed = std::fs::read_dir(&descriptors).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => BeaconError::None,
            _ => BeaconError::Read(error),
        })?;
        let names = listed
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut numbers: Vec<u32> = names.collect();
        // It opens the tree before nearly everything else.
        numbers.sort_unstable();
        for number in numbers {
            let tree = descriptors.join(number.to_string());
            if !std::fs::read_link(&tree).is_ok_and(|leads_to| leads_to == backing) {
                continue;
            }
            match Self::read(&tree) {
                Ok(beacon) if (beacon.pid, beacon.root_fd) == (pid, number) => return Ok(beacon),
                // Another descriptor of the tree; or the tree is another daemon's.
                Ok(beacon) if beacon.pid == pid || beacon.is_alive() => {}
                // There is none, or one of a daemon that has ended, or the disk fails.
                _ => return Self::unwritten(pid, number, backing).ok_or(BeaconError::None),
            }
        }
        Err(BeaconError::None)
    }

    /// What a daemon has written, or would have, if there had been room: by its mount. That it is one, its socket tells.
    fn unwritten(pid: u32, root_fd: u32, backing: &Path) -> Option<Self> {
        let start = life(pid).ok()?.start;
        let mounts = MountTable::of(pid).ok()?;
        let is_its = |mount: &&ConcordMount| mount.daemon == Some(pid) && mount.backing == backing;
        let mount = mounts.concord().find(is_its)?;
        Some(Self {
            pid,
            start,
            root_fd,
            mountpoint: (&mount.mountpoint).into(),
            mount: Some(mount.id),
            protocol: protocol::VERSION,
            // Not later than this.
            started: JsonTime::now(),
        })
    }

    /// Writes it into the store of the tree that is open as `root`, whole or not at all.
    pub fn write(&self, root: impl AsFd) -> io::Result<()> {
        let store = open_store(root)?;
        let bytes = serde_json::to_vec(self)?;
        let written = match write_new(&store, &bytes) {
            Err(error) if is_full(&error) => {
                // That of a daemon that has ended has room for one.
                let _ = rustix::fs::unlinkat(&store, FILE, AtFlags::empty());
                let again = write_new(&store, &bytes);
                again.or_else(|_| write_into_spare(&store, &bytes)).map_err(|_| error)
            }
            written => written,
        };
        let named = written.and_then(|()| Ok(rustix::fs::renameat(&store, FILE_NEW, &store, FILE)?));
        if named.is_err() {
            let _ = rustix::fs::unlinkat(&store, FILE_NEW, AtFlags::empty());
        }
        named
    }

    /// Whether the process that wrote it still runs. One that was killed does not, although it may not have let go of everything yet.
    pub fn is_alive(&self) -> bool {
        matches!(life(self.pid), Ok(Life { start, state: State::Runs | State::Stopped }) if start == self.start)
    }

    /// Whether a signal has stopped that process: it answers nobody until it is continued.
    pub fn is_stopped(&self) -> bool {
        is_stopped(self.pid)
    }

    /// Whether nothing of that process is left: no thread that still holds the descriptors of all.
    pub fn has_ended(&self) -> bool {
        !life(self.pid).is_ok_and(|life| life.start == self.start && life.state != State::Ended)
    }

    /// The backing tree, past the mount. Only for the daemon's user and root (proc_pid_fd(5)).
    pub fn tree(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", self.pid, self.root_fd))
    }

    /// The socket, past the mount and within the 108 bytes of unix(7).
    pub fn socket(&self) -> PathBuf {
        self.tree().join(STORE).join(SOCKET)
    }
}

/// Binds the socket of the tree that is open as `root`, for this user only. A socket left behind is replaced, so only
/// the holder of the store's lock may call this.
pub fn bind(root: impl AsFd) -> io::Result<UnixListener> {
    let store = open_store(root)?;
    let _ = rustix::fs::unlinkat(&store, SOCKET, AtFlags::empty());
    let path = format!("/proc/self/fd/{}/{SOCKET}", store.as_raw_fd());
    let listener = match UnixListener::bind(&path) {
        // Without a socket nobody can look at the disk through the mount, or unmount it. The spare is one inode.
        Err(error) if is_full(&error) => {
            rustix::fs::unlinkat(&store, SPARE, AtFlags::empty()).map_err(|_| error)?;
            UnixListener::bind(&path)?
        }
        bound => bound?,
    };
    // Who may connect is decided by SO_PEERCRED; the mode only spares others the attempt.
    rustix::fs::chmodat(&store, SOCKET, Mode::from_raw_mode(0o600), AtFlags::empty())?;
    Ok(listener)
}

/// Takes socket and daemon.json away, before the store's lock is given up.
pub fn remove(root: impl AsFd) -> io::Result<()> {
    let store = open_store(root)?;
    for name in [FILE, SOCKET] {
        match rustix::fs::unlinkat(&store, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn write_new(store: &File, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let _ = rustix::fs::unlinkat(store, FILE_NEW, AtFlags::empty());
    let mut file = File::from(rustix::fs::openat(store, FILE_NEW, flags, Mode::from_raw_mode(0o600))?);
    file.write_all(bytes)
}

/// The room that the store keeps for records on a full disk becomes the new daemon.json's; the store makes another when it can.
fn write_into_spare(store: &File, bytes: &[u8]) -> io::Result<()> {
    rustix::fs::renameat(store, SPARE, store, FILE_NEW)?;
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(store, FILE_NEW, flags, Mode::empty())?);
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)
}

/// Whether there was no room for it.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The store's directory itself, never what a link planted in its place leads to.
fn open_store(root: impl AsFd) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(root, STORE, flags, Mode::empty())?.into())
}

/// Whether a signal has stopped the process: SIGSTOP, or a debugger.
pub fn is_stopped(pid: u32) -> bool {
    life(pid).is_ok_and(|life| life.state == State::Stopped)
}

/// Of a process.
#[derive(Debug, PartialEq, Eq)]
struct Life {
    /// When it started, in clock ticks since boot.
    start: u64,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Runs,
    /// By a signal, or a debugger.
    Stopped,
    /// Its main thread is a zombie, others are not gone.
    Ends,
    /// A zombie, which some inits leave for long.
    Ended,
}

fn life(pid: u32) -> io::Result<Life> {
    let stat = std::fs::read(format!("/proc/{pid}/stat"))?;
    parse_life(&stat).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat")))
}

/// Fields 3, 20 and 22 of proc_pid_stat(5). The command name, field 2, is in parentheses and may itself hold spaces and parentheses, so
/// counting starts after the last.
fn parse_life(stat: &[u8]) -> Option<Life> {
    let after = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let fields: Vec<&str> = std::str::from_utf8(&stat[after..])
        .ok()?
        .split_ascii_whitespace()
        .collect();
    let state = match (*fields.first()?, *fields.get(17)?) {
        ("X" | "x", _) | ("Z", "0" | "1") => State::Ended,
        ("Z", _) => State::Ends,
        ("T" | "t", _) => State::Stopped,
        _ => State::Runs,
    };
    let start = fields.get(19)?.parse().ok()?;
    Some(Life { start, state })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(STORE)).unwrap();
        let root = File::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn what_was_written_is_read_and_alive() {
        let (dir, root) = project();
        let beacon = Beacon::of_this_process(&root, dir.path()).unwrap();
        beacon.write(&root).unwrap();
        beacon.write(&root).unwrap();
        assert_eq!(Beacon::read(dir.path()).unwrap(), beacon);
        assert!(beacon.is_alive());
        assert_eq!(
            std::fs::canonicalize(beacon.tree()).unwrap(),
            dir.path().canonicalize().unwrap()
        );
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let (dir, root) = project();
        let mut beacon = Beacon::of_this_process(&root, dir.path()).unwrap();
        beacon.start += 1;
        assert!(!beacon.is_alive());
    }

    #[test]
    fn a_missing_or_garbled_file_is_told_apart() {
        let (dir, _root) = project();
        let file = dir.path().join(STORE).join(FILE);
        assert!(matches!(Beacon::read(dir.path()), Err(BeaconError::None)));
        for garbage in [&b""[..], b"{", b"\xff\xfe", b"{\"pid\":-1}", &[b' '; 70_000]] {
            std::fs::write(&file, garbage).unwrap();
            assert!(matches!(Beacon::read(dir.path()), Err(BeaconError::Garbage(_))));
        }
    }

    #[test]
    fn a_planted_link_or_fifo_neither_leads_astray_nor_hangs() {
        let (dir, root) = project();
        let file = dir.path().join(STORE).join(FILE);
        std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
        assert!(matches!(Beacon::read(dir.path()), Err(BeaconError::Read(_))));
        std::fs::remove_file(&file).unwrap();
        rustix::fs::mknodat(CWD, &file, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(Beacon::read(dir.path()).is_err());
        std::fs::remove_dir_all(dir.path().join(STORE)).unwrap();
        std::os::unix::fs::symlink("/tmp", dir.path().join(STORE)).unwrap();
        assert!(bind(&root).is_err());
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_both_files_go_at_the_end() {
        let (dir, root) = project();
        drop(bind(&root).unwrap());
        let _listener = bind(&root).unwrap();
        Beacon::of_this_process(&root, dir.path())
            .unwrap()
            .write(&root)
            .unwrap();
        remove(&root).unwrap();
        remove(&root).unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join(STORE)).unwrap().count(), 0);
    }

    #[test]
    fn a_zombie_has_ended() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let (_dir, root) = project();
        let mut beacon = Beacon::of_this_process(&root, Path::new("/p")).unwrap();
        beacon.pid = child.id();
        // WNOWAIT leaves the zombie where it is.
        let pid = rustix::process::Pid::from_child(&child);
        let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
        beacon.start = life(child.id()).unwrap().start;
        assert!(!beacon.is_alive() && beacon.has_ended());
        child.wait().unwrap();
    }

    #[test]
    fn a_command_name_full_of_parentheses_does_not_move_the_fields() {
        let mut stat = b"12 (a) R 1 (b) ".to_vec();
        stat.extend_from_slice(b"S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20 21");
        assert_eq!(parse_life(&stat).unwrap().start, 777);
        assert_eq!(parse_life(b"12 no parentheses"), None);
        assert_eq!(parse_life(b"12 (x) S 1"), None);
    }

    #[test]
    fn a_process_has_ended_when_its_last_thread_has() {
        let stat = |state: &str, threads: u32| {
            let text = format!("12 (x) {state} 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 {threads} 21 777 23");
            let life = parse_life(text.as_bytes()).unwrap();
            assert_eq!(life.start, 777);
            life.state
        };
        assert_eq!(stat("S", 5), State::Runs);
        assert_eq!(stat("Z", 2), State::Ends);
        assert_eq!(stat("Z", 1), State::Ended);
        assert_eq!(stat("X", 1), State::Ended);
    }
}
