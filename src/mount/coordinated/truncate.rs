//! truncate(2) by path (W8).

use std::sync::Arc;

use rustix::fs::Stat;
use rustix::io::Errno;

use super::begin::Beginning;
use super::close::Ending;
use super::files::{Finds, Granted, InHand, Need};
use super::permission::{LetIn, Rights};
use super::session::Session;
use super::wait::Claim;
use super::{Answer, Coordination, Target};
use crate::mount::nodes::{Identity, NodeId};
use crate::mount::tree::Caller;
use crate::session::Intent;
use crate::store::record::How;

/// What truncate(2) is to do.
struct Cut {
    node: NodeId,
    /// The thread has the node to itself.
    own_node: bool,
    /// As in `open.rs`, `Came`.
    seen: Option<Identity>,
    rights: Option<Rights>,
    len: u64,
}

impl Coordination {
    /// truncate(2) by path: a version of its own.
    ///
    /// Answers ESTALE to a thread that must wait, or whose node others have open, as [`Coordination::open_writer`] does.
    pub fn truncate(self: &Arc<Self>, caller: Caller, node: NodeId, target: Target, len: u64, answer: Answer<Stat>) {
        let in_hand = InHand::take(&self.files, &target.name);
        let key = in_hand.key();
        let seen = self.tree.nodes.identity(node);
        let reroute = self.arrived_on_own(caller, key, node);
        let opener = self.opener_for(caller, key);
        // One whose name was removed, or replaced, is not what the path leads to.
        if let Some(own) = self.nearest_of(key, &opener).filter(|own| own.shown().is_some()) {
            let this = Arc::clone(self);
            return self.tree.workers.run(move || {
                let set = caller.changes(own.pin().fd(), || own.set_len(&this.store, len));
                answer(set.and_then(|()| own.staged(|staged| staged.stat())));
            });
        }
        let in_the_way = || {
            let files = self.files.lock();
            reroute.is_none() && (!files.queue.is_idle(key) || files.expects(key) || self.tree.is_open(node))
        };
        if !self.takes_over(node, reroute.is_some(), in_the_way) {
            self.go_round(caller, (key, node), Finds::Own(None));
            return answer(Err(Errno::STALE));
        }
        if reroute.is_none() && self.has_entry_renewed(caller, key, node) {
            return answer(Err(Errno::STALE));
        }
        let claim = Claim {
            file: key,
            caller,
            opener,
            intent: Intent::Truncate,
            nonblock: false,
        };
        let own_node = reroute.is_some();
        let cut = Cut {
            node,
            own_node,
            seen,
            rights: self.rights_before(caller, key, (&target.name, seen), own_node),
            len,
        };
        self.cut_in_turn(target, claim, cut, answer);
    }

    fn cut_in_turn(self: &Arc<Self>, target: Target, claim: Claim, cut: Cut, answer: Answer<Stat>) {
        let again = Claim {
            opener: claim.opener.clone(),
            ..claim
        };
        let (this, awaited) = (Arc::clone(self), target.clone());
        let resume = move |granted: Result<Granted, Errno>| {
            let Granted { id, waited, .. } = match granted {
                Ok(granted) => granted,
                Err(errno) => return answer(Err(errno)),
            };
            let elsewhere = cut.own_node.then(|| this.led_elsewhere(cut.node, &target)).flatten();
            if let Some(target) = elsewhere {
                return Arc::clone(&this.tree).workers.run(move || {
                    this.release(id, again.file);
                    let in_hand = InHand::take(&this.files, &target.name);
                    let file = in_hand.key();
                    this.cut_in_turn(target, Claim { file, ..again }, Cut { seen: None, ..cut }, answer);
                });
            }
            let (how, creates) = (How::Truncate, None);
            let beginning = Beginning {
                id,
                file: again.file,
                node: Some(cut.node),
                caller: again.caller,
                process: again.opener.proc,
                how,
                truncate: cut.len == 0,
                creates,
                like: None,
                dressed_as: None,
                own_node: cut.own_node,
                let_in: LetIn::since(cut.seen, cut.rights, waited),
                wanted: rustix::fs::Access::WRITE_OK,
            };
            let session = match this.begin(&target, beginning) {
                Ok(session) => session,
                Err(errno) => return answer(Err(errno)),
            };
            let that = Arc::clone(&this);
            this.tree
                .workers
                .run(move || answer(that.truncate_now(&session, cut.len)));
        };
        self.acquire_for(Need::Change, &awaited, claim, Box::new(resume));
    }

    pub(super) fn truncate_now(self: &Arc<Self>, session: &Arc<Session>, len: u64) -> Result<Stat, Errno> {
        let caller = session.about.caller;
        let set = caller.changes(session.pin().fd(), || session.set_len(&self.store, len));
        let why = if set.is_ok() { Ending::Closed } else { Ending::Killed };
        let ended = self.end_now(session, why);
        let stat = rustix::fs::fstat(session.pin().fd());
        set.and(ended).and(stat)
    }
}
