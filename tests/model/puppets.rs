//! Processes that do what they are told: forked from one Python process, so that a new one costs a millisecond.

use std::io::{BufRead, BufReader, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::ops::{Do, NAMES, Op, TEXTS};
use super::permissions::{Acl, MODE, Rights, UMASK, User, Whose};
use crate::support::{Project, Running, kill};

/// The first process forks one at each line that it reads; each of these asks for its orders by a socket of its own. Nobody waits for children
/// (SIGCHLD is ignored): whoever has ended is gone at once, and orphans come back to the first.
const PROGRAM: &str = r#"
import ctypes, errno, fcntl, os, signal, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
address = sys.argv[1]
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
fds = {}
maps = {}
talk = None
def meet():
    global talk
    talk = socket.socket(socket.AF_UNIX)
    talk.connect('\0' + address)
    talk.sendall(b'#%d\n' % os.getpid())
def check(result):
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, 'it failed')
def become(uid, gid, *groups):
    os.setgroups(groups); os.setgid(gid); os.setuid(uid)
def open_(slot, name, flags):
    fds[slot] = os.open(name, flags, MODE)
def close(slot):
    os.close(fds.pop(slot))
def dup(old, new):
    fds[new] = os.dup(fds[old])
def exchange(a, b):
    check(libc.renameat2(-100, a.encode(), -100, b.encode(), 2))
def fstat(slot):
    stat = os.fstat(fds[slot])
    return '@%d,%d' % (stat.st_size, stat.st_mtime_ns)
def utime(what, seconds):
    os.utime(what, (seconds, seconds))
# Not by the module mmap: that would keep a descriptor.
def map_(slot, number, prot, flags):
    size = os.fstat(fds[slot]).st_size
    at = libc.mmap(None, size, prot, flags, fds[slot], 0)
    if at == ctypes.c_void_p(-1).value: check(-1)
    libc.madvise(at, size, 10)  # MADV_DONTFORK
    maps[number] = at, size
def peek(number):
    return ctypes.string_at(*maps[number])
def poke(number, at, text):
    start, size = maps[number]
    ctypes.memmove(start + at, text, min(len(text), size - at))
def unmap(number):
    check(libc.munmap(*maps.pop(number)))
def fork():
    child = os.fork()
    if child == 0:
        maps.clear()
        talk.close()
        meet()
        serve()
    return child
ACL = 'system.posix_acl_access'
# The entries are owner, named user, group, named group, mask, others: acl(5), linux/posix_acl_xattr.h.
def set_acl(name, *entries):
    os.setxattr(name, ACL, struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in entries))
def acl(name):
    try:
        value = os.getxattr(name, ACL)
    except OSError as error:
        if error.errno == errno.ENODATA: return ''
        raise
    return ' '.join('%d:%d:%d' % entry for entry in struct.iter_unpack('<HHI', value[4:]))
def content(name):
    try:
        fd = os.open(name, os.O_RDONLY)
    except PermissionError:
        return '-'
    data = b''
    while part := os.read(fd, 65536):
        data += part
    os.close(fd)
    return data.hex()
def look(names):
    seen = []
    for name in names:
        try:
            stat = os.stat(name)
            what = acl(name) + ',%d,%d,%o,%d,%d,%d,%d,' % (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777, stat.st_nlink, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            seen.append(what + content(name))
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

/// Ms; see [`patience`].
static PATIENCE: AtomicU64 = AtomicU64::new(20_000);

/// How long an answer may take that nothing stands in the way of.
pub fn patience() -> Duration {
    Duration::from_millis(PATIENCE.load(Ordering::Relaxed))
}

/// Who shrinks a case that hangs does not want to wait so long.
pub fn lose_patience() {
    PATIENCE.store(2000, Ordering::Relaxed);
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Done,
    Number(i64),
    Bytes(Vec<u8>),
    /// By name.
    Errno(String),
    /// st_size and st_mtime.
    Stat(u64, Time),
    /// Of each name.
    Seen(Vec<Seen>),
}

/// What a name shows; otherwise an errno.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    File {
        rights: Rights,
        links: u64,
        size: u64,
        modified: Time,
        /// st_ctime, which is not older than this.
        changed: Time,
        /// `None`: it may not be read.
        data: Option<Vec<u8>>,
    },
    Errno(String),
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// While the step of this number was carried out.
    Step(usize),
    /// So many seconds after the epoch, as utimensat(2) has set it.
    Set(u32),
    /// It is said nowhere.
    Whenever,
    /// What stat(2) says, in ns since the epoch.
    Is(i64),
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
    /// Whose it is.
    pub user: User,
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
        // In the abstract namespace, where no permissions are asked for.
        let address = project.outside().as_os_str();
        let socket = SocketAddr::from_abstract_name(address.as_encoded_bytes()).unwrap();
        let listener = UnixListener::bind_addr(&socket).unwrap();
        let constants = format!("MODE = {MODE}\nimport os\nos.umask({UMASK})\n");
        let mut command = project.python(&(constants + PROGRAM));
        command.arg(address);
        Stage {
            first: Running::start(command),
            listener,
        }
    }

    /// A new process.
    pub fn spawn(&mut self, user: User) -> Puppet {
        self.first.say("");
        let mut puppet = self.meet(user);
        if user != User::Root {
            let ids = [user.uid(), user.gid()]
                .into_iter()
                .chain(user.groups().iter().copied());
            let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
            let became = puppet.does(&format!("become({})", ids.join(", ")));
            assert_eq!(became, Some(Answer::Done));
        }
        puppet
    }

    /// Who has just been forked.
    pub fn meet(&self, user: User) -> Puppet {
        let (stream, _) = self.listener.accept().unwrap();
        let mut puppet = Puppet {
            pid: 0,
            user,
            stream: BufReader::new(stream),
        };
        match puppet.hears(patience()) {
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
        self.hears(patience())
    }

    /// Waits until the process is gone, all its descriptors closed.
    pub fn is_gone(&self) -> bool {
        let start = Instant::now();
        let pid = rustix::process::Pid::from_raw(self.pid as i32).unwrap();
        while rustix::process::test_kill_process(pid).is_ok() {
            if start.elapsed() > patience() {
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
        "@" => {
            let (size, modified) = rest.split_once(',').unwrap();
            Answer::Stat(size.parse().unwrap(), Time::Is(modified.parse().unwrap()))
        }
        "/" => Answer::Seen(rest.split(';').map(seen).collect()),
        _ => Answer::errno(rest),
    }
}

fn seen(text: &str) -> Seen {
    let fields = text.split(',');
    let fields: Vec<&str> = fields.collect();
    match *fields {
        [acl, uid, gid, mode, links, size, modified, changed, data] => Seen::File {
            rights: with_acl(
                acl,
                Rights::new(
                    uid.parse().unwrap(),
                    gid.parse().unwrap(),
                    u32::from_str_radix(mode, 8).unwrap(),
                ),
            ),
            links: links.parse().unwrap(),
            size: size.parse().unwrap(),
            modified: Time::Is(modified.parse().unwrap()),
            changed: Time::Is(changed.parse().unwrap()),
            data: (data != "-").then(|| unhex(data)),
        },
        _ => Seen::Errno(text.to_owned()),
    }
}

/// The value of its attribute (linux/posix_acl_xattr.h).
pub fn acl_value(acl: Acl, mode: u32) -> Vec<u8> {
    let entry = |[kind, class, whose]: [u32; 3]| [kind | class << 16, whose];
    let words = entries(acl, mode).into_iter().flat_map(entry);
    std::iter::once(2).chain(words).flat_map(u32::to_le_bytes).collect()
}

/// By number, as the kernel has them.
const ACL_OWNER: u32 = 1;
const ACL_USER: u32 = 2;
const ACL_GROUP_OWNER: u32 = 4;
const ACL_GROUP: u32 = 8;
const ACL_MASK: u32 = 16;
const ACL_OTHERS: u32 = 32;
const ACL_NOBODY: u32 = u32::MAX;

/// Kind, permissions and whose, in the kernel's order.
fn entries(acl: Acl, mode: u32) -> Vec<[u32; 3]> {
    let (kind, whose) = match acl.whose {
        Whose::User(uid) => (ACL_USER, uid),
        Whose::Group(gid) => (ACL_GROUP, gid),
    };
    let class = |shift: u32| mode >> shift & 7;
    let mut entries = vec![
        [ACL_OWNER, class(6), ACL_NOBODY],
        [kind, acl.named, whose],
        [ACL_GROUP_OWNER, acl.group, ACL_NOBODY],
        [ACL_MASK, class(3), ACL_NOBODY],
        [ACL_OTHERS, class(0), ACL_NOBODY],
    ];
    entries.sort();
    entries
}

fn with_acl(text: &str, rights: Rights) -> Rights {
    let entry = |text: &str| {
        let numbers: Vec<u32> = text.split(':').map(|number| number.parse().unwrap()).collect();
        [numbers[0], numbers[1], numbers[2]]
    };
    let found: Vec<[u32; 3]> = text.split_whitespace().map(entry).collect();
    if found.is_empty() {
        return rights;
    }
    let of = |kind: u32| found.iter().find(|entry| entry[0] == kind);
    let named = of(ACL_USER).map(|[_, class, uid]| (*class, Whose::User(*uid)));
    let named = named.or_else(|| of(ACL_GROUP).map(|[_, class, gid]| (*class, Whose::Group(*gid))));
    let (Some((named, whose)), Some([_, group, _])) = (named, of(ACL_GROUP_OWNER)) else {
        panic!("no ACL of ours: {text}");
    };
    let acl = Acl {
        whose,
        named,
        group: *group,
    };
    assert_eq!(
        found,
        entries(acl, rights.mode),
        "an ACL and a mode that do not fit each other"
    );
    let acl = Some(acl);
    Rights { acl, ..rights }
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
        Do::Fstat(slot) => format!("fstat({slot})"),
        Do::Flock(slot, lock) => format!("fcntl.flock(fds[{slot}], {})", lock.bits()),
        Do::Map(slot, map, share) => {
            let (prot, flags) = share.bits();
            format!("map_({slot}, {map}, {prot}, {flags})")
        }
        Do::Peek(map) => format!("peek({map})"),
        Do::Poke(map, at, what) => format!("poke({map}, {at}, {})", text(what)),
        Do::Unmap(map) => format!("unmap({map})"),
        Do::Dup(old, new) => format!("dup({old}, {new})"),
        Do::Fork(_) => "fork()".to_owned(),
        Do::Exit => "os._exit(0)".to_owned(),
        Do::Kill => unreachable!("nobody is told to be killed"),
        Do::Rename(old, new) => format!("os.rename({}, {})", path(old), path(new)),
        Do::Exchange(a, b) => format!("exchange({}, {})", path(a), path(b)),
        Do::Link(old, new) => format!("os.link({}, {})", path(old), path(new)),
        Do::Unlink(name) => format!("os.unlink({})", path(name)),
        Do::Truncate(name, length) => format!("os.truncate({}, {length})", path(name)),
        Do::Chmod(name, mode) => format!("os.chmod({}, {mode})", path(name)),
        Do::Chown(name, uid, gid) => format!("os.chown({}, {uid}, {gid})", path(name)),
        Do::Acl(name, acl, mode) => {
            let entries = entries(*acl, *mode).into_iter();
            let entries: Vec<String> = entries
                .map(|[kind, class, whose]| format!("({kind}, {class}, {whose})"))
                .collect();
            format!("set_acl({}, {})", path(name), entries.join(", "))
        }
        Do::NoAcl(name) => format!("os.removexattr({}, ACL)", path(name)),
        Do::Touch(name) => format!("os.utime({})", path(name)),
        Do::Utime(name, at) => format!("utime({}, {at})", path(name)),
        Do::Futime(slot, at) => format!("utime(fds[{slot}], {at})"),
        Do::Look => look(dir),
    }
}

/// stat(2) and content of each name.
pub fn look(dir: &str) -> String {
    let names = NAMES.map(|name| format!("'{dir}/{}'", name.path()));
    format!("look([{}])", names.join(", "))
}
