//! The systemd unit that docs/OPERATIONS.md shows: systemd itself reads it, and its lines are run as systemd would run them.

mod support;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use support::puppet::Puppet;
use support::{Project, Running, command_time_max, eventually, run, text, wait, watchdog};

const OPERATIONS: &str = include_str!("../docs/OPERATIONS.md");
/// Where the document has the program installed.
const INSTALLED: &str = "/usr/local/bin/concord";

/// The unit, as it stands in the document.
fn unit() -> String {
    let indented = OPERATIONS.lines().skip_while(|line| *line != "    [Unit]");
    let lines = indented.take_while(|line| line.is_empty() || line.starts_with("    "));
    lines.map(|line| line.trim_start().to_owned() + "\n").collect()
}

/// The values of a setting, in order.
fn settings(name: &str) -> Vec<String> {
    let unit = unit();
    let values = unit
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    values.map(str::to_owned).collect()
}

/// LimitNOFILE, or what this machine lets us have.
fn limit() -> u64 {
    let wanted: u64 = settings("LimitNOFILE")[0].parse().unwrap();
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    own.map_or(wanted, |own| own.min(wanted))
}

/// A command line of the unit for a directory, with the environment, working directory, umask and limits that a service has.
fn service(line: &str, dir: &Path) -> Command {
    let line = line.replace("%f", dir.to_str().unwrap());
    let line = line.replace(INSTALLED, env!("CARGO_BIN_EXE_concord"));
    let mut words = line.trim_start_matches('-').split(' ');
    let limit = limit();
    let mut command = Command::new("prlimit");
    command
        .arg(format!("--nofile={limit}:{limit}"))
        .arg("--")
        .arg(words.next().unwrap());
    command.args(words).current_dir("/").stdin(Stdio::null());
    command.env_clear();
    command
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
        .env("LANG", "C.UTF-8");
    command
        .env("INVOCATION_ID", "0123456789abcdef0123456789abcdef")
        .env("SYSTEMD_EXEC_PID", "1");
    command.process_group(0);
    command
}

fn started(project: &Project) -> Running {
    for line in settings("ExecStartPre") {
        assert!(line.starts_with('-'), "its failure is not the unit's: {line}");
        run(service(&line, &project.root()));
    }
    let mut command = service(&settings("ExecStart")[0], &project.root());
    let daemon = Running(command.stdout(Stdio::null()).spawn().unwrap());
    // What a unit that needs the mount waits with.
    let until = OPERATIONS
        .split('`')
        .find_map(|code| code.strip_prefix("ExecStartPre=/bin/sh -c "))
        .unwrap();
    let (script, dir) = until.rsplit_once(' ').unwrap();
    assert_eq!(dir, "/srv/project");
    let mut waits = Command::new("/bin/sh");
    waits.args(["-c", script.trim_matches('\'')]).arg(project.root());
    assert!(run(waits).status.success());
    daemon
}

#[test]
fn systemd_takes_the_documented_unit() {
    if support::twin::lacks("systemd-analyze") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("concord@srv-project.service");
    std::fs::write(&file, unit().replace(INSTALLED, env!("CARGO_BIN_EXE_concord"))).unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", "--recursive-errors=no"]).arg(&file);
    let verified = run(verify);
    assert!(verified.status.success(), "{}", text(&verified.stderr));
    assert!(
        !text(&verified.stderr).contains("concord@"),
        "{}",
        text(&verified.stderr)
    );
    let escape = OPERATIONS
        .split("concord@$(")
        .nth(1)
        .unwrap()
        .split(')')
        .next()
        .unwrap();
    let mut escaped = Command::new("sh");
    escaped.args(["-c", escape]);
    assert_eq!(text(&run(escaped).stdout), "srv-project\n");
}

#[test]
fn f5_the_documented_unit_starts_stops_and_starts_again_after_a_crash() {
    watchdog();
    assert!(settings("ExecStop").is_empty(), "then it is to be run here too");
    assert_eq!(settings("KillSignal"), ["SIGTERM"]);
    let project = Project::unmounted(&[("s.md", "v1\n")]);
    let mut daemon = started(&project);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(4).unwrap(), limit().to_string());
    assert_eq!(project.status()["pid"], daemon.pid());
    std::fs::write(project.path("s.md"), "v2\n").unwrap();
    // A stop: an open session has its grace, which is over when its writer closes.
    let mut writer = Puppet::new(&project);
    writer.does("fd = os.open('s.md', os.O_WRONLY | os.O_TRUNC); os.write(fd, b'v3\\n')");
    daemon.signal(Signal::TERM);
    eventually("no session begins any more", || {
        let refused = std::fs::OpenOptions::new().write(true).open(project.path("s.md"));
        refused.is_err_and(|error| error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()))
    });
    assert_eq!(writer.does("os.close(fd)"), "None");
    drop(writer);
    // Restart=on-failure: an orderly stop is none.
    assert!(wait(&mut daemon.0, command_time_max()).success());
    assert_eq!(project.read("s.md"), "v3\n");
    // A crash: the dead mount is cleared by what runs before the next start.
    let mut daemon = started(&project);
    daemon.signal(Signal::KILL);
    assert!(!wait(&mut daemon.0, command_time_max()).success());
    let mut daemon = started(&project);
    assert_eq!(project.read("s.md"), "v3\n");
    assert_eq!(project.history("s.md").len(), 3);
    // `concord unmount` is an orderly end too, which systemd does not undo.
    let mut unmount = support::concord(&["unmount"]);
    unmount.arg(project.root());
    support::succeed(unmount);
    assert!(wait(&mut daemon.0, command_time_max()).success());
}
