//! What the text of a setting can mean: a size, a span of time, yes or no, one of a few words, a list.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

use super::error::Fault;

/// A hundred years: what is longer is a slip of the keyboard, and added to a clock it might overflow.
pub(crate) const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A number of bytes: `262144`, `256KiB`, `1.5MB`.
pub(crate) fn size(text: &str, range: RangeInclusive<u64>) -> Result<u64, Fault> {
    let allowed = || format!("{} to {}", size_text(*range.start()), size_text(*range.end()));
    let size = ByteSize::from_str(text)
        .map_err(|_| Fault::new("is no size", format!("write it like `16MiB`; {}", allowed())))?;
    in_range(size.as_u64(), &range, allowed)
}

/// `size` in the largest unit that says it exactly.
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

/// A span of time: `50ms`, `5m`, `1h 30m`.
pub(crate) fn duration(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, Fault> {
    let allowed = || {
        let (from, to) =
            (humantime::format_duration(*range.start()), humantime::format_duration(*range.end()));
        if *range.end() == LONGEST { format!("at least {from}") } else { format!("{from} to {to}") }
    };
    let span = humantime::parse_duration(text).map_err(|_| match text.parse::<f64>() {
        Ok(_) => Fault::new("has no unit", format!("write `{text}s` or `{text}ms`; {}", allowed())),
        Err(_) => {
            Fault::new("is no span of time", format!("write it like `50ms`, `10s`, `5m`; {}", allowed()))
        }
    })?;
    in_range(span, &range, allowed)
}

/// A whole number.
pub(crate) fn count(text: &str, range: RangeInclusive<u64>) -> Result<u64, Fault> {
    let allowed = || format!("{} to {}", range.start(), range.end());
    let count = text.parse().map_err(|_| Fault::new("is no whole number that fits", allowed()))?;
    in_range(count, &range, allowed)
}

fn in_range<T: PartialOrd>(
    value: T,
    range: &RangeInclusive<T>,
    allowed: impl Fn() -> String,
) -> Result<T, Fault> {
    if range.contains(&value) { Ok(value) } else { Err(Fault::new("is out of range", allowed())) }
}

/// Yes or no.
pub(crate) fn yes_or_no(text: &str) -> Result<bool, Fault> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(Fault::new("is neither yes nor no", "write `true` or `false`")),
    }
}

/// One of a few words, in capitals or not.
pub(crate) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Fault> {
    match choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
        Some((_, meaning)) => Ok(*meaning),
        None => {
            let words: Vec<_> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
            Err(Fault::new("is not known", format!("one of {}", words.join(", "))))
        }
    }
}

/// A list's items, each once, in their order, without the blanks around them. Never empty.
pub(crate) fn list(text: &str) -> Result<Vec<&str>, Fault> {
    let mut items = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        if !items.contains(&item) {
            items.push(item);
        }
    }
    if items.is_empty() {
        Err(Fault::new("has nothing between the commas", "name at least one"))
    } else {
        Ok(items)
    }
}

/// The devices to capture on.
pub(crate) fn devices(text: &str) -> Result<Vec<String>, Fault> {
    let devices = list(text)?;
    if devices.len() > 1 && devices.contains(&"any") {
        // Each packet of the others would be captured twice.
        return Err(Fault::new(
            "names `any` and others",
            "`any` is all devices: drop the others, or drop `any`",
        ));
    }
    Ok(devices.into_iter().map(str::to_owned).collect())
}

/// A port of TCP or UDP. None is called 0.
pub(crate) fn port(text: &str) -> Result<u16, Fault> {
    match text.parse() {
        // `parse` allows a sign.
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
        _ => Err(Fault::new("is no port", "a port is a number from 1 to 65535").of_item(text)),
    }
}

/// A list of ports, each once.
pub(crate) fn ports(text: &str) -> Result<Vec<u16>, Fault> {
    let mut ports = Vec::new();
    for item in list(text)? {
        let port = port(item)?;
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    Ok(ports)
}

/// What a capture is called. It becomes a label's value, an interface's name and part of log lines: so a line of text,
/// and not a novel.
pub(crate) fn name(text: &str) -> Result<String, Fault> {
    const LONGEST_NAME: usize = 255;
    if text.len() > LONGEST_NAME || text.chars().any(char::is_control) {
        return Err(Fault::new("is no name", format!("at most {LONGEST_NAME} bytes, no control characters")));
    }
    Ok(text.to_owned())
}

/// A file, or what the shell has connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileOrStdio {
    /// `-`: standard input or output.
    Stdio,
    /// A file.
    File(PathBuf),
}

impl FileOrStdio {
    /// Any text is one.
    pub(crate) fn parse(text: &str) -> Self {
        if text == "-" { Self::Stdio } else { Self::File(text.into()) }
    }
}

/// A file that will be written beside its final place, and renamed.
pub(crate) fn file(text: &str) -> Result<PathBuf, Fault> {
    let path = PathBuf::from(text);
    match path.file_name() {
        Some(_) if text != "-" && !text.ends_with('/') => Ok(path),
        _ => Err(Fault::new("is no file", "name a file, such as `/run/node_exporter/pcktr.prom`")),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn check<T: Debug + PartialEq>(got: Result<T, Fault>, expected: Result<T, &str>) {
        assert_eq!(got.map_err(|fault| fault.to_string()), expected.map_err(str::to_owned));
    }

    #[test]
    fn sizes() {
        let between = |text| size(text, 4096..=4 << 20);
        check(between("262144"), Ok(262_144));
        check(between("256KiB"), Ok(256 << 10));
        check(between("256 kib"), Ok(256 << 10));
        check(between("1MB"), Ok(1_000_000));
        check(between("1.5MiB"), Ok(3 << 19));
        check(between("4KiB"), Ok(4096));
        check(between("4MiB"), Ok(4 << 20));
        check(between("4095"), Err("is out of range (4KiB to 4MiB)"));
        check(between("4194305"), Err("is out of range (4KiB to 4MiB)"));
        check(between("99999999999EiB"), Err("is out of range (4KiB to 4MiB)"));
        check(between("-1"), Err("is no size (write it like `16MiB`; 4KiB to 4MiB)"));
        check(between("lots"), Err("is no size (write it like `16MiB`; 4KiB to 4MiB)"));
        assert_eq!(size_text(1 << 40), "1TiB");
        assert_eq!(size_text(0), "0");
    }

    #[test]
    fn durations() {
        let between = |text| duration(text, Duration::from_millis(1)..=Duration::from_secs(10));
        check(between("50ms"), Ok(Duration::from_millis(50)));
        check(between("1s 500ms"), Ok(Duration::from_millis(1500)));
        check(between("10s"), Ok(Duration::from_secs(10)));
        check(between("0"), Err("is out of range (1ms to 10s)"));
        check(between("11s"), Err("is out of range (1ms to 10s)"));
        check(between("50"), Err("has no unit (write `50s` or `50ms`; 1ms to 10s)"));
        check(between("-5s"), Err("is no span of time (write it like `50ms`, `10s`, `5m`; 1ms to 10s)"));
        check(duration("101years", Duration::ZERO..=LONGEST), Err("is out of range (at least 0s)"));
        check(
            duration("99999999999999999999h", Duration::ZERO..=LONGEST),
            Err("is no span of time (write it like `50ms`, `10s`, `5m`; at least 0s)"),
        );
    }

    #[test]
    fn counts() {
        check(count("1", 1..=9), Ok(1));
        check(count("0", 1..=9), Err("is out of range (1 to 9)"));
        check(count("1e6", 1..=9), Err("is no whole number that fits (1 to 9)"));
        check(count("99999999999999999999", 1..=9), Err("is no whole number that fits (1 to 9)"));
    }

    #[test]
    fn yes_and_no() {
        for text in ["true", "TRUE", "yes", "Yes", "1", "on"] {
            check(yes_or_no(text), Ok(true));
        }
        for text in ["false", "False", "no", "0", "OFF"] {
            check(yes_or_no(text), Ok(false));
        }
        check(yes_or_no("maybe"), Err("is neither yes nor no (write `true` or `false`)"));
    }

    #[test]
    fn lists() {
        check(devices(" eth0, wg0,,eth0 ,"), Ok(vec!["eth0".to_owned(), "wg0".to_owned()]));
        check(devices(","), Err("has nothing between the commas (name at least one)"));
        check(
            devices("any,lo"),
            Err("names `any` and others (`any` is all devices: drop the others, or drop `any`)"),
        );
        check(ports("37008, 37009,037008"), Ok(vec![37008, 37009]));
        for bad in ["0", "65536", "99999", "-1", "+1", "http", "1 2"] {
            check(
                ports(&format!("37008,{bad}")),
                Err(&format!("holds `{bad}`, which is no port (a port is a number from 1 to 65535)")),
            );
        }
    }

    #[test]
    fn names_and_files() {
        check(name("büro-1"), Ok("büro-1".to_owned()));
        check(name("a\tb"), Err("is no name (at most 255 bytes, no control characters)"));
        check(name(&"x".repeat(256)), Err("is no name (at most 255 bytes, no control characters)"));
        check(file("x/y.prom"), Ok(PathBuf::from("x/y.prom")));
        for bad in ["-", "/", "x/", ".."] {
            check(file(bad), Err("is no file (name a file, such as `/run/node_exporter/pcktr.prom`)"));
        }
        assert_eq!(FileOrStdio::parse("-"), FileOrStdio::Stdio);
        assert_eq!(FileOrStdio::parse("a-"), FileOrStdio::File("a-".into()));
    }
}
