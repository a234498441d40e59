//! Connections that a collector refuses or ends: counters, and log lines at a bounded rate.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Why a connection is refused or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// The peer does not speak ZMTP 3.
    NotZmtp,
    /// One side uses keys and the other does not.
    Mechanism,
    /// The peer is not a PUSH socket.
    SocketType,
    /// The peer encrypts for another collector's key.
    WrongCollectorKey,
    /// The peer's key is not in `AUTHORIZED_KEYS`.
    UnknownKey,
    /// The peer's key was removed from `AUTHORIZED_KEYS`.
    RemovedKey,
    /// The peer sent a batch under a name that its key may not use.
    UnauthorizedName,
    /// A message had several parts.
    Multipart,
    /// A message was longer than a batch can be.
    TooLong,
    /// The peer broke the protocol in another way.
    Protocol,
    /// The peer ended the connection during the handshake.
    Handshake,
    /// The handshake took too long.
    HandshakeTimeout,
    /// Nothing arrived of an unfinished message for too long.
    UnfinishedMessage,
    /// Unfinished messages used too much memory, most of it for this peer.
    Memory,
    /// There were `MAX_CONNECTIONS` connections.
    MaxConnections,
    /// The process had no file descriptors left.
    Descriptors,
}

impl RejectReason {
    const ALL: [Self; 16] = [
        Self::NotZmtp,
        Self::Mechanism,
        Self::SocketType,
        Self::WrongCollectorKey,
        Self::UnknownKey,
        Self::RemovedKey,
        Self::UnauthorizedName,
        Self::Multipart,
        Self::TooLong,
        Self::Protocol,
        Self::Handshake,
        Self::HandshakeTimeout,
        Self::UnfinishedMessage,
        Self::Memory,
        Self::MaxConnections,
        Self::Descriptors,
    ];

    /// The value of the metric's label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NotZmtp => "not_zmtp",
            Self::Mechanism => "mechanism",
            Self::SocketType => "socket_type",
            Self::WrongCollectorKey => "wrong_collector_key",
            Self::UnknownKey => "unknown_key",
            Self::RemovedKey => "removed_key",
            Self::UnauthorizedName => "unauthorized_name",
            Self::Multipart => "multipart",
            Self::TooLong => "too_long",
            Self::Protocol => "protocol",
            Self::Handshake => "handshake",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::UnfinishedMessage => "unfinished_message",
            Self::Memory => "memory",
            Self::MaxConnections => "max_connections",
            Self::Descriptors => "descriptors",
        }
    }
}

/// Counts of refused and ended connections, by reason.
#[derive(Debug, Default)]
pub struct Rejections([AtomicU64; RejectReason::ALL.len()]);

impl Rejections {
    /// Counts a connection.
    pub(super) fn count(&self, reason: RejectReason) {
        let at = RejectReason::ALL.iter().position(|other| *other == reason);
        if let Some(count) = at.and_then(|at| self.0.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Each reason's label and count.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        RejectReason::ALL.into_iter().map(RejectReason::label).zip(counts)
    }
}

/// How long a peer's repeats of a reason are only counted.
const SUPPRESSED: Duration = Duration::from_secs(600);

/// Peers and reasons that are remembered. When there are more, one line in [`CROWDED_INTERVAL`] is logged for all others.
const MAX_REMEMBERED: usize = 1024;

/// The interval between lines about peers that are not remembered.
const CROWDED_INTERVAL: Duration = Duration::from_secs(10);

/// Limits the log to one line per peer and reason, then none for [`SUPPRESSED`].
#[derive(Debug, Default)]
pub(super) struct LogLimiter {
    logged: HashMap<(String, RejectReason), Instant>,
    crowded: Option<Instant>,
}

impl LogLimiter {
    /// Whether to log this now.
    pub(super) fn admits(&mut self, peer: &str, reason: RejectReason, now: Instant) -> bool {
        let recent = |at: Instant, interval| now.saturating_duration_since(at) < interval;
        let key = (peer.to_owned(), reason);
        if self.logged.get(&key).is_some_and(|at| recent(*at, SUPPRESSED)) {
            return false;
        }
        if self.logged.len() >= MAX_REMEMBERED && !self.logged.contains_key(&key) {
            if self.crowded.is_some_and(|at| recent(at, CROWDED_INTERVAL)) {
                return false;
            }
            self.crowded = Some(now);
            self.logged.retain(|_, at| recent(*at, SUPPRESSED));
            if self.logged.len() >= MAX_REMEMBERED {
                return true;
            }
        }
        self.logged.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_one_label_for_each_reason() {
        let rejections = Rejections::default();
        rejections.count(RejectReason::Memory);
        rejections.count(RejectReason::Memory);
        let counts: HashMap<_, _> = rejections.counts().collect();
        assert_eq!(counts.len(), RejectReason::ALL.len());
        assert_eq!((counts["memory"], counts["descriptors"]), (2, 0));
    }

    #[test]
    fn a_peer_and_reason_are_logged_once_in_a_while() {
        let (mut limiter, start) = (LogLimiter::default(), Instant::now());
        let mut admits =
            |peer: &str, reason, secs| limiter.admits(peer, reason, start + Duration::from_secs(secs));
        assert!(admits("a", RejectReason::Memory, 0));
        assert!(!admits("a", RejectReason::Memory, 599));
        assert!(admits("a", RejectReason::Multipart, 1));
        assert!(admits("b", RejectReason::Memory, 1));
        assert!(admits("a", RejectReason::Memory, 600));
    }

    #[test]
    fn many_peers_are_logged_at_a_bounded_rate_and_in_bounded_memory() {
        let (mut limiter, start) = (LogLimiter::default(), Instant::now());
        let mut lines = 0;
        for n in 0..10_000 {
            lines += usize::from(limiter.admits(&n.to_string(), RejectReason::NotZmtp, start));
        }
        assert_eq!(lines, MAX_REMEMBERED + 1);
        assert_eq!(limiter.logged.len(), MAX_REMEMBERED);
        assert!(limiter.admits("new", RejectReason::NotZmtp, start + CROWDED_INTERVAL));
        assert!(limiter.admits("later", RejectReason::NotZmtp, start + SUPPRESSED));
        assert_eq!(limiter.logged.len(), 1);
    }
}
