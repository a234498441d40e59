//! The observers by the settings, and their metrics.

use std::fmt::Write;
use std::sync::Arc;

use observe::{Config, Exposition, FlowsConfig, Observers, PairsConfig, Scope, StreamsConfig};
use prometheus::TextEncoder;

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
    let streams = settings.streams.as_ref().map(|settings| StreamsConfig {
        age: settings.age,
        finalized_age: settings.finalized_age,
        max_streams: settings.max.get() as usize,
        export: settings.export as usize,
    });
    Config {
        scope,
        sizes: settings.sizes,
        flows: settings
            .flows
            .map(|settings| FlowsConfig { max_flows: settings.max.get() as usize, age: settings.age }),
        streams,
        pairs: settings.pairs.map(|settings| PairsConfig {
            age: settings.age,
            max_pairs: settings.max.get() as usize,
            streams: streams.unwrap_or_default(),
        }),
    }
}

/// Writes all metrics of the observers.
pub(crate) fn expose(observers: &Arc<Observers>, out: &mut Exposition) {
    let mut families: Vec<_> =
        observers.collectors().iter().flat_map(|collector| collector.collect()).collect();
    // The encoder refuses a family without samples.
    families.retain(|family| !family.get_metric().is_empty());
    if let Ok(text) = TextEncoder::new().encode_to_string(&families) {
        _ = out.write_str(&text);
    }
    observers.write_tables(out);
}
