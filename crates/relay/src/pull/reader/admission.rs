//! Which keys are admitted.

use std::sync::Arc;

use zmtp::PublicKey;

use super::super::connection::Failure;
use super::super::rejections::RejectReason;
use super::{End, Reader};
use crate::Peer;
use crate::authorized_keys::Reload;
use crate::refusal::{UNAUTHORIZED_NAME, UNKNOWN_KEY};

/// Characters of a name in the log.
const MAX_LOGGED_NAME: usize = 255;

impl Reader {
    /// Admits the owner of a key, or refuses it.
    pub(super) fn authenticate(&mut self, id: u64, key: PublicKey, source: Option<&str>) -> Result<(), End> {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let names = self.security.as_ref().and_then(|security| security.authorized.keys().names(&key));
        let Some(names) = names else {
            connection.refuse(UNKNOWN_KEY);
            let why = format!("has the key {key}, which is not in AUTHORIZED_KEYS");
            return Err(End::Failed(Failure::Peer(RejectReason::UnknownKey, why)));
        };
        if let Some(source) = source.filter(|source| !names.allow(source)) {
            connection.refuse(UNAUTHORIZED_NAME);
            let source: String = source.chars().take(MAX_LOGGED_NAME).collect();
            let why = format!("has the key {key}, which may not use the SOURCE_NAME {source:?}");
            return Err(End::Failed(Failure::Peer(RejectReason::UnauthorizedName, why)));
        }
        let names = Arc::clone(names);
        self.connections.update(id, |connection| {
            connection.sender.set_admitted(key, names);
            connection.accept();
        });
        self.set_ready(id)
    }

    /// Reads `AUTHORIZED_KEYS` again if it has changed, and ends the connections of removed keys.
    pub(super) fn reload_keys(&mut self) {
        let Some(security) = &mut self.security else { return };
        match security.authorized.reload() {
            Reload::Unchanged => return,
            Reload::Failed(error) => {
                tracing::error!("{error}; the keys read before stay in force");
                return;
            }
            Reload::Changed if security.authorized.keys().is_empty() => {
                tracing::warn!("AUTHORIZED_KEYS lists no keys: no capture is admitted until it does");
            }
            Reload::Changed => {
                tracing::info!(keys = security.authorized.keys().len(), "AUTHORIZED_KEYS read again");
            }
        }
        let mut removed = Vec::new();
        for (id, connection) in self.connections.iter() {
            let Peer::Key(key) = connection.sender.peer() else { continue };
            match security.authorized.keys().names(&key) {
                Some(names) => connection.sender.set_admitted(key, Arc::clone(names)),
                None => removed.push(id),
            }
        }
        for id in removed {
            let why = "has a key that was removed from AUTHORIZED_KEYS".to_owned();
            self.close(id, End::Failed(Failure::Peer(RejectReason::RemovedKey, why)));
        }
    }
}
