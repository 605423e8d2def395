//! Notices to watchers (inotify(7), fanotify(7)). What the kernel tells them of a session comes with each write(2), before the publish; and of an inode that a publish
//! replaced it tells them nothing. So each publish is followed by an utimensat(2) of the nodes that it changed. The kernel says IN_MODIFY for it, and learns that a
//! replaced inode has lost its last name (IN_DELETE_SELF, when the last program lets go of it).
//!
//! A process of its own makes these calls. A thread of the daemon could be killed inside of one, and would wait for itself for ever.

use std::collections::HashSet;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::nodes::NodeId;

/// Publishes that follow each other faster are told of once.
const GATHERED_FOR: Duration = Duration::from_millis(5);

/// Tells watchers of publishes, from a thread and through a process of its own. Both end with it.
#[derive(Debug)]
pub struct Notices {
    changed: Sender<NodeId>,
    teller: Arc<AtomicU32>,
}

impl Notices {
    /// `program` reads node numbers (64 bits, native byte order) from its standard input and touches each; it runs from the first publish on.
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
        Ok(Notices {
            changed: sender,
            teller,
        })
    }

    /// What a node shows has changed.
    pub fn tell(&self, node: NodeId) {
        // The thread says why when it gives up.
        let _ = self.changed.send(node);
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
    fn run(mut self, changed: &Receiver<NodeId>) {
        while let Ok(first) = changed.recv() {
            std::thread::sleep(GATHERED_FOR);
            let nodes: HashSet<NodeId> = std::iter::once(first).chain(changed.try_iter()).collect();
            let message: Vec<u8> = nodes.iter().flat_map(|node| node.0.to_ne_bytes()).collect();
            if let Err(error) = self.send(&message) {
                log::warn!(
                    "programs that watch files are told of writes only, not of publishes: {error}; they may need to look twice"
                );
                break;
            }
        }
        self.end();
    }

    /// A process that was killed is started once more.
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        if self.try_send(message).is_ok() {
            return Ok(());
        }
        if let Some(status) = self.end()
            && status.signal().is_none()
        {
            let why = "the process that tells them may not open files by handle (CAP_DAC_READ_SEARCH)";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        self.try_send(message)
    }

    fn try_send(&mut self, message: &[u8]) -> io::Result<()> {
        let running = match &mut self.running {
            Some(running) => running,
            none => {
                let child = self
                    .program
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()?;
                self.teller.store(child.id(), Ordering::Release);
                none.insert(child)
            }
        };
        match &mut running.stdin {
            Some(stdin) => stdin.write_all(message),
            None => Err(io::ErrorKind::BrokenPipe.into()),
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
