//! Versions as writers have seen them. A file may have another name by the time that its writer publishes, where the same version has another number.

use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Disk, Stat};
use super::files::FileHistory;
use super::record::Identity;
use super::{Place, Store};

/// A version of a file that somebody has read, or means to replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The file's path then, relative to the project.
    pub path: PathBuf,
    /// Its number in the history of that path.
    pub version: u64,
    /// The file that it was in.
    pub(super) identity: Option<Identity>,
}

impl<D: Disk> Store<D> {
    /// The version that an open file of `path` is, if it is the current one.
    ///
    /// # Errors
    /// As [`Store::current_version`].
    pub fn version_of(&self, path: &Path, file: &D::File) -> io::Result<Option<Seen>> {
        self.seen(path, &self.disk().stat(file)?)
    }

    /// The current version of a place; `None` when there is no file.
    ///
    /// # Errors
    /// As [`Store::current_version`].
    pub fn version_at(&self, place: &Place<'_, D>) -> io::Result<Option<Seen>> {
        match self.stat_place(place)? {
            Some(stat) => self.seen(place.path, &stat),
            None => Ok(None),
        }
    }

    /// The version that was made of a staged content.
    pub fn published_as(&self, path: PathBuf, version: u64, content: &D::File) -> Seen {
        Seen {
            identity: self.disk().stat(content).ok().map(|stat| Identity::of(&stat)),
            path,
            version,
        }
    }

    fn seen(&self, path: &Path, stat: &Stat) -> io::Result<Option<Seen>> {
        let version = self.current_version(path, stat)?;
        Ok(version.map(|version| Seen {
            path: path.to_owned(),
            version,
            identity: Some(Identity::of(stat)),
        }))
    }

    /// The version of `place`'s history that a writer has seen. `live` is the file that it replaces, which is version `replaced`.
    pub(super) fn seen_at(
        &self,
        place: &Place<'_, D>,
        history: &FileHistory<D>,
        seen: &Seen,
        (live, replaced): (Option<&Stat>, Option<u64>),
    ) -> io::Result<Option<u64>> {
        if seen.path == place.path {
            return Ok(Some(seen.version));
        }
        if let Some(live) = live
            && seen.identity.is_some_and(|identity| identity.is(live))
        {
            return Ok(replaced);
        }
        self.history
            .number_under(place.path, &history.records, (&seen.path, seen.version))
    }
}
