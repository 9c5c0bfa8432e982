//! Close, failure, and the end of the producer.

use std::time::Instant;

use super::{AttachPhase, Producer};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::connection::error::RequestError;
use crate::machine::endpoint::outbox::{Op, OpKind, Outbox, Response};
use crate::machine::{Deferred, Now, ReplyTo};
use crate::machine::{Dirty, EndpointId};

/// The lifecycle, as the application requests it.
///
/// ```text
///         close              all settled, and CLOSE_PRODUCER answered
///  Open ---------> Closing -------------------------------------------> Finished
///    |                |             (or there is no broker to close at)     ^
///    +----------------+-----------------------------------------------------+
///                       fail, creation deadline, terminated
/// ```
#[derive(Debug, Default)]
pub(super) enum LifecycleState {
    #[default]
    Open,
    Closing(Box<Closing>),
    /// With the error that every later call gets.
    Finished(Error),
}

#[derive(Debug)]
pub(super) struct Closing {
    replies: Vec<ReplyTo<()>>,
    /// The number of the CLOSE_PRODUCER that waits for its answer.
    request: Option<u64>,
    /// When sending what is left, and after that closing, has taken too long.
    deadline: Option<Instant>,
    /// Everything accepted is settled, or was given up.
    is_drained: bool,
}

/// [`LifecycleState`], and what is known of the close at brokers.
#[derive(Debug, Default)]
pub(super) struct Lifecycle {
    state: LifecycleState,
    /// CLOSE_PRODUCER requests so far; the last one has this number.
    close_requests: u64,
    /// The broker of the last attach has answered CLOSE_PRODUCER.
    is_closed_at_broker: bool,
}

impl Lifecycle {
    pub(super) fn state(&self) -> &LifecycleState {
        &self.state
    }

    #[inline]
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, LifecycleState::Open)
    }

    /// When a close is overdue.
    pub(super) fn close_deadline(&self) -> Option<Instant> {
        match &self.state {
            LifecycleState::Closing(closing) => closing.deadline,
            LifecycleState::Open | LifecycleState::Finished(_) => None,
        }
    }

    pub(super) fn on_attached(&mut self) {
        self.is_closed_at_broker = false;
    }

    /// An answer to CLOSE_PRODUCER will not come any more.
    pub(super) fn on_detached(&mut self) {
        if let LifecycleState::Closing(closing) = &mut self.state {
            closing.request = None;
        }
    }
}

impl Producer {
    /// Accepts no more messages, sends what was accepted, closes at the broker, and answers.
    ///
    /// What was accepted has its send timeout, or, without one, the operation timeout, counted from now; the close
    /// itself has the operation timeout. Tasks that wait for capacity get an error. Closing twice is fine; closing a
    /// producer that is finished already succeeds.
    pub fn close(&mut self, reply: Option<ReplyTo<()>>, now: Now, deferred: &mut Deferred) {
        match &mut self.lifecycle.state {
            LifecycleState::Finished(_) => {
                if let Some(reply) = reply {
                    reply.send(Ok(()), deferred);
                }
                return;
            }
            LifecycleState::Closing(closing) => closing.replies.extend(reply),
            LifecycleState::Open => {
                self.lifecycle.state = LifecycleState::Closing(Box::new(Closing {
                    replies: reply.into_iter().collect(),
                    request: None,
                    deadline: now.at.checked_add(self.drain_timeout()),
                    is_drained: false,
                }));
                self.close_batch();
                self.capacity.waiters.remove_all(deferred);
                self.capacity.offer(deferred);
            }
        }
        self.dirty = Dirty::Now;
        self.advance_close(Some(now), deferred);
    }

    /// Moves a closing producer with nothing left to its next step: to the end where there is no broker to close at,
    /// else to CLOSE_PRODUCER, which the owner writes and which has a time limit of its own. Without `now`, that
    /// limit starts when CLOSE_PRODUCER is written.
    pub(super) fn advance_close(&mut self, now: Option<Now>, deferred: &mut Deferred) {
        let is_idle = self.is_idle();
        let LifecycleState::Closing(closing) = &mut self.lifecycle.state else { return };
        if !is_idle {
            return;
        }
        match self.attach.phase() {
            AttachPhase::Detached => self.finish(self.closed_error(), Ok(()), deferred),
            AttachPhase::Opening | AttachPhase::Attached => {
                self.dirty = Dirty::Now;
                if let (false, Some(now)) = (closing.is_drained, now) {
                    closing.is_drained = true;
                    closing.deadline = now.at.checked_add(self.config.operation_timeout);
                }
            }
        }
    }

    /// Requests CLOSE_PRODUCER if a close has nothing left to send, and no request waits for its answer.
    pub(super) fn request_close(&mut self, out: &mut Outbox<'_>, now: Now) {
        let is_idle = self.is_idle();
        let LifecycleState::Closing(closing) = &mut self.lifecycle.state else { return };
        if !is_idle || closing.request.is_some() {
            return;
        }
        self.lifecycle.close_requests += 1;
        let number = self.lifecycle.close_requests;
        closing.request = Some(number);
        closing.is_drained = true;
        closing.deadline = now.at.checked_add(self.config.operation_timeout);
        out.request(Op { kind: OpKind::Close, number }, EndpointId::Producer(self.id).close_request());
    }

    /// The response to what [`poll_transmit`](Self::poll_transmit) requested.
    pub fn on_response(&mut self, op: Op, response: Response, _now: Now, deferred: &mut Deferred) {
        let LifecycleState::Closing(closing) = &self.lifecycle.state else { return };
        if op.kind != OpKind::Close || closing.request != Some(op.number) {
            return;
        }
        let result = match response {
            Ok(_) => {
                self.lifecycle.is_closed_at_broker = true;
                Ok(())
            }
            // The broker forgets producers with their connection.
            Err(RequestError::Disconnected) => Ok(()),
            Err(error) => Err(error.into_error("closing the producer").with_topic(&self.topic)),
        };
        self.finish(self.closed_error(), result, deferred);
    }

    /// Gives up a close that has taken too long.
    ///
    /// | what took too long | what follows |
    /// | --- | --- |
    /// | sending the rest, while a broker has the producer | the rest fails; CLOSE_PRODUCER has its own time limit |
    /// | sending the rest, while detached | the rest fails, and so does the close |
    /// | the answer to CLOSE_PRODUCER | the close fails |
    pub(super) fn give_up_closing(&mut self, now: Now, deferred: &mut Deferred) {
        let LifecycleState::Closing(closing) = &self.lifecycle.state else { return };
        let is_over = closing.is_drained || self.attach.phase() == AttachPhase::Detached;
        let error = self.close_timeout_error(closing.is_drained, now);
        self.fail_pending(&error, deferred);
        if is_over {
            self.finish(self.closed_error(), Err(error), deferred);
        } else {
            self.advance_close(Some(now), deferred);
        }
    }

    /// Ends the producer because of `error`: all that waits on it ends with that, and so do later calls. Does nothing
    /// if it is finished already.
    pub fn fail(&mut self, error: Error, deferred: &mut Deferred) {
        if !self.is_finished() {
            let error = error.with_topic(&self.topic);
            self.finish(error.clone(), Err(error), deferred);
        }
    }

    /// Ends everything. Sends that are not settled and later calls get `later`, the callers of close `result`.
    pub(super) fn finish(&mut self, later: Error, result: Result<()>, deferred: &mut Deferred) {
        let state = std::mem::replace(&mut self.lifecycle.state, LifecycleState::Finished(later.clone()));
        self.attach_status.on_finished(&later, deferred);
        self.report_end(&later, deferred);
        self.dirty = Dirty::Now;
        self.attach.end(&later, deferred);
        self.close_batch();
        self.capacity.waiters.remove_all(deferred);
        self.fail_all(&later, deferred);
        self.sealing.discard_queue();
        self.after_settling(deferred);
        if let LifecycleState::Closing(closing) = state {
            for reply in closing.replies {
                reply.send(result.clone(), deferred);
            }
        }
    }

    /// Fails every send that was accepted. The producer stays open.
    pub(super) fn fail_pending(&mut self, error: &Error, deferred: &mut Deferred) {
        self.close_batch();
        self.fail_all(error, deferred);
        self.sealing.discard_queue();
        self.dirty = Dirty::Now;
        self.after_settling(deferred);
    }

    /// Ends every send that is not settled.
    fn fail_all(&mut self, error: &Error, deferred: &mut Deferred) {
        while let Some((group, _)) = self.in_flight.front() {
            let may_be_stored = group.transmitted;
            self.settle_failed(0, error.clone(), may_be_stored, deferred);
        }
    }

    /// Whether it was closed, and may still have something to send.
    pub fn is_closing(&self) -> bool {
        matches!(self.lifecycle.state, LifecycleState::Closing(_))
    }

    /// Whether it is closed or failed, so that its owner can forget it.
    pub fn is_finished(&self) -> bool {
        matches!(self.lifecycle.state, LifecycleState::Finished(_))
    }

    /// Whether nothing is left to close at the broker: it has answered CLOSE_PRODUCER, or never heard of the producer.
    pub fn is_closed_at_broker(&self) -> bool {
        self.lifecycle.is_closed_at_broker || !self.attach.was_requested()
    }

    fn closed_error(&self) -> Error {
        Error::local(ErrorKind::Closed, "the producer is closed").with_topic(&self.topic)
    }
}
