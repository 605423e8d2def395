//! The waits-for graph over all files (contract, W4).
//!
//! # The graph
//!
//! Nodes are processes. A waiter's *lineage* is its process and that one's ancestors. For a waiter `w` of file `F`
//! there is an edge from every process that `w` *halts* to
//!
//! 1. each process that holds a session on `F`, and
//! 2. each process with a request in `F`'s line ahead of `w`'s *place*: ahead of the first request whose process is
//!    in `w`'s lineage (`w` itself, when no other is). Those between that request and `w` are not waited for: when
//!    that request is admitted, `w` is admitted in the same step.
//!
//! # Who is halted
//!
//! Those of `w`'s lineage that have one thread only. Who waits in open(2) does nothing else with it, and a parent counts
//! as blocked when one of its descendants waits: a shell holds `{ cmd; } > F` open until `cmd` ends. That is a decision,
//! not a theorem: a parent that would have closed its file without waiting for the child is taken for blocked as well.
//!
//! A process with more threads goes on: what it holds another thread may close, and two programs that save the same two
//! files at once, with a thread for each, do not wait for each other. Nor does an agent that writes one file while its
//! child waits for another. Which thread opened a session says nothing about which will close it: libuv's pool and Go's
//! scheduler carry one task from thread to thread. So a deadlock by a process with threads is not seen, and the bounded
//! wait (W2) ends it. The other error would be a save that fails without need.
//!
//! Instant sessions are holders like others, though the daemon itself ends them: their kin is admitted with them, and
//! would else have to be told apart from them. So a rename(2) by a process with threads that has one of its names and
//! waits for the other halts nobody either.
//!
//! # A cycle is a deadlock
//!
//! Take a cycle p1 → p2 → … → p1, edge i made by waiter `w_i` (which halts p_i) on file `F_i`. Suppose
//! nobody gives up, and let `w_i` be the first of these waiters to be admitted. If p(i+1) held a session on `F_i`, it
//! has closed it; but it is blocked as long as `w_(i+1)` waits, and that still does. If p(i+1) had a request ahead of
//! `w_i`'s place, that request was admitted earlier and its session closed (line order; it is no kin of `w_i`, or
//! it would not be ahead of the place). If that request is `w_(i+1)`, then `w_i` was not the first; if not, then
//! p(i+1) closed a session while `w_(i+1)` kept it blocked. So none is ever admitted. With rule 2 for *all* requests
//! ahead this would be false: a thread that waits behind a stranger behind its own process's first thread does not
//! wait for the stranger.
//!
//! # A deadlock is a cycle
//!
//! If every waiter of a set waits for ever, each one's file is held by, or will go first to, a process that never
//! closes because it is halted by a waiter of the set; following these edges in a finite set ends in a cycle.
//! Rule 2 is what shows it *early*. Process V has a request in the line of F, and another one for G, held by W. When W
//! opens F, behind V, nobody holds F who is blocked by W; yet as soon as V is admitted to F, V and W wait for each other.
//!
//! # When edges appear
//!
//! The graph is looked at only when an edge may appear, so each way has to be named.
//!
//! - An open that waits: looked at ([`Queue::closes_cycle`]); the newcomer stands last, so only its own edges are new.
//! - A request is admitted: the edges to it as a waiter become edges to it as a holder. Nothing new.
//! - A request further behind is admitted with it, as its kin; or somebody gets a session beside a holder of its
//!   lineage (W3). Those in line now wait for a process C, too, which descends from a holder P that they waited for
//!   already. Whatever halts C has C in its lineage, and with it C's ancestor P. If it halts P too, each cycle through C
//!   was a cycle through P before. (This takes lineages at their word: they were read while the processes lived, and an
//!   ancestor that ended holds no place in a line. Where /proc was read in a bad moment, the bounded wait still ends it.)
//!   If it does not, because P has threads, a cycle may close here. It is *left out*: C got in while a descendant of it
//!   waits, so C, with its one thread, was not waiting for that descendant. Likewise when C joins the session of such a
//!   P: it is no holder then. A cycle that stands refuses nobody but who closes one himself.
//! - A waiter leaves without being admitted (cancelled, timed out, refused): kin behind it that had its place fall
//!   back to a later one, and now wait for strangers in between. These are looked at again, in order of arrival, and
//!   the one that closes a cycle is refused.
//! - Somebody inherits a session: all in line wait for the heir, too. They are looked at again in the same way.
//!
//! The last two are the only ways that a cycle can close without a new open.
//!
//! # Cost
//!
//! The search goes backwards, from those whom the opener halts to those who wait for them. Nearly always nobody does, and it
//! ends at once, however long the line is. Each waiter is looked at once at most.

use std::collections::{HashMap, HashSet};

use super::line::Arrival;
use super::queue::Queue;
use super::types::{FileKey, ProcId};

impl Queue {
    /// Whether a waiter of `file` that halts these, and has this place, closes a cycle: whether somebody it waits for
    /// waits, directly or through others, for one of those.
    pub(super) fn closes_cycle(&self, file: FileKey, halted: &[ProcId], place: Arrival) -> bool {
        let mut seen: HashSet<ProcId> = halted.iter().copied().collect();
        let mut todo: Vec<ProcId> = halted.to_vec();
        // For each file, from which place on its waiters have been looked at.
        let mut looked_from: HashMap<FileKey, Arrival> = HashMap::new();
        while let Some(proc) = todo.pop() {
            for &at in self.whereabouts.get(&proc).into_iter().flatten() {
                let Some(line) = self.lines.get(&at) else { continue };
                let Some(from) = line.waited_for_from(proc) else {
                    continue;
                };
                if at == file && place >= from {
                    return true;
                }
                let looked = looked_from.entry(at).or_insert(Arrival::MAX);
                let halted = line.placed(from, *looked).flat_map(|waiter| &waiter.request.halted);
                todo.extend(halted.filter(|&&p| seen.insert(p)));
                *looked = from.min(*looked);
            }
        }
        false
    }
}
