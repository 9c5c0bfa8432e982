//! The options of a consumer.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::backoff::RedeliveryBackoff;
use crate::error::{Error, ErrorKind, Result};
use crate::pb;
use crate::schema::SchemaInfo;
use crate::wire::{MAX_UNCOMPRESSED_SIZE_DEFAULT, MAX_UNCOMPRESSED_SIZE_MAX};

/// How long nothing comes before the consumer looks whether it should, unless it is set.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The largest `receiver_queue_size`: FLOW counts permits as a signed 32-bit number.
pub const RECEIVER_QUEUE_SIZE_MAX: u32 = i32::MAX as u32;

/// The shortest delay of a negative acknowledgement.
pub const NACK_REDELIVERY_DELAY_MIN: Duration = Duration::from_millis(100);

/// The delay of a negative acknowledgement, unless it is set.
const NACK_REDELIVERY_DELAY: Duration = Duration::from_secs(60);

/// The largest `max_pending_chunked_messages`: they are searched one by one.
const PENDING_CHUNKED_MESSAGES_MAX: usize = 1000;

/// The shortest acknowledgement timeout: that of the Java client.
pub const ACK_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// How the consumers of a subscription share its messages (`CommandSubscribe.subType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum SubscriptionType {
    /// One consumer; a second one is refused with `ConsumerBusy`. In order.
    #[default]
    Exclusive,
    /// Messages are distributed round-robin over the consumers. No order.
    Shared,
    /// One active consumer, the others stand by. In order.
    Failover,
    /// Messages of one key go to one consumer, in order. The broker looks into no batch: all its messages go to the consumer
    /// of the first one's key, so that plain batches break this. Their producers need
    /// [key-based batches](crate::BatchingType::KeyBased), or none.
    KeyShared,
}

impl SubscriptionType {
    /// Whether a consumer reads the topic in order and alone, so that only "all up to here" can be redelivered and
    /// cumulative acknowledgement makes sense: Exclusive and Failover.
    #[must_use]
    pub fn is_in_order(self) -> bool {
        matches!(self, Self::Exclusive | Self::Failover)
    }

    pub(super) fn wire(self) -> pb::command_subscribe::SubType {
        match self {
            Self::Exclusive => pb::command_subscribe::SubType::Exclusive,
            Self::Shared => pb::command_subscribe::SubType::Shared,
            Self::Failover => pb::command_subscribe::SubType::Failover,
            Self::KeyShared => pb::command_subscribe::SubType::KeyShared,
        }
    }
}

/// Where a subscription starts that this SUBSCRIBE creates (`CommandSubscribe.initialPosition`). An existing one
/// resumes at its own position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum InitialPosition {
    /// After the last message of the topic.
    #[default]
    Latest,
    /// Before the first message of the topic.
    Earliest,
}

impl InitialPosition {
    pub(super) fn wire(self) -> pb::command_subscribe::InitialPosition {
        match self {
            Self::Latest => pb::command_subscribe::InitialPosition::Latest,
            Self::Earliest => pb::command_subscribe::InitialPosition::Earliest,
        }
    }
}

/// How keys are spread over the consumers of a Key_Shared subscription (`KeySharedMeta`). All consumers of a
/// subscription must ask for the same.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeySharedPolicy {
    /// The broker splits the keys among the consumers that are there.
    AutoSplit {
        /// A key may move to another consumer before its earlier messages are acknowledged. Default: false.
        allow_out_of_order: bool,
    },
    /// This consumer takes the keys whose hash lies in these ranges of 0 to 65535, and no others.
    Sticky(Vec<RangeInclusive<u16>>),
}

impl Default for KeySharedPolicy {
    fn default() -> Self {
        Self::AutoSplit { allow_out_of_order: false }
    }
}

impl KeySharedPolicy {
    pub(super) fn wire(&self) -> pb::KeySharedMeta {
        let (mode, hash_ranges, out_of_order) = match self {
            Self::AutoSplit { allow_out_of_order } => (pb::KeySharedMode::AutoSplit, Vec::new(), *allow_out_of_order),
            Self::Sticky(ranges) => {
                let range = |range: &RangeInclusive<u16>| pb::IntRange {
                    start: i32::from(*range.start()),
                    end: i32::from(*range.end()),
                };
                (pb::KeySharedMode::Sticky, ranges.iter().map(range).collect(), false)
            }
        };
        pb::KeySharedMeta { key_shared_mode: mode.into(), hash_ranges, allow_out_of_order_delivery: Some(out_of_order) }
    }
}

/// What becomes of a message that this client cannot read: see
/// [`ConsumerBuilder::unreadable_message_policy`](crate::ConsumerBuilder::unreadable_message_policy). With each of them the
/// message is reported as an event, and the next one is received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum UnreadableMessagePolicy {
    /// It stays unacknowledged: the application acknowledges it, or asks for it again, or leaves it to a client that can
    /// read it.
    #[default]
    Report,
    /// It is acknowledged, and so lost to this subscription.
    Acknowledge,
}

/// The options of a consumer, as its machine needs them. The meaning, unit and default of each are documented
/// at its method of [`ConsumerBuilder`](crate::ConsumerBuilder).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the builder documents each of them")]
pub struct ConsumerConfig {
    /// Name of the subscription. Not empty.
    pub subscription: String,
    pub subscription_type: SubscriptionType,
    /// The machine invents none: each consumer is to be given a name of its own.
    pub name: Option<String>,
    pub receiver_queue_size: u32,
    /// Up to which the queue grows while it holds the application up. No more than `receiver_queue_size`: it is fixed.
    pub receiver_queue_size_max: u32,
    pub acknowledgment_group_time: Duration,
    pub max_acknowledgment_group_size: usize,
    pub negative_ack_redelivery_backoff: RedeliveryBackoff,
    pub ack_timeout: Option<Duration>,
    /// Added to `ack_timeout`.
    pub ack_timeout_redelivery_backoff: Option<RedeliveryBackoff>,
    pub initial_position: InitialPosition,
    /// Where the subscription starts if it is gone when the consumer attaches again; `None`: as the first time.
    pub recreated_position: Option<InitialPosition>,
    /// Whether the broker may create the topic.
    pub force_topic_creation: bool,
    pub priority_level: i32,
    pub properties: Vec<(String, String)>,
    pub subscription_properties: Vec<(String, String)>,
    pub batch_index_acknowledgment: bool,
    pub key_shared_policy: KeySharedPolicy,
    pub read_compacted: bool,
    pub replicate_subscription_state: Option<bool>,
    /// False for a reader, whose position is not kept by the broker.
    pub durable: bool,
    pub schema: Option<SchemaInfo>,
    pub max_uncompressed_size: usize,
    pub max_chunked_message_size: usize,
    pub max_pending_chunked_messages: usize,
    pub max_pending_chunked_bytes: usize,
    /// Zero: never.
    pub expire_time_of_incomplete_chunked_message: Duration,
    pub auto_ack_incomplete_chunked_messages: bool,
    pub unreadable_message_policy: UnreadableMessagePolicy,
    pub stall_timeout: Duration,
    /// How long subscribing the first time, closing and the single requests may take: that of the client.
    pub operation_timeout: Duration,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            subscription: String::new(),
            subscription_type: SubscriptionType::default(),
            name: None,
            receiver_queue_size: 1000,
            receiver_queue_size_max: 0,
            acknowledgment_group_time: Duration::from_millis(100),
            max_acknowledgment_group_size: 1000,
            negative_ack_redelivery_backoff: RedeliveryBackoff::constant(NACK_REDELIVERY_DELAY),
            ack_timeout: None,
            ack_timeout_redelivery_backoff: None,
            initial_position: InitialPosition::default(),
            recreated_position: None,
            force_topic_creation: true,
            priority_level: 0,
            properties: Vec::new(),
            subscription_properties: Vec::new(),
            batch_index_acknowledgment: true,
            key_shared_policy: KeySharedPolicy::default(),
            read_compacted: false,
            replicate_subscription_state: None,
            durable: true,
            schema: None,
            max_uncompressed_size: MAX_UNCOMPRESSED_SIZE_DEFAULT,
            max_chunked_message_size: MAX_UNCOMPRESSED_SIZE_DEFAULT,
            max_pending_chunked_messages: 100,
            max_pending_chunked_bytes: 256 * 1024 * 1024,
            expire_time_of_incomplete_chunked_message: Duration::from_secs(60),
            auto_ack_incomplete_chunked_messages: false,
            unreadable_message_policy: UnreadableMessagePolicy::default(),
            stall_timeout: STALL_TIMEOUT,
            operation_timeout: Duration::from_secs(30),
        }
    }
}

impl ConsumerConfig {
    /// The defaults, with the name of the subscription, which has none.
    pub fn new(subscription: impl Into<String>) -> Self {
        Self { subscription: subscription.into(), ..Self::default() }
    }

    /// Checks the options against each other.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], naming the bad option.
    pub fn validate(&self) -> Result<()> {
        if self.subscription.trim().is_empty() {
            // To an empty one a broker would answer ProducerBusy, which names another cause.
            return refuse("subscription must not be blank");
        }
        if self.name.as_deref().is_some_and(|name| name.trim().is_empty()) {
            return refuse("name must not be blank: leave it out to have one made");
        }
        if self.priority_level < 0 {
            return refuse("priority_level must not be below 0");
        }
        if self.receiver_queue_size.max(self.receiver_queue_size_max) > RECEIVER_QUEUE_SIZE_MAX {
            return refuse("receiver_queue_size is above 2147483647");
        }
        if self.max_acknowledgment_group_size == 0 {
            return refuse(
                "max_acknowledgment_group_size is 0; for acknowledgements that do not wait set acknowledgment_group_time to zero",
            );
        }
        self.validate_redelivery()?;
        if self.max_uncompressed_size == 0 || self.max_uncompressed_size > MAX_UNCOMPRESSED_SIZE_MAX {
            return refuse("max_uncompressed_size must be from 1 to 2^31 - 1");
        }
        if self.max_chunked_message_size == 0 || self.max_chunked_message_size > MAX_UNCOMPRESSED_SIZE_MAX {
            return refuse("max_chunked_message_size must be from 1 to 2^31 - 1");
        }
        if self.max_pending_chunked_messages == 0 || self.max_pending_chunked_messages > PENDING_CHUNKED_MESSAGES_MAX {
            return refuse("max_pending_chunked_messages must be from 1 to 1000");
        }
        if self.max_pending_chunked_bytes == 0 {
            return refuse("max_pending_chunked_bytes must be at least 1");
        }
        if self.stall_timeout.is_zero() {
            return refuse("stall_timeout is zero");
        }
        if self.operation_timeout.is_zero() {
            return refuse("operation_timeout is zero");
        }
        if self.read_compacted && !self.subscription_type.is_in_order() {
            return refuse("read_compacted is only for Exclusive and Failover subscriptions");
        }
        if let Some(why) = self.schema.as_ref().and_then(SchemaInfo::refused) {
            return refuse(why);
        }
        match &self.key_shared_policy {
            KeySharedPolicy::Sticky(ranges) => self.validate_ranges(ranges),
            KeySharedPolicy::AutoSplit { .. } => Ok(()),
        }
    }
}

impl ConsumerConfig {
    fn validate_redelivery(&self) -> Result<()> {
        if self.negative_ack_redelivery_backoff.first() < NACK_REDELIVERY_DELAY_MIN {
            return refuse("negative_ack_redelivery_delay is below 100 ms");
        }
        if self.ack_timeout.is_some_and(|timeout| timeout < ACK_TIMEOUT_MIN) {
            return refuse("ack_timeout is below 1 s");
        }
        if self.ack_timeout.is_none() && self.ack_timeout_redelivery_backoff.is_some() {
            return refuse("ack_timeout_redelivery_backoff has no effect without ack_timeout");
        }
        for (name, backoff) in [
            ("negative_ack_redelivery_backoff", Some(self.negative_ack_redelivery_backoff)),
            ("ack_timeout_redelivery_backoff", self.ack_timeout_redelivery_backoff),
        ] {
            if let Some(why) = backoff.and_then(|backoff| backoff.refused()) {
                return refuse(&format!("{name}: {why}"));
            }
        }
        Ok(())
    }

    fn validate_ranges(&self, ranges: &[RangeInclusive<u16>]) -> Result<()> {
        let option = if self.durable { "key_shared_policy" } else { "key_hash_range" };
        if self.durable && self.subscription_type != SubscriptionType::KeyShared {
            return refuse("key_shared_policy: hash ranges are only for Key_Shared subscriptions");
        }
        if ranges.is_empty() || ranges.iter().any(RangeInclusive::is_empty) {
            return refuse(&format!("{option}: hash ranges are needed, and none of them empty"));
        }
        let mut sorted: Vec<_> = ranges.iter().map(|range| (*range.start(), *range.end())).collect();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[1].0 <= pair[0].1) {
            return refuse(&format!("{option}: hash ranges overlap (both ends belong to a range)"));
        }
        Ok(())
    }
}

fn refuse(why: &str) -> Result<()> {
    Err(Error::local(ErrorKind::InvalidArgument, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(change: impl FnOnce(&mut ConsumerConfig)) -> String {
        let mut config = ConsumerConfig::new("s");
        change(&mut config);
        config.validate().expect_err("a bad option").to_string()
    }

    #[test]
    fn defaults_are_usable_once_named() {
        assert!(ConsumerConfig::new("s").validate().is_ok());
        assert!(ConsumerConfig::default().validate().is_err());
    }

    #[test]
    fn each_bad_option_is_named() {
        assert!(bad(|c| c.name = Some(" ".into())).contains("name"));
        assert!(bad(|c| c.priority_level = -1).contains("priority_level"));
        assert!(bad(|c| c.receiver_queue_size = u32::MAX).contains("receiver_queue_size"));
        assert!(bad(|c| c.max_acknowledgment_group_size = 0).contains("max_acknowledgment_group_size"));
        assert!(
            bad(|c| c.negative_ack_redelivery_backoff = RedeliveryBackoff::constant(Duration::from_millis(99)))
                .contains("negative_ack_redelivery_delay")
        );
        assert!(bad(|c| c.ack_timeout = Some(Duration::from_millis(999))).contains("ack_timeout"));
        let backoff = RedeliveryBackoff::default();
        assert!(bad(|c| c.ack_timeout_redelivery_backoff = Some(backoff)).contains("without ack_timeout"));
        let shrinking = backoff.with_multiplier(0.5);
        assert!(bad(|c| c.negative_ack_redelivery_backoff = shrinking).contains("redelivery_backoff: the multiplier"));
        assert!(bad(|c| c.max_uncompressed_size = 0).contains("max_uncompressed_size"));
        assert!(bad(|c| c.max_uncompressed_size = 1 << 31).contains("max_uncompressed_size"));
        assert!(bad(|c| c.operation_timeout = Duration::ZERO).contains("operation_timeout"));
        let compacted = bad(|c| (c.read_compacted, c.subscription_type) = (true, SubscriptionType::Shared));
        assert!(compacted.contains("read_compacted"));
        assert!(bad(|c| c.key_shared_policy = KeySharedPolicy::Sticky(vec![0..=1])).contains("Key_Shared"));
    }

    #[test]
    fn sticky_ranges_do_not_overlap() {
        let sticky = |ranges: Vec<RangeInclusive<u16>>| {
            let mut config = ConsumerConfig::new("s");
            config.subscription_type = SubscriptionType::KeyShared;
            config.key_shared_policy = KeySharedPolicy::Sticky(ranges);
            config.validate()
        };
        assert!(sticky(vec![10..=20, 0..=9, 21..=65535]).is_ok());
        assert!(sticky(vec![10..=20, 0..=10]).is_err());
        #[allow(clippy::reversed_empty_ranges, reason = "the point of the test")]
        let reversed = vec![5..=4];
        assert!(sticky(reversed).is_err());
        assert!(sticky(vec![]).is_err());
    }
}
