//! What is measured of packets: sizes, flows, streams, pairs.
//!
//! Observers watch, never alter, never block and never fail. Time is the packets' own.

pub mod exposition;
pub mod observed;
pub mod observers;
pub mod sizes;

pub use exposition::{Exposition, Kind, Labels};
pub use observed::{Observed, OriginId, Origins, Scope};
pub use observers::{Config, Observers};
