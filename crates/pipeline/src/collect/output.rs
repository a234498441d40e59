//! The output of a collector, and what became of each packet.

use std::io::Write;
use std::num::NonZeroU64;

use batch::Interface;
use ledger::{DiscardReason, WriteOutcome};
use merge::PacketRun;
use packet::{Records, SourceId};
use sink::{CaptureWriter, InterfaceCounts, InterfaceId, StreamError};

/// Packets of one interface of the output; without one, the output cannot hold them.
pub(super) type Run<'a> = PacketRun<'a, Option<InterfaceId>>;

/// The output: a capture with a limit on its packets.
pub(super) struct Output<W> {
    writer: CaptureWriter<W>,
    /// How many packets may still be written; `None` for no limit.
    remaining: Option<u64>,
    outcomes: Outcomes,
}

impl<W: Write> Output<W> {
    pub(super) fn new(writer: CaptureWriter<W>, max_packets: Option<NonZeroU64>) -> Self {
        Self { writer, remaining: max_packets.map(NonZeroU64::get), outcomes: Outcomes::default() }
    }

    /// Whether the limit is reached.
    pub(super) fn is_full(&self) -> bool {
        self.remaining == Some(0)
    }

    /// Adds an interface. `None` if the output cannot hold its packets.
    pub(super) fn add_interface(
        &mut self,
        interface: &Interface,
    ) -> Result<Option<InterfaceId>, StreamError> {
        self.writer.add_interface(interface)
    }

    /// Writes a run, up to the limit, and counts what became of its packets; also if it fails.
    pub(super) fn write(&mut self, run: &Run<'_>) -> Result<(), StreamError> {
        let outcome = self.outcomes.of(run.source);
        outcome.late += u64::from(run.late);
        let packets = u64::from(run.packets);
        let Some(interface) = run.tag else {
            outcome.discard(DiscardReason::LinkType, packets);
            return Ok(());
        };
        let (bytes, written) = match self.remaining {
            Some(remaining) if packets > remaining => (first_records(run.bytes, remaining), remaining),
            _ => (run.bytes, packets),
        };
        if let Err(error) = self.writer.write(interface, bytes) {
            outcome.discard(DiscardReason::OutputClosed, packets);
            return Err(error);
        }
        outcome.written += written;
        outcome.discard(DiscardReason::MaxPackets, packets - written);
        if let Some(remaining) = &mut self.remaining {
            *remaining -= written;
        }
        Ok(())
    }

    /// Counts a run that is not written, because the output is full or closed.
    pub(super) fn discard(&mut self, run: &Run<'_>) {
        let reason = if self.is_full() { DiscardReason::MaxPackets } else { DiscardReason::OutputClosed };
        let outcome = self.outcomes.of(run.source);
        outcome.late += u64::from(run.late);
        outcome.discard(reason, run.packets.into());
    }

    /// What became of the packets of each source since the last call.
    pub(super) fn take_outcomes(&mut self) -> impl Iterator<Item = (SourceId, WriteOutcome)> {
        self.outcomes.take()
    }

    /// Writes what is buffered.
    pub(super) fn flush(&mut self) -> Result<(), StreamError> {
        self.writer.flush()
    }

    /// Ends the capture.
    pub(super) fn finish(
        self,
        counts: impl IntoIterator<Item = (InterfaceId, InterfaceCounts)>,
    ) -> Result<(), StreamError> {
        self.writer.finish(counts)
    }
}

/// What became of the packets of each source.
#[derive(Default)]
struct Outcomes {
    /// Indexed by source.
    by_source: Vec<Option<WriteOutcome>>,
    /// The sources that have an outcome.
    sources: Vec<SourceId>,
}

impl Outcomes {
    fn of(&mut self, source: SourceId) -> &mut WriteOutcome {
        let index = source.0 as usize;
        if index >= self.by_source.len() {
            self.by_source.resize(index + 1, None);
        }
        self.by_source[index].get_or_insert_with(|| {
            self.sources.push(source);
            WriteOutcome::default()
        })
    }

    fn take(&mut self) -> impl Iterator<Item = (SourceId, WriteOutcome)> {
        let by_source = &mut self.by_source;
        self.sources
            .drain(..)
            .filter_map(|source| Some((source, by_source.get_mut(source.0 as usize)?.take()?)))
    }
}

/// The bytes of the first `packets` records.
fn first_records(bytes: &[u8], packets: u64) -> &[u8] {
    let packets = usize::try_from(packets).unwrap_or(usize::MAX);
    let len = Records::new(bytes).take(packets).map(|record| record.encoded_len()).sum();
    bytes.get(..len).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use std::io;

    use packet::{LinkType, Origin, Record, Timestamp};
    use sink::{CaptureFormat, Stream};

    use super::*;

    /// An output of pcap with one Ethernet interface.
    fn output<W: Write>(file: W, max_packets: u64) -> Output<W> {
        let writer = CaptureWriter::new(Stream::new(file), CaptureFormat::Pcap).unwrap();
        let mut output = Output::new(writer, NonZeroU64::new(max_packets));
        let origin = Origin { source: "host".into(), device: "eth0".into(), listen_port: None };
        let interface = Interface::new(origin, LinkType::ETHERNET, 96);
        assert_eq!(output.add_interface(&interface).unwrap(), Some(InterfaceId(0)));
        output
    }

    fn records(packets: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for packet in 0..packets {
            let time = Timestamp::from_nanos(packet.into());
            Record { time, original: 60, bytes: &[0; 40_000] }.append_to(&mut bytes);
        }
        bytes
    }

    fn run(source: u32, bytes: &[u8], packets: u32, late: u32) -> Run<'_> {
        PacketRun { source: SourceId(source), tag: Some(InterfaceId(0)), bytes, packets, late }
    }

    fn outcome(written: u64, late: u64, discarded: [u64; 3]) -> WriteOutcome {
        WriteOutcome { written, late, discarded }
    }

    #[test]
    fn outcomes_are_counted_per_source_and_taken_once() {
        let mut file = Vec::new();
        let mut output = output(&mut file, 0);
        let bytes = records(3);
        output.write(&run(7, &bytes, 3, 1)).unwrap();
        output.write(&run(2, &bytes, 3, 0)).unwrap();
        output.write(&run(7, &bytes, 3, 2)).unwrap();
        output.write(&PacketRun { tag: None, ..run(2, &bytes, 3, 1) }).unwrap();
        let outcomes: Vec<_> = output.take_outcomes().collect();
        assert_eq!(
            outcomes,
            [(SourceId(7), outcome(6, 3, [0, 0, 0])), (SourceId(2), outcome(3, 1, [3, 0, 0]))]
        );
        assert_eq!(output.take_outcomes().count(), 0);
        output.finish([]).unwrap();
        assert_eq!(file.len(), 24 + 3 * bytes.len());
    }

    #[test]
    fn the_limit_cuts_a_run() {
        let mut file = Vec::new();
        let mut output = output(&mut file, 5);
        let bytes = records(3);
        output.write(&run(0, &bytes, 3, 0)).unwrap();
        assert!(!output.is_full());
        output.write(&run(0, &bytes, 3, 0)).unwrap();
        assert!(output.is_full());
        output.write(&run(0, &bytes, 3, 0)).unwrap();
        output.discard(&run(0, &bytes, 3, 1));
        assert_eq!(output.take_outcomes().collect::<Vec<_>>(), [(SourceId(0), outcome(5, 1, [0, 7, 0]))]);
        output.finish([]).unwrap();
        assert_eq!(file.len(), 24 + bytes.len() + 2 * (16 + 40_000));
    }

    #[test]
    fn packets_that_cannot_be_written_are_discarded() {
        /// Takes the header of the file and nothing else.
        struct Full(bool);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    Err(io::ErrorKind::BrokenPipe.into())
                } else {
                    Ok(bytes.len())
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut output = output(Full(false), 0);
        let bytes = records(3);
        assert!(matches!(output.write(&run(0, &bytes, 3, 1)), Err(StreamError::ReaderGone)));
        output.discard(&run(0, &bytes, 3, 0));
        assert_eq!(output.take_outcomes().collect::<Vec<_>>(), [(SourceId(0), outcome(0, 1, [0, 0, 6]))]);
    }
}
