//! Why a capture file cannot be read.

use std::io;

/// Why a capture file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened.
    #[error("READ_FILE: cannot open `{path}`: {why}")]
    Open {
        /// The path as given.
        path: String,
        /// The system's error.
        why: io::Error,
    },
    /// It is not a capture file.
    #[error("READ_FILE: `{path}` is not a pcap or pcapng file: {why}")]
    NotACapture {
        /// The path as given.
        path: String,
        /// What it may be instead.
        why: &'static str,
    },
    /// Reading failed.
    #[error("READ_FILE: cannot read `{path}` after packet {packets}: {why}")]
    Read {
        /// The path as given.
        path: String,
        /// Packets read before.
        packets: u64,
        /// The system's error.
        why: io::Error,
    },
    /// It ends within a packet.
    #[error("READ_FILE: `{path}` is truncated in packet {packet}; {whole} packets were read", whole = packet - 1)]
    Truncated {
        /// The path as given.
        path: String,
        /// The number of the packet, from 1.
        packet: u64,
    },
    /// Its content is invalid.
    #[error("READ_FILE: `{path}` is corrupt after packet {packets}: {why}")]
    Corrupt {
        /// The path as given.
        path: String,
        /// Packets read before.
        packets: u64,
        /// What is invalid.
        why: String,
    },
}

impl FileError {
    /// Whether the setting is wrong: the file has no packets to read at all.
    #[must_use]
    pub const fn is_setting(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::NotACapture { .. })
    }
}
