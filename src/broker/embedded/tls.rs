//! TLS on both listeners: the certificate, and the handshake of a connection.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::connection::serve_connection;
use super::http::serve_http;
use super::server::BrokerServer;
use super::tasks::accept_tasks;

/// How long a handshake may take, as at a real broker.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the broker shows of itself.
#[derive(Debug, Clone)]
pub(super) enum TlsIdentity {
    Config(Arc<ServerConfig>),
    /// PEM.
    Files {
        certificate: PathBuf,
        key: PathBuf,
    },
    /// Made on the spot.
    #[cfg(feature = "self-signed")]
    SelfSigned,
}

/// TLS, ready for connections.
pub(super) struct ServerTls {
    acceptor: TlsAcceptor,
    /// The authority's certificate, if it was made here.
    pub(super) ca_pem: Option<String>,
}

impl TlsIdentity {
    /// Reads files on a thread that may block. `listen` is the address that a certificate made here is for.
    pub(super) async fn load(self, listen: IpAddr) -> io::Result<ServerTls> {
        let load = move || self.load_now(listen);
        tokio::task::spawn_blocking(load).await.map_err(|_| io::Error::other("the runtime shut down"))?
    }

    #[cfg_attr(not(feature = "self-signed"), allow(unused_variables, reason = "no certificate is made"))]
    fn load_now(self, listen: IpAddr) -> io::Result<ServerTls> {
        let (config, ca_pem) = match self {
            Self::Config(config) => (config, None),
            Self::Files { certificate, key } => {
                let config = config_of(read_chain(&certificate)?, read_key(&key)?);
                let unusable =
                    |error| invalid(format!("tls_cert_file: {} with its key: {error}", certificate.display()));
                (config.map_err(unusable)?, None)
            }
            #[cfg(feature = "self-signed")]
            Self::SelfSigned => {
                let made = super::self_signed::make(listen).map_err(io::Error::other)?;
                (config_of(made.chain, made.key).map_err(io::Error::other)?, Some(made.ca_pem))
            }
        };
        Ok(ServerTls { acceptor: TlsAcceptor::from(config), ca_pem })
    }
}

fn config_of(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions()?.with_no_client_auth();
    Ok(Arc::new(config.with_single_cert(chain, key)?))
}

fn read_chain(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let unusable = |error: &dyn std::fmt::Display| invalid(format!("tls_cert_file: {}: {error}", path.display()));
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))?;
    let chain = certificates.collect::<Result<Vec<_>, _>>().map_err(|error| unusable(&error))?;
    if chain.is_empty() { Err(unusable(&"it holds no certificate")) } else { Ok(chain) }
}

fn read_key(path: &Path) -> io::Result<PrivateKeyDer<'static>> {
    let unusable = |error| invalid(format!("tls_cert_file: the key {}: {error}", path.display()));
    PrivateKeyDer::from_pem_file(path).map_err(unusable)
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

impl ServerTls {
    /// Serves both listeners until the broker stops.
    pub(super) fn serve(&self, server: &Arc<BrokerServer>, binary: TcpListener, http: Option<TcpListener>) {
        let (acceptor, inner) = (self.acceptor.clone(), Arc::clone(server));
        let serve = move |stream| {
            let (acceptor, server) = (acceptor.clone(), Arc::clone(&inner));
            async move {
                if let Some(stream) = handshake(&acceptor, stream).await {
                    serve_connection(&server, stream);
                }
            }
        };
        server.spawn(accept_tasks(Arc::clone(server), binary, serve));
        let Some(http) = http else { return };
        let (acceptor, inner) = (self.acceptor.clone(), Arc::clone(server));
        let serve = move |stream| {
            let (acceptor, server) = (acceptor.clone(), Arc::clone(&inner));
            async move {
                if let Some(stream) = handshake(&acceptor, stream).await {
                    serve_http(server, stream).await;
                }
            }
        };
        server.spawn(accept_tasks(Arc::clone(server), http, serve));
    }
}

/// `None` for a client that is not let in, or does not speak TLS.
async fn handshake(acceptor: &TlsAcceptor, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
    let accepted = async {
        match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => Some(stream),
            // A socket that is closed with bytes unread is reset, and the alert that says why is lost.
            Err((_, mut stream)) => {
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                None
            }
        }
    };
    timeout(HANDSHAKE_TIMEOUT, accepted).await.ok().flatten()
}
