//! TLS over a TCP connection: certificate and host name verified, roots from the system or from a PEM file.
//!
//! | file | what it does |
//! | --- | --- |
//! | `roots.rs` | reads PEM files and the system's trust roots |
//! | `verifier.rs` | verifies the peer's certificate; takes one that is itself in `ca_file` |
//! | `reason.rs` | says in a line why a certificate was not accepted |

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig, crypto};

use super::{ClientCertFiles, Socket, Target};
use crate::error::{Error, ErrorKind, Result};

mod reason;
mod roots;
mod verifier;

use roots::{Roots, read_client_cert, unusable};
use verifier::ServerVerifier;

/// What is trusted, and what is shown to the peer. The files are read when the first connection needs them.
#[derive(Debug, Default)]
pub(crate) struct TlsOptions {
    ca_file: Option<PathBuf>,
    client_cert: Option<ClientCertFiles>,
    setup: OnceLock<Setup>,
}

/// What the files came to.
#[derive(Debug, Clone)]
struct Setup {
    config: Arc<ClientConfig>,
    /// Certificates of `ca_file` that could not be read, for the error of a connection that may have needed them.
    unreadable: Arc<[String]>,
}

impl TlsOptions {
    /// Trusts the certificates in `ca_file` (PEM), or the system's roots without one.
    pub(crate) fn new(ca_file: Option<PathBuf>, client_cert: Option<ClientCertFiles>) -> Self {
        Self { ca_file, client_cert, setup: OnceLock::new() }
    }

    /// The application's own configuration, as it is.
    pub(crate) fn with_config(config: Arc<ClientConfig>) -> Self {
        let setup = Setup { config, unreadable: Arc::new([]) };
        Self { setup: OnceLock::from(setup), ..Self::default() }
    }

    pub(super) async fn connect(&self, socket: TcpStream, target: &Target) -> Result<Box<dyn Socket>> {
        let setup = self.setup()?;
        let name = ServerName::try_from(target.server_name.to_string()).map_err(|_| {
            let what = format!("{} is not a name that a certificate can carry", target.server_name);
            Error::local(ErrorKind::InvalidArgument, what)
        })?;
        let secured = TlsConnector::from(setup.config.clone()).connect(name, socket).await;
        Ok(Box::new(secured.map_err(|error| setup.handshake_failed(error, target))?))
    }

    fn setup(&self) -> Result<Setup> {
        if let Some(setup) = self.setup.get() {
            return Ok(setup.clone());
        }
        let roots = match &self.ca_file {
            Some(path) => Roots::of_file(path)?,
            None => Roots::of_system()?,
        };
        let provider = Arc::new(crypto::ring::default_provider());
        let verifier = ServerVerifier::new(roots.store, roots.pinned, provider.clone())?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::local(ErrorKind::Unsupported, "TLS is not available").with_source(error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match &self.client_cert {
            None => config.with_no_client_auth(),
            Some(files) => {
                let (chain, key) = read_client_cert(files)?;
                config.with_client_auth_cert(chain, key).map_err(|error| unusable(&files.key).with_source(error))?
            }
        };
        let setup = Setup { config: Arc::new(config), unreadable: roots.unreadable.into() };
        Ok(self.setup.get_or_init(|| setup).clone())
    }
}

impl Setup {
    /// | the handshake ended with | hint | tried again |
    /// | --- | --- | --- |
    /// | a certificate that is not accepted | why, and what to do | no: it is not accepted a moment later either |
    /// | an end of the stream | the port may be the plain one | yes |
    /// | anything else | none | yes |
    fn handshake_failed(&self, error: std::io::Error, target: &Target) -> Error {
        let Target { address, server_name, .. } = target;
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        let (hint, is_final) = match cause {
            Some(rustls::Error::InvalidCertificate(reason)) => (format!(": {}", self.reason(reason)), true),
            _ if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                ("; if this is the broker's plain port, use pulsar://".to_owned(), false)
            }
            _ => (String::new(), false),
        };
        let failed = Error::network(format!("no TLS connection to {address} as {server_name}{hint}"));
        let failed = if is_final { failed.with_retriable(false) } else { failed };
        failed.with_source(error)
    }

    fn reason(&self, reason: &rustls::CertificateError) -> String {
        let mut text = reason::describe(reason);
        if *reason == rustls::CertificateError::UnknownIssuer && !self.unreadable.is_empty() {
            text.push_str("; not readable, and so not trusted: ");
            text.push_str(&self.unreadable.join(", "));
        }
        text
    }
}
