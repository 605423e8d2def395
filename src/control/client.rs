//! The client's side of the socket.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::beacon::{Beacon, BeaconError};
use super::protocol::{self, REPLY_BYTES_MAX, Reply, Request};
use super::{Kept, Refused, Restored, Status};
use crate::os::peer;

/// For answers that the daemon has at hand.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// A restore queues like a writer, and copies where the filesystem has no reflinks.
const RESTORE_TIME_MAX: Duration = Duration::from_secs(600);

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
    #[error("{0}; unmount and mount again to have it written anew")]
    Beacon(BeaconError),
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
}

impl Client {
    /// Finds the daemon of `project`, which may be its mount point or its backing tree.
    pub fn connect(project: &Path) -> Result<Self, ClientError> {
        let beacon = Beacon::read(project).map_err(|error| match error {
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
        Ok(Self { beacon })
    }

    /// What daemon.json says.
    pub fn beacon(&self) -> &Beacon {
        &self.beacon
    }

    /// See [`super::Service::status`].
    pub fn status(&self) -> Result<Status, ClientError> {
        match self.ask(Request::Status, Some(ANSWER_TIME_MAX))? {
            Reply::Status(status) => Ok(*status),
            other => Err(self.unexpected(other)),
        }
    }

    /// See [`super::Service::recovered`].
    pub fn recovered(&self) -> Result<Vec<Kept>, ClientError> {
        match self.ask(Request::Recovered, Some(ANSWER_TIME_MAX))? {
            Reply::Recovered(kept) => Ok(kept),
            other => Err(self.unexpected(other)),
        }
    }

    /// See [`super::Service::restore`].
    pub fn restore(&self, file: &Path, version: u64) -> Result<Restored, ClientError> {
        match self.ask(
            Request::Restore {
                file: file.into(),
                version,
            },
            Some(RESTORE_TIME_MAX),
        )? {
            Reply::Restored(restored) => Ok(restored),
            other => Err(self.unexpected(other)),
        }
    }

    /// See [`super::Service::unmount`]. Waits as long as the daemon does.
    pub fn unmount(&self, force: bool) -> Result<(), ClientError> {
        match self.ask(Request::Unmount { force }, None)? {
            Reply::Unmounted => Ok(()),
            other => Err(self.unexpected(other)),
        }
    }

    fn ask(&self, request: Request, time_max: Option<Duration>) -> Result<Reply, ClientError> {
        let deadline = time_max.map(|time| Instant::now() + time);
        let line = protocol::request_line(request).map_err(|error| self.useless(error))?;
        let mut stream = self.open()?;
        // A server that refuses may close before it has read everything: its reply says more than our EPIPE.
        let sent = protocol::write_line(&mut stream, &line, deadline);
        let answer = protocol::read_line(&mut stream, REPLY_BYTES_MAX, deadline);
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
        ClientError::Io {
            pid: self.beacon.pid,
            error,
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
        client.unmount(false).unwrap();
        assert!(!service.unmounts.lock()[0].0);
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
