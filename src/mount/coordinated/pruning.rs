//! The history's housekeeping: the rules are applied to all histories when the mount begins, when they change, and from time to time (H1). A save
//! applies them to its own file only.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::io::Errno;

use super::{Coordination, nanos_now};
use crate::mount::nodes::Name;
use crate::rules::{FILE_NAME, Rules};
use crate::store::{Retain, Retention};

/// How often, without an occasion.
const PRUNE_EVERY: Duration = Duration::from_secs(60 * 60);
/// What the disk and the processors have to themselves between two histories.
const PAUSE: Duration = Duration::from_micros(200);

/// Asks the thread for a sweep; gone with the coordination, and with it the thread.
pub(super) struct Pruning(Sender<()>);

impl Pruning {
    pub fn new() -> (Pruning, Receiver<()>) {
        let (ask, asked) = bounded(1);
        (Pruning(ask), asked)
    }

    /// Soon there will be a sweep.
    pub fn ask(&self) {
        let _ = self.0.try_send(());
    }
}

/// Starts the thread, which sweeps at once.
pub(super) fn start(this: &Arc<Coordination>, asked: Receiver<()>) -> std::io::Result<()> {
    let weak = Arc::downgrade(this);
    let thread = std::thread::Builder::new().name("concord-prune".to_owned());
    thread.spawn(move || {
        while let Some(this) = Weak::upgrade(&weak) {
            let go_on = || {
                std::thread::sleep(PAUSE);
                !this.is_closing()
            };
            let removed = this.store.prune_all(nanos_now(), &go_on);
            if removed > 0 {
                log::info!("{removed} files of old versions were removed from .concord/history");
            }
            drop(this);
            if asked.recv_timeout(PRUNE_EVERY) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    })?;
    Ok(())
}

/// What these rules keep of each file's history.
pub fn retention(rules: &Arc<Rules>) -> Retention {
    let rules = Arc::clone(rules);
    Arc::new(move |path: &Path| rules.policy(path).map(Retain::of))
}

impl Coordination {
    /// A write found no room. Whether it may try again: the configuration, by which less can be kept, may have the room that is kept for records.
    pub(super) fn finds_no_room(&self, errno: Errno, name: &Name) -> bool {
        if !matches!(errno, Errno::NOSPC | Errno::DQUOT) {
            return false;
        }
        if self.path_of(name).is_ok_and(|path| path == Path::new(FILE_NAME)) {
            return self.store.lend_spare();
        }
        // For the next who tries.
        self.pruning.ask();
        false
    }
}
