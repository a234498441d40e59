//! Batches that are not accepted: anyone who reaches the port can send anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use batch::DecodeError;
use ledger::Refusal;
use merge::MonotonicTime;
use parking_lot::Mutex;
use relay::Peer;
use tracing::warn;

use super::log_limiter::LogLimiter;
use super::peer::Received;

/// The interval of the lines about one peer and one reason.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Why a batch is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Rejection {
    /// The message is not a valid batch.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// There are `MAX_SOURCES` sources, all of them alive.
    #[error("there are MAX_SOURCES sources already: increase it if they are all yours")]
    MaxSources,
    /// The sender's address has announced too many sources and interfaces.
    #[error(
        "this address has announced its share of MAX_SOURCES in the last hour: increase it if they are all yours"
    )]
    MaxSourcesPerAddress,
    /// The source has sent too many link types.
    #[error("packets of more than {} link types from one source", super::interfaces::MAX_LINK_TYPES)]
    LinkTypes,
    /// The source's counters have made a jump.
    #[error("its counters are ahead of those of the batch before by more than any capture achieves")]
    Implausible,
    /// The sender's key may not use the name of the source.
    #[error("the sender's key may not use the SOURCE_NAME `{}`: see AUTHORIZED_KEYS", .0.escape_debug())]
    UnauthorizedName(Arc<str>),
    /// The source has begun too many runs.
    #[error("the source was restarted too often in the last minute")]
    Runs,
}

/// The value of the metric's label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum RejectReason {
    Magic,
    Version,
    Truncated,
    Length,
    Compression,
    Decompression,
    Field,
    Name,
    Record,
    MaxSources,
    MaxSourcesPerAddress,
    LinkTypes,
    Implausible,
    UnauthorizedName,
    Runs,
}

impl RejectReason {
    /// All reasons, in the order of their discriminants.
    const ALL: [Self; 15] = [
        Self::Magic,
        Self::Version,
        Self::Truncated,
        Self::Length,
        Self::Compression,
        Self::Decompression,
        Self::Field,
        Self::Name,
        Self::Record,
        Self::MaxSources,
        Self::MaxSourcesPerAddress,
        Self::LinkTypes,
        Self::Implausible,
        Self::UnauthorizedName,
        Self::Runs,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Magic => "magic",
            Self::Version => "version",
            Self::Truncated => "truncated",
            Self::Length => "length",
            Self::Compression => "compression",
            Self::Decompression => "decompression",
            Self::Field => "field",
            Self::Name => "name",
            Self::Record => "record",
            Self::MaxSources => "max_sources",
            Self::MaxSourcesPerAddress => "max_sources_per_address",
            Self::LinkTypes => "link_types",
            Self::Implausible => "implausible",
            Self::UnauthorizedName => "unauthorized_name",
            Self::Runs => "runs",
        }
    }
}

impl Rejection {
    pub(super) const fn reason(&self) -> RejectReason {
        match self {
            Self::Decode(error) => match error {
                DecodeError::Magic => RejectReason::Magic,
                DecodeError::Version { .. } => RejectReason::Version,
                DecodeError::Truncated { .. } => RejectReason::Truncated,
                DecodeError::HeaderLength { .. }
                | DecodeError::PayloadLength { .. }
                | DecodeError::Mismatch { .. } => RejectReason::Length,
                DecodeError::Compression { .. } | DecodeError::Decompress { .. } => RejectReason::Compression,
                DecodeError::Expansion { .. } => RejectReason::Decompression,
                DecodeError::Name { .. } => RejectReason::Name,
                DecodeError::Field { .. } => RejectReason::Field,
                DecodeError::Record(_) => RejectReason::Record,
            },
            Self::MaxSources => RejectReason::MaxSources,
            Self::MaxSourcesPerAddress => RejectReason::MaxSourcesPerAddress,
            Self::LinkTypes => RejectReason::LinkTypes,
            Self::Implausible => RejectReason::Implausible,
            Self::UnauthorizedName(_) => RejectReason::UnauthorizedName,
            Self::Runs => RejectReason::Runs,
        }
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unregistered => Self::MaxSources,
            Refusal::Implausible => Self::Implausible,
            Refusal::TooManyRuns => Self::Runs,
        }
    }
}

/// Rejected batches, counted by reason.
#[derive(Debug)]
pub(super) struct Rejections {
    counts: [AtomicU64; RejectReason::ALL.len()],
    log: Mutex<LogLimiter<(Peer, RejectReason)>>,
}

impl Default for Rejections {
    fn default() -> Self {
        Self { counts: Default::default(), log: Mutex::new(LogLimiter::new(1, LOG_INTERVAL)) }
    }
}

impl Rejections {
    /// Counts a batch.
    pub(super) fn record(&self, rejection: &Rejection, message: &impl Received, now: MonotonicTime) {
        let reason = rejection.reason();
        if let Some(count) = self.counts.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let batches = self.log.lock().add((message.peer(), reason), 1, now);
        if let Some(batches) = batches {
            let (peer, reason) = (message.address(), reason.as_str());
            warn!(peer, reason, batches, error = %rejection, "batch rejected; repeats suppressed for 1 min");
        }
    }

    /// Each reason and its count.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        RejectReason::ALL.into_iter().map(RejectReason::as_str).zip(counts)
    }
}

#[cfg(test)]
mod tests {
    use batch::DecodedBatch;

    use super::*;

    #[test]
    fn batches_are_counted_by_reason() {
        let rejections = Rejections::default();
        let newer = [b"PKTR\x02".as_slice(), &[0; 200]].concat();
        for message in [b"GET / HTTP/1.1".as_slice(), b"hello", b"PKTR", &newer] {
            let (_, error) = DecodedBatch::decode(message).unwrap_err();
            rejections.record(&error.into(), &Vec::new(), MonotonicTime::ZERO);
        }
        rejections.record(&Refusal::TooManyRuns.into(), &Vec::new(), MonotonicTime::ZERO);
        let counts: Vec<_> = rejections.counts().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counts, [("magic", 2), ("version", 1), ("truncated", 1), ("runs", 1)]);
    }

    #[test]
    fn reasons_are_in_the_order_of_their_indexes() {
        assert!(RejectReason::ALL.iter().enumerate().all(|(index, reason)| *reason as usize == index));
    }
}
