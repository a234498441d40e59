//! The sources of a capture, opened from its configuration.

use std::net::SocketAddr;
use std::sync::Arc;

use packet::LinkType;
use packet::record::MAX_CAPTURED;
use source::{
    CaptureContext, Device, DeviceConfig, DeviceCounts, DeviceError, File, FileError, FilterError,
    FilterSpec, StagesConfig, TzspError, TzspListener, TzspReport,
};
use tracing::info;

use crate::config::{Input, InputConfig};

/// Why a source cannot be opened, or failed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A TZSP port.
    #[error(transparent)]
    Tzsp(#[from] TzspError),
    /// The filter, where the kernel does not apply it.
    #[error(transparent)]
    Filter(#[from] FilterError),
}

impl SourceError {
    /// Whether the settings are wrong rather than the host.
    #[must_use]
    pub const fn is_setting(&self) -> bool {
        match self {
            Self::Device(error) => error.is_setting(),
            Self::File(error) => error.is_setting(),
            Self::Filter(_) => true,
            Self::Tzsp(_) => false,
        }
    }

    /// Whether a file ended within a packet.
    pub(super) const fn is_truncated_file(&self) -> bool {
        matches!(self, Self::File(FileError::Truncated { .. }))
    }
}

/// A source that is open.
#[derive(Debug)]
pub(super) enum OpenSource {
    Device(Box<Device>),
    File(Box<File>),
    Tzsp(Box<TzspListener>),
}

/// All sources, and the counters they share with the metrics.
pub(super) struct Sources {
    pub(super) sources: Vec<OpenSource>,
    /// The kernel's counters, by device.
    pub(super) devices: Vec<(Box<str>, Arc<DeviceCounts>)>,
    pub(super) tzsp: Vec<TzspReport>,
}

impl Sources {
    /// Opens all sources before any of them runs. A device captures at most `max_snaplen` bytes per packet, whatever the
    /// settings allow.
    pub(super) fn open(
        config: &InputConfig,
        max_snaplen: u32,
        context: CaptureContext,
    ) -> Result<Self, SourceError> {
        let opener = Opener { config, max_snaplen, context };
        let spec = FilterSpec { filter: config.filter.clone(), snaplen: config.snaplen };
        let mut sources = Self { sources: Vec::new(), devices: Vec::new(), tzsp: Vec::new() };
        match &config.input {
            Input::Devices(names) => {
                for name in names {
                    sources.add_device(name, opener.device(name)?);
                }
            }
            Input::TzspDevices(names, ports) => {
                spec.compile(LinkType::ETHERNET)?;
                for name in names {
                    sources.add_device(name, opener.tzsp_device(name, ports, &spec)?);
                }
            }
            Input::File(path) => {
                let file = File::open(&path.to_string(), &stages(&spec, None), opener.context)?;
                if let Some(link_type) = file.link_type() {
                    spec.compile(link_type)?;
                }
                sources.sources.push(OpenSource::File(Box::new(file)));
            }
            Input::TzspFile(path, ports) => {
                spec.compile(LinkType::ETHERNET)?;
                let file = File::open(&path.to_string(), &stages(&spec, Some(ports)), opener.context)?;
                sources.tzsp.extend(file.tzsp_report());
                sources.sources.push(OpenSource::File(Box::new(file)));
            }
            Input::TzspSockets(ports) => {
                spec.compile(LinkType::ETHERNET)?;
                let listener = TzspListener::open(ports, spec, opener.context)?;
                sources.tzsp.push(listener.report());
                sources.sources.push(OpenSource::Tzsp(Box::new(listener)));
            }
        }
        Ok(sources)
    }

    /// Starts to capture: leaves out the relay's connections to `peers`, and logs what is captured.
    pub(super) fn begin(&mut self, peers: &[SocketAddr]) -> Result<(), SourceError> {
        for source in &mut self.sources {
            match source {
                OpenSource::Device(device) => {
                    device.exclude_from_start(peers)?;
                    let interface = device.interface();
                    let (name, link_type) = (&interface.origin.device, interface.link_type);
                    match device.tzsp_report() {
                        Some(report) => {
                            let ports = port_numbers(&report);
                            info!(device = &**name, %link_type, ?ports, "capturing TZSP");
                        }
                        None => info!(device = &**name, %link_type, "capturing"),
                    }
                }
                OpenSource::Tzsp(listener) => {
                    info!(ports = ?port_numbers(&listener.report()), "receiving TZSP");
                }
                OpenSource::File(_) => {}
            }
        }
        Ok(())
    }

    fn add_device(&mut self, name: &str, device: Device) {
        self.devices.push((name.into(), device.counts()));
        self.tzsp.extend(device.tzsp_report());
        self.sources.push(OpenSource::Device(Box::new(device)));
    }
}

/// The parameters for opening devices.
struct Opener<'a> {
    config: &'a InputConfig,
    max_snaplen: u32,
    context: CaptureContext,
}

impl Opener<'_> {
    /// A device whose frames are captured. The kernel filters and cuts them.
    fn device(&self, name: &str) -> Result<Device, SourceError> {
        let config = DeviceConfig {
            filter: self.config.filter.clone(),
            snaplen: self.config.snaplen.min(self.max_snaplen),
            buffer_size: self.config.buffer_size,
            promiscuous: self.config.promiscuous,
        };
        self.open(name, &config, &StagesConfig::NONE)
    }

    /// A device whose frames carry TZSP. `spec` applies to the packets inside.
    fn tzsp_device(&self, name: &str, ports: &[u16], spec: &FilterSpec) -> Result<Device, SourceError> {
        let config = DeviceConfig {
            filter: Some(tzsp_filter(ports)),
            snaplen: MAX_CAPTURED as u32,
            buffer_size: self.config.buffer_size,
            promiscuous: self.config.promiscuous,
        };
        self.open(name, &config, &stages(spec, Some(ports)))
    }

    fn open(&self, name: &str, config: &DeviceConfig, stages: &StagesConfig) -> Result<Device, SourceError> {
        Ok(Device::open(name, config, stages, self.context.clone())?)
    }
}

fn port_numbers(report: &TzspReport) -> Vec<u16> {
    report.ports().ports.iter().map(|port| port.number).collect()
}

fn stages(filter: &FilterSpec, tzsp_ports: Option<&[u16]>) -> StagesConfig {
    StagesConfig { filter: filter.clone(), tzsp_ports: tzsp_ports.map(<[u16]>::to_vec) }
}

/// A pcap-filter(7) expression for TZSP to these ports. Only the first fragment of a datagram has the port.
fn tzsp_filter(ports: &[u16]) -> String {
    let ports: Vec<_> = ports.iter().map(|port| format!("udp dst port {port}")).collect();
    format!("{} or ip[6:2] & 0x1fff != 0 or ip6[6] == 44", ports.join(" or "))
}
