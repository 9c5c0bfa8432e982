//! What a topic still keeps for its subscriptions, and for how long: time to live, backlog quotas, retention.

use super::Topic;
use crate::broker::policies::{BacklogQuota, BacklogQuotaPolicy, BacklogQuotaType, RetentionPolicies};
use crate::broker::refusal::{QUOTA_EXCEEDED_EXCEPTION, refuse};
use crate::pb::ServerError;
use crate::wire::command::Refusal;

const BYTES_PER_MB: u64 = 1024 * 1024;

impl Topic {
    /// Messages stored more than `ttl_ms` ago count as acknowledged. True if that moved a subscription.
    pub(crate) fn expire(&mut self, now_ms: u64, ttl_ms: u64) -> bool {
        let mut has_moved = false;
        for sub in self.subscriptions.values_mut() {
            has_moved |= sub.expire(&self.log, now_ms, ttl_ms);
        }
        has_moved
    }

    /// The first entry that the slowest durable subscription has not acknowledged; `None` without such a subscription, which
    /// means that there is no backlog.
    fn backlog_start(&self) -> Option<u64> {
        let durable = self.subscriptions.values().filter(|sub| sub.is_durable());
        durable.map(|sub| sub.cursor.mark_delete()).min()
    }

    /// Bytes of the entries from the first one that the slowest durable subscription has not acknowledged.
    pub(crate) fn backlog_bytes(&self) -> u64 {
        self.backlog_start().map_or(0, |start| self.log.bytes_from(start))
    }

    /// The backlog quota that is exceeded, that on bytes first.
    pub(crate) fn exceeded_quota(&self, now_ms: u64) -> Option<(BacklogQuotaType, BacklogQuota)> {
        let is_exceeded = |kind: BacklogQuotaType, quota: &BacklogQuota| match kind {
            BacklogQuotaType::DestinationStorage => {
                u64::try_from(quota.limit_size).is_ok_and(|limit| self.backlog_bytes() >= limit)
            }
            BacklogQuotaType::MessageAge => {
                let oldest = self.backlog_start().and_then(|start| self.log.get(start.max(self.log.first())));
                let limit_ms = u64::try_from(quota.limit_time).unwrap_or(0) * 1000;
                limit_ms > 0 && oldest.is_some_and(|entry| entry.stored_ms.saturating_add(limit_ms) < now_ms)
            }
        };
        let exceeded = self.policies.backlog_quotas.iter().find(|(kind, quota)| is_exceeded(**kind, quota));
        exceeded.map(|(kind, quota)| (*kind, *quota))
    }

    /// Whether the backlog quota lets one more producer in.
    pub(crate) fn check_backlog(&self, now_ms: u64) -> Result<(), Refusal> {
        let code = match self.exceeded_quota(now_ms).map(|(_, quota)| quota.policy) {
            None | Some(BacklogQuotaPolicy::ConsumerBacklogEviction) => return Ok(()),
            Some(BacklogQuotaPolicy::ProducerRequestHold) => ServerError::ProducerBlockedQuotaExceededError,
            Some(BacklogQuotaPolicy::ProducerException) => ServerError::ProducerBlockedQuotaExceededException,
        };
        Err(quota_exceeded(code))
    }

    /// The oldest messages count as acknowledged until about nine tenths of the quota are left, as on a real broker. True if that
    /// moved a subscription.
    pub(crate) fn evict_backlog(&mut self, kind: BacklogQuotaType, quota: BacklogQuota, now_ms: u64) -> bool {
        if kind == BacklogQuotaType::MessageAge {
            return self.expire(now_ms, u64::try_from(quota.limit_time).unwrap_or(0) * 900);
        }
        let target = u64::try_from(quota.limit_size).unwrap_or(0) / 10 * 9;
        let Some(start) = self.backlog_start().map(|start| start.max(self.log.first())) else { return false };
        // As many as there are on average in the bytes that are too many.
        let (bytes, entries) = (u128::from(self.log.bytes_from(start)), u128::from(self.log.end() - start));
        let skipped = (entries * bytes.saturating_sub(target.into())).checked_div(bytes).unwrap_or(0);
        for sub in self.subscriptions.values_mut() {
            sub.acknowledge_below(start + skipped as u64, None);
        }
        true
    }

    /// Drops what every subscription has acknowledged and no retention keeps; returns the bytes freed.
    pub(super) fn apply_retention(&mut self, now_ms: u64) -> usize {
        let Some(RetentionPolicies { retention_time_in_minutes, retention_size_in_mb }) = self.policies.retention
        else {
            return 0;
        };
        let keep_ms = u64::try_from(retention_time_in_minutes).map_or(u64::MAX, |minutes| minutes * 60_000);
        let keep_bytes = u64::try_from(retention_size_in_mb).map_or(u64::MAX, |mb| mb.saturating_mul(BYTES_PER_MB));
        let acknowledged = self.acknowledged_end();
        let (mut end, mut bytes) = (self.log.first(), self.log.bytes() as u64);
        while let Some(entry) = self.log.get(end).filter(|_| end < acknowledged) {
            if entry.stored_ms.saturating_add(keep_ms) > now_ms && bytes <= keep_bytes {
                break;
            }
            bytes -= entry.bytes.len() as u64;
            end += 1;
        }
        self.log.trim(end)
    }
}

/// How a topic whose backlog is too large refuses producers.
pub(super) fn quota_exceeded(code: ServerError) -> Refusal {
    refuse(code, format!("{QUOTA_EXCEEDED_EXCEPTION}Cannot create producer on topic with backlog quota exceeded"))
}
