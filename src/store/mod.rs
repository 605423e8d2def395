//! The disk: shadows, publish, history, records, recovery. Knows descriptors and names, not FUSE.

pub mod record;
