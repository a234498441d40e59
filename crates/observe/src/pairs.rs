//! The observer `pairs`: tcp-exporter's metrics of pairs of hosts, each by the device that saw them.
//!
//! The names and labels are those of tcp-exporter, so that its dashboard works unchanged; the values are what its code means
//! to count. What a segment shows is not found out again here: [`Pairs::observe_judged`] takes the verdict of the observer
//! `streams`, and only where that one does not run a table of streams is kept here.

mod expose;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use packet::Timestamp;
use packet::headers::TcpFlags;

use crate::aged::{Age, Aged};
use crate::streams::{self, Event, Streams, Verdict};
use crate::{Observed, OriginId};

/// The most interfaces that are told apart; what comes by others counts for their origin's device.
const MAX_DEVICES: usize = 4096;

/// How many pairs a packet takes out that have been silent for too long: faster than they come.
const FORGOTTEN_PER_PACKET: usize = 2;

/// The same where only time has come further.
const FORGOTTEN_PER_ADVANCE: usize = 512;

/// What bounds the observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// When a silent pair is forgotten (`STREAM_AGE`).
    pub age: Duration,
    /// The most pairs; when another one comes, the one that was silent for longest makes room (`MAX_PAIRS`).
    pub max_pairs: usize,
    /// What bounds the streams behind the pairs, where the observer `streams` does not run.
    pub streams: streams::Config,
}

impl Default for Config {
    /// 20 000 pairs: 3 MB of memory, and 120 000 series, which is as much as one scrape should bring.
    fn default() -> Self {
        Self { age: Duration::from_secs(5 * 60), max_pairs: 20_000, streams: streams::Config::default() }
    }
}

/// The observer.
#[derive(Debug)]
pub struct Pairs {
    table: Aged<Pair, Counts>,
    devices: HashMap<Device, DeviceCounts, RandomState>,
    /// By origin: how many pairs had to make room.
    evicted: Vec<u64>,
    /// Judges segments where nobody else does.
    streams: Option<Box<Streams>>,
    config: Config,
}

/// A device: that of an origin, or one of the interfaces that it captures from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Device {
    origin: OriginId,
    interface: Option<u32>,
}

/// Who sends to whom, as that device saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pair {
    device: Device,
    src: IpAddr,
    dst: IpAddr,
}

/// What is counted of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    retransmissions: u64,
    /// Response times, added up, in nanoseconds.
    response_nanos: u64,
    /// Segments with the window scale option.
    window_scales: u64,
    resets: u64,
    /// IPv4 packets with DF. IPv6 has no such flag.
    dont_fragments: u64,
    /// Segments with a window of 0, whatever their flags.
    zero_windows: u64,
}

/// What is counted of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct DeviceCounts {
    packets: u64,
    /// Payload bytes of IP in segments with data.
    ip_bytes: u64,
    /// Payload bytes of TCP.
    tcp_bytes: u64,
}

impl Pairs {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let config = Config { max_pairs: config.max_pairs.max(1), ..config };
        Self {
            table: Aged::new(config.max_pairs, [config.age; 2]),
            devices: HashMap::default(),
            evicted: Vec::new(),
            streams: None,
            config,
        }
    }

    /// How many pairs there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes note of a packet that nobody has judged.
    pub fn observe(&mut self, packet: &Observed<'_>) {
        let config = self.config.streams;
        let streams = self.streams.get_or_insert_with(|| Box::new(Streams::new(config)));
        let verdict = streams.observe(packet);
        self.observe_judged(packet, &verdict);
    }

    /// Takes note of a packet of which [`Streams::observe`] has said what it shows.
    pub fn observe_judged(&mut self, packet: &Observed<'_>, verdict: &Verdict) {
        let origin = packet.origin;
        self.table.tick(origin, packet.time);
        self.forget_silent(origin, FORGOTTEN_PER_PACKET);
        let device = self.device(packet);
        let of_device = self.devices.entry(device).or_default();
        of_device.packets += 1;
        let Some((ip, tcp)) = packet.headers.segment() else { return };
        if tcp.payload_len > 0 {
            of_device.ip_bytes += u64::from(ip.end.saturating_sub(ip.payload_at));
            of_device.tcp_bytes += u64::from(tcp.payload_len);
        }
        let counts = self.pair(Pair { device, src: ip.src, dst: ip.dst });
        counts.retransmissions += u64::from(verdict.events.has(Event::Retransmission));
        counts.response_nanos += verdict.response.unwrap_or(0);
        counts.window_scales += u64::from(tcp.window_scale.is_some());
        counts.resets += u64::from(tcp.flags.any(TcpFlags::RST));
        counts.dont_fragments += u64::from(ip.src.is_ipv4() && ip.dont_fragment);
        counts.zero_windows += u64::from(tcp.window == 0);
    }

    /// The packets' time of `origin` has come to `now`, whether or not a packet came with it.
    pub fn advance(&mut self, origin: OriginId, now: Timestamp) {
        self.table.tick(origin, now);
        self.forget_silent(origin, FORGOTTEN_PER_ADVANCE);
        if let Some(streams) = &mut self.streams {
            streams.advance(origin, now);
        }
    }

    /// The device that saw a packet.
    fn device(&self, packet: &Observed<'_>) -> Device {
        let device = Device { origin: packet.origin, interface: packet.headers.interface };
        if self.devices.len() < MAX_DEVICES || self.devices.contains_key(&device) {
            return device;
        }
        Device { interface: None, ..device }
    }

    /// The counts of a pair; another one has to make room, where it is new.
    fn pair(&mut self, pair: Pair) -> &mut Counts {
        let origin = pair.device.origin;
        let known = self.table.find(&pair).filter(|&slot| {
            let expired = self.table.is_expired(self.table.get(slot));
            if expired {
                self.table.remove(slot);
            }
            !expired
        });
        let slot = known.unwrap_or_else(|| {
            while self.table.len() >= self.config.max_pairs {
                let Some(longest) = self.table.silent_longest(None) else { break };
                let of = self.table.get(longest).origin();
                if of.index() >= self.evicted.len() {
                    self.evicted.resize(of.index() + 1, 0);
                }
                self.evicted[of.index()] += 1;
                self.table.remove(longest);
            }
            self.table.insert(origin, pair, Counts::default())
        });
        self.table.touch(slot, Age::Living);
        &mut self.table.get_mut(slot).value
    }

    fn forget_silent(&mut self, origin: OriginId, at_most: usize) {
        for _ in 0..at_most {
            let Some(slot) = self.table.expired(origin) else { return };
            self.table.remove(slot);
        }
    }
}
