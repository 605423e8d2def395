//! See docs/ARCHITECTURE.md.

pub mod writeback;
