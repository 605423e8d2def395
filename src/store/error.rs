//! What can go wrong, typed.

use std::io;
use std::path::PathBuf;

/// Why a store could not be opened. Nothing was changed unless recovery had begun.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another daemon owns the tree.
    #[error(
        "cannot take .concord/lock: {}, a daemon or another recovery, owns this project; unmount it there, or wait for it",
        if holder.is_empty() { "another process".to_owned() } else { format!("the process {holder}") }
    )]
    Locked {
        /// What the holder wrote into the lock file; nothing yet, if it has just taken it.
        holder: String,
    },
    /// Written by a later concordfs.
    #[error(
        "cannot use .concord/: its format is number {found}, this program knows {known}; install a newer concordfs"
    )]
    NewerFormat {
        /// The number found.
        found: u32,
        /// The number known.
        known: u32,
    },
    /// Not a store, or its first file is damaged.
    #[error(
        "cannot use .concord/: {problem}; if it is not concordfs's, move it away; if it is, put the line \
         \"concordfs 3\" into .concord/format"
    )]
    NotAStore {
        /// What was found.
        problem: String,
    },
    /// Something in it is another user's, and this process may not use it.
    #[error("cannot use .concord/: {problem}")]
    Anothers {
        /// What, whose, and what to do.
        problem: String,
    },
    /// A system call failed.
    #[error("cannot {what} .concord/{path}: {source}; mend that and start again, nothing is lost")]
    Io {
        /// The verb.
        what: &'static str,
        /// Below `.concord/`.
        path: String,
        /// The errno.
        source: io::Error,
    },
}

impl StoreError {
    pub(super) fn io(what: &'static str, path: &str) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_owned();
        move |source| StoreError::Io { what, path, source }
    }
}

/// The step of a publish that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Looking at the file, the shadow and the history.
    Look,
    /// Copying owner, mode, ACL, attributes.
    Meta,
    /// Writing the record.
    Record,
    /// Keeping a copy of what is about to be replaced.
    Keep,
    /// Waiting for the disk to have the content.
    Sync,
    /// The rename that publishes.
    Commit,
    /// Writing it into an inode that has other names.
    Write,
    /// Moving the replaced version into the history, after the commit.
    Store,
    /// Waiting for the disk to have the rename.
    DirSync,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stage::Look => "looking at it",
            Stage::Meta => "copying its owner, mode and attributes",
            Stage::Record => "writing its record",
            Stage::Keep => "keeping the version it replaces",
            Stage::Sync => "waiting for its content to be on disk",
            Stage::Commit => "renaming it into place",
            Stage::Write => "writing it in place",
            Stage::Store => "moving the replaced version into the history",
            Stage::DirSync => "waiting for its name to be on disk",
        })
    }
}

/// A publish that did not go as it should.
#[derive(Debug, thiserror::Error)]
#[error("publishing {} failed while {stage}: {source}; {}", path.display(), outcome(*.published, .kept))]
pub struct PublishError {
    /// The file, relative to the project.
    pub path: PathBuf,
    /// Where it failed.
    pub stage: Stage,
    /// The new version is the current one all the same: the failure came after the commit point.
    pub published: bool,
    /// Name in `recovered/` of what had been staged, when it could be moved there. Without one it is still in
    /// `shadows/`, and the next start moves it.
    pub kept: Option<String>,
    /// The errno.
    pub source: io::Error,
}

fn outcome(published: bool, kept: &Option<String>) -> String {
    match (published, kept) {
        (true, _) => "the new version is in place, but may be lost if the machine fails now".into(),
        (false, Some(name)) => format!("the file is as it was, what was written is in .concord/recovered/{name}"),
        (false, None) => "the file is as it was".into(),
    }
}

/// An error at a stage, before it is known what became of the publish.
pub(super) struct At(pub Stage, pub io::Error);

pub(super) fn at(stage: Stage) -> impl Fn(io::Error) -> At {
    move |error| At(stage, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_store_is_another_process_until_it_has_written_its_number() {
        let said = |holder: &str| StoreError::Locked { holder: holder.into() }.to_string();
        assert!(said("7").contains("lock: the process 7, a daemon"));
        assert!(said("").contains("lock: another process, a daemon"));
    }
}
