//! Verifies the peer's certificate.
//!
//! | the peer shows | the chain is verified by | the host name |
//! | --- | --- | --- |
//! | a certificate that a trusted authority has signed | WebPKI (RFC 5280) | must fit, unless that is skipped |
//! | an authority's certificate (CA:TRUE) that is itself in `ca_file`, byte for byte | comparison, and its validity | must fit, unless that is skipped |
//! | any other authority's certificate | refused: an authority is no server (RFC 5280, 4.2.1.9) | |
//!
//! The second row is what `openssl req -x509` makes and what people give to both ends; OpenSSL and Java accept it.

use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{
    WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor, verify_server_name,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{self, CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::reason;
use super::roots::Roots;
use crate::error::{Error, ErrorKind, Result};

/// See the table above.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    /// For the signatures of the handshake.
    webpki: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    pinned: Vec<CertificateDer<'static>>,
    skips_host_name: bool,
}

impl ServerVerifier {
    pub(super) fn new(roots: &Roots, provider: Arc<CryptoProvider>, skips_host_name: bool) -> Result<Self> {
        let algorithms = provider.signature_verification_algorithms;
        let webpki = WebPkiServerVerifier::builder_with_provider(roots.store.clone(), provider).build();
        let webpki =
            webpki.map_err(|error| Error::local(ErrorKind::Unsupported, "TLS is not available").with_source(error))?;
        let (roots, pinned) = (roots.store.clone(), roots.pinned.clone());
        Ok(Self { webpki, roots, algorithms, pinned, skips_host_name })
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let signed = verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        );
        match signed {
            // The validity was checked before the constraint that failed.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
                if reason::is_authority_as_server(&other) && self.pinned.iter().any(|pinned| pinned == end_entity) => {}
            signed => signed?,
        }
        if !self.skips_host_name {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
