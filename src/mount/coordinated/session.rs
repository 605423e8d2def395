//! One writer's stay: what it has staged, and what reading and writing through its handles does.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::Stat;
use rustix::io::Errno;

use crate::mount::errno::from_io;
use crate::mount::nodes::NodeId;
use crate::os::proc::Exit;
use crate::rules::Policy;
use crate::session::{FileKey, ProcId, SessionId};
use crate::store::record::{How, Who};
use crate::store::{RealDisk, Shadow, Store};

/// The store of a mount.
pub type RealStore = Store<RealDisk>;

/// Answers a request whose reply waits for the end of the session.
pub type EndReply = Box<dyn FnOnce(Result<(), Errno>) + Send>;

/// A session that has a shadow. The queue knows it by the same number.
pub struct Session {
    /// Its number.
    pub id: SessionId,
    /// The file that it writes.
    pub file: FileKey,
    /// The node that stands for its shadow.
    pub node: NodeId,
    /// The process that opened it.
    pub process: ProcId,
    /// For the record.
    pub who: Who,
    /// When it began.
    pub since: Instant,
    /// There was no file when it began.
    pub creates: bool,
    /// How its version will have come.
    pub how: How,
    /// The rules that it began under.
    pub policy: Policy,
    /// The queue knows it; a continuation of an ended one (see [`How::Late`]) holds nobody up.
    pub queued: bool,
    stage: Mutex<Stage>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "session {} of {:?}", self.id.0, self.process)
    }
}

/// Where a session is in its life.
pub enum Stage {
    /// It can be written to.
    Open(Staged),
    /// Its end is being carried out; these wait for it.
    Ending(Vec<EndReply>),
    /// It is over.
    Over(Outcome),
}

/// What a session has staged.
pub struct Staged {
    /// On disk.
    pub shadow: Shadow<RealDisk>,
    /// The version that it started from; `None` for a new file.
    pub base: Option<Arc<std::fs::File>>,
    /// The shadow holds the content. Until then it is empty and the base shows: nothing is copied for an open that only looks.
    pub filled: bool,
    /// There is something to publish.
    pub changed: bool,
    /// Its name was removed by its own lineage: there is nothing to publish to.
    pub unlinked: bool,
    /// A write or sync failed; such content is never published (fsyncgate).
    pub failed: Option<Errno>,
    /// Handles that are open on it for writing.
    pub handles: usize,
    /// Processes known to have used it, besides their descendants.
    pub processes: Vec<u32>,
    /// How the last task that closed a descriptor was leaving.
    pub last_exit: Exit,
}

/// How a session ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Published, or there was nothing to publish. A handle that lives on continues from this content.
    Done {
        /// What the file holds since, for a continuation.
        content: Option<Arc<std::fs::File>>,
        /// Its version.
        version: Option<u64>,
    },
    /// Not published; this is what every later use is told.
    Lost(Errno),
}

impl Session {
    /// A session that is open.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        id: SessionId,
        file: FileKey,
        node: NodeId,
        process: ProcId,
        who: Who,
        how: How,
        policy: Policy,
        queued: bool,
        staged: Staged,
    ) -> Session {
        let creates = staged.base.is_none();
        Session {
            id,
            file,
            node,
            process,
            who,
            since: Instant::now(),
            creates,
            how,
            policy,
            queued,
            stage: Mutex::new(Stage::Open(staged)),
        }
    }

    /// Its stage, locked.
    pub fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock()
    }

    /// Runs `act` on what is staged.
    ///
    /// # Errors
    /// EBUSY while the session is being published, ESTALE when it was discarded; the caller continues one that is [`Outcome::Done`].
    pub fn staged<T>(&self, act: impl FnOnce(&mut Staged) -> Result<T, Errno>) -> Result<T, Errno> {
        match &mut *self.stage.lock() {
            Stage::Open(staged) => act(staged),
            Stage::Ending(_) => Err(Errno::BUSY),
            Stage::Over(Outcome::Lost(errno)) => Err(*errno),
            Stage::Over(Outcome::Done { .. }) => Err(Errno::STALE),
        }
    }

    /// Whether it still can be written to.
    pub fn is_open(&self) -> bool {
        matches!(&*self.stage.lock(), Stage::Open(_))
    }
}

impl Staged {
    /// The descriptor whose content the session sees.
    pub fn content(&self) -> BorrowedFd<'_> {
        match &self.base {
            Some(base) if !self.filled => base.as_fd(),
            _ => self.shadow.file.as_fd(),
        }
    }

    /// What fstat(2) on the session's node shows: the shadow's inode, with the base's size and times while that shows through.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn stat(&self) -> Result<Stat, Errno> {
        let mut stat = rustix::fs::fstat(&self.shadow.file)?;
        if let (Some(base), false) = (&self.base, self.filled) {
            let shown = rustix::fs::fstat(base)?;
            stat.st_size = shown.st_size;
            stat.st_blocks = shown.st_blocks;
            (stat.st_atime, stat.st_atime_nsec) = (shown.st_atime, shown.st_atime_nsec);
            (stat.st_mtime, stat.st_mtime_nsec) = (shown.st_mtime, shown.st_mtime_nsec);
            (stat.st_ctime, stat.st_ctime_nsec) = (shown.st_ctime, shown.st_ctime_nsec);
        }
        Ok(stat)
    }

    /// How much a first change has to copy, in bytes.
    pub fn to_copy(&self) -> u64 {
        match &self.base {
            Some(base) if !self.filled => rustix::fs::fstat(base).map_or(0, |stat| stat.st_size.max(0) as u64),
            _ => 0,
        }
    }

    /// Copies the base into the shadow, if that has not happened yet.
    ///
    /// # Errors
    /// ENOSPC, EDQUOT, EIO; the session can then only be discarded.
    pub fn fill(&mut self, store: &RealStore) -> Result<(), Errno> {
        if let (Some(base), false) = (&self.base, self.filled) {
            store.fill(&self.shadow, base).map_err(|error| self.failed.insert(from_io(&error)).to_owned())?;
        }
        self.filled = true;
        Ok(())
    }

    /// pread(2) of up to `size` bytes.
    ///
    /// # Errors
    /// EIO.
    pub fn read(&self, offset: u64, size: usize) -> Result<Vec<u8>, Errno> {
        read_at(self.content(), offset, size)
    }

    /// pwrite(2) of all of `data`; at the end of the file with `append`.
    ///
    /// # Errors
    /// ENOSPC, EDQUOT, EFBIG, EIO. What was refused here is not in the content; the writer is told and may go on.
    pub fn write(&mut self, store: &RealStore, offset: u64, data: &[u8], append: bool) -> Result<usize, Errno> {
        self.fill(store)?;
        let offset = if append { rustix::fs::fstat(&self.shadow.file)?.st_size.max(0) as u64 } else { offset };
        self.changed = true;
        let mut written = 0;
        while written < data.len() {
            match self.shadow.file.write_at(&data[written..], offset + written as u64) {
                Ok(0) => return if written > 0 { Ok(written) } else { Err(Errno::NOSPC) },
                Ok(count) => written += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) if written > 0 => return Ok(written),
                Err(error) => return Err(from_io(&error)),
            }
        }
        Ok(written)
    }

    /// ftruncate(2). Shortening to nothing copies nothing.
    ///
    /// # Errors
    /// ENOSPC, EFBIG, EIO.
    pub fn set_len(&mut self, store: &RealStore, len: u64) -> Result<(), Errno> {
        if len == 0 {
            self.filled = true;
        }
        self.fill(store)?;
        self.changed = true;
        rustix::fs::ftruncate(&self.shadow.file, len)
    }

    /// fsync(2) or fdatasync(2) of the shadow. A failure is final: the kernel may have dropped what it could not write.
    ///
    /// # Errors
    /// EIO, ENOSPC, EDQUOT.
    pub fn sync(&mut self, data_only: bool) -> Result<(), Errno> {
        if let Some(errno) = self.failed {
            return Err(errno);
        }
        let file = &self.shadow.file;
        let synced = if data_only { rustix::fs::fdatasync(file) } else { rustix::fs::fsync(file) };
        synced.inspect_err(|errno| self.failed = Some(*errno))
    }
}

/// pread(2) until `size` bytes or the end of the file.
///
/// # Errors
/// EIO.
pub fn read_at(fd: BorrowedFd<'_>, offset: u64, size: usize) -> Result<Vec<u8>, Errno> {
    let mut data = vec![0; size];
    let mut length = 0;
    while length < size {
        match rustix::io::pread(fd, &mut data[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(Errno::INTR) => {}
            Err(errno) if length == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    data.truncate(length);
    Ok(data)
}
