//! The observers, as the settings want them.

use observe::{Config, Scope, flows, pairs, streams};

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
    let streams = settings.streams.as_ref().map(|settings| streams::Config {
        age: settings.age,
        finalized_age: settings.finalized_age,
        max_streams: settings.max.get() as usize,
        export: settings.export as usize,
    });
    Config {
        scope,
        sizes: settings.sizes,
        flows: settings.flows.map(|settings| flows::Config {
            max_flows: settings.max.get() as usize,
            age: settings.age,
            scope,
        }),
        streams,
        pairs: settings.pairs.map(|settings| pairs::Config {
            age: settings.age,
            max_pairs: settings.max.get() as usize,
            streams: streams.unwrap_or_default(),
        }),
    }
}
