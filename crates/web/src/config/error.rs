//! What can be wrong with a web configuration.

use std::fmt::{self, Write};
use std::io;
use std::path::{Path, PathBuf};

/// A web configuration that cannot be used. Displayed as `WEB_CONFIG_FILE: file:line: reason (remedy)`.
#[derive(Debug)]
pub struct WebConfigError {
    path: PathBuf,
    fault: Fault,
}

impl WebConfigError {
    pub(super) fn new(path: &Path, fault: Fault) -> Self {
        Self { path: path.to_owned(), fault }
    }
}

impl fmt::Display for WebConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WEB_CONFIG_FILE: {}:", self.path.display())?;
        if let Some(line) = self.fault.line {
            write!(f, "{line}:")?;
        }
        // The texts quote the file, which may contain anything.
        f.write_str(" ")?;
        self.fault.what.to_string().chars().try_for_each(|c| {
            if c.is_control() { write!(f, "{}", c.escape_default()) } else { f.write_char(c) }
        })
    }
}

impl std::error::Error for WebConfigError {}

/// A fault and the line that it is in.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) line: Option<usize>,
    pub(super) what: Box<ConfigFault>,
}

/// What is wrong, and the remedy in parentheses. None of the texts contains a password, a hash or a key.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigFault {
    #[error("cannot be read: {0} (the file must exist and be readable by this user)")]
    Read(io::Error),
    #[error("is larger than {} KiB (a web configuration is short: check the path)", .0 >> 10)]
    Size(u64),
    #[error("is not UTF-8 (save the file as UTF-8)")]
    Encoding,
    #[error("is not valid YAML: {0} (see https://yaml.org, or check the indentation)")]
    Syntax(String),
    #[error("is nested too deeply (a web configuration has four levels)")]
    Depth,
    #[error("contains a second YAML document (remove everything from the second `---`)")]
    SecondDocument,
    #[error("contains a YAML alias, which is not supported (repeat the value)")]
    Alias,
    #[error("contains a YAML tag, which is not supported (remove the `!…`)")]
    Tag,
    #[error("contains a key that is not a text (write `name: value`)")]
    Key,
    #[error("`{key}` is not a valid key{} (use {known})", within(section))]
    UnknownKey { key: String, section: &'static str, known: String },
    #[error("`{0}` is given twice (remove one of them)")]
    DuplicateKey(String),
    #[error("`{key}` is not {expected}")]
    Kind { key: String, expected: &'static str },
    #[error("`{key}`: `{value}` is not a valid value (use {allowed})")]
    Value { key: &'static str, value: String, allowed: String },
    #[error("`{key}` is missing in tls_server_config ({remedy})")]
    Missing { key: &'static str, remedy: &'static str },
    #[error("`max_version` is lower than `min_version` (exchange them)")]
    Versions,
    #[error("`client_ca_file` has no effect without a `client_auth_type` (use RequireAndVerifyClientCert)")]
    UnusedClientCa,
    #[error(
        "`client_allowed_sans` has no effect with this `client_auth_type` (use RequireAndVerifyClientCert)"
    )]
    UnusedSans,
    #[error("user name `{0}` contains a colon or a control character (choose another name)")]
    UserName(String),
    #[error(
        "the password of user `{0}` is not a bcrypt hash (create one with `htpasswd -nBC 10 \"\" | tr -d ':\\n'`)"
    )]
    PasswordHash(String),
    #[error(
        "the bcrypt hash of user `{user}` has cost {cost} (create one with a cost of 4 to {max}: each step doubles the time for a check)"
    )]
    Cost { user: String, cost: u32, max: u32 },
    #[error("`{0}` is missing, and in force (restore it; to open the port on purpose, restart the program)")]
    Unprotected(&'static str),
    #[error("`{key}`: `{}` {fault}", path.display())]
    File { key: &'static str, path: PathBuf, fault: FileFault },
    #[error(
        "cannot use this tls_server_config: {0} (check cipher_suites, curve_preferences and the versions)"
    )]
    Tls(rustls::Error),
}

impl ConfigFault {
    pub(super) fn at(self, line: usize) -> Fault {
        Fault { line: Some(line), what: Box::new(self) }
    }

    pub(super) fn anywhere(self) -> Fault {
        Fault { line: None, what: Box::new(self) }
    }
}

/// What is wrong with a file that the configuration names.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileFault {
    #[error("cannot be read: {0} (the file must exist and be readable by this user)")]
    Read(io::Error),
    #[error("is not a regular file smaller than {} KiB (check the path)", .0 >> 10)]
    Size(u64),
    #[error(
        "can be read or written by every user of this host: its mode is {0:04o} (run `chmod 600`; in Kubernetes, set `defaultMode: 0440` and `fsGroup`)"
    )]
    Mode(u32),
    #[error("is not valid PEM: {0} (it must contain `-----BEGIN …-----` and `-----END …-----`)")]
    Pem(String),
    #[error("contains no certificate (it must contain `-----BEGIN CERTIFICATE-----`)")]
    NoCertificate,
    #[error("contains no private key (it must contain `-----BEGIN PRIVATE KEY-----`)")]
    NoKey,
    #[error("is encrypted with a passphrase (decrypt it: `openssl pkey -in KEY -out NEW`)")]
    Encrypted,
    #[error("contains an invalid certificate: {0} (create it again)")]
    Certificate(String),
    #[error("contains a private key that cannot be used: {0} (use an ECDSA, Ed25519 or RSA key)")]
    Key(rustls::Error),
    #[error(
        "is not the key of the certificate in `cert_file` (use the key that the certificate was issued for)"
    )]
    Mismatch,
    #[error("expired at {0} (renew the certificate)")]
    Expired(String),
    #[error("is not valid before {0} (check this host's clock, or issue the certificate again)")]
    NotYetValid(String),
}

fn within(section: &str) -> String {
    if section.is_empty() { String::new() } else { format!(" in {section}") }
}
