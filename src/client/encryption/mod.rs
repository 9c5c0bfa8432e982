//! End-to-end encryption: brokers see payloads only as bytes that the owners of a private key can read. Byte for byte that of
//! the official clients (Java: `MessageCryptoBc`).
//!
//! | what | by | where in the metadata |
//! | --- | --- | --- |
//! | the payload of an entry or chunk, behind compression | AES-256-GCM under a data key that the producer makes; a tag of 16 bytes follows | `encryption_param` is the initialization vector, 12 bytes |
//! | the data key, once for each key of the producer | RSA-OAEP with SHA-1 and MGF1-SHA-1 | `encryption_keys`: name, wrapped data key, metadata of the key |
//!
//! `encryption_algo` is written by none of them, and not by this one.
//!
//! | file | what |
//! | --- | --- |
//! | `options.rs` | what the builders take, checked against each other |
//! | `key_reader.rs` | where keys come from; the application's code is called here |
//! | `pem.rs`, `rsa.rs` | from the text of a key to a wrapped or unwrapped data key |
//! | `data_keys.rs` | a producer's data keys: made, used, replaced ([`Encrypt`](crate::machine::producer::encrypt::Encrypt)) |
//! | `decryption.rs` | a consumer's: unwrapped once, and kept for a while |
//! | `context.rs` | what a message says of its encryption |
//!
//! Keys are wiped when they are dropped, and are in no `Debug`, error or log. All but the options and the context is behind
//! the feature `encryption`; without it a consumer finds that it cannot read an encrypted message.

mod context;
#[cfg(feature = "encryption")]
mod data_keys;
mod decryption;
#[cfg(all(any(test, fuzzing), feature = "encryption"))]
pub(crate) mod fuzz;
#[cfg(feature = "encryption")]
mod key_reader;
mod options;
#[cfg(feature = "encryption")]
mod pem;
#[cfg(feature = "encryption")]
mod rsa;
#[cfg(all(test, feature = "encryption"))]
mod tests;

pub use context::{EncryptionContext, EncryptionKey};
pub(in crate::client) use decryption::{Decryption, Undecrypted};
#[cfg(feature = "encryption")]
pub use key_reader::{CryptoKeyReader, EncryptionKeyInfo, PemKey, PemKeyReader};
pub(in crate::client) use options::EncryptionOptions;
pub use options::{ConsumerCryptoFailureAction, ProducerCryptoFailureAction};

/// The most keys of one producer, and the most of one message that a consumer tries.
const KEYS_MAX: usize = 64;
