//! A stream in a scrape: a copy of its counts, and its labels.

use metrics::Labels;
use packet::Timestamp;

use super::key::{ConnectionKey, StreamEndpoint};
use super::stats::Stats;
use crate::Origins;

/// A copy of a stream.
pub(super) struct Row {
    pub(super) key: ConnectionKey,
    /// 0 if the low endpoint of the key sends, 1 if the high one does.
    pub(super) direction: u8,
    /// The packet time of its origin.
    pub(super) now: Timestamp,
    pub(super) stats: Stats,
}

impl Row {
    /// Sender and receiver.
    const fn endpoints(&self) -> (&StreamEndpoint, &StreamEndpoint) {
        match self.direction {
            0 => (&self.key.low, &self.key.high),
            _ => (&self.key.high, &self.key.low),
        }
    }
}

/// The labels of many rows in one string: formatted once, used by each family.
pub(super) struct RowLabels {
    text: String,
    ends: Vec<usize>,
}

impl RowLabels {
    pub(super) fn of(rows: &[Row], origins: &Origins) -> Self {
        let mut labels = Self { text: String::new(), ends: Vec::with_capacity(rows.len()) };
        for row in rows {
            labels.push(row, origins.labels(row.key.origin));
        }
        labels
    }

    fn push(&mut self, row: &Row, origin: &str) {
        let (from, to) = row.endpoints();
        let own = Labels::new()
            .with("src_ip", from.address)
            .with("src_port", from.port)
            .with("dst_ip", to.address)
            .with("dst_port", to.port)
            .with("state", row.stats.state().as_str());
        self.text.push_str(origin);
        if !origin.is_empty() {
            self.text.push(',');
        }
        self.text.push_str(own.as_str());
        self.ends.push(self.text.len());
    }

    /// The labels of each row, in the order of the rows.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        let mut begin = 0;
        self.ends.iter().map(move |&end| {
            let labels = self.text.get(begin..end).unwrap_or_default();
            begin = end;
            labels
        })
    }
}
