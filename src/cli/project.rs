//! From any path that reaches a file to the project that it belongs to.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;
use rustix::io::Errno;

use super::failure::{At, Failure};
use super::reach::{self, Liveness};
use super::rooms::{HistorySource, Rooms};
use crate::control::client::Client;
use crate::control::lossless::printable;
use crate::os::mountinfo::{ConcordMount, MountTable};

/// The store's directory in a project's root.
pub const STORE: &str = ".concord";
/// As the kernel's MAXSYMLINKS (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// A project's root: a mount point of ours, or a directory with a store in it.
#[derive(Debug, Clone)]
pub struct Project {
    /// Free of links.
    pub root: PathBuf,
    table: MountTable,
}

impl Project {
    /// The nearest project at or above `path`, which need not exist.
    pub fn containing(path: &Path) -> anyhow::Result<Self> {
        let mut walk = Walk::new()?;
        let resolved = walk.resolve(path)?;
        walk.project_above(&resolved, path)
    }

    /// The project of `file` and the file's path in it. Links are followed, the last one too; what does not exist any
    /// more is taken by its name.
    pub fn of_file(file: &Path) -> anyhow::Result<(Self, PathBuf)> {
        let mut walk = Walk::new()?;
        let resolved = walk.resolve(file)?;
        let project = walk.project_above(&resolved, file)?;
        let below = project.mount().map_or(PathBuf::new(), |mount| mount.below.clone());
        let relative = resolved
            .strip_prefix(&project.root)
            .context("a path outside its own project")?;
        let relative = below.join(relative);
        if relative.as_os_str().is_empty() {
            return Err(Failure::at(file, "it is the project itself")
                .hint("name a file in it")
                .into());
        }
        if relative.starts_with(STORE) {
            let why = "it belongs to the store, which has no history";
            return Err(Failure::at(file, why).hint("name a file of the project").into());
        }
        Ok((project, relative))
    }

    /// The mount at its root.
    pub fn mount(&self) -> Option<&ConcordMount> {
        self.table.at(&self.root)
    }

    /// Whether a file of it is, for programs, on a filesystem that is mounted in the mount.
    pub fn is_elsewhere(&self, file: &Path) -> bool {
        let path = self.root.join(file);
        let is_ours = |mount: &ConcordMount| self.table.containing(&path).is_some_and(|other| other.id == mount.id);
        self.mount().is_some_and(|mount| !is_ours(mount)) && path.symlink_metadata().is_ok()
    }

    /// Its daemon.
    pub fn daemon(&self) -> Result<Client, Failure> {
        reach::connect(&self.table, &self.root)
    }

    /// The versions of its files.
    pub fn history(&self, rooms: &dyn Rooms) -> anyhow::Result<Box<dyn HistorySource>> {
        use std::io::ErrorKind::{NotFound, PermissionDenied};
        let error = match rooms.history(&self.tree()) {
            Ok(history) => return Ok(history),
            Err(error) => error,
        };
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        match (kind, self.mount(), self.daemon()) {
            // Through the mount there is no store for others than root and the user who mounted.
            (Some(NotFound | PermissionDenied), Some(_), Err(failure)) => Err(failure.into()),
            (Some(PermissionDenied), ..) => {
                let why = format!("its history cannot be read: {error}");
                Err(Failure::at(&self.root, why).hint("ask as its owner, or as root").into())
            }
            _ => Err(error).at(&self.root.join(STORE)),
        }
    }

    /// Where the plain tree can be read: past the mount where its daemon can be reached; else the root itself.
    pub fn tree(&self) -> PathBuf {
        let past = self.mount().and_then(|_| self.daemon().ok());
        past.map_or_else(|| self.root.clone(), |client| client.beacon().tree())
    }
}

/// A directory without links.
pub fn resolve(path: &Path) -> anyhow::Result<PathBuf> {
    Walk::new()?.resolve(path)
}

/// Whether one can look into `dir` without a wait for a daemon that does not answer.
pub fn usable(dir: &Path) -> anyhow::Result<()> {
    let mut walk = Walk::new()?;
    match walk.dead_mount_at(dir)? {
        None => Ok(()),
        Some(mount) => Err(reach::dead(mount).into()),
    }
}

/// A store, or what is in one, is no project.
pub fn no_store(dir: &Path) -> Result<(), Failure> {
    let is_store = |dir: &&Path| dir.ends_with(STORE) && dir.join("format").symlink_metadata().is_ok();
    match dir.ancestors().find(is_store).and_then(Path::parent) {
        None => Ok(()),
        Some(project) => {
            let why = format!("it is in the store of the project {}", printable(project));
            Err(Failure::at(dir, why).hint("name a project's directory"))
        }
    }
}

/// From a path to what it leads to.
struct Walk {
    table: MountTable,
    /// Mounts of ours that have been asked, and whether they live.
    asked: Vec<(u64, bool)>,
}

impl Walk {
    fn new() -> anyhow::Result<Self> {
        let table = MountTable::read()?;
        Ok(Self {
            table,
            asked: Vec::new(),
        })
    }

    /// The dead mount that `dir` lies in, into which one cannot look.
    ///
    /// # Errors
    /// When one would wait for a daemon that does not answer.
    fn dead_mount_at(&mut self, dir: &Path) -> Result<Option<&ConcordMount>, Failure> {
        let Some(mount) = self.table.containing(dir) else {
            return Ok(None);
        };
        let lives = match self.asked.iter().find(|(id, _)| *id == mount.id) {
            Some((_, lives)) => *lives,
            None => {
                let lives = match reach::liveness(mount) {
                    Liveness::Live => true,
                    Liveness::Dead => false,
                    Liveness::Silent(failure) => return Err(failure),
                };
                self.asked.push((mount.id, lives));
                lives
            }
        };
        Ok(Some(mount).filter(|_| !lives))
    }

    /// The target of a link. In a mount that is closed to us it is read past it, where we may do that.
    fn read_link(&self, path: &Path) -> anyhow::Result<Result<PathBuf, Errno>> {
        let read = |path: &Path| {
            rustix::fs::readlink(path, Vec::new()).map(|target| OsString::from_vec(target.into_bytes()).into())
        };
        match (read(path), self.table.containing(path)) {
            (Err(Errno::ACCESS), Some(mount)) => match reach::tree(mount) {
                Some(tree) => Ok(read(
                    &tree.join(&mount.below).join(path.strip_prefix(&mount.mountpoint)?),
                )),
                None if reach::may_ask(mount) => Ok(Err(Errno::ACCESS)),
                None => Err(reach::forbidden(mount).into()),
            },
            (read, _) => Ok(read),
        }
    }

    /// As realpath(3), but what does not exist is kept as it is named: the versions of a deleted file, and of a file in a
    /// deleted directory, are still to be found. A dead mount counts as existing; a mount point is not looked into.
    fn resolve(&mut self, path: &Path) -> anyhow::Result<PathBuf> {
        let mut ahead: VecDeque<OsString> = VecDeque::new();
        let mut resolved = PathBuf::from("/");
        if path.is_relative() {
            resolved = std::env::current_dir().map_err(|error| {
                let why = format!("the working directory cannot be told: {error}");
                Failure::at(path, why).hint("cd to a directory that is there")
            })?;
        }
        push_front(&mut ahead, path);
        let (mut links, mut missing) = (0, false);
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                if missing {
                    return Err(std::io::Error::from(Errno::NOENT)).at(path);
                }
                resolved.pop();
                continue;
            }
            let next = resolved.join(&name);
            if self.table.is_mountpoint(&next) || self.dead_mount_at(&resolved)?.is_some() {
                resolved = next;
                continue;
            }
            match self.read_link(&next)? {
                Ok(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(std::io::Error::from(Errno::LOOP)).at(path);
                    }
                    if target.is_absolute() {
                        resolved = PathBuf::from("/");
                    }
                    push_front(&mut ahead, &target);
                }
                Err(errno) => {
                    match errno {
                        // EINVAL: no link. ENOTCONN: a mount that has just died.
                        Errno::INVAL | Errno::NOTCONN => {}
                        Errno::NOENT | Errno::NOTDIR => missing = true,
                        _ => return Err(std::io::Error::from(errno)).at(path),
                    }
                    resolved = next;
                }
            }
        }
        Ok(resolved)
    }

    /// The project that `resolved` belongs to, for the user `asked`: the mount of ours that it lies in; else the nearest directory with a store.
    fn project_above(mut self, resolved: &Path, asked: &Path) -> anyhow::Result<Project> {
        for root in resolved.ancestors() {
            let mounted = self.table.containing(root).map(|mount| mount.mountpoint.clone());
            if let Some(mountpoint) = mounted {
                if let Some(mount) = self.dead_mount_at(&mountpoint)? {
                    return Err(reach::dead(mount).into());
                }
                return Ok(Project {
                    root: mountpoint,
                    table: self.table,
                });
            }
            if root.join(STORE).symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
                return Ok(Project {
                    root: root.to_path_buf(),
                    table: self.table,
                });
            }
        }
        let why = match resolved.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                "no such file or directory is there, and it is in no concord project"
            }
            _ => "it is in no concord project",
        };
        Err(Failure::at(asked, why)
            .hint("make its directory one with `concord mount DIR`")
            .into())
    }
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
        assert!(error.to_string().contains("(os error 40)"), "{error}");
    }
}
