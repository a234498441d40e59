//! The batch: many packets of one source in one self-describing message.
//!
//! A [`Builder`] fills a batch and closes it. The sender adds what is only known when the batch leaves ([`SendInfo`])
//! and gets the message ([`Batch::into_message`]). A collector turns a message into a [`DecodedBatch`], or learns why
//! it is not one. The byte layout is described in [`layout`]. Everything here is pure: no clock, no socket; time is an
//! argument.

mod builder;
mod compression;
mod decoded;
mod error;
mod header;
pub mod interface;
pub mod layout;

pub use builder::{Batch, BatchLimits, Builder, CloseInfo, Order, SendInfo, Template};
pub use compression::Compression;
pub use decoded::{BatchRecords, DecodedBatch};
pub use error::DecodeError;
pub use header::{Dropped, Header};
pub use interface::Interface;
pub use layout::{MAX_MESSAGE, MAX_PAYLOAD};
