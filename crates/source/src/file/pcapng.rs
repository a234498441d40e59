//! pcapng: several interfaces, several link types, in one file. Each named interface is an origin of its own; those
//! without a name cannot be told apart, and are one for each link type.

mod block;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use batch::Interface;
use packet::record::MAX_CAPTURED;
use packet::{LinkType, Record, Timestamp};

use super::input::{Filled, Input};
use super::{FileError, origin};
use crate::outlet::{Outlet, Run, now};
use crate::packer::{Lane, Pace, Packer};
use block::{Block, ByteOrder, Description, Packet};

pub(super) use block::SECTION_HEADER as MAGIC;

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

/// The most interfaces that are told apart, over all sections of a file.
const MAX_INTERFACES: usize = 4096;

/// The resolution of times where an interface does not say: microseconds.
const DEFAULT_RESOLUTION: u8 = 6;

/// A pcapng file.
#[derive(Debug)]
pub(super) struct Reader {
    input: Input,
    order: ByteOrder,
    /// What has been read; what lies in front of `unread` has been parsed.
    buf: Vec<u8>,
    unread: usize,
    packets: u64,
}

/// What has been learnt of a file on the way.
struct Knowledge {
    /// The interfaces of the section that is being read, by number.
    interfaces: Vec<Known>,
    /// The origins of all sections.
    lanes: HashMap<(String, LinkType), Lane>,
    /// The latest packet of all.
    latest: Timestamp,
    /// The origin of the last packet.
    last: Option<Lane>,
}

/// An interface of the section that is being read.
#[derive(Clone, Copy)]
struct Known {
    lane: Lane,
    clock: Clock,
    snaplen: u32,
}

/// How an interface counts time.
#[derive(Clone, Copy)]
struct Clock {
    /// `if_tsresol`: a negative power of ten, or with the highest bit set of two.
    resolution: u8,
    /// `if_tsoffset`: seconds to add to every time.
    offset: i64,
}

impl Reader {
    pub(super) fn open(mut input: Input) -> Result<Self, FileError> {
        // The first block is a section header, which says how all others are to be read.
        let mut buf = Vec::with_capacity(CHUNK);
        loop {
            match Block::split_from(&buf, ByteOrder::Little) {
                Ok(Some((Block::Section(order), unread))) => {
                    return Ok(Self { input, order, buf, unread, packets: 0 });
                }
                Ok(None) => {}
                _ => return Err(input.not_a_capture("its section header block makes no sense")),
            }
            buf.reserve(CHUNK);
            match input.fill(&mut buf, Duration::MAX) {
                Ok(Filled::End) => return Err(input.not_a_capture("it ends within its first block")),
                Ok(_) => {}
                Err(why) => return Err(FileError::Read { path: input.path().to_owned(), packets: 0, why }),
            }
        }
    }

    pub(super) fn pace(&self) -> Pace {
        self.input.pace()
    }

    pub(super) fn capture(mut self, outlet: &mut dyn Outlet, run: &Run) -> Result<(), FileError> {
        let mut packer = Packer::new(outlet, run.clone(), self.input.pace());
        let mut knowledge =
            Knowledge { interfaces: Vec::new(), lanes: HashMap::new(), latest: Timestamp::ZERO, last: None };
        let ended = self.read(&mut packer, run, &mut knowledge);
        packer.end(knowledge.latest);
        ended
    }

    fn read(
        &mut self,
        packer: &mut Packer<'_>,
        run: &Run,
        knowledge: &mut Knowledge,
    ) -> Result<(), FileError> {
        while !run.is_over() {
            self.parse(packer, run, knowledge)?;
            if self.input.is_live() {
                packer.tick(now(), Some(knowledge.latest));
            }
            self.buf.drain(..self.unread);
            self.unread = 0;
            self.buf.reserve(CHUNK);
            let patience = packer.patience(now());
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
        knowledge: &mut Knowledge,
    ) -> Result<(), FileError> {
        loop {
            let unread = self.buf.get(self.unread..).unwrap_or_default();
            let (block, taken) = match Block::split_from(unread, self.order) {
                Ok(Some(parsed)) => parsed,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.damaged(&error.to_string())),
            };
            match block {
                Block::Section(order) => {
                    self.order = order;
                    knowledge.interfaces.clear();
                }
                Block::Interface(description) => {
                    if packer.lanes() >= MAX_INTERFACES {
                        return Err(self.damaged(&format!("it has more than {MAX_INTERFACES} interfaces")));
                    }
                    knowledge.meet(description, &self.input.name(), packer, run);
                }
                Block::Packet(packet) => match knowledge.take(&packet, packer, run.in_order) {
                    Ok(true) => self.packets += 1,
                    Ok(false) => return Ok(()),
                    Err(why) => return Err(self.damaged(&why)),
                },
                Block::Other => {}
            }
            self.unread += taken;
        }
    }

    fn damaged(&self, why: &str) -> FileError {
        FileError::Damaged { path: self.input.path().to_owned(), packets: self.packets, why: why.to_owned() }
    }
}

impl Knowledge {
    /// Takes note of a further interface of this section.
    fn meet(&mut self, description: Description, file: &str, packer: &mut Packer<'_>, run: &Run) {
        let mut name = description.name.unwrap_or_else(|| file.to_owned());
        let snaplen = match description.snaplen {
            0 => MAX_CAPTURED as u32,
            snaplen => snaplen.min(MAX_CAPTURED as u32),
        };
        let link_type = LinkType(description.link_type.into());
        // An origin has one order and one account: another link type makes another one.
        if self.lanes.keys().any(|(known, of_type)| *known == name && *of_type != link_type) {
            name = format!("{name} {link_type}");
        }
        let lane = *self.lanes.entry((name.clone(), link_type)).or_insert_with(|| {
            packer.open(Arc::new(Interface {
                description: description.words.into(),
                filter: description.filter.into(),
                ..Interface::new(origin(run, &name), link_type, snaplen)
            }))
        });
        let resolution = description.resolution.unwrap_or(DEFAULT_RESOLUTION);
        let clock = Clock { resolution, offset: description.offset };
        self.interfaces.push(Known { lane, clock, snaplen });
    }

    /// Takes a packet in; false where no more are wanted. The error says what makes no sense about it.
    fn take(&mut self, packet: &Packet<'_>, packer: &mut Packer<'_>, in_order: bool) -> Result<bool, String> {
        let Some(interface) = self.interfaces.get(packet.interface as usize).copied() else {
            return Err(format!("a packet is of interface {}, which is not described", packet.interface));
        };
        let (bytes, time) = match packet.ticks {
            Some(ticks) => (packet.bytes, interface.clock.time(ticks)),
            // A simple packet has no time: it is not before the packet in front of it. Nor does it say how much of it is
            // padding (section 4.4).
            None => {
                let captured = packet.original.min(interface.snaplen) as usize;
                (packet.bytes.get(..captured).unwrap_or(packet.bytes), self.latest)
            }
        };
        if bytes.len() > MAX_CAPTURED {
            return Err(format!("a packet has {} bytes, more than {MAX_CAPTURED}", bytes.len()));
        }
        self.latest = self.latest.max(time);
        // All interfaces of a file come to the collector at one pace: none of them holds up the others there.
        let turn = in_order && self.last.is_some_and(|last| last != interface.lane);
        if turn || packer.is_full_for(interface.lane, bytes.len()) {
            packer.flush(self.latest);
        }
        self.last = Some(interface.lane);
        Ok(packer.push(interface.lane, &Record { time, original: packet.original, bytes }))
    }
}

impl Clock {
    /// The time that so many ticks are.
    fn time(self, ticks: u64) -> Timestamp {
        let exponent = u32::from(self.resolution & 0x7f);
        let per_second = if self.resolution & 0x80 == 0 {
            10_u128.checked_pow(exponent)
        } else {
            1_u128.checked_shl(exponent)
        };
        let ticks = u128::from(ticks);
        // Finer than 2^-127 or 10^-38 s, nothing of 64 bits of ticks is left.
        let nanos = per_second.map_or(0, |per_second| {
            let (secs, fraction) = (ticks / per_second, ticks % per_second);
            // The fraction is below 2^64 as the ticks are, so the product fits.
            secs * 1_000_000_000 + fraction * 1_000_000_000 / per_second
        });
        let offset = i128::from(self.offset) * 1_000_000_000;
        let nanos = i128::try_from(nanos).unwrap_or(i128::MAX).saturating_add(offset).max(0);
        // A record has 32 bits for the seconds. Times that need more, which only broken clocks make, wrap around, as they do
        // in every program that writes pcap: so they keep their distances.
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
