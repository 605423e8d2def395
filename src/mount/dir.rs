//! Open directories.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use fuser::FileType;
use parking_lot::Mutex;
use rustix::fs::{OFlags, RawDir, SeekFrom};
use rustix::io::{Errno, Result};

use super::attr;
use super::entry::Entry;
use super::nodes::{Identity, NodeId, ROOT};
use super::pin;
use super::tree::{STORE, Tree};

/// Bytes asked of getdents64(2) at once.
const LISTING_BYTES: usize = 32 * 1024;

/// An open directory: its own descriptor, because the position in it is the handle's own.
#[derive(Debug)]
pub struct DirHandle {
    node: NodeId,
    fd: OwnedFd,
    private: bool,
    dev: u64,
    stream: Mutex<Stream>,
}

/// What was read from the directory and not yet passed on. The cookies are the backing filesystem's own (d_off), so that
/// seekdir(3) works and entries stay where they are while others come and go.
#[derive(Debug, Default)]
struct Stream {
    /// The cookie that the first of `ahead` follows.
    position: u64,
    ahead: VecDeque<Listed>,
}

/// One entry of a directory.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub name: OsString,
    /// The number stat(2) will show.
    pub ino: u64,
    /// d_type.
    pub kind: FileType,
    /// The position after it.
    pub next: u64,
}

impl Listed {
    fn is_dots(&self) -> bool {
        self.name == "." || self.name == ".."
    }
}

impl DirHandle {
    /// Its node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Its descriptor, open for reading.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}

impl Tree {
    /// opendir(3).
    pub fn open_dir(&self, id: NodeId) -> Result<DirHandle> {
        let identity = self.identity(id)?;
        let anchor = self.anchor(id)?;
        let fd = pin::reopen(anchor.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(DirHandle {
            node: id,
            fd,
            private: identity.private,
            dev: identity.dev,
            stream: Mutex::default(),
        })
    }

    /// Passes the entries after `offset` to `add` until it says that its buffer is full.
    pub fn list(&self, dir: &DirHandle, offset: u64, mut add: impl FnMut(&Listed) -> bool) -> Result<()> {
        let mut stream = dir.stream.lock();
        stream.seek(dir, offset)?;
        loop {
            if stream.ahead.is_empty() && !stream.fill(dir)? {
                return Ok(());
            }
            while let Some(entry) = stream.ahead.front_mut() {
                if !self.hidden(dir, &entry.name) {
                    self.number(dir, entry);
                    if add(entry) {
                        return Ok(());
                    }
                }
                stream.position = entry.next;
                stream.ahead.pop_front();
            }
        }
    }

    /// As [`Tree::list`], with a lookup of every entry but `.` and `..`; `None` for those. A lookup whose entry did not fit is
    /// taken back.
    pub fn list_plus(
        &self,
        dir: &DirHandle,
        offset: u64,
        mut add: impl FnMut(&Listed, Option<&Entry>) -> bool,
    ) -> Result<()> {
        self.list(dir, offset, |listed| {
            if listed.is_dots() {
                return add(listed, None);
            }
            match self.enter(&dir.fd, dir.node, &listed.name, dir.private) {
                Ok(entry) => {
                    let full = add(listed, Some(&entry));
                    if full {
                        self.nodes.forget(entry.id, 1);
                    }
                    full
                }
                // Deleted since it was read.
                Err(Errno::NOENT) => false,
                Err(error) => {
                    log::debug!("cannot look up a listed entry: {error}");
                    add(listed, None)
                }
            }
        })
    }

    fn hidden(&self, dir: &DirHandle, name: &OsStr) -> bool {
        dir.node == ROOT && name == STORE
    }

    /// Replaces the backing inode's number by that of its node where they differ.
    fn number(&self, dir: &DirHandle, entry: &mut Listed) {
        let identity = Identity {
            dev: dir.dev,
            ino: entry.ino,
            private: dir.private,
        };
        if let Some(id) = self.nodes.find(identity) {
            entry.ino = id.0;
        }
    }
}

impl Stream {
    fn seek(&mut self, dir: &DirHandle, offset: u64) -> Result<()> {
        if self.position == offset && (offset != 0 || !self.ahead.is_empty()) {
            return Ok(());
        }
        // Also at a rewind to 0: rewinddir(3) must show what was added since.
        rustix::fs::seek(&dir.fd, SeekFrom::Start(offset))?;
        self.ahead.clear();
        self.position = offset;
        Ok(())
    }

    fn fill(&mut self, dir: &DirHandle) -> Result<bool> {
        let mut buffer = vec![MaybeUninit::uninit(); LISTING_BYTES];
        let mut listing = RawDir::new(&dir.fd, &mut buffer);
        while let Some(entry) = listing.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // A removed directory has no entries left.
                Err(Errno::NOENT) => return Ok(false),
                Err(error) => return Err(error),
            };
            self.ahead.push_back(Listed {
                name: OsStr::from_bytes(entry.file_name().to_bytes()).to_owned(),
                ino: entry.ino(),
                kind: attr::kind(entry.file_type().as_raw_mode()),
                next: entry.next_entry_cookie(),
            });
            if listing.is_buffer_empty() {
                break;
            }
        }
        Ok(!self.ahead.is_empty())
    }
}
