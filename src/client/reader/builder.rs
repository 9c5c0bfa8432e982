//! Configuration of a reader.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::start::{Positions, ReaderStart, StartOf};
use super::{Reader, is_at_last};
use crate::client::Shared;
use crate::client::consumer_builder::ConsumerBuilder;
use crate::client::encryption::ConsumerCryptoFailureAction;
#[cfg(feature = "encryption")]
use crate::client::encryption::CryptoKeyReader;
use crate::client::interceptors::ConsumerInterceptor;
#[cfg(feature = "patterns")]
use crate::client::pattern::RegexSubscriptionMode;
use crate::client::seek::is_end_of_any;
use crate::client::topics::Topics;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::consumer::{KeySharedPolicy, SeekTo};
use crate::schema::SchemaInfo;

/// Configures a [`Reader`]; created by [`Client::reader`](crate::Client::reader). Java: `ReaderBuilder`.
///
/// Each option says its unit and its default. Defaults are those of the Java client 4.2, unless the option says otherwise.
///
/// ```no_run
/// # async fn example(client: pulsar_native::Client) -> Result<(), pulsar_native::Error> {
/// use std::time::{Duration, SystemTime};
/// use pulsar_native::{SeekTo, Topics};
///
/// let yesterday = SeekTo::PublishTime(SystemTime::now() - Duration::from_secs(24 * 3600));
/// let reader = client
///     .reader(Topics::pattern("persistent://public/default/orders-.*"), yesterday)
///     .reader_name("audit")
///     .create()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until `create` is called"]
pub struct ReaderBuilder {
    consumer: ConsumerBuilder,
    start: ReaderStart,
    subscription_role_prefix: Option<String>,
    key_hash_ranges: Vec<RangeInclusive<u16>>,
}

impl ReaderBuilder {
    pub(in crate::client) fn new(client: Arc<Shared>, topics: Topics, start: ReaderStart) -> Self {
        let mut consumer = ConsumerBuilder::new(client, topics, String::new());
        consumer.config.durable = false;
        // Whole entries are acknowledged: where in a batch it is, the reader knows itself.
        consumer.config.batch_index_acknowledgment = false;
        Self { consumer, start, subscription_role_prefix: None, key_hash_ranges: Vec::new() }
    }

    fn change(mut self, change: impl FnOnce(ConsumerBuilder) -> ConsumerBuilder) -> Self {
        self.consumer = change(self.consumer);
        self
    }

    /// The reader's name, shown in the broker's statistics. Default: five random letters.
    #[doc(alias = "readerName")]
    pub fn reader_name(self, name: impl Into<String>) -> Self {
        self.change(|consumer| consumer.name(name))
    }

    /// The name of its subscription on each topic. Another reader that is connected may not have it, nor may a durable
    /// subscription. Default: `reader-` and ten random hexadecimal digits.
    #[doc(alias = "subscriptionName")]
    pub fn subscription_name(mut self, name: impl Into<String>) -> Self {
        self.consumer.config.subscription = name.into();
        self
    }

    /// What stands before the generated name of its subscription, with a `-` between: a namespace may ask for names that
    /// begin with the role (`subscriptionAuthMode` `Prefix`). Default: nothing.
    #[doc(alias = "subscriptionRolePrefix")]
    pub fn subscription_role_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.subscription_role_prefix = Some(prefix.into());
        self
    }

    /// How many messages the broker may send ahead of the application, for each topic and partition: see
    /// [`ConsumerBuilder::receiver_queue_size`]. Default: 1000, from which the queue
    /// [grows](ConsumerBuilder::auto_scaled_receiver_queue_size); a size that is set here is kept.
    #[doc(alias = "receiverQueueSize")]
    pub fn receiver_queue_size(self, messages: u32) -> Self {
        self.change(|consumer| consumer.receiver_queue_size(messages))
    }

    /// Whether to read the compacted view of the topics, of each key the last message. Persistent topics only. Default: false.
    #[doc(alias = "readCompacted")]
    pub fn read_compacted(self, compacted: bool) -> Self {
        self.change(|consumer| consumer.read_compacted(compacted))
    }

    /// Reads only messages whose key has a hash within these ranges of 0 to 65535, both ends included; the broker leaves out
    /// the others. Several calls add up. Default: all.
    #[doc(alias = "keyHashRange")]
    pub fn key_hash_range(mut self, ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Self {
        self.key_hash_ranges.extend(ranges);
        self
    }

    /// Whether partitions that are added to a topic join. They are read from their beginning. Default: true.
    #[doc(alias = "autoUpdatePartitions")]
    pub fn auto_update_partitions(self, enabled: bool) -> Self {
        self.change(|consumer| consumer.auto_update_partitions(enabled))
    }

    /// How often the number of partitions is asked for, at least 1 second. Default: 1 minute.
    #[doc(alias = "autoUpdatePartitionsInterval")]
    pub fn auto_update_partitions_interval(self, interval: Duration) -> Self {
        self.change(|consumer| consumer.auto_update_partitions_interval(interval))
    }

    /// Which topics a pattern matches: see [`ConsumerBuilder::subscription_topics_mode`].
    #[cfg(feature = "patterns")]
    #[doc(alias = "subscriptionTopicsMode")]
    pub fn subscription_topics_mode(self, mode: RegexSubscriptionMode) -> Self {
        self.change(|consumer| consumer.subscription_topics_mode(mode))
    }

    /// How often the topics of a pattern are listed: see [`ConsumerBuilder::pattern_auto_discovery_period`]. What matches
    /// later is read from its beginning. Default: 1 minute.
    #[cfg(feature = "patterns")]
    #[doc(alias = "patternAutoDiscoveryPeriod")]
    pub fn pattern_auto_discovery_period(self, period: Duration) -> Self {
        self.change(|consumer| consumer.pattern_auto_discovery_period(period))
    }

    /// What a payload may decompress to, bytes: see [`ConsumerBuilder::max_uncompressed_size`]. Default: 80 MiB.
    pub fn max_uncompressed_size(self, bytes: usize) -> Self {
        self.change(|consumer| consumer.max_uncompressed_size(bytes))
    }

    /// The most bytes of a message in chunks: see [`ConsumerBuilder::max_chunked_message_size`]. Default: 80 MiB.
    pub fn max_chunked_message_size(self, bytes: usize) -> Self {
        self.change(|consumer| consumer.max_chunked_message_size(bytes))
    }

    /// How many chunked messages of a topic may be incomplete: see [`ConsumerBuilder::max_pending_chunked_messages`].
    /// Default: 100 (the Java client: 10).
    #[doc(alias = "maxPendingChunkedMessage")]
    pub fn max_pending_chunked_messages(self, messages: usize) -> Self {
        self.change(|consumer| consumer.max_pending_chunked_messages(messages))
    }

    /// How many bytes they may have together: see [`ConsumerBuilder::max_pending_chunked_bytes`]. Default: 256 MiB.
    pub fn max_pending_chunked_bytes(self, bytes: usize) -> Self {
        self.change(|consumer| consumer.max_pending_chunked_bytes(bytes))
    }

    /// How long the other chunks of a message are waited for: see
    /// [`ConsumerBuilder::expire_time_of_incomplete_chunked_message`]. Default: 1 minute.
    #[doc(alias = "expireTimeOfIncompleteChunkedMessage")]
    pub fn expire_time_of_incomplete_chunked_message(self, time: Duration) -> Self {
        self.change(|consumer| consumer.expire_time_of_incomplete_chunked_message(time))
    }

    /// Where the private keys come from that open encrypted messages: see [`ConsumerBuilder::crypto_key_reader`]. Default:
    /// none.
    #[cfg(feature = "encryption")]
    #[doc(alias = "cryptoKeyReader")]
    #[doc(alias = "defaultCryptoKeyReader")]
    pub fn crypto_key_reader(self, reader: impl CryptoKeyReader) -> Self {
        self.change(|consumer| consumer.crypto_key_reader(reader))
    }

    /// What becomes of an encrypted message that cannot be decrypted: see [`ConsumerBuilder::crypto_failure_action`]. One
    /// that is not delivered counts as read. Default: [`ConsumerCryptoFailureAction::Fail`].
    #[doc(alias = "cryptoFailureAction")]
    pub fn crypto_failure_action(self, action: ConsumerCryptoFailureAction) -> Self {
        self.change(|consumer| consumer.crypto_failure_action(action))
    }

    /// The schema that payloads are to be read by: see [`ConsumerBuilder::schema`]. Default: none.
    #[doc(alias = "newReader")]
    pub fn schema(self, schema: SchemaInfo) -> Self {
        self.change(|consumer| consumer.schema(schema))
    }

    /// Has `interceptor` see each message before it is given to the application (Java: `ReaderInterceptor.beforeRead`), by
    /// [`before_consume`](ConsumerInterceptor::before_consume): also one that [`Reader::has_next`] finds. The other methods
    /// are not called. Default: none.
    pub fn intercept(self, interceptor: impl ConsumerInterceptor) -> Self {
        self.change(|consumer| consumer.intercept(interceptor))
    }

    /// Adds a property of the reader, shown in the broker's statistics. Default: none.
    pub fn consumer_property(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.change(|consumer| consumer.consumer_property(key, value))
    }

    /// Subscribes to each topic, or each of its partitions, at the start.
    ///
    /// # Errors
    /// - [`InvalidArgument`](ErrorKind::InvalidArgument): an unusable option, topic name or pattern, or no topic; a start at a
    ///   message id, with several topics or partitions.
    /// - The broker's refusal: unknown topic, no permission, a subscription that another one holds.
    /// - [`TimedOut`](ErrorKind::TimedOut), with the last cause, after the operation timeout.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was attached so far.
    pub async fn create(mut self) -> Result<Reader> {
        let config = &mut self.consumer.config;
        if config.subscription.is_empty() {
            config.subscription = random_subscription(self.subscription_role_prefix.as_deref());
        }
        if !self.key_hash_ranges.is_empty() {
            config.key_shared_policy = KeySharedPolicy::Sticky(self.key_hash_ranges);
            // What the broker leaves out is its backlog for good.
            config.stall_timeout = Duration::MAX;
        }
        self.consumer.positions = Some(Arc::new(Positions::new(&self.start)));
        let mut reader = Reader::new(self.consumer.subscribe().await?);
        match self.start.of {
            StartOf::All(to) if is_at_last(&to) => reader.seek(to).await?,
            StartOf::All(to @ SeekTo::PublishTime(_)) => reader.seek(to).await?,
            StartOf::All(SeekTo::Message { id, .. }) if !reader.has_one_part() && !is_end_of_any(&id) => {
                let what = "a message id is a position in one topic or partition, and the reader has several: begin at a \
                            Checkpoint";
                return Err(Error::local(ErrorKind::InvalidArgument, what));
            }
            StartOf::All(SeekTo::Earliest) => {}
            StartOf::All(_) | StartOf::Each(_) => reader.resolve_position().await?,
        }
        Ok(reader)
    }
}

/// As the Java client names the subscriptions of readers.
fn random_subscription(role_prefix: Option<&str>) -> String {
    let digits = RandomState::new().build_hasher().finish() % 0x100_0000_0000;
    match role_prefix.filter(|prefix| !prefix.is_empty()) {
        Some(prefix) => format!("{prefix}-reader-{digits:010x}"),
        None => format!("reader-{digits:010x}"),
    }
}

impl fmt::Debug for ReaderBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReaderBuilder")
            .field("consumer", &self.consumer)
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}
