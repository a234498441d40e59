//! Many datagrams with one system call, `recvmmsg`(2).

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, recvmmsg};
use nix::sys::time::TimeSpec;
use packet::Timestamp;

/// Datagrams received with one call. More would not save anything, and their bytes would no longer fit into the cache.
const MESSAGES: usize = 32;

/// The longest UDP payload, which is also the most that `UDP_GRO` puts together.
const MESSAGE_LEN: usize = 65_535;

/// Bytes from one message to the next. A power of two would map the start of every message to the same few cache sets.
const STRIDE: usize = 65_536 + 33 * 64;

/// Buffers for datagrams and their metadata.
#[derive(Debug)]
pub(super) struct RecvBuffer {
    bytes: Box<[u8]>,
    received: Vec<Ancillary>,
}

/// The metadata of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ancillary {
    len: usize,
    sender: Option<IpAddr>,
    time: Option<Timestamp>,
    dropped: Option<u32>,
    segment: Option<usize>,
}

/// One datagram, or several of one length.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceivedMessage<'a> {
    /// The payload.
    pub(super) bytes: &'a [u8],
    /// The source address. IPv4 addresses are IPv4, also on a socket of both families.
    pub(super) sender: Option<IpAddr>,
    /// When it was received (`SO_TIMESTAMPNS`, socket(7)).
    pub(super) time: Option<Timestamp>,
    /// Datagrams that the socket had dropped by then, modulo 2^32 (`SO_RXQ_OVFL`, socket(7)). Absent before the first
    /// drop.
    pub(super) dropped: Option<u32>,
    /// The payload is several datagrams of this length, the last of which may be shorter (`UDP_GRO`, udp(7)).
    pub(super) segment: Option<usize>,
}

impl RecvBuffer {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; MESSAGES * STRIDE].into_boxed_slice(), received: Vec::with_capacity(MESSAGES) }
    }

    /// Receives what the socket has, as far as the buffer allows, without waiting. Returns whether the socket may have
    /// more.
    ///
    /// # Errors
    /// Any error of `recvmmsg` except `EAGAIN`.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        self.received.clear();
        // Made for each call: the kernel writes the lengths it used into the headers, and the crate does not reset them.
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(
            MESSAGES,
            Some(cmsg_space!(libc::timespec, u32, libc::c_int)),
        );
        let mut slices: Vec<_> = self
            .bytes
            .chunks_exact_mut(STRIDE)
            .filter_map(|chunk| chunk.get_mut(..MESSAGE_LEN))
            .map(|chunk| [IoSliceMut::new(chunk)])
            .collect();
        match recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, MsgFlags::MSG_DONTWAIT, None) {
            Ok(messages) => self.received.extend(messages.map(|message| ancillary(&message))),
            Err(Errno::EAGAIN) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        Ok(self.received.len() == MESSAGES)
    }

    /// What the last call received.
    pub(super) fn messages(&self) -> impl Iterator<Item = ReceivedMessage<'_>> {
        self.bytes.chunks_exact(STRIDE).zip(&self.received).map(|(bytes, told)| ReceivedMessage {
            bytes: bytes.get(..told.len).unwrap_or(bytes),
            sender: told.sender,
            time: told.time,
            dropped: told.dropped,
            segment: told.segment,
        })
    }
}

fn ancillary(message: &RecvMsg<'_, '_, SockaddrStorage>) -> Ancillary {
    let mut told = Ancillary {
        len: message.bytes,
        sender: message.address.as_ref().and_then(sender),
        ..Ancillary::default()
    };
    // Control messages that did not fit are lost; the datagram is not.
    for control in message.cmsgs().into_iter().flatten() {
        match control {
            ControlMessageOwned::ScmTimestampns(time) => told.time = timestamp(time),
            ControlMessageOwned::RxqOvfl(dropped) => told.dropped = Some(dropped),
            ControlMessageOwned::UdpGroSegments(len) => {
                told.segment = usize::try_from(len).ok().filter(|&len| len > 0);
            }
            _ => {}
        }
    }
    told
}

fn sender(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(IpAddr::V4(v4.ip()));
    }
    let v6: Ipv6Addr = address.as_sockaddr_in6()?.ip();
    Some(IpAddr::V6(v6).to_canonical())
}

fn timestamp(time: TimeSpec) -> Option<Timestamp> {
    let (secs, nanos) = (u64::try_from(time.tv_sec()).ok()?, u64::try_from(time.tv_nsec()).ok()?);
    Some(Timestamp::from_nanos(secs.saturating_mul(1_000_000_000).saturating_add(nanos)))
}
