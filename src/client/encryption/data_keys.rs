//! The data keys of a producer: made, used, replaced.
//!
//! ```text
//!           made                   4 h, or the vectors are used up
//!  (none) --------> data key 1 ------------------------------------> data key 2 ...
//! ```
//!
//! One serves all partitions. Its public keys are read anew with each data key, so that a changed one is taken up. If that
//! fails when a data key is due, it has failed for each entry until it works: a key that is due is not used on, because it may
//! be due for a reader that is no longer to read.
//!
//! The initialization vectors of a data key are a random start, plus the number of the entry: no two are the same, whatever
//! tasks seal at a time. An entry that is sent again goes out as it was sealed.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand;
use bytes::BytesMut;
use zeroize::Zeroizing;

use super::key_reader::{CryptoKeyReader, read_public};
use super::options::{EncryptionOptions, ProducerCryptoFailureAction};
use super::rsa;
use crate::client::events::{EventQueue, ProducerEvent};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::producer::encrypt::{Cipher, DataKey, Encrypt, Encryption, IV_BYTES, Seal, TAG_BYTES};
use crate::wire::metadata::put_encryption_key;

/// When a data key is replaced at the latest: as in the Java client.
const REPLACE_AFTER: Duration = Duration::from_secs(4 * 60 * 60);

/// The most entries under one data key: what NIST SP 800-38D allows.
const ENTRIES_MAX: u64 = 1 << 32;

/// A data key is replaced this many entries before its end, so that no message of many chunks comes upon it: the last ones are
/// left to those that are being sealed.
const ENTRIES_SPARE: u64 = 1 << 24;

/// What is larger in an entry, besides its keys: field and bytes of the vector, and the tag.
const ENTRY_OVERHEAD_BYTES: usize = 2 + IV_BYTES + TAG_BYTES;

/// What a producer encrypts with. See the module.
pub(super) struct DataKeys {
    names: Vec<String>,
    reader: Arc<dyn CryptoKeyReader>,
    action: ProducerCryptoFailureAction,
    events: Arc<EventQueue<ProducerEvent>>,
    replace_after: Duration,
    /// How many entries there are before a data key is replaced.
    entries_max: u64,
    state: Mutex<State>,
}

struct State {
    key: Arc<AesKey>,
    made_at: Instant,
    /// Messages go out unencrypted, and that is reported.
    is_open: bool,
}

impl EncryptionOptions<ProducerCryptoFailureAction> {
    /// What a producer is to encrypt with; `None` if it is not to.
    ///
    /// # Errors
    /// [`ErrorKind::Crypto`]: a public key cannot be read, also where a message that cannot be encrypted is to be sent.
    pub(in crate::client) fn encryption(
        &self,
        now: Instant,
        events: &Arc<EventQueue<ProducerEvent>>,
    ) -> Result<Option<Encryption>> {
        let Some(reader) = self.reader.clone().filter(|_| !self.names.is_empty()) else { return Ok(None) };
        let action = self.action.unwrap_or_default();
        Ok(Some(Arc::new(DataKeys::new(self.names.clone(), reader, action, events.clone(), now)?)))
    }
}

impl DataKeys {
    pub(super) fn new(
        names: Vec<String>,
        reader: Arc<dyn CryptoKeyReader>,
        action: ProducerCryptoFailureAction,
        events: Arc<EventQueue<ProducerEvent>>,
        now: Instant,
    ) -> Result<Self> {
        let key = Arc::new(AesKey::make(&names, &*reader)?);
        let state = Mutex::new(State { key, made_at: now, is_open: false });
        let (replace_after, entries_max) = (REPLACE_AFTER, ENTRIES_MAX - ENTRIES_SPARE);
        Ok(Self { names, reader, action, events, replace_after, entries_max, state })
    }

    /// Replaces a data key after so many entries.
    #[cfg(test)]
    pub(super) fn with_entries_max(mut self, entries: u64) -> Self {
        self.entries_max = entries;
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present key, if it is not due.
    fn present(&self, now: Instant) -> Option<DataKey> {
        let state = self.state();
        let is_due = now.saturating_duration_since(state.made_at) >= self.replace_after
            || state.key.entries.load(Ordering::Relaxed) >= self.entries_max;
        (!is_due).then(|| DataKey::new(state.key.clone()))
    }

    /// Makes the next one, with no lock held: the application's code is called. Of two tasks that do so at the same time each
    /// uses its own.
    fn replace(&self, now: Instant) -> Result<DataKey> {
        let key = Arc::new(AesKey::make(&self.names, &*self.reader)?);
        let mut state = self.state();
        *state = State { key: key.clone(), made_at: now, is_open: false };
        Ok(DataKey::new(key))
    }
}

impl Encrypt for DataKeys {
    fn data_key(&self, now: Instant) -> Result<Option<DataKey>> {
        if let Some(key) = self.present(now) {
            return Ok(Some(key));
        }
        match (self.replace(now), self.action) {
            (Ok(key), _) => Ok(Some(key)),
            (Err(error), ProducerCryptoFailureAction::Fail) => Err(error),
            (Err(error), ProducerCryptoFailureAction::Send) => {
                let is_reported = std::mem::replace(&mut self.state().is_open, true);
                if !is_reported {
                    self.events.push(ProducerEvent::SentUnencrypted { error });
                }
                Ok(None)
            }
        }
    }

    fn overhead_bytes(&self) -> usize {
        self.state().key.encryption_keys.len() + ENTRY_OVERHEAD_BYTES
    }
}

impl fmt::Debug for DataKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKeys").field("names", &self.names).field("action", &self.action).finish_non_exhaustive()
    }
}

/// A data key.
struct AesKey {
    key: LessSafeKey,
    encryption_keys: BytesMut,
    /// The vector of entry 0, of which the lower 96 bits count.
    first_iv: u128,
    /// How many entries are encrypted.
    entries: AtomicU64,
}

impl AesKey {
    /// A new one, wrapped by each of the public keys.
    fn make(names: &[String], reader: &dyn CryptoKeyReader) -> Result<Self> {
        let no_chance = |_| Error::local(ErrorKind::Crypto, "there are no random bytes");
        let mut bytes = Zeroizing::new([0; rsa::DATA_KEY_BYTES]);
        rand::fill(&mut *bytes).map_err(no_chance)?;
        let mut first_iv = [0; 16];
        rand::fill(&mut first_iv).map_err(no_chance)?;
        let mut encryption_keys = BytesMut::new();
        for name in names {
            let of_name = |why: &str| Error::local(ErrorKind::Crypto, format!("encryption_key {name:?}{why}"));
            let info = read_public(reader, name).map_err(|error| {
                let is_retriable = error.is_retriable();
                of_name(": no public key").with_source(error).with_retriable(is_retriable)
            })?;
            let wrapped = rsa::wrap(info.key(), &bytes).map_err(|why| of_name(&format!(": {why}")))?;
            put_encryption_key(&mut encryption_keys, name, &wrapped, info.metadata());
        }
        let key = UnboundKey::new(&AES_256_GCM, &*bytes).map_err(|_| Error::local(ErrorKind::Crypto, "no AES-256"))?;
        let (key, first_iv) = (LessSafeKey::new(key), u128::from_be_bytes(first_iv));
        Ok(Self { key, encryption_keys, first_iv, entries: AtomicU64::new(0) })
    }
}

impl Cipher for AesKey {
    fn encryption_keys(&self) -> &[u8] {
        &self.encryption_keys
    }

    fn seal(&self, payload: &mut [u8]) -> Result<Seal> {
        let failed = |why| Error::local(ErrorKind::Crypto, why);
        let number = self.entries.fetch_add(1, Ordering::Relaxed);
        if number >= ENTRIES_MAX {
            return Err(failed("the data key has encrypted as much as it may").with_retriable(true));
        }
        let number = self.first_iv.wrapping_add(u128::from(number)).to_be_bytes();
        let mut iv = [0; IV_BYTES];
        iv.copy_from_slice(&number[16 - IV_BYTES..]);
        let nonce = Nonce::assume_unique_for_key(iv);
        let sealed = self.key.seal_in_place_separate_tag(nonce, Aad::empty(), payload);
        let sealed = sealed.map_err(|_| failed("the payload cannot be encrypted"))?;
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(sealed.as_ref());
        Ok(Seal { iv, tag })
    }
}
