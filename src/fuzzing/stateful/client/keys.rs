//! Keys of producers, which cannot always be had. Without the feature `encryption` there is none that encrypts.

use std::sync::atomic::AtomicBool;

/// Keys that encrypt by one bit, and at times cannot be had.
#[derive(Debug, Default)]
pub(super) struct Key {
    /// There is no key at the moment.
    pub(super) is_missing: AtomicBool,
    /// The key that there is has no initialization vector left.
    pub(super) is_used_up: AtomicBool,
}

#[cfg(feature = "encryption")]
mod encrypting {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::Instant;

    use super::Key;
    use crate::error::{Error, ErrorKind, Result};
    use crate::machine::producer::encrypt::{Cipher, DataKey, Encrypt, IV_BYTES, Seal, TAG_BYTES};

    impl Encrypt for Key {
        fn data_key(&self, _now: Instant) -> Result<Option<DataKey>> {
            if self.is_missing.load(Ordering::Relaxed) {
                return Err(Error::local(ErrorKind::Crypto, "there is no key"));
            }
            Ok(Some(DataKey::new(Arc::new(OneBit { is_used_up: self.is_used_up.load(Ordering::Relaxed) }))))
        }

        fn overhead_bytes(&self) -> usize {
            64
        }
    }

    struct OneBit {
        is_used_up: bool,
    }

    /// One of the `encryption_keys` of a name and a value of one byte.
    const SERIALIZED_KEYS: &[u8] = &[13 << 3 | 2, 6, 1 << 3 | 2, 1, b'k', 2 << 3 | 2, 1, b'v'];

    impl Cipher for OneBit {
        fn encryption_keys(&self) -> &[u8] {
            SERIALIZED_KEYS
        }

        fn seal(&self, payload: &mut [u8]) -> Result<Seal> {
            if self.is_used_up {
                return Err(Error::local(ErrorKind::Crypto, "no vector is left"));
            }
            payload.iter_mut().for_each(|byte| *byte ^= 1);
            Ok(Seal { iv: [1; IV_BYTES], tag: [2; TAG_BYTES] })
        }
    }
}
