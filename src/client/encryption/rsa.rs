//! Wraps data keys with public keys and unwraps them with private ones: RSA-OAEP with SHA-1 and MGF1-SHA-1.

use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey, PublicEncryptingKey,
};
use zeroize::Zeroizing;

use super::pem;

/// A data key, bytes: AES-256.
pub(super) const DATA_KEY_BYTES: usize = 32;

pub(super) type DataKeyBytes = Zeroizing<[u8; DATA_KEY_BYTES]>;

const NO_RSA_KEY: &str = "it is no RSA key of 2048 to 8192 bits";

/// The data key, wrapped by a public key.
///
/// # Errors
/// What is wrong with the public key; nothing of what it is.
pub(super) fn wrap(public_pem: &[u8], data_key: &DataKeyBytes) -> Result<Vec<u8>, &'static str> {
    let der = pem::public_key(public_pem)?;
    let key = PublicEncryptingKey::from_der(&der).map_err(|_| NO_RSA_KEY)?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| NO_RSA_KEY)?;
    let mut wrapped = vec![0; key.ciphertext_size()];
    let encrypted = key.encrypt(&OAEP_SHA1_MGF1SHA1, &**data_key, &mut wrapped, None);
    let len = encrypted.map_err(|_| "it does not wrap a data key")?.len();
    wrapped.truncate(len);
    Ok(wrapped)
}

/// The data key that was wrapped by the public key to a private key.
///
/// # Errors
/// What is wrong with the private key, or that it is another one; nothing of what it is.
pub(super) fn unwrap(private_pem: &[u8], wrapped: &[u8]) -> Result<DataKeyBytes, &'static str> {
    let der = pem::private_key(private_pem)?;
    let key = PrivateDecryptingKey::from_pkcs8(&der).map_err(|_| NO_RSA_KEY)?;
    let key = OaepPrivateDecryptingKey::new(key).map_err(|_| NO_RSA_KEY)?;
    let mut opened = Zeroizing::new(vec![0; key.min_output_size()]);
    let data_key = key.decrypt(&OAEP_SHA1_MGF1SHA1, wrapped, &mut opened, None);
    let data_key = data_key.map_err(|_| "the message is not encrypted for this key")?;
    let data_key =
        <&[u8; DATA_KEY_BYTES]>::try_from(&*data_key).map_err(|_| "it opens something that is no data key")?;
    Ok(Zeroizing::new(*data_key))
}
