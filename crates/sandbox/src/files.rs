//! The files and directories that a confined program may open: those of its settings, and those that the C library and
//! the metrics of the process read on their own.

use std::path::{Path, PathBuf};

use crate::Permissions;

/// Directories that hold the files of many programs, among them secrets such as `/etc/shadow`. A setting that names a
/// file to read in one of them gets that file only, and one that names a socket does not get the right to remove it.
/// `METRICS_FILE` gets the whole directory even there, because a new file must be created: the program warns about it.
const SHARED: [&str; 15] = [
    "/", "/dev", "/dev/shm", "/etc", "/home", "/opt", "/root", "/run", "/srv", "/tmp", "/usr", "/var",
    "/var/lib", "/var/log", "/var/tmp",
];

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
    /// Where files are created, written, renamed and removed. landlock has no rule about a directory without those below.
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
        let replace = permissions.replace.iter().flat_map(|path| directories(path)).collect();
        let sockets = permissions.sockets.iter().flat_map(|path| own_directories(path)).collect();
        Self { read, replace, sockets }
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
    let mut rules = vec![path.to_owned()];
    rules.extend(own_directories(path));
    rules
}

/// The directories of a path that are not shared.
fn own_directories(path: &Path) -> impl Iterator<Item = PathBuf> {
    directories(path).into_iter().filter(|directory| !is_shared(directory))
}

fn is_shared(directory: &Path) -> bool {
    SHARED.iter().any(|shared| directory == Path::new(shared))
}

/// The directory of `path`, or of its target, if it holds the files of other programs or is a home directory. A program
/// that may replace `path` in the sandbox may replace all files there and in the directories below.
#[must_use]
pub fn shared_directory(path: &Path) -> Option<PathBuf> {
    let is_home = |directory: &Path| directory.parent() == Some(Path::new("/home"));
    directories(path).into_iter().find(|directory| is_shared(directory) || is_home(directory))
}

/// The directory of a path, and that of the file it leads to, if it is a symbolic link.
fn directories(path: &Path) -> Vec<PathBuf> {
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
