//! The endpoint where a capture and its collector meet.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// An endpoint of the relay. [`fmt::Display`] writes it in ZeroMQ's notation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `tcp://host:port`.
    Tcp {
        /// The host.
        host: Host,
        /// The port, never 0.
        port: u16,
    },
    /// `ipc://path`: a Unix domain socket in the file system, or, with a leading `@`, in Linux' abstract namespace.
    Ipc {
        /// At most 107 bytes, none of them NUL.
        path: PathBuf,
    },
}

/// The host part of an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// `*`: all addresses of this host, IPv4 and IPv6. Only for listening.
    Any,
    /// An IP address.
    Address(IpAddr),
    /// A name, to be resolved.
    Name(String),
}

/// The most bytes of a Unix domain socket's path: `sun_path` less its final NUL (unix(7)).
const MAX_PATH: usize = 107;

/// The most bytes of a host name in text form: RFC 1035, section 2.3.4.
const MAX_NAME: usize = 253;

/// Why a text is not an endpoint. The message continues a sentence that starts with the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// There is no transport.
    #[error("is not a valid endpoint (write it like `tcp://host:7386` or `ipc:///run/pcktr.sock`)")]
    NoTransport,
    /// The transport is neither `tcp` nor `ipc`.
    #[error(
        "has an unknown transport `{transport}` (write it like `tcp://host:7386` or `ipc:///run/pcktr.sock`)"
    )]
    UnknownTransport {
        /// The transport.
        transport: String,
    },
    /// `tcp://` without a port.
    #[error("has no port (write it like `tcp://{address}:7386`)")]
    NoPort {
        /// What follows `tcp://`.
        address: String,
    },
    /// The port is not a number from 1 to 65535.
    #[error("contains `{port}`, which is not a valid port (1 to 65535)")]
    Port {
        /// The port as written.
        port: String,
    },
    /// `ipc://` without a path.
    #[error("has no path (write it like `ipc:///run/pcktr.sock`)")]
    NoPath,
    /// The path does not fit into a socket address.
    #[error("is too long for a socket's path (at most {MAX_PATH} bytes)")]
    PathTooLong,
    /// The path contains a NUL byte.
    #[error("contains a NUL byte (a path has none)")]
    NulInPath,
    /// The brackets do not contain an IPv6 address.
    #[error("contains `{text}`, which is not a valid IPv6 address (write it like `[::1]`)")]
    Ipv6 {
        /// The text between the brackets.
        text: String,
    },
    /// An IPv6 address without brackets: RFC 3986, section 3.2.2.
    #[error("lacks brackets (an IPv6 address goes in brackets: `[{address}]`)")]
    Brackets {
        /// The address.
        address: IpAddr,
    },
    /// Neither a host name nor an address.
    #[error("contains `{host}`, which is not a valid host (a name or an address)")]
    Host {
        /// The host as written.
        host: String,
    },
    /// `*` where a capture needs the host of its collector.
    #[error("names no host to send to (`*` is for a collector: name its host)")]
    AnyHost,
    /// A list of endpoints is empty.
    #[error("has nothing between the commas (name at least one endpoint)")]
    EmptyList,
}

/// The host name of a collector's endpoint cannot be resolved.
#[derive(Debug, thiserror::Error)]
#[error("COLLECT_ENDPOINT: `{endpoint}`: cannot resolve `{name}`: {why}")]
pub struct ResolveError {
    endpoint: Endpoint,
    name: String,
    why: io::Error,
}

impl Endpoint {
    /// Parses the endpoint of a collector, as a capture names it.
    ///
    /// # Errors
    /// `text` is not an endpoint, or its host is `*`.
    pub fn parse_remote(text: &str) -> Result<Self, EndpointError> {
        match text.parse()? {
            Self::Tcp { host: Host::Any, .. } => Err(EndpointError::AnyHost),
            endpoint => Ok(endpoint),
        }
    }

    /// Parses a comma-separated list of endpoints to listen on. Repeated ones are left out.
    ///
    /// # Errors
    /// An item is not an endpoint, or there is none.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, EndpointError> {
        let mut endpoints = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let endpoint = item.parse()?;
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
        if endpoints.is_empty() { Err(EndpointError::EmptyList) } else { Ok(endpoints) }
    }

    /// The addresses to listen on: those of a name are all that it resolves to. Blocks while it is resolved.
    ///
    /// # Errors
    /// The name cannot be resolved.
    pub fn bind_addresses(&self) -> Result<Vec<BindAddress>, ResolveError> {
        let (host, port) = match self {
            Self::Ipc { path } => return Ok(vec![BindAddress::Unix(path.clone())]),
            Self::Tcp { host, port } => (host, *port),
        };
        match host {
            Host::Any => Ok(vec![BindAddress::Any(port)]),
            Host::Address(address) => Ok(vec![BindAddress::Tcp(SocketAddr::new(*address, port))]),
            Host::Name(name) => match (name.as_str(), port).to_socket_addrs() {
                Ok(found) => Ok(tcp_addresses(found)),
                Err(why) => Err(ResolveError { endpoint: self.clone(), name: name.clone(), why }),
            },
        }
    }

    /// Whether the packets stay on this host: the endpoint is a loopback address, the name `localhost`, or a Unix domain
    /// socket.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Ipc { .. } => true,
            Self::Tcp { host: Host::Address(address), .. } => address.to_canonical().is_loopback(),
            Self::Tcp { host: Host::Name(name), .. } => name == "localhost",
            Self::Tcp { host: Host::Any, .. } => false,
        }
    }
}

/// An address to listen on. [`fmt::Display`] writes it in ZeroMQ's notation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindAddress {
    /// All addresses of this host, with this port.
    Any(u16),
    /// One address.
    Tcp(SocketAddr),
    /// A Unix domain socket, as [`Endpoint::Ipc`] names it.
    Unix(PathBuf),
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(port) => write!(f, "tcp://*:{port}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(path) => write!(f, "ipc://{}", path.display()),
        }
    }
}

/// Each address once.
fn tcp_addresses(found: impl Iterator<Item = SocketAddr>) -> Vec<BindAddress> {
    let mut found: Vec<_> = found.collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(BindAddress::Tcp).collect()
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        match text.split_once("://") {
            Some(("tcp", address)) => {
                let (host, port) = split_port(address)
                    .ok_or_else(|| EndpointError::NoPort { address: address.to_owned() })?;
                Ok(Self::Tcp { host: host.parse()?, port: parse_port(port)? })
            }
            Some(("ipc", "")) => Err(EndpointError::NoPath),
            Some(("ipc", path)) if path.len() > MAX_PATH => Err(EndpointError::PathTooLong),
            Some(("ipc", path)) if path.contains('\0') => Err(EndpointError::NulInPath),
            Some(("ipc", path)) => Ok(Self::Ipc { path: path.into() }),
            Some((transport, _)) => Err(EndpointError::UnknownTransport { transport: transport.to_owned() }),
            None => Err(EndpointError::NoTransport),
        }
    }
}

/// Splits an address at its last colon, unless that is inside the brackets of an IPv6 address.
#[must_use]
pub fn split_port(address: &str) -> Option<(&str, &str)> {
    address.rsplit_once(':').filter(|(_, port)| !port.contains(']'))
}

fn parse_port(text: &str) -> Result<u16, EndpointError> {
    match text.parse() {
        // `parse` accepts a sign.
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
        _ => Err(EndpointError::Port { port: text.to_owned() }),
    }
}

impl FromStr for Host {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return match inside.parse::<Ipv6Addr>() {
                Ok(address) => Ok(Self::Address(address.into())),
                Err(_) => Err(EndpointError::Ipv6 { text: inside.to_owned() }),
            };
        }
        match text.parse() {
            Ok(IpAddr::V4(address)) => Ok(Self::Address(address.into())),
            Ok(address @ IpAddr::V6(_)) => Err(EndpointError::Brackets { address }),
            Err(_) if is_host_name(text) => Ok(Self::Name(text.to_owned())),
            Err(_) => Err(EndpointError::Host { host: text.to_owned() }),
        }
    }
}

/// Whether `text` can be a host name: RFC 1123, section 2.1, plus the underscore, which is common in practice. A
/// malformed IPv4 address, which ends in digits, is not a name.
fn is_host_name(text: &str) -> bool {
    let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    (1..=MAX_NAME).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
        && !text.starts_with(['-', '.'])
        && !last.chars().all(|c| c.is_ascii_digit())
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Ipc { path } => write!(f, "ipc://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `expected`: the endpoints as they are displayed, separated by blanks, or the error.
    fn check(text: &str, expected: &str) {
        let got = match Endpoint::parse_list(text) {
            Ok(endpoints) => endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn valid_endpoints_are_displayed_as_written() {
        for same in [
            "tcp://localhost:7386",
            "tcp://*:7386",
            "tcp://[::]:7386",
            "tcp://[2001:db8::1]:1",
            "tcp://0.0.0.0:65535",
            "tcp://my_host-1.example.:7386",
            "tcp://4u.example:80",
            "ipc:///run/pcktr.sock",
            "ipc://@pcktr",
        ] {
            check(same, same);
        }
        check("tcp://a:1, ipc://x,tcp://a:1,", "tcp://a:1 ipc://x");
    }

    #[test]
    fn invalid_endpoints_are_refused_with_a_remedy() {
        let example = "(write it like `tcp://host:7386` or `ipc:///run/pcktr.sock`)";
        check("localhost:7386", &format!("is not a valid endpoint {example}"));
        check("udp://host:1", &format!("has an unknown transport `udp` {example}"));
        check("ipc://", "has no path (write it like `ipc:///run/pcktr.sock`)");
        check(&format!("ipc://{}", "x".repeat(108)), "is too long for a socket's path (at most 107 bytes)");
        check("ipc://a\0b", "contains a NUL byte (a path has none)");
        check(" , ", "has nothing between the commas (name at least one endpoint)");
        check("tcp://host", "has no port (write it like `tcp://host:7386`)");
        check("tcp://[::1]", "has no port (write it like `tcp://[::1]:7386`)");
        for port in ["", "0", "+1", "*", "65536", "99999", "7386/x"] {
            check(
                &format!("tcp://host:{port}"),
                &format!("contains `{port}`, which is not a valid port (1 to 65535)"),
            );
        }
        check("tcp://::1:7386", "lacks brackets (an IPv6 address goes in brackets: `[::1]`)");
        check(
            "tcp://[::1%lo]:7386",
            "contains `::1%lo`, which is not a valid IPv6 address (write it like `[::1]`)",
        );
        for host in ["", "a b", "-a", "eth0;b", "1.2.3.256", "1.2.3", "a:b"] {
            check(
                &format!("tcp://{host}:7386"),
                &format!("contains `{host}`, which is not a valid host (a name or an address)"),
            );
        }
    }

    #[test]
    fn a_remote_endpoint_needs_a_host() {
        assert_eq!(Endpoint::parse_remote("tcp://*:7386"), Err(EndpointError::AnyHost));
        assert_eq!(
            Endpoint::parse_remote("tcp://[::1]:7386"),
            Ok(Endpoint::Tcp { host: Host::Address("::1".parse().unwrap()), port: 7386 })
        );
    }

    #[test]
    fn bind_addresses_list_each_address_once() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let names = |found: Vec<BindAddress>| found.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            names(tcp_addresses(["[::1]:1", "127.0.0.1:1", "[::1]:1"].map(address).into_iter())),
            ["tcp://127.0.0.1:1", "tcp://[::1]:1"]
        );
        for same in ["tcp://*:1", "tcp://[::1]:1", "tcp://0.0.0.0:1", "ipc://x", "ipc://@x"] {
            let endpoint: Endpoint = same.parse().unwrap();
            assert_eq!(names(endpoint.bind_addresses().unwrap()), [same]);
        }
    }

    #[test]
    fn local_endpoints_are_those_of_this_host() {
        let is_local = |text: &str| text.parse::<Endpoint>().unwrap().is_local();
        for text in ["tcp://127.0.0.2:1", "tcp://[::1]:1", "tcp://localhost:1", "ipc://x"] {
            assert!(is_local(text), "{text}");
        }
        for text in ["tcp://*:1", "tcp://0.0.0.0:1", "tcp://192.0.2.1:1", "tcp://localhost.example:1"] {
            assert!(!is_local(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".*") {
            let _ = Endpoint::parse_list(&text);
            let _ = Endpoint::parse_list(&format!("tcp://{text}"));
        }

        #[test]
        fn what_is_displayed_parses_to_the_same(text in r"(tcp://[a-z0-9_.\-\[\]:*]{1,20}:[0-9]{1,5}|ipc://.{1,50})") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
            }
        }
    }
}
