//! A hostile collector: any bytes, or those of an honest collector with one of them changed, in pieces of any length, with
//! and without keys. With keys, only the owner of the collector's key completes the handshake; answers do not pile up.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use zmtp::{Client, ClientEvent, ClientSecurity, SecretKey, Server, ServerEvent};

/// Bytes that a capture wants to send to a collector that does not read: the handshake, and some answers to PING.
const MAX_OUTGOING: usize = 2048;

static COLLECTOR: LazyLock<Arc<SecretKey>> = LazyLock::new(|| Arc::new(SecretKey::generate()));
static CAPTURE: LazyLock<Arc<SecretKey>> = LazyLock::new(|| Arc::new(SecretKey::generate()));

/// The capture's side of a connection, and what is known about it.
struct Capture {
    client: Client,
    ready: bool,
    error: Option<String>,
}

impl Capture {
    fn new(keys: bool) -> Self {
        let security = keys.then(|| ClientSecurity {
            server: COLLECTOR.public(),
            secret: Arc::clone(&CAPTURE),
            source: "web".to_owned(),
        });
        Self { client: Client::new(security), ready: false, error: None }
    }

    fn receive(&mut self, mut input: &[u8]) {
        loop {
            let event = self.client.receive(&mut input);
            if self.error.is_some() {
                assert_eq!(event, Ok(None), "the connection has ended");
                return;
            }
            match event {
                Ok(None) => break,
                Ok(Some(ClientEvent::Ready)) => {
                    assert!(!self.ready);
                    self.ready = true;
                }
                Err(error) => {
                    let error = error.to_string();
                    assert!(!error.contains(char::is_control));
                    self.error = Some(error);
                }
            }
        }
        assert!(input.is_empty());
        assert_eq!(self.client.is_ready(), self.ready && self.error.is_none());
        assert!(self.client.outgoing().len() <= MAX_OUTGOING);
        // Nothing is sent to a collector that has not proven to be the right one.
        assert_eq!(self.client.begin_message(b"packets", &mut Vec::new()).is_ok(), self.client.is_ready());
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&[flags, piece, at_high, at_low, mask], input)) = input.split_first_chunk() else { return };
    let (keys, handshake) = (flags & 1 != 0, flags & 2 != 0);
    let piece = if piece == 0 { usize::MAX } else { piece.into() };
    let at = usize::from(u16::from_be_bytes([at_high, at_low]));
    let mut capture = Capture::new(keys);
    let mut sent = Vec::new();
    let mut send = |bytes: &[u8], capture: &mut Capture| {
        let begin = sent.len();
        sent.extend_from_slice(bytes);
        if let Some(byte) = at.checked_sub(begin).and_then(|at| sent[begin..].get_mut(at)) {
            *byte ^= mask;
        }
        for piece in sent[begin..].chunks(piece) {
            capture.receive(piece);
        }
    };
    if handshake {
        let mut server = Server::new(keys.then(|| Arc::clone(&COLLECTOR)), 0);
        while !server.outgoing().is_empty() {
            send(&std::mem::take(server.outgoing()), &mut capture);
            let answer = std::mem::take(capture.client.outgoing());
            let mut answer = answer.as_slice();
            while let Ok(Some(event)) = server.receive(&mut answer) {
                if let ServerEvent::Authenticate { .. } = event {
                    if flags & 4 == 0 { server.accept() } else { server.refuse("400") }
                }
            }
        }
    }
    send(input, &mut capture);

    if keys {
        assert!(handshake && flags & 4 == 0 || !capture.ready, "nobody else has the collector's key");
    } else {
        // How the bytes are cut into pieces makes no difference.
        let mut whole = Capture::new(keys);
        whole.receive(&sent);
        assert_eq!((whole.ready, whole.error), (capture.ready, capture.error));
    }
});
