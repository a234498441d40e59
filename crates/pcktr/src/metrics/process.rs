//! What is true of every program: its build, its process.

use std::fmt::Write;

use observe::{Exposition, Kind, Labels};
use prometheus::TextEncoder;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use rustix::time::{ClockId, clock_gettime};

use crate::libraries;

/// The collector's own counter of CPU time has whole seconds only: too coarse for a program that is to use less than a
/// hundredth of a core.
const CPU_SECONDS: &str = "process_cpu_seconds_total";

/// Writes `packeteur_build_info` and the `process_*` families.
pub(super) struct Process {
    collector: ProcessCollector,
    build: Labels,
}

impl Process {
    pub(super) fn new() -> Self {
        let build = Labels::new()
            .with("version", env!("CARGO_PKG_VERSION"))
            .with("libpcap", libraries::libpcap())
            .with("libzmq", libraries::libzmq());
        Self { collector: ProcessCollector::for_self(), build }
    }

    pub(super) fn render(&self, out: &mut Exposition) {
        out.family("packeteur_build_info", Kind::Gauge, "What this program was built from, and runs with.");
        out.sample("packeteur_build_info", self.build.as_str(), 1);

        out.family(CPU_SECONDS, Kind::Counter, "Total user and system CPU time spent in seconds.");
        let spent = clock_gettime(ClockId::ProcessCPUTime);
        out.sample(CPU_SECONDS, "", format_args!("{}.{:09}", spent.tv_sec, spent.tv_nsec));

        let mut families = self.collector.collect();
        families.retain(|family| family.name() != CPU_SECONDS);
        // A family that the encoder refuses is one without samples: it has nothing to say.
        if let Ok(text) = TextEncoder::new().encode_to_string(&families) {
            _ = out.write_str(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_described() {
        let mut out = Exposition::new();
        Process::new().render(&mut out);
        let samples: Vec<_> = out
            .as_str()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split([' ', '{']).next())
            .collect();
        assert_eq!(
            samples,
            [
                "packeteur_build_info",
                "process_cpu_seconds_total",
                "process_open_fds",
                "process_max_fds",
                "process_virtual_memory_bytes",
                "process_resident_memory_bytes",
                "process_start_time_seconds",
                "process_threads",
            ]
        );
        assert!(out.as_str().contains(concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\",libpcap=\"")));
    }
}
