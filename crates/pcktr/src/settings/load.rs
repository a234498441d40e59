//! From the environment and the flags to [`Settings`].

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};

use packet::origin::printable_name;
use pipeline::config::{
    CaptureConfig, CaptureKeys, CollectConfig, CollectorKeys, CommonConfig, FlowBounds, Input, InputConfig,
    ObserveConfig, PairBounds, RelayConfig, StreamBounds,
};

use super::declaration::{Given, Setting, SettingDeclaration};
use super::error::{Fault, SettingError, SettingErrors};
use super::table::{self, Raw, TABLE, Values, declared};
use super::{Mode, ModeSettings, ProgramSettings, Selection, Settings};

/// A flag of the command line and its value.
pub(crate) type Flag = (&'static Setting, String);

impl Settings {
    /// Reads the settings from `environment` and `flags`. A flag takes precedence over a variable. An empty or blank
    /// value means the default. `host_name` is the default of `SOURCE_NAME`.
    ///
    /// Settings of other modes are ignored in the environment, which programs may share, and are errors as flags.
    /// Variables that are not settings are ignored, and need not be UTF-8.
    ///
    /// # Errors
    ///
    /// All invalid settings of the mode. If the mode itself is invalid, only that.
    pub(crate) fn load(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[Flag],
        host_name: &str,
    ) -> Result<Self, SettingErrors> {
        let mut given = given(environment, flags);
        let mode = mode(&given).map_err(|error| SettingErrors(vec![error]))?;

        let mut errors: Vec<_> = flags.iter().filter_map(|flag| other_mode(flag, mode)).collect();
        given.retain(|(setting, _)| setting.modes.contains(&mode));
        let texts: Vec<_> = given
            .into_iter()
            .filter_map(|(setting, value)| match text(setting, value) {
                Ok(text) => Some((setting.name.to_owned(), text)),
                Err(error) => {
                    errors.push(error);
                    None
                }
            })
            .filter(|(_, text)| !text.is_empty())
            .collect();
        let raw: Raw = envy::from_iter(texts).unwrap_or_else(|error| {
            errors.push(error.into());
            Raw::default()
        });

        errors.extend(conflicts(&raw));
        errors.extend(missing_keys(&raw, mode));
        let device_given = raw.device.text.is_some();
        match raw.values() {
            Ok(values) if errors.is_empty() => Ok(resolve(values, device_given, host_name)),
            Ok(_) => Err(SettingErrors(errors)),
            Err(invalid) => {
                errors.extend(invalid);
                Err(SettingErrors(errors))
            }
        }
    }
}

/// The settings that are given, in the order of the table.
fn given(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    flags: &[Flag],
) -> Vec<(&'static Setting, OsString)> {
    let mut values: HashMap<_, _> = environment.into_iter().collect();
    values.extend(flags.iter().map(|(setting, text)| (setting.name.into(), text.into())));
    TABLE.iter().filter_map(|setting| Some((setting, values.remove(OsStr::new(setting.name))?))).collect()
}

/// The mode, which decides which other settings are read.
fn mode(given: &[(&'static Setting, OsString)]) -> Result<Mode, SettingError> {
    let value = given.iter().find(|(setting, _)| setting.name == table::MODE.name);
    let value = value.map(|(setting, value)| text(setting, value.clone())).transpose()?;
    let mode = Given::<declared::mode>::new(value.filter(|text| !text.is_empty()));
    match mode.value {
        Ok(mode) => Ok(mode),
        Err(fault) => Err(table::MODE.error(mode.text.unwrap_or_default(), fault)),
    }
}

/// The trimmed text of a value.
fn text(setting: &Setting, value: OsString) -> Result<String, SettingError> {
    match value.into_string() {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(value) => {
            let fault = Fault::new("is not UTF-8", "correct it, or unset it");
            Err(setting.error(value.to_string_lossy(), fault))
        }
    }
}

/// The error of a flag that `mode` does not use.
fn other_mode((setting, text): &Flag, mode: Mode) -> Option<SettingError> {
    let applies = setting.modes.contains(&mode) || text.trim().is_empty();
    (!applies).then(|| {
        let remedy = format!("remove --{}; it applies to {}", setting.flag(), setting.modes_text());
        setting.error(text, Fault::new(format!("does not apply to mode {mode}"), remedy))
    })
}

/// The errors of settings that are valid on their own and not together.
fn conflicts(raw: &Raw) -> impl Iterator<Item = SettingError> {
    let exclusive = raw.read_file.text.as_ref().zip(raw.device.text.as_ref()).map(|(file, device)| {
        let fault = Fault::new(
            format!("conflicts with DEVICE: `{device}`"),
            "unset DEVICE to read the file, or READ_FILE to capture",
        );
        table::READ_FILE.error(file, fault)
    });
    let too_small = match (&raw.relay_buffer.value, &raw.batch_bytes.value) {
        (Ok(buffer), Ok(batch)) if buffer < batch => {
            let fault = Fault::new(
                format!("is smaller than BATCH_BYTES: `{}`", or_default(&raw.batch_bytes)),
                "increase it: the buffer must hold at least one batch",
            );
            Some(table::RELAY_BUFFER.error(or_default(&raw.relay_buffer), fault))
        }
        _ => None,
    };
    exclusive.into_iter().chain(too_small)
}

/// The errors of keys that only make sense together.
fn missing_keys(raw: &Raw, mode: Mode) -> Option<SettingError> {
    let given = |text: &Option<String>| text.clone();
    let own = given(&raw.key_file.text);
    let (other, other_name, remedy) = match mode {
        Mode::Keygen if own.is_none() => {
            let remedy = "name the file for the secret key, for example `/etc/pcktr/key`";
            return Some(SettingError::Missing { setting: table::KEY_FILE.name, remedy });
        }
        Mode::Keygen | Mode::Observe => return None,
        Mode::Capture => (
            given(&raw.collector_key.text),
            table::COLLECTOR_KEY,
            "set it to the public key of the collector",
        ),
        Mode::Collect => (
            given(&raw.authorized_keys.text),
            table::AUTHORIZED_KEYS,
            "name a file that lists the captures' keys",
        ),
    };
    match (own, other) {
        (Some(own), None) => {
            let fault = Fault::new(format!("has no effect without {}", other_name.name), remedy);
            Some(table::KEY_FILE.error(own, fault))
        }
        (None, Some(other)) => {
            let remedy = "make a key with MODE=keygen, and set KEY_FILE";
            Some(other_name.error(other, Fault::new("needs this program's own key", remedy)))
        }
        _ => None,
    }
}

/// The text of a setting, or of its default.
fn or_default<D: SettingDeclaration>(given: &Given<D>) -> &str {
    given.text.as_deref().unwrap_or(D::SETTING.default_text())
}

fn resolve(values: Values, device_given: bool, host_name: &str) -> Settings {
    let input = InputConfig {
        input: match (values.read_file, values.tzsp_port) {
            (Some(file), None) => Input::File(file),
            (Some(file), Some(ports)) => Input::TzspFile(file, ports),
            (None, Some(ports)) if device_given => Input::TzspDevices(values.device, ports),
            (None, Some(ports)) => Input::TzspSockets(ports),
            (None, None) => Input::Devices(values.device),
        },
        filter: values.filter,
        snaplen: values.snaplen,
        buffer_size: values.buffer_size,
        promiscuous: values.promiscuous,
    };
    let observers = values.observe.unwrap_or(Selection::default_of(values.mode)).bounded(
        FlowBounds { age: values.flow_age, max: values.max_flows },
        StreamBounds {
            age: values.stream_age,
            finalized_age: values.stream_finalized_age,
            max: values.max_streams,
            export: values.streams_export,
        },
        PairBounds { age: values.flow_age, max: values.max_pairs },
    );
    let common = CommonConfig { max_packets: values.max_packets, observers };
    let mode = match values.mode {
        Mode::Capture => ModeSettings::Capture(CaptureConfig {
            input,
            source_name: values.source_name.unwrap_or_else(|| printable_name(host_name).into_owned()),
            relay: RelayConfig {
                endpoint: values.relay_endpoint,
                keys: values
                    .key_file
                    .zip(values.collector_key)
                    .map(|(key_file, collector)| CaptureKeys { key_file, collector }),
                buffer: values.relay_buffer,
                batch: batch::BatchLimits { bytes: values.batch_bytes, delay: values.batch_delay },
                compression: values.compression,
            },
            common,
        }),
        Mode::Collect => ModeSettings::Collect(CollectConfig {
            endpoints: values.collect_endpoint,
            output: values.output,
            format: values.output_format,
            merge_window: values.merge_window,
            max_sources: values.max_sources,
            exit_on_end: values.exit_on_end,
            keys: values
                .key_file
                .zip(values.authorized_keys)
                .map(|(key_file, authorized_keys)| CollectorKeys { key_file, authorized_keys }),
            max_connections: values.max_connections.get() as usize,
            common,
        }),
        Mode::Observe => ModeSettings::Observe(ObserveConfig { input, common }),
        // [`missing_keys`] has seen that there is a file.
        Mode::Keygen => ModeSettings::Keygen(values.key_file.unwrap_or_default()),
    };
    let program = ProgramSettings {
        max_duration: values.max_duration,
        metrics_address: values.metrics_addrport,
        web_config_file: values.web_config_file,
        metrics_file: values.metrics_file,
        run_as_user: values.run_as_user,
        sandbox: values.sandbox,
        log: values.log,
    };
    Settings { mode, program }
}
