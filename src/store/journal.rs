//! `shadows/journal`: who began what. Written without waiting for the disk; recovery can do without it, it then only
//! knows less about whose the recovered bytes are.
//!
//! A long one is emptied when nothing is open, and else written anew with the lines of what is open ([`Store::shorten_journal`]).

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;

use super::disk::{Disk, if_there};
use super::record::{JournalLine, clip_who, decode_path};
use super::{JOURNAL_COMPACT_BYTES, JOURNAL_REWRITE_BYTES, Store};

/// The name in `shadows/`.
pub(super) const FILE: &str = "journal";
/// One that is being written. Recovery removes what a crash leaves of it.
pub(super) const FILE_NEW: &str = "journal.new";
/// How many times longer than what it must hold a journal may be.
const NEEDLESS_FACTOR: u64 = 4;

/// A line of what is not over.
struct OpenLine {
    /// Where it is in the file.
    at: u64,
    bytes: Vec<u8>,
}

pub(super) struct Journal<D: Disk> {
    file: D::File,
    len: u64,
    open: HashMap<u64, OpenLine>,
    /// Of the lines in `open`.
    open_bytes: u64,
    /// A shorter one is being written.
    shortening: bool,
    /// After a failure: the length from which on it is tried again.
    not_before: u64,
}

/// What a shorter journal begins with.
pub(super) struct Shorter {
    bytes: Vec<u8>,
    open: HashMap<u64, OpenLine>,
    /// How long the journal was; what is open and begins after that is not in it yet.
    until: u64,
}

impl<D: Disk> Journal<D> {
    /// Over a file that recovery will have emptied before the first line is written.
    pub fn new(file: D::File) -> Journal<D> {
        Journal {
            file,
            len: 0,
            open: HashMap::new(),
            open_bytes: 0,
            shortening: false,
            not_before: 0,
        }
    }

    /// Notes that a session is open.
    pub fn append(&mut self, disk: &D, line: &JournalLine) -> io::Result<()> {
        let bytes = text_of(line)?;
        disk.write_at(&self.file, &bytes, self.len)?;
        self.know(line.id, bytes);
        Ok(())
    }

    /// The next bytes of the file are this line.
    fn know(&mut self, id: u64, bytes: Vec<u8>) {
        let len = bytes.len() as u64;
        let before = self.open.insert(id, OpenLine { at: self.len, bytes });
        self.open_bytes = self.open_bytes + len - before.map_or(0, |line| line.bytes.len() as u64);
        self.len += len;
    }

    /// Recovery is done with what the last owner wrote, but for the sessions that it `left` for the next start.
    pub fn start<'a>(&mut self, disk: &D, left: impl Iterator<Item = &'a JournalLine>) -> io::Result<()> {
        self.open.clear();
        (self.len, self.open_bytes) = (0, 0);
        let mut all = Vec::new();
        for line in left {
            let bytes = text_of(line)?;
            all.extend_from_slice(&bytes);
            self.know(line.id, bytes);
        }
        // Over what is there, which takes no room on most filesystems.
        if !all.is_empty()
            && let Err(error) = disk.write_at(&self.file, &all, 0)
        {
            log::warn!("what .concord/shadows/journal says of earlier sessions stays in it: {error}");
            self.len = disk.stat(&self.file)?.size;
            return Ok(());
        }
        disk.set_len(&self.file, self.len)
    }

    /// Notes that a session is over: its line is needed no more.
    pub fn end(&mut self, id: u64) {
        if let Some(line) = self.open.remove(&id) {
            self.open_bytes -= line.bytes.len() as u64;
        }
    }

    /// Empties a journal of which nothing is needed, or says what a shorter one begins with; `None` when it is short enough, or that is under way.
    pub(super) fn begin_shortening(&mut self, disk: &D) -> Option<Shorter> {
        if self.shortening || self.len < self.not_before {
            return None;
        }
        if self.open.is_empty() {
            if self.len > JOURNAL_COMPACT_BYTES {
                match disk.set_len(&self.file, 0) {
                    Ok(()) => self.len = 0,
                    Err(error) => self.cannot(&error),
                }
            }
            return None;
        }
        if self.len <= JOURNAL_REWRITE_BYTES.max(self.open_bytes * NEEDLESS_FACTOR) {
            return None;
        }
        self.shortening = true;
        let mut shorter = Shorter {
            bytes: Vec::new(),
            open: HashMap::new(),
            until: self.len,
        };
        for (id, line) in &self.open {
            shorter.take_over(*id, line);
        }
        Some(shorter)
    }

    fn cannot(&mut self, error: &io::Error) {
        self.not_before = self.len + JOURNAL_COMPACT_BYTES;
        log::warn!("cannot shorten .concord/shadows/journal: {error}");
    }
}

impl Shorter {
    fn take_over(&mut self, id: u64, line: &OpenLine) {
        let at = self.bytes.len() as u64;
        let bytes = line.bytes.clone();
        self.bytes.extend_from_slice(&bytes);
        self.open.insert(id, OpenLine { at, bytes });
    }
}

impl<D: Disk> Store<D> {
    /// Notes that a change of a file without a session is about to begin, so that recovery looks at the file.
    pub(super) fn note_line(&self, line: &JournalLine) -> io::Result<Noted<'_, D>> {
        self.journal.lock().append(self.disk(), line)?;
        Ok(Noted {
            store: self,
            id: line.id,
        })
    }

    /// Bounds the journal: see [`JOURNAL_REWRITE_BYTES`]. What is needed of it is on disk before it takes the old one's place, so that nothing of
    /// what the disk knew is lost; no lock is held meanwhile. Where that fails the old one stays in force.
    pub(super) fn shorten_journal(&self) {
        let shorter = self.journal.lock().begin_shortening(self.disk());
        if let Some(shorter) = shorter {
            self.finish_shortening(shorter);
        }
    }

    pub(super) fn finish_shortening(&self, shorter: Shorter) {
        let (disk, shadows) = (self.disk(), &self.shadows);
        let written = if_there(disk.unlink(shadows, OsStr::new(FILE_NEW))).and_then(|_| {
            let file = disk.create(shadows, OsStr::new(FILE_NEW))?;
            disk.give(&file, shadows);
            disk.write_at(&file, &shorter.bytes, 0)?;
            disk.sync_file(&file)?;
            Ok(file)
        });
        let mut journal = self.journal.lock();
        let done = written.and_then(|file| self.take_shorter(&mut journal, shorter, file));
        journal.shortening = false;
        if let Err(error) = done {
            journal.cannot(&error);
            drop(journal);
            // What stays, the next attempt or the next start removes.
            let _ = disk.unlink(shadows, OsStr::new(FILE_NEW));
        }
    }

    /// Adds what began meanwhile, and puts the shorter journal in place.
    fn take_shorter(&self, journal: &mut Journal<D>, mut shorter: Shorter, file: D::File) -> io::Result<()> {
        let (until, synced) = (shorter.until, shorter.bytes.len());
        for (id, line) in journal.open.iter().filter(|(_, line)| line.at >= until) {
            shorter.take_over(*id, line);
        }
        let disk = self.disk();
        if shorter.bytes.len() > synced {
            disk.write_at(&file, &shorter.bytes[synced..], synced as u64)?;
        }
        let name = |name| (&self.shadows, OsStr::new(name));
        disk.rename(name(FILE_NEW), name(FILE))?;
        // What is over by now is only still in the file.
        shorter.open.retain(|id, _| journal.open.contains_key(id));
        journal.file = file;
        journal.len = shorter.bytes.len() as u64;
        journal.open = shorter.open;
        journal.not_before = 0;
        Ok(())
    }

    /// A session is over, and nothing of it is in `shadows/` if that was `removed`: what stays there, the next start deals with, and needs the line.
    pub(super) fn end_line(&self, id: u64, removed: bool) {
        if removed {
            self.journal.lock().end(id);
        }
    }
}

/// That recovery looks at a file, until the change of it is done.
pub(super) struct Noted<'a, D: Disk> {
    store: &'a Store<D>,
    id: u64,
}

impl<D: Disk> Drop for Noted<'_, D> {
    fn drop(&mut self) {
        self.store.journal.lock().end(self.id);
    }
}

fn text_of(line: &JournalLine) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
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
