//! Entries that the kernel remembers for too long: an ordinary name's, which rename(2) has made a coordinated one's. The kernel moves its entry along
//! with the time that it may be kept, and would show by it what the name leads to no more.

use std::sync::{Arc, OnceLock};

use crossbeam_channel::{Sender, unbounded};
use fuser::INodeNo;
use parking_lot::Mutex;

use super::nodes::Name;

/// Has the kernel forget entries, on a thread of its own: it takes the directory's lock for that, which somebody may hold who waits for us.
#[derive(Debug, Default)]
pub struct Forgetting {
    orders: OnceLock<Option<Sender<Name>>>,
    pending: Arc<Mutex<Vec<Name>>>,
}

impl Forgetting {
    /// To be called before rename(2) is answered: the kernel has the directory's lock until then, and forgets the entry right after.
    pub fn forget(&self, notifier: &fuser::Notifier, name: Name) {
        let Some(orders) = self.orders.get_or_init(|| self.start(notifier.clone())) else {
            return;
        };
        self.pending.lock().push(name.clone());
        // The thread lives as long as this sender.
        let _ = orders.send(name);
    }

    /// Whether the kernel may find something by this name without asking.
    pub fn is_pending(&self, name: &Name) -> bool {
        self.pending.lock().contains(name)
    }

    fn start(&self, notifier: fuser::Notifier) -> Option<Sender<Name>> {
        let (orders, received) = unbounded::<Name>();
        let pending = Arc::clone(&self.pending);
        let run = move || {
            for name in received {
                if let Err(error) = notifier.inval_entry(INodeNo(name.parent.0), &name.name) {
                    log::debug!("the kernel did not forget an entry: {error}");
                }
                let mut pending = pending.lock();
                if let Some(at) = pending.iter().position(|other| *other == name) {
                    pending.swap_remove(at);
                }
            }
        };
        let started = std::thread::Builder::new().name("concord-forget".to_owned()).spawn(run);
        started
            .inspect_err(|error| log::warn!("no thread to have the kernel forget entries: {error}"))
            .ok()
            .map(|_| orders)
    }
}
