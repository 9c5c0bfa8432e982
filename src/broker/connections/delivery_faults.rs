//! Faults on frames that leave the broker.

use bytes::{Bytes, BytesMut};

use super::{ConnectionState, Connections, ConsumerSlot};
use crate::broker::faults::{DeferredFault, FaultEffect, FaultEvent, HostileAct};
use crate::broker::ids::{ConnId, ConsumerKey};
use crate::wire::frame::{Frame, Limits, cut, frames};

impl Connections {
    /// The effect of a fault on the next MESSAGE for this consumer.
    pub(super) fn delivery_fault(&mut self, key: ConsumerKey) -> Option<FaultEffect> {
        if self.faults.is_idle() {
            return None;
        }
        let topic = self.consumer(key).and_then(ConsumerSlot::subscription).map(|(topic, _)| topic);
        let scripted = self.faults.take_effect(Some(FaultEvent::Delivery), topic.as_deref());
        scripted.or_else(|| match self.faults.hostile_act(key.conn, Some(FaultEvent::Delivery), None)? {
            HostileAct::Effect(effect) => Some(effect),
            // These are for requests.
            HostileAct::SendFirst(_) | HostileAct::Break(_) => None,
        })
    }

    /// Applies a fault to the MESSAGE that begins at `start`; returns how often it is sent.
    ///
    /// An effect beyond this outbox is deferred until the input that caused the delivery is done.
    pub(super) fn inject_into_delivery(&mut self, key: ConsumerKey, start: usize, effect: FaultEffect) -> u32 {
        let conn = key.conn;
        let Some(connection) = self.by_id.get_mut(&conn) else { return 1 };
        let out = &mut connection.outbox.bytes;
        match effect {
            FaultEffect::DuplicateResponse => {
                let message = Bytes::copy_from_slice(out.get(start..).unwrap_or_default());
                out.extend_from_slice(&message);
                return 2;
            }
            FaultEffect::DelayResponse { by } => {
                let bytes = out.split_off(start.min(out.len())).freeze();
                self.faults.defer(DeferredFault::SendLater { conn, bytes, by });
            }
            FaultEffect::Close { url } => self.faults.defer(DeferredFault::CloseConsumer { key, url }),
            FaultEffect::Disconnect => self.faults.defer(DeferredFault::Disconnect { conn }),
            // These are for requests and their responses.
            FaultEffect::RefuseRequest { .. }
            | FaultEffect::Redirect { .. }
            | FaultEffect::DropRequest
            | FaultEffect::RespondWith { .. }
            | FaultEffect::DropResponse
            | FaultEffect::ReverseResponses { .. } => {}
        }
        1
    }

    /// Bytes in the outbox now. [`Self::take_responses`] takes what is queued behind them.
    pub(crate) fn queued_bytes(&self, conn: ConnId) -> usize {
        self.get(conn).map_or(0, |connection| connection.outbox.bytes.len())
    }

    /// Takes the frames behind the first `queued` bytes of the outbox, except MESSAGEs: those are no responses.
    pub(crate) fn take_responses(&mut self, conn: ConnId, queued: usize) -> Bytes {
        let Some(connection) = self.get_mut(conn) else { return Bytes::new() };
        let out = &mut connection.outbox.bytes;
        if out.len() <= queued {
            return Bytes::new();
        }
        let mut since = out.split_off(queued);
        let mut responses = BytesMut::new();
        let limits = Limits::for_message_size(u32::MAX >> 1);
        while !since.is_empty() {
            let Some(size) = since.first_chunk::<4>().map(|size| u32::from_be_bytes(*size) as usize) else { break };
            let mut one = since.split_to(size.saturating_add(4).min(since.len()));
            let bytes = one.clone();
            let frame = cut(&mut one, &limits).ok().flatten().and_then(|run| frames(run).next());
            let is_message = matches!(frame, Some(Ok(Frame::Message { .. })));
            if is_message { out.extend_from_slice(&bytes) } else { responses.extend_from_slice(&bytes) }
        }
        responses.freeze()
    }

    /// Ends the connection now; what is queued is lost.
    pub(crate) fn cut(&mut self, conn: ConnId) {
        self.list(conn);
        if let Some(connection) = self.get_mut(conn) {
            connection.outbox.bytes.clear();
            connection.state = ConnectionState::Closing;
        }
    }

    /// Pauses reads on all current connections, and writes too with `writes`.
    pub(crate) fn pause_all(&mut self, writes: bool) {
        for connection in self.by_id.values_mut() {
            connection.reads_paused = true;
            connection.outbox.writes_paused |= writes;
        }
    }

    /// Resumes reads and writes on all connections.
    pub(crate) fn resume_all(&mut self) {
        for conn in self.ids() {
            let Some(connection) = self.get_mut(conn) else { continue };
            if connection.reads_paused || connection.outbox.writes_paused {
                connection.reads_paused = false;
                connection.outbox.writes_paused = false;
                self.list(conn);
            }
        }
    }
}
