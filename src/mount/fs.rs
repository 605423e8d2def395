//! Decode, call, reply: what fuser wants of a filesystem. Every decision is made elsewhere.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BackingId, BsdFileFlags, CopyFileRangeFlags, FileHandle, FopenFlags, Generation, INodeNo, KernelConfig, LockOwner,
    OpenFlags, PollEvents, PollFlags, PollNotifier, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{OFlags, RenameFlags};
use rustix::io::{Errno, Result};

use super::attr;
use super::coordinated::{Coordination, Creation, Opened, Wish};
use super::entry::{Entry, New};
use super::errno::reply_errno;
use super::file;
use super::handles::Handle;
use super::init;
use super::modes::Mode;
use super::nodes::{Name, NodeId};
use super::notices;
use super::pin::Pin;
use super::route::{self, Coming, reply_uncached};
use super::setattr::Changes;
use super::tree::{Caller, Tree};
use super::xattr::{self, Answer};
use crate::os::proc;

/// The filesystem as fuser sees it.
#[derive(Debug)]
pub struct Fs {
    pub(super) tree: Arc<Tree>,
    pub(super) coordination: Arc<Coordination>,
    /// The backing filesystem is itself stacked: passthrough needs one level more.
    stacked: bool,
}

/// The kernel asks for generations only for NFS export, which is not offered.
pub(super) const GENERATION: Generation = Generation(0);

impl Fs {
    /// Serves a tree.
    pub fn new(tree: Arc<Tree>, coordination: Arc<Coordination>, stacked: bool) -> Fs {
        Fs {
            tree,
            coordination,
            stacked,
        }
    }

    pub(super) fn reply_entry(&self, result: Result<Entry>, reply: ReplyEntry) {
        reply_entry(&self.tree, result, reply);
    }

    /// Runs `work` on a worker thread and replies from there.
    pub(super) fn later(&self, reply: ReplyEmpty, work: impl FnOnce() -> Result<()> + Send + 'static) {
        self.tree.workers.run(move || reply_empty(work(), reply));
    }
}

/// Who asks. Nobody that we can look up has the thread id 0: the kernel says so of threads in a pid namespace that ours is no ancestor of, and we where /proc is
/// of another namespace and would tell of somebody else.
pub(super) fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
        tid: if proc::is_ours() { request.pid() } else { 0 },
    }
}

pub(super) fn node(number: INodeNo) -> NodeId {
    NodeId(number.0)
}

pub(super) fn open_flags(flags: i32) -> OFlags {
    OFlags::from_bits_retain(flags as u32)
}

fn reply_entry(tree: &Tree, result: Result<Entry>, reply: ReplyEntry) {
    match result {
        Ok(entry) => {
            let ttl = tree.attr_ttl(entry.id, entry.private, &entry.stat);
            reply.entry(&ttl, &attr::attributes(entry.id, &entry.stat), GENERATION);
        }
        Err(error) => reply.error(reply_errno(error)),
    }
}

pub(super) fn reply_open(reply: ReplyOpen, number: FileHandle, flags: FopenFlags, mode: &Mode<Pin>) {
    match backing(mode) {
        Some(backing) => reply.opened_passthrough(number, flags, backing),
        None => reply.opened(number, flags),
    }
}

pub(super) fn reply_created(
    reply: ReplyCreate,
    ttl: Duration,
    entry: &Entry,
    (number, flags, mode): (FileHandle, FopenFlags, Mode<Pin>),
) {
    let attributes = attr::attributes(entry.id, &entry.stat);
    match backing(&mode) {
        Some(backing) => reply.created_passthrough(&ttl, &attributes, GENERATION, number, flags, backing),
        None => reply.created(&ttl, &attributes, GENERATION, number, flags),
    }
}

fn backing(mode: &Mode<Pin>) -> Option<&BackingId> {
    match mode {
        Mode::Passing(pin) => pin.backing(),
        Mode::Cached | Mode::Direct => None,
    }
}

pub(super) fn reply_empty(result: Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(reply_errno(error)),
    }
}

pub(super) fn reply_xattr(result: Result<Answer>, reply: ReplyXattr) {
    match result {
        Ok(Answer::Length(length)) => reply.size(length),
        Ok(Answer::Data(data)) => reply.data(&data),
        Err(error) => reply.error(reply_errno(error)),
    }
}

impl fuser::Filesystem for Fs {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        init::agree(&self.tree, self.stacked, config);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if self.tree.is_teller(request.pid())
            && let Some(found) = self.node_told_of(caller(request), node(parent), name)
        {
            return reply_uncached(found, reply);
        }
        if let Some(target) = self.coordination.target(node(parent), name) {
            return self.lookup_coordinated(caller(request), &target, reply);
        }
        self.lookup_ordinary(caller(request), node(parent), name, reply);
    }

    fn forget(&self, _request: &Request, ino: INodeNo, nlookup: u64) {
        self.tree.nodes.forget(node(ino), nlookup);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        self.attributes(caller(request), node(ino), fh.map(|number| number.0), reply);
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if self.tree.is_teller(request.pid()) {
            return self.attributes(caller(request), node(ino), None, reply);
        }
        let changes = Changes {
            mode,
            uid,
            gid,
            size,
            atime,
            mtime,
        };
        self.set_attributes(caller(request), node(ino), fh.map(|fh| fh.0), changes, reply);
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        match self.tree.read_link(node(ino)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(reply_errno(error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.reply_entry(
            self.make(caller(request), node(parent), name, New::Special(mode, rdev), umask),
            reply,
        );
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        self.reply_entry(
            self.make(caller(request), node(parent), name, New::Directory(mode), umask),
            reply,
        );
    }

    fn symlink(&self, request: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.reply_entry(
            self.make(caller(request), node(parent), link_name, New::Symlink(target), 0),
            reply,
        );
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if self.tree.is_teller(request.pid()) {
            // The kernel keeps nothing of a name then.
            return reply.error(reply_errno(Errno::NOENT));
        }
        if let Some(target) = self.coordination.target(node(parent), name) {
            let answer = Box::new(move |result| reply_empty(result, reply));
            return self.coordination.unlink(caller(request), target, answer);
        }
        reply_empty(self.tree.remove(node(parent), name), reply);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(self.coordination.remove_directory(node(parent), name), reply);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: fuser::RenameFlags,
        reply: ReplyEmpty,
    ) {
        let flags = RenameFlags::from_bits_retain(flags.bits());
        let (old, new) = ((node(parent), name), (node(newparent), newname));
        let source = self.coordination.target(old.0, old.1);
        let target = self.coordination.target(new.0, new.1);
        if source.is_some() || target.is_some() {
            let answer = Box::new(move |result| reply_empty(result, reply));
            return self
                .coordination
                .rename(caller(request), old, new, source, target, flags, answer);
        }
        let answer = Box::new(move |result| reply_empty(result, reply));
        self.coordination.rename_uncoordinated(old, new, flags, answer);
    }

    fn link(&self, request: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        if let Some(target) = self.coordination.target(node(newparent), newname) {
            let answer = Box::new(move |result| reply_uncached(result, reply));
            return self.coordination.link(caller(request), node(ino), target, answer);
        }
        if self.coordination.must_be_found_anew(caller(request), node(ino)) {
            return reply.error(reply_errno(Errno::STALE));
        }
        let tree = Arc::clone(&self.tree);
        let answer = Box::new(move |linked| reply_entry(&tree, linked, reply));
        self.coordination
            .link_ordinary(caller(request), node(ino), Name::new(node(newparent), newname), answer);
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if self.tree.is_teller(request.pid()) {
            let flags = FopenFlags::FOPEN_NOFLUSH | FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_KEEP_CACHE;
            return reply.opened(FileHandle(notices::HANDLE), flags);
        }
        match self
            .coordination
            .opened_by(caller(request), node(ino), route::only_reads(open_flags(flags.0)))
        {
            Opened::Coordinated(target) => {
                return self.open_coordinated(caller(request), node(ino), target, open_flags(flags.0), reply);
            }
            Opened::Unknown => return reply.error(reply_errno(Errno::STALE)),
            Opened::Ordinary => {}
        }
        let register = |fd: BorrowedFd<'_>| reply.open_backing(fd);
        let opened = self
            .tree
            .open(caller(request), node(ino), open_flags(flags.0), &register)
            .and_then(|file| self.opened(&file, true));
        match opened {
            Ok((number, flags, mode)) => reply_open(reply, number, flags, &mode),
            Err(error) => reply.error(reply_errno(error)),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        if let Some(target) = self.coordination.target(node(parent), name) {
            let creation = Creation { mode, umask };
            return self.create_coordinated(caller(request), target, creation, open_flags(flags), reply);
        }
        let register = |fd: BorrowedFd<'_>| reply.open_backing(fd);
        let created = self
            .tree
            .create(
                caller(request),
                node(parent),
                name,
                (mode, umask),
                open_flags(flags),
                &register,
            )
            .and_then(|(entry, file)| Ok((self.opened(&file, false)?, entry)));
        match created {
            Ok((opened, entry)) => {
                let ttl = self.tree.attr_ttl(entry.id, false, &entry.stat);
                reply_created(reply, ttl, &entry, opened);
            }
            Err(error) => reply.error(reply_errno(error)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.tree.handles.get(fh.0).and_then(|handle| match handle {
            Handle::Ordinary(file) => file.read(offset, size),
            // read(2) comes with an owner, and what fills a page of a mapping without.
            Handle::Reader(reader) => self.coordination.read(&reader, (offset, size), lock_owner.is_none()),
            Handle::Writer(writer) => writer.read(offset, size, lock_owner.is_none()),
            Handle::Appender(_) => Err(Errno::BADF),
        });
        match read {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(reply_errno(error)),
        }
    }

    fn write(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut flags = open_flags(flags.0);
        let from_mapping = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        if from_mapping {
            // Pages of a mapping go where they belong, whatever handle the kernel chose for them.
            flags -= OFlags::APPEND;
        }
        let coming = Coming {
            at_end: flags.contains(OFlags::APPEND),
            from_mapping,
            clears: write_flags
                .contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID)
                .then(|| caller(request)),
        };
        match self.tree.handles.get(fh.0) {
            Ok(Handle::Writer(writer)) => {
                return self.write_coordinated(caller(request), (fh.0, writer), offset, data, coming, reply);
            }
            Ok(Handle::Appender(appender)) => return self.write_appended(appender, offset, data, coming, reply),
            _ => {}
        }
        match self
            .tree
            .handles
            .ordinary(fh.0)
            .and_then(|file| file.write(offset, data, flags, coming.clears))
        {
            Ok(count) => reply.written(count),
            Err(error) => reply.error(reply_errno(error)),
        }
    }

    fn flush(&self, request: &Request, ino: INodeNo, fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        self.coordination.told_of_close(node(ino));
        match self.tree.handles.get(fh.0) {
            Ok(Handle::Writer(writer)) => {
                let answer = Box::new(move |result| reply_empty(result, reply));
                self.coordination.flush(caller(request), &writer, answer);
            }
            Ok(Handle::Appender(appender)) => {
                let answer = Box::new(move |result| reply_empty(result, reply));
                self.coordination.flush_append(caller(request), appender, answer);
            }
            // Others than those that may be mapped: only kernels without FOPEN_NOFLUSH (before 5.16) ask.
            Ok(Handle::Ordinary(file)) => {
                self.tree.tell_stored(&file);
                reply.ok();
            }
            other => reply_empty(other.map(drop), reply),
        }
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.close_handle(fh.0);
        reply.ok();
    }

    fn fsync(&self, _request: &Request, _ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.sync(fh.0, datasync, reply);
    }

    /// ENOSYS: directories are opened without us (FUSE_NO_OPENDIR_SUPPORT), and the kernel keeps what it has listed until it changes the
    /// directory itself or hears of a change ([`Tree::changed_behind`]).
    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(reply_errno(Errno::NOSYS));
    }

    fn readdir(&self, _request: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.tree.open_dir(node(ino)).and_then(|dir| {
            self.tree.list(&dir, offset, |entry| {
                reply.add(INodeNo(entry.ino), entry.next, entry.kind, &entry.name)
            })
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(reply_errno(error)),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = self.tree.open_dir(node(ino)).and_then(|dir| {
            self.tree.list_plus(&dir, offset, |listed, entry| {
                let (ttl, attr) = match entry {
                    Some(entry)
                        if let Some(target) = self.coordination.target(dir.node(), &listed.name)
                            && !self.coordination.may_keep(&target, entry) =>
                    {
                        (Duration::ZERO, attr::attributes(entry.id, &entry.stat))
                    }
                    Some(entry) => (
                        self.tree.attr_ttl(entry.id, entry.private, &entry.stat),
                        attr::attributes(entry.id, &entry.stat),
                    ),
                    None => {
                        // For "." and ".." the kernel makes no node; for others number 0 says that it must not.
                        let dots = listed.name == "." || listed.name == "..";
                        let ino = INodeNo(if dots { listed.ino } else { 0 });
                        (
                            Duration::ZERO,
                            fuser::FileAttr {
                                kind: listed.kind,
                                ino,
                                ..attr::negative()
                            },
                        )
                    }
                };
                reply.add(attr.ino, listed.next, &listed.name, &ttl, &attr, GENERATION)
            })
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(reply_errno(error)),
        }
    }

    fn fsyncdir(&self, _request: &Request, ino: INodeNo, _fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        match self.tree.open_dir(node(ino)) {
            Ok(dir) => self.later(reply, move || file::sync(std::os::fd::AsFd::as_fd(dir.fd()), datasync)),
            Err(error) => reply.error(reply_errno(error)),
        }
    }

    fn statfs(&self, _request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        match self.tree.anchor(node(ino)).and_then(rustix::fs::fstatvfs) {
            Ok(stat) => reply.statfs(
                stat.f_blocks,
                stat.f_bfree,
                stat.f_bavail,
                stat.f_files,
                stat.f_ffree,
                stat.f_bsize as u32,
                stat.f_namemax as u32,
                stat.f_frsize as u32,
            ),
            Err(error) => reply.error(reply_errno(error)),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (by, name, value) = (caller(request), name.to_owned(), value.to_owned());
        let set = move |file: BorrowedFd<'_>| xattr::set(by, file, &name, &value, flags);
        self.change_attributes(by, node(ino), set, reply);
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let found = if self.coordination.is_made_up(node(ino)) {
            Err(Errno::NODATA)
        } else if self.coordination.is_astray(caller(request), node(ino)) {
            Err(Errno::STALE)
        } else {
            self.xattr_of(node(ino), name)
                .and_then(|anchor| xattr::get(&anchor, name, size))
        };
        reply_xattr(found, reply);
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        if self.coordination.is_astray(caller(request), node(ino)) {
            return reply.error(reply_errno(Errno::STALE));
        }
        let anchor = self.tree.anchor(node(ino));
        reply_xattr(anchor.and_then(|anchor| xattr::list(&anchor, size)), reply);
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        let remove = move |file: BorrowedFd<'_>| xattr::remove(file, &name);
        self.change_attributes(caller(request), node(ino), remove, reply);
    }

    /// Regular files are always ready. After ENOSYS the kernel says so itself, and asks no more.
    fn poll(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _poll: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(reply_errno(Errno::NOSYS));
    }

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: fuser::IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(reply_errno(Errno::NOTTY));
    }

    fn fallocate(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.allocate(caller(request), fh.0, (offset, length), mode, reply);
    }

    fn lseek(&self, _request: &Request, _ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let found = self.seek(fh.0, offset, whence);
        match found {
            Ok(offset) => reply.offset(offset),
            Err(error) => reply.error(reply_errno(error)),
        }
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (from, to) = ((fh_in.0, offset_in), (fh_out.0, offset_out));
        self.copy_range(caller(request), from, to, len, reply);
    }

    fn setlk(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _lock_owner: LockOwner,
        _start: u64,
        _end: u64,
        typ: i32,
        _pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let wish = Wish {
            caller: caller(request),
            owner: route::lock_owner(fh.0),
            mode: route::lock_mode(typ),
            nonblock: !sleep,
        };
        match self.tree.handles.get(fh.0) {
            Ok(handle) => {
                let answer = Box::new(move |result| reply_empty(result, reply));
                self.coordination.flock(wish, node(ino), &handle, answer);
            }
            Err(error) => reply.error(reply_errno(error)),
        }
    }
}
