//! The metrics of a capture: its devices, its TZSP ports, its relay and its observers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use metrics::{Declaration, Exposition, LabelSet, collector};
use observe::Observers;
use packet::decap::Reason;
use prometheus::Registry;
use prometheus::proto::MetricFamily;
use relay::RelayHandle;
use source::tzsp::{TzspPort, TzspPorts};
use source::{DeviceCounts, TzspReport};

use crate::{PipelineHandle, Totals};

const PROCESSED: Declaration =
    Declaration::counter("capture_packets_processed_total", "Packets read and measured.");
const DROPPED: Declaration = Declaration::counter(
    "capture_dropped_packets_total",
    "Packets dropped by the kernel or the interface, over all devices.",
);
const QUEUE_FREEZES: Declaration =
    Declaration::counter("capture_queue_freezes_total", "How often a kernel capture buffer was full.");
const DEVICE_RECEIVED: Declaration = Declaration::counter(
    "packeteur_device_received_packets_total",
    "Packets that passed a device's filter, including those dropped.",
);
const DEVICE_DROPPED: Declaration = Declaration::counter(
    "packeteur_device_dropped_packets_total",
    "Packets of a device dropped before they were read, by place: kernel or interface.",
);

/// A counter of a TZSP port, and its value.
type PortCounter = (Declaration, fn(&TzspPort) -> u64);

const PORT_COUNTERS: [PortCounter; 5] = [
    (Declaration::counter("packeteur_tzsp_datagrams_total", "TZSP datagrams received."), |port| {
        port.counters.datagrams
    }),
    (Declaration::counter("packeteur_tzsp_packets_total", "Packets unpacked from TZSP datagrams."), |port| {
        port.counters.packets
    }),
    (Declaration::counter("packeteur_tzsp_keepalives_total", "TZSP keepalives and port openers."), |port| {
        port.counters.keepalives
    }),
    (
        Declaration::counter(
            "packeteur_tzsp_truncated_total",
            "TZSP datagrams of which only the head arrived; their packets are truncated.",
        ),
        |port| port.counters.truncated,
    ),
    (
        Declaration::counter(
            "packeteur_tzsp_dropped_total",
            "TZSP datagrams dropped by the socket because its receive buffer was full.",
        ),
        |port| port.dropped,
    ),
];
const TZSP_ERRORS: Declaration =
    Declaration::counter("packeteur_tzsp_errors_total", "TZSP datagrams without a valid packet, by reason.");
const TZSP_ROUTERS: Declaration =
    Declaration::gauge("packeteur_tzsp_routers", "TZSP routers that sent packets within the last hour.");
const TZSP_FORGOTTEN: Declaration = Declaration::counter(
    "packeteur_tzsp_forgotten_routers_total",
    "TZSP routers forgotten because they were silent for an hour, or because there were too many.",
);
const TZSP_UNTRACKED: Declaration = Declaration::counter(
    "packeteur_tzsp_untracked_packets_total",
    "Packets dropped because there were too many TZSP routers, or too many new ones at once.",
);
const TZSP_REASSEMBLY: Declaration = Declaration::counter(
    "packeteur_tzsp_reassembly_failures_total",
    "Fragmented datagrams that could not be reassembled. With sockets, the kernel's count for all protocols.",
);

/// Reads a capture's figures. All clones refer to the same capture.
#[derive(Clone, Debug)]
pub struct CaptureHandle {
    observers: Arc<Observers>,
    devices: Arc<[(Box<str>, Arc<DeviceCounts>)]>,
    tzsp: Arc<[TzspReport]>,
    relay: Option<RelayHandle>,
}

impl CaptureHandle {
    pub(super) fn new(
        observers: Arc<Observers>,
        devices: Vec<(Box<str>, Arc<DeviceCounts>)>,
        tzsp: Vec<TzspReport>,
        relay: Option<RelayHandle>,
    ) -> Self {
        Self { observers, devices: devices.into(), tzsp: tzsp.into(), relay }
    }

    fn families(&self) -> Vec<MetricFamily> {
        let totals = self.totals();
        let device = |name: &str| LabelSet::new().with("device", name);
        let received = self
            .devices
            .iter()
            .map(|(name, counts)| (device(name), counts.received.load(Ordering::Relaxed) as f64));
        let dropped = self.devices.iter().flat_map(|(name, counts)| {
            [("kernel", &counts.dropped_kernel), ("interface", &counts.dropped_interface)].map(
                |(place, count)| (device(name).with("place", place), count.load(Ordering::Relaxed) as f64),
            )
        });
        vec![
            PROCESSED.value(totals.packets as f64),
            DROPPED.value(totals.dropped as f64),
            QUEUE_FREEZES.value(totals.queue_freezes as f64),
            DEVICE_RECEIVED.samples(received),
            DEVICE_DROPPED.samples(dropped),
        ]
    }
}

impl PipelineHandle for CaptureHandle {
    fn register_metrics(&self, registry: &Registry) -> prometheus::Result<()> {
        let declared = [PROCESSED, DROPPED, QUEUE_FREEZES, DEVICE_RECEIVED, DEVICE_DROPPED];
        let capture = self.clone();
        registry.register(collector(declared, move || capture.families())?)?;
        if !self.tzsp.is_empty() {
            let declared = PORT_COUNTERS.map(|(declared, _)| declared);
            let declared = declared.into_iter().chain([
                TZSP_ERRORS,
                TZSP_ROUTERS,
                TZSP_FORGOTTEN,
                TZSP_UNTRACKED,
                TZSP_REASSEMBLY,
            ]);
            let tzsp = Arc::clone(&self.tzsp);
            registry.register(collector(declared, move || tzsp_families(&tzsp))?)?;
        }
        if let Some(relay) = &self.relay {
            registry.register(relay.metrics_collector()?)?;
        }
        for observer in self.observers.collectors()? {
            registry.register(observer)?;
        }
        Ok(())
    }

    fn write_tables(&self, out: &mut Exposition) {
        self.observers.write_tables(out);
    }

    fn totals(&self) -> Totals {
        let sum = |count: fn(&DeviceCounts) -> u64| -> u64 {
            self.devices.iter().map(|(_, counts)| count(counts)).sum()
        };
        Totals {
            packets: self.observers.packets(),
            dropped: sum(|counts| {
                counts.dropped_kernel.load(Ordering::Relaxed)
                    + counts.dropped_interface.load(Ordering::Relaxed)
            }),
            lost: self.relay.as_ref().map_or(0, |relay| relay.status().dropped_packets),
            queue_freezes: sum(|counts| counts.queue_freezes.load(Ordering::Relaxed)),
        }
    }

    fn unfinished(&self) -> String {
        let queued = self.relay.as_ref().map_or(0, |relay| relay.status().queued_packets);
        format!("{queued} packets are not sent")
    }
}

/// The sums over all sources, by port.
fn tzsp_families(reports: &[TzspReport]) -> Vec<MetricFamily> {
    let reports: Vec<_> = reports.iter().map(TzspReport::ports).collect();
    let mut ports: BTreeMap<u16, Vec<TzspPort>> = BTreeMap::new();
    for port in reports.iter().flat_map(|report| &report.ports) {
        ports.entry(port.number).or_default().push(*port);
    }
    let labels = |number: &u16| LabelSet::new().with("listen_port", number);
    let mut families: Vec<_> = PORT_COUNTERS
        .iter()
        .map(|(declared, value)| {
            declared.samples(
                ports
                    .iter()
                    .map(|(number, ports)| (labels(number), ports.iter().map(value).sum::<u64>() as f64)),
            )
        })
        .collect();
    families.push(TZSP_ERRORS.samples(ports.iter().flat_map(|(number, ports)| {
        Reason::ALL.map(|reason| {
            let errors: u64 = ports.iter().map(|port| port.counters.errors[reason as usize]).sum();
            (labels(number).with("reason", reason.as_str()), errors as f64)
        })
    })));
    let sum = |value: fn(&TzspPorts) -> u64| reports.iter().map(value).sum::<u64>() as f64;
    families.push(TZSP_ROUTERS.value(sum(|report| report.routers)));
    families.push(TZSP_FORGOTTEN.value(sum(|report| report.forgotten)));
    families.push(TZSP_UNTRACKED.value(sum(|report| report.untracked)));
    families.push(TZSP_REASSEMBLY.value(sum(|report| report.reassembly_failures)));
    families
}
