//! A user who is not root mounts a directory of his own, through fusermount3. Needs root, to become that user.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use support::{Project, Running, run, text, watchdog};

const USER: u32 = 1000;

/// A project of the user, and what he does in it. In a mount namespace of its own, where /dev/fuse is open to all, as on most machines, and the user has a name, which fusermount3 asks for.
struct Home {
    project: Project,
    binary: PathBuf,
    /// Holds the namespace.
    holder: Running,
}

impl Home {
    /// Nothing without root.
    fn with(files: &[(&str, &str)]) -> Option<Home> {
        watchdog();
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root: not tested");
            return None;
        }
        assert!(
            !support::twin::lacks("fusermount3"),
            "fusermount3 is missing: users other than root cannot mount; scripts/test.sh installs it (Debian: fuse3)"
        );
        let project = Project::unmounted(files);
        // The build's directory may be closed to him.
        let binary = project.outside().join("concord");
        std::fs::copy(env!("CARGO_BIN_EXE_concord"), &binary).unwrap();
        let mut own = Command::new("chown");
        own.args(["-R", "1000:1000"]).arg(project.outside());
        support::succeed(own);
        // fusermount3 asks for the user's name.
        let open = "set -e; mount -t tmpfs -o mode=755 dev /mnt; mknod -m 666 /mnt/fuse c 10 229; mount --bind /mnt/fuse /dev/fuse
            { grep -v :1000: /etc/passwd || :; echo owner:x:1000:1000::/:/bin/sh; } > /mnt/passwd; mount --bind /mnt/passwd /etc/passwd; echo open; cat";
        let mut held = Command::new("unshare");
        held.args(["--mount", "sh", "-c", open]);
        let mut holder = Running::start(held);
        assert_eq!(holder.hear(), "open");
        Some(Home {
            project,
            binary,
            holder,
        })
    }

    fn enter(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.holder.pid().to_string()]);
        command.args(arguments);
        command
    }

    /// A shell script as the user, beside the project, whose directory is `project`.
    fn does(&self, script: &str) -> Output {
        self.does_as(USER, script)
    }

    /// The same as somebody else.
    fn does_as(&self, user: u32, script: &str) -> Output {
        let user = user.to_string();
        let mut command = self.enter(&["--setuid", &user, "--setgid", &user, "sh", "-ec"]);
        command.arg(format!("cd \"$HOME\"; {script}"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.project.outside()).env("concord", &self.binary);
        run(command)
    }

    /// The same, which must succeed; returns what it printed.
    fn says(&self, script: &str) -> String {
        self.says_as(USER, script)
    }

    fn says_as(&self, user: u32, script: &str) -> String {
        let output = self.does_as(user, script);
        assert!(
            output.status.success(),
            "{script}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let mut detach = self.enter(&["umount", "--lazy"]);
        detach.arg(self.project.root());
        // It may be unmounted already.
        let _ = run(detach);
    }
}

/// Ordinary and coordinated names, by what is on every Debian.
const WORK: &str = "umask 027; mkdir d; for f in a.md a.bin b.json; do
    echo one > $f; echo two >> $f; cp $f $f.copy; sed -i s/one/1/ $f; chmod 4755 $f; printf x >> $f; mv $f.copy d/; done
    ln -s a.md link.md; echo through > link.md; ln a.bin hard; rm a.bin; mkfifo d/p; truncate -s 1 b.json
    setfattr -n user.x -v 1 a.md; getfattr --only-values -n user.x a.md; setfacl -m u:1001:r a.md; getfacl -c a.md
    flock a.md sh -c 'echo locked >> a.md'; dd if=/dev/zero of=big.bin bs=64K count=16 status=none; cmp -n 1048576 big.bin /dev/zero
    chgrp 0 a.md 2>&1 || echo no; chown 0 hard 2>&1 || echo no; touch -d @5 hard; tar cf d.tar d; mkdir e; tar xf d.tar -C e
    find . -path ./.concord -prune -o -type f -printf '%P %m %u %g %n %s\\n' | sort; cat a.md b.json hard; ls -l link.md | cut -c1";

#[test]
fn o1_a_users_own_mount_does_what_his_plain_directory_does() {
    let Some(home) = Home::with(&[("STATE.md", "v1")]) else {
        return;
    };
    let expected = home.says(&format!("mkdir plain; cp -p project/STATE.md plain; cd plain; {WORK}"));
    home.says("\"$concord\" mount project");
    let status = home.says("\"$concord\" status project");
    assert!(status.contains("passthrough no"), "before any file is opened: {status}");
    let found = home.says(&format!("cd project; {WORK}"));
    assert_eq!(found.replace("d.tar 644 ", ""), expected.replace("d.tar 644 ", ""));
    let status = home.says("\"$concord\" status project");
    assert!(
        status.contains("passthrough no") && status.contains("sessions open: 0"),
        "{status}"
    );
    home.says("\"$concord\" unmount project");
}

#[test]
fn h3_a_users_own_history_is_listed_compared_restored_and_hidden_from_nobody_but_others() {
    let Some(home) = Home::with(&[("STATE.md", "v1\n")]) else {
        return;
    };
    home.says("\"$concord\" mount project; cd project; echo v2 > STATE.md; echo v3 > STATE.md");
    assert_eq!(
        home.says("\"$concord\" show project/STATE.md@1; cat project/.concord/format"),
        "v1\nconcordfs 3\n"
    );
    assert!(
        home.says("\"$concord\" diff project/STATE.md@1 || true")
            .contains("+v3")
    );
    home.says("\"$concord\" restore project/STATE.md@1");
    assert_eq!(
        home.says("cat project/STATE.md; \"$concord\" unmount project > /dev/null; cat project/STATE.md"),
        "v1\nv1\n"
    );
    assert_eq!(
        home.says("\"$concord\" history --json project/STATE.md | grep -c '\"version\"'"),
        "4\n"
    );
}

#[test]
fn w11_what_the_users_daemon_may_not_replace_stays_as_it_is() {
    let Some(home) = Home::with(&[("shut/f.md", "v1\n"), ("w.md", "v1\n")]) else {
        return;
    };
    home.says("chmod 555 project/shut; \"$concord\" mount project");
    // He may write to the file, but nobody could put another in its place. cp(1) looks at what close(2) says.
    let refused = home.does("echo v2 > v2; cp v2 project/shut/f.md");
    let in_place = refused.status.success();
    let content = home.says("cat project/shut/f.md");
    assert_eq!(
        content,
        if in_place { "v2\n" } else { "v1\n" },
        "{}",
        text(&refused.stderr)
    );
    if !in_place {
        let kept = home.says("cat project/.concord/recovered/*");
        assert!(kept.contains("v2\n"), "{kept}");
    }
    // A log there grows in place, as anywhere.
    home.says("echo more >> project/shut/f.md; tail -n 1 project/shut/f.md | grep -qx more");
    // What he may write and not read he cannot keep a version of.
    home.says("chmod 200 project/w.md");
    let refused = home.does("cp v2 project/w.md");
    home.says("chmod 600 project/w.md");
    let kept = if refused.status.success() { "v2\n" } else { "v1\n" };
    assert_eq!(home.says("cat project/w.md"), kept);
    home.says("\"$concord\" unmount project; chmod 755 project/shut");
}

#[test]
fn h3_what_the_users_daemon_may_not_give_its_owner_is_not_restored_as_his() {
    let Some(home) = Home::with(&[("own.md", "v1\n"), ("lent.md", "v1\n")]) else {
        return;
    };
    // Group 4000 is none of his.
    std::os::unix::fs::chown(home.project.path("lent.md"), None, Some(4000)).unwrap();
    home.says("chmod 640 project/*.md; \"$concord\" mount project; rm project/own.md project/lent.md");
    let refused = home.does("\"$concord\" restore project/lent.md@1");
    let said = text(&refused.stderr);
    assert!(!refused.status.success() && said.contains("may not give"), "{said}");
    home.says("\"$concord\" show project/lent.md@1 | grep -qx v1; test ! -e project/lent.md");
    home.says("\"$concord\" restore project/own.md@1 > /dev/null");
    assert_eq!(
        home.says("stat -c '%a %u %g' project/own.md; \"$concord\" unmount project > /dev/null; ls project"),
        "640 1000 1000\nown.md\n"
    );
}

#[test]
fn h4_a_users_own_mount_is_closed_to_everybody_else() {
    let Some(home) = Home::with(&[("STATE.md", "v1\n")]) else {
        return;
    };
    std::fs::set_permissions(home.project.root(), PermissionsExt::from_mode(0o777)).unwrap();
    home.says("\"$concord\" mount project");
    // Root too.
    for other in ["0", "1001"] {
        let mut other = home.enter(&["--setuid", other, "--setgid", other, "cat"]);
        other.arg(home.project.path("STATE.md"));
        let refused = run(other);
        assert!(!refused.status.success() && text(&refused.stderr).contains("Permission denied"));
    }
    home.says("\"$concord\" unmount project");
}

/// What changes everything that the store has of its own: by `$owner`, in a project that root has mounted.
const WORK_OF_BOTH: &str = "cd project; echo two > a.md; echo new > n.md; echo line >> a.md; rm n.md; mkdir d; echo 1 > d/x.md; mv d e; echo 2 > e/x.md
    echo secret > s.md; chmod 600 s.md; echo secrets > s.md; ls .concord/recovered";
/// What is root's in the store, but for versions' contents.
const ROOTS: &str = "find project/.concord -user 0 ! -regex '.*/history/../[0-9a-f]*/[0-9]*' ! -path '*/images/*'";

#[test]
fn h4_what_roots_daemon_makes_in_a_users_store_is_the_users() {
    let Some(home) = Home::with(&[("a.md", "one\n")]) else {
        return;
    };
    home.says(
        "\"$concord\" mount project; echo first > project/a.md; \"$concord\" unmount project; rm project/.concord/log",
    );
    home.says_as(0, &format!("\"$concord\" mount project; ({WORK_OF_BOTH})"));
    // What a daemon that is killed leaves has to be its owner's too.
    home.says_as(0, "exec 8>> project/a.md; echo more >&8; exec 9> project/new.md; echo staged >&9
        kill -9 $(\"$concord\" status --json project | python3 -c 'import json, sys; print(json.load(sys.stdin)[\"pid\"])'); exec 8>&- 9>&-; umount -l project");
    assert_eq!(
        home.says_as(
            0,
            &format!("{ROOTS} ! -path '*/shadows/*' ! -name sock ! -name 'daemon.json*'")
        ),
        ""
    );
    home.says("\"$concord\" mount project; echo three > project/a.md; cat project/e/x.md");
    let history = home.says("\"$concord\" history project/a.md; \"$concord\" history project/e/x.md");
    assert!(
        history.contains("append") && history.matches("found").count() == 1,
        "{history}"
    );
    let refused = home.does("\"$concord\" show project/s.md@1");
    assert!(!refused.status.success() && !text(&refused.stdout).contains("secret"));
    home.says("\"$concord\" unmount project; \"$concord\" recover project; \"$concord\" history project/a.md");
    // A version that he could not read as a file he cannot read as a version.
    let secret = home.says_as(0, "cat project/.concord/history/*/*/1 | grep -x secret; find project/.concord/history -name '[0-9]' -user 0 -perm 600 | head -n 1");
    assert!(secret.lines().count() == 2, "{secret}");
}

#[test]
fn h4_what_an_earlier_daemon_of_roots_kept_is_named_and_given_back_by_the_next() {
    let Some(home) = Home::with(&[("a.md", "one\n")]) else {
        return;
    };
    home.says(&format!(
        "\"$concord\" mount project; ({WORK_OF_BOTH}); exec 9> project/new.md; echo staged >&9
        \"$concord\" unmount --force project; exec 9>&- || true"
    ));
    home.says_as(0, "cd project/.concord; chown 0:0 history/*/*/2.json");
    let refused = home.does("\"$concord\" history project/a.md");
    let said = text(&refused.stderr);
    assert!(!refused.status.success(), "{}", text(&refused.stdout));
    assert!(said.contains("2.json is user 0's; have root mount"), "{said}");
    home.says_as(
        0,
        "cd project/.concord; find . ! -path . -exec chown 0:0 {} +; chown 1000:1000 .; rm -f sock",
    );
    for command in ["mount", "recover"] {
        let refused = home.does(&format!("\"$concord\" {command} project"));
        let said = text(&refused.stderr);
        assert!(!refused.status.success(), "{said}");
        assert!(said.contains("is user 0's; have root mount"), "{said}");
    }
    // By the name of a record its owner can have any file.
    home.says_as(0, "echo '{\"secret\":1}' > out; chmod 600 out; ln out project/.concord/recovered/out.json; set -- project/.concord/history/*/*; cp out $1/99.json");
    home.says_as(0, "\"$concord\" mount project; \"$concord\" unmount project");
    let left = home.says_as(0, ROOTS);
    // What does not belong in the store was set aside, as root's.
    let may_stay = |path: &str| path.ends_with("/log.old") || path.contains("/recovered/");
    assert!(left.lines().all(may_stay), "{left}");
    assert!(left.lines().any(|path| path.ends_with("-0000")), "{left}");
    assert_eq!(
        home.says_as(0, "stat -c %u out; cat project/.concord/moves | wc -l"),
        "0\n1\n"
    );
    home.says("\"$concord\" mount project; echo four > project/a.md; cat project/e/x.md");
    let history = home
        .says("\"$concord\" history project/a.md; \"$concord\" history project/e/x.md; \"$concord\" unmount project");
    assert!(
        history.contains("append") && history.matches("found").count() == 1,
        "{history}"
    );
}

#[test]
fn h4_a_store_that_root_made_is_named_as_roots() {
    let Some(home) = Home::with(&[("a.md", "one\n")]) else {
        return;
    };
    home.says_as(
        0,
        "\"$concord\" mount project; echo two > project/a.md; \"$concord\" unmount project",
    );
    for command in [
        "mount project",
        "recover project",
        "history project/a.md",
        "show project/a.md@1",
    ] {
        let refused = home.does(&format!("\"$concord\" {command}"));
        let said = text(&refused.stderr);
        assert!(!refused.status.success(), "{said}");
        assert!(
            said.contains(".concord is user 0's; ") && said.contains("chown -R"),
            "{command}: {said}"
        );
    }
}

#[test]
fn a_mount_that_cannot_be_for_want_of_the_device_leaves_nothing_behind() {
    let Some(home) = Home::with(&[("STATE.md", "v1\n")]) else {
        return;
    };
    home.says_as(0, "chmod 600 /dev/fuse");
    let refused = home.does("\"$concord\" mount project");
    let said = text(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("/dev/fuse: you need to be able to"),
        "{said}"
    );
    assert_eq!(home.says("ls -A project"), "STATE.md\n");
}

/// Ends the daemon, and waits until all of it has gone.
const CRASH: &str =
    "\"$concord\" status --json project | grep -o '\"pid\": *[0-9]*' | grep -o '[0-9]*$' | head -n 1 > pid
    kill -KILL $(cat pid); until [ \"$(stat -f project 2>&1 | grep -c 'not connected')\" = 1 ]; do sleep 0.1; done";

#[test]
fn f5_root_clears_the_dead_mount_of_a_user_and_others_are_told_who_may() {
    let Some(home) = Home::with(&[("STATE.md", "v1\n")]) else {
        return;
    };
    // Nobody else gets to the directory above: not to be taken for the mount's own refusal.
    home.says("chmod 700 .");
    for clear in ["unmount", "unmount --force", "recover"] {
        home.says(&format!(
            "\"$concord\" mount project; echo v2 > project/STATE.md; {CRASH}"
        ));
        for verb in ["status", "mount", "init", "history"] {
            let refused = home.does_as(0, &format!("\"$concord\" {verb} project"));
            let said = text(&refused.stderr);
            assert!(!refused.status.success(), "{verb}");
            assert!(
                said.contains("dead") && said.contains("concord recover"),
                "{verb}: {said}"
            );
        }
        let said = home.says_as(0, &format!("\"$concord\" {clear} project"));
        assert!(said.contains("a dead mount was there and is cleared"), "{said}");
        assert_eq!(home.says("cat project/STATE.md"), "v2\n");
    }
    home.says(&format!("\"$concord\" mount project; {CRASH}"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/recover.sh");
    let said = home.says_as(0, &format!("CONCORD=$concord {script} --no-mount project"));
    assert!(said.contains("dead mount"), "{said}");
    home.says("chmod 755 .");
    // Root's, and dead: a user is told who may.
    home.says_as(0, "\"$concord\" mount project");
    home.says_as(0, CRASH);
    for verb in ["status", "unmount", "recover"] {
        let refused = home.does(&format!("\"$concord\" {verb} project"));
        let said = text(&refused.stderr);
        assert!(!refused.status.success(), "{verb}");
        assert!(
            said.contains("it is root's") && said.contains("as root"),
            "{verb}: {said}"
        );
    }
    home.says_as(0, "\"$concord\" recover project");
}

#[test]
fn h3_root_reads_and_restores_what_a_user_has_mounted() {
    let Some(home) = Home::with(&[("STATE.md", "v1\n"), ("d/a.md", "")]) else {
        return;
    };
    home.says("ln -s ../STATE.md project/d/link.md; \"$concord\" mount project; echo v2 > project/STATE.md");
    for file in ["STATE.md", "d/link.md"] {
        let versions = home.says_as(
            0,
            &format!("\"$concord\" history --json project/{file} | grep -c '\"version\"'"),
        );
        assert_eq!(versions, "2\n", "{file}");
    }
    assert_eq!(home.says_as(0, "\"$concord\" show project/STATE.md@1"), "v1\n");
    assert!(home.says_as(0, "\"$concord\" diff project/STATE.md@1").contains("+v2"));
    home.says_as(0, "\"$concord\" restore project/STATE.md@1");
    assert_eq!(home.says("cat project/STATE.md"), "v1\n");
    for asked in [
        "history project/STATE.md",
        "show project/STATE.md@1",
        "diff project/STATE.md@1",
    ] {
        let said = text(&home.does_as(1001, &format!("\"$concord\" {asked}")).stderr);
        assert!(
            said.contains("user 1000's") && said.contains("ask as user 1000"),
            "{asked}: {said}"
        );
    }
    home.says("\"$concord\" unmount project");
}

#[test]
fn watchers_on_a_users_own_mount_are_told_of_each_version() {
    let Some(home) = Home::with(&[("STATE.md", "0")]) else {
        return;
    };
    home.says("\"$concord\" mount project");
    // The file itself, which others have open, and the directory.
    let watcher = "import ctypes, os, select, struct, subprocess
libc = ctypes.CDLL(None)
MODIFY, CLOSE_WRITE, DELETE_SELF = 2, 8, 1024
held = open('STATE.md')
fd = libc.inotify_init()
on_file, on_directory = (libc.inotify_add_watch(fd, name, MODIFY | CLOSE_WRITE | DELETE_SELF) for name in (b'STATE.md', b'.'))
def hear(number, kind):
    while select.select([fd], [], [], 60)[0]:
        events, at = os.read(fd, 65536), 0
        while at < len(events):
            watch, mask, _, length = struct.unpack_from('iIII', events, at)
            at += 16 + length
            assert not mask & DELETE_SELF
            seen.add((watch, mask, open('STATE.md').read()))
        if {(on_file, kind, number), (on_directory, MODIFY, number)} <= seen: return
    raise SystemExit(f'not told of {number}: {seen}')
for number in ('1', '2', '3'):
    seen = set()
    subprocess.run(['sh', '-c', f'printf {number} > STATE.md'], check=True)
    hear(number, CLOSE_WRITE)
print('all')";
    std::fs::write(home.project.outside().join("watcher.py"), watcher).unwrap();
    assert_eq!(home.says("cd project; timeout 200 python3 ../watcher.py"), "all\n");
    home.says("\"$concord\" unmount project");
}
