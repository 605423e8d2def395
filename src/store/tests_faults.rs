//! Every change of a file, stopped or failing at every operation, followed by recovery.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use super::disk::Disk;
use super::record::{How, RecoveredKind, Who};
use super::sim::{Dice, Open, Plan, ROOT, SimDisk};
use super::*;
use crate::session::SessionId;

const OLD: &[u8] = b"the old content";
const NEW: &[u8] = b"what was written, which is longer";
const OVER_A_RECORD: &str = "publish over a record that is not kept";
/// Random choices of what is kept, per place where the machine stops.
const CRASHES_PER_STOP: u64 = 24;

fn place<'a>(name: &'a str) -> Place<'a, SimDisk> {
    Place {
        dir: &ROOT,
        name: OsStr::new(name),
        path: Path::new(name),
    }
}

pub(super) fn info(now: u64) -> PublishInfo {
    awaiting(Durability::Full, now)
}

fn awaiting(durability: Durability, now: u64) -> PublishInfo {
    PublishInfo {
        how: How::Close,
        in_place: false,
        durability,
        retain: Retain {
            keep: 20,
            max_age: None,
            max_bytes: None,
        },
        now,
        note: None,
        hash: None,
    }
}

fn open(disk: &SimDisk) -> Result<Store<SimDisk>, StoreError> {
    Store::open(disk.clone(), ROOT, 5).map(|(store, _)| store)
}

/// How far a scenario came.
#[derive(Debug, Default)]
struct Outcome {
    /// All of NEW was in the shadow.
    staged: bool,
    /// `None`: it did not get as far as the publish. An error says whether the version stands all the same.
    published: Option<Result<(), bool>>,
    /// The error said where the staged bytes are.
    kept: bool,
}

fn session(store: &Store<SimDisk>, name: &str, current: bool) -> std::io::Result<Shadow<SimDisk>> {
    let disk = store.disk();
    match current {
        true => {
            let file = disk.open(&ROOT, OsStr::new(name))?;
            store.begin(SessionId(7), Path::new(name), Some(&file), Who::default(), None, 10)
        }
        false => store.adopt(SessionId(7), Path::new(name), disk.tmpfile(), Who::default(), 10),
    }
}

fn write_and_publish(store: &Store<SimDisk>, current: bool, d: Durability) -> Outcome {
    let mut outcome = Outcome::default();
    let Ok(shadow) = session(store, "f", current) else {
        return outcome;
    };
    if store.disk().write_at(&shadow.file, NEW, 0).is_err() {
        let _ = store.discard(shadow, RecoveredKind::Staged, "the write failed", 11);
        return outcome;
    }
    outcome.staged = true;
    let done = store.publish(shadow, &place("f"), &awaiting(d, 12));
    outcome.kept = done.as_ref().is_err_and(|e| e.kept.is_some());
    outcome.published = Some(done.map(drop).map_err(|e| e.published));
    outcome
}

/// The same once more, with so little kept that the new record is written over one that is not.
fn write_and_publish_over_a_record(store: &Store<SimDisk>, d: Durability) -> Outcome {
    let kept_one = |now: u64| PublishInfo {
        retain: Retain {
            keep: 1,
            max_age: None,
            max_bytes: None,
        },
        ..awaiting(d, now)
    };
    let before = session(store, "f", true).and_then(|shadow| {
        store.disk().write_at(&shadow.file, OLD, 0)?;
        let done = store.publish(shadow, &place("f"), &kept_one(11));
        done.map_err(|error| error.source)
    });
    let mut outcome = Outcome::default();
    let Ok(_) = before else { return outcome };
    store.tidy();
    let Ok(shadow) = session(store, "f", true) else {
        return outcome;
    };
    if store.disk().write_at(&shadow.file, NEW, 0).is_err() {
        let _ = store.discard(shadow, RecoveredKind::Staged, "the write failed", 11);
        return outcome;
    }
    outcome.staged = true;
    let done = store.publish(shadow, &place("f"), &kept_one(12));
    outcome.kept = done.as_ref().is_err_and(|e| e.kept.is_some());
    outcome.published = Some(done.map(drop).map_err(|e| e.published));
    store.tidy();
    outcome
}

fn replace(store: &Store<SimDisk>, d: Durability) -> Outcome {
    replace_with(store, ReplaceOptions::default(), d)
}

/// `temp` is written just before it is renamed, and nobody syncs it.
fn replace_with(store: &Store<SimDisk>, options: ReplaceOptions, d: Durability) -> Outcome {
    let disk = store.disk();
    let written = disk
        .open_writable(&ROOT, OsStr::new("temp"))
        .and_then(|file| disk.write_at(&file, NEW, 0));
    if written.is_err() {
        return Outcome::default();
    }
    let done = store.replace(
        &place("temp"),
        &place("f"),
        options,
        &Who::default(),
        None,
        &awaiting(d, 12),
    );
    Outcome {
        published: Some(done.map(drop).map_err(|e| e.published)),
        ..Outcome::default()
    }
}

/// The history's directory is already known to be on disk, as after an earlier publish by the same daemon.
fn replace_rooted(store: &Store<SimDisk>, d: Durability) -> Outcome {
    let rooted = store.stat_place(&place("f")).and_then(|live| {
        let (held, mut history) = store.take(&place("f"), live.as_ref(), 11)?;
        store.root_history(&mut history)?;
        held.keep(history);
        Ok(())
    });
    if rooted.is_ok() {
        replace(store, d)
    } else {
        Outcome::default()
    }
}

fn remove(store: &Store<SimDisk>, d: Durability) -> Outcome {
    let done = store.remove(&place("f"), &Who::default(), &awaiting(d, 12));
    Outcome {
        published: Some(done.map(drop).map_err(|e| e.published)),
        ..Outcome::default()
    }
}

fn exchange(store: &Store<SimDisk>, d: Durability) -> Outcome {
    let done = store.exchange(
        (&place("f"), true),
        (&place("temp"), true),
        &Who::default(),
        &awaiting(d, 12),
    );
    Outcome {
        published: Some(done.map(drop).map_err(|e| e.published)),
        ..Outcome::default()
    }
}

fn restore(store: &Store<SimDisk>, d: Durability) -> Outcome {
    let mut outcome = Outcome::default();
    let Ok(version) = store.history().open_version(Path::new("f"), 1) else {
        return outcome;
    };
    let Ok(shadow) = session(store, "f", true) else {
        return outcome;
    };
    if store.fill(&shadow.file, &version.file).is_err() {
        let _ = store.discard(shadow, RecoveredKind::Staged, "filling it failed", 11);
        return outcome;
    }
    outcome.staged = true;
    let done = store.publish(shadow, &place("f"), &awaiting(d, 12));
    outcome.kept = done.as_ref().is_err_and(|e| e.kept.is_some());
    outcome.published = Some(done.map(drop).map_err(|e| e.published));
    outcome
}

/// `f` has a second name, `g`.
fn linked(disk: &SimDisk) {
    put(disk, "f", OLD);
    disk.link((&ROOT, OsStr::new("f")), (&ROOT, OsStr::new("g"))).unwrap();
}

fn linked_and_published(disk: &SimDisk) {
    put(disk, "f", NEW);
    disk.link((&ROOT, OsStr::new("f")), (&ROOT, OsStr::new("g"))).unwrap();
    let store = open(disk).unwrap();
    let shadow = session(&store, "f", true).unwrap();
    disk.write_at(&shadow.file, OLD, 0).unwrap();
    store.publish(shadow, &place("f"), &info(8)).unwrap();
}

fn put(disk: &SimDisk, name: &str, bytes: &[u8]) {
    let file = disk.create(&ROOT, OsStr::new(name)).unwrap();
    disk.write_at(&file, bytes, 0).unwrap();
}

/// A change of `f`, and what `f` may hold before and after it; `None` is "no such file".
struct Scenario {
    name: &'static str,
    run: fn(&Store<SimDisk>, Durability) -> Outcome,
    before: Option<&'static [u8]>,
    after: Option<&'static [u8]>,
    /// Names outside `.concord/` that there may be.
    names: &'static [&'static str],
    setup: fn(&SimDisk),
    durability: Durability,
}

fn published_before(disk: &SimDisk) {
    put(disk, "f", NEW);
    let store = open(disk).unwrap();
    let shadow = session(&store, "f", true).unwrap();
    disk.write_at(&shadow.file, OLD, 0).unwrap();
    store.publish(shadow, &place("f"), &info(8)).unwrap();
}

/// All scenarios with each of these durabilities. What is [`Durability::Fast`] may be torn by a crash of the machine, not by one of the daemon.
fn scenarios(durabilities: &[Durability]) -> Vec<Scenario> {
    let mut all = Vec::new();
    for durability in durabilities.iter().copied() {
        all.extend(full_scenarios().into_iter().map(|full| Scenario { durability, ..full }));
    }
    all
}

fn full_scenarios() -> Vec<Scenario> {
    let f = |disk: &SimDisk| put(disk, "f", OLD);
    let f_temp = |disk: &SimDisk| {
        put(disk, "f", OLD);
        put(disk, "temp", NEW);
    };
    let base = Scenario {
        name: "publish over a file never published before",
        run: |store, d| write_and_publish(store, true, d),
        before: Some(OLD),
        after: Some(NEW),
        names: &["/f"],
        setup: f,
        durability: Durability::Full,
    };
    let f_new = |disk: &SimDisk| {
        put(disk, "f", OLD);
        put(disk, "temp", b"");
    };
    let temp = &["/f", "/temp"];
    let both = &["/f", "/g"];
    vec![
        Scenario {
            name: "publish to a file with two names",
            setup: linked,
            names: both,
            ..base
        },
        Scenario {
            name: "publish to a file with two names that was published before",
            setup: linked_and_published,
            names: both,
            ..base
        },
        Scenario {
            name: "publish to a name that cannot be exchanged",
            setup: |disk| {
                put(disk, "f", OLD);
                disk.fix_names();
            },
            ..base
        },
        Scenario {
            name: "publish over a published version",
            setup: published_before,
            ..base
        },
        Scenario {
            name: OVER_A_RECORD,
            run: write_and_publish_over_a_record,
            setup: published_before,
            ..base
        },
        Scenario {
            name: "create",
            run: |store, d| write_and_publish(store, false, d),
            before: None,
            setup: |_| {},
            ..base
        },
        Scenario {
            name: "rename over",
            run: replace,
            names: temp,
            setup: f_new,
            ..base
        },
        Scenario {
            name: "rename over, rooted",
            run: replace_rooted,
            names: temp,
            setup: f_new,
            ..base
        },
        Scenario {
            name: "rename of a coordinated file over",
            run: |store, d| {
                replace_with(
                    store,
                    ReplaceOptions {
                        src_coordinated: true,
                        no_replace: false,
                    },
                    d,
                )
            },
            names: temp,
            setup: f_temp,
            ..base
        },
        Scenario {
            name: "rename onto a free name",
            run: |store, d| {
                replace_with(
                    store,
                    ReplaceOptions {
                        src_coordinated: false,
                        no_replace: true,
                    },
                    d,
                )
            },
            before: None,
            names: temp,
            setup: |disk| put(disk, "temp", b""),
            ..base
        },
        Scenario {
            name: "unlink",
            run: remove,
            after: None,
            ..base
        },
        Scenario {
            name: "exchange",
            run: exchange,
            names: temp,
            setup: f_temp,
            ..base
        },
        Scenario {
            name: "restore",
            run: restore,
            setup: published_before,
            ..base
        },
        base,
    ]
}

/// A disk on which the scenario can start, everything on it synced, with a store already made.
fn start(scenario: &Scenario, plan: Plan) -> SimDisk {
    let disk = SimDisk::new();
    (scenario.setup)(&disk);
    drop(open(&disk).unwrap());
    disk.fork(plan)
}

/// `crashed`: what was not synced may be lost. Recovers and checks what the contract says about the file: F1, F3, H1, and that a second recovery finds nothing.
fn check(scenario: &Scenario, disk: &SimDisk, outcome: &Outcome, crashed: bool, context: &str) {
    let store = open(disk).unwrap_or_else(|e| panic!("{context}: {e}"));
    let tree = disk.tree();
    let live = tree.get("/f").map(Vec::as_slice);
    assert!(
        live == scenario.before || live == scenario.after,
        "{context}: F1: f holds {live:?}"
    );
    match outcome.published {
        Some(Ok(())) if scenario.durability == Durability::Full || !crashed => {
            assert_eq!(live, scenario.after, "{context}: F1: reported as published");
        }
        Some(Err(false)) => assert_eq!(live, scenario.before, "{context}: F3: reported as not published"),
        _ => {}
    }
    for name in tree.keys().filter(|name| !name.starts_with("/.concord/")) {
        assert!(scenario.names.contains(&name.as_str()), "{context}: F1: {name} is left");
    }
    if live == scenario.after
        && scenario.before != scenario.after
        && let Some(before) = scenario.before
    {
        let versions = store.history().versions(Path::new("f")).unwrap();
        let kept = versions.iter().filter(|v| !v.current && !v.gone).any(|v| {
            let kept = store.history().open_version(Path::new("f"), v.record.version).unwrap();
            disk.tree_content(kept.file)[..kept.bytes as usize] == *before
        });
        assert!(
            kept,
            "{context}: H1: the replaced version is not in the history: {versions:#?} {tree:#?}"
        );
    }
    if !crashed && outcome.staged && live != scenario.after {
        let kept = store.history().recovered().unwrap();
        let kept = kept.iter().filter(|e| e.record.kind != RecoveredKind::Garbage);
        let found = kept.map(|e| disk.tree_content(store.history().open_recovered(&e.name).unwrap()));
        assert!(
            found.into_iter().any(|b| Some(b.as_slice()) == scenario.after),
            "{context}: F3: staged bytes are lost"
        );
    }
    // What recovery could not know of is set right when the file is next used.
    let stat = store.stat_place(&place("f")).unwrap();
    let (held, history) = store.take(&place("f"), stat.as_ref(), 5).unwrap();
    let stone = history.records.values().find(|r| r.is_tombstone());
    assert!(
        history.current.is_none() || stone.is_none(),
        "{context}: the file is there, and {stone:?}"
    );
    drop(held);
    let linked = scenario.names.contains(&"/g");
    let links = if linked { 2 } else { 1 };
    assert!(
        stat.is_none_or(|_| store.stat_place(&place("f")).unwrap().unwrap().nlink == links),
        "{context}: a second name"
    );
    assert!(
        !linked || tree.get("/g") == tree.get("/f"),
        "{context}: W11: the second name"
    );
    let tree = disk.tree();
    for name in tree.keys().filter(|name| name.starts_with("/.concord/shadows/")) {
        assert_eq!(name, "/.concord/shadows/journal", "{context}");
    }
    drop(store);
    let (_, again) = Store::open(disk.clone(), ROOT, 6).unwrap();
    assert_eq!(again.items, vec![], "{context}: a second recovery finds something");
    assert_eq!(
        without_lock(disk),
        without_lock_of(tree),
        "{context}: a second recovery changes something"
    );
}

fn without_lock(disk: &SimDisk) -> BTreeSet<(String, Vec<u8>)> {
    without_lock_of(disk.tree())
}

fn without_lock_of(tree: std::collections::BTreeMap<String, Vec<u8>>) -> BTreeSet<(String, Vec<u8>)> {
    tree.into_iter().filter(|(name, _)| name != "/.concord/lock").collect()
}

impl SimDisk {
    fn tree_content(&self, file: Open) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        let n = self.read_at(&file, &mut bytes, 0).unwrap();
        bytes.truncate(n);
        bytes
    }
}

/// Operations that opening the store and the scenario take together.
fn length(scenario: &Scenario) -> (u64, u64) {
    let disk = start(scenario, Plan::Never);
    let store = open(&disk).unwrap();
    let opened = disk.ops();
    let outcome = (scenario.run)(&store, scenario.durability);
    assert_eq!(outcome.published, Some(Ok(())), "{}", scenario.name);
    (opened, disk.ops())
}

fn run(scenario: &Scenario, disk: &SimDisk) -> Outcome {
    match open(disk) {
        Ok(store) => (scenario.run)(&store, scenario.durability),
        Err(_) => Outcome::default(),
    }
}

#[test]
fn every_operation_that_fails_once_or_for_good_leaves_one_whole_version_and_loses_nothing() {
    for scenario in scenarios(&[Durability::Full, Durability::Atomic, Durability::Fast]) {
        let (_, end) = length(&scenario);
        for at in 0..end {
            for (code, forever) in [
                (libc::ENOSPC, false),
                (libc::EIO, true),
                (libc::EROFS, true),
                (libc::EDQUOT, false),
            ] {
                let plan = if forever {
                    Plan::From(at, code)
                } else {
                    Plan::Once(at, code)
                };
                let disk = start(&scenario, plan);
                let outcome = run(&scenario, &disk);
                let context = format!("{}, {:?}: {plan:?}", scenario.name, scenario.durability);
                let told = outcome.kept || !outcome.staged || outcome.published != Some(Err(false));
                assert!(forever || told, "{context}: F3: nobody was told where the bytes are");
                disk.heal();
                let mut dice = Dice((at + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
                if outcome.published == Some(Ok(())) && scenario.durability != Durability::Fast {
                    let crashed = disk.after_crash(|_| false, &mut dice, Plan::Never);
                    check(&scenario, &crashed, &outcome, true, &format!("{context}, crash"));
                }
                check(&scenario, &disk, &outcome, false, &context);
            }
        }
    }
}

/// A publish in place that fails is taken back by an exchange of two images: before it and after it, whoever opens the version finds it.
#[test]
fn an_image_is_found_before_and_after_it_changes_its_name() {
    let disk = SimDisk::new();
    linked(&disk);
    let store = open(&disk).unwrap();
    let image = store.ensure_image(&place("f")).unwrap();
    let live = disk.stat_at(&ROOT, OsStr::new("f")).unwrap();
    let images = store.images();
    let mut known = images.known(live.ino).unwrap();
    let settled = known.name.text();
    known.name.pending = Some(99);
    let pending = known.name.text();
    images.know(known);
    let staged = disk.create(&images.dir, &pending).unwrap();
    assert_eq!(images.open(image.ino).unwrap().ino, image.ino);
    disk.exchange((&images.dir, &settled), (&images.dir, &pending)).unwrap();
    assert_eq!(images.open(image.ino).unwrap().ino, image.ino);
    assert!(images.open(staged.ino).is_err());
}

#[test]
fn every_stop_of_the_machine_leaves_one_whole_version_whatever_was_lost() {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    for scenario in scenarios(&[Durability::Full, Durability::Atomic]) {
        let (opened, end) = length(&scenario);
        for at in opened..=end {
            let disk = start(&scenario, Plan::From(at, libc::EIO));
            let mut outcome = run(&scenario, &disk);
            if at < end && outcome.published.is_some_and(|p| p.is_err()) {
                // Nobody was there any more to hear of an error.
                outcome.published = None;
            }
            let pending = disk.pending() as u32;
            let all = 1u64.checked_shl(pending).unwrap_or(u64::MAX);
            let daemon_only = disk.fork(Plan::Never);
            check(
                &scenario,
                &daemon_only,
                &outcome,
                false,
                &format!("{}: daemon stopped at {at}", scenario.name),
            );
            for n in 0..all.min(CRASHES_PER_STOP) {
                let mask = if all <= CRASHES_PER_STOP {
                    n
                } else {
                    dice.roll(all).wrapping_mul(n.min(1))
                };
                let crashed = disk.after_crash(|i| mask >> (i % 64) & 1 == 1, &mut dice, Plan::Never);
                let context = format!(
                    "{}, {:?}: stopped at {at} of {end}, kept {mask:b}",
                    scenario.name, scenario.durability
                );
                recover_with_stops(&scenario, &crashed, &outcome, &mut dice, n, &context);
            }
        }
    }
}

/// Stops recovery itself too, at one place, and then lets it run.
fn recover_with_stops(s: &Scenario, disk: &SimDisk, outcome: &Outcome, dice: &mut Dice, n: u64, context: &str) {
    let first = disk.fork(Plan::Never);
    check(s, &first, outcome, true, context);
    let again = disk.fork(Plan::From(9 + n, libc::EIO));
    let _ = open(&again);
    let mask = dice.roll(1 << 16);
    let again = again.after_crash(|i| mask >> (i % 16) & 1 == 1, dice, Plan::Never);
    check(
        s,
        &again,
        outcome,
        true,
        &format!("{context}, recovery stopped at {} too, kept {mask:b}", 9 + n),
    );
}

#[test]
fn what_recovery_moved_stays_known_when_the_machine_stops_right_after() {
    for seed in 1..20 {
        let disk = SimDisk::new();
        put(&disk, "f", OLD);
        let store = open(&disk).unwrap();
        let shadow = session(&store, "f", true).unwrap();
        disk.write_at(&shadow.file, NEW, 0).unwrap();
        drop((store, shadow));
        let disk = disk.fork(Plan::Never);
        drop(open(&disk).unwrap());
        let disk = disk.after_crash(|_| false, &mut Dice(seed), Plan::Never);
        let kept = open(&disk).unwrap().history().recovered().unwrap();
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].record.path.as_deref(), Some("f"), "seed {seed}: {kept:?}");
    }
}

/// A record is written over before it has its new name. Found under the old one it is of no use, and nothing to look into either.
#[test]
fn a_record_that_was_being_written_over_is_removed() {
    let is = |scenario: &Scenario| scenario.name == OVER_A_RECORD;
    let scenario = full_scenarios().into_iter().find(is).unwrap();
    let (opened, end) = length(&scenario);
    let mut seen = 0;
    for at in opened..end {
        let disk = start(&scenario, Plan::From(at, libc::EIO));
        run(&scenario, &disk);
        let disk = disk.fork(Plan::Never);
        let misplaced = |(name, bytes): (String, Vec<u8>)| {
            let number = name.rsplit('/').next()?.strip_suffix(".json")?.parse::<u64>().ok()?;
            let record = record::VersionRecord::parse(&bytes).ok()?;
            (record.version != number).then_some(name)
        };
        let Some(name) = disk.tree().into_iter().find_map(misplaced) else {
            continue;
        };
        seen += 1;
        let store = open(&disk).unwrap();
        let live = store.stat_place(&place("f")).unwrap();
        drop(store.take(&place("f"), live.as_ref(), 20).unwrap());
        assert_eq!(disk.tree().get(&name), None, "stopped at {at}");
        assert_eq!(store.history().recovered().unwrap().len(), 1, "what was staged");
    }
    assert!(seen > 0, "no stop came between the writing and the renaming");
}
