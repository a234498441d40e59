//! A capture's side of a connection.

use std::sync::Arc;

use crate::command::{self, Command};
use crate::curve::client::{Greeted, Initiated, hello};
use crate::curve::{Channel, MESSAGE_OVERHEAD, Opened};
use crate::frame::{Frame, FrameDecoder, FrameHeader};
use crate::greeting::{self, GreetingDecoder, Mechanism};
use crate::message::Message;
use crate::traffic::answer;
use crate::{Error, PublicKey, SecretKey};

/// The keys of a capture.
#[derive(Clone, Debug)]
pub struct ClientSecurity {
    /// The collector's public key.
    pub server: PublicKey,
    /// The capture's own key.
    pub secret: Arc<SecretKey>,
    /// The name under which the capture sends, so that a collector can refuse it before anything is lost.
    pub source: String,
}

/// What a peer's bytes led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// The handshake is complete: messages can be sent.
    Ready,
}

/// What follows on the wire after the bytes of [`Client::begin_message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// The payload, as it is.
    Payload,
    /// Nothing.
    Nothing,
}

/// A PUSH socket's side of one connection.
#[derive(Debug)]
pub struct Client {
    security: Option<ClientSecurity>,
    stage: Stage,
    frames: FrameDecoder,
    /// Bytes to send.
    outgoing: Vec<u8>,
}

#[derive(Debug)]
enum Stage {
    Greeting(GreetingDecoder),
    /// NULL: waits for READY.
    Null,
    /// CURVE: waits for WELCOME.
    Welcome(Box<Greeted>),
    /// CURVE: waits for READY.
    Ready(Box<Initiated>),
    /// The handshake is complete; with CURVE there is a channel.
    Traffic(Option<Box<Channel>>),
    /// An error was returned.
    Closed,
}

impl Client {
    /// A new connection. With `security` it uses CURVE, otherwise NULL.
    #[must_use]
    pub fn new(security: Option<ClientSecurity>) -> Self {
        let mechanism = Mechanism::of(security.is_some());
        Self {
            security,
            stage: Stage::Greeting(GreetingDecoder::new()),
            frames: FrameDecoder::new(),
            outgoing: greeting::encode(mechanism, false).to_vec(),
        }
    }

    /// Takes bytes that the peer sent from the front of `input`, up to the next event. Returns none when it has taken all.
    ///
    /// # Errors
    /// The connection has to be closed.
    pub fn receive(&mut self, input: &mut &[u8]) -> Result<Option<ClientEvent>, Error> {
        let received = self.receive_event(input);
        if received.is_err() {
            self.stage = Stage::Closed;
        }
        received
    }

    fn receive_event(&mut self, input: &mut &[u8]) -> Result<Option<ClientEvent>, Error> {
        loop {
            match &mut self.stage {
                Stage::Closed => return Ok(None),
                Stage::Greeting(decoder) => {
                    let mechanism = Mechanism::of(self.security.is_some());
                    if !decoder.decode(input, mechanism, false)? {
                        return Ok(None);
                    }
                    self.stage = self.begin()?;
                }
                // A collector sends nothing but commands, and short ones.
                _ => {
                    let frame = self.frames.decode(input, command::MAX_LEN)?;
                    let Some(frame) = frame else { return Ok(None) };
                    if let Some(event) = self.handle_frame(frame)? {
                        return Ok(Some(event));
                    }
                }
            }
        }
    }

    /// Sends the first command.
    fn begin(&mut self) -> Result<Stage, Error> {
        let Some(security) = &self.security else {
            Command { name: b"READY", body: &command::metadata("PUSH", None) }
                .encode_frame(&mut self.outgoing);
            return Ok(Stage::Null);
        };
        Ok(Stage::Welcome(hello(&security.server, &mut self.outgoing)?.into()))
    }

    fn handle_frame(&mut self, frame: Frame) -> Result<Option<ClientEvent>, Error> {
        match (std::mem::replace(&mut self.stage, Stage::Closed), &self.security) {
            (Stage::Traffic(mut channel), _) => {
                let command = match &mut channel {
                    None if frame.command => Message::new(frame.body, 0),
                    None => return Err(Error::UnexpectedMessage),
                    Some(channel) => match channel.open(frame.body)? {
                        Opened::Command(command) => command,
                        Opened::Message(_) => return Err(Error::UnexpectedMessage),
                    },
                };
                answer(Command::decode(command.as_ref())?, channel.as_deref_mut(), &mut self.outgoing)?;
                self.stage = Stage::Traffic(channel);
                Ok(None)
            }
            _ if !frame.command => Err(Error::UnexpectedMessage),
            (Stage::Null, _) => {
                command::check_metadata(Command::decode(&frame.body)?.expect("READY")?, "PULL")?;
                self.stage = Stage::Traffic(None);
                Ok(Some(ClientEvent::Ready))
            }
            (Stage::Welcome(greeted), Some(security)) => {
                let welcome = Command::decode(&frame.body)?;
                let initiated = greeted.initiate(welcome, security, &mut self.outgoing)?;
                self.stage = Stage::Ready(initiated.into());
                Ok(None)
            }
            (Stage::Ready(initiated), _) => {
                let channel = initiated.ready(Command::decode(&frame.body)?)?;
                self.stage = Stage::Traffic(Some(channel.into()));
                Ok(Some(ClientEvent::Ready))
            }
            // No frames are decoded in the other stages, and those of CURVE have keys.
            _ => Ok(None),
        }
    }

    /// Whether the handshake is complete.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Traffic(_))
    }

    /// Whether the peer's greeting has arrived and is the right one.
    #[must_use]
    pub fn has_greeting(&self) -> bool {
        !matches!(self.stage, Stage::Greeting(_) | Stage::Closed)
    }

    /// Begins a message: appends to `out` what is sent of it before the payload, or with keys all of it, encrypted.
    ///
    /// # Errors
    /// The handshake is not complete, or the connection has used up its nonces.
    pub fn begin_message(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<Rest, Error> {
        match &mut self.stage {
            Stage::Traffic(None) => {
                FrameHeader { command: false, len: payload.len() }.encode(out);
                Ok(Rest::Payload)
            }
            Stage::Traffic(Some(channel)) => {
                let len = MESSAGE_OVERHEAD + payload.len();
                FrameHeader { command: false, len }.encode(out);
                let start = out.len();
                out.reserve(len);
                out.extend([0; MESSAGE_OVERHEAD]);
                out.extend_from_slice(payload);
                channel.seal(out.get_mut(start..).unwrap_or_default(), false)?;
                Ok(Rest::Nothing)
            }
            _ => Err(Error::Frame),
        }
    }

    /// Bytes to send to the peer, before anything else. The caller removes those that it has sent.
    pub fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.outgoing
    }
}
