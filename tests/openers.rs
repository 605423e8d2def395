//! Every way to open, fill and shape a coordinated file: as in a plain directory, and a version at the end.

mod support;

use support::puppet::Puppet;
use support::twin::Twin;
use support::{Immutable, Project, eventually, watchdog};

fn project() -> Project {
    watchdog();
    Project::with(&[("STATE.md", "version one\n"), ("OTHER.md", "o1"), ("sub/a.md", "a1")])
}

fn twin() -> Twin {
    Twin::with(&[
        ("STATE.md", "version one\n"),
        ("OTHER.md", "other\n"),
        ("plain.txt", "0123456789"),
    ])
}

/// A Python program by the twin's shell. `t(f)` is what `f` returned, or the name of its errno.
fn python(program: &str) -> String {
    let prelude = "import ctypes, errno, fcntl, os, stat
def t(f, *a):
    try: return f(*a)
    except OSError as e: return errno.errorcode[e.errno]
def proc(fd): return '/proc/self/fd/%d' % fd
F = 'STATE.md'
libc = ctypes.CDLL(None, use_errno=True)
def raw(name, *a):
    r = getattr(libc, name)(*a)
    return errno.errorcode[ctypes.get_errno()] if r < 0 else r
";
    format!("python3 - <<'PROGRAM'\n{prelude}{program}\nPROGRAM\n")
}

#[test]
fn o1_opens_without_a_right_to_write_do_what_they_do_elsewhere() {
    let twin = twin();
    // O_TRUNC with O_RDONLY empties the file, and no write gets through.
    twin.saves(
        "STATE.md",
        1,
        &python("fd = os.open(F, os.O_RDONLY | os.O_TRUNC)\nprint(os.read(fd, 9), t(os.write, fd, b'x'), os.fstat(fd).st_size)\nos.close(fd)\nprint(os.stat(F).st_size)"),
    );
    // O_PATH opens nothing: no session, no version; but what is opened through it is.
    twin.saves(
        "STATE.md",
        1,
        &python(
            "p = os.open(F, os.O_PATH)
print(t(os.read, p, 1), t(os.write, p, b'x'), t(os.fchmod, p, 0o600), t(os.ftruncate, p, 0), os.fstat(p).st_size)
w = os.open(proc(p), os.O_WRONLY | os.O_TRUNC)
print(os.write(w, b'by path descriptor\\n'))
os.close(w)
r = os.open(proc(p), os.O_RDONLY)
print(os.read(r, 99))
os.chmod(proc(p), 0o644)
os.close(r); os.close(p)",
        ),
    );
    twin.saves(
        "STATE.md",
        0,
        &python("os.close(os.open(F, os.O_PATH)); os.close(os.open(F, os.O_RDWR))"),
    );
}

#[test]
fn o1_reopening_through_proc_self_fd_is_another_open_of_the_file() {
    let twin = twin();
    twin.saves(
        "STATE.md",
        1,
        &python(
            "r = os.open(F, os.O_RDONLY)
w = os.open(proc(r), os.O_RDWR)
print(os.pwrite(w, b'VERSION', 0), os.read(w, 99))
os.close(w); os.close(r)
print(open(F).read())",
        ),
    );
    // From a session's own handle: what it has written is there, and both are one version.
    twin.saves(
        "STATE.md",
        1,
        &python(
            "w = os.open(F, os.O_WRONLY | os.O_TRUNC)
os.write(w, b'first ')
r = os.open(proc(w), os.O_RDONLY)
print(os.read(r, 99))
a = os.open(proc(w), os.O_WRONLY | os.O_APPEND)
os.write(a, b'appended ')
os.lseek(w, 0, os.SEEK_END)
os.write(w, b'last')
for fd in (a, w, r): os.close(fd)
print(open(F).read())",
        ),
    );
    twin.saves(
        "STATE.md",
        1,
        &python(
            "r = os.open(F, os.O_RDONLY)
print(t(os.open, proc(r), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
os.close(os.open(proc(r), os.O_RDONLY | os.O_TRUNC))
os.close(r)
print(open(F).read())",
        ),
    );
    twin.saves_by(
        "bash",
        "STATE.md",
        1,
        "exec 3<>STATE.md; echo through >&3; cat /dev/fd/3; echo again >>/dev/fd/3; exec 3>&-; cat STATE.md",
    );
    twin.saves_by(
        "bash",
        "STATE.md",
        1,
        "echo input | tee /dev/stderr > STATE.md; cat < STATE.md",
    );
}

#[test]
fn o1_what_is_moved_inside_the_kernel_arrives_whole() {
    let twin = twin();
    // Into a session, out of a version, between two coordinated files, and within one.
    twin.saves(
        "STATE.md",
        1,
        &python(
            "s, w = os.open('plain.txt', os.O_RDONLY), os.open(F, os.O_RDWR | os.O_TRUNC)
print(os.sendfile(w, s, 2, 5))
print(os.copy_file_range(s, w, 4, 6, 5))
r, p = os.pipe()
os.write(p, b'spliced')
print(os.splice(r, w, 7, offset_dst=9))
print(os.copy_file_range(w, w, 5, 0, 20))
print(os.pread(w, 99, 0))
os.close(w)",
        ),
    );
    twin.same(&python(
        "r, p = os.pipe()
s, o = os.open(F, os.O_RDONLY), os.open('out.bin', os.O_WRONLY | os.O_CREAT, 0o640)
print(os.splice(s, p, 7), os.read(r, 9))
print(os.sendfile(o, s, 0, 4), os.copy_file_range(s, o, 4, 3))
os.close(o)
print(open('out.bin', 'rb').read())",
    ));
    twin.saves(
        "OTHER.md",
        1,
        &python(
            "s, o = os.open(F, os.O_RDONLY), os.open('OTHER.md', os.O_WRONLY | os.O_TRUNC)
n = os.fstat(s).st_size
while n: n -= os.copy_file_range(s, o, n)
os.close(o)
print(open('OTHER.md', 'rb').read())",
        ),
    );
    twin.saves("STATE.md", 1, "cp --reflink=auto plain.txt STATE.md; cat STATE.md");
    twin.same("cp --reflink=auto STATE.md copy.txt; cat copy.txt");
    // FICLONE: what the backing filesystem says, or that there is none here; never half a file.
    let project = &twin.project;
    let mut puppet = Puppet::new(project);
    puppet.does("s, w = os.open('plain.txt', os.O_RDONLY), os.open('STATE.md', os.O_WRONLY)");
    let said = puppet.does("fcntl.ioctl(w, 0x40049409, s)");
    assert!(["0", "ENOTSUP", "ENOTTY"].contains(&said.as_str()), "{said}");
    puppet.does("os.close(w)");
    assert_eq!(project.read("STATE.md"), "0123456789");
}

#[test]
fn o1_a_sessions_file_takes_every_shape() {
    let twin = twin();
    twin.saves(
        "STATE.md",
        1,
        &python(
            "w = os.open(F, os.O_RDWR)
for n in (5, 20000, 3, 0, 9): print(t(os.ftruncate, w, n), os.fstat(w).st_size, os.pread(w, 99, 0))
print(t(os.ftruncate, w, -1), t(os.ftruncate, w, 1 << 62))
os.close(w)
print(os.stat(F).st_size)",
        ),
    );
    // fallocate(2): plain, keeping the size, a hole punched, a range zeroed.
    twin.saves(
        "STATE.md",
        1,
        &python(
            "w = os.open(F, os.O_RDWR | os.O_TRUNC)
def fallocate(mode, at, n): return raw('fallocate', w, mode, ctypes.c_long(at), ctypes.c_long(n))
os.write(w, b'x' * 70000)
print(fallocate(1, 0, 200000), os.fstat(w).st_size)
print(fallocate(0, 65536, 40000), os.fstat(w).st_size)
print(fallocate(3, 4096, 20000), fallocate(2, 0, 1), fallocate(0, 0, 0), fallocate(0, -1, 5))
print(fallocate(16, 40960, 8192), os.fstat(w).st_size)
d = os.pread(w, 200000, 0)
print(len(d), d.count(b'x'), d[4095:4097], d[24095:24097], d[40959:40961])
os.close(w)
print(open(F, 'rb').read() == d)",
        ),
    );
    // Holes and data, in a new shadow, in one that holds a copy of its base, and in the version.
    twin.saves(
        "STATE.md",
        2,
        &python(
            "def map_of(fd):
    at, found = 0, []
    while (d := t(os.lseek, fd, at, os.SEEK_DATA)) != 'ENXIO':
        at = os.lseek(fd, d, os.SEEK_HOLE)
        found.append((d, at))
    return found
w = os.open(F, os.O_RDWR | os.O_TRUNC)
os.ftruncate(w, 1 << 20)
os.pwrite(w, b'y' * 65536, 262144)
os.fsync(w)
print(map_of(w), os.lseek(w, 0, os.SEEK_END), os.lseek(w, -5, os.SEEK_END), t(os.lseek, w, 1 << 21, os.SEEK_DATA))
os.close(w)
w = os.open(F, os.O_RDWR)
os.pwrite(w, b'z' * 65536, 524288)
os.fsync(w)
print(map_of(w), os.lseek(w, 0, os.SEEK_END))
os.close(w)
r = os.open(F, os.O_RDONLY)
print(map_of(r), os.lseek(r, 0, os.SEEK_END))",
        ),
    );
}

#[test]
fn w11_what_is_done_to_a_sessions_handle_is_done_to_the_file() {
    let twin = twin();
    twin.saves(
        "STATE.md",
        1,
        &python(
            "w = os.open(F, os.O_RDWR | os.O_TRUNC)
os.write(w, b'text')
os.fchmod(w, 0o604)
os.setxattr(w, 'user.note', b'value')
os.setxattr(w, 'user.gone', b'value')
os.removexattr(w, 'user.gone')
os.utime(w, (1000, 2000))
s = os.fstat(w)
print(oct(s.st_mode), s.st_size, s.st_mtime, s.st_atime, os.getxattr(w, 'user.note'), os.listxattr(w))
os.close(w)
s = os.stat(F)
print(oct(s.st_mode), s.st_mtime, os.getxattr(F, 'user.note'), os.listxattr(F))",
        ),
    );
    // Written after the time was set: the time is that of the write.
    twin.saves(
        "STATE.md",
        1,
        &python(
            "w = os.open(F, os.O_RDWR)
os.utime(w, (1000, 2000))
os.write(w, b'more')
os.close(w)
print(os.stat(F).st_mtime > 2000)",
        ),
    );
    twin.saves(
        "STATE.md",
        1,
        &python(
            "w = os.open(F, os.O_WRONLY | os.O_TRUNC | os.O_SYNC)
os.writev(w, [b'one ', b'two ']); os.pwritev(w, [b'three'], 8)
os.fdatasync(w); os.fsync(w)
os.close(w)
print(open(F).read())",
        ),
    );
}

#[test]
fn w8_a_holder_may_rename_over_its_own_open_file() {
    let twin = twin();
    // What it writes after that goes to a file that has no name any more.
    twin.same(&python(
        "w = os.open(F, os.O_WRONLY | os.O_TRUNC)
os.write(w, b'written before')
os.close(os.open('t', os.O_WRONLY | os.O_CREAT, 0o640))
open('t', 'w').write('renamed over')
os.rename('t', F)
print(open(F).read())
os.write(w, b' and after')
os.close(w)
print(open(F).read())",
    ));
    twin.same(&python(
        "w = os.open(F, os.O_WRONLY | os.O_TRUNC)
os.write(w, b'old')
n = os.open('STATE.tmp.md', os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
os.write(n, b'new')
os.rename('STATE.tmp.md', F)
os.write(n, b'er')
os.close(n)
os.write(w, b'est')
os.close(w)
print(open(F).read(), os.path.exists('STATE.tmp.md'))",
    ));
}

#[test]
fn w8_a_holder_may_rename_its_open_file_to_an_ordinary_name_and_exchange_it() {
    let twin = twin();
    twin.same(&python(
        "w = os.open(F, os.O_WRONLY | os.O_TRUNC)
os.write(w, b'before')
os.rename(F, 'gone.txt')
print(os.path.exists(F), open('gone.txt').read())
os.write(w, b' and after')
os.close(w)
print(open('gone.txt').read())
open(F, 'w').write('another')
print(open(F).read(), open('gone.txt').read())
os.rename('gone.txt', 'back.md')
w = os.open(F, os.O_WRONLY | os.O_TRUNC)
os.write(w, b'exchanged')
print(raw('renameat2', -100, b'STATE.md', -100, b'OTHER.md', 2))
os.write(w, b' later')
os.close(w)
print(open(F).read(), open('OTHER.md').read())
w = os.open(F, os.O_WRONLY | os.O_TRUNC)
os.write(w, b'again')
print(raw('renameat2', -100, b'OTHER.md', -100, b'STATE.md', 2))
os.write(w, b' later')
os.close(w)
print(open(F).read(), open('OTHER.md').read())",
    ));
}

#[test]
fn o1_poll_says_at_once_that_a_file_is_ready_and_the_log_has_nothing_of_it() {
    watchdog();
    let project = Project::with(&[("a.md", "one"), ("a.txt", "one")]);
    let mut puppet = Puppet::new(&project);
    puppet.does("import select");
    for name in ["a.md", "a.txt"] {
        puppet.does("p = select.poll()");
        puppet.does(&format!("f = open('{name}', 'r+')"));
        puppet.does("p.register(f, select.POLLIN | select.POLLOUT)");
        assert_eq!(puppet.does("[event for _, event in p.poll(5000)]"), "[5]", "{name}");
    }
    let log = project.read(".concord/log");
    assert!(log.contains("mounted over") && !log.contains("poll"), "{log}");
}

/// The kernel passes the daemon by for the descriptor that it had as an ordinary file, and insists on the same for each other open of the node.
#[test]
fn o1_a_file_that_somebody_has_open_past_the_daemon_when_it_gets_a_coordinated_name_is_opened_in_every_way() {
    watchdog();
    let ways = [
        ("os.O_RDONLY", "text"),
        ("os.O_RDWR", "Text"),
        ("os.O_WRONLY | os.O_TRUNC", "T"),
        ("os.O_WRONLY | os.O_APPEND", "textT"),
    ];
    for (moves, from) in [
        ("os.rename('x.txt', 'f.md')", ""),
        ("os.link('x.txt', 'f.md')", "os.unlink('x.txt')"),
    ] {
        for path in ["f'/proc/self/fd/{first}'", "'f.md'"] {
            for (flags, content) in ways {
                let project = Project::with(&[("x.txt", "text")]);
                let mut puppet = Puppet::new(&project);
                assert_eq!(puppet.does("first = os.open('x.txt', os.O_RDONLY)"), "ok");
                assert_eq!(puppet.does("os.read(first, 1)"), "b't'");
                assert_eq!(puppet.does(moves), "None");
                if !from.is_empty() {
                    assert_eq!(puppet.does(from), "None");
                }
                let what = format!("{moves}, {path}, {flags}");
                assert_eq!(puppet.does(&format!("fd = os.open({path}, {flags})")), "ok", "{what}");
                // What it was opened by first is open no more, and still the node is as it was to the kernel.
                assert_eq!(puppet.does("os.close(first)"), "None", "{what}");
                assert_eq!(puppet.does("again = os.open('f.md', os.O_RDONLY)"), "ok", "{what}");
                if flags != "os.O_RDONLY" {
                    assert_eq!(puppet.does("os.write(fd, b'T')"), "1", "{what}");
                }
                assert_eq!(puppet.does("os.close(fd)"), "None", "{what}");
                assert_eq!(project.read("f.md"), content, "{what}");
                assert_eq!(
                    puppet.does("os.read(again, 9) in (b'text', open('f.md', 'rb').read())"),
                    "True",
                    "{what}"
                );
            }
        }
    }
}

#[test]
fn o1_who_opens_what_cannot_be_changed_is_told_so_at_once() {
    watchdog();
    let mut project = Project::unmounted(&[]);
    // Behind the mount, through which no ioctl(2) goes.
    let backing = project.outside().join("backing");
    std::fs::create_dir(&backing).unwrap();
    let [fixed, log] = ["STATE.md", "OTHER.md"].map(|name| backing.join(name));
    std::fs::write(&fixed, "version one\n").unwrap();
    std::fs::write(&log, "o1").unwrap();
    let Some(_fixed) = Immutable::new(&fixed) else {
        return;
    };
    let Some(_log) = Immutable::append_only(&log) else {
        return;
    };
    project.mount_with(&["--backing", backing.to_str().unwrap()]);
    let mut puppet = Puppet::new(&project);
    for flags in ["O_WRONLY | os.O_TRUNC", "O_RDWR", "O_WRONLY | os.O_APPEND"] {
        assert_eq!(
            puppet.does(&format!("os.open('STATE.md', os.{flags})")),
            "EPERM",
            "{flags}"
        );
    }
    assert_eq!(puppet.does("os.truncate('STATE.md', 0)"), "EPERM");
    assert_eq!(puppet.does("os.open('OTHER.md', os.O_WRONLY | os.O_TRUNC)"), "EPERM");
    assert_eq!(
        puppet.does("put('OTHER.md', ' line', os.O_WRONLY | os.O_APPEND)"),
        "None"
    );
    assert_eq!(project.read("OTHER.md"), "o1 line");
    assert_eq!(project.read("STATE.md"), "version one\n");
    let status = project.status();
    assert_eq!(
        (&status["refused"], &status["recovered"]),
        (&serde_json::json!([]), &serde_json::json!([]))
    );
}

/// No rule says any more that it is coordinated. O_PATH stands for a walk that has found it a moment ago.
#[test]
fn h1_r1_a_version_is_not_written_to_though_its_name_and_its_directory_are_gone() {
    watchdog();
    let project = Project::with(&[]);
    std::fs::create_dir(project.path("s")).unwrap();
    project.save("s/c.md", "version one\n");
    let mut opener = Puppet::new(&project);
    opener.does("found, reader = os.open('s/c.md', os.O_PATH), open('s/c.md')");
    opener.does("(os.unlink('s/c.md'), os.rename('s', 't'), os.rmdir('t'))");
    opener.does("by = f'/proc/self/fd/{found}'");
    for way in [
        "os.open(by, os.O_WRONLY | os.O_TRUNC)",
        "os.open(by, os.O_WRONLY)",
        "os.open(by, os.O_RDWR)",
        "os.open(by, os.O_WRONLY | os.O_APPEND)",
        "os.truncate(by, 3)",
    ] {
        assert_eq!(opener.does(way), "ESTALE", "{way}");
    }
    assert_eq!(
        opener.does("[reader.read(), open(by).read()]"),
        r"['version one\n', 'version one\n']"
    );
    assert_eq!(project.show("s/c.md", 1), b"version one\n");
    // What is staged for no name any more is nobody's but its writer's.
    opener.does("(os.mkdir('s'), put('s/d.md', 'old'))");
    opener.does("staged = os.open('s/d.md', os.O_RDWR)");
    opener.does("(os.unlink('s/d.md'), os.rmdir('s'))");
    assert_eq!(opener.does("put(f'/proc/self/fd/{staged}', 'new')"), "None");
    // And so is what was ordinary.
    opener.does("(os.mkdir('s'), put('s/o.txt', 'old'))");
    opener.does("other = os.open('s/o.txt', os.O_PATH)");
    opener.does("(os.unlink('s/o.txt'), os.rmdir('s'))");
    assert_eq!(opener.does("put(f'/proc/self/fd/{other}', 'new')"), "None");
    assert_eq!(opener.does("open(f'/proc/self/fd/{other}').read()"), "new");
}

/// The data pass the daemon by, and the kernel keeps attributes of the node that the store is not made to.
#[test]
fn o1_a_store_through_a_shared_mapping_is_seen_by_the_time_of_the_file() {
    let project = project();
    let (mut writer, mut looker) = (Puppet::new(&project), Puppet::new(&project));
    let step = "put('data.bin', 'x' * 8192); os.utime('data.bin', (1000, 1000))";
    assert_eq!(writer.does(step), "ok");
    // It asks for this time only, of which mmap(2) has the kernel forget nothing.
    let step = "subprocess.check_output(['stat', '-c', '%Y', 'data.bin']).strip() == b'1000'";
    let mut is_old = || looker.does(step) == "True";
    assert!(is_old());
    let step = "fd = os.open('data.bin', os.O_RDWR); m = mmap.mmap(fd, 8192); m[0:5] = b'first'";
    assert_eq!(writer.does(step), "ok");
    eventually("the file is open, and nobody was told of the store", || !is_old());
    // Where the page is written already, the next store is one again.
    let ages = "os.fsync(fd); os.utime('data.bin', (1000, 1000))";
    assert_eq!(writer.does(ages), "ok");
    assert!(is_old());
    assert_eq!(writer.does("m[0:5] = b'after'"), "ok");
    eventually("the time before was kept for a second", || !is_old());
    for (store, told) in [
        ("m[0:5] = b'other'", "os.fsync(fd)"),
        ("m[0:5] = b'third'", "m.close()"),
    ] {
        assert_eq!(writer.does(ages), "ok");
        assert!(is_old());
        assert_eq!(writer.does(&format!("{store}; {told}")), "ok");
        assert!(!is_old(), "{store}; {told}");
    }
}
