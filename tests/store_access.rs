//! Who may read what lies in `.concord/`, and that nobody writes to it through the mount (H4). Against a real mount; needs root, to become others.

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use support::{Project, as_nobody, run, succeed, text, watchdog};

#[test]
fn h4_another_user_reads_nothing_through_history() {
    watchdog();
    let project = Project::with(&[("secret.md", "the secret of before\n"), ("open.md", "v1\n")]);
    std::fs::set_permissions(project.path("secret.md"), PermissionsExt::from_mode(0o600)).unwrap();
    project.save("secret.md", "no secret\n");
    std::fs::set_permissions(project.path("secret.md"), PermissionsExt::from_mode(0o644)).unwrap();
    let other = |script: &str| {
        let mut command = as_nobody("sh");
        command.args(["-c", script]).current_dir(project.root());
        run(command)
    };
    assert!(
        other("cat secret.md").status.success(),
        "the file itself is open to all by now"
    );
    // The build's directory may be closed to him.
    let binary = project.outside().join("concord");
    std::fs::copy(env!("CARGO_BIN_EXE_concord"), &binary).unwrap();
    assert!(other(&format!("{} --version", binary.display())).status.success());
    let binary = binary.display();
    let scripts = [
        "ls -d .concord".to_owned(),
        "ls .concord".to_owned(),
        "cat .concord/format".to_owned(),
        "cat .concord/history/*/*/1".to_owned(),
        format!("{binary} show secret.md@1"),
        format!("{binary} history secret.md"),
        format!("{binary} diff secret.md@1"),
        format!("{binary} restore secret.md@1"),
        format!("{binary} status"),
    ];
    for script in scripts {
        let output = other(&script);
        assert!(!output.status.success(), "{script}: {}", text(&output.stdout));
        assert!(!text(&output.stdout).contains("before"), "{script}");
    }
    assert_eq!(project.read("secret.md"), "no secret\n");
}

#[test]
fn h4_a_kept_version_has_the_mode_and_the_owner_that_it_had() {
    watchdog();
    let project = Project::with(&[("secret.md", "before\n")]);
    std::fs::set_permissions(project.path("secret.md"), PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(project.path("secret.md"), Some(1234), Some(1235)).unwrap();
    project.save("secret.md", "after\n");
    std::fs::set_permissions(project.path("secret.md"), PermissionsExt::from_mode(0o644)).unwrap();
    let kept = succeed(project.sh("stat -c '%a %u %g' .concord/history/*/*/1"));
    assert_eq!(kept, "600 1234 1235\n");
    assert_eq!(
        succeed(project.sh("stat -c %a .concord .concord/history")),
        "700\n700\n"
    );
}

#[test]
fn h4_a_store_that_was_open_to_others_is_closed_by_the_next_mount() {
    watchdog();
    let mut project = Project::with(&[("secret.md", "before\n")]);
    project.save("secret.md", "after\n");
    project.unmount();
    let rooms = [".concord", ".concord/history", ".concord/shadows", ".concord/recovered"];
    for room in rooms {
        std::fs::set_permissions(project.path(room), PermissionsExt::from_mode(0o755)).unwrap();
    }
    project.mount();
    for room in rooms {
        let mode = std::fs::metadata(project.path(room)).unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o700, "{room}");
    }
}

#[test]
fn the_store_is_readable_through_the_mount_but_not_listed() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    project.save("STATE.md", "v2\n");
    assert_eq!(succeed(project.sh("ls -A")), "STATE.md\n");
    assert_eq!(succeed(project.sh("cat .concord/format")), "concordfs 3\n");
    assert_eq!(succeed(project.sh("cat .concord/history/*/*/1")), "v1\n");
}

#[test]
fn every_way_to_write_to_the_store_through_the_mount_is_refused_with_erofs() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n"), ("other", ""), ("other.json", "")]);
    project.save("STATE.md", "v2\n");
    let program = r#"
import ctypes, os, errno, glob, socket
def exchange(a, b):
    if ctypes.CDLL(None, use_errno=True).renameat2(-100, a.encode(), -100, b.encode(), 2): raise OSError(ctypes.get_errno(), a)
version = glob.glob('.concord/history/*/*/1')[0]
# Names that the rules would coordinate anywhere else.
record, beacon = version + '.json', '.concord/daemon.json'
O = os.O_CREAT | os.O_WRONLY
attempts = {
 'create': lambda: os.open('.concord/x', O), 'create deep': lambda: os.open('.concord/history/x', O),
 'write': lambda: os.open('.concord/format', os.O_WRONLY), 'truncating open': lambda: os.open(version, os.O_RDWR | os.O_TRUNC),
 'append': lambda: os.open('.concord/log', os.O_WRONLY | os.O_APPEND), 'truncate': lambda: os.truncate(version, 0),
 'unlink': lambda: os.unlink('.concord/lock'), 'unlink version': lambda: os.unlink(version),
 'mkdir': lambda: os.mkdir('.concord/d'), 'rmdir': lambda: os.rmdir('.concord/shadows'), 'rmdir store': lambda: os.rmdir('.concord'),
 'rename out': lambda: os.rename(version, 'stolen'), 'rename in': lambda: os.rename('other', '.concord/other'),
 'rename the store': lambda: os.rename('.concord', 'c'), 'rename within': lambda: os.rename('.concord/format', '.concord/f'),
 'link in': lambda: os.link('other', '.concord/l'), 'symlink': lambda: os.symlink('x', '.concord/s'),
 'mknod': lambda: os.mknod('.concord/n'), 'mkfifo': lambda: os.mkfifo('.concord/p'),
 'chmod': lambda: os.chmod(version, 0o777), 'chmod store': lambda: os.chmod('.concord', 0o777), 'chown': lambda: os.chown(version, 1, 1),
 'utimes': lambda: os.utime(version), 'setxattr': lambda: os.setxattr(version, 'user.x', b'1'),
 'removexattr': lambda: os.removexattr(version, 'user.x'),
 'write record': lambda: os.open(record, os.O_RDWR), 'save record': lambda: os.open(record, O | os.O_TRUNC),
 'truncate beacon': lambda: os.truncate(beacon, 0), 'unlink beacon': lambda: os.unlink(beacon),
 'create record': lambda: os.open(version + '7.json', O), 'rename onto record': lambda: os.rename('other', record),
 'rename record': lambda: os.rename(record, 'stolen.json'), 'link to a record': lambda: os.link('other', '.concord/new.json'),
 'rename coordinated in': lambda: os.rename('other.json', '.concord/other'), 'exchange out': lambda: exchange('other', record),
 'exchange': lambda: exchange('other.json', record),
}
for name, attempt in attempts.items():
    try:
        attempt()
        print(name, 'went through')
    except OSError as error:
        if error.errno != errno.EROFS: print(name, errno.errorcode[error.errno])
try:
    os.link(version, 'stolen'); print('link out went through')
except OSError as error:
    if error.errno not in (errno.EROFS, errno.EXDEV): print('link out', errno.errorcode[error.errno])
"#;
    assert_eq!(succeed(project.python(program)), "");
    assert_eq!(project.show("STATE.md", 1), b"v1\n");
}
