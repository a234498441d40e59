//! The certificates and keys that a web configuration names, in PEM files.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::error::FileFault;

/// Largest size of a file in bytes. A bundle of all public CAs has 200 KiB.
const MAX_SIZE: u64 = 1 << 20;

/// Permissions of "others": read, write, execute. A group may read the file, as systemd's credentials and Kubernetes'
/// secrets with an `fsGroup` need it.
const OTHERS: u32 = 0o007;

/// The server's certificate, followed by those of its issuers.
pub(super) struct ServerCertificate {
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// When the first certificate expires.
    pub(super) expiry: SystemTime,
}

/// Reads the server's certificate, which must be valid at `now`.
///
/// Certificates of issuers may have expired: clients ignore those that they do not need.
pub(super) fn read_server_certificate(path: &Path, now: SystemTime) -> Result<ServerCertificate, FileFault> {
    let chain = certificates(&read(path)?.0)?;
    let first = chain.first().ok_or(FileFault::NoCertificate)?;
    let certificate = parse(first).map_err(|error| FileFault::Certificate(error.to_string()))?;
    let validity = certificate.tbs_certificate().validity();
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (from, to) = (validity.not_before, validity.not_after);
    // RFC 5280, section 4.1.2.5: both dates are included.
    if now < from.to_unix_duration() {
        return Err(FileFault::NotYetValid(from.to_date_time().to_string()));
    }
    if now > to.to_unix_duration() {
        return Err(FileFault::Expired(to.to_date_time().to_string()));
    }
    Ok(ServerCertificate { chain, expiry: SystemTime::UNIX_EPOCH + to.to_unix_duration() })
}

/// Reads a private key in PKCS #8, PKCS #1 or SEC 1 form. Only the owner and the group of the file may have access.
pub(super) fn read_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileFault> {
    let (text, mode) = read(path)?;
    if mode & OTHERS != 0 {
        return Err(FileFault::Mode(mode));
    }
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) if is_encrypted(&text) => Err(FileFault::Encrypted),
        Err(pem::Error::NoItemsFound) => Err(FileFault::NoKey),
        Err(error) => Err(FileFault::Pem(error.to_string())),
    }
}

/// RFC 7468, section 11.
fn is_encrypted(text: &[u8]) -> bool {
    String::from_utf8_lossy(text).contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
}

/// Reads the certificates of the CAs that issue certificates to clients.
pub(super) fn read_client_ca(path: &Path) -> Result<RootCertStore, FileFault> {
    let certificates = certificates(&read(path)?.0)?;
    if certificates.is_empty() {
        return Err(FileFault::NoCertificate);
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| FileFault::Certificate(error.to_string()))?;
    }
    Ok(roots)
}

/// The subject alternative names of a certificate: host names, e-mail addresses, URIs and IP addresses. RFC 5280, section
/// 4.2.1.6.
pub(super) fn subject_alternative_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = parse(certificate) else { return Vec::new() };
    let Ok(Some((_, SubjectAltName(names)))) = certificate.tbs_certificate().get_extension() else {
        return Vec::new();
    };
    names.iter().filter_map(name_text).collect()
}

fn name_text(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(text)
        | GeneralName::Rfc822Name(text)
        | GeneralName::UniformResourceIdentifier(text) => Some(text.to_string()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(|octets| Ipv4Addr::from(octets).to_string());
            v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|octets| Ipv6Addr::from(octets).to_string())).ok()
        }
        _ => None,
    }
}

fn parse(certificate: &CertificateDer<'_>) -> Result<x509_cert::Certificate, x509_cert::der::Error> {
    x509_cert::Certificate::from_der(certificate)
}

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, FileFault> {
    CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|error| FileFault::Pem(error.to_string()))
}

/// The contents and the permissions of a file.
fn read(path: &Path) -> Result<(Vec<u8>, u32), FileFault> {
    // Checked before opening it, because opening a pipe waits for its writer.
    if !fs::metadata(path).map_err(FileFault::Read)?.is_file() {
        return Err(FileFault::Size(MAX_SIZE));
    }
    let read = || {
        let mut file = File::open(path)?;
        let mode = file.metadata()?.permissions().mode() & 0o7777;
        let mut contents = Vec::new();
        let read = Read::by_ref(&mut file).take(MAX_SIZE + 1).read_to_end(&mut contents)?;
        Ok::<_, io::Error>((contents, mode, read as u64))
    };
    match read() {
        Ok((contents, mode, len)) if len <= MAX_SIZE => Ok((contents, mode)),
        Ok(_) => Err(FileFault::Size(MAX_SIZE)),
        Err(error) => Err(FileFault::Read(error)),
    }
}
