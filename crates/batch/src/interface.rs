//! The fields of a batch: who captured its packets, where, and how.
//!
//! Between the fixed header and the payload stand fields of the form
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
//! | 6 | one interface behind a "cooked" device: its index, u32, and its name, UTF-8; any number of them |
//!
//! Fields of other kinds are skipped. The fields of a source stay the same, byte for byte, while nothing about it
//! changes, so that a collector has to read them but once.

use std::sync::Arc;

use packet::{LinkType, Origin};

use crate::DecodeError;
use crate::header::MAX_HEADER;

const SOURCE: u16 = 1;
const DEVICE: u16 = 2;
const LISTEN_PORT: u16 = 3;
const DESCRIPTION: u16 = 4;
const FILTER: u16 = 5;
const INTERFACE: u16 = 6;

/// The most bytes of one text. Longer ones are cut, so that all fields fit into a header; and a collector, which keeps the
/// texts of many sources, takes no longer ones.
const MAX_TEXT: usize = 1_024;

/// The most interfaces that are named behind a cooked device.
const MAX_INTERFACES: usize = 512;

/// What is known of where packets were captured: what an interface description block of pcapng says, and the origin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Interface {
    /// Whose packets these are.
    pub origin: Origin,
    /// What they begin with.
    pub link_type: LinkType,
    /// The most bytes kept of a packet.
    pub snaplen: u32,
    /// What the device is, in words; may be empty.
    pub description: Box<str>,
    /// The user's capture filter; may be empty.
    pub filter: Box<str>,
    /// Where the link type names interfaces by index (LINUX_SLL2): what they are called.
    pub names: Vec<(u32, Arc<str>)>,
}

impl Interface {
    /// Of an origin about which nothing else is known.
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
        field(SOURCE, [cut(&self.origin.source), &[]]);
        field(DEVICE, [cut(&self.origin.device), &[]]);
        if let Some(port) = self.origin.listen_port {
            field(LISTEN_PORT, [&port.to_le_bytes(), &[]]);
        }
        for (kind, text) in [(DESCRIPTION, &self.description), (FILTER, &self.filter)] {
            if !text.is_empty() {
                field(kind, [cut(text), &[]]);
            }
        }
        for (index, name) in self.names.iter().take(MAX_INTERFACES) {
            // An interface's name has 15 bytes at most (IFNAMSIZ, net/if.h); 64 leave room for other systems.
            field(INTERFACE, [&index.to_le_bytes(), cut_at(name, 64)]);
        }
    }

    /// Reads the fields of a batch: what lies between the fixed header and the payload.
    ///
    /// # Errors
    /// A field runs over the end, is not of its kind's form, or a required one is missing.
    pub fn decode(fields: &[u8], link_type: LinkType, snaplen: u32) -> Result<Self, DecodeError> {
        let mut source = None;
        let mut device = None;
        let nowhere = Origin { source: "".into(), device: "".into(), listen_port: None };
        let mut interface = Self::new(nowhere, link_type, snaplen);
        let mut rest = fields;
        while !rest.is_empty() {
            let offset = fields.len() - rest.len();
            let Some((&[kind0, kind1, len0, len1], behind)) = rest.split_first_chunk::<4>() else {
                return Err(DecodeError::Field { kind: 0, offset, why: "is cut off" });
            };
            let kind = u16::from_le_bytes([kind0, kind1]);
            let len = usize::from(u16::from_le_bytes([len0, len1]));
            let wrong = |why| DecodeError::Field { kind, offset, why };
            let (value, behind) = behind.split_at_checked(len).ok_or_else(|| wrong("runs over the end"))?;
            rest = behind;
            let text = |value: &'_ [u8]| match std::str::from_utf8(value) {
                Ok(text) if text.len() <= MAX_TEXT => Ok(text.to_owned()),
                Ok(_) => Err(wrong("is too long")),
                Err(_) => Err(wrong("is not UTF-8")),
            };
            match kind {
                SOURCE => source = Some(text(value)?),
                DEVICE => device = Some(text(value)?),
                LISTEN_PORT => {
                    let port = <[u8; 2]>::try_from(value).map_err(|_| wrong("has not two bytes"))?;
                    interface.origin.listen_port = Some(u16::from_le_bytes(port));
                }
                DESCRIPTION => interface.description = text(value)?.into(),
                FILTER => interface.filter = text(value)?.into(),
                INTERFACE => {
                    let (index, name) =
                        value.split_first_chunk::<4>().ok_or_else(|| wrong("has less than four bytes"))?;
                    if interface.names.len() < MAX_INTERFACES {
                        interface.names.push((u32::from_le_bytes(*index), text(name)?.into()));
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

/// At most [`MAX_TEXT`] bytes of `text`.
fn cut(text: &str) -> &[u8] {
    cut_at(text, MAX_TEXT)
}

/// At most `max` bytes of `text`, cut between characters.
fn cut_at(text: &str, max: usize) -> &[u8] {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text.as_bytes()[..end]
}
