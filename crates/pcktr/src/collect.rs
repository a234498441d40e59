//! The mode `collect`: the settings of the collect pipeline.

use std::fmt::Write;
use std::sync::Arc;

use pipeline::collect::{Collect, CollectConfig};
use prometheus::{Registry, TextEncoder};
use sink::CaptureFormat;

use crate::metrics::Figures;
use crate::program::{Ended, Failure, Program};
use crate::settings::{CollectSettings, FileOrStdio, OutputFormat};
use crate::signals::Stop;

/// A collector.
pub(crate) fn collect(settings: &CollectSettings, stop: &Stop) -> Result<Program, Failure> {
    let config = CollectConfig {
        endpoints: settings.endpoints.clone(),
        output: match &settings.output {
            FileOrStdio::Stdio => None,
            FileOrStdio::File(path) => Some(path.clone()),
        },
        format: match settings.format {
            OutputFormat::Pcap => CaptureFormat::Pcap,
            OutputFormat::Pcapng => CaptureFormat::PcapNg,
        },
        merge_window: settings.merge_window,
        exit_on_end: settings.exit_on_end,
        max_packets: settings.common.max_packets,
        observers: crate::observers::collector_config(&settings.common.observers),
    };
    let collect = Collect::open(&config, stop.clone())?;
    let handle = collect.handle();
    let registry = Registry::new();
    handle.register_metrics(&registry)?;
    Ok(Program {
        render: Arc::new({
            let handle = handle.clone();
            move |out| {
                if let Ok(text) = TextEncoder::new().encode_to_string(&registry.gather()) {
                    _ = out.write_str(&text);
                }
                handle.write_tables(out);
            }
        }),
        figures: Arc::new({
            let handle = handle.clone();
            move || {
                let figures = handle.figures();
                let dropped = figures.dropped.saturating_add(figures.lost);
                Figures { packets: figures.packets, dropped, queue_freezes: 0 }
            }
        }),
        unfinished: Arc::new(move || handle.unfinished()),
        work: Box::new(move || collect.run().map(|()| Ended::Well).map_err(Into::into)),
    })
}
