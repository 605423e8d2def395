//! What to say of a file that has no history: what was looked for, where, and what there is instead.

use std::io;
use std::path::{Path, PathBuf};

use super::failure::{At, Failure};
use super::project::Project;
use super::rooms::{HistorySource, Rooms, Version};
use super::versioned::Versioned;
use crate::control::lossless::printable;
use crate::rules::{FILE_NAME, distance};

/// So many paths that look like the one that was asked for are named.
const NEAR_MAX: usize = 3;

/// Whether the rules in force coordinate a file; nothing where that cannot be found out.
pub fn is_coordinated(project: &Project, file: &Path, rooms: &dyn Rooms) -> Option<bool> {
    let config = match project.mount() {
        Some(_) => project.daemon().ok()?.status().ok()?.rules,
        None => None,
    };
    // Without --config it is the one in the project, by its name only.
    let config = config.map(|path| path.0).filter(|path| path.is_absolute());
    rooms
        .is_coordinated(&project.tree(), &project.root, config.as_deref(), file)
        .ok()
}

/// Why there is no version of a coordinated file, or of one that is none.
pub fn file(project: &Project, file: &Path, rooms: &dyn Rooms, history: &dyn HistorySource) -> Failure {
    let root = printable(&project.root);
    let kind = match project.tree().join(file).symlink_metadata() {
        Ok(meta) if meta.is_file() => Some("a file"),
        Ok(meta) if meta.is_dir() => Some("a directory"),
        Ok(_) => Some("no regular file"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some("there"),
    };
    let because = match kind {
        None if project.is_elsewhere(file) => {
            "it is on another filesystem, mounted in the project, where nothing is coordinated"
        }
        Some("a directory") => "it is a directory, and only files have versions",
        Some("no regular file") => "it is no regular file, and only those have versions",
        Some(_) if is_coordinated(project, file, rooms) == Some(false) => UNCOORDINATED,
        Some(_) => "no version of it is recorded",
        None => "no such file is there, and none was that has a history",
    };
    let failure = Failure::at(file, format!("in the project {root}: {because}"));
    let near = near(file, history.paths().unwrap_or_default());
    let near: Vec<_> = near.iter().map(printable).collect();
    match (because, near.is_empty()) {
        (UNCOORDINATED, _) => failure.hint(rule()),
        (_, false) => failure.hint(format!("these have one: {}", near.join(", "))),
        _ if kind.is_none() && because.starts_with("no such") => {
            failure.hint("check its path; it is taken from the working directory")
        }
        _ => failure,
    }
}

/// Why the version that is wanted has no content; nothing when it is there.
pub fn version(
    project: &Project,
    wanted: &Versioned,
    file: &Path,
    rooms: &dyn Rooms,
    history: &dyn HistorySource,
) -> anyhow::Result<Option<Failure>> {
    let versions = history.versions(file).at(file)?;
    if versions.is_empty() {
        return Ok(Some(self::file(project, file, rooms, history)));
    }
    let number = wanted.version.unwrap_or_default();
    let why = match versions.iter().find(|entry| entry.version == number) {
        Some(entry) if entry.gone => "the file was removed then, so there is no content".to_owned(),
        Some(_) => return Ok(None),
        None => format!("version {number} is not kept, there are {}", ranges(&versions)),
    };
    let hint = format!("see `concord history {}`", printable(&wanted.file));
    Ok(Some(Failure::at(name_of(file, number), why).hint(hint)))
}

/// `FILE@N`.
pub fn name_of(file: &Path, version: u64) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!("@{version}"));
    name.into()
}

/// The numbers that there are, oldest first: `1, 4-7, 9`.
fn ranges(newest_first: &[Version]) -> String {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for number in newest_first.iter().rev().map(|entry| entry.version) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let one = |(first, last): &(u64, u64)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(one).collect::<Vec<_>>().join(", ")
}

const UNCOORDINATED: &str = "no rule coordinates it, so its saves are not kept";

/// What is to be said beside the one version that a file has which no rule coordinates.
pub fn uncoordinated(file: &Path) -> Failure {
    Failure::at(file, UNCOORDINATED).hint(rule())
}

fn rule() -> String {
    format!("a [[rule]] in {FILE_NAME} would (`concord init` writes one to begin with)")
}

/// The paths whose names are most like that of `wanted`, the same name elsewhere first.
fn near(wanted: &Path, paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let asked = name(wanted);
    let mut found: Vec<(usize, PathBuf)> = paths
        .into_iter()
        .filter(|path| path != wanted)
        .map(|path| (distance(&asked, &name(&path)), path))
        .filter(|(edits, _)| *edits <= (asked.chars().count() / 3).max(1))
        .collect();
    found.sort();
    found.into_iter().take(NEAR_MAX).map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_elsewhere_comes_first_then_a_slip_of_the_hand() {
        let paths = ["docs/STATE.md", "STAET.md", "x/README.md", "a.md", "STATE.md"];
        let near = near(Path::new("STATE.md"), paths.map(PathBuf::from).to_vec());
        assert_eq!(near, ["docs/STATE.md", "STAET.md"].map(PathBuf::from));
    }
}
