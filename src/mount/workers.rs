//! A few threads for what may take long, so that the threads which read requests stay free.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender};

/// Threads at most; they wait for the disk, so their number has little to do with the number of cores.
const THREADS_MAX: usize = 16;

type Job = Box<dyn FnOnce() + Send>;

/// A pool whose threads start when they are first needed. They end when the pool is dropped.
#[derive(Debug)]
pub struct Workers {
    sender: Sender<Job>,
    receiver: Receiver<Job>,
    started: AtomicUsize,
    busy: std::sync::Arc<AtomicUsize>,
}

impl Workers {
    /// A pool with no thread yet.
    pub fn new() -> Workers {
        let (sender, receiver) = crossbeam_channel::unbounded();
        Workers {
            sender,
            receiver,
            started: AtomicUsize::new(0),
            busy: Default::default(),
        }
    }

    /// Runs `job` on one of the threads, soon.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        // Counted from here, so that two jobs in a row start two threads.
        let busy = self.busy.fetch_add(1, Ordering::Relaxed) + 1;
        if busy > self.started.load(Ordering::Relaxed) {
            self.start_thread();
        }
        let counter = std::sync::Arc::clone(&self.busy);
        let counted: Job = Box::new(move || {
            // A mistake in one request must not cost the thread, and with it in the end all of them.
            if std::panic::catch_unwind(AssertUnwindSafe(job)).is_err() {
                log::error!("a request failed inside concordfs; please report the panic above");
            }
            counter.fetch_sub(1, Ordering::Relaxed);
        });
        if self.started.load(Ordering::Relaxed) == 0 {
            // Not one thread could be started: slow is better than never.
            counted();
        } else if let Err(unsent) = self.sender.send(counted) {
            (unsent.0)();
        }
    }

    fn start_thread(&self) {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        if number >= THREADS_MAX {
            self.started.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let receiver = self.receiver.clone();
        let run = move || receiver.iter().for_each(|job: Job| job());
        if let Err(error) = std::thread::Builder::new()
            .name(format!("concord-work-{number}"))
            .spawn(run)
        {
            log::error!("cannot start worker thread {number}: {error}; slow requests wait for the others");
            self.started.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Default for Workers {
    fn default() -> Self {
        Workers::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_waiting_job_does_not_hold_up_the_next() {
        let workers = Workers::new();
        let (release, blocked) = crossbeam_channel::bounded::<()>(0);
        let (done, finished) = crossbeam_channel::unbounded();
        workers.run(move || {
            let _ = blocked.recv();
        });
        workers.run(move || done.send(()).unwrap());
        finished.recv_timeout(Duration::from_secs(5)).unwrap();
        drop(release);
    }

    #[test]
    fn a_panicking_job_costs_no_thread() {
        let workers = Workers::new();
        let (done, finished) = crossbeam_channel::unbounded();
        for _ in 0..2 * THREADS_MAX {
            workers.run(|| panic!("on purpose"));
        }
        for number in 0..THREADS_MAX {
            let done = done.clone();
            workers.run(move || done.send(number).unwrap());
        }
        for _ in 0..THREADS_MAX {
            finished.recv_timeout(Duration::from_secs(5)).unwrap();
        }
    }
}
