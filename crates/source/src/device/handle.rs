//! A libpcap handle on a device: opened, filtered, read, waited for.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};
use packet::LinkType;
use pcap::{Active, Capture, Linktype, Precision};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockFilter, SockRef};

use super::own_traffic::OwnTraffic;
use super::statistics::KernelCounts;
use super::{FLUSH_DELAY, FLUSH_SLACK, interfaces};

/// How long counted packets may take beyond [`FLUSH_DELAY`] where all of them come: the kernel's timer is late on a busy
/// machine.
const EXACT_FLUSH_SLACK: Duration = Duration::from_secs(1);
use crate::filter::locate_filter_error;

/// How a device is captured.
#[derive(Clone, Debug)]
pub struct DeviceConfig {
    /// A pcap-filter(7) expression.
    pub filter: Option<String>,
    /// Maximum bytes captured per packet.
    pub snaplen: u32,
    /// The kernel's capture buffer, in bytes.
    pub buffer_size: u32,
    /// Whether to capture packets that are not addressed to this host.
    pub promiscuous: bool,
}

/// Why a device cannot be captured.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is no device of this name.
    #[error("DEVICE: no such device `{device}` (there are: {known})")]
    Unknown {
        /// The name.
        device: String,
        /// The names of all devices.
        known: String,
    },
    /// A permission is missing.
    #[error(
        "DEVICE: no permission to capture on `{device}`: CAP_NET_RAW is required (run as root, or `setcap cap_net_raw=ep {program}`)"
    )]
    Permission {
        /// The name.
        device: String,
        /// The program that needs the capability.
        program: String,
    },
    /// libpcap cannot open it.
    #[error("DEVICE: cannot capture on `{device}`: {why}")]
    Open {
        /// The name.
        device: String,
        /// libpcap's message.
        why: String,
    },
    /// The filter is invalid, or does not apply to this device.
    #[error("FILTER: `{filter}` does not compile for `{device}` ({link_type}): {why}")]
    Filter {
        /// The expression.
        filter: String,
        /// The name of the device.
        device: String,
        /// Its link type.
        link_type: LinkType,
        /// libpcap's message.
        why: String,
    },
    /// The filter compiles, but not together with the exclusion of the relay's own connections.
    #[error(
        "FILTER: `{filter}` is too complex for `{device}`: it must also leave out the relay's own connections, and then: {why} (simplify it)"
    )]
    CombinedFilter {
        /// The filter.
        filter: String,
        /// The name of the device.
        device: String,
        /// libpcap's message.
        why: String,
    },
    /// libpcap cannot wait for the device's packets.
    #[error(
        "DEVICE: cannot capture on `{device}`: {why} (use `tcpdump -i {device} -U -w - | pcktr --read-file -`)"
    )]
    Unsupported {
        /// The name.
        device: String,
        /// The reason, for example libpcap's message.
        why: String,
    },
    /// The device went down or disappeared.
    #[error("the capture on `{device}` ended: {why}")]
    Ended {
        /// The name.
        device: String,
        /// libpcap's message.
        why: String,
    },
}

impl DeviceError {
    /// Whether the settings are wrong rather than the host.
    #[must_use]
    pub const fn is_setting(&self) -> bool {
        matches!(
            self,
            Self::Unknown { .. }
                | Self::Filter { .. }
                | Self::CombinedFilter { .. }
                | Self::Unsupported { .. }
        )
    }
}

/// An open device.
pub(super) struct Handle {
    name: Box<str>,
    capture: Capture<Active>,
    link_type: LinkType,
    filter: Option<String>,
}

impl Handle {
    pub(super) fn open(name: &str, config: &DeviceConfig) -> Result<Self, DeviceError> {
        let open_error = |error: pcap::Error| open_error(name, &error);
        let capture = Capture::from_device(name)
            .map_err(open_error)?
            .snaplen(i32::try_from(config.snaplen).unwrap_or(i32::MAX))
            .buffer_size(i32::try_from(config.buffer_size).unwrap_or(i32::MAX))
            .promisc(config.promiscuous)
            .precision(Precision::Nano)
            .timeout(FLUSH_DELAY.as_millis() as i32);
        let unsupported = |why: String| DeviceError::Unsupported { device: name.to_owned(), why };
        // The crate panics where libpcap has no descriptor (pcap_fileno(3)): for D-Bus and RDMA, which cannot be set
        // non-blocking either, and for DPDK.
        if name.starts_with("dpdk:") {
            return Err(unsupported("libpcap has no descriptor to wait for".to_owned()));
        }
        let capture = capture.open().map_err(open_error)?;
        let mut capture = capture.setnonblock().map_err(|error| unsupported(message(&error)))?;
        // Version 2 of the cooked header has each packet's interface. libpcap before 1.10 has only version 1.
        if capture.get_datalink().0 as u32 == LinkType::LINUX_SLL.0 {
            let _ = capture.set_datalink(Linktype(LinkType::LINUX_SLL2.0 as i32));
        }
        let link_type = LinkType::from_dlt(capture.get_datalink().0 as u32);
        if interfaces::is_loopback(name) {
            // A loopback device shows each packet twice, sent and received. libpcap drops the first, but only after the
            // kernel has counted it and used buffer for it. Linux before 4.20 lacks the option; its counters then
            // include both.
            let _ = setsockopt(&capture, IgnoreOutgoing, &true);
        }
        let mut handle = Self { name: name.into(), capture, link_type, filter: config.filter.clone() };
        if handle.filter.is_some() {
            handle.begin(&OwnTraffic::default())?;
        }
        Ok(handle)
    }

    /// Sets the filter, and discards what was captured before.
    pub(super) fn begin(&mut self, own_traffic: &OwnTraffic) -> Result<(), DeviceError> {
        self.discard_unfiltered()?;
        self.set_filter(own_traffic)
    }

    /// Discards the packets that arrived before there was a filter. The kernel has counted them; libpcap would apply the
    /// filter to them later, so that counted packets would never be seen. No packet passes until a filter is set.
    fn discard_unfiltered(&mut self) -> Result<(), DeviceError> {
        self.attach_drop_filter();
        let counted = KernelCounts::read(self);
        let mut left = counted.packets.saturating_sub(counted.drops);
        // Where loopback is among them, libpcap leaves some packets out: then the time is the end.
        let is_exact = &*self.name != "any" && !interfaces::is_loopback(&self.name);
        let deadline = Instant::now() + FLUSH_DELAY + if is_exact { EXACT_FLUSH_SLACK } else { FLUSH_SLACK };
        while left > 0 {
            // Looked at before: this thread may have been delayed, and the packets have come meanwhile.
            let now = Instant::now();
            let result = self.capture.dispatch(None, |_| {});
            match self.read_result(result)? {
                0 if now >= deadline => break,
                0 => self.wait(deadline.saturating_duration_since(now))?,
                read => left = left.saturating_sub(read as u64),
            }
        }
        Ok(())
    }

    pub(super) fn link_type(&self) -> LinkType {
        self.link_type
    }

    /// Whether the packets are of several interfaces (LINUX_SLL2).
    pub(super) fn is_cooked(&self) -> bool {
        self.link_type == LinkType::LINUX_SLL2
    }

    /// libpcap's description of the device; may be empty.
    pub(super) fn description(&self) -> String {
        let devices = pcap::Device::list().unwrap_or_default();
        devices.into_iter().find(|device| *device.name == *self.name).and_then(|d| d.desc).unwrap_or_default()
    }

    /// Sets the user's filter, with the relay's own traffic excluded.
    pub(super) fn set_filter(&mut self, own_traffic: &OwnTraffic) -> Result<(), DeviceError> {
        let user = self.filter.clone();
        // The user's filter is compiled first, so that an error is about what the user wrote.
        if let Some(user) = &user {
            self.capture.compile(user, true).map_err(|error| self.filter_error(user, &error))?;
        }
        let capture = &self.capture;
        let usable = own_traffic
            .usable_filter(user.as_deref(), |filter| capture.compile(filter, true).map(drop))
            .map_err(|error| self.combined_filter_error(user.as_deref().unwrap_or_default(), &error))?;
        match usable {
            Some(filter) => {
                self.capture.filter(&filter, true).map_err(|error| self.filter_error(&filter, &error))
            }
            None => {
                // Fails if there is no filter to detach.
                let _ = SockRef::from(&self.capture).detach_filter();
                Ok(())
            }
        }
    }

    fn combined_filter_error(&self, filter: &str, error: &pcap::Error) -> DeviceError {
        DeviceError::CombinedFilter {
            filter: filter.to_owned(),
            device: self.name.to_string(),
            why: message(error),
        }
    }

    fn filter_error(&self, filter: &str, error: &pcap::Error) -> DeviceError {
        DeviceError::Filter {
            filter: filter.to_owned(),
            device: self.name.to_string(),
            link_type: self.link_type,
            why: message(error)
                + &locate_filter_error(filter, |part| self.capture.compile(part, true).is_ok()),
        }
    }

    /// libpcap's handle, to read the ring.
    pub(super) fn capture(&mut self) -> &mut Capture<Active> {
        &mut self.capture
    }

    /// The result of reading the ring.
    pub(super) fn read_result(&self, result: Result<usize, pcap::Error>) -> Result<usize, DeviceError> {
        match result {
            Ok(packets) => Ok(packets),
            Err(pcap::Error::TimeoutExpired) => Ok(0),
            Err(error) => Err(self.ended(message(&error))),
        }
    }

    /// Waits for packets, at most for `timeout`.
    pub(super) fn wait(&self, timeout: Duration) -> Result<(), DeviceError> {
        let timeout = Timespec::try_from(timeout).ok();
        let mut fds = [PollFd::from_borrowed_fd(self.fd(), PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) if fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) => {
                Err(self.ended(self.why_gone()))
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(self.ended(error.to_string())),
        }
    }

    /// Why the socket reports an error.
    fn why_gone(&self) -> String {
        match rustix::net::sockopt::socket_error(self.fd()) {
            Ok(Err(rustix::io::Errno::NETDOWN)) if interfaces::names().iter().any(|n| **n == *self.name) => {
                "the device went down".to_owned()
            }
            Ok(Err(rustix::io::Errno::NETDOWN | rustix::io::Errno::NODEV)) => {
                "the device disappeared".to_owned()
            }
            Ok(Err(error)) | Err(error) => error.to_string(),
            Ok(Ok(())) => "the device disappeared".to_owned(),
        }
    }

    fn ended(&self, why: String) -> DeviceError {
        DeviceError::Ended { device: self.name.to_string(), why }
    }

    /// The packet socket.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.capture.as_fd()
    }

    /// Makes the kernel drop all further packets before it counts them.
    pub(super) fn attach_drop_filter(&self) {
        // "Return 0 bytes." libpcap itself refuses to compile a filter that no packet passes.
        let drop_all = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
        // Fails if the device has no packet socket (USB, Bluetooth), which then continues to count.
        let _ = SockRef::from(&self.capture).attach_filter(&[drop_all]);
    }
}

sockopt_impl!(
    /// Leaves out the packets that this host sends (packet(7)).
    IgnoreOutgoing, SetOnly, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, bool
);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("name", &self.name).field("link_type", &self.link_type).finish()
    }
}

/// The meaning of libpcap's message for a device that cannot be opened.
fn open_error(name: &str, error: &pcap::Error) -> DeviceError {
    let device = name.to_owned();
    let why = message(error);
    let known = interfaces::names();
    // libpcap's own words, or the system's (EPERM, EACCES).
    if ["permission", "Permission denied", "Operation not permitted"].iter().any(|said| why.contains(said)) {
        let program = std::env::args().next().unwrap_or_else(|| "pcktr".to_owned());
        DeviceError::Permission { device, program }
    } else if name != "any" && !known.iter().any(|known| known == name) && why.contains("No such device") {
        DeviceError::Unknown { device, known: known.join(", ") }
    } else {
        DeviceError::Open { device, why }
    }
}

/// libpcap's message, without the crate's prefix.
fn message(error: &pcap::Error) -> String {
    match error {
        pcap::Error::PcapError(why) => why.clone(),
        other => other.to_string(),
    }
}
