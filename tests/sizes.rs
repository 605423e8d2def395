//! R1 and R2: who asks a descriptor how long the file is, and reads so much, gets a whole version.

mod support;

use std::time::Duration;

use support::puppet::Puppet;
use support::{Project, watchdog};

const OLD: &str = "old version.";

/// What a program does with a descriptor, as functions of a puppet's. They read by descriptor, in pieces that are none of the file's size.
const WAYS: [&str; 3] = [
    "def by_fstat(fd): return os.fstat(fd).st_size",
    "def by_end(fd): n = os.lseek(fd, 0, 2); os.lseek(fd, 0, 0); return n",
    "def pieces(fd, n):\x1f out = b''\x1f while len(out) < n:\x1f  piece = os.read(fd, 7)\x1f  if not piece: break\x1f  out += piece\x1f return out[:n].decode()",
];

fn reader_of(project: &Project) -> Puppet {
    let mut reader = Puppet::new(project);
    for way in WAYS {
        assert_eq!(reader.does(way), "ok");
    }
    reader
}

fn opens(reader: &mut Puppet, name: &str) {
    reader.does(&format!("fd = os.open('{name}', os.O_RDONLY)"));
}

#[test]
fn r2_who_asks_where_the_file_ends_after_a_save_reads_that_version_whole() {
    watchdog();
    let names = ["a.md", "b.md", "c.md", "d.md", "e.md", "f.md", "g.md", "h.md"];
    let mut left = names.iter();
    // Each file is opened once: no handle of before is on the node.
    let project = Project::with(&names.map(|name| (name, OLD)));
    let (mut reader, mut writer) = (reader_of(&project), Puppet::new(&project));
    for new in ["a much longer version.".repeat(300), "short.".to_owned()] {
        for renames in [false, true] {
            for after_fstat in [false, true] {
                let name = left.next().unwrap();
                let case = format!(
                    "{name}: {} bytes, renamed: {renames}, after fstat: {after_fstat}",
                    new.len()
                );
                opens(&mut reader, name);
                if after_fstat {
                    assert_eq!(reader.does("by_fstat(fd)"), OLD.len().to_string(), "{case}");
                }
                let saved_as = if renames { "x.tmp" } else { *name };
                writer.does(&format!("put('{saved_as}', '{new}')"));
                if renames {
                    writer.does(&format!("os.rename('x.tmp', '{name}')"));
                }
                assert_eq!(reader.does("n = by_end(fd)"), "ok");
                assert_eq!(reader.does("n"), new.len().to_string(), "{case}");
                assert!(reader.does("pieces(fd, n)") == new, "{case}: not the whole of it");
                assert_eq!(reader.does("by_fstat(fd)"), new.len().to_string(), "{case}");
                reader.does("os.close(fd)");
            }
        }
    }
}

#[test]
fn r1_who_asked_where_the_file_ends_reads_so_far_whatever_is_saved_then() {
    watchdog();
    let project = Project::with(&[("STATE.md", OLD)]);
    let (mut reader, mut writer) = (reader_of(&project), Puppet::new(&project));
    opens(&mut reader, "STATE.md");
    // As Python's open() does.
    reader.does("by_fstat(fd)");
    assert_eq!(reader.does("n = by_end(fd)"), "ok");
    writer.does("put('STATE.md', 'a much longer version.')");
    assert_eq!(reader.does("pieces(fd, n)"), OLD);
    assert_eq!(reader.does("by_fstat(fd)"), OLD.len().to_string());
    // A lock releases the binding.
    assert_eq!(reader.does("fcntl.flock(fd, fcntl.LOCK_SH)"), "None");
    assert_eq!(reader.does("n = by_end(fd)"), "ok");
    writer.does("put('STATE.md', 'a version that is longer than all before.')");
    assert_eq!(reader.does("pieces(fd, n)"), "a much longer version.");
    // Then fstat(2) binds as well.
    assert_eq!(reader.does("fcntl.flock(fd, fcntl.LOCK_SH), by_end(fd)"), "(None, 41)");
    assert_eq!(reader.does("fcntl.flock(fd, fcntl.LOCK_SH)"), "None");
    writer.does("put('STATE.md', 'short.')");
    assert_eq!(reader.does("fcntl.flock(fd, fcntl.LOCK_SH)"), "None");
    assert_eq!(reader.does("n = by_fstat(fd)"), "ok");
    writer.does("put('STATE.md', 'longer again.')");
    assert_eq!(reader.does("n, pieces(fd, n)"), "(6, 'short.')");
}

/// A file that nobody has written for a second: the kernel keeps its attributes, and has asked nobody since the open.
#[test]
fn r1_who_asks_at_once_where_a_quiet_file_ends_reads_so_far() {
    watchdog();
    let project = Project::with(&[("STATE.md", OLD)]);
    let (mut reader, mut writer) = (reader_of(&project), Puppet::new(&project));
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(reader.does("os.stat('STATE.md').st_size"), OLD.len().to_string());
    opens(&mut reader, "STATE.md");
    assert_eq!(reader.does("n = by_end(fd)"), "ok");
    writer.does("put('STATE.md', 'a much longer version.')");
    assert_eq!(reader.does("n, pieces(fd, n)"), format!("({}, '{OLD}')", OLD.len()));
}

#[test]
fn r2_who_asks_where_the_file_ends_beside_another_handle_reads_one_version_whole() {
    watchdog();
    let project = Project::with(&[("a.md", OLD), ("b.md", OLD)]);
    let (mut reader, mut other, mut writer) = (reader_of(&project), reader_of(&project), Puppet::new(&project));
    for (name, new) in [
        ("a.md", "a much longer version.".repeat(300)),
        ("b.md", "short.".to_owned()),
    ] {
        opens(&mut reader, name);
        opens(&mut other, name);
        other.does("m = mmap.mmap(fd, 0, prot=mmap.PROT_READ)");
        assert_eq!(other.does("m[:].decode()"), OLD);
        writer.does(&format!("put('{name}', '{new}')"));
        assert_eq!(reader.does("n = by_end(fd)"), "ok");
        writer.does(&format!("put('{name}', '{}')", "the next version".repeat(9000)));
        assert!(reader.does("pieces(fd, n)") == new, "{name}: not the whole of it");
        assert_eq!(
            other.does("m[:].decode(), by_fstat(fd)"),
            format!("('{OLD}', {})", OLD.len())
        );
        assert_eq!(other.does("pieces(fd, 99)"), OLD);
    }
}
