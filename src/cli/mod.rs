//! The command line: one file a subcommand.
//!
//! Exit codes: 0; 1 for "no" and for errors (one line on standard error); 2 for usage. A reader that goes away ends a
//! command quietly.

mod diff;
mod doctor;
mod failure;
mod history;
mod holders;
mod init;
mod missing;
mod mount;
mod output;
mod project;
mod reach;
mod recover;
mod restore;
pub mod rooms;
mod show;
mod status;
mod tell;
#[cfg(test)]
mod testing;
mod unmount;
mod versioned;
mod wiring;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use failure::Failure;
use output::{Answer, Out};
use rooms::Rooms;
use versioned::Versioned;

/// Makes writes to shared files atomic, one after the other and reversible, for programs that know nothing about it.
#[derive(Debug, Parser)]
#[command(name = "concord", version, max_term_width = 80)]
struct Arguments {
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Mount over a project directory
    Mount(mount::Mount),
    /// Unmount, after the open sessions have ended; also clears a dead mount
    Unmount(Unmount),
    /// Show sessions, waiting programs, counts, and what was refused or recovered
    Status(Dir),
    /// List the versions of a file, newest first
    History(FileArgument),
    /// Print a version of a file
    Show(VersionArgument),
    /// Compare a version of a file with its content now or with another version
    Diff(Diff),
    /// Publish an old version of a file as its new one
    Restore(VersionArgument),
    /// Clear a dead mount and bring the project to rest after a crash
    Recover(Recover),
    /// Write a commented concord.toml
    Init(Dir),
    /// Say what this machine and this directory give, and what each lack costs
    Doctor(Dir),
}

#[derive(Debug, Args)]
struct Dir {
    /// A project directory
    #[arg(default_value = ".")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct Recover {
    /// A project directory
    dir: PathBuf,
    /// The rules by which old versions go [default: concord.toml in the project; without one, none go]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Unmount {
    /// The mounted directory
    dir: PathBuf,
    /// Do not wait for open sessions: keep what they wrote in .concord/recovered/ and discard them
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct FileArgument {
    /// The file, by any path that reaches it
    file: PathBuf,
}

#[derive(Debug, Args)]
struct VersionArgument {
    /// The file and the number of its version
    #[arg(value_name = "FILE@N", value_parser = OsStringValueParser::new().try_map(versioned::parse_with_version))]
    version: Versioned,
}

#[derive(Debug, Args)]
struct Diff {
    /// The file and the number of the older version
    #[arg(value_name = "FILE@A", value_parser = OsStringValueParser::new().try_map(versioned::parse_with_version))]
    from: Versioned,
    /// What to compare it with; without it, what the file holds now
    #[arg(value_name = "FILE@B", value_parser = OsStringValueParser::new().try_map(versioned::parse))]
    to: Option<Versioned>,
}

impl Command {
    fn name(&self) -> &'static str {
        match self {
            Self::Mount(_) => "mount",
            Self::Unmount(_) => "unmount",
            Self::Status(_) => "status",
            Self::History(_) => "history",
            Self::Show(_) => "show",
            Self::Diff(_) => "diff",
            Self::Restore(_) => "restore",
            Self::Recover(_) => "recover",
            Self::Init(_) => "init",
            Self::Doctor(_) => "doctor",
        }
    }

    fn run(&self, rooms: &dyn Rooms, out: &mut Out) -> anyhow::Result<Answer> {
        match self {
            Self::Mount(order) => mount::run(order, rooms, out),
            Self::Unmount(unmount) => unmount::run(&unmount.dir, unmount.force, out),
            Self::Status(dir) => status::run(&dir.dir, out),
            Self::History(file) => history::run(&file.file, rooms, out),
            Self::Show(version) => show::run(&version.version, rooms, out),
            Self::Diff(diff) => diff::run(&diff.from, diff.to.as_ref(), rooms, out),
            Self::Restore(version) => restore::run(&version.version, rooms, out),
            Self::Recover(dir) => recover::run(&dir.dir, dir.config.as_deref(), rooms, out),
            Self::Init(dir) => init::run(&dir.dir, rooms, out),
            Self::Doctor(dir) => doctor::run(&dir.dir, rooms, out),
        }
    }
}

/// Parses the arguments, runs the subcommand, and returns 0, 1 for "no" or 2 for usage.
pub fn run() -> ExitCode {
    run_with(std::env::args_os(), &wiring::Wiring)
}

fn run_with(arguments: impl IntoIterator<Item = OsString>, rooms: &dyn Rooms) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // The daemon's own way to start a process of its own: in no help and no list.
    if let [_, tell, end, dir] = &arguments[..]
        && (tell.as_os_str(), end.as_os_str()) == (tell::NAME.as_ref(), "--".as_ref())
    {
        return match tell::run(dir.as_ref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let wants_json = arguments
        .iter()
        .take_while(|word| *word != "--")
        .any(|word| word == "--json");
    let arguments = match Arguments::try_parse_from(&arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Whether anybody reads the help does not change the exit code.
            let _ = error.print();
            if error.use_stderr() {
                let text = error.render().to_string();
                let said: Vec<_> = text
                    .lines()
                    .take_while(|line| !line.is_empty())
                    .map(str::trim)
                    .collect();
                let failure = Failure {
                    path: None,
                    why: said.join(" ").trim_start_matches("error: ").to_owned(),
                    hint: Some("`concord --help`".to_owned()),
                };
                report(&mut Out::stdout(wants_json), "usage", &failure);
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let mut out = Out::stdout(arguments.json);
    let answer = arguments
        .command
        .run(rooms, &mut out)
        .and_then(|answer| Ok(out.flush().map(|()| answer)?));
    match answer {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::FAILURE,
        Err(_) if out.reader_gone() => ExitCode::SUCCESS,
        Err(error) => {
            let failure = Failure::of(&error);
            let name = arguments.command.name();
            let _ = writeln!(std::io::stderr(), "concord: {name}: {failure}");
            report(&mut out, name, &failure);
            ExitCode::FAILURE
        }
    }
}

#[derive(Serialize)]
struct Failed<'a> {
    error: Said<'a>,
}

#[derive(Serialize)]
struct Said<'a> {
    what: &'a str,
    #[serde(flatten)]
    failure: &'a Failure,
}

/// Programs that asked for one document get one, also when the command failed.
fn report(out: &mut Out, what: &str, failure: &Failure) {
    if out.json {
        let error = Said { what, failure };
        // Whether anybody reads it does not change the exit code.
        let _ = out.document(&Failed { error }).and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn json_may_stand_before_or_after_the_subcommand() {
        for line in [["concord", "--json", "status"], ["concord", "status", "--json"]] {
            assert!(Arguments::try_parse_from(line).unwrap().json);
        }
    }
}
