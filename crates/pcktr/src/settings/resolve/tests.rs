use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv6Addr;

use super::*;
use crate::settings::{Host, StreamSettings};

/// The flags `--name text`, by the settings' names.
fn flags(pairs: &[(&str, &str)]) -> Vec<Flag> {
    let setting = |name: &str| TABLE.iter().find(|row| row.name == name).unwrap();
    pairs.iter().map(|(name, text)| (setting(name), (*text).to_owned())).collect()
}

fn load(environment: &[(&str, &str)], given: &[(&str, &str)]) -> Result<Settings, SettingErrors> {
    let environment = environment.iter().map(|(name, text)| (OsString::from(name), OsString::from(text)));
    Settings::load(environment, &flags(given), "this-host")
}

fn capture(environment: &[(&str, &str)]) -> CaptureSettings {
    match load(environment, &[]) {
        Ok(Settings::Capture(settings)) => settings,
        other => panic!("capture was wanted: {other:?}"),
    }
}

fn collect(environment: &[(&str, &str)]) -> CollectSettings {
    match load(&[&[("MODE", "collect")], environment].concat(), &[]) {
        Ok(Settings::Collect(settings)) => settings,
        other => panic!("collect was wanted: {other:?}"),
    }
}

/// What is said of settings that can't be right.
fn refused(environment: &[(&str, &str)]) -> String {
    load(environment, &[]).unwrap_err().to_string()
}

#[test]
fn the_defaults_of_capture() {
    insta::assert_debug_snapshot!(capture(&[]), @r#"
    CaptureSettings {
        input: InputSettings {
            input: Devices(
                [
                    "lo",
                ],
            ),
            filter: None,
            snaplen: 262144,
            buffer_size: 16777216,
            promiscuous: true,
        },
        source_name: "this-host",
        relay: RelaySettings {
            endpoint: Tcp {
                host: Name(
                    "localhost",
                ),
                port: 7386,
            },
            buffer: 67108864,
            batch: Limits {
                bytes: 262144,
                delay: 50ms,
            },
            compression: None,
        },
        common: CommonSettings {
            max_packets: None,
            max_duration: None,
            observers: ObserverSettings {
                sizes: true,
                flows: None,
                streams: None,
                pairs: None,
            },
            metrics_address: Some(
                MetricsAddress {
                    host: Any,
                    port: 9108,
                },
            ),
            metrics_file: None,
            log: Targets(
                DirectiveSet {
                    directives: [
                        StaticDirective {
                            target: None,
                            field_names: [],
                            level: LevelFilter::INFO,
                        },
                    ],
                    max_level: LevelFilter::INFO,
                },
            ),
        },
    }
    "#);
}

#[test]
fn the_defaults_of_collect() {
    insta::assert_debug_snapshot!(collect(&[]), @r#"
    CollectSettings {
        endpoints: [
            Tcp {
                host: Name(
                    "localhost",
                ),
                port: 7386,
            },
        ],
        output: Stdio,
        format: Pcap,
        merge_window: 200ms,
        exit_on_end: false,
        common: CommonSettings {
            max_packets: None,
            max_duration: None,
            observers: ObserverSettings {
                sizes: true,
                flows: None,
                streams: None,
                pairs: None,
            },
            metrics_address: Some(
                MetricsAddress {
                    host: Any,
                    port: 9108,
                },
            ),
            metrics_file: None,
            log: Targets(
                DirectiveSet {
                    directives: [
                        StaticDirective {
                            target: None,
                            field_names: [],
                            level: LevelFilter::INFO,
                        },
                    ],
                    max_level: LevelFilter::INFO,
                },
            ),
        },
    }
    "#);
}

#[test]
fn observe_measures_everything() {
    let Ok(Settings::Observe(settings)) = load(&[("MODE", "Observe")], &[]) else {
        panic!("observe was wanted")
    };
    let ObserverSettings { sizes, flows, streams, pairs } = settings.common.observers;
    let minutes = |n: u64| Duration::from_secs(n * 60);
    let max = |n| NonZeroU32::new(n).unwrap();
    assert!(sizes);
    assert_eq!(flows, Some(FlowSettings { age: minutes(60), max: max(250_000) }));
    assert_eq!(
        streams,
        Some(StreamSettings {
            age: minutes(5),
            finalized_age: minutes(1),
            max: max(1_000_000),
            export: 10_000
        })
    );
    assert_eq!(pairs, Some(PairSettings { age: minutes(60), max: max(20_000) }));
    assert_eq!(settings.input.input, Input::Devices(vec!["lo".to_owned()]));
}

#[test]
fn where_packets_come_from() {
    let input = |environment| capture(environment).input.input;
    let devices = || vec!["eth0".to_owned(), "wg0".to_owned()];
    let file = || FileOrStdio::File("x.pcap".into());
    assert_eq!(input(&[("DEVICE", "eth0, wg0")]), Input::Devices(devices()));
    assert_eq!(input(&[("READ_FILE", "x.pcap")]), Input::File(file()));
    assert_eq!(input(&[("READ_FILE", "-"), ("DEVICE", "")]), Input::File(FileOrStdio::Stdio));
    assert_eq!(input(&[("TZSP_PORT", "37008,37009")]), Input::TzspSockets(vec![37008, 37009]));
    assert_eq!(
        input(&[("TZSP_PORT", "37008"), ("DEVICE", "eth0,wg0")]),
        Input::TzspDevices(devices(), vec![37008])
    );
    assert_eq!(
        input(&[("TZSP_PORT", "37008"), ("READ_FILE", "x.pcap")]),
        Input::TzspFile(file(), vec![37008])
    );
}

#[test]
fn values_mean_what_they_say() {
    let settings = capture(&[
        ("MODE", "CAPTURE"),
        ("FILTER", "udp port 53 or tcp"),
        ("SNAPLEN", "128"),
        ("BUFFER_SIZE", "4MiB"),
        ("PROMISCUOUS", "No"),
        ("SOURCE_NAME", "roof"),
        ("RELAY_ENDPOINT", "tcp://[::1]:1"),
        ("RELAY_BUFFER", "1GiB"),
        ("BATCH_BYTES", "4KiB"),
        ("BATCH_DELAY", "1ms"),
        ("COMPRESSION", "LZ4"),
        ("MAX_PACKETS", "1"),
        ("MAX_DURATION", "1h 30m"),
        ("OBSERVE", "none"),
        ("METRICS_ADDRPORT", "off"),
        ("METRICS_FILE", "x.prom"),
        ("LOG", "warn,source=debug"),
    ]);
    assert_eq!(settings.source_name, "roof");
    let InputSettings { filter, snaplen, buffer_size, promiscuous, .. } = settings.input;
    assert_eq!(
        (filter.as_deref(), snaplen, buffer_size, promiscuous),
        (Some("udp port 53 or tcp"), 128, 4 << 20, false)
    );
    let RelaySettings { endpoint, buffer, batch, compression } = settings.relay;
    assert_eq!(endpoint, Endpoint::Tcp { host: Host::Address(Ipv6Addr::LOCALHOST.into()), port: 1 });
    assert_eq!((buffer, batch.bytes, batch.delay), (1 << 30, 4096, Duration::from_millis(1)));
    assert_eq!(compression, batch::Compression::Lz4);
    let common = settings.common;
    assert_eq!(
        (common.max_packets, common.max_duration),
        (NonZeroU64::new(1), Some(Duration::from_secs(5400)))
    );
    let none = ObserverSettings { sizes: false, flows: None, streams: None, pairs: None };
    assert_eq!(common.observers, none);
    assert_eq!((common.metrics_address, common.metrics_file), (None, Some("x.prom".into())));
    assert!(common.log.would_enable("source", &tracing::Level::DEBUG));
    assert!(!common.log.would_enable("sink", &tracing::Level::INFO));

    let settings = collect(&[
        ("COLLECT_ENDPOINT", "tcp://*:1,ipc://x"),
        ("OUTPUT", "x.pcapng"),
        ("OUTPUT_FORMAT", "PcapNG"),
        ("MERGE_WINDOW", "0"),
        ("EXIT_ON_END", "on"),
    ]);
    assert_eq!(
        settings.endpoints,
        [Endpoint::Tcp { host: Host::Any, port: 1 }, Endpoint::Ipc { path: "x".into() }]
    );
    assert_eq!(settings.output, FileOrStdio::File("x.pcapng".into()));
    assert_eq!(
        (settings.format, settings.merge_window, settings.exit_on_end),
        (OutputFormat::Pcapng, Duration::ZERO, true)
    );
}

#[test]
fn everything_wrong_is_told_at_once() {
    insta::assert_snapshot!(refused(&[
        ("DEVICE", ","),
        ("SNAPLEN", "0"),
        ("BUFFER_SIZE", "2GiB"),
        ("PROMISCUOUS", "perhaps"),
        ("TZSP_PORT", "37008,0"),
        ("SOURCE_NAME", "a\nb"),
        ("RELAY_ENDPOINT", "tcp://*:7386"),
        ("RELAY_BUFFER", "lots"),
        ("BATCH_BYTES", "8MiB"),
        ("BATCH_DELAY", "50"),
        ("COMPRESSION", "gzip"),
        ("MAX_PACKETS", "0"),
        ("MAX_DURATION", "0"),
        ("OBSERVE", "size"),
        ("FLOW_AGE", "soon"),
        ("MAX_FLOWS", "-1"),
        ("STREAM_AGE", "0s"),
        ("STREAM_FINALIZED_AGE", "1"),
        ("MAX_STREAMS", "5e9"),
        ("STREAMS_EXPORT", "4294967296"),
        ("MAX_PAIRS", "0"),
        ("METRICS_ADDRPORT", "9108"),
        ("METRICS_FILE", "/"),
        ("LOG", "verbose"),
        // Of another mode: whatever it says, it is not looked at.
        ("COLLECT_ENDPOINT", "nonsense"),
    ]), @r"
    DEVICE: `,` has nothing between the commas (name at least one)
    TZSP_PORT: `37008,0` holds `0`, which is no port (a port is a number from 1 to 65535)
    SNAPLEN: `0` is out of range (1 to 256KiB)
    BUFFER_SIZE: `2GiB` is out of range (512KiB to 1GiB)
    PROMISCUOUS: `perhaps` is neither yes nor no (write `true` or `false`)
    SOURCE_NAME: `a\nb` is no name (at most 255 bytes, no control characters)
    RELAY_ENDPOINT: `tcp://*:7386` names no host to send to (`*` is for a collector: name its host)
    RELAY_BUFFER: `lots` is no size (write it like `16MiB`; 4KiB to 1TiB)
    BATCH_BYTES: `8MiB` is out of range (4KiB to 4MiB)
    BATCH_DELAY: `50` has no unit (write `50s` or `50ms`; 1ms to 10s)
    COMPRESSION: `gzip` is not known (one of `none`, `lz4`, `zstd`)
    MAX_PACKETS: `0` is out of range (1 to 18446744073709551615)
    MAX_DURATION: `0` is out of range (at least 1ms)
    OBSERVE: `size` holds `size`, which is not known (one of `sizes`, `flows`, `streams`, `pairs`, `all`, `none`)
    FLOW_AGE: `soon` is no span of time (write it like `50ms`, `10s`, `5m`; at least 1ms)
    MAX_FLOWS: `-1` is no whole number that fits (1 to 4294967295)
    STREAM_AGE: `0s` is out of range (at least 1ms)
    STREAM_FINALIZED_AGE: `1` has no unit (write `1s` or `1ms`; at least 1ms)
    MAX_STREAMS: `5e9` is no whole number that fits (1 to 4294967295)
    STREAMS_EXPORT: `4294967296` is out of range (0 to 4294967295)
    MAX_PAIRS: `0` is out of range (1 to 4294967295)
    METRICS_ADDRPORT: `9108` has no port (write it like `:9108` or `127.0.0.1:9108`, or `off`)
    METRICS_FILE: `/` is no file (name a file, such as `/run/node_exporter/pcktr.prom`)
    LOG: `verbose` is no log filter (`off`, `error`, `warn`, `info`, `debug` or `trace`; for one module `info,source=debug`)
    ");
    insta::assert_snapshot!(refused(&[
        ("MODE", "collect"),
        ("COLLECT_ENDPOINT", "tcp://localhost:99999"),
        ("OUTPUT_FORMAT", "erf"),
        ("MERGE_WINDOW", "2m"),
        ("EXIT_ON_END", "2"),
        ("SNAPLEN", "nonsense"),
    ]), @r"
    COLLECT_ENDPOINT: `tcp://localhost:99999` holds `99999`, which is not a valid port (a port is a number from 1 to 65535)
    OUTPUT_FORMAT: `erf` is not known (one of `pcap`, `pcapng`)
    MERGE_WINDOW: `2m` is out of range (0s to 1m)
    EXIT_ON_END: `2` is neither yes nor no (write `true` or `false`)
    ");
    insta::assert_snapshot!(refused(&[("MODE", "captre")]), @"MODE: `captre` is not known (one of `capture`, `collect`, `observe`)");
}

#[test]
fn what_does_not_go_together_is_told() {
    insta::assert_snapshot!(refused(&[("READ_FILE", "x.pcap"), ("DEVICE", "eth0")]), @"READ_FILE: `x.pcap` and DEVICE: `eth0` exclude each other (drop `DEVICE` to read the file, or `READ_FILE` to capture)");
    insta::assert_snapshot!(refused(&[("RELAY_BUFFER", "64KiB")]), @"RELAY_BUFFER: `64KiB` and BATCH_BYTES: `256KiB` leave no room for a single batch (a buffer holds at least one: enlarge it)");
}

#[test]
fn a_flag_of_another_mode_is_an_error_but_a_variable_is_not() {
    assert!(load(&[("OUTPUT", "x")], &[]).is_ok());
    assert!(load(&[], &[("OUTPUT", "")]).is_ok());
    insta::assert_snapshot!(load(&[], &[("OUTPUT", "x"), ("SNAPLEN", "0")]).unwrap_err(), @r"
    OUTPUT: `x` means nothing when MODE is capture (drop --output; it is for collect)
    SNAPLEN: `0` is out of range (1 to 256KiB)
    ");
}

/// A value that no setting with bounds accepts, for each mode's settings: whatever the table says a mode uses, it reads.
#[test]
fn each_mode_reads_what_the_table_says() {
    // Any text is right for these.
    const FREE: [&str; 4] = ["FILTER", "READ_FILE", "OUTPUT", "DEVICE"];
    for mode in [Mode::Capture, Mode::Collect, Mode::Observe] {
        let mut environment: BTreeMap<_, _> = TABLE.iter().map(|row| (row.name, "\u{1}")).collect();
        environment.insert("MODE", mode.as_str());
        environment.insert("METRICS_FILE", "/");
        FREE.iter().for_each(|name| _ = environment.remove(name));
        let environment: Vec<_> = environment.into_iter().collect();
        let told = refused(&environment);
        let told: Vec<_> = told.lines().filter_map(|line| line.split(':').next()).collect();
        for row in TABLE.iter().filter(|row| row.name != "MODE" && !FREE.contains(&row.name)) {
            assert_eq!(
                told.contains(&row.name),
                row.modes.contains(&mode),
                "{} in {mode}: {told:?}",
                row.name
            );
        }
    }
}
