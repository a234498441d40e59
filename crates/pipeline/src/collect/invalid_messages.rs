//! Messages that are not valid batches: anyone who reaches the port can send them.

use std::sync::atomic::{AtomicU64, Ordering};

use batch::DecodeError;
use merge::MonotonicTime;
use parking_lot::Mutex;
use tracing::warn;

use super::log_limiter::LogLimiter;

/// Ignored messages, counted by reason.
#[derive(Debug, Default)]
pub(super) struct InvalidMessages {
    counts: [AtomicU64; DecodeError::REASONS.len()],
    log: Mutex<LogLimiter>,
}

impl InvalidMessages {
    /// Counts a message.
    pub(super) fn record(&self, error: &DecodeError, peer: &str, now: MonotonicTime) {
        if let Some(count) = self.counts.get(error.reason_index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if self.log.lock().add(1, now).is_some() {
            warn!(peer, %error, "invalid message ignored; repeats suppressed for 10 s");
        }
    }

    /// Each reason and its count.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        DecodeError::REASONS.into_iter().zip(self.counts.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use batch::DecodedBatch;

    use super::*;

    #[test]
    fn messages_are_counted_by_reason() {
        let invalid = InvalidMessages::default();
        let newer = [b"PKTR\x02".as_slice(), &[0; 200]].concat();
        for message in [b"GET / HTTP/1.1".as_slice(), b"hello", b"PKTR", &newer] {
            let (_, error) = DecodedBatch::decode(message).unwrap_err();
            invalid.record(&error, "192.0.2.1", MonotonicTime::ZERO);
        }
        let counts: Vec<_> = invalid.counts().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counts, [("magic", 2), ("version", 1), ("truncated", 1)]);
        assert_eq!(invalid.counts().count(), 7);
    }
}
