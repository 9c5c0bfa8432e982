//! Where messages go that could not be processed, and when.

use std::fmt;
use std::sync::Arc;

use crate::client::ProducerBuilder;
use crate::error::{Error, ErrorKind, Result};
use crate::machine::consumer::SubscriptionType;
use crate::topic::TopicName;

/// Changes the options of a producer before it is created.
pub(super) type ProducerOptions = Arc<dyn Fn(ProducerBuilder) -> ProducerBuilder + Send + Sync>;

/// How the dead-letter and the retry topic of a subscription are named where they are not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DeadLetterNames {
    /// `<topic>-<subscription>-DLQ` and `-RETRY`, as Java since 2.8, and Tencent TDMQ clusters of 2.9.
    #[default]
    TopicAndSubscription,
    /// `<subscription>-DLQ` and `-RETRY` in the namespace of the topic, as Java before, and TDMQ clusters of 2.7.
    Subscription,
    /// `<subscription>-dlq` and `-retry` in the namespace of the topic, as TDMQ clusters of 2.6.
    SubscriptionLowerCase,
}

impl DeadLetterNames {
    /// The name for a topic, which is no partition.
    pub(super) fn name(self, kind: LetterKind, topic: &TopicName, subscription: &str) -> String {
        let suffix = match (self, kind) {
            (Self::SubscriptionLowerCase, LetterKind::Dead) => "dlq",
            (Self::SubscriptionLowerCase, LetterKind::Retry) => "retry",
            (_, LetterKind::Dead) => "DLQ",
            (_, LetterKind::Retry) => "RETRY",
        };
        match self {
            Self::TopicAndSubscription => format!("{}-{subscription}-{suffix}", topic.as_str()),
            Self::Subscription | Self::SubscriptionLowerCase => {
                let domain = if topic.is_persistent() { "persistent" } else { "non-persistent" };
                format!("{domain}://{}/{subscription}-{suffix}", topic.namespace())
            }
        }
    }
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LetterKind {
    Dead,
    Retry,
}

/// When a message is given up, and which topic it goes to then: see
/// [`ConsumerBuilder::dead_letter_policy`](crate::ConsumerBuilder::dead_letter_policy). Java: `DeadLetterPolicy`.
///
/// ```
/// use pulsar_native::DeadLetterPolicy;
///
/// let policy = DeadLetterPolicy::new(3)
///     .with_dead_letter_topic("persistent://public/default/poison")
///     .with_initial_subscription("operators");
/// ```
#[derive(Clone)]
#[must_use = "a policy does nothing until a consumer has it"]
pub struct DeadLetterPolicy {
    pub(super) max_redeliver_count: u32,
    pub(super) dead_letter_topic: Option<String>,
    pub(super) retry_letter_topic: Option<String>,
    pub(super) names: DeadLetterNames,
    pub(super) initial_subscription: Option<String>,
    pub(super) takes_unreadable: bool,
    pub(super) dead_letter_producer: Option<ProducerOptions>,
    pub(super) retry_letter_producer: Option<ProducerOptions>,
}

impl Default for DeadLetterPolicy {
    /// Java's where retry is enabled without a policy: 16 redeliveries, and the names of the topics by default.
    fn default() -> Self {
        Self::new(16)
    }
}

impl DeadLetterPolicy {
    /// Gives a message up after so many redeliveries, so after one delivery more; at least 1. The same number bounds how
    /// often [`reconsume_later`](crate::Consumer::reconsume_later) sends a message to the retry topic.
    pub fn new(max_redeliver_count: u32) -> Self {
        Self {
            max_redeliver_count,
            dead_letter_topic: None,
            retry_letter_topic: None,
            names: DeadLetterNames::default(),
            initial_subscription: None,
            takes_unreadable: false,
            dead_letter_producer: None,
            retry_letter_producer: None,
        }
    }

    /// The dead-letter topic. Default: named by [`names`](Self::with_names), for each topic of the consumer its own; with
    /// retry enabled, that of the first topic.
    pub fn with_dead_letter_topic(mut self, topic: impl Into<String>) -> Self {
        self.dead_letter_topic = Some(topic.into());
        self
    }

    /// The retry topic. Default: named by [`names`](Self::with_names), after the first topic of the consumer.
    #[doc(alias = "retryLetterTopic")]
    pub fn with_retry_letter_topic(mut self, topic: impl Into<String>) -> Self {
        self.retry_letter_topic = Some(topic.into());
        self
    }

    /// How topics are named that are not given. Default: [`DeadLetterNames::TopicAndSubscription`]; with retry enabled, a
    /// topic that exists under the older name of [`DeadLetterNames::Subscription`] is used instead, as Java does.
    pub fn with_names(mut self, names: DeadLetterNames) -> Self {
        self.names = names;
        self
    }

    /// A durable subscription that the dead-letter topic is created with, so that no dead letter is dropped for want of
    /// one (`initial_subscription_name` of PRODUCER, since 2.9; older brokers ignore it). Default: none.
    #[doc(alias = "initialSubscriptionName")]
    pub fn with_initial_subscription(mut self, subscription: impl Into<String>) -> Self {
        self.initial_subscription = Some(subscription.into());
        self
    }

    /// Whether a message that cannot be read goes to the dead-letter topic too, with its first delivery: one that this client
    /// does not support (encrypted, a chunk, a codec that this build lacks, too large), and one whose bytes do not
    /// decompress, or are no batch. Its payload is the stored one: a whole entry, encrypted, compressed or an undivided
    /// batch, for which reading fails in the dead-letter topic as well unless something takes it apart. The property
    /// `DEAD_LETTER_REASON` says why it could not be read, `UNREADABLE_METADATA` is the serialized `MessageMetadata` in base64;
    /// key and properties are those of the entry. It is acknowledged once it is stored there, and if it is not, it comes again.
    ///
    /// It goes before [`UnreadableMessagePolicy::Acknowledge`](crate::UnreadableMessagePolicy); the event
    /// [`Unreadable`](crate::ConsumerEvent::Unreadable) comes as well for what this client does not support. An entry
    /// whose checksum is wrong was changed on its way: it is acknowledged with its error, and no letter. Default: false. Java
    /// has no such option.
    pub fn with_unreadable(mut self, takes: bool) -> Self {
        self.takes_unreadable = takes;
        self
    }

    /// Options of the producer on the dead-letter topic (PIP-409), applied behind those it has by default: no batches, a
    /// name made of topic, subscription, consumer and five random letters, the schema of the consumer, and on persistent
    /// topics [chunks](ProducerBuilder::chunking), because the properties that a letter adds, some hundred bytes, make a message
    /// too large that is just below the broker's `maxMessageSize`. Without chunks such a dead letter is sent with the
    /// properties of the message alone.
    pub fn with_dead_letter_producer(
        mut self,
        options: impl Fn(ProducerBuilder) -> ProducerBuilder + Send + Sync + 'static,
    ) -> Self {
        self.dead_letter_producer = Some(Arc::new(options));
        self
    }

    /// The same for the producer on the retry topic. Without chunks a retry of a message that the added properties make too
    /// large fails with [`MessageTooLarge`](ErrorKind::MessageTooLarge), because its count of retries is one of them; the message
    /// is not acknowledged.
    pub fn with_retry_letter_producer(
        mut self,
        options: impl Fn(ProducerBuilder) -> ProducerBuilder + Send + Sync + 'static,
    ) -> Self {
        self.retry_letter_producer = Some(Arc::new(options));
        self
    }

    /// Checks it against the other options of a consumer.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], naming what is wrong.
    pub(in crate::client) fn validate(&self, subscription_type: SubscriptionType, retries: bool) -> Result<()> {
        let refuse = |why: String| Err(Error::local(ErrorKind::InvalidArgument, format!("dead_letter_policy: {why}")));
        if self.max_redeliver_count == 0 {
            return refuse("the number of redeliveries must be at least 1".to_owned());
        }
        if subscription_type.is_in_order() && !retries {
            let why = "brokers count redeliveries on Shared and Key_Shared subscriptions only; on others it needs \
                       retry_enabled, which counts by itself";
            return refuse(why.to_owned());
        }
        for topic in [&self.dead_letter_topic, &self.retry_letter_topic].into_iter().flatten() {
            if let Err(error) = TopicName::parse(topic) {
                return refuse(error.to_string());
            }
        }
        match self.initial_subscription.as_deref().is_some_and(|name| name.trim().is_empty()) {
            true => refuse("the initial subscription must not be blank".to_owned()),
            false => Ok(()),
        }
    }
}

impl fmt::Debug for DeadLetterPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetterPolicy")
            .field("max_redeliver_count", &self.max_redeliver_count)
            .field("dead_letter_topic", &self.dead_letter_topic)
            .field("retry_letter_topic", &self.retry_letter_topic)
            .field("names", &self.names)
            .field("initial_subscription", &self.initial_subscription)
            .field("takes_unreadable", &self.takes_unreadable)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_releases() {
        let topic = TopicName::parse("persistent://t/n/orders").expect("a topic");
        let name = |names: DeadLetterNames, kind| names.name(kind, &topic, "s");
        for (names, dead, retry) in [
            (DeadLetterNames::TopicAndSubscription, "orders-s-DLQ", "orders-s-RETRY"),
            (DeadLetterNames::Subscription, "s-DLQ", "s-RETRY"),
            (DeadLetterNames::SubscriptionLowerCase, "s-dlq", "s-retry"),
        ] {
            assert_eq!(name(names, LetterKind::Dead), format!("persistent://t/n/{dead}"));
            assert_eq!(name(names, LetterKind::Retry), format!("persistent://t/n/{retry}"));
        }
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let refused = |policy: DeadLetterPolicy, kind, retries| {
            let error = policy.validate(kind, retries).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            error.to_string()
        };
        let (shared, exclusive) = (SubscriptionType::Shared, SubscriptionType::Exclusive);
        assert!(refused(DeadLetterPolicy::new(0), shared, false).contains("at least 1"));
        assert!(refused(DeadLetterPolicy::new(1), exclusive, false).contains("retry_enabled"));
        assert!(refused(DeadLetterPolicy::new(1).with_dead_letter_topic("a/b"), shared, false).contains("a/b"));
        assert!(refused(DeadLetterPolicy::new(1).with_initial_subscription(" "), shared, true).contains("blank"));
        assert!(DeadLetterPolicy::new(1).validate(exclusive, true).is_ok());
    }
}
