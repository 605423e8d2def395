//! `concord.toml` against a real mount: mistakes refuse the mount or leave the old rules in force, good saves hold at
//! once; and what the built-in rules leave alone works as on any filesystem.

mod support;

use serde_json::Value;
use support::{Project, concord, eventually, refused, run, succeed, watchdog};

/// The built-in rules hold before those of the file.
const ONLY_MD: &str = "[[rule]]\npaths = [\"*.md\"]\n";
const ONLY_TXT: &str = "[[rule]]\npaths = [\"*.md\"]\ncoordinate = false\n[[rule]]\npaths = [\"*.txt\"]\n";

fn is_coordinated(project: &Project, name: &str) -> bool {
    let before = project.status()["counts"]["publishes"].as_u64().unwrap();
    // By a child: one that another test forks in this process may hold the file for a moment longer.
    succeed(project.sh(&format!("echo {before} > {name}")));
    project.status()["counts"]["publishes"].as_u64().unwrap() > before
}

fn refused_to_mount(project: &Project, arguments: &[&str]) -> String {
    let mut command = concord(&["mount"]);
    command.args(arguments).arg(project.root());
    let said = refused(&run(command));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(project.root().to_str().unwrap()), "nothing is mounted");
    said
}

fn log(project: &Project) -> String {
    std::fs::read_to_string(project.path(".concord/log")).unwrap()
}

#[test]
fn a_mistake_refuses_the_mount_and_names_line_key_and_remedy() {
    watchdog();
    let mistakes: [(&str, &[&str]); 7] = [
        (
            "keep = 3\nwait = \"5s\"\nkeep = 4\n",
            &["concord.toml:3", "`keep`", "second time"],
        ),
        (
            "max_bytes = \"1.5GB\"\n",
            &["concord.toml:1", "max_bytes", "1.5GB", "1500MB"],
        ),
        (
            "[[rule]]\npaths = [\"*.md\"]\nwiat = \"5s\"\n",
            &["concord.toml:3", "wiat", "wait"],
        ),
        (
            "[[rule]]\npaths = [\"*.md\"]\nwait = \"soon\"\n",
            &["concord.toml:3", "wait", "soon", "5s"],
        ),
        (
            "[[rule]]\npaths = [\"*.md\"]\ndurability = \"slow\"\n",
            &["concord.toml:3", "durability", "full", "atomic", "fast"],
        ),
        ("\n[[rule]]\nkeep = 3\n", &["concord.toml:2", "paths"]),
        ("[[rule]\n", &["concord.toml:1"]),
    ];
    for (config, expected) in mistakes {
        let project = Project::unmounted(&[("concord.toml", config)]);
        let said = refused_to_mount(&project, &[]);
        for word in expected {
            assert!(said.contains(word), "{config:?}: {said:?} should name {word}");
        }
    }
}

#[test]
fn a_link_that_leads_nowhere_is_a_mistake() {
    watchdog();
    let project = Project::unmounted(&[]);
    std::os::unix::fs::symlink("elsewhere", project.path("concord.toml")).unwrap();
    let said = refused_to_mount(&project, &[]);
    assert!(
        said.contains("concord.toml") && said.contains("symbolic link"),
        "{said}"
    );
}

#[test]
fn a_good_save_holds_at_once_for_files_opened_after() {
    watchdog();
    let project = Project::with(&[("concord.toml", ONLY_MD), ("a.md", ""), ("a.txt", "")]);
    assert!(is_coordinated(&project, "a.md"));
    assert!(!is_coordinated(&project, "a.txt"));
    // In place.
    std::fs::write(project.path("concord.toml"), ONLY_TXT).unwrap();
    eventually("*.txt is coordinated", || is_coordinated(&project, "a.txt"));
    assert!(!is_coordinated(&project, "a.md"));
    // By rename.
    std::fs::write(project.path("new"), ONLY_MD).unwrap();
    std::fs::rename(project.path("new"), project.path("concord.toml")).unwrap();
    eventually("*.md is coordinated again", || is_coordinated(&project, "a.md"));
    assert!(!is_coordinated(&project, "a.txt"));
}

#[test]
fn a_bad_save_leaves_the_old_rules_in_force_and_says_so() {
    watchdog();
    let project = Project::with(&[("concord.toml", ONLY_MD), ("a.md", ""), ("a.txt", "")]);
    let bad = "[[rule]]\npaths = [\"*.txt\"]\nkeeep = 3\n";
    let error = || project.status()["rules_error"].as_str().map(str::to_owned);
    for by_rename in [false, true] {
        assert_eq!(error(), None);
        if by_rename {
            std::fs::write(project.path("new"), bad).unwrap();
            std::fs::rename(project.path("new"), project.path("concord.toml")).unwrap();
        } else {
            std::fs::write(project.path("concord.toml"), bad).unwrap();
        }
        eventually("status says that the file is wrong", || error().is_some());
        let said = error().unwrap();
        assert!(
            said.contains("concord.toml:3") && said.contains("keeep") && said.contains("keep"),
            "{said}"
        );
        assert!(log(&project).contains("stay in force"));
        let mut status = concord(&["status"]);
        status.arg(project.root());
        assert!(succeed(status).contains("keeep"), "for people too");
        assert!(is_coordinated(&project, "a.md"));
        assert!(!is_coordinated(&project, "a.txt"));
        std::fs::write(project.path("concord.toml"), ONLY_MD).unwrap();
        eventually("status says no more that the file is wrong", || error().is_none());
    }
}

#[test]
fn a_configuration_that_disappears_gives_way_to_the_built_in_rules() {
    watchdog();
    let project = Project::with(&[("concord.toml", ONLY_TXT), ("a.md", "")]);
    assert!(!is_coordinated(&project, "a.md"));
    std::fs::remove_file(project.path("concord.toml")).unwrap();
    eventually("the built-in rules hold", || project.status()["rules"] == Value::Null);
    assert!(is_coordinated(&project, "a.md"));
}

#[test]
fn a_named_configuration_is_followed_inside_and_outside_the_project() {
    watchdog();
    for inside in [true, false] {
        let mut project = Project::unmounted(&[("conf/rules.toml", ONLY_MD), ("a.md", ""), ("a.txt", "")]);
        let mut config = project.path("conf/rules.toml");
        if !inside {
            config = project.outside().join("rules.toml");
            std::fs::write(&config, ONLY_MD).unwrap();
        }
        project.mount_with(&["--config", config.to_str().unwrap()]);
        assert_eq!(project.status()["rules"], config.to_str().unwrap());
        assert!(is_coordinated(&project, "a.md"));
        std::fs::write(&config, ONLY_TXT).unwrap();
        eventually("the saved rules are in force", || is_coordinated(&project, "a.txt"));
        assert!(!is_coordinated(&project, "a.md"), "inside: {inside}");
        std::fs::remove_file(&config).unwrap();
        eventually("status says that it is gone", || {
            project.status()["rules_error"].is_string()
        });
        assert!(is_coordinated(&project, "a.txt"), "the rules from before stay in force");
    }
}

#[test]
fn a_named_configuration_that_is_not_there_refuses_the_mount() {
    watchdog();
    let project = Project::unmounted(&[]);
    assert!(refused_to_mount(&project, &["--config", "/nowhere/rules.toml"]).contains("/nowhere/rules.toml"));
    assert!(!project.path(".concord").exists(), "nothing is changed");
}

#[test]
fn what_init_writes_is_what_holds_without_it() {
    watchdog();
    let mut project = Project::unmounted(&[("a.md", ""), ("a.txt", "")]);
    let mut init = concord(&["init"]);
    init.arg(project.root());
    succeed(init);
    assert!(
        std::fs::read_to_string(project.path("concord.toml"))
            .unwrap()
            .contains('#'),
        "it explains itself"
    );
    project.mount();
    assert_eq!(project.status()["rules"], "concord.toml");
    assert!(is_coordinated(&project, "a.md") && !is_coordinated(&project, "a.txt"));
}

#[test]
fn a_rule_that_excludes_wins_over_an_earlier_one() {
    watchdog();
    let config = "[[rule]]\npaths = [\"**/*.md\"]\n[[rule]]\npaths = [\"drafts/**\"]\ncoordinate = false\n";
    let project = Project::with(&[("concord.toml", config), ("a.md", ""), ("drafts/a.md", "")]);
    assert!(is_coordinated(&project, "a.md"));
    assert!(!is_coordinated(&project, "drafts/a.md"));
}

#[test]
fn never_is_what_the_built_in_rules_leave_alone_coordinated() {
    watchdog();
    let never = [
        ".git/x.md",
        ".git/config.json",
        "node_modules/x/package.json",
        "target/a.json",
        ".venv/a.toml",
        "a.db",
        "a.sqlite",
        "a.sqlite3",
        "a.db-wal",
        "a.db-shm",
        "a.db-journal",
        "a.sqlite-wal",
        "Cargo.lock",
        "x.json.lock",
        "a.txt",
        "a.log",
    ];
    let mut files: Vec<(&str, &str)> = never.iter().map(|name| (*name, "")).collect();
    let always = [
        "a.md",
        "deep/down/a.json",
        "a.jsonl",
        "a.ndjson",
        "a.yaml",
        "a.yml",
        "a.toml",
    ];
    files.extend(always.iter().map(|name| (*name, "")));
    let project = Project::with(&files);
    for name in never {
        assert!(!is_coordinated(&project, name), "{name}");
    }
    for name in always {
        assert!(is_coordinated(&project, name), "{name}");
    }
}

#[test]
fn never_git_works_on_the_mount() {
    watchdog();
    let mut project = Project::with(&[("README.md", "one\n"), ("src/a.json", "{}\n")]);
    let git = |script: &str| {
        let mut command = project.sh(&format!("set -e; {script}"));
        command.env("HOME", project.outside()).env("GIT_CONFIG_NOSYSTEM", "1");
        for (who, name) in [("AUTHOR", "a"), ("COMMITTER", "c")] {
            command
                .env(format!("GIT_{who}_NAME"), name)
                .env(format!("GIT_{who}_EMAIL"), "a@b.c");
        }
        succeed(command)
    };
    git("git init -q -b main .; git add -A; git commit -qm one; git checkout -qb other");
    git("echo two > README.md; echo '[]' > src/b.json; git add -A; git commit -qm two; git checkout -q main");
    assert_eq!(project.read("README.md"), "one\n");
    assert!(!project.path("src/b.json").exists());
    git("git merge -q other; git gc -q; git fsck --strict; git stash list");
    assert_eq!(git("git status --porcelain"), "", "not even .concord is seen");
    assert_eq!(
        (project.read("README.md"), project.read("src/b.json")),
        ("two\n".into(), "[]\n".into())
    );
    git("git reset -q --hard HEAD~1");
    assert_eq!(project.read("README.md"), "one\n");
    assert!(project.history("README.md").len() >= 3, "each checkout was a version");
    assert_eq!(
        succeed(project.sh("cat .concord/history/*/*/path | grep -ac .git/ || true")),
        "0\n",
        "git's own files have none"
    );
    project.unmount();
}

#[test]
fn never_two_processes_share_a_sqlite_database_on_the_mount() {
    watchdog();
    let program = r#"
import sqlite3, sys
db = sqlite3.connect('shared.db', timeout=30, isolation_level=None)
assert db.execute('pragma journal_mode=' + sys.argv[1]).fetchone()[0] == sys.argv[1]
db.execute('create table if not exists t(n)')
print('ready', flush=True); sys.stdin.readline()
for n in range(50): db.execute('begin immediate'); db.execute('insert into t values(?)', (n,)); db.execute('commit')
print('done', flush=True); sys.stdin.readline()
print(db.execute('select count(*) from t').fetchone()[0], db.execute('pragma integrity_check').fetchone()[0], flush=True)
"#;
    for mode in ["wal", "delete"] {
        let project = Project::with(&[]);
        let mut writers: Vec<_> = (0..2)
            .map(|_| {
                let mut python = project.python(program);
                python.arg(mode);
                let mut writer = support::Running::start(python);
                assert_eq!(writer.hear(), "ready", "{mode}");
                writer
            })
            .collect();
        writers.iter_mut().for_each(|writer| writer.say("go"));
        writers
            .iter_mut()
            .for_each(|writer| assert_eq!(writer.hear(), "done", "{mode}"));
        for mut writer in writers {
            writer.say("count");
            assert_eq!(writer.hear(), "100 ok", "{mode}");
            assert!(writer.finish().success());
        }
        assert_eq!(project.status()["counts"]["publishes"], 0);
    }
}

/// A rule for a whole tree matches its directories' names too; whoever walks through them does not ask us each time.
#[test]
fn directories_that_a_rule_matches_are_looked_up_once() {
    let rule = "[[rule]]\npaths = [\"**\"]\n";
    let deep = "d/".repeat(50);
    let mut project = Project::unmounted(&[("concord.toml", rule), (&format!("{deep}STATE.md"), "deep\n")]);
    let daemon = project.mount();
    let requests = || -> u64 {
        let io = std::fs::read_to_string(format!("/proc/{daemon}/io")).unwrap();
        let reads = io.lines().find_map(|line| line.strip_prefix("syscr: "));
        reads.unwrap().parse().unwrap()
    };
    let file = project.path(&format!("{deep}STATE.md"));
    assert_eq!(std::fs::read(&file).unwrap(), b"deep\n");
    let before = requests();
    for _ in 0..100 {
        std::fs::metadata(&file).unwrap();
    }
    let asked = requests() - before;
    assert!(asked < 50 * 100 / 2, "{asked} requests");
    // They are moved, removed and replaced as ever.
    let sh = |script: &str| succeed(project.sh(script));
    assert_eq!(sh("mv d/d e; ls d e"), "d:\n\ne:\nd\n");
    assert_eq!(sh("rmdir d; echo file > d; cat d; rm d; mkdir d; ls d"), "file\n");
    assert_eq!(sh("mv -T e d; ls d; echo file > e; cat e"), "d\nfile\n");
    assert_eq!(
        std::fs::read(project.path(&format!("{}STATE.md", "d/".repeat(49)))).unwrap(),
        b"deep\n"
    );
}

#[test]
fn a_configuration_that_nobody_will_read_is_said_to_be_that() {
    watchdog();
    let project = Project::with(&[("d/a.md", "v1\n")]);
    for (dir, is_read) in [("d", false), ("", true)] {
        let mut init = concord(&["init"]);
        init.arg(project.path(dir));
        assert_eq!(!succeed(init).contains("nobody reads it"), is_read, "{dir:?}");
    }
}
