//! A libpcap handle on a device: opened, filtered, read, waited for.

#![expect(
    unsafe_code,
    reason = "the kernel's own counters are asked for with getsockopt, which libpcap does not pass on"
)]

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use packet::{LinkType, Record, Timestamp};
use pcap::{Active, Capture, Linktype, Precision};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{FLUSH_DELAY, OwnTraffic, names};
use crate::sieve::whereabouts;

/// How devices are captured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A pcap-filter expression.
    pub filter: Option<String>,
    /// Bytes kept of a packet.
    pub snaplen: u32,
    /// Bytes of the kernel's capture buffer.
    pub buffer_size: u32,
    /// Whether the device takes in packets that are not for this machine.
    pub promiscuous: bool,
}

/// Why a device cannot be captured, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is none of this name.
    #[error("DEVICE: no such device `{device}` (there are: {known})")]
    Unknown {
        /// The name.
        device: String,
        /// The devices that there are.
        known: String,
    },
    /// We are not allowed to.
    #[error(
        "DEVICE: no permission to capture on `{device}`: it takes the capability CAP_NET_RAW (`setcap cap_net_raw,cap_net_admin=ep {program}`, or run as root)"
    )]
    Permission {
        /// The name.
        device: String,
        /// The program that needs the capability.
        program: String,
    },
    /// Something else.
    #[error("DEVICE: cannot capture on `{device}`: {why}")]
    Open {
        /// The name.
        device: String,
        /// What libpcap says.
        why: String,
    },
    /// The expression is wrong, or makes no sense on this device.
    #[error("FILTER: `{filter}` does not compile for `{device}` ({link_type}): {why}")]
    Filter {
        /// The expression.
        filter: String,
        /// The name of the device.
        device: String,
        /// Its link type.
        link_type: LinkType,
        /// What libpcap says.
        why: String,
    },
    /// It went down, or disappeared.
    #[error("the capture on `{device}` has ended: {why}")]
    Ended {
        /// The name.
        device: String,
        /// What libpcap says.
        why: String,
    },
}

impl DeviceError {
    /// Whether the user's settings are wrong, rather than the machine.
    #[must_use]
    pub const fn is_setting(&self) -> bool {
        matches!(self, Self::Unknown { .. } | Self::Filter { .. })
    }
}

/// What the kernel counted since it was last asked (`PACKET_STATISTICS`, packet(7)).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KernelCounts {
    pub(super) packets: u64,
    pub(super) drops: u64,
    pub(super) freezes: u64,
}

/// An open device.
pub(super) struct Handle {
    name: Box<str>,
    capture: Capture<Active>,
    link_type: LinkType,
    filter: Option<String>,
    /// The state of the relay's addresses that the filter in force was made for.
    generation: u64,
}

impl Handle {
    pub(super) fn open(
        name: &str,
        settings: &Settings,
        own_traffic: &OwnTraffic,
    ) -> Result<Self, DeviceError> {
        let open_error = |error: pcap::Error| open_error(name, &error);
        let capture = Capture::from_device(name)
            .map_err(open_error)?
            .snaplen(i32::try_from(settings.snaplen).unwrap_or(i32::MAX))
            .buffer_size(i32::try_from(settings.buffer_size).unwrap_or(i32::MAX))
            .promisc(settings.promiscuous)
            .precision(Precision::Nano)
            .timeout(FLUSH_DELAY.as_millis() as i32);
        let mut capture = capture.open().map_err(open_error)?.setnonblock().map_err(open_error)?;
        // The second version of the cooked header keeps each packet's interface. A libpcap that does not know it (before
        // 1.10) still gives the first.
        if capture.get_datalink().0 as u32 == LinkType::LINUX_SLL.0 {
            let _ = capture.set_datalink(Linktype(LinkType::LINUX_SLL2.0 as i32));
        }
        let link_type = LinkType::from_dlt(capture.get_datalink().0 as u32);
        if names::is_loopback(name) {
            ignore_outgoing(&capture);
        }
        let mut handle =
            Self { name: name.into(), capture, link_type, filter: settings.filter.clone(), generation: 0 };
        handle.set_filter(own_traffic)?;
        Ok(handle)
    }

    pub(super) fn link_type(&self) -> LinkType {
        self.link_type
    }

    /// Whether the packets of several interfaces come together here.
    pub(super) fn is_cooked(&self) -> bool {
        self.link_type == LinkType::LINUX_SLL2
    }

    /// What libpcap says of the device, in words.
    pub(super) fn description(&self) -> String {
        let devices = pcap::Device::list().unwrap_or_default();
        devices.into_iter().find(|device| *device.name == *self.name).and_then(|d| d.desc).unwrap_or_default()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Sets the filter: the user's, and not the relay's own traffic.
    pub(super) fn set_filter(&mut self, own_traffic: &OwnTraffic) -> Result<(), DeviceError> {
        let user = self.filter.clone();
        // The user's own filter first, so that an error speaks of what the user wrote.
        if let Some(user) = &user {
            self.capture.compile(user, true).map_err(|error| self.filter_error(user, &error))?;
        }
        self.generation = own_traffic.generation();
        let Some(whole) = own_traffic.filter(user.as_deref()) else { return Ok(()) };
        match (self.capture.filter(&whole, true), user) {
            (Ok(()), _) => Ok(()),
            // Where the device's link type knows no IP (USB, Bluetooth, …), there is no relay traffic to leave out.
            (Err(_), Some(user)) => {
                self.capture.filter(&user, true).map_err(|error| self.filter_error(&user, &error))
            }
            (Err(_), None) => Ok(()),
        }
    }

    fn filter_error(&self, filter: &str, error: &pcap::Error) -> DeviceError {
        DeviceError::Filter {
            filter: filter.to_owned(),
            device: self.name.to_string(),
            link_type: self.link_type,
            why: message(error) + &whereabouts(filter, |part| self.capture.compile(part, true).is_ok()),
        }
    }

    /// Hands out what the ring holds, up to `most` packets, and says how many there were.
    pub(super) fn dispatch(
        &mut self,
        most: usize,
        mut each: impl FnMut(Record<'_>),
    ) -> Result<usize, DeviceError> {
        let read = self.capture.dispatch(Some(most), |packet| {
            let header = packet.header;
            // With `Precision::Nano` libpcap puts nanoseconds where the type says microseconds.
            let time = Timestamp::from_parts(header.ts.tv_sec as u32, header.ts.tv_usec as u32);
            each(Record { time, original: header.len, bytes: packet.data });
        });
        match read {
            Ok(packets) => Ok(packets),
            Err(pcap::Error::TimeoutExpired) => Ok(0),
            Err(error) => Err(self.ended(message(&error))),
        }
    }

    /// Waits until there are packets, for so long at most.
    pub(super) fn wait(&self, at_most: Duration) -> Result<(), DeviceError> {
        // SAFETY: the descriptor belongs to the libpcap handle, which lives as long as `self`.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd()) };
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        let timeout =
            Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: i64::from(at_most.subsec_nanos()) };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => {
                let happened = fds[0].revents();
                if happened.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
                    return Err(self.ended(self.why_gone()));
                }
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(self.ended(error.to_string())),
        }
    }

    /// Why the socket of the device reports an error: what is left when the device is asked for.
    fn why_gone(&self) -> String {
        // SAFETY: as in `wait`.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd()) };
        match rustix::net::sockopt::socket_error(fd) {
            Ok(Err(rustix::io::Errno::NETDOWN)) if names::names().iter().any(|n| **n == *self.name) => {
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

    fn fd(&self) -> RawFd {
        self.capture.as_raw_fd()
    }

    /// Takes in no further packet: from here on the kernel neither keeps nor counts any, so that what it has counted is what
    /// is still read, or dropped.
    pub(super) fn refuse(&self) {
        // "Return 0 bytes." libpcap itself refuses to compile what no packet passes.
        let mut nothing =
            libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
        let program = libc::sock_fprog { len: 1, filter: &raw mut nothing };
        // SAFETY: the program, and the one instruction that it points to, are readable while the call lasts; the kernel
        // copies them. Where there is no packet socket it fails, and all stays as it is.
        unsafe {
            libc::setsockopt(
                self.fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                mem::size_of_val(&program) as libc::socklen_t,
            );
        }
    }

    /// What the kernel counted since the last call. libpcap would ask for the same, but tells neither the freezes nor
    /// more than 32 bits; as asking sets the kernel's counters back, `pcap_stats` is never called beside this.
    pub(super) fn kernel_counts(&self) -> KernelCounts {
        // SAFETY: all bytes of this plain struct may be zero.
        let mut counts: libc::tpacket_stats_v3 = unsafe { mem::zeroed() };
        let mut len = mem::size_of_val(&counts) as libc::socklen_t;
        // SAFETY: `counts` is writable for `len` bytes, which getsockopt does not go beyond.
        let failed = unsafe {
            libc::getsockopt(
                self.fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut counts).cast(),
                &raw mut len,
            )
        };
        // A device that is no packet socket (USB, Bluetooth) has no such counters.
        if failed != 0 {
            return KernelCounts::default();
        }
        KernelCounts {
            packets: counts.tp_packets.into(),
            drops: counts.tp_drops.into(),
            // Only a ring of the third version has this counter; for the others the kernel writes less.
            freezes: counts.tp_freeze_q_cnt.into(),
        }
    }
}

/// Tells the kernel to leave out what the device sends. A loopback device shows each packet twice, as it is sent and as
/// it is received; libpcap drops the former only after the kernel has counted it, and had room for it or not. Kernels
/// before 4.20 do not know the option: then the counts are those of both.
fn ignore_outgoing(capture: &Capture<Active>) {
    let on: libc::c_int = 1;
    // SAFETY: `on` is readable for the length that is given.
    unsafe {
        libc::setsockopt(
            capture.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            (&raw const on).cast(),
            mem::size_of_val(&on) as libc::socklen_t,
        );
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("name", &self.name).field("link_type", &self.link_type).finish()
    }
}

/// What libpcap's words for a device that does not open mean.
fn open_error(name: &str, error: &pcap::Error) -> DeviceError {
    let device = name.to_owned();
    let why = message(error);
    let known = names::names();
    // libpcap says it in words of its own, or in the system's (EPERM, EACCES).
    if ["permission", "Permission denied", "Operation not permitted"].iter().any(|said| why.contains(said)) {
        let program = std::env::args().next().unwrap_or_else(|| "pcktr".to_owned());
        DeviceError::Permission { device, program }
    } else if name != "any" && !known.iter().any(|known| known == name) && why.contains("No such device") {
        DeviceError::Unknown { device, known: known.join(", ") }
    } else {
        DeviceError::Open { device, why }
    }
}

/// libpcap's own words, without the crate's around them.
fn message(error: &pcap::Error) -> String {
    match error {
        pcap::Error::PcapError(why) => why.clone(),
        other => other.to_string(),
    }
}
