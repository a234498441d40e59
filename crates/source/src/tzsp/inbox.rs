//! Many datagrams with one system call.
//!
//! This file is about `recvmmsg` and the socket options that neither the standard library nor `socket2` nor `rustix` have,
//! so it calls `libc`. What the kernel writes is read elsewhere, safely, from bytes.

#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::ancillary::CONTROL_LEN;

/// Datagrams taken with one call. More save nothing, and their bytes would no longer fit into the cache.
const MESSAGES: usize = 32;

/// The longest UDP payload, which is also the most that `UDP_GRO` puts together.
const MESSAGE_LEN: usize = 65_535;

/// From one message's bytes to the next one's. Were it a power of two, all messages would begin in the same few sets of
/// the caches and push each other out.
const STRIDE: usize = 65_536 + 33 * 64;

/// The longest of `sockaddr_in` and `sockaddr_in6`.
const NAME_LEN: usize = 28;

/// Room for datagrams, with what the kernel tells of them.
pub(super) struct Inbox {
    bytes: Box<[u8]>,
    envelopes: Box<[Envelope; MESSAGES]>,
    received: usize,
}

/// What the kernel tells of a datagram. Control messages are aligned to words.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Envelope {
    control: [u8; CONTROL_LEN],
    name: [u8; NAME_LEN],
    control_len: usize,
    name_len: usize,
    len: usize,
}

/// A datagram, or several of one length.
pub(super) struct Message<'a> {
    /// What was received.
    pub(super) bytes: &'a [u8],
    /// A `sockaddr` of its sender.
    pub(super) name: &'a [u8],
    /// Control messages.
    pub(super) control: &'a [u8],
}

impl Inbox {
    pub(super) fn new() -> Self {
        let empty =
            Envelope { control: [0; CONTROL_LEN], name: [0; NAME_LEN], control_len: 0, name_len: 0, len: 0 };
        Self {
            bytes: vec![0; MESSAGES * STRIDE].into_boxed_slice(),
            envelopes: Box::new([empty; MESSAGES]),
            received: 0,
        }
    }

    /// Takes what a socket has, as far as there is room, and does not wait. Returns whether it may have more.
    ///
    /// # Errors
    /// What `recvmmsg` says, but for `EAGAIN`, which means that there was nothing.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        self.received = 0;
        let mut vectors: [libc::iovec; MESSAGES] =
            [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; MESSAGES];
        // SAFETY: an `mmsghdr` is integers and pointers, for which zero and null are values.
        let mut messages: [libc::mmsghdr; MESSAGES] = unsafe { MaybeUninit::zeroed().assume_init() };
        let rooms = self.bytes.chunks_exact_mut(STRIDE).zip(self.envelopes.iter_mut());
        for ((message, vector), (bytes, envelope)) in messages.iter_mut().zip(&mut vectors).zip(rooms) {
            *vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: MESSAGE_LEN };
            let header = &mut message.msg_hdr;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_name = envelope.name.as_mut_ptr().cast();
            header.msg_namelen = NAME_LEN as libc::socklen_t;
            header.msg_control = envelope.control.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_LEN as _;
        }
        // SAFETY: all pointers are to memory of `self` and of this frame, as long as their lengths say, that nothing else
        // refers to during the call. The kernel writes plain bytes and keeps no pointer.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                MESSAGES as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let Ok(received) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(false) } else { Err(error) };
        };
        for (envelope, message) in self.envelopes.iter_mut().zip(&messages).take(received) {
            envelope.len = message.msg_len as usize;
            envelope.name_len = message.msg_hdr.msg_namelen as usize;
            // Its type differs between C libraries.
            envelope.control_len = message.msg_hdr.msg_controllen as u64 as usize;
        }
        self.received = received;
        Ok(received == MESSAGES)
    }

    /// What the last call received.
    pub(super) fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        let rooms = self.bytes.chunks_exact(STRIDE).zip(self.envelopes.iter());
        rooms.take(self.received).map(|(bytes, envelope)| Message {
            bytes: bytes.get(..envelope.len).unwrap_or(bytes),
            name: envelope.name.get(..envelope.name_len).unwrap_or_default(),
            control: envelope.control.get(..envelope.control_len).unwrap_or_default(),
        })
    }
}

/// Sets a socket option whose value is an `int`.
///
/// # Errors
/// What `setsockopt` says.
pub(super) fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    let len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes from `value`, which lives until the call is over.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, ptr::from_ref(&value).cast::<libc::c_void>(), len)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many datagrams a socket has dropped so far, modulo 2^32: what `SO_RXQ_OVFL` tells only with the next datagram.
///
/// # Errors
/// What `getsockopt` says: kernels before 4.12 don't know `SO_MEMINFO`.
pub(super) fn dropped(socket: BorrowedFd<'_>) -> io::Result<u32> {
    /// The place of the drops in what `SO_MEMINFO` returns (`SK_MEMINFO_DROPS`, linux/sock_diag.h).
    const DROPS: usize = 8;
    let mut values = [0_u32; DROPS + 1];
    let mut len = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `values`, which has that many, and the length to `len`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result == 0 { Ok(values[DROPS]) } else { Err(io::Error::last_os_error()) }
}
