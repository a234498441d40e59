//! seccomp: seccomp(2). The filters bind all threads.

mod syscalls;

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter_all_threads,
};
use tracing::debug;

use crate::Network;
use syscalls::Rules;

/// Applies the filters. Returns whether they are in force. A superuser gets fewer sockets: see `sockets` in `syscalls`.
pub(crate) fn apply(network: &Network, is_superuser: bool) -> bool {
    let applied = filters(network, is_superuser).map_err(seccompiler::Error::from).and_then(|filters| {
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
pub(crate) fn filters(network: &Network, is_superuser: bool) -> Result<[BpfProgram; 2], BackendError> {
    let forbidden = compile(syscalls::forbidden(), SeccompAction::Allow, SeccompAction::KillProcess)?;
    // As on a kernel without the system call: libraries then use an older one, or do without.
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    let allowed = compile(syscalls::allowed(network, is_superuser)?, missing, SeccompAction::Allow)?;
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
    use std::fs::{File, Permissions};
    use std::io::Write;
    use std::net::{SocketAddrV4, TcpListener, UdpSocket};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;
    use std::thread;

    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, sendto, socket};
    use rustix::fs::Mode;
    use rustix::thread::CpuSet;
    use seccompiler::apply_filter;

    use super::*;

    const USER: bool = false;
    const SUPERUSER: bool = true;

    /// Runs `inside` on a thread that the filters restrict.
    fn restricted(network: Network, is_superuser: bool, inside: impl FnOnce() + Send + 'static) {
        thread::spawn(move || {
            for filter in filters(&network, is_superuser).unwrap() {
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
        restricted(Network::default(), USER, || {
            thread::Builder::new().spawn(|| assert_eq!(2 + 2, 4)).unwrap().join().unwrap();
            let error = Command::new("/bin/true").spawn().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOSYS), "{error}");
        });
    }

    #[test]
    fn sockets_are_those_that_are_needed() {
        let missing = Err(nix::errno::Errno::ENOSYS);
        restricted(Network::default(), USER, move || {
            assert_eq!(open(AddressFamily::Inet, SockType::Stream), missing);
            assert_eq!(open(AddressFamily::Unix, SockType::Stream), missing);
        });
        restricted(Network { tcp_ports: vec![1], ..Network::default() }, USER, move || {
            assert_eq!(open(AddressFamily::Inet, SockType::Stream), Ok(()));
            assert_eq!(open(AddressFamily::Inet, SockType::Datagram), missing);
            assert_eq!(open(AddressFamily::Unix, SockType::Stream), missing);
        });
        restricted(Network { names: true, ..Network::default() }, USER, move || {
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

    #[test]
    fn a_superuser_resolves_names_without_unix_sockets() {
        let missing = Err(nix::errno::Errno::ENOSYS);
        restricted(Network { names: true, ..Network::default() }, SUPERUSER, move || {
            assert_eq!(open(AddressFamily::Inet, SockType::Datagram), Ok(()));
            assert_eq!(open(AddressFamily::Unix, SockType::Stream), missing);
        });
        restricted(Network { unix: true, ..Network::default() }, SUPERUSER, move || {
            assert_eq!(open(AddressFamily::Unix, SockType::Stream), Ok(()));
        });
    }

    #[test]
    fn files_get_one_mode_and_are_not_emptied() {
        let path = std::env::temp_dir().join(format!("pcktr-seccomp-{}", std::process::id()));
        let mut file = File::create_new(&path).unwrap();
        file.write_all(b"text").unwrap();
        let inside = path.clone();
        restricted(Network::default(), USER, move || {
            file.set_permissions(Permissions::from_mode(0o644)).unwrap();
            let missing = Some(libc::ENOSYS);
            let setuid = file.set_permissions(Permissions::from_mode(0o4644)).unwrap_err();
            assert_eq!(setuid.raw_os_error(), missing, "{setuid}");
            let by_path = rustix::fs::chmod(&inside, Mode::from_raw_mode(0o644)).unwrap_err();
            assert_eq!(Some(by_path.raw_os_error()), missing, "{by_path}");
            let emptied = File::create(&inside).unwrap_err();
            assert_eq!(emptied.raw_os_error(), missing, "{emptied}");
        });
        assert_eq!(std::fs::read(&path).unwrap(), b"text");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o644);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn sending_does_not_connect() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
        restricted(Network { tcp_ports: vec![1], ..Network::default() }, USER, move || {
            let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
            let fast_open = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN);
            let sent = sendto(socket.as_raw_fd(), b"x", &SockaddrIn::from(address), fast_open);
            assert_eq!(sent, Err(nix::errno::Errno::ENOSYS));
        });
    }

    #[test]
    fn sockets_are_not_bound_and_other_processes_not_scheduled() {
        let missing = Some(libc::ENOSYS);
        let any = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0);
        restricted(Network { names: true, ..Network::default() }, USER, move || {
            let bound = UdpSocket::bind(any).unwrap_err();
            assert_eq!(bound.raw_os_error(), missing, "{bound}");
            let parent = rustix::process::getppid();
            let scheduled = rustix::thread::sched_setaffinity(parent, &CpuSet::new()).unwrap_err();
            assert_eq!(Some(scheduled.raw_os_error()), missing, "{scheduled}");
        });
    }
}
