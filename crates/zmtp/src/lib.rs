//! ZeroMQ's wire protocol: ZMTP 3.x ([RFC 23], [RFC 37]) between a PUSH and a PULL socket, with the
//! mechanisms NULL and CURVE ([RFC 26]).
//!
//! There is no I/O here: a [`Server`] (PULL) or [`Client`] (PUSH) takes the bytes that its peer sent, and gives back events
//! and bytes to send. libzmq bounds neither the number of parts of a message nor the memory of unfinished ones, keeps
//! what is sent to a PUSH socket although it cannot be read, and says little about which peers it refused and why. This implementation
//! is for peers that cannot be trusted:
//!
//! - A message has one part. A peer that sends more is cut off at the first.
//! - Memory grows with the bytes that have arrived, not with the length that a peer announced, and is reported
//!   ([`Server::memory`]).
//! - A client accepts nothing but the commands of the protocol.
//! - The owner decides about each key before any message is accepted.
//!
//! [RFC 23]: https://rfc.zeromq.org/spec/23/
//! [RFC 26]: https://rfc.zeromq.org/spec/26/
//! [RFC 37]: https://rfc.zeromq.org/spec/37/

mod client;
mod command;
mod curve;
mod error;
mod frame;
mod greeting;
mod key;
mod message;
mod server;
mod sodium;
mod traffic;

pub use client::{Client, ClientEvent, ClientSecurity, Rest};
pub use error::Error;
pub use greeting::Mechanism;
pub use key::{KeyError, PublicKey, SecretKey};
pub use message::Message;
pub use server::{Server, ServerEvent};
pub use sodium::version as sodium_version;
