//! What the options of a client make: the client itself, and how the brokers of a cluster are dialed.

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::{ClientBuilder, OwnDialer};
use crate::client::dial::{Dialer, ProxyProtocol, TcpDialer, TlsDialer, TlsSettings};
use crate::client::drain::Handles;
use crate::client::driver::{Clusters, DialConfig, SupervisorDriver, SupervisorHandle};
use crate::client::failover::{Cluster, Switch};
use crate::client::observe::{Observer, ObserverConfig};
use crate::client::runtime::Runtime;
use crate::client::same_options::SameOptions;
use crate::client::{Client, Shared, clock};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::ReadyList;
use crate::machine::control::{HostPort, Input, Transport};
use crate::machine::memory::MemoryBudget;
use crate::machine::receive_memory::ReceiveBudget;
use crate::machine::supervisor::service_url::{ServiceUrl, shown};
use crate::machine::supervisor::{Supervisor, SupervisorConfig};

impl ClientBuilder {
    /// A client, and the future that must be polled for it.
    pub(crate) fn with_runtime<R: Runtime>(mut self, runtime: R) -> Result<(Client, SupervisorDriver<R>)> {
        let (service_url, config) = self.cluster_config()?;
        let (sender, inputs) = unbounded_channel();
        let handle = SupervisorHandle { inputs: sender, ready: ReadyList::new() };
        let supervisor = Supervisor::new(self.supervisor_config(service_url.clone()), handle.ready.clone());
        let clusters = Clusters::new(config);
        let provider = self.provider.take();
        let switch = self.switch(&runtime, clusters.clone(), handle.inputs.clone())?;
        let for_work = runtime.clone();
        let shared = Shared {
            connection_states: supervisor.connection_states().clone(),
            #[cfg(feature = "http")]
            admin: switch.admin.clone(),
            switch: Arc::new(switch),
            producer_options: SameOptions::default(),
            consumer_options: SameOptions::default(),
            handles: Handles::default(),
            supervisor: handle.clone(),
            service_url: service_url.to_string().into(),
            operation_timeout: self.operation_timeout,
            memory: NonZeroUsize::new(self.memory_limit).map(MemoryBudget::new),
            seed: supervisor.seed(),
            receive_memory: NonZeroUsize::new(self.receive_memory_limit).map(ReceiveBudget::new),
            producer_ids: AtomicU64::new(0),
            consumer_ids: AtomicU64::new(0),
            watcher_ids: AtomicU64::new(0),
            new_work_set: Box::new(move || for_work.new_work_set()),
            tokio: tokio::runtime::Handle::try_current().ok(),
        };
        let client = Client { shared: Arc::new(shared) };
        let observer = Observer::new(&self.observer_config(&client, &service_url), clock::now());
        let mut driver = SupervisorDriver::new(supervisor, runtime, handle, inputs, clusters, observer);
        if let Some(provider) = provider {
            driver.run_provider(provider, client.service_url_control());
        }
        Ok((client, driver))
    }

    fn supervisor_config(&self, url: ServiceUrl) -> SupervisorConfig {
        let mut config = SupervisorConfig::new(url, self.seed.unwrap_or_else(random_seed));
        config.listener_name = self.listener_name.clone();
        config.operation_timeout = self.operation_timeout;
        config.initial_backoff_interval = self.initial_backoff_interval;
        config.max_backoff_interval = self.max_backoff_interval;
        self.connections.configure(&mut config);
        config
    }

    /// What it takes to go to another cluster.
    fn switch<R: Runtime>(
        &self,
        runtime: &R,
        clusters: Arc<Clusters>,
        inputs: UnboundedSender<Input>,
    ) -> Result<Switch> {
        #[cfg(feature = "http")]
        let admin = crate::client::http::admin::Admin::new(runtime.clone());
        #[cfg(feature = "http")]
        admin.set(self.admin_config(&ServiceUrl::parse(&self.service_url)?)?);
        let for_timers = runtime.clone();
        Ok(Switch {
            builder: self.clone(),
            clusters,
            inputs,
            new_timer: Box::new(move || Box::new(for_timers.new_timer())),
            #[cfg(feature = "http")]
            admin,
            current: Mutex::new(Cluster::new(&*self.service_url)),
        })
    }

    /// The builder with the options of another cluster.
    pub(in crate::client) fn of_cluster(&self, cluster: &Cluster) -> Self {
        let mut builder = self.clone();
        builder.service_url.clone_from(&cluster.service_url);
        if let Some(authentication) = &cluster.authentication {
            builder.authentication = authentication.clone();
            builder.has_credentials = true;
        }
        if let Some(tls) = &cluster.tls {
            builder.tls.clone_from(tls);
        }
        #[cfg(feature = "http")]
        if builder.service_url != self.service_url {
            builder.admin_url.clone_from(&cluster.admin_url);
        }
        builder
    }

    /// The service URL, and how the brokers behind it are dialed.
    pub(in crate::client) fn cluster_config(&self) -> Result<(ServiceUrl, DialConfig)> {
        self.validate()?;
        let url = ServiceUrl::parse(&self.service_url)?;
        #[cfg(not(feature = "http"))]
        if url.transport() == Transport::Http {
            let what = "http:// and https:// service URLs need the crate feature `http`, which this build lacks";
            return Err(Error::local(ErrorKind::Unsupported, what));
        }
        let config = DialConfig { sni_proxy: self.sni_proxy(&url)?, ..self.dial_config(&url)? };
        Ok((url, config))
    }

    /// Where the REST interface is, and how it is dialed. The proxy of TLS is not for it: it may be plain HTTP beside a
    /// service URL with TLS.
    #[cfg(feature = "http")]
    pub(in crate::client) fn admin_config(&self, service_url: &ServiceUrl) -> Result<Option<(ServiceUrl, DialConfig)>> {
        let Some(url) = self.admin_service_url(service_url)? else { return Ok(None) };
        let config = self.dial_config(&url)?;
        Ok(Some((url, config)))
    }

    fn observer_config(&self, client: &Client, service_url: &ServiceUrl) -> ObserverConfig {
        let is_plain_http = service_url.transport() == Transport::Http && !service_url.tls();
        let is_exposed = |host: &&HostPort| is_plain_http && self.has_credentials && !is_loopback(&host.host);
        ObserverConfig {
            service_url: client.shared.service_url.clone(),
            plain_http_host: service_url.hosts().iter().find(is_exposed).map(|host| host.to_string().into()),
            #[cfg(feature = "metrics")]
            metrics: self.metrics,
            #[cfg(feature = "metrics")]
            memory: client.shared.memory(),
        }
    }

    fn validate(&self) -> Result<()> {
        let durations = [
            ("connection_timeout", self.connection_timeout),
            ("operation_timeout", self.operation_timeout),
            ("keep_alive_interval", self.keep_alive_interval),
            ("max_backoff_interval", self.max_backoff_interval),
        ];
        for (name, duration) in durations {
            if duration.is_zero() {
                return Err(Error::local(ErrorKind::InvalidArgument, format!("{name} must be above zero")));
            }
        }
        if self.initial_backoff_interval < BACKOFF_MIN {
            let what = format!("initial_backoff_interval must be at least {BACKOFF_MIN:?}");
            return Err(Error::local(ErrorKind::InvalidArgument, what));
        }
        if self.max_backoff_interval < self.initial_backoff_interval {
            let first = self.initial_backoff_interval;
            let what = format!("max_backoff_interval must be at least initial_backoff_interval, {first:?}");
            return Err(Error::local(ErrorKind::InvalidArgument, what));
        }
        self.connections.validate()?;
        if !self.description.as_deref().is_none_or(is_description) {
            let what = format!(
                "description must be 1 to {DESCRIPTION_CHARS_MAX} printable ASCII characters without spaces: \
                 a broker forgets a client version with a space in it"
            );
            return Err(Error::local(ErrorKind::InvalidArgument, what));
        }
        if self.listener_name.as_deref().is_some_and(|name| name.trim().is_empty()) {
            let what = "listener_name must not be blank: leave it out for the brokers' default";
            return Err(Error::local(ErrorKind::InvalidArgument, what));
        }
        self.tls.validate()
    }

    /// Where the REST interface is, if that is known.
    #[cfg(feature = "http")]
    fn admin_service_url(&self, service_url: &ServiceUrl) -> Result<Option<ServiceUrl>> {
        let Some(url) = &self.admin_url else {
            return Ok(Some(service_url.clone()).filter(|url| url.transport() == Transport::Http));
        };
        let url = ServiceUrl::parse(url)?;
        match url.transport() {
            Transport::Http => Ok(Some(url)),
            Transport::Pulsar => {
                let what = format!("`admin_url` has to be http:// or https://, and `{url}` is neither");
                Err(Error::local(ErrorKind::InvalidArgument, what))
            }
        }
    }

    /// The address of the proxy that routes by the server name.
    fn sni_proxy(&self, service_url: &ServiceUrl) -> Result<Option<HostPort>> {
        let Some((url, ProxyProtocol::Sni)) = &self.proxy else { return Ok(None) };
        TlsSettings::needs_tls("proxy_service_url")?;
        let refused = |what: &str| Error::local(ErrorKind::InvalidArgument, format!("proxy_service_url: {what}"));
        if !service_url.tls() {
            return Err(refused(
                "a proxy that routes by the server name needs a pulsar+ssl:// or https:// service URL",
            ));
        }
        match ServiceUrl::parse(url) {
            Ok(proxy) if proxy.tls() && proxy.transport() == Transport::Pulsar && proxy.hosts().len() == 1 => {
                Ok(proxy.hosts().first().cloned())
            }
            _ => Err(refused(&format!("`{}` is not of the form pulsar+ssl://host:port", shown(url)))),
        }
    }

    fn dial_config(&self, service_url: &ServiceUrl) -> Result<DialConfig> {
        #[cfg(feature = "http")]
        let http = crate::client::http::HttpOptions {
            base_path: service_url.path().to_owned(),
            redirect_hosts: crate::client::http::RedirectHosts::parse(self.http_redirect_hosts.clone())?,
        };
        #[cfg(feature = "tls")]
        let tls = crate::client::dial::TlsOptions::new(&self.tls);
        let dialer: Arc<dyn Dialer> = match &self.dialer {
            Some(OwnDialer::Whole(dialer)) => dialer.clone(),
            Some(OwnDialer::UnderTls(under)) => Arc::new(TlsDialer {
                under: under.clone(),
                #[cfg(feature = "tls")]
                tls,
            }),
            None => Arc::new(TcpDialer::new(
                #[cfg(feature = "tls")]
                tls,
                self.connection_timeout,
            )),
        };
        Ok(DialConfig {
            authentication: self.authentication.clone(),
            dialer,
            connection_timeout: self.connection_timeout,
            service_hosts: service_url.hosts().to_vec(),
            sni_proxy: None,
            keep_alive_interval: self.keep_alive_interval,
            operation_timeout: self.operation_timeout,
            client_version: client_version(self.description.as_deref()),
            #[cfg(feature = "http")]
            http,
        })
    }
}

/// The least of the first waits: attempts without a pause would be a load.
const BACKOFF_MIN: Duration = Duration::from_millis(1);

/// The most characters of a description: as in the Java client.
const DESCRIPTION_CHARS_MAX: usize = 64;

fn is_description(text: &str) -> bool {
    (1..=DESCRIPTION_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `CONNECT.client_version`.
fn client_version(description: Option<&str>) -> String {
    const OWN: &str = concat!("Pulsar-Rust-native-v", env!("CARGO_PKG_VERSION"));
    match description {
        Some(description) => format!("{OWN}-{description}"),
        None => OWN.to_owned(),
    }
}

/// Whether what is sent to this host stays on this machine, as far as its name tells.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Different for each client of each process: the standard library's hasher keys, and the clock.
pub(in crate::client) fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u64(clock::wall_ms());
    hasher.finish()
}
