//! Where packets leave: PUSH, pcap, pcapng.

pub mod push;

pub use push::{Peer, Relay, RelayError};
