//! What a confined program may still do.

use std::path::{Path, PathBuf};

/// What the program needs after it has opened its devices, files and sockets.
#[derive(Clone, Debug, Default)]
pub struct Permissions {
    /// Files that are read later, or again when they change. See [`Permissions::read`].
    pub(crate) read: Vec<PathBuf>,
    /// Files that are replaced. See [`Permissions::replace`].
    pub(crate) replace: Vec<PathBuf>,
    /// Unix domain sockets that are removed. See [`Permissions::remove_socket`].
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
    ///
    /// landlock's rules about a directory also hold for those below it. So the program may replace every file there that
    /// its user may replace: see [`shared_directory`](crate::shared_directory).
    pub fn replace(&mut self, path: &Path) {
        self.replace.push(path.to_owned());
    }

    /// The program removes the Unix domain socket `path`. In a directory that holds other programs' files it does not get
    /// the right to, because it could remove those files, too: the socket then stays until it is bound again.
    pub fn remove_socket(&mut self, path: &Path) {
        self.sockets.push(path.to_owned());
    }

    /// The program looks up the devices of this host, and their counters.
    pub fn list_devices(&mut self) {
        self.devices = true;
    }
}
