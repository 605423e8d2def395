//! The daemon of a mount, and whether it answers. Beside one that does not, whoever touches its mount waits, perhaps without end; so this is asked first.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

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
pub fn dead(mount: &ConcordMount) -> Failure {
    let clear = format!("clear it with `concord recover {}`", printable(&mount.mountpoint));
    let failure = Failure::at(&mount.mountpoint, "the mount there is dead, its daemon has ended");
    match may_ask(mount) {
        true => failure.hint(clear),
        false => {
            let (whose, who) = owner(mount);
            failure.hint(format!("it is {whose}: {clear}, as {who}"))
        }
    }
}

/// Whether a mount is ours to ask, to signal and to clear.
pub fn may_ask(mount: &ConcordMount) -> bool {
    let user = rustix::process::geteuid();
    user.is_root() || mount.user.is_none_or(|owner| owner == user.as_raw())
}

/// Whose a mount is, and who may ask there.
fn owner(mount: &ConcordMount) -> (String, String) {
    match mount.user {
        Some(0) => ("root's".to_owned(), "root, for example with sudo(8)".to_owned()),
        Some(user) => (format!("user {user}'s"), format!("user {user} or as root")),
        None => (
            "another user's".to_owned(),
            "the user who mounted it, or as root".to_owned(),
        ),
    }
}

/// The whole tree that a mount shows, without a look into the mount, which may be closed to us where its tree is not: to root, if another user has mounted it.
pub fn tree(mount: &ConcordMount) -> Option<PathBuf> {
    Some(past(mount)?.beacon().tree())
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
        Liveness::Dead => return Err(dead(mount)),
        Liveness::Silent(failure) => return Err(failure),
        Liveness::Live => {}
    }
    if let Some(ClientError::NoAccess(_)) = why
        && !may_ask(mount)
    {
        return Err(forbidden(mount));
    }
    // Unmounted meanwhile, and perhaps mounted again.
    if let Ok(now) = MountTable::read()
        && !now.at(root).is_some_and(|there| there.is(mount))
    {
        return connect(&now, root);
    }
    match Client::connect(root) {
        Ok(client) => Ok(client),
        Err(ClientError::NoAccess(_)) if !may_ask(mount) => Err(forbidden(mount)),
        Err(ClientError::NotRunning(_) | ClientError::NoAccess(_)) => Err(Failure::at(
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
    let (whose, who) = owner(mount);
    let why = format!("it is mounted, and its daemon{pid} is {whose}");
    Failure::at(&mount.mountpoint, why).hint(format!("ask as {who}"))
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
    let mend = |with: String| match may_ask(mount) {
        true => with,
        false => format!("{with}, as {}", owner(mount).1),
    };
    if let Some(pid) = mount.daemon.filter(|pid| beacon::is_stopped(*pid)) {
        return silent(
            format!("its daemon (pid {pid}) does not answer: a signal has stopped it"),
            mend(format!("continue it with `kill -CONT {pid}`")),
        );
    }
    let (answer, answered) = mpsc::channel();
    let (path, owner) = (mount.mountpoint.clone(), mount.user.zip(mount.group));
    std::thread::spawn(move || answer.send(question(&path, owner)));
    match answered.recv_timeout(TOUCH_TIME_MAX) {
        Ok(Err(Errno::NOTCONN | Errno::CONNABORTED)) => Liveness::Dead,
        Ok(_) => Liveness::Live,
        Err(_) => {
            let pid = mount.daemon.map_or("unknown".into(), |pid| pid.to_string());
            let (seconds, root) = (TOUCH_TIME_MAX.as_secs(), printable(&mount.mountpoint));
            silent(
                format!("its daemon (pid {pid}) does not answer: it took longer than {seconds} s"),
                mend(format!(
                    "if it stays so, end it with `kill -KILL {pid}`, then `concord recover {root}`"
                )),
            )
        }
    }
}

/// statfs(2), as whom the mount answers: to all but its owner a user's mount is closed, to root too, and then the kernel itself says that all is well
/// (fs/fuse/inode.c, fuse_statfs). Who may not become him is not told either. The thread stays him.
fn question(mountpoint: &Path, owner: Option<(u32, u32)>) -> rustix::io::Result<()> {
    // By a descriptor: the directories above may be closed to him.
    let opened = rustix::fs::open(mountpoint, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if let Some((user, group)) = owner.filter(|(user, _)| *user != 0 && rustix::process::geteuid().is_root()) {
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)?;
    }
    rustix::fs::fstatfs(&opened).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::mountinfo::tests::table;

    #[test]
    fn a_mount_that_has_gone_since_the_table_was_read_is_no_container_s() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().to_str().unwrap();
        let before = table(&[(1, 0, "/", ""), (2, 1, at, "/nowhere")]);
        let failure = connect(&before, dir.path()).unwrap_err();
        assert!(failure.why.starts_with("no daemon runs for it"), "{failure}");
    }
}
