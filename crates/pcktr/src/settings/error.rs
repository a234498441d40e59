//! What can be wrong with a setting, in words that say what would be right.

use std::ffi::OsString;
use std::fmt;

use super::{Mode, table::Setting};

/// A setting that can't be right.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingError {
    /// The value means nothing, or nothing that can be.
    #[error("{setting}: `{value}` {fault}")]
    Value {
        /// The setting's name.
        setting: &'static str,
        /// As it was given.
        value: String,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The value is not UTF-8.
    #[error("{setting}: {value:?} is not UTF-8 (set it to text, or unset it)")]
    NotText {
        /// The setting's name.
        setting: &'static str,
        /// As it was given.
        value: OsString,
    },
    /// Two settings exclude each other.
    #[error("{setting}: `{value}` and {other}: `{other_value}` {fault}")]
    Conflict {
        /// One setting's name.
        setting: &'static str,
        /// Its value.
        value: String,
        /// The other setting's name.
        other: &'static str,
        /// Its value.
        other_value: String,
        /// Why they do.
        fault: Fault,
    },
    /// A flag of another mode. In the environment, which several programs may share, that is no error.
    #[error(
        "{}: `{value}` means nothing when MODE is {mode} (drop --{}; it is for {})",
        setting.name, setting.flag(), setting.modes_text(),
    )]
    OtherMode {
        /// The setting.
        setting: &'static Setting,
        /// Its value.
        value: String,
        /// The mode that was chosen.
        mode: Mode,
    },
    /// The environment could not be read.
    #[error("the environment: {0}")]
    Environment(#[from] envy::Error),
}

/// What is wrong with a value: what it is or lacks, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    problem: String,
    remedy: String,
}

impl Fault {
    /// `problem` continues a sentence that begins with the value; `remedy` stands in brackets behind it.
    pub(crate) fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }

    /// The same, where only `item` of a list is to blame.
    pub(crate) fn of_item(self, item: &str) -> Self {
        Self { problem: format!("holds `{item}`, which {}", self.problem), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.remedy.is_empty() {
            return f.write_str(&self.problem);
        }
        write!(f, "{} ({})", self.problem, self.remedy)
    }
}

/// The error's text has its remedy in brackets already.
impl From<relay::EndpointError> for Fault {
    fn from(error: relay::EndpointError) -> Self {
        Self::new(error.to_string(), "")
    }
}

/// Everything that is wrong with the settings; one line each.
#[derive(Debug)]
pub(crate) struct SettingErrors(pub(crate) Vec<SettingError>);

impl fmt::Display for SettingErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            // A value may hold a line feed; one error stays one line all the same.
            f.write_str(&error.to_string().replace('\n', "\\n"))?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingErrors {}
