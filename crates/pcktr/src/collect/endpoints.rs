//! Where a collector listens: endpoints, their names resolved.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::Context;

use crate::settings::{Endpoint, Host};

/// The addresses of each endpoint, as ZeroMQ wants them: it does not bind to names.
pub(super) fn addresses(endpoints: &[Endpoint]) -> anyhow::Result<Vec<Vec<String>>> {
    endpoints.iter().map(of_one).collect()
}

fn of_one(endpoint: &Endpoint) -> anyhow::Result<Vec<String>> {
    let Endpoint::Tcp { host: Host::Name(name), port } = endpoint else {
        return Ok(vec![endpoint.to_string()]);
    };
    let found = (name.as_str(), *port)
        .to_socket_addrs()
        .with_context(|| format!("COLLECT_ENDPOINT: `{endpoint}`: cannot look up `{name}`"))?;
    let mut found: Vec<SocketAddr> = found.collect();
    found.sort_unstable();
    found.dedup();
    Ok(found.into_iter().map(|address| format!("tcp://{address}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_all_its_addresses() {
        let name = Endpoint::Tcp { host: Host::Name("localhost".to_owned()), port: 7386 };
        let every = Endpoint::Tcp { host: Host::Every, port: 1 };
        let found = addresses(&[name, every]).unwrap();
        assert!(found[0].contains(&"tcp://127.0.0.1:7386".to_owned()), "{found:?}");
        assert_eq!(found[1], ["tcp://*:1"]);
    }
}
