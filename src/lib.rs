//! concordfs: a FUSE filesystem that makes writes to shared files atomic for programs that know nothing about it.
//!
//! The layers, lowest first; docs/ARCHITECTURE.md says who may use whom, and a test holds it to that.

pub mod cli;
pub mod content;
pub mod control;
pub mod mount;
pub mod os;
pub mod rules;
pub mod session;
pub mod store;
