//! The declarations of all settings. The parser of the environment and the flags, `--help` and the README's table are
//! derived from them.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use batch::Compression;
use pipeline::config::{FileOrStdio, Ports};
use relay::{Endpoint, PublicKey};
use sandbox::User;
use serde::Deserialize;
use sink::CaptureFormat;
use tracing_subscriber::filter::Targets;
use web::ListenAddress;

use super::declaration::Fallback::{Absent, Computed, Text};
use super::declaration::{BOOLEAN, Given, Setting, SettingDeclaration, settings};
use super::error::{Fault, SettingError};
use super::value::*;
use super::{Mode, Selection};

const ALL: &[Mode] = &Mode::RUNNING;
const CAPTURE: &[Mode] = &[Mode::Capture];
const COLLECT: &[Mode] = &[Mode::Collect];
const INPUT: &[Mode] = &[Mode::Capture, Mode::Observe];
const KEYS: &[Mode] = &[Mode::Capture, Mode::Collect, Mode::Keygen];

const BYTES: &str = "BYTES";
const COUNT: &str = "COUNT";
const DURATION: &str = "DURATION";

settings! {
    MODE => mode: Mode {
        value: "NAME", default: Text("capture"), modes: &Mode::ALL,
        meaning: "`capture`: capture packets and send them to a collector; `collect`: receive packets from \
                  captures, merge them in timestamp order and write them; `observe`: only measure packets; \
                  `keygen`: make a key in `KEY_FILE`, if there is none, and print its public key",
        parse: Mode::parse,
    }

    DEVICE => device: Vec<String> {
        value: "NAME,...", default: Text("lo"), modes: INPUT,
        meaning: "devices to capture on; `any` for all devices",
        parse: devices,
    }

    FILTER => filter: Option<String> {
        value: "EXPRESSION", default: Absent, modes: INPUT,
        meaning: "capture only packets that match this pcap-filter(7) expression",
        parse: optional(text),
    }

    SNAPLEN => snaplen: u32 {
        value: BYTES, default: Text("262144"), modes: INPUT,
        meaning: "maximum bytes captured per packet",
        // The maximum is that of libpcap's readers (MAXIMUM_SNAPLEN).
        parse: size(1..=262_144),
    }

    BUFFER_SIZE => buffer_size: u32 {
        value: BYTES, default: Text("16MiB"), modes: INPUT,
        meaning: "size of the kernel's capture buffer, per device",
        // libpcap's ring consists of blocks of 256 KiB, and the kernel fills one while another is read. libpcap takes
        // the size as an `int`.
        parse: size(512 * KIB..=GIB),
    }

    PROMISCUOUS => promiscuous: bool {
        value: BOOLEAN, default: Text("true"), modes: INPUT,
        meaning: "put devices into promiscuous mode",
        parse: boolean,
    }

    READ_FILE => read_file: Option<FileOrStdio> {
        value: "PATH", default: Absent, modes: INPUT,
        meaning: "read packets from this pcap or pcapng file (`-`: standard input) instead of a device, \
                  then exit",
        parse: optional(file_or_stdio),
    }

    TZSP_PORT => tzsp_port: Option<Ports> {
        value: "PORT,...", default: Absent, modes: INPUT,
        meaning: "receive TZSP on these UDP ports instead of capturing on a device; if `DEVICE` or \
                  `READ_FILE` is also set, extract the TZSP datagrams from its packets, including \
                  fragmented and truncated ones",
        parse: optional(list_of(port)),
    }

    SOURCE_NAME => source_name: Option<String> {
        value: "NAME", default: Computed("host name"), modes: CAPTURE,
        meaning: "this capture's name at the collector",
        parse: optional(source_name),
    }

    RELAY_ENDPOINT => relay_endpoint: Endpoint {
        value: "ENDPOINT", default: Text("tcp://localhost:7386"), modes: CAPTURE,
        meaning: "collector to send packets to: `tcp://host:port` or `ipc://path`",
        parse: |text| Ok(Endpoint::parse_remote(text)?),
    }

    RELAY_BUFFER => relay_buffer: usize {
        value: BYTES, default: Text("64MiB"), modes: CAPTURE,
        meaning: "send buffer; when it is full, the oldest packets are dropped and counted",
        parse: size(4 * KIB..=1024 * GIB),
    }

    BATCH_BYTES => batch_bytes: usize {
        value: BYTES, default: Text("256KiB"), modes: CAPTURE,
        meaning: "size at which a batch of packets is sent",
        parse: size(4 * KIB..=4 * MIB),
    }

    BATCH_DELAY => batch_delay: Duration {
        value: DURATION, default: Text("50ms"), modes: CAPTURE,
        meaning: "time after which a batch of packets is sent even if it is smaller",
        parse: duration(MILLISECOND..=Duration::from_secs(10)),
    }

    COMPRESSION => compression: batch::Compression {
        value: "none|lz4|zstd", default: Text("none"), modes: CAPTURE,
        meaning: "compression of batches: `none`, `lz4` (fast) or `zstd` (smaller)",
        parse: choice(&[("none", Compression::None), ("lz4", Compression::Lz4), ("zstd", Compression::Zstd)]),
    }

    COLLECT_ENDPOINT => collect_endpoint: Vec<Endpoint> {
        value: "ENDPOINT,...", default: Text("tcp://localhost:7386"), modes: COLLECT,
        meaning: "where to listen for captures: `tcp://host:port`, `tcp://*:port` for all addresses, or \
                  `ipc://path`",
        parse: |text| Ok(Endpoint::parse_list(text)?),
    }

    OUTPUT => output: FileOrStdio {
        value: "PATH", default: Text("-"), modes: COLLECT,
        meaning: "file to write packets to (`-`: standard output)",
        parse: file_or_stdio,
    }

    OUTPUT_FORMAT => output_format: CaptureFormat {
        value: "pcap|pcapng", default: Text("pcap"), modes: COLLECT,
        meaning: "`pcap` (with nanosecond timestamps), or `pcapng` (with one interface per source and \
                  device)",
        parse: choice(&[("pcap", CaptureFormat::Pcap), ("pcapng", CaptureFormat::PcapNg)]),
    }

    MERGE_WINDOW => merge_window: Duration {
        value: DURATION, default: Text("200ms"), modes: COLLECT,
        meaning: "how long a packet waits for older ones from slower sources",
        // All packets of this time are kept in memory.
        parse: duration(Duration::ZERO..=Duration::from_secs(60)),
    }

    MAX_SOURCES => max_sources: NonZeroU32 {
        value: COUNT, default: Text("4096"), modes: COLLECT,
        meaning: "maximum number of sources at a time (every device of a capture is one); beyond it, batches of \
                  new sources are rejected and counted",
        // A source takes up to 24 KiB.
        parse: count(NonZeroU32::MIN..=NonZeroU32::new(1 << 20).unwrap_or(NonZeroU32::MAX)),
    }

    EXIT_ON_END => exit_on_end: bool {
        value: BOOLEAN, default: Text("false"), modes: COLLECT,
        meaning: "exit when all sources seen so far have ended",
        parse: boolean,
    }

    KEY_FILE => key_file: Option<PathBuf> {
        value: "PATH", default: Absent, modes: KEYS,
        meaning: "this program's secret key, in a file that others cannot read; with `COLLECTOR_KEY` or \
                  `AUTHORIZED_KEYS`, the relay is encrypted",
        parse: optional(file),
    }

    COLLECTOR_KEY => collector_key: Option<PublicKey> {
        value: "KEY", default: Absent, modes: CAPTURE,
        meaning: "the collector's public key; packets go to no other collector",
        parse: optional(public_key),
    }

    AUTHORIZED_KEYS => authorized_keys: Option<PathBuf> {
        value: "PATH", default: Absent, modes: COLLECT,
        meaning: "file of the captures that are admitted, one per line: public key, then the names that it \
                  may use as `SOURCE_NAME` (`*` stands for any characters); read again when it changes",
        parse: optional(file),
    }

    MAX_CONNECTIONS => max_connections: NonZeroU32 {
        value: COUNT, default: Text("4096"), modes: COLLECT,
        meaning: "maximum number of connections; beyond it, the peer with the most connections loses one, \
                  preferably one that never sent a valid batch",
        parse: count(NonZeroU32::MIN..=NonZeroU32::MAX),
    }

    MAX_PACKETS => max_packets: Option<NonZeroU64> {
        value: COUNT, default: Absent, modes: ALL,
        meaning: "exit after this many packets",
        parse: optional(count(NonZeroU64::MIN..=NonZeroU64::MAX)),
    }

    MAX_DURATION => max_duration: Option<Duration> {
        value: DURATION, default: Absent, modes: ALL,
        meaning: "exit after this time",
        parse: optional(duration(MILLISECOND..=LONGEST)),
    }

    OBSERVE => observe: Option<Selection> {
        value: "OBSERVER,...", default: Computed("sizes (observe: all)"), modes: ALL,
        meaning: "what to measure: any of `sizes`, `flows`, `streams` and `pairs`; `all`; or `none`",
        parse: optional(Selection::parse),
    }

    FLOW_AGE => flow_age: Duration {
        value: DURATION, default: Text("1h"), modes: ALL,
        meaning: "idle time after which a flow or a pair of hosts is forgotten",
        parse: duration(MILLISECOND..=LONGEST),
    }

    MAX_FLOWS => max_flows: NonZeroU32 {
        value: COUNT, default: Text("250000"), modes: ALL,
        meaning: "maximum number of flows; packets of further flows are counted as untracked",
        parse: count(NonZeroU32::MIN..=NonZeroU32::MAX),
    }

    STREAM_AGE => stream_age: Duration {
        value: DURATION, default: Text("5m"), modes: ALL,
        meaning: "idle time after which a TCP stream is forgotten",
        parse: duration(MILLISECOND..=LONGEST),
    }

    STREAM_FINALIZED_AGE => stream_finalized_age: Duration {
        value: DURATION, default: Text("1m"), modes: ALL,
        meaning: "idle time after which a closed TCP stream is forgotten",
        parse: duration(MILLISECOND..=LONGEST),
    }

    MAX_STREAMS => max_streams: NonZeroU32 {
        value: COUNT, default: Text("1000000"), modes: ALL,
        meaning: "maximum number of TCP streams; beyond it, the longest idle stream is evicted and counted",
        parse: count(NonZeroU32::MIN..=NonZeroU32::MAX),
    }

    STREAMS_EXPORT => streams_export: u32 {
        value: COUNT, default: Text("10000"), modes: ALL,
        meaning: "maximum number of TCP streams per scrape: those with the most bytes; the others are \
                  counted",
        parse: count(0..=u32::MAX),
    }

    MAX_PAIRS => max_pairs: NonZeroU32 {
        value: COUNT, default: Text("20000"), modes: ALL,
        meaning: "maximum number of pairs of hosts; beyond it, the longest idle pair is evicted and \
                  counted",
        parse: count(NonZeroU32::MIN..=NonZeroU32::MAX),
    }

    METRICS_ADDRPORT => metrics_addrport: Option<ListenAddress> {
        value: "HOST:PORT", default: Text(":9108"), modes: ALL,
        meaning: "address to serve metrics on; `:port` for all addresses; `off` disables it",
        parse: listen_address,
    }

    WEB_CONFIG_FILE => web_config_file: Option<PathBuf> {
        value: "PATH", default: Absent, modes: ALL,
        meaning: "TLS and passwords for metrics, in the format of Prometheus' exporter-toolkit; read again when \
                  it changes",
        parse: optional(|text| Ok(text.into())),
    }

    METRICS_FILE => metrics_file: Option<PathBuf> {
        value: "PATH", default: Absent, modes: ALL,
        meaning: "also write the metrics to this file every 15 s and at exit, for node_exporter's textfile \
                  collector",
        parse: optional(file),
    }

    RUN_AS_USER => run_as_user: Option<User> {
        value: "USER[:GROUP]", default: Absent, modes: ALL,
        meaning: "change to this user once devices, sockets and input files are open; for a program started as root",
        parse: optional(|text| Ok(User::find(text)?)),
    }

    SANDBOX => sandbox: bool {
        value: "on|off", default: Text("on"), modes: ALL,
        meaning: "drop all capabilities, and use landlock and seccomp to restrict the program to the files, \
                  ports and system calls that it still needs",
        parse: choice(&[("on", true), ("off", false)]),
    }

    LOG => log: Targets {
        value: "FILTER", default: Text("info"), modes: ALL,
        meaning: "log level: `off`, `error`, `warn`, `info`, `debug` or `trace`; also per module: \
                  `info,source=debug`",
        parse: log_filter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The settings as the README lists them.
    fn markdown() -> String {
        let mut out = String::from("| setting | default | modes | meaning |\n| --- | --- | --- | --- |\n");
        for setting in TABLE {
            let default = match setting.default {
                Absent => String::new(),
                Text(text) => format!("`{text}`"),
                Computed(text) => text.to_owned(),
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
    fn readme_lists_all_settings() {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
        let text = std::fs::read_to_string(readme).expect("README.md is at the top of the workspace");
        let table = text
            .split_once("<!-- settings -->\n")
            .and_then(|(_, rest)| rest.split_once("<!-- /settings -->"))
            .map(|(table, _)| table.trim());
        let expected = markdown();
        assert!(
            table == Some(expected.trim()),
            "README.md must contain this between <!-- settings --> and <!-- /settings -->:\n\n{expected}"
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
