//! Where keys come from.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::client::user_code::call;
use crate::error::{Error, ErrorKind, Result};

/// The most bytes that a file with a key may have.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Gives producers the public keys that they encrypt for, and consumers the private keys that open messages. Java:
/// `CryptoKeyReader`. [`PemKeyReader`] reads files, and keys in memory.
///
/// It is called where it is needed: for the public keys when a producer is created, and, to make a new data key, every four
/// hours of sending; for a private key with the first message of each data key. That is on the task that sends, receives, or
/// drives the connection, with no lock held, so it must not wait for long. An implementation over a key management service
/// fetches keys beforehand and answers from memory. A panic in it is an error of that call, and nothing else.
///
/// ```
/// use pulsar_native::{CryptoKeyReader, EncryptionKeyInfo, Error};
///
/// struct Vault;
///
/// impl CryptoKeyReader for Vault {
///     fn public_key(&self, name: &str, _metadata: &[(String, String)]) -> Result<EncryptionKeyInfo, Error> {
///         let (pem, version) = self.newest(name).ok_or_else(|| Error::crypto("the vault has no such key"))?;
///         // Goes with each message, and comes back to `private_key`.
///         Ok(EncryptionKeyInfo::new(pem).with_metadata("version", version))
///     }
///
///     fn private_key(&self, name: &str, metadata: &[(String, String)]) -> Result<EncryptionKeyInfo, Error> {
///         let version = metadata.iter().find(|(key, _)| key == "version").map(|(_, value)| value.as_str());
///         let pem = self.private(name, version).ok_or_else(|| Error::crypto("the vault does not give it"))?;
///         Ok(EncryptionKeyInfo::new(pem))
///     }
/// }
/// # impl Vault {
/// #     fn newest(&self, _: &str) -> Option<(String, String)> { None }
/// #     fn private(&self, _: &str, _: Option<&str>) -> Option<String> { None }
/// # }
/// ```
pub trait CryptoKeyReader: Send + Sync + 'static {
    /// The public key `name`, as PEM (`PUBLIC KEY`: SPKI), of an RSA key of 2048 to 8192 bits. `metadata` is empty, as in the
    /// Java client; what the answer has of it goes with each message.
    ///
    /// # Errors
    /// Why there is no such key: see [`Error::crypto`].
    fn public_key(&self, name: &str, metadata: &[(String, String)]) -> Result<EncryptionKeyInfo>;

    /// The private key `name`, as PEM (`PRIVATE KEY`: PKCS#8, or `RSA PRIVATE KEY`: PKCS#1). `metadata` is that of the key in
    /// the message.
    ///
    /// # Errors
    /// Why there is no such key: see [`Error::crypto`]. The other keys of the message are tried then.
    fn private_key(&self, name: &str, metadata: &[(String, String)]) -> Result<EncryptionKeyInfo>;
}

impl<R: CryptoKeyReader + ?Sized> CryptoKeyReader for Arc<R> {
    fn public_key(&self, name: &str, metadata: &[(String, String)]) -> Result<EncryptionKeyInfo> {
        (**self).public_key(name, metadata)
    }

    fn private_key(&self, name: &str, metadata: &[(String, String)]) -> Result<EncryptionKeyInfo> {
        (**self).private_key(name, metadata)
    }
}

/// A key, and what is to be known of it. The key is wiped from memory when it is dropped. Java: `EncryptionKeyInfo`.
#[derive(Clone)]
pub struct EncryptionKeyInfo {
    key: Zeroizing<Vec<u8>>,
    metadata: Vec<(String, String)>,
}

impl EncryptionKeyInfo {
    /// A key as PEM.
    pub fn new(pem: impl Into<Vec<u8>>) -> Self {
        Self { key: Zeroizing::new(pem.into()), metadata: Vec::new() }
    }

    /// Adds a pair that goes with each message, in the clear (`EncryptionKeys.metadata`). Default: none.
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// The key as PEM.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// What goes with each message, in this order.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }
}

impl fmt::Debug for EncryptionKeyInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptionKeyInfo").field("metadata", &self.metadata).finish_non_exhaustive()
    }
}

/// Where a key is.
#[derive(Clone)]
pub struct PemKey(Source);

#[derive(Clone)]
enum Source {
    File(PathBuf),
    Memory(Zeroizing<Vec<u8>>),
}

impl PemKey {
    /// In a file, of at most 64 KiB, which is read each time the key is needed: a producer takes up a new key with its next
    /// data key.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(path.into()))
    }

    /// Here: its text, beginning with `-----BEGIN`.
    pub fn text(pem: impl Into<Vec<u8>>) -> Self {
        Self(Source::Memory(Zeroizing::new(pem.into())))
    }

    fn read(&self) -> Result<EncryptionKeyInfo> {
        let path = match &self.0 {
            Source::Memory(pem) => return Ok(EncryptionKeyInfo { key: pem.clone(), metadata: Vec::new() }),
            Source::File(path) => path,
        };
        let unreadable = |error| {
            let what = format!("{} cannot be read", path.display());
            Error::local(ErrorKind::Crypto, what).with_source(error)
        };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        if bytes > FILE_BYTES_MAX {
            let what = format!("{} has {bytes} bytes, more than the {FILE_BYTES_MAX} of any key", path.display());
            return Err(Error::local(ErrorKind::Crypto, what));
        }
        // As large as it gets, so that no piece of a key stays behind where it has grown.
        let mut key = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize + 1));
        file.take(FILE_BYTES_MAX).read_to_end(&mut key).map_err(unreadable)?;
        Ok(EncryptionKeyInfo { key, metadata: Vec::new() })
    }
}

impl fmt::Debug for PemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::File(path) => f.debug_tuple("PemKey").field(path).finish(),
            Source::Memory(_) => f.write_str("PemKey(..)"),
        }
    }
}

/// Reads keys as PEM from files and from memory, by name or for any name. Java: `DefaultCryptoKeyReader`; C++ and Python:
/// `CryptoKeyReader(public, private)`; Go: `NewFileKeyReader(public, private)`.
///
/// RSA keys are made by `openssl genrsa -out private.pem 2048` and `openssl rsa -in private.pem -pubout -out public.pem`. The Go
/// client reads private keys only as PKCS#1 (`openssl genrsa -traditional` from OpenSSL 3 on); this one and the others read
/// PKCS#8 as well.
///
/// ```
/// use pulsar_native::{PemKey, PemKeyReader};
///
/// let reader = PemKeyReader::new()
///     .with_public_key("orders", PemKey::file("/etc/keys/orders.pub.pem"))
///     .with_private_key("orders", PemKey::file("/etc/keys/orders.pem"));
/// // The same two files for any name, as the other clients' file readers have them.
/// let any = PemKeyReader::new()
///     .with_default_public_key(PemKey::file("/etc/keys/public.pem"))
///     .with_default_private_key(PemKey::file("/etc/keys/private.pem"));
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a key reader does nothing until a producer or consumer has it"]
pub struct PemKeyReader {
    public: Keys,
    private: Keys,
}

#[derive(Debug, Clone, Default)]
struct Keys {
    by_name: HashMap<String, PemKey>,
    default: Option<PemKey>,
}

impl Keys {
    fn read(&self, kind: &str, name: &str) -> Result<EncryptionKeyInfo> {
        match self.by_name.get(name).or(self.default.as_ref()) {
            Some(key) => key.read(),
            None => Err(Error::local(ErrorKind::Crypto, format!("the key reader has no {kind} key of that name"))),
        }
    }
}

impl PemKeyReader {
    /// Without keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// The public key of this name.
    pub fn with_public_key(mut self, name: impl Into<String>, key: PemKey) -> Self {
        self.public.by_name.insert(name.into(), key);
        self
    }

    /// The private key of this name.
    pub fn with_private_key(mut self, name: impl Into<String>, key: PemKey) -> Self {
        self.private.by_name.insert(name.into(), key);
        self
    }

    /// The public key of all names that have none of their own. Default: none.
    #[doc(alias = "defaultPublicKey")]
    pub fn with_default_public_key(mut self, key: PemKey) -> Self {
        self.public.default = Some(key);
        self
    }

    /// The private key of all names that have none of their own. Default: none.
    #[doc(alias = "defaultPrivateKey")]
    pub fn with_default_private_key(mut self, key: PemKey) -> Self {
        self.private.default = Some(key);
        self
    }
}

impl CryptoKeyReader for PemKeyReader {
    fn public_key(&self, name: &str, _metadata: &[(String, String)]) -> Result<EncryptionKeyInfo> {
        self.public.read("public", name)
    }

    fn private_key(&self, name: &str, _metadata: &[(String, String)]) -> Result<EncryptionKeyInfo> {
        self.private.read("private", name)
    }
}

/// The public key of a name.
pub(super) fn read_public(reader: &dyn CryptoKeyReader, name: &str) -> Result<EncryptionKeyInfo> {
    catch(|| reader.public_key(name, &[]))
}

/// The private key of a name.
pub(super) fn read_private(
    reader: &dyn CryptoKeyReader,
    name: &str,
    metadata: &[(String, String)],
) -> Result<EncryptionKeyInfo> {
    catch(|| reader.private_key(name, metadata))
}

fn catch(read: impl FnOnce() -> Result<EncryptionKeyInfo>) -> Result<EncryptionKeyInfo> {
    call(read).map_err(|panicked| panicked.into_error(ErrorKind::Crypto, "the crypto_key_reader"))?
}
