//! A batch's memory, lent to ZeroMQ until it is sent.

#![expect(unsafe_code, reason = "the zmq crate has no message whose memory comes back to its owner")]

use std::ffi::c_void;
use std::mem;

use super::state::InFlight;

/// A ZeroMQ message whose memory is a batch's.
pub(super) struct LentMessage(zmq_sys::zmq_msg_t);

/// What ZeroMQ holds while it sends a message. [`release`] drops it, on ZeroMQ's I/O thread in most cases, so it must be
/// [`Send`].
struct Lent {
    buf: Vec<u8>,
    /// Declared last: the batch counts as in flight until its memory is back.
    in_flight: InFlight,
}

const _: () = {
    const fn assert_send<T: Send>() {}
    assert_send::<Lent>();
};

impl Drop for Lent {
    fn drop(&mut self) {
        self.in_flight.return_buffer(mem::take(&mut self.buf));
    }
}

/// Drops what was lent. ZeroMQ calls it once for each message: on its I/O thread when the kernel has the last byte, or on
/// the thread that closes a message that was not sent.
unsafe extern "C" fn release(_data: *mut c_void, hint: *mut c_void) {
    // SAFETY: `hint` is the box that `LentMessage::new` leaked; nothing else refers to it; it is `Send`.
    drop(unsafe { Box::from_raw(hint.cast::<Lent>()) });
}

impl LentMessage {
    /// Lends `buf` to ZeroMQ. `in_flight` is dropped when ZeroMQ is done with it.
    ///
    /// # Errors
    /// ZeroMQ has no memory for its bookkeeping; `buf` and `in_flight` are dropped.
    pub(super) fn new(buf: Vec<u8>, in_flight: InFlight) -> Result<Self, zmq::Error> {
        let lent = Box::into_raw(Box::new(Lent { buf, in_flight }));
        let mut message = zmq_sys::zmq_msg_t::default();
        // SAFETY: the buffer lies on the heap and is not touched until `release` is called; `message` is ours to
        // initialize. If the call fails, ZeroMQ keeps no reference to either.
        let result = unsafe {
            let (data, len) = ((*lent).buf.as_mut_ptr(), (*lent).buf.len());
            zmq_sys::zmq_msg_init_data(&raw mut message, data.cast(), len, Some(release), lent.cast())
        };
        if result == 0 {
            return Ok(Self(message));
        }
        let error = last_error();
        // SAFETY: ZeroMQ did not take over the box, so it is ours again.
        drop(unsafe { Box::from_raw(lent) });
        Err(error)
    }

    /// Passes the message to the socket.
    ///
    /// # Errors
    /// The socket does not accept it; the message is returned.
    pub(super) fn send(mut self, socket: &mut zmq::Socket) -> Result<(), (zmq::Error, Self)> {
        // SAFETY: the message is initialized and the socket open. After a success the message is empty, and closing an
        // empty message is allowed.
        let sent = unsafe {
            zmq_sys::zmq_msg_send(&raw mut self.0, socket.as_mut_ptr(), zmq_sys::ZMQ_DONTWAIT as i32)
        };
        if sent >= 0 { Ok(()) } else { Err((last_error(), self)) }
    }
}

/// The error of this thread's last call to ZeroMQ.
fn last_error() -> zmq::Error {
    // SAFETY: reads a variable of this thread.
    zmq::Error::from_raw(unsafe { zmq_sys::zmq_errno() })
}

impl Drop for LentMessage {
    fn drop(&mut self) {
        // SAFETY: the message is initialized, and closed once. If it was not sent, `release` is called here.
        unsafe { zmq_sys::zmq_msg_close(&raw mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use batch::SendInfo;

    use super::super::state::RelayState;
    use super::super::state::tests::{batch, state};
    use super::*;

    /// A message of one batch of five packets.
    fn message(state: &Arc<RelayState>) -> LentMessage {
        state.send(batch("a", 5, false));
        let (batch, _, in_flight) = state.take_batch().unwrap();
        LentMessage::new(batch.into_message(&SendInfo::default()), in_flight).unwrap()
    }

    #[test]
    fn memory_is_in_flight_until_the_receiver_drops_it() {
        let state = state();
        let context = zmq::Context::new();
        let receiver = context.socket(zmq::PULL).unwrap();
        let mut socket = context.socket(zmq::PUSH).unwrap();
        let Err((zmq::Error::EAGAIN, unsent)) = message(&state).send(&mut socket) else {
            panic!("sent without a connection")
        };
        assert_eq!(state.status().queued_packets, 5);
        receiver.bind("inproc://memory").unwrap();
        socket.connect("inproc://memory").unwrap();
        assert!(unsent.send(&mut socket).is_ok());
        // Within a process nothing is copied.
        let received = receiver.recv_msg(0).unwrap();
        assert_eq!(state.status().queued_packets, 5);
        drop(received);
        assert_eq!((state.status().queued_packets, state.status().queued_bytes), (0, 0));
        assert!(state.take_buffer().capacity() > 0);
        assert_eq!(state.take_buffer().capacity(), 0);
    }

    #[test]
    fn an_unsent_message_returns_its_memory() {
        let state = state();
        drop(message(&state));
        assert_eq!(state.status().queued_packets, 0);
        assert!(state.take_buffer().capacity() > 0);
    }
}
