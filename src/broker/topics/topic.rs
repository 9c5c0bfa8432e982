//! One topic: its log, its producers and its subscriptions.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::backlog::quota_exceeded;
use super::producers::TopicProducers;
use super::sequence_ids::SequenceIds;
use crate::broker::policies::{PolicySet, RateLimiter};
use crate::broker::refusal::refuse;
use crate::broker::storage::{CompactedLog, Log};
use crate::broker::subscription::Subscription;
use crate::pb::ServerError;
use crate::topic::TopicName;
use crate::wire::command::Refusal;

/// Subscriptions of one topic; one more gets NotAllowedError.
const SUBSCRIPTIONS_MAX: usize = 10_000;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: TopicName,
    /// What counts for it.
    pub(crate) policies: Arc<PolicySet>,
    pub(crate) log: Log,
    /// What `read_compacted` reads instead of the log below its horizon.
    pub(crate) compacted: CompactedLog,
    pub(crate) producers: TopicProducers,
    pub(crate) sequence_ids: SequenceIds,
    pub(crate) subscriptions: BTreeMap<Arc<str>, Subscription>,
    pub(crate) published: PublishCounters,
    /// When it was created, ms since 1970.
    pub(crate) created_ms: u64,
    /// No further messages are accepted.
    pub(crate) is_terminated: bool,
    pub(crate) publish_rate: RateLimiter,
    pub(crate) dispatch_rate: RateLimiter,
    /// Producers are held off until entries can be dropped.
    pub(crate) is_over_quota: bool,
}

impl Topic {
    pub(super) fn new(name: TopicName, ledger: i64, policies: Arc<PolicySet>) -> Self {
        Self {
            name,
            policies,
            log: Log::new(ledger),
            compacted: CompactedLog::default(),
            producers: TopicProducers::default(),
            sequence_ids: SequenceIds::default(),
            subscriptions: BTreeMap::new(),
            published: PublishCounters::default(),
            created_ms: 0,
            is_terminated: false,
            publish_rate: RateLimiter::default(),
            dispatch_rate: RateLimiter::default(),
            is_over_quota: false,
        }
    }

    /// The number in MESSAGE: of the partition, or −1.
    pub(crate) fn partition(&self) -> i32 {
        self.name.partition_index().and_then(|index| i32::try_from(index).ok()).unwrap_or(-1)
    }

    /// Whether it has producers, consumers or entries.
    pub(crate) fn is_in_use(&self) -> bool {
        self.log.len() > 0
            || self.producers.names().next().is_some()
            || self.subscriptions.values().any(|sub| !sub.consumers.is_empty())
    }

    /// Whether it may have one more subscription.
    pub(crate) fn check_new_subscription(&self) -> Result<(), Refusal> {
        let limit = self.policies.max_subscriptions_per_topic.filter(|limit| *limit > 0);
        if self.subscriptions.len() >= limit.map_or(SUBSCRIPTIONS_MAX, |limit| SUBSCRIPTIONS_MAX.min(limit as usize)) {
            let text = format!("Exceed the maximum number of subscriptions of the topic: {}", self.name);
            return Err(refuse(ServerError::NotAllowedError, text));
        }
        Ok(())
    }

    /// Whether it may have one more consumer, over all subscriptions.
    pub(crate) fn check_new_consumer(&self) -> Result<(), Refusal> {
        let Some(limit) = self.policies.max_consumers_per_topic.filter(|limit| *limit > 0) else { return Ok(()) };
        let consumers: usize = self.subscriptions.values().map(|sub| sub.consumers.len()).sum();
        if consumers >= limit as usize {
            return Err(refuse(ServerError::ConsumerBusy, "Topic reached max consumers limit"));
        }
        Ok(())
    }

    /// Whether it accepts messages.
    pub(crate) fn check_open(&self) -> Result<(), Refusal> {
        if self.is_terminated {
            return Err(refuse(ServerError::TopicTerminatedError, "Topic was already terminated"));
        }
        if self.is_over_quota {
            return Err(quota_exceeded(ServerError::ProducerBlockedQuotaExceededException));
        }
        Ok(())
    }

    /// Drops entries that every subscription has acknowledged; without a subscription, all. Returns the bytes freed.
    pub(super) fn trim(&mut self) -> usize {
        self.log.trim(self.acknowledged_end())
    }

    /// The first entry that a subscription has not acknowledged, or that the next compaction needs; where there is neither, the
    /// end.
    pub(super) fn acknowledged_end(&self) -> u64 {
        let marks = self.subscriptions.values().map(|sub| sub.cursor.mark_delete());
        marks.chain(self.compacted.needs_from()).min().unwrap_or(self.log.end())
    }
}

/// What was published since the topic was created.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PublishCounters {
    /// Members of a batch count one by one.
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl PublishCounters {
    pub(crate) fn count(&mut self, messages: u32, bytes: usize) {
        self.messages += u64::from(messages);
        self.bytes += bytes as u64;
    }
}
