//! pcapng: several interfaces and link types in one file. Each named interface is an interface of the capture; unnamed
//! ones cannot be told apart and form one interface per link type.
//!
//! The parser is our own: `pcap-file` refuses files that all other programs read.

mod block;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use batch::{Batch, Interface};
use packet::bytes::ByteOrder;
use packet::record::MAX_CAPTURED;
use packet::{LinkType, Record, Timestamp};

use super::input::{Filled, Input};
use super::{FileError, origin};
use crate::Progress;
use crate::batcher::{InterfaceSlot, Timing};
use crate::clock::latest_piped;
use crate::context::{CaptureContext, now};
use crate::stages::{Stages, StagesConfig};
use crate::tzsp::TzspReport;
use block::{Block, Description, Packet};

pub(super) use block::SECTION_HEADER as MAGIC;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// The most interfaces of a file, over all its sections.
const MAX_INTERFACES: usize = 4096;

/// The resolution of an interface that does not state one: microseconds.
const DEFAULT_RESOLUTION: u8 = 6;

/// A pcapng file.
#[derive(Debug)]
pub(super) struct Reader {
    input: Input,
    order: ByteOrder,
    /// What has been read; the bytes before `unread` have been parsed.
    buf: Vec<u8>,
    unread: usize,
    packets: u64,
    interfaces: Interfaces,
    stages: Stages,
    context: CaptureContext,
}

/// The interfaces that the file has described.
#[derive(Debug, Default)]
struct Interfaces {
    /// The interfaces of the current section, by number.
    section: Vec<SectionInterface>,
    /// The slots of all sections' interfaces, by name and link type.
    slots: HashMap<(String, LinkType), InterfaceSlot>,
    /// The latest time of any packet so far.
    latest: Timestamp,
    /// Whether the packets come through a pipe, and follow a clock.
    piped: bool,
}

/// An interface of the current section.
#[derive(Clone, Copy, Debug)]
struct SectionInterface {
    slot: InterfaceSlot,
    clock: Clock,
    snaplen: u32,
}

/// How an interface counts time.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// `if_tsresol`: a negative power of ten, or of two if the highest bit is set.
    resolution: u8,
    /// `if_tsoffset`: seconds to add to every time.
    offset: i64,
}

impl Reader {
    pub(super) fn open(
        mut input: Input,
        stages: &StagesConfig,
        context: CaptureContext,
    ) -> Result<Self, FileError> {
        // The first block is a section header, which has the byte order of all others.
        let mut buf = Vec::with_capacity(CHUNK);
        let (order, unread) = loop {
            match Block::split_from(&buf, ByteOrder::Little) {
                Ok(Some((Block::Section(order), unread))) => break (order, unread),
                Ok(None) => {}
                _ => return Err(input.not_a_capture("its section header block is invalid")),
            }
            buf.reserve(CHUNK);
            match input.fill(&mut buf, Duration::MAX) {
                Ok(Filled::End) => return Err(input.not_a_capture("it ends within its first block")),
                Ok(_) => {}
                Err(why) => {
                    return Err(FileError::Read { path: input.path().to_owned(), packets: 0, why });
                }
            }
        };
        let stages = Stages::new(context.clone(), input.timing(), stages);
        let piped = input.timing() == Timing::Piped;
        let interfaces = Interfaces { piped, ..Interfaces::default() };
        Ok(Self { input, order, buf, unread, packets: 0, interfaces, stages, context })
    }

    pub(super) fn tzsp_report(&self) -> Option<TzspReport> {
        self.stages.tzsp_report()
    }

    /// Reads one chunk of the file.
    pub(super) fn poll(&mut self) -> Result<Progress, FileError> {
        match self.read() {
            Ok(Progress::Running) => Ok(Progress::Running),
            ended => {
                self.stages.end(self.interfaces.latest);
                ended
            }
        }
    }

    fn read(&mut self) -> Result<Progress, FileError> {
        if self.context.is_over() {
            return Ok(Progress::Ended);
        }
        self.parse()?;
        let is_pipe = self.input.timing() == Timing::Piped;
        if is_pipe {
            self.stages.tick(now(), Some(self.interfaces.latest));
        }
        self.buf.drain(..self.unread);
        self.unread = 0;
        self.buf.reserve(CHUNK);
        let timeout = if is_pipe { self.stages.time_until_due(now()) } else { Duration::MAX };
        match self.input.fill(&mut self.buf, timeout) {
            Ok(Filled::Bytes(_) | Filled::NothingYet) => Ok(Progress::Running),
            Ok(Filled::End) if self.buf.is_empty() => Ok(Progress::Ended),
            Ok(Filled::End) => {
                let (path, packet) = (self.input.path().to_owned(), self.packets + 1);
                Err(FileError::Truncated { path, packet })
            }
            Err(why) => {
                let (path, packets) = (self.input.path().to_owned(), self.packets);
                Err(FileError::Read { path, packets, why })
            }
        }
    }

    /// Parses all whole blocks that have been read.
    fn parse(&mut self) -> Result<(), FileError> {
        loop {
            let unread = self.buf.get(self.unread..).unwrap_or_default();
            let (block, taken) = match Block::split_from(unread, self.order) {
                Ok(Some(parsed)) => parsed,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.corrupt(&error.to_string())),
            };
            match block {
                Block::Section(order) => {
                    self.order = order;
                    self.interfaces.section.clear();
                }
                Block::Interface(description) => {
                    if self.interfaces.slots.len() >= MAX_INTERFACES {
                        return Err(self.corrupt(&format!("it has more than {MAX_INTERFACES} interfaces")));
                    }
                    let (file, source) = (self.input.name(), &self.context.source);
                    self.interfaces.add(description, &file, source, &mut self.stages);
                }
                Block::Packet(packet) => match self.interfaces.record(&packet) {
                    Ok((slot, record)) => {
                        if !self.stages.push(slot, &record, now_if(self.input.timing())) {
                            return Ok(());
                        }
                        self.packets += 1;
                    }
                    Err(why) => return Err(self.corrupt(&why)),
                },
                Block::Other => {}
            }
            self.unread += taken;
        }
    }

    fn corrupt(&self, why: &str) -> FileError {
        FileError::Corrupt { path: self.input.path().to_owned(), packets: self.packets, why: why.to_owned() }
    }

    pub(super) fn poll_batch(&mut self) -> Option<Batch> {
        self.stages.poll_batch()
    }

    pub(super) fn wants_buffer(&mut self) -> bool {
        self.stages.batcher().wants_buffer()
    }

    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        self.stages.batcher().recycle(buffer);
    }
}

/// When a packet arrived: only pipes need it.
fn now_if(timing: Timing) -> Timestamp {
    if timing == Timing::Piped { now() } else { Timestamp::MAX }
}

impl Interfaces {
    /// Adds an interface of the current section.
    fn add(&mut self, description: Description, file: &str, source: &Arc<str>, stages: &mut Stages) {
        let mut name = description.name.unwrap_or_else(|| file.to_owned());
        let snaplen = match description.snaplen {
            0 => MAX_CAPTURED as u32,
            snaplen => snaplen.min(MAX_CAPTURED as u32),
        };
        let link_type = LinkType(description.link_type.into());
        // An interface has one link type: the same name with another one is another interface.
        if self.slots.keys().any(|(known, of_type)| *known == name && *of_type != link_type) {
            name = format!("{name} {link_type}");
        }
        let slot = *self.slots.entry((name.clone(), link_type)).or_insert_with(|| {
            stages.open(Arc::new(Interface {
                description: description.words.into(),
                filter: description.filter.into(),
                ..Interface::new(origin(source, &name), link_type, snaplen)
            }))
        });
        let resolution = description.resolution.unwrap_or(DEFAULT_RESOLUTION);
        let clock = Clock { resolution, offset: description.offset };
        self.section.push(SectionInterface { slot, clock, snaplen });
    }

    /// The record of a packet. The error says what is invalid about it.
    fn record<'a>(&mut self, packet: &Packet<'a>) -> Result<(InterfaceSlot, Record<'a>), String> {
        let Some(interface) = self.section.get(packet.interface as usize) else {
            return Err(format!("a packet refers to interface {}, which is not described", packet.interface));
        };
        let (bytes, time) = match packet.ticks {
            Some(ticks) => (packet.bytes, interface.clock.time(ticks)),
            // A simple packet has no time: it gets that of the packet before it. It also does not say how much of it is
            // padding (section 4.4).
            None => {
                let captured = packet.original.min(interface.snaplen) as usize;
                (packet.bytes.get(..captured).unwrap_or(packet.bytes), self.latest)
            }
        };
        if bytes.len() > MAX_CAPTURED {
            return Err(format!("a packet has {} bytes, more than {MAX_CAPTURED}", bytes.len()));
        }
        self.latest = if self.piped { latest_piped(self.latest, time) } else { self.latest.max(time) };
        Ok((interface.slot, Record { time, original: packet.original, bytes }))
    }
}

impl Clock {
    /// The time of that many ticks.
    fn time(self, ticks: u64) -> Timestamp {
        let exponent = u32::from(self.resolution & 0x7f);
        let per_second = if self.resolution & 0x80 == 0 {
            10_u128.checked_pow(exponent)
        } else {
            1_u128.checked_shl(exponent)
        };
        let ticks = u128::from(ticks);
        // With units finer than 2^-127 or 10^-38 s, 64 bits of ticks are less than a nanosecond.
        let nanos = per_second.map_or(0, |per_second| {
            let (secs, fraction) = (ticks / per_second, ticks % per_second);
            // The fraction is below 2^64 as the ticks are, so the product fits.
            secs * 1_000_000_000 + fraction * 1_000_000_000 / per_second
        });
        let offset = i128::from(self.offset) * 1_000_000_000;
        let nanos = i128::try_from(nanos).unwrap_or(i128::MAX).saturating_add(offset).max(0);
        // A record has 32 bits for the seconds. Later times, which only broken clocks make, wrap around as in every
        // program that writes pcap.
        let secs = (nanos / 1_000_000_000) as u32;
        Timestamp::from_parts(secs, (nanos % 1_000_000_000) as u32)
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
        assert_eq!(nanos(0, 0, 1 << 32 | 7), 7_000_000_000);
        assert_eq!(nanos(38, 0, u64::MAX), 0);
    }
}
