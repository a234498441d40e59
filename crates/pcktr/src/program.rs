//! A mode that is set up: all sockets, devices and files are open, and nothing runs yet.

use std::sync::Arc;

use observe::Exposition;

use crate::metrics::Figures;

/// What every mode consists of.
pub(crate) struct Program {
    /// Writes the metrics.
    pub(crate) render: Arc<dyn Fn(&mut Exposition) + Send + Sync>,
    /// Gives the figures of the landing page.
    pub(crate) figures: Arc<dyn Fn() -> Figures + Send + Sync>,
    /// Says what is not handed over yet.
    pub(crate) unfinished: Arc<dyn Fn() -> String + Send + Sync>,
    /// Does the work, to the end.
    pub(crate) work: Box<dyn FnOnce() -> anyhow::Result<Ended>>,
}

/// How the work has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As it should.
    Well,
    /// Before its time, as the log says.
    Badly,
}

impl Ended {
    pub(crate) const fn of(well: bool) -> Self {
        if well { Self::Well } else { Self::Badly }
    }
}

/// Why a mode cannot be set up.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The settings are wrong, as only the attempt could show.
    Settings(anyhow::Error),
    /// Something else is.
    Rest(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Rest(error.into())
    }
}
