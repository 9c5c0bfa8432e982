//! The values of policies, with the names of Pulsar's admin API.

use std::fmt;
use std::str::FromStr;

/// Declares an enum whose values have names in the admin API, with both ways between them.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$value_doc])* $value,)+
        }

        impl $name {
            /// Every value, in the order of the admin API.
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            /// The name in the admin API.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        /// From the name in the admin API; the error is the text that is none.
        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text).ok_or_else(|| text.to_owned())
            }
        }
    };
}

named! {
    /// What a [`BacklogQuota`] measures.
    BacklogQuotaType {
        /// Bytes of the entries that the slowest subscription has not acknowledged.
        DestinationStorage = "destination_storage",
        /// The age of the oldest entry that the slowest subscription has not acknowledged.
        MessageAge = "message_age",
    }
}

named! {
    /// What happens once a [`BacklogQuota`] is exceeded.
    BacklogQuotaPolicy {
        /// Producers are closed, and refused with ProducerBlockedQuotaExceededError: clients hold what they have to send.
        ProducerRequestHold = "producer_request_hold",
        /// Producers are closed, and refused with ProducerBlockedQuotaExceededException: clients fail what they have to send.
        ProducerException = "producer_exception",
        /// The oldest messages count as acknowledged, for every subscription, until the backlog is within the quota.
        ConsumerBacklogEviction = "consumer_backlog_eviction",
    }
}

named! {
    /// What a new version of a schema has to fit.
    SchemaCompatibilityStrategy {
        /// That of the level above; at the broker's, [`Full`](Self::Full).
        Undefined = "UNDEFINED",
        /// No new version is taken.
        AlwaysIncompatible = "ALWAYS_INCOMPATIBLE",
        /// Any new version is taken, also one of another type.
        AlwaysCompatible = "ALWAYS_COMPATIBLE",
        /// Consumers with the new version read what was written with the latest one.
        Backward = "BACKWARD",
        /// Consumers with the latest version read what is written with the new one.
        Forward = "FORWARD",
        /// Both [`Backward`](Self::Backward) and [`Forward`](Self::Forward).
        Full = "FULL",
        /// [`Backward`](Self::Backward), for all versions so far.
        BackwardTransitive = "BACKWARD_TRANSITIVE",
        /// [`Forward`](Self::Forward), for all versions so far.
        ForwardTransitive = "FORWARD_TRANSITIVE",
        /// [`Full`](Self::Full), for all versions so far.
        FullTransitive = "FULL_TRANSITIVE",
    }
}

named! {
    /// What a role may be let do, besides what super users may.
    AuthAction {
        /// Attach producers.
        Produce = "produce",
        /// Attach consumers.
        Consume = "consume",
        /// Run functions. This broker runs none.
        Functions = "functions",
        /// Run sources. This broker runs none.
        Sources = "sources",
        /// Run sinks. This broker runs none.
        Sinks = "sinks",
        /// Manage packages. This broker has none.
        Packages = "packages",
    }
}

named! {
    /// Which topics without producers and consumers are inactive.
    InactiveTopicDeleteMode {
        /// Without subscriptions.
        DeleteWhenNoSubscriptions = "delete_when_no_subscriptions",
        /// With nothing left to deliver to its subscriptions.
        DeleteWhenSubscriptionsCaughtUp = "delete_when_subscriptions_caught_up",
    }
}

/// What of the acknowledged messages is kept. They are dropped once one of the limits is passed; −1: no limit. Both 0: nothing
/// is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetentionPolicies {
    /// Age, minutes.
    pub retention_time_in_minutes: i32,
    /// Size, MiB.
    pub retention_size_in_mb: i64,
}

impl RetentionPolicies {
    /// By age in minutes, and by size in MiB.
    #[must_use]
    pub const fn new(retention_time_in_minutes: i32, retention_size_in_mb: i64) -> Self {
        Self { retention_time_in_minutes, retention_size_in_mb }
    }
}

/// A limit on what the slowest subscription of a topic has not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BacklogQuota {
    /// Of [`BacklogQuotaType::DestinationStorage`]: bytes. Negative: none.
    pub limit_size: i64,
    /// Of [`BacklogQuotaType::MessageAge`]: seconds. 0 and negative: none.
    pub limit_time: i32,
    /// What happens beyond it.
    pub policy: BacklogQuotaPolicy,
}

impl BacklogQuota {
    /// A limit of bytes.
    #[must_use]
    pub const fn new(limit_size: i64, policy: BacklogQuotaPolicy) -> Self {
        Self { limit_size, limit_time: -1, policy }
    }

    /// A limit of seconds.
    #[must_use]
    pub const fn of_age(limit_time: i32, policy: BacklogQuotaPolicy) -> Self {
        Self { limit_size: -1, limit_time, policy }
    }
}

/// Whether messages may be delayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DelayedDelivery {
    /// If not, they are delivered at once.
    pub active: bool,
    /// How exact the time of delivery is, ms. No effect: it is exact.
    pub tick_time: u64,
    /// How long a message may be delayed, ms; one that asks for more is refused. 0: no limit.
    pub max_delivery_delay_in_millis: u64,
}

impl DelayedDelivery {
    /// On or off, exact to a second, without a limit.
    #[must_use]
    pub const fn new(active: bool) -> Self {
        Self { active, tick_time: 1_000, max_delivery_delay_in_millis: 0 }
    }
}

/// A limit on publishing; 0 and negative: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishRate {
    /// Messages a second.
    pub publish_throttling_rate_in_msg: i32,
    /// Bytes a second.
    pub publish_throttling_rate_in_byte: i64,
}

impl PublishRate {
    /// By messages and by bytes a second.
    #[must_use]
    pub const fn new(publish_throttling_rate_in_msg: i32, publish_throttling_rate_in_byte: i64) -> Self {
        Self { publish_throttling_rate_in_msg, publish_throttling_rate_in_byte }
    }
}

/// A limit on delivery; 0 and negative: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DispatchRate {
    /// Messages in a period.
    pub dispatch_throttling_rate_in_msg: i32,
    /// Bytes in a period.
    pub dispatch_throttling_rate_in_byte: i64,
    /// Whether what is published adds to the limit. No effect.
    pub relative_to_publish_rate: bool,
    /// The period, seconds.
    pub rate_period_in_second: i32,
}

impl DispatchRate {
    /// By messages and by bytes a second.
    #[must_use]
    pub const fn new(dispatch_throttling_rate_in_msg: i32, dispatch_throttling_rate_in_byte: i64) -> Self {
        Self {
            dispatch_throttling_rate_in_msg,
            dispatch_throttling_rate_in_byte,
            relative_to_publish_rate: false,
            rate_period_in_second: 1,
        }
    }
}

/// When inactive topics are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct InactiveTopicPolicies {
    /// Which topics are inactive.
    pub inactive_topic_delete_mode: InactiveTopicDeleteMode,
    /// Time without producers and consumers, seconds.
    pub max_inactive_duration_seconds: i32,
    /// Whether a topic is deleted after that time.
    pub delete_while_inactive: bool,
}

impl InactiveTopicPolicies {
    /// All three of them.
    #[must_use]
    pub const fn new(
        inactive_topic_delete_mode: InactiveTopicDeleteMode,
        max_inactive_duration_seconds: i32,
        delete_while_inactive: bool,
    ) -> Self {
        Self { inactive_topic_delete_mode, max_inactive_duration_seconds, delete_while_inactive }
    }
}

/// How entries are replicated over bookies.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct PersistencePolicies {
    /// Bookies of a ledger.
    pub bookkeeper_ensemble: i32,
    /// Copies of an entry.
    pub bookkeeper_write_quorum: i32,
    /// Copies to wait for.
    pub bookkeeper_ack_quorum: i32,
    /// Acknowledgements stored in a second; 0: no limit.
    pub managed_ledger_max_mark_delete_rate: f64,
}

impl PersistencePolicies {
    /// Without a limit on acknowledgements.
    #[must_use]
    pub const fn new(bookkeeper_ensemble: i32, bookkeeper_write_quorum: i32, bookkeeper_ack_quorum: i32) -> Self {
        Self {
            bookkeeper_ensemble,
            bookkeeper_write_quorum,
            bookkeeper_ack_quorum,
            managed_ledger_max_mark_delete_rate: 0.0,
        }
    }
}

/// Whether and how topics are created when they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AutoTopicCreation {
    /// Whether they are.
    pub allow_auto_topic_creation: bool,
    /// Of partitioned topics the number of partitions; `None`: they are not partitioned.
    pub default_num_partitions: Option<u32>,
}

impl AutoTopicCreation {
    /// On or off, without partitions.
    #[must_use]
    pub const fn new(allow_auto_topic_creation: bool) -> Self {
        Self { allow_auto_topic_creation, default_num_partitions: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_shown() {
        for strategy in SchemaCompatibilityStrategy::ALL {
            assert_eq!(strategy.to_string().parse(), Ok(*strategy));
        }
        assert_eq!("message_age".parse(), Ok(BacklogQuotaType::MessageAge));
        assert_eq!("full".parse::<SchemaCompatibilityStrategy>(), Err("full".to_owned()));
    }
}
