//! How the allocator gives memory back, mallopt(3).

/// Blocks from this size on, in bytes, are mapped by themselves and go back to the system when they are freed. A block of a write, 1 MiB, is less.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: libc::c_int = 4 << 20;

/// A table that was too small leaves no hole behind: glibc raises its bound to the largest block that was freed, and takes the next from between small ones that stay.
pub fn give_large_blocks_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) changes the allocator's own parameter, under its lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
    }
}
