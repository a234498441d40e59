//! Messages that are no batches: whoever finds the port can send them.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use batch::DecodeError;
use observe::{Exposition, Kind, Labels};
use tracing::warn;

/// How often the log speaks of them at most.
const QUIET: Duration = Duration::from_secs(10);

/// Messages that were ignored, by reason.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    counts: [AtomicU64; DecodeError::REASONS.len()],
    told: Mutex<Option<Instant>>,
}

impl Foreign {
    /// Counts a message that is no batch.
    pub(super) fn count(&self, error: &DecodeError, peer: &str) {
        let reason = error.reason();
        if let Some(at) = DecodeError::REASONS.iter().position(|known| *known == reason) {
            self.counts[at].fetch_add(1, Ordering::Relaxed);
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= QUIET) {
            *told = Some(Instant::now());
            warn!(peer, %error, "ignored a message, and all that are like it");
        }
    }

    pub(super) fn expose(&self, out: &mut Exposition) {
        let name = "packeteur_foreign_messages_total";
        out.family(name, Kind::Counter, "Messages that were ignored because they are no batches, by reason.");
        for (reason, count) in DecodeError::REASONS.iter().zip(&self.counts) {
            let labels = Labels::new().with("reason", reason);
            out.sample(name, labels.as_str(), count.load(Ordering::Relaxed));
        }
    }
}
