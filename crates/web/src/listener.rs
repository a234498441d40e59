//! The sockets that metrics are served on.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use socket2::{Domain, Socket, Type};

use crate::ListenAddress;

/// Maximum number of connections waiting to be accepted.
const BACKLOG: i32 = 64;

/// The server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The host name cannot be resolved.
    #[error(
        "METRICS_ADDRPORT: cannot resolve `{address}`: {error} (use an address of this host, or only `:port`)"
    )]
    Resolve {
        /// The address to listen on.
        address: ListenAddress,
        /// The cause.
        error: io::Error,
    },
    /// The socket cannot be opened.
    #[error("METRICS_ADDRPORT: cannot listen on `{address}`: {error} ({})", remedy(error))]
    Listen {
        /// The address to listen on.
        address: ListenAddress,
        /// The cause.
        error: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program uses it: choose another port, or `off`",
        io::ErrorKind::AddrNotAvailable => "use an address of this host, or only `:port`",
        io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE: choose another port",
        _ => "choose another address, or `off`",
    }
}

/// Opens non-blocking sockets that listen on `address`.
///
/// # Errors
///
/// The host name cannot be resolved, or an address is in use or not available.
pub(crate) fn bind(address: &ListenAddress) -> Result<Vec<TcpListener>, BindError> {
    let cannot_listen = |error| BindError::Listen { address: address.clone(), error };
    match address {
        ListenAddress::Any { port } => {
            // An IPv6 socket accepts IPv4 too, unless the host lacks IPv6.
            let listener = listen((Ipv6Addr::UNSPECIFIED, *port).into()).or_else(|error| {
                if is_unavailable(&error) {
                    listen((Ipv4Addr::UNSPECIFIED, *port).into())
                } else {
                    Err(error)
                }
            });
            Ok(vec![listener.map_err(cannot_listen)?])
        }
        ListenAddress::Address(address) => Ok(vec![listen(*address).map_err(cannot_listen)?]),
        ListenAddress::Name { name, port } => {
            let found = (name.as_str(), *port).to_socket_addrs();
            let found = found.map_err(|error| BindError::Resolve { address: address.clone(), error })?;
            listen_on_all(found).map_err(cannot_listen)
        }
    }
}

/// Listens on `address`; on the unspecified IPv6 address, for IPv4 too.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Allows connections of an earlier run to linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Listens on all `addresses` of a name, except unavailable ones, such as IPv6 addresses if the host lacks IPv6. At least
/// one must be available.
fn listen_on_all(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<Vec<TcpListener>> {
    // /etc/hosts may list an address twice.
    let mut seen = HashSet::new();
    let mut listeners = Vec::new();
    let mut unavailable = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses.filter(|address| seen.insert(*address)) {
        match listen(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if is_unavailable(&error) => unavailable = error,
            Err(error) => return Err(error),
        }
    }
    if listeners.is_empty() { Err(unavailable) } else { Ok(listeners) }
}

/// Whether this host lacks the address, or the whole address family.
fn is_unavailable(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_in_use_is_an_error() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let text = taken.local_addr().unwrap().to_string();
        let error = bind(&text.parse().unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "METRICS_ADDRPORT: cannot listen on `{text}`: Address already in use (os error 98) \
                 (another program uses it: choose another port, or `off`)"
            )
        );
    }

    #[test]
    fn addresses_of_a_name_are_used_once() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(listen_on_all([free, free].into_iter()).unwrap().len(), 1);
        assert_eq!(listen_on_all([].into_iter()).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn any_address_includes_both_families() {
        let listeners = bind(&ListenAddress::Any { port: 0 }).unwrap();
        let [listener] = listeners.as_slice() else { panic!("expected one socket: {listeners:?}") };
        let address = listener.local_addr().unwrap();
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, address.port())).unwrap();
        if address.is_ipv6() {
            std::net::TcpStream::connect((Ipv6Addr::LOCALHOST, address.port())).unwrap();
        }
    }
}
