//! ZeroMQ's monitor: what happens to a socket's connections.

use std::io;
use std::thread::{self, JoinHandle};

use zmq::SocketEvent;

/// Where a context publishes the events of its one monitored socket.
const MONITOR_ADDRESS: &str = "inproc://monitor";

/// A change of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MonitorEvent {
    /// A peer connected; the ZMTP handshake follows.
    Accepted,
    /// The peer speaks ZMTP, and the socket types match.
    HandshakeSucceeded,
    /// The peer does not speak ZMTP, or refuses the connection.
    HandshakeFailed,
    /// The connection is gone.
    Disconnected,
    /// The socket is closed: the last event.
    Stopped,
}

const EVENTS: [(SocketEvent, MonitorEvent); 7] = [
    (SocketEvent::ACCEPTED, MonitorEvent::Accepted),
    (SocketEvent::HANDSHAKE_SUCCEEDED, MonitorEvent::HandshakeSucceeded),
    (SocketEvent::HANDSHAKE_FAILED_NO_DETAIL, MonitorEvent::HandshakeFailed),
    (SocketEvent::HANDSHAKE_FAILED_PROTOCOL, MonitorEvent::HandshakeFailed),
    (SocketEvent::HANDSHAKE_FAILED_AUTH, MonitorEvent::HandshakeFailed),
    (SocketEvent::DISCONNECTED, MonitorEvent::Disconnected),
    (SocketEvent::MONITOR_STOPPED, MonitorEvent::Stopped),
];

/// Why a socket cannot be monitored.
#[derive(Debug)]
pub(crate) enum MonitorError {
    /// ZeroMQ cannot monitor the socket.
    Socket(zmq::Error),
    /// The thread cannot be started.
    Thread(io::Error),
}

/// Starts a thread that calls `on_event` with each event and the endpoint it is about. It ends when the socket is closed.
pub(crate) fn start(
    context: &zmq::Context,
    socket: &zmq::Socket,
    thread_name: &str,
    mut on_event: impl FnMut(MonitorEvent, &str) + Send + 'static,
) -> Result<JoinHandle<()>, MonitorError> {
    let mask = EVENTS.iter().fold(0, |mask, (event, _)| mask | event.to_raw());
    socket.monitor(MONITOR_ADDRESS, mask.into()).map_err(MonitorError::Socket)?;
    let reader = context.socket(zmq::PAIR).map_err(MonitorError::Socket)?;
    reader.set_linger(0).map_err(MonitorError::Socket)?;
    reader.connect(MONITOR_ADDRESS).map_err(MonitorError::Socket)?;
    thread::Builder::new()
        .name(thread_name.to_owned())
        .spawn(move || read(&reader, &mut on_event))
        .map_err(MonitorError::Thread)
}

/// Reads every event up to the last: ZeroMQ's I/O thread blocks while a monitor's queue is full.
fn read(reader: &zmq::Socket, on_event: &mut impl FnMut(MonitorEvent, &str)) {
    loop {
        let parts = match reader.recv_multipart(0) {
            Ok(parts) => parts,
            Err(zmq::Error::EINTR) => continue,
            Err(_) => return,
        };
        match decode(&parts) {
            Some(MonitorEvent::Stopped) => return,
            Some(event) => {
                let endpoint = parts.get(1).map(|text| String::from_utf8_lossy(text));
                on_event(event, endpoint.as_deref().unwrap_or_default());
            }
            None => {}
        }
    }
}

/// Decodes an event, which comes in two parts: its number (`u16`) and value (`u32`), in native byte order,
/// then the endpoint: zmq_socket_monitor(3).
fn decode(parts: &[Vec<u8>]) -> Option<MonitorEvent> {
    let number = u16::from_ne_bytes(*parts.first()?.first_chunk()?);
    EVENTS.iter().find(|(event, _)| event.to_raw() == number).map(|(_, event)| *event)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(number: u16) -> Vec<Vec<u8>> {
        let mut event = number.to_ne_bytes().to_vec();
        event.extend(7_u32.to_ne_bytes());
        vec![event, b"tcp://127.0.0.1:7386".to_vec()]
    }

    #[test]
    fn events_are_decoded() {
        for (event, expected) in EVENTS {
            assert_eq!(decode(&parts(event.to_raw())), Some(expected));
        }
    }

    #[test]
    fn other_events_and_malformed_ones_are_ignored() {
        assert_eq!(decode(&parts(SocketEvent::LISTENING.to_raw())), None);
        assert_eq!(decode(&parts(0xffff)), None);
        assert_eq!(decode(&[vec![1]]), None);
        assert_eq!(decode(&[]), None);
    }

    #[test]
    fn the_thread_ends_with_the_socket() {
        let context = zmq::Context::new();
        let socket = context.socket(zmq::PUSH).unwrap();
        let thread = start(&context, &socket, "monitor", |_, _| {}).unwrap();
        drop(socket);
        thread.join().unwrap();
    }
}
