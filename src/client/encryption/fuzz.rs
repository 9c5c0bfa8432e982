//! Any bytes as a key, and as an encrypted entry.

use std::time::Instant;

use prost::Message as _;

use super::{Decryption, EncryptionOptions, PemKey, PemKeyReader, pem};
use crate::client::encryption::EncryptionContext;
use crate::pb;
use crate::wire::Metadata;
use crate::wire::encryption::encryption_keys;

const KEY: &str = include_str!("../../../tests/keys/first.pkcs8.pem");

/// As PEM, and as an entry: two bytes for the size of its metadata, metadata, payload. What is said of its encryption is what
/// prost reads, and it opens, or there is an error of one line without any of its bytes.
pub(crate) fn open_any(data: &[u8]) {
    let _ = (pem::public_key(data), pem::private_key(data));
    let Some((&[high, low], rest)) = data.split_first_chunk() else { return };
    let Some((metadata, payload)) = rest.split_at_checked(u16::from_be_bytes([high, low]).into()) else { return };
    let Ok(parsed) = Metadata::decode(metadata) else { return };
    let theirs = pb::MessageMetadata::decode(metadata).expect("what is accepted is protobuf");
    let names: Vec<_> =
        encryption_keys(metadata).map(|key| (key.name(), key.value(), key.metadata().count())).collect();
    let their_names = theirs.encryption_keys.iter().map(|key| (&*key.key, &*key.value, key.metadata.len()));
    assert!(names.into_iter().eq(their_names), "they are read as by prost");
    assert_eq!(EncryptionContext::of(metadata, false).is_some(), parsed.encrypted);
    let reader = PemKeyReader::new().with_default_private_key(PemKey::text(KEY));
    let reader: Option<std::sync::Arc<dyn super::CryptoKeyReader>> = Some(std::sync::Arc::new(reader));
    let decryption = Decryption::new(&EncryptionOptions { names: Vec::new(), reader, action: None });
    let now = Instant::now();
    match decryption.open(metadata, payload, now) {
        Ok(plain) => {
            assert_eq!(plain.len() + 16, payload.len(), "nothing but the tag is gone");
            assert_eq!(decryption.open(metadata, payload, now).as_ref(), Ok(&plain), "by the key that was kept");
            let mut changed = payload.to_vec();
            changed[0] ^= 1;
            assert!(decryption.open(metadata, &changed, now).is_err(), "nothing that was changed opens");
        }
        Err(undecrypted) => assert!(!undecrypted.error.to_string().contains('\n'), "{:?}", undecrypted.error),
    }
}
