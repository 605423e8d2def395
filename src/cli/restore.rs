//! `concord restore FILE@N`: a publish like any other, so the daemon does it.

use std::io::{self, Write};

use anyhow::Context;

use super::failure::{At, Failure};
use super::output::{Answer, Out};
use super::project::Project;
use super::rooms::Rooms;
use super::versioned::Versioned;
use super::{missing, reach};
use crate::control::client::ClientError;
use crate::control::lossless::printable;
use crate::control::{Refused, RefusedKind, Restored};

pub fn run(wanted: &Versioned, rooms: &dyn Rooms, out: &mut Out) -> anyhow::Result<Answer> {
    let (project, relative) = Project::of_file(&wanted.file)?;
    let version = wanted.version.context("a version is missing")?;
    let restored = match project.daemon()?.restore(&relative, version) {
        Ok(restored) => restored,
        Err(ClientError::Refused(Refused {
            kind: RefusedKind::NotFound,
            why,
        })) => {
            let history = project.history(rooms)?;
            if let Some(failure) = missing::version(&project, wanted, &relative, rooms, &*history)? {
                return Err(failure.into());
            }
            return Err(anyhow::Error::msg(why)).at(&relative);
        }
        Err(ClientError::Refused(refused)) => return Err(refused).at(&relative),
        Err(error) => {
            return Err(match project.mount() {
                Some(mount) => reach::failure(mount, &error),
                None => Failure::of(&error.into()),
            }
            .into());
        }
    };
    print(&restored, out).map_err(|error| {
        let (from, now) = (restored.from, restored.version);
        let why = format!("version {from} is current again, as version {now}, but that could not be printed: {error}");
        Failure::at(&relative, why).hint("it need not be restored again")
    })?;
    Ok(Answer::Yes)
}

fn print(restored: &Restored, out: &mut Out) -> io::Result<()> {
    if out.json {
        out.document(restored)?;
    } else {
        let (file, bytes) = (printable(&restored.file.0), restored.bytes);
        let (from, now) = (restored.from, restored.version);
        writeln!(
            out,
            "{file}: version {from} is current again, as version {now} ({bytes} bytes)"
        )?;
    }
    out.flush()
}
