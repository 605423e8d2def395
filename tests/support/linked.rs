//! Projects with files that have several names.
#![allow(dead_code)]

use std::os::unix::fs::MetadataExt;

use super::{Project, watchdog};

/// A project whose `a.md` and `b.md` are one file; more names in `more`.
pub fn linked(content: &str, more: &[&str]) -> Project {
    watchdog();
    let mut project = Project::unmounted(&[("a.md", content), ("d/other.md", "other")]);
    for name in ["b.md"].iter().chain(more) {
        std::fs::hard_link(project.path("a.md"), project.path(name)).unwrap();
    }
    project.mount();
    project
}

/// st_ino and the number of its names.
pub fn inode(project: &Project, name: &str) -> (u64, u64) {
    let metadata = std::fs::metadata(project.path(name)).unwrap();
    (metadata.ino(), metadata.nlink())
}
