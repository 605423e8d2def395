//! `concord restore FILE@N`: a publish like any other, so the daemon does it.

use std::io::Write;

use anyhow::Context;

use super::output::{Answer, Out};
use super::project::{Project, connect};
use super::versioned::Versioned;
use crate::control::lossless::printable;

pub fn run(wanted: &Versioned, out: &mut Out) -> anyhow::Result<Answer> {
    let (project, relative) = Project::of_file(&wanted.file)?;
    let version = wanted.version.context("a version is missing")?;
    let restored = connect(&project.root)
        .and_then(|client| Ok(client.restore(&relative, version)?))
        .with_context(|| format!("{}@{version}", printable(&relative)))?;
    if out.json {
        out.document(&restored)?;
    } else {
        let (file, from, now, bytes) = (
            printable(&restored.file.0),
            restored.from,
            restored.version,
            restored.bytes,
        );
        writeln!(
            out,
            "{file}: version {from} is current again, as version {now} ({bytes} bytes)"
        )?;
    }
    Ok(Answer::Yes)
}
