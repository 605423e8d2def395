//! R1, R3 and R4: what readers see beside writers, by real processes on a real mount.

mod support;

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use support::puppet::Puppet;
use support::{Project, Running, eventually, succeed, watchdog};

/// Publishes a version by truncating in place, then one by a rename over the name.
fn publish_both_ways(writer: &mut Puppet, round: usize) {
    assert_eq!(
        writer.does(&format!("put('STATE.md', 'inplace {round} ' * 1000)")),
        "None"
    );
    assert_eq!(writer.does(&format!("put('x.tmp', 'renamed {round} ' * 500)")), "None");
    assert_eq!(writer.does("os.replace('x.tmp', 'STATE.md')"), "None");
}

#[test]
fn r1_a_read_handle_keeps_its_version_across_many_publishes() {
    watchdog();
    let first = "first ".repeat(2000);
    let project = Project::with(&[("STATE.md", &first)]);
    let (mut reader, mut writer) = (Puppet::new(&project), Puppet::new(&project));
    reader.does("f = open('STATE.md')");
    assert_eq!(reader.does("f.read(6)"), "first ");
    reader.does("size = os.fstat(f.fileno()).st_size");
    for round in 0..10 {
        publish_both_ways(&mut writer, round);
        assert_eq!(
            reader.does("f.seek(0) or set(f.read().split())"),
            "{'first'}",
            "round {round}"
        );
        assert_eq!(reader.does("os.fstat(f.fileno()).st_size == size"), "True");
    }
    assert_eq!(reader.does("open('STATE.md').read()[:9]"), "renamed 9");
}

#[test]
fn r1_a_mapping_keeps_its_version_across_many_publishes() {
    watchdog();
    let first = "first ".repeat(2000);
    let project = Project::with(&[("STATE.md", &first)]);
    let (mut reader, mut writer) = (Puppet::new(&project), Puppet::new(&project));
    reader.does("f = open('STATE.md', 'rb')");
    for (name, access) in [("shared", "MAP_SHARED"), ("own", "MAP_PRIVATE")] {
        let step = format!("{name} = mmap.mmap(f.fileno(), 0, mmap.{access}, mmap.PROT_READ)");
        assert_eq!(reader.does(&step), "ok");
    }
    for round in 0..5 {
        publish_both_ways(&mut writer, round);
        assert_eq!(
            reader.does("set(shared[:].split()), set(own[:].split())"),
            "({b'first'}, {b'first'})"
        );
        assert_eq!(reader.does("len(shared), len(own)"), "(12000, 12000)");
    }
}

#[test]
fn r1_readers_beside_hammering_writers_never_see_a_torn_file() {
    watchdog();
    let project = Project::with(&[("STATE.md", &"seed\n".repeat(4000))]);
    let reader = r#"
import mmap, os, time
end, seen = time.monotonic() + 4, set()
while time.monotonic() < end:
    with open('STATE.md', 'rb') as f:
        mapped = bytes(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)) if len(seen) % 2 else None
        parts = []
        while part := os.read(f.fileno(), 7001):
            parts.append(part)
    text = b''.join(parts)
    lines = set(text.split(b'\n')[:-1])
    assert len(lines) == 1 and text.count(b'\n') == 4000, (lines, len(text))
    assert not mapped or len(set(mapped.split(b'\n')[:-1])) == 1 and mapped.count(b'\n') == 4000
    seen |= lines
print(len(seen))
"#;
    let writer = r#"
import os, sys, time
me, end, n = sys.argv[1], time.monotonic() + 4, 0
while time.monotonic() < end:
    n += 1
    line = f'{me}{n}\n'
    if me == 'a':
        with open('STATE.md', 'w') as f:
            for _ in range(4): f.write(line * 1000); f.flush()
    elif me == 'b':
        with open(f'STATE.md.tmp.{os.getpid()}.{n}', 'w') as f: f.write(line * 4000)
        os.replace(f.name, 'STATE.md')
    else:
        with open('STATE.md', 'r+') as f:
            f.write(line * 2000); f.flush(); f.write(line * 2000); f.truncate()
"#;
    let mut writers: Vec<Running> = ["a", "b", "c"]
        .iter()
        .map(|name| {
            let mut command = project.python(writer);
            command.arg(name);
            Running::start(command)
        })
        .collect();
    let mut readers: Vec<Running> = (0..2).map(|_| Running::start(project.python(reader))).collect();
    for reader in &mut readers {
        let seen: usize = reader.hear().parse().expect("the reader found a torn file");
        assert!(seen > 3, "a reader saw only {seen} versions");
    }
    for writer in writers.drain(..) {
        assert!(writer.finish().success());
    }
}

#[test]
fn r3_readers_and_writers_do_not_wait_for_each_other() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let (mut reader, mut writer) = (Puppet::new(&project), Puppet::new(&project));
    reader.does("f = open('STATE.md')");
    reader.does("f.read(1)");
    let start = Instant::now();
    assert_eq!(
        writer.does("w = open('STATE.md', 'w')"),
        "ok",
        "a writer does not wait for a reader"
    );
    assert_eq!(writer.does("(w.write('half'), w.flush())"), "(4, None)");
    assert_eq!(
        reader.does("get('STATE.md')"),
        "v1\n".trim_end(),
        "nor a reader for a writer"
    );
    reader.says();
    assert_eq!(writer.does("w.close()"), "None");
    assert_eq!(reader.does("get('STATE.md')"), "half");
    assert!(start.elapsed() < Duration::from_secs(4), "somebody waited");
}

#[test]
fn r4_others_see_the_current_version_and_the_holder_its_shadow() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    succeed(project.sh("touch -d '2001-02-03 04:05:06 UTC' STATE.md"));
    let (mut other, mut holder) = (Puppet::new(&project), Puppet::new(&project));
    let stat = "(lambda s: (s.st_size, int(s.st_mtime)))(os.stat('STATE.md'))";
    holder.does("f = open('STATE.md', 'r+')");
    assert_eq!(holder.does(stat), "(3, 981173106)", "an open alone changes nothing");
    holder.does("f.write('0123456789')");
    holder.does("f.flush()");
    assert_eq!(other.does(stat), "(3, 981173106)");
    assert_eq!(
        holder.does("os.stat('STATE.md').st_size, os.fstat(f.fileno()).st_size"),
        "(10, 10)"
    );
    assert_eq!(holder.does("time.time() - os.stat('STATE.md').st_mtime < 60"), "True");
    assert_eq!(other.does(stat), "(3, 981173106)");
    holder.does("f.close()");
    assert_eq!(other.does("os.stat('STATE.md').st_size"), "10");
}

#[test]
fn r4_the_time_after_close_is_that_of_the_last_write() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let (mut other, mut writer) = (Puppet::new(&project), Puppet::new(&project));
    for (name, mode) in [("STATE.md", "w"), ("STATE.md", "r+"), ("NEW.md", "w")] {
        writer.does(&format!("f = open('{name}', '{mode}')"));
        writer.does("f.write('text')");
        writer.does("f.flush()");
        writer.does("time.sleep(0.3)");
        let written = writer.does("os.fstat(f.fileno()).st_mtime_ns");
        writer.does("time.sleep(0.3)");
        writer.does("f.close()");
        let stat = format!("os.stat('{name}').st_mtime_ns");
        assert_eq!(writer.does(&stat), written, "{name} {mode}");
        assert_eq!(other.does(&stat), written, "{name} {mode}");
        assert_eq!(other.does(&format!("open('{name}').read(4)")), "text");
        assert_eq!(other.does(&stat), written, "{name} {mode}");
    }
}

#[test]
fn r4_a_file_that_was_only_truncated_has_the_time_of_that() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let mut writer = Puppet::new(&project);
    for _ in 0..3 {
        // Its shadow may have been made when the one before was published.
        writer.does("time.sleep(0.4)");
        writer.does("begun = time.time_ns()");
        writer.does("open('STATE.md', 'w').close()");
        // The kernel's clock for files ticks every 10 ms at most.
        assert_eq!(
            writer.does("os.stat('STATE.md').st_mtime_ns > begun - 100_000_000"),
            "True"
        );
    }
}

#[test]
fn r4_in_place_writes_that_nobody_contends_keep_the_inode_number() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let before = std::fs::metadata(project.path("STATE.md")).unwrap().ino();
    let mut writer = Puppet::new(&project);
    let daemon = project.status()["pid"].as_u64().unwrap();
    let is_open = || {
        let held = std::fs::read_dir(format!("/proc/{daemon}/fd")).unwrap();
        let links = held.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        links.filter(|to| to.ends_with("STATE.md")).count() > 0
    };
    for round in 0..5 {
        eventually("the RELEASE, which close(2) does not wait for", || !is_open());
        writer.does(&format!(
            "f = open('STATE.md', '{}')",
            if round % 2 == 0 { "w" } else { "r+" }
        ));
        writer.does("f.write('more')");
        assert_eq!(writer.does("os.fstat(f.fileno()).st_ino"), before.to_string());
        writer.does("f.close()");
        assert_eq!(writer.does("os.stat('STATE.md').st_ino"), before.to_string());
        assert_eq!(
            std::fs::metadata(project.path("STATE.md")).unwrap().ino(),
            before,
            "round {round}"
        );
    }
}

/// Whoever looks the name up meanwhile finds another node there. The process that tells watchers of publishes does so each time.
#[test]
fn r4_a_look_at_a_file_that_is_being_written_does_not_change_its_inode_number() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let (mut writer, mut looker) = (Puppet::new(&project), Puppet::new(&project));
    let before = looker.does("os.stat('STATE.md').st_ino");
    for round in 0..20 {
        writer.does("f = open('STATE.md', 'w')");
        writer.does("f.write('more')");
        looker.does("os.stat('STATE.md')");
        writer.does("f.close()");
        assert_eq!(looker.does("os.stat('STATE.md').st_ino"), before, "round {round}");
        assert_eq!(writer.does("os.stat('STATE.md').st_ino"), before, "round {round}");
    }
}

/// vim, cp and install compare what they found with what they have opened; `tail -F` knows a new version by its number.
#[test]
fn r4_who_writes_beside_readers_is_shown_the_number_that_he_has_found_until_he_has_saved() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let (mut reader, mut writer) = (Puppet::new(&project), Puppet::new(&project));
    let found = |puppet: &mut Puppet| puppet.does("os.stat('STATE.md').st_ino");
    for (round, open) in [
        "os.O_RDWR",
        "os.O_WRONLY | os.O_TRUNC",
        "os.O_WRONLY | os.O_CREAT",
        "os.O_RDWR",
    ]
    .into_iter()
    .enumerate()
    {
        let read = format!("r{round} = os.open('STATE.md', os.O_RDONLY); os.read(r{round}, 1)");
        assert_eq!(reader.does(&read), "ok");
        let before = found(&mut writer);
        assert_eq!(writer.does(&format!("w = os.open('STATE.md', {open})")), "ok");
        for step in ["None", "os.write(w, b'more')", "os.close(os.dup(w))"] {
            writer.does(step);
            assert_eq!(writer.does("os.fstat(w).st_ino"), before, "{open}, {step}");
            assert_eq!(found(&mut writer), before, "{open}, {step}");
            assert_eq!(found(&mut reader), before, "{open}, {step}");
        }
        // Of its own lineage: it has a version of its own beside.
        assert_eq!(writer.does("t = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)"), "ok");
        assert_eq!(writer.does("os.fstat(t).st_ino"), before, "{open}");
        let version = project.history("STATE.md").len();
        assert_eq!(writer.does("os.close(t)"), "None");
        assert_eq!(
            project.history("STATE.md").len(),
            version.max(1) + 1,
            "{open}: t was closed"
        );
        assert_eq!(writer.does("os.write(w, b'x'), os.close(w)"), "(1, None)");
        assert_eq!(
            project.history("STATE.md").len(),
            version.max(1) + 2,
            "{open}: w was closed"
        );
        let after = found(&mut writer);
        assert_eq!(found(&mut reader), after, "{open}");
        assert_ne!(after, before, "{open}");
        assert_eq!(reader.does(&format!("os.fstat(r{round}).st_ino")), before, "{open}");
    }
}

#[test]
fn r4_what_an_unlock_has_published_has_a_number_of_its_own_by_name_and_by_descriptor() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let (mut reader, mut writer) = (Puppet::new(&project), Puppet::new(&project));
    let before = reader.does("os.stat('STATE.md').st_ino");
    assert_eq!(reader.does("r = os.open('STATE.md', os.O_RDONLY); os.read(r, 1)"), "ok");
    let step = "w = os.open('STATE.md', os.O_RDWR); fcntl.flock(w, fcntl.LOCK_EX); os.write(w, b'v2')";
    assert_eq!(writer.does(step), "ok");
    assert_eq!(writer.does("os.fstat(w).st_ino"), before);
    assert_eq!(writer.does("fcntl.flock(w, fcntl.LOCK_UN)"), "None");
    let after = reader.does("os.stat('STATE.md').st_ino");
    assert_ne!(after, before);
    assert_eq!(writer.does("os.fstat(w).st_ino"), after);
    assert_eq!(writer.does("os.stat('STATE.md').st_ino"), after);
    assert_eq!(reader.does("os.fstat(r).st_ino"), before);
}

/// By the number that it is shown by, the one descriptor is on the other's file.
#[test]
fn w5_a_close_is_the_last_although_another_file_of_the_process_is_shown_by_the_same_number() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    for many in [0, 20] {
        let mut puppet = Puppet::new(&project);
        let step = format!("n = [os.open('/dev/null', os.O_RDONLY) for _ in range({many})]");
        assert_eq!(puppet.does(&step), "ok");
        assert_eq!(puppet.does("r = os.open('STATE.md', os.O_RDONLY)"), "ok");
        assert_eq!(puppet.does("a = os.open('STATE.md', os.O_WRONLY | os.O_APPEND)"), "ok");
        assert_eq!(puppet.does("w = os.open('STATE.md', os.O_RDWR); d = os.dup(w)"), "ok");
        // Not before the kernel has asked does it show the number.
        assert_eq!(puppet.does("os.fstat(w).st_ino == os.fstat(a).st_ino"), "True");
        assert_eq!(puppet.does("os.write(w, b'v2'), os.close(w)"), "(2, None)");
        let before = project.history("STATE.md").len();
        assert_eq!(puppet.does("os.close(d)"), "None");
        assert_eq!(project.history("STATE.md").len(), before.max(1) + 1, "{many}");
    }
}

#[test]
fn r4_a_set_time_survives_the_close() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let (mut other, mut writer) = (Puppet::new(&project), Puppet::new(&project));
    writer.does("f = open('STATE.md', 'w')");
    writer.does("f.write('copied')");
    writer.does("f.flush()");
    assert_eq!(writer.does("os.utime(f.fileno(), (1000, 2000))"), "None");
    writer.does("f.close()");
    assert_eq!(other.does("os.stat('STATE.md').st_mtime"), "2000.0");
    assert_eq!(writer.does("os.stat('STATE.md').st_mtime"), "2000.0");
}

/// The writer's handle lives on: it had taken over the node that the name leads to again.
#[test]
fn r1_what_a_session_staged_in_vain_is_never_read() {
    watchdog();
    let rules = "wait = '30s'\nlease_max = '300ms'\n";
    let project = Project::with(&[("STATE.md", "v1"), ("concord.toml", rules)]);
    let (mut late, mut next) = (Puppet::new(&project), Puppet::new(&project));
    late.does("fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)");
    assert_eq!(late.does("os.write(fd, b'half')"), "4");
    assert_eq!(next.does("os.close(os.open('STATE.md', os.O_RDWR))"), "None");
    assert_eq!(project.recovered().len(), 1, "the lease ran out");
    assert_eq!(project.read("STATE.md"), "v1");
    assert_eq!(std::fs::metadata(project.path("STATE.md")).unwrap().len(), 2);
}

#[test]
fn r1_a_session_that_changed_nothing_leaves_what_it_found_to_others() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1")]);
    let mut writer = Puppet::new(&project);
    writer.does("fd = os.open('STATE.md', os.O_RDWR)");
    writer.does("a, b = socket.socketpair()");
    assert_eq!(
        writer.does("socket.send_fds(a, [b'x'], [fd]), os.close(fd)"),
        "(1, None)"
    );
    project.await_sessions(0, 0);
    assert_eq!(
        project.read("STATE.md"),
        "v1",
        "its description is still open, on its way"
    );
    writer.does("fd = socket.recv_fds(b, 1, 1)[1][0]");
    assert_eq!(writer.does("os.read(fd, 9)"), "b'v1'");
}

#[test]
fn r4_a_change_of_mode_alone_leaves_the_time() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let mut writer = Puppet::new(&project);
    assert_eq!(writer.does("os.utime('STATE.md', (5, 6))"), "None");
    writer.does("f = open('STATE.md', 'r+')");
    assert_eq!(writer.does("os.fchmod(f.fileno(), 0o600)"), "None");
    assert_eq!(writer.does("os.fstat(f.fileno()).st_mtime"), "6.0");
    assert_eq!(writer.does("f.close()"), "None");
    assert_eq!(
        writer.does("os.stat('STATE.md').st_mtime, oct(os.stat('STATE.md').st_mode)"),
        "(6.0, '0o100600')"
    );
}

/// What it goes back to is a version of its own then, with the time that it had.
#[test]
fn r4_a_change_of_mode_of_a_version_that_was_replaced_leaves_its_time() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let mut writer = Puppet::new(&project);
    assert_eq!(writer.does("os.utime('STATE.md', (5, 6))"), "None");
    // What is mapped stays what it was.
    writer.does("f = open('STATE.md', 'r+b'); m = mmap.mmap(f.fileno(), 0); x = m[0]");
    assert_eq!(writer.does("put('STATE.md', 'v2\\n')"), "None");
    assert_eq!(writer.does("os.fchmod(f.fileno(), 0o600)"), "None");
    assert_eq!(writer.does("m.close(); f.close()"), "ok");
    assert_eq!(
        writer.does("os.stat('STATE.md').st_mtime, get('STATE.md')"),
        "(6.0, 'v1\\n')"
    );
}

#[test]
fn r1_a_path_descriptor_keeps_its_version() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let (mut reader, mut writer) = (Puppet::new(&project), Puppet::new(&project));
    writer.does("put('x.tmp', 'the third one')");
    let (mut size, mut number) = (3, 0);
    // A file that was written in place has its link still, as anywhere.
    for (replace, next, links) in [
        ("put('STATE.md', 'the second')", 10, 1),
        ("os.replace('x.tmp', 'STATE.md')", 13, 0),
        ("os.unlink('STATE.md')", 0, 0),
    ] {
        number += 1;
        reader.does(&format!("path{number} = os.open('STATE.md', os.O_PATH)"));
        // With a handle beside it, so that the writer does not take over its node.
        reader.does("f = open('STATE.md')");
        assert_eq!(writer.does(replace), "None");
        assert_eq!(reader.does("f.close()"), "None");
        let seen = format!("(lambda s: (s.st_size, s.st_nlink))(os.fstat(path{number}))");
        assert_eq!(reader.does(&seen), format!("({size}, {links})"), "{replace}");
        size = next;
    }
}

/// The node that it has by its path descriptor becomes the writer's, and no walk leads it to another.
#[test]
fn r3_a_reader_by_path_descriptor_gets_the_current_version() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let (mut reader, mut writer) = (Puppet::new(&project), Puppet::new(&project));
    reader.does("path = os.open('STATE.md', os.O_PATH)");
    writer.does("fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)");
    assert_eq!(writer.does("os.write(fd, b'half')"), "4");
    assert_eq!(
        reader.does("os.read(os.open('/proc/self/fd/%d' % path, os.O_RDONLY), 10)"),
        r"b'v1\n'"
    );
    assert_eq!(writer.does("os.close(fd)"), "None");
    assert_eq!(reader.does("get('STATE.md')"), "half");
}

/// git maps what is longer than 32 KiB, grep and cmp read it; a mapping that is read page by page must not change under them.
#[test]
fn r1_programs_that_map_a_file_see_whole_versions() {
    watchdog();
    let project = Project::with(&[("STATE.md", &"a".repeat(100_000))]);
    // It ends with the test.
    let writer = "while :; do
    head -c 300000 /dev/zero | tr '\\0' b > t; mv t STATE.md
    head -c 100000 /dev/zero | tr '\\0' a > STATE.md
done";
    let _writing = Running::start(project.sh(writer));
    let reader = "import mmap, os, subprocess, hashlib
def git(text): return hashlib.sha1(b'blob %d\\0' % len(text) + text).hexdigest()
whole = [b'a' * 100000, b'b' * 300000]
seen = set()
for i in range(25):
    said = subprocess.run(['git', 'hash-object', 'STATE.md'], capture_output=True, text=True, check=True).stdout.strip()
    assert said in map(git, whole), said
    seen.add(said)
    for flags in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
        with open('STATE.md', 'rb') as f:
            m = mmap.mmap(f.fileno(), 0, flags, mmap.PROT_READ)
            first = m[:4096]
            os.sched_yield()
            assert m[:] in whole and m[:4096] == first
    assert subprocess.run(['grep', '-c', 'ab', 'STATE.md'], capture_output=True).stdout == b'0\\n'
print(len(seen))";
    assert_eq!(succeed(project.python(reader)), "2\n", "both contents were met");
}
