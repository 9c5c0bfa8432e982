//! Connecting to brokers: TCP, TLS, or a custom [`Dialer`].

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::runtime::{Runtime, timeout};
use super::user_code::catch_panic;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::control::{BrokerKey, HostPort};

mod over_tls;
mod tcp;
#[cfg(feature = "tls")]
mod tls;

pub(crate) use over_tls::TlsDialer;
pub(crate) use tcp::TcpDialer;
#[cfg(feature = "tls")]
pub(crate) use tls::TlsOptions;

/// The files of the client's certificate.
#[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "a build without TLS refuses it by name"))]
#[derive(Debug, Clone)]
pub(crate) struct ClientCertFiles {
    /// PEM: the client's certificate, then those of the authorities between it and the root.
    pub(crate) certificate: PathBuf,
    /// PEM: its private key.
    pub(crate) key: PathBuf,
}

/// The options of TLS.
#[derive(Debug, Clone, Default)]
#[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "a build without TLS refuses them by name"))]
pub(crate) struct TlsSettings {
    /// PEM: what is trusted; the system's roots without it.
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) client_cert: Option<ClientCertFiles>,
    /// Any host name of a certificate will do.
    pub(crate) skips_host_name: bool,
    /// Instead of all of these.
    #[cfg(feature = "tls")]
    pub(crate) config: Option<Arc<tokio_rustls::rustls::ClientConfig>>,
    pub(crate) peer: TlsPeer,
}

/// What is at the other end, for what an error says.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(not(all(feature = "tls", feature = "http")), allow(dead_code, reason = "no such errors, or no such peers"))]
pub(crate) enum TlsPeer {
    #[default]
    Broker,
    /// A web server that is no broker, as it is called in a sentence.
    WebServer(&'static str),
}

impl TlsSettings {
    /// # Errors
    /// - [`ErrorKind::Unsupported`]: an option in a build without TLS.
    /// - [`ErrorKind::InvalidArgument`]: an option beside the whole configuration.
    pub(crate) fn validate(&self) -> Result<()> {
        let options = [
            ("ca_file", self.ca_file.is_some()),
            ("client_cert_file", self.client_cert.is_some()),
            ("danger_skip_hostname_verification", self.skips_host_name),
        ];
        for (name, _) in options.into_iter().filter(|(_, is_set)| *is_set) {
            Self::needs_tls(name)?;
            #[cfg(feature = "tls")]
            if self.config.is_some() {
                let what = format!("{name} has no effect beside tls_config, which is the whole TLS configuration");
                return Err(Error::local(ErrorKind::InvalidArgument, what));
            }
        }
        Ok(())
    }

    /// # Errors
    /// [`ErrorKind::Unsupported`]: a build without TLS has no such option.
    pub(crate) fn needs_tls(option: &str) -> Result<()> {
        match cfg!(feature = "tls") {
            true => Ok(()),
            false => Err(Error::local(ErrorKind::Unsupported, format!("{option} needs the crate feature `tls`"))),
        }
    }
}

/// A connected byte stream.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Socket for S {}

/// The future of [`Dialer::dial`].
pub type DialFuture<'a> = Pin<Box<dyn Future<Output = Result<Box<dyn Socket>>> + Send + 'a>>;

/// The address to connect to, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Target {
    /// The address to dial: that of the broker, or of a proxy.
    pub address: HostPort,
    /// The name that the TLS handshake asks for (SNI) and that the peer's certificate must have: the host of `address`,
    /// and behind a proxy of [`proxy_service_url`](super::ClientBuilder::proxy_service_url), which passes TLS on, that
    /// of the broker.
    pub server_name: Arc<str>,
    /// Whether to use TLS. Never for a dialer of
    /// [`dialer_under_tls`](super::ClientBuilder::dialer_under_tls), over which the client uses it.
    pub tls: bool,
}

impl Target {
    /// The peer of TLS is the one that is dialed: a proxy that is named by a lookup ends it.
    pub(crate) fn from_key(key: &BrokerKey) -> Self {
        Self { address: key.physical.clone(), server_name: key.physical.host.clone(), tls: key.tls }
    }

    /// The same peer, by way of a proxy that routes by the server name.
    ///
    /// # Errors
    /// [`ErrorKind::Connection`], final: the peer is named by an address, and TLS has no server name for those.
    pub(crate) fn behind_sni_proxy(self, proxy: &HostPort) -> Result<Self> {
        if self.server_name.parse::<IpAddr>().is_ok() {
            let what = format!(
                "{} is an IP address, for which TLS has no server name, so the proxy {proxy} cannot route to it: the \
                 service URL and the brokers' advertised addresses have to be host names",
                self.address
            );
            return Err(Error::network(what).with_retriable(false));
        }
        Ok(Self { address: proxy.clone(), ..self })
    }
}

/// How a proxy that is named by [`proxy_service_url`](super::ClientBuilder::proxy_service_url) finds the broker that is
/// meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyProtocol {
    /// By the server name (SNI) of the TLS handshake, which is the broker's host. The proxy passes the bytes on and does
    /// not end TLS; Apache Traffic Server, Envoy, HAProxy and nginx can do so.
    Sni,
}

/// Makes connections. The default uses TCP and TLS; tests and tunnels can supply another.
///
/// ```
/// use pulsar_native::client::{DialFuture, Dialer, Socket, Target};
/// use pulsar_native::{Client, Error, ErrorKind};
/// use tokio::net::TcpStream;
///
/// /// Reaches every broker through a port that is forwarded to it.
/// struct Tunnel {
///     local_port: u16,
/// }
///
/// impl Dialer for Tunnel {
///     fn dial<'a>(&'a self, target: &'a Target) -> DialFuture<'a> {
///         Box::pin(async move {
///             if target.tls {
///                 return Err(Error::new(ErrorKind::Unsupported, "the tunnel ends TLS itself"));
///             }
///             let socket = TcpStream::connect(("127.0.0.1", self.local_port)).await?;
///             Ok(Box::new(socket) as Box<dyn Socket>)
///         })
///     }
/// }
///
/// let builder = Client::builder("pulsar://broker.example.com:6650").dialer(Tunnel { local_port: 7000 });
/// # drop(builder);
/// ```
pub trait Dialer: Send + Sync + 'static {
    /// Connects, with TLS if the target says so, and by itself: [`dialer`](super::ClientBuilder::dialer) has what is used as it
    /// is, [`dialer_under_tls`](super::ClientBuilder::dialer_under_tls) what the client uses TLS over. The client drops the future after [`connection_timeout`](super::ClientBuilder::connection_timeout).
    ///
    /// # Errors
    /// A [retriable](crate::Error::is_retriable) error, such as [`Error::connection`](crate::Error::connection) or any
    /// [`std::io::Error`], is retried with back-off; any other fails the producers, consumers and requests that wait for
    /// this broker, except those that were attached before.
    fn dial<'a>(&'a self, target: &'a Target) -> DialFuture<'a>;
}

/// The error of a socket that was in use: what a socket of this crate has found out about it, if it has.
pub(crate) fn lost(error: io::Error) -> Error {
    match error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()) {
        Some(found) => found.clone(),
        None => Error::network("the connection was lost").with_source(error),
    }
}

/// Dials, for at most `limit`.
pub(crate) async fn dial(
    runtime: &impl Runtime,
    dialer: &dyn Dialer,
    target: &Target,
    limit: Duration,
) -> Result<Box<dyn Socket>> {
    match timeout(runtime, limit, catch_panic(|| dialer.dial(target))).await {
        Some(Ok(dialed)) => dialed,
        Some(Err(panicked)) => Err(panicked.into_error(ErrorKind::Connection, "Dialer::dial")),
        None => {
            let what = format!("timed out after {limit:?} connecting to {}", target.address);
            Err(Error::local(ErrorKind::Connection, what))
        }
    }
}
