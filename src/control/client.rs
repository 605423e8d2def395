//! The client's side of the socket.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::beacon::{Beacon, BeaconError};
use super::protocol::{self, REPLY_BYTES_MAX, Reply, Request};
use super::{Kept, Refused, Restored, Status, Unmounting};
use crate::os::peer;

/// For answers that the daemon has at hand.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// How often a daemon that has something long to do is asked whether it is still there.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// Why the daemon could not be asked, or said no.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing is mounted, or what was mounted has died.
    #[error("no daemon runs for it ({0}); start one with `concord mount`")]
    NotRunning(String),
    /// Another user's daemon.
    #[error("its daemon cannot be reached ({0}); ask as the user who mounted it, or as root")]
    NoAccess(io::Error),
    /// daemon.json is damaged or planted.
    #[error("{0}; name the directory where it is mounted; if nothing is, mount again, and it is written anew")]
    Beacon(BeaconError),
    /// It runs, and says nothing.
    #[error(
        "its daemon (pid {pid}) does not answer: {why}; {hint}",
        hint = if *stopped { format!("continue it with `kill -CONT {pid}`") }
            else { format!("if it stays so, end it with `kill -KILL {pid}`, then `concord recover DIR`") }
    )]
    Silent {
        /// The daemon.
        pid: u32,
        /// What was waited for.
        why: String,
        /// By a signal.
        stopped: bool,
    },
    /// The connection failed.
    #[error("talking to its daemon (pid {pid}) failed: {error}")]
    Io {
        /// The daemon.
        pid: u32,
        /// What happened.
        error: io::Error,
    },
    /// It answered something else.
    #[error("the answer of its daemon (pid {pid}) is of no use: {why}")]
    Answer {
        /// The daemon.
        pid: u32,
        /// What is wrong with it.
        why: String,
    },
    /// It said no.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// A daemon that was found alive. Each call makes a connection of its own.
#[derive(Debug)]
pub struct Client {
    beacon: Beacon,
    /// [`ANSWER_TIME_MAX`].
    time_max: Duration,
}

impl Client {
    /// Finds the daemon of `project`, which may be its mount point or its backing tree. Not for a mount whose daemon may not answer.
    pub fn connect(project: &Path) -> Result<Self, ClientError> {
        Self::found(Beacon::read(project))
    }

    /// The daemon `pid` that shows the tree at `backing`, found without a look at its mount.
    pub fn of_daemon(pid: u32, backing: &Path) -> Result<Self, ClientError> {
        Self::found(Beacon::of_daemon(pid, backing))
    }

    fn found(beacon: Result<Beacon, BeaconError>) -> Result<Self, ClientError> {
        let beacon = beacon.map_err(|error| match error {
            BeaconError::None => ClientError::NotRunning(error.to_string()),
            BeaconError::Read(error) if error.kind() == io::ErrorKind::PermissionDenied => ClientError::NoAccess(error),
            BeaconError::Read(error) if error.raw_os_error() == Some(rustix::io::Errno::NOTCONN.raw_os_error()) => {
                ClientError::NotRunning("its mount is dead; clear it with `concord recover`".into())
            }
            error => ClientError::Beacon(error),
        })?;
        if !beacon.is_alive() {
            return Err(ClientError::NotRunning(format!(
                "its last one, pid {}, has ended",
                beacon.pid
            )));
        }
        Ok(Self {
            beacon,
            time_max: ANSWER_TIME_MAX,
        })
    }

    /// What daemon.json says.
    pub fn beacon(&self) -> &Beacon {
        &self.beacon
    }

    /// Whether it answers, whatever it says.
    pub fn ping(&self) -> Result<(), ClientError> {
        match self.ask_once(Request::Ping) {
            // One of an earlier version does not know the question.
            Ok(_) | Err(ClientError::Refused(_) | ClientError::Answer { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// See [`super::Service::status`].
    pub fn status(&self) -> Result<Status, ClientError> {
        match self.ask_once(Request::Status)? {
            Reply::Status(status) => Ok(*status),
            other => Err(self.unexpected(other)),
        }
    }

    /// See [`super::Service::recovered`].
    pub fn recovered(&self) -> Result<Vec<Kept>, ClientError> {
        match self.ask_once(Request::Recovered)? {
            Reply::Recovered(kept) => Ok(kept),
            other => Err(self.unexpected(other)),
        }
    }

    /// See [`super::Service::restore`]. It queues like a writer, and copies where the filesystem has no reflinks.
    pub fn restore(&self, file: &Path, version: u64) -> Result<Restored, ClientError> {
        let file = file.into();
        match self.ask_patiently(Request::Restore { file, version })? {
            Reply::Restored(restored) => Ok(restored),
            other => Err(self.unexpected(other)),
        }
    }

    /// See [`super::Service::unmount`]. Waits as long as the daemon does, and answers others meanwhile.
    pub fn unmount(&self, how: Unmounting) -> Result<(), ClientError> {
        let request = Request::Unmount {
            force: how == Unmounting::Force,
            leave_directories: how == Unmounting::LeaveDirectories,
        };
        match self.ask_patiently(request)? {
            Reply::Unmounted => Ok(()),
            other => Err(self.unexpected(other)),
        }
    }

    /// For what the daemon has at hand.
    fn ask_once(&self, request: Request) -> Result<Reply, ClientError> {
        let deadline = Instant::now() + self.time_max;
        let (mut stream, sent) = self.send(request, deadline)?;
        self.receive(&mut stream, sent, deadline)
    }

    /// For what may take as long as it likes, while the daemon is there.
    fn ask_patiently(&self, request: Request) -> Result<Reply, ClientError> {
        let (mut stream, sent) = self.send(request, Instant::now() + self.time_max)?;
        if sent.is_ok() {
            while !protocol::is_readable(&stream, ASK_AGAIN).map_err(|error| self.io(error))? {
                match self.ping() {
                    // It may be at its end, and have answered.
                    Ok(()) | Err(ClientError::NotRunning(_) | ClientError::Io { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.receive(&mut stream, sent, Instant::now() + self.time_max)
    }

    fn send(&self, request: Request, deadline: Instant) -> Result<(UnixStream, io::Result<()>), ClientError> {
        let line = protocol::request_line(request).map_err(|error| self.useless(error))?;
        if self.beacon.is_stopped() {
            return Err(self.silent("a signal has stopped it".into()));
        }
        let mut stream = self.open()?;
        let sent = protocol::write_line(&mut stream, &line, Some(deadline));
        Ok((stream, sent))
    }

    fn receive(&self, stream: &mut UnixStream, sent: io::Result<()>, deadline: Instant) -> Result<Reply, ClientError> {
        // A server that refuses may close before it has read everything: its reply says more than our EPIPE.
        let answer = protocol::read_line(stream, REPLY_BYTES_MAX, Some(deadline));
        let answer = match (sent, answer) {
            (_, Ok(answer)) => answer,
            (Err(error), _) | (Ok(()), Err(error)) => return Err(self.io(error)),
        };
        match protocol::parse_reply(&answer).map_err(|error| self.useless(error))? {
            Reply::Refused(refused) => Err(refused.into()),
            reply => Ok(reply),
        }
    }

    fn open(&self) -> Result<UnixStream, ClientError> {
        let stream = UnixStream::connect(self.beacon.socket()).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => ClientError::NoAccess(error),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning(format!("pid {} does not listen: {error}", self.beacon.pid))
            }
            _ => self.io(error),
        })?;
        // daemon.json may have been written by somebody who wants root to talk to another program.
        let server = peer::credentials(stream.as_fd()).map_err(|error| self.io(error))?;
        if server.pid != self.beacon.pid {
            return Err(self.useless("another process listens on its socket"));
        }
        Ok(stream)
    }

    fn io(&self, error: io::Error) -> ClientError {
        match error.kind() {
            io::ErrorKind::TimedOut => self.silent(format!("it took longer than {} s", self.time_max.as_secs())),
            _ => ClientError::Io {
                pid: self.beacon.pid,
                error,
            },
        }
    }

    fn silent(&self, why: String) -> ClientError {
        ClientError::Silent {
            pid: self.beacon.pid,
            why,
            stopped: self.beacon.is_stopped(),
        }
    }

    fn useless(&self, why: impl ToString) -> ClientError {
        ClientError::Answer {
            pid: self.beacon.pid,
            why: why.to_string(),
        }
    }

    fn unexpected(&self, _reply: Reply) -> ClientError {
        self.useless("it answers another question")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::sync::Arc;

    use super::*;
    use crate::control::RefusedKind;
    use crate::control::testing::{FakeService, status};
    use crate::control::{beacon, server};

    fn project() -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".concord")).unwrap();
        let root = File::open(dir.path()).unwrap();
        (dir, root)
    }

    fn running() -> (tempfile::TempDir, File, Arc<FakeService>) {
        let (dir, root) = project();
        let service = Arc::new(FakeService::default());
        server::serve(beacon::bind(&root).unwrap(), service.clone()).unwrap();
        Beacon::of_this_process(&root, dir.path())
            .unwrap()
            .write(&root)
            .unwrap();
        (dir, root, service)
    }

    #[test]
    fn the_daemon_is_found_through_its_own_descriptor_and_answers() {
        let (dir, _root, service) = running();
        let client = Client::connect(dir.path()).unwrap();
        assert_eq!(client.status().unwrap(), status());
        assert_eq!(client.recovered().unwrap(), status().recovered);
        assert_eq!(client.restore(Path::new("a.md"), 3).unwrap().version, 4);
        client.unmount(Unmounting::Wait).unwrap();
        assert_eq!(service.unmounts.lock()[0].0, Unmounting::Wait);
    }

    #[test]
    fn a_refusal_arrives_as_the_daemon_said_it() {
        let (dir, _root, _service) = running();
        let error = Client::connect(dir.path())
            .unwrap()
            .restore(Path::new("a.md"), 99)
            .unwrap_err();
        assert!(
            matches!(&error, ClientError::Refused(refused) if refused.kind == RefusedKind::NotFound),
            "{error}"
        );
    }

    #[test]
    fn without_a_beacon_or_with_a_stale_one_no_daemon_runs() {
        let (dir, root) = project();
        assert!(matches!(Client::connect(dir.path()), Err(ClientError::NotRunning(_))));
        let mut beacon = Beacon::of_this_process(&root, dir.path()).unwrap();
        beacon.start -= 1;
        beacon.write(&root).unwrap();
        let error = Client::connect(dir.path()).unwrap_err();
        assert!(
            matches!(&error, ClientError::NotRunning(why) if why.contains("has ended")),
            "{error}"
        );
    }

    #[test]
    fn a_garbled_beacon_is_an_error_that_says_what_to_do() {
        let (dir, _root) = project();
        std::fs::write(dir.path().join(".concord/daemon.json"), b"\x00garbage").unwrap();
        let error = Client::connect(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("not understood") && error.contains("mount again"),
            "{error}"
        );
    }

    #[test]
    fn a_live_process_that_does_not_listen_is_not_a_daemon() {
        let (dir, root) = project();
        Beacon::of_this_process(&root, dir.path())
            .unwrap()
            .write(&root)
            .unwrap();
        let client = Client::connect(dir.path()).unwrap();
        assert!(matches!(client.status(), Err(ClientError::NotRunning(_))));
    }

    #[test]
    fn a_daemon_that_says_nothing_is_not_waited_for_without_end() {
        let (dir, root) = project();
        // It takes connections, as a stopped process does.
        let _listener = beacon::bind(&root).unwrap();
        Beacon::of_this_process(&root, dir.path())
            .unwrap()
            .write(&root)
            .unwrap();
        let client = Client {
            time_max: Duration::from_millis(50),
            ..Client::connect(dir.path()).unwrap()
        };
        let asked = [client.ping(), client.status().map(drop), client.recovered().map(drop)];
        for error in asked.map(Result::unwrap_err) {
            assert!(matches!(error, ClientError::Silent { stopped: false, .. }), "{error}");
            let said = error.to_string();
            assert!(
                said.contains("does not answer") && said.contains("kill -KILL"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_daemon_that_a_signal_has_stopped_is_told_at_once() {
        let (dir, root) = project();
        let _listener = beacon::bind(&root).unwrap();
        let mut other = std::process::Command::new("sleep")
            .arg("60")
            .stdin(std::process::Stdio::from(root.try_clone().unwrap()))
            .spawn()
            .unwrap();
        Beacon::of_this_process(&root, dir.path())
            .unwrap()
            .write(&root)
            .unwrap();
        let mut client = Client::connect(dir.path()).unwrap();
        client.beacon.pid = other.id();
        client.beacon.root_fd = 0;
        let pid = rustix::process::Pid::from_child(&other);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        while !client.beacon.is_stopped() {
            std::thread::yield_now();
        }
        let answer = client.status();
        other.kill().unwrap();
        other.wait().unwrap();
        let error = answer.unwrap_err();
        assert!(matches!(error, ClientError::Silent { stopped: true, .. }), "{error}");
        assert!(error.to_string().contains("kill -CONT"), "{error}");
    }

    #[test]
    fn a_listener_that_is_not_the_process_in_the_beacon_is_not_trusted() {
        // As planted: a living process whose descriptor leads to a tree with our socket in it.
        let (dir, root, _service) = running();
        let mut other = std::process::Command::new("sleep")
            .arg("60")
            .stdin(std::process::Stdio::from(root.try_clone().unwrap()))
            .spawn()
            .unwrap();
        let mut client = Client::connect(dir.path()).unwrap();
        client.beacon.pid = other.id();
        client.beacon.root_fd = 0;
        let answer = client.status();
        other.kill().unwrap();
        other.wait().unwrap();
        let error = answer.unwrap_err().to_string();
        assert!(error.contains("another process listens"), "{error}");
    }

    #[test]
    fn an_answer_that_is_garbage_or_cut_off_is_an_error() {
        for answer in [&b"nonsense\n"[..], b"{\"protocol\":9}\n", b"{\"protocol\":1", b""] {
            let (dir, root) = project();
            let listener = beacon::bind(&root).unwrap();
            Beacon::of_this_process(&root, dir.path())
                .unwrap()
                .write(&root)
                .unwrap();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                protocol::read_line(&mut stream, 1000, None).unwrap();
                stream.write_all(answer).unwrap();
            });
            assert!(Client::connect(dir.path()).unwrap().status().is_err(), "{answer:?}");
            server.join().unwrap();
        }
    }
}
