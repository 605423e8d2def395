//! Opening a file in order to append to it (W10).

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::append::{Appender, Held};
use super::close::Ending;
use super::files::{Finds, InHand};
use super::permission::Right;
use super::{Answer, Coordination, Target, Writer, caller};
use crate::content::lines::{self, LINE_BYTES_MAX};
use crate::mount::handles::{Handle, Ordinary};
use crate::mount::nodes::NodeId;
use crate::mount::tree::Caller;

impl Coordination {
    /// open(2) with O_APPEND and O_WRONLY. It asks no queue where the file is there, whoever writes it meanwhile: also who appends to what its own lineage
    /// has open for writing does not write to that shadow, where others could write over its lines, or between the parts of one.
    pub fn open_append(
        self: &Arc<Self>,
        caller: Caller,
        node: NodeId,
        target: Target,
        flags: OFlags,
        answer: Answer<Handle>,
    ) {
        let key = self.files.lock().key_of(&target.name);
        let busy = key.filter(|key| !self.files.lock().queue.is_idle(*key));
        let by_session = |answer: Answer<Handle>| {
            let answer = move |writer: Result<Arc<Writer>, Errno>| answer(writer.map(Handle::Writer));
            self.open_writer(caller, node, target.clone(), flags, Box::new(answer));
        };
        match self.stat(&target.name) {
            Err(Errno::NOENT) if busy.is_some_and(|key| self.nearest_of(key, &caller::opener(caller)).is_none()) => {
                let start = move |this: &Arc<Self>, found: &Target| {
                    let appender = this.start_appender(caller, node, found, flags)?;
                    Ok(Handle::Appender(Arc::new(appender)))
                };
                return self.await_creator(caller, node, target, flags, Box::new(start), answer);
            }
            Err(_) => return by_session(answer),
            Ok(_) if self.is_closing() => return answer(Err(Errno::BUSY)),
            Ok(_) => {}
        }
        if self.files.lock().session_on(node).is_some() {
            // By its own node it is not taken for one of those who have the session open.
            let in_hand = InHand::take(&self.files, &target.name);
            if self.files.lock().send_round_once(caller.tid, in_hand.key()) {
                return answer(Err(Errno::STALE));
            }
            if self.nearest_of(in_hand.key(), &caller::opener(caller)).is_some() {
                // It means this very shadow, and did not come by a name (/proc/self/fd).
                return by_session(answer);
            }
        }
        match self.start_appender(caller, node, &target, flags) {
            // It may be replaced, if not written to.
            Err(Errno::PERM) => by_session(answer),
            result => answer(result.map(|appender| Handle::Appender(Arc::new(appender)))),
        }
    }

    fn start_appender(&self, caller: Caller, node: NodeId, target: &Target, flags: OFlags) -> Result<Appender, Errno> {
        let file = self.open_reader(caller, node, target, Finds::Own(None))?;
        let started = self
            .attach(self.logs.of(&target.name))
            .map(|log| (log, caller::process(caller)));
        let (log, process) = match started {
            Ok(found) => found,
            Err(errno) => {
                self.tree.close(file);
                return Err(errno);
            }
        };
        self.adopt_node(node, &file, &target.name);
        let who = self.descriptions.of(process, caller.uid);
        Ok(Appender::new(file, (caller, process), who, target, flags, log))
    }
    /// A handle that creates its file has finished a line: the file appears, and the handle goes on as one that appends. Nothing happens to a
    /// session that others share.
    ///
    /// # Errors
    /// Those of a publish; what was written is in `recovered/` then.
    pub fn promote(self: &Arc<Self>, number: u64, writer: &Writer) -> Result<(), Errno> {
        let session = writer.session();
        let ready = session.staged(|staged| {
            let intact = !staged.unlinked && staged.failed.is_none() && staged.refused.is_none();
            Ok((intact && staged.handles == 1).then(|| staged.processes.clone()))
        });
        let Ok(Some(processes)) = ready else { return Ok(()) };
        let Some(staged) = session.take() else { return Ok(()) };
        let tail = take_tail(&staged.shadow.file);
        self.finish_taken(Arc::clone(&session), staged, Ending::Closed);
        session.settle()?;
        let (tail, log) = (tail?, self.attach(self.logs.of(&session.name()))?);
        let appender = Appender {
            file: Arc::new(Ordinary {
                node: session.about.node,
                pin: Arc::clone(&session.pin),
            }),
            right: Right::new(session.about.caller, session.about.process, session.pin.fd()),
            who: session.about.who.clone(),
            since: session.since,
            name: session.name(),
            policy: session.about.policy.clone(),
            sync: false,
            held: Mutex::new(Held::new(log, processes, false)),
        };
        {
            let mut held = appender.held.lock();
            self.keep(&mut held, &appender, &tail, 0)?;
            held.tail = tail;
        }
        self.tree.handles.replace(number, Handle::Appender(Arc::new(appender)));
        Ok(())
    }
}

/// Cuts off what follows the last newline of a file.
fn take_tail(file: &File) -> Result<Vec<u8>, Errno> {
    let length = rustix::fs::fstat(file)?.st_size.max(0) as u64;
    let from = length.saturating_sub(LINE_BYTES_MAX as u64);
    let end = super::staged::read_at(file.as_fd(), from, LINE_BYTES_MAX)?;
    let (_, tail) = lines::split(&end);
    rustix::fs::ftruncate(file, length - tail.len() as u64)?;
    Ok(tail.to_vec())
}
