//! The tables of pairs and of devices in a scrape.
//!
//! Like that of `streams`, the table of pairs is copied by chunks, and written without the lock. Interfaces without a
//! name have the name of their origin's device, so counts with the same labels are added up first.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use metrics::{Exposition, Kind, Labels};
use parking_lot::Mutex;

use super::{Device, DeviceCounts, PairCounts, PairKey, Pairs};
use crate::Origins;

/// The name of a counter, its value, and its help text.
type Counter<T> = (&'static str, fn(&T) -> u64, &'static str);

const OF_PAIRS: [Counter<PairCounts>; 6] = [
    ("retransmission_metric", |c| c.retransmissions, "Retransmissions."),
    (
        "duration_metric",
        |c| c.response_nanos,
        "Sum of the response times in nanoseconds: from a segment to the first data from its acknowledgment number on.",
    ),
    ("window_scale_metric", |c| c.window_scales, "Segments with the window scale option."),
    ("rst_metric", |c| c.resets, "Segments with RST."),
    ("ip_df_metric", |c| c.dont_fragments, "Segments in IPv4 packets with DF."),
    ("zerowindow_metric", |c| c.zero_windows, "Segments with a window of 0."),
];

const OF_DEVICES: [Counter<DeviceCounts>; 3] = [
    ("ip_packet_size", |c| c.ip_bytes, "IP payload bytes of TCP segments with data."),
    ("tcp_packet_size", |c| c.tcp_bytes, "TCP payload bytes."),
    ("packet_count", |c| c.packets, "Packets."),
];

impl Pairs {
    /// Writes the series of all pairs and devices.
    pub(crate) fn write_table(shared: &Mutex<Self>, origins: &Origins, out: &mut Exposition) {
        let (chunks, devices) = {
            let pairs = shared.lock();
            (pairs.table.chunks(), pairs.devices.clone())
        };
        let mut pairs = Vec::new();
        for chunk in 0..chunks {
            let shared = shared.lock();
            pairs.extend(shared.table.chunk(chunk).map(|(_, entry)| (entry.key, entry.value)));
        }
        write(
            &OF_PAIRS,
            &sums(pairs.iter().map(|(pair, counts)| (pair_labels(pair, origins), *counts))),
            out,
        );
        let of_devices =
            devices.iter().map(|(device, counts)| (device_labels(Labels::new(), device, origins), *counts));
        write(&OF_DEVICES, &sums(of_devices), out);
    }
}

/// The sum for each set of labels, in the order of the labels.
fn sums<T: AddAssign + Default>(all: impl Iterator<Item = (String, T)>) -> BTreeMap<String, T> {
    let mut sums = BTreeMap::new();
    for (labels, counts) in all {
        *sums.entry(labels).or_default() += counts;
    }
    sums
}

fn pair_labels(pair: &PairKey, origins: &Origins) -> String {
    device_labels(Labels::new().with("srcIp", pair.src).with("dstIp", pair.dst), &pair.device, origins)
}

fn device_labels(labels: Labels, device: &Device, origins: &Origins) -> String {
    let own = labels.with("deviceName", origins.device(device.origin, device.interface));
    match origins.labels(device.origin) {
        "" => own.as_str().to_owned(),
        origin => format!("{origin},{}", own.as_str()),
    }
}

fn write<T>(counters: &[Counter<T>], all: &BTreeMap<String, T>, out: &mut Exposition) {
    for (name, value, help) in counters {
        out.family(name, Kind::Counter, help);
        for (labels, counts) in all {
            out.sample(name, labels, value(counts));
        }
    }
}

impl AddAssign for PairCounts {
    fn add_assign(&mut self, other: Self) {
        self.retransmissions += other.retransmissions;
        self.response_nanos += other.response_nanos;
        self.window_scales += other.window_scales;
        self.resets += other.resets;
        self.dont_fragments += other.dont_fragments;
        self.zero_windows += other.zero_windows;
    }
}

impl AddAssign for DeviceCounts {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.ip_bytes += other.ip_bytes;
        self.tcp_bytes += other.tcp_bytes;
    }
}
