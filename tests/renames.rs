//! H3 and W8: a file's history follows it to its new name, also when a directory above it is renamed.

mod support;

use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use support::puppet::Puppet;
use support::{Project, concord, eventually, run, succeed, text, watchdog};

fn project(files: &[(&str, &str)]) -> Project {
    watchdog();
    Project::with(files)
}

/// Version numbers, newest first, without the points where the file was gone.
fn numbers(history: &[Value]) -> Vec<u64> {
    let there = history.iter().filter(|version| version["how"] != "unlink");
    there.map(|version| version["version"].as_u64().unwrap()).collect()
}

/// What each version holds, oldest first.
fn contents(project: &Project, name: &str) -> Vec<String> {
    let numbers = numbers(&project.history(name));
    numbers.iter().rev().map(|n| text(&project.show(name, *n))).collect()
}

fn write(project: &Project, name: &str, content: &str) {
    std::fs::write(project.path(name), content).unwrap();
}

fn rename(project: &Project, from: &str, to: &str) {
    std::fs::rename(project.path(from), project.path(to)).unwrap();
}

fn restore(project: &Project, name: &str, version: u64) {
    let wanted = format!("{}@{version}", project.path(name).display());
    succeed(concord(&["restore", &wanted]));
}

#[test]
fn h3_a_files_history_follows_it_to_a_free_name() {
    let mut project = project(&[("a.md", "one")]);
    write(&project, "a.md", "two");
    write(&project, "a.md", "three");
    rename(&project, "a.md", "b.md");
    assert_eq!(numbers(&project.history("b.md")), [4, 3, 2, 1]);
    write(&project, "b.md", "four");
    assert_eq!(contents(&project, "b.md"), ["one", "two", "three", "three", "four"]);
    let history = project.history("b.md");
    assert_eq!(history[1]["how"], "rename");
    assert_eq!(
        history[1]["came_from"],
        serde_json::json!({"name": "a.md", "version": 3})
    );
    assert_eq!(
        (&history[1]["name"], &history[2]["name"]),
        (&Value::Null, &"a.md".into())
    );
    let listed = succeed({
        let mut command = concord(&["history"]);
        command.arg(project.path("b.md"));
        command
    });
    assert!(listed.contains("was a.md@3") && listed.contains("as a.md"), "{listed}");
    let diff = run(concord(&[
        "diff",
        &format!("{}@1", project.path("b.md").display()),
        &format!("{}@5", project.path("b.md").display()),
    ]));
    assert!(text(&diff.stdout).contains("+four"), "{}", text(&diff.stdout));
    restore(&project, "b.md", 1);
    assert_eq!(project.read("b.md"), "one");
    let mounted = project.history("b.md");
    project.unmount();
    assert_eq!(project.history("b.md"), mounted, "the same when nothing is mounted");
    project.mount();
    assert_eq!(project.history("b.md"), mounted, "and after the next mount");
}

#[test]
fn h3_the_name_that_a_file_left_keeps_its_versions_and_a_new_file_there_goes_on_from_them() {
    let project = project(&[("a.md", "one")]);
    write(&project, "a.md", "two");
    rename(&project, "a.md", "b.md");
    let left = &project.history("a.md")[0];
    assert_eq!((&left["how"], &left["moved_to"]), (&"unlink".into(), &"b.md".into()));
    // A saver that keeps the former file as a backup, and deletes that in the end.
    write(&project, "a.md", "three");
    std::fs::remove_file(project.path("b.md")).unwrap();
    assert_eq!(contents(&project, "a.md"), ["one", "two", "three"]);
    restore(&project, "a.md", 2);
    assert_eq!(project.read("a.md"), "two");
    restore(&project, "b.md", 1);
    assert_eq!(
        project.read("b.md"),
        "one",
        "a deleted file is restored by the name it had last"
    );
    // The file that is at the old name now is another.
    let of_b = contents(&project, "b.md");
    assert!(!of_b.contains(&"three".into()), "{of_b:?}");
}

#[test]
fn h3_a_name_that_another_file_had_before_lists_the_versions_of_both() {
    let project = project(&[("a.md", "a1"), ("b.md", "b1")]);
    write(&project, "b.md", "b2");
    std::fs::remove_file(project.path("b.md")).unwrap();
    for content in ["a2", "a3", "a4"] {
        write(&project, "a.md", content);
    }
    rename(&project, "a.md", "b.md");
    write(&project, "b.md", "a5");
    assert_eq!(
        contents(&project, "b.md"),
        ["b1", "b2", "a1", "a2", "a3", "a4", "a4", "a5"]
    );
    let numbers = numbers(&project.history("b.md"));
    assert_eq!(numbers, [9, 8, 7, 6, 5, 4, 2, 1], "3 is when b.md was removed");
    restore(&project, "b.md", 5);
    assert_eq!(project.read("b.md"), "a2");
    restore(&project, "b.md", 2);
    assert_eq!(project.read("b.md"), "b2");
    // And on to a third name.
    rename(&project, "b.md", "c.md");
    assert_eq!(
        contents(&project, "c.md"),
        ["a1", "a2", "a3", "a4", "a4", "a5", "a2", "b2", "b2"]
    );
}

#[test]
fn h3_numbers_do_not_run_away_when_files_change_places_for_ever() {
    let project = project(&[("a.md", "a"), ("b.md", "b")]);
    write(&project, "a.md", "a1");
    std::fs::remove_file(project.path("b.md")).unwrap();
    for _ in 0..60 {
        for (from, to) in [("a.md", "b.md"), ("b.md", "a.md")] {
            rename(&project, from, to);
            write(&project, from, "another");
            std::fs::remove_file(project.path(from)).unwrap();
        }
    }
    let history = project.history("a.md");
    assert!(history[0]["version"].as_u64().unwrap() < 1 << 54, "{}", history[0]);
    write(&project, "a.md", "and on");
    assert_eq!(project.read("a.md"), "and on");
    assert_eq!(contents(&project, "a.md").last().unwrap(), "and on");
}

#[test]
fn h3_a_file_that_comes_back_brings_along_what_it_was_meanwhile() {
    let project = project(&[("a.md", "one")]);
    write(&project, "a.md", "two");
    rename(&project, "a.md", "b.md");
    write(&project, "b.md", "three");
    rename(&project, "b.md", "a.md");
    write(&project, "a.md", "four");
    let found = contents(&project, "a.md");
    for content in ["one", "two", "three", "four"] {
        assert!(found.contains(&content.to_owned()), "{found:?}");
    }
    assert_eq!(found.last().unwrap(), "four");
}

#[test]
fn w8_a_saver_with_a_coordinated_temporary_name_makes_versions_of_the_file_and_of_nothing_else() {
    let project = project(&[("STATE.md", "0")]);
    for round in 1..=6 {
        write(&project, "STATE.tmp.md", &round.to_string());
        rename(&project, "STATE.tmp.md", "STATE.md");
    }
    assert_eq!(contents(&project, "STATE.md"), ["0", "1", "2", "3", "4", "5", "6"]);
    assert_eq!(numbers(&project.history("STATE.md")), [7, 6, 5, 4, 3, 2, 1]);
    let history = project.history("STATE.md");
    assert!(history[..6].iter().all(|v| v["how"] == "rename"), "{history:?}");
    assert_eq!(history[0]["came_from"]["name"], "STATE.tmp.md");
    // The same where the saver removes the file first: versions of the temporary name's last life only.
    for round in 7..=9 {
        write(&project, "STATE.tmp.md", &round.to_string());
        std::fs::remove_file(project.path("STATE.md")).unwrap();
        rename(&project, "STATE.tmp.md", "STATE.md");
    }
    let mut found = contents(&project, "STATE.md");
    found.dedup();
    assert_eq!(found, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
}

#[test]
fn w8_what_a_rename_replaced_stays_in_the_targets_history_and_the_source_keeps_its_own() {
    let project = project(&[("a.md", "a1"), ("b.md", "b1")]);
    write(&project, "a.md", "a2");
    write(&project, "b.md", "b2");
    rename(&project, "a.md", "b.md");
    assert_eq!(contents(&project, "b.md"), ["b1", "b2", "a2"]);
    assert_eq!(contents(&project, "a.md"), ["a1", "a2"]);
    restore(&project, "b.md", 2);
    assert_eq!(project.read("b.md"), "b2");
}

#[test]
fn w8_an_exchange_is_a_version_of_each_name() {
    let project = project(&[("a.md", "a1"), ("b.md", "b1")]);
    let mut puppet = Puppet::new(&project);
    write(&project, "a.md", "a2");
    assert_eq!(puppet.does("exchange('a.md', 'b.md')"), "None");
    write(&project, "a.md", "a3");
    assert_eq!(contents(&project, "a.md"), ["a1", "a2", "b1", "a3"]);
    assert_eq!(contents(&project, "b.md"), ["b1", "a2"]);
}

#[test]
fn h3_histories_follow_a_renamed_directory() {
    let mut project = project(&[("docs/a.md", "one"), ("docs/deep/b.md", "b1"), ("docs/c.md", "c1")]);
    write(&project, "docs/a.md", "two");
    write(&project, "docs/deep/b.md", "b2");
    let inode = std::fs::metadata(project.path("docs/a.md")).unwrap().ino();
    rename(&project, "docs", "notes");
    assert_eq!(std::fs::metadata(project.path("notes/a.md")).unwrap().ino(), inode);
    assert_eq!(
        numbers(&project.history("notes/a.md")),
        [2, 1],
        "a directory's rename is no version"
    );
    assert_eq!(contents(&project, "notes/a.md"), ["one", "two"]);
    assert_eq!(contents(&project, "notes/c.md"), ["c1"]);
    // What was never replaced before, what was, and what is in a directory below that is renamed by itself.
    write(&project, "notes/a.md", "three");
    rename(&project, "notes/deep", "notes/deeper");
    rename(&project, "notes", "texts");
    write(&project, "texts/deeper/b.md", "b3");
    assert_eq!(contents(&project, "texts/a.md"), ["one", "two", "three"]);
    assert_eq!(contents(&project, "texts/deeper/b.md"), ["b1", "b2", "b3"]);
    let newest = &project.history("texts/deeper/b.md")[0];
    assert_eq!((&newest["version"], &newest["replaced"]), (&3.into(), &2.into()));
    assert_eq!((&newest["stale"], &newest["name"]), (&false.into(), &Value::Null));
    restore(&project, "texts/a.md", 1);
    assert_eq!(project.read("texts/a.md"), "one");
    let mounted = project.history("texts/a.md");
    project.unmount();
    assert_eq!(project.history("texts/a.md"), mounted);
    project.mount();
    write(&project, "texts/a.md", "five");
    assert_eq!(contents(&project, "texts/a.md"), ["one", "two", "three", "one", "five"]);
}

#[test]
fn h3_a_file_that_was_deleted_before_its_directory_was_renamed_is_found_by_both_paths() {
    let project = project(&[("docs/a.md", "one"), ("docs/b.md", "b")]);
    write(&project, "docs/a.md", "two");
    std::fs::remove_file(project.path("docs/a.md")).unwrap();
    rename(&project, "docs", "notes");
    assert_eq!(contents(&project, "docs/a.md"), ["one", "two"]);
    assert_eq!(contents(&project, "notes/a.md"), ["one", "two"]);
    restore(&project, "notes/a.md", 1);
    assert_eq!(project.read("notes/a.md"), "one");
    assert_eq!(contents(&project, "docs/a.md"), ["one", "two"]);
}

#[test]
fn h3_a_new_directory_of_an_old_name_has_nothing_to_do_with_the_renamed_one() {
    let mut project = project(&[("docs/a.md", "one")]);
    write(&project, "docs/a.md", "two");
    rename(&project, "docs", "notes");
    // The next daemon reads the histories anew, that of the old path before that of the new one.
    project.unmount();
    project.mount();
    std::fs::create_dir(project.path("docs")).unwrap();
    write(&project, "docs/a.md", "another");
    write(&project, "docs/a.md", "another, again");
    write(&project, "notes/a.md", "three");
    assert_eq!(contents(&project, "notes/a.md"), ["one", "two", "three"]);
    assert_eq!(contents(&project, "docs/a.md"), ["one", "another", "another, again"]);
    // And a new one of the new name.
    std::fs::rename(project.path("notes"), project.path("gone")).unwrap();
    std::fs::create_dir(project.path("notes")).unwrap();
    write(&project, "notes/new.md", "new");
    write(&project, "notes/new.md", "newer");
    assert_eq!(contents(&project, "notes/new.md"), ["new", "newer"]);
}

/// Saves numbered upwards, as the history of a file that nobody else has written to lists them: each once, in their order, based on the one before.
fn assert_one_line(project: &Project, name: &str, saves: &[String]) {
    let history = project.history(name);
    assert_eq!(contents(project, name), saves, "{history:?}");
    let count = saves.len() as u64;
    assert_eq!(numbers(&history), (1..=count).rev().collect::<Vec<_>>());
    let times: Vec<_> = history.iter().rev().map(|version| version["time"].as_str()).collect();
    assert!(times.is_sorted(), "{times:?}");
    for version in &history {
        let before = version["version"].as_u64().unwrap() - 1;
        let before = (before > 0).then_some(before);
        assert_eq!(
            (version["based_on"].as_u64(), &version["stale"]),
            (before, &false.into()),
            "{version}"
        );
    }
}

#[test]
fn h2_h3_saves_at_the_places_of_a_directory_that_is_renamed_forth_and_back_are_each_listed_once() {
    let mut project = project(&[("x/other.txt", "keeps the directory")]);
    let mut saves = Vec::new();
    for round in 0..7 {
        for (at, to) in [("x", "y"), ("y", "x")] {
            let save = format!("{round} in {at}");
            write(&project, &format!("{at}/f.json"), &save);
            saves.push(save);
            rename(&project, at, to);
            assert_one_line(&project, &format!("{to}/f.json"), &saves);
        }
    }
    project.unmount();
    assert_one_line(&project, "x/f.json", &saves);
    project.mount();
    restore(&project, "x/f.json", 3);
    assert_eq!(project.read("x/f.json"), saves[2]);
}

#[test]
fn h2_a_session_that_is_open_while_its_directory_is_renamed_is_based_on_what_it_replaces() {
    let project = project(&[("x/other.txt", "keeps the directory")]);
    let mut writer = Puppet::new(&project);
    write(&project, "x/f.json", "first");
    let mut saves = vec!["first".to_owned()];
    for round in 0..5 {
        let (at, to) = if round % 2 == 0 { ("x", "y") } else { ("y", "x") };
        let save = format!("across {round}");
        writer.does(&format!("f = open('{at}/f.json', 'w')"));
        writer.does(&format!("(f.write('{save}'), f.flush())"));
        rename(&project, at, to);
        assert_eq!(writer.does("f.close()"), "None");
        saves.push(save);
        assert_one_line(&project, &format!("{to}/f.json"), &saves);
    }
    assert_eq!(project.status()["counts"]["stale"], 0);
}

#[test]
fn h2_what_is_written_late_to_a_file_that_was_renamed_is_based_on_the_version_that_it_had_then() {
    let project = project(&[("a.md", "one")]);
    let mut writer = Puppet::new(&project);
    writer.does("f = open('a.md', 'w')");
    writer.does("(f.write('two'), f.flush())");
    assert_eq!(writer.does("os.rename('a.md', 'b.md')"), "None");
    assert_eq!(writer.does("(f.write(' and more'), f.close())"), "(9, None)");
    eventually("the late version", || project.read("b.md") == "two and more");
    let late = &project.history("b.md")[0];
    assert_eq!(
        (&late["how"], &late["stale"]),
        (&"late".into(), &false.into()),
        "{late}"
    );
    assert_eq!(late["based_on"], late["replaced"]);
}

/// A save in place is another matter: that is the same file.
#[test]
fn w8_what_is_written_late_goes_with_a_file_that_was_replaced_or_removed_meanwhile() {
    let project = project(&[("a.md", "old")]);
    let (mut writer, mut other) = (Puppet::new(&project), Puppet::new(&project));
    other.does("gone = lambda: (os.unlink('a.md'), put('a.md', 'others'))");
    other.does("replaced = lambda: (put('t.md', 'others'), os.rename('t.md', 'a.md'))");
    other.does(
        "linked = lambda: (put('t.md', 'others'), os.unlink('a.md'), os.link('t.md', 'a.md'), os.unlink('t.md'))",
    );
    for (way, is_lost) in [
        ("gone()", true),
        ("replaced()", true),
        ("linked()", true),
        ("put('a.md', 'others')", false),
    ] {
        writer.does("f = open('new.json', 'w')");
        writer.does("(f.write('mine'), f.flush(), os.rename('new.json', 'a.md'))");
        other.does(way);
        assert_eq!(project.read("a.md"), "others", "{way}");
        writer.does("(f.write(' and more'), f.close())");
        project.await_sessions(0, 0);
        let expected = if is_lost { "others" } else { "mine and more" };
        eventually("the late write", || project.read("a.md") == expected);
    }
}

#[test]
fn h3_histories_follow_two_directories_that_are_exchanged() {
    let project = project(&[("x/a.md", "x1"), ("y/a.md", "y1")]);
    let mut puppet = Puppet::new(&project);
    write(&project, "x/a.md", "x2");
    write(&project, "y/a.md", "y2");
    write(&project, "y/a.md", "y3");
    assert_eq!(puppet.does("exchange('x', 'y')"), "None");
    assert_eq!(project.read("x/a.md"), "y3");
    write(&project, "x/a.md", "y4");
    write(&project, "y/a.md", "x3");
    let (x, y) = (contents(&project, "x/a.md"), contents(&project, "y/a.md"));
    assert!(x.ends_with(&["y3".into(), "y4".into()]), "{x:?}");
    assert!(y.ends_with(&["x2".into(), "x3".into()]), "{y:?}");
    for name in ["x/a.md", "y/a.md"] {
        let history = project.history(name);
        assert_eq!(
            (&history[1]["how"], &history[0]["stale"]),
            (&"close".into(), &false.into()),
            "{history:?}"
        );
    }
}

#[test]
fn h3_a_directory_is_renamed_in_the_same_time_however_many_files_are_below_it() {
    let project = project(&[("few/a.md", "1")]);
    write(&project, "few/a.md", "2");
    std::fs::create_dir(project.path("many")).unwrap();
    for number in 0..300 {
        write(&project, &format!("many/{number}.md"), "1");
    }
    // The first of all reads which files have histories.
    rename(&project, "few", "some");
    let moves = || {
        std::fs::read_to_string(project.path(".concord/moves"))
            .unwrap()
            .lines()
            .count()
    };
    let before = moves();
    let histories = || {
        let fans = std::fs::read_dir(project.path(".concord/history")).unwrap();
        fans.map(|fan| std::fs::read_dir(fan.unwrap().path()).unwrap().count())
            .sum::<usize>()
    };
    let known = histories();
    rename(&project, "many", "all");
    assert_eq!(
        (moves(), histories()),
        (before + 1, known),
        "one line, and nothing else is written"
    );
    assert_eq!(numbers(&project.history("all/7.md")), [1]);
    write(&project, "all/7.md", "2");
    assert_eq!(contents(&project, "all/7.md"), ["1", "2"]);
}

#[test]
fn w8_sessions_and_appenders_go_on_when_a_directory_above_them_is_renamed() {
    let mut project = project(&[("d/STATE.md", "v1"), ("d/log.md", "first\n"), ("d/r.md", "r1")]);
    let (mut writer, mut appender, mut reader) = (Puppet::new(&project), Puppet::new(&project), Puppet::new(&project));
    writer.does("f = open('d/STATE.md', 'w')");
    writer.does("(f.write('v2'), f.flush())");
    writer.does("n = open('d/new.md', 'w')");
    writer.does("(n.write('new'), n.flush())");
    assert_eq!(appender.does("a = open('d/log.md', 'a', buffering=1)"), "ok");
    assert_eq!(appender.does("a.write('second\\n')"), "7");
    assert_eq!(reader.does("r = open('d/STATE.md')"), "ok");
    assert_eq!(reader.does("r.read(1)"), "v");
    rename(&project, "d", "e");
    assert_eq!(appender.does("a.write('third\\n')"), "6");
    assert_eq!(project.read("e/log.md"), "first\nsecond\nthird\n");
    assert_eq!(project.read("e/STATE.md"), "v1");
    assert_eq!(reader.does("r.read()"), "1");
    assert_eq!(writer.does("f.close(), n.close()"), "(None, None)");
    assert_eq!(project.read("e/STATE.md"), "v2");
    assert_eq!(project.read("e/new.md"), "new");
    assert_eq!(appender.does("a.close()"), "None");
    assert_eq!(contents(&project, "e/STATE.md"), ["v1", "v2"]);
    assert_eq!(contents(&project, "e/new.md"), ["new"]);
    assert_eq!(
        contents(&project, "e/log.md"),
        ["first\n", "first\nsecond\n", "first\nsecond\nthird\n"]
    );
    let status = project.status();
    assert_eq!(
        (&status["counts"]["stale"], &status["counts"]["late"]),
        (&0.into(), &0.into()),
        "{status}"
    );
    // The daemon is killed while lines are appended below a directory that was renamed.
    assert_eq!(appender.does("a = open('e/log.md', 'a')"), "ok");
    assert_eq!(appender.does("(a.write('fourth\\nfif'), a.flush())"), "(10, None)");
    rename(&project, "e", "f");
    assert_eq!(appender.does("(a.write('th\\nsix'), a.flush())"), "(6, None)");
    project.crash_and_recover();
    assert_eq!(project.read("f/log.md"), "first\nsecond\nthird\nfourth\nfifth\n");
    project.mount();
    assert_eq!(
        contents(&project, "f/log.md").last().unwrap(),
        "first\nsecond\nthird\nfourth\nfifth\n"
    );
}

#[test]
fn h3_a_files_history_follows_it_while_its_session_is_open() {
    let project = project(&[("a.md", "one")]);
    let mut writer = Puppet::new(&project);
    write(&project, "a.md", "two");
    writer.does("f = open('a.md', 'w')");
    writer.does("(f.write('three'), f.flush())");
    assert_eq!(writer.does("os.rename('a.md', 'b.md')"), "None");
    assert_eq!(writer.does("(f.write(' and more'), f.close())"), "(9, None)");
    eventually("the late version", || project.read("b.md") == "three and more");
    let found = contents(&project, "b.md");
    assert_eq!(found, ["one", "two", "three", "three", "three and more"]);
    assert_eq!(project.history("a.md")[0]["moved_to"], "b.md");
}

#[test]
fn h3_a_rename_of_a_directory_that_fails_leaves_histories_where_they_are() {
    let project = project(&[("d/a.md", "one"), ("full/a.md", "other")]);
    write(&project, "d/a.md", "two");
    write(&project, "full/a.md", "other two");
    let mut puppet = Puppet::new(&project);
    assert_eq!(puppet.does("os.rename('d', 'full')"), "ENOTEMPTY");
    assert_eq!(puppet.does("os.rename('d', 'd/below')"), "EINVAL");
    assert_eq!(contents(&project, "d/a.md"), ["one", "two"]);
    assert_eq!(contents(&project, "full/a.md"), ["other", "other two"]);
    std::fs::remove_file(project.path("full/a.md")).unwrap();
    write(&project, "full/a.md", "new");
    assert_eq!(contents(&project, "full/a.md"), ["other", "other two", "new"]);
    write(&project, "d/b.md", "b1");
    for name in ["d/a.md", "d/b.md"] {
        std::fs::remove_file(project.path(name)).unwrap();
    }
    assert_eq!(numbers(&project.history("full/b.md")), Vec::<u64>::new());
    assert_eq!(numbers(&project.history("d/below/a.md")), Vec::<u64>::new());
}
