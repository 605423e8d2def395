//! Listing directories.

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use fuser::FileType;
use rustix::fs::{OFlags, RawDir, SeekFrom};
use rustix::io::{Errno, Result};

use super::attr;
use super::entry::Entry;
use super::nodes::{Identity, NodeId, ROOT};
use super::pin;
use super::tree::{STORE, Tree};

/// Bytes asked of getdents64(2) at once: about as many entries as fit an answer with attributes.
const LISTING_BYTES: usize = 8 * 1024;

/// A directory, open to answer one request. Positions in it are the backing filesystem's own cookies (d_off): they hold in any
/// descriptor of the directory, so that seekdir(3) works and entries stay where they are while others come and go.
#[derive(Debug)]
pub struct DirHandle {
    node: NodeId,
    fd: OwnedFd,
    private: bool,
    dev: u64,
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
        })
    }

    /// Passes the entries after `offset` to `add` until it says that its buffer is full.
    pub fn list(&self, dir: &DirHandle, offset: u64, mut add: impl FnMut(&Listed) -> bool) -> Result<()> {
        if offset != 0 {
            rustix::fs::seek(&dir.fd, SeekFrom::Start(offset))?;
        }
        let mut buffer = [MaybeUninit::uninit(); LISTING_BYTES];
        let mut listing = RawDir::new(&dir.fd, &mut buffer);
        while let Some(entry) = listing.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // A removed directory has no entries left.
                Err(Errno::NOENT) => return Ok(()),
                Err(error) => return Err(error),
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if self.hidden(dir, name) {
                continue;
            }
            let listed = Listed {
                name: name.to_owned(),
                ino: self.number(dir, entry.ino()),
                kind: attr::kind(entry.file_type().as_raw_mode()),
                next: entry.next_entry_cookie(),
            };
            if add(&listed) {
                return Ok(());
            }
        }
        Ok(())
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

    /// The number that stat(2) will show: the node's where the backing inode has one.
    fn number(&self, dir: &DirHandle, ino: u64) -> u64 {
        let identity = Identity {
            dev: dir.dev,
            ino,
            private: dir.private,
        };
        self.nodes.find(identity).map_or(ino, |id| id.0)
    }
}
