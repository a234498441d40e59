//! The open connections. Their number is bounded. When it is reached, the least useful one is closed in favor of the new
//! one, so that clients that do nothing cannot keep others out.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;

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

    /// Adds a connection, and closes another one if there are too many.
    pub(crate) fn add(self: &Arc<Self>, now: Instant) -> Connection {
        if self.len() >= self.max {
            self.evict();
        }
        let mut table = self.table.lock();
        let id = table.next;
        table.next += 1;
        let activity = Arc::new(Activity(Mutex::new((Phase::Silent, now))));
        table.entries.insert(id, Entry { activity: Arc::clone(&activity), task: None });
        Connection { id, activity, connections: Arc::clone(self) }
    }

    /// Sets the task that serves a connection, unless it has ended.
    pub(crate) fn set_task(&self, id: u64, task: AbortHandle) {
        if let Some(entry) = self.table.lock().entries.get_mut(&id) {
            entry.task = Some(task);
        }
    }

    /// Closes a connection, preferably one whose client has not sent a request, and of those the oldest; then the one whose
    /// client has not received anything for the longest time.
    pub(crate) fn evict(&self) {
        self.evict_if(|_, _| true);
    }

    /// Closes the oldest connection whose client has not sent a request.
    pub(crate) fn evict_silent(&self) {
        self.evict_if(|phase, _| phase == Phase::Silent);
    }

    /// Closes the connection whose client has not received anything of its response for the longest time, if that is since
    /// `time` or before.
    pub(crate) fn evict_reader_stalled_since(&self, time: Instant) {
        self.evict_if(|phase, since| phase == Phase::Sending && since <= time);
    }

    fn evict_if(&self, may_evict: impl Fn(Phase, Instant) -> bool) {
        let mut table = self.table.lock();
        let candidates = table.entries.iter().map(|(id, entry)| (*entry.activity.0.lock(), *id));
        let candidates = candidates.filter(|((phase, since), _)| may_evict(*phase, *since));
        let Some((_, id)) = candidates.min() else { return };
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
        let open: Vec<_> = (0..4).map(|second| connections.add(at(second))).collect();
        open[0].activity.set_answering(at(4));
        open[1].activity.set_sending(at(5));
        let _new = connections.add(at(6));
        assert_eq!(left(&connections), [0, 1, 3, 4]);
        let _new = connections.add(at(7));
        assert_eq!(left(&connections), [0, 1, 4, 5]);
        assert_eq!(connections.evicted(), 2);
    }

    #[test]
    fn reader_without_progress_is_evicted_before_others() {
        let connections = Connections::new(3);
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let open: Vec<_> = (0..3).map(|second| connections.add(at(second))).collect();
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
        let old = connections.add(start);
        let _young = connections.add(start + Duration::from_secs(1));
        old.activity.set_progress(start + Duration::from_secs(2));
        connections.evict();
        assert_eq!(left(&connections), [1]);
    }

    #[test]
    fn closed_connection_is_forgotten() {
        let connections = Connections::new(2);
        drop(connections.add(Instant::now()));
        assert_eq!((connections.len(), connections.evicted()), (0, 0));
    }
}
