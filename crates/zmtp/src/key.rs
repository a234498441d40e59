//! Curve25519 keys, in base64 as WireGuard writes them.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, Zeroizing};

use crate::sodium;

/// Bytes of a key.
pub(crate) const KEY_LEN: usize = 32;

/// Why a text is not a key. The message continues a sentence that starts with what should be one; it never repeats the
/// text, which may be secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not base64, or of another length.
    #[error("is not a valid key (44 characters of base64, the last is `=`)")]
    Invalid,
    /// ZeroMQ's own tools write keys in Z85.
    #[error("is a key in Z85 (40 characters); write its 32 bytes in base64 (44 characters)")]
    Z85,
}

/// A public key. [`fmt::Display`] writes it in base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; KEY_LEN]);

/// A secret key, and the public key that belongs to it. Its memory is overwritten when it is dropped.
#[derive(Clone)]
pub struct SecretKey {
    secret: Zeroizing<[u8; KEY_LEN]>,
    public: PublicKey,
}

impl PublicKey {
    pub(crate) const fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl SecretKey {
    /// A new key from the system's random numbers.
    #[must_use]
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        sodium::random(bytes.as_mut_slice());
        Self::new(bytes)
    }

    fn new(secret: Zeroizing<[u8; KEY_LEN]>) -> Self {
        let public = PublicKey(sodium::public_key(&secret));
        Self { secret, public }
    }

    /// The public key that belongs to it.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The key's bytes, which are secret.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.secret
    }

    /// The key in base64, for a file that others cannot read.
    #[must_use]
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.secret.as_slice()))
    }
}

/// Decodes a key. Blanks around it are allowed.
fn decode(text: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    let text = text.trim();
    // The decoder wants room for all bytes that the text may stand for.
    let mut bytes = Zeroizing::new([0; KEY_LEN + 2]);
    match STANDARD.decode_slice(text, &mut *bytes) {
        Ok(KEY_LEN) => {
            let mut key = Zeroizing::new([0; KEY_LEN]);
            key.copy_from_slice(&bytes[..KEY_LEN]);
            bytes.zeroize();
            Ok(key)
        }
        _ if text.len() == 40 && text.bytes().all(|b| b.is_ascii_graphic()) => Err(KeyError::Z85),
        _ => Err(KeyError::Invalid),
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(|bytes| Self(*bytes))
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(Self::new)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first pair of RFC 7748, section 6.1.
    const SECRET: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    const PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[test]
    fn keys_are_read_and_written_in_base64() {
        let secret: SecretKey = SECRET.parse().unwrap();
        assert_eq!(secret.public().to_string(), PUBLIC);
        assert_eq!(format!(" {PUBLIC}\n").parse::<PublicKey>(), Ok(secret.public()));
        assert_eq!(secret.to_base64().as_str(), SECRET);
    }

    #[test]
    fn a_secret_key_is_not_in_debug_output() {
        let secret: SecretKey = SECRET.parse().unwrap();
        assert_eq!(format!("{secret:?}"), "SecretKey(…)");
    }

    #[test]
    fn generated_keys_differ() {
        assert_ne!(SecretKey::generate().public(), SecretKey::generate().public());
    }

    #[test]
    fn other_texts_are_refused() {
        let check = |text: &str, expected| assert_eq!(text.parse::<PublicKey>(), Err(expected), "{text}");
        check("", KeyError::Invalid);
        check(&PUBLIC[..43], KeyError::Invalid);
        check(&PUBLIC.replace('=', "A"), KeyError::Invalid);
        check(&PUBLIC.replace('+', "-").replace('/', "_"), KeyError::Invalid);
        check(&format!("{PUBLIC}{PUBLIC}"), KeyError::Invalid);
        // The last character before `=` has two bits that must be zero.
        check(&PUBLIC.replace("mo=", "mp="), KeyError::Invalid);
        check("rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", KeyError::Z85);
    }
}
