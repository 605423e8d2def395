//! stat(2) and its kin: the attributes of a node, as the caller is to see them.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use fuser::ReplyAttr;
use rustix::fs::Stat;
use rustix::io::{Errno, Result};

use super::attr;
use super::coordinated::{Coordination, Shown};
use super::entry::Entry;
use super::errno::reply_errno;
use super::fs::Fs;
use super::handles::Handle;
use super::nodes::NodeId;
use super::notices;
use super::tree::{Caller, Tree};
use crate::os::syscall;

/// A node that changes its inode while it is asked about is asked about again, at most so often.
const OVERTAKEN_MAX: usize = 8;

impl Fs {
    /// GETATTR of any node, as this caller sees it; by a `handle` where it is lseek(2) that asks: fstat(2) names none (kernel-facts, 6).
    pub fn attributes(&self, caller: Caller, id: NodeId, handle: Option<u64>, reply: ReplyAttr) {
        let ends_at = handle.and_then(|number| match self.tree.handles.get(number) {
            Ok(Handle::Reader(reader)) => self.coordination.measured(&reader),
            Ok(Handle::Writer(writer)) => {
                writer.measured();
                None
            }
            _ => None,
        });
        if self.coordination.comes_to_wait(caller, id) {
            let (tree, coordination) = (Arc::clone(&self.tree), Arc::clone(&self.coordination));
            let admitted = move |admitted: Result<()>| {
                let found = admitted.and_then(|()| shown(&tree, &coordination, caller, (id, true)));
                answer(
                    tree.nodes.number(id),
                    found.and_then(|found| found.ok_or(Errno::STALE)),
                    reply,
                );
            };
            return self.coordination.wait_there(caller, id, Box::new(admitted));
        }
        let insists = self.coordination.has_been_round(caller, id);
        let found = shown(&self.tree, &self.coordination, caller, (id, insists));
        if insists {
            self.coordination.end_round(caller);
        }
        let ends = move |(ttl, stat)| at_least(ends_at, ttl, stat);
        match found.map(|found| found.map(ends)) {
            Ok(Some((ttl, mut stat))) if self.may_be_linked(caller, id, &stat) => {
                let shown = self.tree.nodes.number(id);
                self.tree.workers.run(move || {
                    // link(2) asks what the caller may do with the file. It is refused without asking us if that has no name, but is about the file that has it now.
                    if syscall::is_link(caller.tid) {
                        stat.st_nlink += 1;
                    }
                    answer(shown, Ok((ttl, stat)), reply);
                });
            }
            Ok(Some(found)) => {
                let shown = self.tree.nodes.number(id);
                let outdated = self.coordination.outdated_by_size(id, found.1.st_size);
                self.after_pages(outdated, move || answer(shown, Ok(found), reply));
            }
            Ok(None) => {
                let (tree, coordination) = (Arc::clone(&self.tree), Arc::clone(&self.coordination));
                self.tree.workers.run(move || {
                    let found = shown_or_sent_round(&tree, &coordination, caller, id);
                    answer(
                        tree.nodes.number(id),
                        found.and_then(|found| found.map(ends).ok_or(Errno::STALE)),
                        reply,
                    );
                });
            }
            Err(error) => reply.error(reply_errno(error)),
        }
    }

    /// LOOKUP of a node by the name that it has for the process which tells watchers: see [`super::notices`]. `None`: it is another name.
    pub fn node_told_of(&self, caller: Caller, parent: NodeId, name: &OsStr) -> Option<Result<Entry>> {
        let private = self.tree.identity(parent).is_ok_and(|identity| identity.private);
        if private && Some(name) == notices::probe().file_name() {
            return Some(Err(notices::MOUNTED));
        }
        let id = notices::node_named(name).filter(|_| private)?;
        let found = shown(&self.tree, &self.coordination, caller, (id, true)).and_then(|found| {
            let (_, stat) = found.ok_or(Errno::STALE)?;
            let known = self.tree.nodes.look_up_again(id);
            let private = false;
            known.then_some(Entry { id, stat, private }).ok_or(Errno::NOENT)
        });
        Some(found)
    }

    /// Whether a node is a replaced version, and somebody asks who may have found it when it was the current one; or the kernel may be about to count its last link down,
    /// when it learns that another is gone.
    fn may_be_linked(&self, caller: Caller, id: NodeId, stat: &Stat) -> bool {
        let is_replaced = || self.tree.nodes.is_detached(id) && self.coordination.target_of(id).is_some();
        let may = match stat.st_nlink {
            0 => is_replaced(),
            1 => self.coordination.is_left_by_name(id),
            _ => false,
        };
        may && caller.tid != 0 && !self.tree.is_teller(caller.tid)
    }

    /// The attributes of a file that grows are those of its whole lines, and change without the kernel.
    pub fn growing(&self, node: NodeId, stat: &mut Stat) -> bool {
        growing(&self.coordination, node, stat)
    }
}

/// The answer to who has come to a node that is somebody else's shadow. Only for worker threads.
fn shown_or_sent_round(
    tree: &Tree,
    coordination: &Coordination,
    caller: Caller,
    id: NodeId,
) -> Result<Option<(Duration, Stat)>> {
    if coordination.walks_again(caller) {
        for _ in 0..OVERTAKEN_MAX {
            if coordination.send_round(caller, id) {
                return Err(Errno::STALE);
            }
            // The session is over, though the next one may begin just now.
            if let Some(found) = shown(tree, coordination, caller, (id, false))? {
                return Ok(Some(found));
            }
        }
    }
    shown(tree, coordination, caller, (id, true))
}

/// The attributes of who reads a longer version than the node stands for.
fn at_least(size: Option<i64>, ttl: Duration, mut stat: Stat) -> (Duration, Stat) {
    match size.filter(|size| *size > stat.st_size) {
        Some(size) => {
            stat.st_size = size;
            (Duration::ZERO, stat)
        }
        None => (ttl, stat),
    }
}

fn answer(id: NodeId, found: Result<(Duration, Stat)>, reply: ReplyAttr) {
    match found {
        Ok((ttl, stat)) => reply.attr(&ttl, &attr::attributes(id, &stat)),
        Err(error) => reply.error(reply_errno(error)),
    }
}

/// What the caller is shown, and how long the kernel may remember it. `None`: somebody else's shadow, unless the caller `insists`.
fn shown(
    tree: &Tree,
    coordination: &Coordination,
    caller: Caller,
    (id, insists): (NodeId, bool),
) -> Result<Option<(Duration, Stat)>> {
    for _ in 0..OVERTAKEN_MAX {
        let before = tree.identity(id)?;
        let session = match coordination.shown(caller, id) {
            Shown::Stat(stat) => Some(stat),
            Shown::Anothers if !insists => return Ok(None),
            Shown::Anothers => coordination.stat_of_session(caller, id),
            Shown::Version => None,
        };
        if let Some(stat) = session.or_else(|| coordination.stat_of_appender(caller, id)) {
            return Ok(Some((Duration::ZERO, stat)));
        }
        coordination.follow(id);
        let mut stat = match tree.stat(id) {
            Err(Errno::STALE) => {
                let found = coordination.stat_of_name(caller, id);
                let found = found.or_else(|_| coordination.stat_of_promised(caller, id));
                return Ok(Some((Duration::ZERO, found?)));
            }
            found => found?,
        };
        if tree.nodes.identity(id) != Some(before) {
            // A session has taken the node, and this may be its shadow.
            continue;
        }
        if !coordination.is_passing(id) {
            stat.st_nlink = tree.nodes.links(id, stat.st_nlink);
        }
        // A session that is just being published in place has no shadow any more, and its node does not stand for the file yet, which has a name: the kernel would not link it.
        let is_between = stat.st_nlink == 0 && !tree.nodes.is_detached(id) && coordination.target_of(id).is_some();
        if is_between {
            stat.st_nlink = 1;
        }
        let uncertain = growing(coordination, id, &mut stat)
            || is_between
            || coordination.is_left_by_name(id)
            || coordination.is_passing(id)
            || coordination.has_unsettled_readers(id)
            || coordination.has_appenders_elsewhere(id)
            || coordination.is_shadow(id)
            || tree.is_image(id)
            // The kernel takes what this one is told for good even where it has changed the file meanwhile: it is an answer to a change.
            || tree.is_teller(caller.tid);
        let ttl = if uncertain {
            Duration::ZERO
        } else {
            tree.attr_ttl(id, before.private, &stat)
        };
        return Ok(Some((ttl, stat)));
    }
    Err(Errno::STALE)
}

fn growing(coordination: &Coordination, node: NodeId, stat: &mut Stat) -> bool {
    let committed = coordination.growing(node);
    if let Some(committed) = committed {
        stat.st_size = stat.st_size.min(committed as i64);
    }
    committed.is_some()
}
