//! The series of the observer `pairs`.
//!
//! As those of `streams`, they are copied by chunks under the lock and written outside of it. Interfaces that nobody has
//! named bear the name of their origin's device, so what has the same labels is added up first.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::{Mutex, PoisonError};

use super::{Counts, Device, DeviceCounts, Pair, Pairs};
use crate::{Exposition, Kind, Labels, Origins};

/// A metric, its value, and what it says.
type Family<T> = (&'static str, fn(&T) -> u64, &'static str);

const OF_PAIRS: [Family<Counts>; 6] = [
    ("retransmission_metric", |c| c.retransmissions, "Segments sent again."),
    (
        "duration_metric",
        |c| c.response_nanos,
        "Response times added up: nanoseconds from a segment to the first data that its acknowledgment asks for.",
    ),
    ("window_scale_metric", |c| c.window_scales, "Segments with the window scale option."),
    ("rst_metric", |c| c.resets, "Segments with RST."),
    ("ip_df_metric", |c| c.dont_fragments, "Segments in IPv4 packets with DF."),
    ("zerowindow_metric", |c| c.zero_windows, "Segments with a window of 0."),
];

const OF_DEVICES: [Family<DeviceCounts>; 3] = [
    ("ip_packet_size", |c| c.ip_bytes, "Payload bytes of IP in TCP segments with data."),
    ("tcp_packet_size", |c| c.tcp_bytes, "Payload bytes of TCP."),
    ("packet_count", |c| c.packets, "Packets of any kind."),
];

impl Pairs {
    /// Writes all series. Takes the lock for short times only.
    pub fn expose(shared: &Mutex<Self>, origins: &Origins, out: &mut Exposition) {
        let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
        let (chunks, devices, evicted) = {
            let pairs = lock();
            let devices: Vec<(Device, DeviceCounts)> =
                pairs.devices.iter().map(|(&device, &counts)| (device, counts)).collect();
            (pairs.table.chunks(), devices, pairs.evicted.clone())
        };
        let mut pairs = Vec::new();
        for chunk in 0..chunks {
            let shared = lock();
            pairs.extend(shared.table.chunk(chunk).map(|(_, entry)| (entry.key, entry.value)));
        }
        let of_pairs = sums(pairs.iter().map(|(pair, counts)| (pair_labels(pair, origins), *counts)));
        let of_devices = sums(
            devices.iter().map(|(device, counts)| (device_labels(Labels::new(), device, origins), *counts)),
        );
        write(&OF_PAIRS, &of_pairs, out);
        write(&OF_DEVICES, &of_devices, out);
        write_ledger(&pairs, &evicted, origins, out);
    }
}

/// What there is for each set of labels, in their order.
fn sums<T: AddAssign + Default>(all: impl Iterator<Item = (String, T)>) -> BTreeMap<String, T> {
    let mut sums = BTreeMap::new();
    for (labels, counts) in all {
        *sums.entry(labels).or_default() += counts;
    }
    sums
}

fn pair_labels(pair: &Pair, origins: &Origins) -> String {
    device_labels(Labels::new().with("srcIp", pair.src).with("dstIp", pair.dst), &pair.device, origins)
}

fn device_labels(labels: Labels, device: &Device, origins: &Origins) -> String {
    let own = labels.with("deviceName", origins.device(device.origin, device.interface));
    match origins.labels(device.origin) {
        "" => own.as_str().to_owned(),
        origin => format!("{origin},{}", own.as_str()),
    }
}

fn write<T>(families: &[Family<T>], all: &BTreeMap<String, T>, out: &mut Exposition) {
    for (name, value, help) in families {
        out.family(name, Kind::Counter, help);
        for (labels, counts) in all {
            out.sample(name, labels, value(counts));
        }
    }
}

/// How many pairs there are, and how many are not there any more. Origins with the same labels are added up.
fn write_ledger(pairs: &[(Pair, Counts)], evicted: &[u64], origins: &Origins, out: &mut Exposition) {
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (id, _) in origins.iter() {
        sums.entry(origins.labels(id)).or_default().1 += evicted.get(id.index()).copied().unwrap_or(0);
    }
    for (pair, _) in pairs {
        sums.entry(origins.labels(pair.device.origin)).or_default().0 += 1;
    }
    out.family("packeteur_pairs", Kind::Gauge, "Pairs of hosts that are remembered.");
    for (labels, (remembered, _)) in &sums {
        out.sample("packeteur_pairs", labels, remembered);
    }
    let name = "packeteur_pairs_evicted_total";
    out.family(name, Kind::Counter, "Pairs of hosts forgotten to make room for others.");
    for (labels, (_, evicted)) in &sums {
        out.sample(name, labels, evicted);
    }
}

impl AddAssign for Counts {
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
