//! From captures to a collector: batches in ZeroMQ's protocol, as PUSH and PULL sockets speak it.
//!
//! A capture starts a [`Push`] and hands it batches through a [`RelayHandle`]; a collector binds a [`Pull`]. Both name
//! their end with an [`Endpoint`], and may have keys: [`read_secret_key`], [`AuthorizedKeysFile`].

mod authorized_keys;
pub mod endpoint;
mod key_file;
mod metrics;
mod peer;
pub mod pull;
pub mod push;
mod refusal;
mod tcp;
mod unix;

pub use authorized_keys::{AllowedNames, AuthorizedKeys, AuthorizedKeysError, AuthorizedKeysFile, LineError};
pub use endpoint::{BindAddress, Endpoint, EndpointError, Host, ResolveError};
pub use key_file::{KeyFileError, create_secret_key, read_secret_key};
pub use peer::Peer;
pub use pull::{Connections, Message, Pull, PullConfig, PullError, Receiver, RejectReason, Security, Sender};
pub use push::{
    OverflowPolicy, Push, PushConfig, PushKeys, RelayError, RelayHandle, RelayState, RelayStatus,
};
pub use zmtp::{KeyError, PublicKey, SecretKey, sodium_version};
