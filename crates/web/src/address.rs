//! The address to serve metrics on.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// An address to listen on: `host:port`, or `:port` for all addresses. With port 0 the kernel chooses a free port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// All addresses of this host, IPv4 and IPv6.
    Any {
        /// The TCP port.
        port: u16,
    },
    /// One address.
    Address(SocketAddr),
    /// All addresses of a host name.
    Name {
        /// The host name.
        name: String,
        /// The TCP port.
        port: u16,
    },
}

/// A text that is not a [`ListenAddress`]. The message follows the text: "`9108` is not …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no colon before a port.
    #[error("is not a valid address (for example `:9108` or `127.0.0.1:9108`)")]
    NoPort,
    /// The port is not a number, or is too large.
    #[error("contains `{0}`, which is not a valid port (0 to 65535)")]
    Port(String),
    /// An IPv6 address is not in brackets.
    #[error("has an IPv6 address without brackets (write it as `[{0}]`)")]
    NoBrackets(Ipv6Addr),
    /// The host is not an address, and cannot be a host name.
    #[error("contains `{0}`, which is not a valid host (use a name or an address)")]
    Host(String),
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) =
            text.rsplit_once(':').filter(|(_, port)| !port.contains(']')).ok_or(AddressError::NoPort)?;
        let port = port.parse().map_err(|_| AddressError::Port(port.to_owned()))?;
        let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match (host, in_brackets, host.parse()) {
            ("" | "*", ..) => Ok(Self::Any { port }),
            (_, Some(inside), _) => match inside.parse::<Ipv6Addr>() {
                Ok(address) => Ok(Self::Address((address, port).into())),
                Err(_) => Err(AddressError::Host(host.to_owned())),
            },
            (_, None, Ok(IpAddr::V4(address))) => Ok(Self::Address((address, port).into())),
            (_, None, Ok(IpAddr::V6(address))) => Err(AddressError::NoBrackets(address)),
            (_, None, Err(_)) if is_name(host) => Ok(Self::Name { name: host.to_owned(), port }),
            (_, None, Err(_)) => Err(AddressError::Host(host.to_owned())),
        }
    }
}

/// Whether `text` can be a host name: RFC 1123, section 2.1, and the underscore, which is common in practice. The last
/// label of a name is not a number, so `1.2.3` is neither an address nor a name.
fn is_name(text: &str) -> bool {
    /// RFC 1035, section 2.3.4.
    const MAX_LEN: usize = 253;
    let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    (1..=MAX_LEN).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
        && !text.starts_with(['-', '.'])
        && !last.chars().all(|c| c.is_ascii_digit())
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any { port } => write!(f, ":{port}"),
            Self::Address(address) => address.fmt(f),
            Self::Name { name, port } => write!(f, "{name}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expected` is how the address is displayed, or the error.
    fn check(text: &str, expected: &str) {
        let got = text.parse::<ListenAddress>();
        let got = got.map_or_else(|error| error.to_string(), |address| address.to_string());
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn addresses() {
        for same in [":9108", "127.0.0.1:9108", "[::1]:9108", "localhost:9108", "my_host-1.example.:1", ":0"]
        {
            check(same, same);
        }
        check("*:9108", ":9108");
    }

    #[test]
    fn invalid_addresses() {
        let no_port = "is not a valid address (for example `:9108` or `127.0.0.1:9108`)";
        check("9108", no_port);
        check("localhost", no_port);
        check("[::1]", no_port);
        check("::1:9108", "has an IPv6 address without brackets (write it as `[::1]`)");
        for port in ["", "99999", "http"] {
            check(
                &format!("host:{port}"),
                &format!("contains `{port}`, which is not a valid port (0 to 65535)"),
            );
        }
        for host in ["http://host", "-a", "a b", "1.2.3", "1.2.3.256", "[::1%lo]", "[host]"] {
            check(
                &format!("{host}:9108"),
                &format!("contains `{host}`, which is not a valid host (use a name or an address)"),
            );
        }
    }
}
