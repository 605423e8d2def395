//! An append, stopped and failing at every operation, followed by recovery.

use super::super::sim::{Dice, Plan, ROOT, SimDisk};
use super::super::tests_faults::info;
use super::*;
use crate::store::StoreError;

const BEFORE: &[u8] = b"one\n";
const LINES: [&[u8]; 2] = [b"two\n", b"three\n"];
const CRASHES_PER_STOP: u64 = 24;

fn place() -> Place<'static, SimDisk> {
    Place {
        dir: &ROOT,
        name: OsStr::new("f"),
        path: Path::new("f"),
    }
}

fn open(disk: &SimDisk) -> Result<Store<SimDisk>, StoreError> {
    Store::open(disk.clone(), ROOT, 5).map(|(store, _)| store)
}

/// How much was committed, and how much of it was synced, when it stopped.
#[derive(Debug, Clone, Copy, Default)]
struct Came {
    committed: usize,
    synced: usize,
}

fn append(store: &Store<SimDisk>, came: &mut Came) -> io::Result<()> {
    let disk = store.disk();
    *came = Came {
        committed: BEFORE.len(),
        synced: BEFORE.len(),
    };
    let file = disk.open_writable(&ROOT, OsStr::new("f"))?;
    let growth = store.begin_append(SessionId(7), &place(), &file, &Who::default(), (Durability::Full, 10))?;
    for line in LINES {
        let end = came.committed + line.len();
        disk.write_at(&file, line, came.committed as u64)?;
        store.note_growth(&growth, end as u64, came.synced as u64, false)?;
        came.committed = end;
        disk.sync_file(&file)?;
        came.synced = end;
    }
    store.end_append(growth, &place(), &info(12))
}

fn start(plan: Plan) -> SimDisk {
    let disk = SimDisk::new();
    let file = disk.create(&ROOT, OsStr::new("f")).unwrap();
    disk.write_at(&file, BEFORE, 0).unwrap();
    drop(open(&disk).unwrap());
    disk.fork(plan)
}

/// As if the machine had been started again: the entries were written in another boot.
fn reboot(disk: &SimDisk) {
    let store = disk.open_dir(&ROOT, OsStr::new(".concord")).unwrap();
    let Ok(shadows) = disk.open_dir(&store, OsStr::new("shadows")) else {
        return;
    };
    for entry in disk.list(&shadows).unwrap() {
        let bytes = read_small(disk, &shadows, &entry.name, RECORD_BYTES_MAX).unwrap();
        let progress = unseal(&bytes)
            .ok()
            .and_then(|json| serde_json::from_slice::<Progress>(json).ok());
        if let Some(progress) = progress {
            let other = Progress {
                boot: "another boot".into(),
                ..progress
            };
            let file = disk.open_writable(&shadows, &entry.name).unwrap();
            disk.set_len(&file, 0).unwrap();
            disk.write_at(&file, &seal(&other).unwrap(), 0).unwrap();
        }
    }
}

fn content(disk: &SimDisk, file: &<SimDisk as Disk>::File, bytes: u64) -> Vec<u8> {
    let mut buffer = vec![0; 4096];
    let n = disk.read_at(file, &mut buffer, 0).unwrap();
    buffer.truncate(n.min(bytes as usize));
    buffer
}

/// Recovers: the file holds whole lines, at least those that `at_least` counts the bytes of, and every version listed can be read.
fn check(disk: &SimDisk, at_least: usize, crashed: bool, context: &str) {
    let store = open(disk).unwrap_or_else(|e| panic!("{context}: {e}"));
    let all = [BEFORE, LINES[0], LINES[1]].concat();
    let live = disk.tree()["/f"].clone();
    assert!(
        all.starts_with(&live) && live.ends_with(b"\n"),
        "{context}: f holds {live:?}"
    );
    assert!(
        live.len() >= at_least,
        "{context}: {at_least} bytes were acknowledged, f holds {live:?}"
    );
    let versions = store.history().versions(Path::new("f")).unwrap();
    assert!(versions[0].current, "{context}: {versions:?}");
    assert!(
        crashed || versions.iter().all(|v| !v.record.growing),
        "{context}: {versions:?}"
    );
    for version in &versions {
        let kept = store.history().open_version(Path::new("f"), version.record.version);
        let kept = kept.unwrap_or_else(|e| panic!("{context}: {version:?}: {e}"));
        let held = content(disk, &kept.file, kept.bytes);
        assert!(
            all.starts_with(&held) && held.ends_with(b"\n"),
            "{context}: {version:?} is {held:?}"
        );
        assert_eq!(version.record.bytes, held.len() as u64, "{context}: {version:?}");
    }
    for name in disk.tree().keys().filter(|name| name.starts_with("/.concord/shadows/")) {
        assert_eq!(name, "/.concord/shadows/journal", "{context}");
    }
    drop(store);
    let (_, again) = Store::open(disk.clone(), ROOT, 6).unwrap();
    assert_eq!(again.items, vec![], "{context}: a second recovery finds something");
}

#[test]
fn wherever_an_append_stops_the_file_holds_whole_lines_and_no_acknowledged_one_is_lost() {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let whole = start(Plan::Never);
    let store = open(&whole).unwrap();
    let opened = whole.ops();
    append(&store, &mut Came::default()).unwrap();
    let end = whole.ops();
    drop(store);
    check(
        &whole,
        BEFORE.len() + LINES[0].len() + LINES[1].len(),
        false,
        "not stopped",
    );
    for at in opened..=end {
        let disk = start(Plan::From(at, libc::EIO));
        let mut came = Came::default();
        let store = open(&disk).unwrap();
        let _ = append(&store, &mut came);
        drop(store);
        let context = format!("stopped at {at} of {end}");
        check(
            &disk.fork(Plan::Never),
            came.committed,
            false,
            &format!("{context}, the daemon only"),
        );
        let all = 1u64.checked_shl(disk.pending() as u32).unwrap_or(u64::MAX);
        for n in 0..all.min(CRASHES_PER_STOP) {
            let mask = if all <= CRASHES_PER_STOP { n } else { dice.roll(all) };
            let crashed = disk.after_crash(|i| mask >> (i % 64) & 1 == 1, &mut dice, Plan::Never);
            let remounted = crashed.fork(Plan::Never);
            check(
                &remounted,
                came.synced,
                true,
                &format!("{context}, kept {mask:b}, the disk only"),
            );
            reboot(&crashed);
            check(&crashed, came.synced, true, &format!("{context}, kept {mask:b}"));
        }
    }
}

#[test]
fn what_was_cut_short_is_cut_off_and_kept() {
    let disk = start(Plan::Never);
    let store = open(&disk).unwrap();
    let file = disk.open_writable(&ROOT, OsStr::new("f")).unwrap();
    let growth = store
        .begin_append(SessionId(7), &place(), &file, &Who::default(), (Durability::Full, 10))
        .unwrap();
    disk.write_at(&file, b"two\n", 4).unwrap();
    store.note_growth(&growth, 8, 4, false).unwrap();
    disk.write_at(&file, b"three\nfo", 8).unwrap();
    drop(store);
    let rebooted = disk.fork(Plan::Never);
    reboot(&rebooted);
    for (disk, kept, cut) in [
        (disk.fork(Plan::Never), &b"one\ntwo\n"[..], &b"three\nfo"[..]),
        (rebooted, b"one\ntwo\nthree\n", b"fo"),
    ] {
        let (store, report) = Store::open(disk.clone(), ROOT, 5).unwrap();
        assert_eq!(disk.tree()["/f"], kept);
        assert_eq!(report.items.len(), 1);
        let entries = store.history().recovered().unwrap();
        let file = store.history().open_recovered(&entries[0].name).unwrap();
        assert_eq!(content(&disk, &file, 100), cut);
        assert_eq!(entries[0].record.path.as_deref(), Some("f"));
    }
}

/// Appends lines in a stay that goes on.
fn grow(store: &Store<SimDisk>, growth: &Growth<SimDisk>, bytes: &[u8]) {
    let disk = store.disk();
    let file = disk.open_writable(&ROOT, OsStr::new("f")).unwrap();
    let end = disk.stat(&file).unwrap().size;
    disk.write_at(&file, bytes, end).unwrap();
    let end = end + bytes.len() as u64;
    store.note_growth(growth, end, end, false).unwrap();
}

fn begin(store: &Store<SimDisk>, now: u64) -> Growth<SimDisk> {
    let file = store.disk().open_writable(&ROOT, OsStr::new("f")).unwrap();
    let (id, who) = (SessionId(now), Who::default());
    store
        .begin_append(id, &place(), &file, &who, (Durability::Full, now))
        .unwrap()
}

#[test]
fn a_version_is_as_long_as_when_its_record_was_read_although_lines_were_appended_since() {
    let disk = start(Plan::Never);
    let store = open(&disk).unwrap();
    let (history, path) = (store.history(), Path::new("f"));
    let length = |lineage: &_, version| {
        let kept = history.open_in(lineage, version, false).unwrap();
        kept.map(|kept| kept.bytes)
    };
    let growth = begin(&store, 10);
    grow(&store, &growth, b"two\n");
    let growing = history.lineage(path).unwrap();
    grow(&store, &growth, b"three\n");
    assert_eq!(length(&growing, 2), Some(8));
    store.end_append(growth, &place(), &info(12)).unwrap();
    let settled = history.lineage(path).unwrap();
    let growth = begin(&store, 20);
    grow(&store, &growth, b"four\n");
    assert_eq!(length(&settled, 2), Some(14));
    assert_eq!(history.open_version(path, 2).unwrap().bytes, 14);
    store.end_append(growth, &place(), &info(22)).unwrap();
}

#[test]
fn records_that_were_read_while_their_file_grew_are_read_again() {
    let disk = start(Plan::Never);
    let store = open(&disk).unwrap();
    let (history, path) = (store.history(), Path::new("f"));
    let growth = begin(&store, 10);
    grow(&store, &growth, b"two\n");
    let read = history.own_segment_once(path).unwrap();
    assert!(history.belongs_together(path, &read).unwrap());
    store.end_append(growth, &place(), &info(12)).unwrap();
    assert!(!history.belongs_together(path, &read).unwrap());
    let before = history.own_segment_once(path).unwrap();
    assert!(history.belongs_together(path, &before).unwrap());
}

#[test]
fn a_version_that_is_pruned_is_not_the_whole_of_the_file_that_begins_with_it() {
    let disk = start(Plan::Never);
    let store = open(&disk).unwrap();
    for now in [10, 20] {
        let growth = begin(&store, now);
        grow(&store, &growth, b"more\n");
        store.end_append(growth, &place(), &info(now + 2)).unwrap();
    }
    let (history, path) = (store.history(), Path::new("f"));
    let key = Key::of(path);
    let dir = history.open_key(&key).unwrap().unwrap();
    assert_eq!(history.open_version(path, 2).unwrap().bytes, 9);
    // Its record goes first: all else of it is in the file of version 3.
    disk.unlink(&dir, OsStr::new("2.json")).unwrap();
    let error = history.open_version(path, 2).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
}
