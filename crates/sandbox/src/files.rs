//! The files and directories that a confined program may open: those of its settings, and those that the C library and
//! the metrics of the process read on their own.

use std::path::{Path, PathBuf};

use crate::permissions::{Permissions, directories};

/// Directories that hold the files of many programs, among them secrets such as `/etc/shadow`. A setting that names a
/// file in one of them gets that file only.
const SHARED: [&str; 8] = ["/", "/etc", "/home", "/root", "/run", "/tmp", "/usr", "/var"];

/// Shared libraries. The C library loads modules late: for name resolution (nsswitch.conf(5)), and at the end of a thread.
const LIBRARIES: [&str; 5] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"];

/// What the C library reads on its own: the names of protocols and ports, which libpcap looks up when it compiles a
/// filter, and the modules that know them; the number of processors; random numbers, where the kernel lacks getrandom(2).
const C_LIBRARY: [&str; 8] = [
    "/etc/ethers",
    "/etc/ld.so.cache",
    "/etc/networks",
    "/etc/nsswitch.conf",
    "/etc/protocols",
    "/etc/services",
    "/sys/devices/system/cpu",
    "/dev/urandom",
];

/// What the C library and its modules read to resolve a host name: resolver(3), gai.conf(5).
const RESOLVER: [&str; 4] = ["/etc/gai.conf", "/etc/host.conf", "/etc/hosts", "/etc/resolv.conf"];

/// Where the devices of this host and their counters are. The entries of the first are links into the second.
const DEVICES: [&str; 2] = ["/sys/class/net", "/sys/devices"];

/// The rules about files, by what they allow. A path is that of a file or of a directory with all that is below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileRules {
    /// To be read.
    pub(crate) read: Vec<PathBuf>,
    /// Where files are created, written, renamed and removed.
    pub(crate) replace: Vec<PathBuf>,
    /// Where Unix domain sockets are removed.
    pub(crate) sockets: Vec<PathBuf>,
}

impl FileRules {
    /// The rules for `permissions`. A superuser is told apart because file modes do not keep it from reading `/etc/shadow`.
    pub(crate) fn new(permissions: &Permissions, is_superuser: bool) -> Self {
        let mut read: Vec<PathBuf> = LIBRARIES.iter().chain(&C_LIBRARY).map(PathBuf::from).collect();
        // For the symbols of a backtrace.
        read.extend(std::env::current_exe());
        if permissions.devices {
            read.extend(DEVICES.map(PathBuf::from));
        }
        if permissions.network.names {
            read.extend(resolver(is_superuser));
        }
        read.extend(permissions.read.iter().flat_map(|path| watched(path)));
        Self { read, replace: permissions.replace.clone(), sockets: permissions.sockets.clone() }
    }
}

/// The rules for name resolution.
///
/// Tools that configure networks replace `/etc/resolv.conf` by another file, and a rule about the file would be lost.
/// So a program of an unprivileged user may read all of `/etc` that its user may read. A superuser owns `/etc/shadow`:
/// it may read single files, and after such a replacement no longer resolves names, unless the file is a link to
/// another directory, as that of systemd-resolved is.
fn resolver(is_superuser: bool) -> Vec<PathBuf> {
    if !is_superuser {
        return vec!["/etc".into(), "/run/systemd/resolve".into()];
    }
    RESOLVER.iter().flat_map(|path| watched(Path::new(path))).collect()
}

/// The rules for reading a file again after it was replaced: see [`Permissions::read`].
fn watched(path: &Path) -> Vec<PathBuf> {
    let shared = |directory: &PathBuf| SHARED.iter().any(|shared| directory == Path::new(shared));
    let mut rules = vec![path.to_owned()];
    rules.extend(directories(path).into_iter().filter(|directory| !shared(directory)));
    rules
}
