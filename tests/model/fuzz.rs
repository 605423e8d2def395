//! Sequences that nobody foresees: several processes make system calls at random at the same time, and are killed at random. What each call comes to is
//! not asked; only that the daemon lives, that nobody hangs, and that nothing is left which nobody owns.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Project, Running, concord, eventually, run, text};

/// How long it may take; calls wait for 0.3 s at most.
const END: Duration = Duration::from_secs(120);

/// Its arguments are a seed, and how many processes shall make how many calls. Every third is killed in the middle of it. Calls that wait are ended by a
/// signal after a while. The program ends when its last descendant has.
const PROGRAM: &str = r#"
import ctypes, fcntl, mmap, os, random, signal, socket, sys, time
seed, processes, calls = map(int, sys.argv[1:])
pick = random.Random(seed)
libc = ctypes.CDLL(None, use_errno=True)
class Enough(Exception): pass
def enough(*_): raise Enough
signal.signal(signal.SIGALRM, enough)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
names = ['a.md', 'b.md', 'd/c.md', 't.tmp', 'd/u.tmp', 'd', 'e', 'l.md', 's.md', 'd/../a.md', '.concord/x', 'n' * 255 + '.md', 'd.md']
flags = [os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_NONBLOCK, os.O_SYNC, os.O_NOFOLLOW, os.O_DIRECTORY, os.O_PATH, os.O_DIRECT, os.O_TMPFILE, os.O_CLOEXEC]
fds = []
def name(): return pick.choice(names)
def fd(): return pick.choice(fds) if fds else -1
def data(): return pick.choice([b'', b'x', b'line\n', b'no end', b'a\nb', b'z' * 5000 + b'\n', b'0' * (1 << 17)])
def at(): return pick.choice([0, 1, 4095, 4096, 70000, 1 << 20])
def open_():
    how = pick.choice([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_WRONLY | os.O_CREAT | os.O_APPEND])
    for flag in flags:
        if pick.random() < 0.04: how |= flag
    fds.append(os.open(name(), how, pick.choice([0o644, 0o600, 0o4755])))
    if len(fds) > 12: os.close(fds.pop(pick.randrange(len(fds))))
def close():
    if fds: os.close(fds.pop(pick.randrange(len(fds))))
def map_():
    one = fd()
    with mmap.mmap(one, 4096, pick.choice([mmap.MAP_SHARED, mmap.MAP_PRIVATE]), pick.choice([mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE])) as pages:
        size = os.fstat(one).st_size
        if size:
            if pick.random() < 0.5: pages[0]
def fork():
    if os.fork() == 0:
        global pick
        pick = random.Random(seed * 31 + pick.randrange(1 << 30))
        work(pick.randrange(30))
        end()
def again():
    fds.append(os.open('/proc/self/fd/%d' % fd(), pick.choice([os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC])))
def pass_on():
    here, there = socket.socketpair()
    with here, there:
        socket.send_fds(here, [b'x'], [fd()])
        fds.extend(socket.recv_fds(there, 1, 1)[1])
def raw(call, *arguments):
    if getattr(libc, call)(*arguments) != 0: raise OSError(ctypes.get_errno(), call)
def exec_():
    if os.fork() == 0:
        signal.alarm(5)
        os.execvp('sh', ['sh', '-c', pick.choice(['echo x > %s', 'echo x >> %s', 'cat %s', '{ /bin/echo a; /bin/echo b; } > %s']) % name() + ' 2>/dev/null >&2'])
calls_ = [open_] * 12 + [close] * 6 + [
    lambda: os.read(fd(), 5000), lambda: os.pread(fd(), 100, at()), lambda: os.write(fd(), data()), lambda: os.write(fd(), data()),
    lambda: os.write(fd(), data()), lambda: os.pwrite(fd(), data(), at()), lambda: os.ftruncate(fd(), at()), lambda: os.truncate(name(), at()),
    lambda: os.lseek(fd(), at(), pick.choice([0, 1, 2, 3, 4])), lambda: os.fsync(fd()), lambda: os.fdatasync(fd()), lambda: os.fstat(fd()),
    lambda: os.stat(name()), lambda: os.lstat(name()), lambda: os.listdir(pick.choice(['.', 'd'])), lambda: os.rename(name(), name()),
    lambda: os.rename(name(), name()), lambda: os.link(name(), name()), lambda: os.symlink(name(), name()), lambda: os.unlink(name()),
    lambda: os.unlink(name()), lambda: os.mkdir(name()), lambda: os.rmdir(name()), lambda: os.chmod(name(), pick.choice([0o644, 0o600, 0o6755])),
    lambda: os.fchmod(fd(), 0o640), lambda: os.utime(name()), lambda: os.chown(name(), pick.choice([0, 1000]), -1),
    lambda: os.posix_fallocate(fd(), at(), 100), lambda: os.copy_file_range(fd(), fd(), 5000), lambda: os.sendfile(fd(), fd(), 0, 5000),
    lambda: fcntl.flock(fd(), pick.choice([fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN, fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_SH | fcntl.LOCK_NB])),
    lambda: fcntl.lockf(fd(), pick.choice([fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN])), lambda: os.setxattr(name(), 'user.x', data()[:99]),
    lambda: os.getxattr(name(), 'user.x'), lambda: os.removexattr(name(), 'user.x'), lambda: fds.append(os.dup(fd())), map_, fork, again, pass_on, exec_,
    lambda: raw('renameat2', -100, name().encode(), -100, name().encode(), pick.choice([1, 2, 3, 4])), lambda: os.mkfifo('fifo.md'),
    lambda: os.statvfs('.'), lambda: os.access(name(), os.W_OK), lambda: raw('fallocate', fd(), 3, ctypes.c_long(at()), ctypes.c_long(4096)),
]
def work(count):
    for _ in range(count):
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try: pick.choice(calls_)()
        except (OSError, ValueError, Enough, BufferError): pass
def end():
    signal.setitimer(signal.ITIMER_REAL, 0)
    os._exit(0)
libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
workers = []
for number in range(processes):
    workers.append(os.fork())
    if workers[-1] == 0:
        pick = random.Random(seed * 1000 + number)
        seed = number
        try: work(calls)
        except Enough: pass
        end()
for worker in workers[::3]:
    time.sleep(pick.random())
    try: os.kill(worker, signal.SIGKILL)
    except ProcessLookupError: pass
try:
    while True: os.wait()
except ChildProcessError: pass
"#;

/// A mount on which `processes` make `calls` each. Returns what was wrong in the end.
pub fn storm(seed: u64, processes: u64, calls: u64) -> Result<(), String> {
    let rules = "[[rule]]\npaths = [\"**/*.md\"]\nwait = \"100ms\"\nlease_max = \"2s\"\ndurability = \"fast\"\n";
    let mut project = Project::unmounted(&[("concord.toml", rules), ("a.md", "a\n"), ("d/c.md", "c\n")]);
    let daemon = project.mount();
    let mut command = project.python(PROGRAM);
    command.args([seed, processes, calls].map(|number| number.to_string()));
    command.stderr(std::process::Stdio::null());
    let mut running = Running::start(command);
    let began = Instant::now();
    while running.0.try_wait().unwrap().is_none() {
        if began.elapsed() > END {
            return Err(format!("seed {seed}: a process hangs"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    check(&mut project, daemon).map_err(|wrong| format!("seed {seed}: {wrong}"))
}

fn check(project: &mut Project, daemon: u32) -> Result<(), String> {
    eventually("no session is left", || {
        project.status()["sessions"].as_array().is_some_and(Vec::is_empty)
    });
    let pid = rustix::process::Pid::from_raw(daemon as i32).unwrap();
    if rustix::process::test_kill_process(pid).is_err() {
        return Err("the daemon died".to_owned());
    }
    eventually("what the killed left is out of the shadows", || {
        std::fs::read_dir(project.path(".concord/shadows"))
            .unwrap()
            .all(|entry| entry.unwrap().file_name() == "journal")
    });
    eprintln!("{}", project.status()["counts"]);
    project.unmount();
    let log = std::fs::read(project.path(".concord/log")).unwrap();
    if text(&log).contains("panicked") {
        return Err(format!("the daemon panicked: {}", text(&log)));
    }
    let mut recover: Command = concord(&["recover", "--json"]);
    recover.arg(project.root());
    let said = run(recover);
    let found: serde_json::Value = serde_json::from_slice(&said.stdout)
        .map_err(|error| format!("concord recover: {error}: {}", text(&said.stderr)))?;
    let nothing = |key: &str| found[key].as_array().is_some_and(Vec::is_empty);
    match nothing("finished") && nothing("kept") {
        true => Ok(()),
        false => Err(format!("an orderly unmount left something to recover: {found}")),
    }
}
