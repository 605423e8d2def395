//! What went wrong and left nothing in `recovered/` that would tell of it, for `concord status`.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::session::Session;
use super::{Coordination, described, nanos_now};
use crate::store::{PublishError, Published};

/// The newest are remembered.
const REMEMBERED_MAX: usize = 50;

/// A change of a name that failed, or that lost what it replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// Relative to the project.
    pub path: PathBuf,
    /// ns since the epoch.
    pub time: u64,
    /// For people.
    pub why: String,
}

/// Oldest first.
#[derive(Default)]
pub(super) struct Incidents(Mutex<VecDeque<Incident>>);

impl Incidents {
    fn add(&self, path: &Path, why: String) {
        let mut all = self.0.lock();
        if all.len() == REMEMBERED_MAX {
            all.pop_front();
        }
        all.push_back(Incident {
            path: path.to_owned(),
            time: nanos_now(),
            why,
        });
    }
}

impl Coordination {
    /// The last ones since the mount, newest first.
    pub fn incidents(&self) -> Vec<Incident> {
        self.incidents.0.lock().iter().rev().cloned().collect()
    }

    pub(super) fn note_failed(&self, error: &PublishError) {
        let what = match error.published {
            true => "it was changed, and then an error came",
            false => "it was not changed: an error came",
        };
        self.incidents
            .add(&error.path, format!("{what} while {}: {}", error.stage, error.source));
    }

    /// A session failed, and nothing of it is kept.
    pub(super) fn note_lost(&self, session: &Session, reason: &str) {
        let name = session.name();
        let path = self.path_of(&name).unwrap_or_else(|_| PathBuf::from(&name.name));
        let who = described(&session.about.who);
        let why = format!("it was not changed: {reason}; what {who} wrote to it is nowhere");
        log::error!("{}: {why}", path.display());
        self.incidents.add(&path, why);
    }

    /// `done` says what was done to the file.
    pub(super) fn note_unkept(&self, path: &Path, published: &Published, done: &str) {
        if published.unkept {
            let why = format!("it was {done}, and what it held is not in its history: the disk is full");
            self.incidents.add(path, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_are_remembered() {
        let incidents = Incidents::default();
        for n in 0..REMEMBERED_MAX + 3 {
            incidents.add(Path::new("a.md"), n.to_string());
        }
        let all = incidents.0.lock();
        assert_eq!((all.len(), all[0].why.as_str()), (REMEMBERED_MAX, "3"));
    }
}
