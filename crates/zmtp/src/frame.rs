//! Frames: a byte of flags, a length, and a body (RFC 37, "Framing").

use crate::Error;

/// More frames of the same message follow.
const MORE: u8 = 1;
/// The length has eight bytes instead of one.
const LONG: u8 = 2;
/// The frame is a command.
const COMMAND: u8 = 4;

/// The longest header in bytes: flags and a length of eight bytes.
const MAX_HEADER: usize = 9;

/// Memory for the first bytes of a body, if the peer has not sent a longer one before.
const FIRST_CHUNK: usize = 16 << 10;

/// A body up to this length gets its memory at once if the peer has completed one of that length before, so that it is not
/// copied as it grows. Batches of the default size are shorter.
const MAX_FIRST_CHUNK: usize = 512 << 10;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) command: bool,
    pub(crate) len: usize,
}

impl FrameHeader {
    /// Appends the header.
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        let command = if self.command { COMMAND } else { 0 };
        match u8::try_from(self.len) {
            Ok(len) => out.extend([command, len]),
            Err(_) => {
                out.push(command | LONG);
                out.extend((self.len as u64).to_be_bytes());
            }
        }
    }
}

/// A complete frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) command: bool,
    pub(crate) body: Vec<u8>,
}

/// Splits a peer's bytes into frames.
#[derive(Debug)]
pub(crate) struct FrameDecoder {
    header: [u8; MAX_HEADER],
    header_len: usize,
    body: Option<PartialBody>,
    /// The longest body that the peer has completed, up to [`MAX_FIRST_CHUNK`].
    longest: usize,
    /// Whether memory is short: then nothing is allocated in advance.
    frugal: bool,
}

/// The body of a frame, as far as it has arrived.
#[derive(Debug)]
struct PartialBody {
    command: bool,
    /// Of the complete body.
    len: usize,
    received: Vec<u8>,
    /// What the peer has proven to send.
    first_chunk: usize,
}

impl PartialBody {
    /// Makes room for more bytes: memory at least triples, but grows only when the peer has filled what there was.
    fn grow(&mut self) {
        let missing = self.len.saturating_sub(self.received.len());
        if missing > 0 && self.received.len() == self.received.capacity() {
            let chunk = self.first_chunk.max(self.received.len() * 2);
            self.received.reserve_exact(missing.min(chunk));
        }
    }

    fn append(&mut self, input: &mut &[u8]) {
        while self.received.len() < self.len && !input.is_empty() {
            self.grow();
            let room = self.received.capacity() - self.received.len();
            let wanted = room.min(self.len - self.received.len()).min(input.len());
            let (taken, rest) = input.split_at(wanted);
            self.received.extend_from_slice(taken);
            *input = rest;
        }
    }
}

impl FrameDecoder {
    pub(crate) fn new() -> Self {
        Self { header: [0; MAX_HEADER], header_len: 0, body: None, longest: 0, frugal: false }
    }

    /// Takes bytes from the front of `input` up to the end of a frame. `limit`: of a body, in bytes.
    ///
    /// # Errors
    /// The frame is invalid, too long, or part of a message of several frames.
    pub(crate) fn decode(&mut self, input: &mut &[u8], limit: usize) -> Result<Option<Frame>, Error> {
        if self.body.is_none() {
            let Some(body) = self.decode_header(input, limit)? else { return Ok(None) };
            self.body = Some(body);
        }
        let Some(body) = &mut self.body else { return Ok(None) };
        body.append(input);
        if body.received.len() < body.len {
            return Ok(None);
        }
        let complete = self.body.take();
        Ok(complete.map(|body| {
            self.longest = self.longest.max(body.len.min(MAX_FIRST_CHUNK));
            Frame { command: body.command, body: body.received }
        }))
    }

    fn decode_header(&mut self, input: &mut &[u8], limit: usize) -> Result<Option<PartialBody>, Error> {
        while let Some((byte, rest)) = input.split_first() {
            *input = rest;
            self.header[self.header_len] = *byte;
            self.header_len += 1;
            let flags = self.header[0];
            if flags & !(MORE | LONG | COMMAND) != 0 || flags & (MORE | COMMAND) == MORE | COMMAND {
                return Err(Error::Frame);
            }
            if flags & MORE != 0 {
                return Err(Error::Multipart);
            }
            let length = match self.header {
                [_, length, ..] if flags & LONG == 0 && self.header_len == 2 => length.into(),
                [_, ref length @ ..] if self.header_len == MAX_HEADER => u64::from_be_bytes(*length),
                _ => continue,
            };
            self.header_len = 0;
            let len = usize::try_from(length).ok().filter(|len| *len <= limit);
            let len = len.ok_or(Error::TooLong { length, limit })?;
            let first_chunk = if self.frugal { FIRST_CHUNK } else { self.longest.max(FIRST_CHUNK) };
            return Ok(Some(PartialBody {
                command: flags & COMMAND != 0,
                len,
                received: Vec::with_capacity(len.min(first_chunk)),
                first_chunk,
            }));
        }
        Ok(None)
    }

    /// Whether bodies that begin from now on get their memory only as they arrive.
    pub(crate) fn set_frugal(&mut self, frugal: bool) {
        self.frugal = frugal;
    }

    /// The body of an unfinished frame, to read the peer's next bytes into its spare capacity, which does not exceed what
    /// is missing. [`FrameDecoder::decode`] without input takes the frame if that completed it.
    pub(crate) fn unfinished(&mut self) -> Option<&mut Vec<u8>> {
        let body = self.body.as_mut()?;
        body.grow();
        // `reserve_exact` may return more memory than it was asked for.
        (body.received.capacity() <= body.len).then_some(&mut body.received)
    }

    /// Whether a frame has begun and not ended.
    pub(crate) fn is_within_frame(&self) -> bool {
        self.header_len > 0 || self.body.is_some()
    }

    /// Bytes of memory that the unfinished frame uses.
    pub(crate) fn memory(&self) -> usize {
        self.body.as_ref().map_or(0, |body| body.received.capacity())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1 << 20;

    fn encode(command: bool, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        FrameHeader { command, len: body.len() }.encode(&mut bytes);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn invalid_headers_are_refused_before_anything_is_allocated() {
        let check = |bytes: &[u8], expected: Error| {
            let mut decoder = FrameDecoder::new();
            assert_eq!(decoder.decode(&mut &*bytes, LIMIT), Err(expected));
            assert_eq!(decoder.memory(), 0);
        };
        check(&[8], Error::Frame);
        check(&[5], Error::Frame);
        check(&[1], Error::Multipart);
        check(&[2, 0, 0, 0, 0, 0, 0x10, 0, 1], Error::TooLong { length: 0x10_0001, limit: LIMIT });
        check(
            &[2, 255, 255, 255, 255, 255, 255, 255, 255],
            Error::TooLong { length: u64::MAX, limit: LIMIT },
        );
    }

    #[test]
    fn memory_follows_the_bytes_that_arrived() {
        let mut decoder = FrameDecoder::new();
        let body = vec![7; LIMIT];
        let bytes = encode(false, &body);
        let mut input = &bytes[..9];
        assert_eq!(decoder.decode(&mut input, LIMIT), Ok(None));
        assert_eq!(decoder.memory(), FIRST_CHUNK);
        for chunk in bytes[9..bytes.len() - 1].chunks(1000) {
            assert_eq!(decoder.decode(&mut &*chunk, LIMIT), Ok(None));
        }
        assert_eq!(decoder.memory(), LIMIT);
        let frame = decoder.decode(&mut [7].as_slice(), LIMIT).unwrap().unwrap();
        assert_eq!((frame.body.len(), frame.body.capacity()), (LIMIT, LIMIT));
        assert_eq!(decoder.memory(), 0);
        // Having sent one, the peer gets more memory at once.
        assert_eq!(decoder.decode(&mut &bytes[..9], LIMIT), Ok(None));
        assert_eq!(decoder.memory(), MAX_FIRST_CHUNK);
    }

    proptest! {
        #[test]
        fn frames_arrive_as_they_were_sent(
            frames in prop::collection::vec((any::<bool>(), 0_usize..70_000), 0..5),
            cuts in prop::collection::vec(1_usize..40_000, 1..5),
            direct in any::<bool>(),
        ) {
            let sent: Vec<_> = frames.iter().map(|(command, len)| Frame { command: *command, body: vec![3; *len] }).collect();
            let bytes: Vec<u8> = sent.iter().flat_map(|frame| encode(frame.command, &frame.body)).collect();
            let (mut decoder, mut received) = (FrameDecoder::new(), Vec::new());
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                let mut input = now;
                if direct && let Some(body) = decoder.unfinished() {
                    // As a read into the body's memory does.
                    let (read, after) = now.split_at(now.len().min(body.capacity() - body.len()));
                    body.extend_from_slice(read);
                    received.extend(decoder.decode(&mut [].as_slice(), LIMIT).unwrap());
                    input = after;
                }
                while let Some(frame) = decoder.decode(&mut input, LIMIT).unwrap() {
                    received.push(frame);
                }
                prop_assert!(input.is_empty());
                rest = later;
            }
            prop_assert_eq!(received, sent);
            prop_assert!(!decoder.is_within_frame());
        }
    }
}
