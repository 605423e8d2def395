//! Which system call a thread waits in, proc_pid_syscall(5).

use std::time::{Duration, Instant};

use super::proc::{self, number, path, read};

/// A thread whose request has just reached us may not sleep yet, and the kernel says no more of it then.
const FALLS_ASLEEP_WITHIN: Duration = Duration::from_millis(200);

/// A system call with its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub number: libc::c_long,
    pub arguments: Vec<u64>,
}

impl Call {
    /// `number argument…`, the number in decimal, the arguments with `0x`. `None`: it runs.
    pub fn parse(text: &[u8]) -> Option<Call> {
        let mut words = text.split(|byte| *byte == b' ');
        let call = number(words.next()?, 10)?;
        Some(Call {
            number: libc::c_long::try_from(call).ok()?,
            arguments: words.map_while(|word| number(word.strip_prefix(b"0x")?, 16)).collect(),
        })
    }

    /// open(2) with O_CREAT, openat(2) or creat(2): the mode that it gives.
    pub fn creates(&self) -> Option<u32> {
        let argument = |number: usize| self.arguments.get(number).copied();
        let (flags, mode) = match self.number {
            libc::SYS_openat => (argument(2)?, argument(3)?),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => (argument(1)?, argument(2)?),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_creat => (libc::O_CREAT as u64, argument(1)?),
            _ => return None,
        };
        (flags & libc::O_CREAT as u64 != 0).then_some(mode as u32 & 0o7777)
    }

    /// What asks for attributes, changes them, or makes a link, of a file that it is given by its path.
    fn is_of_path(&self) -> bool {
        let flags = match self.number {
            libc::SYS_newfstatat | libc::SYS_fchmodat2 => self.arguments.get(3),
            libc::SYS_statx => self.arguments.get(2),
            libc::SYS_fchownat | libc::SYS_linkat => self.arguments.get(4),
            // futimens(3) has no path.
            libc::SYS_utimensat => self.arguments.get(3).filter(|_| self.arguments[1] != 0),
            libc::SYS_fchmodat
            | libc::SYS_getxattr
            | libc::SYS_lgetxattr
            | libc::SYS_setxattr
            | libc::SYS_lsetxattr
            | libc::SYS_listxattr
            | libc::SYS_llistxattr
            | libc::SYS_removexattr
            | libc::SYS_lremovexattr => return true,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_stat
            | libc::SYS_lstat
            | libc::SYS_chmod
            | libc::SYS_chown
            | libc::SYS_lchown
            | libc::SYS_utime
            | libc::SYS_utimes
            | libc::SYS_link => return true,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_futimesat => return self.arguments.get(1).is_some_and(|path| *path != 0),
            _ => None,
        };
        flags.is_some_and(|flags| flags & libc::AT_EMPTY_PATH as u64 == 0)
    }

    /// link(2), linkat(2).
    fn is_link(&self) -> bool {
        match self.number {
            libc::SYS_linkat => true,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_link => true,
            _ => false,
        }
    }

    /// rename(2), unlink(2), link(2) and their …at forms.
    fn changes_names(&self) -> bool {
        match self.number {
            libc::SYS_renameat2 | libc::SYS_unlinkat => true,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_rename | libc::SYS_renameat | libc::SYS_unlink => true,
            #[cfg(target_arch = "aarch64")]
            libc::SYS_renameat => true,
            _ => self.is_link(),
        }
    }
}

/// What a thread does that was last seen changing a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// It waits in such a call.
    ChangesNames,
    /// It waits in another, or is gone.
    Other,
    /// It runs, or the kernel does not tell.
    Unknown,
}

/// Whether a thread is still about to change a name. Waits for execve.
pub fn doing(tid: u32) -> Doing {
    let mut buffer = [0; 256];
    match read(&path(tid, "syscall"), &mut buffer) {
        Some(text) => parse_doing(text),
        None if proc::signals(tid).is_none() => Doing::Other,
        None => Doing::Unknown,
    }
}

fn parse_doing(text: &[u8]) -> Doing {
    match Call::parse(text) {
        Some(call) if call.changes_names() => Doing::ChangesNames,
        Some(_) => Doing::Other,
        // It has no stack any more: it has ended, and nobody has waited for it.
        None if text.starts_with(b"-1 0x0 0x0") => Doing::Other,
        None => Doing::Unknown,
    }
}

/// Whether a thread that waits for us asks for, or changes, the attributes of what a path leads to: the kernel walks it again when it is answered ESTALE. `false`
/// also where the kernel does not tell. Waits for execve, and for the thread to sleep.
pub fn is_of_path(tid: u32) -> bool {
    waits_in(tid, Call::is_of_path)
}

/// Whether a thread that waits for us is in link(2) or linkat(2). `false` also where the kernel does not tell. Waits for execve, and for the thread to sleep.
pub fn is_link(tid: u32) -> bool {
    waits_in(tid, Call::is_link)
}

/// The same of open(2) with O_CREAT.
pub fn creates(tid: u32) -> bool {
    waits_in(tid, |call| call.creates().is_some())
}

fn waits_in(tid: u32, is: impl Fn(&Call) -> bool) -> bool {
    let until = Instant::now() + FALLS_ASLEEP_WITHIN;
    loop {
        let mut buffer = [0; 256];
        let Some(text) = read(&path(tid, "syscall"), &mut buffer) else {
            return false;
        };
        match Call::parse(text) {
            Some(call) => return is(&call),
            None if Instant::now() < until => std::thread::sleep(Duration::from_micros(50)),
            None => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_by_path_is_told_from_one_by_descriptor() {
        let asks = |call: libc::c_long, flags: [i32; 2]| {
            let line = format!(
                "{call} 0x3 0x7ffc {:#x} {:#x} 0x0 0x0 0x7ffd 0x7ffe\n",
                flags[0], flags[1]
            );
            Call::parse(line.as_bytes()).unwrap().is_of_path()
        };
        let other = 0x7fff;
        assert!(asks(libc::SYS_newfstatat, [other, libc::AT_SYMLINK_NOFOLLOW]));
        assert!(!asks(libc::SYS_newfstatat, [0, libc::AT_EMPTY_PATH]));
        assert!(asks(libc::SYS_statx, [0, other]));
        assert!(!asks(libc::SYS_statx, [libc::AT_EMPTY_PATH, 0]));
        assert!(!asks(libc::SYS_fstat, [0, 0]));
        assert!(!asks(libc::SYS_openat, [0, 0]));
        assert!(asks(libc::SYS_utimensat, [other, 0]));
        assert!(!asks(libc::SYS_fchmod, [0, 0]));
        assert!(asks(libc::SYS_setxattr, [0, 0]));
        assert!(!asks(libc::SYS_fsetxattr, [0, 0]));
        let futimens = format!("{} 0x3 0x0 0x7ffc 0x0 0x0 0x0 0x7ffd 0x7ffe\n", libc::SYS_utimensat);
        assert!(!Call::parse(futimens.as_bytes()).unwrap().is_of_path());
        assert_eq!(Call::parse(b"running\n"), None);
    }

    #[test]
    fn a_call_that_changes_names_is_told_from_others_and_from_the_end() {
        let doing =
            |call: libc::c_long| parse_doing(format!("{call} 0x3 0x7ffc 0x3 0x0 0x0 0x0 0x7ffd 0x7ffe\n").as_bytes());
        for call in [libc::SYS_renameat2, libc::SYS_unlinkat, libc::SYS_linkat] {
            assert_eq!(doing(call), Doing::ChangesNames);
        }
        assert_eq!(doing(libc::SYS_openat), Doing::Other);
        assert_eq!(parse_doing(b"running\n"), Doing::Unknown);
        assert_eq!(
            parse_doing(b"-1 0x7ffd 0x7ffe\n"),
            Doing::Unknown,
            "it runs for an io_uring"
        );
        assert_eq!(super::doing(u32::MAX / 2), Doing::Other, "it is gone");
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        let ends = (0..400).any(|_| {
            std::thread::sleep(Duration::from_millis(25));
            super::doing(ended.id()) == Doing::Other
        });
        ended.wait().unwrap();
        assert!(ends, "it has ended, and nobody has waited for it");
    }

    #[test]
    fn a_thread_in_another_call_asks_for_no_attributes() {
        let thread = std::thread::spawn(std::thread::park);
        let own = std::process::id();
        let tasks = std::fs::read_dir(format!("/proc/{own}/task")).unwrap();
        let mut tids = tasks.filter_map(|task| task.unwrap().file_name().to_str()?.parse::<u32>().ok());
        assert!(tids.all(|tid| !is_of_path(tid)));
        thread.thread().unpark();
        thread.join().unwrap();
    }
}
