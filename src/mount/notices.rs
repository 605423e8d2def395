//! Notices to watchers (inotify(7), fanotify(7)). What the kernel tells them of a session comes with each write(2), before the publish; and of an inode that a publish
//! replaced it tells them nothing. So each publish is followed by an utimensat(2) of the nodes that it changed. The kernel says IN_MODIFY for one of the times, and
//! IN_ATTRIB for both, as rename(2) does for what it replaces; and it learns that a replaced inode has lost its last name (IN_DELETE_SELF, when the last
//! program lets go of it).
//!
//! A process of its own makes these calls. A thread of the daemon could be killed inside of one, and would wait for itself for ever.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::nodes::NodeId;

/// Publishes that follow each other faster are told of once. chokidar drops a change that comes within 50 ms of the last, and that was the write; and link(2) fails
/// (ENOENT) where the kernel learns between its walk and its end that the inode which it found has no name.
const GATHERED_FOR: Duration = Duration::from_millis(75);
/// Nodes told of in one message, which the pipes to and from the process hold whole.
const TOLD_AT_ONCE_MAX: usize = 1024;

/// What is told of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum News {
    /// What it shows has changed.
    Modified,
    /// Its name leads to another inode.
    Replaced,
}

/// A notice as it goes to the process that tells: the node's number in native byte order, and what is told of it.
pub type Message = [u8; 9];

/// Tells watchers of publishes, from a thread and through a process of its own. Both end with it.
#[derive(Debug)]
pub struct Notices {
    news: Sender<(NodeId, News)>,
    teller: Arc<AtomicU32>,
}

impl Notices {
    /// `program` reads a [`Message`] after the other from its standard input, touches each node, and says so with a byte on its standard output; it runs from the
    /// first publish on.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub fn start(program: Command) -> io::Result<Notices> {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let teller = Arc::new(AtomicU32::new(0));
        let telling = Telling {
            program,
            running: None,
            teller: Arc::clone(&teller),
        };
        std::thread::Builder::new()
            .name("concord-notices".to_owned())
            .spawn(move || telling.run(&receiver))?;
        Ok(Notices { news: sender, teller })
    }

    /// Tells who watches this node.
    pub fn tell(&self, node: NodeId, news: News) {
        // The thread says why when it gives up.
        let _ = self.news.send((node, news));
    }

    /// Whether a request comes from the process that tells: it changes nothing.
    pub fn is_teller(&self, tid: u32) -> bool {
        tid != 0 && self.teller.load(Ordering::Acquire) == tid
    }
}

struct Telling {
    program: Command,
    running: Option<Child>,
    teller: Arc<AtomicU32>,
}

impl Telling {
    fn run(mut self, news: &Receiver<(NodeId, News)>) {
        while let Ok(first) = news.recv() {
            let gathered: HashSet<(NodeId, News)> = std::iter::once(first).chain(news.try_iter()).collect();
            // What is told comes so long after its publish, or longer: what comes in meanwhile waits for the next round.
            std::thread::sleep(GATHERED_FOR);
            let messages: Vec<Message> = gathered.into_iter().map(message).collect();
            if let Err(error) = messages.chunks(TOLD_AT_ONCE_MAX).try_for_each(|some| self.send(some)) {
                log::warn!(
                    "programs that watch files are told of writes only, not of publishes: {error}; they may need to look twice"
                );
                break;
            }
        }
        self.end();
    }

    /// A process that was killed is started once more, and told again what it has not done.
    fn send(&mut self, messages: &[Message]) -> io::Result<()> {
        if self.try_send(messages).is_ok() {
            return Ok(());
        }
        if let Some(status) = self.end()
            && status.signal().is_none()
        {
            let why = "the process that tells them may not open files by handle (CAP_DAC_READ_SEARCH)";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        self.try_send(messages)
    }

    /// Returns when all are done.
    fn try_send(&mut self, messages: &[Message]) -> io::Result<()> {
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
                stdin.write_all(&messages.concat())?;
                stdout.read_exact(&mut vec![0; messages.len()])
            }
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn end(&mut self) -> Option<std::process::ExitStatus> {
        let mut running = self.running.take()?;
        drop(running.stdin.take());
        let ended = running.wait().ok();
        self.teller.store(0, Ordering::Release);
        ended
    }
}

fn message((node, news): (NodeId, News)) -> Message {
    let mut message = Message::default();
    message[..8].copy_from_slice(&node.0.to_ne_bytes());
    message[8] = u8::from(news == News::Replaced);
    message
}

/// The node's number, and what is told of it.
pub fn read_message(message: Message) -> (u64, News) {
    let [number @ .., news] = message;
    let news = if news == 0 { News::Modified } else { News::Replaced };
    (u64::from_ne_bytes(number), news)
}
