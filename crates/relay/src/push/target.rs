//! Where a relay connects to.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::{tcp, unix};

/// An address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Tcp(SocketAddr),
    /// As [`Endpoint::Ipc`](crate::Endpoint::Ipc) names it.
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(path) => write!(f, "ipc://{}", path.display()),
        }
    }
}

impl Target {
    /// Begins to connect. The socket becomes writable when that is over, and its error tells how it ended.
    ///
    /// # Errors
    /// It has failed already, or there is no file descriptor left.
    pub(super) fn connect(&self) -> io::Result<Socket> {
        let (address, domain, protocol) = match self {
            Self::Tcp(address) => {
                (SockAddr::from(*address), Domain::for_address(*address), Some(Protocol::TCP))
            }
            Self::Unix(path) => (unix::address(path)?, Domain::UNIX, None),
        };
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), protocol)?;
        if protocol.is_some() {
            tcp::set_options(&socket)?;
        }
        match socket.connect(&address) {
            Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => Ok(socket),
            done => done.map(|()| socket),
        }
    }
}
