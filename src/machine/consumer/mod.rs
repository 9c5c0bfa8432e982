//! The machine of a consumer of one topic or partition: its queue, permits, acknowledgements and redelivery.
//!
//! It decides what is written to the broker and when; it reads no clock, owns no connection and opens no batch. Entries
//! arrive in runs under one lock and leave as a whole queue under one lock; the handle opens them on the user's task. A
//! lost connection ends nothing: the consumer is detached and attached again, with the acknowledgements and operations
//! that wait. The order of calls is that of every [endpoint machine](crate::machine::EndpointMachine).
//!
//! | file | what |
//! | --- | --- |
//! | `application` | what the application asks: take, acknowledge, seek |
//! | `endpoint` | the face to the session and the supervisor, as of every endpoint |
//! | `attach` | SUBSCRIBE, attached, detached |
//! | `delivery` | MESSAGE: what of it is queued |
//! | `responses` | responses and notifications of the broker |
//! | `transmit`, `deadlines` | what is written, in which order; what is due |
//! | `lifecycle` | the state of the attachment, close, failure |
//! | `queue`, `permits` | entries that wait to be taken, and the ledger of their permits |
//! | `acks` | acknowledgements that wait to be written, batches acknowledged in part |
//! | `redelivery` | what is requested again: negative acknowledgements, acknowledgement timeouts, rewinds |
//! | `delayed`, `backoff` | entries that wait for that; for how long |
//! | `assembly`, `chunked` | chunks become messages; the entries of such a message, which are acknowledged together |
//! | `reading` | readers: where a subscription that is not durable begins |
//! | `operations`, `seek` | requests that wait for the broker's response |
//! | `entry`, `position` | one delivered entry, read without the consumer; its place in the topic |
//! | `stats`, `idle`, `stall` | what is counted; why nothing comes, and noticing that |
//! | `config` | the options |

use crate::error::Error;
use crate::machine::Dirty;
use crate::machine::endpoint::attach_status::AttachStatus;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::receive_memory::ReceiveBudget;
use super::{Deadline, Deferred, EndpointId, Now, ReplyTo};
use crate::id::ConsumerId;

mod acks;
mod application;
mod assembly;
mod attach;
mod backoff;
mod chunked;
mod config;
mod deadlines;
mod delayed;
mod delivery;
mod endpoint;
mod entry;
mod idle;
mod lifecycle;
mod operations;
mod permits;
mod position;
mod queue;
mod reading;
mod redelivery;
mod responses;
mod scaling;
mod seek;
mod stall;
mod stats;
mod transmit;

pub use assembly::{Assembled, Assembly, Chunk, ChunkLimits, Dropped, IncompleteReason, Step};
pub use backoff::RedeliveryBackoff;
pub use config::{
    ACK_TIMEOUT_MIN, ConsumerConfig, InitialPosition, KeySharedPolicy, NACK_REDELIVERY_DELAY_MIN,
    RECEIVER_QUEUE_SIZE_MAX, SubscriptionType, UnreadableMessagePolicy,
};
pub use entry::{EntryBody, ReceivedEntry};
pub use idle::IdleReason;
#[cfg(feature = "client")]
pub(crate) use idle::SubscriptionView;
pub use operations::LastMessageId;
pub use permits::ReturnedPermits;
pub use queue::{QueueSignals, Taken, TopicObserver};
pub use reading::ReadTo;
pub use seek::SeekTo;
pub use stats::ConsumerStats;

use acks::{AckPolicy, Acks};
use chunked::ChunkedMessages;
use lifecycle::ConsumerLifecycle;
use operations::Operations;
use queue::Queue;
use reading::Reading;
use redelivery::Redelivery;
use seek::Seek;
use stall::StallWatch;
use stats::ReceiveCounters;

/// The most ids of one confirmed acknowledgement: they travel in one frame.
pub const CONFIRMED_IDS_MAX: usize = 10_000;

/// The machine of one consumer.
#[derive(Debug)]
pub struct Consumer {
    id: ConsumerId,
    topic: Arc<str>,
    partition: i32,
    config: Arc<ConsumerConfig>,
    /// Its name, where the options have none.
    random_name: Option<Arc<str>>,
    lifecycle: ConsumerLifecycle,
    attach_status: AttachStatus,
    queue: Queue,
    acks: Acks,
    redelivery: Redelivery,
    chunked: ChunkedMessages,
    operations: Operations,
    seek: Seek,
    /// Its position, if it is a reader.
    reading: Option<Box<Reading>>,
    topic_status: TopicStatus,
    counters: ReceiveCounters,
    stall: StallWatch,
    /// How many clusters it has been in, the present one included: see [`MessagePosition::cluster_number`](crate::id::MessagePosition::cluster_number).
    cluster_number: u32,
    /// No permits are granted.
    is_paused: bool,
    /// What inputs gave the owner to do since it was last asked.
    dirty: Dirty,
}

/// What the broker has notified.
#[derive(Debug, Default)]
struct TopicStatus {
    /// Failover: whether this consumer is the active one.
    is_active: Option<bool>,
    has_reached_end: bool,
}

impl Consumer {
    /// A consumer that is to be attached. `partition` is -1 for a topic that is not partitioned. `subscribed` is
    /// answered by the first attach, or with the error that ends it, at the latest after `operation_timeout`.
    pub fn new(
        id: ConsumerId,
        topic: Arc<str>,
        partition: i32,
        config: Arc<ConsumerConfig>,
        signals: QueueSignals,
        subscribed: ReplyTo<()>,
        now: Now,
    ) -> Self {
        let deadline = Deadline::after(now, config.operation_timeout, "subscribing");
        Self {
            id,
            partition,
            lifecycle: ConsumerLifecycle::new(subscribed, deadline),
            attach_status: AttachStatus::new(now),
            queue: Queue::new(config.receiver_queue_size, config.receiver_queue_size_max, signals),
            acks: Acks::new(AckPolicy::new(&topic, &config)),
            redelivery: Redelivery::new(&config),
            chunked: ChunkedMessages::default(),
            operations: Operations::default(),
            seek: Seek::default(),
            reading: (!config.durable).then(|| Box::new(Reading::new())),
            topic_status: TopicStatus::default(),
            counters: ReceiveCounters::default(),
            stall: StallWatch::new(config.stall_timeout),
            cluster_number: 1,
            is_paused: false,
            dirty: Dirty::Now,
            topic,
            config,
            random_name: None,
        }
    }

    /// The name it has where the options have none. To be called before it is attached.
    pub fn set_random_name(&mut self, name: Option<Arc<str>>) {
        self.random_name = name;
    }

    /// Entries that wait count against `budget`, if there is one. To be called before it is attached.
    pub fn set_receive_budget(&mut self, budget: Option<Arc<ReceiveBudget>>) {
        self.queue.set_budget(budget);
    }

    /// The counter that moves when what was taken from the queue is void.
    pub fn queue_epoch(&self) -> Arc<AtomicU64> {
        self.queue.epoch_counter()
    }

    /// `consumer_id` of the protocol.
    pub fn id(&self) -> ConsumerId {
        self.id
    }

    /// The topic, or partition of one, that it reads.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The index of the partition, -1 for a topic that is not partitioned.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Whether it is subscribed at a broker at the moment.
    pub fn is_attached(&self) -> bool {
        self.lifecycle.is_attached()
    }

    /// Why it is not attached: the failure of the last attempt. `None` while it is attached, and before the first
    /// attempt has failed.
    pub fn last_failure(&self) -> Option<&Error> {
        self.attach_status.last_failure()
    }

    /// Whether it was closed, and may still have something to send.
    pub fn is_closing(&self) -> bool {
        self.lifecycle.is_closing() && !self.lifecycle.is_finished()
    }

    /// Whether it is closed or failed, so that its owner can forget it.
    pub fn is_finished(&self) -> bool {
        self.lifecycle.is_finished()
    }

    /// Whether nothing is left to close at the broker: it was closed or unsubscribed.
    pub fn is_closed_at_broker(&self) -> bool {
        self.lifecycle.is_closed_at_broker()
    }

    /// Failover: whether this consumer is the one that gets the messages; `None` before the broker has said so.
    pub fn is_active(&self) -> Option<bool> {
        self.topic_status.is_active
    }

    /// The topic was terminated and everything in it is acknowledged: no message comes any more.
    pub fn has_reached_end_of_topic(&self) -> bool {
        self.topic_status.has_reached_end
    }

    /// The size of the receiver queue at the moment, messages.
    pub fn receiver_queue_size(&self) -> u32 {
        self.queue.size()
    }

    /// Messages that wait to be taken.
    pub fn queued_messages(&self) -> u64 {
        self.queue.messages()
    }
}
