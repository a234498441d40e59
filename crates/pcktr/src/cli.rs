//! The command line: a flag for every setting, `--help`, `--version`.

use std::ffi::OsString;
use std::fmt::Write;

use clap::{Arg, ArgAction, Command};

use crate::libraries;
use crate::settings::{Flag, TABLE};

/// Columns of `--help`.
const WIDTH: usize = 80;

/// The flags in `args`, of which the first is the program's name.
///
/// # Errors
///
/// A flag is unknown or lacks its value; or `--help` or `--version` was given: see [`clap::Error::kind`].
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Vec<Flag>, clap::Error> {
    let matches = command().try_get_matches_from(args)?;
    Ok(TABLE
        .iter()
        .filter_map(|setting| Some((setting, matches.get_one::<String>(setting.name)?.clone())))
        .collect())
}

fn command() -> Command {
    let version = format!(
        "{} (libpcap {}, libsodium {})",
        env!("CARGO_PKG_VERSION"),
        libraries::libpcap(),
        libraries::libsodium()
    );
    Command::new("pcktr").version(version).override_help(help()).args(TABLE.iter().map(|setting| {
        let arg =
            Arg::new(setting.name).long(setting.flag()).value_name(setting.value).action(ArgAction::Set);
        if setting.is_switch() { arg.num_args(0..=1).default_missing_value("true") } else { arg }
    }))
}

/// The text of `--help`: the table of settings.
fn help() -> String {
    let mut out = String::from(HEAD);
    _ = writeln!(out, "{:<33}{:<23}MODES", "SETTING", "DEFAULT");
    for setting in TABLE {
        let left = format!("{}={}", setting.name, setting.value);
        let line = format!("{left:<33}{:<23}{}", setting.default_text(), setting.modes_text());
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
Capture packets, relay them to a collector, and merge them into one stream.

    DEVICE=eth0 RELAY_ENDPOINT=tcp://collector:7386 pcktr    # remote hosts
    COLLECT_ENDPOINT='tcp://*:7386' pcktr --mode collect | tcpdump -r -

Settings are environment variables or flags, such as RELAY_ENDPOINT or
--relay-endpoint. A flag takes precedence. An empty value means the default.

";

const FOOT: &str = "
Sizes are written like 16MiB, durations like 50ms or 5m, endpoints like
tcp://host:7386, tcp://[::1]:7386 or ipc:///run/pcktr.sock.

-h, --help prints this help, -V, --version the version. Exit codes: 0 if stopped
or finished, 64 for invalid settings, 1 for other errors.
";

/// Wraps `text` at `width` characters. Longer words are not split.
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

    /// Checks the flags in `args`, or the first line of the error.
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
    fn invalid_flags() {
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
    fn version_includes_libraries() {
        let text = parse(["pcktr", "--version"].map(OsString::from)).unwrap_err().to_string();
        let numbers =
            text.trim_end().strip_prefix(concat!("pcktr ", env!("CARGO_PKG_VERSION"), " (libpcap "));
        let (libpcap, libsodium) =
            numbers.and_then(|rest| rest.split_once(", libsodium ")).expect("both versions");
        assert_eq!(
            (libpcap, libsodium),
            (libraries::libpcap().as_str(), format!("{})", libraries::libsodium()).as_str())
        );
    }

    #[test]
    fn help_lists_all_settings() {
        let text = parse(["pcktr", "--help"].map(OsString::from)).unwrap_err().to_string();
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        for setting in TABLE {
            assert!(text.contains(&format!("\n{}={}", setting.name, setting.value)), "{}", setting.name);
        }
        let (beginning, _) = text.split_once("FILTER=").unwrap();
        insta::assert_snapshot!(beginning, @r"
        Capture packets, relay them to a collector, and merge them into one stream.

            DEVICE=eth0 RELAY_ENDPOINT=tcp://collector:7386 pcktr    # remote hosts
            COLLECT_ENDPOINT='tcp://*:7386' pcktr --mode collect | tcpdump -r -

        Settings are environment variables or flags, such as RELAY_ENDPOINT or
        --relay-endpoint. A flag takes precedence. An empty value means the default.

        SETTING                          DEFAULT                MODES
        MODE=NAME                        capture                all
            capture: capture packets and send them to a collector; collect: receive
            packets from captures, merge them in timestamp order and write them;
            observe: only measure packets; keygen: make a key in KEY_FILE, if there is
            none, and print its public key
        DEVICE=NAME,...                  lo                     capture, observe
            devices to capture on; any for all devices
        ");
        let (_, end) = text.split_once("\nMETRICS_FILE=").unwrap();
        insta::assert_snapshot!(end, @r"
        PATH                                       all
            also write the metrics to this file every 15 s and at exit, for
            node_exporter's textfile collector
        RUN_AS_USER=USER[:GROUP]                                all
            change to this user once devices, sockets and input files are open; for a
            program started as root
        SANDBOX=on|off                   on                     all
            drop all capabilities, and use landlock and seccomp to restrict the program
            to the files, ports and system calls that it still needs
        LOG=FILTER                       info                   all
            log level: off, error, warn, info, debug or trace; also per module:
            info,source=debug

        Sizes are written like 16MiB, durations like 50ms or 5m, endpoints like
        tcp://host:7386, tcp://[::1]:7386 or ipc:///run/pcktr.sock.

        -h, --help prints this help, -V, --version the version. Exit codes: 0 if stopped
        or finished, 64 for invalid settings, 1 for other errors.
        ");
    }
}
