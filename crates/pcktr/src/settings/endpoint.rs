//! Where the relay's two ends meet.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use super::error::Fault;
use super::value;

/// An endpoint of the relay. [`fmt::Display`] writes it as libzmq reads it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    /// `tcp://host:port`.
    Tcp {
        /// Whose address it is.
        host: Host,
        /// Never 0.
        port: u16,
    },
    /// `ipc://path`: a socket in the file system, or, beginning with `@`, in Linux' abstract namespace.
    Ipc {
        /// At most [`LONGEST_PATH`] bytes.
        path: PathBuf,
    },
}

/// The host of an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    /// `*`: every address of this machine, of IPv4 and IPv6.
    Every,
    /// An address.
    Address(IpAddr),
    /// A name, to be resolved.
    Name(String),
}

/// What `sun_path` of a socket's address has room for, its final zero left out: unix(7).
const LONGEST_PATH: usize = 107;

/// The longest name that DNS has, in text: RFC 1035, section 2.3.4.
const LONGEST_NAME: usize = 253;

const EXAMPLE: &str = "write it like `tcp://host:7386` or `ipc:///run/pcktr.sock`";

impl Endpoint {
    /// An endpoint to send to: `*` says where to listen, and nowhere to go.
    pub(crate) fn parse_remote(text: &str) -> Result<Self, Fault> {
        match text.parse()? {
            Self::Tcp { host: Host::Every, .. } => {
                Err(Fault::new("names no host to send to", "`*` is for a collector: name its host"))
            }
            endpoint => Ok(endpoint),
        }
    }

    /// Endpoints to listen on, each once.
    pub(crate) fn parse_local(text: &str) -> Result<Vec<Self>, Fault> {
        let mut endpoints = Vec::new();
        for item in value::list(text)? {
            let endpoint = item.parse()?;
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
        Ok(endpoints)
    }
}

impl FromStr for Endpoint {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match text.split_once("://") {
            Some(("tcp", address)) => {
                let (host, port) = split_port(address).ok_or_else(|| {
                    Fault::new("has no port", format!("write it like `tcp://{address}:7386`"))
                })?;
                Ok(Self::Tcp { host: host.parse()?, port: value::port(port)? })
            }
            Some(("ipc", "")) => Err(Fault::new("has no path", EXAMPLE)),
            Some(("ipc", path)) if path.len() > LONGEST_PATH => {
                Err(Fault::new("is too long for a socket's path", format!("at most {LONGEST_PATH} bytes")))
            }
            Some(("ipc", path)) => Ok(Self::Ipc { path: path.into() }),
            Some((transport, _)) => {
                Err(Fault::new(format!("has an unknown transport `{transport}`"), EXAMPLE))
            }
            None => Err(Fault::new("is no endpoint", EXAMPLE)),
        }
    }
}

/// Host and port, at the last colon that is not inside an address in brackets; `None` where there is none.
pub(crate) fn split_port(address: &str) -> Option<(&str, &str)> {
    address.rsplit_once(':').filter(|(_, port)| !port.contains(']'))
}

impl FromStr for Host {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        if text == "*" {
            return Ok(Self::Every);
        }
        if let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return match inside.parse::<Ipv6Addr>() {
                Ok(address) => Ok(Self::Address(address.into())),
                Err(_) => Err(Fault::new("is no IPv6 address", "such as `[::1]`").of_item(inside)),
            };
        }
        match text.parse() {
            Ok(IpAddr::V4(address)) => Ok(Self::Address(address.into())),
            // RFC 3986, section 3.2.2.
            Ok(IpAddr::V6(address)) => {
                Err(Fault::new("lacks brackets", format!("an IPv6 address goes in brackets: `[{address}]`")))
            }
            Err(_) if is_name(text) => Ok(Self::Name(text.to_owned())),
            Err(_) => Err(Fault::new("is no host", "a name or an address").of_item(text)),
        }
    }
}

/// Whether `text` can be the name of a host: RFC 1123, section 2.1, and the underscore that is found in the wild. What
/// looks like an address, and is none, is no name either.
fn is_name(text: &str) -> bool {
    let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    (1..=LONGEST_NAME).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
        && !text.starts_with(['-', '.'])
        && !last.chars().all(|c| c.is_ascii_digit())
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every => f.write_str("*"),
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
    use super::*;

    /// `expected` is how the endpoints are written again, with blanks between, or the fault.
    fn check(text: &str, expected: &str) {
        let got = match Endpoint::parse_local(text) {
            Ok(endpoints) => endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(fault) => fault.to_string(),
        };
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn endpoints() {
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
    fn no_endpoints() {
        let example = "(write it like `tcp://host:7386` or `ipc:///run/pcktr.sock`)";
        check("localhost:7386", &format!("is no endpoint {example}"));
        check("udp://host:1", &format!("has an unknown transport `udp` {example}"));
        check("ipc://", &format!("has no path {example}"));
        check(&format!("ipc://{}", "x".repeat(108)), "is too long for a socket's path (at most 107 bytes)");
        check("tcp://host", "has no port (write it like `tcp://host:7386`)");
        check("tcp://[::1]", "has no port (write it like `tcp://[::1]:7386`)");
        for port in ["", "0", "*", "65536", "99999", "7386/x"] {
            check(
                &format!("tcp://host:{port}"),
                &format!("contains `{port}`, which is not a valid port (1 to 65535)"),
            );
        }
        check("tcp://::1:7386", "lacks brackets (an IPv6 address goes in brackets: `[::1]`)");
        check("tcp://[::1%lo]:7386", "contains `::1%lo`, which is no IPv6 address (such as `[::1]`)");
        for host in ["", "a b", "-a", "eth0;b", "1.2.3.256", "1.2.3", "a:b"] {
            check(
                &format!("tcp://{host}:7386"),
                &format!("contains `{host}`, which is no host (a name or an address)"),
            );
        }
    }

    #[test]
    fn a_capture_needs_a_host() {
        let parse = |text| Endpoint::parse_remote(text).map_err(|fault| fault.to_string());
        assert_eq!(
            parse("tcp://*:7386"),
            Err("names no host to send to (`*` is for a collector: name its host)".to_owned())
        );
        assert_eq!(
            parse("tcp://[::1]:7386"),
            Ok(Endpoint::Tcp { host: Host::Address("::1".parse().unwrap()), port: 7386 })
        );
    }
}
