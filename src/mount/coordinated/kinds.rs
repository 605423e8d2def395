//! A file that is in use stays what it is, coordinated or ordinary, when the rules change, or when its directory moves to where others hold: who has it open, or locked,
//! and who comes mean one file, and wait for each other in one queue (W1, W6, W12). It changes when nobody has it any more.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use super::Coordination;
use super::locks::Whose;
use crate::mount::nodes::{Name, NodeId};
use crate::rules::{Policy, Rules};

/// How often those that were kept are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a name stays: coordinated, with this policy, or ordinary.
type Kind = Option<Policy>;

/// The names that are not what the rules say. The lock is held for no system call, and comes after all others.
#[derive(Default)]
pub(super) struct Kinds {
    /// Asked for each name that comes along.
    any: AtomicBool,
    kept: RwLock<HashMap<Name, Kind>>,
}

impl Kinds {
    /// What a name is that was kept.
    pub fn of(&self, parent: NodeId, name: &OsStr) -> Option<Kind> {
        if !self.any() {
            return None;
        }
        self.kept.read().get(&Name::new(parent, name)).cloned()
    }

    pub fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    fn all(&self) -> Vec<(Name, bool)> {
        let kept = self.kept.read();
        kept.iter().map(|(name, kind)| (name.clone(), kind.is_some())).collect()
    }

    fn keep(&self, name: Name, kind: Kind) {
        self.kept.write().entry(name).or_insert(kind);
        self.any.store(true, Ordering::Release);
    }

    fn retain(&self, is_used: impl Fn(&Name) -> bool) {
        let mut kept = self.kept.write();
        kept.retain(|name, _| is_used(name));
        self.any.store(!kept.is_empty(), Ordering::Release);
    }
}

impl Coordination {
    /// The rules for files that nobody has in use, at once, and for the others from then on; and for all histories.
    pub fn set_rules(&self, rules: Rules) {
        let rules = Arc::new(rules);
        self.store.set_retention(super::retention(&rules));
        self.keep_kinds(|name| self.path_of(name).ok(), |path| rules.policy(path).is_some());
        *self.rules.write() = rules;
        self.pruning.ask();
    }

    /// Directories are about to be renamed.
    pub(super) fn keep_kinds_below(&self, ways: &[(&Path, &Path)]) {
        let rules = Arc::clone(&self.rules.read());
        let moved = |name: &Name| {
            let path = self.path_of(name).ok()?;
            let below = |(from, to): &(&Path, &Path)| Some(to.join(path.strip_prefix(from).ok()?));
            ways.iter().find_map(below)
        };
        self.keep_kinds(moved, |path| rules.policy(path).is_some());
    }

    /// What is in use at a name whose path `will_be` coordinated or ordinary, other than now, stays what it is.
    fn keep_kinds(&self, path: impl Fn(&Name) -> Option<PathBuf>, will_be: impl Fn(&Path) -> bool) {
        for name in self.names_in_use() {
            let Some(path) = path(&name) else { continue };
            let kind = self.target(name.parent, &name.name).map(|target| target.policy);
            if kind.is_some() != will_be(&path) {
                let stays = if kind.is_some() { "coordinated" } else { "ordinary" };
                log::info!("{} stays {stays} as long as somebody has it open", path.display());
                self.kinds.keep(name, kind);
                self.wakeup.call();
            }
        }
    }

    /// The files that were kept as they are, by their paths, and whether they are coordinated.
    pub fn kept_kinds(&self) -> Vec<(PathBuf, bool)> {
        let kept = self.kinds.all();
        let shown = |(name, is_coordinated): (Name, bool)| Some((self.path_of(&name).ok()?, is_coordinated));
        kept.into_iter().filter_map(shown).collect()
    }

    /// Nobody has some of those that were kept in use any more.
    pub(super) fn let_kinds_go(&self) {
        if self.kinds.any() {
            let used = self.names_in_use();
            self.kinds.retain(|name| used.contains(name));
        }
    }

    /// The names of files that somebody writes, appends to, or has a lock on.
    fn names_in_use(&self) -> HashSet<Name> {
        let mut names = HashSet::new();
        {
            let files = self.files.lock();
            names.extend(
                files
                    .all_sessions()
                    .flat_map(|(name, session)| [name.clone(), session.name()]),
            );
            names.extend(files.late_sessions().iter().map(|session| session.name()));
        }
        names.extend(self.logs.all().into_iter().map(|(name, _)| name));
        let mut nodes: HashSet<NodeId> = self.tree.handles.ordinary_writers();
        let locked = self.locks.lock().lines();
        for line in locked {
            match line.whose {
                Some(Whose::Name(name)) => drop(names.insert(name)),
                Some(Whose::Inode(identity)) => nodes.extend(self.tree.nodes.find(identity)),
                None => {}
            }
        }
        names.extend(
            nodes
                .into_iter()
                .filter_map(|node| self.tree.nodes.info(node))
                .flat_map(|info| info.names),
        );
        names
    }
}
