//! Parsers of values. Those with parameters return a parser.

use std::fmt::Display;
use std::num::{IntErrorKind, ParseIntError};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use packet::origin::{MAX_NAME, check_name};
use pipeline::config::FileOrStdio;
use relay::PublicKey;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use web::ListenAddress;

use super::error::Fault;

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);

/// 100 years of 365.25 days. Longer times are mistakes, and could overflow when added to a clock.
pub(super) const LONGEST: Duration = Duration::from_secs(100 * 31_557_600);

/// A value that may be absent, which the empty text stands for.
pub(super) fn optional<T>(
    parse: impl Fn(&str) -> Result<T, Fault>,
) -> impl Fn(&str) -> Result<Option<T>, Fault> {
    move |text| if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// Any text.
pub(super) fn text(text: &str) -> Result<String, Fault> {
    Ok(text.to_owned())
}

/// A number of bytes: `262144`, `256KiB`, `1.5MB`.
pub(super) fn size<T: TryFrom<u64>>(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<T, Fault> {
    move |text| {
        let allowed = format!("{} to {}", size_text(*range.start()), size_text(*range.end()));
        let size = ByteSize::from_str(text)
            .map_err(|_| Fault::new("is not a valid size", format!("for example `16MiB`; {allowed}")))?
            .as_u64();
        let size = range.contains(&size).then(|| T::try_from(size).ok()).flatten();
        size.ok_or_else(|| Fault::new("is out of range", allowed))
    }
}

/// `size` in the largest unit that divides it.
fn size_text(size: u64) -> String {
    let mut value = size;
    for unit in ["", "KiB", "MiB", "GiB"] {
        if value == 0 || !value.is_multiple_of(1024) {
            return format!("{value}{unit}");
        }
        value /= 1024;
    }
    format!("{value}TiB")
}

/// A duration: `50ms`, `5m`, `1h 30m`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Result<Duration, Fault> {
    move |text| {
        let [from, to] = [range.start(), range.end()].map(|bound| humantime::format_duration(*bound));
        let allowed = format!("{from} to {to}");
        match (humantime::parse_duration(text), text.parse::<f64>()) {
            (Ok(duration), _) if range.contains(&duration) => Ok(duration),
            (Ok(_), _) => Err(Fault::new("is out of range", allowed)),
            (Err(_), Ok(_)) => {
                Err(Fault::new("has no unit", format!("for example `{text}s` or `{text}ms`; {allowed}")))
            }
            (Err(_), Err(_)) => Err(Fault::new(
                "is not a valid duration",
                format!("for example `50ms`, `10s` or `5m`; {allowed}"),
            )),
        }
    }
}

/// A whole number.
pub(super) fn count<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, Fault>
where
    T: FromStr<Err = ParseIntError> + PartialOrd + Display,
{
    move |text| {
        let allowed = format!("{} to {}", range.start(), range.end());
        match text.parse() {
            Ok(count) if range.contains(&count) => Ok(count),
            Err(error) if matches!(error.kind(), IntErrorKind::InvalidDigit | IntErrorKind::Empty) => {
                Err(Fault::new("is not a whole number", allowed))
            }
            Ok(_) | Err(_) => Err(Fault::new("is out of range", allowed)),
        }
    }
}

/// A boolean.
pub(super) fn boolean(text: &str) -> Result<bool, Fault> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(Fault::new("is not a boolean", "use `true` or `false`")),
    }
}

/// One of several words, in upper or lower case.
pub(super) fn choice<T: Copy>(choices: &[(&'static str, T)]) -> impl Fn(&str) -> Result<T, Fault> {
    move |text| match choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
        Some((_, value)) => Ok(*value),
        None => {
            let words: Vec<_> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
            Err(Fault::new("is not a valid value", format!("use one of {}", words.join(", "))))
        }
    }
}

/// The elements of a comma-separated list, trimmed, in order and without duplicates. Never empty.
pub(super) fn list(text: &str) -> Result<Vec<&str>, Fault> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let items = items.fold(Vec::new(), push_new);
    if items.is_empty() {
        Err(Fault::new("is an empty list", "give at least one element"))
    } else {
        Ok(items)
    }
}

/// A list without duplicates. Never empty.
pub(super) fn list_of<T: PartialEq>(
    parse: impl Fn(&str) -> Result<T, Fault>,
) -> impl Fn(&str) -> Result<Vec<T>, Fault> {
    move |text| list(text)?.into_iter().try_fold(Vec::new(), |items, item| Ok(push_new(items, parse(item)?)))
}

fn push_new<T: PartialEq>(mut items: Vec<T>, item: T) -> Vec<T> {
    if !items.contains(&item) {
        items.push(item);
    }
    items
}

/// Capture devices.
pub(super) fn devices(text: &str) -> Result<Vec<String>, Fault> {
    let devices = list_of(self::text)(text)?;
    if devices.len() > 1 && devices.iter().any(|device| device == "any") {
        // Packets of the other devices would be captured twice.
        return Err(Fault::new(
            "lists `any` and other devices",
            "use `any` alone for all devices, or name only the devices to capture on",
        ));
    }
    Ok(devices)
}

/// A TCP or UDP port other than 0.
pub(super) fn port(text: &str) -> Result<u16, Fault> {
    match text.parse() {
        // `parse` accepts a sign.
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
        _ => Err(Fault::new("is not a valid port", "1 to 65535").of_item(text)),
    }
}

/// A capture's name. It is used as a label value, in the names of pcapng interfaces and in log lines.
pub(super) fn source_name(text: &str) -> Result<String, Fault> {
    match check_name(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(why) => {
            let remedy = format!("use at most {MAX_NAME} bytes, without control characters");
            Err(Fault::new(format!("is not a valid name: it {why}"), remedy))
        }
    }
}

/// A public key in base64.
pub(super) fn public_key(text: &str) -> Result<PublicKey, Fault> {
    Ok(text.parse()?)
}

/// A path, or `-`.
pub(super) fn file_or_stdio(text: &str) -> Result<FileOrStdio, Fault> {
    Ok(if text == "-" { FileOrStdio::Stdio } else { FileOrStdio::File(text.into()) })
}

/// The path of a file, which must have a file name.
pub(super) fn file(text: &str) -> Result<PathBuf, Fault> {
    let path = PathBuf::from(text);
    match path.file_name() {
        Some(_) if text != "-" && !text.ends_with('/') => Ok(path),
        _ => Err(Fault::new("is not the path of a file", "it must end with a file name")),
    }
}

/// An address to listen on; `None` for `off`.
pub(super) fn listen_address(text: &str) -> Result<Option<ListenAddress>, Fault> {
    if text.eq_ignore_ascii_case("off") { Ok(None) } else { Ok(Some(text.parse()?)) }
}

/// A filter of `tracing`, which takes any single word for a module and then logs nothing else. A typo such as `verbose`
/// would silence the log, so a word without `=` must be a level.
pub(super) fn log_filter(text: &str) -> Result<Targets, Fault> {
    let fault = || {
        Fault::new(
            "is not a valid log filter",
            "use `off`, `error`, `warn`, `info`, `debug` or `trace`; per module `info,source=debug`",
        )
    };
    let words = list(text)?;
    if words.iter().any(|word| !word.contains('=') && word.parse::<LevelFilter>().is_err()) {
        return Err(fault());
    }
    words.join(",").parse().map_err(|_| fault())
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::num::NonZeroU32;

    use super::*;

    fn check<T: Debug + PartialEq>(got: Result<T, Fault>, expected: Result<T, &str>) {
        assert_eq!(got.map_err(|fault| fault.to_string()), expected.map_err(str::to_owned));
    }

    #[test]
    fn sizes() {
        let parse = size::<u32>(4096..=4 << 20);
        check(parse("262144"), Ok(262_144));
        check(parse("256KiB"), Ok(256 << 10));
        check(parse("256 kib"), Ok(256 << 10));
        check(parse("1MB"), Ok(1_000_000));
        check(parse("1.5MiB"), Ok(3 << 19));
        check(parse("4KiB"), Ok(4096));
        check(parse("4MiB"), Ok(4 << 20));
        check(parse("4095"), Err("is out of range (4KiB to 4MiB)"));
        check(parse("4194305"), Err("is out of range (4KiB to 4MiB)"));
        check(parse("99999999999EiB"), Err("is out of range (4KiB to 4MiB)"));
        check(parse("-1"), Err("is not a valid size (for example `16MiB`; 4KiB to 4MiB)"));
        check(parse("lots"), Err("is not a valid size (for example `16MiB`; 4KiB to 4MiB)"));
        check(size::<u8>(0..=1 << 40)("256"), Err("is out of range (0 to 1TiB)"));
    }

    #[test]
    fn durations() {
        let parse = duration(MILLISECOND..=Duration::from_secs(10));
        check(parse("50ms"), Ok(Duration::from_millis(50)));
        check(parse("1s 500ms"), Ok(Duration::from_millis(1500)));
        check(parse("10s"), Ok(Duration::from_secs(10)));
        check(parse("0"), Err("is out of range (1ms to 10s)"));
        check(parse("11s"), Err("is out of range (1ms to 10s)"));
        check(parse("50"), Err("has no unit (for example `50s` or `50ms`; 1ms to 10s)"));
        check(parse("-5s"), Err("is not a valid duration (for example `50ms`, `10s` or `5m`; 1ms to 10s)"));
        let parse = duration(Duration::ZERO..=LONGEST);
        check(parse("100years"), Ok(LONGEST));
        check(parse("900000h"), Err("is out of range (0s to 100years)"));
        check(
            parse("99999999999999999999h"),
            Err("is not a valid duration (for example `50ms`, `10s` or `5m`; 0s to 100years)"),
        );
    }

    #[test]
    fn counts() {
        let parse = count(NonZeroU32::MIN..=NonZeroU32::MAX);
        check(parse("1"), Ok(NonZeroU32::MIN));
        check(parse("4294967295"), Ok(NonZeroU32::MAX));
        check(parse("0"), Err("is out of range (1 to 4294967295)"));
        check(parse("4294967296"), Err("is out of range (1 to 4294967295)"));
        check(parse("1e6"), Err("is not a whole number (1 to 4294967295)"));
        check(parse("-1"), Err("is not a whole number (1 to 4294967295)"));
        check(count(2..=9_u8)("1"), Err("is out of range (2 to 9)"));
    }

    #[test]
    fn booleans() {
        for text in ["true", "TRUE", "yes", "Yes", "1", "on"] {
            check(boolean(text), Ok(true));
        }
        for text in ["false", "False", "no", "0", "OFF"] {
            check(boolean(text), Ok(false));
        }
        check(boolean("maybe"), Err("is not a boolean (use `true` or `false`)"));
    }

    #[test]
    fn lists() {
        check(devices(" eth0, wg0,,eth0 ,"), Ok(vec!["eth0".to_owned(), "wg0".to_owned()]));
        check(devices(","), Err("is an empty list (give at least one element)"));
        check(
            devices("any,lo"),
            Err(
                "lists `any` and other devices (use `any` alone for all devices, or name only the devices to \
                 capture on)",
            ),
        );
        let ports = list_of(port);
        check(ports("37008, 37009,037008"), Ok(vec![37008, 37009]));
        for bad in ["0", "65536", "99999", "-1", "+1", "http", "1 2"] {
            check(
                ports(&format!("37008,{bad}")),
                Err(&format!("contains `{bad}`, which is not a valid port (1 to 65535)")),
            );
        }
    }

    #[test]
    fn names_and_files() {
        let invalid = |why| {
            format!("is not a valid name: it {why} (use at most 255 bytes, without control characters)")
        };
        check(source_name("büro-1"), Ok("büro-1".to_owned()));
        check(source_name("a\tb"), Err(&invalid("contains the control character U+0009")));
        check(source_name("a\u{202e}b"), Err(&invalid("contains the control character U+202E")));
        check(source_name(&"x".repeat(256)), Err(&invalid("is longer than 255 bytes")));
        check(file("x/y.prom"), Ok(PathBuf::from("x/y.prom")));
        for bad in ["-", "/", "x/", ".."] {
            check(file(bad), Err("is not the path of a file (it must end with a file name)"));
        }
        check(file_or_stdio("-"), Ok(FileOrStdio::Stdio));
        check(file_or_stdio("a-"), Ok(FileOrStdio::File("a-".into())));
        check(optional(file)(""), Ok(None));
    }
}
