//! What the tasks of the application see of the simulation.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::time::{Duration, Instant};

#[cfg(doc)]
use super::Simulation;
use super::clusters::NamedCluster;
use super::executor::TaskKind;
#[cfg(pulsar_mutations)]
use super::mutations;
use super::runtime::{SimRuntime, SimTimer};
use super::socket::SimDialer;
use super::tokens::Tokens;
use super::{Inner, LiveResources, Rng, SimulatedCluster, clusters};
use crate::broker::TopicStats;
use crate::client::runtime::AsyncTimer;
use crate::client::{Client, ClientBuilder, ServiceUrlProvider};
use crate::error::{Result, ServerCode};

/// A handle for the tasks inside a simulation; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) inner: Rc<Inner>,
}

impl Handle {
    /// A builder for a client of the simulated brokers. Fixed here: the service URL, the seed, and, where the brokers
    /// ask for tokens, where they come from.
    pub fn builder(&self) -> ClientBuilder {
        let mut world = self.inner.world();
        let seed = world.rng.next();
        let builder = Client::builder(clusters::service_url(0)).seed(seed);
        let Some((key, subject)) = world.clusters[0].broker.superuser_credentials() else { return builder };
        builder.authentication(Tokens::new(key, subject, self.inner.world.clone()))
    }

    /// As [`Simulation::cluster`].
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn cluster(&self, number: usize) -> SimulatedCluster {
        assert!(number < self.inner.world().clusters.len(), "there is no cluster {number}");
        SimulatedCluster::new(self.inner.clone(), number)
    }

    /// What moves a client to the cluster that [`Fault::NameCluster`](super::Fault::NameCluster) names: the simulated server's
    /// side of `ControlledClusterFailover`, asked after each interval.
    pub fn named_cluster(&self, check_interval: Duration) -> impl ServiceUrlProvider {
        NamedCluster { world: self.inner.world.clone(), check_interval }
    }

    /// Starts a client in the simulation, as [`ClientBuilder::connect`] does on tokio. The builder's dialer is replaced.
    ///
    /// # Errors
    /// As there.
    pub async fn connect(&self, builder: ClientBuilder) -> Result<Client> {
        let Inner { world, executor, clients, .. } = &*self.inner;
        let client = clients.get();
        clients.set(client + 1);
        let runtime = SimRuntime { world: world.clone(), executor: executor.clone(), client };
        let builder = builder.dialer(SimDialer { world: world.clone(), client });
        #[cfg(pulsar_mutations)]
        let builder = mutations::configure(builder);
        let (handle, driver) = builder.with_runtime(runtime)?;
        executor.spawn(executor.new_id(), TaskKind::Supervisor { client }, Box::pin(driver));
        handle.check_connection().await?;
        Ok(handle)
    }

    /// Waits in virtual time.
    pub fn sleep(&self, time: Duration) -> impl Future<Output = ()> + 'static {
        let mut timer = SimTimer::new(self.inner.world.clone());
        let at = self.inner.world().now.at + time;
        timer.reset(at);
        poll_fn(move |cx| timer.poll(cx))
    }

    /// The virtual time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.inner.world().elapsed()
    }

    /// Spawns a task.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.inner.spawn(task);
    }

    /// A random generator of its own for one task.
    #[must_use]
    pub fn rng(&self) -> Rng {
        self.inner.world().rng.fork()
    }

    /// Adds a line to the trace, if one is kept. It also counts as progress of the task: progress in a poll that no wake-up
    /// caused is reported as a lost wake-up.
    pub fn trace(&self, text: impl FnOnce() -> String) {
        self.inner.progress.set(self.inner.progress.get() + 1);
        self.inner.world().record_event("user", 0, text);
    }

    /// Reports that an invariant of the application does not hold: the run ends with this violation.
    pub fn report_violation(&self, checker: &'static str, detail: impl FnOnce() -> String) {
        // The detail may look at the world, whose lock is not reentrant.
        let detail = detail();
        self.inner.world().violations.report(checker, || detail);
    }

    /// Whether tasks are polled just to check that they make no progress. A future that counts its polls does not count
    /// these.
    #[must_use]
    pub fn is_probing(&self) -> bool {
        self.inner.is_probing.get()
    }

    /// As [`Simulation::is_acknowledged`].
    #[must_use]
    pub fn is_acknowledged(&self, topic: &str, subscription: &str, id: &crate::MessageId) -> Option<bool> {
        self.cluster(0).is_acknowledged(topic, subscription, id)
    }

    /// As [`Simulation::delivery_was_corrupted`].
    #[must_use]
    pub fn delivery_was_corrupted(&self, topic: &str, subscription: &str, id: &crate::MessageId) -> bool {
        self.inner.delivery_was_corrupted(topic, subscription, id)
    }

    /// As [`Simulation::live_resources`].
    #[must_use]
    pub fn live_resources(&self) -> LiveResources {
        self.inner.live_resources()
    }

    /// As [`Simulation::stats`].
    #[must_use]
    pub fn stats(&self, topic: &str) -> Option<TopicStats> {
        self.cluster(0).stats(topic)
    }

    /// Whether the brokers have refused a producer, a consumer or a lookup on this topic with this code. `topic` is the
    /// full name, of the partition where there are any.
    #[must_use]
    pub fn was_refused(&self, topic: &str, code: ServerCode) -> bool {
        self.inner.world().clusters[0].proxy.records.was_refused(topic, code)
    }

    /// When, since the start, the brokers sent this message to consumers of the subscription: each of these can explain
    /// one receive of it. `topic` is the full name, of the partition where there are any.
    #[must_use]
    pub fn deliveries(&self, topic: &str, subscription: &str, id: &crate::MessageId) -> Vec<Duration> {
        let world = self.inner.world();
        let elapsed = |at: Instant| world.elapsed() - (world.now.at - at);
        world.clusters[0].proxy.records.deliveries(topic, subscription, id).into_iter().map(elapsed).collect()
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}
