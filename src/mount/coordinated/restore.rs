//! `concord restore`: an old version becomes the current one, as a publish like any other.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::begin::Beginning;
use super::close::Ending;
use super::creator::first_of;
use super::files::{Granted, InHand};
use super::{Answer, Coordination};
use crate::mount::errno::from_io;
use crate::mount::nodes::ROOT;
use crate::mount::tree::Caller;
use crate::session::Intent;
use crate::store::record::How;

impl Coordination {
    /// What has the name of a coordinated file, if that is no regular file.
    fn in_the_way(&self, path: &Path) -> Option<FileType> {
        let target = self.target_at(path).ok()?;
        let kind = FileType::from_raw_mode(self.stat(&target.name).ok()?.st_mode);
        (kind != FileType::RegularFile).then_some(kind)
    }

    /// Publishes version `version` of `path` again. `asker` is a process id and its user. It waits its turn as any writer does. Answers the new version's number.
    ///
    /// # Errors
    /// ENOENT when there is no such version, or its directory is gone; EINVAL when the rules do not coordinate the path; ESTALE when something else than a
    /// regular file has its name; EPERM when the file is gone and the daemon may not make one of the owner that the version has; EBUSY, EDEADLK, and those of a publish.
    pub fn restore(self: &Arc<Self>, asker: (u32, u32), path: &Path, version: u64, answer: Answer<u64>) {
        let caller = Caller {
            uid: asker.1,
            gid: asker.1,
            tid: asker.0,
        };
        let prepared = self
            .target_at(path)
            .map(|target| self.for_all_names(target))
            .and_then(|target| {
                let content = self.store.history().open_version(path, version);
                let content = content.map_err(|error| match error.kind() {
                    // The history may say so itself, without an errno.
                    ErrorKind::NotFound => Errno::NOENT,
                    _ => from_io(&error),
                })?;
                // To open a FIFO is noticed at its other end.
                match self.in_the_way(path) {
                    Some(_) => Err(Errno::STALE),
                    None => Ok((target, content)),
                }
            });
        let (target, content) = match prepared {
            Ok(found) => found,
            Err(errno) => return answer(Err(errno)),
        };
        let in_hand = InHand::take(&self.files, &target.name);
        let file = in_hand.key();
        let claim = self.claim(caller, file, Intent::Truncate, false);
        let process = claim.opener.proc;
        let this = Arc::clone(self);
        let restored = target.clone();
        self.acquire(
            &target,
            claim,
            Box::new(move |granted| {
                let that = Arc::clone(&this);
                this.tree.workers.run(move || {
                    answer(granted.and_then(|granted| {
                        let Granted { id, .. } = granted;
                        let kept = Arc::new(content.file);
                        let beginning = Beginning {
                            node: None,
                            how: How::Restore,
                            truncate: true,
                            like: Some(Arc::clone(&kept)),
                            // Root, or the mount's own user.
                            wanted: rustix::fs::Access::EXISTS,
                            ..first_of(id, file, ROOT, caller, process, None)
                        };
                        let session = that.begin(&restored, beginning)?;
                        let shadow = session.staged(|staged| Ok(Arc::clone(&staged.shadow.file)));
                        let filled = shadow.and_then(|shadow| {
                            that.store.fill(&shadow, &kept).map_err(|e| from_io(&e))?;
                            rustix::fs::ftruncate(&shadow, content.bytes)
                        });
                        let _ = session.staged(|staged| {
                            staged.failed = filled.err();
                            staged.note_change();
                            Ok(())
                        });
                        let ended = that.end_now(&session, Ending::Closed);
                        that.tree.nodes.forget(session.about.node, 1);
                        filled.and(ended)?;
                        session.version().ok_or(Errno::IO)
                    }));
                });
            }),
        );
    }
}
