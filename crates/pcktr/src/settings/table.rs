//! The table of settings: the one place where the name, the default, the modes and the meaning of each stand.
//!
//! The variables of the environment, the flags, `--help` and the README's table are made of it.

use super::{Mode, Raw};

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The variable of the environment. The flag is called alike: see [`Setting::flag`].
    pub(crate) name: &'static str,
    /// The word for its value in `--help`.
    pub(crate) value: &'static str,
    /// What holds where it is not set.
    pub(crate) default: Fallback,
    /// Who uses it.
    pub(crate) modes: &'static [Mode],
    /// What it says, in half a sentence; code between backticks.
    pub(crate) meaning: &'static str,
    /// Its text among all that was given.
    pub(crate) text: fn(&Raw) -> &Option<String>,
}

/// What holds where a setting is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// Nothing: the setting can be absent.
    Absent,
    /// This text, which means what it means when the user writes it.
    Text(&'static str),
    /// It depends; this says on what.
    Depends(&'static str),
}

impl Setting {
    /// The name of the flag, without its dashes: `relay-endpoint` for `RELAY_ENDPOINT`.
    pub(crate) fn flag(&self) -> String {
        self.name.to_ascii_lowercase().replace('_', "-")
    }

    /// Whether it is a switch: its flag alone means yes.
    pub(crate) fn is_switch(&self) -> bool {
        self.value == YES_OR_NO
    }

    /// The default as the tables print it; empty for none.
    pub(crate) fn default_text(&self) -> &'static str {
        match self.default {
            Fallback::Absent => "",
            Fallback::Text(text) | Fallback::Depends(text) => text,
        }
    }

    /// The modes as the tables print them.
    pub(crate) fn modes_text(&self) -> String {
        if self.modes == ALL {
            return "all".to_owned();
        }
        self.modes.iter().map(|mode| mode.as_str()).collect::<Vec<_>>().join(", ")
    }
}

const ALL: &[Mode] = &[Mode::Capture, Mode::Collect, Mode::Observe];
const CAPTURE: &[Mode] = &[Mode::Capture];
const COLLECT: &[Mode] = &[Mode::Collect];
const WITH_INPUT: &[Mode] = &[Mode::Capture, Mode::Observe];

const BYTES: &str = "BYTES";
const COUNT: &str = "COUNT";
const DURATION: &str = "DURATION";
const YES_OR_NO: &str = "YES|NO";

/// Every setting, in the order of `--help`.
pub(crate) const TABLE: &[Setting] = &[
    MODE,
    DEVICE,
    FILTER,
    SNAPLEN,
    BUFFER_SIZE,
    PROMISCUOUS,
    READ_FILE,
    TZSP_PORT,
    SOURCE_NAME,
    RELAY_ENDPOINT,
    RELAY_BUFFER,
    BATCH_BYTES,
    BATCH_DELAY,
    COMPRESSION,
    COLLECT_ENDPOINT,
    OUTPUT,
    OUTPUT_FORMAT,
    MERGE_WINDOW,
    EXIT_ON_END,
    MAX_PACKETS,
    MAX_DURATION,
    OBSERVE,
    FLOW_AGE,
    MAX_FLOWS,
    STREAM_AGE,
    STREAM_FINALIZED_AGE,
    MAX_STREAMS,
    STREAMS_EXPORT,
    MAX_PAIRS,
    METRICS_ADDRPORT,
    METRICS_FILE,
    LOG,
];

pub(crate) const MODE: Setting = Setting {
    name: "MODE",
    value: "capture|collect|observe",
    default: Fallback::Text("capture"),
    modes: ALL,
    meaning: "`capture`: send packets to a collector; `collect`: receive them, merge them by time and write them; \
              `observe`: measure them, and send them nowhere",
    text: |raw| &raw.mode,
};

pub(crate) const DEVICE: Setting = Setting {
    name: "DEVICE",
    value: "NAME,...",
    default: Fallback::Text("lo"),
    modes: WITH_INPUT,
    meaning: "device or devices to capture on; `any` for all of them",
    text: |raw| &raw.device,
};

pub(crate) const FILTER: Setting = Setting {
    name: "FILTER",
    value: "EXPRESSION",
    default: Fallback::Absent,
    modes: WITH_INPUT,
    meaning: "only packets that match this pcap-filter(7) expression",
    text: |raw| &raw.filter,
};

pub(crate) const SNAPLEN: Setting = Setting {
    name: "SNAPLEN",
    value: BYTES,
    default: Fallback::Text("262144"),
    modes: WITH_INPUT,
    meaning: "keep at most this much of a packet",
    text: |raw| &raw.snaplen,
};

pub(crate) const BUFFER_SIZE: Setting = Setting {
    name: "BUFFER_SIZE",
    value: BYTES,
    default: Fallback::Text("16MiB"),
    modes: WITH_INPUT,
    meaning: "the kernel's capture buffer, of each device",
    text: |raw| &raw.buffer_size,
};

pub(crate) const PROMISCUOUS: Setting = Setting {
    name: "PROMISCUOUS",
    value: YES_OR_NO,
    default: Fallback::Text("true"),
    modes: WITH_INPUT,
    meaning: "also capture what is not addressed to this machine",
    text: |raw| &raw.promiscuous,
};

pub(crate) const READ_FILE: Setting = Setting {
    name: "READ_FILE",
    value: "PATH",
    default: Fallback::Absent,
    modes: WITH_INPUT,
    meaning: "replay this pcap or pcapng file (`-`: standard input) instead of a device, then end",
    text: |raw| &raw.read_file,
};

pub(crate) const TZSP_PORT: Setting = Setting {
    name: "TZSP_PORT",
    value: "PORT,...",
    default: Fallback::Absent,
    modes: WITH_INPUT,
    meaning: "receive TZSP on these UDP ports instead of a device's own packets; with `DEVICE` or `READ_FILE` set \
              too, find the datagrams among its packets, fragmented and truncated ones included",
    text: |raw| &raw.tzsp_port,
};

pub(crate) const SOURCE_NAME: Setting = Setting {
    name: "SOURCE_NAME",
    value: "NAME",
    default: Fallback::Depends("host name"),
    modes: CAPTURE,
    meaning: "how this capture is called at the collector",
    text: |raw| &raw.source_name,
};

pub(crate) const RELAY_ENDPOINT: Setting = Setting {
    name: "RELAY_ENDPOINT",
    value: "ENDPOINT",
    default: Fallback::Text("tcp://localhost:7386"),
    modes: CAPTURE,
    meaning: "where to send packets: `tcp://host:port` or `ipc://path`",
    text: |raw| &raw.relay_endpoint,
};

pub(crate) const RELAY_BUFFER: Setting = Setting {
    name: "RELAY_BUFFER",
    value: BYTES,
    default: Fallback::Text("64MiB"),
    modes: CAPTURE,
    meaning: "memory for packets that can't be sent at the moment; beyond it the oldest are dropped, and counted",
    text: |raw| &raw.relay_buffer,
};

pub(crate) const BATCH_BYTES: Setting = Setting {
    name: "BATCH_BYTES",
    value: BYTES,
    default: Fallback::Text("256KiB"),
    modes: CAPTURE,
    meaning: "a batch of packets is sent when it is this full",
    text: |raw| &raw.batch_bytes,
};

pub(crate) const BATCH_DELAY: Setting = Setting {
    name: "BATCH_DELAY",
    value: DURATION,
    default: Fallback::Text("50ms"),
    modes: CAPTURE,
    meaning: "a batch of packets is sent when its first has waited this long",
    text: |raw| &raw.batch_delay,
};

pub(crate) const COMPRESSION: Setting = Setting {
    name: "COMPRESSION",
    value: "none|lz4|zstd",
    default: Fallback::Text("none"),
    modes: CAPTURE,
    meaning: "how batches are compressed: `none`, `lz4` (fast) or `zstd` (smaller)",
    text: |raw| &raw.compression,
};

pub(crate) const COLLECT_ENDPOINT: Setting = Setting {
    name: "COLLECT_ENDPOINT",
    value: "ENDPOINT,...",
    default: Fallback::Text("tcp://localhost:7386"),
    modes: COLLECT,
    meaning: "where to listen for packets: `tcp://host:port`, `tcp://*:port` for every address, or `ipc://path`",
    text: |raw| &raw.collect_endpoint,
};

pub(crate) const OUTPUT: Setting = Setting {
    name: "OUTPUT",
    value: "PATH",
    default: Fallback::Text("-"),
    modes: COLLECT,
    meaning: "where to write the packets; `-`: standard output",
    text: |raw| &raw.output,
};

pub(crate) const OUTPUT_FORMAT: Setting = Setting {
    name: "OUTPUT_FORMAT",
    value: "pcap|pcapng",
    default: Fallback::Text("pcap"),
    modes: COLLECT,
    meaning: "`pcap` (nanoseconds), or `pcapng` (with one interface for each source and device)",
    text: |raw| &raw.output_format,
};

pub(crate) const MERGE_WINDOW: Setting = Setting {
    name: "MERGE_WINDOW",
    value: DURATION,
    default: Fallback::Text("200ms"),
    modes: COLLECT,
    meaning: "how long a packet waits for older ones of slower sources",
    text: |raw| &raw.merge_window,
};

pub(crate) const EXIT_ON_END: Setting = Setting {
    name: "EXIT_ON_END",
    value: YES_OR_NO,
    default: Fallback::Text("false"),
    modes: COLLECT,
    meaning: "end when every source seen so far has ended",
    text: |raw| &raw.exit_on_end,
};

pub(crate) const MAX_PACKETS: Setting = Setting {
    name: "MAX_PACKETS",
    value: COUNT,
    default: Fallback::Absent,
    modes: ALL,
    meaning: "end after this many packets",
    text: |raw| &raw.max_packets,
};

pub(crate) const MAX_DURATION: Setting = Setting {
    name: "MAX_DURATION",
    value: DURATION,
    default: Fallback::Absent,
    modes: ALL,
    meaning: "end after this long",
    text: |raw| &raw.max_duration,
};

pub(crate) const OBSERVE: Setting = Setting {
    name: "OBSERVE",
    value: "OBSERVER,...",
    default: Fallback::Depends("sizes; to observe: all"),
    modes: ALL,
    meaning: "what is measured: `sizes`, `flows`, `streams`, `pairs`; `all`; or `none`",
    text: |raw| &raw.observe,
};

pub(crate) const FLOW_AGE: Setting = Setting {
    name: "FLOW_AGE",
    value: DURATION,
    default: Fallback::Text("1h"),
    modes: ALL,
    meaning: "when a silent flow, or pair of hosts, is forgotten",
    text: |raw| &raw.flow_age,
};

pub(crate) const MAX_FLOWS: Setting = Setting {
    name: "MAX_FLOWS",
    value: COUNT,
    default: Fallback::Text("250000"),
    modes: ALL,
    meaning: "flows known at a time; what has no room is counted",
    text: |raw| &raw.max_flows,
};

pub(crate) const STREAM_AGE: Setting = Setting {
    name: "STREAM_AGE",
    value: DURATION,
    default: Fallback::Text("5m"),
    modes: ALL,
    meaning: "when a silent TCP stream is forgotten",
    text: |raw| &raw.stream_age,
};

pub(crate) const STREAM_FINALIZED_AGE: Setting = Setting {
    name: "STREAM_FINALIZED_AGE",
    value: DURATION,
    default: Fallback::Text("1m"),
    modes: ALL,
    meaning: "when a TCP stream that has ended is forgotten",
    text: |raw| &raw.stream_finalized_age,
};

pub(crate) const MAX_STREAMS: Setting = Setting {
    name: "MAX_STREAMS",
    value: COUNT,
    default: Fallback::Text("1000000"),
    modes: ALL,
    meaning: "TCP streams known at a time; the one silent for longest makes room, and is counted",
    text: |raw| &raw.max_streams,
};

pub(crate) const STREAMS_EXPORT: Setting = Setting {
    name: "STREAMS_EXPORT",
    value: COUNT,
    default: Fallback::Text("10000"),
    modes: ALL,
    meaning: "TCP streams in one scrape: those with most bytes; the rest is counted",
    text: |raw| &raw.streams_export,
};

pub(crate) const MAX_PAIRS: Setting = Setting {
    name: "MAX_PAIRS",
    value: COUNT,
    default: Fallback::Text("20000"),
    modes: ALL,
    meaning: "pairs of hosts known at a time; what has no room is counted",
    text: |raw| &raw.max_pairs,
};

pub(crate) const METRICS_ADDRPORT: Setting = Setting {
    name: "METRICS_ADDRPORT",
    value: "HOST:PORT",
    default: Fallback::Text(":9108"),
    modes: ALL,
    meaning: "where Prometheus finds the metrics; `:port` for every address, `off` for nowhere",
    text: |raw| &raw.metrics_addrport,
};

pub(crate) const METRICS_FILE: Setting = Setting {
    name: "METRICS_FILE",
    value: "PATH",
    default: Fallback::Absent,
    modes: ALL,
    meaning: "write the metrics there too, every 15 s and at the end: for node_exporter's textfile collector",
    text: |raw| &raw.metrics_file,
};

pub(crate) const LOG: Setting = Setting {
    name: "LOG",
    value: "FILTER",
    default: Fallback::Text("info"),
    modes: ALL,
    meaning: "what is logged to standard error: `error`, `warn`, `info`, `debug` or `trace`, and more finely \
              `info,source=debug`",
    text: |raw| &raw.log,
};

#[cfg(test)]
mod tests {
    use super::*;

    /// The README's rendering of the table.
    fn markdown() -> String {
        let mut out = String::from("| setting | default | modes | meaning |\n| --- | --- | --- | --- |\n");
        for setting in TABLE {
            let default = match setting.default {
                Fallback::Absent => String::new(),
                Fallback::Text(text) => format!("`{text}`"),
                Fallback::Depends(text) => text.to_owned(),
            };
            out += &format!(
                "| `{}` | {default} | {} | {} |\n",
                setting.name,
                setting.modes_text(),
                setting.meaning.replace('|', "\\|"),
            );
        }
        out
    }

    #[test]
    fn the_readme_has_the_table() {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
        let text = std::fs::read_to_string(readme).expect("README.md stands at the top of the workspace");
        let table = text
            .split_once("<!-- settings -->\n")
            .and_then(|(_, rest)| rest.split_once("<!-- /settings -->"))
            .map(|(table, _)| table.trim());
        let wanted = markdown();
        assert!(
            table == Some(wanted.trim()),
            "README.md must have this between <!-- settings --> and <!-- /settings -->:\n\n{wanted}"
        );
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = TABLE.iter().map(|setting| setting.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
    }
}
