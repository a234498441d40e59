//! The observers, as the settings want them.

use observe::{Config, Scope};

use crate::settings::{Input, InputSettings, ObserverSettings};

/// The observers of a capture or an exporter. Where it captures on several devices, these tell their series apart.
pub(crate) fn config(settings: &ObserverSettings, input: &InputSettings) -> Config {
    let scope = match &input.input {
        Input::Devices(devices) if devices.len() > 1 => Scope::Device,
        _ => Scope::None,
    };
    within(settings, scope)
}

/// The observers of a collector, whose sources may see the same.
pub(crate) fn collector_config(settings: &ObserverSettings) -> Config {
    within(settings, Scope::SourceAndDevice)
}

fn within(settings: &ObserverSettings, scope: Scope) -> Config {
    Config { scope, sizes: settings.sizes }
}
