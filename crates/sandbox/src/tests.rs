//! The mechanisms, each on a thread of its own: what is applied to a thread stays with it.

use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;

use crate::files::FileRules;
use crate::{Mechanism, Mechanisms, Network, Permissions, landlock, shared_directory};

/// A temporary directory, removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pcktr-sandbox-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Runs `inside` on a thread that landlock restricts. Not at all on a kernel without landlock.
fn restricted(permissions: Permissions, inside: impl FnOnce() + Send + 'static) {
    thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        let mut active = Mechanisms::none();
        landlock::restrict(&permissions, rustix::process::geteuid().is_root(), &mut active);
        if active.is_active(Mechanism::LandlockFiles) {
            inside();
        }
    })
    .join()
    .unwrap();
}

fn is_denied(path: &Path) -> bool {
    fs::File::open(path).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

#[test]
fn only_files_that_are_named_can_be_opened() {
    let directory = Directory::new("named");
    let other = directory.file("other/secret", "x");
    let watched = directory.file("config/web.yml", "old");
    let metrics = directory.file("out/x.prom", "old");
    let mut permissions = Permissions::new(Network::default());
    permissions.read(&watched);
    permissions.replace(&metrics);
    restricted(permissions, move || {
        assert!(is_denied(&other) && is_denied(Path::new("/etc/passwd")));
        assert!(fs::write(&watched, "changed").is_err());
        assert_eq!(fs::read_to_string(&watched).unwrap(), "old");
        assert!(fs::read_to_string("/proc/self/stat").unwrap().contains("sandbox"));
        let new = metrics.with_extension("new");
        fs::write(&new, "new").unwrap();
        fs::rename(&new, &metrics).unwrap();
        assert_eq!(fs::read_to_string(&metrics).unwrap(), "new");
    });
}

#[test]
fn a_file_that_is_replaced_can_be_read_again() {
    let directory = Directory::new("replaced");
    let path = directory.file("config/web.yml", "old");
    let mut permissions = Permissions::new(Network::default());
    permissions.read(&path);
    let (send, replaced) = std::sync::mpsc::channel();
    let (ready, wait) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let inside = path.clone();
        scope.spawn(move || {
            restricted(permissions, move || {
                ready.send(()).unwrap();
                replaced.recv().unwrap();
                assert_eq!(fs::read_to_string(inside).unwrap(), "new");
            });
        });
        // Fails without landlock: then there is nothing to test.
        if wait.recv().is_ok() {
            fs::rename(directory.file("new", "new"), &path).unwrap();
            send.send(()).unwrap();
        }
    });
}

#[test]
fn files_in_shared_directories_are_named_singly() {
    let mut permissions = Permissions::new(Network { names: true, ..Network::default() });
    permissions.read(Path::new("/etc/hostname"));
    let has = |rules: &FileRules, path: &str| rules.read.iter().any(|rule| rule == Path::new(path));
    let root = FileRules::new(&permissions, true);
    assert!(has(&root, "/etc/hostname") && has(&root, "/etc/hosts") && !has(&root, "/etc"));
    assert!(!root.read.iter().any(|rule| Path::new("/etc/shadow").starts_with(rule)));
    let user = FileRules::new(&permissions, false);
    assert!(has(&user, "/etc"));
}

#[test]
fn sockets_in_shared_directories_stay() {
    let directory = Directory::new("sockets");
    let mut permissions = Permissions::new(Network::default());
    permissions.remove_socket(Path::new("/tmp/relay"));
    permissions.remove_socket(&directory.0.join("relay"));
    assert_eq!(FileRules::new(&permissions, true).sockets, [directory.0.canonicalize().unwrap()]);
}

#[test]
fn shared_directories_are_found() {
    let directory = Directory::new("shared");
    for (path, expected) in [
        ("/tmp/x.prom", Some("/tmp")),
        ("/root/x.prom", Some("/root")),
        ("/home/no-such-user/x.prom", Some("/home/no-such-user")),
        ("/home/no-such-user/metrics/x.prom", None),
        ("/var/lib/node_exporter/textfile/x.prom", None),
    ] {
        assert_eq!(shared_directory(Path::new(path)).as_deref(), expected.map(Path::new), "{path}");
    }
    // A link leads to a file that is replaced, too.
    let link = directory.0.join("x.prom");
    std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
    assert_eq!(shared_directory(&link).as_deref(), Some(Path::new("/etc")));
}

#[test]
fn only_ports_that_are_named_can_be_connected_to() {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [allowed, denied] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
    let network = Network { tcp_ports: vec![allowed.port()], ..Network::default() };
    restricted(Permissions::new(network), move || {
        TcpStream::connect(allowed).unwrap();
        // Linux before 6.7 has no rules about TCP.
        let result = TcpStream::connect(denied);
        assert!(result.is_ok() || result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied));
        TcpListener::bind("127.0.0.1:0").map(|_| ()).unwrap_or_else(|error| {
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        });
    });
}

#[test]
fn mechanisms_are_exposed() {
    let mut active = Mechanisms::none();
    active.set(Mechanism::Seccomp, true);
    let registry = prometheus::Registry::new();
    registry.register(active.collector().unwrap()).unwrap();
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    assert!(text.contains("\npacketeur_sandbox_mechanism_active{mechanism=\"seccomp\"} 1\n"), "{text}");
    assert!(text.contains("\npacketeur_sandbox_mechanism_active{mechanism=\"landlock_tcp\"} 0\n"), "{text}");
}
