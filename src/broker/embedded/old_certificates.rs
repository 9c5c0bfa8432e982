//! Client certificates of X.509 version 1. The TLS library takes none, a real broker does: such certificates are what many
//! a guide for Pulsar makes. They have no extensions, so what there is to check is the signature of an authority and the time.
//!
//! ```text
//! Certificate    = SEQUENCE { TBSCertificate, algorithm SEQUENCE, signature BIT STRING }
//! TBSCertificate = SEQUENCE { serial INTEGER, algorithm, issuer, validity, subject, key, all SEQUENCE }
//! ```

use std::sync::Arc;

use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use tokio_rustls::rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::broker::rest::iso;
use crate::common_name::{read, whole};

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;

/// Takes what the library takes, and certificates of version 1 that an authority has signed itself; these with TLS 1.3 only.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    pub(super) library: Arc<dyn ClientCertVerifier>,
    pub(super) authorities: Vec<TrustAnchor<'static>>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.library.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.library.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.library.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match OldCertificate::parse(end_entity) {
            None => self.library.verify_client_cert(end_entity, intermediates, now),
            Some(old) => {
                old.verify(&self.authorities, self.algorithms, now).map_err(Error::InvalidCertificate)?;
                Ok(ClientCertVerified::assertion())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.library.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match OldCertificate::parse(certificate) {
            None => self.library.verify_tls13_signature(message, certificate, signature),
            Some(old) => {
                let key = SubjectPublicKeyInfoDer::from(old.key);
                verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
            }
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.library.supported_verify_schemes()
    }
}

/// The parts of a certificate of version 1.
struct OldCertificate<'a> {
    /// What is signed.
    signed: &'a [u8],
    /// Without its header, as an authority has it.
    issuer: &'a [u8],
    not_before: &'a [u8],
    not_after: &'a [u8],
    /// Whole, the subject's.
    key: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> OldCertificate<'a> {
    /// `None` for what is no certificate of version 1.
    fn parse(certificate: &'a [u8]) -> Option<Self> {
        let (certificate, _) = read(certificate, SEQUENCE)?;
        let (signed, rest) = whole(certificate)?;
        let (algorithm, rest) = read(rest, SEQUENCE)?;
        let (signature, _) = read(rest, BIT_STRING)?;
        let (fields, _) = read(signed, SEQUENCE)?;
        // A later version stands before the serial number.
        let (_, fields) = read(fields, INTEGER)?;
        let (repeated, fields) = read(fields, SEQUENCE)?;
        let (issuer, fields) = read(fields, SEQUENCE)?;
        let (validity, fields) = read(fields, SEQUENCE)?;
        let (not_before, validity) = whole(validity)?;
        let (not_after, _) = whole(validity)?;
        let (_, fields) = read(fields, SEQUENCE)?;
        let (key, _) = whole(fields)?;
        // The first byte counts the bits that are not used: none, of a signature.
        let signature = signature.strip_prefix(&[0])?;
        (repeated == algorithm).then_some(Self { signed, issuer, not_before, not_after, key, algorithm, signature })
    }

    fn verify(
        &self,
        authorities: &[TrustAnchor<'_>],
        algorithms: WebPkiSupportedAlgorithms,
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        let mut named = authorities.iter().filter(|authority| *authority.subject == *self.issuer).peekable();
        named.peek().ok_or(CertificateError::UnknownIssuer)?;
        if !named.any(|authority| self.is_signed_by(authority, algorithms)) {
            return Err(CertificateError::BadSignature);
        }
        let now: String = iso(now.as_secs().saturating_mul(1000)).chars().filter(char::is_ascii_digit).collect();
        let [not_before, not_after] =
            [self.not_before, self.not_after].map(|time| digits(time).ok_or(CertificateError::BadEncoding));
        match () {
            () if now < not_before? => Err(CertificateError::NotValidYet),
            () if now > not_after? => Err(CertificateError::Expired),
            () => Ok(()),
        }
    }

    fn is_signed_by(&self, authority: &TrustAnchor<'_>, algorithms: WebPkiSupportedAlgorithms) -> bool {
        let key = || {
            let (algorithm, rest) = read(&authority.subject_public_key_info, SEQUENCE)?;
            Some((algorithm, read(rest, BIT_STRING)?.0.strip_prefix(&[0])?))
        };
        let Some((of_key, key)) = key() else { return false };
        let fits = |one: &&&dyn tokio_rustls::rustls::pki_types::SignatureVerificationAlgorithm| {
            *one.signature_alg_id() == *self.algorithm && *one.public_key_alg_id() == *of_key
        };
        algorithms.all.iter().filter(fits).any(|one| one.verify_signature(key, self.signed, self.signature).is_ok())
    }
}

/// A time as `YYYYMMDDhhmmss`.
fn digits(time: &[u8]) -> Option<String> {
    let century = |text: &str| if text < "50" { "20" } else { "19" };
    let text = |content: &'_ [u8]| Some(std::str::from_utf8(content).ok()?.strip_suffix('Z')?.to_owned());
    let time = match read(time, UTC_TIME) {
        Some((content, _)) => text(content).map(|text| format!("{}{text}", century(&text)))?,
        None => text(read(time, GENERALIZED_TIME)?.0)?,
    };
    (time.len() == 14 && time.bytes().all(|byte| byte.is_ascii_digit())).then_some(time)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use tokio_rustls::rustls::RootCertStore;
    use tokio_rustls::rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::tls_provider;

    /// 2030 and 2200.
    const WITHIN: u64 = 1_900_000_000;
    const AFTER: u64 = 7_300_000_000;

    fn certificate(name: &str) -> CertificateDer<'static> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenario/tls").join(name);
        CertificateDer::from_pem_file(path).expect("a certificate")
    }

    fn verify(client: &[u8], authority: &str, now: u64) -> Result<(), CertificateError> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(authority)).expect("an authority");
        let algorithms = tls_provider::provider().expect("a provider").signature_verification_algorithms;
        let old = OldCertificate::parse(client).ok_or(CertificateError::BadEncoding)?;
        old.verify(&roots.roots, algorithms, UnixTime::since_unix_epoch(Duration::from_secs(now)))
    }

    #[test]
    fn an_old_certificate_needs_its_authority_and_its_time() {
        let client = certificate("client-v1.pem");
        let cases = [
            ("clients-v1-ca.pem", WITHIN, Ok(())),
            ("clients-v1-ca.pem", 0, Err(CertificateError::NotValidYet)),
            ("clients-v1-ca.pem", AFTER, Err(CertificateError::Expired)),
            ("clients-v1-other-ca.pem", WITHIN, Err(CertificateError::BadSignature)),
            ("clients-ca.pem", WITHIN, Err(CertificateError::UnknownIssuer)),
        ];
        for (authority, now, expected) in cases {
            assert_eq!(verify(&client, authority, now), expected, "{authority} at {now}");
        }
        assert!(OldCertificate::parse(&certificate("client-admin.pem")).is_none(), "of version 3");
    }

    #[test]
    fn a_cut_or_changed_certificate_is_refused() {
        let client = certificate("client-v1.pem");
        for end in 0..client.len() {
            assert!(OldCertificate::parse(&client[..end]).is_none(), "cut at {end}");
        }
        for at in 0..client.len() {
            let mut changed = client.to_vec();
            changed[at] ^= 1;
            assert!(verify(&changed, "clients-v1-ca.pem", WITHIN).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn times_have_four_digits_of_the_year() {
        assert_eq!(digits(b"\x17\x0d491231235959Z").as_deref(), Some("20491231235959"));
        assert_eq!(digits(b"\x17\x0d500101000000Z").as_deref(), Some("19500101000000"));
        assert_eq!(digits(b"\x18\x0f20500101000000Z").as_deref(), Some("20500101000000"));
        assert_eq!(digits(b"\x18\x0f2050010100000xZ"), None);
        assert_eq!(digits(b"\x02\x01\x00"), None);
    }
}
