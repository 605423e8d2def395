//! The daemon's side of the socket: one short-lived thread a connection, a small number of them at once.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::protocol::{self, REPLY_BYTES_MAX, REQUEST_BYTES_MAX, Reply, Request};
use super::{Peer, Refused, RefusedKind, Service, Unmounting};
use crate::os::peer;

/// Connections served at once; the next one is told that the daemon is busy.
const CONNECTIONS_MAX: usize = 32;
/// How long a client may take to send its request, and as long again to take the reply.
const CLIENT_TIME_MAX: Duration = Duration::from_secs(10);
/// After accept(2) failed, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How far a server lets its clients go.
#[derive(Debug, Clone, Copy)]
struct Limits {
    connections_max: usize,
    client_time_max: Duration,
}

/// A running server. It serves until its process ends.
pub struct Server {
    open: Arc<Open>,
}

/// The connections being served.
struct Open {
    count: Mutex<usize>,
    ended: Condvar,
}

impl Server {
    /// Waits until no connection is being served, at most `time_max`: an `unmount` must be answered before the daemon
    /// that carried it out may exit.
    pub fn finish(&self, time_max: Duration) {
        let deadline = Instant::now() + time_max;
        let mut count = self.open.count.lock();
        while *count > 0 {
            if self.open.ended.wait_until(&mut count, deadline).timed_out() {
                return;
            }
        }
    }
}

/// Serves `service` on `listener` from a thread of its own.
pub fn serve(listener: UnixListener, service: Arc<dyn Service>) -> io::Result<Server> {
    serve_within(
        listener,
        service,
        Limits {
            connections_max: CONNECTIONS_MAX,
            client_time_max: CLIENT_TIME_MAX,
        },
    )
}

fn serve_within(listener: UnixListener, service: Arc<dyn Service>, limits: Limits) -> io::Result<Server> {
    let open = Arc::new(Open {
        count: Mutex::new(0),
        ended: Condvar::new(),
    });
    let server = Server { open: open.clone() };
    std::thread::Builder::new().name("control".into()).spawn(move || {
        loop {
            match listener.accept() {
                Ok((stream, _)) => start(stream, &service, &open, limits),
                Err(error) => {
                    log::warn!("control socket: accepting a connection failed: {error}");
                    std::thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    })?;
    Ok(server)
}

/// Gives its place back however the connection's thread ends.
struct Place(Arc<Open>);

impl Place {
    fn take(open: &Arc<Open>, max: usize) -> Option<Self> {
        let mut count = open.count.lock();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Self(open.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.count.lock() -= 1;
        self.0.ended.notify_all();
    }
}

fn start(mut stream: UnixStream, service: &Arc<dyn Service>, open: &Arc<Open>, limits: Limits) {
    let Some(place) = Place::take(open, limits.connections_max) else {
        // Fits any socket buffer, so it cannot block the thread that accepts.
        let why = format!("{} clients are already being served: try again", limits.connections_max);
        send(
            &mut stream,
            Reply::Refused(Refused::new(RefusedKind::Busy, why)),
            Duration::from_millis(10),
        );
        return;
    };
    let service = service.clone();
    let thread = std::thread::Builder::new()
        .name("control-client".into())
        .spawn(move || {
            let _place = place;
            let reply = answer(&mut stream, &*service, limits).unwrap_or_else(Reply::Refused);
            send(&mut stream, reply, limits.client_time_max);
        });
    if let Err(error) = thread {
        log::warn!("control socket: no thread for a client: {error}");
    }
}

fn answer(stream: &mut UnixStream, service: &dyn Service, limits: Limits) -> Result<Reply, Refused> {
    let peer = peer(stream)?;
    let deadline = Instant::now() + limits.client_time_max;
    let line = protocol::read_line(stream, REQUEST_BYTES_MAX, Some(deadline))
        .map_err(|error| Refused::new(RefusedKind::BadRequest, format!("no request came: {error}")))?;
    Ok(match protocol::parse_request(&line)? {
        Request::Ping => Reply::Pong,
        Request::Status => Reply::Status(Box::new(service.status())),
        Request::Recovered => Reply::Recovered(service.recovered()),
        Request::Restore { file, version } => Reply::Restored(service.restore(file.as_ref(), version, peer)?),
        Request::Unmount {
            force,
            leave_directories,
        } => {
            let how = match (force, leave_directories) {
                (true, _) => Unmounting::Force,
                (false, true) => Unmounting::LeaveDirectories,
                (false, false) => Unmounting::Wait,
            };
            service.unmount(how, peer)?;
            Reply::Unmounted
        }
    })
}

/// Who connected, if it may: root and the daemon's own user.
fn peer(stream: &UnixStream) -> Result<Peer, Refused> {
    let cred = peer::credentials(stream.as_fd())
        .map_err(|error| Refused::new(RefusedKind::Failed, format!("SO_PEERCRED failed: {error}")))?;
    let peer = Peer {
        pid: cred.pid,
        uid: cred.uid,
    };
    let own = rustix::process::geteuid().as_raw();
    if may_ask(peer.uid, own) {
        return Ok(peer);
    }
    let why = format!(
        "user {} may not control the daemon of user {own}: ask as that user or as root",
        peer.uid
    );
    Err(Refused::new(RefusedKind::Permission, why))
}

fn may_ask(uid: u32, own: u32) -> bool {
    uid == 0 || uid == own
}

/// Sends what fits. A client that has gone away is its own affair.
fn send(stream: &mut UnixStream, reply: Reply, time_max: Duration) {
    let line = match protocol::reply_line(reply) {
        Ok(line) if line.len() <= REPLY_BYTES_MAX => line,
        Ok(line) => {
            let why = format!("the reply has {} bytes, more than {REPLY_BYTES_MAX}", line.len());
            protocol::reply_line(Reply::Refused(Refused::new(RefusedKind::Failed, why))).unwrap_or_default()
        }
        Err(error) => {
            log::error!("control socket: a reply could not be written down: {error}");
            return;
        }
    };
    if let Err(error) = protocol::write_line(stream, &line, Some(Instant::now() + time_max)) {
        log::debug!("control socket: a client did not take its reply: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::path::Path;

    use super::*;
    use crate::control::testing::{FakeService, status};
    use crate::control::{Kept, Restored, Status};

    fn server(limits: Limits) -> (tempfile::TempDir, Arc<FakeService>, Server) {
        let dir = tempfile::tempdir().unwrap();
        let service = Arc::new(FakeService::default());
        let listener = UnixListener::bind(dir.path().join("sock")).unwrap();
        let server = serve_within(listener, service.clone(), limits).unwrap();
        (dir, service, server)
    }

    fn quick() -> Limits {
        Limits {
            connections_max: 4,
            client_time_max: Duration::from_millis(300),
        }
    }

    fn connect(dir: &tempfile::TempDir) -> UnixStream {
        let stream = UnixStream::connect(dir.path().join("sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn ask(dir: &tempfile::TempDir, bytes: &[u8]) -> String {
        let mut stream = connect(dir);
        // The server may answer and leave before it has read everything.
        let _ = stream.write_all(bytes);
        let mut reply = String::new();
        let _ = stream.read_to_string(&mut reply);
        reply
    }

    fn still_serves(dir: &tempfile::TempDir) {
        let reply = ask(dir, b"{\"protocol\":1,\"command\":\"status\"}\n");
        assert!(
            matches!(protocol::parse_reply(reply.as_bytes()).unwrap(), Reply::Status(_)),
            "{reply}"
        );
    }

    #[test]
    fn status_is_one_line() {
        let (dir, ..) = server(quick());
        let reply = ask(&dir, b"{\"protocol\":1,\"command\":\"status\"}\n");
        assert_eq!(reply.matches('\n').count(), 1);
        assert_eq!(
            protocol::parse_reply(reply.as_bytes()).unwrap(),
            Reply::Status(Box::new(status()))
        );
    }

    #[test]
    fn garbage_is_refused_and_the_server_goes_on() {
        let (dir, ..) = server(quick());
        let garbage: [&[u8]; 6] = [
            b"\n",
            b"\0\xff\xfe\n",
            b"{}\n",
            b"[1,2]\n",
            b"null\n",
            b"{\"protocol\":1}\n",
        ];
        for bytes in garbage {
            assert!(ask(&dir, bytes).contains("bad-request"), "{bytes:?}");
        }
        still_serves(&dir);
    }

    #[test]
    fn a_request_that_is_too_long_is_refused() {
        let (dir, ..) = server(quick());
        let reply = ask(&dir, &vec![b'x'; 3 * REQUEST_BYTES_MAX]);
        assert!(reply.contains("longer than 65536 bytes"), "{reply}");
        still_serves(&dir);
    }

    #[test]
    fn a_client_that_closes_at_once_or_in_the_middle_is_forgotten() {
        let (dir, _, server) = server(quick());
        for bytes in [&b""[..], b"{\"protocol\":1,"] {
            connect(&dir).write_all(bytes).unwrap();
        }
        server.finish(Duration::from_secs(10));
        assert_eq!(*server.open.count.lock(), 0);
        still_serves(&dir);
    }

    #[test]
    fn a_silent_client_is_refused_after_its_time() {
        let (dir, ..) = server(quick());
        let mut reply = String::new();
        connect(&dir).read_to_string(&mut reply).unwrap();
        assert!(reply.contains("took too long"), "{reply}");
    }

    #[test]
    fn too_many_clients_are_told_so_and_the_places_come_back() {
        let (dir, _, server) = server(Limits {
            connections_max: 2,
            client_time_max: Duration::from_secs(30),
        });
        let held: Vec<_> = (0..2).map(|_| connect(&dir)).collect();
        while *server.open.count.lock() < 2 {
            std::thread::yield_now();
        }
        let reply = ask(&dir, b"");
        assert!(reply.contains("busy") && reply.contains("2 clients"), "{reply}");
        drop(held);
        server.finish(Duration::from_secs(10));
        still_serves(&dir);
    }

    #[test]
    fn a_hundred_clients_at_once_all_get_an_answer() {
        let (dir, ..) = server(Limits {
            connections_max: 8,
            client_time_max: Duration::from_secs(10),
        });
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..100)
                .map(|_| scope.spawn(|| ask(&dir, b"{\"protocol\":1,\"command\":\"status\"}\n")))
                .collect();
            for client in clients {
                let reply = client.join().unwrap();
                assert!(protocol::parse_reply(reply.as_bytes()).is_ok(), "{reply}");
            }
        });
    }

    #[test]
    fn the_peer_is_who_the_kernel_says() {
        let (dir, service, _server) = server(quick());
        ask(&dir, b"{\"protocol\":1,\"command\":\"unmount\",\"force\":true}\n");
        let peer = Peer {
            pid: std::process::id(),
            uid: rustix::process::geteuid().as_raw(),
        };
        assert_eq!(*service.unmounts.lock(), [(Unmounting::Force, peer)]);
    }

    #[test]
    fn only_root_and_the_daemons_own_user_may_ask() {
        assert!(may_ask(0, 1000) && may_ask(1000, 1000) && may_ask(0, 0));
        assert!(!may_ask(1001, 1000) && !may_ask(1000, 0));
    }

    #[test]
    fn a_panicking_service_costs_its_own_connection_only() {
        struct Panics;
        impl Service for Panics {
            fn status(&self) -> Status {
                panic!("on purpose");
            }
            fn restore(&self, _: &Path, _: u64, _: Peer) -> Result<Restored, Refused> {
                Err(Refused::new(RefusedKind::Failed, "no"))
            }
            fn unmount(&self, _: Unmounting, _: Peer) -> Result<(), Refused> {
                Ok(())
            }
            fn recovered(&self) -> Vec<Kept> {
                Vec::new()
            }
            fn grace(&self) -> Duration {
                Duration::ZERO
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("sock")).unwrap();
        let server = serve_within(listener, Arc::new(Panics), quick()).unwrap();
        assert_eq!(ask(&dir, b"{\"protocol\":1,\"command\":\"status\"}\n"), "");
        server.finish(Duration::from_secs(10));
        assert_eq!(*server.open.count.lock(), 0);
        assert!(ask(&dir, b"{\"protocol\":1,\"command\":\"recovered\"}\n").contains("[]"));
    }
}
