//! How far a publish waits for the disk, and what a disk that fails leaves: what the daemon asks of it, seen and refused by strace(1).

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use support::puppet::Puppet;
use support::{Project, Running, concord, eventually, run, watchdog};

const SYNCS: &str = "fsync,fdatasync";

/// The syncs of the daemon while a file that has a history is changed once more, by a shell's redirection `into` it.
fn syncs_of(into: &str, durability: &str) -> Option<usize> {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("strace is not installed: what the daemon asks of the disk cannot be seen");
        return None;
    }
    let rules = format!("durability = \"{durability}\"\n");
    let project = Project::unmounted(&[("a.md", "one\n"), ("concord.toml", &rules)]);
    let trace = project.outside().join("trace");
    let mut traced = Command::new("strace");
    traced
        .args(["-f", "-qq", "-e", "trace=fsync,fdatasync,sync_file_range", "-o"])
        .arg(&trace);
    traced
        .arg(env!("CARGO_BIN_EXE_concord"))
        .args(["mount", "--foreground"])
        .arg(project.root());
    let daemon = Running::start(traced);
    eventually("it is mounted", || project.root().join(".concord/daemon.json").exists());
    let save = |text: &str| assert!(run(project.sh(&format!("echo {text} {into} a.md"))).status.success());
    let syncs = || {
        std::fs::read_to_string(&trace)
            .unwrap()
            .lines()
            .filter(|line| line.contains("sync("))
            .count()
    };
    save("two");
    let before = syncs();
    save("three");
    // What follows the answer is done when the mount has gone.
    let mut unmount = concord(&["unmount"]);
    unmount.arg(project.root());
    assert!(run(unmount).status.success());
    assert!(daemon.finish().success());
    assert!(
        std::fs::read_to_string(project.path("a.md"))
            .unwrap()
            .ends_with("three\n")
    );
    Some(syncs() - before)
}

#[test]
fn f2_full_waits_for_content_and_name_atomic_for_content_and_fast_for_nothing() {
    watchdog();
    let of = |durability| syncs_of(">", durability);
    if let (Some(full), Some(atomic), Some(fast)) = (of("full"), of("atomic"), of("fast")) {
        assert_eq!((full, atomic, fast), (2, 1, 0));
    }
}

/// The directory for what says that lines are being appended, and the lines before that goes. Else a disk that loses what it had not written would leave
/// zeros in the log that nobody knows of.
#[test]
fn f2_w10_lines_are_on_disk_before_what_says_that_they_are_being_appended_goes() {
    watchdog();
    let of = |durability| syncs_of(">>", durability);
    if let (Some(full), Some(atomic), Some(fast)) = (of("full"), of("atomic"), of("fast")) {
        assert_eq!((full, atomic, fast), (2, 2, 0));
    }
}

/// strace(1) on a daemon that runs: from now on these system calls fail with this errno; only those on `at`, if given.
fn failing(project: &Project, daemon: u32, calls: &str, errno: &str, at: Option<&Path>) -> Option<Running> {
    injected(project, daemon, calls, &format!("error={errno}"), at)
}

/// The first publish has the daemon start who tells watchers of it. strace(1) follows, and does not get away from a process that is just starting another.
fn await_teller(project: &Project, daemon: u32) {
    assert!(run(project.sh("echo first > first.md")).status.success());
    eventually("who tells watchers runs", || {
        let threads = std::fs::read_dir(format!("/proc/{daemon}/task")).unwrap().flatten();
        let children = threads.map(|thread| std::fs::read_to_string(thread.path().join("children")));
        let children: Vec<String> = children.filter_map(Result::ok).collect();
        children.iter().flat_map(|list| list.split_whitespace()).any(|child| {
            let command = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            command.split(|byte| *byte == 0).nth(1) == Some(b"tell")
        })
    });
}

/// The same with whatever strace can do to system calls.
fn injected(project: &Project, daemon: u32, calls: &str, what: &str, at: Option<&Path>) -> Option<Running> {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("strace is not installed: a disk that fails cannot be had");
        return None;
    }
    await_teller(project, daemon);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", &format!("trace={calls}"), "-e"]);
    strace.arg(format!("inject={calls}:{what}"));
    strace.arg("-o").arg(project.outside().join("trace"));
    if let Some(path) = at {
        strace.arg("-P").arg(path);
    }
    strace.args(["-p", &daemon.to_string()]);
    let tracer = Running::start(strace);
    eventually("strace has all threads of the daemon", || {
        std::fs::read_dir(format!("/proc/{daemon}/task"))
            .unwrap()
            .flatten()
            .all(|thread| {
                std::fs::read_to_string(thread.path().join("status"))
                    .is_ok_and(|status| status.contains(&format!("TracerPid:\t{}\n", tracer.pid())))
            })
    });
    Some(tracer)
}

/// `concord` with these arguments, to which the disk does not give one file.
fn without(project: &Project, file: &str, arguments: &[&str]) -> Option<std::process::Output> {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("strace is not installed: a disk that fails cannot be had");
        return None;
    }
    let mut strace = Command::new("strace");
    strace.args([
        "-f",
        "-qq",
        "-e",
        "trace=read,pread64",
        "-e",
        "inject=read,pread64:error=EIO",
    ]);
    strace.arg("-P").arg(project.path(file));
    strace.arg("-o").arg(project.outside().join("trace"));
    strace.arg(env!("CARGO_BIN_EXE_concord")).args(arguments);
    Some(run(strace))
}

#[test]
fn f5_a_mount_whose_disk_fails_is_unmounted_although_daemon_json_cannot_be_read() {
    watchdog();
    let mut project = Project::unmounted(&[("a.md", "one\n")]);
    for force in [false, true] {
        project.mount();
        let root = project.root();
        let arguments = ["unmount", root.to_str().unwrap(), "--force"];
        let arguments = &arguments[..if force { 3 } else { 2 }];
        let Some(unmounted) = without(&project, ".concord/daemon.json", arguments) else {
            return;
        };
        let trace = std::fs::read_to_string(project.outside().join("trace")).unwrap();
        assert!(trace.contains("(INJECTED)"), "{trace}");
        assert!(unmounted.status.success(), "{}", support::text(&unmounted.stderr));
        assert_eq!(support::mounts_at(&project.root()), 0);
    }
}

#[test]
fn h2_a_history_whose_records_the_disk_does_not_give_says_so_and_fails() {
    watchdog();
    let mut project = Project::with(&[("a.md", "one\n")]);
    for text in ["two\n", "three\n"] {
        project.save("a.md", text);
    }
    let record = project.history("a.md")[1].clone();
    assert_eq!((&record["version"], &record["how"]), (&2.into(), &"close".into()));
    project.unmount();
    let key = std::fs::read_dir(project.path(".concord/history"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let key = std::fs::read_dir(key).unwrap().next().unwrap().unwrap().path();
    let record = key.join("2.json");
    let record = record.strip_prefix(project.root()).unwrap().to_str().unwrap();
    let file = project.path("a.md");
    let Some(listed) = without(&project, record, &["history", file.to_str().unwrap()]) else {
        return;
    };
    let (list, said) = (support::text(&listed.stdout), support::text(&listed.stderr));
    assert_eq!(listed.status.code(), Some(1), "{list}{said}");
    assert!(list.lines().count() > 2, "what can be read is listed: {list}");
    assert!(said.contains("a.md: the disk fails") && said.contains(record), "{said}");
}

/// The system calls of the daemon work again.
fn end(tracer: Running) {
    tracer.signal(Signal::INT);
    tracer.finish();
}

/// Nothing of the publish itself is synced with this durability: what the writer was told is all that there is to know.
#[test]
fn f3_after_a_failed_sync_the_session_is_not_published() {
    watchdog();
    let mut project = Project::unmounted(&[("a.md", "one\n"), ("concord.toml", "durability = \"fast\"\n")]);
    let daemon = project.mount();
    let mut writer = Puppet::new(&project);
    writer.does("fd = os.open('a.md', os.O_WRONLY | os.O_TRUNC)");
    writer.does("os.write(fd, b'half')");
    let Some(tracer) = failing(&project, daemon, SYNCS, "EIO", None) else {
        return;
    };
    assert_eq!(writer.does("os.fsync(fd)"), "EIO");
    end(tracer);
    assert_eq!(writer.does("os.fsync(fd)"), "EIO", "the kernel would call it clean now");
    assert_eq!(writer.does("os.close(fd)"), "EIO");
    assert_eq!(project.read("a.md"), "one\n");
    let recovered = project.recovered();
    assert_eq!(recovered.len(), 1, "{recovered:?}");
    let kept = project.path(recovered[0]["kept"].as_str().unwrap());
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "half");
}

/// The beginning of a line has a file of its own, which is synced by fsync(2); the log is by fdatasync(2).
#[test]
fn f3_what_an_appender_has_held_back_is_synced_and_after_a_failure_not_published() {
    watchdog();
    let mut project = Project::unmounted(&[("a.md", "one\n"), ("concord.toml", "durability = \"fast\"\n")]);
    let daemon = project.mount();
    let mut logger = Puppet::new(&project);
    logger.does("fd = os.open('a.md', os.O_WRONLY | os.O_APPEND)");
    logger.does("os.write(fd, b'two\\nhalf a li')");
    assert_eq!(logger.does("os.fsync(fd)"), "None");
    let Some(tracer) = failing(&project, daemon, "fsync", "EIO", None) else {
        return;
    };
    assert_eq!(logger.does("os.fdatasync(fd)"), "EIO");
    end(tracer);
    for call in ["os.fsync(fd)", "os.write(fd, b'ne\\n')", "os.close(fd)"] {
        assert_eq!(logger.does(call), "EIO", "{call}: the kernel would call it clean now");
    }
    assert_eq!(project.read("a.md"), "one\ntwo\n");
    let recovered = project.recovered();
    assert_eq!(recovered.len(), 1, "{recovered:?}");
    let kept = project.path(recovered[0]["kept"].as_str().unwrap());
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "half a li");
}

/// The same of the publish's own sync. With this durability, and a history that is there already, it is the only one.
#[test]
fn f3_a_publish_that_cannot_be_synced_is_an_error_of_close() {
    watchdog();
    let mut project = Project::unmounted(&[("a.md", "zero\n"), ("concord.toml", "durability = \"atomic\"\n")]);
    let daemon = project.mount();
    let mut writer = Puppet::new(&project);
    assert_eq!(writer.does("put('a.md', 'one\\n')"), "None");
    writer.does("fd = os.open('a.md', os.O_WRONLY | os.O_TRUNC)");
    writer.does("os.write(fd, b'half')");
    let Some(_tracer) = failing(&project, daemon, SYNCS, "EIO", None) else {
        return;
    };
    assert_eq!(writer.does("os.close(fd)"), "EIO");
    assert_eq!(project.read("a.md"), "one\n");
    assert_eq!(project.recovered().len(), 1);
}

#[test]
fn f3_what_the_disk_says_to_a_new_shadow_is_said_to_the_writer() {
    watchdog();
    let mut project = Project::unmounted(&[]);
    // Behind the mount: the kernel's names for what the daemon has open there are also strace's.
    let backing = project.outside().join("backing");
    std::fs::create_dir(&backing).unwrap();
    std::fs::write(backing.join("a.md"), "one\n").unwrap();
    let daemon = project.mount_with(&["--backing", backing.to_str().unwrap()]);
    let shadows = std::fs::canonicalize(&backing).unwrap().join(".concord/shadows");
    let mut writer = Puppet::new(&project);
    for errno in ["EROFS", "EDQUOT", "ENOSPC", "EIO"] {
        let Some(tracer) = failing(&project, daemon, "openat,linkat", errno, Some(&shadows)) else {
            return;
        };
        assert_eq!(writer.does("os.open('a.md', os.O_RDWR)"), errno);
        assert_eq!(writer.does("put('a.md', 'half')"), errno);
        assert_eq!(project.read("a.md"), "one\n");
        end(tracer);
        assert_eq!(writer.does("put('a.md', 'one\\n')"), "None", "it works again");
    }
    assert_eq!(std::fs::read_dir(shadows).unwrap().count(), 1, "the journal only");
}

/// fsync(2) and the copy of a base may take long. They wait on threads of their own, which read no requests, and who only looks does not wait at all.
#[test]
fn r3_a_disk_that_takes_long_over_one_session_holds_up_nobody_else() {
    watchdog();
    let mut project = Project::unmounted(&[("a.md", "one\n"), ("concord.toml", "durability = \"fast\"\n")]);
    std::fs::write(project.path("big.md"), vec![b'x'; 4 << 20]).unwrap();
    let daemon = project.mount();
    let (mut writer, mut other) = (Puppet::new(&project), Puppet::new(&project));
    writer.does("fd = os.open('a.md', os.O_WRONLY | os.O_TRUNC)");
    writer.does("os.write(fd, b'half')");
    writer.does("big = os.open('big.md', os.O_RDWR)");
    let slow = [SYNCS, "copy_file_range"].join(",");
    let Some(tracer) = injected(&project, daemon, &slow, "delay_enter=60000000", None) else {
        return;
    };
    writer.does(
        "slow = [threading.Thread(target=call) for call in (lambda: os.fsync(fd), lambda: os.pwrite(big, b'y', 0))]",
    );
    writer.does("[thread.start() for thread in slow]");
    for name in ["a.md", "big.md"] {
        let looks = format!("[threading.Thread(target=os.stat, args=('{name}',)) for _ in range(8)]");
        writer.does(&format!("looking = {looks}"));
        writer.does("[thread.start() for thread in looking]");
        writer.does("[thread.join() for thread in looking]");
    }
    assert_eq!(
        writer.does("(os.stat('a.md').st_size, os.stat('big.md').st_size)"),
        "(4, 4194304)"
    );
    assert_eq!(writer.does("os.close(os.dup(fd))"), "None");
    assert_eq!(other.does("put('b.md', 'two')"), "None");
    assert_eq!(other.does("os.stat('b.md').st_size"), "3");
    assert_eq!(writer.does("slow[0].is_alive()"), "True");
    end(tracer);
    writer.does("[thread.join() for thread in slow]");
    writer.does("os.close(fd), os.close(big)");
    assert_eq!(project.read("a.md"), "half");
    assert_eq!(&project.read("big.md")[..2], "yx");
}

/// The last that a rename does is to sync the directory. When that fails it has been made all the same, and who appends must know.
#[test]
fn f3_w8_w10_a_rename_that_fails_when_it_has_been_made_is_known_to_who_appends() {
    watchdog();
    let mut project = Project::unmounted(&[]);
    let backing = project.outside().join("backing");
    std::fs::create_dir(&backing).unwrap();
    std::fs::write(backing.join("log.md"), "old\n").unwrap();
    let daemon = project.mount_with(&["--backing", backing.to_str().unwrap()]);
    let backing = std::fs::canonicalize(&backing).unwrap();
    let (mut logger, mut saver) = (Puppet::new(&project), Puppet::new(&project));
    assert_eq!(logger.does("fd = os.open('log.md', os.O_WRONLY | os.O_APPEND)"), "ok");
    assert_eq!(logger.does("os.write(fd, b'one\\n')"), "4");
    assert_eq!(saver.does("put('new.txt', 'new\\n')"), "None");
    let Some(tracer) = failing(&project, daemon, SYNCS, "EIO", Some(&backing)) else {
        return;
    };
    assert_eq!(saver.does("os.rename('new.txt', 'log.md')"), "EIO");
    end(tracer);
    assert_eq!(project.read("log.md"), "new\n", "it has been made");
    assert_eq!(logger.does("os.write(fd, b'two\\n'), os.close(fd)"), "(4, None)");
    assert_eq!(project.read("log.md"), "new\ntwo\n");
}

/// A publish has copied what the file is when it syncs. What is changed then waits, whoever asks for it by whatever, and is the new version's.
#[test]
fn w11_what_is_changed_while_a_version_is_being_published_is_that_versions() {
    watchdog();
    let mut project = Project::unmounted(&[("a.md", "one\n"), ("concord.toml", "durability = \"atomic\"\n")]);
    let daemon = project.mount();
    let (mut writer, mut other) = (Puppet::new(&project), Puppet::new(&project));
    assert_eq!(writer.does("put('a.md', 'two\\n')"), "None");
    assert_eq!(other.does("path, seen = 'a.md', os.open('a.md', os.O_RDONLY)"), "ok");
    for by in ["path", "seen"] {
        for (change, found) in [
            ("os.chmod(BY, 0o604)", "oct(os.stat('a.md').st_mode) == '0o100604'"),
            ("os.setxattr(BY, 'user.a', b'b')", "os.listxattr('a.md') == ['user.a']"),
            ("os.removexattr(BY, 'user.a')", "os.listxattr('a.md') == []"),
            ("os.chmod(BY, 0o644)", "oct(os.stat('a.md').st_mode) == '0o100644'"),
        ] {
            let before = mode(&project.path("a.md"));
            writer.does("fd = os.open('a.md', os.O_WRONLY | os.O_TRUNC)");
            writer.does("os.write(fd, b'three')");
            let Some(tracer) = injected(&project, daemon, SYNCS, "delay_enter=60000000", None) else {
                return;
            };
            writer.starts("os.close(fd)");
            eventually("it syncs", || is_held(daemon));
            other.starts(&change.replace("BY", by));
            eventually("the change waits", || waits(other.0.pid()));
            end(tracer);
            assert_eq!((&*writer.says(), &*other.says()), ("None", "None"), "{change} by {by}");
            for who in [&mut writer, &mut other] {
                assert_eq!(who.does(found), "True", "{change} by {by}");
            }
            let replaced = project.history("a.md")[1]["version"].as_u64().unwrap();
            let kept = kept(&project, replaced);
            assert_eq!(mode(&kept), before, "H4: {change} by {by}");
        }
    }
}

/// It comes to its own session, which is ending; of a file that it creates there is nothing else yet.
#[test]
fn w11_what_a_writer_changes_by_name_while_it_closes_the_file_in_another_thread_stays() {
    watchdog();
    let mut project = Project::unmounted(&[("a.md", "one\n"), ("concord.toml", "durability = \"atomic\"\n")]);
    let daemon = project.mount();
    let (mut writer, mut other) = (Puppet::new(&project), Puppet::new(&project));
    for name in ["a.md", "new.md"] {
        for (change, found) in [
            ("os.chmod(name, 0o604)", "oct(os.stat(name).st_mode) == '0o100604'"),
            ("os.setxattr(name, 'user.a', b'b')", "os.listxattr(name) == ['user.a']"),
        ] {
            let open = format!("name = {name:?}; fd = os.open(name, os.O_RDWR | os.O_CREAT)");
            assert_eq!(writer.does(&open), "ok");
            writer.does("os.write(fd, b'two'); closing = threading.Thread(target=os.close, args=(fd,))");
            let Some(tracer) = injected(&project, daemon, SYNCS, "delay_enter=60000000", None) else {
                return;
            };
            writer.does("closing.start()");
            eventually("it syncs", || is_held(daemon));
            writer.starts(change);
            eventually("the change waits", || waits(writer.0.pid()));
            end(tracer);
            assert_eq!(writer.says(), "None", "{change} of {name}");
            writer.does("closing.join()");
            other.does(&format!("name = {name:?}"));
            for who in [&mut writer, &mut other] {
                assert_eq!(who.does(found), "True", "{change} of {name}");
            }
        }
    }
}

/// Its mapping outlived the version, and so did what was stored there.
#[test]
fn w11_what_is_changed_while_a_late_version_is_being_published_is_that_versions() {
    watchdog();
    let mut project = Project::unmounted(&[("a.md", "one\n"), ("concord.toml", "durability = \"atomic\"\n")]);
    let daemon = project.mount();
    let (mut writer, mut other) = (Puppet::new(&project), Puppet::new(&project));
    writer.does("libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_void_p");
    writer.does("libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]");
    for (change, found) in [
        ("os.chmod('a.md', 0o604)", "oct(os.stat('a.md').st_mode) == '0o100604'"),
        (
            "os.setxattr('a.md', 'user.a', b'b')",
            "os.listxattr('a.md') == ['user.a']",
        ),
        ("os.utime('a.md', (5, 6))", "os.stat('a.md').st_mtime == 6"),
    ] {
        writer.does("fd = os.open('a.md', os.O_RDWR)");
        writer.does("os.write(fd, b'two\\n')");
        writer.does("at = libc.mmap(None, 4096, 3, 1, fd, ctypes.c_long(0))");
        assert_eq!(writer.does("os.close(fd)"), "None");
        writer.does("ctypes.memset(at, 76, 1)");
        let Some(tracer) = injected(&project, daemon, SYNCS, "delay_enter=60000000", None) else {
            return;
        };
        assert_eq!(writer.does("libc.munmap(at, 4096)"), "0");
        eventually("it syncs", || is_held(daemon));
        other.starts(change);
        eventually("the change waits", || waits(other.0.pid()));
        end(tracer);
        assert_eq!(other.says(), "None", "{change}");
        for who in [&mut writer, &mut other] {
            assert_eq!(who.does(found), "True", "{change}");
        }
        assert_eq!(project.read("a.md"), "Lwo\n");
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode()
}

/// Where a replaced version is, of the only file that has so many.
fn kept(project: &Project, version: u64) -> PathBuf {
    let below = |at: PathBuf| std::fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path());
    let mut histories = below(project.path(".concord/history")).flat_map(below);
    histories
        .find_map(|key| Some(key.join(version.to_string())).filter(|kept| kept.exists()))
        .unwrap()
}

/// Whether strace has a thread of the daemon wait before a system call.
fn is_held(daemon: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{daemon}/task")).unwrap().flatten();
    let mut threads = threads.map(|thread| {
        let read = |name| std::fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        (read("status"), read("syscall"))
    });
    // strace(1) stops a thread when it attaches to it, too.
    let syncs = |call: &str| {
        [libc::SYS_fsync, libc::SYS_fdatasync]
            .iter()
            .any(|sync| call.starts_with(&format!("{sync} ")))
    };
    threads.any(|(status, call)| status.contains("State:\tt") && syncs(&call))
}

/// Whether a process waits in a system call that is not read(2), as a puppet does whom nobody has told anything.
fn waits(pid: u32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let number = call.split(' ').next().and_then(|number| number.parse::<i64>().ok());
    number.is_some_and(|number| number >= 0 && number != libc::SYS_read)
}
