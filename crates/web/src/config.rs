//! `WEB_CONFIG_FILE`: TLS and basic authentication, in the format of Prometheus' exporter-toolkit.

mod certificate;
mod client;
mod document;
mod error;
mod section;
mod settings;
#[cfg(test)]
mod tests;
mod tls;
mod users;
mod watched;
mod watched_file;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use hyper::header::{HeaderName, HeaderValue};
use rustls::ServerConfig;

pub use error::WebConfigError;
pub(crate) use users::Users;
pub(crate) use watched::WatchedConfig;

use error::{ConfigFault, Fault};
use settings::WebSettings;
use tls::Tls;
use watched_file::WatchedFile;

/// Largest size of a web configuration in bytes: 10 000 users.
const MAX_SIZE: u64 = 1 << 20;

/// A web configuration, ready for use: its files have been read and checked.
pub struct WebConfig {
    /// The configuration itself, and the files that it names.
    files: Vec<WatchedFile>,
    tls: Option<Tls>,
    headers: Vec<(HeaderName, HeaderValue)>,
    users: Users,
}

impl WebConfig {
    /// Reads a web configuration and the files that it names, whose paths are relative to its own directory.
    ///
    /// # Errors
    ///
    /// A file cannot be read; the configuration is not valid YAML, or has an unknown key or an invalid value; a
    /// certificate has expired or is not valid yet; the private key does not belong to it, or every user may read it.
    pub fn load(path: &Path) -> Result<Self, WebConfigError> {
        Self::load_at(path, SystemTime::now())
    }

    /// As [`Self::load`], at the time `now`.
    fn load_at(path: &Path, now: SystemTime) -> Result<Self, WebConfigError> {
        let load = || {
            let mut files = vec![WatchedFile::new(path.to_owned())];
            let settings = WebSettings::parse(&read(path).map_err(ConfigFault::anywhere)?)?;
            let directory = path.parent().unwrap_or(Path::new(""));
            let tls = settings.tls.as_ref();
            files.extend(tls.into_iter().flat_map(|tls| tls.paths(directory)).map(WatchedFile::new));
            let tls = tls.map(|tls| tls.load(directory, now)).transpose()?;
            Ok(Self { files, tls, headers: settings.headers, users: settings.users })
        };
        load().map_err(|fault: Fault| WebConfigError::new(path, fault))
    }

    /// Checks the text of a web configuration, without the files that it names.
    ///
    /// # Errors
    ///
    /// It is not valid YAML, or has an unknown key or an invalid value.
    pub fn check(text: &str) -> Result<(), WebConfigError> {
        WebSettings::parse(text).map(drop).map_err(|fault| WebConfigError::new(Path::new("-"), fault))
    }

    /// The files that are read again when they change: the configuration, and those that it names.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|file| file.path.clone()).collect()
    }

    /// A configuration with one user, and without TLS.
    #[cfg(test)]
    pub(crate) fn with_user(user: &str, hash: &str) -> Self {
        let settings =
            WebSettings::parse(&format!("basic_auth_users: {{'{user}': '{hash}'}}")).expect("valid");
        Self { files: Vec::new(), tls: None, headers: settings.headers, users: settings.users }
    }

    /// This configuration, if it keeps strangers out in the same ways as `current`.
    ///
    /// # Errors
    ///
    /// It lacks one of them. A file that is cut off may be valid, too: it would open the port.
    fn replaces(self, current: &Self) -> Result<Self, WebConfigError> {
        let own = self.protections();
        match current.protections().into_iter().find(|protection| !own.contains(protection)) {
            Some(missing) => {
                let fault = ConfigFault::Unprotected(missing).anywhere();
                Err(WebConfigError::new(self.path(), fault))
            }
            None => Ok(self),
        }
    }

    /// The settings that keep strangers out.
    fn protections(&self) -> Vec<&'static str> {
        let tls = self.tls.as_ref();
        let users = (!self.users.is_empty()).then_some("basic_auth_users");
        tls.into_iter().flat_map(|tls| tls.protections.iter().copied()).chain(users).collect()
    }

    /// Whether one of its files has changed since it was read.
    fn has_changed(&self) -> bool {
        self.files.iter().any(WatchedFile::has_changed)
    }

    fn path(&self) -> &Path {
        // The configuration itself comes first.
        self.files.first().map_or(Path::new(""), |file| &file.path)
    }

    /// The configuration of TLS; none for plain HTTP.
    pub(crate) fn tls(&self) -> Option<&Arc<ServerConfig>> {
        self.tls.as_ref().map(|tls| &tls.server)
    }

    /// When the server's certificate expires.
    pub(crate) fn expiry(&self) -> Option<SystemTime> {
        self.tls.as_ref().map(|tls| tls.expiry)
    }

    /// The headers of every response.
    pub(crate) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// The users of basic authentication.
    pub(crate) fn users(&self) -> &Users {
        &self.users
    }
}

fn read(path: &Path) -> Result<String, ConfigFault> {
    let metadata = fs::metadata(path).map_err(ConfigFault::Read)?;
    if !metadata.is_file() {
        return Err(ConfigFault::Read(io::Error::other("it is not a regular file")));
    }
    if metadata.len() > MAX_SIZE {
        return Err(ConfigFault::Size(MAX_SIZE));
    }
    let text = fs::read(path).map_err(ConfigFault::Read)?;
    String::from_utf8(text).map_err(|_| ConfigFault::Encoding)
}
