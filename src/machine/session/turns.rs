//! Turns: who has something to do writes its quantum, and what is due is done.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::Waker;

use super::Session;
use crate::machine::connection::Requester;
use crate::machine::connection::peer::RequestError;
use crate::machine::consumer::Consumer;
use crate::machine::control::{Attempt, CloseReason};
use crate::machine::endpoint::outbox::{More, Outbox};
use crate::machine::producer::Producer;
use crate::machine::{Deadline, Deferred, Endpoint, EndpointId, Now, ReadyList};
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
        deferred: &mut Deferred,
    ) -> Result<(), CloseReason> {
        self.connection.poll_transmit(tx);
        self.take_marked(waker, false);
        let mut turns = self.ring.len();
        while turns > 0 && tx.len() < TX_BYTES_MAX {
            turns -= 1;
            let Some((id, attempt)) = self.ring.pop_front() else { break };
            self.serve(id, attempt, tx, now, deferred)?;
        }
        // Requests asked by the guests just now.
        self.connection.poll_transmit(tx);
        if self.ring.is_empty() {
            // The waker stays behind only where the list is found empty, and a turn that writes nothing is not
            // followed by another look.
            self.take_marked(waker, false);
        } else if tx.len() >= TX_BYTES_MAX {
            self.look_at_waiting(waker, now, deferred);
        }
        Ok(())
    }

    /// Nobody gets a turn while the peer takes no bytes; but what was accepted meanwhile has its deadline from now on,
    /// and who is marked next wakes the task.
    fn look_at_waiting(&mut self, waker: Option<&Waker>, now: Now, deferred: &mut Deferred) {
        self.take_marked(waker, true);
        let waiting: Vec<_> = self.ring.iter().map(|(id, _)| *id).collect();
        for id in waiting {
            let place = match id {
                EndpointId::Producer(key) => self.producers.get(&key).map(|guest| &guest.place),
                EndpointId::Consumer(key) => self.consumers.get(&key).map(|guest| &guest.place),
            };
            if place.is_some_and(|place| place.unseen) {
                self.expire(id, now, deferred);
            }
        }
    }

    /// Whoever is marked gets into the ring. `waker` stays behind if nobody is, or, if `all` are wanted, in any case.
    pub(super) fn take_marked(&mut self, waker: Option<&Waker>, all: bool) {
        let mut marked = std::mem::take(&mut self.marked);
        loop {
            self.ready.take(&mut marked, waker);
            if marked.is_empty() {
                break;
            }
            marked.drain(..).for_each(|id| self.give_turn(id));
            // Marks of endpoints that left fill no ring: then the list is looked at again, so that the waker stays.
            if !all && !self.ring.is_empty() {
                break;
            }
        }
        self.marked = marked;
    }

    /// Puts a guest at the end of the ring, unless it is in it already.
    pub(super) fn give_turn(&mut self, id: EndpointId) {
        let guest = match id {
            EndpointId::Producer(key) => self.producers.get_mut(&key).map(|guest| (&mut guest.place, guest.attempt)),
            EndpointId::Consumer(key) => self.consumers.get_mut(&key).map(|guest| (&mut guest.place, guest.attempt)),
        };
        if let Some((place, attempt)) = guest {
            place.unseen = true;
            if !std::mem::replace(&mut place.in_ring, true) {
                self.ring.push_back((id, attempt));
            }
        }
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
        let producers = self.producers.keys().map(|id| EndpointId::Producer(*id));
        let consumers = self.consumers.keys().map(|id| EndpointId::Consumer(*id));
        let mut all: Vec<_> = producers.chain(consumers).collect();
        all.sort_unstable();
        all.into_iter().for_each(|id| self.give_turn(id));
    }

    fn serve(
        &mut self,
        id: EndpointId,
        attempt: Attempt,
        tx: &mut TxBuf,
        now: Now,
        deferred: &mut Deferred,
    ) -> Result<(), CloseReason> {
        let mut out = Outbox::new(tx, QUANTUM_BYTES, &mut self.asks);
        let served = match id {
            EndpointId::Producer(key) => {
                let Some(guest) = self.producers.get_mut(&key).filter(|guest| guest.attempt == attempt) else {
                    return Ok(());
                };
                (guest.place.in_ring, guest.place.unseen) = (false, false);
                (serve_producer(&guest.endpoint, &self.ready, &mut out, now, deferred), &mut guest.place)
            }
            EndpointId::Consumer(key) => {
                let Some(guest) = self.consumers.get_mut(&key).filter(|guest| guest.attempt == attempt) else {
                    return Ok(());
                };
                (guest.place.in_ring, guest.place.unseen) = (false, false);
                (serve_consumer(&guest.endpoint, &self.ready, &mut out, now, deferred), &mut guest.place)
            }
        };
        for (op, command) in self.asks.drain(..) {
            self.connection.request(command, Requester::Endpoint(id, op), now);
        }
        let (Some(turn), place) = served else { return Ok(()) };
        if turn.unanswered {
            return Err(CloseReason::Io("the broker takes messages and sends no receipts".to_owned()));
        }
        if let Some(deadline) = turn.deadline {
            // One that moved later, or went away, shows when the guest is looked at.
            if place.look_by.is_none_or(|at| deadline.at < at) {
                place.look_by = Some(deadline.at);
                self.deadlines.set(id, turn.deadline);
            }
        }
        if turn.finished {
            self.finish(id, now);
        } else if turn.more == More::Yes {
            place.in_ring = true;
            self.ring.push_back((id, attempt));
        }
        Ok(())
    }

    /// When something is due.
    pub fn poll_deadline(&self) -> Option<Deadline> {
        Deadline::earlier(self.connection.poll_deadline(), self.deadlines.next())
    }

    /// Does what is due; guests that are due get a turn. An `Err` ends the connection.
    pub fn handle_deadline(&mut self, now: Now, deferred: &mut Deferred) -> Result<(), CloseReason> {
        self.connection.handle_deadline(now)?;
        while let Some(asker) = self.connection.poll_expired(now) {
            self.handle_answer(asker, Err(RequestError::TimedOut), now, deferred);
        }
        while let Some(id) = self.deadlines.pop_due(now) {
            if self.expire(id, now, deferred) {
                self.give_turn(id);
            }
        }
        Ok(())
    }

    /// What is overdue ends now: a peer that does not read gives its guests no turn to write, but no time either.
    /// Whether anything was due.
    fn expire(&mut self, id: EndpointId, now: Now, deferred: &mut Deferred) -> bool {
        let looked = match id {
            EndpointId::Producer(key) => self.producers.get_mut(&key).map(|guest| {
                let looked = guest.endpoint.serve(&self.ready, |producer| {
                    let due = producer.poll_deadline().is_some_and(|deadline| deadline.is_due(now));
                    producer.handle_deadline(now, deferred);
                    (due, producer.poll_deadline())
                });
                (looked, &mut guest.place)
            }),
            EndpointId::Consumer(key) => self.consumers.get_mut(&key).map(|guest| {
                let looked = guest.endpoint.serve(&self.ready, |consumer| {
                    let due = consumer.poll_deadline().is_some_and(|deadline| deadline.is_due(now));
                    consumer.handle_deadline(now, deferred);
                    (due, consumer.poll_deadline())
                });
                (looked, &mut guest.place)
            }),
        };
        let Some((Some((due, next)), place)) = looked else { return false };
        // One that is still due waits for its turn to write; asking again before that would spin.
        let next = next.filter(|deadline| !deadline.is_due(now));
        place.unseen = false;
        place.look_by = next.map(|deadline| deadline.at);
        self.deadlines.set(id, next);
        due
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
    deferred: &mut Deferred,
) -> Option<Turn> {
    let mut sealed = None;
    loop {
        let step = endpoint.serve(ready, |producer| {
            if let Some(sealed) = sealed.take() {
                producer.put_job(sealed, now, deferred);
            }
            if let Some(job) = producer.take_job(now) {
                return ControlFlow::Continue(job);
            }
            producer.handle_deadline(now, deferred);
            let more = producer.poll_transmit(out, now);
            ControlFlow::Break(Turn {
                more,
                deadline: producer.poll_deadline(),
                finished: producer.is_finished(),
                unanswered: producer.take_wants_reconnect(),
            })
        })?;
        match step {
            ControlFlow::Break(turn) => return Some(turn),
            // Sealing (compressing, summing) happens between two locks, so that users go on pushing meanwhile.
            ControlFlow::Continue(job) => sealed = Some(job.run()),
        }
    }
}

fn serve_consumer(
    endpoint: &Endpoint<Consumer>,
    ready: &Arc<ReadyList>,
    out: &mut Outbox<'_>,
    now: Now,
    deferred: &mut Deferred,
) -> Option<Turn> {
    endpoint.serve(ready, |consumer| {
        consumer.handle_deadline(now, deferred);
        let more = consumer.poll_transmit(out, now);
        Turn { more, deadline: consumer.poll_deadline(), finished: consumer.is_finished(), unanswered: false }
    })
}
