//! Flows as Prometheus reads them.

use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::key::Key;
use super::scope::Series;
use super::{Flows, names};
use crate::{Exposition, Kind};

/// Lines of one kind of flow, their labels written, so that each of the two families need only copy them.
#[derive(Default)]
struct Rows {
    labels: String,
    rows: Vec<Row>,
}

/// The counters of a flow, and where its labels end: they begin where those of the row before it do.
struct Row {
    labels_end: usize,
    packets: u64,
    bytes: u64,
}

impl Flows {
    /// Writes the flows of `shared` into `out`.
    ///
    /// The lock is taken for a thousand flows at a time, which are copied in tens of microseconds. They are formatted
    /// outside of it, so that who counts packets gets it in between.
    pub fn expose(shared: &Mutex<Self>, out: &mut Exposition) {
        let (series, began, overflow) = {
            let flows = lock(shared);
            (flows.scopes.series().to_vec(), flows.began, flows.overflow)
        };
        let (mut tzsp, mut others) = (Rows::default(), Rows::default());
        let mut copies = Vec::new();
        for chunk in 0.. {
            copies.clear();
            {
                let flows = lock(shared);
                if chunk == flows.table.chunks() {
                    break;
                }
                copies.extend(flows.counters(chunk, began));
            }
            for (key, packets, bytes) in &copies {
                let Some(series) = series.get(key.scope().index()) else { continue };
                let rows = if series.tzsp { &mut tzsp } else { &mut others };
                rows.push(key, series, *packets, *bytes);
            }
        }
        tzsp.write(
            ["tzsp_observed_packets_total", "Packets that were observed by TZSP."],
            [
                "tzsp_observed_bytes_total",
                "Bytes of the IP packets that were observed by TZSP, IP headers included.",
            ],
            out,
        );
        others.write(
            ["packeteur_flow_packets_total", "Packets of a flow."],
            ["packeteur_flow_bytes_total", "Bytes of the IP packets of a flow, IP headers included."],
            out,
        );
        let help = "Packets that were not counted for a flow, as it was a new one and MAX_FLOWS were there.";
        out.family("packeteur_flows_overflow_total", Kind::Counter, help);
        out.sample("packeteur_flows_overflow_total", "", overflow);
    }

    /// Keys and counters of the flows in a chunk of the table, but for those that are younger than the first `began`: such
    /// a one may be an old one that came back, and was copied already.
    pub(super) fn counters(&self, chunk: usize, began: u64) -> impl Iterator<Item = (Key, u64, u64)> {
        let flows = self.table.chunk(chunk).map(|(_, entry)| (entry.key, entry.value));
        let known = flows.filter(move |(_, flow)| flow.number <= began);
        known.map(|(key, flow)| (key, flow.packets, flow.bytes))
    }
}

impl Rows {
    fn push(&mut self, key: &Key, series: &Series, packets: u64, bytes: u64) {
        let (from, to) = (key.from(), key.to());
        // Nothing here needs an escape, and the scope's labels have theirs. Writing to a string cannot fail.
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

    /// Writes the two families, each by its name and its help text; nothing if there is no flow.
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

/// A thread that died while it counted left counters behind which are at most one packet short.
fn lock(shared: &Mutex<Flows>) -> MutexGuard<'_, Flows> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
