//! Where a packet was captured.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write;
use std::sync::Arc;

/// Maximum length of a name in bytes: that of a file name (NAME_MAX, linux/limits.h), and more than a host name has.
pub const MAX_NAME: usize = 255;

/// Where packets come from: a capture by its name, one of its devices, and the TZSP port if they arrived over TZSP.
///
/// Packets of the same origin were captured at the same place, in one order, by one clock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The name of the capture, as its user chose it (`SOURCE_NAME`); by default its host's name.
    pub source: Arc<str>,
    /// The device; for TZSP the address of the router that sent the packets; for a file its name.
    pub device: Arc<str>,
    /// The UDP port on which TZSP was received.
    pub listen_port: Option<u16>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.device)?;
        match self.listen_port {
            Some(port) => write!(f, " (TZSP port {port})"),
            None => Ok(()),
        }
    }
}

/// A number that stands for an [`Origin`]: small, dense, and valid within one collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u32);

/// Why a text is not a valid name of a source, a device or an interface. Names come from other hosts, and end up in logs, on
/// terminals and in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has more than [`MAX_NAME`] bytes.
    #[error("is longer than {MAX_NAME} bytes")]
    TooLong,
    /// It has a character that moves the cursor, changes the direction of the text, or is invisible.
    #[error("contains the control character U+{:04X}", u32::from(*.0))]
    Control(char),
}

/// Checks a name.
///
/// # Errors
/// It is too long, or has control characters.
pub fn check_name(name: &str) -> Result<(), NameError> {
    match name.chars().find(|&c| is_control(c)) {
        _ if name.len() > MAX_NAME => Err(NameError::TooLong),
        Some(c) => Err(NameError::Control(c)),
        None => Ok(()),
    }
}

/// Makes a valid name of any text: control characters are escaped as `\u{1b}`, and the rest is cut off after
/// [`MAX_NAME`] bytes.
#[must_use]
pub fn printable_name(text: &str) -> Cow<'_, str> {
    if check_name(text).is_ok() {
        return Cow::Borrowed(text);
    }
    let mut name = String::new();
    for c in text.chars() {
        let before = name.len();
        if is_control(c) {
            // Writing to a string cannot fail.
            let _ = write!(name, "{}", c.escape_unicode());
        } else {
            name.push(c);
        }
        if name.len() > MAX_NAME {
            name.truncate(before);
            break;
        }
    }
    Cow::Owned(name)
}

/// Replaces the control characters of a text, such as line feeds, by spaces.
#[must_use]
pub fn printable_text(text: &str) -> Cow<'_, str> {
    if text.contains(is_control) { Cow::Owned(text.replace(is_control, " ")) } else { Cow::Borrowed(text) }
}

/// Whether a character is a control character (Unicode's category Cc), or one of the format characters and separators (Cf,
/// Zl, Zp) that hide or reorder text: zero width characters, bidirectional marks, embeddings, overrides and isolates
/// (UAX #9, section 2), tags.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_printable() {
        for name in ["", "eth0", "br-\"x\"", "büro 1", "日本", "a\\b", &"x".repeat(255)] {
            assert_eq!((check_name(name), &*printable_name(name)), (Ok(()), name));
        }
        for (text, error, name) in [
            ("a\nb", NameError::Control('\n'), "a\\u{a}b"),
            ("\u{1b}[2J", NameError::Control('\u{1b}'), "\\u{1b}[2J"),
            ("\u{9b}2J", NameError::Control('\u{9b}'), "\\u{9b}2J"),
            ("x\u{202e}y", NameError::Control('\u{202e}'), "x\\u{202e}y"),
            (&"ä".repeat(128), NameError::TooLong, &"ä".repeat(127)),
        ] {
            assert_eq!((check_name(text), &*printable_name(text)), (Err(error), name));
        }
        assert_eq!(NameError::Control('\r').to_string(), "contains the control character U+000D");
        assert_eq!(printable_text("tcp\nor\tudp"), "tcp or udp");
    }

    proptest! {
        #[test]
        fn any_text_becomes_a_name(text in any::<String>()) {
            prop_assert_eq!(check_name(&printable_name(&text)), Ok(()));
        }
    }
}
