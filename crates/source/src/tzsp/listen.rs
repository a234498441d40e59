//! A source that receives TZSP on sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use batch::Interface;
use packet::record::MAX_CAPTURED;
use packet::{LinkType, Origin};

use super::routers::Routers;
use super::{Drained, Report, Sockets, TzspError, kernel};
use crate::outlet::{Outlet, Run, now};
use crate::packer::Pace;

/// What the device of a port is called that is no router: its origin carries what the socket dropped, for the kernel does
/// not say whose those datagrams were.
const PORT: &str = "tzsp";

/// How long a capture that was told to stop goes on taking datagrams that have arrived already.
const LAST_INTAKE: Duration = Duration::from_secs(1);

/// How long it may take from a datagram's time stamp until it can be read.
const STAMPED_BEFORE: Duration = Duration::from_millis(5);

/// How often the kernel is asked what it could not put together.
const KERNEL_INTERVAL: Duration = Duration::from_secs(1);

/// UDP ports that are open, to which routers send TZSP.
pub struct Listen {
    sockets: Sockets,
    report: Report,
    run: Run,
}

impl Listen {
    /// Opens the ports.
    ///
    /// # Errors
    /// A port is taken, or may not be listened on.
    pub fn open(ports: &[u16], run: Run) -> Result<Self, TzspError> {
        let sockets = Sockets::open(ports)?;
        if sockets.buffer() < Sockets::BUFFER_NEEDED {
            tracing::warn!(
                bytes = sockets.buffer(),
                wanted = Sockets::BUFFER_NEEDED,
                "the receive buffer is small, and datagrams will be lost: `sysctl -w net.core.rmem_max=4194304`, or give the program CAP_NET_ADMIN"
            );
        }
        let report = Report::new(sockets.ports());
        Ok(Self { sockets, report, run })
    }

    /// What becomes of the datagrams, for who wants to look at it from elsewhere.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report.clone()
    }

    /// Receives until it is time to end.
    ///
    /// # Errors
    /// A socket failed in a way that will not pass.
    pub fn capture(mut self, outlet: &mut dyn Outlet) -> Result<(), TzspError> {
        let started = now();
        let failures_before = kernel::reassembly_failures();
        let mut failures_due = started;
        let mut routers = Routers::new(outlet, self.run.clone(), Pace::Live);
        let mut ports = Vec::new();
        for port in self.sockets.ports() {
            let origin =
                Origin { source: Arc::clone(&self.run.source), device: PORT.into(), listen_port: Some(port) };
            let interface = Interface::new(origin, LinkType::ETHERNET, MAX_CAPTURED as u32);
            ports.push(routers.packer.open(Arc::new(interface)));
        }
        let ended = loop {
            if self.run.is_over() {
                // What has arrived by now still counts.
                let until = Instant::now() + LAST_INTAKE;
                break loop {
                    match self.sockets.poll(Duration::ZERO, &mut |datagram| routers.push(&datagram)) {
                        Ok(Drained::No) if Instant::now() < until => {}
                        Ok(_) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                };
            }
            let before = now();
            let patience = routers.packer.patience(before);
            let drained = match self.sockets.poll(patience, &mut |datagram| routers.push(&datagram)) {
                Ok(drained) => drained,
                Err(error) => break Err(error),
            };
            for (lane, (_, dropped)) in ports.iter().zip(self.sockets.dropped()) {
                routers.packer.set_dropped(*lane, dropped, 0);
            }
            self.update_report(routers.overflow);
            if before >= failures_due {
                failures_due = before + KERNEL_INTERVAL;
                let failures = kernel::reassembly_failures().saturating_sub(failures_before);
                self.report.update(|report| report.reassembly_failures = failures);
            }
            // Each datagram that could be read before the sockets were asked has been taken from them, unless there were too
            // many at once. The kernel takes the time a little earlier.
            let promise = (drained == Drained::Yes).then(|| before - STAMPED_BEFORE);
            routers.packer.tick(now(), promise);
        };
        for (lane, (_, dropped)) in ports.iter().zip(self.sockets.dropped()) {
            routers.packer.set_dropped(*lane, dropped, 0);
        }
        self.update_report(routers.overflow);
        routers.packer.end(started);
        ended
    }

    fn update_report(&self, overflow: u64) {
        self.report.update(|report| {
            report.overflow = overflow;
            for (port, (_, counters)) in report.ports.iter_mut().zip(self.sockets.counters()) {
                port.counters = *counters;
            }
            for (port, (_, dropped)) in report.ports.iter_mut().zip(self.sockets.dropped()) {
                port.dropped = dropped;
            }
        });
    }
}
