//! From the text of a key (PEM, RFC 7468) to the DER that the cryptography reads.

use zeroize::Zeroizing;

use crate::base64_text;

/// `SEQUENCE { OID rsaEncryption, NULL }`, behind the version 0: how PKCS#8 begins for an RSA key (RFC 5208, RFC 8017 A.1).
const PKCS8_RSA: [u8; 18] = [2, 1, 0, 0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];

/// `OID id-ecPublicKey`.
const EC_KEY: [u8; 9] = [6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];

/// Where the algorithm of a key stands, bytes from its start.
const ALGORITHM_WITHIN: usize = 48;

const EC: &str = "it is an EC key, and only RSA keys are supported";

/// The SPKI of a public key.
///
/// # Errors
/// What it is instead; never the text.
pub(super) fn public_key(pem: &[u8]) -> Result<Vec<u8>, &'static str> {
    let block = Block::find(pem)?;
    match block.label {
        "PUBLIC KEY" => block.der().map(|der| der.to_vec()),
        "PRIVATE KEY" | "RSA PRIVATE KEY" => Err("it is a private key, and the public one is wanted"),
        "RSA PUBLIC KEY" => Err("it is PKCS#1 (RSA PUBLIC KEY), and SPKI (PUBLIC KEY) is wanted"),
        "CERTIFICATE" => Err("it is a certificate, and the public key (PUBLIC KEY) is wanted"),
        label if label.starts_with("EC ") => Err(EC),
        _ => Err("it is no public key (PUBLIC KEY)"),
    }
}

/// The PKCS#8 of a private key.
///
/// # Errors
/// What it is instead; never the text.
pub(super) fn private_key(pem: &[u8]) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    let block = Block::find(pem)?;
    match block.label {
        "PRIVATE KEY" => block.der(),
        "RSA PRIVATE KEY" if block.body.contains("ENCRYPTED") => Err("it has a passphrase, which is not supported"),
        "RSA PRIVATE KEY" => Ok(pkcs8(&block.der()?)),
        "ENCRYPTED PRIVATE KEY" => Err("it has a passphrase, which is not supported"),
        "PUBLIC KEY" => Err("it is a public key, and the private one is wanted"),
        label if label.starts_with("EC ") => Err(EC),
        _ => Err("it is no private key (PRIVATE KEY or RSA PRIVATE KEY)"),
    }
}

/// The first block of a text.
struct Block<'a> {
    label: &'a str,
    body: &'a str,
}

impl<'a> Block<'a> {
    fn find(pem: &'a [u8]) -> Result<Self, &'static str> {
        const NO_PEM: &str = "it is no PEM text (-----BEGIN ...)";
        let text = std::str::from_utf8(pem).map_err(|_| NO_PEM)?;
        let (_, rest) = text.split_once("-----BEGIN ").ok_or(NO_PEM)?;
        let (label, rest) = rest.split_once("-----").ok_or(NO_PEM)?;
        let (body, _) = rest.split_once("-----END ").ok_or("its PEM text has no end")?;
        Ok(Self { label, body })
    }

    fn der(&self) -> Result<Zeroizing<Vec<u8>>, &'static str> {
        let mut digits = Zeroizing::new(String::with_capacity(self.body.len()));
        digits.extend(self.body.chars().filter(|char| !char.is_ascii_whitespace()));
        let der = base64_text::decode(&digits).map(Zeroizing::new).ok_or("its PEM text is no base64")?;
        let start = &der[..der.len().min(ALGORITHM_WITHIN)];
        if start.windows(EC_KEY.len()).any(|oid| oid == EC_KEY) { Err(EC) } else { Ok(der) }
    }
}

/// PKCS#1 in PKCS#8.
fn pkcs8(pkcs1: &[u8]) -> Zeroizing<Vec<u8>> {
    let (octets, octets_len) = head(0x04, pkcs1.len());
    let (sequence, sequence_len) = head(0x30, PKCS8_RSA.len() + octets_len + pkcs1.len());
    let parts = [&sequence[..sequence_len], &PKCS8_RSA, &octets[..octets_len], pkcs1];
    let mut der = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
    parts.iter().for_each(|part| der.extend_from_slice(part));
    der
}

/// Tag and length of a DER value, and how many bytes they take.
fn head(tag: u8, len: usize) -> ([u8; 5], usize) {
    // A key has at most 64 KiB.
    let [.., a, b, c] = (len as u64).to_be_bytes();
    match len {
        0..0x80 => ([tag, c, 0, 0, 0], 2),
        0x80..0x100 => ([tag, 0x81, c, 0, 0], 3),
        0x100..0x1_0000 => ([tag, 0x82, b, c, 0], 4),
        _ => ([tag, 0x83, a, b, c], 5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_rsa_key_is_called_by_its_name() {
        let pem = |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        let public = |text: &str| public_key(text.as_bytes()).expect_err("no public key");
        let private = |text: &str| private_key(text.as_bytes()).expect_err("no private key");
        let ec = base64_text::encode(&[&[0x30, 0x59, 0x30, 0x13][..], &EC_KEY].concat());
        assert_eq!(public(&pem("PUBLIC KEY", &ec)), EC);
        assert_eq!(private(&pem("PRIVATE KEY", &ec)), EC);
        assert_eq!(private(&pem("EC PRIVATE KEY", "")), EC);
        assert_eq!(private(&format!("{}{}", pem("EC PARAMETERS", ""), pem("EC PRIVATE KEY", ""))), EC);
        assert!(private(&pem("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\n\nAAAA")).contains("passphrase"));
        assert!(private(&pem("ENCRYPTED PRIVATE KEY", "AAAA")).contains("passphrase"));
        assert!(private(&pem("PUBLIC KEY", "")).contains("public key"));
        assert!(public(&pem("RSA PRIVATE KEY", "")).contains("private key"));
        assert!(public(&pem("CERTIFICATE", "")).contains("certificate"));
        assert!(public("-----BEGIN PUBLIC KEY-----\nAAAA").contains("no end"));
        assert!(public(&pem("PUBLIC KEY", "not base64!")).contains("base64"));
        for text in ["", "a key", "-----BEGIN ", "-----BEGIN X-----END", "\u{0}"] {
            assert!(!public(text).is_empty() && !private(text).is_empty());
        }
        assert!(public_key(&[0xff, 0xfe]).is_err());
    }

    #[test]
    fn lengths_are_written_as_der_has_them() {
        for (len, expected) in [
            (5, &[4, 5][..]),
            (0x80, &[4, 0x81, 0x80]),
            (0x1234, &[4, 0x82, 0x12, 0x34]),
            (0x12345, &[4, 0x83, 1, 0x23, 0x45]),
        ] {
            let (bytes, count) = head(4, len);
            assert_eq!(&bytes[..count], expected);
        }
    }
}
