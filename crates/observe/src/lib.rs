//! What is measured of packets: sizes, flows, streams, pairs.
//!
//! Observers watch, never alter, never block and never fail. Time is the packets' own.

mod aged;
pub mod flows;
pub mod observed;
pub mod observers;
pub mod pairs;
pub mod sizes;
mod slab;
pub mod streams;

pub use metrics::{Exposition, Kind, Labels};
pub use observed::{Observed, OriginId, Origins, Scope};
pub use observers::{Config, Observers};
