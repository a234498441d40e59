//! From captures to a collector, over ZeroMQ.

pub mod pull;
pub mod push;

pub use pull::{Pull, PullError};
pub use push::{Peer, Relay, RelayError, WhenFull};
