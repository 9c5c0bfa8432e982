//! TLS over a TCP connection: certificate and host name verified, roots from the system or from a PEM file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::{ClientCertFiles, Socket, Target};
use crate::error::{Error, ErrorKind, Result};

/// What is trusted, and what is shown to the peer. The files are read when the first connection needs them.
#[derive(Debug, Default)]
pub(crate) struct TlsOptions {
    ca_file: Option<PathBuf>,
    client_cert: Option<ClientCertFiles>,
    connector: OnceLock<Arc<ClientConfig>>,
}

impl TlsOptions {
    /// Trusts the certificates in `ca_file` (PEM), or the system's roots without one.
    pub(crate) fn new(ca_file: Option<PathBuf>, client_cert: Option<ClientCertFiles>) -> Self {
        Self { ca_file, client_cert, connector: OnceLock::new() }
    }

    /// The application's own configuration, as it is.
    pub(crate) fn with_config(config: Arc<ClientConfig>) -> Self {
        Self { connector: OnceLock::from(config), ..Self::default() }
    }

    pub(super) async fn connect(&self, socket: TcpStream, target: &Target) -> Result<Box<dyn Socket>> {
        let config = self.config()?;
        let name = ServerName::try_from(target.server_name.to_string()).map_err(|_| {
            let what = format!("{} is not a name that a certificate can carry", target.server_name);
            Error::local(ErrorKind::InvalidArgument, what)
        })?;
        let secured = TlsConnector::from(config).connect(name, socket).await;
        let secured = secured.map_err(|error| {
            // A peer without TLS hangs up on what it takes for garbage.
            let hint = match error.kind() {
                std::io::ErrorKind::UnexpectedEof => "; if this is the broker's plain port, use pulsar://",
                _ => "",
            };
            // A certificate that is not trusted now is not trusted a moment later.
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
            let is_untrusted = matches!(cause, Some(tokio_rustls::rustls::Error::InvalidCertificate(_)));
            let Target { address, server_name, .. } = target;
            let failed = Error::network(format!("no TLS connection to {address} as {server_name}{hint}"));
            let failed = if is_untrusted { failed.retriable(false) } else { failed };
            failed.with_source(error)
        })?;
        Ok(Box::new(secured))
    }

    fn config(&self) -> Result<Arc<ClientConfig>> {
        if let Some(config) = self.connector.get() {
            return Ok(config.clone());
        }
        let roots = match &self.ca_file {
            Some(path) => roots_of_file(path)?,
            None => roots_of_system()?,
        };
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::local(ErrorKind::Unsupported, "TLS is not available").with_source(error))?
            .with_root_certificates(roots);
        let config = match &self.client_cert {
            None => config.with_no_client_auth(),
            Some(files) => {
                let (chain, key) = read_client_cert(files)?;
                config.with_client_auth_cert(chain, key).map_err(|error| unusable(&files.key).with_source(error))?
            }
        };
        Ok(self.connector.get_or_init(|| Arc::new(config)).clone())
    }
}

fn roots_of_file(path: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|error| unusable(path).with_source(error))?;
    }
    Ok(roots)
}

/// At least one.
fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| unusable(path).with_source(error))?;
    if certificates.is_empty() {
        return Err(unusable(path).with_source("it holds no certificate"));
    }
    Ok(certificates)
}

fn read_client_cert(files: &ClientCertFiles) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = read_certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unusable(&files.key).with_source(error))?;
    Ok((chain, key))
}

fn unusable(path: &Path) -> Error {
    Error::local(ErrorKind::InvalidArgument, format!("the PEM file {} is not usable", path.display()))
}

fn roots_of_system() -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        let what = format!("the system's trust roots cannot be read ({why}); name a CA file");
        return Err(Error::local(ErrorKind::InvalidArgument, what));
    }
    Ok(roots)
}
