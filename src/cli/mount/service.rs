//! The mount's face for the control socket, and the wires between rules, store and mount.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use crossbeam_channel::bounded;
use parking_lot::{Condvar, Mutex};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::config::{Config, LOOK_EVERY};
use super::overlap;
use crate::cli::failure::At;
use crate::cli::rooms::{Daemon, Found, MountOrder};
use crate::cli::tell;
use crate::cli::wiring::{self, nanos_now, refused_or_kept};
use crate::control::lossless::printable;
use crate::control::{
    Counts, Feature, Incident, JsonPath, JsonTime, Kept, LockParty, LockStatus, Peer, Pending, Refused, RefusedKind,
    Restored, Service, SessionStatus, Status, Unmounting, Waiter,
};
use crate::mount::coordinated::{Coordination, Counted, retention};
use crate::mount::{Coordinated, Mount, MountOptions, Unmounter};
use crate::os::namespaces::Elsewhere;
use crate::os::proc;
use crate::session::LockMode;
use crate::store::{Action, RealDisk, RecoveryItem, Store};

/// How often an unmount looks whether the sessions have ended.
const DRAIN_EVERY: Duration = Duration::from_millis(10);
/// How long the kernel may find the mount in use after the last session has ended.
const LETTING_GO_TIME_MAX: Duration = Duration::from_millis(300);
/// How long watchers may still be told of what was published before.
const TELLING_TIME_MAX: Duration = Duration::from_secs(10);
/// How long other mount namespaces may have a copy of the mount that is to be unmounted.
const PASSING_TIME_MAX: Duration = Duration::from_secs(10);
/// Between two looks at the mount namespaces.
const NAMESPACES_EVERY: Duration = Duration::from_millis(100);
/// After the mount has gone, and before whoever has a copy of it that was not seen loses it.
const COPIES_TIME_MAX: Duration = Duration::from_secs(5);
/// So many places of the mount are named.
const NAMED_MAX: usize = 3;
/// How long publishes that are under way may take after the mount has gone.
const REST_TIME_MAX: Duration = Duration::from_secs(60);

/// A mounted project.
pub struct MountedProject {
    shared: Arc<Shared>,
    found: Found,
}

struct Shared {
    order: MountOrder,
    since: JsonTime,
    config: Arc<Config>,
    coordination: Arc<Coordination>,
    unmounter: Unmounter,
    /// Somebody does not want to wait for the sessions.
    forced: AtomicBool,
    served: Mutex<Option<Result<(), String>>>,
    ended: Condvar,
}

impl MountedProject {
    /// Takes the store, reads the rules, mounts, and serves from threads of its own.
    ///
    /// # Errors
    /// Everything that can be wrong with the tree, the store, the configuration or the machine; nothing is mounted then.
    pub fn start(order: MountOrder) -> anyhow::Result<MountedProject> {
        // Which project it is about, for who starts many.
        let config = Config::open(&order.root, &order.mountpoint, order.config.as_deref()).at(&order.mountpoint)?;
        let config = Arc::new(config);
        let rules = config.first().at(&order.mountpoint)?;
        let (store, report) = Store::open(RealDisk, Arc::clone(&order.root), nanos_now()).at(&order.backing)?;
        if !proc::is_ours() {
            log::warn!(
                "/proc shows another pid namespace than the daemon's: every process is unknown to it; mount one of its own"
            );
        }
        if store.is_short() {
            // What the rules let go makes room for the mount itself; else it goes behind its back.
            store.set_retention(retention(&Arc::new(rules.clone())));
            store.prune_all(nanos_now(), &|| true);
        }
        let options = MountOptions {
            mountpoint: order.mountpoint.clone(),
            backing: rustix::io::fcntl_dupfd_cloexec(&order.root, 3)?,
            shared_backing: order.shared_backing,
            allow_other: rustix::process::geteuid().is_root(),
            shown: order.backing.clone(),
            teller: Some(teller(&order.mountpoint)),
        };
        let (look, looked) = bounded(1);
        // Only a hint, sent from the thread that has just published: whoever looks does it past the mount, on a thread of its own.
        let config_changed = Box::new(move || {
            let _ = look.try_send(());
        });
        // Another may have begun beside this one.
        let starting = overlap::alone();
        if let Err(refused) = overlap::check(&order.mountpoint, &order.backing) {
            drop(store);
            if report.made {
                Store::unmake(RealDisk, &order.root);
            }
            return Err(refused);
        }
        let coordinated = Coordinated {
            store,
            rules,
            config_changed,
        };
        let mount = Mount::new(options, coordinated).inspect_err(|_| {
            if report.made {
                Store::unmake(RealDisk, &order.root);
            }
        })?;
        drop(starting);
        let shared = Arc::new(Shared {
            since: JsonTime::now(),
            coordination: mount.coordination(),
            unmounter: mount.unmounter(),
            order,
            config,
            forced: AtomicBool::new(false),
            served: Mutex::new(None),
            ended: Condvar::new(),
        });
        let watched = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("concord-rules".to_owned())
            .spawn(move || {
                loop {
                    // The sender lives as long as the mount.
                    if let Err(crossbeam_channel::RecvTimeoutError::Disconnected) = looked.recv_timeout(LOOK_EVERY) {
                        return;
                    }
                    if let Some(rules) = watched.config.changed() {
                        watched.coordination.set_rules(rules);
                    }
                }
            })?;
        let serving = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("concord-serve".to_owned())
            .spawn(move || {
                let result = mount.run().map_err(|error| error.to_string());
                *serving.served.lock() = Some(result);
                serving.ended.notify_all();
            })
            .context("starting the thread that serves the mount")?;
        let is_left = |item: &&RecoveryItem| item.action == Action::Left;
        let lines = |items: Vec<&RecoveryItem>| items.into_iter().map(RecoveryItem::to_string).collect();
        let (left, recovered) = report.items.iter().partition(is_left);
        let found = Found {
            recovered: lines(recovered),
            left: lines(left),
        };
        Ok(MountedProject { shared, found })
    }
}

impl Daemon for MountedProject {
    fn found(&self) -> &Found {
        &self.found
    }

    fn service(&self) -> Arc<dyn Service> {
        Arc::clone(&self.shared) as Arc<dyn Service>
    }

    fn wait(&self) -> anyhow::Result<()> {
        let result = {
            let mut served = self.shared.served.lock();
            loop {
                match served.clone() {
                    Some(result) => break result,
                    None => self.shared.ended.wait(&mut served),
                }
            }
        };
        let started = Instant::now();
        while !self.shared.coordination.drain() && started.elapsed() < REST_TIME_MAX {
            std::thread::sleep(DRAIN_EVERY);
        }
        self.shared.coordination.discard_all(false);
        result.map_err(anyhow::Error::msg)
    }
}

impl Service for Shared {
    fn status(&self) -> Status {
        let (rules, rules_error) = self.config.in_force();
        let recovered = self.refused_or_kept();
        let refused = recovered.iter().filter(|(refused, _)| *refused);
        Status {
            mountpoint: JsonPath(self.order.mountpoint.clone()),
            backing: JsonPath(self.order.backing.clone()),
            pid: proc::own_pid().unwrap_or_default(),
            since: self.since,
            features: vec![
                Feature {
                    name: "passthrough".into(),
                    on: self.coordination.passthrough(),
                },
                Feature {
                    name: "processes".into(),
                    on: proc::is_ours(),
                },
                Feature {
                    name: "shared-backing".into(),
                    on: self.order.shared_backing,
                },
            ],
            rules: rules.map(JsonPath),
            rules_error,
            rules_pending: self.coordination.kept_kinds().into_iter().map(pending).collect(),
            sessions: self.coordination.sessions().into_iter().map(session).collect(),
            locks: self.coordination.flocks().into_iter().map(lock).collect(),
            counts: self.counts(),
            incidents: self.coordination.incidents().into_iter().map(incident).collect(),
            refused: refused.map(|(_, kept)| kept.clone()).collect(),
            recovered: recovered.into_iter().map(|(_, kept)| kept).collect(),
        }
    }

    fn restore(&self, file: &Path, version: u64, peer: Peer) -> Result<Restored, Refused> {
        if let Ok(Err(damaged)) = self.coordination.store().history().open_intact(file, version) {
            return Err(Refused::new(RefusedKind::Failed, damaged.to_string()));
        }
        let (answer, answered) = bounded(1);
        let answer = Box::new(move |result| {
            let _ = answer.send(result);
        });
        self.coordination.restore((peer.pid, peer.uid), file, version, answer);
        let restored =
            answered
                .recv()
                .unwrap_or(Err(Errno::IO))
                .map_err(|errno| match in_the_way(&self.order.root, file) {
                    Some(refused) if errno != Errno::BUSY => refused,
                    _ if errno == Errno::NOENT && !has_directory(&self.order.root, file) => Refused::new(
                        RefusedKind::NotFound,
                        "the file's directory is gone; make it first, or copy with `concord show`",
                    ),
                    _ => refusal(version, errno),
                })?;
        let bytes = self.coordination.store().history().open_version(file, restored);
        Ok(Restored {
            file: JsonPath(file.to_owned()),
            from: version,
            version: restored,
            bytes: bytes.map_or(0, |content| content.bytes),
        })
    }

    fn unmount(&self, how: Unmounting, peer: Peer) -> Result<(), Refused> {
        if how == Unmounting::Force {
            self.forced.store(true, Ordering::Release);
        }
        self.is_nowhere_else(how, PASSING_TIME_MAX)?;
        // Its parent may end while it waits, and it has another one then.
        let number = || proc::process(peer.pid).map(|process| process.unique);
        let asker = number();
        while !self.coordination.drain() {
            if self.forced.load(Ordering::Acquire) {
                self.coordination.discard_all(true);
            } else if asker.is_some() && number() != asker {
                self.coordination.reopen();
                return Err(Refused::new(
                    RefusedKind::Busy,
                    "who asked for it did not wait for the open sessions",
                ));
            }
            std::thread::sleep(DRAIN_EVERY);
        }
        if let Err(refused) = self.is_nowhere_else(how, LETTING_GO_TIME_MAX) {
            self.coordination.reopen();
            return Err(refused);
        }
        // Who is not to be waited for is not waited for here either.
        let wait = !self.forced.load(Ordering::Acquire);
        let _silence = wait.then(|| self.coordination.silence(TELLING_TIME_MAX));
        let drained = Instant::now();
        let unmounted = loop {
            match self.unmounter.unmount() {
                // Who closed the last file has been answered, and may not have returned from close(2) yet.
                Err(_) if !self.is_over() && drained.elapsed() < LETTING_GO_TIME_MAX => {
                    std::thread::sleep(DRAIN_EVERY);
                }
                result => break result,
            }
        };
        // A working directory needs no answer of ours; whoever has a file open would lose it.
        let leave = how == Unmounting::LeaveDirectories && !self.coordination.has_open_files();
        match unmounted {
            Ok(()) => {
                if self.forced.load(Ordering::Acquire)
                    && let Err(error) = self.unmounter.detach()
                {
                    log::warn!("{error}");
                }
                self.end_with_the_mount();
                Ok(())
            }
            Err(_) if self.is_over() => Ok(()),
            Err(_) if leave || self.forced.load(Ordering::Acquire) => match self.unmounter.detach() {
                Ok(()) => {
                    self.end();
                    Ok(())
                }
                Err(_) if self.is_over() => Ok(()),
                Err(error) => Err(Refused::new(RefusedKind::Failed, error.to_string())),
            },
            Err(error) => {
                self.coordination.reopen();
                Err(Refused::new(RefusedKind::Busy, error.to_string()))
            }
        }
    }

    fn recovered(&self) -> Vec<Kept> {
        self.refused_or_kept().into_iter().map(|(_, kept)| kept).collect()
    }

    fn grace(&self) -> Duration {
        self.coordination.grace()
    }
}

impl Shared {
    fn refused_or_kept(&self) -> Vec<(bool, Kept)> {
        refused_or_kept(self.coordination.store().history()).unwrap_or_else(|error| {
            log::error!("cannot read .concord/recovered: {error}");
            Vec::new()
        })
    }

    /// Refuses an unmount that would leave the files to be seen elsewhere: there the daemon went on, and here programs would write past it. Other namespaces may be
    /// passing: a container that ends.
    fn is_nowhere_else(&self, how: Unmounting, passing: Duration) -> Result<(), Refused> {
        let deadline = Instant::now() + passing;
        loop {
            if how == Unmounting::Force || self.forced.load(Ordering::Acquire) {
                return Ok(());
            }
            let stays = self.unmounter.stays();
            if stays.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline || stays.iter().any(|place| place.pid.is_none()) {
                let why = format!(
                    "it is also {}; unmount it there or end them first, or use --force, which takes it from all",
                    elsewhere(&stays)
                );
                return Err(Refused::new(RefusedKind::Failed, why));
            }
            std::thread::sleep(NAMESPACES_EVERY);
        }
    }

    /// The mount is no more, and the kernel ends what serves it; also where somebody has a copy of it after all, who loses it.
    fn end_with_the_mount(&self) {
        let forced = self.forced.load(Ordering::Acquire);
        let deadline = Instant::now() + if forced { LETTING_GO_TIME_MAX } else { COPIES_TIME_MAX };
        {
            let mut served = self.served.lock();
            while served.is_none() && !self.ended.wait_until(&mut served, deadline).timed_out() {}
        }
        self.end();
    }

    /// Programs that have files of a detached mount open keep it alive, and with it the lock on the store. The end of this process
    /// ends it for them too (ENOTCONN).
    fn end(&self) {
        self.served.lock().get_or_insert(Ok(()));
        self.ended.notify_all();
    }

    fn is_over(&self) -> bool {
        self.served.lock().is_some()
    }

    fn counts(&self) -> Counts {
        let count = |what| self.coordination.count(what);
        Counts {
            publishes: count(Counted::Published),
            waits: count(Counted::Waited),
            busy: count(Counted::Busy) + count(Counted::WouldBlock),
            deadlocks: count(Counted::Deadlock),
            interrupted: count(Counted::Interrupted),
            discarded: count(Counted::Killed) + count(Counted::Expired),
            failed: count(Counted::Failed),
            stale: count(Counted::Stale),
            late: count(Counted::Late),
        }
    }
}

/// `mounted at /b, in the mount namespace of sleep (pid 7) at /p and of 2 more`.
fn elsewhere(places: &[Elsewhere]) -> String {
    let one = |place: &Elsewhere| {
        let at = printable(&place.mountpoint);
        let Some(pid) = place.pid else {
            return format!("mounted at {at}");
        };
        let command = proc::command(pid).map_or("unknown".into(), |name| String::from_utf8_lossy(&name).into_owned());
        format!("in the mount namespace of {} (pid {pid}), at {at}", printable(&command))
    };
    let named: Vec<String> = places.iter().take(NAMED_MAX).map(one).collect();
    let named = named.join(", and ");
    match places.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named}, and in {more} more"),
    }
}

/// This program once more, for [`crate::cli::tell`].
fn teller(mountpoint: &Path) -> Command {
    // Also when another program has been installed under its name meanwhile.
    let mut teller = Command::new("/proc/self/exe");
    teller.args([tell::NAME, "--"]).arg(mountpoint);
    teller
}

fn pending((file, coordinated): (std::path::PathBuf, bool)) -> Pending {
    let file = JsonPath(file);
    Pending { file, coordinated }
}

fn incident(incident: crate::mount::coordinated::Incident) -> Incident {
    Incident {
        path: JsonPath(incident.path),
        time: wiring::time(incident.time),
        why: incident.why,
    }
}

fn session(session: crate::mount::coordinated::SessionStatus) -> SessionStatus {
    SessionStatus {
        file: JsonPath(session.path),
        pid: session.who.pid,
        command: session.who.command,
        agent: session.who.agent,
        held_ms: millis(session.held),
        state: if session.ending { "publishing" } else { "open" }.to_owned(),
        waiting: session
            .waiters
            .into_iter()
            .map(|waiter| Waiter {
                pid: waiter.who.pid,
                command: waiter.who.command,
                waited_ms: millis(waiter.waited),
            })
            .collect(),
    }
}

fn lock(lock: crate::mount::coordinated::LockStatus) -> LockStatus {
    let party = |party: crate::mount::coordinated::LockParty| LockParty {
        pid: party.who.pid,
        command: party.who.command,
        kind: match party.mode {
            LockMode::Shared => "shared".to_owned(),
            LockMode::Exclusive => "exclusive".to_owned(),
        },
        for_ms: millis(party.for_),
    };
    LockStatus {
        file: lock.path.map(JsonPath),
        held: lock.holders.into_iter().map(party).collect(),
        waiting: lock.waiters.into_iter().map(party).collect(),
    }
}

/// Something else has the name of a file that is to be restored, or of a directory above it.
fn in_the_way(root: &OwnedFd, file: &Path) -> Option<Refused> {
    let mut way: Vec<&Path> = file.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
    way.reverse();
    way.into_iter().find_map(|path| {
        let stat = rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if path == file => return None,
            FileType::Directory if path != file => return None,
            FileType::RegularFile => "a file",
            FileType::Directory => "a directory",
            FileType::Symlink => "a symbolic link",
            FileType::Fifo => "a FIFO",
            FileType::Socket => "a socket",
            _ => "something that is no regular file",
        };
        let at = match path == file {
            true => "there".to_owned(),
            false => format!("at {}", printable(path)),
        };
        let why = format!("{kind} is in the way {at}; rename or remove it first, or copy with `concord show`");
        Some(Refused::new(RefusedKind::Failed, why))
    })
}

fn has_directory(root: &OwnedFd, file: &Path) -> bool {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    dir.is_none_or(|dir| rustix::fs::statat(root, dir, AtFlags::SYMLINK_NOFOLLOW).is_ok())
}

fn refusal(version: u64, errno: Errno) -> Refused {
    let (kind, why) = match errno {
        Errno::NOENT => (
            RefusedKind::NotFound,
            format!("version {version} is not kept; `concord history` lists those that are"),
        ),
        Errno::INVAL => (
            RefusedKind::BadRequest,
            "no rule coordinates it, so nothing is published there; copy with `concord show`".to_owned(),
        ),
        Errno::PERM => (
            RefusedKind::Failed,
            format!(
                "version {version} belongs to an owner or a group that the mount's daemon may not give a file to, or the file may not be changed (lsattr); copy with `concord show`"
            ),
        ),
        Errno::BUSY => (
            RefusedKind::Busy,
            "others hold it, for longer than `wait`; `concord status` says who".to_owned(),
        ),
        errno => (
            RefusedKind::Failed,
            format!("restoring version {version} failed: {errno}; the file is as it was, see .concord/log"),
        ),
    };
    Refused::new(kind, why)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
