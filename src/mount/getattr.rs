//! stat(2) and its kin: the attributes of a node, as the caller is to see them.

use std::sync::Arc;
use std::time::Duration;

use fuser::ReplyAttr;
use rustix::fs::Stat;
use rustix::io::{Errno, Result};

use super::attr;
use super::coordinated::Coordination;
use super::errno::reply_errno;
use super::fs::Fs;
use super::nodes::NodeId;
use super::tree::{Caller, Tree};

/// A node that changes its inode while it is asked about is asked about again, at most so often.
const OVERTAKEN_MAX: usize = 8;

impl Fs {
    /// GETATTR of any node, as this caller sees it.
    pub fn attributes(&self, caller: Caller, id: NodeId, reply: ReplyAttr) {
        if self.coordination.has_been_round(caller) || !self.coordination.is_anothers(caller, id) {
            return answer(&self.tree, &self.coordination, caller, id, reply);
        }
        let (tree, coordination) = (Arc::clone(&self.tree), Arc::clone(&self.coordination));
        self.tree
            .workers
            .run(move || match coordination.sends_round(caller, id) {
                true => reply.error(reply_errno(Errno::STALE)),
                false => answer(&tree, &coordination, caller, id, reply),
            });
    }

    /// The attributes of a file that grows are those of its whole lines, and change without the kernel.
    pub fn growing(&self, node: NodeId, stat: &mut Stat) -> bool {
        growing(&self.coordination, node, stat)
    }
}

fn answer(tree: &Tree, coordination: &Coordination, caller: Caller, id: NodeId, reply: ReplyAttr) {
    match shown(tree, coordination, caller, id) {
        Ok((ttl, stat)) => reply.attr(&ttl, &attr::attributes(id, &stat)),
        Err(error) => reply.error(reply_errno(error)),
    }
}

/// What the caller is shown, and how long the kernel may remember it.
fn shown(tree: &Tree, coordination: &Coordination, caller: Caller, id: NodeId) -> Result<(Duration, Stat)> {
    for _ in 0..OVERTAKEN_MAX {
        let before = tree.identity(id)?;
        let session = coordination.stat_of_session(caller, id);
        if let Some(stat) = session.or_else(|| coordination.stat_of_reader(caller, id)) {
            return Ok((Duration::ZERO, stat));
        }
        let mut stat = match tree.stat(id) {
            Err(Errno::STALE) => return Ok((Duration::ZERO, coordination.stat_of_name(id)?)),
            found => found?,
        };
        if tree.nodes.identity(id) != Some(before) {
            // A session has taken the node, and this may be its shadow.
            continue;
        }
        if tree.nodes.is_unlinked(id) {
            // A version that was replaced has its links in the history only.
            stat.st_nlink = 0;
        }
        let uncertain = growing(coordination, id, &mut stat)
            || coordination.is_passing(id)
            || coordination.has_readers_elsewhere(id)
            || coordination.is_shadow(id)
            || tree.is_image(id)
            // The kernel takes what this one is told for good even where it has changed the file meanwhile: it is an answer to a change.
            || tree.is_teller(caller.tid);
        let ttl = if uncertain {
            Duration::ZERO
        } else {
            tree.attr_ttl(before.private, &stat)
        };
        return Ok((ttl, stat));
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
