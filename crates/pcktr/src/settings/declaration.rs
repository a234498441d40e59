//! How a setting is declared: the macro [`settings!`], and what it expands to.

use serde::{Deserialize, Deserializer};

use super::Mode;
use super::error::{Fault, SettingError};

/// A setting, as `--help` and the README describe it.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The environment variable. [`Setting::flag`] is derived from it.
    pub(crate) name: &'static str,
    /// The placeholder for the value in `--help`.
    pub(crate) value: &'static str,
    /// What applies if the setting is absent.
    pub(crate) default: Fallback,
    /// The modes that use it.
    pub(crate) modes: &'static [Mode],
    /// A description, without a final period; code between backticks.
    pub(crate) meaning: &'static str,
}

/// What applies if a setting is absent or empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// No value.
    Absent,
    /// This value, parsed as if the user had written it.
    Text(&'static str),
    /// A value that is computed; this describes it.
    Computed(&'static str),
}

/// The placeholder of booleans.
pub(super) const BOOLEAN: &str = "true|false";

impl Setting {
    /// The flag without its dashes: `relay-endpoint` for `RELAY_ENDPOINT`.
    pub(crate) fn flag(&self) -> String {
        self.name.to_ascii_lowercase().replace('_', "-")
    }

    /// Whether the flag can stand without a value and then means `true`.
    pub(crate) fn is_switch(&self) -> bool {
        self.value == BOOLEAN
    }

    /// The default as `--help` prints it; empty if there is none.
    pub(crate) fn default_text(&self) -> &'static str {
        match self.default {
            Fallback::Absent => "",
            Fallback::Text(text) | Fallback::Computed(text) => text,
        }
    }

    /// The modes as `--help` prints them.
    pub(crate) fn modes_text(&self) -> String {
        if Mode::RUNNING.iter().all(|mode| self.modes.contains(mode)) {
            return "all".to_owned();
        }
        self.modes.iter().map(|mode| mode.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// An error in this setting.
    pub(super) fn error(&self, value: impl Into<String>, fault: Fault) -> SettingError {
        SettingError::Value { setting: self.name, value: value.into(), fault }
    }
}

/// A declaration, as a type.
pub(super) trait SettingDeclaration {
    /// The type of the value.
    type Value;
    /// Its description.
    const SETTING: Setting;
    /// Parses the value. An empty text stands for no value, if the setting has no default.
    fn parse(text: &str) -> Result<Self::Value, Fault>;
}

/// The value of a setting, or what is wrong with it, and its text unless it is the default.
///
/// Deserializing it never fails. serde stops at the first error, and all errors are to be reported.
pub(super) struct Given<D: SettingDeclaration> {
    pub(super) text: Option<String>,
    pub(super) value: Result<D::Value, Fault>,
}

impl<D: SettingDeclaration> Given<D> {
    /// The value for `text`, or the default.
    pub(super) fn new(text: Option<String>) -> Self {
        let value = match (text.as_deref(), D::SETTING.default) {
            (Some(text), _) | (None, Fallback::Text(text)) => D::parse(text),
            (None, Fallback::Absent | Fallback::Computed(_)) => D::parse(""),
        };
        Self { text, value }
    }

    pub(super) fn error(self) -> Option<SettingError> {
        let fault = self.value.err()?;
        Some(D::SETTING.error(self.text.unwrap_or_default(), fault))
    }
}

impl<D: SettingDeclaration> Default for Given<D> {
    fn default() -> Self {
        Self::new(None)
    }
}

impl<'de, D: SettingDeclaration> Deserialize<'de> for Given<D> {
    fn deserialize<R: Deserializer<'de>>(deserializer: R) -> Result<Self, R::Error> {
        String::deserialize(deserializer).map(|text| Self::new(Some(text)))
    }
}

/// Declares all settings.
///
/// For each there is a `const` of type [`Setting`]; `TABLE` holds them in order. `Raw` holds a [`Given`] for each, and
/// is what `envy` deserializes. `Values` holds the values, and is what `Raw::values` returns if all are valid.
macro_rules! settings {
    ($(
        $name:ident => $field:ident: $type:ty {
            value: $value:expr,
            default: $default:expr,
            modes: $modes:expr,
            meaning: $meaning:expr,
            parse: $parse:expr $(,)?
        }
    )*) => {
        $(pub(super) const $name: Setting = Setting {
            name: stringify!($name),
            value: $value,
            default: $default,
            modes: $modes,
            meaning: $meaning,
        };)*

        /// Every setting, in the order of `--help`.
        pub(crate) const TABLE: &[Setting] = &[$($name),*];

        /// The declarations as types, named as their fields.
        #[expect(non_camel_case_types, reason = "one name serves the type and the field")]
        pub(super) mod declared {
            $(pub(crate) enum $field {})*
        }

        $(impl SettingDeclaration for declared::$field {
            type Value = $type;
            const SETTING: Setting = $name;
            fn parse(text: &str) -> Result<$type, Fault> {
                $parse(text)
            }
        })*

        /// All settings as given, each with its value or its error.
        #[derive(Default, Deserialize)]
        #[serde(default)]
        pub(super) struct Raw {
            $(pub(super) $field: Given<declared::$field>,)*
        }

        /// The values of all settings.
        pub(super) struct Values {
            $(pub(super) $field: $type,)*
        }

        impl Raw {
            /// The values, or all errors.
            pub(super) fn values(self) -> Result<Values, Vec<SettingError>> {
                match self {
                    Self { $($field: Given { value: Ok($field), .. }),* } => Ok(Values { $($field),* }),
                    invalid => Err([$(invalid.$field.error()),*].into_iter().flatten().collect()),
                }
            }
        }
    };
}
pub(super) use settings;
