//! The store among garbage, strangers and second owners, and what crashes left that no journal names.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::record::Who;
use super::tests_faults::info;
use super::tests_real::{Project, content, numbers};

#[test]
fn two_daemons_cannot_own_one_tree() {
    let p = Project::new();
    let _store = p.store();
    let error = p.open().err().unwrap().to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");
}

#[test]
fn a_format_that_is_newer_or_none_is_refused_and_nothing_is_changed() {
    for (format, said) in [
        ("concordfs 4\n", "newer"),
        ("concordfs", "format"),
        ("\0\0\0", "format"),
        ("", "format"),
    ] {
        let p = Project::new();
        fs::create_dir(p.at(".concord")).unwrap();
        fs::write(p.at(".concord/format"), format).unwrap();
        let error = p.open().err().unwrap().to_string();
        assert!(error.contains(said), "{error}");
        assert_eq!(fs::read_dir(p.at(".concord")).unwrap().count(), 1);
    }
    let p = Project::new();
    fs::create_dir(p.at(".concord")).unwrap();
    fs::write(p.at(".concord/letter"), "").unwrap();
    assert!(p.open().err().unwrap().to_string().contains("letter"));
}

#[test]
fn a_store_of_the_format_before_is_taken_over() {
    let p = Project::new();
    let store = p.store();
    p.save(&store, OsStr::new("f"), b"one", &info(1));
    p.save(&store, OsStr::new("f"), b"two", &info(2));
    drop(store);
    fs::write(p.at(".concord/format"), "concordfs 1\n").unwrap();
    let store = p.store();
    assert_eq!(fs::read_to_string(p.at(".concord/format")).unwrap(), "concordfs 3\n");
    assert_eq!(content(store.history(), OsStr::new("f"), 1), b"one");
}

#[test]
fn a_planted_symlink_is_never_followed() {
    for name in ["lock", "history", "images", "shadows", "recovered", "format"] {
        let p = Project::new();
        drop(p.store());
        let path = p.at(".concord").join(name);
        let away = tempfile::tempdir().unwrap();
        fs::rename(&path, away.path().join("moved")).unwrap();
        symlink(away.path().join("moved"), &path).unwrap();
        let error = p.open().err().unwrap().to_string();
        assert!(error.contains(name), "{error}");
    }
    let p = Project::new();
    fs::write(p.at("secret"), "secret").unwrap();
    let store = p.store();
    p.save(&store, OsStr::new("f"), b"one", &info(1));
    p.save(&store, OsStr::new("f"), b"two", &info(2));
    let history = p.history_dir("f");
    fs::remove_file(history.join("1")).unwrap();
    symlink(p.at("secret"), history.join("1")).unwrap();
    assert!(store.history().open_version(Path::new("f"), 1).is_err());
    assert_eq!(numbers(&store, "f"), vec![2]);
}

#[test]
fn garbage_in_the_store_is_set_aside_and_the_versions_stay() {
    let p = Project::new();
    let store = p.store();
    for n in 1..=6u64 {
        p.save(&store, OsStr::new("f"), format!("{n}").as_bytes(), &info(n));
    }
    drop(store);
    let history = p.history_dir("f");
    let record = |n: u64| history.join(format!("{n}.json"));
    let mut flipped = fs::read(record(2)).unwrap();
    flipped[20] ^= 4;
    fs::write(record(2), flipped).unwrap();
    fs::write(record(3), "").unwrap();
    fs::write(record(4), vec![b'x'; 1 << 20]).unwrap();
    fs::write(history.join("path"), "../../etc/passwd").unwrap();
    fs::write(history.join("007"), "stranger").unwrap();
    fs::create_dir(history.join("9")).unwrap();
    symlink("/etc/passwd", record(11)).unwrap();
    let shadows = p.at(".concord/shadows");
    fs::write(shadows.join("garbage"), "?").unwrap();
    fs::create_dir(shadows.join("0000000000000001.dir")).unwrap();
    symlink("/etc/passwd", shadows.join("link")).unwrap();
    fs::remove_file(shadows.join("journal")).unwrap();
    symlink("/etc/passwd", shadows.join("journal")).unwrap();
    symlink("/etc/passwd", p.at(".concord/recovered/link")).unwrap();
    fs::write(p.at(".concord/recovered/x.json"), "{").unwrap();
    let (store, report) = p.open().unwrap();
    assert_eq!(report.items.len(), 4, "{report:?}");
    assert_eq!(numbers(&store, "f"), vec![6, 5, 4, 3, 2, 1]);
    p.save(&store, OsStr::new("f"), b"7", &info(7));
    assert_eq!(numbers(&store, "f"), vec![7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(content(store.history(), OsStr::new("f"), 3), b"3");
    assert_eq!(store.history().paths().unwrap(), vec![PathBuf::from("f")]);
    assert!(store.history().recovered().unwrap().len() >= 10);
    drop(store);
    assert_eq!(p.open().unwrap().1.items, vec![]);
}

#[test]
fn a_second_name_that_a_crash_left_in_the_history_goes_even_when_the_file_was_edited_since() {
    let p = Project::new();
    let name = OsStr::new("f");
    p.save(&p.store(), name, b"one", &info(1));
    fs::hard_link(p.at("f"), p.history_dir("f").join("1")).unwrap();
    fs::write(p.at("f"), "edited in place").unwrap();
    let store = p.store();
    p.save(&store, name, b"three", &info(2));
    assert_eq!(numbers(&store, "f"), vec![3, 2]);
    assert_eq!(content(store.history(), name, 2), b"edited in place");
}

#[test]
fn a_tombstone_of_a_removal_that_did_not_happen_is_never_shown_and_its_number_is_not_used_again() {
    let p = Project::new();
    let (store, name) = (p.store(), OsStr::new("f"));
    p.save(&store, name, b"one", &info(1));
    store.remove(&p.place(name), &Who::default(), &info(2)).unwrap();
    fs::rename(p.history_dir("f").join("1"), p.at("f")).unwrap();
    drop(store);
    let store = p.store();
    assert_eq!(numbers(&store, "f"), vec![1]);
    p.save(&store, name, b"three", &info(3));
    assert_eq!(numbers(&store, "f"), vec![3, 1]);
}
