//! Safe wrappers of what rustix lacks: /proc, per-thread credentials, starting writeback, the allocator. The only `unsafe` of the crate lives here.

pub mod boot;
pub mod creds;
pub mod memory;
pub mod mountinfo;
pub mod namespaces;
pub mod peer;
pub mod pidfd;
pub mod proc;
pub mod signals;
pub mod syscall;
pub mod table;
pub mod writeback;
