//! The connections of a collector, and who gives way when there are too many, or their messages use too much memory.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::connection::Connection;
use crate::Peer;

/// Memory for unfinished messages of all connections, in bytes. Above it, peers that use more than [`FAIR_SHARE`], or
/// stall, lose one.
pub(super) const MAX_UNFINISHED: usize = 64 << 20;

/// Above this, peers that use no more than their share lose one as well. It takes 128 peers, each in the middle of a
/// message, to reach it.
const MAX_UNFINISHED_OF_MANY: usize = 4 * MAX_UNFINISHED;

/// What a peer may always use for unfinished messages, in bytes: two batches of the default size.
const FAIR_SHARE: usize = 512 << 10;

/// An unfinished message that waits this long for its next byte is the first to go.
const STALLED: Duration = Duration::from_secs(5);

/// After a search in vain for a connection that uses too much memory, the next one is due when this much more is used, or
/// after [`SEARCH_INTERVAL`].
const SEARCH_STEP: usize = 1 << 20;

/// See [`SEARCH_STEP`].
const SEARCH_INTERVAL: Duration = Duration::from_millis(100);

/// Connections that are chosen at once to give way to new ones: each choice looks at all of them.
const MAX_VICTIMS: usize = 64;

/// All connections, by their number.
#[derive(Debug, Default)]
pub(super) struct ConnectionTable {
    connections: HashMap<u64, Connection>,
    /// Bytes of memory of unfinished messages.
    unfinished: usize,
    /// What was unfinished at the last search in vain, and when that was.
    searched: Option<(usize, Instant)>,
    /// The number of connections of each peer.
    owned: HashMap<Peer, usize>,
}

impl ConnectionTable {
    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.get_mut(&id)
    }

    pub(super) fn insert(&mut self, id: u64, connection: Connection) {
        *self.owned.entry(connection.sender.peer()).or_default() += 1;
        self.connections.insert(id, connection);
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Connection> {
        let removed = self.connections.remove(&id)?;
        self.unfinished -= removed.memory();
        self.disown(removed.sender.peer());
        Some(removed)
    }

    fn disown(&mut self, peer: Peer) {
        if let Some(count) = self.owned.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.owned.remove(&peer);
            }
        }
    }

    /// Calls `change` for a connection, and accounts for its memory and its owner.
    pub(super) fn update<T>(&mut self, id: u64, change: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        let connection = self.connections.get_mut(&id)?;
        let (memory, before) = (connection.memory(), connection.sender.peer());
        connection.set_frugal(self.unfinished > MAX_UNFINISHED / 2);
        let result = change(connection);
        let after = connection.sender.peer();
        self.unfinished = self.unfinished - memory + connection.memory();
        if before != after {
            self.disown(before);
            *self.owned.entry(after).or_default() += 1;
        }
        Some(result)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Connection)> {
        self.connections.iter().map(|(id, connection)| (*id, connection))
    }

    /// The connection that gives way because unfinished messages use too much memory: one that stalls, or else the largest
    /// one of the peer that uses the most. None if there is enough memory, or every peer uses its share.
    pub(super) fn too_large(&mut self, now: Instant) -> Option<u64> {
        if self.unfinished <= MAX_UNFINISHED {
            self.searched = None;
            return None;
        }
        if let Some((unfinished, at)) = self.searched {
            let soon = now.saturating_duration_since(at) < SEARCH_INTERVAL;
            if soon && self.unfinished < unfinished + SEARCH_STEP {
                return None;
            }
        }
        let found = self.largest(now);
        self.searched = found.is_none().then_some((self.unfinished, now));
        found
    }

    fn largest(&self, now: Instant) -> Option<u64> {
        let mut used: HashMap<Peer, usize> = HashMap::new();
        for connection in self.connections.values() {
            *used.entry(connection.sender.peer()).or_default() += connection.memory();
        }
        let using = self.iter().filter(|(_, connection)| connection.memory() > 0);
        let rank = |connection: &Connection| {
            let stalled = now.saturating_duration_since(connection.active) >= STALLED;
            let used = used.get(&connection.sender.peer()).copied().unwrap_or_default();
            (stalled, used, connection.memory())
        };
        let ranked = using.map(|(id, connection)| (rank(connection), id));
        let ((stalled, used, _), id) = ranked.max()?;
        (stalled || used > FAIR_SHARE || self.unfinished > MAX_UNFINISHED_OF_MANY).then_some(id)
    }

    /// The connections that give way to new ones, the best choice first: those that never sent a valid batch, then those
    /// of the peers with the most connections, then those that are silent for the longest time.
    pub(super) fn dispensable(&self) -> Vec<u64> {
        let mut ranked: Vec<_> = self
            .iter()
            .map(|(id, connection)| {
                let owned = self.owned(connection.sender.peer());
                (Reverse((!connection.sender.is_valid(), owned)), connection.active, id)
            })
            .collect();
        if ranked.len() > MAX_VICTIMS {
            ranked.select_nth_unstable(MAX_VICTIMS - 1);
            ranked.truncate(MAX_VICTIMS);
        }
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, _, id)| id).collect()
    }

    /// Whether a connection gives way to a new one of this peer. One that sent a valid batch does only if its peer has
    /// clearly more.
    pub(super) fn gives_way(&self, id: u64, newcomer: Peer) -> bool {
        self.connections.get(&id).is_some_and(|connection| {
            !connection.sender.is_valid() || self.owned(connection.sender.peer()) > self.owned(newcomer) + 1
        })
    }

    /// Whether a connection has sent a valid batch.
    pub(super) fn is_valid(&self, id: u64) -> bool {
        self.connections.get(&id).is_some_and(|connection| connection.sender.is_valid())
    }

    fn owned(&self, peer: Peer) -> usize {
        self.owned.get(&peer).copied().unwrap_or_default()
    }
}
