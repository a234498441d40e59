//! From captures to a collector: batches over ZeroMQ PUSH and PULL sockets.
//!
//! A capture starts a [`Push`] and hands it batches through a [`RelayHandle`]; a collector binds a [`Pull`]. Both name
//! their end with an [`Endpoint`].

pub mod endpoint;
mod metrics;
mod monitor;
pub mod pull;
pub mod push;
mod socket;

pub use endpoint::{Endpoint, EndpointError, Host, ResolveError};
pub use pull::{Connections, Message, Pull, PullError};
pub use push::{OverflowPolicy, Push, PushConfig, RelayError, RelayHandle, RelayState, RelayStatus};
