//! What the producer's server does with it: a session while one has it, else the supervisor.

use std::sync::Arc;

use super::batcher::{Batch, discard};
use super::in_flight::Entry;
use super::pipeline::{SealContext, check_size};
use super::seal::ToSeal;
use super::{BATCH_OPEN_MAX, Closing, Life, Link, Producer, ProducerCreated, SEQUENCE_ID_MAX, SealJob, Sealed};
use crate::error::{Error, ErrorKind, Result, SendError};
use crate::machine::connection::peer::PeerInfo;
use crate::machine::endpoint::outbox::{More, Op, OpKind, Outbox, Response};
use crate::machine::{Deadline, Deferred, Now};
use crate::pb;
use crate::wire::command::Command;
use crate::wire::send_run::PlainSend;

/// After this many frames without any receipt the connection is not worth keeping.
const UNANSWERED_FRAMES_MAX: u32 = 64;

/// Opening, attaching, detaching.
impl Producer {
    /// The PRODUCER that opens it; the session sets its `request_id`. Counts `epoch` up, and from the second on sends
    /// the name and the topic epoch that the broker gave.
    pub fn open_request(&mut self, _now: Now) -> pb::CommandProducer {
        debug_assert!(self.link != Link::Attached, "an attached producer is not opened");
        self.link = Link::Opening;
        let epoch = self.epoch;
        self.epoch += 1;
        let pair = |(key, value): &(String, String)| pb::KeyValue { key: key.clone(), value: value.clone() };
        pb::CommandProducer {
            topic: self.topic.to_string(),
            producer_id: self.id.0,
            producer_name: self.name().map(str::to_owned),
            metadata: self.config.properties.iter().map(pair).collect(),
            epoch: Some(epoch),
            user_provided_producer_name: Some(self.config.name.is_some()),
            producer_access_mode: Some(self.config.access_mode.to_wire().into()),
            topic_epoch: self.topic_epoch,
            ..Default::default()
        }
    }

    /// The broker takes messages from now on: everything that has no receipt yet goes out again, with the same bytes.
    pub fn on_attached(
        &mut self,
        opened: &pb::CommandProducerSuccess,
        peer: &PeerInfo,
        now: Now,
        deferred: &mut Deferred,
    ) {
        if matches!(self.life, Life::Finished(_)) {
            return;
        }
        self.link = Link::Attached;
        self.dirty = true;
        self.closed_at_broker = false;
        self.created_by = None;
        self.last_cause = None;
        self.topic_epoch = opened.topic_epoch.or(self.topic_epoch);
        self.unanswered_frames = 0;
        self.in_flight.rewind();
        let first = self.context.is_none();
        let kept = self.context.as_ref().map(|context| context.producer_name.clone());
        let context = SealContext {
            producer_id: self.id.0,
            producer_name: kept.unwrap_or_else(|| opened.producer_name.as_str().into()),
            schema_version: opened.schema_version.clone().filter(|version| !version.is_empty()),
            compression: self.config.compression,
            max_message_size: Some(peer.max_message_size),
        };
        self.plain = Some(PlainSend::new(self.id.0, &context.producer_name, context.schema_version.as_deref()));
        self.context = Some(Arc::new(context));
        if first {
            // Only the first success knows where to start: a repeated one says -1.
            self.start_numbering(opened.last_sequence_id.unwrap_or(-1));
        } else {
            self.fail_too_large(peer.max_message_size, deferred);
        }
        if let Some(created) = self.created.take() {
            let last_sequence_id = opened.last_sequence_id.unwrap_or(-1);
            created.answer(Ok(ProducerCreated { name: opened.producer_name.clone(), last_sequence_id }), deferred);
        }
        self.advance_close(Some(now), deferred);
    }

    /// The broker has queued it for exclusive access (`producer_ready = false`): the time limit of the creation is off,
    /// and the answer to its open request follows when it is this producer's turn.
    pub fn on_queued(&mut self) {
        self.created_by = None;
    }

    fn start_numbering(&mut self, last_sequence_id: i64) {
        let known = u64::try_from(last_sequence_id).ok();
        self.last_published = self.config.initial_sequence_id.or(known);
        self.highest_pushed = self.last_published;
        self.next_sequence_id = self.last_published.map_or(0, |last| last.min(SEQUENCE_ID_MAX - 1) + 1);
        // Messages accepted before now get their ids in the order in which they came.
        let mut to_seal = std::mem::take(&mut self.to_seal);
        for (number, work) in &mut to_seal {
            // Nothing is framed before there are numbers.
            let ToSeal::Messages(content) = work else { continue };
            let (first, last) = self.number_held(content.held_mut());
            let at = self.in_flight.place_of(*number);
            if let Some(entry) = at.and_then(|at| self.in_flight.entry_mut(at)) {
                (entry.first, entry.last) = (first, last);
            }
        }
        self.to_seal = to_seal;
        if let Some(mut batch) = self.open.take() {
            (batch.first, batch.last) = self.number_held(batch.content.held_mut());
            self.open = Some(batch);
        }
    }

    fn number_held<'a>(&mut self, messages: impl Iterator<Item = &'a mut super::Message>) -> (u64, u64) {
        let mut range = None;
        for message in messages {
            let (id, _) = self.number(message.id());
            message.number(id);
            range = Some((range.map_or(id, |(first, _)| first), id));
        }
        range.unwrap_or((0, 0))
    }

    /// Another broker may take less.
    fn fail_too_large(&mut self, max_message_size: u32, deferred: &mut Deferred) {
        let too_large = |entry: &Entry| {
            check_size(Some(max_message_size), entry.frame_bytes(), entry.compared_bytes as usize).err()
        };
        // What is not framed yet has no size yet, and is looked at when it has.
        while let Some(at) = self.in_flight.find(|_, entry| too_large(entry).is_some()) {
            let Some(error) = self.in_flight.entry_mut(at).and_then(|entry| too_large(entry)) else { break };
            let error = SendError::new(error.with_topic(&self.topic), self.in_flight.is_transmitted(at));
            self.settle_failed(at, error, deferred);
        }
        self.after_settling(deferred);
    }

    /// No broker has it any more, or none took it. Does nothing if that is known.
    pub fn on_detached(&mut self, now: Now, deferred: &mut Deferred) {
        if self.link == Link::Detached {
            return;
        }
        self.link = Link::Detached;
        self.dirty = true;
        self.in_flight.rewind();
        if let Life::Closing(closing) = &mut self.life {
            closing.asked = None;
        }
        self.advance_close(Some(now), deferred);
    }

    /// Why the last attempt to attach it failed: the error of the creation deadline will say so.
    pub fn note_cause(&mut self, cause: &Error) {
        self.last_cause = Some(cause.clone());
    }

    /// It is over: everything that waits ends with `error`, and so do later calls. Does nothing if it is over already.
    pub fn fail(&mut self, error: Error, deferred: &mut Deferred) {
        if !matches!(self.life, Life::Finished(_)) {
            let error = error.with_topic(&self.topic);
            self.finish(error.clone(), Err(error), deferred);
        }
    }

    /// Whether it is closed or failed, so that its server can forget it.
    pub fn is_finished(&self) -> bool {
        matches!(self.life, Life::Finished(_))
    }

    /// Whether the broker has answered its CLOSE_PRODUCER, or never heard of it.
    pub fn is_closed_at_broker(&self) -> bool {
        self.closed_at_broker || self.epoch == 0
    }
}

/// Sealing and writing.
impl Producer {
    /// A batch to seal: a closed one, or the open one if it need not wait for more messages. Lingering aside, that is
    /// so when everything before it has been handed to the connection.
    ///
    /// After [`put_sealed`](Self::put_sealed) there may be another one.
    pub fn take_seal(&mut self, now: Now) -> Option<SealJob> {
        self.stamp(|| now);
        if self.link == Link::Attached {
            self.close_run();
        }
        if self.to_seal.is_empty() && self.open_is_due(now) {
            self.close_batch();
        }
        self.take_full_seal(|| now)
    }

    fn open_is_due(&self, now: Now) -> bool {
        let due = |batch: &Batch| {
            let batching_max_publish_delay = self.config.batching_max_publish_delay;
            batching_max_publish_delay.is_zero()
                || batch.opened.at.checked_add(batching_max_publish_delay).is_none_or(|due| due <= now.at)
        };
        self.link == Link::Attached && !self.in_flight.has_unsent() && self.open.as_ref().is_some_and(due)
    }

    /// Takes a sealed batch back. One that turned out too large fails, alone.
    pub fn put_sealed(&mut self, sealed: Sealed, now: Now, deferred: &mut Deferred) {
        if self.segment.capacity() < sealed.segment.capacity() {
            self.segment = sealed.segment;
        }
        self.spares.put(sealed.spare);
        if self.spent.capacity() == 0 {
            self.spent = sealed.spent;
        }
        let Some(at) = self.in_flight.place_of(sealed.number) else {
            // It timed out meanwhile.
            if let Ok(entries) = sealed.result {
                entries.for_each(|entry| discard(entry.frame.payload, &mut self.spent));
            }
            return;
        };
        // It may be written now, or what comes after it in the queue.
        self.dirty = true;
        match sealed.result {
            Ok(entries) => {
                self.in_flight.keep(sealed.number, at, entries);
                if let Some(limit) = self.max_message_size().filter(|limit| Some(*limit) != sealed.max_message_size) {
                    self.fail_too_large(limit, deferred);
                }
            }
            Err(error) => {
                let error = SendError::new(error.with_topic(&self.topic), false);
                self.settle_failed(at, error, deferred);
                self.after_settling(deferred);
            }
        }
        self.advance_close(Some(now), deferred);
    }

    /// Hands frames to the connection, and, once a closing producer has nothing left, CLOSE_PRODUCER.
    ///
    /// `More::Yes` asks for another turn, that is [`take_seal`](Self::take_seal) and then this.
    pub fn poll_transmit(&mut self, out: &mut Outbox<'_>, now: Now) -> More {
        if self.link != Link::Attached || self.is_finished() {
            return More::No;
        }
        let mut written = 0;
        while let Some(frame_bytes) = self.in_flight.write_next(out.tx) {
            written += frame_bytes;
            if written >= out.quantum_bytes && self.in_flight.has_unsent() {
                return More::Yes;
            }
        }
        self.ask_to_close(out, now);
        let unsealed = !self.to_seal.is_empty() || self.in_flight.has_open_run() || self.open_is_due(now);
        if unsealed { More::Yes } else { More::No }
    }

    fn ask_to_close(&mut self, out: &mut Outbox<'_>, now: Now) {
        let idle = self.is_idle();
        let Life::Closing(closing) = &mut self.life else { return };
        if !idle || closing.asked.is_some() {
            return;
        }
        self.close_number += 1;
        closing.asked = Some(self.close_number);
        closing.drained = true;
        closing.by = now.at.checked_add(self.config.operation_timeout);
        let close = pb::CommandCloseProducer { producer_id: self.id.0, ..Default::default() };
        out.request(Op { kind: OpKind::Close, number: self.close_number }, Command::CloseProducer(close));
    }

    /// The answer to what [`poll_transmit`](Self::poll_transmit) asked.
    pub fn on_answer(&mut self, op: Op, result: Response, _now: Now, deferred: &mut Deferred) {
        let Life::Closing(closing) = &self.life else { return };
        if op.kind != OpKind::Close || closing.asked != Some(op.number) {
            return;
        }
        let reply = match result {
            Ok(_) => {
                self.closed_at_broker = true;
                Ok(())
            }
            // The broker forgets producers with their connection.
            Err(crate::machine::connection::peer::RequestError::Disconnected) => Ok(()),
            Err(error) => Err(error.into_error("the producer's close request").with_topic(&self.topic)),
        };
        self.finish(self.closed_error(), reply, deferred);
    }

    /// Nothing that was accepted is left.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.open.is_none()
    }

    pub(super) fn closed_error(&self) -> Error {
        Error::local(ErrorKind::Closed, "the producer is closed").with_topic(&self.topic)
    }

    /// A closing producer with nothing left is over at once where there is no broker to tell.
    pub(super) fn advance_close(&mut self, now: Option<Now>, deferred: &mut Deferred) {
        let idle = self.is_idle();
        let Life::Closing(closing) = &mut self.life else { return };
        if !idle {
            return;
        }
        match self.link {
            Link::Detached => self.finish(self.closed_error(), Ok(()), deferred),
            Link::Opening | Link::Attached => {
                self.dirty = true;
                if let (false, Some(now)) = (closing.drained, now) {
                    closing.drained = true;
                    closing.by = now.at.checked_add(self.config.operation_timeout);
                }
            }
        }
    }

    /// Ends every send that is not settled.
    fn fail_all(&mut self, error: &Error, deferred: &mut Deferred) {
        while let Some((run, _)) = self.in_flight.front() {
            let error = SendError::new(error.clone(), run.transmitted);
            self.settle_failed(0, error, deferred);
        }
    }

    /// Ends everything. `later` is what later calls get, `reply` what closers get.
    pub(super) fn finish(&mut self, later: Error, reply: Result<()>, deferred: &mut Deferred) {
        let life = std::mem::replace(&mut self.life, Life::Finished(later.clone()));
        self.link = Link::Detached;
        self.dirty = true;
        self.created_by = None;
        if let Some(created) = self.created.take() {
            created.answer(Err(later.clone()), deferred);
        }
        self.close_batch();
        self.fail_all(&later, deferred);
        for (_, work) in std::mem::take(&mut self.to_seal) {
            if let ToSeal::Messages(content) = work {
                content.discard(&mut self.spent);
            }
        }
        self.after_settling(deferred);
        self.waiters.dismiss_all(deferred);
        if let Life::Closing(Closing { replies, .. }) = life {
            for to in replies {
                to.answer(reply.clone(), deferred);
            }
        }
    }
}

/// Time.
impl Producer {
    /// When something is due.
    pub fn poll_deadline(&self) -> Option<Deadline> {
        if self.is_finished() {
            return None;
        }
        let due = |at: Option<std::time::Instant>, why| at.map(|at| Deadline::new(at, why));
        let oldest = match self.in_flight.front() {
            Some((run, _)) => run.deadline,
            None => self.open.as_ref().and_then(|batch| batch.deadline),
        };
        let closing = match &self.life {
            Life::Closing(closing) => closing.by,
            Life::Open | Life::Finished(_) => None,
        };
        [
            due(self.created_by, "creating the producer takes too long"),
            due(oldest, "a send is overdue"),
            due(self.waiters.next_deadline(), "a send has waited too long for room"),
            due(self.open_until(), "a batch has lingered"),
            due(closing, "closing the producer takes too long"),
        ]
        .into_iter()
        .fold(None, Deadline::earlier)
    }

    /// When the open batch is closed, whatever happens.
    fn open_until(&self) -> Option<std::time::Instant> {
        let batch = self.open.as_ref()?;
        let lingers = self.link == Link::Attached && !self.config.batching_max_publish_delay.is_zero();
        batch.opened.at.checked_add(if lingers {
            self.config.batching_max_publish_delay
        } else {
            BATCH_OPEN_MAX.max(self.config.batching_max_publish_delay)
        })
    }

    /// Does what is due: only what is overdue fails, whatever the state.
    pub fn handle_deadline(&mut self, now: Now, deferred: &mut Deferred) {
        if self.is_finished() {
            return;
        }
        self.stamp(|| now);
        let is_due = |at: Option<std::time::Instant>| at.is_some_and(|at| at <= now.at);
        if is_due(self.created_by) {
            let what = format!("timed out after {:?} creating the producer", self.config.operation_timeout);
            let late = Error::local(ErrorKind::TimedOut, what);
            let late = match self.last_cause.take() {
                Some(cause) => late.with_source(cause),
                None => late,
            };
            self.fail(late, deferred);
            return;
        }
        self.waiters.expire(now, deferred);
        self.expire_sends(now, deferred);
        if is_due(self.open_until()) {
            self.close_batch();
        }
        if let Life::Closing(closing) = &self.life {
            if is_due(closing.by) {
                self.give_up_closing(now, deferred);
            }
        }
    }

    fn expire_sends(&mut self, now: Now, deferred: &mut Deferred) {
        let is_due = |at: Option<std::time::Instant>| at.is_some_and(|at| at <= now.at);
        let first_open_is_due = self.in_flight.runs().all(|run| is_due(run.deadline))
            && self.open.as_ref().is_some_and(|batch| is_due(batch.deadline));
        if first_open_is_due {
            self.close_batch();
        }
        let mut expired = false;
        while let Some((run, _)) = self.in_flight.front().filter(|(run, _)| is_due(run.deadline)) {
            let transmitted = run.transmitted;
            if transmitted {
                self.unanswered_frames = self.unanswered_frames.saturating_add(1);
            }
            let error = SendError::new(self.overdue("the receipt"), transmitted);
            self.settle_failed(0, error, deferred);
            expired = true;
        }
        if expired {
            self.dirty = true;
            self.after_settling(deferred);
            self.advance_close(Some(now), deferred);
        }
    }

    pub(super) fn overdue(&self, what: &str) -> Error {
        let text = format!("timed out after {:?} waiting for {what}", self.config.send_timeout);
        Error::local(ErrorKind::TimedOut, text).with_topic(&self.topic)
    }

    /// Time to send the rest, or to have the close answered, is up.
    fn give_up_closing(&mut self, now: Now, deferred: &mut Deferred) {
        let Life::Closing(closing) = &self.life else { return };
        let over = closing.drained || self.link == Link::Detached;
        let error = Error::local(ErrorKind::TimedOut, "timed out closing the producer").with_topic(&self.topic);
        self.close_batch();
        self.fail_all(&error, deferred);
        self.after_settling(deferred);
        if over {
            self.finish(self.closed_error(), Err(error), deferred);
        } else {
            self.advance_close(Some(now), deferred);
        }
    }

    /// Whether so many frames went unanswered that the connection should be replaced; says so once.
    pub fn take_wants_reconnect(&mut self) -> bool {
        let wants = self.unanswered_frames >= UNANSWERED_FRAMES_MAX && self.link == Link::Attached;
        if wants {
            self.unanswered_frames = 0;
        }
        wants
    }
}
