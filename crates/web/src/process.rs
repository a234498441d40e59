//! Metrics of the process and its build.

use metrics::{Declaration, LabelSet, collector};
use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use rustix::time::{ClockId, clock_gettime};

const BUILD_INFO: Declaration =
    Declaration::gauge("packeteur_build_info", "The version of this program and of its libraries.");

/// In place of the counter of [`ProcessCollector`], which has whole seconds only. That is too coarse for a program that
/// may use less than a hundredth of a core.
const CPU_SECONDS: Declaration =
    Declaration::counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.");

/// Registers `packeteur_build_info` and the `process_*` metrics. `libraries` are the names and versions of libraries.
///
/// # Errors
///
/// They are registered already.
pub fn register_process(
    registry: &Registry,
    libraries: impl IntoIterator<Item = (&'static str, String)>,
) -> prometheus::Result<()> {
    let version = LabelSet::new().with("version", env!("CARGO_PKG_VERSION"));
    let labels = libraries.into_iter().fold(version, |labels, (name, version)| labels.with(name, version));
    registry.register(collector([BUILD_INFO], move || vec![BUILD_INFO.samples([(labels.clone(), 1.0)])])?)?;
    registry.register(Box::new(Process(ProcessCollector::for_self())))
}

struct Process(ProcessCollector);

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.0.collect();
        families.retain(|family| family.name() != CPU_SECONDS.name);
        let spent = clock_gettime(ClockId::ProcessCPUTime);
        families.push(CPU_SECONDS.value(spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9));
        families
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn process_and_build_are_exposed() {
        let registry = Registry::new();
        register_process(&registry, [("libpcap", "1.10.3".to_owned())]).unwrap();
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let samples: Vec<_> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split([' ', '{']).next())
            .collect();
        assert_eq!(
            samples,
            [
                "packeteur_build_info",
                "process_cpu_seconds_total",
                "process_max_fds",
                "process_open_fds",
                "process_resident_memory_bytes",
                "process_start_time_seconds",
                "process_threads",
                "process_virtual_memory_bytes",
            ]
        );
        let build = concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\",libpcap=\"1.10.3\"} 1\n");
        assert!(text.contains(build), "{text}");
    }
}
