//! How many packets there are, and how long: by address family.

use packet::AddressFamily;

use crate::{Exposition, Kind, Labels};

/// The families, in the order of their series.
const FAMILIES: [AddressFamily; 3] = [AddressFamily::IPv4, AddressFamily::IPv6, AddressFamily::Other];

/// The bounds of the buckets are 2^6 … 2^16 bytes: from the shortest Ethernet frame to the longest IP packet.
const SMALLEST: u32 = 6;
const LARGEST: u32 = 16;

/// One bucket for each bound, and one for what is longer than all.
const BUCKETS: usize = (LARGEST - SMALLEST) as usize + 2;

/// Packets and wire lengths, by address family.
#[derive(Clone, Debug, Default)]
pub struct Sizes {
    families: [Lengths; FAMILIES.len()],
}

/// The lengths of packets, as a histogram.
#[derive(Clone, Copy, Debug, Default)]
struct Lengths {
    /// Packets in each bucket, those of smaller ones not included.
    buckets: [u64; BUCKETS],
    /// Bytes of all packets.
    sum: u64,
}

impl Sizes {
    /// Takes a packet of that length on the wire into account.
    #[inline]
    pub fn observe(&mut self, family: AddressFamily, wire_len: u32) {
        let lengths = &mut self.families[index(family)];
        lengths.buckets[bucket(wire_len)] += 1;
        lengths.sum += u64::from(wire_len);
    }

    /// Adds what was counted apart from this.
    pub fn add(&mut self, other: &Self) {
        for (to, from) in self.families.iter_mut().zip(&other.families) {
            to.sum += from.sum;
            for (to, from) in to.buckets.iter_mut().zip(&from.buckets) {
                *to += from;
            }
        }
    }

    /// Writes `packeteur_capture_total` and `packeteur_capture_bytes`.
    pub fn expose(&self, out: &mut Exposition) {
        let families = || FAMILIES.iter().map(|&family| (family, &self.families[index(family)]));
        out.family("packeteur_capture_total", Kind::Counter, "Packets, by address family.");
        for (family, lengths) in families() {
            let labels = Labels::new().with("address_family", family);
            out.sample("packeteur_capture_total", labels.as_str(), lengths.packets());
        }
        out.family(
            "packeteur_capture_bytes",
            Kind::Histogram,
            "Packets' lengths on the wire, by address family.",
        );
        for (family, lengths) in families() {
            let labels = Labels::new().with("address_family", family);
            let mut below = 0;
            for (bound, packets) in
                (SMALLEST..=LARGEST).map(|exponent| 1_u32 << exponent).zip(lengths.buckets)
            {
                below += packets;
                out.sample(
                    "packeteur_capture_bytes_bucket",
                    labels.clone().with("le", bound).as_str(),
                    below,
                );
            }
            let all = lengths.packets();
            out.sample("packeteur_capture_bytes_bucket", labels.clone().with("le", "+Inf").as_str(), all);
            out.sample("packeteur_capture_bytes_sum", labels.as_str(), lengths.sum);
            out.sample("packeteur_capture_bytes_count", labels.as_str(), all);
        }
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

/// The first bucket whose bound is not below `wire_len`.
#[inline]
const fn bucket(wire_len: u32) -> usize {
    let exponent = u32::BITS - wire_len.saturating_sub(1).leading_zeros();
    let above = exponent.saturating_sub(SMALLEST) as usize;
    if above < BUCKETS { above } else { BUCKETS - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let found: Vec<_> = [0, 1, 64, 65, 128, 129, 65_535, 65_536, 65_537, u32::MAX].map(bucket).into();
        assert_eq!(found, [0, 0, 0, 1, 1, 2, 10, 10, 11, 11]);
    }

    #[test]
    fn the_exposition_is_packeteurs() {
        let mut sizes = Sizes::default();
        for wire_len in [60, 64, 1514, 70_000] {
            sizes.observe(AddressFamily::IPv4, wire_len);
        }
        let mut more = Sizes::default();
        more.observe(AddressFamily::Other, 100);
        sizes.add(&more);
        let mut out = Exposition::new();
        sizes.expose(&mut out);
        let text: Vec<_> = out.as_str().lines().filter(|line| !line.contains("IPv6")).collect();
        insta::assert_snapshot!(text.join("\n"), @r#"
        # HELP packeteur_capture_total Packets, by address family.
        # TYPE packeteur_capture_total counter
        packeteur_capture_total{address_family="IPv4"} 4
        packeteur_capture_total{address_family="other"} 1
        # HELP packeteur_capture_bytes Packets' lengths on the wire, by address family.
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
