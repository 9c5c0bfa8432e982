//! The producer's machine: from an accepted message to its receipt, over as many connections as it takes.
//!
//! It numbers messages, puts them into batches, keeps every frame until its receipt so that a re-send has the same
//! bytes, and ends each send exactly once: by a receipt, a refusal, its deadline or the end of the producer. Entries
//! are written strictly in the order in which their sequence ids were given.
//!
//! It never compresses a payload or sums a large one while its lock is held (that is a [`SealJob`]), never re-numbers a
//! message, and never reads the clock: [`Producer::push`] takes it as a function, called only where the time is needed.
//!
//! # Files
//!
//! In the order of a send:
//!
//! | file | part of [`Producer`] | rules |
//! | --- | --- | --- |
//! | `message.rs`, `extras.rs`, `config.rs` | | what the application hands in |
//! | `accept.rs` | | the ways of a message into the producer, fast and slow |
//! | `payload_limits.rs` | `PayloadLimits` | how large a message and a batch may be |
//! | `capacity.rs`, `waiter_queue.rs` | `Capacity` | the bounds on pending messages; tasks that wait for capacity |
//! | `sequence_ids.rs` | `SequenceIds` | sequence ids |
//! | `batch.rs`, `key_batches.rs`, `interleaved.rs` | `OpenBatch`, `KeyBatches`, `Interleaved` | the messages of one entry; one batch for each key; the records of all those |
//! | `group.rs`, `in_flight/` | `InFlight` | entries between acceptance and receipt; the send cursor |
//! | `seal.rs`, `buffers.rs` | `Sealing` | which work is done outside the lock, when and by which task; buffers |
//! | `pipeline/` | | the outgoing payload pipeline: batch, compress, (split), (encrypt), seal |
//! | `encrypt.rs` | | encryption of payloads, and what gives the keys for it |
//! | `transmit.rs` | | writing sealed frames to the connection |
//! | `settle.rs`, `results/` | `ReceiptCounters` | receipts and refusals; what the sender of a message awaits |
//! | `stats.rs` | `SendCounters` | what is counted |
//! | `overdue.rs` | `OverdueWatch` | messages that wait for long; the end, for the observer |
//! | `flush.rs` | `Flushes` | flushes and their failures |
//!
//! Over the life of a producer:
//!
//! | file | part of [`Producer`] | rules |
//! | --- | --- | --- |
//! | `attach.rs` | `ProducerAttach` | creation, PRODUCER, attach and detach |
//! | `deadlines.rs`, `send_deadline.rs` | | what is due when, and what happens then |
//! | `lifecycle.rs` | `Lifecycle` | close, failure, the end |
//!
//! # Order of calls
//!
//! Application tasks call [`push_fast`](Producer::push_fast), [`poll_push`](Producer::poll_push),
//! [`push`](Producer::push), [`flush`](Producer::flush) and [`close`](Producer::close); after a push they run the jobs of
//! [`take_closed_job`](Producer::take_closed_job).
//!
//! The owner (the session that the producer is attached to, else the supervisor) calls
//! [`open_request`](Producer::open_request), [`on_attached`](Producer::on_attached), then each time it is served
//! [`take_job`](Producer::take_job) and [`put_job`](Producer::put_job) until there is no job left, and
//! [`poll_transmit`](Producer::poll_transmit).

use crate::machine::Dirty;
use crate::machine::endpoint::attach_status::AttachStatus;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Deferred, Now, ReplyTo};
use crate::error::{Error, ErrorKind};
use crate::id::ProducerId;

mod accept;
mod attach;
mod batch;
mod buffers;
mod capacity;
mod chunks;
mod config;
mod deadlines;
pub mod encrypt;
mod endpoint;
mod extras;
mod flush;
mod group;
mod in_flight;
mod interleaved;
mod key_batches;
mod lifecycle;
mod message;
mod one_or_more;
mod overdue;
mod payload_limits;
mod pipeline;
pub mod results;
mod seal;
mod send_deadline;
mod sequence_ids;
mod settle;
mod stats;
mod transmit;
mod waiter_queue;

pub use accept::{PushError, Rejected};
pub use attach::ProducerCreated;
pub use capacity::{CapacityBound, CapacityWaiter};
pub use config::{AccessMode, BatchingType, ProducerConfig};
pub use message::Message;
pub use overdue::SendObserver;
pub use results::{OnSent, PendingSend, SendCallback};
pub use seal::{SealJob, Sealed};
pub(crate) use sequence_ids::SEQUENCE_ID_MAX;
pub use stats::ProducerStats;

use attach::{AttachPhase, ProducerAttach};
use batch::OpenBatch;
use capacity::Capacity;
use flush::Flushes;
use in_flight::InFlight;
use key_batches::KeyBatches;
use lifecycle::Lifecycle;
use overdue::OverdueWatch;
use payload_limits::PayloadLimits;
use results::{References, ResultsKind, SendSlots};
use seal::Sealing;
use sequence_ids::SequenceIds;
use settle::ReceiptCounters;
use stats::SendCounters;

/// For how long a batch, or a group of framed messages, takes more messages while there is no connection: all of them
/// have the deadline of the first.
const OPEN_MAX: Duration = Duration::from_millis(100);

/// A producer of one topic, or one partition.
///
/// What a message reads and writes stands first: of a thousand producers, that of the next message is in no cache.
#[repr(C)]
pub struct Producer {
    config: Arc<ProducerConfig>,
    /// The batch that takes more messages; apart, as a producer without work has none.
    open_batch: Option<Box<OpenBatch>>,
    /// With key-based batching, instead of `open_batch`: one for each key.
    key_batches: Option<Box<KeyBatches>>,
    /// What inputs gave the owner to do since it last looked.
    dirty: Dirty,
    /// -1 for a topic that is not partitioned.
    partition: i32,
    sequence_ids: SequenceIds,
    capacity: Capacity,
    lifecycle: Lifecycle,
    sealing: Sealing,
    send_slots: SendSlots,
    references: References,
    in_flight: InFlight,
    counters: SendCounters,
    receipts: ReceiptCounters,
    overdue: OverdueWatch,
    /// `None` while no flush waits, and no failure is kept for the next one.
    flushes: Option<Box<Flushes>>,
    attach: ProducerAttach,
    attach_status: AttachStatus,
    id: ProducerId,
    topic: Arc<str>,
}

impl Producer {
    /// A producer that is not attached yet. `partition` is -1 for a topic that is not partitioned. `created` is
    /// answered by the first attach, or with the reason why there is none.
    pub fn new(
        id: ProducerId,
        topic: Arc<str>,
        partition: i32,
        config: Arc<ProducerConfig>,
        created: ReplyTo<ProducerCreated>,
        now: Now,
    ) -> Self {
        Self {
            id,
            topic,
            partition,
            dirty: Dirty::Now,
            attach: ProducerAttach::new(created, now.at.checked_add(config.operation_timeout)),
            attach_status: AttachStatus::new(now),
            lifecycle: Lifecycle::default(),
            sequence_ids: SequenceIds::default(),
            capacity: Capacity::new(config.max_pending_messages, config.max_pending_bytes),
            open_batch: None,
            key_batches: config.batches_by_key().then(|| Box::new(KeyBatches::new(partition))),
            send_slots: SendSlots::new(partition, ResultsKind::Sends),
            references: References::default(),
            sealing: Sealing::new(PayloadLimits::new(&config, None)),
            in_flight: InFlight::default(),
            receipts: ReceiptCounters::default(),
            counters: SendCounters::default(),
            overdue: OverdueWatch::default(),
            flushes: None,
            config,
        }
    }

    /// The full name of its topic, or of its partition.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// `producer_id` of the protocol.
    pub fn id(&self) -> ProducerId {
        self.id
    }

    /// Its name; the broker's choice is known from the first attach on.
    pub fn name(&self) -> Option<&str> {
        self.sealing.producer_name().map(|name| &**name).or(self.configured_name())
    }

    /// The name to begin with. One that a broker generated is no longer asked for once it was [taken](Self::on_attach_failed).
    fn configured_name(&self) -> Option<&str> {
        self.config.name.as_deref().filter(|_| !self.attach.has_given_up_name())
    }

    /// The highest sequence id that is known to be stored: by a receipt, or, at creation, by the broker's
    /// deduplication.
    pub fn last_sequence_id(&self) -> Option<u64> {
        self.sequence_ids.last_stored()
    }

    /// How long a message may take from the call to its receipt; `None` is for ever.
    pub fn send_timeout(&self) -> Option<Duration> {
        Some(self.config.send_timeout).filter(|timeout| !timeout.is_zero())
    }

    /// Whether it is attached to a broker, which takes its messages.
    pub fn is_attached(&self) -> bool {
        self.attach.phase() == AttachPhase::Attached
    }

    /// Why it is not attached: the failure of the last attempt. `None` while it is attached, and before the first
    /// attempt has failed.
    pub fn last_failure(&self) -> Option<&Error> {
        self.attach_status.last_failure()
    }

    /// The batch that was opened first, of those that take more messages.
    #[inline]
    fn oldest_batch(&self) -> Option<&OpenBatch> {
        self.open_batch.as_deref().or_else(|| self.key_batches.as_ref()?.first())
    }

    /// Whether nothing that was accepted is unsettled.
    fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.oldest_batch().is_none()
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("id", &self.id)
            .field("topic", &self.topic)
            .field("attach", &self.attach.phase())
            .field("lifecycle", &self.lifecycle)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Drop for Producer {
    /// Ends what still waits for the producer. One that was closed or has failed has nothing left.
    fn drop(&mut self) {
        let dropped = Error::local(ErrorKind::Closed, "the client was dropped before the producer was closed");
        self.fail(dropped, &mut Deferred::new());
    }
}
