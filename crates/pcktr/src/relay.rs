//! The relay's side of a capture: from the settings, and into the metrics.

use observe::{Exposition, Kind};
use relay::push::{self, Peer, Status, WhenFull};

use crate::settings::{Endpoint, Host, RelaySettings};

/// Batches of a file that wait to be sent. A file is read faster than it is sent: what waits beyond this only gets cold.
const AHEAD: usize = 8;

/// What the settings mean to the relay. A file waits for room, a device does not.
pub(crate) fn settings(settings: &RelaySettings, waits: bool) -> push::Settings {
    let peer = match &settings.endpoint {
        Endpoint::Tcp { host, port } => {
            let host = match host {
                Host::Every => "localhost".to_owned(),
                Host::Address(address) => address.to_string(),
                Host::Name(name) => name.clone(),
            };
            Peer::Tcp { host, port: *port }
        }
        Endpoint::Ipc { path } => Peer::Ipc { path: path.to_string_lossy().into_owned() },
    };
    push::Settings {
        peer,
        buffer: if waits { settings.buffer.min(AHEAD * settings.batch.bytes) } else { settings.buffer },
        batch_bytes: settings.batch.bytes,
        compression: settings.compression,
        when_full: if waits { WhenFull::Wait } else { WhenFull::Shed },
    }
}

/// Writes how the relay is.
pub(crate) fn expose(status: &Status, out: &mut Exposition) {
    let mut one = |name: &str, kind, help: &str, value: u64| {
        out.family(name, kind, help);
        out.sample(name, "", value);
    };
    let (counter, gauge) = (Kind::Counter, Kind::Gauge);
    one(
        "packeteur_relay_connected",
        gauge,
        "Whether there is a connection to the collector.",
        status.connected.into(),
    );
    one(
        "packeteur_relay_connections_total",
        counter,
        "Connections to the collector that came about.",
        status.connections,
    );
    one("packeteur_relay_sent_batches_total", counter, "Batches sent.", status.sent_batches);
    one("packeteur_relay_sent_packets_total", counter, "Packets sent.", status.sent_packets);
    one(
        "packeteur_relay_sent_bytes_total",
        counter,
        "Bytes of the batches sent, compressed where they were.",
        status.sent_bytes,
    );
    one(
        "packeteur_relay_dropped_packets_total",
        counter,
        "Packets for which RELAY_BUFFER had no room.",
        status.dropped_packets,
    );
    one("packeteur_relay_waiting_packets", gauge, "Packets that wait to be sent.", status.waiting_packets);
    one(
        "packeteur_relay_waiting_bytes",
        gauge,
        "Memory of the batches that wait to be sent.",
        status.waiting_bytes,
    );
}
