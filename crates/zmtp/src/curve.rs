//! The mechanism CURVE: RFC 26 (CurveZMQ). In its terms, C and c are the client's public and secret key, S and s the
//! server's, and C', c', S', s' the pairs of one connection.

pub(crate) mod client;
pub(crate) mod server;

use crate::Error;
use crate::message::Message;
use crate::sodium::{Nonce, SharedKey, TAG_LEN};

/// The prefixes of nonces: one for each use, so that none is used twice.
mod prefix {
    pub(super) const HELLO: &[u8; 16] = b"CurveZMQHELLO---";
    pub(super) const WELCOME: &[u8; 8] = b"WELCOME-";
    pub(super) const VOUCH: &[u8; 8] = b"VOUCH---";
    pub(super) const INITIATE: &[u8; 16] = b"CurveZMQINITIATE";
    pub(super) const READY: &[u8; 16] = b"CurveZMQREADY---";
    pub(super) const CLIENT_MESSAGE: &[u8; 16] = b"CurveZMQMESSAGEC";
    pub(super) const SERVER_MESSAGE: &[u8; 16] = b"CurveZMQMESSAGES";
}

/// Bytes of the cookie in WELCOME and INITIATE.
const COOKIE_LEN: usize = 96;

/// What precedes the ciphertext of a message: the command's name with its length, a nonce of eight bytes, a tag.
const MESSAGE_NAME: &[u8; 8] = b"\x07MESSAGE";
const MESSAGE_NONCE: usize = MESSAGE_NAME.len();
const MESSAGE_TAG: usize = MESSAGE_NONCE + 8;
const MESSAGE_FLAGS: usize = MESSAGE_TAG + TAG_LEN;

/// What precedes the payload of a message: the above, and a byte of flags, which is encrypted.
pub(crate) const MESSAGE_OVERHEAD: usize = MESSAGE_FLAGS + 1;

/// Flag of an encrypted message: further parts follow.
const FLAG_MORE: u8 = 1;

/// Flag of an encrypted message: it is a command. libzmq's; RFC 26 has no commands after the handshake.
const FLAG_COMMAND: u8 = 2;

/// A nonce of a prefix and a counter.
fn short_nonce(prefix: &[u8; 16], counter: u64) -> Nonce {
    let mut nonce = Nonce::default();
    nonce[..16].copy_from_slice(prefix);
    nonce[16..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

/// A nonce of a prefix and random bytes.
fn long_nonce(prefix: &[u8; 8], random: &[u8; 16]) -> Nonce {
    let mut nonce = Nonce::default();
    nonce[..8].copy_from_slice(prefix);
    nonce[8..].copy_from_slice(random);
    nonce
}

/// A box as commands carry it: the tag, then the ciphertext.
fn seal_box(key: &SharedKey, nonce: &Nonce, plaintext: &[&[u8]]) -> Vec<u8> {
    let mut sealed = vec![0; TAG_LEN];
    for part in plaintext {
        sealed.extend_from_slice(part);
    }
    let (tag, text) = sealed.split_at_mut(TAG_LEN);
    tag.copy_from_slice(&key.seal(nonce, text));
    sealed
}

/// The plaintext of a box.
fn open_box(key: &SharedKey, nonce: &Nonce, sealed: &[u8]) -> Option<Vec<u8>> {
    let (tag, text) = sealed.split_first_chunk()?;
    let mut text = text.to_vec();
    key.open(nonce, tag, &mut text).ok()?;
    Some(text)
}

/// Fields of fixed length at the front of a command's body.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(field)
    }

    fn take_counter(&mut self) -> Option<u64> {
        self.take().map(|bytes| u64::from_be_bytes(*bytes))
    }
}

/// What an encrypted message holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    Message(Message),
    /// A command, in the same bytes as outside encryption.
    Command(Message),
}

/// Encryption after the handshake.
#[derive(Debug)]
pub(crate) struct Channel {
    key: SharedKey,
    send_prefix: &'static [u8; 16],
    receive_prefix: &'static [u8; 16],
    /// The last nonce used.
    sent: u64,
    /// The last nonce received.
    received: u64,
}

impl Channel {
    /// Decrypts a frame, in place. Nonces have to increase, or someone repeats what was recorded.
    pub(crate) fn open(&mut self, mut frame: Vec<u8>) -> Result<Opened, Error> {
        let (head, text) = frame.split_at_mut_checked(MESSAGE_FLAGS).ok_or(Error::Decryption)?;
        let mut fields = Fields(head);
        if fields.take() != Some(MESSAGE_NAME) {
            return Err(Error::Decryption);
        }
        let (Some(counter), Some(tag)) = (fields.take_counter(), fields.take()) else {
            return Err(Error::Decryption);
        };
        if counter <= self.received {
            return Err(Error::Replay);
        }
        self.key
            .open(&short_nonce(self.receive_prefix, counter), tag, text)
            .map_err(|_| Error::Decryption)?;
        self.received = counter;
        let flags = *text.first().ok_or(Error::Decryption)?;
        let message = Message::new(frame, MESSAGE_OVERHEAD);
        match flags {
            0 => Ok(Opened::Message(message)),
            FLAG_COMMAND => Ok(Opened::Command(message)),
            _ if flags & FLAG_MORE != 0 => Err(Error::Multipart),
            _ => Err(Error::Frame),
        }
    }

    /// Encrypts a payload in place. `frame` holds [`MESSAGE_OVERHEAD`] bytes of any content, then the payload.
    pub(crate) fn seal(&mut self, frame: &mut [u8], command: bool) -> Result<(), Error> {
        self.sent = self.sent.checked_add(1).ok_or(Error::NoncesExhausted)?;
        let nonce = short_nonce(self.send_prefix, self.sent);
        let (head, text) = frame.split_at_mut_checked(MESSAGE_FLAGS).ok_or(Error::Frame)?;
        *text.first_mut().ok_or(Error::Frame)? = if command { FLAG_COMMAND } else { 0 };
        let tag = self.key.seal(&nonce, text);
        head[..MESSAGE_NONCE].copy_from_slice(MESSAGE_NAME);
        head[MESSAGE_NONCE..MESSAGE_TAG].copy_from_slice(&self.sent.to_be_bytes());
        head[MESSAGE_TAG..].copy_from_slice(&tag);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::SecretKey;
    use crate::command::Command;
    use crate::traffic::answer;

    /// The sides of a client and a server after the handshake.
    fn channels() -> (Channel, Channel) {
        let (client, server) = (SecretKey::generate(), SecretKey::generate());
        let derive = |public: &SecretKey, secret: &SecretKey| {
            SharedKey::derive(public.public().as_bytes(), secret.as_bytes()).unwrap()
        };
        let (ours, theirs) = (prefix::CLIENT_MESSAGE, prefix::SERVER_MESSAGE);
        let channel = |key, send_prefix, receive_prefix| Channel {
            key,
            send_prefix,
            receive_prefix,
            sent: 2,
            received: 2,
        };
        (channel(derive(&server, &client), ours, theirs), channel(derive(&client, &server), theirs, ours))
    }

    /// Encrypts flags and payload as they are, which [`Channel::seal`] does not do.
    fn seal(channel: &mut Channel, mut text: Vec<u8>) -> Vec<u8> {
        channel.sent += 1;
        let tag = channel.key.seal(&short_nonce(channel.send_prefix, channel.sent), &mut text);
        [MESSAGE_NAME.as_slice(), &channel.sent.to_be_bytes(), &tag, &text].concat()
    }

    proptest! {
        #[test]
        fn the_owner_of_a_key_can_encrypt_anything(
            flags in prop_oneof![0_u8..4, any::<u8>()],
            name in prop_oneof![Just("\x04PING"), Just("\x04PONG"), Just("\x05ERROR"), Just("")],
            body in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let (mut client, mut server) = channels();
            let payload = [name.as_bytes(), &body].concat();
            let opened = server.open(seal(&mut client, [&[flags], payload.as_slice()].concat()));
            match flags {
                0 => prop_assert!(matches!(opened, Ok(Opened::Message(message)) if message.as_ref() == payload)),
                FLAG_COMMAND => {
                    let Ok(Opened::Command(command)) = opened else { panic!("{opened:?}") };
                    let mut out = Vec::new();
                    let answered = Command::decode(command.as_ref())
                        .and_then(|command| answer(command, Some(&mut server), &mut out));
                    // A time to live, and a context of at most 16 bytes, which the answer has.
                    let valid = name == "\x04PING" && (2..=18).contains(&body.len());
                    prop_assert!(answered.is_ok() == (valid || name == "\x04PONG") || name.is_empty());
                    if valid {
                        let Ok(Opened::Command(pong)) = client.open(out.split_off(2)) else { panic!("no answer") };
                        prop_assert_eq!(pong.as_ref(), [b"\x04PONG", &body[2..]].concat());
                    }
                }
                _ if flags & FLAG_MORE != 0 => prop_assert_eq!(opened, Err(Error::Multipart)),
                _ => prop_assert_eq!(opened, Err(Error::Frame)),
            }
        }
    }

    #[test]
    fn a_message_without_flags_is_refused() {
        let (mut client, mut server) = channels();
        assert_eq!(server.open(seal(&mut client, Vec::new())), Err(Error::Decryption));
    }
}
