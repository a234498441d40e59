//! The fields of a batch: who captured its packets, where, and how.
//!
//! Between the fixed header and the payload there are fields of the form
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 2 | kind |
//! | 2 | 2 | length of the value |
//! | 4 | length | value |
//!
//! | kind | value |
//! | --- | --- |
//! | 1 | name of the source, UTF-8; required |
//! | 2 | name of the device, UTF-8; required |
//! | 3 | UDP port on which TZSP was received, u16 |
//! | 4 | description of the device, UTF-8 |
//! | 5 | capture filter, UTF-8 |
//! | 6 | an interface of a "cooked" device: its index, u32, and its name, UTF-8; may be repeated |
//!
//! Fields of other kinds are skipped. All batches of a source have the same field bytes until its description changes,
//! so a collector decodes them once.

use std::sync::Arc;

use packet::origin::{check_name, printable_name, printable_text};
use packet::{LinkType, Origin};

use crate::DecodeError;
use crate::layout::MAX_HEADER;

const SOURCE: u16 = 1;
const DEVICE: u16 = 2;
const LISTEN_PORT: u16 = 3;
const DESCRIPTION: u16 = 4;
const FILTER: u16 = 5;
const INTERFACE: u16 = 6;

/// Maximum length of one text in bytes. The encoder truncates longer texts, so that all fields fit into a header; the
/// decoder rejects them, because a collector keeps the texts of many sources.
const MAX_TEXT: usize = 1_024;

/// Maximum length of an interface's name in bytes. Linux has 15 (IFNAMSIZ, net/if.h); other systems may have more.
const MAX_INTERFACE_NAME: usize = 64;

/// Maximum number of interface names of a cooked device.
const MAX_INTERFACES: usize = 512;

/// Where packets were captured: the origin, and what a pcapng interface description block contains.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Interface {
    /// The origin of the packets.
    pub origin: Origin,
    /// The packets' link type.
    pub link_type: LinkType,
    /// Maximum bytes captured per packet.
    pub snaplen: u32,
    /// The device's description; may be empty.
    pub description: Box<str>,
    /// The capture filter; may be empty.
    pub filter: Box<str>,
    /// The names of interfaces by index, for link types that contain the index (LINUX_SLL2).
    pub names: Vec<(u32, Arc<str>)>,
}

impl Interface {
    /// An interface without description, filter and names.
    #[must_use]
    pub fn new(origin: Origin, link_type: LinkType, snaplen: u32) -> Self {
        Self { origin, link_type, snaplen, description: "".into(), filter: "".into(), names: Vec::new() }
    }

    /// Appends the fields.
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        let mut field = |kind: u16, parts: [&[u8]; 2]| {
            let len = parts[0].len() + parts[1].len();
            if out.len() + 4 + len <= MAX_HEADER {
                out.extend_from_slice(&kind.to_le_bytes());
                out.extend_from_slice(&(len as u16).to_le_bytes());
                out.extend_from_slice(parts[0]);
                out.extend_from_slice(parts[1]);
            }
        };
        // Devices and interfaces may be named with any bytes but `/` and white space.
        field(SOURCE, [printable_name(&self.origin.source).as_bytes(), &[]]);
        field(DEVICE, [printable_name(&self.origin.device).as_bytes(), &[]]);
        if let Some(port) = self.origin.listen_port {
            field(LISTEN_PORT, [&port.to_le_bytes(), &[]]);
        }
        for (kind, value) in [(DESCRIPTION, &self.description), (FILTER, &self.filter)] {
            if !value.is_empty() {
                field(kind, [printable_text(truncate(value, MAX_TEXT)).as_bytes(), &[]]);
            }
        }
        for (index, name) in self.names.iter().take(MAX_INTERFACES) {
            let name = printable_name(truncate(name, MAX_INTERFACE_NAME));
            field(INTERFACE, [&index.to_le_bytes(), name.as_bytes()]);
        }
    }

    /// Decodes the fields of a batch, which are between the fixed header and the payload.
    ///
    /// Descriptions and filters are made printable; a name that is not printable is an error.
    ///
    /// # Errors
    /// A field is truncated or malformed, a required one is missing, or a name is not printable.
    pub fn decode(fields: &[u8], link_type: LinkType, snaplen: u32) -> Result<Self, DecodeError> {
        let mut source = None;
        let mut device = None;
        let empty = Origin { source: "".into(), device: "".into(), listen_port: None };
        let mut interface = Self::new(empty, link_type, snaplen);
        let mut rest = fields;
        while !rest.is_empty() {
            let offset = fields.len() - rest.len();
            let Some((&[kind0, kind1, len0, len1], behind)) = rest.split_first_chunk::<4>() else {
                return Err(DecodeError::Field { kind: 0, offset, why: "is truncated" });
            };
            let kind = u16::from_le_bytes([kind0, kind1]);
            let len = usize::from(u16::from_le_bytes([len0, len1]));
            let wrong = |why| DecodeError::Field { kind, offset, why };
            let (value, behind) = behind.split_at_checked(len).ok_or_else(|| wrong("is truncated"))?;
            rest = behind;
            let text = |value: &'_ [u8]| match std::str::from_utf8(value) {
                Ok(text) if text.len() <= MAX_TEXT => Ok(text.to_owned()),
                Ok(_) => Err(wrong("is longer than 1024 bytes")),
                Err(_) => Err(wrong("is not UTF-8")),
            };
            let name = |value: &'_ [u8]| -> Result<String, DecodeError> {
                let name = text(value)?;
                check_name(&name).map_err(|why| DecodeError::Name { kind, why })?;
                Ok(name)
            };
            match kind {
                SOURCE => source = Some(name(value)?),
                DEVICE => device = Some(name(value)?),
                LISTEN_PORT => {
                    let port = <[u8; 2]>::try_from(value).map_err(|_| wrong("does not have 2 bytes"))?;
                    interface.origin.listen_port = Some(u16::from_le_bytes(port));
                }
                DESCRIPTION => interface.description = printable_text(&text(value)?).into(),
                FILTER => interface.filter = printable_text(&text(value)?).into(),
                INTERFACE => {
                    let (index, interface_name) =
                        value.split_first_chunk::<4>().ok_or_else(|| wrong("has less than 4 bytes"))?;
                    if interface_name.len() > MAX_INTERFACE_NAME {
                        return Err(wrong("has a name longer than 64 bytes"));
                    }
                    if interface.names.len() < MAX_INTERFACES {
                        interface.names.push((u32::from_le_bytes(*index), name(interface_name)?.into()));
                    }
                }
                _ => {}
            }
        }
        let missing = |kind| DecodeError::Field { kind, offset: fields.len(), why: "is missing" };
        interface.origin.source = source.ok_or_else(|| missing(SOURCE))?.into();
        interface.origin.device = device.ok_or_else(|| missing(DEVICE))?.into();
        Ok(interface)
    }
}

/// The beginning of `text`: at most `max` bytes, cut at a character boundary.
#[must_use]
pub fn truncate(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_encoder_makes_are_rejected() {
        let interface = |name: &str| {
            let origin = Origin { source: "s".into(), device: "any".into(), listen_port: None };
            Interface { names: vec![(1, name.into())], ..Interface::new(origin, LinkType::LINUX_SLL2, 96) }
        };
        let mut fields = Vec::new();
        interface("eth0").append_to(&mut fields);
        let valid = Interface::decode(&fields, LinkType::LINUX_SLL2, 96);
        assert_eq!(valid, Ok(interface("eth0")));
        // A longer name in the last field.
        let longer = fields.len() - 8 - 2;
        fields[longer..][..2].copy_from_slice(&69_u16.to_le_bytes());
        fields.extend([b'x'; 61]);
        let error = Interface::decode(&fields, LinkType::LINUX_SLL2, 96).unwrap_err().to_string();
        assert!(error.contains("longer than 64 bytes"), "{error}");
    }

    #[test]
    fn text_is_truncated_at_a_character_boundary() {
        for (text, max, expected) in
            [("abc", 3, "abc"), ("abc", 2, "ab"), ("äö", 3, "ä"), ("ä", 1, ""), ("", 9, "")]
        {
            assert_eq!(truncate(text, max), expected, "{text:?} to {max} bytes");
        }
    }
}
