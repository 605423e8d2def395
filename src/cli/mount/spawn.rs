//! Starting the daemon and hearing from it: one line on its standard output, `ok`, how much it recovered and how much it could not, or the reason why not, as JSON.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::cli::failure::Failure;
use crate::cli::output::Answer;
use crate::cli::rooms::Found;

/// A longer report is cut.
const REPORT_BYTES_MAX: u64 = 64 * 1024;
const OK: &str = "ok ";

/// How much a crash had left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub recovered: usize,
    /// Left for the next start, for want of room.
    pub left: usize,
}

impl Counts {
    pub fn of(found: &Found) -> Self {
        Self {
            recovered: found.recovered.len(),
            left: found.left.len(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (recovered, left) = text.split_once(' ')?;
        Some(Self {
            recovered: recovered.parse().ok()?,
            left: left.parse().ok()?,
        })
    }
}

/// Starts the daemon and waits until its mount is usable; its process id, and how much a crash had left.
pub fn daemon(arguments: Vec<OsString>) -> anyhow::Result<(u32, Counts)> {
    let program = std::env::current_exe().context("finding this program to start it again")?;
    start(Command::new(program).args(arguments))
}

fn start(command: &mut Command) -> anyhow::Result<(u32, Counts)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the daemon")?;
    let stdout = child.stdout.take().context("the daemon has no standard output")?;
    let mut line = Vec::new();
    BufReader::new(stdout.take(REPORT_BYTES_MAX)).read_until(b'\n', &mut line)?;
    let line = String::from_utf8_lossy(&line);
    let line = line.trim_end();
    if let Some(counts) = line.strip_prefix(OK).and_then(Counts::parse) {
        return Ok((child.id(), counts));
    }
    match line {
        "" => {
            let status = child.wait()?;
            match status.signal() {
                Some(signal) => bail!("the daemon was ended by signal {signal} before it had mounted"),
                None => bail!("the daemon ended before it had mounted ({status})"),
            }
        }
        why => {
            child.wait()?;
            match serde_json::from_str::<Failure>(why) {
                Ok(failure) => Err(failure.into()),
                Err(_) => bail!(
                    "the daemon said something odd before it had mounted: {}",
                    why.escape_debug()
                ),
            }
        }
    }
}

/// Called with how much a crash had left.
pub type Ready<'a> = dyn FnMut(Counts) -> io::Result<()> + 'a;

/// Is the daemon: runs `serve`, which calls what it is given once the mount is usable, and reports.
pub fn report(serve: impl FnOnce(&mut Ready<'_>) -> anyhow::Result<()>) -> anyhow::Result<Answer> {
    // A session of its own: the terminal's Ctrl-C and hang-up are not meant for the daemon.
    rustix::process::setsid().context("setsid")?;
    // And it must not keep anybody's directory, least of all one under its own mount, busy.
    std::env::set_current_dir("/").context("leaving the working directory")?;
    // The report goes to a copy, because the lifecycle sends standard output to the log.
    let mut to = Some(File::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?));
    let served = serve(&mut |Counts { recovered, left }| {
        to.take()
            .map_or(Ok(()), |mut to| writeln!(to, "{OK}{recovered} {left}"))
    });
    match (served, to) {
        (Ok(()), _) => Ok(Answer::Yes),
        // The one who started it says why, as its own error.
        (Err(error), Some(mut to)) => {
            writeln!(to, "{}", serde_json::to_string(&Failure::of(&error))?)?;
            Ok(Answer::No)
        }
        (Err(error), None) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> anyhow::Result<(u32, Counts)> {
        start(Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn ok_means_usable_while_the_daemon_goes_on() {
        let (pid, counts) = shell("echo ok 3 1; exec >&-; sleep 0.1").unwrap();
        assert!(pid > 0);
        assert_eq!((counts.recovered, counts.left), (3, 1));
    }

    #[test]
    fn the_reason_of_a_failure_is_the_error() {
        assert_eq!(
            shell(r#"echo '{"path":"/p","why":"no permission","hint":null}'; exit 1"#)
                .unwrap_err()
                .to_string(),
            "/p: no permission"
        );
    }

    #[test]
    fn a_daemon_that_dies_silently_is_an_error_that_says_how() {
        assert!(shell("exit 3").unwrap_err().to_string().contains("exit status: 3"));
        assert!(shell("kill -9 $$").unwrap_err().to_string().contains("signal 9"));
    }
}
