//! A store that is not its daemon's: root mounts a project whose store is the project's owner's. What the daemon makes there becomes the owner's
//! ([`Disk::give`]), so that he can mount, recover and read without root again. Contents do not: they have the owner that their file had.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::disk::{Disk, Kind, if_there, read_whole};
use super::history::Key;
use super::record::{RECORD_BYTES_MAX, RecoveredRecord, VersionRecord, decode_path};
use super::room::SPARE;
use super::{History, STORE_DIR, Store};

/// Opens a file of the store's own for reading and writing, making it where there is none.
pub(super) fn open_own<D: Disk>(disk: &D, dir: &D::Dir, name: &OsStr) -> io::Result<D::File> {
    if let Some(found) = if_there(disk.open_writable(dir, name))? {
        return Ok(found);
    }
    match disk.create(dir, name) {
        Ok(made) => {
            disk.give(&made, dir);
            Ok(made)
        }
        // Another who opens the store was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => disk.open_writable(dir, name),
        Err(error) => Err(error),
    }
}

/// A record that a file holds, as it should be by its name.
fn is_record(name: &OsStr, bytes: &[u8], key: &Key) -> bool {
    let path = match name == "path" {
        true => Some(Path::new(OsStr::from_bytes(bytes)).to_owned()),
        false => VersionRecord::parse(bytes)
            .ok()
            .and_then(|record| decode_path(&record.path)),
    };
    path.is_some_and(|path| Key::of(&path) == *key)
}

/// The first thing of concordfs's own in the store in `root` that is another user's, where this process is not root: its path, and the user.
pub(super) fn anothers<D: Disk>(disk: &D, root: &D::Dir) -> Option<(PathBuf, u32)> {
    let mut todo = vec![(root.clone(), OsString::from(STORE_DIR), PathBuf::new())];
    while let Some((dir, name, above)) = todo.pop() {
        let path = above.join(&name);
        match disk.owner_unlike_ours(&dir, &name) {
            Ok(Some(user)) => return Some((path, user)),
            Ok(None) => {}
            Err(_) => continue,
        }
        let Ok(dir) = disk.open_dir(&dir, &name) else { continue };
        for entry in disk.list(&dir).unwrap_or_default() {
            // Contents have the owner that their file had.
            let is_own = path == Path::new(STORE_DIR) || is_named_record(&entry.name);
            if entry.kind == Kind::Dir || entry.kind == Kind::File && is_own {
                todo.push((dir.clone(), entry.name, path.clone()));
            }
        }
    }
    None
}

/// An error that comes of that, told as such.
pub(super) fn explain<D: Disk>(disk: &D, root: &D::Dir, error: io::Error) -> io::Error {
    let denied = matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM));
    match denied.then(|| anothers(disk, root)).flatten() {
        Some((path, user)) => io::Error::new(io::ErrorKind::PermissionDenied, whose(&path, user)),
        None => error,
    }
}

/// What to say of it.
pub(super) fn whose(path: &Path, user: u32) -> String {
    let whole = path == Path::new(STORE_DIR);
    let remedy = match whole {
        true => "have root give it to you, with all versions in it: chown -R USER .concord",
        false => "have root mount and unmount the project once, which gives it to who owns .concord/",
    };
    format!("{} is user {user}'s; {remedy}", path.display())
}

fn is_named_record(name: &OsStr) -> bool {
    name == "path" || name.as_bytes().ends_with(b".json")
}

impl<D: Disk> Store<D> {
    /// Gives the store's owner the directories and records that an earlier daemon of another user left there.
    pub(super) fn mend_owners(&self) -> io::Result<()> {
        let (disk, History { files, recovered, .. }) = (self.disk(), &self.history);
        if disk.is_ours(&self.home) {
            return Ok(());
        }
        // Nothing is in it, and another is made.
        let spare = OsStr::new(SPARE);
        if if_there(disk.open(&self.home, spare))?.is_some_and(|file| !disk.is_given(&file, &self.home)) {
            disk.unlink(&self.home, spare)?;
        }
        for key in self.history.keys()? {
            let Some(fan) = if_there(disk.open_dir(files, key.fan()))? else {
                continue;
            };
            disk.give_dir(&fan, files);
            if let Some(dir) = if_there(disk.open_dir(&fan, key.name()))? {
                disk.give_dir(&dir, &fan);
                self.mend_records(&dir, |name, bytes| is_record(name, bytes, &key))?;
            }
        }
        self.mend_records(recovered, |_, bytes| RecoveredRecord::parse(bytes).is_ok())
    }

    /// Who owns the directory may have put any file there by any name, one that he cannot read too. So only what is a record by its content is given to him.
    fn mend_records(&self, dir: &D::Dir, is_record: impl Fn(&OsStr, &[u8]) -> bool) -> io::Result<()> {
        let disk = self.disk();
        let entries = disk.list(dir)?.into_iter();
        for entry in entries.filter(|entry| entry.kind == Kind::File && is_named_record(&entry.name)) {
            let Some(file) = if_there(disk.open(dir, &entry.name))? else {
                continue;
            };
            if disk.is_given(&file, dir) || disk.stat(&file)?.nlink != 1 {
                continue;
            }
            let bytes = read_whole(disk, &file, RECORD_BYTES_MAX);
            if bytes.is_ok_and(|bytes| is_record(&entry.name, &bytes)) {
                disk.give(&file, dir);
            }
        }
        Ok(())
    }
}
