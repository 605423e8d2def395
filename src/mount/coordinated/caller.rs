//! Who is asking: from the thread that the request names to the process, its ancestors, and what history says about it.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::mount::tree::Caller;
use crate::os::proc;
use crate::session::{Opener, ProcId};
use crate::store::record::Who;

/// Descriptions kept; a project rarely has more writers alive at once.
const DESCRIPTIONS_MAX: usize = 1024;

/// Environment variable by which a program names the agent it works for.
const AGENT_VARIABLE: &str = "CONCORD_AGENT";

/// Command names of known agents; the nearest process of the lineage that has one of them names the agent.
const AGENT_COMMANDS: [&str; 12] = [
    "claude",
    "codex",
    "gemini",
    "aider",
    "qwen",
    "opencode",
    "goose",
    "cursor-agent",
    "cline",
    "crush",
    "amp",
    "copilot",
];

const UNKNOWN: ProcId = ProcId { tgid: 0, start: 0 };

/// The process that a request's thread belongs to.
pub fn process(caller: Caller) -> ProcId {
    known(caller.tid)
        .and_then(proc::thread_group)
        .and_then(proc::stat)
        .map_or(UNKNOWN, |stat| id(&stat))
}

/// The process and its ancestors: some ten files of /proc, so only asked for when somebody else holds the file.
pub fn opener(caller: Caller) -> Opener {
    let proc = process(caller);
    let ancestors = if proc.is_known() {
        proc::ancestors(proc.tgid)
    } else {
        Vec::new()
    };
    Opener {
        proc,
        ancestors: ancestors.iter().map(id).collect(),
    }
}

/// What history says about processes, remembered by process.
#[derive(Debug, Default)]
pub struct Descriptions {
    known: Mutex<HashMap<ProcId, (String, Option<String>)>>,
}

impl Descriptions {
    /// Describes a process for a version's record.
    pub fn of(&self, proc: ProcId, uid: u32) -> Who {
        let found = self.known.lock().get(&proc).cloned();
        let (command, agent) = found.unwrap_or_else(|| {
            let described = describe(proc);
            let mut known = self.known.lock();
            if known.len() >= DESCRIPTIONS_MAX {
                known.clear();
            }
            known.insert(proc, described.clone());
            described
        });
        Who {
            pid: proc.tgid,
            command,
            agent,
            uid,
        }
    }
}

fn describe(proc: ProcId) -> (String, Option<String>) {
    let Some(own) = proc::stat(proc.tgid).filter(|stat| stat.start == proc.start) else {
        return (String::new(), None);
    };
    let named = proc::environment(proc.tgid, AGENT_VARIABLE).map(|name| String::from_utf8_lossy(&name).into_owned());
    let command = String::from_utf8_lossy(&own.command).into_owned();
    let agent = named.or_else(|| agent_among(std::iter::once(own).chain(proc::ancestors(proc.tgid))));
    (command, agent)
}

fn agent_among(lineage: impl Iterator<Item = proc::Stat>) -> Option<String> {
    lineage.map(|stat| stat.command).find_map(|command| {
        AGENT_COMMANDS
            .iter()
            .find(|agent| agent.as_bytes() == command)
            .map(|agent| (*agent).to_owned())
    })
}

fn id(stat: &proc::Stat) -> ProcId {
    ProcId {
        tgid: stat.pid,
        start: stat.start,
    }
}

fn known(tid: u32) -> Option<u32> {
    (tid != 0).then_some(tid)
}
