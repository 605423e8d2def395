//! A service for the tests of this room and of the command line.

use std::path::Path;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::*;

/// Answers with [`status`], restores versions up to 9, and writes down what it was told to unmount.
#[derive(Default)]
pub struct FakeService {
    pub unmounts: Mutex<Vec<(Unmounting, Peer)>>,
}

impl Service for FakeService {
    fn status(&self) -> Status {
        status()
    }

    fn restore(&self, file: &Path, version: u64, _: Peer) -> Result<Restored, Refused> {
        if version > 9 {
            return Err(Refused::new(
                RefusedKind::NotFound,
                format!("version {version} is not kept"),
            ));
        }
        Ok(Restored {
            file: file.into(),
            from: version,
            version: version + 1,
            bytes: 5,
        })
    }

    fn unmount(&self, how: Unmounting, peer: Peer) -> Result<(), Refused> {
        self.unmounts.lock().push((how, peer));
        Ok(())
    }

    fn recovered(&self) -> Vec<Kept> {
        status().recovered
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// A moment that golden strings can name: 2023-11-14T22:13:20Z.
pub fn moment() -> JsonTime {
    JsonTime(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
}

/// A status with something in every list.
pub fn status() -> Status {
    let kept = |path: &str, why: &str| Kept {
        path: path.into(),
        time: moment(),
        why: why.into(),
        kept: format!(".concord/recovered/7-{path}").into(),
        bytes: 12,
        pid: 43,
        command: "sed".into(),
    };
    Status {
        mountpoint: "/p".into(),
        backing: "/p".into(),
        pid: 40,
        since: moment(),
        features: vec![
            Feature {
                name: "passthrough".into(),
                on: true,
            },
            Feature {
                name: "resend".into(),
                on: false,
            },
        ],
        rules: None,
        rules_error: None,
        rules_pending: vec![],
        sessions: vec![SessionStatus {
            file: "docs/plan.md".into(),
            pid: 41,
            command: "python3".into(),
            agent: Some("planner".into()),
            held_ms: 1500,
            state: "open".into(),
            waiting: vec![Waiter {
                pid: 42,
                command: "vim".into(),
                waited_ms: 250,
            }],
        }],
        locks: vec![LockStatus {
            file: Some("c.json".into()),
            held: vec![party(43, "cargo", "exclusive", 2000)],
            waiting: vec![party(0, "unknown (other pid namespace)", "shared", 250)],
        }],
        counts: Counts {
            publishes: 12,
            waits: 3,
            ..Counts::default()
        },
        incidents: Vec::new(),
        refused: vec![kept("a.json", "disk full")],
        recovered: vec![kept("b.md", "the writer was killed")],
    }
}

fn party(pid: u32, command: &str, kind: &str, for_ms: u64) -> LockParty {
    LockParty {
        pid,
        command: command.into(),
        kind: kind.into(),
        for_ms,
    }
}
