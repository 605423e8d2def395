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
use super::open::NOT_BEGUN;
use super::permission::{self, Right};
use super::session::{Life, Session};
use super::{Answer, Coordination, Target, Writer, caller};
use crate::content::lines::{self, LINE_BYTES_MAX};
use crate::mount::attr;
use crate::mount::file::BY_DAEMON;
use crate::mount::handles::{Handle, Ordinary};
use crate::mount::nodes::NodeId;
use crate::mount::pin;
use crate::mount::tree::Caller;
use crate::session::FileKey;

/// How often an open is tried anew when its file is renamed meanwhile.
const OVERTAKEN_MAX: u32 = 8;

/// What the caller's own lineage is creating.
enum Created {
    /// By this session, which may be just ending.
    Session(Arc<Session>),
    /// By one that was admitted and has not begun.
    Coming,
}

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
        if self.logs.is_free(&target.name) {
            return self.open_append_now(caller, node, target, flags, answer);
        }
        // Somebody publishes, removes or renames it, for as long as the disk takes.
        let this = Arc::clone(self);
        self.tree
            .workers
            .run(move || this.open_append_now(caller, node, target, flags, answer));
    }

    /// The file may be renamed or removed at each step. A thread that has come by the way that it was sent on cannot be sent round again: it opens what the name
    /// leads to by now. Another one opens the file that it found, as anywhere, by the coordinated name that this has by now, or is sent round if it has none.
    fn open_append_now(
        self: &Arc<Self>,
        caller: Caller,
        node: NodeId,
        mut target: Target,
        flags: OFlags,
        answer: Answer<Handle>,
    ) {
        let mut rounds = 0;
        loop {
            let by_session = |answer: Answer<Handle>| {
                let answer = move |writer: Result<Arc<Writer>, Errno>| answer(writer.map(Handle::Writer));
                self.open_writer(caller, node, target.clone(), flags, Box::new(answer));
            };
            let in_hand = InHand::take(&self.files, &target.name);
            let key = in_hand.key();
            let is_back = self.files.lock().is_back_on_own(caller.tid, key, node);
            let is_own = || self.nearest_of(key, &caller::opener(caller)).is_some();
            let is_there = match self.stat(&target.name) {
                Err(Errno::NOENT) => match self.created_by_own(caller, key) {
                    Some(created) => return self.open_created(caller, node, target, flags, created, answer),
                    None => false,
                },
                Err(_) => return by_session(answer),
                Ok(_) if self.is_closing() => return answer(Err(Errno::BUSY)),
                Ok(_) => true,
            };
            if is_there && self.files.lock().session_on(node).is_some() {
                // By its own node it is not taken for one of those who have the session open.
                if self.goes_round_once(caller, (key, node)) {
                    return answer(Err(Errno::STALE));
                }
                if is_own() {
                    // It means this very shadow, and did not come by a name (/proc/self/fd).
                    return by_session(answer);
                }
            }
            if is_there {
                match self.start_appender(caller, (node, is_back), &target, flags) {
                    Err(Errno::PERM) if self.is_append_only(&target) => {
                        let opened = self.tree.open(caller, node, flags, BY_DAEMON);
                        return answer(opened.map(Handle::Ordinary));
                    }
                    // It may be replaced, if not written to.
                    Err(Errno::PERM) => return by_session(answer),
                    Err(Errno::STALE) if !is_back => return answer(Err(Errno::STALE)),
                    Err(Errno::NOENT | Errno::STALE) => {}
                    result => return answer(result.map(|appender| Handle::Appender(Arc::new(appender)))),
                }
            }
            rounds += 1;
            match (is_back, self.goes_on_as(node, &target)) {
                (false, Some(renamed)) if rounds < OVERTAKEN_MAX => target = renamed,
                (false, _) if caller.tid != 0 => {
                    self.go_round(caller, (key, node), Finds::Own(None));
                    return answer(Err(Errno::STALE));
                }
                (true, _) if is_there && rounds < OVERTAKEN_MAX => {}
                (_, _) => break,
            }
        }
        self.append_or_create(caller, node, target, flags, answer);
    }

    /// Whether a file cannot be replaced, nor a line that was torn be taken back (chattr(1), `a`): what is appended to it goes there as anywhere.
    fn is_append_only(&self, target: &Target) -> bool {
        let live = self.live_of(&target.name);
        let restrictions = live.and_then(attr::restrictions);
        restrictions.is_ok_and(|found| found == rustix::fs::StatxAttributes::APPEND)
    }

    /// Has the file to itself for a moment, after whoever creates it: either it is there then, or this is the one that creates it.
    fn append_or_create(
        self: &Arc<Self>,
        caller: Caller,
        node: NodeId,
        target: Target,
        flags: OFlags,
        answer: Answer<Handle>,
    ) {
        let start = move |this: &Arc<Self>, found: &Target| {
            let appender = this.start_appender(caller, (node, true), found, flags)?;
            Ok(Handle::Appender(Arc::new(appender)))
        };
        self.await_creator(caller, node, target, flags, Box::new(start), answer);
    }

    /// The session by which the caller's own lineage is creating a file that is not there.
    fn created_by_own(&self, caller: Caller, key: FileKey) -> Option<Created> {
        if self.files.lock().queue.is_idle(key) {
            return None;
        }
        let opener = caller::opener(caller);
        if let Some(session) = self.nearest_shown(key, &opener) {
            return Some(Created::Session(session));
        }
        let files = self.files.lock();
        let is_coming = |session: &crate::session::Session| {
            let is_own = session.proc == opener.proc || opener.ancestors.contains(&session.proc);
            is_own && session.proc.is_known() && !session.is_instant() && files.session(session.id).is_none()
        };
        files.queue.sessions(key).any(is_coming).then_some(Created::Coming)
    }

    /// What its lineage is creating, who appends joins. When that is over the file is there, and is appended to like any other.
    fn open_created(
        self: &Arc<Self>,
        caller: Caller,
        node: NodeId,
        target: Target,
        flags: OFlags,
        created: Created,
        answer: Answer<Handle>,
    ) {
        let in_hand = InHand::take(&self.files, &target.name);
        let key = in_hand.key();
        if let Created::Session(session) = &created {
            // Its node is what a walk leads its lineage to.
            if session.is_open() && session.about.node != node && self.goes_round_once(caller, (key, node)) {
                return answer(Err(Errno::STALE));
            }
            if session.join(caller::process(caller)).is_ok() {
                self.arrived(caller, key, node);
                return answer(Ok(Handle::Writer(Arc::new(Writer::new(node, Arc::clone(session))))));
            }
        }
        let this = Arc::clone(self);
        self.tree.workers.run(move || match created {
            Created::Session(session) if matches!(session.settle(), Ok(Life::Open)) => {
                // Its name was removed, and means another file now.
                this.append_or_create(caller, node, target, flags, answer);
            }
            Created::Session(_) => this.open_append_now(caller, node, target, flags, answer),
            Created::Coming => {
                std::thread::sleep(NOT_BEGUN);
                this.open_append_now(caller, node, target, flags, answer);
            }
        });
    }

    /// By which other coordinated name a node's file goes on.
    fn goes_on_as(&self, node: NodeId, target: &Target) -> Option<Target> {
        self.target_of(node).filter(|found| found.name != target.name)
    }

    /// `own`: the node was made for this thread.
    fn start_appender(
        &self,
        caller: Caller,
        (node, own): (NodeId, bool),
        target: &Target,
        flags: OFlags,
    ) -> Result<Appender, Errno> {
        let file = match own {
            true => Arc::new(self.open_current(caller, node, target, permission::wanted(flags))?),
            false => self.open_reader(caller, node, target, Finds::Own(None))?,
        };
        let process = caller::process(caller);
        let mut log = self.logs.of(&target.name);
        if let Err(errno) = self.attach(&mut log) {
            self.tree.close(file);
            return Err(errno);
        }
        if own {
            let in_hand = InHand::take(&self.files, &target.name);
            self.arrived(caller, in_hand.key(), node);
        }
        self.adopt_node(node, &file, &target.name);
        let who = self.descriptions.of(process, caller.uid);
        let rights = self.rights_of(caller, &target.name, &file.pin);
        Ok(Appender::new(file, (caller, process, rights), who, target, flags, log))
    }
    /// A handle that creates its file has finished a line: the file appears, and the handle goes on as one that appends. Nothing happens to a
    /// session that others share.
    ///
    /// # Errors
    /// Those of a publish; what was written is in `recovered/` then.
    pub fn promote(self: &Arc<Self>, number: u64, writer: &Writer) -> Result<(), Errno> {
        let session = writer.session();
        let ready = session.staged(|staged| {
            let intact = !staged.unlinked && staged.failure().is_none();
            Ok((intact && staged.handles == 1).then(|| staged.processes.clone()))
        });
        let Ok(Some(processes)) = ready else { return Ok(()) };
        let Some(staged) = session.take() else { return Ok(()) };
        let tail = take_tail(&staged.shadow.file);
        // From the moment in which it appears, the file may be renamed or removed.
        let mut log = self.logs.of(&session.name());
        self.await_file(&mut log);
        self.finish_taken(Arc::clone(&session), staged, Ending::Closed);
        let tail = match session.settle().and(tail) {
            Ok(tail) => tail,
            Err(errno) => {
                self.detach(&mut log);
                return Err(errno);
            }
        };
        let appender = Appender {
            file: Arc::new(Ordinary {
                node: session.about.node,
                pin: session.pin(),
                access: pin::Access::Write,
            }),
            right: Right::new(
                session.about.caller,
                session.about.process,
                session.pin().fd(),
                session.about.rights.clone(),
            ),
            who: session.about.who.clone(),
            since: session.since,
            name: session.name(),
            path: self.path_of(&session.name()).unwrap_or_default(),
            policy: session.about.policy.clone(),
            sync: false,
            overtaken: Mutex::new(None),
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
