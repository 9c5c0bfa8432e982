//! What the consumer writes, and in which order.

use super::{Consumer, Now};
use crate::machine::EndpointId;
use crate::machine::endpoint::outbox::{More, Op, OpKind, Outbox};
use crate::wire::put_flow;

impl Consumer {
    /// Writes what is due, up to the quantum of `out`, in this order:
    ///
    /// 1. Acknowledgements. Before a rewind or a close all of them are due, or their messages would come again.
    /// 2. Redelivery requests.
    /// 3. Permits, as long as messages are wanted.
    /// 4. Operations.
    /// 5. The close, once no operation waits for its answer.
    pub fn poll_transmit(&mut self, out: &mut Outbox<'_>, now: Now) -> More {
        if !self.lifecycle.is_attached() || self.lifecycle.is_close_sent() {
            return More::No;
        }
        let id = self.id.0;
        let flush = self.lifecycle.is_closing() || self.redelivery.has_pending() || self.acks.is_due(now);
        if flush && !self.acks.transmit(id, out) {
            return More::Yes;
        }
        if !self.redelivery.transmit(id, out) {
            return More::Yes;
        }
        if self.lifecycle.is_receiving() && self.may_grant() {
            self.transmit_flow(out, now);
        }
        if self.operations.is_seek_waiting() {
            // Those of before were written just now; what is known of batches is void once the position moves.
            self.acks.reset();
        }
        self.operations.send(id, |op, command| out.request(op, command));
        self.transmit_close(out);
        More::No
    }

    /// Whether the application wants messages.
    pub(super) fn may_grant(&self) -> bool {
        !self.is_paused || mutation!(PausedGrants)
    }

    fn transmit_flow(&mut self, out: &mut Outbox<'_>, now: Now) {
        while let Some(permits) = self.queue.take_flow(self.counters.received(), now.at) {
            put_flow(out.tx.flat(), self.id.0, permits);
        }
    }

    /// The close follows the last answer: a broker answers nothing for a consumer that it does not know any more.
    fn transmit_close(&mut self, out: &mut Outbox<'_>) {
        if !self.lifecycle.is_closing() || !self.operations.is_empty() {
            return;
        }
        let number = self.operations.next_number();
        self.lifecycle.set_close_sent(number);
        out.request(Op { kind: OpKind::Close, number }, EndpointId::Consumer(self.id).close_request());
    }
}
