//! The observer `sizes`: packets and their lengths, by address family.

use metrics::{Declaration, Histogram, LabelSet};
use packet::AddressFamily;
use prometheus::proto::MetricFamily;

const PACKETS: Declaration = Declaration::counter("packeteur_capture_total", "Packets, by address family.");

const LENGTHS: Declaration =
    Declaration::histogram("packeteur_capture_bytes", "Original packet length in bytes, by address family.");

/// All families that [`Sizes::collect`] returns.
pub(crate) const DECLARATIONS: [Declaration; 2] = [PACKETS, LENGTHS];

/// The values of the label, in the order of the series.
const FAMILIES: [AddressFamily; 3] = [AddressFamily::IPv4, AddressFamily::IPv6, AddressFamily::Other];

/// The upper bounds of the buckets, as exponents of 2: from the shortest Ethernet frame to the longest IP packet.
const SMALLEST: u32 = 6;
const LARGEST: u32 = 16;

/// One bucket for each bound, and one above all of them.
const BUCKETS: usize = (LARGEST - SMALLEST) as usize + 2;

/// The upper bounds in bytes.
const BOUNDS: [f64; BUCKETS - 1] = {
    let (mut bounds, mut index) = ([0.0; BUCKETS - 1], 0);
    while index < bounds.len() {
        bounds[index] = (1_u32 << (SMALLEST + index as u32)) as f64;
        index += 1;
    }
    bounds
};

/// Packets and their original lengths, by address family.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sizes {
    families: [Lengths; FAMILIES.len()],
}

/// A histogram of packet lengths.
#[derive(Clone, Copy, Debug, Default)]
struct Lengths {
    /// The count of each bucket, not cumulative.
    buckets: [u64; BUCKETS],
    /// The bytes of all packets.
    sum: u64,
}

impl Sizes {
    /// Counts a packet with an original length of `wire_len` bytes.
    #[inline]
    pub(crate) fn observe(&mut self, family: AddressFamily, wire_len: u32) {
        let lengths = &mut self.families[index(family)];
        lengths.buckets[bucket(wire_len)] += 1;
        lengths.sum += u64::from(wire_len);
    }

    /// Adds the counts of `other`.
    pub(crate) fn add(&mut self, other: &Self) {
        for (to, from) in self.families.iter_mut().zip(&other.families) {
            to.sum += from.sum;
            for (to, from) in to.buckets.iter_mut().zip(&from.buckets) {
                *to += from;
            }
        }
    }

    /// `packeteur_capture_total` and `packeteur_capture_bytes`.
    pub(crate) fn collect(&self) -> Vec<MetricFamily> {
        let samples = || {
            FAMILIES.iter().map(|&family| {
                (LabelSet::new().with("address_family", family), &self.families[index(family)])
            })
        };
        let packets = samples().map(|(labels, lengths)| (labels, lengths.packets() as f64));
        let histograms = samples().map(|(labels, lengths)| {
            (labels, Histogram { bounds: &BOUNDS, counts: &lengths.buckets, sum: lengths.sum as f64 })
        });
        vec![PACKETS.samples(packets), LENGTHS.histograms(histograms)]
    }
}

impl Lengths {
    fn packets(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

const fn index(family: AddressFamily) -> usize {
    match family {
        AddressFamily::IPv4 => 0,
        AddressFamily::IPv6 => 1,
        AddressFamily::Other => 2,
    }
}

/// The first bucket whose bound is at least `wire_len`.
#[inline]
const fn bucket(wire_len: u32) -> usize {
    let exponent = u32::BITS - wire_len.saturating_sub(1).leading_zeros();
    let above = exponent.saturating_sub(SMALLEST) as usize;
    if above < BUCKETS { above } else { BUCKETS - 1 }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn bucket_bounds_are_inclusive() {
        let found: Vec<_> = [0, 1, 64, 65, 128, 129, 65_535, 65_536, 65_537, u32::MAX].map(bucket).into();
        assert_eq!(found, [0, 0, 0, 1, 1, 2, 10, 10, 11, 11]);
    }

    #[test]
    fn families_are_exposed_as_by_the_prometheus_client() {
        let mut sizes = Sizes::default();
        for wire_len in [60, 64, 1514, 70_000] {
            sizes.observe(AddressFamily::IPv4, wire_len);
        }
        let mut more = Sizes::default();
        more.observe(AddressFamily::Other, 100);
        sizes.add(&more);
        let text = TextEncoder::new().encode_to_string(&sizes.collect()).unwrap();
        let text: Vec<_> = text.lines().filter(|line| !line.contains("IPv6")).collect();
        insta::assert_snapshot!(text.join("\n"), @r#"
        # HELP packeteur_capture_total Packets, by address family.
        # TYPE packeteur_capture_total counter
        packeteur_capture_total{address_family="IPv4"} 4
        packeteur_capture_total{address_family="other"} 1
        # HELP packeteur_capture_bytes Original packet length in bytes, by address family.
        # TYPE packeteur_capture_bytes histogram
        packeteur_capture_bytes_bucket{address_family="IPv4",le="64"} 2
        packeteur_capture_bytes_bucket{address_family="IPv4",le="128"} 2
        packeteur_capture_bytes_bucket{address_family="IPv4",le="256"} 2
        packeteur_capture_bytes_bucket{address_family="IPv4",le="512"} 2
        packeteur_capture_bytes_bucket{address_family="IPv4",le="1024"} 2
        packeteur_capture_bytes_bucket{address_family="IPv4",le="2048"} 3
        packeteur_capture_bytes_bucket{address_family="IPv4",le="4096"} 3
        packeteur_capture_bytes_bucket{address_family="IPv4",le="8192"} 3
        packeteur_capture_bytes_bucket{address_family="IPv4",le="16384"} 3
        packeteur_capture_bytes_bucket{address_family="IPv4",le="32768"} 3
        packeteur_capture_bytes_bucket{address_family="IPv4",le="65536"} 3
        packeteur_capture_bytes_bucket{address_family="IPv4",le="+Inf"} 4
        packeteur_capture_bytes_sum{address_family="IPv4"} 71638
        packeteur_capture_bytes_count{address_family="IPv4"} 4
        packeteur_capture_bytes_bucket{address_family="other",le="64"} 0
        packeteur_capture_bytes_bucket{address_family="other",le="128"} 1
        packeteur_capture_bytes_bucket{address_family="other",le="256"} 1
        packeteur_capture_bytes_bucket{address_family="other",le="512"} 1
        packeteur_capture_bytes_bucket{address_family="other",le="1024"} 1
        packeteur_capture_bytes_bucket{address_family="other",le="2048"} 1
        packeteur_capture_bytes_bucket{address_family="other",le="4096"} 1
        packeteur_capture_bytes_bucket{address_family="other",le="8192"} 1
        packeteur_capture_bytes_bucket{address_family="other",le="16384"} 1
        packeteur_capture_bytes_bucket{address_family="other",le="32768"} 1
        packeteur_capture_bytes_bucket{address_family="other",le="65536"} 1
        packeteur_capture_bytes_bucket{address_family="other",le="+Inf"} 1
        packeteur_capture_bytes_sum{address_family="other"} 100
        packeteur_capture_bytes_count{address_family="other"} 1
        "#);
    }
}
