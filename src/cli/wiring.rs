//! The real rooms behind the command line.

use std::path::Path;

use super::rooms::{Daemon, HistorySource, MountOrder, Recovery, Rooms};

/// Store, rules and mount of this crate.
pub struct Wiring;

const NOT_WIRED: &str = "this build has no store and no mount yet";

impl Rooms for Wiring {
    fn history(&self, _tree: &Path) -> anyhow::Result<Box<dyn HistorySource>> {
        anyhow::bail!(NOT_WIRED)
    }

    fn recover(&self, _tree: &Path) -> anyhow::Result<Recovery> {
        anyhow::bail!(NOT_WIRED)
    }

    fn template(&self) -> &str {
        "# concord.toml\n"
    }

    fn mount(&self, _order: MountOrder) -> anyhow::Result<Box<dyn Daemon>> {
        anyhow::bail!(NOT_WIRED)
    }
}
