//! What the program still needs once its devices, files and sockets are open.

use std::path::{Path, PathBuf};

use pipeline::config::{CollectorKeys, Input, InputConfig};
use relay::{Endpoint, Host};
use sandbox::{Network, Permissions};
use tracing::warn;

use crate::settings::{CollectConfig, ModeSettings, Settings};

/// The permissions that these settings need.
///
/// `web_paths`: what is read again when `WEB_CONFIG_FILE` changes.
pub(crate) fn of(settings: &Settings, web_paths: &[PathBuf]) -> Permissions {
    let Settings { mode, program } = settings;
    let mut permissions = match mode {
        ModeSettings::Capture(config) => of_input(&config.input, remote(&config.relay.endpoint)),
        ModeSettings::Observe(config) => of_input(&config.input, Network::default()),
        ModeSettings::Collect(config) => of_collector(config),
        // It opens nothing later.
        ModeSettings::Keygen(_) => Permissions::new(Network::default()),
    };
    for path in web_paths {
        permissions.read(path);
    }
    if let Some(path) = &program.metrics_file {
        permissions.replace(path);
        warn_if_shared(path);
    }
    permissions
}

fn warn_if_shared(metrics_file: &Path) {
    if let Some(directory) = sandbox::shared_directory(metrics_file) {
        warn!(
            directory = %directory.display(),
            "METRICS_FILE: `{}` is in a directory of other files, all of which the sandbox lets the program replace, \
             also in the directories below (use a directory of its own)",
            metrics_file.display(),
        );
    }
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

/// A collector reads its list of keys again, and removes its Unix domain sockets when it ends. It listens already.
fn of_collector(config: &CollectConfig) -> Permissions {
    let mut permissions = Permissions::new(Network::default());
    if let Some(CollectorKeys { authorized_keys, .. }) = &config.keys {
        permissions.read(authorized_keys);
    }
    for endpoint in &config.endpoints {
        if let Endpoint::Ipc { path } = endpoint {
            permissions.remove_socket(path);
        }
    }
    permissions
}
