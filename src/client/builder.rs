//! How a client is set up.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::auth::{Authentication, NoAuthentication};
use super::dial::{Dialer, TcpDialer};
use super::driver::{DialConfig, SupervisorDriver};
use super::runtime::{Runtime, TokioRuntime};
use super::{Client, Shared, clock};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::ReadyList;
use crate::machine::control::Input;
use crate::machine::supervisor::service_url::ServiceUrl;
use crate::machine::supervisor::{Supervisor, SupervisorConfig};

/// Sets up a [`Client`]; made by [`Client::builder`]. The defaults are the Java client's.
pub struct ClientBuilder {
    service_url: String,
    authentication: Arc<dyn Authentication>,
    dialer: Option<Arc<dyn Dialer>>,
    ca_file: Option<PathBuf>,
    listener_name: Option<String>,
    connect_timeout: Duration,
    operation_timeout: Duration,
    keep_alive_interval: Duration,
    max_backoff_interval: Duration,
    seed: Option<u64>,
}

impl ClientBuilder {
    pub(super) fn new(service_url: String) -> Self {
        Self {
            service_url,
            authentication: Arc::new(NoAuthentication),
            dialer: None,
            ca_file: None,
            listener_name: None,
            connect_timeout: Duration::from_secs(10),
            operation_timeout: Duration::from_secs(30),
            keep_alive_interval: Duration::from_secs(30),
            max_backoff_interval: Duration::from_secs(60),
            seed: None,
        }
    }

    /// Where credentials come from, a [`Token`](super::Token) as a rule. Default: none.
    #[must_use]
    pub fn auth(mut self, authentication: impl Authentication) -> Self {
        self.authentication = Arc::new(authentication);
        self
    }

    /// A PEM file with the certificates to trust for `pulsar+ssl://`. Default: the system's trust roots. The peer's
    /// certificate and host name are always verified.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Which of the brokers' advertised listeners lookups shall name (`advertised_listener_name`). Default: the
    /// brokers' own default.
    #[must_use]
    pub fn listener_name(mut self, name: impl Into<String>) -> Self {
        self.listener_name = Some(name.into());
        self
    }

    /// How long one dial may take, TLS included. Default: 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a request to the broker may wait for its answer, and how long creating a producer or consumer may
    /// take in all. Default: 30 s.
    #[must_use]
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// The idle time after which a broker is pinged. One that stays silent for as long again, or takes no bytes for
    /// as long, loses the connection. Default: 30 s.
    #[must_use]
    pub fn keep_alive_interval(mut self, interval: Duration) -> Self {
        self.keep_alive_interval = interval;
        self
    }

    /// The longest wait between two tries to attach a producer or consumer, or to reach a broker. The waits start at
    /// 100 ms and double up to this. After an outage of many tries it is also how long it may take until one notices
    /// that the outage is over, so it should be well below the producers' send timeout where sends must not fail.
    /// Default: 60 s.
    #[must_use]
    pub fn max_backoff_interval(mut self, wait: Duration) -> Self {
        self.max_backoff_interval = wait;
        self
    }

    /// Makes the connections instead of TCP and TLS: an in-memory pipe in a test, a tunnel.
    #[must_use]
    pub fn dialer(mut self, dialer: impl Dialer) -> Self {
        self.dialer = Some(Arc::new(dialer));
        self
    }

    /// Fixes what is random otherwise: back-off jitter and where round-robin starts.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the client and dials the service URL once, so that a wrong address or credential shows here.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for an unusable option or URL; [`ErrorKind::Connection`] with the address when
    /// no host of the URL can be reached; [`ErrorKind::Authentication`] when the credentials are refused;
    /// [`ErrorKind::Protocol`] when the peer is no Pulsar broker.
    ///
    /// # Panics
    /// Outside of a tokio runtime with its timer and I/O enabled.
    ///
    /// # Cancel safety
    /// Dropping the future ends the client it started.
    pub async fn connect(self) -> Result<Client> {
        let (client, driver) = self.with_runtime(TokioRuntime)?;
        tokio::spawn(driver);
        client.check_connection().await?;
        Ok(client)
    }

    /// A client, and the task that has to run for it.
    pub(crate) fn with_runtime<R: Runtime>(self, runtime: R) -> Result<(Client, SupervisorDriver<R>)> {
        let (client, supervisor, inputs) = self.parts()?;
        let (ready, events) = (client.shared.ready.clone(), client.shared.inputs.clone());
        let driver = SupervisorDriver::new(supervisor, runtime, ready, (events, inputs), self.dial_config());
        Ok((client, driver))
    }

    /// A client whose tasks do not run yet.
    fn parts(&self) -> Result<(Client, Supervisor, UnboundedReceiver<Input>)> {
        self.validate()?;
        let service_url = ServiceUrl::parse(&self.service_url)?;
        let address: Arc<str> = service_url.to_string().into();
        let seed = self.seed.unwrap_or_else(random_seed);
        let mut config = SupervisorConfig::new(service_url, seed);
        config.listener_name = self.listener_name.clone();
        config.operation_timeout = self.operation_timeout;
        config.max_backoff_interval = self.max_backoff_interval;
        let ready = ReadyList::new();
        let (inputs, inbox) = unbounded_channel();
        let supervisor = Supervisor::new(config, ready.clone());
        let shared = Shared {
            inputs,
            ready,
            address,
            operation_timeout: self.operation_timeout,
            seed,
            producer_ids: AtomicU64::new(0),
            consumer_ids: AtomicU64::new(0),
            watcher_ids: AtomicU64::new(0),
        };
        Ok((Client { shared: Arc::new(shared) }, supervisor, inbox))
    }

    fn validate(&self) -> Result<()> {
        let durations = [
            ("connect_timeout", self.connect_timeout),
            ("operation_timeout", self.operation_timeout),
            ("keep_alive_interval", self.keep_alive_interval),
            ("max_backoff_interval", self.max_backoff_interval),
        ];
        for (name, duration) in durations {
            if duration.is_zero() {
                return Err(Error::local(ErrorKind::InvalidArgument, format!("{name} must be above zero")));
            }
        }
        if !cfg!(feature = "tls") && self.ca_file.is_some() {
            return Err(Error::local(ErrorKind::Unsupported, "ca_file needs the crate feature `tls`"));
        }
        Ok(())
    }

    fn dial_config(self) -> DialConfig {
        let tcp = TcpDialer {
            #[cfg(feature = "tls")]
            tls: super::dial::TlsOptions::new(self.ca_file),
        };
        DialConfig {
            authentication: self.authentication,
            dialer: self.dialer.unwrap_or_else(|| Arc::new(tcp)),
            connect_timeout: self.connect_timeout,
            keep_alive_interval: self.keep_alive_interval,
            operation_timeout: self.operation_timeout,
            client_version: concat!("Pulsar-Rust-native-v", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Different for each client of each process: the standard library's hasher keys, and the clock.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u64(clock::wall_ms());
    hasher.finish()
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("service_url", &self.service_url)
            .field("ca_file", &self.ca_file)
            .field("listener_name", &self.listener_name)
            .field("connect_timeout", &self.connect_timeout)
            .field("operation_timeout", &self.operation_timeout)
            .field("keep_alive_interval", &self.keep_alive_interval)
            .finish_non_exhaustive()
    }
}
