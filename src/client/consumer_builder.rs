//! How a consumer is set up.

use std::sync::Arc;
use std::time::Duration;

use super::acker::ConsumerShared;
use super::consumer::Consumer;
use super::topics::{Selection, Topics};
use super::{Shared, parse_topic};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::consumer::{ConsumerConfig, InitialPosition, KeySharedPolicy, SubscriptionType};

/// What the queues of a partitioned topic's partitions hold together, at most, in messages: the Java client's
/// `maxTotalReceiverQueueSizeAcrossPartitions`.
const TOTAL_RECEIVER_QUEUE_SIZE_MAX: u32 = 50_000;

/// Sets up a [`Consumer`]; made by [`Client::consumer`](super::Client::consumer). Defaults are those of
/// [`ConsumerConfig`].
#[derive(Clone)]
pub struct ConsumerBuilder {
    client: Arc<Shared>,
    topics: Topics,
    config: ConsumerConfig,
}

impl ConsumerBuilder {
    pub(super) fn new(client: Arc<Shared>, topics: Topics, subscription: String) -> Self {
        let mut config = ConsumerConfig::new(subscription);
        config.operation_timeout = client.operation_timeout();
        Self { client, topics, config }
    }

    /// How the consumers of the subscription share its messages (`subType`). Default: exclusive.
    #[must_use]
    pub fn subscription_type(mut self, subscription_type: SubscriptionType) -> Self {
        self.config.subscription_type = subscription_type;
        self
    }

    /// The consumer's name. It orders the consumers of a Failover subscription. Default: five random letters.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.consumer_name = Some(name.into());
        self
    }

    /// Messages that wait here for `receive`, at most, plus one batch; of a partitioned topic, for each partition.
    /// 0: none; each waiting `receive` asks for one. Default: 1000.
    #[must_use]
    pub fn receiver_queue_size(mut self, messages: u32) -> Self {
        self.config.receiver_queue_size = messages;
        self
    }

    /// How long acknowledgements are collected before they go out together. Zero: with the connection's next write.
    /// Default: 100 ms.
    #[must_use]
    pub fn acknowledgment_group_time(mut self, time: Duration) -> Self {
        self.config.acknowledgment_group_time = time;
        self
    }

    /// After how many acknowledgements they go out at once. Default: 1000.
    #[must_use]
    pub fn max_acknowledgment_group_size(mut self, acks: usize) -> Self {
        self.config.max_acknowledgment_group_size = acks;
        self
    }

    /// How long after a negative acknowledgement the message is asked for again; at least 100 ms. Default: 60 s.
    #[must_use]
    pub fn negative_ack_redelivery_delay(mut self, delay: Duration) -> Self {
        self.config.negative_ack_redelivery_delay = delay;
        self
    }

    /// Where a new subscription starts (`initialPosition`). Default: at the topic's end.
    #[must_use]
    pub fn initial_position(mut self, position: InitialPosition) -> Self {
        self.config.initial_position = position;
        self
    }

    /// Lower levels are served first (Shared), or preferred as the active one (Failover). Default: 0.
    #[must_use]
    pub fn priority_level(mut self, level: i32) -> Self {
        self.config.priority_level = level;
        self
    }

    /// Adds a property of the consumer, shown in the broker's statistics.
    #[must_use]
    pub fn consumer_property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.properties.push((key.into(), value.into()));
        self
    }

    /// Adds a property that is stored with the subscription when this consumer creates it.
    #[must_use]
    pub fn subscription_property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.subscription_properties.push((key.into(), value.into()));
        self
    }

    /// Whether members of a batch are acknowledged one by one at the broker (PIP-54). A broker without
    /// `acknowledgmentAtBatchIndexLevelEnabled` ignores such acknowledgements and redelivers the whole batch until
    /// all of it is acknowledged. Default: yes.
    #[must_use]
    pub fn batch_index_acknowledgment(mut self, enabled: bool) -> Self {
        self.config.batch_index_acknowledgment = enabled;
        self
    }

    /// How keys are spread over the consumers of a Key_Shared subscription. Default: split by the broker, in order.
    #[must_use]
    pub fn key_shared_policy(mut self, policy: KeySharedPolicy) -> Self {
        self.config.key_shared = policy;
        self
    }

    /// Whether to read the compacted view of the topic (Exclusive and Failover only). Default: no.
    #[must_use]
    pub fn read_compacted(mut self, compacted: bool) -> Self {
        self.config.read_compacted = compacted;
        self
    }

    /// Whether the subscription's position is replicated to other clusters. Default: as it is.
    #[must_use]
    pub fn replicate_subscription_state(mut self, replicate: bool) -> Self {
        self.config.replicate_subscription_state = Some(replicate);
        self
    }

    /// Subscribes: to each topic, or to each of its partitions.
    ///
    /// # Errors
    /// An unusable option or topic name; what the broker refuses (unknown topic, no permission, a subscription that
    /// another consumer holds); [`TimedOut`](crate::ErrorKind::TimedOut), with the last cause, after the operation
    /// timeout.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was attached so far. A subscription that it made stays.
    pub async fn subscribe(self) -> Result<Consumer> {
        self.config.validate()?;
        let (names, parts) = self.parts().await?;
        let config = Arc::new(self.config_for(parts.len()));
        // It exists before the first answer, so that dropping this future closes what was attached.
        let shared = ConsumerShared::new(self.client.clone(), names, config);
        let mut opened = Vec::new();
        for (topic, partition) in parts {
            opened.push(shared.open_part(topic, partition)?);
        }
        for (_, subscribed) in opened {
            subscribed.await?;
        }
        Ok(Consumer::new(Arc::new(shared)))
    }

    /// The full names of the topics, and everything behind them that is attached by itself.
    async fn parts(&self) -> Result<(Vec<Arc<str>>, Vec<(Arc<str>, i32)>)> {
        let (mut names, mut parts) = (Vec::<Arc<str>>::new(), Vec::new());
        let Selection::Names(topics) = self.topics.selection();
        for name in topics {
            let topic = parse_topic(name)?;
            if names.iter().any(|known| **known == *topic.as_str()) {
                let what = format!("{topic} is named twice");
                return Err(Error::local(ErrorKind::InvalidArgument, what));
            }
            parts.extend(self.client.parts_of(&topic).await?);
            names.push(topic.as_str().into());
        }
        if names.is_empty() {
            return Err(Error::local(ErrorKind::InvalidArgument, "a consumer needs a topic"));
        }
        Ok((names, parts))
    }

    fn config_for(&self, parts: usize) -> ConsumerConfig {
        let mut config = self.config.clone();
        let parts = u32::try_from(parts).unwrap_or(u32::MAX).max(1);
        if config.receiver_queue_size > 0 {
            let share = (TOTAL_RECEIVER_QUEUE_SIZE_MAX / parts).max(1);
            // One partition has no others to share with.
            let max = if parts == 1 { u32::MAX } else { share };
            config.receiver_queue_size = config.receiver_queue_size.min(max);
        }
        config.consumer_name.get_or_insert_with(random_name);
        config
    }
}

/// Five letters, as the Java client names its consumers.
fn random_name() -> String {
    use std::hash::{BuildHasher, Hasher};
    let mut bits = std::collections::hash_map::RandomState::new().build_hasher().finish();
    let letter = |_| {
        let letter = b'a' + (bits % 26) as u8;
        bits /= 26;
        char::from(letter)
    };
    (0..5).map(letter).collect()
}

impl std::fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsumerBuilder")
            .field("topics", &self.topics)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
