//! The options of TCP connections.

use std::io;
use std::time::Duration;

use socket2::{Socket, TcpKeepalive};

/// Sets the options of a connection. A peer that vanished is noticed after a minute if nothing is sent: RFC 9293, section
/// 3.8.4. While sent data is not acknowledged, the kernel gives up after `tcp_retries2` attempts, by default in about 15
/// minutes. Small batches are not held back: RFC 9293, section 3.7.4.
pub(crate) fn set_options(socket: &Socket) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_nodelay(true)
}
