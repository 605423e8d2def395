//! Images: the versions of files that are written in place, because other names lead to their inodes or their names cannot be exchanged.
//!
//! `images/<inode>.<key>` is a whole copy of what the inode holds, and nobody ever writes to it: readers are given it instead of the inode, whose
//! content changes bit by bit. It counts as long as size and time of modification are the inode's; else the inode was changed by somebody else.
//! `images/<inode>.<key>.<image's inode>` is a version that is to be written into the inode; docs/FORMAT.md has the steps.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;

use parking_lot::{Condvar, Mutex, RwLock};

use super::disk::{Disk, Stat, if_there};
use super::history::Key;
use super::{Place, Store};

/// How often a copy is begun anew when the file changes meanwhile.
const COPIES_MAX: u32 = 8;

/// How often an image is looked for by both of its names.
const OPENS_MAX: u32 = 3;

/// The parts of an image's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageName {
    /// The inode that is written in place.
    pub ino: u64,
    /// The history that the version belongs to.
    pub key: Key,
    /// The image is to be written into the inode, and had this inode itself when that was decided.
    pub pending: Option<u64>,
}

impl ImageName {
    pub fn text(&self) -> OsString {
        let key = self.key.name().to_string_lossy();
        match self.pending {
            Some(own) => format!("{:x}.{key}.{own:x}", self.ino).into(),
            None => format!("{:x}.{key}", self.ino).into(),
        }
    }

    pub fn parse(name: &OsStr) -> Option<ImageName> {
        let mut parts = name.to_str()?.split('.');
        let ino = u64::from_str_radix(parts.next()?, 16).ok()?;
        let key = Key::parse(parts.next()?)?;
        let pending = match parts.next() {
            Some(own) => Some(u64::from_str_radix(own, 16).ok()?),
            None => None,
        };
        let parsed = ImageName { ino, key, pending };
        (parsed.text() == name).then_some(parsed)
    }

    /// The name that it has once the inode holds it.
    pub fn settled(&self) -> ImageName {
        ImageName {
            pending: None,
            ..self.clone()
        }
    }
}

/// What is known of an inode that is written in place.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// What its image is called, or will be; until then it has the settled one of its names.
    pub name: ImageName,
    /// The image's own.
    pub image: Stat,
    /// The inode is just being written, or that failed: it does not count what it holds.
    pub alone: bool,
}

type ToldOfNew<F> = Box<dyn Fn(u64, &F) + Send + Sync>;
type ToldOfEnd<F> = Box<dyn Fn(F) + Send + Sync>;

/// The images of a project. Their table's lock is held over no disk operation.
pub struct Images<D: Disk> {
    disk: D,
    pub(super) dir: D::Dir,
    table: RwLock<HashMap<u64, Known>>,
    making: Mutex<HashSet<u64>>,
    made: Condvar,
    on_new: OnceLock<ToldOfNew<D::File>>,
    on_end: OnceLock<ToldOfEnd<D::File>>,
}

impl<D: Disk> std::fmt::Debug for Images<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").finish_non_exhaustive()
    }
}

impl<D: Disk> Images<D> {
    pub(super) fn new(disk: D, dir: D::Dir) -> Images<D> {
        Images {
            disk,
            dir,
            table: RwLock::default(),
            making: Mutex::default(),
            made: Condvar::new(),
            on_new: OnceLock::new(),
            on_end: OnceLock::new(),
        }
    }

    /// `told` is called with an inode and its first image, before anything is written to the inode: whoever reads the inode reads the image from
    /// then on.
    pub fn on_new(&self, told: impl Fn(u64, &D::File) + Send + Sync + 'static) {
        let _ = self.on_new.set(Box::new(told));
    }

    /// `told` is called with what was an image until now, and is kept by nobody: its inode number may come back for another file once it is dropped.
    pub fn on_end(&self, told: impl Fn(D::File) + Send + Sync + 'static) {
        let _ = self.on_end.set(Box::new(told));
    }

    /// Whether no inode has one.
    pub fn is_empty(&self) -> bool {
        self.table.read().is_empty()
    }

    /// The image of an inode of this size and time of modification, and whether the inode itself does not count just now.
    pub fn of(&self, ino: u64, size: u64, mtime_ns: i64) -> Option<(Stat, bool)> {
        let table = self.table.read();
        let known = table.get(&ino)?;
        let same = known.image.size == size && known.image.mtime_ns == mtime_ns;
        (known.alone || same).then_some((known.image, known.alone))
    }

    /// The inode whose image has this inode number, and whether it does not count just now.
    pub fn inode_of(&self, image: u64) -> Option<(u64, bool)> {
        let table = self.table.read();
        let found = table.iter().find(|(_, known)| known.image.ino == image);
        found.map(|(ino, known)| (*ino, known.alone))
    }

    /// Opens an image by its inode number, for reading.
    ///
    /// # Errors
    /// ESTALE when it is no image any more; EMFILE.
    pub fn open(&self, image: u64) -> io::Result<D::File> {
        let stale = || io::Error::from_raw_os_error(libc::ESTALE);
        let name = |known: &Known| known.name.clone();
        // It may be getting the other name between the two looks.
        for _ in 0..OPENS_MAX {
            let table = self.table.read();
            let known = table.values().find(|known| known.image.ino == image).map(name);
            drop(table);
            let known = known.ok_or_else(stale)?;
            for name in [known.text(), known.settled().text()] {
                if let Some(file) = if_there(self.disk.open(&self.dir, &name))?
                    && self.disk.stat(&file)?.ino == image
                {
                    return Ok(file);
                }
            }
        }
        Err(stale())
    }

    /// The times of an inode were set, not its content: so are its image's. `live` is the inode's file.
    ///
    /// # Errors
    /// Those of futimens(2). The image is then found to be of no use, and made anew.
    pub fn follow_times(&self, live: &D::File) -> io::Result<()> {
        let stat = self.disk.stat(live)?;
        let Some(known) = self.known(stat.ino).filter(|known| known.image.size == stat.size) else {
            return Ok(());
        };
        let image = self.open(known.image.ino)?;
        self.disk.copy_times(live, &image)?;
        let now = self.disk.stat(&image)?;
        if let Some(known) = self.table.write().get_mut(&stat.ino)
            && known.image.ino == now.ino
        {
            known.image = now;
        }
        Ok(())
    }

    pub(super) fn known(&self, ino: u64) -> Option<Known> {
        self.table.read().get(&ino).cloned()
    }

    pub(super) fn know(&self, known: Known) {
        self.table.write().insert(known.name.ino, known);
    }

    /// Whether the inode itself counts from now on.
    pub(super) fn set_alone(&self, ino: u64, alone: bool) {
        if let Some(known) = self.table.write().get_mut(&ino) {
            known.alone = alone;
        }
    }

    /// The inode is not written in place any more.
    pub(super) fn forget(&self, ino: u64) {
        let Some(known) = self.known(ino) else { return };
        let held = self.held(&known);
        self.table.write().remove(&ino);
        if let Err(error) = if_there(self.disk.unlink(&self.dir, &known.name.text())) {
            log::warn!("an image stays in .concord/images until the next start: {error}");
        }
        self.ended(held);
    }

    /// An image that is about to end, for who is to be told of it. Without it the number cannot be told apart from another file's; then it is seen when that is made.
    fn held(&self, known: &Known) -> Option<D::File> {
        self.open(known.image.ino).ok()
    }

    fn ended(&self, held: Option<D::File>) {
        if let (Some(held), Some(told)) = (held, self.on_end.get()) {
            told(held);
        }
    }
}

impl<D: Disk> Store<D> {
    /// The version that `place` leads to, as an image that stays as it is whatever is written to the file. Makes it if there is none, on disk when this returns; costs
    /// a copy then (shared blocks where the filesystem can).
    ///
    /// # Errors
    /// ENOENT; EBUSY when the file does not stop changing; ENOSPC, EDQUOT, EIO.
    pub fn ensure_image(&self, place: &Place<'_, D>) -> io::Result<D::File> {
        let missing = || io::Error::from_raw_os_error(libc::ENOENT);
        let live = self.stat_place(place)?.ok_or_else(missing)?;
        let images = &*self.images;
        let mut making = images.making.lock();
        while !making.insert(live.ino) {
            images.made.wait(&mut making);
        }
        drop(making);
        let result = self.image_of(place);
        images.making.lock().remove(&live.ino);
        images.made.notify_all();
        result
    }

    /// Where the history is of an inode that was written in place.
    pub fn home_of(&self, ino: u64) -> Option<PathBuf> {
        self.path_of(&self.images.known(ino)?.name.key, None)
    }

    fn image_of(&self, place: &Place<'_, D>) -> io::Result<D::File> {
        let (disk, images) = (self.disk(), &*self.images);
        for _ in 0..COPIES_MAX {
            let live = disk.open(place.dir, place.name)?;
            let before = disk.stat(&live)?;
            if let Some((image, _)) = images.of(before.ino, before.size, before.mtime_ns) {
                return images.open(image.ino);
            }
            let name = ImageName {
                ino: before.ino,
                key: Key::of(place.path),
                pending: None,
            };
            let known = images.known(before.ino);
            let useless = known.as_ref().and_then(|known| images.held(known));
            let image = self.copy_image(&live, &name)?;
            let (copied, after) = (disk.stat(&image)?, disk.stat(&live)?);
            if (copied.size, copied.mtime_ns) != (after.size, after.mtime_ns) || before.mtime_ns != after.mtime_ns {
                continue;
            }
            let stale = known.filter(|known| known.name != name);
            images.know(Known {
                name,
                image: copied,
                alone: false,
            });
            if let Some(told) = images.on_new.get() {
                told(before.ino, &image);
            }
            if let Some(stale) = stale {
                if_there(disk.unlink(&images.dir, &stale.name.text()))?;
            }
            images.ended(useless);
            return Ok(image);
        }
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    }

    /// A copy under this name, whole and on disk.
    fn copy_image(&self, live: &D::File, name: &ImageName) -> io::Result<D::File> {
        let (disk, dir) = (self.disk(), &self.images.dir);
        let name = name.text();
        let mut part = name.clone();
        part.push(".part");
        if_there(disk.unlink(dir, &part))?;
        let image = disk.create(dir, &part)?;
        let copied = disk
            .copy_content(live, &image)
            .and_then(|()| disk.copy_meta(live, &image, None))
            .and_then(|()| disk.copy_times(live, &image))
            .and_then(|()| disk.sync_file(&image))
            .and_then(|()| disk.rename((dir, &part), (dir, &name)));
        if copied.is_err() {
            let _ = disk.unlink(dir, &part);
        }
        copied.map(|()| image)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn an_image_s_name_says_whose_it_is_and_whether_it_is_still_to_be_written() {
        let settled = ImageName {
            ino: 0x1f,
            key: Key::of(Path::new("a/b.md")),
            pending: None,
        };
        let pending = ImageName {
            pending: Some(0xab),
            ..settled.clone()
        };
        for name in [&settled, &pending] {
            assert_eq!(ImageName::parse(&name.text()).as_ref(), Some(name));
        }
        assert_eq!(pending.settled(), settled);
        for text in ["", "1f", "1f.b", "x.00", "1f.part", "journal"] {
            assert_eq!(ImageName::parse(OsStr::new(text)), None, "{text}");
        }
    }
}
