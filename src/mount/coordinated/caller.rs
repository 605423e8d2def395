//! Who is asking: from the thread that the request names to the process, its ancestors, and what history says about it.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::mount::tree::Caller;
use crate::os::proc::{self, Process};
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

/// A process of another pid namespace, which the kernel cannot name to us.
pub const UNKNOWN: ProcId = ProcId { tgid: 0, unique: 0 };
/// What records and `status` say of it instead of a command.
pub const UNKNOWN_COMMAND: &str = "unknown (other pid namespace)";

/// The process that a request's thread belongs to.
pub fn process(caller: Caller) -> ProcId {
    find(caller).map_or(UNKNOWN, |process| id(&process))
}

/// The process of this id, if there is one.
pub fn process_of(pid: u32) -> Option<ProcId> {
    proc::process(pid).as_ref().map(id)
}

/// The process and its ancestors; only asked for when somebody else holds the file.
pub fn opener(caller: Caller) -> Opener {
    let process = find(caller);
    Opener {
        proc: process.as_ref().map_or(UNKNOWN, id),
        ancestors: process
            .iter()
            .flat_map(proc::ancestors)
            .map(|process| id(&process))
            .collect(),
        halted: Vec::new(),
    }
}

/// Those of an opener's lineage that stand still while it waits: with one thread only. What cannot be seen does not.
pub fn halted(opener: &Opener) -> Vec<ProcId> {
    let mut lineage = opener.lineage();
    lineage.retain(|process| proc::is_single_threaded(process.tgid));
    lineage
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

/// Command and agent. `proc` waits for our answer, in a system call that is not execve(2): its environment can be read.
fn describe(proc: ProcId) -> (String, Option<String>) {
    if proc == UNKNOWN {
        return (UNKNOWN_COMMAND.to_owned(), None);
    }
    let Some(own) = proc::process(proc.tgid).filter(|own| own.unique == proc.unique) else {
        return (String::new(), None);
    };
    let command = proc::command(own.pid).unwrap_or_default();
    let agent = match proc::environment(own.pid, AGENT_VARIABLE) {
        Some(name) => Some(String::from_utf8_lossy(&name).into_owned()),
        None => known_agent(&command).or_else(|| {
            let ancestors = proc::ancestors(&own).into_iter();
            ancestors
                .filter_map(|parent| proc::command(parent.pid))
                .find_map(|name| known_agent(&name))
        }),
    };
    (String::from_utf8_lossy(&command).into_owned(), agent)
}

fn known_agent(command: &[u8]) -> Option<String> {
    let known = AGENT_COMMANDS.iter().find(|agent| agent.as_bytes() == command);
    known.map(|agent| (*agent).to_owned())
}

fn find(caller: Caller) -> Option<Process> {
    (caller.tid != 0).then(|| proc::process(caller.tid)).flatten()
}

fn id(process: &Process) -> ProcId {
    ProcId {
        tgid: process.pid,
        unique: process.unique,
    }
}
