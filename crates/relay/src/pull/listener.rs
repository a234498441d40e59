//! The sockets that a collector listens on.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::PullError;
use crate::Peer;
use crate::endpoint::BindAddress;
use crate::{tcp, unix};

/// Connections that wait until they are accepted; the system's limit may be lower (`net.core.somaxconn`, 4096 since Linux
/// 5.4). Many captures may be waiting for a collector, and connect at once when it starts.
const BACKLOG: i32 = 4096;

/// Where a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum PeerAddress {
    Ip(IpAddr),
    /// A process of this host, over a Unix domain socket.
    Local,
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Local => f.write_str("local"),
        }
    }
}

impl PeerAddress {
    pub(super) fn peer(self) -> Peer {
        match self {
            Self::Ip(address) => Peer::at(Some(address)),
            Self::Local => Peer::Other,
        }
    }
}

/// A listening socket. A Unix domain socket's file is removed when it is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Socket,
    file: Option<PathBuf>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let _ = fs::remove_file(file);
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Listener {
    /// Listens on an address.
    ///
    /// # Errors
    /// The address is in use by another program, or not available.
    pub(super) fn bind(address: &BindAddress) -> Result<Self, PullError> {
        let bound = match address {
            BindAddress::Any(port) => listen_on_any(*port),
            BindAddress::Tcp(address) => listen_on(*address),
            BindAddress::Unix(path) => return bind_unix(path, address),
        };
        match bound {
            Ok(socket) => Ok(Self { socket, file: None }),
            Err(why) if why.kind() == io::ErrorKind::AddrInUse => {
                Err(PullError::InUse { endpoint: address.to_string() })
            }
            Err(why) => Err(PullError::Bind { endpoint: address.to_string(), why }),
        }
    }

    /// Takes the next connection that waits; none if there is none.
    ///
    /// # Errors
    /// There is no file descriptor or memory left.
    pub(super) fn accept(&self) -> io::Result<Accepted> {
        let (socket, address) = match self.socket.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                return match error.raw_os_error().map(Errno::from_raw_os_error) {
                    Some(Errno::AGAIN) => Ok(Accepted::None),
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Err(error),
                    // accept(2): an error of the new connection, which is gone already, or an interruption.
                    _ => Ok(Accepted::Lost(error)),
                };
            }
        };
        match set_options(&socket, &address) {
            Ok(peer) => Ok(Accepted::Connection(socket, peer)),
            Err(error) => Ok(Accepted::Lost(error)),
        }
    }
}

/// What was accepted.
#[derive(Debug)]
pub(super) enum Accepted {
    /// A connection.
    Connection(Socket, PeerAddress),
    /// A connection that has ended already.
    Lost(io::Error),
    /// Nothing: no connection waits.
    None,
}

fn set_options(socket: &Socket, address: &SockAddr) -> io::Result<PeerAddress> {
    socket.set_nonblocking(true)?;
    let Some(address) = address.as_socket() else { return Ok(PeerAddress::Local) };
    tcp::set_options(socket)?;
    Ok(PeerAddress::Ip(address.ip().to_canonical()))
}

fn listen_on(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` is for IPv4 as well, whatever `net.ipv6.bindv6only` says.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn listen_on_any(port: u16) -> io::Result<Socket> {
    match listen_on((Ipv6Addr::UNSPECIFIED, port).into()) {
        // A host without IPv6.
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            listen_on((Ipv4Addr::UNSPECIFIED, port).into())
        }
        bound => bound,
    }
}

/// Listens on a path. The file of a collector that was killed is replaced; nothing else is.
fn bind_unix(path: &Path, address: &BindAddress) -> Result<Listener, PullError> {
    let failed = |why| PullError::Bind { endpoint: address.to_string(), why };
    let sockaddr = unix::address(path).map_err(failed)?;
    let file = (!unix::is_abstract(path)).then(|| path.to_owned());
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).map_err(failed)?;
    match socket.bind(&sockaddr) {
        Ok(()) => {}
        Err(why) if why.kind() == io::ErrorKind::AddrInUse => {
            let Some(file) = &file else { return Err(PullError::InUse { endpoint: address.to_string() }) };
            remove_stale(file, &sockaddr, address)?;
            socket.bind(&sockaddr).map_err(failed)?;
        }
        Err(why) => return Err(failed(why)),
    }
    let listener = Listener { socket, file };
    listener.socket.listen(BACKLOG).map_err(failed)?;
    Ok(listener)
}

/// Removes the file of a socket without a listener.
fn remove_stale(file: &Path, sockaddr: &SockAddr, address: &BindAddress) -> Result<(), PullError> {
    let failed = |why| PullError::Bind { endpoint: address.to_string(), why };
    if !fs::symlink_metadata(file).map_err(failed)?.file_type().is_socket() {
        return Err(PullError::NotASocket { path: file.to_owned() });
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).map_err(failed)?;
    match probe.connect(sockaddr) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(file).map_err(failed)
        }
        _ => Err(PullError::InUse { endpoint: address.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> BindAddress {
        BindAddress::Unix(path.into())
    }

    fn error(address: &BindAddress) -> String {
        Listener::bind(address).unwrap_err().to_string()
    }

    #[test]
    fn only_the_file_of_a_dead_socket_is_replaced() {
        let path = std::env::temp_dir().join(format!("pcktr-listener-{}", std::process::id()));
        let address = BindAddress::Unix(path.clone());
        fs::write(&path, "data").unwrap();
        assert!(
            error(&address).ends_with("is a file, but no socket: choose another path, or remove the file")
        );
        assert_eq!(fs::read(&path).unwrap(), b"data");
        fs::remove_file(&path).unwrap();

        let first = Listener::bind(&address).unwrap();
        assert!(error(&address).contains("is in use by another program"));
        // As if the process had been killed.
        let mut first = first;
        first.file = None;
        drop(first);
        assert!(path.exists());
        let second = Listener::bind(&address).unwrap();
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn abstract_names_have_no_file() {
        let name = format!("@pcktr-listener-{}", std::process::id());
        let first = Listener::bind(&at(&name)).unwrap();
        assert_eq!(first.file, None);
        assert!(error(&at(&name)).contains("is in use by another program"));
        assert!(matches!(first.accept(), Ok(Accepted::None)));
    }

    #[test]
    fn a_port_is_bound_once() {
        let first = Listener::bind(&BindAddress::Any(0)).unwrap();
        let address = first.socket.local_addr().unwrap().as_socket().unwrap();
        assert!(error(&BindAddress::Any(address.port())).contains("is in use by another program"));
        assert!(error(&BindAddress::Tcp(address)).contains("is in use by another program"));
        let elsewhere = BindAddress::Tcp("192.0.2.1:7386".parse().unwrap());
        assert_eq!(
            error(&elsewhere),
            "COLLECT_ENDPOINT: cannot listen at `tcp://192.0.2.1:7386`: \
             Cannot assign requested address (os error 99)"
        );
    }
}
