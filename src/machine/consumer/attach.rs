//! SUBSCRIBE, and the attach and detach that follow it.

use super::application::cluster_changed;
use super::operations::Operation;
use super::seek::Seek;
use super::{Consumer, Deferred, KeySharedPolicy, Now, SubscriptionType, TopicStatus};
use crate::machine::Dirty;
use crate::pb;
use crate::schema::SchemaInfo;

impl Consumer {
    /// SUBSCRIBE, without its request id. The fields are the same each time but for `consumer_epoch`, and for where a
    /// subscription starts that is gone: that of a reader is each time.
    pub fn subscribe_request(&mut self, now: Now) -> pb::CommandSubscribe {
        self.lifecycle.set_opening();
        let config = &self.config;
        let again = config.recreated_position.filter(|_| self.lifecycle.was_attached());
        let initial_position = again.unwrap_or(config.initial_position);
        let has_key_shared_meta = match config.key_shared_policy {
            KeySharedPolicy::Sticky(_) => true,
            KeySharedPolicy::AutoSplit { .. } => config.subscription_type == SubscriptionType::KeyShared,
        };
        let mut subscribe = pb::CommandSubscribe {
            topic: self.topic.as_ref().to_owned(),
            subscription: config.subscription.clone(),
            sub_type: config.subscription_type.wire().into(),
            consumer_id: self.id.0,
            request_id: 0,
            consumer_name: config.name.clone().or_else(|| self.random_name.as_deref().map(str::to_owned)),
            priority_level: Some(config.priority_level),
            durable: Some(config.durable),
            start_message_id: None,
            metadata: pb::key_values(&config.properties),
            read_compacted: Some(config.read_compacted),
            schema: config.schema.as_ref().map(SchemaInfo::to_wire),
            initial_position: Some(initial_position.wire().into()),
            replicate_subscription_state: config.replicate_subscription_state,
            force_topic_creation: Some(config.force_topic_creation),
            start_message_rollback_duration_sec: None,
            key_shared_meta: has_key_shared_meta.then(|| config.key_shared_policy.wire()),
            subscription_properties: pb::key_values(&config.subscription_properties),
            consumer_epoch: Some(self.redelivery.epoch()),
        };
        if let Some(reading) = &mut self.reading {
            reading.fill(&mut subscribe, now);
        }
        subscribe
    }

    /// SUBSCRIBE succeeded: the broker knows nothing of an earlier attach but what it has stored. So permits and queue
    /// start anew (what was delivered and not acknowledged comes again), negative acknowledgements are void, and what
    /// waited for a connection or was not confirmed on the last one is sent. The subscription of a reader is another one.
    pub fn on_attached(&mut self, deferred: &mut Deferred) {
        if self.lifecycle.is_finished() {
            return;
        }
        self.dirty = Dirty::Now;
        self.queue.restart();
        match self.reading {
            Some(_) => self.acks.reset(),
            None => self.acks.on_attached(),
        }
        self.redelivery.reset();
        self.counters.on_attached();
        self.lifecycle.set_attached(deferred);
        if let Some(Operation::Seek { reply, .. }) = self.operations.on_attached() {
            self.seek.end();
            reply.send(Ok(()), deferred);
        }
    }

    /// The next attach is in another cluster, where positions of this one name other messages: acknowledgements that wait,
    /// unfinished batches and seeks are void. What the application still has of this cluster is not acknowledged in the
    /// other one.
    pub fn on_cluster_changed(&mut self, deferred: &mut Deferred) {
        if self.lifecycle.is_finished() {
            return;
        }
        self.cluster_number = self.cluster_number.checked_add(1).unwrap_or(1);
        if !mutation!(KeepAcksOfOtherCluster) {
            self.acks.reset();
        }
        self.redelivery.reset();
        self.chunked.reset();
        self.operations.fail_positions(&cluster_changed().with_topic(&self.topic), deferred);
        self.seek = Seek::default();
        self.forget_position();
        self.topic_status = TopicStatus::default();
    }

    /// The open failed, the connection was lost, or the broker closed this consumer. What is queued may still be
    /// taken until the next attach.
    pub fn on_detached(&mut self, deferred: &mut Deferred) {
        if self.lifecycle.is_finished() {
            return;
        }
        self.dirty = Dirty::Now;
        self.redelivery.reset();
        self.stall.on_detached();
        self.operations.drop_stall_checks();
        if self.lifecycle.is_attached() {
            self.acks.on_connection_lost(self.lifecycle.is_stopped());
        }
        self.lifecycle.set_detached();
        if self.lifecycle.is_close_sent() {
            // Whatever the reason, the broker has no such consumer any more.
            return self.finish(Ok(()), deferred);
        }
        self.finish_if_closed_while_detached(deferred);
        // The broker gives the topic to another one.
        if !self.lifecycle.is_finished() && self.is_active() == Some(true) {
            self.on_active_change(false, deferred);
        }
    }
}
