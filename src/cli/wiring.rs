//! The real rooms behind the command line.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::mount::config::Config;
use super::mount::service::MountedProject;
use super::rooms::{Daemon, Former, HistorySource, MountOrder, Recovery, Rooms, Version};
use crate::control::beacon::Beacon;
use crate::control::{JsonPath, JsonTime, Kept};
use crate::mount::coordinated::retention;
use crate::rules;
use crate::store::record::{RecoveredKind, decode_path};
use crate::store::{
    Action, History, RealDisk, RecoveredEntry, RecoveryReport, STORE_DIR, Store, StoreError, VersionEntry,
};

/// How long a recovery waits for another one.
const OTHER_RECOVERY_TIME_MAX: Duration = Duration::from_secs(30);
/// Between two looks at it.
const OTHER_RECOVERY_PAUSE: Duration = Duration::from_millis(50);

/// Store, rules and mount of this crate.
pub struct Wiring;

impl Rooms for Wiring {
    fn history(&self, tree: &Path) -> anyhow::Result<Box<dyn HistorySource>> {
        Ok(Box::new(History::open_at(tree)?))
    }

    fn is_coordinated(
        &self,
        tree: &Path,
        mountpoint: &Path,
        config: Option<&Path>,
        file: &Path,
    ) -> anyhow::Result<bool> {
        let config = Config::open(&RealDisk::open_root(tree)?, mountpoint, config)?;
        Ok(config.first()?.policy(file).is_some())
    }

    fn recover(&self, tree: &Path, config: Option<&Path>) -> anyhow::Result<Recovery> {
        let root = RealDisk::open_root(tree)?;
        let rules = written_rules(&root, tree, config);
        let (store, report) = open_beside_others(tree, &root)?;
        let mut found = recovery(&report, &kept(store.history())?)?;
        match rules {
            Ok(Some(rules)) => {
                store.set_retention(retention(&Arc::new(rules)));
                let removed = store.prune_all(nanos_now(), &|| true);
                let note = format!("{removed} files of old versions were removed, by the rules");
                found.notes.extend((removed > 0).then_some(note));
            }
            Ok(None) => {}
            Err(error) => found.notes.push(format!("no old versions were removed: {error:#}")),
        }
        Ok(found)
    }

    fn template(&self) -> &str {
        rules::TEMPLATE
    }

    fn mount(&self, order: MountOrder) -> anyhow::Result<Box<dyn Daemon>> {
        Ok(Box::new(MountedProject::start(order)?))
    }
}

/// Takes the store, after another recovery that has it.
fn open_beside_others(tree: &Path, root: &Arc<OwnedFd>) -> Result<(Store<RealDisk>, RecoveryReport), StoreError> {
    let started = Instant::now();
    loop {
        let opened = Store::open(RealDisk, Arc::clone(root), nanos_now());
        let has_daemon = || Beacon::read(tree).is_ok_and(|beacon| beacon.is_alive());
        match opened {
            Err(StoreError::Locked { .. }) if started.elapsed() < OTHER_RECOVERY_TIME_MAX && !has_daemon() => {
                std::thread::sleep(OTHER_RECOVERY_PAUSE);
            }
            opened => return opened,
        }
    }
}

/// The rules that somebody has written for the tree. Without any it is not known by which it is mounted.
fn written_rules(root: &Arc<OwnedFd>, tree: &Path, named: Option<&Path>) -> anyhow::Result<Option<rules::Rules>> {
    let named = named.map(std::path::absolute).transpose()?;
    let config = Config::open(root, tree, named.as_deref())?;
    let rules = config.first()?;
    Ok(config.in_force().0.map(|_| rules))
}

impl HistorySource for History<RealDisk> {
    fn versions(&self, file: &Path) -> anyhow::Result<Vec<Version>> {
        let entries = History::versions(self, file).map_err(|error| self.explain(error))?;
        Ok(entries.into_iter().map(|entry| version(entry, file)).collect())
    }

    fn unreadable(&self, file: &Path) -> anyhow::Result<Vec<PathBuf>> {
        History::unreadable(self, file).map_err(|error| self.explain(error).into())
    }

    fn paths(&self) -> anyhow::Result<Vec<PathBuf>> {
        Ok(History::paths(self)?)
    }

    fn open_version(&self, file: &Path, version: u64) -> anyhow::Result<Box<dyn Read>> {
        let kept = History::open_intact(self, file, version).map_err(|error| self.explain(error))??;
        Ok(Box::new(kept.file.take(kept.bytes)))
    }
}

fn version(entry: VersionEntry, asked: &Path) -> Version {
    let VersionEntry { record, current, gone } = entry;
    let path = |text: &str| decode_path(text).map(JsonPath);
    Version {
        name: path(&record.path).filter(|name| name.0 != asked),
        came_from: record.came_from.and_then(|from| {
            Some(Former {
                name: path(&from.path)?,
                version: from.version,
            })
        }),
        moved_to: record.moved_to.as_deref().and_then(path),
        version: record.version,
        time: time(record.time),
        bytes: record.bytes,
        hash: record.hash.unwrap_or_default(),
        how: record.how.to_string(),
        pid: record.who.pid,
        command: record.who.command,
        agent: record.who.agent,
        based_on: record.based_on,
        current,
        uid: record.who.uid,
        replaced: record.replaced,
        stale: record.stale,
        gone,
    }
}

/// What is in `recovered/`, newest first.
pub fn kept(history: &History<RealDisk>) -> std::io::Result<Vec<Kept>> {
    Ok(refused_or_kept(history)?.into_iter().map(|(_, kept)| kept).collect())
}

/// The same, and of each whether its writer was told that publishing it failed.
pub fn refused_or_kept(history: &History<RealDisk>) -> std::io::Result<Vec<(bool, Kept)>> {
    let told = |entry: RecoveredEntry| (entry.record.kind == RecoveredKind::Refused, kept_one(entry));
    let mut entries: Vec<_> = history.recovered()?.into_iter().map(told).collect();
    entries.sort_by_key(|(_, kept)| std::cmp::Reverse(kept.time.0));
    Ok(entries)
}

fn kept_one(entry: RecoveredEntry) -> Kept {
    let who = entry.record.who.unwrap_or_default();
    let path = match (entry.record.kind, &entry.record.path) {
        (RecoveredKind::Staged | RecoveredKind::Refused, Some(path)) => {
            decode_path(path).unwrap_or_else(|| path.into())
        }
        (_, Some(path)) => Path::new(STORE_DIR).join(path),
        (_, None) => Path::new(STORE_DIR).to_owned(),
    };
    Kept {
        path: JsonPath(path),
        time: time(entry.record.time),
        why: entry.record.reason,
        kept: JsonPath(Path::new(STORE_DIR).join("recovered").join(entry.name)),
        bytes: entry.record.bytes,
        pid: who.pid,
        command: who.command,
    }
}

/// What a recovery did, for people and programs. `kept` is all that is in `recovered/`.
fn recovery(report: &RecoveryReport, kept: &[Kept]) -> anyhow::Result<Recovery> {
    let mut found = Recovery::default();
    for item in &report.items {
        let at = Path::new(STORE_DIR).join(&item.at);
        match (item.action, kept.iter().find(|kept| kept.kept.0 == at)) {
            (Action::Completed, _) => {
                let path = item.path.as_deref().and_then(decode_path).unwrap_or(at);
                found.finished.push(JsonPath(path));
            }
            (Action::Left, _) => found.notes.push(format!("not recovered: {item}")),
            (Action::Kept | Action::Garbage, Some(kept)) => found.kept.push(kept.clone()),
            (Action::Kept | Action::Garbage, None) => found.notes.push(format!("{}: {}", at.display(), item.reason)),
        }
    }
    Ok(found)
}

/// From ns since the epoch.
pub fn time(nanos: u64) -> JsonTime {
    JsonTime(UNIX_EPOCH + Duration::from_nanos(nanos))
}

/// Now, ns since the epoch.
pub fn nanos_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
