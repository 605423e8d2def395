//! Whether a kept content is still what was published: by the size, and the hash where there is one, that its record tells.

use std::io;
use std::path::{Path, PathBuf};

use super::History;
use super::disk::Disk;
use super::history::{Kept, Key};

const HASH_CHUNK_BYTES: usize = 64 * 1024;
/// A version that is being replaced, or grown over, just now may be opened as what it is by then.
const LOOKS_MAX: u32 = 3;

/// A content that is not what was published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("version {version} is damaged: {what}; copy what is left of it from .concord/{}", lies.display())]
pub struct Damaged {
    /// From 1.
    pub version: u64,
    /// How it differs.
    pub what: String,
    /// Where it is, below `.concord/`; a directory where it is not known more exactly.
    pub lies: PathBuf,
}

impl<D: Disk> History<D> {
    /// [`History::open_version`] of what has not changed since it was published. What the file holds now is what it is.
    ///
    /// # Errors
    /// The outer ones are those of [`History::open_version`] and of reading it.
    pub fn open_intact(&self, path: &Path, version: u64) -> io::Result<Result<Kept<D::File>, Damaged>> {
        let mut looks = 0;
        loop {
            let kept = self.open_version(path, version)?;
            let Some(what) = self.difference(path, version, &kept)? else {
                return Ok(Ok(kept));
            };
            looks += 1;
            if looks == LOOKS_MAX {
                let lies = self.lies_at(path, version)?;
                return Ok(Err(Damaged { version, what, lies }));
            }
        }
    }

    fn difference(&self, path: &Path, version: u64, kept: &Kept<D::File>) -> io::Result<Option<String>> {
        let entries = self.versions(path)?;
        let listed = entries.into_iter().find(|entry| entry.record.version == version);
        let Some(entry) = listed.filter(|entry| !entry.current && !entry.record.growing) else {
            return Ok(None);
        };
        let (published, found) = (entry.record.bytes, kept.bytes);
        if published != found {
            return Ok(Some(format!("it has {found} bytes, and had {published}")));
        }
        let Some(hash) = entry.record.hash else {
            return Ok(None);
        };
        let same = self.hash_of(kept)? == hash;
        Ok((!same).then(|| format!("its {found} bytes are not those that were published")))
    }

    fn hash_of(&self, kept: &Kept<D::File>) -> io::Result<String> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; HASH_CHUNK_BYTES];
        let mut at = 0;
        while at < kept.bytes {
            let wanted = buffer
                .len()
                .min(usize::try_from(kept.bytes - at).unwrap_or(buffer.len()));
            match self.disk.read_at(&kept.file, &mut buffer[..wanted], at)? {
                0 => break,
                count => {
                    hasher.update(&buffer[..count]);
                    at += count as u64;
                }
            }
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    fn lies_at(&self, path: &Path, version: u64) -> io::Result<PathBuf> {
        let path = &*self.home(path)?;
        let (_, own) = self.own_segment(path)?;
        let host = own.host(version).filter(|host| own.scan.contents.contains_key(host));
        let key = Key::of(path);
        let histories = PathBuf::from("history");
        Ok(match host {
            Some(host) => histories.join(key.fan()).join(key.name()).join(host.to_string()),
            None => histories,
        })
    }
}
