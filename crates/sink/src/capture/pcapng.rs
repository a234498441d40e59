//! pcapng: an interface for each source and device, with its name, its description, its filter, and its losses.
//!
//! The format: draft-ietf-opsawg-pcapng.

use std::borrow::Cow;
use std::time::Duration;

use batch::Interface;
use packet::record::MAX_CAPTURED;
use packet::{Records, Timestamp};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{Block, PcapNgBlock, PcapNgWriter as Blocks};
use pcap_file::{DataLink, Endianness, PcapError};

use super::{InterfaceId, Stream, StreamError};

/// `if_tsresol`: times count 10^-9 s.
const NANOSECONDS: u8 = 9;

/// `if_filter`: what follows is a pcap-filter expression.
const FILTER_EXPRESSION: u8 = 0;

/// What an interface statistics block says (section 4.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceCounts {
    /// When these counts were taken.
    pub at: Timestamp,
    /// Packets that the source saw (`isb_ifrecv`).
    pub received: u64,
    /// Packets dropped by the interface (`isb_ifdrop`).
    pub dropped_interface: u64,
    /// Packets dropped by the source's kernel, its relay and in transit (`isb_osdrop`).
    pub dropped_system: u64,
    /// Packets that stand in the file (`isb_usrdeliv`).
    pub delivered: u64,
}

/// Writes pcapng.
pub struct PcapNgWriter {
    stream: Stream,
    /// Encodes blocks into memory, from where they go to the stream.
    blocks: Blocks<Vec<u8>>,
    interfaces: u32,
}

impl std::fmt::Debug for PcapNgWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PcapNgWriter").field("interfaces", &self.interfaces).finish_non_exhaustive()
    }
}

impl PcapNgWriter {
    /// Writes the section header at once: the reader may wait for it.
    ///
    /// # Errors
    /// The stream cannot be written.
    pub fn new(stream: Stream) -> Result<Self, StreamError> {
        let program = concat!("pcktr ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![
                SectionHeaderOption::OS(Cow::Borrowed(std::env::consts::OS)),
                SectionHeaderOption::UserApplication(Cow::Borrowed(program)),
            ],
            ..SectionHeaderBlock::default()
        };
        let blocks = Blocks::with_section_header(Vec::new(), section).map_err(refused)?;
        let mut writer = Self { stream, blocks, interfaces: 0 };
        writer.flush()?;
        Ok(writer)
    }

    pub(super) fn describe(&mut self, interface: &Interface) -> Result<InterfaceId, StreamError> {
        let mut options = vec![
            InterfaceDescriptionOption::IfName(cut(interface.origin.to_string()).into()),
            InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
        ];
        if !interface.description.is_empty() {
            let description = cut(interface.description.to_string());
            options.push(InterfaceDescriptionOption::IfDescription(description.into()));
        }
        if !interface.filter.is_empty() {
            let mut filter = vec![FILTER_EXPRESSION];
            filter.extend_from_slice(cut(interface.filter.to_string()).as_bytes());
            options.push(InterfaceDescriptionOption::IfFilter(filter.into()));
        }
        // libpcap reads a file with several interfaces only where they have one snaplen.
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::from(interface.link_type.0),
            snaplen: MAX_CAPTURED as u32,
            options,
        };
        self.write_block(&block.into_block())?;
        self.flush()?;
        self.interfaces += 1;
        Ok(InterfaceId(self.interfaces - 1))
    }

    pub(super) fn write(&mut self, interface: InterfaceId, records: &[u8]) -> Result<(), StreamError> {
        for record in Records::new(records) {
            let block = EnhancedPacketBlock {
                interface_id: interface.0,
                // The encoder writes nanoseconds as the ticks that they are here.
                timestamp: Duration::from_nanos(record.time.as_nanos()),
                original_len: record.original,
                data: Cow::Borrowed(record.bytes),
                options: Vec::new(),
            };
            self.write_block(&block.into_block())?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), StreamError> {
        self.hand_over()?;
        self.stream.flush()
    }

    pub(super) fn finish(
        mut self,
        counts: impl Iterator<Item = (InterfaceId, InterfaceCounts)>,
    ) -> Result<(), StreamError> {
        for (interface, counts) in counts {
            let block = InterfaceStatisticsBlock {
                interface_id: interface.0,
                timestamp: counts.at.as_nanos(),
                options: vec![
                    InterfaceStatisticsOption::IsbIfRecv(counts.received),
                    InterfaceStatisticsOption::IsbIfDrop(counts.dropped_interface),
                    InterfaceStatisticsOption::IsbOsDrop(counts.dropped_system),
                    InterfaceStatisticsOption::IsbUsrDeliv(counts.delivered),
                ],
            };
            self.write_block(&block.into_block())?;
        }
        self.flush()
    }

    fn write_block(&mut self, block: &Block<'_>) -> Result<(), StreamError> {
        self.blocks.write_block(block).map_err(refused)?;
        self.hand_over()
    }

    /// Gives the stream what has been encoded.
    fn hand_over(&mut self) -> Result<(), StreamError> {
        let encoded = self.blocks.get_mut();
        let written = self.stream.write(encoded);
        encoded.clear();
        written
    }
}

/// The encoder writes to memory, which never fails; what it refuses is a block that makes no sense.
fn refused(error: PcapError) -> StreamError {
    StreamError::Write(std::io::Error::other(error))
}

/// At most as much of a text as fits into an option with room to spare: names come from the network.
fn cut(mut text: String) -> String {
    let mut end = text.len().min(4096);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
