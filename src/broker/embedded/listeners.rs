//! Where the broker listens: the binary protocol and HTTP, each in the clear and over TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::http::serve_http;
use super::server::BrokerServer;
use super::tasks::{accept_connections, accept_tasks};
#[cfg(feature = "tls")]
use super::tls::{ClientCertificates, ServerTls, TlsIdentity};

/// What the builder was told. Where there is no address, it is a free port of the first one.
#[derive(Debug, Clone)]
pub(super) struct Listeners {
    pub(super) binary: SocketAddr,
    /// Brokers beside the first one, at free ports of its address.
    pub(super) more_brokers: usize,
    pub(super) serves_http: bool,
    pub(super) http: Option<SocketAddr>,
    #[cfg(feature = "tls")]
    pub(super) tls_identity: Option<TlsIdentity>,
    #[cfg(feature = "tls")]
    pub(super) clients: ClientCertificates,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<SocketAddr>,
    #[cfg(feature = "tls")]
    pub(super) https: Option<SocketAddr>,
}

impl Listeners {
    pub(super) fn on(binary: SocketAddr) -> Self {
        Self {
            binary,
            more_brokers: 0,
            serves_http: false,
            http: None,
            #[cfg(feature = "tls")]
            tls_identity: None,
            #[cfg(feature = "tls")]
            clients: ClientCertificates::default(),
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "tls")]
            https: None,
        }
    }

    /// Listens at every address.
    pub(super) async fn bind(self) -> io::Result<BoundListeners> {
        let binary = bind(self.binary).await?;
        let mut more = Vec::new();
        for _ in 0..self.more_brokers {
            more.push(bind(self.free_port()).await?);
        }
        #[cfg(feature = "tls")]
        if self.more_brokers > 0 && self.tls_identity.is_some() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, TLS_IS_FOR_ONE));
        }
        let http = self.bind_if(self.serves_http, self.http).await?;
        #[cfg(feature = "tls")]
        let secured = match &self.tls_identity {
            None => None,
            Some(identity) => Some(SecuredListeners {
                tls: identity.clone().load(self.clients.clone(), self.binary.ip()).await?,
                binary: bind(self.tls.unwrap_or(self.free_port())).await?,
                http: self.bind_if(self.serves_http, self.https).await?,
            }),
        };
        Ok(BoundListeners {
            binary,
            more,
            http,
            #[cfg(feature = "tls")]
            secured,
        })
    }

    async fn bind_if(&self, is_on: bool, address: Option<SocketAddr>) -> io::Result<Option<TcpListener>> {
        Ok(if is_on { Some(bind(address.unwrap_or(self.free_port())).await?) } else { None })
    }

    fn free_port(&self) -> SocketAddr {
        (self.binary.ip(), 0).into()
    }
}

#[cfg(feature = "tls")]
const TLS_IS_FOR_ONE: &str = "brokers: several embedded brokers of one cluster have no TLS";

pub(super) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let on_bind = |error: io::Error| io::Error::new(error.kind(), format!("listening on {address}: {error}"));
    TcpListener::bind(address).await.map_err(on_bind)
}

/// Sockets that listen.
pub(super) struct BoundListeners {
    binary: TcpListener,
    more: Vec<TcpListener>,
    http: Option<TcpListener>,
    #[cfg(feature = "tls")]
    secured: Option<SecuredListeners>,
}

#[cfg(feature = "tls")]
struct SecuredListeners {
    tls: ServerTls,
    binary: TcpListener,
    http: Option<TcpListener>,
}

impl BoundListeners {
    pub(super) fn addresses(&self) -> io::Result<Addresses> {
        let address_of = |listener: &Option<TcpListener>| listener.as_ref().map(TcpListener::local_addr).transpose();
        let mut binary = vec![self.binary.local_addr()?];
        for listener in &self.more {
            binary.push(listener.local_addr()?);
        }
        let http = address_of(&self.http)?;
        #[cfg(feature = "tls")]
        if let Some(secured) = &self.secured {
            let (tls, https) = (Some(secured.binary.local_addr()?), address_of(&secured.http)?);
            return Ok(Addresses { binary, http, tls, https, ca_pem: secured.tls.ca_pem.clone() });
        }
        Ok(Addresses { binary, http, tls: None, https: None, ca_pem: None })
    }

    /// Serves them until the broker stops.
    pub(super) fn serve(self, server: &Arc<BrokerServer>) {
        for (broker, listener) in std::iter::once(self.binary).chain(self.more).enumerate() {
            serve_broker(server, broker, listener);
        }
        if let Some(listener) = self.http {
            let (rest, own_url) =
                (Arc::clone(server), Arc::<str>::from(server.addresses.http_url().unwrap_or_default()));
            let serve = move |stream| serve_http(Arc::clone(&rest), Arc::clone(&own_url), stream, None);
            server.spawn(accept_tasks(Arc::clone(server), listener, serve));
        }
        #[cfg(feature = "tls")]
        if let Some(SecuredListeners { tls, binary, http }) = self.secured {
            tls.serve(server, binary, http);
        }
    }
}

/// Accepts for one broker of the cluster.
pub(super) fn serve_broker(server: &Arc<BrokerServer>, broker: usize, listener: TcpListener) {
    let id = server.add_acceptor(broker);
    server.spawn(accept_connections(Arc::clone(server), broker, id, listener));
}

/// Where the broker listens.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    /// Of each broker of the cluster; at least one.
    binary: Vec<SocketAddr>,
    /// `None` without the REST interface.
    http: Option<SocketAddr>,
    /// `None` without TLS.
    tls: Option<SocketAddr>,
    /// `None` without both.
    https: Option<SocketAddr>,
    /// The authority that signed the certificate, in PEM, if the broker made it.
    pub(super) ca_pem: Option<String>,
}

impl Addresses {
    pub(super) fn brokers(&self) -> usize {
        self.binary.len()
    }

    pub(super) fn of(&self, broker: usize) -> Option<SocketAddr> {
        self.binary.get(broker).copied()
    }

    /// Of the first broker.
    pub(super) fn first(&self) -> SocketAddr {
        self.binary[0]
    }

    /// Of all brokers.
    pub(super) fn url(&self) -> String {
        let hosts: Vec<_> = self.binary.iter().map(ToString::to_string).collect();
        format!("pulsar://{}", hosts.join(","))
    }

    /// Of one broker that there is.
    pub(super) fn url_of(&self, broker: usize) -> String {
        format!("pulsar://{}", self.binary[broker])
    }

    pub(super) fn tls_url(&self) -> Option<String> {
        self.tls.map(|address| format!("pulsar+ssl://{address}"))
    }

    pub(super) fn http_url(&self) -> Option<String> {
        self.http.map(|address| format!("http://{address}"))
    }

    pub(super) fn https_url(&self) -> Option<String> {
        self.https.map(|address| format!("https://{address}"))
    }
}
