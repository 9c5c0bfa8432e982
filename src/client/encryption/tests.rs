//! Keys, data keys and decryption, without a broker.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::data_keys::DataKeys;
use super::*;
use crate::client::events::{EventQueue, Events, ProducerEvent};
use crate::client::unreadable::UnreadableReason;
use crate::error::{Error, ErrorKind, Origin, Result};
use crate::machine::producer::encrypt::{Encrypt, IV_BYTES, Seal, TAG_BYTES};
use crate::wire::encryption::encryption_keys;
use crate::wire::{EncryptionFields, MetadataFields};

const FIRST: &str = include_str!("../../../tests/keys/first.public.pem");
const FIRST_PKCS1: &str = include_str!("../../../tests/keys/first.pkcs1.pem");
const FIRST_PKCS8: &str = include_str!("../../../tests/keys/first.pkcs8.pem");
const SECOND: &str = include_str!("../../../tests/keys/second.public.pem");
const SECOND_PKCS1: &str = include_str!("../../../tests/keys/second.pkcs1.pem");
const EC_PUBLIC: &str = include_str!("../../../tests/keys/ec.public.pem");
const EC_PRIVATE: &str = include_str!("../../../tests/keys/ec.private.pem");
const SHORT: &str = include_str!("../../../tests/keys/short.public.pem");

const HOUR: Duration = Duration::from_secs(3600);

fn public() -> PemKeyReader {
    PemKeyReader::new().with_public_key("a", PemKey::text(FIRST)).with_public_key("b", PemKey::text(SECOND))
}

fn data_keys(names: &[&str], reader: impl CryptoKeyReader, now: Instant) -> Result<DataKeys> {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    DataKeys::new(names, Arc::new(reader), ProducerCryptoFailureAction::Fail, Arc::default(), now)
}

fn decryption(reader: impl CryptoKeyReader) -> Decryption {
    let reader: Option<Arc<dyn CryptoKeyReader>> = Some(Arc::new(reader));
    Decryption::new(&EncryptionOptions { names: Vec::new(), reader, action: None })
}

/// Metadata and payload of an entry.
fn sealed(keys: &dyn Encrypt, plain: &[u8], now: Instant) -> (BytesMut, Vec<u8>) {
    let key = keys.data_key(now).expect("a key").expect("encryption");
    let mut payload = plain.to_vec();
    let Seal { iv, tag } = key.cipher().seal(&mut payload).expect("a vector");
    payload.extend_from_slice(&tag);
    let encryption = Some(EncryptionFields { keys: key.cipher().encryption_keys(), param: &iv });
    let mut metadata = BytesMut::new();
    MetadataFields { producer_name: "p", encryption, ..MetadataFields::default() }.encode(&mut metadata);
    assert!(metadata.len() + payload.len() <= plain.len() + keys.overhead_bytes() + 16, "more than is reckoned with");
    (metadata, payload)
}

#[test]
fn each_of_the_keys_opens_what_was_encrypted_for_all() {
    let now = Instant::now();
    let keys = data_keys(&["a", "b"], public(), now).expect("two keys");
    for plain in [&b""[..], b"x", &[7; 100_000]] {
        let (metadata, payload) = sealed(&keys, plain, now);
        assert!(plain.len() < 16 || !payload.windows(plain.len()).any(|part| part == plain));
        for (name, private) in [("a", FIRST_PKCS1), ("a", FIRST_PKCS8), ("b", SECOND_PKCS1)] {
            let opening = decryption(PemKeyReader::new().with_private_key(name, PemKey::text(private)));
            assert_eq!(opening.open(&metadata, &payload, now).as_deref(), Ok(plain), "{name}");
        }
    }
}

/// By `MessageCryptoBc` of Pulsar 4.0.8.
#[test]
fn what_java_has_encrypted_opens() {
    let entry = include_bytes!("../../../tests/keys/java-entry.bin");
    let (size, rest) = entry.split_first_chunk().expect("a size");
    let (metadata, payload) = rest.split_at(u16::from_be_bytes(*size).into());
    let opening = decryption(PemKeyReader::new().with_private_key("a", PemKey::text(FIRST_PKCS8)));
    let plain = opening.open(metadata, payload, Instant::now());
    assert_eq!(plain.as_deref(), Ok(&b"encrypted by the Java client"[..]));
    let context = EncryptionContext::of(metadata, true).expect("encrypted");
    let key = context.keys().next().expect("a key");
    assert_eq!(key.metadata().collect::<Vec<_>>(), [("version", "1")]);
    assert_eq!((context.algorithm(), context.param().len()), (None, IV_BYTES));
}

#[test]
fn what_does_not_open_says_which_key_and_why() {
    let now = Instant::now();
    let (metadata, payload) = sealed(&data_keys(&["a"], public(), now).expect("a key"), b"plain", now);
    let failure = |opening: &Decryption, metadata: &[u8], payload: &[u8]| {
        let Undecrypted { reason, error } = opening.open(metadata, payload, now).expect_err("not for this one");
        assert_eq!((reason, error.kind()), (UnreadableReason::DecryptionFailed, ErrorKind::Crypto));
        error.to_string()
    };
    let of = |pem: &str| decryption(PemKeyReader::new().with_private_key("a", PemKey::text(pem)));
    let why = failure(&of(SECOND_PKCS1), &metadata, &payload);
    assert!(why.contains("\"a\"") && why.contains("not encrypted for this key"), "{why}");
    let why = failure(&of(EC_PRIVATE), &metadata, &payload);
    assert!(why.contains("\"a\"") && why.contains("EC key"), "{why}");
    let why = failure(&decryption(PemKeyReader::new()), &metadata, &payload);
    assert!(why.contains("no private key of that name"), "{why}");
    let missing = PemKeyReader::new().with_default_private_key(PemKey::file("/no/such/key.pem"));
    let why = failure(&decryption(missing), &metadata, &payload);
    assert!(why.contains("/no/such/key.pem"), "{why}");
    let right = of(FIRST_PKCS1);
    for at in 0..payload.len() {
        let mut changed = payload.clone();
        changed[at] ^= 1;
        let why = failure(&right, &metadata, &changed);
        assert!(why.contains("not what was encrypted"), "{why}");
    }
    assert!(failure(&right, &metadata, &payload[..TAG_BYTES - 1]).contains("shorter than its tag"));
    assert!(failure(&right, &metadata[..0], &payload).contains("encryption_param has 0 bytes"));
    assert!(right.open(&metadata, &payload, now).is_ok());
    let Undecrypted { reason, error } = Decryption::default().open(&metadata, &payload, now).expect_err("no reader");
    assert_eq!(reason, UnreadableReason::Encrypted);
    assert!(error.to_string().contains("crypto_key_reader"), "{error}");
}

/// Counts how often it is asked, and does what the test wants.
#[derive(Clone, Default)]
struct Asked(Arc<AtomicUsize>);

impl Asked {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl CryptoKeyReader for Asked {
    fn public_key(&self, _name: &str, metadata: &[(String, String)]) -> Result<EncryptionKeyInfo> {
        assert!(metadata.is_empty());
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(EncryptionKeyInfo::new(FIRST).with_metadata("version", "1")),
            1 => Err(Error::crypto("the vault is closed")),
            2 => panic!("the vault has fallen over"),
            3 => Ok(EncryptionKeyInfo::new(EC_PUBLIC)),
            4 => Ok(EncryptionKeyInfo::new(SHORT)),
            _ => Ok(EncryptionKeyInfo::new(SECOND).with_metadata("version", "2")),
        }
    }

    fn private_key(&self, name: &str, metadata: &[(String, String)]) -> Result<EncryptionKeyInfo> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let version = metadata.iter().find(|(key, _)| key == "version").map(|(_, value)| value.as_str());
        match (name, version) {
            ("a", Some("1")) => Ok(EncryptionKeyInfo::new(FIRST_PKCS1)),
            ("a", Some("2")) => Ok(EncryptionKeyInfo::new(SECOND_PKCS1)),
            _ => panic!("no {name} of {version:?}"),
        }
    }
}

#[test]
fn a_data_key_is_replaced_after_four_hours_and_its_keys_are_read_anew() {
    let start = Instant::now();
    let keys = data_keys(&["a"], Asked::default(), start).expect("a key");
    let opening = decryption(Asked::default());
    let mut wrapped = HashSet::new();
    let mut entries = Vec::new();
    let mut seal_at = |now| {
        let (metadata, payload) = sealed(&keys, b"plain", now);
        wrapped.insert(encryption_keys(&metadata).next().expect("a key").value().to_vec());
        entries.push((metadata, payload));
        wrapped.len()
    };
    assert_eq!([seal_at(start), seal_at(start + 4 * HOUR - Duration::from_nanos(1))], [1, 1]);
    let errors = ["the vault is closed", "the crypto_key_reader panicked", "an EC key", "2048 to 8192 bits"];
    for (at, expected) in errors.into_iter().enumerate() {
        let error = keys.data_key(start + 4 * HOUR).map(drop).expect_err(expected);
        assert_eq!(error.kind(), ErrorKind::Crypto);
        assert!(error.to_string().contains(expected) && error.to_string().contains("\"a\""), "{error}");
        assert_eq!(error.is_retriable(), at == 1, "{error}");
        assert_ne!(error.origin(), Origin::Broker);
    }
    assert_eq!([seal_at(start + 4 * HOUR), seal_at(start + 8 * HOUR - Duration::from_nanos(1))], [2, 2]);
    assert_eq!(seal_at(start + 8 * HOUR), 3);
    for (metadata, payload) in &entries {
        assert_eq!(opening.open(metadata, payload, start).as_deref(), Ok(&b"plain"[..]));
    }
}

#[test]
fn a_data_key_is_replaced_when_its_vectors_are_used_up_none_twice() {
    let now = Instant::now();
    let keys = data_keys(&["a"], public(), now).expect("a key").with_entries_max(100);
    let (mut ivs, mut wrapped) = (HashSet::new(), HashSet::new());
    for entry in 0..300 {
        let key = keys.data_key(now).expect("a key").expect("encryption");
        let Seal { iv, .. } = key.cipher().seal(&mut []).expect("a vector");
        assert!(ivs.insert(iv));
        wrapped.insert(key.cipher().encryption_keys().to_vec());
        assert_eq!(wrapped.len(), entry / 100 + 1);
    }
    let number = |iv: &[u8; IV_BYTES]| iv.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    let mut numbers: Vec<_> = ivs.iter().map(number).collect();
    numbers.sort_unstable();
    let neighbours = numbers.windows(2).filter(|pair| pair[1] - pair[0] == 1).count();
    assert!((297..=299).contains(&neighbours), "three runs, each from a start of its own: {neighbours}");
}

#[test]
fn what_cannot_be_encrypted_is_sent_and_reported_once() {
    let (start, events) = (Instant::now(), Arc::new(EventQueue::default()));
    let action = ProducerCryptoFailureAction::Send;
    let keys =
        DataKeys::new(vec!["a".into()], Arc::new(Asked::default()), action, events.clone(), start).expect("a key");
    assert!(keys.data_key(start).expect("a key").is_some());
    for _ in 0..4 {
        assert!(keys.data_key(start + 4 * HOUR).expect("sent as it is").is_none());
    }
    let mut events = Events::new(events);
    let Some(ProducerEvent::SentUnencrypted { error }) = events.try_recv() else { panic!("no event") };
    assert!(error.to_string().contains("the vault is closed"), "{error}");
    assert!(events.try_recv().is_none(), "reported again");
    assert!(keys.data_key(start + 4 * HOUR).expect("a key").is_some());
}

#[test]
fn a_producer_is_not_created_without_its_public_keys() {
    let refused = |reader: PemKeyReader| {
        let options = EncryptionOptions { names: vec!["a".into()], reader: Some(Arc::new(reader)), action: None };
        options.encryption(Instant::now(), &Arc::default()).map(drop).expect_err("no key").to_string()
    };
    let of = |pem: &str| PemKeyReader::new().with_default_public_key(PemKey::text(pem));
    assert!(refused(PemKeyReader::new()).contains("no public key of that name"));
    assert!(refused(of(EC_PUBLIC)).contains("EC key"));
    assert!(refused(of(FIRST_PKCS1)).contains("private key"));
    assert!(refused(of(SHORT)).contains("2048 to 8192 bits"));
}

#[test]
fn data_keys_are_unwrapped_once_and_kept_within_bounds() {
    let start = Instant::now();
    let asked = Asked::default();
    let opening = decryption(asked.clone());
    let keys = data_keys(&["a"], Asked::default(), start).expect("a key");
    let (metadata, payload) = sealed(&keys, b"plain", start);
    for hours in [0, 3, 6, 9] {
        assert!(opening.open(&metadata, &payload, start + hours * HOUR).is_ok());
    }
    assert_eq!(asked.count(), 1, "it was used within four hours each time");
    let other = data_keys(&["a"], Asked::default(), start).expect("a key");
    let (other, payload_of_other) = sealed(&other, b"plain", start);
    assert!(opening.open(&other, &payload_of_other, start + 13 * HOUR).is_ok());
    assert_eq!((asked.count(), opening.kept_keys()), (2, 1), "what was not used is forgotten");
}

#[test]
fn a_panic_in_the_key_reader_is_an_error_of_that_message() {
    let now = Instant::now();
    let (metadata, payload) = sealed(&data_keys(&["b"], public(), now).expect("a key"), b"plain", now);
    let Undecrypted { error, .. } = decryption(Asked::default()).open(&metadata, &payload, now).expect_err("a panic");
    assert!(error.to_string().contains("the crypto_key_reader panicked"), "{error}");
}

#[test]
fn keys_are_in_no_debug_text() {
    let reader = PemKeyReader::new()
        .with_private_key("a", PemKey::text(FIRST_PKCS1))
        .with_default_public_key(PemKey::text(FIRST))
        .with_default_private_key(PemKey::file("/etc/keys/key.pem"));
    let info = EncryptionKeyInfo::new(FIRST_PKCS1).with_metadata("version", "1");
    let options =
        EncryptionOptions { names: vec!["a".into()], reader: Some(Arc::new(reader.clone())), action: Some(()) };
    let keys = data_keys(&["a"], reader.clone(), Instant::now()).expect("a key");
    let text = format!("{reader:?} {info:?} {options:?} {keys:?} {:?}", decryption(reader.clone()));
    assert!(!text.contains("BEGIN") && !text.contains("MII") && !text.contains("[45, 45"), "{text}");
    assert!(text.contains("/etc/keys/key.pem") && text.contains("version"), "{text}");
}
