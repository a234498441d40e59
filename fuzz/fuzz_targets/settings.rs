//! Settings in the environment: any text for any of them.

#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use libfuzzer_sys::fuzz_target;

/// The program's module. The program is no library, so its source is included.
#[path = "../../crates/pcktr/src"]
mod pcktr {
    #[expect(dead_code, unused_imports, reason = "the program uses all of it")]
    pub(crate) mod settings;
}

use pcktr::settings::{Settings, TABLE};

// Lines of the form: a byte that chooses the setting, its value.
fuzz_target!(|input: &[u8]| {
    let environment = input.split(|&byte| byte == b'\n').filter_map(|line| {
        let (&setting, value) = line.split_first()?;
        let name = TABLE[usize::from(setting) % TABLE.len()].name;
        Some((OsString::from(name), OsString::from_vec(value.to_vec())))
    });
    let Err(errors) = Settings::load(environment, &[], "host") else { return };
    // Each error is a line that names its setting.
    let errors = errors.to_string();
    for line in errors.split('\n') {
        let name = line.split(':').next().unwrap_or_default();
        assert!(TABLE.iter().any(|setting| setting.name == name), "{line}");
    }
});
