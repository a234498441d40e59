//! The metrics of the server itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use metrics::{Declaration, collector};
use prometheus::core::Collector;

use crate::config::WatchedConfig;
use crate::connections::Connections;

const CONNECTIONS: Declaration =
    Declaration::gauge("packeteur_web_connections", "Open connections to the metrics port.");
const EVICTED: Declaration = Declaration::counter(
    "packeteur_web_evicted_connections_total",
    "Connections closed in favor of others: they were silent, read slowly, or were one client's many.",
);
const ACCEPT_ERRORS: Declaration = Declaration::counter(
    "packeteur_web_accept_errors_total",
    "Failures to accept a connection, for example because there were no file descriptors left.",
);
const TLS_ERRORS: Declaration =
    Declaration::counter("packeteur_web_tls_errors_total", "TLS handshakes that failed.");
const UNAUTHORIZED: Declaration = Declaration::counter(
    "packeteur_web_unauthorized_requests_total",
    "Requests without a valid user name and password.",
);
const CONFIG_VALID: Declaration = Declaration::gauge(
    "packeteur_web_config_last_reload_successful",
    "Whether the last attempt to read WEB_CONFIG_FILE succeeded.",
);
const CERTIFICATE_EXPIRY: Declaration = Declaration::gauge(
    "packeteur_web_certificate_expiry_timestamp_seconds",
    "When the server's certificate expires, as a Unix timestamp.",
);

/// A counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64
    }
}

/// What the server counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accept_errors: Counter,
    pub(crate) tls_errors: Counter,
    pub(crate) unauthorized: Counter,
}

/// A collector of the server's metrics.
pub(crate) fn metrics_collector(
    counters: Arc<Counters>,
    connections: Arc<Connections>,
    config: Option<Arc<WatchedConfig>>,
) -> prometheus::Result<Box<dyn Collector>> {
    let declarations =
        [CONNECTIONS, EVICTED, ACCEPT_ERRORS, TLS_ERRORS, UNAUTHORIZED, CONFIG_VALID, CERTIFICATE_EXPIRY];
    collector(declarations, move || {
        let mut families = vec![
            CONNECTIONS.value(connections.len() as f64),
            EVICTED.value(connections.evicted() as f64),
            ACCEPT_ERRORS.value(counters.accept_errors.get()),
            TLS_ERRORS.value(counters.tls_errors.get()),
            UNAUTHORIZED.value(counters.unauthorized.get()),
        ];
        if let Some(config) = &config {
            families.push(CONFIG_VALID.value(f64::from(config.is_valid())));
            if let Some(expiry) = config.in_force().expiry() {
                let expiry = expiry.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
                families.push(CERTIFICATE_EXPIRY.value(expiry.as_secs_f64()));
            }
        }
        families
    })
}
