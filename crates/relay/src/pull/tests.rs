//! A collector's end against libzmq, and against peers written by hand.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use zmtp::PublicKey;

use super::*;

const LONG: Duration = Duration::from_secs(10);

/// A directory of its own for each test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pcktr-pull-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Collector {
    directory: Directory,
    connections: Arc<Connections>,
    receiver: Receiver,
    key: PublicKey,
}

/// A collector at a Unix domain socket. `authorized`: the content of `AUTHORIZED_KEYS`.
fn collector(name: &str, authorized: Option<&str>, max_connections: usize) -> Collector {
    let directory = Directory::new(name);
    let secret = SecretKey::generate();
    let key = secret.public();
    let security = authorized.map(|text| {
        let path = directory.0.join("keys");
        fs::write(&path, text).unwrap();
        Security { secret: secret.into(), authorized: AuthorizedKeysFile::open(&path).unwrap() }
    });
    let address = BindAddress::Unix(directory.0.join("socket"));
    let pull = Pull::bind(&[vec![address]], PullConfig { security, max_connections }).unwrap();
    Collector { connections: pull.connections(), receiver: pull.start().unwrap(), directory, key }
}

impl Collector {
    fn socket(&self) -> PathBuf {
        self.directory.0.join("socket")
    }

    fn endpoint(&self) -> String {
        format!("ipc://{}", self.socket().display())
    }

    fn count(&self, reason: &str) -> u64 {
        self.connections.rejections.counts().find(|(label, _)| *label == reason).unwrap().1
    }

    /// Waits until connections were rejected for this reason.
    fn wait_for(&self, reason: &str, count: u64) {
        for _ in 0..1000 {
            if self.count(reason) >= count {
                break;
            }
            let _ = self.receiver.receive(Duration::from_millis(10));
        }
        // libzmq comes again.
        assert!(self.count(reason) >= count, "{reason}");
    }

    fn receive(&self) -> Message {
        self.receiver.receive(LONG).unwrap().unwrap()
    }
}

/// libzmq's PUSH. `keys`: the collector's and its own.
fn push(context: &zmq::Context, endpoint: &str, keys: Option<(&PublicKey, &SecretKey)>) -> zmq::Socket {
    let socket = context.socket(zmq::PUSH).unwrap();
    socket.set_linger(0).unwrap();
    if let Some((server, secret)) = keys {
        socket.set_curve_serverkey(server.as_bytes()).unwrap();
        socket.set_curve_publickey(secret.public().as_bytes()).unwrap();
        socket.set_curve_secretkey(secret.as_bytes()).unwrap();
    }
    socket.connect(endpoint).unwrap();
    socket
}

/// The greeting and READY of a PUSH socket.
const HANDSHAKE: &[u8] = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
    \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
    \x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04PUSH";

/// A peer that speaks for itself, after its handshake.
fn by_hand(path: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(HANDSHAKE).unwrap();
    // Greeting and READY of the other side.
    stream.read_exact(&mut [0; 64 + 28]).unwrap();
    stream
}

/// Waits until the collector has closed the connection.
fn closed(mut stream: UnixStream) {
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

#[test]
fn messages_of_libzmq_arrive_in_order() {
    let (collector, context) = (collector("libzmq", None, 10), zmq::Context::new());
    let socket = push(&context, &collector.endpoint(), None);
    let sizes = [0, 1, 255, 256, 8000, 9000, 300_000, 5_000_000, 300_000, 17];
    for (n, size) in sizes.iter().enumerate() {
        socket.send(vec![n as u8; *size], 0).unwrap();
    }
    for (n, size) in sizes.iter().enumerate() {
        let message = collector.receive();
        assert_eq!(message.as_ref(), vec![n as u8; *size]);
        assert_eq!(message.sender().address(), "local");
        assert!(message.sender().may_use("any name"));
    }
    assert_eq!(collector.connections.current(), 1);
}

#[test]
fn encrypted_messages_of_libzmq_arrive_from_admitted_keys_only() {
    let (admitted, stranger) = (SecretKey::generate(), SecretKey::generate());
    let text = format!("{} web-*", admitted.public());
    let (collector, context) = (collector("curve", Some(&text), 10), zmq::Context::new());
    let refused = push(&context, &collector.endpoint(), Some((&collector.key, &stranger)));
    refused.send("stranger", 0).unwrap();
    collector.wait_for("unknown_key", 1);
    drop(refused);
    let other = SecretKey::generate().public();
    let mistaken = push(&context, &collector.endpoint(), Some((&other, &admitted)));
    collector.wait_for("wrong_collector_key", 1);
    drop(mistaken);
    // libzmq without keys ends the handshake, often before it has sent anything.
    let mut stream = UnixStream::connect(collector.socket()).unwrap();
    stream.write_all(HANDSHAKE).unwrap();
    closed(stream);
    collector.wait_for("mechanism", 1);
    let socket = push(&context, &collector.endpoint(), Some((&collector.key, &admitted)));
    for size in [0, 1, 255, 256, 300_000, 5_000_000] {
        socket.send(vec![7; size], 0).unwrap();
        let message = collector.receive();
        assert_eq!(message.as_ref(), vec![7; size]);
        assert!(message.sender().may_use("web-1"));
        assert!(!message.sender().may_use("db"));
    }
}

#[test]
fn a_removed_key_ends_its_connection_and_an_invalid_list_changes_nothing() {
    let (kept, removed) = (SecretKey::generate(), SecretKey::generate());
    let text = format!("{} a\n{} b\n", kept.public(), removed.public());
    let (collector, context) = (collector("reload", Some(&text), 10), zmq::Context::new());
    let keep = push(&context, &collector.endpoint(), Some((&collector.key, &kept)));
    let remove = push(&context, &collector.endpoint(), Some((&collector.key, &removed)));
    for socket in [&keep, &remove] {
        socket.send("before", 0).unwrap();
        collector.receive();
    }
    let path = collector.directory.0.join("keys");
    fs::write(&path, "nonsense").unwrap();
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(collector.connections.current(), 2);
    // Replaced, as editors and Kubernetes do.
    let new = collector.directory.0.join("new");
    fs::write(&new, format!("{} a c", kept.public())).unwrap();
    fs::rename(new, path).unwrap();
    collector.wait_for("removed_key", 1);
    keep.send("after", 0).unwrap();
    let message = collector.receive();
    assert_eq!(message.as_ref(), b"after");
    assert!(message.sender().may_use("c"));
}

#[test]
fn a_message_of_several_parts_ends_its_connection() {
    let collector = collector("multipart", None, 10);
    let mut hostile = by_hand(&collector.socket());
    hostile.write_all(&[1, 1, 0]).unwrap();
    closed(hostile);
    collector.wait_for("multipart", 1);
}

#[test]
fn a_name_that_is_not_allowed_ends_its_connection() {
    let (collector, context) = (collector("impostor", None, 10), zmq::Context::new());
    let socket = push(&context, &collector.endpoint(), None);
    socket.send("batch", 0).unwrap();
    collector.receive().sender().set_impostor();
    collector.wait_for("unauthorized_name", 1);
}

#[test]
fn unfinished_messages_of_one_peer_do_not_grow_without_limit() {
    let collector = collector("unfinished", None, 100);
    let header = [&[2_u8][..], &(8_u64 << 20).to_be_bytes()].concat();
    let mut hostile: Vec<_> = (0..12).map(|_| by_hand(&collector.socket())).collect();
    for stream in &mut hostile {
        let sent = stream.write_all(&header).and_then(|()| stream.write_all(&vec![0; (8 << 20) - 1]));
        // The collector may close it while it sends.
        drop(sent);
    }
    for _ in 0..1000 {
        if collector.count("memory") >= 3 {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{:?}", collector.connections);
}

#[test]
fn silent_connections_make_room_for_others() {
    let (collector, context) = (collector("silent", None, 4), zmq::Context::new());
    let silent: Vec<_> = (0..20).map(|_| UnixStream::connect(collector.socket()).unwrap()).collect();
    let socket = push(&context, &collector.endpoint(), None);
    socket.send("honest", 0).unwrap();
    let message = collector.receive();
    assert_eq!(message.as_ref(), b"honest");
    message.sender().set_valid();
    for _ in 0..20 {
        drop(UnixStream::connect(collector.socket()).unwrap());
    }
    socket.send("still there", 0).unwrap();
    assert_eq!(collector.receive().as_ref(), b"still there");
    assert!(collector.count("max_connections") >= 17);
    drop(silent);
}

#[test]
fn a_full_queue_slows_the_sender_down_and_loses_nothing() {
    let (collector, context) = (collector("full", None, 10), zmq::Context::new());
    let socket = push(&context, &collector.endpoint(), None);
    socket.set_linger(-1).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || (0..200_u32).for_each(|n| socket.send(vec![n as u8; 200_000], 0).unwrap()));
        thread::sleep(Duration::from_millis(300));
        for n in 0..200_u32 {
            assert_eq!(collector.receive().as_ref(), vec![n as u8; 200_000]);
        }
    });
}

#[test]
fn a_stalled_collector_accepts_no_messages_with_a_handshake() {
    let collector = collector("stalled", None, 100);
    let frame = [[2].as_slice(), &16_384_u64.to_be_bytes(), &[0; 16_384]].concat();
    let bytes = [HANDSHAKE, &frame.repeat(25)].concat();
    // Kept open: what a closed connection sent may be lost.
    let mut hostile = Vec::new();
    for _ in 0..40 {
        let mut stream = UnixStream::connect(collector.socket()).unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let _ = stream.write_all(&bytes);
        hostile.push(stream);
    }
    for _ in 0..1000 {
        if collector.count("protocol") >= 20 {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert!(collector.count("protocol") >= 20, "{:?}", collector.connections);
    let bytes = collector.receiver.shared.queue.bytes();
    assert!((queue::CAPACITY..queue::CAPACITY + 100_000).contains(&bytes), "{bytes}");
}

#[test]
fn a_group_needs_one_available_address() {
    let directory = Directory::new("group");
    let config = || PullConfig { security: None, max_connections: 1 };
    let path = |name: &str| BindAddress::Unix(directory.0.join(name));
    let pull = Pull::bind(&[vec![path("a"), path("missing/b")]], config()).unwrap();
    assert_eq!(pull.endpoints(), [path("a")]);
    let error = Pull::bind(&[vec![path("missing/b")]], config()).unwrap_err();
    assert!(matches!(error, PullError::Bind { .. }), "{error}");
    let error = Pull::bind(&[vec![path("c"), path("a")]], config()).unwrap_err();
    assert!(matches!(error, PullError::InUse { .. }), "{error}");
}
