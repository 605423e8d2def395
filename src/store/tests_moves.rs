//! Renames that a history follows, stopped or failing at every operation, followed by recovery.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use super::disk::Disk;
use super::moves::MOVES_BYTES_MAX;
use super::record::Who;
use super::sim::{Dice, Plan, ROOT, SimDisk};
use super::tests_faults::info;
use super::*;
use crate::session::SessionId;

/// Random choices of what is kept, per place where the machine stops.
const CRASHES_PER_STOP: u64 = 12;

fn open(disk: &SimDisk) -> Result<Store<SimDisk>, StoreError> {
    Store::open(disk.clone(), ROOT, 5).map(|(store, _)| store)
}

fn publish(store: &Store<SimDisk>, dir: u64, path: &str, content: &[u8], now: u64) -> io::Result<Published> {
    let name = Path::new(path).file_name().unwrap();
    let current = store.disk().open(&dir, name)?;
    let id = SessionId(now);
    let shadow = store.begin(id, Path::new(path), Some(&current), Who::default(), None, now)?;
    store.disk().write_at(&shadow.file, content, 0)?;
    let place = Place {
        dir: &dir,
        name,
        path: Path::new(path),
    };
    store.publish(shadow, &place, &info(now)).map_err(|error| error.source)
}

/// `d/f` with two versions, `one` and `the second`, on disk.
fn start(plan: Plan) -> SimDisk {
    let disk = SimDisk::new();
    disk.make_dir(&ROOT, OsStr::new("d")).unwrap();
    let dir = disk.open_dir(&ROOT, OsStr::new("d")).unwrap();
    let file = disk.create(&dir, OsStr::new("f")).unwrap();
    disk.write_at(&file, b"one", 0).unwrap();
    let store = open(&disk).unwrap();
    publish(&store, dir, "d/f", b"the second", 10).unwrap();
    drop(store);
    disk.fork(plan)
}

/// Renames `d/f` to `d/g`, both coordinated.
fn rename_file(store: &Store<SimDisk>) -> io::Result<()> {
    let dir = store.disk().open_dir(&ROOT, OsStr::new("d"))?;
    let place = |name: &'static str, path: &'static str| Place {
        dir: Box::leak(Box::new(dir)),
        name: OsStr::new(name),
        path: Path::new(path),
    };
    let options = ReplaceOptions {
        src_coordinated: true,
        no_replace: false,
    };
    let (from, to) = (place("f", "d/f"), place("g", "d/g"));
    let renamed = store.replace(&from, &to, options, &Who::default(), None, &info(20));
    renamed.map(drop).map_err(|error| error.source)
}

/// Renames `d` to `e`, then publishes over what is `e/f` now.
fn rename_directory(store: &Store<SimDisk>) -> io::Result<()> {
    let disk = store.disk();
    let dir = disk.open_dir(&ROOT, OsStr::new("d"))?;
    let ways = [(Path::new("d"), Path::new("e"))];
    let rename = || disk.rename((&ROOT, OsStr::new("d")), (&ROOT, OsStr::new("e")));
    store.move_directories::<(), io::Error>(&ways, 20, rename)?;
    publish(store, dir, "e/f", b"and the third", 30).map(drop)
}

fn contents(disk: &SimDisk, store: &Store<SimDisk>, path: &str) -> Vec<Vec<u8>> {
    let path = Path::new(path);
    let versions = store.history().versions(path).unwrap();
    let there = versions.iter().filter(|version| !version.gone);
    there
        .map(|version| {
            let kept = store.history().open_version(path, version.record.version).unwrap();
            let mut bytes = vec![0; kept.bytes as usize];
            disk.read_at(&kept.file, &mut bytes, 0).unwrap();
            bytes
        })
        .collect()
}

/// Wherever the file is, all that it was can be read there; `anywhere`: or by its former path.
fn check(disk: &SimDisk, done: bool, (wanted, anywhere): (&[&str], bool), context: &str) {
    let store = open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    let tree = disk.tree();
    let files: Vec<&str> = tree
        .keys()
        .map(String::as_str)
        .filter(|p| !p.starts_with("/.concord/"))
        .collect();
    let [path] = files[..] else {
        panic!("{context}: F1: {files:?}");
    };
    assert!(wanted.contains(&path), "{context}: F1: {path}");
    assert!(
        !done || path == wanted[wanted.len() - 1],
        "{context}: F1: reported as renamed, and is {path}"
    );
    let path = &path[1..];
    let live = tree[&format!("/{path}")].clone();
    for round in ["as it is", "after another publish"] {
        let mut found = contents(disk, &store, path);
        if anywhere {
            found.extend(contents(disk, &store, &wanted[0][1..]));
        }
        for content in [&b"one"[..], b"the second", &live] {
            assert!(
                found.iter().any(|bytes| bytes == content),
                "{context}, {round}: H3: {path} was {:?}: {found:?} {:#?} {:?}",
                String::from_utf8_lossy(content),
                store.history().versions(Path::new(path)),
                tree.keys().collect::<Vec<_>>()
            );
        }
        let dir = store.history().parent_of(Path::new(path)).unwrap().unwrap();
        publish(&store, dir, path, b"one more version", 40).unwrap_or_else(|error| panic!("{context}: {error}"));
    }
    drop(store);
    let again = Store::open(disk.clone(), ROOT, 6).unwrap().1;
    assert_eq!(again.items, vec![], "{context}: a second recovery finds something");
}

#[test]
fn the_moves_that_are_written_down_do_not_grow_without_end() {
    let disk = start(Plan::Never);
    let store = open(&disk).unwrap();
    let long = "x".repeat(4000);
    let other = "y".repeat(4000);
    let steps = MOVES_BYTES_MAX as usize / 8000 * 3;
    let mut now = "d".to_owned();
    for step in 0..steps {
        let next = if step % 2 == 0 { &long } else { &other };
        let rename = || disk.rename((&ROOT, OsStr::new(&now)), (&ROOT, OsStr::new(next)));
        let ways = [(Path::new(&now), Path::new(next))];
        store.move_directories::<(), io::Error>(&ways, 20, rename).unwrap();
        now = next.clone();
        if step % 100 == 0 {
            let size = disk.tree()["/.concord/moves"].len() as u64;
            assert!(size < MOVES_BYTES_MAX + 10_000, "{size}");
        }
    }
    drop(store);
    let store = open(&disk).unwrap();
    let count = store.history().moves.read().count();
    assert!(count > 100 && count < steps, "{count}");
}

fn remove(store: &Store<SimDisk>, dir: u64, path: &str, now: u64) -> io::Result<()> {
    let place = Place {
        dir: &dir,
        name: Path::new(path).file_name().unwrap(),
        path: Path::new(path),
    };
    let removed = store.remove(&place, &Who::default(), &info(now));
    removed.map(drop).map_err(|error| error.source)
}

fn move_directory(store: &Store<SimDisk>, from: &str, to: &str, now: u64) -> io::Result<()> {
    let rename = || store.disk().rename((&ROOT, OsStr::new(from)), (&ROOT, OsStr::new(to)));
    store.move_directories(&[(Path::new(from), Path::new(to))], now, rename)
}

/// Sweeps at a time when what happened up to `old` is too old to be kept.
fn sweep(store: &Store<SimDisk>, old: u64) {
    let age = Duration::from_nanos(1_000_000);
    let retain = Retain {
        keep: 20,
        max_age: Some(age),
        max_bytes: None,
    };
    store.set_retention(std::sync::Arc::new(move |_: &Path| Some(retain)));
    store.prune_all(old + 1 + age.as_nanos() as u64, &|| true);
}

#[test]
fn the_history_of_a_temporary_file_goes_soon_after_it_became_a_version_of_another() {
    type Steps = fn(&Store<SimDisk>) -> io::Result<()>;
    fn rename(store: &Store<SimDisk>, to: &'static str, now: u64) -> io::Result<()> {
        let place = |name: &'static str| Place {
            dir: &ROOT,
            name: OsStr::new(name),
            path: Path::new(name),
        };
        let options = ReplaceOptions {
            src_coordinated: true,
            no_replace: false,
        };
        let (from, to) = (place("temp"), place(to));
        let renamed = store.replace(&from, &to, options, &Who::default(), None, &info(now));
        renamed.map(drop).map_err(|error| error.source)
    }
    // What is done with `temp`, and whether its history goes soon after.
    let ends: [(&str, Steps, bool); 5] = [
        ("over a file", |store| rename(store, "f", 20), true),
        (
            "to a free name, which goes on from it",
            |store| rename(store, "free", 20),
            false,
        ),
        (
            "changed once more, then over a file",
            |store| {
                publish(store, ROOT, "temp", b"changed", 15)?;
                rename(store, "f", 20)
            },
            false,
        ),
        ("removed", |store| remove(store, ROOT, "temp", 20), false),
        (
            "over a file, and another came",
            |store| {
                rename(store, "f", 20)?;
                let file = store.disk().create(&ROOT, OsStr::new("temp"))?;
                store.disk().write_at(&file, b"another", 0)
            },
            false,
        ),
    ];
    for (name, end, goes) in ends {
        let disk = SimDisk::new();
        for file in ["f", "temp"] {
            let written = disk.create(&ROOT, OsStr::new(file)).unwrap();
            disk.write_at(&written, file.as_bytes(), 0).unwrap();
        }
        let store = open(&disk).unwrap();
        end(&store).unwrap();
        store.set_retention(std::sync::Arc::new(|_: &Path| Some(info(0).retain)));
        let is_there = || store.history().versions(Path::new("temp")).unwrap().len() > 1;
        let age = PASSED_ON_AGE_MAX.as_nanos() as u64;
        for (late, there) in [(age, true), (age + 1, !goes)] {
            store.prune_all(20 + late, &|| true);
            assert_eq!(is_there(), there, "{name}, after {late} ns");
        }
    }
}

/// What lies below `.concord/history`.
fn pieces(disk: &SimDisk) -> Vec<String> {
    let below = disk.tree().into_keys();
    below.filter(|path| path.starts_with("/.concord/history/")).collect()
}

#[test]
fn a_history_whose_file_left_with_its_directory_goes_with_the_last_that_goes_on_from_it() {
    type Steps = fn(&Store<SimDisk>, u64) -> io::Result<()>;
    let ends: [(&str, Steps); 5] = [
        ("removed as it came", |store, dir| remove(store, dir, "e/f", 40)),
        ("changed, then removed", |store, dir| {
            publish(store, dir, "e/f", b"and the third", 30)?;
            remove(store, dir, "e/f", 40)
        }),
        ("moved on, changed at each place, then removed", |store, dir| {
            publish(store, dir, "e/f", b"and the third", 25)?;
            move_directory(store, "e", "g", 30)?;
            publish(store, dir, "g/f", b"and the fourth", 35)?;
            remove(store, dir, "g/f", 40)
        }),
        ("moved back, changed at each place, then removed", |store, dir| {
            publish(store, dir, "e/f", b"and the third", 25)?;
            move_directory(store, "e", "d", 30)?;
            publish(store, dir, "d/f", b"and the fourth", 35)?;
            remove(store, dir, "d/f", 40)
        }),
        ("followed by another file, both removed", |store, dir| {
            let disk = store.disk();
            disk.make_dir(&ROOT, OsStr::new("d"))?;
            let new = disk.open_dir(&ROOT, OsStr::new("d"))?;
            disk.create(&new, OsStr::new("f"))?;
            publish(store, new, "d/f", b"another", 25)?;
            remove(store, new, "d/f", 30)?;
            remove(store, dir, "e/f", 40)
        }),
    ];
    for (name, end) in ends {
        let disk = start(Plan::Never);
        let store = open(&disk).unwrap();
        let dir = disk.open_dir(&ROOT, OsStr::new("d")).unwrap();
        move_directory(&store, "d", "e", 20).unwrap();
        end(&store, dir).unwrap();
        // The removal is the last that happened, and counts for all that goes with it.
        sweep(&store, 39);
        assert_ne!(pieces(&disk), Vec::<String>::new(), "{name}");
        sweep(&store, 40);
        assert_eq!(pieces(&disk), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_history_whose_file_left_with_its_directory_stays_while_a_file_is_that_which_left() {
    type Steps = fn(&Store<SimDisk>, u64) -> io::Result<()>;
    let lives: [(&str, Steps, &str); 4] = [
        ("as it came", |_, _| Ok(()), "e/f"),
        ("moved on", |store, _| move_directory(store, "e", "g", 30), "g/f"),
        (
            "changed",
            |store, dir| publish(store, dir, "e/f", b"and the third", 30).map(drop),
            "e/f",
        ),
        (
            "moved on, changed at each place",
            |store, dir| {
                publish(store, dir, "e/f", b"and the third", 25)?;
                move_directory(store, "e", "g", 30)?;
                publish(store, dir, "g/f", b"and the fourth", 35).map(drop)
            },
            "g/f",
        ),
    ];
    for (name, life, path) in lives {
        let disk = start(Plan::Never);
        let store = open(&disk).unwrap();
        let dir = disk.open_dir(&ROOT, OsStr::new("d")).unwrap();
        move_directory(&store, "d", "e", 20).unwrap();
        life(&store, dir).unwrap();
        let live = disk.tree()[&format!("/{path}")].clone();
        sweep(&store, 1000);
        // What was replaced has been so for too long; but the file goes on counting.
        assert_eq!(contents(&disk, &store, path), [live], "{name}");
        let last = store.history().versions(Path::new(path)).unwrap()[0].record.version;
        let next = publish(&store, dir, path, b"one more", 2_000_000).unwrap().version;
        assert_eq!(next, last + 1, "{name}");
        assert!(last >= 2, "{name}");
        assert_eq!(contents(&disk, &store, path).len(), 2, "{name}");
    }
}

#[test]
fn a_sweep_of_histories_that_left_which_stops_anywhere_is_finished_by_the_next() {
    let prepared = |plan| {
        let disk = start(Plan::Never);
        let store = open(&disk).unwrap();
        let dir = disk.open_dir(&ROOT, OsStr::new("d")).unwrap();
        move_directory(&store, "d", "e", 20).unwrap();
        publish(&store, dir, "e/f", b"and the third", 25).unwrap();
        move_directory(&store, "e", "d", 30).unwrap();
        publish(&store, dir, "d/f", b"and the fourth", 35).unwrap();
        remove(&store, dir, "d/f", 40).unwrap();
        drop(store);
        disk.fork(plan)
    };
    let disk = prepared(Plan::Never);
    let store = open(&disk).unwrap();
    let opened = disk.ops();
    sweep(&store, 40);
    let end = disk.ops();
    drop(store);
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    for at in opened..end {
        for plan in [Plan::Once(at, libc::EIO), Plan::From(at, libc::EIO)] {
            let disk = prepared(plan);
            sweep(&open(&disk).unwrap(), 40);
            disk.heal();
            let crashed = disk.after_crash(|i| (i as u64 + at).is_multiple_of(2), &mut dice, Plan::Never);
            for (disk, how) in [(disk, "the daemon"), (crashed, "the machine")] {
                let store = open(&disk).unwrap();
                sweep(&store, 40);
                // What came back without its tombstone has one of that time now.
                sweep(&store, 10_000_000);
                assert_eq!(pieces(&disk), Vec::<String>::new(), "{plan:?}, {how}");
            }
        }
    }
}

type Scenario = (&'static str, fn(&Store<SimDisk>) -> io::Result<()>, [&'static str; 2]);

const SCENARIOS: [Scenario; 2] = [
    ("a file", rename_file, ["/d/f", "/d/g"]),
    ("a directory", rename_directory, ["/d/f", "/e/f"]),
];

/// Operations up to the start of the scenario, and to its end.
fn length(run: fn(&Store<SimDisk>) -> io::Result<()>) -> (u64, u64) {
    let disk = start(Plan::Never);
    let store = open(&disk).unwrap();
    let opened = disk.ops();
    run(&store).unwrap();
    (opened, disk.ops())
}

#[test]
fn every_failure_of_a_rename_leaves_the_whole_history_at_one_name() {
    for (name, run, wanted) in SCENARIOS {
        let (_, end) = length(run);
        for at in 0..end {
            for plan in [Plan::Once(at, libc::ENOSPC), Plan::From(at, libc::EIO)] {
                let disk = start(plan);
                let done = open(&disk).is_ok_and(|store| run(&store).is_ok());
                disk.heal();
                // A record that could not be read, once, counts as damaged, and nothing leads on from it.
                let anywhere = matches!(plan, Plan::Once(..));
                check(&disk, done, (&wanted, anywhere), &format!("{name}: {plan:?}"));
            }
        }
    }
}

#[test]
fn every_stop_during_a_rename_leaves_the_whole_history_at_one_name() {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    for (name, run, wanted) in SCENARIOS {
        let (opened, end) = length(run);
        for at in opened..=end {
            let disk = start(Plan::From(at, libc::EIO));
            let done = open(&disk).is_ok_and(|store| run(&store).is_ok());
            let context = format!("{name}: stopped at {at} of {end}");
            check(&disk.fork(Plan::Never), done, (&wanted, false), &context);
            for n in 0..CRASHES_PER_STOP {
                let mask = dice.roll(1 << 24).wrapping_mul(n.min(1));
                let crashed = disk.after_crash(|i| mask >> (i % 24) & 1 == 1, &mut dice, Plan::Never);
                check(&crashed, done, (&wanted, false), &format!("{context}, kept {mask:b}"));
            }
        }
    }
}
