//! A transparent proxy in front of the brokers of a cluster.
//!
//! ```text
//! client --plain or TLS--> listener of a broker --plain or TLS--> that broker
//!                               |
//!                               +--> TapFeed: segments, in the order in which they went by
//! ```
//!
//! Bytes are told of before they are forwarded, so that an answer is never told of before its request. They are forwarded as they come; only
//! frames that name a broker are held and rewritten (`rewrite`), so that clients come to the listener of that broker (`routes`).
//! What is told of is what the sender wrote.
//!
//! One port takes the binary protocol, TLS and HTTP: the first byte tells them apart (`serve`). Lookups over HTTP are rewritten too
//! (`web`).

pub(crate) mod rewrite;
mod routes;
mod serve;
mod web;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use self::routes::{Routes, Upstream};
use super::queue::{TapFeed, TapQueue};
use crate::broker::self_signed_acceptor;
use crate::client::{TlsOptions, TlsSettings};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::control::Transport;
use crate::machine::supervisor::service_url::ServiceUrl;

/// What waits to be looked at, bytes; what comes beyond it is forwarded unseen and told of as missing.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Connections at once; further ones are turned away. A proxy of Pulsar has the same limit by default.
const CONNECTIONS_MAX: usize = 10_000;

/// A running tap. Dropped, it stops: its connections end.
#[derive(Debug)]
pub struct Tap {
    address: SocketAddr,
    authority: String,
    ca_pem: String,
    stop: watch::Sender<bool>,
}

/// How a [`Tap`] is set up.
#[derive(Debug, Clone)]
pub struct TapBuilder {
    to: Vec<String>,
    listen: SocketAddr,
    advertise: Option<String>,
    tls: TlsSettings,
    connection_timeout: Duration,
    connections_max: usize,
}

impl Tap {
    /// A tap in front of the brokers that this service URL leads to: `pulsar://`, `pulsar+ssl://`, `http://` or `https://`. Of several
    /// hosts the first one is dialed.
    pub fn builder(to: impl Into<String>) -> TapBuilder {
        TapBuilder {
            to: vec![to.into()],
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: None,
            tls: TlsSettings::default(),
            connection_timeout: Duration::from_secs(10),
            connections_max: CONNECTIONS_MAX,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The service URL for clients that speak plain TCP.
    #[must_use]
    pub fn url(&self) -> String {
        format!("pulsar://{}", self.authority)
    }

    /// The service URL for clients that speak TLS; they have to trust [`ca_pem`](Self::ca_pem).
    #[must_use]
    pub fn tls_url(&self) -> String {
        format!("pulsar+ssl://{}", self.authority)
    }

    /// The service URL for clients that look topics up over HTTP.
    #[must_use]
    pub fn http_url(&self) -> String {
        format!("http://{}", self.authority)
    }

    /// The certificate of the authority that signed the tap's own one, PEM. Its key is gone: nobody else can sign by it.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl TapBuilder {
    /// One more way to the same cluster, with another scheme: `pulsar+ssl://` beside `pulsar://`, so that clients that speak TLS are
    /// carried on over TLS. Default: TLS ends at the tap, or begins there.
    #[must_use]
    pub fn also_to(mut self, url: impl Into<String>) -> Self {
        self.to.push(url.into());
        self
    }

    /// Where to listen. Default: a free port of 127.0.0.1. Brokers that are met get ports of the same interface.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// The host that clients are told in place of the brokers'. Default: the address it listens on; `localhost` for one that stands for
    /// all interfaces.
    #[must_use]
    pub fn advertise(mut self, host: impl Into<String>) -> Self {
        self.advertise = Some(host.into());
        self
    }

    /// The authorities that brokers' certificates are verified by, PEM. Default: those of the operating system.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.ca_file = Some(path.into());
        self
    }

    /// Listens, and starts to forward. The feed is to be read, by a thread of its own: what it does not take in time is forwarded
    /// unseen.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`]: a URL that is none, or two of one scheme.
    /// - [`ErrorKind::Connection`]: the address cannot be listened on.
    pub async fn start(self) -> Result<(Tap, TapFeed)> {
        let first = self.upstream()?;
        self.tls.validate()?;
        let refused = |error: io::Error| {
            Error::new(ErrorKind::Connection, format!("cannot listen on {}", self.listen)).with_source(error)
        };
        let listener = TcpListener::bind(self.listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let host = self.advertise.clone().unwrap_or_else(|| match address.ip() {
            ip if ip.is_unspecified() => "localhost".to_owned(),
            ip => ip.to_string(),
        });
        let made = self_signed_acceptor(address.ip(), Some(&host));
        let (acceptor, ca_pem) =
            made.map_err(|error| Error::new(ErrorKind::Unsupported, "no certificate can be made").with_source(error))?;
        let (queue, feed) = TapQueue::with_feed(QUEUE_BYTES_MAX);
        let (stop, stopped) = watch::channel(false);
        let routes = Routes::new(address, host, first);
        let authority = routes.authority(address.port());
        let shared = Arc::new(TapShared {
            routes,
            queue,
            acceptor,
            tls: TlsOptions::new(&self.tls),
            connection_timeout: self.connection_timeout,
            connections: Mutex::new(0),
            connections_max: self.connections_max,
            places: Arc::new(Semaphore::new(self.connections_max)),
            stopped,
        });
        tokio::spawn(serve::accept(shared, 0, listener));
        Ok((Tap { address, authority, ca_pem, stop }, feed))
    }

    fn upstream(&self) -> Result<Upstream> {
        let mut upstream = Upstream::default();
        for url in &self.to {
            let url = ServiceUrl::parse(url)?;
            let known = match (url.transport(), url.tls()) {
                (Transport::Pulsar, false) => &mut upstream.plain,
                (Transport::Pulsar, true) => &mut upstream.tls,
                (Transport::Http, false) => &mut upstream.web,
                (Transport::Http, true) => &mut upstream.web_tls,
            };
            let before = known.replace(url.hosts().first().cloned().ok_or_else(|| no_host(&url))?);
            if before.is_some() {
                let what = format!("{url}: there is one of this scheme already");
                return Err(Error::new(ErrorKind::InvalidArgument, what));
            }
        }
        Ok(upstream)
    }
}

fn no_host(url: &ServiceUrl) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{url} names no host"))
}

/// What all connections share.
struct TapShared {
    routes: Routes,
    queue: TapQueue,
    acceptor: TlsAcceptor,
    tls: TlsOptions,
    connection_timeout: Duration,
    /// Those that were carried on to a broker, ever.
    connections: Mutex<u64>,
    connections_max: usize,
    /// One for each connection that may come yet.
    places: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}
