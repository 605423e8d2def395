//! Notices to watchers (inotify(7), fanotify(7)). What the kernel tells them of a session comes with each write(2), before the publish; and who watches a node that
//! the name has led to before, it tells nothing. So each publish is followed by system calls on the nodes that are the file to somebody, by which the kernel says what it
//! says of a plain write: utimensat(2) of one of the times is IN_MODIFY, and of a node that others write to no more, an open for writing and a close go with it. An
//! utimensat(2) of both times is IN_ATTRIB, as of a file over which another was renamed; and the kernel learns by it that the node has no link left (IN_DELETE_SELF).
//!
//! A process of its own makes these calls. A thread of the daemon could be killed inside of one, and would wait for itself for ever. It reaches the node that a name
//! leads to by that name, so that who watches the directory is told too; any other by a name in the store's folder that is there for this process only, so that he is not.

use std::collections::{HashSet, VecDeque};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;

use super::nodes::NodeId;
use super::tree::STORE;

/// How long after its publish each is told of. chokidar drops a change that comes within 50 ms of the last, and that was the write: a timer of its own ends them, and it
/// looks at the file, on another thread, after it was told and before it counts. So whoever is told later than that is not too early, however late he hears of it.
const TOLD_AFTER: Duration = Duration::from_millis(75);
/// Publishes that follow each other faster are told of together.
const GATHERED_FOR: Duration = Duration::from_millis(25);
/// Notices sent at once, whose answers the pipe from the process holds whole.
const TOLD_AT_ONCE_MAX: usize = 1024;
/// How often the process is started anew for the same notices, before those are given up.
const RESTARTS_MAX: usize = 4;
/// What the names of nodes begin with.
const NODE: &str = "@";

/// The handle that the process which tells is given of whatever it opens. There is nothing behind it.
pub const HANDLE: u64 = u64::MAX;

/// What is told of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum News {
    /// What it shows has changed.
    Modified,
    /// The same, by somebody who has closed it.
    Saved,
    /// The file is gone.
    Gone,
    /// Nobody is told anything: the mount has begun. See [`Notices::begin`].
    Mounted,
}

/// What is told, and the path that leads to the node, relative to the directory that is mounted.
pub type Notice = (News, PathBuf);

/// What whoever tells is answered who looks at [`probe`]. In a plain tree it would be ENOENT.
pub const MOUNTED: Errno = Errno::ALREADY;

/// A path by which the mount is known.
pub fn probe() -> PathBuf {
    Path::new(STORE).join(NODE)
}

/// The path of a node that no name leads to, or another one than is told of.
pub fn path_of(node: NodeId) -> PathBuf {
    Path::new(STORE).join(format!("{NODE}{}", node.0))
}

/// The node that [`path_of`] gave this path.
pub fn node_at(path: &Path) -> Option<NodeId> {
    let name = path.file_name().filter(|_| path.parent() == Some(Path::new(STORE)))?;
    node_named(name)
}

/// The node that [`path_of`] gave this name.
pub fn node_named(name: &OsStr) -> Option<NodeId> {
    name.to_str()?.strip_prefix(NODE)?.parse().ok().map(NodeId)
}

/// Tells watchers of publishes, from a thread and through a process of its own. Both end with it.
#[derive(Debug)]
pub struct Notices {
    news: Sender<(Instant, Notice)>,
    teller: Arc<AtomicU32>,
    /// Held while the process tells, which has the mount in use then.
    telling: Arc<Mutex<()>>,
}

/// Nothing is told while this lives.
#[derive(Debug)]
pub struct Silence<'a>(#[expect(dead_code, reason = "it is there to be held")] MutexGuard<'a, ()>);

impl Notices {
    /// `program` reads a notice after the other ([`read`]) from its standard input, tells it, and says so with a byte on its standard output; it runs from the
    /// first notice on. Nodes that are not `known` to the kernel any more are not told of.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub fn start(program: Command, known: impl Fn(NodeId) -> bool + Send + 'static) -> io::Result<Notices> {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let (teller, telling) = (Arc::new(AtomicU32::new(0)), Arc::<Mutex<()>>::default());
        let thread = Telling {
            program,
            running: None,
            teller: Arc::clone(&teller),
            is_missing: false,
        };
        let when = Arc::clone(&telling);
        std::thread::Builder::new()
            .name("concord-notices".to_owned())
            .spawn(move || thread.run(&receiver, &when, known))?;
        Ok(Notices {
            news: sender,
            teller,
            telling,
        })
    }

    /// Waits until what is just being told has been told: the process that tells does not have the mount in use then, and will not before the end of the silence.
    /// `None`: it took longer than `at_most`.
    pub fn silence(&self, at_most: Duration) -> Option<Silence<'_>> {
        self.telling.try_lock_for(at_most).map(Silence)
    }

    /// Tells who watches what this path leads to.
    pub fn tell(&self, path: PathBuf, news: News) {
        // The thread says why when it gives up.
        let _ = self.news.send((Instant::now(), (news, path)));
    }

    /// The mount is there: the process makes its first copy_file_range(2), soon and alone. Linux 6.18 asks by a new request at first, which fuser refuses, and then by the
    /// old one; of two programs whose first ones meet, the kernel takes the second's refusal for that of the old one, and copies by its pages as long as the mount is
    /// there: up to the size that it has, and with zeros where it has read a page before (`__fuse_copy_file_range`).
    pub fn begin(&self) {
        let path = Path::new(STORE).join("format");
        let due = Instant::now().checked_sub(TOLD_AFTER).unwrap_or_else(Instant::now);
        // As in `tell`.
        let _ = self.news.send((due, (News::Mounted, path)));
    }

    /// Whether a request comes from the process that tells: it changes nothing.
    pub fn is_teller(&self, tid: u32) -> bool {
        tid != 0 && self.teller.load(Ordering::Acquire) == tid
    }
}

/// Notices that are not told yet, oldest first, each with the time of its publish.
#[derive(Debug, Default)]
struct Waiting(VecDeque<(Instant, Notice)>);

impl Waiting {
    /// Until it is worth asking what is due.
    fn for_how_long(&self, now: Instant) -> Duration {
        self.0.front().map_or(Duration::ZERO, |(published, _)| {
            (*published + TOLD_AFTER + GATHERED_FOR).saturating_duration_since(now)
        })
    }

    /// Takes out what is to be told now, each once; of nodes that are not `known` any more nothing.
    fn due(&mut self, now: Instant, known: impl Fn(NodeId) -> bool) -> Vec<Notice> {
        let count = self.0.partition_point(|(published, _)| *published + TOLD_AFTER <= now);
        let mut told = HashSet::new();
        let due = self.0.drain(..count).map(|(_, notice)| notice);
        let due = due.filter(|(_, path)| node_at(path).is_none_or(&known));
        due.filter(|notice| told.insert(notice.clone())).collect()
    }
}

struct Telling {
    program: Command,
    running: Option<Child>,
    teller: Arc<AtomicU32>,
    /// The last notices could not be told, and the log says so.
    is_missing: bool,
}

impl Telling {
    fn run(mut self, news: &Receiver<(Instant, Notice)>, when: &Mutex<()>, known: impl Fn(NodeId) -> bool) {
        let mut waiting = Waiting::default();
        loop {
            if waiting.0.is_empty() {
                let Ok(first) = news.recv() else { break };
                waiting.0.push_back(first);
            }
            std::thread::sleep(waiting.for_how_long(Instant::now()));
            waiting.0.extend(news.try_iter());
            let gathered = waiting.due(Instant::now(), &known);
            let sent = gathered.chunks(TOLD_AT_ONCE_MAX).try_for_each(|some| {
                let _telling = when.lock();
                self.send(some)
            });
            if let Err(error) = &sent
                && !self.is_missing
            {
                log::warn!(
                    "programs that watch files are told of writes only, not of publishes: the process that tells them cannot be had: {error}; they may need to look twice, until it can"
                );
            }
            self.is_missing = sent.is_err();
        }
        self.end();
    }

    /// A process that was killed is started again, and told again what it has not done.
    fn send(&mut self, notices: &[Notice]) -> io::Result<()> {
        let mut sent = self.try_send(notices);
        for _ in 0..RESTARTS_MAX {
            if sent.is_ok() {
                break;
            }
            self.end();
            sent = self.try_send(notices);
        }
        sent
    }

    /// Returns when all are done.
    fn try_send(&mut self, notices: &[Notice]) -> io::Result<()> {
        let running = match &mut self.running {
            Some(running) => running,
            none => {
                let child = self
                    .program
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .spawn()?;
                self.teller.store(child.id(), Ordering::Release);
                none.insert(child)
            }
        };
        match (&mut running.stdin, &mut running.stdout) {
            (Some(stdin), Some(stdout)) => {
                let bytes: Vec<u8> = notices.iter().flat_map(written).collect();
                stdin.write_all(&bytes)?;
                stdout.read_exact(&mut vec![0; notices.len()])
            }
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn end(&mut self) {
        if let Some(mut running) = self.running.take() {
            drop(running.stdin.take());
            let _ = running.wait();
            self.teller.store(0, Ordering::Release);
        }
    }
}

/// What is told, the length of the path (16 bits, native byte order), the path.
fn written((news, path): &Notice) -> Vec<u8> {
    let path = path.as_os_str().as_bytes();
    let length = u16::try_from(path.len()).unwrap_or(u16::MAX);
    let news = match news {
        News::Modified => 0,
        News::Saved => 1,
        News::Gone => 2,
        News::Mounted => 3,
    };
    let mut bytes = vec![news];
    bytes.extend(length.to_ne_bytes());
    bytes.extend(&path[..usize::from(length)]);
    bytes
}

/// The next notice; an error at the end.
///
/// # Errors
/// Those of read(2), and `UnexpectedEof`.
pub fn read(from: &mut impl Read) -> io::Result<Notice> {
    let mut head = [0; 3];
    from.read_exact(&mut head)?;
    let [news, low, high] = head;
    let news = match news {
        0 => News::Modified,
        1 => News::Saved,
        2 => News::Gone,
        _ => News::Mounted,
    };
    let mut path = vec![0; usize::from(u16::from_ne_bytes([low, high]))];
    from.read_exact(&mut path)?;
    Ok((news, PathBuf::from(std::ffi::OsString::from_vec(path))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_read_as_it_was_written() {
        let notices = [
            (News::Modified, PathBuf::from("a/\n b")),
            (News::Saved, path_of(NodeId(u64::MAX))),
            (
                News::Gone,
                PathBuf::from(std::ffi::OsString::from_vec(vec![0xff; 4095])),
            ),
        ];
        let bytes: Vec<u8> = notices.iter().flat_map(written).collect();
        let mut from = &bytes[..];
        for notice in notices {
            assert_eq!(read(&mut from).unwrap(), notice);
        }
        assert!(read(&mut from).is_err());
    }

    #[test]
    fn each_publish_is_told_of_at_its_own_time_and_together_with_others_of_that_time_once() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let notice = |path: &str| (News::Modified, PathBuf::from(path));
        let due = |waiting: &mut Waiting, now| waiting.due(now, |_| true);
        let mut waiting = Waiting::default();
        assert_eq!(due(&mut waiting, start), []);
        for (published, path) in [(0, "a"), (10, "b"), (20, "a"), (24, "a"), (70, "b")] {
            waiting.0.push_back((at(published), notice(path)));
        }
        assert_eq!(due(&mut waiting, at(74)), []);
        assert_eq!(waiting.for_how_long(at(0)), Duration::from_millis(100));
        assert_eq!(due(&mut waiting, at(100)), [notice("a"), notice("b")]);
        assert_eq!(waiting.for_how_long(at(100)), Duration::from_millis(70));
        assert_eq!(due(&mut waiting, at(144)), []);
        assert_eq!(due(&mut waiting, at(145)), [notice("b")]);
        assert_eq!(waiting.for_how_long(at(145)), Duration::ZERO);
    }

    #[test]
    fn of_a_node_that_the_kernel_has_forgotten_nothing_is_told() {
        let start = Instant::now();
        let notices = ["a", ".concord/@7", ".concord/@8"].map(|path| (News::Saved, PathBuf::from(path)));
        let mut waiting = Waiting(notices.iter().map(|notice| (start, notice.clone())).collect());
        assert_eq!(
            waiting.due(start + TOLD_AFTER, |node| node == NodeId(8)),
            [notices[0].clone(), notices[2].clone()]
        );
    }

    #[test]
    fn what_could_not_be_told_does_not_silence_what_comes_after() {
        let folder = tempfile::tempdir().unwrap();
        let (may, told) = (folder.path().join("may"), folder.path().join("told"));
        let mut program = Command::new("sh");
        program
            .args(["-c", "test -e \"$1\" && exec cat > \"$2\"", "sh"])
            .args([&may, &told]);
        let notices = Notices::start(program, |_| true).unwrap();
        notices.tell(PathBuf::from("before"), News::Saved);
        // Long after it was due, if the machine is not slow; if it is, this test may pass for nothing.
        std::thread::sleep(2 * (TOLD_AFTER + GATHERED_FOR));
        std::fs::write(&may, "").unwrap();
        notices.tell(PathBuf::from("after"), News::Saved);
        let end = Instant::now() + Duration::from_secs(60);
        while !std::fs::read(&told).is_ok_and(|told| told.ends_with(b"after")) {
            assert!(Instant::now() < end, "nothing was told any more");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_node_is_known_by_its_name_and_by_no_other() {
        let named = |name: &str| node_named(OsStr::new(name));
        assert_eq!(node_named(path_of(NodeId(7)).file_name().unwrap()), Some(NodeId(7)));
        assert_eq!(node_at(&path_of(NodeId(7))), Some(NodeId(7)));
        assert_eq!(["@7", ".concord/log"].map(|path| node_at(Path::new(path))), [None; 2]);
        assert_eq!([named("7"), named("@"), named("@x"), named("log")], [None; 4]);
    }
}
