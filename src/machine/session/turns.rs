//! Turns: who has something to do writes its quantum, and what is due is done.

use std::sync::Arc;
use std::task::Waker;

use super::Session;
use crate::machine::connection::Asker;
use crate::machine::consumer::Consumer;
use crate::machine::control::{CloseReason, RequestError};
use crate::machine::outbox::{More, Outbox};
use crate::machine::producer::Producer;
use crate::machine::{Deadline, Endpoint, EndpointId, Now, ReadyList, Wakes};
use crate::wire::tx::TxBuf;

/// What one endpoint may write in its turn, so that a thousand of them share a connection evenly.
pub(super) const QUANTUM_BYTES: usize = 64 * 1024;

/// No endpoint gets a turn while this much waits to be written.
const TX_BYTES_MAX: usize = 256 * 1024;

impl Session {
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

    /// Whether a guest waits for its turn and `tx` has room for it: then [`poll_transmit`](Self::poll_transmit) is to be
    /// called again, for nobody will wake the task.
    pub fn wants_transmit(&self, tx: &TxBuf) -> bool {
        !self.ring.is_empty() && tx.len() < TX_BYTES_MAX
    }

    /// Gives every guest a turn at the next [`poll_transmit`](Self::poll_transmit): one that then does something had
    /// not been marked when it should have been.
    #[cfg(feature = "sim")]
    pub(crate) fn mark_all(&mut self) {
        self.ring.extend(self.producers.keys().map(|id| EndpointId::Producer(*id)));
        self.ring.extend(self.consumers.keys().map(|id| EndpointId::Consumer(*id)));
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
