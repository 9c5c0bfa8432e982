//! The broker on tokio: a handle, its settings, its faults, and the tasks behind it.

mod assertions;
mod brokers;
mod builder;
mod connection;
mod faults;
mod http;
mod listeners;
#[cfg(feature = "tls")]
mod old_certificates;
#[cfg(feature = "self-signed")]
mod self_signed;
mod server;
mod settings;
mod tasks;
#[cfg(feature = "tls")]
mod tls;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::DuplexStream;

pub use self::assertions::Assertion;
pub use self::builder::EmbeddedBrokerBuilder;
use self::connection::serve_connection;
pub use self::faults::{FaultBuilder, Faults};
use self::listeners::Listeners;
use self::server::BrokerServer;
pub use self::settings::{BrokerSetting, BrokerSettingError};
#[cfg(feature = "tap")]
pub(crate) use self::tls::self_signed_acceptor;
use super::admin::{StoredMessage, TopicStats};
use super::config::BrokerConfig;
use super::conformance::ConformanceViolation;
use super::machine::{Broker, Peer};
use super::policies::PolicySet;

/// Bytes the in-memory connection holds in each direction.
const DUPLEX_BYTES: usize = 64 * 1024;

/// A running broker. Clones share it; dropping the last one stops it, which ends its tasks and sockets.
///
/// [`builder`](Self::builder) starts one. Topics may be named in full (`persistent://tenant/namespace/topic`) or by
/// their local name in `public/default`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use pulsar_native::Client;
/// use pulsar_native::broker::EmbeddedBroker;
///
/// let broker = EmbeddedBroker::builder().start().await?;
/// let client = Client::builder(broker.url()).connect().await?;
/// client.producer("orders").create().await?.send("one").await?;
///
/// assert_eq!(broker.stats("orders").map(|stats| stats.msg_in_counter), Some(1));
/// assert!(broker.violations().is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "the broker stops when the last handle is dropped"]
pub struct EmbeddedBroker {
    server: Arc<BrokerServer>,
    _stop: Arc<StopOnDrop>,
}

/// Shared by the handles only: the tasks hold the server itself.
#[derive(Debug)]
struct StopOnDrop(Arc<BrokerServer>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.begin_stop();
    }
}

/// Connections, credentials and lifetime.
impl EmbeddedBroker {
    async fn start(config: BrokerConfig, listeners: Listeners) -> io::Result<Self> {
        let bound = listeners.bind().await?;
        let server = BrokerServer::new(config, bound.addresses()?);
        bound.serve(&server);
        server.spawn(tasks::run_timer(Arc::clone(&server)));
        Ok(Self { _stop: Arc::new(StopOnDrop(Arc::clone(&server))), server })
    }

    /// The service URL, `pulsar://127.0.0.1:port`; of [several brokers](EmbeddedBrokerBuilder::brokers) it names them all,
    /// `pulsar://127.0.0.1:port,127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.addresses.url()
    }

    /// The service URL over TLS, `pulsar+ssl://127.0.0.1:port`; `None` while TLS is off
    /// ([`EmbeddedBrokerBuilder::tls_config`]).
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls_url(&self) -> Option<String> {
        self.server.addresses.tls_url()
    }

    /// The service URL of the REST interface, `http://127.0.0.1:port`; `None` unless it was asked for
    /// ([`EmbeddedBrokerBuilder::http`]).
    #[must_use]
    pub fn http_url(&self) -> Option<String> {
        self.server.addresses.http_url()
    }

    /// The service URL of the REST interface over TLS, `https://127.0.0.1:port`; `None` unless
    /// [`EmbeddedBrokerBuilder::http`] and TLS are on.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn https_url(&self) -> Option<String> {
        self.server.addresses.https_url()
    }

    /// The certificate, PEM, of the authority that [`EmbeddedBrokerBuilder::tls_self_signed`] made: what goes into the
    /// file of [`ClientBuilder::ca_file`](crate::ClientBuilder::ca_file). `None` for a broker with another certificate, or
    /// none.
    #[cfg(feature = "self-signed")]
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.server.addresses.ca_pem.as_deref()
    }

    /// Where it listens, without TLS.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.addresses.first()
    }

    /// A connection in memory of 64 KiB in each direction, served by the same code as one over TCP.
    ///
    /// Works from any thread. After [`stop`](Self::stop) the other end is closed at once.
    #[must_use = "dropping the stream ends the connection"]
    pub fn connect(&self) -> DuplexStream {
        let (client, server) = tokio::io::duplex(DUPLEX_BYTES);
        serve_connection(&self.server, 0, server, Peer::default());
        client
    }

    /// A token for `subject` that does not expire; empty while authentication is off.
    #[must_use]
    pub fn token(&self, subject: &str) -> String {
        self.call(|broker| broker.mint_token(subject, None)).unwrap_or_default()
    }

    /// A token for `subject`, good for `valid_for` rounded up to a whole second, with [`Duration::ZERO`] one that has
    /// expired already; empty while authentication is off.
    #[must_use]
    pub fn token_expiring(&self, subject: &str, valid_for: Duration) -> String {
        self.call(|broker| broker.mint_token(subject, Some(valid_for))).unwrap_or_default()
    }

    /// A token for `subject` that is good only `starts_in` from now (claims `nbf` and `iat`), as one is that comes from a
    /// machine whose clock is ahead; empty without a secret key.
    #[must_use]
    pub fn token_not_before(&self, subject: &str, starts_in: Duration) -> String {
        self.call(|broker| broker.mint_early_token(subject, starts_in)).unwrap_or_default()
    }

    /// Changes which roles may do everything ([`EmbeddedBrokerBuilder::super_user_roles`]), from the next request of each
    /// client on. What is attached stays until it is asked for anew, as by [`unload`](Self::unload).
    pub fn set_super_user_roles<R: Into<String>>(&self, roles: impl IntoIterator<Item = R>) {
        let roles = roles.into_iter().map(Into::into).collect();
        self.call(|broker| broker.set_super_user_roles(roles));
    }

    /// The issuer of the tokens of [`EmbeddedBrokerBuilder::oauth2_client`], `http://127.0.0.1:port`; with TLS,
    /// [`https_url`](Self::https_url) is one as well. `None` unless there is such a client.
    #[must_use]
    pub fn issuer_url(&self) -> Option<String> {
        self.http_url().filter(|_| self.call(|broker| broker.has_identity_provider()))
    }

    /// How often the identity provider was asked for a token, granted or refused.
    #[must_use]
    pub fn oauth2_token_requests(&self) -> u64 {
        self.call(|broker| broker.oauth2_token_requests())
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.call(|broker| broker.connections())
    }

    /// Ends every connection without notice, as a broker that crashes does. New connections are accepted.
    pub fn drop_connections(&self) {
        self.call(Broker::close_all);
    }

    /// The rules that clients broke so far, in order; at most 1,000 are kept. What a scripted fault does to a
    /// client is not reported.
    #[must_use]
    pub fn violations(&self) -> Vec<ConformanceViolation> {
        self.call(|broker| broker.violations().to_vec())
    }

    /// Moves the broker's own clock ahead, for tests of what takes minutes or days. What is due then happens at once: delayed
    /// messages are delivered, messages over their time to live count as acknowledged, those out of retention are dropped,
    /// backlog quotas by age take effect, and credentials that have expired are asked for anew. What connections need to live
    /// goes by the real time: keep-alive, liveness checks, the delay of a failover.
    ///
    /// A delay that a client asks for later counts from the time of the call it is made in, as the client sees it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// use pulsar_native::broker::EmbeddedBroker;
    /// use pulsar_native::{Client, Message, SubscriptionType};
    ///
    /// let broker = EmbeddedBroker::builder().start().await?;
    /// let client = Client::builder(broker.url()).connect().await?;
    /// let builder = client.consumer("reminders", "s").subscription_type(SubscriptionType::Shared);
    /// let mut consumer = builder.subscribe().await?;
    /// let producer = client.producer("reminders").create().await?;
    /// producer.send(Message::new("tomorrow").with_deliver_after(Duration::from_secs(24 * 3600))).await?;
    ///
    /// broker.advance(Duration::from_secs(24 * 3600));
    /// assert_eq!(&consumer.receive().await?.payload()[..], b"tomorrow");
    /// # Ok(())
    /// # }
    /// ```
    pub fn advance(&self, by: Duration) {
        self.call(|broker| broker.advance(by));
    }

    /// Stops: returns when no task and no socket is left.
    ///
    /// # Cancel safety
    /// Dropping the future does not cancel the stop.
    pub async fn stop(&self) {
        self.server.begin_stop();
        poll_fn(|context| self.server.poll_stopped(context)).await;
    }

    fn call<T>(&self, call: impl FnOnce(&mut Broker) -> T) -> T {
        self.server.call(call)
    }
}

/// Topics.
impl EmbeddedBroker {
    /// Names of all topics, partitions one by one, in order.
    #[must_use]
    pub fn topics(&self) -> Vec<String> {
        self.call(|broker| broker.topics())
    }

    /// Statistics of a topic, or of one partition; `None` if it does not exist.
    #[must_use]
    pub fn stats(&self, topic: &str) -> Option<TopicStats> {
        self.call(|broker| broker.stats(topic))
    }

    /// The stored messages of a topic, oldest first; of a partitioned topic those of each partition in turn. A chunked
    /// message is one, in the place of its last chunk, and is left out while it is not complete. What was acknowledged may
    /// be gone ([`max_stored_bytes`](EmbeddedBrokerBuilder::max_stored_bytes)).
    #[must_use]
    pub fn stored_messages(&self, topic: &str) -> Vec<StoredMessage> {
        self.call(|broker| broker.stored_messages(topic))
    }

    /// How many topic list watchers (WATCH_TOPIC_LIST) there are, over all connections.
    #[must_use]
    pub fn topic_list_watchers(&self) -> usize {
        self.call(|broker| broker.topic_list_watchers())
    }

    /// Creates a topic that is not partitioned, or one partition. False for a bad name, a namespace that does not exist,
    /// the base name of a partitioned topic, a partition beyond the last, or a topic that exists.
    #[must_use = "false if the topic was not created"]
    pub fn create_topic(&self, topic: &str) -> bool {
        self.call(|broker| broker.create_topic(topic))
    }

    /// Creates a partitioned topic, or adds partitions to one. False for a bad name, a namespace that does not exist,
    /// fewer partitions than before, none, or more than 10,000.
    #[must_use = "false if the topic was not created"]
    pub fn create_partitioned_topic(&self, topic: &str, partitions: u32) -> bool {
        self.call(|broker| broker.create_partitioned_topic(topic, partitions))
    }

    /// Closes all producers and consumers of a topic as a broker does to move it: later entries go to another ledger,
    /// stored entries and durable subscriptions stay. A partitioned topic's name unloads all its partitions.
    pub fn unload(&self, topic: &str) {
        self.call(|broker| broker.unload(topic));
    }

    /// Unloads a topic and sends its producers and consumers to `url` without a lookup (`assignedBrokerServiceUrl`, or
    /// `assignedBrokerServiceUrlTls` for a `pulsar+ssl://` URL). It may be this broker's.
    pub fn transfer(&self, topic: &str, url: &str) {
        self.call(|broker| broker.transfer(topic, url));
    }

    /// The cluster of this broker has migrated to the one at these service URLs (PIP-188), as after
    /// `POST /admin/v2/clusters/{cluster}/migrate`; without any, it has not, or not any more. Producers are sent there with
    /// TOPIC_MIGRATED, and consumers as soon as their subscription has acknowledged all that is stored here.
    pub fn migrate(&self, url: Option<&str>, url_tls: Option<&str>) {
        self.call(|broker| broker.migrate(url, url_tls));
    }

    /// Changes what a namespace sets for its topics, from now on. False for a namespace that does not exist, or one too many:
    /// 10,000 may have policies.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// use pulsar_native::broker::EmbeddedBroker;
    ///
    /// let broker = EmbeddedBroker::builder().start().await?;
    /// assert!(broker.set_namespace_policies("public/default", |policies| policies.max_producers_per_topic = Some(2)));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "false if nothing was set"]
    pub fn set_namespace_policies(&self, namespace: &str, change: impl FnOnce(&mut PolicySet)) -> bool {
        self.call(|broker| broker.set_namespace_policies(namespace, change))
    }

    /// Changes what a topic sets for itself, from now on; those of a partitioned topic are those of its partitions. The topic
    /// need not exist yet; its policies go with it. False for a bad name, a namespace that does not exist, or one too many:
    /// 100,000 topics may have policies.
    #[must_use = "false if nothing was set"]
    pub fn set_topic_policies(&self, topic: &str, change: impl FnOnce(&mut PolicySet)) -> bool {
        self.call(|broker| broker.set_topic_policies(topic, change))
    }

    /// What a namespace sets for its topics.
    #[must_use]
    pub fn namespace_policies(&self, namespace: &str) -> PolicySet {
        self.call(|broker| broker.namespace_policies(namespace))
    }

    /// What a topic sets for itself.
    #[must_use]
    pub fn topic_policies(&self, topic: &str) -> PolicySet {
        self.call(|broker| broker.topic_policies(topic))
    }

    /// What counts for a topic, whether it exists or not: of each policy what the topic says, else its namespace, else the
    /// broker ([`EmbeddedBrokerBuilder::broker_policies`]).
    #[must_use]
    pub fn effective_policies(&self, topic: &str) -> PolicySet {
        self.call(|broker| broker.effective_policies(topic))
    }

    /// Compacts a topic, or all partitions of one, as `pulsar-admin topics compact` does: readers and consumers with
    /// `read_compacted` get of each key the last value, and none of a key whose last value is empty. Messages without a key
    /// are left out. Done when the call returns. False for a topic that does not exist or is not persistent.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use pulsar_native::broker::EmbeddedBroker;
    /// use pulsar_native::{Client, Message};
    ///
    /// let broker = EmbeddedBroker::builder().start().await?;
    /// let client = Client::builder(broker.url()).connect().await?;
    /// let producer = client.producer("prices").create().await?;
    /// for (key, price) in [("tea", "3"), ("milk", "1"), ("tea", "4")] {
    ///     producer.send(Message::new(price).with_key(key)).await?;
    /// }
    /// assert!(broker.compact("prices"));
    /// let prices = client.table_view("prices").create().await?;
    /// assert_eq!(prices.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "false if nothing was compacted"]
    pub fn compact(&self, topic: &str) -> bool {
        self.call(|broker| broker.compact(topic))
    }

    /// Ends a topic: no further messages; consumers get REACHED_END_OF_TOPIC when they have acknowledged the last one.
    pub fn terminate(&self, topic: &str) {
        self.call(|broker| broker.terminate(topic));
    }

    /// Deletes a topic with its entries and subscriptions; a partitioned one with all its partitions.
    pub fn delete_topic(&self, topic: &str) {
        self.call(|broker| broker.delete_topic(topic));
    }
}
