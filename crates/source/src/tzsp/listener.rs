//! A source that receives TZSP on UDP sockets.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use batch::{Batch, Interface};
use packet::record::MAX_CAPTURED;
use packet::{LinkType, Origin, Timestamp};

use super::{Drained, Sockets, TzspError, TzspReport};
use crate::batcher::{Batcher, InterfaceSlot, Timing};
use crate::context::{CaptureContext, now};
use crate::filter::{FilterSpec, FilteredBatcher};
use crate::senders::Senders;
use crate::{PacketSource, Progress};

/// The device name of a port itself. This interface has no packets, but carries the datagrams that the socket dropped,
/// because the kernel does not say whose they were.
const PORT_DEVICE: &str = "tzsp";

/// How long a listener that was told to stop continues to receive datagrams that have already arrived.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The most time between a datagram's time stamp and the moment when it can be read.
const STAMP_DELAY: Duration = Duration::from_millis(5);

/// How often the kernel's count of reassembly failures is read.
const KERNEL_INTERVAL: Duration = Duration::from_secs(1);

/// Receives TZSP on UDP ports.
#[derive(Debug)]
pub struct TzspListener {
    sockets: Sockets,
    senders: Senders,
    packets: FilteredBatcher,
    /// The interfaces of the ports themselves, in the order of the sockets.
    ports: Vec<InterfaceSlot>,
    report: TzspReport,
    context: CaptureContext,
    started: Timestamp,
    failures: ReassemblyFailures,
    /// When to give up receiving, once the listener was told to stop.
    stop_at: Option<Instant>,
}

impl TzspListener {
    /// Opens the ports. `spec` applies to the packets inside of the datagrams.
    ///
    /// # Errors
    /// A port is in use, or needs a permission that is missing.
    pub fn open(ports: &[u16], spec: FilterSpec, context: CaptureContext) -> Result<Self, TzspError> {
        let sockets = Sockets::open(ports)?;
        if sockets.buffer() < Sockets::BUFFER_NEEDED {
            tracing::warn!(
                bytes = sockets.buffer(),
                wanted = Sockets::BUFFER_NEEDED,
                "the receive buffer is small, datagrams may be lost: run `sysctl -w net.core.rmem_max=4194304`, or give the program CAP_NET_ADMIN"
            );
        }
        let report = TzspReport::new(sockets.ports());
        let mut packets = FilteredBatcher::new(spec, Batcher::new(context.clone(), Timing::Live));
        let ports = sockets
            .ports()
            .map(|port| {
                let source = Arc::clone(&context.source);
                let origin = Origin { source, device: PORT_DEVICE.into(), listen_port: Some(port) };
                packets.open(&Interface::new(origin, LinkType::ETHERNET, MAX_CAPTURED as u32))
            })
            .collect();
        let senders = Senders::new(Arc::clone(&context.source));
        let (started, failures) = (now(), ReassemblyFailures::new());
        Ok(Self { sockets, senders, packets, ports, report, context, started, failures, stop_at: None })
    }

    /// The counters of each port, shared.
    #[must_use]
    pub fn report(&self) -> TzspReport {
        self.report.clone()
    }

    /// Receives what has arrived, waiting at most for `timeout`.
    fn receive(&mut self, timeout: Duration) -> Result<Drained, TzspError> {
        let Self { sockets, senders, packets, .. } = self;
        let received_at = now();
        sockets.poll(timeout, &mut |datagram| {
            senders.push(&datagram, packets, received_at);
        })
    }

    fn update_report(&mut self) {
        for (slot, (_, dropped)) in self.ports.iter().zip(self.sockets.dropped()) {
            self.packets.batcher.set_dropped(*slot, dropped, 0);
        }
        self.failures.update();
        self.report.update(|report| {
            report.count_senders(self.senders.counts());
            report.reassembly_failures = self.failures.count;
            for (port, (_, counters)) in report.ports.iter_mut().zip(self.sockets.counters()) {
                port.counters = *counters;
            }
            for (port, (_, dropped)) in report.ports.iter_mut().zip(self.sockets.dropped()) {
                port.dropped = dropped;
            }
        });
    }

    fn end(&mut self) {
        self.update_report();
        self.packets.batcher.end(self.started);
    }
}

impl PacketSource for TzspListener {
    type Error = TzspError;

    fn poll(&mut self) -> Result<Progress, TzspError> {
        if self.context.is_over() {
            // What has arrived by now still counts.
            let stop_at = *self.stop_at.get_or_insert_with(|| Instant::now() + STOP_TIMEOUT);
            let received = self.receive(Duration::ZERO);
            if matches!(received, Ok(Drained::No)) && Instant::now() < stop_at {
                return Ok(Progress::Running);
            }
            self.end();
            return received.map(|_| Progress::Ended);
        }
        let before = now();
        let timeout = self.packets.batcher.time_until_due(before);
        let drained = match self.receive(timeout) {
            Ok(drained) => drained,
            Err(error) => {
                self.end();
                return Err(error);
            }
        };
        self.senders.end_idle(&mut self.packets, now());
        self.update_report();
        // All datagrams that could be read before the call have been read, unless there were too many. The kernel
        // stamps them a little earlier.
        let watermark = (drained == Drained::Yes).then(|| before - STAMP_DELAY);
        self.packets.batcher.tick(now(), watermark);
        Ok(Progress::Running)
    }

    fn poll_batch(&mut self) -> Option<Batch> {
        self.packets.batcher.poll_batch()
    }

    fn wants_buffer(&mut self) -> bool {
        self.packets.batcher.wants_buffer()
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        self.packets.batcher.recycle(buffer);
    }
}

/// Fragmented IP datagrams of any protocol that the kernel gave up in this network namespace since the listener was
/// opened:
/// `ReasmFails` of IPv4 and IPv6 (RFC 4293, `ipSystemStatsReasmFails`). Linux gives one up 30 s after its first fragment
/// (`net.ipv4.ipfrag_time`).
#[derive(Debug)]
struct ReassemblyFailures {
    count: u64,
    before: u64,
    due: Instant,
}

impl ReassemblyFailures {
    fn new() -> Self {
        Self { count: 0, before: read_reassembly_failures(), due: Instant::now() }
    }

    /// Reads the kernel's counters, at most once per [`KERNEL_INTERVAL`].
    fn update(&mut self) {
        if Instant::now() >= self.due {
            self.due = Instant::now() + KERNEL_INTERVAL;
            self.count = read_reassembly_failures().saturating_sub(self.before);
        }
    }
}

fn read_reassembly_failures() -> u64 {
    let snmp = fs::read_to_string("/proc/self/net/snmp").unwrap_or_default();
    let snmp6 = fs::read_to_string("/proc/self/net/snmp6").unwrap_or_default();
    ipv4_failures(&snmp).unwrap_or(0) + ipv6_failures(&snmp6).unwrap_or(0)
}

/// Two lines start with `Ip:`, the first with names, the second with numbers.
fn ipv4_failures(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Ip:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_whitespace().zip(numbers.split_whitespace());
    pairs.find(|(name, _)| *name == "ReasmFails")?.1.parse().ok()
}

/// Each line has a name and a number.
fn ipv6_failures(snmp6: &str) -> Option<u64> {
    let line = snmp6.lines().find(|line| line.starts_with("Ip6ReasmFails"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reassembly_failures_are_parsed() {
        let snmp = "Ip: Forwarding DefaultTTL ReasmOKs ReasmFails\nIp: 1 64 5 17\nIcmp: InMsgs\nIcmp: 3\n";
        assert_eq!(
            (ipv4_failures(snmp), ipv4_failures("Ip: ReasmFails\n"), ipv4_failures("")),
            (Some(17), None, None)
        );
        assert_eq!(ipv6_failures("Ip6ReasmOKs   \t1\nIp6ReasmFails                   \t9\n"), Some(9));
    }
}
