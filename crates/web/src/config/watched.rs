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
    /// Held while the files are looked at.
    change: Mutex<Change>,
    is_valid: AtomicBool,
}

/// A change of the files that has not taken effect.
#[derive(Default)]
enum Change {
    /// The configuration in force is that of the files.
    #[default]
    None,
    /// A valid configuration, read once. Its files may still be being written.
    Read(WebConfig),
    /// An attempt that failed once, perhaps for the same reason.
    Failed(Failure),
    /// An attempt that failed twice in the same way: it is logged.
    Reported(Failure),
}

/// A failed attempt to read the configuration.
#[derive(PartialEq, Eq)]
struct Failure {
    message: String,
    files: Vec<WatchedFile>,
}

/// Whether the files have to be looked at again soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Settled,
    /// They have changed, and may still be being written.
    Changing,
}

impl WatchedConfig {
    /// Watches the files of `config`.
    pub(crate) fn new(config: WebConfig) -> Self {
        Self {
            current: Mutex::new(Arc::new(config)),
            checked: Mutex::new(Instant::now()),
            change: Mutex::default(),
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

    /// The configuration in force, after its files were checked, unless that was done within the last second. If they have
    /// changed, they are checked once more after a second, with or without a connection.
    pub(crate) async fn current(self: &Arc<Self>) -> Arc<WebConfig> {
        if self.check().await == Look::Changing {
            let this = Arc::clone(self);
            tokio::spawn(async move {
                time::sleep(INTERVAL).await;
                this.check().await;
            });
        }
        self.in_force()
    }

    async fn check(self: &Arc<Self>) -> Look {
        if !self.is_due(Instant::now()) {
            return Look::Settled;
        }
        let this = Arc::clone(self);
        // Reading files may block.
        let reload = task::spawn_blocking(move || this.reload(SystemTime::now()));
        match time::timeout(TIMEOUT, reload).await {
            Ok(Ok(look)) => look,
            _ => Look::Settled,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let mut checked = self.checked.lock();
        let due = now.saturating_duration_since(*checked) >= INTERVAL;
        if due {
            *checked = now;
        }
        due
    }

    /// Reads the configuration again if a file has changed, and puts it in force if its files are still the same at the
    /// next call: a file that is written in place is empty at first, and a certificate changes before its key. After a
    /// failure, it is read again at every call: the reason may be a file that only the new configuration names, or the
    /// clock.
    pub(super) fn reload(&self, now: SystemTime) -> Look {
        // If it is locked, another attempt takes longer than a second.
        let Some(mut change) = self.change.try_lock() else { return Look::Settled };
        let current = self.in_force();
        *change = match std::mem::take(&mut *change) {
            // Nothing was written between the first look at its files and this one: what was read is complete.
            Change::Read(config) if !config.has_changed() => {
                info!(path = %config.path().display(), "web configuration reloaded");
                *self.current.lock() = Arc::new(config);
                Change::None
            }
            Change::None if !current.has_changed() => Change::None,
            before => attempt(&current, before, now),
        };
        match &*change {
            Change::None => self.is_valid.store(true, Ordering::Relaxed),
            Change::Reported(_) => self.is_valid.store(false, Ordering::Relaxed),
            Change::Read(_) | Change::Failed(_) => return Look::Changing,
        }
        Look::Settled
    }
}

/// Reads the configuration that will replace `current`. `before` is what came of the last attempt.
fn attempt(current: &WebConfig, before: Change, now: SystemTime) -> Change {
    let files = current.files.iter().map(|file| WatchedFile::new(file.path.clone())).collect();
    let loaded = WebConfig::load_at(current.path(), now).and_then(|config| config.replaces(current));
    let error = match loaded {
        Ok(config) => return Change::Read(config),
        Err(error) => error,
    };
    let failure = Failure { message: error.to_string(), files };
    match before {
        Change::Reported(reported) if reported == failure => Change::Reported(reported),
        Change::Failed(first) if first == failure => {
            warn!(%error, "the new web configuration is invalid: the previous one stays in force");
            Change::Reported(failure)
        }
        _ => Change::Failed(failure),
    }
}
