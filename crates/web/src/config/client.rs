//! Whether clients need a certificate, and which ones are accepted.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};

use super::certificate::subject_alternative_names;
use super::document::Node;
use super::error::Fault;

/// `client_auth_type`: the names are those of Go's `crypto/tls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientAuth {
    /// No certificate is requested.
    None,
    /// A certificate is requested. The client need not send one, and anyone may have issued it.
    Request,
    /// The client must send a certificate, and anyone may have issued it.
    RequireAny,
    /// If the client sends a certificate, the CA must have issued it.
    VerifyIfGiven,
    /// The client must send a certificate that the CA has issued.
    RequireAndVerify,
}

impl ClientAuth {
    pub(super) fn parse(node: Node) -> Result<Self, Fault> {
        node.choice(
            "client_auth_type",
            &[
                ("NoClientCert", Self::None),
                ("RequestClientCert", Self::Request),
                ("RequireAnyClientCert", Self::RequireAny),
                ("VerifyClientCertIfGiven", Self::VerifyIfGiven),
                ("RequireAndVerifyClientCert", Self::RequireAndVerify),
            ],
        )
    }

    /// Whether the CA must have issued the client's certificate.
    pub(super) const fn verifies(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }
}

/// Verifies the certificates of clients.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    auth: ClientAuth,
    /// Verifies that the CA issued the certificate, if that is required.
    issued: Option<Arc<dyn ClientCertVerifier>>,
    /// If not empty, one of these names must be in the certificate.
    allowed_sans: Vec<String>,
    provider: Arc<CryptoProvider>,
}

impl ClientVerifier {
    /// # Errors
    ///
    /// No CA is given, and it is needed.
    pub(super) fn new(
        auth: ClientAuth,
        roots: RootCertStore,
        allowed_sans: &[String],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<Self>, Error> {
        let issued = if auth.verifies() {
            let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(provider));
            Some(builder.build().map_err(|error| Error::General(error.to_string()))?)
        } else {
            None
        };
        Ok(Arc::new(Self {
            auth,
            issued,
            allowed_sans: allowed_sans.to_vec(),
            provider: Arc::clone(provider),
        }))
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.auth != ClientAuth::None
    }

    fn client_auth_mandatory(&self) -> bool {
        matches!(self.auth, ClientAuth::RequireAny | ClientAuth::RequireAndVerify)
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.issued.as_ref().map_or(&[], |issued| issued.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let Some(issued) = &self.issued else { return Ok(ClientCertVerified::assertion()) };
        let verified = issued.verify_client_cert(end_entity, intermediates, now)?;
        let allowed = |name: &String| self.allowed_sans.contains(name);
        if self.allowed_sans.is_empty() || subject_alternative_names(end_entity).iter().any(allowed) {
            Ok(verified)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    // These prove that the client has the certificate's private key, whoever issued the certificate.

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
