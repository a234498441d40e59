//! Where a network header begins: the result of every link-layer parser.

use super::address_family::AddressFamily::{self, IPv4, IPv6};
use crate::bytes::byte;

/// The position of an IPv4 or IPv6 header in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NetworkStart {
    /// IPv4 or IPv6, according to the link layer.
    pub(super) family: AddressFamily,
    /// Offset of the header's first byte.
    pub(super) at: usize,
    /// Upper bound for the offset at which the packet ends; `usize::MAX` if the link layer has no length field.
    pub(super) end: usize,
}

impl NetworkStart {
    /// A header at `at` after a link layer without a length field.
    #[inline]
    pub(super) const fn new(family: AddressFamily, at: usize) -> Self {
        Self { family, at, end: usize::MAX }
    }

    /// The header at `at`: IPv4 or IPv6 according to its first four bits.
    pub(super) fn by_version(bytes: &[u8], at: usize) -> Option<Self> {
        match byte(bytes, at)? >> 4 {
            4 => Some(Self::new(IPv4, at)),
            6 => Some(Self::new(IPv6, at)),
            _ => None,
        }
    }

    /// The same header in a packet that ends at `end` or before.
    pub(super) fn bounded(self, end: usize) -> Self {
        Self { end: self.end.min(end), ..self }
    }
}
