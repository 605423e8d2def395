//! rename(2) of a directory. Sessions, locks and appenders hang on nodes and go along by themselves; what has to be told is the store, whose
//! histories lie by path.

use std::ffi::OsStr;
use std::sync::Arc;

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use super::append_log::Log;
use super::{Answer, Coordination, is_directory, nanos_now};
use crate::mount::errno::from_io;
use crate::mount::nodes::{Name, NodeId};
use crate::store::Way;

/// An errno that the store's errors become too.
struct Refusal(Errno);

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Refusal {
        Refusal(from_io(&error))
    }
}

impl Coordination {
    /// rename(2) between names that are not coordinated.
    pub fn rename_uncoordinated(
        self: &Arc<Self>,
        old: (NodeId, &OsStr),
        new: (NodeId, &OsStr),
        flags: RenameFlags,
        answer: Answer<()>,
    ) {
        let names = (Name::new(old.0, old.1), Name::new(new.0, new.1));
        if !self.moves_directory(&names.0, &names.1, flags) {
            return answer(self.rename_now(&names.0, &names.1, flags));
        }
        // It waits for the disk where files below have histories.
        let this = Arc::clone(self);
        self.tree
            .workers
            .run(move || answer(this.carry_out_uncoordinated(&names.0, &names.1, flags)));
    }

    /// What is being created in a directory keeps that from being replaced.
    pub(super) fn rename_now(&self, old: &Name, new: &Name, flags: RenameFlags) -> Result<(), Errno> {
        let (from, to) = ((old.parent, &*old.name), (new.parent, &*new.name));
        self.tree
            .rename(from, to, flags, |directory| self.creates_in(directory))
    }

    fn moves_directory(&self, old: &Name, new: &Name, flags: RenameFlags) -> bool {
        self.is_directory(old) || (flags.contains(RenameFlags::EXCHANGE) && self.is_directory(new))
    }

    fn is_directory(&self, name: &Name) -> bool {
        self.stat(name).is_ok_and(|stat| is_directory(&stat))
    }

    /// rename(2) of what is no coordinated file itself.
    pub(super) fn carry_out_uncoordinated(&self, old: &Name, new: &Name, flags: RenameFlags) -> Result<(), Errno> {
        let rename = || self.rename_now(old, new, flags);
        if !self.moves_directory(old, new, flags) {
            return rename();
        }
        self.tree.refuse_private(old.parent, &old.name)?;
        self.tree.refuse_private(new.parent, &new.name)?;
        let (from, to) = (self.path_of(old)?, self.path_of(new)?);
        let mut ways: Vec<Way<'_>> = Vec::new();
        if self.is_directory(old) {
            ways.push((&from, &to));
        }
        if flags.contains(RenameFlags::EXCHANGE) && self.is_directory(new) {
            ways.push((&to, &from));
        }
        self.keep_kinds_below(&ways);
        // Nobody appends below meanwhile: a stay of appenders is written down under one path.
        let logs = self.logs_below(&ways);
        let mut locked: Vec<_> = logs.iter().map(|log| log.lock()).collect();
        for state in &mut locked {
            self.end_stay(state);
        }
        let renamed = self
            .store
            .move_directories(&ways, nanos_now(), || rename().map_err(Refusal));
        renamed.map_err(|Refusal(errno)| errno)
    }

    /// The logs of the files below, in the order in which logs are locked.
    fn logs_below(&self, ways: &[Way<'_>]) -> Vec<Arc<Log>> {
        let below = |name: &Name| {
            let path = self.path_of(name);
            path.is_ok_and(|path| ways.iter().any(|(from, _)| path.starts_with(from)))
        };
        let mut logs = self.logs.all();
        logs.retain(|(name, _)| below(name));
        let mut logs: Vec<_> = logs.into_iter().map(|(_, log)| log).collect();
        logs.sort_by_key(|log| Arc::as_ptr(log) as usize);
        logs
    }
}
