//! Decapsulation: packets that routers and switches mirror inside of other packets.
//!
//! An encapsulation is a file in `decap/` that has a `decode` function, and a row in [`DECAPSULATORS`]. `decode` is pure:
//! it depends on its arguments only, and each carrier packet is decoded by itself.
//!
//! Decapsulation removes one layer. A mirrored packet that is itself encapsulated is returned unchanged: otherwise a
//! router that mirrors its own mirror traffic would be counted without end.

mod payload;
mod tzsp;

pub use payload::{Channel, InnerPacket, Payload, Reason};

/// A way to carry mirrored packets.
#[derive(Clone, Copy, Debug)]
pub struct Decapsulator {
    /// Lower-case name, as used in settings.
    pub name: &'static str,
    /// How datagrams of this encapsulation are recognized.
    pub carrier: Carrier,
    /// Decodes a datagram's payload, or its head: `missing` is the number of bytes that are known to be missing after
    /// `payload`, because the datagram was truncated or lost a fragment. The error says why there is no packet in it.
    pub decode: for<'a> fn(payload: &'a [u8], missing: u32) -> Result<Payload<'a>, Reason>,
}

/// The protocol below an encapsulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// UDP.
    Udp {
        /// The usual destination port.
        default_port: u16,
    },
}

/// TZSP over UDP: see [`crate::tzsp`].
pub const TZSP: Decapsulator =
    // The port is not registered with IANA.
    Decapsulator { name: "tzsp", carrier: Carrier::Udp { default_port: 37008 }, decode: tzsp::decode };

/// All encapsulations.
pub static DECAPSULATORS: &[Decapsulator] = &[TZSP];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_unique() {
        let names: HashSet<_> = DECAPSULATORS.iter().map(|decapsulator| decapsulator.name).collect();
        assert_eq!(names.len(), DECAPSULATORS.len());
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_without_panic(
            head in prop::option::of(0..=5u8),
            bytes in any::<Vec<u8>>(),
            missing in any::<u32>(),
        ) {
            // Few random bytes have a valid version. So half of the cases begin with a valid TZSP header.
            let payload = head.map_or_else(|| bytes.clone(), |kind| [&[1, kind, 0, 1][..], &bytes].concat());
            for decapsulator in DECAPSULATORS {
                if let Ok(Payload::Packet(packet)) = (decapsulator.decode)(&payload, missing) {
                    prop_assert!(!packet.bytes.is_empty() && payload.len() > packet.bytes.len());
                    prop_assert!(packet.wire_len as usize >= packet.bytes.len());
                }
            }
        }
    }
}
