//! The rules change, or a directory moves to where others hold, while files are in use: each stays coordinated or ordinary until nobody has it open.

mod support;

use support::puppet::Puppet;
use support::{Project, eventually, succeed, watchdog};

const RULES: &str = "[[rule]]\npaths = [\"*.txt\"]\n";
const NO_RULES: &str = "";

fn project(rules: &str) -> Project {
    watchdog();
    let project = Project::with(&[("concord.toml", rules), ("f.txt", "base\n")]);
    succeed(project.sh("mkdir -p in target"));
    project
}

fn set(project: &Project, rules: &str) {
    std::fs::write(project.path("concord.toml"), rules).unwrap();
    let is_in_force = || is_coordinated(project, "unused.txt") != rules.is_empty();
    eventually("the rules are in force", is_in_force);
}

fn is_coordinated(project: &Project, name: &str) -> bool {
    let publishes = || project.status()["counts"]["publishes"].as_u64().unwrap();
    let before = publishes();
    succeed(project.sh(&format!("echo {before} > {name}")));
    publishes() > before
}

#[test]
fn w6_what_is_being_created_is_saved_where_its_directory_went() {
    for moved in ["os.rename('in', 'target/in')", "exchange('in', 'target')"] {
        let project = project(NO_RULES);
        let (mut creator, mut other) = (Puppet::new(&project), Puppet::new(&project));
        assert_eq!(creator.does("file = open('in/new.md', 'w')"), "ok");
        assert_eq!(creator.does("file.write('saved')"), "5");
        assert_eq!(other.does(moved), "None", "{moved}");
        assert_eq!(creator.does("file.close()"), "None");
        let to = if moved.starts_with("os") {
            "target/in/new.md"
        } else {
            "target/new.md"
        };
        assert_eq!(project.read(to), "saved", "{moved}");
    }
}

#[test]
fn w6_what_is_being_written_is_saved_when_no_rule_holds_any_more() {
    let project = project(RULES);
    let mut writer = Puppet::new(&project);
    assert_eq!(writer.does("file = open('f.txt', 'w')"), "ok");
    assert_eq!(writer.does("file.write('saved')"), "5");
    set(&project, NO_RULES);
    let mut other = Puppet::new(&project);
    other.starts("os.rename('f.txt', 'g.txt')");
    let waits = || project.status()["counts"]["waits"].as_u64().unwrap();
    eventually("the rename waits", || waits() > 0);
    assert_eq!(writer.does("file.close()"), "None");
    assert_eq!(other.says(), "None");
    assert_eq!(project.read("g.txt"), "saved");
    eventually("the name is ordinary", || !is_coordinated(&project, "f.txt"));
}

#[test]
fn w10_lines_of_who_appends_go_on_in_the_file_that_a_rule_takes_in() {
    let project = project(NO_RULES);
    let (mut appender, mut other) = (Puppet::new(&project), Puppet::new(&project));
    assert_eq!(appender.does("log = open('f.txt', 'a', buffering=1)"), "ok");
    set(&project, RULES);
    assert_eq!(other.does("put('f.txt', 'saved\\n')"), "None");
    assert_eq!(appender.does("log.write('line\\n')"), "5");
    assert_eq!(project.read("f.txt"), "saved\nline\n");
    let pending = || project.status()["rules_pending"].clone();
    assert_eq!(pending(), serde_json::json!([{"file": "f.txt", "coordinated": false}]));
    assert_eq!(appender.does("log.close()"), "None");
    eventually("the rules hold for all", || pending() == serde_json::json!([]));
    eventually("the rule holds", || is_coordinated(&project, "f.txt"));
}

#[test]
fn w10_lines_beside_who_appends_since_a_rule_went_are_seen_at_once() {
    let project = project(RULES);
    let mut appender = Puppet::new(&project);
    assert_eq!(appender.does("log = open('f.txt', 'a', buffering=1)"), "ok");
    assert_eq!(appender.does("log.write('line\\n')"), "5");
    set(&project, NO_RULES);
    succeed(project.sh("echo other >> f.txt"));
    assert_eq!(project.read("f.txt"), "base\nline\nother\n");
    assert_eq!(appender.does("log.write('last\\n')"), "5");
    assert_eq!(project.read("f.txt"), "base\nline\nother\nlast\n");
}

#[test]
fn w12_a_lock_is_one_process_s_whatever_the_rules_become() {
    for (before, after) in [(RULES, NO_RULES), (NO_RULES, RULES)] {
        let project = project(before);
        let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
        assert_eq!(
            holder.does("locked = open('f.txt'); fcntl.flock(locked, fcntl.LOCK_EX)"),
            "ok"
        );
        set(&project, after);
        let lock = "mine = open('f.txt'); fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)";
        assert_eq!(other.does(lock), "EAGAIN", "{before:?}");
        assert_eq!(holder.does("locked.close()"), "None");
        assert_eq!(other.does(lock), "ok", "{before:?}");
    }
}
