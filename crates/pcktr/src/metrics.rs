//! The metrics: what the program says of itself and of the packets, and how Prometheus gets it.

mod file;
mod listener;
mod page;
mod process;
mod server;

use std::sync::{Arc, Mutex, PoisonError};

use observe::Exposition;

pub(crate) use file::MetricsFile;
pub(crate) use page::{Figures, Page};
pub(crate) use server::{Readiness, Server, Site};

use process::Process;

/// Writes families into an exposition: what the rest of the program has to say.
pub(crate) type Render = Arc<dyn Fn(&mut Exposition) + Send + Sync>;

/// Everything that is exposed.
pub(crate) struct Metrics {
    process: Process,
    render: Render,
    /// Whoever renders holds it: a hundred thousand series twice at once would be twice the memory, and no sooner done.
    turn: Mutex<()>,
}

impl Metrics {
    /// What `render` writes, and, before it, what is true of every program: its build and its process.
    pub(crate) fn new(render: Render) -> Self {
        Self { process: Process::new(), render, turn: Mutex::new(()) }
    }

    /// The exposition as it is now, in Prometheus' text format.
    pub(crate) fn text(&self) -> String {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = Exposition::new();
        self.process.render(&mut out);
        (self.render)(&mut out);
        out.into_string()
    }
}
