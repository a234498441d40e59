//! TLS: the settings in `tls_server_config`, and rustls' configuration made of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::{ServerConfig, SupportedCipherSuite, SupportedProtocolVersion, version};
use tracing::warn;

use super::certificate::{self, ServerCertificate};
use super::client::{ClientAuth, ClientVerifier};
use super::document::Node;
use super::error::{ConfigFault, Fault, FileFault};
use super::section::{Section, choose};

/// Those of exporter-toolkit, apart from `cert`, `key` and `client_ca`, which would hold the text of a file.
const KEYS: [&str; 10] = [
    "cert_file",
    "key_file",
    "client_auth_type",
    "client_ca_file",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "curve_preferences",
    "prefer_server_cipher_suites",
];

/// The settings in `tls_server_config`.
#[derive(Debug)]
pub(super) struct TlsSettings {
    cert: NamedFile,
    key: NamedFile,
    client_ca: Option<NamedFile>,
    client_auth: ClientAuth,
    client_allowed_sans: Vec<String>,
    versions: Vec<&'static SupportedProtocolVersion>,
    provider: CryptoProvider,
    prefer_server_ciphers: bool,
}

/// A file that the configuration names.
#[derive(Debug)]
struct NamedFile {
    key: &'static str,
    line: usize,
    path: PathBuf,
}

/// rustls' configuration, and when the certificate expires.
pub(super) struct Tls {
    pub(super) server: Arc<ServerConfig>,
    pub(super) expiry: SystemTime,
    /// The settings that keep strangers out.
    pub(super) protections: Vec<&'static str>,
}

impl TlsSettings {
    pub(super) fn parse(node: Node) -> Result<Self, Fault> {
        let line = node.line;
        let mut section = Section::new(node, "tls_server_config", &KEYS)?;
        let cert = NamedFile::take(&mut section, "cert_file")?;
        let key = NamedFile::take(&mut section, "key_file")?;
        let missing = |key, remedy| ConfigFault::Missing { key, remedy }.at(line);
        let cert = cert.ok_or_else(|| missing("cert_file", "name the file with the certificate"))?;
        let key = key.ok_or_else(|| missing("key_file", "name the file with the private key"))?;
        let client_ca = NamedFile::take(&mut section, "client_ca_file")?;
        let client_auth = section.take("client_auth_type").map(ClientAuth::parse).transpose()?;
        let client_auth = client_auth.unwrap_or(ClientAuth::None);
        match &client_ca {
            Some(file) if client_auth == ClientAuth::None => {
                return Err(ConfigFault::UnusedClientCa.at(file.line));
            }
            None if client_auth.verifies() => {
                return Err(missing(
                    "client_ca_file",
                    "name the file with the certificates of the clients' CA",
                ));
            }
            _ => {}
        }
        Ok(Self {
            cert,
            key,
            client_ca,
            client_auth,
            client_allowed_sans: allowed_sans(&mut section, client_auth)?,
            versions: versions(&mut section)?,
            provider: CryptoProvider {
                cipher_suites: cipher_suites(&mut section)?,
                kx_groups: kx_groups(&mut section)?,
                ..ring::default_provider()
            },
            prefer_server_ciphers: match section.take("prefer_server_cipher_suites") {
                Some(node) => node.boolean("prefer_server_cipher_suites")?,
                None => true,
            },
        })
    }

    /// The files that the settings name, relative to `directory`.
    pub(super) fn paths(&self, directory: &Path) -> impl Iterator<Item = PathBuf> {
        let files = [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()];
        files.into_iter().flatten().map(move |file| directory.join(&file.path))
    }

    /// The settings that keep strangers out: TLS, and what it demands of clients.
    fn protections(&self) -> Vec<&'static str> {
        let mut protections = vec!["tls_server_config"];
        if self.client_auth == ClientAuth::RequireAndVerify {
            protections.push("client_auth_type: RequireAndVerifyClientCert");
            if !self.client_allowed_sans.is_empty() {
                protections.push("client_allowed_sans");
            }
        }
        protections
    }

    /// Reads the files, relative to `directory`. `now` must be within the validity of the certificate.
    pub(super) fn load(&self, directory: &Path, now: SystemTime) -> Result<Tls, Fault> {
        let ServerCertificate { chain, expiry } =
            self.cert.read(directory, |path| certificate::read_server_certificate(path, now))?;
        let key = self.key.read(directory, certificate::read_private_key)?;
        let roots = match &self.client_ca {
            Some(file) => file.read(directory, certificate::read_client_ca)?,
            None => rustls::RootCertStore::empty(),
        };
        let provider = Arc::new(self.provider.clone());
        let invalid = |error| ConfigFault::Tls(error).at(self.cert.line);
        let verifier = ClientVerifier::new(self.client_auth, roots, &self.client_allowed_sans, &provider);
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .map_err(invalid)?
            .with_client_cert_verifier(verifier.map_err(invalid)?);
        let mut server = builder.with_single_cert(chain, key).map_err(|error| {
            let fault = match error {
                rustls::Error::InconsistentKeys(_) => FileFault::Mismatch,
                error => FileFault::Key(error),
            };
            self.key.fault(directory, fault)
        })?;
        server.ignore_client_order = self.prefer_server_ciphers;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls { server: Arc::new(server), expiry, protections: self.protections() })
    }
}

impl NamedFile {
    fn take(section: &mut Section, key: &'static str) -> Result<Option<Self>, Fault> {
        let Some(node) = section.take(key) else { return Ok(None) };
        Ok(Some(Self { key, line: node.line, path: node.text(key)?.into() }))
    }

    fn read<T>(
        &self,
        directory: &Path,
        read: impl FnOnce(&Path) -> Result<T, FileFault>,
    ) -> Result<T, Fault> {
        read(&directory.join(&self.path)).map_err(|fault| self.fault(directory, fault))
    }

    fn fault(&self, directory: &Path, fault: FileFault) -> Fault {
        ConfigFault::File { key: self.key, path: directory.join(&self.path), fault }.at(self.line)
    }
}

/// The subject alternative names of which a client's certificate must have one.
fn allowed_sans(section: &mut Section, client_auth: ClientAuth) -> Result<Vec<String>, Fault> {
    let Some(node) = section.take("client_allowed_sans") else { return Ok(Vec::new()) };
    let line = node.line;
    let names = node.texts("client_allowed_sans")?;
    if !names.is_empty() && !client_auth.verifies() {
        return Err(ConfigFault::UnusedSans.at(line));
    }
    Ok(names.into_iter().map(|(_, name)| name).collect())
}

/// The versions from `min_version` to `max_version`. rustls has no TLS 1.0 and 1.1: as a minimum, they mean TLS 1.2.
fn versions(section: &mut Section) -> Result<Vec<&'static SupportedProtocolVersion>, Fault> {
    const VERSIONS: [(&str, u16); 4] = [("TLS13", 13), ("TLS12", 12), ("TLS11", 11), ("TLS10", 10)];
    let min = match section.take("min_version") {
        Some(node) => node.choice("min_version", &VERSIONS)?,
        None => 12,
    };
    if min < 12 {
        warn!("min_version: TLS 1.0 and 1.1 are insecure and not supported; the minimum is TLS 1.2");
    }
    let (line, max) = match section.take("max_version") {
        Some(node) => (node.line, node.choice("max_version", &VERSIONS[..2])?),
        None => (0, 13),
    };
    let versions: Vec<_> = [(13, &version::TLS13), (12, &version::TLS12)]
        .into_iter()
        .filter(|(number, _)| (min..=max).contains(number))
        .map(|(_, version)| version)
        .collect();
    if versions.is_empty() { Err(ConfigFault::Versions.at(line)) } else { Ok(versions) }
}

/// The cipher suites for TLS 1.2, by their IANA names. As in exporter-toolkit, those of TLS 1.3 are always enabled.
fn cipher_suites(section: &mut Section) -> Result<Vec<SupportedCipherSuite>, Fault> {
    let all = ring::ALL_CIPHER_SUITES.to_vec();
    let Some(node) = section.take("cipher_suites") else { return Ok(all) };
    let names: Vec<_> = all
        .iter()
        // rustls calls the suites of TLS 1.3 `TLS13_…`.
        .map(|suite| (suite.suite().as_str().unwrap_or_default().replacen("TLS13_", "TLS_", 1), *suite))
        .collect();
    let choices: Vec<_> = names.iter().map(|(name, suite)| (name.as_str(), *suite)).collect();
    let chosen = chosen(node, "cipher_suites", &choices)?;
    if chosen.is_empty() {
        return Ok(all);
    }
    let tls13 = all.into_iter().filter(|suite| suite.tls13().is_some());
    Ok(tls13.chain(chosen.into_iter().filter(|suite| suite.tls13().is_none())).collect())
}

/// The groups for key exchange, by Go's names.
fn kx_groups(section: &mut Section) -> Result<Vec<&'static dyn SupportedKxGroup>, Fault> {
    use ring::kx_group::{SECP256R1, SECP384R1, X25519};
    let all = ring::ALL_KX_GROUPS.to_vec();
    let Some(node) = section.take("curve_preferences") else { return Ok(all) };
    let choices = [("X25519", X25519), ("CurveP256", SECP256R1), ("CurveP384", SECP384R1)];
    let chosen = chosen(node, "curve_preferences", &choices)?;
    Ok(if chosen.is_empty() { all } else { chosen })
}

/// The values of a list of words.
fn chosen<T: Copy>(node: Node, key: &'static str, choices: &[(&str, T)]) -> Result<Vec<T>, Fault> {
    let words = node.texts(key)?;
    words
        .into_iter()
        .map(|(line, word)| choose(key, &word, choices).map_err(|fault| fault.at(line)))
        .collect()
}
