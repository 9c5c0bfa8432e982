//! How a producer is set up.

use std::sync::Arc;
use std::time::Duration;

use super::parts::Parts;
use super::producer::{Producer, open_part};
use super::routing::{HashingScheme, MessageRoutingMode, Router};
use super::{Shared, parse_topic};
use crate::error::Result;
use crate::machine::producer::{AccessMode, ProducerConfig};
use crate::wire::compress::Compression;

/// Sets up a [`Producer`]; made by [`Client::producer`](super::Client::producer).
///
/// Each option says its unit and its default. Defaults are those of the Java client 4.2, unless the option says
/// otherwise. Options are checked against each other by [`create`](Self::create).
///
/// ```no_run
/// # async fn example(client: pulsar_native::Client) -> Result<(), pulsar_native::Error> {
/// use std::time::Duration;
/// use pulsar_native::Compression;
///
/// let producer = client
///     .producer("persistent://public/default/orders")
///     .name("orders-1")
///     .batching_max_publish_delay(Duration::from_millis(1))
///     .compression(Compression::Lz4)
///     .send_timeout(Duration::from_secs(10))
///     .create()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until `create` is called"]
pub struct ProducerBuilder {
    client: Arc<Shared>,
    topic: String,
    config: ProducerConfig,
    routing: MessageRoutingMode,
    hashing_scheme: HashingScheme,
}

impl ProducerBuilder {
    pub(super) fn new(client: Arc<Shared>, topic: String) -> Self {
        let config = ProducerConfig { operation_timeout: client.operation_timeout(), ..ProducerConfig::default() };
        Self { client, topic, config, routing: MessageRoutingMode::default(), hashing_scheme: HashingScheme::default() }
    }

    /// The producer's name (`producer_name`), unique on the topic. Deduplication goes by it and needs one that stays
    /// the same over restarts. Default: the broker makes one.
    #[doc(alias = "producerName")]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = Some(name.into());
        self
    }

    /// Adds a property of the producer, shown in the broker's statistics. Default: none.
    #[doc(alias = "property")]
    pub fn producer_property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.properties.push((key.into(), value.into()));
        self
    }

    /// Whether others may produce to the topic at the same time (`producer_access_mode`, PIP-68). Default:
    /// [`AccessMode::Shared`].
    pub fn access_mode(mut self, mode: AccessMode) -> Self {
        self.config.access_mode = mode;
        self
    }

    /// Whether messages may share an entry. Default: true.
    #[doc(alias = "enableBatching")]
    pub fn batching(mut self, batching: bool) -> Self {
        self.config.batching = batching;
        self
    }

    /// The most messages in a batch, from 1 to 2^31 - 1. Default: 1000.
    pub fn batching_max_messages(mut self, messages: u32) -> Self {
        self.config.batching_max_messages = messages;
        self
    }

    /// The most bytes of payload in a batch, at least 1; a message that does not fit starts the next batch, and a
    /// larger one goes alone. Default: 128 KiB.
    pub fn batching_max_bytes(mut self, bytes: usize) -> Self {
        self.config.batching_max_bytes = bytes;
        self
    }

    /// How long a batch may wait for more messages. Default: zero, which is not the Java client's 1 ms: a batch leaves
    /// as soon as the connection has sent what came before it, so batches grow under load and nothing waits without.
    pub fn batching_max_publish_delay(mut self, delay: Duration) -> Self {
        self.config.batching_max_publish_delay = delay;
        self
    }

    /// The codec of payloads. As in the Java client, payloads of up to 4 KiB stay as they are. Default:
    /// [`Compression::None`].
    #[doc(alias = "compressionType")]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.config.compression = compression;
        self
    }

    /// How long a message may take from the call to its receipt, in whatever state the connection is. Zero: for ever.
    /// Only what is overdue fails, where the Java client fails all that wait. Default: 30 s.
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.config.send_timeout = timeout;
        self
    }

    /// The most messages that were accepted and have no receipt yet, of each partition, at least 1; further sends wait
    /// for room. Default: 65,536, where the Java client has no limit of messages.
    pub fn max_pending_messages(mut self, messages: usize) -> Self {
        self.config.max_pending_messages = messages;
        self
    }

    /// The most bytes of payload, keys and properties that were accepted and have no receipt yet, of each partition,
    /// at least 1; a single larger message passes. Default: 64 MiB, where the Java client limits the whole client.
    #[doc(alias = "memoryLimit")]
    pub fn max_pending_bytes(mut self, bytes: usize) -> Self {
        self.config.max_pending_bytes = bytes;
        self
    }

    /// The last sequence id that was used: the first message gets the one above it. Below 2^63 - 1. Default: what the
    /// broker knows under this name, where deduplication is on; else the first message gets 0.
    pub fn initial_sequence_id(mut self, id: u64) -> Self {
        self.config.initial_sequence_id = Some(id);
        self
    }

    /// Where messages without a key go on a partitioned topic. Default: [`MessageRoutingMode::RoundRobinPartition`].
    pub fn message_routing_mode(mut self, routing: MessageRoutingMode) -> Self {
        self.routing = routing;
        self
    }

    /// How keys are hashed on a partitioned topic. Default: [`HashingScheme::JavaStringHash`].
    pub fn hashing_scheme(mut self, hash: HashingScheme) -> Self {
        self.hashing_scheme = hash;
        self
    }

    /// Attaches the producer: to the topic, or to each of its partitions.
    ///
    /// # Errors
    /// An unusable option or topic name; what the broker refuses (unknown topic, no permission, a name that is
    /// taken, a terminated topic); [`TimedOut`](crate::ErrorKind::TimedOut), with the last cause, after the operation
    /// timeout.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was attached so far.
    pub async fn create(self) -> Result<Producer> {
        self.config.validate()?;
        let topic = parse_topic(&self.topic)?;
        let (client, router) = (self.client.clone(), self.router());
        let topics = client.parts_of(&topic).await?;
        // The name of a partition is a topic of its own.
        let is_partitioned = topic.partition_index().is_none() && topics.iter().any(|(_, partition)| *partition >= 0);
        let mut config = Arc::new(self.config);
        // From here on dropping the future closes what was attached.
        let parts = Parts::new();
        let mut topics = topics.into_iter();
        if let Some((topic, partition)) = topics.next() {
            let (_, created) = open_part(&client, &parts, topic, partition, config.clone())?;
            let created = created.await?;
            // All partitions share the name that the first one has, or is given.
            if is_partitioned {
                Arc::make_mut(&mut config).name = Some(created.name);
            }
        }
        let open = |(topic, partition)| open_part(&client, &parts, topic, partition, config.clone());
        let rest = topics.map(open).collect::<Result<Vec<_>>>()?;
        for (_, created) in rest {
            created.await?;
        }
        Ok(Producer::new(client, topic.as_str().into(), is_partitioned, parts, router, config))
    }

    fn router(&self) -> Router {
        Router::new(
            self.routing,
            self.hashing_scheme,
            self.client.seed(),
            self.config.batching,
            self.config.batching_max_publish_delay,
        )
    }
}

impl std::fmt::Debug for ProducerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProducerBuilder")
            .field("topic", &self.topic)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
