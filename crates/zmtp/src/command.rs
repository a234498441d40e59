//! Commands and their metadata (RFC 37, "Commands").

use crate::Error;
use crate::error::printable;
use crate::frame::FrameHeader;

/// The longest command of a handshake that is accepted, in bytes. CURVE's INITIATE has 257 bytes, the client's metadata,
/// and whatever its application adds.
pub(crate) const MAX_LEN: usize = 4096;

/// A command: a name and a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) body: &'a [u8],
}

impl<'a> Command<'a> {
    /// Splits the body of a frame.
    pub(crate) fn decode(frame: &'a [u8]) -> Result<Self, Error> {
        let invalid = || Error::Command { name: printable(frame) };
        let (len, rest) = frame.split_first().ok_or_else(invalid)?;
        let (name, body) = rest.split_at_checked((*len).into()).ok_or_else(invalid)?;
        Ok(Self { name, body })
    }

    /// The body, if this is the command that is expected.
    ///
    /// # Errors
    /// It is another command, or the peer's `ERROR`.
    pub(crate) fn expect(self, name: &'static str) -> Result<&'a [u8], Error> {
        match self.name {
            found if found == name.as_bytes() => Ok(self.body),
            b"ERROR" => {
                // A length and that many bytes of text.
                let reason = self.body.get(1..).unwrap_or_default();
                Err(Error::Refused { reason: printable(reason) })
            }
            _ => Err(self.invalid()),
        }
    }

    /// The error for a command with an invalid body or at the wrong time.
    pub(crate) fn invalid(self) -> Error {
        Error::Command { name: printable(self.name) }
    }

    /// Appends the command to `out`, without a frame.
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        out.push(u8::try_from(self.name.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(self.name);
        out.extend_from_slice(self.body);
    }

    /// Appends the command to `out`, in a frame.
    pub(crate) fn encode_frame(self, out: &mut Vec<u8>) {
        FrameHeader { command: true, len: 1 + self.name.len() + self.body.len() }.encode(out);
        self.encode(out);
    }
}

/// The command that refuses a peer. `reason`: at most 255 bytes. libzmq understands a status code of ZAP (RFC 27).
pub(crate) fn encode_error(reason: &str, out: &mut Vec<u8>) {
    let mut body = vec![u8::try_from(reason.len()).unwrap_or(u8::MAX)];
    body.extend(reason.bytes().take(255));
    Command { name: b"ERROR", body: &body }.encode_frame(out);
}

/// An application property: the name under which a capture sends. RFC 37: names that begin with `X-` are for
/// applications.
const SOURCE: &str = "X-Packeteur-Source";

/// The metadata that a side sends at the end of the handshake: the type of its socket, and a capture's name.
pub(crate) fn metadata(socket_type: &str, source: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in [("Socket-Type", Some(socket_type)), (SOURCE, source)] {
        if let Some(value) = value {
            out.push(name.len() as u8);
            out.extend(name.as_bytes());
            out.extend((value.len() as u32).to_be_bytes());
            out.extend(value.as_bytes());
        }
    }
    out
}

/// Checks a peer's metadata: the type of its socket has to be `expected`. Returns the capture's name, if there is one that
/// is UTF-8. Other properties are ignored.
pub(crate) fn check_metadata(mut metadata: &[u8], expected: &'static str) -> Result<Option<String>, Error> {
    let (mut socket_type, mut source) = (None, None);
    while !metadata.is_empty() {
        let (name, value, rest) =
            property(metadata).ok_or_else(|| Error::Command { name: "metadata".to_owned() })?;
        metadata = rest;
        // RFC 37: names are not case-sensitive.
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            socket_type = Some(value);
        } else if name.eq_ignore_ascii_case(SOURCE.as_bytes()) {
            source = str::from_utf8(value).ok().map(str::to_owned);
        }
    }
    match socket_type {
        Some(found) if found == expected.as_bytes() => Ok(source),
        found => Err(Error::SocketType { expected, theirs: printable(found.unwrap_or_default()) }),
    }
}

/// The first property: its name, its value, and what follows.
fn property(metadata: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (len, rest) = metadata.split_first()?;
    let (name, rest) = rest.split_at_checked((*len).into())?;
    let (len, rest) = rest.split_first_chunk()?;
    let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    let (value, rest) = rest.split_at_checked(len)?;
    Some((name, value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_names_the_socket_type() {
        let push = metadata("PUSH", None);
        assert_eq!(push, b"\x0bSocket-Type\0\0\0\x04PUSH");
        assert_eq!(check_metadata(&push, "PUSH"), Ok(None));
        let named = metadata("PUSH", Some("web"));
        assert_eq!(check_metadata(&named, "PUSH"), Ok(Some("web".to_owned())));
        let lower = [push.as_slice(), b"\x01x\0\0\0\0"].concat().to_ascii_lowercase();
        assert_eq!(
            check_metadata(&lower, "PUSH").unwrap_err().to_string(),
            "has a socket of type push instead of PUSH"
        );
        assert!(check_metadata(&[], "PUSH").is_err());
        for cut in 1..push.len() {
            assert!(matches!(check_metadata(&push[..cut], "PUSH"), Err(Error::Command { .. })), "{cut}");
        }
    }

    #[test]
    fn commands_are_split_into_name_and_body() {
        let command = Command { name: b"READY", body: b"abc" };
        let mut out = Vec::new();
        command.encode_frame(&mut out);
        assert_eq!(out, b"\x04\x09\x05READYabc");
        assert_eq!(Command::decode(&out[2..]), Ok(command));
        assert_eq!(command.expect("READY"), Ok(b"abc".as_slice()));
        assert!(command.expect("HELLO").is_err());
        for invalid in [b"".as_slice(), b"\x05READ"] {
            assert!(Command::decode(invalid).is_err());
        }
    }

    #[test]
    fn an_error_says_why() {
        let mut out = Vec::new();
        encode_error("400", &mut out);
        let command = Command::decode(&out[2..]).unwrap();
        assert_eq!(command.expect("READY"), Err(Error::Refused { reason: "400".to_owned() }));
    }
}
