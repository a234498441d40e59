//! The parts of one datagram.

use std::net::IpAddr;

use super::Fragment;

/// More than the gaps of a datagram of 64 KiB whose fragments for an MTU of 576 come in the worst order.
const MAX_PIECES: usize = 128;

/// What has come of a datagram.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    /// Bytes in the order of their arrival.
    bytes: Vec<u8>,
    /// Where they belong, by offset; none overlaps another. Fragments that come in order are one piece.
    pieces: Vec<Piece>,
    /// The length of the payload, once its last fragment has come.
    total: Option<u32>,
    /// The end of the part that ends last.
    extent: u32,
    /// Bytes that have come.
    received: u32,
}

/// A run of bytes of the payload.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Where it begins in the payload.
    offset: u32,
    len: u32,
    /// Where it begins in the bytes that have come.
    at: usize,
}

impl Piece {
    const fn end(&self) -> u32 {
        self.offset + self.len
    }
}

/// What came of adding a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// The datagram is whole.
    Complete,
    /// It is not whole yet.
    More,
    /// The fragment does not fit the others' word on where the datagram ends. It was not added.
    Malformed,
    /// It overlaps others, which rules the datagram out.
    Overlap,
    /// It would leave too many gaps.
    Scattered,
}

impl Assembly {
    /// Adds a fragment that [is possible](Fragment::is_possible).
    ///
    /// Where IPv4's overlap, what came first stays: most hosts do so, and whoever wants to hide data by overlaps needs an
    /// observer that does otherwise. IPv6 forbids them: only a repeated fragment is no overlap (RFC 8200, section 4.5).
    pub(super) fn add(&mut self, fragment: &Fragment<'_>) -> Added {
        let Some(end) = fragment.end() else { return Added::Malformed };
        let past_the_end = self.total.is_some_and(|total| end > total || (!fragment.more && end != total));
        if past_the_end || (!fragment.more && self.extent > end) {
            return Added::Malformed;
        }
        // What a snaplen cut off is missing, so it is not counted as received, and the datagram never gets complete.
        let captured = u32::try_from(fragment.bytes.len()).unwrap_or(fragment.len).min(fragment.len);
        let (from, to) = (fragment.offset, fragment.offset + captured);
        let overlaps = self.pieces.iter().any(|piece| piece.offset < to && from < piece.end());
        if overlaps && matches!(fragment.key.src, IpAddr::V6(_)) {
            return if self.repeats(from, fragment.bytes) { Added::More } else { Added::Overlap };
        }
        if self.pieces.len() >= MAX_PIECES {
            return Added::Scattered;
        }
        self.extent = self.extent.max(end);
        if !fragment.more {
            self.total = Some(end);
        }
        self.fill(from, to, fragment.bytes);
        if self.total == Some(self.received) { Added::Complete } else { Added::More }
    }

    /// The payload up to its end, or to the first byte that is missing. `row` is where it is put together if it did not
    /// come in order.
    pub(super) fn head<'a>(&'a self, row: &'a mut Vec<u8>) -> &'a [u8] {
        let mut end = 0;
        let joins = |piece: &&Piece| {
            let joins = piece.offset == end;
            end = piece.end();
            joins
        };
        let joined = self.pieces.iter().take_while(joins).count();
        let bytes =
            |piece: &Piece| self.bytes.get(piece.at..piece.at + piece.len as usize).unwrap_or_default();
        match self.pieces.get(..joined).unwrap_or_default() {
            [] => &[],
            [one] => bytes(one),
            several => {
                row.clear();
                several.iter().for_each(|piece| row.extend_from_slice(bytes(piece)));
                row
            }
        }
    }

    /// Bytes of memory behind this.
    pub(super) const fn footprint(&self) -> usize {
        self.bytes.capacity() + self.pieces.capacity() * size_of::<Piece>()
    }

    /// Whether all of `bytes`, which begin at `from`, have come before.
    fn repeats(&self, from: u32, bytes: &[u8]) -> bool {
        let piece = self.pieces.iter().rfind(|piece| piece.offset <= from);
        piece.is_some_and(|piece| {
            let at = piece.at + (from - piece.offset) as usize;
            let end = piece.at + piece.len as usize;
            at + bytes.len() <= end && self.bytes.get(at..at + bytes.len()) == Some(bytes)
        })
    }

    /// Adds those of `bytes`, which belong `from` one offset `to` another, that have not come yet.
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

    /// Puts `bytes` between the pieces before `next` and those from there on.
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
