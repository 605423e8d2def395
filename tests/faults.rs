//! F1 and F3 on a real mount: the daemon is killed under load; the disk is full or read-only.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Resource, Rlimit};
use support::{Project, Running, concord, eventually, run, succeed, text, watchdog};

/// Writers of three kinds; each notes outside the mount what a close or rename acknowledged.
const WRITER: &str = r#"
import os, sys
kind, me, noted = sys.argv[1], sys.argv[2], open(sys.argv[3], 'a', buffering=1)
n = int(sys.argv[4])
print('ready', flush=True)
try:
    while True:
        n += 1
        name, text = f'{me}.md', f'{me} {n}\n' * 2000
        if kind == 'close':
            with open(name, 'w') as f: f.write(text)
        elif kind == 'rename':
            with open(f'{me}.tmp', 'w') as f: f.write(text)
            os.rename(f'{me}.tmp', name)
        else:
            fd = os.open(name, os.O_RDWR | os.O_CREAT); os.ftruncate(fd, 0); os.write(fd, text.encode()); os.close(fd)
        noted.write(f'{n}\n')
except OSError: pass
"#;

#[test]
fn f1_killed_under_load_each_file_is_whole_and_no_acknowledged_version_is_lost() {
    watchdog();
    let mut project = Project::unmounted(&[]);
    let kinds = ["close", "rename", "modify"];
    let mut last = [0; 3];
    for round in 0..4 {
        project.mount();
        let notes: Vec<PathBuf> = kinds
            .iter()
            .map(|kind| project.outside().join(format!("{kind}-{round}")))
            .collect();
        let writers: Vec<Running> = (0..3)
            .map(|i| {
                let mut python = project.python(WRITER);
                python
                    .args([kinds[i], &format!("w{i}")])
                    .arg(&notes[i])
                    .arg(last[i].to_string());
                let mut writer = Running::start(python);
                assert_eq!(writer.hear(), "ready");
                writer
            })
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(300 + 130 * round));
        project.kill_daemon();
        drop(writers);
        let recovered = project.crash_free_recover();
        for (i, note) in notes.iter().enumerate() {
            let acknowledged = std::fs::read_to_string(note).unwrap();
            let acknowledged: u64 = acknowledged.lines().last().map_or(last[i], |n| n.parse().unwrap());
            let content = project.read(&format!("w{i}.md"));
            let first = content.lines().next().unwrap();
            assert_eq!(content, format!("{first}\n").repeat(2000), "whole");
            let found: u64 = first.rsplit(' ').next().unwrap().parse().unwrap();
            assert!(
                found >= acknowledged,
                "{}: {acknowledged} was acknowledged, {found} is there",
                kinds[i]
            );
            assert!(acknowledged > last[i], "the load did something");
            last[i] = found;
        }
        let mut names: Vec<String> = std::fs::read_dir(project.root())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.retain(|name| name != "w1.tmp");
        names.sort();
        assert_eq!(names, [".concord", "w0.md", "w1.md", "w2.md"], "no stray file");
        assert_eq!(
            std::fs::read_dir(project.path(".concord/shadows")).unwrap().count(),
            1,
            "the journal only"
        );
        assert_eq!(
            project.crash_free_recover()["kept"],
            recovered["kept"],
            "the second time finds nothing new"
        );
    }
}

trait Recover {
    fn crash_free_recover(&self) -> serde_json::Value;
}

impl Recover for Project {
    fn crash_free_recover(&self) -> serde_json::Value {
        let recover = || {
            let mut command = concord(&["recover", "--json"]);
            command.arg(self.root());
            run(command)
        };
        // The last thread of a killed daemon may hold the lock a moment longer than the process seems to live.
        eventually("the store is free", || {
            !text(&recover().stderr).contains("owns this project")
        });
        serde_json::from_slice(&recover().stdout).unwrap()
    }
}

#[test]
fn f1_what_a_session_had_staged_when_the_daemon_died_is_kept_with_a_record() {
    watchdog();
    let mut project = Project::with(&[("STATE.md", "v1\n")]);
    let mut holder = Running::start(
        project.python("f=open('STATE.md','w'); f.write('staged\\n'); f.flush(); print('open',flush=True); input()"),
    );
    assert_eq!(holder.hear(), "open");
    let recovered = project.crash_and_recover();
    let kept = recovered["kept"].as_array().unwrap();
    assert_eq!(kept.len(), 1, "{recovered}");
    assert_eq!((&kept[0]["path"], &kept[0]["bytes"]), (&"STATE.md".into(), &7.into()));
    let at = project.path(kept[0]["kept"].as_str().unwrap());
    assert_eq!(std::fs::read_to_string(&at).unwrap(), "staged\n");
    assert_eq!(project.read("STATE.md"), "v1\n");
}

/// As after a restart of the machine: nothing is mounted, and nobody has called `concord recover`.
#[test]
fn f1_a_mount_says_what_it_recovered_to_who_mounts_and_in_the_log() {
    watchdog();
    let mut project = Project::with(&[("STATE.md", "v1\n")]);
    let mut holder = Running::start(
        project.python("f=open('STATE.md','w'); f.write('staged\\n'); f.flush(); print('open',flush=True); input()"),
    );
    assert_eq!(holder.hear(), "open");
    project.kill_daemon();
    rustix::mount::unmount(project.root(), UnmountFlags::DETACH).unwrap();
    let mut mount = concord(&["mount"]);
    mount.arg(project.root());
    let mounted = run(mount);
    let (said, complained) = (text(&mounted.stdout), text(&mounted.stderr));
    assert!(mounted.status.success() && complained.is_empty(), "{complained}");
    assert!(said.contains("recovered after a crash: 1; `concord status"), "{said}");
    assert!(project.read(".concord/log").contains("recovered STATE.md: its session"));
    assert_eq!(project.status()["recovered"].as_array().unwrap().len(), 1);
    project.unmount();
}

/// A small filesystem that goes away with its test.
struct Small(PathBuf);

impl Small {
    fn at(dir: &Path) -> Small {
        std::fs::create_dir_all(dir).unwrap();
        rustix::mount::mount("tmpfs", dir, "tmpfs", MountFlags::empty(), c"size=2m").unwrap();
        Small(dir.to_owned())
    }

    /// The kernel lets go of files a while after their last close (delayed fput), and another test's fork may hold a copy of ours for a moment.
    fn read_only(&self) {
        eventually("it can be mounted read-only", || {
            match rustix::mount::mount_remount(&self.0, MountFlags::RDONLY, c"") {
                Err(rustix::io::Errno::BUSY) => false,
                answer => answer.map(|()| true).unwrap(),
            }
        });
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn f3_a_full_disk_is_an_error_to_the_writer_and_the_current_version_stays() {
    watchdog();
    let mut project = Project::unmounted(&[]);
    let small = Small::at(&project.outside().join("small"));
    std::fs::write(small.0.join("STATE.md"), "v1\n").unwrap();
    std::fs::write(small.0.join("ballast"), vec![0; 512 * 1024]).unwrap();
    project.mount_with(&["--backing", small.0.to_str().unwrap()]);
    let too_much = project.python(
        "import os, errno\nfd=os.open('STATE.md', os.O_WRONLY|os.O_TRUNC)\ntry:\n  for _ in range(64): os.write(fd, b'x'*65536)\n  os.fsync(fd)\n  os.close(fd)\n  print('through')\nexcept OSError as e: print(errno.errorcode[e.errno])",
    );
    assert_eq!(succeed(too_much), "ENOSPC\n");
    assert_eq!(project.read("STATE.md"), "v1\n");
    succeed(project.sh("rm ballast; rm -f .concord/none; true"));
    let again = run(project.sh("echo v2 > STATE.md"));
    assert!(
        again.status.success(),
        "it works again after space was freed: {}",
        text(&again.stderr)
    );
    assert_eq!(project.read("STATE.md"), "v2\n");
    project.unmount();
}

#[test]
fn f3_a_read_only_tree_is_refused_at_mount() {
    watchdog();
    let mut project = Project::unmounted(&[]);
    let small = Small::at(&project.outside().join("small"));
    std::fs::write(small.0.join("STATE.md"), "v1\n").unwrap();
    project.mount_with(&["--backing", small.0.to_str().unwrap()]);
    succeed(project.sh("echo v2 > STATE.md"));
    project.unmount();
    small.read_only();
    let mut command = concord(&["mount", "--backing"]);
    command.arg(&small.0).arg(project.root());
    let output = run(command);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("Read-only") && said.matches('\n').count() == 1, "{said}");
}

/// Opens STATE.md for writing, says whether it could, changes it and closes it.
const SAVER: &str = "import os, sys
try: fd = os.open('STATE.md', os.O_WRONLY | (os.O_TRUNC if sys.argv[2] == 'truncate' else 0))
except OSError: sys.exit(print('refused'))
print('opened')
os.write(fd, sys.argv[1].encode()), os.close(fd)
print('closed')";

/// Descriptors that opens leave for closes; docs/OPERATIONS.md.
const RESERVED: u64 = 128;

/// However few descriptors are left, an open is refused, or what it saves is saved and close(2) has said so.
#[test]
fn f3_an_open_that_the_daemon_has_no_descriptors_for_is_refused_and_leaves_nothing_behind() {
    watchdog();
    let mut project = Project::unmounted(&[("STATE.md", "v00\n")]);
    let daemon = project.mount();
    let pid = rustix::process::Pid::from_raw(daemon as i32);
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let limit = |current| {
        let usual = rustix::process::prlimit(pid, Resource::Nofile, Rlimit { current, maximum });
        usual.unwrap().current
    };
    let shadows = || std::fs::read_dir(project.path(".concord/shadows")).unwrap().count();
    let (mut refused, mut saved) = (0, 0);
    for (number, spare) in (0..8).chain(RESERVED - 8..RESERVED + 12).enumerate() {
        for way in ["truncate", "change"] {
            let (before, shadows_before) = (project.read("STATE.md"), shadows());
            let text = format!("{number:02} {way}\n");
            let open = std::fs::read_dir(format!("/proc/{daemon}/fd")).unwrap().count() as u64;
            let mut save = project.python(SAVER);
            save.args([&text, way]);
            let usual = limit(Some(open + spare));
            let said = succeed(save);
            limit(usual);
            if said == "refused\n" {
                refused += 1;
                assert_eq!(project.read("STATE.md"), before);
                eventually("its shadow is gone", || shadows() == shadows_before);
            } else {
                saved += 1;
                assert_eq!(said, "opened\nclosed\n");
                assert!(project.read("STATE.md").starts_with(&text), "{spare}");
            }
        }
    }
    assert!(refused > 2 && saved > 2, "{refused} refused, {saved} saved");
    succeed(project.sh("echo last > STATE.md"));
    assert_eq!(project.read("STATE.md"), "last\n");
    project.unmount();
}

/// The histories that stay open leave descriptors to files.
#[test]
fn f3_a_daemon_of_few_descriptors_saves_many_files_one_after_the_other() {
    watchdog();
    let project = Project::unmounted(&[("concord.toml", "durability = \"fast\"\n")]);
    let (few, many) = (2 * RESERVED, 300);
    (0..many).for_each(|n| std::fs::write(project.path(&format!("{n}.md")), "old\n").unwrap());
    let mut mount = Command::new("sh");
    mount.args(["-c", &format!("ulimit -n {few}; exec \"$0\" mount \"$1\"")]);
    mount.arg(env!("CARGO_BIN_EXE_concord")).arg(project.root());
    succeed(mount);
    for how in ["a", "w"] {
        let all = format!("for n in range({many}): open(f'{{n}}.md', '{how}').write('line\\n')");
        succeed(project.python(&all));
    }
    let mut unmount = concord(&["unmount"]);
    unmount.arg(project.root());
    succeed(unmount);
}
