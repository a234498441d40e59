//! The sources of a capture or an exporter: opened from the settings, then run, each on a thread of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use observe::{Exposition, Kind, Labels};
use packet::LinkType;
use packet::record::MAX_CAPTURED;
use source::device::{self, Counts};
use source::tzsp::{Listen, TzspError, Unwrap};
use source::{Device, DeviceError, File, FileError, FilterError, Mesh, Outlet, OwnTraffic, Pace, Run, Sieve};
use tracing::{error, info, warn};

use crate::settings::{FileOrStdio, Input, InputSettings};
use crate::tap::Tap;
use crate::tzsp::Reports;

/// Why a source does not open, or has ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// A device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A TZSP port.
    #[error(transparent)]
    Tzsp(#[from] TzspError),
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
            Self::Tzsp(_) | Self::Thread(_) => false,
        }
    }
}

/// Sources that are open.
pub(crate) struct Sources {
    opened: Vec<Opened>,
    run: Run,
    mesh: Mesh,
    of_use: u32,
    devices: Devices,
    tzsp: Reports,
}

/// A source that is open, and the TZSP ports to look for in its frames.
struct Opened {
    source: Source,
    unwrap: Option<Vec<u16>>,
}

enum Source {
    Device(Box<Device>),
    File(Box<File>),
    Tzsp(Box<Listen>),
}

/// What the kernel counts on each device.
#[derive(Clone, Default)]
pub(crate) struct Devices(Vec<(Box<str>, Arc<Counts>)>);

impl Sources {
    /// Opens everything before anything runs: what is wrong with the second device is known before the first captures.
    /// More than `of_use` bytes of a device's packet need not be captured, whatever the settings allow.
    pub(crate) fn open(
        settings: &InputSettings,
        of_use: u32,
        own_traffic: &Arc<OwnTraffic>,
        run: Run,
    ) -> Result<Self, SourceError> {
        let mesh = Mesh { filter: settings.filter.clone(), snaplen: settings.snaplen };
        let mut sources = Self {
            opened: Vec::new(),
            run,
            mesh,
            of_use,
            devices: Devices::default(),
            tzsp: Reports::default(),
        };
        match &settings.input {
            Input::Devices(names) => {
                // The kernel filters and cuts.
                sources.mesh = Mesh { filter: None, snaplen: u32::MAX };
                for name in names {
                    sources.open_device(name, settings, own_traffic, None)?;
                }
            }
            Input::TzspDevices(names, ports) => {
                sources.check_filter(LinkType::ETHERNET)?;
                for name in names {
                    sources.open_device(name, settings, own_traffic, Some(ports))?;
                }
            }
            Input::File(path) => sources.open_file(path, None)?,
            Input::TzspFile(path, ports) => {
                sources.check_filter(LinkType::ETHERNET)?;
                sources.open_file(path, Some(ports))?;
            }
            Input::TzspSockets(ports) => {
                sources.check_filter(LinkType::ETHERNET)?;
                let listen = Listen::open(ports, sources.upstream(None))?;
                info!(?ports, "receiving TZSP");
                sources.tzsp.add(listen.report());
                sources.opened.push(Opened { source: Source::Tzsp(Box::new(listen)), unwrap: None });
            }
        }
        Ok(sources)
    }

    fn open_device(
        &mut self,
        name: &str,
        settings: &InputSettings,
        own_traffic: &Arc<OwnTraffic>,
        unwrap: Option<&Vec<u16>>,
    ) -> Result<(), SourceError> {
        // With TZSP, the user's filter and snaplen are meant for what is in it.
        let (filter, snaplen) = match unwrap {
            Some(ports) => (Some(tzsp_filter(ports)), MAX_CAPTURED as u32),
            None => (settings.filter.clone(), settings.snaplen.min(self.of_use)),
        };
        let (buffer_size, promiscuous) = (settings.buffer_size, settings.promiscuous);
        let settings = device::Settings { filter, snaplen, buffer_size, promiscuous };
        let device = Device::open(name, &settings, Arc::clone(own_traffic), self.upstream(unwrap))?;
        info!(device = name, link_type = %device.interface().link_type, tzsp_ports = ?unwrap, "capturing");
        self.devices.0.push((name.into(), device.counts()));
        self.opened.push(Opened { source: Source::Device(Box::new(device)), unwrap: unwrap.cloned() });
        Ok(())
    }

    fn open_file(&mut self, path: &FileOrStdio, unwrap: Option<&Vec<u16>>) -> Result<(), SourceError> {
        let file = File::open(&text(path), self.upstream(unwrap))?;
        if let (Some(link_type), None) = (file.link_type(), unwrap) {
            self.check_filter(link_type)?;
        }
        self.opened.push(Opened { source: Source::File(Box::new(file)), unwrap: unwrap.cloned() });
        Ok(())
    }

    /// What a source is given that others stand behind: the last one counts.
    fn upstream(&self, unwrap: Option<&Vec<u16>>) -> Run {
        if unwrap.is_none() && self.mesh.is_open() { self.run.clone() } else { self.run.uncounted() }
    }

    /// Whether the filter makes sense for packets of this link type.
    fn check_filter(&self, link_type: LinkType) -> Result<(), SourceError> {
        self.mesh.compile(link_type)?;
        Ok(())
    }

    /// What becomes of TZSP, for the metrics.
    pub(crate) fn tzsp(&self) -> Reports {
        self.tzsp.clone()
    }

    /// What the kernel counts, for the metrics.
    pub(crate) fn devices(&self) -> Devices {
        self.devices.clone()
    }

    /// Runs all sources until the last has ended; each hands its batches to a tap of its own. False where one of them ended
    /// before its time, which the log says.
    pub(crate) fn run(self, tap: impl Fn() -> Tap) -> Result<bool, SourceError> {
        let Self { opened, run, mesh, tzsp, .. } = self;
        let mut threads = Vec::new();
        for source in opened {
            let (mut tap, run, mesh, tzsp) = (tap(), run.clone(), mesh.clone(), tzsp.clone());
            let builder = thread::Builder::new().name("capture".into());
            threads.push(builder.spawn(move || tell(sieve(source, &mut tap, &run, mesh, &tzsp)))?);
        }
        let mut all_ended_well = true;
        for thread in threads {
            match thread.join() {
                Ok(ended_well) => all_ended_well &= ended_well,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all_ended_well)
    }
}

/// Says at once how a source has ended, while others go on; whether as it should.
fn tell(ended: Result<(), SourceError>) -> bool {
    match ended {
        Ok(()) => true,
        // A capture that was cut off is what it is: all that there is of it has been handed over.
        Err(SourceError::File(error @ FileError::Cut { .. })) => {
            warn!("{error}");
            true
        }
        Err(error) => {
            error!("{error}");
            false
        }
    }
}

/// Runs a source behind which the filter and the snaplen stand, where nobody before has applied them.
fn sieve(
    opened: Opened,
    outlet: &mut dyn Outlet,
    run: &Run,
    mesh: Mesh,
    tzsp: &Reports,
) -> Result<(), SourceError> {
    if mesh.is_open() {
        return unwrap(opened, outlet, run.clone(), tzsp);
    }
    let pace = opened.pace();
    let mut sieve = Sieve::new(mesh, outlet, run.clone(), pace);
    let ended = unwrap(opened, &mut sieve, run.uncounted(), tzsp);
    sieve.end();
    ended
}

/// Runs a source whose TZSP is unwrapped, where that is wanted.
fn unwrap(opened: Opened, outlet: &mut dyn Outlet, run: Run, tzsp: &Reports) -> Result<(), SourceError> {
    let pace = opened.pace();
    let Some(ports) = opened.unwrap else { return capture(opened.source, outlet) };
    let mut unwrap = Unwrap::new(&ports, outlet, run, pace);
    tzsp.add(unwrap.report());
    let ended = capture(opened.source, &mut unwrap);
    unwrap.end();
    ended
}

fn capture(source: Source, outlet: &mut dyn Outlet) -> Result<(), SourceError> {
    match source {
        Source::Device(device) => device.capture(outlet)?,
        Source::File(file) => file.capture(outlet)?,
        Source::Tzsp(listen) => listen.capture(outlet)?,
    }
    Ok(())
}

impl Opened {
    /// How its packets come.
    fn pace(&self) -> Pace {
        match &self.source {
            Source::Device(_) | Source::Tzsp(_) => Pace::Live,
            Source::File(file) => file.pace(),
        }
    }
}

/// A pcap-filter expression for TZSP to these ports. Of a fragmented datagram only the first part has the port.
fn tzsp_filter(ports: &[u16]) -> String {
    let ports: Vec<_> = ports.iter().map(|port| format!("udp dst port {port}")).collect();
    format!("{} or ip[6:2] & 0x1fff != 0 or ip6[6] == 44", ports.join(" or "))
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
