//! The rules that hold without a `concord.toml`, and before those in it.

/// Coordinated: what agents share as text. No logs and no *.txt: mostly large, and appended to by one writer.
pub(super) const COORDINATED: &[&str] = &[
    "**/*.md",
    "**/*.json",
    "**/*.jsonl",
    "**/*.ndjson",
    "**/*.yaml",
    "**/*.yml",
    "**/*.toml",
];

/// Not coordinated after all.
pub(super) const EXCLUDED: &[&str] = &[
    // Trees that tools own, with locking of their own. `.git` may also be a file: a worktree's pointer.
    "**/.git",
    "**/.git/**",
    "**/node_modules/**",
    "**/target/**",
    "**/.venv/**",
    // Databases, which mix their own locks with writes in place, and their companions.
    "**/*.db",
    "**/*.db-{wal,shm,journal}",
    "**/*.sqlite*",
    // Files whose mere existence is the message.
    "**/*.lock",
];
