//! From any path that reaches a file to the project that it belongs to.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;

use crate::control::client::{Client, ClientError};
use crate::control::lossless::printable;
use crate::os::mountinfo;

/// The store's directory in a project's root.
pub const STORE: &str = ".concord";
/// As the kernel's MAXSYMLINKS (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// A project's root: a mount point of ours, or a directory with a store in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Free of links.
    pub root: PathBuf,
}

impl Project {
    /// The nearest project at or above `path`, which need not exist.
    pub fn containing(path: &Path) -> Result<Self> {
        let resolved = resolve(path).with_context(|| printable(path))?;
        Self::above(&resolved).with_context(|| printable(path))
    }

    /// The project of `file` and the file's path in it. Links are followed, the last one too; what does not exist any
    /// more is taken by its name.
    pub fn of_file(file: &Path) -> Result<(Self, PathBuf)> {
        let resolved = resolve(file).with_context(|| printable(file))?;
        let project = Self::above(&resolved).with_context(|| printable(file))?;
        let relative = resolved
            .strip_prefix(&project.root)
            .context("a path outside its own project")?
            .to_path_buf();
        if relative.as_os_str().is_empty() {
            bail!("{}: it is the project itself; name a file in it", printable(file));
        }
        if relative.starts_with(STORE) {
            bail!(
                "{}: it belongs to the store, which has no history; name a file of the project",
                printable(file)
            );
        }
        Ok((project, relative))
    }

    fn above(resolved: &Path) -> Result<Self> {
        let mounts = mountinfo::concord_mounts().context("reading /proc/self/mountinfo")?;
        for root in resolved.ancestors() {
            let mounted = mounts.iter().any(|mount| mount.mountpoint == root);
            if mounted && mountinfo::liveness(root) == mountinfo::Liveness::Dead {
                let dir = printable(root);
                bail!("the mount at {dir} is dead (its daemon has ended); clear it with `concord recover {dir}`");
            }
            if mounted || root.join(STORE).symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
                return Ok(Self {
                    root: root.to_path_buf(),
                });
            }
        }
        bail!("it is in no concord project; make its directory one with `concord mount DIR`")
    }

    /// Where the plain tree can be read: past the mount where its daemon runs and lets us, else the root itself.
    pub fn tree(&self) -> PathBuf {
        let past = Client::connect(&self.root).ok().map(|client| client.beacon().tree());
        past.filter(|tree| tree.join(STORE).symlink_metadata().is_ok())
            .unwrap_or_else(|| self.root.clone())
    }
}

/// The daemon of a project.
pub fn connect(root: &Path) -> Result<Client> {
    let error = match Client::connect(root) {
        Ok(client) => return Ok(client),
        Err(error) => error,
    };
    if let ClientError::NotRunning(_) = &error
        && mountinfo::mounted_at(root).is_ok_and(|mount| mount.is_some())
        && mountinfo::liveness(root) == mountinfo::Liveness::Live
    {
        bail!(
            "it is mounted, but its daemon is in another pid namespace (a container): ask there, for example with nsenter(1) or `docker exec`"
        );
    }
    Err(error.into())
}

/// As realpath(3), but what does not exist is kept as it is named: the versions of a deleted file, and of a file in a
/// deleted directory, are still to be found. A dead mount counts as existing.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut ahead: VecDeque<OsString> = VecDeque::new();
    let mut resolved = PathBuf::from("/");
    if path.is_relative() {
        resolved = std::env::current_dir()?;
    }
    push_front(&mut ahead, path);
    let (mut links, mut missing) = (0, false);
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            if missing {
                return Err(Errno::NOENT.into());
            }
            resolved.pop();
            continue;
        }
        let next = resolved.join(&name);
        match std::fs::read_link(&next) {
            Ok(target) => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::LOOP.into());
                }
                if target.is_absolute() {
                    resolved = PathBuf::from("/");
                }
                push_front(&mut ahead, &target);
            }
            Err(error) => {
                match Errno::from_io_error(&error) {
                    // EINVAL: no link. ENOTCONN: a dead mount.
                    Some(Errno::INVAL | Errno::NOTCONN) => {}
                    Some(Errno::NOENT | Errno::NOTDIR) => missing = true,
                    _ => return Err(error),
                }
                resolved = next;
            }
        }
    }
    Ok(resolved)
}

fn push_front(ahead: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => ahead.push_front(name.to_os_string()),
            Component::ParentDir => ahead.push_front("..".into()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn project() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("p");
        std::fs::create_dir_all(root.join(".concord")).unwrap();
        std::fs::create_dir(root.join("docs")).unwrap();
        std::fs::write(root.join("docs/a.md"), "x").unwrap();
        (dir, root)
    }

    fn of_file(path: PathBuf) -> (PathBuf, PathBuf) {
        let (project, file) = Project::of_file(&path).unwrap();
        (project.root, file)
    }

    #[test]
    fn a_file_is_found_by_any_path_that_reaches_it() {
        let (dir, root) = project();
        let base = root.parent().unwrap();
        symlink("p/docs", base.join("link")).unwrap();
        symlink(root.join("docs/a.md"), base.join("file")).unwrap();
        symlink("file", base.join("file2")).unwrap();
        for path in [
            "p/docs/a.md",
            "p/./docs/../docs//a.md",
            "link/a.md",
            "link/../docs/a.md",
            "file",
            "file2",
        ] {
            assert_eq!(
                of_file(dir.path().join(path)),
                (root.clone(), "docs/a.md".into()),
                "{path}"
            );
        }
    }

    #[test]
    fn a_deleted_file_is_found_by_its_name_and_so_is_one_in_a_deleted_directory() {
        let (dir, root) = project();
        symlink("p/docs/gone.md", dir.path().join("dangling")).unwrap();
        assert_eq!(
            of_file(dir.path().join("dangling")),
            (root.clone(), "docs/gone.md".into())
        );
        assert_eq!(
            of_file(root.join("no/more/x.md")),
            (root.clone(), "no/more/x.md".into())
        );
        assert!(Project::of_file(&root.join("no/../docs/a.md")).is_err());
    }

    #[test]
    fn the_nearest_project_counts() {
        let (_dir, root) = project();
        std::fs::create_dir_all(root.join("sub/.concord")).unwrap();
        assert_eq!(of_file(root.join("sub/b.md")), (root.join("sub"), "b.md".into()));
        assert_eq!(Project::containing(&root).unwrap().root, root);
    }

    #[test]
    fn what_is_in_no_project_or_is_the_store_is_said() {
        let (dir, root) = project();
        for path in [
            dir.path().join("elsewhere.md"),
            root.clone(),
            root.join(".concord/sock"),
        ] {
            assert!(Project::of_file(&path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_ring_of_links_is_an_error() {
        let (dir, _root) = project();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        let error = resolve(&dir.path().join("a")).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::LOOP));
    }
}
