//! What the broker says: whole frames in, each to the guest it is for.

use bytes::{Bytes, BytesMut};

use super::{Phase, Session};
use crate::error::ServerError;
use crate::id::{ConsumerId, ProducerId};
use crate::machine::connection::Event;
use crate::machine::connection::peer::ProtocolViolation;
use crate::machine::consumer::{Consumer, Entry};
use crate::machine::control::{CloseReason, EndpointRef, SessionEvent};
use crate::machine::producer::AfterSendError;
use crate::machine::{Deferred, EndpointId, Now};
use crate::pb;
use crate::wire::frame::{HotFrame, cut, frames};
use crate::wire::hot::{MessageHead, Receipt};

/// Entries handed to a consumer under one lock.
const ENTRIES_RUN_MAX: usize = 64;

/// Frames of one read buffer for one endpoint, handed over as a run.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    consumer: Option<ConsumerId>,
    entries: Vec<Entry>,
    producer: Option<ProducerId>,
    receipts: Vec<Receipt>,
}

impl Session {
    /// Takes what was read. Whole frames are consumed; an `Err` ends the connection.
    pub fn handle_read(&mut self, rx: &mut BytesMut, now: Now, deferred: &mut Deferred) -> Result<(), CloseReason> {
        loop {
            let run = match cut(rx, self.connection.limits()) {
                Ok(Some(run)) => run,
                Ok(None) => return Ok(()),
                Err(error) => return Err(not_the_protocol(rx, &error)),
            };
            let mut frames = frames(run);
            while let Some(frame) = frames.next_hot() {
                let unreadable =
                    |error| CloseReason::PeerBroke(ProtocolViolation::new(format!("unreadable frame: {error}")));
                let handled = frame.map_err(unreadable).and_then(|frame| self.handle_frame(frame, now, deferred));
                if let Err(reason) = handled {
                    // What came before the bad frame was good.
                    self.hand_over(now, deferred)?;
                    return Err(reason);
                }
            }
            self.hand_over(now, deferred)?;
        }
    }

    #[inline]
    fn handle_frame(&mut self, frame: HotFrame, now: Now, deferred: &mut Deferred) -> Result<(), CloseReason> {
        match frame {
            HotFrame::Message(head, raw) => {
                self.connection.handle_hot("MESSAGE")?;
                self.take_message(head, raw, now, deferred);
                Ok(())
            }
            HotFrame::Receipt(receipt) => {
                self.connection.handle_hot("SEND_RECEIPT")?;
                self.take_receipt(receipt, deferred)
            }
            HotFrame::Other(frame) => match self.connection.handle_frame(*frame)? {
                Some(event) => self.handle_event(event, now, deferred),
                None => Ok(()),
            },
        }
    }

    #[inline]
    fn take_message(&mut self, head: MessageHead, raw: Bytes, now: Now, deferred: &mut Deferred) {
        let consumer = ConsumerId(head.consumer_id);
        if self.inbound.consumer != Some(consumer) || self.inbound.entries.len() == ENTRIES_RUN_MAX {
            self.hand_over_entries(now, deferred);
            self.inbound.consumer = Some(consumer);
        }
        self.inbound.entries.push(Entry::read(head, raw));
    }

    #[inline]
    fn take_receipt(&mut self, receipt: Receipt, deferred: &mut Deferred) -> Result<(), CloseReason> {
        let producer = ProducerId(receipt.producer_id);
        if self.inbound.producer != Some(producer) {
            self.hand_over_receipts(deferred)?;
            self.inbound.producer = Some(producer);
        }
        self.inbound.receipts.push(receipt);
        Ok(())
    }

    fn handle_event(&mut self, event: Event, now: Now, deferred: &mut Deferred) -> Result<(), CloseReason> {
        match event {
            Event::Message(head, raw) => {
                self.take_message(head, raw, now, deferred);
                return Ok(());
            }
            Event::Receipt(receipt) => return self.take_receipt(receipt, deferred),
            _ => {}
        }
        // All else keeps its place behind the messages and receipts that came before it.
        self.hand_over(now, deferred)?;
        match event {
            Event::Ready(peer) => self.notices.push_back(SessionEvent::Up(peer)),
            Event::Challenge => {
                // One at a time: a broker that repeats itself is answered once.
                if !std::mem::replace(&mut self.challenged, true) {
                    self.notices.push_back(SessionEvent::Challenged);
                }
            }
            Event::Answer(asker, result) => self.handle_answer(asker, result, now, deferred),
            Event::Waits(producer, success) => self.tell_that_it_waits(producer, &success, now, deferred),
            Event::SendError(producer, sequence_id, error) => {
                self.handle_send_error(producer, sequence_id, error, now, deferred);
            }
            Event::Closed(id, moved_to) => {
                self.give_up(id, now, deferred, |attempt| SessionEvent::Detached(id, attempt, moved_to))
            }
            Event::ActiveChange(id, active) => {
                self.with_consumer(id, deferred, |consumer| consumer.on_active_change(active));
            }
            Event::EndOfTopic(id) => self.with_consumer(id, deferred, Consumer::on_end_of_topic),
            Event::Message(..) | Event::Receipt(_) => {}
        }
        Ok(())
    }

    fn hand_over(&mut self, now: Now, deferred: &mut Deferred) -> Result<(), CloseReason> {
        self.hand_over_entries(now, deferred);
        self.hand_over_receipts(deferred)
    }

    fn hand_over_entries(&mut self, now: Now, deferred: &mut Deferred) {
        let Some(id) = self.inbound.consumer.take() else { return };
        // Messages for a consumer that is not here any more are dropped: the broker delivers them again.
        if let Some(guest) = self.consumers.get(&id).filter(|guest| guest.phase == Phase::Attached) {
            let entries = &mut self.inbound.entries;
            guest.endpoint.with(deferred, |consumer, deferred| consumer.on_entries(entries, now, deferred));
        }
        self.inbound.entries.clear();
    }

    fn hand_over_receipts(&mut self, deferred: &mut Deferred) -> Result<(), CloseReason> {
        let Some(id) = self.inbound.producer.take() else { return Ok(()) };
        let receipts = &self.inbound.receipts;
        let result = if let Some(guest) = self.producers.get(&id) {
            guest.endpoint.with(deferred, |producer, deferred| producer.on_receipts(receipts, deferred))
        } else {
            // Receipts that follow a CLOSE_PRODUCER are real; one that fits nothing is not worth the connection.
            if let Some(EndpointRef::Producer(endpoint)) = self.former.get(&EndpointId::Producer(id)) {
                let _ = endpoint.with(deferred, |producer, deferred| producer.on_receipts(receipts, deferred));
            }
            Ok(())
        };
        self.inbound.receipts.clear();
        result.map_err(CloseReason::PeerBroke)
    }

    fn with_consumer(&mut self, id: ConsumerId, deferred: &mut Deferred, work: impl FnOnce(&mut Consumer)) {
        if let Some(guest) = self.consumers.get(&id) {
            guest.endpoint.with(deferred, |consumer, _| work(consumer));
        }
    }

    fn handle_send_error(
        &mut self,
        id: ProducerId,
        sequence_id: u64,
        error: ServerError,
        now: Now,
        deferred: &mut Deferred,
    ) {
        let Some(guest) = self.producers.get(&id) else { return };
        let after = guest
            .endpoint
            .with(deferred, |producer, deferred| producer.on_send_error(sequence_id, error, now, deferred));
        if after == AfterSendError::Reattach {
            let id = EndpointId::Producer(id);
            self.give_up(id, now, deferred, |attempt| SessionEvent::Detached(id, attempt, None));
        }
    }

    /// The producer stays as it is, Opening, but the time limit of its creation ends.
    fn tell_that_it_waits(
        &mut self,
        id: ProducerId,
        success: &pb::CommandProducerSuccess,
        now: Now,
        deferred: &mut Deferred,
    ) {
        let (Some(guest), Some(peer)) = (self.producers.get(&id), self.connection.peer()) else { return };
        guest.endpoint.with(deferred, |producer, deferred| producer.on_attached(success, peer, now, deferred));
    }
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
    CloseReason::PeerBroke(ProtocolViolation::new(what))
}
