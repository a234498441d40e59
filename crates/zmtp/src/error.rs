//! Why a connection has to be closed.

use crate::greeting::Mechanism;

/// Why a connection has to be closed. The message continues a sentence that starts with the peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The first bytes are not those of a ZeroMQ peer.
    #[error("does not speak ZMTP 3 (ZeroMQ 4.0 or later)")]
    NotZmtp,
    /// The peer uses another mechanism.
    #[error("uses the mechanism {theirs}, and this side {ours}")]
    Mechanism {
        /// This side's mechanism.
        ours: Mechanism,
        /// The peer's mechanism, printable.
        theirs: String,
    },
    /// Both are servers.
    #[error("has the same role in the handshake as this side")]
    Role,
    /// The peer's socket has the wrong type.
    #[error("has a socket of type {theirs} instead of {expected}")]
    SocketType {
        /// The type that fits this side's.
        expected: &'static str,
        /// The peer's type, printable.
        theirs: String,
    },
    /// The peer encrypts for another key than this side's, or is not the owner of the key that it claims.
    #[error("encrypts for another key than this side's")]
    WrongServerKey,
    /// A command or message cannot be decrypted.
    #[error("sent something that cannot be decrypted")]
    Decryption,
    /// A nonce did not increase, so a message may have been replayed.
    #[error("repeated a message")]
    Replay,
    /// A frame has bits that ZMTP does not define.
    #[error("sent an invalid frame")]
    Frame,
    /// A message or command is too long.
    #[error("sent a frame of {length} bytes (at most {limit})")]
    TooLong {
        /// The announced length in bytes.
        length: u64,
        /// The limit in bytes.
        limit: usize,
    },
    /// A message has several parts.
    #[error("sent a message of several parts")]
    Multipart,
    /// A command is malformed or not expected at this point.
    #[error("sent an invalid or unexpected command {name:?}")]
    Command {
        /// The command's name, printable.
        name: String,
    },
    /// The peer sent a message, which this side does not accept.
    #[error("sent a message to a socket that only sends")]
    UnexpectedMessage,
    /// The peer refused the connection (`ERROR`, RFC 37).
    #[error("refused the connection: {reason}")]
    Refused {
        /// The peer's words, printable. A status code of ZAP (RFC 27) if it says only that.
        reason: String,
    },
    /// There were more messages than the nonces of a connection can count.
    #[error("used up the nonces of this connection")]
    NoncesExhausted,
}

/// Printable characters of foreign bytes, at most 32: for messages that reach a log.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().take(32).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}
