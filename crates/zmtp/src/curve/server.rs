//! The server's side of CURVE's handshake.

use super::{COOKIE_LEN, Channel, Fields, long_nonce, open_box, prefix, seal_box, short_nonce};
use crate::command::{self, Command};
use crate::key::KEY_LEN;
use crate::sodium::{self, SharedKey};
use crate::{Error, PublicKey, SecretKey};

/// After HELLO: the server waits for INITIATE.
#[derive(Debug)]
pub(crate) struct Welcomed {
    /// C'.
    client: [u8; KEY_LEN],
    /// s'.
    secret: SecretKey,
    /// Lets a server forget a connection until INITIATE. This one remembers, so the cookie is random and carries nothing.
    cookie: [u8; COOKIE_LEN],
}

/// After INITIATE: the owner decides about the client's key.
#[derive(Debug)]
pub(crate) struct Initiated {
    key: SharedKey,
    received: u64,
    /// The client's long-term key. The client has proven that it has the secret key.
    pub(crate) client: PublicKey,
    /// The name under which the client wants to send, if it says so.
    pub(crate) source: Option<String>,
}

/// Answers HELLO with WELCOME.
///
/// # Errors
/// The command is malformed, or the client has another key than this server's.
pub(crate) fn welcome(hello: Command<'_>, server: &SecretKey, out: &mut Vec<u8>) -> Result<Welcomed, Error> {
    let mut fields = Fields(hello.expect("HELLO")?);
    let (client, counter, signature) =
        parse_hello(&mut fields).filter(|_| fields.0.is_empty()).ok_or_else(|| hello.invalid())?;
    let shared = SharedKey::derive(client, server.as_bytes()).ok_or(Error::WrongServerKey)?;
    let zeros = open_box(&shared, &short_nonce(prefix::HELLO, counter), signature);
    if zeros.is_none_or(|zeros| zeros.iter().any(|byte| *byte != 0)) {
        return Err(Error::WrongServerKey);
    }

    let (secret, mut cookie, mut nonce) = (SecretKey::generate(), [0; COOKIE_LEN], [0; 16]);
    sodium::random(&mut cookie);
    sodium::random(&mut nonce);
    let sealed =
        seal_box(&shared, &long_nonce(prefix::WELCOME, &nonce), &[secret.public().as_bytes(), &cookie]);
    Command { name: b"WELCOME", body: &[nonce.as_slice(), &sealed].concat() }.encode_frame(out);
    Ok(Welcomed { client: *client, secret, cookie })
}

/// HELLO: version 1.0, padding against amplification, C', a nonce, and a box of zeros from C' to S.
fn parse_hello<'a>(fields: &mut Fields<'a>) -> Option<(&'a [u8; KEY_LEN], u64, &'a [u8; 80])> {
    let version: &[u8; 2] = fields.take()?;
    let _padding: &[u8; 72] = fields.take()?;
    let hello = (fields.take()?, fields.take_counter()?, fields.take()?);
    (version[0] == 1).then_some(hello)
}

impl Welcomed {
    /// Takes INITIATE: the cookie, a nonce, and a box from C' to S' that holds C, a vouch and the client's metadata. The
    /// vouch is a box from C to S' that holds C' and S; it proves that the client has c.
    ///
    /// # Errors
    /// The command is malformed, its boxes cannot be opened, or the client's socket is no PUSH.
    pub(crate) fn initiate(self, initiate: Command<'_>, server: &SecretKey) -> Result<Initiated, Error> {
        let mut fields = Fields(initiate.expect("INITIATE")?);
        let (Some(cookie), Some(counter)) = (fields.take::<COOKIE_LEN>(), fields.take_counter()) else {
            return Err(initiate.invalid());
        };
        if *cookie != self.cookie {
            return Err(initiate.invalid());
        }
        let key = SharedKey::derive(&self.client, self.secret.as_bytes()).ok_or(Error::Decryption)?;
        let plaintext = open_box(&key, &short_nonce(prefix::INITIATE, counter), fields.0);
        let plaintext = plaintext.ok_or(Error::Decryption)?;
        let mut fields = Fields(&plaintext);
        let (Some(client), Some(nonce), Some(vouch)) = (fields.take(), fields.take(), fields.take::<80>())
        else {
            return Err(initiate.invalid());
        };
        let vouch_key = SharedKey::derive(client, self.secret.as_bytes()).ok_or(Error::Decryption)?;
        let vouch =
            open_box(&vouch_key, &long_nonce(prefix::VOUCH, nonce), vouch).ok_or(Error::Decryption)?;
        if vouch != [self.client, *server.public().as_bytes()].concat() {
            return Err(Error::Decryption);
        }
        let source = command::check_metadata(fields.0, "PUSH")?;
        Ok(Initiated { key, received: counter, client: PublicKey::new(*client), source })
    }
}

impl Initiated {
    /// Completes the handshake with READY.
    pub(crate) fn ready(self, out: &mut Vec<u8>) -> Channel {
        let counter = 1_u64;
        let nonce = short_nonce(prefix::READY, counter);
        let sealed = seal_box(&self.key, &nonce, &[&command::metadata("PULL", None)]);
        Command { name: b"READY", body: &[counter.to_be_bytes().as_slice(), &sealed].concat() }
            .encode_frame(out);
        Channel {
            key: self.key,
            send_prefix: prefix::SERVER_MESSAGE,
            receive_prefix: prefix::CLIENT_MESSAGE,
            sent: counter,
            received: self.received,
        }
    }
}
