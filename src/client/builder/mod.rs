//! Configuration of a client.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | the options |
//! | `connections.rs`, `tls.rs` | those of connections and of TLS |
//! | `assembly.rs` | what they make: a client, and how a cluster is dialed |

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use self::connections::ConnectionOptions;
use super::Client;
use super::auth::{Authentication, NoAuthentication};
use super::dial::{Dialer, ProxyProtocol, TlsSettings};
use super::failover::ServiceUrlProvider;
use super::runtime::TokioRuntime;
use crate::error::Result;
#[cfg(doc)]
use crate::error::{Error, ErrorKind};
use crate::machine::supervisor::INITIAL_BACKOFF;
use crate::machine::supervisor::service_url::shown;

mod assembly;
mod connections;
mod tls;

#[cfg(feature = "oauth2")]
pub(super) use assembly::random_seed;

/// What the application dials with.
#[derive(Clone)]
enum OwnDialer {
    /// As it is.
    Whole(Arc<dyn Dialer>),
    /// The client uses TLS over it.
    UnderTls(Arc<dyn Dialer>),
}

/// Configures a [`Client`]; created by [`Client::builder`]. The defaults are those of the Java client.
///
/// A duration beyond the range of the clock, such as [`Duration::MAX`], is no limit.
///
/// ```
/// # #[cfg(feature = "broker")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = pulsar_native::broker::EmbeddedBroker::builder().token_secret_key("a secret").start().await?;
/// # let (url, token) = (broker.url(), broker.token("admin"));
/// use std::time::Duration;
///
/// use pulsar_native::{Client, Token};
///
/// let client = Client::builder(url)
///     .authentication(Token::new(token))
///     .operation_timeout(Duration::from_secs(10))
///     .connect()
///     .await?;
/// client.close().await?;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "broker"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
#[must_use = "nothing is dialed before `connect` or `build`"]
pub struct ClientBuilder {
    service_url: String,
    authentication: Arc<dyn Authentication>,
    /// `authentication` was set.
    has_credentials: bool,
    dialer: Option<OwnDialer>,
    pub(super) tls: TlsSettings,
    listener_name: Option<String>,
    proxy: Option<(String, ProxyProtocol)>,
    #[cfg(feature = "http")]
    http_redirect_hosts: Vec<String>,
    #[cfg(feature = "http")]
    admin_url: Option<String>,
    connection_timeout: Duration,
    operation_timeout: Duration,
    keep_alive_interval: Duration,
    initial_backoff_interval: Duration,
    max_backoff_interval: Duration,
    connections: ConnectionOptions,
    memory_limit: usize,
    provider: Option<Arc<dyn ServiceUrlProvider>>,
    receive_memory_limit: usize,
    seed: Option<u64>,
    description: Option<String>,
    #[cfg(feature = "metrics")]
    metrics: super::observe::MetricsConfig,
}

impl ClientBuilder {
    pub(super) fn new(service_url: String) -> Self {
        Self {
            service_url,
            authentication: Arc::new(NoAuthentication),
            has_credentials: false,
            dialer: None,
            tls: TlsSettings::default(),
            listener_name: None,
            proxy: None,
            #[cfg(feature = "http")]
            http_redirect_hosts: Vec::new(),
            #[cfg(feature = "http")]
            admin_url: None,
            connection_timeout: Duration::from_secs(10),
            operation_timeout: Duration::from_secs(30),
            keep_alive_interval: Duration::from_secs(30),
            initial_backoff_interval: INITIAL_BACKOFF,
            max_backoff_interval: Duration::from_secs(60),
            connections: ConnectionOptions::default(),
            memory_limit: 64 * 1024 * 1024,
            provider: None,
            receive_memory_limit: 0,
            seed: None,
            description: None,
            #[cfg(feature = "metrics")]
            metrics: super::observe::MetricsConfig { interval: Duration::from_secs(10), per_topic: false },
        }
    }

    /// Where credentials come from, usually a [`Token`](super::Token). Default: none.
    pub fn authentication(mut self, authentication: impl Authentication) -> Self {
        self.authentication = Arc::new(authentication);
        self.has_credentials = true;
        self
    }

    /// The advertised listener whose addresses lookups return (`advertised_listener_name`, PIP-61): one of the names in
    /// the brokers' `advertisedListeners`, such as that of the addresses outside of their network. Default: the brokers'
    /// `internalListenerName`, or the listener whose own port the service URL leads to (`bindAddresses`, PIP-95).
    ///
    /// It chooses the addresses of brokers, not that of the service URL, which has to be one that is reached from here.
    /// The listener needs an address for the scheme in use, `pulsar` or `pulsar+ssl`; with TLS, one that is on the
    /// brokers' certificate. A name that the brokers do not have is refused as a broker that is not ready, and so tried
    /// again until the operation timeout.
    pub fn listener_name(mut self, name: impl Into<String>) -> Self {
        self.listener_name = Some(name.into());
        self
    }

    /// The URL of the brokers' REST interface, `http://host:8080` or `https://host:8443`, for what the binary protocol does
    /// not say: [`Consumer::why_idle`](super::Consumer::why_idle) reads the statistics of a topic there. It gets the
    /// credentials. Default: the service URL if it is `http://` or `https://`, else none.
    ///
    /// ```
    /// let builder = pulsar_native::Client::builder("pulsar://localhost:6650").admin_url("http://localhost:8080");
    /// # drop(builder);
    /// ```
    #[cfg(feature = "http")]
    pub fn admin_url(mut self, url: impl Into<String>) -> Self {
        self.admin_url = Some(url.into());
        self
    }

    /// A proxy in front of all brokers that routes by the server name of TLS (SNI routing, PIP-60): `pulsar+ssl://host:port`.
    /// Every connection to a broker is then dialed there, with the broker's host as the server name, and TLS ends at
    /// the broker, whose certificate is verified for that host. So neither the service URL nor what lookups name has to be
    /// resolved or reached from here, and all of them have to be host names. Default: brokers are dialed as they are
    /// named.
    ///
    /// The service URL has to be `pulsar+ssl://` or `https://`; requests of an `https://` URL themselves do not take
    /// this way, but go to its host, as in the Java client. A proxy of Pulsar's own (`bin/pulsar proxy`) needs no option:
    /// it is the host of the service URL, and lookups say that brokers are behind it.
    ///
    /// ```
    /// use pulsar_native::{Client, ProxyProtocol};
    ///
    /// let builder = Client::builder("pulsar+ssl://broker-1.example.com:6651")
    ///     .proxy_service_url("pulsar+ssl://proxy.example.com:4443", ProxyProtocol::Sni);
    /// # drop(builder);
    /// ```
    ///
    /// [`connect`](Self::connect) and [`build`](Self::build) refuse a proxy without TLS and a URL of another form
    /// ([`ErrorKind::InvalidArgument`]). A broker that is named by an IP address, for which TLS has no server name, is a
    /// final error ([`ErrorKind::Connection`]) of what needs it. Needs the crate feature `tls`.
    pub fn proxy_service_url(mut self, url: impl Into<String>, protocol: ProxyProtocol) -> Self {
        self.proxy = Some((url.into(), protocol));
        self
    }

    /// Further hosts that get the credentials when a redirect of an `http://` or `https://` lookup leads there: exact
    /// names, or `*.suffix` for all names that end with `.suffix`; no ports. Default: none, so that credentials are given
    /// to the hosts of the service URL (with the same scheme and port) alone. A redirect to another host is followed
    /// without them; one from `https://` to `http://` is not followed.
    ///
    /// The broker that a lookup names gets the credentials as well. Where there are some, the answer to a lookup behind a
    /// redirect to a host that may not have them is therefore an error ([`ErrorKind::Authentication`]); other answers from
    /// there, such as numbers of partitions, are taken.
    ///
    /// ```
    /// let builder = pulsar_native::Client::builder("https://pulsar.example.com:8443")
    ///     .http_redirect_hosts(["*.brokers.example.com"]);
    /// # drop(builder);
    /// ```
    #[cfg(feature = "http")]
    #[doc(alias = "httpLookupAuthAllowRedirect")]
    pub fn http_redirect_hosts<H: Into<String>>(mut self, hosts: impl IntoIterator<Item = H>) -> Self {
        self.http_redirect_hosts = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// How long one dial may take, TLS included. Default: 10 s. Where the service URL has several hosts, dial and
    /// handshake with one of them take at most its equal share of the [operation timeout](Self::operation_timeout).
    pub fn connection_timeout(mut self, timeout: Duration) -> Self {
        self.connection_timeout = timeout;
        self
    }

    /// How long a request to the broker may wait for its answer, and how long creating a producer or consumer may
    /// take in all. Default: 30 s.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// The interval of pings to a broker. If it sends nothing but its own pings for one interval after a ping, or accepts no bytes
    /// for that long, the connection is closed. Default: 30 s.
    pub fn keep_alive_interval(mut self, interval: Duration) -> Self {
        self.keep_alive_interval = interval;
        self
    }

    /// The first wait after a failure to attach a producer or consumer, or to reach a broker. Default: 100 ms. From a
    /// millisecond to the [longest](Self::max_backoff_interval).
    #[doc(alias = "startingBackoffInterval")]
    pub fn initial_backoff_interval(mut self, wait: Duration) -> Self {
        self.initial_backoff_interval = wait;
        self
    }

    /// The longest wait between two tries to attach a producer or consumer, or to reach a broker. The waits start at
    /// [`initial_backoff_interval`](Self::initial_backoff_interval), and double up to this. After a long outage it is also how long it may take until the end of the outage is
    /// noticed, so it should be well below the producers' send timeout where sends must not fail. Default: 60 s.
    pub fn max_backoff_interval(mut self, wait: Duration) -> Self {
        self.max_backoff_interval = wait;
        self
    }

    /// How much memory the messages may use that producers of this client have accepted and that are not confirmed yet:
    /// bytes of payload, keys and properties, before compression, over all its producers. Further sends wait, first come,
    /// first served among the producers, within their send timeout; [`Producer::try_enqueue`](super::Producer::try_enqueue)
    /// gives the message back. A message that is larger itself is accepted once no other is pending in the client, so
    /// that what is pending is never more than the larger of limit and message. 0: no limit. Default: 64 MiB.
    ///
    /// A producer takes its part in steps, so what [`Client::memory_usage`] says is in use is up to an eighth of the
    /// limit more than what is pending. What the process needs beyond the limit is listed in `docs/memory.md` of the
    /// repository.
    ///
    /// ```
    /// let builder = pulsar_native::Client::builder("pulsar://localhost:6650").memory_limit(16 * 1024 * 1024);
    /// # drop(builder);
    /// ```
    #[doc(alias = "memoryLimit")]
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.memory_limit = bytes;
        self
    }

    /// How much memory the entries may use that were delivered to consumers of this client and wait for the application:
    /// bytes as stored, over all its consumers. Each topic or partition has an equal share, and grants the broker no more
    /// permits than entries of their mean size fit into it, at least one while nothing is queued, and never more than
    /// [`receiver_queue_size`](super::ConsumerBuilder::receiver_queue_size). It begins with one permit and learns from
    /// what comes, so a new consumer needs some round trips until its queue is full. 0: no limit. Default: 0.
    ///
    /// Permits are messages and not bytes, so what comes can be more where entries grow suddenly; `docs/memory.md` of
    /// the repository has the formula. (The Java client counts received messages against `memoryLimit` where
    /// `autoScaledReceiverQueueSizeEnabled` is on.)
    ///
    /// ```
    /// let builder = pulsar_native::Client::builder("pulsar://localhost:6650").receive_memory_limit(64 * 1024 * 1024);
    /// # drop(builder);
    /// ```
    pub fn receive_memory_limit(mut self, bytes: usize) -> Self {
        self.receive_memory_limit = bytes;
        self
    }

    /// A description of the application, shown in the broker's statistics: it follows the client's own name and version
    /// in `CONNECT.client_version`, as in `Pulsar-Rust-native-v0.1.0-billing`, and in the header `User-Agent` of
    /// requests over HTTP. From 1 to 64 printable ASCII characters without spaces: the Java client takes any, and a
    /// broker forgets a version that has a space in it. Default: none.
    ///
    /// ```
    /// let builder = pulsar_native::Client::builder("pulsar://localhost:6650").description("billing");
    /// # drop(builder);
    /// ```
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// How often what producers and consumers have counted is added to the metrics. Zero: only once they have ended, and
    /// the gauges are not told. What happens to connections is counted at once. Default: 10 s.
    ///
    /// The metrics go to the recorder of the [`metrics`](https://docs.rs/metrics) facade, which has to be installed before
    /// the client is made. They are listed in `docs/observability.md` of the repository.
    #[cfg(feature = "metrics")]
    #[doc(alias = "openTelemetry")]
    pub fn metrics_interval(mut self, interval: Duration) -> Self {
        self.metrics.interval = interval;
        self
    }

    /// Whether the metrics of producers and consumers have the labels `pulsar.topic` and `pulsar.partition` beside tenant,
    /// namespace and subscription. Each topic is then a series of its own for each metric, which most recorders keep for
    /// good. Default: false, as in the Java client.
    #[cfg(feature = "metrics")]
    pub fn metrics_per_topic(mut self, per_topic: bool) -> Self {
        self.metrics.per_topic = per_topic;
        self
    }

    /// Makes the connections: an in-memory pipe in a test, a tunnel that ends TLS. The TLS options have no effect on it.
    /// Default: TCP, with TLS for `pulsar+ssl://`.
    pub fn dialer(mut self, dialer: impl Dialer) -> Self {
        self.dialer = Some(OwnDialer::Whole(Arc::new(dialer)));
        self
    }

    /// Makes the connections as [`dialer`](Self::dialer) does, and the client uses TLS over them for `pulsar+ssl://` and
    /// `https://`, with its TLS options: a proxy that passes bytes on, as `examples/socks5.rs` in the repository has it. The
    /// last of the two that is called counts. The targets that the dialer gets are without TLS ([`Target::tls`]); the address
    /// need not be one that this machine can resolve. Default: TCP. A `pulsar+ssl://` URL needs the crate feature `tls`.
    ///
    /// ```
    /// use pulsar_native::client::{DialFuture, Dialer, Socket, Target};
    /// use pulsar_native::Client;
    /// use tokio::net::TcpStream;
    ///
    /// /// Reaches every broker through a port that is forwarded to it.
    /// struct Forwarded(u16);
    ///
    /// impl Dialer for Forwarded {
    ///     fn dial<'a>(&'a self, _: &'a Target) -> DialFuture<'a> {
    ///         Box::pin(async move { Ok(Box::new(TcpStream::connect(("127.0.0.1", self.0)).await?) as Box<dyn Socket>) })
    ///     }
    /// }
    ///
    /// let builder = Client::builder("pulsar+ssl://broker.example.com:6651").dialer_under_tls(Forwarded(7000));
    /// # drop(builder);
    /// ```
    ///
    /// [`Target::tls`]: super::Target::tls
    pub fn dialer_under_tls(mut self, dialer: impl Dialer) -> Self {
        self.dialer = Some(OwnDialer::UnderTls(Arc::new(dialer)));
        self
    }

    /// Decides which cluster the client uses, beginning with that of the service URL: an
    /// [`AutoClusterFailover`](super::AutoClusterFailover), a `ControlledClusterFailover` (crate feature `http`), or code of
    /// the application. Default: none, so that the client
    /// stays with its service URL until [`Client::service_url_control`] is used.
    pub fn service_url_provider(mut self, provider: impl ServiceUrlProvider) -> Self {
        self.provider = Some(Arc::new(provider));
        self
    }

    /// The seed of the back-off jitter, of the partition at which round-robin starts, and of the one that
    /// [`SinglePartition`](super::MessageRoutingMode::SinglePartition) chooses. Default: random for each client.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the client and waits until a broker of the service URL has accepted the connection and the credentials.
    ///
    /// Dials that fail are repeated, with back-off, for up to the [operation timeout](Self::operation_timeout), so a
    /// broker may still be starting. A failure that waiting cannot fix is returned at once.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`]: an option, the URL, a PEM file or the size of the credentials is not usable.
    /// - [`ErrorKind::Unsupported`]: an option needs a crate feature that this build lacks.
    /// - [`ErrorKind::Authentication`]: the credentials are refused, or there are none.
    /// - [`ErrorKind::Connection`]: the broker's TLS certificate is not accepted.
    /// - [`ErrorKind::Protocol`]: the peer is not a Pulsar broker.
    /// - Another refusal of the broker, or a final error of a custom [`Dialer`] or [`Authentication`], with its own kind.
    /// - [`ErrorKind::TimedOut`]: no broker was reached within the operation timeout. The last failure is the
    ///   [`source`](std::error::Error::source), usually an [`Error`] of kind [`ErrorKind::Connection`].
    ///
    /// # Panics
    /// If called outside a tokio runtime, or in one without its timer. Without its I/O every dial fails.
    ///
    /// # Cancel safety
    /// Dropping the future ends the client it started.
    pub async fn connect(self) -> Result<Client> {
        let client = self.build()?;
        client.check_connection().await?;
        Ok(client)
    }

    /// Starts the client without a connection: it dials when a producer, a consumer or a query needs a broker. Wrong
    /// addresses and credentials are reported there.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), pulsar_native::Error> {
    /// // No broker has to be there yet.
    /// let client = pulsar_native::Client::builder("pulsar://localhost:6650").build()?;
    /// client.close().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`]: an option or the URL is not usable.
    /// - [`ErrorKind::Unsupported`]: an option needs a crate feature that this build lacks.
    ///
    /// # Panics
    /// If called outside a tokio runtime, or in one without its timer. Without its I/O every dial fails. The client's
    /// tasks run on that runtime.
    pub fn build(self) -> Result<Client> {
        let (client, driver) = self.with_runtime(TokioRuntime)?;
        tokio::spawn(driver);
        Ok(client)
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("service_url", &shown(&self.service_url))
            .field("ca_file", &self.tls.ca_file)
            .field("client_cert", &self.tls.client_cert)
            .field("listener_name", &self.listener_name)
            .field("description", &self.description)
            .field("proxy", &self.proxy.as_ref().map(|(url, protocol)| (shown(url), protocol)))
            .field("connection_timeout", &self.connection_timeout)
            .field("operation_timeout", &self.operation_timeout)
            .field("keep_alive_interval", &self.keep_alive_interval)
            .field("memory_limit", &self.memory_limit)
            .field("receive_memory_limit", &self.receive_memory_limit)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_password_of_the_service_url() {
        let text = format!("{:?}", Client::builder("pulsar://me:hunter2@host:6650"));
        assert!(text.contains("...@host:6650") && !text.contains("hunter2"), "{text}");
    }
}
