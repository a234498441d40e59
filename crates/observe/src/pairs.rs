//! The observer `pairs`: TCP between pairs of hosts, per device.
//!
//! Names and labels are those of tcp-exporter, so that its dashboard works unchanged. Values are what its code intends
//! to count. The analysis of segments is that of the observer `streams`; without `streams`, this observer has a table
//! of streams for itself.

mod collect;
#[cfg(test)]
mod tests;
mod write;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use foldhash::fast::RandomState;
use metrics::{Declaration, Exposition};
use packet::Timestamp;
use packet::headers::TcpFlags;
use parking_lot::Mutex;
use prometheus::proto::MetricFamily;

use crate::expiring_table::{ExpiringTable, Limit};
use crate::observer::{BatchOrigin, Chunk, Observer};
use crate::streams::{Event, SegmentAnalysis, Streams, StreamsConfig};
use crate::{ObservedPacket, OriginId, Origins};

/// The most interfaces that are counted separately. Packets of others count for the device of their origin.
const MAX_DEVICES: usize = 4096;

/// How many expired pairs a packet removes. A packet adds at most one, so removal is faster.
const REMOVED_PER_PACKET: usize = 2;

/// How many expired pairs an [`advance`](Pairs::advance) removes.
const REMOVED_PER_ADVANCE: usize = 512;

/// The bounds of the observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairsConfig {
    /// An idle pair is removed after this time (`FLOW_AGE`).
    pub age: Duration,
    /// The most pairs. A new one evicts the pair that has been idle for longest, which is counted (`MAX_PAIRS`).
    pub max_pairs: usize,
    /// The bounds of the table of streams, if the observer `streams` does not run.
    pub streams: StreamsConfig,
}

impl Default for PairsConfig {
    /// An hour, and 20 000 pairs: 3 MB of memory and 120 000 series, as much as one scrape should have.
    fn default() -> Self {
        Self { age: Duration::from_secs(3600), max_pairs: 20_000, streams: StreamsConfig::default() }
    }
}

/// The observer.
#[derive(Debug)]
pub(crate) struct Pairs {
    table: ExpiringTable<PairKey, PairCounts>,
    devices: Vec<(Device, DeviceCounts)>,
    device_indices: HashMap<Device, usize, RandomState>,
    /// Index of the device of the last packet, which is mostly that of the next one too.
    last_device: usize,
    /// Evicted pairs by origin.
    evicted: Vec<u64>,
    /// Analyzes segments if the observer `streams` does not.
    streams: Option<Box<Streams>>,
    config: PairsConfig,
}

/// The device of an origin, or one of the interfaces behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Device {
    origin: OriginId,
    interface: Option<u32>,
}

/// Sender and receiver, and the device that captured their packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PairKey {
    device: Device,
    src: IpAddr,
    dst: IpAddr,
}

/// The counts of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PairCounts {
    retransmissions: u64,
    /// The sum of the response times in nanoseconds.
    response_nanos: u64,
    /// Segments with the window scale option.
    window_scales: u64,
    resets: u64,
    /// IPv4 packets with DF. IPv6 has no such flag.
    dont_fragments: u64,
    /// Segments with a window of 0, whatever their flags.
    zero_windows: u64,
}

/// The counts of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct DeviceCounts {
    packets: u64,
    /// IP payload bytes of segments with data.
    ip_bytes: u64,
    /// TCP payload bytes.
    tcp_bytes: u64,
}

impl Pairs {
    /// An observer that has seen no packet.
    pub(crate) fn new(config: PairsConfig) -> Self {
        let config = PairsConfig { max_pairs: config.max_pairs.max(1), ..config };
        Self {
            table: ExpiringTable::new(config.max_pairs, [config.age; 2]),
            devices: Vec::new(),
            device_indices: HashMap::default(),
            last_device: 0,
            evicted: Vec::new(),
            streams: None,
            config,
        }
    }

    /// Analyzes a packet captured at `origin`, if no other observer has.
    fn analyze(&mut self, origin: OriginId, packet: &ObservedPacket<'_>) -> SegmentAnalysis {
        let config = self.config.streams;
        self.streams.get_or_insert_with(|| Box::new(Streams::new(config))).observe(origin, packet)
    }

    /// Counts a packet captured at `origin`.
    fn observe(&mut self, origin: OriginId, packet: &ObservedPacket<'_>, analysis: &SegmentAnalysis) {
        self.table.tick(origin, packet.time);
        self.remove_expired(origin, REMOVED_PER_PACKET);
        let index = self.device(Device { origin, interface: packet.headers.interface });
        self.last_device = index;
        let (device, counts) = &mut self.devices[index];
        let device = *device;
        counts.packets += 1;
        let Some((ip, tcp)) = packet.headers.segment() else { return };
        if tcp.payload_len > 0 {
            counts.ip_bytes += u64::from(ip.end.saturating_sub(ip.payload_at));
            counts.tcp_bytes += u64::from(tcp.payload_len);
        }
        let counts = self.pair(PairKey { device, src: ip.src, dst: ip.dst });
        counts.retransmissions += u64::from(analysis.events.has(Event::Retransmission));
        counts.response_nanos += analysis.response.unwrap_or(0);
        counts.window_scales += u64::from(tcp.window_scale.is_some());
        counts.resets += u64::from(tcp.flags.any(TcpFlags::RST));
        counts.dont_fragments += u64::from(ip.src.is_ipv4() && ip.dont_fragment);
        counts.zero_windows += u64::from(tcp.window == 0);
    }

    /// Advances the packet time of `origin`, and removes expired pairs.
    fn advance(&mut self, origin: OriginId, now: Timestamp) {
        self.table.tick(origin, now);
        self.remove_expired(origin, REMOVED_PER_ADVANCE);
        if let Some(streams) = &mut self.streams {
            streams.advance(origin, now);
        }
    }

    /// Removes some pairs of `origin`, and its devices with the last of them. Returns whether there is more.
    fn remove_some(&mut self, origin: OriginId) -> bool {
        if self.streams.as_mut().is_some_and(|streams| streams.remove_some(origin)) {
            return true;
        }
        for _ in 0..REMOVED_PER_ADVANCE {
            let Some(slot) = self.table.any_of(origin) else {
                self.remove_devices(origin);
                return false;
            };
            self.table.remove(slot);
        }
        true
    }

    fn remove_devices(&mut self, origin: OriginId) {
        if let Some(evicted) = self.evicted.get_mut(origin.index()) {
            *evicted = 0;
        }
        self.devices.retain(|(device, _)| device.origin != origin);
        let indices = self.devices.iter().enumerate().map(|(index, (device, _))| (*device, index));
        self.device_indices = indices.collect();
        self.last_device = 0;
    }

    /// The index of a device in the list.
    #[inline]
    fn device(&mut self, device: Device) -> usize {
        if self.devices.get(self.last_device).is_some_and(|(last, _)| *last == device) {
            return self.last_device;
        }
        match self.device_indices.get(&device) {
            Some(&index) => index,
            None => self.add_device(device),
        }
    }

    #[cold]
    fn add_device(&mut self, device: Device) -> usize {
        if self.devices.len() >= MAX_DEVICES && device.interface.is_some() {
            return self.device(Device { interface: None, ..device });
        }
        self.devices.push((device, DeviceCounts::default()));
        self.device_indices.insert(device, self.devices.len() - 1);
        self.devices.len() - 1
    }

    /// The counts of a pair. A new one evicts others if the table is full.
    fn pair(&mut self, pair: PairKey) -> &mut PairCounts {
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
                let Some(longest) = self.table.longest_idle(None) else { break };
                let of = self.table.get(longest).origin();
                if of.index() >= self.evicted.len() {
                    self.evicted.resize(of.index() + 1, 0);
                }
                self.evicted[of.index()] += 1;
                self.table.remove(longest);
            }
            self.table.insert(origin, pair, PairCounts::default())
        });
        self.table.touch(slot, Limit::Active);
        &mut self.table.get_mut(slot).value
    }

    fn remove_expired(&mut self, origin: OriginId, limit: usize) {
        for _ in 0..limit {
            let Some(slot) = self.table.expired(origin) else { return };
            self.table.remove(slot);
        }
    }
}

impl Observer for Mutex<Pairs> {
    fn forget(&self, id: OriginId) {
        while self.lock().remove_some(id) {}
    }

    fn observe(&self, chunk: &mut Chunk<'_>) {
        let mut pairs = self.lock();
        let origin = chunk.origin.canonical_with_device;
        if chunk.analyses.is_empty() {
            let mut analyses = std::mem::take(&mut chunk.analyses);
            analyses.extend(chunk.packets().iter().map(|packet| pairs.analyze(origin, packet)));
            chunk.analyses = analyses;
        }
        for (packet, analysis) in chunk.packets().iter().zip(&chunk.analyses) {
            pairs.observe(origin, packet, analysis);
        }
    }

    fn advance(&self, origin: BatchOrigin, now: Timestamp) {
        self.lock().advance(origin.canonical_with_device, now);
    }

    fn declarations(&self) -> Vec<Declaration> {
        collect::DECLARATIONS.to_vec()
    }

    fn collect(&self, origins: &Origins) -> Vec<MetricFamily> {
        collect::collect(self, origins)
    }

    fn write_table(&self, origins: &Origins, out: &mut Exposition) {
        Pairs::write_table(self, origins, out);
    }
}
