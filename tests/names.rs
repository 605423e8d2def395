//! W8, W9 and W11: savers by rename and unlink, new files, and what a file stays.

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::puppet::Puppet;
use support::{Project, eventually, run, succeed, wait, watchdog};

fn project() -> Project {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1"), ("OTHER.md", "o1")]);
    std::fs::set_permissions(project.root(), PermissionsExt::from_mode(0o777)).unwrap();
    project
}

fn hows(project: &Project, name: &str) -> Vec<String> {
    project
        .history(name)
        .iter()
        .map(|version| version["how"].as_str().unwrap_or("?").to_owned())
        .collect()
}

#[test]
fn w8_each_whole_file_saver_waits_for_an_open_session_and_keeps_what_it_replaces() {
    let savers = [
        ("os.replace('x.tmp', 'STATE.md')", Some("saved")),
        ("os.unlink('STATE.md')", None),
        ("(os.unlink('STATE.md'), os.link('x.tmp', 'STATE.md'))", Some("saved")),
        ("exchange('x.tmp', 'STATE.md')", Some("saved")),
        ("os.truncate('STATE.md', 3)", Some("ses")),
        ("exchange('OTHER.md', 'STATE.md')", Some("o1")),
    ];
    for (saver, content) in savers {
        let project = project();
        let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
        other.does("put('x.tmp', 'saved')");
        holder.does("f = open('STATE.md', 'w')");
        holder.does("(f.write('session'), f.flush())");
        other.starts(saver);
        project.await_sessions(1, 1);
        let start = Instant::now();
        assert_eq!(holder.does("f.close()"), "None", "{saver}");
        let said = other.says();
        assert!(said.starts_with("None") || said == "(None, None)", "{saver}: {said}");
        assert!(start.elapsed() < Duration::from_secs(3), "{saver}");
        assert_eq!(
            std::fs::read_to_string(project.path("STATE.md")).ok().as_deref(),
            content,
            "{saver}"
        );
        let versions: Vec<u64> = project
            .history("STATE.md")
            .iter()
            .filter_map(|v| v["version"].as_u64())
            .collect();
        let kept: Vec<Vec<u8>> = versions
            .iter()
            .filter(|v| **v <= 2)
            .map(|v| project.show("STATE.md", *v))
            .collect();
        assert!(
            kept.contains(&b"session".to_vec()),
            "{saver}: {versions:?} {:?}",
            hows(&project, "STATE.md")
        );
    }
}

#[test]
fn w8_renames_and_truncations_by_many_processes_are_versions_in_one_order() {
    let project = project();
    let renamer = "import os, time
for n in range(15):
    t = f'STATE.md.tmp.{os.getpid()}.{int(time.time()*1000)}'
    with open(t, 'w') as f: f.write(f'{os.getpid()} {n}')
    os.replace(t, 'STATE.md')";
    let truncater = "import os
for n in range(15):
    with open('STATE.md', 'w') as f: f.write(f'{os.getpid()} {n}')";
    let script =
        "python3 -c \"$0\" & a=$!; python3 -c \"$0\" & b=$!; python3 -c \"$1\" & c=$!; python3 -c \"$1\" & d=$!
wait $a && wait $b && wait $c && wait $d";
    let mut command = project.sh(script);
    command.args([renamer, truncater]);
    succeed(command);
    let history = project.history("STATE.md");
    let newest = history[0]["version"].as_u64().unwrap();
    assert_eq!(newest, 61, "{history:?}");
    let mut last: std::collections::HashMap<String, u64> = Default::default();
    for version in newest - 15..=newest {
        let content = String::from_utf8(project.show("STATE.md", version)).unwrap();
        let (process, number) = content.split_once(' ').expect("whole content");
        let number = number.parse().unwrap();
        assert!(
            last.insert(process.to_owned(), number)
                .is_none_or(|before| before < number),
            "{content}"
        );
    }
    assert!(
        std::fs::read_dir(project.root())
            .unwrap()
            .all(|e| !e.unwrap().file_name().to_string_lossy().contains(".tmp."))
    );
}

/// A rename that waits keeps the inode that it found locked: that must not be the one that the holder writes to.
#[test]
fn w8_a_save_by_rename_does_not_stop_the_writer_that_it_waits_for() {
    let project = project();
    // Each on the same processor, so that the steps of one come between those of others.
    let saver = "import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for n in range(150):
    if sys.argv[1] == 'rename':
        t = f'tmp.{os.getpid()}'
        with open(t, 'w') as f: f.write(str(n) * 1000)
        os.replace(t, 'STATE.md')
    else:
        with open('STATE.md', 'w') as f: f.write(str(n) * 1000)";
    let script = "for how in rename rename write write; do python3 -c \"$0\" $how & all=\"$all $!\"; done
for one in $all; do wait $one || exit; done";
    let mut command = project.sh(script);
    command.arg(saver);
    succeed(command);
}

#[test]
fn w8_what_is_written_after_a_rename_goes_to_the_new_name_also_when_that_was_saved_since() {
    let (old, new) = ("STATE.md", "OTHER.md");
    for way in [
        "os.rename('STATE.md', 'OTHER.md')",
        "exchange('STATE.md', 'OTHER.md')",
        "exchange('OTHER.md', 'STATE.md')",
    ] {
        let project = project();
        let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
        holder.does(&format!("f = open('{old}', 'w'); f.write('moved'); f.flush()"));
        assert_eq!(holder.does(way), "None");
        let before = other.does(&format!("get('{old}')"));
        assert_eq!(other.does(&format!("put('{new}', 'saved')")), "None");
        assert_eq!(holder.does("f.write(' late'); f.close()"), "ok");
        assert_eq!(other.does(&format!("get('{old}')")), before, "{way}");
        assert_eq!(other.does(&format!("get('{new}')")), "moved late", "{way}");
    }
}

#[test]
fn w8_a_coordinated_temporary_name_becomes_the_file() {
    let project = project();
    let (mut saver, mut other) = (Puppet::new(&project), Puppet::new(&project));
    saver.does("f = open('x.tmp.md', 'w')");
    saver.does("(f.write('new'), f.close())");
    assert_eq!(saver.does("os.rename('x.tmp.md', 'STATE.md')"), "None");
    assert_eq!(
        other.does("get('STATE.md'), os.path.exists('x.tmp.md')"),
        "('new', False)"
    );
    saver.does("f = open('y.tmp.md', 'w')");
    saver.does("(f.write('first '), f.flush())");
    assert_eq!(
        saver.does("os.rename('y.tmp.md', 'STATE.md')"),
        "None",
        "renamed before it is closed"
    );
    assert_eq!(other.does("get('STATE.md')"), "first ");
    assert_eq!(saver.does("(f.write('second'), f.close())"), "(6, None)");
    assert_eq!(
        other.does("get('STATE.md'), os.path.exists('y.tmp.md')"),
        "('first second', False)"
    );
}

#[test]
fn w9_a_new_file_appears_at_its_close() {
    let project = project();
    let (mut creator, mut other) = (Puppet::new(&project), Puppet::new(&project));
    assert_eq!(creator.does("f = open('NEW.md', 'x')"), "ok");
    creator.does("(f.write('text'), f.flush())");
    assert_eq!(other.does("get('NEW.md')"), "ENOENT");
    assert_eq!(other.does("os.path.exists('NEW.md')"), "False");
    assert_eq!(creator.does("get('NEW.md'), os.stat('NEW.md').st_size"), "('text', 4)");
    assert_eq!(creator.does("subprocess.check_output(['cat', 'NEW.md'])"), "b'text'");
    assert_eq!(other.does("open('NEW.md', 'x')"), "EEXIST");
    assert_eq!(other.does("os.mkdir('NEW.md')"), "EEXIST");
    assert_eq!(other.does("os.symlink('a', 'NEW.md')"), "EEXIST");
    assert_eq!(creator.does("f.close()"), "None");
    assert_eq!(other.does("get('NEW.md')"), "text");
    assert_eq!(project.history("NEW.md").len(), 1);
}

#[test]
fn w9_another_creator_waits_and_then_finds_the_file() {
    let project = project();
    let (mut creator, mut other) = (Puppet::new(&project), Puppet::new(&project));
    creator.does("f = open('NEW.md', 'w')");
    creator.does("(f.write('text'), f.flush())");
    other.starts("fd = os.open('NEW.md', os.O_RDWR | os.O_CREAT)");
    project.await_sessions(1, 1);
    creator.does("f.close()");
    assert_eq!(other.says(), "ok");
    assert_eq!(
        other.does("os.read(fd, 9), os.write(fd, b' more'), os.close(fd)"),
        "(b'text', 5, None)"
    );
    assert_eq!(project.read("NEW.md"), "text more");
    assert_eq!(project.history("NEW.md").len(), 2);
}

#[test]
fn w9_a_killed_creators_file_never_appears_and_a_waiting_creator_goes_on() {
    let project = project();
    std::fs::create_dir(project.path("sub")).unwrap();
    let (mut creator, mut other) = (Puppet::new(&project), Puppet::new(&project));
    creator.does("f = open('sub/NEW.md', 'w')");
    creator.does("(f.write('half'), f.flush())");
    assert_eq!(other.does("os.rmdir('sub')"), "ENOTEMPTY");
    creator.0.signal(Signal::KILL);
    wait(&mut creator.0.0, Duration::from_secs(10));
    project.await_sessions(0, 0);
    assert_eq!(
        other.does("os.listdir('sub'), os.path.exists('sub/NEW.md')"),
        "([], False)"
    );
    assert_eq!(project.recovered().len(), 1);
    let mut creator = Puppet::new(&project);
    creator.does("f = open('sub/NEW.md', 'w')");
    other.starts("put('sub/NEW.md', 'other')");
    project.await_sessions(1, 1);
    creator.0.signal(Signal::KILL);
    assert_eq!(other.says(), "None");
    assert_eq!(project.read("sub/NEW.md"), "other");
}

#[test]
fn w9_owner_mode_and_default_acl_of_a_new_file_are_as_anywhere() {
    let project = project();
    let plain = tempfile::tempdir().unwrap();
    std::fs::set_permissions(plain.path(), PermissionsExt::from_mode(0o755)).unwrap();
    for root in [project.root(), plain.path().to_owned()] {
        let dir = root.join("d");
        std::fs::create_dir(&dir).unwrap();
        std::os::unix::fs::chown(&dir, None, Some(1234)).unwrap();
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o2777)).unwrap();
        let acl = root.join("acl");
        std::fs::create_dir(&acl).unwrap();
        std::fs::set_permissions(&acl, PermissionsExt::from_mode(0o777)).unwrap();
        let mut command = project.sh("setfacl -d -m u:1001:rw,g::r,o::- \"$0\"");
        command.arg(&acl);
        if !run(command).status.success() {
            eprintln!("no ACLs here: skipped");
            return;
        }
    }
    let mut user = Puppet::new(&project);
    assert_eq!(
        user.does("os.setgroups([]), os.setgid(1000), os.setuid(1000), os.umask(0o027) * 0"),
        "(None, None, None, 0)"
    );
    for name in ["N.md", "d/N.md", "acl/N.md"] {
        let outside = plain.path().join(name).display().to_string();
        if name == "N.md" {
            std::fs::set_permissions(plain.path(), PermissionsExt::from_mode(0o777)).unwrap();
        }
        for path in [name, &outside] {
            assert_eq!(
                user.does(&format!("os.close(os.open('{path}', os.O_WRONLY | os.O_CREAT, 0o666))")),
                "None"
            );
        }
        let facl = |path: &std::path::Path| {
            let mut command = project.sh("getfacl -ncp \"$0\"");
            command.arg(path);
            let stat = std::fs::metadata(path).unwrap();
            (stat.mode(), stat.uid(), stat.gid(), succeed(command))
        };
        assert_eq!(
            facl(&project.path(name)),
            facl(std::path::Path::new(&outside)),
            "{name}"
        );
    }
}

#[test]
fn w11_publishing_in_place_keeps_mode_owner_acl_and_attributes() {
    let project = project();
    succeed(project.sh("chown 1000:1234 STATE.md; chmod 0664 STATE.md; setfacl -m u:1001:rw STATE.md"));
    let mut writer = Puppet::new(&project);
    assert_eq!(writer.does("os.setxattr('STATE.md', 'user.note', b'kept')"), "None");
    let facts = || succeed(project.sh("stat -c '%a %u %g' STATE.md; getfacl -cp STATE.md"));
    let before = facts();
    assert!(before.starts_with("664 1000 1234"), "{before}");
    for mode in ["w", "r+"] {
        writer.does(&format!("f = open('STATE.md', '{mode}')"));
        writer.does("(f.write('text'), f.close())");
        assert_eq!(facts(), before, "{mode}");
        assert_eq!(writer.does("os.getxattr('STATE.md', 'user.note')"), "b'kept'");
    }
    assert_eq!(writer.does("os.truncate('STATE.md', 1)"), "None");
    assert_eq!(facts(), before);
    assert_eq!(writer.does("os.getxattr('STATE.md', 'user.note')"), "b'kept'");
}

#[test]
fn w11_a_symbolic_link_is_followed_and_stays_one() {
    let project = project();
    std::os::unix::fs::symlink("STATE.md", project.path("LINK.md")).unwrap();
    std::os::unix::fs::symlink("STATE.md", project.path("link")).unwrap();
    for link in ["LINK.md", "link"] {
        succeed(project.sh(&format!("echo {link} > {link}")));
        assert!(std::fs::symlink_metadata(project.path(link)).unwrap().is_symlink());
        assert_eq!(project.read("STATE.md"), format!("{link}\n"));
    }
    assert_eq!(project.history("STATE.md").len(), 3);
}

#[test]
fn w11_attributes_changed_during_and_outside_a_session_stay() {
    let project = project();
    let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
    assert_eq!(
        other.does("os.chmod('STATE.md', 0o640), os.utime('STATE.md', (5, 6))"),
        "(None, None)"
    );
    assert_eq!(
        other.does("oct(os.stat('STATE.md').st_mode), os.stat('STATE.md').st_mtime"),
        "('0o100640', 6.0)"
    );
    holder.does("f = open('STATE.md', 'w')");
    holder.does("(f.write('text'), f.flush())");
    assert_eq!(
        holder
            .does("os.fchmod(f.fileno(), 0o604), os.fchown(f.fileno(), 7, 8), os.setxattr(f.fileno(), 'user.a', b'b')"),
        "(None, None, None)"
    );
    assert_eq!(
        other.does("oct(os.stat('STATE.md').st_mode)"),
        "'0o100640'".trim_matches('\'')
    );
    holder.does("f.close()");
    let seen =
        "(lambda s: (oct(s.st_mode), s.st_uid, s.st_gid))(os.stat('STATE.md')), os.getxattr('STATE.md', 'user.a')";
    assert_eq!(other.does(seen), "(('0o100604', 7, 8), b'b')");
    assert_eq!(holder.does(seen), "(('0o100604', 7, 8), b'b')");
    holder.does("f = open('STATE.md', 'r+')");
    assert_eq!(other.does("os.chmod('STATE.md', 0o600)"), "None");
    holder.does("(f.write('more'), f.close())");
    assert_eq!(
        other.does("oct(os.stat('STATE.md').st_mode)"),
        "0o100600",
        "a chmod beside a session is not lost"
    );
}

#[test]
fn w8_a_link_to_a_name_that_is_being_created_waits_for_it() {
    let project = project();
    let (mut creator, mut other) = (Puppet::new(&project), Puppet::new(&project));
    other.does("put('x.tmp', 'linked')");
    creator.does("f = open('NEW.md', 'w')");
    creator.does("(f.write('created'), f.flush())");
    other.starts("os.link('x.tmp', 'NEW.md')");
    project.await_sessions(1, 1);
    assert_eq!(creator.does("f.close()"), "None");
    assert_eq!(other.says(), "EEXIST");
    assert_eq!(project.read("NEW.md"), "created");
}

#[test]
fn w8_a_file_that_leaves_for_an_ordinary_name_stays_restorable() {
    let project = project();
    succeed(project.sh("printf second > STATE.md"));
    std::fs::rename(project.path("STATE.md"), project.path("plain")).unwrap();
    assert_eq!(project.read("plain"), "second");
    assert_eq!(hows(&project, "STATE.md"), ["unlink", "close", "found"]);
    assert_eq!(project.show("STATE.md", 2), b"second");
    let file = project.path("STATE.md").display().to_string();
    succeed(support::concord(&["restore", &format!("{file}@2")]));
    assert_eq!(project.read("STATE.md"), "second");
}

#[test]
fn w9_a_new_file_that_its_creator_unlinks_never_appears() {
    let project = project();
    let (mut creator, mut other) = (Puppet::new(&project), Puppet::new(&project));
    creator.does("f = open('NEW.md', 'w')");
    creator.does("(f.write('text'), f.flush())");
    assert_eq!(creator.does("os.unlink('NEW.md')"), "None");
    assert_eq!(creator.does("os.path.exists('NEW.md')"), "False");
    assert_eq!(creator.does("(f.write(' and more'), f.close())"), "(9, None)");
    assert_eq!(
        other.does("os.path.exists('NEW.md'), sorted(os.listdir())"),
        "(False, ['OTHER.md', 'STATE.md'])"
    );
    assert_eq!(other.does("put('NEW.md', 'another')"), "None", "the name is free");
    assert_eq!(project.read("NEW.md"), "another");
}

#[test]
fn w11_set_id_bits_stay_for_root_only() {
    let project = project();
    let (mut root, mut user) = (Puppet::new(&project), Puppet::new(&project));
    assert_eq!(
        user.does("os.setgroups([]), os.setgid(1000), os.setuid(1000)"),
        "(None, None, None)"
    );
    assert_eq!(root.does("os.chown('STATE.md', 1000, 1000)"), "None");
    for change in [
        "put('STATE.md', 'new')",
        "put('STATE.md', 'n', os.O_RDWR)",
        "os.close(os.open('STATE.md', os.O_WRONLY | os.O_TRUNC))",
        "os.truncate('STATE.md', 9)",
    ] {
        for (who, mode) in [(&mut root, "0o106755"), (&mut user, "0o100755")] {
            assert_eq!(who.does("os.chmod('STATE.md', 0o6755)"), "None");
            assert_eq!(who.does(change), "None");
            assert_eq!(who.does("oct(os.stat('STATE.md').st_mode)"), mode, "{change}");
        }
    }
}

#[test]
fn w11_set_id_bits_go_when_a_user_appends_whatever_he_appends() {
    let rule = "[[rule]]\npaths = [\"whole.md\"]\nappend = \"close\"\n";
    let files = [("lines.md", "one\n"), ("whole.md", "one\n"), ("concord.toml", rule)];
    let project = Project::with(&files);
    let (mut root, mut user) = (Puppet::new(&project), Puppet::new(&project));
    user.does("os.setgroups([]), os.setgid(1000), os.setuid(1000)");
    for name in ["lines.md", "whole.md"] {
        for written in [
            "[b'line\\n']",
            "[b'no end']",
            "[b'line\\nand a part']",
            "[b'part', b' and its rest\\n']",
            "[b'x' * (2 << 20)]",
        ] {
            for (who, mode) in [(&mut root, "0o106777"), (&mut user, "0o100777")] {
                std::fs::set_permissions(project.path(name), PermissionsExt::from_mode(0o6777)).unwrap();
                who.does(&format!("fd = os.open('{name}', os.O_WRONLY | os.O_APPEND)"));
                let all = who.does(&format!("[os.write(fd, part) for part in {written}] and os.close(fd)"));
                assert_eq!(all, "None", "{written}");
                let found = who.does(&format!("oct(os.stat('{name}').st_mode)"));
                assert_eq!(found, mode, "{name}: {written}");
            }
        }
    }
}

#[test]
fn w11_what_a_session_changes_by_descriptor_wins() {
    let project = project();
    let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
    holder.does("f = open('STATE.md', 'w')");
    assert_eq!(holder.does("os.fchmod(f.fileno(), 0o604)"), "None");
    assert_eq!(other.does("os.chmod('STATE.md', 0o640)"), "None");
    assert_eq!(holder.does("(f.write('text'), f.close())"), "(4, None)");
    assert_eq!(other.does("oct(os.stat('STATE.md').st_mode)"), "0o100604");
}

/// What msync(2) has written back is published when the mapping ends; on a plain filesystem it is there before.
#[test]
fn w11_times_that_are_set_after_what_a_mapping_has_stored_late_stay() {
    let project = project();
    let (mut writer, mut other) = (Puppet::new(&project), Puppet::new(&project));
    writer.does("libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_void_p");
    writer.does("at = lambda fd: ctypes.c_void_p(libc.mmap(None, 4096, 3, 1, fd, ctypes.c_long(0)))");
    writer.does("fd = os.open('STATE.md', os.O_RDWR)");
    writer.does("os.write(fd, b'v2'); at = at(fd); os.close(fd)");
    writer.does("ctypes.memset(at, 76, 1)");
    assert_eq!(writer.does("libc.msync(at, ctypes.c_size_t(4096), 4)"), "0");
    assert_eq!(
        other.does("get('STATE.md')[:2], os.utime('STATE.md', (5, 6))"),
        "('v2', None)"
    );
    assert_eq!(writer.does("libc.munmap(at, ctypes.c_size_t(4096))"), "0");
    eventually("it is published", || project.read("STATE.md").starts_with("L2"));
    assert_eq!(other.does("os.stat('STATE.md').st_mtime"), "6.0");
}

const CHANGES_BY_READER: &str =
    "os.fchmod(fd, 0o604), os.fchown(fd, 7, 8), os.setxattr(fd, 'user.a', b'b'), os.utime(fd, (5, 6))";
const CHANGED: &str =
    "(lambda s: (oct(s.st_mode), s.st_uid, s.st_gid, s.st_mtime))(os.stat('STATE.md')), os.listxattr('STATE.md')";

#[test]
fn w11_what_a_reader_changes_by_its_descriptor_is_the_file_that_was_saved_since() {
    for save in ["put('STATE.md', 'v2')", "os.truncate('STATE.md', 1)"] {
        for looks in ["None", "os.read(fd, 9) and None", "fcntl.flock(fd, fcntl.LOCK_EX)"] {
            let project = project();
            let (mut reader, mut writer) = (Puppet::new(&project), Puppet::new(&project));
            assert_eq!(reader.does("fd = os.open('STATE.md', os.O_RDONLY)"), "ok");
            assert_eq!(reader.does("os.read(fd, 1) and None"), "None");
            assert_eq!(writer.does(save), "None");
            assert_eq!(reader.does(looks), "None");
            assert_eq!(reader.does(CHANGES_BY_READER), "(None, None, None, None)");
            let changed = "(('0o100604', 7, 8, 6.0), ['user.a'])";
            assert_eq!(writer.does(CHANGED), changed, "{looks} after {save}");
            assert_eq!(writer.does("put('STATE.md', 'v3')"), "None");
            assert_eq!(reader.does("os.removexattr(fd, 'user.a')"), "None");
            assert_eq!(writer.does("os.listxattr('STATE.md')"), "[]");
        }
    }
}

#[test]
fn w11_what_a_reader_changes_of_a_file_that_was_replaced_by_another_is_not_that_one() {
    for replace in [
        "put('new.txt', 'v2'), os.rename('new.txt', 'STATE.md')",
        "put('NEW.md', 'v2'), os.rename('NEW.md', 'STATE.md')",
        "os.unlink('STATE.md'), put('STATE.md', 'v2')",
    ] {
        let project = project();
        let (mut reader, mut writer) = (Puppet::new(&project), Puppet::new(&project));
        assert_eq!(reader.does("fd = os.open('STATE.md', os.O_RDONLY)"), "ok");
        assert_eq!(reader.does("os.read(fd, 1) and None"), "None");
        assert_eq!(writer.does(replace), "(None, None)");
        let before = writer.does(CHANGED);
        assert_eq!(reader.does(CHANGES_BY_READER), "(None, None, None, None)");
        assert_eq!(writer.does(CHANGED), before, "{replace}");
        assert_eq!(reader.does("oct(os.fstat(fd).st_mode)"), "0o100604", "{replace}");
    }
}

/// As `with tempfile.NamedTemporaryFile(...)` and os.replace() in it do.
#[test]
fn w8_a_file_that_its_writer_still_has_open_is_read_by_its_new_name() {
    let project = project();
    let (mut writer, mut reader) = (Puppet::new(&project), Puppet::new(&project));
    writer.does("fd = os.open('STATE.tmp', os.O_RDWR | os.O_CREAT)");
    writer.does("os.write(fd, b'v2')");
    assert_eq!(writer.does("os.rename('STATE.tmp', 'STATE.md')"), "None");
    assert_eq!(reader.does("get('STATE.md')"), "v2");
    assert_eq!(
        reader.does("put('STATE.md', 'line\\n', os.O_WRONLY | os.O_APPEND)"),
        "None"
    );
    assert_eq!(reader.does("put('STATE.md', 'v3')"), "None");
    assert_eq!(writer.does("os.close(fd)"), "None");
    assert_eq!(writer.does("get('STATE.md')"), "v3");
}

/// flock(1) opens so.
#[test]
fn w9_an_open_for_reading_that_may_create_waits_for_the_creator() {
    let project = project();
    let (mut creator, mut reader) = (Puppet::new(&project), Puppet::new(&project));
    for (end, content) in [("os.close(fd)", "b'v1'"), ("os.kill(os.getpid(), 9)", "b''")] {
        creator.does("fd = os.open('NEW.md', os.O_WRONLY | os.O_CREAT)");
        creator.does("os.write(fd, b'v1')");
        reader.starts("fd = os.open('NEW.md', os.O_RDONLY | os.O_CREAT)");
        project.await_sessions(1, 1);
        creator.starts(end);
        assert_eq!(reader.says(), "ok");
        assert_eq!(reader.does("os.read(fd, 9)"), content);
        assert_eq!(reader.does("os.close(fd), os.unlink('NEW.md')"), "(None, None)");
    }
}

/// The kernel keeps what it knows under an ordinary name, and a rename moves that along.
#[test]
fn r4_after_a_save_by_rename_others_are_shown_the_current_version() {
    let project = project();
    let (mut saver, mut other) = (Puppet::new(&project), Puppet::new(&project));
    let save = "open('STATE.tmp', 'w').write('saved'), os.rename('STATE.tmp', 'STATE.md')";
    let size = "os.stat('STATE.md').st_size";
    saver.does(save);
    assert_eq!(saver.does("fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)"), "ok");
    assert_eq!(saver.does("os.write(fd, b'longer than that')"), "16");
    assert_eq!(other.does(size), "5", "not what another stages");
    assert_eq!(saver.does("os.close(fd)"), "None");
    assert_eq!(other.does(size), "16");
    saver.does(save);
    assert_eq!(other.does(size), "5");
    let mut restore = support::concord(&["restore"]);
    restore.arg(format!("{}@3", project.path("STATE.md").display()));
    succeed(restore);
    assert_eq!(other.does(size), "16", "what a restore brought back");
}

#[test]
fn w8_what_is_written_after_a_rename_that_failed_stays_with_its_file() {
    let project = project();
    let mut writer = Puppet::new(&project);
    writer.does("fd = os.open('STATE.md', os.O_RDWR)");
    let no_replace = "raw('renameat2', -100, b'STATE.md', -100, b'OTHER.md', 1)";
    assert_eq!(writer.does(no_replace), "EEXIST");
    assert_eq!(writer.does("os.pwrite(fd, b'V', 0), os.close(fd)"), "(1, None)");
    assert_eq!(
        (project.read("STATE.md"), project.read("OTHER.md")),
        ("V1".to_owned(), "o1".to_owned())
    );
}

/// The kernel has found the file, and does not say that the open may create it.
#[test]
fn w9_who_waited_with_o_creat_for_a_file_that_was_removed_creates_it() {
    let project = project();
    let (mut holder, mut creator) = (Puppet::new(&project), Puppet::new(&project));
    let mut other = Puppet::new(&project);
    creator.does("os.umask(0o027)");
    holder.does("fd = os.open('STATE.md', os.O_RDWR)");
    creator.starts("fd = os.open('STATE.md', os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)");
    project.await_sessions(1, 1);
    other.starts("os.open('STATE.md', os.O_WRONLY)");
    project.await_sessions(1, 2);
    assert_eq!(holder.does("os.unlink('STATE.md'), os.close(fd)"), "(None, None)");
    assert_eq!(creator.says(), "ok");
    assert!(!project.path("STATE.md").exists(), "it appears with its content");
    assert_eq!(
        creator.does("os.write(fd, b'new'), os.unlink('STATE.md'), os.close(fd)"),
        "(3, None, None)"
    );
    assert_eq!(other.says(), "ENOENT", "it did not ask to create anything");
    // Not removed again.
    std::fs::write(project.path("STATE.md"), "once more").unwrap();
    holder.does("fd = os.open('STATE.md', os.O_RDWR)");
    creator.starts("put('STATE.md', 'new', os.O_WRONLY | os.O_CREAT)");
    project.await_sessions(1, 1);
    assert_eq!(holder.does("os.unlink('STATE.md'), os.close(fd)"), "(None, None)");
    assert_eq!(creator.says(), "None");
    assert_eq!(project.read("STATE.md"), "new");
    assert_eq!(creator.does("oct(os.stat('STATE.md').st_mode)"), "0o100640");
}
