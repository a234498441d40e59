//! The sockets on which the metrics are served.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use socket2::{Domain, Socket, Type};

use crate::settings::{Host, MetricsAddress};

/// The queue of connections not yet accepted.
const BACKLOG: i32 = 64;

/// The server can't listen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// The host's name has no address.
    #[error(
        "METRICS_ADDRPORT: can't resolve `{address}`: {error} (name an address of this machine, or leave it out)"
    )]
    Resolve {
        /// The setting.
        address: MetricsAddress,
        /// Why.
        error: io::Error,
    },
    /// The system refuses.
    #[error("METRICS_ADDRPORT: can't listen on `{address}`: {error} ({})", remedy(error))]
    Listen {
        /// The setting.
        address: MetricsAddress,
        /// Why.
        error: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "something else listens there: choose another port, or `off`",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: leave it out for all there are",
        io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE: choose another",
        _ => "choose another, or `off`",
    }
}

/// Sockets that listen on `address`, and do not block.
///
/// # Errors
///
/// When the host has no address, or none of its addresses can be listened on, or one of them is taken.
pub(super) fn bind(address: &MetricsAddress) -> Result<Vec<TcpListener>, BindError> {
    let port = address.port;
    let refused = |error| BindError::Listen { address: address.clone(), error };
    let listeners = match &address.host {
        Host::Any => {
            // One socket for both families, unless there is but one.
            let listener = listen((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|error| {
                if has_no_address(&error) { listen((Ipv4Addr::UNSPECIFIED, port).into()) } else { Err(error) }
            });
            vec![listener.map_err(refused)?]
        }
        Host::Address(host) => vec![listen((*host, port).into()).map_err(refused)?],
        Host::Name(name) => {
            let found = (name.as_str(), port).to_socket_addrs();
            let found = found.map_err(|error| BindError::Resolve { address: address.clone(), error })?;
            listen_on_all(found).map_err(refused)?
        }
    };
    Ok(listeners)
}

/// Listens on `address`; on the unspecified address of IPv6 that is IPv4 too.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Connections of an earlier run that linger in TIME_WAIT are no reason to refuse.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Listens on all `addresses` of a name; those of a family that is switched off don't count while there are others.
fn listen_on_all(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<Vec<TcpListener>> {
    // /etc/hosts may name one twice.
    let mut seen = HashSet::new();
    let mut listeners = Vec::new();
    let mut missing = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses.filter(|address| seen.insert(*address)) {
        match listen(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if has_no_address(&error) => missing = error,
            Err(error) => return Err(error),
        }
    }
    if listeners.is_empty() { Err(missing) } else { Ok(listeners) }
}

/// Whether the machine lacks the address, or the whole family.
fn has_no_address(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_told() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let text = taken.local_addr().unwrap().to_string();
        let error = bind(&MetricsAddress::parse(&text).unwrap().unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "METRICS_ADDRPORT: can't listen on `{text}`: Address already in use (os error 98) \
                 (something else listens there: choose another port, or `off`)"
            )
        );
    }

    #[test]
    fn a_name_may_have_one_address_twice() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(listen_on_all([free, free].into_iter()).unwrap().len(), 1);
        assert_eq!(listen_on_all([].into_iter()).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn every_address_is_both_families() {
        let listeners = bind(&MetricsAddress::parse(":0").unwrap().unwrap()).unwrap();
        let [listener] = listeners.as_slice() else { panic!("one socket is enough: {listeners:?}") };
        let address = listener.local_addr().unwrap();
        let port = address.port();
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        if address.is_ipv6() {
            std::net::TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        }
    }
}
