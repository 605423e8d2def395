//! What the command line needs of the store, the rules and the mount. The real ones are in `wiring.rs`; the tests
//! of the commands use their own.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::control::{JsonPath, JsonTime, Kept, Service};

/// The other rooms.
pub trait Rooms: Sync {
    /// The history in the store of the plain tree at `tree`, whether or not something is mounted over it.
    fn history(&self, tree: &Path) -> anyhow::Result<Box<dyn HistorySource>>;

    /// Brings the unmounted tree at `tree` to rest after a crash, and removes from its history what the rules in `config`, else in its
    /// `concord.toml`, do not keep; without either nothing is removed.
    fn recover(&self, tree: &Path, config: Option<&Path>) -> anyhow::Result<Recovery>;

    /// Whether the rules coordinate `file` (relative to the project): those in `config`, else in the `concord.toml` of the plain tree at
    /// `tree`, which is mounted, if at all, at `mountpoint`; else the built-in ones.
    fn is_coordinated(
        &self,
        tree: &Path,
        mountpoint: &Path,
        config: Option<&Path>,
        file: &Path,
    ) -> anyhow::Result<bool>;

    /// The commented `concord.toml` that `concord init` writes.
    fn template(&self) -> &str;

    /// Mounts. When it returns, the mount is usable.
    fn mount(&self, order: MountOrder) -> anyhow::Result<Box<dyn Daemon>>;
}

/// The versions of a project's files.
pub trait HistorySource {
    /// The versions of `file` (relative to the project), newest first; none when it never had one.
    fn versions(&self, file: &Path) -> anyhow::Result<Vec<Version>>;

    /// Records of its versions that the disk does not give: paths below `.concord/`. What they tell is missing in the list.
    fn unreadable(&self, file: &Path) -> anyhow::Result<Vec<PathBuf>>;

    /// The files that have a history, deleted ones too.
    fn paths(&self) -> anyhow::Result<Vec<PathBuf>>;

    /// The content of one of them. An error says that it is not kept (any more), or why it may not be read (H4).
    fn open_version(&self, file: &Path, version: u64) -> anyhow::Result<Box<dyn Read>>;
}

/// One version, as `concord history --json` prints it: the first ten keys in this order are a promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// From 1.
    pub version: u64,
    /// When it was published.
    pub time: JsonTime,
    /// Its size.
    pub bytes: u64,
    /// Of its content, in hex.
    pub hash: String,
    /// `close`, `rename`, `restore` ...
    pub how: String,
    /// Who wrote it; 0 when unknown.
    pub pid: u32,
    /// The writer's command name; empty when unknown.
    pub command: String,
    /// The agent that the writer belonged to, where it could be told.
    pub agent: Option<String>,
    /// The version that the writer had begun with.
    pub based_on: Option<u64>,
    /// It is what the file holds now.
    pub current: bool,
    /// The writer's user.
    pub uid: u32,
    /// The version that it replaced.
    pub replaced: Option<u64>,
    /// It replaced a version that its writer had not seen.
    pub stale: bool,
    /// The file went away at this point: there is no content.
    #[serde(skip)]
    pub gone: bool,
    /// The name that the file had then, where it is not the one that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<JsonPath>,
    /// The name and the version that a file had which was then renamed to this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub came_from: Option<Former>,
    /// The name that the file went to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<JsonPath>,
}

/// A version of a file under another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Former {
    /// The name, relative to the project.
    pub name: JsonPath,
    /// From 1.
    pub version: u64,
}

/// What a recovery found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// Files whose publish was under way and is now complete.
    pub finished: Vec<JsonPath>,
    /// What was staged and never published, and where it is kept.
    pub kept: Vec<Kept>,
    /// Anything else that a person should know, a line each.
    pub notes: Vec<String>,
}

/// What to mount.
#[derive(Debug)]
pub struct MountOrder {
    /// The backing tree, opened O_PATH before anything is mounted. It stays open as long as the mount.
    pub root: Arc<OwnedFd>,
    /// Where; absolute and free of links.
    pub mountpoint: PathBuf,
    /// The path by which `root` was opened, for the mount's source and for messages.
    pub backing: PathBuf,
    /// `--config`, absolute; none is `concord.toml` in the backing tree, or the built-in rules. It may lie under
    /// `mountpoint`: whoever reads it again later must not do so by this path, through the mount that it serves.
    pub config: Option<PathBuf>,
    /// Somebody else may change the backing tree.
    pub shared_backing: bool,
}

/// What a mount found of a crash: a line each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// And set right.
    pub recovered: Vec<String>,
    /// And left for the next start, for want of room.
    pub left: Vec<String>,
}

/// A running mount. It holds the store's lock until it is dropped.
pub trait Daemon: Send + Sync {
    /// What it found of a crash before it mounted.
    fn found(&self) -> &Found;

    /// Its face for the control socket.
    fn service(&self) -> Arc<dyn Service>;

    /// Blocks until nothing is mounted any more, whoever unmounted it, and the store is at rest.
    fn wait(&self) -> anyhow::Result<()>;
}
