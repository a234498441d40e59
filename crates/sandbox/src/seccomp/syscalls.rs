//! The system calls of the program, as measured with strace(1) over the end-to-end tests in all modes, and those that
//! other versions of the C library use in their place.
//!
//! landlock controls the paths of those that open, rename and remove files. Calls that change a file through a path
//! without it (chmod, chown, setxattr, utimensat, truncate) are missing here on purpose.

use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::{BackendError, SeccompCmpOp, SeccompCondition, SeccompRule};

use crate::Network;

/// Conditions by system call; without conditions the call always matches.
pub(crate) type Rules = Vec<(i64, Vec<SeccompRule>)>;

/// Allowed whatever the arguments.
const ALLOWED: &[i64] = &[
    // Reading, writing and waiting.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    // Files. landlock decides which are renamed and removed. Their attributes can be read without it.
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_statfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    // Sockets that are open.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads, locks and signals.
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_getcpu,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Clocks.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    // The process and the host.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_getrandom,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_umask,
];

/// System calls that only older architectures have, and that their C library uses.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLDER: &[i64] = &[
    libc::SYS_access,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(target_arch = "aarch64")]
const ALLOWED_OLDER: &[i64] = &[libc::SYS_renameat];
#[cfg(target_arch = "riscv64")]
const ALLOWED_OLDER: &[i64] = &[];

/// What neither the program nor a library calls, not even to find out whether the kernel has it: whoever does is an
/// attacker that has taken over the process. The process is killed, so that it cannot try anything else; the kernel
/// logs it, and a service manager starts a new one.
const FORBIDDEN: &[i64] = &[
    // Other programs and other processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    // Parts of the kernel that most of its faults are in.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // Other views of the system.
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_by_handle_at,
    // The system itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
];

/// Requests of ioctl(2): non-blocking mode, closing on exec, bytes to read, whether a file is a terminal. Among those left
/// out is TIOCSTI, which types into the terminal that started the program.
const IOCTLS: [u64; 5] = [libc::FIONBIO, libc::FIOCLEX, libc::FIONREAD, libc::TCGETS, libc::TIOCGWINSZ];

/// Commands of fcntl(2). Among those left out is F_SETOWN: with F_SETSIG it sends signals to other processes, which
/// landlock prevents only since Linux 6.12.
const FCNTLS: [i32; 6] =
    [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL];

/// The mode of the file that `METRICS_FILE` names. No other file is given a mode, above all not a setuid bit.
const FILE_MODE: u64 = 0o644;

/// The length in bytes of the address of a netlink socket, `struct sockaddr_nl`. Those of IP and packet sockets are longer.
const NETLINK_ADDRESS: u64 = 12;

/// linux/prctl.h: reads what the kernel told the process at its start.
const PR_GET_AUXV: i32 = 0x4155_5856;

/// Options of prctl(2): the names of threads and of memory, and what the kernel told the process.
const PRCTLS: [i32; 4] = [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA, PR_GET_AUXV];

/// The bits of the type of a socket that are not flags (net.h, `SOCK_TYPE_MASK`).
const SOCKET_TYPE: u64 = 0xf;

/// What kills the process.
pub(crate) fn forbidden() -> Rules {
    FORBIDDEN.iter().map(|number| (*number, Vec::new())).collect()
}

/// What is allowed; everything that is not listed fails. `network` are the sockets that the program opens later.
pub(crate) fn allowed(network: &Network, is_superuser: bool) -> Result<Rules, BackendError> {
    let mut rules: Rules = ALLOWED.iter().chain(ALLOWED_OLDER).map(|number| (*number, Vec::new())).collect();
    let any_of = |argument: u8, values: &[u64]| -> Result<Vec<SeccompRule>, BackendError> {
        values.iter().map(|value| all_of(&[(argument, SeccompCmpOp::Eq, *value)])).collect()
    };
    // Threads, no processes. clone3 passes its flags in memory, which a filter cannot read: it fails, and the C library
    // uses clone.
    let thread = libc::CLONE_THREAD as u64;
    rules.push((libc::SYS_clone, vec![all_of(&[(0, SeccompCmpOp::MaskedEq(thread), thread)])?]));
    // Memory is writable or executable, not both. Libraries that are loaded late are executable.
    let (write, execute) = (libc::PROT_WRITE as u64, libc::PROT_EXEC as u64);
    let without = |bit| all_of(&[(2, SeccompCmpOp::MaskedEq(bit), 0)]);
    rules.push((libc::SYS_mmap, vec![without(write)?, without(execute)?]));
    rules.push((libc::SYS_mprotect, vec![without(execute)?]));
    // No file is emptied: landlock prevents that only since Linux 6.2. openat2(2) has its flags in memory, and fails.
    let without_truncation =
        |argument| all_of(&[(argument, SeccompCmpOp::MaskedEq(libc::O_TRUNC as u64), 0)]);
    rules.push((libc::SYS_openat, vec![without_truncation(2)?]));
    #[cfg(target_arch = "x86_64")]
    rules.push((libc::SYS_open, vec![without_truncation(1)?]));
    rules.push((libc::SYS_fchmod, any_of(1, &[FILE_MODE])?));
    rules.push((libc::SYS_fcntl, any_of(1, &FCNTLS.map(|command| command as u64))?));
    // MSG_FASTOPEN connects, without a check by landlock.
    let without_connecting =
        |argument| all_of(&[(argument, SeccompCmpOp::MaskedEq(libc::MSG_FASTOPEN as u64), 0)]);
    rules.push((libc::SYS_sendto, vec![without_connecting(3)?]));
    rules.push((libc::SYS_sendmsg, vec![without_connecting(2)?]));
    rules.push((libc::SYS_sendmmsg, vec![without_connecting(3)?]));
    // Signals to itself: raise(3), abort(3).
    let own = u64::from(std::process::id());
    rules.push((libc::SYS_tgkill, any_of(0, &[own])?));
    rules.push((libc::SYS_ioctl, any_of(1, &IOCTLS)?));
    rules.push((libc::SYS_prctl, any_of(0, &PRCTLS.map(|option| option as u64))?));
    // This process reads its own limits: without a pointer to new ones.
    let own_limits = [
        SeccompCondition::new(0, Dword, SeccompCmpOp::Eq, 0)?,
        SeccompCondition::new(2, Qword, SeccompCmpOp::Eq, 0)?,
    ];
    rules.push((libc::SYS_prlimit64, vec![SeccompRule::new(own_limits.into())?]));
    // The two ends of a pair are both in this process.
    rules.push((libc::SYS_socketpair, any_of(0, &[libc::AF_UNIX as u64])?));
    rules.extend(sockets(network, is_superuser)?);
    Ok(rules)
}

/// The rules for opening sockets. Neither seccomp nor landlock can tell the paths of Unix domain sockets apart, and a
/// superuser may connect to all of them, for example to a container engine's.
fn sockets(network: &Network, is_superuser: bool) -> Result<Rules, BackendError> {
    let Network { tcp_ports, names, unix, abstract_unix } = network;
    let mut rules = Vec::new();
    let mut allow = |family: i32, kind: i32, protocols: &[i32]| {
        protocols.iter().try_for_each(|protocol| {
            rules.push(all_of(&[
                (0, SeccompCmpOp::Eq, family as u64),
                (1, SeccompCmpOp::MaskedEq(SOCKET_TYPE), kind as u64),
                (2, SeccompCmpOp::Eq, *protocol as u64),
            ])?);
            Ok::<_, BackendError>(())
        })
    };
    // Without the protocol, MPTCP and SCTP would evade landlock's rules about TCP.
    if *names || !tcp_ports.is_empty() {
        for family in [libc::AF_INET, libc::AF_INET6] {
            allow(family, libc::SOCK_STREAM, &[0, libc::IPPROTO_TCP])?;
        }
    }
    if *names {
        for family in [libc::AF_INET, libc::AF_INET6] {
            allow(family, libc::SOCK_DGRAM, &[0, libc::IPPROTO_UDP])?;
        }
        // getaddrinfo(3) asks which address families this host has.
        allow(libc::AF_NETLINK, libc::SOCK_RAW, &[libc::NETLINK_ROUTE])?;
    }
    // Daemons that resolve names, such as nscd and systemd-resolved, listen on Unix domain sockets. Without them the C
    // library asks the name servers itself.
    if *names && !is_superuser || *unix || *abstract_unix {
        allow(libc::AF_UNIX, libc::SOCK_STREAM, &[0])?;
    }
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    let mut calls = vec![(libc::SYS_socket, rules), (libc::SYS_connect, Vec::new())];
    if *names {
        // getaddrinfo(3) binds its netlink socket. A packet socket stays bound to its device.
        calls.push((libc::SYS_bind, vec![all_of(&[(2, SeccompCmpOp::Eq, NETLINK_ADDRESS)])?]));
    }
    Ok(calls)
}

/// A rule whose conditions must all hold, each about the lower 32 bits of an argument: those that the kernel reads of an
/// `int`.
fn all_of(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, BackendError> {
    let conditions = conditions
        .iter()
        .map(|(argument, operator, value)| SeccompCondition::new(*argument, Dword, operator.clone(), *value));
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}
