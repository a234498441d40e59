//! Where packets leave: PUSH, pcap, pcapng.

pub mod capture;
pub mod push;

pub use capture::{InterfaceCounts, InterfaceId, PcapNgWriter, PcapWriter, Stream, StreamError, Writer};
pub use push::{Peer, Relay, RelayError, WhenFull};
