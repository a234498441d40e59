//! The program as its user meets it, before anything opens.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::process::Command;

/// Exit code, standard output and standard error of the program.
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
    for (flag, begins) in [("--help", "Packets of many machines"), ("--version", "pcktr ")] {
        let (code, stdout, stderr) = run(&[], &[flag]);
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert!(stdout.starts_with(begins), "{stdout}");
    }
}

#[test]
fn an_unknown_flag_is_an_error_of_settings() {
    let (code, stdout, stderr) = run(&[], &["--relay-endpont=x"]);
    assert_eq!((code, stdout.as_str()), (Some(64), ""));
    assert!(stderr.contains("--relay-endpoint"), "{stderr}");
}

#[test]
fn wrong_settings_are_told_on_standard_error() {
    // What is not UTF-8, and not ours, is left alone.
    let environment = [
        ("PS1", OsString::from_vec(vec![0xff])),
        ("SNAPLEN", "0".into()),
        ("DEVICE", OsString::from_vec(vec![0xff])),
    ];
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_os_str())).collect();
    let (code, stdout, stderr) = run(&environment, &["--compression", "gzip"]);
    assert_eq!((code, stdout.as_str()), (Some(64), ""));
    let told: Vec<_> = stderr.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(told, ["DEVICE", "SNAPLEN", "COMPRESSION"], "{stderr}");
}
