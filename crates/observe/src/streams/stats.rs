//! What is counted and measured of one directed stream.

use std::time::Duration;

use packet::Timestamp;

use super::health::{self, Signs};
use super::moments::Moments;
use super::segment::Segment;
use super::verdict::{Event, Verdict};

/// How often a bitrate is measured: when a segment comes at least this long after the last time.
const BITRATE_EVERY: Duration = Duration::from_secs(1);

/// Longer gaps between segments are pauses of the application, not properties of the stream.
const LONGEST_GAP: Duration = Duration::from_secs(10);

/// A directed stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stats {
    pub(super) segments: u64,
    /// Bytes of data, those sent again included.
    pub(super) bytes: u64,
    /// The sum of the squares of the segments' bytes.
    squares: f64,
    first_at: Timestamp,
    last_at: Timestamp,
    /// When its last FIN came, or, as long as there was none, its last RST.
    ended_at: Timestamp,
    delays: Moments,
    /// The shortest and the longest delay in nanoseconds.
    delay_range: (i64, i64),
    /// Seconds between segments.
    gaps: Moments,
    /// Bits per second.
    bitrates: Moments,
    bitrate: f32,
    /// Segments with data.
    data_segments: u32,
    /// When the last bitrate was measured, and how many bytes came since.
    measured_at: Timestamp,
    bytes_since: u64,
    /// Nanoseconds; 0 where the handshake was not seen.
    initial_rtt: u64,
    events: [u32; Event::PER_STREAM],
    /// The window of the last segment in bytes.
    pub(super) window: u32,
    pub(super) state: State,
    /// Whether there was a FIN.
    finished: bool,
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
            segments: 0,
            bytes: 0,
            squares: 0.0,
            first_at: now,
            last_at: now,
            ended_at: Timestamp::ZERO,
            delays: Moments::default(),
            delay_range: (i64::MAX, i64::MIN),
            gaps: Moments::default(),
            bitrates: Moments::default(),
            bitrate: 0.0,
            data_segments: 0,
            measured_at: now,
            bytes_since: 0,
            initial_rtt: 0,
            events: [0; Event::PER_STREAM],
            window: 0,
            state: State::Active,
            finished: false,
        }
    }

    /// Counts a segment, which offers `window` bytes.
    #[inline]
    pub(super) fn count(&mut self, segment: &Segment, verdict: &Verdict, window: u32) {
        let len = u64::from(segment.len);
        if self.segments > 0 {
            let gap = segment.time.since(self.last_at);
            if gap < LONGEST_GAP {
                self.gaps.add(seconds(gap.as_nanos() as i64));
            }
        }
        self.segments += 1;
        self.bytes += len;
        self.last_at = segment.time;
        self.window = window;
        if len > 0 {
            self.data_segments = self.data_segments.saturating_add(1);
            self.squares += (len as f64) * (len as f64);
        }
        self.measure_bitrate(segment.time, len);
        for event in verdict.events.indices() {
            if let Some(count) = self.events.get_mut(event) {
                *count = count.saturating_add(1);
            }
        }
        self.finished |= segment.fin();
        if segment.fin() || (segment.rst() && !self.finished) {
            self.ended_at = segment.time;
        }
        if segment.fin() && self.state == State::Active {
            self.state = State::Finalized;
        }
        if segment.rst() {
            self.state = State::Reset;
        }
    }

    /// The first segment from the measuring time on closes the measurement, and is part of the next one.
    #[inline]
    fn measure_bitrate(&mut self, now: Timestamp, len: u64) {
        let elapsed = now.since(self.measured_at);
        if elapsed >= BITRATE_EVERY {
            let bitrate = self.bytes_since as f64 * 8.0 / elapsed.as_secs_f64();
            self.bitrate = bitrate as f32;
            self.bitrates.add(bitrate);
            self.measured_at = now;
            self.bytes_since = 0;
        }
        self.bytes_since += len;
    }

    /// A segment of this stream was acknowledged so many nanoseconds after it was sent.
    #[inline]
    pub(super) fn delayed(&mut self, nanos: i64) {
        self.delays.add(seconds(nanos));
        let (shortest, longest) = self.delay_range;
        self.delay_range = (shortest.min(nanos), longest.max(nanos));
    }

    /// What the handshake took; the first one counts, where ports were used again.
    #[inline]
    pub(super) fn learn_initial_rtt(&mut self, nanos: u64) {
        if self.initial_rtt == 0 {
            self.initial_rtt = nanos;
        }
    }

    /// How often an event was seen.
    pub(super) fn events(&self, event: Event) -> u32 {
        self.events.get(event as usize).copied().unwrap_or(0)
    }

    /// Seconds from the first segment to the end, or until now where there is none.
    pub(super) fn uptime(&self, now: Timestamp) -> f64 {
        let end = if self.state == State::Active { now.max(self.last_at) } else { self.ended_at };
        end.since(self.first_at).as_secs_f64()
    }

    /// Segments per second of uptime.
    pub(super) fn segment_rate(&self, now: Timestamp) -> f64 {
        let uptime = self.uptime(now);
        if uptime > 0.0 { self.segments as f64 / uptime } else { 0.0 }
    }

    /// The bitrate measured last, in bits per second; 0 in the first second.
    pub(super) fn bitrate(&self) -> f64 {
        f64::from(self.bitrate)
    }

    /// The coefficient of variation of the bitrates.
    pub(super) fn bitrate_variation(&self) -> f64 {
        self.bitrates.variation()
    }

    /// The coefficient of variation of the sizes of segments with data.
    pub(super) fn size_variation(&self) -> f64 {
        if self.bytes == 0 {
            return 0.0;
        }
        let (count, mean) =
            (f64::from(self.data_segments), self.bytes as f64 / f64::from(self.data_segments));
        (self.squares / count - mean * mean).max(0.0).sqrt() / mean
    }

    /// The standard deviation of the seconds between segments.
    pub(super) fn gap_deviation(&self) -> f64 {
        self.gaps.deviation()
    }

    /// Mean, shortest, longest delay and their standard deviation in seconds, where a delay was measured.
    pub(super) fn delay(&self) -> Option<Delay> {
        let (shortest, longest) = self.delay_range;
        (self.delays.count() > 0).then(|| Delay {
            mean: self.delays.mean(),
            shortest: seconds(shortest),
            longest: seconds(longest),
            deviation: self.delays.deviation(),
        })
    }

    /// What the handshake took in seconds, where it was seen.
    pub(super) fn initial_rtt(&self) -> Option<f64> {
        (self.initial_rtt > 0).then(|| self.initial_rtt as f64 / 1e9)
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
            bitrates: (self.bitrates.count(), self.bitrates.variation()),
            delays: (self.delays.count(), self.delays.deviation()),
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
    nanos as f64 / 1e9
}
