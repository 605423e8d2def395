//! Processes that do what they are told: forked from one Python process, so that a new one costs a millisecond.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::ops::{Do, NAMES, Op, TEXTS};
use crate::support::{Project, Running, kill};

/// The first process forks one at each line that it reads; each of these asks for its orders by a socket of its own. Nobody waits for children
/// (SIGCHLD is ignored): whoever has ended is gone at once, and orphans come back to the first.
const PROGRAM: &str = r#"
import ctypes, errno, fcntl, os, signal, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
address = sys.argv[1]
fds = {}
talk = None
def meet():
    global talk
    talk = socket.socket(socket.AF_UNIX)
    talk.connect(address)
    talk.sendall(b'#%d\n' % os.getpid())
def check(result):
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, 'it failed')
def open_(slot, name, flags):
    fds[slot] = os.open(name, flags, 0o644)
def close(slot):
    os.close(fds.pop(slot))
def dup(old, new):
    fds[new] = os.dup(fds[old])
def exchange(a, b):
    check(libc.renameat2(-100, a.encode(), -100, b.encode(), 2))
def link(a, b):
    os.link(a, b)
    os.unlink(a)
def fork():
    child = os.fork()
    if child == 0:
        talk.close()
        meet()
        serve()
    return child
def look(names):
    seen = []
    for name in names:
        try:
            stat = os.stat(name)
            fd = os.open(name, os.O_RDONLY)
            data = b''
            while part := os.read(fd, 65536):
                data += part
            os.close(fd)
            seen.append('%o,%d,%s' % (stat.st_mode & 0o7777, stat.st_size, data.hex()))
        except OSError as error:
            seen.append(errno.errorcode[error.errno])
    return '/' + ';'.join(seen)
def attempt(line):
    try:
        answer = eval(line)
    except OSError as error:
        return '!' + errno.errorcode[error.errno].replace('EDEADLOCK', 'EDEADLK')
    except Exception as error:
        return '!' + repr(error)
    if answer is None: return '='
    if isinstance(answer, bytes): return ':' + answer.hex()
    if isinstance(answer, str): return answer
    return '#%d' % answer
def serve():
    buffer = b''
    while True:
        while b'\n' not in buffer:
            part = talk.recv(65536)
            if not part: os._exit(0)
            buffer += part
        line, buffer = buffer.split(b'\n', 1)
        talk.sendall(attempt(line.decode()).encode() + b'\n')
for line in sys.stdin:
    if os.fork() == 0:
        meet()
        serve()
"#;

/// How long an answer may take that nothing stands in the way of. `CONCORD_MODEL_PATIENCE` says it in seconds, for who shrinks a case that hangs.
pub static PATIENCE: LazyLock<Duration> = LazyLock::new(|| {
    let seconds = std::env::var("CONCORD_MODEL_PATIENCE").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(20))
});

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Done,
    Number(i64),
    Bytes(Vec<u8>),
    /// By name.
    Errno(String),
    /// Of each name.
    Seen(Vec<Seen>),
}

/// What a name shows: nothing, or mode, st_size and content; otherwise an errno.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    File(u32, u64, Vec<u8>),
    Errno(String),
}

impl Answer {
    /// An errno by its name.
    pub fn errno(name: &str) -> Answer {
        Answer::Errno(name.to_owned())
    }
}

/// One process.
pub struct Puppet {
    pub pid: u32,
    stream: BufReader<UnixStream>,
}

/// Where they come from.
pub struct Stage {
    first: Running,
    listener: UnixListener,
}

impl Stage {
    /// Its processes have the project as working directory.
    pub fn new(project: &Project) -> Stage {
        let address = project.outside().join("puppets");
        let _ = std::fs::remove_file(&address);
        let listener = UnixListener::bind(&address).unwrap();
        let mut command = project.python(PROGRAM);
        command.arg(&address);
        Stage {
            first: Running::start(command),
            listener,
        }
    }

    /// A new process.
    pub fn spawn(&mut self) -> Puppet {
        self.first.say("");
        self.meet()
    }

    /// Who has just been forked.
    pub fn meet(&self) -> Puppet {
        let (stream, _) = self.listener.accept().unwrap();
        let mut puppet = Puppet {
            pid: 0,
            stream: BufReader::new(stream),
        };
        match puppet.hears(*PATIENCE) {
            Some(Answer::Number(pid)) => puppet.pid = pid as u32,
            other => panic!("a new process says {other:?}"),
        }
        puppet
    }
}

impl Puppet {
    /// Tells it to do something.
    pub fn told(&mut self, line: &str) {
        let stream = self.stream.get_mut();
        stream.write_all(line.as_bytes()).unwrap();
        stream.write_all(b"\n").unwrap();
    }

    /// What came of it; `None` when nothing was heard in time, or it is gone.
    pub fn hears(&mut self, at_most: Duration) -> Option<Answer> {
        self.stream.get_ref().set_read_timeout(Some(at_most)).unwrap();
        let mut line = String::new();
        self.stream.read_line(&mut line).ok().filter(|count| *count > 0)?;
        Some(parse(line.trim_end()))
    }

    /// Tells it to do something that takes no time.
    pub fn does(&mut self, line: &str) -> Option<Answer> {
        self.told(line);
        self.hears(*PATIENCE)
    }

    /// Waits until the process is gone, all its descriptors closed.
    pub fn is_gone(&self) -> bool {
        let start = Instant::now();
        let pid = rustix::process::Pid::from_raw(self.pid as i32).unwrap();
        while rustix::process::test_kill_process(pid).is_ok() {
            if start.elapsed() > *PATIENCE {
                return false;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        true
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        kill(self.pid, rustix::process::Signal::KILL);
    }
}

fn parse(line: &str) -> Answer {
    let (kind, rest) = line.split_at(line.len().min(1));
    match kind {
        "=" => Answer::Done,
        "#" => Answer::Number(rest.parse().unwrap()),
        ":" => Answer::Bytes(unhex(rest)),
        "/" => Answer::Seen(rest.split(';').map(seen).collect()),
        _ => Answer::errno(rest),
    }
}

fn seen(text: &str) -> Seen {
    let mut fields = text.split(',');
    match (fields.next(), fields.next(), fields.next()) {
        (Some(mode), Some(size), Some(data)) => Seen::File(
            u32::from_str_radix(mode, 8).unwrap(),
            size.parse().unwrap(),
            unhex(data),
        ),
        _ => Seen::Errno(text.to_owned()),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}

/// A step in the processes' language; `dir` is the case's directory.
pub fn spell(op: &Op, dir: &str) -> String {
    let path = |name: &super::ops::Name| format!("'{dir}/{}'", name.path());
    let text = |text: &usize| format!("{:?}.encode()", TEXTS[*text]);
    match &op.1 {
        Do::Open(slot, name, how) => format!("open_({slot}, {}, {})", path(name), how.bits()),
        Do::Close(slot) => format!("close({slot})"),
        Do::Read(slot, count) => format!("os.read(fds[{slot}], {count})"),
        Do::Pread(slot, at, count) => format!("os.pread(fds[{slot}], {count}, {at})"),
        Do::Write(slot, what) => format!("os.write(fds[{slot}], {})", text(what)),
        Do::Pwrite(slot, at, what) => format!("os.pwrite(fds[{slot}], {}, {at})", text(what)),
        Do::Ftruncate(slot, length) => format!("os.ftruncate(fds[{slot}], {length})"),
        Do::Seek(slot, to) => format!("os.lseek(fds[{slot}], {to}, 0)"),
        Do::Fsync(slot) => format!("os.fsync(fds[{slot}])"),
        Do::Fstat(slot) => format!("os.fstat(fds[{slot}]).st_size"),
        Do::Flock(slot, lock) => format!("fcntl.flock(fds[{slot}], {})", lock.bits()),
        Do::Dup(old, new) => format!("dup({old}, {new})"),
        Do::Fork(_) => "fork()".to_owned(),
        Do::Exit => "os._exit(0)".to_owned(),
        Do::Kill => unreachable!("nobody is told to be killed"),
        Do::Rename(old, new) => format!("os.rename({}, {})", path(old), path(new)),
        Do::Exchange(a, b) => format!("exchange({}, {})", path(a), path(b)),
        Do::Link(old, new) => format!("link({}, {})", path(old), path(new)),
        Do::Unlink(name) => format!("os.unlink({})", path(name)),
        Do::Truncate(name, length) => format!("os.truncate({}, {length})", path(name)),
        Do::Chmod(name, mode) => format!("os.chmod({}, {mode})", path(name)),
        Do::Look => look(dir),
    }
}

/// stat(2) and content of each name.
pub fn look(dir: &str) -> String {
    let names = NAMES.map(|name| format!("'{dir}/{}'", name.path()));
    format!("look([{}])", names.join(", "))
}
