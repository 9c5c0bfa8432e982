//! The next cluster when the one in use cannot be reached.

use std::time::Duration;

use super::{Cluster, ServiceUrlControl, ServiceUrlFuture, ServiceUrlProvider};
use crate::client::clock;
use crate::machine::failover::{AutoFailover, Step};

/// How long one probe of one host may take, as in the Java client.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// Uses the next cluster when the one in use cannot be reached, and the primary again once it can: a
/// [`ServiceUrlProvider`] with the rules of the Java client's `AutoClusterFailover` (PIP-121).
///
/// The primary is the cluster of the client's builder. Every [interval](Self::check_interval) the cluster in use is probed:
/// it counts as reached when one of the hosts of its service URL
/// [accepts a connection](ServiceUrlControl::probe), within 30 s or the interval if that is less, whether a broker answers
/// behind it or not. If it cannot be reached for the [failover delay](Self::failover_delay), the others are probed, the
/// primary first, and the first that is reached is used. While a secondary is in use, the primary is probed as well, and
/// used again once it has been reached for the [switch-back delay](Self::switch_back_delay). What a switch does to
/// producers and consumers is said at [`ServiceUrlControl::switch_to`].
///
/// So the longest time from the loss of a cluster to the switch is the delay and two intervals. The Java client leaves
/// a secondary for the primary alone, and this one for another secondary too.
///
/// ```
/// use std::time::Duration;
///
/// use pulsar_native::{AutoClusterFailover, Client, Cluster, Token};
///
/// let failover = AutoClusterFailover::new(Cluster::new("pulsar://west:6650").authentication(Token::new("of west")))
///     .failover_delay(Duration::from_secs(10))
///     .switch_back_delay(Duration::from_secs(60))
///     .check_interval(Duration::from_secs(5));
/// let builder = Client::builder("pulsar://east:6650").service_url_provider(failover);
/// # drop(builder);
/// ```
#[derive(Debug, Clone)]
#[must_use = "it works once it is given to a client's builder"]
pub struct AutoClusterFailover {
    secondaries: Vec<Cluster>,
    failover_delay: Duration,
    switch_back_delay: Duration,
    check_interval: Duration,
}

impl AutoClusterFailover {
    /// With this cluster to go to.
    pub fn new(secondary: Cluster) -> Self {
        Self {
            secondaries: vec![secondary],
            failover_delay: Duration::from_secs(30),
            switch_back_delay: Duration::from_secs(60),
            check_interval: Duration::from_secs(30),
        }
    }

    /// One more cluster, behind those named before.
    pub fn secondary(mut self, secondary: Cluster) -> Self {
        self.secondaries.push(secondary);
        self
    }

    /// For how long the cluster in use cannot be reached before another one takes over. Default: 30 s.
    pub fn failover_delay(mut self, delay: Duration) -> Self {
        self.failover_delay = delay;
        self
    }

    /// For how long the primary is reached again before it takes over from a secondary. Default: 60 s.
    pub fn switch_back_delay(mut self, delay: Duration) -> Self {
        self.switch_back_delay = delay;
        self
    }

    /// How often clusters are probed. Default: 30 s. An interval of less than a millisecond counts as one.
    pub fn check_interval(mut self, interval: Duration) -> Self {
        self.check_interval = interval.max(Duration::from_millis(1));
        self
    }
}

impl ServiceUrlProvider for AutoClusterFailover {
    fn run(&self, control: ServiceUrlControl) -> ServiceUrlFuture<'_> {
        Box::pin(async move {
            let mut clusters = vec![control.current()];
            clusters.extend(self.secondaries.iter().cloned());
            let mut failover = AutoFailover::new(clusters.len(), self.failover_delay, self.switch_back_delay);
            let limit = PROBE_TIMEOUT.min(self.check_interval);
            loop {
                control.sleep(self.check_interval).await;
                let mut step = failover.begin_round();
                while let Step::Probe(cluster) = step {
                    // One with an unusable URL or option is not reached.
                    let is_reached = control.probe(&clusters[cluster], limit).await.unwrap_or(false);
                    step = failover.on_probed(is_reached, clock::now());
                }
                if let Step::Switch(cluster) = step {
                    let _ = control.switch_to(clusters[cluster].clone());
                }
            }
        })
    }
}
