//! The consumer as its server sees it: the session while it is attached, else the supervisor.

use std::sync::atomic::Ordering;

use super::operations::Work;
use super::{
    Closing, Consumer, Deadline, Deferred, EndpointId, Entry, LastMessageId, Now, Op, Position, Start, State,
    SubscriptionType,
};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::connection::peer::{PeerInfo, RequestError};
use crate::machine::endpoint::outbox::{More, OpKind, Outbox, Response};
use crate::pb;
use crate::wire::{Command, put_flow};

/// How many entries the queue takes, as a multiple of `receiver_queue_size`, and at least
/// [`QUEUE_ENTRIES_MIN`]. A broker that keeps to its permits stays below two. Beyond the bound entries are dropped and
/// asked for again once the queue has been taken.
const QUEUE_ENTRIES_FACTOR: usize = 4;

/// See [`QUEUE_ENTRIES_FACTOR`].
const QUEUE_ENTRIES_MIN: usize = 256;

impl Consumer {
    /// SUBSCRIBE, without its request id. The fields are the same each time but for `consumer_epoch`.
    pub fn subscribe_request(&mut self, _now: Now) -> pb::CommandSubscribe {
        if self.state == State::Detached {
            self.state = State::Opening;
        }
        let config = &self.config;
        let initial_position = match config.initial_position {
            super::InitialPosition::Latest => pb::command_subscribe::InitialPosition::Latest,
            super::InitialPosition::Earliest => pb::command_subscribe::InitialPosition::Earliest,
        };
        let key_shared = config.subscription_type == SubscriptionType::KeyShared;
        pb::CommandSubscribe {
            topic: self.topic.as_ref().to_owned(),
            subscription: config.subscription.clone(),
            sub_type: config.subscription_type.wire().into(),
            consumer_id: self.id.0,
            request_id: 0,
            consumer_name: config.consumer_name.clone(),
            priority_level: Some(config.priority_level),
            durable: Some(true),
            start_message_id: None,
            metadata: key_values(&config.properties),
            read_compacted: Some(config.read_compacted),
            schema: None,
            initial_position: Some(initial_position.into()),
            replicate_subscription_state: config.replicate_subscription_state,
            force_topic_creation: Some(true),
            start_message_rollback_duration_sec: None,
            key_shared_meta: key_shared.then(|| config.key_shared.wire()),
            subscription_properties: key_values(&config.subscription_properties),
            consumer_epoch: Some(self.redelivery.epoch()),
        }
    }

    /// SUBSCRIBE succeeded. Permits start anew, what is queued will come again, what waited for a connection goes out.
    pub fn on_attached(&mut self, _peer: &PeerInfo, _now: Now, deferred: &mut Deferred) {
        if self.state == State::Finished {
            return;
        }
        self.state = State::Attached;
        self.dirty = true;
        self.attempt += 1;
        self.missed = false;
        self.permits.restart();
        self.throw_away_queue();
        self.acks.on_attached();
        self.redelivery.restart();
        self.subscribe_deadline = None;
        if let Some(subscribed) = self.subscribed.take() {
            subscribed.answer(Ok(()), deferred);
        }
        if let Some(Work::Seek { reply, .. }) = self.operations.on_attached() {
            self.seeking = false;
            reply.answer(Ok(()), deferred);
        }
        self.check();
    }

    /// The open failed, the connection was lost, or the broker closed this consumer. What is queued may still be
    /// taken until the next attach.
    pub fn on_detached(&mut self, _now: Now, deferred: &mut Deferred) {
        if self.state == State::Finished {
            return;
        }
        self.state = State::Detached;
        self.dirty = true;
        self.redelivery.restart();
        if self.closing.as_ref().is_some_and(|closing| closing.asked.is_some()) {
            // Whoever ended it, the broker has no such consumer any more.
            return self.finish(Ok(()), deferred);
        }
        self.finish_if_closed_while_detached(deferred);
    }

    pub(super) fn finish_if_closed_while_detached(&mut self, deferred: &mut Deferred) {
        let unsent = self.acks.has_pending() || !self.operations.is_empty();
        if self.closing.is_some() && self.state == State::Detached && !unsent {
            self.finish(Ok(()), deferred);
        }
    }

    /// Entries of one read, in order. Leaves `run` empty.
    pub fn on_entries(&mut self, run: &mut Vec<Entry>, now: Now, deferred: &mut Deferred) {
        if self.state != State::Attached || self.ended.is_some() {
            run.clear();
            return;
        }
        let mut ahead = self.queue.len();
        run.retain_mut(|entry| {
            let admitted = self.admit(entry, ahead);
            ahead += usize::from(admitted);
            admitted
        });
        // One move for each, from place to place.
        self.queue.extend(run.drain(..));
        if !self.queue.is_empty() {
            self.mark_inbox(deferred);
        }
        self.note_flow();
        // A damaged entry, or the last member of one, left an acknowledgement behind.
        self.dirty |= self.acks.noted(|| now) || self.acks.is_due(now);
        self.check();
    }

    /// Whether an entry is for the queue, behind `ahead` others. Books its permits in any case.
    fn admit(&mut self, entry: &mut Entry, ahead: usize) -> bool {
        let charged = entry.members;
        let left = self.members_wanted(entry, ahead);
        if left > 0 {
            self.permits.arrived(left);
        }
        if charged > left || left == 0 {
            self.permits.arrived_for_nothing(charged.saturating_sub(left));
        }
        entry.members = left;
        left > 0
    }

    /// How many members of an entry are to be handed out.
    fn members_wanted(&mut self, entry: &mut Entry, ahead: usize) -> u32 {
        let position = entry.position();
        let stale = entry.consumer_epoch.is_some_and(|epoch| epoch < self.redelivery.epoch());
        if self.seeking || (stale && self.config.subscription_type.is_in_order()) {
            return 0;
        }
        if let Err(error) = &entry.body {
            self.acks.reject(position, error.validation_error().into());
            return 0;
        }
        let queue_size = self.config.receiver_queue_size as usize;
        if ahead >= queue_size.saturating_mul(QUEUE_ENTRIES_FACTOR).max(QUEUE_ENTRIES_MIN) {
            self.missed = true;
            return 0;
        }
        if self.acks.is_waiting(position) {
            return 0;
        }
        let size = entry.batch_size();
        if let Some(start) = self.start.filter(|start| start.position == position) {
            if !start.narrow(size, &mut entry.ack_set) {
                // It lies before what was sought, as everything acknowledged does.
                let id = crate::id::MessagePosition::new(position.ledger_id, position.entry_id);
                let _full = self.acks.ack(&id);
                return 0;
            }
        }
        match size {
            Some(size) if !entry.ack_set.is_empty() || self.acks.knows_partials() => {
                self.acks.narrow(position, size, &mut entry.ack_set).unwrap_or(entry.members)
            }
            _ => entry.members,
        }
    }

    /// ACTIVE_CONSUMER_CHANGE.
    pub fn on_active_change(&mut self, active: bool) {
        self.active = Some(active);
    }

    /// REACHED_END_OF_TOPIC.
    pub fn on_end_of_topic(&mut self) {
        self.end_of_topic = true;
    }

    /// The broker's answer to something asked in [`poll_transmit`](Self::poll_transmit), on whichever connection.
    pub fn on_answer(&mut self, op: Op, result: Response, _now: Now, deferred: &mut Deferred) {
        if self.state == State::Finished {
            return;
        }
        self.dirty = true;
        if op.kind == OpKind::Close {
            return self.on_close_answer(op, result, deferred);
        }
        match result {
            Ok(answer) => self.on_success(op, &answer, deferred),
            Err(RequestError::Disconnected) => self.operations.ask_again(op.number),
            Err(error) => {
                let Some(work) = self.operations.take(op.number) else { return };
                let error = error.into_error(work.doing());
                self.fail_operation(work, error, deferred);
            }
        }
    }

    fn on_close_answer(&mut self, op: Op, result: Response, deferred: &mut Deferred) {
        if self.closing.as_ref().is_none_or(|closing| closing.asked != Some(op.number)) {
            return;
        }
        let result = match result {
            // A connection that is gone has taken its consumers along.
            Ok(_) | Err(RequestError::Disconnected) => Ok(()),
            Err(error) => Err(error.into_error("the consumer's close request").with_topic(&self.topic)),
        };
        self.finish(result, deferred);
    }

    fn on_success(&mut self, op: Op, answer: &Command, deferred: &mut Deferred) {
        if op.kind == OpKind::Seek {
            return self.on_seek_success(op.number, deferred);
        }
        let Some(work) = self.operations.take(op.number) else { return };
        match (work, answer) {
            (Work::Ack { ids, cumulative, reply, .. }, _) => {
                if cumulative {
                    ids.iter().for_each(|id| self.acks.confirmed_up_to(id));
                }
                // Not before: if it had failed, what was negatively acknowledged would have to come again.
                for id in ids.iter().filter(|id| id.ack_set.is_empty()) {
                    let position = Position { ledger_id: id.ledger_id, entry_id: id.entry_id };
                    if cumulative { self.redelivery.forget_up_to(position) } else { self.redelivery.forget(position) }
                }
                reply.answer(Ok(()), deferred);
            }
            (Work::Unsubscribe { reply, .. }, _) => {
                reply.answer(Ok(()), deferred);
                // It is gone with its subscription: there is nothing left to close.
                self.closed_at_broker = true;
                let gone = Error::local(ErrorKind::Closed, "the subscription was deleted by unsubscribe");
                self.end(gone.with_topic(&self.topic), deferred);
                self.finish(Ok(()), deferred);
            }
            (Work::LastMessageId { reply }, Command::GetLastMessageIdResponse(response)) => {
                reply.answer(Ok(LastMessageId::read(response, self.partition)), deferred);
            }
            (Work::Stats { reply }, Command::ConsumerStatsResponse(response)) => {
                reply.answer(Ok(response.clone()), deferred);
            }
            (work, answer) => {
                let what = format!("the broker answered {} with {}", work.doing(), answer.name());
                work.refuse(Error::protocol(what).with_topic(&self.topic), deferred);
            }
        }
    }

    /// On a persistent topic the broker has closed this consumer by now, and the seek ends with the next attach. On a
    /// non-persistent one it stays.
    fn on_seek_success(&mut self, number: u64, deferred: &mut Deferred) {
        let Some(Work::Seek { to, .. }) = self.operations.set_done(number) else { return };
        self.start = Start::of(to);
        if self.state != State::Attached {
            return;
        }
        let Some(Work::Seek { reply, .. }) = self.operations.take(number) else { return };
        self.seeking = false;
        reply.answer(Ok(()), deferred);
    }

    fn fail_operation(&mut self, work: Work, error: Error, deferred: &mut Deferred) {
        if matches!(work, Work::Seek { .. }) {
            self.seeking = false;
            if self.state == State::Attached {
                // What was thrown away for it is wanted after all.
                self.redeliver_everything();
            }
        }
        if let Work::Ack { ids, members, .. } = &work {
            self.acks.take_back(ids, members);
            self.acks.flush();
        }
        work.refuse(error.with_topic(&self.topic), deferred);
    }

    /// It is over: whoever waits, and whoever calls later, gets the error.
    pub fn fail(&mut self, error: Error, deferred: &mut Deferred) {
        if self.state == State::Finished {
            return;
        }
        let error = error.with_topic(&self.topic);
        if self.ended.is_none() {
            self.end(error.clone(), deferred);
        }
        self.finish(Err(error), deferred);
    }

    /// Writes what is due: acknowledgements, then what is to come again, then permits, then questions, then the close.
    pub fn poll_transmit(&mut self, out: &mut Outbox<'_>, now: Now) -> More {
        if self.state != State::Attached {
            return More::No;
        }
        if self.closing.as_ref().is_some_and(|closing| closing.asked.is_some()) {
            // The broker does not know this consumer any more.
            return More::No;
        }
        let id = self.id.0;
        // Before a rewind or a close every acknowledgement has to be there.
        let flush = self.closing.is_some() || self.redelivery.has_pending() || self.acks.is_due(now);
        if flush && !self.acks.transmit(id, out) {
            return More::Yes;
        }
        if !self.redelivery.transmit(id, out) {
            return More::Yes;
        }
        if self.ended.is_none() {
            while let Some(permits) = self.permits.take_flow() {
                put_flow(out.tx.flat(), id, permits);
            }
        }
        if self.operations.is_seek_waiting() {
            // They have been written just now; what is known of batches is void once the position moves.
            self.acks.forget();
        }
        self.operations.ask(id, |op, command| out.request(op, command));
        self.ask_close(out);
        self.check();
        More::No
    }

    /// The close follows the last confirmation: a broker answers nothing for a consumer it does not know.
    fn ask_close(&mut self, out: &mut Outbox<'_>) {
        let Some(Closing { asked: asked @ None, .. }) = &mut self.closing else { return };
        if !self.operations.is_empty() {
            return;
        }
        let number = self.operations.next_number();
        *asked = Some(number);
        self.closed_at_broker = true;
        let close = pb::CommandCloseConsumer { consumer_id: self.id.0, ..Default::default() };
        out.request(Op { kind: OpKind::Close, number }, Command::CloseConsumer(close));
    }

    /// When something is due.
    pub fn poll_deadline(&self) -> Option<Deadline> {
        if self.state == State::Finished {
            return None;
        }
        let operations = self.operations.due_at().map(|at| Deadline::new(at, "an operation is to be answered"));
        let closing = self.closing.as_ref().and_then(|closing| closing.deadline);
        let mut next = Deadline::earlier(self.subscribe_deadline, Deadline::earlier(operations, closing));
        if self.state == State::Attached {
            let acks = self.acks.due_at().map(|at| Deadline::new(at, "acknowledgements are to be sent"));
            let nacks = self.redelivery.due_at().map(|at| Deadline::new(at, "messages are to be asked for again"));
            next = Deadline::earlier(next, Deadline::earlier(acks, nacks));
        }
        next
    }

    /// Does what is due. Acknowledgements that are due are written by [`poll_transmit`](Self::poll_transmit).
    pub fn handle_deadline(&mut self, now: Now, deferred: &mut Deferred) {
        if self.state == State::Finished {
            return;
        }
        if self.subscribe_deadline.is_some_and(|deadline| deadline.is_due(now)) {
            let why = format!("timed out after {:?} waiting for the subscription", self.config.operation_timeout);
            return self.fail(Error::local(ErrorKind::TimedOut, why), deferred);
        }
        while let Some(work) = self.operations.take_overdue(now) {
            let error = RequestError::TimedOut.into_error(work.doing());
            self.fail_operation(work, error, deferred);
            self.dirty = true;
        }
        if self.closing.as_ref().and_then(|closing| closing.deadline).is_some_and(|deadline| deadline.is_due(now)) {
            let late = RequestError::TimedOut.into_error("the consumer's close request");
            return self.finish(Err(late.with_topic(&self.topic)), deferred);
        }
        self.finish_if_closed_while_detached(deferred);
        if self.state == State::Attached {
            self.handle_due_nacks(now);
        }
    }

    fn handle_due_nacks(&mut self, now: Now) {
        let mut due = self.redelivery.take_due(now);
        if due.is_empty() {
            return;
        }
        self.dirty = true;
        if self.config.subscription_type.is_in_order() {
            return self.redeliver_everything();
        }
        self.redelivery.ask_for(&due);
        due.sort_unstable();
        self.drop_queued(|position| due.binary_search(&position).is_ok());
        self.note_flow();
    }

    /// Copies in the queue of what comes again would be delivered twice.
    fn drop_queued(&mut self, dropped: impl Fn(Position) -> bool) {
        let mut members = 0u64;
        self.queue.retain(|entry| {
            let drop = dropped(entry.position());
            members += if drop { entry.members.into() } else { 0 };
            !drop
        });
        self.permits.cleared(members);
    }

    /// Asks for everything that is not acknowledged, and throws away what is on its way to the user.
    pub(super) fn redeliver_everything(&mut self) {
        self.redelivery.ask_for_all();
        self.clear_queue();
        self.dirty = true;
    }

    /// Throws the queue away, its permits come home.
    pub(super) fn clear_queue(&mut self) {
        self.permits.cleared(self.permits.queued());
        self.throw_away_queue();
        self.note_flow();
    }

    fn throw_away_queue(&mut self) {
        self.queue.clear();
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Nothing is received any more.
    pub(super) fn end(&mut self, error: Error, deferred: &mut Deferred) {
        self.ended = Some(error);
        self.clear_queue();
        self.mark_inbox(deferred);
    }

    fn mark_inbox(&mut self, deferred: &mut Deferred) {
        if !std::mem::replace(&mut self.inboxed, true) {
            if let Some(waker) = self.inbox.notify(EndpointId::Consumer(self.id)) {
                deferred.wake(waker);
            }
        }
    }

    /// The end of its life. `closed` is for those who wait for the close.
    fn finish(&mut self, closed: Result<()>, deferred: &mut Deferred) {
        self.state = State::Finished;
        self.dirty = true;
        let gone = match (&closed, &self.ended) {
            (Err(error), _) | (Ok(()), Some(error)) => error.clone(),
            (Ok(()), None) => Error::local(ErrorKind::Closed, "the consumer is closed").with_topic(&self.topic),
        };
        if let Some(subscribed) = self.subscribed.take() {
            subscribed.answer(Err(gone.clone()), deferred);
        }
        self.operations.refuse_all(&gone, deferred);
        for reply in self.closing.take().into_iter().flat_map(|closing| closing.replies) {
            reply.answer(closed.clone(), deferred);
        }
        if self.ended.is_none() {
            self.end(gone, deferred);
        }
        self.acks.forget();
        self.redelivery.restart();
    }

    /// Whether it is over, and its server may forget it.
    pub fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// Whether the broker knows that this consumer is over: it was closed or unsubscribed.
    pub fn is_closed_at_broker(&self) -> bool {
        self.closed_at_broker
    }

    /// The ledger of permits, after every event.
    #[inline]
    pub(super) fn check(&self) {
        debug_assert!(self.permits.is_balanced(), "a permit was lost or invented: {:?}", self.permits);
        debug_assert_eq!(
            self.queue.iter().map(|entry| u64::from(entry.members)).sum::<u64>(),
            self.permits.queued(),
            "the queue holds what the permits say"
        );
    }
}

fn key_values(pairs: &[(String, String)]) -> Vec<pb::KeyValue> {
    pairs.iter().map(|(key, value)| pb::KeyValue { key: key.clone(), value: value.clone() }).collect()
}
