//! What is written down about a version and about what was recovered.

use serde::{Deserialize, Serialize};

/// Who wrote (contract H2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Thread group id, 0 when unknown.
    pub pid: u32,
    /// Command name (`comm`), empty when unknown.
    pub command: String,
    /// The agent the process belongs to, where it can be told.
    pub agent: Option<String>,
    /// The caller's user id.
    pub uid: u32,
}

/// How a version came to be (contract H2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// It was there before concordfs first replaced it, or was changed while nothing was mounted.
    Found,
    /// A session's last close.
    Close,
    /// rename(2) over the name, or onto a free one.
    Rename,
    /// link(2) onto the name.
    Link,
    /// RENAME_EXCHANGE.
    Exchange,
    /// truncate(2) by path.
    Truncate,
    /// `concord restore`.
    Restore,
    /// Written by a descriptor that outlived its session's publish.
    Late,
}
