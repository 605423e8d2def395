//! Safe wrappers of what rustix lacks: /proc and per-thread credentials. The only `unsafe` of the crate lives here.

pub mod creds;
pub mod proc;
