//! Opening the producer at a broker (PRODUCER), attach and detach.

use std::time::{Duration, Instant};

use super::Producer;
use super::config::AccessMode;
use super::payload_limits::PayloadLimits;
use super::pipeline::{CompressionOptions, SealContext};
use crate::error::{Error, ErrorKind, ServerCode};
use crate::machine::Dirty;
use crate::machine::connection::peer::PeerInfo;
use crate::machine::{Deferred, Now, ReplyTo};
use crate::pb;
use crate::schema::SchemaInfo;

/// For how long a name that the broker gave is asked for again while another producer has it: a broker finds out within
/// 5 s whether the connection of that one is dead (`connectionLivenessCheckTimeoutMillis`).
const NAME_TAKEN_MAX: Duration = Duration::from_secs(6);

/// The same for brokers that make no such check: their keep-alive finds out, in two intervals of 30 s.
const NAME_TAKEN_WITHOUT_CHECK_MAX: Duration = Duration::from_secs(66);

/// `ProtocolVersion.v21`, of Pulsar 3.0, whose patches brought the check.
const LIVENESS_CHECK_VERSION: i32 = 21;

/// What the broker said when the producer was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerCreated {
    /// Its name: the one asked for, or the one the broker made.
    pub name: String,
    /// The highest sequence id stored under that name where deduplication is on, else -1.
    pub last_sequence_id: i64,
}

/// Whether a broker has the producer.
///
/// ```text
///            open_request            on_attached
///  Detached --------------> Opening -------------> Attached
///     ^                        |                      |
///     +------------------------+----------------------+
///                   on_detached, or the end
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttachPhase {
    Detached,
    Opening,
    Attached,
}

/// The attachment to a broker, and what is kept from one to the next.
#[derive(Debug)]
pub(super) struct ProducerAttach {
    phase: AttachPhase,
    /// How many PRODUCER requests were made, which is the `epoch` of the next one: the broker ignores those of an older
    /// one.
    next_epoch: u64,
    /// From the last PRODUCER_SUCCESS: shows the broker that this producer is the one that had exclusive access.
    topic_epoch: Option<u64>,
    /// Since when PRODUCER is refused because another producer has the name that the broker gave.
    name_taken_since: Option<Instant>,
    /// The broker that was asked last finds out whether the connection of that one is dead.
    checks_liveness: bool,
    /// A name that the broker gave was taken, and given up.
    has_given_up_name: bool,
    /// What waits for the first attach.
    creation: Option<Box<Creation>>,
    /// See [`Producer::set_in_use`].
    is_in_use: bool,
}

/// The application waits for the first attach.
#[derive(Debug)]
struct Creation {
    reply: ReplyTo<ProducerCreated>,
    /// When the attach is overdue. `None` while the broker has the producer queued for exclusive access.
    deadline: Option<Instant>,
}

impl ProducerAttach {
    pub(super) fn new(reply: ReplyTo<ProducerCreated>, deadline: Option<Instant>) -> Self {
        Self {
            phase: AttachPhase::Detached,
            next_epoch: 0,
            topic_epoch: None,
            name_taken_since: None,
            checks_liveness: false,
            has_given_up_name: false,
            creation: Some(Box::new(Creation { reply, deadline })),
            is_in_use: false,
        }
    }

    pub(super) fn phase(&self) -> AttachPhase {
        self.phase
    }

    /// Whether a PRODUCER request was ever made, so that a broker may know the producer.
    pub(super) fn was_requested(&self) -> bool {
        self.next_epoch > 0
    }

    pub(super) fn has_given_up_name(&self) -> bool {
        self.has_given_up_name
    }

    pub(super) fn creation_deadline(&self) -> Option<Instant> {
        self.creation.as_ref()?.deadline
    }

    /// How long the name that the broker gave may be taken before it is given up.
    fn name_taken_max(&self) -> Duration {
        if self.checks_liveness { NAME_TAKEN_MAX } else { NAME_TAKEN_WITHOUT_CHECK_MAX }
    }

    /// The application has the producer already: its creation is not waited for.
    fn set_in_use(&mut self) {
        self.is_in_use = true;
        self.creation = None;
    }

    /// The producer is finished: answers a creation that still waits with `error`.
    pub(super) fn end(&mut self, error: &Error, deferred: &mut Deferred) {
        self.phase = AttachPhase::Detached;
        if let Some(creation) = self.creation.take() {
            creation.reply.send(Err(error.clone()), deferred);
        }
    }
}

impl Producer {
    /// This broker is asked next.
    pub(super) fn note_broker(&mut self, peer: &PeerInfo) {
        self.attach.checks_liveness = peer.protocol_version >= LIVENESS_CHECK_VERSION;
    }

    /// The application has it before its first attach, which takes as long as it takes: it is refused and tried again as
    /// one that was attached before. What is sent meanwhile waits for the attach, within its send timeout.
    pub fn set_in_use(&mut self) {
        self.attach.set_in_use();
    }

    /// Whether [`set_in_use`](Self::set_in_use) was called.
    pub fn is_in_use(&self) -> bool {
        self.attach.is_in_use
    }

    /// The PRODUCER that opens it; the session sets its `request_id`. Counts `epoch` up, and from the second on sends
    /// the name and the topic epoch that the broker gave, unless that name is [taken](Self::on_attach_failed).
    pub fn open_request(&mut self, _now: Now) -> pb::CommandProducer {
        debug_assert!(!self.is_attached(), "an attached producer is not opened");
        self.attach.phase = AttachPhase::Opening;
        let epoch = self.attach.next_epoch;
        self.attach.next_epoch += 1;
        pb::CommandProducer {
            topic: self.topic.to_string(),
            producer_id: self.id.0,
            producer_name: self.name().map(str::to_owned),
            metadata: pb::key_values(&self.config.properties),
            epoch: Some(epoch),
            encrypted: self.config.encryption.as_ref().map(|_| true),
            user_provided_producer_name: Some(self.configured_name().is_some()),
            producer_access_mode: Some(self.config.access_mode.to_wire().into()),
            topic_epoch: self.attach.topic_epoch,
            schema: self.config.schema.as_ref().map(SchemaInfo::to_wire),
            initial_subscription_name: self.config.initial_subscription.clone(),
            ..Default::default()
        }
    }

    /// The broker has opened the producer: everything that has no receipt yet is written to it, with the same bytes as
    /// before.
    pub fn on_attached(
        &mut self,
        opened: &pb::CommandProducerSuccess,
        peer: &PeerInfo,
        now: Now,
        deferred: &mut Deferred,
    ) {
        if self.is_finished() {
            return;
        }
        self.attach.phase = AttachPhase::Attached;
        self.attach.topic_epoch = opened.topic_epoch.or(self.attach.topic_epoch);
        self.dirty = Dirty::Now;
        self.lifecycle.on_attached();
        self.receipts.on_attached();
        let is_first = self.start_framing(opened, peer);
        self.attach.name_taken_since = None;
        if is_first {
            // Only the first answer says where to start: a repeated one says -1.
            self.start_sequence_ids(opened.last_sequence_id.unwrap_or(-1));
        } else {
            self.fail_too_large(peer.max_message_size, deferred);
        }
        if self.config.access_mode != AccessMode::Shared && self.attach.topic_epoch.is_none() {
            // A broker ignores a mode that it does not know: the producer shares its topic.
            let what = format!(
                "the broker does not support access_mode {:?}: it opened a shared producer",
                self.config.access_mode
            );
            return self.fail(Error::local(ErrorKind::Unsupported, what), deferred);
        }
        if let Some(creation) = self.attach.creation.take() {
            let last_sequence_id = opened.last_sequence_id.unwrap_or(-1);
            creation.reply.send(Ok(ProducerCreated { name: opened.producer_name.clone(), last_sequence_id }), deferred);
        }
        self.advance_close(Some(now), deferred);
    }

    /// Sets what the frames from now on have in common; whether this is the first time. The name stays for
    /// life, unless it was [taken](Self::on_attach_failed).
    fn start_framing(&mut self, opened: &pb::CommandProducerSuccess, peer: &PeerInfo) -> bool {
        let name = self.sealing.producer_name().cloned();
        let is_first = name.is_none();
        let max_message_size = peer.max_message_size;
        let compression = CompressionOptions {
            codec: self.config.compression,
            level: self.config.compression_level,
            min_bytes: self.config.compress_min_msg_body_size,
        };
        let chunk_bytes_max = self.config.chunking.then_some(match self.config.chunk_max_message_size {
            0 => u32::MAX,
            limit => limit,
        });
        let context = SealContext {
            producer_id: self.id.0,
            producer_name: name.unwrap_or_else(|| opened.producer_name.as_str().into()),
            schema_version: opened.schema_version.as_deref().filter(|version| !version.is_empty()).map(Into::into),
            compression,
            fast_payload_bytes_end: match &self.config.encryption {
                None => compression.fast_payload_bytes_max(chunk_bytes_max) + 1,
                Some(_) => 0,
            },
            max_message_size,
            chunk_bytes_max,
            encryption: self.config.encryption.clone(),
        };
        self.sealing.start(context, PayloadLimits::new(&self.config, Some(max_message_size)));
        is_first
    }

    /// The broker has queued the producer for exclusive access (`producer_ready = false`): there is no time limit for
    /// its creation any more, and another answer follows when it has the topic.
    pub fn on_queued(&mut self) {
        if let Some(creation) = &mut self.attach.creation {
            creation.deadline = None;
        }
    }

    /// An attempt to attach it failed with `error`, and another one follows.
    ///
    /// | refusal | effect, besides the next attempt |
    /// | --- | --- |
    /// | `ProducerBlockedQuotaExceededException` | all that is pending fails: the broker's policy is to tell the application |
    /// | `ProducerBlockedQuotaExceededError` | none: the broker's policy is to hold what is pending |
    /// | `ProducerBusy` for 6 s, of older brokers for 66 s, and the broker gave the name | the name is given up: see below |
    /// | any other | none |
    ///
    /// A broker that was restarted without its state gives a name again that this producer has. It also refuses the
    /// name while it still counts this producer's own dead connection, which it finds out within that time. After it the
    /// producer starts afresh: the next PRODUCER asks for a name, and sequence ids start where the broker says. What was
    /// pending fails, and may be stored if it was written: its frames carry the old name, by which the broker's
    /// deduplication would take them for the other producer's.
    ///
    /// The partitions of a topic begin with the name that the first one was given. One that gives it up gets a name of
    /// its own.
    pub fn on_attach_failed(&mut self, error: &Error, now: Now, deferred: &mut Deferred) {
        let code = error.server_error().map(|refused| refused.code);
        let fails_pending = match code {
            Some(ServerCode::PRODUCER_BLOCKED_QUOTA_EXCEEDED_EXCEPTION) => !mutation!(QuotaExceptionHolds),
            Some(ServerCode::PRODUCER_BLOCKED_QUOTA_EXCEEDED_ERROR) => mutation!(QuotaErrorFails),
            _ => false,
        };
        if fails_pending {
            self.fail_pending(&error.clone().with_topic(&self.topic), deferred);
        }
        let is_generated = (self.configured_name().is_none() || self.config.is_name_generated)
            && self.sealing.producer_name().is_some();
        if code == Some(ServerCode::PRODUCER_BUSY) && is_generated && !mutation!(KeepTakenName) {
            let since = *self.attach.name_taken_since.get_or_insert(now.at);
            if now.at.saturating_duration_since(since) >= self.attach.name_taken_max() || mutation!(GiveUpNameAtOnce) {
                self.fail_pending(&error.clone().with_topic(&self.topic), deferred);
                self.sealing.stop();
                self.attach.name_taken_since = None;
                self.attach.has_given_up_name = true;
            }
        }
    }

    /// The next attach is in another cluster, which counts the holders of exclusive access, and gives names, by itself.
    /// What is pending is sent there.
    pub fn on_cluster_changed(&mut self) {
        self.attach.topic_epoch = None;
        self.attach.name_taken_since = None;
    }

    /// No broker has the producer any more, or none opened it. Does nothing if that is known.
    pub fn on_detached(&mut self, now: Now, deferred: &mut Deferred) {
        if self.attach.phase == AttachPhase::Detached {
            return;
        }
        self.attach.phase = AttachPhase::Detached;
        self.dirty = Dirty::Now;
        self.in_flight.rewind();
        self.lifecycle.on_detached();
        self.advance_close(Some(now), deferred);
    }
}
