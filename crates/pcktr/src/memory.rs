//! How the C library's allocator treats the memory of messages.

#![expect(unsafe_code, reason = "mallopt has no safe interface")]

/// Allocations below this come from the heap, in bytes: every message of a usual size.
const MMAP_THRESHOLD: i32 = 32 << 20;

/// Free memory at the heap's end that stays there, in bytes.
const TRIM_THRESHOLD: i32 = 256 << 20;

/// Heaps that threads allocate from. ZeroMQ's thread allocates what ours frees: more heaps would only hold more memory.
const ARENAS: i32 = 2;

/// Lets the allocator keep the memory of messages. By itself it gives every block of a batch's size back to the kernel,
/// and half of the time of a relay goes into page faults. To be called before there are threads.
pub(crate) fn keep_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers, and refuses what it does not know.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD);
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}
