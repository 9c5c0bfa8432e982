//! The client over tokio: the only module with sockets and clocks.
//!
//! [`Client`] is the entry point. Behind it run one task for the supervisor and one for each connection (`driver`), over
//! the timers and tasks of tokio (`runtime`); both only carry out what the machines decide. A [`Producer`] or
//! [`Consumer`] works on its endpoint under that endpoint's own lock and sends no messages to a task.
//!
//! | file | what |
//! | --- | --- |
//! | `builder`, `producer_builder`, `consumer_builder`, `topics` | options |
//! | `producer`, `producer_shared`, `routing` | the producer's handle; what its clones share; which partition a message goes to |
//! | `consumer`, `consumer_shared`, `acker`, `workers`, `events` | the consumer's handles and what they share |
//! | `reader` | a consumer that keeps its position itself |
//! | `receive`, `message` | from queued entries to received messages |
//! | `table_view` | the last value of each key, over a reader |
//! | `parts`, `joining` | the topics and partitions behind one handle; those that join and leave |
//! | `pattern` | topics that match a pattern |
//! | `growth` | partitions that are added to topics |
//! | `detour` | what only some producers do with a message: hooks, an own router, partitions that start late |
//! | `failover` | several clusters behind one client |
//! | `sink` | a producer as a `Sink` |
//! | `state` | where a handle is attached, and how to watch it |
//! | `why_idle` | why nothing comes |
//! | `observe` | spans and events of `tracing`, metrics |
//! | `topic_list` | the handle of a topic list watcher |
//! | `topic_stats` | the statistics of topics |
//! | `auth`, `dial` | credentials; TCP, TLS and custom dialers |
//! | `http` | lookups over HTTP |
//! | `oauth2` | tokens of an identity provider |
//! | `driver`, `runtime`, `clock` | the tasks; timers and tasks of the runtime; the time |

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::id::{ConsumerId, ProducerId, WatcherId};
use crate::machine::EndpointRef;
use crate::machine::consumer::ConsumerConfig;
use crate::machine::control::Input;
use crate::machine::memory::MemoryBudget;
use crate::machine::producer::ProducerConfig;
use crate::machine::receive_memory::ReceiveBudget;
use crate::machine::supervisor::connection_states::ConnectionStates;
use crate::machine::supervisor::query::{self, Query};
use crate::machine::{ReadyList, Reply, ReplyTo};
use crate::pb;
use crate::topic::TopicName;

use driver::SupervisorHandle;
use failover::Switch;
use same_options::SameOptions;

mod acker;
mod auth;
mod builder;
pub(crate) mod clock;
mod consumer;
mod consumer_builder;
mod consumer_requests;
mod consumer_shared;
mod dead_letter;
mod detour;
mod dial;
mod drain;
mod driver;
pub(crate) mod encryption;
mod events;
pub(crate) mod failover;
mod growth;
#[cfg(feature = "http")]
pub(crate) mod http;
mod interceptors;
mod joining;
mod message;
#[cfg(feature = "oauth2")]
pub(crate) mod oauth2;
mod observe;
mod parts;
#[cfg(feature = "patterns")]
mod pattern;
mod producer;
mod producer_builder;
mod producer_shared;
mod reader;
mod receive;
mod routing;
pub(crate) mod runtime;
mod same_options;
mod seek;
mod sink;
mod state;
mod subscribe;
mod table_view;
#[cfg(all(test, feature = "broker"))]
mod tests;
mod topic_list;
#[cfg(feature = "http")]
mod topic_stats;
mod topics;
mod unreadable;
mod user_code;
mod why_idle;
mod workers;

pub use acker::Acker;
pub use auth::{
    Authentication, Basic, CredentialsFuture, HttpHeaders, HttpHeadersFuture, NoAuthentication, TlsAuthentication,
    Token,
};
pub use builder::ClientBuilder;
pub use consumer::Consumer;
pub use consumer_builder::ConsumerBuilder;
pub use consumer_requests::BrokerStats;
pub use dead_letter::{DeadLetterNames, DeadLetterPolicy};
pub use detour::MessageRouter;
pub use dial::{DialFuture, Dialer, ProxyProtocol, Socket, Target};
#[cfg(feature = "tap")]
pub(crate) use dial::{TlsOptions, TlsSettings};
pub use drain::DrainReport;
pub use encryption::{ConsumerCryptoFailureAction, EncryptionContext, EncryptionKey, ProducerCryptoFailureAction};
#[cfg(feature = "encryption")]
pub use encryption::{CryptoKeyReader, EncryptionKeyInfo, PemKey, PemKeyReader};
pub use events::{ConsumerEvent, ConsumerEvents, Events, ProducerEvent, ProducerEvents};
#[cfg(feature = "http")]
pub use failover::ControlledClusterFailover;
pub use failover::{AutoClusterFailover, Cluster, ServiceUrlControl, ServiceUrlFuture, ServiceUrlProvider};
pub use interceptors::{ConsumerInterceptor, ProducerInterceptor};
pub use message::ReceivedMessage;
#[cfg(feature = "oauth2")]
pub use oauth2::OAuth2;
#[cfg(feature = "patterns")]
pub use pattern::RegexSubscriptionMode;
pub use producer::{Producer, TryEnqueueError};
pub use producer_builder::ProducerBuilder;
pub use reader::{MessagesUntil, ReadUntil, Reader, ReaderBuilder, ReaderStart};
pub use receive::BatchReceivePolicy;
pub use routing::{HashingScheme, MessageRoutingMode};
pub use sink::ProducerSink;
pub use state::{HandleState, PartState, StateWatch};
pub use table_view::{TableIter, TableListener, TableSnapshot, TableView, TableViewBuilder};
#[doc(hidden)]
pub use topic_list::{TopicChange, TopicListWatch};
#[cfg(feature = "http")]
pub use topic_stats::{ConnectedConsumerStatistics, SubscriptionStatistics, TopicStatistics};
pub use topics::Topics;
pub use unreadable::{UnreadableChunk, UnreadableMessage, UnreadableReason};
pub use why_idle::{PartIdle, WhyIdle};
pub use workers::{Outcome, WorkOptions};

/// The TLS library, for [`ClientBuilder::tls_config`].
#[cfg(feature = "tls")]
pub use tokio_rustls::rustls;

pub use crate::machine::consumer::{IdleReason, IncompleteReason};
pub use crate::machine::endpoint::attach_status::AttachState;
pub use crate::machine::memory::MemoryUsage;
pub use crate::machine::producer::CapacityBound;
pub use crate::machine::supervisor::connection_states::{ClientState, ConnectionPhase, ConnectionState};

pub use crate::machine::control::{AuthContext, AuthData, HostPort};

/// A connection to a Pulsar cluster. Clones share it.
///
/// It dials brokers as producers and consumers need them, one connection each, and keeps everything attached through
/// failures. It ends with [`Self::close`], or when the last clone of it and the last producer and consumer made from
/// it are dropped.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), pulsar_native::Error> {
/// use pulsar_native::Client;
///
/// let client = Client::builder("pulsar://localhost:6650").connect().await?;
/// println!("{} partitions", client.partitions("orders").await?);
/// client.close().await
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

/// State shared by the handles of one client.
pub(crate) struct Shared {
    supervisor: SupervisorHandle,
    service_url: Arc<str>,
    connection_states: Arc<ConnectionStates>,
    /// The REST interface; empty where none is known.
    #[cfg(feature = "http")]
    admin: Arc<http::admin::Admin>,
    switch: Arc<Switch>,
    operation_timeout: std::time::Duration,
    /// Of the producers' pending messages; `None`: without a limit.
    memory: Option<Arc<MemoryBudget>>,
    /// Of what waits in consumers; `None`: without a limit.
    receive_memory: Option<Arc<ReceiveBudget>>,
    producer_options: SameOptions<ProducerConfig>,
    consumer_options: SameOptions<ConsumerConfig>,
    /// What a drain has to end.
    handles: drain::Handles,
    seed: u64,
    producer_ids: AtomicU64,
    consumer_ids: AtomicU64,
    watcher_ids: AtomicU64,
    new_work_set: NewWorkSet,
    /// The runtime that the client was made in, where it is tokio's.
    tokio: Option<tokio::runtime::Handle>,
}

/// Makes the set of tasks of one worker pool: see [`Runtime::new_work_set`](runtime::Runtime::new_work_set).
type NewWorkSet = Box<dyn Fn() -> Option<runtime::WorkSet> + Send + Sync>;

impl Client {
    /// A builder for a client of `service_url`: `pulsar://host:6650`, `pulsar+ssl://host:6651`, `http://host:8080` or
    /// `https://host:8443`, several hosts separated by commas.
    ///
    /// With `http` and `https`, which need the crate feature `http`, topics are looked up over the REST interface of the
    /// brokers, as hosted consoles have it; messages go to the brokers over the binary protocol all the same, with TLS if
    /// it is `https`. The path of a proxy may follow, as in `https://host/cluster`. What is not possible this way is to
    /// [watch topics](Self::watch_topics). Over plain `http://` the credentials can be read on their way.
    pub fn builder(service_url: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(service_url.into())
    }

    /// A builder for a producer on `topic`: `persistent://tenant/namespace/topic`, or short `topic` in
    /// `public/default`.
    pub fn producer(&self, topic: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder::new(self.shared.clone(), topic.into())
    }

    /// A builder for a consumer of `subscription` on one topic or several.
    pub fn consumer(&self, topics: impl Into<Topics>, subscription: impl Into<String>) -> ConsumerBuilder {
        ConsumerBuilder::new(self.shared.clone(), topics.into(), subscription.into())
    }

    /// A builder for a reader of one topic or several, which begins at `start`: a [`SeekTo`](crate::SeekTo), or a
    /// [`Checkpoint`](crate::Checkpoint) of an earlier one.
    pub fn reader(&self, topics: impl Into<Topics>, start: impl Into<ReaderStart>) -> ReaderBuilder {
        ReaderBuilder::new(self.shared.clone(), topics.into(), start.into())
    }

    /// A builder for a view of the last value of each key in one topic or several.
    ///
    /// ```no_run
    /// # async fn example(client: pulsar_native::Client) -> Result<(), pulsar_native::Error> {
    /// let prices = client.table_view("prices").create().await?;
    /// println!("{:?}", prices.get("tea"));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "newTableView")]
    pub fn table_view(&self, topics: impl Into<Topics>) -> TableViewBuilder {
        TableViewBuilder::new(self.shared.clone(), topics.into())
    }

    /// How many partitions the topic has; 0 means that it is not partitioned (PARTITIONED_METADATA).
    ///
    /// # Errors
    /// An unusable topic name, an unknown topic or namespace, no broker within the operation timeout.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the request and has no other effect.
    pub async fn partitions(&self, topic: impl Into<String>) -> Result<u32> {
        let topic = parse_topic(&topic.into())?;
        self.shared.partitions(topic.as_str().into()).await
    }

    /// The full names of the topics of `tenant/namespace`, persistent or not, partitions one by one, in their order
    /// (GET_TOPICS_OF_NAMESPACE).
    ///
    /// # Errors
    /// Not the name of a namespace, an unknown namespace, a role that may not list its topics, no broker within the
    /// operation timeout.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the request and has no other effect.
    pub async fn topics_of_namespace(&self, namespace: impl Into<String>) -> Result<Vec<String>> {
        let namespace = namespace.into();
        if !namespace.split_once('/').is_some_and(|(tenant, rest)| ![tenant, rest].contains(&"") && !rest.contains('/'))
        {
            let what = format!("`{namespace}` is not the name of a namespace, which is tenant/namespace");
            return Err(Error::local(ErrorKind::InvalidArgument, what));
        }
        let mut request = pb::CommandGetTopicsOfNamespace { namespace, ..Default::default() };
        request.set_mode(pb::command_get_topics_of_namespace::Mode::All);
        let mut topics = self.shared.query(query::topics_of_namespace(request)).await?.topics;
        topics.sort_unstable();
        topics.dedup();
        Ok(topics)
    }

    /// Closes every producer and consumer at its broker, after the messages accepted for sending have been sent, then
    /// every connection. Returns when no task and no socket is left.
    ///
    /// All of it has the operation timeout, also where a producer's send timeout is longer. A call during another close
    /// gets the result of that one.
    ///
    /// # Errors
    /// - [`ErrorKind::TimedOut`]: some producers or consumers were not closed within the operation timeout. They have
    ///   ended all the same, and messages that were not confirmed have failed with this error.
    /// - [`ErrorKind::Closed`]: the client is closed already.
    ///
    /// # Cancel safety
    /// The close continues when the future is dropped.
    pub async fn close(&self) -> Result<()> {
        let closed = self.shared.ask(Input::CloseClient).await;
        // The supervisor's task holds the other end until the last task of the client is done.
        self.shared.supervisor.inputs.closed().await;
        closed
    }

    /// The orderly end, within `limit`: nothing more is received, the work that runs is finished, what was acknowledged is
    /// confirmed, what was accepted for sending is stored, then everything is closed. To be called where the process is
    /// asked to stop.
    ///
    /// The consumers come first: see [`Acker::drain`], which is what each of them does, at the same time. Work may go on
    /// sending until it ends. Then the producers send what they have accepted, then the connections are closed. A quarter
    /// of the limit, at most 5 s, is kept for what follows the work. Each receive, and each worker pool, ends with an error
    /// of kind [`Closed`](ErrorKind::Closed), as after a close.
    ///
    /// ```no_run
    /// # async fn example(client: pulsar_native::Client) {
    /// let report = client.drain(std::time::Duration::from_secs(20)).await;
    /// if !report.is_complete() {
    ///     eprintln!("{report}");
    /// }
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Nothing is received any more once it was polled. Dropping the future leaves the rest undone; [`Self::close`] ends it.
    pub async fn drain(&self, limit: std::time::Duration) -> DrainReport {
        drain::drain_client(self, limit).await
    }

    /// Waits until a broker has accepted the credentials.
    pub(crate) async fn check_connection(&self) -> Result<()> {
        self.shared.query(query::connect()).await.map(drop)
    }

    /// The state of its connections.
    pub fn state(&self) -> ClientState {
        self.shared.connection_states.state()
    }

    /// [`Self::state`] now and after each change.
    pub fn watch_state(&self) -> StateWatch<ClientState> {
        let states = self.shared.connection_states.clone();
        StateWatch::new(states.signal().clone(), move || {
            let state = states.state();
            let is_last = state.is_closed;
            Some((state, is_last))
        })
    }

    /// How much of its [`memory_limit`](ClientBuilder::memory_limit) the pending messages of its producers use. Costs one
    /// lock.
    ///
    /// ```no_run
    /// # fn example(client: pulsar_native::Client) {
    /// println!("{}", client.memory_usage());
    /// # }
    /// ```
    pub fn memory_usage(&self) -> MemoryUsage {
        self.shared.memory.as_ref().map(|budget| budget.usage()).unwrap_or_default()
    }

    /// Moves the client to another cluster.
    ///
    /// ```no_run
    /// # async fn example(client: pulsar_native::Client) -> Result<(), pulsar_native::Error> {
    /// use pulsar_native::Cluster;
    ///
    /// client.service_url_control().switch_to(Cluster::new("pulsar://west.example.com:6650"))
    /// # }
    /// ```
    #[doc(alias = "updateServiceUrl")]
    pub fn service_url_control(&self) -> ServiceUrlControl {
        ServiceUrlControl::new(self.shared.switch.clone())
    }

    /// The service URL that the client was built with, normalised: scheme, hosts, ports. The one in use, after a switch to
    /// another cluster, is in [`Self::state`].
    pub fn service_url(&self) -> &str {
        &self.shared.service_url
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.shared.service_url)
    }
}

impl Shared {
    /// Asks the supervisor and waits for its answer.
    async fn ask<T>(&self, input: impl FnOnce(ReplyTo<T>) -> Input) -> Result<T> {
        let (to, reply) = Reply::pair();
        self.supervisor.inputs.send(input(to)).map_err(|_| closed())?;
        reply.await
    }

    /// Runs one query on the cluster and waits for its result.
    pub(crate) async fn query<T: Send + 'static>(&self, query: Query<T>) -> Result<T> {
        self.start_query(query)?.await
    }

    /// Starts one query on the cluster. Its reply keeps nothing of the client.
    fn start_query<T: Send + 'static>(&self, query: Query<T>) -> Result<Reply<T>> {
        let (to, reply) = Reply::pair();
        self.supervisor.inputs.send(Input::Query(query.with_reply(to))).map_err(|_| closed())?;
        Ok(reply)
    }

    /// Starts a task that ends with what is returned. It may be called outside a runtime.
    fn spawn(&self, task: impl std::future::Future<Output = ()> + Send + 'static) -> workers::Tasks<()> {
        let _context = self.tokio.as_ref().map(tokio::runtime::Handle::enter);
        let mut tasks = workers::Tasks::new(self.new_work_set());
        tasks.spawn(task);
        tasks
    }

    pub(crate) async fn partitions(&self, topic: Arc<str>) -> Result<u32> {
        self.query(query::partitions(&topic)).await
    }

    pub(crate) fn open(&self, endpoint: EndpointRef) -> Result<()> {
        self.supervisor.inputs.send(Input::Open(endpoint)).map_err(|_| closed())
    }

    pub(crate) fn ready(&self) -> Arc<ReadyList> {
        self.supervisor.ready.clone()
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn operation_timeout(&self) -> std::time::Duration {
        self.operation_timeout
    }

    pub(crate) fn receive_memory(&self) -> Option<Arc<ReceiveBudget>> {
        self.receive_memory.clone()
    }

    pub(crate) fn memory(&self) -> Option<Arc<MemoryBudget>> {
        self.memory.clone()
    }

    fn handles(&self) -> &drain::Handles {
        &self.handles
    }

    pub(crate) fn new_work_set(&self) -> Option<runtime::WorkSet> {
        (self.new_work_set)()
    }

    pub(crate) fn new_timer(&self) -> Box<dyn runtime::AsyncTimer> {
        (self.switch.new_timer)()
    }

    pub(crate) fn next_producer_id(&self) -> ProducerId {
        ProducerId(self.producer_ids.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn next_consumer_id(&self) -> ConsumerId {
        ConsumerId(self.consumer_ids.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn next_watcher_id(&self) -> WatcherId {
        WatcherId(self.watcher_ids.fetch_add(1, Ordering::Relaxed))
    }

    /// The full name of `topic`, and the topics behind it: its partitions, or itself if it has none.
    pub(crate) async fn parts_of(&self, topic: &TopicName) -> Result<(Arc<str>, Vec<(Arc<str>, i32)>)> {
        let name: Arc<str> = topic.as_str().into();
        // The name of a partition is a topic by itself.
        if let Some(index) = topic.partition_index() {
            return Ok((name.clone(), vec![(name, i32::try_from(index).unwrap_or(-1))]));
        }
        // Started here, so that the query is no part of this future: many of these are waited for at a time.
        let count = self.start_query(query::partitions(&name))?;
        let count = count.await?;
        if count == 0 {
            return Ok((name.clone(), vec![(name, -1)]));
        }
        let part = |index: u32| (topic.partition(index).as_str().into(), i32::try_from(index).unwrap_or(i32::MAX));
        Ok((name, (0..count).map(part).collect()))
    }
}

impl Drop for Shared {
    /// The last handle is dropped: what was accepted is flushed and closed, then the tasks end.
    fn drop(&mut self) {
        let (to, _) = Reply::pair();
        let _ = self.supervisor.inputs.send(Input::CloseClient(to));
    }
}

fn closed() -> Error {
    Error::local(ErrorKind::Closed, "the client is closed")
}

pub(crate) fn parse_topic(topic: &str) -> Result<TopicName> {
    TopicName::parse(topic).map_err(|error| Error::local(ErrorKind::InvalidArgument, error.to_string()))
}
