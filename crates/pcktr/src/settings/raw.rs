//! Settings as they were given: texts, each under its name.

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde::Deserialize;

use super::SettingError;
use super::table::{Setting, TABLE};

/// The text of every setting that is set. The empty text means the default, so it is as good as absent.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Raw {
    pub(crate) mode: Option<String>,
    pub(crate) device: Option<String>,
    pub(crate) filter: Option<String>,
    pub(crate) snaplen: Option<String>,
    pub(crate) buffer_size: Option<String>,
    pub(crate) promiscuous: Option<String>,
    pub(crate) read_file: Option<String>,
    pub(crate) tzsp_port: Option<String>,
    pub(crate) source_name: Option<String>,
    pub(crate) relay_endpoint: Option<String>,
    pub(crate) relay_buffer: Option<String>,
    pub(crate) batch_bytes: Option<String>,
    pub(crate) batch_delay: Option<String>,
    pub(crate) compression: Option<String>,
    pub(crate) collect_endpoint: Option<String>,
    pub(crate) output: Option<String>,
    pub(crate) output_format: Option<String>,
    pub(crate) merge_window: Option<String>,
    pub(crate) exit_on_end: Option<String>,
    pub(crate) max_packets: Option<String>,
    pub(crate) max_duration: Option<String>,
    pub(crate) observe: Option<String>,
    pub(crate) flow_age: Option<String>,
    pub(crate) max_flows: Option<String>,
    pub(crate) stream_age: Option<String>,
    pub(crate) stream_finalized_age: Option<String>,
    pub(crate) max_streams: Option<String>,
    pub(crate) streams_export: Option<String>,
    pub(crate) max_pairs: Option<String>,
    pub(crate) metrics_addrport: Option<String>,
    pub(crate) metrics_file: Option<String>,
    pub(crate) log: Option<String>,
}

/// A flag of the command line: the setting, and its text.
pub(crate) type Flag = (&'static Setting, String);

impl Raw {
    /// What `environment` and `flags` say; a flag wins. What of it is no text is among `errors` afterwards.
    ///
    /// Only what has the exact name of a setting is looked at: the rest of the environment is none of our business, and
    /// need not even be UTF-8.
    pub(crate) fn gather(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[Flag],
        errors: &mut Vec<SettingError>,
    ) -> Self {
        let mut texts = BTreeMap::new();
        for (name, value) in environment {
            let Some(setting) = TABLE.iter().find(|setting| name == setting.name) else { continue };
            if flags.iter().any(|(given, _)| given.name == setting.name) {
                continue;
            }
            match value.into_string() {
                Ok(text) => _ = texts.insert(setting.name, text),
                Err(value) => errors.push(SettingError::NotText { setting: setting.name, value }),
            }
        }
        texts.extend(flags.iter().map(|(setting, text)| (setting.name, text.clone())));

        let set = texts.into_iter().filter_map(|(name, text)| {
            let text = text.trim();
            (!text.is_empty()).then(|| (name.to_owned(), text.to_owned()))
        });
        envy::from_iter(set).unwrap_or_else(|error| {
            errors.push(SettingError::Environment(error));
            Self::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn gather(environment: &[(&str, &[u8])], flags: &[Flag]) -> (Raw, Vec<SettingError>) {
        let environment = environment
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from_vec(value.to_vec())))
            .collect::<Vec<_>>();
        let mut errors = Vec::new();
        (Raw::gather(environment, flags, &mut errors), errors)
    }

    fn flag(name: &str, text: &str) -> Flag {
        (TABLE.iter().find(|setting| setting.name == name).unwrap(), text.to_owned())
    }

    #[test]
    fn every_row_of_the_table_has_its_own_field() {
        for setting in TABLE {
            let (raw, errors) = gather(&[(setting.name, b"x")], &[]);
            assert!(errors.is_empty(), "{errors:?}");
            let set: Vec<_> =
                TABLE.iter().filter(|row| (row.text)(&raw).is_some()).map(|row| row.name).collect();
            assert_eq!(set, [setting.name]);
        }
    }

    #[test]
    fn a_flag_wins_and_empty_means_the_default() {
        let environment: &[(&str, &[u8])] =
            &[("DEVICE", b"eth0"), ("FILTER", b" udp "), ("SNAPLEN", b""), ("LOG", b"  "), ("OUTPUT", b"x")];
        let (raw, errors) = gather(environment, &[flag("DEVICE", "wg0"), flag("OUTPUT", "")]);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(raw.device.as_deref(), Some("wg0"));
        assert_eq!(raw.filter.as_deref(), Some("udp"));
        assert_eq!((raw.snaplen, raw.log, raw.output), (None, None, None));
    }

    #[test]
    fn what_is_not_ours_need_not_be_text() {
        let (raw, errors) = gather(&[("PS1", b"\xff"), ("mode", b"collect"), ("\u{e9}", b"x")], &[]);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(raw.mode, None);
    }

    #[test]
    fn what_is_ours_must_be_text_unless_a_flag_replaces_it() {
        let (_, errors) = gather(&[("FILTER", b"host \xff")], &[]);
        assert_eq!(errors.len(), 1);
        let (raw, errors) = gather(&[("FILTER", b"host \xff")], &[flag("FILTER", "udp")]);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(raw.filter.as_deref(), Some("udp"));
    }
}
