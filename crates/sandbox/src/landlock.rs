//! landlock: landlock(7). The rules bind the calling thread and all that it starts later.

use std::path::Path;

use ::landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};
use tracing::debug;

use crate::files::FileRules;
use crate::{Mechanism, Mechanisms, Permissions};

/// The version of the interface whose restrictions are applied as far as the kernel has them. Those of later ones are
/// not tested.
const VERSION: ABI = ABI::V6;

/// Since this version, rules about TCP exist.
const TCP_VERSION: ABI = ABI::V4;

/// The port of name servers, which are asked over TCP if an answer does not fit into a datagram: RFC 7766.
const DNS_PORT: u16 = 53;

/// Where the process reads its own figures; those of the kernel that tell how to read them.
const PROCESS: [&str; 3] = ["/proc/self", "/proc/stat", "/proc/sys/kernel/osrelease"];

/// Restricts files, TCP, signals and abstract sockets, and notes what is active.
pub(crate) fn restrict(permissions: &Permissions, is_superuser: bool, active: &mut Mechanisms) {
    let status = match enforce(permissions, is_superuser) {
        Ok(status) => status,
        Err(error) => {
            // For example a filter of the container that does not know landlock's system calls.
            debug!(%error, "landlock is not available");
            return;
        }
    };
    if let Some(version) = status {
        active.set(Mechanism::LandlockFiles, true);
        active.set(Mechanism::LandlockTcp, version >= TCP_VERSION);
        active.set(Mechanism::LandlockScope, version >= VERSION);
    }
}

/// Returns the version of the interface that is in force; none without landlock.
fn enforce(permissions: &Permissions, is_superuser: bool) -> Result<Option<ABI>, RulesetError> {
    let network = &permissions.network;
    let mut scopes = BitFlags::from(Scope::Signal);
    if !network.abstract_unix {
        scopes |= Scope::AbstractUnixSocket;
    }
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(VERSION))?
        .handle_access(AccessNet::from_all(VERSION))?
        .scope(scopes)?
        .create()?;
    ruleset = add_files(ruleset, &FileRules::new(permissions, is_superuser))?;
    for port in &network.tcp_ports {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    if network.names {
        ruleset = ruleset.add_rule(NetPort::new(DNS_PORT, AccessNet::ConnectTcp))?;
    }
    let status = ruleset.restrict_self()?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => None,
        (_, LandlockStatus::Available { effective_abi, .. }) => Some(effective_abi),
        (_, LandlockStatus::NotEnabled | LandlockStatus::NotImplemented) => None,
    })
}

fn add_files(mut ruleset: RulesetCreated, rules: &FileRules) -> Result<RulesetCreated, RulesetError> {
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let replace = make_bitflags!(AccessFs::{MakeReg | ReadFile | RemoveFile | Truncate | WriteFile});
    let sockets = AccessFs::RemoveFile.into();
    for (paths, access) in [(&rules.read, read), (&rules.replace, replace), (&rules.sockets, sockets)] {
        for path in paths {
            ruleset = add_file(ruleset, path, access)?;
        }
    }
    for path in PROCESS {
        let Ok(file) = PathFd::new(path) else { continue };
        let access = if Path::new(path).is_dir() { read } else { read & AccessFs::from_file(VERSION) };
        ruleset = ruleset.add_rule(PathBeneath::new(&file, access))?;
        // procfs makes a new inode, without the rule, once the old one has left the kernel's cache. So it is kept open.
        std::mem::forget(file);
    }
    Ok(ruleset)
}

/// Adds a rule about a file or a directory; none if it does not exist.
fn add_file(
    ruleset: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let Ok(file) = PathFd::new(path) else { return Ok(ruleset) };
    // The kernel refuses rights of directories for other files.
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(VERSION) };
    ruleset.add_rule(PathBeneath::new(file, access))
}
