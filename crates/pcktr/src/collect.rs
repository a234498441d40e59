//! The mode `collect`: batches of many captures come in, and go out as one stream.

mod collector;
mod expose;
mod foreign;
mod interfaces;
mod output;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use merge::Ledger;
use observe::Observers;
use relay::{Connections, Endpoint, Pull};
use sink::{PcapNgWriter, PcapWriter, Stream, Writer};
use tracing::info;

use crate::metrics::Figures;
use crate::program::{Ended, Failure, Program};
use crate::settings::{CollectSettings, FileOrStdio, OutputFormat};
use crate::signals::Stop;
use collector::Collector;
use foreign::Foreign;

/// What the collector's thread and the metrics share.
struct Shared {
    ledger: Mutex<Ledger>,
    observers: Arc<Observers>,
    foreign: Foreign,
    connections: Arc<Connections>,
    /// Packets, and bytes, that wait in the merge.
    waiting_packets: AtomicU64,
    waiting_bytes: AtomicU64,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A collector.
pub(crate) fn collect(settings: &CollectSettings, stop: &Stop) -> Result<Program, Failure> {
    let groups = settings.endpoints.iter().map(Endpoint::bind_addresses).collect::<Result<Vec<_>, _>>()?;
    let pull = Pull::bind(&groups)?;
    let path = match &settings.output {
        FileOrStdio::Stdio => "-".to_owned(),
        FileOrStdio::File(path) => path.to_string_lossy().into_owned(),
    };
    let stream = Stream::open(&path)?;
    let writer = match settings.format {
        OutputFormat::Pcap => Writer::Pcap(PcapWriter::new(stream)),
        OutputFormat::Pcapng => Writer::PcapNg(PcapNgWriter::new(stream)?),
    };
    info!(endpoints = ?pull.endpoints(), "waiting for captures");
    let shared = Arc::new(Shared {
        ledger: Mutex::default(),
        observers: Observers::new(crate::observers::collector_config(&settings.common.observers)),
        foreign: Foreign::default(),
        connections: pull.connections(),
        waiting_packets: AtomicU64::new(0),
        waiting_bytes: AtomicU64::new(0),
    });
    let collector = Collector::new(settings, pull, writer, Arc::clone(&shared), stop.clone());
    Ok(Program {
        render: Arc::new({
            let shared = Arc::clone(&shared);
            move |out| expose::expose(&shared, out)
        }),
        figures: Arc::new({
            let shared = Arc::clone(&shared);
            move || figures(&shared)
        }),
        unfinished: Arc::new(move || {
            let waiting = shared.waiting_packets.load(std::sync::atomic::Ordering::Relaxed);
            format!("{waiting} packets are not written")
        }),
        work: Box::new(move || collector.run().map(|()| Ended::Well).map_err(Into::into)),
    })
}

fn figures(shared: &Shared) -> Figures {
    let mut figures = Figures { packets: shared.observers.packets(), ..Figures::default() };
    for (_, source) in shared.ledger().sources() {
        let dropped = source.dropped;
        figures.dropped += dropped.kernel + dropped.interface + dropped.relay + source.lost.packets;
    }
    figures
}
