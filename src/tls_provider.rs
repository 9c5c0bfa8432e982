//! The cryptography behind TLS.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::CryptoProvider;

/// What the application has installed for its process ([`CryptoProvider::install_default`]); without it, what this crate
/// was built with: ring, else aws-lc-rs. It is always named to rustls, which panics where it has to choose by itself
/// between two, or among none.
///
/// # Errors
/// There is none of these.
pub(crate) fn provider() -> Result<Arc<CryptoProvider>, &'static str> {
    if let Some(installed) = CryptoProvider::get_default() {
        return Ok(installed.clone());
    }
    built_in().ok_or(
        "TLS has no cryptography: build with the crate feature `ring` or `aws-lc-rs`, or call \
         rustls::crypto::CryptoProvider::install_default before the first connection",
    )
}

fn built_in() -> Option<Arc<CryptoProvider>> {
    #[cfg(feature = "ring")]
    return Some(Arc::new(tokio_rustls::rustls::crypto::ring::default_provider()));
    #[cfg(all(feature = "aws-lc-rs", not(feature = "ring")))]
    return Some(Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    None
}
