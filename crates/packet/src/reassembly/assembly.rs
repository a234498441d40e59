//! The pieces of one datagram.

use std::net::IpAddr;

use super::Fragment;

/// More than a datagram of 64 KiB has if its fragments for an MTU of 576 arrive in the worst order.
const MAX_PIECES: usize = 128;

/// The received pieces of a datagram's payload.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    /// The bytes in the order of arrival.
    bytes: Vec<u8>,
    /// Their positions, sorted by offset, without overlaps. Fragments that arrive in order make one piece.
    pieces: Vec<Piece>,
    /// Length of the payload, known once the last fragment has arrived.
    total: Option<u32>,
    /// The highest end of all fragments.
    extent: u32,
    /// Number of bytes received.
    received: u32,
}

/// A contiguous part of the payload.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Offset in the payload.
    offset: u32,
    len: u32,
    /// Offset in [`Assembly::bytes`].
    at: usize,
}

impl Piece {
    const fn end(&self) -> u32 {
        self.offset + self.len
    }
}

/// The result of adding a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// The datagram is complete.
    Complete,
    /// More fragments are needed.
    More,
    /// The fragment contradicts others about the datagram's end. It was not added.
    Malformed,
    /// It overlaps others, so the datagram must be discarded.
    Overlap,
    /// The datagram has too many pieces. The fragment was not added.
    TooManyPieces,
}

impl Assembly {
    /// Adds a fragment for which [`Fragment::is_possible`] holds.
    ///
    /// If IPv4 fragments overlap, the bytes that arrived first are kept, as most hosts do. IPv6 forbids overlaps, except
    /// for exact duplicates (RFC 8200, section 4.5).
    pub(super) fn add(&mut self, fragment: &Fragment<'_>) -> Added {
        let Some(end) = fragment.end() else { return Added::Malformed };
        let past_the_end = self.total.is_some_and(|total| end > total || (!fragment.more && end != total));
        if past_the_end || (!fragment.more && self.extent > end) {
            return Added::Malformed;
        }
        // Bytes cut off by a snaplen do not count as received, so such a datagram is never complete.
        let captured = u32::try_from(fragment.bytes.len()).unwrap_or(fragment.len).min(fragment.len);
        let (from, to) = (fragment.offset, fragment.offset + captured);
        let overlaps = self.pieces.iter().any(|piece| piece.offset < to && from < piece.end());
        if overlaps && matches!(fragment.key.src, IpAddr::V6(_)) {
            return if self.repeats(from, fragment.bytes) { Added::More } else { Added::Overlap };
        }
        if self.pieces.len() >= MAX_PIECES {
            return Added::TooManyPieces;
        }
        self.extent = self.extent.max(end);
        if !fragment.more {
            self.total = Some(end);
        }
        self.fill(from, to, fragment.bytes);
        if self.total == Some(self.received) { Added::Complete } else { Added::More }
    }

    /// The payload up to its end or to its first missing byte. Uses `joined` as buffer if the pieces did not arrive in
    /// order.
    pub(super) fn head<'a>(&'a self, joined: &'a mut Vec<u8>) -> &'a [u8] {
        let mut end = 0;
        let is_adjacent = |piece: &&Piece| {
            let is_adjacent = piece.offset == end;
            end = piece.end();
            is_adjacent
        };
        let adjacent = self.pieces.iter().take_while(is_adjacent).count();
        let bytes =
            |piece: &Piece| self.bytes.get(piece.at..piece.at + piece.len as usize).unwrap_or_default();
        match self.pieces.get(..adjacent).unwrap_or_default() {
            [] => &[],
            [one] => bytes(one),
            several => {
                joined.clear();
                several.iter().for_each(|piece| joined.extend_from_slice(bytes(piece)));
                joined
            }
        }
    }

    /// Heap memory in bytes.
    pub(super) const fn footprint(&self) -> usize {
        self.bytes.capacity() + self.pieces.capacity() * size_of::<Piece>()
    }

    /// Whether `bytes`, at offset `from`, are all received already.
    fn repeats(&self, from: u32, bytes: &[u8]) -> bool {
        let piece = self.pieces.iter().rfind(|piece| piece.offset <= from);
        piece.is_some_and(|piece| {
            let at = piece.at + (from - piece.offset) as usize;
            let end = piece.at + piece.len as usize;
            at + bytes.len() <= end && self.bytes.get(at..at + bytes.len()) == Some(bytes)
        })
    }

    /// Adds those of `bytes`, at offsets `from` up to `to`, that have not been received yet.
    fn fill(&mut self, mut from: u32, to: u32, bytes: &[u8]) {
        let offset = from;
        while from < to {
            let next = self.pieces.partition_point(|piece| piece.end() <= from);
            let neighbour = self.pieces.get(next).filter(|piece| piece.offset < to);
            match neighbour {
                Some(piece) if piece.offset <= from => from = piece.end(),
                _ => {
                    let gap_end = neighbour.map_or(to, |piece| piece.offset);
                    let gap = bytes.get((from - offset) as usize..(gap_end - offset) as usize);
                    self.insert(next, from, gap.unwrap_or_default());
                    from = gap_end;
                }
            }
        }
    }

    /// Inserts `bytes`, at `offset`, before the piece with the index `next`.
    fn insert(&mut self, next: usize, offset: u32, bytes: &[u8]) {
        let (at, len) = (self.bytes.len(), bytes.len() as u32);
        self.bytes.extend_from_slice(bytes);
        self.received += len;
        let previous = next.checked_sub(1).and_then(|previous| self.pieces.get_mut(previous));
        match previous {
            Some(previous) if previous.end() == offset && previous.at + previous.len as usize == at => {
                previous.len += len;
            }
            _ => self.pieces.insert(next, Piece { offset, len, at }),
        }
    }
}
