//! `concord unmount DIR`, and the clearing of dead mounts.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::mount::UnmountFlags;
use serde_json::json;

use super::failure::{At, Failure};
use super::holders::Holder;
use super::output::{Answer, Out};
use super::reach::{self, Liveness};
use super::{holders, project, status};
use crate::control::client::{Client, ClientError};
use crate::control::lossless::printable;
use crate::control::{JsonPath, RefusedKind, Unmounting, beacon::Beacon};
use crate::os::mountinfo::{ConcordMount, MountTable};

/// How long the kernel may find the mount in use though nobody is seen who stays in it. Who has just ended has let go of nothing yet, and is not seen any more.
const PASSING_TIME_MAX: Duration = Duration::from_secs(10);
/// After the daemon said that it has unmounted. It may have publishes to finish, for which it takes a minute at most.
const GONE_TIME_MAX: Duration = Duration::from_secs(70);
/// A daemon that is not mounted any more takes less to end, unless somebody has a copy of the mount.
const ENDING_TIME_MAX: Duration = Duration::from_secs(2);
/// Between two looks at mountinfo.
const GONE_PAUSE: Duration = Duration::from_millis(20);

pub fn run(dir: &Path, force: bool, out: &mut Out) -> anyhow::Result<Answer> {
    let dir = project::resolve(dir)?;
    let shown = printable(&dir);
    let table = MountTable::read()?;
    let Some(mount) = table.at(&dir) else {
        return end_without_mount(&dir, &table, force, out);
    };
    // What we are in ourselves could not be unmounted.
    std::env::set_current_dir("/").context("leaving the working directory")?;
    let cleared = clear_dead(&dir)?;
    if !cleared && let Some(failure) = within(&table, mount, force) {
        match force {
            true => out.remark("unmount", &failure),
            false => return Err(failure.into()),
        }
    }
    let left = !cleared
        && match can_go_alone(mount) {
            true => take_off(mount, force)?,
            false => ask(&table, mount, force)?,
        };
    if out.json {
        out.document(&json!({ "unmounted": JsonPath(dir), "was_dead": cleared, "working_directory_left": left }))?;
    } else if cleared {
        writeln!(
            out,
            "{shown}: a dead mount was there and is cleared; `concord recover {shown}` brings it to rest"
        )?;
    } else {
        writeln!(out, "{shown}: unmounted")?;
        if left {
            writeln!(
                out,
                "this shell is still where the mount was: `cd .` takes it to the plain directory"
            )?;
        }
    }
    Ok(Answer::Yes)
}

/// For a daemon that has lost its mount here, to umount(8), and goes on for whoever has a copy of it.
fn end_without_mount(dir: &Path, table: &MountTable, force: bool, out: &mut Out) -> anyhow::Result<Answer> {
    let failure = Failure::at(dir, "no concord mount is there");
    if let Some(mount) = table.containing(dir) {
        let root = printable(&mount.mountpoint);
        return Err(failure.hint(format!("name its root: `concord unmount {root}`")).into());
    }
    let Ok(client) = Client::connect(dir) else {
        return Err(failure.into());
    };
    if !is_lost(client.beacon(), dir) {
        let at = printable(&client.beacon().mountpoint.0);
        return Err(failure
            .hint(format!("its files are shown at {at}: `concord unmount {at}`"))
            .into());
    }
    let (shown, pid) = (printable(dir), client.beacon().pid);
    // One that another has just unmounted ends by itself.
    if has_ended_within(client.beacon(), ENDING_TIME_MAX) {
        return Err(failure.into());
    }
    if !force {
        let why = format!(
            "it is unmounted here, and its daemon (pid {pid}) still shows it where somebody has a copy of the mount"
        );
        return Err(Failure::at(dir, why)
            .hint("end who has it, or use --force, which takes it from all")
            .into());
    }
    client.unmount(Unmounting::Force).at(dir)?;
    wait_until_gone(dir, client.beacon())?;
    match out.json {
        true => out.document(
            &json!({ "unmounted": JsonPath::from(dir), "was_dead": false, "working_directory_left": false }),
        )?,
        false => writeln!(out, "{shown}: its daemon (pid {pid}) has ended")?,
    }
    Ok(Answer::Yes)
}

fn has_ended_within(daemon: &Beacon, at_most: Duration) -> bool {
    let deadline = Instant::now() + at_most;
    while !daemon.has_ended() && Instant::now() < deadline {
        std::thread::sleep(GONE_PAUSE);
    }
    daemon.has_ended()
}

/// Whether the daemon's mount at `dir` is there no more.
fn is_lost(beacon: &Beacon, dir: &Path) -> bool {
    // Another mount may have its number by now.
    let is_its = |mount: &ConcordMount| mount.daemon == Some(beacon.pid);
    let has_gone = |id| MountTable::of(beacon.pid).is_ok_and(|mounts| !mounts.by_id(id).is_some_and(is_its));
    beacon.mountpoint.0 == dir && beacon.mount.is_some_and(has_gone)
}

/// Whether it is another mount's files bound or copied here, and that one stays, or has gone already.
fn can_go_alone(mount: &ConcordMount) -> bool {
    let Some(beacon) = mount.daemon.and_then(|pid| Beacon::of_daemon(pid, &mount.backing).ok()) else {
        return false;
    };
    let (Some(first), Ok(own), Ok(its)) = (beacon.mount, MountTable::read(), MountTable::of(beacon.pid)) else {
        return false;
    };
    let tables = [own, its];
    let stays = || tables[0].stays(mount.id, mount.device, &tables);
    first != mount.id && (tables[1].by_id(first).is_none() || stays().iter().any(|(_, other)| other.id == first))
}

/// What is mounted in the mount, which keeps it in use until it is unmounted; by force it goes along.
fn within(table: &MountTable, mount: &ConcordMount, force: bool) -> Option<Failure> {
    let inner: Vec<_> = table.within(mount.id).collect();
    let named: Vec<_> = inner.iter().map(|(at, _)| printable(at)).collect();
    let (last, ours) = inner.last()?;
    let failure = |why| Failure::at(&mount.mountpoint, format!("{why} {}", named.join(", ")));
    Some(match force {
        true => failure("unmounted with it is what is mounted in it, at"),
        false => {
            let with = if *ours { "concord unmount" } else { "umount" };
            let first = format!("`{with} {}`", printable(last));
            failure("it is in use, there is a mount in it, at").hint(format!(
                "unmount that first: {first}; or use --force, which takes it along"
            ))
        }
    })
}

/// Takes off what is no daemon's own mount. No working directory is left in it.
fn take_off(mount: &ConcordMount, force: bool) -> anyhow::Result<bool> {
    match umount(&mount.mountpoint, force) {
        Ok(()) => Ok(false),
        Err(_) if !force && !holders::of(mount).is_empty() => Err(in_use_by(mount, &holders::of(mount)).into()),
        Err(error) => Err(error).at(&mount.mountpoint),
    }
}

/// Detaches every dead mount of ours that lies on `dir`; whether there was one.
pub fn clear_dead(dir: &Path) -> anyhow::Result<bool> {
    let mut cleared = false;
    while let Some(mount) = MountTable::read()?.at(dir)
        && matches!(reach::liveness(mount), Liveness::Dead)
    {
        if !reach::may_ask(mount) {
            return Err(reach::dead(mount).into());
        }
        let detached = umount(dir, true).context("clearing its dead mount failed").at(dir);
        // Another may have cleared it just now, which is as good, and its number be that of another mount elsewhere.
        if MountTable::read()?.at(dir).is_some_and(|now| now.id == mount.id) {
            detached?;
        }
        cleared = true;
    }
    Ok(cleared)
}

/// As umount2(2), lazily with MNT_DETACH; who may not do that has fusermount3 do it.
fn umount(dir: &Path, lazily: bool) -> anyhow::Result<()> {
    let (flags, arguments): (_, &[&str]) = match lazily {
        true => (UnmountFlags::DETACH, &["-u", "-z", "--"]),
        false => (UnmountFlags::empty(), &["-u", "--"]),
    };
    let Err(errno) = rustix::mount::unmount(dir, flags | UnmountFlags::NOFOLLOW) else {
        return Ok(());
    };
    if errno != rustix::io::Errno::PERM {
        return Err(errno.into());
    }
    let helper = Command::new("fusermount3")
        .args(arguments)
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

/// Whether working directories were left in what was the mount: those of who asked.
fn ask(table: &MountTable, mount: &ConcordMount, force: bool) -> anyhow::Result<bool> {
    let dir = &mount.mountpoint;
    let client = match reach::connect(table, dir) {
        Err(_) if is_gone(mount)? => return Ok(false),
        client => client?,
    };
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
    let mut how = if force { Unmounting::Force } else { Unmounting::Wait };
    let mut asked = client.unmount(how);
    let in_use =
        |asked: &Result<(), ClientError>| matches!(asked, Err(ClientError::Refused(r)) if r.kind == RefusedKind::Busy);
    let deadline = Instant::now() + PASSING_TIME_MAX;
    let mut before = Vec::new();
    while in_use(&asked) && !force {
        let found = holders::of(mount);
        // Whoever asks from within asks for this: there is nothing in the mount that anybody else could lose.
        how = match !found.is_empty() && holders::are_only_who_asks(&found, &holders::ancestors()) {
            true => Unmounting::LeaveDirectories,
            false if holders::stays_any(&before, &found) => break,
            false => Unmounting::Wait,
        };
        before = found;
        if Instant::now() >= deadline {
            break;
        }
        asked = client.unmount(how);
    }
    match asked {
        // The daemon may have ended before its answer left it: the mount tells.
        Ok(()) | Err(ClientError::Io { .. }) => {}
        Err(_) if in_use(&asked) => return Err(in_use_by(mount, &before).into()),
        // Another has unmounted it.
        Err(_) if is_gone(mount)? => {}
        Err(error) => return Err(reach::failure(mount, &error).into()),
    }
    wait_until_gone(dir, &daemon)?;
    Ok(how == Unmounting::LeaveDirectories)
}

/// Whether it is unmounted by now, by whomever.
fn is_gone(mount: &ConcordMount) -> anyhow::Result<bool> {
    Ok(!MountTable::read()?
        .at(&mount.mountpoint)
        .is_some_and(|there| there.is(mount)))
}

fn in_use_by(mount: &ConcordMount, found: &[Holder]) -> Failure {
    let others = match rustix::process::geteuid().is_root() {
        true => "",
        false => " (of your own; root sees all)",
    };
    let who = match found.is_empty() {
        true => format!("nobody is seen any more{others}: try again"),
        false => format!("by {}{others}", holders::named(found)),
    };
    Failure::at(&mount.mountpoint, format!("it is in use, {who}"))
        .hint("end them or have them cd elsewhere, or use --force, which takes their files away")
}

/// Gone means: not mounted, and the daemon has let go of the backing tree, so that the next mount finds it free.
fn wait_until_gone(dir: &Path, daemon: &Beacon) -> anyhow::Result<()> {
    let deadline = Instant::now() + GONE_TIME_MAX;
    let is_mounted = || {
        anyhow::Ok(
            MountTable::read()?
                .at(dir)
                .is_some_and(|mount| mount.daemon == Some(daemon.pid)),
        )
    };
    while is_mounted()? || !daemon.has_ended() {
        if Instant::now() >= deadline {
            let left = if is_mounted()? {
                "it is still mounted"
            } else {
                "its daemon still runs"
            };
            let pid = daemon.pid;
            let why = format!("{left} (pid {pid})");
            return Err(Failure::at(dir, why)
                .hint("see its log, .concord/log, or end it with a signal")
                .into());
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
