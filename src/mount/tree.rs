//! The backing tree, and how a node is reached in it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::{Errno, Result};

use super::attr;
use super::dirs::DirCache;
use super::handles::Handles;
use super::mapped::Mapped;
use super::nodes::{Identity, Name, NodeId, NodeTable, ROOT};
use super::notices::{News, Notices, Silence};
use super::pin::Pin;
use super::unkept::Unkept;
use super::workers::Workers;
use crate::os::creds::{self, Assumed};
use crate::store::{Images, RealDisk};

/// The store's folder in the root: shown to who asks for it by name, never listed, never changed through the mount.
pub const STORE: &str = ".concord";

/// First opens of one inode exclude each other by its stripe.
const STRIPES: usize = 64;

/// Everything the operations share. The operations themselves are grouped by subject in the files next to this one.
///
/// Lock order: `opening`, `names`, the node table, the directory cache. `names` is never taken twice by one thread: functions
/// that need it to be held take a [`NamesHeld`].
#[derive(Debug)]
pub struct Tree {
    root: Arc<OwnedFd>,
    pub(super) nodes: NodeTable,
    dirs: Arc<DirCache>,
    pub(super) handles: Handles,
    pub(super) workers: Workers,
    /// Held for reading while a node is reached by its name, for writing while a name changes on disk and in the table.
    names: RwLock<()>,
    opening: Vec<Mutex<()>>,
    pub(super) shared_backing: bool,
    /// The kernel takes passthrough, and has not refused us yet.
    pub(super) passthrough: AtomicBool,
    owner: u32,
    notifier: OnceLock<fuser::Notifier>,
    notices: OnceLock<Notices>,
    /// What the kernel must keep nothing of for now.
    pub unkept: Arc<Unkept>,
    images: OnceLock<Arc<Images<RealDisk>>>,
    /// What may change without the kernel.
    pub(super) mapped: Mapped,
}

/// Proof that no name changes meanwhile.
pub type NamesHeld<'a> = RwLockReadGuard<'a, ()>;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Thread id (kernel-facts, 3).
    pub tid: u32,
}

impl Caller {
    /// The serving thread makes files as the caller, with the caller's umask, until the guard is dropped.
    pub fn assume(self, mode: u32, umask: u32) -> Result<Assumed> {
        creds::set_thread_umask(umask).map_err(|error| super::errno::from_io(&error))?;
        const S_ISGID: u32 = 0o2000;
        Ok(if mode & S_ISGID != 0 {
            Assumed::user_with_groups(self.uid, self.gid, self.tid)
        } else {
            Assumed::user(self.uid, self.gid)
        })
    }

    /// Runs `work`, which changes the data or the owner of a file: root keeps its set-id bits, everybody else loses them as by a call of his own.
    pub fn changes<T>(self, file: impl AsFd, work: impl FnOnce() -> T) -> T {
        if self.uid == 0 { work() } else { self.clears(file, work) }
    }

    /// The same where the kernel has said that the caller loses them, who may be root without CAP_FSETID.
    pub fn clears<T>(self, file: impl AsFd, work: impl FnOnce() -> T) -> T {
        creds::clearing_set_id(self.gid, self.tid, file.as_fd(), work)
    }
}

/// A descriptor of a node's inode, perhaps `O_PATH`.
#[derive(Debug)]
pub enum Anchor {
    /// What its open handles share.
    Pinned(Arc<Pin>),
    /// A cached directory.
    Cached(Arc<OwnedFd>),
    /// Opened for this one operation.
    Own(OwnedFd),
}

impl AsFd for Anchor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Anchor::Pinned(pin) => pin.fd(),
            Anchor::Cached(fd) => fd.as_fd(),
            Anchor::Own(fd) => fd.as_fd(),
        }
    }
}

impl Tree {
    /// A tree with only its root known.
    pub fn new(backing: OwnedFd, shared_backing: bool, descriptors_max: usize) -> Result<Tree> {
        let stat = rustix::fs::fstat(&backing)?;
        if attr::kind(stat.st_mode) != fuser::FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        let dirs = Arc::new(DirCache::new((descriptors_max / 16).clamp(32, 1024)));
        Ok(Tree {
            root: Arc::new(backing),
            nodes: NodeTable::new(attr::identity(&stat, false), Arc::clone(&dirs)),
            dirs,
            handles: Handles::default(),
            workers: Workers::new(),
            names: RwLock::new(()),
            opening: (0..STRIPES).map(|_| Mutex::new(())).collect(),
            shared_backing,
            passthrough: AtomicBool::new(false),
            owner: rustix::process::geteuid().as_raw(),
            notifier: OnceLock::new(),
            notices: OnceLock::new(),
            unkept: Arc::default(),
            images: OnceLock::new(),
            mapped: Mapped::default(),
        })
    }

    /// By which watchers are told what the kernel does not tell them.
    pub fn set_notices(&self, notices: Notices) {
        let _ = self.notices.set(notices);
    }

    /// Tells watchers (inotify(7)) of what a path leads to, which is relative to the root.
    pub fn tell_watchers(&self, path: PathBuf, news: News) {
        if let Some(notices) = self.notices.get() {
            notices.tell(path, news);
        }
    }

    /// See [`Notices::begin`].
    pub fn mounted(&self) {
        if let Some(notices) = self.notices.get() {
            notices.begin();
        }
    }

    /// Whether a request only tells watchers: see [`Notices`].
    pub fn is_teller(&self, tid: u32) -> bool {
        self.notices.get().is_some_and(|notices| notices.is_teller(tid))
    }

    /// See [`Notices::silence`]; `None` also where nobody is told of anything.
    pub fn silence(&self, at_most: Duration) -> Option<Silence<'_>> {
        self.notices.get()?.silence(at_most)
    }

    /// By which the kernel can be told what it would not notice.
    pub fn set_notifier(&self, notifier: fuser::Notifier) {
        let _ = self.notifier.set(notifier);
    }

    /// By which a node is known to stand for the image of a file.
    pub fn set_images(&self, images: Arc<Images<RealDisk>>) {
        let _ = self.images.set(images);
    }

    /// The inode whose image a node stands for; what goes by name, all metadata, is the inode's. `None` also while the inode itself does not count.
    fn imaged(&self, identity: &Identity) -> Option<u64> {
        let images = self.images.get().filter(|images| !images.is_empty())?;
        let (ino, alone) = images.inode_of(identity.ino).filter(|_| !identity.private)?;
        (!alone).then_some(ino)
    }

    /// Whether the kernel may remember attributes of a node: not those of a file that others change by other nodes.
    pub fn is_image(&self, id: NodeId) -> bool {
        let images = self.images.get().filter(|images| !images.is_empty());
        let identity = self.nodes.identity(id);
        images
            .zip(identity)
            .is_some_and(|(images, identity)| images.inode_of(identity.ino).is_some())
    }

    /// A directory changed without the kernel: it forgets the directory's list and attributes. Waits for nothing that a request can hold.
    pub fn changed_behind(&self, id: NodeId) {
        let told = self
            .notifier
            .get()
            .map(|notifier| notifier.inval_inode(fuser::INodeNo(id.0), 0, 0));
        if let Some(Err(error)) = told {
            // ENOENT: the kernel does not know the directory any more.
            log::debug!("the kernel was not told of a new name: {error}");
        }
    }

    /// A node's attributes are others than the kernel has been told. Waits for nothing that a request can hold.
    pub fn attributes_changed(&self, id: NodeId) {
        // A negative offset: the attributes alone, no pages.
        if let Some(notifier) = self.notifier.get()
            && let Err(error) = notifier.inval_inode(fuser::INodeNo(id.0), -1, 0)
        {
            log::debug!("the kernel was not told of new attributes: {error}");
        }
    }

    /// The kernel gives us what was stored through mappings of a node, as writes, and waits for our answers: not for a thread that reads requests, nor when nobody does.
    pub fn write_back(&self, id: NodeId) {
        if let Some(notifier) = self.notifier.get()
            && let Err(error) = notifier.inval_inode(fuser::INodeNo(id.0), 0, 0)
        {
            // ENOENT: it does not know the node any more. ENODEV: the mount is gone.
            log::debug!("the kernel did not write back what was stored through mappings: {error}");
        }
    }

    /// The kernel drops what pages it has of a node from an offset on. Waits for those that are being read: not for a thread that reads requests.
    pub fn drop_pages(&self, id: NodeId, from: u64) {
        if let Some(notifier) = self.notifier.get()
            && let Err(error) = notifier.inval_inode(fuser::INodeNo(id.0), from as i64, 0)
        {
            log::debug!("the kernel was not told of new content: {error}");
        }
    }

    /// A node's file is longer than the kernel counts, which asks nobody before sendfile(2) and copy_file_range(2): it is told where the file ends, by its last byte.
    /// Waits as [`Tree::drop_pages`] does.
    pub fn tell_longer(&self, id: NodeId, (last, byte): (u64, u8)) {
        if let Some(notifier) = self.notifier.get()
            && let Err(error) = notifier.store(fuser::INodeNo(id.0), last, &[byte])
        {
            log::debug!("the kernel was not told how long a file is: {error}");
        }
    }

    /// No name changes while this is held.
    pub fn hold_names(&self) -> NamesHeld<'_> {
        self.names.read()
    }

    /// A name is about to change: nobody may reach a node by name meanwhile.
    pub fn change_names(&self) -> parking_lot::RwLockWriteGuard<'_, ()> {
        self.names.write()
    }

    /// Only one thread at a time makes the pin of an inode.
    pub fn opening(&self, id: NodeId) -> parking_lot::MutexGuard<'_, ()> {
        self.opening[id.0 as usize % STRIPES].lock()
    }

    /// How long the kernel may remember a node's attributes and names.
    pub fn ttl(&self, private: bool) -> Duration {
        match (private, self.shared_backing) {
            (true, _) => Duration::ZERO,
            (false, true) => attr::TTL_SHARED,
            (false, false) => attr::TTL_SOLE_WAY,
        }
    }

    /// The same for a node's entry or attributes with this stat: set-id bits are asked for each time ([`attr::has_set_id`]), and directories at which somebody is to wait; what may be mapped is
    /// so every second ([`Mapped`]).
    pub fn attr_ttl(&self, id: NodeId, private: bool, stat: &Stat) -> Duration {
        if attr::has_set_id(stat) || self.unkept.has_directory(&attr::identity(stat, private)) {
            Duration::ZERO
        } else if self.mapped.may_be(id, Instant::now()) {
            self.ttl(private).min(attr::TTL_SHARED)
        } else {
            self.ttl(private)
        }
    }

    /// Whether anybody has a node open, or the kernel passes the daemon by for what it stood for.
    pub fn is_open(&self, id: NodeId) -> bool {
        self.nodes.open_pin(id).is_some() || self.handles.passes_by(id)
    }

    /// The inode of a node; ESTALE when the kernel names one that we do not know.
    pub fn identity(&self, id: NodeId) -> Result<Identity> {
        self.nodes.identity(id).ok_or(Errno::STALE)
    }

    /// Whether `name` in `parent` belongs to the store.
    pub fn is_private(&self, parent: NodeId, name: &OsStr) -> Result<bool> {
        Ok((parent == ROOT && name == STORE) || self.identity(parent)?.private)
    }

    /// EROFS for what would change the store.
    pub fn refuse_private(&self, parent: NodeId, name: &OsStr) -> Result<()> {
        if self.is_private(parent, name)? {
            Err(Errno::ROFS)
        } else {
            Ok(())
        }
    }

    /// Whether the store's folder exists for this caller.
    pub fn may_see_store(&self, caller: Caller) -> bool {
        caller.uid == 0 || caller.uid == self.owner
    }

    /// A descriptor of a directory (`O_PATH` except perhaps the root's), reached from the nearest cached ancestor.
    pub fn reach(&self, _held: &NamesHeld<'_>, id: NodeId) -> Result<Arc<OwnedFd>> {
        if id == ROOT {
            return Ok(Arc::clone(&self.root));
        }
        if let Some(fd) = self.dirs.get(id) {
            return Ok(fd);
        }
        let cached = |at| {
            if at == ROOT {
                Some(Arc::clone(&self.root))
            } else {
                self.dirs.get(at)
            }
        };
        let Some((mut fd, missing)) = self.nodes.chain(id, cached) else {
            return Err(Errno::STALE);
        };
        for (at, name) in missing {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next = rustix::fs::openat(&fd, &*name, flags, Mode::empty()).map_err(stale)?;
            if self.shared_backing {
                self.verify(at, &rustix::fs::fstat(&next)?)?;
            }
            fd = Arc::new(next);
            self.dirs.insert(at, Arc::clone(&fd));
        }
        Ok(fd)
    }

    /// A descriptor of any node's inode, for what needs no more than `O_PATH`.
    pub fn anchor(&self, id: NodeId) -> Result<Anchor> {
        if id == ROOT {
            return Ok(Anchor::Cached(Arc::clone(&self.root)));
        }
        let held = self.hold_names();
        let info = self.nodes.info(id).ok_or(Errno::STALE)?;
        if let Some(pin) = info.pin
            && self.imaged(&info.identity).is_none()
        {
            return Ok(Anchor::Pinned(pin));
        }
        if info.kind == fuser::FileType::Directory {
            return self.reach(&held, id).map(Anchor::Cached);
        }
        self.by_name(&held, id, &info.names, |dir, name| {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
            let stat = rustix::fs::fstat(&fd)?;
            Ok((fd, stat))
        })
        .map(|(fd, _)| Anchor::Own(fd))
    }

    /// stat(2) of a node.
    pub fn stat(&self, id: NodeId) -> Result<Stat> {
        if id == ROOT {
            return rustix::fs::fstat(&self.root);
        }
        let held = self.hold_names();
        let info = self.nodes.info(id).ok_or(Errno::STALE)?;
        let image = self.imaged(&info.identity);
        if let Some(pin) = info.pin
            && image.is_none()
        {
            return rustix::fs::fstat(pin.fd());
        }
        if let (None, Some(images)) = (image, self.images.get().filter(|images| !images.is_empty()))
            && images.inode_of(info.identity.ino).is_some()
            && let Ok(file) = images.open(info.identity.ino)
        {
            return rustix::fs::fstat(file);
        }
        if let Some(dir) = self.dirs.get(id) {
            return rustix::fs::fstat(dir);
        }
        self.by_name(&held, id, &info.names, |dir, name| {
            let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok((stat, stat))
        })
        .map(|(stat, _)| stat)
    }

    /// Tries a node's names until one leads to its inode; `attempt` returns a stat of what it found.
    pub fn by_name<T>(
        &self,
        held: &NamesHeld<'_>,
        id: NodeId,
        names: &[Name],
        mut attempt: impl FnMut(&OwnedFd, &OsStr) -> Result<(T, Stat)>,
    ) -> Result<(T, Stat)> {
        let mut error = Errno::STALE;
        for name in names {
            let tried = self.reach(held, name.parent).and_then(|dir| attempt(&dir, &name.name));
            match tried.and_then(|found| self.verify(id, &found.1).map(|()| found)) {
                Ok(found) => return Ok(found),
                Err(Errno::STALE | Errno::NOENT) => {}
                Err(other) => error = other,
            }
        }
        Err(error)
    }

    fn verify(&self, id: NodeId, stat: &Stat) -> Result<()> {
        let identity = self.identity(id)?;
        let found = attr::identity(stat, identity.private);
        let by_image = || self.imaged(&identity) == Some(found.ino) && found.dev == identity.dev;
        if found == identity || by_image() {
            Ok(())
        } else {
            Err(Errno::STALE)
        }
    }
}

/// A name that should be there and is not: somebody else changed the tree.
fn stale(error: Errno) -> Errno {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Errno::STALE,
        error => error,
    }
}
