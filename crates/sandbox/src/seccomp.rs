//! seccomp: seccomp(2). The filters bind all threads.

mod syscalls;

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter_all_threads,
};
use tracing::debug;

use crate::Network;
use syscalls::Rules;

/// Applies the filters. Returns whether they are in force.
pub(crate) fn apply(network: &Network) -> bool {
    let applied = filters(network).map_err(seccompiler::Error::from).and_then(|filters| {
        // The filter that only knows what is forbidden comes first: the other does not allow a further one.
        filters.iter().try_for_each(|filter| apply_filter_all_threads(filter))
    });
    match applied {
        Ok(()) => true,
        Err(error) => {
            debug!(%error, "seccomp is not available");
            false
        }
    }
}

/// Two filters, because a filter of the compiler has one action for what it lists. The kernel remembers which system calls
/// all filters allow whatever their arguments (since Linux 5.11), and does not run the filters for them.
pub(crate) fn filters(network: &Network) -> Result<[BpfProgram; 2], BackendError> {
    let forbidden = compile(syscalls::forbidden(), SeccompAction::Allow, SeccompAction::KillProcess)?;
    // As on a kernel without the system call: libraries then use an older one, or do without.
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    let allowed = compile(syscalls::allowed(network)?, missing, SeccompAction::Allow)?;
    Ok([forbidden, allowed])
}

/// A filter with the action `listed` for what matches a rule, and `other` for everything else. It kills the process that
/// makes a system call of another architecture.
fn compile(rules: Rules, other: SeccompAction, listed: SeccompAction) -> Result<BpfProgram, BackendError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let rules: BTreeMap<_, _> = rules.into_iter().collect();
    SeccompFilter::new(rules, other, listed, architecture)?.try_into()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    use seccompiler::apply_filter;

    use super::*;

    /// Runs `inside` on a thread that the filters restrict.
    fn restricted(network: Network, inside: impl FnOnce() + Send + 'static) {
        thread::spawn(move || {
            for filter in filters(&network).unwrap() {
                apply_filter(&filter).unwrap();
            }
            inside();
        })
        .join()
        .unwrap();
    }

    fn open(family: AddressFamily, kind: SockType) -> Result<(), nix::errno::Errno> {
        socket(family, kind, SockFlag::SOCK_CLOEXEC, None).map(|_| ())
    }

    #[test]
    fn threads_can_be_started_and_programs_cannot() {
        restricted(Network::default(), || {
            thread::Builder::new().spawn(|| assert_eq!(2 + 2, 4)).unwrap().join().unwrap();
            let error = Command::new("/bin/true").spawn().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOSYS), "{error}");
        });
    }

    #[test]
    fn sockets_are_those_that_are_needed() {
        let missing = Err(nix::errno::Errno::ENOSYS);
        restricted(Network::default(), move || {
            assert_eq!(open(AddressFamily::Inet, SockType::Stream), missing);
            assert_eq!(open(AddressFamily::Unix, SockType::Stream), missing);
        });
        restricted(Network { tcp_ports: vec![1], ..Network::default() }, move || {
            assert_eq!(open(AddressFamily::Inet, SockType::Stream), Ok(()));
            assert_eq!(open(AddressFamily::Inet, SockType::Datagram), missing);
            assert_eq!(open(AddressFamily::Unix, SockType::Stream), missing);
        });
        restricted(Network { names: true, ..Network::default() }, move || {
            assert_eq!(open(AddressFamily::Inet, SockType::Datagram), Ok(()));
            assert_eq!(open(AddressFamily::Unix, SockType::Stream), Ok(()));
            for (family, kind) in [
                (AddressFamily::Inet, SockType::Raw),
                (AddressFamily::Packet, SockType::Raw),
                (AddressFamily::Alg, SockType::SeqPacket),
                (AddressFamily::Vsock, SockType::Stream),
            ] {
                assert_eq!(open(family, kind), missing, "{family:?}");
            }
        });
    }
}
