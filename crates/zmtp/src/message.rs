//! A received message.

/// A message: one part, in the memory that it was received into.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Message {
    buf: Vec<u8>,
    /// Where the message begins; before it are the bytes of its encryption.
    start: usize,
}

impl Message {
    pub(crate) fn new(buf: Vec<u8>, start: usize) -> Self {
        Self { buf, start }
    }

    /// Bytes of memory that the message uses.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.buf.capacity()
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self.buf.get(self.start..).unwrap_or_default()
    }
}
