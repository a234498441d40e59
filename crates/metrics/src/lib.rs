//! Metrics for Prometheus, in the two ways that this program needs.
//!
//! - Figures that a crate keeps anyway are declared once ([`Declaration`]) and read at each scrape by a
//!   [`Collector`](prometheus::core::Collector) that [`collector`] builds. A `prometheus::Registry` holds them all.
//! - Tables of up to a hundred thousand series write their own text ([`Exposition`]), because gathering them into objects
//!   first takes four times as long.

mod declaration;
mod exposition;

pub use declaration::{Declaration, Histogram, LabelSet, collector};
pub use exposition::{Exposition, Kind, Labels};
