//! The store on a real filesystem.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::record::{RecoveredKind, Who};
use super::tests_faults::info;
use super::*;
use crate::session::SessionId;

pub(super) struct Project {
    dir: tempfile::TempDir,
    pub root: Arc<OwnedFd>,
}

impl Project {
    pub fn new() -> Project {
        let dir = tempfile::tempdir().unwrap();
        let root = RealDisk::open_root(dir.path()).unwrap();
        Project { dir, root }
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub fn open(&self) -> Result<(Store<RealDisk>, RecoveryReport), StoreError> {
        Store::open(RealDisk, self.root.clone(), 99)
    }

    pub fn store(&self) -> Store<RealDisk> {
        self.open().unwrap().0
    }

    pub fn place<'a>(&'a self, name: &'a OsStr) -> Place<'a, RealDisk> {
        Place {
            dir: &self.root,
            name,
            path: Path::new(name),
        }
    }

    pub fn begin(&self, store: &Store<RealDisk>, id: u64, name: &OsStr) -> Shadow<RealDisk> {
        let current = fs::File::open(self.dir.path().join(name)).ok();
        store
            .begin(
                SessionId(id),
                Path::new(name),
                current.as_ref(),
                Who::default(),
                None,
                1,
            )
            .unwrap()
    }

    pub fn save(&self, store: &Store<RealDisk>, name: &OsStr, content: &[u8], info: &PublishInfo) -> Published {
        let shadow = self.begin(store, 1, name);
        shadow.file.write_all_at(content, 0).unwrap();
        let published = store.publish(shadow, &self.place(name), info).unwrap();
        store.sweep();
        published
    }

    pub fn history_dir(&self, name: &str) -> PathBuf {
        let key = history::Key::of(Path::new(name));
        self.at(".concord/history").join(key.fan()).join(key.name())
    }
}

pub(super) fn content(history: &History<RealDisk>, name: &OsStr, version: u64) -> Vec<u8> {
    let Kept { file, bytes } = history.open_version(Path::new(name), version).unwrap();
    let mut bytes = vec![0; bytes as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

pub(super) fn numbers(store: &Store<RealDisk>, name: &str) -> Vec<u64> {
    store
        .history()
        .versions(Path::new(name))
        .unwrap()
        .iter()
        .map(|v| v.record.version)
        .collect()
}

#[test]
fn a_publish_keeps_owner_mode_acl_and_attributes_and_so_does_the_version_it_replaced() {
    let p = Project::new();
    let file = p.at("f");
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let root = rustix::process::geteuid().is_root();
    if root {
        std::os::unix::fs::chown(&file, Some(1234), Some(2345)).unwrap();
    }
    // An ACL with one named user (4321: read), as acl(5) lays it out.
    let entry =
        |tag: u16, perm: u16, id: u32| [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat();
    let none = u32::MAX;
    let acl = [(1, 6, none), (2, 4, 4321), (4, 4, none), (16, 4, none), (32, 0, none)];
    let acl = acl
        .iter()
        .fold(vec![2, 0, 0, 0], |all, e| [all, entry(e.0, e.1, e.2)].concat());
    let set = |name: &str, value: &[u8]| rustix::fs::setxattr(&file, name, value, rustix::fs::XattrFlags::empty());
    set("user.color", b"blue").unwrap();
    set("system.posix_acl_access", &acl).unwrap();
    let store = p.store();
    p.save(&store, OsStr::new("f"), b"new", &info(2));
    let mut value = [0; 256];
    for path in [file.clone(), p.history_dir("f").join("1")] {
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o640, "{}", path.display());
        assert!(!root || (meta.uid(), meta.gid()) == (1234, 2345));
        let n = rustix::fs::getxattr(&path, "user.color", &mut value[..]).unwrap();
        assert_eq!(&value[..n], b"blue");
        let n = rustix::fs::getxattr(&path, "system.posix_acl_access", &mut value[..]).unwrap();
        assert_eq!(value[..n], acl);
    }
    assert_eq!(fs::read(&file).unwrap(), b"new");
    // Changed while the session was open, by somebody else: the change stays.
    let shadow = p.begin(&store, 2, OsStr::new("f"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    store.publish(shadow, &p.place(OsStr::new("f")), &info(3)).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(p.at(".concord")).unwrap().mode() & 0o777, 0o700);
}

/// As where the clock of the filesystem has not moved between two changes.
#[test]
fn a_change_that_the_ctime_does_not_tell_is_copied_by_who_knows_of_it() {
    let project = Project::new();
    let store = project.store();
    let name = OsStr::new("a.md");
    fs::write(project.at("a.md"), "one").unwrap();
    for (known, mode) in [(false, 0o644), (true, 0o600)] {
        fs::set_permissions(project.at("a.md"), PermissionsExt::from_mode(0o644)).unwrap();
        let mut shadow = project.begin(&store, 1, name);
        fs::set_permissions(project.at("a.md"), PermissionsExt::from_mode(0o600)).unwrap();
        let now = fs::metadata(project.at("a.md")).unwrap();
        shadow.meta_from = Some((now.ino(), now.ctime() * 1_000_000_000 + now.ctime_nsec()));
        if known {
            shadow.forget_metadata();
        }
        store.publish(shadow, &project.place(name), &info(1)).unwrap();
        assert_eq!(fs::metadata(project.at("a.md")).unwrap().mode() & 0o777, mode);
    }
}

#[test]
fn a_set_id_bit_does_not_survive_an_unprivileged_writer() {
    let p = Project::new();
    fs::write(p.at("f"), "old").unwrap();
    fs::set_permissions(p.at("f"), fs::Permissions::from_mode(0o4755)).unwrap();
    let (store, current) = (p.store(), fs::File::open(p.at("f")).unwrap());
    for (uid, mode) in [(0, 0o4755), (1000, 0o755)] {
        let who = Who { uid, ..Who::default() };
        let shadow = store
            .begin(SessionId(uid.into()), Path::new("f"), Some(&current), who, None, 1)
            .unwrap();
        // Until it is written to, by whoever writes.
        assert_eq!(shadow.file.metadata().unwrap().mode() & 0o7777, 0o4755);
        let number = uid.into();
        store.publish(shadow, &p.place(OsStr::new("f")), &info(number)).unwrap();
        assert_eq!(fs::metadata(p.at("f")).unwrap().mode() & 0o7777, mode);
    }
}

#[test]
fn a_filled_shadow_has_the_content_and_the_holes() {
    let p = Project::new();
    let file = fs::File::create(p.at("f")).unwrap();
    file.write_all_at(b"start", 0).unwrap();
    file.write_all_at(b"end", 64 << 20).unwrap();
    let store = p.store();
    let shadow = p.begin(&store, 1, OsStr::new("f"));
    store.fill(&shadow.file, &fs::File::open(p.at("f")).unwrap()).unwrap();
    let meta = shadow.file.metadata().unwrap();
    assert_eq!(meta.len(), (64 << 20) + 3);
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
    let mut bytes = [0; 3];
    shadow.file.read_exact_at(&mut bytes, 64 << 20).unwrap();
    assert_eq!(&bytes, b"end");
}

#[test]
fn old_versions_go_by_number_by_age_and_by_size_and_the_current_one_stays() {
    let p = Project::new();
    let (store, name) = (p.store(), OsStr::new("f"));
    for n in 1..=25u64 {
        p.save(&store, name, format!("{n:04}").as_bytes(), &info(n * 1_000_000_000));
    }
    assert_eq!(numbers(&store, "f"), (5..=25).rev().collect::<Vec<_>>());
    assert_eq!(content(store.history(), name, 5), b"0005");
    let retain = Retain {
        keep: 20,
        max_age: Some(Duration::from_secs(3)),
        max_bytes: None,
    };
    p.save(
        &store,
        name,
        b"0026",
        &PublishInfo {
            retain,
            ..info(26_000_000_000)
        },
    );
    assert_eq!(numbers(&store, "f"), vec![26, 25, 24, 23, 22]);
    let retain = Retain {
        keep: 20,
        max_age: None,
        max_bytes: Some(8),
    };
    p.save(
        &store,
        name,
        b"0027",
        &PublishInfo {
            retain,
            ..info(27_000_000_000)
        },
    );
    assert_eq!(numbers(&store, "f"), vec![27, 26, 25]);
    let retain = Retain {
        keep: 0,
        max_age: None,
        max_bytes: None,
    };
    p.save(
        &store,
        name,
        b"0028",
        &PublishInfo {
            retain,
            ..info(28_000_000_000)
        },
    );
    assert_eq!(numbers(&store, "f"), vec![28]);
}

#[test]
fn versions_that_were_forgotten_and_not_removed_go_with_the_next_publish_after_a_start() {
    let p = Project::new();
    let name = OsStr::new("f");
    let few = |n: u64| PublishInfo {
        retain: Retain {
            keep: 1,
            max_age: None,
            max_bytes: None,
        },
        ..info(n)
    };
    let store = p.store();
    for n in 1..=4 {
        p.save(&store, name, b"kept", &info(n));
    }
    let file = store.disk().open(p.place(name).dir, name).unwrap();
    let shadow = store
        .begin(SessionId(9), Path::new("f"), Some(&file), Who::default(), None, 5)
        .unwrap();
    store.publish(shadow, &p.place(name), &few(5)).unwrap();
    assert_eq!(numbers(&store, "f"), vec![5, 4, 3, 2, 1], "not swept yet");
    drop(store);
    let store = p.store();
    p.save(&store, name, b"next", &few(6));
    assert_eq!(numbers(&store, "f"), vec![6, 5]);
}

#[test]
fn records_say_who_when_how_and_whether_the_write_was_stale() {
    let p = Project::new();
    fs::write(p.at("f"), "found").unwrap();
    let (store, name) = (p.store(), OsStr::new("f"));
    let listed = store.history().versions(Path::new("f")).unwrap();
    assert!(listed.len() == 1 && listed[0].current && listed[0].record.how == How::Found);
    p.save(&store, name, b"second", &info(2));
    let who = Who {
        pid: 42,
        command: "vi".into(),
        agent: Some("a".into()),
        uid: 7,
    };
    let current = fs::File::open(p.at("f")).unwrap();
    let seen = Seen {
        path: "f".into(),
        version: 1,
        identity: None,
    };
    let shadow = store
        .begin(SessionId(3), Path::new("f"), Some(&current), who.clone(), Some(seen), 3)
        .unwrap();
    shadow.file.as_ref().write_all(b"third").unwrap();
    let done = store.publish(shadow, &p.place(name), &info(4)).unwrap();
    assert_eq!(
        done,
        Published {
            version: 3,
            replaced: Some(2),
            stale: true,
            unkept: false,
        }
    );
    let newest = store.history().versions(Path::new("f")).unwrap().remove(0);
    let r = &newest.record;
    assert!(newest.current && r.stale && r.who == who && r.time == 4 && r.how == How::Close && r.bytes == 5);
    assert_eq!((r.based_on, r.replaced), (Some(1), Some(2)));
    assert_eq!(r.hash.as_deref(), Some(blake3::hash(b"third").to_hex().as_str()));
    let stat = RealDisk.stat_at(&p.root, name).unwrap();
    assert_eq!(store.current_version(Path::new("f"), &stat).unwrap(), Some(3));
    assert!(!store.complete_hash(Path::new("f"), 3).unwrap(), "it has one");
    assert!(
        !store.complete_hash(Path::new("f"), 1).unwrap(),
        "what was found has one too"
    );
    let listed = store.history().versions(Path::new("f")).unwrap();
    assert_eq!(
        listed[2].record.hash.as_deref(),
        Some(blake3::hash(b"found").to_hex().as_str())
    );
}

#[test]
fn a_deleted_file_stays_restorable_and_its_numbers_go_on() {
    let p = Project::new();
    let (store, name) = (p.store(), OsStr::new("f"));
    p.save(&store, name, b"one", &info(1));
    store.remove(&p.place(name), &Who::default(), &info(2)).unwrap();
    assert!(!p.at("f").exists());
    let listed = store.history().versions(Path::new("f")).unwrap();
    assert!(listed.len() == 2 && listed[0].gone && !listed[1].gone, "{listed:?}");
    assert_eq!(content(store.history(), name, 1), b"one");
    assert_eq!(store.history().paths().unwrap(), vec![PathBuf::from("f")]);
    drop(store);
    let store = p.store();
    let done = p.save(&store, name, b"again", &info(3));
    assert_eq!(
        done,
        Published {
            version: 3,
            replaced: None,
            stale: false,
            unkept: false,
        }
    );
}

#[test]
fn a_change_made_past_concordfs_becomes_a_version_of_its_own() {
    let p = Project::new();
    let (store, name) = (p.store(), OsStr::new("f"));
    p.save(&store, name, b"one", &info(1));
    fs::remove_file(p.at("f")).unwrap();
    fs::write(p.at("f"), "by hand").unwrap();
    let done = p.save(&store, name, b"three", &info(2));
    assert_eq!(
        done,
        Published {
            version: 3,
            replaced: Some(2),
            stale: true,
            unkept: false,
        }
    );
    assert_eq!(content(store.history(), name, 2), b"by hand");
    // Only the times changed: the same version.
    fs::File::open(p.at("f"))
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    assert_eq!(p.save(&store, name, b"four", &info(3)).replaced, Some(3));
}

#[test]
fn names_are_bytes() {
    let p = Project::new();
    let store = p.store();
    for name in [
        &b"new\nline"[..],
        b"not utf-8 \xff\xfe",
        &[b'x'; 255],
        b"%2F",
        b" .json",
    ] {
        let name = OsString::from_vec(name.to_vec());
        p.save(&store, &name, b"1", &info(1));
        p.save(&store, &name, b"2", &info(2));
        assert_eq!(content(store.history(), &name, 1), b"1");
        assert!(store.history().paths().unwrap().contains(&PathBuf::from(&name)));
    }
}

#[test]
fn many_threads_publish_different_files_at_once() {
    let p = Project::new();
    let store = p.store();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (store, p) = (&store, &p);
            scope.spawn(move || {
                let name = OsString::from(format!("f{thread}"));
                for n in 0..10u64 {
                    let shadow = p.begin(store, thread * 100 + n, &name);
                    shadow.file.write_all_at(&[b'0' + n as u8; 100], 0).unwrap();
                    store.publish(shadow, &p.place(&name), &info(n)).unwrap();
                }
            });
        }
    });
    for thread in 0..4 {
        assert_eq!(numbers(&store, &format!("f{thread}")).len(), 10);
    }
}

#[test]
fn a_discarded_session_is_kept_with_its_reason_and_the_oldest_go_when_there_is_too_much() {
    let p = Project::new();
    let store = p.store();
    let mut kept = Vec::new();
    for n in 0..4u64 {
        let shadow = p.begin(&store, n, OsStr::new("f"));
        shadow.file.write_all_at(&[b'x'; 1000], 0).unwrap();
        kept.push(
            store
                .discard(shadow, RecoveredKind::Staged, "killed", n)
                .unwrap()
                .unwrap(),
        );
    }
    let entry = store.history().recovered().unwrap().remove(0);
    assert_eq!(
        (entry.record.reason.as_str(), entry.record.path.as_deref()),
        ("killed", Some("f"))
    );
    assert_eq!(
        store
            .history()
            .open_recovered(&entry.name)
            .unwrap()
            .metadata()
            .unwrap()
            .len(),
        1000
    );
    store.bound_recovered_to(2500);
    let left: Vec<_> = store
        .history()
        .recovered()
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect();
    assert_eq!(left, kept[2..]);
    assert!(store.history().open_recovered("../format").is_err());
}

#[test]
fn a_file_with_two_names_leaves_a_version_that_the_other_name_cannot_change() {
    let p = Project::new();
    fs::write(p.at("f"), "one").unwrap();
    fs::hard_link(p.at("f"), p.at("g")).unwrap();
    let store = p.store();
    store
        .remove(&p.place(OsStr::new("f")), &Who::default(), &info(1))
        .unwrap();
    fs::write(p.at("g"), "changed").unwrap();
    assert_eq!(content(store.history(), OsStr::new("f"), 1), b"one");
}

#[test]
fn two_looks_at_one_mounting_are_the_same_and_another_mount_s_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let here = || RealDisk.mounting(&RealDisk::open_root(dir.path()).unwrap());
    let proc = RealDisk.mounting(&RealDisk::open_root(Path::new("/proc")).unwrap());
    assert_eq!(here(), here());
    assert!(here().is_none() || here() != proc, "{proc:?}");
}
