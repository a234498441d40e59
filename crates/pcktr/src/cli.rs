//! The command line: a flag for every setting, `--help`, `--version`.

use std::ffi::OsString;
use std::fmt::Write;

use clap::{Arg, ArgAction, Command};

use crate::libraries;
use crate::settings::{Flag, TABLE};

/// Columns of `--help`.
const WIDTH: usize = 80;

/// The flags among `args`, the first of which is the program's own name.
///
/// # Errors
///
/// An unknown flag, one without its value, and also the wish for help or for the version: see [`clap::Error::kind`].
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Vec<Flag>, clap::Error> {
    let matches = command().try_get_matches_from(args)?;
    Ok(TABLE
        .iter()
        .filter_map(|setting| Some((setting, matches.get_one::<String>(setting.name)?.clone())))
        .collect())
}

fn command() -> Command {
    let version = format!(
        "{} (libpcap {}, libzmq {})",
        env!("CARGO_PKG_VERSION"),
        libraries::libpcap(),
        libraries::libzmq()
    );
    Command::new("pcktr").version(version).override_help(help()).args(TABLE.iter().map(|setting| {
        let arg =
            Arg::new(setting.name).long(setting.flag()).value_name(setting.value).action(ArgAction::Set);
        if setting.is_switch() { arg.num_args(0..=1).default_missing_value("true") } else { arg }
    }))
}

/// What `--help` prints: the table of settings.
fn help() -> String {
    let mut out = String::from(HEAD);
    _ = writeln!(out, "{:<33}{:<26}MODES", "SETTING", "DEFAULT");
    for setting in TABLE {
        let left = format!("{}={}", setting.name, setting.value);
        let line = format!("{left:<33}{:<26}{}", setting.default_text(), setting.modes_text());
        _ = writeln!(out, "{}", line.trim_end());
        for line in wrap(&setting.meaning.replace('`', ""), WIDTH - INDENT.len()) {
            _ = writeln!(out, "{INDENT}{line}");
        }
    }
    out.push_str(FOOT);
    out
}

const INDENT: &str = "    ";

const HEAD: &str = "\
Packets of many machines, seen from one place.

    RELAY_ENDPOINT=tcp://there:7386 DEVICE=eth0 pcktr     on each remote host
    pcktr --mode collect | tcpdump -r -                   where people look

A setting is a variable of the environment, or a flag of the same name, which
wins: RELAY_ENDPOINT is --relay-endpoint. Empty means the default.

";

const FOOT: &str = "
A size is written like 16MiB, a duration like 50ms or 5m, an endpoint like
tcp://host:7386, tcp://[::1]:7386 or ipc:///run/pcktr.sock.

-h, --help prints this, -V, --version the versions. Exit codes: 0 for a stop or
an end, 64 for settings that can't be right, 1 for everything else.
";

/// `text` in lines of at most `width` characters, where its words allow.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flags, or the first line of what is wrong with them.
    fn check(args: &[&str], expected: Result<&[(&str, &str)], &str>) {
        let args = std::iter::once("pcktr").chain(args.iter().copied()).map(OsString::from);
        let flags = parse(args).map_err(|error| error.to_string());
        let got = flags.as_ref().map_err(|error| error.lines().next().unwrap_or_default()).map(|flags| {
            flags.iter().map(|(setting, text)| (setting.name, text.as_str())).collect::<Vec<_>>()
        });
        assert_eq!(got, expected.map(<[_]>::to_vec));
    }

    #[test]
    fn flags() {
        check(&[], Ok(&[]));
        check(
            &["--relay-endpoint", "tcp://a:1", "--device=lo"],
            Ok(&[("DEVICE", "lo"), ("RELAY_ENDPOINT", "tcp://a:1")]),
        );
        check(
            &["--read-file", "-", "--filter", "", "--mode", "observe"],
            Ok(&[("MODE", "observe"), ("FILTER", ""), ("READ_FILE", "-")]),
        );
        check(&["--exit-on-end", "--promiscuous=no"], Ok(&[("PROMISCUOUS", "no"), ("EXIT_ON_END", "true")]));
        check(
            &["--exit-on-end", "off", "--mode", "collect"],
            Ok(&[("MODE", "collect"), ("EXIT_ON_END", "off")]),
        );
    }

    #[test]
    fn what_is_no_flag() {
        check(&["--relay-endpont", "x"], Err("error: unexpected argument '--relay-endpont' found"));
        check(&["collect"], Err("error: unexpected argument 'collect' found"));
        check(
            &["--device"],
            Err("error: a value is required for '--device <NAME,...>' but none was supplied"),
        );
        check(
            &["--device", "a", "--device", "b"],
            Err("error: the argument '--device <NAME,...>' cannot be used multiple times"),
        );
        let error = parse(["pcktr", "--relay-endpont"].map(OsString::from)).unwrap_err();
        assert!(error.to_string().contains("'--relay-endpoint'"), "{error}");
    }

    #[test]
    fn the_version_names_the_libraries() {
        let text = parse(["pcktr", "--version"].map(OsString::from)).unwrap_err().to_string();
        let numbers =
            text.trim_end().strip_prefix(concat!("pcktr ", env!("CARGO_PKG_VERSION"), " (libpcap "));
        let (libpcap, libzmq) =
            numbers.and_then(|rest| rest.split_once(", libzmq ")).expect("both are named");
        assert_eq!(
            (libpcap, libzmq),
            (libraries::libpcap().as_str(), format!("{})", libraries::libzmq()).as_str())
        );
    }

    #[test]
    fn the_help_is_the_table() {
        let text = parse(["pcktr", "--help"].map(OsString::from)).unwrap_err().to_string();
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
        insta::assert_snapshot!(text, @r"
        Packets of many machines, seen from one place.

            RELAY_ENDPOINT=tcp://there:7386 DEVICE=eth0 pcktr     on each remote host
            pcktr --mode collect | tcpdump -r -                   where people look

        A setting is a variable of the environment, or a flag of the same name, which
        wins: RELAY_ENDPOINT is --relay-endpoint. Empty means the default.

        SETTING                          DEFAULT                   MODES
        MODE=capture|collect|observe     capture                   all
            capture: send packets to a collector; collect: receive them, merge them by
            time and write them; observe: measure them, and send them nowhere
        DEVICE=NAME,...                  lo                        capture, observe
            device or devices to capture on; any for all of them
        FILTER=EXPRESSION                                          capture, observe
            only packets that match this pcap-filter(7) expression
        SNAPLEN=BYTES                    262144                    capture, observe
            keep at most this much of a packet
        BUFFER_SIZE=BYTES                16MiB                     capture, observe
            the kernel's capture buffer, of each device
        PROMISCUOUS=YES|NO               true                      capture, observe
            also capture what is not addressed to this machine
        READ_FILE=PATH                                             capture, observe
            replay this pcap or pcapng file (-: standard input) instead of a device,
            then end
        TZSP_PORT=PORT,...                                         capture, observe
            receive TZSP on these UDP ports instead of a device's own packets; with
            DEVICE or READ_FILE set too, find the datagrams among its packets,
            fragmented and truncated ones included
        SOURCE_NAME=NAME                 host name                 capture
            how this capture is called at the collector
        RELAY_ENDPOINT=ENDPOINT          tcp://localhost:7386      capture
            where to send packets: tcp://host:port or ipc://path
        RELAY_BUFFER=BYTES               64MiB                     capture
            memory for packets that can't be sent at the moment; beyond it the oldest
            are dropped, and counted
        BATCH_BYTES=BYTES                256KiB                    capture
            a batch of packets is sent when it is this full
        BATCH_DELAY=DURATION             50ms                      capture
            a batch of packets is sent when its first has waited this long
        COMPRESSION=none|lz4|zstd        none                      capture
            how batches are compressed: none, lz4 (fast) or zstd (smaller)
        COLLECT_ENDPOINT=ENDPOINT,...    tcp://localhost:7386      collect
            where to listen for packets: tcp://host:port, tcp://*:port for every
            address, or ipc://path
        OUTPUT=PATH                      -                         collect
            where to write the packets; -: standard output
        OUTPUT_FORMAT=pcap|pcapng        pcap                      collect
            pcap (nanoseconds), or pcapng (with one interface for each source and
            device)
        MERGE_WINDOW=DURATION            200ms                     collect
            how long a packet waits for older ones of slower sources
        EXIT_ON_END=YES|NO               false                     collect
            end when every source seen so far has ended
        MAX_PACKETS=COUNT                                          all
            end after this many packets
        MAX_DURATION=DURATION                                      all
            end after this long
        OBSERVE=OBSERVER,...             sizes; to observe: all    all
            what is measured: sizes, flows, streams, pairs; all; or none
        FLOW_AGE=DURATION                1h                        all
            when a silent flow, or pair of hosts, is forgotten
        MAX_FLOWS=COUNT                  250000                    all
            flows known at a time; what has no room is counted
        STREAM_AGE=DURATION              5m                        all
            when a silent TCP stream is forgotten
        STREAM_FINALIZED_AGE=DURATION    1m                        all
            when a TCP stream that has ended is forgotten
        MAX_STREAMS=COUNT                1000000                   all
            TCP streams known at a time; the one silent for longest makes room, and is
            counted
        STREAMS_EXPORT=COUNT             10000                     all
            TCP streams in one scrape: those with most bytes; the rest is counted
        MAX_PAIRS=COUNT                  20000                     all
            pairs of hosts known at a time; what has no room is counted
        METRICS_ADDRPORT=HOST:PORT       :9108                     all
            where Prometheus finds the metrics; :port for every address, off for nowhere
        METRICS_FILE=PATH                                          all
            write the metrics there too, every 15 s and at the end: for node_exporter's
            textfile collector
        LOG=FILTER                       info                      all
            what is logged to standard error: error, warn, info, debug or trace, and
            more finely info,source=debug

        A size is written like 16MiB, a duration like 50ms or 5m, an endpoint like
        tcp://host:7386, tcp://[::1]:7386 or ipc:///run/pcktr.sock.

        -h, --help prints this, -V, --version the versions. Exit codes: 0 for a stop or
        an end, 64 for settings that can't be right, 1 for everything else.
        ");
    }
}
