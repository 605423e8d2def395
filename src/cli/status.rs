//! `concord status [DIR]`.

use std::io::{self, Write};
use std::path::Path;

use super::failure::{At, Failure};
use super::output::{Answer, Out, columns, duration, wrapped};
use super::project::Project;
use super::reach;
use crate::control::lossless::printable;
use crate::control::{Incident, Kept, LockStatus, SessionStatus, Status};

const COUNTS: &str = "counts: ";

pub fn run(dir: &Path, out: &mut Out) -> anyhow::Result<Answer> {
    let project = Project::containing(dir)?;
    // Not the project that a mistyped path happens to be in.
    if dir
        .symlink_metadata()
        .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    {
        let root = printable(&project.root);
        return Err(
            Failure::at(dir, format!("no such file or directory is in the project {root}"))
                .hint("name the project's directory, or one in it")
                .into(),
        );
    }
    let status = match (project.daemon()?.status(), project.mount()) {
        (Err(error), Some(mount)) => return Err(reach::failure(mount, &error).into()),
        (status, _) => status.at(&project.root)?,
    };
    if out.json {
        out.document(&status)?;
    } else {
        print(out, &status)?;
    }
    Ok(Answer::Yes)
}

fn print(out: &mut impl Write, status: &Status) -> io::Result<()> {
    write!(
        out,
        "{}: mounted since {}, pid {}",
        printable(&status.mountpoint.0),
        status.since.seconds(),
        status.pid
    )?;
    if status.backing != status.mountpoint {
        write!(out, ", showing {}", printable(&status.backing.0))?;
    }
    writeln!(out)?;
    let rules = status
        .rules
        .as_ref()
        .map_or("built in".into(), |path| printable(&path.0));
    writeln!(out, "rules: {rules}")?;
    if let Some(error) = &status.rules_error {
        writeln!(out, "rules: a newer file is not in force: {error}")?;
    }
    for pending in &status.rules_pending {
        let kind = if pending.coordinated { "coordinated" } else { "ordinary" };
        let file = printable(&pending.file.0);
        writeln!(out, "rules: {file} stays {kind} as long as somebody has it open")?;
    }
    let features: Vec<_> = status
        .features
        .iter()
        .map(|f| format!("{} {}", f.name, if f.on { "yes" } else { "no" }))
        .collect();
    writeln!(out, "kernel: {}", features.join(", "))?;
    let counts: Vec<_> = status
        .counts
        .each()
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    let lines = wrapped(&counts.join(", "), COUNTS.len()).join(&format!("\n{:<1$}", "", COUNTS.len()));
    writeln!(out, "{COUNTS}{lines}")?;
    sessions(out, &status.sessions)?;
    locks(out, &status.locks)?;
    incidents(out, &status.incidents)?;
    kept(out, "refused", &status.refused)?;
    kept(out, "recovered", &status.recovered)
}

/// The open sessions, each with those who wait for it.
pub fn sessions(out: &mut impl Write, sessions: &[SessionStatus]) -> io::Result<()> {
    writeln!(out, "sessions open: {}", sessions.len())?;
    let mut rows = Vec::new();
    for session in sessions {
        let agent = session
            .agent
            .as_ref()
            .map(|agent| format!(" of {}", printable(agent)))
            .unwrap_or_default();
        rows.push(vec![
            format!("  {}", printable(&session.file.0)),
            who(&session.command, session.pid) + &agent,
            session.state.clone(),
            duration(session.held_ms),
        ]);
        rows.extend(session.waiting.iter().map(|waiter| {
            vec![
                String::new(),
                who(&waiter.command, waiter.pid),
                "waits".into(),
                duration(waiter.waited_ms),
            ]
        }));
    }
    columns(out, &[3], &rows)
}

/// The flock(2) locks, each with those who have it and those who wait for it.
fn locks(out: &mut impl Write, locks: &[LockStatus]) -> io::Result<()> {
    writeln!(out, "locked: {}", locks.len())?;
    let mut rows = Vec::new();
    for lock in locks {
        let file = lock.file.as_ref().map_or("(deleted)".into(), |file| printable(&file.0));
        let parties = lock.held.iter().map(|party| (party, party.kind.clone()));
        let waiting = lock
            .waiting
            .iter()
            .map(|party| (party, format!("waits, {}", party.kind)));
        for (number, (party, state)) in parties.chain(waiting).enumerate() {
            let file = if number == 0 {
                format!("  {file}")
            } else {
                String::new()
            };
            rows.push(vec![
                file,
                who(&party.command, party.pid),
                state,
                duration(party.for_ms),
            ]);
        }
    }
    columns(out, &[3], &rows)
}

/// A process. One of another pid namespace has no number here.
fn who(command: &str, pid: u32) -> String {
    let command = printable(command);
    match pid {
        0 => command,
        pid => format!("{command} (pid {pid})"),
    }
}

/// Nothing where there are none: they are rare.
fn incidents(out: &mut impl Write, incidents: &[Incident]) -> io::Result<()> {
    if incidents.is_empty() {
        return Ok(());
    }
    writeln!(out, "failed or not kept: {}", incidents.len())?;
    for item in incidents {
        let (time, path) = (item.time.seconds(), printable(&item.path.0));
        writeln!(out, "  {time}  {path}: {}", printable(&item.why))?;
    }
    Ok(())
}

/// What is kept and why, under its heading.
pub fn kept(out: &mut impl Write, heading: &str, kept: &[Kept]) -> io::Result<()> {
    writeln!(out, "{heading}: {}", kept.len())?;
    for item in kept {
        let (time, path) = (item.time.seconds(), printable(&item.path.0));
        let (why, at) = (printable(&item.why), printable(&item.kept.0));
        writeln!(out, "  {time}  {path}: {why}; {} bytes kept in {at}", item.bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Pending;
    use crate::control::testing::status;

    #[test]
    fn a_status_reads_like_this() {
        let mut text = Vec::new();
        print(&mut text, &status()).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "/p: mounted since 2023-11-14T22:13:20Z, pid 40\n\
             rules: built in\n\
             kernel: passthrough yes, resend no\n\
             counts: publishes 12, waits 3, busy 0, deadlocks 0, interrupted 0, discarded 0,\n\
             \x20       failed 0, stale 0, late 0\n\
             sessions open: 1\n\
             \x20 docs/plan.md  python3 (pid 41) of planner  open    1.5s\n\
             \x20               vim (pid 42)                 waits  250ms\n\
             locked: 1\n\
             \x20 c.json  cargo (pid 43)                 exclusive       2.0s\n\
             \x20         unknown (other pid namespace)  waits, shared  250ms\n\
             refused: 1\n\
             \x20 2023-11-14T22:13:20Z  a.json: disk full; 12 bytes kept in .concord/recovered/7-a.json\n\
             recovered: 1\n\
             \x20 2023-11-14T22:13:20Z  b.md: the writer was killed; 12 bytes kept in .concord/recovered/7-b.md\n"
        );
    }

    #[test]
    fn another_backing_tree_and_a_broken_rules_file_are_said() {
        let mut text = Vec::new();
        let status = Status {
            backing: "/data".into(),
            rules: Some("/p/concord.toml".into()),
            rules_error: Some("line 3".into()),
            rules_pending: vec![Pending {
                file: "app.log".into(),
                coordinated: false,
            }],
            incidents: vec![Incident {
                path: "a.md".into(),
                time: status().since,
                why: "it was removed".into(),
            }],
            ..status()
        };
        print(&mut text, &status).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("\nfailed or not kept: 1\n  2023-11-14T22:13:20Z  a.md: it was removed\nrefused: "));
        assert!(text.contains(
            "pid 40, showing /data\nrules: /p/concord.toml\nrules: a newer file is not in force: line 3\n\
                 rules: app.log stays ordinary as long as somebody has it open\n"
        ));
    }
}
