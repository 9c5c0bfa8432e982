//! The consuming side: data keys are unwrapped once, and kept for a while.

use crate::client::unreadable::UnreadableReason;
use crate::error::Error;
#[cfg(not(feature = "encryption"))]
use crate::error::ErrorKind;

#[cfg(feature = "encryption")]
pub(in crate::client) use with_keys::Decryption;
#[cfg(not(feature = "encryption"))]
pub(in crate::client) use without_keys::Decryption;

/// A payload that cannot be decrypted.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::client) struct Undecrypted {
    pub(in crate::client) reason: UnreadableReason,
    pub(in crate::client) error: Error,
}

#[cfg(not(feature = "encryption"))]
mod without_keys {
    use std::time::Instant;

    use bytes::Bytes;

    use super::super::{ConsumerCryptoFailureAction, EncryptionOptions};
    use super::{Error, ErrorKind, Undecrypted, UnreadableReason};

    /// Decrypts nothing.
    #[derive(Debug, Default)]
    pub(in crate::client) struct Decryption {
        action: ConsumerCryptoFailureAction,
    }

    impl Decryption {
        pub(in crate::client) fn new(options: &EncryptionOptions<ConsumerCryptoFailureAction>) -> Self {
            Self { action: options.action.unwrap_or_default() }
        }

        pub(in crate::client) fn action(&self) -> ConsumerCryptoFailureAction {
            self.action
        }

        pub(in crate::client) fn open(
            &self,
            _metadata: &[u8],
            _payload: &[u8],
            _now: Instant,
        ) -> Result<Bytes, Undecrypted> {
            let why = "this build has no encryption, which is the crate feature `encryption`";
            Err(Undecrypted { reason: UnreadableReason::Encrypted, error: Error::local(ErrorKind::Unsupported, why) })
        }
    }
}

#[cfg(feature = "encryption")]
mod with_keys {
    use std::collections::HashMap;
    use std::fmt;
    use std::sync::{Arc, Mutex, PoisonError};
    use std::time::{Duration, Instant};

    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    use bytes::Bytes;

    use super::super::key_reader::{CryptoKeyReader, read_private};
    use super::super::{ConsumerCryptoFailureAction, EncryptionOptions, KEYS_MAX, rsa};
    use super::{Undecrypted, UnreadableReason};
    use crate::error::{Error, ErrorKind};
    use crate::machine::producer::encrypt::{IV_BYTES, TAG_BYTES};
    use crate::wire::encryption::{EncryptionKey, encryption_keys, encryption_param};

    /// The most data keys that are kept; the one that was not used for longest goes first.
    const KEPT_MAX: usize = 1000;

    /// For how long a data key is kept that is not used: as in the Java client.
    const KEPT_FOR: Duration = Duration::from_secs(4 * 60 * 60);

    /// What a consumer decrypts with; all its topics share it.
    #[derive(Default)]
    pub(in crate::client) struct Decryption {
        reader: Option<Arc<dyn CryptoKeyReader>>,
        action: ConsumerCryptoFailureAction,
        /// Data keys by their wrapped bytes.
        kept: Mutex<HashMap<Box<[u8]>, Kept>>,
    }

    struct Kept {
        key: Arc<LessSafeKey>,
        used_at: Instant,
    }

    impl Decryption {
        pub(in crate::client) fn new(options: &EncryptionOptions<ConsumerCryptoFailureAction>) -> Self {
            let action = options.action.unwrap_or_default();
            Self { reader: options.reader.clone(), action, kept: Mutex::default() }
        }

        pub(in crate::client) fn action(&self) -> ConsumerCryptoFailureAction {
            self.action
        }

        /// Decrypts a payload by any of the keys in its metadata: those that were unwrapped before, then the others. An RSA
        /// key takes about a millisecond.
        pub(in crate::client) fn open(
            &self,
            metadata: &[u8],
            payload: &[u8],
            now: Instant,
        ) -> Result<Bytes, Undecrypted> {
            let Some(reader) = &self.reader else {
                let error = Error::local(ErrorKind::Crypto, "the consumer has no crypto_key_reader");
                return Err(Undecrypted { reason: UnreadableReason::Encrypted, error });
            };
            let failed = |error| Undecrypted { reason: UnreadableReason::DecryptionFailed, error };
            let sealed = Sealed::new(metadata, payload).map_err(|why| failed(Error::local(ErrorKind::Crypto, why)))?;
            let keys = || encryption_keys(metadata).take(KEYS_MAX);
            for key in keys() {
                if let Some(plain) = self.kept(key.value(), now).and_then(|key| sealed.open(&key)) {
                    return Ok(plain);
                }
            }
            let mut last = Error::local(ErrorKind::Crypto, "it names no key");
            for key in keys() {
                match unwrap(&**reader, &key) {
                    Ok(data_key) => match sealed.open(&data_key) {
                        Some(plain) => {
                            self.keep(key.value(), data_key, now);
                            return Ok(plain);
                        }
                        None => last = of_key(&key, "the payload is not what was encrypted with it"),
                    },
                    Err(error) => last = error,
                }
            }
            Err(failed(last))
        }

        fn kept(&self, wrapped: &[u8], now: Instant) -> Option<Arc<LessSafeKey>> {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let found = kept.get_mut(wrapped)?;
            found.used_at = now;
            Some(found.key.clone())
        }

        fn keep(&self, wrapped: &[u8], key: Arc<LessSafeKey>, now: Instant) {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.retain(|_, key| now.saturating_duration_since(key.used_at) < KEPT_FOR);
            if kept.len() >= KEPT_MAX {
                let oldest = kept.iter().min_by_key(|(_, key)| key.used_at).map(|(wrapped, _)| wrapped.clone());
                oldest.map(|wrapped| kept.remove(&wrapped));
            }
            kept.insert(wrapped.into(), Kept { key, used_at: now });
        }

        #[cfg(test)]
        pub(in crate::client::encryption) fn kept_keys(&self) -> usize {
            self.kept.lock().unwrap().len()
        }
    }

    impl fmt::Debug for Decryption {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Decryption").field("action", &self.action).finish_non_exhaustive()
        }
    }

    /// What is to be decrypted.
    struct Sealed<'a> {
        iv: [u8; IV_BYTES],
        bytes: &'a [u8],
        tag: &'a [u8],
    }

    impl<'a> Sealed<'a> {
        fn new(metadata: &[u8], payload: &'a [u8]) -> Result<Self, String> {
            let param = encryption_param(metadata).unwrap_or_default();
            let Ok(iv) = param.try_into() else {
                return Err(format!("encryption_param has {} bytes, not {IV_BYTES}", param.len()));
            };
            let Some(at) = payload.len().checked_sub(TAG_BYTES) else {
                return Err(format!("its payload of {} bytes is shorter than its tag", payload.len()));
            };
            let (bytes, tag) = payload.split_at(at);
            Ok(Self { iv, bytes, tag })
        }

        fn open(&self, key: &LessSafeKey) -> Option<Bytes> {
            let mut plain = vec![0; self.bytes.len()];
            let nonce = Nonce::assume_unique_for_key(self.iv);
            key.open_separate_gather(nonce, Aad::empty(), self.bytes, self.tag, &mut plain).ok()?;
            Some(plain.into())
        }
    }

    fn of_key(key: &EncryptionKey<'_>, why: &str) -> Error {
        Error::local(ErrorKind::Crypto, format!("encryption key {:?}: {why}", key.name()))
    }

    fn unwrap(reader: &dyn CryptoKeyReader, key: &EncryptionKey<'_>) -> Result<Arc<LessSafeKey>, Error> {
        let metadata: Vec<_> = key.metadata().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let info = read_private(reader, key.name(), &metadata)
            .map_err(|error| of_key(key, "no private key").with_source(error))?;
        let data_key = rsa::unwrap(info.key(), key.value()).map_err(|why| of_key(key, why))?;
        let data_key = UnboundKey::new(&AES_256_GCM, &*data_key).map_err(|_| of_key(key, "no AES-256"))?;
        Ok(Arc::new(LessSafeKey::new(data_key)))
    }
}
