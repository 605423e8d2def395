//! `shadows/journal`: who began what. Written without waiting for the disk; recovery can do without it, it then only
//! knows less about whose the recovered bytes are.

use std::collections::{HashMap, HashSet};
use std::io;

use super::JOURNAL_COMPACT_BYTES;
use super::disk::Disk;
use super::record::{JournalLine, clip_who, decode_path};

pub(super) struct Journal<D: Disk> {
    file: D::File,
    len: u64,
    open: HashSet<u64>,
}

impl<D: Disk> Journal<D> {
    /// Over a file that recovery will have emptied before the first line is written.
    pub fn new(file: D::File) -> Journal<D> {
        Journal {
            file,
            len: 0,
            open: HashSet::new(),
        }
    }

    /// Notes that a session is open.
    pub fn append(&mut self, disk: &D, line: &JournalLine) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        disk.write_at(&self.file, &bytes, self.len)?;
        self.len += bytes.len() as u64;
        self.open.insert(line.id);
        Ok(())
    }

    /// Recovery is done with what the last owner wrote, but for the sessions that it `left` for the next start.
    pub fn start<'a>(&mut self, disk: &D, left: impl Iterator<Item = &'a JournalLine>) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.open.clear();
        for line in left {
            serde_json::to_writer(&mut bytes, line)?;
            bytes.push(b'\n');
            self.open.insert(line.id);
        }
        // Over what is there, which takes no room on most filesystems.
        if !bytes.is_empty()
            && let Err(error) = disk.write_at(&self.file, &bytes, 0)
        {
            log::warn!("what .concord/shadows/journal says of earlier sessions stays in it: {error}");
            self.len = disk.stat(&self.file)?.size;
            return Ok(());
        }
        self.len = bytes.len() as u64;
        disk.set_len(&self.file, self.len)
    }

    /// Notes that a change of a file without a session is about to begin, so that recovery looks at the file.
    pub fn note(&mut self, disk: &D, line: &JournalLine) -> io::Result<()> {
        self.append(disk, line)?;
        self.end(disk, line.id);
        Ok(())
    }

    /// Notes that a session is over; empties a long journal when it was the last.
    pub fn end(&mut self, disk: &D, id: u64) {
        self.open.remove(&id);
        if self.open.is_empty() && self.len > JOURNAL_COMPACT_BYTES {
            match disk.set_len(&self.file, 0) {
                Ok(()) => self.len = 0,
                Err(error) => log::warn!("cannot empty .concord/shadows/journal: {error}"),
            }
        }
    }
}

/// The lines that can be believed, by session; later lines win. Torn ones are skipped.
pub(super) fn parse(bytes: &[u8]) -> HashMap<u64, JournalLine> {
    bytes
        .split(|&b| b == b'\n')
        .filter_map(|line| serde_json::from_slice::<JournalLine>(line).ok())
        .filter(|line| decode_path(&line.path).is_some())
        .map(|line| {
            (
                line.id,
                JournalLine {
                    who: clip_who(line.who),
                    ..line
                },
            )
        })
        .collect()
}
