//! The client's side of CURVE's handshake.

use super::{COOKIE_LEN, Channel, Fields, long_nonce, open_box, prefix, seal_box, short_nonce};
use crate::command::{self, Command};
use crate::key::KEY_LEN;
use crate::sodium::{self, SharedKey};
use crate::{ClientSecurity, Error, PublicKey, SecretKey};

/// Nonces of the client's commands; those of its messages follow.
const HELLO_COUNTER: u64 = 1;
const INITIATE_COUNTER: u64 = 2;

/// After HELLO: the client waits for WELCOME.
#[derive(Debug)]
pub(crate) struct Greeted {
    /// c'.
    secret: SecretKey,
    /// Of c' and S.
    key: SharedKey,
}

/// After INITIATE: the client waits for READY.
#[derive(Debug)]
pub(crate) struct Initiated {
    key: SharedKey,
}

/// Begins the handshake with HELLO.
///
/// # Errors
/// The server's key cannot be used.
pub(crate) fn hello(server: &PublicKey, out: &mut Vec<u8>) -> Result<Greeted, Error> {
    let secret = SecretKey::generate();
    let key = SharedKey::derive(server.as_bytes(), secret.as_bytes()).ok_or(Error::WrongServerKey)?;
    let signature = seal_box(&key, &short_nonce(prefix::HELLO, HELLO_COUNTER), &[&[0; 64]]);
    let mut body = vec![1, 0];
    body.extend([0; 72]);
    body.extend(secret.public().as_bytes());
    body.extend(HELLO_COUNTER.to_be_bytes());
    body.extend(signature);
    Command { name: b"HELLO", body: &body }.encode_frame(out);
    Ok(Greeted { secret, key })
}

impl Greeted {
    /// Answers WELCOME, a box of S' and a cookie, with INITIATE.
    ///
    /// # Errors
    /// The command is malformed, or not from the owner of the server's key.
    pub(crate) fn initiate(
        self,
        welcome: Command<'_>,
        security: &ClientSecurity,
        out: &mut Vec<u8>,
    ) -> Result<Initiated, Error> {
        let ClientSecurity { server, secret: client, source } = security;
        let mut fields = Fields(welcome.expect("WELCOME")?);
        let nonce = fields.take().ok_or_else(|| welcome.invalid())?;
        let plaintext = open_box(&self.key, &long_nonce(prefix::WELCOME, nonce), fields.0);
        let plaintext = plaintext.ok_or(Error::WrongServerKey)?;
        let mut fields = Fields(&plaintext);
        let (Some(transient), Some(cookie)) = (fields.take::<KEY_LEN>(), fields.take::<COOKIE_LEN>()) else {
            return Err(welcome.invalid());
        };
        let derive = |secret: &SecretKey| SharedKey::derive(transient, secret.as_bytes());
        let (Some(key), Some(vouch_key)) = (derive(&self.secret), derive(client)) else {
            return Err(Error::Decryption);
        };
        let mut nonce = [0; 16];
        sodium::random(&mut nonce);
        let vouch = seal_box(
            &vouch_key,
            &long_nonce(prefix::VOUCH, &nonce),
            &[self.secret.public().as_bytes(), server.as_bytes()],
        );
        let sealed = seal_box(
            &key,
            &short_nonce(prefix::INITIATE, INITIATE_COUNTER),
            &[client.public().as_bytes(), &nonce, &vouch, &command::metadata("PUSH", Some(source))],
        );
        let body = [cookie.as_slice(), &INITIATE_COUNTER.to_be_bytes(), &sealed].concat();
        Command { name: b"INITIATE", body: &body }.encode_frame(out);
        Ok(Initiated { key })
    }
}

impl Initiated {
    /// Takes READY, a box of the server's metadata, which completes the handshake.
    ///
    /// # Errors
    /// The command is malformed, or the server refuses the client.
    pub(crate) fn ready(self, ready: Command<'_>) -> Result<Channel, Error> {
        let mut fields = Fields(ready.expect("READY")?);
        let counter = fields.take_counter().ok_or_else(|| ready.invalid())?;
        let metadata = open_box(&self.key, &short_nonce(prefix::READY, counter), fields.0);
        command::check_metadata(&metadata.ok_or(Error::Decryption)?, "PULL")?;
        Ok(Channel {
            key: self.key,
            send_prefix: prefix::CLIENT_MESSAGE,
            receive_prefix: prefix::SERVER_MESSAGE,
            sent: INITIATE_COUNTER,
            received: counter,
        })
    }
}
