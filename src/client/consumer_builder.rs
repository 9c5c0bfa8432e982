//! Configuration of a consumer.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
#[cfg(doc)]
use super::consumer::Consumer;
use super::dead_letter::DeadLetterPolicy;
#[cfg(feature = "encryption")]
use super::encryption::CryptoKeyReader;
use super::encryption::{ConsumerCryptoFailureAction, EncryptionOptions};
use super::growth::AutoUpdate;
use super::interceptors::{ConsumerInterceptor, ConsumerInterceptors};
#[cfg(feature = "patterns")]
use super::pattern::RegexSubscriptionMode;
use super::reader::Positions;
use super::topics::Topics;
use crate::machine::consumer::{
    ConsumerConfig, InitialPosition, KeySharedPolicy, RedeliveryBackoff, SubscriptionType, UnreadableMessagePolicy,
};
use crate::schema::SchemaInfo;

/// Configures a [`Consumer`]; created by [`Client::consumer`](super::Client::consumer).
///
/// Each option says its unit and its default. Defaults are those of the Java client 4.2, unless the option says
/// otherwise. Options are checked against each other by [`subscribe`](Self::subscribe). A duration beyond the range of the
/// clock, such as [`Duration::MAX`], never ends. Texts may be as long as the broker takes them: all of them together a few
/// MB.
///
/// ```no_run
/// # async fn example(client: pulsar_native::Client) -> Result<(), pulsar_native::Error> {
/// use std::time::Duration;
/// use pulsar_native::{InitialPosition, SubscriptionType};
///
/// let consumer = client
///     .consumer(["orders", "invoices"], "billing")
///     .subscription_type(SubscriptionType::Shared)
///     .initial_position(InitialPosition::Earliest)
///     .negative_ack_redelivery_delay(Duration::from_secs(5))
///     .subscribe()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until `subscribe` is called"]
pub struct ConsumerBuilder {
    pub(super) client: Arc<Shared>,
    pub(super) topics: Topics,
    /// Apart, because futures are moved.
    pub(super) config: Box<ConsumerConfig>,
    pub(super) encryption: EncryptionOptions<ConsumerCryptoFailureAction>,
    pub(super) dead_letter_policy: Option<DeadLetterPolicy>,
    pub(super) retries: bool,
    /// Where the parts of a reader begin.
    pub(super) positions: Option<Arc<Positions>>,
    pub(super) starts_paused: bool,
    pub(super) interceptors: Option<Arc<ConsumerInterceptors>>,
    pub(super) auto_update: AutoUpdate,
    pub(super) position_of_added: InitialPosition,
    pub(super) total_queue_size_max: u32,
    /// `None`: unless a size is set.
    pub(super) scales_queue: Option<bool>,
    #[cfg(feature = "patterns")]
    pub(super) topics_mode: Option<RegexSubscriptionMode>,
    #[cfg(feature = "patterns")]
    pub(super) discovery_period: Duration,
}

impl ConsumerBuilder {
    pub(super) fn new(client: Arc<Shared>, topics: Topics, subscription: String) -> Self {
        let mut config = ConsumerConfig::new(subscription);
        config.operation_timeout = client.operation_timeout();
        Self {
            client,
            topics,
            config: Box::new(config),
            encryption: EncryptionOptions::default(),
            dead_letter_policy: None,
            retries: false,
            positions: None,
            starts_paused: false,
            interceptors: None,
            auto_update: AutoUpdate::default(),
            position_of_added: InitialPosition::Earliest,
            total_queue_size_max: 50_000,
            scales_queue: None,
            #[cfg(feature = "patterns")]
            topics_mode: None,
            #[cfg(feature = "patterns")]
            discovery_period: Duration::from_secs(60),
        }
    }

    /// How the consumers of the subscription share its messages (`subType`). Default:
    /// [`SubscriptionType::Exclusive`].
    pub fn subscription_type(mut self, subscription_type: SubscriptionType) -> Self {
        self.config.subscription_type = subscription_type;
        self
    }

    /// The consumer's name, shown in the broker's statistics. The consumers of a Failover subscription are ordered by it,
    /// and the keys of a Key_Shared one are assigned by it. Default: five random letters.
    #[doc(alias = "consumerName")]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = Some(name.into());
        self
    }

    /// How many messages the broker may send ahead of the application, for each topic and partition. An entry is never
    /// split, so the last batch may exceed it. 0: none is sent ahead, each waiting `receive` requests one. At most
    /// 2^31 - 1, and of several topics and partitions no more than
    /// [together](Self::max_total_receiver_queue_size_across_partitions). Default: 1000, from which the queue
    /// [grows](Self::auto_scaled_receiver_queue_size); a size that is set here is kept.
    pub fn receiver_queue_size(mut self, messages: u32) -> Self {
        self.config.receiver_queue_size = messages;
        self.scales_queue.get_or_insert(false);
        self
    }

    /// Whether the receiver queue of each topic and partition follows the application, from
    /// [`receiver_queue_size`](Self::receiver_queue_size) up to its part of the
    /// [total](Self::max_total_receiver_queue_size_across_partitions), or what takes 16 MiB by the mean size of its messages.
    /// It doubles where the application has received everything and the broker was not allowed to send more: where producers batch, a
    /// thousand messages are a few entries, and each would cost a round trip. It is halved where half of it keeps the application
    /// busy for more than 100 ms, so that on a Shared subscription a slow consumer does not keep what others could have.
    /// [`ConsumerStats::receiver_queue_size`](crate::ConsumerStats::receiver_queue_size) is the size at the moment. A queue of size 0
    /// does not grow, and to ask for that is an error ([`InvalidArgument`](crate::ErrorKind::InvalidArgument)). Default: true, unless
    /// `receiver_queue_size` is set. (In the Java client it is off, starts with one message, and `receiverQueueSize` is its
    /// bound; PIP-74.)
    #[doc(alias = "autoScaledReceiverQueueSizeEnabled")]
    pub fn auto_scaled_receiver_queue_size(mut self, is_scaled: bool) -> Self {
        self.scales_queue = Some(is_scaled);
        self
    }

    /// How many messages the broker may send ahead for all topics and partitions of the consumer together, at least 1: each
    /// has an equal share of it, at least one message, or its [own size](Self::receiver_queue_size) where that is less. A
    /// single one always has its own size. The shares follow the set: where topics or partitions come, the others grant less,
    /// and where they go, more. A broker takes no permit back, so that a share that has become smaller holds once so many
    /// messages were received. (The Java client divides it among the partitions of each topic, as
    /// they are when it is found.) Default: 50,000.
    ///
    /// No topic starves the others. Those that have something waiting here give it in turn, each all of it: its share, and
    /// the batch that exceeds that. So before a message that has arrived no more messages of each other topic are received
    /// than twice so many, whatever its backlog.
    #[doc(alias = "maxTotalReceiverQueueSizeAcrossPartitions")]
    pub fn max_total_receiver_queue_size_across_partitions(mut self, messages: u32) -> Self {
        self.total_queue_size_max = messages;
        self
    }

    /// How long an acknowledgement may wait for others to share its frame. Zero: it is sent when the connection is next
    /// free. Default: 100 ms.
    pub fn acknowledgment_group_time(mut self, time: Duration) -> Self {
        self.config.acknowledgment_group_time = time;
        self
    }

    /// How many acknowledgements are sent without waiting longer, in entries, at least 1. Default: 1000.
    pub fn max_acknowledgment_group_size(mut self, acks: usize) -> Self {
        self.config.max_acknowledgment_group_size = acks;
        self
    }

    /// How long after a negative acknowledgement the redelivery is requested; at least 100 ms. It replaces a
    /// [back-off](Self::negative_ack_redelivery_backoff). Default: 60 s.
    pub fn negative_ack_redelivery_delay(self, delay: Duration) -> Self {
        self.negative_ack_redelivery_backoff(RedeliveryBackoff::constant(delay))
    }

    /// How long after a negative acknowledgement the redelivery is requested, by how often the message was redelivered
    /// already; at least 100 ms. A negative acknowledgement by a bare id, whose count is not known, gets the first delay. It
    /// replaces a [fixed delay](Self::negative_ack_redelivery_delay). Default: 60 s each time.
    pub fn negative_ack_redelivery_backoff(mut self, backoff: RedeliveryBackoff) -> Self {
        self.config.negative_ack_redelivery_backoff = backoff;
        self
    }

    /// How long a message that was received may stay unacknowledged until its redelivery is requested, as after a negative
    /// acknowledgement; at least 1 s. It counts from the receive, and for a batch from the receive of its first message: a
    /// batch comes again with all its members that are not acknowledged. On Exclusive and Failover subscriptions everything
    /// after the last acknowledgement comes again. Each entry that waits takes up to 30 bytes among its neighbours, and 80
    /// where it is far from others; a message that is negatively acknowledged meanwhile takes no more. Beyond two million on a
    /// topic or partition everything that is not acknowledged is requested at once. Default: none, a message may be worked
    /// on for any time.
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.config.ack_timeout = Some(timeout);
        self
    }

    /// What is added to [`ack_timeout`](Self::ack_timeout), by how often the message was redelivered already, as in the Java
    /// client. Default: nothing.
    pub fn ack_timeout_redelivery_backoff(mut self, backoff: RedeliveryBackoff) -> Self {
        self.config.ack_timeout_redelivery_backoff = Some(backoff);
        self
    }

    /// Has messages that are delivered too often sent to a dead-letter topic, and acknowledged once they are stored there.
    /// The application does not see them again. The producer is created with the first of them.
    ///
    /// For Shared and Key_Shared subscriptions, where brokers count redeliveries; on others, where Java takes the option
    /// without an effect, it needs [`retry_enabled`](Self::retry_enabled).
    ///
    /// A message is delivered *at least* as often as the policy says, and given up *at least once*:
    ///
    /// | what | why |
    /// | --- | --- |
    /// | more deliveries | Brokers keep counts in memory. They are lost with the broker's process, when a topic moves, and when the last consumer of a subscription has gone. |
    /// | members of a batch come again together | The count is that of the entry. Where [members are not acknowledged one by one](Self::batch_index_acknowledgment) at the broker, those that were acknowledged come again after a reconnect, beside the one that fails. |
    /// | a dead letter twice | It was stored, and the consumer was closed, or the broker ended, before the message was acknowledged; or before a receipt of the letter came; or a reconnect gave the message to another consumer of the subscription while the letter was on its way. |
    ///
    /// | a dead letter has | |
    /// | --- | --- |
    /// | payload, key, ordering key, event time, properties | those of the message |
    /// | `REAL_TOPIC`, `REAL_SUBSCRIPTION` | the topic and subscription that it was given up on |
    /// | `ORIGIN_MESSAGE_ID`, `ORIGIN_MESSAGE_IDY_TIME` | its id there |
    ///
    /// One that is too large for the broker with the added properties is sent in chunks, or, where its producer [makes
    /// none](DeadLetterPolicy::with_dead_letter_producer), without those properties. Where it cannot be stored, it is negatively
    /// acknowledged and comes again, and [`ConsumerEvent::DeadLetterFailed`](super::ConsumerEvent::DeadLetterFailed) says
    /// why. None is lost. Default: none.
    ///
    /// ```no_run
    /// # async fn example(client: pulsar_native::Client) -> Result<(), pulsar_native::Error> {
    /// use pulsar_native::{DeadLetterPolicy, SubscriptionType};
    ///
    /// let consumer = client
    ///     .consumer("orders", "billing")
    ///     .subscription_type(SubscriptionType::Shared)
    ///     .dead_letter_policy(DeadLetterPolicy::new(3))
    ///     .subscribe()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn dead_letter_policy(mut self, policy: DeadLetterPolicy) -> Self {
        self.dead_letter_policy = Some(policy);
        self
    }

    /// Whether the consumer reads its retry topic as well, so that
    /// [`reconsume_later`](super::Consumer::reconsume_later) can send messages there. Without a
    /// [policy](Self::dead_letter_policy) a message is given up after 16 retries. Default: false.
    #[doc(alias = "enableRetry")]
    pub fn retry_enabled(mut self, enabled: bool) -> Self {
        self.retries = enabled;
        self
    }

    /// Whether the consumer starts [paused](super::Consumer::pause). Default: false.
    #[doc(alias = "startPaused")]
    pub fn start_paused(mut self, paused: bool) -> Self {
        self.starts_paused = paused;
        self
    }

    /// How long no message comes, although the consumer could take one, before it asks the broker whether it should
    /// (CONSUMER_STATS, GET_LAST_MESSAGE_ID), at most 64 times less often the longer nothing comes. It could while a receive
    /// waits, or has found nothing. If there is a backlog that the broker keeps back, that is an event: [`ConsumerEvent::Stalled`](super::ConsumerEvent::Stalled). Longer than
    /// zero; [`Duration::MAX`] switches it off. Default: 60 s.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.config.stall_timeout = timeout;
        self
    }

    /// Where a new subscription starts (`initialPosition`); no effect on one that exists. Default:
    /// [`InitialPosition::Latest`].
    #[doc(alias = "subscriptionInitialPosition")]
    pub fn initial_position(mut self, position: InitialPosition) -> Self {
        self.config.initial_position = position;
        self
    }

    /// Whether partitions that are added to a topic while the consumer is at work are found, and received from. Brokers do
    /// not announce them: the number of partitions of each partitioned topic, the retry topic among them, is asked for at
    /// an [interval](Self::auto_update_partitions_interval). Each that joins is an event,
    /// [`TopicAdded`](super::ConsumerEvent::TopicAdded); one that cannot be attached is
    /// [`TopicNotAdded`](super::ConsumerEvent::TopicNotAdded), and is tried again.
    ///
    /// Messages of a key may go to another partition from then on, as with every client: order holds within a partition.
    /// Where the subscription starts there is [`initial_position_of_added`](Self::initial_position_of_added). The receiver
    /// queue of each partition is its share of the [total](Self::max_total_receiver_queue_size_across_partitions) among those
    /// that are there. Partitions are never removed: where a topic was deleted, or made anew with fewer of them, those that end say
    /// so by [`TopicEnded`](super::ConsumerEvent::TopicEnded). A topic that was not partitioned is not asked for. After
    /// [`unsubscribe`](super::Consumer::unsubscribe), and during a drain, none joins. Default: true.
    #[doc(alias = "autoUpdatePartitions")]
    pub fn auto_update_partitions(mut self, enabled: bool) -> Self {
        self.auto_update.is_enabled = enabled;
        self
    }

    /// How often the number of partitions is asked for, at least 1 s. The first time comes after a random part of it, so
    /// that consumers that start together do not ask together. Default: 60 s.
    #[doc(alias = "autoUpdatePartitionsInterval")]
    pub fn auto_update_partitions_interval(mut self, interval: Duration) -> Self {
        self.auto_update.interval = interval;
        self
    }

    /// Where the subscription starts on a partition that is found while the consumer is at work, if it is not there yet.
    /// What was published to it before it was found would be lost with [`InitialPosition::Latest`], which is what the Java
    /// client does where the consumer [starts at the latest message](Self::initial_position). A
    /// [seek](super::Consumer::seek) moves the partitions that the consumer has at the time. Default:
    /// [`InitialPosition::Earliest`], so that nothing is lost.
    pub fn initial_position_of_added(mut self, position: InitialPosition) -> Self {
        self.position_of_added = position;
        self
    }

    /// Which topics a [pattern](Topics::pattern) is about. Default: as its scheme says, persistent ones without a scheme.
    #[cfg(feature = "patterns")]
    #[doc(alias = "subscriptionTopicsMode")]
    pub fn subscription_topics_mode(mut self, mode: RegexSubscriptionMode) -> Self {
        self.topics_mode = Some(mode);
        self
    }

    /// How often the list of topics is asked for that a [pattern](Topics::pattern) is held against, at least 1 s. A topic that
    /// could not be added is tried again after at most a minute. Default: 60 s.
    #[cfg(feature = "patterns")]
    #[doc(alias = "patternAutoDiscoveryPeriod")]
    pub fn pattern_auto_discovery_period(mut self, period: Duration) -> Self {
        self.discovery_period = period;
        self
    }

    /// The consumer's priority: those of lower levels get messages first (Shared), or are preferred as the active one
    /// (Failover). At least 0. Default: 0.
    pub fn priority_level(mut self, level: i32) -> Self {
        self.config.priority_level = level;
        self
    }

    /// Adds a property of the consumer, shown in the broker's statistics. Default: none.
    #[doc(alias = "property")]
    pub fn consumer_property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.properties.push((key.into(), value.into()));
        self
    }

    /// Adds a property that is stored with the subscription when this consumer creates it. Default: none.
    #[doc(alias = "subscriptionProperties")]
    pub fn subscription_property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.subscription_properties.push((key.into(), value.into()));
        self
    }

    /// Whether members of a batch are acknowledged one by one at the broker (PIP-54). It needs
    /// `acknowledgmentAtBatchIndexLevelEnabled` there (off by default in 4.0, on in 4.2): a broker without it ignores
    /// such acknowledgements and redelivers the whole batch until all of it is acknowledged, as with `false` here.
    /// Default: true.
    #[doc(alias = "enableBatchIndexAcknowledgment")]
    pub fn batch_index_acknowledgment(mut self, enabled: bool) -> Self {
        self.config.batch_index_acknowledgment = enabled;
        self
    }

    /// How keys are distributed over the consumers of a Key_Shared subscription. Default: split by the broker, with the
    /// order of each key kept.
    pub fn key_shared_policy(mut self, policy: KeySharedPolicy) -> Self {
        self.config.key_shared_policy = policy;
        self
    }

    /// Whether to read the compacted view of the topic (Exclusive and Failover only). Default: false.
    pub fn read_compacted(mut self, compacted: bool) -> Self {
        self.config.read_compacted = compacted;
        self
    }

    /// Whether the position of the subscription is replicated (PIP-33, `replicate_subscription_state` of SUBSCRIBE) to the
    /// other clusters of a namespace that is replicated to several; elsewhere it has no effect. After a switch to
    /// another cluster some messages are delivered again: what is replicated is the oldest one that is not acknowledged, once in a
    /// while (`replicatedSubscriptionsSnapshotFrequencyMillis`, one second), and nothing of what was acknowledged beyond it.
    /// Brokers write markers into the topic for it, which no consumer gets. Default: unset, which leaves the subscription as
    /// it is.
    pub fn replicate_subscription_state(mut self, replicate: bool) -> Self {
        self.config.replicate_subscription_state = Some(replicate);
        self
    }

    /// The most bytes that the payload of a compressed entry, a message or a whole batch, may decompress to, from 1 to
    /// 2^31 - 1; so much may be allocated for it at a time. The size is the one that the producer declared, and compared
    /// before anything is allocated. A larger entry is unreadable: it is reported as an
    /// [event](crate::ConsumerEvent::Unreadable) and not acknowledged, see
    /// [`unreadable_message_policy`](Self::unreadable_message_policy).
    ///
    /// The Java client has no such option: it allocates what the producer declared, so that its producers may send what
    /// exceeds the default here. Default: 80 MiB, as of
    /// [`ProducerBuilder::max_uncompressed_size`](crate::ProducerBuilder::max_uncompressed_size).
    pub fn max_uncompressed_size(mut self, bytes: usize) -> Self {
        self.config.max_uncompressed_size = bytes;
        self
    }

    /// The most bytes that a [chunked](crate::ProducerBuilder::chunking) message may have before it is decompressed, from 1
    /// to 2^31 - 1 (`total_chunk_msg_size`). The memory for it grows with the chunks that come. Those of a larger one are
    /// unreadable: see [`unreadable_message_policy`](Self::unreadable_message_policy). The Java client has no such limit.
    /// Default: 80 MiB.
    ///
    /// Chunks wait in the receiver queue like messages, up to
    /// [`receiver_queue_size`](Self::receiver_queue_size) of them: for very large messages make it small.
    pub fn max_chunked_message_size(mut self, bytes: usize) -> Self {
        self.config.max_chunked_message_size = bytes;
        self
    }

    /// How many chunked messages of a topic or partition may be incomplete at a time, from 1 to 1,000; the producers of a
    /// topic send theirs at the same time. For one more, the oldest is dropped: it is reported as an
    /// [event](crate::ConsumerEvent::IncompleteChunkedMessage) and comes again later. Default: 100 (the Java client: 10).
    #[doc(alias = "maxPendingChunkedMessage")]
    pub fn max_pending_chunked_messages(mut self, messages: usize) -> Self {
        self.config.max_pending_chunked_messages = messages;
        self
    }

    /// How many bytes the incomplete chunked messages of a topic or partition may have together, by their declared sizes;
    /// a single one may have more. For one more, the oldest are dropped, as by
    /// [`max_pending_chunked_messages`](Self::max_pending_chunked_messages). The Java client has no such limit. Default:
    /// 256 MiB.
    pub fn max_pending_chunked_bytes(mut self, bytes: usize) -> Self {
        self.config.max_pending_chunked_bytes = bytes;
        self
    }

    /// How long the other chunks of a message are waited for after the first one. Then it is dropped, as by
    /// [`max_pending_chunked_messages`](Self::max_pending_chunked_messages): its producer may have died. Zero: without a
    /// limit. Default: 1 minute.
    #[doc(alias = "expireTimeOfIncompleteChunkedMessage")]
    pub fn expire_time_of_incomplete_chunked_message(mut self, time: Duration) -> Self {
        self.config.expire_time_of_incomplete_chunked_message = time;
        self
    }

    /// Whether chunks that were dropped because the others did not come are acknowledged, and so lost to this subscription.
    /// Those that a chunk is [missing](crate::IncompleteReason::Missing) before or among are, once they were published
    /// longer ago than
    /// [`expire_time_of_incomplete_chunked_message`](Self::expire_time_of_incomplete_chunked_message). Without it they stay
    /// unacknowledged: on Shared and Key_Shared they come again after the delay of a negative acknowledgement, on
    /// Exclusive and Failover with the next attach, and those of a producer that died stay in the backlog for good.
    ///
    /// The Java client always acknowledges what has expired, and by its option what it drops for want of room. Default:
    /// false.
    #[doc(alias = "autoAckOldestChunkedMessageOnQueueFull")]
    pub fn auto_ack_incomplete_chunked_messages(mut self, enabled: bool) -> Self {
        self.config.auto_ack_incomplete_chunked_messages = enabled;
        self
    }

    /// What becomes of a message that this client cannot read: encrypted, a chunk of a
    /// [larger one](Self::max_chunked_message_size) than is assembled, compressed by a codec that this build lacks, or larger
    /// than [`max_uncompressed_size`](Self::max_uncompressed_size). With each policy it
    /// is reported as an [event](crate::ConsumerEvent::Unreadable), and the next message is received.
    ///
    /// A damaged entry (checksum, batch, declared size) is not among them: as in the Java client it is acknowledged with
    /// its validation error. Default: [`UnreadableMessagePolicy::Report`], which leaves it unacknowledged.
    pub fn unreadable_message_policy(mut self, policy: UnreadableMessagePolicy) -> Self {
        self.config.unreadable_message_policy = policy;
        self
    }

    /// Where the private keys come from that open end-to-end encrypted messages, by the names that are in the messages. A data
    /// key that was unwrapped is kept for four hours after its last use, at most 1000 of them, so that the reader is asked
    /// once for each. Default: none; an encrypted message is then treated as
    /// [`crypto_failure_action`](Self::crypto_failure_action) says.
    #[cfg(feature = "encryption")]
    #[doc(alias = "cryptoKeyReader")]
    #[doc(alias = "defaultCryptoKeyReader")]
    pub fn crypto_key_reader(mut self, reader: impl CryptoKeyReader) -> Self {
        self.encryption.reader = Some(Arc::new(reader));
        self
    }

    /// What becomes of an end-to-end encrypted message that cannot be decrypted: the consumer has no
    /// [`crypto_key_reader`](Self::crypto_key_reader), that has none of its keys, or the payload was changed. In each case the
    /// next message is received.
    ///
    /// | action | here | in the Java client |
    /// | --- | --- | --- |
    /// | [`Fail`](ConsumerCryptoFailureAction::Fail), the default | not delivered; an event, [`Unreadable`](crate::ConsumerEvent::Unreadable), says why. It stays unacknowledged and comes again after the [`ack_timeout`](Self::ack_timeout), a `nack` of the event's id, or the next attach. Its permit is returned, so others go on. With [`unreadable_message_policy`](Self::unreadable_message_policy) or a [dead-letter policy](crate::DeadLetterPolicy::with_unreadable) for what is unreadable, that decides | not delivered, a line in the log; it comes again after the `ackTimeout` or the next attach. Its permit is not returned: a full queue of such messages stops the consumer |
    /// | [`Discard`](ConsumerCryptoFailureAction::Discard) | acknowledged with `DecryptionError`, and an event; where a dead-letter policy takes what is unreadable, it goes there instead | acknowledged with `DecryptionError`, a line in the log |
    /// | [`Consume`](ConsumerCryptoFailureAction::Consume) | delivered encrypted, an undivided batch and each chunk as one message; [`encryption_context`](crate::ReceivedMessage::encryption_context) says how to open it | the same for messages and batches |
    #[doc(alias = "cryptoFailureAction")]
    pub fn crypto_failure_action(mut self, action: ConsumerCryptoFailureAction) -> Self {
        self.encryption.action = Some(action);
        self
    }

    /// The schema that payloads are to be read by (`CommandSubscribe.schema`; the Java client's `newConsumer(Schema)`). It is
    /// passed on as it is, and no payload is checked or changed. The broker registers it on a topic that has no schema, no
    /// messages, no producers and no consumers; otherwise it compares it with those of the topic, by the rule of the
    /// namespace (`schemaCompatibilityStrategy`), and refuses one that does not fit with
    /// [`IncompatibleSchema`](crate::ErrorKind::IncompatibleSchema). Default: none, which fits every topic.
    ///
    /// What a message was written by is [`ReceivedMessage::schema_version`](crate::ReceivedMessage::schema_version).
    #[doc(alias = "newConsumer")]
    pub fn schema(mut self, schema: SchemaInfo) -> Self {
        self.config.schema = Some(schema);
        self
    }

    /// Has `interceptor` see each message before it is given to the application, and what becomes of it; see
    /// [`ConsumerInterceptor`]. Those that are added later are called later. With one, messages take a slower path: tens of
    /// nanoseconds each. Default: none, and nothing is looked at.
    pub fn intercept(mut self, interceptor: impl ConsumerInterceptor) -> Self {
        ConsumerInterceptors::add(&mut self.interceptors, interceptor);
        self
    }
}

impl std::fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsumerBuilder")
            .field("topics", &self.topics)
            .field("config", &self.config)
            .field("encryption", &self.encryption)
            .finish_non_exhaustive()
    }
}
