//! The pipelines: captured packets go to the observers and the relay; collected packets go to the observers, the merge
//! and the output. Each pipeline owns its threads and says how it ended.
//!
//! A pipeline is opened, started and run. What may need privileges is opened, by a single thread; then the program gives
//! its privileges up; then all threads are started.

pub mod capture;
pub mod collect;
pub mod config;
pub mod stop;

use metrics::Exposition;
use prometheus::Registry;

pub use capture::{Capture, CaptureError, StartedCapture};
pub use collect::{Collect, CollectError, Listener, StartedCollect};
pub use stop::Stop;

/// How a pipeline ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As requested, or at the end of its input.
    Well,
    /// A part of it failed, as the log says.
    Badly,
}

/// Reads a pipeline's figures while it runs, and after.
pub trait PipelineHandle: Send + Sync {
    /// Registers the collectors of all metrics but the large tables.
    ///
    /// # Errors
    /// A name is registered already.
    fn register_metrics(&self, registry: &Registry) -> prometheus::Result<()>;

    /// Writes the large tables: flows, streams, pairs.
    fn write_tables(&self, out: &mut Exposition);

    /// The totals of the status page.
    fn totals(&self) -> Totals;

    /// What a forced exit would lose, as text for the log. Does not block.
    fn unfinished(&self) -> String;
}

/// The totals of the status page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets captured or received.
    pub packets: u64,
    /// Packets dropped by the kernels or the interfaces.
    pub dropped: u64,
    /// Packets dropped by the relays, or lost between relay and collector.
    pub lost: u64,
    /// How often a kernel capture buffer was full; captures only.
    pub queue_freezes: u64,
}
