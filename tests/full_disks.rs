//! What works on a disk that is full, and becomes of a daemon that dies on one. Needs root, to mount small ones.

mod support;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use support::puppet::Puppet;
use support::small::{Small, mounted};
use support::{Project, concord, eventually, numbers, text, watchdog};

/// A project on a disk that the history of `c.md` has filled to the last byte, with the configuration in `rules.toml` beside it.
fn filled(small: &Small, keep: u32) -> Project {
    let mut project = Project::unmounted(&[]);
    lower(&project, keep);
    mount_by_rules(small, &mut project);
    let full = (0..60).any(|n| std::fs::write(project.path("c.md"), vec![n; 300_000]).is_err());
    assert!(full, "the history did not fill the disk");
    eventually("the last save's room is given back", || {
        std::fs::read(project.path("c.md")).is_ok_and(|content| content.len() == 300_000)
    });
    fill(small);
    project
}

/// Past the mount.
fn fill(small: &Small) {
    let mut filler = File::options();
    let mut filler = filler.append(true).create(true).open(small.at("small/filler")).unwrap();
    for size in [64 << 10, 4 << 10, 1] {
        while filler.write_all(&vec![0; size]).is_ok() {}
    }
}

fn rules_of(project: &Project) -> PathBuf {
    project.outside().join("rules.toml")
}

fn lower(project: &Project, keep: u32) {
    std::fs::write(rules_of(project), format!("keep = {keep}\n")).unwrap();
}

fn mount_by_rules(small: &Small, project: &mut Project) {
    let (rules, backing) = (rules_of(project), small.at("small"));
    let arguments = [
        "--config",
        rules.to_str().unwrap(),
        "--backing",
        backing.to_str().unwrap(),
    ];
    project.mount_with(&arguments);
}

fn saves(project: &Project, name: &str) -> bool {
    std::fs::write(project.path(name), vec![b'x'; 300_000]).is_ok()
}

#[test]
fn f3_lowering_what_is_kept_frees_a_disk_that_the_history_filled() {
    watchdog();
    let Some(small) = Small::of("4m", "small") else { return };
    let project = filled(&small, 20);
    let before = numbers(&project.history("c.md"));
    assert!(!saves(&project, "c.md"));
    assert_eq!(
        numbers(&project.history("c.md")),
        before,
        "what the rules let stay stays, also on a full disk"
    );
    lower(&project, 2);
    eventually("only two old versions are left", || {
        numbers(&project.history("c.md")) == before[..3]
    });
    assert!(saves(&project, "c.md"));
}

#[test]
fn f3_files_are_removed_and_emptied_on_a_full_disk() {
    watchdog();
    let Some(small) = Small::of("4m", "small") else { return };
    let project = filled(&small, 20);
    let versions = numbers(&project.history("c.md")).len();
    project.save("c.md", "");
    assert_eq!(project.read("c.md"), "");
    fill(&small);
    std::fs::remove_file(project.path("c.md")).unwrap();
    let history = project.history("c.md");
    assert_eq!(history.len(), versions + 2, "{history:?}");
    let last = history[1]["version"].as_u64().unwrap();
    assert_eq!(project.show("c.md", last), b"");
}

#[test]
fn f3_removing_works_on_a_full_disk_when_there_is_no_room_for_records_either() {
    watchdog();
    let Some(small) = Small::on("small") else { return };
    let mut project = mounted(&small, "small");
    let names: Vec<String> = (0..30).map(|n| format!("{n}.md")).collect();
    for name in &names {
        std::fs::write(project.path(name), name).unwrap();
        std::fs::write(project.path(name), format!("{name}, again")).unwrap();
    }
    for name in &names {
        fill(&small);
        let removed = std::fs::remove_file(project.path(name));
        assert!(removed.is_ok(), "{name}: {removed:?}");
    }
    for name in &names {
        assert_eq!(project.show(name, 2), format!("{name}, again").as_bytes());
    }
    std::fs::remove_file(small.at("small/filler")).unwrap();
    project.unmount();
    project.mount_with(&["--backing", small.at("small").to_str().unwrap()]);
    let is_deleted = |name: &String| {
        project
            .history(name)
            .first()
            .is_some_and(|newest| newest["how"] == "unlink")
    };
    eventually("each removal is written down", || names.iter().all(is_deleted));
}

#[test]
fn f3_the_rules_are_changed_through_a_mount_whose_disk_is_full() {
    watchdog();
    let Some(small) = Small::of("4m", "small") else { return };
    let mut project = filled(&small, 20);
    project.unmount();
    project.mount_with(&["--backing", small.at("small").to_str().unwrap()]);
    fill(&small);
    let before = numbers(&project.history("c.md"));
    std::fs::write(project.path("concord.toml"), "keep = 1\n").unwrap();
    eventually("one old version is left", || {
        numbers(&project.history("c.md")) == before[..2]
    });
    assert!(saves(&project, "c.md"));
}

#[test]
fn f3_a_full_disk_is_mounted_and_freed_by_rules_that_keep_less() {
    watchdog();
    let Some(small) = Small::of("4m", "small") else { return };
    let mut project = filled(&small, 20);
    let before = numbers(&project.history("c.md"));
    for (keep, left) in [(20, before.len()), (2, 3)] {
        project.unmount();
        fill(&small);
        lower(&project, keep);
        mount_by_rules(&small, &mut project);
        eventually("what the rules keep", || {
            numbers(&project.history("c.md")) == before[..left]
        });
        assert!(project.status()["pid"].is_u64());
    }
    assert!(saves(&project, "c.md"));
}

#[test]
fn f3_recovering_frees_a_full_disk_by_rules_that_keep_less() {
    watchdog();
    let Some(small) = Small::of("4m", "small") else { return };
    let mut project = filled(&small, 20);
    let before = numbers(&project.history("c.md"));
    project.unmount();
    let (backing, rules) = (small.at("small"), rules_of(&project));
    let recover = |arguments: &[&str]| {
        let mut command = support::concord(&["recover", backing.to_str().unwrap()]);
        command.args(arguments);
        support::succeed(command)
    };
    recover(&[]);
    lower(&project, 2);
    let said = recover(&["--config", rules.to_str().unwrap()]);
    assert!(said.contains("old versions were removed"), "{said}");
    mount_by_rules(&small, &mut project);
    assert_eq!(numbers(&project.history("c.md")), before[..3]);
}

/// Whether a history, or `status`, tells what became of what a file held.
fn is_told_of(project: &Project, status: &serde_json::Value, name: &str) -> bool {
    let told = status["incidents"].as_array().unwrap();
    let is_incident = told.iter().any(|incident| incident["path"] == name);
    is_incident || project.history(name).iter().any(|version| version["bytes"] == 9000)
}

#[test]
fn f3_files_that_never_had_a_history_are_removed_emptied_and_renamed_away_on_a_full_disk() {
    watchdog();
    let Some(small) = Small::of("4m", "small") else { return };
    let names: Vec<String> = (0..45).map(|n| format!("{n}.md")).collect();
    for name in &names {
        std::fs::write(small.at("small").join(name), vec![b'x'; 9000]).unwrap();
    }
    let project = mounted(&small, "small");
    fill(&small);
    // Whatever room there is again, somebody takes it.
    for name in &names[..25] {
        let removed = std::fs::remove_file(project.path(name));
        assert!(removed.is_ok(), "{name}: {removed:?}");
        fill(&small);
    }
    let status = project.status();
    for name in &names[..25] {
        assert!(!project.path(name).exists());
        assert!(is_told_of(&project, &status, name), "{name}: {status}");
    }
    let unkept = status["incidents"].as_array().unwrap();
    let why = unkept[0]["why"].as_str().unwrap();
    assert!(why.contains("removed") && why.contains("disk is full"), "{status}");
    for name in &names[25..35] {
        let emptied = File::create(project.path(name));
        assert!(emptied.is_ok(), "{name}: {emptied:?}");
        drop(emptied);
        assert_eq!(project.read(name), "", "{name}");
        fill(&small);
    }
    for name in &names[35..45] {
        let renamed = std::fs::rename(project.path(name), project.path(&format!("{name}.bin")));
        assert!(renamed.is_ok(), "{name}: {renamed:?}");
        assert_eq!(project.read(&format!("{name}.bin")).len(), 9000);
        fill(&small);
    }
    let status = project.status();
    for name in &names[25..] {
        assert!(is_told_of(&project, &status, name), "{name}: {status}");
    }
    // After all that the configuration still has its room.
    std::fs::write(project.path("concord.toml"), "keep = 0\n").unwrap();
    let is_kept = |name: &String| project.history(name).iter().any(|version| version["bytes"] == 9000);
    eventually("what is in the histories goes", || !names.iter().any(is_kept));
}

#[test]
fn f3_what_fails_on_a_full_disk_is_told_with_its_reason() {
    watchdog();
    let Some(small) = Small::of("4m", "small") else { return };
    std::fs::write(small.at("small/a.md"), "old").unwrap();
    let project = mounted(&small, "small");
    std::fs::write(project.path("temp"), "new").unwrap();
    std::fs::remove_file(small.at("small/.concord/spare")).unwrap();
    fill(&small);
    assert!(std::fs::rename(project.path("temp"), project.path("a.md")).is_err());
    assert_eq!(project.read("a.md"), "old");
    let status = project.status();
    let incident = &status["incidents"][0];
    assert_eq!(incident["path"], "a.md", "{status}");
    let why = incident["why"].as_str().unwrap();
    assert!(why.contains("not changed") && why.contains("No space left"), "{why}");
}

#[test]
fn f3_a_mount_without_room_for_daemon_json_is_found_and_writes_it_when_there_is_room() {
    watchdog();
    let Some(small) = Small::of("4m", "small") else { return };
    let mut project = mounted(&small, "small");
    std::fs::write(project.path("a.md"), "old").unwrap();
    project.unmount();
    let backing = small.at("small");
    let spare = backing.join(".concord/spare");
    // It makes another as soon as it can.
    let fill_up = || {
        let _ = std::fs::remove_file(&spare);
        fill(&small);
    };
    let mount = || {
        let mut command = concord(&["mount", "--backing", backing.to_str().unwrap()]);
        command.arg(project.root());
        support::succeed(command);
    };
    let about = |arguments: &[&str], dir: &std::path::Path| {
        let mut command = concord(arguments);
        command.arg(dir);
        support::succeed(command)
    };
    // What the first one has noted is cleared away, which makes room.
    mount();
    about(&["unmount"], &project.root());
    fill_up();
    mount();
    let beacon = backing.join(".concord/daemon.json");
    assert!(!beacon.exists() && !backing.join(".concord/daemon.json.new").exists());
    for dir in [project.root(), backing.clone()] {
        assert!(about(&["status"], &dir).contains("mounted since"));
    }
    std::fs::remove_file(project.path("a.md")).unwrap();
    let mut history = concord(&["history"]);
    history.arg(project.path("a.md"));
    assert!(support::succeed(history).contains("close"));
    about(&["unmount"], &project.root());

    fill_up();
    mount();
    // It tries once a second, and goes on when that failed.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert!(!beacon.exists());
    std::fs::remove_file(small.at("small/filler")).unwrap();
    eventually("daemon.json is written", || beacon.exists());
    about(&["status"], &backing);
    about(&["unmount"], &project.root());
    assert!(!beacon.exists());
}

/// Takes each inode that is left.
fn take_inodes(small: &Small, name: &str) {
    for number in 0.. {
        if File::create(small.at("small").join(format!("{name}{number}"))).is_err() {
            return;
        }
    }
}

#[test]
fn f1_a_daemon_that_died_on_a_full_disk_is_mounted_again_and_what_finds_no_room_waits_for_the_next() {
    watchdog();
    let (Some(bytes), Some(inodes)) = (Small::on("small"), Small::with_few_inodes(128)) else {
        return;
    };
    for (small, sessions) in [(bytes, 25), (inodes, 8)] {
        let mut project = mounted(&small, "small");
        let mut writer = Puppet::new(&project);
        for n in 0..sessions {
            std::fs::write(project.path(&format!("{n}.md")), "old").unwrap();
            writer.does(&format!("f{n} = open('{n}.md', 'w')"));
            assert_eq!(
                writer.does(&format!("f{n}.write('staged {n}'), f{n}.flush() and None")),
                format!("({}, None)", 7 + n.to_string().len())
            );
        }
        match sessions {
            8 => take_inodes(&small, "filler"),
            _ => fill(&small),
        }
        // What it had open and removed is given back now: two or three inodes.
        project.kill_daemon();
        let said = support::on(&["recover"], &project.root());
        assert!(said.status.success(), "{}", text(&said.stderr));
        let said = text(&said.stdout);
        assert!(said.contains(".md: its session had not been published"), "{said}");
        assert!(said.contains("\nnot recovered: "), "{said}");
        let left = || std::fs::read_dir(small.at("small/.concord/shadows")).unwrap().count() - 1;
        assert!((1..sessions).contains(&left()), "{} of {sessions}", left());
        let mut mount = concord(&["mount", "--backing", small.at("small").to_str().unwrap()]);
        mount.arg(project.root());
        let mounted = support::succeed(mount);
        assert!(
            mounted.contains(&format!("left for want of room: {}", left())),
            "{mounted}"
        );
        for n in 0..sessions {
            assert_eq!(project.read(&format!("{n}.md")), "old");
        }
        rustix::mount::unmount(project.root(), rustix::mount::UnmountFlags::DETACH).unwrap();
        support::succeed(project.sh(&format!("rm {}/filler*", small.at("small").display())));
        eventually("the daemon has ended", || {
            support::on(&["recover"], &small.at("small")).status.success()
        });
        project.mount_with(&["--backing", small.at("small").to_str().unwrap()]);
        let recovered = project.recovered();
        let mut kept: Vec<String> = recovered
            .iter()
            .map(|kept| project.read(kept["kept"].as_str().unwrap()))
            .collect();
        let mut staged: Vec<String> = (0..sessions).map(|n| format!("staged {n}")).collect();
        kept.sort();
        staged.sort();
        assert_eq!(kept, staged);
        assert!(
            recovered.iter().all(|kept| kept["command"] == "python3"),
            "{recovered:?}"
        );
        assert_eq!(left(), 0);
    }
}

#[test]
fn f1_the_end_of_a_log_is_cut_off_and_kept_where_there_is_no_room_for_both() {
    watchdog();
    let Some(small) = Small::on("small") else { return };
    let mut project = mounted(&small, "small");
    std::fs::write(project.path("log.jsonl"), "first\n").unwrap();
    let mut writer = Puppet::new(&project);
    writer.does("fd = os.open('log.jsonl', os.O_WRONLY | os.O_APPEND)");
    assert_eq!(writer.does("os.write(fd, b'whole\\n')"), "6");
    project.kill_daemon();
    rustix::mount::unmount(project.root(), rustix::mount::UnmountFlags::DETACH).unwrap();
    let log = small.at("small/log.jsonl");
    let tail: Vec<u8> = (0..400_000u32).map(|n| b'a' + (n % 23) as u8).collect();
    File::options()
        .append(true)
        .open(&log)
        .unwrap()
        .write_all(&tail)
        .unwrap();
    fill(&small);
    let recovered = support::on(&["recover"], &small.at("small"));
    assert!(recovered.status.success(), "{}", text(&recovered.stderr));
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "first\nwhole\n");
    let kept = std::fs::read_dir(small.at("small/.concord/recovered")).unwrap();
    let kept = kept
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_none());
    assert!(std::fs::read(kept.unwrap()).unwrap() == tail);
}

#[test]
fn f3_a_disk_without_inodes_is_mounted_found_and_unmounted_whether_its_daemon_had_died_or_not() {
    watchdog();
    for died in [true, false] {
        let Some(small) = Small::with_few_inodes(128) else {
            return;
        };
        let mut project = mounted(&small, "small");
        std::fs::write(project.path("a.md"), "old").unwrap();
        match died {
            true => {
                project.kill_daemon();
                rustix::mount::unmount(project.root(), rustix::mount::UnmountFlags::DETACH).unwrap();
            }
            false => project.unmount(),
        }
        take_inodes(&small, "filler");
        let about = |arguments: &[&str], dir: &std::path::Path| {
            let mut command = concord(arguments);
            command.arg(dir);
            support::succeed(command)
        };
        about(
            &["mount", "--backing", small.at("small").to_str().unwrap()],
            &project.root(),
        );
        for dir in [project.root(), small.at("small")] {
            assert!(about(&["status"], &dir).contains("mounted since"));
        }
        assert_eq!(project.read("a.md"), "old");
        std::fs::remove_file(project.path("a.md")).unwrap();
        about(&["unmount"], &project.root());
        assert_eq!(support::mounts_at(&project.root()), 0);
    }
}
