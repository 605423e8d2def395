//! What /proc says about the tasks that talk to us: proc_pid_stat(5), proc_pid_status(5), proc_pid_fd(5), proc_pid_fdinfo(5).
//!
//! Every function here answers about a task that may be gone the next moment. Absence is an answer (`None`, `false`, an empty list), not an
//! error. /proc/PID/fd/N is not followed, since that could lead back into our own mount, but for what the kernel knows without asking a filesystem.
//!
//! **A task in execve(2) holds its `exec_update_lock` while it closes its O_CLOEXEC descriptors**, that is: while it waits for our answer to a
//! FLUSH. Newer kernels take that lock for /proc/PID/stat, fd/, fdinfo/ and environ (seen on 6.18.44), so reading these on the thread that would have to
//! answer hangs for ever. Functions that read them say so ("waits for execve"); they are for worker threads, and for tasks known not to be in it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags, RawDir};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::pidfd;
use super::signals::{EndsBy, Signals};
use super::syscall::Call;

/// A /proc/PID/stat line is a name of at most 64 bytes and some 50 numbers.
const STAT_BYTES_MAX: usize = 2048;
/// /proc/PID/status grows with the CPU and NUMA masks of large machines; what we read comes before those.
const STATUS_BYTES_MAX: usize = 8192;
/// `descendants` takes in no more of one thread's children, which is some 8,000 of them.
const CHILDREN_BYTES_MAX: usize = 64 << 10;
/// `ancestors` ends here, should /proc show a loop while tasks come and go.
const ANCESTORS_MAX: usize = 256;
/// `descendants` looks at no more than this many processes.
const DESCENDANTS_MAX: usize = 4096;

const PF_EXITING: u64 = 0x4;
/// Of an exit status as wait(2) has it: the signal that ended the process.
const TERMINATING_SIGNAL: u64 = 0x7f;

/// A process, told apart from others that have or had its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Thread group id.
    pub pid: u32,
    /// Never the same for two processes of one id: the number of its pidfd or, on kernels without, its start in clock ticks since boot.
    pub unique: u64,
    /// The parent's thread group id; 0 for the first process of a pid namespace.
    pub parent: u32,
}

/// One line of /proc/PID/stat, as far as it concerns us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    start: u64,
    flags: u64,
    /// As wait(2) will tell it; 0 while it lives, and where we may not know (ptrace(2), access mode checking).
    exit_code: u64,
}

/// What a task that is closing a file is in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// A system call of its own; or nobody can tell.
    Call,
    /// execve(2), past the point of no return.
    Exec,
    /// Its end, which came by itself: exit(2), or a return from main.
    Exit,
    /// Its end by a signal.
    Killed,
}

/// This process's id in the pid namespace that /proc shows, which is that of who mounted /proc; `None` when it shows none that we are in.
pub fn own_pid() -> Option<u32> {
    let itself = rustix::fs::readlink("/proc/self", Vec::new()).ok()?;
    u32::try_from(number(itself.as_bytes(), 10)?).ok()
}

/// Whether /proc shows our own pid namespace: otherwise a thread that the kernel names to us is another one there.
pub fn is_ours() -> bool {
    static OURS: OnceLock<bool> = OnceLock::new();
    *OURS.get_or_init(|| own_pid() == Some(std::process::id()))
}

/// The process of a thread. Waits for execve where pidfds do not tell (before Linux 6.13).
pub fn process(tid: u32) -> Option<Process> {
    pidfd::process(tid).or_else(|| {
        let pid = thread_group(tid)?;
        let stat = stat(pid)?;
        Some(Process {
            pid,
            unique: stat.start,
            parent: stat.parent,
        })
    })
}

/// The parents of a process, nearest first, without itself. Waits for execve where [`process`] does.
pub fn ancestors(process: &Process) -> Vec<Process> {
    let mut found = Vec::new();
    let mut next = process.parent;
    while next != 0 && found.len() < ANCESTORS_MAX {
        let Some(parent) = self::process(next) else { break };
        next = parent.parent;
        found.push(parent);
    }
    found
}

/// The name (`comm`) of a process: at most 15 bytes, or more for kernel threads; any bytes.
pub fn command(pid: u32) -> Option<Vec<u8>> {
    let mut buffer = [0; 64];
    let text = read(&path(pid, "comm"), &mut buffer)?;
    Some(text.strip_suffix(b"\n").unwrap_or(text).to_vec())
}

/// What the task that closes a file is doing, while it waits for our answer.
///
/// A program has text and an ending task no memory at all; between the two, in execve, there is memory without text (`mm->start_code` is set after the
/// descriptors are closed; fs/exec.c, begin_new_exec). One that is gone did not wait, and so was killed. Of a process with threads anyone may be the last to close:
/// where another called exit_group(2), it was ended by SIGKILL and has PF_SIGNALED, but the process's exit code is that of the call.
pub fn closing(tid: u32) -> Closing {
    let mut buffer = [0; 128];
    let statm = match read(&path(tid, "statm"), &mut buffer) {
        Some(statm) => statm,
        None if is_gone(tid) => return Closing::Killed,
        // Of another pid namespace, or hidden from us (proc(5), hidepid).
        None => return Closing::Call,
    };
    let mut pages = statm.split(|byte| *byte == b' ').map(|word| number(word, 10));
    match (pages.next().flatten(), pages.nth(2).flatten()) {
        // Whoever is ending is not in execve: its line can be read.
        (None | Some(0), _) => match stat(tid) {
            Some(stat) if stat.exit_code & TERMINATING_SIGNAL == 0 => Closing::Exit,
            Some(_) => Closing::Killed,
            None if is_gone(tid) => Closing::Killed,
            None => Closing::Exit,
        },
        (_, Some(0)) => Closing::Exec,
        _ => Closing::Call,
    }
}

fn is_gone(tid: u32) -> bool {
    let pid = i32::try_from(tid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

fn thread_group(tid: u32) -> Option<u32> {
    let mut buffer = [0; STATUS_BYTES_MAX];
    let text = read(&path(tid, "status"), &mut buffer)?;
    u32::try_from(status_field(text, b"Tgid:", 10)?).ok()
}

fn stat(pid: u32) -> Option<Stat> {
    let mut buffer = [0; STAT_BYTES_MAX];
    parse_stat(read(&path(pid, "stat"), &mut buffer)?)
}

/// The children of a process, their children, and so on. A child whose parent has died belongs to another parent and is not found.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    children(pid, &mut found);
    let mut next = 0;
    while next < found.len() && found.len() < DESCENDANTS_MAX {
        let child = found[next];
        children(child, &mut found);
        next += 1;
    }
    found
}

/// Whether a process is gone or on its way out: its main thread has left, or has a signal pending that it will meet. Waits for execve.
pub fn is_ending(pid: u32) -> bool {
    has_left(pid) || signals(pid).is_some_and(|signals| signals.any())
}

/// Whether the wait of a thread is over: a signal ends it, or the thread is gone.
pub fn ends_wait(tid: u32, by: EndsBy) -> bool {
    signals(tid).is_none_or(|signals| signals.end(by))
}

/// The signals of a thread; `None` when it is gone.
pub fn signals(tid: u32) -> Option<Signals> {
    let mut buffer = [0; STATUS_BYTES_MAX];
    let text = read(&path(tid, "status"), &mut buffer)?;
    let mask = |name| status_field(text, name, 16).unwrap_or(0);
    Some(Signals {
        pending: mask(b"SigPnd:") | mask(b"ShdPnd:"),
        blocked: mask(b"SigBlk:"),
        ignored: mask(b"SigIgn:"),
        caught: mask(b"SigCgt:"),
    })
}

/// The value of a variable in the environment that a process was started with, proc_pid_environ(5). Waits for execve.
pub fn environment(pid: u32, variable: &str) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 64 << 10];
    let text = read(&path(pid, "environ"), &mut buffer)?;
    text.split(|byte| *byte == 0).find_map(|entry| {
        entry
            .strip_prefix(variable.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"="))
            .map(<[u8]>::to_vec)
    })
}

/// A thread that is in open(2) with O_CREAT, openat(2) or creat(2): the mode that it gives, and its process's umask. `None` also where the kernel does not tell.
/// Waits for execve.
pub fn creation(tid: u32) -> Option<(u32, u32)> {
    let mut buffer = [0; 256];
    let mode = Call::parse(read(&path(tid, "syscall"), &mut buffer)?)?.creates()?;
    let mut buffer = [0; STATUS_BYTES_MAX];
    let umask = status_field(read(&path(tid, "status"), &mut buffer)?, b"Umask:", 8)?;
    Some((mode, umask as u32))
}

fn children(pid: u32, found: &mut Vec<u32>) {
    threads(pid)
        .into_iter()
        .for_each(|tid| children_of_thread(pid, tid, found));
}

fn children_of_thread(pid: u32, tid: u32, found: &mut Vec<u32>) {
    let mut buffer = [0; CHILDREN_BYTES_MAX];
    if let Some(text) = read_all(&path(pid, &format!("task/{tid}/children")), &mut buffer) {
        let pids = text.split(|byte| *byte == b' ').filter_map(|word| number(word, 10));
        found.extend(pids.map(|pid| pid as u32));
    }
}

/// The threads of a process, its main thread first, which may have left. Of one that is gone that thread alone.
pub(super) fn threads(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    if is_single_threaded(pid) {
        return found;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(tasks) = rustix::fs::open(path(pid, "task"), flags, Mode::empty()) else {
        return found;
    };
    let mut names = Vec::with_capacity(8192);
    let mut entries = RawDir::new(&tasks, names.spare_capacity_mut());
    while let Some(Ok(entry)) = entries.next() {
        let tid = number(entry.file_name().to_bytes(), 10).map(|tid| tid as u32);
        found.extend(tid.filter(|tid| *tid != pid));
    }
    found
}

/// Whether a thread has left, its process perhaps living on. Waits for execve.
pub(super) fn has_left(tid: u32) -> bool {
    stat(tid).is_none_or(|stat| stat.flags & PF_EXITING != 0)
}

/// Whether a process has one thread only: besides `.` and `..`, its directory has no other directories.
pub fn is_single_threaded(pid: u32) -> bool {
    rustix::fs::stat(path(pid, "task")).is_ok_and(|stat| stat.st_nlink == 3)
}

/// `pid (comm) state ppid … flags …  starttime …`; the name may hold spaces and parentheses, so the fields count from its last `)`.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let fields: Vec<&[u8]> = text.get(close + 2..)?.split(|byte| *byte == b' ').collect();
    let field = |number_in_manual: usize| number(fields.get(number_in_manual - 3)?, 10);
    Some(Stat {
        parent: field(4)? as u32,
        start: field(22)?,
        flags: field(9)?,
        exit_code: field(52)?,
    })
}

fn status_field(text: &[u8], name: &[u8], radix: u32) -> Option<u64> {
    text.split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(name))
        .and_then(|value| number(value, radix))
}

pub(super) fn number(text: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(text).ok()?.trim(), radix).ok()
}

pub(super) fn path(pid: u32, file: &str) -> String {
    let mut path = String::with_capacity(32);
    // Writing to a String cannot fail.
    let _ = write!(path, "/proc/{pid}/{file}");
    path
}

/// What a file says that /proc makes up in one piece: all comes with the first read(2).
pub(super) fn read<'a>(path: &str, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let length = read_some(&open(path)?, buffer)?;
    Some(&buffer[..length])
}

/// What a file says that /proc makes up as it is read, up to the size of the buffer.
fn read_all<'a>(path: &str, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let file = open(path)?;
    let mut length = 0;
    while length < buffer.len() {
        match read_some(&file, &mut buffer[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Some(&buffer[..length])
}

fn open(path: &str) -> Option<OwnedFd> {
    rustix::fs::openat(CWD, OsStr::new(path), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}

fn read_some(file: &OwnedFd, buffer: &mut [u8]) -> Option<usize> {
    loop {
        match rustix::io::read(file.as_fd(), &mut *buffer) {
            Ok(length) => return Some(length),
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    struct Reaped(Child);
    impl Drop for Reaped {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn sleeper(script: &str) -> Reaped {
        Reaped(
            Command::new("sh")
                .args(["-c", script])
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    fn eventually(what: impl Fn() -> bool) -> bool {
        (0..200).any(|_| {
            what() || {
                std::thread::sleep(std::time::Duration::from_millis(25));
                false
            }
        })
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = b"7 (a) (b c) S 3 7 7 0 -1 1024 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0 1 2 3 4 5 6 7 0 0 0 0 0 0 17 0 0 0 0 0 0 1 2 3 4 5 6 7 256\n";
        let stat = parse_stat(line).unwrap();
        assert_eq!(
            (stat.parent, stat.start, stat.flags, stat.exit_code),
            (3, 4242, 1024, 256)
        );
    }

    #[test]
    fn truncated_or_garbled_lines_are_no_answer() {
        let line = b"7 (sh) S 3 7 7 0 -1 1024 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0 1 2 3 4 5 6 7 0 0 0 0 0 0 17 0 0 0 0 0 0 1 2 3 4 5 6 7 9";
        assert!(parse_stat(line).is_some());
        for end in 0..line.len() - 1 {
            assert_eq!(parse_stat(&line[..end]), None, "{end}");
        }
        assert_eq!(parse_stat(b")("), None);
    }

    #[test]
    fn only_an_open_that_may_create_says_with_which_mode() {
        let asked = |call: libc::c_long, flags: libc::c_int| {
            let line = format!("{call} 0xffffff9c 0x7f00 0x{flags:x} 0x1b4 0x0 0x0 0x7ffe 0x7f01\n");
            Call::parse(line.as_bytes())?.creates()
        };
        assert_eq!(asked(libc::SYS_openat, libc::O_WRONLY | libc::O_CREAT), Some(0o664));
        assert_eq!(asked(libc::SYS_openat, libc::O_WRONLY | libc::O_TRUNC), None);
        assert_eq!(asked(libc::SYS_truncate, libc::O_CREAT), None);
    }

    #[test]
    fn a_thread_belongs_to_its_process() {
        let own = std::process::id();
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || send.send(rustix::thread::gettid().as_raw_nonzero().get() as u32))
            .join()
            .unwrap()
            .unwrap();
        let tid = receive.recv().unwrap();
        assert_ne!(tid, own);
        let thread = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        assert_eq!(thread_group(thread), Some(own));
        assert_eq!(process(thread), process(own));
        assert_eq!(process(thread).map(|process| process.pid), Some(own));
    }

    #[test]
    fn pidfds_and_proc_agree() {
        let child = sleeper("exec sleep 30");
        let (own, pid) = (std::process::id(), child.0.id());
        let found = process(pid).unwrap();
        assert_eq!((found.pid, found.parent), (pid, own));
        assert_eq!(stat(pid).map(|stat| stat.parent), Some(own));
        assert!(eventually(|| command(pid).as_deref() == Some(b"sleep")));
        assert_eq!(process(pid), Some(found), "execve keeps the process");
        let other = sleeper("sleep 30");
        assert_ne!(process(other.0.id()).unwrap().unique, found.unique);
        assert_eq!(process(u32::MAX / 2), None);
    }

    #[test]
    fn a_grandchild_is_a_descendant_and_we_are_its_ancestor() {
        let child = sleeper("sh -c 'sleep 30; true'; true");
        let own = std::process::id();
        assert!(eventually(|| descendants(own).iter().any(|pid| {
            let line = process(*pid).map_or(Vec::new(), |process| ancestors(&process));
            line.iter()
                .position(|a| a.pid == child.0.id())
                .is_some_and(|near| line[near + 1].pid == own && near >= 1)
        })));
        let below = descendants(child.0.id());
        drop(child);
        for pid in below {
            if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    #[test]
    fn what_a_process_does_with_signals_is_read_and_a_wait_of_one_that_is_gone_is_over() {
        let bit = |signal| 1_u64 << (signal - 1);
        let child = sleeper("trap '' HUP; trap true USR1; kill -STOP $$; sleep 30; true");
        let seen = || signals(child.0.id()).unwrap();
        assert!(eventually(
            || seen().ignored & bit(libc::SIGHUP) != 0 && seen().caught & bit(libc::SIGUSR1) != 0
        ));
        assert!(eventually(|| command_state(child.0.id()) == b'T'));
        let pid = Pid::from_raw(child.0.id() as i32).unwrap();
        // Stopped, it does not take it.
        rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
        assert!(eventually(|| seen().pending & bit(libc::SIGUSR1) != 0));
        assert!(ends_wait(child.0.id(), EndsBy::AnySignal) && !ends_wait(child.0.id(), EndsBy::Fatal));
        assert!([EndsBy::AnySignal, EndsBy::Fatal].map(|by| ends_wait(u32::MAX / 2, by)) == [true; 2]);
    }

    fn command_state(pid: u32) -> u8 {
        let mut buffer = [0; STAT_BYTES_MAX];
        let text = read(&path(pid, "stat"), &mut buffer).unwrap();
        text[text.iter().rposition(|byte| *byte == b')').unwrap() + 2]
    }

    #[test]
    fn a_running_task_is_not_leaving() {
        assert_eq!(closing(std::process::id()), Closing::Call);
        assert_eq!(closing(0), Closing::Call, "nobody can tell");
        assert_eq!(closing(u32::MAX / 2), Closing::Killed);
    }

    #[test]
    fn a_variable_is_found_by_its_whole_name() {
        let child = Reaped(
            Command::new("sleep")
                .arg("30")
                .env("CONCORD_AGENT", "one")
                .env("XCONCORD_AGENT", "two")
                .spawn()
                .unwrap(),
        );
        assert!(eventually(
            || environment(child.0.id(), "CONCORD_AGENT").as_deref() == Some(b"one")
        ));
        assert_eq!(environment(child.0.id(), "CONCORD"), None);
    }
}
