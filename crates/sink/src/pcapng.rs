//! The blocks of a pcapng file (draft-ietf-opsawg-pcapng).

use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::time::Duration;

use batch::Interface;
use batch::interface::truncate;
use packet::Records;
use packet::record::MAX_CAPTURED;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{Block, PcapNgBlock, PcapNgWriter};
use pcap_file::{DataLink, Endianness};

use crate::{InterfaceCounts, InterfaceId, Stream, StreamError};

/// `if_tsresol`: timestamps count 10^-9 s.
const NANOSECONDS: u8 = 9;

/// `if_filter`: a pcap-filter expression follows.
const FILTER_EXPRESSION: u8 = 0;

/// Maximum length of an option's text in bytes. Texts come from the network; an option's length has 16 bits.
const MAX_TEXT: usize = 4096;

/// Encodes blocks.
pub(crate) struct Encoder {
    /// Encodes into memory, which is then written to the stream.
    blocks: PcapNgWriter<Vec<u8>>,
    interfaces: u32,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("interfaces", &self.interfaces).finish_non_exhaustive()
    }
}

impl Encoder {
    /// Writes the section header.
    pub(crate) fn begin<W: Write>(stream: &mut Stream<W>) -> Result<Self, StreamError> {
        let program = concat!("pcktr ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![
                SectionHeaderOption::OS(Cow::Borrowed(std::env::consts::OS)),
                SectionHeaderOption::UserApplication(Cow::Borrowed(program)),
            ],
            ..SectionHeaderBlock::default()
        };
        let blocks = PcapNgWriter::with_section_header(Vec::new(), section).map_err(StreamError::encode)?;
        let mut encoder = Self { blocks, interfaces: 0 };
        encoder.write_encoded(stream)?;
        Ok(encoder)
    }

    /// Writes an interface description block.
    pub(crate) fn add_interface<W: Write>(
        &mut self,
        interface: &Interface,
        stream: &mut Stream<W>,
    ) -> Result<InterfaceId, StreamError> {
        let name = interface.origin.to_string();
        let text = |text| truncate(text, MAX_TEXT);
        let mut options = vec![
            InterfaceDescriptionOption::IfName(text(&name).into()),
            InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
        ];
        if !interface.description.is_empty() {
            options.push(InterfaceDescriptionOption::IfDescription(text(&interface.description).into()));
        }
        if !interface.filter.is_empty() {
            let filter = [&[FILTER_EXPRESSION], text(&interface.filter).as_bytes()].concat();
            options.push(InterfaceDescriptionOption::IfFilter(filter.into()));
        }
        // libpcap rejects files whose interfaces have different snaplens.
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::from(interface.link_type.0),
            snaplen: MAX_CAPTURED as u32,
            options,
        };
        self.write_block(&block.into_block(), stream)?;
        self.interfaces += 1;
        Ok(InterfaceId(self.interfaces - 1))
    }

    /// Writes an enhanced packet block per record.
    pub(crate) fn write<W: Write>(
        &mut self,
        interface: InterfaceId,
        records: &[u8],
        stream: &mut Stream<W>,
    ) -> Result<(), StreamError> {
        for record in Records::new(records) {
            let block = EnhancedPacketBlock {
                interface_id: interface.0,
                // The encoder writes a duration's nanoseconds, which are this file's ticks.
                timestamp: Duration::from_nanos(record.time.as_nanos()),
                original_len: record.original,
                data: Cow::Borrowed(record.bytes),
                options: Vec::new(),
            };
            self.write_block(&block.into_block(), stream)?;
        }
        Ok(())
    }

    /// Writes an interface statistics block.
    pub(crate) fn write_counts<W: Write>(
        &mut self,
        interface: InterfaceId,
        counts: &InterfaceCounts,
        stream: &mut Stream<W>,
    ) -> Result<(), StreamError> {
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
        self.write_block(&block.into_block(), stream)
    }

    fn write_block<W: Write>(
        &mut self,
        block: &Block<'_>,
        stream: &mut Stream<W>,
    ) -> Result<(), StreamError> {
        self.blocks.write_block(block).map_err(StreamError::encode)?;
        self.write_encoded(stream)
    }

    fn write_encoded<W: Write>(&mut self, stream: &mut Stream<W>) -> Result<(), StreamError> {
        let encoded = self.blocks.get_mut();
        let written = stream.write(encoded);
        encoded.clear();
        written
    }
}
