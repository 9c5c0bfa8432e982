//! The common name (CN) in the subject of a certificate: as much of DER and X.509 (RFC 5280, 4.1) as that takes.
//!
//! ```text
//! Certificate > TBSCertificate > [0] version?, serial, algorithm, issuer, validity, subject
//! subject = SEQUENCE of SET of SEQUENCE { type OBJECT IDENTIFIER, value }
//! ```
//!
//! The certificate has been verified before. Anything unexpected is no name.

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The last common name that is not empty: a broker reads the subject from its end, as RFC 2253 writes it. `None` where
/// there is none, and for names that are not of UTF-8, printable or IA5 characters.
pub(crate) fn common_name(certificate: &[u8]) -> Option<&str> {
    let (certificate, _) = read(certificate, SEQUENCE)?;
    let (mut fields, _) = read(certificate, SEQUENCE)?;
    if let Some((_, rest)) = read(fields, VERSION) {
        fields = rest;
    }
    // Serial number, algorithm, issuer, validity.
    for _ in 0..4 {
        (_, _, fields) = element(fields)?;
    }
    let (mut names, _) = read(fields, SEQUENCE)?;
    let mut found = None;
    while !names.is_empty() {
        let (mut set, rest) = read(names, SET)?;
        names = rest;
        while !set.is_empty() {
            let (attribute, rest) = read(set, SEQUENCE)?;
            set = rest;
            let (kind, value) = read(attribute, OBJECT_IDENTIFIER)?;
            if kind == COMMON_NAME {
                found = text(value).filter(|name| !name.is_empty()).or(found);
            }
        }
    }
    found
}

fn text(value: &[u8]) -> Option<&str> {
    let (tag, text, _) = element(value)?;
    let text = matches!(tag, UTF8_STRING | PRINTABLE_STRING | IA5_STRING).then_some(text)?;
    std::str::from_utf8(text).ok()
}

/// The first element with its header, and what is behind it.
#[cfg(all(feature = "broker", feature = "tls"))]
pub(crate) fn whole(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, _, rest) = element(bytes)?;
    bytes.split_at_checked(bytes.len() - rest.len())
}

/// The content of the first element, which has this tag, and what is behind it.
pub(crate) fn read(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(bytes)?;
    (tag == wanted).then_some((content, rest))
}

/// Tag and content of the first element, and what is behind it. Tags are of one byte, lengths of at most four.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let count = usize::from(first & 0x7f);
        let digits = rest.get(..count).filter(|_| (1..=4).contains(&count))?;
        length =
            digits.iter().try_fold(0usize, |length, digit| length.checked_mul(256)?.checked_add((*digit).into()))?;
        rest = rest.get(count..)?;
    }
    Some((tag, rest.get(..length)?, rest.get(length..)?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject;

    use super::*;

    fn certificate(name: &str) -> Vec<u8> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenario/tls").join(name);
        CertificateDer::from_pem_file(path).expect("a certificate").to_vec()
    }

    #[test]
    fn the_subject_is_read_and_not_the_issuer() {
        for (file, name) in
            [("client-admin.pem", "admin"), ("client-nobody.pem", "nobody"), ("clients-ca.pem", "authority of clients")]
        {
            assert_eq!(common_name(&certificate(file)), Some(name), "{file}");
        }
    }

    #[test]
    fn a_cut_or_changed_certificate_is_no_panic() {
        let whole = certificate("client-admin.pem");
        for end in 0..whole.len() {
            assert_eq!(common_name(&whole[..end]), None, "cut at {end}");
        }
        for at in 0..whole.len() {
            for byte in [0, 0x7f, 0x80, 0x81, 0x84, 0xff] {
                let mut changed = whole.clone();
                changed[at] = byte;
                let _ = common_name(&changed);
            }
        }
    }

    /// A subject of these attributes, in a certificate with nothing else.
    fn with_subject(attributes: &[(&[u8], u8, &[u8])]) -> Vec<u8> {
        let der = |tag: u8, content: &[u8]| {
            let length = u8::try_from(content.len()).expect("short");
            [&[tag, length], content].concat()
        };
        let name = |(kind, tag, value): &(&[u8], u8, &[u8])| {
            der(SET, &der(SEQUENCE, &[der(OBJECT_IDENTIFIER, kind), der(*tag, value)].concat()))
        };
        let subject = der(SEQUENCE, &attributes.iter().flat_map(name).collect::<Vec<_>>());
        let others = [der(2, &[1]), der(SEQUENCE, &[]), der(SEQUENCE, &[]), der(SEQUENCE, &[])].concat();
        der(SEQUENCE, &der(SEQUENCE, &[others, subject].concat()))
    }

    #[test]
    fn the_last_name_that_says_something_counts() {
        let organization: &[u8] = &[0x55, 0x04, 0x0a];
        for (attributes, name) in [
            (&[(COMMON_NAME, UTF8_STRING, &b"a"[..]), (COMMON_NAME, PRINTABLE_STRING, b"b")][..], Some("b")),
            (&[(COMMON_NAME, IA5_STRING, b"a"), (COMMON_NAME, UTF8_STRING, b"")], Some("a")),
            (&[(organization, UTF8_STRING, b"o")], None),
            (&[(COMMON_NAME, UTF8_STRING, b"\xff")], None),
            (&[(COMMON_NAME, 0x1e, b"\0a")], None),
            (&[], None),
        ] {
            assert_eq!(common_name(&with_subject(attributes)), name, "{attributes:?}");
        }
    }
}
