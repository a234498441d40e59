//! The capture stream that a collector writes: classic pcap, or pcapng, to standard output or to a file.

mod pcap;
mod pcapng;
mod stream;

use batch::Interface;

pub use pcap::PcapWriter;
pub use pcapng::{InterfaceCounts, PcapNgWriter};
pub use stream::{Stream, StreamError};

/// The number of an interface in a capture stream, in the order in which they were described.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceId(pub u32);

/// A capture stream that is being written.
#[derive(Debug)]
pub enum Writer {
    /// Classic pcap with nanoseconds: one link type.
    Pcap(PcapWriter),
    /// pcapng: an interface for each source and device.
    PcapNg(PcapNgWriter),
}

impl Writer {
    /// Describes an interface. Its packets may follow, unless the format has no place for them: `None` where they have
    /// another link type than those before them, in classic pcap.
    ///
    /// # Errors
    /// The stream cannot be written.
    pub fn describe(&mut self, interface: &Interface) -> Result<Option<InterfaceId>, StreamError> {
        match self {
            Self::Pcap(writer) => writer.describe(interface),
            Self::PcapNg(writer) => writer.describe(interface).map(Some),
        }
    }

    /// Writes packets: whole records, one after the other.
    ///
    /// # Errors
    /// The stream cannot be written.
    pub fn write(&mut self, interface: InterfaceId, records: &[u8]) -> Result<(), StreamError> {
        match self {
            Self::Pcap(writer) => writer.write(records),
            Self::PcapNg(writer) => writer.write(interface, records),
        }
    }

    /// Writes what is still in memory.
    ///
    /// # Errors
    /// The stream cannot be written.
    pub fn flush(&mut self) -> Result<(), StreamError> {
        match self {
            Self::Pcap(writer) => writer.flush(),
            Self::PcapNg(writer) => writer.flush(),
        }
    }

    /// Ends the stream, with what is known of its interfaces.
    ///
    /// # Errors
    /// The stream cannot be written.
    pub fn finish(
        self,
        counts: impl Iterator<Item = (InterfaceId, InterfaceCounts)>,
    ) -> Result<(), StreamError> {
        match self {
            Self::Pcap(writer) => writer.finish(),
            Self::PcapNg(writer) => writer.finish(counts),
        }
    }
}
