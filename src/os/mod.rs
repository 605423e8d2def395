//! Safe wrappers of system calls and of /proc that rustix lacks: the only `unsafe` of the crate.

pub mod creds;
