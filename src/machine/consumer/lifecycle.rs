//! From the first SUBSCRIBE to the end: the state of the attachment, close, failure.
//!
//! A consumer ends in two steps. Once it has *ended*, nothing is received any more and every call gets the reason, but
//! acknowledgements and operations may still be on their way. Once it is *finished*, its owner can forget it.

use super::{Consumer, Deadline, Deferred, EndpointId, Now, ReplyTo};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::Dirty;
use crate::machine::connection::error::RequestError;
use crate::machine::endpoint::outbox::Response;

/// What a close is called in errors.
const CLOSE_DESCRIPTION: &str = "the close of the consumer";

/// ```text
///               subscribe_request             on_attached
///  Detached ----------------------> Opening ---------------> Attached
///     ^                                |                        |
///     +--------------------------------+------------------------+  on_detached
///
///  from every state: fail, subscribe or close timeout, closed, unsubscribed ---> Finished
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConsumerState {
    Detached,
    Opening,
    Attached,
    Finished,
}

/// The first attach, which the application waits for.
#[derive(Debug)]
struct Subscribing {
    reply: ReplyTo<()>,
    deadline: Option<Deadline>,
}

/// A close that was requested.
#[derive(Debug)]
struct ConsumerClose {
    /// Bounded by the callers that wait.
    replies: Vec<ReplyTo<()>>,
    deadline: Option<Deadline>,
    /// The number of the CLOSE_CONSUMER that waits for its answer.
    request: Option<u64>,
}

/// The state of one consumer from the first SUBSCRIBE to its end.
#[derive(Debug)]
pub(super) struct ConsumerLifecycle {
    state: ConsumerState,
    /// Until the first attach or the end.
    subscribing: Option<Box<Subscribing>>,
    close: Option<Box<ConsumerClose>>,
    /// Why nothing is received any more, and every call is refused.
    ended: Option<Error>,
    /// What the receiving side gets from [`Consumer::stop_receiving`] on.
    stopped: Option<Error>,
    /// The broker has no such consumer, or CLOSE_CONSUMER was sent.
    is_closed_at_broker: bool,
}

impl ConsumerLifecycle {
    pub(super) fn new(subscribed: ReplyTo<()>, deadline: Option<Deadline>) -> Self {
        Self {
            state: ConsumerState::Detached,
            subscribing: Some(Box::new(Subscribing { reply: subscribed, deadline })),
            close: None,
            ended: None,
            stopped: None,
            is_closed_at_broker: false,
        }
    }

    #[inline]
    pub(super) fn is_attached(&self) -> bool {
        self.state == ConsumerState::Attached
    }

    pub(super) fn is_finished(&self) -> bool {
        self.state == ConsumerState::Finished
    }

    pub(super) fn is_closed_at_broker(&self) -> bool {
        self.is_closed_at_broker
    }

    /// Why nothing is received any more, once that is so.
    #[inline]
    pub(super) fn ended(&self) -> Option<&Error> {
        self.ended.as_ref()
    }

    /// Why the application gets no more messages, once that is so: it has ended, or was stopped.
    pub(super) fn end_of_receiving(&self) -> Option<&Error> {
        self.ended.as_ref().or(self.stopped.as_ref())
    }

    /// [`Consumer::stop_receiving`] was called.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// Whether messages that arrive are for the application.
    #[inline]
    pub(super) fn is_receiving(&self) -> bool {
        self.is_attached() && self.end_of_receiving().is_none()
    }

    /// A close was requested.
    pub(super) fn is_closing(&self) -> bool {
        self.close.is_some()
    }

    /// CLOSE_CONSUMER was sent: the broker does not know this consumer any more.
    pub(super) fn is_close_sent(&self) -> bool {
        self.close.as_ref().is_some_and(|close| close.request.is_some())
    }

    /// CLOSE_CONSUMER is sent now, as `number`.
    pub(super) fn set_close_sent(&mut self, number: u64) {
        if let Some(close) = &mut self.close {
            close.request = Some(number);
            self.is_closed_at_broker = true;
        }
    }

    pub(super) fn set_opening(&mut self) {
        if self.state == ConsumerState::Detached {
            self.state = ConsumerState::Opening;
        }
    }

    pub(super) fn set_attached(&mut self, deferred: &mut Deferred) {
        self.state = ConsumerState::Attached;
        self.reply_subscribed(Ok(()), deferred);
    }

    pub(super) fn set_detached(&mut self) {
        self.state = ConsumerState::Detached;
    }

    /// Until when the first attach is waited for.
    pub(super) fn subscribe_deadline(&self) -> Option<Deadline> {
        self.subscribing.as_ref().and_then(|subscribing| subscribing.deadline)
    }

    /// Until when the close is waited for.
    pub(super) fn close_deadline(&self) -> Option<Deadline> {
        self.close.as_ref().and_then(|close| close.deadline)
    }

    /// Whether it was attached before.
    pub(super) fn was_attached(&self) -> bool {
        self.subscribing.is_none()
    }

    /// Ends the wait for the first attach.
    fn reply_subscribed(&mut self, result: Result<()>, deferred: &mut Deferred) {
        if let Some(subscribing) = self.subscribing.take() {
            subscribing.reply.send(result, deferred);
        }
    }
}

impl Consumer {
    /// Stops: nothing more is received, what was acknowledged is sent, then CLOSE_CONSUMER. The subscription stays.
    /// `reply` is answered when the broker has confirmed it, at the latest after `operation_timeout`; without a
    /// connection and with nothing to send, immediately. A second close waits for the first.
    pub fn close(&mut self, reply: Option<ReplyTo<()>>, now: Now, deferred: &mut Deferred) {
        if self.lifecycle.is_finished() {
            if let Some(reply) = reply {
                reply.send(Ok(()), deferred);
            }
            return;
        }
        self.dirty = Dirty::Now;
        if let Some(close) = &mut self.lifecycle.close {
            close.replies.extend(reply);
            return;
        }
        let deadline = Deadline::after(now, self.config.operation_timeout, "close of a consumer");
        let close = ConsumerClose { replies: reply.into_iter().collect(), deadline, request: None };
        self.lifecycle.close = Some(Box::new(close));
        let closed = self.closed_error();
        self.lifecycle.reply_subscribed(Err(closed.clone()), deferred);
        self.end(closed, deferred);
        self.finish_if_closed_while_detached(deferred);
    }

    /// The first half of a drain: nothing more is given to the application or granted to the broker, and what is queued
    /// comes again after the close. Acknowledgements are taken and sent until then.
    pub fn stop_receiving(&mut self, deferred: &mut Deferred) {
        if self.lifecycle.end_of_receiving().is_some() {
            return;
        }
        let stopped = Error::local(ErrorKind::Closed, "the consumer is drained").with_topic(&self.topic);
        self.lifecycle.stopped = Some(stopped);
        self.is_paused = true;
        self.acks.on_stopped(self.lifecycle.is_attached());
        self.redelivery.reset();
        self.stop_input(deferred);
    }

    /// Whether [`stop_receiving`](Self::stop_receiving) was called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.lifecycle.is_stopped()
    }

    /// Since a [`stop_receiving`](Self::stop_receiving): how many acknowledgements the broker may not have, in entries, and
    /// in members of batches that are not acknowledged to their end. Those on a connection that is not lost are certain
    /// once the close is answered.
    #[must_use]
    pub fn unconfirmed_acks(&self) -> u64 {
        self.acks.unconfirmed()
    }

    pub(super) fn on_close_response(&mut self, number: u64, response: Response, deferred: &mut Deferred) {
        if self.lifecycle.close.as_ref().is_none_or(|close| close.request != Some(number)) {
            return;
        }
        let result = match response {
            Ok(_) => {
                self.acks.on_confirmed();
                Ok(())
            }
            // A connection that is gone has taken its consumers along.
            Err(RequestError::Disconnected) => {
                self.acks.on_connection_lost(self.lifecycle.is_stopped());
                Ok(())
            }
            Err(error) => Err(error.into_error(CLOSE_DESCRIPTION).with_topic(&self.topic)),
        };
        self.finish(result, deferred);
    }

    /// A detached consumer is closed at the broker already: its close is done once nothing waits to be sent.
    pub(super) fn finish_if_closed_while_detached(&mut self, deferred: &mut Deferred) {
        let is_detached = self.lifecycle.state == ConsumerState::Detached;
        let has_unsent = self.acks.has_pending() || !self.operations.is_empty();
        if self.lifecycle.is_closing() && is_detached && !has_unsent {
            self.finish(Ok(()), deferred);
        }
    }

    /// The first attach has taken too long.
    pub(super) fn on_subscribe_timeout(&mut self, now: Now, deferred: &mut Deferred) {
        let what = format!("not subscribed within {:?}", self.config.operation_timeout);
        self.fail(self.attach_status.timed_out(&what, now), deferred);
    }

    /// The close has taken too long.
    pub(super) fn on_close_timeout(&mut self, now: Now, deferred: &mut Deferred) {
        let what = format!("the consumer was not closed within {:?}", self.config.operation_timeout);
        let late = self.attach_status.timed_out(&what, now).with_topic(&self.topic);
        self.finish(Err(late), deferred);
    }

    /// The subscription was deleted, and this consumer with it: there is nothing left to close.
    pub(super) fn on_unsubscribed(&mut self, deferred: &mut Deferred) {
        self.lifecycle.is_closed_at_broker = true;
        let gone = Error::local(ErrorKind::Closed, "the subscription was deleted by unsubscribe");
        self.end(gone.with_topic(&self.topic), deferred);
        self.finish(Ok(()), deferred);
    }

    /// Ends it with `error`: every caller that waits gets it, and every later call.
    pub fn fail(&mut self, error: Error, deferred: &mut Deferred) {
        if self.lifecycle.is_finished() {
            return;
        }
        let error = error.with_topic(&self.topic);
        if self.lifecycle.ended.is_none() {
            self.end(error.clone(), deferred);
        }
        self.finish(Err(error), deferred);
    }

    /// The first step of the end: nothing is received any more.
    fn end(&mut self, error: Error, deferred: &mut Deferred) {
        self.lifecycle.ended = Some(error);
        self.stop_input(deferred);
    }

    /// The receiving side finds nothing any more but why.
    fn stop_input(&mut self, deferred: &mut Deferred) {
        self.stall.on_detached();
        self.operations.drop_stall_checks();
        self.clear_queue();
        self.queue.notify(EndpointId::Consumer(self.id), deferred);
    }

    /// The second step: nothing is sent any more. `closed` is for the callers that wait for the close; all others get
    /// its error, or else the reason of the end.
    pub(super) fn finish(&mut self, closed: Result<()>, deferred: &mut Deferred) {
        self.lifecycle.state = ConsumerState::Finished;
        self.dirty = Dirty::Now;
        // The others share what it had.
        self.queue.set_budget(None);
        let gone = match (&closed, &self.lifecycle.ended) {
            (Err(error), _) | (Ok(()), Some(error)) => error.clone(),
            (Ok(()), None) => self.closed_error(),
        };
        self.attach_status.on_finished(self.lifecycle.ended().unwrap_or(&gone), deferred);
        self.lifecycle.reply_subscribed(Err(gone.clone()), deferred);
        self.operations.fail_all(&gone, deferred);
        for reply in self.lifecycle.close.take().into_iter().flat_map(|close| close.replies) {
            reply.send(closed.clone(), deferred);
        }
        if self.lifecycle.ended.is_none() {
            self.end(gone, deferred);
        }
        self.acks.give_up();
        self.redelivery.reset();
    }

    fn closed_error(&self) -> Error {
        Error::local(ErrorKind::Closed, "the consumer is closed").with_topic(&self.topic)
    }
}
