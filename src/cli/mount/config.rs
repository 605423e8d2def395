//! The configuration of a running daemon: read before the mount, and again whenever it changes, always past the mount.

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::rules::{FILE_NAME, Rules};

/// How often the file is looked at; a save through the mount is noticed at once.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A longer file is not a configuration.
const BYTES_MAX: u64 = 1 << 20;

/// A configuration file that may or may not be there.
pub struct Config {
    dir: OwnedFd,
    name: OsString,
    shown: PathBuf,
    /// It was named by the user: then it must be there.
    required: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seen: Option<Seen>,
    error: Option<String>,
    present: bool,
}

/// What tells one state of the file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    ino: u64,
    size: i64,
    changed: (i64, i64),
}

impl Config {
    /// `named` is `--config`, absolute; otherwise it is `concord.toml` in the root.
    ///
    /// # Errors
    /// When the directory of a named one cannot be opened.
    pub fn open(root: &Arc<OwnedFd>, mountpoint: &Path, named: Option<&Path>) -> anyhow::Result<Config> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let (dir, name, shown) = match named {
            None => (
                rustix::io::fcntl_dupfd_cloexec(root, 3)?,
                FILE_NAME.into(),
                PathBuf::from(FILE_NAME),
            ),
            Some(path) => {
                let name = path
                    .file_name()
                    .with_context(|| format!("{} is not a file's name", path.display()))?;
                let parent = path.parent().unwrap_or(Path::new("/"));
                let opened = match parent.strip_prefix(mountpoint) {
                    // By the descriptor: afterwards that path leads through our own mount.
                    Ok(inside) if inside.as_os_str().is_empty() => rustix::io::fcntl_dupfd_cloexec(root, 3),
                    Ok(inside) => rustix::fs::openat(root, inside, flags, Mode::empty()),
                    Err(_) => rustix::fs::open(parent, flags, Mode::empty()),
                };
                (
                    opened.with_context(|| format!("opening {}", parent.display()))?,
                    name.to_owned(),
                    path.to_owned(),
                )
            }
        };
        Ok(Config {
            dir,
            name,
            shown,
            required: named.is_some(),
            state: Mutex::default(),
        })
    }

    /// The rules to begin with.
    ///
    /// # Errors
    /// A mistake in the file, with its line and key; that a named one is not there.
    pub fn first(&self) -> anyhow::Result<Rules> {
        let (rules, seen) = self.read()?;
        let mut state = self.state.lock();
        state.seen = seen;
        state.present = seen.is_some();
        Ok(rules)
    }

    /// New rules, when the file has changed since it was last looked at and is right. With a mistake in it the old rules stay in force.
    pub fn changed(&self) -> Option<Rules> {
        let mut state = self.state.lock();
        let seen = match self.stat() {
            Ok(stat) => stat.as_ref().map(Seen::of),
            Err(_) => return None,
        };
        if seen == state.seen {
            return None;
        }
        state.seen = seen;
        match self.read() {
            Ok((rules, seen)) => {
                log::info!("{} is in force", self.shown.display());
                state.error = None;
                state.present = seen.is_some();
                Some(rules)
            }
            Err(error) => {
                log::error!("{error:#}; the rules from before stay in force");
                state.error = Some(format!("{error:#}"));
                None
            }
        }
    }

    /// The file in force, if any, and why a newer state of it is not.
    pub fn in_force(&self) -> (Option<PathBuf>, Option<String>) {
        let state = self.state.lock();
        (state.present.then(|| self.shown.clone()), state.error.clone())
    }

    fn stat(&self) -> rustix::io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.dir, &self.name, AtFlags::empty()) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// It is a symbolic link, where nothing is found.
    fn leads_nowhere(&self) -> bool {
        rustix::fs::statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    fn read(&self) -> anyhow::Result<(Rules, Option<Seen>)> {
        let shown = self.shown.display();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(&self.dir, &self.name, flags, Mode::empty()) {
            Err(Errno::NOENT) if self.leads_nowhere() => {
                anyhow::bail!("{shown} is a symbolic link to what is not there; make that, or remove the link")
            }
            Err(Errno::NOENT) if !self.required => return Ok((Rules::builtin(), None)),
            opened => opened.with_context(|| format!("reading {shown}"))?,
        };
        let stat = rustix::fs::fstat(&file)?;
        anyhow::ensure!(
            FileType::from_raw_mode(stat.st_mode) != FileType::Fifo,
            "{shown} is a FIFO; it cannot be a configuration"
        );
        let seen = Seen::of(&stat);
        let mut bytes = Vec::new();
        std::fs::File::from(file)
            .take(BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("reading {shown}"))?;
        anyhow::ensure!(
            bytes.len() as u64 <= BYTES_MAX,
            "{shown} is longer than {BYTES_MAX} bytes; it cannot be a configuration"
        );
        let text = String::from_utf8(bytes).map_err(|error| {
            anyhow::anyhow!(
                "{shown} is not UTF-8 at byte {}; save it as UTF-8",
                error.utf8_error().valid_up_to()
            )
        })?;
        Ok((Rules::parse(&text, &self.shown)?, Some(seen)))
    }
}

impl Seen {
    fn of(stat: &Stat) -> Seen {
        Seen {
            ino: stat.st_ino,
            size: stat.st_size,
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RealDisk;

    fn config(dir: &Path, named: Option<&Path>) -> Config {
        Config::open(&RealDisk::open_root(dir).unwrap(), dir, named).unwrap()
    }

    #[test]
    fn a_mistake_leaves_the_old_rules_in_force_and_says_so_until_it_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE_NAME);
        let config = config(dir.path(), None);
        assert!(config.first().unwrap().policy(Path::new("a.md")).is_some());
        assert!(config.changed().is_none());
        std::fs::write(&file, "[[rule]]\npaths = [\"*.md\"]\nwiat = \"5s\"\n").unwrap();
        assert!(config.changed().is_none());
        assert!(config.in_force().1.unwrap().contains("concord.toml:3"));
        std::fs::write(&file, "[[rule]]\npaths = [\"*.md\"]\ncoordinate = false\n").unwrap();
        assert!(config.changed().unwrap().policy(Path::new("a.md")).is_none());
        assert_eq!(config.in_force(), (Some(FILE_NAME.into()), None));
        std::fs::remove_file(&file).unwrap();
        assert!(config.changed().unwrap().policy(Path::new("a.md")).is_some());
    }

    #[test]
    fn a_named_file_must_be_there_and_be_text() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("other.toml");
        let config = config(dir.path(), Some(&file));
        assert!(config.first().is_err());
        std::fs::write(&file, b"grace = \"\xff\"").unwrap();
        assert!(format!("{:#}", config.first().err().unwrap()).contains("UTF-8"));
    }
}
