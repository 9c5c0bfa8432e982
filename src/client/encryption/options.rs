//! What the builders of producers and consumers take.

#[cfg(feature = "encryption")]
use std::sync::Arc;

#[cfg(feature = "encryption")]
use super::CryptoKeyReader;
use super::KEYS_MAX;
use crate::error::{Error, ErrorKind, Result};

/// What becomes of a message that cannot be encrypted: see
/// [`ProducerBuilder::crypto_failure_action`](crate::ProducerBuilder::crypto_failure_action).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ProducerCryptoFailureAction {
    /// It fails, with [`ErrorKind::Crypto`].
    #[default]
    Fail,
    /// It is sent unencrypted: any broker and any consumer can read it.
    Send,
}

/// What becomes of a message that cannot be decrypted: see
/// [`ConsumerBuilder::crypto_failure_action`](crate::ConsumerBuilder::crypto_failure_action).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ConsumerCryptoFailureAction {
    /// It is treated as all that this client cannot read, by
    /// [`unreadable_message_policy`](crate::ConsumerBuilder::unreadable_message_policy): by default it is reported and stays
    /// unacknowledged.
    #[default]
    Fail,
    /// It is acknowledged, with the reason (`validation_error` is `DecryptionError`), and so lost to this subscription. It is
    /// reported as well.
    Discard,
    /// It is given to the application as it is stored: the payload of its entry, still encrypted, is one message, also if it
    /// is a batch or one chunk of several. [`ReceivedMessage::encryption_context`](crate::ReceivedMessage::encryption_context)
    /// says what it takes to open it.
    Consume,
}

/// Names of keys, where they are read, and what happens if that fails. A consumer has no names.
#[derive(Clone, Default)]
pub(in crate::client) struct EncryptionOptions<Action> {
    pub(in crate::client) names: Vec<String>,
    #[cfg(feature = "encryption")]
    pub(in crate::client) reader: Option<Arc<dyn CryptoKeyReader>>,
    pub(in crate::client) action: Option<Action>,
}

impl<Action> EncryptionOptions<Action> {
    #[cfg(feature = "encryption")]
    fn has_reader(&self) -> bool {
        self.reader.is_some()
    }

    #[cfg(not(feature = "encryption"))]
    fn has_reader(&self) -> bool {
        false
    }
}

impl EncryptionOptions<ProducerCryptoFailureAction> {
    /// Adds the name of a key, once.
    pub(in crate::client) fn add(&mut self, name: String) {
        if !self.names.contains(&name) {
            self.names.push(name);
        }
    }

    /// Checks the options against each other. What would silently send in the clear is refused.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], naming the option; [`ErrorKind::Unsupported`] in a build without the feature.
    pub(in crate::client) fn validate(&self) -> Result<()> {
        let (has_names, has_reader) = (!self.names.is_empty(), self.has_reader());
        if has_names && !cfg!(feature = "encryption") {
            let why = "encryption_key: this build has no encryption, which is the crate feature `encryption`";
            return Err(Error::local(ErrorKind::Unsupported, why));
        }
        let complaint = if self.names.iter().any(|name| name.trim().is_empty()) {
            "encryption_key must not be blank".to_owned()
        } else if self.names.len() > KEYS_MAX {
            format!("encryption_key: at most {KEYS_MAX} keys, not {}", self.names.len())
        } else if has_names && !has_reader {
            "encryption_key needs crypto_key_reader, which gives the public key of that name".to_owned()
        } else if has_reader && !has_names {
            "crypto_key_reader needs encryption_key: without the name of a key nothing would be encrypted".to_owned()
        } else if self.action.is_some() && !has_names {
            "crypto_failure_action needs encryption_key: without the name of a key nothing is encrypted".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::local(ErrorKind::InvalidArgument, complaint))
    }
}

impl<Action: std::fmt::Debug> std::fmt::Debug for EncryptionOptions<Action> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncryptionOptions")
            .field("names", &self.names)
            .field("has_reader", &self.has_reader())
            .field("action", &self.action)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_contradicts_itself_is_refused_by_name() {
        let refused = |change: fn(&mut EncryptionOptions<ProducerCryptoFailureAction>)| {
            let mut options = EncryptionOptions::default();
            change(&mut options);
            options.validate().map_err(|error| (error.kind(), error.to_string()))
        };
        assert_eq!(refused(|_| {}), Ok(()));
        let (kind, why) = refused(|options| options.add("a".into())).expect_err("no reader");
        if !cfg!(feature = "encryption") {
            assert!(kind == ErrorKind::Unsupported && why.contains("feature `encryption`"), "{why}");
            return;
        }
        assert!(
            kind == ErrorKind::InvalidArgument && why.starts_with("encryption_key needs crypto_key_reader"),
            "{why}"
        );
        let (_, why) = refused(|options| options.add(" ".into())).expect_err("no name");
        assert!(why.contains("blank"), "{why}");
        let (_, why) = refused(|options| options.action = Some(ProducerCryptoFailureAction::Send)).expect_err("no key");
        assert!(why.starts_with("crypto_failure_action needs"), "{why}");
        #[cfg(feature = "encryption")]
        {
            let no_name = refused(|options| options.reader = Some(Arc::new(crate::client::PemKeyReader::new())));
            assert!(no_name.expect_err("no key").1.starts_with("crypto_key_reader needs"));
            let many = refused(|options| (0..65).for_each(|at| options.add(at.to_string())));
            assert!(many.expect_err("too many").1.contains("at most 64"));
        }
    }

    #[test]
    fn a_name_that_is_added_twice_counts_once() {
        let mut options = EncryptionOptions::<ProducerCryptoFailureAction>::default();
        for name in ["a", "b", "a"] {
            options.add(name.to_owned());
        }
        assert_eq!(options.names, ["a", "b"]);
    }
}
