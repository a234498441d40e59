//! Where packets leave the program: pcap and pcapng, to a file or a pipe.

pub mod capture;

pub use capture::{InterfaceCounts, InterfaceId, PcapNgWriter, PcapWriter, Stream, StreamError, Writer};
