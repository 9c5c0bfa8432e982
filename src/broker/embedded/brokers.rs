//! Several brokers of one cluster, for tests of reconnects.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use super::EmbeddedBroker;
use super::listeners::{bind, serve_broker};
use super::server::BrokerServer;
use crate::broker::rest::BrokerSwitch;

/// The brokers of a cluster ([`EmbeddedBrokerBuilder::brokers`](super::EmbeddedBrokerBuilder::brokers)), numbered from 0.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use pulsar_native::Client;
/// use pulsar_native::broker::EmbeddedBroker;
///
/// let cluster = EmbeddedBroker::builder().brokers(2).start().await?;
/// let client = Client::builder(cluster.url()).connect().await?;
/// let producer = client.producer("orders").create().await?;
/// producer.send("to the broker that owns the topic").await?;
///
/// let owner = cluster.owner("orders").expect("it was looked up");
/// cluster.stop_broker(owner).await;
/// producer.send("to the other one").await?;
/// assert_eq!(cluster.owner("orders"), Some(1 - owner));
/// assert_eq!(cluster.stats("orders").map(|stats| stats.msg_in_counter), Some(2));
/// # Ok(())
/// # }
/// ```
impl EmbeddedBroker {
    /// The service URL of each broker, `pulsar://127.0.0.1:port`.
    #[must_use]
    pub fn broker_urls(&self) -> Vec<String> {
        let addresses = &self.server.addresses;
        (0..addresses.brokers()).map(|broker| addresses.url_of(broker)).collect()
    }

    /// The broker that owns a topic, or one partition; `None` while none does: no lookup has asked for it yet, or its owner
    /// has stopped since. One broker alone owns everything, and this is `None`.
    #[must_use]
    pub fn owner(&self, topic: &str) -> Option<usize> {
        self.call(|machine| machine.owner(topic))
    }

    /// Moves a topic to another broker of the cluster, or all partitions of one, as `pulsar-admin topics unload` with a
    /// destination does: its producers and consumers are closed and told the new address (`assignedBrokerServiceUrl`).
    /// False if that broker does not run.
    #[must_use = "false if the topic was not moved"]
    pub fn move_topic(&self, topic: &str, to: usize) -> bool {
        self.call(|machine| machine.move_topic(topic, to))
    }

    /// A broker dies: its port is closed and its connections end without notice. Its topics go to others as they are looked
    /// up; nothing stored is lost, and durable subscriptions stay. False, and nothing happens, if it does not run or is the
    /// last one that does.
    ///
    /// # Cancel safety
    /// Dropping the future does not cancel the stop.
    pub async fn stop_broker(&self, broker: usize) -> bool {
        stop(&self.server, broker).await
    }

    /// A broker that was stopped listens again at its address and takes part again. False, and nothing happens, if it runs or
    /// there is no such broker.
    ///
    /// # Errors
    /// If its address cannot be listened on any more.
    ///
    /// # Cancel safety
    /// Dropping the future before it is done leaves the broker stopped.
    pub async fn start_broker(&self, broker: usize) -> io::Result<bool> {
        start(&self.server, broker).await
    }
}

async fn stop(server: &BrokerServer, broker: usize) -> bool {
    let has_stopped = server.call(|machine| machine.stop_broker(broker));
    if has_stopped {
        poll_fn(|context| server.poll_stop_accepting(broker, context)).await;
    }
    has_stopped
}

async fn start(server: &Arc<BrokerServer>, broker: usize) -> io::Result<bool> {
    let is_running = server.call(|machine| machine.runs(broker));
    let Some(address) = server.addresses.of(broker).filter(|_| !is_running) else { return Ok(false) };
    let listener = bind(address).await?;
    let has_started = server.call(|machine| machine.start_broker(broker));
    if has_started {
        serve_broker(server, broker, listener);
    }
    Ok(has_started)
}

/// Does what a request wants; the error says why it cannot be done.
pub(super) async fn carry_out(server: &Arc<BrokerServer>, switch: BrokerSwitch) -> Result<(), String> {
    let (is_done, number) = match switch {
        BrokerSwitch::Stop(number) => (stop(server, number).await, number),
        BrokerSwitch::Start(number) => (start(server, number).await.map_err(|error| error.to_string())?, number),
    };
    match (is_done, switch) {
        (true, _) => Ok(()),
        (false, BrokerSwitch::Stop(_)) => Err(format!("broker {number} does not run, or is the last one that does")),
        (false, BrokerSwitch::Start(_)) => Err(format!("broker {number} runs")),
    }
}
