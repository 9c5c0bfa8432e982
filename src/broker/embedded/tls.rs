//! TLS on both listeners: the certificate, and the handshake of a connection.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::connection::serve_connection;
use super::http::serve_http;
use super::old_certificates::ClientVerifier;
use super::server::BrokerServer;
use super::tasks::accept_tasks;
use crate::broker::machine::Peer;
use crate::common_name::common_name;
use crate::tls_provider;

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

/// Which certificates of clients are taken.
#[derive(Debug, Clone, Default)]
pub(super) struct ClientCertificates {
    /// PEM.
    pub(super) trust_certs_file: Option<PathBuf>,
    pub(super) are_required: bool,
}

impl ClientCertificates {
    fn verifier(&self, provider: Arc<CryptoProvider>) -> io::Result<Arc<dyn ClientCertVerifier>> {
        let Some(path) = &self.trust_certs_file else {
            return match self.are_required {
                true => Err(invalid(NO_AUTHORITY.to_owned())),
                false => Ok(WebPkiClientVerifier::no_client_auth()),
            };
        };
        let mut roots = RootCertStore::empty();
        for certificate in read_chain("tls_trust_certs_file", path)? {
            let unusable = |error| invalid(format!("tls_trust_certs_file: {}: {error}", path.display()));
            roots.add(certificate).map_err(unusable)?;
        }
        let (authorities, algorithms) = (roots.roots.clone(), provider.signature_verification_algorithms);
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = if self.are_required { builder } else { builder.allow_unauthenticated() };
        let unusable = |error| invalid(format!("tls_trust_certs_file: {}: {error}", path.display()));
        Ok(Arc::new(ClientVerifier { library: builder.build().map_err(unusable)?, authorities, algorithms }))
    }
}

const NO_AUTHORITY: &str = "tls_require_trusted_client_cert_on_connect needs a tls_trust_certs_file";

/// Of settings by name, which come one by one.
const HALF_IDENTITY: &str = "tlsCertificateFilePath and tlsKeyFilePath need each other";

/// TLS, ready for connections.
pub(super) struct ServerTls {
    acceptor: TlsAcceptor,
    /// The authority's certificate, if it was made here.
    pub(super) ca_pem: Option<String>,
}

impl TlsIdentity {
    /// Reads files on a thread that may block. `listen` is the address that a certificate made here is for.
    pub(super) async fn load(self, clients: ClientCertificates, listen: IpAddr) -> io::Result<ServerTls> {
        let load = move || self.load_now(&clients, listen);
        tokio::task::spawn_blocking(load).await.map_err(|_| io::Error::other("the runtime shut down"))?
    }

    #[cfg_attr(not(feature = "self-signed"), allow(unused_variables, reason = "no certificate is made"))]
    fn load_now(self, clients: &ClientCertificates, listen: IpAddr) -> io::Result<ServerTls> {
        let (config, ca_pem) = match self {
            Self::Config(config) => (config, None),
            Self::Files { certificate, key } if certificate.as_os_str().is_empty() || key.as_os_str().is_empty() => {
                return Err(invalid(HALF_IDENTITY.to_owned()));
            }
            Self::Files { certificate, key } => {
                let config = config_of(clients, read_chain("tls_cert_file", &certificate)?, read_key(&key)?)?;
                let unusable =
                    |error| invalid(format!("tls_cert_file: {} with its key: {error}", certificate.display()));
                (config.map_err(unusable)?, None)
            }
            #[cfg(feature = "self-signed")]
            Self::SelfSigned => {
                let made = super::self_signed::make(listen, None).map_err(io::Error::other)?;
                (config_of(clients, made.chain, made.key)?.map_err(io::Error::other)?, Some(made.ca_pem))
            }
        };
        Ok(ServerTls { acceptor: TlsAcceptor::from(config), ca_pem })
    }
}

/// The inner error is that of the certificate and its key.
fn config_of(
    clients: &ClientCertificates,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> io::Result<Result<Arc<ServerConfig>, rustls::Error>> {
    let provider = tls_provider::provider().map_err(io::Error::other)?;
    let verifier = clients.verifier(provider.clone())?;
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?.with_client_cert_verifier(verifier);
    Ok(config.with_single_cert(chain, key).map(Arc::new))
}

fn read_chain(option: &str, path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let unusable = |error: &dyn std::fmt::Display| invalid(format!("{option}: {}: {error}", path.display()));
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
                    let peer = Peer { address: stream.get_ref().0.peer_addr().ok(), common_name: certified(&stream) };
                    serve_connection(&server, 0, stream, peer);
                }
            }
        };
        server.spawn(accept_tasks(Arc::clone(server), binary, serve));
        let Some(http) = http else { return };
        let (acceptor, inner) = (self.acceptor.clone(), Arc::clone(server));
        let own_url = Arc::<str>::from(server.addresses.https_url().unwrap_or_default());
        let serve = move |stream| {
            let (acceptor, server, own_url) = (acceptor.clone(), Arc::clone(&inner), Arc::clone(&own_url));
            async move {
                if let Some(stream) = handshake(&acceptor, stream).await {
                    let certified = certified(&stream);
                    serve_http(server, own_url, stream, certified).await;
                }
            }
        };
        server.spawn(accept_tasks(Arc::clone(server), http, serve));
    }
}

/// The common name of the certificate that the client has shown.
fn certified(stream: &TlsStream<TcpStream>) -> Option<String> {
    let certificates = stream.get_ref().1.peer_certificates()?;
    common_name(certificates.first()?).map(str::to_owned)
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

/// TLS with a certificate made on the spot for `listen`, the loopback addresses and one further name, and the PEM of the authority that
/// signed it.
#[cfg(feature = "tap")]
pub(crate) fn self_signed_acceptor(listen: IpAddr, also: Option<&str>) -> io::Result<(TlsAcceptor, String)> {
    let made = super::self_signed::make(listen, also).map_err(io::Error::other)?;
    let config = config_of(&ClientCertificates::default(), made.chain, made.key)?.map_err(io::Error::other)?;
    Ok((TlsAcceptor::from(config), made.ca_pem))
}
