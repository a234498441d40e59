//! The counts and measurements of one stream.

use packet::Timestamp;

use super::analysis::{Event, SegmentAnalysis};
use super::health::{self, HealthInputs};
use super::moments::Moments;
use super::segment::Segment;

/// The shortest time, in nanoseconds, over which a bitrate is measured.
const BITRATE_INTERVAL: i64 = 1_000_000_000;

/// Intervals between segments of this length in nanoseconds or more are pauses of the application, and are left out.
const MAX_INTERARRIVAL: i64 = 10_000_000_000;

const NANOS_PER_SEC: f64 = 1e9;

/// The counts of a stream. Fields that are updated together are stored together, to touch few cache lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stats {
    sent: Sent,
    delays: Delays,
    rest: Rest,
}

/// Updated by each segment.
#[derive(Clone, Copy, Debug)]
struct Sent {
    segments: u64,
    /// Bytes of data, retransmissions included.
    bytes: u64,
    /// The sum of the squares of the segments' bytes.
    squares: f64,
    last_at: Timestamp,
    /// Nanoseconds between segments.
    interarrivals: Moments,
    /// When the last bitrate was measured, and the bytes since then.
    measured_at: Timestamp,
    bytes_since: u64,
    /// Nanoseconds; 0 if the handshake was not captured.
    initial_rtt: u64,
    /// The last bitrate in bits per second.
    bitrate: f32,
    /// Segments with data.
    data_segments: u32,
    /// The window of the last segment in bytes.
    window: u32,
    state: State,
    /// Whether there was a FIN.
    finished: bool,
}

/// Updated by acknowledgments of the other direction. In nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Delays {
    moments: Moments,
    /// Minimum and maximum.
    range: (i64, i64),
}

/// Updated less often.
#[derive(Clone, Copy, Debug)]
struct Rest {
    first_at: Timestamp,
    /// The time of the last FIN; without a FIN, of the last RST.
    ended_at: Timestamp,
    /// Bits per second.
    bitrates: Moments,
    events: [u32; Event::PER_STREAM],
}

/// The state of a stream.
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
    /// The value of the label `state`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Finalized => "finalized",
            Self::Reset => "reset",
        }
    }
}

impl Stats {
    /// The counts of a stream whose first segment is captured at `now`.
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            sent: Sent {
                segments: 0,
                bytes: 0,
                squares: 0.0,
                last_at: now,
                interarrivals: Moments::default(),
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

    /// Bytes of data, retransmissions included.
    pub(super) const fn bytes(&self) -> u64 {
        self.sent.bytes
    }

    /// The window of the last segment in bytes.
    pub(super) const fn window(&self) -> u32 {
        self.sent.window
    }

    #[inline]
    pub(super) const fn state(&self) -> State {
        self.sent.state
    }

    /// Counts a segment that advertises a window of `window` bytes.
    #[inline]
    pub(super) fn count(&mut self, segment: &Segment, analysis: &SegmentAnalysis, window: u32) {
        let len = u64::from(segment.len);
        if self.sent.segments > 0 {
            let interarrival = segment.time.nanos_since(self.sent.last_at).max(0);
            if interarrival < MAX_INTERARRIVAL {
                self.sent.interarrivals.add(interarrival as f64);
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
        for event in analysis.events.indices() {
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

    /// The first segment after the interval closes the measurement, and counts for the next one.
    #[inline]
    fn measure_bitrate(&mut self, now: Timestamp, len: u64) {
        let elapsed = now.nanos_since(self.sent.measured_at);
        if elapsed >= BITRATE_INTERVAL {
            let bitrate = self.sent.bytes_since as f64 * 8.0 / seconds(elapsed);
            self.sent.bitrate = bitrate as f32;
            self.rest.bitrates.add(bitrate);
            self.sent.measured_at = now;
            self.sent.bytes_since = 0;
        }
        self.sent.bytes_since += len;
    }

    /// Adds the nanoseconds from a segment of this stream to its acknowledgment.
    #[inline]
    pub(super) fn add_delay(&mut self, nanos: i64) {
        self.delays.moments.add(nanos as f64);
        let (min, max) = self.delays.range;
        self.delays.range = (min.min(nanos), max.max(nanos));
    }

    /// Sets the nanoseconds that the handshake took. The first handshake counts, even if the ports are reused.
    #[inline]
    pub(super) fn learn_initial_rtt(&mut self, nanos: u64) {
        if self.sent.initial_rtt == 0 {
            self.sent.initial_rtt = nanos;
        }
    }

    /// The count of an event.
    pub(super) fn events(&self, event: Event) -> u32 {
        self.rest.events.get(event as usize).copied().unwrap_or(0)
    }

    /// Seconds from the first segment to the last FIN or RST, or until `now` if the stream is active.
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

    /// The last bitrate in bits per second; 0 in the first second.
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

    /// The standard deviation of the interarrival times in seconds.
    pub(super) fn interarrival_deviation(&self) -> f64 {
        self.sent.interarrivals.deviation() / NANOS_PER_SEC
    }

    /// The delays in seconds; none if there was no sample.
    pub(super) fn delay(&self) -> Option<Delay> {
        let (min, max) = self.delays.range;
        (self.delays.moments.count() > 0).then(|| Delay {
            mean: self.delays.moments.mean() / NANOS_PER_SEC,
            min: seconds(min),
            max: seconds(max),
            deviation: self.delays.moments.deviation() / NANOS_PER_SEC,
        })
    }

    /// The seconds that the handshake took, if it was captured.
    pub(super) fn initial_rtt(&self) -> Option<f64> {
        (self.sent.initial_rtt > 0).then(|| self.sent.initial_rtt as f64 / NANOS_PER_SEC)
    }

    /// The health score.
    pub(super) fn health(&self) -> f64 {
        health::score(&HealthInputs {
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

/// The delays of a stream in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Delay {
    pub(super) mean: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) deviation: f64,
}

#[inline]
fn seconds(nanos: i64) -> f64 {
    nanos as f64 / NANOS_PER_SEC
}
