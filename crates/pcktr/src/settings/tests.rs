use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv6Addr;
use std::num::{NonZeroU32, NonZeroU64};
use std::os::unix::ffi::OsStringExt;

use pipeline::config::*;
use relay::{Endpoint, Host};
use sink::CaptureFormat;

use super::error::SettingErrors;
use super::*;

/// Flags, by the names of their settings.
fn flags(pairs: &[(&str, &str)]) -> Vec<Flag> {
    let setting = |name: &str| TABLE.iter().find(|row| row.name == name).unwrap();
    pairs.iter().map(|(name, text)| (setting(name), (*text).to_owned())).collect()
}

fn load(environment: &[(&str, &str)], given: &[(&str, &str)]) -> Result<Settings, SettingErrors> {
    let environment = environment.iter().map(|(name, text)| (OsString::from(name), OsString::from(text)));
    Settings::load(environment, &flags(given), "this-host")
}

fn capture(environment: &[(&str, &str)]) -> CaptureConfig {
    match load(environment, &[]).map(|settings| settings.mode) {
        Ok(ModeSettings::Capture(settings)) => settings,
        other => panic!("expected capture: {other:?}"),
    }
}

fn collect(environment: &[(&str, &str)]) -> CollectConfig {
    match load(&[&[("MODE", "collect")], environment].concat(), &[]).map(|settings| settings.mode) {
        Ok(ModeSettings::Collect(settings)) => settings,
        other => panic!("expected collect: {other:?}"),
    }
}

/// The errors of invalid settings.
fn errors(environment: &[(&str, &str)]) -> String {
    load(environment, &[]).unwrap_err().to_string()
}

const ONLY_SIZES: EnabledObservers =
    EnabledObservers { sizes: true, flows: None, streams: None, pairs: None };

#[test]
fn defaults_of_capture() {
    let CaptureConfig { input, source_name, relay, common } = capture(&[]);
    assert_eq!(input.input, Input::Devices(vec!["lo".to_owned()]));
    assert_eq!((input.filter, input.snaplen), (None, 262_144));
    assert_eq!((input.buffer_size, input.promiscuous), (16 << 20, true));
    assert_eq!(source_name, "this-host");
    assert_eq!(relay.endpoint.to_string(), "tcp://localhost:7386");
    assert_eq!((relay.buffer, relay.batch.bytes), (64 << 20, 256 << 10));
    assert_eq!((relay.batch.delay, relay.compression), (Duration::from_millis(50), batch::Compression::None));
    assert_eq!((common.max_packets, common.observers), (None, ONLY_SIZES));
}

#[test]
fn defaults_of_collect() {
    let CollectConfig {
        endpoints,
        output,
        format,
        merge_window,
        max_sources,
        exit_on_end,
        keys,
        max_connections,
        common,
    } = collect(&[]);
    assert_eq!((keys, max_connections, max_sources.get()), (None, 4096, 4096));
    let [endpoint] = endpoints.as_slice() else { panic!("expected one endpoint: {endpoints:?}") };
    assert_eq!(endpoint.to_string(), "tcp://localhost:7386");
    assert_eq!((output, format), (FileOrStdio::Stdio, CaptureFormat::Pcap));
    assert_eq!((merge_window, exit_on_end), (Duration::from_millis(200), false));
    assert_eq!((common.max_packets, common.observers), (None, ONLY_SIZES));
}

#[test]
fn defaults_of_observe() {
    let settings = load(&[("MODE", "Observe")], &[]).unwrap();
    let ModeSettings::Observe(settings) = settings.mode else { panic!("expected observe: {settings:?}") };
    let EnabledObservers { sizes, flows, streams, pairs } = settings.common.observers;
    let minutes = |n: u64| Duration::from_secs(n * 60);
    let max = |n| NonZeroU32::new(n).unwrap();
    assert!(sizes);
    assert_eq!(flows, Some(FlowBounds { age: minutes(60), max: max(250_000) }));
    assert_eq!(
        streams,
        Some(StreamBounds {
            age: minutes(5),
            finalized_age: minutes(1),
            max: max(1_000_000),
            export: 10_000
        })
    );
    assert_eq!(pairs, Some(PairBounds { age: minutes(60), max: max(20_000) }));
    assert_eq!(settings.input.input, Input::Devices(vec!["lo".to_owned()]));
}

#[test]
fn defaults_of_program() {
    let ProgramSettings {
        max_duration,
        metrics_address,
        web_config_file,
        metrics_file,
        run_as_user,
        sandbox,
        log,
    } = load(&[], &[]).unwrap().program;
    assert_eq!((max_duration, web_config_file, metrics_file), (None, None, None));
    assert_eq!(metrics_address, Some(ListenAddress::Any { port: 9108 }));
    assert_eq!((run_as_user, sandbox), (None, true));
    assert_eq!(log.to_string(), "info");
}

#[test]
fn privileges() {
    assert!(!load(&[("SANDBOX", "off")], &[]).unwrap().program.sandbox);
    assert_eq!(errors(&[("SANDBOX", "yes")]), "SANDBOX: `yes` is not a valid value (use one of `on`, `off`)");
    assert_eq!(
        errors(&[("RUN_AS_USER", "no-such-user")]),
        "RUN_AS_USER: `no-such-user` names no user of this host (`getent passwd` lists them; a number is a user ID)"
    );
}

#[test]
fn flags_override_the_environment_and_blank_means_default() {
    let environment = [
        ("DEVICE", "eth0"),
        ("FILTER", " udp "),
        ("SNAPLEN", ""),
        ("BATCH_BYTES", "  "),
        ("SOURCE_NAME", "x"),
    ];
    let settings = load(&environment, &[("DEVICE", "wg0"), ("SOURCE_NAME", "")]).unwrap();
    let ModeSettings::Capture(settings) = settings.mode else { panic!("expected capture: {settings:?}") };
    assert_eq!(settings.input.input, Input::Devices(vec!["wg0".to_owned()]));
    assert_eq!(settings.input.filter.as_deref(), Some("udp"));
    assert_eq!((settings.input.snaplen, settings.relay.batch.bytes), (262_144, 262_144));
    assert_eq!(settings.source_name, "this-host");
}

#[test]
fn only_settings_of_the_mode_must_be_utf8() {
    let check = |name: &str, given: &[(&str, &str)], expected: Result<(), &str>| {
        let value = OsString::from_vec(b"x\xff".to_vec());
        let result = Settings::load([(name.into(), value)], &flags(given), "this-host");
        assert_eq!(result.map(drop).map_err(|errors| errors.to_string()), expected.map_err(str::to_owned));
    };
    check("PS1", &[], Ok(()));
    check("mode", &[], Ok(()));
    check("\u{e9}", &[], Ok(()));
    check("OUTPUT", &[], Ok(()));
    check("FILTER", &[("FILTER", "udp")], Ok(()));
    check("FILTER", &[], Err("FILTER: `x\u{fffd}` is not UTF-8 (correct it, or unset it)"));
    check("MODE", &[], Err("MODE: `x\u{fffd}` is not UTF-8 (correct it, or unset it)"));
}

#[test]
fn inputs() {
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
fn all_settings_can_be_set() {
    let settings = load(
        &[
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
        ],
        &[],
    )
    .unwrap();
    let program = settings.program;
    assert_eq!(program.max_duration, Some(Duration::from_secs(5400)));
    assert_eq!((program.metrics_address, program.metrics_file), (None, Some("x.prom".into())));
    assert!(program.log.would_enable("source", &tracing::Level::DEBUG));
    assert!(!program.log.would_enable("sink", &tracing::Level::INFO));
    let ModeSettings::Capture(settings) = settings.mode else { panic!("expected capture") };
    assert_eq!(settings.source_name, "roof");
    let InputConfig { filter, snaplen, buffer_size, promiscuous, .. } = settings.input;
    assert_eq!(
        (filter.as_deref(), snaplen, buffer_size, promiscuous),
        (Some("udp port 53 or tcp"), 128, 4 << 20, false)
    );
    let RelayConfig { endpoint, keys, buffer, batch, compression } = settings.relay;
    assert_eq!(keys, None);
    assert_eq!(endpoint, Endpoint::Tcp { host: Host::Address(Ipv6Addr::LOCALHOST.into()), port: 1 });
    assert_eq!((buffer, batch.bytes, batch.delay), (1 << 30, 4096, Duration::from_millis(1)));
    assert_eq!(compression, batch::Compression::Lz4);
    let common = settings.common;
    assert_eq!(common.max_packets, NonZeroU64::new(1));
    let none = EnabledObservers { sizes: false, flows: None, streams: None, pairs: None };
    assert_eq!(common.observers, none);

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
        (CaptureFormat::PcapNg, Duration::ZERO, true)
    );
}

/// Checks that values are valid, or out of range, in the first mode that has the setting.
fn check_bounds(name: &str, valid: [&str; 2], out_of_range: [&str; 2]) {
    let setting = TABLE.iter().find(|setting| setting.name == name).unwrap();
    let environment = |value| [("MODE", setting.modes[0].as_str()), ("RELAY_BUFFER", "4MiB"), (name, value)];
    for value in valid {
        assert!(load(&environment(value), &[]).is_ok(), "{name}={value}");
    }
    for value in out_of_range {
        let errors = errors(&environment(value));
        assert!(errors.starts_with(&format!("{name}: `{value}` is out of range (")), "{errors}");
    }
}

#[test]
fn bounds() {
    check_bounds("SNAPLEN", ["1", "256KiB"], ["0", "262145"]);
    check_bounds("BUFFER_SIZE", ["512KiB", "1GiB"], ["524287", "1073741825"]);
    check_bounds("RELAY_BUFFER", ["256KiB", "1TiB"], ["4095", "1099511627777"]);
    check_bounds("BATCH_BYTES", ["4KiB", "4MiB"], ["4095", "4194305"]);
    check_bounds("BATCH_DELAY", ["1ms", "10s"], ["999us", "10001ms"]);
    check_bounds("MERGE_WINDOW", ["0", "60s"], ["60001ms", "2m"]);
    check_bounds("MAX_PACKETS", ["1", "18446744073709551615"], ["0", "18446744073709551616"]);
    check_bounds("STREAMS_EXPORT", ["0", "4294967295"], ["4294967296", "99999999999999999999"]);
    for name in ["MAX_FLOWS", "MAX_STREAMS", "MAX_PAIRS"] {
        check_bounds(name, ["1", "4294967295"], ["0", "4294967296"]);
    }
    for name in ["MAX_DURATION", "FLOW_AGE", "STREAM_AGE", "STREAM_FINALIZED_AGE"] {
        check_bounds(name, ["1ms", "100years"], ["0", "900000h"]);
    }
}

#[test]
fn all_errors_are_reported() {
    insta::assert_snapshot!(errors(&[
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
        // Of another mode, so ignored.
        ("COLLECT_ENDPOINT", "nonsense"),
    ]), @r"
    DEVICE: `,` is an empty list (give at least one element)
    SNAPLEN: `0` is out of range (1 to 256KiB)
    BUFFER_SIZE: `2GiB` is out of range (512KiB to 1GiB)
    PROMISCUOUS: `perhaps` is not a boolean (use `true` or `false`)
    TZSP_PORT: `37008,0` contains `0`, which is not a valid port (1 to 65535)
    SOURCE_NAME: `a\nb` is not a valid name: it contains the control character U+000A (use at most 255 bytes, without control characters)
    RELAY_ENDPOINT: `tcp://*:7386` names no host to send to (`*` is for a collector: name its host)
    RELAY_BUFFER: `lots` is not a valid size (for example `16MiB`; 4KiB to 1TiB)
    BATCH_BYTES: `8MiB` is out of range (4KiB to 4MiB)
    BATCH_DELAY: `50` has no unit (for example `50s` or `50ms`; 1ms to 10s)
    COMPRESSION: `gzip` is not a valid value (use one of `none`, `lz4`, `zstd`)
    MAX_PACKETS: `0` is out of range (1 to 18446744073709551615)
    MAX_DURATION: `0` is out of range (1ms to 100years)
    OBSERVE: `size` contains `size`, which is not a valid value (use one of `sizes`, `flows`, `streams`, `pairs`, `all`, `none`)
    FLOW_AGE: `soon` is not a valid duration (for example `50ms`, `10s` or `5m`; 1ms to 100years)
    MAX_FLOWS: `-1` is not a whole number (1 to 4294967295)
    STREAM_AGE: `0s` is out of range (1ms to 100years)
    STREAM_FINALIZED_AGE: `1` has no unit (for example `1s` or `1ms`; 1ms to 100years)
    MAX_STREAMS: `5e9` is not a whole number (1 to 4294967295)
    STREAMS_EXPORT: `4294967296` is out of range (0 to 4294967295)
    MAX_PAIRS: `0` is out of range (1 to 4294967295)
    METRICS_ADDRPORT: `9108` is not a valid address (for example `:9108` or `127.0.0.1:9108`)
    METRICS_FILE: `/` is not the path of a file (it must end with a file name)
    LOG: `verbose` is not a valid log filter (use `off`, `error`, `warn`, `info`, `debug` or `trace`; per module `info,source=debug`)
    ");
    insta::assert_snapshot!(errors(&[
        ("MODE", "collect"),
        ("COLLECT_ENDPOINT", "tcp://localhost:99999"),
        ("OUTPUT_FORMAT", "erf"),
        ("MERGE_WINDOW", "2m"),
        ("EXIT_ON_END", "2"),
        ("SNAPLEN", "nonsense"),
    ]), @r"
    COLLECT_ENDPOINT: `tcp://localhost:99999` contains `99999`, which is not a valid port (1 to 65535)
    OUTPUT_FORMAT: `erf` is not a valid value (use one of `pcap`, `pcapng`)
    MERGE_WINDOW: `2m` is out of range (0s to 1m)
    EXIT_ON_END: `2` is not a boolean (use `true` or `false`)
    ");
    insta::assert_snapshot!(errors(&[("MODE", "captre")]), @"MODE: `captre` is not a valid value (use one of `capture`, `collect`, `observe`, `keygen`)");
}

#[test]
fn conflicts() {
    insta::assert_snapshot!(errors(&[("READ_FILE", "x.pcap"), ("DEVICE", "eth0")]), @"READ_FILE: `x.pcap` conflicts with DEVICE: `eth0` (unset DEVICE to read the file, or READ_FILE to capture)");
    insta::assert_snapshot!(errors(&[("RELAY_BUFFER", "64KiB")]), @"RELAY_BUFFER: `64KiB` is smaller than BATCH_BYTES: `256KiB` (increase it: the buffer must hold at least one batch)");
}

#[test]
fn flag_of_another_mode_is_an_error() {
    assert!(load(&[("OUTPUT", "x")], &[]).is_ok());
    assert!(load(&[], &[("OUTPUT", "")]).is_ok());
    insta::assert_snapshot!(load(&[], &[("OUTPUT", "x"), ("SNAPLEN", "0")]).unwrap_err(), @r"
    OUTPUT: `x` does not apply to mode capture (remove --output; it applies to collect)
    SNAPLEN: `0` is out of range (1 to 256KiB)
    ");
}

/// Sets all settings to a value that is invalid for most of them: those of the mode are errors.
#[test]
fn modes_use_the_settings_declared_for_them() {
    // These accept any text.
    const FREE: [&str; 5] = ["FILTER", "READ_FILE", "OUTPUT", "DEVICE", "WEB_CONFIG_FILE"];
    // These need a path with a file name.
    const FILES: [&str; 3] = ["METRICS_FILE", "KEY_FILE", "AUTHORIZED_KEYS"];
    for mode in Mode::ALL {
        let mut environment: BTreeMap<_, _> = TABLE.iter().map(|row| (row.name, "\u{1}")).collect();
        environment.insert("MODE", mode.as_str());
        FILES.iter().for_each(|name| _ = environment.insert(name, "/"));
        FREE.iter().for_each(|name| _ = environment.remove(name));
        let environment: Vec<_> = environment.into_iter().collect();
        let reported = errors(&environment);
        let reported: Vec<_> = reported.lines().filter_map(|line| line.split(':').next()).collect();
        for row in TABLE.iter().filter(|row| row.name != "MODE" && !FREE.contains(&row.name)) {
            assert_eq!(
                reported.contains(&row.name),
                row.modes.contains(&mode),
                "{} in {mode}: {reported:?}",
                row.name
            );
        }
    }
}

const KEY: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

#[test]
fn keys_of_a_capture_and_a_collector() {
    let relay = capture(&[("KEY_FILE", "/etc/pcktr/key"), ("COLLECTOR_KEY", KEY)]).relay;
    let expected = CaptureKeys { key_file: "/etc/pcktr/key".into(), collector: KEY.parse().unwrap() };
    assert_eq!(relay.keys, Some(expected));
    let keys = collect(&[("KEY_FILE", "key"), ("AUTHORIZED_KEYS", "authorized")]).keys;
    let expected = CollectorKeys { key_file: "key".into(), authorized_keys: "authorized".into() };
    assert_eq!(keys, Some(expected));
    let settings = load(&[("MODE", "keygen"), ("KEY_FILE", "key")], &[]).unwrap();
    assert!(matches!(settings.mode, ModeSettings::Keygen(path) if path.as_os_str() == "key"));
}

#[test]
fn keys_need_each_other() {
    let check = |environment: &[(&str, &str)], expected: &str| assert_eq!(errors(environment), expected);
    check(
        &[("KEY_FILE", "key")],
        "KEY_FILE: `key` has no effect without COLLECTOR_KEY (set it to the public key of the collector)",
    );
    check(
        &[("COLLECTOR_KEY", KEY)],
        &format!(
            "COLLECTOR_KEY: `{KEY}` needs this program's own key (make a key with MODE=keygen, and set KEY_FILE)"
        ),
    );
    check(
        &[("MODE", "collect"), ("KEY_FILE", "key")],
        "KEY_FILE: `key` has no effect without AUTHORIZED_KEYS (name a file that lists the captures' keys)",
    );
    check(
        &[("MODE", "collect"), ("AUTHORIZED_KEYS", "keys")],
        "AUTHORIZED_KEYS: `keys` needs this program's own key (make a key with MODE=keygen, and set KEY_FILE)",
    );
    check(
        &[("MODE", "keygen")],
        "KEY_FILE: is missing (name the file for the secret key, for example `/etc/pcktr/key`)",
    );
    check(
        &[("KEY_FILE", "key"), ("COLLECTOR_KEY", "secret")],
        "COLLECTOR_KEY: `secret` is not a valid key (44 characters of base64, the last is `=`)",
    );
}
