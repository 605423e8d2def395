//! The life of a daemon: mount, socket, daemon.json, ready; then signals and clients, until nothing is mounted.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use crossbeam_channel::{RecvTimeoutError, Sender};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::spawn::Counts;
use crate::cli::mount::limits;
use crate::cli::project::STORE;
use crate::cli::rooms::{MountOrder, Rooms};
use crate::control::beacon::{self, Beacon};
use crate::control::lossless::printable;
use crate::control::{Peer, Service, Unmounting, server};
use crate::os::memory;
use crate::store::RealDisk;
use crate::store::disk::Disk;

/// Relative to the store.
const LOG: &str = "log";
const LOG_OLD: &str = "log.old";
/// A larger log is set aside when a daemon starts; one older log is kept.
const LOG_BYTES_MAX: i64 = 8 * 1024 * 1024;
/// How often it is tried to write a daemon.json for which there was no room.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// For the answer to the client that had us unmount.
const LAST_ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// Where the daemon belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// Logs to standard error; a hang-up ends it, like SIGTERM.
    Foreground,
    /// Logs to the store; a hang-up means nothing to it.
    Background,
}

/// Makes this process a daemon's, mounts, calls `ready` with how much a crash had left, and returns when nothing is mounted any more.
pub fn run(
    order: MountOrder,
    stay: Stay,
    rooms: &dyn Rooms,
    ready: impl FnOnce(Counts) -> io::Result<()>,
) -> anyhow::Result<()> {
    // Before anything is mounted: from here on a signal is an order to unmount, and not an end in the middle.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("taking the signals")?;
    // What a program creates has the mode that the kernel worked out with that program's umask.
    rustix::process::umask(Mode::empty());
    memory::give_large_blocks_back();
    // RUST_LOG chooses; a second logger cannot be set, and there is none before.
    let _ = env_logger::Builder::from_env(
        env_logger::Env::default().default_filter_or("info,fuser::session=error,fuser::mnt=warn"),
    )
    .format(|line, record| {
        if is_expected(record.target(), &record.args().to_string()) {
            return Ok(());
        }
        // Names of files and programs are in it, and may hold anything.
        let message = printable(record.args().to_string());
        let (time, level, target) = (line.timestamp(), record.level(), record.target());
        writeln!(line, "[{time} {level:<5} {target}] {message}")
    })
    .try_init();
    limits::lift_file_size().context("taking SIGXFSZ")?;
    live(order, stay, rooms, |service| obey(signals, service, stay), ready)
}

/// fuser calls an answer an error that nobody waits for any more: ENOENT, after a signal has ended an open that waited.
fn is_expected(target: &str, message: &str) -> bool {
    target == "fuser::reply" && message.ends_with("(os error 2)")
}

/// The life itself, without what concerns the whole process. `attend` starts to follow the signals.
fn live(
    order: MountOrder,
    stay: Stay,
    rooms: &dyn Rooms,
    attend: impl FnOnce(Arc<dyn Service>) -> anyhow::Result<()>,
    ready: impl FnOnce(Counts) -> io::Result<()>,
) -> anyhow::Result<()> {
    let root = order.root.clone();
    let mountpoint = order.mountpoint.clone();
    let daemon = rooms.mount(order)?;
    let service = daemon.service();
    let started = listen(&root, &mountpoint, service.clone()).and_then(|(server, later)| {
        if stay == Stay::Background {
            log_to_store(&root).context("opening the log, .concord/log")?;
        }
        let found = daemon.found();
        found.recovered.iter().for_each(|item| log::warn!("recovered {item}"));
        found.left.iter().for_each(|item| log::warn!("not recovered: {item}"));
        attend(service.clone())?;
        // Nobody who waits for the mount may be left with one that he does not know of.
        ready(Counts::of(found)).context("whoever started the daemon has gone")?;
        Ok((server, later))
    });
    let (server, later) = match started {
        Ok(server) => server,
        Err(error) => {
            if let Err(refused) = service.unmount(Unmounting::Force, this_process()) {
                log::error!("unmounting after a failed start: {refused}");
            }
            let waited = daemon.wait();
            take_away(&root).and(waited)?;
            return Err(error);
        }
    };
    log::info!("mounted over {}", printable(&mountpoint));
    let waited = daemon.wait();
    drop(later);
    let ended = take_away(&root).and(waited);
    server.finish(LAST_ANSWER_TIME_MAX);
    log::info!("unmounted {}", printable(&mountpoint));
    ended
}

fn listen(
    root: &Arc<OwnedFd>,
    mountpoint: &std::path::Path,
    service: Arc<dyn Service>,
) -> anyhow::Result<(server::Server, Option<Later>)> {
    let listener = beacon::bind(root).context("binding the control socket, .concord/sock")?;
    let server = server::serve(listener, service).context("starting the control socket's thread")?;
    let beacon = Beacon::of_this_process(root, mountpoint).context("reading /proc/self/stat")?;
    let later = match beacon.write(root) {
        // Who has a full disk must be able to look at it, and to remove files. `concord` finds the daemon by its mount meanwhile.
        Err(error) if beacon::is_full(&error) => {
            log::info!("no room for .concord/daemon.json yet: {error}");
            Some(Later::write(Arc::clone(root), beacon).context("starting a thread")?)
        }
        written => {
            written.context("writing .concord/daemon.json")?;
            None
        }
    };
    Ok((server, later))
}

/// Takes socket and daemon.json away while the store is still ours.
fn take_away(root: &Arc<OwnedFd>) -> anyhow::Result<()> {
    beacon::remove(root).context("removing .concord/daemon.json and the socket")
}

/// Writes daemon.json when there is room for it. Dropped, it does not any more.
struct Later {
    over: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Later {
    fn write(root: Arc<OwnedFd>, beacon: Beacon) -> io::Result<Later> {
        let (over, is_over) = crossbeam_channel::bounded(0);
        let write = move || {
            while is_over.recv_timeout(WRITE_EVERY) == Err(RecvTimeoutError::Timeout) {
                match beacon.write(&root) {
                    Err(error) if beacon::is_full(&error) => {}
                    Err(error) => return log::error!("cannot write .concord/daemon.json: {error}"),
                    Ok(()) => return,
                }
            }
        };
        Ok(Later {
            over: Some(over),
            thread: Some(std::thread::Builder::new().name("beacon".into()).spawn(write)?),
        })
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        drop(self.over.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Follows the signals from a thread of its own. The first asks for an unmount that waits for the sessions, at most
/// `grace`; a second does not wait.
fn obey(mut signals: Signals, service: Arc<dyn Service>, stay: Stay) -> anyhow::Result<()> {
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut asked = false;
        for signal in signals.forever() {
            if signal == SIGHUP && stay == Stay::Background {
                continue;
            }
            log::info!("signal {signal}: unmounting");
            let service = service.clone();
            let grace = if asked { Duration::ZERO } else { service.grace() };
            asked = true;
            let thread = std::thread::Builder::new()
                .name("stop".into())
                .spawn(move || stop(&service, grace));
            if let Err(error) = thread {
                log::error!("no thread to unmount in: {error}");
            }
        }
    })?;
    Ok(())
}

/// Unmounts when the sessions have ended or `grace` is over, whichever is first.
fn stop(service: &Arc<dyn Service>, grace: Duration) {
    let (done, ended) = crossbeam_channel::bounded(1);
    if !grace.is_zero() {
        let service = service.clone();
        let patient = std::thread::Builder::new().name("stop-patient".into()).spawn(move || {
            let _ = done.send(service.unmount(Unmounting::Wait, this_process()));
        });
        match (patient, ended.recv_timeout(grace)) {
            (Ok(_), Ok(Ok(()))) => return,
            (Ok(_), Ok(Err(refused))) => log::error!("unmounting: {refused}"),
            (_, Err(RecvTimeoutError::Timeout)) => log::warn!("sessions are open after {grace:?}: discarding them"),
            (Err(error), _) => log::error!("no thread to wait in: {error}"),
            (Ok(_), Err(RecvTimeoutError::Disconnected)) => log::error!("unmounting: its thread has died"),
        }
    }
    if let Err(refused) = service.unmount(Unmounting::Force, this_process()) {
        log::error!("unmounting: {refused}");
    }
}

fn this_process() -> Peer {
    Peer {
        pid: std::process::id(),
        uid: rustix::process::geteuid().as_raw(),
    }
}

/// Sends standard output and standard error, and with them panics and the logger, to `.concord/log`.
fn log_to_store(root: &Arc<OwnedFd>) -> io::Result<()> {
    let dir = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let store = Arc::new(rustix::fs::openat(root, STORE, dir, Mode::empty())?);
    // A FIFO in its place must not keep anybody waiting.
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = |flags| rustix::fs::openat(&store, LOG, flags, Mode::from_raw_mode(0o600)).map(File::from);
    let goes_on = |log: &File| -> io::Result<bool> {
        let stat = rustix::fs::fstat(log)?;
        let is_log = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1;
        Ok(is_log && stat.st_size <= LOG_BYTES_MAX && RealDisk.is_given(log, &store))
    };
    let found = match open(flags) {
        Ok(log) if goes_on(&log)? => Some(log),
        // A daemon of another user may have left it, or somebody has put something else there.
        Ok(_) | Err(Errno::ACCESS | Errno::NXIO | Errno::ISDIR | Errno::LOOP) => {
            rustix::fs::renameat(&store, LOG, &store, LOG_OLD)?;
            None
        }
        Err(Errno::NOENT) => None,
        Err(errno) => return Err(errno.into()),
    };
    let log = match found {
        Some(log) => log,
        None => {
            let made = open(flags | OFlags::CREATE | OFlags::EXCL)?;
            RealDisk.give(&made, &store);
            made
        }
    };
    io::stdout().flush()?;
    rustix::stdio::dup2_stdout(&log)?;
    rustix::stdio::dup2_stderr(&log)?;
    drop(log);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use parking_lot::{Condvar, Mutex};

    use super::*;
    use crate::cli::rooms::{Daemon, Found, HistorySource, Recovery};
    use crate::control::client::Client;
    use crate::control::testing::status;
    use crate::control::{Kept, Refused, Restored, Status};

    /// A mount that ends when told to: by force at once, else when its one session ends.
    #[derive(Default)]
    struct Fake {
        session_ended: Mutex<bool>,
        gone: Mutex<Option<bool>>,
        changed: Condvar,
    }

    impl Service for Fake {
        fn status(&self) -> Status {
            status()
        }
        fn restore(&self, file: &Path, from: u64, _: Peer) -> Result<Restored, Refused> {
            Ok(Restored {
                file: file.into(),
                from,
                version: from + 1,
                bytes: 0,
            })
        }
        fn unmount(&self, how: Unmounting, _: Peer) -> Result<(), Refused> {
            let force = how == Unmounting::Force;
            let mut ended = self.session_ended.lock();
            *ended |= force;
            self.changed.notify_all();
            self.changed.wait_while(&mut ended, |ended| !*ended);
            self.gone.lock().get_or_insert(force);
            self.changed.notify_all();
            Ok(())
        }
        fn recovered(&self) -> Vec<Kept> {
            Vec::new()
        }
        fn grace(&self) -> Duration {
            Duration::from_secs(10)
        }
    }

    struct FakeDaemon(Arc<Fake>, Found);

    impl Daemon for FakeDaemon {
        fn found(&self) -> &Found {
            &self.1
        }
        fn service(&self) -> Arc<dyn Service> {
            self.0.clone()
        }
        fn wait(&self) -> anyhow::Result<()> {
            self.0
                .changed
                .wait_while(&mut self.0.gone.lock(), |gone| gone.is_none());
            Ok(())
        }
    }

    struct FakeMount(Arc<Fake>);

    impl Rooms for FakeMount {
        fn history(&self, _: &Path) -> anyhow::Result<Box<dyn HistorySource>> {
            anyhow::bail!("no history here")
        }
        fn recover(&self, _: &Path, _: Option<&Path>) -> anyhow::Result<Recovery> {
            Ok(Recovery::default())
        }
        fn is_coordinated(&self, _: &Path, _: &Path, _: Option<&Path>, _: &Path) -> anyhow::Result<bool> {
            Ok(false)
        }
        fn template(&self) -> &str {
            ""
        }
        fn mount(&self, _: MountOrder) -> anyhow::Result<Box<dyn Daemon>> {
            Ok(Box::new(FakeDaemon(self.0.clone(), Found::default())))
        }
    }

    fn project() -> (tempfile::TempDir, MountOrder) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(STORE)).unwrap();
        let root = Arc::new(File::open(dir.path()).unwrap().into());
        let (mountpoint, backing) = (dir.path().into(), dir.path().into());
        (
            dir,
            MountOrder {
                root,
                mountpoint,
                backing,
                config: None,
                shared_backing: false,
            },
        )
    }

    #[test]
    fn only_an_answer_that_nobody_waits_for_is_expected() {
        let gone = io::Error::from(rustix::io::Errno::NOENT);
        let other = io::Error::from(rustix::io::Errno::INVAL);
        assert!(is_expected(
            "fuser::reply",
            &format!("Failed to send FUSE reply: {gone}")
        ));
        assert!(!is_expected(
            "fuser::reply",
            &format!("Failed to send FUSE reply: {other}")
        ));
        assert!(!is_expected("concordfs::store", &format!("a.md: {gone}")));
    }

    #[test]
    fn when_it_is_ready_clients_reach_it_and_when_it_ends_nothing_is_left() {
        let (dir, order) = project();
        let fake = Arc::new(Fake::default());
        let path = dir.path().to_path_buf();
        let mut asked = None;
        run(order, Stay::Foreground, &FakeMount(fake.clone()), |_| {
            let client = Client::connect(&path).unwrap();
            assert_eq!(client.status().unwrap(), status());
            asked = Some(std::thread::spawn(move || client.unmount(Unmounting::Force).unwrap()));
            Ok(())
        })
        .unwrap();
        asked.unwrap().join().unwrap();
        assert_eq!(*fake.gone.lock(), Some(true));
        assert_eq!(std::fs::read_dir(dir.path().join(STORE)).unwrap().count(), 0);
    }

    #[test]
    fn a_mount_that_nobody_waits_for_any_more_is_taken_back() {
        let (dir, order) = project();
        let fake = Arc::new(Fake::default());
        let gone = |_| Err(io::ErrorKind::BrokenPipe.into());
        let error = live(order, Stay::Foreground, &FakeMount(fake.clone()), |_| Ok(()), gone).unwrap_err();
        assert!(error.to_string().contains("has gone"));
        assert_eq!(*fake.gone.lock(), Some(true));
        assert_eq!(std::fs::read_dir(dir.path().join(STORE)).unwrap().count(), 0);
    }

    #[test]
    fn a_stop_waits_for_the_sessions_within_its_grace_and_then_forces() {
        let patient = Arc::new(Fake::default());
        let service: Arc<dyn Service> = patient.clone();
        let stopping = std::thread::spawn(move || stop(&service, Duration::from_secs(60)));
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(*patient.gone.lock(), None);
        *patient.session_ended.lock() = true;
        patient.changed.notify_all();
        stopping.join().unwrap();
        assert_eq!(*patient.gone.lock(), Some(false));

        let forced = Arc::new(Fake::default());
        let service: Arc<dyn Service> = forced.clone();
        let start = Instant::now();
        stop(&service, Duration::from_millis(100));
        assert!(start.elapsed() >= Duration::from_millis(100));
        assert!(forced.gone.lock().is_some());
    }
}
