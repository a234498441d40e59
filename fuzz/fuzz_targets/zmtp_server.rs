//! A hostile capture: any bytes, or those of an honest capture with one of them changed, in pieces of any length, with and
//! without keys. Nothing is received before the handshake is complete; with keys, only what the capture sent, in its order.
//! Memory follows the bytes that arrived, and answers do not pile up.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use zmtp::{Client, ClientSecurity, Error, Rest, SecretKey, Server, ServerEvent};

/// The longest message in bytes: long enough for memory to grow several times.
const MAX_MESSAGE: usize = 100 << 10;

/// Memory for the first bytes of a message, and what encryption and a header add to it, in bytes.
const FIRST_MEMORY: usize = (16 << 10) + 64;

/// Bytes that a collector wants to send to a capture that does not read: the handshake, some answers to PING, a refusal.
const MAX_OUTGOING: usize = 2048;

static COLLECTOR: LazyLock<Arc<SecretKey>> = LazyLock::new(|| Arc::new(key(1)));
static CAPTURE: LazyLock<Arc<SecretKey>> = LazyLock::new(|| Arc::new(key(2)));

/// A key that is the same in every run: seeds may contain what was encrypted for it.
fn key(number: u8) -> SecretKey {
    let text = format!("{}=", char::from(b'A' + number).to_string().repeat(42) + "A");
    text.parse().expect("this is base64 of 32 bytes")
}

/// Pieces of what is sent at once: more of them would take most of the time.
const MAX_PIECES: usize = 256;

/// How the rest of the input is used.
struct Plan {
    keys: bool,
    /// The handshake of an honest capture precedes the input.
    handshake: bool,
    /// The input is the payloads of messages, separated by line ends, rather than bytes of the connection.
    messages: bool,
    /// The owner refuses the capture's key.
    refuse: bool,
    /// What follows, in KiB: of a long message the rest, and after that no valid frame.
    padding: usize,
    /// Bytes that arrive together, unless that makes more than [`MAX_PIECES`].
    piece: usize,
    /// The byte of the connection that is changed, and how.
    at: usize,
    mask: u8,
}

/// The collector's side of a connection, and what is known about it.
struct Collector {
    server: Server,
    keys: bool,
    refuse: bool,
    bytes: usize,
    accepted: bool,
    refused: bool,
    messages: Vec<Vec<u8>>,
    error: Option<Error>,
}

impl Collector {
    fn new(plan: &Plan) -> Self {
        Self {
            server: Server::new(plan.keys.then(|| Arc::clone(&COLLECTOR)), MAX_MESSAGE),
            keys: plan.keys,
            refuse: plan.refuse,
            bytes: 0,
            accepted: false,
            refused: false,
            messages: Vec::new(),
            error: None,
        }
    }

    /// Takes bytes as the collector does: those of an unfinished message go into its own memory.
    fn receive(&mut self, mut input: &[u8]) {
        self.bytes += input.len();
        loop {
            if let Some(body) = self.server.unfinished() {
                let (now, later) = input.split_at(input.len().min(body.capacity() - body.len()));
                body.extend_from_slice(now);
                input = later;
                while self.take(&mut [].as_slice()) {}
            }
            if !self.take(&mut input) {
                break;
            }
        }
        assert!(
            self.server.memory() <= 3 * self.bytes + FIRST_MEMORY,
            "{} of {}",
            self.server.memory(),
            self.bytes
        );
        assert!(self.server.memory() <= MAX_MESSAGE + FIRST_MEMORY);
        assert!(self.server.outgoing().len() <= MAX_OUTGOING);
    }

    /// Handles one event; false if there is none.
    fn take(&mut self, input: &mut &[u8]) -> bool {
        let event = self.server.receive(input);
        if self.error.is_some() || self.refused {
            assert_eq!(event, Ok(None), "the connection has ended");
            return false;
        }
        match event {
            Ok(None) => return false,
            Ok(Some(ServerEvent::Authenticate { key, .. })) => {
                assert!(self.keys && !self.accepted);
                assert_eq!(key, CAPTURE.public(), "nobody else has proven anything");
                if self.refuse {
                    self.refused = true;
                    self.server.refuse("no");
                } else {
                    self.accepted = true;
                    self.server.accept();
                }
            }
            Ok(Some(ServerEvent::Ready)) => {
                assert!(!self.keys && !self.accepted);
                self.accepted = true;
            }
            Ok(Some(ServerEvent::Message(message))) => {
                assert!(self.accepted && self.server.is_ready());
                assert!(
                    message.as_ref().len() <= MAX_MESSAGE && message.memory() <= MAX_MESSAGE + FIRST_MEMORY
                );
                self.messages.push(message.as_ref().to_vec());
            }
            Err(error) => {
                assert!(!error.to_string().contains(char::is_control));
                self.error = Some(error);
            }
        }
        true
    }
}

/// The connection from the capture, with its changed byte.
struct Wire<'a> {
    plan: &'a Plan,
    sent: Vec<u8>,
}

impl Wire<'_> {
    fn send(&mut self, bytes: &[u8], collector: &mut Collector) {
        let begin = self.sent.len();
        self.sent.extend_from_slice(bytes);
        if let Some(byte) = self.plan.at.checked_sub(begin).and_then(|at| self.sent[begin..].get_mut(at)) {
            *byte ^= self.plan.mask;
        }
        for piece in self.sent[begin..].chunks(self.plan.piece.max(bytes.len() / MAX_PIECES)) {
            collector.receive(piece);
        }
    }

    /// The handshake, as far as the changed byte lets it come.
    fn handshake(&mut self, client: &mut Client, collector: &mut Collector) {
        while !client.outgoing().is_empty() {
            let bytes = std::mem::take(client.outgoing());
            self.send(&bytes, collector);
            let answer = std::mem::take(collector.server.outgoing());
            let mut answer = answer.as_slice();
            // It may refuse this side, or be refused.
            while let Ok(Some(_)) = client.receive(&mut answer) {}
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&[flags, padding, piece, at_high, at_low, mask], input)) = input.split_first_chunk() else {
        return;
    };
    let plan = Plan {
        keys: flags & 1 != 0,
        handshake: flags & 2 != 0,
        messages: flags & 4 != 0,
        refuse: flags & 8 != 0,
        padding: usize::from(padding & 0x7f),
        piece: if piece == 0 { usize::MAX } else { usize::from(piece) * usize::from(piece) },
        at: u16::from_be_bytes([at_high, at_low]).into(),
        mask,
    };
    let mut collector = Collector::new(&plan);
    let mut wire = Wire { plan: &plan, sent: Vec::new() };
    let security = plan.keys.then(|| ClientSecurity {
        server: COLLECTOR.public(),
        secret: Arc::clone(&CAPTURE),
        source: String::from_utf8_lossy(input.get(..usize::from(padding)).unwrap_or_default()).into_owned(),
    });
    let mut client = Client::new(security);
    if plan.handshake {
        wire.handshake(&mut client, &mut collector);
    }
    let mut sent = Vec::new();
    if plan.messages {
        for payload in input.split(|byte| *byte == b'\n') {
            let mut bytes = Vec::new();
            match client.begin_message(payload, &mut bytes) {
                Ok(Rest::Payload) => bytes.extend_from_slice(payload),
                Ok(Rest::Nothing) => {}
                Err(_) => break,
            }
            sent.push(payload.to_vec());
            wire.send(&bytes, &mut collector);
        }
    } else {
        wire.send(input, &mut collector);
    }
    wire.send(&vec![0xff; plan.padding << 10], &mut collector);

    if plan.keys {
        assert!(sent.starts_with(&collector.messages), "only what the owner of the key has sent");
        assert!(plan.handshake || !collector.accepted);
    } else {
        // How the bytes are cut into pieces makes no difference.
        let mut whole = Collector::new(&plan);
        whole.receive(&wire.sent);
        assert_eq!((whole.messages, whole.error), (collector.messages, collector.error));
    }
});
