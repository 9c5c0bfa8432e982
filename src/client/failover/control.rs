//! The switch from one cluster to another.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::Cluster;
use crate::client::builder::ClientBuilder;
use crate::client::clock;
use crate::client::dial::Target;
#[cfg(feature = "http")]
use crate::client::dial::TlsSettings;
use crate::client::driver::{Clusters, DialConfig};
use crate::client::runtime::AsyncTimer;
use crate::error::Result;
use crate::machine::control::{BrokerKey, Input};
use crate::machine::supervisor::service_url::ServiceUrl;

/// Makes a timer of the client's runtime.
pub(crate) type NewTimer = Box<dyn Fn() -> Box<dyn AsyncTimer> + Send + Sync>;

/// What a client needs to go to another cluster.
pub(crate) struct Switch {
    /// With the options that a cluster leaves out.
    pub(crate) builder: ClientBuilder,
    pub(crate) clusters: Arc<Clusters>,
    pub(crate) inputs: UnboundedSender<Input>,
    pub(crate) new_timer: NewTimer,
    #[cfg(feature = "http")]
    pub(crate) admin: Arc<crate::client::http::admin::Admin>,
    pub(crate) current: Mutex<Cluster>,
}

impl Switch {
    fn switch_to(&self, cluster: Cluster) -> Result<()> {
        let builder = self.builder.of_cluster(&cluster);
        let (url, config) = builder.cluster_config()?;
        #[cfg(feature = "http")]
        let admin = builder.admin_config(&url)?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut result = Ok(());
        self.clusters.add(config, |id| {
            result = self.inputs.send(Input::SwitchCluster(id, url)).map_err(|_| crate::client::closed());
        });
        #[cfg(feature = "http")]
        self.admin.set(admin);
        *current = cluster;
        result
    }
}

/// Moves a client to another cluster: given to a [`ServiceUrlProvider`](super::ServiceUrlProvider), or taken from
/// [`Client::service_url_control`](crate::Client::service_url_control). Cheap to clone; it does not keep the client open.
#[derive(Clone)]
pub struct ServiceUrlControl {
    switch: Arc<Switch>,
}

impl ServiceUrlControl {
    pub(crate) fn new(switch: Arc<Switch>) -> Self {
        Self { switch }
    }

    /// The cluster that was switched to last, or that of the client's builder.
    pub fn current(&self) -> Cluster {
        self.switch.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Uses this cluster from now on, also if it is the one in use. The connections to the one before are closed, and
    /// every producer, consumer and request goes to the new one without waiting for a back-off: messages that are not
    /// confirmed are sent there, and a consumer gets what its subscription has there. It returns at once;
    /// [`Client::watch_state`](crate::Client::watch_state) tells how far it is.
    ///
    /// What was sent and not confirmed may be stored in both clusters. Messages that a consumer has of the cluster
    /// before are not acknowledged by [`ack`](crate::Consumer::ack) any more, because ids of one cluster name other messages
    /// in another one: that cluster delivers them again. An id that is read from bytes or text has no cluster, so the
    /// application has to know which one it is of.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument): the URL or an option is not usable; nothing
    ///   has changed.
    /// - [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): an option needs a crate feature that this build lacks.
    /// - [`ErrorKind::Closed`](crate::ErrorKind::Closed): the client is closed.
    pub fn switch_to(&self, cluster: Cluster) -> Result<()> {
        self.switch.switch_to(cluster)
    }

    /// Whether a host of the cluster's service URL accepts a connection within `limit` each, made as the client makes them
    /// ([`ClientBuilder::dialer`](crate::client::ClientBuilder::dialer)), without TLS and without a word to the broker: the
    /// Java client probes like that. Behind a [proxy that routes by the server
    /// name](crate::client::ClientBuilder::proxy_service_url), TLS is part of it.
    ///
    /// # Errors
    /// As [`switch_to`](Self::switch_to), if the URL or an option is not usable.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection that is made.
    pub async fn probe(&self, cluster: &Cluster, limit: Duration) -> Result<bool> {
        let (url, config) = self.switch.builder.of_cluster(cluster).cluster_config()?;
        for host in url.hosts() {
            if self.is_reached(&url, &config, &BrokerKey::of_host(host.clone(), url.transport()), limit).await {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The TLS options of the client's builder.
    #[cfg(feature = "http")]
    pub(super) fn tls(&self) -> &TlsSettings {
        &self.switch.builder.tls
    }

    async fn is_reached(&self, url: &ServiceUrl, config: &DialConfig, key: &BrokerKey, limit: Duration) -> bool {
        let target = match config.sni_proxy.is_some() {
            true => config.target(&BrokerKey { tls: url.tls(), ..key.clone() }),
            false => Ok(Target::from_key(key)),
        };
        let Ok(target) = target else { return false };
        let dialing = crate::client::user_code::catch_panic(|| config.dialer.dial(&target));
        matches!(self.timeout(limit, dialing).await, Some(Ok(Ok(_))))
    }

    /// Waits, on the runtime of the client.
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait.
    pub async fn sleep(&self, time: Duration) {
        let _ = self.timeout(time, std::future::pending::<()>()).await;
    }

    /// The output of the future, or `None` if it is not ready within `limit`.
    ///
    /// # Cancel safety
    /// Dropping it drops the future.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        let mut timer = (self.switch.new_timer)();
        // A limit beyond the range of the clock is no limit.
        let at = clock::now().at.checked_add(limit);
        if let Some(at) = at {
            timer.reset(at);
        }
        poll_fn(|cx| match future.as_mut().poll(cx) {
            std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
            std::task::Poll::Pending if at.is_some() => timer.poll(cx).map(|()| None),
            std::task::Poll::Pending => std::task::Poll::Pending,
        })
        .await
    }
}

impl fmt::Debug for ServiceUrlControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceUrlControl({:?})", self.current())
    }
}
