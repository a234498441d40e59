//! Both sides of a connection, without a network.

#![expect(clippy::unwrap_used, reason = "helpers of tests are outside of test functions")]

use std::sync::Arc;

use proptest::prelude::*;
use zmtp::{Client, ClientEvent, ClientSecurity, Error, Message, Rest, SecretKey, Server, ServerEvent};

const MAX_MESSAGE: usize = 1 << 20;

/// A capture and a collector; `None` for connections without keys.
struct Pair {
    client: Client,
    server: Server,
    /// Bytes that move at once.
    chunk: usize,
}

fn keys() -> (Arc<SecretKey>, Arc<SecretKey>) {
    (SecretKey::generate().into(), SecretKey::generate().into())
}

impl Pair {
    fn new(encrypted: bool, chunk: usize) -> Self {
        let (ours, theirs) = keys();
        let security = ClientSecurity { server: ours.public(), secret: theirs, source: "web".to_owned() };
        Self {
            client: Client::new(encrypted.then_some(security)),
            server: Server::new(encrypted.then_some(ours), MAX_MESSAGE),
            chunk,
        }
    }

    /// Moves what the client has to send. Returns the server's events.
    fn send_to_server(&mut self) -> Result<Vec<ServerEvent>, Error> {
        let bytes = std::mem::take(self.client.outgoing());
        self.receive(&bytes)
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<Vec<ServerEvent>, Error> {
        let mut events = Vec::new();
        for mut chunk in bytes.chunks(self.chunk) {
            while let Some(event) = self.server.receive(&mut chunk)? {
                events.push(event);
            }
            if !matches!(events.last(), Some(ServerEvent::Authenticate { .. })) {
                assert!(chunk.is_empty());
            }
        }
        Ok(events)
    }

    fn send_to_client(&mut self) -> Result<Vec<ClientEvent>, Error> {
        let bytes = std::mem::take(self.server.outgoing());
        let mut events = Vec::new();
        for mut chunk in bytes.chunks(self.chunk) {
            while let Some(event) = self.client.receive(&mut chunk)? {
                events.push(event);
            }
        }
        Ok(events)
    }

    /// Completes the handshake.
    fn connect(&mut self) {
        let mut ready = (false, false);
        while ready != (true, true) {
            for event in self.send_to_server().unwrap() {
                match event {
                    ServerEvent::Authenticate { .. } => self.server.accept(),
                    ServerEvent::Ready => ready.0 = true,
                    ServerEvent::Message(_) => panic!("a message before the handshake"),
                }
            }
            ready.0 |= self.server.is_ready();
            ready.1 |= self.send_to_client().unwrap() == [ClientEvent::Ready];
        }
    }

    /// A message's bytes on the wire.
    fn message(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.client.begin_message(payload, &mut bytes).unwrap() == Rest::Payload {
            bytes.extend(payload);
        }
        bytes
    }
}

fn messages(events: Vec<ServerEvent>) -> Vec<Vec<u8>> {
    let message = |event| match event {
        ServerEvent::Message(message) => Message::as_ref(&message).to_vec(),
        other => panic!("{other:?}"),
    };
    events.into_iter().map(message).collect()
}

proptest! {
    #[test]
    fn messages_arrive_as_they_were_sent(
        encrypted in any::<bool>(),
        chunk in 1_usize..3000,
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..4),
    ) {
        let mut pair = Pair::new(encrypted, chunk);
        pair.connect();
        let bytes: Vec<u8> = payloads.iter().flat_map(|payload| pair.message(payload)).collect();
        prop_assert_eq!(messages(pair.receive(&bytes).unwrap()), payloads);
        prop_assert_eq!(pair.server.memory(), 0);
    }

    #[test]
    fn a_changed_byte_is_never_taken_for_another_message(index in 9_usize..500, flip in 1_u8..) {
        let mut pair = Pair::new(true, 4096);
        pair.connect();
        let mut bytes = pair.message(&[5; 600]);
        bytes[index] ^= flip;
        prop_assert!(pair.receive(&bytes).is_err());
        // The connection stays closed.
        let next = pair.message(b"next");
        prop_assert_eq!(pair.server.receive(&mut next.as_slice()), Ok(None));
    }

    #[test]
    fn any_bytes_are_taken_or_refused(
        encrypted in any::<bool>(),
        connected in any::<bool>(),
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let mut pair = Pair::new(encrypted, 4096);
        if connected {
            pair.connect();
        }
        let _ = pair.receive(&bytes);
        let mut input = bytes.as_slice();
        while let Ok(Some(_)) = pair.client.receive(&mut input) {}
    }
}

#[test]
fn the_owner_decides_about_a_key() {
    let mut pair = Pair::new(true, 4096);
    let (_, theirs) = keys();
    let (server, public) = (pair.client, theirs.public());
    drop(server);
    let ours = Arc::new(SecretKey::generate());
    pair.client =
        Client::new(Some(ClientSecurity { server: ours.public(), secret: theirs, source: "web".to_owned() }));
    pair.server = Server::new(Some(ours), MAX_MESSAGE);
    // Greetings and HELLO, then WELCOME, then INITIATE.
    assert_eq!(pair.send_to_server(), Ok(vec![]));
    assert_eq!(pair.send_to_client(), Ok(vec![]));
    assert_eq!(pair.send_to_server(), Ok(vec![]));
    assert_eq!(pair.send_to_client(), Ok(vec![]));
    assert_eq!(
        pair.send_to_server(),
        Ok(vec![ServerEvent::Authenticate { key: public, source: Some("web".to_owned()) }])
    );
    pair.server.refuse("400");
    assert!(!pair.server.is_ready());
    assert_eq!(pair.send_to_client(), Err(Error::Refused { reason: "400".to_owned() }));
}

#[test]
fn a_capture_with_the_wrong_collector_key_is_refused() {
    let mut pair = Pair::new(true, 4096);
    let (other, theirs) = keys();
    pair.client = Client::new(Some(ClientSecurity {
        server: other.public(),
        secret: theirs,
        source: "web".to_owned(),
    }));
    pair.send_to_server().unwrap();
    pair.send_to_client().unwrap();
    assert_eq!(pair.send_to_server(), Err(Error::WrongServerKey));
}

#[test]
fn both_sides_need_the_same_mechanism() {
    for encrypted in [true, false] {
        let mut pair = Pair { client: Client::new(None), ..Pair::new(true, 4096) };
        if !encrypted {
            pair = Pair { server: Server::new(None, MAX_MESSAGE), ..Pair::new(true, 4096) };
        }
        assert!(matches!(pair.send_to_server(), Err(Error::Mechanism { .. })), "{encrypted}");
        assert!(matches!(pair.send_to_client(), Err(Error::Mechanism { .. })), "{encrypted}");
    }
}

#[test]
fn a_recorded_message_cannot_be_repeated() {
    let mut pair = Pair::new(true, 4096);
    pair.connect();
    let bytes = pair.message(b"batch");
    assert_eq!(messages(pair.receive(&bytes).unwrap()), [b"batch"]);
    assert_eq!(pair.receive(&bytes), Err(Error::Replay));
}

#[test]
fn messages_of_several_parts_are_refused_at_the_first() {
    let mut pair = Pair::new(false, 4096);
    pair.connect();
    assert_eq!(pair.receive(b"\x01\x00"), Err(Error::Multipart));
}

#[test]
fn a_long_message_is_refused_at_its_length() {
    let mut pair = Pair::new(false, 4096);
    pair.connect();
    let mut bytes = pair.message(&vec![0; MAX_MESSAGE + 1]);
    bytes.truncate(9);
    assert_eq!(
        pair.receive(&bytes),
        Err(Error::TooLong { length: MAX_MESSAGE as u64 + 1, limit: MAX_MESSAGE })
    );
}

#[test]
fn a_ping_is_answered_and_a_flood_of_them_is_not() {
    let mut pair = Pair::new(false, 4096);
    pair.connect();
    // RFC 37: the time to live in tenths of a second, then the context.
    for _ in 0..1000 {
        assert_eq!(pair.receive(b"\x04\x0a\x04PING\0\x0aabc"), Ok(vec![]));
    }
    assert!(pair.server.outgoing().starts_with(b"\x04\x08\x04PONGabc"));
    assert!(pair.server.outgoing().len() < 2000);
    assert_eq!(pair.send_to_client(), Ok(vec![]));
}

#[test]
fn a_capture_accepts_no_messages() {
    for bytes in [b"\x00\x01x".as_slice(), b"\x01\x00", b"\x04\x06\x05HELLO"] {
        let mut pair = Pair::new(false, 4096);
        pair.connect();
        assert!(pair.client.receive(&mut &*bytes).is_err());
    }
}
