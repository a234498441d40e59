//! Fragments in any order, overlapping, missing, doubled: what anybody can send to a device on which TZSP is read.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use packet::Timestamp;
use packet::defrag::{Datagram, Defragmenter, Fragment, Key, Limits};

/// Little enough to be reached.
const LIMITS: Limits = Limits { memory: 64 << 10, timeout: Duration::from_secs(1) };

/// Bytes of the input that make a fragment.
const STEP: usize = 8;

fuzz_target!(|input: &[u8]| {
    let mut defragmenter = Defragmenter::new(LIMITS);
    let mut given = 0_u64;
    let mut give = |_: Datagram<'_>| given += 1;
    let mut now = Timestamp::from_nanos(0);
    let payload = [0x5a; 256];
    for step in input.chunks_exact(STEP) {
        let &[id, pace, offset_high, offset_low, len, kept, flags, protocol] = step else { break };
        now = now + Duration::from_millis(u64::from(pace));
        let host = |last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        let key = Key { src: host(1), dst: host(2), identification: u32::from(id), protocol: 17 };
        let captured = usize::from(kept.min(len));
        let fragment = Fragment {
            key,
            protocol,
            // As the header has it, in units of 8 bytes (RFC 791, section 3.1).
            offset: u32::from(u16::from_be_bytes([offset_high & 0x1f, offset_low])) * 8,
            more: flags & 1 != 0,
            len: u32::from(len),
            bytes: &payload[..captured],
        };
        if flags & 2 != 0 {
            defragmenter.ignore(now, key, &mut give);
        } else {
            defragmenter.push(now, &fragment, &mut give);
        }
        if flags & 4 != 0 {
            defragmenter.advance(now, &mut give);
        }
        assert!(defragmenter.memory() <= LIMITS.memory, "{} bytes", defragmenter.memory());
    }
    defragmenter.finish(&mut give);
    let counters = defragmenter.counters();
    assert_eq!(given, counters.whole + counters.heads);
});
