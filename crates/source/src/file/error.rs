//! Why a capture file cannot be read, or no further.

use std::io;

/// Why a capture file cannot be read, or no further.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It does not open.
    #[error("READ_FILE: cannot open `{path}`: {why}")]
    Open {
        /// As the user wrote it.
        path: String,
        /// What the system says.
        why: io::Error,
    },
    /// It is something else.
    #[error("READ_FILE: `{path}` is no capture: {why}")]
    NotACapture {
        /// As the user wrote it.
        path: String,
        /// What it may be.
        why: &'static str,
    },
    /// The system could not read it.
    #[error("READ_FILE: cannot read `{path}`, after {packets} packets: {why}")]
    Read {
        /// As the user wrote it.
        path: String,
        /// Packets that were read before.
        packets: u64,
        /// What the system says.
        why: io::Error,
    },
    /// It ends in the middle of a packet.
    #[error("READ_FILE: `{path}` is cut off in the middle of packet {packet}; the {whole} before it are whole", whole = packet - 1)]
    Cut {
        /// As the user wrote it.
        path: String,
        /// The number of the packet, from 1.
        packet: u64,
    },
    /// Something in it makes no sense.
    #[error("READ_FILE: `{path}` is damaged behind packet {packets}: {why}")]
    Damaged {
        /// As the user wrote it.
        path: String,
        /// Packets that were read before.
        packets: u64,
        /// What makes no sense.
        why: String,
    },
}

impl FileError {
    /// Whether there is nothing to be had from the file at all.
    #[must_use]
    pub const fn is_setting(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::NotACapture { .. })
    }
}
