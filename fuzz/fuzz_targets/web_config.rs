//! An arbitrary text as the web configuration.

#![no_main]

use libfuzzer_sys::fuzz_target;
use web::WebConfig;

fuzz_target!(|text: &str| {
    if let Err(error) = WebConfig::check(text) {
        let error = error.to_string();
        assert!(error.starts_with("WEB_CONFIG_FILE: -:"), "{error}");
        assert!(!error.contains(char::is_control), "{error:?}");
    }
});
