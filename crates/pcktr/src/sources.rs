//! The sources of a capture or an exporter: opened from the settings, then run, each on a thread of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use observe::{Exposition, Kind, Labels};
use source::device::{self, Counts};
use source::{Device, DeviceError, File, FileError, FilterError, Mesh, Outlet, OwnTraffic, Run, Sieve};
use tracing::{error, info, warn};

use crate::settings::{FileOrStdio, Input, InputSettings};
use crate::tap::Tap;

/// Why a source does not open, or has ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// A device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The filter, where no device is asked.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The system gives no thread.
    #[error("cannot start a source's thread: {0}")]
    Thread(#[from] io::Error),
}

impl SourceError {
    /// Whether the user's settings are wrong, rather than the machine.
    pub(crate) const fn is_setting(&self) -> bool {
        match self {
            Self::Device(error) => error.is_setting(),
            Self::File(error) => error.is_setting(),
            Self::Filter(_) => true,
            Self::Thread(_) => false,
        }
    }
}

/// Sources that are open.
pub(crate) struct Sources {
    opened: Vec<Opened>,
    run: Run,
    mesh: Mesh,
    devices: Devices,
}

enum Opened {
    Device(Box<Device>),
    File(Box<File>),
}

/// What the kernel counts on each device.
#[derive(Clone, Default)]
pub(crate) struct Devices(Vec<(Box<str>, Arc<Counts>)>);

impl Sources {
    /// Opens everything before anything runs: what is wrong with the second device is known before the first captures.
    pub(crate) fn open(
        settings: &InputSettings,
        own_traffic: &Arc<OwnTraffic>,
        run: Run,
    ) -> Result<Self, SourceError> {
        let mesh = Mesh { filter: settings.filter.clone(), snaplen: settings.snaplen };
        let mut opened = Vec::new();
        let mut devices = Devices::default();
        match &settings.input {
            Input::Devices(names) => {
                let device_settings = device::Settings {
                    filter: settings.filter.clone(),
                    snaplen: settings.snaplen,
                    buffer_size: settings.buffer_size,
                    promiscuous: settings.promiscuous,
                };
                for name in names {
                    let device = Device::open(name, &device_settings, Arc::clone(own_traffic), run.clone())?;
                    info!(device = name, link_type = %device.interface().link_type, "capturing");
                    devices.0.push((name.as_str().into(), device.counts()));
                    opened.push(Opened::Device(Box::new(device)));
                }
            }
            Input::File(path) => {
                let run = if mesh.is_open() { run.clone() } else { run.uncounted() };
                let file = File::open(&text(path), run)?;
                if let Some(link_type) = file.link_type() {
                    mesh.compile(link_type)?;
                }
                opened.push(Opened::File(Box::new(file)));
            }
            Input::TzspSockets(_) | Input::TzspDevices(..) | Input::TzspFile(..) => {
                unreachable!("refused by the settings")
            }
        }
        Ok(Self { opened, run, mesh, devices })
    }

    /// What the kernel counts, for the metrics.
    pub(crate) fn devices(&self) -> Devices {
        self.devices.clone()
    }

    /// Runs all sources until the last has ended; each hands its batches to a tap of its own. An error says that one of
    /// them ended before its time.
    pub(crate) fn run(self, tap: impl Fn() -> Tap) -> Result<(), SourceError> {
        let Self { opened, run, mesh, .. } = self;
        let mut threads = Vec::new();
        for source in opened {
            let (mut tap, run, mesh) = (tap(), run.clone(), mesh.clone());
            let builder = thread::Builder::new().name("capture".into());
            threads.push(builder.spawn(move || capture(source, &mut tap, &run, mesh))?);
        }
        let mut ended = Ok(());
        for thread in threads {
            match thread.join() {
                Ok(Ok(())) => {}
                // A capture that was cut off is what it is: all that there is of it has been handed over.
                Ok(Err(SourceError::File(error @ FileError::Cut { .. }))) => warn!("{error}"),
                Ok(Err(error)) => {
                    error!("{error}");
                    ended = Err(error);
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        ended
    }
}

fn capture(source: Opened, outlet: &mut dyn Outlet, run: &Run, mesh: Mesh) -> Result<(), SourceError> {
    match source {
        Opened::Device(device) => Ok(device.capture(outlet)?),
        Opened::File(file) if mesh.is_open() => Ok(file.capture(outlet)?),
        Opened::File(file) => {
            let mut sieve = Sieve::new(mesh, outlet, run.clone(), file.is_live());
            let ended = file.capture(&mut sieve);
            sieve.end();
            Ok(ended?)
        }
    }
}

fn text(path: &FileOrStdio) -> String {
    match path {
        FileOrStdio::Stdio => "-".to_owned(),
        FileOrStdio::File(path) => path.to_string_lossy().into_owned(),
    }
}

impl Devices {
    /// All devices together: packets received, packets dropped by kernel and interface, queue freezes.
    pub(crate) fn sums(&self) -> [u64; 3] {
        let mut sums = [0; 3];
        for (_, counts) in &self.0 {
            sums[0] += counts.received.load(Ordering::Relaxed);
            sums[1] += counts.dropped_kernel.load(Ordering::Relaxed)
                + counts.dropped_interface.load(Ordering::Relaxed);
            sums[2] += counts.queue_freezes.load(Ordering::Relaxed);
        }
        sums
    }

    /// Writes what the kernel counts.
    pub(crate) fn expose(&self, out: &mut Exposition) {
        let name = "packeteur_device_received_packets_total";
        out.family(name, Kind::Counter, "Packets that passed a device's filter, those dropped included.");
        for (device, counts) in &self.0 {
            let labels = Labels::new().with("device", device);
            out.sample(name, labels.as_str(), counts.received.load(Ordering::Relaxed));
        }
        let name = "packeteur_device_dropped_packets_total";
        out.family(
            name,
            Kind::Counter,
            "Packets of a device that were dropped before they were read, by place.",
        );
        for (device, counts) in &self.0 {
            for (place, dropped) in
                [("kernel", &counts.dropped_kernel), ("interface", &counts.dropped_interface)]
            {
                let labels = Labels::new().with("device", device).with("place", place);
                out.sample(name, labels.as_str(), dropped.load(Ordering::Relaxed));
            }
        }
    }
}
