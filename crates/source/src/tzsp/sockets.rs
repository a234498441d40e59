//! TZSP from UDP sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{SetSockOpt, getsockopt, setsockopt, sockopt};
use nix::{getsockopt_impl, sockopt_impl};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::recv_buffer::{ReceivedMessage, RecvBuffer};
use super::{DatagramMeta, TzspCounters, TzspDatagram};
use crate::context::now;

/// The receive buffer to request, in bytes: a third of a second at 1 Gbit/s of small datagrams.
const BUFFER_WANTED: usize = 16 << 20;

/// Calls of `recvmmsg` on one socket before the other sockets and the caller get their turn.
const ROUNDS: usize = 64;

/// Bytes to receive from one socket before the same: batches pile up meanwhile outside the relay's queue, which limits their
/// memory. One call can exceed it, by 2 MiB.
const MAX_BYTES: usize = 1 << 20;

/// How long to sleep after datagrams were received, so that the next call finds more than a few: waking up for each of
/// them costs more than everything else. At any rate that one core can process, a receive buffer of
/// [`Sockets::BUFFER_NEEDED`] lasts several times as long.
const PAUSE: Duration = Duration::from_millis(1);

/// The UDP sockets that routers send TZSP to.
#[derive(Debug)]
pub(super) struct Sockets {
    sockets: Vec<PortSocket>,
    recv_buffer: RecvBuffer,
    /// Bytes to receive from one socket before the other sockets and the caller get their turn.
    max_bytes: usize,
    /// Whether the last poll received all that there was, and that was something.
    busy: bool,
}

/// Whether all datagrams that had arrived were received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drained {
    /// All of them.
    Yes,
    /// There may be more.
    No,
}

/// The socket of one port.
#[derive(Debug)]
struct PortSocket {
    socket: Socket,
    port: u16,
    /// The size of the receive buffer that the kernel granted, in bytes.
    buffer: usize,
    /// Datagrams that the kernel dropped because the buffer was full, and its 32-bit counter when it was last read.
    dropped: u64,
    dropped_low: u32,
    counters: TzspCounters,
}

/// Why TZSP cannot be received.
#[derive(Debug, thiserror::Error)]
pub enum TzspError {
    /// The port cannot be bound.
    #[error("TZSP_PORT: cannot listen on UDP port {port}: {error}")]
    Bind {
        /// The port.
        port: u16,
        /// The system's error.
        error: io::Error,
    },
    /// A required socket option cannot be set.
    #[error("TZSP_PORT: cannot set {option} on UDP port {port}: {error}")]
    Option {
        /// The option.
        option: &'static str,
        /// The port.
        port: u16,
        /// The system's error.
        error: io::Error,
    },
    /// Receiving failed permanently.
    #[error("cannot receive on UDP port {port}: {error}")]
    Receive {
        /// The port.
        port: u16,
        /// The system's error.
        error: io::Error,
    },
    /// Waiting for datagrams failed.
    #[error("cannot wait for UDP datagrams: {0}")]
    Wait(io::Error),
}

impl Sockets {
    /// The least receive buffer that does not lose datagrams at usual rates, in bytes. Linux' default of 208 KiB loses
    /// some at every rate.
    pub(super) const BUFFER_NEEDED: usize = 4 << 20;

    /// Listens on `ports` of all addresses, IPv4 and IPv6. Port 0 lets the kernel choose.
    ///
    /// # Errors
    /// A port is in use, or needs a permission that is missing.
    pub(super) fn open(ports: &[u16]) -> Result<Self, TzspError> {
        let sockets = ports.iter().map(|&port| PortSocket::open(port)).collect::<Result<_, _>>()?;
        Ok(Self { sockets, recv_buffer: RecvBuffer::new(), max_bytes: MAX_BYTES, busy: false })
    }

    /// Waits for datagrams for at most `timeout`, and hands the packets in them to `give`.
    ///
    /// # Errors
    /// A socket failed permanently.
    pub(super) fn poll(
        &mut self,
        timeout: Duration,
        give: &mut impl FnMut(TzspDatagram<'_>),
    ) -> Result<Drained, TzspError> {
        if self.busy && self.buffer() >= Self::BUFFER_NEEDED {
            std::thread::sleep(PAUSE.min(timeout));
        }
        let ready = self.wait(timeout)?;
        let busy = ready.contains(&true);
        let mut drained = Drained::Yes;
        for (socket, ready) in self.sockets.iter_mut().zip(ready) {
            if !ready {
                socket.look_for_drops();
            } else if socket.receive(&mut self.recv_buffer, self.max_bytes, give)? == Drained::No {
                drained = Drained::No;
            }
        }
        self.busy = busy && drained == Drained::Yes;
        Ok(drained)
    }

    /// The ports, in the order of [`Sockets::open`].
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        self.sockets.iter().map(|socket| socket.port)
    }

    /// The smallest receive buffer of all ports, in bytes. Without `CAP_NET_ADMIN`, `net.core.rmem_max` limits it.
    pub(super) fn buffer(&self) -> usize {
        self.sockets.iter().map(|socket| socket.buffer).min().unwrap_or_default()
    }

    /// The counters of each port.
    pub(super) fn counters(&self) -> impl Iterator<Item = (u16, &TzspCounters)> {
        self.sockets.iter().map(|socket| (socket.port, &socket.counters))
    }

    /// Datagrams of each port that the kernel dropped because the receive buffer was full. Datagrams that segmentation
    /// offload merged count as one.
    pub(super) fn dropped(&self) -> impl Iterator<Item = (u16, u64)> {
        self.sockets.iter().map(|socket| (socket.port, socket.dropped))
    }

    /// Which sockets are readable, in the order of the sockets.
    fn wait(&self, timeout: Duration) -> Result<Vec<bool>, TzspError> {
        let mut sockets: Vec<_> =
            self.sockets.iter().map(|socket| PollFd::new(&socket.socket, PollFlags::IN)).collect();
        let timeout = Timespec::try_from(timeout).ok();
        match poll(&mut sockets, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(TzspError::Wait(error.into())),
        }
        Ok(sockets.iter().map(|socket| !socket.revents().is_empty()).collect())
    }
}

impl PortSocket {
    fn open(port: u16) -> Result<Self, TzspError> {
        let socket = bind(port).map_err(|error| TzspError::Bind { port, error })?;
        enable(&socket, sockopt::ReceiveTimestampns, &true, "SO_TIMESTAMPNS", port)?;
        enable(&socket, sockopt::RxqOvfl, &1, "SO_RXQ_OVFL", port)?;
        // Optional, since Linux 5.0: it saves time.
        let _ = setsockopt(&socket, sockopt::UdpGroSegment, &true);
        let port =
            socket.local_addr().ok().and_then(|address| address.as_socket()).map_or(port, |a| a.port());
        let buffer = enlarge_buffer(&socket).map_err(|error| TzspError::Option {
            option: "SO_RCVBUF",
            port,
            error,
        })?;
        Ok(Self { socket, port, buffer, dropped: 0, dropped_low: 0, counters: TzspCounters::default() })
    }

    /// Receives what the socket has, until that is `max_bytes`.
    fn receive(
        &mut self,
        buffer: &mut RecvBuffer,
        max_bytes: usize,
        give: &mut impl FnMut(TzspDatagram<'_>),
    ) -> Result<Drained, TzspError> {
        let mut received = 0;
        for _ in 0..ROUNDS {
            let more = match buffer.receive(self.socket.as_fd()) {
                Ok(more) => more,
                // An ICMP error that a datagram of ours caused, or a signal.
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(TzspError::Receive { port: self.port, error }),
            };
            for message in buffer.messages() {
                received += message.bytes.len();
                self.take(&message, give);
            }
            if !more {
                return Ok(Drained::Yes);
            }
            if received >= max_bytes {
                break;
            }
        }
        Ok(Drained::No)
    }

    /// Splits a message into datagrams, and unpacks their packets.
    #[inline]
    fn take(&mut self, message: &ReceivedMessage<'_>, give: &mut impl FnMut(TzspDatagram<'_>)) {
        if let Some(dropped) = message.dropped {
            self.note_drops(dropped);
        }
        let meta = DatagramMeta {
            sender: message.sender.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            listen_port: self.port,
            time: message.time.unwrap_or_else(now),
            missing: 0,
        };
        match message.segment {
            Some(len) if len < message.bytes.len() => {
                for segment in message.bytes.chunks(len) {
                    self.counters.unpack(meta, segment, give);
                }
            }
            _ => self.counters.unpack(meta, message.bytes, give),
        }
    }

    /// The kernel reports drops only with the next datagram. When none follows, they are read here.
    fn look_for_drops(&mut self) {
        if let Ok(memory) = getsockopt(&self.socket, SocketMemory) {
            self.note_drops(memory[SK_MEMINFO_DROPS]);
        }
    }

    /// The kernel's counter of 32 bits reads `low`.
    fn note_drops(&mut self, low: u32) {
        self.dropped += u64::from(low.wrapping_sub(self.dropped_low));
        self.dropped_low = low;
    }
}

/// The counters of a socket's memory (linux/sock_diag.h), since Linux 4.12.
type MemoryInfo = [u32; 9];

/// The index of the dropped datagrams in [`MemoryInfo`].
const SK_MEMINFO_DROPS: usize = 8;

sockopt_impl!(
    /// Reads the counters of a socket's memory.
    SocketMemory, GetOnly, libc::SOL_SOCKET, libc::SO_MEMINFO, MemoryInfo
);

/// Sets a required socket option.
fn enable<O: SetSockOpt>(
    socket: &Socket,
    option: O,
    value: &O::Val,
    name: &'static str,
    port: u16,
) -> Result<(), TzspError> {
    setsockopt(socket, option, value).map_err(|errno| TzspError::Option {
        option: name,
        port,
        error: errno.into(),
    })
}

/// A socket on `port` of all addresses: of both families, if the host has both.
fn bind(port: u16) -> io::Result<Socket> {
    let both = || {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_only_v6(false)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
        Ok(socket)
    };
    both().or_else(|error: io::Error| {
        if error.kind() == io::ErrorKind::AddrInUse {
            return Err(error);
        }
        // The kernel has no IPv6, or it is disabled.
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
        Ok(socket)
    })
}

/// Requests a large receive buffer, and returns the size that the kernel granted, in bytes.
fn enlarge_buffer(socket: &Socket) -> io::Result<usize> {
    // The first ignores `net.core.rmem_max` and needs CAP_NET_ADMIN. The second is limited by it, without an error.
    setsockopt(socket, sockopt::RcvBufForce, &BUFFER_WANTED)
        .or_else(|_| setsockopt(socket, sockopt::RcvBuf, &BUFFER_WANTED))?;
    // The kernel doubles the value for its own bookkeeping, and returns the double (socket(7)).
    Ok(socket.recv_buffer_size()? / 2)
}

/// Whether the next call may succeed.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use packet::tzsp::{TzspHeader, encode};

    use super::*;

    /// The sender and the length of each packet.
    fn poll_for(sockets: &mut Sockets, packets: usize) -> Vec<(IpAddr, usize)> {
        let mut given = Vec::new();
        while given.len() < packets {
            let before = given.len();
            let mut give = |datagram: TzspDatagram<'_>| given.push((datagram.sender, datagram.bytes.len()));
            // Loopback delivers before `send` returns: the timeout only ends a test that fails.
            sockets.poll(Duration::from_secs(10), &mut give).unwrap();
            assert!(given.len() > before, "{} of {packets} packets came", given.len());
        }
        given
    }

    fn datagram(len: usize) -> Vec<u8> {
        let mut datagram = Vec::new();
        encode(&TzspHeader::ROUTER_OS, &vec![0xaa; len], &mut datagram);
        datagram
    }

    #[test]
    fn receives_from_both_families_on_several_ports() {
        let mut sockets = Sockets::open(&[0, 0]).unwrap();
        let ports: Vec<_> = sockets.ports().collect();
        let router = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut expected = Vec::new();
        for (len, &port) in ports.iter().enumerate().map(|(number, port)| (number + 1, port)) {
            router.send_to(&datagram(len), ("127.0.0.1", port)).unwrap();
            expected.push((IpAddr::V4(Ipv4Addr::LOCALHOST), len));
        }
        // If the host has IPv6.
        if let Ok(router) = UdpSocket::bind("[::1]:0") {
            router.send_to(&datagram(7), ("::1", ports[1])).unwrap();
            expected.push((IpAddr::V6(Ipv6Addr::LOCALHOST), 7));
        }
        assert_eq!(poll_for(&mut sockets, expected.len()), expected);
        assert!(sockets.buffer() > 0);
    }

    #[test]
    fn merged_datagrams_are_split() {
        let mut sockets = Sockets::open(&[0]).unwrap();
        let port = sockets.ports().next().unwrap();
        let router = UdpSocket::bind("127.0.0.1:0").unwrap();
        router.connect(("127.0.0.1", port)).unwrap();
        let train = [datagram(100), datagram(100), datagram(60)].concat();
        setsockopt(&router, sockopt::UdpGsoSegment, &105).unwrap();
        router.send(&train).unwrap();
        let lens: Vec<_> = poll_for(&mut sockets, 3).into_iter().map(|(_, len)| len).collect();
        assert_eq!(lens, [100, 100, 60]);
    }

    #[test]
    fn a_poll_receives_a_bounded_amount() {
        let mut sockets = Sockets::open(&[0]).unwrap();
        sockets.max_bytes = 10_000;
        let port = sockets.ports().next().unwrap();
        let router = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..60 {
            router.send_to(&datagram(1000), ("127.0.0.1", port)).unwrap();
        }
        let mut poll = || {
            let mut packets = 0;
            let drained = sockets.poll(Duration::from_secs(10), &mut |_| packets += 1).unwrap();
            (packets, drained)
        };
        // One system call receives 32.
        assert_eq!([poll(), poll()], [(32, Drained::No), (28, Drained::Yes)]);
    }

    #[test]
    fn datagrams_without_a_packet_are_counted() {
        let mut sockets = Sockets::open(&[0]).unwrap();
        let port = sockets.ports().next().unwrap();
        let router = UdpSocket::bind("127.0.0.1:0").unwrap();
        for bytes in [&[1, 4, 0, 0][..], &[9, 9, 9, 9], &[], &datagram(1)] {
            router.send_to(bytes, ("127.0.0.1", port)).unwrap();
        }
        poll_for(&mut sockets, 1);
        let expected = TzspCounters {
            datagrams: 4,
            packets: 1,
            keepalives: 1,
            errors: [1, 1, 0, 0, 0, 0],
            truncated: 0,
        };
        assert_eq!(sockets.counters().collect::<Vec<_>>(), [(port, &expected)]);
    }

    #[test]
    fn drops_are_known_without_a_further_datagram() {
        let mut sockets = Sockets::open(&[0]).unwrap();
        let port = sockets.ports().next().unwrap();
        setsockopt(&sockets.sockets[0].socket, sockopt::RcvBuf, &4096).unwrap();
        let router = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..100 {
            router.send_to(&datagram(1000), ("127.0.0.1", port)).unwrap();
        }
        let mut packets = 0;
        while sockets.wait(Duration::ZERO).unwrap()[0] {
            sockets.poll(Duration::ZERO, &mut |_| packets += 1).unwrap();
        }
        sockets.poll(Duration::ZERO, &mut |_| panic!("more datagrams")).unwrap();
        assert!(packets < 100);
        assert_eq!(sockets.dropped().collect::<Vec<_>>(), [(port, 100 - packets)]);
    }
}
