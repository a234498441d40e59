//! What the program still needs once its devices, files and sockets are open.

use pipeline::config::{Input, InputConfig};
use relay::{Endpoint, Host};
use sandbox::{Network, Permissions};

use crate::settings::{ModeSettings, Settings};

/// The permissions that these settings need.
pub(crate) fn of(settings: &Settings) -> Permissions {
    let Settings { mode, program } = settings;
    let mut permissions = match mode {
        ModeSettings::Capture(config) => of_input(&config.input, remote(&config.relay.endpoint)),
        ModeSettings::Observe(config) => of_input(&config.input, Network::default()),
        ModeSettings::Collect(config) => of_collector(&config.endpoints),
    };
    if let Some(path) = &program.metrics_file {
        permissions.replace(path);
    }
    permissions
}

fn of_input(config: &InputConfig, mut network: Network) -> Permissions {
    // A filter may have host names. It is compiled again with the relay's addresses, and for each interface of a file.
    network.names |= config.filter.is_some();
    let mut permissions = Permissions::new(network);
    if matches!(config.input, Input::Devices(_) | Input::TzspDevices(..)) {
        permissions.list_devices();
    }
    permissions
}

/// A capture connects to its collector, whenever the connection is lost.
fn remote(endpoint: &Endpoint) -> Network {
    let network = Network::default();
    match endpoint {
        Endpoint::Tcp { host, port } => {
            Network { tcp_ports: vec![*port], names: matches!(host, Host::Name(_)), ..network }
        }
        Endpoint::Ipc { path } if path.as_os_str().as_encoded_bytes().starts_with(b"@") => {
            Network { abstract_unix: true, ..network }
        }
        Endpoint::Ipc { .. } => Network { unix: true, ..network },
    }
}

/// A collector listens, and removes its Unix domain sockets when it ends.
fn of_collector(endpoints: &[Endpoint]) -> Permissions {
    let mut network = Network::default();
    for endpoint in endpoints {
        match endpoint {
            Endpoint::Tcp { port, .. } => {
                network.listen.push(*port);
                // To bind a socket, ZeroMQ lists the devices of this host, which takes the sockets of name resolution.
                network.names = true;
            }
            Endpoint::Ipc { .. } => network.unix = true,
        }
    }
    let mut permissions = Permissions::new(network);
    for endpoint in endpoints {
        if let Endpoint::Ipc { path } = endpoint {
            permissions.remove_socket(path);
        }
    }
    permissions
}
