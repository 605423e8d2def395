//! `concord.toml` and the built-in rules: the policy of a path. Pure.

use std::time::Duration;

/// How far a publish waits for the disk (contract F2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Content is on disk before its rename, the rename before close returns 0.
    Full,
    /// Content before the rename; the rename is not awaited.
    Atomic,
    /// Neither is awaited.
    Fast,
}

/// What happens when a process replaces a version that it had not seen (contract W13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStale {
    /// Three-way merge.
    Merge,
    /// ESTALE at close; the shadow is kept.
    Refuse,
    /// Publish, and record it.
    Allow,
}

/// What the rules say about one coordinated path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long an open for writing waits before EBUSY.
    pub wait: Duration,
    /// A holder that others wait for is discarded after this long.
    pub lease_max: Duration,
    /// Versions kept, the current one not counted.
    pub keep: u32,
    /// Versions older than this go.
    pub max_age: Option<Duration>,
    /// Bytes of kept versions of one file.
    pub max_bytes: Option<u64>,
    /// See [`Durability`].
    pub durability: Durability,
    /// See [`OnStale`].
    pub on_stale: OnStale,
}
