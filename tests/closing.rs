//! W5, W6 and W7: what the last close publishes, what it says, and what a kill leaves.

mod support;

use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::puppet::Puppet;
use support::{Immutable, Project, Running, eventually, run, succeed, wait, watchdog};

fn project() -> Project {
    watchdog();
    Project::with(&[("STATE.md", "v1\n")])
}

#[test]
fn w5_redirections_publish_once_each() {
    let scripts = [
        ("echo a > STATE.md", "a\n"),
        ("{ /bin/echo a; (echo b; /bin/echo c); } > STATE.md", "a\nb\nc\n"),
        ("exec 5> STATE.md; echo a >&5; /bin/echo b >&5; exec 5>&-", "a\nb\n"),
        ("exec > STATE.md; /bin/echo a; exec /bin/echo b", "a\nb\n"),
        ("(sleep 0.2; echo late) > STATE.md & wait", "late\n"),
        ("echo a | tee STATE.md > /dev/null", "a\n"),
        (
            "printf 'a\\nb\\n' | while read x; do /bin/echo $x; done > STATE.md",
            "a\nb\n",
        ),
    ];
    for shell in ["sh", "bash"] {
        for (script, content) in scripts {
            let project = project();
            let mut command = project.sh("exec $0 -c \"$1\"");
            command.args([shell, script]);
            succeed(command);
            assert_eq!(project.read("STATE.md"), content, "{shell}: {script}");
            assert_eq!(project.history("STATE.md").len(), 2, "{shell}: {script}");
        }
    }
}

#[test]
fn w5_a_child_that_outlives_its_parent_publishes_when_it_closes() {
    let project = project();
    let script = "( echo begun; sleep 0.6; echo ended ) > STATE.md &";
    succeed(project.sh(&format!("exec 2>/dev/null; {script}")));
    assert_eq!(project.read("STATE.md"), "v1\n", "the child still has it open");
    eventually("the child's version", || project.read("STATE.md") == "begun\nended\n");
    assert_eq!(project.history("STATE.md").len(), 2);
}

#[test]
fn w5_duplicates_forks_and_inherited_descriptors_are_one_session() {
    let project = project();
    let mut writer = Puppet::new(&project);
    writer.does("fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)");
    writer.does("two = os.dup(fd)");
    assert_eq!(writer.does("os.write(fd, b'a'), os.close(fd)"), "(1, None)");
    assert_eq!(project.read("STATE.md"), "v1\n");
    let child = "subprocess.run(['sh', '-c', 'printf b >&%d' % two], pass_fds=[two]).returncode";
    assert_eq!(writer.does(child), "0");
    assert_eq!(project.read("STATE.md"), "v1\n");
    assert_eq!(writer.does("os.write(two, b'c'), os.close(two)"), "(1, None)");
    assert_eq!(project.read("STATE.md"), "abc");
    assert_eq!(project.history("STATE.md").len(), 2);
}

/// With many descriptors not all of them are looked at with each close.
#[test]
fn w5_of_many_open_files_each_is_published_by_its_own_last_close() {
    let project = project();
    let mut writer = Puppet::new(&project);
    writer.does("opens = lambda i: os.open('f%d.md' % i, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)");
    writer.does("fd = [opens(i) for i in range(40)]");
    writer.does("written = [os.write(d, b'x') for d in fd]");
    writer.does("other = os.open('/dev/null', os.O_RDONLY)");
    writer.does("log = [os.open('STATE.md', os.O_WRONLY | os.O_APPEND) for i in range(2)]");
    let is_published = |number: u32| project.path(&format!("f{number}.md")).exists();
    assert_eq!(writer.does("os.close(fd[0])"), "None");
    assert!(is_published(0));
    // A descriptor that meant something else, that of another session, and one that appends and is not the only one.
    for (number, session) in [("other", 1), ("fd[39]", 2), ("log[0]", 38)] {
        writer.does(&format!("keeps = os.dup2(fd[{session}], {number})"));
        assert_eq!(writer.does(&format!("os.close(fd[{session}])")), "None");
        assert!(!is_published(session), "by {number}");
        assert_eq!(writer.does("os.close(keeps)"), "None");
        assert!(is_published(session), "by {number}");
    }
    assert!(is_published(39), "dup2(2) closed it");
    // New ones: a duplicate, and one with the number of a session that was closed.
    writer.does("keeps = os.dup(fd[3])");
    assert_eq!(writer.does("os.close(fd[3])"), "None");
    assert!(!is_published(3));
    assert_eq!(writer.does("os.close(fd[4])"), "None");
    assert!(is_published(4));
    assert_eq!(
        writer.does("os.dup2(keeps, fd[4]) == fd[4], os.close(keeps)"),
        "(True, None)"
    );
    assert!(!is_published(3));
    assert_eq!(writer.does("os.close(fd[4])"), "None");
    assert!(is_published(3));
    // As many closed as opened, which leaves the count as it was.
    writer.does("new = opens(50), os.dup(fd[5])");
    assert_eq!(writer.does("os.close(fd[6]), os.close(fd[5])"), "(None, None)");
    assert!(is_published(6) && !is_published(5) && !is_published(50));
    assert_eq!(writer.does("os.close(new[0]), os.close(new[1])"), "(None, None)");
    assert!(is_published(5));
    for number in 7..38 {
        assert!(!is_published(number));
        assert_eq!(writer.does(&format!("os.close(fd[{number}])")), "None");
        assert!(is_published(number), "{number}");
        assert_eq!(project.history(&format!("f{number}.md")).len(), 1);
    }
}

/// While it closes its O_CLOEXEC descriptors, a task in execve(2) holds a lock that readers of its /proc entries wait for.
#[test]
fn w5_a_descriptor_that_execve_closes_hangs_nobody() {
    let project = project();
    let fork = "fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)
os.write(fd, b'v2')
for _ in range(8):
    if os.fork() == 0: os.execvp('sleep', ['sleep', '0.3'])
os.close(fd)
print(open('STATE.md').read())";
    let run_itself = "fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)
os.write(fd, b'v3')
os.execvp('cat', ['cat', 'STATE.md'])";
    assert_eq!(succeed(project.python(&format!("import os\n{fork}"))), "v2\n");
    assert_eq!(succeed(project.python(&format!("import os\n{run_itself}"))), "v3");
    eventually("the version of the last close", || project.read("STATE.md") == "v3");
    assert_eq!(project.history("STATE.md").len(), 3);
}

/// Each of them has a private session (W3), and nothing makes their closes wait for each other.
#[test]
fn w5_sessions_of_one_process_that_end_at_once_are_a_version_each() {
    let project = project();
    let threads = "import os, threading
barrier = threading.Barrier(8)
def save(i):
    fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)
    os.write(fd, b'%d' % i * 9999)
    barrier.wait()
    os.close(fd)
threads = [threading.Thread(target=save, args=(i,)) for i in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()";
    succeed(project.python(threads));
    let history = project.history("STATE.md");
    let numbers: Vec<u64> = history.iter().map(|v| v["version"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=9).rev().collect::<Vec<_>>());
    let mut contents: Vec<Vec<u8>> = (2..=9).map(|version| project.show("STATE.md", version)).collect();
    contents.sort();
    let written: Vec<Vec<u8>> = (0..8).map(|i| i.to_string().repeat(9999).into_bytes()).collect();
    assert!(contents == written, "each version is what one of them wrote");
    assert_eq!(project.show("STATE.md", 9), project.read("STATE.md").into_bytes());
}

#[test]
fn w5_a_session_that_wrote_nothing_publishes_nothing() {
    let project = project();
    succeed(project.sh(": <> STATE.md; exec 3<>STATE.md; exec 3>&-"));
    assert!(project.history("STATE.md").len() <= 1);
    assert_eq!(project.read("STATE.md"), "v1\n");
    let touched = "touch -d '2020-02-02 UTC' STATE.md; date -u -r STATE.md +%F; chmod 600 STATE.md; exec 3<>STATE.md; chmod 640 STATE.md
touch STATE.md -d '2021-01-01 UTC'; date -u -r STATE.md +%F; exec 3>&-; stat -c %a STATE.md; date -u -r STATE.md +%F";
    assert_eq!(
        succeed(project.sh(touched)),
        "2020-02-02\n2021-01-01\n640\n2021-01-01\n"
    );
    assert!(project.history("STATE.md").len() <= 1, "metadata is no content");
    succeed(project.sh(": > STATE.md"));
    assert_eq!(project.read("STATE.md"), "");
    assert_eq!(project.history("STATE.md").len(), 2, "a truncation is a change");
}

#[test]
fn w6_after_close_every_process_sees_it_at_once() {
    let project = project();
    let (mut writer, mut reader) = (Puppet::new(&project), Puppet::new(&project));
    for round in 0..60 {
        let name = if round % 3 == 0 {
            format!("NEW{round}.md")
        } else {
            "STATE.md".to_owned()
        };
        assert_eq!(writer.does(&format!("put('{name}', '{round}')")), "None");
        assert_eq!(
            reader.does(&format!("get('{name}'), os.stat('{name}').st_size")),
            format!("('{round}', {})", round.to_string().len())
        );
        assert_eq!(reader.does(&format!("put('{name}', 'and{round}')")), "None");
        assert_eq!(writer.does(&format!("get('{name}')")), format!("and{round}"));
    }
}

#[test]
fn w6_close_returns_what_the_publish_failed_with() {
    watchdog();
    let mut project = Project::unmounted(&[]);
    // Behind the mount, through which no ioctl(2) goes.
    let backing = project.outside().join("backing");
    std::fs::create_dir_all(backing.join("sub")).unwrap();
    std::fs::write(backing.join("sub/OLD.md"), "old\n").unwrap();
    project.mount_with(&["--backing", backing.to_str().unwrap()]);
    let mut writer = Puppet::new(&project);
    for (name, content) in [("sub/OLD.md", "old\n"), ("sub/NEW.md", "")] {
        writer.does(&format!(
            "fd = os.open('{name}', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)"
        ));
        assert_eq!(writer.does("os.write(fd, b'kept')"), "4");
        // Of the file that is there the directory alone would not do: then it is written in place (W11).
        let old = backing.join(name);
        let fixed = if old.exists() { old } else { backing.join("sub") };
        let Some(immutable) = Immutable::new(&fixed) else {
            return;
        };
        assert_eq!(writer.does("os.close(fd)"), "EPERM", "{name}");
        drop(immutable);
        let now = std::fs::read_to_string(project.path(name)).unwrap_or_default();
        assert_eq!(now, content, "{name}");
    }
    let recovered = project.recovered();
    assert_eq!(recovered.len(), 2, "{recovered:?}");
    for kept in &recovered {
        let path = project.path(kept["kept"].as_str().unwrap());
        assert_eq!(std::fs::read_to_string(path).unwrap(), "kept");
        assert!(!kept["why"].as_str().unwrap().is_empty());
    }
    assert_eq!(project.status()["counts"]["failed"], 2);
    assert_eq!(project.status()["refused"], serde_json::Value::from(recovered));
}

#[test]
fn w7_a_killed_writer_publishes_nothing_and_its_bytes_are_kept() {
    for signal in ["SIGKILL", "SIGTERM", "SIGABRT", "SIGSEGV", "SIGINT"] {
        let project = project();
        let mut writer = Puppet::new(&project);
        writer.does("signal.signal(signal.SIGINT, signal.SIG_DFL)");
        writer.does("fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)");
        assert_eq!(writer.does("os.write(fd, b'half of wha')"), "11");
        writer.does("t = threading.Thread(target=time.sleep, args=(60,), daemon=True)");
        writer.does("t.start()");
        writer.starts(&format!("os.kill(os.getpid(), signal.{signal})"));
        wait(&mut writer.0.0, Duration::from_secs(10));
        project.await_sessions(0, 0);
        assert_eq!(project.read("STATE.md"), "v1\n", "{signal}");
        let recovered = project.recovered();
        assert_eq!(recovered.len(), 1, "{signal}");
        assert_eq!(
            project.status()["refused"].as_array().map(Vec::len),
            Some(0),
            "nobody was told"
        );
        let kept = project.path(recovered[0]["kept"].as_str().unwrap());
        assert_eq!(std::fs::read_to_string(kept).unwrap(), "half of wha", "{signal}");
    }
}

#[test]
fn w7_an_exit_without_close_is_a_close() {
    for exit in ["os._exit(0)", "os._exit(3)", "sys.exit(1)"] {
        let project = project();
        let program =
            format!("import os, sys; fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC); os.write(fd, b'all'); {exit}");
        run(project.python(&program));
        eventually("the version", || project.read("STATE.md") == "all");
        assert_eq!(project.recovered().len(), 0, "{exit}");
    }
}

/// exit_group(2) ends the other threads by SIGKILL, and one of them may be the last to close (Node.js).
#[test]
fn w7_an_exit_with_threads_alive_is_a_close() {
    let project = project();
    for number in 0..20 {
        let program = format!(
            "import os, threading, time
for i in range(8): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC); os.write(fd, b'all {number}'); os._exit({})",
            number % 2
        );
        run(project.python(&program));
        eventually("the version", || project.read("STATE.md") == format!("all {number}"));
    }
    if !support::twin::lacks("node") {
        for number in 0..5 {
            succeed(project.sh(&format!("node -e 'console.log({number})' > node.json")));
            eventually("node's output", || project.read("node.json") == format!("{number}\n"));
        }
    }
    assert_eq!(project.recovered().len(), 0);
}

/// /proc/PID/fd is the main thread's: it is empty when that has left and others go on.
#[test]
fn w5_threads_go_on_with_a_file_when_the_main_thread_has_left() {
    let project = project();
    let program = "import ctypes, os, platform, sys, threading
fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)
os.write(fd, b'one ')
def says(what): print(what, flush=True); sys.stdin.readline()
def goes_on():
    says('begun')
    os.write(fd, b'two '); os.close(os.dup(fd)); says('a duplicate is closed')
    os.write(fd, b'three'); os.close(fd); says('closed')
    os._exit(0)
threading.Thread(target=goes_on).start()
exit = {'x86_64': 60, 'aarch64': 93}[platform.machine()]
ctypes.CDLL(None).syscall(exit, 0)";
    let mut writer = Running::start(project.python(program));
    assert_eq!(writer.hear(), "begun");
    let stat = format!("/proc/{}/stat", writer.pid());
    eventually("the main thread's end", || {
        std::fs::read_to_string(&stat).unwrap().contains(") Z ")
    });
    writer.say("");
    assert_eq!(writer.hear(), "a duplicate is closed");
    assert_eq!(project.read("STATE.md"), "v1\n");
    writer.say("");
    assert_eq!(writer.hear(), "closed");
    assert_eq!(project.read("STATE.md"), "one two three");
    assert_eq!(project.history("STATE.md").len(), 2);
    writer.say("");
}

/// unshare(2) with CLONE_FILES: what the main thread closes then, the other has still.
#[test]
fn w5_a_thread_with_a_table_of_its_own_goes_on_with_a_file() {
    let project = project();
    for ends in ["quit.wait()", "ctypes.CDLL(None).syscall(exit, 0)"] {
        let program = format!(
            "import ctypes, os, platform, sys, threading
exit = {{'x86_64': 60, 'aarch64': 93}}[platform.machine()]
def says(what): print(what, flush=True); sys.stdin.readline()
fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)
os.write(fd, b'one ')
apart, closed, quit = (threading.Event() for _ in range(3))
for _ in range(4): threading.Thread(target=quit.wait, daemon=True).start()
def goes_on():
    if ctypes.CDLL(None).unshare(0x400): raise OSError
    apart.set(); closed.wait()
    says('closed by one')
    os.write(fd, b'two'); os.close(fd); says('closed by both')
    os._exit(0)
threading.Thread(target=goes_on).start()
apart.wait(); os.close(fd); closed.set()
{ends}"
        );
        succeed(project.sh("printf 'v1\\n' > STATE.md"));
        let versions = project.history("STATE.md").len();
        let mut writer = Running::start(project.python(&program));
        assert_eq!(writer.hear(), "closed by one");
        assert_eq!(project.read("STATE.md"), "v1\n", "{ends}");
        writer.say("");
        assert_eq!(writer.hear(), "closed by both");
        assert_eq!(project.read("STATE.md"), "one two", "{ends}");
        assert_eq!(project.history("STATE.md").len(), versions + 1, "{ends}");
        writer.say("");
    }
}

#[test]
fn w7_a_killed_parent_leaves_the_session_to_its_child() {
    let project = project();
    let program = "import os, sys, time
fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)
os.write(fd, b'parent ')
pid = os.fork()
if pid == 0:
    sys.stdin.close(); time.sleep(0.6); os.write(fd, b'child'); os.close(fd); os._exit(0)
print(pid, flush=True); time.sleep(60)";
    let mut parent = Running::start(project.python(program));
    parent.hear();
    parent.signal(Signal::KILL);
    wait(&mut parent.0, Duration::from_secs(10));
    eventually("the child's version", || project.read("STATE.md") == "parent child");
    assert_eq!(project.history("STATE.md").len(), 2);
}

#[test]
fn w5_what_is_done_to_a_session_by_descriptor_is_in_its_version() {
    let project = project();
    let mut writer = Puppet::new(&project);
    std::fs::write(project.path("source.bin"), "0123456789".repeat(100)).unwrap();
    writer.does("src = os.open('source.bin', os.O_RDONLY)");
    writer.does("fd = os.open('STATE.md', os.O_RDWR)");
    assert_eq!(writer.does("os.copy_file_range(src, fd, 1000, 0, 3)"), "1000");
    assert_eq!(writer.does("os.lseek(fd, 0, 2)"), "1003");
    assert_eq!(writer.does("os.sendfile(fd, src, 0, 1000)"), "1000");
    assert_eq!(writer.does("os.fstat(fd).st_size"), "2003");
    assert_eq!(writer.does("os.ftruncate(fd, 5), os.fstat(fd).st_size"), "(None, 5)");
    assert_eq!(
        writer.does("os.ftruncate(fd, 1 << 20), os.fstat(fd).st_size"),
        "(None, 1048576)"
    );
    assert_eq!(writer.does("os.pread(fd, 7, 0)"), r"b'v1\n01\x00\x00'");
    assert_eq!(
        writer.does("os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE) <= 65536"),
        "(0, True)"
    );
    assert_eq!(
        writer.does("os.posix_fallocate(fd, 0, 2 << 20), os.fstat(fd).st_size"),
        "(None, 2097152)"
    );
    assert_eq!(writer.does("os.ftruncate(fd, 5), os.close(fd)"), "(None, None)");
    assert_eq!(project.read("STATE.md"), "v1\n01");
    assert_eq!(project.history("STATE.md").len(), 2);
    for copy in [
        "cp source.bin STATE.md",
        "cp --reflink=auto source.bin NEW.md",
        "cat source.bin > STATE.md",
        "dd if=source.bin of=STATE.md 2>/dev/null",
    ] {
        succeed(project.sh(copy));
        let name = if copy.contains("NEW") { "NEW.md" } else { "STATE.md" };
        assert_eq!(project.read(name).len(), 1000, "{copy}");
    }
}

#[test]
fn w5_a_mapping_written_to_is_in_the_version() {
    let project = project();
    let mut writer = Puppet::new(&project);
    writer.does("f = open('STATE.md', 'r+b')");
    assert_eq!(writer.does("m = mmap.mmap(f.fileno(), 3)"), "ok");
    writer.does("m[0:2] = b'V2'");
    assert_eq!(writer.does("m.flush(), m.close(), f.close()"), "(None, None, None)");
    eventually("the mapped bytes", || project.read("STATE.md") == "V2\n");
}

#[test]
fn h1_a_small_change_to_a_big_file_costs_the_daemon_no_memory() {
    watchdog();
    let mut project = Project::unmounted(&[("STATE.md", "")]);
    succeed(project.sh("truncate -s 200M STATE.md"));
    let daemon = project.mount();
    // The most that it ever had, not what it has: memory that is given back was taken all the same.
    let memory = |most| {
        let status = std::fs::read_to_string(format!("/proc/{daemon}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with(most)).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let mut writer = Puppet::new(&project);
    let (before, start) = (memory("VmRSS:"), Instant::now());
    writer.does("fd = os.open('STATE.md', os.O_RDWR)");
    assert_eq!(writer.does("os.pwrite(fd, b'0123456789', 100 << 20)"), "10");
    assert_eq!(writer.does("os.close(fd)"), "None");
    assert!(start.elapsed() < Duration::from_secs(30));
    let grown = memory("VmHWM:").saturating_sub(before);
    assert!(grown < 20 * 1024, "the daemon grew by {grown} kB");
    assert_eq!(writer.does("os.stat('STATE.md').st_size"), (200 << 20).to_string());
    assert_eq!(
        writer.does("(lambda fd: os.pread(fd, 12, (100 << 20) - 1))(os.open('STATE.md', os.O_RDONLY))"),
        r"b'\x000123456789\x00'"
    );
}

#[test]
fn w5_a_grandchild_that_outlives_both_publishes_when_it_closes() {
    let project = project();
    let program = "import os, time
fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)
os.write(fd, b'parent ')
if os.fork(): os._exit(0)
time.sleep(0.3)
os.write(fd, b'child ')
if os.fork() == 0: time.sleep(0.6); os.write(fd, b'grandchild'); os._exit(0)
os.close(fd)";
    run(project.python(program));
    let whole = "parent child grandchild";
    eventually("the grandchild's version", || project.read("STATE.md") == whole);
    assert_eq!(project.history("STATE.md").len(), 2);
}

#[test]
fn w5_each_way_to_change_a_session_is_a_change_by_itself() {
    let project = project();
    std::fs::write(project.path("source.bin"), "0123456789").unwrap();
    let mut writer = Puppet::new(&project);
    let changes = [
        "os.copy_file_range(os.open('source.bin', os.O_RDONLY), fd, 5)",
        "os.posix_fallocate(fd, 0, 100)",
        "os.ftruncate(fd, 3)",
        "os.pwrite(fd, b'x', 1)",
    ];
    for (number, change) in changes.iter().enumerate() {
        writer.does("fd = os.open('STATE.md', os.O_RDWR)");
        let done = writer.does(change);
        assert!(["None", "5", "1"].contains(&done.as_str()), "{change}: {done}");
        assert_eq!(writer.does("os.close(fd)"), "None");
        assert_eq!(project.history("STATE.md").len(), number + 2, "{change}");
    }
    assert_eq!(project.read("STATE.md"), "0x2");
    writer.does("fd = os.open('STATE.md', os.O_RDWR)");
    assert_eq!(
        writer.does("os.fchmod(fd, 0o604), os.setxattr(fd, 'user.note', b'value'), os.close(fd)"),
        "(None, None, None)"
    );
    assert_eq!(
        project.history("STATE.md").len(),
        changes.len() + 1,
        "as chmod(1) and setfattr(1) of the name"
    );
    assert_eq!(writer.does("os.getxattr('STATE.md', 'user.note')"), "b'value'");
    assert_eq!(writer.does("oct(os.stat('STATE.md').st_mode)"), "0o100604");
}

#[test]
fn w6_a_close_publishes_although_its_process_reads_the_file_too() {
    let project = project();
    let (mut writer, mut other) = (Puppet::new(&project), Puppet::new(&project));
    for round in 0..20 {
        writer.does("fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)");
        writer.does("reads = os.open('STATE.md', os.O_RDONLY)");
        let saved = format!("os.write(fd, b'{round}') > 0, os.close(fd)");
        assert_eq!(writer.does(&saved), "(True, None)");
        assert_eq!(other.does("get('STATE.md')"), round.to_string());
        assert_eq!(writer.does("os.close(reads)"), "None");
    }
}

#[test]
fn w5_what_is_written_through_a_descriptor_that_was_passed_on_is_published_late() {
    let project = project();
    let (mut giver, mut taker) = (Puppet::new(&project), Puppet::new(&project));
    let socket = project.outside().join("socket").display().to_string();
    taker.does("import socket");
    assert_eq!(
        taker.does(&format!(
            "s = socket.socket(socket.AF_UNIX); s.bind('{socket}'); s.listen()"
        )),
        "ok"
    );
    giver.does("import socket");
    assert_eq!(
        giver.does(&format!("c = socket.socket(socket.AF_UNIX); c.connect('{socket}')")),
        "ok"
    );
    giver.does("fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)");
    assert_eq!(
        giver.does("os.write(fd, b'first'), socket.send_fds(c, [b'x'], [fd])"),
        "(5, 1)"
    );
    assert_eq!(taker.does("fd = socket.recv_fds(s.accept()[0], 1, 1)[1][0]"), "ok");
    assert_eq!(giver.does("os.close(fd)"), "None");
    assert_eq!(project.read("STATE.md"), "first");
    assert_eq!(taker.does("os.write(fd, b' and late'), os.close(fd)"), "(9, None)");
    assert_eq!(project.read("STATE.md"), "first and late");
    let newest = &project.history("STATE.md")[0];
    assert_eq!(
        (&newest["version"], &newest["how"], &newest["based_on"]),
        (&3.into(), &"late".into(), &2.into())
    );
    assert_eq!(project.status()["counts"]["late"], 1);
}
