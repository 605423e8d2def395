//! `concord mount DIR`: checks, then a daemon, which is this same program started again.

pub mod config;
mod daemon;
pub mod limits;
mod overlap;
pub mod service;
mod spawn;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};
use serde_json::json;

use self::spawn::Counts;
use super::failure::{At, Failure};
use super::output::{Answer, Out};
use super::project;
use super::reach::{self, Liveness};
use super::rooms::{MountOrder, Rooms};
use crate::control::JsonPath;
use crate::control::lossless::printable;
use crate::os::mountinfo::MountTable;
use crate::os::proc;

#[derive(Debug, Args)]
pub struct Mount {
    /// The project directory; the mount goes over it
    dir: PathBuf,
    /// Stay in the foreground and log to standard error
    #[arg(long)]
    foreground: bool,
    /// The rules [default: concord.toml in the project, else the built-in ones]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Show this directory's tree at DIR, instead of DIR's own
    #[arg(long, value_name = "DIR2")]
    backing: Option<PathBuf>,
    /// Others may change the tree behind the mount: keep names and attributes for one second only
    #[arg(long)]
    shared_backing: bool,
    /// Be the daemon: report on standard output to who started it
    #[arg(long, hide = true)]
    report: bool,
}

pub fn run(mount: &Mount, rooms: &dyn Rooms, out: &mut Out) -> anyhow::Result<Answer> {
    if mount.report {
        return spawn::report(|ready| daemon::run(order(mount)?, daemon::Stay::Background, rooms, ready));
    }
    if mount.foreground {
        let order = order(mount)?;
        let dir = order.mountpoint.clone();
        daemon::run(order, daemon::Stay::Foreground, rooms, |counts| {
            said(out, &dir, (proc::own_pid().unwrap_or_default(), counts))
        })?;
        return Ok(Answer::Yes);
    }
    // Checked here too, so that what is plainly wrong is said without a daemon.
    let dir = order(mount)?.mountpoint;
    said(out, &dir, spawn::daemon(arguments(mount)?)?)?;
    Ok(Answer::Yes)
}

fn said(out: &mut Out, dir: &Path, (pid, counts): (u32, Counts)) -> io::Result<()> {
    let Counts { recovered, left } = counts;
    if out.json {
        out.document(&json!({ "mounted": JsonPath::from(dir), "pid": pid, "recovered": recovered, "left": left }))?;
    } else {
        let dir = printable(dir);
        writeln!(out, "{dir}: mounted, pid {pid}")?;
        if recovered > 0 {
            writeln!(
                out,
                "recovered after a crash: {recovered}; `concord status {dir}` lists what was kept"
            )?;
        }
        if left > 0 {
            writeln!(
                out,
                "left for want of room: {left}, named in .concord/log; free space and mount again, and it is recovered"
            )?;
        }
    }
    out.flush()
}

/// The daemon's arguments. It leaves this working directory, so every path is absolute.
fn arguments(mount: &Mount) -> io::Result<Vec<OsString>> {
    let mut arguments: Vec<OsString> = vec!["mount".into(), "--report".into()];
    for (flag, path) in [("--config", &mount.config), ("--backing", &mount.backing)] {
        if let Some(path) = path {
            arguments.extend([flag.into(), std::path::absolute(path)?.into_os_string()]);
        }
    }
    if mount.shared_backing {
        arguments.push("--shared-backing".into());
    }
    arguments.extend(["--".into(), std::path::absolute(&mount.dir)?.into_os_string()]);
    Ok(arguments)
}

/// What is to be mounted, after every check that changes nothing.
fn order(mount: &Mount) -> anyhow::Result<MountOrder> {
    let mountpoint = checked(&mount.dir)?;
    let backing = match &mount.backing {
        Some(backing) => checked(backing)?,
        None => mountpoint.clone(),
    };
    fuse_is_there()?;
    limits::enough_descriptors(&mountpoint)?;
    overlap::check(&mountpoint, &backing)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, &backing, flags, Mode::empty()).at(&backing)?;
    let config = mount.config.as_deref().map(readable).transpose()?;
    Ok(MountOrder {
        root: Arc::new(root),
        mountpoint,
        backing,
        config,
        shared_backing: mount.shared_backing,
    })
}

/// `dir` without links, if it is a directory that we may use and that is not a mount of ours.
fn checked(dir: &Path) -> anyhow::Result<PathBuf> {
    let asked = dir;
    let dir = project::resolve(dir)?;
    if let Some(mount) = MountTable::read()?.at(&dir) {
        let status = format!("see `concord status {}`", printable(&dir));
        return Err(match reach::liveness(mount) {
            Liveness::Live => Failure::at(asked, "it is already a concord mount").hint(status),
            Liveness::Dead => reach::dead(mount),
            Liveness::Silent(failure) => failure,
        }
        .into());
    }
    project::usable(&dir)?;
    project::no_store(&dir)?;
    match std::fs::metadata(&dir) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => {
            return Err(Failure::at(asked, "it is not a directory")
                .hint("name a project's directory")
                .into());
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::at(asked, "there is no such directory").into());
        }
        Err(error) => return Err(error).at(asked),
    }
    let all = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::accessat(CWD, &dir, all, AtFlags::EACCESS).map_err(|errno| {
        let why = format!("you need to be able to read, write and search it: {errno}");
        let hint = match errno {
            rustix::io::Errno::ROFS => "remount its filesystem writable",
            _ => "mount it as its owner, or as root",
        };
        Failure::at(asked, why).hint(hint)
    })?;
    Ok(dir)
}

fn fuse_is_there() -> Result<(), Failure> {
    if proc::own_pid().is_none() {
        let why = "it is not mounted, or shows another pid namespace only";
        return Err(Failure::at("/proc", why).hint("`mount -t proc proc /proc`"));
    }
    match std::fs::symlink_metadata("/dev/fuse") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::at("/dev/fuse", "there is none")
            .hint("`modprobe fuse`, and in a container start it with --device /dev/fuse")),
        // fusermount3 opens it as the user, too.
        _ => rustix::fs::accessat(CWD, "/dev/fuse", Access::READ_OK | Access::WRITE_OK, AtFlags::EACCESS).map_err(
            |errno| {
                let why = format!("you need to be able to read and write it: {errno}");
                Failure::at("/dev/fuse", why).hint("`chmod 666 /dev/fuse` as root, or mount as root")
            },
        ),
    }
}

/// The absolute path of rules that were named, if they can be read.
pub fn readable(config: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(config)?;
    if let Some(dir) = path.parent() {
        project::usable(&project::resolve(dir)?)?;
    }
    let opened = std::fs::metadata(config).and_then(|meta| match meta.file_type() {
        kind if kind.is_dir() => Err(rustix::io::Errno::ISDIR.into()),
        // It would be waited for.
        kind if kind.is_fifo() => Err(io::Error::other("it is a FIFO")),
        _ => File::open(config),
    });
    match opened {
        Ok(_) => Ok(path),
        Err(error) => {
            let why = format!("the rules cannot be read: {error}");
            Err(Failure::at(config, why)
                .hint("name a file that is there, or leave --config away")
                .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(dir: &Path) -> Mount {
        Mount {
            dir: dir.into(),
            foreground: false,
            config: None,
            backing: None,
            shared_backing: true,
            report: false,
        }
    }

    #[test]
    fn what_cannot_be_mounted_over_is_said_and_nothing_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let say = |path: &str| format!("{:#}", checked(&dir.path().join(path)).unwrap_err());
        assert!(say("file").contains("it is not a directory"));
        assert!(say("none").ends_with("there is no such directory"));
        assert!(say("file/x").contains("Not a directory"), "{}", say("file/x"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_to_a_directory_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(".", dir.path().join("link")).unwrap();
        assert_eq!(
            checked(&dir.path().join("link")).unwrap(),
            dir.path().canonicalize().unwrap()
        );
    }

    #[test]
    fn the_daemon_gets_every_setting_and_absolute_paths() {
        let order = Mount {
            config: Some("c.toml".into()),
            ..mount(Path::new("-odd"))
        };
        let arguments = arguments(&order).unwrap();
        let here = std::env::current_dir().unwrap();
        let expected: Vec<OsString> = [
            "mount".into(),
            "--report".into(),
            "--config".into(),
            here.join("c.toml").into_os_string(),
            "--shared-backing".into(),
            "--".into(),
            here.join("-odd").into_os_string(),
        ]
        .into();
        assert_eq!(arguments, expected);
    }

    #[test]
    fn rules_that_cannot_be_read_are_an_error_before_anything_is_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let order = order(&Mount {
            config: Some(dir.path().join("none.toml")),
            ..mount(dir.path())
        });
        assert!(format!("{:#}", order.unwrap_err()).contains("none.toml"));
    }
}
