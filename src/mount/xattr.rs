//! Extended attributes, and with them ACLs.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::XattrFlags;
use rustix::io::{Errno, Result};

use super::fs::Fs;
use super::nodes::NodeId;
use super::pin::proc_path;
use super::tree::{Anchor, Caller, Tree};
use crate::os::creds::Assumed;

/// The largest value and the largest list, xattr(7).
const XATTR_SIZE_MAX: usize = 64 * 1024;

const ACL: &str = "system.posix_acl_access";
const CAPABILITY: &str = "security.capability";

/// What the kernel asked for: how long it is, or the thing itself.
#[derive(Debug)]
pub enum Answer {
    /// Length in bytes.
    Length(u32),
    /// The value, or the names each with a NUL.
    Data(Vec<u8>),
}

impl Fs {
    /// Whose extended attribute `name` a node has. Its own name may lead to another version since it was looked up: what the kernel itself asks for in an open(2), and everybody
    /// may know, is that one's.
    pub(super) fn xattr_of(&self, id: NodeId, name: &OsStr) -> Result<Anchor> {
        match self.tree.anchor(id) {
            Err(Errno::STALE) if name == ACL || name == CAPABILITY => self.coordination.anchor_of_name(id),
            anchor => anchor,
        }
    }
}

impl Tree {
    /// What setxattr(2) or removexattr(2) of a node is about.
    ///
    /// # Errors
    /// EROFS for the store's.
    pub fn anchor_to_change(&self, id: NodeId) -> Result<Anchor> {
        match self.identity(id)?.private {
            true => Err(Errno::ROFS),
            false => self.anchor(id),
        }
    }
}

/// getxattr(2); with `size` 0 the length only.
///
/// # Errors
/// Those of getxattr(2).
pub fn get(anchor: &Anchor, name: &OsStr, size: u32) -> Result<Answer> {
    // With each O_TRUNC the kernel asks for `security.capability`.
    if size == 0 {
        match rustix::fs::fgetxattr_query(anchor.as_fd(), name) {
            // By O_PATH.
            Err(Errno::BADF) => {}
            length => return length.map(|length| Answer::Length(length as u32)),
        }
    }
    let path = proc_path(anchor.as_fd());
    if size == 0 {
        return rustix::fs::getxattr_query(path, name).map(|length| Answer::Length(length as u32));
    }
    data(size, |buffer| rustix::fs::getxattr(&path, name, buffer))
}

/// listxattr(2); with `size` 0 the length only.
///
/// # Errors
/// Those of listxattr(2).
pub fn list(anchor: &Anchor, size: u32) -> Result<Answer> {
    let path = proc_path(anchor.as_fd());
    if size == 0 {
        return rustix::fs::listxattr_query(path).map(|length| Answer::Length(length as u32));
    }
    data(size, |buffer| rustix::fs::listxattr(&path, buffer))
}

/// setxattr(2). An ACL is set as the caller, because it may cost the file its set-group-id bit.
///
/// # Errors
/// Those of setxattr(2).
pub fn set(caller: Caller, file: BorrowedFd<'_>, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
    let _caller =
        (name == ACL && caller.uid != 0).then(|| Assumed::user_with_groups(caller.uid, caller.gid, caller.tid));
    let flags = XattrFlags::from_bits_retain(flags as u32);
    rustix::fs::setxattr(proc_path(file), name, value, flags)
}

/// removexattr(2).
///
/// # Errors
/// Those of removexattr(2).
pub fn remove(file: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    rustix::fs::removexattr(proc_path(file), name)
}

fn data(size: u32, read: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Answer> {
    let mut buffer = vec![0; (size as usize).min(XATTR_SIZE_MAX)];
    let length = read(&mut buffer)?;
    buffer.truncate(length);
    Ok(Answer::Data(buffer))
}
