//! What is agreed with the kernel at the start, FUSE_INIT.

use std::sync::atomic::Ordering;

use fuser::{InitFlags, KernelConfig};

use super::tree::Tree;
use crate::os::creds;

/// Bytes of one write request at most.
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Read-ahead and asynchronous requests the kernel may have under way.
const BACKGROUND_MAX: u16 = 64;

/// What is asked of the kernel, each where it has it. Not asked for: FUSE_POSIX_LOCKS (the kernel keeps fcntl(2) locks itself, and each lock request
/// that comes is a flock(2), which fuser could not tell apart from others), FUSE_WRITEBACK_CACHE (passthrough excludes it).
///
/// FUSE_HANDLE_KILLPRIV_V2: without it the kernel asks for `security.capability` before every single write. With it, set-id bits are ours
/// to clear: see [`super::attr::has_set_id`].
const WANTED: [InitFlags; 13] = [
    InitFlags::FUSE_FLOCK_LOCKS,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_PASSTHROUGH,
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_MAX_PAGES,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
];

/// Asks for all that, and learns whether data may go past us. `stacked`: the backing filesystem is itself stacked.
pub(super) fn agree(tree: &Tree, stacked: bool, config: &mut KernelConfig) {
    for flag in WANTED {
        if let Err(missing) = config.add_capabilities(flag) {
            log::info!("this kernel does not have {missing:?}");
        }
    }
    if tree.shared_backing {
        // Absent on no kernel that this runs on; without it, stale pages would be a matter of the attributes' timeout.
        let _ = config.add_capabilities(InitFlags::FUSE_AUTO_INVAL_DATA);
    }
    let depth = if stacked { 2 } else { 1 };
    let stacking = config.set_max_stack_depth(depth).is_ok();
    // Without the capability the kernel offers it, and refuses each inode.
    let offered = config.capabilities().contains(InitFlags::FUSE_PASSTHROUGH) && creds::is_admin();
    let passthrough = stacking && offered;
    tree.passthrough.store(passthrough, Ordering::Relaxed);
    if config.set_max_write(WRITE_BYTES_MAX).is_err() || config.set_max_background(BACKGROUND_MAX).is_err() {
        log::warn!("the kernel keeps its own limits for writes and background requests");
    }
}
