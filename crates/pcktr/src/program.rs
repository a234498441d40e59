//! A mode that is ready to run: all sockets, devices and files are open.

use std::sync::Arc;

use metrics::Exposition;
use web::Status;

/// A mode that is ready to run.
pub(crate) struct Program {
    /// Writes the metrics.
    pub(crate) render: Arc<dyn Fn(&mut Exposition) + Send + Sync>,
    /// Returns the figures of the status page.
    pub(crate) status: Arc<dyn Fn() -> Status + Send + Sync>,
    /// Describes what has not been sent or written yet.
    pub(crate) unfinished: Arc<dyn Fn() -> String + Send + Sync>,
    /// Runs it to its end.
    pub(crate) work: Box<dyn FnOnce() -> anyhow::Result<Ended>>,
}

/// How a mode ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Normally.
    Well,
    /// Prematurely; the log says why.
    Badly,
}

impl Ended {
    pub(crate) const fn of(well: bool) -> Self {
        if well { Self::Well } else { Self::Badly }
    }
}

/// Why a mode cannot start.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A setting is invalid, which only opening it could tell.
    Settings(anyhow::Error),
    /// Another error.
    Rest(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Rest(error.into())
    }
}
