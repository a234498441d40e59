//! Frames with TZSP in them, whole or in fragments, of many senders, as they pass a device or are read from a file.

#![no_main]

mod capture_file;

use capture_file::ReadOptions;
use libfuzzer_sys::fuzz_target;
use packet::{Record, Timestamp};

const PORT: u16 = 37008;

/// The header of a nanosecond pcap file of Ethernet frames.
const FILE_HEADER: [u8; 24] =
    [0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];

// The first byte chooses how the file is read. Then follow frames: what the frame is, its sender, the time since the
// frame before it, the length of its content, its content.
fuzz_target!(|input: &[u8]| {
    let Some((&options, mut rest)) = input.split_first() else { return };
    let mut file = FILE_HEADER.to_vec();
    let mut now = Timestamp::from_nanos(1_700_000_000_000_000_000);
    while let Some((&[kind, sender, pace, len], behind)) = rest.split_first_chunk::<4>() {
        let (content, behind) = behind.split_at(behind.len().min(usize::from(len)));
        rest = behind;
        now = now + std::time::Duration::from_millis(pace.into());
        let frame = match kind & 3 {
            0 => content.to_vec(),
            1 => ipv4(sender, 0, &udp(content)),
            2 => ipv6(sender, &udp(content)),
            // A fragment: bits of its offset, and whether more follow.
            _ => ipv4(sender, (u16::from(kind) & 0xfc) << 6 & 0x2000 | u16::from(kind >> 4), content),
        };
        let original = frame.len() as u32 + u32::from(kind >> 7);
        Record { time: now, original, bytes: &frame }.append_to(&mut file);
    }
    capture_file::read(&file, &ReadOptions::from_bits(options | 8, PORT));
});

fn udp(payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len() as u16).to_be_bytes();
    [&[4, 0], &PORT.to_be_bytes()[..], &len, &[0, 0], payload].concat()
}

/// `fragment`: flags and offset, as in the header (RFC 791, section 3.1).
fn ipv4(sender: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len() as u16).to_be_bytes();
    let mut frame = vec![0; 12];
    frame.extend([8, 0, 0x45, 0, len[0], len[1], 0, 1]);
    frame.extend(fragment.to_be_bytes());
    frame.extend([64, 17, 0, 0, 192, 0, 2, sender, 198, 51, 100, 1]);
    frame.extend_from_slice(payload);
    frame
}

fn ipv6(sender: u8, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u16).to_be_bytes();
    let mut frame = vec![0; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, len[0], len[1], 17, 64]);
    frame.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, sender]);
    frame.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
    frame.extend_from_slice(payload);
    frame
}
