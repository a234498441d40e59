//! The C libraries that the program runs with, which need not be those it was built with.

#![expect(unsafe_code, reason = "libpcap is asked for its version, which the crate `pcap` does not hand on")]

use std::ffi::{CStr, c_char};

// Brings libpcap into the link, wherever the crate's build script has found it.
use pcap as _;

unsafe extern "C" {
    /// pcap_lib_version(3): a text that lives as long as the program.
    fn pcap_lib_version() -> *const c_char;
}

/// The version of libpcap, such as `1.10.3`.
pub(crate) fn libpcap() -> String {
    // SAFETY: the function takes nothing, may be called at any time and from any thread, and returns a text of the
    // library's own that ends with a zero and is never freed.
    let text = unsafe { CStr::from_ptr(pcap_lib_version()) };
    // "libpcap version 1.10.3 (with TPACKET_V3)"
    number(&text.to_string_lossy())
}

/// The version of libzmq, such as `4.3.4`.
pub(crate) fn libzmq() -> String {
    let (major, minor, patch) = zmq::version();
    format!("{major}.{minor}.{patch}")
}

/// The first word that begins with a digit; the whole of it where there is none.
fn number(text: &str) -> String {
    let word = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    word.unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number("libpcap version 1.10.3 (with TPACKET_V3)"), "1.10.3");
        assert_eq!(number("libpcap version unknown"), "libpcap version unknown");
        for version in [libpcap(), libzmq()] {
            assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{version}");
        }
    }
}
