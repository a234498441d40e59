//! What becomes of TZSP, for the metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use observe::{Exposition, Kind, Labels};
use packet::decap::Reason;
use source::tzsp::{Port, Report};

/// The reports of all sources that receive TZSP.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports(Arc<Mutex<Vec<Report>>>);

impl Reports {
    /// A further source.
    pub(crate) fn add(&self, report: Report) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(report);
    }

    /// Writes the sums over all sources, port by port. Nothing where there is no TZSP.
    pub(crate) fn expose(&self, out: &mut Exposition) {
        let reports: Vec<_> =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(Report::ports).collect();
        if reports.is_empty() {
            return;
        }
        let mut ports: BTreeMap<u16, Vec<Port>> = BTreeMap::new();
        for port in reports.iter().flat_map(|report| &report.ports) {
            ports.entry(port.number).or_default().push(*port);
        }
        let mut per_port = |name: &str, help: &str, value: fn(&Port) -> u64| {
            out.family(name, Kind::Counter, help);
            for (number, ports) in &ports {
                let labels = Labels::new().with("listen_port", number);
                out.sample(name, labels.as_str(), ports.iter().map(value).sum::<u64>());
            }
        };
        per_port("packeteur_tzsp_datagrams_total", "TZSP datagrams received.", |p| p.counters.datagrams);
        per_port("packeteur_tzsp_packets_total", "Packets that came in them.", |p| p.counters.packets);
        per_port("packeteur_tzsp_idle_total", "Keepalives and port openers.", |p| p.counters.idle);
        per_port(
            "packeteur_tzsp_incomplete_total",
            "Datagrams of which only the head was there, and was unpacked as far as it went.",
            |p| p.counters.incomplete,
        );
        per_port(
            "packeteur_tzsp_dropped_total",
            "Datagrams that the socket dropped because its receive buffer was full.",
            |p| p.dropped,
        );
        let name = "packeteur_tzsp_errors_total";
        out.family(name, Kind::Counter, "Datagrams that gave no packet, by reason.");
        for (number, ports) in &ports {
            for reason in Reason::ALL {
                let labels = Labels::new().with("listen_port", number).with("reason", reason.as_str());
                let errors: u64 = ports.iter().map(|port| port.counters.errors[reason as usize]).sum();
                out.sample(name, labels.as_str(), errors);
            }
        }
        for (name, help, value) in [
            (
                "packeteur_tzsp_overflow_packets_total",
                "Packets of routers beyond those that can be told apart, left out.",
                reports.iter().map(|report| report.overflow).sum::<u64>(),
            ),
            (
                "packeteur_tzsp_reassembly_failures_total",
                "Fragmented datagrams that could not be put together; with sockets those of any protocol, by the kernel.",
                reports.iter().map(|report| report.reassembly_failures).sum(),
            ),
        ] {
            out.family(name, Kind::Counter, help);
            out.sample(name, "", value);
        }
    }
}
