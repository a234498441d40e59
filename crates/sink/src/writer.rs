//! The capture that a collector writes, in classic pcap or pcapng.

use std::io::Write;

use batch::Interface;
use packet::{LinkType, Timestamp};

use crate::pcap;
use crate::pcapng::Encoder;
use crate::{Stream, StreamError};

/// The index of an interface in a capture: interfaces are numbered in the order in which they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceId(pub u32);

/// The format of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureFormat {
    /// Classic pcap with nanoseconds: one link type.
    Pcap,
    /// pcapng: one interface per source, device and link type.
    PcapNg,
}

/// The counts in an interface statistics block (draft-ietf-opsawg-pcapng, section 4.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceCounts {
    /// When these counts were taken.
    pub at: Timestamp,
    /// Packets received by the interface (`isb_ifrecv`).
    pub received: u64,
    /// Packets dropped by the interface (`isb_ifdrop`).
    pub dropped_interface: u64,
    /// Packets dropped by the kernel and the relay, or lost in transit (`isb_osdrop`).
    pub dropped_system: u64,
    /// Packets in the file (`isb_usrdeliv`).
    pub delivered: u64,
}

/// Writes a capture to a stream.
#[derive(Debug)]
pub struct CaptureWriter<W> {
    stream: Stream<W>,
    state: State,
}

/// The state of a format.
#[derive(Debug)]
enum State {
    /// The file's link type, once its header is written.
    Pcap(Option<LinkType>),
    PcapNg(Encoder),
}

impl<W: Write> CaptureWriter<W> {
    /// Begins a capture. The header of a pcapng capture is written at once, as its reader may be waiting for it. That
    /// of a pcap capture contains the link type, and is written with the first interface.
    ///
    /// # Errors
    /// The stream cannot be written.
    pub fn new(mut stream: Stream<W>, format: CaptureFormat) -> Result<Self, StreamError> {
        let state = match format {
            CaptureFormat::Pcap => State::Pcap(None),
            CaptureFormat::PcapNg => State::PcapNg(Encoder::begin(&mut stream)?),
        };
        stream.flush()?;
        Ok(Self { stream, state })
    }

    /// Adds an interface, and flushes the stream. `None` if the format cannot hold its packets: classic pcap has one link
    /// type, that of the first interface.
    ///
    /// # Errors
    /// The stream cannot be written.
    pub fn add_interface(&mut self, interface: &Interface) -> Result<Option<InterfaceId>, StreamError> {
        let id = match &mut self.state {
            State::Pcap(Some(link_type)) => {
                return Ok((*link_type == interface.link_type).then_some(InterfaceId(0)));
            }
            State::Pcap(link_type @ None) => {
                *link_type = Some(interface.link_type);
                self.stream.write(&pcap::header(interface.link_type)?)?;
                InterfaceId(0)
            }
            State::PcapNg(encoder) => encoder.add_interface(interface, &mut self.stream)?,
        };
        self.stream.flush()?;
        Ok(Some(id))
    }

    /// Writes packets of an interface: whole records.
    ///
    /// # Errors
    /// The stream cannot be written.
    #[inline]
    pub fn write(&mut self, interface: InterfaceId, records: &[u8]) -> Result<(), StreamError> {
        match &mut self.state {
            // A batch's records are those of a nanosecond pcap file, so they are written as they are: encoding each again
            // with the `pcap-file` crate costs 30 ns a packet.
            State::Pcap(_) => self.stream.write(records),
            State::PcapNg(encoder) => encoder.write(interface, records, &mut self.stream),
        }
    }

    /// Writes the counts of an interface that has come to its end, if the format has a place for them.
    ///
    /// # Errors
    /// The stream cannot be written.
    pub fn write_counts(
        &mut self,
        interface: InterfaceId,
        counts: &InterfaceCounts,
    ) -> Result<(), StreamError> {
        match &mut self.state {
            State::Pcap(_) => Ok(()),
            State::PcapNg(encoder) => encoder.write_counts(interface, counts, &mut self.stream),
        }
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// The stream cannot be written.
    pub fn flush(&mut self) -> Result<(), StreamError> {
        self.stream.flush()
    }

    /// Ends the capture, with the counts of its interfaces if the format has a place for them.
    ///
    /// # Errors
    /// The stream cannot be written.
    pub fn finish(
        mut self,
        counts: impl IntoIterator<Item = (InterfaceId, InterfaceCounts)>,
    ) -> Result<(), StreamError> {
        match &mut self.state {
            // A pcap file without packets needs a header, too.
            State::Pcap(None) => self.stream.write(&pcap::header(LinkType::ETHERNET)?)?,
            State::Pcap(Some(_)) | State::PcapNg(_) => {}
        }
        for (interface, counts) in counts {
            self.write_counts(interface, &counts)?;
        }
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use packet::{Origin, Record};
    use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;

    fn interface(device: &str, link_type: LinkType) -> Interface {
        let origin = Origin { source: "host".into(), device: device.into(), listen_port: None };
        Interface::new(origin, link_type, 96)
    }

    /// Three interfaces, of which the last has another link type; two packets; counts of the first interface.
    fn capture(format: CaptureFormat) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = CaptureWriter::new(Stream::new(&mut bytes), format).unwrap();
        let mut first = interface("eth0", LinkType::ETHERNET);
        first.description = "Uplink".into();
        first.filter = "tcp".into();
        let eth0 = writer.add_interface(&first).unwrap().unwrap();
        let eth1 = writer.add_interface(&interface("eth1", LinkType::ETHERNET)).unwrap().unwrap();
        let raw = writer.add_interface(&interface("tun0", LinkType::RAW)).unwrap();
        assert_eq!(raw.is_some(), format == CaptureFormat::PcapNg);
        for (interface, secs, bytes) in [(eth0, 1, b"abcd".as_slice()), (eth1, 2, b"xyz")] {
            let mut records = Vec::new();
            Record { time: Timestamp::from_parts(secs, 5), original: 60, bytes }.append_to(&mut records);
            writer.write(interface, &records).unwrap();
        }
        let counts = InterfaceCounts {
            at: Timestamp::from_parts(3, 0),
            received: 10,
            dropped_interface: 1,
            dropped_system: 2,
            delivered: 1,
        };
        writer.finish([(eth0, counts)]).unwrap();
        bytes
    }

    fn hex(bytes: &[u8]) -> String {
        let rows = bytes
            .chunks(16)
            .map(|row| row.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "));
        rows.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn pcap_has_a_nanosecond_header_and_the_records_unchanged() {
        insta::assert_snapshot!(hex(&capture(CaptureFormat::Pcap)), @r#"
        4d 3c b2 a1 02 00 04 00 00 00 00 00 00 00 00 00
        00 00 04 00 01 00 00 00 01 00 00 00 05 00 00 00
        04 00 00 00 3c 00 00 00 61 62 63 64 02 00 00 00
        05 00 00 00 03 00 00 00 3c 00 00 00 78 79 7a
        "#);
    }

    #[test]
    fn pcapng_describes_its_interfaces() {
        let bytes = capture(CaptureFormat::PcapNg);
        let mut reader = PcapNgReader::new(bytes.as_slice()).unwrap();
        let mut blocks = Vec::new();
        while let Some(block) = reader.next_block() {
            let block = block.unwrap();
            blocks.push(match block {
                Block::InterfaceDescription(block) => format!("{block:?}"),
                Block::EnhancedPacket(block) => format!("{block:?}"),
                Block::InterfaceStatistics(block) => format!("{block:?}"),
                other => format!("unexpected: {other:?}"),
            });
        }
        insta::assert_snapshot!(blocks.join("\n"), @r#"
        InterfaceDescriptionBlock { linktype: ETHERNET, snaplen: 262144, options: [IfName("host/eth0"), IfTsResol(9), IfDescription("Uplink"), IfFilter([0, 116, 99, 112])] }
        InterfaceDescriptionBlock { linktype: ETHERNET, snaplen: 262144, options: [IfName("host/eth1"), IfTsResol(9)] }
        InterfaceDescriptionBlock { linktype: RAW, snaplen: 262144, options: [IfName("host/tun0"), IfTsResol(9)] }
        EnhancedPacketBlock { interface_id: 0, timestamp: 1.000000005s, original_len: 60, data: [97, 98, 99, 100], options: [] }
        EnhancedPacketBlock { interface_id: 1, timestamp: 2.000000005s, original_len: 60, data: [120, 121, 122], options: [] }
        InterfaceStatisticsBlock { interface_id: 0, timestamp: 3000000000, options: [IsbIfRecv(10), IsbIfDrop(1), IsbOsDrop(2), IsbUsrDeliv(1)] }
        "#);
    }

    #[test]
    fn an_empty_capture_is_valid() {
        for (format, len) in [(CaptureFormat::Pcap, 24), (CaptureFormat::PcapNg, 28)] {
            let mut bytes = Vec::new();
            let writer = CaptureWriter::new(Stream::new(&mut bytes), format).unwrap();
            writer.finish([]).unwrap();
            assert!(bytes.len() >= len, "{format:?}: {} bytes", bytes.len());
            assert_eq!(
                hex(&bytes[..4]),
                if format == CaptureFormat::Pcap { "4d 3c b2 a1" } else { "0a 0d 0d 0a" }
            );
        }
    }

    #[test]
    fn long_texts_are_truncated_at_a_character() {
        let mut bytes = Vec::new();
        let mut writer = CaptureWriter::new(Stream::new(&mut bytes), CaptureFormat::PcapNg).unwrap();
        let mut long = interface(&"ä".repeat(40_000), LinkType::ETHERNET);
        long.description = "ö".repeat(40_000).into();
        long.filter = "x".repeat(70_000).into();
        long.names = vec![(1, Arc::from("lo"))];
        writer.add_interface(&long).unwrap();
        writer.finish([]).unwrap();
        let mut reader = PcapNgReader::new(bytes.as_slice()).unwrap();
        let Some(Ok(Block::InterfaceDescription(block))) = reader.next_block() else {
            panic!("no interface")
        };
        let lengths: Vec<_> = block
            .options
            .iter()
            .filter_map(|option| match option {
                InterfaceDescriptionOption::IfName(text)
                | InterfaceDescriptionOption::IfDescription(text) => Some(text.len()),
                InterfaceDescriptionOption::IfFilter(bytes) => Some(bytes.len()),
                _ => None,
            })
            .collect();
        // The name begins with `host/`: its last character would end at byte 4097.
        assert_eq!(lengths, [4095, 4096, 4097]);
    }
}
