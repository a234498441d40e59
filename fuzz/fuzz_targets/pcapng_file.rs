//! A pcapng file of arbitrary bytes, on a disk or through a pipe.

#![no_main]

mod capture_file;

use capture_file::ReadOptions;
use libfuzzer_sys::fuzz_target;

/// The first bytes of every file: the type of a section header block (draft-ietf-opsawg-pcapng, section 4.1).
const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// A section header block of a little-endian machine, version 1.0, of unknown length, without options.
const SECTION: [u8; 28] = [
    0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 28, 0, 0, 0,
];

/// Interface description, obsolete packet, simple packet, name resolution, interface statistics, enhanced packet, and a
/// unknown type.
const BLOCKS: [u32; 7] = [1, 2, 3, 4, 5, 6, 0x7777];

// The first byte chooses how the file is read. Each block has its length on both sides, which a fuzzer finds only by
// luck. So the second byte decides whether the rest is the file itself, or blocks without lengths: a type, the number of
// words, the words.
fuzz_target!(|input: &[u8]| {
    let Some((&[options, kind], rest)) = input.split_first_chunk::<2>() else { return };
    let options = ReadOptions::from_bits(options, 37008);
    if kind & 1 == 0 {
        return capture_file::read(&[&SECTION_HEADER, rest].concat(), &options);
    }
    let mut file = SECTION.to_vec();
    let mut rest = rest;
    while let Some((&[kind, words], behind)) = rest.split_first_chunk::<2>() {
        let (body, behind) = behind.split_at(behind.len().min(usize::from(words) * 4) & !3);
        rest = behind;
        let len = (12 + body.len() as u32).to_le_bytes();
        file.extend_from_slice(&BLOCKS[usize::from(kind) % BLOCKS.len()].to_le_bytes());
        file.extend_from_slice(&len);
        file.extend_from_slice(body);
        file.extend_from_slice(&len);
    }
    capture_file::read(&file, &options);
});
