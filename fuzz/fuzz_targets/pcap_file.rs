//! A pcap file of arbitrary bytes, on a disk or through a pipe.

#![no_main]

mod capture_file;

use capture_file::ReadOptions;
use libfuzzer_sys::fuzz_target;

/// The magic numbers of files with microseconds, with nanoseconds, and of Kuznetsov's variant, in both byte orders.
const MAGICS: [[u8; 4]; 6] = [
    [0xa1, 0xb2, 0xc3, 0xd4],
    [0xd4, 0xc3, 0xb2, 0xa1],
    [0xa1, 0xb2, 0x3c, 0x4d],
    [0x4d, 0x3c, 0xb2, 0xa1],
    [0xa1, 0xb2, 0xcd, 0x34],
    [0x34, 0xcd, 0xb2, 0xa1],
];

// The first byte chooses how the file is read, the second its kind: the fuzzer need not find a magic number.
fuzz_target!(|input: &[u8]| {
    let Some((&[options, kind], rest)) = input.split_first_chunk::<2>() else { return };
    let magic = &MAGICS[usize::from(kind) % MAGICS.len()];
    capture_file::read(&[magic, rest].concat(), &ReadOptions::from_bits(options, 37008));
});
