//! From texts to what they mean.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use super::error::{Fault, SettingError, SettingErrors};
use super::observers::Chosen;
use super::table::{self, Fallback, Setting, TABLE};
use super::value::{self, LONGEST};
use super::{
    CaptureSettings, CollectSettings, CommonSettings, Endpoint, FileOrStdio, Flag, FlowSettings, Input,
    InputSettings, MetricsAddress, Mode, ObserveSettings, ObserverSettings, OutputFormat, PairSettings, Raw,
    RelaySettings, Settings, StreamSettings,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Raw {
    /// What the texts mean. Those of other modes are not even looked at, except that a flag among them is an error.
    ///
    /// # Errors
    ///
    /// Everything that can't be right, for the mode that was chosen; where there is no such mode, only that.
    pub(crate) fn resolve(&self, flags: &[Flag], host_name: &str) -> Result<Settings, SettingErrors> {
        let modes = [Mode::Capture, Mode::Collect, Mode::Observe].map(|mode| (mode.as_str(), mode));
        let mode = match self.mode.as_deref() {
            None => Mode::Capture,
            Some(text) => value::choice(text, &modes).map_err(|fault| {
                let value = text.to_owned();
                SettingErrors(vec![SettingError::Value { setting: table::MODE.name, value, fault }])
            })?,
        };

        let mut reader = Reader { raw: self, mode, errors: Vec::new() };
        reader.refuse_flags_of_other_modes(flags);
        let settings = match mode {
            Mode::Capture => reader.capture(host_name).map(Settings::Capture),
            Mode::Collect => reader.collect().map(Settings::Collect),
            Mode::Observe => reader.observe().map(Settings::Observe),
        };
        match settings {
            Some(settings) if reader.errors.is_empty() => Ok(settings),
            _ => Err(SettingErrors(reader.errors)),
        }
    }
}

/// Reads settings one by one, and remembers what is wrong.
///
/// Its methods answer `None` after an error. Each first reads all that it needs, and only then gives up on what it did
/// not get: so all errors are found.
struct Reader<'a> {
    raw: &'a Raw,
    mode: Mode,
    errors: Vec<SettingError>,
}

impl<'a> Reader<'a> {
    /// A setting's text, where it is set.
    fn text(&self, setting: &Setting) -> Option<&'a str> {
        debug_assert!(TABLE.iter().any(|row| row.name == setting.name), "{} is in the table", setting.name);
        debug_assert!(setting.modes.contains(&self.mode), "{} is for {}", setting.name, self.mode);
        (setting.text)(self.raw).as_deref()
    }

    /// A setting that can be absent.
    fn optional<T>(
        &mut self,
        setting: &Setting,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<Option<T>> {
        match self.text(setting).map(|text| (text, parse(text))) {
            None => Some(None),
            Some((_, Ok(value))) => Some(Some(value)),
            Some((text, Err(fault))) => {
                self.errors.push(SettingError::Value {
                    setting: setting.name,
                    value: text.to_owned(),
                    fault,
                });
                None
            }
        }
    }

    /// A setting that has a default in the table.
    fn required<T>(&mut self, setting: &Setting, parse: impl Fn(&str) -> Result<T, Fault>) -> Option<T> {
        match (self.optional(setting, &parse)?, setting.default) {
            (Some(value), _) => Some(value),
            (None, Fallback::Text(default)) => {
                let value = parse(default);
                debug_assert!(value.is_ok(), "the default of {} is right", setting.name);
                value.ok()
            }
            (None, Fallback::Absent | Fallback::Depends(_)) => {
                debug_assert!(false, "{} has a default", setting.name);
                None
            }
        }
    }

    fn refuse_flags_of_other_modes(&mut self, flags: &[Flag]) {
        for (setting, text) in flags {
            if !setting.modes.contains(&self.mode) && !text.trim().is_empty() {
                let (value, mode) = (text.clone(), self.mode);
                self.errors.push(SettingError::OtherMode { setting, value, mode });
            }
        }
    }

    fn capture(&mut self, host_name: &str) -> Option<CaptureSettings> {
        let input = self.input();
        let source_name = self.optional(&table::SOURCE_NAME, value::name);
        let relay = self.relay();
        let common = self.common();
        Some(CaptureSettings {
            input: input?,
            source_name: source_name?.unwrap_or_else(|| host_name.to_owned()),
            relay: relay?,
            common: common?,
        })
    }

    fn collect(&mut self) -> Option<CollectSettings> {
        let endpoints = self.required(&table::COLLECT_ENDPOINT, |text| Ok(Endpoint::parse_list(text)?));
        let output = self.required(&table::OUTPUT, |text| Ok(FileOrStdio::parse(text)));
        let formats = [("pcap", OutputFormat::Pcap), ("pcapng", OutputFormat::Pcapng)];
        let format = self.required(&table::OUTPUT_FORMAT, |text| value::choice(text, &formats));
        let merge_window = self.required(&table::MERGE_WINDOW, |text| {
            // Every packet of that long is held in memory.
            value::duration(text, Duration::ZERO..=Duration::from_secs(60))
        });
        let exit_on_end = self.required(&table::EXIT_ON_END, value::yes_or_no);
        let common = self.common();
        Some(CollectSettings {
            endpoints: endpoints?,
            output: output?,
            format: format?,
            merge_window: merge_window?,
            exit_on_end: exit_on_end?,
            common: common?,
        })
    }

    fn observe(&mut self) -> Option<ObserveSettings> {
        let input = self.input();
        let common = self.common();
        Some(ObserveSettings { input: input?, common: common? })
    }

    fn input(&mut self) -> Option<InputSettings> {
        let input = self.input_place();
        let filter = self.optional(&table::FILTER, |text| Ok(text.to_owned()));
        // 262144 is the most that libpcap's readers accept of a packet (MAXIMUM_SNAPLEN).
        let snaplen = self.required(&table::SNAPLEN, |text| value::size(text, 1..=262_144));
        // libpcap's ring is made of blocks of 256 KiB, and the kernel fills one while we read another; and the size
        // is an `int` for libpcap.
        let buffer_size = self.required(&table::BUFFER_SIZE, |text| value::size(text, 512 * KIB..=GIB));
        let promiscuous = self.required(&table::PROMISCUOUS, value::yes_or_no);
        Some(InputSettings {
            input: input?,
            filter: filter?,
            snaplen: u32::try_from(snaplen?).ok()?,
            buffer_size: u32::try_from(buffer_size?).ok()?,
            promiscuous: promiscuous?,
        })
    }

    fn input_place(&mut self) -> Option<Input> {
        let devices = self.optional(&table::DEVICE, value::devices);
        let file = self.optional(&table::READ_FILE, |text| Ok(FileOrStdio::parse(text)));
        let ports = self.optional(&table::TZSP_PORT, value::ports);
        if let (Some(device), Some(file)) = (self.text(&table::DEVICE), self.text(&table::READ_FILE)) {
            self.errors.push(SettingError::Conflict {
                setting: table::READ_FILE.name,
                value: file.to_owned(),
                other: table::DEVICE.name,
                other_value: device.to_owned(),
                fault: Fault::new(
                    "exclude each other",
                    "drop `DEVICE` to read the file, or `READ_FILE` to capture",
                ),
            });
        }
        Some(match (file?, devices?, ports?) {
            (Some(file), _, None) => Input::File(file),
            (Some(file), _, Some(ports)) => Input::TzspFile(file, ports),
            (None, None, Some(ports)) => Input::TzspSockets(ports),
            (None, Some(devices), Some(ports)) => Input::TzspDevices(devices, ports),
            (None, Some(devices), None) => Input::Devices(devices),
            (None, None, None) => Input::Devices(self.required(&table::DEVICE, value::devices)?),
        })
    }

    fn relay(&mut self) -> Option<RelaySettings> {
        let endpoint = self.required(&table::RELAY_ENDPOINT, |text| Ok(Endpoint::parse_remote(text)?));
        let buffer = self.required(&table::RELAY_BUFFER, |text| value::size(text, 4 * KIB..=1024 * GIB));
        let bytes = self.required(&table::BATCH_BYTES, |text| value::size(text, 4 * KIB..=4 * MIB));
        let delay = self.required(&table::BATCH_DELAY, |text| {
            value::duration(text, Duration::from_millis(1)..=Duration::from_secs(10))
        });
        let methods = [
            ("none", batch::Compression::None),
            ("lz4", batch::Compression::Lz4),
            ("zstd", batch::Compression::Zstd),
        ];
        let compression = self.required(&table::COMPRESSION, |text| value::choice(text, &methods));

        let (buffer, bytes) = (buffer?, bytes?);
        if buffer < bytes {
            let text = |setting: &Setting| self.text(setting).unwrap_or(setting.default_text()).to_owned();
            self.errors.push(SettingError::Conflict {
                setting: table::RELAY_BUFFER.name,
                value: text(&table::RELAY_BUFFER),
                other: table::BATCH_BYTES.name,
                other_value: text(&table::BATCH_BYTES),
                fault: Fault::new(
                    "leave no room for a single batch",
                    "a buffer holds at least one: enlarge it",
                ),
            });
        }
        Some(RelaySettings {
            endpoint: endpoint?,
            buffer: usize::try_from(buffer).unwrap_or(usize::MAX),
            batch: batch::Limits { bytes: usize::try_from(bytes).ok()?, delay: delay? },
            compression: compression?,
        })
    }

    fn common(&mut self) -> Option<CommonSettings> {
        let max_packets = self.optional(&table::MAX_PACKETS, |text| value::count(text, 1..=u64::MAX));
        let max_duration = self
            .optional(&table::MAX_DURATION, |text| value::duration(text, Duration::from_millis(1)..=LONGEST));
        let observers = self.observers();
        let metrics_address = self.required(&table::METRICS_ADDRPORT, MetricsAddress::parse);
        let metrics_file = self.optional(&table::METRICS_FILE, value::file);
        let log = self.required(&table::LOG, log_filter);
        Some(CommonSettings {
            max_packets: max_packets?.and_then(NonZeroU64::new),
            max_duration: max_duration?,
            observers: observers?,
            metrics_address: metrics_address?,
            metrics_file: metrics_file?,
            log: log?,
        })
    }

    fn observers(&mut self) -> Option<ObserverSettings> {
        let chosen = self.optional(&table::OBSERVE, Chosen::parse);
        let flow_age = self.age(&table::FLOW_AGE);
        let max_flows = self.capacity(&table::MAX_FLOWS);
        let stream_age = self.age(&table::STREAM_AGE);
        let finalized_age = self.age(&table::STREAM_FINALIZED_AGE);
        let max_streams = self.capacity(&table::MAX_STREAMS);
        let export = self.required(&table::STREAMS_EXPORT, |text| value::count(text, 0..=u32::MAX.into()));
        let max_pairs = self.capacity(&table::MAX_PAIRS);

        let chosen = chosen?.unwrap_or(Chosen::of_mode(self.mode));
        let flows = FlowSettings { age: flow_age?, max: max_flows? };
        let streams = StreamSettings {
            age: stream_age?,
            finalized_age: finalized_age?,
            max: max_streams?,
            export: u32::try_from(export?).ok()?,
        };
        let pairs = PairSettings { age: flows.age, max: max_pairs? };
        Some(ObserverSettings {
            sizes: chosen.sizes,
            flows: chosen.flows.then_some(flows),
            streams: chosen.streams.then_some(streams),
            pairs: chosen.pairs.then_some(pairs),
        })
    }

    /// How long something is remembered.
    fn age(&mut self, setting: &Setting) -> Option<Duration> {
        self.required(setting, |text| value::duration(text, Duration::from_millis(1)..=LONGEST))
    }

    /// How many entries a table has room for.
    fn capacity(&mut self, setting: &Setting) -> Option<NonZeroU32> {
        let count = self.required(setting, |text| value::count(text, 1..=u32::MAX.into()))?;
        NonZeroU32::new(u32::try_from(count).ok()?)
    }
}

/// A filter as `tracing` has it. It takes any lone word for the name of a module, and logs that and nothing else: a
/// slip such as `verbose` would silence the program, so a word without `=` has to be a level.
fn log_filter(text: &str) -> Result<Targets, Fault> {
    let fault = || {
        Fault::new(
            "is no log filter",
            "`off`, `error`, `warn`, `info`, `debug` or `trace`; for one module `info,source=debug`",
        )
    };
    let words = value::list(text)?;
    if words.iter().any(|word| !word.contains('=') && word.parse::<LevelFilter>().is_err()) {
        return Err(fault());
    }
    words.join(",").parse().map_err(|_| fault())
}

#[cfg(test)]
mod tests;
