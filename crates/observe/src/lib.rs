//! Observers: measurements of packets for Prometheus.
//!
//! Observers never change, delay or drop packets, and never fail. Time is packet time.

mod expiring_table;
pub mod flows;
mod holders;
mod observed;
mod observer;
mod observers;
mod origins;
mod pairs;
mod sizes;
mod slab;
pub mod streams;

pub use flows::FlowsConfig;
pub use metrics::{Exposition, Kind, Labels};
pub use observed::{ObservedBatch, ObservedPacket};
pub use observers::{Observers, ObserversConfig};
pub use origins::{OriginId, Origins, Scope};
pub use pairs::PairsConfig;
pub use streams::StreamsConfig;
