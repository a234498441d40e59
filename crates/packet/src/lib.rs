//! Packets: capture time, link type, lengths, headers, decapsulation and reassembly.
//!
//! All code here is pure. It does not access sockets, clocks or the environment.

pub mod bytes;
pub mod decap;
pub mod headers;
pub mod link_type;
pub mod origin;
pub mod reassembly;
pub mod record;
pub mod time;
pub mod tzsp;

pub use headers::{AddressFamily, Headers};
pub use link_type::LinkType;
pub use origin::{Origin, SourceId};
pub use record::{Record, Records};
pub use time::Timestamp;
