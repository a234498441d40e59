//! Many sources, one order; and what was lost on the way.
//!
//! A [`Merge`] brings the batches of many sources into the order of their packets' times; a [`Ledger`] knows for each
//! source what it sent, what of that arrived, and what became of it. The two know nothing of each other but a
//! [`SourceId`], which the ledger hands out. Both are pure: time is an argument, and what moves the bytes lives
//! elsewhere.

mod lane;
pub mod ledger;
pub mod merge;
pub mod mono;
pub mod run;
mod tournament;

pub use ledger::{Dropped, Entry, Figures, Heard, Ledger, Skip, Tally};
pub use merge::{Arrival, Config, Merge};
pub use mono::Mono;
pub use run::Run;

/// A source of packets, by a number that stands for its [`packet::Origin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u32);
