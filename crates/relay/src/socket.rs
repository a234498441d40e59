//! The options of the relay's two sockets.

use std::time::Duration;

use batch::MAX_MESSAGE;

/// Messages that a PULL socket queues for each connection. The collector's memory, and what is lost when it is killed,
/// are connections × this × the size of a batch; higher marks are not faster.
const RECEIVE_HIGH_WATER_MARK: i32 = 4;

/// Connections that wait until ZeroMQ has accepted them; the system's limit may be lower (`net.core.somaxconn`, 4096
/// since Linux 5.4).
const BACKLOG: i32 = 4096;

/// How long ZeroMQ sends what is left after the socket is closed. The sender waits for its messages itself; this covers
/// the last few bytes in ZeroMQ's own buffer.
const PUSH_LINGER: Duration = Duration::from_secs(1);

/// Time between ZeroMQ's attempts to connect. Always the same: captures that find a new collector together are merged in
/// order from the start.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(50);

/// A PUSH socket whose queue holds up to `high_water_mark` messages.
pub(crate) fn push(context: &zmq::Context, high_water_mark: usize) -> Result<zmq::Socket, zmq::Error> {
    let socket = context.socket(zmq::PUSH)?;
    socket.set_sndhwm(i32::try_from(high_water_mark).unwrap_or(i32::MAX))?;
    // What ZeroMQ holds outlives a lost connection, and is sent over the next one.
    socket.set_immediate(false)?;
    socket.set_reconnect_ivl(RECONNECT_INTERVAL.as_millis() as i32)?;
    set_shared_options(&socket, PUSH_LINGER)?;
    Ok(socket)
}

/// A PULL socket.
pub(crate) fn pull(context: &zmq::Context) -> Result<zmq::Socket, zmq::Error> {
    let socket = context.socket(zmq::PULL)?;
    socket.set_rcvhwm(RECEIVE_HIGH_WATER_MARK)?;
    socket.set_maxmsgsize(MAX_MESSAGE as i64)?;
    // Many captures may be waiting for a collector, and connect at once when it starts.
    socket.set_backlog(BACKLOG)?;
    set_shared_options(&socket, Duration::ZERO)?;
    Ok(socket)
}

fn set_shared_options(socket: &zmq::Socket, linger: Duration) -> Result<(), zmq::Error> {
    socket.set_linger(linger.as_millis() as i32)?;
    socket.set_ipv6(true)?;
    // A peer that vanished is noticed even when there is nothing to send. (ZMTP's own heartbeats would take a slow reader
    // for a dead one: its pongs wait behind the messages that it has not read yet.)
    socket.set_tcp_keepalive(1)?;
    socket.set_tcp_keepalive_idle(30)?;
    socket.set_tcp_keepalive_intvl(10)?;
    socket.set_tcp_keepalive_cnt(3)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_accepted() {
        let context = zmq::Context::new();
        assert_eq!(push(&context, 16).unwrap().get_sndhwm(), Ok(16));
        assert_eq!(pull(&context).unwrap().get_rcvhwm(), Ok(RECEIVE_HIGH_WATER_MARK));
    }

    /// Encryption must not need another build: `.cargo/config.toml` links a libzmq that has CURVE.
    #[test]
    fn libzmq_has_curve() {
        assert_eq!(zmq::has("curve"), Some(true));
    }
}
