//! Five systems that real projects of agents were given after their first form had lost work: each as its report describes it, many processes at once,
//! on the mount. Locked, they count exactly. Unlocked, what they lose is in the history.
//!
//! `scripts/seeds.sh 100` runs them with a hundred processes.

mod support;

use std::collections::BTreeSet;
use std::process::Command;

use support::{Project, run, succeed, text, watchdog};

/// Processes of each system, unless the environment says otherwise.
const PROCESSES: usize = 10;
const TURNS: usize = 4;

fn processes() -> usize {
    let asked = std::env::var("CONCORD_SEEDS_PROCESSES").ok();
    asked.map_or(PROCESSES, |number| number.parse().unwrap())
}

fn project() -> Project {
    Project::with(&[("concord.toml", "wait = '60s'\ndurability = 'atomic'\nkeep = 100000\n")])
}

fn program(project: &Project, system: &str, form: &str) -> Command {
    let mut command = Command::new("python3");
    let file = format!("{}/tests/seeds/{system}.py", env!("CARGO_MANIFEST_DIR"));
    let numbers = [processes().to_string(), TURNS.to_string()];
    command
        .args(["-B", &file, form])
        .args(numbers)
        .current_dir(project.root());
    command
}

/// Every process has done all it was to do, and none of it was lost; `expected` is what the file shows then.
fn locked(system: &str, expected: usize) {
    watchdog();
    let project = project();
    assert_eq!(
        succeed(program(&project, system, "locked")).trim(),
        expected.to_string()
    );
    assert_eq!(project.recovered(), [] as [serde_json::Value; 0]);
    let status = project.status();
    assert_eq!(status["sessions"], serde_json::json!([]));
    assert_eq!(status["counts"]["late"], 0, "{status}");
}

/// The programs see whole files only (they say so themselves). `parts` takes a version apart: every part that some process ever wrote is in a version, and each
/// version can be had back.
fn unlocked(system: &str, file: &str, expected: usize, parts: impl Fn(&str) -> BTreeSet<String>) {
    watchdog();
    let project = project();
    let output = run(program(&project, system, "unlocked"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut seen = BTreeSet::new();
    let history = project.history(file);
    // A removal is in the record too, and has no content.
    for version in history.iter().filter(|version| version["how"] != "unlink") {
        let content = project.show(file, version["version"].as_u64().unwrap());
        seen.append(&mut parts(&text(&content)));
    }
    assert_eq!(seen.len(), expected, "what was overwritten is in the record");
    let lost: usize = expected - text(&output.stdout).trim().parse::<usize>().unwrap();
    println!(
        "{system}: {lost} of {expected} changes were overwritten, in {} versions",
        history.len()
    );
    let oldest = history.last().unwrap()["version"].as_u64().unwrap();
    let mut restore = support::concord(&["restore"]);
    restore.arg(format!("{}@{oldest}", project.path(file).display()));
    succeed(restore);
    assert_eq!(project.read(file).as_bytes(), project.show(file, oldest));
}

fn lines(of: &str, begin: &str) -> BTreeSet<String> {
    of.lines()
        .filter(|line| line.starts_with(begin))
        .map(str::to_owned)
        .collect()
}

#[test]
fn w12_seed_state_manager_locked_counts_exactly() {
    locked("state_manager", processes() * TURNS);
}

#[test]
fn w12_seed_state_manager_unlocked_loses_nothing_from_the_record() {
    unlocked("state_manager", "STATE.md", processes() * TURNS, |text| {
        lines(text, "- [x]")
    });
}

#[test]
fn w12_seed_lock_manager_locked_counts_exactly() {
    locked("lock_manager", processes() * TURNS);
}

#[test]
fn w12_seed_lock_manager_unlocked_loses_nothing_from_the_record() {
    unlocked("lock_manager", "COORDINATION.md", processes() * TURNS, |text| {
        lines(text, "agent-")
    });
}

#[test]
fn w12_seed_lock_refresh_locked_never_shows_a_gap() {
    locked("lock_refresh", TURNS);
}

#[test]
fn w12_seed_lock_refresh_unlocked_keeps_every_refresh() {
    unlocked("lock_refresh", "lock.json", TURNS, |text| {
        let refreshed = serde_json::from_str::<serde_json::Value>(text).unwrap()["refreshed"].clone();
        if refreshed == 0 {
            BTreeSet::new()
        } else {
            BTreeSet::from([refreshed.to_string()])
        }
    });
}

#[test]
fn w12_seed_registry_locked_counts_exactly() {
    locked("registry", processes() * TURNS);
}

#[test]
fn w12_seed_registry_unlocked_loses_nothing_from_the_record() {
    unlocked("registry", "registry.json", processes() * TURNS, |text| {
        let registry: serde_json::Value = serde_json::from_str(text).unwrap();
        let agents = registry["agents"].as_object().unwrap();
        let done = agents.iter().filter(|(_, status)| *status == "terminated");
        done.map(|(name, _)| name.clone()).collect()
    });
}

#[test]
fn w12_seed_task_board_locked_counts_exactly() {
    locked("task_board", processes() * TURNS);
}

#[test]
fn w12_seed_task_board_unlocked_loses_nothing_from_the_record() {
    let board = "runtime/agent_comms/project_boards/working_tasks.json";
    unlocked("task_board", board, processes() * TURNS, |text| {
        let tasks: serde_json::Value = serde_json::from_str(text).unwrap();
        let tasks = tasks.as_array().unwrap().iter();
        tasks
            .flat_map(|task| {
                task["history"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|turn| format!("{}.{turn}", task["id"]))
            })
            .collect()
    });
}
