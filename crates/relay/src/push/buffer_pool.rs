//! The memory of batches that have been sent, for later ones.

use parking_lot::Mutex;

/// Buffers that are kept for later batches. A few are enough: one is filled while others are sent. The many buffers
/// of a burst go back to the system.
const MAX_FREE_BUFFERS: usize = 8;

/// The memory of batches that have been sent.
#[derive(Debug)]
pub(super) struct BufferPool {
    free: Mutex<Vec<Vec<u8>>>,
    /// Smaller buffers are not worth keeping, in bytes.
    min_capacity: usize,
}

impl BufferPool {
    pub(super) fn new(batch_bytes: usize) -> Self {
        Self { free: Mutex::default(), min_capacity: batch_bytes / 2 }
    }

    /// An empty buffer, with the memory of an earlier batch if there is one.
    pub(super) fn take(&self) -> Vec<u8> {
        self.free.lock().pop().unwrap_or_default()
    }

    /// Returns the memory of a batch.
    pub(super) fn give(&self, mut buf: Vec<u8>) {
        if buf.capacity() < self.min_capacity {
            return;
        }
        buf.clear();
        let mut free = self.free.lock();
        if free.len() < MAX_FREE_BUFFERS {
            free.push(buf);
        }
    }
}
