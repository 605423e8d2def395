//! Directories that were renamed. The histories of the files below them stay where they are, under the former paths; `.concord/moves` says
//! which path to look under. One line a rename, however many files there are.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::disk::{Disk, Kind, if_there, read_small};
use super::owners::open_own;
use super::record::{decode_path, encode_path};
use super::{History, JOURNAL_READ_BYTES_MAX, Store};

pub(super) const FILE: &str = "moves";
/// A file longer than this is cut to the newest moves, as many as half of it holds.
pub(super) const MOVES_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// One directory's rename. The two of an exchange have one number.
#[derive(Debug, Clone)]
struct Move {
    number: u64,
    from: PathBuf,
    to: PathBuf,
    time: u64,
}

impl Move {
    fn line(&self) -> io::Result<Vec<u8>> {
        Line {
            number: self.number,
            from: encode_path(&self.from),
            to: encode_path(&self.to),
            time: self.time,
            undone: false,
        }
        .bytes()
    }
}

/// The same as it lies on disk: a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    number: u64,
    from: String,
    to: String,
    /// ns since the epoch.
    time: u64,
    /// The move of this number did not happen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    undone: bool,
}

impl Line {
    fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// All renames of directories that the histories below them outlive.
#[derive(Debug, Default)]
pub(super) struct Moves {
    all: Vec<Move>,
    /// By where it went.
    arrived: HashMap<PathBuf, Vec<usize>>,
    /// By where it had been.
    departed: HashMap<PathBuf, Vec<usize>>,
    next: u64,
    /// Bytes of the file that are whole lines.
    len: u64,
}

/// A directory's way: from, to.
pub type Way<'a> = (&'a Path, &'a Path);

impl Moves {
    /// What the lines say; a torn one at the end is as if it had not been written.
    fn parse(bytes: &[u8]) -> Moves {
        let len = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let mut moves = Moves {
            len: len as u64,
            ..Moves::default()
        };
        let lines = bytes[..len].split(|&b| b == b'\n');
        for line in lines.filter_map(|line| serde_json::from_slice::<Line>(line).ok()) {
            moves.next = moves.next.max(line.number + 1);
            if line.undone {
                moves.all.retain(|found| found.number != line.number);
            } else if let (Some(from), Some(to)) = (decode_path(&line.from), decode_path(&line.to)) {
                let Line { number, time, .. } = line;
                moves.all.push(Move { number, from, to, time });
            }
        }
        moves.index();
        moves
    }

    fn index(&mut self) {
        let all = std::mem::take(&mut self.all);
        (self.arrived, self.departed) = Default::default();
        all.into_iter().for_each(|found| self.add(found));
    }

    fn add(&mut self, found: Move) {
        self.arrived.entry(found.to.clone()).or_default().push(self.all.len());
        self.departed
            .entry(found.from.clone())
            .or_default()
            .push(self.all.len());
        self.all.push(found);
    }

    /// The path that `path` had before the last move, older than number `bound`, that brought it where it is; and that move's number.
    pub fn before(&self, path: &Path, bound: u64) -> Option<(PathBuf, u64)> {
        if self.all.is_empty() {
            return None;
        }
        let arrivals = path.ancestors().skip(1).filter_map(|above| self.arrived.get(above));
        let last = arrivals.filter_map(|moves| moves.iter().rev().map(|at| &self.all[*at]).find(|m| m.number < bound));
        let found = last.max_by_key(|found| found.number)?;
        let below = path.strip_prefix(&found.to).ok()?;
        Some((found.from.join(below), found.number))
    }

    /// The renames of directories above `path`, which took it along.
    fn departures<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a Move> {
        let above = path.ancestors().skip(1).take_while(|_| !self.all.is_empty());
        let left = above.filter_map(|above| self.departed.get(above));
        left.flatten().map(|at| &self.all[*at])
    }

    /// When `path` last left with a directory above it, ns since the epoch.
    pub fn last_left(&self, path: &Path) -> Option<u64> {
        self.departures(path).map(|found| found.time).max()
    }

    /// When what was at `path` at `time` left with a directory above it.
    pub fn left_after(&self, path: &Path, time: u64) -> Option<u64> {
        let times = self.departures(path).map(|found| found.time);
        times.filter(|left| *left >= time).min()
    }

    /// Where what was at `path` at `time` may be by now, the earliest first.
    pub fn after(&self, path: &Path, time: u64) -> Vec<PathBuf> {
        let (mut found, mut known) = (Vec::new(), HashMap::from([(path.to_owned(), 0)]));
        let mut todo = BTreeSet::from([(0, path.to_owned())]);
        while let Some((bound, at)) = todo.pop_first() {
            // Who came there earlier has all ways that who came later has.
            if known[&at] < bound {
                continue;
            }
            let gone = self.departures(&at);
            for gone in gone.filter(|gone| gone.number >= bound && (bound > 0 || gone.time >= time)) {
                let Ok(below) = at.strip_prefix(&gone.from) else {
                    continue;
                };
                let (to, bound) = (gone.to.join(below), gone.number + 1);
                if known.get(&to).is_none_or(|known| bound < *known) {
                    known.insert(to.clone(), bound);
                    todo.insert((bound, to));
                }
            }
            found.push(at);
        }
        found.split_off(1)
    }

    /// Differs when a move has been added meanwhile.
    pub fn state(&self) -> (u64, usize) {
        (self.next, self.all.len())
    }

    /// How many are known.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// The newest moves, as lines, that together have at most `bytes_max` bytes; and how many they are.
    fn newest(&self, bytes_max: u64) -> io::Result<(Vec<u8>, usize)> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        for found in self.all.iter().rev() {
            let line = found.line()?;
            bytes += line.len() as u64;
            if bytes > bytes_max {
                break;
            }
            lines.push(line);
        }
        let count = lines.len();
        lines.reverse();
        Ok((lines.concat(), count))
    }

    /// Whether a history below `path` may lie under another path.
    fn concern(&self, path: &Path) -> bool {
        path.ancestors().any(|above| self.arrived.contains_key(above))
            || self.arrived.keys().any(|to| to.starts_with(path))
    }
}

/// What the owner of the store needs to write moves down.
#[derive(Default)]
pub(super) struct MoveLog {
    /// The paths that have a history; read from disk at the first rename of a directory. Held over that reading, once.
    known: Mutex<Option<BTreeSet<PathBuf>>>,
    /// The order of the lines. Held over the sync of one: renames of directories are few, and only they take it.
    writing: Mutex<()>,
}

impl MoveLog {
    /// A path has a history from now on.
    pub fn met(&self, path: &Path) {
        if let Some(known) = self.known.lock().as_mut() {
            known.insert(path.to_owned());
        }
    }
}

impl<D: Disk> History<D> {
    /// What `.concord/moves` says.
    ///
    /// # Errors
    /// The errno of reading it; ELOOP or InvalidInput when it is no regular file, InvalidData when it is absurdly long.
    pub(super) fn read_moves(disk: &D, home: &D::Dir) -> io::Result<Moves> {
        let bytes = if_there(read_small(disk, home, OsStr::new(FILE), JOURNAL_READ_BYTES_MAX))?;
        Ok(Moves::parse(&bytes.unwrap_or_default()))
    }

    /// The same for the owner of the store: what is not a regular file there is moved to where recovery sets it aside.
    pub(super) fn own_moves(disk: &D, home: &D::Dir, shadows: &D::Dir) -> io::Result<Moves> {
        let name = OsStr::new(FILE);
        if if_there(disk.stat_at(home, name))?.is_some_and(|stat| stat.kind != Kind::File) {
            disk.rename((home, name), (shadows, OsStr::new("moves.bad")))?;
        }
        Self::read_moves(disk, home)
    }
}

impl<D: Disk> Store<D> {
    /// Renames directories by `rename`: the histories of what is below follow, in a time that does not depend on how much that is.
    /// An exchange is two ways. The first call reads which files have histories.
    ///
    /// # Errors
    /// What `rename` returned; ENOSPC, EDQUOT, EIO, EROFS when the move cannot be written down: nothing is renamed then.
    pub fn move_directories<T, E: From<io::Error>>(
        &self,
        ways: &[Way<'_>],
        now: u64,
        rename: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let mut concerned = Vec::new();
        for way in ways {
            if way.0 != way.1 && self.has_history_below(way.0)? {
                concerned.push(*way);
            }
        }
        if concerned.is_empty() {
            return rename();
        }
        let number = self.write_down(&concerned, now)?;
        let renamed = rename();
        match &renamed {
            Ok(_) => self.settle_move(&concerned),
            Err(_) => self.take_back(number),
        }
        renamed
    }

    /// What is published below from now on is written down under the new path: so the directory must not be found at the old one after a
    /// power failure. Best effort, as with any rename of a directory.
    fn settle_move(&self, ways: &[Way<'_>]) {
        let parents = ways.iter().flat_map(|(from, to)| [from, to]);
        for path in parents {
            let synced = self.history.parent_of(path).and_then(|parent| match parent {
                Some(parent) => self.disk().sync_dir(&parent),
                None => Ok(()),
            });
            if let Err(error) = synced {
                log::warn!(
                    "the rename of {} may not survive a power failure: {error}",
                    path.display()
                );
            }
        }
    }

    fn has_history_below(&self, path: &Path) -> io::Result<bool> {
        if self.history.moves.read().concern(path) {
            return Ok(true);
        }
        let mut known = self.move_log.known.lock();
        let known = match &mut *known {
            Some(known) => known,
            none => none.insert(self.history.paths()?.into_iter().collect()),
        };
        // Everything below a directory sorts right after it.
        Ok(known
            .range(path.to_owned()..)
            .find(|found| *found != path)
            .is_some_and(|found| found.starts_with(path)))
    }

    fn write_down(&self, ways: &[Way<'_>], now: u64) -> io::Result<u64> {
        let _writing = self.move_log.writing.lock();
        if self.history.moves.read().len > MOVES_BYTES_MAX {
            self.shorten(MOVES_BYTES_MAX / 2)?;
        }
        let number = self.history.moves.read().next;
        let made = |(from, to): &Way<'_>| Move {
            number,
            from: from.to_path_buf(),
            to: to.to_path_buf(),
            time: now,
        };
        let made: Vec<Move> = ways.iter().map(made).collect();
        let lines: io::Result<Vec<_>> = made.iter().map(Move::line).collect();
        self.append(&lines?.concat(), number)?;
        let mut moves = self.history.moves.write();
        made.into_iter().for_each(|found| moves.add(found));
        Ok(number)
    }

    /// Writes all moves that are known to a new file.
    pub(super) fn rewrite_moves(&self) -> io::Result<()> {
        let _writing = self.move_log.writing.lock();
        self.shorten(u64::MAX)
    }

    /// Forgets the oldest moves, but as many as have so many bytes.
    fn shorten(&self, bytes_max: u64) -> io::Result<()> {
        let (disk, home) = (self.disk(), &self.home);
        let (bytes, count) = self.history.moves.read().newest(bytes_max)?;
        let part = OsStr::new("moves.part");
        if_there(disk.unlink(home, part))?;
        let file = disk.create(home, part)?;
        disk.give(&file, home);
        disk.write_at(&file, &bytes, 0)?;
        disk.sync_file(&file)?;
        disk.rename((home, part), (home, OsStr::new(FILE)))?;
        let mut moves = self.history.moves.write();
        let oldest = moves.all.len() - count;
        moves.all.drain(..oldest);
        moves.index();
        moves.len = bytes.len() as u64;
        Ok(())
    }

    /// Appends lines, which are on disk when this returns.
    fn append(&self, bytes: &[u8], number: u64) -> io::Result<()> {
        let disk = self.disk();
        let len = self.history.moves.read().len;
        let file = open_own(disk, &self.home, OsStr::new(FILE))?;
        let written = disk
            .write_at(&file, bytes, len)
            .and_then(|()| disk.sync_file(&file))
            .and_then(|()| disk.sync_dir(&self.home));
        if written.is_err() {
            // The next line is written over it.
            let _ = disk.set_len(&file, len);
            return written;
        }
        let mut moves = self.history.moves.write();
        moves.len = len + bytes.len() as u64;
        moves.next = moves.next.max(number + 1);
        Ok(())
    }

    /// The move of that number did not happen. Where that cannot be written down, or the machine stopped before, the line has little effect:
    /// no file that is at the new path is one that was at the old one.
    fn take_back(&self, number: u64) {
        let _writing = self.move_log.writing.lock();
        let undone = Line {
            number,
            from: String::new(),
            to: String::new(),
            time: 0,
            undone: true,
        };
        if let Err(error) = undone.bytes().and_then(|line| self.append(&line, number)) {
            log::warn!("cannot note in .concord/moves that a directory was not renamed: {error}");
        }
        let mut moves = self.history.moves.write();
        moves.all.retain(|found| found.number != number);
        moves.index();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moves(text: &[(u64, &str, &str)]) -> Moves {
        let line = |(number, from, to): &(u64, &str, &str)| {
            format!("{{\"number\":{number},\"from\":\"{from}\",\"to\":\"{to}\",\"time\":{number}}}\n")
        };
        Moves::parse(text.iter().map(line).collect::<String>().as_bytes())
    }

    fn origin(moves: &Moves, path: &str) -> Vec<String> {
        let (mut at, mut bound, mut found) = (PathBuf::from(path), u64::MAX, Vec::new());
        while let Some((before, number)) = moves.before(&at, bound) {
            found.push(before.display().to_string());
            (at, bound) = (before, number);
        }
        found
    }

    #[test]
    fn a_path_is_followed_back_through_the_moves_of_all_directories_above_it() {
        let found = moves(&[(1, "a/b", "a/c"), (2, "a", "z"), (3, "z/c", "y")]);
        assert_eq!(origin(&found, "y/x.md"), ["z/c/x.md", "a/c/x.md", "a/b/x.md"]);
        assert_eq!(origin(&found, "z/other/x.md"), ["a/other/x.md"]);
        assert_eq!(origin(&found, "yy/x.md"), Vec::<String>::new());
        assert_eq!(
            origin(&found, "y"),
            Vec::<String>::new(),
            "a directory is not below itself"
        );
    }

    #[test]
    fn a_path_is_followed_on_through_all_moves_that_may_have_taken_its_file_along() {
        let found = moves(&[(1, "a/b", "a/c"), (2, "a", "z"), (3, "z/c", "y"), (4, "a/b", "later")]);
        let after = |path: &str, time| {
            let paths = found.after(Path::new(path), time);
            paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(after("a/b/x", 0), ["a/c/x", "z/b/x", "z/c/x", "y/x", "later/x"]);
        assert_eq!(after("a/b/x", 3), ["later/x"]);
        assert_eq!(after("a/b", 0), ["z/b"], "a directory is not below itself");
        assert_eq!(found.left_after(Path::new("a/b/x"), 2), Some(2));
        assert_eq!(found.left_after(Path::new("a/b/x"), 3), Some(4));
        assert_eq!(found.left_after(Path::new("a/b/x"), 5), None);
        let forth_and_back = moves(&[(1, "a", "b"), (2, "b", "a"), (3, "a", "b"), (4, "b", "a")]);
        let after = forth_and_back.after(Path::new("a/x"), 0);
        assert_eq!(after, [PathBuf::from("b/x")]);
    }

    #[test]
    fn an_exchange_is_two_moves_at_once() {
        let found = moves(&[(1, "a", "b"), (1, "b", "a")]);
        assert_eq!(origin(&found, "a/x"), ["b/x"]);
        assert_eq!(origin(&found, "b/x"), ["a/x"]);
    }

    #[test]
    fn a_move_that_was_undone_and_a_torn_line_count_for_nothing() {
        let text = b"{\"number\":1,\"from\":\"a\",\"to\":\"b\",\"time\":1}\n{\"number\":1,\"from\":\"\",\"to\":\"\",\"time\":0,\"undone\":true}\n{\"number\":2,\"from\":\"a\",\"to\"";
        let found = Moves::parse(text);
        assert_eq!(origin(&found, "b/x"), Vec::<String>::new());
        assert_eq!(found.next, 2);
        assert!(found.len < text.len() as u64);
    }
}
