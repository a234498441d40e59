//! pcapng: several interfaces, several link types, in one file. Each interface is an origin of its own.
//!
//! The format: draft-ietf-opsawg-pcapng.

use std::sync::Arc;
use std::time::Duration;

use batch::{Interface, Order};
use packet::record::MAX_CAPTURED;
use packet::{LinkType, Record, Timestamp};
use pcap_file::PcapError;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgParser};

use super::input::{Filled, Input};
use super::{FileError, origin};
use crate::outlet::{Outlet, Run, now};
use crate::packer::{Lane, Packer};

/// The type of a section header block, which a file begins with. It reads the same in both byte orders.
pub(super) const MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

/// The largest block that is taken for one: libpcap's and Wireshark's own limit (`MAX_BLOCKSIZE`, 16 MiB).
const MAX_BLOCK: usize = 16 << 20;

/// The most interfaces that are told apart, over all sections of a file.
const MAX_INTERFACES: usize = 4096;

/// The resolution of times where an interface does not say: microseconds.
const DEFAULT_RESOLUTION: u8 = 6;

/// A pcapng file behind its first section header.
pub(super) struct Reader {
    input: Input,
    parser: PcapNgParser,
    /// What has been read; what lies in front of `unread` has been parsed.
    buf: Vec<u8>,
    unread: usize,
    packets: u64,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("input", &self.input)
            .field("packets", &self.packets)
            .finish_non_exhaustive()
    }
}

/// An interface of the section that is being read.
struct Known {
    lane: Lane,
    clock: Clock,
    snaplen: u32,
}

/// How an interface counts time.
struct Clock {
    /// `if_tsresol`: a negative power of ten, or with the highest bit set of two.
    resolution: u8,
    /// `if_tsoffset`: seconds to add to every time.
    offset: i64,
}

impl Reader {
    pub(super) fn open(mut input: Input) -> Result<Self, FileError> {
        let mut buf = Vec::with_capacity(CHUNK);
        loop {
            match PcapNgParser::new(&buf) {
                Ok((rest, parser)) => {
                    let unread = buf.len() - rest.len();
                    return Ok(Self { input, parser, buf, unread, packets: 0 });
                }
                Err(PcapError::IncompleteBuffer) if buf.len() < MAX_BLOCK => {}
                Err(_) => return Err(input.not_a_capture("its section header block makes no sense")),
            }
            buf.reserve(CHUNK);
            match input.fill(&mut buf, Duration::MAX) {
                Ok(Filled::End) => return Err(input.not_a_capture("it ends within its first block")),
                Ok(_) => {}
                Err(why) => return Err(FileError::Read { path: input.path().to_owned(), packets: 0, why }),
            }
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.input.is_live()
    }

    pub(super) fn capture(mut self, outlet: &mut dyn Outlet, run: &Run) -> Result<(), FileError> {
        let mut packer = Packer::new(outlet, run.clone(), Order::AsTheyCame);
        let mut latest = Timestamp::ZERO;
        let ended = self.read(&mut packer, run, &mut latest);
        packer.end(latest);
        ended
    }

    fn read(&mut self, packer: &mut Packer<'_>, run: &Run, latest: &mut Timestamp) -> Result<(), FileError> {
        let mut known = Vec::new();
        while !run.is_over() {
            self.parse(packer, run, &mut known, latest)?;
            if self.input.is_live() {
                packer.tick(now(), *latest);
            }
            self.buf.drain(..self.unread);
            self.unread = 0;
            if self.buf.len() > MAX_BLOCK {
                return Err(self.damaged("a block claims more than 16 MiB"));
            }
            self.buf.reserve(CHUNK);
            let patience = packer.next_tick().since(now());
            match self.input.fill(&mut self.buf, patience) {
                Ok(Filled::Bytes(_) | Filled::NothingYet) => {}
                Ok(Filled::End) if self.buf.is_empty() => return Ok(()),
                Ok(Filled::End) => {
                    let (path, packet) = (self.input.path().to_owned(), self.packets + 1);
                    return Err(FileError::Cut { path, packet });
                }
                Err(why) => {
                    let (path, packets) = (self.input.path().to_owned(), self.packets);
                    return Err(FileError::Read { path, packets, why });
                }
            }
        }
        Ok(())
    }

    /// Takes in all whole blocks that have been read.
    fn parse(
        &mut self,
        packer: &mut Packer<'_>,
        run: &Run,
        known: &mut Vec<Known>,
        latest: &mut Timestamp,
    ) -> Result<(), FileError> {
        loop {
            let unread = self.buf.get(self.unread..).unwrap_or_default();
            let (rest, block) = match self.parser.next_block(unread) {
                Ok(parsed) => parsed,
                Err(PcapError::IncompleteBuffer) => return Ok(()),
                Err(error) => return Err(self.damaged(&error.to_string())),
            };
            self.unread = self.buf.len() - rest.len();
            let (interface, ticks, original, bytes) = match &block {
                Block::SectionHeader(_) => {
                    known.clear();
                    continue;
                }
                Block::InterfaceDescription(interface) => {
                    if packer.lanes() >= MAX_INTERFACES {
                        return Err(self.damaged(&format!("it has more than {MAX_INTERFACES} interfaces")));
                    }
                    known.push(self.open_lane(interface, known.len(), packer, run));
                    continue;
                }
                // The parser keeps the ticks of a time as if they were nanoseconds.
                Block::EnhancedPacket(packet) => (
                    packet.interface_id,
                    Some(packet.timestamp.as_nanos()),
                    packet.original_len,
                    packet.data.as_ref(),
                ),
                // Neither does it know how much of a simple packet's data is padding (section 4.4).
                Block::SimplePacket(packet) => {
                    let snaplen = known.first().map_or(0, |interface| interface.snaplen);
                    let captured = packet.original_len.min(snaplen) as usize;
                    (0, None, packet.original_len, packet.data.get(..captured).unwrap_or(&packet.data))
                }
                Block::Packet(packet) => (
                    packet.interface_id.into(),
                    Some(packet.timestamp.into()),
                    packet.original_len,
                    packet.data.as_ref(),
                ),
                _ => continue,
            };
            let Some(interface) = known.get(interface as usize) else {
                return Err(
                    self.damaged(&format!("a packet is of interface {interface}, which is not described"))
                );
            };
            if bytes.len() > MAX_CAPTURED {
                return Err(
                    self.damaged(&format!("a packet has {} bytes, more than {MAX_CAPTURED}", bytes.len()))
                );
            }
            // A simple packet block has no time: it is not before the packet in front of it.
            let time = ticks.map_or(*latest, |ticks| interface.clock.time(ticks));
            *latest = (*latest).max(time);
            // All interfaces of a file come to the collector at one pace: none of them holds up the others there.
            if packer.is_full_for(interface.lane, bytes.len()) {
                packer.flush(*latest);
            }
            let born = if self.input.is_live() { now() } else { Timestamp::MAX };
            if !packer.push(interface.lane, &Record { time, original, bytes }, born) {
                return Ok(());
            }
            self.packets += 1;
        }
    }

    fn open_lane(
        &self,
        description: &InterfaceDescriptionBlock<'_>,
        index: usize,
        packer: &mut Packer<'_>,
        run: &Run,
    ) -> Known {
        let mut name = None;
        let mut words = "".into();
        let mut filter = String::new();
        let mut clock = Clock { resolution: DEFAULT_RESOLUTION, offset: 0 };
        for option in &description.options {
            match option {
                InterfaceDescriptionOption::IfName(text) => name = Some(text.to_string()),
                InterfaceDescriptionOption::IfDescription(text) => words = text.as_ref().into(),
                // The first byte says what kind of filter follows; 0 is an expression.
                InterfaceDescriptionOption::IfFilter(bytes) => {
                    if let Some((0, text)) = bytes.split_first() {
                        filter = String::from_utf8_lossy(text).into_owned();
                    }
                }
                InterfaceDescriptionOption::IfTsResol(value) => clock.resolution = *value,
                InterfaceDescriptionOption::IfTsOffset(value) => clock.offset = value.cast_signed(),
                _ => {}
            }
        }
        let file = self.input.name();
        let name = name.unwrap_or_else(|| if index == 0 { file } else { format!("{file}-{index}") });
        let snaplen = match description.snaplen {
            0 => MAX_CAPTURED as u32,
            snaplen => snaplen.min(MAX_CAPTURED as u32),
        };
        let link_type = LinkType(description.linktype.into());
        let interface = Interface {
            description: words,
            filter: filter.into(),
            ..Interface::new(origin(run, &name), link_type, snaplen)
        };
        Known { lane: packer.open(Arc::new(interface)), clock, snaplen }
    }

    fn damaged(&self, why: &str) -> FileError {
        FileError::Damaged { path: self.input.path().to_owned(), packets: self.packets, why: why.to_owned() }
    }
}

impl Clock {
    /// The time that so many ticks are.
    fn time(&self, ticks: u128) -> Timestamp {
        let exponent = u32::from(self.resolution & 0x7f);
        let per_second = if self.resolution & 0x80 == 0 {
            10_u128.checked_pow(exponent)
        } else {
            1_u128.checked_shl(exponent)
        };
        let nanos = per_second.map_or(0, |per_second| {
            let (secs, fraction) = (ticks / per_second, ticks % per_second);
            // Finer than 2^-64 or 10^-19 s no fraction fits: nobody's clock has that.
            secs.saturating_mul(1_000_000_000) + fraction.saturating_mul(1_000_000_000) / per_second
        });
        let nanos = i128::try_from(nanos).unwrap_or(i128::MAX);
        let nanos = nanos.saturating_add(i128::from(self.offset) * 1_000_000_000);
        Timestamp::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_of_every_length_are_times() {
        let nanos = |resolution, offset, ticks| Clock { resolution, offset }.time(ticks).as_nanos();
        assert_eq!(nanos(6, 0, 1_700_000_000_000_001), 1_700_000_000_000_001_000);
        assert_eq!(nanos(9, 0, 1_700_000_000_000_000_001), 1_700_000_000_000_000_001);
        assert_eq!(nanos(3, 10, 5), 10_005_000_000);
        assert_eq!(nanos(0x80 | 1, 0, 3), 1_500_000_000);
        assert_eq!(nanos(12, -1, 2_000_000_000_123_456), 1_999_000_000_123);
        assert_eq!(nanos(0xff, 0, 7), 0);
        assert_eq!(nanos(0, i64::MIN, 7), 0);
    }
}
