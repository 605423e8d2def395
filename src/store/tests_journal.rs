//! The journal stays short while a session is open, and what recovery needs of it is there wherever the shortening stops or fails.

use std::ffi::OsStr;
use std::path::Path;

use super::disk::Disk;
use super::record::{RecoveredKind, Who};
use super::sim::{Dice, Plan, ROOT, SimDisk};
use super::tests_faults::info;
use super::*;
use crate::session::SessionId;

const STAGED: &[u8] = b"what the idle program has written";
const HELD: u64 = 7;
const PATH: &str = "/.concord/shadows/journal";
/// A journal that is shortened whenever that is worth it is no longer than this.
const LEN_MAX: u64 = JOURNAL_REWRITE_BYTES + 64 * 1024;

fn open(disk: &SimDisk) -> Store<SimDisk> {
    Store::open(disk.clone(), ROOT, 5).unwrap().0
}

/// Who says much: few lines make a long journal.
fn talkative() -> Who {
    Who {
        command: "x".repeat(record::TEXT_BYTES_MAX),
        agent: Some("x".repeat(record::TEXT_BYTES_MAX)),
        ..Who::default()
    }
}

/// A program that holds `held` open for writing: version 1 was what it began with.
fn hold(store: &Store<SimDisk>) -> Shadow<SimDisk> {
    let disk = store.disk();
    let file = disk.create(&ROOT, OsStr::new("held")).unwrap();
    let seen = Some(store.published_as("held".into(), 1, &file));
    let who = Who {
        pid: 70,
        ..Who::default()
    };
    let id = SessionId(HELD);
    let shadow = store.begin(id, Path::new("held"), Some(&file), who, seen, 10).unwrap();
    disk.write_at(&shadow.file, STAGED, 0).unwrap();
    shadow
}

/// A program that begins and publishes nothing.
fn look_in(store: &Store<SimDisk>, id: u64) {
    let (id, path) = (SessionId(id), Path::new("other"));
    let shadow = store.begin(id, path, None, talkative(), None, 10).unwrap();
    store.drop_unwritten(shadow).unwrap();
}

fn len(disk: &SimDisk) -> u64 {
    disk.tree()[PATH].len() as u64
}

/// A store whose journal is just long enough to be written anew, all that is there being on disk; one session is open.
fn grown(plan: Plan) -> (SimDisk, Store<SimDisk>, Shadow<SimDisk>) {
    let disk = SimDisk::new().fork(plan);
    let store = open(&disk);
    let shadow = hold(&store);
    let mut id = 100;
    while len(&disk) <= JOURNAL_REWRITE_BYTES {
        look_in(&store, id);
        id += 1;
    }
    let journal = disk.open(&store.shadows, OsStr::new("journal")).unwrap();
    disk.sync_file(&journal).unwrap();
    disk.sync_file(&shadow.file).unwrap();
    for dir in [&ROOT, &store.home, &store.shadows] {
        disk.sync_dir(dir).unwrap();
    }
    (disk, store, shadow)
}

/// The next start knows all of what was staged.
fn check(disk: &SimDisk, context: &str) {
    let store = open(disk);
    let kept = store.history().recovered().unwrap();
    let of = |path: &str| kept.iter().find(|entry| entry.record.path.as_deref() == Some(path));
    let held = of("held").unwrap_or_else(|| panic!("{context}: {kept:?}"));
    assert_eq!(held.record.kind, RecoveredKind::Staged, "{context}");
    assert_eq!(held.record.who.as_ref().map(|who| who.pid), Some(70), "{context}");
    assert_eq!(held.record.based_on, Some(1), "{context}");
    let shadows = disk
        .tree()
        .into_keys()
        .filter(|name| name.starts_with("/.concord/shadows/"));
    assert_eq!(shadows.collect::<Vec<_>>(), [PATH], "{context}");
}

#[test]
fn f1_the_journal_stays_short_while_one_session_is_open() {
    let disk = SimDisk::new();
    let store = open(&disk);
    let _held = hold(&store);
    let mut shortened = 0;
    for id in 100..700 {
        let before = len(&disk);
        let shadow = store.begin(SessionId(id), Path::new("other"), None, talkative(), None, 10);
        let shadow = shadow.unwrap();
        disk.write_at(&shadow.file, b"x", 0).unwrap();
        let place = Place {
            dir: &ROOT,
            name: OsStr::new("other"),
            path: Path::new("other"),
        };
        store.publish(shadow, &place, &info(id)).unwrap();
        store.tidy();
        shortened += u64::from(len(&disk) < before);
        assert!(len(&disk) <= LEN_MAX, "{}", len(&disk));
    }
    assert!(shortened >= 3, "{shortened}");
    check(&disk.fork(Plan::Never), "the daemon stopped");
}

#[test]
fn f1_wherever_the_shortening_of_the_journal_stops_what_was_staged_keeps_its_record() {
    let (disk, store, _shadow) = grown(Plan::Never);
    let begin = disk.ops();
    store.tidy();
    let end = disk.ops();
    assert!(len(&disk) < 1024 && end > begin + 4);
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    for at in begin..=end {
        let (disk, store, _shadow) = grown(Plan::From(at, libc::EIO));
        store.tidy();
        check(&disk.fork(Plan::Never), &format!("the daemon stopped at {at}"));
        for n in 0..16 {
            let mask = dice.roll(1 << 8);
            let crashed = disk.after_crash(|i| mask >> (i % 8) & 1 == 1, &mut dice, Plan::Never);
            check(&crashed, &format!("the machine stopped at {at}, {n}: kept {mask:b}"));
        }
    }
}

/// The old one stays in force: what begins later is noted in it.
#[test]
fn f1_where_the_journal_cannot_be_shortened_it_is_still_kept() {
    let (disk, store, _shadow) = grown(Plan::Never);
    let begin = disk.ops();
    store.tidy();
    for at in begin..disk.ops() {
        for code in [libc::ENOSPC, libc::EIO] {
            let (disk, store, _shadow) = grown(Plan::Once(at, code));
            store.tidy();
            let context = format!("{code} at {at}");
            assert!(!disk.tree().contains_key("/.concord/shadows/journal.new"), "{context}");
            let id = SessionId(8);
            let later = store.begin(id, Path::new("later"), None, Who::default(), None, 10);
            disk.write_at(&later.unwrap().file, STAGED, 0).unwrap();
            let stopped = disk.fork(Plan::Never);
            check(&stopped, &context);
            let kept = open(&stopped).history().recovered().unwrap();
            let is_later = |entry: &RecoveredEntry| entry.record.path.as_deref() == Some("later");
            assert!(kept.iter().any(is_later), "{context}: {kept:?}");
            // Not each time that something is over, but before long.
            for id in 1000..1020 {
                look_in(&store, id);
                store.tidy();
            }
            assert!(len(&disk) < LEN_MAX / 2, "{context}");
        }
    }
}

#[test]
fn f1_what_begins_while_the_journal_is_shortened_is_in_the_new_one_and_what_is_under_way_too() {
    let (disk, store, _shadow) = grown(Plan::Never);
    let place = |name: &'static str| Place {
        dir: &ROOT,
        name: OsStr::new(name),
        path: Path::new(name),
    };
    let under_way = store.note(&place("under way"), &Who::default(), 10).unwrap();
    let over = store.note(&place("over"), &Who::default(), 10).unwrap();
    let shorter = store.journal.lock().begin_shortening(&disk).unwrap();
    assert!(store.journal.lock().begin_shortening(&disk).is_none(), "one at a time");
    let later = store.note(&place("later"), &Who::default(), 10).unwrap();
    drop(over);
    store.finish_shortening(shorter);
    let afterwards = store.note(&place("afterwards"), &Who::default(), 10).unwrap();
    assert!(len(&disk) < 2048);
    let lines = journal::parse(&disk.tree()[PATH]);
    let paths: Vec<&str> = lines.values().map(|line| line.path.as_str()).collect();
    for path in ["held", "under way", "later", "afterwards"] {
        assert!(paths.contains(&path), "{path}: {paths:?}");
    }
    drop((under_way, later, afterwards));
    check(&disk.fork(Plan::Never), "the daemon stopped");
}
