//! H1-H4 on a real mount: versions are kept, recorded, listed, read, compared and restored, mounted or not, and nobody
//! reads through history what the file's own permissions denied him.

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use support::{Project, Running, concord, numbers, refused, run, succeed, text, watchdog};

/// The keys that issue and contract promise for each version, in their order.
const PROMISED: [&str; 10] = [
    "version", "time", "bytes", "hash", "how", "pid", "command", "agent", "based_on", "current",
];

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// `concord` with these arguments in this directory; `FILE` arguments may be relative.
fn concord_in(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = concord(arguments);
    command.current_dir(dir);
    run(command)
}

#[test]
fn h2_a_version_records_who_wrote_it_what_it_is_and_what_it_was_based_on() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let mut python = project.python("open('STATE.md','w').write('by an agent\\n'); print('done', flush=True); input()");
    python.env("CONCORD_AGENT", "planner");
    let mut writer = Running::start(python);
    assert_eq!(writer.hear(), "done");
    let history = project.history("STATE.md");
    let (new, old) = (&history[0], &history[1]);
    assert_eq!(new["pid"], writer.pid());
    assert!(new["command"].as_str().unwrap().starts_with("python"), "{new}");
    assert_eq!(new["agent"], "planner");
    assert_eq!(new["hash"], hash(b"by an agent\n"));
    assert_eq!((&new["bytes"], &new["how"]), (&12.into(), &"close".into()));
    assert_eq!((&new["current"], &old["current"]), (&true.into(), &false.into()));
    assert_eq!((&old["how"], &old["hash"]), (&"found".into(), &hash(b"v1\n").into()));
    writer.say("");
    // A change that began with the current content is based on it.
    succeed(project.python("f=open('STATE.md','r+'); f.read(); f.write('more\\n'); f.close()"));
    assert_eq!(project.history("STATE.md")[0]["based_on"], 2);
}

#[test]
fn h2_a_process_that_runs_under_a_known_agent_is_recorded_as_that_agents() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    let claude = project.outside().join("claude");
    std::fs::copy("/bin/sh", &claude).unwrap();
    let mut command = Command::new(&claude);
    command
        .args(["-c", "sh -c 'echo v2 > STATE.md; :'; :"])
        .current_dir(project.root())
        .env_remove("CONCORD_AGENT");
    succeed(command);
    let newest = &project.history("STATE.md")[0];
    assert_eq!((&newest["agent"], &newest["command"]), (&"claude".into(), &"sh".into()));
}

#[test]
fn h2_each_way_by_which_a_version_comes_is_recorded() {
    watchdog();
    let project = Project::with(&[("a.md", "a1\n"), ("b.md", "b1\n"), ("plain", "p\n")]);
    let how = |name: &str| project.history(name)[0]["how"].as_str().unwrap().to_owned();
    project.save("a.md", "a2\n");
    assert_eq!(how("a.md"), "close");
    std::fs::rename(project.path("plain"), project.path("a.md")).unwrap();
    assert_eq!(how("a.md"), "rename");
    succeed(project.python("import os; os.truncate('a.md', 1)"));
    assert_eq!(how("a.md"), "truncate");
    assert_eq!(project.read("a.md"), "p");
    let (a, b) = (project.path("a.md"), project.path("b.md"));
    rustix::fs::renameat_with(
        rustix::fs::CWD,
        &a,
        rustix::fs::CWD,
        &b,
        rustix::fs::RenameFlags::EXCHANGE,
    )
    .unwrap();
    assert_eq!((how("a.md"), how("b.md")), ("exchange".into(), "exchange".into()));
    assert_eq!(
        (project.read("a.md"), project.read("b.md")),
        ("b1\n".into(), "p".into())
    );
    assert!(concord_in(&project.root(), &["restore", "a.md@1"]).status.success());
    assert_eq!((how("a.md"), project.read("a.md")), ("restore".into(), "a1\n".into()));
    std::fs::remove_file(&a).unwrap();
    assert_eq!(how("a.md"), "unlink");
}

#[test]
fn h2_the_json_of_a_history_begins_with_the_promised_keys() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    project.save("STATE.md", "v2\n");
    let printed = concord_in(&project.root(), &["history", "--json", "STATE.md"]);
    let document: Value = serde_json::from_slice(&printed.stdout).expect("one JSON document");
    let versions = document.as_array().unwrap();
    assert_eq!(numbers(versions), [2, 1], "newest first");
    for version in versions {
        let kinds: Vec<bool> = PROMISED.iter().map(|key| version.get(key).is_some()).collect();
        assert_eq!(kinds, [true; 10], "{version}");
        assert!(version["version"].is_u64() && version["bytes"].is_u64() && version["pid"].is_u64());
        assert!(version["time"].is_string() && version["hash"].is_string() && version["current"].is_boolean());
    }
    // The order, which a parsed document has lost.
    let printed = text(&printed.stdout);
    let places: Vec<usize> = PROMISED
        .iter()
        .map(|key| printed.find(&format!("\"{key}\":")).unwrap())
        .collect();
    assert!(places.is_sorted(), "{printed}");
}

#[test]
fn h3_history_show_and_diff_say_the_same_mounted_and_unmounted() {
    watchdog();
    let mut project = Project::with(&[("docs/STATE.md", "one\ntwo\n")]);
    project.save("docs/STATE.md", "one\n2\n");
    project.save("docs/STATE.md", "one\n2\nthree\n");
    let orders: [&[&str]; 6] = [
        &["history", "docs/STATE.md"],
        &["history", "--json", "docs/STATE.md"],
        &["show", "docs/STATE.md@1"],
        &["show", "docs/STATE.md@3"],
        &["diff", "docs/STATE.md@1", "docs/STATE.md@2"],
        &["diff", "docs/STATE.md@2"],
    ];
    let say = |project: &Project| {
        orders.map(|order| {
            let output = concord_in(&project.root(), order);
            (output.status.code(), text(&output.stdout), text(&output.stderr))
        })
    };
    let mounted = say(&project);
    assert_eq!(mounted[2].1, "one\ntwo\n");
    assert!(
        mounted[4].1.contains("-two\n") && mounted[4].1.contains("+2\n"),
        "{}",
        mounted[4].1
    );
    assert!(mounted[5].1.contains("+three\n"), "{}", mounted[5].1);
    project.unmount();
    assert_eq!(say(&project), mounted);
}

#[test]
fn h3_a_damaged_version_is_neither_shown_nor_compared_nor_restored() {
    watchdog();
    let mut project = Project::with(&[("a.md", "value 1\n")]);
    for content in ["value 2\n", "value 3\n"] {
        project.save("a.md", content);
    }
    let key = hash(b"a.md");
    let lies = format!(".concord/history/{}/{}/1", &key[..2], &key[..32]);
    for damage in ["VALUE 1\n", "value 1\nand more\n", ""] {
        project.unmount();
        std::fs::write(project.path(&lies), damage).unwrap();
        project.mount();
        for order in [
            &["show", "a.md@1"][..],
            &["show", "--json", "a.md@1"],
            &["diff", "a.md@1"],
            &["diff", "a.md@2", "a.md@1"],
            &["restore", "a.md@1"],
        ] {
            let output = concord_in(&project.root(), order);
            assert_eq!(output.status.code(), Some(1), "{order:?} {damage:?}");
            let said = text(&output.stderr);
            assert!(said.contains("version 1 is damaged") && said.contains(&lies), "{said}");
            assert!(!text(&output.stdout).contains("alue"), "{order:?}");
        }
        assert_eq!(project.read("a.md"), "value 3\n");
        assert_eq!(numbers(&project.history("a.md")), [3, 2, 1]);
    }
    assert_eq!(project.show("a.md", 2), b"value 2\n");
    assert!(concord_in(&project.root(), &["restore", "a.md@2"]).status.success());
    assert_eq!(project.read("a.md"), "value 2\n");
}

#[test]
fn h3_the_beginning_of_a_file_that_was_appended_to_is_compared_with_its_record_too() {
    watchdog();
    let mut project = Project::with(&[("a.jsonl", "")]);
    project.save("a.jsonl", "one\n");
    for line in ["two\n", "three\n"] {
        let file = std::fs::File::options().append(true).open(project.path("a.jsonl"));
        std::io::Write::write_all(&mut file.unwrap(), line.as_bytes()).unwrap();
    }
    project.save("a.jsonl", "anew\n");
    let versions = numbers(&project.history("a.jsonl"));
    let said = |project: &Project| {
        let shown = versions.iter().rev().map(|number| {
            let output = concord_in(&project.root(), &["show", &format!("a.jsonl@{number}")]);
            (output.status.code() == Some(0)).then(|| text(&output.stdout))
        });
        shown.collect::<Vec<_>>()
    };
    let whole = |lines: &[&str]| Some(lines.concat());
    let before = said(&project);
    assert!(
        before.contains(&whole(&["one\n"])) && before.contains(&whole(&["one\n", "two\n", "three\n"])),
        "{before:?}"
    );
    project.unmount();
    let key = hash(b"a.jsonl");
    let dir = project.path(&format!(".concord/history/{}/{}", &key[..2], &key[..32]));
    let grown = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let grown = grown.filter(|path| path.extension().is_none() && !path.ends_with("path"));
    for content in grown.filter(|path| std::fs::metadata(path).unwrap().len() > 0) {
        std::fs::write(content, "ONE\ntwo\n").unwrap();
    }
    let after = said(&project);
    assert!(
        !after.contains(&Some("ONE\n".into())) && after.last() == Some(&whole(&["anew\n"])),
        "{after:?}"
    );
}

#[test]
fn h3_a_file_is_found_by_every_path_that_reaches_it() {
    watchdog();
    let mut project = Project::with(&[("docs/STATE.md", "v1\n"), ("src/x", "")]);
    std::os::unix::fs::symlink("docs", project.path("link")).unwrap();
    std::os::unix::fs::symlink("../docs/STATE.md", project.path("src/state")).unwrap();
    let outside = project.outside().join("from-outside");
    std::os::unix::fs::symlink(project.root(), &outside).unwrap();
    project.save("docs/STATE.md", "v2\n");
    for round in ["mounted", "unmounted"] {
        let absolute = project.path("docs/STATE.md").display().to_string();
        let through = outside.join("link/STATE.md").display().to_string();
        let from_src = [
            "../docs/STATE.md",
            "state",
            "../link/STATE.md",
            "../docs/../link/./STATE.md",
        ];
        for path in from_src.into_iter().chain([absolute.as_str(), through.as_str()]) {
            let shown = concord_in(&project.path("src"), &["show", &format!("{path}@1")]);
            assert_eq!(text(&shown.stdout), "v1\n", "{round}, {path}: {}", text(&shown.stderr));
        }
        if round == "mounted" {
            project.unmount();
        }
    }
}

#[test]
fn h3_a_deleted_file_is_listed_and_restored_by_any_path() {
    watchdog();
    let project = Project::with(&[("docs/PLAN.md", "the plan\n"), ("src/x", "")]);
    std::os::unix::fs::symlink("docs", project.path("link")).unwrap();
    let absolute = project.path("docs/PLAN.md").display().to_string();
    for path in ["docs/PLAN.md", "src/../link/PLAN.md", absolute.as_str()] {
        std::fs::remove_file(project.path("docs/PLAN.md")).unwrap();
        let history = project.history("docs/PLAN.md");
        assert_eq!(
            (&history[0]["how"], &history[0]["current"]),
            (&"unlink".into(), &false.into())
        );
        let newest = numbers(&history)[1];
        let restored = concord_in(&project.root(), &["restore", &format!("{path}@{newest}")]);
        assert!(restored.status.success(), "{path}: {}", text(&restored.stderr));
        assert_eq!(project.read("docs/PLAN.md"), "the plan\n");
    }
    assert_eq!(project.history("docs/PLAN.md").len(), 7);
}

#[test]
fn h3_a_restore_is_itself_a_publish_that_can_be_taken_back() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    std::fs::set_permissions(project.path("STATE.md"), PermissionsExt::from_mode(0o640)).unwrap();
    project.save("STATE.md", "v2\n");
    let restored = concord_in(&project.root(), &["restore", "--json", "STATE.md@1"]);
    let restored: Value = serde_json::from_slice(&restored.stdout).unwrap();
    assert_eq!((&restored["from"], &restored["version"]), (&1.into(), &3.into()));
    assert_eq!(project.read("STATE.md"), "v1\n");
    assert_eq!(
        std::fs::metadata(project.path("STATE.md")).unwrap().mode() & 0o7777,
        0o640
    );
    assert!(concord_in(&project.root(), &["restore", "STATE.md@2"]).status.success());
    assert_eq!(project.read("STATE.md"), "v2\n");
    assert_eq!(numbers(&project.history("STATE.md")), [4, 3, 2, 1]);
    let none = refused(&concord_in(&project.root(), &["restore", "STATE.md@77"]));
    assert!(
        none.contains("STATE.md@77: version 77 is not kept"),
        "as `show` says: {none}"
    );
    assert_eq!(project.read("STATE.md"), "v2\n");
}

/// Not the restorer's, least of all with the right to become him.
#[test]
fn h3_a_deleted_file_comes_back_as_what_it_was() {
    watchdog();
    let project = Project::with(&[("tool.md", "v1\n"), ("shared.md", "v1\n")]);
    succeed(project.sh("chown 2001:3001 tool.md && chmod 4755 tool.md && ls -d tool.md
        chown 2001:3001 shared.md && chmod 640 shared.md && setfattr -n user.k -v v shared.md && setfacl -m u:1001:r shared.md
        umask 077"));
    let what = "stat -c '%a %u %g' tool.md shared.md; getfattr -d shared.md; getfacl -cn shared.md";
    let expected = succeed(project.sh(what));
    assert!(expected.starts_with("4755 2001 3001\n640 2001 3001\n"), "{expected}");
    for name in ["tool.md", "shared.md"] {
        std::fs::remove_file(project.path(name)).unwrap();
        succeed(concord(&["restore", &format!("{}@1", project.path(name).display())]));
        assert_eq!(project.read(name), "v1\n");
    }
    assert_eq!(succeed(project.sh(what)), expected);
    // What is there stays what it is (W11).
    succeed(project.sh("chown 2002:3002 tool.md; chmod 600 tool.md"));
    succeed(concord(&[
        "restore",
        &format!("{}@1", project.path("tool.md").display()),
    ]));
    assert_eq!(succeed(project.sh("stat -c '%a %u %g' tool.md")), "600 2002 3002\n");
}

#[test]
fn h3_a_restore_says_what_has_the_files_name() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    project.save("STATE.md", "v2\n");
    std::fs::remove_file(project.path("STATE.md")).unwrap();
    for (make, kind, remove) in [
        ("mkdir STATE.md", "a directory is in the way", "rmdir STATE.md"),
        ("mkfifo STATE.md", "a FIFO is in the way", "rm STATE.md"),
    ] {
        succeed(project.sh(make));
        let said = refused(&concord_in(&project.root(), &["restore", "STATE.md@1"]));
        assert!(said.contains(kind) && said.contains("STATE.md"), "{said}");
        succeed(project.sh(remove));
    }
    assert!(concord_in(&project.root(), &["restore", "STATE.md@1"]).status.success());
    assert_eq!(project.read("STATE.md"), "v1\n");
    // Of its directory too.
    succeed(project.sh("mkdir z; echo v1 > z/a.md; rm -r z; echo > z"));
    let said = refused(&concord_in(&project.root(), &["restore", "z/a.md@1"]));
    assert!(said.contains("z/a.md: a file is in the way at z; rename"), "{said}");
    succeed(project.sh("rm z"));
    let said = refused(&concord_in(&project.root(), &["restore", "z/a.md@1"]));
    assert!(
        said.contains("z/a.md: the file's directory is gone") && !said.contains("not kept"),
        "{said}"
    );
}

/// Who waits at the other end of a FIFO in the tree below would notice that somebody opened it.
#[test]
fn h3_a_restore_opens_no_fifo_that_has_the_files_name() {
    watchdog();
    let mut project = Project::unmounted(&[]);
    let backing = project.outside().join("tree");
    std::fs::create_dir(&backing).unwrap();
    project.mount_with(&["--backing", backing.to_str().unwrap()]);
    project.save("STATE.md", "v1\n");
    succeed(project.sh("rm STATE.md; mkfifo STATE.md"));
    let mut command = Command::new("sh");
    command
        .args(["-c", "echo begins; echo x > STATE.md"])
        .current_dir(&backing);
    let mut waiting = Running::start(command);
    assert_eq!(waiting.hear(), "begins");
    std::thread::sleep(std::time::Duration::from_millis(300));
    let said = refused(&concord_in(&project.root(), &["restore", "STATE.md@1"]));
    assert!(said.contains("a FIFO is in the way"), "{said}");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(waiting.0.try_wait().unwrap().is_none(), "nobody came");
}

#[test]
fn h3_a_restore_that_cannot_be_told_of_says_that_it_is_done() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n")]);
    project.save("STATE.md", "v2\n");
    let mut restore = project.sh("$0 restore STATE.md@1 > /dev/full");
    restore.arg(env!("CARGO_BIN_EXE_concord"));
    let said = refused(&run(restore));
    assert!(
        said.contains("version 1 is current again, as version 3, but that could not be printed"),
        "{said}"
    );
    assert_eq!(project.read("STATE.md"), "v1\n");
}

#[test]
fn h2_a_change_made_while_nothing_was_mounted_becomes_a_found_version() {
    watchdog();
    let mut project = Project::with(&[("STATE.md", "v1\n")]);
    project.save("STATE.md", "v2\n");
    project.unmount();
    std::fs::write(project.path("STATE.md"), "by hand\n").unwrap();
    let newest = &project.history("STATE.md")[0];
    assert_eq!(
        (&newest["how"], &newest["current"]),
        (&"found".into(), &true.into()),
        "unmounted"
    );
    project.mount();
    project.save("STATE.md", "v4\n");
    let history = project.history("STATE.md");
    let how: Vec<&str> = history.iter().map(|v| v["how"].as_str().unwrap()).collect();
    // Version 2 was overwritten in place while nobody watched: its number is gone with its content.
    assert_eq!(how, ["close", "found", "found"]);
    assert_eq!(numbers(&history), [4, 3, 1]);
    assert_eq!(project.show("STATE.md", 3), b"by hand\n");
    assert_eq!(history[1]["hash"], hash(b"by hand\n"));
}

#[test]
fn a_file_without_history_is_a_no() {
    watchdog();
    let project = Project::with(&[("STATE.md", "v1\n"), ("plain.bin", "x")]);
    let none = concord_in(&project.root(), &["history", "nowhere.md"]);
    assert_eq!((none.status.code(), text(&none.stdout)), (Some(1), String::new()));
    assert!(refused(&none).contains("nowhere.md"), "{}", text(&none.stderr));
    let none = concord_in(&project.root(), &["history", "--json", "nowhere.md"]);
    assert_eq!((none.status.code(), text(&none.stdout).as_str()), (Some(1), "[]\n"));
}
