//! The modes `capture` and `observe`: packets come in, are measured, and in the former go to a collector.

use std::fmt::Write;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use observe::{Exposition, Kind, Observers};
use prometheus::TextEncoder;
use relay::{Push, RelayHandle};
use source::{OwnTraffic, Quota, Run};
use tracing::{error, info};

use crate::metrics::Figures;
use crate::program::{Ended, Failure, Program};
use crate::settings::{CaptureSettings, CommonSettings, Input, InputSettings, ObserveSettings};
use crate::signals::Stop;
use crate::sources::{Devices, Sources};
use crate::tap::{RelayedTo, Tap};
use crate::tzsp::Reports;

/// How long a capture that was told to stop waits for the collector to take what is left.
const LINGER: Duration = Duration::from_secs(5);

/// Bytes of a packet that are captured where it is only measured: the headers, with room for tags, extension headers and
/// options. Lengths are told by the headers. A segment of 64 KiB takes a hundredth of the ring, and of the copying.
const MEASURED: u32 = 512;

/// When a batch closes that goes nowhere: as full and as old as one that is relayed at the defaults.
const UNRELAYED: batch::Limits = batch::Limits { bytes: 256 << 10, delay: Duration::from_millis(50) };

/// A capture that relays.
pub(crate) fn capture(settings: &CaptureSettings, stop: &Stop) -> Result<Program, Failure> {
    let run = Run {
        source: settings.source_name.as_str().into(),
        limits: settings.relay.batch,
        ..run(&settings.common, stop)
    };
    let own_traffic = Arc::new(OwnTraffic::new());
    let waits = matches!(settings.input.input, Input::File(_) | Input::TzspFile(..));
    let relay = Push::start(crate::relay::config(&settings.relay, waits))?;
    let relayed_to = RelayedTo::new(relay.handle(), Arc::clone(&own_traffic));
    let sources = open(&settings.input, u32::MAX, &own_traffic, run)?;
    let observers = Observers::new(crate::observers::config(&settings.common.observers, &settings.input));
    let (devices, handle) = (sources.devices(), relay.handle());
    if waits {
        // A file whose collector is away waits for room; told to stop, it must come to its end.
        let (stop, handle) = (stop.clone(), handle.clone());
        thread::Builder::new().name("stop-waiting".into()).spawn(move || {
            stop.wait_timeout(Duration::MAX);
            handle.stop_waiting();
        })?;
    }
    let program = Program {
        render: render(&observers, &devices, &sources.tzsp(), Some(handle.clone())),
        figures: figures(&observers, &devices, Some(handle.clone())),
        unfinished: Arc::new({
            let handle = handle.clone();
            move || format!("{} packets are not sent", handle.status().queued_packets)
        }),
        work: Box::new({
            let stop = stop.clone();
            move || {
                let ended = sources.run(|| Tap::new(Arc::clone(&observers), Some(relayed_to.clone())));
                finish(relay, &stop, waits);
                Ok(Ended::of(ended?))
            }
        }),
    };
    Ok(program)
}

/// An exporter: nothing is relayed.
pub(crate) fn observe(settings: &ObserveSettings, stop: &Stop) -> Result<Program, Failure> {
    let run = Run { in_order: true, ..run(&settings.common, stop) };
    let sources = open(&settings.input, MEASURED, &Arc::new(OwnTraffic::new()), run)?;
    let observers = Observers::new(crate::observers::config(&settings.common.observers, &settings.input));
    let devices = sources.devices();
    let program = Program {
        render: render(&observers, &devices, &sources.tzsp(), None),
        figures: figures(&observers, &devices, None),
        unfinished: Arc::new(|| "nothing".to_owned()),
        work: Box::new(move || Ok(Ended::of(sources.run(|| Tap::new(Arc::clone(&observers), None))?))),
    };
    Ok(program)
}

/// A run that is not relayed.
fn run(common: &CommonSettings, stop: &Stop) -> Run {
    Run {
        source: "".into(),
        epoch: SystemTime::now().into(),
        limits: UNRELAYED,
        stop: stop.flag(),
        quota: Arc::new(Quota::new(common.max_packets.map(std::num::NonZero::get))),
        counted: true,
        in_order: false,
    }
}

fn open(
    settings: &InputSettings,
    of_use: u32,
    own_traffic: &Arc<OwnTraffic>,
    run: Run,
) -> Result<Sources, Failure> {
    Sources::open(settings, of_use, own_traffic, run).map_err(|error| match error {
        error if error.is_setting() => Failure::Settings(error.into()),
        error => Failure::Rest(error.into()),
    })
}

/// Waits until the collector has everything. A capture that was told to stop does not wait for long.
fn finish(relay: Push, stop: &Stop, waits: bool) {
    let handle = relay.handle();
    let status = handle.status();
    // A file waits for its collector, unless it is told to stop.
    if waits && !stop.is_set() && status.queued_bytes > 0 && !status.connected {
        info!("end of file; waiting for the collector to receive the remaining packets");
    }
    let left = relay.finish(LINGER);
    let status = handle.status();
    if left > 0 {
        error!(packets = left, "packets lost: the collector did not receive them in time");
    }
    info!(packets = status.sent_packets, dropped = status.dropped_packets, "relay finished");
}

fn figures(
    observers: &Arc<Observers>,
    devices: &Devices,
    relay: Option<RelayHandle>,
) -> Arc<dyn Fn() -> Figures + Send + Sync> {
    let (observers, devices) = (Arc::clone(observers), devices.clone());
    Arc::new(move || {
        let [_, dropped, queue_freezes] = devices.sums();
        let relay_dropped = relay.as_ref().map_or(0, |relay| relay.status().dropped_packets);
        Figures { packets: observers.packets(), dropped: dropped + relay_dropped, queue_freezes }
    })
}

fn render(
    observers: &Arc<Observers>,
    devices: &Devices,
    tzsp: &Reports,
    relay: Option<RelayHandle>,
) -> Arc<dyn Fn(&mut Exposition) + Send + Sync> {
    let (observers, devices, tzsp) = (Arc::clone(observers), devices.clone(), tzsp.clone());
    Arc::new(move |out| {
        expose_capture(&observers, &devices, out);
        devices.expose(out);
        tzsp.expose(out);
        if let Some(relay) = &relay {
            expose_relay(relay, out);
        }
        crate::observers::expose(&observers, out);
    })
}

fn expose_relay(relay: &RelayHandle, out: &mut Exposition) {
    let families = relay.collector().map(|collector| collector.collect());
    match families.and_then(|families| TextEncoder::new().encode_to_string(&families)) {
        // Writing to a string cannot fail.
        Ok(text) => _ = out.write_str(&text),
        Err(error) => error!(%error, "cannot write the relay's metrics"),
    }
}

/// The three metrics of tcp-stream-exporter that are about the capture itself.
fn expose_capture(observers: &Observers, devices: &Devices, out: &mut Exposition) {
    let [_, dropped, freezes] = devices.sums();
    let processed = observers.packets();
    for (name, help, value) in [
        ("capture_packets_processed_total", "Packets that were read and measured.", processed),
        ("capture_dropped_packets_total", "Packets dropped by the kernel or the interface.", dropped),
        ("capture_queue_freezes_total", "How often a kernel's capture ring was full.", freezes),
    ] {
        out.family(name, Kind::Counter, help);
        out.sample(name, "", value);
    }
}
