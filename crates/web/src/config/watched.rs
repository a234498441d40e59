//! A web configuration that is read again when one of its files changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::{task, time};
use tracing::{info, warn};

use super::WebConfig;
use super::watched_file::WatchedFile;

/// Interval in which the files are checked, while there are connections.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long a connection waits for the files. If their file system hangs, it uses the previous configuration.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The configuration in force.
pub(crate) struct WatchedConfig {
    current: Mutex<Arc<WebConfig>>,
    checked: Mutex<Instant>,
    /// The last attempt to read it, if that failed. Held during an attempt.
    failure: Mutex<Option<Failure>>,
    is_valid: AtomicBool,
}

/// A failed attempt. It is logged once.
#[derive(PartialEq, Eq)]
struct Failure {
    message: String,
    files: Vec<WatchedFile>,
}

impl WatchedConfig {
    /// Watches the files of `config`.
    pub(crate) fn new(config: WebConfig) -> Self {
        Self {
            current: Mutex::new(Arc::new(config)),
            checked: Mutex::new(Instant::now()),
            failure: Mutex::new(None),
            is_valid: AtomicBool::new(true),
        }
    }

    /// The configuration in force. Its files are not checked.
    pub(crate) fn in_force(&self) -> Arc<WebConfig> {
        Arc::clone(&self.current.lock())
    }

    /// Whether the last attempt to read the configuration succeeded.
    pub(crate) fn is_valid(&self) -> bool {
        self.is_valid.load(Ordering::Relaxed)
    }

    /// The configuration in force, after its files were checked, unless that was done within the last second.
    pub(crate) async fn current(self: &Arc<Self>) -> Arc<WebConfig> {
        if self.is_due(Instant::now()) {
            let this = Arc::clone(self);
            // Reading files may block.
            let reload = task::spawn_blocking(move || this.reload(SystemTime::now()));
            _ = time::timeout(TIMEOUT, reload).await;
        }
        self.in_force()
    }

    fn is_due(&self, now: Instant) -> bool {
        let mut checked = self.checked.lock();
        let due = now.saturating_duration_since(*checked) >= INTERVAL;
        if due {
            *checked = now;
        }
        due
    }

    /// Reads the configuration again if a file has changed. Also if the last attempt failed: the reason may have been a
    /// file that only the new configuration names, or the clock.
    pub(super) fn reload(&self, now: SystemTime) {
        // If it is locked, another attempt takes longer than a second.
        let Some(mut failure) = self.failure.try_lock() else { return };
        let current = self.in_force();
        if failure.is_none() && !current.files.iter().any(WatchedFile::has_changed) {
            return;
        }
        let files = current.files.iter().map(|file| WatchedFile::new(file.path.clone())).collect();
        match WebConfig::load_at(current.path(), now) {
            Ok(config) => {
                info!(path = %config.path().display(), "web configuration reloaded");
                *self.current.lock() = Arc::new(config);
                *failure = None;
            }
            Err(error) => {
                let new = Some(Failure { message: error.to_string(), files });
                if *failure != new {
                    warn!(%error, "the new web configuration is invalid: the previous one stays in force");
                    *failure = new;
                }
            }
        }
        self.is_valid.store(failure.is_none(), Ordering::Relaxed);
    }
}
