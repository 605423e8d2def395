//! What is kept of the histories, and for how long (H1): by number, bytes and age, of files that are there and of such as are gone. Against a real mount.

mod support;

use support::{Project, concord, eventually, numbers, refused, run, succeed, text, watchdog};

#[test]
fn h1_the_newest_versions_are_kept_as_many_as_the_rule_says() {
    watchdog();
    let project = Project::with(&[
        ("concord.toml", "[[rule]]\npaths = [\"*.md\"]\nkeep = 3\n"),
        ("STATE.md", "v1\n"),
    ]);
    for n in 2..=9 {
        project.save("STATE.md", &format!("v{n}\n"));
    }
    eventually("the current one and three before it are left", || {
        numbers(&project.history("STATE.md")) == [9, 8, 7, 6]
    });
    assert_eq!(project.show("STATE.md", 6), b"v6\n");
    let mut show = concord(&["show", "STATE.md@5"]);
    show.current_dir(project.root());
    let gone = run(show);
    assert!(refused(&gone).contains("STATE.md"), "{}", text(&gone.stderr));
    assert!(gone.stdout.is_empty());
}

#[test]
fn h1_versions_are_kept_within_the_bytes_that_the_rule_allows() {
    watchdog();
    let project = Project::with(&[
        (
            "concord.toml",
            "[[rule]]\npaths = [\"*.md\"]\nkeep = 100\nmax_bytes = \"10KiB\"\n",
        ),
        ("STATE.md", "v1\n"),
    ]);
    for n in 2..=9 {
        project.save("STATE.md", &format!("{n}").repeat(4096));
    }
    eventually("two old versions of 4 KiB fit into 10 KiB", || {
        numbers(&project.history("STATE.md")) == [9, 8, 7]
    });
    assert_eq!(project.show("STATE.md", 7), "7".repeat(4096).as_bytes());
    project.save("STATE.md", &"x".repeat(50_000));
    project.save("STATE.md", "11\n");
    eventually("what is too large by itself takes nothing else along", || {
        numbers(&project.history("STATE.md")) == [11, 9, 8]
    });
    assert_eq!(project.show("STATE.md", 8), "8".repeat(4096).as_bytes());
}

#[test]
fn h1_versions_older_than_the_rule_allows_go_at_the_next_publish() {
    watchdog();
    let project = Project::with(&[
        (
            "concord.toml",
            "[[rule]]\npaths = [\"*.md\"]\nkeep = 100\nmax_age = \"1s\"\n",
        ),
        ("STATE.md", "v1\n"),
    ]);
    project.save("STATE.md", "v2\n");
    project.save("STATE.md", "v3\n");
    std::thread::sleep(std::time::Duration::from_millis(1300));
    project.save("STATE.md", "v4\n");
    eventually("the old ones are gone", || {
        let left = numbers(&project.history("STATE.md"));
        left.first() == Some(&4) && !left.contains(&1) && !left.contains(&2)
    });
}

/// Files and directories below `.concord/history`, but for the directories that all files share.
fn pieces(project: &Project) -> usize {
    let shared = |path: &str| path.len() <= "./ab".len();
    // Some may be going just now.
    let all = succeed(project.sh("cd .concord/history && find . 2>/dev/null || true"));
    all.lines().filter(|path| !shared(path)).count()
}

const SHORT: &str = "[[rule]]\npaths = [\"*.json\"]\nkeep = 100\nmax_age = \"1s\"\n";

#[test]
fn h1_the_histories_of_deleted_files_go_when_they_are_as_old_as_the_rule_allows() {
    watchdog();
    let mut project = Project::with(&[("concord.toml", SHORT)]);
    for n in 0..20 {
        let name = format!("t{n}.json");
        project.save(&name, "session");
        std::fs::remove_file(project.path(&name)).unwrap();
    }
    project.save("stays.json", "one");
    project.save("stays.json", "two");
    assert!(pieces(&project) > 20 * 4);
    std::thread::sleep(std::time::Duration::from_millis(1300));
    project.unmount();
    project.mount();
    // Directory, path, and the record of the version that is current.
    eventually("nothing of the deleted files is left", || pieces(&project) == 3);
    assert_eq!(project.read("stays.json"), "two");
    assert_eq!(numbers(&project.history("stays.json")), [2]);
    project.save("t3.json", "anew");
    assert_eq!(project.history("t3.json")[0]["current"], true);
}

#[test]
fn h1_the_histories_of_files_whose_directory_was_renamed_before_they_were_deleted_go_too() {
    watchdog();
    let mut project = Project::with(&[("concord.toml", SHORT)]);
    for round in 0..3 {
        let (first, second) = (project.path(&format!("tmp{round}")), project.path("out"));
        std::fs::create_dir(&first).unwrap();
        for n in 0..5 {
            project.save(&format!("tmp{round}/f{n}.json"), "session");
        }
        std::fs::rename(&first, &second).unwrap();
        for n in 0..5 {
            std::fs::remove_file(second.join(format!("f{n}.json"))).unwrap();
        }
        std::fs::remove_dir(&second).unwrap();
    }
    std::fs::create_dir(project.path("from")).unwrap();
    project.save("from/stays.json", "one");
    std::fs::rename(project.path("from"), project.path("to")).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1300));
    project.unmount();
    project.mount();
    // Directory, path, and the record of the version that is current.
    eventually("nothing of the deleted files is left", || pieces(&project) == 3);
    assert_eq!(project.history("to/stays.json")[0]["how"], "close");
    project.save("to/stays.json", "two");
    assert_eq!(numbers(&project.history("to/stays.json")), [2, 1]);
}

#[test]
fn h1_a_change_of_the_rules_and_a_recovery_prune_all_files() {
    watchdog();
    let mut project = Project::with(&[("concord.toml", "keep = 5\n")]);
    for n in 1..=4 {
        for name in ["a.md", "b.md", "c.md"] {
            project.save(name, &format!("v{n}"));
        }
    }
    std::fs::remove_file(project.path("c.md")).unwrap();
    project.save("concord.toml", "keep = 2\n");
    eventually("two old versions are left of each", || {
        ["a.md", "b.md"].map(|name| numbers(&project.history(name))) == [[4, 3, 2], [4, 3, 2]]
            && numbers(&project.history("c.md")) == [5, 4, 3]
    });
    project.unmount();
    succeed(project.sh("printf 'keep = 1\\n' > concord.toml"));
    succeed(concord(&["recover", project.root().to_str().unwrap()]));
    assert_eq!(numbers(&project.history("a.md")), [4, 3]);
    assert_eq!(numbers(&project.history("c.md")), [5, 4]);
    succeed(project.sh("printf 'kepe = 0\\n' > concord.toml"));
    let said = succeed(concord(&["recover", project.root().to_str().unwrap()]));
    assert!(said.contains("no old versions were removed: "), "{said}");
    assert_eq!(numbers(&project.history("a.md")), [4, 3]);
}

#[test]
fn h3_a_file_keeps_the_versions_of_its_former_name_although_that_was_left_long_ago() {
    watchdog();
    let rules = "[[rule]]\npaths = [\"old.md\"]\nmax_age = \"1s\"\n";
    let mut project = Project::with(&[("concord.toml", rules)]);
    project.save("old.md", "v1");
    project.save("old.md", "v2");
    std::fs::rename(project.path("old.md"), project.path("new.md")).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1300));
    project.unmount();
    project.mount();
    eventually("the old name's versions are gone", || {
        project.history("new.md").len() == 1
    });
    // Its numbers are not used for another file's versions, which would be taken for the first one's.
    project.save("old.md", "another");
    assert_eq!(numbers(&project.history("new.md")), [3]);
    assert_eq!(numbers(&project.history("old.md"))[0], 4);
}
