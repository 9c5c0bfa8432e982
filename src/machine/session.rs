//! One connection with its guests: the endpoints attached to it.
//!
//! A session routes what the broker says to the endpoint it is for, and gives each endpoint that has something to
//! do its turn to write. The tokio driver and the simulator use it alike: bytes in by [`Session::handle_read`], bytes
//! out by [`Session::poll_transmit`], news for the supervisor by [`Session::poll_notice`].
//!
//! It owns the connection and no endpoint: an endpoint lives in its handle, and is a guest here while this is its
//! server. When the session ends, every guest goes back to the supervisor's list.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use bytes::{Bytes, BytesMut};

use super::connection::{Asker, Connection, ConnectionConfig, Event};
use super::consumer::{Consumer, Entry};
use super::control::{
    Attempt, AuthData, CloseReason, EndpointRef, RequestError, SessionCommand, SessionNotice, Violation,
};
use super::deadlines::Deadlines;
use super::outbox::{More, Op, Outbox, Outcome};
use super::producer::{AfterSendError, Producer};
use super::ring::Ring;
use super::sabotage::{self, Sabotage};
use super::{Deadline, Endpoint, EndpointId, Now, ReadyList, Wakes};
use crate::error::ServerError;
use crate::id::{ConsumerId, ProducerId};
use crate::pb;
use crate::wire::command::Command;
use crate::wire::frame::{HotFrame, Limits, cut, frames};
use crate::wire::hot::{MessageHead, Receipt};
use crate::wire::tx::TxBuf;

/// What one endpoint may write in its turn, so that a thousand of them share a connection evenly.
const QUANTUM_BYTES: usize = 64 * 1024;

/// No endpoint gets a turn while this much waits to be written.
const TX_BYTES_MAX: usize = 256 * 1024;

/// Entries handed to a consumer under one lock.
const ENTRIES_RUN_MAX: usize = 64;

/// ```text
///          SUCCESS, PRODUCER_SUCCESS
/// Opening ---------------------------> Attached
///    |                                    |
///    +------> given up (refused,  <-------+  closed by the broker, link lost
///             no answer, finished)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Attached,
}

#[derive(Debug)]
struct Guest<M> {
    endpoint: Arc<Endpoint<M>>,
    attempt: Attempt,
    phase: Phase,
}

/// A connection and its guests.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    /// The ids of guests with something to do.
    ready: Arc<ReadyList>,
    /// Where guests go that lose their place here.
    supervisor: Arc<ReadyList>,
    producers: BTreeMap<ProducerId, Guest<Producer>>,
    consumers: BTreeMap<ConsumerId, Guest<Consumer>>,
    /// Guests that the broker closed: their receipts and answers may still arrive on this connection. At most one
    /// for each endpoint of the client that is not finished.
    former: BTreeMap<EndpointId, EndpointRef>,
    /// Guests in turn.
    ring: Ring,
    deadlines: Deadlines<EndpointId>,
    notices: VecDeque<SessionNotice>,
    /// The broker waits for fresh credentials, and the supervisor knows.
    challenged: bool,
    asks: Vec<(Op, Command)>,
    inbound: Inbound,
}

/// Frames of one read buffer for one endpoint, handed over as a run.
#[derive(Debug, Default)]
struct Inbound {
    consumer: Option<ConsumerId>,
    entries: Vec<Entry>,
    producer: Option<ProducerId>,
    receipts: Vec<Receipt>,
}

impl Session {
    /// A session on a connection that has just been made; guests that lose it go to `supervisor`.
    pub fn new(config: ConnectionConfig, credentials: AuthData, supervisor: Arc<ReadyList>, now: Now) -> Self {
        Self {
            connection: Connection::new(config, credentials, now),
            ready: ReadyList::new(),
            supervisor,
            producers: BTreeMap::new(),
            consumers: BTreeMap::new(),
            former: BTreeMap::new(),
            ring: Ring::default(),
            deadlines: Deadlines::default(),
            notices: VecDeque::new(),
            challenged: false,
            asks: Vec::new(),
            inbound: Inbound::default(),
        }
    }

    /// Carries out what the supervisor says.
    pub fn handle_command(&mut self, command: SessionCommand, now: Now, wakes: &mut Wakes) {
        match command {
            SessionCommand::Ask(ask, command) => self.connection.request(*command, Asker::Supervisor(ask), now),
            SessionCommand::Challenge(credentials) => {
                self.challenged = false;
                self.connection.answer_challenge(credentials);
            }
            SessionCommand::Open(endpoint, attempt) => self.open(endpoint, attempt, now, wakes),
        }
    }

    /// Makes the endpoint a guest *before* its PRODUCER or SUBSCRIBE is written, so that nothing the broker says
    /// of it goes astray.
    fn open(&mut self, endpoint: EndpointRef, attempt: Attempt, now: Now, wakes: &mut Wakes) {
        let id = endpoint.id();
        self.former.remove(&id);
        endpoint.move_to(&self.ready, wakes);
        let request = match endpoint {
            EndpointRef::Producer(endpoint) => {
                let request = endpoint.with(wakes, |producer, _| Command::Producer(producer.open_request(now)));
                let EndpointId::Producer(key) = id else { return };
                self.producers.insert(key, Guest { endpoint, attempt, phase: Phase::Opening });
                request
            }
            EndpointRef::Consumer(endpoint) => {
                let request = endpoint.with(wakes, |consumer, _| Command::Subscribe(consumer.subscribe_request(now)));
                let EndpointId::Consumer(key) = id else { return };
                self.consumers.insert(key, Guest { endpoint, attempt, phase: Phase::Opening });
                request
            }
        };
        self.connection.request(request, Asker::Open(id, attempt), now);
    }

    /// The bounds of inbound frames at the moment.
    pub fn limits(&self) -> &Limits {
        self.connection.limits()
    }

    /// Takes what was read. Whole frames are consumed; an `Err` ends the connection.
    pub fn handle_read(&mut self, rx: &mut BytesMut, now: Now, wakes: &mut Wakes) -> Result<(), CloseReason> {
        loop {
            let run = match cut(rx, self.connection.limits()) {
                Ok(Some(run)) => run,
                Ok(None) => return Ok(()),
                Err(error) => return Err(not_the_protocol(rx, &error)),
            };
            let mut frames = frames(run);
            while let Some(frame) = frames.next_hot() {
                let unreadable = |error| CloseReason::PeerBroke(Violation::new(format!("unreadable frame: {error}")));
                let handled = frame.map_err(unreadable).and_then(|frame| self.handle_frame(frame, now, wakes));
                if let Err(reason) = handled {
                    // What came before the bad frame was good.
                    self.hand_over(now, wakes)?;
                    return Err(reason);
                }
            }
            self.hand_over(now, wakes)?;
        }
    }

    #[inline]
    fn handle_frame(&mut self, frame: HotFrame, now: Now, wakes: &mut Wakes) -> Result<(), CloseReason> {
        match frame {
            HotFrame::Message(head, raw) => {
                self.connection.handle_hot("MESSAGE")?;
                self.take_message(head, raw, now, wakes);
                Ok(())
            }
            HotFrame::Receipt(receipt) => {
                self.connection.handle_hot("SEND_RECEIPT")?;
                self.take_receipt(receipt, wakes)
            }
            HotFrame::Other(frame) => match self.connection.handle_frame(*frame)? {
                Some(event) => self.handle_event(event, now, wakes),
                None => Ok(()),
            },
        }
    }

    #[inline]
    fn take_message(&mut self, head: MessageHead, raw: Bytes, now: Now, wakes: &mut Wakes) {
        let consumer = ConsumerId(head.consumer_id);
        if self.inbound.consumer != Some(consumer) || self.inbound.entries.len() == ENTRIES_RUN_MAX {
            self.hand_over_entries(now, wakes);
            self.inbound.consumer = Some(consumer);
        }
        self.inbound.entries.push(Entry::read(head, raw));
    }

    #[inline]
    fn take_receipt(&mut self, receipt: Receipt, wakes: &mut Wakes) -> Result<(), CloseReason> {
        let producer = ProducerId(receipt.producer_id);
        if self.inbound.producer != Some(producer) {
            self.hand_over_receipts(wakes)?;
            self.inbound.producer = Some(producer);
        }
        self.inbound.receipts.push(receipt);
        Ok(())
    }

    fn handle_event(&mut self, event: Event, now: Now, wakes: &mut Wakes) -> Result<(), CloseReason> {
        match event {
            Event::Message(head, raw) => {
                self.take_message(head, raw, now, wakes);
                return Ok(());
            }
            Event::Receipt(receipt) => return self.take_receipt(receipt, wakes),
            _ => {}
        }
        // All else keeps its place behind the messages and receipts that came before it.
        self.hand_over(now, wakes)?;
        match event {
            Event::Ready(peer) => self.notices.push_back(SessionNotice::Up(peer)),
            Event::Challenge => {
                // One at a time: a broker that repeats itself is answered once.
                if !std::mem::replace(&mut self.challenged, true) {
                    self.notices.push_back(SessionNotice::Challenged);
                }
            }
            Event::Answer(asker, result) => self.handle_answer(asker, result, now, wakes),
            Event::Waits(producer, success) => self.tell_that_it_waits(producer, &success, now, wakes),
            Event::SendError(producer, sequence_id, error) => {
                self.handle_send_error(producer, sequence_id, error, now, wakes);
            }
            Event::Closed(EndpointId::Producer(_), _) if sabotage::is(Sabotage::IgnoreCloseProducer) => {}
            Event::Closed(id, moved_to) => {
                self.give_up(id, now, wakes, |attempt| SessionNotice::Detached(id, attempt, moved_to))
            }
            Event::ActiveChange(id, active) => {
                self.with_consumer(id, wakes, |consumer| consumer.on_active_change(active));
            }
            Event::EndOfTopic(id) => self.with_consumer(id, wakes, Consumer::on_end_of_topic),
            Event::Message(..) | Event::Receipt(_) => {}
        }
        Ok(())
    }

    fn hand_over(&mut self, now: Now, wakes: &mut Wakes) -> Result<(), CloseReason> {
        self.hand_over_entries(now, wakes);
        self.hand_over_receipts(wakes)
    }

    fn hand_over_entries(&mut self, now: Now, wakes: &mut Wakes) {
        let Some(id) = self.inbound.consumer.take() else { return };
        // Messages for a consumer that is not here any more are dropped: the broker delivers them again.
        if let Some(guest) = self.consumers.get(&id).filter(|guest| guest.phase == Phase::Attached) {
            let entries = &mut self.inbound.entries;
            guest.endpoint.with(wakes, |consumer, wakes| consumer.on_entries(entries, now, wakes));
        }
        self.inbound.entries.clear();
    }

    fn hand_over_receipts(&mut self, wakes: &mut Wakes) -> Result<(), CloseReason> {
        let Some(id) = self.inbound.producer.take() else { return Ok(()) };
        let receipts = &self.inbound.receipts;
        let result = match (self.producers.get(&id), self.former.get(&EndpointId::Producer(id))) {
            (Some(guest), _) => guest.endpoint.with(wakes, |producer, wakes| producer.on_receipts(receipts, wakes)),
            // Receipts that follow a CLOSE_PRODUCER are real; one that fits nothing is not worth the connection.
            (None, Some(EndpointRef::Producer(endpoint))) => {
                let _ = endpoint.with(wakes, |producer, wakes| producer.on_receipts(receipts, wakes));
                Ok(())
            }
            _ => Ok(()),
        };
        self.inbound.receipts.clear();
        result.map_err(CloseReason::PeerBroke)
    }

    fn with_consumer(&mut self, id: ConsumerId, wakes: &mut Wakes, work: impl FnOnce(&mut Consumer)) {
        if let Some(guest) = self.consumers.get(&id) {
            guest.endpoint.with(wakes, |consumer, _| work(consumer));
        }
    }

    fn handle_send_error(&mut self, id: ProducerId, sequence_id: u64, error: ServerError, now: Now, wakes: &mut Wakes) {
        let Some(guest) = self.producers.get(&id) else { return };
        let after =
            guest.endpoint.with(wakes, |producer, wakes| producer.on_send_error(sequence_id, error, now, wakes));
        if after == AfterSendError::Reattach {
            let id = EndpointId::Producer(id);
            self.give_up(id, now, wakes, |attempt| SessionNotice::Detached(id, attempt, None));
        }
    }

    fn handle_answer(&mut self, asker: Asker, result: Outcome, now: Now, wakes: &mut Wakes) {
        match asker {
            Asker::Supervisor(ask) => self.notices.push_back(SessionNotice::Answer(ask, result)),
            Asker::Open(id, attempt) => self.handle_open_answer(id, attempt, result, now, wakes),
            Asker::Endpoint(id, op) => self.handle_op_answer(id, op, result, now, wakes),
            Asker::Nobody => {}
        }
    }

    fn handle_op_answer(&mut self, id: EndpointId, op: Op, result: Outcome, now: Now, wakes: &mut Wakes) {
        let Some(endpoint) = self.endpoint(id) else { return };
        match endpoint {
            EndpointRef::Producer(endpoint) => {
                endpoint.with(wakes, |producer, wakes| producer.on_answer(op, result, now, wakes));
            }
            EndpointRef::Consumer(endpoint) => {
                endpoint.with(wakes, |consumer, wakes| consumer.on_answer(op, result, now, wakes));
            }
        }
        // An answer can finish the endpoint or let it write again: it gets a turn.
        self.ring.push_back(id);
    }

    /// A guest, or a former one.
    fn endpoint(&self, id: EndpointId) -> Option<EndpointRef> {
        let guest = match id {
            EndpointId::Producer(id) => {
                self.producers.get(&id).map(|guest| EndpointRef::Producer(guest.endpoint.clone()))
            }
            EndpointId::Consumer(id) => {
                self.consumers.get(&id).map(|guest| EndpointRef::Consumer(guest.endpoint.clone()))
            }
        };
        guest.or_else(|| self.former.get(&id).cloned())
    }

    fn handle_open_answer(&mut self, id: EndpointId, attempt: Attempt, result: Outcome, now: Now, wakes: &mut Wakes) {
        let present = self.attempt_of(id);
        let (is_guest, wanted) = (present.is_some(), present == Some(attempt));
        match result {
            Ok(answer) if wanted => self.attached(id, attempt, &answer, now, wakes),
            // A later attempt has its own answer to come, and closing the id would close that one.
            Ok(_) if is_guest => {}
            // Nobody waits for it any more; without this the broker would keep a ghost.
            Ok(_) => self.close_at_broker(id, now),
            Err(error) => {
                if error == RequestError::TimedOut && (wanted || !is_guest) {
                    // The broker may still finish it: close first, then try again.
                    self.close_at_broker(id, now);
                }
                if wanted {
                    self.give_up(id, now, wakes, |attempt| SessionNotice::OpenFailed(id, attempt, error));
                }
            }
        }
    }

    fn attempt_of(&self, id: EndpointId) -> Option<Attempt> {
        match id {
            EndpointId::Producer(id) => self.producers.get(&id).map(|guest| guest.attempt),
            EndpointId::Consumer(id) => self.consumers.get(&id).map(|guest| guest.attempt),
        }
    }

    fn attached(&mut self, id: EndpointId, attempt: Attempt, answer: &Command, now: Now, wakes: &mut Wakes) {
        let Some(peer) = self.connection.peer() else { return };
        match (id, answer) {
            (EndpointId::Producer(key), Command::ProducerSuccess(opened)) => {
                let Some(guest) = self.producers.get_mut(&key) else { return };
                guest.phase = Phase::Attached;
                guest.endpoint.with(wakes, |producer, wakes| producer.on_attached(opened, peer, now, wakes));
            }
            (EndpointId::Consumer(key), _) => {
                let Some(guest) = self.consumers.get_mut(&key) else { return };
                guest.phase = Phase::Attached;
                guest.endpoint.with(wakes, |consumer, wakes| consumer.on_attached(peer, now, wakes));
            }
            // `answer_of` lets only PRODUCER_SUCCESS answer PRODUCER.
            (EndpointId::Producer(_), _) => return,
        }
        self.ring.push_back(id);
        self.notices.push_back(SessionNotice::Opened(id, attempt));
    }

    /// The producer stays as it is, Opening, but the time limit of its creation ends.
    fn tell_that_it_waits(
        &mut self,
        id: ProducerId,
        success: &pb::CommandProducerSuccess,
        now: Now,
        wakes: &mut Wakes,
    ) {
        let (Some(guest), Some(peer)) = (self.producers.get(&id), self.connection.peer()) else { return };
        guest.endpoint.with(wakes, |producer, wakes| producer.on_attached(success, peer, now, wakes));
    }

    fn close_at_broker(&mut self, id: EndpointId, now: Now) {
        let command = match id {
            EndpointId::Producer(id) => {
                Command::CloseProducer(pb::CommandCloseProducer { producer_id: id.0, ..Default::default() })
            }
            EndpointId::Consumer(id) => {
                Command::CloseConsumer(pb::CommandCloseConsumer { consumer_id: id.0, ..Default::default() })
            }
        };
        self.connection.request(command, Asker::Nobody, now);
    }

    /// Hands a guest back to the supervisor, detached, and says why.
    fn give_up(&mut self, id: EndpointId, now: Now, wakes: &mut Wakes, notice: impl FnOnce(Attempt) -> SessionNotice) {
        let Some((endpoint, attempt)) = self.remove(id) else { return };
        endpoint.move_to(&self.supervisor, wakes);
        endpoint.detach(now, wakes);
        self.former.retain(|_, former| !former.is_finished());
        self.former.insert(id, endpoint);
        self.notices.push_back(notice(attempt));
    }

    fn remove(&mut self, id: EndpointId) -> Option<(EndpointRef, Attempt)> {
        self.deadlines.set(id, None);
        match id {
            EndpointId::Producer(id) => {
                self.producers.remove(&id).map(|guest| (EndpointRef::Producer(guest.endpoint), guest.attempt))
            }
            EndpointId::Consumer(id) => {
                self.consumers.remove(&id).map(|guest| (EndpointRef::Consumer(guest.endpoint), guest.attempt))
            }
        }
    }

    /// Writes what is due: control first, then the guests in turn, each its quantum. `waker` is left with the ready
    /// list when no guest has anything to do. An `Err` ends the connection.
    pub fn poll_transmit(
        &mut self,
        tx: &mut TxBuf,
        now: Now,
        waker: Option<&Waker>,
        wakes: &mut Wakes,
    ) -> Result<(), CloseReason> {
        self.connection.poll_transmit(tx);
        self.ready.take(&mut self.ring, waker);
        let mut turns = self.ring.len();
        while turns > 0 && tx.len() < TX_BYTES_MAX {
            turns -= 1;
            let Some(id) = self.ring.pop_front() else { break };
            self.serve(id, tx, now, wakes)?;
        }
        // Requests asked by the guests just now.
        self.connection.poll_transmit(tx);
        if self.ring.is_empty() {
            // The waker stays behind only where the list is found empty, and a turn that writes nothing is not
            // followed by another look.
            self.ready.take(&mut self.ring, waker);
        }
        Ok(())
    }

    /// Gives every guest a turn at the next [`poll_transmit`](Self::poll_transmit): one that then does something had
    /// not been marked when it should have been.
    #[cfg(feature = "sim")]
    pub(crate) fn mark_all(&mut self) {
        self.ring.extend(self.producers.keys().map(|id| EndpointId::Producer(*id)));
        self.ring.extend(self.consumers.keys().map(|id| EndpointId::Consumer(*id)));
    }

    /// Whether a guest waits for its turn and `tx` has room for it: then [`poll_transmit`](Self::poll_transmit) is to be
    /// called again, for nobody will wake the task.
    pub fn wants_transmit(&self, tx: &TxBuf) -> bool {
        !self.ring.is_empty() && tx.len() < TX_BYTES_MAX
    }

    fn serve(&mut self, id: EndpointId, tx: &mut TxBuf, now: Now, wakes: &mut Wakes) -> Result<(), CloseReason> {
        let mut asks = std::mem::take(&mut self.asks);
        let mut out = Outbox::new(tx, QUANTUM_BYTES, &mut asks);
        let turn = match id {
            EndpointId::Producer(key) => self
                .producers
                .get(&key)
                .and_then(|guest| serve_producer(&guest.endpoint, &self.ready, &mut out, now, wakes)),
            EndpointId::Consumer(key) => self
                .consumers
                .get(&key)
                .and_then(|guest| serve_consumer(&guest.endpoint, &self.ready, &mut out, now, wakes)),
        };
        for (op, command) in asks.drain(..) {
            self.connection.request(command, Asker::Endpoint(id, op), now);
        }
        self.asks = asks;
        let Some(turn) = turn else { return Ok(()) };
        if turn.unanswered {
            return Err(CloseReason::Io("the broker takes messages and sends no receipts".to_owned()));
        }
        self.deadlines.set(id, turn.deadline);
        if turn.finished {
            self.finish(id, now);
        } else if turn.more == More::Yes {
            self.ring.push_back(id);
        }
        Ok(())
    }

    /// The endpoint is over. One that was never told so by the broker is closed there.
    fn finish(&mut self, id: EndpointId, now: Now) {
        let opening = match id {
            EndpointId::Producer(key) => self.producers.get(&key).map(|guest| guest.phase),
            EndpointId::Consumer(key) => self.consumers.get(&key).map(|guest| guest.phase),
        };
        let closed_there = self.endpoint(id).is_some_and(|endpoint| endpoint.is_closed_at_broker());
        self.remove(id);
        self.former.remove(&id);
        // While it is opening, the late success is answered with the close.
        if opening == Some(Phase::Attached) && !closed_there {
            self.close_at_broker(id, now);
        }
        self.notices.push_back(SessionNotice::Finished(id));
    }

    /// When something is due.
    pub fn poll_deadline(&self) -> Option<Deadline> {
        Deadline::earlier(self.connection.poll_deadline(), self.deadlines.next())
    }

    /// Does what is due; guests that are due get a turn. An `Err` ends the connection.
    pub fn handle_deadline(&mut self, now: Now, wakes: &mut Wakes) -> Result<(), CloseReason> {
        self.connection.handle_deadline(now)?;
        while let Some(asker) = self.connection.poll_expired(now) {
            self.handle_answer(asker, Err(RequestError::TimedOut), now, wakes);
        }
        while let Some(id) = self.deadlines.pop_due(now) {
            self.expire(id, now, wakes);
            self.ring.push_back(id);
        }
        Ok(())
    }

    /// What is overdue ends now: a peer that does not read gives its guests no turn to write, but no time either.
    fn expire(&mut self, id: EndpointId, now: Now, wakes: &mut Wakes) {
        let next = match id {
            EndpointId::Producer(key) => self.producers.get(&key).and_then(|guest| {
                guest.endpoint.serve(&self.ready, |producer| {
                    producer.handle_deadline(now, wakes);
                    producer.poll_deadline()
                })
            }),
            EndpointId::Consumer(key) => self.consumers.get(&key).and_then(|guest| {
                guest.endpoint.serve(&self.ready, |consumer| {
                    consumer.handle_deadline(now, wakes);
                    consumer.poll_deadline()
                })
            }),
        };
        // One that is still due waits for its turn to write; asking again before that would spin.
        self.deadlines.set(id, next.flatten().filter(|deadline| !deadline.is_due(now)));
    }

    /// News for the supervisor.
    pub fn poll_notice(&mut self) -> Option<SessionNotice> {
        self.notices.pop_front()
    }

    /// The connection is over: who waits is told, guests go to the supervisor, and the last notices come out.
    pub fn end(mut self, reason: CloseReason, now: Now, wakes: &mut Wakes) -> Vec<SessionNotice> {
        for asker in self.connection.take_pending() {
            // Guests on their way in are told by `Ended` itself.
            if !matches!(asker, Asker::Open(..)) {
                self.handle_answer(asker, Err(RequestError::Disconnected), now, wakes);
            }
        }
        let producers =
            std::mem::take(&mut self.producers).into_values().map(|guest| EndpointRef::Producer(guest.endpoint));
        let consumers =
            std::mem::take(&mut self.consumers).into_values().map(|guest| EndpointRef::Consumer(guest.endpoint));
        for endpoint in producers.chain(consumers) {
            endpoint.move_to(&self.supervisor, wakes);
            endpoint.detach(now, wakes);
        }
        let mut notices: Vec<_> = self.notices.drain(..).collect();
        notices.push(SessionNotice::Ended(reason));
        notices
    }
}

/// What came of a guest's turn.
struct Turn {
    more: More,
    deadline: Option<Deadline>,
    finished: bool,
    /// So many sends timed out in a row that the connection cannot be trusted.
    unanswered: bool,
}

fn serve_producer(
    endpoint: &Endpoint<Producer>,
    ready: &Arc<ReadyList>,
    out: &mut Outbox<'_>,
    now: Now,
    wakes: &mut Wakes,
) -> Option<Turn> {
    // Sealing (compressing, summing) happens between two locks, so that users go on pushing meanwhile.
    while let Some(job) = endpoint.serve(ready, |producer| producer.take_seal(now))? {
        let sealed = job.run();
        endpoint.serve(ready, |producer| producer.put_sealed(sealed, now, wakes))?;
    }
    endpoint.serve(ready, |producer| {
        producer.handle_deadline(now, wakes);
        let more = producer.poll_transmit(out, now);
        Turn {
            more,
            deadline: producer.poll_deadline(),
            finished: producer.is_finished(),
            unanswered: producer.take_wants_reconnect(),
        }
    })
}

fn serve_consumer(
    endpoint: &Endpoint<Consumer>,
    ready: &Arc<ReadyList>,
    out: &mut Outbox<'_>,
    now: Now,
    wakes: &mut Wakes,
) -> Option<Turn> {
    endpoint.serve(ready, |consumer| {
        consumer.handle_deadline(now, wakes);
        let more = consumer.poll_transmit(out, now);
        Turn { more, deadline: consumer.poll_deadline(), finished: consumer.is_finished(), unanswered: false }
    })
}

/// Says what a peer speaks that does not speak Pulsar, where its first bytes tell.
fn not_the_protocol(rx: &[u8], error: &crate::wire::error::DecodeError) -> CloseReason {
    let what = match rx {
        [b'H', b'T', b'T', b'P', ..] => {
            "the peer speaks HTTP: this is the broker's web port; use its binary port, by default \
             pulsar://host:6650"
                .to_owned()
        }
        [0x15, 0x03, ..] => {
            "the peer speaks TLS: use pulsar+ssl:// and the broker's TLS port, by default 6651".to_owned()
        }
        _ => format!("the peer does not speak the Pulsar protocol, or its frame is damaged: {error}"),
    };
    CloseReason::PeerBroke(Violation::new(what))
}

#[cfg(test)]
mod tests;
