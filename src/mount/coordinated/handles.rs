//! What goes by handle: reads and writes of a session's shadow. A handle on a version is an ordinary one: its file never changes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::Errno;

use super::Coordination;
use super::session::{EndReply, Life, Session};
use super::staged::{Staged, read_at};
use crate::mount::nodes::NodeId;
use crate::mount::pin::{Access, Pin};
use crate::rules::Append;

/// A handle that was opened for writing.
#[derive(Debug)]
pub struct Writer {
    /// The node that it was opened on. A session that it has joined may stand on another.
    pub node: NodeId,
    /// What that stands for then: nobody else may take it over.
    pin: Option<Arc<Pin>>,
    session: Mutex<Arc<Session>>,
    /// It does nothing but append to a file that it creates: with its first line the file appears (W10).
    begins_log: bool,
    /// No descriptor of it was closed yet: its session counts it as open.
    unclosed: AtomicBool,
}

impl Writer {
    /// Opened on `node`, writes to `session`.
    pub fn new(node: NodeId, session: Arc<Session>) -> Writer {
        Writer {
            node,
            pin: None,
            session: Mutex::new(session),
            begins_log: false,
            unclosed: AtomicBool::new(true),
        }
    }

    /// The same, where the session stands on another node; `pin` is what this one stands for.
    pub fn elsewhere(self, pin: Option<Arc<Pin>>) -> Writer {
        Writer { pin, ..self }
    }

    /// How many pins of its node are its own.
    pub fn pins(&self, pin: &Arc<Pin>) -> usize {
        let session = self.session();
        let own = [self.pin.clone(), Some(session.pin()), session.left_behind()];
        own.iter().flatten().filter(|own| Arc::ptr_eq(own, pin)).count()
    }

    /// The same for a file that does not exist yet, by the flags of open(2).
    pub fn creating(session: Arc<Session>, flags: OFlags) -> Writer {
        let append = flags.contains(OFlags::APPEND);
        let lines = session.creates() && session.about.policy.append == Append::Lines;
        Writer {
            begins_log: lines && append && Access::of(flags) == Access::Write,
            ..Writer::new(session.about.node, session)
        }
    }

    /// Whether this write ends the creation of a file of lines.
    pub fn begins_log(&self, data: &[u8]) -> bool {
        self.begins_log && data.contains(&b'\n')
    }

    /// The session that it writes to now.
    pub fn session(&self) -> Arc<Session> {
        Arc::clone(&self.session.lock())
    }

    /// Writes to `new` from now on, unless it does not write to `old` any more.
    pub fn replace(&self, old: &Arc<Session>, new: &Arc<Session>) -> bool {
        let mut session = self.session.lock();
        let is_old = Arc::ptr_eq(&session, old);
        if is_old {
            *session = Arc::clone(new);
            self.unclosed.store(true, Ordering::Release);
        }
        is_old
    }

    /// A descriptor of it is being closed, or the handle: from now on /proc says who else has it.
    pub(super) fn closed(&self) {
        if self.unclosed.swap(false, Ordering::AcqRel) {
            // Nobody counts the handles of a session that is over.
            let _ = self.session().staged(|staged| {
                staged.unclosed = staged.unclosed.saturating_sub(1);
                Ok(())
            });
        }
    }

    /// Whether its session is open, as far as can be said without waiting.
    pub fn is_open_now(&self) -> bool {
        self.session.try_lock().is_some_and(|session| session.is_open())
    }

    /// Its session, if that was lost, as far as can be said without waiting, and with what each later use fails.
    pub fn lost(&self) -> Option<(Arc<Session>, Errno)> {
        let session = self.session.try_lock()?;
        session.lost().map(|errno| (Arc::clone(&session), errno))
    }

    /// Whether a change can be made at once, without waiting and without copying much.
    pub fn is_quick(&self) -> bool {
        self.session.try_lock().is_some_and(|session| session.is_quick())
    }

    /// Runs `act` on the session's shadow. Where the session has ended although this handle lives on, another one continues it (How::Late).
    /// Waits unless [`Writer::is_quick`].
    ///
    /// # Errors
    /// Those of `act`; ESTALE when the session was discarded, or what its publish failed with.
    fn change<T>(
        &self,
        coordination: &Coordination,
        act: impl Fn(&mut Staged) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        self.with_session(coordination, |session| {
            session.fill_to_write(coordination.store())?;
            session.change(&act)
        })
    }

    fn with_session<T>(
        &self,
        coordination: &Coordination,
        act: impl Fn(&Session) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut session = self.session.lock();
        loop {
            if let Life::Done(content, version) = session.settle()? {
                *session = coordination.continued(&session, content, version)?;
            }
            match act(&session) {
                // It ended just now, before `act` could begin.
                Err(Errno::BUSY | Errno::STALE) if !session.is_open() => {}
                result => return result,
            }
        }
    }

    /// pwrite(2), or at the end of the file.
    ///
    /// # Errors
    /// As [`Writer::change`], and ENOSPC, EDQUOT, EFBIG, EIO.
    pub fn write(&self, coordination: &Coordination, offset: u64, data: &[u8], at_end: bool) -> Result<u32, Errno> {
        let store = coordination.store();
        let write = || self.with_session(coordination, |session| session.write(store, offset, data, at_end));
        let again = |errno| match coordination.finds_no_room(errno, &self.session().name()) {
            true => write(),
            false => Err(errno),
        };
        write().or_else(again).map(|count| count as u32)
    }

    /// ftruncate(2).
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn set_len(&self, coordination: &Coordination, len: u64) -> Result<(), Errno> {
        self.with_session(coordination, |session| session.set_len(coordination.store(), len))
    }

    /// fallocate(2).
    ///
    /// # Errors
    /// As [`Writer::write`], and EOPNOTSUPP.
    pub fn allocate(&self, coordination: &Coordination, offset: u64, length: u64, mode: i32) -> Result<(), Errno> {
        self.change(coordination, |staged| {
            let mode = FallocateFlags::from_bits_retain(mode as u32);
            rustix::fs::fallocate(&staged.shadow.file, mode, offset, length)?;
            staged.note_change();
            Ok(())
        })
    }

    /// copy_file_range(2) into the shadow, which `copy` is given; returns how many bytes were copied.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn copy_from(
        &self,
        coordination: &Coordination,
        copy: impl Fn(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        self.change(coordination, |staged| {
            let copied = copy(staged.shadow.file.as_fd());
            if copied.is_ok_and(|count| count > 0) {
                staged.note_change();
            }
            copied
        })
    }

    /// A descriptor of its own of what the session sees, to copy from, and how many bytes of it that are.
    ///
    /// # Errors
    /// EMFILE.
    pub fn content(&self) -> Result<(OwnedFd, u64), Errno> {
        let session = self.looked_at();
        match session.left_bytes() {
            Some((content, bytes)) => Ok((rustix::io::fcntl_dupfd_cloexec(content, 3)?, bytes)),
            None => Ok((rustix::io::fcntl_dupfd_cloexec(session.pin().fd(), 3)?, u64::MAX)),
        }
    }

    /// fsync(2) of what is staged. It says nothing about the publish: that is close(2)'s to say. `reply` waits for an end of the session that is under way.
    ///
    /// # Errors
    /// EIO, ENOSPC, EDQUOT; the session is then never published. ESTALE when it was discarded, or what its publish failed with.
    pub fn sync(&self, data_only: bool, reply: EndReply) {
        let session = self.session();
        match session.sync(data_only) {
            Err(Errno::BUSY | Errno::STALE) if !session.is_open() => session.on_end(reply),
            result => reply(result),
        }
    }

    /// Its session, which it is about to read.
    fn looked_at(&self) -> Arc<Session> {
        let session = self.session();
        let _ = session.staged(|staged| {
            staged.note_look();
            Ok(())
        });
        session
    }

    /// lseek(2) to the end of what the session sees: its caller may write there.
    pub fn measured(&self) {
        self.looked_at();
    }

    /// pread(2) of what the session sees. `for_mapping`: the kernel reads a page, which it keeps, and may have changed later.
    ///
    /// # Errors
    /// EIO.
    pub fn read(&self, offset: u64, size: u32, for_mapping: bool) -> Result<Vec<u8>, Errno> {
        let session = self.looked_at();
        if for_mapping {
            let _ = session.staged(|staged| {
                staged.take_up();
                Ok(())
            });
        }
        match session.left_bytes() {
            Some((content, bytes)) => {
                let left = u32::try_from(bytes.saturating_sub(offset)).unwrap_or(u32::MAX);
                read_at(content.as_fd(), offset, size.min(left) as usize)
            }
            None => read_at(session.pin().fd(), offset, size as usize),
        }
    }

    /// lseek(2) with SEEK_DATA or SEEK_HOLE.
    ///
    /// # Errors
    /// ENXIO beyond the end; EINVAL for another whence.
    pub fn seek(&self, offset: i64, whence: i32) -> Result<i64, Errno> {
        let offset = u64::try_from(offset).map_err(|_| Errno::NXIO)?;
        let to = match whence {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        let session = self.looked_at();
        let found = match session.left() {
            Some(content) => rustix::fs::seek(content, to),
            None => rustix::fs::seek(session.pin().fd(), to),
        };
        found.map(|offset| offset as i64)
    }
}
