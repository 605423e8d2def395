//! Requests about coordinated files: from fuser's replies to the answers of [`Coordination`] and back.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use fuser::{FileHandle, FopenFlags, ReplyAttr, ReplyCreate, ReplyEntry, ReplyOpen, ReplyWrite};
use rustix::fs::{OFlags, Stat};
use rustix::io::{Errno, Result};

use super::attr;
use super::coordinated::{Appender, Coordination, Creation, Target, Writer};
use super::entry::{Entry, New};
use super::errno::reply_errno;
use super::fs::{Fs, GENERATION};
use super::handles::Handle;
use super::nodes::{Name, NodeId};
use super::setattr::Changes;
use super::tree::Caller;
use crate::os::creds;

/// A reply of copy_file_range(2) has 32 bits; a multiple of the page size keeps a clone aligned.
const COPY_BYTES_MAX: u64 = 0x7fff_f000;

/// How long the kernel may keep the attributes of a version: for the system call that asked. The node may be taken over by a session.
const VERSION_TTL: Duration = Duration::from_millis(1);

impl Fs {
    /// The kernel asks for a coordinated name at each walk; what it then learns of a version's attributes stays true.
    pub fn lookup_coordinated(&self, caller: Caller, target: &Target, reply: ReplyEntry) {
        match self.coordination.lookup(caller, target) {
            Ok(mut entry) => {
                let shadow = self.coordination.stat_of_session(entry.id).is_some();
                let growing = !shadow && self.growing(entry.id, &mut entry.stat);
                let passing =
                    self.coordination.is_passing(entry.id) && self.coordination.stat_of_name(entry.id).is_ok();
                let attr_ttl = if shadow || passing || growing {
                    Duration::ZERO
                } else {
                    VERSION_TTL
                };
                reply.entry_with_ttls(
                    &attr_ttl,
                    &Duration::ZERO,
                    &attr::attributes(entry.id, &entry.stat),
                    GENERATION,
                );
            }
            Err(error) => reply.error(reply_errno(error)),
        }
    }

    /// open(2) of a coordinated file. Data goes through the daemon: the shadow because it is staged, a version because R2 will bind it at
    /// the first read.
    pub fn open_coordinated(&self, caller: Caller, node: NodeId, target: Target, flags: OFlags, reply: ReplyOpen) {
        let tree = Arc::clone(&self.tree);
        if flags & OFlags::RWMODE == OFlags::RDONLY && !flags.contains(OFlags::TRUNC) {
            return match self.coordination.open_reader(caller, node, &target) {
                Ok(file) => {
                    let number = tree.handles.insert(Handle::Ordinary(file));
                    reply.opened(
                        FileHandle(number),
                        FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH,
                    );
                }
                Err(error) => reply.error(reply_errno(error)),
            };
        }
        if flags & OFlags::RWMODE == OFlags::WRONLY && flags.contains(OFlags::APPEND) && !flags.contains(OFlags::TRUNC)
        {
            let answer = Box::new(move |opened: Result<Handle>| match opened {
                Ok(handle) => {
                    let number = tree.handles.insert(handle);
                    reply.opened(FileHandle(number), FopenFlags::FOPEN_DIRECT_IO);
                }
                Err(error) => reply.error(reply_errno(error)),
            });
            return self.coordination.open_append(caller, node, target, flags, answer);
        }
        let answer = Box::new(move |opened: Result<Arc<Writer>>| match opened {
            Ok(writer) => {
                let number = tree.handles.insert(Handle::Writer(writer));
                reply.opened(FileHandle(number), FopenFlags::FOPEN_DIRECT_IO);
            }
            Err(error) => reply.error(reply_errno(error)),
        });
        self.coordination.open_writer(caller, node, target, flags, answer);
    }

    /// open(2) with O_CREAT of a coordinated name.
    pub fn create_coordinated(
        &self,
        caller: Caller,
        target: Target,
        creation: Creation,
        flags: OFlags,
        reply: ReplyCreate,
    ) {
        let tree = Arc::clone(&self.tree);
        let answer = Box::new(move |created: Result<(Entry, Arc<Writer>)>| match created {
            Ok((entry, writer)) => {
                let number = FileHandle(tree.handles.insert(Handle::Writer(writer)));
                let attributes = attr::attributes(entry.id, &entry.stat);
                reply.created(
                    &Duration::ZERO,
                    &attributes,
                    GENERATION,
                    number,
                    FopenFlags::FOPEN_DIRECT_IO,
                );
            }
            Err(error) => reply.error(reply_errno(error)),
        });
        self.coordination.create(caller, target, creation, flags, answer);
    }

    /// write(2) to a session's shadow, at the end of the file unless `at_offset`; one that `clears` takes set-id bits away. On a worker thread where something must be copied or waited for first.
    pub fn write_coordinated(
        &self,
        (number, writer): (u64, Arc<Writer>),
        offset: u64,
        data: &[u8],
        (at_offset, clears): (bool, bool),
        reply: ReplyWrite,
    ) {
        let answer = move |written: Result<u32>| match written {
            Ok(count) => reply.written(count),
            Err(error) => reply.error(reply_errno(error)),
        };
        let written = move |writer: &Writer, coordination: &Coordination, offset, data: &[u8]| {
            let write = || writer.write(coordination, offset, data, at_offset);
            if clears { creds::without_fsetid(write) } else { write() }
        };
        let begins_log = writer.begins_log(data);
        if writer.is_quick() && !begins_log {
            return answer(written(&writer, &self.coordination, offset, data));
        }
        let (coordination, data) = (Arc::clone(&self.coordination), data.to_vec());
        self.tree.workers.run(move || {
            let mut result = written(&writer, &coordination, offset, &data);
            if begins_log && result.is_ok() {
                result = coordination.promote(number, &writer).and(result);
            }
            answer(result);
        });
    }

    /// write(2) to a handle that appends. On a worker thread where it is the first since a while, or others are at it.
    pub fn write_appended(&self, appender: Arc<Appender>, data: &[u8], clears: bool, reply: ReplyWrite) {
        let answer = move |written: Result<u32>| match written {
            Ok(count) => reply.written(count),
            Err(error) => reply.error(reply_errno(error)),
        };
        if appender.is_quick() {
            return answer(self.coordination.append(&appender, data, clears));
        }
        let (coordination, data) = (Arc::clone(&self.coordination), data.to_vec());
        self.tree
            .workers
            .run(move || answer(coordination.append(&appender, &data, clears)));
    }

    /// The attributes of a file that grows are those of its whole lines, and change without the kernel.
    pub fn growing(&self, node: NodeId, stat: &mut Stat) -> bool {
        let committed = self.coordination.growing(node);
        if let Some(committed) = committed {
            stat.st_size = stat.st_size.min(committed as i64);
        }
        committed.is_some()
    }

    /// mkdir(2), symlink(2), mknod(2), unless somebody is creating a coordinated file of that name.
    pub fn make(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &std::ffi::OsStr,
        new: New<'_>,
        umask: u32,
    ) -> Result<Entry> {
        if self.coordination.is_promised(&Name::new(parent, name)) {
            return Err(Errno::EXIST);
        }
        self.tree.make(caller, parent, name, new, umask)
    }

    /// chmod(2), chown(2), truncate(2), utimensat(2) and their f… forms.
    pub fn set_attributes(
        &self,
        caller: Caller,
        node: NodeId,
        handle: Option<u64>,
        changes: Changes,
        reply: ReplyAttr,
    ) {
        let growing = self.coordination.growing(node).is_some();
        let ttl = if growing { Duration::ZERO } else { self.tree.ttl(false) };
        let answer = move |result: Result<Stat>| match result {
            Ok(stat) if attr::has_set_id(&stat) => reply.attr(&Duration::ZERO, &attr::attributes(node, &stat)),
            Ok(stat) => reply.attr(&ttl, &attr::attributes(node, &stat)),
            Err(error) => reply.error(reply_errno(error)),
        };
        let (tree, coordination) = (Arc::clone(&self.tree), Arc::clone(&self.coordination));
        match (changes.size, handle.map(|number| self.tree.handles.get(number))) {
            (Some(size), Some(Ok(Handle::Writer(writer)))) => self.tree.workers.run(move || {
                let rest = Changes { size: None, ..changes };
                let set = creds::writing_as(caller.uid, || writer.set_len(&coordination, size));
                answer(set.and_then(|()| tree.set_attributes(caller, node, handle, &rest)));
            }),
            (Some(size), Some(Ok(Handle::Appender(appender)))) => {
                self.coordination
                    .truncate_appended(caller, &appender, size, Box::new(answer));
            }
            (Some(size), None) if let Some(target) = self.coordination.target_of(node) => {
                self.coordination.truncate(caller, node, target, size, Box::new(answer));
            }
            _ if self.coordination.stat_of_session(node).is_some() => self.tree.workers.run(move || {
                answer(
                    coordination
                        .touch(node)
                        .and_then(|()| tree.set_attributes(caller, node, handle, &changes)),
                );
            }),
            _ => answer(self.tree.set_attributes(caller, node, handle, &changes)),
        }
    }
}

/// A reply with an entry that the kernel must ask for again.
pub fn reply_uncached(result: Result<Entry>, reply: ReplyEntry) {
    match result {
        Ok(entry) => reply.entry(&Duration::ZERO, &attr::attributes(entry.id, &entry.stat), GENERATION),
        Err(error) => reply.error(reply_errno(error)),
    }
}

/// copy_file_range(2) between any two open files.
pub fn copy(coordination: &Coordination, from: (&Handle, u64), to: (&Handle, u64), length: u64) -> Result<u32> {
    let length = length.min(COPY_BYTES_MAX);
    match (from.0, to.0) {
        // Open for writing only, or with O_APPEND: the kernel refuses that itself.
        (Handle::Appender(_), _) | (_, Handle::Appender(_)) => Err(Errno::BADF),
        (Handle::Ordinary(source), Handle::Ordinary(file)) => source.copy(from.1, file, to.1, length),
        (Handle::Ordinary(source), Handle::Writer(writer)) => {
            writer.copy_from(coordination, source.pin.reader()?, from.1, to.1, length as usize)
        }
        (Handle::Writer(source), Handle::Writer(writer)) => {
            writer.copy_from(coordination, source.content()?.as_fd(), from.1, to.1, length as usize)
        }
        (Handle::Writer(source), Handle::Ordinary(file)) => {
            let content = source.content()?;
            copy_into(content.as_fd(), from.1, file.pin.writer()?, to.1, length as usize)
        }
    }
}

fn copy_into(from: BorrowedFd<'_>, offset: u64, to: BorrowedFd<'_>, to_offset: u64, length: usize) -> Result<u32> {
    let (mut from_at, mut to_at) = (offset, to_offset);
    rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), length).map(|count| count as u32)
}
