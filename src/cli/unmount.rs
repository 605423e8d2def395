//! `concord unmount DIR`, and the clearing of dead mounts.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::mount::UnmountFlags;
use serde_json::json;

use super::output::{Answer, Out};
use super::{project, status};
use crate::control::client::ClientError;
use crate::control::lossless::printable;
use crate::control::{JsonPath, beacon::Beacon};
use crate::os::mountinfo::{self, Liveness};

/// After the daemon said that it has unmounted.
const GONE_TIME_MAX: Duration = Duration::from_secs(10);
/// Between two looks at mountinfo.
const GONE_PAUSE: Duration = Duration::from_millis(20);

pub fn run(dir: &Path, force: bool, out: &mut Out) -> anyhow::Result<Answer> {
    let dir = project::resolve(dir).with_context(|| printable(dir))?;
    let shown = printable(&dir);
    if mountinfo::mounted_at(&dir)?.is_none() {
        bail!("{shown}: no concord mount is there");
    }
    let cleared = clear_dead(&dir)?;
    if !cleared {
        ask(&dir, force).with_context(|| shown.clone())?;
    }
    if out.json {
        out.document(&json!({ "unmounted": JsonPath(dir), "was_dead": cleared }))?;
    } else if cleared {
        writeln!(
            out,
            "{shown}: a dead mount was there and is cleared; `concord recover {shown}` brings it to rest"
        )?;
    } else {
        writeln!(out, "{shown}: unmounted")?;
    }
    Ok(Answer::Yes)
}

/// Detaches every dead mount of ours that lies on `dir`; whether there was one.
pub fn clear_dead(dir: &Path) -> anyhow::Result<bool> {
    let mut cleared = false;
    while mountinfo::mounted_at(dir)?.is_some() && mountinfo::liveness(dir) == Liveness::Dead {
        detach(dir).with_context(|| format!("{}: clearing its dead mount failed", printable(dir)))?;
        cleared = true;
    }
    Ok(cleared)
}

/// As umount2(2) with MNT_DETACH; who may not do that has fusermount3 do it.
fn detach(dir: &Path) -> anyhow::Result<()> {
    let Err(errno) = rustix::mount::unmount(dir, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) else {
        return Ok(());
    };
    if errno != rustix::io::Errno::PERM {
        return Err(errno.into());
    }
    let helper = Command::new("fusermount3")
        .args(["-u", "-z", "--"])
        .arg(dir)
        .stdin(Stdio::null())
        .output();
    let helper =
        helper.context("fusermount3, which unmounts for users, cannot be run; install fuse3 or do it as root")?;
    if !helper.status.success() {
        bail!("{}", String::from_utf8_lossy(&helper.stderr).trim());
    }
    Ok(())
}

fn ask(dir: &Path, force: bool) -> anyhow::Result<()> {
    let client = project::connect(dir)?;
    let daemon = client.beacon().clone();
    let busy = client.status().map(|status| status.sessions).unwrap_or_default();
    if !busy.is_empty() && !force {
        // Said before the wait, for whoever wonders why it takes so long.
        let mut text = Vec::new();
        status::sessions(&mut text, &busy)?;
        let _ = write!(
            io::stderr(),
            "waiting for them to end (--force discards them): {}",
            String::from_utf8_lossy(&text)
        );
    }
    match client.unmount(force) {
        // The daemon may have ended before its answer left it: the mount tells.
        Ok(()) | Err(ClientError::Io { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    wait_until_gone(dir, &daemon)
}

/// Gone means: not mounted, and the daemon has let go of the backing tree, so that the next mount finds it free.
fn wait_until_gone(dir: &Path, daemon: &Beacon) -> anyhow::Result<()> {
    let deadline = Instant::now() + GONE_TIME_MAX;
    while mountinfo::mounted_at(dir)?.is_some() || !daemon.has_ended() {
        if Instant::now() >= deadline {
            let left = if mountinfo::mounted_at(dir)?.is_some() {
                "it is still mounted"
            } else {
                "its daemon still runs"
            };
            bail!(
                "{left} (pid {}); see its log, .concord/log, or end it with a signal",
                daemon.pid
            );
        }
        std::thread::sleep(GONE_PAUSE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::said;

    #[test]
    fn a_directory_that_is_no_mount_is_said_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let error = said(false, |out| run(dir.path(), true, out)).0.unwrap_err().to_string();
        assert!(error.ends_with("no concord mount is there"), "{error}");
        assert!(!clear_dead(dir.path()).unwrap());
    }
}
