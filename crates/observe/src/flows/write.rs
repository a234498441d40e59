//! The table of flows in a scrape.

use std::fmt::Write;

use metrics::{Exposition, Kind};
use parking_lot::Mutex;

use super::key::FlowKey;
use super::scope::Series;
use super::{Flows, names};

/// The rows of two families, packets and bytes. Their labels are formatted once.
#[derive(Default)]
struct Rows {
    labels: String,
    rows: Vec<Row>,
}

/// The counts of a flow, and where its labels end. They begin where those of the row before end.
struct Row {
    labels_end: usize,
    packets: u64,
    bytes: u64,
}

impl Flows {
    /// Writes the series of all flows.
    ///
    /// The lock is held while about a thousand flows are copied, which takes tens of microseconds. They are formatted
    /// without it.
    pub fn write_table(shared: &Mutex<Self>, out: &mut Exposition) {
        let (series, started) = {
            let flows = shared.lock();
            (flows.scopes.series().to_vec(), flows.started)
        };
        let (mut tzsp, mut others) = (Rows::default(), Rows::default());
        let mut copies = Vec::new();
        for chunk in 0.. {
            copies.clear();
            {
                let flows = shared.lock();
                if chunk == flows.table.chunks() {
                    break;
                }
                copies.extend(flows.counters(chunk, started));
            }
            for (key, packets, bytes) in &copies {
                let Some(series) = series.get(key.scope().index()) else { continue };
                let rows = if series.tzsp { &mut tzsp } else { &mut others };
                rows.push(key, series, *packets, *bytes);
            }
        }
        tzsp.write(
            ["tzsp_observed_packets_total", "Packets received by TZSP, by flow."],
            [
                "tzsp_observed_bytes_total",
                "Bytes of the IP packets received by TZSP, by flow, IP headers included.",
            ],
            out,
        );
        others.write(
            ["packeteur_flow_packets_total", "Packets, by flow."],
            ["packeteur_flow_bytes_total", "Bytes of the IP packets, by flow, IP headers included."],
            out,
        );
    }

    /// Keys, packets and bytes of the flows in a chunk of the table, except those after the first `started` flows: such
    /// a flow may have been removed and restarted during the scrape, after it was copied.
    pub(super) fn counters(&self, chunk: usize, started: u64) -> impl Iterator<Item = (FlowKey, u64, u64)> {
        let flows = self.table.chunk(chunk).map(|(_, entry)| (entry.key, entry.value));
        let known = flows.filter(move |(_, flow)| flow.number <= started);
        known.map(|(key, flow)| (key, flow.packets, flow.bytes))
    }
}

impl Rows {
    fn push(&mut self, key: &FlowKey, series: &Series, packets: u64, bytes: u64) {
        let (from, to) = (key.from(), key.to());
        // Only the scope's labels need escapes, and they have them. Writing to a string cannot fail.
        let _ = write!(
            self.labels,
            r#"from="{from}",from_type="{}",to="{to}",to_type="{}",protocol="{}",{}"#,
            names::address_type(from),
            names::address_type(to),
            names::protocol(key.protocol()),
            series.labels,
        );
        self.rows.push(Row { labels_end: self.labels.len(), packets, bytes });
    }

    /// Writes the two families, each given by its name and help text. Writes nothing if there is no flow.
    fn write(&self, packets: [&str; 2], bytes: [&str; 2], out: &mut Exposition) {
        if !self.rows.is_empty() {
            self.write_family(packets, |row| row.packets, out);
            self.write_family(bytes, |row| row.bytes, out);
        }
    }

    fn write_family(&self, [name, help]: [&str; 2], value: impl Fn(&Row) -> u64, out: &mut Exposition) {
        out.family(name, Kind::Counter, help);
        let mut labels_begin = 0;
        for row in &self.rows {
            let labels = self.labels.get(labels_begin..row.labels_end).unwrap_or_default();
            out.sample(name, labels, value(row));
            labels_begin = row.labels_end;
        }
    }
}
