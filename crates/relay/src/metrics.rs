//! The metrics of a relay.

use std::sync::Arc;

use metrics::Declaration;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;

use crate::{RelayState, RelayStatus};

/// A declaration, and how to read its value from a status.
type Metric = (Declaration, fn(&RelayStatus) -> u64);

const METRICS: [Metric; 8] = [
    (
        Declaration::gauge("packeteur_relay_connected", "Whether there is a connection to the collector."),
        |status| status.connected.into(),
    ),
    (Declaration::counter("packeteur_relay_connections_total", "Connections to the collector."), |status| {
        status.connections
    }),
    (Declaration::counter("packeteur_relay_sent_batches_total", "Batches sent."), |status| {
        status.sent_batches
    }),
    (Declaration::counter("packeteur_relay_sent_packets_total", "Packets sent."), |status| {
        status.sent_packets
    }),
    (
        Declaration::counter("packeteur_relay_sent_bytes_total", "Bytes of batches sent, compressed."),
        |status| status.sent_bytes,
    ),
    (
        Declaration::counter(
            "packeteur_relay_dropped_packets_total",
            "Packets dropped because RELAY_BUFFER was full, or because the capture ended.",
        ),
        |status| status.dropped_packets,
    ),
    (Declaration::gauge("packeteur_relay_queued_packets", "Packets waiting to be sent."), |status| {
        status.queued_packets
    }),
    (
        Declaration::gauge("packeteur_relay_queued_bytes", "Memory of the batches waiting to be sent."),
        |status| status.queued_bytes,
    ),
];

impl RelayState {
    /// A collector of this relay's metrics, for a [`prometheus::Registry`].
    ///
    /// # Errors
    /// A declaration is invalid.
    pub fn metrics_collector(self: &Arc<Self>) -> prometheus::Result<Box<dyn Collector>> {
        let state = Arc::clone(self);
        metrics::collector(METRICS.map(|(declared, _)| declared), move || families(&state.status()))
    }
}

fn families(status: &RelayStatus) -> Vec<MetricFamily> {
    METRICS.iter().map(|(declared, value)| declared.value(value(status) as f64)).collect()
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn every_figure_is_exported() {
        let status = RelayStatus {
            connected: true,
            connections: 2,
            sent_batches: 3,
            sent_packets: 4,
            sent_bytes: 5,
            dropped_packets: 6,
            queued_packets: 7,
            queued_bytes: 8,
        };
        let text = TextEncoder::new().encode_to_string(&families(&status)).unwrap();
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "packeteur_relay_connected 1",
                "packeteur_relay_connections_total 2",
                "packeteur_relay_sent_batches_total 3",
                "packeteur_relay_sent_packets_total 4",
                "packeteur_relay_sent_bytes_total 5",
                "packeteur_relay_dropped_packets_total 6",
                "packeteur_relay_queued_packets 7",
                "packeteur_relay_queued_bytes 8",
            ]
        );
    }
}
