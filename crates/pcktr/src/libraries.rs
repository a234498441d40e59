//! The C libraries: their versions, and the tuning of the allocator.

#![expect(unsafe_code, reason = "mallopt and pcap_lib_version have no safe wrapper")]

use std::ffi::{CStr, c_char};

// Links libpcap, wherever the build script of the crate `pcap` found it.
use pcap as _;

unsafe extern "C" {
    /// pcap_lib_version(3). The text is static.
    fn pcap_lib_version() -> *const c_char;
}

/// The version of libpcap at run time, such as `1.10.3`.
pub(crate) fn libpcap() -> String {
    // SAFETY: the function has no arguments, is thread-safe, and returns a static text that ends with a zero.
    let text = unsafe { CStr::from_ptr(pcap_lib_version()) };
    // "libpcap version 1.10.3 (with TPACKET_V3)"
    number(&text.to_string_lossy())
}

/// The version of libsodium at run time, such as `1.0.18`.
pub(crate) fn libsodium() -> String {
    relay::sodium_version()
}

/// The first word that begins with a digit; without one, the whole text.
fn number(text: &str) -> String {
    let word = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    word.unwrap_or(text).to_owned()
}

/// Smaller allocations, in bytes, are made on the heap. This includes all usual messages.
const MMAP_THRESHOLD: i32 = 32 << 20;

/// Bytes of free memory kept at the end of the heap.
const TRIM_THRESHOLD: i32 = 256 << 20;

/// Maximum number of heaps. Messages are freed by other threads than those that allocate them, so more heaps would only
/// use more memory.
const ARENAS: i32 = 2;

/// Makes the allocator reuse the memory of messages. By default glibc returns each block of a batch's size to the kernel,
/// and half of the relay's CPU time is spent on page faults. Call it before any thread is started.
pub(crate) fn tune_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and rejects invalid ones.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD);
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(number("libpcap version 1.10.3 (with TPACKET_V3)"), "1.10.3");
        assert_eq!(number("libpcap version unknown"), "libpcap version unknown");
        for version in [libpcap(), libsodium()] {
            assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{version}");
        }
    }
}
