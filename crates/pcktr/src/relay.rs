//! The relay's side of a capture: from the settings.

use relay::{OverflowPolicy, PushConfig};

use crate::settings::RelaySettings;

/// Batches of a file that wait to be sent. A file is read faster than it is sent: more would only leave the processor's
/// cache.
const READ_AHEAD_BATCHES: usize = 8;

/// The relay's configuration. A file waits for room, a device does not.
pub(crate) fn config(settings: &RelaySettings, waits: bool) -> PushConfig {
    let read_ahead = READ_AHEAD_BATCHES * settings.batch.bytes;
    PushConfig {
        endpoint: settings.endpoint.clone(),
        buffer_bytes: if waits { settings.buffer.min(read_ahead) } else { settings.buffer },
        batch_bytes: settings.batch.bytes,
        compression: settings.compression,
        overflow: if waits { OverflowPolicy::Block } else { OverflowPolicy::DropOldest },
    }
}
