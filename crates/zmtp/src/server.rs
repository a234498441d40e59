//! A collector's side of a connection.

use std::sync::Arc;

use crate::command::{self, Command};
use crate::curve::server::{Initiated, Welcomed, welcome};
use crate::curve::{Channel, MESSAGE_OVERHEAD, Opened};
use crate::frame::{Frame, FrameDecoder};
use crate::greeting::{self, GreetingDecoder, Mechanism};
use crate::message::Message;
use crate::traffic::answer;
use crate::{Error, PublicKey, SecretKey};

/// What a peer's bytes led to.
#[derive(Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// The peer has proven to own this key. [`Server::accept`] or [`Server::refuse`] decides about it; until then, no more
    /// bytes are taken.
    Authenticate {
        /// The key.
        key: PublicKey,
        /// The name under which the peer wants to send, if it says so: any text.
        source: Option<String>,
    },
    /// The handshake is complete.
    Ready,
    /// A message.
    Message(Message),
}

/// A PULL socket's side of one connection.
#[derive(Debug)]
pub struct Server {
    secret: Option<Arc<SecretKey>>,
    stage: Stage,
    frames: FrameDecoder,
    /// Bytes to send.
    outgoing: Vec<u8>,
    max_message: usize,
}

#[derive(Debug)]
enum Stage {
    Greeting(GreetingDecoder),
    /// NULL: waits for READY.
    Null,
    /// CURVE: waits for HELLO.
    Hello,
    /// CURVE: waits for INITIATE.
    Initiate(Box<Welcomed>),
    /// CURVE: waits for the owner's decision.
    Decision(Box<Initiated>),
    /// The handshake is complete; with CURVE there is a channel.
    Traffic(Option<Box<Channel>>),
    /// An error was returned, or the peer was refused.
    Closed,
}

impl Server {
    /// A new connection. With `secret`, peers have to use CURVE; without, NULL. `max_message`: in bytes.
    #[must_use]
    pub fn new(secret: Option<Arc<SecretKey>>, max_message: usize) -> Self {
        let mechanism = Mechanism::of(secret.is_some());
        Self {
            outgoing: greeting::encode(mechanism, secret.is_some()).to_vec(),
            secret,
            stage: Stage::Greeting(GreetingDecoder::new()),
            frames: FrameDecoder::new(),
            max_message,
        }
    }

    /// Takes bytes that the peer sent from the front of `input`, up to the next event. Returns none when it has taken all.
    ///
    /// # Errors
    /// The connection has to be closed.
    pub fn receive(&mut self, input: &mut &[u8]) -> Result<Option<ServerEvent>, Error> {
        let received = self.receive_event(input);
        if received.is_err() {
            self.stage = Stage::Closed;
        }
        received
    }

    fn receive_event(&mut self, input: &mut &[u8]) -> Result<Option<ServerEvent>, Error> {
        loop {
            let limit = match &mut self.stage {
                Stage::Greeting(decoder) => {
                    let mechanism = Mechanism::of(self.secret.is_some());
                    if !decoder.decode(input, mechanism, true)? {
                        return Ok(None);
                    }
                    self.stage = if self.secret.is_some() { Stage::Hello } else { Stage::Null };
                    continue;
                }
                Stage::Decision(_) | Stage::Closed => return Ok(None),
                Stage::Null | Stage::Hello | Stage::Initiate(_) => command::MAX_LEN,
                Stage::Traffic(None) => self.max_message,
                Stage::Traffic(Some(_)) => self.max_message + MESSAGE_OVERHEAD,
            };
            let Some(frame) = self.frames.decode(input, limit)? else { return Ok(None) };
            if let Some(event) = self.handle_frame(frame)? {
                return Ok(Some(event));
            }
        }
    }

    fn handle_frame(&mut self, frame: Frame) -> Result<Option<ServerEvent>, Error> {
        match (std::mem::replace(&mut self.stage, Stage::Closed), &self.secret) {
            (Stage::Traffic(mut channel), _) => {
                let message = self.handle_traffic(frame, channel.as_deref_mut())?;
                self.stage = Stage::Traffic(channel);
                return Ok(message.map(ServerEvent::Message));
            }
            _ if !frame.command => return Err(Error::Command { name: "message".to_owned() }),
            (Stage::Null, _) => {
                let ready = Command::decode(&frame.body)?;
                command::check_metadata(ready.expect("READY")?, "PUSH")?;
                Command { name: b"READY", body: &command::metadata("PULL", None) }
                    .encode_frame(&mut self.outgoing);
                self.stage = Stage::Traffic(None);
                return Ok(Some(ServerEvent::Ready));
            }
            (Stage::Hello, Some(secret)) => {
                let welcomed = welcome(Command::decode(&frame.body)?, secret, &mut self.outgoing)?;
                self.stage = Stage::Initiate(welcomed.into());
            }
            (Stage::Initiate(welcomed), Some(secret)) => {
                let initiated = welcomed.initiate(Command::decode(&frame.body)?, secret)?;
                let event =
                    ServerEvent::Authenticate { key: initiated.client, source: initiated.source.clone() };
                self.stage = Stage::Decision(initiated.into());
                return Ok(Some(event));
            }
            // No frames are decoded in the other stages, and those of CURVE have a key.
            _ => {}
        }
        Ok(None)
    }

    fn handle_traffic(
        &mut self,
        frame: Frame,
        mut channel: Option<&mut Channel>,
    ) -> Result<Option<Message>, Error> {
        let opened = match &mut channel {
            // libzmq marks no encrypted frame as a command; what it is, is encrypted too.
            Some(channel) => channel.open(frame.body)?,
            None if frame.command => Opened::Command(Message::new(frame.body, 0)),
            None => Opened::Message(Message::new(frame.body, 0)),
        };
        match opened {
            Opened::Message(message) => Ok(Some(message)),
            Opened::Command(command) => {
                answer(Command::decode(command.as_ref())?, channel, &mut self.outgoing)?;
                Ok(None)
            }
        }
    }

    /// Accepts the peer's key, after [`ServerEvent::Authenticate`]. The handshake is complete.
    pub fn accept(&mut self) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Closed) {
            Stage::Decision(initiated) => Stage::Traffic(Some(initiated.ready(&mut self.outgoing).into())),
            stage => stage,
        };
    }

    /// Refuses the peer, after [`ServerEvent::Authenticate`]. `reason`: at most 255 bytes. The connection has to be closed
    /// once [`Server::outgoing`] is sent.
    pub fn refuse(&mut self, reason: &str) {
        self.stage = Stage::Closed;
        command::encode_error(reason, &mut self.outgoing);
    }

    /// Bytes to send to the peer. The caller removes those that it has sent.
    pub fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.outgoing
    }

    /// The body of an unfinished message, to read the peer's next bytes into its spare capacity, which does not exceed
    /// what is missing. Follow up with [`Server::receive`] without input.
    pub fn unfinished(&mut self) -> Option<&mut Vec<u8>> {
        self.frames.unfinished()
    }

    /// Whether memory is short: then that of a message grows only as its bytes arrive.
    pub fn set_frugal(&mut self, frugal: bool) {
        self.frames.set_frugal(frugal);
    }

    /// Whether a message or command has begun and not ended.
    #[must_use]
    pub fn is_within_message(&self) -> bool {
        self.frames.is_within_frame()
    }

    /// Whether the peer has sent anything.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        !matches!(&self.stage, Stage::Greeting(greeting) if greeting.is_empty())
    }

    /// Whether the handshake is complete.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Traffic(_))
    }

    /// Bytes of memory that hold what has arrived of an unfinished message.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.frames.memory()
    }
}
