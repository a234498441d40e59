//! The HTTP endpoint: metrics for Prometheus, health checks and a status page, with TLS and passwords; and the metrics file.
//!
//! Most metrics are collectors in a [`Registry`]. Large tables write their text directly: see the
//! crate `metrics`.

mod address;
mod authentication;
mod client_address;
mod config;
mod connection;
mod connections;
mod counters;
mod encoding;
mod file;
mod listener;
mod log_limit;
mod page;
mod process;
mod rendering;
mod server;
mod service;
mod shared_task;
mod stream;

use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::Exposition;
use parking_lot::Mutex;
use prometheus::{Registry, TextEncoder};
use tracing::warn;

pub use address::{AddressError, ListenAddress};
pub use config::{WebConfig, WebConfigError};
pub use file::{MetricsFile, MetricsFileError};
pub use listener::BindError;
pub use page::{Page, Status};
pub use process::register_process;
pub use server::Server;
pub use service::{Readiness, Site};

/// All metrics of the program.
pub struct Metrics {
    registry: Registry,
    tables: Box<dyn Fn(&mut Exposition) + Send + Sync>,
    /// Held while rendering, because two expositions of large tables at a time would double the memory needed.
    rendering: Mutex<()>,
    /// The length of the last text, in bytes.
    len: AtomicUsize,
}

impl Metrics {
    /// The metrics in `registry`, and those that `tables` writes.
    pub fn new(registry: Registry, tables: impl Fn(&mut Exposition) + Send + Sync + 'static) -> Self {
        Self { registry, tables: Box::new(tables), rendering: Mutex::new(()), len: AtomicUsize::new(0) }
    }

    /// The current metrics in Prometheus' text format, version 0.0.4.
    pub fn text(&self) -> String {
        let _rendering = self.rendering.lock();
        // A text that grows by doubling leaves as much memory unused, and more behind.
        let last = self.len.load(Ordering::Relaxed);
        let mut out = Exposition::with_capacity(last + last / 8);
        let mut families = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut families) {
            warn!(%error, "some metrics cannot be encoded");
        }
        // Writing to memory cannot fail.
        _ = out.write_str(&families);
        (self.tables)(&mut out);
        let text = out.into_string();
        self.len.store(text.len(), Ordering::Relaxed);
        text
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicU32, Ordering};

    use metrics::{Declaration, collector};

    use super::*;

    #[test]
    fn registry_is_followed_by_tables() {
        const UP: Declaration = Declaration::gauge("up", "Whether it works.");
        let registry = Registry::new();
        registry.register(collector([UP], || vec![UP.value(1.0)]).unwrap()).unwrap();
        let metrics = Metrics::new(registry, |out| out.sample("x_total", "", 2));
        assert_eq!(metrics.text(), "# HELP up Whether it works.\n# TYPE up gauge\nup 1\nx_total 2\n");
    }

    #[test]
    fn panic_while_rendering_does_not_block_later_calls() {
        let calls = AtomicU32::new(0);
        let metrics = Metrics::new(Registry::new(), move |out| {
            assert!(calls.fetch_add(1, Ordering::Relaxed) > 0, "the first call panics on purpose");
            out.sample("x_total", "", 1);
        });
        assert!(catch_unwind(AssertUnwindSafe(|| metrics.text())).is_err());
        assert_eq!(metrics.text(), "x_total 1\n");
    }
}
