//! The batch: many packets of one source, in one self-describing message.
//!
//! A [`Builder`] fills a batch and closes it; the sender stamps it with what is only known when it leaves
//! ([`Batch::stamp`]), and a collector makes a [`DecodedBatch`] of any bytes, or learns why they are no batch. The byte
//! layout stands in [`header`]. Everything here is pure: time is an argument, and what moves the bytes lives elsewhere.

pub mod builder;
pub mod compression;
pub mod decoded;
pub mod header;
pub mod interface;

pub use builder::{Batch, Builder, CloseInfo, Limits, Order, SendInfo, Template};
pub use compression::Compression;
pub use decoded::DecodedBatch;
pub use header::{DecodeError, Dropped, Header};
pub use interface::Interface;
