//! Requests about coordinated files: from fuser's replies to the answers of [`Coordination`] and back.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fuser::{FileHandle, FopenFlags, ReplyAttr, ReplyCreate, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite};
use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::{Errno, Result};

use super::attr;
use super::coordinated::{
    About, Appender, Change, Coordination, Creation, Finds, Need, Opened, Outdated, Target, Use, Writer,
};
use super::entry::{Entry, New};
use super::errno::reply_errno;
use super::file;
use super::fs::{Fs, GENERATION, reply_created, reply_empty, reply_open};
use super::handles::{Handle, Ordinary};
use super::modes::Mode;
use super::nodes::{Name, NodeId};
use super::pin::Pin;
use super::setattr::Changes;
use super::tree::{Caller, Tree};
use crate::session::{LockMode, LockOwner};

/// A reply of copy_file_range(2) has 32 bits; a multiple of the page size keeps a clone aligned.
const COPY_BYTES_MAX: u64 = 0x7fff_f000;

/// The same where a version is copied, which is not published in place meanwhile.
const READING_BYTES_MAX: u64 = 64 << 20;

/// How long the kernel may keep the attributes of a version: for the system call that asked. The node may be taken over by a session.
const VERSION_TTL: Duration = Duration::from_millis(1);

/// How a write comes.
#[derive(Debug, Clone, Copy)]
pub struct Coming {
    /// The handle has O_APPEND, now: fcntl(2) may have given it that, or taken it away.
    pub at_end: bool,
    /// Pages of a mapping, by whichever handle of the node the kernel chose.
    pub from_mapping: bool,
    /// Whose it is, where it takes set-id bits away.
    pub clears: Option<Caller>,
}

impl Fs {
    /// The kernel asks for a coordinated file's name at each walk while somebody writes the file; what it then learns of a version's attributes stays true.
    pub fn lookup_coordinated(&self, caller: Caller, target: &Target, reply: ReplyEntry) {
        match self.coordination.lookup(caller, target) {
            // It has no sessions: everybody finds the same one, and a walk below it need not ask again.
            Ok(entry) if FileType::from_raw_mode(entry.stat.st_mode) == FileType::Directory => {
                self.reply_entry(Ok(entry), reply);
            }
            Ok(entry) if self.coordination.may_keep(target, &entry) => self.reply_entry(Ok(entry), reply),
            Ok(mut entry) => {
                let shadow = self.coordination.stat_of_session(caller, entry.id).is_some();
                let growing = !shadow && self.growing(entry.id, &mut entry.stat);
                let passing =
                    self.coordination.is_passing(entry.id) && self.coordination.stat_of_name(caller, entry.id).is_ok();
                // An image does not grow, but the session that takes its node over may start from a later version.
                let asked_for = self.coordination.is_to_be_shown(caller);
                let unsettled = self.coordination.has_unsettled_readers(entry.id);
                let left = self.coordination.is_left_by_name(entry.id);
                if left && entry.stat.st_nlink == 1 {
                    // It may be about to count one down: see there. Who wants to know asks, as it may keep none of this.
                    entry.stat.st_nlink = 2;
                }
                let uncertain = shadow || passing || growing || asked_for || unsettled || left;
                let attr_ttl = if uncertain || self.tree.is_image(entry.id) {
                    Duration::ZERO
                } else {
                    VERSION_TTL
                };
                let outdated = self.coordination.outdated_by_size(entry.id, entry.stat.st_size);
                self.after_pages(outdated.filter(|_| growing), move || {
                    reply.entry_with_ttls(
                        &attr_ttl,
                        &Duration::ZERO,
                        &attr::attributes(entry.id, &entry.stat),
                        GENERATION,
                    );
                });
            }
            Err(error) => reply.error(reply_errno(error)),
        }
    }

    /// Answers when the kernel has dropped its outdated pages.
    pub fn after_pages(&self, outdated: Option<Outdated>, answer: impl FnOnce() + Send + 'static) {
        let tree = Arc::clone(&self.tree);
        match outdated {
            Some(outdated) => self.tree.workers.run(move || {
                outdated.tell(&tree);
                answer();
            }),
            None => answer(),
        }
    }

    /// LOOKUP of an ordinary name. What is there may be kept, and so may that nothing is.
    pub fn lookup_ordinary(&self, caller: Caller, parent: NodeId, name: &OsStr, reply: ReplyEntry) {
        let leaves = || self.tree.unkept.has_name(&Name::new(parent, name));
        let left = leaves();
        let found = self.tree.lookup(caller, parent, name);
        if left || leaves() {
            return reply_uncached(found, reply);
        }
        match found {
            Err(Errno::NOENT) if !self.tree.is_private(parent, name).unwrap_or(true) => {
                reply.entry(&self.tree.ttl(false), &attr::negative(), GENERATION);
            }
            result => self.reply_entry(result, reply),
        }
    }

    /// Gives an open ordinary file its number, and says how the kernel is to open it. `before`: it may have attributes of the node already.
    pub fn opened(&self, file: &Arc<Ordinary>, before: bool) -> Result<(FileHandle, FopenFlags, Mode<Pin>)> {
        let wish = if self.tree.identity(file.node)?.private {
            // The daemon changes these files underneath.
            Mode::Direct
        } else if file.pin.backing().is_some() {
            Mode::Passing(Arc::clone(&file.pin))
        } else {
            Mode::Cached
        };
        let handle = Handle::Ordinary(Arc::clone(file));
        let (number, mode) = self.tree.handles.insert(handle, file.node, wish);
        // Where other opens of the inode may pass the daemon by, its pages grow stale.
        let sole = !self.tree.shared_backing && !self.tree.passthrough.load(Ordering::Relaxed);
        let flags = match &mode {
            Mode::Passing(pin) if Arc::ptr_eq(pin, &file.pin) => FopenFlags::empty(),
            Mode::Cached if sole => FopenFlags::FOPEN_KEEP_CACHE,
            Mode::Cached => FopenFlags::empty(),
            Mode::Passing(_) | Mode::Direct => FopenFlags::FOPEN_DIRECT_IO,
        };
        if self.tree.reckons_with_mapping(file) && before {
            self.tree.attributes_changed(file.node);
        }
        // Otherwise nothing is held back that a close(2) would have to wait for.
        let noflush = match file.may_be_mapped() {
            true => FopenFlags::empty(),
            false => FopenFlags::FOPEN_NOFLUSH,
        };
        Ok((FileHandle(number), flags | noflush, mode))
    }

    /// open(2) of a coordinated file. Data goes through the daemon: the shadow because it is staged, a version because R2 will bind it at
    /// the first read.
    pub fn open_coordinated(&self, caller: Caller, node: NodeId, target: Target, flags: OFlags, reply: ReplyOpen) {
        let tree = Arc::clone(&self.tree);
        if only_reads(flags) {
            if self.coordination.is_awaited(caller, &target) {
                let answer = Box::new(move |opened: Result<Handle>| match opened {
                    Ok(handle) => reply_opened(&tree, node, handle, FopenFlags::empty(), reply),
                    Err(error) => reply.error(reply_errno(error)),
                });
                return self.coordination.open_awaited(caller, node, target, flags, answer);
            }
            let coordination = Arc::clone(&self.coordination);
            let read = move || match coordination.open_reader(caller, node, &target, Finds::Current) {
                Ok(file) => {
                    let reader = coordination.reader(&file, target.name, caller);
                    drop(file);
                    reply_opened(&tree, node, Handle::Reader(reader), FopenFlags::FOPEN_NOFLUSH, reply);
                }
                Err(error) => reply.error(reply_errno(error)),
            };
            return match self.coordination.is_read_at_once(node) {
                true => read(),
                false => self.tree.workers.run(read),
            };
        }
        if self.coordination.is_journal(&target) {
            return reply.error(reply_errno(Errno::PERM));
        }
        if flags & OFlags::RWMODE == OFlags::WRONLY && flags.contains(OFlags::APPEND) && !flags.contains(OFlags::TRUNC)
        {
            let answer = Box::new(move |opened: Result<Handle>| match opened {
                Ok(handle) => reply_opened(&tree, node, handle, FopenFlags::empty(), reply),
                Err(error) => reply.error(reply_errno(error)),
            });
            return self.coordination.open_append(caller, node, target, flags, answer);
        }
        let answer = Box::new(move |opened: Result<Arc<Writer>>| match opened {
            Ok(writer) => reply_opened(&tree, node, Handle::Writer(writer), FopenFlags::empty(), reply),
            Err(error) => reply.error(reply_errno(error)),
        });
        if flags.contains(OFlags::TRUNC) || !self.coordination.is_shared(&target.name) {
            return self.coordination.open_writer(caller, node, target, flags, answer);
        }
        // It may have to be copied first.
        let coordination = Arc::clone(&self.coordination);
        self.tree
            .workers
            .run(move || coordination.open_writer(caller, node, target, flags, answer));
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
        if self.coordination.is_journal(&target) {
            return reply.error(reply_errno(Errno::PERM));
        }
        let tree = Arc::clone(&self.tree);
        let answer = Box::new(move |created: Result<(Entry, Arc<Writer>)>| match created {
            Ok((entry, writer)) => {
                let handle = Handle::Writer(writer);
                let (number, mode) = tree.handles.insert(handle, entry.id, Mode::Direct);
                let opened = (FileHandle(number), FopenFlags::FOPEN_DIRECT_IO, mode);
                reply_created(reply, Duration::ZERO, &entry, opened);
            }
            Err(error) => reply.error(reply_errno(error)),
        });
        self.coordination.create(caller, target, creation, flags, answer);
    }

    /// write(2) to a session's shadow. On a worker thread where something must be copied or waited for first.
    pub fn write_coordinated(
        &self,
        caller: Caller,
        (number, writer): (u64, Arc<Writer>),
        offset: u64,
        data: &[u8],
        coming: Coming,
        reply: ReplyWrite,
    ) {
        let (coordination, node) = (Arc::clone(&self.coordination), writer.session().about.node);
        let answer = move |written: Result<u32>| match written {
            Ok(count) => reply.written(count),
            Err(error) => {
                if coming.from_mapping {
                    coordination.may_close_silently(node);
                }
                reply.error(reply_errno(error));
            }
        };
        let written = move |writer: &Writer, coordination: &Coordination, offset, data: &[u8]| {
            let write = || writer.write(coordination, offset, data, coming.at_end);
            match coming.clears {
                Some(caller) => caller.clears(writer.session().pin().fd(), write),
                None => write(),
            }
        };
        let begins_log = coming.at_end && writer.begins_log(data);
        if writer.is_quick() && !begins_log {
            return answer(written(&writer, &self.coordination, offset, data));
        }
        let (coordination, data) = (Arc::clone(&self.coordination), data.to_vec());
        let write = Arc::clone(&writer);
        self.coordination
            .before_change(caller, &writer, Need::Access, move |ready| {
                let mut result = ready.and_then(|()| written(&write, &coordination, offset, &data));
                if begins_log && result.is_ok() {
                    result = coordination.promote(number, &write).and(result);
                }
                answer(result);
            });
    }

    /// The last descriptor of an open file description is closed.
    pub fn close_handle(&self, number: u64) {
        let handle = self.tree.handles.remove(number);
        if let Some(Handle::Writer(writer)) = &handle {
            self.coordination.close_writer(writer);
        }
        self.coordination.release_lock(lock_owner(number), handle.as_ref());
        match handle {
            Some(Handle::Ordinary(file)) => self.tree.close(file),
            Some(Handle::Reader(reader)) => self.coordination.close_reader(reader),
            Some(Handle::Writer(writer)) => self.coordination.forget_pin(writer),
            Some(Handle::Appender(appender)) => self.coordination.close_append(appender),
            None => {}
        }
    }

    /// copy_file_range(2) from one handle to another, each with an offset.
    pub fn copy_range(&self, caller: Caller, from: (u64, u64), to: (u64, u64), length: u64, reply: ReplyWrite) {
        let (tree, coordination) = (Arc::clone(&self.tree), Arc::clone(&self.coordination));
        let work = move |ready: Result<()>| {
            let copied = ready.and_then(|()| tree.handles.get(from.0)).and_then(|source| {
                let target = tree.handles.get(to.0)?;
                caller.changes(target.pin().fd(), || {
                    copy(&coordination, (&source, from.1), (&target, to.1), length)
                })
            });
            match copied {
                Ok(count) => reply.written(count),
                Err(error) => reply.error(reply_errno(error)),
            }
        };
        match self.tree.handles.get(to.0) {
            Ok(Handle::Writer(writer)) => self.coordination.before_change(caller, &writer, Need::Access, work),
            _ => self.tree.workers.run(move || work(Ok(()))),
        }
    }

    /// write(2) to a handle that appends. On a worker thread where it is the first since a while, or others are at it. EINVAL without O_APPEND: what is in the
    /// file is others' lines.
    pub fn write_appended(&self, appender: Arc<Appender>, offset: u64, data: &[u8], coming: Coming, reply: ReplyWrite) {
        if !coming.at_end {
            return reply.error(reply_errno(Errno::INVAL));
        }
        let clears = coming.clears;
        let (tree, coordination) = (Arc::clone(&self.tree), Arc::clone(&self.coordination));
        let by = Arc::clone(&appender);
        let answer = move |written: Result<u32>| match written {
            Ok(count) => match coordination.outdated_by_write(&by, offset, count) {
                Some(outdated) => Arc::clone(&tree).workers.run(move || {
                    outdated.tell(&tree);
                    reply.written(count);
                }),
                None => reply.written(count),
            },
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

    /// fallocate(2) of (offset, length).
    pub fn allocate(&self, caller: Caller, number: u64, (offset, length): (u64, u64), mode: i32, reply: ReplyEmpty) {
        match self.tree.handles.get(number) {
            Ok(Handle::Ordinary(file)) => self.later(reply, move || {
                caller.changes(file.pin.fd(), || file.allocate(offset, length, mode))
            }),
            Ok(Handle::Reader(_)) => reply.error(reply_errno(Errno::BADF)),
            Ok(Handle::Writer(writer)) => {
                let (coordination, file) = (Arc::clone(&self.coordination), Arc::clone(&writer));
                self.coordination
                    .before_change(caller, &writer, Need::Access, move |ready| {
                        let allocate = || file.allocate(&coordination, offset, length, mode);
                        reply_empty(
                            ready.and_then(|()| caller.changes(file.session().pin().fd(), allocate)),
                            reply,
                        );
                    });
            }
            Ok(Handle::Appender(appender)) => {
                let answer = move |result: Result<()>| reply_empty(result, reply);
                self.coordination
                    .allocate_appended(caller, appender, (offset, length), mode, Box::new(answer));
            }
            Err(error) => reply.error(reply_errno(error)),
        }
    }

    /// fsync(2) or fdatasync(2).
    pub fn sync(&self, number: u64, data_only: bool, reply: ReplyEmpty) {
        match self.tree.handles.get(number) {
            Ok(Handle::Ordinary(file)) => {
                let tree = Arc::clone(&self.tree);
                self.later(reply, move || {
                    let synced = file.sync(data_only);
                    tree.tell_stored(&file);
                    synced
                });
            }
            Ok(Handle::Reader(reader)) => self.later(reply, move || file::sync(reader.shown().open_fd()?, data_only)),
            Ok(Handle::Writer(writer)) => {
                let answer = Box::new(move |result| reply_empty(result, reply));
                self.tree.workers.run(move || writer.sync(data_only, answer));
            }
            Ok(Handle::Appender(appender)) => {
                let coordination = Arc::clone(&self.coordination);
                self.later(reply, move || coordination.sync_append(&appender));
            }
            Err(error) => reply.error(reply_errno(error)),
        }
    }

    /// lseek(2) with SEEK_DATA or SEEK_HOLE.
    pub fn seek(&self, number: u64, offset: i64, whence: i32) -> Result<i64> {
        self.tree.handles.get(number).and_then(|handle| match handle {
            Handle::Ordinary(file) => file.seek(offset, whence),
            Handle::Reader(reader) => {
                let version = self.coordination.bound(&reader, Use::Measured);
                version.reading(|fd| file::seek(fd, offset, whence))
            }
            Handle::Writer(writer) => writer.seek(offset, whence),
            Handle::Appender(appender) => appender.file.seek(offset, whence),
        })
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

    /// setxattr(2), removexattr(2): `make` makes the change to each file that it concerns.
    pub fn change_attributes(
        &self,
        caller: Caller,
        node: NodeId,
        make: impl Fn(BorrowedFd<'_>) -> Result<()> + Send + 'static,
        reply: ReplyEmpty,
    ) {
        if let Err(errno) = self.coordination.refuse_lost(caller, node) {
            return reply.error(reply_errno(errno));
        }
        if let Some(name) = self.coordination.name_to_change(node) {
            let change = Change {
                caller,
                about: About::Attributes,
                make: Box::new(make),
            };
            let answer = Box::new(move |changed: Result<Stat>| reply_empty(changed.map(|_| ()), reply));
            return self.coordination.change_metadata(node, &name, change, answer);
        }
        if self.coordination.is_astray(caller, node) {
            return reply.error(reply_errno(Errno::STALE));
        }
        let anchor = self.tree.anchor_to_change(node);
        reply_empty(anchor.and_then(|anchor| make(anchor.as_fd())), reply);
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
        let uncertain = self.coordination.growing(node).is_some()
            || self.coordination.is_shadow(node)
            || self.tree.nodes.is_detached(node);
        let tree = Arc::clone(&self.tree);
        let answer = move |result: Result<Stat>| match result {
            Ok(mut stat) => {
                stat.st_nlink = tree.nodes.links(node, stat.st_nlink);
                let ttl = if uncertain {
                    Duration::ZERO
                } else {
                    tree.attr_ttl(node, false, &stat)
                };
                reply.attr(&ttl, &attr::attributes(tree.nodes.number(node), &stat));
            }
            Err(error) => reply.error(reply_errno(error)),
        };
        let (tree, coordination) = (Arc::clone(&self.tree), Arc::clone(&self.coordination));
        match (changes.size, handle.map(|number| self.tree.handles.get(number))) {
            (Some(size), Some(Ok(Handle::Writer(writer)))) => {
                let set_len = Arc::clone(&writer);
                self.coordination
                    .before_change(caller, &writer, Need::Change, move |ready| {
                        let rest = Changes { size: None, ..changes };
                        let set_len =
                            || caller.changes(set_len.session().pin().fd(), || set_len.set_len(&coordination, size));
                        let set = ready.and_then(|()| set_len());
                        answer(set.and_then(|()| tree.set_attributes(caller, node, handle, &rest)));
                    });
            }
            (Some(size), Some(Ok(Handle::Appender(appender)))) => {
                self.coordination
                    .truncate_appended(caller, appender, size, Box::new(answer));
            }
            (Some(size), None)
                if let by @ (Opened::Coordinated(_) | Opened::Unknown) =
                    self.coordination.opened_by(caller, node, false) =>
            {
                match by {
                    Opened::Coordinated(target) => {
                        self.coordination.truncate(caller, node, target, size, Box::new(answer));
                    }
                    _ => answer(Err(Errno::STALE)),
                }
            }
            (None, _)
                if self.coordination.is_shadow(node)
                    && let Some(name) = self.coordination.name_to_change(node) =>
            {
                change(&coordination, (caller, node), &name, changes, answer);
            }
            _ if let Err(errno) = self.coordination.refuse_lost(caller, node) => answer(Err(errno)),
            _ if let Some(appender) = self.coordination.appended_by_descriptor(caller, node) => {
                let set =
                    move || coordination.change_appended(caller, &appender, |file| changes.set_metadata(caller, file));
                self.tree.workers.run(move || answer(set()));
            }
            (None, _) if let Some(name) = self.coordination.name_to_change(node) => {
                change(&coordination, (caller, node), &name, changes, answer);
            }
            _ if self.coordination.is_astray(caller, node) => answer(Err(Errno::STALE)),
            _ => {
                let image = self.tree.is_image(node);
                // Whatever handle it is: the metadata of a file that is written in place is its inode's.
                let handle = handle.filter(|_| !image);
                answer(self.tree.set_attributes(caller, node, handle, &changes));
            }
        }
    }
}

/// chmod(2), chown(2) or utimensat(2), of a coordinated file as the file that its name leads to.
fn change(
    coordination: &Arc<Coordination>,
    (caller, node): (Caller, NodeId),
    name: &Name,
    changes: Changes,
    answer: impl FnOnce(Result<Stat>) + Send + 'static,
) {
    let change = Change {
        caller,
        about: if changes.are_times() { About::Times } else { About::Mode },
        make: Box::new(move |file| changes.set_metadata(caller, file)),
    };
    coordination.change_metadata(node, name, change, Box::new(answer));
}

/// Whether who opens with these flags leaves the file as it is.
pub fn only_reads(flags: OFlags) -> bool {
    flags & OFlags::RWMODE == OFlags::RDONLY && !flags.contains(OFlags::TRUNC)
}

/// Whose a lock is that is taken by this handle: one handle is one open file description. The kernel's own name for that (`lock_owner`) is made of the address of
/// its struct file, which the next open(2) may get while we are still busy with the RELEASE of the one before: its lock would go with that one's.
pub fn lock_owner(handle: u64) -> LockOwner {
    LockOwner(handle)
}

/// LOCK_SH, LOCK_EX; `None` for LOCK_UN. The kernel speaks of all locks as fcntl(2) does.
pub fn lock_mode(kind: i32) -> Option<LockMode> {
    match kind {
        libc::F_RDLCK => Some(LockMode::Shared),
        libc::F_WRLCK => Some(LockMode::Exclusive),
        _ => None,
    }
}

/// Read and write come to us, also where an ordinary file was renamed to this name while somebody has it open past us.
fn reply_opened(tree: &Tree, node: NodeId, handle: Handle, flags: FopenFlags, reply: ReplyOpen) {
    let (number, mode) = tree.handles.insert(handle, node, Mode::Direct);
    reply_open(reply, FileHandle(number), flags | FopenFlags::FOPEN_DIRECT_IO, &mode);
}

/// A reply with an entry that the kernel must ask for again.
pub fn reply_uncached(result: Result<Entry>, reply: ReplyEntry) {
    match result {
        Ok(entry) => reply.entry(&Duration::ZERO, &attr::attributes(entry.id, &entry.stat), GENERATION),
        Err(error) => reply.error(reply_errno(error)),
    }
}

/// What copy_file_range(2) reads, and where that ends.
enum Source {
    File(Arc<Pin>),
    Version(Arc<Pin>, u64),
    Staged(OwnedFd, u64),
}

/// copy_file_range(2) between any two open files.
fn copy(coordination: &Coordination, from: (&Handle, u64), to: (&Handle, u64), length: u64) -> Result<u32> {
    let length = length.min(COPY_BYTES_MAX);
    // Before the target's session is locked, which may be the source's.
    let source = match from.0 {
        Handle::Ordinary(file) => Source::File(Arc::clone(&file.pin)),
        Handle::Reader(reader) => {
            let pin = coordination.bound(reader, Use::Measured);
            // As by read(2): lines that are just being written are nobody's to see.
            let end = coordination.growing_of(&pin, false);
            Source::Version(pin, end.unwrap_or(u64::MAX))
        }
        Handle::Writer(writer) => {
            let (content, end) = writer.content()?;
            Source::Staged(content, end)
        }
        Handle::Appender(_) => return Err(Errno::BADF),
    };
    let into = |target: BorrowedFd<'_>| {
        let copied = |source: BorrowedFd<'_>, end: u64| {
            let (mut from_at, mut to_at) = (from.1, to.1);
            match length.min(end.saturating_sub(from.1)) as usize {
                0 => Ok(0),
                length => rustix::fs::copy_file_range(source, Some(&mut from_at), target, Some(&mut to_at), length),
            }
        };
        match &source {
            Source::File(pin) => copied(pin.reader()?, u64::MAX),
            Source::Version(pin, end) => {
                let end = (*end).min(from.1.saturating_add(READING_BYTES_MAX));
                pin.reading(|source| copied(source, end))
            }
            Source::Staged(content, end) => copied(content.as_fd(), *end),
        }
    };
    let copied = match to.0 {
        Handle::Writer(writer) => writer.copy_from(coordination, into),
        Handle::Ordinary(file) => into(file.pin.writer()?),
        // Open with O_APPEND: the kernel refuses that itself.
        Handle::Reader(_) | Handle::Appender(_) => Err(Errno::BADF),
    };
    copied.map(|count| count as u32)
}
