//! SQLite on a coordinated file. The built-in rules leave databases alone; a rule of the user's may take them in, and then they must be refused.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{Coordination, Target};
use crate::mount::nodes::Name;

/// What SQLite appends to a database's name for the files that it keeps beside it.
const SUFFIXES: [&[u8]; 3] = [b"-journal", b"-wal", b"-shm"];

impl Coordination {
    /// Whether this is the journal that SQLite writes beside a coordinated database. It may not be written (EPERM), so that SQLite fails instead
    /// of being wrong: a database and its journal would be published at different moments, a commit only when its connection closes the
    /// file, and a killed writer's commits, which were acknowledged, not at all.
    pub fn is_journal(&self, target: &Target) -> bool {
        let name = target.name.name.as_bytes();
        let Some(database) = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(*suffix)) else {
            return false;
        };
        let (parent, database) = (target.name.parent, OsStr::from_bytes(database));
        let database_name = Name::new(parent, database);
        if database.is_empty() || self.target(parent, database).is_none() {
            return false;
        }
        let refused = self.is_promised(&database_name) || self.stat(&database_name).is_ok();
        if refused {
            log::warn!(
                "{} was not opened for writing: a database cannot be coordinated; exclude it in concord.toml by a later rule with `coordinate = false`",
                target.path.display()
            );
        }
        refused
    }
}
