//! Where the metrics are served.

use std::fmt;

use relay::Host;
use relay::endpoint::split_port;

use super::error::Fault;

/// Where the metrics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MetricsAddress {
    /// On which addresses of this machine.
    pub(crate) host: Host,
    /// With 0, the kernel chooses one; the log says which.
    pub(crate) port: u16,
}

impl MetricsAddress {
    /// `host:port`, or `:port` for every address; `None` for `off`.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, Fault> {
        if text.eq_ignore_ascii_case("off") {
            return Ok(None);
        }
        let (host, port) = split_port(text).ok_or_else(|| {
            Fault::new("has no port", "write it like `:9108` or `127.0.0.1:9108`, or `off`")
        })?;
        let host = if host.is_empty() { Host::Any } else { host.parse()? };
        let port = port
            .parse()
            .map_err(|_| Fault::new("is no port", "a port is a number from 0 to 65535").of_item(port))?;
        Ok(Some(Self { host, port }))
    }
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Any => write!(f, ":{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let got = match MetricsAddress::parse(text) {
            Ok(Some(address)) => address.to_string(),
            Ok(None) => "off".to_owned(),
            Err(fault) => fault.to_string(),
        };
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn addresses() {
        for same in [":9108", "127.0.0.1:9108", "[::1]:9108", "localhost:9108", ":0", "off"] {
            check(same, same);
        }
        check("*:9108", ":9108");
        check("OFF", "off");
    }

    #[test]
    fn no_addresses() {
        check("9108", "has no port (write it like `:9108` or `127.0.0.1:9108`, or `off`)");
        check("[::1]", "has no port (write it like `:9108` or `127.0.0.1:9108`, or `off`)");
        check("::1:9108", "lacks brackets (an IPv6 address goes in brackets: `[::1]`)");
        check(":99999", "holds `99999`, which is no port (a port is a number from 0 to 65535)");
        check("host:", "holds ``, which is no port (a port is a number from 0 to 65535)");
        check("http://host:9108", "holds `http://host`, which is not a valid host (a name or an address)");
    }
}
