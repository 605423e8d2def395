//! The publish into an inode that other names lead to, or whose name cannot be exchanged (contract W11): the staged content becomes the image of the
//! new version, and the inode is made to hold it. docs/FORMAT.md has the steps.

use std::ffi::OsString;
use std::io;

use super::disk::{Disk, Stat, if_there};
use super::error::{At, at};
use super::files::FileHistory;
use super::history::Key;
use super::images::{ImageName, Known};
use super::publish::Commit;
use super::record::Identity;
use super::{Place, PublishInfo, Shadow, Stage, Store};
use crate::rules::Durability;

/// What says that a name cannot be exchanged where it is, while its file may well be written to: a directory that the daemon may not change, a file that is a mount
/// point (rename(2)).
const FORBIDDEN: [i32; 5] = [libc::EACCES, libc::EPERM, libc::EROFS, libc::EXDEV, libc::EBUSY];

/// The identity that `staged` has once its content and times are those of the inode `live`.
pub(super) fn identity_in(live: &Stat, staged: &Stat) -> Identity {
    Identity {
        dev: live.dev,
        ino: live.ino,
        ..Identity::of(staged)
    }
}

impl<D: Disk> Store<D> {
    /// Makes the shadow the image that the inode is to hold, which is the commit, and writes it there. When that fails the version before is
    /// written there again. `published` is set where neither could be done: the next start goes on then.
    pub(super) fn commit_in_place(
        &self,
        shadow: &Shadow<D>,
        place: &Place<'_, D>,
        info: &PublishInfo,
        history: &mut FileHistory<D>,
        (live, before): (&Stat, &Known),
        published: &mut bool,
    ) -> Result<Commit, At> {
        let (disk, images) = (self.disk(), &*self.images);
        let target = disk.open_writable(place.dir, place.name).map_err(at(Stage::Commit))?;
        if disk.stat(&target).map_err(at(Stage::Look))?.ino != live.ino {
            return Ok(Commit::Raced);
        }
        // Its owner and mode may have been changed since: the version has those that it had last.
        let old = disk.open(&images.dir, &before.name.text()).map_err(at(Stage::Keep))?;
        disk.copy_meta(&target, &old, None).map_err(at(Stage::Keep))?;
        if info.durability != Durability::Fast {
            self.root_history(history).map_err(at(Stage::Sync))?;
            // What is to be put back should this fail.
            disk.sync_dir(&images.dir).map_err(at(Stage::Sync))?;
            disk.sync_file(&shadow.file).map_err(at(Stage::Sync))?;
        }
        let staged = disk.stat(&shadow.file).map_err(at(Stage::Look))?;
        let pending = ImageName {
            ino: live.ino,
            key: Key::of(place.path),
            pending: Some(staged.ino),
        };
        let staged = Known {
            name: pending.clone(),
            image: staged,
            alone: true,
        };
        images.set_alone(live.ino, true);
        let (from, to) = (shadow.name.text(), pending.text());
        if let Err(error) = disk.rename_noreplace((&self.shadows, &from), (&images.dir, &to)) {
            images.set_alone(live.ino, false);
            return Err(At(Stage::Commit, error));
        }
        let synced = match info.durability {
            Durability::Fast => Ok(()),
            // Before the first byte: what it is overwritten with must outlive a crash.
            _ => disk.sync_dir(&images.dir).map_err(at(Stage::Sync)),
        };
        let written = synced.and_then(|()| {
            let write = self.write_into(&shadow.file, &target, info.durability);
            write.map_err(at(Stage::Write))
        });
        match written {
            Ok(()) => {
                images.know(staged);
                Ok(Commit::Done)
            }
            Err(failed) => {
                *published = !self.put_back(before, &pending, &from, &target, info.durability);
                if *published {
                    images.know(staged);
                }
                Err(failed)
            }
        }
    }

    /// Whether a file whose name could not be exchanged can be written in place instead. Images are told by inode numbers, so it must be on their filesystem.
    pub(super) fn may_write_in_place(&self, shadow: &Shadow<D>, live: Option<&Stat>, error: &io::Error) -> bool {
        let forbidden = error.raw_os_error().is_some_and(|errno| FORBIDDEN.contains(&errno));
        let staged = self.disk().stat(&shadow.file);
        forbidden
            && live
                .zip(staged.ok())
                .is_some_and(|(live, staged)| live.dev == staged.dev)
    }

    /// The image of the version that is about to be replaced, under its settled name.
    pub(super) fn settled_image(&self, live: &Stat) -> io::Result<Known> {
        let gone = || io::Error::from_raw_os_error(libc::ESTALE);
        let mut known = self.images.known(live.ino).ok_or_else(gone)?;
        if known.name.pending.is_some() {
            // The step after an earlier commit failed.
            let dir = &self.images.dir;
            let settled = known.name.settled();
            if_there(self.disk().rename((dir, &known.name.text()), (dir, &settled.text())))?;
            known.name = settled;
            self.images.know(known.clone());
        }
        Ok(known)
    }

    /// Makes an inode hold what an image holds: content, owner, mode, attributes and times. May be repeated.
    pub(super) fn write_into(&self, image: &D::File, target: &D::File, durability: Durability) -> io::Result<()> {
        let disk = self.disk();
        disk.overwrite(image, target)?;
        disk.copy_meta(image, target, None)?;
        disk.copy_times(image, target)?;
        if durability != Durability::Fast {
            disk.sync_file(target)?;
        }
        Ok(())
    }

    /// The new version could not be written into the inode. One exchange makes the version before the one that is to be there; then it is written back, and
    /// the staged content gets its own name again. `false`: the disk refuses even that, and the new version stays the one that is to be there.
    fn put_back(
        &self,
        before: &Known,
        pending: &ImageName,
        shadow: &OsString,
        target: &D::File,
        durability: Durability,
    ) -> bool {
        let (disk, images) = (self.disk(), &*self.images);
        let (old, new) = (before.name.text(), pending.text());
        let returned = Known {
            name: pending.clone(),
            ..before.clone()
        };
        // Before it has that name: who looks for it meanwhile finds it by either.
        images.know(Known {
            alone: true,
            ..returned.clone()
        });
        if let Err(error) = disk.exchange((&images.dir, &old), (&images.dir, &new)) {
            log::error!("a file that could not be written in place is written at the next start: {error}");
            return false;
        }
        let _ = disk.sync_dir(&images.dir);
        if let Err(error) = disk.rename_noreplace((&images.dir, &old), (&self.shadows, shadow)) {
            log::error!("what was staged stays in .concord/images until the next start: {error}");
        }
        let restored = disk
            .open(&images.dir, &new)
            .and_then(|image| self.write_into(&image, target, durability));
        match restored {
            Ok(()) => {
                images.know(returned.clone());
                if self.settle_image(&returned, durability).is_err() {
                    log::warn!("an image in .concord/images is written once more at the next start");
                }
            }
            Err(error) => log::error!(
                "the version before could not be written back in place ({error}): the mount shows it, and the next start writes it"
            ),
        }
        true
    }

    /// The inode holds the image: it gets its settled name, so that nobody writes it again.
    fn settle_image(&self, known: &Known, durability: Durability) -> io::Result<()> {
        let (disk, images) = (self.disk(), &*self.images);
        let settled = known.name.settled();
        disk.rename((&images.dir, &known.name.text()), (&images.dir, &settled.text()))?;
        images.know(Known {
            name: settled,
            alone: false,
            ..known.clone()
        });
        if durability != Durability::Fast {
            // Else a power failure could bring the name back, and with it this version over a later one.
            disk.sync_dir(&images.dir)?;
        }
        Ok(())
    }

    /// After the commit: the image of the replaced version goes to the history, and that of the new one is settled. What fails here the next
    /// start does.
    pub(super) fn store_image(
        &self,
        live: &Stat,
        old: &Known,
        history: &mut FileHistory<D>,
        version: u64,
        durability: Durability,
    ) -> io::Result<()> {
        let from = old.name.text();
        let from = (&self.images.dir, from.as_os_str());
        // No copy: nobody writes to an image, whatever other names it has.
        let image = Stat { nlink: 1, ..old.image };
        self.store_content(from, history, version, &image)?;
        match self.images.known(live.ino) {
            Some(known) => self.settle_image(&known, durability),
            None => Ok(()),
        }
    }
}
