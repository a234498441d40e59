//! The open connections. Their number is bounded. When it is reached, the least useful one is closed in favor of the new
//! one, so that clients that do nothing cannot keep others out, and one client with many connections harms only itself.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::client_address::ClientAddress;

/// Connections that every client may have while others have more. A Prometheus server, its standby behind the same router
/// and a probe need no more at a time; somebody else needs 16 addresses to fill the table with as many.
const FAIR_SHARE: usize = 4;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// The client has not sent a complete request.
    Silent,
    /// The client receives the response.
    Sending,
    /// The response is being prepared.
    Answering,
}

/// The state of a connection, which it reports itself.
pub(crate) struct Activity(Mutex<(Phase, Instant)>);

impl Activity {
    /// The request is complete.
    pub(crate) fn set_answering(&self, now: Instant) {
        *self.0.lock() = (Phase::Answering, now);
    }

    /// The response is complete.
    pub(crate) fn set_sending(&self, now: Instant) {
        *self.0.lock() = (Phase::Sending, now);
    }

    /// The client has received a part of the response. What it sends meanwhile is no progress: it could be a byte at a time.
    pub(crate) fn set_progress(&self, now: Instant) {
        if let (Phase::Sending, time) = &mut *self.0.lock() {
            *time = now;
        }
    }
}

struct Entry {
    client: ClientAddress,
    activity: Arc<Activity>,
    task: Option<AbortHandle>,
}

/// All connections, in the order in which they were accepted.
pub(crate) struct Connections {
    max: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    entries: BTreeMap<u64, Entry>,
    evicted: u64,
}

impl Connections {
    /// At most `max` connections.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, table: Mutex::default() })
    }

    /// Adds a connection of `client`, and closes another one if there are too many.
    pub(crate) fn add(self: &Arc<Self>, client: ClientAddress, now: Instant) -> Connection {
        if self.len() >= self.max {
            self.evict();
        }
        let mut table = self.table.lock();
        let id = table.next;
        table.next += 1;
        let activity = Arc::new(Activity(Mutex::new((Phase::Silent, now))));
        table.entries.insert(id, Entry { client, activity: Arc::clone(&activity), task: None });
        Connection { id, activity, connections: Arc::clone(self) }
    }

    /// Sets the task that serves a connection, unless it has ended.
    pub(crate) fn set_task(&self, id: u64, task: AbortHandle) {
        if let Some(entry) = self.table.lock().entries.get_mut(&id) {
            entry.task = Some(task);
        }
    }

    /// Closes a connection of the client that has the most, or of any client if none has more than [`FAIR_SHARE`]:
    /// preferably one that has not sent a request, and of those the oldest; then the one that has not received anything for
    /// the longest time.
    pub(crate) fn evict(&self) {
        self.evict_if(|_, _| true);
    }

    /// As [`Self::evict`], but only a connection whose client has not sent a request.
    pub(crate) fn evict_silent(&self) {
        self.evict_if(|phase, _| phase == Phase::Silent);
    }

    /// As [`Self::evict`], but only a connection whose client has not received anything of its response since `time` or
    /// before.
    pub(crate) fn evict_reader_stalled_since(&self, time: Instant) {
        self.evict_if(|phase, since| phase == Phase::Sending && since <= time);
    }

    fn evict_if(&self, may_evict: impl Fn(Phase, Instant) -> bool) {
        let mut table = self.table.lock();
        let owned = table.owned();
        let candidates = table.entries.iter().filter_map(|(id, entry)| {
            let (phase, since) = *entry.activity.0.lock();
            let excess = owned.get(&entry.client).map_or(0, |count| count.saturating_sub(FAIR_SHARE));
            may_evict(phase, since).then_some((Reverse(excess), phase, since, *id))
        });
        let Some((.., id)) = candidates.min() else { return };
        // Dropping the task closes the socket.
        if let Some(task) = table.entries.remove(&id).and_then(|entry| entry.task) {
            task.abort();
        }
        table.evicted += 1;
    }

    /// The number of open connections.
    pub(crate) fn len(&self) -> usize {
        self.table.lock().entries.len()
    }

    /// Connections that were closed in favor of others.
    pub(crate) fn evicted(&self) -> u64 {
        self.table.lock().evicted
    }
}

impl Table {
    /// The number of connections of each client.
    fn owned(&self) -> HashMap<ClientAddress, usize> {
        let mut owned = HashMap::new();
        for entry in self.entries.values() {
            *owned.entry(entry.client).or_default() += 1;
        }
        owned
    }
}

/// An open connection. Dropping it ends its entry.
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) activity: Arc<Activity>,
    connections: Arc<Connections>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.table.lock().entries.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::*;

    /// The connections that are left, by their numbers.
    fn left(connections: &Connections) -> Vec<u64> {
        connections.table.lock().entries.keys().copied().collect()
    }

    #[test]
    fn oldest_silent_connection_is_evicted_first() {
        let connections = Connections::new(4);
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let open: Vec<_> = (0..4).map(|second| connections.add(ClientAddress::LOCAL, at(second))).collect();
        open[0].activity.set_answering(at(4));
        open[1].activity.set_sending(at(5));
        let _new = connections.add(ClientAddress::LOCAL, at(6));
        assert_eq!(left(&connections), [0, 1, 3, 4]);
        let _new = connections.add(ClientAddress::LOCAL, at(7));
        assert_eq!(left(&connections), [0, 1, 4, 5]);
        assert_eq!(connections.evicted(), 2);
    }

    fn client(text: &str) -> ClientAddress {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn client_with_the_most_connections_makes_room() {
        let connections = Connections::new(8);
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        // The oldest one is silent: it is in its TLS handshake.
        let _honest = connections.add(client("192.0.2.1"), at(0));
        let flood: Vec<_> = (1..8).map(|second| connections.add(client("192.0.2.2"), at(second))).collect();
        // Requests do not help.
        flood.iter().for_each(|connection| connection.activity.set_answering(at(8)));
        let _others: Vec<_> =
            (9..12).map(|second| connections.add(client(&format!("192.0.2.{second}")), at(second))).collect();
        assert_eq!(left(&connections), [0, 4, 5, 6, 7, 8, 9, 10]);
        // Now each has its share at most, and silent ones go first.
        let _more = connections.add(client("192.0.2.12"), at(12));
        assert_eq!(left(&connections), [4, 5, 6, 7, 8, 9, 10, 11]);
    }

    #[test]
    fn flood_of_a_network_replaces_its_own_connections() {
        let connections = Connections::new(8);
        let start = Instant::now();
        let honest = connections.add(client("2001:db8::1"), start);
        let flood: Vec<_> = (0..100)
            .map(|number| connections.add(client(&format!("2001:db8:1:2::{number}")), Instant::now()))
            .collect();
        assert!(left(&connections).contains(&honest.id));
        drop(flood);
        assert_eq!((connections.len(), connections.evicted()), (1, 93));
    }

    #[test]
    fn reader_without_progress_is_evicted_before_others() {
        let connections = Connections::new(3);
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let open: Vec<_> = (0..3).map(|second| connections.add(ClientAddress::LOCAL, at(second))).collect();
        open[0].activity.set_answering(at(3));
        open[1].activity.set_sending(at(4));
        open[2].activity.set_sending(at(5));
        open[1].activity.set_progress(at(6));
        connections.evict_reader_stalled_since(at(4));
        assert_eq!(left(&connections), [0, 1, 2]);
        connections.evict_reader_stalled_since(at(6));
        assert_eq!(left(&connections), [0, 1]);
        connections.evict_reader_stalled_since(at(6));
        connections.evict_reader_stalled_since(at(6));
        assert_eq!(left(&connections), [0]);
        connections.evict();
        assert_eq!(left(&connections), [0; 0]);
    }

    #[test]
    fn progress_before_the_request_does_not_count() {
        let connections = Connections::new(2);
        let start = Instant::now();
        let old = connections.add(ClientAddress::LOCAL, start);
        let _young = connections.add(ClientAddress::LOCAL, start + Duration::from_secs(1));
        old.activity.set_progress(start + Duration::from_secs(2));
        connections.evict();
        assert_eq!(left(&connections), [1]);
    }

    #[test]
    fn closed_connection_is_forgotten() {
        let connections = Connections::new(2);
        drop(connections.add(ClientAddress::LOCAL, Instant::now()));
        assert_eq!((connections.len(), connections.evicted()), (0, 0));
    }
}
