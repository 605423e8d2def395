//! The reading side: which versions there are, and their contents. Needs neither the lock nor a mount; changes nothing.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use serde::Serialize;

use super::disk::{Disk, Kind, Stat, if_there, read_small};
use super::images::ImageName;
use super::lineage::Lineage;
use super::moves::Moves;
use super::owners;
use super::record::{How, Identity, RECORD_BYTES_MAX, VersionRecord, Who, decode_path, encode_path};
use super::{HASH_BYTES_MAX, RealDisk, STORE_DIR};

/// Longest path, PATH_MAX.
const PATH_BYTES_MAX: u64 = 4096;
/// So often is looked again at a history that changes while it is read.
pub(super) const READS_MAX: usize = 16;
const HASH_CHUNK_BYTES: usize = 64 * 1024;

/// The name of a path's history: 32 hex digits of its blake3.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key(String);

impl Key {
    pub fn of(path: &Path) -> Key {
        let mut hex = blake3::hash(path.as_os_str().as_bytes()).to_hex().to_string();
        hex.truncate(32);
        Key(hex)
    }

    pub fn parse(text: &str) -> Option<Key> {
        let ok = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        ok.then(|| Key(text.to_owned()))
    }

    pub fn name(&self) -> &OsStr {
        OsStr::new(&self.0)
    }

    /// The directory above it.
    pub fn fan(&self) -> &OsStr {
        OsStr::new(&self.0[..2])
    }
}

/// One version of a file, as listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionEntry {
    /// What is known about it.
    #[serde(flatten)]
    pub record: VersionRecord,
    /// It is what the file holds now.
    pub current: bool,
    /// The file had gone at this point; there is no content.
    pub gone: bool,
}

/// The content of a version: the first `bytes` bytes of `file`, which may hold lines that were appended later.
#[derive(Debug)]
pub struct Kept<F> {
    /// Open for reading.
    pub file: F,
    /// How long the version is.
    pub bytes: u64,
}

/// A file's history directory, as it was found.
pub(super) struct Scan {
    /// From its `path` file, when that belongs here.
    pub path: Option<PathBuf>,
    pub records: BTreeMap<u64, VersionRecord>,
    pub contents: BTreeMap<u64, OsString>,
    /// Half-written things that a crash left.
    pub parts: Vec<OsString>,
    /// What concordfs did not write, or not like that: name and why.
    pub odd: Vec<(OsString, String)>,
    /// The records on which the disk failed; they are among the odd.
    pub unreadable: Vec<OsString>,
}

impl Scan {
    /// Nothing at all is in it.
    pub fn is_empty(&self) -> bool {
        let known = self.path.is_some() || !self.records.is_empty() || !self.contents.is_empty();
        !known && self.parts.is_empty() && self.odd.is_empty()
    }

    pub fn next(&self) -> u64 {
        let last = |last: Option<u64>| last.unwrap_or(0);
        let newest =
            last(self.records.keys().next_back().copied()).max(last(self.contents.keys().next_back().copied()));
        newest.saturating_add(1)
    }
}

/// A project's history.
pub struct History<D: Disk> {
    pub(super) disk: D,
    pub(super) root: D::Dir,
    pub(super) files: D::Dir,
    pub(super) recovered: D::Dir,
    /// Nothing else is locked under it, and nothing waits.
    pub(super) moves: RwLock<Moves>,
    /// `None` in a store of an earlier format.
    pub(super) images: Option<D::Dir>,
}

impl History<RealDisk> {
    /// The history of the project whose backing root directory is `root`.
    ///
    /// # Errors
    /// ENOENT when there is no `.concord/` there; EACCES for others than its owner.
    pub fn open_at(root: &Path) -> io::Result<History<RealDisk>> {
        let root: Arc<OwnedFd> = RealDisk::open_root(root)?;
        History::open(RealDisk, root.clone()).map_err(|error| owners::explain(&RealDisk, &root, error))
    }
}

impl<D: Disk> History<D> {
    /// The history of the project whose backing root is `root`.
    ///
    /// # Errors
    /// ENOENT when there is no `.concord/` there; EACCES for others than its owner; [`super::StoreError::NewerFormat`].
    pub fn open(disk: D, root: D::Dir) -> io::Result<History<D>> {
        let store = disk.open_dir(&root, OsStr::new(STORE_DIR))?;
        super::layout::refuse_newer(&disk, &store).map_err(io::Error::other)?;
        let files = disk.open_dir(&store, OsStr::new("history"))?;
        let recovered = disk.open_dir(&store, OsStr::new("recovered"))?;
        let images = if_there(disk.open_dir(&store, OsStr::new("images")))?;
        Ok(History {
            // What is no list of moves leads nowhere; the owner sets it aside.
            moves: RwLock::new(History::read_moves(&disk, &store).unwrap_or_default()),
            disk,
            root,
            files,
            recovered,
            images,
        })
    }

    /// Every version of `path` that can be read now, newest first, and the points where the file went away. A file that
    /// concordfs never replaced has one version, 1, found.
    ///
    /// # Errors
    /// The errno of a read; a damaged record is no error, its version is then listed as found.
    pub fn versions(&self, path: &Path) -> io::Result<Vec<VersionEntry>> {
        let path = &*self.home(path)?;
        let lineage = self.lineage(path)?;
        let mut entries = self.own_versions(path, &lineage)?;
        lineage.add_former(&mut entries);
        Ok(entries.into_values().rev().collect())
    }

    /// Whether `path` was given to another file since it led to this content: by rename(2), link(2) or after unlink(2), not by a save in place.
    ///
    /// # Errors
    /// As [`History::versions`].
    pub fn is_given_away(&self, path: &Path, content: &D::File) -> io::Result<bool> {
        let stat = self.disk.stat(content)?;
        let versions = self.versions(path)?;
        let later = versions
            .iter()
            .position(|entry| entry.record.is_held_by(&stat))
            .unwrap_or(0);
        let is_another = |how| matches!(how, How::Rename | How::Link | How::Exchange | How::Unlink);
        Ok(versions[..later].iter().any(|entry| is_another(entry.record.how)))
    }

    /// The records of `path`'s versions that the disk does not give, below `.concord/`. What they tell is missing in [`History::versions`].
    ///
    /// # Errors
    /// The errno of a read.
    pub fn unreadable(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let lineage = self.lineage(&self.home(path)?)?;
        let of = |(lies, scan): (PathBuf, &Scan)| {
            scan.unreadable
                .iter()
                .map(move |name| lies.join(name))
                .collect::<Vec<_>>()
        };
        Ok(lineage.scans().flat_map(of).collect())
    }

    /// What `path` itself has of its file's versions.
    fn own_versions(&self, path: &Path, lineage: &Lineage<D>) -> io::Result<BTreeMap<u64, VersionEntry>> {
        let (own, live) = (&lineage.segments[0], &lineage.live);
        let (scan, current) = (&own.scan, own.current);
        let mut entries = BTreeMap::new();
        let numbers: std::collections::BTreeSet<u64> =
            scan.records.keys().chain(scan.contents.keys()).copied().collect();
        for number in numbers {
            let is_current = current == Some(number);
            let mut record = match (scan.records.get(&number), scan.contents.get(&number), &own.dir) {
                (Some(record), _, _) if record.is_tombstone() || lineage.keeps(number) => record.clone(),
                (None, Some(name), Some(dir)) => match if_there(self.disk.stat_at(dir, name))? {
                    Some(stat) if live.as_ref().is_none_or(|(_, _, l)| l.ino != stat.ino) => found(path, number, &stat),
                    _ => continue,
                },
                _ => continue,
            };
            if record.is_tombstone() && current.is_some_and(|c| c < number) {
                continue;
            }
            if let (true, true, Some((_, _, stat))) = (is_current, record.growing, live) {
                record.bytes = stat.size;
            }
            let entry = VersionEntry {
                gone: record.is_tombstone(),
                record,
                current: is_current,
            };
            entries.insert(number, entry);
        }
        Ok(entries)
    }

    /// The content of version `version` of `path`, for reading. Its owner and mode are those that the version had
    /// (contract H4): who serves it to others looks at them.
    ///
    /// # Errors
    /// NotFound when that version is not kept.
    pub fn open_version(&self, path: &Path, version: u64) -> io::Result<Kept<D::File>> {
        let path = &*self.home(path)?;
        for read in 1..=READS_MAX {
            if let Some(dir) = self.open_key(&Key::of(path))?
                && let Some(file) = if_there(self.disk.open(&dir, OsStr::new(&version.to_string())))?
            {
                return self.kept(file, None);
            }
            if let Some(found) = self.open_in(&self.lineage(path)?, version, read == READS_MAX)? {
                return Ok(found);
            }
        }
        Err(super::lineage::not_kept(version))
    }

    /// An error of reading, which says whose it is where another user's is in the way.
    pub fn explain(&self, error: io::Error) -> io::Error {
        owners::explain(&self.disk, &self.root, error)
    }

    /// The path that the history of a file with several names is kept under.
    pub(super) fn home(&self, path: &Path) -> io::Result<PathBuf> {
        let own = || path.to_owned();
        let Some((images, ino)) = self.images.as_ref().zip(self.linked_inode(path)?) else {
            return Ok(own());
        };
        for entry in self.disk.list(images)? {
            if let Some(name) = ImageName::parse(&entry.name).filter(|name| name.ino == ino)
                && let Some(dir) = self.open_key(&name.key)?
                && let Some(home) = self.read_path(&dir, &name.key)
                && self.linked_inode(&home)? == Some(ino)
            {
                return Ok(home);
            }
        }
        Ok(own())
    }

    /// The inode of a file that has other names too.
    fn linked_inode(&self, path: &Path) -> io::Result<Option<u64>> {
        let live = self.live(path)?;
        Ok(live.filter(|(_, _, stat)| stat.nlink > 1).map(|(_, _, stat)| stat.ino))
    }

    pub(super) fn kept(&self, file: D::File, bytes: Option<u64>) -> io::Result<Kept<D::File>> {
        let size = self.disk.stat(&file)?.size;
        let bytes = bytes.map_or(size, |bytes| bytes.min(size));
        Ok(Kept { file, bytes })
    }

    /// The files that have a history, deleted ones too, sorted.
    ///
    /// # Errors
    /// The errno of a read.
    pub fn paths(&self) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for key in self.keys()? {
            let dir = self.open_key(&key)?;
            paths.extend(dir.and_then(|dir| self.read_path(&dir, &key)));
        }
        paths.sort();
        Ok(paths)
    }

    /// The names of all histories.
    pub(super) fn keys(&self) -> io::Result<Vec<Key>> {
        let mut keys = Vec::new();
        for fan in self.disk.list(&self.files)?.into_iter().filter(|e| e.kind == Kind::Dir) {
            let dir = self.disk.open_dir(&self.files, &fan.name)?;
            let entries = self.disk.list(&dir)?.into_iter().filter(|e| e.kind == Kind::Dir);
            let found = entries.filter_map(|entry| entry.name.to_str().and_then(Key::parse));
            keys.extend(found.filter(|key| key.fan() == fan.name));
        }
        Ok(keys)
    }

    /// The directory, name and state of the regular file that is `path` now.
    pub(super) fn live(&self, path: &Path) -> io::Result<Option<(D::Dir, OsString, Stat)>> {
        let found = self.at(path)?.filter(|(_, _, stat)| stat.kind == Kind::File);
        Ok(found)
    }

    fn at(&self, path: &Path) -> io::Result<Option<(D::Dir, OsString, Stat)>> {
        let (Some(dir), Some(name)) = (self.parent_of(path)?, path.file_name()) else {
            return Ok(None);
        };
        let stat = if_there(self.disk.stat_at(&dir, name))?;
        Ok(stat.map(|stat| (dir, name.to_owned(), stat)))
    }

    /// The directory that `path` is in.
    pub(super) fn parent_of(&self, path: &Path) -> io::Result<Option<D::Dir>> {
        let mut dir = self.root.clone();
        for part in path.parent().into_iter().flat_map(Path::components) {
            match self.disk.open_dir(&dir, part.as_os_str()) {
                Ok(next) => dir = next,
                // A component that is missing, a file or a link: then this path is no file of ours.
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(dir))
    }

    pub(super) fn open_key(&self, key: &Key) -> io::Result<Option<D::Dir>> {
        let Some(fan) = if_there(self.disk.open_dir(&self.files, key.fan()))? else {
            return Ok(None);
        };
        if_there(self.disk.open_dir(&fan, key.name()))
    }

    /// The path that this history belongs to, if its `path` file can be believed.
    pub(super) fn read_path(&self, dir: &D::Dir, key: &Key) -> Option<PathBuf> {
        let bytes = read_small(&self.disk, dir, OsStr::new("path"), PATH_BYTES_MAX).ok()?;
        let path = PathBuf::from(OsStr::from_bytes(&bytes));
        (Key::of(&path) == *key && super::record::is_plain_relative(&path)).then_some(path)
    }

    /// Reads a history directory; changes nothing.
    pub(super) fn scan(&self, dir: &D::Dir, key: &Key) -> io::Result<Scan> {
        let mut scan = Scan {
            path: self.read_path(dir, key),
            ..Scan::empty()
        };
        for entry in self.disk.list(dir)? {
            let Some(name) = entry.name.to_str() else {
                scan.odd.push((entry.name, "a name that is not concordfs's".into()));
                continue;
            };
            let problem = if name.ends_with(".part") {
                scan.parts.push(entry.name);
                continue;
            } else if entry.kind != Kind::File {
                Some("it is not a regular file".to_owned())
            } else if name == "path" {
                if let (None, Err(error)) = (&scan.path, self.disk.open(dir, &entry.name))
                    && is_readers(&error)
                {
                    return Err(error);
                }
                scan.path
                    .is_none()
                    .then(|| "it does not hold the path that this history belongs to".to_owned())
            } else if let Some(version) = number(name) {
                scan.contents.insert(version, entry.name.clone());
                None
            } else if let Some(version) = name.strip_suffix(".json").and_then(number) {
                match self.read_record(dir, &entry.name, version, key) {
                    Ok(Some(record)) => scan.records.insert(version, record).and(None),
                    Ok(None) => {
                        scan.parts.push(entry.name);
                        continue;
                    }
                    Err(error) if is_readers(&error) => return Err(error),
                    Err(error) => {
                        scan.unreadable
                            .extend(is_the_disk_s(&error).then(|| entry.name.clone()));
                        Some(format!("it cannot be read: {error}"))
                    }
                }
            } else {
                Some("a name that is not concordfs's".into())
            };
            scan.odd.extend(problem.map(|problem| (entry.name, problem)));
        }
        Ok(scan)
    }

    /// An error without an errno is the record's fault. `None`: it is that of another version of this file. A pruned one was being written over.
    pub(super) fn read_record(
        &self,
        dir: &D::Dir,
        name: &OsStr,
        version: u64,
        key: &Key,
    ) -> io::Result<Option<VersionRecord>> {
        let bytes = read_small(&self.disk, dir, name, RECORD_BYTES_MAX)?;
        let record = VersionRecord::parse(&bytes).map_err(io::Error::other)?;
        match decode_path(&record.path) {
            Some(path) if Key::of(&path) == *key => Ok((record.version == version).then_some(record)),
            _ => Err(io::Error::other("it belongs to another path")),
        }
    }

    /// Which recorded version the file holds now.
    pub(super) fn current_of(
        &self,
        records: &BTreeMap<u64, VersionRecord>,
        dir: &D::Dir,
        name: &OsStr,
        live: &Stat,
    ) -> io::Result<Option<u64>> {
        for (number, record) in records.iter().rev().filter(|(_, r)| !r.is_tombstone()) {
            if self.is_content_of(record, dir, name, live)? {
                return Ok(Some(*number));
            }
        }
        Ok(None)
    }

    /// Whether the file `name` holds the recorded content: it is the same file, unchanged, or only its times changed.
    pub(super) fn is_content_of(
        &self,
        record: &VersionRecord,
        dir: &D::Dir,
        name: &OsStr,
        live: &Stat,
    ) -> io::Result<bool> {
        if record.is_held_by(live) {
            return Ok(true);
        }
        let (Some(identity), hash) = (&record.identity, &record.hash) else {
            return Ok(false);
        };
        if hash.is_none() || identity.ino != live.ino || identity.size != live.size || live.size > HASH_BYTES_MAX {
            return Ok(false);
        }
        let file = self.disk.open(dir, name)?;
        Ok(self.hash(&file)? == *hash)
    }

    /// blake3 of a file in hex; `None` when it changed size meanwhile.
    pub(super) fn hash(&self, file: &D::File) -> io::Result<Option<String>> {
        let size = self.disk.stat(file)?.size;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; HASH_CHUNK_BYTES.min(size as usize + 1)];
        let mut at = 0;
        loop {
            match self.disk.read_at(file, &mut buffer, at)? {
                0 => break,
                n => {
                    hasher.update(&buffer[..n]);
                    at += n as u64;
                }
            }
        }
        Ok((at == size).then(|| hasher.finalize().to_hex().to_string()))
    }
}

impl Scan {
    pub fn empty() -> Scan {
        Scan {
            path: None,
            records: BTreeMap::new(),
            contents: BTreeMap::new(),
            parts: Vec::new(),
            odd: Vec::new(),
            unreadable: Vec::new(),
        }
    }
}

/// The fault of who reads, as descriptors or rights that he has not; it says nothing of the file.
fn is_readers(error: &io::Error) -> bool {
    use libc::{EACCES, EMFILE, ENFILE, ENOMEM, EPERM};
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOMEM | EACCES | EPERM))
}

/// The disk fails, or what it gives is damaged (ext4 and XFS: EUCLEAN, EBADMSG).
fn is_the_disk_s(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EUCLEAN | libc::EBADMSG))
}

/// A version number as a file name: decimal, no leading zero.
fn number(name: &str) -> Option<u64> {
    name.parse::<u64>()
        .ok()
        .filter(|n| *n > 0 && *n < u64::MAX && n.to_string() == name)
}

/// The record of a content of which nothing is known but the file.
pub(super) fn found(path: &Path, version: u64, stat: &Stat) -> VersionRecord {
    VersionRecord {
        version,
        path: encode_path(path),
        time: u64::try_from(stat.mtime_ns).unwrap_or(0),
        bytes: stat.size,
        hash: None,
        how: How::Found,
        who: Who::default(),
        based_on: None,
        replaced: None,
        stale: false,
        identity: Some(Identity::of(stat)),
        extends: None,
        growing: false,
        came_from: None,
        moved_to: None,
        note: None,
    }
}
