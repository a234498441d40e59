//! What a confined program may still do.

use std::path::{Path, PathBuf};

/// What the program needs after it has opened its devices, files and sockets.
#[derive(Clone, Debug, Default)]
pub struct Permissions {
    /// Files that are read later, or again when they change. See [`Permissions::read`].
    pub(crate) read: Vec<PathBuf>,
    /// Directories in which files are created, renamed and removed.
    pub(crate) replace: Vec<PathBuf>,
    /// Directories in which Unix domain sockets are removed.
    pub(crate) sockets: Vec<PathBuf>,
    /// Whether the devices of this host are looked up in sysfs.
    pub(crate) devices: bool,
    /// Connections to other programs.
    pub(crate) network: Network,
}

/// The sockets that the program opens later. What it listens on is open already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// TCP ports that it connects to, on any host.
    pub tcp_ports: Vec<u16>,
    /// Whether it resolves host names.
    pub names: bool,
    /// Whether it connects to Unix domain sockets with a path.
    pub unix: bool,
    /// Whether it connects to Unix domain sockets in the abstract namespace.
    pub abstract_unix: bool,
}

impl Permissions {
    /// What a program needs that only uses what is open.
    #[must_use]
    pub fn new(network: Network) -> Self {
        Self { network, ..Self::default() }
    }

    /// The program reads `path` later, for example when it has changed.
    ///
    /// A rule about a file is lost when another file is renamed to its name. So the rule is about the file's directory,
    /// and about that of its target if it is a symbolic link (the files of a Kubernetes secret are). A directory that
    /// holds other programs' files, such as `/etc`, gets no rule, only the file itself: such a file can be written again,
    /// not replaced. It is best kept in a directory of its own.
    pub fn read(&mut self, path: &Path) {
        self.read.push(path.to_owned());
    }

    /// The program replaces `path` by a file that it writes in the same directory.
    pub fn replace(&mut self, path: &Path) {
        self.replace.extend(directories(path));
    }

    /// The program removes the Unix domain socket `path`.
    pub fn remove_socket(&mut self, path: &Path) {
        self.sockets.extend(directories(path));
    }

    /// The program looks up the devices of this host, and their counters.
    pub fn list_devices(&mut self) {
        self.devices = true;
    }
}

/// The directory of a path, and that of the file it leads to, if it is a symbolic link.
pub(crate) fn directories(path: &Path) -> Vec<PathBuf> {
    let named = parent(path);
    let target = path.canonicalize().ok().and_then(|target| target.parent().map(Path::to_owned));
    let named = named.canonicalize().unwrap_or(named);
    match target {
        Some(target) if target != named => vec![named, target],
        _ => vec![named],
    }
}

/// The directory of a path; the current one for a bare file name.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
