//! Fragments in any order, overlapping, missing or repeated, as any host can send them to a device on which TZSP is read.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use packet::Timestamp;
use packet::reassembly::{DatagramKey, Fragment, ReassembledDatagram, Reassembler, ReassemblyLimits};

/// Small enough to be reached.
const LIMITS: ReassemblyLimits = ReassemblyLimits { memory: 64 << 10, timeout: Duration::from_secs(1) };

/// Bytes of input per fragment.
const STEP: usize = 8;

fuzz_target!(|input: &[u8]| {
    let mut reassembler = Reassembler::new(LIMITS);
    let mut delivered = 0_u64;
    let mut deliver = |_: ReassembledDatagram<'_>| delivered += 1;
    let mut now = Timestamp::from_nanos(0);
    let payload = [0x5a; 256];
    for step in input.chunks_exact(STEP) {
        let &[id, pace, offset_high, offset_low, len, kept, flags, protocol] = step else { break };
        now = now + Duration::from_millis(u64::from(pace));
        let host = |last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        let key = DatagramKey { src: host(1), dst: host(2), identification: u32::from(id), protocol: 17 };
        let captured = usize::from(kept.min(len));
        let fragment = Fragment {
            key,
            protocol,
            // As in the header, in units of 8 bytes (RFC 791, section 3.1).
            offset: u32::from(u16::from_be_bytes([offset_high & 0x1f, offset_low])) * 8,
            more: flags & 1 != 0,
            len: u32::from(len),
            bytes: &payload[..captured],
        };
        if flags & 2 != 0 {
            reassembler.ignore(now, key, &mut deliver);
        } else {
            reassembler.push(now, &fragment, &mut deliver);
        }
        if flags & 4 != 0 {
            reassembler.advance(now, &mut deliver);
        }
        assert!(reassembler.memory() <= LIMITS.memory, "{} bytes", reassembler.memory());
    }
    reassembler.finish(&mut deliver);
    let counters = reassembler.counters();
    assert_eq!(delivered, counters.whole + counters.heads);
});
