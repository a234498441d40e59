//! TZSP from UDP sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::ancillary::{self, Ancillary};
use super::inbox::{self, Inbox, Message};
use super::{Counters, Datagram, Envelope};
use crate::outlet::now;

/// The receive buffer that is asked for: a third of a second at a gigabit a second of small datagrams.
const BUFFER_WANTED: usize = 16 << 20;

/// Calls of `recvmmsg` on one socket before the others, and the caller, have their turn.
const ROUNDS: usize = 64;

/// How long to look away after something came, so that more than a few datagrams have come the next time: waking up for
/// every one costs more than all the rest. A buffer of [`Sockets::BUFFER_NEEDED`] lasts for several times as long at any
/// rate that one core can take, and a batch waits for fifty times as long.
const PAUSE: Duration = Duration::from_millis(1);

/// One or more UDP ports on which routers send TZSP.
pub struct Sockets {
    listeners: Vec<Listener>,
    inbox: Inbox,
    /// Whether the last poll gave something.
    busy: bool,
}

/// Whether everything that had come was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Everything.
    Yes,
    /// There may be more.
    No,
}

/// A port.
struct Listener {
    socket: Socket,
    port: u16,
    /// The size of the receive buffer that the kernel gave.
    buffer: usize,
    /// Datagrams that the kernel dropped as the buffer was full, and its counter when it was last looked at.
    dropped: u64,
    dropped_low: u32,
    counters: Counters,
}

/// What went wrong with a port.
#[derive(Debug, thiserror::Error)]
pub enum TzspError {
    /// The port cannot be listened on.
    #[error("TZSP_PORT: cannot listen on UDP port {port}: {error}")]
    Bind {
        /// The port.
        port: u16,
        /// Why.
        error: io::Error,
    },
    /// The port's socket refuses an option that cannot be done without.
    #[error("TZSP_PORT: cannot set {option} on UDP port {port}: {error}")]
    Option {
        /// The option.
        option: &'static str,
        /// The port.
        port: u16,
        /// Why.
        error: io::Error,
    },
    /// Nothing can be received any more.
    #[error("cannot receive on UDP port {port}: {error}")]
    Receive {
        /// The port.
        port: u16,
        /// Why.
        error: io::Error,
    },
    /// Waiting for datagrams failed.
    #[error("cannot wait for UDP datagrams: {0}")]
    Wait(io::Error),
}

impl Sockets {
    /// The receive buffer below which datagrams get lost at rates that occur, in bytes: with 208 KiB, which is what Linux
    /// gives by default, some do at every rate.
    pub const BUFFER_NEEDED: usize = 4 << 20;

    /// Listens on `ports`, on all addresses, of IPv6 too where the machine has it. Port 0 stands for any that is free.
    ///
    /// # Errors
    /// A port is taken, or may not be listened on.
    pub fn open(ports: &[u16]) -> Result<Self, TzspError> {
        let listeners = ports.iter().map(|&port| Listener::open(port)).collect::<Result<_, _>>()?;
        Ok(Self { listeners, inbox: Inbox::new(), busy: false })
    }

    /// Waits for datagrams, for `timeout` at most, and gives the packets of those that came. Comes back early when the
    /// call was interrupted by a signal.
    ///
    /// # Errors
    /// A socket failed in a way that will not pass.
    pub fn poll(
        &mut self,
        timeout: Duration,
        give: &mut impl FnMut(Datagram<'_>),
    ) -> Result<Drained, TzspError> {
        if self.busy && self.buffer() >= Self::BUFFER_NEEDED {
            std::thread::sleep(PAUSE.min(timeout));
        }
        let ready = self.wait(timeout)?;
        self.busy = ready.contains(&true);
        let mut drained = Drained::Yes;
        for (listener, ready) in self.listeners.iter_mut().zip(ready) {
            if !ready {
                listener.look_for_drops();
            } else if listener.receive(&mut self.inbox, give)? == Drained::No {
                drained = Drained::No;
            }
        }
        Ok(drained)
    }

    /// The ports, in the order in which they were given to [`Sockets::open`].
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.listeners.iter().map(|listener| listener.port)
    }

    /// The smallest receive buffer of all ports, in bytes. Less than [`Sockets::BUFFER_NEEDED`] deserves a warning:
    /// without `CAP_NET_ADMIN`, `net.core.rmem_max` is the limit.
    #[must_use]
    pub fn buffer(&self) -> usize {
        self.listeners.iter().map(|listener| listener.buffer).min().unwrap_or_default()
    }

    /// What became of the datagrams of each port.
    pub fn counters(&self) -> impl Iterator<Item = (u16, &Counters)> {
        self.listeners.iter().map(|listener| (listener.port, &listener.counters))
    }

    /// Datagrams of each port that the kernel dropped, since nobody took them from the receive buffer in time. Whose they
    /// were it does not say. What segmentation offload put together counts as one.
    pub fn dropped(&self) -> impl Iterator<Item = (u16, u64)> {
        self.listeners.iter().map(|listener| (listener.port, listener.dropped))
    }

    /// Which sockets have something, by the order of the listeners.
    fn wait(&self, timeout: Duration) -> Result<Vec<bool>, TzspError> {
        let mut sockets: Vec<_> =
            self.listeners.iter().map(|listener| PollFd::new(&listener.socket, PollFlags::IN)).collect();
        let timeout = Timespec::try_from(timeout).ok();
        match poll(&mut sockets, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(TzspError::Wait(error.into())),
        }
        Ok(sockets.iter().map(|socket| !socket.revents().is_empty()).collect())
    }
}

impl Listener {
    fn open(port: u16) -> Result<Self, TzspError> {
        let socket = bind(port).map_err(|error| TzspError::Bind { port, error })?;
        let option = |level, name, option| {
            inbox::set_option(socket.as_fd(), level, name, 1).map_err(|error| TzspError::Option {
                option,
                port,
                error,
            })
        };
        option(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, "SO_TIMESTAMPNS")?;
        option(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, "SO_RXQ_OVFL")?;
        // Kernels before 5.0 do without: it only saves time.
        let _ = option(libc::SOL_UDP, libc::UDP_GRO, "UDP_GRO");
        let port =
            socket.local_addr().ok().and_then(|address| address.as_socket()).map_or(port, |a| a.port());
        let buffer = enlarge_buffer(&socket).map_err(|error| TzspError::Option {
            option: "SO_RCVBUF",
            port,
            error,
        })?;
        Ok(Self { socket, port, buffer, dropped: 0, dropped_low: 0, counters: Counters::default() })
    }

    /// Takes what the socket has.
    fn receive(
        &mut self,
        inbox: &mut Inbox,
        give: &mut impl FnMut(Datagram<'_>),
    ) -> Result<Drained, TzspError> {
        for _ in 0..ROUNDS {
            let more = match inbox.receive(self.socket.as_fd()) {
                Ok(more) => more,
                // A sender's host said that a port is closed, which is of no interest to who only receives; or a signal.
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(TzspError::Receive { port: self.port, error }),
            };
            for message in inbox.messages() {
                self.take(&message, give);
            }
            if !more {
                return Ok(Drained::Yes);
            }
        }
        Ok(Drained::No)
    }

    /// Takes a message apart, into datagrams and packets.
    #[inline]
    fn take(&mut self, message: &Message<'_>, give: &mut impl FnMut(Datagram<'_>)) {
        let told = Ancillary::read(message.control);
        if let Some(dropped) = told.dropped {
            self.note_drops(dropped);
        }
        let envelope = Envelope {
            sender: ancillary::sender(message.name).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            listen_port: self.port,
            time: told.time.unwrap_or_else(now),
            missing: 0,
        };
        match told.segment {
            Some(len) if len < message.bytes.len() => {
                for segment in message.bytes.chunks(len) {
                    self.counters.unpack(envelope, segment, give);
                }
            }
            _ => self.counters.unpack(envelope, message.bytes, give),
        }
    }

    /// The kernel tells of drops with the next datagram. After the last one it has to be asked.
    fn look_for_drops(&mut self) {
        if let Ok(dropped) = inbox::dropped(self.socket.as_fd()) {
            self.note_drops(dropped);
        }
    }

    /// The kernel's counter says `low`, in which it wraps around.
    fn note_drops(&mut self, low: u32) {
        self.dropped += u64::from(low.wrapping_sub(self.dropped_low));
        self.dropped_low = low;
    }
}

/// A socket on `port` of all addresses: one of both families, if there are both.
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
        // IPv6 is not compiled in, or switched off.
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
        Ok(socket)
    })
}

/// Makes the receive buffer as large as is wanted and allowed, and returns its size.
fn enlarge_buffer(socket: &Socket) -> io::Result<usize> {
    let wanted = BUFFER_WANTED as i32;
    // The first goes beyond `net.core.rmem_max`, and needs CAP_NET_ADMIN. The second is cut there without an error.
    inbox::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, wanted)
        .or_else(|_| inbox::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, wanted))?;
    // The kernel doubles what it is told, for its own bookkeeping, and reports the double (socket(7)).
    Ok(socket.recv_buffer_size()? / 2)
}

/// Whether an error says nothing about the next call.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use packet::tzsp::{Header, encode};

    use super::*;

    /// What was given: the sender, and the length of the packet.
    fn poll_for(sockets: &mut Sockets, packets: usize) -> Vec<(IpAddr, usize)> {
        let mut given = Vec::new();
        while given.len() < packets {
            let before = given.len();
            let mut give = |datagram: Datagram<'_>| given.push((datagram.sender, datagram.bytes.len()));
            // Loopback delivers before `send` returns: the timeout only ends a test that fails.
            sockets.poll(Duration::from_secs(10), &mut give).unwrap();
            assert!(given.len() > before, "{} of {packets} packets came", given.len());
        }
        given
    }

    fn datagram(len: usize) -> Vec<u8> {
        let mut datagram = Vec::new();
        encode(&Header::ROUTER_OS, &vec![0xaa; len], &mut datagram);
        datagram
    }

    #[test]
    fn routers_of_both_families_on_several_ports() {
        let mut sockets = Sockets::open(&[0, 0]).unwrap();
        let ports: Vec<_> = sockets.ports().collect();
        let router = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut expected = Vec::new();
        for (len, &port) in ports.iter().enumerate().map(|(number, port)| (number + 1, port)) {
            router.send_to(&datagram(len), ("127.0.0.1", port)).unwrap();
            expected.push((IpAddr::V4(Ipv4Addr::LOCALHOST), len));
        }
        // Where there is IPv6 at all.
        if let Ok(router) = UdpSocket::bind("[::1]:0") {
            router.send_to(&datagram(7), ("::1", ports[1])).unwrap();
            expected.push((IpAddr::V6(Ipv6Addr::LOCALHOST), 7));
        }
        assert_eq!(poll_for(&mut sockets, expected.len()), expected);
        assert!(sockets.buffer() > 0);
    }

    #[test]
    fn offloaded_datagrams_are_cut_again() {
        let mut sockets = Sockets::open(&[0]).unwrap();
        let port = sockets.ports().next().unwrap();
        let router = UdpSocket::bind("127.0.0.1:0").unwrap();
        router.connect(("127.0.0.1", port)).unwrap();
        let train = [datagram(100), datagram(100), datagram(60)].concat();
        inbox::set_option(router.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 105).unwrap();
        router.send(&train).unwrap();
        let lens: Vec<_> = poll_for(&mut sockets, 3).into_iter().map(|(_, len)| len).collect();
        assert_eq!(lens, [100, 100, 60]);
    }

    #[test]
    fn what_gives_no_packet_is_counted() {
        let mut sockets = Sockets::open(&[0]).unwrap();
        let port = sockets.ports().next().unwrap();
        let router = UdpSocket::bind("127.0.0.1:0").unwrap();
        for bytes in [&[1, 4, 0, 0][..], &[9, 9, 9, 9], &[], &datagram(1)] {
            router.send_to(bytes, ("127.0.0.1", port)).unwrap();
        }
        poll_for(&mut sockets, 1);
        let expected =
            Counters { datagrams: 4, packets: 1, idle: 1, errors: [1, 1, 0, 0, 0, 0], incomplete: 0 };
        assert_eq!(sockets.counters().collect::<Vec<_>>(), [(port, &expected)]);
    }

    #[test]
    fn what_does_not_fit_the_buffer_is_known_when_all_is_quiet() {
        let mut sockets = Sockets::open(&[0]).unwrap();
        let port = sockets.ports().next().unwrap();
        let small =
            inbox::set_option(sockets.listeners[0].socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 4096);
        small.unwrap();
        let router = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..100 {
            router.send_to(&datagram(1000), ("127.0.0.1", port)).unwrap();
        }
        let mut packets = 0;
        while sockets.wait(Duration::ZERO).unwrap()[0] {
            sockets.poll(Duration::ZERO, &mut |_| packets += 1).unwrap();
        }
        sockets.poll(Duration::ZERO, &mut |_| panic!("there was more")).unwrap();
        assert!(packets < 100);
        assert_eq!(sockets.dropped().collect::<Vec<_>>(), [(port, 100 - packets)]);
    }
}
