//! The clusters of a simulation.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::proxy::{ADDRESSES, BROKERS, Proxy};
use super::rng::Rng;
use super::tokens::Tokens;
use super::world::SharedWorld;
use super::{Inner, StoredMessage, stored};
use crate::broker::machine::Broker;
use crate::broker::{BrokerConfig, TopicStats};
use crate::client::failover::follow::{NamesCluster, follow};
use crate::client::{Cluster, ServiceUrlControl, ServiceUrlFuture, ServiceUrlProvider};
use crate::error::{Error, Result};
use crate::machine::Now;

/// The brokers of one cluster, which share its topics, and the proxy in front of them.
pub(super) struct SimCluster {
    pub(super) broker: Broker,
    pub(super) proxy: Proxy,
    /// Until when dials of each broker are refused.
    pub(super) dials_refused_until: [Option<Instant>; BROKERS],
}

impl SimCluster {
    pub(super) fn new(
        number: usize,
        mut config: BrokerConfig,
        addresses: [&'static str; BROKERS],
        rng: Rng,
        now: Now,
    ) -> Self {
        config.judges_deduplicated = true;
        config.cluster_name = if number == 0 { "sim".to_owned() } else { format!("sim-{number}") };
        Self {
            broker: Broker::new(config, addresses[0], now),
            proxy: Proxy::new(addresses, rng),
            dials_refused_until: [None; BROKERS],
        }
    }
}

/// The service URL of a cluster: all its brokers.
pub(super) fn service_url(number: usize) -> String {
    let hosts = ADDRESSES[number].map(|url| url.strip_prefix("pulsar://").unwrap_or(url));
    format!("pulsar://{}", hosts.join(","))
}

/// How a client gets to a cluster.
fn address(world: &SharedWorld, number: usize) -> Cluster {
    let credentials = world.lock().clusters[number].broker.superuser_credentials();
    let cluster = Cluster::new(service_url(number));
    let Some((key, subject)) = credentials else { return cluster };
    cluster.authentication(Tokens::new(key, subject, world.clone()))
}

/// Uses the cluster that [`Fault::NameCluster`](super::Fault::NameCluster) names, by the rules of
/// `ControlledClusterFailover`.
pub(super) struct NamedCluster {
    pub(super) world: SharedWorld,
    pub(super) check_interval: Duration,
}

impl ServiceUrlProvider for NamedCluster {
    fn run(&self, control: ServiceUrlControl) -> ServiceUrlFuture<'_> {
        Box::pin(async move { follow(&mut Asked(&self.world), &control, self.check_interval, 0).await })
    }
}

/// What stands for the web server. Its answer is the number of a cluster.
struct Asked<'a>(&'a SharedWorld);

impl NamesCluster for Asked<'_> {
    type Answer = usize;

    async fn ask(&mut self) -> Result<usize> {
        self.0.lock().named_cluster.ok_or_else(|| Error::connection("simulated: no answer"))
    }

    fn cluster(&self, answer: &usize, _: &ServiceUrlControl) -> Result<Cluster> {
        Ok(address(self.0, *answer))
    }

    async fn told(&mut self, _: Result<()>) {}
}

/// One of the clusters of a [`Simulation`](super::Simulation); cheap to clone.
#[derive(Clone)]
pub struct SimulatedCluster {
    inner: Rc<Inner>,
    number: usize,
}

impl SimulatedCluster {
    pub(super) fn new(inner: Rc<Inner>, number: usize) -> Self {
        Self { inner, number }
    }

    /// How a client gets there, with tokens of that cluster where its brokers ask for them: for
    /// [`AutoClusterFailover`](crate::AutoClusterFailover) and
    /// [`ServiceUrlControl::switch_to`](crate::client::ServiceUrlControl::switch_to).
    pub fn address(&self) -> Cluster {
        address(&self.inner.world, self.number)
    }

    /// Whether a broker of this URL, as a state names it, is one of this cluster's.
    #[must_use]
    pub fn has_broker(&self, url: &str) -> bool {
        ADDRESSES[self.number].iter().any(|own| own.ends_with(url.trim_start_matches("pulsar://")))
    }

    /// Creates a partitioned topic, or adds partitions to one, as an operator does. False for a bad name, fewer partitions
    /// than before, none, or more than 10,000.
    #[must_use = "false if there are not so many partitions now"]
    pub fn create_partitioned_topic(&self, topic: &str, partitions: u32) -> bool {
        let mut world = self.inner.world();
        let is_created = world.clusters[self.number].broker.create_partitioned_topic(topic, partitions);
        world.flush_broker();
        is_created
    }

    /// Creates a topic that is not partitioned, as an operator does. False for a bad name, or a topic that exists.
    #[must_use = "false if it was not created"]
    pub fn create_topic(&self, topic: &str) -> bool {
        let mut world = self.inner.world();
        let is_created = world.clusters[self.number].broker.create_topic(topic);
        world.flush_broker();
        is_created
    }

    /// Deletes a topic with its messages and subscriptions, a partitioned one with all its partitions, as an operator does.
    pub fn delete_topic(&self, topic: &str) {
        let mut world = self.inner.world();
        world.clusters[self.number].broker.delete_topic(topic);
        world.flush_broker();
    }

    /// The stored messages of a topic, in order.
    #[must_use]
    pub fn stored_messages(&self, topic: &str) -> Vec<StoredMessage> {
        stored::stored(&self.inner.world().clusters[self.number].broker, topic)
    }

    /// Whether a subscription has acknowledged a message; `None` if there is no such message or subscription.
    #[must_use]
    pub fn is_acknowledged(&self, topic: &str, subscription: &str, id: &crate::MessageId) -> Option<bool> {
        stored::is_acknowledged(&self.inner.world().clusters[self.number].broker, topic, subscription, id)
    }

    /// The statistics of a topic.
    #[must_use]
    pub fn stats(&self, topic: &str) -> Option<TopicStats> {
        self.inner.world().clusters[self.number].broker.stats(topic)
    }
}

impl std::fmt::Debug for SimulatedCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimulatedCluster({})", self.number)
    }
}
