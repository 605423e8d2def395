//! Opening `.concord/`: its layout, its format number, its lock.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::disk::{Disk, Kind, if_there, read_small};
use super::files::Files;
use super::images::Images;
use super::journal::{self, Journal};
use super::moves::MoveLog;
use super::owners::{self, open_own};
use super::record::JournalLine;
use super::room::{Room, SPARE, SPARE_PART, Spare, is_full};
use super::{FORMAT_NUMBER, History, JOURNAL_READ_BYTES_MAX, RecoveryReport, STORE_DIR, Store, StoreError};
use crate::os::proc;

const FORMAT_BYTES_MAX: u64 = 256;
/// Without lengths of appended lines ([`super::Growth`]).
const FORMAT_WITHOUT_GROWTH: u32 = 1;
/// Without `images/`.
const FORMAT_BEFORE: u32 = 2;
const LOCK_BYTES_MAX: u64 = 64;
/// How long a daemon that was killed may take to let go of its lock.
const DYING_HOLDER_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a store that is to be taken away may still be somebody's.
const UNMAKE_WAIT_MAX: Duration = Duration::from_secs(2);
/// What there may be in a store whose making was cut short before it had a `format`.
const UNFINISHED: [&str; 6] = ["lock", "shadows", "history", "images", "recovered", "format.part"];

/// What else is in a store that was just made.
const MADE_FILES: [&str; 5] = ["format", "format.part", SPARE, SPARE_PART, "lock"];

impl<D: Disk> Store<D> {
    /// Opens the store of the project whose backing root is `root`, making it where there is none, takes its lock, and
    /// recovers what the last owner left. `now` is in ns since the epoch.
    ///
    /// # Errors
    /// See [`StoreError`]. A store of a newer format, or something that is no store, is left as it is.
    pub fn open(disk: D, root: D::Dir, now: u64) -> Result<(Store<D>, RecoveryReport), StoreError> {
        let made = made_dir(&disk, &root, OsStr::new(STORE_DIR), "")?;
        match Self::open_there(disk.clone(), root.clone(), now) {
            Ok((store, report)) => Ok((store, RecoveryReport { made, ..report })),
            Err(error) => {
                let error = of_another(&disk, &root, error);
                if made {
                    Self::unmake(disk, &root);
                }
                Err(error)
            }
        }
    }

    /// Takes a store away again that was made for nothing: one that nobody has, and in which nothing is kept.
    pub fn unmake(disk: D, root: &D::Dir) {
        let removed = disk.open_dir(root, OsStr::new(STORE_DIR)).and_then(|home| {
            let started = Instant::now();
            // Where there is no room for it nobody else has it either. A thread of ours may still have to let go of it.
            let _lock = loop {
                match take_lock(&disk, &home) {
                    Err(StoreError::Locked { .. }) if started.elapsed() < UNMAKE_WAIT_MAX => {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    Err(StoreError::Locked { .. }) => return Ok(()),
                    lock => break lock,
                }
            };
            for name in ["history", "recovered", "images"] {
                if_there(disk.remove_dir(&home, OsStr::new(name)))?;
            }
            if let Some(shadows) = if_there(disk.open_dir(&home, OsStr::new("shadows")))? {
                if_there(disk.unlink(&shadows, OsStr::new("journal")))?;
                disk.remove_dir(&home, OsStr::new("shadows"))?;
            }
            for name in MADE_FILES {
                if_there(disk.unlink(&home, OsStr::new(name)))?;
            }
            disk.remove_dir(root, OsStr::new(STORE_DIR))
        });
        if let Err(error) = removed {
            log::debug!("{STORE_DIR} stays, although nothing was mounted: {error}");
        }
    }

    fn open_there(disk: D, root: D::Dir, now: u64) -> Result<(Store<D>, RecoveryReport), StoreError> {
        let home = own_dir(&disk, &root, OsStr::new(STORE_DIR), "")?;
        let formatted = check_format(&disk, &home)? && is_given(&disk, &home, OsStr::new("format"));
        let lock = take_lock(&disk, &home)?;
        let shadows = own_dir(&disk, &home, OsStr::new("shadows"), "shadows")?;
        let files = own_dir(&disk, &home, OsStr::new("history"), "history")?;
        let images = own_dir(&disk, &home, OsStr::new("images"), "images")?;
        let recovered = own_dir(&disk, &home, OsStr::new("recovered"), "recovered")?;
        if !formatted {
            write_format(&disk, &home, &root).map_err(StoreError::io("write", "format"))?;
        }
        let moves_are_given = is_given(&disk, &home, OsStr::new(super::moves::FILE));
        let moves = History::own_moves(&disk, &home, &shadows).map_err(StoreError::io("read", "moves"))?;
        let history = History {
            moves: RwLock::new(moves),
            disk,
            root,
            files,
            recovered,
            images: Some(images.clone()),
        };
        let (journal, lines) =
            open_journal(&history.disk, &shadows).map_err(StoreError::io("open", "shadows/journal"))?;
        let store = Store {
            home,
            images: Arc::new(Images::new(history.disk.clone(), images)),
            mounting: history.disk.mounting(&shadows),
            shadows,
            ready: Mutex::default(),
            journal: Mutex::new(Journal::new(journal)),
            files: Files::new(),
            written: Mutex::default(),
            recovered: Mutex::default(),
            pruned: parking_lot::Mutex::default(),
            move_log: MoveLog::default(),
            followed: Mutex::default(),
            room: Room::default(),
            serial: AtomicU64::new(0),
            _lock: lock,
            history,
        };
        let mended = store.mend_owners().and_then(|()| match moves_are_given {
            true => Ok(()),
            false => store.rewrite_moves(),
        });
        mended.map_err(StoreError::io("give its owner what is in", ""))?;
        let mut report = RecoveryReport::default();
        store
            .with_room(Spare::Records, now, || store.recover(&lines, &mut report, now))
            .map_err(StoreError::io("recover what is in", ""))?;
        store.keep_spare();
        Ok((store, report))
    }
}

/// An error that comes of what is another user's there, told as such.
fn of_another<D: Disk>(disk: &D, root: &D::Dir, error: StoreError) -> StoreError {
    let denied = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM));
    let found = match &error {
        StoreError::Io { source, .. } if denied(source) => owners::anothers(disk, root),
        _ => None,
    };
    found.map_or(error, |(path, user)| StoreError::Anothers {
        problem: owners::whose(&path, user),
    })
}

/// Whether the directory was not there yet.
fn made_dir<D: Disk>(disk: &D, dir: &D::Dir, name: &OsStr, path: &str) -> Result<bool, StoreError> {
    match disk.make_dir(dir, name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        made => made.map(|()| true).map_err(StoreError::io("make", path)),
    }
}

fn own_dir<D: Disk>(disk: &D, dir: &D::Dir, name: &OsStr, path: &str) -> Result<D::Dir, StoreError> {
    made_dir(disk, dir, name, path)?;
    let made = disk
        .open_dir(dir, name)
        .map_err(StoreError::io("open the directory", path))?;
    disk.restrict_dir(&made, dir)
        .map_err(StoreError::io("close to others", path))?;
    // Whose the store is decides who made it.
    if name != STORE_DIR {
        disk.give_dir(&made, dir);
    }
    Ok(made)
}

/// Whether a file there is the directory's owner's; one that is not there is.
fn is_given<D: Disk>(disk: &D, dir: &D::Dir, name: &OsStr) -> bool {
    disk.open(dir, name).map_or(true, |file| disk.is_given(&file, dir))
}

/// `Ok(false)` when there is no format yet, or an older one, which is to be overwritten.
fn check_format<D: Disk>(disk: &D, home: &D::Dir) -> Result<bool, StoreError> {
    let not = |problem: String| Err(StoreError::NotAStore { problem });
    let bytes = match if_there(read_small(disk, home, OsStr::new("format"), FORMAT_BYTES_MAX)) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            let entries = disk.list(home).map_err(StoreError::io("list", ""))?;
            return match entries.iter().find(|e| !UNFINISHED.iter().any(|name| e.name == *name)) {
                Some(entry) => not(format!("it has no `format`, but holds {:?}", entry.name)),
                None => Ok(false),
            };
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(StoreError::io("read", "format")(error));
        }
        Err(error) => return not(format!("its `format` cannot be read: {error}")),
    };
    let text = String::from_utf8_lossy(&bytes);
    match text
        .strip_prefix("concordfs ")
        .and_then(|rest| rest.strip_suffix('\n'))
        .map(str::parse::<u32>)
    {
        Some(Ok(FORMAT_NUMBER)) => Ok(true),
        // Everything in it means the same now; it becomes one of this format.
        Some(Ok(FORMAT_WITHOUT_GROWTH | FORMAT_BEFORE)) => Ok(false),
        Some(Ok(found)) if found > FORMAT_NUMBER => Err(StoreError::NewerFormat {
            found,
            known: FORMAT_NUMBER,
        }),
        _ => not(format!("its `format` says {text:?}, not \"concordfs {FORMAT_NUMBER}\"")),
    }
}

/// For those who only read: what a later concordfs wrote may mean something else.
pub(super) fn refuse_newer<D: Disk>(disk: &D, home: &D::Dir) -> Result<(), StoreError> {
    match check_format(disk, home) {
        Err(error @ StoreError::NewerFormat { .. }) => Err(error),
        _ => Ok(()),
    }
}

/// On disk before anything else is put into the store.
fn write_format<D: Disk>(disk: &D, home: &D::Dir, root: &D::Dir) -> io::Result<()> {
    let part = OsStr::new("format.part");
    if_there(disk.unlink(home, part))?;
    let file = disk.create(home, part)?;
    disk.give(&file, home);
    disk.write_at(&file, format!("concordfs {FORMAT_NUMBER}\n").as_bytes(), 0)?;
    disk.sync_file(&file)?;
    disk.rename((home, part), (home, OsStr::new("format")))?;
    disk.sync_dir(home)?;
    disk.sync_dir(root)
}

fn take_lock<D: Disk>(disk: &D, home: &D::Dir) -> Result<D::File, StoreError> {
    let name = OsStr::new("lock");
    let lock = open_own(disk, home, name).map_err(StoreError::io("open", "lock"))?;
    let started = Instant::now();
    let locked = loop {
        if disk.try_lock(&lock).map_err(StoreError::io("lock", "lock"))? {
            break true;
        }
        // A daemon that was killed keeps its lock until the last of its threads is back from the disk.
        let ending = holder(disk, home).parse().is_ok_and(proc::is_ending);
        if !ending || started.elapsed() > DYING_HOLDER_WAIT_MAX {
            break false;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    if locked {
        let pid = format!("{}\n", proc::own_pid().unwrap_or_default());
        let written = disk
            .set_len(&lock, 0)
            .and_then(|()| disk.write_at(&lock, pid.as_bytes(), 0))
            .and_then(|()| disk.stat(&lock));
        return match written {
            // It tells others who has the lock, no more.
            Err(error) if is_full(&error) => Ok(lock),
            Err(error) => Err(StoreError::io("write", "lock")(error)),
            Ok(stat) => {
                // By now nothing else is in it, whatever the store's owner may have given this name.
                if stat.nlink == 1 {
                    disk.give(&lock, home);
                }
                Ok(lock)
            }
        };
    }
    Err(StoreError::Locked {
        holder: holder(disk, home),
    })
}

/// The process id in the lock file; empty when there is none.
fn holder<D: Disk>(disk: &D, home: &D::Dir) -> String {
    let bytes = read_small(disk, home, OsStr::new("lock"), LOCK_BYTES_MAX).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .chars()
        .filter(char::is_ascii_digit)
        .collect()
}

/// The journal and what it says. What is not a regular file there is renamed, for recovery to set aside.
fn open_journal<D: Disk>(disk: &D, shadows: &D::Dir) -> io::Result<(D::File, HashMap<u64, JournalLine>)> {
    let name = OsStr::new(journal::FILE);
    if if_there(disk.stat_at(shadows, name))?.is_some_and(|stat| stat.kind != Kind::File) {
        disk.rename((shadows, name), (shadows, OsStr::new("journal.bad")))?;
    }
    let journal = open_own(disk, shadows, name)?;
    let lines = match read_small(disk, shadows, name, JOURNAL_READ_BYTES_MAX) {
        Ok(bytes) => journal::parse(&bytes),
        // Absurdly long. It is only a help for recovery.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => HashMap::new(),
        Err(error) => return Err(error),
    };
    if disk.is_given(&journal, shadows) {
        return Ok((journal, lines));
    }
    let part = OsStr::new(journal::FILE_NEW);
    if_there(disk.unlink(shadows, part))?;
    let given = disk.create(shadows, part)?;
    disk.give(&given, shadows);
    let mut bytes = Vec::new();
    for line in lines.values() {
        bytes.extend(serde_json::to_vec(line)?);
        bytes.push(b'\n');
    }
    disk.write_at(&given, &bytes, 0)?;
    disk.rename((shadows, part), (shadows, name))?;
    Ok((given, lines))
}
