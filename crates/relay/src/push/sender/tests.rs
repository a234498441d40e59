use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use batch::DecodedBatch;
use zmtp::SecretKey;

use super::super::state::tests::{batch, batch_of, state};
use super::*;
use crate::{AuthorizedKeysFile, BindAddress, Message, Pull, PullConfig, Receiver, Security};

const HOUR: Duration = Duration::from_secs(3600);

/// The path of a socket, of its own for each test.
fn path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("pcktr-push-{}-{name}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

fn collector(path: &Path) -> Receiver {
    let address = BindAddress::Unix(path.to_owned());
    Pull::bind(&[vec![address]], PullConfig { security: None, max_connections: 10 }).unwrap().start().unwrap()
}

/// A sender that has a target.
fn sender(state: &Arc<RelayState>, path: &Path) -> Sender {
    state.set_target(Target::Unix(path.to_owned()));
    Sender::new(None, Arc::clone(state), Compression::None)
}

/// Steps until `done`.
fn step_until(sender: &mut Sender, done: impl Fn(&RelayState) -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !done(&sender.state) {
        assert!(Instant::now() < until, "{:?}", sender.state.status());
        assert!(sender.step());
    }
}

/// What the receiver reads from the next batch: device, sequence number, packets sent before, packets dropped before.
fn received(receiver: &Receiver) -> (String, u64, u64, u64) {
    let message = receiver.receive(Duration::from_secs(10)).unwrap().unwrap();
    described(message)
}

fn described(message: Message) -> (String, u64, u64, u64) {
    let batch = DecodedBatch::decode(message).unwrap();
    let header = batch.header();
    let interface = Interface::decode(batch.fields(), header.link_type, header.snaplen).unwrap();
    let device = interface.origin.device.to_string();
    (device, header.sequence, header.sent_before, header.dropped.relay)
}

#[test]
fn batches_are_numbered_per_origin_in_the_order_of_the_queue() {
    let (state, path) = (state(), path("numbered"));
    let receiver = collector(&path);
    let mut sender = sender(&state, &path);
    for (device, packets) in [("a", 5), ("b", 3), ("a", 7), ("a", 1)] {
        state.send(batch(device, packets, false));
    }
    step_until(&mut sender, |state| state.status().sent_batches == 4);
    let got: Vec<_> = (0..4).map(|_| received(&receiver)).collect();
    let expected = [("a", 0, 0, 0), ("b", 0, 0, 0), ("a", 1, 5, 0), ("a", 2, 12, 0)];
    assert_eq!(got, expected.map(|(device, n, before, dropped)| (device.to_owned(), n, before, dropped)));
    let status = state.status();
    assert_eq!((status.connected, status.sent_packets, status.queued_packets), (true, 16, 0));
    assert!(status.sent_bytes > 16 * 84);
    assert!(state.take_buffer().capacity() > 0);
}

#[test]
fn another_run_of_an_origin_is_numbered_from_0() {
    let (state, path) = (state(), path("runs"));
    let receiver = collector(&path);
    let mut sender = sender(&state, &path);
    let run = |secs| packet::Timestamp::from_parts(secs, 0);
    let mut numbers = Vec::new();
    // The second run has an end, the first one has lost it.
    for (epoch, ends) in [(1, false), (1, false), (2, false), (2, true), (3, false)] {
        state.send(batch_of(run(epoch), "a", 5, ends));
        step_until(&mut sender, |state| state.status().queued_packets == 0);
        let (_, sequence, sent_before, _) = received(&receiver);
        numbers.push((sequence, sent_before));
        // Origins that have ended are forgotten.
        assert_eq!(sender.sent.len(), usize::from(!ends));
    }
    assert_eq!(numbers, [(0, 0), (1, 5), (0, 0), (1, 5), (0, 0)]);
}

#[test]
fn batches_wait_for_a_collector() {
    let (state, path) = (state(), path("waiting"));
    let mut sender = sender(&state, &path);
    state.send(batch("a", 5, false));
    for _ in 0..3 {
        assert!(sender.step());
    }
    assert_eq!((state.status().connected, state.status().queued_packets), (false, 5));
    let receiver = collector(&path);
    step_until(&mut sender, |state| state.status().sent_batches == 1);
    assert_eq!(received(&receiver), ("a".to_owned(), 0, 0, 0));
}

/// Completes the handshake of a PULL socket, by hand.
fn accept(listener: &UnixListener) -> UnixStream {
    let (mut stream, _) = listener.accept().unwrap();
    let mut server = zmtp::Server::new(None, 1 << 20);
    while !server.is_ready() {
        let mut buf = [0; 1000];
        let count = stream.read(&mut buf).unwrap();
        assert!(count > 0);
        server.receive(&mut &buf[..count]).unwrap();
        stream.write_all(server.outgoing()).unwrap();
        server.outgoing().clear();
    }
    stream
}

#[test]
fn a_batch_that_was_being_sent_is_sent_again_over_the_next_connection() {
    let (state, path) = (state(), path("again"));
    let listener = UnixListener::bind(&path).unwrap();
    let mut sender = sender(&state, &path);
    // More than the kernel takes from a sender whose peer does not read.
    let large = || {
        let mut large = batch("a", 5, false).into_message(&SendInfo::default());
        large.resize(4 << 20, 0);
        large
    };
    state.send(batch("a", 5, false));
    let (connected, accepted) = thread::scope(|scope| {
        let accepted = scope.spawn(|| accept(&listener));
        step_until(&mut sender, |state| state.status().sent_batches == 1);
        (state.status().connected, accepted.join().unwrap())
    });
    assert!(connected);
    state.send(batch("a", 7, false));
    sender.unsent = sender.take_batch().map(|outgoing| Outgoing { message: large(), ..outgoing });
    assert!(sender.step());
    assert_eq!((state.status().sent_batches, state.status().queued_packets), (1, 7));
    drop(accepted);
    let received = thread::scope(|scope| {
        let read = scope.spawn(|| {
            let mut stream = accept(&listener);
            let mut all = vec![0; 9 + (4 << 20)];
            stream.read_exact(&mut all).unwrap();
            all
        });
        step_until(&mut sender, |state| state.status().sent_batches == 2);
        read.join().unwrap()
    });
    assert_eq!(received[9..], large());
    assert_eq!((state.status().connections, state.status().queued_packets), (2, 0));
}

#[test]
fn what_is_abandoned_is_counted_wherever_it_waits() {
    let (state, path) = (state(), path("abandoned"));
    let mut sender = sender(&state, &path);
    for packets in [2, 4, 8] {
        state.send(batch("a", packets, false));
    }
    sender.unsent = sender.take_batch();
    // The first is with the sender, the others are in the queue.
    state.drain(Duration::ZERO);
    sender.run();
    assert_eq!(state.undelivered(), 14);
    let status = state.status();
    assert_eq!((status.sent_packets, status.dropped_packets, status.queued_packets), (0, 14, 0));
}

#[test]
fn a_closed_queue_is_sent_to_its_end() {
    let (state, path) = (state(), path("end"));
    let receiver = collector(&path);
    let sender = sender(&state, &path);
    state.send(batch("a", 1, false));
    state.send(batch("a", 0, true));
    thread::scope(|scope| {
        scope.spawn(move || sender.run());
        scope.spawn(|| state.drain(HOUR));
    });
    assert_eq!((state.undelivered(), state.status().sent_batches), (0, 2));
    assert_eq!(received(&receiver), ("a".to_owned(), 0, 0, 0));
    assert_eq!(received(&receiver), ("a".to_owned(), 1, 1, 0));
}

#[test]
fn messages_arrive_at_libzmq() {
    let (state, path, context) = (state(), path("libzmq"), zmq::Context::new());
    let pull = context.socket(zmq::PULL).unwrap();
    let (secret, own) = (SecretKey::generate(), SecretKey::generate());
    pull.set_curve_server(true).unwrap();
    pull.set_curve_secretkey(secret.as_bytes()).unwrap();
    pull.bind(&format!("ipc://{}", path.display())).unwrap();
    state.set_target(Target::Unix(path.clone()));
    let keys = PushKeys { collector: secret.public(), secret: own, source: "s".to_owned() };
    let mut sender = Sender::new(Some(keys), Arc::clone(&state), Compression::None);
    for packets in 1..4 {
        state.send(batch("a", packets, false));
    }
    step_until(&mut sender, |state| state.status().sent_batches == 3);
    for packets in 1..4 {
        let batch = DecodedBatch::decode(pull.recv_bytes(0).unwrap()).unwrap();
        assert_eq!(batch.header().packets, packets);
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn a_collector_that_refuses_the_key_gets_nothing_until_it_admits_it() {
    let (state, path) = (state(), path("refused"));
    let (secret, own) = (SecretKey::generate(), SecretKey::generate());
    let list = path.with_extension("keys");
    fs::write(&list, format!("{} s", SecretKey::generate().public())).unwrap();
    let security =
        Security { secret: Arc::new(secret.clone()), authorized: AuthorizedKeysFile::open(&list).unwrap() };
    let config = PullConfig { security: Some(security), max_connections: 10 };
    let pull = Pull::bind(&[vec![BindAddress::Unix(path.clone())]], config).unwrap();
    let connections = pull.connections();
    let receiver = pull.start().unwrap();
    state.set_target(Target::Unix(path.clone()));
    let public = own.public();
    let keys = PushKeys { collector: secret.public(), secret: own, source: "s".to_owned() };
    let mut sender = Sender::new(Some(keys), Arc::clone(&state), Compression::None);
    state.send(batch("a", 5, false));
    let count = |reason| connections.rejections.counts().find(|(label, _)| *label == reason).unwrap().1;
    step_until(&mut sender, |_| count("unknown_key") == 1);
    fs::write(&list, format!("{public} other")).unwrap();
    step_until(&mut sender, |_| count("unauthorized_name") == 1);
    assert_eq!((state.status().connected, state.status().queued_packets), (false, 5));
    fs::write(&list, format!("{public} other s")).unwrap();
    step_until(&mut sender, |state| state.status().sent_batches == 1);
    assert_eq!(received(&receiver), ("a".to_owned(), 0, 0, 0));
    fs::remove_file(list).unwrap();
}
