//! Several users on one mount (`allow_other`), and what must not get them further than the backing filesystem lets them. Needs root, to become others.

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::puppet::Puppet;
use support::{Project, Running, concord, eventually, run, succeed, text, watchdog};

const MATRIX: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/users/matrix.py");
/// What only this file's tests do costs no sync.
const FAST: (&str, &str) = (
    "concord.toml",
    "[[rule]]\npaths = [\"**/*.md\"]\ndurability = \"fast\"\n",
);

/// Two users who share group 4000, and one who is in no other group than his own.
const A: (u32, u32, &[u32]) = (2001, 3001, &[4000]);
const B: (u32, u32, &[u32]) = (2002, 3002, &[4000]);
const C: (u32, u32, &[u32]) = (2003, 3003, &[]);

fn not_root() -> bool {
    watchdog();
    let not = !rustix::process::geteuid().is_root();
    if not {
        eprintln!("not root: not tested");
    }
    not
}

fn user(project: &Project, (uid, gid, groups): (u32, u32, &[u32])) -> Puppet {
    let mut puppet = Puppet::new(project);
    let become_them = format!("os.setgroups({groups:?}), os.setgid({gid}), os.setuid({uid})");
    assert_eq!(puppet.does(&become_them), "(None, None, None)");
    puppet
}

fn set(project: &Project, name: &str, (uid, gid, mode): (u32, u32, u32)) {
    let path = project.path(name);
    chown(&path, Some(uid), Some(gid)).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Owner, group and mode of a name.
fn what(project: &Project, name: &str) -> (u32, u32, u32) {
    let stat = std::fs::symlink_metadata(project.path(name)).unwrap();
    (stat.uid(), stat.gid(), stat.mode() & 0o7777)
}

fn one_waits(project: &Project) {
    project.await_sessions(1, 1);
}

#[test]
fn o1_w11_what_three_users_may_do_to_a_file_is_what_the_backing_filesystem_lets_them() {
    if not_root() {
        return;
    }
    let project = Project::with(&[FAST]);
    let plain = project.outside().join("plain");
    std::fs::create_dir(&plain).unwrap();
    let all = |dir: &Path| {
        let mut command = Command::new("python3");
        command.arg(MATRIX).current_dir(dir);
        succeed(command)
    };
    let (expected, found) = (all(&plain), all(&project.root()));
    for (expected, found) in expected.lines().zip(found.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count());
    assert!(found.lines().count() > 4000);
}

/// The kernel asks what he may do with the file (fs.protected_hardlinks), and would take it for one that has a name.
#[test]
fn w8_who_does_not_own_a_file_that_was_removed_makes_no_name_of_it() {
    if not_root() {
        return;
    }
    let project = Project::with(&[("f.md", "old")]);
    set(&project, "f.md", (0, 0, 0o666));
    set(&project, "", (0, 0, 0o777));
    let mut b = user(&project, B);
    assert_eq!(b.does("fd = os.open('f.md', os.O_RDWR)"), "ok");
    assert_eq!(b.does("os.unlink('f.md')"), "None");
    for new in ["None", "put('f.md', 'new')"] {
        assert_eq!(b.does(new), "None");
        let link = "raw('linkat', -100, f'/proc/self/fd/{fd}'.encode(), -100, b'o.txt', 0x400)";
        assert_eq!(b.does(link), "ENOENT");
    }
}

#[test]
fn w11_a_file_that_a_group_shares_stays_its_owners_whoever_saves_it() {
    if not_root() {
        return;
    }
    let project = Project::with(&[("team.md", "v1\n")]);
    set(&project, "team.md", (A.0, 4000, 0o664));
    let (mut b, mut c) = (user(&project, B), user(&project, C));
    assert_eq!(b.does("put('team.md', 'b\\n')"), "None");
    assert_eq!(b.does("put('team.md', 'c\\n', os.O_WRONLY | os.O_APPEND)"), "None");
    assert_eq!(c.does("put('team.md', 'c\\n')"), "EACCES");
    assert_eq!(project.read("team.md"), "b\nc\n");
    assert_eq!(what(&project, "team.md"), (A.0, 4000, 0o664));
    let newest = &project.history("team.md")[0];
    assert_eq!(newest["how"], "append");
}

#[test]
fn w9_a_new_file_in_a_set_group_id_directory_is_the_groups() {
    if not_root() {
        return;
    }
    let project = Project::with(&[("d/old.md", "")]);
    set(&project, "d", (0, 4000, 0o2775));
    let mut b = user(&project, B);
    b.does("os.umask(0o007)");
    assert_eq!(b.does("put('d/new.md', 'x')"), "None");
    assert_eq!(b.does("put('d/t', 'y'), os.rename('d/t', 'd/old.md')"), "(None, None)");
    assert_eq!(what(&project, "d/new.md"), (B.0, 4000, 0o660));
    assert_eq!(what(&project, "d/old.md"), (B.0, 4000, 0o660));
}

#[test]
fn w11_who_closes_a_file_in_a_directory_that_was_shut_meanwhile_has_saved_it() {
    if not_root() {
        return;
    }
    let project = Project::with(&[("d/a.md", "v1"), ("d/b.md", "v1")]);
    set(&project, "d", (0, 4000, 0o770));
    set(&project, "d/a.md", (A.0, A.1, 0o600));
    let mut a = user(&project, A);
    assert_eq!(a.does("fd = os.open('d/a.md', os.O_WRONLY | os.O_TRUNC)"), "ok");
    assert_eq!(
        a.does("new = os.open('d/new.md', os.O_WRONLY | os.O_CREAT, 0o644)"),
        "ok"
    );
    assert_eq!(a.does("os.write(fd, b'v2'), os.write(new, b'new')"), "(2, 3)");
    set(&project, "d", (0, 0, 0o500));
    std::fs::rename(project.path("d"), project.path("e")).unwrap();
    assert_eq!(a.does("os.close(fd), os.close(new)"), "(None, None)");
    assert_eq!(a.does("get('e/a.md')"), "EACCES");
    assert_eq!(
        (project.read("e/a.md"), project.read("e/new.md")),
        ("v2".into(), "new".into())
    );
    assert!(!project.path("d").exists());
}

/// Each way in which somebody asks for a file and gets it later.
const LATER: [&str; 6] = [
    "fd = os.open('s.md', os.O_WRONLY)",
    "fd = os.open('s.md', os.O_RDWR)",
    "fd = os.open('s.md', os.O_WRONLY | os.O_TRUNC)",
    "fd = os.open('s.md', os.O_RDONLY | os.O_TRUNC)",
    "fd = os.open('s.md', os.O_WRONLY | os.O_CREAT)",
    "os.truncate('s.md', 1)",
];

#[test]
fn w11_who_waited_for_a_file_may_do_what_its_new_permissions_say() {
    if not_root() {
        return;
    }
    let project = Project::with(&[("s.md", "")]);
    let mut holder = Puppet::new(&project);
    let mut waits = |step: &str, owner: (u32, u32, u32)| {
        set(&project, "s.md", (0, 0, 0o666));
        holder.does("fd = os.open('s.md', os.O_WRONLY | os.O_TRUNC); os.write(fd, b'secret')");
        let mut a = user(&project, A);
        a.starts(step);
        one_waits(&project);
        let (uid, gid, mode) = owner;
        holder.does(&format!(
            "os.fchown(fd, {uid}, {gid}); os.fchmod(fd, {mode}); os.close(fd)"
        ));
        a.says()
    };
    for step in LATER {
        assert_eq!(waits(step, (0, 0, 0o600)), "EACCES", "{step}");
        assert_eq!(project.read("s.md"), "secret", "{step}");
        // Nobody's groups are asked where the owner's own rights, or the lack of them, decide.
        assert_eq!(waits(step, (A.0, 0, 0o066)), "EACCES", "{step}");
        assert_ne!(waits(step, (0, 4000, 0o660)), "EACCES", "{step}");
        assert_ne!(waits(step, (A.0, 0, 0o600)), "EACCES", "{step}");
    }
}

/// Of who is not the owner the kernel asks for the ACL first, by a node whose version others have replaced meanwhile.
#[test]
fn w1_who_does_not_own_the_file_waits_his_turn_like_its_owner() {
    if not_root() {
        return;
    }
    let rules = "[[rule]]\npaths = [\"**/*.md\"]\ndurability = \"fast\"\nwait = \"60s\"\nkeep = 500\n";
    let project = Project::with(&[("concord.toml", rules), ("team.md", "v1\n")]);
    set(&project, "team.md", (A.0, 4000, 0o664));
    let mut savers = [user(&project, A), user(&project, B), Puppet::new(&project)];
    let rounds = 40;
    let saves =
        format!("[put('team.md', str(i)) or os.stat('team.md') and get('team.md')[:0] for i in range({rounds})]");
    savers.iter_mut().for_each(|saver| saver.starts(&saves));
    let all = format!("[{}]", vec!["''"; rounds].join(", "));
    for saver in &mut savers {
        assert_eq!(saver.says(), all);
    }
    assert_eq!(project.history("team.md").len(), 1 + savers.len() * rounds);
}

#[test]
fn w11_who_waited_behind_a_rename_gets_no_more_than_a_walk_would_have_given() {
    if not_root() {
        return;
    }
    let project = Project::with(&[("s.md", "everybody's"), ("secret", "secret")]);
    set(&project, "s.md", (0, 0, 0o666));
    set(&project, "secret", (0, 0, 0o600));
    let (mut holder, mut mover, mut a) = (Puppet::new(&project), Puppet::new(&project), user(&project, A));
    holder.does("fd = os.open('s.md', os.O_WRONLY)");
    mover.starts("os.rename('secret', 's.md')");
    one_waits(&project);
    // It waits in the queue, if it has come so far.
    a.starts("fd = os.open('s.md', os.O_RDWR)");
    std::thread::sleep(Duration::from_millis(200));
    holder.does("os.close(fd)");
    assert_eq!((mover.says().as_str(), a.says().as_str()), ("None", "EACCES"));
    assert_eq!(project.read("s.md"), "secret");
    assert_eq!(what(&project, "s.md"), (0, 0, 0o600));
}

#[test]
fn w9_who_waited_for_a_creator_gets_no_more_than_the_new_file_allows() {
    if not_root() {
        return;
    }
    let project = Project::with(&[]);
    set(&project, "", (0, 0, 0o777));
    let mut creator = Puppet::new(&project);
    for flags in ["os.O_RDWR | os.O_CREAT", "os.O_WRONLY | os.O_APPEND | os.O_CREAT"] {
        creator.does("os.umask(0o077); fd = os.open('new.md', os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)");
        creator.does("os.write(fd, b'secret')");
        let mut a = user(&project, A);
        a.starts(&format!("other = os.open('new.md', {flags}, 0o666)"));
        // It waits, or is refused by what the shadow's permissions are already.
        std::thread::sleep(Duration::from_millis(200));
        creator.does("os.close(fd)");
        assert_eq!(a.says(), "EACCES", "{flags}");
        assert_eq!(project.read("new.md"), "secret");
        std::fs::remove_file(project.path("new.md")).unwrap();
    }
}

/// A rename has the name and waits for its source: who would create the name finds something there, of which nothing is known yet.
#[test]
fn w9_who_waited_for_a_rename_gets_no_more_than_the_new_file_allows() {
    if not_root() {
        return;
    }
    for flags in [
        "os.O_RDWR | os.O_CREAT",
        "os.O_WRONLY | os.O_APPEND | os.O_CREAT",
        "os.O_WRONLY | os.O_TRUNC | os.O_CREAT",
        "os.O_RDONLY | os.O_CREAT",
    ] {
        let project = Project::with(&[("concord.toml", "wait = '60s'\n"), ("tmp.md", "secret")]);
        set(&project, "", (0, 0, 0o777));
        set(&project, "tmp.md", (0, 0, 0o600));
        let (mut holder, mut mover, mut a) = (Puppet::new(&project), Puppet::new(&project), user(&project, A));
        holder.does("fd = os.open('tmp.md', os.O_WRONLY)");
        mover.starts("os.rename('tmp.md', 'new.md')");
        one_waits(&project);
        a.starts(&format!("fd = os.open('new.md', {flags}, 0o666)"));
        std::thread::sleep(Duration::from_millis(200));
        holder.does("os.close(fd)");
        assert_eq!(
            (mover.says().as_str(), a.says().as_str()),
            ("None", "EACCES"),
            "{flags}"
        );
        assert_eq!(project.read("new.md"), "secret");
        assert_eq!(what(&project, "new.md"), (0, 0, 0o600));
    }
}

#[test]
fn w12_a_lock_gives_nobody_a_file_that_he_may_not_write_to() {
    if not_root() {
        return;
    }
    let project = Project::with(&[("l.md", "v1"), ("secret", "secret")]);
    set(&project, "l.md", (0, 0, 0o666));
    set(&project, "secret", (0, 0, 0o600));
    let mut a = user(&project, A);
    a.does("fd = os.open('l.md', os.O_RDWR)");
    let locked = "fcntl.flock(fd, fcntl.LOCK_EX), os.pwrite(fd, b'a', 0), fcntl.flock(fd, fcntl.LOCK_UN)";
    assert_eq!(a.does(locked), "(None, 1, None)");
    assert_eq!(project.read("l.md"), "a1");
    std::fs::rename(project.path("secret"), project.path("l.md")).unwrap();
    assert_eq!(a.does("fcntl.flock(fd, fcntl.LOCK_EX)"), "None");
    assert_eq!(a.does("os.pwrite(fd, b'evil', 0)"), "EACCES");
    assert_eq!(a.does("os.pread(fd, 100, 0)"), "b'a1'");
    a.does("os.close(fd)");
    assert_eq!(project.read("l.md"), "secret");
    assert_eq!(what(&project, "l.md"), (0, 0, 0o600));
}

#[test]
fn w10_lines_do_not_follow_a_name_to_a_file_that_their_writer_may_not_write_to() {
    if not_root() {
        return;
    }
    let project = Project::with(&[("log.md", ""), ("next", "n\n"), ("secret", "secret\n")]);
    set(&project, "log.md", (0, 0, 0o666));
    set(&project, "next", (0, 4000, 0o660));
    set(&project, "secret", (0, 0, 0o600));
    let (mut a, mut c) = (user(&project, A), user(&project, C));
    for each in [&mut a, &mut c] {
        each.does("fd = os.open('log.md', os.O_WRONLY | os.O_APPEND)");
        assert_eq!(each.does("os.write(fd, b'one\\n')"), "4");
    }
    std::fs::rename(project.path("next"), project.path("log.md")).unwrap();
    assert_eq!(
        (a.does("os.write(fd, b'two\\n')"), c.does("os.write(fd, b'TWO\\n')")),
        ("4".into(), "4".into())
    );
    assert_eq!(project.read("log.md"), "n\ntwo\n");
    std::fs::rename(project.path("secret"), project.path("log.md")).unwrap();
    assert_eq!(a.does("os.write(fd, b'three\\n'), os.close(fd)"), "(6, None)");
    assert_eq!(c.does("os.close(fd)"), "None");
    assert_eq!(project.read("log.md"), "secret\n");
    eventually("what they wrote in vain is kept", || project.recovered().len() == 2);
}

#[test]
fn w5_what_is_written_late_does_not_replace_a_file_that_its_writer_may_not_write_to() {
    if not_root() {
        return;
    }
    let project = Project::with(&[("s.md", "v1")]);
    set(&project, "s.md", (0, 0, 0o666));
    let (mut giver, mut taker) = (user(&project, A), user(&project, A));
    taker.does("near, far = None, None");
    let socket = "\0concord-test-users";
    taker.does(&format!(
        "s = socket.socket(socket.AF_UNIX); s.bind({socket:?}.replace('{{}}', '') + str(os.getpid())); s.listen()"
    ));
    giver.does(&format!(
        "c = socket.socket(socket.AF_UNIX); c.connect({socket:?}.replace('{{}}', '') + '{}')",
        taker.0.pid()
    ));
    giver.does("fd = os.open('s.md', os.O_WRONLY | os.O_TRUNC)");
    assert_eq!(
        giver.does("os.write(fd, b'first'), len([socket.send_fds(c, [b'x'], [fd])]), os.close(fd)"),
        "(5, 1, None)"
    );
    assert_eq!(taker.does("fd = socket.recv_fds(s.accept()[0], 1, 1)[1][0]"), "ok");
    assert_eq!(project.read("s.md"), "first");
    // One that is renamed over it is another file: what is written to this one goes with it.
    set(&project, "s.md", (0, 0, 0o600));
    project.save("s.md", "secret");
    assert_eq!(taker.does("os.write(fd, b' evil')"), "5");
    assert_eq!(taker.does("os.close(fd)"), "EACCES");
    assert_eq!(project.read("s.md"), "secret");
    assert_eq!(what(&project, "s.md"), (0, 0, 0o600));
    let kept = project.recovered();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(kept[0]["why"].as_str().unwrap().contains("may not write"), "{kept:?}");
}

/// A tmpfs that programs and devices are not to be trusted on, gone with the test.
struct Untrusted(tempfile::TempDir);

impl Drop for Untrusted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path().join("t"), rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn what_the_backing_mount_forbids_programs_and_devices_the_mount_forbids_too() {
    if not_root() {
        return;
    }
    let untrusted = Untrusted(tempfile::tempdir().unwrap());
    let at = untrusted.0.path().join("t");
    std::fs::create_dir(&at).unwrap();
    let mut mount = Command::new("mount");
    mount
        .args(["-t", "tmpfs", "-o", "size=1m,nosuid,nodev,noexec", "untrusted"])
        .arg(&at);
    succeed(mount);
    let mut project = Project::unmounted(&[]);
    let flags = |project: &Project| {
        let root = project.root();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut ours = mounts.lines().map(|line| line.split(' '));
        let found = ours.find_map(|mut words| words.nth(4).filter(|at| Path::new(at) == root).and(words.next()));
        let mut flags: Vec<_> = found.unwrap().split(',').map(str::to_owned).collect();
        flags.sort();
        flags
    };
    project.mount_with(&["--backing", at.to_str().unwrap()]);
    assert_eq!(flags(&project), ["nodev", "noexec", "nosuid", "relatime", "rw"]);
    std::fs::write(project.path("run"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(project.path("run"), PermissionsExt::from_mode(0o777)).unwrap();
    assert!(text(&run(project.sh("./run")).stderr).contains("denied"));
    project.unmount();
    assert_eq!(flags(&Project::with(&[])), ["relatime", "rw"]);
}

#[test]
fn a_store_that_another_user_has_put_there_is_not_used() {
    if not_root() {
        return;
    }
    let project = Project::unmounted(&[("secret.md", "v1")]);
    set(&project, "", (0, 0, 0o777));
    std::fs::create_dir(project.path(".concord")).unwrap();
    set(&project, ".concord", (A.0, A.1, 0o777));
    let mut command = concord(&["mount"]);
    command.arg(project.root());
    let refused = run(command);
    let said = text(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("it belongs to user 2001"),
        "{said}"
    );
    // The project's owner could put anything there in any case.
    let mut project = project;
    set(&project, "", (A.0, A.1, 0o755));
    project.mount();
    assert_eq!(what(&project, ".concord").2, 0o700);
}

#[test]
fn h4_no_way_leads_another_user_into_the_store() {
    if not_root() {
        return;
    }
    let project = Project::with(&[("open.md", "v1"), ("own.md", "")]);
    set(&project, "", (0, 0, 0o777));
    std::fs::write(project.path("open.md"), "v2").unwrap();
    // Root has just been there: nothing of it may stay in the kernel's memory.
    succeed(project.sh("cat .concord/history/*/*/1 .concord/format; ls -lR .concord"));
    let mut root = Puppet::new(&project);
    root.does("store, inner = os.open('.concord', os.O_PATH), os.open('.concord/history', os.O_PATH)");
    root.does("beacon = json.load(open('.concord/daemon.json')) if False else eval(get('.concord/daemon.json'))");
    root.does("tree = '/proc/%d/fd/%d' % (beacon['pid'], beacon['root_fd'])");
    root.does("plain = os.open(tree + '/.concord', os.O_PATH)");
    assert_eq!(root.does("os.listdir(tree).count('.concord')"), "1");
    assert_eq!(
        root.does("os.setgroups([]), os.setgid(2001), os.setuid(2001)"),
        "(None, None, None)"
    );
    let attempts = [
        "os.listdir('.concord')",
        "os.stat('.concord')",
        "os.stat('.concord/..')",
        "os.listdir('.concord/../.concord/history')",
        "get('.concord/format')",
        "os.chdir('.concord')",
        "os.rename('own.md', '.concord/own.md')",
        "os.rename('own.md', '.concord/history/own.md')",
        "os.rename('.concord', 'mine')",
        "os.rename('.concord/format', 'mine')",
        "os.link('.concord/format', 'mine')",
        "os.link('own.md', '.concord/own.md')",
        "os.rmdir('.concord')",
        "exchange('.concord', 'own.md')",
        "raw('mount', b'.concord', b'/mnt', b'', 4096, 0)",
        "os.listdir(f'/proc/self/fd/{store}')",
        "os.stat('history', dir_fd=store)",
        "os.open('format', os.O_RDONLY, dir_fd=store)",
        "os.link('format', '../mine', src_dir_fd=store)",
        "os.listdir(inner)",
        "os.listdir(f'/proc/self/fd/{inner}')",
        "os.open('..', os.O_RDONLY, dir_fd=inner)",
        "os.listdir(f'/proc/self/fd/{plain}')",
        "os.open('format', os.O_RDONLY, dir_fd=plain)",
        "os.listdir(tree)",
        "os.open(tree + '/.concord/format', os.O_RDONLY)",
        "socket.socket(socket.AF_UNIX).connect('.concord/sock')",
        "socket.socket(socket.AF_UNIX).connect(f'/proc/self/fd/{plain}/sock')",
        "socket.socket(socket.AF_UNIX).connect(tree + '/.concord/sock')",
    ];
    let refusals = ["EACCES", "EPERM", "ENOENT", "EROFS", "EXDEV", "EBADF"];
    for attempt in attempts {
        let said = root.does(attempt);
        assert!(refusals.contains(&said.as_str()), "{attempt}: {said}");
    }
    assert_eq!(project.read("own.md"), "");
    assert!(!project.path("mine").exists());
}

#[test]
fn another_user_who_reaches_the_control_socket_may_ask_nothing() {
    if not_root() {
        return;
    }
    let project = Project::with(&[("s.md", "v1")]);
    std::fs::write(project.path("s.md"), "v2").unwrap();
    let mut root = Puppet::new(&project);
    root.does("beacon = eval(get('.concord/daemon.json'))");
    root.does("os.chdir('/proc/%d/fd/%d/.concord' % (beacon['pid'], beacon['root_fd']))");
    // As if an admin had opened all doors.
    assert_eq!(
        root.does("os.chmod('.', 0o755), os.chmod('sock', 0o666)"),
        "(None, None)"
    );
    root.does("os.setgroups([]), os.setgid(2001), os.setuid(2001)");
    let asks = [
        r#"{"protocol":1,"command":"status"}"#,
        r#"{"protocol":1,"command":"recovered"}"#,
        r#"{"protocol":1,"command":"restore","file":"s.md","version":1}"#,
        r#"{"protocol":1,"command":"unmount","force":true}"#,
        "garbage",
    ];
    for ask in asks {
        root.does("s = socket.socket(socket.AF_UNIX); s.connect('sock')");
        root.does(&format!("s.sendall(b'{ask}\\n')"));
        let said = root.does("s.makefile().readline().strip()");
        assert!(said.contains("may not control the daemon of user 0"), "{ask}: {said}");
        assert!(!said.contains("s.md"), "{ask}: {said}");
    }
    assert_eq!(project.read("s.md"), "v2");
}

#[test]
fn a_name_and_a_command_that_are_hostile_forge_no_line_of_the_log() {
    if not_root() {
        return;
    }
    let project = Project::with(&[]);
    set(&project, "", (0, 0, 0o777));
    let mut a = user(&project, A);
    a.does("ctypes.CDLL(None).prctl(15, b'x\\n\\x1b[31mEVIL', 0, 0, 0)");
    a.does("fd = os.open('b\\n[2026] ERROR.md', os.O_WRONLY | os.O_CREAT); os.write(fd, b'abc')");
    a.starts("os.kill(os.getpid(), 9)");
    eventually("what it wrote is kept", || project.recovered().len() == 1);
    let log = std::fs::read_to_string(project.path(".concord/log")).unwrap();
    assert!(log.lines().all(|line| line.starts_with('[')), "{log}");
    assert!(!log.contains('\x1b'), "{log}");
    assert!(log.contains("\\u{1b}[31mEVIL"), "{log}");
    for command in ["status", "recover"] {
        let mut command = concord(&[command]);
        let output = run({
            command.arg(project.root());
            command
        });
        assert!(!text(&output.stdout).contains('\x1b') && !text(&output.stderr).contains('\x1b'));
    }
}

/// For two seconds or more, a user's directory `d` is a link to somebody else's directory every other moment, while another user saves, appends, creates
/// and replaces files in it. `swapped` is where the directory is exchanged. It is a directory most of the time: of one that changes
/// behind the mount the kernel keeps for a second what it saw.
fn race_of_links(project: &Project, swapped: &Path) {
    let theirs = project.outside().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    for name in ["f.md", "log.md"] {
        std::fs::write(theirs.join(name), "untouched\n").unwrap();
        std::fs::set_permissions(theirs.join(name), PermissionsExt::from_mode(0o600)).unwrap();
    }
    std::fs::create_dir(project.path("d")).unwrap();
    for name in ["", "d", "d/f.md", "d/log.md"] {
        let path = project.path(name);
        if path.extension().is_some() {
            std::fs::write(&path, "").unwrap();
        }
        set(
            project,
            name,
            (A.0, 4000, if name.contains('.') { 0o664 } else { 0o2775 }),
        );
    }
    let swap = format!(
        "import os, select\nos.setgroups([4000]); os.setgid(3001); os.setuid(2001); os.chdir({swapped:?})\n\
         while not select.select([0], [], [], 0.0005)[0]:\n os.rename('d', 'e'); os.symlink({theirs:?}, 'd'); os.unlink('d'); os.rename('e', 'd')\n"
    );
    let save = "import errno, os, time\nos.setgroups([4000]); os.setgid(3002); os.setuid(2002)\nstart, done, seen = time.time(), 0, set()\n\
        def save(name, flags):\n fd = os.open(name, flags, 0o664)\n try: os.write(fd, b'mine\\n')\n finally: os.close(fd)\n\
        W = os.O_WRONLY\n\
        steps = [lambda: save('d/f.md', W | os.O_TRUNC), lambda: save('d/f.md', os.O_RDWR), lambda: save('d/log.md', W | os.O_APPEND),\n\
        \x20 lambda: (save('d/new.md', W | os.O_CREAT | os.O_EXCL), os.unlink('d/new.md')), lambda: (save('d/t', W | os.O_CREAT), os.rename('d/t', 'd/f.md')),\n\
        \x20 lambda: os.truncate('d/f.md', 1)]\n\
        while time.time() < start + 2 or (done <= 20 and time.time() < start + 30):\n for step in steps:\n  try: step(); done += 1\n  except OSError as error: seen.add(errno.errorcode[error.errno])\n\
        print(done, ' '.join(sorted(seen - {'ENOENT', 'EACCES', 'EEXIST', 'EXDEV', 'ESTALE'})))";
    let (mut swapper, saver) = (
        Running::start(project.python(&swap)),
        Running::start(project.python(save)),
    );
    let mut saver = saver;
    let said = saver.hear();
    assert!(saver.finish().success());
    drop(swapper.0.stdin.take());
    assert!(swapper.finish().success());
    let (done, odd) = said.split_once(' ').unwrap();
    assert!(done.parse::<u32>().unwrap() > 20 && odd.is_empty(), "{said}");
    let names: Vec<_> = std::fs::read_dir(&theirs)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    for name in ["f.md", "log.md"] {
        let stat = std::fs::metadata(theirs.join(name)).unwrap();
        assert_eq!((stat.uid(), stat.mode() & 0o7777), (0, 0o600));
        assert_eq!(std::fs::read_to_string(theirs.join(name)).unwrap(), "untouched\n");
    }
}

#[test]
fn a_directory_that_becomes_a_link_again_and_again_leads_no_save_astray() {
    if not_root() {
        return;
    }
    let project = Project::with(&[FAST]);
    race_of_links(&project, &project.root());
}

#[test]
fn a_directory_that_becomes_a_link_behind_the_mount_leads_no_save_astray() {
    if not_root() {
        return;
    }
    let mut project = Project::unmounted(&[]);
    let plain = project.outside().join("plain");
    std::fs::create_dir(&plain).unwrap();
    std::fs::write(plain.join(FAST.0), FAST.1).unwrap();
    project.mount_with(&["--shared-backing", "--backing", plain.to_str().unwrap()]);
    race_of_links(&project, &plain);
}

/// The kernel lets him in by the version that he has open, or has found.
#[test]
fn w11_who_changes_a_later_version_of_what_he_has_open_may_do_what_its_permissions_say() {
    if not_root() {
        return;
    }
    let project = Project::with(&[FAST, ("f.md", "old")]);
    let mut root = Puppet::new(&project);
    for (then, chmod, write) in [
        ((0, 0, 0o644), "EPERM", "EACCES"),
        ((0, 0, 0o666), "EPERM", "None"),
        ((2001, 0, 0o644), "None", "None"),
    ] {
        set(&project, "f.md", (2001, 3001, 0o644));
        let mut a = user(&project, A);
        assert_eq!(a.does("fd = os.open('f.md', os.O_RDONLY)"), "ok");
        assert_eq!(a.does("os.read(fd, 1) and None"), "None");
        assert_eq!(root.does("put('f.md', 'new')"), "None");
        set(&project, "f.md", then);
        assert_eq!(a.does("os.setxattr(fd, 'user.a', b'b')"), write, "{then:?}");
        assert_eq!(a.does("os.utime(fd)"), write, "{then:?}");
        assert_eq!(what(&project, "f.md"), then);
        assert_eq!(a.does("os.fchmod(fd, 0o2604)"), chmod, "{then:?}");
        // He is not in its group.
        let changed = if chmod == "None" { (then.0, then.1, 0o604) } else { then };
        assert_eq!(what(&project, "f.md"), changed, "{then:?}");
    }
}
