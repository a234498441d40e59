//! Which mechanisms of the kernel confine the program.

use metrics::{Declaration, LabelSet, collector};
use prometheus::core::Collector;
use tracing::warn;

const ACTIVE: Declaration = Declaration::gauge(
    "packeteur_sandbox_mechanism_active",
    "Whether a mechanism of the kernel confines this program, by mechanism.",
);

/// A mechanism of the kernel that takes something away from the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// `execve` grants no privileges.
    NoNewPrivs,
    /// All sets of capabilities but the bounding set are empty.
    Capabilities,
    /// landlock restricts files: since Linux 5.13.
    LandlockFiles,
    /// landlock restricts TCP: since Linux 6.7.
    LandlockTcp,
    /// landlock restricts signals and abstract Unix domain sockets: since Linux 6.12.
    LandlockScope,
    /// seccomp restricts system calls.
    Seccomp,
}

impl Mechanism {
    /// All, in the order of the metric's series.
    pub const ALL: [Self; 6] = [
        Self::NoNewPrivs,
        Self::Capabilities,
        Self::LandlockFiles,
        Self::LandlockTcp,
        Self::LandlockScope,
        Self::Seccomp,
    ];

    /// The value of the metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoNewPrivs => "no_new_privs",
            Self::Capabilities => "capabilities",
            Self::LandlockFiles => "landlock_files",
            Self::LandlockTcp => "landlock_tcp",
            Self::LandlockScope => "landlock_scope",
            Self::Seccomp => "seccomp",
        }
    }

    /// What the program can still do without it.
    const fn consequence(self) -> &'static str {
        match self {
            Self::NoNewPrivs => "programs that it starts could gain privileges",
            Self::Capabilities => "it keeps its capabilities",
            Self::LandlockFiles => "it can open every file that its user may open",
            Self::LandlockTcp => "it can connect to every TCP port",
            Self::LandlockScope => "it can signal other processes of its user",
            Self::Seccomp => "it can make every system call",
        }
    }
}

/// The mechanisms that are active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mechanisms {
    active: [bool; Mechanism::ALL.len()],
}

impl Mechanisms {
    /// None: without a sandbox.
    #[must_use]
    pub const fn none() -> Self {
        Self { active: [false; Mechanism::ALL.len()] }
    }

    pub(crate) fn set(&mut self, mechanism: Mechanism, active: bool) {
        self.active[mechanism as usize] = active;
    }

    /// Whether a mechanism is active.
    #[must_use]
    pub const fn is_active(&self, mechanism: Mechanism) -> bool {
        self.active[mechanism as usize]
    }

    /// The collector of `packeteur_sandbox_mechanism_active`.
    ///
    /// # Errors
    /// The declaration is not valid.
    pub fn collector(&self) -> prometheus::Result<Box<dyn Collector>> {
        let active = self.clone();
        collector([ACTIVE], move || {
            vec![ACTIVE.samples(Mechanism::ALL.map(|mechanism| {
                let label = LabelSet::new().with("mechanism", mechanism.as_str());
                (label, f64::from(u8::from(active.is_active(mechanism))))
            }))]
        })
    }

    /// Logs what the kernel lacks, in one line.
    pub(crate) fn log_missing(&self) {
        let missing: Vec<_> =
            Mechanism::ALL.into_iter().filter(|mechanism| !self.is_active(*mechanism)).collect();
        if missing.is_empty() {
            return;
        }
        let list = |text: fn(Mechanism) -> &'static str, separator| {
            missing.iter().map(|mechanism| text(*mechanism)).collect::<Vec<_>>().join(separator)
        };
        warn!(
            missing = list(Mechanism::as_str, ","),
            "the sandbox is incomplete, because this kernel or container lacks a part of it: {}",
            list(Mechanism::consequence, "; "),
        );
    }
}
