//! What a packet is: its time, its link type, its lengths, its headers.
//!
//! Everything here is pure: bytes in, facts out. Nothing knows a socket, a clock or the environment.

pub mod defrag;
pub mod headers;
pub mod link_type;
pub mod origin;
pub mod record;
pub mod time;
pub mod tzsp;

pub use headers::{AddressFamily, Headers};
pub use link_type::LinkType;
pub use origin::{Origin, SourceId};
pub use record::{Record, Records};
pub use time::Timestamp;
