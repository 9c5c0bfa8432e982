//! What faults do to frames on their way out of the broker.

use bytes::{Bytes, BytesMut};

use super::{ConnectionState, Connections, ConsumerSlot};
use crate::broker::faults::{FaultEffect, FaultEvent, PendingFault};
use crate::broker::ids::{ConnId, ConsumerKey};
use crate::wire::frame::{Frame, Limits, cut, frames};

impl Connections {
    /// The effect of a fault on the next MESSAGE for this consumer.
    pub(super) fn delivery_fault(&mut self, key: ConsumerKey) -> Option<FaultEffect> {
        if self.faults.is_idle() {
            return None;
        }
        let topic = self.consumer(key).and_then(ConsumerSlot::subscription).map(|(topic, _)| topic);
        self.faults.take_effect(Some(FaultEvent::Delivery), topic.as_deref())
    }

    /// Applies a fault to the MESSAGE that begins at `start`; gives how often it goes out.
    ///
    /// What concerns more than this outbox is put off until the input that made the delivery is done.
    pub(super) fn inject_into_delivery(&mut self, key: ConsumerKey, start: usize, effect: FaultEffect) -> u32 {
        let conn = key.conn;
        let Some(connection) = self.by_id.get_mut(&conn) else { return 1 };
        let out = &mut connection.outbox.bytes;
        match effect {
            FaultEffect::Duplicate => {
                let message = Bytes::copy_from_slice(out.get(start..).unwrap_or_default());
                out.extend_from_slice(&message);
                return 2;
            }
            FaultEffect::Delay(after) => {
                let bytes = out.split_off(start.min(out.len())).freeze();
                self.faults.put_off(PendingFault::SendLater { conn, bytes, after });
            }
            FaultEffect::Close { url } => self.faults.put_off(PendingFault::CloseConsumer { key, url }),
            FaultEffect::Cut => self.faults.put_off(PendingFault::Cut { conn }),
            // These are about requests and their answers.
            FaultEffect::Refuse(_)
            | FaultEffect::Redirect { .. }
            | FaultEffect::Ignore
            | FaultEffect::AnswerWith(_)
            | FaultEffect::Withhold
            | FaultEffect::Reverse(_) => {}
        }
        1
    }

    /// How many bytes are queued now: answers that follow are found by it.
    pub(crate) fn mark(&self, conn: ConnId) -> usize {
        self.get(conn).map_or(0, |connection| connection.outbox.bytes.len())
    }

    /// Takes the frames that were queued since `mark`, MESSAGEs excepted: those answer nothing.
    pub(crate) fn take_answers(&mut self, conn: ConnId, mark: usize) -> Bytes {
        let Some(connection) = self.get_mut(conn) else { return Bytes::new() };
        let out = &mut connection.outbox.bytes;
        if out.len() <= mark {
            return Bytes::new();
        }
        let mut since = out.split_off(mark);
        let mut answers = BytesMut::new();
        let limits = Limits::for_message_size(u32::MAX >> 1);
        while !since.is_empty() {
            let Some(size) = since.first_chunk::<4>().map(|size| u32::from_be_bytes(*size) as usize) else { break };
            let mut one = since.split_to(size.saturating_add(4).min(since.len()));
            let bytes = one.clone();
            let frame = cut(&mut one, &limits).ok().flatten().and_then(|run| frames(run).next());
            let is_message = matches!(frame, Some(Ok(Frame::Message { .. })));
            if is_message { out.extend_from_slice(&bytes) } else { answers.extend_from_slice(&bytes) }
        }
        answers.freeze()
    }

    /// Ends the connection now; what is queued is lost.
    pub(crate) fn cut(&mut self, conn: ConnId) {
        self.list(conn);
        if let Some(connection) = self.get_mut(conn) {
            connection.outbox.bytes.clear();
            connection.state = ConnectionState::Closing;
        }
    }

    /// Leaves what clients send unread from now on, on all connections there are; with `writes`, writes nothing either.
    pub(crate) fn pause_all(&mut self, writes: bool) {
        for connection in self.by_id.values_mut() {
            connection.reads_paused = true;
            connection.outbox.writes_paused |= writes;
        }
    }

    /// Reads and writes again.
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
