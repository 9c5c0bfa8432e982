//! TLS over what a dialer of the application makes.

use std::sync::Arc;

use super::{DialFuture, Dialer, Socket, Target};
use crate::error::Result;

/// The dialer of [`dialer_under_tls`](crate::client::ClientBuilder::dialer_under_tls).
pub(crate) struct TlsDialer {
    pub(crate) under: Arc<dyn Dialer>,
    #[cfg(feature = "tls")]
    pub(crate) tls: super::TlsOptions,
}

impl Dialer for TlsDialer {
    fn dial<'a>(&'a self, target: &'a Target) -> DialFuture<'a> {
        Box::pin(async move {
            let socket = self.under.dial(&Target { tls: false, ..target.clone() }).await?;
            match target.tls {
                true => {
                    secure(
                        #[cfg(feature = "tls")]
                        &self.tls,
                        socket,
                        target,
                    )
                    .await
                }
                false => Ok(socket),
            }
        })
    }
}

/// TLS over this socket.
#[cfg(feature = "tls")]
pub(super) async fn secure(tls: &super::TlsOptions, socket: impl Socket, target: &Target) -> Result<Box<dyn Socket>> {
    tls.connect(socket, target).await
}

/// # Errors
/// This build has no TLS.
#[cfg(not(feature = "tls"))]
pub(super) async fn secure(_: impl Socket, _: &Target) -> Result<Box<dyn Socket>> {
    let what = "pulsar+ssl:// and https:// need the crate feature `tls`, which this build lacks";
    Err(crate::error::Error::local(crate::error::ErrorKind::Unsupported, what))
}
