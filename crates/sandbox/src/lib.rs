//! Confines the program to what it still needs after its devices, files and sockets are open, so that a fault in a parser
//! of foreign bytes gives an attacker as little as possible.
//!
//! Capabilities and landlock bind the calling thread and the threads that it starts later: call [`Sandbox::enter`] while
//! the process has a single thread. seccomp and `no_new_privs` then reach the same threads. What the kernel lacks is
//! logged once, and shown in a metric; nothing fails because of it.

mod capabilities;
mod files;
mod landlock;
mod mechanisms;
mod permissions;
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")),
    path = "seccomp/unsupported.rs"
)]
mod seccomp;
mod user;

pub use files::shared_directory;
pub use mechanisms::{Mechanism, Mechanisms};
pub use permissions::{Network, Permissions};
pub use user::{ChangeUserError, User, UserError};

use tracing::warn;

/// A sandbox that is prepared, and not entered yet.
///
/// [`Sandbox::prepare`] comes first, because an unprivileged user can no longer empty the bounding set; then the program
/// opens what it needs, and changes its user.
#[derive(Debug)]
pub struct Sandbox {
    no_new_privs: bool,
}

impl Sandbox {
    /// Gives up what the program never needs: further privileges through `execve`. Call it before any thread is started.
    #[must_use]
    pub fn prepare() -> Self {
        let no_new_privs = rustix::thread::set_no_new_privs(true).is_ok();
        capabilities::clear_bounding_set();
        Self { no_new_privs }
    }

    /// Gives up everything but `permissions`, for this thread and all that it starts. Logs what the kernel lacks.
    #[must_use]
    pub fn enter(self, permissions: &Permissions) -> Mechanisms {
        if let Some(threads @ 2..) = threads() {
            // For example those of a library that was loaded with LD_PRELOAD.
            warn!(threads, "the sandbox binds only one of the threads that run already, but for seccomp");
        }
        let mut active = Mechanisms::none();
        active.set(Mechanism::NoNewPrivs, self.no_new_privs);
        active.set(Mechanism::Capabilities, capabilities::drop_all().is_ok());
        // File modes do not keep a superuser from `/etc/shadow` or a container engine's socket.
        let is_superuser = rustix::process::geteuid().is_root();
        landlock::restrict(permissions, is_superuser, &mut active);
        // Last: the steps before need system calls that it does not allow.
        active.set(Mechanism::Seccomp, seccomp::apply(&permissions.network, is_superuser));
        active.log_missing();
        active
    }
}

/// The number of threads of this process; unknown without procfs.
fn threads() -> Option<usize> {
    std::fs::read_dir("/proc/self/task").ok().map(Iterator::count)
}

#[cfg(test)]
mod tests;
