//! What `concord status` shows of the coordination.

use std::path::PathBuf;
use std::time::Duration;

use super::locks::{Line, Party, Whose};
use super::{Coordination, Counted};
use crate::mount::notices::Silence;
use crate::session::LockMode;
use crate::store::record::Who;

/// An open session.
#[derive(Debug, Clone)]
pub struct SessionStatus {
    /// Relative to the project.
    pub path: PathBuf,
    /// Who writes.
    pub who: Who,
    /// Since it began.
    pub held: Duration,
    /// It is being published just now.
    pub ending: bool,
    /// First in line first.
    pub waiters: Vec<WaiterStatus>,
}

/// A request that waits.
#[derive(Debug, Clone)]
pub struct WaiterStatus {
    /// Who waits.
    pub who: Who,
    /// Since when.
    pub waited: Duration,
}

/// The flock(2) lock of a file.
#[derive(Debug, Clone)]
pub struct LockStatus {
    /// Relative to the project; nothing when its name is gone.
    pub path: Option<PathBuf>,
    /// Those who have it.
    pub holders: Vec<LockParty>,
    /// Those who wait, first come first.
    pub waiters: Vec<LockParty>,
}

/// Who has a lock, or waits for one.
#[derive(Debug, Clone)]
pub struct LockParty {
    /// Who called flock(2).
    pub who: Who,
    /// LOCK_SH or LOCK_EX.
    pub mode: LockMode,
    /// Since it has it, or waits.
    pub for_: Duration,
}

impl Coordination {
    /// Whether any file of the mount is open, or mapped.
    pub fn has_open_files(&self) -> bool {
        !self.tree.handles.is_empty()
    }

    /// All flock(2) locks. fcntl(2) locks are the kernel's, and not known here.
    pub fn flocks(&self) -> Vec<LockStatus> {
        let lines = self.locks.lock().lines();
        let party = |party: Party| LockParty {
            who: self.descriptions.of(party.process, party.uid),
            mode: party.mode,
            for_: party.since.elapsed(),
        };
        let status = |line: Line| LockStatus {
            path: line.whose.and_then(|whose| self.path_of_locked(&whose)),
            holders: line.holders.into_iter().map(party).collect(),
            waiters: line.waiting.into_iter().map(party).collect(),
        };
        lines.into_iter().map(status).collect()
    }

    fn path_of_locked(&self, whose: &Whose) -> Option<PathBuf> {
        match whose {
            Whose::Name(name) => self.path_of(name).ok(),
            Whose::Inode(identity) => {
                let node = self.tree.nodes.info(self.tree.nodes.find(*identity)?)?;
                node.names.first().and_then(|name| self.path_of(name).ok())
            }
        }
    }

    /// All open sessions and who waits for them.
    pub fn sessions(&self) -> Vec<SessionStatus> {
        let now = self.now();
        let (sessions, waiting): (Vec<_>, Vec<_>) = {
            let files = self.files.lock();
            let late = files.late_sessions().iter().cloned();
            let sessions: Vec<_> = files
                .all_sessions()
                .map(|(_, session)| session.clone())
                .chain(late)
                .collect();
            let waiting = sessions
                .iter()
                .map(|session| {
                    files
                        .queue
                        .waiters(session.file())
                        .map(|w| (w.proc, now.0 - w.since.0))
                        .collect::<Vec<_>>()
                })
                .collect();
            (sessions, waiting)
        };
        let described = |session: &super::session::Session, waiting: Vec<(_, u64)>| SessionStatus {
            path: self
                .path_of(&session.name())
                .unwrap_or_else(|_| PathBuf::from(&session.name().name)),
            who: session.about.who.clone(),
            held: session.since.elapsed(),
            ending: !session.is_open(),
            waiters: waiting
                .into_iter()
                .map(|(proc, ms)| WaiterStatus {
                    who: self.descriptions.of(proc, 0),
                    waited: Duration::from_millis(ms),
                })
                .collect(),
        };
        sessions
            .iter()
            .zip(waiting)
            .map(|(session, waiting)| described(session, waiting))
            .chain(self.appending())
            .collect()
    }

    /// Those who append: nobody waits for them.
    fn appending(&self) -> Vec<SessionStatus> {
        let appenders = self.tree.handles.appenders().into_iter();
        appenders
            .filter(|appender| appender.is_open())
            .map(|appender| SessionStatus {
                path: self
                    .path_of(&appender.name)
                    .unwrap_or_else(|_| PathBuf::from(&appender.name.name)),
                who: appender.who.clone(),
                held: appender.since.elapsed(),
                ending: false,
                waiters: Vec::new(),
            })
            .collect()
    }

    /// How often this happened since the mount.
    pub fn count(&self, what: Counted) -> u64 {
        self.counts.get(what)
    }

    /// Whether the data of ordinary files goes past the daemon (O2).
    pub fn passthrough(&self) -> bool {
        self.tree.passthrough.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Lets no session begin any more, and tells whether all have ended.
    pub fn drain(&self) -> bool {
        self.closing.store(true, std::sync::atomic::Ordering::Release);
        self.files.lock().is_quiet() && self.tree.handles.appenders().iter().all(|appender| !appender.is_open())
    }

    /// Watchers are told of nothing while the answer lives: who tells them has the mount in use. Waits until what is just being told has been told, at most `at_most`.
    pub fn silence(&self, at_most: Duration) -> Option<Silence<'_>> {
        self.tree.silence(at_most)
    }

    /// Takes back [`Coordination::drain`]: the mount stays.
    pub fn reopen(&self) {
        self.closing.store(false, std::sync::atomic::Ordering::Release);
    }

    /// Discards all open sessions; what they staged goes to `recovered/`. With `is_served`, while the kernel's requests are answered, what was stored through mappings too.
    pub fn discard_all(self: &std::sync::Arc<Self>, is_served: bool) {
        let sessions: Vec<_> = {
            let files = self.files.lock();
            let late = files.late_sessions().iter().cloned();
            files
                .all_sessions()
                .map(|(_, session)| session.clone())
                .chain(late)
                .collect()
        };
        for session in sessions {
            if is_served {
                self.write_back(&session);
            }
            // What cannot be set aside now stays in the shadows and is found by the next start.
            let _ = self.end_now(&session, super::close::Ending::Unmounted);
        }
        self.end_appenders();
    }
}
