//! What the broker does on its own by the policies of topics: time to live, backlog quotas, retention.
//!
//! A real broker looks every minute (quotas), every two (retention) and every five (time to live); this one each
//! [`policy_check_interval`](crate::broker::EmbeddedBrokerBuilder::policy_check_interval), and when its clock is moved ahead. While
//! no topic can have such a policy it does not look at all.

use std::sync::Arc;

use crate::broker::machine::{Broker, BrokerTimer};
use crate::broker::policies::BacklogQuotaPolicy;
use crate::broker::topics::Topic;

impl Broker {
    /// Sets the timer of the next check, if there can be something to check and none is set.
    pub(in crate::broker) fn plan_policy_check(&mut self) {
        if !self.checks_policies && self.policies.need_checks() {
            self.checks_policies = true;
            self.set_timer(self.config.policy_check_interval, BrokerTimer::PolicyCheck);
        }
    }

    pub(in crate::broker) fn on_policy_check(&mut self) {
        self.checks_policies = false;
        self.enforce_policies();
        self.plan_policy_check();
    }

    /// Does what is due by the policies of all topics now.
    pub(in crate::broker) fn enforce_policies(&mut self) {
        if !self.policies.need_checks() {
            return;
        }
        for topic in self.topics.keys() {
            let Some(found) = self.topics.get_mut(&topic) else { continue };
            let ttl_ms = found.policies.message_ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
            let mut has_moved = ttl_ms > 0 && found.expire(self.now.wall_ms, ttl_ms);
            has_moved |= self.enforce_quota(&topic);
            self.topics.apply_retention(&topic, self.now.wall_ms);
            if has_moved {
                self.dispatch(&topic, None);
            }
        }
    }

    /// Does what an exceeded backlog quota asks for. True if a subscription has moved.
    fn enforce_quota(&mut self, topic: &Arc<str>) -> bool {
        let now_ms = self.now.wall_ms;
        let Some(found) = self.topics.get_mut(topic) else { return false };
        let Some((kind, quota)) = found.exceeded_quota(now_ms) else { return false };
        if quota.policy == BacklogQuotaPolicy::ConsumerBacklogEviction {
            return found.evict_backlog(kind, quota, now_ms);
        }
        for key in found.producers.keys() {
            self.close_producer(topic, key, None);
        }
        false
    }

    /// Messages of a subscription that were stored more than `older_than_ms` ago count as acknowledged, as after
    /// `POST …/subscription/{name}/expireMessages/{seconds}`; of all subscriptions without a name. False if there is no such
    /// topic or subscription.
    pub fn expire_messages(&mut self, topic: &str, subscription: Option<&str>, older_than_ms: u64) -> bool {
        let mut is_known = false;
        for topic in self.topics.resolve(topic) {
            let now_ms = self.now.wall_ms;
            let Some(Topic { log, subscriptions, .. }) = self.topics.get_mut(&topic) else { continue };
            for (name, sub) in subscriptions.iter_mut() {
                if subscription.is_none_or(|subscription| subscription == &**name) {
                    is_known = true;
                    sub.expire(log, now_ms, older_than_ms);
                }
            }
            self.dispatch(&topic, None);
        }
        is_known
    }
}
