//! Errors in settings. Each names the setting, its value, the reason and the remedy.

use std::fmt;

/// An invalid setting.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingError {
    /// The value of a setting is invalid.
    #[error("{setting}: `{value}` {fault}")]
    Value {
        /// The setting's name.
        setting: &'static str,
        /// The value as given.
        value: String,
        /// What is wrong with it.
        fault: Fault,
    },
    /// A setting that the mode needs is absent.
    #[error("{setting}: is missing ({remedy})")]
    Missing {
        /// The setting's name.
        setting: &'static str,
        /// What to set it to.
        remedy: &'static str,
    },
    /// The environment cannot be read.
    #[error("environment: {0}")]
    Environment(#[from] envy::Error),
}

/// What is wrong with a value, and how to correct it: a phrase that follows the value, such as
/// "is out of range (1 to 9)".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault(String);

impl Fault {
    /// `problem` follows the value; `remedy` is added in parentheses.
    pub(crate) fn new(problem: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self(format!("{problem} ({remedy})"))
    }

    /// The error of a list in which only `item` is invalid.
    pub(crate) fn of_item(self, item: &str) -> Self {
        Self(format!("contains `{item}`, which {}", self.0))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Errors of other crates that are worded as a [`Fault`].
impl<E: std::error::Error> From<E> for Fault {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// All errors in the settings; one line each.
#[derive(Debug)]
pub(crate) struct SettingErrors(pub(super) Vec<SettingError>);

impl fmt::Display for SettingErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            // A value may contain a line feed.
            f.write_str(&error.to_string().replace('\n', "\\n"))?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingErrors {}
