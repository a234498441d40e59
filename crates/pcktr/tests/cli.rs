//! The program's arguments, environment and exit codes, before it opens anything.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::process::Command;

/// Runs the program. Returns its exit code, standard output and standard error.
fn run(environment: &[(&str, &OsStr)], args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pcktr"))
        .env_clear()
        .envs(environment.iter().copied())
        .args(args)
        .output()
        .expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn help_and_version_go_to_standard_output() {
    for (flag, begins) in [("--help", "Capture packets"), ("--version", "pcktr ")] {
        let (code, stdout, stderr) = run(&[], &[flag]);
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert!(stdout.starts_with(begins), "{stdout}");
    }
}

#[test]
fn unknown_flag_is_an_error() {
    let (code, stdout, stderr) = run(&[], &["--relay-endpont=x"]);
    assert_eq!((code, stdout.as_str()), (Some(64), ""));
    assert!(stderr.contains("--relay-endpoint"), "{stderr}");
}

#[test]
fn invalid_settings_are_reported() {
    // PS1 is not a setting, so it need not be UTF-8.
    let environment = [
        ("PS1", OsString::from_vec(vec![0xff])),
        ("SNAPLEN", "0".into()),
        ("DEVICE", OsString::from_vec(vec![0xff])),
    ];
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_os_str())).collect();
    let (code, stdout, stderr) = run(&environment, &["--compression", "gzip"]);
    assert_eq!((code, stdout.as_str()), (Some(64), ""));
    let reported: Vec<_> = stderr.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(reported, ["DEVICE", "SNAPLEN", "COMPRESSION"], "{stderr}");
}
