//! What is counted and measured of one directed stream.

use packet::Timestamp;

use super::health::{self, Signs};
use super::moments::Moments;
use super::segment::Segment;
use super::verdict::{Event, Verdict};

/// How often a bitrate is measured: when a segment comes at least this many nanoseconds after the last
/// time.
const BITRATE_EVERY: i64 = 1_000_000_000;

/// Longer gaps between segments, in nanoseconds, are pauses of the application, not properties of the stream.
const LONGEST_GAP: i64 = 10_000_000_000;

const NANOS_PER_SEC: f64 = 1e9;

/// A directed stream.
///
/// What each segment changes lies together, and so does what its acknowledgment changes: a cache line is what memory gives at
/// once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stats {
    sent: Sent,
    delays: Delays,
    rest: Rest,
}

/// What each segment changes.
#[derive(Clone, Copy, Debug)]
struct Sent {
    segments: u64,
    /// Bytes of data, those sent again included.
    bytes: u64,
    /// The sum of the squares of the segments' bytes.
    squares: f64,
    last_at: Timestamp,
    /// Nanoseconds between segments.
    gaps: Moments,
    /// When the last bitrate was measured, and how many bytes came since.
    measured_at: Timestamp,
    bytes_since: u64,
    /// Nanoseconds; 0 where the handshake was not seen.
    initial_rtt: u64,
    /// The bitrate measured last.
    bitrate: f32,
    /// Segments with data.
    data_segments: u32,
    /// The window of the last segment in bytes.
    window: u32,
    state: State,
    /// Whether there was a FIN.
    finished: bool,
}

/// What an acknowledgment of the other side changes. In nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Delays {
    moments: Moments,
    /// The shortest and the longest one.
    range: (i64, i64),
}

/// What changes now and then.
#[derive(Clone, Copy, Debug)]
struct Rest {
    first_at: Timestamp,
    /// When its last FIN came, or, as long as there was none, its last RST.
    ended_at: Timestamp,
    /// Bits per second.
    bitrates: Moments,
    events: [u32; Event::PER_STREAM],
}

/// How far a directed stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Neither FIN nor RST.
    Active,
    /// Its sender has sent FIN.
    Finalized,
    /// Its sender has sent RST.
    Reset,
}

impl State {
    /// As it stands in the label `state`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Finalized => "finalized",
            Self::Reset => "reset",
        }
    }
}

impl Stats {
    /// Of a stream whose first segment comes just now.
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            sent: Sent {
                segments: 0,
                bytes: 0,
                squares: 0.0,
                last_at: now,
                gaps: Moments::default(),
                measured_at: now,
                bytes_since: 0,
                initial_rtt: 0,
                bitrate: 0.0,
                data_segments: 0,
                window: 0,
                state: State::Active,
                finished: false,
            },
            delays: Delays { moments: Moments::default(), range: (i64::MAX, i64::MIN) },
            rest: Rest {
                first_at: now,
                ended_at: Timestamp::ZERO,
                bitrates: Moments::default(),
                events: [0; Event::PER_STREAM],
            },
        }
    }

    /// Bytes of data, those sent again included.
    pub(super) const fn bytes(&self) -> u64 {
        self.sent.bytes
    }

    /// The window of the last segment in bytes.
    pub(super) const fn window(&self) -> u32 {
        self.sent.window
    }

    /// How far it has come.
    #[inline]
    pub(super) const fn state(&self) -> State {
        self.sent.state
    }

    /// Counts a segment, which offers `window` bytes.
    #[inline]
    pub(super) fn count(&mut self, segment: &Segment, verdict: &Verdict, window: u32) {
        let len = u64::from(segment.len);
        if self.sent.segments > 0 {
            let gap = segment.time.nanos_since(self.sent.last_at).max(0);
            if gap < LONGEST_GAP {
                self.sent.gaps.add(gap as f64);
            }
        }
        self.sent.segments += 1;
        self.sent.bytes += len;
        self.sent.last_at = segment.time;
        self.sent.window = window;
        if len > 0 {
            self.sent.data_segments = self.sent.data_segments.saturating_add(1);
            self.sent.squares += (len as f64) * (len as f64);
        }
        self.measure_bitrate(segment.time, len);
        for event in verdict.events.indices() {
            if let Some(count) = self.rest.events.get_mut(event) {
                *count = count.saturating_add(1);
            }
        }
        self.sent.finished |= segment.fin();
        if segment.fin() || (segment.rst() && !self.sent.finished) {
            self.rest.ended_at = segment.time;
        }
        if segment.fin() && self.sent.state == State::Active {
            self.sent.state = State::Finalized;
        }
        if segment.rst() {
            self.sent.state = State::Reset;
        }
    }

    /// The first segment from the measuring time on closes the measurement, and is part of the next one.
    #[inline]
    fn measure_bitrate(&mut self, now: Timestamp, len: u64) {
        let elapsed = now.nanos_since(self.sent.measured_at);
        if elapsed >= BITRATE_EVERY {
            let bitrate = self.sent.bytes_since as f64 * 8.0 / seconds(elapsed);
            self.sent.bitrate = bitrate as f32;
            self.rest.bitrates.add(bitrate);
            self.sent.measured_at = now;
            self.sent.bytes_since = 0;
        }
        self.sent.bytes_since += len;
    }

    /// A segment of this stream was acknowledged so many nanoseconds after it was sent.
    #[inline]
    pub(super) fn delayed(&mut self, nanos: i64) {
        self.delays.moments.add(nanos as f64);
        let (shortest, longest) = self.delays.range;
        self.delays.range = (shortest.min(nanos), longest.max(nanos));
    }

    /// What the handshake took; the first one counts, where ports were used again.
    #[inline]
    pub(super) fn learn_initial_rtt(&mut self, nanos: u64) {
        if self.sent.initial_rtt == 0 {
            self.sent.initial_rtt = nanos;
        }
    }

    /// How often an event was seen.
    pub(super) fn events(&self, event: Event) -> u32 {
        self.rest.events.get(event as usize).copied().unwrap_or(0)
    }

    /// Seconds from the first segment to the end, or until now where there is none.
    pub(super) fn uptime(&self, now: Timestamp) -> f64 {
        let end =
            if self.sent.state == State::Active { now.max(self.sent.last_at) } else { self.rest.ended_at };
        end.since(self.rest.first_at).as_secs_f64()
    }

    /// Segments per second of uptime.
    pub(super) fn segment_rate(&self, now: Timestamp) -> f64 {
        let uptime = self.uptime(now);
        if uptime > 0.0 { self.sent.segments as f64 / uptime } else { 0.0 }
    }

    /// The bitrate measured last, in bits per second; 0 in the first second.
    pub(super) fn bitrate(&self) -> f64 {
        f64::from(self.sent.bitrate)
    }

    /// The coefficient of variation of the bitrates.
    pub(super) fn bitrate_variation(&self) -> f64 {
        self.rest.bitrates.variation()
    }

    /// The coefficient of variation of the sizes of segments with data.
    pub(super) fn size_variation(&self) -> f64 {
        if self.sent.bytes == 0 {
            return 0.0;
        }
        let (count, mean) =
            (f64::from(self.sent.data_segments), self.sent.bytes as f64 / f64::from(self.sent.data_segments));
        (self.sent.squares / count - mean * mean).max(0.0).sqrt() / mean
    }

    /// The standard deviation of the seconds between segments.
    pub(super) fn gap_deviation(&self) -> f64 {
        self.sent.gaps.deviation() / NANOS_PER_SEC
    }

    /// Mean, shortest, longest delay and their standard deviation in seconds, where a delay was measured.
    pub(super) fn delay(&self) -> Option<Delay> {
        let (shortest, longest) = self.delays.range;
        (self.delays.moments.count() > 0).then(|| Delay {
            mean: self.delays.moments.mean() / NANOS_PER_SEC,
            shortest: seconds(shortest),
            longest: seconds(longest),
            deviation: self.delays.moments.deviation() / NANOS_PER_SEC,
        })
    }

    /// What the handshake took in seconds, where it was seen.
    pub(super) fn initial_rtt(&self) -> Option<f64> {
        (self.sent.initial_rtt > 0).then(|| self.sent.initial_rtt as f64 / NANOS_PER_SEC)
    }

    /// The health score.
    pub(super) fn health(&self) -> f64 {
        health::score(&Signs {
            retransmissions: self.events(Event::Retransmission),
            resets: self.events(Event::Reset),
            out_of_order: self.events(Event::OutOfOrder),
            duplicate_acks: self.events(Event::DuplicateAck),
            zero_windows: self.events(Event::ZeroWindow),
            gaps: self.events(Event::Gap),
            bitrates: (self.rest.bitrates.count(), self.rest.bitrates.variation()),
            delays: (self.delays.moments.count(), self.delays.moments.deviation() / NANOS_PER_SEC),
        })
    }
}

/// Delays in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Delay {
    pub(super) mean: f64,
    pub(super) shortest: f64,
    pub(super) longest: f64,
    pub(super) deviation: f64,
}

#[inline]
fn seconds(nanos: i64) -> f64 {
    nanos as f64 / NANOS_PER_SEC
}
