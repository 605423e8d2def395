//! Which system call a thread waits in, proc_pid_syscall(5).

use std::time::{Duration, Instant};

use super::proc::{number, path, read};

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
}

/// Whether a thread that waits for us asks for, or changes, the attributes of what a path leads to: the kernel walks it again when it is answered ESTALE. `false`
/// also where the kernel does not tell. Waits for execve, and for the thread to sleep.
pub fn is_of_path(tid: u32) -> bool {
    let until = Instant::now() + FALLS_ASLEEP_WITHIN;
    loop {
        let mut buffer = [0; 256];
        let Some(text) = read(&path(tid, "syscall"), &mut buffer) else {
            return false;
        };
        match Call::parse(text) {
            Some(call) => return call.is_of_path(),
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
