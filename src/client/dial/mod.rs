//! Connecting to brokers: TCP, TLS, or a custom [`Dialer`].

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::runtime::{Runtime, timeout};
use super::user_code::catch_panic;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::control::{BrokerKey, HostPort};

mod tcp;
#[cfg(feature = "tls")]
mod tls;

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
    /// The name that the peer's certificate must have: the host of the broker, also behind a proxy.
    pub server_name: Arc<str>,
    /// Whether to use TLS.
    pub tls: bool,
}

impl Target {
    pub(crate) fn from_key(key: &BrokerKey) -> Self {
        Self { address: key.physical.clone(), server_name: key.logical.host.clone(), tls: key.tls }
    }
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
    /// Connects. The client drops the future after [`connection_timeout`](super::ClientBuilder::connection_timeout).
    ///
    /// # Errors
    /// A [retriable](crate::Error::is_retriable) error, such as [`Error::connection`](crate::Error::connection) or any
    /// [`std::io::Error`], is retried with back-off; any other fails the producers, consumers and requests that wait for
    /// this broker, except those that were attached before.
    fn dial<'a>(&'a self, target: &'a Target) -> DialFuture<'a>;
}

/// Dials, for at most `limit`.
pub(crate) async fn dial(
    runtime: &impl Runtime,
    dialer: &dyn Dialer,
    key: &BrokerKey,
    limit: Duration,
) -> Result<Box<dyn Socket>> {
    let target = Target::from_key(key);
    match timeout(runtime, limit, catch_panic(|| dialer.dial(&target))).await {
        Some(Ok(dialed)) => dialed,
        Some(Err(panicked)) => Err(panicked.into_error(ErrorKind::Connection, "Dialer::dial")),
        None => {
            let what = format!("timed out after {limit:?} connecting to {}", target.address);
            Err(Error::local(ErrorKind::Connection, what))
        }
    }
}
