//! The greeting: the first 64 bytes of each side (RFC 37, "The greeting").

use std::fmt;

use crate::Error;
use crate::error::printable;

/// Length of a greeting in bytes.
pub(crate) const LEN: usize = 64;

/// The security mechanism of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// No authentication and no encryption.
    Null,
    /// Authentication and encryption with Curve25519 keys: RFC 26.
    Curve,
}

impl Mechanism {
    /// The mechanism of a side that has keys, or has none.
    pub(crate) fn of(has_keys: bool) -> Self {
        if has_keys { Self::Curve } else { Self::Null }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Curve => "CURVE",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// This side's greeting: signature, version 3.1, mechanism, role, and 31 bytes of filler.
pub(crate) fn encode(mechanism: Mechanism, as_server: bool) -> [u8; LEN] {
    let mut greeting = [0; LEN];
    (greeting[0], greeting[9]) = (0xff, 0x7f);
    (greeting[10], greeting[11]) = (3, 1);
    let name = mechanism.name().as_bytes();
    greeting[12..12 + name.len()].copy_from_slice(name);
    greeting[32] = u8::from(as_server);
    greeting
}

/// A peer's greeting, as far as it has arrived.
#[derive(Debug)]
pub(crate) struct GreetingDecoder {
    bytes: [u8; LEN],
    have: usize,
}

impl GreetingDecoder {
    pub(crate) fn new() -> Self {
        Self { bytes: [0; LEN], have: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.have == 0
    }

    /// Takes the greeting's bytes from the front of `input`; true once they are complete and match this side's.
    ///
    /// # Errors
    /// The peer does not speak ZMTP 3, or uses another mechanism.
    pub(crate) fn decode(
        &mut self,
        input: &mut &[u8],
        mechanism: Mechanism,
        as_server: bool,
    ) -> Result<bool, Error> {
        let (taken, rest) = input.split_at(input.len().min(LEN - self.have));
        *input = rest;
        self.bytes[self.have..self.have + taken.len()].copy_from_slice(taken);
        self.have += taken.len();
        let received = &self.bytes[..self.have];
        // The bytes between are padding, or the length of an older protocol's first message.
        let is_wrong = |index: usize, valid: fn(u8) -> bool| received.get(index).is_some_and(|b| !valid(*b));
        if is_wrong(0, |b| b == 0xff) || is_wrong(9, |b| b & 1 == 1) || is_wrong(10, |b| b >= 3) {
            return Err(Error::NotZmtp);
        }
        if self.have < LEN {
            return Ok(false);
        }
        let name = &self.bytes[12..32];
        let name = &name[..name.iter().position(|b| *b == 0).unwrap_or(name.len())];
        if name != mechanism.name().as_bytes() {
            return Err(Error::Mechanism { ours: mechanism, theirs: printable(name) });
        }
        // RFC 37: the field is only meaningful for mechanisms whose roles differ. A server of libzmq does not set it.
        if mechanism == Mechanism::Curve && as_server && self.bytes[32] == 1 {
            return Err(Error::Role);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of `bytes`, given one at a time.
    fn check(bytes: &[u8], expected: Result<bool, &str>) {
        let mut decoder = GreetingDecoder::new();
        let mut got = Ok(false);
        for byte in bytes {
            got = decoder.decode(&mut std::slice::from_ref(byte), Mechanism::Curve, true);
            if got.is_err() {
                break;
            }
        }
        assert_eq!(got.map_err(|error| error.to_string()), expected.map_err(str::to_owned));
    }

    #[test]
    fn a_matching_greeting_is_accepted() {
        let greeting = encode(Mechanism::Curve, false);
        check(&greeting, Ok(true));
        check(&greeting[..63], Ok(false));
        // ZMTP 3.0 and later minor versions.
        for minor in [0, 1, 9] {
            let mut other = greeting;
            other[11] = minor;
            check(&other, Ok(true));
        }
    }

    #[test]
    fn another_protocol_is_refused_at_its_first_wrong_byte() {
        let refused = Err("does not speak ZMTP 3 (ZeroMQ 4.0 or later)");
        check(b"G", refused);
        check(&[0xff; 11], Ok(false));
        // ZMTP 2.0.
        check(&[0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 1], refused);
        // ZMTP 1.0 begins with the length of an identity.
        check(&[1, 0], refused);
    }

    #[test]
    fn mechanism_and_role_have_to_match() {
        check(&encode(Mechanism::Null, false), Err("uses the mechanism NULL, and this side CURVE"));
        check(&encode(Mechanism::Curve, true), Err("has the same role in the handshake as this side"));
        let mut odd = encode(Mechanism::Null, false);
        odd[12..32].fill(b'\x1b');
        check(&odd, Err("uses the mechanism ????????????????????, and this side CURVE"));
    }
}
