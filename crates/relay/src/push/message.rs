//! A batch's memory, lent to ZeroMQ until it is sent.

#![expect(unsafe_code, reason = "the zmq crate has no message whose memory comes back to its owner")]

use std::ffi::c_void;
use std::mem;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Buffers that are kept for the next batch. Few are enough: one is filled while ZeroMQ sends others, and the longer
/// list of a burst goes back to the system.
const KEPT: usize = 8;

/// Memory of batches that have been sent, and what is known of those that are on their way.
#[derive(Debug)]
pub(super) struct Pool {
    free: Mutex<Vec<Vec<u8>>>,
    /// Buffers smaller than this are not worth keeping.
    worth: usize,
    in_flight_batches: AtomicUsize,
    in_flight_packets: AtomicU64,
    in_flight_bytes: AtomicUsize,
    pub(super) sent_batches: AtomicU64,
    pub(super) sent_packets: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    /// Packets that were given to ZeroMQ, and that it had no time to send at the end.
    pub(super) lost_packets: AtomicU64,
}

impl Pool {
    pub(super) fn new(batch_bytes: usize) -> Self {
        Self {
            free: Mutex::default(),
            worth: batch_bytes / 2,
            in_flight_batches: AtomicUsize::new(0),
            in_flight_packets: AtomicU64::new(0),
            in_flight_bytes: AtomicUsize::new(0),
            sent_batches: AtomicU64::new(0),
            sent_packets: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            lost_packets: AtomicU64::new(0),
        }
    }

    /// An empty buffer, whose memory a sent batch may have had.
    pub(super) fn take(&self) -> Vec<u8> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Takes the memory of a batch that is gone.
    pub(super) fn give(&self, mut buf: Vec<u8>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT && buf.capacity() >= self.worth {
            buf.clear();
            free.push(buf);
        }
    }

    /// Batches that ZeroMQ has, and the kernel has not yet.
    pub(super) fn in_flight_batches(&self) -> usize {
        self.in_flight_batches.load(Ordering::Acquire)
    }

    /// Packets in them.
    pub(super) fn in_flight_packets(&self) -> u64 {
        self.in_flight_packets.load(Ordering::Acquire)
    }

    /// Bytes of memory that they take.
    pub(super) fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes.load(Ordering::Acquire)
    }
}

/// A message whose memory belongs to us, and is ZeroMQ's until it has sent it.
pub(super) struct Message(zmq_sys::zmq_msg_t);

/// What comes back when ZeroMQ lets go of a message.
struct Lent {
    buf: Vec<u8>,
    packets: u64,
    pool: Arc<Pool>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        let pool = &self.pool;
        pool.in_flight_bytes.fetch_sub(self.buf.capacity(), Ordering::AcqRel);
        pool.in_flight_packets.fetch_sub(self.packets, Ordering::AcqRel);
        pool.give(mem::take(&mut self.buf));
        pool.in_flight_batches.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Called by ZeroMQ, on whichever of its threads is done with the message.
unsafe extern "C" fn release(_data: *mut c_void, hint: *mut c_void) {
    // SAFETY: `hint` is the box that `Message::new` leaked, and ZeroMQ calls this once.
    drop(unsafe { Box::from_raw(hint.cast::<Lent>()) });
}

impl Message {
    /// Lends `buf` to ZeroMQ.
    pub(super) fn new(buf: Vec<u8>, packets: u64, pool: &Arc<Pool>) -> Self {
        pool.in_flight_batches.fetch_add(1, Ordering::AcqRel);
        pool.in_flight_packets.fetch_add(packets, Ordering::AcqRel);
        pool.in_flight_bytes.fetch_add(buf.capacity(), Ordering::AcqRel);
        pool.sent_batches.fetch_add(1, Ordering::Relaxed);
        pool.sent_packets.fetch_add(packets, Ordering::Relaxed);
        pool.sent_bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        let lent = Box::into_raw(Box::new(Lent { buf, packets, pool: Arc::clone(pool) }));
        let mut message = zmq_sys::zmq_msg_t::default();
        // SAFETY: the buffer lies on the heap, is not touched until `release` is called, and `message` is ours to set up.
        // The call fails only where it has no memory for its bookkeeping; then it did not take over the buffer.
        unsafe {
            let (data, len) = ((*lent).buf.as_mut_ptr(), (*lent).buf.len());
            if zmq_sys::zmq_msg_init_data(&raw mut message, data.cast(), len, Some(release), lent.cast()) != 0
            {
                release(data.cast(), lent.cast());
                zmq_sys::zmq_msg_init(&raw mut message);
            }
        }
        Self(message)
    }

    /// Gives the message to the socket; where the socket does not take it now, it comes back.
    pub(super) fn send(mut self, socket: &mut zmq::Socket) -> Result<(), (zmq::Error, Self)> {
        // SAFETY: the message is set up, and the socket open. On success the message is empty afterwards, and closing an
        // empty one is allowed.
        let sent = unsafe {
            zmq_sys::zmq_msg_send(&raw mut self.0, socket.as_mut_ptr(), zmq_sys::ZMQ_DONTWAIT as i32)
        };
        if sent >= 0 {
            return Ok(());
        }
        // SAFETY: asks for this thread's last error.
        let error = zmq::Error::from_raw(unsafe { zmq_sys::zmq_errno() });
        Err((error, self))
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: the message was set up, and is closed once. Where it was not sent, `release` is called here.
        unsafe { zmq_sys::zmq_msg_close(&raw mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_when_it_is_sent() {
        let pool = Arc::new(Pool::new(1000));
        let context = zmq::Context::new();
        let receiver = context.socket(zmq::PULL).unwrap();
        let mut socket = context.socket(zmq::PUSH).unwrap();
        socket.set_sndhwm(1).unwrap();
        let unsent = Message::new(vec![7; 1000], 5, &pool);
        let Err((zmq::Error::EAGAIN, unsent)) = unsent.send(&mut socket) else { panic!("nobody is there") };
        assert_eq!((pool.in_flight_packets(), pool.in_flight_batches()), (5, 1));
        receiver.bind("inproc://memory").unwrap();
        socket.connect("inproc://memory").unwrap();
        assert!(unsent.send(&mut socket).is_ok());
        let received = receiver.recv_msg(0).unwrap();
        assert_eq!(
            (received.len(), pool.in_flight_packets()),
            (1000, 5),
            "within a process nothing is copied"
        );
        drop(received);
        assert_eq!((pool.in_flight_batches(), pool.in_flight_packets(), pool.in_flight_bytes()), (0, 0, 0));
        assert_eq!(pool.take().capacity(), 1000);
        assert_eq!(pool.take().capacity(), 0);
    }

    /// Encryption must not take another build: `.cargo/config.toml` links a libzmq that has CURVE.
    #[test]
    fn libzmq_has_curve() {
        assert_eq!(zmq::has("curve"), Some(true));
    }

    #[test]
    fn a_message_that_is_dropped_gives_its_memory_back() {
        let pool = Arc::new(Pool::new(1000));
        drop(Message::new(vec![7; 1000], 5, &pool));
        assert_eq!((pool.in_flight_batches(), pool.take().capacity()), (0, 1000));
    }
}
