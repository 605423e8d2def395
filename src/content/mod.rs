//! Functions over bytes. Pure.

pub mod lines;
