//! Histories pruned by sweeps, and what is done on full disks, stopped or failing at every operation.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::disk::Disk;
use super::record::{How, Who};
use super::sim::{Dice, Plan, ROOT, SimDisk};
use super::tests_faults::info;
use super::*;
use crate::session::SessionId;

const DAY: u64 = 24 * 60 * 60 * 1_000_000_000;

fn open(disk: &SimDisk) -> Store<SimDisk> {
    Store::open(disk.clone(), ROOT, 5).unwrap().0
}

fn place(name: &str) -> Place<'_, SimDisk> {
    Place {
        dir: &ROOT,
        name: OsStr::new(name),
        path: Path::new(name),
    }
}

fn save(store: &Store<SimDisk>, name: &str, content: &[u8], now: u64) -> io::Result<()> {
    let disk = store.disk();
    let id = SessionId(now);
    let shadow = match disk.open(&ROOT, OsStr::new(name)) {
        Ok(current) => store.begin(id, Path::new(name), Some(&current), Who::default(), None, now)?,
        Err(_) => store.adopt(id, Path::new(name), disk.tmpfile(), Who::default(), now)?,
    };
    disk.write_at(&shadow.file, content, 0)?;
    let published = store.publish(shadow, &place(name), &info(now));
    published.map(drop).map_err(|error| error.source)
}

fn remove(store: &Store<SimDisk>, name: &str, now: u64) -> Result<(), PublishError> {
    store.remove(&place(name), &Who::default(), &info(now)).map(drop)
}

fn keeping(keep: u32, max_age: Option<u64>) -> Retention {
    Arc::new(move |path: &Path| {
        (path != Path::new("ordinary")).then_some(Retain {
            keep,
            max_age: max_age.map(Duration::from_nanos),
            max_bytes: None,
        })
    })
}

fn sweep(store: &Store<SimDisk>, keep: u32, max_age: Option<u64>, now: u64) {
    store.set_retention(keeping(keep, max_age));
    store.prune_all(now, &|| true);
}

fn numbers(store: &Store<SimDisk>, name: &str) -> Vec<u64> {
    let versions = store.history().versions(Path::new(name)).unwrap();
    versions.iter().map(|entry| entry.record.version).collect()
}

/// What lies below `.concord/history`.
fn pieces(disk: &SimDisk) -> Vec<String> {
    let below = disk
        .tree()
        .into_keys()
        .filter(|path| path.starts_with("/.concord/history/"));
    below.collect()
}

/// `f` with versions 1 to 4; `g`, deleted at 4; `ordinary`, deleted too.
fn start(plan: Plan) -> SimDisk {
    let disk = SimDisk::new();
    let store = open(&disk);
    for now in 1..=4 {
        save(&store, "f", &[now as u8; 3], now).unwrap();
    }
    for name in ["g", "ordinary"] {
        save(&store, name, b"one", 2).unwrap();
        save(&store, name, b"two", 3).unwrap();
        remove(&store, name, 4).unwrap();
    }
    drop(store);
    disk.fork(plan)
}

#[test]
fn a_sweep_keeps_what_the_rules_keep_and_leaves_what_no_rule_names() {
    let disk = start(Plan::Never);
    let store = open(&disk);
    sweep(&store, 20, None, 4 + 29 * DAY);
    assert_eq!(
        (numbers(&store, "f"), numbers(&store, "g")),
        (vec![4, 3, 2, 1], vec![3, 2, 1])
    );
    sweep(&store, 2, None, 4 + 29 * DAY);
    assert_eq!(
        (numbers(&store, "f"), numbers(&store, "g")),
        (vec![4, 3, 2], vec![3, 2, 1])
    );
    // Without a `max_age` only what was deleted goes, whole, after a month.
    sweep(&store, 2, None, 5 + 30 * DAY);
    assert_eq!((numbers(&store, "f"), numbers(&store, "g")), (vec![4, 3, 2], vec![]));
    assert_eq!(numbers(&store, "ordinary"), [3, 2, 1]);
    assert_eq!(pieces(&disk).len(), 1 + 2 * 2 + 2 + 1 + 5 - 1);
    save(&store, "g", b"anew", 6 + 30 * DAY).unwrap();
    assert_eq!(numbers(&store, "g"), [1]);
}

#[test]
fn a_rule_with_a_longer_or_shorter_age_than_a_month_decides_for_deleted_files_too() {
    let disk = start(Plan::Never);
    let store = open(&disk);
    sweep(&store, 20, Some(90 * DAY), 3 + 90 * DAY);
    assert_eq!(numbers(&store, "g"), [3, 2, 1]);
    // Version 1 was replaced earlier than 2, which the removal replaced.
    sweep(&store, 20, Some(DAY), 4 + DAY);
    assert_eq!(numbers(&store, "g"), [3, 2]);
    sweep(&store, 20, Some(DAY), 5 + DAY);
    assert_eq!(numbers(&store, "g"), Vec::<u64>::new());
    assert_eq!(numbers(&store, "f"), [4]);
}

#[test]
fn a_sweep_that_is_told_to_stop_stops() {
    let disk = start(Plan::Never);
    let store = open(&disk);
    store.set_retention(keeping(0, Some(1)));
    let before = pieces(&disk);
    store.prune_all(100, &|| false);
    assert_eq!(pieces(&disk), before);
}

#[test]
fn a_sweep_that_fails_or_stops_anywhere_is_finished_by_the_next_and_the_files_are_as_they_were() {
    let whole = start(Plan::Never);
    sweep(&open(&whole), 1, Some(DAY), 5 + DAY);
    let (opened, end) = {
        let disk = start(Plan::Never);
        let store = open(&disk);
        let opened = disk.ops();
        sweep(&store, 1, Some(DAY), 5 + DAY);
        (opened, disk.ops())
    };
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    for at in opened..end {
        for plan in [Plan::Once(at, libc::EIO), Plan::From(at, libc::EIO)] {
            let disk = start(plan);
            sweep(&open(&disk), 1, Some(DAY), 5 + DAY);
            disk.heal();
            let crashed = disk.after_crash(|_| dice_of(at), &mut dice, Plan::Never);
            for (disk, how) in [(disk, "the daemon"), (crashed, "the machine")] {
                let store = open(&disk);
                assert_eq!(numbers(&store, "f").first(), Some(&4), "{plan:?}, {how}");
                sweep(&store, 1, Some(DAY), 5 + DAY);
                let left = pieces(&disk);
                assert_eq!(left, pieces(&whole), "{plan:?}, {how}");
                save(&store, "g", b"anew", 6 + DAY).unwrap();
                assert_eq!(disk.tree()["/g"], b"anew");
            }
        }
    }
}

/// Some of what was not synced is lost.
fn dice_of(at: u64) -> bool {
    at.is_multiple_of(2)
}

#[test]
fn what_finds_no_room_once_is_done_with_the_room_that_is_kept_for_it() {
    type Change = fn(&Store<SimDisk>) -> Result<(), PublishError>;
    let changes: [(&str, Change); 2] = [
        ("remove", |store| remove(store, "f", 10)),
        ("replace", |store| {
            let options = ReplaceOptions::default();
            let info = info(10);
            store
                .replace(&place("temp"), &place("f"), options, &Who::default(), None, &info)
                .map(drop)
        }),
    ];
    for (name, change) in changes {
        let prepared = |plan| {
            let disk = start(Plan::Never);
            let file = disk.create(&ROOT, OsStr::new("temp")).unwrap();
            disk.write_at(&file, b"temp", 0).unwrap();
            disk.fork(plan)
        };
        let disk = prepared(Plan::Never);
        let store = open(&disk);
        let opened = disk.ops();
        change(&store).unwrap();
        for at in opened..disk.ops() {
            let disk = prepared(Plan::Once(at, libc::ENOSPC));
            let store = open(&disk);
            match change(&store) {
                Ok(()) => assert!(disk.tree().contains_key("/.concord/spare"), "{name} {at}"),
                // A sync that failed is never tried again.
                Err(error) => assert!(
                    matches!(error.stage, Stage::Sync | Stage::DirSync),
                    "{name} {at}: {error}"
                ),
            }
        }
    }
}

#[test]
fn a_save_that_finds_no_room_makes_some_of_what_the_rules_let_go_and_of_nothing_else() {
    let stages = |keep: u32| {
        let disk = start(Plan::Never);
        let store = open(&disk);
        let opened = disk.ops();
        save(&store, "g", b"three", 10).unwrap();
        let mut refused = Vec::new();
        for at in opened..disk.ops() {
            let disk = start(Plan::Once(at, libc::ENOSPC));
            let store = open(&disk);
            store.set_retention(keeping(keep, None));
            let id = SessionId(9);
            let Ok(shadow) = store.adopt(id, Path::new("g"), disk.tmpfile(), Who::default(), 10) else {
                continue;
            };
            if store.disk().write_at(&shadow.file, b"three", 0).is_err() {
                continue;
            }
            let saved = store.publish(shadow, &place("g"), &info(10));
            refused.extend(saved.err().map(|error| error.stage));
            disk.heal();
            let left = if keep < 3 { vec![4] } else { vec![4, 3, 2, 1] };
            assert!(numbers(&store, "f").starts_with(&left), "{at}");
        }
        refused
    };
    let is_final = |stage: &Stage| matches!(stage, Stage::Sync | Stage::DirSync);
    assert!(stages(0).iter().all(is_final), "{:?}", stages(0));
    assert!(!stages(20).iter().all(is_final));
}

#[test]
fn a_removal_without_a_record_gets_one_by_the_next_sweep() {
    let disk = start(Plan::Never);
    let store = open(&disk);
    let opened = disk.ops();
    remove(&store, "f", 10).unwrap();
    // Everything but the renames and unlinks fails, as when no block is free: tried on each operation from which on that is so.
    for at in opened..disk.ops() {
        let disk = start(Plan::Never);
        let store = open(&disk);
        disk.fill(at - opened);
        let removed = remove(&store, "f", 10);
        disk.heal();
        assert!(removed.is_ok(), "{at}: {removed:?}");
        assert!(!disk.tree().contains_key("/f"));
        let store = {
            drop(store);
            open(&disk)
        };
        assert_eq!(numbers(&store, "f").iter().filter(|n| **n <= 4).count(), 4, "{at}");
        sweep(&store, 20, None, 11);
        let newest = &store.history().versions(Path::new("f")).unwrap()[0];
        assert_eq!((newest.record.how, newest.record.version), (How::Unlink, 5), "{at}");
    }
}

#[test]
fn what_takes_the_spare_is_not_written_over_by_who_fills_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = RealDisk::open_root(dir.path()).unwrap();
    let store = Store::open(RealDisk, root, 1).unwrap().0;
    let (spare, taken) = (dir.path().join(".concord/spare"), dir.path().join(".concord/taken"));
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                store.keep_spare();
            }
        });
        let mut took = 0;
        for _ in 0..20_000 {
            if std::fs::rename(&spare, &taken).is_err() {
                continue;
            }
            took += 1;
            std::fs::write(&taken, "what it says").unwrap();
            std::thread::yield_now();
            let found = std::fs::read(&taken).unwrap();
            if found != b"what it says" || took == 500 {
                over.store(true, std::sync::atomic::Ordering::Relaxed);
                assert_eq!(String::from_utf8_lossy(&found), "what it says");
                break;
            }
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn the_last_of_the_spare_is_for_a_change_of_the_configuration() {
    let disk = start(Plan::Never);
    let store = open(&disk);
    let left = || disk.tree().get("/.concord/spare").map_or(0, Vec::len);
    let whole = left();
    let full = || io::Error::from_raw_os_error(libc::ENOSPC);
    let mut lent = Vec::new();
    for path in ["f", "concord.toml"] {
        let spare = super::room::Spare::for_change_of(Path::new(path));
        let tried: io::Result<()> = store.with_room(spare, 10, || {
            lent.push(left());
            Err(full())
        });
        assert!(tried.is_err());
        assert_eq!(left(), whole, "what is not used is kept again");
    }
    assert_eq!(lent, [whole, 28 * 1024, whole, 0]);
}

/// What becomes of a file without a history, wherever from there is no room for anything that takes some, and what a crash then leaves.
#[test]
fn a_file_without_a_history_is_removed_emptied_and_moved_away_without_room_for_one() {
    type Change = fn(&Store<SimDisk>, Shadow<SimDisk>) -> Result<Published, PublishError>;
    let changes: [(&str, Change); 3] = [
        ("remove", |store, _| {
            store.remove(&place("new"), &Who::default(), &info(10))
        }),
        ("empty", |store, shadow| store.publish(shadow, &place("new"), &info(10))),
        ("move away", |store, _| {
            let to = (&ROOT, OsStr::new("elsewhere"));
            store.move_away(&place("new"), to, false, &Who::default(), &info(10))
        }),
    ];
    let prepared = || {
        let disk = start(Plan::Never);
        let file = disk.create(&ROOT, OsStr::new("new")).unwrap();
        disk.write_at(&file, b"never saved", 0).unwrap();
        disk
    };
    let begin = |store: &Store<SimDisk>| {
        let current = store.disk().open(&ROOT, OsStr::new("new")).unwrap();
        let (id, path) = (SessionId(9), Path::new("new"));
        store.begin(id, path, Some(&current), Who::default(), None, 10).unwrap()
    };
    for (name, change) in changes {
        let disk = prepared();
        let store = open(&disk);
        let shadow = begin(&store);
        let opened = disk.ops();
        assert!(!change(&store, shadow).unwrap().unkept, "{name}");
        let mut unkept = 0;
        for after in 0..disk.ops() - opened {
            let disk = prepared();
            let store = open(&disk);
            let shadow = begin(&store);
            disk.fill(after);
            let done = change(&store, shadow);
            disk.heal();
            let done = done.unwrap_or_else(|error| panic!("{name} {after}: {error}"));
            let is_there = |path: &str| disk.tree().get(path).cloned();
            match name {
                "empty" => assert_eq!(is_there("/new").as_deref(), Some(&b""[..]), "{after}"),
                _ => assert_eq!(is_there("/new"), None, "{name} {after}"),
            }
            if name == "move away" {
                assert_eq!(is_there("/elsewhere").as_deref(), Some(&b"never saved"[..]), "{after}");
            }
            unkept += u64::from(done.unkept);
            drop(store);
            let store = open(&disk);
            let holds = |version: &u64| {
                let kept = store.history().open_version(Path::new("new"), *version);
                kept.is_ok_and(|kept| kept.bytes == 11)
            };
            let kept = numbers(&store, "new").iter().any(holds);
            assert_eq!(kept, !done.unkept, "{name} {after}");
            save(&store, "new", b"saved again", 20).unwrap();
        }
        assert!(unkept > 0, "{name}");
    }
}

/// A daemon that died with three files open for writing, one of them emptied only, and while lines were appended to another.
fn died() -> SimDisk {
    let disk = start(Plan::Never);
    for (name, bytes) in [("log", &b"one\n"[..]), ("h", b"h")] {
        let file = disk.create(&ROOT, OsStr::new(name)).unwrap();
        disk.write_at(&file, bytes, 0).unwrap();
    }
    let store = open(&disk);
    for (id, (name, staged)) in [("f", &b"staged f"[..]), ("h", b"staged h"), ("ordinary", b"")]
        .into_iter()
        .enumerate()
    {
        let who = Who {
            pid: 70 + id as u32,
            ..Who::default()
        };
        let shadow = store
            .begin(SessionId(id as u64), Path::new(name), None, who, None, 10)
            .unwrap();
        disk.write_at(&shadow.file, staged, 0).unwrap();
    }
    let log = disk.open_writable(&ROOT, OsStr::new("log")).unwrap();
    let who = Who::default();
    let growth = store.begin_append(SessionId(9), &place("log"), &log, &who, (Durability::Full, 10));
    let growth = growth.unwrap();
    disk.write_at(&log, b"two\n", 4).unwrap();
    store.note_growth(&growth, 8, 4, false).unwrap();
    disk.write_at(&log, &[b'x'; 100_000], 8).unwrap();
    disk.fork(Plan::Never)
}

#[test]
fn a_recovery_without_room_does_what_needs_none_and_leaves_the_rest_for_the_next() {
    let whole = died();
    let opened = Store::open(whole.clone(), ROOT, 20).unwrap().1;
    assert_eq!(opened.items.len(), 3, "{opened:?}");
    let (mut left_any, mut mounted) = (0, 0);
    for after in 0..whole.ops() {
        let disk = died();
        disk.fill(after);
        let first = Store::open(disk.clone(), ROOT, 20);
        let context = format!("no room after {after}");
        let left = match &first {
            // There must not be a part of a line where the next is appended.
            Err(error) => {
                assert!(error.to_string().contains("No space left"), "{context}: {error}");
                Vec::new()
            }
            Ok((_, report)) => {
                mounted += 1;
                assert_eq!(disk.tree()["/log"], b"one\ntwo\n", "{context}");
                report.items.iter().filter(|item| item.action == Action::Left).collect()
            }
        };
        for item in &left {
            left_any += 1;
            assert!(item.path.is_some(), "{context}: {item:?}");
            assert!(
                disk.tree().contains_key(&format!("/.concord/{}", item.at)),
                "{context}: {item:?}"
            );
        }
        drop(first);
        disk.heal();
        let (store, _) = Store::open(disk.clone(), ROOT, 30).unwrap_or_else(|e| panic!("{context}: {e}"));
        let kept = store.history().recovered().unwrap();
        let bytes = |path: &str| -> u64 {
            let of = |entry: &&RecoveredEntry| entry.record.path.as_deref() == Some(path);
            kept.iter()
                .filter(of)
                .map(|entry| disk.tree()[&format!("/.concord/recovered/{}", entry.name)].len() as u64)
                .sum()
        };
        assert_eq!(
            (bytes("f"), bytes("h"), disk.tree()["/log"].len()),
            (8, 8, 8),
            "{context}"
        );
        assert!(bytes("log") >= 100_000, "{context}");
        let knows = |entry: &&RecoveredEntry| entry.record.who.as_ref().is_some_and(|who| [70, 71].contains(&who.pid));
        assert_eq!(kept.iter().filter(knows).count(), 2, "{context}: {kept:?}");
        let shadows = disk
            .tree()
            .into_keys()
            .filter(|path| path.starts_with("/.concord/shadows/"));
        assert_eq!(shadows.collect::<Vec<_>>(), ["/.concord/shadows/journal"], "{context}");
    }
    assert!(left_any > 0 && mounted > 0, "{left_any} {mounted}");
}
