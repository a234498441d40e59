//! The connections of a collector, and who gives way when there are too many, or their messages use too much memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Instant;

use zmtp::PublicKey;

use super::connection::Connection;
use super::listener::PeerAddress;

/// Memory for unfinished messages of all connections, in bytes. Above it, the peer that uses the most loses one.
pub(super) const MAX_UNFINISHED: usize = 64 << 20;

/// All connections, by their number.
#[derive(Debug, Default)]
pub(super) struct ConnectionTable {
    connections: HashMap<u64, Connection>,
    /// Bytes of memory of unfinished messages.
    unfinished: usize,
}

/// Whom connections belong to: an admitted key, or else an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Owner {
    Key(PublicKey),
    Address(PeerAddress),
}

impl Owner {
    fn of(connection: &Connection) -> Self {
        connection.key.map_or(Self::Address(connection.sender.peer()), Self::Key)
    }
}

impl ConnectionTable {
    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.get_mut(&id)
    }

    pub(super) fn insert(&mut self, id: u64, connection: Connection) {
        self.connections.insert(id, connection);
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Connection> {
        let removed = self.connections.remove(&id)?;
        self.unfinished -= removed.memory();
        Some(removed)
    }

    /// Calls `change` for a connection, and accounts for its memory.
    pub(super) fn update<T>(&mut self, id: u64, change: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        let connection = self.connections.get_mut(&id)?;
        self.unfinished -= connection.memory();
        let result = change(connection);
        self.unfinished += connection.memory();
        Some(result)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Connection)> {
        self.connections.iter().map(|(id, connection)| (*id, connection))
    }

    /// Bytes of memory of unfinished messages.
    pub(super) fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// The connection that gives way when unfinished messages use too much memory: of the peer that uses the most, the
    /// one that uses the most.
    pub(super) fn largest(&self) -> Option<u64> {
        let mut used: HashMap<Owner, usize> = HashMap::new();
        for connection in self.connections.values() {
            *used.entry(Owner::of(connection)).or_default() += connection.memory();
        }
        let rank = |connection: &Connection| {
            let owner = Owner::of(connection);
            (used.get(&owner).copied().unwrap_or_default(), connection.memory())
        };
        let using = self.iter().filter(|(_, connection)| connection.memory() > 0);
        using.max_by_key(|(id, connection)| (rank(connection), *id)).map(|(id, _)| id)
    }

    /// The connection that gives way to a new one from `newcomer`: of the peer with the most connections the one that is
    /// silent for the longest time, preferably one that never sent a valid batch. None if no peer has clearly more than
    /// the newcomer would have.
    pub(super) fn dispensable(&self, newcomer: PeerAddress) -> Option<u64> {
        let mut owned: HashMap<Owner, usize> = HashMap::new();
        for connection in self.connections.values() {
            match owned.entry(Owner::of(connection)) {
                Entry::Occupied(mut count) => *count.get_mut() += 1,
                Entry::Vacant(first) => _ = first.insert(1),
            }
        }
        let of_newcomer = owned.get(&Owner::Address(newcomer)).copied().unwrap_or_default();
        let may_go = |connection: &Connection| {
            // An idle connection that proved nothing goes in any case.
            !connection.sender.is_valid()
                || owned.get(&Owner::of(connection)).is_some_and(|count| *count > of_newcomer + 1)
        };
        let rank = |connection: &Connection| {
            let count = owned.get(&Owner::of(connection)).copied().unwrap_or_default();
            (!connection.sender.is_valid(), count, std::cmp::Reverse(connection.active))
        };
        let candidates = self.iter().filter(|(_, connection)| may_go(connection));
        candidates.max_by_key(|(id, connection)| (rank(connection), std::cmp::Reverse(*id))).map(|(id, _)| id)
    }

    /// Excludes a pause, in which nothing was read, from all times of silence.
    pub(super) fn exclude_pause(&mut self, now: Instant) {
        for connection in self.connections.values_mut().filter(|connection| connection.is_ready()) {
            connection.active = now;
        }
    }
}
