//! Open ordinary files: open, create, read, write and the rest that goes by handle.

use std::ffi::OsStr;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags, Result};

use super::attr;
use super::descriptors;
use super::entry::Entry;
use super::handles::Ordinary;
use super::mapped::Mtime;
use super::nodes::{Name, NodeId};
use super::pin::{self, Access, Pin};
use super::tree::{Caller, Tree};
use crate::os::creds;

/// Registers a descriptor for passthrough; what a reply object can do.
pub type Register<'a> = &'a dyn Fn(BorrowedFd<'_>) -> std::io::Result<fuser::BackingId>;

/// Registers nothing: reads and writes come to us.
pub const BY_DAEMON: Register<'_> = &|_| Err(std::io::ErrorKind::Unsupported.into());

/// The flags of the caller's open that the daemon's own open takes over where the data goes through the daemon.
const OPEN_FLAGS: OFlags = OFlags::NOFOLLOW
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOCTTY)
    .union(OFlags::NONBLOCK);

impl Tree {
    /// open(2) of a node. All handles of a node share its pin: the first one makes it.
    pub fn open(&self, caller: Caller, id: NodeId, flags: OFlags, register: Register<'_>) -> Result<Arc<Ordinary>> {
        let private = self.identity(id)?.private;
        let access = Access::of(flags);
        if private && (access.writes() || flags.contains(OFlags::TRUNC)) {
            return Err(Errno::ROFS);
        }
        let pin = {
            let _opening = self.opening(id);
            match self.nodes.open_pin(id) {
                Some(pin) => pin,
                None => {
                    let (fd, access) = self.first_open(id, flags)?;
                    let fd = descriptors::keep(fd)?;
                    let by_daemon = private || attr::has_set_id(&rustix::fs::fstat(&fd)?);
                    let backing = if by_daemon { None } else { self.register(&fd, register) };
                    let pin = Arc::new(Pin::new(fd, access, backing));
                    self.nodes.set_open_pin(id, &pin);
                    pin
                }
            }
        };
        if access.writes() {
            pin.writer()?;
        }
        if flags.contains(OFlags::TRUNC) {
            // As the caller: truncation clears set-user-id for users and leaves it for root.
            let writer = pin.writer()?;
            caller.changes(writer, || rustix::fs::ftruncate(writer, 0))?;
        }
        Ok(Arc::new(Ordinary { node: id, pin, access }))
    }

    fn first_open(&self, id: NodeId, flags: OFlags) -> Result<(OwnedFd, Access)> {
        let held = self.hold_names();
        let info = self.nodes.info(id).ok_or(Errno::STALE)?;
        if let Some(orphan) = info.pin {
            return with_rights(flags, |flags| pin::reopen(orphan.fd(), flags));
        }
        let open = |flags: OFlags| {
            let by_name = |dir: &OwnedFd, name: &OsStr| {
                let fd = rustix::fs::openat(dir, name, flags | OPEN_FLAGS, Mode::empty())?;
                let stat = rustix::fs::fstat(&fd)?;
                Ok((fd, stat))
            };
            self.by_name(&held, id, &info.names, by_name).map(|(fd, _)| fd)
        };
        with_rights(flags, open)
    }

    /// Registers an inode for passthrough. Where that is refused its data goes through the page cache and the daemon.
    fn register(&self, fd: &OwnedFd, register: Register<'_>) -> Option<fuser::BackingId> {
        if !self.passthrough.load(Ordering::Relaxed) {
            return None;
        }
        // The kernel keeps the capabilities of this moment for the writes that pass us by: without this one they clear set-id bits that the
        // file gets while it is open.
        match creds::without_fsetid(|| register(fd.as_fd())) {
            Ok(backing) => Some(backing),
            Err(error) => {
                log::debug!("no passthrough for an inode: {error}");
                if super::errno::from_io(&error) == Errno::PERM {
                    log::info!("the kernel refuses passthrough (no CAP_SYS_ADMIN): files go through the page cache");
                    self.passthrough.store(false, Ordering::Relaxed);
                }
                None
            }
        }
    }

    /// open(2) with O_CREAT of a name that was not there, as the caller.
    pub fn create(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        mode: (u32, u32),
        flags: OFlags,
        register: Register<'_>,
    ) -> Result<(Entry, Arc<Ordinary>)> {
        self.refuse_private(parent, name)?;
        let (mode, umask) = mode;
        let held = self.hold_names();
        let dir = self.dir_of(&held, parent)?;
        descriptors::expect_one(&dir)?;
        let (fd, is_new) = {
            let _caller = caller.assume(mode, umask)?;
            let open = |asked| {
                let flags = OFlags::RDWR | OFlags::CREATE | asked | OPEN_FLAGS;
                rustix::fs::openat(&dir, name, flags, Mode::from_raw_mode(mode & 0o7777))
            };
            match open(OFlags::EXCL) {
                Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => (open(flags & OFlags::TRUNC)?, false),
                made => (made?, true),
            }
        };
        let stat = rustix::fs::fstat(&fd)?;
        let identity = attr::identity(&stat, false);
        if is_new {
            self.nodes.number_came_back(identity);
        }
        let id = self
            .nodes
            .intern(Name::new(parent, name), identity, attr::kind(stat.st_mode));
        // The name is settled; `opening` comes before it in the lock order.
        drop(held);
        let pin = {
            let _opening = self.opening(id);
            self.nodes.open_pin(id).unwrap_or_else(|| {
                let by_daemon = attr::has_set_id(&stat);
                let backing = if by_daemon { None } else { self.register(&fd, register) };
                let pin = Arc::new(Pin::new(fd, Access::Both, backing));
                self.nodes.set_open_pin(id, &pin);
                pin
            })
        };
        Ok((
            Entry {
                id,
                stat,
                private: false,
            },
            Arc::new(Ordinary {
                node: id,
                pin,
                access: Access::of(flags),
            }),
        ))
    }

    /// A file was opened. `true`: the kernel must not keep what it knows of its attributes.
    pub fn reckons_with_mapping(&self, file: &Ordinary) -> bool {
        file.may_be_mapped() && mtime(&file.pin).is_ok_and(|mtime| self.mapped.opened(file.node, mtime, Instant::now()))
    }

    /// A handle is synced or closed: the kernel hears of what was stored through a mapping. Waits for nothing that a request can hold.
    pub fn tell_stored(&self, file: &Ordinary) {
        if file.may_be_mapped() && mtime(&file.pin).is_ok_and(|mtime| self.mapped.has_changed(file.node, mtime)) {
            self.attributes_changed(file.node);
        }
    }

    /// The last descriptor of an open file description is closed.
    pub fn close(&self, file: Arc<Ordinary>) {
        let node = file.node;
        if file.may_be_mapped() {
            self.tell_stored(&file);
            self.mapped.closed(node, Instant::now());
        }
        drop(file);
        self.nodes.handle_closed(node);
    }
}

fn mtime(pin: &Pin) -> Result<Mtime> {
    let stat = rustix::fs::fstat(pin.fd())?;
    Ok((stat.st_mtime, stat.st_mtime_nsec))
}

/// Opens for reading, or for both where writing is asked: the pin serves later opens too.
fn with_rights(flags: OFlags, open: impl Fn(OFlags) -> Result<OwnedFd>) -> Result<(OwnedFd, Access)> {
    if !Access::of(flags).writes() {
        return open(OFlags::RDONLY).map(|fd| (fd, Access::Read));
    }
    match open(OFlags::RDWR) {
        Ok(fd) => Ok((fd, Access::Both)),
        // Its user may write what it may not read; only without privileges does that concern us.
        Err(Errno::ACCESS) if Access::of(flags) == Access::Write => open(OFlags::WRONLY).map(|fd| (fd, Access::Write)),
        // Append-only files (FS_APPEND_FL) can be opened for appending only.
        Err(Errno::PERM) if flags.contains(OFlags::APPEND) => {
            open(OFlags::RDWR | OFlags::APPEND).map(|fd| (fd, Access::Both))
        }
        Err(error) => Err(error),
    }
}

impl Ordinary {
    /// pread(2).
    pub fn read(&self, offset: u64, size: u32) -> Result<Vec<u8>> {
        let fd = self.pin.reader()?;
        let mut buffer = vec![0; size as usize];
        let mut filled = 0;
        // A short answer means end of file to the kernel.
        while filled < buffer.len() {
            match rustix::io::pread(fd, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(error) if filled == 0 => return Err(error),
                Err(_) => break,
            }
        }
        buffer.truncate(filled);
        Ok(buffer)
    }

    /// pwrite(2); at the end of the file with O_APPEND. `clears`: whose write takes set-id bits away.
    pub fn write(&self, offset: u64, data: &[u8], flags: OFlags, clears: Option<Caller>) -> Result<u32> {
        let fd = self.pin.writer()?;
        let mut how = ReadWriteFlags::empty();
        if flags.contains(OFlags::APPEND) {
            how |= ReadWriteFlags::APPEND;
        }
        if flags.contains(OFlags::SYNC) {
            how |= ReadWriteFlags::SYNC;
        } else if flags.contains(OFlags::DSYNC) {
            how |= ReadWriteFlags::DSYNC;
        }
        let write = || write_all(fd, data, offset, how);
        let written = match clears {
            Some(caller) => caller.clears(fd, write),
            None => write(),
        };
        written.map(|count| count as u32)
    }

    /// lseek(2) with SEEK_DATA or SEEK_HOLE; the kernel does the others itself.
    pub fn seek(&self, offset: i64, whence: i32) -> Result<i64> {
        seek(self.pin.reader()?, offset, whence)
    }

    /// fallocate(2) with any of its modes.
    pub fn allocate(&self, offset: u64, length: u64, mode: i32) -> Result<()> {
        let mode = FallocateFlags::from_bits_retain(mode as u32);
        rustix::fs::fallocate(self.pin.writer()?, mode, offset, length)
    }

    /// fsync(2) or fdatasync(2).
    pub fn sync(&self, data_only: bool) -> Result<()> {
        sync(self.pin.open_fd()?, data_only)
    }
}

/// lseek(2) with SEEK_DATA or SEEK_HOLE.
///
/// # Errors
/// ENXIO beyond the end; EINVAL for another whence.
pub fn seek(fd: BorrowedFd<'_>, offset: i64, whence: i32) -> Result<i64> {
    let offset = u64::try_from(offset).map_err(|_| Errno::NXIO)?;
    let to = match whence {
        libc::SEEK_DATA => SeekFrom::Data(offset),
        libc::SEEK_HOLE => SeekFrom::Hole(offset),
        _ => return Err(Errno::INVAL),
    };
    rustix::fs::seek(fd, to).map(|offset| offset as i64)
}

fn write_all(fd: BorrowedFd<'_>, data: &[u8], offset: u64, how: ReadWriteFlags) -> Result<usize> {
    let mut written = 0;
    while written < data.len() {
        let rest = [IoSlice::new(&data[written..])];
        match rustix::io::pwritev2(fd, &rest, offset + written as u64, how) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(error) if written == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(written)
}

/// fsync(2) or fdatasync(2).
pub fn sync(fd: BorrowedFd<'_>, data_only: bool) -> Result<()> {
    if data_only {
        rustix::fs::fdatasync(fd)
    } else {
        rustix::fs::fsync(fd)
    }
}
