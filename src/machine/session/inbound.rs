//! Frames of the broker, each to the endpoint it is for.

use bytes::{Bytes, BytesMut};

use super::Session;
use crate::error::Error;
use crate::id::{ConsumerId, ProducerId};
use crate::machine::connection::ConnectionEvent;
use crate::machine::connection::error::ProtocolViolation;
use crate::machine::consumer::ReceivedEntry;
use crate::machine::control::{CloseReason, SessionEvent, closed_by_broker, topic_migrated};
use crate::machine::endpoint::machine::{AfterNotification, DataRoute};
use crate::machine::{Deferred, EndpointId, Now};
use crate::wire::command::Command;
use crate::wire::frame::{Frames, InboundFrame, cut, frames};
use crate::wire::hot::{MessageHead, Receipt};

/// Entries given to a consumer under one lock.
const ENTRIES_RUN_MAX: usize = 64;

/// Frames of one read, collected so that those of one endpoint are dispatched under one lock.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    consumer: Option<ConsumerId>,
    /// Of that consumer.
    entries: Vec<ReceivedEntry>,
    /// Of any producers.
    receipts: Vec<Receipt>,
}

impl Session {
    /// Takes what was read. Whole frames are consumed.
    ///
    /// # Errors
    /// The peer broke the protocol or refused the connection, which ends with this reason.
    pub fn handle_read(&mut self, rx: &mut BytesMut, now: Now, deferred: &mut Deferred) -> Result<(), CloseReason> {
        loop {
            let run = match cut(rx, self.connection.limits()) {
                Ok(Some(run)) => run,
                Ok(None) => return Ok(()),
                Err(error) => return Err(not_the_protocol(rx, error)),
            };
            let mut frames = frames(run);
            while let Some(frame) = frames.next_inbound() {
                let unreadable =
                    |error| CloseReason::ProtocolViolation(ProtocolViolation::unreadable("unreadable frame", error));
                let handled =
                    frame.map_err(unreadable).and_then(|frame| self.handle_frame(frame, &mut frames, now, deferred));
                if let Err(reason) = handled {
                    // What came before the bad frame was good.
                    self.dispatch(now, deferred)?;
                    return Err(reason);
                }
            }
            self.dispatch(now, deferred)?;
        }
    }

    /// Handles a frame. Receipts that follow a receipt are taken with it: out of an [`InboundFrame`] each would be moved once
    /// more, through memory.
    #[inline]
    fn handle_frame(
        &mut self,
        frame: InboundFrame,
        following: &mut Frames,
        now: Now,
        deferred: &mut Deferred,
    ) -> Result<(), CloseReason> {
        match frame {
            InboundFrame::Message(head, raw) => {
                self.connection.handle_data_frame("MESSAGE")?;
                self.collect_message(head, raw, now, deferred);
                Ok(())
            }
            InboundFrame::Receipt(receipt) => {
                self.connection.handle_data_frame("SEND_RECEIPT")?;
                self.inbound.receipts.push(receipt);
                while let Some(receipt) = following.next_receipt() {
                    self.inbound.receipts.push(receipt);
                }
                Ok(())
            }
            InboundFrame::Control(command) => match self.connection.handle_command(*command)? {
                Some(event) => self.handle_event(event, now, deferred),
                None => Ok(()),
            },
            InboundFrame::Send => Err(self.connection.handle_send()),
            InboundFrame::Unknown => {
                self.connection.handle_unknown();
                Ok(())
            }
        }
    }

    #[inline]
    fn collect_message(&mut self, head: MessageHead, raw: Bytes, now: Now, deferred: &mut Deferred) {
        let consumer = ConsumerId(head.consumer_id);
        if self.inbound.consumer != Some(consumer) || self.inbound.entries.len() == ENTRIES_RUN_MAX {
            self.dispatch_entries(now, deferred);
            self.inbound.consumer = Some(consumer);
        }
        self.inbound.entries.push(ReceivedEntry::read(head, raw));
    }

    fn handle_event(&mut self, event: ConnectionEvent, now: Now, deferred: &mut Deferred) -> Result<(), CloseReason> {
        // It keeps its place behind the messages and receipts that came before it.
        self.dispatch(now, deferred)?;
        match event {
            ConnectionEvent::Connected(peer) => self.events.push_back(SessionEvent::Connected(peer)),
            ConnectionEvent::Challenge(challenge) => {
                // One at a time: a broker that repeats its challenge is answered once.
                if !std::mem::replace(&mut self.is_challenged, true) {
                    self.events.push_back(SessionEvent::Challenged(challenge));
                }
            }
            ConnectionEvent::Response(requester, response) => {
                self.handle_response(requester, response, now, deferred);
            }
            ConnectionEvent::Notification(id, command) => self.handle_notification(id, *command, now, deferred),
            ConnectionEvent::Closed(id, moved_to) => {
                let cause = Some(closed_by_broker());
                self.detach(id, cause, now, deferred, |attempt| SessionEvent::Detached(id, attempt, moved_to));
            }
            ConnectionEvent::Migrated(..) if mutation!(IgnoreMigrated) => {}
            ConnectionEvent::Migrated(id, url) => {
                let cause = Some(topic_migrated());
                self.detach(id, cause, now, deferred, |attempt| SessionEvent::Migrated(id, attempt, url));
            }
        }
        Ok(())
    }

    fn handle_notification(&mut self, id: EndpointId, command: Command, now: Now, deferred: &mut Deferred) {
        let Some(attachment) = self.attachments.get(&id) else { return };
        match attachment.endpoint.on_notification(command, now, deferred) {
            AfterNotification::Stay => {}
            AfterNotification::Reattach(cause) => {
                // It may attach over another connection, and the broker would keep this one, with its name, for ever.
                self.close_at_broker(id, now);
                self.detach(id, Some(cause), now, deferred, |attempt| SessionEvent::Detached(id, attempt, None));
            }
        }
    }

    /// Gives collected entries and receipts to their endpoints.
    fn dispatch(&mut self, now: Now, deferred: &mut Deferred) -> Result<(), CloseReason> {
        self.dispatch_entries(now, deferred);
        self.dispatch_receipts(now, deferred)
    }

    fn dispatch_entries(&mut self, now: Now, deferred: &mut Deferred) {
        let Some(id) = self.inbound.consumer.take() else { return };
        // Messages for a consumer that is not attached here any more are dropped: the broker delivers them again.
        if let Some(endpoint) = self.routes.consumers.get(&id) {
            let entries = &mut self.inbound.entries;
            endpoint.with_deferred(deferred, |consumer, deferred| consumer.on_entries(entries, now, deferred));
        }
        self.inbound.entries.clear();
    }

    fn dispatch_receipts(&mut self, now: Now, deferred: &mut Deferred) -> Result<(), CloseReason> {
        let mut receipts = std::mem::take(&mut self.inbound.receipts);
        let mut runs = receipts.chunk_by(|one, next| one.producer_id == next.producer_id);
        let result = runs.try_for_each(|run| self.dispatch_run(run, now, deferred));
        receipts.clear();
        self.inbound.receipts = receipts;
        result.map_err(CloseReason::ProtocolViolation)
    }

    /// Gives receipts of one producer to it.
    fn dispatch_run(&self, run: &[Receipt], now: Now, deferred: &mut Deferred) -> Result<(), ProtocolViolation> {
        let Some(id) = run.first().map(|receipt| ProducerId(receipt.producer_id)) else { return Ok(()) };
        if let Some(endpoint) = self.routes.producers.get(&id) {
            return endpoint.with_deferred(deferred, |producer, deferred| producer.on_receipts(run, now, deferred));
        }
        // Receipts that follow a CLOSE_PRODUCER are real. One that fits nothing does not end the connection here.
        let detached = self.detached.get(&EndpointId::Producer(id)).cloned();
        if let Some(DataRoute::Producer(endpoint)) = detached.map(|endpoint| endpoint.data_route()) {
            let _ = endpoint.with_deferred(deferred, |producer, deferred| producer.on_receipts(run, now, deferred));
        }
        Ok(())
    }
}

/// Says what may be wrong where a peer closed the connection without an answer to CONNECT, and its socket does not know.
pub(super) fn before_connected(reason: CloseReason, is_connected: bool, tls: bool) -> CloseReason {
    match reason {
        CloseReason::Io(error) if !is_connected && error.is_retriable() => {
            let hint = if tls { "" } else { "; a port for TLS, whose URL is pulsar+ssl:// or https://, does so" };
            let what = format!("the connection was closed without an answer to CONNECT{hint}");
            CloseReason::Io(Error::network(what).with_source(error))
        }
        other => other,
    }
}

/// Names the protocol of a peer that does not speak Pulsar, where its first bytes tell.
fn not_the_protocol(rx: &[u8], error: crate::wire::error::DecodeError) -> CloseReason {
    CloseReason::ProtocolViolation(match rx {
        [b'H', b'T', b'T', b'P', ..] => ProtocolViolation::new(
            "the peer speaks HTTP: this is the broker's web port; name it with an http:// URL, with TLS https://, or use the \
             binary port, by default pulsar://host:6650",
        ),
        [0x15, 0x03, ..] => {
            ProtocolViolation::new("the peer speaks TLS: its URL is pulsar+ssl://, or https:// where it is a web port")
        }
        _ => {
            let what = "the peer does not speak the Pulsar protocol, or its frame is damaged";
            ProtocolViolation::unreadable(what, error)
        }
    })
}
