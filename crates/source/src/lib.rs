//! Where packets enter: devices, files, and TZSP from MikroTik routers. Every source produces batches.

pub mod batcher;
mod clock;
pub mod context;
mod decapsulation;
pub mod device;
pub mod file;
pub mod filter;
mod rate_limit;
mod senders;
mod stages;
pub mod tzsp;

use std::net::SocketAddr;

use batch::Batch;

pub use context::{CaptureContext, InterfaceOrder, Quota};
pub use device::{Device, DeviceConfig, DeviceCounts, DeviceError};
pub use file::{File, FileError};
pub use filter::{FilterError, FilterSpec};
pub use stages::StagesConfig;
pub use tzsp::{TzspError, TzspListener, TzspReport};

/// A source of packets, driven by its caller: [`poll`](Self::poll) reads packets into batches, and
/// [`poll_batch`](Self::poll_batch) hands them out.
pub trait PacketSource {
    /// Why the source failed.
    type Error;

    /// Reads packets. Waits for them at most until a batch or a heartbeat is due.
    ///
    /// # Errors
    /// The source failed and has ended. What was captured before is in its last batches.
    fn poll(&mut self) -> Result<Progress, Self::Error>;

    /// The next batch. After the source has ended, the last batch of each interface says so.
    fn poll_batch(&mut self) -> Option<Batch>;

    /// Whether memory for a batch would be used soon.
    fn wants_buffer(&mut self) -> bool;

    /// Takes the memory of an earlier batch, for a later one.
    fn recycle(&mut self, buffer: Vec<u8>);

    /// Leaves out the relay's connections to these addresses, which only a device can see. If that fails, the source ends
    /// with the error.
    fn exclude(&mut self, addresses: &[SocketAddr]) {
        let _ = addresses;
    }
}

/// Whether a source goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More packets may follow.
    Running,
    /// The source has ended. Its last batches are ready.
    Ended,
}
