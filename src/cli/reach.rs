//! The daemon of a mount, and whether it answers. Beside one that does not, whoever touches its mount waits, perhaps without end; so this is asked first.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use rustix::io::Errno;

use super::failure::Failure;
use crate::control::beacon;
use crate::control::client::{Client, ClientError};
use crate::control::lossless::printable;
use crate::os::mountinfo::{ConcordMount, MountTable};

/// How long the kernel's question to a mount may take.
const TOUCH_TIME_MAX: Duration = Duration::from_secs(10);

/// What can be said of a mount of ours.
pub enum Liveness {
    /// Its daemon answers.
    Live,
    /// "Transport endpoint is not connected": its daemon has gone.
    Dead,
    /// Its daemon runs and does not answer.
    Silent(Failure),
}

/// Whether its daemon answers. By the socket where we may ask there; else by a statfs(2), in a thread that is left behind if it does not come back.
pub fn liveness(mount: &ConcordMount) -> Liveness {
    match past(mount).map(|client| client.ping()) {
        Some(Ok(())) => Liveness::Live,
        Some(Err(error @ ClientError::Silent { .. })) => Liveness::Silent(failure(mount, &error)),
        _ => touch(mount),
    }
}

/// Why a command cannot use a dead mount.
pub fn dead(mountpoint: &Path) -> Failure {
    let clear = format!("clear it with `concord recover {}`", printable(mountpoint));
    Failure::at(mountpoint, "the mount there is dead, its daemon has ended").hint(clear)
}

/// The daemon of a mount, without a look into the mount.
fn past(mount: &ConcordMount) -> Option<Client> {
    Client::of_daemon(mount.daemon?, &mount.backing).ok()
}

/// The daemon of `root`: a mount point, or else the backing tree of a mount.
pub fn connect(table: &MountTable, root: &Path) -> Result<Client, Failure> {
    let Some(mount) = table.at(root) else {
        let named = Client::connect(root).or_else(|error| {
            // On a full disk it may not have written down where it is.
            let shown = table.concord().find(|mount| mount.backing == root);
            shown.and_then(past).ok_or(error)
        });
        return named.map_err(|error| {
            let failure = Failure::of(&error.into());
            Failure {
                path: Some(root.into()),
                ..failure
            }
        });
    };
    let why = match mount.daemon.map(|pid| Client::of_daemon(pid, &mount.backing)) {
        Some(Ok(client)) => return Ok(client),
        Some(Err(error)) => Some(error),
        None => None,
    };
    match liveness(mount) {
        Liveness::Dead => return Err(dead(root)),
        Liveness::Silent(failure) => return Err(failure),
        Liveness::Live => {}
    }
    if let Some(ClientError::NoAccess(_)) = why {
        return Err(forbidden(mount));
    }
    match Client::connect(root) {
        Ok(client) => Ok(client),
        Err(ClientError::NoAccess(_)) => Err(forbidden(mount)),
        Err(ClientError::NotRunning(_)) => Err(Failure::at(
            root,
            "it is mounted, but its daemon is in another pid namespace (a container)",
        )
        .hint("ask there, for example with nsenter(1) or `docker exec`")),
        Err(error) => Err(failure(mount, &error)),
    }
}

/// Only root and who has mounted may ask.
pub fn forbidden(mount: &ConcordMount) -> Failure {
    let pid = mount.daemon.map_or(String::new(), |pid| format!(" (pid {pid})"));
    let (whose, ask) = match mount.user {
        Some(0) => ("root's".to_owned(), "ask as root, for example with sudo(8)".to_owned()),
        Some(user) => (format!("user {user}'s"), format!("ask as user {user} or as root")),
        None => (
            "another user's".to_owned(),
            "ask as the user who mounted it, or as root".to_owned(),
        ),
    };
    Failure::at(
        &mount.mountpoint,
        format!("it is mounted, and its daemon{pid} is {whose}"),
    )
    .hint(ask)
}

/// What the daemon of a mount said, or did not say.
pub fn failure(mount: &ConcordMount, error: &ClientError) -> Failure {
    let text = error.to_string().replace(
        "concord recover DIR",
        &format!("concord recover {}", printable(&mount.mountpoint)),
    );
    Failure {
        path: Some((&mount.mountpoint).into()),
        ..Failure::of(&anyhow::Error::msg(text))
    }
}

fn touch(mount: &ConcordMount) -> Liveness {
    let silent = |why: String, hint: String| Liveness::Silent(Failure::at(&mount.mountpoint, why).hint(hint));
    if let Some(pid) = mount.daemon.filter(|pid| beacon::is_stopped(*pid)) {
        return silent(
            format!("its daemon (pid {pid}) does not answer: a signal has stopped it"),
            format!("continue it with `kill -CONT {pid}`"),
        );
    }
    let (answer, answered) = mpsc::channel();
    let path = mount.mountpoint.clone();
    std::thread::spawn(move || answer.send(rustix::fs::statfs(&path).map(drop)));
    match answered.recv_timeout(TOUCH_TIME_MAX) {
        Ok(Err(Errno::NOTCONN | Errno::CONNABORTED)) => Liveness::Dead,
        Ok(_) => Liveness::Live,
        Err(_) => {
            let pid = mount.daemon.map_or("unknown".into(), |pid| pid.to_string());
            let (seconds, root) = (TOUCH_TIME_MAX.as_secs(), printable(&mount.mountpoint));
            silent(
                format!("its daemon (pid {pid}) does not answer: it took longer than {seconds} s"),
                format!("if it stays so, end it with `kill -KILL {pid}`, then `concord recover {root}`"),
            )
        }
    }
}
