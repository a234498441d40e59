use std::net::Ipv4Addr;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::batcher::{Batcher, Timing};
use crate::context::{CaptureContext, InterfaceOrder, Quota};
use crate::filter::FilterSpec;

/// Senders, and what follows them.
struct Bench {
    senders: Senders,
    below: FilteredBatcher,
    now: Timestamp,
}

impl Bench {
    fn new() -> Self {
        let context = CaptureContext {
            source: "s".into(),
            epoch: Timestamp::ZERO,
            limits: batch::BatchLimits { bytes: 4096, delay: Duration::from_millis(50) },
            stop: Arc::new(AtomicBool::new(false)),
            quota: Arc::new(Quota::new(None)),
            interface_order: InterfaceOrder::Interleaved,
        };
        let below = FilteredBatcher::new(FilterSpec::KEEP_ALL, Batcher::new(context, Timing::Live));
        Self { senders: Senders::new("s".into()), below, now: Timestamp::from_parts(1000, 0) }
    }

    /// A datagram of a router with this number.
    fn push(&mut self, router: u32) {
        let datagram = TzspDatagram {
            sender: Ipv4Addr::from_bits(0x0a00_0000 | router).into(),
            listen_port: 37008,
            channel: Channel::Received,
            time: self.now,
            link_type: LinkType::ETHERNET,
            original: 4,
            bytes: b"data",
        };
        assert!(self.senders.push(&datagram, &mut self.below, self.now));
    }

    /// Time passes as in a source. Returns how many batches come out, and how many of them end an interface.
    fn wait(&mut self, duration: Duration) -> (usize, usize) {
        let (mut batches, mut ends) = (0, 0);
        let until = self.now + duration;
        loop {
            self.senders.end_idle(&mut self.below, self.now);
            self.below.batcher.tick(self.now, Some(self.now - Duration::from_millis(5)));
            while let Some(batch) = self.below.batcher.poll_batch() {
                batches += 1;
                ends += usize::from(batch.ends());
            }
            if self.now >= until {
                return (batches, ends);
            }
            let due = self.now + self.below.batcher.time_until_due(self.now).max(Duration::from_millis(1));
            self.now = due.min(until);
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn datagrams_of_many_addresses_cause_few_heartbeats() {
    let mut bench = Bench::new();
    for router in 0..400 {
        bench.push(router);
    }
    // A start, a packet and a few heartbeats of each; most have ended soon.
    let (batches, ends) = bench.wait(SECOND);
    assert!(batches < 400 * 6 + MAX_IDLE * 14, "{batches} batches");
    assert_eq!(ends, 400 - MAX_IDLE);
    let (batches, ends) = bench.wait(10 * SECOND);
    assert!(batches <= MAX_IDLE * 10 * 14, "{batches} batches");
    assert_eq!(ends, 0);
    // After a minute all have.
    let (_, ends) = bench.wait(50 * SECOND);
    assert_eq!(ends, MAX_IDLE);
    bench.now = bench.now + 3530 * SECOND;
    assert_eq!(bench.wait(SECOND), (0, 0));
    assert_eq!(bench.senders.counts(), SenderCounts { known: 400, ..SenderCounts::default() });
    // After an hour they are forgotten.
    assert_eq!(bench.wait(10 * SECOND), (0, 0));
    assert_eq!(bench.senders.counts(), SenderCounts { known: 0, forgotten: 400, untracked: 0 });
}

#[test]
fn a_router_that_pauses_does_not_end_and_one_that_returns_starts_again() {
    let mut bench = Bench::new();
    bench.push(1);
    for _ in 0..3 {
        assert_eq!(bench.wait(50 * SECOND).1, 0);
        bench.push(1);
    }
    assert_eq!(bench.wait(70 * SECOND).1, 1);
    bench.push(1);
    // The start and the packet.
    let (batches, ends) = bench.wait(Duration::from_millis(60));
    assert_eq!((batches, ends), (2, 0));
    assert_eq!(bench.senders.counts(), SenderCounts { known: 1, ..SenderCounts::default() });
}

#[test]
fn a_flood_of_made_up_addresses_is_bounded_and_counted() {
    let mut bench = Bench::new();
    for router in 0..10_000 {
        bench.push(router);
    }
    // Routers that were there before are not affected.
    for router in 0..10 {
        bench.push(router);
    }
    assert_eq!(bench.senders.counts(), SenderCounts { known: 4096, forgotten: 0, untracked: 10_000 - 4096 });
    // Soon others have room: those that were silent for longest are forgotten.
    bench.wait(SECOND);
    for router in 20_000..21_500 {
        bench.push(router);
    }
    let SenderCounts { known, forgotten, untracked } = bench.senders.counts();
    assert!(known <= 4096 && (1000..1600).contains(&forgotten), "{known} known, {forgotten} forgotten");
    assert!(untracked > 10_000 - 4096 + 400, "more than {MAX_STARTS_PER_SECOND} started: {untracked}");
    // One that is known, and was silent, starts in spite of them.
    bench.push(21_000);
    assert_eq!(bench.senders.counts().untracked, untracked + 1, "a new one does not");
    let silent = bench.senders.known.iter().find(|(_, sender)| sender.slot.is_none());
    let IpAddr::V4(address) = silent.unwrap().0.1 else { panic!("these are IPv4") };
    bench.push(address.to_bits() & 0x00ff_ffff);
    assert_eq!(bench.senders.counts().untracked, untracked + 1);
}

#[test]
fn a_clock_that_is_set_back_does_not_keep_senders() {
    let mut bench = Bench::new();
    bench.push(1);
    bench.wait(SECOND);
    bench.now = bench.now - 500 * SECOND;
    assert_eq!(bench.wait(59 * SECOND).1, 0);
    assert_eq!(bench.wait(2 * SECOND).1, 1);
}
